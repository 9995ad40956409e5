/* Weights on the device: matrices [out, in] of the type of their inputs, bias behind them. They are
 * taken from slabs one after the other, so that the experts of a layer, which are made in order,
 * are at one distance from each other and one launch finds them all. */
#include "backend/cuda/cuda.h"

#include <string.h>

enum { ALIGN = 256 };

/* Doubles from one slab to the next: little is left over in a small model, few layers of a large
 * one lie across a boundary. */
static const size_t slab_least = (size_t)16 << 20, slab_most = (size_t)1 << 30;

struct cuda_slab {
  char *memory;
  size_t used, size;
  int users; /* layers in it, and the execution that takes from it */
};

static size_t aligned(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

void cuda_slab_release(struct exec *ex, struct cuda_slab *slab) {
  if (!slab || --slab->users > 0) return;
  cuda_op_release(ex, slab->memory);
  mem_free(ex->ctx, slab);
}

static enum ditmoe_status next_slab(struct exec *ex, size_t bytes, const char *what) {
  struct cuda_exec *own = cuda_exec(ex);
  struct cuda_slab *slab;
  size_t size = own->slab ? 2 * own->slab->size : slab_least;
  if (size > slab_most) size = slab_most;
  if (size < bytes) size = bytes;
  TRY(mem_zalloc(ex->ctx, 1, sizeof *slab, what, &slab));
  void *memory;
  enum ditmoe_status status = cuda_op_alloc(ex, size, what, &memory);
  if (status != DITMOE_OK) {
    mem_free(ex->ctx, slab);
    return status;
  }
  *slab = (struct cuda_slab){memory, 0, size, 1};
  cuda_slab_release(ex, own->slab);
  own->slab = slab;
  return DITMOE_OK;
}

/* `bytes`, a multiple of ALIGN, of the slab in use. */
static enum ditmoe_status take(struct exec *ex, size_t bytes, const char *what,
                               struct cuda_weights *out) {
  struct cuda_exec *own = cuda_exec(ex);
  if (!own->slab || own->slab->size - own->slab->used < bytes) TRY(next_slab(ex, bytes, what));
  out->slab = own->slab;
  out->matrix = own->slab->memory + own->slab->used;
  own->slab->used += bytes;
  own->slab->users++;
  return DITMOE_OK;
}

/* Rows of the matrix as it lies on the device. */
static int rows_of(const struct linear *w) { return w->paired ? cuda_paired_rows(w->out) : w->out; }

static size_t matrix_bytes(const struct linear *w) {
  return aligned((size_t)rows_of(w) * (size_t)w->in * dtype_size(w->input));
}

/* From device memory: weight [total, in] and bias [total], NULL: zeros. */
static cudaError_t pack(struct exec *ex, const struct linear *w, const float *weight,
                        const float *bias) {
  const struct cuda_weights *to = w->data;
  const int64_t total = (int64_t)w->out << w->paired;
  cudaStream_t stream = cuda_stream(ex);
  cudaError_t error = w->paired
                          ? cuda_pack_paired(stream, to->matrix, w->input, weight, w->out, w->in)
                          : cuda_narrow(stream, to->matrix, w->input, weight, total * w->in);
  if (error != cudaSuccess) return error;
  if (!bias) return cudaMemsetAsync(to->bias, 0, (size_t)rows_of(w) * sizeof(float), stream);
  if (w->paired) return cuda_pack_paired(stream, to->bias, DT_F32, bias, w->out, 1);
  return cudaMemcpyAsync(to->bias, bias, (size_t)total * sizeof(float), cudaMemcpyDeviceToDevice,
                         stream);
}

/* read: host [total * in + total] */
static enum ditmoe_status fill(struct exec *ex, struct linear *w, const float *read) {
  const size_t bytes = ((size_t)w->out << w->paired) * ((size_t)w->in + 1) * sizeof(float);
  void *staged;
  TRY(cuda_op_alloc(ex, bytes, "weights on their way", &staged));
  cuda_op_upload(ex, staged, read, bytes);
  const float *weight = staged;
  if (ex->status == DITMOE_OK)
    cuda_check(ex, pack(ex, w, weight, weight + ((int64_t)w->out << w->paired) * w->in), "weights");
  cuda_op_release(ex, staged);
  return ex->status;
}

static enum ditmoe_status make(struct exec *ex, const struct linear *shape, const char *name,
                               struct linear **out) {
  struct linear *w;
  struct cuda_weights *data;
  const size_t matrix = matrix_bytes(shape), bias = aligned((size_t)rows_of(shape) * sizeof(float));
  TRY(mem_alloc(ex->ctx, 1, sizeof *w, name, &w));
  *w = *shape;
  w->bytes = matrix + bias;
  enum ditmoe_status status = mem_zalloc(ex->ctx, 1, sizeof *data, name, &w->data);
  data = w->data;
  if (status == DITMOE_OK && !ex->dry) status = take(ex, w->bytes, name, data);
  if (status != DITMOE_OK) {
    cuda_op_linear_destroy(ex, w);
    return status;
  }
  data->bias = (float *)(void *)((char *)data->matrix + matrix);
  *out = w;
  return DITMOE_OK;
}

enum ditmoe_status cuda_op_linear_create(struct exec *ex, const struct linear_source *source,
                                         struct linear **out) {
  struct linear shape, *w;
  float *read;
  TRY(linear_source_shape(ex->ctx, source, &shape));
  shape.format = shape.input;
  const char *name = source->weight[0]->name;
  if (ex->dry) return make(ex, &shape, name, out);
  const size_t total = (size_t)shape.out << shape.paired;
  TRY(mem_alloc(ex->ctx, total * ((size_t)shape.in + 1), sizeof *read, name, &read));
  linear_source_read(source, read, read + total * (size_t)shape.in);
  shape.finite = f32_all_finite(read, (int64_t)(total * ((size_t)shape.in + 1)));
  enum ditmoe_status status = make(ex, &shape, name, &w);
  if (status == DITMOE_OK) {
    status = fill(ex, w, read);
    if (status == DITMOE_OK)
      *out = w;
    else
      cuda_op_linear_destroy(ex, w);
  }
  mem_free(ex->ctx, read);
  return status;
}

/* Whether the new values are finite only the device knows. */
void cuda_op_linear_update(struct exec *ex, struct linear *w, const float *weight,
                           const float *bias) {
  w->finite = false;
  cuda_check(ex, pack(ex, w, weight, bias), "linear_update");
}

void cuda_op_linear_destroy(struct exec *ex, struct linear *linear) {
  struct cuda_weights *data = linear ? linear->data : NULL;
  if (data) cuda_slab_release(ex, data->slab);
  mem_free(ex->ctx, data);
  mem_free(ex->ctx, linear);
}

/* read [out, kernel, in] and the bias behind it, of weight [out, in, kernel]. */
static void read_conv(float *read, const struct tensor *weight, const struct tensor *bias,
                      const struct conv *w) {
  const int64_t area = (int64_t)w->kernel[0] * w->kernel[1], each = area * w->in;
  float *values = read + w->out * each; /* of one output, where its bias and others come */
  for (int64_t o = 0; o < w->out; o++) {
    tensor_read_f32(values, weight, o * each, each);
    for (int64_t c = 0; c < w->in; c++)
      for (int64_t at = 0; at < area; at++) read[o * each + at * w->in + c] = values[c * area + at];
  }
  memset(values, 0, (size_t)w->out * sizeof *values);
  if (bias) tensor_read_f32(values, bias, 0, w->out);
}

enum ditmoe_status cuda_op_conv_create(struct exec *ex, const struct tensor *weight,
                                       const struct tensor *bias, const struct conv_window *window,
                                       struct conv **out) {
  struct conv shape, *w = NULL;
  struct linear *matrix = NULL;
  float *read;
  TRY(conv_source_shape(ex->ctx, weight, bias, window, &shape));
  const int64_t each = weight->elements / shape.out;
  const int64_t spare = each > shape.out ? each : shape.out;
  TRY(mem_alloc(ex->ctx, (size_t)(weight->elements + spare), sizeof *read, weight->name, &read));
  if (!ex->dry) read_conv(read, weight, bias, &shape);
  const struct linear as_matrix = {
      .in = (int)each, .out = shape.out, .input = ex->compute, .format = ex->compute};
  enum ditmoe_status status = make(ex, &as_matrix, weight->name, &matrix);
  if (status == DITMOE_OK && !ex->dry) status = fill(ex, matrix, read);
  if (status == DITMOE_OK) status = mem_alloc(ex->ctx, 1, sizeof *w, weight->name, &w);
  if (status == DITMOE_OK) {
    *w = shape;
    w->input = ex->compute;
    w->bytes = matrix->bytes;
    w->data = matrix;
    *out = w;
  } else {
    cuda_op_linear_destroy(ex, matrix);
  }
  mem_free(ex->ctx, read);
  return status;
}

void cuda_op_conv_destroy(struct exec *ex, struct conv *conv) {
  if (conv) cuda_op_linear_destroy(ex, conv->data);
  mem_free(ex->ctx, conv);
}
