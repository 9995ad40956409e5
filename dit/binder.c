#include "dit/binder.h"
#include "backend/packed.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { REPORT_SIZE = 900 };

__attribute__((format(printf, 2, 3))) static void differ(struct binder *b, const char *format,
                                                         ...) {
  if (b->differences++ >= BINDER_LISTED) return;
  size_t used = strlen(b->report);
  if (used) used += (size_t)snprintf(b->report + used, REPORT_SIZE - used, "; ");
  if (used >= REPORT_SIZE) return;
  va_list args;
  va_start(args, format);
  vsnprintf(b->report + used, REPORT_SIZE - used, format, args);
  va_end(args);
}

static void shape_text(char *text, size_t size, int rank, const int64_t *shape) {
  size_t used = (size_t)snprintf(text, size, "[");
  for (int i = 0; i < rank && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? "," : "", (long long)shape[i]);
  if (used < size) snprintf(text + used, size - used, "]");
}

static bool same_shape(const struct tensor *tensor, int rank, const int64_t *shape) {
  return tensor->rank == rank && memcmp(tensor->shape, shape, (size_t)rank * sizeof *shape) == 0;
}

/* Of packed files, what was found when they were made. */
static bool is_finite(const struct binder *b, const struct tensor *tensor) {
  if (!b->packed) return tensor_all_finite(tensor);
  const struct tensor *listed = checkpoint_find(b->checkpoint, tensor->name);
  return !listed || !b->packed->suspect[listed - b->checkpoint->tensors];
}

enum ditmoe_status binder_inspect(struct binder *b, const struct tensor *tensor, bool finite) {
  struct ditmoe_ctx *ctx = b->ex->ctx;
  struct dit *model = b->model;
  model->parameters += (uint64_t)tensor->elements;
  if (finite || is_finite(b, tensor)) return DITMOE_OK;
  TRY(mem_grow(ctx, model->suspect_count, model->suspect_count + 1, sizeof *model->suspects,
               "list of tensors", &model->suspects));
  struct dit_suspect *suspect = &model->suspects[model->suspect_count];
  *suspect = (struct dit_suspect){NULL, b->layer, b->expert};
  TRY(mem_strdup(ctx, tensor->name, &suspect->name));
  model->suspect_count++;
  warn(ctx, "%s: tensor %s holds NaN or infinite values", b->checkpoint->path, tensor->name);
  return DITMOE_OK;
}

/* stored: its data are needed. */
static const struct tensor *take(struct binder *b, const char *name, int rank, const int64_t *shape,
                                 bool stored) {
  const struct tensor *tensor = checkpoint_find(b->checkpoint, name);
  char found[96], expected[96];
  shape_text(expected, sizeof expected, rank, shape);
  if (!tensor) {
    differ(b, "missing %s %s", name, expected);
    return NULL;
  }
  b->taken[tensor - b->checkpoint->tensors] = true;
  shape_text(found, sizeof found, tensor->rank, tensor->shape);
  if (!same_shape(tensor, rank, shape))
    differ(b, "%s is %s, expected %s", name, found, expected);
  else if (!dtype_is_float(tensor->dtype))
    differ(b, "%s is of type %s, expected a floating type", name, dtype_name(tensor->dtype));
  else if (stored && !tensor->data)
    differ(b, "%s is described, but not stored", name);
  else
    return tensor;
  return NULL;
}

/* Of weights that will be kept in a type. */
static void count_bytes(struct binder *b, const struct tensor *tensor, enum dtype type) {
  if (tensor) b->bytes += (double)tensor->elements * (double)dtype_size(type);
}

const struct tensor *binder_take(struct binder *b, const char *name, int rank,
                                 const int64_t *shape) {
  const struct tensor *tensor = take(b, name, rank, shape, true);
  count_bytes(b, tensor, DT_F32);
  return tensor;
}

/* Whether the data of a layer are in bytes of their own, or go there. */
static bool is_packed(const struct binder *b, const struct linear_names *names) {
  return !names->plain && (b->packed || b->sink);
}

struct linear binder_shape(const struct linear_names *names, const struct linear_source *source) {
  struct linear shape = {.in = names->in, .paired = names->paired};
  shape.input = source->input;
  shape.format = linear_source_format(source);
  for (int i = 0; i < names->parts; i++) shape.out += names->out[i];
  if (names->paired) shape.out /= 2;
  return shape;
}

enum ditmoe_status binder_inspect_all(struct binder *b, const struct linear_source *source,
                                      bool finite) {
  for (int i = 0; i < source->parts; i++) {
    TRY(binder_inspect(b, source->weight[i], finite));
    checkpoint_drop(b->checkpoint, source->weight[i]);
    if (source->bias[i]) TRY(binder_inspect(b, source->bias[i], finite));
  }
  return DITMOE_OK;
}

enum ditmoe_status binder_create(struct binder *b, struct linear **out,
                                 const struct linear_source *source) {
  struct linear *made;
  if (!b->create) return DITMOE_OK;
  TRY(b->ex->device->ops->linear_create(b->ex, source, &made));
  enum ditmoe_status status = binder_inspect_all(b, source, made->finite);
  if (status != DITMOE_OK) {
    b->ex->device->ops->linear_destroy(b->ex, made);
    return status;
  }
  b->model->weight_bytes += made->bytes;
  *out = made;
  return DITMOE_OK;
}

