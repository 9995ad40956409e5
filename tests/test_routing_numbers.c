/* Numbers about routing: of planted choices, whose numbers are known, and of random ones, against
 * definitions written out. */
#include "base/rng.h"
#include "tests/support.h"
#include "trace/tables.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 4, EXPERTS = 4, LABELS = 4, SIDE = 4, TOKENS = 16, MOST = 4 };
#define EXACT 1e-12

/* What is chosen: the experts of a token, the leading one first; returns their number. */
struct where {
  int64_t image;
  int label, step, layer, token;
  enum ditmoe_half half;
};
typedef int chooser(const struct where *where, uint16_t expert[MOST]);

struct plan {
  chooser *choose;
  int images, layers, experts, layer_experts; /* layer_experts: of all but layer 0; 0: the same */
  int side, steps, bins, halves, uncond;      /* uncond: its number, or 0 */
  int32_t (*other_label)(void *user, int64_t image);
};

static int32_t no_label(void *user, int64_t image) {
  (void)user, (void)image;
  return -1;
}

static struct ditmoe_routing *empty(const struct plan *p) {
  struct routing_shape shape = {.layers = p->layers ? p->layers : 1,
                                .steps = p->steps ? p->steps : STEPS,
                                .side = p->side ? p->side : SIDE,
                                .experts = p->experts ? p->experts : EXPERTS,
                                .labels = LABELS + 1,
                                .uncond_expert = p->uncond ? p->uncond : -1,
                                .null_label = LABELS,
                                .halves = p->halves ? p->halves : 1};
  struct ditmoe_routing *routing;
  shape.bins = p->bins ? p->bins : shape.steps;
  shape.tokens = shape.side * shape.side;
  assert_ok(test_ctx(), shape_alloc(test_ctx(), &shape));
  for (int l = 0; l < shape.layers; l++) {
    shape.layer[l] = 2 * l + 1;
    shape.layer_experts[l] = l && p->layer_experts ? p->layer_experts : shape.experts;
  }
  shape_divide_steps(&shape);
  assert_ok(test_ctx(), routing_create(test_ctx(), &shape, &routing));
  routing->other_label = p->other_label ? p->other_label : no_label;
  shape_free(test_ctx(), &shape);
  return routing;
}

static void count_layer(struct ditmoe_routing *routing, chooser *choose, struct where where) {
  const int T = routing->shape.tokens;
  int32_t *first = calloc((size_t)T + 1, sizeof *first);
  uint16_t *expert = calloc((size_t)T * MOST, sizeof *expert);
  float *weight = calloc((size_t)T * MOST, sizeof *weight);
  assert_true(first && expert && weight);
  for (where.token = 0; where.token < T; where.token++) {
    const int at = first[where.token], n = choose(&where, expert + at);
    for (int i = 0; i < n; i++) weight[at + i] = 1 / (float)(i + 1);
    first[where.token + 1] = at + n;
  }
  const struct ditmoe_trace_record record = {.image = where.image,
                                             .label = where.label,
                                             .other_label = routing->other_label(NULL, where.image),
                                             .step = where.step,
                                             .layer = where.layer,
                                             .half = where.half,
                                             .first = first,
                                             .expert = expert,
                                             .weight = weight};
  assert_ok(test_ctx(), ditmoe_routing_count(test_ctx(), routing, &record));
  free(first), free(expert), free(weight);
}

/* Tables of a plan; classes take turns. */
static struct ditmoe_routing *counted(const struct plan *p) {
  struct ditmoe_routing *routing = empty(p);
  const struct routing_shape *s = &routing->shape;
  for (int64_t image = 0; image < p->images; image++)
    for (int step = 0; step < s->steps; step++)
      for (int half = 0; half < s->halves; half++)
        for (int layer = 0; layer < s->layers; layer++)
          count_layer(routing, p->choose,
                      (struct where){image, (int)(image % LABELS), step, layer, 0, half});
  return routing;
}

static struct ditmoe_routing_load load_of(const struct ditmoe_routing *r, int layer, int bin,
                                          double *load) {
  struct ditmoe_routing_load out;
  ditmoe_routing_load(r, DITMOE_CONDITIONAL, layer, bin, &out, load);
  return out;
}

