/* Counting: the only place where a record changes tables. First everything is checked and summed
 * up beside them, then added, so that a record is counted whole or not at all. */
#include "base/rng.h"
#include "trace/tables.h"
#include "trace/trace.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Weights are softmax, sigmoid or cosine: far below this, whose multiples fit 64 bits. */
#define MOST_WEIGHT 1024.0f

/* A record and where it goes. */
struct counting {
  struct ditmoe_ctx *ctx;
  struct ditmoe_routing *routing;
  const struct ditmoe_trace_record *record;
  void *const *table; /* of the half */
  struct slot *slot;  /* NULL: the image is new */
  int bin;
  size_t words;
  int64_t cell; /* of layer, bin, token 0, expert 0 in [L, S, T, E] */
};

__attribute__((format(printf, 3, 4))) static enum ditmoe_status
bad_record(const struct counting *c, enum ditmoe_status code, const char *format, ...) {
  const struct ditmoe_trace_record *r = c->record;
  char what[200];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  return fail(c->ctx, code, "routing of image %lld, step %d, layer %d: %s", (long long)r->image,
              r->step, r->layer, what);
}

/* Checks. */

static bool comes_after(const struct ditmoe_trace_record *r, const struct place *last) {
  if (r->step != last->step) return r->step > last->step;
  if (r->evaluation != last->evaluation) return r->evaluation > last->evaluation;
  return r->layer > last->layer;
}

static enum ditmoe_status check_place(const struct counting *c) {
  const struct ditmoe_trace_record *r = c->record;
  const struct routing_shape *shape = &c->routing->shape;
  if (r->image < 0 || r->image >= MOST_IMAGES || r->label < 0 || r->label >= shape->labels ||
      r->other_label < -1 || r->other_label >= shape->labels || r->step < 0 ||
      r->step >= shape->steps || r->layer < 0 || r->layer >= shape->layers || r->evaluation < 0)
    return bad_record(c, DITMOE_USAGE, "the tables have no such place (label %d, evaluation %d)",
                      r->label, r->evaluation);
  if (r->half != DITMOE_CONDITIONAL && r->half != DITMOE_UNCONDITIONAL)
    return bad_record(c, DITMOE_USAGE, "half %d is unknown", (int)r->half);
  if ((int)r->half >= shape->halves)
    return bad_record(c, DITMOE_MISMATCH, "the tables leave out the unconditional half");
  return DITMOE_OK;
}

static enum ditmoe_status check_order(const struct counting *c) {
  const struct ditmoe_trace_record *r = c->record;
  if (c->slot ? !comes_after(r, &c->slot->half[r->half].last)
              : indices_has(&c->routing->images, r->image))
    return bad_record(c, DITMOE_USAGE, "it has been counted already");
  if (c->slot && c->slot->label != r->label)
    return bad_record(c, DITMOE_USAGE, "its label is %d, but was %d", r->label, c->slot->label);
  return DITMOE_OK;
}

/* llround, whose sum here is exact: a weight has 24 bits. */
static int64_t units(float weight) {
  const double scaled = (double)weight / DITMOE_ROUTING_UNIT;
  return (int64_t)(scaled + copysign(0.5, scaled));
}

/* One choice: into the sums beside the tables. */
static enum ditmoe_status check_choice(const struct counting *c, int token, int32_t at) {
  const struct ditmoe_routing *routing = c->routing;
  const int expert = c->record->expert[at];
  const float weight = c->record->weight[at];
  const int64_t cell = c->cell + (int64_t)token * routing->shape.experts + expert;
  const uint32_t *counts = c->table[TABLE_COUNTS];
  const int64_t *mass = c->table[TABLE_MASS];
  uint64_t *word = routing->scratch.chosen + (size_t)token * c->words + expert / 64;
  const uint64_t bit = UINT64_C(1) << expert % 64;
  int64_t sum;
  if (expert >= routing->shape.layer_experts[c->record->layer])
    return bad_record(c, DITMOE_USAGE, "token %d: there is no expert %d", token, expert);
  if (!(fabsf(weight) <= MOST_WEIGHT))
    return bad_record(c, DITMOE_USAGE, "token %d: weight %g", token, (double)weight);
  if (*word & bit)
    return bad_record(c, DITMOE_USAGE, "token %d: expert %d is there twice", token, expert);
  *word |= bit;
  routing->scratch.load[expert]++;
  if (counts[cell] == UINT32_MAX)
    return bad_record(c, DITMOE_FAILED, "the count of token %d, expert %d is too large", token,
                      expert);
  if (!mass) return DITMOE_OK;
  if (__builtin_add_overflow(mass[cell], units(weight), &sum) ||
      __builtin_add_overflow(routing->scratch.mass[expert], units(weight),
                             &routing->scratch.mass[expert]))
    return bad_record(c, DITMOE_FAILED, "the weights of expert %d are too large", expert);
  return DITMOE_OK;
}

