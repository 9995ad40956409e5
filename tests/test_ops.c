/* Every operation on every backend, instruction tier and compute type: against the reference of the
 * same type within tolerance.def, with nothing written around the results, and with the same bits
 * for any number of threads and for any items beside an item. A tier that the machine lacks is a
 * skipped test. The emulated GPU, which takes a thousand times as long, leaves things out: see
 * `emulated`.
 *
 * test_ops [BACKEND/TIER/DTYPE/OPERATION[:CASE]] runs a part: the line that a failure prints. */
#include "bench/ops/run.h"
#include "tests/cuda/module.h"
#include "tests/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct operation {
  const char *name;
  double limit, bf16_limit;
  void (*run)(struct trial *t);
} operations[] = {
#define OP(name, limit, bf16_limit, reason) {#name, limit, bf16_limit, run_##name},
#include "tests/ops/tolerance.def"
#undef OP
};

static const struct test_case {
  const char *operation, *text;
  struct shape shape;
} cases[] = {
#define CASE(operation, ...) {#operation, #__VA_ARGS__, {__VA_ARGS__}},
#include "tests/ops/shapes.def"
#undef CASE
};

static const struct variant {
  const char *backend, *tier, *dtype;
} variants[] = {
#define IN_BOTH_TYPES(backend, tier)                                                               \
  {backend, tier, "f32"}, { backend, tier, "bf16" }
    IN_BOTH_TYPES("ref", "generic"),    IN_BOTH_TYPES("cpu", "generic"),
    IN_BOTH_TYPES("cpu", "avx2"),       IN_BOTH_TYPES("cpu", "avx512"),
    IN_BOTH_TYPES("cpu", "avx512bf16"), IN_BOTH_TYPES("cpu", "amx"),
    IN_BOTH_TYPES("cuda", "sm_80"),     IN_BOTH_TYPES("cuda", "sm_90"),
};

enum {
  OPERATIONS = sizeof operations / sizeof *operations,
  CASES = sizeof cases / sizeof *cases,
  VARIANTS = sizeof variants / sizeof *variants
};

/* Of the table's slots 19 are no operations; gradients are tested elsewhere; norm_modulate_exact,
 * norm_modulate_rms, qk_norm_rms, hidden_silu, narrow_tiny, attention_sharp, moe, conv2d_3x3 and
 * conv2d_3x3_relu are no slots. */
_Static_assert((sizeof(struct backend_ops) - sizeof(struct gradient_ops)) / sizeof(void *) ==
                   OPERATIONS - 9 + 19,
               "an operation of the table is missing in tolerance.def");

struct job {
  const struct variant *variant;
  const struct operation *operation;
  int only; /* one case, -1: all */
};

static bool emulated(const struct variant *v) {
  return strcmp(v->backend, "cuda") == 0 && emulator_of_module();
}

/* Multiply-adds of a product, at most; 0: none. */
static double products_of(const struct shape *s) {
  const double N = s->N, C = s->C, D = s->D, kernel_x = s->kernel_x ? s->kernel_x : s->kernel;
  if (s->in) return N * s->in * s->out * (s->parts ? s->parts : 1);
  if (s->F) return N * (s->T ? s->T : 1) * (s->K ? s->K : 1) * D * s->F;
  return N * s->size * s->width * C * s->out * s->kernel * kernel_x;
}

/* A million multiply-adds are up to a second on the emulated device: tiles are filled up. Below
 * that are shapes with all kinds of tails, several tiles and sums of 4608 products. */
static const double emulated_products = 1 << 20;

static enum ditmoe_status open_variant(struct exec *ex, struct ditmoe_ctx *ctx,
                                       const struct variant *v, int threads) {
  TRY(backend_open(ex, ctx, v->backend, v->tier, threads));
  return backend_compute(ex, v->dtype);
}

/* A GPU's tensor cores cut what an f32 sum cannot hold where all others round: on an H100 4.4e-6
 * for sums of 4608 products. The emulated ones round. */
static const double cut_sums = 1e-5;

