/* Autoencoders: recorded values, tiles, memory, bits for any number of threads, variants of the
 * architecture, and files that are none. */
#include "tests/limit.h"
#include "tests/support.h"
#include "tests/vae_cases.h"
#include "vae/vae.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char small[] = "diffusers_dit/pipeline/vae"; /* factor 2 */

struct opened {
  struct exec ex;
  struct vae *vae;
  struct vae_info info;
};

static void open_vae_in(struct opened *o, const char *backend, const char *tier, const char *dtype,
                        int threads, const char *path) {
  struct ditmoe_ctx *ctx = test_ctx();
  assert_ok(ctx, backend_open(&o->ex, ctx, backend, tier, threads));
  assert_ok(ctx, backend_compute(&o->ex, dtype));
  assert_ok(ctx, vae_open(&o->ex, path, &o->vae));
  vae_describe(o->vae, &o->info);
}

static void open_vae(struct opened *o, const char *backend, int threads, const char *path) {
  open_vae_in(o, backend, NULL, "f32", threads, path);
}

static void close_vae(struct opened *o) {
  vae_close(&o->ex, o->vae);
  exec_close(&o->ex);
}

static float *floats(size_t n) {
  float *values = calloc(n, sizeof *values);
  assert_non_null(values);
  return values;
}

static float *decode_rectangle(struct opened *o, const float *latents, int height, int width,
                               int tile) {
  const size_t factor = (size_t)o->info.factor;
  float *image = floats(3 * factor * factor * (size_t)height * (size_t)width);
  assert_ok(o->ex.ctx, exec_reserve(&o->ex, vae_decode_bytes(&o->ex, o->vae, height, width, tile)));
  assert_ok(o->ex.ctx, vae_decode(&o->ex, o->vae, image, latents, height, width, tile));
  return image;
}

static float *decode(struct opened *o, const float *latents, int size, int tile) {
  return decode_rectangle(o, latents, size, size, tile);
}

/* Waves that are smooth and have much the same gradient everywhere. */
static float *smooth_image(int side) {
  float *image = floats((size_t)3 * side * side);
  for (int c = 0; c < 3; c++)
    for (int y = 0; y < side; y++)
      for (int x = 0; x < side; x++)
        image[((size_t)c * side + y) * side + x] = (float)(0.8 * sin(0.8 * x + 0.7 * y + 0.2 * c));
  return image;
}

/* Latents [C, size, size], as a denoiser would have them, of the smooth picture. */
static float *smooth_latents(struct opened *o, int size) {
  const int side = size * o->info.factor;
  const size_t n = (size_t)o->info.latent_channels * size * size;
  float *image = smooth_image(side), *mean = floats(n), *log_variance = floats(n);
  assert_ok(o->ex.ctx, exec_reserve(&o->ex, vae_encode_bytes(&o->ex, o->vae, side, side)));
  assert_ok(o->ex.ctx, vae_encode(&o->ex, o->vae, mean, log_variance, image, side, side));
  for (size_t i = 0; i < n; i++) mean[i] = (float)((mean[i] - o->info.shift) * o->info.scale);
  free(log_variance);
  free(image);
  return mean;
}

static void count_failure(void *user, const char *tensor, double error, double limit) {
  int *failures = user;
  if (error <= limit) return;
  print_error("%s: error %g, limit %g\n", tensor, error, limit);
  ++*failures;
}

static void check_recorded(const char *backend) {
  static const char *const folders[] = {"vae/kl_small", "vae/kl_oldkeys", "vae/taesd",
                                        "vae2/ldm_keys", "vae2/vavae"};
  struct ditmoe_ctx *ctx = test_ctx();
  struct exec ex;
  int failures = 0, found = 0;
  assert_ok(ctx, backend_open(&ex, ctx, backend, NULL, 1));
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    cJSON *manifest = NULL;
    char path[128];
    snprintf(path, sizeof path, "%s/manifest.json", folders[i]);
    if (access(fixture_path(path), R_OK) != 0) continue;
    assert_ok(ctx, json_read(ctx, fixture_path(path), &manifest));
    assert_ok(ctx, vae_case(&ex, fixture_path(folders[i]), manifest, count_failure, &failures));
    cJSON_Delete(manifest);
    found++;
  }
  exec_close(&ex);
  assert_int_equal(failures, 0);
  assert_in_range(found, 4, 5);
}

static void test_recorded_ref(void **state) {
  (void)state;
  check_recorded("ref");
}

static void test_recorded_cpu(void **state) {
  (void)state;
  check_recorded("cpu");
}

