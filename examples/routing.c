/* routing MODEL COUNT TABLES.npz: which experts the routers choose over a run, printed as the share
 * of each expert and written as tables. */
#include <ditmoe_routing.h>
#include <stdio.h>
#include <stdlib.h>

static void print_shares(const struct ditmoe_routing *routing) {
  struct ditmoe_routing_info info;
  struct ditmoe_routing_tables tables;
  ditmoe_routing_info(routing, &info);
  ditmoe_routing_tables(routing, DITMOE_CONDITIONAL, &tables);
  for (int l = 0; l < info.layers; l++) {
    const size_t counts = (size_t)info.labels * (size_t)info.experts;
    const uint64_t *layer = tables.class_counts + (size_t)l * counts;
    struct ditmoe_routing_load load;
    ditmoe_routing_load(routing, DITMOE_CONDITIONAL, l, -1, &load, NULL);
    printf("block %d, evenness %.3f:", info.layer[l], load.evenness);
    for (int e = 0; e < info.layer_experts[l]; e++) {
      uint64_t chosen = 0;
      for (size_t at = (size_t)e; at < counts; at += (size_t)info.experts) chosen += layer[at];
      printf(" %.3f", load.tokens > 0 ? (double)chosen / load.tokens : 0);
    }
    printf("\n");
  }
}

/* latents are not looked at here: what counts is on the way. */
static enum ditmoe_status count(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                struct ditmoe_request *request, struct ditmoe_routing **routing) {
  static const struct ditmoe_routing_options options;
  struct ditmoe_session *session = NULL;
  enum ditmoe_status status = ditmoe_routing_create(ctx, model, request, &options, routing);
  if (status == DITMOE_OK) status = ditmoe_session_create(ctx, model, NULL, request, &session);
  request->routing = *routing;
  if (status == DITMOE_OK) status = ditmoe_sample(ctx, session, request, NULL, NULL);
  ditmoe_session_destroy(session);
  return status;
}

int main(int argc, char **argv) {
  const long images = argc == 4 ? strtol(argv[2], NULL, 10) : 0;
  if (images < 1) {
    fprintf(stderr, "usage: routing MODEL COUNT TABLES.npz\n");
    return DITMOE_USAGE;
  }
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  int32_t *labels = calloc((size_t)images, sizeof *labels);
  if (!ctx || !labels) {
    ditmoe_ctx_destroy(ctx);
    free(labels);
    return DITMOE_NOMEM;
  }
  struct ditmoe_model *model = NULL;
  struct ditmoe_routing *routing = NULL;
  struct ditmoe_request request = ditmoe_request_default();
  request.labels = labels;
  request.count = images;
  request.steps = 4;
  enum ditmoe_status status = ditmoe_model_open(ctx, argv[1], NULL, &model);
  if (status == DITMOE_OK) {
    struct ditmoe_model_info info;
    ditmoe_model_info(model, &info);
    for (long i = 0; i < images; i++)
      labels[i] = ditmoe_random_label(request.seed, i, info.classes_used);
    status = count(ctx, model, &request, &routing);
  }
  if (status == DITMOE_OK)
    status = ditmoe_routing_write(ctx, routing, argv[3], DITMOE_ROUTING_FINAL);
  if (status == DITMOE_OK)
    print_shares(routing);
  else
    fprintf(stderr, "routing: %s\n", ditmoe_errmsg(ctx));
  ditmoe_routing_destroy(routing);
  ditmoe_model_close(model);
  free(labels);
  ditmoe_ctx_destroy(ctx);
  return (int)status;
}
