/* Making, describing and merging tables. */
#include "trace/tables.h"
#include "io/json.h"

#include <stdio.h>
#include <string.h>

const struct table_kind table_kinds[TABLES] = {
    [TABLE_COUNTS] = {"counts", CELL_U32, "LSTE"},
    [TABLE_CLASS_COUNTS] = {"class_counts", CELL_U64, "LCE"},
    [TABLE_EVALUATIONS] = {"evaluations", CELL_U64, "S"},
    [TABLE_LABEL_EVALUATIONS] = {"label_evaluations", CELL_U64, "C"},
    [TABLE_SHUFFLED_POSITIONS] = {"shuffled_positions", CELL_U64, "LTE"},
    [TABLE_SHUFFLED_STEPS] = {"shuffled_steps", CELL_U64, "LSE"},
    [TABLE_SHUFFLED_LABELS] = {"shuffled_labels", CELL_U64, "LCE"},
    [TABLE_KEPT] = {"kept", CELL_U64, "LN2"},
    [TABLE_KEPT_LEADING] = {"kept_leading", CELL_U64, "LN2"},
    [TABLE_PAIRS] = {"pairs", CELL_U64, "LEE"},
    [TABLE_MASS] = {"mass", CELL_MASS, "LSTE"},
    [TABLE_CLASS_MASS] = {"class_mass", CELL_MASS, "LCE"},
};

static int64_t extent(const struct routing_shape *shape, char axis) {
  switch (axis) {
  case 'L':
    return shape->layers;
  case 'S':
    return shape->bins;
  case 'T':
    return shape->tokens;
  case 'E':
    return shape->experts;
  case 'C':
    return shape->labels;
  case 'N':
    return shape->steps;
  default:
    return 2;
  }
}

int table_shape(const struct routing_shape *shape, enum table table, int64_t out[TABLE_MAX_RANK]) {
  const char *axes = table_kinds[table].axes;
  int rank = 0;
  for (; axes[rank]; rank++) out[rank] = extent(shape, axes[rank]);
  return rank;
}

int64_t table_cells(const struct routing_shape *shape, enum table table) {
  int64_t extents[TABLE_MAX_RANK], cells = 1;
  const int rank = table_shape(shape, table, extents);
  for (int i = 0; i < rank; i++) cells *= extents[i];
  return cells;
}

size_t table_cell_size(enum table table) {
  return table_kinds[table].cell == CELL_U32 ? sizeof(uint32_t) : sizeof(uint64_t);
}

/* Making. */

static enum ditmoe_status make_scratch(struct ditmoe_ctx *ctx, struct ditmoe_routing *r) {
  const size_t T = (size_t)r->shape.tokens, E = (size_t)r->shape.experts;
  struct scratch *s = &r->scratch;
  TRY(mem_alloc(ctx, T * slot_words(&r->shape), sizeof *s->chosen, "tables", &s->chosen));
  TRY(mem_alloc(ctx, T, sizeof *s->leading, "tables", &s->leading));
  TRY(mem_alloc(ctx, E, sizeof *s->load, "tables", &s->load));
  return mem_alloc(ctx, E, sizeof *s->mass, "tables", &s->mass);
}

static enum ditmoe_status make_bins(struct ditmoe_ctx *ctx, struct ditmoe_routing *r) {
  const struct routing_shape *shape = &r->shape;
  TRY(mem_alloc(ctx, (size_t)shape->steps, sizeof *r->bin_of, "bins of steps", &r->bin_of));
  for (int b = 0; b < shape->bins; b++)
    for (int step = shape->bin_step[b]; step < shape->bin_step[b + 1]; step++) r->bin_of[step] = b;
  return DITMOE_OK;
}

static enum ditmoe_status make(struct ditmoe_ctx *ctx, const struct routing_shape *shape,
                               struct ditmoe_routing *r) {
  TRY(shape_copy(ctx, shape, &r->shape));
  TRY(make_bins(ctx, r));
  TRY(make_scratch(ctx, r));
  TRY(mem_strdup(ctx, "{}", &r->meta));
  for (int h = 0; h < shape->halves; h++)
    for (int t = 0; t < TABLES; t++)
      if (table_exists(shape, t))
        TRY(mem_zalloc(ctx, (size_t)table_cells(shape, t), table_cell_size(t), table_kinds[t].name,
                       &r->table[h][t]));
  return DITMOE_OK;
}

enum ditmoe_status routing_create(struct ditmoe_ctx *ctx, const struct routing_shape *shape,
                                  struct ditmoe_routing **out) {
  struct ditmoe_routing *routing;
  TRY(mem_zalloc(ctx, 1, sizeof *routing, "tables of routing", &routing));
  routing->own.hooks = ctx->hooks;
  enum ditmoe_status status = make(ctx, shape, routing);
  if (status != DITMOE_OK) {
    ditmoe_routing_destroy(routing);
    return status;
  }
  *out = routing;
  return DITMOE_OK;
}