static double limit_of(const struct job *job) {
  const struct variant *v = job->variant;
  if (strcmp(v->dtype, "bf16") != 0) return job->operation->limit;
  const double limit = job->operation->bf16_limit;
  const bool cut = strcmp(v->backend, "cuda") == 0 && !emulated(v);
  return cut && limit > 0 && limit < cut_sums ? cut_sums : limit;
}

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

static bool written(float value) {
  float unwritten;
  memcpy(&unwritten, &trial_unwritten, sizeof unwritten);
  return !same_bits(value, unwritten);
}

/* The error of one result block against another: infinite for any difference where the limit is
 * 0, and where only one of two values has been written or is a number. */
static double block_error(const struct trial_block *value, const float *reference, double limit) {
  double difference = 0, square = 0;
  for (int64_t i = 0; i < value->values; i++) {
    float v = value->host[i], r = reference[i];
    if (!isnan(r)) square += (double)r * r;
    if (same_bits(v, r) || (isnan(v) && isnan(r) && written(v) && written(r))) continue;
    if (limit == 0) return INFINITY;
    difference += ((double)v - r) * ((double)v - r);
  }
  double error = difference == 0 ? 0 : sqrt(difference / square);
  return isnan(error) ? INFINITY : error;
}

/* Largest error over the blocks; `begin` is the first item of `t` in `reference`. */
static double trial_error(const struct trial *t, const struct trial *reference, int64_t begin,
                          double limit) {
  double worst = 0;
  for (int i = 0; i < t->blocks; i++) {
    const struct trial_block *block = &t->block[i];
    bool whole = t->count == reference->count;
    if (block->role == BLOCK_SCRATCH || (!whole && block->role == BLOCK_INPUT)) continue;
    const float *expected = reference->block[i].host + (whole ? 0 : begin * block->item);
    double error = block_error(block, expected, block->role == BLOCK_INPUT ? 0 : limit);
    if (error > worst) worst = error;
  }
  return worst;
}

static bool has_items(const struct trial *t) {
  bool items = false;
  for (int i = 0; i < t->blocks; i++) {
    if (t->block[i].role == BLOCK_RESULT && t->block[i].item == 0) return false;
    items = items || t->block[i].role == BLOCK_RESULT;
  }
  return items;
}

/* Runs a trial and compares its items with those of `reference`; true if all is well. The caller
 * frees it. */
static bool check(const struct job *job, int index, struct trial *t, const struct trial *reference,
                  double limit, const char *what) {
  struct exec *ex = t->ex;
  const int64_t begin = t->begin, count = t->count;
  job->operation->run(t);
  bool intact = trial_finish(t);
  double error = trial_error(t, reference, begin, limit);
  if (!intact) what = "nothing written around a result";
  bool good = intact && error <= limit && ex->status == DITMOE_OK;
  if (!good)
    print_error(
        "test_ops %s/%s/%s/%s:%d  # %s: items %lld + %lld of (%s): error %.3g, limit %.3g\n",
        job->variant->backend, job->variant->tier, job->variant->dtype, job->operation->name, index,
        what, (long long)begin, (long long)count, cases[index].text, error, limit);
  if (ex->status != DITMOE_OK) print_error("  %s\n", ex->ctx->error);
  exec_clear(ex);
  return good;
}

static bool compare(const struct job *job, int index, struct exec *ex, int64_t begin, int64_t count,
                    const struct trial *reference, double limit, const char *what) {
  struct trial t;
  trial_begin(&t, ex, &cases[index].shape, begin, count);
  bool good = check(job, index, &t, reference, limit, what);
  trial_free(&t);
  return good;
}

/* Weights of 16 bits, in the format that they are kept in, are what they are in f32. */
static bool compare_formats(const struct job *job, int index, struct exec *ex,
                            const struct trial *whole) {
  struct trial t;
  if (cases[index].shape.dtype == DT_F32) return true;
  trial_begin(&t, ex, &cases[index].shape, 0, cases[index].shape.N);
  t.widened = true;
  bool good = check(job, index, &t, whole, 0, "the same bits with weights widened to f32");
  trial_free(&t);
  return good;
}

/* Parts of a batch of N: the ends, an inner pair, all but one, an odd number in the middle, and as
 * many as rows of a tile, one less and one more. */