/* The layer that was packed from `source`. */
static enum ditmoe_status adopt(struct binder *b, struct linear **out,
                                const struct linear_names *names,
                                const struct linear_source *source) {
  const struct packed_ops *ops = b->ex->device->ops->packed;
  const struct linear shape = binder_shape(names, source);
  size_t bytes = ops->bytes(b->ex, &shape);
  char full[256];
  snprintf(full, sizeof full, "%s" PACKED_ENDING, names->name[0]);
  const struct tensor *stored = checkpoint_find(b->packed->file, full);
  if (!stored) {
    differ(b, "missing %s", full);
    return DITMOE_OK;
  }
  b->adopted[stored - b->packed->file->tensors] = true;
  if (stored->dtype != DT_U8 || (uint64_t)stored->elements != bytes)
    differ(b, "%s has %lld values of type %s, expected %zu bytes", full,
           (long long)stored->elements, dtype_name(stored->dtype), bytes);
  if (!b->create) return DITMOE_OK;
  TRY(binder_inspect_all(b, source, false));
  TRY(ops->adopt(b->ex, &shape, stored, out));
  b->model->weight_bytes += bytes;
  return DITMOE_OK;
}

enum ditmoe_status binder_linear(struct binder *b, struct linear **out,
                                 const struct linear_names *names) {
  const enum dtype input = names->exact ? DT_F32 : b->ex->compute;
  struct linear_source source = {.parts = names->parts, .paired = names->paired, .input = input};
  const bool packed = is_packed(b, names);
  char full[256];
  for (int i = 0; i < names->parts; i++) {
    const int64_t shape[2] = {names->out[i], names->in}, bias[1] = {names->out[i]};
    snprintf(full, sizeof full, "%s.weight", names->name[i]);
    source.weight[i] = take(b, full, 2, shape, !packed);
    snprintf(full, sizeof full, "%s.bias", names->name[i]);
    if (names->bias) source.bias[i] = take(b, full, 1, bias, !packed);
  }
  for (int i = 0; i < names->parts && !packed; i++) {
    count_bytes(b, source.weight[i], linear_source_format(&source));
    count_bytes(b, source.bias[i], DT_F32);
  }
  if (packed && b->sink) {
    *out = NULL;
    return b->sink->layer(b->sink, b, names, &source);
  }
  return packed ? adopt(b, out, names, &source) : binder_create(b, out, &source);
}

enum ditmoe_status binder_matrix(struct binder *b, struct linear **out, const char *name, int rows,
                                 int in) {
  const int64_t shape[2] = {rows, in};
  struct linear_source source = {
      .parts = 1, .input = DT_F32, .weight = {binder_take(b, name, 2, shape)}};
  return binder_create(b, out, &source);
}

enum ditmoe_status binder_floats(struct binder *b, float **out, const char *name, int rank,
                                 const int64_t *shape) {
  const struct tensor *tensor = binder_take(b, name, rank, shape);
  if (!b->create) return DITMOE_OK;
  struct exec *ex = b->ex;
  float *host = NULL;
  TRY(binder_inspect(b, tensor, false));
  TRY(mem_alloc(ex->ctx, (size_t)tensor->elements, sizeof *host, name, &host));
  tensor_read_f32(host, tensor, 0, tensor->elements);
  size_t bytes = (size_t)tensor->elements * sizeof *host;
  enum ditmoe_status status = ex->device->ops->alloc(ex, bytes, name, (void **)out);
  if (status == DITMOE_OK) be_upload(ex, *out, host, bytes), b->model->weight_bytes += bytes;
  mem_free(ex->ctx, host);
  checkpoint_drop(b->checkpoint, tensor);
  return status == DITMOE_OK ? ex->status : status;
}

void binder_ignore(struct binder *b, const char *name) {
  const struct tensor *tensor = checkpoint_find(b->checkpoint, name);
  if (tensor) b->taken[tensor - b->checkpoint->tensors] = true;
}

enum ditmoe_status binder_finish(struct binder *b) {
  const struct ditmoe_checkpoint *checkpoint = b->checkpoint;
  for (size_t i = 0; i < checkpoint->count; i++)
    if (!b->taken[i]) differ(b, "unexpected %s", checkpoint->tensors[i].name);
  for (size_t i = 0; b->packed && i < b->packed->file->count; i++) {
    const char *name = b->packed->file->tensors[i].name;
    if (!b->adopted[i] && !checkpoint_find(checkpoint, name)) differ(b, "unexpected %s", name);
  }
  if (b->differences == 0) return DITMOE_OK;
  return fail(b->ex->ctx, DITMOE_MISMATCH,
              "%s: %d difference%s from a %s model of width %d, depth %d: %s%s", checkpoint->path,
              b->differences, b->differences > 1 ? "s" : "",
              dit_kind_name(b->model->config.record.kind), b->model->config.width,
              b->model->config.depth, b->report, b->differences > BINDER_LISTED ? "; ..." : "");
}