void ditmoe_routing_destroy(struct ditmoe_routing *r) {
  if (!r) return;
  struct ditmoe_ctx own = r->own;
  ditmoe_routing_trace_abandon(r);
  void *const blocks[] = {r->bin_of,       r->scratch.chosen, r->scratch.leading,
                          r->scratch.load, r->scratch.mass,   r->meta};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) mem_free(&own, blocks[i]);
  for (int i = 0; i < DITMOE_HALVES * TABLES; i++) mem_free(&own, r->table[i / TABLES][i % TABLES]);
  shape_free(&own, &r->shape);
  indices_free(&own, &r->images);
  indices_free(&own, &r->excluded);
  slots_free(&own, &r->slots);
  mem_free(&own, r);
}

enum ditmoe_status routing_failed(struct ditmoe_ctx *ctx, const struct ditmoe_routing *routing,
                                  enum ditmoe_status status) {
  return fail(ctx, status, "%s", routing->own.error);
}

/* Looking. */

void ditmoe_routing_info(const struct ditmoe_routing *routing, struct ditmoe_routing_info *out) {
  const struct routing_shape *s = &routing->shape;
  *out = (struct ditmoe_routing_info){
      .layers = s->layers,
      .bins = s->bins,
      .tokens = s->tokens,
      .experts = s->experts,
      .labels = s->labels,
      .steps = s->steps,
      .side = s->side,
      .top_k = s->top_k,
      .uncond_expert = s->uncond_expert,
      .null_label = s->null_label,
      .layer = s->layer,
      .layer_experts = s->layer_experts,
      .bin_step = s->bin_step,
      .time = s->time,
      .halves = s->halves,
      .mass = s->mass,
      .images = indices_total(&routing->images),
      .meta = routing->meta,
  };
}

void ditmoe_routing_tables(const struct ditmoe_routing *routing, enum ditmoe_half half,
                           struct ditmoe_routing_tables *out) {
  void *const *table = routing->table[half];
  *out = (struct ditmoe_routing_tables){
      .counts = table[TABLE_COUNTS],
      .mass = table[TABLE_MASS],
      .class_counts = table[TABLE_CLASS_COUNTS],
      .class_mass = table[TABLE_CLASS_MASS],
      .evaluations = table[TABLE_EVALUATIONS],
      .label_evaluations = table[TABLE_LABEL_EVALUATIONS],
      .shuffled_positions = table[TABLE_SHUFFLED_POSITIONS],
      .shuffled_steps = table[TABLE_SHUFFLED_STEPS],
      .shuffled_labels = table[TABLE_SHUFFLED_LABELS],
      .kept = table[TABLE_KEPT],
      .kept_leading = table[TABLE_KEPT_LEADING],
      .pairs = table[TABLE_PAIRS],
  };
}

int ditmoe_routing_has(const struct ditmoe_routing *routing, int64_t index) {
  return indices_has(&routing->images, index);
}

enum ditmoe_status ditmoe_routing_exclude(struct ditmoe_ctx *ctx, struct ditmoe_routing *routing,
                                          int64_t index) {
  if (index < 0 || index >= MOST_IMAGES)
    return fail(ctx, DITMOE_USAGE, "routing of image %lld: there is no such image",
                (long long)index);
  if (indices_has(&routing->images, index) || indices_has(&routing->excluded, index))
    return DITMOE_OK;
  enum ditmoe_status status = indices_room(&routing->own, &routing->excluded);
  if (status != DITMOE_OK) return routing_failed(ctx, routing, status);
  indices_add(&routing->excluded, index);
  return DITMOE_OK;
}

/* The description. It is written as a member of another object, so it must also be JSON one level
 * deeper, in less than what json_parse reads. */

static enum ditmoe_status check_meta(struct ditmoe_ctx *ctx, const char *text) {
  enum { MOST_BYTES = 1000000, AROUND = 2 };
  const size_t length = strlen(text);
  char *wrapped;
  cJSON *tree = NULL;
  if (length > MOST_BYTES)
    return fail(ctx, DITMOE_USAGE, "description of a run: %zu bytes, at most %d", length,
                MOST_BYTES);
  TRY(mem_alloc(ctx, length + AROUND + 1, 1, "description", &wrapped));
  snprintf(wrapped, length + AROUND + 1, "[%s]", text);
  enum ditmoe_status status =
      json_parse(ctx, "description of a run", wrapped, length + AROUND, &tree);
  if (status == DITMOE_OK && !(cJSON_GetArraySize(tree) == 1 && cJSON_IsObject(tree->child)))
    status = fail(ctx, DITMOE_USAGE, "description of a run: it is not a JSON object");
  cJSON_Delete(tree);
  mem_free(ctx, wrapped);
  return status;
}

