/* ditmoe-eval on a few tiny images and the network of random weights. A forward pass takes seconds
 * under a sanitizer, so the runs share theirs: ten in all. */
#include "tests/programs.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, COUNT = 4 };

#define NETWORK "--inception @fixtures/inception/pt_inception_random.pth "
#define STATS_A "@fixtures/metrics/stats_A_pytorch_fid.npz "
#define STATS_B "@fixtures/metrics/stats_B_pytorch_fid_stored.npz "

static void assert_contains(const char *text, const char *part) {
  if (!strstr(text, part)) fail_msg("\"%s\" is not in:\n%s", part, text);
}

static void assert_lacks(const char *text, const char *part) {
  if (strstr(text, part)) fail_msg("\"%s\" is in:\n%s", part, text);
}

/* Images that differ in more than noise: stripes of an own period and colour. */
static void paint(uint8_t *pixels, int side, int index) {
  for (int i = 0; i < side * side; i++) {
    const int x = i % side, y = i / side;
    pixels[3 * i] = (uint8_t)(8 * x * (index + 1));
    pixels[3 * i + 1] = (uint8_t)(y * (17 + 5 * index));
    pixels[3 * i + 2] = (uint8_t)((x + index * y) % 7 * 36);
  }
}

static void write_image(const char *name, int side, int index) {
  uint8_t pixels[3 * SIDE * SIDE];
  paint(pixels, side, index);
  assert_ok(test_ctx(),
            ditmoe_image_write(test_ctx(), temporary_path(name), pixels, side, side, NULL));
}

static void write_images_npz(const char *name, int64_t count) {
  const int64_t shape[] = {count, SIDE, SIDE, 3};
  uint8_t pixels[3 * SIDE * SIDE];
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_npz *npz = NULL;
  assert_ok(ctx, ditmoe_npz_create(ctx, temporary_path(name), &npz));
  assert_ok(ctx, ditmoe_npz_array(ctx, npz, "arr_0", "u1", 4, shape));
  for (int i = 0; i < (int)count; i++) {
    paint(pixels, SIDE, i);
    assert_ok(ctx, ditmoe_npz_write(ctx, npz, pixels, sizeof pixels));
  }
  assert_ok(ctx, ditmoe_npz_commit(ctx, npz));
}

/* mu [2], sigma [2, 2] */
static void write_stats(const char *name, const double mean[2], const double covariance[4]) {
  static const int64_t shape[] = {2, 2};
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_npz *npz = NULL;
  assert_ok(ctx, ditmoe_npz_create(ctx, temporary_path(name), &npz));
  assert_ok(ctx, ditmoe_npz_array(ctx, npz, "mu", "f8", 1, shape));
  assert_ok(ctx, ditmoe_npz_write(ctx, npz, mean, 2 * sizeof *mean));
  assert_ok(ctx, ditmoe_npz_array(ctx, npz, "sigma", "f8", 2, shape));
  assert_ok(ctx, ditmoe_npz_write(ctx, npz, covariance, 4 * sizeof *covariance));
  assert_ok(ctx, ditmoe_npz_commit(ctx, npz));
}

/* a/ and a.npz hold the same images; b/ another and a JPEG of another size. */
static int make_inputs(void **state) {
  (void)state;
  static const char manifest[] =
      "{\"program\": \"ditmoe-sample\", \"status\": \"cancelled\", \"count\": {\"run\": 9}, "
      "\"pixels\": \"trunc(x)\", \"class\": \"<script>alert(1)</script>\\u001b[31m\", "
      "\"options\": {\"sampler\": \"a&b\"}}";
  char name[64];
  assert_int_equal(run("mkdir a b empty one").code, 0);
  for (int i = 0; i < COUNT; i++) {
    snprintf(name, sizeof name, "a/%06d.png", i);
    write_image(name, SIDE, i);
  }
  write_images_npz("a.npz", COUNT);
  write_image("b/0.png", SIDE, 5);
  write_image("b/1.jpg", 24, 6);
  write_image("one/0.png", SIDE, 0);
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path("b/run.json"), manifest,
                                          sizeof manifest - 1));
  return 0;
}

