/* Tables of routing without a model: records of a small run are counted as plain loops count them,
 * merged, written and read; what cannot be right is refused in one line. */
#include "support.h"

#include "base/normal.h"
#include "base/rng.h"
#include "routing_support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { L = 2, STEPS = 5, S = 2, SIDE = 2, T = 4, E = 3, C = 4, IMAGES = 11 };

static struct ditmoe_routing *make_routing(struct ditmoe_ctx *ctx) {
  static int32_t layer[L] = {1, 3}, experts[L] = {E, E - 1}, bins[S + 1] = {0, 2, STEPS};
  static double time[STEPS] = {1, 0.8, 0.6, 0.4, 0.2};
  const struct routing_shape shape = {.layers = L,
                                      .bins = S,
                                      .tokens = T,
                                      .experts = E,
                                      .labels = C,
                                      .steps = STEPS,
                                      .side = SIDE,
                                      .uncond_expert = -1,
                                      .null_label = C - 1,
                                      .halves = DITMOE_HALVES,
                                      .mass = true,
                                      .layer = layer,
                                      .layer_experts = experts,
                                      .bin_step = bins,
                                      .time = time};
  struct ditmoe_routing *routing = NULL;
  assert_null(shape_fault(&shape));
  return routing_create(ctx, &shape, &routing) == DITMOE_OK ? routing : NULL;
}

/* Records. */

struct choices {
  int32_t first[T + 1];
  uint16_t expert[T * E];
  float weight[T * E];
};

static int32_t label_of(int64_t image) { return (int32_t)(image % (C - 1)); }

/* No choice, one or more for each token, the heaviest first; by chance, but always the same. */
static struct choices pick(int64_t image, int half, int step, int evaluation, int layer) {
  const int experts = layer ? E - 1 : E;
  struct choices c = {0};
  for (int t = 0, n = 0; t < T; t++) {
    uint32_t random[4];
    normal_block(random, 5, (uint64_t)image, (uint32_t)((step * 2 + evaluation) * 2 + half),
                 RNG_LABEL, (uint32_t)(layer * T + t));
    const int count = (int)(random[0] % (uint32_t)(experts + 1));
    for (int j = 0; j < count; j++, n++) {
      c.expert[n] = (uint16_t)((random[1] + (uint32_t)j) % (uint32_t)experts);
      c.weight[n] = (float)(random[2] % 1000) / 1000 - (float)j;
    }
    c.first[t + 1] = n;
  }
  return c;
}

static struct ditmoe_trace_record record_of(const struct choices *c, int64_t image, int half,
                                            int step, int evaluation, int layer) {
  return (struct ditmoe_trace_record){.image = image,
                                      .label = label_of(image),
                                      .other_label = label_of(image + 1),
                                      .step = step,
                                      .layer = layer,
                                      .evaluation = evaluation,
                                      .half = (enum ditmoe_half)half,
                                      .first = c->first,
                                      .expert = c->expert,
                                      .weight = c->weight};
}

static enum ditmoe_status count(struct ditmoe_ctx *ctx, struct ditmoe_routing *routing,
                                int64_t image, int half, int step, int evaluation, int layer) {
  const struct choices c = pick(image, half, step, evaluation, layer);
  const struct ditmoe_trace_record record = record_of(&c, image, half, step, evaluation, layer);
  return ditmoe_routing_count(ctx, routing, &record);
}

/* The other half takes part from step 2 on. */
static bool takes_part(int half, int step) { return half == DITMOE_CONDITIONAL || step >= 2; }

/* As a run of batches does: both halves in one call, or each in one of its own. */
static enum ditmoe_status count_batch(struct ditmoe_ctx *ctx, struct ditmoe_routing *routing,
                                      int64_t first, int64_t end, bool one_call) {
  for (int i = 0; i < STEPS * 2 * 2 * L; i++) {
    const int step = i / (2 * 2 * L), evaluation = i / (2 * L) % 2;
    const int half = one_call ? i % 2 : i / L % 2, layer = one_call ? i / 2 % L : i % L;
    for (int64_t image = first; takes_part(half, step) && image < end; image++)
      TRY(count(ctx, routing, image, half, step, evaluation, layer));
  }
  return DITMOE_OK;
}

