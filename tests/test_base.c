/* Error text, memory, arenas, element types, and the reader under all parsers. */
#include "support.h"

#include "base/memory.h"
#include "base/span.h"
#include "base/tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_messages(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  assert_string_equal(ditmoe_errmsg(ctx), "");
  assert_int_equal(fail(ctx, DITMOE_FORMAT, "%s: %d",
                        "a\x1b[2J\nb\x7f\xc2\x9b"
                        "c\xff",
                        7),
                   DITMOE_FORMAT);
  assert_string_equal(ditmoe_errmsg(ctx), "a?[2J?b???c?: 7");
  fail(ctx, DITMOE_OUTPUT, "outer: %s", ditmoe_errmsg(ctx));
  assert_string_equal(ditmoe_errmsg(ctx), "outer: a?[2J?b???c?: 7");
  fail(ctx, DITMOE_FORMAT, "%s", "gr\xc3\xbc\xc3\x9f");
  assert_string_equal(ditmoe_errmsg(ctx), "gr\xc3\xbc\xc3\x9f");
  char huge[5000];
  memset(huge, 'x', sizeof huge - 1);
  huge[sizeof huge - 1] = '\0';
  fail(ctx, DITMOE_FORMAT, "%s", huge);
  assert_int_equal(strlen(ditmoe_errmsg(ctx)), sizeof ctx->error - 1);
  ditmoe_ctx_destroy(ctx);
  ditmoe_ctx_destroy(NULL);
}

static void keep_line(void *user, const char *line) {
  assert_null(strchr(line, '\n'));
  snprintf(user, 100, "%s", line);
}

static void test_warnings(void **state) {
  (void)state;
  char line[100] = "";
  struct ditmoe_hooks hooks = {.user = line, .warn = keep_line};
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(&hooks);
  warn(ctx, "expert %d\nholds %s", 3, "\x1b[31mNaN");
  assert_string_equal(line, "expert 3?holds ?[31mNaN");
  assert_string_equal(ditmoe_errmsg(ctx), "");
  ditmoe_ctx_destroy(ctx);
}

static void test_memory(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  uint64_t before = ditmoe_allocations(ctx);
  int *block, *empty;
  assert_int_equal(mem_zalloc(ctx, 100, sizeof *block, "numbers", &block), DITMOE_OK);
  assert_int_equal((uintptr_t)block % 64, 0);
  for (int i = 0; i < 100; i++) assert_int_equal(block[i]++, 0);
  assert_int_equal(mem_grow(ctx, 100, 1000, sizeof *block, "numbers", &block), DITMOE_OK);
  for (int i = 0; i < 100; i++) assert_int_equal(block[i], 1);
  assert_int_equal(mem_alloc(ctx, 0, 8, "nothing", &empty), DITMOE_OK);
  assert_non_null(empty);
  assert_int_equal(ditmoe_allocations(ctx) - before, 3);
  mem_free(ctx, block);
  mem_free(ctx, empty);
  mem_free(ctx, NULL);
  assert_int_equal(mem_alloc(ctx, SIZE_MAX / 2, 3, "the moon", &block), DITMOE_NOMEM);
  assert_null(block);
  assert_non_null(strstr(ditmoe_errmsg(ctx), "the moon"));
  assert_int_equal(mem_alloc(ctx, SIZE_MAX - 8, 1, "the moon", &block), DITMOE_NOMEM);
  ditmoe_ctx_destroy(ctx);
}

static void test_list(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  size_t *list = NULL;
  for (size_t i = 0; i < 1000; i++) {
    assert_int_equal(mem_room(ctx, i, sizeof *list, "a list", &list), DITMOE_OK);
    list[i] = i;
  }
  for (size_t i = 0; i < 1000; i++) assert_int_equal(list[i], i);
  mem_free(ctx, list);
  ditmoe_ctx_destroy(ctx);
}

/* The same requests as a forward pass makes: blocks with scratch in between. */
static void use_arena(struct arena *arena) {
  assert_non_null(arena_alloc(arena, 10, 4));
  for (size_t block = 1; block <= 3; block++) {
    size_t mark = arena_mark(arena);
    char *scratch = arena_alloc(arena, block, 100);
    assert_non_null(scratch);
    assert_int_equal((uintptr_t)scratch % 64, 0);
    if (!arena->measuring) memset(scratch, 1, block * 100);
    arena_reset(arena, mark);
  }
}

