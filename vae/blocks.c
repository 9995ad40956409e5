/* Residual and attention blocks of a convolutional autoencoder (Esser et al. 2021, Rombach et al.
 * 2022). */
#include "vae/blocks.h"

const struct conv_form conv_1x1 = {.kernel = {1, 1}, .window = {.stride = 1}, .bias = true};
const struct conv_form conv_3x3 = {.kernel = {3, 3}, .window = {1, {1, 1}, {1, 1}}, .bias = true};

void norm_forward(struct exec *ex, struct act y, const float *x, const struct norm *norm,
                  int groups, int height, int width, bool silu, struct tile *tile) {
  const float eps = 1e-6f;
  const int64_t pixels = (int64_t)height * width;
  const int C = norm->channels;
  if (!tile) {
    be_group_norm(ex, y, x, norm->weight, norm->bias, 1, pixels, C, groups, eps, silu);
    return;
  }
  const int scale = width / tile->width, k = tile->next++;
  const int window[4] = {tile->window.top * scale, tile->window.left * scale,
                         tile->window.bottom * scale, tile->window.right * scale};
  double *moments = tile->moments + 2 * (int64_t)k * groups;
  if (k < tile->sweep) {
    be_group_norm_given(ex, y, x, moments, norm->weight, norm->bias, pixels, C, groups, eps, silu);
  } else if (k == tile->sweep) {
    be_group_moments(ex, moments, x, width, window, C, groups, tile->area * scale * scale);
    ex->dry = true;
  }
}

void resblock_walk(struct resblock *block, struct params *params, int in, int out, int groups,
                   const char *shortcut) {
  *block = (struct resblock){.in = in, .out = out, .groups = groups};
  params_norm(params, &block->norm1, in, "norm1");
  params_conv(params, &block->conv1, in, out, &conv_3x3, "conv1");
  params_norm(params, &block->norm2, out, "norm2");
  params_conv(params, &block->conv2, out, out, &conv_3x3, "conv2");
  if (in != out) params_conv(params, &block->shortcut, in, out, &conv_1x1, shortcut);
}

void resblock_forward(struct exec *ex, const struct resblock *block, float *y, const float *x,
                      int height, int width, struct tile *tile) {
  const size_t mark = arena_mark(&ex->arena);
  const int64_t pixels = (int64_t)height * width;
  const int in = block->in, out = block->out, groups = block->groups;
  struct act a =
      be_acts(ex, block->conv1->input, pixels * (in > out ? in : out)); /* [h, w, in or out] */
  float *h = y == x ? be_floats(ex, pixels * out) : y; /* [height, width, out]       */

  norm_forward(ex, a, x, &block->norm1, groups, height, width, true, tile);
  be_conv2d(ex, h, a, block->conv1, 1, height, width);
  norm_forward(ex, a, h, &block->norm2, groups, height, width, true, tile);
  be_conv2d(ex, h, a, block->conv2, 1, height, width);
  if (block->shortcut) {
    float *s = be_floats(ex, pixels * out);
    be_conv2d(ex, s, be_narrowed(ex, block->shortcut->input, x, pixels * in), block->shortcut, 1,
              height, width);
    x = s;
  }
  be_add(ex, y, x, h, pixels * out);
  arena_reset(&ex->arena, mark);
}

void double_forward(struct exec *ex, const struct conv *conv, float *y, const float *x, int height,
                    int width) {
  const size_t mark = arena_mark(&ex->arena);
  struct act up = be_acts(ex, conv->input, (int64_t)4 * height * width * conv->in);
  be_upsample2x(ex, up, x, 1, height, width, conv->in);
  be_conv2d(ex, y, up, conv, 1, 2 * height, 2 * width);
  arena_reset(&ex->arena, mark);
}

void attention_walk(struct attention_block *block, struct params *params, int channels, int groups,
                    int usual) {
  static const struct {
    const char *norm, *q, *k, *v, *out, *sign;
  } names[ATTENTION_NAMES] = {
      {"group_norm", "to_q", "to_k", "to_v", "to_out.0", "to_q.weight"},
      {"group_norm", "query", "key", "value", "proj_attn", "query.weight"},
      {"norm", "q", "k", "v", "proj_out", "q.weight"},
  };
  int n = usual;
  for (int i = 0; i < ATTENTION_NAMES; i++)
    if (params_find(params, names[i].sign)) n = i;
  const struct tensor *q = params_find(params, names[n].sign);
  const int patch = q && q->rank == 4;
  *block = (struct attention_block){.channels = channels, .groups = groups};
  params_norm(params, &block->norm, channels, names[n].norm);
  params_linear(params, &block->qkv,
                &(struct linear_form){.parts = 3,
                                      .in = channels,
                                      .out = {channels, channels, channels},
                                      .name = {names[n].q, names[n].k, names[n].v},
                                      .bias = true,
                                      .patch = patch});
  params_linear(params, &block->out,
                &(struct linear_form){.parts = 1,
                                      .in = channels,
                                      .out = {channels},
                                      .name = {names[n].out},
                                      .bias = true,
                                      .patch = patch});
}

void attention_forward(struct exec *ex, const struct attention_block *block, float *x, int height,
                       int width) {
  const size_t mark = arena_mark(&ex->arena);
  const int T = height * width, C = block->channels;
  struct act a = be_acts(ex, block->qkv->input, (int64_t)T * C); /* [T, C] */
  float *qkv = be_floats(ex, (int64_t)T * 3 * C);                /* [T, 3, C] */
  struct act o = be_acts(ex, block->out->input, (int64_t)T * C); /* [T, C] */
  float *y = be_floats(ex, (int64_t)T * C);                      /* [T, C]    */

  norm_forward(ex, a, x, &block->norm, block->groups, height, width, false, NULL);
  be_linear(ex, qkv, a, block->qkv, T);
  be_attention(ex, o, NULL, qkv, 1, T, 1, C);
  be_linear(ex, y, o, block->out, T);
  be_add(ex, x, x, y, (int64_t)T * C);
  arena_reset(&ex->arena, mark);
}
