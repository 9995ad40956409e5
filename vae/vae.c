/* Opening an autoencoder by what its files hold, and the conversions at its two ends: latents and
 * images of the caller, [C, size, size], against activations of the backend, [size, size, C]. */
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

/* dst (device) = src (host) / divisor + shift */
static void upload_scaled(struct exec *ex, float *dst, const float *src, int64_t n, double divisor,
                          double shift) {
  enum { CHUNK = 1024 };
  float chunk[CHUNK];
  for (int64_t at = 0; be_active(ex) && at < n; at += CHUNK) {
    const int64_t count = n - at < CHUNK ? n - at : CHUNK;
    for (int64_t i = 0; i < count; i++) chunk[i] = src[at + i] / (float)divisor + (float)shift;
    be_upload(ex, dst + at, chunk, (size_t)count * sizeof(float));
  }
}

/* dst [size, size, C] (device) of src [C, size, size] (host) / divisor + shift. */
static float *enter(struct exec *ex, const float *src, int C, int size, double divisor,
                    double shift) {
  const int64_t pixels = (int64_t)size * size;
  float *last = be_floats(ex, pixels * C), *first = be_floats(ex, pixels * C);
  upload_scaled(ex, first, src, pixels * C, divisor, shift);
  be_channels_last(ex, last, first, 1, C, pixels);
  return last;
}

static enum ditmoe_status check_size(struct exec *ex, const struct vae *vae, const char *what,
                                     int size, int most, int multiple) {
  if (size >= 1 && size <= most && size % multiple == 0) return DITMOE_OK;
  return fail(ex->ctx, DITMOE_USAGE, "%s: a side of %d does not fit a decoder of factor %d", what,
              size, vae->info.factor);
}

/* image [size * factor, same, 3] (device) of latents (host), in tiles of `tile` latents. */
static void stages_forward(struct exec *ex, const struct vae *vae, float *image,
                           const float *latents, int size, int tile) {
  const size_t mark = arena_mark(&ex->arena);
  int scale = vae->head_scale;
  float *x = be_floats(ex, (int64_t)scale * scale * size * size * vae->stage[0].in);
  const size_t inner = arena_mark(&ex->arena);
  float *z = enter(ex, latents, vae->info.latent_channels, size, vae->info.scale, vae->info.shift);
  vae->head(ex, vae, x, z, size);
  arena_reset(&ex->arena, inner);
  for (int s = 0; s < vae->stages; s++) {
    const struct vae_stage *stage = &vae->stage[s];
    const int64_t side = (int64_t)size * scale * stage->scale;
    float *y = s == vae->stages - 1 ? image : be_floats(ex, side * side * stage->out);
    tiles_forward(ex, vae, s, y, x, size * scale, tile * scale);
    scale *= stage->scale;
    x = y;
  }
  arena_reset(&ex->arena, mark);
}

enum ditmoe_status vae_decode(struct exec *ex, const struct vae *vae, float *image,
                              const float *latents, int size, int tile) {
  const struct vae_info *info = &vae->info;
  if (!info->can_decode)
    return fail(ex->ctx, DITMOE_MISMATCH, "the %s was opened without a decoder", info->kind);
  TRY(check_size(ex, vae, "latents", size, MAX_SIDE / info->factor, 1));
  const size_t mark = arena_mark(&ex->arena);
  const int side = size * info->factor;
  const int64_t n = (int64_t)3 * side * side;
  float *last = be_floats(ex, n), *first = be_floats(ex, n); /* the image; channels last, first */
  stages_forward(ex, vae, last, latents, size, tile > 0 && tile < size ? tile : size);
  be_channels_first(ex, first, last, 1, 3, n / 3);
  be_download(ex, image, first, (size_t)n * sizeof(float));
  arena_reset(&ex->arena, mark);
  for (int64_t i = 0; info->unit_range && be_active(ex) && i < n; i++) image[i] = 2 * image[i] - 1;
  return ex->status;
}

enum ditmoe_status vae_encode(struct exec *ex, const struct vae *vae, float *mean,
                              float *log_variance, const float *image, int size) {
  const struct vae_info *info = &vae->info;
  if (!info->can_encode)
    return fail(ex->ctx, DITMOE_MISMATCH, "the %s was opened without an encoder", info->kind);
  TRY(check_size(ex, vae, "image", size, MAX_SIDE, info->factor));
  const size_t mark = arena_mark(&ex->arena);
  const int side = size / info->factor, M = info->latent_channels << vae->log_variance;
  const int64_t pixels = (int64_t)side * side, n = pixels * info->latent_channels;
  float *last = be_floats(ex, pixels * M), *first = be_floats(ex, pixels * M); /* channels */

  float *x = enter(ex, image, 3, size, info->unit_range ? 2 : 1, info->unit_range ? 0.5 : 0);
  vae->encode(ex, vae, last, x, size);
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

size_t vae_decode_bytes(const struct exec *ex, const struct vae *vae, int size, int tile) {
  struct exec dry = exec_dry(ex);
  (void)vae_decode(&dry, vae, NULL, NULL, size, tile);
  return dry.arena.peak;
}

size_t vae_encode_bytes(const struct exec *ex, const struct vae *vae, int size) {
  struct exec dry = exec_dry(ex);
  (void)vae_encode(&dry, vae, NULL, NULL, NULL, size);
  return dry.arena.peak;
}

void vae_pixels(uint8_t *pixels, const float *image, int size) {
  const int64_t plane = (int64_t)size * size;
  for (int64_t p = 0; p < plane; p++)
    for (int64_t c = 0; c < 3; c++)
      pixels[3 * p + c] = (uint8_t)fminf(fmaxf(127.5f * image[c * plane + p] + 128, 0), 255);
}
