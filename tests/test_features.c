/* Feature networks: an image's features depend on that image alone; what their files may hold; the
 * rules that images are resized by; names. Their values are in the golden kind inception. */
#include "ditmoe_eval.h"
#include "eval/network.h"
#include "tests/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POOL = 2048, SPATIAL = 2023, LOGITS = 1008, IMAGES = 3, HEIGHT = 40, WIDTH = 56 };
enum { IMAGE_BYTES = 3 * HEIGHT * WIDTH };

static const char *weights(void) { return fixture_path("inception/pt_inception_random.pth"); }

/* Resizing. */

static void assert_line(const float *out, int stride, const double *expected, int n) {
  for (int i = 0; i < n; i++)
    assert_within("a resized pixel", fabs((double)out[i * stride] - expected[i]), 1e-6);
}

/* Two pixels, 0 and 200, to four: along each axis, in each channel. */
static void test_resize_up(void **state) {
  (void)state;
  static const double adm[] = {-1, -28 / 128.0, 72 / 128.0, 72 / 128.0};
  static const double pytorch[] = {-1, 100 / 255.0 - 1, 300 / 255.0 - 1, 400 / 255.0 - 1};
  const uint8_t across[2 * 3] = {0, 0, 0, 200, 200, 200};
  float out[4 * 4 * 3];
  for (int down = 0; down < 2; down++)
    for (int c = 0; c < 3; c++) {
      const int stride = down ? 4 * 3 : 3;
      resize_image(out, across, down ? 2 : 1, down ? 1 : 2, 4, RESIZE_ADM);
      assert_line(out + c, stride, adm, 4);
      resize_image(out, across, down ? 2 : 1, down ? 1 : 2, 4, RESIZE_PYTORCH_FID);
      assert_line(out + c, stride, pytorch, 4);
    }
}

/* Four pixels to two: the one takes every second pixel, the other means of neighbours. */
static void test_resize_down(void **state) {
  (void)state;
  uint8_t row[4 * 3];
  float out[2 * 2 * 3];
  for (int i = 0; i < 4 * 3; i++) row[i] = (uint8_t)(i / 3 * 64);
  resize_image(out, row, 1, 4, 2, RESIZE_ADM);
  assert_line(out, 3, (const double[]){-1, 0}, 2);
  resize_image(out, row, 1, 4, 2, RESIZE_PYTORCH_FID);
  assert_line(out, 3, (const double[]){64 / 255.0 - 1, 320 / 255.0 - 1}, 2);
}

static void fill(uint8_t *pixels, size_t n, uint32_t seed) {
  for (size_t i = 0; i < n; i++) {
    seed = seed * 1664525 + 1013904223;
    pixels[i] = (uint8_t)(seed >> 24);
  }
}

/* An image of the network's size is only scaled, to the bit. */
static void test_resize_same(void **state) {
  (void)state;
  enum { SIDE = 299, VALUES = 3 * SIDE * SIDE };
  uint8_t *pixels = malloc(VALUES);
  float *out = malloc(VALUES * sizeof *out);
  assert_true(pixels && out);
  fill(pixels, VALUES, 1);
  resize_image(out, pixels, SIDE, SIDE, SIDE, RESIZE_ADM);
  for (int i = 0; i < VALUES; i++) assert_true(out[i] == ((float)pixels[i] - 128) / 128);
  resize_image(out, pixels, SIDE, SIDE, SIDE, RESIZE_PYTORCH_FID);
  for (int i = 0; i < VALUES; i++) assert_true(out[i] == 2 * ((float)pixels[i] / 255) - 1);
  free(out);
  free(pixels);
}

/* SHA-256 of what torch 2.7.1 makes of the same pixels: 2 F.interpolate(x / 255, (299, 299),
 * mode="bilinear", align_corners=False) - 1, [299, 299, 3] float32. */
