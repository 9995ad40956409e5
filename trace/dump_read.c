/* Reading tables from an untrusted file: header, shape, then array by array, each checked before
 * there is room for it. */
#include "io/json.h"
#include "io/npz.h"
#include "trace/dump.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_RANGES = 1 << 24, MOST_TEXT = 1 << 20, MOST_SIDE = 1 << 14 };

/* Largest whole number of which float64 knows that it is exact. */
static const double MOST_WHOLE = 9007199254740992.0;

struct reader {
  struct ditmoe_ctx *ctx;
  const char *path;
  struct npz *npz;
  cJSON *header;
  struct routing_shape shape;
  enum ditmoe_routing_form form;
  struct ditmoe_routing *routing;
};

__attribute__((format(printf, 3, 4))) static enum ditmoe_status
bad_array(const struct reader *r, const char *name, const char *format, ...) {
  char what[300];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  return fail(r->ctx, DITMOE_FORMAT, "%s: array %s: %s", r->path, name, what);
}

/* Arrays. */

/* An array of a type ("i4") and rank. */
static enum ditmoe_status find(const struct reader *r, const char *name, const char *type, int rank,
                               const struct npz_array **out) {
  char text[NPZ_SHAPE_TEXT];
  const struct npz_array *array = npz_find(r->npz, name);
  if (!array)
    return fail(r->ctx, DITMOE_FORMAT, "%s: array %s is missing: no tables of routing", r->path,
                name);
  if (strcmp(array->type + 1, type) != 0 || array->swapped)
    return bad_array(r, name, "its type is %s instead of %s%s", array->type,
                     strcmp(type, "u1") == 0 ? "|" : "<", type);
  if (array->rank != rank)
    return bad_array(r, name, "its shape is %s instead of %d numbers", npz_shape_text(text, array),
                     rank);
  *out = array;
  return DITMOE_OK;
}

/* All values, which must be from `low` to `high`. */
static enum ditmoe_status fill_values(const struct reader *r, const struct npz_array *array,
                                      double low, double high, double *values) {
  const bool whole = array->type[1] != 'f';
  TRY(npz_read_f64(r->ctx, r->npz, array, values));
  for (int64_t i = 0; i < array->elements; i++)
    if (!(values[i] >= low && values[i] <= high) || (whole && values[i] != floor(values[i])))
      return bad_array(r, array->name, "element %lld is %g, out of range", (long long)i, values[i]);
  return DITMOE_OK;
}

/* The same in memory of their own, to be freed. */
static enum ditmoe_status read_values(const struct reader *r, const struct npz_array *array,
                                      double low, double high, double **out) {
  TRY(mem_alloc(r->ctx, (size_t)array->elements, sizeof **out, array->name, out));
  enum ditmoe_status status = fill_values(r, array, low, high, *out);
  if (status != DITMOE_OK) mem_free(r->ctx, *out);
  return status;
}

static enum ditmoe_status read_ints(const struct reader *r, const char *name, int32_t *out,
                                    int count) {
  const struct npz_array *array;
  double *values;
  TRY(find(r, name, "i4", 1, &array));
  if (array->elements != count)
    return bad_array(r, name, "it has %lld elements instead of %d", (long long)array->elements,
                     count);
  TRY(read_values(r, array, 0, INT32_MAX, &values));
  for (int i = 0; i < count; i++) out[i] = (int32_t)values[i];
  mem_free(r->ctx, values);
  return DITMOE_OK;
}

/* The header. */

static enum ditmoe_status parse_header(struct reader *r) {
  char origin[256], *text;
  const struct npz_array *array;
  TRY(find(r, "info", "u1", 1, &array));
  if (array->elements > MOST_TEXT) return bad_array(r, "info", "it is longer than any header");
  const size_t size = (size_t)array->elements;
  snprintf(origin, sizeof origin, "%.200s: array info", r->path);
  TRY(mem_alloc(r->ctx, size, 1, "header", &text));
  enum ditmoe_status status = npz_stream_u8(r->ctx, r->npz, array, (uint8_t *)text, size);
  if (status == DITMOE_OK) status = json_parse(r->ctx, origin, text, size, &r->header);
  mem_free(r->ctx, text);
  return status;
}

static const cJSON *member(const struct reader *r, const char *name) {
  return cJSON_GetObjectItemCaseSensitive(r->header, name);
}

static enum ditmoe_status header_int(const struct reader *r, const char *name, int low, int high,
                                     int *out) {
  const cJSON *item = member(r, name);
  const double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
  if (!(value >= low && value <= high) || value != floor(value))
    return bad_array(r, "info", "\"%s\" is not a whole number from %d to %d", name, low, high);
  *out = (int)value;
  return DITMOE_OK;
}

