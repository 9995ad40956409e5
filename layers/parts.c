/* A table of named weights: see parts.h. */
#include "layers/parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

size_t parts_enter(struct parts *parts, const char *format, ...) {
  const size_t length = strlen(parts->prefix);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(parts->prefix + length, sizeof parts->prefix - length, format, arguments);
  va_end(arguments);
  return length;
}

void parts_leave(struct parts *parts, size_t length) { parts->prefix[length] = 0; }

static void add_tensor(struct parts *parts, const char *name, const char *suffix, int rank,
                       const int64_t shape[4]) {
  if (parts->status == DITMOE_OK)
    parts->status = mem_room(parts->ctx, parts->tensor_count, sizeof *parts->tensor,
                             "the table of tensors", &parts->tensor);
  if (parts->status != DITMOE_OK) return;
  struct part_tensor *row = &parts->tensor[parts->tensor_count++];
  *row = (struct part_tensor){.rank = rank};
  memcpy(row->shape, shape, sizeof row->shape);
  const size_t length = parts_enter(parts, "%s.%s", name, suffix);
  memcpy(row->name, parts->prefix, sizeof row->name);
  parts_leave(parts, length);
}

static void add_part(struct parts *parts, struct part part) {
  if (parts->status == DITMOE_OK)
    parts->status = mem_room(parts->ctx, parts->part_count, sizeof *parts->part,
                             "the table of layers", &parts->part);
  if (parts->status != DITMOE_OK) return;
  part.first = parts->tensor_count;
  parts->part[parts->part_count++] = part;
}

void parts_unused(struct parts *parts, const char *name, const char *suffix, int rank,
                  const int64_t shape[4]) {
  add_tensor(parts, name, suffix, rank, shape);
  if (parts->status == DITMOE_OK) parts->tensor[parts->tensor_count - 1].unused = true;
}

void parts_conv(struct parts *parts, struct conv **slot, int in, int out,
                const struct conv_form *form, const char *name) {
  add_part(parts, (struct part){.kind = PART_CONV,
                                .weights = 1,
                                .biases = form->bias,
                                .window = form->window,
                                .slot.conv = slot});
  add_tensor(parts, name, "weight", 4, (int64_t[4]){out, in, form->kernel[0], form->kernel[1]});
  if (form->bias) add_tensor(parts, name, "bias", 1, (int64_t[4]){out});
}

void parts_conv_normalised(struct parts *parts, struct conv **slot, int in, int out,
                           const struct conv_form *form, double eps, const char *name) {
  static const char *const of_norm[] = {"bn.weight", "bn.bias", "bn.running_mean",
                                        "bn.running_var"};
  add_part(parts, (struct part){.kind = PART_CONV_NORMALISED,
                                .weights = 1,
                                .window = form->window,
                                .eps = eps,
                                .slot.conv = slot});
  add_tensor(parts, name, "conv.weight", 4,
             (int64_t[4]){out, in, form->kernel[0], form->kernel[1]});
  for (size_t i = 0; i < sizeof of_norm / sizeof *of_norm; i++)
    add_tensor(parts, name, of_norm[i], 1, (int64_t[4]){out});
  parts_unused(parts, name, "bn.num_batches_tracked", 0, (int64_t[4]){0});
}

void parts_norm(struct parts *parts, struct norm *slot, int channels, const char *name) {
  slot->channels = channels;
  add_part(parts, (struct part){.kind = PART_NORM, .weights = 1, .biases = 1, .slot.norm = slot});
  add_tensor(parts, name, "weight", 1, (int64_t[4]){channels});
  add_tensor(parts, name, "bias", 1, (int64_t[4]){channels});
}

void parts_linear(struct parts *parts, struct linear **slot, int in, int out,
                  const char *const *names, int count) {
  add_part(parts, (struct part){
                      .kind = PART_LINEAR, .weights = count, .biases = count, .slot.linear = slot});
  for (int i = 0; i < count; i++) add_tensor(parts, names[i], "weight", 2, (int64_t[4]){out, in});
  for (int i = 0; i < count; i++) add_tensor(parts, names[i], "bias", 1, (int64_t[4]){out});
}

