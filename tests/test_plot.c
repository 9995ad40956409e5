/* Pictures of the programs: colours, text, clipping, animated PNG. */
#include "cli/report.h"
#include "plot/plot.h"
#include "tests/support.h"

#include <math.h>
#include <png.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const color black = {0, 0, 0};

static void assert_drawn(enum ditmoe_status status) {
  if (status != DITMOE_OK) fail_msg("%s", report_last_error());
}

static struct canvas canvas_of(int width, int height) {
  struct canvas canvas;
  assert_drawn(canvas_create(&canvas, width, height));
  return canvas;
}

static const uint8_t *pixel(const struct canvas *canvas, int x, int y) {
  return canvas->pixels + 3 * ((size_t)y * (size_t)canvas->width + (size_t)x);
}

static int count_pixels(const struct canvas *canvas, const color rgb) {
  int count = 0;
  for (int y = 0; y < canvas->height; y++)
    for (int x = 0; x < canvas->width; x++) count += memcmp(pixel(canvas, x, y), rgb, 3) == 0;
  return count;
}

/* Colours. */

static void maps_are_matplotlibs(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int entry; /* of 256 */
    color rgb;
  } known[] = {{"viridis", 0, {68, 1, 84}},       {"viridis", 64, {59, 82, 139}},
               {"viridis", 128, {33, 145, 140}},  {"viridis", 192, {94, 201, 98}},
               {"viridis", 255, {253, 231, 37}},  {"cividis", 0, {0, 34, 78}},
               {"cividis", 128, {125, 124, 120}}, {"cividis", 255, {254, 232, 56}},
               {"magma", 0, {0, 0, 4}},           {"magma", 128, {183, 55, 121}},
               {"magma", 255, {252, 253, 191}}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    color rgb;
    colormap_at(colormap_find(known[i].name), known[i].entry / 255.0, rgb);
    for (int c = 0; c < 3; c++) assert_within(known[i].name, abs(rgb[c] - known[i].rgb[c]), 2);
  }
}

/* CIE lightness, 0..100. */
static double lightness(const color rgb) {
  static const double weights[] = {0.2126, 0.7152, 0.0722};
  double y = 0;
  for (int c = 0; c < 3; c++) {
    const double v = rgb[c] / 255.0;
    y += weights[c] * (v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4));
  }
  return y <= 0.008856 ? 903.3 * y : 116 * cbrt(y) - 16;
}

static double lightness_at(const struct colormap *map, double at) {
  color rgb;
  colormap_at(map, at, rgb);
  return lightness(rgb);
}

static void maps_grow_lighter_or_darker(void **state) {
  (void)state;
  for (const char *const *name = colormap_names; *name; name++) {
    const struct colormap *map = colormap_find(*name);
    assert_non_null(map);
    const double sign = lightness_at(map, 1) > lightness_at(map, 0) ? 1 : -1;
    for (int i = 0; i < 255; i++)
      assert_within(
          *name, sign * (lightness_at(map, i / 255.0) - lightness_at(map, (i + 1) / 255.0)), 0.3);
    assert_true(fabs(lightness_at(map, 1) - lightness_at(map, 0)) > 55);
  }
  const struct colormap *map = colormap_find("difference");
  assert_true(lightness_at(map, 0.5) > 94);
  for (int i = 0; i <= 8; i++)
    assert_within("difference",
                  fabs(lightness_at(map, 0.5 - i / 16.0) - lightness_at(map, 0.5 + i / 16.0)), 8);
  assert_null(colormap_find("jet"));
  assert_null(colormap_find(""));
}

static void values_outside_have_the_colour_of_the_end(void **state) {
  (void)state;
  const struct colormap *map = colormap_find("viridis");
  color end, rgb;
  colormap_at(map, 1, end);
  colormap_at(map, INFINITY, rgb);
  assert_memory_equal(rgb, end, 3);
  colormap_at(map, 0, end);
  colormap_at(map, -1e300, rgb);
  assert_memory_equal(rgb, end, 3);
  colormap_at(map, NAN, rgb);
  assert_true(rgb[0] == rgb[1] && rgb[1] == rgb[2]);
}

static void ink_can_be_read(void **state) {
  (void)state;
  static const color yellow = {253, 231, 37}, violet = {68, 1, 84};
  color ink, a, b;
  color_ink(yellow, ink);
  assert_int_equal(ink[0], 0);
  color_ink(violet, ink);
  assert_int_equal(ink[0], 255);
  for (int i = 0; i < 16; i++) {
    color_distinct(i, 16, a);
    color_distinct((i + 1) % 16, 16, b);
    assert_true(abs(a[0] - b[0]) + abs(a[1] - b[1]) + abs(a[2] - b[2]) > 20);
    assert_within("lightness", fabs(lightness(a) - lightness(b)), 6);
  }
}

