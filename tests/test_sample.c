/* The public interface on the shipped model: recorded samples, the promises about bits, allocation
 * and failure, and requests that must be refused. */
#include "support.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { C = 4, SIDE = 8, LATENT = C * SIDE * SIDE, IMAGE = 32, PIXELS = IMAGE * IMAGE * 3 };

/* dtype NULL: what the machine does best. */
static struct ditmoe_model *open_model(const char *dtype, int threads) {
  const struct ditmoe_model_options options = {.dtype = dtype, .threads = threads};
  struct ditmoe_model *model = NULL;
  assert_ok(test_ctx(), ditmoe_model_open(test_ctx(), source_path("assets/default/model.pth"),
                                          &options, &model));
  return model;
}

static struct ditmoe_decoder *open_decoder(const char *dtype, int threads) {
  const struct ditmoe_model_options options = {.dtype = dtype, .threads = threads};
  struct ditmoe_decoder *decoder = NULL;
  assert_ok(test_ctx(), ditmoe_decoder_open(test_ctx(), source_path("assets/default/vae"), &options,
                                            0, &decoder));
  return decoder;
}

static void sample(const struct ditmoe_model *model, const struct ditmoe_decoder *decoder,
                   const struct ditmoe_request *request, float *latents, uint8_t *pixels) {
  struct ditmoe_session *session = NULL;
  assert_ok(test_ctx(), ditmoe_session_create(test_ctx(), model, decoder, request, &session));
  assert_ok(test_ctx(), ditmoe_sample(test_ctx(), session, request, latents, pixels));
  ditmoe_session_destroy(session);
}

/* 60 samples that the original program made of the same weights, noise and labels: 99.9% of the
 * pixels equal, none off by more than 1. */
static void test_recorded_samples(void **state) {
  (void)state;
  enum { COUNT = 60 };
  struct ditmoe_checkpoint *in =
      checkpoint_of(source_path("tests/data/fashion-promoe/inputs.safetensors"));
  struct ditmoe_checkpoint *out =
      checkpoint_of(source_path("tests/data/fashion-promoe/outputs.safetensors"));
  float *noise = tensor_f32(in, "noise", NULL), *latent = tensor_f32(out, "latent", NULL);
  float *image = tensor_f32(out, "image", NULL);
  int64_t *labels64 = tensor_i64(in, "labels", NULL);
  int32_t labels[COUNT];
  for (int i = 0; i < COUNT; i++) labels[i] = (int32_t)labels64[i];
  struct ditmoe_request request = ditmoe_request_default();
  request.labels = labels, request.count = COUNT, request.cfg_scale = 2, request.noise = noise;
  float *latents = malloc(COUNT * LATENT * sizeof *latents);
  uint8_t *pixels = malloc(COUNT * PIXELS);
  assert_true(latents && pixels);
  struct ditmoe_model *model = open_model("f32", 0);
  struct ditmoe_decoder *decoder = open_decoder("f32", 0);
  sample(model, decoder, &request, latents, pixels);
  assert_within("latents", relative_max(latents, latent, COUNT * LATENT), 1e-5);
  int different = 0, far = 0;
  for (int i = 0; i < COUNT * PIXELS; i++) {
    int n = i / PIXELS, channel = i % 3, pixel = i % PIXELS / 3;
    float value = 127.5f * image[n * PIXELS + channel * IMAGE * IMAGE + pixel] + 128;
    int expected = (int)fminf(fmaxf(value, 0), 255), distance = abs(expected - pixels[i]);
    different += distance > 0, far += distance > 1;
  }
  print_message("%d of %d pixels differ\n", different, COUNT * PIXELS);
  assert_int_equal(far, 0);
  assert_true(different <= COUNT * PIXELS / 1000);
  ditmoe_decoder_close(decoder);
  ditmoe_model_close(model);
  ditmoe_checkpoint_close(in);
  ditmoe_checkpoint_close(out);
  free(noise), free(latent), free(image), free(labels64), free(latents), free(pixels);
}

static const int32_t classes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1000, 3, 1, 4, 1, 5};

static struct ditmoe_request short_request(int64_t count) {
  struct ditmoe_request request = ditmoe_request_default();
  request.labels = classes, request.count = count, request.steps = 3, request.seed = 9;
  return request;
}

