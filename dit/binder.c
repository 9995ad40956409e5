#include "dit/binder.h"

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

static bool all_finite(const struct tensor *tensor) {
  float values[512];
  for (int64_t at = 0; at < tensor->elements; at += 512) {
    int64_t count = tensor->elements - at < 512 ? tensor->elements - at : 512;
    tensor_read_f32(values, tensor, at, count);
    if (!f32_all_finite(values, count)) return false;
  }
  return true;
}

/* Remembers a tensor that is not finite: harmless in an expert that nobody chooses. */
static enum ditmoe_status inspect(struct binder *b, const struct tensor *tensor) {
  struct ditmoe_ctx *ctx = b->be->ctx;
  struct dit *model = b->model;
  model->parameters += (uint64_t)tensor->elements;
  if (all_finite(tensor)) return DITMOE_OK;
  TRY(mem_grow(ctx, model->suspect_count, model->suspect_count + 1, sizeof *model->suspects,
               "list of tensors", &model->suspects));
  struct dit_suspect *suspect = &model->suspects[model->suspect_count];
  *suspect = (struct dit_suspect){NULL, b->layer, b->expert};
  TRY(mem_strdup(ctx, tensor->name, &suspect->name));
  model->suspect_count++;
  warn(ctx, "%s: tensor %s holds NaN or infinite values", b->checkpoint->path, tensor->name);
  return DITMOE_OK;
}

const struct tensor *binder_take(struct binder *b, const char *name, int rank,
                                 const int64_t *shape) {
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
  else
    return tensor;
  return NULL;
}

static enum ditmoe_status create_linear(struct binder *b, struct linear **out,
                                        const struct linear_source *source) {
  for (int i = 0; i < source->parts; i++) {
    TRY(inspect(b, source->weight[i]));
    if (source->bias[i]) TRY(inspect(b, source->bias[i]));
  }
  TRY(b->be->ops->linear_create(b->be, source, out));
  b->model->weight_bytes += (*out)->bytes;
  return DITMOE_OK;
}

enum ditmoe_status binder_linear(struct binder *b, struct linear **out,
                                 const struct linear_names *names) {
  struct linear_source source = {.parts = names->parts, .paired = names->paired};
  char full[256];
  for (int i = 0; i < names->parts; i++) {
    const int64_t shape[2] = {names->out[i], names->in}, bias[1] = {names->out[i]};
    snprintf(full, sizeof full, "%s.weight", names->name[i]);
    source.weight[i] = binder_take(b, full, 2, shape);
    snprintf(full, sizeof full, "%s.bias", names->name[i]);
    if (names->bias) source.bias[i] = binder_take(b, full, 1, bias);
  }
  return b->create ? create_linear(b, out, &source) : DITMOE_OK;
}

enum ditmoe_status binder_matrix(struct binder *b, struct linear **out, const char *name, int rows,
                                 int in) {
  const int64_t shape[2] = {rows, in};
  struct linear_source source = {.parts = 1, .weight = {binder_take(b, name, 2, shape)}};
  return b->create ? create_linear(b, out, &source) : DITMOE_OK;
}

enum ditmoe_status binder_floats(struct binder *b, float **out, const char *name, int rank,
                                 const int64_t *shape) {
  const struct tensor *tensor = binder_take(b, name, rank, shape);
  if (!b->create) return DITMOE_OK;
  struct backend *be = b->be;
  float *host = NULL;
  TRY(inspect(b, tensor));
  TRY(mem_alloc(be->ctx, (size_t)tensor->elements, sizeof *host, name, &host));
  tensor_read_f32(host, tensor, 0, tensor->elements);
  size_t bytes = (size_t)tensor->elements * sizeof *host;
  enum ditmoe_status status = be->ops->alloc(be, bytes, name, (void **)out);
  if (status == DITMOE_OK) be_upload(be, *out, host, bytes), b->model->weight_bytes += bytes;
  mem_free(be->ctx, host);
  return status == DITMOE_OK ? be->status : status;
}

void binder_ignore(struct binder *b, const char *name) {
  const struct tensor *tensor = checkpoint_find(b->checkpoint, name);
  if (tensor) b->taken[tensor - b->checkpoint->tensors] = true;
}

enum ditmoe_status binder_finish(struct binder *b) {
  const struct ditmoe_checkpoint *checkpoint = b->checkpoint;
  for (size_t i = 0; i < checkpoint->count; i++)
    if (!b->taken[i]) differ(b, "unexpected %s", checkpoint->tensors[i].name);
  if (b->differences == 0) return DITMOE_OK;
  return fail(b->be->ctx, DITMOE_MISMATCH,
              "%s: %d difference%s from a %s model of width %d, depth %d: %s%s", checkpoint->path,
              b->differences, b->differences > 1 ? "s" : "",
              dit_kind_name(b->model->config.record.kind), b->model->config.width,
              b->model->config.depth, b->report, b->differences > BINDER_LISTED ? "; ..." : "");
}