static enum ditmoe_status count_batches(struct ditmoe_ctx *ctx, struct ditmoe_routing *routing,
                                        int64_t first, int64_t end, int64_t batch, bool one_call) {
  for (; first < end; first += batch)
    TRY(count_batch(ctx, routing, first, first + batch < end ? first + batch : end, one_call));
  return DITMOE_OK;
}

static struct ditmoe_routing *counted(int64_t first, int64_t end, int64_t batch, bool one_call) {
  struct ditmoe_routing *routing = make_routing(test_ctx());
  assert_ok(test_ctx(), count_batches(test_ctx(), routing, first, end, batch, one_call));
  return routing;
}

/* Counting. */

/* Sums by plain loops; what is rotated and kept has tests of its own. */
struct plain {
  uint32_t counts[L][S][T][E];
  int64_t mass[L][S][T][E], class_mass[L][C][E];
  uint64_t class_counts[L][C][E], other[L][C][E], evaluations[S], label_evaluations[C];
  uint64_t pairs[L][E][E], kept[L][STEPS][2], kept_leading[L][STEPS][2];
};

static bool chose(const struct choices *c, int t, int expert) {
  for (int i = c->first[t]; i < c->first[t + 1]; i++)
    if (c->expert[i] == expert) return true;
  return false;
}

static int leading(const struct choices *c, int t) {
  return c->first[t] < c->first[t + 1] ? c->expert[c->first[t]] : -1;
}

static void plain_kept(struct plain *p, const struct choices *now, const struct choices *before,
                       int layer, int step) {
  for (int t = 0; t < T; t++) {
    for (int i = now->first[t]; i < now->first[t + 1]; i++)
      p->kept[layer][step][0] += chose(before, t, now->expert[i]);
    p->kept[layer][step][1] += (uint64_t)(now->first[t + 1] - now->first[t]);
    if (leading(now, t) < 0) continue;
    p->kept_leading[layer][step][0] += leading(now, t) == leading(before, t);
    p->kept_leading[layer][step][1]++;
  }
}

static void plain_record(struct plain *p, int64_t image, int half, int step, int evaluation,
                         int layer) {
  const struct choices c = pick(image, half, step, evaluation, layer);
  const struct choices above = pick(image, half, step, evaluation, layer - 1);
  const struct choices before = pick(image, half, step - 1, 0, layer);
  const int bin = step >= 2, label = label_of(image);
  for (int t = 0; t < T; t++) {
    for (int i = c.first[t]; i < c.first[t + 1]; i++) {
      const int e = c.expert[i];
      const int64_t mass = llround((double)c.weight[i] * 1073741824);
      p->counts[layer][bin][t][e]++;
      p->mass[layer][bin][t][e] += mass;
      p->class_counts[layer][label][e]++;
      p->class_mass[layer][label][e] += mass;
      p->other[layer][label_of(image + 1)][e]++;
    }
    if (layer > 0 && leading(&c, t) >= 0 && leading(&above, t) >= 0)
      p->pairs[layer][leading(&above, t)][leading(&c, t)]++;
  }
  if (layer == 0) p->evaluations[bin]++, p->label_evaluations[label]++;
  if (evaluation == 0 && step > 0 && takes_part(half, step - 1))
    plain_kept(p, &c, &before, layer, step);
}