static void test_resize_is_that_of_torch(void **state) {
  (void)state;
  enum { SIDE = 299, VALUES = 3 * SIDE * SIDE };
  static const struct {
    int height, width;
    const char *digest;
  } sizes[] = {
      {1, 1, "7054b9db22d85f3b4713559cac6d586e52710b4ba6f2d877f946d193bfc05d3d"},
      {2, 3, "771a20866b818d155a480db6cbf48a1e7996b5b2089c1239bec25541d7d497b6"},
      {17, 299, "52a7db09d0ffd66e06106d3ac6ebc33de641549b8003d1504a4eca4cdb7a428b"},
      {32, 32, "3b9f631e98cdabc5dfffb00a034e707fa6fcc45b110a95a7ac740c859153158c"},
      {64, 64, "64e5ee2728d211e30ba903b3a7364bc8d96f8711227ec9668c204f8ce4988e77"},
      {120, 410, "b01142441d15e92a848e5162200e6fc77976682dcee08781b16a3a552b7bec33"},
      {410, 120, "e5a6907ba034566714947ab3d477ed5d82879c8991aae697a667ca90360eb275"},
      {200, 300, "d7e2214afbf0ae11b4c9d4c5240d5670054df07eb5f23d7910aacc87b2703943"},
      {256, 256, "609e65728a23c90aee380b5a9e0455db0604cbe866c2ca2ce2ede2f7003a3750"},
      {300, 298, "a292f7681417c09a2e430345a36f58262aef8ee3d07815635f4a83f455b47c5c"},
      {512, 512, "03a0b768d58498f5209106eee9ec3a3e17f5e7064fc86c335bf1636d4d60bfff"},
      {1000, 37, "3dcdd523847aed9af48487c87f4bccbf35e1a16eb5bbe7192f009d3038b973dd"},
  };
  uint8_t *pixels = malloc(3 * 512 * 512);
  float *out = malloc(VALUES * sizeof *out);
  assert_true(pixels && out);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const int height = sizes[i].height, width = sizes[i].width;
    char digest[65];
    fill(pixels, 3 * (size_t)height * (size_t)width,
         12345 + 1000 * (uint32_t)height + (uint32_t)width);
    resize_image(out, pixels, height, width, SIDE, RESIZE_PYTORCH_FID);
    assert_ok(test_ctx(),
              ditmoe_file_write(test_ctx(), temporary_path("resized"), out, VALUES * sizeof *out));
    assert_ok(test_ctx(), ditmoe_file_sha256(test_ctx(), temporary_path("resized"), digest));
    if (strcmp(digest, sizes[i].digest) != 0)
      fail_msg("%d x %d: not the pixels of torch", height, width);
  }
  free(out);
  free(pixels);
}

/* Pixel i of the output lies at this place of an axis of n, in pixels. */
static double place(enum resize_rule rule, int i, int n, int side) {
  const float step = (float)n / (float)side; /* torch's places are float32 */
  const double at = rule == RESIZE_ADM ? i * (double)n / side
                                       : fmax((double)fmaf(step, (float)i + 0.5F, -0.5F), 0);
  return fmin(at, n - 1);
}

/* One value, straight from the rule. */
static double interpolated(const uint8_t *pixels, int height, int width, double y, double x,
                           int c) {
  double sum = 0;
  for (int i = 0; i < 4; i++) {
    const int row = (int)y + i / 2, column = (int)x + i % 2;
    const double share =
        (i / 2 ? y - floor(y) : 1 - y + floor(y)) * (i % 2 ? x - floor(x) : 1 - x + floor(x));
    if (row < height && column < width) sum += share * pixels[(row * width + column) * 3 + c];
  }
  return sum;
}

/* Sizes that need several bands of columns, up and down at once. */
static void test_resize_sizes(void **state) {
  (void)state;
  enum { LARGEST = 301 };
  static const int sizes[][3] = {{7, 5, 230}, {301, 9, 130}, {2, 301, 299}, {1, 1, 8}};
  static uint8_t pixels[3 * LARGEST * 9];
  static float out[3 * 299 * 299];
  fill(pixels, sizeof pixels, 2);
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
    for (int rule = RESIZE_ADM; rule <= RESIZE_PYTORCH_FID; rule++) {
      const int height = sizes[s][0], width = sizes[s][1], side = sizes[s][2];
      double worst = 0;
      resize_image(out, pixels, height, width, side, (enum resize_rule)rule);
      for (int i = 0; i < 3 * side * side; i++) {
        const double y = place((enum resize_rule)rule, i / 3 / side, height, side);
        const double x = place((enum resize_rule)rule, i / 3 % side, width, side);
        const double value = interpolated(pixels, height, width, y, x, i % 3);
        const double expected = rule == RESIZE_ADM ? (value - 128) / 128 : 2 * value / 255 - 1;
        worst = fmax(worst, fabs((double)out[i] - expected));
      }
      /* float32 places of pixels, as the rule has them: 2^-24 of 301, times the step between two */
      assert_within("a resized image", worst, rule == RESIZE_ADM ? 1e-4 : 1e-6);
    }
}

/* Networks. */

struct result {
  float pool[IMAGES][POOL], spatial[IMAGES][SPATIAL], logits[IMAGES][LOGITS];
};