/* The decoder inside a pipeline folder, on what the pipeline's sampler gave. */
static void test_pipeline_image(void **state) {
  (void)state;
  struct opened o;
  int64_t count, pixels;
  struct ditmoe_checkpoint *file =
      checkpoint_of(fixture_path("diffusers_dit/pipeline/io.safetensors"));
  float *latents = tensor_f32(file, "final", &count),
        *expected = tensor_f32(file, "image", &pixels);
  open_vae(&o, "cpu", 1, fixture_path("diffusers_dit/pipeline"));
  for (int i = 0; i < 2; i++) {
    float *image = decode(&o, latents + i * count / 2, 8, 0);
    assert_within("image", relative_l2(image, expected + i * pixels / 2, pixels / 2),
                  LIMIT_DECODED);
    free(image);
  }
  close_vae(&o);
  free(expected);
  free(latents);
  ditmoe_checkpoint_close(file);
}

static void test_describe(void **state) {
  (void)state;
  struct opened o;
  open_vae(&o, "ref", 1, fixture_path("vae/kl_oldkeys"));
  assert_string_equal(o.info.kind, "autoencoder-kl");
  assert_int_equal(o.info.factor, 8);
  assert_int_equal(o.info.latent_channels, 4);
  assert_true(o.info.scale == 0.18215 && o.info.shift == 0 && !o.info.unit_range);
  assert_true(o.info.can_encode && o.info.can_decode && o.info.weight_bytes > 3000000);
  close_vae(&o);
  open_vae(&o, "ref", 1, fixture_path("vae/taesd/taesd_encoder.safetensors"));
  assert_string_equal(o.info.kind, "taesd");
  assert_int_equal(o.info.factor, 8);
  assert_true(o.info.scale == 1 && o.info.shift == 0 && o.info.unit_range);
  assert_true(o.info.can_encode && !o.info.can_decode);
  close_vae(&o);
  open_vae(&o, "ref", 1, source_path("assets/default/vae"));
  assert_int_equal(o.info.factor, 4);
  assert_true(o.info.scale == 0.9281329935441456);
  close_vae(&o);
}

/* Sum over rows and channels of the steps between columns x - 1 and x, for each x > 0. */
static void column_steps(double *steps, const float *image, int side) {
  for (int x = 1; x < side; x++) {
    steps[x - 1] = 0;
    for (size_t row = 0; row < (size_t)3 * side; row++)
      steps[x - 1] += fabs((double)image[row * side + x] - image[row * side + x - 1]);
  }
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The largest step across the edge of a tile over the median of all steps. */
static double edge_step(const float *image, int side, int tile) {
  double *steps = calloc((size_t)side - 1, sizeof *steps), worst = 0;
  column_steps(steps, image, side);
  for (int x = tile; x < side; x += tile) worst = fmax(worst, steps[x - 1]);
  qsort(steps, (size_t)side - 1, sizeof *steps, ascending);
  double ratio = worst / steps[side / 2];
  free(steps);
  return ratio;
}

static void transpose(float *image, int side) {
  for (int c = 0; c < 3; c++)
    for (int y = 0; y < side; y++)
      for (int x = 0; x < y; x++) {
        float *plane = image + (size_t)c * side * side, kept = plane[y * side + x];
        plane[y * side + x] = plane[x * side + y];
        plane[x * side + y] = kept;
      }
}

/* Tiles give the image of a decoder that sees all at once, in less memory. `even`: the decoder
 * itself leaves the gradient of the picture even enough to measure a step by it. */
static void check_tiles(const char *dtype, double levels, const char *path, int size, int tile,
                        double memory, bool even) {
  struct opened o;
  open_vae_in(&o, "cpu", NULL, dtype, 2, path);
  const int side = size * o.info.factor, edge = tile * o.info.factor;
  float *latents = smooth_latents(&o, size);
  float *whole = decode(&o, latents, size, 0), *tiled = decode(&o, latents, size, tile);
  double worst = 0;
  for (size_t i = 0; i < (size_t)3 * side * side; i++)
    worst = fmax(worst, 127.5 * fabs((double)whole[i] - tiled[i]));
  print_message("%s, %d in tiles of %d: %.5f of 255, step %.2f\n", path, size, tile, worst,
                edge_step(tiled, side, edge));
  assert_within("levels of 255", worst, levels);
  for (int axis = 0; even && axis < 2; axis++) {
    assert_within("step across a tile edge", edge_step(tiled, side, edge), 2);
    transpose(tiled, side);
  }
  const double bytes = (double)vae_decode_bytes(&o.ex, o.vae, size, size, tile);
  assert_within("memory of tiles", bytes / (double)vae_decode_bytes(&o.ex, o.vae, size, size, 0),
                memory);
  free(tiled);
  free(whole);
  free(latents);
  close_vae(&o);
}

static void test_tiles(void **state) {
  (void)state;
  check_tiles("f32", 0.01, source_path("assets/default/vae"), 32, 10, 0.35, true);
  check_tiles("f32", 0.01, source_path("assets/default/vae"), 32, 4, 0.25, true);
  check_tiles("f32", 0.01, source_path("assets/default/vae"), 7, 3, 1, false);
  check_tiles("f32", 0.01, fixture_path("vae/kl_oldkeys"), 16, 5, 0.35, true);
  check_tiles("f32", 0.01, fixture_path("vae/taesd"), 16, 5, 0.5, false);
  check_tiles("f32", 0.01, fixture_path(small), 32, 9, 0.6, true);
  check_tiles("bf16", 2, source_path("assets/default/vae"), 32, 10, 0.35, true);
  check_tiles("bf16", 2, fixture_path("vae/kl_oldkeys"), 16, 5, 0.35, true);
  check_tiles("bf16", 2, fixture_path("vae/taesd"), 16, 5, 0.5, false);
}

static float *waves(size_t n) {
  float *values = floats(n);
  for (size_t i = 0; i < n; i++) values[i] = (float)sin(0.37 * (double)i);
  return values;
}

/* Of images that are no squares, too; a tile may be as wide as one side only. */
static void test_rectangular_tiles(void **state) {
  (void)state;
  static const char *const folders[] = {"vae/kl_oldkeys", "vae/taesd",
                                        "vae2/ldm_keys/bare.safetensors"};
  static const int shapes[][3] = {{9, 16, 5}, {16, 4, 6}, {3, 11, 3}, {1, 7, 2}};
  for (size_t f = 0; f < sizeof folders / sizeof *folders; f++) {
    struct opened o;
    open_vae(&o, "cpu", 2, fixture_path(folders[f]));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
      const int h = shapes[i][0], w = shapes[i][1], factor = o.info.factor;
      float *latents = waves((size_t)o.info.latent_channels * h * w);
      float *whole = decode_rectangle(&o, latents, h, w, 0);
      float *tiled = decode_rectangle(&o, latents, h, w, shapes[i][2]);
      assert_within(folders[f], relative_max(tiled, whole, (int64_t)3 * h * w * factor * factor),
                    1e-4);
      free(latents), free(whole), free(tiled);
    }
    close_vae(&o);
  }
}

