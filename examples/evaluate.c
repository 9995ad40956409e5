/* evaluate NETWORK REFERENCE SAMPLES: Frechet distance, precision and recall of images in a folder
 * or an .npz against others. */
#include <ditmoe_eval.h>
#include <stdio.h>

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: evaluate NETWORK REFERENCE SAMPLES\n");
    return DITMOE_USAGE;
  }
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  if (!ctx) return DITMOE_NOMEM;
  struct ditmoe_features *network = NULL;
  struct ditmoe_set *reference = NULL, *samples = NULL;
  struct ditmoe_scores scores;
  struct ditmoe_set_options options = {.measures = DITMOE_FRECHET | DITMOE_PRECISION};
  enum ditmoe_status status = ditmoe_features_open(ctx, argv[1], NULL, NULL, &network);
  if (status == DITMOE_OK) status = ditmoe_set_open(ctx, argv[3], network, &options, &samples);
  options.reference = 1;
  if (status == DITMOE_OK) status = ditmoe_set_open(ctx, argv[2], network, &options, &reference);
  if (status == DITMOE_OK)
    status = ditmoe_compare(ctx, reference, samples, options.measures, &scores);
  if (status == DITMOE_OK) {
    struct ditmoe_features_info info;
    ditmoe_features_info(network, &info);
    /* Only the published weights define what is called FID. */
    printf("%s %g\n", info.defines_fid ? "FID" : "Frechet distance", scores.frechet);
    printf("precision %g\nrecall %g\n", scores.precision, scores.recall);
  } else {
    fprintf(stderr, "evaluate: %s\n", ditmoe_errmsg(ctx));
  }
  ditmoe_set_close(samples);
  ditmoe_set_close(reference);
  ditmoe_features_close(network);
  ditmoe_ctx_destroy(ctx);
  return (int)status;
}
