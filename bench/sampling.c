/* Sampling runs through the interface of the library, with random models behind its handles. */
#include "api/handles.h"
#include "base/system.h"
#include "bench/bench.h"
#include "bench/count.h"
#include "bench/decoder.h"
#include "bench/profile.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

enum { DENOISE, DECODE, PARTS };

struct sampling { /* of one variant */
  struct bench *bench;
  struct ditmoe_model *model;
  struct ditmoe_decoder *decoder;
  struct ditmoe_session *session;
  struct ditmoe_request request;
  uint8_t *pixels;
  double decode_flop, denoised; /* when the last step ended */
  double *parts[PARTS];         /* [warm_up + reps] seconds */
  int calls;
};

static int observe(void *user, const struct ditmoe_observation *observation) {
  struct sampling *s = user;
  if (observation->step == observation->steps) s->denoised = system_seconds();
  return 0;
}

static enum ditmoe_status call(void *user) {
  struct sampling *s = user;
  double start = system_seconds();
  TRY(report_call(s->bench->ctx,
                  ditmoe_sample(s->bench->ctx, s->session, &s->request, NULL, s->pixels)));
  if (s->calls < s->bench->settings.warm_up + s->bench->settings.reps) {
    s->parts[DENOISE][s->calls] = s->denoised - start;
    s->parts[DECODE][s->calls] = system_seconds() - s->denoised;
  }
  s->calls++;
  return DITMOE_OK;
}

/* What ditmoe_model_open and ditmoe_decoder_open make, without files. */

static enum ditmoe_status open_model(struct sampling *s, const struct variant *variant,
                                     const struct model_shape *shape) {
  struct bench *bench = s->bench;
  TRY(report_call(bench->ctx, mem_zalloc(bench->ctx, 1, sizeof *s->model, "model", &s->model)));
  s->model->own.hooks = bench->ctx->hooks;
  TRY(variant_open(bench, variant, &s->model->ex));
  struct blueprint blueprint;
  model_shape_draw(shape, &blueprint);
  double bytes = (double)blueprint_elements(&blueprint) * (double)dtype_size(s->model->ex.compute);
  blueprint_free(&blueprint);
  TRY(bench_fits("the weights", bytes));
  return bench_open_model(bench, &s->model->ex, shape, &s->model->dit);
}

static enum ditmoe_status open_decoder(struct sampling *s, const struct variant *variant,
                                       const char *kind) {
  struct bench *bench = s->bench;
  TRY(report_call(bench->ctx,
                  mem_zalloc(bench->ctx, 1, sizeof *s->decoder, "decoder", &s->decoder)));
  s->decoder->own.hooks = bench->ctx->hooks;
  TRY(variant_open(bench, variant, &s->decoder->ex));
  return decoder_open(bench, &s->decoder->ex, kind, &s->decoder->vae);
}

static void make_request(struct sampling *s, int32_t *labels) {
  const struct bench_settings *settings = &s->bench->settings;
  s->request = ditmoe_request_default();
  s->request.labels = labels;
  s->request.count = settings->batch;
  s->request.batch = (int)settings->batch;
  s->request.seed = settings->seed;
  s->request.steps = (int)settings->steps;
  s->request.cfg_scale = settings->guided ? 4 : 1;
  s->request.user = s;
  s->request.observe = observe;
}

/* Operations of decoding all images: those of one, counted. */
static enum ditmoe_status count_decoder(struct sampling *s) {
  struct ditmoe_session *session = s->session;
  struct counter counter;
  counter_begin(&counter, &session->ex);
  session->ex.compute = s->decoder->ex.compute;
  enum ditmoe_status status =
      report_call(s->bench->ctx, vae_decode(&session->ex, s->decoder->vae, session->image,
                                            session->x, session->height, session->width, 0));
  session->ex.compute = s->model->ex.compute;
  counter_end(&counter, &session->ex);
  s->decode_flop = counter.flop;
  return status;
}

static enum ditmoe_status prepare(struct sampling *s, const struct variant *variant,
                                  const struct model_shape *shape, const char *kind,
                                  int32_t *labels) {
  const struct bench_settings *settings = &s->bench->settings;
  const size_t side = (size_t)settings->image_size;
  TRY(open_model(s, variant, shape));
  TRY(open_decoder(s, variant, kind));
  make_request(s, labels);
  TRY(report_call(s->bench->ctx, ditmoe_session_create(s->bench->ctx, s->model, s->decoder,
                                                       &s->request, &s->session)));
  s->pixels = memory_get((size_t)settings->batch, 3 * side * side);
  for (int i = 0; i < PARTS; i++)
    s->parts[i] = memory_get((size_t)(settings->warm_up + settings->reps), sizeof *s->parts[i]);
  memset(s->session->x, 0, (size_t)shape->latent * (size_t)shape->latent * sizeof *s->session->x);
  return count_decoder(s);
}

