/* Experts as weights: against sums written out and Jacobi's eigenvectors, and planted experts. */
#include "ditmoe_routing.h"
#include "io/checkpoint.h"
#include "tests/support.h"
#include "tests/synthetic.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ditmoe_similarity *measure(const char *path, const char *record, int rank) {
  const struct ditmoe_model_options options = {.record = record, .threads = 2};
  struct ditmoe_similarity *out = NULL;
  assert_ok(test_ctx(), ditmoe_similarity_measure(test_ctx(), path, &options, rank, &out));
  assert_non_null(out);
  return out;
}

static double entry(const struct ditmoe_similarity *s, const float *values, int l, int a, int b) {
  const size_t E = (size_t)s->experts;
  const float value = values[((size_t)l * E + (size_t)a) * E + (size_t)b];
  const float mirrored = values[((size_t)l * E + (size_t)b) * E + (size_t)a];
  assert_memory_equal(&value, &mirrored, sizeof value);
  return (double)value;
}

/* The reference. */

/* Eigenvectors of a symmetric matrix [n, n], which becomes diagonal; columns of v [n, n]. */
static void jacobi(double *a, double *v, int n) {
  for (int i = 0; i < n * n; i++) v[i] = i % (n + 1) == 0;
  for (int sweep = 0; sweep < 12; sweep++)
    for (int p = 0; p < n; p++)
      for (int q = p + 1; q < n; q++) {
        if (a[p * n + q] == 0) continue;
        const double angle = 0.5 * atan2(2 * a[p * n + q], a[q * n + q] - a[p * n + p]);
        const double c = cos(angle), s = sin(angle);
        for (int k = 0; k < n; k++) {
          const double x = a[k * n + p], y = a[k * n + q], w = v[k * n + p], z = v[k * n + q];
          a[k * n + p] = c * x - s * y, a[k * n + q] = s * x + c * y;
          v[k * n + p] = c * w - s * z, v[k * n + q] = s * w + c * z;
        }
        for (int k = 0; k < n; k++) {
          const double x = a[p * n + k], y = a[q * n + k];
          a[p * n + k] = c * x - s * y, a[q * n + k] = s * x + c * y;
        }
      }
}

struct reference { /* of an expert */
  double *values;  /* all of them */
  int64_t count;
  double *moment;  /* [D, D] W^T W of the first product */
  double *vectors; /* [D, rank] */
};

static bool of_first_product(const struct tensor *tensor) {
  return tensor->rank == 2 && !strstr(tensor->name, "down_proj") && !strstr(tensor->name, "fc2");
}

static void reference_add(struct reference *r, const struct tensor *tensor, int D) {
  float *values = malloc((size_t)tensor->elements * sizeof *values);
  r->values = realloc(r->values, (size_t)(r->count + tensor->elements) * sizeof *r->values);
  assert_true(values && r->values);
  tensor_read_f32(values, tensor, 0, tensor->elements);
  for (int64_t i = 0; i < tensor->elements; i++) r->values[r->count++] = (double)values[i];
  if (of_first_product(tensor))
    for (int64_t f = 0; f < tensor->shape[0]; f++)
      for (int i = 0; i < D * D; i++)
        r->moment[i] += (double)values[f * D + i / D] * (double)values[f * D + i % D];
  free(values);
}

static void reference_solve(struct reference *r, int D, int rank) {
  double *v = calloc((size_t)D * (size_t)D, sizeof *v);
  r->vectors = calloc((size_t)D * (size_t)rank, sizeof *r->vectors);
  assert_true(v && r->vectors);
  jacobi(r->moment, v, D);
  for (int k = 0; k < rank; k++) {
    int best = 0;
    for (int i = 1; i < D; i++)
      if (r->moment[i * D + i] > r->moment[best * D + best]) best = i;
    r->moment[best * D + best] = -1;
    for (int i = 0; i < D; i++) r->vectors[i * rank + k] = v[i * D + best];
  }
  free(v);
}