static bool compare_parts(const struct job *job, int index, struct exec *ex,
                          const struct trial *whole) {
  int64_t N = cases[index].shape.N;
  int64_t parts[][2] = {{0, 1},  {N - 1, 1}, {N / 3, 2}, {1, N - 1}, {N / 2, 5}, {0, N - 1},
                        {3, 11}, {2, 12},    {1, 13},    {3, 15},    {1, 16},    {2, 17},
                        {5, 31}, {9, 32},    {1, 33},    {7, 47},    {64, 33}};
  const size_t tried = emulated(job->variant) ? 5 : sizeof parts / sizeof *parts;
  bool good = true;
  for (size_t i = 0; i < tried; i++) {
    int64_t begin = parts[i][0], count = parts[i][1];
    if (count > 0 && count < N && begin + count <= N)
      good =
          compare(job, index, ex, begin, count, whole, 0, "the same bits in another batch") && good;
  }
  return good;
}

static bool run_case(const struct job *job, int index, struct exec *ref, struct exec ex[3]) {
  int64_t N = cases[index].shape.N;
  struct trial expected, whole;
  trial_begin(&expected, ref, &cases[index].shape, 0, N);
  job->operation->run(&expected);
  trial_finish(&expected);
  trial_begin(&whole, &ex[0], &cases[index].shape, 0, N);
  bool good = check(job, index, &whole, &expected, limit_of(job), "as the reference");
  trial_free(&expected);
  for (int i = 1; i < 3 && ex[i].device->threads > 1; i++)
    good = compare(job, index, &ex[i], 0, N, &whole, 0, "the same bits with more threads") && good;
  good = compare_formats(job, index, &ex[0], &whole) && good;
  if (has_items(&whole)) good = compare_parts(job, index, &ex[0], &whole) && good;
  trial_free(&whole);
  return good;
}

static void test_operation(void **state) {
  const struct job *job = *state;
  struct exec ref, ex[3];
  enum ditmoe_status status = open_variant(&ex[0], test_ctx(), job->variant, 1);
  if (status == DITMOE_DEVICE) skip();
  assert_ok(test_ctx(), status);
  assert_ok(test_ctx(), open_variant(&ex[1], test_ctx(), job->variant, 2));
  assert_ok(test_ctx(), open_variant(&ex[2], test_ctx(), job->variant, 4));
  const struct variant reference = {"ref", NULL, job->variant->dtype};
  assert_ok(test_ctx(), open_variant(&ref, test_ctx(), &reference, 1));
  int failures = 0, ran = 0;
  for (int i = 0; i < CASES; i++) {
    if (strcmp(cases[i].operation, job->operation->name) != 0) continue;
    if (job->only >= 0 && job->only != i) continue;
    ran++;
    if (emulated(job->variant) && products_of(&cases[i].shape) > emulated_products) continue;
    failures += !run_case(job, i, &ref, ex);
  }
  exec_close(&ref);
  for (int i = 0; i < 3; i++) exec_close(&ex[i]);
  assert_int_not_equal(ran, 0);
  assert_int_equal(failures, 0);
}

/* Permuted columns give permuted bits. */
static void test_softmax_permutation(void **state) {
  enum { ROWS = 40, E = 31 };
  const struct job *job = *state;
  struct exec ex;
  if (open_variant(&ex, test_ctx(), job->variant, 1) == DITMOE_DEVICE) skip();
  struct shape shape = {.N = ROWS, .E = E, .scale = 3};
  struct trial t;
  trial_begin(&t, &ex, &shape, 0, ROWS);
  float *x = trial_items(&t, E), host[ROWS * E], shuffled[ROWS * E];
  be_download(&ex, host, x, sizeof host);
  for (int i = 0; i < ROWS * E; i += 5) host[i] = host[i / E * E]; /* equal values, too */
  for (int i = 0; i < ROWS * E; i++) shuffled[i / E * E + i % E * 12 % E] = host[i];
  float *y = trial_results(&t, E), *z = trial_results(&t, E);
  be_softmax_rows(&ex, y, trial_upload(&t, host, ROWS * E), ROWS, E);
  be_softmax_rows(&ex, z, trial_upload(&t, shuffled, ROWS * E), ROWS, E);
  be_download(&ex, host, y, sizeof host);
  be_download(&ex, shuffled, z, sizeof shuffled);
  for (int i = 0; i < ROWS * E; i++)
    assert_memory_equal(&host[i], &shuffled[i / E * E + i % E * 12 % E], sizeof *host);
  assert_true(trial_finish(&t));
  trial_free(&t);
  exec_close(&ex);
}