/* Batch, threads and position change no bit of an image, pixels included. */
static void test_invariance(void **state) {
  enum { COUNT = 7 };
  static float first[COUNT * LATENT], again[COUNT * LATENT];
  static uint8_t first_pixels[COUNT * PIXELS], again_pixels[COUNT * PIXELS];
  bool have = false;
  for (int threads = 1; threads <= 4; threads *= 2) {
    struct ditmoe_model *model = open_model(*state, threads);
    struct ditmoe_decoder *decoder = open_decoder(*state, threads);
    for (int batch = 1; batch <= 7; batch += batch == 1 ? 1 : 5) {
      struct ditmoe_request request = short_request(COUNT);
      request.batch = batch;
      sample(model, decoder, &request, have ? again : first, have ? again_pixels : first_pixels);
      if (have) assert_memory_equal(first, again, sizeof first);
      if (have) assert_memory_equal(first_pixels, again_pixels, sizeof first_pixels);
      have = true;
    }
    struct ditmoe_request request = short_request(2);
    request.labels = classes + 3, request.first_index = 3;
    sample(model, NULL, &request, again, NULL);
    assert_memory_equal(first + 3 * LATENT, again, 2 * LATENT * sizeof *again);
    ditmoe_decoder_close(decoder);
    ditmoe_model_close(model);
  }
}

/* bf16 makes nearly the pictures of f32, whichever of the two parts computes in it. Measured over
 * 60 images on each tier: 59 to 60 dB with the model in bf16, 56.7 with the decoder, 56 with both.
 */
static void test_bf16_pictures(void **state) {
  (void)state;
  enum { COUNT = 10, BYTES = COUNT * PIXELS };
  static const char *const types[][2] = {{"bf16", "f32"}, {"f32", "bf16"}, {"bf16", "bf16"}};
  static float latents[COUNT * LATENT], other[COUNT * LATENT];
  static uint8_t pixels[BYTES], close[BYTES];
  struct ditmoe_request request = ditmoe_request_default();
  request.labels = classes, request.count = COUNT, request.cfg_scale = 2;
  struct ditmoe_model *model = open_model("f32", 0);
  struct ditmoe_decoder *decoder = open_decoder("f32", 0);
  sample(model, decoder, &request, latents, pixels);
  ditmoe_decoder_close(decoder);
  ditmoe_model_close(model);
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    double sum = 0;
    model = open_model(types[i][0], 0);
    decoder = open_decoder(types[i][1], 0);
    sample(model, decoder, &request, other, close);
    for (int p = 0; p < BYTES; p++) sum += (pixels[p] - close[p]) * (pixels[p] - close[p]);
    const double decibels = 20 * log10(255 / sqrt(sum / BYTES));
    print_message("model %s, decoder %s: %.1f dB\n", types[i][0], types[i][1], decibels);
    assert_true(sum > 0 && decibels >= 52);
    assert_int_equal(memcmp(latents, other, sizeof latents) == 0, types[i][0][0] == 'f');
    ditmoe_decoder_close(decoder);
    ditmoe_model_close(model);
  }
}

