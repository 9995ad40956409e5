/* Sets of images: folders and archives, in order, and nothing left out silently. */
#include "tests/support.h"

#include "ditmoe_eval.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct ditmoe_images *open_ok(const char *path,
                                     const struct ditmoe_images_options *options) {
  struct ditmoe_images *images = NULL;
  assert_ok(test_ctx(), ditmoe_images_open(test_ctx(), path, options, &images));
  return images;
}

/* The message names `culprit`, a file inside the path, or the path itself if that is NULL. */
static void assert_refused(const char *path, const char *culprit, const char *text,
                           const struct ditmoe_images_options *options) {
  struct ditmoe_images *images = NULL;
  assert_fails(test_ctx(), DITMOE_FORMAT, text,
               ditmoe_images_open(test_ctx(), path, options, &images));
  assert_non_null(strstr(ditmoe_errmsg(test_ctx()), culprit ? culprit : path));
  assert_null(images);
}

static const char *folder(const char *name) {
  const char *path = temporary_path(name);
  assert_int_equal(mkdir(path, 0700), 0);
  return path;
}

/* An image of one colour, width x 2. */
static void put_image(const char *name, int width, int value) {
  uint8_t pixels[64 * 2 * 3];
  memset(pixels, value, sizeof pixels);
  assert_true(width <= 64);
  assert_ok(test_ctx(),
            ditmoe_image_write(test_ctx(), temporary_path(name), pixels, width, 2, NULL));
}

static void put_text(const char *name, const char *text) {
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path(name), text, strlen(text)));
}

/* Image `index` is of this width and, up to the loss of a JPEG, of this colour. */
static void assert_image(struct ditmoe_images *images, int64_t index, int width, int value) {
  const uint8_t *pixels;
  int w, h;
  assert_ok(test_ctx(), ditmoe_images_read(test_ctx(), images, index, &pixels, &w, &h));
  assert_int_equal(w, width);
  assert_int_equal(h, 2);
  for (int i = 0; i < w * h * 3; i++) assert_true(abs(pixels[i] - value) <= 2);
}

static void assert_name(const struct ditmoe_images *images, int64_t index, const char *end) {
  const char *name = ditmoe_images_name(images, index);
  assert_true(strlen(name) > strlen(end));
  assert_string_equal(name + strlen(name) - strlen(end), end);
}

/* By bytes: capitals first, "10" before "9". */
static void folders_are_in_order(void **state) {
  (void)state;
  struct ditmoe_images_info info;
  folder("f"), folder("f/in"), folder("f/in/deep.png"), folder("f/.git");
  put_image("f/9.png", 4, 9);
  put_image("f/10.png", 5, 10);
  put_image("f/B.JPG", 6, 20);
  put_image("f/a.jpeg", 7, 30);
  put_image("f/in/x.png", 8, 40);
  put_image("f/in/deep.png/y.png", 9, 50);
  put_image("f/.hidden.png", 9, 99);
  put_image("f/.git/z.png", 9, 99);
  put_text("f/run.json", "{}");
  put_text("f/a.npz", "");
  put_text("f/report.html", "");
  struct ditmoe_images *images = open_ok(temporary_path("f"), NULL);
  ditmoe_images_info(images, &info);
  assert_string_equal(info.kind, "folder");
  assert_int_equal(info.count, 4);
  assert_int_equal(info.jpeg, 2);
  assert_int_equal(info.width, 5);
  assert_int_equal(info.height, 2);
  assert_int_equal(info.labelled, 0);
  assert_image(images, 3, 7, 30);
  assert_image(images, 0, 5, 10);
  assert_image(images, 0, 5, 10);
  assert_image(images, 1, 4, 9);
  assert_image(images, 2, 6, 20);
  assert_name(images, 2, "/f/B.JPG");
  ditmoe_images_close(images);

  images = open_ok(temporary_path("f/"), &(struct ditmoe_images_options){.recursive = 1});
  ditmoe_images_info(images, &info);
  assert_int_equal(info.count, 6);
  assert_name(images, 4, "/f/in/deep.png/y.png");
  assert_image(images, 4, 9, 50);
  assert_image(images, 5, 8, 40);
  ditmoe_images_close(images);

  struct ditmoe_images_options few = {.recursive = 1, .count = 3};
  images = open_ok(temporary_path("f"), &few);
  ditmoe_images_info(images, &info);
  assert_int_equal(info.count, 3);
  assert_int_equal(info.jpeg, 1);
  ditmoe_images_close(images);
}

