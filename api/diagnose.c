/* Where the first value that is not finite comes from. */
#include "api/handles.h"

#include <math.h>
#include <stdio.h>

struct search {
  const struct dit *model;
  bool found;
  char where[96];
  int layer, expert; /* -1: none */
};

/* Index of the first value that is not finite, or -1. */
static int64_t first_bad(struct exec *ex, const float *device, int64_t count) {
  float values[1024];
  for (int64_t at = 0; at < count; at += 1024) {
    int64_t n = count - at < 1024 ? count - at : 1024;
    be_download(ex, values, device + at, (size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++)
      if (!isfinite(values[i])) return at + i;
  }
  return -1;
}

static bool look_at_experts(struct search *search, struct exec *ex,
                            const struct dit_tap_data *tap) {
  const struct dispatch *d = tap->dispatch;
  for (int e = 0; e < d->experts; e++) {
    int32_t range[2];
    be_download(ex, range, d->offset + e, sizeof range);
    int64_t rows = range[1] - range[0];
    if (first_bad(ex, tap->data + (int64_t)range[0] * tap->D, rows * tap->D) < 0) continue;
    snprintf(search->where, sizeof search->where, "the output of expert %d of block %d", e,
             tap->layer);
    search->expert = e;
    return true;
  }
  return false;
}

static bool look_at_values(struct search *search, struct exec *ex, const struct dit_tap_data *tap) {
  static const char *const what[] = {
      [TAP_TIME_FEATURES] = "the time embedding", [TAP_TIME] = "the time embedding",
      [TAP_CONDITION] = "the class embedding",    [TAP_EMBEDDED] = "the patch embedding",
      [TAP_ATTENTION] = "the attention",          [TAP_ROUTER] = "the router",
      [TAP_FFN] = "the feed-forward part",        [TAP_BLOCK] = "the residual stream"};
  const bool router = tap->point == TAP_ROUTER;
  const float *data = router ? tap->trace->scores : tap->data;
  const int64_t rows = router ? tap->trace->rows : (int64_t)tap->B * tap->T;
  if (!data || first_bad(ex, data, rows * tap->D) < 0) return false;
  if (tap->layer < 0)
    snprintf(search->where, sizeof search->where, "%s", what[tap->point]);
  else
    snprintf(search->where, sizeof search->where, "%s of block %d", what[tap->point], tap->layer);
  return true;
}

static void look(void *user, struct exec *ex, const struct dit_tap_data *tap) {
  struct search *search = user;
  if (search->found) return;
  search->expert = -1;
  search->found = tap->point == TAP_EXPERT_ROWS ? look_at_experts(search, ex, tap)
                                                : look_at_values(search, ex, tap);
  search->layer = tap->layer;
}

/* The tensor that was seen to hold such values when the model was loaded. */
static const char *suspect(const struct search *search) {
  const struct params *params = &search->model->params;
  for (size_t i = 0; i < params->count; i++) {
    const struct param *row = &params->row[i];
    if (row->suspect && row->layer == search->layer &&
        (search->expert < 0 || row->expert == search->expert))
      return row->name;
  }
  return NULL;
}

enum ditmoe_status diagnose_nonfinite(struct exec *ex, const struct dit *model, float *out,
                                      const struct dit_input *in, int step, int steps) {
  struct search search = {.model = model, .layer = -1, .expert = -1};
  const struct dit_tap tap = {&search, look};
  struct dit_input again = *in;
  again.tap = &tap;
  TRY(dit_predict(ex, model, out, &again));
  const char *name = suspect(&search);
  return fail(ex->ctx, DITMOE_NONFINITE, "step %d of %d: NaN or infinite values in %s%s%s%s", step,
              steps, search.found ? search.where : "the prediction", name ? "; tensor " : "",
              name ? name : "", name ? " holds such values" : "");
}
