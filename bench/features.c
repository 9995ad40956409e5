/* Features of images by a feature network, resizing included. */
#include "bench/whole.h"
#include "cli/text.h"
#include "eval/network.h"

#include <stdlib.h>

struct extraction { /* of one variant */
  struct bench *bench;
  struct exec ex;
  struct network *network;
  const uint8_t *pixels;
  struct features features;
  struct whole whole;
};

static enum ditmoe_status call(void *user) {
  struct extraction *e = user;
  const int side = (int)e->bench->settings.image_size;
  return report_call(e->bench->ctx,
                     network_run(&e->ex, e->network, RESIZE_ADM, e->pixels,
                                 (int)e->bench->settings.batch, side, side, &e->features));
}

static enum ditmoe_status prepare(struct extraction *e) {
  const struct bench_settings *s = &e->bench->settings;
  const size_t batch = (size_t)s->batch;
  TRY(report_call(e->bench->ctx, network_open(&e->ex, s->features, &e->network)));
  const struct network_kind *kind = e->network->kind;
  e->features = (struct features){memory_get(batch * (size_t)kind->pool, sizeof(float)),
                                  memory_get(batch * (size_t)kind->spatial, sizeof(float)),
                                  memory_get(batch * (size_t)kind->logits, sizeof(float))};
  e->whole = (struct whole){.ex = &e->ex, .user = e, .call = call};
  return whole_prepare(e->bench, &e->whole, network_bytes(&e->ex, e->network, (int)batch));
}

static enum ditmoe_status run_all(struct bench *bench, struct extraction *extractions) {
  const struct whole *wholes[MAX_VARIANTS];
  for (int i = 0; i < bench->variant_count; i++) {
    TRY(prepare(&extractions[i]));
    wholes[i] = &extractions[i].whole;
  }
  char *name =
      text_format("%s %d px", extractions[0].network->kind->name, (int)bench->settings.image_size);
  struct row row = {.what = "features", .shape = name, .batch = (int)bench->settings.batch};
  enum ditmoe_status status = whole_time(bench, wholes, &row);
  free(name);
  return status;
}

static void close_all(struct bench *bench, struct extraction *extractions) {
  for (int i = 0; i < bench->variant_count; i++) {
    struct extraction *e = &extractions[i];
    network_close(&e->ex, e->network);
    exec_close(&e->ex);
    free(e->features.pool);
    free(e->features.spatial);
    free(e->features.logits);
  }
}

enum ditmoe_status bench_features(struct bench *bench) {
  const struct bench_settings *s = &bench->settings;
  struct exec backends[MAX_VARIANTS];
  TRY(variants_open(bench, backends));
  const size_t bytes = (size_t)s->batch * (size_t)s->image_size * (size_t)s->image_size * 3;
  uint8_t *pixels = memory_get(bytes, 1);
  for (size_t i = 0; i < bytes; i++) pixels[i] = (uint8_t)(i * 2654435761u >> 24);
  struct extraction *extractions = memory_get((size_t)bench->variant_count, sizeof *extractions);
  for (int i = 0; i < bench->variant_count; i++)
    extractions[i] = (struct extraction){.bench = bench, .ex = backends[i], .pixels = pixels};
  enum ditmoe_status status = run_all(bench, extractions);
  close_all(bench, extractions);
  free(extractions);
  free(pixels);
  return status;
}