void parts_linear_exact(struct parts *parts, struct linear **slot, int in, int out,
                        const char *name) {
  add_part(parts,
           (struct part){.kind = PART_LINEAR, .weights = 1, .exact = true, .slot.linear = slot});
  add_tensor(parts, name, "weight", 2, (int64_t[4]){out, in});
}

/* The first ten differences, joined to one line. */
struct differences {
  int count;
  size_t used;
  char text[900];
};

__attribute__((format(printf, 2, 3))) static void differ(struct differences *d, const char *format,
                                                         ...) {
  enum { LISTED = 10 };
  va_list arguments;
  if (d->count++ >= LISTED) return;
  va_start(arguments, format);
  if (d->count > 1 && d->used + 3 < sizeof d->text)
    memcpy(d->text + d->used, "; ", 3), d->used += 2;
  int length = vsnprintf(d->text + d->used, sizeof d->text - d->used, format, arguments);
  va_end(arguments);
  if (length > 0) d->used += (size_t)length;
  if (d->used >= sizeof d->text) d->used = sizeof d->text - 1;
}

static const char *shape_text(char *text, size_t size, int rank, const int64_t *shape) {
  size_t used = (size_t)snprintf(text, size, "[");
  for (int i = 0; i < rank && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, i ? ", %lld" : "%lld", (long long)shape[i]);
  if (used < size) snprintf(text + used, size - used, "]");
  return text;
}

static void match(struct part_tensor *row, const struct tensor *tensor, struct differences *d) {
  char expected[64], found[192];
  size_t bytes = (size_t)row->rank * sizeof *row->shape;
  row->found = tensor;
  shape_text(expected, sizeof expected, row->rank, row->shape);
  if (!tensor) {
    if (!row->unused) differ(d, "%s %s is missing", row->name, expected);
  } else if (!dtype_is_float(tensor->dtype) && !row->unused) {
    differ(d, "%s: expected a floating type, found %s", row->name, dtype_name(tensor->dtype));
  } else if (tensor->rank != row->rank || memcmp(tensor->shape, row->shape, bytes) != 0) {
    shape_text(found, sizeof found, tensor->rank, tensor->shape);
    differ(d, "%s: expected %s, found %s", row->name, expected, found);
  }
}

static bool is_expected(const struct parts *parts, const struct tensor *tensor) {
  for (size_t i = 0; i < parts->tensor_count; i++)
    if (parts->tensor[i].found == tensor) return true;
  return false;
}

static enum ditmoe_status bind(struct parts *parts, const struct ditmoe_checkpoint *file,
                               const char *what) {
  struct differences d = {0};
  for (size_t i = 0; i < parts->tensor_count; i++)
    match(&parts->tensor[i], checkpoint_find(file, parts->tensor[i].name), &d);
  for (size_t i = 0; i < file->count; i++)
    if (!is_expected(parts, &file->tensors[i]))
      differ(&d, "%s is unexpected", file->tensors[i].name);
  if (d.count == 0) return DITMOE_OK;
  return fail(parts->ctx, DITMOE_MISMATCH, "%s: not the tensors of this %s, %d differ: %s",
              file->path, what, d.count, d.text);
}

static enum ditmoe_status norm_create(struct exec *ex, const struct tensor *weight,
                                      const struct tensor *bias, struct norm *norm) {
  size_t n = (size_t)norm->channels;
  float *host;
  void *block = NULL;
  TRY(mem_alloc(ex->ctx, 2 * n, sizeof(float), "a norm", &host));
  tensor_read_f32(host, weight, 0, weight->elements);
  tensor_read_f32(host + n, bias, 0, bias->elements);
  enum ditmoe_status status = ex->device->ops->alloc(ex, 2 * n * sizeof(float), "a norm", &block);
  if (status == DITMOE_OK) {
    ex->device->ops->upload(ex, block, host, 2 * n * sizeof(float));
    norm->weight = block;
    norm->bias = norm->weight + n;
  }
  mem_free(ex->ctx, host);
  return status;
}