static struct ditmoe_routing_dependence dependence_of(const struct ditmoe_routing *r, int layer,
                                                      enum ditmoe_routing_axis axis) {
  struct ditmoe_routing_dependence out;
  ditmoe_routing_dependence(r, DITMOE_CONDITIONAL, layer, axis, &out);
  return out;
}

static struct ditmoe_routing_memory memory_of(const struct ditmoe_routing *r, int layer) {
  struct ditmoe_routing_memory out;
  ditmoe_routing_memory(r, DITMOE_CONDITIONAL, layer, &out);
  return out;
}

#define assert_near(value, expected) assert_within(#value, fabs((value) - (expected)), EXACT)

static void assert_dependence(const struct ditmoe_routing *r, int layer,
                              enum ditmoe_routing_axis axis, double bits, double normalised) {
  const struct ditmoe_routing_dependence out = dependence_of(r, layer, axis);
  assert_near(out.information, bits);
  assert_near(out.normalised, normalised);
}

/* Of 400 images turned at random, about (X - 1)(E - 1) / (2 ln 2 * 400) = 0.016 bits are left where
 * X = E = 4. */
static void assert_little_left(const struct ditmoe_routing *r, enum ditmoe_routing_axis axis) {
  const struct ditmoe_routing_dependence out = dependence_of(r, 0, axis);
  assert_within("shuffled", out.shuffled, 0.05);
  assert_within("shuffled, normalised", out.shuffled_normalised, 0.05);
  assert_true(out.shuffled >= 0 && out.shuffled_normalised >= 0);
}

/* Dependences. */

static int by_position(const struct where *w, uint16_t expert[MOST]) {
  expert[0] = (uint16_t)(w->token % EXPERTS);
  return 1;
}

static int by_step(const struct where *w, uint16_t expert[MOST]) {
  expert[0] = (uint16_t)w->step;
  return 1;
}

static int by_label(const struct where *w, uint16_t expert[MOST]) {
  expert[0] = (uint16_t)w->label;
  return 1;
}

/* Each expert for a quarter of the images of each class. */
static int by_image(const struct where *w, uint16_t expert[MOST]) {
  expert[0] = (uint16_t)(w->image / LABELS % EXPERTS);
  return 1;
}

static int32_t any_label(void *user, int64_t image) {
  (void)user;
  return (int32_t)rng_below(LABELS, 5, (uint64_t)image, 0, RNG_LABEL);
}

static void test_one_hot(void **state) {
  static chooser *const choose[DITMOE_AXES] = {by_position, by_step, by_label};
  (void)state;
  for (int planted = 0; planted < DITMOE_AXES; planted++) {
    const struct plan p = {.choose = choose[planted], .images = 400, .other_label = any_label};
    struct ditmoe_routing *r = counted(&p);
    for (int axis = 0; axis < DITMOE_AXES; axis++)
      for (int layer = -1; layer < 1; layer++)
        assert_dependence(r, layer, axis, axis == planted ? 2 : 0, axis == planted);
    assert_little_left(r, planted);
    const struct ditmoe_routing_load load = load_of(r, 0, -1, NULL);
    assert_near(load.tokens, 400.0 * STEPS * TOKENS);
    assert_near(load.evenness, 1);
    ditmoe_routing_destroy(r);
  }
}

/* Shuffling keeps what does not depend on the axis. */
static void test_independent(void **state) {
  (void)state;
  struct ditmoe_routing *r = counted(&(struct plan){.choose = by_image, .images = 64});
  for (int axis = 0; axis < DITMOE_AXES; axis++) assert_dependence(r, 0, axis, 0, 0);
  assert_near(dependence_of(r, 0, DITMOE_BY_POSITION).shuffled, 0);
  assert_true(isnan(dependence_of(r, 0, DITMOE_BY_LABEL).shuffled));
  assert_true(isnan(dependence_of(r, 0, DITMOE_BY_LABEL).shuffled_normalised));
  ditmoe_routing_destroy(r);
}