/* Without a compute type, that of the tier. */
static void test_compute_types(void **state) {
  (void)state;
  static const struct {
    const char *tier, *dtype, *expected;
  } cases[] = {{"generic", NULL, "f32"},     {"avx2", NULL, "f32"}, {"avx512", NULL, "f32"},
               {"avx512bf16", NULL, "bf16"}, {"amx", NULL, "bf16"}, {"generic", "bf16", "bf16"},
               {"avx512bf16", "f32", "f32"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const struct ditmoe_model_options options = {.tier = cases[i].tier, .dtype = cases[i].dtype};
    struct ditmoe_model *model = NULL;
    struct ditmoe_model_info info;
    enum ditmoe_status status =
        ditmoe_model_open(test_ctx(), source_path("assets/default/model.pth"), &options, &model);
    if (status == DITMOE_DEVICE) continue;
    assert_ok(test_ctx(), status);
    ditmoe_model_info(model, &info);
    assert_string_equal(info.tier, cases[i].tier);
    assert_string_equal(info.dtype, cases[i].expected);
    ditmoe_model_close(model);
  }
  const struct ditmoe_model_options half = {.dtype = "f16"};
  struct ditmoe_model *model = NULL;
  struct ditmoe_decoder *decoder = NULL;
  assert_fails(
      test_ctx(), DITMOE_USAGE, "expected f32 or bf16, found \"f16\"",
      ditmoe_model_open(test_ctx(), source_path("assets/default/model.pth"), &half, &model));
  assert_fails(
      test_ctx(), DITMOE_USAGE, "expected f32 or bf16, found \"f16\"",
      ditmoe_decoder_open(test_ctx(), source_path("assets/default/vae"), &half, 0, &decoder));
}

/* Every field of a request changes the result. */
static void test_fields_act(void **state) {
  (void)state;
  struct ditmoe_model *model = open_model(NULL, 1);
  static float plain[2 * LATENT], other[2 * LATENT], noise[2 * LATENT];
  static const int32_t swapped[2] = {5, 1};
  struct ditmoe_request base = short_request(2);
  sample(model, NULL, &base, plain, NULL);
  struct ditmoe_request changed[] = {base, base, base, base, base, base, base, base, base, base};
  int n = 0;
  changed[n++].seed = 10;
  changed[n++].first_index = 1;
  changed[n++].labels = swapped;
  changed[n++].steps = 4;
  changed[n++].sampler = "heun";
  changed[n++].cfg_scale = 1;
  changed[n++].cfg_to = 0.5;
  changed[n++].shift = 3;
  changed[n++].rng = "torch-cpu";
  changed[n++].noise = noise;
  for (int i = 0; i < n; i++) {
    sample(model, NULL, &changed[i], other, NULL);
    if (memcmp(plain, other, sizeof plain) == 0) fail_msg("change %d has no effect", i);
  }
  struct ditmoe_request channels = base;
  channels.cfg_channels = 3;
  sample(model, NULL, &channels, other, NULL);
  assert_true(memcmp(plain, other, sizeof plain) != 0);
  ditmoe_model_close(model);
}

static void test_refused(void **state) {
  (void)state;
  static const int32_t bad_class[1] = {10};
  struct ditmoe_model *model = open_model(NULL, 1);
  struct {
    struct ditmoe_request request;
    const char *text;
    enum ditmoe_status status;
  } cases[18];
  int n = 0;
#define REFUSED(change, code, message)                                                             \
  do {                                                                                             \
    cases[n].request = short_request(1);                                                           \
    cases[n].request.change;                                                                       \
    cases[n].text = message;                                                                       \
    cases[n++].status = code;                                                                      \
  } while (0)
  REFUSED(labels = bad_class, DITMOE_USAGE, "class 10");
  REFUSED(labels = NULL, DITMOE_USAGE, "no labels");
  REFUSED(count = 0, DITMOE_USAGE, "number of samples");
  REFUSED(steps = -1, DITMOE_USAGE, "steps");
  REFUSED(sampler = "ddpm", DITMOE_MISMATCH, "trained for rf");
  REFUSED(sampler = "lms", DITMOE_USAGE, "unknown sampler");
  REFUSED(eta = 0.5, DITMOE_USAGE, "eta");
  REFUSED(respacing = "ddim25", DITMOE_USAGE, "respacing");
  REFUSED(fixed_variance = 1, DITMOE_USAGE, "fixed-variance");
  REFUSED(cfg_scale = NAN, DITMOE_USAGE, "guidance scale");
  REFUSED(cfg_to = 2, DITMOE_USAGE, "interval");
  REFUSED(cfg_channels = 9, DITMOE_USAGE, "guided channels");
  REFUSED(batch = -1, DITMOE_USAGE, "batch size");
  REFUSED(block = 4, DITMOE_USAGE, "index block");
  REFUSED(rng = "xorshift", DITMOE_USAGE, "rng");
  REFUSED(shift = -1, DITMOE_USAGE, "shift");
  REFUSED(width = 7, DITMOE_USAGE, "latents of 7x8: sides must be multiples of the patch, 2");
  REFUSED(height = -8, DITMOE_USAGE, "latents of 8x-8");
#undef REFUSED
  for (int i = 0; i < n; i++) {
    struct ditmoe_session *session = NULL;
    assert_fails(test_ctx(), cases[i].status, cases[i].text,
                 ditmoe_session_create(test_ctx(), model, NULL, &cases[i].request, &session));
    assert_null(session);
  }
  ditmoe_model_close(model);
}

/* Of a height and a width: an image depends on them, and on neither batch nor memory of others. */
static void test_rectangle(void **state) {
  (void)state;
  enum { H = 12, W = 6, EACH = C * H * W, COUNT = 3 };
  float together[COUNT * EACH], alone[EACH];
  static uint8_t pixels[COUNT * 3 * 16 * H * W];
  struct ditmoe_model *model = open_model("f32", 2);
  struct ditmoe_decoder *decoder = open_decoder("f32", 2);
  struct ditmoe_request request = short_request(COUNT);
  struct ditmoe_session *session = NULL;
  request.height = H, request.width = W;
  sample(model, decoder, &request, together, pixels);
  struct ditmoe_request last = request;
  last.count = 1, last.first_index = COUNT - 1, last.labels = request.labels + COUNT - 1;
  sample(model, NULL, &last, alone, NULL);
  assert_memory_equal(alone, together + (COUNT - 1) * EACH, sizeof alone);
  assert_ok(test_ctx(), ditmoe_session_create(test_ctx(), model, NULL, &request, &session));
  request.height = W, request.width = H;
  assert_fails(test_ctx(), DITMOE_USAGE, "made for latents of 6x12, not 12x6",
               ditmoe_sample(test_ctx(), session, &request, together, NULL));
  ditmoe_session_destroy(session);
  ditmoe_decoder_close(decoder);
  ditmoe_model_close(model);
}

/* Another objective's sampler runs with force. */
static void test_force(void **state) {
  (void)state;
  static float latents[LATENT];
  struct ditmoe_model *model = open_model(NULL, 1);
  struct ditmoe_request request = short_request(1);
  request.sampler = "ddim", request.force = 1;
  sample(model, NULL, &request, latents, NULL);
  ditmoe_model_close(model);
}

struct watch {
  uint64_t at_first_step, at_last_step;
  int steps, stop_after;
};

static int watch_step(void *user, const struct ditmoe_observation *seen) {
  struct watch *watch = user;
  uint64_t now = ditmoe_allocations(test_ctx());
  if (seen->step == 1) watch->at_first_step = now;
  watch->at_last_step = now;
  watch->steps++;
  return watch->stop_after && watch->steps >= watch->stop_after;
}

/* No allocation through the hooks between the first and the last step. */
static void test_steady_state(void **state) {
  (void)state;
  static float latents[2 * LATENT];
  struct watch watch = {0};
  struct ditmoe_model *model = open_model(NULL, 2);
  struct ditmoe_request request = short_request(2);
  request.steps = 6, request.observe = watch_step, request.user = &watch;
  sample(model, NULL, &request, latents, NULL);
  assert_int_equal(watch.steps, 6);
  assert_int_equal(watch.at_first_step, watch.at_last_step);
  ditmoe_model_close(model);
}

/* An observer ends a run; the session then serves another. */
static void test_cancel(void **state) {
  (void)state;
  static float latents[LATENT], again[LATENT];
  struct watch watch = {.stop_after = 2};
  struct ditmoe_model *model = open_model(NULL, 1);
  struct ditmoe_request request = short_request(1);
  struct ditmoe_session *session = NULL;
  assert_ok(test_ctx(), ditmoe_session_create(test_ctx(), model, NULL, &request, &session));
  assert_ok(test_ctx(), ditmoe_sample(test_ctx(), session, &request, latents, NULL));
  request.observe = watch_step, request.user = &watch;
  assert_fails(test_ctx(), DITMOE_CANCELLED, "after step 2 of 3",
               ditmoe_sample(test_ctx(), session, &request, again, NULL));
  request.observe = NULL;
  assert_ok(test_ctx(), ditmoe_sample(test_ctx(), session, &request, again, NULL));
  assert_memory_equal(latents, again, sizeof again);
  ditmoe_session_destroy(session);
  ditmoe_model_close(model);
}

/* The n-th allocation fails, for every n: DITMOE_NOMEM, nothing leaks, nothing crashes. */
static enum ditmoe_status whole_run(struct ditmoe_ctx *ctx, const char *dtype) {
  static float latents[LATENT];
  static uint8_t pixels[IMAGE * IMAGE * 3];
  const struct ditmoe_model_options options = {
      .dtype = dtype, .threads = 1, .record = "{\"heads\":2,\"top_k\":1,\"objective\":\"rf\"}"};
  struct ditmoe_model *model = NULL;
  struct ditmoe_decoder *decoder = NULL;
  struct ditmoe_session *session = NULL;
  struct ditmoe_request request = short_request(1);
  request.steps = 1;
  enum ditmoe_status status =
      ditmoe_model_open(ctx, fixture_path("bad/control.pt"), &options, &model);
  if (status == DITMOE_OK)
    status = ditmoe_decoder_open(ctx, fixture_path("vae/kl_oldkeys"), &options, 0, &decoder);
  if (status == DITMOE_OK) status = ditmoe_session_create(ctx, model, decoder, &request, &session);
  if (status == DITMOE_OK) status = ditmoe_sample(ctx, session, &request, latents, pixels);
  ditmoe_session_destroy(session);
  ditmoe_decoder_close(decoder);
  ditmoe_model_close(model);
  return status;
}

static void test_allocation_failures(void **state) {
  for (int64_t at = 0;; at++) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    enum ditmoe_status status = whole_run(ctx, *state);
    bool fired = faulty_fired();
    if (fired && status != DITMOE_NOMEM)
      fail_msg("allocation %lld failed, but the status is %d: %s", (long long)at, status,
               ditmoe_errmsg(ctx));
    if (!fired) assert_int_equal(status, DITMOE_OK);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
    if (!fired) break;
  }
}

