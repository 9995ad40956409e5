/* The forward passes of a manifest, and its other weight files. */
#include "tests/golden/golden.h"
#include "tests/limit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* One forward pass. */
struct forward {
  float *x, *time; /* [B, C, S, S], [B] */
  int32_t *labels; /* [B]               */
  int B;
  float *out;    /* [B, Cout, S, S]   */
  int64_t count; /* of out            */
};

static void forward_free(struct golden *g, struct forward *f) {
  mem_free(g->ctx, f->x);
  mem_free(g->ctx, f->time);
  mem_free(g->ctx, f->labels);
  mem_free(g->ctx, f->out);
}

/* x may have a frame axis of 1, which changes nothing in memory. */
static enum ditmoe_status forward_read(struct golden *g, struct case_file *file, const cJSON *call,
                                       const struct dit *model, struct forward *f) {
  const struct dit_config *c = &model->config;
  const int64_t plane = (int64_t)c->size * c->size;
  int64_t x_count, times, labels;
  TRY(golden_floats(file, case_string(call, "x"), &f->x, &x_count));
  TRY(golden_floats(file, case_string(call, "t"), &f->time, &times));
  TRY(golden_labels(file, model, case_string(call, "y"), &f->labels, &labels));
  if (times < 1 || times > 1 << 16 || labels != times || x_count != times * c->channels * plane)
    return fail(g->ctx, DITMOE_FORMAT,
                "%s: %s of %lld elements, %s of %lld and %s of %lld do not fit together",
                file->name, case_string(call, "x"), (long long)x_count, case_string(call, "t"),
                (long long)times, case_string(call, "y"), (long long)labels);
  f->B = (int)times;
  f->count = times * c->out_channels * plane;
  return mem_alloc(g->ctx, (size_t)f->count, sizeof *f->out, "outputs", &f->out);
}

static enum ditmoe_status run_forward(struct golden *g, const cJSON *call, const struct dit *model,
                                      struct forward *f, const struct dit_tap *tap) {
  const struct dit_config *c = &model->config;
  const struct dit_input in = {
      .x = f->x, .time = f->time, .labels = f->labels, .B = f->B, .tap = tap};
  const char *function = case_string(call, "function");
  if (!strcmp(function, "forward")) return golden_predict(g, model, f->out, &in);
  if (strcmp(function, "forward_with_cfg") != 0)
    return fail(g->ctx, DITMOE_FORMAT, "unknown function \"%s\"", function);
  if (f->B % 2 != 0) return fail(g->ctx, DITMOE_FORMAT, "%s: %d rows are no pairs", function, f->B);
  const size_t half = (size_t)f->B / 2 * (size_t)c->channels * (size_t)c->size * (size_t)c->size;
  memcpy(f->x + half, f->x, half * sizeof *f->x);
  TRY(golden_predict(g, model, f->out, &in));
  golden_guide(c, f->out, f->B / 2, case_number(call, "scale", NAN), golden_channels(g, call));
  return DITMOE_OK;
}

/* One call with weights of the folder (golden_load); recording may be NULL. */
static enum ditmoe_status run_call(struct golden *g, const cJSON *call, const char *path,
                                   const char *key, struct recording *recording,
                                   struct forward *f) {
  struct case_file inputs = {0};
  struct dit *model = NULL;
  struct dit_tap tap;
  const char *rounding = golden_text(call, "qk_round");
  enum ditmoe_status status;
  if (rounding && strcmp(rounding, "float16") != 0)
    return fail(g->ctx, DITMOE_FORMAT, "unknown rounding of q and k \"%s\"", rounding);
  TRY_DONE(golden_load(g, path, key, rounding != NULL, &model));
  TRY_DONE(golden_open(g, case_string(call, "inputs"), &inputs));
  TRY_DONE(forward_read(g, &inputs, call, model, f));
  if (recording) tap = recording_tap(recording, model);
  if (recording && !g->precision) TRY_DONE(recording_count(recording, model, f->B, f->labels));
  TRY_DONE(run_forward(g, call, model, f, recording ? &tap : NULL));
  if (recording) status = recording->status;
done:
  case_close(&inputs);
  dit_close(g->ex, model);
  return status;
}

static double output_limit(const cJSON *call) {
  if (golden_field(call, "qk_round")) return LIMIT_QK_HALF;
  return case_number(call, "scale", 0) >= 7 ? LIMIT_GUIDED : LIMIT_FORWARD;
}

