/* Decoders and encoders against fixtures: see vae_cases.h. */
#include "tests/vae_cases.h"

#include "tests/limit.h"
#include "vae/vae.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_TENSORS = 64, NAME_SIZE = 128 };

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

/* The pixels of images [n, 3, side, side] against a tensor [n, side, side, 3]. */
static enum ditmoe_status compare_pixels(struct run *run, const char *name, const float *images,
                                         int64_t n, int side) {
  double *expected = NULL, error = 0;
  uint8_t *pixels = NULL;
  int64_t count = 0;
  const int64_t each = (int64_t)3 * side * side;
  enum ditmoe_status status;
  TRY_DONE(case_values(&run->file, name, &expected, &count));
  TRY_DONE(mem_alloc(run->file.ctx, (size_t)each, 1, "pixels", &pixels));
  for (int64_t i = 0; count == n * each && i < n; i++) {
    vae_pixels(pixels, images + i * each, side);
    for (int64_t p = 0; p < each; p++)
      error = fmax(error, fabs(pixels[p] - expected[i * each + p]));
  }
  line(run, name, count == n * each ? error : INFINITY, LIMIT_PIXEL);
done:
  mem_free(run->file.ctx, pixels);
  mem_free(run->file.ctx, expected);
  return status;
}

/* factor * tensor [n, channels, side, side] + offset, as floats. */
static enum ditmoe_status read_images(struct run *run, const char *name, int channels,
                                      double factor, double offset, float **out, int64_t *n,
                                      int *side) {
  const struct tensor *tensor = find(run, name);
  if (!tensor || !dtype_is_float(tensor->dtype) || tensor->rank != 4 ||
      tensor->shape[1] != channels || tensor->shape[2] != tensor->shape[3])
    return fail(run->file.ctx, DITMOE_FORMAT, "%s: expected a tensor %s [n, %d, side, side]",
                run->file.name, name, channels);
  *n = tensor->shape[0];
  *side = (int)tensor->shape[2];
  TRY(mem_alloc(run->file.ctx, (size_t)tensor->elements, sizeof **out, name, out));
  tensor_read_f32(*out, tensor, 0, tensor->elements);
  for (int64_t i = 0; i < tensor->elements; i++)
    (*out)[i] = (float)(factor * (double)(*out)[i] + offset);
  return DITMOE_OK;
}

static void widen(double *dst, const float *src, int64_t n, double factor, double offset) {
  for (int64_t i = 0; i < n; i++) dst[i] = factor * (double)src[i] + offset;
}

/* The decoder's images of factor * latents against tensor `name` and its pixels, as far as they
 * are in the file. A network in [0, 1] is compared there. */
static enum ditmoe_status check_decode(struct run *run, double factor, const char *name) {
  struct ditmoe_ctx *ctx = run->file.ctx;
  float *latents = NULL, *images = NULL;
  double *values = NULL;
  int64_t n;
  int size;
  char pixel_name[NAME_SIZE];
  const bool unit = run->info.unit_range;
  if (!find(run, name)) return DITMOE_OK;
  TRY(read_images(run, "latents", run->info.latent_channels, factor, 0, &latents, &n, &size));
  const int side = size * run->info.factor;
  const int64_t each = (int64_t)3 * side * side,
                z = (int64_t)run->info.latent_channels * size * size;
  enum ditmoe_status status;
  TRY_DONE(mem_alloc(ctx, (size_t)(n * each), sizeof *images, "images", &images));
  TRY_DONE(mem_alloc(ctx, (size_t)(n * each), sizeof *values, "images", &values));
  TRY_DONE(exec_reserve(run->ex, vae_decode_bytes(run->ex, run->vae, size, 0)));
  for (int64_t i = 0; i < n; i++)
    TRY_DONE(vae_decode(run->ex, run->vae, images + i * each, latents + i * z, size, 0));
  widen(values, images, n * each, unit ? 0.5 : 1, unit ? 0.5 : 0);
  TRY_DONE(compare(run, name, values, n * each));
  snprintf(pixel_name, sizeof pixel_name, "%s_u8", name);
  if (find(run, pixel_name)) status = compare_pixels(run, pixel_name, images, n, side);
done:
  mem_free(ctx, values);
  mem_free(ctx, images);
  mem_free(ctx, latents);
  return status;
}

