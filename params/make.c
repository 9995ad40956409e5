/* The layers of a table: made, shared, destroyed. */
#include "backend/packed.h"
#include "base/system.h"
#include "params/params.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct param *first_row(const struct params *params, const struct param_group *group) {
  return &params->row[group->first];
}

static size_t row_count(const struct param_group *group) {
  return (size_t)group->weights + (size_t)group->biases;
}

void params_packed_name(const struct params *params, const struct param_group *group,
                        char name[PARAM_NAME]) {
  const char *first = first_row(params, group)->name;
  snprintf(name, PARAM_NAME, "%.*s" PACKED_ENDING, (int)(strlen(first) - strlen(".weight")), first);
}

static enum dtype input_type(const struct param_group *group, const struct exec *ex) {
  return group->flags & PARAM_EXACT ? DT_F32 : ex->compute;
}

struct linear_source params_source(const struct params *params, const struct param_group *group,
                                   const struct exec *ex) {
  const struct param *row = first_row(params, group);
  struct linear_source source = {.parts = group->weights,
                                 .paired = group->flags & PARAM_PAIRED,
                                 .input = input_type(group, ex)};
  for (int i = 0; i < group->weights; i++) {
    source.weight[i] = row[i].source;
    source.bias[i] = group->biases ? row[group->weights + i].source : NULL;
  }
  return source;
}

struct linear params_shape(const struct params *params, const struct param_group *group,
                           const struct exec *ex) {
  const struct param *row = first_row(params, group);
  const struct linear_source source = params_source(params, group, ex);
  struct linear shape = {.in = (int)row->shape[1],
                         .paired = source.paired,
                         .input = source.input,
                         .format = linear_source_format(&source)};
  for (int i = 0; i < group->weights; i++) shape.out += (int)row[i].shape[0];
  if (shape.paired) shape.out /= 2;
  return shape;
}

/* Of packed files, what was found when they were made. */
static bool is_finite(const struct params *params, const struct tensor *tensor) {
  if (!params->packed) return tensor_all_finite(tensor);
  return !params->packed->suspect[tensor - params->file->tensors];
}

void params_inspect(struct params *params, const struct param_group *group, bool finite) {
  for (size_t i = 0; i < row_count(group); i++) {
    struct param *row = &params->row[group->first + i];
    params->parameters += (uint64_t)row->source->elements;
    row->suspect = !finite && !is_finite(params, row->source);
    checkpoint_drop(params->file, row->source);
    if (row->suspect)
      warn(params->ctx, "%s: tensor %s holds NaN or infinite values", params->file->path,
           row->name);
  }
}

/* Each kind of layer. */

static enum ditmoe_status convolution(struct params *params, const struct param_group *group,
                                      struct exec *ex, const struct tensor *weight,
                                      const struct tensor *bias) {
  TRY(ex->device->ops->conv_create(ex, weight, bias, &group->window, group->slot.conv));
  params->weight_bytes += (*group->slot.conv)->bytes;
  params_inspect(params, group, true); /* nobody asks: a decoder shows what it decodes */
  return DITMOE_OK;
}

/* weight, bias (f32) of convolution and batch normalisation in one; row: the five tensors. */
static enum ditmoe_status fold(struct ditmoe_ctx *ctx, const struct param *row, double eps,
                               float *weight, float *bias) {
  const int64_t each = row[0].source->elements / row[0].shape[0];
  tensor_read_f32(weight, row[0].source, 0, row[0].source->elements);
  for (int64_t o = 0; o < row[0].shape[0]; o++, weight += each) {
    float norm[4]; /* weight, bias, mean, variance */
    for (int i = 0; i < 4; i++) tensor_read_f32(&norm[i], row[1 + i].source, o, 1);
    if (!((double)norm[3] + eps > 0))
      return fail(ctx, DITMOE_MISMATCH, "%s: element %lld is %g: no variance", row[4].name,
                  (long long)o, (double)norm[3]);
    const double scale = (double)norm[0] / sqrt((double)norm[3] + eps);
    for (int64_t i = 0; i < each; i++) weight[i] = (float)((double)weight[i] * scale);
    bias[o] = (float)((double)norm[1] - (double)norm[2] * scale);
  }
  return DITMOE_OK;
}

