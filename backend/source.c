/* The tensors that weights are made of: their shapes are checked here for every backend. */
#include "backend/backend.h"

#include <limits.h>
#include <string.h>

/* [rows, columns] of a tensor: its first axis by all others. */
static enum ditmoe_status matrix_shape(struct ditmoe_ctx *ctx, const struct tensor *weight,
                                       int *rows, int *columns) {
  int64_t r = weight->rank >= 2 ? weight->shape[0] : 0;
  int64_t c = r > 0 ? weight->elements / r : 0;
  if (!dtype_is_float(weight->dtype) || c <= 0 || r > INT_MAX || c > INT_MAX)
    return fail(ctx, DITMOE_MISMATCH,
                "%s: expected a floating matrix, found %s of rank %d with %lld elements",
                weight->name, dtype_name(weight->dtype), weight->rank, (long long)weight->elements);
  *rows = (int)r;
  *columns = (int)c;
  return DITMOE_OK;
}

static enum ditmoe_status check_bias(struct ditmoe_ctx *ctx, const struct tensor *bias, int rows) {
  if (!bias || (dtype_is_float(bias->dtype) && bias->elements == rows)) return DITMOE_OK;
  return fail(ctx, DITMOE_MISMATCH, "%s: expected %d floating values, found %lld of type %s",
              bias->name, rows, (long long)bias->elements, dtype_name(bias->dtype));
}

enum dtype linear_source_format(const struct linear_source *source) {
  enum dtype format = DT_COUNT;
  for (int i = 0; i < source->parts; i++) {
    const struct tensor *weight = source->weight[i];
    if (weight && format == DT_COUNT) format = weight->dtype;
    if (weight && format != weight->dtype) format = DT_F32;
  }
  if (source->input == DT_BF16) return DT_BF16;
  return format == DT_F16 || format == DT_BF16 ? format : DT_F32;
}

enum ditmoe_status linear_source_shape(struct ditmoe_ctx *ctx, const struct linear_source *source,
                                       struct linear *shape) {
  int64_t total = 0;
  int first = 0, columns = 0;
  for (int i = 0; i < source->parts; i++) {
    int r, c;
    TRY(matrix_shape(ctx, source->weight[i], &r, &c));
    if (i == 0) first = r, columns = c;
    if (c != columns || (source->paired && r != first))
      return fail(ctx, DITMOE_MISMATCH, "%s: expected shape [%d, %d] like %s, found [%d, %d]",
                  source->weight[i]->name, source->paired ? first : r, columns,
                  source->weight[0]->name, r, c);
    TRY(check_bias(ctx, source->bias[i], r));
    total += r;
  }
  if (source->paired) total /= 2;
  if (total > INT_MAX / 2)
    return fail(ctx, DITMOE_MISMATCH, "%s: %lld outputs are too many", source->weight[0]->name,
                (long long)total);
  *shape = (struct linear){.in = columns,
                           .out = (int)total,
                           .paired = source->paired,
                           .input = source->input,
                           .format = linear_source_format(source)};
  return DITMOE_OK;
}

void linear_source_read(const struct linear_source *source, float *weight, float *bias) {
  for (int i = 0; i < source->parts; i++) {
    const struct tensor *w = source->weight[i], *b = source->bias[i];
    int64_t rows = w->shape[0];
    tensor_read_f32(weight, w, 0, w->elements);
    if (b) tensor_read_f32(bias, b, 0, rows);
    if (!b) memset(bias, 0, (size_t)rows * sizeof *bias);
    weight += w->elements;
    bias += rows;
  }
}

enum ditmoe_status conv_source_shape(struct ditmoe_ctx *ctx, const struct tensor *weight,
                                     const struct tensor *bias, const struct conv_window *window,
                                     struct conv *out) {
  int rows, columns;
  TRY(matrix_shape(ctx, weight, &rows, &columns));
  if (weight->rank != 4)
    return fail(ctx, DITMOE_MISMATCH,
                "%s: expected a convolution [out, in, height, width], found rank %d", weight->name,
                weight->rank);
  TRY(check_bias(ctx, bias, rows));
  *out = (struct conv){.in = (int)weight->shape[1],
                       .out = rows,
                       .kernel = {(int)weight->shape[2], (int)weight->shape[3]},
                       .stride = window->stride,
                       .before = {window->before[0], window->before[1]},
                       .after = {window->after[0], window->after[1]}};
  return DITMOE_OK;
}
