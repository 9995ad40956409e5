/* Models, decoders and feature networks on a device whose memory is closed to the host: none of
 * them touches it but by operations, and which operations those are, with what arguments, is the
 * same whatever latents, times, labels and pixels are. So are the launches on a GPU. */
#include "base/rng.h"
#include "eval/network.h"
#include "support.h"
#include "synthetic.h"
#include "tests/cuda/module.h"
#include "tests/guard.h"
#include "vae/vae.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* A network that is loaded: one of the three. */
struct loaded {
  struct opened o;
  struct vae *vae;
  struct network *network;
};

/* Inputs of two calls of one shape, and of one of another shape. */
enum inputs { INPUTS, OTHER_INPUTS, OTHER_SHAPE };

struct subject {
  const char *path, *record; /* record: of a model */
  void (*open)(struct loaded *l, const struct subject *subject);
  float *(*run)(struct loaded *l, enum inputs inputs, size_t *n);
  void (*close)(struct loaded *l);
};

static float *floats(size_t n) {
  float *values = calloc(n, sizeof *values);
  assert_non_null(values);
  return values;
}

static float *noise(size_t n, enum inputs inputs) {
  float *values = floats(n);
  rng_normal(values, (int64_t)n, 11, (uint64_t)inputs, 0, RNG_INITIAL_NOISE);
  return values;
}

/* Models. */

static void open_model(struct loaded *l, const struct subject *subject) {
  struct ditmoe_checkpoint *file = checkpoint_of(fixture_path(subject->path));
  assert_ok(l->o.ex.ctx, dit_open(&l->o.ex, file, subject->record, &l->o.model));
  ditmoe_checkpoint_close(file);
}

/* Other images are of the null class in each call: one, two, none. */
static float *run_model(struct loaded *l, enum inputs inputs, size_t *n) {
  static const uint32_t null_images[] = {2, 5, 0};
  const int B = inputs == OTHER_SHAPE ? 2 : 3, first = 4 * (int)inputs;
  *n = (size_t)B * model_output_size(&l->o);
  float *out = floats(*n);
  model_predict(&l->o, out, first, B, null_images[inputs] << first, NULL);
  return out;
}

static void close_model(struct loaded *l) { dit_close(&l->o.ex, l->o.model); }

/* Autoencoders. */

static void open_vae(struct loaded *l, const struct subject *subject) {
  assert_ok(l->o.ex.ctx, vae_open(&l->o.ex, fixture_path(subject->path), &l->vae));
}

static void close_vae(struct loaded *l) { vae_close(&l->o.ex, l->vae); }

static float *decode(struct loaded *l, enum inputs inputs, int tile, size_t *n) {
  struct exec *ex = &l->o.ex;
  struct vae_info info;
  vae_describe(l->vae, &info);
  const int size = (tile ? 3 : 2) + (inputs == OTHER_SHAPE), side = size * info.factor;
  float *latents = noise((size_t)info.latent_channels * size * size, inputs);
  float *image = floats(*n = (size_t)3 * side * side);
  assert_ok(ex->ctx, exec_reserve(ex, vae_decode_bytes(ex, l->vae, size, size, tile)));
  assert_ok(ex->ctx, vae_decode(ex, l->vae, image, latents, size, size, tile));
  free(latents);
  return image;
}

static float *run_decoder(struct loaded *l, enum inputs inputs, size_t *n) {
  return decode(l, inputs, 0, n);
}

static float *run_tiles(struct loaded *l, enum inputs inputs, size_t *n) {
  return decode(l, inputs, 2, n);
}

static float *run_encoder(struct loaded *l, enum inputs inputs, size_t *n) {
  struct exec *ex = &l->o.ex;
  struct vae_info info;
  vae_describe(l->vae, &info);
  const int size = inputs == OTHER_SHAPE ? 3 : 2, side = size * info.factor;
  const size_t each = (size_t)info.latent_channels * size * size;
  float *image = noise((size_t)3 * side * side, inputs), *moments = floats(2 * each);
  assert_ok(ex->ctx, exec_reserve(ex, vae_encode_bytes(ex, l->vae, side, side)));
  assert_ok(ex->ctx, vae_encode(ex, l->vae, moments, moments + each, image, side, side));
  free(image);
  *n = 2 * each;
  return moments;
}