/* What a request needs. The file's weights have 16 bits and keep them in both types, with a little
 * for the layout; activations of bf16 are smaller. */
static void test_plan(void **state) {
  (void)state;
  struct ditmoe_model *model = open_model("f32", 1), *half = open_model("bf16", 1);
  struct ditmoe_request request = short_request(4);
  struct ditmoe_plan plan, heun, less;
  struct ditmoe_model_info info;
  assert_ok(test_ctx(), ditmoe_plan(test_ctx(), model, NULL, &request, &plan));
  assert_string_equal(plan.sampler, "euler");
  assert_int_equal(plan.denoiser_calls, 3);
  ditmoe_model_info(model, &info);
  const uint64_t stored = 2 * info.parameters;
  assert_true(plan.weight_bytes > stored && plan.weight_bytes < stored + stored / 5);
  assert_true(plan.activation_bytes > 100000);
  assert_ok(test_ctx(), ditmoe_plan(test_ctx(), half, NULL, &request, &less));
  assert_true(less.weight_bytes > stored && less.weight_bytes < stored + stored / 5);
  assert_true(less.activation_bytes < plan.activation_bytes);
  request.sampler = "heun";
  assert_ok(test_ctx(), ditmoe_plan(test_ctx(), model, NULL, &request, &heun));
  assert_int_equal(heun.denoiser_calls, 6);
  ditmoe_model_close(half);
  ditmoe_model_close(model);
}