/* Some originals give less than the network computes: the first channels of each image. */
static void keep_channels(const struct golden *g, struct forward *f) {
  const int all = (int)case_number(g->manifest, "model_channels", 0);
  const int kept = (int)case_number(g->manifest, "out_channels", 0);
  if (kept >= all || f->count % (f->B * all) != 0) return;
  const int64_t plane = f->count / f->B / all;
  for (int b = 1; b < f->B; b++)
    memmove(f->out + b * kept * plane, f->out + b * all * plane,
            (size_t)(kept * plane) * sizeof *f->out);
  f->count = f->B * kept * plane;
}

static enum ditmoe_status check_outputs(struct golden *g, const cJSON *call, struct forward *f,
                                        const struct recording *recording) {
  struct case_file file = {0};
  enum ditmoe_status status;
  TRY(golden_open(g, case_string(call, "outputs"), &file));
  keep_channels(g, f);
  TRY_DONE(compare_l2(&file, case_string(call, "output"), f->out, f->count, output_limit(call)));
  if (cJSON_IsTrue(golden_field(call, "intermediates")))
    status = check_intermediates(g, &file, recording, f->labels);
done:
  case_close(&file);
  return status;
}

static enum ditmoe_status check_call(struct golden *g, const cJSON *call) {
  struct forward f = {0};
  struct recording recording = {.ctx = g->ctx};
  const char *path = golden_text(call, "weights"), *key = golden_text(call, "weights_key");
  enum ditmoe_status status = run_call(g, call, path, key, &recording, &f);
  if (status == DITMOE_OK && g->precision)
    precision_report(g, case_string(call, "outputs"), case_string(call, "output"));
  else if (status == DITMOE_OK)
    status = check_outputs(g, call, &f, &recording);
  recording_free(&recording);
  forward_free(g, &f);
  return status;
}

/* The first plain call of the manifest's own weights. */
static const cJSON *plain_call(const struct golden *g) {
  const cJSON *call;
  cJSON_ArrayForEach(call, golden_field(g->manifest, "calls")) {
    if (!golden_text(call, "weights") && !golden_field(call, "qk_round")) return call;
  }
  return NULL;
}

static double differing(const float *a, const float *b, int64_t count) {
  double n = 0;
  for (int64_t i = 0; i < count; i++) n += !(a[i] == b[i]);
  return n;
}

/* Files that hold the same weights give the same bits. */
static enum ditmoe_status check_equal_weights(struct golden *g, const cJSON *call) {
  const cJSON *other;
  struct forward own = {0};
  enum ditmoe_status status;
  TRY_DONE(run_call(g, call, NULL, NULL, NULL, &own));
  cJSON_ArrayForEach(other, golden_field(g->manifest, "weights_also")) {
    struct forward f = {0};
    char line[128];
    const char *path = case_string(other, "path"), *key = golden_text(other, "key");
    if (!cJSON_IsTrue(golden_field(other, "equal"))) continue;
    snprintf(line, sizeof line, "%s%s%s:same bits", path, key ? ":" : "", key ? key : "");
    status = run_call(g, call, path, key, NULL, &f);
    if (status == DITMOE_OK)
      report_add(g->report, line, differing(f.out, own.out, own.count), LIMIT_EXACT);
    forward_free(g, &f);
    TRY_DONE(status);
  }
done:
  forward_free(g, &own);
  return status;
}

/* Latents with a frame axis beside those without. */
static enum ditmoe_status check_frames(struct golden *g, const cJSON *call) {
  struct case_file file;
  char name[64];
  double *x = NULL;
  int64_t count;
  enum ditmoe_status status = DITMOE_OK;
  TRY(golden_open(g, case_string(call, "inputs"), &file));
  snprintf(name, sizeof name, "%s5", case_string(call, "x"));
  if (!checkpoint_find(file.checkpoint, name)) goto done;
  TRY_DONE(case_values(&file, case_string(call, "x"), &x, &count));
  status = case_equal(&file, name, x, count);
done:
  mem_free(g->ctx, x);
  case_close(&file);
  return status;
}

enum ditmoe_status check_calls(struct golden *g) {
  const cJSON *call;
  cJSON_ArrayForEach(call, golden_field(g->manifest, "calls")) TRY(check_call(g, call));
  const cJSON *plain = plain_call(g);
  if (!plain || g->precision) return DITMOE_OK;
  TRY(check_frames(g, plain));
  return check_equal_weights(g, plain);
}
