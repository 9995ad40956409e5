/* Experts as weights: how alike the routed experts of a layer are. No model is made: its
 * table of parameters tells which tensors each expert consists of, and these are read in pieces. */
#include "base/blas.h"
#include "dit/params.h"
#include "ditmoe_routing.h"
#include "eval/metrics.h"
#include "io/packed.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
  DEFAULT_RANK = 8,
  PARTS = 6,    /* at most: gate, up and down, or in and out, and biases */
  PIECE = 4096, /* values that are read of each expert at a time         */
  ROWS = 256    /* rows of a matrix that are read at a time              */
};

struct weights {    /* tensors of an expert; none if it copies or drops its token */
  int count, first; /* first: the leading ones are the matrices of the first product */
  const struct tensor *part[PARTS];
};

struct measure {
  struct ditmoe_ctx *ctx;
  const struct ditmoe_checkpoint *checkpoint;
  const struct dit *model;
  struct weights *weights; /* [depth, E] */
  int E, D, rank;
  struct ditmoe_similarity *out;
  /* Room for one layer. Matrices are column-major, as LAPACK has them. */
  struct tensor *gate_row;        /* [E] views of the router's rows            */
  struct weights *gate;           /* [E]                                       */
  float *raw;                     /* [max(PIECE, ROWS D)] as read              */
  double *piece;                  /* [max(E PIECE, ROWS D)]                    */
  double *gram;                   /* [E, E]                                    */
  double *moment;                 /* [D, D] W^T W                              */
  double *values, *space;         /* [D], [space_size] of the eigen-solver     */
  lapack_int *support, *integers; /* [2 D], [10 D]                             */
  double *vectors;                /* [E, rank, D]; NaN: the expert has none    */
  double *overlap;                /* [rank, rank]                              */
};

static lapack_int space_size(const struct measure *m) { return 64 * m->D; }

/* The products of each expert, one after the other. */
static enum ditmoe_status find_weights(struct measure *m, struct params *params) {
  const struct dit *model = m->model;
  for (int l = 0; l < model->config.depth; l++) {
    const struct dit_moe *moe = model->blocks[l].moe;
    if (moe && moe->bank.count > m->E) m->E = moe->bank.count;
  }
  TRY(mem_zalloc(m->ctx, (size_t)model->config.depth * (size_t)m->E, sizeof *m->weights, "experts",
                 &m->weights));
  for (size_t g = 0; g < params->group_count; g++) {
    const struct param_group *group = &params->group[g];
    const struct param *row = &params->row[group->first];
    if (row->expert < 0) continue;
    struct weights *w = &m->weights[row->layer * m->E + row->expert];
    if (w->count == 0) w->first = group->weights;
    for (int i = 0; i < group->weights + group->biases; i++) w->part[w->count++] = row[i].source;
    params_inspect(params, group, false);
  }
  return DITMOE_OK;
}

static bool same_shapes(const struct weights *a, const struct weights *b) {
  if (a->count == 0 || a->count != b->count) return false;
  for (int p = 0; p < a->count; p++)
    if (a->part[p]->rank != b->part[p]->rank ||
        memcmp(a->part[p]->shape, b->part[p]->shape,
               (size_t)a->part[p]->rank * sizeof *a->part[p]->shape) != 0)
      return false;
  return true;
}

static void read_values(const struct measure *m, double *out, const struct tensor *tensor,
                        int64_t first, int64_t count) {
  tensor_read_f32(m->raw, tensor, first, count);
  for (int64_t i = 0; i < count; i++) out[i] = (double)m->raw[i];
}

/* Values first .. first + n - 1 of part p, a column for each expert; 0 where it is shorter:
 * products of experts of different sizes are not used. */
static void read_piece(const struct measure *m, const struct weights *experts, int p, int64_t first,
                       int n) {
  memset(m->piece, 0, (size_t)m->E * (size_t)n * sizeof *m->piece);
  for (int e = 0; e < m->E; e++) {
    const struct weights *w = &experts[e];
    const int64_t left = p < w->count ? w->part[p]->elements - first : 0;
    if (left > 0)
      read_values(m, m->piece + (size_t)e * (size_t)n, w->part[p], first, left < n ? left : n);
  }
}

