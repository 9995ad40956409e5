/* The SHA-256 of model and decoder, for what is written beside the images. A model of 8 GB takes
 * seconds, so a thread of its own reads it while the first images are made. */
#include "cli/sample/sample.h"

static enum ditmoe_status hash_all(struct sample *run) {
  struct ditmoe_ctx *ctx = run->hash.ctx;
  enum ditmoe_status status = ditmoe_file_sha256(ctx, run->settings.model, run->model_sha256);
  if (status != DITMOE_OK || !run->vae_path) return status;
  return ditmoe_file_sha256(ctx, run->vae_path, run->vae_sha256);
}

static void *hash_thread(void *user) {
  struct sample *run = user;
  run->hash.status = hash_all(run);
  return NULL;
}

enum ditmoe_status sample_hash_start(struct sample *run) {
  struct sample_hash *hash = &run->hash;
  hash->ctx = report_context();
  if (!hash->ctx) return DITMOE_NOMEM;
  hash->running = pthread_create(&hash->thread, NULL, hash_thread, run) == 0;
  if (!hash->running) hash_thread(run); /* no thread to be had: now */
  return DITMOE_OK;
}

enum ditmoe_status sample_hash_finish(struct sample *run) {
  struct sample_hash *hash = &run->hash;
  if (!hash->ctx) return DITMOE_OK;
  if (hash->running) pthread_join(hash->thread, NULL);
  hash->running = false;
  enum ditmoe_status status = report_call(hash->ctx, hash->status);
  ditmoe_ctx_destroy(hash->ctx);
  hash->ctx = NULL;
  return status;
}