enum ditmoe_status ditmoe_routing_describe(struct ditmoe_ctx *ctx, struct ditmoe_routing *routing,
                                           const char *meta) {
  char *copy;
  TRY(check_meta(ctx, meta));
  enum ditmoe_status status = mem_strdup(&routing->own, meta, &copy);
  if (status != DITMOE_OK) return routing_failed(ctx, routing, status);
  mem_free(&routing->own, routing->meta);
  routing->meta = copy;
  return DITMOE_OK;
}

/* Merging. */

/* A member of both descriptions that differs though sums over both would mean nothing. */
static const char *run_difference(const cJSON *a, const cJSON *b) {
  static const struct {
    const char *object, *name; /* object NULL: of the description itself */
  } members[] = {{"model", "sha256"}, {NULL, "sampler"}, {NULL, "cfg_scale"}};
  for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
    const char *object = members[i].object, *name = members[i].name;
    const cJSON *in_a = object ? cJSON_GetObjectItemCaseSensitive(a, object) : a;
    const cJSON *in_b = object ? cJSON_GetObjectItemCaseSensitive(b, object) : b;
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(in_a, name);
    const cJSON *y = cJSON_GetObjectItemCaseSensitive(in_b, name);
    if (x && y && !cJSON_Compare(x, y, true)) return object ? object : name;
  }
  return NULL;
}

static enum ditmoe_status check_runs(struct ditmoe_ctx *ctx, const struct ditmoe_routing *a,
                                     const struct ditmoe_routing *b) {
  cJSON *x = NULL, *y = NULL;
  enum ditmoe_status status;
  TRY_DONE(json_parse(ctx, "description of a run", a->meta, strlen(a->meta), &x));
  TRY_DONE(json_parse(ctx, "description of a run", b->meta, strlen(b->meta), &y));
  const char *difference = run_difference(x, y);
  if (difference)
    status = fail(ctx, DITMOE_MISMATCH, "tables of different runs cannot be merged: %s differs",
                  difference);
done:
  cJSON_Delete(x);
  cJSON_Delete(y);
  return status;
}

/* Whether a sum leaves its type; no sum is made. */
static bool overflows(const void *into, const void *from, enum cell cell, int64_t cells) {
  uint32_t u32;
  uint64_t u64;
  int64_t i64;
  bool over = false;
  for (int64_t i = 0; i < cells; i++) {
    if (cell == CELL_U32)
      over |=
          __builtin_add_overflow(((const uint32_t *)into)[i], ((const uint32_t *)from)[i], &u32);
    else if (cell == CELL_U64)
      over |=
          __builtin_add_overflow(((const uint64_t *)into)[i], ((const uint64_t *)from)[i], &u64);
    else
      over |= __builtin_add_overflow(((const int64_t *)into)[i], ((const int64_t *)from)[i], &i64);
  }
  return over;
}

static void add(void *into, const void *from, enum cell cell, int64_t cells) {
  for (int64_t i = 0; i < cells; i++) {
    if (cell == CELL_U32)
      ((uint32_t *)into)[i] += ((const uint32_t *)from)[i];
    else if (cell == CELL_U64)
      ((uint64_t *)into)[i] += ((const uint64_t *)from)[i];
    else
      ((int64_t *)into)[i] += ((const int64_t *)from)[i];
  }
}

static enum ditmoe_status check_merge(struct ditmoe_ctx *ctx, const struct ditmoe_routing *into,
                                      const struct ditmoe_routing *from) {
  const char *difference = shape_difference(&into->shape, &from->shape);
  const int64_t shared = indices_shared(&into->images, &from->images);
  if (difference)
    return fail(ctx, DITMOE_MISMATCH, "tables cannot be merged: their %s differ", difference);
  if (shared >= 0)
    return fail(ctx, DITMOE_MISMATCH, "tables cannot be merged: both have counted image %lld",
                (long long)shared);
  TRY(check_runs(ctx, into, from));
  for (int i = 0; i < into->shape.halves * TABLES; i++) {
    const int h = i / TABLES, t = i % TABLES;
    if (table_exists(&into->shape, t) &&
        overflows(into->table[h][t], from->table[h][t], table_kinds[t].cell,
                  table_cells(&into->shape, t)))
      return fail(ctx, DITMOE_FAILED, "tables cannot be merged: a sum in %s is too large",
                  table_kinds[t].name);
  }
  return DITMOE_OK;
}

enum ditmoe_status ditmoe_routing_merge(struct ditmoe_ctx *ctx, struct ditmoe_routing *into,
                                        const struct ditmoe_routing *from) {
  struct indices images;
  TRY(check_merge(ctx, into, from));
  enum ditmoe_status status = indices_join(&into->own, &into->images, &from->images, &images);
  if (status != DITMOE_OK) return routing_failed(ctx, into, status);
  indices_free(&into->own, &into->images);
  into->images = images;
  for (int i = 0; i < into->shape.halves * TABLES; i++) {
    const int h = i / TABLES, t = i % TABLES;
    if (table_exists(&into->shape, t))
      add(into->table[h][t], from->table[h][t], table_kinds[t].cell, table_cells(&into->shape, t));
  }
  return DITMOE_OK;
}
