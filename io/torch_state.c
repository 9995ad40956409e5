/* The tensors of a state dictionary: bounds, strides, element types and view bits. */
#include "io/torch.h"

#include <string.h>

struct reading {
  struct source *source;
  const struct pickle *pickle;
  torch_storage *storage;
  void *archive;
};

static enum ditmoe_status bad_tensor(const struct reading *r, struct text name, const char *what) {
  return fail(r->source->ctx, DITMOE_FORMAT, "%s: tensor %.*s: %s", r->source->path, TEXT(name),
              what);
}

/* Fills rank, shape and strides from two tuples of integers. */
static enum ditmoe_status read_shape(const struct reading *r, struct text name,
                                     const struct pickle_view *view, struct tensor *tensor,
                                     uint64_t stride[]) {
  const struct pickle_value sizes = view->size, strides = view->stride;
  if (sizes.kind != PICKLE_TUPLE || strides.kind != PICKLE_TUPLE)
    return bad_tensor(r, name, "its size or stride is not a tuple");
  uint32_t rank = pickle_count(r->pickle, sizes);
  if (rank != pickle_count(r->pickle, strides))
    return bad_tensor(r, name, "size and stride differ in length");
  if (rank > TENSOR_MAX_RANK) return bad_tensor(r, name, "more than 8 dimensions");
  tensor->rank = (int)rank;
  for (uint32_t i = 0; i < rank; i++) {
    struct pickle_value size = pickle_item(r->pickle, sizes, i);
    struct pickle_value step = pickle_item(r->pickle, strides, i);
    if (size.kind != PICKLE_INT || step.kind != PICKLE_INT || size.integer < 0 || step.integer < 0)
      return bad_tensor(r, name, "a size or stride that is negative, huge or no integer");
    tensor->shape[i] = size.integer;
    stride[i] = (uint64_t)step.integer;
  }
  return DITMOE_OK;
}

/* Whether offset + sum (shape - 1) stride, the last element, lies in the storage. */
static bool inside(const struct tensor *tensor, const uint64_t stride[], uint64_t offset,
                   uint64_t storage) {
  uint64_t last = offset, reach;
  if (tensor->elements == 0) return offset <= storage;
  for (int i = 0; i < tensor->rank; i++)
    if (__builtin_mul_overflow((uint64_t)tensor->shape[i] - 1, stride[i], &reach) ||
        __builtin_add_overflow(last, reach, &last))
      return false;
  return last < storage;
}

static bool is_contiguous(const struct tensor *tensor, const uint64_t stride[]) {
  uint64_t expected = 1;
  for (int i = tensor->rank - 1; i >= 0; i--) {
    if (tensor->shape[i] != 1 && stride[i] != expected) return false;
    expected *= (uint64_t)tensor->shape[i];
  }
  return true;
}

/* Copies elements of `size` bytes in row-major order, counting through the indices. */
static void copy_strided(uint8_t *dst, const uint8_t *src, const struct tensor *tensor,
                         const uint64_t stride[], size_t size) {
  int64_t index[TENSOR_MAX_RANK] = {0};
  uint64_t at = 0; /* in elements */
  for (int64_t i = 0; i < tensor->elements; i++) {
    memcpy(dst + (size_t)i * size, src + at * size, size);
    for (int axis = tensor->rank - 1; axis >= 0; axis--) {
      at += stride[axis];
      if (++index[axis] < tensor->shape[axis]) break;
      at -= stride[axis] * (uint64_t)tensor->shape[axis];
      index[axis] = 0;
    }
  }
}

/* A stride is only checked up to the last element: of an axis with one element it means nothing. */
static void clear_unused_strides(const struct tensor *tensor, uint64_t stride[]) {
  for (int i = 0; i < tensor->rank; i++)
    if (tensor->shape[i] == 1) stride[i] = 0;
}

/* Of view bits, only the negative one can be followed: x stands for -x. */
static enum ditmoe_status read_bits(const struct reading *r, struct text name,
                                    struct pickle_value bits, const struct tensor *tensor,
                                    bool *negative) {
  const struct pickle *p = r->pickle;
  *negative = false;
  if (bits.kind != PICKLE_DICT) return DITMOE_OK;
  for (int32_t cell = p->nodes[bits.node].first; cell != PICKLE_NIL;) {
    const struct pickle_value key = p->cells[cell].value;
    const struct pickle_cell *value = &p->cells[p->cells[cell].next];
    cell = value->next;
    if (value->value.kind == PICKLE_BOOL && !value->value.integer) continue;
    *negative = key.kind == PICKLE_STRING && text_is(key.text, "neg");
    if (!*negative || !dtype_is_float(tensor->dtype))
      return bad_tensor(r, name,
                        "a conjugate or negative view; save it after resolve_conj() and "
                        "resolve_neg()");
  }
  return DITMOE_OK;
}