static enum ditmoe_status read_header(struct reader *r) {
  int version = 0;
  TRY(parse_header(r));
  const char *format = cJSON_GetStringValue(member(r, "format"));
  if (!format || strcmp(format, DUMP_FORMAT) != 0)
    return bad_array(r, "info", "\"format\" is not " DUMP_FORMAT);
  TRY(header_int(r, "version", 1, INT_MAX, &version));
  if (version != DUMP_VERSION)
    return bad_array(r, "info", "the file is of version %d, this program reads version %d", version,
                     DUMP_VERSION);
  if (!cJSON_IsObject(member(r, "run"))) return bad_array(r, "info", "\"run\" is no object");
  TRY(header_int(r, "side", 1, MOST_SIDE, &r->shape.side));
  TRY(header_int(r, "top_k", 0, INT_MAX, &r->shape.top_k));
  TRY(header_int(r, "uncond_expert", -1, INT_MAX, &r->shape.uncond_expert));
  return header_int(r, "null_label", -1, INT_MAX, &r->shape.null_label);
}

/* The shape. */

static enum ditmoe_status read_extent(const struct reader *r, const char *name, const char *type,
                                      int *out) {
  enum { MOST = 1 << 24 };
  const struct npz_array *array;
  TRY(find(r, name, type, 1, &array));
  if (array->elements < 1 || array->elements > MOST)
    return bad_array(r, name, "%lld elements", (long long)array->elements);
  *out = (int)array->elements;
  return DITMOE_OK;
}

/* Which tables there are tells what has been counted. */
static void read_options(struct reader *r) {
  r->shape.halves = npz_find(r->npz, "uncond_counts") ? DITMOE_HALVES : 1;
  r->form = npz_find(r->npz, "mass_exact") ? DITMOE_ROUTING_EXACT : DITMOE_ROUTING_FINAL;
  r->shape.mass = r->form == DITMOE_ROUTING_EXACT || npz_find(r->npz, "mass");
}

static enum ditmoe_status read_shape(struct reader *r) {
  struct routing_shape *s = &r->shape;
  int edges;
  TRY(read_extent(r, "layers", "i4", &s->layers));
  TRY(read_extent(r, "times", "f8", &s->steps));
  TRY(read_extent(r, "bin_steps", "i4", &edges));
  TRY(read_extent(r, "label_evaluations", "i8", &s->labels));
  s->tokens = s->side * s->side;
  s->bins = edges - 1;
  read_options(r);
  TRY(shape_alloc(r->ctx, s));
  TRY(read_ints(r, "layers", s->layer, s->layers));
  TRY(read_ints(r, "layer_experts", s->layer_experts, s->layers));
  TRY(read_ints(r, "bin_steps", s->bin_step, edges));
  TRY(fill_values(r, npz_find(r->npz, "times"), -1e30, 1e30, s->time));
  for (int l = 0; l < s->layers; l++)
    if (s->layer_experts[l] > s->experts) s->experts = s->layer_experts[l];
  const char *fault = shape_fault(s);
  return fault ? fail(r->ctx, DITMOE_FORMAT, "%s: the header and the arrays do not fit: %s",
                      r->path, fault)
               : DITMOE_OK;
}

/* Images. */