static enum ditmoe_status check_class_mass(const struct counting *c) {
  const struct routing_shape *shape = &c->routing->shape;
  const struct ditmoe_trace_record *r = c->record;
  const int64_t *mass = c->table[TABLE_CLASS_MASS];
  int64_t sum;
  if (!mass) return DITMOE_OK;
  mass += ((int64_t)r->layer * shape->labels + r->label) * shape->experts;
  for (int e = 0; e < shape->experts; e++)
    if (__builtin_add_overflow(mass[e], c->routing->scratch.mass[e], &sum))
      return bad_record(c, DITMOE_FAILED, "the weights of class %d are too large", r->label);
  return DITMOE_OK;
}

static enum ditmoe_status check_choices(const struct counting *c) {
  const struct routing_shape *shape = &c->routing->shape;
  struct scratch *scratch = &c->routing->scratch;
  const int32_t *first = c->record->first;
  const size_t E = (size_t)shape->experts;
  memset(scratch->chosen, 0, (size_t)shape->tokens * c->words * sizeof *scratch->chosen);
  memset(scratch->load, 0, E * sizeof *scratch->load);
  memset(scratch->mass, 0, E * sizeof *scratch->mass);
  for (int t = 0; t < shape->tokens; t++) {
    if (first[t] > first[t + 1] || first[0] != 0 || first[t + 1] - first[t] > shape->experts)
      return bad_record(c, DITMOE_USAGE, "token %d has no number of choices", t);
    scratch->leading[t] = first[t] < first[t + 1] ? c->record->expert[first[t]] : NO_EXPERT;
    for (int32_t at = first[t]; at < first[t + 1]; at++) TRY(check_choice(c, t, at));
  }
  return check_class_mass(c);
}

/* Images. */

/* A key of our own; the words of RNG_LABEL with it belong to no other stream. */
static const uint64_t TURN_KEY = UINT64_C(0x726f7574696e6721);

static enum ditmoe_status new_image(struct counting *c) {
  struct ditmoe_routing *routing = c->routing;
  const int64_t image = c->record->image;
  const uint64_t index = (uint64_t)image;
  enum ditmoe_status status = indices_room(&routing->own, &routing->images);
  if (status == DITMOE_OK)
    status = slots_take(&routing->own, &routing->slots, &routing->shape, &c->slot);
  if (status != DITMOE_OK) return routing_failed(c->ctx, routing, status);
  c->slot->image = image;
  c->slot->label = c->record->label;
  c->slot->other_label = c->record->other_label;
  c->slot->turn_tokens =
      (int)rng_below((uint32_t)routing->shape.tokens, TURN_KEY, index, 0, RNG_LABEL);
  c->slot->turn_steps =
      (int)rng_below((uint32_t)routing->shape.steps, TURN_KEY, index, 1, RNG_LABEL);
  indices_add(&routing->images, image);
  return DITMOE_OK;
}

/* Adding. */

static void add_choices(const struct counting *c) {
  const struct routing_shape *shape = &c->routing->shape;
  const struct ditmoe_trace_record *r = c->record;
  const int64_t E = shape->experts, T = shape->tokens;
  uint32_t *counts = (uint32_t *)c->table[TABLE_COUNTS] + c->cell;
  int64_t *mass = c->table[TABLE_MASS] ? (int64_t *)c->table[TABLE_MASS] + c->cell : NULL;
  uint64_t *turned = (uint64_t *)c->table[TABLE_SHUFFLED_POSITIONS] + r->layer * T * E;
  for (int64_t t = 0, to = c->slot->turn_tokens; t < T; t++, to = to + 1 < T ? to + 1 : 0)
    for (int32_t at = r->first[t]; at < r->first[t + 1]; at++) {
      const int e = r->expert[at];
      counts[t * E + e]++;
      turned[to * E + e]++;
      if (mass) mass[t * E + e] += units(r->weight[at]);
    }
}

/* The loads of the record's experts to row `row` of a table [L, rows, E]. */
static void add_load(const struct counting *c, enum table table, int rows, int row) {
  const int E = c->routing->shape.experts;
  const int64_t at = ((int64_t)c->record->layer * rows + row) * E;
  const struct scratch *scratch = &c->routing->scratch;
  if (table == TABLE_CLASS_MASS) {
    int64_t *to = c->table[table];
    for (int e = 0; to && e < E; e++) to[at + e] += scratch->mass[e];
  } else {
    uint64_t *to = c->table[table];
    for (int e = 0; e < E; e++) to[at + e] += scratch->load[e];
  }
}

