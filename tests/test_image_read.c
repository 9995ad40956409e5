/* Decoding of PNG and JPEG: the pixels are PIL's, what is damaged or too large is an error. */
#include "tests/support.h"

#include "io/image.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static enum ditmoe_status decode(const char *path, const void *bytes, size_t size,
                                 struct image *image) {
  return image_read_bytes(test_ctx(), path, span_of(bytes, size), image);
}

static void digest_of(const struct image *image, char digest[65]) {
  const char *path = temporary_path("pixels");
  size_t bytes = (size_t)image->width * (size_t)image->height * 3;
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), path, image->pixels, bytes));
  assert_ok(test_ctx(), ditmoe_file_sha256(test_ctx(), path, digest));
}

/* SHA-256 of the bytes of Image.open(path).convert("RGB"), PIL 13.0. */
static void pixels_are_those_of_pil(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int width, height;
    const char *digest;
  } images[] = {
      {"png/bit_1x1.png", 1, 1, "5ae7e6a42304dc6e4176210b83c43024f99a0bce9a870c3b6d2c95fc8ebfb74c"},
      {"png/grey_2bit.png", 13, 9,
       "c52fbb8e90d28c2638a27cd93c853196d25da6b40e6dee9ac825af1ca4b29e7d"},
      {"png/grey_alpha_16bit.png", 13, 9,
       "346d0a9262843547083eeccb173a01b0504d3ff884c8256f5c7746765328cbab"},
      {"png/interlaced.png", 10, 11,
       "626e0440fcf676836df059a989f757d58e962ffb425fd95a2322d74c3434e0b0"},
      {"png/palette_4bit_trns.png", 13, 9,
       "826b0709af9038fabcc26a4ed7d2ac6a1ea30a8ebcaf18b9e2e95cdb54f45737"},
      {"png/png_good.png", 24, 20,
       "fc932b35f70953d5eec38f92cc495d11a226d1adc426989f116f71c0a54874fd"},
      {"png/png_palette_ok.png", 24, 20,
       "c97e5993f954a321f02c729f802d37eef19e980fcf3adeb2399909d1d8f453b6"},
      {"png/rgb_16bit.png", 6, 7,
       "2f7d1745cec3ebbe5ca4d37891b854c7bb0bc0f7ac6aa47354437cfe3345186a"},
      {"png/sample.png", 32, 32,
       "e70b59e225baaabd4c83dee29a35ef484d2b97a7beaad6e21839edfcb03ebb9a"},
      {"jpeg/fancy_420.jpg", 17, 13,
       "cb171c951dd7e8e975cfdf1012f1998afc0e46c2ac27d3cbeb56e0302378ebb5"},
      {"jpeg/grey.jpg", 9, 7, "31eacc6c11fd13433e7c4582c32e997d894e9b1bfbf3d8be01483aa82c9e7470"},
      {"jpeg/progressive_422.jpg", 17, 13,
       "d05efeb74fb42416889159d076cb7d2a8d2f634609a849dfa2a231db8d7712cc"},
      {"jpeg/restart_444.jpg", 17, 13,
       "3d5ccdd8505ad2e03632091392df5897028b8b022dcdc557eab9ac2d1a0f4c35"},
      {"jpeg/cmyk.jpg", 8, 8, "0337ce2f7a61305d59cbf43b2c6ccbec28db4180ac9483283b2258337d90a3dc"},
      {"jpeg/ycck.jpg", 10, 12, "ca9d896531d7531e40551613eb6fadc13737b8b28be456f51a11646dc5996dcc"},
      {"bad/png_gray_ok.png", 24, 20,
       "4654a5e3204b3f38646bede6033a09647a56a923ae1f2c1424417ef887b763d7"},
      {"bad/png_palette_ok.png", 24, 20,
       "c97e5993f954a321f02c729f802d37eef19e980fcf3adeb2399909d1d8f453b6"},
      {"bad/png_rgba_ok.png", 24, 20,
       "fc932b35f70953d5eec38f92cc495d11a226d1adc426989f116f71c0a54874fd"},
  };
  struct image image = {0};
  for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
    char relative[96], digest[65];
    bool bad = strncmp(images[i].name, "bad/", 4) == 0;
    snprintf(relative, sizeof relative, "%s%s", bad ? "" : "tests/fuzz/corpus/", images[i].name);
    const char *path = bad ? fixture_path(relative) : source_path(relative);
    assert_ok(test_ctx(), image_read(test_ctx(), path, &image));
    assert_int_equal(image.width, images[i].width);
    assert_int_equal(image.height, images[i].height);
    digest_of(&image, digest);
    if (strcmp(digest, images[i].digest) != 0) fail_msg("%s: other pixels", path);
  }
  image_free(&image);
}