static void test_registry(void **state) {
  (void)state;
  for (int i = 0; backend_name(i); i++) {
    int v = 0;
    while (v < VARIANTS && strcmp(variants[v].backend, backend_name(i)) != 0) v++;
    assert_int_not_equal(v, VARIANTS); /* a backend that is not tested */
  }
  struct exec ex;
  assert_fails(test_ctx(), DITMOE_USAGE, "tpu", backend_open(&ex, test_ctx(), "tpu", NULL, 1));
  assert_fails(test_ctx(), DITMOE_USAGE, "-1", backend_open(&ex, test_ctx(), "ref", NULL, -1));
  assert_fails(test_ctx(), DITMOE_DEVICE, "mmx", backend_open(&ex, test_ctx(), "ref", "mmx", 1));
  assert_int_not_equal(backend_open(&ex, test_ctx(), "cpu", "mmx", 1), DITMOE_OK);
}

static void test_compute_type(void **state) {
  (void)state;
  for (int i = 0; backend_name(i); i++) {
    struct exec ex;
    assert_ok(test_ctx(), backend_open(&ex, test_ctx(), backend_name(i), NULL, 1));
    assert_int_equal(ex.compute, DT_F32);
    assert_ok(test_ctx(), backend_compute(&ex, "bf16"));
    assert_int_equal(ex.compute, DT_BF16);
    assert_ok(test_ctx(), backend_compute(&ex, "f32"));
    assert_int_equal(ex.compute, DT_F32);
    assert_ok(test_ctx(), backend_compute(&ex, NULL));
    assert_true(ex.compute == DT_F32 || ex.compute == DT_BF16);
    assert_fails(test_ctx(), DITMOE_USAGE, "f16", backend_compute(&ex, "f16"));
    exec_close(&ex);
  }
}

/* Tensors that do not fit are refused by name. */
static void test_sources(void **state) {
  (void)state;
  float values[24] = {0};
  struct tensor a = {"a", DT_F32, 2, {2, 6}, 12, values}, b = {"b", DT_F32, 2, {3, 4}, 12, values};
  struct tensor bias = {"bias", DT_F32, 1, {3}, 3, values},
                ints = {"ints", DT_I32, 2, {2, 6}, 12, values};
  struct linear_source sources[] = {
      {2, false, DT_F32, {&a, &b}, {NULL}}, /* other inputs         */
      {1, false, DT_F32, {&a}, {&bias}},    /* bias of another size */
      {1, false, DT_F32, {&ints}, {NULL}},  /* not floating         */
      {1, false, DT_F32, {&bias}, {NULL}},  /* not a matrix         */
  };
  static const char *const named[] = {"b:", "bias:", "ints:", "bias:"};
  for (int v = 0; v < VARIANTS; v++) {
    struct exec ex;
    struct linear *linear;
    struct conv *conv;
    const struct conv_window window = {.stride = 1};
    if (open_variant(&ex, test_ctx(), &variants[v], 1) == DITMOE_DEVICE) continue;
    for (int i = 0; i < 4; i++)
      assert_fails(test_ctx(), DITMOE_MISMATCH, named[i],
                   ex.device->ops->linear_create(&ex, &sources[i], &linear));
    assert_fails(test_ctx(), DITMOE_MISMATCH,
                 "a:", ex.device->ops->conv_create(&ex, &a, NULL, &window, &conv));
    exec_close(&ex);
  }
}