static void test_plain_loops(void **state) {
  (void)state;
  struct ditmoe_routing *routing = counted(0, IMAGES, 4, true);
  for (int half = 0; half < DITMOE_HALVES; half++) {
    struct ditmoe_routing_tables t;
    struct plain *p = calloc(1, sizeof *p);
    assert_non_null(p);
    for (int64_t image = 0; image < IMAGES; image++)
      for (int i = 0; i < STEPS * 2 * L; i++)
        if (takes_part(half, i / (2 * L)))
          plain_record(p, image, half, i / (2 * L), i / L % 2, i % L);
    ditmoe_routing_tables(routing, half, &t);
    assert_memory_equal(t.counts, p->counts, sizeof p->counts);
    assert_memory_equal(t.mass, p->mass, sizeof p->mass);
    assert_memory_equal(t.class_counts, p->class_counts, sizeof p->class_counts);
    assert_memory_equal(t.class_mass, p->class_mass, sizeof p->class_mass);
    assert_memory_equal(t.shuffled_labels, p->other, sizeof p->other);
    assert_memory_equal(t.evaluations, p->evaluations, sizeof p->evaluations);
    assert_memory_equal(t.label_evaluations, p->label_evaluations, sizeof p->label_evaluations);
    assert_memory_equal(t.pairs, p->pairs, sizeof p->pairs);
    assert_memory_equal(t.kept, p->kept, sizeof p->kept);
    assert_memory_equal(t.kept_leading, p->kept_leading, sizeof p->kept_leading);
    free(p);
  }
  ditmoe_routing_destroy(routing);
}

/* Batches and the order of the halves change nothing, nor does image after image, as in a joined
 * trace; and no more images are remembered than are under way. */
static void test_orders(void **state) {
  (void)state;
  struct ditmoe_routing *first = counted(0, IMAGES, IMAGES, true);
  for (int batch = 1; batch <= 4; batch++)
    for (int one_call = 0; one_call < 2; one_call++) {
      struct ditmoe_routing *again = counted(0, IMAGES, batch, one_call);
      assert_same_tables(first, again);
      assert_int_equal(again->slots.count, batch);
      ditmoe_routing_destroy(again);
    }
  ditmoe_routing_destroy(first);
}

/* Of a single image, some rotation of the positions is what was shuffled; and not always by 0. */
static void test_rotation(void **state) {
  (void)state;
  int turned = 0;
  for (int64_t image = 0; image < IMAGES; image++) {
    struct ditmoe_routing *routing = counted(image, image + 1, 1, true);
    struct ditmoe_routing_tables t;
    int matching = -1;
    ditmoe_routing_tables(routing, DITMOE_CONDITIONAL, &t);
    for (int turn = 0; turn < T; turn++) {
      bool equal = true;
      for (int i = 0; i < L * T * E; i++) {
        const int l = i / (T * E), position = i / E % T, e = i % E;
        const uint32_t *counts = t.counts + (int64_t)l * S * T * E + position * E + e;
        equal &= t.shuffled_positions[(l * T + (position + turn) % T) * E + e] ==
                 counts[0] + counts[T * E];
      }
      if (equal) matching = turn;
    }
    assert_true(matching >= 0);
    turned += matching > 0;
    for (int i = 0; i < L * E; i++) {
      uint64_t steps = 0, labels = 0;
      for (int b = 0; b < S; b++) steps += t.shuffled_steps[(i / E * S + b) * E + i % E];
      for (int c = 0; c < C; c++) labels += t.class_counts[(i / E * C + c) * E + i % E];
      assert_int_equal(steps, labels);
    }
    ditmoe_routing_destroy(routing);
  }
  assert_true(turned > IMAGES / 3);
}