/* A TAESD sees less than 20 latents far: to the left of that a wider picture is the same, and an
 * encoder's latents likewise. */
static void test_rectangular_taesd(void **state) {
  (void)state;
  enum { H = 10, W = 24, WIDER = 30, C = 4, SAME = 4, F = 8 };
  struct opened o;
  open_vae(&o, "cpu", 2, fixture_path("vae/taesd"));
  float *z = waves((size_t)C * H * WIDER), *x = waves((size_t)3 * F * F * H * WIDER);
  float cut[C * H * W], mean[C * H * W], mean_wider[C * H * WIDER], *no_variance = NULL;
  float *x_cut = floats((size_t)3 * F * F * H * W);
  for (int i = 0; i < C * H * W; i++) cut[i] = z[i / W * WIDER + i % W];
  for (int i = 0; i < 3 * F * F * H * W; i++) x_cut[i] = x[i / (F * W) * (F * WIDER) + i % (F * W)];
  float *narrow = decode_rectangle(&o, cut, H, W, 0), *wide = decode_rectangle(&o, z, H, WIDER, 0);
  for (int row = 0; row < 3 * F * H; row++)
    assert_memory_equal(narrow + (size_t)row * F * W, wide + (size_t)row * F * WIDER,
                        (size_t)SAME * F * sizeof *wide);
  assert_ok(o.ex.ctx, exec_reserve(&o.ex, vae_encode_bytes(&o.ex, o.vae, F * H, F * WIDER)));
  assert_ok(o.ex.ctx, vae_encode(&o.ex, o.vae, mean, no_variance, x_cut, F * H, F * W));
  assert_ok(o.ex.ctx, vae_encode(&o.ex, o.vae, mean_wider, no_variance, x, F * H, F * WIDER));
  for (int row = 0; row < C * H; row++)
    assert_memory_equal(mean + (size_t)row * W, mean_wider + (size_t)row * WIDER,
                        (size_t)SAME * sizeof *mean);
  free(z), free(x), free(x_cut), free(narrow), free(wide);
  close_vae(&o);
}