static struct ditmoe_features *open_with(const char *path, const char *tier, const char *dtype,
                                         int threads) {
  const struct ditmoe_model_options options = {.tier = tier, .dtype = dtype, .threads = threads};
  struct ditmoe_features *features = NULL;
  assert_ok(test_ctx(), ditmoe_features_open(test_ctx(), path, &options, NULL, &features));
  return features;
}

/* Images first .. first + count - 1 of a fixed list. */
static void compute(struct ditmoe_features *features, struct result *out, int first, int count) {
  static uint8_t pixels[IMAGES * IMAGE_BYTES];
  fill(pixels, sizeof pixels, 3);
  assert_ok(test_ctx(),
            ditmoe_features_run(test_ctx(), features, pixels + first * IMAGE_BYTES, count, HEIGHT,
                                WIDTH, out->pool[first], out->spatial[first], out->logits[first]));
}

/* The same bits in any batch, in any place of it, with any number of threads. */
static void test_batches(void **state) {
  (void)state;
  static const char *const dtypes[] = {"f32", "bf16"};
  static struct result whole, parts;
  for (int d = 0; d < 2; d++) {
    struct ditmoe_features *one = open_with(weights(), NULL, dtypes[d], 1);
    struct ditmoe_features *more = open_with(weights(), NULL, dtypes[d], 3);
    compute(one, &whole, 0, IMAGES);
    memset(&parts, 0, sizeof parts);
    compute(more, &parts, 0, 1);
    compute(more, &parts, 1, 2);
    assert_memory_equal(&whole, &parts, sizeof whole);
    compute(more, &parts, 2, 1); /* less than the memory that it has */
    assert_memory_equal(&whole, &parts, sizeof whole);
    ditmoe_features_close(one);
    ditmoe_features_close(more);
  }
}

/* Features that are not asked for change no others. */
static void test_some(void **state) {
  (void)state;
  static struct result all, some;
  uint8_t pixels[IMAGE_BYTES];
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_features *features = open_with(weights(), NULL, NULL, 0);
  float *wanted[3] = {some.pool[0], some.spatial[0], some.logits[0]};
  fill(pixels, sizeof pixels, 3);
  compute(features, &all, 0, 1);
  for (int i = 0; i < 3; i++)
    assert_ok(ctx, ditmoe_features_run(ctx, features, pixels, 1, HEIGHT, WIDTH,
                                       i == 0 ? wanted[0] : NULL, i == 1 ? wanted[1] : NULL,
                                       i == 2 ? wanted[2] : NULL));
  assert_memory_equal(&all, &some, sizeof all);
  ditmoe_features_close(features);
}

static void test_describe(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_features *features = NULL;
  struct ditmoe_features_info info;
  char digest[65];
  assert_ok(ctx, ditmoe_features_open(ctx, weights(), NULL, "pytorch-fid", &features));
  ditmoe_features_info(features, &info);
  assert_string_equal(info.kind, "fid-inception-v3");
  assert_string_equal(info.name, "random-inception");
  assert_int_equal(info.defines_fid, 0);
  assert_string_equal(info.resize, "pytorch-fid");
  assert_string_equal(info.dtype, "f32");
  assert_true(info.side == 299 && info.pool == POOL && info.spatial == SPATIAL &&
              info.logits == LOGITS);
  assert_ok(ctx, ditmoe_file_sha256(ctx, weights(), digest));
  assert_string_equal(info.sha256, digest);
  ditmoe_features_close(features);
  ditmoe_features_close(NULL);
}

static void test_wrong_use(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_features *features = NULL;
  const struct ditmoe_model_options half = {.dtype = "f16"};
  const uint8_t pixel[3] = {0};
  float pool[POOL];
  assert_fails(ctx, DITMOE_USAGE, "\"adm\" or \"pytorch-fid\", found \"bicubic\"",
               ditmoe_features_open(ctx, weights(), NULL, "bicubic", &features));
  assert_fails(ctx, DITMOE_USAGE, "found \"f16\"",
               ditmoe_features_open(ctx, weights(), &half, NULL, &features));
  assert_null(features);
  features = open_with(weights(), NULL, NULL, 1);
  assert_fails(ctx, DITMOE_USAGE, "count",
               ditmoe_features_run(ctx, features, pixel, 0, 1, 1, pool, NULL, NULL));
  assert_fails(ctx, DITMOE_USAGE, "1 x 0 pixels",
               ditmoe_features_run(ctx, features, pixel, 1, 0, 1, pool, NULL, NULL));
  assert_fails(ctx, DITMOE_USAGE, "-1 x 1 pixels",
               ditmoe_features_run(ctx, features, pixel, 1, 1, -1, pool, NULL, NULL));
  assert_fails(ctx, DITMOE_NOMEM, "1000000 images at a time",
               ditmoe_features_run(ctx, features, pixel, 1000000, 1, 1, pool, NULL, NULL));
  assert_ok(ctx, ditmoe_features_run(ctx, features, pixel, 1, 1, 1, pool, NULL, NULL));
  ditmoe_features_close(features);
}

