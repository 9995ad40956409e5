/* TAESD, the tiny autoencoder of Ollin Boer Bohan: convolutions and relu only. It takes the
 * latents of a denoiser as they are and gives images in [0, 1]; encoder and decoder are separate
 * files whose tensors are called by their place in a sequence of layers.
 *
 *   step: [double or halve] conv, then blocks relu(conv(relu(conv(relu(conv x)))) + x) */
#include "vae/network.h"

#include <stdio.h>

enum { WIDTH = 64, STEPS = 4, BLOCKS = 3, HEAD_STEPS = STEPS - VAE_STAGES };

struct step {
  struct conv *conv, *block[BLOCKS][3];
};

struct chain {
  struct step step[STEPS];
  struct conv *out;
};

struct taesd {
  struct chain encoder, decoder;
};

/* Places in the sequence: the convolution of each step, its first block, the last convolution. */
struct layout {
  int conv[STEPS], first[STEPS], blocks[STEPS], out;
};
static const struct layout decoder_layout = {{1, 7, 12, 17}, {3, 8, 13, 18}, {3, 3, 3, 1}, 19};
static const struct layout encoder_layout = {{0, 2, 6, 10}, {1, 3, 7, 11}, {1, 3, 3, 3}, 14};

/* Without a bias: those that change the resolution. */
static const struct conv_form conv_plain = {.kernel = {3, 3}, .window = {1, {1, 1}, {1, 1}}};
static const struct conv_form conv_halve = {.kernel = {3, 3}, .window = {2, {1, 1}, {1, 1}}};

static void chain_walk(struct chain *chain, struct params *params, const struct layout *layout,
                       int in, int out, const struct conv_form *resample) {
  char name[16];
  for (int s = 0; s < STEPS; s++) {
    struct step *step = &chain->step[s];
    snprintf(name, sizeof name, "%d", layout->conv[s]);
    params_conv(params, &step->conv, s ? WIDTH : in, WIDTH, s ? resample : &conv_3x3, name);
    for (int c = 0; c < 3 * layout->blocks[s]; c++) {
      snprintf(name, sizeof name, "%d.conv.%d", layout->first[s] + c / 3, 2 * (c % 3));
      params_conv(params, &step->block[c / 3][c % 3], WIDTH, WIDTH, &conv_3x3, name);
    }
  }
  snprintf(name, sizeof name, "%d", layout->out);
  params_conv(params, &chain->out, WIDTH, out, &conv_3x3, name);
}

/* x [height, width, WIDTH] in place. */
static void block_forward(struct exec *ex, struct conv *const conv[3], float *x, int height,
                          int width) {
  const size_t mark = arena_mark(&ex->arena);
  const int64_t n = (int64_t)height * width * WIDTH;
  float *a = be_floats(ex, n), *b = be_floats(ex, n); /* [height, width, WIDTH] */
  be_conv2d(ex, a, be_narrowed(ex, conv[0]->input, x, n), conv[0], 1, height, width);
  be_relu(ex, a, a, n);
  be_conv2d(ex, b, be_narrowed(ex, conv[1]->input, a, n), conv[1], 1, height, width);
  be_relu(ex, b, b, n);
  be_conv2d(ex, a, be_narrowed(ex, conv[2]->input, b, n), conv[2], 1, height, width);
  be_add(ex, x, x, a, n);
  be_relu(ex, x, x, n);
  arena_reset(&ex->arena, mark);
}

static void blocks_forward(struct exec *ex, const struct step *step, int blocks, float *x,
                           int height, int width) {
  for (int b = 0; b < blocks; b++) block_forward(ex, step->block[b], x, height, width);
}

/* y [2 height, 2 width, WIDTH] = a later step of the decoder on x [height, width, WIDTH] */
static void step_forward(struct exec *ex, const struct taesd *taesd, int s, float *y,
                         const float *x, int height, int width) {
  const struct step *step = &taesd->decoder.step[s];
  double_forward(ex, step->conv, y, x, height, width);
  blocks_forward(ex, step, decoder_layout.blocks[s], y, 2 * height, 2 * width);
}

static void taesd_head(struct exec *ex, const struct vae *vae, float *features,
                       const float *latents, int height, int width) {
  const struct taesd *taesd = vae->taesd;
  const size_t mark = arena_mark(&ex->arena);
  const int64_t pixels = (int64_t)height * width, C = vae->info.latent_channels;
  float *z = be_floats(ex, pixels * C);     /* [height, width, C]     */
  float *x = be_floats(ex, pixels * WIDTH); /* [height, width, WIDTH] */
  be_tanh_clamp(ex, z, latents, 3, pixels * C);
  const struct conv *first = taesd->decoder.step[0].conv;
  be_conv2d(ex, x, be_narrowed(ex, first->input, z, pixels * C), first, 1, height, width);
  be_relu(ex, x, x, pixels * WIDTH);
  blocks_forward(ex, &taesd->decoder.step[0], decoder_layout.blocks[0], x, height, width);
  step_forward(ex, taesd, 1, features, x, height, width);
  arena_reset(&ex->arena, mark);
}