/* The text after "name: " at the beginning of a line. */
static const char *line_of(const char *text, const char *name) {
  static char value[512];
  const size_t length = strlen(name);
  for (const char *line = text; line; line = strchr(line, '\n')) {
    line += *line == '\n';
    if (strncmp(line, name, length) != 0 || strncmp(line + length, ": ", 2) != 0) continue;
    snprintf(value, sizeof value, "%.*s", (int)strcspn(line + length + 2, "\n"), line + length + 2);
    return value;
  }
  fail_msg("no line \"%s: \" in:\n%s", name, text);
  return NULL;
}

static double number_of(const char *text, const char *name) {
  return strtod(line_of(text, name), NULL);
}

static double member_of(const char *json, const char *object, const char *name) {
  cJSON *tree = cJSON_Parse(json);
  if (!tree) fail_msg("not JSON:\n%s", json);
  const cJSON *value =
      cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(tree, object), name);
  if (!cJSON_IsNumber(value)) fail_msg("no number %s.%s in:\n%s", object, name, json);
  const double number = value->valuedouble;
  cJSON_Delete(tree);
  return number;
}

/* The same images as a folder and as an npz are the same set; what is written of it is read. */
static void a_set_against_itself(void **state) {
  (void)state;
  char sha[128];
  struct outcome self = run("@eval a a.npz --fid --sfid --isc --prc --kid " NETWORK
                            "--batch-size 3 --progress json --save-stats a_stats.npz "
                            "--features a.npy");
  assert_exit(self, 0, "samples: 4, fewer than 2,048");
  assert_contains(self.err, "reference: 4, fewer than 2,048");
  assert_contains(self.err, "the same images");
  assert_contains(self.err, "\"images\": 4, \"of\": 4");
  assert_lacks(self.out, "FID");
  assert_lacks(self.out, "KID");
  snprintf(sha, sizeof sha, "%s", line_of(self.out, "# reference sha256"));
  assert_string_equal(line_of(self.out, "# samples sha256"), sha);
  assert_within("itself",
                fabs(number_of(self.out, "Frechet distance (features: random-inception)")), 1e-6);
  assert_within("itself, spatial",
                fabs(number_of(self.out, "Spatial Frechet distance (features: random-inception)")),
                1e-6);
  assert_true(number_of(self.out, "Precision (features: random-inception)") == 1);
  assert_true(number_of(self.out, "Recall (features: random-inception)") == 1);
  assert_true(number_of(self.out, "Inception Score (features: random-inception)") >= 1);
  number_of(self.out, "Kernel distance (features: random-inception)");
  assert_contains(line_of(self.out, "# resize"), "adm");
  assert_contains(line_of(self.out, "# pixels of samples"), "unknown");
  assert_exit(run("test $(wc -c < a.npy) -eq $((4 * 2048 * 4 + 128))"), 0, "");
}

/* Uses the statistics that the test before wrote. */
static void statistics_stand_for_images(void **state) {
  (void)state;
  struct outcome images =
      run("@eval a_stats.npz b --json --fid --sfid " NETWORK "--save-stats b_stats.npz "
          "--report 'b<i>.html'");
  assert_exit(images, 0, "JPEG");
  assert_contains(images.err, "mixed sizes: 1 of 2");
  assert_contains(images.err, "the statistics are those of the file");
  assert_contains(images.err, "status is \"cancelled\"");
  assert_contains(images.err, "one of 9 images");
  assert_lacks(images.out, "\"fid\":");
  assert_contains(images.out, "trunc(x)");
  const double pool = member_of(images.out, "scores", "frechet_distance");
  const double spatial = member_of(images.out, "scores", "spatial_frechet_distance");
  assert_true(pool > 0.01 && spatial > 0.01);

  struct outcome files = run("@eval a_stats.npz b_stats.npz --json");
  assert_exit(files, 0, "left out: Precision");
  assert_within("statistics for images",
                fabs(member_of(files.out, "scores", "frechet_distance") - pool), 1e-9 * pool);
  assert_within("spatial",
                fabs(member_of(files.out, "scores", "spatial_frechet_distance") - spatial),
                1e-9 * spatial);
}

