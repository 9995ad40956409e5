/* Attention and its gradient on the emulated device, against the definition in float64. */
#include "backend/cuda/kernels_attention.h"
#include "base/rng.h"
#include "tests/cuda/emulator.h"
#include "tests/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct attention_case {
  enum dtype type, qkv_type; /* of o, of qkv */
  int B, T, H, d;
  float sharpness; /* factor of q */
};

static const struct attention_case CASES[] = {
    {DT_F32, DT_F32, 1, 1, 1, 1, 1},      {DT_F32, DT_F32, 2, 70, 2, 6, 1},
    {DT_F32, DT_F32, 1, 66, 2, 72, 1},    {DT_F32, DT_F32, 1, 65, 1, 88, 10},
    {DT_F32, DT_F32, 1, 33, 1, 100, 1},   {DT_F32, DT_F32, 1, 20, 1, 300, 1},
    {DT_BF16, DT_F32, 1, 1, 1, 8, 1},     {DT_BF16, DT_F32, 2, 70, 2, 24, 1},
    {DT_BF16, DT_BF16, 1, 130, 1, 64, 1}, {DT_BF16, DT_BF16, 2, 129, 2, 72, 1},
    {DT_BF16, DT_F32, 1, 192, 1, 72, 30}, {DT_BF16, DT_BF16, 1, 97, 2, 88, 1},
    {DT_BF16, DT_F32, 1, 70, 1, 104, 1},  {DT_BF16, DT_BF16, 1, 65, 1, 128, 1},
    {DT_BF16, DT_BF16, 1, 9, 2, 6, 1},    {DT_F16, DT_F16, 1, 70, 1, 72, 1},
    {DT_F16, DT_F32, 1, 70, 1, 40, 30},   {DT_F16, DT_F16, 1, 5, 1, 144, 1},
};
enum { CASE_COUNT = sizeof CASES / sizeof *CASES };

/* Largest relative error of a row of one head: rounding of inputs is in the definition too, that of
 * probabilities and of the result is not. */
static double limit_of(enum dtype type) {
  return type == DT_F32 ? 1e-5 : type == DT_F16 ? 7e-4 : 6e-3;
}

struct problem {
  struct attention_case c;
  int64_t qkv_count, o_count, row_count;
  float *qkv, *d_o; /* as rounded for the products */
};

/* To the nearest value of the type, ties to even. */
static float rounded(float x, enum dtype type) {
  if (type == DT_F32 || x == 0 || !isfinite(x)) return x;
  int exponent;
  frexpf(x, &exponent);
  int lowest = type == DT_F16 ? -24 : -133, bit = exponent - (type == DT_F16 ? 11 : 8);
  return ldexpf(rintf(ldexpf(x, -(bit > lowest ? bit : lowest))), bit > lowest ? bit : lowest);
}

static uint16_t bits_of(float x, enum dtype type) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (type == DT_BF16) return (uint16_t)(bits >> 16);
  float scaled = x * 0x1p-112f; /* exponents of f16 begin where those of f32 do */
  memcpy(&bits, &scaled, sizeof bits);
  return (uint16_t)((bits >> 16 & 0x8000) | (bits >> 13 & 0x7fff));
}

static float value_of(uint16_t half, enum dtype type) {
  uint32_t bits =
      type == DT_BF16 ? (uint32_t)half << 16 : (half & 0x8000u) << 16 | (half & 0x7fffu) << 13;
  float x;
  memcpy(&x, &bits, sizeof x);
  return type == DT_BF16 ? x : x * 0x1p112f;
}

static float *normals(int64_t count, uint64_t sample, enum dtype type) {
  float *x = malloc((size_t)count * sizeof *x);
  assert_non_null(x);
  rng_normal(x, count, 7, sample, 0, RNG_INITIAL_NOISE);
  for (int64_t i = 0; i < count; i++) x[i] = rounded(x[i], type);
  return x;
}

static struct problem problem_of(const struct attention_case *c) {
  struct problem p = {.c = *c};
  p.row_count = (int64_t)c->B * c->T * c->H;
  p.o_count = p.row_count * c->d;
  p.qkv_count = 3 * p.o_count;
  p.qkv = normals(p.qkv_count, 0, c->type);
  p.d_o = normals(p.o_count, 1, c->type);
  const int64_t D = (int64_t)c->H * c->d;
  for (int64_t i = 0; i < p.qkv_count; i++)
    if (i / D % 3 == 0) p.qkv[i] = rounded(p.qkv[i] * c->sharpness, c->type);
  return p;
}

static void problem_free(struct problem *p) {
  free(p->qkv);
  free(p->d_o);
}

