/* Our bf16 against our f32, on the inputs that the calls and runs of a manifest give. */
#include "tests/golden/golden.h"
#include "tests/limit.h"

#include <math.h>
#include <stdio.h>

/* The assignments of one layer. */
struct assignments {
  int layer, experts, tokens;
  int64_t capacity;
  int32_t *expert, *source; /* [capacity] */
  float *gate;              /* [capacity] */
};

/* Those of a forward pass. */
struct plans {
  struct ditmoe_ctx *ctx;
  enum ditmoe_status status; /* of the taps */
  struct assignments *items;
  size_t count;
};

struct precision {
  struct exec ex;   /* of the twin */
  struct dit *twin; /* of the model that was loaded last */
  /* Of the forward passes since the last report. */
  int passes;
  double injected;            /* with the model's plans: decibels of the worst            */
  double noise;               /* with its own: mean of noise over signal, as powers       */
  int64_t assigned, differed; /* assignments of the model; those that only one of both has */
};

static void forget(struct precision *p) {
  p->passes = 0;
  p->injected = INFINITY;
  p->noise = 0;
  p->assigned = p->differed = 0;
}

enum ditmoe_status precision_open(const struct exec *ex, struct precision **out) {
  struct precision *p;
  TRY(mem_zalloc(ex->ctx, 1, sizeof *p, "twins", out));
  p = *out;
  forget(p);
  TRY(backend_open(&p->ex, ex->ctx, ex->device->ops->name, ex->device->tier, ex->device->threads));
  return backend_compute(&p->ex, "bf16");
}

void precision_close(struct precision *p) {
  if (!p) return;
  struct ditmoe_ctx *ctx = p->ex.ctx;
  dit_close(&p->ex, p->twin);
  exec_close(&p->ex);
  mem_free(ctx, p);
}

struct exec *precision_backend(struct precision *p) {
  return &p->ex;
}

enum ditmoe_status precision_load(struct golden *g, const struct ditmoe_checkpoint *checkpoint,
                                  const char *record) {
  struct precision *p = g->precision;
  dit_close(&p->ex, p->twin);
  p->twin = NULL;
  return dit_open(&p->ex, checkpoint, record, &p->twin);
}

/* Plans. */

static enum ditmoe_status keep(struct plans *plans, struct exec *ex, int layer,
                               const struct dispatch *d) {
  const size_t n = (size_t)d->capacity;
  TRY(mem_room(plans->ctx, plans->count, sizeof *plans->items, "plans", &plans->items));
  struct assignments *a = &plans->items[plans->count++];
  *a = (struct assignments){layer, d->experts, d->tokens, d->capacity, NULL, NULL, NULL};
  TRY(mem_alloc(plans->ctx, n, sizeof *a->expert, "plans", &a->expert));
  TRY(mem_alloc(plans->ctx, n, sizeof *a->source, "plans", &a->source));
  TRY(mem_alloc(plans->ctx, n, sizeof *a->gate, "plans", &a->gate));
  be_download(ex, a->expert, d->expert, n * sizeof *a->expert);
  be_download(ex, a->source, d->source, n * sizeof *a->source);
  be_download(ex, a->gate, d->gate, n * sizeof *a->gate);
  return DITMOE_OK;
}

static void keep_plan(void *user, struct exec *ex, const struct dit_tap_data *data) {
  struct plans *plans = user;
  if (data->point == TAP_ROUTER && plans->status == DITMOE_OK)
    plans->status = keep(plans, ex, data->layer, data->dispatch);
}

static void plans_free(struct plans *plans) {
  for (size_t i = 0; i < plans->count; i++) {
    mem_free(plans->ctx, plans->items[i].expert);
    mem_free(plans->ctx, plans->items[i].source);
    mem_free(plans->ctx, plans->items[i].gate);
  }
  mem_free(plans->ctx, plans->items);
}

/* The plan of a layer, if it is one of this size. */
static const struct assignments *plan_of(const struct plans *plans, int layer, int experts,
                                         int tokens, int64_t capacity) {
  for (size_t i = 0; i < plans->count; i++) {
    const struct assignments *a = &plans->items[i];
    if (a->layer == layer)
      return a->experts == experts && a->tokens == tokens && a->capacity == capacity ? a : NULL;
  }
  return NULL;
}

static void inject_plan(void *user, struct exec *ex, int layer, struct dispatch *d) {
  struct plans *plans = user;
  if (!be_active(ex)) return;
  const struct assignments *a = plan_of(plans, layer, d->experts, d->tokens, d->capacity);
  if (!a) {
    exec_fail(ex, fail(ex->ctx, DITMOE_FAILED, "block %d: no plan of this size", layer));
    return;
  }
  const size_t n = (size_t)a->capacity;
  be_upload(ex, d->expert, a->expert, n * sizeof *a->expert);
  be_upload(ex, d->source, a->source, n * sizeof *a->source);
  be_upload(ex, d->gate, a->gate, n * sizeof *a->gate);
}

/* Changes what stands for each pair of token and expert [tokens, E] that is assigned; how many are.
 */
static int64_t toggle(bool *pairs, const struct assignments *a) {
  int64_t n = 0;
  for (int64_t i = 0; i < a->capacity; i++) {
    if (a->expert[i] < 0) continue;
    pairs[(int64_t)a->source[i] * a->experts + a->expert[i]] ^= true;
    n++;
  }
  return n;
}

