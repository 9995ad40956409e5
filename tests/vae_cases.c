/* Decoders and encoders against fixtures: see vae_cases.h. */
#include "tests/vae_cases.h"

#include "tests/limit.h"
#include "vae/vae.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_TENSORS = 64, NAME_SIZE = 128, MAX_CHANNELS = 256 };

/* What the network's latents z are to a denoiser: (z - offset) factor, channel by channel. */
struct scaling {
  double factor[MAX_CHANNELS], offset[MAX_CHANNELS];
};

struct images { /* or latents: [n, channels, height, width] */
  float *values;
  int64_t n;
  int channels, height, width;
};

struct run {
  struct case_file file;
  bool compared[MAX_TENSORS]; /* of the file */
  struct exec *ex;
  struct vae *vae;
  struct vae_info info;
};

static const struct tensor *find(const struct run *run, const char *name) {
  return checkpoint_find(run->file.checkpoint, name);
}

static void line(struct run *run, const char *name, double error, double limit) {
  const struct tensor *tensor = find(run, name);
  if (tensor) run->compared[tensor - run->file.checkpoint->tensors] = true;
  case_line(&run->file, name, isfinite(error) ? error : INFINITY, limit);
}

/* |a - b|, b NULL: 0 */
static double distance(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    double difference = b ? a[i] - b[i] : a[i];
    sum += difference * difference;
  }
  return sqrt(sum);
}

/* values against tensor `name`, and where there is a `name`_f64, both against that. */
static enum ditmoe_status compare(struct run *run, const char *name, const double *values,
                                  int64_t n) {
  double *single = NULL, *exact = NULL;
  int64_t count = 0;
  char exact_name[NAME_SIZE];
  enum ditmoe_status status;
  TRY_DONE(case_values(&run->file, name, &single, &count));
  double error = count == n ? distance(values, single, n) / distance(single, NULL, n) : INFINITY;
  line(run, name, error, LIMIT_DECODED);
  snprintf(exact_name, sizeof exact_name, "%s_f64", name);
  if (count != n || !find(run, exact_name)) goto done;
  TRY_DONE(case_values(&run->file, exact_name, &exact, &count));
  error = count == n ? distance(values, exact, n) / distance(single, exact, n) : INFINITY;
  line(run, exact_name, error, LIMIT_F64_RATIO);
done:
  mem_free(run->file.ctx, exact);
  mem_free(run->file.ctx, single);
  return status;
}

static int64_t values_of(const struct images *images) {
  return images->n * images->channels * images->height * images->width;
}

/* The pixels of images against a tensor [n, height, width, 3]. */
static enum ditmoe_status compare_pixels(struct run *run, const char *name,
                                         const struct images *images) {
  double *expected = NULL, error = 0;
  uint8_t *pixels = NULL;
  int64_t count = 0;
  const int64_t n = images->n, each = values_of(images) / n;
  enum ditmoe_status status;
  TRY_DONE(case_values(&run->file, name, &expected, &count));
  TRY_DONE(mem_alloc(run->file.ctx, (size_t)each, 1, "pixels", &pixels));
  for (int64_t i = 0; count == n * each && i < n; i++) {
    vae_pixels(pixels, images->values + i * each, images->height, images->width);
    for (int64_t p = 0; p < each; p++)
      error = fmax(error, fabs(pixels[p] - expected[i * each + p]));
  }
  line(run, name, count == n * each ? error : INFINITY, LIMIT_PIXEL);
done:
  mem_free(run->file.ctx, pixels);
  mem_free(run->file.ctx, expected);
  return status;
}

/* The tensor, of which channel c becomes (x - offset[c]) factor[c]. */
static enum ditmoe_status read_images(struct run *run, const char *name, int channels,
                                      const struct scaling *scaling, struct images *out) {
  const struct tensor *t = find(run, name);
  if (!t || !dtype_is_float(t->dtype) || t->rank != 4 || t->shape[1] != channels)
    return fail(run->file.ctx, DITMOE_FORMAT, "%s: expected a tensor %s [n, %d, height, width]",
                run->file.name, name, channels);
  *out = (struct images){NULL, t->shape[0], channels, (int)t->shape[2], (int)t->shape[3]};
  TRY(mem_alloc(run->file.ctx, (size_t)t->elements, sizeof *out->values, name, &out->values));
  tensor_read_f32(out->values, t, 0, t->elements);
  for (int64_t i = 0; i < t->elements; i++) {
    const int64_t c = i / (t->shape[2] * t->shape[3]) % channels;
    out->values[i] = (float)(((double)out->values[i] - scaling->offset[c]) * scaling->factor[c]);
  }
  return DITMOE_OK;
}