/* weight, bias (f32) of convolution and batch normalisation in one; row: the five tensors. */
static enum ditmoe_status fold(struct ditmoe_ctx *ctx, const struct part_tensor *row, double eps,
                               float *weight, float *bias) {
  const int64_t each = row[0].found->elements / row[0].shape[0];
  tensor_read_f32(weight, row[0].found, 0, row[0].found->elements);
  for (int64_t o = 0; o < row[0].shape[0]; o++, weight += each) {
    float norm[4]; /* weight, bias, mean, variance */
    for (int i = 0; i < 4; i++) tensor_read_f32(&norm[i], row[1 + i].found, o, 1);
    if (!((double)norm[3] + eps > 0))
      return fail(ctx, DITMOE_MISMATCH, "%s: element %lld is %g: no variance", row[4].name,
                  (long long)o, (double)norm[3]);
    const double scale = (double)norm[0] / sqrt((double)norm[3] + eps);
    for (int64_t i = 0; i < each; i++) weight[i] = (float)((double)weight[i] * scale);
    bias[o] = (float)((double)norm[1] - (double)norm[2] * scale);
  }
  return DITMOE_OK;
}

static enum ditmoe_status conv_normalised_create(struct exec *ex, const struct part *part,
                                                 const struct part_tensor *row) {
  struct tensor weight = *row->found, bias = *row[2].found;
  float *w = NULL, *b = NULL;
  enum ditmoe_status status;
  TRY_DONE(mem_alloc(ex->ctx, (size_t)weight.elements, sizeof *w, weight.name, &w));
  TRY_DONE(mem_alloc(ex->ctx, (size_t)bias.elements, sizeof *b, bias.name, &b));
  TRY_DONE(fold(ex->ctx, row, part->eps, w, b));
  weight.dtype = bias.dtype = DT_F32;
  weight.data = w;
  bias.data = b;
  status = ex->device->ops->conv_create(ex, &weight, &bias, &part->window, part->slot.conv);
done:
  mem_free(ex->ctx, w);
  mem_free(ex->ctx, b);
  return status;
}

static enum ditmoe_status part_create(struct parts *parts, struct part *part, struct exec *ex,
                                      uint64_t *bytes) {
  const struct part_tensor *row = &parts->tensor[part->first];
  const struct tensor *bias = part->biases ? row[part->weights].found : NULL;
  struct linear_source source = {.parts = part->weights,
                                 .input = part->exact ? DT_F32 : ex->compute};
  switch (part->kind) {
  case PART_CONV:
    TRY(ex->device->ops->conv_create(ex, row->found, bias, &part->window, part->slot.conv));
    *bytes += (*part->slot.conv)->bytes;
    return DITMOE_OK;
  case PART_CONV_NORMALISED:
    TRY(conv_normalised_create(ex, part, row));
    *bytes += (*part->slot.conv)->bytes;
    return DITMOE_OK;
  case PART_LINEAR:
    for (int i = 0; i < part->weights; i++)
      source.weight[i] = row[i].found,
      source.bias[i] = part->biases ? row[part->weights + i].found : NULL;
    TRY(ex->device->ops->linear_create(ex, &source, part->slot.linear));
    *bytes += (*part->slot.linear)->bytes;
    return DITMOE_OK;
  case PART_NORM:
    TRY(norm_create(ex, row->found, bias, part->slot.norm));
    *bytes += 2 * sizeof(float) * (uint64_t)part->slot.norm->channels;
  }
  return DITMOE_OK;
}

enum ditmoe_status parts_load(struct parts *parts, struct exec *ex,
                              const struct ditmoe_checkpoint *file, const char *what,
                              uint64_t *weight_bytes) {
  TRY(parts->status);
  TRY(bind(parts, file, what));
  for (size_t i = 0; i < parts->part_count; i++)
    TRY(part_create(parts, &parts->part[i], ex, weight_bytes));
  return DITMOE_OK;
}

static void part_destroy(const struct part *part, struct exec *ex) {
  switch (part->kind) {
  case PART_CONV:
  case PART_CONV_NORMALISED:
    if (*part->slot.conv) ex->device->ops->conv_destroy(ex, *part->slot.conv);
    return;
  case PART_LINEAR:
    if (*part->slot.linear) ex->device->ops->linear_destroy(ex, *part->slot.linear);
    return;
  case PART_NORM:
    if (part->slot.norm->weight) ex->device->ops->release(ex, part->slot.norm->weight);
  }
}

void parts_free(struct parts *parts, struct exec *ex) {
  for (size_t i = 0; i < parts->part_count; i++) part_destroy(&parts->part[i], ex);
  mem_free(parts->ctx, parts->part);
  mem_free(parts->ctx, parts->tensor);
}
