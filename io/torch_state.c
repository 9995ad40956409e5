/* State dictionaries: which entry of a training dictionary, and bounds and strides of every
 * tensor. */
#include "io/torch.h"

#include <stdio.h>
#include <string.h>

struct reading {
  struct source *source;
  const struct pickle *pickle;
  torch_storage *storage;
  void *archive;
};

/* String keys of a dictionary as "a, b, c", cut where the buffer ends. */
static void list_keys(const struct pickle *pickle, struct pickle_value dict, char *out,
                      size_t capacity) {
  size_t used = 0;
  out[0] = '\0';
  for (int32_t cell = pickle->nodes[dict.node].first; cell != PICKLE_NIL && used < capacity;) {
    const struct pickle_cell *key = &pickle->cells[cell];
    if (key->value.kind == PICKLE_STRING)
      used += (size_t)snprintf(out + used, capacity - used, "%s%.*s", used ? ", " : "",
                               TEXT(key->value.text));
    cell = pickle->cells[key->next].next;
  }
}

/* *dict = the state dictionary; *key = its name, NULL for root itself. */
static enum ditmoe_status choose(const struct reading *r, struct pickle_value root,
                                 struct pickle_value *dict, const char **key) {
  static const char *const preferred[] = {"ema", "ema_model_state_dict", "model",
                                          "model_state_dict", "state_dict"};
  struct source *source = r->source;
  if (root.kind != PICKLE_DICT)
    return fail(source->ctx, DITMOE_MISMATCH, "%s: no tensors: the file holds %s, not a dictionary",
                source->path, pickle_kind_name(root.kind));
  *key = source->key;
  if (source->key) {
    *dict = pickle_get(r->pickle, root, source->key);
    if (dict->kind == PICKLE_DICT) return DITMOE_OK;
    char keys[400];
    list_keys(r->pickle, root, keys, sizeof keys);
    return fail(source->ctx, DITMOE_USAGE, "%s: key \"%s\" is %s; the keys of this file are: %s",
                source->path, source->key,
                dict->kind == PICKLE_UNSET ? "not there" : pickle_kind_name(dict->kind), keys);
  }
  for (size_t i = 0; i < sizeof preferred / sizeof *preferred; i++) {
    *dict = pickle_get(r->pickle, root, preferred[i]);
    *key = preferred[i];
    if (dict->kind == PICKLE_DICT) return DITMOE_OK;
  }
  *dict = root;
  *key = NULL;
  return DITMOE_OK;
}

static enum ditmoe_status bad_tensor(const struct reading *r, struct text name, const char *what) {
  return fail(r->source->ctx, DITMOE_FORMAT, "%s: tensor %.*s: %s", r->source->path, TEXT(name),
              what);
}

/* Fills rank, shape and strides from two tuples of integers. */
static enum ditmoe_status read_shape(const struct reading *r, struct text name,
                                     struct pickle_value arguments, struct tensor *tensor,
                                     uint64_t stride[]) {
  struct pickle_value sizes = pickle_item(r->pickle, arguments, 2);
  struct pickle_value strides = pickle_item(r->pickle, arguments, 3);
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

static enum ditmoe_status read_tensor(const struct reading *r, struct text name,
                                      struct pickle_value arguments) {
  struct pickle_value storage = pickle_item(r->pickle, arguments, 0);
  struct pickle_value offset = pickle_item(r->pickle, arguments, 1);
  struct pickle_value storage_class = pickle_item(r->pickle, storage, 1);
  uint64_t stride[TENSOR_MAX_RANK], bytes, storage_bytes;
  uint64_t storage_elements = (uint64_t)pickle_item(r->pickle, storage, 4).integer;
  struct tensor tensor = {.dtype = pickle_storage_dtype(storage_class)};
  size_t size = dtype_size(tensor.dtype);
  TRY(read_shape(r, name, arguments, &tensor, stride));
  clear_unused_strides(&tensor, stride);
  if (!tensor_measure(&tensor, &bytes)) return bad_tensor(r, name, "its size overflows");
  if (offset.kind != PICKLE_INT || offset.integer < 0)
    return bad_tensor(r, name, "a storage offset that is negative, huge or no integer");
  if (__builtin_mul_overflow(storage_elements, size, &storage_bytes) ||
      !inside(&tensor, stride, (uint64_t)offset.integer, storage_elements))
    return bad_tensor(r, name, "size, stride and offset reach beyond its storage");
  const uint8_t *data = NULL;
  TRY(r->storage(r->source, r->archive, name, pickle_item(r->pickle, storage, 2).text,
                 storage_bytes, &data));
  data += (uint64_t)offset.integer * size;
  tensor.data = data;
  if (!is_contiguous(&tensor, stride) && tensor.elements) {
    uint8_t *copy;
    TRY(source_unpack(r->source, bytes, name, &copy));
    copy_strided(copy, data, &tensor, stride, size);
    tensor.data = copy;
  }
  return source_add(r->source, name, &tensor);
}

enum ditmoe_status torch_state_read(struct source *source, const struct pickle *pickle,
                                    struct pickle_value root, torch_storage *storage,
                                    void *archive) {
  struct reading r = {source, pickle, storage, archive};
  struct pickle_value dict = {0};
  const char *key = NULL;
  TRY(choose(&r, root, &dict, &key));
  TRY(torch_args_read(source, pickle, root));
  if (key) TRY(mem_strdup(source->ctx, key, &source->checkpoint->key));
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