/* Two bins tell one of the two bits of the step. */
static void test_bins(void **state) {
  (void)state;
  double load[EXPERTS];
  struct ditmoe_routing *r = counted(&(struct plan){.choose = by_step, .images = 8, .bins = 2});
  assert_dependence(r, 0, DITMOE_BY_STEP, 1, 0.5);
  load_of(r, 0, 0, load);
  for (int e = 0; e < EXPERTS; e++) assert_near(load[e], e < 2 ? 2 : 0);
  const struct ditmoe_routing_load late = load_of(r, 0, 1, load);
  assert_near(late.tokens, 8 * 2 * TOKENS);
  assert_near(late.entropy, 1);
  for (int e = 0; e < EXPERTS; e++) assert_near(load[e], e < 2 ? 0 : 2);
  ditmoe_routing_destroy(r);
}

enum { MANY = 100 };

static int many(const struct where *w, uint16_t expert[MOST]) {
  expert[0] = (uint16_t)(w->token % MANY);
  return 1;
}

/* More experts than are looked at in one go. */
static void test_many(void **state) {
  (void)state;
  struct ditmoe_routing *r =
      counted(&(struct plan){.choose = many, .images = 2, .side = 20, .experts = MANY});
  assert_dependence(r, 0, DITMOE_BY_POSITION, log2(MANY), 1);
  assert_dependence(r, 0, DITMOE_BY_STEP, 0, 0);
  const struct ditmoe_routing_load load = load_of(r, 0, -1, NULL);
  assert_near(load.entropy, log2(MANY));
  assert_int_equal(load.dead, 0);
  assert_near(load.variation, 0);
  assert_near(memory_of(r, 0).by_chance, 1.0 / MANY);
  ditmoe_routing_destroy(r);
}

/* Loads. */

static int half_dead(const struct where *w, uint16_t expert[MOST]) {
  expert[0] = w->token % 4 == 0 ? 3 : 1;
  return 1;
}

static void test_load(void **state) {
  (void)state;
  double load[EXPERTS];
  struct ditmoe_routing *r = counted(&(struct plan){.choose = half_dead, .images = 3});
  const struct ditmoe_routing_load all = load_of(r, 0, -1, load);
  const double expected[EXPERTS] = {0, 3, 0, 1};
  for (int e = 0; e < EXPERTS; e++) assert_near(load[e], expected[e]);
  assert_int_equal(all.experts, EXPERTS);
  assert_int_equal(all.dead, 2);
  assert_near(all.largest, 3);
  assert_near(all.smallest, 0);
  assert_near(all.variation, sqrt((1 + 4 + 1 + 0) / 4.0));
  assert_near(all.entropy, 2 - 0.75 * log2(3));
  assert_near(all.evenness, all.entropy / 2);
  assert_near(load_of(r, 0, 2, NULL).tokens, 3 * TOKENS);
  ditmoe_routing_destroy(r);
}

/* 8, 4, 2 and 2 tokens of 16. */
static int halving(const struct where *w, uint16_t expert[MOST]) {
  expert[0] = (uint16_t)(w->token < 8 ? 0 : w->token < 12 ? 1 : w->token < 14 ? 2 : 3);
  return 1;
}

static void test_uneven(void **state) {
  (void)state;
  struct ditmoe_routing *r = counted(&(struct plan){.choose = halving, .images = 2});
  const struct ditmoe_routing_load all = load_of(r, 0, -1, NULL);
  assert_near(all.largest, 2);
  assert_near(all.smallest, 0.5);
  assert_near(all.entropy, 1.75);
  assert_near(all.evenness, 0.875);
  assert_near(all.variation, sqrt(1.5 / 4));
  assert_int_equal(all.dead, 0);
  ditmoe_routing_destroy(r);
}

/* Every fourth image goes to the unconditional expert, which layer 1 has not. */
static int or_uncond(const struct where *w, uint16_t expert[MOST]) {
  expert[0] = (uint16_t)(w->label == 3 && w->layer == 0 ? 2 : w->token % 2);
  return 1;
}

