/* Opening an autoencoder by what its files hold, and the conversions at its two ends: latents and
 * images of the caller, [C, height, width], against activations of the backend, [height, width, C].
 */
#include "vae/network.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_SIZE = 4096, MAX_SIDE = 1 << 15 }; /* of an image */

static bool is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* out = folder/name; false if that is not there. */
static bool find_file(char out[PATH_SIZE], const char *folder, const char *name) {
  struct stat info;
  int length = snprintf(out, PATH_SIZE, "%s/%s", folder, name);
  return length > 0 && length < PATH_SIZE && stat(out, &info) == 0 && S_ISREG(info.st_mode);
}

static bool find_taesd(char out[PATH_SIZE], const char *folder, const char *name) {
  static const char *const endings[] = {".safetensors", ".pth"};
  char file[64];
  for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
    snprintf(file, sizeof file, "%s%s", name, endings[i]);
    if (find_file(out, folder, file)) return true;
  }
  return false;
}

static enum ditmoe_status open_taesd_folder(struct exec *ex, struct vae *vae, const char *folder) {
  static const char *const names[2] = {"taesd_decoder", "taesd_encoder"};
  struct ditmoe_checkpoint *files[2] = {NULL, NULL};
  char path[PATH_SIZE];
  enum ditmoe_status status = DITMOE_OK;
  for (int i = 0; i < 2; i++)
    if (find_taesd(path, folder, names[i]))
      TRY_DONE(ditmoe_checkpoint_open(ex->ctx, path, NULL, &files[i]));
  if (files[0] || files[1])
    status = taesd_open(ex, vae, files[0], files[1]);
  else
    status =
        fail(ex->ctx, DITMOE_MISMATCH,
             "%s: no decoder in this folder: expected config.json with weights, a folder vae, or "
             "taesd_decoder.safetensors",
             folder);
done:
  for (int i = 0; i < 2; i++) ditmoe_checkpoint_close(files[i]);
  return status;
}

static enum ditmoe_status open_kl_folder(struct exec *ex, struct vae *vae, const char *folder,
                                         const char *config) {
  struct ditmoe_checkpoint *file;
  TRY(ditmoe_checkpoint_open(ex->ctx, folder, NULL, &file));
  enum ditmoe_status status = kl_open(ex, vae, config, file);
  ditmoe_checkpoint_close(file);
  return status;
}

/* Folders of TAESD as published have the weights of its author beside those of diffusers. */
static enum ditmoe_status open_folder(struct exec *ex, struct vae *vae, const char *folder) {
  char config[PATH_SIZE], inner[PATH_SIZE];
  const bool described = find_file(config, folder, "config.json");
  const bool tiny = find_taesd(inner, folder, "taesd_decoder");
  if (described && !tiny) return open_kl_folder(ex, vae, folder, config);
  if (described || !find_file(config, folder, "vae/config.json"))
    return open_taesd_folder(ex, vae, folder);
  snprintf(inner, sizeof inner, "%.*s", (int)(strrchr(config, '/') - config), config);
  return open_kl_folder(ex, vae, inner, config);
}

static enum ditmoe_status open_contents(struct exec *ex, struct vae *vae, const char *path,
                                        const struct ditmoe_checkpoint *file) {
  char config[PATH_SIZE], folder[PATH_SIZE];
  const char *slash = strrchr(path, '/');
  if (checkpoint_find(file, "1.weight")) return taesd_open(ex, vae, file, NULL);
  if (checkpoint_find(file, "0.weight")) return taesd_open(ex, vae, NULL, file);
  snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
  find_file(config, folder, "config.json");
  return kl_open(ex, vae, config, file);
}

static enum ditmoe_status open_file(struct exec *ex, struct vae *vae, const char *path) {
  struct ditmoe_checkpoint *file;
  TRY(ditmoe_checkpoint_open(ex->ctx, path, NULL, &file));
  enum ditmoe_status status = open_contents(ex, vae, path, file);
  ditmoe_checkpoint_close(file);
  return status;
}