/* Feature networks. */

static void open_network(struct loaded *l, const struct subject *subject) {
  assert_ok(l->o.ex.ctx, network_open(&l->o.ex, fixture_path(subject->path), &l->network));
}

static void close_network(struct loaded *l) { network_close(&l->o.ex, l->network); }

static float *run_network(struct loaded *l, enum inputs inputs, size_t *n) {
  struct exec *ex = &l->o.ex;
  const struct network_kind *kind = l->network->kind;
  const int side = 20, B = inputs == OTHER_SHAPE ? 2 : 1;
  uint8_t pixels[2 * 3 * 20 * 20];
  for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * (7 + (size_t)inputs));
  *n = (size_t)B * (size_t)(kind->pool + kind->spatial + kind->logits);
  float *out = floats(*n);
  const struct features features = {out, out + B * kind->pool,
                                    out + B * (kind->pool + kind->spatial)};
  assert_ok(ex->ctx, exec_reserve(ex, network_bytes(ex, l->network, B)));
  assert_ok(ex->ctx, network_run(ex, l->network, RESIZE_ADM, pixels, B, side, side, &features));
  return out;
}

/* What is the same for all. */

static float *recorded(struct guard *guard, const struct subject *subject, struct loaded *l,
                       enum inputs inputs, char **record, size_t *n) {
  size_t length;
  guard->record = open_memstream(record, &length);
  assert_non_null(guard->record);
  float *out = subject->run(l, inputs, n);
  fclose(guard->record);
  guard->record = NULL;
  return out;
}

static void assert_same_record(const char *path, const char *a, const char *b) {
  size_t line = 0, at = 0;
  for (; a[at] && a[at] == b[at]; at++)
    if (a[at] == '\n') line = at + 1;
  if (a[at] != b[at])
    fail_msg("%s: operations depend on values:\n%.*s\n%.*s", path, (int)strcspn(a + line, "\n"),
             a + line, (int)strcspn(b + line, "\n"), b + line);
}

/* Two calls of one shape are the same operations with the same arguments, and the second has the
 * bits of an execution without a guard; another shape is something else. */
static void check(const struct subject *subject, const char *backend, const char *dtype) {
  struct guard guard;
  struct loaded l = {0}, plain = {0};
  char *records[3];
  float *out[3], *expected;
  size_t n[3], expected_n;
  guard_open(&guard, &l.o.ex, backend, dtype, 2);
  subject->open(&l, subject);
  for (int i = INPUTS; i <= OTHER_SHAPE; i++)
    out[i] = recorded(&guard, subject, &l, (enum inputs)i, &records[i], &n[i]);
  subject->close(&l);
  guard_close(&guard, &l.o.ex);
  assert_true(strlen(records[INPUTS]) > 1000);
  assert_same_record(subject->path, records[INPUTS], records[OTHER_INPUTS]);
  assert_string_not_equal(records[INPUTS], records[OTHER_SHAPE]);

  assert_ok(test_ctx(), backend_open(&plain.o.ex, test_ctx(), backend, NULL, 2));
  assert_ok(test_ctx(), backend_compute(&plain.o.ex, dtype));
  subject->open(&plain, subject);
  expected = subject->run(&plain, OTHER_INPUTS, &expected_n);
  assert_int_equal(n[OTHER_INPUTS], expected_n);
  assert_memory_equal(out[OTHER_INPUTS], expected, expected_n * sizeof *expected);
  assert_memory_not_equal(out[INPUTS], expected, expected_n * sizeof *expected);
  subject->close(&plain);
  exec_close(&plain.o.ex);
  for (int i = INPUTS; i <= OTHER_SHAPE; i++) free(records[i]), free(out[i]);
  free(expected);
}

