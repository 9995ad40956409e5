/* Packed weights of the CPU backend, against a lookup that follows the description of the layout
 * (backend/cpu/panels.c) value by value: every tier, type and kind of layer. */
#include "backend/cpu/state.h"
#include "backend/packed.h"
#include "tests/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the text of a layout says of a type of inputs, and the format of the layer's values. */
struct layout {
  int columns, lanes, group, unit, depth;
  enum dtype format;
};

static struct layout layout_of(const struct exec *ex, bool exact) {
  struct layout l;
  char text[LAYOUT_SIZE], type[8];
  int version;
  ex->device->ops->packed->layout(ex, text);
  const char *at = exact && strchr(text, ',') ? strchr(text, ',') + 2 : strchr(text, ' ') + 1;
  assert_int_equal(sscanf(text, "cpu-%d", &version), 1);
  assert_int_equal(
      sscanf(at, "%7s %d %d %d %d %d", type, &l.columns, &l.lanes, &l.group, &l.unit, &l.depth), 6);
  l.format = strcmp(type, "bf16") == 0 ? DT_BF16 : DT_F32;
  return l;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/* Layers: parts of these sizes, stacked or paired. */
static const struct {
  int parts, out[3];
  bool paired, bias;
} kinds[] = {
    {1, {1}, false, true},         {1, {31}, false, true},         {1, {33}, false, false},
    {3, {31, 1, 33}, false, true}, {2, {1, 1}, true, true},        {2, {33, 33}, true, true},
    {2, {31, 31}, true, false},    {3, {33, 33, 33}, false, true},
};
enum { KINDS = sizeof kinds / sizeof *kinds, MAX_IN = 1153 };

/* Tensors of a source; data have an odd address, as in files. */
struct source {
  struct linear_source linear;
  struct tensor tensors[6];
  uint8_t *memory[6];
};

static void put_value(uint8_t *to, enum dtype dtype, double value) {
  float single = (float)value;
  uint16_t half = dtype == DT_F16 ? f16_from_f32(single) : bf16_from_f32(single);
  if (dtype == DT_F32) memcpy(to, &single, sizeof single);
  if (dtype == DT_F64) memcpy(to, &value, sizeof value);
  if (dtype == DT_F16 || dtype == DT_BF16) memcpy(to, &half, sizeof half);
}

/* Normal and subnormal values of all signs. */
static double some_value(uint32_t *state) {
  *state = *state * 1664525 + 1013904223;
  double fraction = (double)(int32_t)*state * 0x1p-31;
  return *state >> 8 & 15 ? fraction : fraction * 0x1p-15;
}

static const struct tensor *make(struct source *s, int at, enum dtype dtype, int rank, int rows,
                                 int columns) {
  struct tensor *t = &s->tensors[at];
  static uint32_t state = 1;
  *t = (struct tensor){.name = "t", .dtype = dtype, .rank = rank, .shape = {rows, columns}};
  t->elements = rank == 2 ? (int64_t)rows * columns : rows;
  size_t size = dtype_size(dtype);
  s->memory[at] = malloc((size_t)t->elements * size + 1);
  assert_non_null(s->memory[at]);
  for (int64_t i = 0; i < t->elements; i++)
    put_value(s->memory[at] + 1 + (size_t)i * size, dtype, some_value(&state));
  t->data = s->memory[at] + 1;
  return t;
}

/* Matrices of a type, the last one of another. */
static void make_source(struct source *s, int kind, int in, enum dtype dtype, enum dtype last) {
  *s = (struct source){.linear = {.parts = kinds[kind].parts, .paired = kinds[kind].paired}};
  for (int i = 0; i < s->linear.parts; i++) {
    enum dtype own = i + 1 < s->linear.parts ? dtype : last;
    s->linear.weight[i] = make(s, i, own, 2, kinds[kind].out[i], in);
    if (kinds[kind].bias) s->linear.bias[i] = make(s, 3 + i, dtype, 1, kinds[kind].out[i], 1);
  }
}

static void free_source(struct source *s) {
  for (int i = 0; i < 6; i++) free(s->memory[i]);
}

/* Bits of one stored value. */
static uint32_t bits_of(const struct layout *l, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (l->format == DT_F16) return f16_from_f32(value);
  return l->format == DT_BF16 ? bf16_from_f32(value) : bits;
}

static size_t size_of(const struct layout *l) { return dtype_size(l->format); }

static uint32_t stored(const struct layout *l, const void *data, int64_t at) {
  uint32_t bits = 0;
  memcpy(&bits, (const char *)data + (size_t)at * size_of(l), size_of(l));
  return bits;
}

/* Where input i of column c of panel p is. */
static int64_t place(const struct layout *l, int in, int64_t panels, int64_t p, int c, int64_t i) {
  int64_t blocks = ceil_div(in, l->depth), block = round_up(ceil_div(in, blocks), l->unit);
  int64_t begin = i / block * block, left = in - begin < block ? in - begin : block;
  if (begin >= in) begin -= block, left = in - begin; /* what pads the last block */
  int64_t padded = round_up(left, l->unit), row = i - begin;
  return begin * panels * l->columns + p * padded * l->columns +
         row / l->group * l->group * l->columns + c * l->group + row % l->group;
}

/* The tensor and the row that column c of panel p is made from; -1: zeros. */
static int64_t find_row(const struct layout *l, const struct source *s, int64_t p, int c,
                        int *part) {
  int64_t row = s->linear.paired ? p * l->lanes + c % l->lanes : p * l->columns + c;
  *part = s->linear.paired ? c / l->lanes : 0;
  if (s->linear.paired) return row < s->linear.weight[0]->shape[0] ? row : -1;
  while (*part < s->linear.parts && row >= s->linear.weight[*part]->shape[0])
    row -= s->linear.weight[(*part)++]->shape[0];
  return *part < s->linear.parts ? row : -1;
}

static void check_column(const struct layout *l, const struct source *s, const struct linear *w,
                         int64_t panels, int64_t p, int c) {
  int part;
  int64_t row = find_row(l, s, p, c, &part), padded = round_up(w->in, l->unit);
  float values[MAX_IN] = {0}, bias = 0, found;
  if (row >= 0) tensor_read_f32(values, s->linear.weight[part], row * w->in, w->in);
  if (row >= 0 && s->linear.bias[part]) tensor_read_f32(&bias, s->linear.bias[part], row, 1);
  for (int64_t i = 0; i < padded; i++) {
    uint32_t expected = i < w->in ? bits_of(l, values[i]) : 0;
    uint32_t bits = stored(l, w->data, place(l, w->in, panels, p, c, i));
    if (bits != expected)
      fail_msg("panel %d column %d input %d of %d: %x, expected %x", (int)p, c, (int)i, w->in, bits,
               expected);
  }
  size_t biases = (size_t)(padded * panels * l->columns) * size_of(l);
  memcpy(&found, (char *)w->data + biases + (size_t)(p * l->columns + c) * sizeof found,
         sizeof found);
  assert_true(found == bias);
}

static void check_layer(struct exec *ex, const struct layout *l, const struct source *s,
                        const struct linear *w) {
  int64_t outputs = w->paired ? l->lanes : l->columns, panels = ceil_div(w->out, outputs);
  size_t column = (size_t)round_up(w->in, l->unit) * size_of(l) + sizeof(float);
  size_t used = (size_t)(panels * l->columns) * column;
  assert_int_equal(w->bytes, round_up((int64_t)used, PACKED_ALIGN));
  assert_int_equal(w->bytes, ex->device->ops->packed->bytes(ex, w));
  for (size_t i = used; i < w->bytes; i++) assert_int_equal(((char *)w->data)[i], 0);
  for (int64_t p = 0; p < panels; p++)
    for (int c = 0; c < l->columns; c++) check_column(l, s, w, panels, p, c);
}

/* AMX is rare, but its layout can be made without it. */
static bool pretend_amx(struct exec *ex) {
#ifdef __x86_64__
  static struct cpu_kernels kernels;
  static struct device device;
  if (backend_open(ex, test_ctx(), "cpu", "avx512", 2) != DITMOE_OK) return false;
  kernels = *cpu_kernels(ex);
  kernels.gemm[CPU_BF16] = &gemm_bf16_amx;
  device = *ex->device;
  device.state = &kernels;
  ex->device = &device;
  return true;
#else
  return false;
#endif
}

/* The backend of a tier, false if this machine has no such. */
static bool start(struct exec *ex, const char *tier, const char *dtype) {
  enum ditmoe_status status = backend_open(ex, test_ctx(), "cpu", tier, 2);
  if (status == DITMOE_DEVICE && !(strcmp(tier, "amx") == 0 && pretend_amx(ex))) return false;
  if (status != DITMOE_DEVICE) assert_ok(test_ctx(), status);
  assert_ok(test_ctx(), backend_compute(ex, dtype));
  return true;
}

/* Made again of other values, f32 that are rounded where they are kept in 16 bits. */
static void check_update(struct exec *ex, const struct layout *l, int kind, struct linear *w) {
  struct source s;
  const int64_t total = (int64_t)w->out << w->paired;
  float *weight = malloc((size_t)(total * w->in) * sizeof *weight);
  float *bias = malloc((size_t)total * sizeof *bias);
  assert_non_null(weight);
  assert_non_null(bias);
  make_source(&s, kind, w->in, DT_F32, DT_F32);
  linear_source_read(&s.linear, weight, bias);
  be_linear_update(ex, w, weight, kinds[kind].bias ? bias : NULL);
  assert_ok(ex->ctx, ex->status);
  check_layer(ex, l, &s, w);
  weight[0] = NAN;
  be_linear_update(ex, w, weight, bias);
  assert_false(w->finite);
  free_source(&s);
  free(weight);
  free(bias);
}

static void check_source(struct exec *ex, int kind, int in, enum dtype dtype, enum dtype last,
                         bool exact) {
  struct source s;
  struct linear *w;
  struct layout l = layout_of(ex, exact);
  const bool one = dtype == last || kinds[kind].parts == 1;
  if (l.format == DT_F32 && one && dtype_size(last) == 2) l.format = last;
  make_source(&s, kind, in, dtype, last);
  s.linear.input = exact ? DT_F32 : ex->compute;
  assert_ok(ex->ctx, ex->device->ops->linear_create(ex, &s.linear, &w));
  assert_int_equal(w->in, in);
  assert_true(w->finite);
  assert_int_equal(w->format, l.format);
  check_layer(ex, &l, &s, w);
  check_update(ex, &l, kind, w);
  ex->device->ops->linear_destroy(ex, w);
  free_source(&s);
}

static void test_panels(void **state) {
  (void)state;
  static const int inputs[] = {1, 7, 33, 769, MAX_IN};
  static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16, DT_F64};
  struct exec ex;
  for (int t = 0; t < 2 * TIERS; t++) {
    if (!start(&ex, tiers[t / 2], t % 2 ? "bf16" : "f32")) continue;
    for (int kind = 0; kind < KINDS; kind++)
      for (int i = 0; i < 5; i++)
        for (int d = 0; d < 4; d++)
          for (int last = kind == 3 || kind == 5 ? 0 : d; last <= d; last++)
            check_source(&ex, kind, inputs[i], types[d], types[last], i % 2);
    exec_close(&ex);
  }
}

