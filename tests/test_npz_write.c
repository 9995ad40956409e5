/* Writing NumPy's files: round trips, exact bytes, files beyond 4 GiB, failures; and streaming what
 * was written. */
#include "support.h"

#include "base/span.h"
#include "io/npz.h"
#include "io/npz_write.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COUNT = 5, HEIGHT = 7, WIDTH = 6, IMAGE = HEIGHT * WIDTH * 3 };
static const int64_t image_shape[] = {COUNT, HEIGHT, WIDTH, 3}, label_shape[] = {COUNT};

static uint8_t pixel(size_t i) { return (uint8_t)(i * i % 251); }

/* What a sampling run writes: images one by one, then labels. */
static enum ditmoe_status write_run(struct ditmoe_ctx *ctx, const char *path) {
  struct ditmoe_npz *npz;
  uint8_t image[IMAGE];
  enum ditmoe_status status;
  TRY(ditmoe_npz_create(ctx, path, &npz));
  TRY_DONE(ditmoe_npz_array(ctx, npz, "arr_0", "u1", 4, image_shape));
  for (size_t i = 0; i < COUNT; i++) {
    for (size_t j = 0; j < IMAGE; j++) image[j] = pixel(i * IMAGE + j);
    TRY_DONE(ditmoe_npz_write(ctx, npz, image, IMAGE));
  }
  TRY_DONE(ditmoe_npz_array(ctx, npz, "arr_1", "i8", 1, label_shape));
  for (int64_t i = 0; i < COUNT; i++) {
    int64_t label = 1 - i;
    TRY_DONE(ditmoe_npz_write(ctx, npz, &label, sizeof label));
  }
  return ditmoe_npz_commit(ctx, npz);
done:
  ditmoe_npz_abandon(ctx, npz);
  return status;
}

static struct npz *open_npz(const char *path) {
  struct npz *npz;
  assert_ok(test_ctx(), npz_open(test_ctx(), path, &npz));
  return npz;
}

static void test_round_trip(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const char *path = temporary_path("run.npz"), *again = temporary_path("again.npz");
  assert_ok(ctx, write_run(ctx, path));
  assert_ok(ctx, write_run(ctx, again));
  size_t size, other_size;
  char *bytes = file_bytes(path, &size), *other = file_bytes(again, &other_size);
  assert_int_equal(size, other_size);
  assert_memory_equal(bytes, other, size);
  free(bytes);
  free(other);
  struct npz *npz = open_npz(path);
  assert_int_equal(npz_count(npz), 2);
  const struct npz_array *images = npz_find(npz, "arr_0"), *labels = npz_find(npz, "arr_1");
  assert_string_equal(images->type, "|u1");
  assert_string_equal(labels->type, "<i8");
  assert_int_equal(images->rank, 4);
  assert_memory_equal(images->shape, image_shape, sizeof image_shape);
  uint8_t pixels[COUNT * IMAGE];
  double values[COUNT];
  assert_ok(ctx, npz_stream_u8(ctx, npz, images, pixels, sizeof pixels));
  assert_ok(ctx, npz_read_f64(ctx, npz, labels, values));
  for (size_t i = 0; i < sizeof pixels; i++) assert_int_equal(pixels[i], pixel(i));
  for (int i = 0; i < COUNT; i++) assert_true(values[i] == 1 - i);
  npz_close(npz);
}

/* Pieces of any size; another array, a rewinding and a failure start anew. */
static void test_stream(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const char *path = temporary_path("run.npz");
  assert_ok(ctx, write_run(ctx, path));
  struct npz *npz = open_npz(path);
  const struct npz_array *images = npz_find(npz, "arr_0");
  uint8_t pixels[COUNT * IMAGE + 1];
  double values[COUNT];
  for (size_t piece = 1; piece < 100; piece += 7) {
    npz_rewind(npz);
    for (size_t at = 0, n; at < COUNT * IMAGE; at += n) {
      n = COUNT * IMAGE - at < piece ? COUNT * IMAGE - at : piece;
      assert_ok(ctx, npz_stream_u8(ctx, npz, images, pixels + at, n));
    }
    for (size_t i = 0; i < COUNT * IMAGE; i++) assert_int_equal(pixels[i], pixel(i));
  }
  assert_fails(ctx, DITMOE_FORMAT, "run.npz: array arr_0: more bytes",
               npz_stream_u8(ctx, npz, images, pixels, 1));
  assert_ok(ctx, npz_stream_u8(ctx, npz, images, pixels, 2));
  assert_int_equal(pixels[1], pixel(1));
  assert_ok(ctx, npz_read_f64(ctx, npz, npz_find(npz, "arr_1"), values));
  assert_ok(ctx, npz_stream_u8(ctx, npz, images, pixels, 2));
  assert_int_equal(pixels[1], pixel(1));
  npz_close(npz);
}