/* Of all tensors whose names begin with `prefix`. */
static struct reference reference_of(const struct ditmoe_checkpoint *file, const char *prefix,
                                     int D, int rank) {
  struct reference r = {.moment = calloc((size_t)D * (size_t)D, sizeof *r.moment)};
  assert_non_null(r.moment);
  for (size_t i = 0; i < file->count; i++)
    if (strncmp(file->tensors[i].name, prefix, strlen(prefix)) == 0)
      reference_add(&r, &file->tensors[i], D);
  assert_true(r.count > 0);
  reference_solve(&r, D, rank);
  return r;
}

static void reference_free(struct reference *r) {
  free(r->values);
  free(r->moment);
  free(r->vectors);
}

static double cosine(const double *a, const double *b, int64_t n) {
  double ab = 0, aa = 0, bb = 0;
  for (int64_t i = 0; i < n; i++) ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  return ab / sqrt(aa) / sqrt(bb);
}

static double overlap(const double *a, const double *b, int D, int rank) {
  double sum = 0;
  for (int i = 0; i < rank; i++)
    for (int j = 0; j < rank; j++) {
      double dot = 0;
      for (int k = 0; k < D; k++) dot += a[k * rank + i] * b[k * rank + j];
      sum += dot * dot;
    }
  return sum / rank;
}

static const struct family {
  const char *file, *record;
  const char *expert, *gate; /* names with the block, and the expert */
  int layers, layer[4], experts, uncond, D, rank;
} families[] = {
    {"dit_moe/b_mixed/bare.safetensors",
     "{\"objective\":\"rf\",\"heads\":6,\"top_k\":1}",
     "blocks.%d.moe.experts.%d.",
     "blocks.%d.moe.gate.weight",
     2,
     {0, 1},
     8,
     -1,
     48,
     0},
    {"dit_moe/c_flash_qknorm/bare_bf16.pt",
     "{\"objective\":\"rf\",\"top_k\":2}",
     "blocks.%d.moe.experts.%d.",
     "blocks.%d.moe.gate.weight",
     2,
     {0, 1},
     16,
     -1,
     64,
     3},
    {"promoe/promoe_tc/bare.safetensors",
     "{\"kind\":\"promoe-tc\",\"objective\":\"rf\",\"heads\":4,\"top_k\":1,"
     "\"router_weight_mode\":\"identity\"}",
     "blocks.%d.mlp.experts.%d.",
     "blocks.%d.mlp.cluster_centers",
     2,
     {1, 3},
     7,
     6,
     48,
     8},
    {"promoe/tcdit_swiglu_shared/bare.safetensors",
     "{\"objective\":\"rf\",\"heads\":4,\"top_k\":1}",
     "blocks.%d.mlp.experts.%d.",
     "blocks.%d.mlp.gate.weight",
     1,
     {1},
     4,
     -1,
     32,
     5},
    {"promoe/ecdit_swiglu_shared/bare.safetensors",
     "{\"objective\":\"rf\",\"heads\":4,\"capacity\":1}",
     "blocks.%d.mlp.experts.%d.",
     "blocks.%d.mlp.gate_weight",
     1,
     {1},
     8,
     -1,
     32,
     32},
    {"promoe/diffmoe/bare.safetensors",
     "{\"objective\":\"rf\",\"heads\":4}",
     "blocks.%d.mlp.experts.%d.",
     "blocks.%d.mlp.gate_weight",
     2,
     {1, 3},
     4,
     -1,
     48,
     1},
};
enum { FAMILIES = sizeof families / sizeof *families };