static void expected_pixels_are_read(void **state) {
  (void)state;
  struct ditmoe_checkpoint *checkpoint =
      checkpoint_of(fixture_path("bad/png_expected.safetensors"));
  struct image image = {0};
  int64_t count, *expected = tensor_i64(checkpoint, "rgb", &count);
  assert_ok(test_ctx(), image_read(test_ctx(), fixture_path("bad/png_good.png"), &image));
  assert_int_equal(count, (int64_t)image.width * image.height * 3);
  for (int64_t i = 0; i < count; i++) assert_int_equal(image.pixels[i], expected[i]);
  free(expected);
  ditmoe_checkpoint_close(checkpoint);
  image_free(&image);
}

static void bad_files_are_named(void **state) {
  (void)state;
  static const struct {
    const char *name, *text;
  } files[] = {{"bad/png_trunc.png", "truncated"},
               {"bad/png_trunc_iend.png", "truncated"},
               {"bad/png_bad_idat.png", "incorrect data check"},
               {"bad/png_huge.png", "IHDR"},
               {"bad/png_zero.png", "IHDR"},
               {"bad/png_taller.png", "Not enough"},
               {"bad/png_sig_only.png", "truncated"},
               {"bad/png_not.png", "neither PNG nor JPEG"},
               {"bad/empty.png", "is empty"},
               {"bad/absent.png", "No such file"},
               {"bad", "a folder"}};
  struct image image = {0};
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    const char *path = fixture_path(files[i].name);
    assert_fails(test_ctx(), DITMOE_FORMAT, files[i].text, image_read(test_ctx(), path, &image));
    assert_non_null(strstr(ditmoe_errmsg(test_ctx()), files[i].name));
  }
  image_free(&image);
}

/* Of 16 bits the upper 8, where PIL would make white of all above 255: two of the file's values. */
static void deep_grey_is_scaled(void **state) {
  (void)state;
  struct image image = {0};
  assert_ok(test_ctx(), image_read(test_ctx(), fixture_path("bad/png_16bit_ok.png"), &image));
  for (int c = 0; c < 3; c++) {
    assert_int_equal(image.pixels[c], 12850 >> 8);
    assert_int_equal(image.pixels[9 + c], 55769 >> 8);
  }
  image_free(&image);
}

/* Bytes between the segments of a JPEG change no pixel, and are worth a warning. */
static void stray_bytes_are_passed_over(void **state) {
  (void)state;
  struct image image = {0};
  size_t size;
  char *bytes = file_bytes(source_path("tests/fuzz/corpus/jpeg/fancy_420.jpg"), &size);
  const char *table = memmem(bytes, size, "\xff\xdb", 2);
  assert_non_null(table);
  const size_t places[] = {(size_t)(table - bytes), size - 2}; /* before tables, before the end */
  char *longer = malloc(size + 3), digest[65];
  for (size_t i = 0; i < 2; i++) {
    memcpy(longer, bytes, places[i]);
    memcpy(longer + places[i], "\x12\x34\x56", 3);
    memcpy(longer + places[i] + 3, bytes + places[i], size - places[i]);
    assert_ok(test_ctx(), decode("stray.jpg", longer, size + 3, &image));
    assert_non_null(strstr(test_warning(), "stray.jpg: JPEG: bytes that belong to nothing"));
    digest_of(&image, digest);
    assert_string_equal(digest, "cb171c951dd7e8e975cfdf1012f1998afc0e46c2ac27d3cbeb56e0302378ebb5");
  }
  free(longer);
  free(bytes);
  image_free(&image);
}

/* stb's JPEG of a soft picture, under the name of a PNG. */
static void jpeg_reads_back(void **state) {
  (void)state;
  enum { W = 33, H = 21 };
  static uint8_t pixels[H][W][3];
  struct image image = {0};
  double sum = 0;
  for (int y = 0; y < H; y++)
    for (int x = 0; x < W; x++)
      for (int c = 0; c < 3; c++) pixels[y][x][c] = (uint8_t)(40 + 5 * x + (c - 1) * 4 * y);
  assert_ok(test_ctx(),
            ditmoe_image_write(test_ctx(), temporary_path("a.jpg"), pixels[0][0], W, H, NULL));
  assert_int_equal(rename(temporary_path("a.jpg"), temporary_path("b.png")), 0);
  assert_ok(test_ctx(), image_read(test_ctx(), temporary_path("b.png"), &image));
  assert_int_equal(image.width, W);
  assert_int_equal(image.height, H);
  for (int i = 0; i < W * H * 3; i++) sum += abs(image.pixels[i] - (&pixels[0][0][0])[i]);
  assert_within("mean error of a pixel", sum / (W * H * 3), 2);
  image_free(&image);
}

