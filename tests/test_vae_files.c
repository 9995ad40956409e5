/* Files of autoencoders: variants of the architecture, halves, formats, and what must be refused
 * with a line that says why. */
#include "tests/support.h"
#include "vae/vae.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char small[] = "diffusers_dit/pipeline/vae"; /* two levels of 32 channels */

static const char plain_config[] = "{\"_class_name\": \"AutoencoderKL\", "
                                   "\"block_out_channels\": [32, 32], \"layers_per_block\": 1}";

/* A change to the tensors of the small autoencoder. */
struct edit {
  const char *drop[3];      /* names that begin with one of these, or contain what follows a * */
  const char *rename[4][2]; /* part of a name, what takes its place */
  const char *extra;        /* one more tensor                      */
  const char *transpose;    /* a weight whose shape is turned round */
};

static bool dropped(const struct edit *edit, const char *name) {
  for (int i = 0; i < 3 && edit->drop[i]; i++) {
    const char *pattern = edit->drop[i];
    if (*pattern == '*' ? strstr(name, pattern + 1) != NULL
                        : strncmp(name, pattern, strlen(pattern)) == 0)
      return true;
  }
  return false;
}

static char *renamed(const struct edit *edit, const char *name) {
  char *out = malloc(256);
  assert_non_null(out);
  snprintf(out, 256, "%s", name);
  for (int i = 0; i < 4 && edit->rename[i][0]; i++) {
    const char *at = strstr(name, edit->rename[i][0]);
    if (at)
      snprintf(out, 256, "%.*s%s%s", (int)(at - name), name, edit->rename[i][1],
               at + strlen(edit->rename[i][0]));
  }
  return out;
}

/* A folder with the edited tensors and this configuration; NULL: without. */
static const char *make_folder(const struct edit *edit, const char *config) {
  static int number;
  static char folder[512];
  char path[1024], name[32];
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_checkpoint *file = checkpoint_of(fixture_path(small));
  struct tensor *tensors = calloc(file->count + 1, sizeof *tensors);
  size_t count = 0;
  snprintf(name, sizeof name, "vae%d", number++);
  snprintf(folder, sizeof folder, "%s", temporary_path(name));
  assert_int_equal(mkdir(folder, 0700), 0);
  assert_non_null(tensors);
  for (size_t i = 0; i < file->count; i++) {
    struct tensor t = file->tensors[i];
    if (dropped(edit, t.name)) continue;
    if (edit->transpose && strcmp(t.name, edit->transpose) == 0)
      t.shape[0] = t.shape[1], t.shape[1] = file->tensors[i].shape[0];
    t.name = renamed(edit, t.name);
    tensors[count++] = t;
    if (edit->extra && count == 1)
      tensors[count] = t, tensors[count++].name = renamed(&(struct edit){0}, edit->extra);
  }
  snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
  assert_ok(ctx, safetensors_write(ctx, path, tensors, count, DT_COUNT, NULL, 0));
  snprintf(path, sizeof path, "%s/config.json", folder);
  if (config) assert_ok(ctx, ditmoe_file_write(ctx, path, config, strlen(config)));
  for (size_t i = 0; i < count; i++) free((void *)(uintptr_t)tensors[i].name);
  free(tensors);
  ditmoe_checkpoint_close(file);
  return folder;
}

static void start(struct exec *ex) {
  assert_ok(test_ctx(), backend_open(ex, test_ctx(), "ref", NULL, 1));
}

static void refuse(enum ditmoe_status code, const char *text, const char *path) {
  struct exec ex;
  struct vae *vae = NULL;
  start(&ex);
  assert_fails(test_ctx(), code, text, vae_open(&ex, path, &vae));
  assert_null(vae);
  exec_close(&ex);
}

/* The image [3, 8 * factor, ...] of fixed latents. */
static float *decode_fixed(const char *path, int tile, size_t *n) {
  struct exec ex;
  struct vae *vae;
  struct vae_info info;
  enum { SIZE = 8 };
  float latents[4 * SIZE * SIZE];
  start(&ex);
  assert_ok(test_ctx(), vae_open(&ex, path, &vae));
  vae_describe(vae, &info);
  assert_int_equal(info.latent_channels, 4);
  for (int i = 0; i < 4 * SIZE * SIZE; i++) latents[i] = (float)sin(0.3 * i * info.scale);
  *n = (size_t)3 * SIZE * SIZE * info.factor * info.factor;
  float *image = calloc(*n, sizeof *image);
  assert_non_null(image);
  assert_ok(test_ctx(), exec_reserve(&ex, vae_decode_bytes(&ex, vae, SIZE, SIZE, tile)));
  assert_ok(test_ctx(), vae_decode(&ex, vae, image, latents, SIZE, SIZE, tile));
  vae_close(&ex, vae);
  exec_close(&ex);
  return image;
}

