#include "dit/positions.h"

#include <math.h>

/* Number i of n, as diffusers rounds it. */
static double place_of(int i, int n, int base) {
  return base > 0 ? (double)((float)i / (float)((double)n / base)) : i;
}

void sincos_positions(float *table, int rows, int cols, int base, int width) {
  const int quarter = width / 4;
  for (int m = 0; m < quarter; m++) {
    const double omega = pow(10000.0, -(double)m / quarter);
    for (int n = 0; n < rows * cols; n++) {
      float *own = table + (int64_t)n * width + m;
      const float *same_column = table + (int64_t)(n % cols) * width + m;
      const float *same_row = table + (int64_t)(n - n % cols) * width + m;
      const double column = place_of(n, cols, base) * omega;
      const double row = place_of(n / cols, rows, base) * omega;
      own[0] = n < cols ? (float)sin(column) : same_column[0];
      own[quarter] = n < cols ? (float)cos(column) : same_column[quarter];
      own[2 * quarter] = n % cols ? same_row[2 * quarter] : (float)sin(row);
      own[3 * quarter] = n % cols ? same_row[3 * quarter] : (float)cos(row);
    }
  }
}

void rope_table(float *cosines, float *sines, int rows, int cols, int pairs) {
  const int half = pairs / 2;
  for (int j = 0; j < pairs; j++) {
    const float frequency = 1 / powf(10000, (float)(j % half) / (float)half);
    for (int n = 0; n < rows * cols; n++) {
      const float angle = (float)(j < half ? n / cols : n % cols) * frequency;
      cosines[n * pairs + j] = cosf(angle);
      sines[n * pairs + j] = sinf(angle);
    }
  }
}

void positions_turn(struct exec *ex, const struct dit *model, int layer, float *qkv,
                    float direction, const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  if (c->rope == ROPE_NONE) return;
  const int T = dit_block_tokens(model, layer, in);
  const int64_t pairs = c->head_dim / 2, rows = c->prefix + dit_tokens(model, in);
  const float *cosines = dit_grid_of(model, in)->rope + (rows - T) * pairs;
  const struct rope rope = {cosines, cosines + rows * pairs, c->rope == ROPE_ADJACENT};
  be_qk_rotate(ex, qkv, &rope, direction, in->B, T, c->heads, c->head_dim);
}

void prefix_put(struct exec *ex, const struct dit *model, struct dit_acts *acts,
                const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const int B = in->B, D = c->width;
  const int64_t prefix = (int64_t)c->prefix * D, image = (int64_t)dit_tokens(model, in) * D;
  float *x = be_floats(ex, B * (prefix + image)), *labels = be_floats(ex, (int64_t)B * D);
  be_gather_rows(ex, labels, model->embedder.labels, in->labels, B, D);
  for (int b = 0; b < B; b++) {
    float *own = x + b * (prefix + image);
    be_copy(ex, own, model->prefix_positions, (size_t)prefix * sizeof *x);
    be_add_rows(ex, own, labels + (int64_t)b * D, c->prefix, D);
    be_copy(ex, own + prefix, acts->x + b * image, (size_t)image * sizeof *x);
  }
  acts->x = x;
}

void prefix_drop(struct exec *ex, const struct dit *model, struct dit_acts *acts,
                 const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const int B = in->B;
  const int64_t prefix = (int64_t)c->prefix * c->width;
  const int64_t image = (int64_t)dit_tokens(model, in) * c->width;
  float *x = be_floats(ex, B * image);
  for (int b = 0; b < B; b++)
    be_copy(ex, x + b * image, acts->x + b * (prefix + image) + prefix, (size_t)image * sizeof *x);
  acts->x = x;
}