static const char *const damaged[] = {"png/sample.png",     "png/palette_4bit_trns.png",
                                      "png/bit_1x1.png",    "jpeg/progressive_422.jpg",
                                      "jpeg/fancy_420.jpg", "jpeg/restart_444.jpg"};

static char *corpus_bytes(const char *name, size_t *size) {
  char relative[96];
  snprintf(relative, sizeof relative, "tests/fuzz/corpus/%s", name);
  return file_bytes(source_path(relative), size);
}

/* No prefix of an image is an image. */
static void cut_files_are_errors(void **state) {
  (void)state;
  struct image image = {0};
  for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
    size_t size;
    char *bytes = corpus_bytes(damaged[i], &size);
    for (size_t length = 0; length < size; length++) {
      uint8_t *cut = malloc(length + !length); /* exactly, for the sanitizers */
      assert_non_null(cut);
      memcpy(cut, bytes, length);
      assert_fails(test_ctx(), DITMOE_FORMAT, "cut.png", decode("cut.png", cut, length, &image));
      free(cut);
    }
    assert_ok(test_ctx(), decode("whole", bytes, size, &image));
    free(bytes);
  }
  image_free(&image);
}

/* PNG has a checksum over everything; in a JPEG much passes for an image. */
static void changed_bytes_are_errors(void **state) {
  (void)state;
  struct image image = {0};
  for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
    size_t size;
    char *bytes = corpus_bytes(damaged[i], &size);
    bool png = strncmp(damaged[i], "png/", 4) == 0;
    for (size_t at = 0; at < size; at++) {
      bytes[at] ^= 0x21;
      enum ditmoe_status status = decode("changed", bytes, size, &image);
      if (status != DITMOE_FORMAT && (png || status != DITMOE_OK))
        fail_msg("%s with byte %zu changed: status %d", damaged[i], at, (int)status);
      bytes[at] ^= 0x21;
    }
    free(bytes);
  }
  image_free(&image);
}

static void put_be32(char *out, uint32_t value) {
  for (int i = 0; i < 4; i++) out[i] = (char)(value >> (24 - 8 * i));
}

/* Overwrites the size in a PNG's header, with the right checksum. */
static void set_png_size(char *png, uint32_t width, uint32_t height) {
  put_be32(png + 16, width);
  put_be32(png + 20, height);
  put_be32(png + 29, (uint32_t)crc32(0, (const Bytef *)png + 12, 17));
}

static void claims_of_size_are_checked(void **state) {
  (void)state;
  size_t size;
  struct image image = {0};
  char *png = corpus_bytes("png/png_good.png", &size);
  set_png_size(png, 65535, 65535);
  assert_fails(test_ctx(), DITMOE_FORMAT, "cannot hold", decode("x", png, size, &image));
  set_png_size(png, 65536, 1);
  assert_fails(test_ctx(), DITMOE_FORMAT, "IHDR", decode("x", png, size, &image));
  set_png_size(png, 20, 65535); /* might be */
  assert_fails(test_ctx(), DITMOE_FORMAT, "cannot hold", decode("x", png, size, &image));
  free(png);
  assert_null(image.pixels);
  /* Enough bytes for anything: after the end, where nobody looks. */
  png = calloc(1, 16 << 20);
  assert_non_null(png);
  char *good = corpus_bytes("png/png_good.png", &size);
  memcpy(png, good, size);
  free(good);
  set_png_size(png, 65535, 65535);
  assert_fails(test_ctx(), DITMOE_FORMAT, "all pixels", decode("x", png, 16 << 20, &image));
  free(png);
  assert_null(image.pixels);
  char *jpeg = corpus_bytes("jpeg/grey.jpg", &size);
  char *frame = memmem(jpeg, size, "\xff\xc0", 2);
  assert_non_null(frame);
  put_be32(frame + 5, 65500u << 16 | 65500);
  assert_fails(test_ctx(), DITMOE_FORMAT, "all pixels", decode("x", jpeg, size, &image));
  assert_null(image.pixels);
  put_be32(frame + 5, 900u << 16 | 900);
  assert_fails(test_ctx(), DITMOE_FORMAT, "JPEG", decode("x", jpeg, size, &image));
  frame[9] = 2;
  assert_fails(test_ctx(), DITMOE_FORMAT, "JPEG", decode("x", jpeg, size, &image));
  free(jpeg);
  image_free(&image);
}