/* A wrong byte shows when the last one is read. */
static void test_damage(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const char *path = temporary_path("run.npz");
  assert_ok(ctx, write_run(ctx, path));
  size_t size;
  char *bytes = file_bytes(path, &size);
  struct npz *npz;
  uint8_t pixels[COUNT * IMAGE];
  bytes[300] ^= 1;
  assert_ok(ctx, npz_open_bytes(ctx, "damaged", bytes, size, &npz));
  const struct npz_array *images = npz_find(npz, "arr_0");
  assert_ok(ctx, npz_stream_u8(ctx, npz, images, pixels, sizeof pixels - 1));
  assert_fails(ctx, DITMOE_FORMAT, "damaged: zip entry arr_0.npy: CRC mismatch",
               npz_stream_u8(ctx, npz, images, pixels, 1));
  npz_close(npz);
  free(bytes);
}

/* Byte by byte what NumPy 2 writes. */
static void test_header(void **state) {
  (void)state;
  static const struct {
    const char *dtype;
    int rank;
    int64_t shape[4];
    const char *text;
    size_t size, bytes;
  } cases[] = {
      {"u1",
       4,
       {50000, 256, 256, 3},
       "'|u1', 'fortran_order': False, 'shape': (50000, 256, 256, 3), }",
       128,
       9830400000},
      {"f8", 0, {0}, "'<f8', 'fortran_order': False, 'shape': (), }", 128, 8},
      {"i8", 1, {7}, "'<i8', 'fortran_order': False, 'shape': (7,), }", 128, 56},
      {"f4", 2, {0, 3}, "'<f4', 'fortran_order': False, 'shape': (0, 3), }", 128, 0},
  };
  char header[NPY_HEADER_MAX];
  uint64_t bytes;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t length = strlen(cases[i].text), size = cases[i].size;
    assert_int_equal(npy_header(header, cases[i].dtype, cases[i].rank, cases[i].shape, &bytes),
                     size);
    assert_int_equal(bytes, cases[i].bytes);
    assert_memory_equal(header, "\x93NUMPY\1\0v\0{'descr': ", 20);
    assert_memory_equal(header + 20, cases[i].text, length);
    for (size_t at = 20 + length; at < size; at++)
      assert_int_equal(header[at], at == size - 1 ? '\n' : ' ');
  }
  /* 8 dimensions of 19 digits, all but the first 0, so that they are not too large. */
  const int64_t wide[8] = {0, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, 1};
  assert_int_equal(npy_header(header, "u1", 8, wide, &bytes) % 64, 0);
  static const struct {
    const char *dtype;
    int rank;
    int64_t shape[2];
  } refused[] = {
      {"u2", 1, {1}},           {"", 1, {1}},   {"<f4", 1, {1}},    {" u", 1, {1}},
      {"f4", -1, {1}},          {"f4", 9, {1}}, {"f4", 2, {1, -1}}, {"f8", 1, {INT64_MAX / 4}},
      {"u1", 2, {INT64_MAX, 2}}};
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
    assert_int_equal(
        npy_header(header, refused[i].dtype, refused[i].rank, refused[i].shape, &bytes), 0);
}

static void test_npy(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  static const float values[6] = {0.5f, -1, 2, 3, 4, 1e-30f};
  const char *path = temporary_path("features.npy");
  double read[6];
  assert_ok(ctx, npy_write(ctx, path, "f4", 2, (const int64_t[]){3, 2}, values));
  struct npz *npz = open_npz(path);
  assert_int_equal(npz_at(npz, 0)->shape[0], 3);
  assert_ok(ctx, npz_read_f64(ctx, npz, npz_at(npz, 0), read));
  for (int i = 0; i < 6; i++) assert_true(read[i] == (double)values[i]);
  npz_close(npz);
  assert_ok(ctx, npy_write(ctx, path, "f8", 1, (const int64_t[]){0}, NULL));
  npz = open_npz(path);
  assert_int_equal(npz_at(npz, 0)->elements, 0);
  npz_close(npz);
  assert_fails(ctx, DITMOE_USAGE, "type f2", npy_write(ctx, path, "f2", 0, NULL, values));
  assert_fails(ctx, DITMOE_OUTPUT, "No such file",
               npy_write(ctx, "/nonexistent/a.npy", "f4", 0, NULL, values));
}

/* Beyond 4 GiB. */

static uint64_t number_at(FILE *file, uint64_t offset, unsigned width) {
  uint8_t bytes[8];
  assert_int_equal(fseeko(file, (off_t)offset, SEEK_SET), 0);
  assert_int_equal(fread(bytes, 1, width, file), width);
  return le_number(bytes, width);
}

