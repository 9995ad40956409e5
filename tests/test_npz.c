/* Reading NumPy's files: the recorded set, every type and order, crafted headers, streams. */
#include "support.h"

#include "io/json.h"
#include "io/npz.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool ends_with(const char *text, const char *ending) {
  size_t length = strlen(text), size = strlen(ending);
  return length >= size && strcmp(text + length - size, ending) == 0;
}

static struct npz *open_npz(const char *path) {
  struct npz *npz;
  assert_ok(test_ctx(), npz_open(test_ctx(), path, &npz));
  return npz;
}

static const struct npz_array *array_of(const struct npz *npz, const char *name) {
  const struct npz_array *array = npz_find(npz, name);
  if (!array) fail_msg("no array %s", name);
  return array;
}

/* free() the result. */
static double *values_of(struct npz *npz, const char *name) {
  const struct npz_array *array = array_of(npz, name);
  double *values = malloc(((size_t)array->elements + 1) * sizeof *values);
  assert_ok(test_ctx(), npz_read_f64(test_ctx(), npz, array, values));
  return values;
}

static enum ditmoe_status read_all(struct ditmoe_ctx *ctx, struct npz *npz) {
  enum ditmoe_status status = DITMOE_OK;
  for (int i = 0; i < npz_count(npz) && status == DITMOE_OK; i++) {
    const struct npz_array *array = npz_at(npz, i);
    double *values = malloc(((size_t)array->elements + 1) * sizeof *values);
    uint8_t *bytes = (uint8_t *)values;
    status = npz_read_f64(ctx, npz, array, values);
    if (status == DITMOE_OK && array->dtype == DT_U8)
      status = npz_stream_u8(ctx, npz, array, bytes, (size_t)array->elements);
    free(values);
  }
  return status;
}

/* Opens a file and reads all of it. */
static enum ditmoe_status read_file(struct ditmoe_ctx *ctx, const char *path) {
  struct npz *npz = NULL;
  enum ditmoe_status status = npz_open(ctx, path, &npz);
  if (status == DITMOE_OK) status = read_all(ctx, npz);
  npz_close(npz);
  return status;
}

/* The same of a copy that ends where its memory ends, so that a sanitizer sees a read beyond it. */
static enum ditmoe_status read_copy(const char *bytes, size_t size) {
  struct npz *npz = NULL;
  char *copy = malloc(size ? size : 1);
  if (size) memcpy(copy, bytes, size);
  enum ditmoe_status status = npz_open_bytes(test_ctx(), "copy", copy, size, &npz);
  if (status == DITMOE_OK) status = read_all(test_ctx(), npz);
  npz_close(npz);
  free(copy);
  return status;
}

/* The recorded set. */

static const struct {
  const char *file, *words;
} recorded[] = {
    {"npy_object.npy", "pickle"},
    {"npy_magic.npy", "neither a .npz nor a .npy"},
    {"npy_hdrlen.npy", "header"},
    {"npy_trunc.npy", "needs 192 bytes of <f4, but it has 172"},
    {"npy_struct.npy", "structures"},
    {"npy_str.npy", "texts"},
    {"npy_overflow.npy", "too large"},
    {"npy_neg.npy", "negative"},
    {"npy_badhdr.npy", "dictionary"},
    {"npy_evalhdr.npy", "dictionary"},
    {"npz_bad_crc.npz", "sigma.npy: CRC"},
    {"npz_trunc.npz", "truncated zip archive"},
    {"npz_object.npz", "array arr_0: it (|O) holds Python objects (a pickle)"},
    {"empty.npz", "is empty"},
    {"empty.npy", "is empty"},
};
enum { RECORDED = sizeof recorded / sizeof *recorded };

static void assert_expected_array(const char *path) {
  struct npz *npz = open_npz(path);
  struct ditmoe_checkpoint *expected = checkpoint_of(fixture_path("bad/npy_expected.safetensors"));
  int64_t count;
  double *a = tensor_f64(expected, "a", &count), *values = values_of(npz, "");
  const struct npz_array *array = npz_at(npz, 0);
  assert_int_equal(array->elements, count);
  assert_int_equal(array->rank, 2);
  assert_int_equal(array->shape[0], 6);
  assert_int_equal(array->shape[1], 8);
  assert_memory_equal(values, a, (size_t)count * sizeof *a);
  free(a);
  free(values);
  ditmoe_checkpoint_close(expected);
  npz_close(npz);
}