static void test_uncond(void **state) {
  (void)state;
  double load[3];
  struct ditmoe_routing *r = counted(&(struct plan){.choose = or_uncond,
                                                    .images = 8,
                                                    .layers = 2,
                                                    .experts = 3,
                                                    .layer_experts = 2,
                                                    .uncond = 2});
  for (int layer = 0; layer < 2; layer++) {
    const struct ditmoe_routing_load all = load_of(r, layer, -1, load);
    assert_int_equal(all.experts, 2);
    assert_int_equal(all.dead, 0);
    assert_near(all.tokens, (layer ? 8 : 6) * STEPS * TOKENS);
    assert_near(all.evenness, 1);
    assert_near(load[1], 1);
    assert_dependence(r, layer, DITMOE_BY_LABEL, 0, 0);
    assert_dependence(r, layer, DITMOE_BY_POSITION, 1, 1);
  }
  load_of(r, 0, -1, load);
  assert_near(load[2], 0);
  assert_near(memory_of(r, 0).by_chance, 2 * 0.375 * 0.375 + 0.25 * 0.25);
  ditmoe_routing_destroy(r);
}

/* Memory. */

/* The leading expert changes at steps 2 and 4 of five. */
static int slow(const struct where *w, uint16_t expert[MOST]) {
  expert[0] = (uint16_t)((w->token + w->step / 2) % EXPERTS);
  return 1;
}

/* The same two experts, which take turns to lead. */
static int swapped(const struct where *w, uint16_t expert[MOST]) {
  const int a = w->token % EXPERTS, b = (a + 1) % EXPERTS;
  expert[0] = (uint16_t)(w->step % 2 ? b : a);
  expert[1] = (uint16_t)(w->step % 2 ? a : b);
  return 2;
}

/* Expert 0 always, one of the others. */
static int favoured(const struct where *w, uint16_t expert[MOST]) {
  expert[0] = 0;
  expert[1] = (uint16_t)(1 + (w->image + w->token + w->step) % 3);
  return 2;
}

static void test_kept(void **state) {
  static const struct {
    chooser *choose;
    int steps, images;
    double kept, kept_leading, by_chance;
  } cases[] = {
      {by_position, 4, 2, 1, 1, 0.25},   {by_step, 4, 2, 0, 0, 0.25},
      {slow, 5, 2, 0.5, 0.5, 0.25},      {swapped, 4, 2, 1, 0, 0.5},
      {favoured, 3, 3, 0.5, 1, 2 / 3.0},
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct ditmoe_routing *r = counted(&(struct plan){
        .choose = cases[i].choose, .images = cases[i].images, .steps = cases[i].steps});
    const struct ditmoe_routing_memory out = memory_of(r, 0);
    assert_near(out.kept, cases[i].kept);
    assert_near(out.kept_leading, cases[i].kept_leading);
    assert_near(out.by_chance, cases[i].by_chance);
    ditmoe_routing_destroy(r);
  }
}

/* Layer 1 follows from layer 0; layer 2 from layer 1 for three of four tokens. */
static int in_layers(const struct where *w, uint16_t expert[MOST]) {
  const int one = w->token % 4 / 2;
  expert[0] = (uint16_t)(w->layer == 0    ? w->token % 4
                         : w->layer == 1  ? one
                         : w->token >= 12 ? 1 - one
                                          : one);
  return 1;
}

static void test_layers(void **state) {
  (void)state;
  struct ditmoe_routing *r = counted(&(struct plan){.choose = in_layers, .images = 2, .layers = 3});
  assert_true(isnan(memory_of(r, 0).from_layer));
  assert_true(isnan(memory_of(r, 0).from_nothing));
  assert_near(memory_of(r, 1).from_layer, 1);
  assert_near(memory_of(r, 1).from_nothing, 0.5);
  assert_near(memory_of(r, 2).from_layer, 0.75);
  assert_near(memory_of(r, 2).from_nothing, 0.5);
  const struct ditmoe_routing_memory mean = memory_of(r, -1);
  assert_near(mean.from_layer, 0.875);
  assert_near(mean.from_nothing, 0.5);
  assert_near(mean.kept, 1);
  assert_near(mean.by_chance, (0.25 + 0.5 + 0.5) / 3);
  assert_dependence(r, 0, DITMOE_BY_POSITION, 2, 1);
  assert_dependence(r, 2, DITMOE_BY_POSITION, 1, 1);
  assert_dependence(r, -1, DITMOE_BY_POSITION, 4 / 3.0, 1);
  ditmoe_routing_destroy(r);
}