/* The content decides. */
static void names_may_be_wrong(void **state) {
  (void)state;
  struct ditmoe_images_info info;
  folder("w");
  put_image("w/a.jpg", 8, 77);
  put_image("w/b.png", 4, 55);
  assert_int_equal(rename(temporary_path("w/a.jpg"), temporary_path("w/0.png")), 0);
  assert_int_equal(rename(temporary_path("w/b.png"), temporary_path("w/1.jpg")), 0);
  struct ditmoe_images *images = open_ok(temporary_path("w"), NULL);
  ditmoe_images_info(images, &info);
  assert_int_equal(info.jpeg, 1);
  assert_image(images, 0, 8, 77);
  assert_image(images, 1, 4, 55);
  ditmoe_images_close(images);
}

static void bad_folders_are_errors(void **state) {
  (void)state;
  struct ditmoe_images_options deep = {.recursive = 1};
  folder("e");
  assert_refused(temporary_path("e"), NULL, "no .png or .jpg in this folder", NULL);
  folder("e/in");
  put_text("e/note.txt", "hello");
  assert_refused(temporary_path("e"), NULL, "those inside it were not asked for", NULL);
  assert_refused(temporary_path("e"), NULL, "no .png or .jpg in this folder", &deep);
  put_image("e/z.png", 4, 1);
  put_text("e/c.webp", "RIFF");
  put_image("e/b.BMP", 4, 1);
  assert_refused(temporary_path("e"), "/e/b.BMP", "neither", NULL);
  assert_int_equal(unlink(temporary_path("e/b.BMP")) | unlink(temporary_path("e/c.webp")), 0);
  assert_int_equal(symlink("..", temporary_path("e/in/up")), 0);
  ditmoe_images_close(open_ok(temporary_path("e"), NULL));
  assert_refused(temporary_path("e"), "/e/in/up", "loop of links", &deep);
}

/* Files that are no images are found at once, damaged ones when their turn comes. */
static void bad_files_are_errors(void **state) {
  (void)state;
  const uint8_t *pixels;
  int width, height;
  size_t size;
  folder("b");
  put_image("b/0.png", 4, 1);
  put_image("b/2.png", 4, 3);
  char *good = file_bytes(temporary_path("b/0.png"), &size);
  assert_ok(test_ctx(),
            ditmoe_file_write(test_ctx(), temporary_path("b/1\033[2J.png"), good, size - 20));
  free(good);
  struct ditmoe_images *images = open_ok(temporary_path("b"), NULL);
  assert_image(images, 0, 4, 1);
  assert_fails(test_ctx(), DITMOE_FORMAT, "/b/1?[2J.png",
               ditmoe_images_read(test_ctx(), images, 1, &pixels, &width, &height));
  assert_image(images, 0, 4, 1);
  assert_image(images, 2, 4, 3);
  assert_fails(test_ctx(), DITMOE_USAGE, "no image 3",
               ditmoe_images_read(test_ctx(), images, 3, &pixels, &width, &height));
  assert_fails(test_ctx(), DITMOE_USAGE, "no image -1",
               ditmoe_images_read(test_ctx(), images, -1, &pixels, &width, &height));
  ditmoe_images_close(images);

  put_text("b/3.png", "<html>");
  assert_refused(temporary_path("b"), "/b/3.png", "neither PNG nor JPEG", NULL);
  put_text("b/3.png", "");
  assert_refused(temporary_path("b"), "/b/3.png", "is empty", NULL);
  assert_int_equal(unlink(temporary_path("b/3.png")), 0);
  assert_int_equal(symlink("nowhere", temporary_path("b/3.png")), 0);
  assert_refused(temporary_path("b"), "/b/3.png", "No such file", NULL);
  assert_int_equal(unlink(temporary_path("b/3.png")), 0);
  assert_int_equal(mkfifo(temporary_path("b/3.png"), 0600), 0);
  assert_refused(temporary_path("b"), "/b/3.png", "a pipe", NULL);
  ditmoe_images_close(open_ok(temporary_path("b"), &(struct ditmoe_images_options){.count = 3}));
  images = NULL;
  assert_fails(test_ctx(), DITMOE_USAGE, "-2 images",
               ditmoe_images_open(test_ctx(), temporary_path("b"),
                                  &(struct ditmoe_images_options){.count = -2}, &images));
}

