/* Decoders: files that hold the same weights give the same bits. */
#include "tests/golden/golden.h"
#include "tests/limit.h"

#include "vae/vae.h"

#include <stdio.h>
#include <string.h>

/* Image of the first of the file's latents. */
static enum ditmoe_status decode(struct golden *g, const char *weights,
                                 const struct tensor *latents, float **image, size_t *count) {
  struct vae *vae = NULL;
  struct vae_info info;
  float *z = NULL;
  char path[2048];
  enum ditmoe_status status;
  const int size = (int)latents->shape[latents->rank - 1];
  snprintf(path, sizeof path, "%s/%s", g->folder, weights);
  TRY_DONE(vae_open(g->be, path, &vae));
  vae_describe(vae, &info);
  const size_t side = (size_t)size * (size_t)info.factor;
  const int64_t each = (int64_t)info.latent_channels * size * size;
  if (latents->elements < each)
    TRY_DONE(fail(g->ctx, DITMOE_FORMAT, "%s: the latents are too small", g->folder));
  *count = (size_t)info.image_channels * side * side;
  TRY_DONE(mem_alloc(g->ctx, (size_t)each, sizeof *z, "latents", &z));
  TRY_DONE(mem_alloc(g->ctx, *count, sizeof **image, "image", image));
  tensor_read_f32(z, latents, 0, each);
  TRY_DONE(backend_arena(g->be, vae_decode_bytes(g->be, vae, size, 0), false));
  status = vae_decode(g->be, vae, *image, z, size, 0);
done:
  mem_free(g->ctx, z);
  if (vae) vae_close(g->be, vae);
  return status;
}

enum ditmoe_status golden_decoder(struct golden *g) {
  const cJSON *other;
  struct case_file file;
  float *own = NULL;
  size_t count;
  enum ditmoe_status status;
  TRY(golden_open(g, "io.safetensors", &file));
  const struct tensor *latents = checkpoint_find(file.checkpoint, "latents");
  if (!latents || latents->rank < 1)
    TRY_DONE(fail(g->ctx, DITMOE_FORMAT, "%s: no latents", g->folder));
  TRY_DONE(decode(g, case_string(g->manifest, "weights"), latents, &own, &count));
  cJSON_ArrayForEach(other, golden_field(g->manifest, "weights_also")) {
    float *image = NULL;
    size_t other_count = 0;
    char line[128];
    if (!cJSON_IsTrue(golden_field(other, "equal"))) continue;
    status = decode(g, case_string(other, "path"), latents, &image, &other_count);
    bool same =
        status == DITMOE_OK && other_count == count && memcmp(image, own, count * sizeof *own) == 0;
    mem_free(g->ctx, image);
    TRY_DONE(status);
    snprintf(line, sizeof line, "%s:same bits", case_string(other, "path"));
    report_add(g->report, line, !same, LIMIT_EXACT);
  }
done:
  mem_free(g->ctx, own);
  case_close(&file);
  return status;
}
