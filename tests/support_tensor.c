/* Tensors of a checkpoint for the tests. */
#include "io/checkpoint.h"
#include "tests/support.h"

#include <stdlib.h>
#include <string.h>

struct ditmoe_checkpoint *checkpoint_of(const char *path) {
  struct ditmoe_checkpoint *checkpoint = NULL;
  assert_ok(test_ctx(), ditmoe_checkpoint_open(test_ctx(), path, NULL, &checkpoint));
  return checkpoint;
}

/* The tensor, and memory for its elements at `size` bytes each (one more, never nothing). */
static const struct tensor *find(const struct ditmoe_checkpoint *checkpoint, const char *name,
                                 size_t size, int64_t *count, void *memory) {
  const struct tensor *tensor = checkpoint_find(checkpoint, name);
  if (!tensor) fail_msg("%s: no tensor %s", checkpoint->path, name);
  void *block = calloc((size_t)tensor->elements + 1, size);
  assert_non_null(block);
  memcpy(memory, &block, sizeof block);
  if (count) *count = tensor->elements;
  return tensor;
}

float *tensor_f32(const struct ditmoe_checkpoint *checkpoint, const char *name, int64_t *count) {
  float *values;
  const struct tensor *tensor = find(checkpoint, name, sizeof *values, count, &values);
  assert_true(dtype_is_float(tensor->dtype));
  tensor_read_f32(values, tensor, 0, tensor->elements);
  return values;
}

double *tensor_f64(const struct ditmoe_checkpoint *checkpoint, const char *name, int64_t *count) {
  double *values;
  const struct tensor *tensor = find(checkpoint, name, sizeof *values, count, &values);
  assert_true(dtype_is_float(tensor->dtype));
  if (tensor->dtype == DT_F64) {
    memcpy(values, tensor->data, (size_t)tensor->elements * sizeof *values);
    return values;
  }
  for (int64_t i = 0; i < tensor->elements; i++) {
    float value;
    tensor_read_f32(&value, tensor, i, 1);
    values[i] = value;
  }
  return values;
}

int64_t *tensor_i64(const struct ditmoe_checkpoint *checkpoint, const char *name, int64_t *count) {
  int64_t *values;
  const struct tensor *tensor = find(checkpoint, name, sizeof *values, count, &values);
  assert_int_equal(tensor->dtype, DT_I64);
  memcpy(values, tensor->data, (size_t)tensor->elements * sizeof *values);
  return values;
}