static void add_loads(const struct counting *c) {
  const struct routing_shape *shape = &c->routing->shape;
  const struct slot *slot = c->slot;
  const int turned = (c->record->step + slot->turn_steps) % shape->steps;
  const int other = slot->other_label;
  add_load(c, TABLE_CLASS_COUNTS, shape->labels, slot->label);
  add_load(c, TABLE_CLASS_MASS, shape->labels, slot->label);
  add_load(c, TABLE_SHUFFLED_STEPS, shape->bins, c->routing->bin_of[turned]);
  if (other >= 0 && other < shape->labels) add_load(c, TABLE_SHUFFLED_LABELS, shape->labels, other);
  if (c->record->layer > 0) return;
  ((uint64_t *)c->table[TABLE_EVALUATIONS])[c->bin]++;
  ((uint64_t *)c->table[TABLE_LABEL_EVALUATIONS])[slot->label]++;
}

/* What the step before chose, too. */
static void add_kept(const struct counting *c, const struct slot_half *half) {
  const struct routing_shape *shape = &c->routing->shape;
  const struct ditmoe_trace_record *r = c->record;
  const struct scratch *scratch = &c->routing->scratch;
  const size_t T = (size_t)shape->tokens, layer = (size_t)r->layer;
  const uint64_t *chosen = half->chosen + layer * T * c->words;
  const uint16_t *leading = half->leading + layer * T;
  const int64_t at = 2 * ((int64_t)r->layer * shape->steps + r->step);
  uint64_t *kept = (uint64_t *)c->table[TABLE_KEPT] + at;
  uint64_t *kept_leading = (uint64_t *)c->table[TABLE_KEPT_LEADING] + at;
  for (size_t i = 0; i < T * c->words; i++)
    kept[0] += (uint64_t)__builtin_popcountll(chosen[i] & scratch->chosen[i]);
  kept[1] += (uint64_t)r->first[T];
  for (size_t t = 0; t < T; t++) {
    if (scratch->leading[t] == NO_EXPERT) continue;
    kept_leading[0] += scratch->leading[t] == leading[t];
    kept_leading[1]++;
  }
}

static void remember_step(const struct counting *c, struct slot_half *half) {
  const size_t T = (size_t)c->routing->shape.tokens, layer = (size_t)c->record->layer;
  const struct scratch *scratch = &c->routing->scratch;
  const size_t words = T * c->words;
  memcpy(half->chosen + layer * words, scratch->chosen, words * sizeof *scratch->chosen);
  memcpy(half->leading + layer * T, scratch->leading, T * sizeof *scratch->leading);
  half->step[layer] = c->record->step;
}

static void add_pairs(const struct counting *c, const struct slot_half *half) {
  const int64_t E = c->routing->shape.experts;
  const uint16_t *leading = c->routing->scratch.leading;
  uint64_t *pairs = (uint64_t *)c->table[TABLE_PAIRS] + c->record->layer * E * E;
  for (int t = 0; t < c->routing->shape.tokens; t++)
    if (leading[t] != NO_EXPERT && half->ahead[t] != NO_EXPERT)
      pairs[half->ahead[t] * E + leading[t]]++;
}

static void add_memory(const struct counting *c) {
  const struct ditmoe_trace_record *r = c->record;
  const struct routing_shape *shape = &c->routing->shape;
  struct slot_half *half = &c->slot->half[r->half];
  const struct place *last = &half->last;
  if (r->evaluation == 0 && r->step > 0 && half->step[r->layer] == r->step - 1) add_kept(c, half);
  if (r->evaluation == 0) remember_step(c, half);
  if (last->step == r->step && last->evaluation == r->evaluation && last->layer == r->layer - 1)
    add_pairs(c, half);
  memcpy(half->ahead, c->routing->scratch.leading, (size_t)shape->tokens * sizeof *half->ahead);
  half->last = (struct place){r->step, r->evaluation, r->layer};
  if (r->step == shape->steps - 1 && r->layer == shape->layers - 1) c->slot->done = true;
}

enum ditmoe_status ditmoe_routing_count(struct ditmoe_ctx *ctx, struct ditmoe_routing *routing,
                                        const struct ditmoe_trace_record *record) {
  const struct routing_shape *shape = &routing->shape;
  struct counting c = {
      .ctx = ctx, .routing = routing, .record = record, .words = slot_words(shape)};
  TRY(check_place(&c));
  if (indices_has(&routing->excluded, record->image)) return DITMOE_OK;
  c.table = routing->table[record->half];
  c.slot = slots_find(&routing->slots, record->image);
  c.bin = routing->bin_of[record->step];
  c.cell = ((int64_t)record->layer * shape->bins + c.bin) * shape->tokens * shape->experts;
  TRY(check_order(&c));
  TRY(check_choices(&c));
  if (routing->trace) TRY(trace_writer_add(ctx, routing->trace, record));
  if (!c.slot) TRY(new_image(&c));
  add_choices(&c);
  add_loads(&c);
  add_memory(&c);
  return DITMOE_OK;
}
