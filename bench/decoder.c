#include "bench/decoder.h"

#include "base/rng.h"
#include "bench/whole.h"
#include "cli/text.h"
#include "vae/network.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CHANNELS = 4, FACTOR = 8 };

enum ditmoe_status decoder_kind(const struct bench *bench, const char **kind) {
  const char *given = bench->settings.decoder;
  *kind = given && *given ? given : "kl";
  if (strcmp(*kind, "kl") == 0 || strcmp(*kind, "taesd") == 0) return DITMOE_OK;
  return report_error(DITMOE_USAGE, "--decoder: expected kl or taesd, found \"%.40s\"", *kind);
}

/* A config.json in memory: an autoencoder reads it from a file. */
static enum ditmoe_status open_kl(struct bench *bench, struct exec *ex, struct vae *vae,
                                  const struct ditmoe_checkpoint *checkpoint) {
  int file = memfd_create("config.json", MFD_CLOEXEC);
  if (file < 0 || write(file, decoder_config, strlen(decoder_config)) < 0) {
    const char *cause = strerror(errno);
    if (file >= 0) close(file);
    return report_error(DITMOE_FAILED, "no file in memory: %s", cause);
  }
  char *path = text_format("/proc/self/fd/%d", file);
  enum ditmoe_status status = report_call(bench->ctx, kl_open(ex, vae, path, checkpoint));
  free(path);
  close(file);
  return status;
}

static enum ditmoe_status random_weights(struct bench *bench, const char *kind,
                                         struct ditmoe_checkpoint **out) {
  struct blueprint blueprint;
  decoder_draw(kind, &blueprint);
  enum ditmoe_status status =
      report_call(bench->ctx, random_checkpoint(bench->ctx, &blueprint, kind, DT_F32,
                                                bench->settings.seed, out));
  blueprint_free(&blueprint);
  return status;
}

enum ditmoe_status decoder_open(struct bench *bench, struct exec *ex, const char *kind,
                                struct vae **out) {
  struct ditmoe_checkpoint *checkpoint = NULL;
  struct vae *vae = NULL;
  TRY(random_weights(bench, kind, &checkpoint));
  enum ditmoe_status status =
      report_call(bench->ctx, mem_zalloc(bench->ctx, 1, sizeof *vae, "the autoencoder", &vae));
  if (status == DITMOE_OK)
    status = strcmp(kind, "kl") == 0
                 ? open_kl(bench, ex, vae, checkpoint)
                 : report_call(bench->ctx, taesd_open(ex, vae, checkpoint, NULL));
  ditmoe_checkpoint_close(checkpoint);
  if (status == DITMOE_OK)
    *out = vae;
  else
    vae_close(ex, vae);
  return status;
}

struct decoding { /* of one variant */
  struct bench *bench;
  struct exec ex;
  struct vae *vae;
  const float *latents;
  float *image;
  int size;
  struct whole whole;
};

static enum ditmoe_status call(void *user) {
  struct decoding *d = user;
  return report_call(d->bench->ctx,
                     vae_decode(&d->ex, d->vae, d->image, d->latents, d->size, d->size, 0));
}

static enum ditmoe_status prepare(struct decoding *d, const char *kind) {
  TRY(decoder_open(d->bench, &d->ex, kind, &d->vae));
  d->whole = (struct whole){.ex = &d->ex, .user = d, .call = call};
  return whole_prepare(d->bench, &d->whole, vae_decode_bytes(&d->ex, d->vae, d->size, d->size, 0));
}

static enum ditmoe_status run_decoders(struct bench *bench, struct decoding *decoders,
                                       const char *kind) {
  const struct whole *wholes[MAX_VARIANTS];
  for (int i = 0; i < bench->variant_count; i++) {
    TRY(prepare(&decoders[i], kind));
    wholes[i] = &decoders[i].whole;
  }
  char *name = text_format("%s %d px", kind, (int)bench->settings.image_size);
  struct row row = {.what = "decoder", .shape = name, .batch = 1};
  enum ditmoe_status status = whole_time(bench, wholes, &row);
  free(name);
  return status;
}

enum ditmoe_status bench_decoder(struct bench *bench) {
  const int side = (int)bench->settings.image_size, size = side / FACTOR;
  const char *kind;
  struct exec backends[MAX_VARIANTS];
  TRY(decoder_kind(bench, &kind));
  if (side % FACTOR)
    return report_error(DITMOE_USAGE, "--image-size %d: a decoder needs a multiple of %d", side,
                        FACTOR);
  TRY(variants_open(bench, backends));
  const size_t values = (size_t)size * (size_t)size * CHANNELS;
  float *latents = memory_get(values, sizeof *latents);
  float *image = memory_get(3 * (size_t)side * (size_t)side, sizeof *image);
  struct decoding *decoders = memory_get((size_t)bench->variant_count, sizeof *decoders);
  rng_normal(latents, (int64_t)values, bench->settings.seed, 0, 0, RNG_INITIAL_NOISE);
  for (int i = 0; i < bench->variant_count; i++)
    decoders[i] = (struct decoding){
        .bench = bench, .ex = backends[i], .latents = latents, .image = image, .size = size};
  enum ditmoe_status status = run_decoders(bench, decoders, kind);
  for (int i = 0; i < bench->variant_count; i++) {
    vae_close(&decoders[i].ex, decoders[i].vae);
    exec_close(&decoders[i].ex);
  }
  free(decoders);
  free(latents);
  free(image);
  return status;
}