/* Files whose faults are not in the arrays but in what they are used for are read. */
static void test_recorded_set(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  cJSON *list;
  const cJSON *entry;
  int refused = 0;
  assert_ok(ctx, json_read(ctx, fixture_path("bad/expected.json"), &list));
  cJSON_ArrayForEach(entry, list) {
    const char *file = cJSON_GetObjectItem(entry, "file")->valuestring;
    if (!ends_with(file, ".npy") && !ends_with(file, ".npz")) continue;
    char path[300];
    int which = 0;
    snprintf(path, sizeof path, "bad/%s", file);
    while (which < RECORDED && strcmp(recorded[which].file, file) != 0) which++;
    if (which == RECORDED) {
      assert_ok(ctx, read_file(ctx, fixture_path(path)));
      if (ends_with(file, ".npy")) assert_expected_array(fixture_path(path));
      continue;
    }
    assert_int_equal(cJSON_GetObjectItem(entry, "exit")->valueint, DITMOE_FORMAT);
    assert_fails(ctx, DITMOE_FORMAT, recorded[which].words, read_file(ctx, fixture_path(path)));
    assert_non_null(strstr(ditmoe_errmsg(ctx), file));
    refused++;
  }
  cJSON_Delete(list);
  assert_int_equal(refused, RECORDED);
  assert_int_not_equal(access("PWNED_BY_CHECKPOINT", F_OK), 0);
}

/* Statistics in double, deflated and stored, are those of the recorded features. */
static void test_statistics(void **state) {
  (void)state;
  static const char *const files[][2] = {{"metrics/stats_A_pytorch_fid.npz", "A"},
                                         {"metrics/stats_B_pytorch_fid_stored.npz", "B"}};
  struct ditmoe_checkpoint *features = checkpoint_of(fixture_path("metrics/features.safetensors"));
  for (int i = 0; i < 2; i++) {
    struct npz *npz = open_npz(fixture_path(files[i][0]));
    int64_t d = array_of(npz, "mu")->shape[0], count;
    const struct npz_array *sigma = array_of(npz, "sigma");
    double *x = tensor_f64(features, files[i][1], &count), *mu = values_of(npz, "mu");
    assert_int_equal(sigma->rank, 2);
    assert_int_equal(sigma->shape[0], d);
    assert_int_equal(sigma->shape[1], d);
    double *covariance = values_of(npz, "sigma");
    int64_t n = count / d;
    for (int64_t j = 0; j < d; j++) {
      double mean = 0, variance = 0;
      for (int64_t k = 0; k < n; k++) mean += x[k * d + j] / (double)n;
      for (int64_t k = 0; k < n; k++) {
        double difference = x[k * d + j] - mean;
        variance += difference * difference / (double)(n - 1);
      }
      assert_within("mean", fabs(mean - mu[j]), 1e-5);
      assert_within("variance", fabs(variance - covariance[j * d + j]), 1e-5);
    }
    free(x);
    free(mu);
    free(covariance);
    npz_close(npz);
  }
  ditmoe_checkpoint_close(features);
}

/* The same arrays, stored in double and deflated in single precision. */
static void test_deflated(void **state) {
  (void)state;
  static const char *const names[] = {"arr_0", "mu", "mu_s", "sigma", "sigma_s"};
  struct npz *a = open_npz(fixture_path("metrics/adm_ref_batch.npz"));
  struct npz *b = open_npz(fixture_path("metrics/adm_ref_batch_float32.npz"));
  assert_int_equal(npz_count(a), 5);
  for (int i = 0; i < 5; i++) {
    assert_string_equal(npz_at(a, i)->name, names[i]);
    double *x = values_of(a, names[i]), *y = values_of(b, names[i]);
    assert_string_equal(npz_at(a, i)->type, i ? "<f8" : "|u1");
    assert_string_equal(npz_at(b, i)->type, i ? "<f4" : "|u1");
    for (int64_t j = 0; j < npz_at(a, i)->elements; j++)
      assert_true(isfinite(x[j]) && (float)x[j] == (float)y[j]);
    free(x);
    free(y);
  }
  npz_close(a);
  npz_close(b);
}

/* Files that NumPy wrote. */

#define CORPUS(name) source_path("tests/fuzz/corpus/npz/" name)

