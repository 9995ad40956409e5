/* Kind inception: features of a folder's images by both resize rules, the layers on the way, and
 * our bf16 against our f32. Image i of the folder is row i of every tensor. */
#include "ditmoe_eval.h"
#include "eval/network.h"
#include "tests/golden/golden.h"
#include "tests/limit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char outputs[] = "outputs.safetensors";

/* What the tensors of a rule are called. */
static const char *const rules[] = {[RESIZE_ADM] = "tf", [RESIZE_PYTORCH_FID] = "torch"};
enum { RULES = 2 };

enum {
  TAP_VALUES = 257, /* of an image in a tensor tap.LAYER */
  RAW_CHANNELS = 7, /* of the convolution without its norm */
  RAW_INPUTS = 768,
  RAW_PIXELS = 17 * 17,
  RAW = RAW_CHANNELS * RAW_PIXELS,
  KEPT = 60 /* rows and columns of a resized image, every fifth */
};

struct folder {
  struct golden *g;
  struct case_file *file; /* of the outputs */
  struct ditmoe_images *images;
  int count;
};

static enum ditmoe_status take(struct folder *f, int64_t each, float **out) {
  return mem_zalloc(f->g->ctx, (size_t)(f->count * each), sizeof **out, "features", out);
}

static void features_free(struct ditmoe_ctx *ctx, struct features *features) {
  mem_free(ctx, features->pool);
  mem_free(ctx, features->spatial);
  mem_free(ctx, features->logits);
}

static enum ditmoe_status compare_rule(struct folder *f, const char *name, enum resize_rule rule,
                                       const float *values, int64_t each) {
  char tensor[64];
  snprintf(tensor, sizeof tensor, "%s_%s", name, rules[rule]);
  return compare_l2(f->file, tensor, values, f->count * each, LIMIT_FEATURES);
}

/* Layers on the way. */

/* Kept while the network runs; an array of `values` for every tensor of the outputs. */
struct layers {
  struct folder *f;
  enum resize_rule rule;
  int image;                 /* that is being computed */
  float **values;            /* [count, TAP_VALUES]    */
  float *raw;                /* [count, RAW]           */
  const float *weight;       /* [RAW_CHANNELS, RAW_INPUTS] */
  enum ditmoe_status status; /* of the taps            */
};

/* The values of x [pixels, C] that the tensor keeps: equally spaced in the order [C, pixels]. */
static void sample(float *out, const float *x, int64_t pixels, int C) {
  const int64_t step = pixels * C / TAP_VALUES;
  for (int64_t i = 0; i < TAP_VALUES; i++) out[i] = x[i * step % pixels * C + i * step / pixels];
}

/* The other reading of ADM's spatial features: the bare convolution of Mixed_6d.branch1x1, which a
 * network with folded norms does not have, from its input x [RAW_PIXELS, RAW_INPUTS]. */
static void raw_convolution(float *out, const float *x, const float *weight) {
  for (int p = 0; p < RAW_PIXELS; p++)
    for (int o = 0; o < RAW_CHANNELS; o++) {
      double sum = 0;
      for (int i = 0; i < RAW_INPUTS; i++)
        sum += (double)x[p * RAW_INPUTS + i] * (double)weight[o * RAW_INPUTS + i];
      out[p * RAW_CHANNELS + o] = (float)sum;
    }
}

static enum ditmoe_status keep_layer(struct layers *layers, const char *layer, const float *x,
                                     int side, int channels) {
  const struct ditmoe_checkpoint *file = layers->f->file->checkpoint;
  const int64_t image = layers->image;
  char name[64];
  snprintf(name, sizeof name, "tap.%s", layer);
  const struct tensor *tensor = checkpoint_find(file, name);
  if (tensor && layers->rule == RESIZE_PYTORCH_FID) {
    float **values = &layers->values[tensor - file->tensors];
    if (!*values) TRY(take(layers->f, TAP_VALUES, values));
    sample(*values + image * TAP_VALUES, x, (int64_t)side * side, channels);
  }
  snprintf(name, sizeof name, "%s %d %d", layer, side * side, channels);
  if (!strcmp(name, "Mixed_6c 289 768"))
    raw_convolution(layers->raw + image * RAW, x, layers->weight);
  return DITMOE_OK;
}

/* x is f32. */
static void see_layer(void *user, struct exec *ex, const char *layer, struct act x, int first,
                      int B, int side, int channels) {
  struct layers *layers = user;
  const size_t n = (size_t)B * (size_t)side * (size_t)side * (size_t)channels;
  float *host = NULL;
  (void)first; /* one image at a time */
  if (layers->status != DITMOE_OK) return;
  layers->status = mem_alloc(ex->ctx, n, sizeof *host, layer, &host);
  if (layers->status != DITMOE_OK) return;
  be_download(ex, host, x.data, n * sizeof *host);
  layers->status = keep_layer(layers, layer, host, side, channels);
  mem_free(ex->ctx, host);
}

