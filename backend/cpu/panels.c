/* Weights of linear layers, in panels.
 *
 * A panel holds `columns` outputs (gemm_kernels). With paired weights its first half is `lanes`
 * rows of gate, its second the same rows of up, so that one tile holds what SwiGLU needs. Panels
 * are cut along the inputs into equal blocks, and those of one block lie together:
 *
 *   data: [block of inputs][panel][group of inputs][column][input of the group],
 *         then bias [panel][column] in f32
 *
 * Inputs past the last up to a multiple of k->unit and columns past the last output are 0. The
 * values are of w->format: those of 16 bits are widened when a product takes a panel, gemm.c. */
#include "backend/cpu/panels.h"
#include "backend/cpu/state.h"
#include "backend/packed.h"
#include "base/pages.h"

#include <stdio.h>
#include <string.h>

enum {
  LAYOUT_VERSION = 2, /* of what is written above */
  PIECE_WORDS = 256,  /* inputs of f32, or pairs of bf16, that are transposed at a time */
  PIECE_STRIDE = PIECE_WORDS + 16,
  CACHE_LINE = 64,
};

/* One row of the stacked matrices; weight is NULL past the last one. */
struct source_row {
  const struct tensor *weight, *bias;
  int64_t row;
};

struct packing {
  const struct linear_source *source;
  const struct linear *w;
  const struct gemm_kernels *k;
  const struct pack_kernels *kernels;
};

/* What column j of panel p holds. */
static struct source_row find_row(const struct packing *g, int64_t p, int j) {
  const struct linear_source *source = g->source;
  int64_t row = p * g->k->columns + j;
  int part = 0;
  if (g->w->paired) {
    row = p * g->k->lanes + j % g->k->lanes;
    if (row >= g->w->out) return (struct source_row){0};
    row += j / g->k->lanes * (int64_t)g->w->out;
  }
  while (part < source->parts && row >= source->weight[part]->shape[0])
    row -= source->weight[part++]->shape[0];
  if (part == source->parts) return (struct source_row){0};
  return (struct source_row){source->weight[part], source->bias[part], row};
}

/* What follows these values is needed soon; the processor does not foresee jumps between rows. */
static void fetch_behind(const char *x, size_t bytes) {
  for (size_t at = 0; at < bytes; at += CACHE_LINE) __builtin_prefetch(x + bytes + at);
}

/* words [bytes] = n inputs of a row from `begin` on, then zeros; whether they are finite. */
static bool read_row(const struct packing *g, uint32_t *words, size_t bytes,
                     const struct source_row *from, int begin, int n) {
  const struct tensor *t = from->weight;
  if (!t || n <= 0) {
    memset(words, 0, bytes);
    return true;
  }
  const size_t size = dtype_size(t->dtype), used = (size_t)n * dtype_size(g->w->input);
  const char *x = (const char *)t->data + (size_t)(from->row * g->w->in + begin) * size;
  fetch_behind(x, (size_t)n * size);
  memset((char *)words + used, 0, bytes - used);
  return g->kernels->read[g->w->input == DT_BF16 ? CPU_BF16 : CPU_F32][t->dtype](words, x, n);
}

/* A block of a panel, piece by piece through the cache. */
static bool pack_block(const struct packing *g, int64_t p, int begin,
                       const struct source_row *rows) {
  const struct gemm_kernels *k = g->k;
  const bool narrow = linear_is_widened(g->w);
  const int64_t word = linear_element(g->w) * k->group; /* bytes that become of one */
  uint32_t words[CPU_TILE_COLUMNS_MAX * PIECE_STRIDE], piece[PIECE_WORDS * CPU_TILE_COLUMNS_MAX];
  char *panel = linear_panel(g->w, k, begin, p);
  const int end = begin + linear_depth(g->w, k, begin);
  const int count = linear_padded(end - begin, k) / k->group;
  bool finite = true;
  for (int at = 0; at < count; at += PIECE_WORDS) {
    int n = count - at < PIECE_WORDS ? count - at : PIECE_WORDS, first = begin + at * k->group;
    int inputs = end - first < n * k->group ? end - first : n * k->group;
    size_t bytes = (size_t)((n + k->lanes - 1) / k->lanes * k->lanes) * sizeof *words;
    for (int j = 0; j < k->columns; j++)
      finite &= read_row(g, words + j * PIECE_STRIDE, bytes, &rows[j], first, inputs);
    char *to = panel + at * k->columns * word;
    g->kernels->transpose(narrow ? piece : (uint32_t *)(void *)to, words, PIECE_STRIDE, n);
    if (narrow) g->kernels->narrow[g->w->format](to, (const float *)(void *)piece, n * k->columns);
  }
  return finite;
}

/* Panel p and its biases; whether all of them are finite. */
static bool pack_panel(const struct packing *g, int64_t p) {
  const int columns = g->k->columns;
  float *bias = linear_bias(g->w, g->k) + p * columns;
  struct source_row rows[CPU_TILE_COLUMNS_MAX];
  for (int j = 0; j < columns; j++) {
    rows[j] = find_row(g, p, j);
    bias[j] = 0;
    if (rows[j].bias) tensor_read_f32(&bias[j], rows[j].bias, rows[j].row, 1);
  }
  bool finite = f32_all_finite(bias, columns);
  for (int begin = 0; begin < g->w->in; begin += linear_block(g->w, g->k))
    finite &= pack_block(g, p, begin, rows);
  return finite;
}