static enum ditmoe_status convolution_normalised(struct params *params,
                                                 const struct param_group *group, struct exec *ex) {
  const struct param *row = first_row(params, group);
  struct tensor weight = *row->source, bias = *row[2].source;
  float *w = NULL, *b = NULL;
  enum ditmoe_status status;
  TRY_DONE(mem_alloc(ex->ctx, (size_t)weight.elements, sizeof *w, weight.name, &w));
  TRY_DONE(mem_alloc(ex->ctx, (size_t)bias.elements, sizeof *b, bias.name, &b));
  TRY_DONE(fold(ex->ctx, row, group->eps, w, b));
  weight.dtype = bias.dtype = DT_F32;
  weight.data = w;
  bias.data = b;
  status = convolution(params, group, ex, &weight, &bias);
done:
  mem_free(ex->ctx, w);
  mem_free(ex->ctx, b);
  return status;
}

/* Tensors as one array on the device, one behind the other; *out is NULL if there is none. */
static enum ditmoe_status floats(struct params *params, const struct param_group *group,
                                 struct exec *ex, float **out) {
  const struct param *row = first_row(params, group);
  size_t n = 0, at = 0;
  float *host;
  void *device = NULL;
  for (size_t i = 0; i < row_count(group); i++) n += (size_t)row[i].source->elements;
  params->weight_bytes += n * sizeof *host;
  if (ex->dry) {
    params_inspect(params, group, true);
    return DITMOE_OK;
  }
  TRY(mem_alloc(ex->ctx, n, sizeof *host, row->name, &host));
  for (size_t i = 0; i < row_count(group); at += (size_t)row[i++].source->elements)
    tensor_read_f32(host + at, row[i].source, 0, row[i].source->elements);
  enum ditmoe_status status = ex->device->ops->alloc(ex, n * sizeof *host, row->name, &device);
  if (status == DITMOE_OK) be_upload(ex, device, host, n * sizeof *host);
  mem_free(ex->ctx, host);
  if (status != DITMOE_OK) return status;
  *out = device;
  params_inspect(params, group, false);
  return ex->status;
}

/* The layer that was packed from the rows. */
static enum ditmoe_status adopt(struct params *params, const struct param_group *group,
                                struct exec *ex, struct linear **out) {
  const struct linear shape = params_shape(params, group, ex);
  char name[PARAM_NAME];
  params_packed_name(params, group, name);
  const struct tensor *stored = checkpoint_find(params->packed->file, name);
  TRY(ex->device->ops->packed->adopt(ex, &shape, stored, out));
  params->weight_bytes += (uint64_t)stored->elements;
  params_inspect(params, group, ex->dry);
  return DITMOE_OK;
}

/* out [rows, in]: rows of norm 1. */
static void scale_rows(float *out, const struct tensor *matrix, int64_t rows, int64_t in) {
  tensor_read_f32(out, matrix, 0, matrix->elements);
  for (int64_t r = 0; r < rows; r++, out += in) {
    double sum = 0;
    for (int64_t i = 0; i < in; i++) sum += (double)out[i] * (double)out[i];
    const double norm = sqrt(sum) > 1e-12 ? sqrt(sum) : 1e-12;
    for (int64_t i = 0; i < in; i++) out[i] = (float)((double)out[i] / norm);
  }
}

/* The patches of a convolution that do not overlap are rows of a product: its kernels matrices. */
static enum ditmoe_status linear(struct params *params, const struct param_group *group,
                                 struct exec *ex, struct linear **out) {
  struct linear_source source = params_source(params, group, ex);
  struct tensor matrix[sizeof source.weight / sizeof *source.weight];
  float *scaled = NULL;
  for (int i = 0; i < source.parts; i++) {
    matrix[i] = *source.weight[i];
    source.weight[i] = &matrix[i];
    if (matrix[i].rank != 4) continue;
    matrix[i].rank = 2;
    matrix[i].shape[1] = matrix[i].elements / matrix[i].shape[0];
  }
  if (group->flags & PARAM_UNIT) {
    TRY(mem_alloc(ex->ctx, (size_t)matrix->elements, sizeof *scaled, matrix->name, &scaled));
    scale_rows(scaled, matrix, matrix->shape[0], matrix->shape[1]);
    matrix->dtype = DT_F32;
    matrix->data = scaled;
  }
  enum ditmoe_status status = ex->device->ops->linear_create(ex, &source, out);
  mem_free(ex->ctx, scaled);
  if (status != DITMOE_OK) return status;
  params->weight_bytes += (*out)->bytes;
  params_inspect(params, group, (*out)->finite || ex->dry);
  return DITMOE_OK;
}

static bool same_data(const struct params *params, const struct param_group *a,
                      const struct param_group *b) {
  bool same = true;
  for (size_t i = 0; i < row_count(a) && same; i++) {
    const struct tensor *x = params->row[a->first + i].source,
                        *y = params->row[b->first + i].source;
    same = x->dtype == y->dtype && memcmp(x->data, y->data, tensor_bytes(x)) == 0;
    checkpoint_drop(params->file, y);
  }
  return same;
}