static void test_bad_records(void **state) {
  (void)state;
  static const int32_t first[T + 1] = {0, 2, 2, 2, 2};
  static const uint16_t expert[] = {0, 1, 2, 0};
  static const float weight[] = {0.5f, 0.25f, 0, 0};
  struct ditmoe_routing *routing = counted(2, 4, 2, true), *before = counted(2, 4, 2, true);
  const struct {
    struct ditmoe_trace_record change;
    enum ditmoe_status status;
    const char *text;
  } cases[] = {
      {{.image = -1}, DITMOE_USAGE, "no such place"},
      {{.label = C}, DITMOE_USAGE, "no such place"},
      {{.step = STEPS}, DITMOE_USAGE, "no such place"},
      {{.layer = L}, DITMOE_USAGE, "no such place"},
      {{.evaluation = -1}, DITMOE_USAGE, "no such place"},
      {{.half = (enum ditmoe_half)7}, DITMOE_USAGE, "half 7"},
      {{.image = 3}, DITMOE_USAGE, "image 3, step 0, layer 0: it has been counted already"},
      {{.first = (int32_t[]){0, 2, 1, 1, 1}}, DITMOE_USAGE, "token 1 has no number"},
      {{.first = (int32_t[]){1, 2, 2, 2, 2}}, DITMOE_USAGE, "token 0 has no number"},
      {{.first = (int32_t[]){0, 4, 4, 4, 4}}, DITMOE_USAGE, "token 0 has no number"},
      {{.expert = (uint16_t[]){0, E}}, DITMOE_USAGE, "token 0: there is no expert 3"},
      {{.expert = (uint16_t[]){0, 0}}, DITMOE_USAGE, "token 0: expert 0 is there twice"},
      {{.weight = (float[]){NAN, 0}}, DITMOE_USAGE, "weight nan"},
      {{.weight = (float[]){2000, 0}}, DITMOE_USAGE, "weight 2000"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const struct ditmoe_trace_record *change = &cases[i].change;
    struct ditmoe_trace_record record = *change;
    if (!record.first) record.first = first;
    if (!record.expert) record.expert = expert;
    if (!record.weight) record.weight = weight;
    if (!record.label) record.label = label_of(record.image);
    assert_fails(test_ctx(), cases[i].status, cases[i].text,
                 ditmoe_routing_count(test_ctx(), routing, &record));
  }
  assert_same_tables(routing, before);
  ditmoe_routing_destroy(routing);
  ditmoe_routing_destroy(before);
}

/* A count that is full is an error before anything has changed. */
static void test_overflow(void **state) {
  (void)state;
  struct ditmoe_routing *routing = counted(0, 1, 1, true), *other = counted(1, 2, 1, true);
  uint32_t *counts = routing->table[DITMOE_CONDITIONAL][TABLE_COUNTS];
  for (int i = 0; i < L * S * T * E; i++) counts[i] = UINT32_MAX;
  assert_fails(test_ctx(), DITMOE_FAILED, "too large",
               count_batch(test_ctx(), routing, 1, 2, true));
  assert_false(ditmoe_routing_has(routing, 1));
  assert_fails(test_ctx(), DITMOE_FAILED, "a sum in counts is too large",
               ditmoe_routing_merge(test_ctx(), routing, other));
  assert_false(ditmoe_routing_has(routing, 1));
  ditmoe_routing_destroy(routing);
  ditmoe_routing_destroy(other);
}

/* Merging and files. */

static struct ditmoe_routing *read_back(const char *path) {
  struct ditmoe_routing *routing = NULL;
  assert_ok(test_ctx(), ditmoe_routing_read(test_ctx(), path, &routing));
  return routing;
}

static void test_merge(void **state) {
  (void)state;
  static const int64_t edges[] = {0, 3, 4, 9, IMAGES};
  static const int orders[][4] = {{0, 1, 2, 3}, {3, 1, 0, 2}};
  struct ditmoe_routing *whole = counted(0, IMAGES, 4, true);
  for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
    struct ditmoe_routing *sum = make_routing(test_ctx());
    for (int i = 0; i < 4; i++) {
      const int part = orders[o][i];
      struct ditmoe_routing *from = counted(edges[part], edges[part + 1], 2, true);
      const char *path = temporary_path("part.npz");
      assert_ok(test_ctx(), ditmoe_routing_write(test_ctx(), from, path, DITMOE_ROUTING_EXACT));
      struct ditmoe_routing *read = read_back(path);
      assert_same_tables(read, from);
      assert_ok(test_ctx(), ditmoe_routing_merge(test_ctx(), sum, read));
      assert_fails(test_ctx(), DITMOE_MISMATCH, "both have counted image",
                   ditmoe_routing_merge(test_ctx(), sum, from));
      ditmoe_routing_destroy(read);
      ditmoe_routing_destroy(from);
    }
    assert_same_tables(sum, whole);
    ditmoe_routing_destroy(sum);
  }
  ditmoe_routing_destroy(whole);
}

