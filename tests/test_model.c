/* The model as a whole, on synthetic checkpoints: layers that differ, the promises about bits,
 * planted experts. */
#include "base/system.h"
#include "dit/acts.h"
#include "support.h"
#include "synthetic.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct synthetic gated = {.width = 32,
                                       .depth = 2,
                                       .heads = 2,
                                       .size = 8,
                                       .patch = 2,
                                       .channels = 4,
                                       .classes = 4,
                                       .experts = {6, 6},
                                       .hidden = {48, 48},
                                       .top_k = {2, 2},
                                       .seed = 5};

static float *predict_file(const char *path, const char *backend, const char *tier, int B,
                           uint32_t null_images, const struct routing *routing, size_t *count) {
  struct opened opened;
  model_open(&opened, path, backend, tier, "f32", 1);
  *count = (size_t)B * model_output_size(&opened);
  float *out = malloc(*count * sizeof *out);
  assert_non_null(out);
  model_predict(&opened, out, 0, B, null_images, routing);
  model_close(&opened);
  return out;
}

static float *predict_spec(const struct synthetic *spec, const char *backend, int B,
                           uint32_t null_images, const struct routing *routing, size_t *count) {
  const char *path = temporary_path("synthetic.safetensors");
  synthetic_write(spec, path);
  return predict_file(path, backend, NULL, B, null_images, routing, count);
}

/* Experts, top-k, widths and kinds that differ from layer to layer and within a layer. */
static void test_uneven_layers(void **state) {
  (void)state;
  size_t count;
  float *ref = predict_spec(&synthetic_uneven, "ref", 3, 0, NULL, &count);
  float *cpu = predict_spec(&synthetic_uneven, "cpu", 3, 0, NULL, &count);
  assert_within("cpu against ref", relative_l2(cpu, ref, (int64_t)count), 3e-6);
  struct opened opened;
  model_open(&opened, temporary_path("synthetic.safetensors"), "ref", NULL, "f32", 1);
  const struct dit_moe *moe = opened.model->blocks[1].moe;
  assert_int_equal(moe->bank.count, 10);
  assert_int_equal(moe->router->top_k, 4);
  assert_int_equal(moe->bank.hidden, 17 + 6 * 9);
  assert_ptr_equal(moe->bank.expert[7].kind, &expert_zero);
  assert_ptr_equal(moe->bank.expert[9].kind, &expert_copy);
  assert_int_equal(opened.model->blocks[2].moe->router->top_k, 1);
  model_close(&opened);
  free(ref);
  free(cpu);
}

#define IN_BOTH_TYPES(tier)                                                                        \
  {tier "/f32", tier, "f32"}, { tier "/bf16", tier, "bf16" }

static struct arithmetic {
  const char *name, *tier, *dtype;
} arithmetics[] = {IN_BOTH_TYPES("generic"), IN_BOTH_TYPES("avx2"), IN_BOTH_TYPES("avx512"),
                   IN_BOTH_TYPES("avx512bf16"), IN_BOTH_TYPES("amx")};
enum { ARITHMETICS = sizeof arithmetics / sizeof *arithmetics };