enum { PREFIX = 30 + 9 + 20 + 128 }; /* local header, "arr_0.npy", zip64 field, NumPy's header */
#define WHOLE (INT64_C(5) << 30)

static void write_large(const char *path) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_npz *npz;
  const int64_t shape[] = {WHOLE / 65536, 256, 256}, labels[] = {7, -8};
  assert_ok(ctx, ditmoe_npz_create(ctx, path, &npz));
  assert_ok(ctx, ditmoe_npz_array(ctx, npz, "arr_0", "u1", 3, shape));
  assert_ok(ctx, ditmoe_npz_write(ctx, npz, "begin", 5));
  assert_ok(ctx, npz_write_hole(ctx, npz, WHOLE - 5));
  assert_ok(ctx, ditmoe_npz_array(ctx, npz, "arr_1", "i8", 1, (const int64_t[]){2}));
  assert_ok(ctx, ditmoe_npz_write(ctx, npz, labels, sizeof labels));
  assert_ok(ctx, ditmoe_npz_commit(ctx, npz));
}

static void test_large_headers(void **state) {
  (void)state;
  const char *path = temporary_path("large.npz");
  write_large(path);
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  assert_int_equal(number_at(file, 4, 2), 45);
  assert_int_equal(number_at(file, 18, 4), 0xffffffff);
  assert_int_equal(number_at(file, 22, 4), 0xffffffff);
  assert_int_equal(number_at(file, 39, 4), 0x100001); /* the zip64 field, 16 bytes */
  assert_int_equal(number_at(file, 43, 8), WHOLE + 128);
  assert_int_equal(number_at(file, 51, 8), WHOLE + 128);
  uint64_t second = PREFIX + WHOLE;
  assert_int_equal(number_at(file, second, 4), 0x04034b50);
  assert_int_equal(number_at(file, second + 4, 2), 20); /* small itself */
  assert_int_equal(number_at(file, second + 18, 4), 128 + 16);
  uint64_t first_central = second + 30 + 9 + 128 + 16, second_central = first_central + 46 + 9 + 20;
  assert_int_equal(number_at(file, first_central, 4), 0x02014b50);
  assert_int_equal(number_at(file, first_central + 16, 4), number_at(file, 14, 4)); /* CRC */
  assert_int_equal(number_at(file, first_central + 42, 4), 0);                      /* offset */
  assert_int_equal(number_at(file, second_central, 4), 0x02014b50);
  assert_int_equal(number_at(file, second_central + 42, 4), 0xffffffff);
  assert_int_equal(number_at(file, second_central + 55, 4), 0x80001);
  assert_int_equal(number_at(file, second_central + 59, 8), second);
  uint64_t end = second_central + 46 + 9 + 12;
  assert_int_equal(number_at(file, end, 4), 0x06064b50);
  assert_int_equal(number_at(file, end + 48, 8), first_central);
  assert_int_equal(number_at(file, end + 56 + 8, 8), end);
  assert_int_equal(number_at(file, end + 76 + 16, 4), 0xffffffff);
  fseeko(file, 0, SEEK_END);
  assert_int_equal(ftello(file), end + 98);
  fclose(file);
}

static void test_large_read(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const char *path = temporary_path("large.npz");
  write_large(path);
  struct npz *npz = open_npz(path);
  const struct npz_array *images = npz_find(npz, "arr_0");
  uint8_t bytes[65536];
  double labels[2];
  assert_int_equal(images->elements, WHOLE);
  assert_ok(ctx, npz_stream_u8(ctx, npz, images, bytes, sizeof bytes));
  assert_memory_equal(bytes, "begin", 6);
  assert_ok(ctx, npz_read_f64(ctx, npz, npz_find(npz, "arr_1"), labels));
  assert_true(labels[0] == 7 && labels[1] == -8);
  assert_fails(ctx, DITMOE_FORMAT, "arr_0: it is too large to be read as a whole",
               npz_read_f64(ctx, npz, images, labels));
  npz_close(npz);
}

/* Memory that is resident, mapped files included. */
static int64_t resident(void) {
  FILE *file = fopen("/proc/self/statm", "r");
  long total = 0, pages = 0;
  assert_non_null(file);
  assert_int_equal(fscanf(file, "%ld %ld", &total, &pages), 2);
  fclose(file);
  return pages * sysconf(_SC_PAGESIZE);
}