/* Writes arr_0 of this type and shape, and labels if asked for. */
static const char *put_npz(const char *name, const char *dtype, int rank, const int64_t *shape,
                           const void *bytes, size_t size, bool labels) {
  struct ditmoe_npz *npz = NULL;
  const char *path = temporary_path(name);
  assert_ok(test_ctx(), ditmoe_npz_create(test_ctx(), path, &npz));
  assert_ok(test_ctx(), ditmoe_npz_array(test_ctx(), npz, "arr_0", dtype, rank, shape));
  assert_ok(test_ctx(), ditmoe_npz_write(test_ctx(), npz, bytes, size));
  if (labels) {
    int64_t *none = calloc((size_t)shape[0], sizeof *none);
    assert_non_null(none);
    assert_ok(test_ctx(), ditmoe_npz_array(test_ctx(), npz, "arr_1", "i8", 1, shape));
    assert_ok(test_ctx(), ditmoe_npz_write(test_ctx(), npz, none, (size_t)shape[0] * sizeof *none));
    free(none);
  }
  assert_ok(test_ctx(), ditmoe_npz_commit(test_ctx(), npz));
  return path;
}

enum { N = 5, H = 2, W = 3 };
static const int64_t shape[4] = {N, H, W, 3};

static const uint8_t *archive_pixels(void) {
  static uint8_t pixels[N * H * W * 3];
  for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(10 + 40 * (i / (H * W * 3)));
  return pixels;
}

static void archives_are_read_in_any_order(void **state) {
  (void)state;
  struct ditmoe_images_info info;
  const char *path = put_npz("a.npz", "u1", 4, shape, archive_pixels(), N * H * W * 3, true);
  struct ditmoe_images *images = open_ok(path, NULL);
  ditmoe_images_info(images, &info);
  assert_string_equal(info.kind, "npz");
  assert_int_equal(info.count, N);
  assert_int_equal(info.jpeg, 0);
  assert_int_equal(info.width, W);
  assert_int_equal(info.height, H);
  assert_int_equal(info.labelled, 1);
  assert_string_equal(ditmoe_images_name(images, 3), path);
  static const int order[] = {0, 1, 2, 3, 4, 4, 2, 0, 3};
  for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
    assert_image(images, order[i], W, 10 + 40 * order[i]);
  ditmoe_images_close(images);

  path = put_npz("b.npz", "u1", 4, shape, archive_pixels(), N * H * W * 3, false);
  images = open_ok(path, &(struct ditmoe_images_options){.count = 2});
  ditmoe_images_info(images, &info);
  assert_int_equal(info.count, 2);
  assert_int_equal(info.labelled, 0);
  ditmoe_images_close(images);
}