/* Uses the report that the test before wrote. */
static void a_report_is_one_safe_file(void **state) {
  (void)state;
  char *html = file_bytes(temporary_path("b<i>.html"), NULL);
  assert_contains(html, "&lt;script&gt;alert(1)&lt;/script&gt;");
  assert_contains(html, "a&amp;b");
  assert_contains(html, "Frechet distance (features: random-inception)");
  assert_contains(html, "src=\"data:image/png;base64,iVBORw0KGgo");
  assert_contains(html, "</html>\n");
  assert_lacks(html, "<script");
  assert_lacks(html, "http");
  assert_lacks(html, "FID:");
  assert_null(strchr(html, 27));
  free(html);
}

/* One image: no covariance, but a score. */
static void one_image(void **state) {
  (void)state;
  struct outcome alone = run("@eval --isc one " NETWORK);
  assert_exit(alone, 0, "");
  assert_within("score of one image",
                fabs(number_of(alone.out, "Inception Score (features: random-inception)") - 1),
                1e-6);
  assert_exit(run("@eval a_stats.npz one --fid " NETWORK), 7, "no covariance");
  assert_exit(run("@eval a one"), 2, "one has fewer than 4 images; left out: Precision");
}

/* A reference file with images, which need no network while the file has their statistics. */
static void published_files(void **state) {
  (void)state;
  struct outcome stats = run("@eval " STATS_A STATS_B "--fid");
  assert_exit(stats, 0, "network and resize rule are not known");
  assert_within(
      "published statistics",
      fabs(number_of(stats.out, "Frechet distance (features: unknown)") / 5.506431576054624 - 1),
      1e-6);
  assert_lacks(stats.out, "FID");
  assert_contains(run("DITMOE_INCEPTION=absent @eval " STATS_A STATS_B "--fid").out,
                  "(features: unknown)");
  struct outcome batch = run("@eval @fixtures/metrics/adm_ref_batch.npz "
                             "@fixtures/metrics/adm_ref_batch_float32.npz --fid --sfid --json");
  assert_exit(batch, 0, "--recompute");
  assert_within("rounded to f32", fabs(member_of(batch.out, "scores", "frechet_distance")), 1e-3);
  assert_true(member_of(batch.out, "reference", "images") == 6);
}

/* Images and statistics, here those that the file already has. */
static void a_reference_is_made(void **state) {
  (void)state;
  struct outcome made = run("@eval --make-ref made.npz @fixtures/metrics/adm_ref_batch.npz");
  assert_exit(made, 0, "");
  assert_string_equal(made.out, "made.npz\n");
  struct outcome same =
      run("@eval @fixtures/metrics/adm_ref_batch.npz made.npz --fid --sfid --json");
  assert_exit(same, 0, "the same images");
  assert_within("made", fabs(member_of(same.out, "scores", "frechet_distance")), 1e-9);
  assert_within("made", fabs(member_of(same.out, "scores", "spatial_frechet_distance")), 1e-9);
  assert_exit(run("@eval --make-ref b.npz b " NETWORK), 3, "an array holds one size");
  assert_exit(run("test ! -e b.npz"), 0, "");
}

