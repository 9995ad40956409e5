/* The header of a trace: the shape and where it comes from, as JSON. */
#include "io/json.h"
#include "trace/trace.h"

#include <string.h>
#include <zlib.h>

static const char magic[12] = "ditmoe-trace";
enum { VERSION = 1, OBJECT_MAX = 1 << 20, TEXT_MAX = 2 * OBJECT_MAX + 4 };

uint32_t trace_crc(const void *bytes, size_t size) { return (uint32_t)crc32_z(0, bytes, size); }

/* Writing. */

static bool add(cJSON *object, const char *name, cJSON *value) {
  if (value && cJSON_AddItemToObject(object, name, value)) return true;
  cJSON_Delete(value);
  return false;
}

static bool add_whole(cJSON *object, const char *name, int value) {
  return add(object, name, cJSON_CreateNumber(value));
}

static bool add_list(cJSON *object, const char *name, const int32_t *values, int count) {
  return add(object, name, cJSON_CreateIntArray(values, count));
}

static bool describe(cJSON *object, const struct routing_shape *s, bool scores) {
  return add(object, "scores", cJSON_CreateBool(scores)) &&
         add_list(object, "layers", s->layer, s->layers) &&
         add_list(object, "layer_experts", s->layer_experts, s->layers) &&
         add_list(object, "bin_steps", s->bin_step, s->bins + 1) &&
         add(object, "times", cJSON_CreateDoubleArray(s->time, s->steps)) &&
         add_whole(object, "tokens", s->tokens) && add_whole(object, "side", s->side) &&
         add_whole(object, "experts", s->experts) && add_whole(object, "labels", s->labels) &&
         add_whole(object, "top_k", s->top_k) &&
         add_whole(object, "uncond_expert", s->uncond_expert) &&
         add_whole(object, "null_label", s->null_label) && add_whole(object, "halves", s->halves) &&
         add(object, "mass", cJSON_CreateBool(s->mass));
}

/* The bytes around the two objects of the text. */
static enum ditmoe_status assemble(struct ditmoe_ctx *ctx, const char *path, const char *first,
                                   const char *second, uint8_t **bytes, size_t *size) {
  const size_t lengths[] = {strlen(first), strlen(second)};
  if (lengths[0] > OBJECT_MAX || lengths[1] > OBJECT_MAX)
    return fail(ctx, DITMOE_USAGE, "%s: the steps or the description are too long for a trace",
                path);
  const uint32_t text = (uint32_t)((lengths[0] + 1 + lengths[1] + 3) / 4 * 4);
  const uint32_t version = VERSION;
  uint8_t *to;
  *size = TRACE_TEXT + text + TRACE_CRC;
  TRY(mem_alloc(ctx, *size, 1, "the header of a trace", &to));
  *bytes = to;
  memcpy(to, magic, sizeof magic);
  memcpy(to + 12, &version, 4);
  memcpy(to + 16, &text, 4);
  to += TRACE_TEXT;
  memset(to, ' ', text);
  memcpy(to, first, lengths[0]);
  to[lengths[0]] = '\n';
  memcpy(to + lengths[0] + 1, second, lengths[1]);
  const uint32_t crc = trace_crc(*bytes, TRACE_TEXT + text);
  memcpy(to + text, &crc, 4);
  return DITMOE_OK;
}

enum ditmoe_status trace_header_make(struct ditmoe_ctx *ctx, const char *path,
                                     const struct routing_shape *shape, const char *meta,
                                     bool scores, uint8_t **bytes, size_t *size) {
  cJSON *object = cJSON_CreateObject();
  char *text = object && describe(object, shape, scores) ? cJSON_PrintUnformatted(object) : NULL;
  cJSON_Delete(object);
  if (!text) return fail(ctx, DITMOE_NOMEM, "%s: no memory for the header", path);
  enum ditmoe_status status = assemble(ctx, path, text, meta ? meta : "{}", bytes, size);
  cJSON_free(text);
  return status;
}