static void assert_layer(const struct family *f, const struct ditmoe_similarity *s,
                         const struct ditmoe_checkpoint *file, int l) {
  struct reference experts[16];
  char name[128];
  const int rank = s->rank, D = f->D;
  for (int e = 0; e < f->experts; e++) {
    snprintf(name, sizeof name, f->expert, f->layer[l], e);
    experts[e] = reference_of(file, name, D, rank);
  }
  snprintf(name, sizeof name, f->gate, f->layer[l]);
  double *gate = tensor_f64(file, name, NULL);
  for (int a = 0; a < f->experts; a++)
    for (int b = 0; b < f->experts; b++) {
      const struct reference *x = &experts[a], *y = &experts[b];
      const double router = entry(s, s->router, l, a, b);
      assert_within("cosine",
                    fabs(entry(s, s->weights, l, a, b) - cosine(x->values, y->values, x->count)),
                    1e-7);
      assert_within("overlap",
                    fabs(entry(s, s->subspace, l, a, b) - overlap(x->vectors, y->vectors, D, rank)),
                    1e-6);
      if (a == f->uncond || b == f->uncond)
        assert_true(isnan(router));
      else
        assert_within("router", fabs(router - cosine(gate + a * D, gate + b * D, D)), 1e-7);
    }
  for (int e = 0; e < f->experts; e++) reference_free(&experts[e]);
  free(gate);
}

/* Every family's names and forms, float types, ranks. */
static void test_values(void **state) {
  (void)state;
  for (int i = 0; i < FAMILIES; i++) {
    const struct family *f = &families[i];
    const char *path = fixture_path(f->file);
    struct ditmoe_similarity *s = measure(path, f->record, f->rank);
    struct ditmoe_checkpoint *file = checkpoint_of(path);
    assert_int_equal(s->layers, f->layers);
    assert_int_equal(s->experts, f->experts);
    assert_int_equal(s->rank, f->rank ? f->rank : 8);
    for (int l = 0; l < f->layers; l++) {
      assert_int_equal(s->layer[l], f->layer[l]);
      assert_layer(f, s, file, l);
    }
    ditmoe_checkpoint_close(file);
    ditmoe_similarity_free(test_ctx(), s);
  }
}

/* Planted experts. */

enum { PLANTED_D = 32, PLANTED_F = 40 };
enum {
  FIRST,    /* as drawn                                     */
  EQUAL,    /* FIRST                                        */
  NEGATED,  /* -FIRST                                       */
  REVERSED, /* FIRST with its hidden units in another order */
  BLIND,    /* the first product is 0                       */
  NARROW,   /* the first product looks at one direction     */
  DRAWN,    /* as drawn                                     */
  PLANTED
};

static void negate(float *values, int64_t count) {
  for (int64_t i = 0; i < count; i++) values[i] = -values[i];
}

static void plant_expert(int expert, bool down, float *values, const float *first, int64_t count) {
  const int rows = down ? PLANTED_D : PLANTED_F, columns = down ? PLANTED_F : PLANTED_D;
  if (expert >= EQUAL && expert <= REVERSED) memcpy(values, first, (size_t)count * sizeof *values);
  if (expert == NEGATED) negate(values, count);
  for (int i = 0; expert == REVERSED && i < rows; i++)
    for (int j = 0; j < columns; j++)
      values[i * columns + j] =
          down ? first[i * columns + (columns - 1 - j)] : first[(rows - 1 - i) * columns + j];
  for (int i = 0; !down && expert == NARROW && i < rows; i++)
    for (int j = 0; j < columns; j++) values[i * columns + j] = (float)((i + 1) * (j % 3));
  if (!down && expert == BLIND) memset(values, 0, (size_t)count * sizeof *values);
}

/* user: floats [3][F D], the tensors of FIRST in the layer that is being written. */
static void plant(void *user, const char *name, float *values, int64_t count) {
  const char *at = strstr(name, ".experts."), *down = strstr(name, "down_proj");
  if (strstr(name, "moe.gate.weight")) {
    const int D = PLANTED_D;
    memcpy(values + D, values, (size_t)D * sizeof *values);
    for (int i = 0; i < D; i++) values[2 * D + i] = -3 * values[i];
    memset(values + 3 * D, 0, (size_t)D * sizeof *values);
  }
  if (!at) return;
  const int expert = atoi(at + strlen(".experts."));
  float *first = (float *)user + (down ? 0 : strstr(name, "up_proj") ? 1 : 2) * count;
  if (expert == FIRST) memcpy(first, values, (size_t)count * sizeof *values);
  plant_expert(expert, down != NULL, values, first, count);
}