/* The same launches of kernels, by name and size, on the emulated GPU. */
static void check_launches(const struct subject *subject, const char *dtype) {
  const struct emulator *emulator = emulator_of_module();
  unsigned long long launches[3], sequence[3];
  struct loaded l = {0};
  size_t n;
  if (!emulator) skip();
  assert_ok(test_ctx(), backend_open(&l.o.ex, test_ctx(), "cuda", NULL, 1));
  assert_ok(test_ctx(), backend_compute(&l.o.ex, dtype));
  subject->open(&l, subject);
  for (int i = INPUTS; i <= OTHER_SHAPE; i++) {
    emulator->reset();
    free(subject->run(&l, (enum inputs)i, &n));
    launches[i] = emulator->launches(&sequence[i]);
  }
  subject->close(&l);
  exec_close(&l.o.ex);
  assert_true(launches[INPUTS] > 20);
  if (launches[INPUTS] != launches[OTHER_INPUTS] || sequence[INPUTS] != sequence[OTHER_INPUTS])
    fail_msg("%s: launches depend on values", subject->path);
  assert_true(sequence[INPUTS] != sequence[OTHER_SHAPE]);
}

#define MODEL(path, rest)                                                                          \
  { path, "{\"objective\": \"rf\", " rest "}", open_model, run_model, close_model }
static const struct subject models[] = {
    MODEL("dit_moe/b_mixed/bare.safetensors", "\"heads\": 6, \"top_k\": 1, \"qk_half\": true"),
    MODEL("dit_moe/c_flash_qknorm/bare.safetensors", "\"heads\": 2, \"top_k\": 2"),
    MODEL("promoe/promoe_tc/bare.safetensors",
          "\"kind\": \"promoe-tc\", \"heads\": 4, \"top_k\": 1, \"router_weight_mode\": "
          "\"identity\""),
    MODEL("promoe/promoe_tc_sigmoid_top2/bare.safetensors",
          "\"kind\": \"promoe-tc\", \"heads\": 4, \"top_k\": 2, \"router_weight_mode\": "
          "\"sigmoid\""),
    MODEL("promoe/promoe_ec_softmax_qknorm/bare.safetensors",
          "\"kind\": \"promoe-ec\", \"heads\": 4, \"top_k\": 2, \"router_weight_mode\": "
          "\"softmax\""),
    MODEL("promoe/tcdit_swiglu_shared/bare.safetensors", "\"heads\": 4, \"top_k\": 2"),
    MODEL("promoe/ecdit_swiglu_shared/bare.safetensors", "\"heads\": 4, \"capacity\": 2"),
    MODEL("promoe/diffmoe_shared_qknorm/bare.safetensors", "\"heads\": 4"),
    MODEL("promoe/dit_dense_qknorm/bare.safetensors", "\"heads\": 4, \"family\": \"promoe-dit\""),
    MODEL("diffusers_dit/pipeline/transformer/diffusion_pytorch_model.safetensors", "\"heads\": 4"),
};

static void test_models(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    check(&models[i], "ref", "f32");
    check(&models[i], "cpu", "f32");
    check(&models[i], "cpu", "bf16");
  }
}

static void test_launches(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) check_launches(&models[i], "bf16");
  check_launches(&models[0], "f32");
}

/* The models above have every router. */
static void test_every_router(void **state) {
  (void)state;
  enum { MOST = 16 };
  const struct router *met[MOST];
  int count = 0;
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    struct loaded l = {0};
    assert_ok(test_ctx(), backend_open(&l.o.ex, test_ctx(), "ref", NULL, 1));
    open_model(&l, &models[i]);
    for (int layer = 0; layer < l.o.model->config.depth && count < MOST; layer++)
      if (l.o.model->blocks[layer].moe) met[count++] = l.o.model->blocks[layer].moe->router->router;
    close_model(&l);
    exec_close(&l.o.ex);
  }
  for (int m = 0; mixture_at(m); m++) {
    const struct router *router = mixture_at(m)->router;
    int i = 0;
    while (i < count && met[i] != router) i++;
    if (router && i == count) fail_msg("no model with the router %s", router->name);
  }
}

static void test_autoencoders(void **state) {
  (void)state;
  static const char *const paths[] = {"vae/kl_oldkeys", "diffusers_dit/pipeline/vae", "vae/taesd"};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    const struct subject decoder = {paths[i], NULL, open_vae, run_decoder, close_vae};
    const struct subject tiles = {paths[i], NULL, open_vae, run_tiles, close_vae};
    const struct subject encoder = {paths[i], NULL, open_vae, run_encoder, close_vae};
    check(&decoder, "ref", "f32");
    check(&decoder, "cpu", "f32");
    check(&decoder, "cpu", "bf16");
    check(&tiles, "cpu", "f32");
    check(&encoder, "ref", "f32");
    check(&encoder, "cpu", "f32");
    check(&encoder, "cpu", "bf16");
  }
}

