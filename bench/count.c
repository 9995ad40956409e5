#include "bench/count.h"

#include "cli/text.h"

#include <stdlib.h>

static struct counter *counter_of(const struct backend *be) {
  return (struct counter *)(void *)(uintptr_t)be->ops;
}

static void count_layer(struct counter *counter, const struct linear *w, double rows) {
  counter->flop += 2 * rows * w->in * w->out * (w->paired ? 2 : 1);
  if (rows > 0) counter->weight_bytes += (double)w->bytes;
}

static void count_linear(struct backend *be, float *y, const void *x, const struct linear *w,
                         int64_t rows) {
  struct counter *counter = counter_of(be);
  count_layer(counter, w, (double)rows);
  counter->real->linear(be, y, x, w, rows);
}

static void count_hidden(struct backend *be, struct act *h, const struct act *x,
                         const struct expert *expert, int64_t rows) {
  struct counter *counter = counter_of(be);
  count_layer(counter, expert->in, (double)rows);
  counter->real->hidden(be, h, x, expert, rows);
}

static void count_attention(struct backend *be, struct act *o, const float *qkv, int B, int T,
                            int H, int d) {
  struct counter *counter = counter_of(be);
  counter->flop += 4.0 * B * T * T * H * d;
  counter->real->attention(be, o, qkv, B, T, H, d);
}

static void count_window(struct counter *counter, const struct conv *w, int B, int height,
                         int width) {
  const double pixels = (double)conv_size(w, 0, height) * conv_size(w, 1, width);
  counter->flop += 2.0 * B * pixels * w->in * w->out * w->kernel[0] * w->kernel[1];
  counter->weight_bytes += (double)w->bytes;
}

static void count_conv2d(struct backend *be, float *y, const struct act *x, const struct conv *w,
                         int B, int height, int width) {
  count_window(counter_of(be), w, B, height, width);
  counter_of(be)->real->conv2d(be, y, x, w, B, height, width);
}

static void count_conv2d_relu(struct backend *be, const struct conv_branch *branches, int count,
                              const struct act *x, int B, int height, int width) {
  for (int i = 0; i < count; i++) count_window(counter_of(be), branches[i].w, B, height, width);
  counter_of(be)->real->conv2d_relu(be, branches, count, x, B, height, width);
}

/* The rows of each expert are known only to the device. */
static void count_experts(struct backend *be, const struct dispatch *d,
                          const struct expert *const *experts, bool second) {
  struct counter *counter = counter_of(be);
  size_t bytes = ((size_t)d->experts + 1) * sizeof(int32_t);
  int32_t *offset = memory_get(1, bytes);
  counter->real->download(be, offset, d->offset, bytes);
  for (int e = 0; e < d->experts; e++) {
    const struct linear *w = second ? experts[e]->out : experts[e]->in;
    if (w) count_layer(counter, w, offset[e + 1] - offset[e]);
  }
  free(offset);
}

static void count_experts_in(struct backend *be, struct act *h, const struct act *x,
                             const struct dispatch *d, const struct expert *const *experts, int D,
                             int F) {
  count_experts(be, d, experts, false);
  counter_of(be)->real->experts_in(be, h, x, d, experts, D, F);
}

static void count_experts_out(struct backend *be, float *rows, const struct act *h,
                              const struct act *x, const struct dispatch *d,
                              const struct expert *const *experts, int D, int F) {
  count_experts(be, d, experts, true);
  counter_of(be)->real->experts_out(be, rows, h, x, d, experts, D, F);
}

void counter_begin(struct counter *counter, struct backend *be) {
  *counter = (struct counter){.ops = *be->ops, .real = be->ops};
  counter->ops.linear = count_linear;
  counter->ops.hidden = count_hidden;
  counter->ops.attention = count_attention;
  counter->ops.conv2d = count_conv2d;
  counter->ops.conv2d_relu = count_conv2d_relu;
  counter->ops.experts_in = count_experts_in;
  counter->ops.experts_out = count_experts_out;
  be->ops = &counter->ops;
}

void counter_end(const struct counter *counter, struct backend *be) { be->ops = counter->real; }