static void bad_archives_are_errors(void **state) {
  (void)state;
  static const struct {
    const char *name, *text;
  } files[] = {{"npz_arr0_f32.npz", "arr_0 is <f4 [6, 8]"},
               {"npz_arr0_gray.npz", "arr_0 is |u1 ["},
               {"npz_object.npz", "npz_object.npz"},
               {"npz_no_mu.npz", "no arr_0"},
               {"npz_dim.npz", "statistics, not images"},
               {"npz_trunc.npz", "npz_trunc.npz"},
               {"npy_good.npy", "single NumPy array"},
               {"empty.npz", "is empty"},
               {"garbage.pt", "unknown format"},
               {"absent", "No such file"}};
  static const int64_t none[] = {0, H, W, 3}, rgba[] = {1, 1, 1, 4}, flat[] = {2, 0, 4, 3};
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    char relative[64];
    snprintf(relative, sizeof relative, "bad/%s", files[i].name);
    assert_refused(fixture_path(relative), NULL, files[i].text, NULL);
  }
  struct ditmoe_images *one = open_ok(fixture_path("bad/png_good.png"), NULL);
  struct ditmoe_images_info info;
  ditmoe_images_info(one, &info);
  assert_string_equal(info.kind, "image");
  assert_true(info.count == 1 && info.width == 24 && info.height == 20 && info.jpeg == 0);
  assert_name(one, 0, "png_good.png");
  ditmoe_images_close(one);
  assert_refused(put_npz("none.npz", "u1", 4, none, "", 0, false), NULL, "no images", NULL);
  assert_refused(put_npz("rgba.npz", "u1", 4, rgba, "rgba", 4, false), NULL, "[1, 1, 1, 4]", NULL);
  assert_refused(put_npz("flat.npz", "u1", 4, flat, "", 0, false), NULL, "4 x 0 pixels", NULL);
}

/* A flipped bit is found at the end of the array, and the images can still be closed. */
static void checksums_are_checked(void **state) {
  (void)state;
  const uint8_t *pixels;
  int width, height;
  size_t size;
  const char *path = put_npz("c.npz", "u1", 4, shape, archive_pixels(), N * H * W * 3, false);
  char *bytes = file_bytes(path, &size);
  char *inside = memmem(bytes, size, archive_pixels() + 2 * H * W * 3, H * W * 3);
  assert_non_null(inside);
  *inside ^= 1;
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), path, bytes, size));
  free(bytes);
  struct ditmoe_images *images = open_ok(path, NULL);
  for (int again = 0; again < 2; again++) {
    assert_image(images, 1, W, 50);
    assert_fails(test_ctx(), DITMOE_FORMAT, path,
                 ditmoe_images_read(test_ctx(), images, N - 1, &pixels, &width, &height));
  }
  ditmoe_images_close(images);
}

static enum ditmoe_status read_all(struct ditmoe_ctx *ctx, const char *path) {
  struct ditmoe_images *images = NULL;
  struct ditmoe_images_info info;
  struct ditmoe_images_options options = {.recursive = 1};
  const uint8_t *pixels;
  int width, height;
  enum ditmoe_status status = ditmoe_images_open(ctx, path, &options, &images);
  if (status != DITMOE_OK) return status;
  ditmoe_images_info(images, &info);
  for (int64_t i = 0; status == DITMOE_OK && i < info.count; i++)
    status = ditmoe_images_read(ctx, images, i, &pixels, &width, &height);
  ditmoe_images_close(images);
  return status;
}

/* The n-th allocation fails, for every n; the lists grow twice. */
static void no_memory_leaves_nothing(void **state) {
  (void)state;
  char path[2][512];
  folder("m"), folder("m/in");
  for (int i = 0; i < 18; i++) {
    char name[32];
    snprintf(name, sizeof name, "m/%s%d.png", i % 3 ? "" : "in/", i);
    put_image(name, 4 + 2 * i, i);
    snprintf(name, sizeof name, "m/in/%d", i);
    folder(name);
  }
  snprintf(path[0], sizeof path[0], "%s", temporary_path("m"));
  snprintf(path[1], sizeof path[1], "%s",
           put_npz("m.npz", "u1", 4, shape, archive_pixels(), N * H * W * 3, true));
  for (int i = 0; i < 2; i++) {
    int fired = 1;
    for (int64_t n = 0; fired; n++) {
      struct ditmoe_ctx *ctx = faulty_ctx(n);
      enum ditmoe_status status = read_all(ctx, path[i]);
      fired = faulty_fired();
      assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
      assert_int_equal(faulty_held(), 0);
      ditmoe_ctx_destroy(ctx);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(folders_are_in_order),           cmocka_unit_test(names_may_be_wrong),
      cmocka_unit_test(bad_folders_are_errors),         cmocka_unit_test(bad_files_are_errors),
      cmocka_unit_test(archives_are_read_in_any_order), cmocka_unit_test(bad_archives_are_errors),
      cmocka_unit_test(checksums_are_checked),          cmocka_unit_test(no_memory_leaves_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