/* NaN and infinities are seen wherever they are; rounding to bf16 makes none that counts. */
static void test_finite(void **state) {
  (void)state;
  static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16, DT_F64};
  static const double planted[] = {NAN, INFINITY, -INFINITY, 65504};
  struct exec ex;
  for (int t = 0; t < 2 * TIERS * 4 * 4; t++) {
    const enum dtype dtype = types[t % 4];
    const double value = planted[t / 4 % 4];
    if (!start(&ex, tiers[t / 32], t / 16 % 2 ? "bf16" : "f32")) continue;
    for (int at = 0; at < 4; at++) { /* first and last weight, a row's end, last bias */
      struct source s;
      struct linear *w;
      make_source(&s, 5, 71, dtype, dtype);
      s.linear.input = ex.compute;
      const int64_t index[4] = {0, 33 * 71 - 1, 70, 32};
      put_value(s.memory[at == 3 ? 4 : 1] + 1 + (size_t)index[at] * dtype_size(dtype), dtype,
                value);
      assert_ok(ex.ctx, ex.device->ops->linear_create(&ex, &s.linear, &w));
      assert_int_equal(w->finite, isfinite(value));
      assert_int_equal(tensor_all_finite(&s.tensors[at == 3 ? 4 : 1]), isfinite(value));
      ex.device->ops->linear_destroy(&ex, w);
      free_source(&s);
    }
    exec_close(&ex);
  }
}

