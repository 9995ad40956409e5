/* Random numbers against fixtures: rows of Philox4x32-10, and draws of torch's CPU generator in
 * tensors s<seed>.<draw>.<size>, or s<seed>.seq.<n>_<draw> where one generator makes several. */
#include "base/normal.h"
#include "base/rng.h"
#include "cases.h"
#include "limit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum ditmoe_status philox_rows(struct case_file *file) {
  double *counter = NULL, *key = NULL, *out = NULL;
  int64_t words = 0;
  enum ditmoe_status status;
  TRY_DONE(case_values(file, "counter", &counter, &words));
  TRY_DONE(case_values(file, "key", &key, NULL));
  TRY_DONE(mem_alloc(file->ctx, (size_t)words, sizeof *out, "words", &out));
  for (int64_t row = 0; row < words / 4; row++) {
    uint32_t c[4], k[2] = {(uint32_t)key[2 * row], (uint32_t)key[2 * row + 1]};
    for (int i = 0; i < 4; i++) c[i] = (uint32_t)counter[4 * row + i];
    normal_philox(c, c, k);
    for (int i = 0; i < 4; i++) out[4 * row + i] = c[i];
  }
  status = case_equal(file, "out", out, words);
done:
  mem_free(file->ctx, out);
  mem_free(file->ctx, key);
  mem_free(file->ctx, counter);
  return status;
}

enum draw_kind { WORDS, INTEGERS, PERMUTATION, NORMALS, UNIFORMS };

/* A longer prefix stands before a shorter one. */
static const struct draw {
  const char *prefix;
  enum draw_kind kind;
  enum dtype dtype;
  bool exact;
} draws[] = {
    {"mt19937_raw32", WORDS, DT_I64, true}, {"normal_0_1", NORMALS, DT_F32, false},
    {"randint", INTEGERS, DT_I64, true},    {"randperm", PERMUTATION, DT_I64, true},
    {"randn_f64", NORMALS, DT_F64, false},  {"randn", NORMALS, DT_F32, false},
    {"rand_f64", UNIFORMS, DT_F64, true},   {"rand", UNIFORMS, DT_F32, true},
};

static const struct draw *draw_find(const char *name, enum dtype dtype) {
  for (size_t i = 0; i < sizeof draws / sizeof *draws; i++)
    if (!strncmp(name, draws[i].prefix, strlen(draws[i].prefix)))
      return draws[i].dtype == dtype ? &draws[i] : NULL;
  return NULL;
}

/* rest: "_LOW_HIGH", where HIGH may be 2pN for a power. */
static void draw_integers(struct torch_rng *rng, int64_t *out, int64_t n, const char *rest) {
  char *end;
  long long low = strtoll(rest + 1, &end, 10), high = strtoll(end + 1, &end, 10);
  if (*end == 'p') high = 1LL << atoi(end + 1);
  torch_rng_randint(rng, out, n, low, high);
}

static void draw_make(const struct draw *draw, struct torch_rng *rng, void *out, int64_t n,
                      const char *rest) {
  bool f64 = draw->dtype == DT_F64;
  switch (draw->kind) {
  case WORDS:
    for (int64_t i = 0; i < n; i++) ((int64_t *)out)[i] = torch_rng_u32(rng);
    break;
  case INTEGERS:
    draw_integers(rng, out, n, rest);
    break;
  case PERMUTATION:
    torch_rng_randperm(rng, out, n);
    break;
  case NORMALS:
    f64 ? torch_rng_randn_f64(rng, out, n) : torch_rng_randn(rng, out, n);
    break;
  case UNIFORMS:
    f64 ? torch_rng_rand_f64(rng, out, n) : torch_rng_rand(rng, out, n);
    break;
  }
}

static enum ditmoe_status check_draw(struct case_file *file, const struct draw *draw,
                                     struct torch_rng *rng, const struct tensor *expected,
                                     const char *rest) {
  struct tensor made = *expected;
  double error = 0;
  void *out;
  TRY(mem_alloc(file->ctx, (size_t)made.elements, dtype_size(made.dtype), made.name, &out));
  draw_make(draw, rng, out, made.elements, rest);
  made.data = out;
  for (int64_t i = 0; i < made.elements; i++)
    error = fmax(error, fabs(case_value(&made, i) - case_value(expected, i)));
  mem_free(file->ctx, out);
  case_line(file, made.name, error, draw->exact ? LIMIT_EXACT : LIMIT_NORMALS);
  return DITMOE_OK;
}

/* Tensors come in the order of their names, so those of a sequence in the order of their draws. */
static enum ditmoe_status torch_draws(struct case_file *file) {
  struct torch_rng rng;
  for (size_t i = 0; i < file->checkpoint->count; i++) {
    const struct tensor *tensor = &file->checkpoint->tensors[i];
    unsigned long long seed;
    int start = 0, order = 0, sequence = 0;
    if (sscanf(tensor->name, "s%llu.%n", &seed, &start) == 1 && start > 0)
      sscanf(tensor->name + start, "seq.%d_%n", &order, &sequence);
    const char *name = tensor->name + start + sequence;
    const struct draw *draw = start > 0 ? draw_find(name, tensor->dtype) : NULL;
    if (!draw) {
      case_line(file, tensor->name, INFINITY, 0);
      continue;
    }
    if (order == 0) torch_rng_seed(&rng, seed);
    TRY(check_draw(file, draw, &rng, tensor, name + strlen(draw->prefix)));
  }
  return DITMOE_OK;
}

enum ditmoe_status rng_case(struct ditmoe_ctx *ctx, const char *folder, case_report *report,
                            void *user) {
  static const struct {
    const char *name;
    enum ditmoe_status (*check)(struct case_file *file);
  } files[] = {{"philox4x32_10.safetensors", philox_rows}, {"torch_cpu.safetensors", torch_draws}};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    struct case_file file;
    TRY(case_open(ctx, folder, files[i].name, report, user, &file));
    enum ditmoe_status status = files[i].check(&file);
    case_close(&file);
    TRY(status);
  }
  return DITMOE_OK;
}