enum ditmoe_status vae_open(struct exec *ex, const char *path, struct vae **out) {
  struct vae *vae;
  TRY(mem_zalloc(ex->ctx, 1, sizeof *vae, "the autoencoder", &vae));
  enum ditmoe_status status =
      is_folder(path) ? open_folder(ex, vae, path) : open_file(ex, vae, path);
  if (status == DITMOE_OK)
    *out = vae;
  else
    vae_close(ex, vae);
  return status;
}

void vae_close(struct exec *ex, struct vae *vae) {
  if (!vae) return;
  for (int i = 0; i < 2; i++) params_free(&vae->params[i], ex);
  mem_free(ex->ctx, vae->kl);
  mem_free(ex->ctx, vae->taesd);
  mem_free(ex->ctx, vae);
}

void vae_describe(const struct vae *vae, struct vae_info *out) { *out = vae->info; }

/* dst (device) = src (host) factor / divisor + shift */
static void upload_scaled(struct exec *ex, float *dst, const float *src, int64_t n,
                          const struct affine *a) {
  enum { CHUNK = 1024 };
  float chunk[CHUNK];
  for (int64_t at = 0; be_active(ex) && at < n; at += CHUNK) {
    const int64_t count = n - at < CHUNK ? n - at : CHUNK;
    for (int64_t i = 0; i < count; i++) chunk[i] = src[at + i] * a->factor / a->divisor + a->shift;
    be_upload(ex, dst + at, chunk, (size_t)count * sizeof(float));
  }
}

/* dst [height, width, C] (device) of src [C, height, width] (host), each channel by its own. */
static float *enter(struct exec *ex, const float *src, int C, int height, int width,
                    const struct affine *channel) {
  const int64_t pixels = (int64_t)height * width;
  float *last = be_floats(ex, pixels * C), *first = be_floats(ex, pixels * C);
  for (int c = 0; be_active(ex) && c < C; c++)
    upload_scaled(ex, first + c * pixels, src + c * pixels, pixels, &channel[c]);
  be_channels_last(ex, last, first, 1, C, pixels);
  return last;
}

static enum ditmoe_status check_side(struct exec *ex, const struct vae *vae, const char *what,
                                     int side, int most, int multiple) {
  if (side >= 1 && side <= most && side % multiple == 0) return DITMOE_OK;
  return fail(ex->ctx, DITMOE_USAGE, "%s: a side of %d does not fit a decoder of factor %d", what,
              side, vae->info.factor);
}

/* image [height * factor, width * factor, 3] (device) of latents (host), in tiles of `tile`. */
static void stages_forward(struct exec *ex, const struct vae *vae, float *image,
                           const float *latents, int height, int width, int tile) {
  const size_t mark = arena_mark(&ex->arena);
  int scale = vae->head_scale;
  const int64_t pixels = (int64_t)height * width;
  float *x = be_floats(ex, scale * scale * pixels * vae->stage[0].in);
  const size_t inner = arena_mark(&ex->arena);
  float *z = enter(ex, latents, vae->info.latent_channels, height, width, vae->latent);
  vae->head(ex, vae, x, z, height, width);
  arena_reset(&ex->arena, inner);
  for (int s = 0; s < vae->stages; s++) {
    const struct vae_stage *stage = &vae->stage[s];
    const int64_t area = pixels * scale * scale * stage->scale * stage->scale;
    float *y = s == vae->stages - 1 ? image : be_floats(ex, area * stage->out);
    tiles_forward(ex, vae, s, y, x, height * scale, width * scale, tile * scale);
    scale *= stage->scale;
    x = y;
  }
  arena_reset(&ex->arena, mark);
}