/* Text and clipping. */

static const char *const texts[] = {"",
                                    "A",
                                    "layer 12",
                                    "\xc3\xa9t\xc3\xa9 \xc3\x97 \xc2\xb7",
                                    "\xff\xfe\x80",
                                    "\xe2\x82",
                                    "\x1b[31m\t\n",
                                    "\xf0\x9f\x90\xb1"};
enum { TEXTS = sizeof texts / sizeof *texts };

static void text_fits_its_width(void **state) {
  (void)state;
  for (int size = TEXT_SMALL; size <= TEXT_TITLE; size++)
    for (int i = 0; i < TEXTS; i++)
      for (int width = 0; width < 120; width++) {
        char *part = canvas_text_fit(size, texts[i], width);
        assert_true(canvas_text_width(size, part) <= width);
        if (canvas_text_width(size, texts[i]) <= width) assert_string_equal(part, texts[i]);
        free(part);
      }
  char *cut = canvas_text_fit(TEXT_NORMAL, "the name of a class", 60);
  assert_non_null(strstr(cut, "\xe2\x80\xa6"));
  free(cut);
}

/* Unknown letters, bytes that are not UTF-8 and control characters are boxes, one each. */
static void unknown_letters_are_boxes(void **state) {
  (void)state;
  const int box = canvas_text_width(TEXT_NORMAL, "\xe7\x8c\xab");
  assert_int_equal(canvas_text_width(TEXT_NORMAL, "\xff\xfe\x80"), 3 * box);
  assert_int_equal(canvas_text_width(TEXT_NORMAL, "\xe2\x82"), 2 * box);
  assert_int_equal(canvas_text_width(TEXT_NORMAL, "\x1b\t\n\x7f"), 4 * box);
  assert_int_equal(canvas_text_width(TEXT_NORMAL, "\xc0\x80"), 2 * box);
  assert_int_equal(canvas_text_width(TEXT_NORMAL, "\xf4\x90\x80\x80"), box);
  struct canvas a = canvas_of(40, 20), b = canvas_of(40, 20);
  canvas_text(&a, 2, 2, TEXT_NORMAL, black, "\x01");
  canvas_text(&b, 2, 2, TEXT_NORMAL, black, "\xe7\x8c\xab");
  assert_memory_equal(a.pixels, b.pixels, 40 * 20 * 3);
  canvas_free(&a);
  canvas_free(&b);
}

/* Every letter marks its box and nothing outside of it, but for the tips of slanted ones. */
static void letters_stay_in_their_boxes(void **state) {
  (void)state;
  for (int size = TEXT_SMALL; size <= TEXT_TITLE; size++)
    for (int code = 0x21; code < 0x180; code++) {
      if (code >= 0x7f && code <= 0xa0) continue;
      char text[3] = {(char)code};
      if (code >= 0x80) text[0] = (char)(0xc0 | code >> 6), text[1] = (char)(0x80 | (code & 63));
      const int width = canvas_text_width(size, text), height = canvas_text_height(size);
      struct canvas canvas = canvas_of(width + 20, height + 20);
      static const color white = {255, 255, 255};
      canvas_text(&canvas, 10, 10, size, black, text);
      const int marked = canvas.width * canvas.height - count_pixels(&canvas, white);
      if (marked == 0) fail_msg("U+%04X leaves no mark", code);
      canvas_fill(&canvas, (struct area){8, 9, width + 4, height + 2}, white);
      if (count_pixels(&canvas, white) != canvas.width * canvas.height)
        fail_msg("U+%04X leaves its box of %d x %d", code, width, height);
      canvas_free(&canvas);
    }
}

static void draw_all(struct canvas *canvas, int x, int y) {
  static const color red = {200, 30, 40};
  static const uint8_t image[] = {0, 0, 0, 90, 90, 90, 30, 60, 90, 250, 128, 7};
  canvas_fill(canvas, (struct area){x + 3, y + 4, 30, 20}, red);
  canvas_blend(canvas, (struct area){x + 20, y + 10, 30, 30}, black, 0.3);
  canvas_outline(canvas, (struct area){x + 1, y + 1, 50, 44}, red);
  canvas_image(canvas, (struct area){x + 30, y + 20, 25, 17}, image, 2, 2);
  canvas_text(canvas, x + 2, y + 3, TEXT_TITLE, black, "gpq");
  canvas_text_vertical(canvas, x + 40, y + 2, TEXT_NORMAL, red, "gpq");
}