static void test_other_arrays(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct npz *npz = open_npz(CORPUS("object_beside.npz"));
  static const char *const refused[][2] = {
      {"a", "object_beside.npz: array a: it (|O) holds Python objects (a pickle)"},
      {"c", "array c: it (<U2) holds texts"},
      {"d", "array d: it ([('x', '<f4'), ('y', '<i4')]) holds structures"}};
  uint8_t byte;
  double value;
  for (int i = 0; i < 3; i++) {
    const struct npz_array *array = array_of(npz, refused[i][0]);
    assert_int_equal(array->dtype, DT_COUNT);
    assert_fails(ctx, DITMOE_FORMAT, refused[i][1], npz_read_f64(ctx, npz, array, &value));
    assert_fails(ctx, DITMOE_FORMAT, refused[i][1], npz_stream_u8(ctx, npz, array, &byte, 1));
  }
  double *values = values_of(npz, "b");
  for (int i = 0; i < 6; i++) assert_within("b", fabs(values[i] - (0.4 * i - 1)), 1e-15);
  free(values);
  assert_null(npz_find(npz, "arr_0"));
  assert_fails(ctx, DITMOE_FORMAT, "array b: its type is <f8 instead of |u1",
               npz_stream_u8(ctx, npz, array_of(npz, "b"), &byte, 1));
  npz_close(npz);
}

static void test_orders(void **state) {
  (void)state;
  struct npz *npz = open_npz(CORPUS("deflated.npz"));
  static const char *const orders[] = {"images", "fortran"};
  uint8_t bytes[60];
  for (int i = 0; i < 2; i++) {
    const struct npz_array *array = array_of(npz, orders[i]);
    double *values = values_of(npz, orders[i]);
    assert_int_equal(array->rank, 4);
    assert_int_equal(array->fortran, i);
    for (size_t at = 0; at < 60; at += 12)
      assert_ok(test_ctx(), npz_stream_u8(test_ctx(), npz, array, bytes + at, 12));
    for (int j = 0; j < 60; j++) assert_true(bytes[j] == j && values[j] == j);
    free(values);
  }
  double *half = values_of(npz, "half"), *big = values_of(npz, "big");
  double *labels = values_of(npz, "labels"), *zeros = values_of(npz, "zeros");
  assert_true(array_of(npz, "big")->swapped);
  for (int i = 0; i < 6; i++) {
    assert_within("half", fabs(half[i] - (0.4 * i - 1)), 5e-4);
    assert_within("big", fabs(big[i] - (0.4 * i - 1)), 1e-15);
    assert_true(i > 4 || labels[i] == i - 2);
  }
  for (int i = 0; i < 10000; i++) assert_true(zeros[i] == 0);
  free(half);
  free(big);
  free(labels);
  free(zeros);
  npz_close(npz);
}

static void test_variants(void **state) {
  (void)state;
  uint8_t bytes[60];
  struct npz *npz = open_npz(CORPUS("descriptor.npz"));
  assert_int_equal(array_of(npz, "empty")->elements, 0);
  assert_int_equal(array_of(npz, "empty")->shape[1], 3);
  assert_ok(test_ctx(), npz_stream_u8(test_ctx(), npz, array_of(npz, "empty"), bytes, 0));
  assert_ok(test_ctx(), npz_stream_u8(test_ctx(), npz, array_of(npz, "b"), bytes, 60));
  assert_int_equal(bytes[59], 59);
  npz_close(npz);
  npz = open_npz(CORPUS("python2.npy"));
  assert_int_equal(npz_count(npz), 1);
  assert_string_equal(npz_at(npz, 0)->name, "");
  assert_ok(test_ctx(), npz_stream_u8(test_ctx(), npz, npz_at(npz, 0), bytes, 60));
  assert_int_equal(bytes[59], 59);
  npz_close(npz);
  npz = open_npz(CORPUS("v3.npy"));
  double *values = values_of(npz, "");
  assert_true(values[0] == 0 && values[1] == 1 && values[2] == 2);
  free(values);
  npz_close(npz);
}

/* Crafted headers. */

/* A .npy file of version 1 with these bytes after its header; returns its size. */
static size_t make_npy(char *out, const char *header, const void *bytes, size_t size) {
  size_t length = strlen(header);
  memcpy(out, "\x93NUMPY\1\0", 8);
  out[8] = (char)(length & 0xff);
  out[9] = (char)(length >> 8);
  memcpy(out + 10, header, length);
  memcpy(out + 10 + length, bytes, size);
  return 10 + length + size;
}