static void *allocate(size_t bytes) {
  void *memory;
  assert_int_equal(cudaMalloc(&memory, bytes), cudaSuccess);
  return memory;
}

/* Values to the device, in a type that holds them. */
static void *upload(const float *x, int64_t count, enum dtype type) {
  const size_t size = type == DT_F32 ? 4 : 2;
  uint16_t *halves = malloc((size_t)count * sizeof *halves);
  assert_non_null(halves);
  for (int64_t i = 0; i < count && type != DT_F32; i++) halves[i] = bits_of(x[i], type);
  void *memory = allocate((size_t)count * size);
  assert_int_equal(cudaMemcpy(memory, type == DT_F32 ? (const void *)x : halves,
                              (size_t)count * size, cudaMemcpyHostToDevice),
                   cudaSuccess);
  free(halves);
  return memory;
}

static float *download(const void *memory, int64_t count, enum dtype type) {
  float *x = malloc((size_t)count * sizeof *x);
  assert_non_null(x);
  assert_int_equal(
      cudaMemcpy(x, memory, (size_t)count * (type == DT_F32 ? 4 : 2), cudaMemcpyDeviceToHost),
      cudaSuccess);
  for (int64_t i = count - 1; i >= 0 && type != DT_F32; i--) {
    uint16_t half;
    memcpy(&half, (const char *)x + 2 * i, sizeof half);
    x[i] = value_of(half, type);
  }
  return x;
}

static void assert_clean(cudaError_t error) {
  assert_string_equal(emulator_fault(), "");
  assert_int_equal(error, cudaSuccess);
  assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
}

/* o, and lse unless NULL; to be freed. */
static float *run(const struct problem *p, const float *qkv, int B, float **lse) {
  const struct attention_case *c = &p->c;
  const int64_t part = p->o_count / c->B * B, rows = p->row_count / c->B * B;
  void *input = upload(qkv, 3 * part, c->qkv_type);
  void *o = allocate((size_t)part * (c->type == DT_F32 ? 4 : 2));
  float *sums = lse ? allocate((size_t)rows * sizeof *sums) : NULL;
  assert_clean(cuda_attention(
      NULL, &(struct cuda_attention){input, o, sums, c->qkv_type, c->type, B, c->T, c->H, c->d}));
  float *result = download(o, part, c->type);
  if (lse) *lse = download(sums, rows, DT_F32);
  cudaFree(input);
  cudaFree(o);
  cudaFree(sums);
  return result;
}

/* The definition. Row i of head h of image b of q (which 0), k or v. */
static const float *row_at(const struct problem *p, int64_t b, int64_t i, int which, int64_t h) {
  return p->qkv + (((b * p->c.T + i) * 3 + which) * p->c.H + h) * p->c.d;
}

static double dot(const float *a, const float *b, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += (double)a[i] * b[i];
  return sum;
}

/* prob [T] of query i; returns log of the sum of the exponentials. */
static double probabilities(double *prob, const struct problem *p, int64_t b, int64_t i,
                            int64_t h) {
  double max = -INFINITY, sum = 0;
  for (int j = 0; j < p->c.T; j++) {
    prob[j] = dot(row_at(p, b, i, 0, h), row_at(p, b, j, 1, h), p->c.d) / sqrt(p->c.d);
    max = fmax(max, prob[j]);
  }
  for (int j = 0; j < p->c.T; j++) sum += prob[j] = exp(prob[j] - max);
  for (int j = 0; j < p->c.T; j++) prob[j] /= sum;
  return max + log(sum);
}

/* |x - y| / |y| */
static double distance(const float *x, const double *y, int64_t n) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < n; i++) {
    difference += (x[i] - y[i]) * (x[i] - y[i]);
    norm += y[i] * y[i];
  }
  return sqrt(difference / norm);
}

static void check_rows(const struct problem *p, const float *o, const float *lse) {
  const struct attention_case *c = &p->c;
  double *prob = malloc((size_t)c->T * sizeof *prob);
  double *expected = malloc((size_t)c->d * sizeof *expected);
  assert_non_null(prob);
  assert_non_null(expected);
  for (int64_t row = 0; row < p->row_count; row++) {
    const int64_t h = row % c->H, i = row / c->H % c->T, b = row / c->H / c->T;
    double sum = probabilities(prob, p, b, i, h);
    memset(expected, 0, (size_t)c->d * sizeof *expected);
    for (int j = 0; j < c->T; j++)
      for (int n = 0; n < c->d; n++) expected[n] += prob[j] * row_at(p, b, j, 2, h)[n];
    double error = distance(o + row * c->d, expected, c->d);
    if (!(error <= limit_of(c->type)))
      fail_msg("image %d token %d head %d: relative error %g", (int)b, (int)i, (int)h, error);
    double at = lse[(b * c->H + h) * c->T + i];
    if (!(fabs(at - sum) <= 1e-5 * fmax(1, fabs(sum)))) fail_msg("lse %.9g, not %.9g", at, sum);
  }
  free(prob);
  free(expected);
}