static void set_norm(struct norm *norm, float *array) {
  norm->weight = array;
  norm->bias = array + norm->channels;
}

static enum ditmoe_status make(struct params *params, struct param_group *group, struct exec *ex) {
  const struct param_group *original = group->original < 0 ? NULL : &params->group[group->original];
  struct linear *product = NULL;
  float *array = NULL;
  enum ditmoe_status status;
  if (original && same_data(params, original, group)) {
    if (group->kind == PARAM_LINEAR)
      *group->slot.linear = *original->slot.linear;
    else
      *group->slot.floats = *original->slot.floats;
    return DITMOE_OK;
  }
  switch (group->kind) {
  case PARAM_CONV:
    TRY(convolution(params, group, ex, first_row(params, group)->source,
                    group->biases ? first_row(params, group)[1].source : NULL));
    break;
  case PARAM_CONV_NORMALISED:
    TRY(convolution_normalised(params, group, ex));
    break;
  case PARAM_NORM:
  case PARAM_FLOATS:
    status = floats(params, group, ex, &array);
    if (!array) return status;
    group->made = true;
    if (group->kind == PARAM_FLOATS) *group->slot.floats = array;
    if (group->kind == PARAM_NORM) set_norm(group->slot.norm, array);
    return status;
  case PARAM_LINEAR:
    TRY(params->packed && param_group_packs(group) ? adopt(params, group, ex, &product)
                                                   : linear(params, group, ex, &product));
    *group->slot.linear = product;
  }
  group->made = true;
  return DITMOE_OK;
}

/* The type that a row of a group is kept in: that of its layer's weights, f32 for all else. */
static enum dtype kept_type(const struct params *params, const struct param_group *group,
                            size_t row, const struct exec *ex) {
  if (row >= (size_t)group->weights) return DT_F32;
  if (group->kind == PARAM_CONV || group->kind == PARAM_CONV_NORMALISED) return ex->compute;
  return group->kind == PARAM_LINEAR ? params_shape(params, group, ex).format : DT_F32;
}

static enum ditmoe_status check_memory(const struct params *params, const struct exec *ex) {
  double bytes = 0;
  const double available = (double)ex->device->ops->memory_available(ex->device);
  for (size_t i = 0; i < params->group_count; i++) {
    const struct param_group *group = &params->group[i];
    if (params->packed && param_group_packs(group)) continue;
    for (size_t r = 0; r < row_count(group); r++)
      bytes += (double)params->row[group->first + r].source->elements *
               (double)dtype_size(kept_type(params, group, r, ex));
  }
  if (bytes <= available) return DITMOE_OK;
  return fail(params->ctx, DITMOE_NOMEM, "%s: the weights need %.1f GiB in %s, %.1f GiB are free",
              params->file->path, bytes / 0x1p30, ex->compute == DT_BF16 ? "bf16" : "f32",
              available / 0x1p30);
}

enum ditmoe_status params_make(struct params *params, struct exec *ex) {
  if (!ex->dry) TRY(check_memory(params, ex));
  for (size_t i = 0; i < params->group_count; i++) TRY(make(params, &params->group[i], ex));
  for (size_t i = 0; i < params->count; i++) params->row[i].source = NULL;
  params->file = NULL;
  params->packed = NULL;
  return DITMOE_OK;
}

enum ditmoe_status params_load(struct params *params, struct exec *ex, const char *network) {
  TRY(params_match(params, ex, &(struct params_what){network, false}));
  return params_make(params, ex);
}

static void destroy(const struct param_group *group, struct exec *ex) {
  const struct backend_ops *ops = ex->device->ops;
  switch (group->kind) {
  case PARAM_CONV:
  case PARAM_CONV_NORMALISED:
    ops->conv_destroy(ex, *group->slot.conv);
    return;
  case PARAM_NORM:
    ops->release(ex, group->slot.norm->weight);
    return;
  case PARAM_FLOATS:
    ops->release(ex, (float *)(uintptr_t)*group->slot.floats);
    return;
  case PARAM_LINEAR:
    ops->linear_destroy(ex, (struct linear *)(uintptr_t)*group->slot.linear);
  }
}

void params_free(struct params *params, struct exec *ex) {
  for (size_t i = 0; i < params->group_count; i++)
    if (params->group[i].made) destroy(&params->group[i], ex);
  mem_free(ex->ctx, params->group);
  mem_free(ex->ctx, params->row);
  *params = (struct params){0};
}
