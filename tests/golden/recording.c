/* Keeps what the taps of a forward pass show, under the names of the fixtures. */
#include "tests/golden/golden.h"
#include "tests/limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const tap_names[] = {[TAP_TIME_FEATURES] = "emb_t_sincos",
                                        [TAP_TIME] = "emb_t",
                                        [TAP_LABEL] = "emb_y",
                                        [TAP_CONDITION] = "emb_c",
                                        [TAP_PATCHES] = "x_patch",
                                        [TAP_EMBEDDED] = "x_embed",
                                        [TAP_ATTENTION] = "attn_out",
                                        [TAP_FFN] = "moe_out",
                                        [TAP_BLOCK] = "block_out"};

/* A host copy of `count` device elements of 4 bytes; NULL stays NULL. */
static enum ditmoe_status copy(struct exec *ex, struct ditmoe_ctx *ctx, void *out,
                               const void *device, int64_t count) {
  void *host = NULL;
  if (device) {
    TRY(mem_alloc(ctx, (size_t)count, sizeof(float), "recording", &host));
    be_download(ex, host, device, (size_t)count * sizeof(float));
  }
  memcpy(out, &host, sizeof host);
  return DITMOE_OK;
}

static const struct recorded *find(const struct recording *recording, const char *name) {
  for (size_t i = 0; i < recording->count; i++)
    if (!strcmp(recording->items[i].name, name)) return &recording->items[i];
  return NULL;
}

/* Feed-forward parts of dense blocks have a name of their own in some fixtures. */
static const struct recorded *find_tensor(const struct recording *recording, const char *name) {
  char other[sizeof recording->items->name];
  if (strncmp(name, "mlp_out.", 8) != 0) return find(recording, name);
  snprintf(other, sizeof other, "%s.%s", tap_names[TAP_FFN], name + 8);
  return find(recording, other);
}

/* The first of a name: blocks with an embedder of their own come later. */
static enum ditmoe_status keep_values(struct recording *r, struct exec *ex,
                                      const struct dit_tap_data *data) {
  struct recorded item = {.count = (int64_t)data->B * data->T * data->D};
  if (data->layer < 0)
    snprintf(item.name, sizeof item.name, "%s", tap_names[data->point]);
  else
    snprintf(item.name, sizeof item.name, "%s.%d", tap_names[data->point], data->layer);
  if (find(r, item.name)) return DITMOE_OK;
  TRY(mem_room(r->ctx, r->count, sizeof item, "recording", &r->items));
  TRY(copy(ex, r->ctx, &item.values, data->data, item.count));
  r->items[r->count++] = item;
  return DITMOE_OK;
}

static enum ditmoe_status keep_plan(struct recording *r, struct exec *ex,
                                    const struct dit_tap_data *data) {
  const struct dispatch *d = data->dispatch;
  const struct router_trace *trace = data->trace;
  const struct router_layer *router = r->model->blocks[data->layer].moe->router;
  const int64_t scored = trace->rows * router->experts;
  TRY(mem_room(r->ctx, r->plan_count, sizeof *r->plans, "recording", &r->plans));
  struct layer_plan *plan = &r->plans[r->plan_count++];
  *plan = (struct layer_plan){.layer = data->layer,
                              .B = data->B,
                              .T = data->T,
                              .columns = router->experts,
                              .experts = d->experts,
                              .router = router->router->name,
                              .rows = trace->rows};
  TRY(copy(ex, r->ctx, &plan->scores, trace->scores, scored));
  TRY(copy(ex, r->ctx, &plan->ranked, trace->ranked, scored));
  TRY(copy(ex, r->ctx, &plan->cosine, trace->cosine, scored));
  TRY(copy(ex, r->ctx, &plan->capacity, trace->capacity, scored));
  TRY(copy(ex, r->ctx, &plan->threshold, trace->threshold, router->experts));
  TRY(copy(ex, r->ctx, &plan->offset, d->offset, d->experts + 1));
  TRY(copy(ex, r->ctx, &plan->first, d->first, d->tokens + 1));
  const int64_t rows = plan->offset[d->experts];
  TRY(copy(ex, r->ctx, &plan->token, d->token, rows));
  TRY(copy(ex, r->ctx, &plan->weight, d->weight, rows));
  return copy(ex, r->ctx, &plan->row, d->row, rows);
}

