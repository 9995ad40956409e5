/* Autoencoders under other names: files of CompVis programs, alone or inside a whole model, with
 * attention in further levels, with latents of another width than the middle, in halves. */
#include "tests/support.h"
#include "vae/vae.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { HEIGHT = 4, WIDTH = 6, MAX_TENSORS = 512, NAME = 256 };

static const char ldm[] = "vae2/ldm_keys/bare.safetensors", vavae[] = "vae2/vavae/bare.safetensors";

struct file {
  struct ditmoe_checkpoint *source;
  struct tensor tensors[MAX_TENSORS];
  size_t count;
  char *names[MAX_TENSORS];
};

static void add(struct file *f, const char *name, struct tensor tensor) {
  assert_true(f->count < MAX_TENSORS);
  f->names[f->count] = malloc(NAME);
  assert_non_null(f->names[f->count]);
  snprintf(f->names[f->count], NAME, "%s", name);
  tensor.name = f->names[f->count];
  f->tensors[f->count++] = tensor;
}

/* All tensors of a fixture whose names do not begin with `without`. */
static struct file *file_of(const char *fixture, const char *without) {
  struct file *f = calloc(1, sizeof *f);
  assert_non_null(f);
  f->source = checkpoint_of(fixture_path(fixture));
  for (size_t i = 0; i < f->source->count; i++) {
    const struct tensor *t = &f->source->tensors[i];
    if (!without || strncmp(t->name, without, strlen(without)) != 0) add(f, t->name, *t);
  }
  return f;
}

static struct tensor *tensor_in(struct file *f, const char *name) {
  for (size_t i = 0; i < f->count; i++)
    if (strcmp(f->names[i], name) == 0) return &f->tensors[i];
  fail_msg("no tensor %s", name);
  return NULL;
}

/* Writes it into a folder of its own, with this config.json; NULL: without. */
static const char *write_file(struct file *f, const char *config) {
  static int number;
  static char path[1024];
  char folder[512], name[32];
  struct ditmoe_ctx *ctx = test_ctx();
  snprintf(name, sizeof name, "names%d", number++);
  snprintf(folder, sizeof folder, "%s", temporary_path(name));
  assert_int_equal(mkdir(folder, 0700), 0);
  snprintf(path, sizeof path, "%s/config.json", folder);
  if (config) assert_ok(ctx, ditmoe_file_write(ctx, path, config, strlen(config)));
  snprintf(path, sizeof path, "%s/vae.safetensors", folder);
  assert_ok(ctx, safetensors_write(ctx, path, f->tensors, f->count, DT_COUNT, NULL, 0));
  for (size_t i = 0; i < f->count; i++) free(f->names[i]);
  ditmoe_checkpoint_close(f->source);
  free(f);
  return path;
}

static void replace(char *name, const char *what, const char *by) {
  char copy[NAME], *at = strstr(name, what);
  if (!at) return;
  snprintf(copy, sizeof copy, "%.*s%s%s", (int)(at - name), name, by, at + strlen(what));
  memcpy(name, copy, sizeof copy);
}

/* From the names of CompVis to those of diffusers, with the attention's matrices as matrices. */
static void to_diffusers(struct file *f, int levels) {
  static const char *const pairs[][2] = {
      {"down.", "down_blocks."},
      {".block.", ".resnets."},
      {".attn.", ".attentions."},
      {"downsample.conv", "downsamplers.0.conv"},
      {"upsample.conv", "upsamplers.0.conv"},
      {"mid.block_1", "mid_block.resnets.0"},
      {"mid.block_2", "mid_block.resnets.1"},
      {"mid.attn_1", "mid_block.attentions.0"},
      {"nin_shortcut", "conv_shortcut"},
      {".norm_out.", ".conv_norm_out."},
      {".norm.", ".group_norm."},
      {".q.", ".to_q."},
      {".k.", ".to_k."},
      {".v.", ".to_v."},
      {".proj_out.", ".to_out.0."},
  };
  for (size_t i = 0; i < f->count; i++) {
    char *name = f->names[i], from[24], to[32];
    for (int up = 0; up < levels; up++) {
      snprintf(from, sizeof from, ".up.%d.", up);
      snprintf(to, sizeof to, ".up_blocks.%d.", levels - 1 - up);
      replace(name, from, to);
    }
    for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++)
      replace(name, pairs[p][0], pairs[p][1]);
    if (strstr(name, "attentions") && strstr(name, ".to_") && strstr(name, "weight"))
      f->tensors[i].rank = 2;
  }
}