/* What grows with the image is the head and the feature maps, far from all activations. */
static void test_tile_memory(void **state) {
  (void)state;
  struct opened o;
  open_vae(&o, "ref", 1, source_path("assets/default/vae"));
  for (int size = 32; size <= 512; size *= 2) {
    const double tiled = (double)vae_decode_bytes(&o.ex, o.vae, size, size, 8);
    const double whole = (double)vae_decode_bytes(&o.ex, o.vae, size, size, 0);
    assert_within("tiled over whole", tiled / whole, 0.26);
  }
  close_vae(&o);
}

/* The bytes that a dry run finds are needed and suffice, and decoding allocates nothing more. */
static void test_dry_run(void **state) {
  (void)state;
  struct opened o;
  struct ditmoe_ctx *ctx = test_ctx();
  open_vae(&o, "ref", 1, fixture_path(small));
  for (int tile = 0; tile <= 3; tile += 3) {
    float *latents = smooth_latents(&o, 8), *image = decode(&o, latents, 8, tile);
    const size_t bytes = vae_decode_bytes(&o.ex, o.vae, 8, 8, tile);
    const uint64_t allocations = ditmoe_allocations(ctx);
    assert_ok(ctx, vae_decode(&o.ex, o.vae, image, latents, 8, 8, tile));
    assert_int_equal(ditmoe_allocations(ctx), allocations);
    assert_int_equal(o.ex.arena.peak, bytes);
    assert_ok(ctx, exec_reserve(&o.ex, bytes - 64));
    assert_fails(ctx, DITMOE_FAILED, "too small",
                 vae_decode(&o.ex, o.vae, image, latents, 8, 8, tile));
    exec_clear(&o.ex);
    free(image);
    free(latents);
  }
  close_vae(&o);
}

/* Image, tiled image, and latents one after the other, with any number of threads. */
static float *everything(const char *tier, const char *dtype, int threads, size_t *n) {
  struct opened o;
  open_vae_in(&o, "cpu", tier, dtype, threads, source_path("assets/default/vae"));
  const size_t side = 12 * (size_t)o.info.factor, z = (size_t)4 * 12 * 12;
  float *latents = smooth_latents(&o, 12), *whole = decode(&o, latents, 12, 0);
  float *tiled = decode(&o, latents, 12, 5), *all = floats(6 * side * side + z);
  memcpy(all, whole, 3 * side * side * sizeof *all);
  memcpy(all + 3 * side * side, tiled, 3 * side * side * sizeof *all);
  memcpy(all + 6 * side * side, latents, z * sizeof *all);
  *n = 6 * side * side + z;
  free(tiled);
  free(whole);
  free(latents);
  close_vae(&o);
  return all;
}

static void check_thread_bits(const char *tier, const char *dtype) {
  size_t n;
  float *one = everything(tier, dtype, 1, &n);
  for (int threads = 2; threads <= 4; threads *= 2) {
    float *more = everything(tier, dtype, threads, &n);
    if (memcmp(one, more, n * sizeof *one) != 0)
      fail_msg("%s, %s: %d threads differ from one", tier, dtype, threads);
    free(more);
  }
  free(one);
}

static void test_thread_bits(void **state) {
  (void)state;
  for (int i = 0; i < TIERS; i++) {
    struct exec probe;
    if (backend_open(&probe, test_ctx(), "cpu", tiers[i], 1) != DITMOE_OK) {
      print_message("tier %s is not on this machine\n", tiers[i]);
      continue;
    }
    exec_close(&probe);
    check_thread_bits(tiers[i], "f32");
    check_thread_bits(tiers[i], "bf16");
  }
}

static void test_pixels(void **state) {
  (void)state;
  const float values[12] = {-1,          1,      0,        -2,        2,   0.999F,
                            -0.0039216F, -1e30F, INFINITY, -INFINITY, NAN, 0.99608F};
  const uint8_t expected[12] = {0, 255, 128, 0, 255, 255, 127, 0, 255, 0, 0, 255};
  uint8_t pixels[12];
  vae_pixels(pixels, values, 2, 2);
  for (int c = 0; c < 3; c++)
    for (int p = 0; p < 4; p++) assert_int_equal(pixels[3 * p + c], expected[4 * c + p]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_recorded_ref),
      cmocka_unit_test(test_recorded_cpu),
      cmocka_unit_test(test_pipeline_image),
      cmocka_unit_test(test_describe),
      cmocka_unit_test(test_tiles),
      cmocka_unit_test(test_tile_memory),
      cmocka_unit_test(test_rectangular_tiles),
      cmocka_unit_test(test_rectangular_taesd),
      cmocka_unit_test(test_dry_run),
      cmocka_unit_test(test_thread_bits),
      cmocka_unit_test(test_pixels),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