enum ditmoe_status vae_decode(struct exec *ex, const struct vae *vae, float *image,
                              const float *latents, int height, int width, int tile) {
  const struct vae_info *info = &vae->info;
  const int most = MAX_SIDE / info->factor, longer = height > width ? height : width;
  if (!info->can_decode)
    return fail(ex->ctx, DITMOE_MISMATCH, "the %s was opened without a decoder", info->kind);
  TRY(check_side(ex, vae, "latents", height, most, 1));
  TRY(check_side(ex, vae, "latents", width, most, 1));
  if (tile <= 0 || tile > longer) tile = longer;
  if (tile < longer && vae->whole_only)
    return fail(ex->ctx, DITMOE_MISMATCH,
                "this %s has attention in its last levels and cannot decode in tiles", info->kind);
  const size_t mark = arena_mark(&ex->arena);
  const int64_t n = (int64_t)3 * height * width * info->factor * info->factor;
  float *last = be_floats(ex, n), *first = be_floats(ex, n); /* the image; channels last, first */
  stages_forward(ex, vae, last, latents, height, width, tile);
  be_channels_first(ex, first, last, 1, 3, n / 3);
  be_download(ex, image, first, (size_t)n * sizeof(float));
  arena_reset(&ex->arena, mark);
  for (int64_t i = 0; info->unit_range && be_active(ex) && i < n; i++) image[i] = 2 * image[i] - 1;
  return ex->status;
}

enum ditmoe_status vae_encode(struct exec *ex, const struct vae *vae, float *mean,
                              float *log_variance, const float *image, int height, int width) {
  static const struct affine as_is = {1, 1, 0}, to_unit = {1, 2, 0.5F};
  const struct vae_info *info = &vae->info;
  const struct affine a = info->unit_range ? to_unit : as_is, channel[3] = {a, a, a};
  if (!info->can_encode)
    return fail(ex->ctx, DITMOE_MISMATCH, "the %s was opened without an encoder", info->kind);
  TRY(check_side(ex, vae, "image", height, MAX_SIDE, info->factor));
  TRY(check_side(ex, vae, "image", width, MAX_SIDE, info->factor));
  const size_t mark = arena_mark(&ex->arena);
  const int M = info->latent_channels << vae->log_variance;
  const int64_t pixels = (int64_t)(height / info->factor) * (width / info->factor);
  const int64_t n = pixels * info->latent_channels;
  float *last = be_floats(ex, pixels * M), *first = be_floats(ex, pixels * M); /* channels */

  float *x = enter(ex, image, 3, height, width, channel);
  vae->encode(ex, vae, last, x, height, width);
  be_channels_first(ex, first, last, 1, M, pixels);
  be_download(ex, mean, first, (size_t)n * sizeof(float));
  if (vae->log_variance && be_active(ex)) {
    be_download(ex, log_variance, first + n, (size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++)
      if (log_variance[i] < -30 || log_variance[i] > 20) /* a NaN stays */
        log_variance[i] = log_variance[i] > 0 ? 20 : -30;
  }
  arena_reset(&ex->arena, mark);
  return ex->status;
}

size_t vae_decode_bytes(const struct exec *ex, const struct vae *vae, int height, int width,
                        int tile) {
  struct exec dry = exec_dry(ex);
  (void)vae_decode(&dry, vae, NULL, NULL, height, width, tile);
  return dry.arena.peak;
}

size_t vae_encode_bytes(const struct exec *ex, const struct vae *vae, int height, int width) {
  struct exec dry = exec_dry(ex);
  (void)vae_encode(&dry, vae, NULL, NULL, NULL, height, width);
  return dry.arena.peak;
}

void vae_pixels(uint8_t *pixels, const float *image, int height, int width) {
  const int64_t plane = (int64_t)height * width;
  for (int64_t p = 0; p < plane; p++)
    for (int64_t c = 0; c < 3; c++)
      pixels[3 * p + c] = (uint8_t)fminf(fmaxf(127.5f * image[c * plane + p] + 128, 0), 255);
}

uint8_t pixel_level(float x) {
  return (uint8_t)nearbyintf(fminf(fmaxf(255 * (x + 1) / 2, 0), 255));
}