/* Flips signs, which are the highest bits. */
static void negate(uint8_t *data, const struct tensor *tensor) {
  const size_t size = dtype_size(tensor->dtype);
  for (int64_t i = 0; i < tensor->elements; i++) data[(size_t)i * size + size - 1] ^= 0x80;
}

/* *data = the content of the storage that a view reaches into; *elements = how many of the tensor's
 * type it has room for. */
static enum ditmoe_status read_storage(const struct reading *r, struct text name,
                                       const struct pickle_view *view, enum dtype dtype,
                                       struct span *content, uint64_t *elements) {
  const struct pickle_value class = pickle_item(r->pickle, view->storage, 1);
  const struct text key = pickle_item(r->pickle, view->storage, 2).text;
  const uint64_t count = (uint64_t)pickle_item(r->pickle, view->storage, 4).integer;
  const size_t bits = dtype_bits(dtype);
  uint64_t bytes;
  if (__builtin_mul_overflow(count, dtype_size(pickle_dtype(class)), &bytes) ||
      bytes > UINT64_MAX / 8)
    return bad_tensor(r, name, "size, stride and offset reach beyond its storage");
  *elements = bytes * 8 / bits;
  TRY(r->storage(r->source, r->archive, name, key, bytes, content));
  if (content->size == bytes) return DITMOE_OK;
  return fail(r->source->ctx, DITMOE_FORMAT,
              "%s: tensor %.*s: its storage %.*s has %zu bytes instead of %llu: %llu of torch.%s",
              r->source->path, TEXT(name), TEXT(key), content->size, (unsigned long long)bytes,
              (unsigned long long)count, dtype_torch_storage(pickle_dtype(class)));
}

static enum ditmoe_status read_tensor(const struct reading *r, struct text name,
                                      struct pickle_value value) {
  const struct pickle_view view = pickle_view(r->pickle, value);
  uint64_t stride[TENSOR_MAX_RANK], bytes, elements;
  struct tensor tensor = {.dtype = pickle_dtype(view.type)};
  struct span content;
  bool negative;
  if (view.storage.kind == PICKLE_UNSET)
    return bad_tensor(r, name,
                      "it is sparse, without values or of a special class; save it as a "
                      "dense tensor in main memory");
  if (tensor.dtype == DT_COUNT) return bad_tensor(r, name, "its element type is not supported");
  const size_t bits = dtype_bits(tensor.dtype);
  TRY(read_shape(r, name, &view, &tensor, stride));
  clear_unused_strides(&tensor, stride);
  if (!tensor_measure(&tensor, &bytes)) return bad_tensor(r, name, "its size overflows");
  if (view.offset.kind != PICKLE_INT || view.offset.integer < 0)
    return bad_tensor(r, name, "a storage offset that is negative, huge or no integer");
  TRY(read_bits(r, name, view.bits, &tensor, &negative));
  TRY(read_storage(r, name, &view, tensor.dtype, &content, &elements));
  if (!inside(&tensor, stride, (uint64_t)view.offset.integer, elements))
    return bad_tensor(r, name, "size, stride and offset reach beyond its storage");
  const bool whole = is_contiguous(&tensor, stride);
  if (bits < 8 && (!whole || (uint64_t)view.offset.integer * bits % 8))
    return bad_tensor(r, name, "a view of elements that are smaller than a byte");
  const uint8_t *data = content.data + (uint64_t)view.offset.integer * bits / 8;
  tensor.data = data;
  if ((!whole || negative) && tensor.elements) {
    uint8_t *copy;
    TRY(source_unpack(r->source, bytes, name, &copy));
    copy_strided(copy, data, &tensor, stride, dtype_size(tensor.dtype));
    if (negative) negate(copy, &tensor);
    tensor.data = copy;
  }
  return source_add(r->source, name, &tensor);
}

enum ditmoe_status torch_state_read(struct source *source, const struct pickle *pickle,
                                    struct pickle_value root, torch_storage *storage,
                                    void *archive) {
  struct reading r = {source, pickle, storage, archive};
  struct pickle_value dict = {0};
  char path[TORCH_PATH];
  TRY(torch_state_choose(source, pickle, root, &dict, path));
  TRY(torch_args_read(source, pickle, root));
  if (*path) TRY(mem_strdup(source->ctx, path, &source->checkpoint->key));
  for (int32_t cell = pickle->nodes[dict.node].first; cell != PICKLE_NIL;) {
    const struct pickle_cell *name = &pickle->cells[cell], *value = &pickle->cells[name->next];
    cell = value->next;
    if (value->value.kind != PICKLE_TENSOR) continue;
    if (name->value.kind != PICKLE_STRING)
      return fail(source->ctx, DITMOE_FORMAT, "%s: a tensor is named by %s instead of a string",
                  source->path, pickle_kind_name(name->value.kind));
    TRY(read_tensor(&r, name->value.text, value->value));
  }
  return DITMOE_OK;
}