/* Opens a backend and makes weights in a context that fails one allocation. */
static enum ditmoe_status make_weights(struct ditmoe_ctx *ctx, const struct variant *v) {
  float values[8] = {0};
  struct tensor w = {"w", DT_F32, 2, {2, 4}, 8, values},
                k = {"k", DT_F32, 4, {2, 1, 2, 2}, 8, values};
  struct linear_source source = {.parts = 1, .weight = {&w}};
  struct exec ex;
  struct linear *linear;
  struct conv *conv;
  TRY(open_variant(&ex, ctx, v, 2));
  enum ditmoe_status status = exec_reserve(&ex, 1000);
  if (status == DITMOE_OK) status = ex.device->ops->linear_create(&ex, &source, &linear);
  if (status == DITMOE_OK) {
    status = ex.device->ops->conv_create(&ex, &k, NULL, &(struct conv_window){.stride = 1}, &conv);
    if (status == DITMOE_OK) ex.device->ops->conv_destroy(&ex, conv);
    ex.device->ops->linear_destroy(&ex, linear);
  }
  exec_close(&ex);
  return status;
}

/* Whichever allocation fails, the error says so and nothing is left behind. */
static void test_no_memory(void **state) {
  (void)state;
  for (int v = 0; v < VARIANTS; v++)
    for (int64_t at = 0, fired = 1; fired; at++) {
      struct ditmoe_ctx *ctx = faulty_ctx(at);
      enum ditmoe_status status = make_weights(ctx, &variants[v]);
      fired = faulty_fired();
      if (fired) assert_fails(ctx, DITMOE_NOMEM, "memory", status);
      assert_int_equal(faulty_held(), 0);
      ditmoe_ctx_destroy(ctx);
    }
}

enum { GROUP_MAX = OPERATIONS + 5 };

/* The tests of one variant whose names begin with the filter; one case after a colon. */
struct group {
  int count;
  struct job job[GROUP_MAX];
  char name[GROUP_MAX][64];
  struct CMUnitTest test[GROUP_MAX];
};

static void add(struct group *group, const char *filter, const struct variant *v, const char *name,
                const struct operation *operation, CMUnitTestFunction function) {
  int i = group->count;
  size_t length = strcspn(filter, ":");
  snprintf(group->name[i], sizeof group->name[i], "%s/%s/%s/%s", v->backend, v->tier, v->dtype,
           name);
  if (strncmp(filter, group->name[i], length) != 0) return;
  if (filter[length] && group->name[i][length]) return;
  group->job[i] = (struct job){v, operation, filter[length] ? atoi(filter + length + 1) : -1};
  group->test[i] = (struct CMUnitTest){group->name[i], function, NULL, NULL, &group->job[i]};
  group->count++;
}

/* Linear layers and experts: tiers of the GPU differ in nothing else. */
static bool is_layer(const struct operation *op) {
  for (int i = 0; i < CASES; i++)
    if (strcmp(cases[i].operation, op->name) == 0 && (cases[i].shape.in || cases[i].shape.F))
      return true;
  return false;
}

static void fill(struct group *group, const char *filter, const struct variant *v) {
  static const struct variant all = {"all", "all", "all"};
  group->count = 0;
  if (v == variants) {
    add(group, filter, &all, "registry", NULL, test_registry);
    add(group, filter, &all, "compute_type", NULL, test_compute_type);
    add(group, filter, &all, "sources", NULL, test_sources);
    add(group, filter, &all, "no_memory", NULL, test_no_memory);
  }
  add(group, filter, v, "softmax_permutation", NULL, test_softmax_permutation);
  for (const struct operation *op = operations; op < operations + OPERATIONS; op++)
    if (!emulated(v) || strcmp(v->tier, "sm_80") != 0 || is_layer(op))
      add(group, filter, v, op->name, op, test_operation);
}

/* Each variant in a process of its own, so that one that crashes does not hide the others. */
int main(int argc, char **argv) {
  static struct group group;
  int ran = 0, failed = 0;
  for (const struct variant *v = variants; v < variants + VARIANTS; v++) {
    int status = 0;
    fill(&group, argc > 1 ? argv[1] : "", v);
    if (group.count == 0) continue;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
      return _cmocka_run_group_tests(v->tier, group.test, (size_t)group.count, NULL, NULL);
    failed += child < 0 || waitpid(child, &status, 0) != child || status != 0;
    ran++;
  }
  if (ran == 0) fprintf(stderr, "no test begins with %s\n", argv[1]);
  return failed > 0 || ran == 0;
}