/* A long stream takes no more memory than a short one, and its CRC is that of all its bytes. */
static void test_constant_memory(void **state) {
  (void)state;
  enum { SIZE = 200 << 20, PIECE = 1 << 20 };
  struct ditmoe_ctx *ctx = test_ctx();
  const char *path = temporary_path("long.npz");
  struct ditmoe_npz *writer;
  assert_ok(ctx, ditmoe_npz_create(ctx, path, &writer));
  assert_ok(ctx, ditmoe_npz_array(ctx, writer, "arr_0", "u1", 1, (const int64_t[]){SIZE}));
  assert_ok(ctx, ditmoe_npz_write(ctx, writer, "x", 1));
  assert_ok(ctx, npz_write_hole(ctx, writer, SIZE - 2));
  assert_ok(ctx, ditmoe_npz_write(ctx, writer, "y", 1));
  assert_ok(ctx, ditmoe_npz_commit(ctx, writer));
  struct npz *npz = open_npz(path);
  uint8_t *bytes = malloc(PIECE);
  int64_t before = 0;
  for (int i = 0; i < SIZE / PIECE; i++) {
    assert_ok(ctx, npz_stream_u8(ctx, npz, npz_at(npz, 0), bytes, PIECE));
    if (i == 10) before = resident();
    if (i > 10) assert_true(resident() - before < 16 << 20);
  }
  assert_int_equal(bytes[PIECE - 1], 'y');
  free(bytes);
  npz_close(npz);
}

/* Failures. */

static void test_misuse(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_npz *npz;
  mkdir(temporary_path("misuse"), 0777);
  const char *path = temporary_path("misuse/a.npz");
  const int64_t shape[] = {4}, wide[] = {-1};
  assert_ok(ctx, ditmoe_npz_create(ctx, path, &npz));
  assert_fails(ctx, DITMOE_FAILED, "1 bytes more", ditmoe_npz_write(ctx, npz, "1", 1));
  assert_fails(ctx, DITMOE_USAGE, "name", ditmoe_npz_array(ctx, npz, "", "u1", 1, shape));
  assert_fails(ctx, DITMOE_USAGE, "name", ditmoe_npz_array(ctx, npz, "a\n", "u1", 1, shape));
  assert_fails(ctx, DITMOE_USAGE, "type u2", ditmoe_npz_array(ctx, npz, "a", "u2", 1, shape));
  assert_fails(ctx, DITMOE_USAGE, "array a", ditmoe_npz_array(ctx, npz, "a", "u1", 1, wide));
  assert_ok(ctx, ditmoe_npz_array(ctx, npz, "\xc3\xbc", "u1", 1, shape));
  assert_ok(ctx, ditmoe_npz_write(ctx, npz, "123", 3));
  assert_fails(ctx, DITMOE_FAILED, "1 bytes more", ditmoe_npz_write(ctx, npz, "12", 2));
  assert_fails(ctx, DITMOE_FAILED, "\xc3\xbc.npy lacks 1 bytes",
               ditmoe_npz_array(ctx, npz, "b", "u1", 1, shape));
  assert_ok(ctx, ditmoe_npz_write(ctx, npz, "4", 1));
  assert_fails(ctx, DITMOE_USAGE, "name", ditmoe_npz_array(ctx, npz, "\xc3\xbc", "u1", 1, shape));
  assert_ok(ctx, ditmoe_npz_array(ctx, npz, "b", "u1", 1, shape));
  assert_fails(ctx, DITMOE_FAILED, "b.npy lacks 4 bytes", ditmoe_npz_commit(ctx, npz));
  ditmoe_npz_abandon(ctx, NULL);
  assert_int_equal(files_in(temporary_path("misuse")), 0);
}

/* A limit on file sizes stands for a full disk: it is hit in the images, in a buffered rest, and in
 * the directory. */
static void test_full_disk(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  static const rlim_t limits[] = {10, 300, 700, 1000};
  struct rlimit old;
  mkdir(temporary_path("full"), 0777);
  getrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, SIG_IGN);
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
    struct rlimit limit = {.rlim_cur = limits[i], .rlim_max = old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    enum ditmoe_status status = write_run(ctx, temporary_path("full/run.npz"));
    setrlimit(RLIMIT_FSIZE, &old);
    assert_fails(ctx, DITMOE_OUTPUT, "run.npz: cannot be written", status);
    assert_int_equal(files_in(temporary_path("full")), 0);
  }
}

static void test_no_memory(void **state) {
  (void)state;
  bool fired = true;
  mkdir(temporary_path("memory"), 0777);
  for (int64_t at = 0; fired; at++) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    enum ditmoe_status status = write_run(ctx, temporary_path("memory/run.npz"));
    fired = faulty_fired();
    assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
    assert_int_equal(files_in(temporary_path("memory")), !fired);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip), cmocka_unit_test(test_stream),
      cmocka_unit_test(test_damage),     cmocka_unit_test(test_header),
      cmocka_unit_test(test_npy),        cmocka_unit_test(test_large_headers),
      cmocka_unit_test(test_large_read), cmocka_unit_test(test_constant_memory),
      cmocka_unit_test(test_misuse),     cmocka_unit_test(test_full_disk),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