/* A small canvas at any place of a large one shows just that part. */
static void drawing_is_clipped(void **state) {
  (void)state;
  enum { LARGE = 96, SMALL = 23, OFFSET = 24 };
  struct canvas large = canvas_of(LARGE, LARGE);
  draw_all(&large, OFFSET, OFFSET);
  for (int y = 0; y < LARGE - SMALL; y += 7)
    for (int x = 0; x < LARGE - SMALL; x += 7) {
      struct canvas small = canvas_of(SMALL, SMALL);
      draw_all(&small, OFFSET - x, OFFSET - y);
      for (int j = 0; j < SMALL; j++)
        assert_memory_equal(pixel(&small, 0, j), pixel(&large, x, y + j), 3 * SMALL);
      canvas_free(&small);
    }
  canvas_fill(&large, (struct area){INT32_MAX - 1, INT32_MIN, INT32_MAX, INT32_MAX}, black);
  canvas_free(&large);
}

static void vertical_text_is_turned(void **state) {
  (void)state;
  const char *text = "Rgp 7";
  const int width = canvas_text_width(TEXT_NORMAL, text), height = canvas_text_height(TEXT_NORMAL);
  struct canvas across = canvas_of(width, height), up = canvas_of(height, width);
  canvas_text(&across, 0, 0, TEXT_NORMAL, black, text);
  canvas_text_vertical(&up, 0, 0, TEXT_NORMAL, black, text);
  for (int y = 0; y < height; y++)
    for (int x = 0; x < width; x++)
      assert_memory_equal(pixel(&across, x, y), pixel(&up, y, width - 1 - x), 3);
  canvas_free(&across);
  canvas_free(&up);
}

static void images_are_stretched(void **state) {
  (void)state;
  static const uint8_t image[] = {0, 0, 0, 100, 0, 0, 0, 40, 0, 100, 40, 200};
  static const color mean = {50, 20, 50}, last = {100, 40, 200};
  struct canvas canvas = canvas_of(8, 8);
  canvas_image(&canvas, (struct area){0, 0, 1, 1}, image, 2, 2);
  assert_memory_equal(pixel(&canvas, 0, 0), mean, 3);
  canvas_image(&canvas, (struct area){0, 0, 8, 8}, image, 2, 2);
  assert_int_equal(count_pixels(&canvas, last), 16);
  canvas_free(&canvas);
}

/* Animated PNG. */

enum { FRAMES = 5, WIDTH = 37, HEIGHT = 21, FRAME_BYTES = WIDTH * HEIGHT * 3 };

/* Frames 2 and 3 are alike. user: NULL, or the frame that fails. */
static enum ditmoe_status draw_frame(void *user, int index, struct canvas *frame) {
  if (user && *(const int *)user == index) return report_error(DITMOE_USAGE, "no such frame");
  *frame = canvas_of(WIDTH, HEIGHT);
  const color rgb = {(uint8_t)(40 * (index == 3 ? 2 : index)), 90, 7};
  canvas_fill(frame, (struct area){3 + (index == 3 ? 2 : index), 4, 9, 8}, rgb);
  canvas_text(frame, 14, 3, TEXT_NORMAL, black, index % 2 == 0 ? "a" : "b");
  if (index == 3) {
    canvas_free(frame);
    return draw_frame(user, 2, frame);
  }
  return DITMOE_OK;
}

static uint32_t number_at(const uint8_t *bytes, int size) {
  uint32_t value = 0;
  for (int i = 0; i < size; i++) value = value << 8 | bytes[i];
  return value;
}

/* Puts a frame's rectangle, given by its fcTL and its compressed rows, into the picture. */
static void apply_frame(uint8_t *picture, const uint8_t *control, const uint8_t *data,
                        size_t size) {
  const uint32_t width = number_at(control + 4, 4), height = number_at(control + 8, 4),
                 x = number_at(control + 12, 4), y = number_at(control + 16, 4);
  uint8_t rows[(3 * WIDTH + 1) * HEIGHT], before[3 * WIDTH] = {0};
  uLongf length = sizeof rows;
  assert_true(width > 0 && height > 0 && x + width <= WIDTH && y + height <= HEIGHT);
  assert_int_equal(uncompress(rows, &length, data, size), Z_OK);
  assert_int_equal(length, (3 * width + 1) * height);
  for (uint32_t j = 0; j < height; j++) {
    const uint8_t *row = rows + (3 * width + 1) * j;
    assert_int_equal(row[0], 2);
    for (uint32_t i = 0; i < 3 * width; i++) before[i] = (uint8_t)(before[i] + row[1 + i]);
    memcpy(picture + 3 * ((y + j) * WIDTH + x), before, 3 * (size_t)width);
  }
}

