/* Feature networks: see network.h. */
#include "eval/network.h"

static const struct network_kind *const kinds[] = {&inception_kind};
enum { KINDS = sizeof kinds / sizeof *kinds };

static enum ditmoe_status find_kind(const struct ditmoe_checkpoint *file,
                                    const struct network_kind **out) {
  for (int i = 0; i < KINDS; i++)
    if (checkpoint_find(file, kinds[i]->tensor)) return *out = kinds[i], DITMOE_OK;
  return fail(file->ctx, DITMOE_MISMATCH, "%s: not a feature network: no tensor %s of %s",
              file->path, kinds[0]->tensor, kinds[0]->name);
}

static enum ditmoe_status check_finite(const struct ditmoe_checkpoint *file) {
  for (size_t i = 0; i < file->count; i++) {
    const struct tensor *tensor = &file->tensors[i];
    if (dtype_is_float(tensor->dtype) && !tensor_all_finite(tensor))
      return fail(file->ctx, DITMOE_NONFINITE, "%s: tensor %s holds NaN or infinite values",
                  file->path, tensor->name);
  }
  return DITMOE_OK;
}

static enum ditmoe_status open_contents(struct exec *ex, struct network *network,
                                        const struct ditmoe_checkpoint *file) {
  TRY(find_kind(file, &network->kind));
  TRY(check_finite(file));
  return network->kind->open(ex, network, file);
}

enum ditmoe_status network_open(struct exec *ex, const char *path, struct network **out) {
  struct ditmoe_checkpoint *file = NULL;
  struct network *network = NULL;
  enum ditmoe_status status;
  TRY_DONE(ditmoe_checkpoint_open(ex->ctx, path, NULL, &file));
  TRY_DONE(mem_zalloc(ex->ctx, 1, sizeof *network, "the feature network", &network));
  TRY_DONE(open_contents(ex, network, file));
  *out = network;
done:
  if (status != DITMOE_OK) network_close(ex, network);
  ditmoe_checkpoint_close(file);
  return status;
}

void network_close(struct exec *ex, struct network *network) {
  if (!network) return;
  if (network->kind) network->kind->close(ex, network);
  mem_free(ex->ctx, network);
}

/* image [B, side, side, 3] (device) of pixels (host), `some` at a time through `few` [some, side,
 * side, 3] (host). */
static void upload_resized(struct exec *ex, float *image, float *few, int some,
                           const uint8_t *pixels, int B, int height, int width, int side,
                           enum resize_rule rule) {
  const int64_t each = (int64_t)3 * side * side, source = (int64_t)3 * height * width;
  for (int first = 0; be_active(ex) && first < B; first += some) {
    const int count = B - first < some ? B - first : some;
#pragma omp parallel for num_threads(ex->device->threads)
    for (int b = 0; b < count; b++)
      resize_image(few + b * each, pixels + (first + b) * source, height, width, side, rule);
    be_upload(ex, image + first * each, few, (size_t)(count * each) * sizeof *few);
  }
}

/* Host memory, if it is wanted, of device memory [B, n]. */
static void download_finite(struct exec *ex, float *host, const float *device, int B, int n) {
  if (!host) return;
  be_download(ex, host, device, (size_t)B * (size_t)n * sizeof *host);
  for (int b = 0; be_active(ex) && b < B; b++)
    if (!f32_all_finite(host + (int64_t)b * n, n))
      exec_fail(ex, fail(ex->ctx, DITMOE_NONFINITE, "the features of image %d of %d are not finite",
                         b + 1, B));
}

/* Room for n features in device memory, if they are wanted. */
static float *room(struct exec *ex, bool wanted, int64_t n) {
  return wanted ? be_floats(ex, n) : NULL;
}

/* few [some, side, side, 3] is on the host; see network_run for the rest. */
static void run(struct exec *ex, const struct network *network, enum resize_rule rule, float *few,
                int some, const uint8_t *pixels, int B, int height, int width,
                const struct features *out) {
  const struct network_kind *kind = network->kind;
  const int64_t images = B;
  const size_t mark = arena_mark(&ex->arena);
  const struct features device = {.pool = room(ex, out->pool, images * kind->pool),
                                  .spatial = room(ex, out->spatial, images * kind->spatial),
                                  .logits = room(ex, out->logits, images * kind->logits)};
  float *image = be_floats(ex, images * 3 * kind->side * kind->side); /* [B, side, side, 3] */
  upload_resized(ex, image, few, some, pixels, B, height, width, kind->side, rule);
  kind->forward(ex, network, image, B, &device);
  download_finite(ex, out->pool, device.pool, B, kind->pool);
  download_finite(ex, out->spatial, device.spatial, B, kind->spatial);
  download_finite(ex, out->logits, device.logits, B, kind->logits);
  arena_reset(&ex->arena, mark);
}

enum ditmoe_status network_run(struct exec *ex, const struct network *network,
                               enum resize_rule rule, const uint8_t *pixels, int B, int height,
                               int width, const struct features *out) {
  const size_t side = (size_t)network->kind->side;
  const int some = B < ex->device->threads ? B : ex->device->threads;
  float *few;
  TRY(mem_alloc(ex->ctx, (size_t)some * 3 * side * side, sizeof *few, "resized images", &few));
  run(ex, network, rule, few, some, pixels, B, height, width, out);
  mem_free(ex->ctx, few);
  return ex->status;
}

size_t network_bytes(const struct exec *ex, const struct network *network, int B) {
  struct exec dry = exec_dry(ex);
  float any;
  run(&dry, network, RESIZE_ADM, NULL, 1, NULL, B, 0, 0, &(struct features){&any, &any, &any});
  return dry.arena.peak;
}