/* Other architectures than those of the recorded values: they open, and tiles change nothing. */
static void test_variants(void **state) {
  (void)state;
  static const struct {
    struct edit edit;
    const char *config;
  } variants[] = {
      {.config = plain_config},
      {{.drop = {"*quant_conv"}},
       "{\"block_out_channels\": [32, 32], \"use_quant_conv\": false, \"use_post_quant_conv\": "
       "false}"},
      {{.drop = {"*attentions"}},
       "{\"block_out_channels\": [32, 32], \"mid_block_add_attention\": false}"},
      {{.drop = {"*samplers", "*blocks.1."}}, "{\"block_out_channels\": [32]}"},
      {.config = "{\"block_out_channels\": [32, 32], \"norm_num_groups\": 8}"},
  };
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
    const char *folder = make_folder(&variants[i].edit, variants[i].config);
    size_t n;
    float *whole = decode_fixed(folder, 0, &n), *tiled = decode_fixed(folder, 3, &n);
    assert_within(variants[i].config, relative_max(tiled, whole, (int64_t)n), 1e-5);
    free(tiled);
    free(whole);
  }
}

/* z / scale + shift: latents of another scale and shift, undone by hand, give the same image. */
static void test_scale_and_shift(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  float latents[4 * 16], moved[4 * 16], images[2][3 * 64];
  const char *configs[2] = {
      "{\"block_out_channels\": [32, 32], \"scaling_factor\": 1}",
      "{\"block_out_channels\": [32, 32], \"scaling_factor\": 2, \"shift_factor\": 0.25}"};
  for (int i = 0; i < 4 * 16; i++)
    latents[i] = (float)(i % 7) / 4, moved[i] = (latents[i] - 0.25F) * 2;
  for (int i = 0; i < 2; i++) {
    struct exec ex;
    struct vae *vae;
    start(&ex);
    assert_ok(ctx, vae_open(&ex, make_folder(&(struct edit){0}, configs[i]), &vae));
    assert_ok(ctx, exec_reserve(&ex, vae_decode_bytes(&ex, vae, 4, 4, 0)));
    assert_ok(ctx, vae_decode(&ex, vae, images[i], i ? moved : latents, 4, 4, 0));
    vae_close(&ex, vae);
    exec_close(&ex);
  }
  assert_memory_equal(images[0], images[1], sizeof images[0]);
}

static void test_old_attention_names(void **state) {
  (void)state;
  size_t n;
  const struct edit old = {
      .rename = {{"to_q", "query"}, {"to_k", "key"}, {"to_v", "value"}, {"to_out.0", "proj_attn"}}};
  const struct edit mixed = {.rename = {{"to_q", "query"}}};
  float *expected = decode_fixed(fixture_path(small), 0, &n);
  float *image = decode_fixed(make_folder(&old, plain_config), 0, &n);
  assert_memory_equal(image, expected, n * sizeof *image);
  refuse(DITMOE_MISMATCH, "attentions.0.key.weight [32, 32] is missing",
         make_folder(&mixed, plain_config));
  free(image);
  free(expected);
}

/* One half alone opens; the other is refused when it is asked for. */
static void test_halves(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const struct edit halves[] = {{.drop = {"encoder.", "quant_conv."}},
                                {.drop = {"decoder.", "post_quant_conv."}}};
  float in[3 * 64] = {0}, out[3 * 64], variance[3 * 64];
  for (int encodes = 0; encodes < 2; encodes++) {
    struct exec ex;
    struct vae *vae;
    struct vae_info info;
    start(&ex);
    assert_ok(ctx, vae_open(&ex, make_folder(&halves[encodes], plain_config), &vae));
    vae_describe(vae, &info);
    assert_true(info.can_encode == encodes && info.can_decode == !encodes);
    if (encodes)
      assert_fails(ctx, DITMOE_MISMATCH, "without a decoder",
                   vae_decode(&ex, vae, out, in, 4, 4, 0));
    else
      assert_fails(ctx, DITMOE_MISMATCH, "without an encoder",
                   vae_encode(&ex, vae, out, variance, in, 8, 8));
    vae_close(&ex, vae);
    exec_close(&ex);
  }
}