static void test_arena(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  struct arena plan, arena;
  arena_init_measuring(&plan);
  use_arena(&plan);
  assert_int_equal(plan.peak, 64 + 320);
  assert_int_equal(arena_init(&arena, ctx, plan.peak), DITMOE_OK);
  use_arena(&arena);
  assert_int_equal(arena.peak, plan.peak);
  assert_null(arena_alloc(&arena, plan.peak, 1));
  assert_null(arena_alloc(&arena, SIZE_MAX, 1));
  assert_null(arena_alloc(&arena, SIZE_MAX, 2));
  arena_fini(&arena, ctx);
  ditmoe_ctx_destroy(ctx);
}

/* A 16-bit format against its definition: value of bits by ldexp, and rounding by comparing with
 * the neighbours half-way between which a value lies. */
static double half_value(unsigned bits, int exponent_bits, int mantissa_bits) {
  int bias = (1 << (exponent_bits - 1)) - 1;
  int exponent = (int)(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  int mantissa = (int)bits & ((1 << mantissa_bits) - 1);
  double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa ? NAN : sign * INFINITY;
  if (!exponent) return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

static void check_half(float (*widen)(uint16_t), uint16_t (*narrow)(float), int exponent_bits,
                       int mantissa_bits) {
  for (unsigned bits = 0; bits < 0x10000; bits++) {
    double value = half_value(bits, exponent_bits, mantissa_bits);
    float wide = widen((uint16_t)bits);
    if (isnan(value)) {
      assert_true(isnan(wide) && isnan(widen(narrow(wide))));
      continue;
    }
    assert_true(wide == (float)value && !signbit(wide) == !(bits & 0x8000));
    assert_int_equal(narrow(wide), bits);
    double next = half_value(bits + 1, exponent_bits, mantissa_bits);
    if (bits & 0x8000 || !isfinite(value)) continue;
    /* Beyond the largest value the step to the next power of two counts as infinity. */
    if (isinf(next)) next = 2 * value - half_value(bits - 1, exponent_bits, mantissa_bits);
    float middle = (float)((value + next) / 2);
    if (isinf(middle)) continue;
    assert_int_equal(narrow(middle), bits + (bits & 1));
    assert_int_equal(narrow(-middle), 0x8000 | (bits + (bits & 1)));
    assert_int_equal(narrow(nextafterf(middle, 0)), bits);
    assert_int_equal(narrow(nextafterf(middle, INFINITY)), bits + 1);
  }
  assert_true(isinf(widen(narrow(3.4028235e38f))));
}

static void test_halves(void **state) {
  (void)state;
  check_half(f32_from_f16, f16_from_f32, 5, 10);
  check_half(f32_from_bf16, bf16_from_f32, 8, 7);
}

static void test_dtypes(void **state) {
  (void)state;
  for (int i = 0; i < DT_COUNT; i++) {
    enum dtype dtype = (enum dtype)i;
    const char *name = dtype_name(dtype);
    assert_int_equal(dtype_parse(name, strlen(name)), dtype);
    const bool widened = dtype == DT_F8_E4M3 || dtype == DT_F8_E5M2;
    assert_int_equal(dtype_is_float(dtype), dtype <= DT_F64 || widened);
    const struct tensor three = {.dtype = dtype, .elements = 3};
    assert_int_equal(tensor_bytes(&three), (3 * dtype_bits(dtype) + 7) / 8);
  }
  assert_int_equal(dtype_parse("F3", 2), DT_COUNT);
  assert_int_equal(dtype_parse("F320", 4), DT_COUNT);
  assert_int_equal(dtype_size(DT_F64) + dtype_size(DT_BF16) + dtype_size(DT_BOOL), 11);
}

/* All 256 patterns against the definition: 1 sign, `exponent` and `mantissa` bits. */
static void check_f8(float (*widen)(uint8_t), int exponent, int mantissa, bool infinity) {
  const int bias = (1 << (exponent - 1)) - 1, largest = (1 << exponent) - 1;
  for (int bits = 0; bits < 256; bits++) {
    const int e = bits >> mantissa & largest, m = bits & ((1 << mantissa) - 1);
    const float value = widen((uint8_t)bits), sign = bits & 0x80 ? -1 : 1;
    const bool special = e == largest && (infinity || m == (1 << mantissa) - 1);
    const float fraction = (float)m / (float)(1 << mantissa);
    const float expected = ldexpf(e ? 1 + fraction : fraction, (e ? e : 1) - bias);
    if (special && infinity && m == 0)
      assert_true(isinf(value) && !signbit(value) == (sign > 0));
    else if (special)
      assert_true(isnan(value));
    else
      assert_true(value == sign * expected && !signbit(value) == (sign > 0));
  }
}

static void test_f8(void **state) {
  (void)state;
  check_f8(f32_from_e4m3, 4, 3, false);
  check_f8(f32_from_e5m2, 5, 2, true);
}

static void test_unaligned_read(void **state) {
  (void)state;
  static const float expected[3] = {1.5f, -2.0f, 0.25f};
  const double doubles[3] = {1.5, -2.0, 0.25};
  const uint16_t halves[3] = {0x3e00, 0xc000, 0x3400}, brains[3] = {0x3fc0, 0xc000, 0x3e80};
  const struct {
    enum dtype dtype;
    const void *data;
  } kinds[] = {{DT_F32, expected}, {DT_F64, doubles}, {DT_F16, halves}, {DT_BF16, brains}};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    size_t bytes = 3 * dtype_size(kinds[i].dtype);
    char *data = malloc(bytes + 1);
    float out[2];
    memcpy(data + 1, kinds[i].data, bytes);
    struct tensor tensor = {.dtype = kinds[i].dtype, .elements = 3, .data = data + 1};
    tensor_read_f32(out, &tensor, 1, 2);
    assert_memory_equal(out, expected + 1, sizeof out);
    free(data);
  }
}

static void test_span(void **state) {
  (void)state;
  static const uint8_t bytes[] = {1, 2, 3, 4, 'a', 'b', '\n', 'c'};
  struct span span = span_of(bytes, sizeof bytes);
  struct text line;
  const uint8_t *rest;
  uint64_t number;
  assert_true(span_number(&span, 4, &number));
  assert_int_equal(number, 0x04030201);
  assert_true(span_line(&span, &line) && text_is(line, "ab"));
  assert_false(span_line(&span, &line));
  assert_false(span_number(&span, 2, &number));
  assert_false(span_take(&span, UINT64_MAX, &rest));
  assert_int_equal(span_left(&span), 1);
  assert_true(span_take(&span, 1, &rest) && *rest == 'c');
  assert_false(span_take(&span, 1, &rest));
  assert_true(span_take(&span, 0, &rest));
  assert_false(span_seek(&span, 9));
  assert_true(span_seek(&span, 8) && span_left(&span) == 0);
}

static void test_words(void **state) {
  (void)state;
  static const char words[] = "one two  three ";
  static const struct {
    const char *word;
    size_t length;
    int place;
  } cases[] = {{"one", 3, 0},   {"two", 3, 4},      {"three", 5, 9},     {"on", 2, -1},
               {"ones", 4, -1}, {"one two", 7, -1}, {"one\0two", 7, -1}, {"three\0\0\0", 8, -1},
               {"", 0, -1},     {" ", 1, -1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const struct text word = {(const uint8_t *)cases[i].word, cases[i].length};
    assert_int_equal(text_place(word, words), cases[i].place);
  }
}

static void test_utf8(void **state) {
  (void)state;
  static const struct {
    const char *bytes;
    size_t size, step;
  } cases[] = {{"a", 1, 1},
               {"\xc3\xbc", 2, 2},
               {"\xe2\x82\xac", 3, 3},
               {"\xf0\x9f\x99\x82", 4, 4},
               {"\xf4\x8f\xbf\xbf", 4, 4},
               {"\xf4\x90\x80\x80", 4, 0},
               {"\xc0\x80", 2, 0},
               {"\xc1\xbf", 2, 0},
               {"\xe0\x9f\xbf", 3, 0},
               {"\xed\xa0\x80", 3, 0},
               {"\xf0\x8f\xbf\xbf", 4, 0},
               {"\xe2\x82", 2, 0},
               {"\x80", 1, 0},
               {"\xe2\x28\xa1", 3, 0},
               {"\xff", 1, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_int_equal(utf8_step((const uint8_t *)cases[i].bytes, cases[i].size), cases[i].step);
  assert_true(text_is_utf8((struct text){(const uint8_t *)"gr\xc3\xbc\n", 5}));
  assert_false(text_is_printable((struct text){(const uint8_t *)"gr\xc3\xbc\n", 5}));
  assert_true(text_is_printable((struct text){(const uint8_t *)"gr\xc3\xbcn", 5}));
  assert_false(text_is_printable((struct text){(const uint8_t *)"\xc2\x9b", 2}));
  assert_false(text_is_utf8((struct text){(const uint8_t *)"a\0b", 3}));
  assert_true(text_is_utf8((struct text){NULL, 0}) && text_is_printable((struct text){NULL, 0}));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_messages),       cmocka_unit_test(test_warnings),
      cmocka_unit_test(test_memory),         cmocka_unit_test(test_list),
      cmocka_unit_test(test_arena),          cmocka_unit_test(test_halves),
      cmocka_unit_test(test_dtypes),         cmocka_unit_test(test_f8),
      cmocka_unit_test(test_unaligned_read), cmocka_unit_test(test_span),
      cmocka_unit_test(test_words),          cmocka_unit_test(test_utf8),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