static int64_t longest_part(const struct measure *m, const struct weights *experts, int p) {
  int64_t longest = 0;
  for (int e = 0; e < m->E; e++)
    if (p < experts[e].count && experts[e].part[p]->elements > longest)
      longest = experts[e].part[p]->elements;
  return longest;
}

static float cosine(double product, double a, double b) { return (float)(product / sqrt(a * b)); }

/* out [E, E] */
static void measure_cosines(const struct measure *m, const struct weights *experts, float *out) {
  const int E = m->E;
  memset(m->gram, 0, (size_t)E * (size_t)E * sizeof *m->gram);
  for (int p = 0; p < PARTS; p++) {
    const int64_t longest = longest_part(m, experts, p);
    for (int64_t first = 0; first < longest; first += PIECE) {
      const int n = longest - first < PIECE ? (int)(longest - first) : PIECE;
      read_piece(m, experts, p, first, n);
      blas.cblas_dsyrk(CblasColMajor, CblasLower, CblasTrans, E, n, 1, m->piece, n, 1, m->gram, E);
    }
  }
  for (int a = 0; a < E; a++)
    for (int b = 0; b <= a; b++)
      out[a * E + b] = out[b * E + a] =
          same_shapes(&experts[a], &experts[b])
              ? cosine(m->gram[b * E + a], m->gram[a * E + a], m->gram[b * E + b])
              : NAN;
}

/* W^T W of the matrices [F, D] of the first product, one below the other. */
static void measure_moment(const struct measure *m, const struct weights *w) {
  const int D = m->D;
  memset(m->moment, 0, (size_t)D * (size_t)D * sizeof *m->moment);
  for (int p = 0; p < w->first; p++) {
    const int64_t rows = w->part[p]->shape[0];
    for (int64_t first = 0; first < rows; first += ROWS) {
      const int n = rows - first < ROWS ? (int)(rows - first) : ROWS;
      read_values(m, m->piece, w->part[p], first * D, (int64_t)n * D);
      blas.cblas_dsyrk(CblasColMajor, CblasLower, CblasNoTrans, D, n, 1, m->piece, D, 1, m->moment,
                       D);
    }
    checkpoint_drop(m->checkpoint, w->part[p]);
  }
}

/* Values on the diagonal bound all others of W^T W. */
static bool has_directions(const struct measure *m) {
  double largest = 0;
  for (size_t i = 0, D = (size_t)m->D; i < D; i++) {
    if (!isfinite(m->moment[i * D + i])) return false;
    largest = fmax(largest, m->moment[i * D + i]);
  }
  return largest > 0;
}

/* The leading eigenvectors of W^T W, which are the directions among the D inputs that the expert
 * looks at most: inputs are common to the experts, hidden units are not. An expert whose weights
 * have fewer directions than are asked for gets none. */
static enum ditmoe_status measure_directions(const struct measure *m, const struct weights *w,
                                             double *vectors) {
  const int D = m->D, rank = m->rank;
  lapack_int found = 0;
  for (size_t i = 0; i < (size_t)rank * (size_t)D; i++) vectors[i] = NAN;
  if (w->count == 0) return DITMOE_OK;
  measure_moment(m, w);
  if (!has_directions(m)) return DITMOE_OK;
  if (blas.LAPACKE_dsyevr_work(LAPACK_COL_MAJOR, 'V', 'I', 'L', D, m->moment, D, 0, 0, D - rank + 1,
                               D, 0, &found, m->values, vectors, D, m->support, m->space,
                               space_size(m), m->integers, 10 * D) != 0 ||
      found != rank)
    return fail(m->ctx, DITMOE_FAILED, "%s: the singular values of an expert did not converge",
                m->checkpoint->path);
  if (!(m->values[0] > D * DBL_EPSILON * m->values[rank - 1])) vectors[0] = NAN;
  return DITMOE_OK;
}

/* |A^T B|^2 / rank of vectors that are orthonormal. */
static float overlap_of(const struct measure *m, const double *a, const double *b) {
  const int rank = m->rank;
  double sum = 0;
  blas.cblas_dgemm(CblasColMajor, CblasTrans, CblasNoTrans, rank, rank, m->D, 1, a, m->D, b, m->D,
                   0, m->overlap, rank);
  for (int i = 0; i < rank * rank; i++) sum += m->overlap[i] * m->overlap[i];
  return (float)(sum > rank ? 1 : sum / rank);
}