/* The reference backend takes too long for this one. */
static void test_features(void **state) {
  (void)state;
  const struct subject inception = {"inception/pt_inception_random.pth", NULL, open_network,
                                    run_network, close_network};
  check(&inception, "cpu", "f32");
}

/* Planted faults. */

/* The signal that ends run(user) in a process of its own; 0: it comes back. */
static int signal_of(void (*run)(void *user), void *user) {
  int status;
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    signal(SIGSEGV, SIG_DFL);
    run(user);
    _exit(0);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  if (!WIFSIGNALED(status)) assert_int_equal(WEXITSTATUS(status), 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void read_byte(void *at) { (void)*(volatile char *)at; }
static void write_byte(void *at) { *(volatile char *)at = 1; }

/* A prediction that a tap looks into. */
struct look {
  struct opened *o;
  void (*look)(void *user, struct exec *ex, const struct dit_tap_data *data);
};

static void look_on_host(void *user, struct exec *ex, const struct dit_tap_data *data) {
  (void)user, (void)ex;
  if (data->data) read_byte((void *)(uintptr_t)data->data);
}

static void look_by_download(void *user, struct exec *ex, const struct dit_tap_data *data) {
  float value;
  (void)user;
  if (data->data) be_download(ex, &value, data->data, sizeof value);
}

static void predict_with(void *user) {
  const struct look *look = user;
  struct exec *ex = &look->o->ex;
  float *x = floats(model_output_size(look->o)), *out = floats(model_output_size(look->o));
  const float time = 0.5F;
  const int32_t label = 1;
  const struct dit_tap tap = {.look = look->look};
  const struct dit_input in = {.x = x, .time = &time, .labels = &label, .B = 1, .tap = &tap};
  assert_ok(ex->ctx, exec_reserve(ex, dit_predict_bytes(ex, look->o->model, NULL, 1)));
  assert_ok(ex->ctx, dit_predict(ex, look->o->model, out, &in));
  free(x);
  free(out);
}

static void check_closed(const char *backend) {
  struct guard guard;
  struct loaded l = {0};
  float host = 0;
  guard_open(&guard, &l.o.ex, backend, "f32", 1);
  open_model(&l, &models[0]);
  const struct dit *model = l.o.model;
  assert_ok(l.o.ex.ctx, exec_reserve(&l.o.ex, 4096));
  void *const device[] = {l.o.ex.arena.base, (void *)(uintptr_t)model->grid.pos_embed,
                          (void *)(uintptr_t)model->embedder.labels, model->blocks[0].qkv->data,
                          model->blocks[0].moe->bank.expert[3].in->data};
  for (size_t i = 0; i < sizeof device / sizeof *device; i++) {
    assert_int_equal(signal_of(read_byte, device[i]), SIGSEGV);
    assert_int_equal(signal_of(write_byte, device[i]), SIGSEGV);
  }
  assert_int_equal(signal_of(write_byte, &host), 0);
  assert_int_equal(signal_of(predict_with, &(struct look){&l.o, look_by_download}), 0);
  assert_int_equal(signal_of(predict_with, &(struct look){&l.o, look_on_host}), SIGSEGV);
  close_model(&l);
  guard_close(&guard, &l.o.ex);
}

static void test_closed(void **state) {
  (void)state;
  check_closed("ref");
  check_closed("cpu");
}

/* Memory of the wrong side is refused where no processor would notice. */
static void test_wrong_side(void **state) {
  (void)state;
  struct guard guard;
  struct exec ex;
  float host[4] = {0};
  guard_open(&guard, &ex, "cpu", "f32", 1);
  assert_ok(ex.ctx, exec_reserve(&ex, 4096));
  float *x = be_floats(&ex, 4), *y = be_floats(&ex, 4);
  be_upload(&ex, x, host, sizeof host);
  be_silu(&ex, y, x, 4);
  be_download(&ex, host, y, sizeof host);
  assert_ok(ex.ctx, ex.status);
  be_silu(&ex, y, host, 4);
  assert_fails(ex.ctx, DITMOE_FAILED, "silu takes memory of the host", ex.status);
  exec_clear(&ex);
  be_upload(&ex, y, x, sizeof host);
  assert_fails(ex.ctx, DITMOE_FAILED, "upload takes memory of the device", ex.status);
  exec_clear(&ex);
  be_download(&ex, y, x, sizeof host);
  assert_fails(ex.ctx, DITMOE_FAILED, "download takes memory of the device", ex.status);
  exec_clear(&ex);
  guard_close(&guard, &ex);
}

/* One argument that comes from a value is another record. */
static void test_record(void **state) {
  (void)state;
  struct guard guard;
  struct exec ex;
  char *records[3];
  guard_open(&guard, &ex, "ref", "f32", 1);
  assert_ok(ex.ctx, exec_reserve(&ex, 4096));
  float *x = be_floats(&ex, 16);
  for (int i = 0; i < 3; i++) {
    size_t length;
    guard.record = open_memstream(&records[i], &length);
    assert_non_null(guard.record);
    be_fill(&ex, x, 0, 64);
    be_tanh_clamp(&ex, x, x, i == 1 ? 2.5F : 2, 16);
    be_silu(&ex, x, i == 2 ? x + 1 : x, 15);
    fclose(guard.record);
  }
  guard.record = NULL;
  assert_string_equal(records[0], "fill a+0 0 64\ntanh_clamp a+0 a+0 0x1p+1 16\nsilu a+0 a+0 15\n");
  assert_string_not_equal(records[1], records[0]);
  assert_string_not_equal(records[2], records[0]);
  for (int i = 0; i < 3; i++) free(records[i]);
  guard_close(&guard, &ex);
}

/* Executions of one device, with one set of weights, in threads of their own. */

enum { CALLS = 4, IMAGES = 2 };

static void *predict_all(void *user) {
  struct loaded *l = user;
  const size_t each = IMAGES * model_output_size(&l->o);
  float *out = floats(CALLS * each);
  for (int i = 0; i < CALLS; i++) model_predict(&l->o, out + (size_t)i * each, i, IMAGES, 4, NULL);
  return out;
}

static void check_threads(const struct subject *subject, const char *backend, const char *dtype) {
  enum { THREADS = 2 };
  struct loaded l[THREADS] = {0};
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  pthread_t threads[THREADS];
  assert_non_null(ctx);
  assert_ok(test_ctx(), backend_open(&l[0].o.ex, test_ctx(), backend, NULL, 2));
  assert_ok(test_ctx(), backend_compute(&l[0].o.ex, dtype));
  open_model(&l[0], subject);
  l[1].o.model = l[0].o.model;
  assert_ok(ctx, exec_open(&l[1].o.ex, ctx, l[0].o.ex.device));
  float *alone = predict_all(&l[0]);
  for (int i = 0; i < THREADS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, predict_all, &l[i]), 0);
  for (int i = 0; i < THREADS; i++) {
    void *out;
    assert_int_equal(pthread_join(threads[i], &out), 0);
    assert_memory_equal(out, alone, CALLS * IMAGES * model_output_size(&l[0].o) * sizeof *alone);
    free(out);
  }
  free(alone);
  exec_close(&l[1].o.ex);
  close_model(&l[0]);
  exec_close(&l[0].o.ex);
  ditmoe_ctx_destroy(ctx);
}

static void test_threads(void **state) {
  (void)state;
  for (size_t i = 0; i < 3; i++) {
    check_threads(&models[i], "ref", "f32");
    check_threads(&models[i], "cpu", "f32");
    check_threads(&models[i], "cpu", "bf16");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_models),       cmocka_unit_test(test_launches),
      cmocka_unit_test(test_every_router), cmocka_unit_test(test_autoencoders),
      cmocka_unit_test(test_features),     cmocka_unit_test(test_closed),
      cmocka_unit_test(test_wrong_side),   cmocka_unit_test(test_record),
      cmocka_unit_test(test_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