static void look(void *user, struct exec *ex, const struct dit_tap_data *data) {
  struct recording *r = user;
  if (r->status != DITMOE_OK || data->point == TAP_EXPERT_ROWS) return;
  r->status = data->point == TAP_ROUTER ? keep_plan(r, ex, data) : keep_values(r, ex, data);
  if (!r->counted || r->status != DITMOE_OK) return;
  r->counted->look(r->counted->user, ex, data);
  r->status = r->recorder.status;
}

enum ditmoe_status recording_count(struct recording *r, const struct dit *model, int B,
                                   const int32_t *labels) {
  struct routing_shape shape;
  bool experts = false;
  for (int l = 0; l < model->config.depth; l++) experts |= model->blocks[l].moe != NULL;
  if (!experts) return DITMOE_OK;
  TRY(routing_shape_of(r->ctx, model, 1, 1, &shape));
  shape.halves = 1;
  enum ditmoe_status status = routing_create(r->ctx, &shape, &r->routing);
  shape_free(r->ctx, &shape);
  if (status == DITMOE_OK) status = recorder_open(r->ctx, model, B, r->routing, &r->recorder);
  if (status != DITMOE_OK) return status;
  r->counted = recorder_tap(
      &r->recorder,
      &(struct recorder_call){.labels = labels, .given = labels, .count = B, .conditional = true});
  return DITMOE_OK;
}

struct dit_tap recording_tap(struct recording *recording, const struct dit *model) {
  recording->model = model;
  return (struct dit_tap){recording, look};
}

void recording_free(struct recording *r) {
  for (size_t i = 0; i < r->count; i++) mem_free(r->ctx, r->items[i].values);
  for (size_t i = 0; i < r->plan_count; i++) {
    struct layer_plan *p = &r->plans[i];
    void *const owned[] = {p->scores, p->ranked, p->cosine, p->capacity, p->threshold,
                           p->offset, p->token,  p->first,  p->row,      p->weight};
    for (size_t j = 0; j < sizeof owned / sizeof *owned; j++) mem_free(r->ctx, owned[j]);
  }
  recorder_close(&r->recorder);
  ditmoe_routing_destroy(r->routing);
  mem_free(r->ctx, r->items);
  mem_free(r->ctx, r->plans);
  *r = (struct recording){0};
}

/* "cos_sim.3" is "cos_sim" of layer 3; -1 without a number. */
static int split_layer(const char *name, char *base, size_t size) {
  const char *dot = strrchr(name, '.');
  char *end = NULL;
  long layer = dot ? strtol(dot + 1, &end, 10) : -1;
  bool numbered = dot && end > dot + 1 && !*end && layer >= 0 && layer < 1 << 20;
  snprintf(base, size, "%.*s", (int)(numbered ? dot - name : (long)strlen(name)), name);
  return numbered ? (int)layer : -1;
}

enum ditmoe_status check_intermediates(struct golden *g, struct case_file *file,
                                       const struct recording *recording, const int32_t *labels) {
  for (size_t i = 0; i < file->checkpoint->count; i++) {
    const char *name = file->checkpoint->tensors[i].name;
    const struct recorded *item = find_tensor(recording, name);
    char base[64];
    if (item) {
      const bool embedding = !strncmp(name, "emb_", 4);
      TRY(compare_l2(file, name, item->values, item->count,
                     embedding ? LIMIT_EMBEDDED : LIMIT_FORWARD));
      continue;
    }
    const int layer = split_layer(name, base, sizeof base);
    for (size_t p = 0; p < recording->plan_count; p++) {
      if (recording->plans[p].layer != layer) continue;
      TRY(check_routing(g, file, base, &recording->plans[p], labels));
      TRY(check_counts(g, file, base, recording, p, labels));
    }
  }
  return DITMOE_OK;
}