/* The arena is as large as it must be, and no larger. */
static void test_arena(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct exec ex;
  struct network *network = NULL;
  uint8_t pixels[2 * IMAGE_BYTES] = {0};
  float *pool = calloc(2, POOL * sizeof *pool), *spatial = calloc(2, SPATIAL * sizeof *spatial),
        *logits = calloc(2, LOGITS * sizeof *logits);
  const struct features out = {pool, spatial, logits};
  assert_true(pool && spatial && logits);
  assert_ok(ctx, backend_open(&ex, ctx, NULL, NULL, 0));
  assert_ok(ctx, network_open(&ex, weights(), &network));
  const size_t bytes = network_bytes(&ex, network, 2);
  assert_ok(ctx, exec_reserve(&ex, bytes - 64));
  assert_fails(ctx, DITMOE_FAILED, "activation memory is too small",
               network_run(&ex, network, RESIZE_ADM, pixels, 2, HEIGHT, WIDTH, &out));
  exec_clear(&ex);
  assert_ok(ctx, exec_reserve(&ex, bytes));
  assert_ok(ctx, network_run(&ex, network, RESIZE_ADM, pixels, 2, HEIGHT, WIDTH, &out));
  /* The stem works on one image at a time: without that, 10 MiB more for every further image. */
  assert_true(network_bytes(&ex, network, 17) - bytes < (size_t)15 * 8 << 20);
  network_close(&ex, network);
  exec_close(&ex);
  free(pool);
  free(spatial);
  free(logits);
}

/* Files. */

/* A change to the tensors of the random network. */
struct edit {
  const char *drop;    /* those whose names contain it          */
  const char *extra;   /* one more tensor                       */
  const char *reshape; /* this one loses its first axis         */
  const char *plant;   /* an element of this one becomes `value` */
  float value;
};

/* The tensors of `file` with the edit, as safetensors; `values` holds the planted one. */
static size_t edit_tensors(const struct edit *edit, const struct ditmoe_checkpoint *file,
                           struct tensor *out, float *values) {
  size_t count = 0;
  for (size_t i = 0; i < file->count; i++) {
    struct tensor t = file->tensors[i];
    if (edit->drop && strstr(t.name, edit->drop)) continue;
    if (edit->reshape && strcmp(t.name, edit->reshape) == 0)
      t.elements /= t.shape[0], t.rank--, memmove(t.shape, t.shape + 1, 3 * sizeof *t.shape);
    if (edit->plant && strcmp(t.name, edit->plant) == 0) {
      memcpy(values, t.data, (size_t)t.elements * sizeof *values);
      values[t.elements - 1] = edit->value;
      t.data = values;
    }
    out[count++] = t;
  }
  if (edit->extra) {
    out[count] = out[0];
    out[count++].name = edit->extra;
  }
  return count;
}

static const char *edited(const struct edit *edit) {
  enum { PLANTED = 1024 };
  struct ditmoe_checkpoint *file = checkpoint_of(weights());
  struct tensor *tensors = calloc(file->count + 1, sizeof *tensors);
  float values[PLANTED];
  const char *path = temporary_path("edited.safetensors");
  assert_non_null(tensors);
  const size_t count = edit_tensors(edit, file, tensors, values);
  assert_ok(test_ctx(), safetensors_write(test_ctx(), path, tensors, count, DT_COUNT, NULL, 0));
  free(tensors);
  ditmoe_checkpoint_close(file);
  return path;
}

static void refuse(enum ditmoe_status code, const char *text, const char *path) {
  struct ditmoe_features *features = NULL;
  assert_fails(test_ctx(), code, text,
               ditmoe_features_open(test_ctx(), path, NULL, NULL, &features));
  assert_null(features);
}

/* Files of 96 MB go as soon as they can. */
static void refuse_edited(enum ditmoe_status code, const char *text, const struct edit *edit) {
  const char *path = edited(edit);
  refuse(code, text, path);
  remove(path);
}

static struct ditmoe_features *open_edited(const struct edit *edit) {
  const char *path = edited(edit);
  struct ditmoe_features *features = open_with(path, NULL, NULL, 0);
  remove(path);
  return features;
}

/* The same weights in another format, without the counters that nothing needs: the same features,
 * but nothing to know their origin by. */