static void files_are_explained(void **state) {
  (void)state;
  struct outcome batch = run("@eval --info @fixtures/metrics/adm_ref_batch.npz");
  assert_exit(batch, 0, "");
  assert_contains(batch.out, "sigma_s  <f8  [96,96]");
  assert_contains(batch.out, "images: 6\n");
  assert_contains(batch.out, "covariance of spatial features");
  struct outcome folder = run("@eval --info b --json");
  assert_exit(folder, 0, "");
  assert_contains(folder.out, "\"jpeg\":\t1");
  assert_contains(folder.out, "\"other_sizes\":\t1");
  assert_exit(run("@eval --info a"), 0, "");
  char sha[128];
  snprintf(sha, sizeof sha, "%s", line_of(run("@eval --info a").out, "sha256_of_pixels"));
  assert_string_equal(line_of(run("@eval --info a.npz").out, "sha256_of_pixels"), sha);
}

/* Every broken npz, alone and as either side, with the exit code that its list asks for. */
static void broken_files(void **state) {
  (void)state;
  char *text = file_bytes(fixture_path("bad/expected.json"), NULL);
  cJSON *list = cJSON_Parse(text);
  const cJSON *item;
  int found = 0;
  cJSON_ArrayForEach(item, list) {
    const char *file = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "file"));
    const cJSON *code = cJSON_GetObjectItemCaseSensitive(item, "exit");
    if (!file || !strstr(file, ".npz") || !cJSON_IsNumber(code)) continue;
    found++;
    assert_exit(run("@eval --info @fixtures/bad/%s", file), code->valueint, file);
    assert_exit(run("@eval --fid @fixtures/bad/%s " STATS_A, file), code->valueint, file);
    assert_exit(run("@eval --fid " STATS_A " @fixtures/bad/%s", file), code->valueint, file);
  }
  assert_true(found >= 8);
  cJSON_Delete(list);
  free(text);
  assert_exit(run("@eval --info @fixtures/bad/npz_no_mu.npz"), 3, "has sigma but no mu");
  assert_exit(run("@eval --info @fixtures/bad/npz_dim.npz"), 3, "mu [7] and sigma [8, 8]");
  assert_exit(run("@eval --info @fixtures/bad/npz_nan.npz"), 7, "mu: value ");
}

static void broken_statistics(void **state) {
  (void)state;
  static const double mean[] = {1, 2};
  write_stats("good.npz", mean, (const double[]){4, 1, 1 + 1e-9, 9});
  write_stats("asymmetric.npz", mean, (const double[]){4, 1, 1.1, 9});
  write_stats("negative.npz", mean, (const double[]){4, 1, 1, -9});
  write_stats("infinite.npz", mean, (const double[]){4, 1, 1, INFINITY});
  struct outcome good = run("@eval --fid good.npz good.npz");
  assert_exit(good, 0, "");
  assert_within("good", fabs(number_of(good.out, "Frechet distance (features: unknown)")), 1e-12);
  assert_exit(run("@eval --info asymmetric.npz"), 3, "sigma is not symmetric");
  assert_exit(run("@eval --info negative.npz"), 3, "sigma: the variance [1, 1] is negative");
  assert_exit(run("@eval --info infinite.npz"), 7, "sigma: value 3 is infinite");
  assert_exit(run("@eval --fid good.npz " STATS_A), 3, "2 dimensions");
  assert_exit(run("@eval --fid good.npz a.npz " NETWORK), 3, "mu has 2 dimensions");
}

static void broken_images(void **state) {
  (void)state;
  assert_exit(run("@eval --info empty"), 3, "empty");
  assert_exit(run("@eval --info absent"), 3, "absent");
  assert_exit(run("cp @fixtures/bad/png_trunc.png one/1.png && @eval --info one"), 3, "1.png");
  assert_exit(run("rm one/1.png"), 0, "");
}