static struct scaling uniform(double factor, double offset) {
  struct scaling scaling;
  for (int c = 0; c < MAX_CHANNELS; c++) scaling.factor[c] = factor, scaling.offset[c] = offset;
  return scaling;
}

/* By the manifest. */
static struct scaling scaling_of(const cJSON *manifest) {
  struct scaling s = uniform(case_number(manifest, "scaling_factor", NAN),
                             case_number(manifest, "shift_factor", 0));
  const cJSON *mean = cJSON_GetObjectItemCaseSensitive(manifest, "latents_mean");
  const cJSON *deviation = cJSON_GetObjectItemCaseSensitive(manifest, "latents_std");
  for (int c = 0; c < cJSON_GetArraySize(mean) && c < MAX_CHANNELS; c++) {
    s.offset[c] = cJSON_GetArrayItem(mean, c)->valuedouble;
    s.factor[c] /= cJSON_GetArrayItem(deviation, c)->valuedouble;
  }
  return s;
}

static void widen(double *dst, const float *src, int64_t n, double factor, double offset) {
  for (int64_t i = 0; i < n; i++) dst[i] = factor * (double)src[i] + offset;
}

static enum ditmoe_status decode_all(struct run *run, const struct images *latents,
                                     struct images *out) {
  const int h = latents->height, w = latents->width, factor = run->info.factor;
  *out = (struct images){NULL, latents->n, 3, h * factor, w * factor};
  const int64_t each = values_of(out) / out->n, z = values_of(latents) / latents->n;
  TRY(mem_alloc(run->file.ctx, (size_t)(out->n * each), sizeof *out->values, "images",
                &out->values));
  TRY(exec_reserve(run->ex, vae_decode_bytes(run->ex, run->vae, h, w, 0)));
  for (int64_t i = 0; i < out->n; i++)
    TRY(vae_decode(run->ex, run->vae, out->values + i * each, latents->values + i * z, h, w, 0));
  return DITMOE_OK;
}

/* The decoder's images of the scaled latents against tensor `name` and its pixels, as far as they
 * are in the file. A network in [0, 1] is compared there. */
static enum ditmoe_status check_decode(struct run *run, const struct scaling *scaling,
                                       const char *name) {
  struct ditmoe_ctx *ctx = run->file.ctx;
  struct images latents = {0}, images = {0};
  double *values = NULL;
  char pixel_name[NAME_SIZE];
  const bool unit = run->info.unit_range;
  enum ditmoe_status status;
  if (!find(run, name)) return DITMOE_OK;
  TRY_DONE(read_images(run, "latents", run->info.latent_channels, scaling, &latents));
  TRY_DONE(decode_all(run, &latents, &images));
  const int64_t n = values_of(&images);
  TRY_DONE(mem_alloc(ctx, (size_t)n, sizeof *values, "images", &values));
  widen(values, images.values, n, unit ? 0.5 : 1, unit ? 0.5 : 0);
  TRY_DONE(compare(run, name, values, n));
  snprintf(pixel_name, sizeof pixel_name, "%s_u8", name);
  if (find(run, pixel_name)) status = compare_pixels(run, pixel_name, &images);
done:
  mem_free(ctx, values);
  mem_free(ctx, images.values);
  mem_free(ctx, latents.values);
  return status;
}

/* Mean and log variance [n, each] of the tensor `image`. */
static enum ditmoe_status encode_all(struct run *run, float **mean, float **log_variance,
                                     int64_t *n, int64_t *each) {
  struct ditmoe_ctx *ctx = run->file.ctx;
  struct images images = {0};
  const struct scaling range = run->info.unit_range ? uniform(2, 0.5) : uniform(1, 0);
  enum ditmoe_status status;
  TRY_DONE(read_images(run, "image", 3, &range, &images));
  const int h = images.height, w = images.width, factor = run->info.factor;
  const int64_t pixels = values_of(&images) / images.n;
  *n = images.n;
  *each = (int64_t)run->info.latent_channels * (h / factor) * (w / factor);
  TRY_DONE(mem_alloc(ctx, (size_t)(*n * *each), sizeof **mean, "means", mean));
  TRY_DONE(mem_zalloc(ctx, (size_t)(*n * *each), sizeof **mean, "variances", log_variance));
  TRY_DONE(exec_reserve(run->ex, vae_encode_bytes(run->ex, run->vae, h, w)));
  for (int64_t i = 0; i < *n; i++)
    TRY_DONE(vae_encode(run->ex, run->vae, *mean + i * *each, *log_variance + i * *each,
                        images.values + i * pixels, h, w));
done:
  mem_free(ctx, images.values);
  return status;
}

