/* Decoders: files that hold the same weights give the same bits; bf16. */
#include "tests/golden/golden.h"
#include "tests/limit.h"

#include "vae/vae.h"

#include <stdio.h>
#include <string.h>

enum ditmoe_status golden_decode(struct golden *g, struct exec *ex, const char *path,
                                 const struct latents *latents, float **images, int64_t *count) {
  struct vae *vae = NULL;
  struct vae_info info;
  char full[2048];
  const int h = latents->height, w = latents->width;
  enum ditmoe_status status;
  snprintf(full, sizeof full, "%s/%s", g->folder, path);
  TRY_DONE(vae_open(ex, full, &vae));
  vae_describe(vae, &info);
  if (latents->channels != info.latent_channels)
    TRY_DONE(fail(g->ctx, DITMOE_FORMAT, "%s: latents of %d channels", path, latents->channels));
  const int64_t plane = (int64_t)h * w, z = latents->channels * plane;
  const int64_t each = info.image_channels * plane * info.factor * info.factor;
  *count = latents->n * each;
  TRY_DONE(mem_alloc(g->ctx, (size_t)*count, sizeof **images, "images", images));
  TRY_DONE(exec_reserve(ex, vae_decode_bytes(ex, vae, h, w, 0)));
  for (int64_t i = 0; i < latents->n; i++)
    TRY_DONE(vae_decode(ex, vae, *images + i * each, latents->values + i * z, h, w, 0));
done:
  if (vae) vae_close(ex, vae);
  return status;
}

static enum ditmoe_status read_latents(struct golden *g, struct case_file *file,
                                       struct latents *out) {
  const struct tensor *tensor = checkpoint_find(file->checkpoint, "latents");
  if (!tensor || tensor->rank != 4) return fail(g->ctx, DITMOE_FORMAT, "%s: no latents", g->folder);
  *out = (struct latents){NULL, tensor->shape[0], (int)tensor->shape[1], (int)tensor->shape[2],
                          (int)tensor->shape[3]};
  return golden_floats(file, tensor->name, &out->values, NULL);
}

static enum ditmoe_status check_equal_weights(struct golden *g, const struct latents *latents) {
  const cJSON *other;
  float *own = NULL;
  int64_t count, other_count;
  enum ditmoe_status status;
  TRY_DONE(golden_decode(g, g->ex, case_string(g->manifest, "weights"), latents, &own, &count));
  cJSON_ArrayForEach(other, golden_field(g->manifest, "weights_also")) {
    const char *path = case_string(other, "path");
    float *images = NULL;
    char line[128];
    if (!cJSON_IsTrue(golden_field(other, "equal"))) continue;
    status = golden_decode(g, g->ex, path, latents, &images, &other_count);
    bool same = status == DITMOE_OK && other_count == count &&
                memcmp(images, own, (size_t)count * sizeof *own) == 0;
    mem_free(g->ctx, images);
    TRY_DONE(status);
    snprintf(line, sizeof line, "%s:same bits", path);
    report_add(g->report, line, !same, LIMIT_EXACT);
  }
done:
  mem_free(g->ctx, own);
  return status;
}

/* "decoded" is what the network makes of the latents, "decoded_scaled" of those divided by the
 * scale, which is what a decoder does. */
static enum ditmoe_status check_precision(struct golden *g, const struct case_file *file,
                                          const struct latents *latents) {
  const char *path = case_string(g->manifest, "weights");
  const double scale = case_number(g->manifest, "scaling_factor", 1);
  const int64_t count = checkpoint_find(file->checkpoint, "latents")->elements;
  if (checkpoint_find(file->checkpoint, "decoded_scaled"))
    TRY(precision_decode(g, path, latents, file->name, "decoded_scaled"));
  for (int64_t i = 0; i < count; i++)
    latents->values[i] = (float)(scale * (double)latents->values[i]);
  return precision_decode(g, path, latents, file->name, "decoded");
}

enum ditmoe_status golden_decoder(struct golden *g) {
  struct case_file file;
  struct latents latents = {0};
  enum ditmoe_status status;
  TRY(golden_open(g, "io.safetensors", &file));
  TRY_DONE(read_latents(g, &file, &latents));
  status = g->precision ? check_precision(g, &file, &latents) : check_equal_weights(g, &latents);
done:
  mem_free(g->ctx, latents.values);
  case_close(&file);
  return status;
}