/* The same bits for any batch, position and number of threads. */
static void check_invariance(int width, int size, const struct arithmetic *arithmetic) {
  static const int batches[] = {1, 2, 7, 16}, threads[] = {1, 2, 4};
  const struct synthetic spec = {.width = width,
                                 .depth = 2,
                                 .heads = width / 64,
                                 .size = size,
                                 .patch = 2,
                                 .channels = 4,
                                 .classes = 9,
                                 .experts = {8, 8},
                                 .hidden = {width, width},
                                 .hidden_step = 8,
                                 .top_k = {2, 2},
                                 .shared = true,
                                 .seed = 21};
  const char *path = temporary_path("wide.safetensors");
  synthetic_write(&spec, path);
  float *first = NULL;
  for (size_t t = 0; t < 3; t++) {
    struct opened opened;
    model_open(&opened, path, "cpu", arithmetic->tier, arithmetic->dtype, threads[t]);
    const size_t values = model_output_size(&opened);
    float *out = malloc(16 * values * sizeof *out);
    assert_non_null(out);
    for (size_t b = 0; b < 4; b++) {
      for (int at = 0; at < 16; at += batches[b]) {
        int left = 16 - at, B = batches[b] < left ? batches[b] : left;
        model_predict(&opened, out + (size_t)at * values, at, B, 0xa5, NULL);
      }
      if (!first) {
        first = out;
        out = malloc(16 * values * sizeof *out);
        assert_non_null(out);
      } else if (memcmp(first, out, 16 * values * sizeof *out) != 0) {
        fail_msg("width %d, %s: batch %d with %d threads differs from batch 1 with 1", width,
                 arithmetic->name, batches[b], threads[t]);
      }
    }
    free(out);
    model_close(&opened);
  }
  free(first);
}

static void test_invariance(void **state) {
  const struct arithmetic *arithmetic = *state;
  struct exec probe;
  if (backend_open(&probe, test_ctx(), "cpu", arithmetic->tier, 1) != DITMOE_OK) {
    print_message("tier %s is not on this machine\n", arithmetic->tier);
    skip();
  }
  exec_close(&probe);
  check_invariance(384, 8, arithmetic);
#ifndef __SANITIZE_ADDRESS__ /* which takes minutes, and sees the same code */
  check_invariance(1152, 4, arithmetic);
#endif
}

/* Renaming the experts changes no bit, whatever k. */
struct permutation {
  const int *order;
  int experts;
};

static void permuted_name(char *out, size_t size, const char *name, const struct permutation *p) {
  const char *at = strstr(name, "experts.");
  int expert = at && !strstr(name, "shared") ? atoi(at + 8) : -1;
  if (expert < 0) {
    snprintf(out, size, "%s", name);
    return;
  }
  snprintf(out, size, "%.*sexperts.%d%s", (int)(at - name), name, p->order[expert],
           strchr(at + 8, '.'));
}

static void permute_file(const char *from, const char *to, const struct permutation *p) {
  struct ditmoe_checkpoint *checkpoint = checkpoint_of(from);
  struct tensor *tensors = malloc(checkpoint->count * sizeof *tensors);
  float *gates = malloc(checkpoint->count * 4096 * sizeof *gates);
  char(*names)[128] = malloc(checkpoint->count * sizeof *names);
  assert_true(tensors && gates && names);
  for (size_t i = 0; i < checkpoint->count; i++) {
    tensors[i] = checkpoint->tensors[i];
    permuted_name(names[i], sizeof names[i], tensors[i].name, p);
    tensors[i].name = names[i];
    if (!strstr(names[i], "gate.weight") || strstr(names[i], "proj")) continue;
    float *rows = gates + i * 4096;
    const int64_t D = tensors[i].shape[1];
    for (int e = 0; e < p->experts; e++)
      tensor_read_f32(rows + p->order[e] * D, &checkpoint->tensors[i], e * D, D);
    tensors[i].data = rows;
  }
  assert_ok(test_ctx(), safetensors_write(test_ctx(), to, tensors, checkpoint->count, DT_COUNT,
                                          checkpoint->metadata, checkpoint->metadata_count));
  free(tensors);
  free(gates);
  free(names);
  ditmoe_checkpoint_close(checkpoint);
}

static void test_permuted_experts(void **state) {
  (void)state;
  static const int order[] = {3, 5, 0, 4, 1, 2};
  const struct permutation permutation = {order, 6};
  for (int k = 2; k <= 4; k += 2)
    for (int b = 0; b < 2; b++) {
      const char *backend = b ? "cpu" : "ref";
      struct synthetic spec = gated;
      size_t count;
      spec.top_k[0] = spec.top_k[1] = k;
      float *plain = predict_spec(&spec, backend, 2, 0, NULL, &count);
      permute_file(temporary_path("synthetic.safetensors"), temporary_path("permuted.safetensors"),
                   &permutation);
      float *permuted =
          predict_file(temporary_path("permuted.safetensors"), backend, NULL, 2, 0, NULL, &count);
      assert_memory_equal(plain, permuted, count * sizeof *plain);
      free(plain);
      free(permuted);
    }
}