/* Reading. */

static enum ditmoe_status bad_header(struct ditmoe_ctx *ctx, const char *path, const char *what) {
  return fail(ctx, DITMOE_FORMAT, "%s: damaged header: %s", path, what);
}

static enum ditmoe_status bad_member(struct ditmoe_ctx *ctx, const char *path, const char *name,
                                     const char *wanted) {
  return fail(ctx, DITMOE_FORMAT, "%s: damaged header: \"%s\" is missing or is not %s", path, name,
              wanted);
}

static bool is_whole(const cJSON *item) {
  return cJSON_IsNumber(item) && item->valuedouble >= INT32_MIN && item->valuedouble <= INT32_MAX &&
         item->valuedouble == (double)(int32_t)item->valuedouble;
}

static enum ditmoe_status read_numbers(struct ditmoe_ctx *ctx, const char *path,
                                       const cJSON *object, struct routing_shape *shape) {
  const struct {
    const char *name;
    int *value;
  } members[] = {{"tokens", &shape->tokens},         {"side", &shape->side},
                 {"experts", &shape->experts},       {"labels", &shape->labels},
                 {"top_k", &shape->top_k},           {"uncond_expert", &shape->uncond_expert},
                 {"null_label", &shape->null_label}, {"halves", &shape->halves}};
  for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, members[i].name);
    if (!is_whole(item)) return bad_member(ctx, path, members[i].name, "a whole number");
    *members[i].value = (int)item->valuedouble;
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_bool(struct ditmoe_ctx *ctx, const char *path, const cJSON *object,
                                    const char *name, bool *out) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
  if (!cJSON_IsBool(item)) return bad_member(ctx, path, name, "true or false");
  *out = cJSON_IsTrue(item);
  return DITMOE_OK;
}

/* Entries of a list, which the 1 MB of a JSON text bound. */
static enum ditmoe_status list_size(struct ditmoe_ctx *ctx, const char *path, const cJSON *object,
                                    const char *name, int *out) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, name);
  if (!cJSON_IsArray(list) || !list->child) return bad_member(ctx, path, name, "a list");
  *out = cJSON_GetArraySize(list);
  return DITMOE_OK;
}