static void test_types(void **state) {
  (void)state;
  static const struct {
    const char *type;
    size_t width;
    const char *bytes;
    double values[2];
  } cases[] = {
      {"|b1", 1, "\0\2", {0, 1}},
      {"|i1", 1, "\x7f\x80", {127, -128}},
      {"<u1", 1, "\0\xff", {0, 255}},
      {"<i2", 2, "\xff\xff\0\x80", {-1, -32768}},
      {">u2", 2, "\xff\xff\1\0", {65535, 256}},
      {"<f2", 2, "\0\x3c\1\0", {1, 0x1p-24}},
      {">i4", 4, "\xff\xff\xff\xfe\0\0\1\0", {-2, 256}},
      {"<u4", 4, "\xff\xff\xff\xff\0\1\0\0", {4294967295.0, 256}},
      {">f4", 4, "\x3f\x80\0\0\xff\x80\0\0", {1, -INFINITY}},
      {"<i8", 8, "\0\0\0\0\0\0\0\x80\1\0\0\0\0\0\0\0", {-0x1p63, 1}},
      {">u8", 8, "\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", {255 * 0x1p56, 1}},
      {"<f8", 8, "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\x80", {1, -0.0}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char header[100], file[200];
    double values[2];
    struct npz *npz;
    snprintf(header, sizeof header, "{\"shape\":(2,),'fortran_order':True,'descr':'%s'} \n",
             cases[i].type);
    size_t size = make_npy(file, header, cases[i].bytes, 2 * cases[i].width);
    assert_ok(test_ctx(), npz_open_bytes(test_ctx(), "file", file, size, &npz));
    assert_ok(test_ctx(), npz_read_f64(test_ctx(), npz, npz_at(npz, 0), values));
    assert_memory_equal(values, cases[i].values, sizeof values);
    npz_close(npz);
  }
}

static void test_headers(void **state) {
  (void)state;
#define HEADER(type, order, shape)                                                                 \
  "{'descr': " type ", 'fortran_order': " order ", 'shape': " shape ", }"
#define SHAPE(shape) HEADER("'|u1'", "False", shape)
#define TYPE(type)   HEADER(type, "False", "(6,)")
  static const char *const cases[][2] = {
      {SHAPE("(6,)"), NULL},
      {SHAPE("(2, 3)"), NULL},
      {SHAPE("(1,1,1,1,1,2,1,3)"), NULL},
      {SHAPE("(6)"), "not a tuple"},
      {SHAPE("6"), "not a tuple"},
      {SHAPE("(6"), "tuple of numbers"},
      {SHAPE("(,)"), "tuple of numbers"},
      {SHAPE("(2 3)"), "tuple of numbers"},
      {SHAPE("(2*3,)"), "tuple of numbers"},
      {SHAPE("(6.0,)"), "tuple of numbers"},
      {SHAPE("(True,)"), "tuple of numbers"},
      {SHAPE("(1,1,1,1,1,1,1,1,6)"), "8 dimensions"},
      {SHAPE("(-6,)"), "negative"},
      {SHAPE("()"), "needs 1 bytes of |u1, but it has 6"},
      {SHAPE("(0,)"), "needs 0 bytes"},
      {SHAPE("(7,)"), "needs 7 bytes"},
      {SHAPE("(5,)"), "needs 5 bytes"},
      {SHAPE("(99999999999999999999,)"), "too large"},
      {SHAPE("(9223372036854775807, 3)"), "too large"},
      {HEADER("'<f8'", "False", "(4611686018427387904,)"), "too large"},
      {TYPE("'<c8'"), "complex"},
      {TYPE("'<M8[ns]'"), "dates"},
      {TYPE("'|V6'"), "raw bytes"},
      {TYPE("'|S1'"), "texts"},
      {TYPE("'<f16'"), "not supported"},
      {TYPE("'|f4'"), "not supported"},
      {TYPE("'u1'"), "not supported"},
      {TYPE("''"), "not supported"},
      {TYPE("[('\x1b', '|u1')]"), "it ([('?', '|u1')]) holds structures"},
      {TYPE("('|u1', (2,))"), "structures"},
      {TYPE("[['|u1', (2,)]"), "dictionary"},
      {TYPE("[os]"), "dictionary"},
      {TYPE("'|u\\x31'"), "dictionary"},
      {TYPE("'|u1"), "dictionary"},
      {TYPE("1"), "dictionary"},
      {HEADER("'|u1'", "0", "(6,)"), "dictionary"},
      {SHAPE("(6,), 'shape': (6,)"), "dictionary"},
      {SHAPE("(6,), 'more': 1"), "dictionary"},
      {SHAPE("(6,)") "1", "dictionary"},
      {"{'descr': '|u1', 'shape': (6,)}", "dictionary"},
      {"{'descr': '|u1' 'fortran_order': False, 'shape': (6,)}", "dictionary"},
      {"{ ", "dictionary"},
      {"  ", "dictionary"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char file[300];
    size_t size = make_npy(file, cases[i][0], "\1\2\3\4\5\6", 6);
    if (cases[i][1])
      assert_fails(test_ctx(), DITMOE_FORMAT, cases[i][1], read_copy(file, size));
    else
      assert_ok(test_ctx(), read_copy(file, size));
  }
  char file[300];
  size_t size = make_npy(file, SHAPE("(6,)"), "\1\2\3\4\5\6", 6);
  file[6] = 4;
  assert_fails(test_ctx(), DITMOE_FORMAT, "no NumPy array", read_copy(file, size));
  file[6] = 2; /* the length of the header takes four bytes */
  assert_fails(test_ctx(), DITMOE_FORMAT, "absurd", read_copy(file, size));
  file[6] = 1, file[8] = 1, file[9] = 0;
  assert_fails(test_ctx(), DITMOE_FORMAT, "absurd", read_copy(file, size));
}

/* Broken files. */

enum { CONTROLS = 4 };

static const char *control(int i) {
  if (i == 0) return CORPUS("deflated.npz");
  if (i == 1) return CORPUS("descriptor.npz");
  return i == 2 ? CORPUS("v3.npy") : fixture_path("metrics/adm_sample_batch.npz");
}

static void test_truncation(void **state) {
  (void)state;
  for (int i = 0; i < CONTROLS; i++) {
    size_t size;
    char *bytes = file_bytes(control(i), &size);
    assert_ok(test_ctx(), read_copy(bytes, size));
    for (size_t less = 1; less <= size; less += less < 64 ? 1 : 17)
      assert_fails(test_ctx(), DITMOE_FORMAT, "copy", read_copy(bytes, size - less));
    free(bytes);
  }
}

/* Any outcome but a crash is right. */
static void test_mutation(void **state) {
  (void)state;
  uint32_t random = 1;
  for (int i = 0; i < CONTROLS; i++) {
    size_t size;
    char *bytes = file_bytes(control(i), &size);
    for (int round = 0; round < 2000; round++) {
      random = random * 1664525u + 1013904223u;
      size_t at = (random >> 4) % size;
      char old = bytes[at];
      bytes[at] = (char)(random >> 24);
      struct npz *npz = NULL;
      if (npz_open_bytes(test_ctx(), "copy", bytes, size, &npz) == DITMOE_OK) {
        for (int j = 0; j < npz_count(npz); j++) {
          double values[10000];
          const struct npz_array *array = npz_at(npz, j);
          if (array->elements <= 10000) (void)npz_read_f64(test_ctx(), npz, array, values);
        }
      }
      npz_close(npz);
      bytes[at] = old;
    }
    free(bytes);
  }
}

static void test_no_memory(void **state) {
  (void)state;
  for (int i = 0; i < CONTROLS; i++) {
    bool fired = true;
    for (int64_t at = 0; fired; at++) {
      struct ditmoe_ctx *ctx = faulty_ctx(at);
      enum ditmoe_status status = read_file(ctx, control(i));
      fired = faulty_fired();
      assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
      assert_int_equal(faulty_held(), 0);
      ditmoe_ctx_destroy(ctx);
    }
  }
}

static void test_strangers(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  assert_fails(ctx, DITMOE_FORMAT, "zip archive without NumPy arrays",
               read_file(ctx, fixture_path("bad/control.pt")));
  assert_fails(ctx, DITMOE_FORMAT, "neither a .npz nor a .npy file",
               read_file(ctx, fixture_path("bad/png_good.png")));
  assert_fails(ctx, DITMOE_FORMAT, "is a folder", read_file(ctx, fixture_path("bad")));
  assert_fails(ctx, DITMOE_FORMAT, "No such file", read_file(ctx, "/nonexistent/a.npz"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_recorded_set), cmocka_unit_test(test_statistics),
      cmocka_unit_test(test_deflated),     cmocka_unit_test(test_other_arrays),
      cmocka_unit_test(test_orders),       cmocka_unit_test(test_variants),
      cmocka_unit_test(test_types),        cmocka_unit_test(test_headers),
      cmocka_unit_test(test_truncation),   cmocka_unit_test(test_mutation),
      cmocka_unit_test(test_no_memory),    cmocka_unit_test(test_strangers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