/* Without its weights a model plans what it does with them, and nothing else. */
static void test_plan_only(void **state) {
  static const char *const kinds[][2] = {{"cpu", "f32"}, {"cpu", "bf16"}, {"ref", "f32"}};
  struct ditmoe_request request = short_request(4);
  (void)state;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    struct ditmoe_plan plan[2];
    for (int only = 0; only < 2; only++) {
      const struct ditmoe_model_options options = {
          .backend = kinds[i][0], .dtype = kinds[i][1], .plan_only = only};
      struct ditmoe_model *model = NULL;
      struct ditmoe_decoder *decoder = NULL;
      struct ditmoe_session *session = NULL;
      assert_ok(test_ctx(), ditmoe_model_open(test_ctx(), source_path("assets/default/model.pth"),
                                              &options, &model));
      assert_ok(test_ctx(), ditmoe_decoder_open(test_ctx(), source_path("assets/default/vae"),
                                                &options, 0, &decoder));
      assert_ok(test_ctx(), ditmoe_plan(test_ctx(), model, decoder, &request, &plan[only]));
      if (only)
        assert_fails(test_ctx(), DITMOE_USAGE, "has no weights",
                     ditmoe_session_create(test_ctx(), model, decoder, &request, &session));
      ditmoe_decoder_close(decoder);
      ditmoe_model_close(model);
    }
    assert_int_equal(plan[0].weight_bytes, plan[1].weight_bytes);
    assert_int_equal(plan[0].activation_bytes, plan[1].activation_bytes);
  }
}