/* `count` entries, which must be all, into one of the two. */
static enum ditmoe_status read_list(struct ditmoe_ctx *ctx, const char *path, const cJSON *object,
                                    const char *name, int count, int32_t *whole, double *real) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, name), *item;
  int i = 0;
  if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != count)
    return bad_member(ctx, path, name, "a list as long as others");
  cJSON_ArrayForEach(item, list) {
    if (whole ? !is_whole(item) : !cJSON_IsNumber(item))
      return bad_member(ctx, path, name, "a list of numbers");
    if (whole) whole[i] = (int32_t)item->valuedouble;
    if (real) real[i] = item->valuedouble;
    i++;
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_shape(struct ditmoe_ctx *ctx, const char *path, const cJSON *object,
                                     struct trace_header *out) {
  struct routing_shape *s = &out->shape;
  int bounds;
  TRY(read_bool(ctx, path, object, "scores", &out->scores));
  TRY(read_bool(ctx, path, object, "mass", &s->mass));
  TRY(read_numbers(ctx, path, object, s));
  TRY(list_size(ctx, path, object, "layers", &s->layers));
  TRY(list_size(ctx, path, object, "bin_steps", &bounds));
  TRY(list_size(ctx, path, object, "times", &s->steps));
  s->bins = bounds - 1;
  if (!s->bins) return bad_member(ctx, path, "bin_steps", "a list of at least two steps");
  TRY(shape_alloc(ctx, s));
  TRY(read_list(ctx, path, object, "layers", s->layers, s->layer, NULL));
  TRY(read_list(ctx, path, object, "layer_experts", s->layers, s->layer_experts, NULL));
  TRY(read_list(ctx, path, object, "bin_steps", bounds, s->bin_step, NULL));
  TRY(read_list(ctx, path, object, "times", s->steps, NULL, s->time));
  const char *fault = shape_fault(s);
  return fault ? bad_header(ctx, path, fault) : DITMOE_OK;
}

/* The second object is kept as it is written: numbers of any size survive. */
static enum ditmoe_status read_meta(struct ditmoe_ctx *ctx, const char *path, const char *text,
                                    size_t size, char **out) {
  cJSON *object;
  TRY(json_parse(ctx, path, text, size, &object));
  const bool is_object = cJSON_IsObject(object);
  cJSON_Delete(object);
  if (!is_object) return bad_header(ctx, path, "its second line is not a JSON object");
  while (text[size - 1] == ' ') size--;
  TRY(mem_alloc(ctx, size + 1, 1, "the header of a trace", out));
  memcpy(*out, text, size);
  (*out)[size] = '\0';
  return DITMOE_OK;
}

static enum ditmoe_status read_text(struct ditmoe_ctx *ctx, const char *path, const char *text,
                                    size_t size, struct trace_header *out) {
  const char *line_end = memchr(text, '\n', size);
  cJSON *object;
  if (!line_end) return bad_header(ctx, path, "its second line is missing");
  const size_t first = (size_t)(line_end - text);
  TRY(json_parse(ctx, path, text, first, &object));
  enum ditmoe_status status = read_shape(ctx, path, object, out);
  cJSON_Delete(object);
  return status != DITMOE_OK ? status
                             : read_meta(ctx, path, line_end + 1, size - first - 1, &out->meta);
}

/* The fixed part and the CRC; *text = bytes of the text. */
static enum ditmoe_status check_frame(struct ditmoe_ctx *ctx, const char *path, struct span file,
                                      size_t *text) {
  const size_t seen = file.size < sizeof magic ? file.size : sizeof magic;
  if (!file.size) return fail(ctx, DITMOE_FORMAT, "%s: is empty", path);
  if (memcmp(file.data, magic, seen) != 0)
    return fail(ctx, DITMOE_FORMAT, "%s: is not a routing trace", path);
  if (file.size < TRACE_TEXT) return bad_header(ctx, path, "the file is cut off within it");
  const uint64_t version = le_number(file.data + 12, 4), size = le_number(file.data + 16, 4);
  if (version != VERSION)
    return fail(ctx, DITMOE_FORMAT, "%s: a routing trace of version %llu; this program reads %d",
                path, (unsigned long long)version, VERSION);
  if (size > TEXT_MAX || size % 4) return bad_header(ctx, path, "its length is damaged");
  if (file.size - TRACE_TEXT < size + TRACE_CRC)
    return bad_header(ctx, path, "the file is cut off within it");
  if (le_number(file.data + TRACE_TEXT + size, 4) != trace_crc(file.data, TRACE_TEXT + size))
    return bad_header(ctx, path, "CRC mismatch: it is damaged");
  *text = size;
  return DITMOE_OK;
}

enum ditmoe_status trace_header_read(struct ditmoe_ctx *ctx, const char *path, struct span file,
                                     struct trace_header *out, size_t *size) {
  struct trace_header header = {0};
  size_t text;
  TRY(check_frame(ctx, path, file, &text));
  enum ditmoe_status status =
      read_text(ctx, path, (const char *)file.data + TRACE_TEXT, text, &header);
  if (status != DITMOE_OK) {
    trace_header_free(ctx, &header);
    return status;
  }
  *out = header;
  *size = TRACE_TEXT + text + TRACE_CRC;
  return DITMOE_OK;
}

void trace_header_free(struct ditmoe_ctx *ctx, struct trace_header *header) {
  shape_free(ctx, &header->shape);
  mem_free(ctx, header->meta);
  *header = (struct trace_header){0};
}
