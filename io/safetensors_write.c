/* Writing safetensors: length, header, data; see safetensors.c for the grammar. */
#include "io/formats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Widest elements first keeps every tensor aligned to its elements. */
static int compare_stored(const void *a, const void *b) {
  const struct stored_tensor *x = a, *y = b;
  size_t wide = dtype_size(x->dtype), other = dtype_size(y->dtype);
  if (wide != other) return wide > other ? -1 : 1;
  return strcmp(x->tensor->name, y->tensor->name);
}

void safetensors_sort(struct stored_tensor *tensors, size_t count) {
  if (count) qsort(tensors, count, sizeof *tensors, compare_stored);
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

/* "NAME":{"dtype":...,"shape":[...], without the end */
static void put_shape(FILE *stream, const struct tensor *tensor, enum dtype dtype) {
  put_string(stream, tensor->name);
  fprintf(stream, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(dtype));
  for (int i = 0; i < tensor->rank; i++)
    fprintf(stream, "%s%lld", i ? "," : "", (long long)tensor->shape[i]);
  fputc(']', stream);
}

char *safetensors_list(const struct tensor *tensors, size_t count) {
  char *text = NULL;
  size_t size;
  FILE *stream = open_memstream(&text, &size);
  if (!stream) return NULL;
  for (size_t i = 0; i < count; i++) {
    fputc(i ? ',' : '{', stream);
    put_shape(stream, &tensors[i], tensors[i].dtype);
    fputc('}', stream);
  }
  fputs(count ? "}" : "{}", stream);
  bool failed = ferror(stream);
  if (fclose(stream) == 0 && !failed) return text;
  free(text);
  return NULL;
}

static uint64_t put_description(FILE *stream, const struct stored_tensor *stored, uint64_t offset) {
  const struct tensor tensor = {.dtype = stored->dtype, .elements = stored->tensor->elements};
  uint64_t end = offset + tensor_bytes(&tensor);
  put_shape(stream, stored->tensor, stored->dtype);
  fprintf(stream, ",\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
          (unsigned long long)end);
  return end;
}

/* The length is filled in behind the header, which is padded so that the data begin at a multiple
 * of `alignment`. Errors stay in the stream until it is committed. */
static void put_header(FILE *stream, const struct stored_tensor *tensors, size_t count,
                       const struct checkpoint_entry *metadata, size_t metadata_count,
                       int alignment) {
  uint8_t length[8] = {0};
  uint64_t offset = 0;
  (void)!fwrite(length, 1, sizeof length, stream);
  fputc('{', stream);
  if (metadata_count) put_metadata(stream, metadata, metadata_count);
  for (size_t i = 0; i < count; i++) {
    if (i || metadata_count) fputc(',', stream);
    offset = put_description(stream, &tensors[i], offset);
  }
  fputc('}', stream);
  while (ftell(stream) > 0 && ftell(stream) % alignment) fputc(' ', stream);
  uint64_t size = (uint64_t)ftell(stream) - sizeof length;
  for (size_t i = 0; i < sizeof length; i++) length[i] = (uint8_t)(size >> 8 * i);
  fseek(stream, 0, SEEK_SET); /* rewind() would forget errors */
  (void)!fwrite(length, 1, sizeof length, stream);
  fseek(stream, 0, SEEK_END);
}

enum ditmoe_status safetensors_begin(struct ditmoe_ctx *ctx, const char *path,
                                     const struct stored_tensor *tensors, size_t count,
                                     const struct checkpoint_entry *metadata, size_t metadata_count,
                                     int alignment, struct file_output *out) {
  TRY(file_output_open(ctx, path, out));
  put_header(out->stream, tensors, count, metadata, metadata_count, alignment);
  return DITMOE_OK;
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
                                        const struct stored_tensor *item) {
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

enum ditmoe_status safetensors_put(struct ditmoe_ctx *ctx, const char *path,
                                   const struct stored_tensor *stored, struct file_output *out) {
  const struct tensor *tensor = stored->tensor;
  if (ferror(out->stream)) return DITMOE_OK; /* the commit will say so; do not write on */
  if (stored->dtype != tensor->dtype) return put_converted(ctx, out->stream, path, stored);
  if (tensor->elements) (void)!fwrite(tensor->data, 1, tensor_bytes(tensor), out->stream);
  return DITMOE_OK;
}

enum ditmoe_status safetensors_write(struct ditmoe_ctx *ctx, const char *path,
                                     const struct tensor *tensors, size_t count, enum dtype dtype,
                                     const struct checkpoint_entry *metadata,
                                     size_t metadata_count) {
  enum { ALIGNMENT = 8 };
  struct stored_tensor *stored;
  struct file_output output = {0};
  enum ditmoe_status status;
  TRY(mem_alloc(ctx, count, sizeof *stored, "the tensor list", &stored));
  for (size_t i = 0; i < count; i++) {
    bool convert = dtype != DT_COUNT && dtype_is_float(tensors[i].dtype);
    if (!dtype_is_portable(tensors[i].dtype))
      TRY_DONE(fail(ctx, DITMOE_MISMATCH,
                    "%s: safetensors files cannot have tensor %s: its type is %s", path,
                    tensors[i].name, dtype_name(tensors[i].dtype)));
    stored[i] = (struct stored_tensor){&tensors[i], convert ? dtype : tensors[i].dtype};
  }
  safetensors_sort(stored, count);
  TRY_DONE(
      safetensors_begin(ctx, path, stored, count, metadata, metadata_count, ALIGNMENT, &output));
  for (size_t i = 0; i < count; i++) TRY_DONE(safetensors_put(ctx, path, &stored[i], &output));
  status = file_output_commit(ctx, &output);
done:
  file_output_abandon(ctx, &output);
  mem_free(ctx, stored);
  return status;
}