static enum ditmoe_status fill_images(const struct reader *r, const double *values, int64_t count) {
  struct indices *set = &r->routing->images;
  TRY(mem_alloc(r->ctx, (size_t)count, sizeof *set->ranges, "indices of images", &set->ranges));
  set->room = (size_t)count;
  for (int64_t i = 0; i < count; i++) {
    const struct index_range range = {(int64_t)values[2 * i], (int64_t)values[2 * i + 1]};
    if (range.first >= range.end || (i && range.first <= set->ranges[i - 1].end))
      return bad_array(r, "images", "range %lld is empty or does not ascend", (long long)i);
    set->ranges[set->count++] = range;
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_images(const struct reader *r) {
  const struct npz_array *array;
  double *values;
  TRY(find(r, "images", "i8", 2, &array));
  if (array->shape[1] != 2 || array->shape[0] > MOST_RANGES)
    return bad_array(r, "images", "it is no list of ranges");
  TRY(read_values(r, array, 0, MOST_WHOLE, &values));
  enum ditmoe_status status = fill_images(r, values, array->shape[0]);
  mem_free(r->ctx, values);
  return status;
}

/* Tables. */

static enum ditmoe_status find_table(const struct reader *r, enum ditmoe_half half,
                                     enum table table, const struct npz_array **out) {
  const struct dump_array expected = dump_array_of(&r->shape, half, table, r->form);
  struct npz_array like = {.rank = expected.rank};
  char found[NPZ_SHAPE_TEXT], needed[NPZ_SHAPE_TEXT];
  TRY(find(r, expected.name, expected.type, expected.rank, out));
  memcpy(like.shape, expected.shape, sizeof expected.shape);
  if (memcmp((*out)->shape, expected.shape, (size_t)expected.rank * sizeof *expected.shape) == 0)
    return DITMOE_OK;
  return bad_array(r, expected.name, "its shape is %s instead of %s", npz_shape_text(found, *out),
                   npz_shape_text(needed, &like));
}

/* 64-bit sums of their two halves, or multiples of the unit. */
static void fill_mass(int64_t *out, const double *values, int64_t cells, bool exact) {
  for (int64_t i = 0; i < cells; i++)
    out[i] = exact ? (int64_t)((uint64_t)values[2 * i] | (uint64_t)values[2 * i + 1] << 32)
                   : llround(values[i] / DITMOE_ROUTING_UNIT);
}

static void fill_counts(void *out, const double *values, int64_t cells, enum cell cell) {
  if (cell == CELL_U32)
    for (int64_t i = 0; i < cells; i++) ((uint32_t *)out)[i] = (uint32_t)values[i];
  else
    for (int64_t i = 0; i < cells; i++) ((uint64_t *)out)[i] = (uint64_t)values[i];
}

static enum ditmoe_status read_table(const struct reader *r, enum ditmoe_half half,
                                     enum table table) {
  const enum cell cell = table_kinds[table].cell;
  const bool exact = r->form == DITMOE_ROUTING_EXACT;
  const bool real = cell == CELL_MASS && !exact;
  const int64_t cells = table_cells(&r->shape, table);
  const double most = real               ? 0x1p62 * DITMOE_ROUTING_UNIT
                      : cell == CELL_U64 ? MOST_WHOLE
                                         : UINT32_MAX;
  const struct npz_array *array;
  double *values;
  TRY(find_table(r, half, table, &array));
  TRY(read_values(r, array, real ? -most : 0, most, &values));
  if (cell == CELL_MASS)
    fill_mass(r->routing->table[half][table], values, cells, exact);
  else
    fill_counts(r->routing->table[half][table], values, cells, cell);
  mem_free(r->ctx, values);
  return DITMOE_OK;
}

/* All of the right type and shape, so that there is a file of this size behind the room for it. */
static enum ditmoe_status check_tables(const struct reader *r) {
  const struct npz_array *array;
  for (int h = 0; h < r->shape.halves; h++)
    for (int t = 0; t < TABLES; t++)
      if (table_exists(&r->shape, t)) TRY(find_table(r, h, t, &array));
  return DITMOE_OK;
}

static enum ditmoe_status read_tables(const struct reader *r) {
  for (int h = 0; h < r->shape.halves; h++)
    for (int t = 0; t < TABLES; t++)
      if (table_exists(&r->shape, t)) TRY(read_table(r, h, t));
  return DITMOE_OK;
}

/* The whole. */

static enum ditmoe_status describe(const struct reader *r) {
  char *text = cJSON_PrintUnformatted(member(r, "run"));
  if (!text) return fail(r->ctx, DITMOE_NOMEM, "not enough memory: header");
  enum ditmoe_status status = ditmoe_routing_describe(r->ctx, r->routing, text);
  cJSON_free(text);
  return status;
}

static enum ditmoe_status read_all(struct reader *r) {
  TRY(npz_open(r->ctx, r->path, &r->npz));
  TRY(read_header(r));
  TRY(read_shape(r));
  TRY(check_tables(r));
  TRY(routing_create(r->ctx, &r->shape, &r->routing));
  TRY(describe(r));
  TRY(read_images(r));
  return read_tables(r);
}

enum ditmoe_status ditmoe_routing_read(struct ditmoe_ctx *ctx, const char *path,
                                       struct ditmoe_routing **out) {
  struct reader r = {.ctx = ctx, .path = path};
  enum ditmoe_status status = read_all(&r);
  cJSON_Delete(r.header);
  npz_close(r.npz);
  shape_free(ctx, &r.shape);
  if (status == DITMOE_OK)
    *out = r.routing;
  else
    ditmoe_routing_destroy(r.routing);
  return status;
}