static void test_conversion(void **state) {
  (void)state;
  static struct result original, converted;
  struct ditmoe_features *a = open_with(weights(), NULL, NULL, 0);
  struct ditmoe_features *b = open_edited(&(struct edit){.drop = "num_batches"});
  struct ditmoe_features_info info;
  char name[64];
  compute(a, &original, 0, 1);
  compute(b, &converted, 0, 1);
  assert_memory_equal(&original, &converted, sizeof original);
  ditmoe_features_info(b, &info);
  snprintf(name, sizeof name, "fid-inception-v3 %.8s", info.sha256);
  assert_string_equal(info.name, name);
  assert_int_equal(info.defines_fid, 0);
  ditmoe_features_close(a);
  ditmoe_features_close(b);
}

static void test_other_files(void **state) {
  (void)state;
  refuse(DITMOE_FORMAT, "nowhere", temporary_path("nowhere"));
  refuse(DITMOE_MISMATCH, "not a feature network: no tensor Conv2d_1a_3x3.conv.weight",
         fixture_path("dit_moe/b_mixed/bare.safetensors"));
}

static void test_differences(void **state) {
  (void)state;
  const struct edit edit = {
      .drop = "Mixed_6b.branch7x7_2.conv", .extra = "AuxLogits.fc.weight", .reshape = "fc.weight"};
  const char *path = edited(&edit);
  refuse(DITMOE_MISMATCH, "not the tensors of this fid-inception-v3, 3 differ: ", path);
  refuse(DITMOE_MISMATCH, "Mixed_6b.branch7x7_2.conv.weight [128, 128, 1, 7] is missing", path);
  refuse(DITMOE_MISMATCH, "fc.weight: expected [1008, 2048], found [2048]", path);
  refuse(DITMOE_MISMATCH, "AuxLogits.fc.weight is unexpected", path);
  remove(path);
}

static void test_planted(void **state) {
  (void)state;
  const struct edit nan = {.plant = "Mixed_7c.branch1x1.bn.bias", .value = NAN};
  const struct edit negative = {.plant = "Conv2d_4a_3x3.bn.running_var", .value = -1};
  refuse_edited(DITMOE_NONFINITE, "tensor Mixed_7c.branch1x1.bn.bias holds NaN or infinite values",
                &nan);
  refuse_edited(DITMOE_MISMATCH, "Conv2d_4a_3x3.bn.running_var: element 191 is -1: no variance",
                &negative);
}

/* Finite weights whose features are not: an error, and the network goes on. */
static void test_overflow(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const struct edit edit = {.plant = "Mixed_7c.branch_pool.bn.weight", .value = 3e38F};
  struct ditmoe_features *features = open_edited(&edit);
  uint8_t pixels[IMAGE_BYTES];
  float pool[POOL], spatial[SPATIAL];
  fill(pixels, sizeof pixels, 3);
  assert_fails(ctx, DITMOE_NONFINITE, "features of image 1 of 1 are not finite",
               ditmoe_features_run(ctx, features, pixels, 1, HEIGHT, WIDTH, pool, spatial, NULL));
  assert_ok(ctx, ditmoe_features_run(ctx, features, pixels, 1, HEIGHT, WIDTH, NULL, spatial, NULL));
  ditmoe_features_close(features);
}

/* Every allocation may fail: a status, and nothing is left. */
static void test_failing_allocations(void **state) {
  (void)state;
  static struct result out;
  static uint8_t pixels[IMAGE_BYTES];
  for (int64_t at = 0, fired = 1; fired; at += 1 + at / 4) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    struct ditmoe_features *features = NULL;
    enum ditmoe_status status = ditmoe_features_open(ctx, weights(), NULL, NULL, &features);
    assert_true((status == DITMOE_OK) == (features != NULL));
    if (features) {
      status = ditmoe_features_run(ctx, features, pixels, 1, HEIGHT, WIDTH, out.pool[0],
                                   out.spatial[0], out.logits[0]);
      ditmoe_features_close(features);
    }
    fired = faulty_fired();
    assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_resize_up),    cmocka_unit_test(test_resize_down),
      cmocka_unit_test(test_resize_same),  cmocka_unit_test(test_resize_is_that_of_torch),
      cmocka_unit_test(test_resize_sizes), cmocka_unit_test(test_batches),
      cmocka_unit_test(test_some),         cmocka_unit_test(test_describe),
      cmocka_unit_test(test_wrong_use),    cmocka_unit_test(test_arena),
      cmocka_unit_test(test_conversion),   cmocka_unit_test(test_other_files),
      cmocka_unit_test(test_differences),  cmocka_unit_test(test_planted),
      cmocka_unit_test(test_overflow),     cmocka_unit_test(test_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