/* A weights file finds its config.json beside it; other formats and types hold the same weights. */
static void test_forms(void **state) {
  (void)state;
  char path[1024];
  size_t n;
  float *expected = decode_fixed(fixture_path(small), 0, &n);
  snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", fixture_path(small));
  float *image = decode_fixed(path, 0, &n);
  assert_memory_equal(image, expected, n * sizeof *image);
  free(image);
  image = decode_fixed(fixture_path("diffusers_dit/pipeline"), 0, &n);
  assert_memory_equal(image, expected, n * sizeof *image);
  free(image);
  free(expected);
}

static void test_pytorch_weights(void **state) {
  (void)state;
  size_t n;
  const char *file = fixture_path("vae/kl_oldkeys/diffusion_pytorch_model.bin");
  if (access(file, R_OK) != 0) skip();
  float *expected = decode_fixed(fixture_path("vae/kl_oldkeys"), 0, &n);
  float *image = decode_fixed(file, 0, &n);
  assert_memory_equal(image, expected, n * sizeof *image);
  free(image);
  free(expected);
}

static void test_differences(void **state) {
  (void)state;
  const char *conv_in = "decoder.conv_in.weight";
  refuse(DITMOE_MISMATCH, "decoder.conv_in.weight: expected [32, 4, 3, 3], found [4, 32, 3, 3]",
         make_folder(&(struct edit){.transpose = conv_in}, plain_config));
  refuse(DITMOE_MISMATCH, "1 differ: decoder.conv_in.weight [32, 4, 3, 3] is missing",
         make_folder(&(struct edit){.drop = {conv_in}}, plain_config));
  refuse(DITMOE_MISMATCH, "1 differ: decoder.surplus is unexpected",
         make_folder(&(struct edit){.extra = "decoder.surplus"}, plain_config));
  refuse(DITMOE_MISMATCH, "encoder.conv_in.weight: expected [64, 3, 3, 3], found [32, 3, 3, 3]",
         make_folder(&(struct edit){0}, "{\"block_out_channels\": [64, 64]}"));
  refuse(DITMOE_MISMATCH, "decoder.mid_block.attentions.0.group_norm.bias is unexpected",
         make_folder(&(struct edit){0}, "{\"block_out_channels\": [32, 32], "
                                        "\"mid_block_add_attention\": false}"));
}

static void test_no_autoencoder(void **state) {
  (void)state;
  const struct edit compvis = {.rename = {{"mid_block", "mid"}}};
  const struct edit strange = {.rename = {{"encoder", "x"}, {"decoder", "y"}}};
  char empty[512];
  snprintf(empty, sizeof empty, "%s", temporary_path("empty"));
  assert_int_equal(mkdir(empty, 0700), 0);
  refuse(DITMOE_MISMATCH, "no decoder in this folder", empty);
  refuse(DITMOE_FORMAT, "nowhere", temporary_path("nowhere"));
  refuse(DITMOE_MISMATCH, "not a decoder", fixture_path("dit_moe/b_mixed/bare.safetensors"));
  refuse(DITMOE_MISMATCH, "not a decoder", make_folder(&strange, plain_config));
  refuse(DITMOE_MISMATCH, "CompVis", make_folder(&compvis, plain_config));
  refuse(DITMOE_MISMATCH, "not a decoder", fixture_path("diffusers_dit/pipeline/transformer"));
  snprintf(empty, sizeof empty, "%s/diffusion_pytorch_model.safetensors",
           make_folder(&(struct edit){0}, NULL));
  refuse(DITMOE_FORMAT, "config.json", empty);
}