static void finish(struct sampling *s) {
  for (int i = 0; i < PARTS; i++) free(s->parts[i]);
  free(s->pixels);
  ditmoe_session_destroy(s->session);
  ditmoe_decoder_close(s->decoder);
  ditmoe_model_close(s->model);
}

/* Three rows, in the time of one image. */
static enum ditmoe_status add_rows(struct bench *bench, const struct sampling *s,
                                   const struct model_shape *shape, struct row *row,
                                   const double *whole) {
  const struct bench_settings *settings = &bench->settings;
  const int reps = (int)settings->reps, images = (int)settings->batch;
  const double calls = (double)settings->steps * (settings->guided ? 2 : 1);
  const double flop[PARTS] = {calls * model_shape_flop(shape, 1), s->decode_flop};
  const double *seconds[] = {whole, s->parts[DENOISE] + settings->warm_up,
                             s->parts[DECODE] + settings->warm_up};
  const double flops[] = {flop[DENOISE] + flop[DECODE], flop[DENOISE], flop[DECODE]};
  static const char *const names[] = {"sample", "sample: denoise", "sample: decode"};
  double *one = memory_get((size_t)reps, sizeof *one);
  enum ditmoe_status status = peak_of(bench, row->ex, &row->peak);
  for (int i = 0; i < 3 && status == DITMOE_OK; i++) {
    for (int rep = 0; rep < reps; rep++) one[rep] = seconds[i][rep] / images;
    row->what = names[i];
    row->time = spread_of(one, reps);
    row->flop = flops[i];
    rows_add(&bench->rows, row);
  }
  free(one);
  return status;
}

static enum ditmoe_status time_runs(struct bench *bench, struct sampling *runs, struct timed *timed,
                                    const struct model_shape *shape, struct row *row) {
  const struct repeats repeats = bench_repeats(bench);
  const int count = bench->variant_count;
  for (int i = 0; i < count; i++) timed[i] = (struct timed){.user = &runs[i], .call = call};
  TRY(measure(timed, count, &repeats));
  for (int i = 0; i < count; i++) {
    row->ex = &runs[i].model->ex;
    TRY(add_rows(bench, &runs[i], shape, row, timed[i].seconds));
  }
  for (int i = 0; i < count && bench->settings.profile; i++) {
    row->what = "sample";
    row->ex = &runs[i].session->ex;
    TRY(profile_run(bench, &runs[i].session->ex, &timed[i], row));
  }
  return DITMOE_OK;
}

static enum ditmoe_status run_all(struct bench *bench, struct sampling *runs,
                                  const struct model_shape *shape, const char *kind) {
  const struct bench_settings *s = &bench->settings;
  struct timed timed[MAX_VARIANTS] = {{0}};
  int32_t *labels = memory_get((size_t)s->batch, sizeof *labels);
  enum ditmoe_status status = DITMOE_OK;
  for (int i = 0; i < s->batch; i++) labels[i] = ditmoe_random_label(s->seed, i, 1000);
  for (int i = 0; i < bench->variant_count && status == DITMOE_OK; i++)
    status = prepare(&runs[i], &bench->variants[i], shape, kind, labels);
  char *name = text_format("%s %d px, %d steps%s, %s", shape->name, (int)s->image_size,
                           (int)s->steps, s->guided ? " guided" : "", kind);
  struct row row = {.shape = name, .batch = (int)s->batch, .reps = (int)s->reps};
  if (status == DITMOE_OK) status = time_runs(bench, runs, timed, shape, &row);
  for (int i = 0; i < bench->variant_count; i++) free(timed[i].seconds);
  free(name);
  free(labels);
  return status;
}

enum ditmoe_status bench_sample(struct bench *bench) {
  const char *kind, *size = bench->settings.sample;
  const struct model_choice choice = bench_choice(bench);
  struct model_shape shape;
  TRY(decoder_kind(bench, &kind));
  TRY(model_shape_parse(*size ? size : "S/2", &choice, &shape));
  struct sampling *runs = memory_get((size_t)bench->variant_count, sizeof *runs);
  for (int i = 0; i < bench->variant_count; i++) runs[i].bench = bench;
  enum ditmoe_status status = run_all(bench, runs, &shape, kind);
  for (int i = 0; i < bench->variant_count; i++) finish(&runs[i]);
  free(runs);
  return status;
}
