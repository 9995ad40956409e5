/* sample MODEL DECODER LABEL IMAGE.png: one image of a class. */
#include <ditmoe.h>
#include <stdio.h>
#include <stdlib.h>

/* Pixels [size, size, 3] of the image; the caller frees them. */
static enum ditmoe_status draw(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                               const struct ditmoe_decoder *decoder, int32_t label,
                               uint8_t **pixels, int *size) {
  struct ditmoe_model_info info;
  struct ditmoe_decoder_info decoded;
  ditmoe_model_info(model, &info);
  ditmoe_decoder_info(decoder, &decoded);
  *size = info.size * decoded.factor;
  *pixels = malloc((size_t)*size * (size_t)*size * 3);
  if (!*pixels) return DITMOE_NOMEM;

  struct ditmoe_request request = ditmoe_request_default();
  request.labels = &label;
  request.count = 1;
  request.seed = 7;
  request.steps = 20;
  request.cfg_scale = 2;
  struct ditmoe_session *session = NULL;
  enum ditmoe_status status = ditmoe_session_create(ctx, model, decoder, &request, &session);
  if (status == DITMOE_OK) status = ditmoe_sample(ctx, session, &request, NULL, *pixels);
  ditmoe_session_destroy(session);
  return status;
}

int main(int argc, char **argv) {
  char *end = NULL;
  const long label = argc == 5 ? strtol(argv[3], &end, 10) : -1;
  if (label < 0 || label > INT32_MAX || *end) {
    fprintf(stderr, "usage: sample MODEL DECODER LABEL IMAGE.png\n");
    return DITMOE_USAGE;
  }
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  if (!ctx) return DITMOE_NOMEM;
  struct ditmoe_model *model = NULL;
  struct ditmoe_decoder *decoder = NULL;
  uint8_t *pixels = NULL;
  int size = 0;
  enum ditmoe_status status = ditmoe_model_open(ctx, argv[1], NULL, &model);
  if (status == DITMOE_OK) status = ditmoe_decoder_open(ctx, argv[2], NULL, 0, &decoder);
  if (status == DITMOE_OK) status = draw(ctx, model, decoder, (int32_t)label, &pixels, &size);
  if (status == DITMOE_OK) status = ditmoe_image_write(ctx, argv[4], pixels, size, size, NULL);
  if (status != DITMOE_OK)
    fprintf(stderr, "sample: %s\n",
            status == DITMOE_NOMEM ? "not enough memory" : ditmoe_errmsg(ctx));
  free(pixels);
  ditmoe_decoder_close(decoder);
  ditmoe_model_close(model);
  ditmoe_ctx_destroy(ctx);
  return (int)status;
}