static void start(struct exec *ex) {
  assert_ok(test_ctx(), backend_open(ex, test_ctx(), "ref", NULL, 1));
}

/* What a file makes of fixed latents, and of a fixed image; NULL where it cannot. */
struct made {
  struct vae_info info;
  size_t pixels, latents;
  float *image, *mean;
};

static struct made make(const char *path) {
  struct exec ex;
  struct vae *vae;
  struct made m = {0};
  struct ditmoe_ctx *ctx = test_ctx();
  start(&ex);
  assert_ok(ctx, vae_open(&ex, path, &vae));
  vae_describe(vae, &m.info);
  const int factor = m.info.factor, H = HEIGHT * factor, W = WIDTH * factor;
  m.latents = (size_t)m.info.latent_channels * HEIGHT * WIDTH, m.pixels = (size_t)3 * H * W;
  float *z = calloc(2 * m.latents, sizeof *z), *x = calloc(m.pixels, sizeof *x);
  assert_true(z && x);
  for (size_t i = 0; i < m.latents; i++) z[i] = (float)sin(0.7 * (double)i);
  for (size_t i = 0; i < m.pixels; i++) x[i] = (float)cos(0.1 * (double)i);
  if (m.info.can_decode) {
    m.image = calloc(m.pixels, sizeof *m.image);
    assert_non_null(m.image);
    assert_ok(ctx, exec_reserve(&ex, vae_decode_bytes(&ex, vae, HEIGHT, WIDTH, 0)));
    assert_ok(ctx, vae_decode(&ex, vae, m.image, z, HEIGHT, WIDTH, 0));
  }
  if (m.info.can_encode) {
    m.mean = calloc(m.latents, sizeof *m.mean);
    assert_non_null(m.mean);
    assert_ok(ctx, exec_reserve(&ex, vae_encode_bytes(&ex, vae, H, W)));
    assert_ok(ctx, vae_encode(&ex, vae, m.mean, z + m.latents, x, H, W));
  }
  vae_close(&ex, vae);
  exec_close(&ex);
  free(z);
  free(x);
  return m;
}

static void made_free(struct made *m) {
  free(m->image);
  free(m->mean);
}

static void assert_same(struct made a, struct made b) {
  assert_int_equal(a.pixels, b.pixels);
  if (a.image && b.image) assert_memory_equal(a.image, b.image, a.pixels * sizeof *a.image);
  if (a.mean && b.mean) assert_memory_equal(a.mean, b.mean, a.latents * sizeof *a.mean);
  made_free(&a);
  made_free(&b);
}

static void refuse(enum ditmoe_status code, const char *text, const char *path) {
  struct exec ex;
  struct vae *vae = NULL;
  start(&ex);
  assert_fails(test_ctx(), code, text, vae_open(&ex, path, &vae));
  exec_close(&ex);
}

/* In a file of a whole model the autoencoder has a prefix, and most tensors are of other parts. */
static void test_whole_model(void **state) {
  (void)state;
  struct file *f = file_of(ldm, NULL);
  for (size_t i = 0; i < f->count; i++) {
    char copy[NAME];
    snprintf(copy, sizeof copy, "first_stage_model.%.200s", f->names[i]);
    memcpy(f->names[i], copy, sizeof copy);
  }
  add(f, "first_stage_model.loss.logvar", f->tensors[0]);
  add(f, "model.diffusion_model.out.2.weight", f->tensors[0]);
  add(f, "cond_stage_model.transformer.final_layer_norm.bias", f->tensors[1]);
  add(f, "encoder.layer.0.weight", f->tensors[1]); /* of another part: it lacks the prefix */
  struct made m = make(write_file(f, NULL));
  assert_true(m.info.scale == 0.18215 && m.info.factor == 8);
  assert_same(m, make(fixture_path(ldm)));
}

static void test_attention_levels(void **state) {
  (void)state;
  static const char config[] =
      "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [32, 32, 32, 32, 64], "
      "\"latent_channels\": 8, \"scaling_factor\": 1, \"down_block_types\": "
      "[\"DownEncoderBlock2D\", \"DownEncoderBlock2D\", \"DownEncoderBlock2D\", "
      "\"DownEncoderBlock2D\", \"AttnDownEncoderBlock2D\"], \"up_block_types\": "
      "[\"AttnUpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\", "
      "\"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]}";
  struct file *f = file_of(vavae, NULL);
  to_diffusers(f, 5);
  assert_same(make(write_file(f, config)), make(fixture_path(vavae)));
  f = file_of(vavae, "encoder.down.4.attn.0.k.");
  refuse(DITMOE_MISMATCH, "encoder.down.4.attn.0.k.weight [64, 64, 1, 1] is missing",
         write_file(f, NULL));
}