/* A decoder of other latents. */
static void test_decoder_mismatch(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"{\"latent_scale\":0.18215}", "latents scaled by 0.18215"},
      {"{\"latent_shift\":0.1159}", "latents shifted by 0.1159"}};
  struct ditmoe_decoder *decoder = open_decoder(NULL, 1);
  struct ditmoe_request request = short_request(1);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const struct ditmoe_model_options other = {.record = cases[i][0]};
    struct ditmoe_model *model = NULL;
    struct ditmoe_session *session = NULL;
    assert_ok(test_ctx(), ditmoe_model_open(test_ctx(), source_path("assets/default/model.pth"),
                                            &other, &model));
    assert_fails(test_ctx(), DITMOE_MISMATCH, cases[i][1],
                 ditmoe_session_create(test_ctx(), model, decoder, &request, &session));
    ditmoe_model_close(model);
  }
  ditmoe_decoder_close(decoder);
}

/* torch's generator: the image depends on its index block; DiffMoE's on the images of its block. */
static void test_blocks(void **state) {
  (void)state;
  static float all[8 * LATENT], part[8 * LATENT];
  struct ditmoe_model *model = open_model(NULL, 1);
  struct ditmoe_request request = short_request(8);
  request.rng = "torch-cpu", request.block = 4, request.steps = 1;
  sample(model, NULL, &request, all, NULL);
  request.labels = classes + 4, request.count = 4, request.first_index = 4;
  sample(model, NULL, &request, part, NULL);
  assert_memory_equal(all + 4 * LATENT, part, 4 * LATENT * sizeof *part);
  struct ditmoe_session *session = NULL;
  request.first_index = 2;
  assert_fails(test_ctx(), DITMOE_USAGE, "index block",
               ditmoe_session_create(test_ctx(), model, NULL, &request, &session));
  ditmoe_model_close(model);
}

/* DiffMoE: the images of a block depend on each other, and on no other block. */
static void test_coupled_blocks(void **state) {
  (void)state;
  enum { COUNT = 4 };
  static float all[COUNT * LATENT], part[COUNT * LATENT];
  const struct ditmoe_model_options options = {.threads = 1,
                                               .record = "{\"heads\":4,\"objective\":\"rf\"}"};
  struct ditmoe_model *model = NULL;
  struct ditmoe_model_info info;
  assert_ok(test_ctx(),
            ditmoe_model_open(test_ctx(), fixture_path("promoe/diffmoe/bare.safetensors"), &options,
                              &model));
  ditmoe_model_info(model, &info);
  assert_true(info.batch_coupled);
  struct ditmoe_request request = short_request(COUNT);
  struct ditmoe_plan plan;
  request.block = 2;
  assert_ok(test_ctx(), ditmoe_plan(test_ctx(), model, NULL, &request, &plan));
  assert_int_equal(plan.block, 2);
  assert_int_equal(plan.denoiser_calls, 2 * request.steps); /* the halves of guidance apart */
  sample(model, NULL, &request, all, NULL);
  request.labels = classes + 2, request.count = 2, request.first_index = 2;
  sample(model, NULL, &request, part, NULL);
  assert_memory_equal(all + 2 * LATENT, part, 2 * LATENT * sizeof *part);
  request = short_request(COUNT);
  request.block = 4;
  sample(model, NULL, &request, part, NULL);
  assert_true(memcmp(all, part, sizeof all) != 0);
  ditmoe_model_close(model);
}

int main(void) {
  static char f32[] = "f32", bf16[] = "bf16";
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_recorded_samples),
      cmocka_unit_test_prestate(test_invariance, f32),
      cmocka_unit_test_prestate(test_invariance, bf16),
      cmocka_unit_test(test_bf16_pictures),
      cmocka_unit_test(test_compute_types),
      cmocka_unit_test(test_fields_act),
      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_rectangle),
      cmocka_unit_test(test_force),
      cmocka_unit_test(test_steady_state),
      cmocka_unit_test(test_cancel),
      cmocka_unit_test_prestate(test_allocation_failures, f32),
      cmocka_unit_test_prestate(test_allocation_failures, bf16),
      cmocka_unit_test(test_plan),
      cmocka_unit_test(test_plan_only),
      cmocka_unit_test(test_decoder_mismatch),
      cmocka_unit_test(test_blocks),
      cmocka_unit_test(test_coupled_blocks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
