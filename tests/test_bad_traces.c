/* Traces that are cut off, damaged or crafted. */
#include "support.h"
#include "trace_cases.h"

#include "fuzz/repair_trace.h"

#include <math.h>
#include <stdlib.h>

/* Of a copy that ends where its memory ends, so that a sanitizer sees a read beyond it. */
static enum ditmoe_status read_copy(const uint8_t *bytes, size_t size) {
  struct ditmoe_trace *trace;
  uint64_t records;
  uint8_t *copy = malloc(size ? size : 1);
  if (size) memcpy(copy, bytes, size);
  enum ditmoe_status status = trace_open_bytes(test_ctx(), "copy.trace", copy, size, &trace);
  if (status == DITMOE_OK) {
    status = read_trace(test_ctx(), trace, &records);
    ditmoe_trace_close(trace);
  }
  free(copy);
  return status;
}

/* The bytes of a trace of one image; free() them. */
static uint8_t *small_trace(enum router router, size_t *size) {
  static const struct plan plan = {0, 1, 1, true};
  const char *path = temporary_path("small.trace");
  const struct routing_shape shape = shape_of(router, 2);
  assert_ok(test_ctx(), trace_run(test_ctx(), &shape, &plan, 1, DITMOE_TRACE_SCORES, path, NULL));
  uint8_t *bytes = (uint8_t *)file_bytes(path, size);
  assert_ok(test_ctx(), read_copy(bytes, *size));
  return bytes;
}

static void test_cut_off(void **state) {
  (void)state;
  size_t size;
  uint8_t *bytes = small_trace(THRESHOLD, &size);
  for (size_t cut = 0; cut < size; cut++)
    assert_fails(test_ctx(), DITMOE_FORMAT, cut ? "cut off" : "is empty", read_copy(bytes, cut));
  assert_fails(test_ctx(), DITMOE_FORMAT, "copy.trace: record 15 at byte ",
               read_copy(bytes, size - 20));
  free(bytes);
}

static void test_flipped(void **state) {
  (void)state;
  static const uint8_t masks[] = {1, 0x80, 0xff};
  size_t size;
  uint8_t *bytes = small_trace(UNCOND_EXPERT, &size);
  for (size_t at = 0; at < size; at++)
    for (size_t i = 0; i < sizeof masks; i++) {
      bytes[at] ^= masks[i];
      assert_fails(test_ctx(), DITMOE_FORMAT, "copy.trace: ", read_copy(bytes, size));
      /* With CRCs that fit it may be a trace. */
      uint8_t *repaired = malloc(size);
      memcpy(repaired, bytes, size);
      repair_trace(repaired, size);
      (void)read_copy(repaired, size);
      free(repaired);
      bytes[at] ^= masks[i];
    }
  assert_ok(test_ctx(), read_copy(bytes, size));
  free(bytes);
}

/* One field of the first record, whose tokens have 2 choices each of 5 experts, 3 labels, 3 steps,
 * 2 layers; CRCs fit. */
static const struct {
  size_t at;
  unsigned width;
  uint64_t value;
  const char *words;
} fields[] = {
    {0, 4, 28, "record 0 at byte "},
    {0, 4, 30, "its length is damaged"},
    {0, 4, 32, "its length is not that of its arrays"},
    {0, 4, 0xfffffffc, "cut off within it, or its length is damaged"},
    {4, 8, UINT64_MAX, "a negative image"},
    {12, 4, 3, "a label out of range"},
    {12, 4, UINT32_MAX, "a label out of range"},
    {20, 4, 3, "a step out of range"},
    {20, 4, 0x80000000, "a step out of range"},
    {24, 4, 9, "its length is not that of its arrays"},
    {24, 4, UINT32_MAX, "its length is not that of its arrays"},
    {28, 2, 2, "a layer out of range"},
    {32, 1, 2, "a half that is not counted"},
    {33, 1, 0, "its length is not that of its arrays"},
    {33, 1, 3, "its length is not that of its arrays"},
    {33, 1, 4, "its flags are damaged"},
    {35, 1, 1, "its flags are damaged"},
    {36, 4, 0x7fc00000, "a weight that is not finite"},
    {36, 4, 0x7f800000, "a weight that is not finite"},
    {36, 4, 0, "weights that ascend"},
    {36 + 4 * 8 + 4 * 20, 2, 5, "an expert out of range"},
};

static void test_fields(void **state) {
  (void)state;
  size_t size;
  uint8_t *bytes = small_trace(TOKEN_CHOICE, &size), *copy = malloc(size);
  const size_t start = TRACE_TEXT + le_number(bytes + 16, 4) + TRACE_CRC;
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    memcpy(copy, bytes, size);
    memcpy(copy + start + fields[i].at, &fields[i].value, fields[i].width);
    repair_trace(copy, size);
    assert_fails(test_ctx(), DITMOE_FORMAT, fields[i].words, read_copy(copy, size));
  }
  memcpy(copy, bytes, size);
  copy[size - 12] ^= 1;
  repair_trace(copy, size);
  assert_fails(test_ctx(), DITMOE_FORMAT, "the end of the records counts others",
               read_copy(copy, size));
  copy = realloc(copy, size + 1);
  memcpy(copy, bytes, size);
  copy[size] = 0;
  assert_fails(test_ctx(), DITMOE_FORMAT, "goes on after its end", read_copy(copy, size + 1));
  free(copy);
  free(bytes);
}