/* Mean and log variance [n, each] of the tensor `image`. */
static enum ditmoe_status encode_all(struct run *run, float **mean, float **log_variance,
                                     int64_t *n, int64_t *each) {
  struct ditmoe_ctx *ctx = run->file.ctx;
  float *images;
  int size;
  const bool unit = run->info.unit_range;
  TRY(read_images(run, "image", 3, unit ? 2 : 1, unit ? -1 : 0, &images, n, &size));
  const int side = size / run->info.factor;
  const int64_t pixels = (int64_t)3 * size * size;
  enum ditmoe_status status;
  *each = (int64_t)run->info.latent_channels * side * side;
  TRY_DONE(mem_alloc(ctx, (size_t)(*n * *each), sizeof **mean, "means", mean));
  TRY_DONE(mem_zalloc(ctx, (size_t)(*n * *each), sizeof **mean, "variances", log_variance));
  TRY_DONE(exec_reserve(run->ex, vae_encode_bytes(run->ex, run->vae, size)));
  for (int64_t i = 0; i < *n; i++)
    TRY_DONE(vae_encode(run->ex, run->vae, *mean + i * *each, *log_variance + i * *each,
                        images + i * pixels, size));
done:
  mem_free(ctx, images);
  return status;
}

/* Compares the encoder's means and log variances with those tensors that are in the file; `moments`
 * [n, 2 C, h, w] holds both. */
static enum ditmoe_status check_encode(struct run *run) {
  float *mean = NULL, *log_variance = NULL;
  double *values = NULL;
  int64_t n = 0, each = 0;
  enum ditmoe_status status;
  TRY_DONE(encode_all(run, &mean, &log_variance, &n, &each));
  TRY_DONE(mem_alloc(run->file.ctx, (size_t)(2 * n * each), sizeof *values, "moments", &values));
  widen(values, mean, n * each, 1, 0);
  if (find(run, "encoded")) TRY_DONE(compare(run, "encoded", values, n * each));
  if (find(run, "enc_mean")) TRY_DONE(compare(run, "enc_mean", values, n * each));
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

/* Tensors that nothing was compared with and that are no inputs. */
static void report_others(struct run *run) {
  const struct ditmoe_checkpoint *checkpoint = run->file.checkpoint;
  for (size_t i = 0; i < checkpoint->count; i++) {
    const char *name = checkpoint->tensors[i].name;
    if (!run->compared[i] && strcmp(name, "image") != 0 && strcmp(name, "latents") != 0)
      line(run, name, INFINITY, 0);
  }
}

static enum ditmoe_status check(struct run *run, const cJSON *manifest) {
  vae_describe(run->vae, &run->info);
  const bool divided = !run->info.unit_range;
  line(run, "factor", fabs(run->info.factor - case_number(manifest, "factor", NAN)), 0);
  line(run, "scale", fabs(run->info.scale - case_number(manifest, "scaling_factor", NAN)), 0);
  TRY(check_decode(run, divided ? run->info.scale : 1, "decoded"));
  if (divided) TRY(check_decode(run, 1, "decoded_scaled"));
  if (find(run, "image")) TRY(check_encode(run));
  report_others(run);
  return DITMOE_OK;
}

enum ditmoe_status vae_case(struct exec *ex, const char *folder, const cJSON *manifest,
                            case_report *report, void *user) {
  struct run run = {.ex = ex};
  TRY(case_open(ex->ctx, folder, "io.safetensors", report, user, &run.file));
  enum ditmoe_status status = DITMOE_OK;
  if (run.file.checkpoint->count > MAX_TENSORS)
    TRY_DONE(fail(ex->ctx, DITMOE_FORMAT, "%s: more than %d tensors", folder, MAX_TENSORS));
  TRY_DONE(vae_open(ex, folder, &run.vae));
  status = check(&run, manifest);
done:
  if (run.vae) vae_close(ex, run.vae);
  case_close(&run.file);
  return status;
}