/* Planting: tensors whose name contains a text get one value. */
struct planted {
  const char *text;
  float value;
};

static void plant(void *user, const char *name, float *values, int64_t count) {
  const struct planted *planted = user;
  if (!strstr(name, planted->text)) return;
  for (int64_t i = 0; i < count; i++) values[i] = planted->value;
}

static bool finite_image(const float *out, size_t size, int image) {
  for (size_t i = 0; i < size; i++)
    if (!isfinite(out[(size_t)image * size + i])) return false;
  return true;
}

/* Poisons the unconditional expert, or all routed ones. */
static void poison(void *user, const char *name, float *values, int64_t count) {
  const bool *uncond = user;
  if (!strstr(name, "experts.") || !!strstr(name, "experts.5.") != *uncond) return;
  for (int64_t i = 0; i < count; i++) values[i] = NAN;
}

/* NaN in the unconditional expert reaches the null images only, NaN in the routed ones the others.
 */
static void test_poisoned_experts(void **state) {
  (void)state;
  const uint32_t null_images = 0x6;
  for (int b = 0; b < 4; b++) {
    bool uncond = b & 1;
    struct synthetic spec = synthetic_prototypes;
    size_t count;
    spec.plant = poison;
    spec.user = &uncond;
    float *out = predict_spec(&spec, b & 2 ? "cpu" : "ref", 4, null_images, NULL, &count);
    for (int image = 0; image < 4; image++)
      assert_int_equal(finite_image(out, count / 4, image), uncond != (null_images >> image & 1));
    free(out);
  }
}

/* A zero gate scores all experts 1 / E, the first k are taken: their mean times k / E. */
struct zero_gate_check {
  struct opened *opened;
  double worst;
  int seen;
};

static void check_zero_gate(void *user, struct exec *ex, const struct dit_tap_data *tap) {
  struct zero_gate_check *check = user;
  (void)ex;
  if (tap->point != TAP_EXPERT_ROWS) return;
  const struct dispatch *d = tap->dispatch;
  const int E = 6, k = 2, tokens = tap->B * tap->T;
  for (int e = 0; e < E; e++) assert_int_equal(d->offset[e + 1] - d->offset[e], e < k ? tokens : 0);
  for (int r = 0; r < k * tokens; r++)
    check->worst = fmax(check->worst, fabs((double)d->weight[r] - 1.0 / E));
  check->seen++;
}

static void test_zero_gate(void **state) {
  (void)state;
  struct planted planted = {"gate.weight", 0};
  struct synthetic spec = gated;
  spec.plant = plant;
  spec.user = &planted;
  const char *path = temporary_path("zero.safetensors");
  synthetic_write(&spec, path);
  struct opened o;
  model_open(&o, path, "ref", NULL, "f32", 1);
  const int D = spec.width, T = 16;
  float *u = malloc((size_t)(T * D) * 4), *y = malloc((size_t)(T * D) * 4);
  float *one = malloc((size_t)(T * D) * 4);
  double *mean = calloc((size_t)(T * D), sizeof *mean);
  assert_true(u && y && one && mean);
  for (int i = 0; i < T * D; i++) u[i] = sinf((float)i);
  struct zero_gate_check check = {&o, 0, 0};
  const struct dit_tap tap = {&check, check_zero_gate};
  const int32_t label = 0;
  const struct dit_input in = {.labels = &label, .B = 1, .tap = &tap};
  assert_ok(test_ctx(), exec_reserve(&o.ex, dit_predict_bytes(&o.ex, o.model, NULL, 1)));
  struct dit_block_acts acts = {0};
  dit_block_carve(&o.ex, o.model, 0, &acts, &in, false);
  memcpy(acts.u2_exact, u, (size_t)(T * D) * sizeof *u);
  acts.ffn = y;
  moe_forward(&o.ex, o.model, 0, &acts, &in);
  for (int e = 0; e < 2; e++) {
    ffn_forward(&o.ex, &o.model->blocks[0].moe->bank.expert[e], one, acts.h, act_f32(u), T);
    for (int i = 0; i < T * D; i++) mean[i] += (double)one[i] / 2;
  }
  assert_ok(test_ctx(), o.ex.status);
  assert_int_equal(check.seen, 1);
  assert_within("weights", check.worst, 1e-7);
  for (int i = 0; i < T * D; i++)
    assert_within("mean of the experts times k / E", fabs((double)y[i] - mean[i] * 2 / 6), 1e-6);
  model_close(&o);
  free(u);
  free(y);
  free(one);
  free(mean);
}