static enum ditmoe_status compare_layers(struct layers *layers) {
  const struct ditmoe_checkpoint *file = layers->f->file->checkpoint;
  for (size_t i = 0; i < file->count; i++)
    if (layers->values[i])
      TRY(compare_l2(layers->f->file, file->tensors[i].name, layers->values[i],
                     (int64_t)layers->f->count * TAP_VALUES, LIMIT_LAYERS));
  return compare_rule(layers->f, "spatial_rawconv", layers->rule, layers->raw, RAW);
}

/* Features. */

/* All images of the folder, one at a time since their sizes differ; layers may be NULL. */
static enum ditmoe_status compute(struct folder *f, struct exec *ex, struct network *network,
                                  enum resize_rule rule, struct layers *layers,
                                  struct features *out) {
  const struct network_kind *kind = network->kind;
  struct ditmoe_ctx *ctx = f->g->ctx;
  TRY(take(f, kind->pool, &out->pool));
  TRY(take(f, kind->spatial, &out->spatial));
  TRY(take(f, kind->logits, &out->logits));
  TRY(exec_reserve(ex, network_bytes(ex, network, 1)));
  for (int i = 0; i < f->count; i++) {
    const struct features row = {out->pool + (int64_t)i * kind->pool,
                                 out->spatial + (int64_t)i * kind->spatial,
                                 out->logits + (int64_t)i * kind->logits};
    const uint8_t *pixels;
    int width, height;
    if (layers) layers->image = i;
    TRY(ditmoe_images_read(ctx, f->images, i, &pixels, &width, &height));
    TRY(network_run(ex, network, rule, pixels, 1, height, width, &row));
  }
  return layers ? layers->status : DITMOE_OK;
}

/* out [count, n] = softmax of each row of logits */
static void softmax(float *out, const float *logits, int count, int n) {
  for (int r = 0; r < count; r++, out += n, logits += n) {
    double sum = 0, most = -INFINITY;
    for (int i = 0; i < n; i++) most = fmax(most, (double)logits[i]);
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - most);
    for (int i = 0; i < n; i++) out[i] = (float)(exp((double)logits[i] - most) / sum);
  }
}

/* bias [n] as the checkpoint has it: the network itself uses none, as ADM. */
static enum ditmoe_status compare_classes(struct folder *f, enum resize_rule rule, float *logits,
                                          const float *bias, int n) {
  float *probabilities;
  TRY(take(f, n, &probabilities));
  enum ditmoe_status status;
  softmax(probabilities, logits, f->count, n);
  TRY_DONE(compare_rule(f, "logits_nobias", rule, logits, n));
  TRY_DONE(compare_rule(f, "softmax_nobias", rule, probabilities, n));
  for (int64_t i = 0; i < (int64_t)f->count * n; i++) logits[i] += bias[i % n];
  softmax(probabilities, logits, f->count, n);
  TRY_DONE(compare_rule(f, "logits_bias", rule, logits, n));
  TRY_DONE(compare_rule(f, "softmax_bias", rule, probabilities, n));
done:
  mem_free(f->g->ctx, probabilities);
  return status;
}

static enum ditmoe_status check_rule(struct folder *f, struct network *network,
                                     struct layers *layers, const float *bias) {
  const struct network_tap tap = {layers, see_layer};
  const struct network_kind *kind = network->kind;
  struct features made = {0};
  enum ditmoe_status status;
  network->tap = &tap;
  TRY_DONE(compute(f, f->g->ex, network, layers->rule, layers, &made));
  TRY_DONE(compare_rule(f, "pool", layers->rule, made.pool, kind->pool));
  TRY_DONE(compare_rule(f, "spatial_bnrelu", layers->rule, made.spatial, kind->spatial));
  TRY_DONE(compare_classes(f, layers->rule, made.logits, bias, kind->logits));
  status = compare_layers(layers);
done:
  network->tap = NULL;
  features_free(f->g->ctx, &made);
  return status;
}

/* By one rule; `weights` is open, for what the network does not keep. */
static enum ditmoe_status check_with(struct folder *f, struct network *network,
                                     struct case_file *weights, enum resize_rule rule) {
  struct ditmoe_ctx *ctx = f->g->ctx;
  const size_t tensors = f->file->checkpoint->count;
  struct layers layers = {.f = f, .rule = rule};
  float *bias = NULL, *weight = NULL;
  int64_t biases, inputs;
  enum ditmoe_status status;
  TRY_DONE(mem_zalloc(ctx, tensors, sizeof *layers.values, "layers", &layers.values));
  TRY_DONE(take(f, RAW, &layers.raw));
  TRY_DONE(golden_floats(weights, "fc.bias", &bias, &biases));
  TRY_DONE(golden_floats(weights, "Mixed_6d.branch1x1.conv.weight", &weight, &inputs));
  if (biases != network->kind->logits || inputs < RAW_CHANNELS * RAW_INPUTS)
    TRY_DONE(fail(ctx, DITMOE_FORMAT, "weights of other sizes"));
  layers.weight = weight;
  status = check_rule(f, network, &layers, bias);
done:
  for (size_t i = 0; layers.values && i < tensors; i++) mem_free(ctx, layers.values[i]);
  mem_free(ctx, layers.values);
  mem_free(ctx, layers.raw);
  mem_free(ctx, bias);
  mem_free(ctx, weight);
  return status;
}