static void test_bad_config(void **state) {
  (void)state;
  static const struct {
    enum ditmoe_status code;
    const char *text, *config;
  } cases[] = {
      {DITMOE_FORMAT, "expected a JSON object", "[]"},
      {DITMOE_FORMAT, "config.json", "{"},
      {DITMOE_FORMAT, "layers_per_block must be an integer from 1 to 8",
       "{\"layers_per_block\": 0}"},
      {DITMOE_FORMAT, "layers_per_block", "{\"layers_per_block\": 1e99}"},
      {DITMOE_FORMAT, "latent_channels", "{\"latent_channels\": 4.5}"},
      {DITMOE_FORMAT, "in_channels", "{\"in_channels\": 1}"},
      {DITMOE_FORMAT, "block_out_channels must list 1 to 8 widths", "{\"block_out_channels\": []}"},
      {DITMOE_FORMAT, "block_out_channels must list", "{\"block_out_channels\": 32}"},
      {DITMOE_FORMAT, "block_out_channels[1] must be a multiple",
       "{\"block_out_channels\": [32, 33]}"},
      {DITMOE_FORMAT, "block_out_channels[0]", "{\"block_out_channels\": [1e30]}"},
      {DITMOE_FORMAT, "must be a multiple of norm_num_groups (24)", "{\"norm_num_groups\": 24}"},
      {DITMOE_FORMAT, "scaling_factor", "{\"scaling_factor\": 0}"},
      {DITMOE_FORMAT, "scaling_factor", "{\"scaling_factor\": \"1\"}"},
      {DITMOE_FORMAT, "shift_factor", "{\"shift_factor\": true}"},
      {DITMOE_FORMAT, "latents_mean without latents_std", "{\"latents_mean\": [0, 0, 0, 0]}"},
      {DITMOE_FORMAT, "latents_std without latents_mean", "{\"latents_std\": [1, 1, 1, 1]}"},
      {DITMOE_FORMAT, "latents_std must be null or a list of 4 numbers",
       "{\"latents_mean\": [0, 0, 0, 0], \"latents_std\": [1, 1, 1]}"},
      {DITMOE_FORMAT, "latents_mean must be null or a list",
       "{\"latents_mean\": 0, \"latents_std\": [1, 1, 1, 1]}"},
      {DITMOE_FORMAT, "exclude each other",
       "{\"latents_mean\": [0, 0, 0, 0], \"latents_std\": [1, 1, 1, 1], \"shift_factor\": 1}"},
      {DITMOE_FORMAT, "act_fn must be \"silu\", found \"gelu\"", "{\"act_fn\": \"gelu\"}"},
      {DITMOE_FORMAT, "up_block_types", "{\"up_block_types\": [\"CrossAttnUpBlock2D\"]}"},
      {DITMOE_FORMAT, "use_quant_conv must be true or false", "{\"use_quant_conv\": 1}"},
      {DITMOE_MISMATCH, "found AutoencoderTiny", "{\"_class_name\": \"AutoencoderTiny\"}"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    refuse(cases[i].code, cases[i].text, make_folder(&(struct edit){0}, cases[i].config));
}

static void test_bad_sizes(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct exec ex;
  struct vae *vae;
  float in[3 * 64] = {0}, out[3 * 64], variance[3 * 64];
  start(&ex);
  assert_ok(ctx, vae_open(&ex, fixture_path(small), &vae));
  assert_fails(ctx, DITMOE_USAGE, "side of 0", vae_decode(&ex, vae, out, in, 8, 0, 0));
  assert_fails(ctx, DITMOE_USAGE, "side of 1000000", vae_decode(&ex, vae, out, in, 1000000, 8, 0));
  assert_fails(ctx, DITMOE_USAGE, "factor 2", vae_encode(&ex, vae, out, variance, in, 8, 7));
  vae_close(&ex, vae);
  exec_close(&ex);
}

/* Every allocation may fail: a status, and nothing is left. */
static void test_failing_allocations(void **state) {
  (void)state;
  for (int64_t at = 0, fired = 1; fired; at += 1 + at / 8) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    struct exec ex;
    struct vae *vae = NULL;
    enum ditmoe_status status = backend_open(&ex, ctx, "ref", NULL, 1);
    if (status == DITMOE_OK) {
      status = vae_open(&ex, fixture_path(small), &vae);
      assert_true((status == DITMOE_OK) == (vae != NULL));
      if (vae) vae_close(&ex, vae);
      exec_close(&ex);
    }
    fired = faulty_fired();
    assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_variants),
      cmocka_unit_test(test_scale_and_shift),
      cmocka_unit_test(test_old_attention_names),
      cmocka_unit_test(test_halves),
      cmocka_unit_test(test_forms),
      cmocka_unit_test(test_pytorch_weights),
      cmocka_unit_test(test_differences),
      cmocka_unit_test(test_no_autoencoder),
      cmocka_unit_test(test_bad_config),
      cmocka_unit_test(test_bad_sizes),
      cmocka_unit_test(test_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
