#include "bench/count.h"

#include "cli/text.h"

#include <stdlib.h>

static struct counter *counter_of(const struct exec *ex) {
  return (struct counter *)(void *)(uintptr_t)ex->device->ops;
}

static void count_layer(struct counter *counter, const struct linear *w, double rows) {
  counter->flop += 2 * rows * w->in * w->out * (w->paired ? 2 : 1);
  if (rows > 0) counter->weight_bytes += (double)w->bytes;
}

static void count_linear(struct exec *ex, float *y, struct act x, const struct linear *w,
                         int64_t rows) {
  struct counter *counter = counter_of(ex);
  count_layer(counter, w, (double)rows);
  counter->real->linear(ex, y, x, w, rows);
}

static void count_hidden(struct exec *ex, struct act h, struct act x, const struct expert *expert,
                         int64_t rows) {
  struct counter *counter = counter_of(ex);
  count_layer(counter, expert->in, (double)rows);
  counter->real->hidden(ex, h, x, expert, rows);
}

static void count_attention(struct exec *ex, struct act o, float *lse, const float *qkv, int B,
                            int T, int H, int d) {
  struct counter *counter = counter_of(ex);
  counter->flop += 4.0 * B * T * T * H * d;
  counter->real->attention(ex, o, lse, qkv, B, T, H, d);
}

static void count_window(struct counter *counter, const struct conv *w, int B, int height,
                         int width) {
  const double pixels = (double)conv_size(w, 0, height) * conv_size(w, 1, width);
  counter->flop += 2.0 * B * pixels * w->in * w->out * w->kernel[0] * w->kernel[1];
  counter->weight_bytes += (double)w->bytes;
}

static void count_conv2d(struct exec *ex, float *y, struct act x, const struct conv *w, int B,
                         int height, int width) {
  count_window(counter_of(ex), w, B, height, width);
  counter_of(ex)->real->conv2d(ex, y, x, w, B, height, width);
}

static void count_conv2d_relu(struct exec *ex, const struct conv_branch *branches, int count,
                              struct act x, int B, int height, int width) {
  for (int i = 0; i < count; i++) count_window(counter_of(ex), branches[i].w, B, height, width);
  counter_of(ex)->real->conv2d_relu(ex, branches, count, x, B, height, width);
}

/* The rows of each expert are known only to the device. */
static void count_experts(struct exec *ex, const struct dispatch *d, const struct expert_wave *wave,
                          bool second) {
  struct counter *counter = counter_of(ex);
  int32_t *rows = memory_get((size_t)d->experts, sizeof *rows);
  be_dispatch_rows(ex, rows, d);
  for (int i = 0; i < wave->count; i++) {
    const struct expert *expert = wave_expert(wave, i);
    const struct linear *w = second ? expert->out : expert->in;
    if (w) count_layer(counter, w, rows[wave_index(wave, i)]);
  }
  free(rows);
}

static void count_experts_in(struct exec *ex, struct act h, struct act x, const struct dispatch *d,
                             const struct expert_wave *wave) {
  count_experts(ex, d, wave, false);
  counter_of(ex)->real->experts_in(ex, h, x, d, wave);
}

static void count_experts_out(struct exec *ex, float *rows, struct act h, struct act x,
                              const struct dispatch *d, const struct expert_wave *wave) {
  count_experts(ex, d, wave, true);
  counter_of(ex)->real->experts_out(ex, rows, h, x, d, wave);
}

void counter_begin(struct counter *counter, struct exec *ex) {
  *counter = (struct counter){
      .ops = *ex->device->ops, .device = *ex->device, .real = ex->device->ops, .own = ex->device};
  counter->ops.linear = count_linear;
  counter->ops.hidden = count_hidden;
  counter->ops.attention = count_attention;
  counter->ops.conv2d = count_conv2d;
  counter->ops.conv2d_relu = count_conv2d_relu;
  counter->ops.experts_in = count_experts_in;
  counter->ops.experts_out = count_experts_out;
  counter->device.ops = &counter->ops;
  ex->device = &counter->device;
}

void counter_end(const struct counter *counter, struct exec *ex) { ex->device = counter->own; }