static void test_merge_refused(void **state) {
  (void)state;
  struct ditmoe_routing *into = counted(0, 3, 3, true), *same = counted(0, 3, 3, true);
  struct ditmoe_routing *from = counted(3, 5, 2, true);
  assert_ok(test_ctx(),
            ditmoe_routing_describe(test_ctx(), into, "{\"model\":{\"sha256\":\"a\"}}"));
  assert_ok(test_ctx(),
            ditmoe_routing_describe(test_ctx(), from, "{\"model\":{\"sha256\":\"b\"}}"));
  assert_fails(test_ctx(), DITMOE_MISMATCH, "model differs",
               ditmoe_routing_merge(test_ctx(), into, from));
  assert_ok(test_ctx(),
            ditmoe_routing_describe(test_ctx(), from, "{\"model\":{\"sha256\":\"a\"}}"));
  from->shape.time[1] += 1;
  assert_fails(test_ctx(), DITMOE_MISMATCH, "times of the steps differ",
               ditmoe_routing_merge(test_ctx(), into, from));
  from->shape.time[1] = into->shape.time[1];
  from->shape.layer[1]++;
  assert_fails(test_ctx(), DITMOE_MISMATCH, "layers differ",
               ditmoe_routing_merge(test_ctx(), into, from));
  from->shape.layer[1]--;
  assert_same_tables(into, same);
  assert_ok(test_ctx(), ditmoe_routing_merge(test_ctx(), into, from));
  ditmoe_routing_destroy(from);
  ditmoe_routing_destroy(into);
  ditmoe_routing_destroy(same);
}

/* Exact: every bit, sums beyond 2^53 too. Final: weights to the precision of their types. */
static void test_round_trip(void **state) {
  (void)state;
  static const char meta[] = "{\"model\":\"\xc3\xa4 \\u001b[31m\",\"seed\":3}";
  struct ditmoe_routing *routing = counted(0, IMAGES, 4, true);
  const char *path = temporary_path("tables.npz");
  struct ditmoe_routing_info info;
  int64_t *mass = routing->table[DITMOE_CONDITIONAL][TABLE_MASS];
  indices_add(&routing->images, 20);
  assert_ok(test_ctx(), ditmoe_routing_describe(test_ctx(), routing, meta));
  assert_ok(test_ctx(), ditmoe_routing_write(test_ctx(), routing, path, DITMOE_ROUTING_FINAL));
  struct ditmoe_routing *final = read_back(path);
  const int64_t *rounded = final->table[DITMOE_CONDITIONAL][TABLE_MASS];
  for (int i = 0; i < L * S * T * E; i++)
    assert_true(fabs((double)(rounded[i] - mass[i])) <= fabs((double)mass[i]) * 0x1p-24 + 1);
  memcpy(final->table[DITMOE_CONDITIONAL][TABLE_MASS], mass, L * S * T * E * sizeof *mass);
  memcpy(final->table[DITMOE_UNCONDITIONAL][TABLE_MASS],
         routing->table[DITMOE_UNCONDITIONAL][TABLE_MASS], L * S * T * E * sizeof *mass);
  assert_same_tables(routing, final);
  mass[0] = INT64_MAX, mass[1] = -1, mass[2] = INT64_MIN, mass[3] = (INT64_C(1) << 53) + 1;
  assert_ok(test_ctx(), ditmoe_routing_write(test_ctx(), routing, path, DITMOE_ROUTING_EXACT));
  struct ditmoe_routing *exact = read_back(path);
  assert_same_tables(routing, exact);
  ditmoe_routing_info(exact, &info);
  assert_int_equal(info.images, IMAGES + 1);
  assert_true(ditmoe_routing_has(exact, 20) && !ditmoe_routing_has(exact, 19));
  assert_ok(test_ctx(), ditmoe_routing_describe(test_ctx(), routing, info.meta));
  struct ditmoe_routing_info own;
  ditmoe_routing_info(routing, &own);
  assert_string_equal(info.meta, own.meta);
  ditmoe_routing_destroy(exact);
  ditmoe_routing_destroy(final);
  ditmoe_routing_destroy(routing);
}