static const struct synthetic planted = {.width = PLANTED_D,
                                         .depth = 2,
                                         .heads = 2,
                                         .size = 4,
                                         .patch = 2,
                                         .channels = 4,
                                         .classes = 3,
                                         .experts = {PLANTED, PLANTED},
                                         .hidden = {PLANTED_F, PLANTED_F},
                                         .zero = {1, 0},
                                         .copy = {1, 1},
                                         .top_k = {2, 2},
                                         .shared = true,
                                         .seed = 21,
                                         .plant = plant};

static const char *write_planted(void) {
  const char *path = temporary_path("planted.safetensors");
  struct synthetic spec = planted;
  spec.user = calloc(3 * PLANTED_F * PLANTED_D, sizeof(float));
  assert_non_null(spec.user);
  synthetic_write(&spec, path);
  free(spec.user);
  return path;
}

static void test_planted(void **state) {
  (void)state;
  struct ditmoe_similarity *s = measure(write_planted(), NULL, 4);
  assert_int_equal(s->experts, PLANTED + 2);
  for (int l = 0; l < 2; l++) {
    assert_true(entry(s, s->weights, l, FIRST, EQUAL) == 1);
    assert_true(entry(s, s->weights, l, EQUAL, NEGATED) == -1);
    assert_true(fabs(entry(s, s->weights, l, FIRST, REVERSED)) < 0.2);
    assert_true(fabs(entry(s, s->weights, l, FIRST, DRAWN)) < 0.2);
    assert_true(fabs(entry(s, s->weights, l, FIRST, BLIND)) < 0.2);
    for (int e = EQUAL; e <= REVERSED; e++)
      assert_within("overlap", fabs(entry(s, s->subspace, l, FIRST, e) - 1), 1e-6);
    assert_true(entry(s, s->subspace, l, FIRST, DRAWN) < 0.6);
    for (int e = FIRST; e < PLANTED; e++) {
      assert_true(isnan(entry(s, s->subspace, l, e, BLIND)));
      assert_true(isnan(entry(s, s->subspace, l, e, NARROW)));
    }
    assert_within("router", fabs(entry(s, s->router, l, 0, 1) - 1), 1e-7);
    assert_within("router", fabs(entry(s, s->router, l, 0, 2) + 1), 1e-7);
    assert_true(isnan(entry(s, s->router, l, 0, 3)));
  }
  ditmoe_similarity_free(test_ctx(), s);
  s = measure(temporary_path("planted.safetensors"), NULL, 1);
  assert_true(entry(s, s->subspace, 1, NARROW, NARROW) == 1);
  ditmoe_similarity_free(test_ctx(), s);
}

/* Experts that copy or drop have a row of the router and no weights; a layer may have fewer. */
static void test_weightless(void **state) {
  (void)state;
  struct ditmoe_similarity *s = measure(write_planted(), NULL, 0);
  for (int l = 0; l < 2; l++)
    for (int e = PLANTED; e < PLANTED + 2; e++) {
      const bool present = l == 0 || e == PLANTED;
      assert_true(isnan(entry(s, s->weights, l, e, e)));
      assert_true(isnan(entry(s, s->subspace, l, e, 0)));
      assert_int_equal(isnan(entry(s, s->router, l, e, 0)), !present);
    }
  ditmoe_similarity_free(test_ctx(), s);
}

/* The directions of experts of different widths can be compared, their weights cannot. */
static void test_widths(void **state) {
  (void)state;
  synthetic_write(&synthetic_uneven, temporary_path("uneven.safetensors"));
  struct ditmoe_similarity *s = measure(temporary_path("uneven.safetensors"), NULL, 8);
  assert_int_equal(s->experts, 10);
  for (int l = 0; l < 3; l++)
    for (int a = 0; a < 2; a++)
      for (int b = 0; b < 2; b++) {
        const double weights = entry(s, s->weights, l, a, b);
        const double subspace = entry(s, s->subspace, l, a, b);
        assert_true(a == b ? weights == 1 : isnan(weights));
        assert_true(a == b ? subspace > 1 - 1e-6 : subspace > 0 && subspace < 1);
      }
  ditmoe_similarity_free(test_ctx(), s);
}