/* Nothing. */

static void assert_zeros(const double *values, size_t n) {
  for (size_t i = 0; i < n; i++) assert_true(values[i] == 0);
}

static void assert_nothing(const struct ditmoe_routing *r, enum ditmoe_half half) {
  struct ditmoe_routing_load all;
  struct ditmoe_routing_dependence told;
  struct ditmoe_routing_memory memory;
  double load[EXPERTS] = {1, 1, 1, 1};
  for (int layer = 0; layer < 2; layer++) {
    ditmoe_routing_load(r, half, layer, layer - 1, &all, load);
    assert_zeros(&all.tokens, 6);
    assert_zeros(load, EXPERTS);
    assert_int_equal(all.experts, EXPERTS);
    assert_int_equal(all.dead, EXPERTS);
  }
  for (int layer = -1; layer < 2; layer++) {
    for (int axis = 0; axis < DITMOE_AXES; axis++) {
      ditmoe_routing_dependence(r, half, layer, axis, &told);
      assert_zeros(&told.information, 2);
      assert_int_equal(isnan(told.shuffled), axis == DITMOE_BY_LABEL);
      assert_int_equal(isnan(told.shuffled_normalised), axis == DITMOE_BY_LABEL);
    }
    ditmoe_routing_memory(r, half, layer, &memory);
    assert_zeros(&memory.kept, 3);
    assert_int_equal(isnan(memory.from_layer), layer == 0);
    assert_int_equal(isnan(memory.from_nothing), layer == 0);
  }
}

static void test_nothing(void **state) {
  (void)state;
  struct ditmoe_routing *r = empty(&(struct plan){.layers = 2, .halves = 2});
  assert_nothing(r, DITMOE_CONDITIONAL);
  assert_nothing(r, DITMOE_UNCONDITIONAL);
  ditmoe_routing_destroy(r);
  r = counted(&(struct plan){.choose = by_position, .images = 1, .layers = 2});
  assert_nothing(r, DITMOE_UNCONDITIONAL);
  ditmoe_routing_destroy(r);
}

/* A single expert has nothing to tell; a single layer none before it. */
static int only(const struct where *w, uint16_t expert[MOST]) {
  (void)w;
  expert[0] = 0;
  return 1;
}

static void test_single(void **state) {
  (void)state;
  struct ditmoe_routing *r =
      counted(&(struct plan){.choose = only, .images = 2, .experts = 1, .steps = 1});
  const struct ditmoe_routing_load load = load_of(r, 0, -1, NULL);
  assert_near(load.evenness, 1);
  assert_near(load.entropy, 0);
  assert_dependence(r, 0, DITMOE_BY_POSITION, 0, 0);
  assert_near(memory_of(r, 0).by_chance, 1);
  assert_near(memory_of(r, 0).kept, 0);
  assert_true(isnan(memory_of(r, -1).from_layer));
  ditmoe_routing_destroy(r);
}

/* Random choices. */

static int random_choices(const struct where *w, uint16_t expert[MOST]) {
  const uint64_t seed = (uint64_t)(w->layer * 2 + (int)w->half);
  const uint32_t step = (uint32_t)(w->step * TOKENS + w->token);
  const int n = (int)rng_below(3, seed, (uint64_t)w->image, step, RNG_LABEL);
  const int from = (int)rng_below(5, seed + 9, (uint64_t)w->image, step, RNG_LABEL);
  for (int i = 0; i < n; i++) expert[i] = (uint16_t)((from * from + i + w->token / 5) % 5);
  return n;
}

/* Information of a table [X, E], and as a share of the expert's entropy. */
static void written_out(const double *counts, int X, int E, double *bits, double *normalised) {
  double rows[64] = {0}, columns[8] = {0}, total = 0, entropy = 0;
  assert_true(X <= 64 && E <= 8);
  for (int i = 0; i < X * E; i++) {
    rows[i / E] += counts[i];
    columns[i % E] += counts[i];
    total += counts[i];
  }
  *bits = 0;
  for (int i = 0; i < X * E; i++)
    if (counts[i] > 0)
      *bits += counts[i] / total * log2(counts[i] * total / (rows[i / E] * columns[i % E]));
  for (int e = 0; e < E; e++)
    entropy -= columns[e] > 0 ? columns[e] / total * log2(columns[e] / total) : 0;
  *normalised = *bits / entropy;
}

