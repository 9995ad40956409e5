/* Images and digests: what is written reads back, whatever fails leaves no file and no block. */
#include "tests/support.h"

#include <png.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WIDTH = 5, HEIGHT = 3, BYTES = WIDTH * HEIGHT * 3 };

static const uint8_t *pixels(void) {
  static uint8_t bytes[BYTES];
  for (int i = 0; i < BYTES; i++) bytes[i] = (uint8_t)(i * 37 + 11);
  return bytes;
}

static const struct ditmoe_text texts[] = {{"plain", "class 7 sneaker\nSteps: 50"},
                                           {"latin", "t\xc3\xa9"},
                                           {"other", "\xe7\x8c\xab"},
                                           {"json", "{\"a\": \"\xc3\xa9\"}"},
                                           {"broken", "\xff\xfe b"},
                                           {"empty", ""},
                                           {NULL, NULL}};

static void write_ok(const char *name) {
  assert_ok(test_ctx(),
            ditmoe_image_write(test_ctx(), temporary_path(name), pixels(), WIDTH, HEIGHT, texts));
}

static void png_pixels_are_exact(void **state) {
  (void)state;
  png_image image = {.version = PNG_IMAGE_VERSION};
  uint8_t read[BYTES];
  write_ok("a.png");
  assert_true(png_image_begin_read_from_file(&image, temporary_path("a.png")));
  assert_int_equal(image.width, WIDTH);
  assert_int_equal(image.height, HEIGHT);
  image.format = PNG_FORMAT_RGB;
  assert_true(png_image_finish_read(&image, NULL, read, 0, NULL));
  assert_memory_equal(read, pixels(), BYTES);
}

static void png_texts_read_back(void **state) {
  (void)state;
  char text[64];
  write_ok("a.PNG");
  for (const struct ditmoe_text *t = texts; t->key; t++) {
    assert_ok(test_ctx(), ditmoe_image_text(test_ctx(), temporary_path("a.PNG"), t->key, text, 64));
    assert_string_equal(text, t->value);
  }
  assert_ok(test_ctx(), ditmoe_image_text(test_ctx(), temporary_path("a.PNG"), "plain", text, 6));
  assert_string_equal(text, "class");
  assert_ok(test_ctx(), ditmoe_image_text(test_ctx(), temporary_path("a.PNG"), "latin", text, 3));
  assert_string_equal(text, "t");
  assert_fails(test_ctx(), DITMOE_FORMAT, "no text entry \"absent\"",
               ditmoe_image_text(test_ctx(), temporary_path("a.PNG"), "absent", text, 64));
}

/* Rows from the bottom, blue first, each row padded to 4 bytes. */
static void bmp_pixels_are_exact(void **state) {
  (void)state;
  size_t size;
  write_ok("a.bmp");
  char *file = file_bytes(temporary_path("a.bmp"), &size);
  const size_t row = 16;
  assert_int_equal(size, 54 + HEIGHT * row);
  for (int y = 0; y < HEIGHT; y++)
    for (int x = 0; x < WIDTH; x++)
      for (int c = 0; c < 3; c++)
        assert_int_equal((uint8_t)file[54 + (size_t)(HEIGHT - 1 - y) * row + (size_t)(3 * x + c)],
                         pixels()[3 * (y * WIDTH + x) + 2 - c]);
  free(file);
}

static void other_formats_are_theirs(void **state) {
  (void)state;
  static const char *const names[] = {"a.jpg", "a.jpeg", "a.tga"};
  static const unsigned char marks[][3] = {{0xff, 0xd8, 0xff}, {0xff, 0xd8, 0xff}, {0, 0, 10}};
  for (int i = 0; i < 3; i++) {
    write_ok(names[i]);
    char *file = file_bytes(temporary_path(names[i]), NULL);
    assert_memory_equal(file, marks[i], 3);
    free(file);
  }
}

static bool exists(const char *name) {
  struct stat info;
  return stat(temporary_path(name), &info) == 0;
}

static void bad_requests_are_refused(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int width, height;
    enum ditmoe_status code;
    const char *text;
  } requests[] = {{"b.gif", 1, 1, DITMOE_USAGE, "not an image format"},
                  {"b", 1, 1, DITMOE_USAGE, "not an image format"},
                  {"b.png/c", 1, 1, DITMOE_USAGE, "not an image format"},
                  {"b.png", 0, 1, DITMOE_USAGE, "0 x 1 pixels"},
                  {"b.png", 1, -1, DITMOE_USAGE, "1 x -1 pixels"},
                  {"b.png", 65536, 1, DITMOE_USAGE, "65536 x 1 pixels"},
                  {"absent/b.png", 1, 1, DITMOE_OUTPUT, "absent/b.png"}};
  for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
    const char *path = temporary_path(requests[i].name);
    assert_fails(test_ctx(), requests[i].code, requests[i].text,
                 ditmoe_image_write(test_ctx(), path, pixels(), requests[i].width,
                                    requests[i].height, NULL));
    assert_false(exists(requests[i].name));
  }
  struct ditmoe_text many[10] = {0};
  for (int i = 0; i < 9; i++) many[i] = (struct ditmoe_text){"key", "value"};
  assert_fails(test_ctx(), DITMOE_USAGE, "9 text entries",
               ditmoe_image_write(test_ctx(), temporary_path("b.png"), pixels(), 1, 1, many));
}