static enum ditmoe_status measure_subspaces(const struct measure *m, const struct weights *experts,
                                            float *out) {
  const int E = m->E;
  const size_t size = (size_t)m->rank * (size_t)m->D;
  for (int e = 0; e < E; e++)
    TRY(measure_directions(m, &experts[e], m->vectors + (size_t)e * size));
  for (int a = 0; a < E; a++)
    for (int b = 0; b <= a; b++)
      out[a * E + b] = out[b * E + a] =
          overlap_of(m, m->vectors + (size_t)a * size, m->vectors + (size_t)b * size);
  return DITMOE_OK;
}

/* Every row of the router's matrix [experts, D] like the weights of an expert. */
static void list_gate(const struct measure *m, int layer) {
  const struct tensor *gate = mixture_gate(m->checkpoint, m->model->config.record.kind, layer);
  const size_t bytes = (size_t)m->D * dtype_size(gate->dtype);
  memset(m->gate, 0, (size_t)m->E * sizeof *m->gate);
  for (int e = 0; e < (int)gate->shape[0]; e++) {
    m->gate_row[e] = (struct tensor){.name = gate->name,
                                     .dtype = gate->dtype,
                                     .rank = 1,
                                     .shape = {m->D},
                                     .elements = m->D,
                                     .data = (const char *)gate->data + (size_t)e * bytes};
    m->gate[e] = (struct weights){.count = 1, .part = {&m->gate_row[e]}};
  }
}

static enum ditmoe_status measure_layers(const struct measure *m) {
  const size_t matrix = (size_t)m->E * (size_t)m->E;
  struct ditmoe_similarity *out = m->out;
  int l = 0;
  for (int layer = 0; layer < m->model->config.depth; layer++) {
    const struct weights *experts = m->weights + (size_t)layer * (size_t)m->E;
    if (!m->model->config.experts[layer]) continue;
    out->layer[l] = layer;
    measure_cosines(m, experts, out->weights + (size_t)l * matrix);
    TRY(measure_subspaces(m, experts, out->subspace + (size_t)l * matrix));
    list_gate(m, layer);
    measure_cosines(m, m->gate, out->router + (size_t)l * matrix);
    l++;
  }
  return DITMOE_OK;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static enum ditmoe_status make_room(struct measure *m) {
  struct ditmoe_ctx *ctx = m->ctx;
  const size_t E = (size_t)m->E, D = (size_t)m->D, rank = (size_t)m->rank;
  const char *what = "comparison of experts";
  TRY(mem_alloc(ctx, E, sizeof *m->gate_row, what, &m->gate_row));
  TRY(mem_alloc(ctx, E, sizeof *m->gate, what, &m->gate));
  TRY(mem_alloc(ctx, larger(PIECE, ROWS * D), sizeof *m->raw, what, &m->raw));
  TRY(mem_alloc(ctx, larger(E * PIECE, ROWS * D), sizeof *m->piece, what, &m->piece));
  TRY(mem_alloc(ctx, E * E, sizeof *m->gram, what, &m->gram));
  TRY(mem_alloc(ctx, D * D, sizeof *m->moment, what, &m->moment));
  TRY(mem_alloc(ctx, D, sizeof *m->values, what, &m->values));
  TRY(mem_alloc(ctx, (size_t)space_size(m), sizeof *m->space, what, &m->space));
  TRY(mem_alloc(ctx, 2 * D, sizeof *m->support, what, &m->support));
  TRY(mem_alloc(ctx, 10 * D, sizeof *m->integers, what, &m->integers));
  TRY(mem_alloc(ctx, E * rank * D, sizeof *m->vectors, what, &m->vectors));
  return mem_alloc(ctx, rank * rank, sizeof *m->overlap, what, &m->overlap);
}

static void free_room(struct measure *m) {
  void *blocks[] = {m->weights,  m->gate_row, m->gate,   m->raw,   m->piece,
                    m->gram,     m->moment,   m->values, m->space, m->support,
                    m->integers, m->vectors,  m->overlap};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) mem_free(m->ctx, blocks[i]);
}

