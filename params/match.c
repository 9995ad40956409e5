/* A table against the file that should hold its tensors. */
#include "backend/packed.h"
#include "params/params.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The first ten differences, joined to one line. */
struct differences {
  const struct params_what *what;
  int count;
  size_t used;
  char text[900];
};

__attribute__((format(printf, 2, 3))) static void differ(struct differences *d, const char *format,
                                                         ...) {
  enum { LISTED = 10 };
  va_list arguments;
  if (d->count++ >= LISTED) return;
  va_start(arguments, format);
  if (d->count > 1 && d->used + 3 < sizeof d->text)
    memcpy(d->text + d->used, "; ", 3), d->used += 2;
  int length = vsnprintf(d->text + d->used, sizeof d->text - d->used, format, arguments);
  va_end(arguments);
  if (length > 0) d->used += (size_t)length;
  if (d->used >= sizeof d->text) d->used = sizeof d->text - 1;
}

static void shape_text(const struct differences *d, char *text, size_t size, int rank,
                       const int64_t *shape) {
  const char *separator = d->what->first ? "," : ", ";
  size_t used = (size_t)snprintf(text, size, "[");
  for (int i = 0; i < rank && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? separator : "",
                             (long long)shape[i]);
  if (used < size) snprintf(text + used, size - used, "]");
}

static void miss(struct differences *d, const char *name, const char *shape) {
  differ(d, d->what->first ? "missing %s%s" : "%s%s is missing", name, shape);
}

static void surplus(struct differences *d, const char *name) {
  differ(d, d->what->first ? "unexpected %s" : "%s is unexpected", name);
}

static bool has_shape(const struct tensor *tensor, const struct param *row) {
  if (row->rank < 0) return true;
  const size_t bytes = (size_t)row->rank * sizeof *row->shape;
  return tensor->rank == row->rank && memcmp(tensor->shape, row->shape, bytes) == 0;
}

/* in_bytes: its data are in those of a packed layer. */
static void match_row(struct param *row, const struct tensor *tensor, bool in_bytes,
                      struct differences *d) {
  char expected[96] = " ", found[192];
  const bool used = !(row->flags & PARAM_UNUSED);
  row->source = tensor;
  shape_text(d, expected + 1, sizeof expected - 1, row->rank, row->shape);
  if (!tensor) {
    if (used) miss(d, row->name, expected);
    return;
  }
  shape_text(d, found, sizeof found, tensor->rank, tensor->shape);
  if (!has_shape(tensor, row)) {
    if (d->what->first)
      differ(d, "%s is %s, expected%s", row->name, found, expected);
    else
      differ(d, "%s: expected%s, found %s", row->name, expected, found);
  } else if (used && !dtype_is_float(tensor->dtype))
    differ(d, "%s is of type %s, expected a floating type", row->name, dtype_name(tensor->dtype));
  else if (used && !in_bytes && !tensor->data)
    differ(d, "%s is described, but not stored", row->name);
}

/* The bytes of a packed layer, whose size depends on the types of its rows. */
static void match_bytes(const struct params *params, const struct param_group *group,
                        const struct exec *ex, bool *taken, struct differences *d) {
  char name[PARAM_NAME];
  params_packed_name(params, group, name);
  const struct linear shape = params_shape(params, group, ex);
  const size_t bytes = ex->device->ops->packed->bytes(ex, &shape);
  const struct tensor *stored = checkpoint_find(params->packed->file, name);
  if (!stored) {
    miss(d, name, "");
    return;
  }
  taken[stored - params->packed->file->tensors] = true;
  if (stored->dtype != DT_U8 || (uint64_t)stored->elements != bytes)
    differ(d, "%s has %lld values of type %s, expected %zu bytes", name,
           (long long)stored->elements, dtype_name(stored->dtype), bytes);
}

/* taken: room for a mark on each tensor of the file, then of the packed file. */
static void match_all(struct params *params, const struct exec *ex, bool *taken,
                      struct differences *d) {
  const struct ditmoe_checkpoint *file = params->file;
  const struct packed *packed = params->packed;
  const struct param_group *next = params->group, *end = next + params->group_count;
  bool in_bytes = false;
  for (size_t i = 0; i < params->count; i++) {
    struct param *row = &params->row[i];
    for (; next < end && next->first == i; next++) in_bytes = packed && param_group_packs(next);
    match_row(row, checkpoint_find(file, row->name), in_bytes, d);
    if (row->source) taken[row->source - file->tensors] = true;
  }
  for (next = params->group; packed && next < end; next++)
    if (param_group_packs(next)) match_bytes(params, next, ex, taken + file->count, d);
  for (size_t i = 0; i < file->count; i++)
    if (!taken[i]) surplus(d, file->tensors[i].name);
  for (size_t i = 0; packed && i < packed->file->count; i++) {
    const char *name = packed->file->tensors[i].name;
    if (!taken[file->count + i] && !checkpoint_find(file, name)) surplus(d, name);
  }
}

enum ditmoe_status params_match(struct params *params, const struct exec *ex,
                                const struct params_what *what) {
  struct differences d = {.what = what};
  const size_t marks = params->file->count + (params->packed ? params->packed->file->count : 0);
  bool *taken;
  TRY(params->status);
  TRY(mem_zalloc(params->ctx, marks, sizeof *taken, "list of tensors", &taken));
  match_all(params, ex, taken, &d);
  mem_free(params->ctx, taken);
  if (d.count == 0) return DITMOE_OK;
  return fail(params->ctx, DITMOE_MISMATCH, "%s: not the tensors of this %s, %d differ: %s",
              params->file->path, what->network, d.count, d.text);
}