/* Calls with other routing: fewer experts, or the second best alone. */
static void test_routing_override(void **state) {
  (void)state;
  size_t count;
  struct synthetic spec = gated;
  spec.top_k[0] = spec.top_k[1] = 1;
  float *one = predict_spec(&spec, "cpu", 2, 0, NULL, &count);
  const struct routing first = {.top_k = 1}, second = {.top_k = 1, .skip = 1};
  float *overridden = predict_spec(&gated, "cpu", 2, 0, &first, &count);
  float *skipped = predict_spec(&gated, "cpu", 2, 0, &second, &count);
  assert_memory_equal(one, overridden, count * sizeof *one);
  assert_true(relative_l2(skipped, one, (int64_t)count) > 1e-3);
  const struct routing beyond = {.top_k = 3, .skip = 9}, last = {.top_k = 1, .skip = 5};
  float *clamped = predict_spec(&gated, "cpu", 2, 0, &beyond, &count);
  float *worst = predict_spec(&gated, "cpu", 2, 0, &last, &count);
  assert_memory_equal(clamped, worst, count * sizeof *worst);
  free(one);
  free(overridden);
  free(skipped);
  free(clamped);
  free(worst);
}

/* A request that does not fit is refused before anything is allocated for it. */
static void test_memory_limit(void **state) {
  (void)state;
  enum { BATCH = 8192 };
  static int32_t labels[BATCH];
  const struct synthetic spec = {.width = 16,
                                 .depth = 1,
                                 .heads = 1,
                                 .size = 512,
                                 .patch = 2,
                                 .channels = 1,
                                 .classes = 1,
                                 .experts = {2},
                                 .hidden = {16},
                                 .top_k = {1}};
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_model *model = NULL;
  struct ditmoe_session *session = NULL;
  struct ditmoe_request request = ditmoe_request_default();
  request.labels = labels, request.count = request.batch = BATCH;
  synthetic_write(&spec, temporary_path("large.safetensors"));
  assert_ok(ctx, ditmoe_model_open(ctx, temporary_path("large.safetensors"), NULL, &model));
  assert_fails(ctx, DITMOE_NOMEM, "--batch-size",
               ditmoe_session_create(ctx, model, NULL, &request, &session));
  assert_null(session);
  ditmoe_model_close(model);
}

/* A file that claims more labels than any memory holds: the last tensor, stretched over a hole. */
static void stretch_labels(const char *from, const char *to, int64_t rows, int width) {
  size_t size;
  char *bytes = file_bytes(from, &size), shape[64], header[65536];
  uint64_t length;
  memcpy(&length, bytes, 8);
  char *entry = strstr(bytes + 8, "y_embedder"), *old = entry ? strstr(entry, "\"shape\"") : NULL;
  char *offsets = entry ? strstr(entry, "\"data_offsets\":[") : NULL;
  assert_true(old && offsets && length < sizeof header - 256);
  const long long begin = strtoll(offsets + 16, NULL, 10), end = begin + rows * width * 4;
  const char *dtype = strstr(entry, "\"dtype\"");
  assert_non_null(dtype);
  snprintf(shape, sizeof shape, "[%lld,%d]", (long long)rows, width);
  snprintf(header, sizeof header,
           "%.*s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%lld,%lld]}}",
           (int)(strchr(entry, '"') - bytes - 8), bytes + 8, shape, begin, end);
  FILE *file = fopen(to, "wb");
  assert_non_null(file);
  length = strlen(header);
  fwrite(&length, 8, 1, file);
  fwrite(header, 1, length, file);
  fwrite(bytes + size - (size_t)(strtoll(strchr(offsets, ',') + 1, NULL, 10)), 1, (size_t)begin,
         file);
  fflush(file);
  assert_int_equal(ftruncate(fileno(file), (off_t)(8 + length) + end), 0);
  fclose(file);
  free(bytes);
}