static void check_frame(const uint8_t *picture, int index) {
  struct canvas frame;
  assert_drawn(draw_frame(NULL, index, &frame));
  assert_memory_equal(picture, frame.pixels, FRAME_BYTES);
  canvas_free(&frame);
}

static void animations_are_whole(void **state) {
  (void)state;
  const struct apng apng = {.count = FRAMES, .delay_ms = 120, .loops = 3, .draw = draw_frame};
  assert_drawn(apng_write(test_ctx(), temporary_path("a.png"), &apng));
  size_t size;
  uint8_t *bytes = (uint8_t *)file_bytes(temporary_path("a.png"), &size);
  uint8_t picture[FRAME_BYTES];
  const uint8_t *control = NULL;
  char order[128] = "";
  uint32_t sequence = 0, frames = 0;
  for (size_t at = 8; at < size;) {
    const uint32_t length = number_at(bytes + at, 4);
    const uint8_t *type = bytes + at + 4, *data = type + 4;
    assert_true(length <= size - at - 12);
    assert_int_equal(number_at(data + length, 4), crc32(0, type, length + 4));
    strncat(order, (const char *)type, 4);
    if (memcmp(type, "fcTL", 4) == 0) {
      control = data;
      assert_int_equal(number_at(data, 4), sequence++);
      assert_int_equal(number_at(data + 20, 2), 120);
      assert_int_equal(number_at(data + 22, 2), 1000);
    } else if (memcmp(type, "acTL", 4) == 0) {
      assert_int_equal(number_at(data, 4), FRAMES);
      assert_int_equal(number_at(data + 4, 4), 3);
    } else if (memcmp(type, "IDAT", 4) == 0) {
      apply_frame(picture, control, data, length);
      check_frame(picture, (int)frames++);
    } else if (memcmp(type, "fdAT", 4) == 0) {
      assert_int_equal(number_at(data, 4), sequence++);
      apply_frame(picture, control, data + 4, length - 4);
      check_frame(picture, (int)frames++);
    }
    at += length + 12;
  }
  assert_string_equal(order, "IHDRacTLfcTLIDATfcTLfdATfcTLfdATfcTLfdATfcTLfdATIEND");
  free(bytes);
}

static void readers_of_png_see_the_first_frame(void **state) {
  (void)state;
  const struct apng apng = {.count = 2, .delay_ms = 40, .draw = draw_frame};
  png_image image = {.version = PNG_IMAGE_VERSION};
  uint8_t read[FRAME_BYTES];
  assert_drawn(apng_write(test_ctx(), temporary_path("b.png"), &apng));
  assert_true(png_image_begin_read_from_file(&image, temporary_path("b.png")));
  assert_int_equal(image.width, WIDTH);
  assert_int_equal(image.height, HEIGHT);
  image.format = PNG_FORMAT_RGB;
  assert_true(png_image_finish_read(&image, NULL, read, 0, NULL));
  check_frame(read, 0);
}

static enum ditmoe_status draw_growing(void *user, int index, struct canvas *frame) {
  (void)user;
  return canvas_create(frame, 10 + index, 10);
}

static void animations_fail_whole(void **state) {
  (void)state;
  int wrong = 2;
  struct apng apng = {.count = 4, .delay_ms = 40, .draw = draw_frame, .user = &wrong};
  assert_int_equal(apng_write(test_ctx(), temporary_path("c.png"), &apng), DITMOE_USAGE);
  apng = (struct apng){.count = 2, .draw = draw_growing};
  assert_int_equal(apng_write(test_ctx(), temporary_path("c.png"), &apng), DITMOE_FAILED);
  assert_non_null(strstr(report_last_error(), "frame 1 has 11 x 10 pixels"));
  assert_null(fopen(temporary_path("c.png"), "rb"));
  apng = (struct apng){.count = 1, .draw = draw_frame};
  assert_int_equal(apng_write(test_ctx(), temporary_path("no/folder/c.png"), &apng), DITMOE_OUTPUT);
}

int main(void) {
  report_start("test_plot");
  report_style(REPORT_QUIET, "never");
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(maps_are_matplotlibs),
      cmocka_unit_test(maps_grow_lighter_or_darker),
      cmocka_unit_test(values_outside_have_the_colour_of_the_end),
      cmocka_unit_test(ink_can_be_read),
      cmocka_unit_test(text_fits_its_width),
      cmocka_unit_test(unknown_letters_are_boxes),
      cmocka_unit_test(letters_stay_in_their_boxes),
      cmocka_unit_test(drawing_is_clipped),
      cmocka_unit_test(vertical_text_is_turned),
      cmocka_unit_test(images_are_stretched),
      cmocka_unit_test(animations_are_whole),
      cmocka_unit_test(readers_of_png_see_the_first_frame),
      cmocka_unit_test(animations_fail_whole),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