static void test_definition(void **state) {
  (void)state;
  for (int i = 0; i < CASE_COUNT; i++) {
    const struct attention_case *c = &CASES[i];
    print_message("%s of %s, B %d T %d H %d d %d\n", dtype_name(c->type), dtype_name(c->qkv_type),
                  c->B, c->T, c->H, c->d);
    struct problem p = problem_of(c);
    float *lse, *o = run(&p, p.qkv, c->B, &lse);
    check_rows(&p, o, lse);
    free(lse);
    free(o);
    problem_free(&p);
  }
}

/* The bits of an image depend neither on the others, nor on the type of qkv, nor on lse. */
static void test_invariance(void **state) {
  (void)state;
  static const enum dtype types[] = {DT_F32, DT_BF16};
  for (int i = 0; i < 2; i++) {
    struct attention_case c = {types[i], DT_F32, 3, 70, 2, 72, 1};
    struct problem p = problem_of(&c);
    float *lse, *all = run(&p, p.qkv, 3, &lse);
    p.c.qkv_type = types[i];
    float *last = run(&p, p.qkv + p.qkv_count / 3 * 2, 1, NULL);
    assert_memory_equal(last, all + p.o_count / 3 * 2, (size_t)p.o_count / 3 * sizeof *all);
    free(lse);
    free(all);
    free(last);
    problem_free(&p);
  }
}

/* A query that is not a number is one row of one head; a key that all refuse does not count, even
 * if the first 64 are such. */
static void test_not_finite(void **state) {
  (void)state;
  static const enum dtype types[] = {DT_F32, DT_BF16};
  for (int k = 0; k < 2; k++) {
    const struct attention_case c = {types[k], DT_F32, 1, 70, 2, 8, 1};
    struct problem p = problem_of(&c);
    for (int i = 0; i < c.T; i++)
      for (int n = 0; n < c.d; n++) {
        p.qkv[i * 48 + n] = n ? 0 : 0x1p100f;
        p.qkv[i * 48 + 16 + n] = n || i > 63 ? 0 : -0x1p100f;
      }
    p.qkv[69 * 48 + 8] = NAN; /* query 69 of head 1 */
    float *o = run(&p, p.qkv, 1, NULL);
    for (int n = 0; n < c.d; n++) {
      double mean = 0;
      for (int i = 64; i < c.T; i++) mean += p.qkv[i * 48 + 32 + n] / 6.0;
      assert_true(fabs(o[n] - mean) <= 0.01);
      for (int i = 0; i < c.T; i++) {
        assert_true(isfinite(o[i * 16 + n]));
        assert_true(i == 69 ? isnan(o[i * 16 + 8 + n]) : isfinite(o[i * 16 + 8 + n]));
      }
    }
    free(o);
    problem_free(&p);
  }
}

/* Gradients. */

static double *gradients(const struct problem *p) {
  const struct attention_case *c = &p->c;
  double *grad = calloc((size_t)p->qkv_count, sizeof *grad);
  double *prob = malloc((size_t)c->T * sizeof *prob);
  assert_non_null(grad);
  assert_non_null(prob);
  for (int64_t row = 0; row < p->row_count; row++) {
    const int64_t h = row % c->H, i = row / c->H % c->T, b = row / c->H / c->T;
    const float *d_o = p->d_o + row * c->d, *q = row_at(p, b, i, 0, h);
    double mean = 0;
    probabilities(prob, p, b, i, h);
    for (int j = 0; j < c->T; j++) mean += prob[j] * dot(d_o, row_at(p, b, j, 2, h), c->d);
    for (int j = 0; j < c->T; j++) {
      const float *k = row_at(p, b, j, 1, h), *v = row_at(p, b, j, 2, h);
      const double ds = prob[j] * (dot(d_o, v, c->d) - mean) / sqrt(c->d);
      for (int n = 0; n < c->d; n++) {
        grad[q - p->qkv + n] += ds * k[n];
        grad[k - p->qkv + n] += ds * q[n];
        grad[v - p->qkv + n] += prob[j] * d_o[n];
      }
    }
  }
  free(prob);
  return grad;
}