static enum ditmoe_status make_result(struct measure *m) {
  struct ditmoe_ctx *ctx = m->ctx;
  int layers = 0;
  for (int l = 0; l < m->model->config.depth; l++) layers += m->model->config.experts[l] > 0;
  const size_t L = (size_t)layers, entries = L * (size_t)m->E * (size_t)m->E;
  TRY(mem_zalloc(ctx, 1, sizeof *m->out, "similarity", &m->out));
  m->out->layers = layers;
  m->out->experts = m->E;
  m->out->rank = m->rank;
  TRY(mem_alloc(ctx, L, sizeof *m->out->layer, "similarity", &m->out->layer));
  TRY(mem_alloc(ctx, entries, sizeof *m->out->weights, "similarity", &m->out->weights));
  TRY(mem_alloc(ctx, entries, sizeof *m->out->subspace, "similarity", &m->out->subspace));
  return mem_alloc(ctx, entries, sizeof *m->out->router, "similarity", &m->out->router);
}

static enum ditmoe_status check_model(struct measure *m, const struct dit_config *config) {
  const char *path = m->checkpoint->path;
  int experts = 0;
  for (int layer = 0; layer < config->depth; layer++) experts += config->experts[layer];
  if (!experts) return fail(m->ctx, DITMOE_USAGE, "%s: is a dense model without experts", path);
  m->D = config->width;
  if (m->rank == 0) m->rank = m->D < DEFAULT_RANK ? m->D : DEFAULT_RANK;
  if (m->rank > 0 && m->rank <= m->D) return DITMOE_OK;
  return fail(m->ctx, DITMOE_USAGE, "%s: %d singular vectors of a model of width %d", path, m->rank,
              m->D);
}

/* m->checkpoint is open. */
static enum ditmoe_status measure_file(struct measure *m, struct exec *ex, const char *record) {
  struct dit *model = NULL;
  enum ditmoe_status status;
  if (packed_layout(m->checkpoint))
    return fail(m->ctx, DITMOE_USAGE,
                "%s: is packed (%s); compare the experts of the file that it was made from",
                m->checkpoint->path, packed_layout(m->checkpoint));
  TRY(mem_zalloc(m->ctx, 1, sizeof *model, "model", &model));
  m->model = model;
  TRY_DONE(dit_params(ex, model, m->checkpoint, NULL, record));
  TRY_DONE(check_model(m, &model->config));
  TRY_DONE(find_weights(m, &model->params));
  TRY_DONE(make_room(m));
  TRY_DONE(make_result(m));
  status = measure_layers(m);
done:
  dit_close(ex, model);
  free_room(m);
  return status;
}

enum ditmoe_status ditmoe_similarity_measure(struct ditmoe_ctx *ctx, const char *path,
                                             const struct ditmoe_model_options *options, int rank,
                                             struct ditmoe_similarity **out) {
  const struct ditmoe_model_options defaults = {0};
  struct measure m = {.ctx = ctx, .rank = rank};
  struct exec ex = {0};
  struct ditmoe_checkpoint *checkpoint = NULL;
  if (!options) options = &defaults;
  enum ditmoe_status status =
      backend_open(&ex, ctx, options->backend, options->tier, options->threads);
  if (status == DITMOE_OK) status = backend_compute(&ex, options->dtype);
  if (status == DITMOE_OK) status = ditmoe_checkpoint_open(ctx, path, options->key, &checkpoint);
  if (status == DITMOE_OK) status = blas_load(ctx, options->threads);
  if (status == DITMOE_OK) {
    m.checkpoint = checkpoint;
    status = measure_file(&m, &ex, options->record);
  }
  ditmoe_checkpoint_close(checkpoint);
  exec_close(&ex);
  if (status == DITMOE_OK)
    *out = m.out;
  else
    ditmoe_similarity_free(ctx, m.out);
  return status;
}

void ditmoe_similarity_free(struct ditmoe_ctx *ctx, struct ditmoe_similarity *similarity) {
  if (!similarity) return;
  mem_free(ctx, similarity->layer);
  mem_free(ctx, similarity->weights);
  mem_free(ctx, similarity->subspace);
  mem_free(ctx, similarity->router);
  mem_free(ctx, similarity);
}