/* Counts the assignments of one layer that only one of both has. */
static enum ditmoe_status count_different(struct precision *p, const struct assignments *own,
                                          const struct assignments *other) {
  const size_t n = (size_t)own->tokens * (size_t)own->experts;
  bool *pairs;
  if (!other) return fail(p->ex.ctx, DITMOE_FAILED, "block %d: no plan of this size", own->layer);
  TRY(mem_zalloc(p->ex.ctx, n, sizeof *pairs, "choices", &pairs));
  toggle(pairs, own);
  p->assigned += toggle(pairs, other);
  for (size_t i = 0; i < n; i++) p->differed += pairs[i];
  mem_free(p->ex.ctx, pairs);
  return DITMOE_OK;
}

static enum ditmoe_status compare_plans(struct precision *p, const struct plans *own,
                                        const struct plans *other) {
  for (size_t i = 0; i < own->count; i++) {
    const struct assignments *a = &own->items[i];
    TRY(count_different(p, a, plan_of(other, a->layer, a->experts, a->tokens, a->capacity)));
  }
  return DITMOE_OK;
}

/* Outputs. */

double decibels(const float *values, const float *reference, int64_t count) {
  double least = INFINITY, largest = -INFINITY, sum = 0;
  for (int64_t i = 0; i < count; i++) {
    double difference = (double)values[i] - (double)reference[i];
    sum += difference * difference;
    least = fmin(least, (double)reference[i]);
    largest = fmax(largest, (double)reference[i]);
  }
  if (!(sum > 0) || !isfinite(sum)) return -INFINITY;
  return 20 * log10((largest - least) / sqrt(sum / (double)count));
}

static enum ditmoe_status twin_predict(struct precision *p, const struct dit_input *in,
                                       const struct plans *plans, const float *reference,
                                       float *out, int64_t count) {
  struct plans own = {.ctx = p->ex.ctx};
  struct dit_input given = *in;
  const struct dit_replay replay = {(void *)(uintptr_t)plans, inject_plan};
  const struct dit_tap tap = {&own, keep_plan};
  enum ditmoe_status status;
  given.replay = &replay;
  TRY_DONE(golden_predict_with(&p->ex, p->twin, out, &given));
  p->injected = fmin(p->injected, decibels(out, reference, count));
  given.replay = NULL;
  given.tap = &tap;
  TRY_DONE(golden_predict_with(&p->ex, p->twin, out, &given));
  TRY_DONE(own.status);
  p->noise += pow(10, -decibels(out, reference, count) / 10);
  p->passes++;
  status = compare_plans(p, &own, plans);
done:
  plans_free(&own);
  return status;
}

enum ditmoe_status precision_predict(struct golden *g, const struct dit *model, float *out,
                                     const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const int64_t count = (int64_t)in->B * c->out_channels * c->size * c->size;
  struct plans plans = {.ctx = g->ctx};
  const struct dit_tap tap = {&plans, keep_plan};
  struct dit_input given = *in;
  float *other = NULL;
  enum ditmoe_status status;
  given.tap = &tap;
  TRY_DONE(golden_predict_with(g->ex, model, out, &given));
  TRY_DONE(plans.status);
  TRY_DONE(mem_alloc(g->ctx, (size_t)count, sizeof *other, "outputs", &other));
  given.tap = NULL;
  status = twin_predict(g->precision, &given, &plans, out, other, count);
done:
  mem_free(g->ctx, other);
  plans_free(&plans);
  return status;
}

void precision_report(struct golden *g, const char *file, const char *tensor) {
  struct precision *p = g->precision;
  const double own = -10 * log10(p->noise / p->passes);
  char line[256];
  snprintf(line, sizeof line, "%s:%s, plans of f32", file, tensor);
  report_decibels(g->report, line, p->passes > 0 ? p->injected : -INFINITY,
                  LIMIT_FORWARD_BF16_INJECTED);
  snprintf(line, sizeof line, "%s:%s, %lld of %lld choices", file, tensor, (long long)p->differed,
           (long long)p->assigned);
  const bool renormalised =
      cJSON_IsTrue(golden_field(golden_field(g->manifest, "moe"), "renormalise"));
  report_decibels(g->report, line, p->passes > 0 ? own : -INFINITY,
                  renormalised ? LIMIT_FORWARD_BF16_RENORMALISED : LIMIT_FORWARD_BF16);
  snprintf(line, sizeof line, "%s:%s, share of choices", file, tensor);
  if (renormalised)
    report_add(g->report, line, (double)p->differed / (double)p->assigned, LIMIT_CHOICES_BF16);
  forget(p);
}

enum ditmoe_status precision_decode(struct golden *g, const char *path,
                                    const struct latents *latents, const char *file,
                                    const char *tensor) {
  float *images = NULL, *other = NULL;
  int64_t count, other_count;
  char line[256];
  enum ditmoe_status status;
  TRY_DONE(golden_decode(g, g->ex, path, latents, &images, &count));
  TRY_DONE(golden_decode(g, &g->precision->ex, path, latents, &other, &other_count));
  snprintf(line, sizeof line, "%s:%s", file, tensor);
  report_decibels(g->report, line, decibels(other, images, count), LIMIT_DECODED_BF16);
done:
  mem_free(g->ctx, images);
  mem_free(g->ctx, other);
  return status;
}