/* Scale and statistics may stand in a file beside; one about something else is passed over. */
static void test_config_beside(void **state) {
  (void)state;
  struct made m = make(write_file(file_of(ldm, NULL),
                                  "{\"_class_name\": \"AutoencoderKL\", \"scaling_factor\": 0.5, "
                                  "\"block_out_channels\": [7], \"shift_factor\": 0.25}"));
  assert_true(m.info.scale == 0.5 && m.info.shift == 0.25 && !m.info.statistics);
  made_free(&m);
  m = make(write_file(file_of(ldm, NULL), "{\"model_type\": \"clip\", \"scaling_factor\": 9}"));
  assert_true(m.info.scale == 0.18215 && m.info.shift == 0);
  made_free(&m);
  m = make(write_file(file_of(vavae, NULL),
                      "{\"_class_name\": \"AutoencoderKL\", \"latents_mean\": "
                      "[0, 0, 0, 0, 0, 0, 0, 1], \"latents_std\": [1, 1, 1, 1, 2, 1, 1, 1]}"));
  assert_true(m.info.statistics && m.info.latent_channels == 8);
  made_free(&m);
  refuse(DITMOE_FORMAT, "latents_std must be null or a list of 8 numbers from 1e-06",
         write_file(file_of(vavae, NULL),
                    "{\"_class_name\": \"AutoencoderKL\", \"latents_mean\": "
                    "[0, 0, 0, 0, 0, 0, 0, 1], \"latents_std\": [1, 1, 1, 1, 0, 1, 1, 1]}"));
}

static void test_halves(void **state) {
  (void)state;
  struct made whole = make(fixture_path(vavae));
  struct made decoder = make(write_file(file_of(vavae, "encoder."), NULL));
  assert_true(decoder.info.can_decode && !decoder.info.can_encode);
  assert_same(decoder, whole);
  whole = make(fixture_path(ldm));
  struct made encoder = make(write_file(file_of(ldm, "decoder."), NULL));
  assert_true(encoder.info.can_encode && !encoder.info.can_decode);
  assert_int_equal(encoder.info.latent_channels, 4);
  assert_same(encoder, whole);
}

/* Latents of 3 channels for a middle of 4: post_quant_conv makes the latter of the former. */
static void test_embedding(void **state) {
  (void)state;
  enum { Z = 4, E = 3, PLANE = HEIGHT * WIDTH };
  float weight[Z * E], moments[2 * E * 2 * Z] = {0}, zeros[2 * E] = {0}, z[Z * PLANE];
  for (int i = 0; i < Z * E; i++) weight[i] = (float)(i % 5) / 4 - 0.5F;
  struct file *f = file_of(ldm, NULL);
  struct tensor *post = tensor_in(f, "post_quant_conv.weight"),
                *quant = tensor_in(f, "quant_conv.weight"), *bias = tensor_in(f, "quant_conv.bias");
  post->shape[1] = E, post->elements = Z * E, post->data = weight;
  quant->shape[0] = 2 * E, quant->elements = 2 * E * 2 * Z, quant->data = moments;
  bias->shape[0] = 2 * E, bias->elements = 2 * E, bias->data = zeros;
  float *offset = tensor_f32(f->source, "post_quant_conv.bias", NULL);
  struct made m = make(write_file(f, NULL));
  assert_int_equal(m.info.latent_channels, E);
  assert_true(m.info.scale == 1);
  for (int c = 0; c < Z; c++)
    for (int p = 0; p < PLANE; p++) {
      double sum = offset[c];
      for (int e = 0; e < E; e++) sum += (double)weight[c * E + e] * sin(0.7 * (e * PLANE + p));
      z[c * PLANE + p] = (float)(sum * 0.18215);
    }
  struct exec ex;
  struct vae *vae;
  start(&ex);
  float *image = calloc(m.pixels, sizeof *image);
  assert_non_null(image);
  f = file_of(ldm, "post_quant_conv.");
  assert_ok(test_ctx(), vae_open(&ex, write_file(f, NULL), &vae));
  assert_ok(test_ctx(), exec_reserve(&ex, vae_decode_bytes(&ex, vae, HEIGHT, WIDTH, 0)));
  assert_ok(test_ctx(), vae_decode(&ex, vae, image, z, HEIGHT, WIDTH, 0));
  assert_within("image", relative_l2(image, m.image, (int64_t)m.pixels), 1e-5);
  vae_close(&ex, vae);
  exec_close(&ex);
  free(image);
  free(offset);
  made_free(&m);
}