/* Compares the encoder's means and log variances with those tensors that are in the file; `moments`
 * [n, 2 C, h, w] holds both, `enc_latents` the means as a denoiser has them. */
static enum ditmoe_status check_encode(struct run *run, const struct scaling *scaling) {
  float *mean = NULL, *log_variance = NULL;
  double *values = NULL;
  int64_t n = 0, each = 0;
  enum ditmoe_status status;
  TRY_DONE(encode_all(run, &mean, &log_variance, &n, &each));
  TRY_DONE(mem_alloc(run->file.ctx, (size_t)(2 * n * each), sizeof *values, "moments", &values));
  widen(values, mean, n * each, 1, 0);
  if (find(run, "encoded")) TRY_DONE(compare(run, "encoded", values, n * each));
  if (find(run, "enc_mean")) TRY_DONE(compare(run, "enc_mean", values, n * each));
  for (int64_t i = 0; i < n * each; i++) {
    const int64_t c = i % each / (each / run->info.latent_channels);
    values[i] = (values[i] - scaling->offset[c]) * scaling->factor[c];
  }
  if (find(run, "enc_latents")) TRY_DONE(compare(run, "enc_latents", values, n * each));
  widen(values, log_variance, n * each, 1, 0);
  if (find(run, "enc_logvar")) TRY_DONE(compare(run, "enc_logvar", values, n * each));
  for (int64_t i = 0; i < n; i++) {
    widen(values + 2 * i * each, mean + i * each, each, 1, 0);
    widen(values + (2 * i + 1) * each, log_variance + i * each, each, 1, 0);
  }
  if (find(run, "moments")) TRY_DONE(compare(run, "moments", values, 2 * n * each));
done:
  mem_free(run->file.ctx, values);
  mem_free(run->file.ctx, log_variance);
  mem_free(run->file.ctx, mean);
  return status;
}

/* Inputs, and what is inside of the networks. */
static bool is_input(const char *name) {
  static const char *const names[] = {"image", "latents", "dec_mid", "enc_mid"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0) return true;
  return false;
}

/* Tensors that nothing was compared with and that are no inputs. */
static void report_others(struct run *run) {
  const struct ditmoe_checkpoint *checkpoint = run->file.checkpoint;
  for (size_t i = 0; i < checkpoint->count; i++) {
    const char *name = checkpoint->tensors[i].name;
    if (!run->compared[i] && !is_input(name)) line(run, name, INFINITY, 0);
  }
}

static enum ditmoe_status check(struct run *run, const cJSON *manifest) {
  vae_describe(run->vae, &run->info);
  const bool divided = !run->info.unit_range;
  line(run, "factor", fabs(run->info.factor - case_number(manifest, "factor", NAN)), 0);
  line(run, "scale", fabs(run->info.scale - case_number(manifest, "scaling_factor", NAN)), 0);
  const struct scaling scaling = divided ? scaling_of(manifest) : uniform(1, 0);
  const struct scaling as_is = uniform(1, 0);
  TRY(check_decode(run, &scaling, "decoded"));
  if (divided) TRY(check_decode(run, &as_is, "decoded_scaled"));
  if (find(run, "image")) TRY(check_encode(run, &scaling));
  report_others(run);
  return DITMOE_OK;
}

enum ditmoe_status vae_case(struct exec *ex, const char *folder, const cJSON *manifest,
                            case_report *report, void *user) {
  struct run run = {.ex = ex};
  char path[2048];
  TRY(case_open(ex->ctx, folder, "io.safetensors", report, user, &run.file));
  enum ditmoe_status status = DITMOE_OK;
  if (run.file.checkpoint->count > MAX_TENSORS)
    TRY_DONE(fail(ex->ctx, DITMOE_FORMAT, "%s: more than %d tensors", folder, MAX_TENSORS));
  /* A folder may hold the same weights in several files, under several names. */
  const bool one_file = strcmp(case_string(manifest, "kind"), "vae_kl") == 0;
  snprintf(path, sizeof path, "%s/%s", folder, one_file ? case_string(manifest, "weights") : "");
  TRY_DONE(vae_open(ex, path, &run.vae));
  status = check(&run, manifest);
done:
  if (run.vae) vae_close(ex, run.vae);
  case_close(&run.file);
  return status;
}