/* A layer over bytes that are too few, too many, of another type or out of step is refused. */
static void test_adopted(void **state) {
  (void)state;
  struct exec ex;
  struct linear *w;
  struct linear shape = {.in = 65, .out = 40, .paired = true};
  for (int t = 0; t < 2 * TIERS; t++) {
    if (!start(&ex, tiers[t / 2], t % 2 ? "bf16" : "f32")) continue;
    const struct packed_ops *ops = ex.device->ops->packed;
    shape.input = ex.compute;
    shape.format = ex.compute == DT_BF16 ? DT_BF16 : DT_F16;
    const size_t bytes = ops->bytes(&ex, &shape);
    uint8_t *memory = aligned_alloc(PACKED_ALIGN, bytes + PACKED_ALIGN);
    assert_non_null(memory);
    memset(memory, 0, bytes + PACKED_ALIGN);
    struct tensor stored = {"layer.packed", DT_U8, 1, {0}, (int64_t)bytes, memory};
    assert_ok(ex.ctx, ops->adopt(&ex, &shape, &stored, &w));
    assert_ptr_equal(w->data, memory);
    be_linear_update(&ex, w, NULL, NULL);
    assert_fails(ex.ctx, DITMOE_FAILED, "packed", ex.status);
    exec_clear(&ex);
    ex.device->ops->linear_destroy(&ex, w);
    for (int wrong = 0; wrong < 4; wrong++) {
      struct tensor other = stored;
      if (wrong < 2) other.elements += wrong ? -PACKED_ALIGN : PACKED_ALIGN;
      if (wrong == 2) other.dtype = DT_I8;
      if (wrong == 3) other.data = memory + PACKED_ALIGN / 2;
      assert_fails(ex.ctx, DITMOE_FORMAT, "layer.packed", ops->adopt(&ex, &shape, &other, &w));
    }
    free(memory);
    exec_close(&ex);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_panels), cmocka_unit_test(test_finite),
                                     cmocka_unit_test(test_adopted)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