/* Appends a chunk, whose header may claim more than `size` bytes. */
static size_t put_chunk(char *out, const char *kind, const void *bytes, size_t size,
                        uint32_t claim) {
  put_be32(out, claim);
  memcpy(out + 4, kind, 4);
  memcpy(out + 8, bytes, size);
  put_be32(out + 8 + size, (uint32_t)crc32(0, (const Bytef *)out + 4, (uInt)size + 4));
  return size + 12;
}

/* A text that is said to have 2 GB, and twenty that inflate to 7 MB each. */
static void huge_texts_are_refused(void **state) {
  (void)state;
  enum { SIGNATURE_AND_IHDR = 33, TEXTS = 20, BYTES = 7 << 20, ROOM = 16 << 10 };
  size_t size, whole;
  struct image image = {0};
  char value[16], *png = corpus_bytes("png/png_good.png", &size);
  uint8_t *text = malloc(BYTES), *packed = malloc(ROOM);
  char *out = malloc(size + TEXTS * ROOM);
  uLongf length = ROOM - 12 - 8;
  assert_true(text && packed && out);
  memcpy(packed, "huge\0\0", 6);
  memset(text, 'a', BYTES);
  assert_int_equal(compress2(packed + 6, &length, text, BYTES, 9), Z_OK);
  for (int bomb = 0; bomb < 2; bomb++) {
    memcpy(out, png, whole = SIGNATURE_AND_IHDR);
    if (!bomb) whole += put_chunk(out + whole, "tEXt", "huge\0a", 6, 0x7a000000);
    for (int i = 0; bomb && i < TEXTS; i++)
      whole += put_chunk(out + whole, "zTXt", packed, length + 6, (uint32_t)length + 6);
    memcpy(out + whole, png + SIGNATURE_AND_IHDR, size - SIGNATURE_AND_IHDR);
    whole += size - SIGNATURE_AND_IHDR;
    assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path("huge.png"), out, whole));
    assert_fails(test_ctx(), DITMOE_FORMAT, "huge.png",
                 ditmoe_image_text(test_ctx(), temporary_path("huge.png"), "huge", value, 16));
    assert_int_equal(decode("huge.png", out, whole, &image), bomb ? DITMOE_OK : DITMOE_FORMAT);
  }
  free(png), free(text), free(packed), free(out);
  image_free(&image);
}

/* The largest side, from 12 kB. */
static void wide_images_are_read(void **state) {
  (void)state;
  enum { W = 65535, H = 3 };
  uint8_t *pixels = malloc(W * H * 3);
  struct image image = {0};
  assert_non_null(pixels);
  for (int i = 0; i < W * H * 3; i++) pixels[i] = (uint8_t)(i / 1000);
  assert_ok(test_ctx(),
            ditmoe_image_write(test_ctx(), temporary_path("wide.png"), pixels, W, H, NULL));
  assert_ok(test_ctx(), image_read(test_ctx(), temporary_path("wide.png"), &image));
  assert_memory_equal(image.pixels, pixels, W * H * 3);
  free(pixels);
  image_free(&image);
}

/* The n-th allocation fails, for every n. */
static void no_memory_leaves_nothing(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
    size_t size;
    char *bytes = corpus_bytes(damaged[i], &size);
    int fired = 1;
    for (int64_t n = 0; fired; n++) {
      struct ditmoe_ctx *ctx = faulty_ctx(n);
      struct image image = {0};
      enum ditmoe_status status = image_read_bytes(ctx, "x", span_of(bytes, size), &image);
      fired = faulty_fired();
      assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
      image_free(&image);
      assert_int_equal(faulty_held(), 0);
      ditmoe_ctx_destroy(ctx);
    }
    free(bytes);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pixels_are_those_of_pil),     cmocka_unit_test(expected_pixels_are_read),
      cmocka_unit_test(bad_files_are_named),         cmocka_unit_test(deep_grey_is_scaled),
      cmocka_unit_test(stray_bytes_are_passed_over), cmocka_unit_test(jpeg_reads_back),
      cmocka_unit_test(cut_files_are_errors),        cmocka_unit_test(changed_bytes_are_errors),
      cmocka_unit_test(claims_of_size_are_checked),  cmocka_unit_test(huge_texts_are_refused),
      cmocka_unit_test(wide_images_are_read),        cmocka_unit_test(no_memory_leaves_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
