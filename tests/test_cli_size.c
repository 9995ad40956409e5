/* Images that are not of the size that a model was trained at. */
#include "ditmoe_eval.h"
#include "tests/programs.h"

#include <stdio.h>
#include <string.h>

#define REAL "@sample -q -t 1 -m @source/assets/default/model.pth --steps 2 "
/* Random weights, and positions that follow no formula. */
#define LEARNED                                                                                    \
  "@sample -q -t 1 -m @fixtures/dit_moe/b_mixed/bare.safetensors --vae none --heads 6 --top-k 1 "  \
  "--objective ddpm --steps 2 "

static int fresh_folder(void **state) {
  (void)state;
  return run("rm -rf d && mkdir d").code;
}

/* All images of a file or folder are so large, and there are so many. */
static void assert_images(const char *path, int64_t count, int width, int height) {
  struct ditmoe_images *images;
  struct ditmoe_images_info info;
  struct ditmoe_ctx *ctx = test_ctx();
  assert_ok(ctx, ditmoe_images_open(ctx, temporary_path(path), NULL, &images));
  ditmoe_images_info(images, &info);
  assert_int_equal(info.count, count);
  for (int64_t i = 0; i < count; i++) {
    const uint8_t *pixels;
    int w, h;
    assert_ok(ctx, ditmoe_images_read(ctx, images, i, &pixels, &w, &h));
    assert_int_equal(w, width);
    assert_int_equal(h, height);
  }
  ditmoe_images_close(images);
}

static void a_rectangle_is_made_and_made_again(void **state) {
  (void)state;
  char text[4096];
  assert_shell("mkdir d/g");
  assert_exit(run(REAL "-n 3 -s 4 --size 48x64 -o d/ --grid d/g/g.png --latents l.st --force"), 0,
              "");
  assert_images("d", 3, 48, 64);
  assert_images("d/g", 1, 2 * 48 + 2, 2 * 64 + 2);
  assert_exit(run("@info l.st --tensors | grep -qF '[3,4,16,12]'"), 0, "");
  assert_ok(test_ctx(), ditmoe_image_text(test_ctx(), temporary_path("d/000001.png"), "parameters",
                                          text, sizeof text));
  assert_non_null(strstr(text, "Size: 48x64, "));
  assert_exit(run("grep -q '\"width\":[[:space:]]*48' d/run.json"), 0, "");
  assert_exit(run("@sample -q --reproduce d/000001.png -o r.png --force"), 0, "");
  assert_shell("cmp d/000001.png r.png");
  assert_exit(run("@sample -q --reproduce d/000001.png -o r2.png --size 64x48"), DITMOE_USAGE,
              "--width 64 contradicts");
  assert_exit(run("@sample -q --reproduce d/g/g.png -o e/ --force"), 0, "");
  assert_shell("cmp d/000002.png e/000002.png");
  assert_exit(run(REAL "-n 3 -s 4 -W 48 -H 64 -b 1 -o one/ --force"), 0, "");
  assert_shell("cmp d/000002.png one/000002.png");
}

static void other_outputs_have_the_size(void **state) {
  (void)state;
  assert_exit(run(REAL "-n 2 -H 16 -o d/ --format jpg"), 0, "");
  assert_images("d", 2, 32, 16);
  assert_exit(run(REAL "-n 2 --size 24x16 --tile 3 -o x.npz --force"), 0, "");
  assert_images("x.npz", 2, 24, 16);
  assert_exit(run(REAL "-n 2 --size 16x24 -o x.npz --resume"), DITMOE_MISMATCH,
              "width (24, now 16), height (16, now 24)");
}

/* The trained size by name is the default, and says nothing; another is said. */
static void the_trained_size_changes_nothing(void **state) {
  (void)state;
#define LOUD "@sample -t 1 -m @source/assets/default/model.pth --steps 1 --progress none "
  assert_exit(run(LOUD "-n 2 --disable-image-metadata -o d/a_%%d.png"), 0, "");
  struct outcome named = run(LOUD "-n 2 --disable-image-metadata --size 32x32 -o d/b_%%d.png");
  assert_exit(named, 0, "");
  assert_null(strstr(named.err, "trained at"));
  assert_shell("cmp d/a_1.png d/b_1.png");
  assert_exit(run(LOUD "-n 1 --size 40x32 -o d/c.png"), 0,
              "images of 40x32: this model was trained at 32x32");
}

static void sizes_that_cannot_be_are_refused(void **state) {
  (void)state;
  static const struct {
    const char *options;
    int code;
    const char *text;
  } cases[] = {
      {"--size 48", DITMOE_USAGE, "--size 48: expected WIDTHxHEIGHT"},
      {"--size 48x", DITMOE_USAGE, "size"},
      {"--size x48", DITMOE_USAGE, "size"},
      {"--size 48x48x3", DITMOE_USAGE, "size"},
      {"--size 0x32", DITMOE_USAGE, "size"},
      {"--size 48x64 -W 48", DITMOE_USAGE, "alternatives"},
      {"-W 44", DITMOE_USAGE, "--width 44: with this model and decoder a multiple of 8"},
      {"-H 65536", DITMOE_USAGE, "65535"},
      {"-H 48 --image-size 32", DITMOE_MISMATCH, "--image-size 32: the images are of 32x48"},
      {"-H 48 --routing-dump d/r.npz", DITMOE_USAGE, "routing is recorded at the size"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_exit(run(REAL "-n 1 -o d/x/ %s", cases[i].options), cases[i].code, cases[i].text);
  assert_exit(run(LEARNED "-n 1 -o d/x/ -W 32"), DITMOE_MISMATCH,
              "(pos_embed) are a stored table for latents of 16x16 that follows no formula");
  assert_exit(run(LEARNED "-n 1 -o d/y/ --size 16x16"), 0, "");
  assert_exit(run(LEARNED "-n 1 --dry-run -W 32"), DITMOE_MISMATCH, "follows no formula");
  assert_exit(run(REAL "-n 1 --dry-run -W 64"), 0, "");
  assert_shell("test ! -e d/x");
}

int main(void) {
#define FRESH(test) cmocka_unit_test_setup(test, fresh_folder)
  const struct CMUnitTest tests[] = {
      FRESH(a_rectangle_is_made_and_made_again),
      FRESH(other_outputs_have_the_size),
      FRESH(the_trained_size_changes_nothing),
      FRESH(sizes_that_cannot_be_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