static const struct {
  const char *arguments;
  int code;
  const char *text;
} refused[] = {
    {"", DITMOE_USAGE, "the REF is missing"},
    {"a", DITMOE_USAGE, "the SAMPLES are missing"},
    {"a b c", DITMOE_USAGE, "unexpected argument \"c\""},
    {"--fid a", DITMOE_USAGE, "--fid needs REF and SAMPLES"},
    {"--report r.html a --features x.npy", DITMOE_USAGE, "--report needs REF"},
    {"a b", DITMOE_USAGE, "no feature network"},
    {"a b --inception absent", DITMOE_FORMAT, "absent"},
    {"a b --inception @fixtures/vae/taesd/taesd_decoder.safetensors", DITMOE_MISMATCH,
     "taesd_decoder"},
    {"--prc " STATS_A STATS_B, DITMOE_USAGE, "statistics alone: not enough for: Precision"},
    {"--kid a " STATS_B, DITMOE_USAGE, "Kernel distance"},
    {"--isc " STATS_B, DITMOE_USAGE, "Inception Score"},
    {"--features x.npy " STATS_A, DITMOE_USAGE, "statistics alone, no images"},
    {"--make-ref x.npz " STATS_A, DITMOE_USAGE, "statistics alone, no images"},
    {"--make-ref x.npz a b", DITMOE_USAGE, "--make-ref takes one operand"},
    {"--fid --recompute good.npz good.npz", DITMOE_USAGE, "--recompute has no effect"},
    {"a a.npz --num 5", DITMOE_USAGE, "--num 5: a.npz has 4 images only"},
    {"--num 5 --fid good.npz good.npz", DITMOE_USAGE, "--num: good.npz has statistics alone"},
    {"--info a --fid", DITMOE_USAGE, "--info stands alone"},
    {"--info a b", DITMOE_USAGE, "--info takes one operand"},
    {"a b --tier avx2 --backend ref", DITMOE_USAGE, "--tier has no effect"},
    {"--save-stats a_stats.npz a", DITMOE_OUTPUT, "a_stats.npz: exists; --force"},
    {"--save-stats a.npz a.npz --force", DITMOE_USAGE, "a.npz: is an input"},
    {"--save-stats absent/x.npz a", DITMOE_OUTPUT, "absent/x.npz: cannot be written"},
    {"--features empty a", DITMOE_OUTPUT, "empty: is a folder"},
    {"--features x --save-stats x a", DITMOE_USAGE, "name the same file"},
    {"a b --threads x", DITMOE_USAGE, "--threads"},
    {"--fid " STATS_A STATS_B NETWORK, DITMOE_USAGE, "--inception has no effect"},
    {"--fid " STATS_A STATS_B "--dtype bf16", DITMOE_USAGE, "--dtype has no effect"},
    {"--fid " STATS_A STATS_B "--resize pytorch-fid", DITMOE_USAGE, "--resize has no effect"},
    {"--fid " STATS_A STATS_B "--batch-size 2", DITMOE_USAGE, "--batch-size has no effect"},
    {"--fid " STATS_A STATS_B "--recursive", DITMOE_USAGE, "--recursive has no effect"},
    {"--fid " STATS_A STATS_B "--force", DITMOE_USAGE, "--force has no effect"},
    {"--info a --backend ref", DITMOE_USAGE, "--backend has no effect"},
};

static void what_cannot_work_is_refused(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
    assert_exit(run("@eval %s", refused[i].arguments), refused[i].code, refused[i].text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_set_against_itself),
      cmocka_unit_test(statistics_stand_for_images),
      cmocka_unit_test(a_report_is_one_safe_file),
      cmocka_unit_test(one_image),
      cmocka_unit_test(published_files),
      cmocka_unit_test(a_reference_is_made),
      cmocka_unit_test(files_are_explained),
      cmocka_unit_test(broken_files),
      cmocka_unit_test(broken_statistics),
      cmocka_unit_test(broken_images),
      cmocka_unit_test(what_cannot_work_is_refused),
  };
  return cmocka_run_group_tests(tests, make_inputs, NULL);
}
