/* batch MODEL DECODER COUNT RUN.npz: many images of random classes into one file, in constant
 * memory, as evaluation wants them: arr_0 uint8 [COUNT, size, size, 3]. */
#include <ditmoe.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 8 };

/* The working memory is made once; an image depends on the seed and its index alone, not on how the
 * run is cut into batches. */
static enum ditmoe_status write_images(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                       const struct ditmoe_decoder *decoder, int64_t count,
                                       int size, uint8_t *pixels, struct ditmoe_npz *npz) {
  struct ditmoe_model_info info;
  ditmoe_model_info(model, &info);
  const size_t image = (size_t)size * (size_t)size * 3;
  int32_t labels[BATCH] = {0};
  struct ditmoe_request request = ditmoe_request_default();
  request.labels = labels;
  request.count = request.batch = BATCH;
  request.steps = 4;
  struct ditmoe_session *session = NULL;
  enum ditmoe_status status = ditmoe_session_create(ctx, model, decoder, &request, &session);
  for (int64_t first = 0; status == DITMOE_OK && first < count; first += BATCH) {
    request.first_index = first;
    request.count = count - first < BATCH ? count - first : BATCH;
    for (int64_t i = 0; i < request.count; i++)
      labels[i] = ditmoe_random_label(request.seed, first + i, info.classes_used);
    status = ditmoe_sample(ctx, session, &request, NULL, pixels);
    if (status == DITMOE_OK)
      status = ditmoe_npz_write(ctx, npz, pixels, (size_t)request.count * image);
  }
  ditmoe_session_destroy(session);
  return status;
}

static enum ditmoe_status run(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                              const struct ditmoe_decoder *decoder, int64_t count,
                              const char *path) {
  struct ditmoe_model_info info;
  struct ditmoe_decoder_info decoded;
  ditmoe_model_info(model, &info);
  ditmoe_decoder_info(decoder, &decoded);
  const int size = info.size * decoded.factor;
  uint8_t *pixels = malloc((size_t)BATCH * (size_t)size * (size_t)size * 3);
  if (!pixels) return DITMOE_NOMEM;
  struct ditmoe_npz *npz = NULL;
  enum ditmoe_status status = ditmoe_npz_create(ctx, path, &npz);
  const int64_t shape[] = {count, size, size, 3};
  if (status == DITMOE_OK) status = ditmoe_npz_array(ctx, npz, "arr_0", "u1", 4, shape);
  if (status == DITMOE_OK) status = write_images(ctx, model, decoder, count, size, pixels, npz);
  if (status == DITMOE_OK)
    status = ditmoe_npz_commit(ctx, npz);
  else
    ditmoe_npz_abandon(ctx, npz);
  free(pixels);
  return status;
}

int main(int argc, char **argv) {
  const long long count = argc == 5 ? strtoll(argv[3], NULL, 10) : 0;
  if (count < 1) {
    fprintf(stderr, "usage: batch MODEL DECODER COUNT RUN.npz\n");
    return DITMOE_USAGE;
  }
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  if (!ctx) return DITMOE_NOMEM;
  struct ditmoe_model *model = NULL;
  struct ditmoe_decoder *decoder = NULL;
  enum ditmoe_status status = ditmoe_model_open(ctx, argv[1], NULL, &model);
  if (status == DITMOE_OK) status = ditmoe_decoder_open(ctx, argv[2], NULL, 0, &decoder);
  if (status == DITMOE_OK) status = run(ctx, model, decoder, count, argv[4]);
  if (status != DITMOE_OK)
    fprintf(stderr, "batch: %s\n",
            status == DITMOE_NOMEM ? "not enough memory" : ditmoe_errmsg(ctx));
  ditmoe_decoder_close(decoder);
  ditmoe_model_close(model);
  ditmoe_ctx_destroy(ctx);
  return (int)status;
}