/* Resized images. */

/* resized [KEPT, KEPT, 3], or channels first for pytorch-fid, from a network's input. */
static void keep_resized(float *out, const float *image, int side, enum resize_rule rule) {
  enum { EVERY = 5 };
  for (int i = 0; i < KEPT; i++)
    for (int j = 0; j < KEPT; j++)
      for (int c = 0; c < 3; c++) {
        const double value = (double)image[(EVERY * i * side + EVERY * j) * 3 + c];
        if (rule == RESIZE_ADM)
          out[(i * KEPT + j) * 3 + c] = (float)(128 * value + 128);
        else
          out[(c * KEPT + i) * KEPT + j] = (float)((value + 1) / 2);
      }
}

static enum ditmoe_status check_resized(struct folder *f, enum resize_rule rule, int i, int side) {
  struct ditmoe_ctx *ctx = f->g->ctx;
  float *image = NULL, kept[3 * KEPT * KEPT];
  const uint8_t *pixels;
  int width, height;
  char name[64];
  snprintf(name, sizeof name, "resize_%s_img%d", rules[rule], i);
  if (!checkpoint_find(f->file->checkpoint, name)) return DITMOE_OK;
  TRY(ditmoe_images_read(ctx, f->images, i, &pixels, &width, &height));
  TRY(mem_alloc(ctx, (size_t)3 * (size_t)side * (size_t)side, sizeof *image, "an image", &image));
  resize_image(image, pixels, height, width, side, rule);
  keep_resized(kept, image, side, rule);
  mem_free(ctx, image);
  return compare_l2(f->file, name, kept, 3 * KEPT * KEPT, LIMIT_RESIZED);
}

/* The whole folder. */

static enum ditmoe_status check_exact(struct folder *f, struct network *network) {
  struct case_file weights;
  enum ditmoe_status status = DITMOE_OK;
  TRY(golden_open(f->g, case_string(f->g->manifest, "weights"), &weights));
  for (int rule = 0; rule < RULES; rule++) {
    TRY_DONE(check_with(f, network, &weights, (enum resize_rule)rule));
    for (int i = 0; i < f->count; i++)
      TRY_DONE(check_resized(f, (enum resize_rule)rule, i, network->kind->side));
  }
done:
  case_close(&weights);
  return status;
}

static void report_precision(struct folder *f, const char *name, enum resize_rule rule,
                             const float *values, const float *reference, int64_t each,
                             double limit) {
  char line[128];
  snprintf(line, sizeof line, "%s:%s_%s", outputs, name, rules[rule]);
  report_decibels(f->g->report, line, decibels(values, reference, f->count * each), limit);
}

/* twin: the same network in bf16 */
static enum ditmoe_status check_bf16(struct folder *f, struct network *network,
                                     struct network *twin, enum resize_rule rule) {
  const struct network_kind *kind = network->kind;
  struct features own = {0}, other = {0};
  enum ditmoe_status status;
  TRY_DONE(compute(f, f->g->ex, network, rule, NULL, &own));
  TRY_DONE(compute(f, precision_backend(f->g->precision), twin, rule, NULL, &other));
  report_precision(f, "pool", rule, other.pool, own.pool, kind->pool, LIMIT_FEATURES_BF16);
  report_precision(f, "spatial_bnrelu", rule, other.spatial, own.spatial, kind->spatial,
                   LIMIT_SPATIAL_BF16);
  report_precision(f, "logits_nobias", rule, other.logits, own.logits, kind->logits,
                   LIMIT_FEATURES_BF16);
done:
  features_free(f->g->ctx, &own);
  features_free(f->g->ctx, &other);
  return status;
}

static enum ditmoe_status check_precision(struct folder *f, struct network *network,
                                          const char *path) {
  struct exec *ex = precision_backend(f->g->precision);
  struct network *twin = NULL;
  enum ditmoe_status status;
  TRY(network_open(ex, path, &twin));
  status = check_bf16(f, network, twin, RESIZE_ADM); /* resizing knows no compute type */
  network_close(ex, twin);
  return status;
}

enum ditmoe_status golden_inception(struct golden *g) {
  struct case_file file = {0};
  struct folder f = {.g = g, .file = &file};
  struct ditmoe_images_info info;
  struct network *network = NULL;
  char path[2048];
  enum ditmoe_status status;
  snprintf(path, sizeof path, "%s/%s", g->folder, case_string(g->manifest, "weights"));
  TRY_DONE(ditmoe_images_open(g->ctx, g->folder, NULL, &f.images));
  ditmoe_images_info(f.images, &info);
  f.count = (int)info.count;
  TRY_DONE(golden_open(g, outputs, &file));
  TRY_DONE(network_open(g->ex, path, &network));
  status = g->precision ? check_precision(&f, network, path) : check_exact(&f, network);
done:
  network_close(g->ex, network);
  case_close(&file);
  ditmoe_images_close(f.images);
  return status;
}