/* Attention sees the whole image, so that such levels cannot be cut into tiles. */
static void test_attention_at_the_end(void **state) {
  (void)state;
  struct exec ex;
  struct vae *vae;
  static float latents[8 * HEIGHT * WIDTH], image[3 * 256 * HEIGHT * WIDTH];
  struct file *f = file_of(vavae, "encoder.");
  start(&ex);
  /* Level 1 has 32 channels: an attention of norms and matrices of one kind. */
  float norm[32] = {0}, matrix[32 * 32] = {0};
  for (int b = 0; b < 2; b++) {
    static const char *const parts[] = {"norm", "q", "k", "v", "proj_out"};
    for (int p = 0; p < 5; p++) {
      char name[NAME];
      const struct tensor vector = {
          .dtype = DT_F32, .rank = 1, .shape = {32}, .elements = 32, .data = norm};
      const struct tensor kernel = {
          .dtype = DT_F32, .rank = 4, .shape = {32, 32, 1, 1}, .elements = 32 * 32, .data = matrix};
      snprintf(name, sizeof name, "decoder.up.1.attn.%d.%s.weight", b, parts[p]);
      add(f, name, p ? kernel : vector);
      snprintf(name, sizeof name, "decoder.up.1.attn.%d.%s.bias", b, parts[p]);
      add(f, name, vector);
    }
  }
  assert_ok(test_ctx(), vae_open(&ex, write_file(f, NULL), &vae));
  assert_ok(test_ctx(), exec_reserve(&ex, vae_decode_bytes(&ex, vae, HEIGHT, WIDTH, 0)));
  for (size_t i = 0; i < sizeof latents / sizeof *latents; i++)
    latents[i] = (float)sin(0.7 * (double)i);
  assert_ok(test_ctx(), vae_decode(&ex, vae, image, latents, HEIGHT, WIDTH, 0));
  struct made plain = make(fixture_path(vavae)); /* attention that adds nothing */
  assert_memory_equal(image, plain.image, plain.pixels * sizeof *image);
  assert_fails(test_ctx(), DITMOE_MISMATCH, "cannot decode in tiles",
               vae_decode(&ex, vae, image, latents, HEIGHT, WIDTH, 2));
  made_free(&plain);
  vae_close(&ex, vae);
  exec_close(&ex);
}

static void test_refused(void **state) {
  (void)state;
  struct file *f = file_of(ldm, NULL);
  add(f, "quantize.embedding.weight", f->tensors[0]);
  refuse(DITMOE_MISMATCH, "codebook (quantize.*)", write_file(f, NULL));
  refuse(DITMOE_MISMATCH, "with 0 levels", write_file(file_of(ldm, "decoder.up.0."), NULL));
  refuse(DITMOE_MISMATCH, "decoder.conv_in.weight is missing",
         write_file(file_of(ldm, "decoder.conv_in."), NULL));
  refuse(DITMOE_MISMATCH, "decoder.mid.attn_1.v.bias [64] is missing",
         write_file(file_of(ldm, "decoder.mid.attn_1.v.bias"), NULL));
  f = file_of(ldm, NULL);
  tensor_in(f, "decoder.conv_in.weight")->rank = 3;
  tensor_in(f, "decoder.conv_in.weight")->shape[2] = 9;
  refuse(DITMOE_MISMATCH, "no kernel of a possible size", write_file(f, NULL));
  refuse(DITMOE_MISMATCH, "no multiple of 24 groups",
         write_file(file_of(ldm, NULL),
                    "{\"_class_name\": \"AutoencoderKL\", \"norm_num_groups\": 24}"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_whole_model),   cmocka_unit_test(test_attention_levels),
      cmocka_unit_test(test_config_beside), cmocka_unit_test(test_halves),
      cmocka_unit_test(test_embedding),     cmocka_unit_test(test_attention_at_the_end),
      cmocka_unit_test(test_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