static bool pack(const struct exec *ex, const struct packing *g) {
  const int64_t panels = linear_panels(g->w, g->k);
  const size_t used =
      (size_t)((char *)(linear_bias(g->w, g->k) + panels * g->k->columns) - (char *)g->w->data);
  const bool large = used > CPU_PARALLEL_MIN;
  bool finite = true;
  memset((char *)g->w->data + used, 0, g->w->bytes - used);
#pragma omp parallel for num_threads(ex->device->threads) if (large) reduction(&& : finite)
  for (int64_t p = 0; p < panels; p++) finite = pack_panel(g, p) && finite;
  return finite;
}

/* Bytes of the data, which end in zeros; 0: too many. */
static size_t bytes_of(const struct linear *w, const struct gemm_kernels *k) {
  size_t column = (size_t)linear_padded(w->in, k) * dtype_size(w->format) + sizeof(float), bytes;
  if (!mul_size((size_t)(linear_panels(w, k) * k->columns), column, &bytes) ||
      !add_size(bytes, PACKED_ALIGN - 1, &bytes))
    return 0;
  return bytes / PACKED_ALIGN * PACKED_ALIGN;
}

static enum ditmoe_status make(struct exec *ex, const struct linear *shape, struct linear **out) {
  TRY(mem_alloc(ex->ctx, 1, sizeof **out, "a linear layer", out));
  **out = *shape;
  return DITMOE_OK;
}

enum ditmoe_status cpu_linear_create(struct exec *ex, const struct linear_source *source,
                                     struct linear **out) {
  struct linear shape;
  TRY(linear_source_shape(ex->ctx, source, &shape));
  const struct cpu_kernels *kernels = cpu_kernels(ex);
  const struct gemm_kernels *k = linear_kernels(&shape, kernels);
  shape.bytes = bytes_of(&shape, k);
  if (!shape.bytes)
    return fail(ex->ctx, DITMOE_NOMEM, "not enough memory: %s [%d, %d] is too large",
                source->weight[0]->name, shape.out, shape.in);
  if (!ex->dry) {
    TRY(mem_alloc(ex->ctx, shape.bytes, 1, source->weight[0]->name, &shape.data));
    pages_large(shape.data, shape.bytes);
    shape.finite = pack(ex, &(struct packing){source, &shape, k, kernels->pack});
  }
  enum ditmoe_status status = make(ex, &shape, out);
  if (status != DITMOE_OK) mem_free(ex->ctx, shape.data);
  return status;
}

void cpu_linear_destroy(struct exec *ex, struct linear *linear) {
  if (linear && !linear->adopted) mem_free(ex->ctx, linear->data);
  mem_free(ex->ctx, linear);
}

void cpu_linear_update(struct exec *ex, struct linear *w, const float *weight, const float *bias) {
  struct tensor matrices[2], biases[2];
  struct linear_source source = {.parts = 1 << w->paired, .paired = w->paired, .input = w->input};
  if (w->adopted) {
    exec_fail(ex, fail(ex->ctx, DITMOE_FAILED, "weights of a packed file cannot change"));
    return;
  }
  for (int64_t i = 0; i < source.parts; i++) {
    const int64_t values = (int64_t)w->out * w->in;
    matrices[i] = (struct tensor){"", DT_F32, 2, {w->out, w->in}, values, weight + i * values};
    biases[i] = (struct tensor){"", DT_F32, 1, {w->out}, w->out, bias ? bias + i * w->out : NULL};
    source.weight[i] = &matrices[i];
    source.bias[i] = bias ? &biases[i] : NULL;
  }
  const struct cpu_kernels *kernels = cpu_kernels(ex);
  w->finite = pack(ex, &(struct packing){&source, w, linear_kernels(w, kernels), kernels->pack});
}

static int describe(char *text, size_t size, const char *type, const struct gemm_kernels *k) {
  return snprintf(text, size, "%s %d %d %d %d %d", type, k->columns, k->lanes, k->group, k->unit,
                  k->depth);
}

static void layout(const struct exec *ex, char text[LAYOUT_SIZE]) {
  const struct cpu_kernels *kernels = cpu_kernels(ex);
  int used = snprintf(text, LAYOUT_SIZE, "cpu-%d ", LAYOUT_VERSION);
  if (ex->compute == DT_BF16) {
    used += describe(text + used, LAYOUT_SIZE - (size_t)used, "bf16", kernels->gemm[CPU_BF16]);
    used += snprintf(text + used, LAYOUT_SIZE - (size_t)used, ", ");
  }
  describe(text + used, LAYOUT_SIZE - (size_t)used, "f32", kernels->gemm[CPU_F32]);
}

static size_t packed_bytes(const struct exec *ex, const struct linear *shape) {
  return bytes_of(shape, linear_kernels(shape, cpu_kernels(ex)));
}

static enum ditmoe_status adopt(struct exec *ex, const struct linear *shape,
                                const struct tensor *bytes, struct linear **out) {
  enum { PIECE = 8 << 20 };
  char *data = (char *)(uintptr_t)bytes->data;
  const size_t size = packed_bytes(ex, shape);
  if (bytes->dtype != DT_U8 || size == 0 || (uint64_t)bytes->elements != size ||
      (uintptr_t)data % PACKED_ALIGN != 0)
    return fail(ex->ctx, DITMOE_FORMAT,
                "%s: expected %zu bytes of type U8, aligned to %d, found %lld of type %s",
                bytes->name, size, PACKED_ALIGN, (long long)bytes->elements,
                dtype_name(bytes->dtype));
  CPU_PARALLEL_FOR(ex, size)
  for (size_t at = 0; at < (ex->dry ? 0 : size); at += PIECE)
    pages_map(data + at, size - at < PIECE ? size - at : PIECE);
  struct linear adopted = *shape;
  adopted.adopted = true;
  adopted.bytes = size;
  adopted.data = data;
  return make(ex, &adopted, out);
}

const struct packed_ops cpu_packed = {.layout = layout, .bytes = packed_bytes, .adopt = adopt};