static void test_descriptions(void **state) {
  (void)state;
  static const char *const bad[] = {"", "[1]", "{", "{},{}", "{}],[{}", "7"};
  struct ditmoe_routing *routing = make_routing(test_ctx());
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_true(ditmoe_routing_describe(test_ctx(), routing, bad[i]) != DITMOE_OK);
  assert_string_equal(routing->meta, "{}");
  ditmoe_routing_destroy(routing);
}

/* Tables that have counted nothing. */
static void test_empty(void **state) {
  (void)state;
  struct ditmoe_routing *routing = make_routing(test_ctx()), *other = make_routing(test_ctx());
  const char *path = temporary_path("empty.npz");
  assert_ok(test_ctx(), ditmoe_routing_merge(test_ctx(), routing, other));
  assert_ok(test_ctx(), ditmoe_routing_write(test_ctx(), routing, path, DITMOE_ROUTING_FINAL));
  struct ditmoe_routing *read = read_back(path);
  assert_same_tables(routing, read);
  assert_false(ditmoe_routing_has(read, 0));
  ditmoe_routing_destroy(read);
  ditmoe_routing_destroy(other);
  ditmoe_routing_destroy(routing);
}

/* Files that must be refused. */

static uint32_t number_at(const uint8_t *at, int bytes) {
  uint32_t value = 0;
  for (int i = bytes - 1; i >= 0; i--) value = value << 8 | at[i];
  return value;
}

/* Changes the entry `name` of an archive, its header included, in place: `from` becomes `to`, or
 * without those the last element becomes -1; checksums are right again. */
static void change(uint8_t *file, size_t size, const char *name, const char *from, const char *to) {
  enum { LOCAL = 30, CENTRAL = 46 };
  const size_t length = strlen(name);
  uint8_t *entry = file;
  while (number_at(entry + 26, 2) != length || memcmp(entry + LOCAL, name, length) != 0)
    entry += LOCAL + number_at(entry + 26, 2) + number_at(entry + 28, 2) + number_at(entry + 18, 4);
  uint8_t *data = entry + LOCAL + length + number_at(entry + 28, 2);
  const size_t bytes = number_at(entry + 18, 4);
  uint8_t *place = from ? memmem(data, bytes, from, strlen(from)) : data + bytes - 8;
  assert_non_null(place);
  if (from)
    memcpy(place, to, strlen(to));
  else
    memset(place, 0xff, 8);
  const uint32_t crc = (uint32_t)crc32(0, data, (uInt)bytes);
  uint8_t *central = data + bytes, *end = file + size;
  do {
    central = memmem(central + 1, (size_t)(end - central) - 1, name, length);
    assert_non_null(central);
  } while (number_at(central - CENTRAL, 4) != 0x02014b50);
  memcpy(entry + 14, &crc, sizeof crc);
  memcpy(central - CENTRAL + 16, &crc, sizeof crc);
}