/* Counts of tokens that do not add up. */
static void test_counts(void **state) {
  (void)state;
  size_t size;
  uint8_t *bytes = small_trace(THRESHOLD, &size);
  uint8_t *record = bytes + TRACE_TEXT + le_number(bytes + 16, 4) + TRACE_CRC;
  const size_t choices = le_number(record + 24, 4);
  uint8_t *counts = record + TRACE_FIXED + 4 * choices + 4 * 4 * MOST_E;
  assert_int_equal(record[33], TRACE_HAS_SCORES | TRACE_HAS_COUNTS);
  for (int by = -1; by <= 1; by += 2) {
    const int at = counts[0] ? 0 : 1;
    counts[at] = (uint8_t)(counts[at] + by);
    repair_trace(bytes, size);
    assert_fails(test_ctx(), DITMOE_FORMAT, "number of choices", read_copy(bytes, size));
    counts[at] = (uint8_t)(counts[at] - by);
  }
  free(bytes);
}

/* Headers. */

static void change_tokens(struct routing_shape *s) { s->tokens++; }
static void change_experts(struct routing_shape *s) { s->experts = 1 << 30; }
static void change_labels(struct routing_shape *s) { s->labels = 0; }
static void change_halves(struct routing_shape *s) { s->halves = 3; }
static void change_bins(struct routing_shape *s) { s->bins = 0; }
static void change_time(struct routing_shape *s) {
  static double no_number[STEPS] = {2, NAN, 0};
  s->time = no_number;
}
static void change_layers(struct routing_shape *s) {
  static int32_t descending[LAYERS] = {3, 1};
  s->layer = descending;
}

static void test_headers(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  static const struct {
    void (*change)(struct routing_shape *shape);
    const char *meta, *words;
  } cases[] = {
      {change_tokens, trace_meta, "damaged header: the number of tokens"},
      {change_experts, trace_meta, "damaged header: the number of experts"},
      {change_labels, trace_meta, "damaged header: the number of labels"},
      {change_halves, trace_meta, "damaged header: the number of halves"},
      {change_bins, trace_meta, "\"bin_steps\" is missing or is not"},
      {change_time, trace_meta, "\"times\" is missing or is not a list of numbers"},
      {change_layers, trace_meta, "damaged header: the layers do not ascend"},
      {NULL, "[]", "its second line is not a JSON object"},
      {NULL, "{", "bad JSON"},
      {NULL, "", "is empty"},
      {NULL, "{\"a\":1,\"a\":2}", "occurs twice"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct routing_shape shape = shape_of(TOKEN_CHOICE, 2);
    uint8_t *bytes;
    size_t size;
    if (cases[i].change) cases[i].change(&shape);
    assert_ok(ctx, trace_header_make(ctx, "file", &shape, cases[i].meta, true, &bytes, &size));
    assert_fails(ctx, DITMOE_FORMAT, cases[i].words, read_copy(bytes, size));
    mem_free(ctx, bytes);
  }
}

/* What a reader would not take is not written. */
static void test_long_header(void **state) {
  (void)state;
  enum { LENGTH = (1 << 20) + 1 };
  const struct routing_shape shape = shape_of(TOKEN_CHOICE, 2);
  char *description = malloc(LENGTH + 1);
  uint8_t *bytes;
  size_t size;
  memset(description, ' ', LENGTH);
  description[LENGTH] = '\0';
  assert_fails(test_ctx(), DITMOE_USAGE, "file: the steps or the description are too long",
               trace_header_make(test_ctx(), "file", &shape, description, false, &bytes, &size));
  free(description);
}

static void test_other_files(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_trace *trace;
  size_t size;
  uint8_t *bytes = small_trace(TOKEN_CHOICE, &size);
  bytes[12] = 2;
  assert_fails(ctx, DITMOE_FORMAT, "copy.trace: a routing trace of version 2; this program reads 1",
               read_copy(bytes, size));
  bytes[3] ^= 0x20;
  assert_fails(ctx, DITMOE_FORMAT, "is not a routing trace", read_copy(bytes, size));
  free(bytes);
  assert_fails(ctx, DITMOE_FORMAT, "is a folder",
               ditmoe_trace_open(ctx, temporary_path(""), &trace));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cut_off),     cmocka_unit_test(test_flipped),
      cmocka_unit_test(test_fields),      cmocka_unit_test(test_counts),
      cmocka_unit_test(test_headers),     cmocka_unit_test(test_long_header),
      cmocka_unit_test(test_other_files),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