static void plant_nan(void *user, const char *name, float *values, int64_t count) {
  (void)user;
  if (strstr(name, "blocks.1.moe.experts.2.up_proj")) values[count - 1] = NAN;
}

static void test_nonfinite(void **state) {
  (void)state;
  struct synthetic spec = planted;
  spec.plant = plant_nan;
  synthetic_write(&spec, temporary_path("nan.safetensors"));
  struct ditmoe_similarity *s = measure(temporary_path("nan.safetensors"), NULL, 0);
  assert_non_null(strstr(test_warning(), "blocks.1.moe.experts.2.up_proj.weight holds NaN"));
  for (int l = 0; l < 2; l++)
    for (int e = 0; e < 4; e++) {
      const bool bad = l == 1 && e == 2;
      assert_int_equal(isnan(entry(s, s->weights, l, 0, e)), bad);
      assert_int_equal(isnan(entry(s, s->subspace, l, 0, e)), bad);
      assert_false(isnan(entry(s, s->router, l, 0, e)));
    }
  ditmoe_similarity_free(test_ctx(), s);
}

static void test_refused(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_similarity *out = NULL;
  const struct ditmoe_model_options dense = {.record = "{\"heads\":4,\"family\":\"promoe-dit\"}"};
  const struct ditmoe_model_options gap = {.record =
                                               "{\"heads\":4,\"objective\":\"rf\",\"top_k\":2}"};
  const struct ditmoe_model_options tier = {.tier = "none"};
  char path[256];
  snprintf(path, sizeof path, "%s", write_planted());
  assert_fails(ctx, DITMOE_USAGE, "-1 singular vectors",
               ditmoe_similarity_measure(ctx, path, NULL, -1, &out));
  assert_fails(ctx, DITMOE_USAGE, "33 singular vectors of a model of width 32",
               ditmoe_similarity_measure(ctx, path, NULL, 33, &out));
  assert_fails(ctx, DITMOE_USAGE, "none", ditmoe_similarity_measure(ctx, path, &tier, 0, &out));
  assert_fails(ctx, DITMOE_USAGE, "dense model without experts",
               ditmoe_similarity_measure(ctx, fixture_path("promoe/dit_dense/bare.safetensors"),
                                         &dense, 0, &out));
  assert_fails(
      ctx, DITMOE_MISMATCH, "missing",
      ditmoe_similarity_measure(ctx, fixture_path("bad/ck_expert_gap.safetensors"), &gap, 0, &out));
  assert_fails(ctx, DITMOE_FORMAT, "absent",
               ditmoe_similarity_measure(ctx, temporary_path("absent"), NULL, 0, &out));
  assert_ok(ctx, ditmoe_model_pack(ctx, path, NULL, temporary_path("packed")));
  assert_fails(ctx, DITMOE_USAGE, "compare the experts of the file that it was made from",
               ditmoe_similarity_measure(ctx, temporary_path("packed"), NULL, 0, &out));
  assert_null(out);
  ditmoe_similarity_free(ctx, NULL);
}

static void test_out_of_memory(void **state) {
  (void)state;
  char path[256];
  snprintf(path, sizeof path, "%s", write_planted());
  for (int64_t i = 0, fired = 1; fired; i++) {
    struct ditmoe_ctx *ctx = faulty_ctx(i);
    struct ditmoe_similarity *out = NULL;
    enum ditmoe_status status = ditmoe_similarity_measure(ctx, path, NULL, 0, &out);
    fired = faulty_fired();
    assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
    assert_int_equal(out == NULL, fired);
    ditmoe_similarity_free(ctx, out);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_values),        cmocka_unit_test(test_planted),
      cmocka_unit_test(test_weightless),    cmocka_unit_test(test_widths),
      cmocka_unit_test(test_nonfinite),     cmocka_unit_test(test_refused),
      cmocka_unit_test(test_out_of_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