static float *run_bwd(const struct problem *p, enum dtype qkv_type, enum dtype d_o_type) {
  const struct attention_case *c = &p->c;
  float *lse, *o = run(p, p->qkv, c->B, &lse);
  float *dqkv = allocate((size_t)p->qkv_count * sizeof *dqkv);
  float *delta = allocate((size_t)p->row_count * sizeof *delta);
  struct cuda_attention_bwd a = {dqkv,
                                 delta,
                                 upload(p->d_o, p->o_count, d_o_type),
                                 upload(p->qkv, p->qkv_count, qkv_type),
                                 upload(o, p->o_count, c->type),
                                 upload(lse, p->row_count, DT_F32),
                                 d_o_type,
                                 qkv_type,
                                 c->type,
                                 c->B,
                                 c->T,
                                 c->H,
                                 c->d};
  assert_clean(cuda_attention_bwd(NULL, &a));
  float *grad = download(dqkv, p->qkv_count, DT_F32);
  const void *buffers[] = {dqkv, delta, a.d_o, a.qkv, a.o, a.lse};
  for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) cudaFree((void *)buffers[i]);
  free(lse);
  free(o);
  return grad;
}

static void check_gradients(const struct problem *p, const float *grad, const double *expected) {
  static const char *const names[] = {"dq", "dk", "dv"};
  const struct attention_case *c = &p->c;
  const double limit = c->type == DT_F32 ? 2e-6 : c->type == DT_F16 ? 5e-4 : 4e-3;
  double difference[3] = {0}, norm[3] = {0};
  for (int64_t i = 0; i < p->qkv_count; i++) {
    const int which = (int)(i / (c->H * c->d) % 3);
    difference[which] += (grad[i] - expected[i]) * (grad[i] - expected[i]);
    norm[which] += expected[i] * expected[i];
  }
  for (int i = 0; i < 3; i++) {
    double error = sqrt(difference[i] / norm[i]);
    if (!(error <= limit)) fail_msg("%s: relative error %g", names[i], error);
  }
}

static void test_gradients(void **state) {
  (void)state;
  static const struct attention_case cases[] = {
      {DT_F32, DT_F32, 2, 66, 2, 6, 1},   {DT_F32, DT_F32, 1, 70, 1, 72, 1},
      {DT_F32, DT_F32, 1, 65, 1, 88, 1},  {DT_F32, DT_F32, 1, 33, 1, 130, 1},
      {DT_F32, DT_F32, 1, 5, 1, 64, 1},   {DT_BF16, DT_F32, 2, 70, 2, 24, 1},
      {DT_BF16, DT_F32, 1, 66, 1, 64, 1}, {DT_BF16, DT_BF16, 1, 129, 2, 72, 1},
      {DT_BF16, DT_F32, 1, 70, 1, 88, 1}, {DT_BF16, DT_BF16, 1, 33, 1, 128, 1},
      {DT_F16, DT_F32, 1, 66, 1, 72, 1},  {DT_BF16, DT_F32, 1, 7, 2, 6, 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const struct attention_case *c = &cases[i];
    print_message("%s of %s, B %d T %d H %d d %d\n", dtype_name(c->type), dtype_name(c->qkv_type),
                  c->B, c->T, c->H, c->d);
    struct problem p = problem_of(c);
    double *expected = gradients(&p);
    float *grad = run_bwd(&p, c->qkv_type, DT_F32);
    check_gradients(&p, grad, expected);
    if (c->d % 8 == 0 && c->T < 70) { /* d_o of the type of the products changes delta alone */
      float *other = run_bwd(&p, c->qkv_type, c->type);
      assert_memory_equal(other, grad, (size_t)p.qkv_count * sizeof *grad);
      free(other);
    }
    free(grad);
    free(expected);
    problem_free(&p);
  }
}

/* Logits so low that e^-lse, what a key past the last would count, is not finite. */
static void test_low_logits(void **state) {
  (void)state;
  static const struct attention_case c = {DT_BF16, DT_F32, 1, 70, 1, 16, 1};
  struct problem p = problem_of(&c);
  for (int i = 0; i < c.T; i++) {
    p.qkv[i * 48] = 64;
    p.qkv[i * 48 + 16] = -16;
  }
  double *expected = gradients(&p);
  float *grad = run_bwd(&p, DT_F32, DT_F32);
  for (int i = 0; i < p.qkv_count; i++) assert_true(isfinite(grad[i]));
  for (int i = 0; i < c.T; i++) /* k is constant there, so dq is 0 but for rounding */
    expected[i * 48] = grad[i * 48];
  check_gradients(&p, grad, expected);
  free(grad);
  free(expected);
  problem_free(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_definition), cmocka_unit_test(test_invariance),
      cmocka_unit_test(test_not_finite), cmocka_unit_test(test_gradients),
      cmocka_unit_test(test_low_logits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
