/* Writing safetensors: length, header, data; see safetensors.c for the grammar. */
#include "io/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct item { /* a tensor as it will be stored */
  const struct tensor *tensor;
  enum dtype dtype;
};

/* Widest elements first keeps every tensor aligned to its elements. */
static int compare_items(const void *a, const void *b) {
  const struct item *x = a, *y = b;
  size_t wide = dtype_size(x->dtype), other = dtype_size(y->dtype);
  if (wide != other) return wide > other ? -1 : 1;
  return strcmp(x->tensor->name, y->tensor->name);
}

static void put_string(FILE *stream, const char *text) {
  fputc('"', stream);
  for (; *text; text++) {
    unsigned char byte = (unsigned char)*text;
    if (byte < 0x20)
      fprintf(stream, "\\u%04x", byte);
    else if (byte == '"' || byte == '\\')
      fprintf(stream, "\\%c", byte);
    else
      fputc(byte, stream);
  }
  fputc('"', stream);
}

static void put_metadata(FILE *stream, const struct checkpoint_entry *metadata, size_t count) {
  fputs("\"__metadata__\":{", stream);
  for (size_t i = 0; i < count; i++) {
    if (i) fputc(',', stream);
    put_string(stream, metadata[i].key);
    fputc(':', stream);
    put_string(stream, metadata[i].value);
  }
  fputc('}', stream);
}

static uint64_t put_description(FILE *stream, const struct item *item, uint64_t offset) {
  const struct tensor *tensor = item->tensor;
  uint64_t end = offset + (uint64_t)tensor->elements * dtype_size(item->dtype);
  put_string(stream, tensor->name);
  fprintf(stream, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(item->dtype));
  for (int i = 0; i < tensor->rank; i++)
    fprintf(stream, "%s%lld", i ? "," : "", (long long)tensor->shape[i]);
  fprintf(stream, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
          (unsigned long long)end);
  return end;
}

/* The length is filled in behind the header, which is padded so that the data begin at a multiple
 * of 8. Errors stay in the stream until it is committed. */
static void put_header(FILE *stream, const struct item *items, size_t count,
                       const struct checkpoint_entry *metadata, size_t metadata_count) {
  uint8_t length[8] = {0};
  uint64_t offset = 0;
  (void)!fwrite(length, 1, sizeof length, stream);
  fputc('{', stream);
  if (metadata_count) put_metadata(stream, metadata, metadata_count);
  for (size_t i = 0; i < count; i++) {
    if (i || metadata_count) fputc(',', stream);
    offset = put_description(stream, &items[i], offset);
  }
  fputc('}', stream);
  while (ftell(stream) > 0 && ftell(stream) % 8) fputc(' ', stream);
  uint64_t size = (uint64_t)ftell(stream) - sizeof length;
  for (size_t i = 0; i < sizeof length; i++) length[i] = (uint8_t)(size >> 8 * i);
  fseek(stream, 0, SEEK_SET); /* rewind() would forget errors */
  (void)!fwrite(length, 1, sizeof length, stream);
  fseek(stream, 0, SEEK_END);
}

enum { CHUNK = 4096 };

/* Rounds a chunk to 16 bits; the index of the first finite value that becomes infinite, or
 * count. */
static int64_t narrow(uint16_t *dst, const float *src, int64_t count, enum dtype dtype) {
  for (int64_t i = 0; i < count; i++) {
    dst[i] = dtype == DT_F16 ? f16_from_f32(src[i]) : bf16_from_f32(src[i]);
    float back = dtype == DT_F16 ? f32_from_f16(dst[i]) : f32_from_bf16(dst[i]);
    if (isinf(back) && isfinite(src[i])) return i;
  }
  return count;
}

static enum ditmoe_status put_converted(struct ditmoe_ctx *ctx, FILE *stream, const char *path,
                                        const struct item *item) {
  const struct tensor *tensor = item->tensor;
  float values[CHUNK];
  uint16_t halves[CHUNK];
  for (int64_t first = 0; first < tensor->elements; first += CHUNK) {
    int64_t left = tensor->elements - first, count = left < CHUNK ? left : CHUNK;
    tensor_read_f32(values, tensor, first, count);
    if (item->dtype == DT_F32) {
      (void)!fwrite(values, sizeof *values, (size_t)count, stream);
      continue;
    }
    int64_t bad = narrow(halves, values, count, item->dtype);
    if (bad < count)
      return fail(ctx, DITMOE_NONFINITE,
                  "%s: tensor %s: the value %g is beyond the range of %s; use bf16 or f32", path,
                  tensor->name, (double)values[bad], dtype_name(item->dtype));
    (void)!fwrite(halves, sizeof *halves, (size_t)count, stream);
  }
  return DITMOE_OK;
}

static enum ditmoe_status put_data(struct ditmoe_ctx *ctx, FILE *stream, const char *path,
                                   const struct item *items, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const struct tensor *tensor = items[i].tensor;
    if (items[i].dtype != tensor->dtype)
      TRY(put_converted(ctx, stream, path, &items[i]));
    else if (tensor->elements)
      (void)!fwrite(tensor->data, dtype_size(tensor->dtype), (size_t)tensor->elements, stream);
    if (ferror(stream)) return DITMOE_OK; /* the commit will say so; do not write on */
  }
  return DITMOE_OK;
}

enum ditmoe_status safetensors_write(struct ditmoe_ctx *ctx, const char *path,
                                     const struct tensor *tensors, size_t count, enum dtype dtype,
                                     const struct checkpoint_entry *metadata,
                                     size_t metadata_count) {
  struct item *items;
  struct file_output output;
  TRY(mem_alloc(ctx, count, sizeof *items, "the tensor list", &items));
  for (size_t i = 0; i < count; i++) {
    bool convert = dtype != DT_COUNT && dtype_is_float(tensors[i].dtype);
    items[i] = (struct item){&tensors[i], convert ? dtype : tensors[i].dtype};
  }
  if (count) qsort(items, count, sizeof *items, compare_items);
  enum ditmoe_status status = file_output_open(ctx, path, &output);
  if (status == DITMOE_OK) {
    put_header(output.stream, items, count, metadata, metadata_count);
    status = put_data(ctx, output.stream, path, items, count);
    if (status == DITMOE_OK)
      status = file_output_commit(ctx, &output);
    else
      file_output_abandon(ctx, &output);
  }
  mem_free(ctx, items);
  return status;
}