static void taesd_stage(struct exec *ex, const struct vae *vae, int s, float *y, const float *x,
                        int height, int width, struct tile *tile) {
  const struct taesd *taesd = vae->taesd;
  (void)tile; /* there are no norms */
  if (s < VAE_STAGES - 1) {
    step_forward(ex, taesd, HEAD_STEPS + s, y, x, height, width);
    return;
  }
  const size_t mark = arena_mark(&ex->arena);
  float *top = be_floats(ex, (int64_t)4 * height * width * WIDTH); /* [2 height, 2 width, WIDTH] */
  step_forward(ex, taesd, HEAD_STEPS + s, top, x, height, width);
  const struct conv *out = taesd->decoder.out;
  be_conv2d(ex, y, be_narrowed(ex, out->input, top, (int64_t)4 * height * width * WIDTH), out, 1,
            2 * height, 2 * width);
  arena_reset(&ex->arena, mark);
}

static void taesd_encode(struct exec *ex, const struct vae *vae, float *moments, const float *image,
                         int height, int width) {
  const struct chain *encoder = &vae->taesd->encoder;
  const size_t mark = arena_mark(&ex->arena);
  const float *x = image;
  for (int s = 0; s < STEPS; s++) {
    const int halved = s ? 2 : 1, H = height / halved, W = width / halved;
    float *y = be_floats(ex, (int64_t)H * W * WIDTH); /* [H, W, WIDTH] */
    const struct conv *conv = encoder->step[s].conv;
    const int64_t values = (int64_t)height * width * (s ? WIDTH : 3);
    be_conv2d(ex, y, be_narrowed(ex, conv->input, x, values), conv, 1, height, width);
    blocks_forward(ex, &encoder->step[s], encoder_layout.blocks[s], y, H, W);
    x = y;
    height = H, width = W;
  }
  be_conv2d(ex, moments, be_narrowed(ex, encoder->out->input, x, (int64_t)height * width * WIDTH),
            encoder->out, 1, height, width);
  arena_reset(&ex->arena, mark);
}

static void describe(struct vae *vae, int C) {
  vae->head = taesd_head;
  vae->stage_forward = taesd_stage;
  vae->encode = taesd_encode;
  vae->head_scale = 2;
  vae->stages = VAE_STAGES;
  for (int s = 0; s < VAE_STAGES; s++) {
    const int last = s == VAE_STAGES - 1;
    const int seen = 1 + 3 * decoder_layout.blocks[HEAD_STEPS + s] + last; /* one per convolution */
    vae->stage[s] = (struct vae_stage){
        .in = WIDTH, .out = last ? 3 : WIDTH, .scale = 2, .margin = (seen + 1) / 2};
  }
  vae->info = (struct vae_info){.kind = "taesd",
                                .names = "taesd",
                                .latent_channels = C,
                                .image_channels = 3,
                                .factor = 8,
                                .scale = 1,
                                .unit_range = true};
  for (int c = 0; c < C; c++) vae->latent[c] = (struct affine){1, 1, 0};
}

/* Axis `axis` of a weight [out, in, 3, 3], or 4 if it is none. */
static int latent_channels(const struct ditmoe_checkpoint *file, const char *name, int axis) {
  const struct tensor *weight = checkpoint_find(file, name);
  bool plausible =
      weight && weight->rank == 4 && weight->shape[axis] > 0 && weight->shape[axis] <= VAE_LATENTS;
  return plausible ? (int)weight->shape[axis] : 4;
}

enum ditmoe_status taesd_open(struct exec *ex, struct vae *vae,
                              const struct ditmoe_checkpoint *decoder,
                              const struct ditmoe_checkpoint *encoder) {
  const int C =
      decoder ? latent_channels(decoder, "1.weight", 1) : latent_channels(encoder, "14.weight", 0);
  TRY(mem_zalloc(ex->ctx, 1, sizeof *vae->taesd, "the autoencoder", &vae->taesd));
  describe(vae, C);
  vae->info.can_encode = encoder != NULL;
  vae->info.can_decode = decoder != NULL;
  if (decoder) {
    vae->params[0] = params_begin(ex->ctx, decoder);
    chain_walk(&vae->taesd->decoder, &vae->params[0], &decoder_layout, C, 3, &conv_plain);
    TRY(params_load(&vae->params[0], ex, "taesd decoder"));
  }
  if (encoder) {
    vae->params[1] = params_begin(ex->ctx, encoder);
    chain_walk(&vae->taesd->encoder, &vae->params[1], &encoder_layout, 3, C, &conv_halve);
    TRY(params_load(&vae->params[1], ex, "taesd encoder"));
  }
  vae->info.weight_bytes = vae->params[0].weight_bytes + vae->params[1].weight_bytes;
  return DITMOE_OK;
}