/* Malformed files give an error or, where the text comes before the damage, no such entry. */
static void bad_pngs_are_errors(void **state) {
  (void)state;
  static const char *const names[] = {"png_trunc", "png_trunc_iend", "png_bad_idat", "png_huge",
                                      "png_zero",  "png_taller",     "png_sig_only", "png_not",
                                      "png_good",  "empty",          "png_16bit_ok"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    char relative[64], text[16];
    snprintf(relative, sizeof relative, "bad/%s.png", names[i]);
    assert_fails(test_ctx(), DITMOE_FORMAT, names[i],
                 ditmoe_image_text(test_ctx(), fixture_path(relative), "ditmoe", text, 16));
  }
  char text[16];
  assert_fails(test_ctx(), DITMOE_FORMAT, "absent.png",
               ditmoe_image_text(test_ctx(), "absent.png", "ditmoe", text, 16));
}

/* Every prefix of a good file. */
static void cut_pngs_are_errors(void **state) {
  (void)state;
  size_t size;
  char text[64];
  write_ok("whole.png");
  char *file = file_bytes(temporary_path("whole.png"), &size);
  for (size_t length = 0; length < size; length++) {
    assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path("cut.png"), file, length));
    enum ditmoe_status status =
        ditmoe_image_text(test_ctx(), temporary_path("cut.png"), "plain", text, sizeof text);
    assert_true(status == DITMOE_OK || status == DITMOE_FORMAT);
    if (status == DITMOE_OK) assert_string_equal(text, texts[0].value);
  }
  free(file);
}

/* The n-th allocation fails, for every n. */
static void no_memory_leaves_nothing(void **state) {
  (void)state;
  char text[64];
  write_ok("kept.png");
  for (int reading = 0; reading < 2; reading++) {
    int fired = 1;
    for (int64_t n = 0; fired; n++) {
      struct ditmoe_ctx *ctx = faulty_ctx(n);
      enum ditmoe_status status =
          reading
              ? ditmoe_image_text(ctx, temporary_path("kept.png"), "plain", text, sizeof text)
              : ditmoe_image_write(ctx, temporary_path("new.png"), pixels(), WIDTH, HEIGHT, texts);
      fired = faulty_fired();
      assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
      assert_int_equal(faulty_held(), 0);
      if (!reading) assert_int_equal(exists("new.png"), !fired);
      ditmoe_ctx_destroy(ctx);
    }
  }
}

static void digests_are_sha256(void **state) {
  (void)state;
  char digest[65], expected[65];
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path("abc.bin"), "abc", 3));
  assert_ok(test_ctx(), ditmoe_file_sha256(test_ctx(), temporary_path("abc.bin"), digest));
  assert_string_equal(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path("none.bin"), "", 0));
  assert_ok(test_ctx(), ditmoe_file_sha256(test_ctx(), temporary_path("none.bin"), digest));
  assert_string_equal(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  assert_fails(test_ctx(), DITMOE_FORMAT, "absent",
               ditmoe_file_sha256(test_ctx(), temporary_path("absent"), digest));
  /* A folder is what sha256sum prints for its files, whatever else lies there. */
  assert_int_equal(mkdir(temporary_path("f"), 0700) | mkdir(temporary_path("f/in"), 0700), 0);
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path("f/in/a.bin"), "abc", 3));
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path("f/z.pt"), "", 0));
  assert_ok(test_ctx(), ditmoe_file_sha256(test_ctx(), temporary_path("f"), digest));
  static const char lines[] =
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  in/a.bin\n"
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  z.pt\n";
  assert_ok(test_ctx(),
            ditmoe_file_write(test_ctx(), temporary_path("lines"), lines, sizeof lines - 1));
  assert_ok(test_ctx(), ditmoe_file_sha256(test_ctx(), temporary_path("lines"), expected));
  assert_string_equal(digest, expected);
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path("f/note.png"), "x", 1));
  assert_ok(test_ctx(), ditmoe_file_sha256(test_ctx(), temporary_path("f"), digest));
  assert_string_equal(digest, expected);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(png_pixels_are_exact),     cmocka_unit_test(png_texts_read_back),
      cmocka_unit_test(bmp_pixels_are_exact),     cmocka_unit_test(other_formats_are_theirs),
      cmocka_unit_test(bad_requests_are_refused), cmocka_unit_test(bad_pngs_are_errors),
      cmocka_unit_test(cut_pngs_are_errors),      cmocka_unit_test(no_memory_leaves_nothing),
      cmocka_unit_test(digests_are_sha256),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