/* The table of an axis in one layer; returns its rows. */
static int axis_table(const struct ditmoe_routing_info *info, const struct ditmoe_routing_tables *t,
                      int layer, enum ditmoe_routing_axis axis, bool shuffled, double *out) {
  const int S = info->bins, T = info->tokens, E = info->experts;
  const int rows[DITMOE_AXES] = {T, S, info->labels}, X = rows[axis];
  const uint64_t *const sums[2][DITMOE_AXES] = {
      {NULL, NULL, t->class_counts},
      {t->shuffled_positions, t->shuffled_steps, t->shuffled_labels}};
  const uint64_t *given = sums[shuffled][axis];
  memset(out, 0, (size_t)(X * E) * sizeof *out);
  for (int i = 0; !given && i < S * T * E; i++) {
    const int x = axis == DITMOE_BY_STEP ? i / E / T : i / E % T;
    out[x * E + i % E] += t->counts[layer * S * T * E + i];
  }
  for (int i = 0; given && i < X * E; i++) out[i] = (double)given[layer * X * E + i];
  return X;
}

static void assert_told(const struct ditmoe_routing *r, enum ditmoe_half half, int layer,
                        enum ditmoe_routing_axis axis) {
  struct ditmoe_routing_info info;
  struct ditmoe_routing_tables tables;
  struct ditmoe_routing_dependence told;
  double counts[64 * 8], bits, normalised;
  ditmoe_routing_info(r, &info);
  ditmoe_routing_tables(r, half, &tables);
  ditmoe_routing_dependence(r, half, layer, axis, &told);
  int X = axis_table(&info, &tables, layer, axis, false, counts);
  written_out(counts, X, info.experts, &bits, &normalised);
  assert_true(bits > 0.001);
  assert_near(told.information, bits);
  assert_near(told.normalised, normalised);
  X = axis_table(&info, &tables, layer, axis, true, counts);
  written_out(counts, X, info.experts, &bits, &normalised);
  assert_near(told.shuffled, bits);
  assert_near(told.shuffled_normalised, normalised);
}

static void assert_kept(const struct ditmoe_routing *r, enum ditmoe_half half, int layer) {
  struct ditmoe_routing_tables tables;
  struct ditmoe_routing_memory told;
  double sums[4] = {0};
  ditmoe_routing_tables(r, half, &tables);
  ditmoe_routing_memory(r, half, layer, &told);
  for (int i = 2 * layer * r->shape.steps; i < 2 * (layer + 1) * r->shape.steps; i++) {
    sums[i % 2] += (double)tables.kept[i];
    sums[2 + i % 2] += (double)tables.kept_leading[i];
  }
  assert_true(sums[0] > 0 && sums[2] > 0);
  assert_near(told.kept, sums[0] / sums[1]);
  assert_near(told.kept_leading, sums[2] / sums[3]);
}

static void test_random(void **state) {
  (void)state;
  struct ditmoe_routing *r = counted(&(struct plan){.choose = random_choices,
                                                    .images = 6,
                                                    .layers = 2,
                                                    .experts = 5,
                                                    .steps = 7,
                                                    .bins = 3,
                                                    .halves = 2,
                                                    .other_label = any_label});
  for (int half = 0; half < DITMOE_HALVES; half++)
    for (int layer = 0; layer < 2; layer++) {
      for (int axis = 0; axis < DITMOE_AXES; axis++) assert_told(r, half, layer, axis);
      assert_kept(r, half, layer);
    }
  ditmoe_routing_destroy(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_one_hot), cmocka_unit_test(test_independent),
      cmocka_unit_test(test_bins),    cmocka_unit_test(test_many),
      cmocka_unit_test(test_load),    cmocka_unit_test(test_uneven),
      cmocka_unit_test(test_uncond),  cmocka_unit_test(test_kept),
      cmocka_unit_test(test_layers),  cmocka_unit_test(test_nothing),
      cmocka_unit_test(test_single),  cmocka_unit_test(test_random),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