static void test_weights_do_not_fit(void **state) {
  (void)state;
  const struct synthetic spec = {.width = 512,
                                 .depth = 1,
                                 .heads = 8,
                                 .size = 4,
                                 .patch = 2,
                                 .channels = 1,
                                 .classes = 1,
                                 .experts = {1},
                                 .hidden = {16},
                                 .top_k = {1}};
  const int64_t rows = 1 << 24;
  struct ditmoe_model *model = NULL;
  if (system_memory_available() > (uint64_t)rows * 512 * 4) {
    print_message("this machine has memory for %d GiB of weights\n", 32);
    skip();
  }
  synthetic_write(&spec, temporary_path("small.safetensors"));
  stretch_labels(temporary_path("small.safetensors"), temporary_path("huge.safetensors"), rows,
                 512);
  assert_fails(test_ctx(), DITMOE_NOMEM, "the weights need 32",
               ditmoe_model_open(test_ctx(), temporary_path("huge.safetensors"), NULL, &model));
  assert_null(model);
  const struct ditmoe_model_options options = {.plan_only = 1};
  struct ditmoe_model_info info;
  assert_ok(test_ctx(),
            ditmoe_model_open(test_ctx(), temporary_path("huge.safetensors"), &options, &model));
  ditmoe_model_info(model, &info);
  assert_true(info.weight_bytes > (uint64_t)rows * 512 * 4);
  ditmoe_model_close(model);
}

/* Names under a prefix that nobody knows: the message shows what they look like. */
static void test_unknown_prefix(void **state) {
  (void)state;
  struct ditmoe_model *model = NULL;
  synthetic_write(&gated, temporary_path("synthetic.safetensors"));
  struct ditmoe_checkpoint *checkpoint = checkpoint_of(temporary_path("synthetic.safetensors"));
  struct tensor tensor = *checkpoint_find(checkpoint, "blocks.0.attn.qkv.weight");
  tensor.name = "mine.blocks.0.attn.qkv.weight";
  assert_ok(test_ctx(), safetensors_write(test_ctx(), temporary_path("prefixed.safetensors"),
                                          &tensor, 1, DT_COUNT, NULL, 0));
  assert_fails(test_ctx(), DITMOE_MISMATCH, "the nearest is mine.blocks.0.attn.qkv.weight",
               ditmoe_model_open(test_ctx(), temporary_path("prefixed.safetensors"), NULL, &model));
  ditmoe_checkpoint_close(checkpoint);
}

int main(void) {
  struct CMUnitTest invariance[ARITHMETICS];
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_uneven_layers),      cmocka_unit_test(test_permuted_experts),
      cmocka_unit_test(test_poisoned_experts),   cmocka_unit_test(test_zero_gate),
      cmocka_unit_test(test_routing_override),   cmocka_unit_test(test_memory_limit),
      cmocka_unit_test(test_weights_do_not_fit), cmocka_unit_test(test_unknown_prefix),
  };
  for (int i = 0; i < ARITHMETICS; i++)
    invariance[i] =
        (struct CMUnitTest){arithmetics[i].name, test_invariance, NULL, NULL, &arithmetics[i]};
  return cmocka_run_group_tests(tests, NULL, NULL) + cmocka_run_group_tests(invariance, NULL, NULL);
}