static void test_bad_files(void **state) {
  (void)state;
  static const struct {
    const char *array, *from, *to, *text;
  } cases[] = {
      {"info.npy", "\"version\":1", "\"version\":2", "array info: the file is of version 2"},
      {"info.npy", "ditmoe-routing", "ditmoe-running", "array info: \"format\" is not"},
      {"info.npy", "\"side\":2", "\"side\":3", "array counts: its shape is [2, 2, 4, 3]"},
      {"info.npy", "\"side\":2", "\"side\":0", "\"side\" is not a whole number"},
      {"info.npy", "\"top_k\":0", "\"top_k\":8", "do not fit: top_k"},
      {"info.npy", "\"run\":{}", "\"run\":[]", "\"run\" is no object"},
      {"info.npy", "{\"format", "{{format ", "array info: bad JSON"},
      {"layers.npy", "<i4", "<f4", "array layers: its type is <f4 instead of <i4"},
      {"layers.npy", NULL, NULL, "array layers: element 0 is -1"},
      {"layer_experts.npy", NULL, NULL, "array layer_experts: element 0"},
      {"bin_steps.npy", NULL, NULL, "array bin_steps: element 1"},
      {"times.npy", NULL, NULL, "array times: element 4"},
      {"images.npy", NULL, NULL, "array images: element 1"},
      {"counts.npy", "(2, 2, 4, 3)", "(2, 2, 3, 4)", "its shape is [2, 2, 3, 4] instead of"},
      {"uncond_kept.npy", NULL, NULL, "array uncond_kept: element 19 is -1"},
      {"mass.npy", NULL, NULL, "array mass: element 46"},
      {"pairs.npy", "<i8", "<f8", "array pairs: its type is <f8"},
  };
  struct ditmoe_routing *routing = counted(0, 3, 3, true), *read = NULL;
  const char *good = temporary_path("good.npz"), *bad = temporary_path("bad.npz");
  assert_ok(test_ctx(), ditmoe_routing_write(test_ctx(), routing, good, DITMOE_ROUTING_FINAL));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t size;
    char *file = file_bytes(good, &size);
    change((uint8_t *)file, size, cases[i].array, cases[i].from, cases[i].to);
    assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), bad, file, size));
    assert_fails(test_ctx(), DITMOE_FORMAT, cases[i].text,
                 ditmoe_routing_read(test_ctx(), bad, &read));
    assert_fails(test_ctx(), DITMOE_FORMAT,
                 "bad.npz: ", ditmoe_routing_read(test_ctx(), bad, &read));
    free(file);
  }
  assert_null(read);
  assert_fails(test_ctx(), DITMOE_FORMAT, "array info is missing",
               ditmoe_routing_read(test_ctx(), fixture_path("metrics/adm_ref_batch.npz"), &read));
  ditmoe_routing_destroy(routing);
}

/* The n-th allocation fails, for every n. */
static enum ditmoe_status whole_use(struct ditmoe_ctx *ctx, const char *path) {
  struct ditmoe_routing *a = make_routing(ctx), *b = a ? make_routing(ctx) : NULL, *c = NULL;
  enum ditmoe_status status = b ? DITMOE_OK : DITMOE_NOMEM;
  if (status == DITMOE_OK) status = count_batches(ctx, a, 0, 10, 10, true);
  if (status == DITMOE_OK) status = count_batches(ctx, b, 10, 12, 1, false);
  if (status == DITMOE_OK) status = ditmoe_routing_describe(ctx, a, "{\"seed\":1}");
  if (status == DITMOE_OK) status = ditmoe_routing_merge(ctx, a, b);
  if (status == DITMOE_OK) status = ditmoe_routing_write(ctx, a, path, DITMOE_ROUTING_EXACT);
  if (status == DITMOE_OK) status = ditmoe_routing_read(ctx, path, &c);
  ditmoe_routing_destroy(a);
  ditmoe_routing_destroy(b);
  ditmoe_routing_destroy(c);
  return status;
}

static void test_allocation_failures(void **state) {
  (void)state;
  char path[256];
  snprintf(path, sizeof path, "%s", temporary_path("failing.npz"));
  for (int64_t at = 0;; at++) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    const enum ditmoe_status status = whole_use(ctx, path);
    const bool fired = faulty_fired();
    assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
    if (!fired) break;
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_plain_loops),   cmocka_unit_test(test_orders),
      cmocka_unit_test(test_rotation),      cmocka_unit_test(test_bad_records),
      cmocka_unit_test(test_overflow),      cmocka_unit_test(test_merge),
      cmocka_unit_test(test_merge_refused), cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_descriptions),  cmocka_unit_test(test_empty),
      cmocka_unit_test(test_bad_files),     cmocka_unit_test(test_allocation_failures),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
