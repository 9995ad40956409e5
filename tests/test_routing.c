/* The recorder in runs of models: sums, halves, evaluations and bins; the same tables for any batch
 * and thread count; runs that do not fit. The choices themselves are compared with the fixtures by
 * golden_check. */
#include "support.h"

#include "routing_support.h"
#include "synthetic.h"

#include <stdio.h>
#include <string.h>

enum { STEPS = 4, LATENTS = 8 * 4 * 8 * 8 };

static const int32_t classes[8] = {0, 1, 2, 3, 1000, 5, 3, 1};

static struct ditmoe_model *open_path(const char *path, const char *record, int threads) {
  const struct ditmoe_model_options options = {.record = record, .threads = threads};
  struct ditmoe_model *model = NULL;
  assert_ok(test_ctx(), ditmoe_model_open(test_ctx(), path, &options, &model));
  return model;
}

/* ProMoE: 4 layers of 12 experts, one of each token, and the unconditional one. */
static struct ditmoe_model *open_default(int threads) {
  return open_path(source_path("assets/default/model.pth"), NULL, threads);
}

/* DiT-MoE: layers with different experts, and different numbers of them for a token. */
static struct ditmoe_model *open_uneven(void) {
  synthetic_write(&synthetic_uneven, temporary_path("uneven.safetensors"));
  return open_path(temporary_path("uneven.safetensors"), NULL, 1);
}

static struct ditmoe_model *open_fixture(const char *path, const char *kind) {
  char record[160];
  snprintf(record, sizeof record,
           "{\"heads\":4,\"top_k\":1,\"capacity\":2,\"router_weight_mode\":\"identity\","
           "\"objective\":\"rf\",\"time_scale\":1000,\"kind\":\"%s\"}",
           kind);
  return open_path(fixture_path(path), record, 1);
}

static struct ditmoe_request short_request(int64_t count) {
  struct ditmoe_request request = ditmoe_request_default();
  request.labels = classes, request.count = count, request.steps = STEPS, request.seed = 3;
  return request;
}

static struct ditmoe_routing *empty(const struct ditmoe_model *model,
                                    const struct ditmoe_request *request,
                                    const struct ditmoe_routing_options *options) {
  struct ditmoe_routing *routing = NULL;
  assert_ok(test_ctx(), ditmoe_routing_create(test_ctx(), model, request, options, &routing));
  return routing;
}

static float *sample(const struct ditmoe_model *model, const struct ditmoe_request *request) {
  static float latents[LATENTS];
  struct ditmoe_session *session = NULL;
  assert_ok(test_ctx(), ditmoe_session_create(test_ctx(), model, NULL, request, &session));
  assert_ok(test_ctx(), ditmoe_sample(test_ctx(), session, request, latents, NULL));
  ditmoe_session_destroy(session);
  return latents;
}

static void sample_fails(const struct ditmoe_model *model, const struct ditmoe_request *request,
                         enum ditmoe_status status, const char *text) {
  static float latents[LATENTS];
  struct ditmoe_session *session = NULL;
  assert_ok(test_ctx(), ditmoe_session_create(test_ctx(), model, NULL, request, &session));
  assert_fails(test_ctx(), status, text,
               ditmoe_sample(test_ctx(), session, request, latents, NULL));
  ditmoe_session_destroy(session);
}

static const struct ditmoe_routing_options all = {.mass = 1, .unconditional = 1};

static struct ditmoe_routing *recorded(const struct ditmoe_model *model,
                                       struct ditmoe_request request,
                                       const struct ditmoe_routing_options *options) {
  request.routing = empty(model, &request, options);
  sample(model, &request);
  return request.routing;
}

/* Choices of a layer and bin; expert -1: all experts. */
static int64_t choices(const struct ditmoe_routing *routing, enum ditmoe_half half, int layer,
                       int bin, int expert) {
  struct ditmoe_routing_info info;
  struct ditmoe_routing_tables tables;
  ditmoe_routing_info(routing, &info);
  ditmoe_routing_tables(routing, half, &tables);
  const int cells = info.tokens * info.experts;
  const uint32_t *counts = tables.counts + (int64_t)(layer * info.bins + bin) * cells;
  int64_t sum = 0;
  for (int i = 0; i < cells; i++)
    if (expert < 0 || i % info.experts == expert) sum += counts[i];
  return sum;
}

/* tokens x k in every layer and step, for each image and forward pass. */
static void test_sums(void **state) {
  (void)state;
  enum { COUNT = 3 };
  struct ditmoe_model *model = open_uneven();
  struct ditmoe_request request = short_request(COUNT);
  static const int32_t labels[COUNT] = {0, 1, 2};
  request.labels = labels;
  struct ditmoe_routing *routing = recorded(model, request, &all);
  struct ditmoe_routing_info info;
  ditmoe_routing_info(routing, &info);
  assert_int_equal(info.images, COUNT);
  assert_int_equal(info.top_k, 0); /* not the same in all layers */
  for (int half = 0; half < DITMOE_HALVES; half++)
    for (int l = 0; l < info.layers; l++)
      for (int step = 0; step < STEPS; step++)
        assert_int_equal(choices(routing, half, l, step, -1),
                         COUNT * info.tokens * synthetic_uneven.top_k[info.layer[l]]);
  ditmoe_routing_destroy(routing);
  ditmoe_model_close(model);
}

/* What tables of the default model say about it, and its unconditional expert. */
static void test_prototypes(void **state) {
  (void)state;
  enum { COUNT = 5 };
  struct ditmoe_model *model = open_default(1);
  struct ditmoe_routing *routing = recorded(model, short_request(COUNT), &all);
  struct ditmoe_routing_info info;
  struct ditmoe_routing_tables tables;
  ditmoe_routing_info(routing, &info);
  assert_int_equal(info.layers, 4);
  assert_int_equal(info.layer[1], 3);
  assert_int_equal(info.top_k, 1);
  assert_int_equal(info.uncond_expert, 12);
  assert_int_equal(info.layer_experts[3], 13);
  assert_true(info.time[0] == 1.0 && info.time[1] < 1.0 && info.time[STEPS - 1] > 0.0);
  for (int l = 0; l < info.layers; l++)
    for (int step = 0; step < STEPS; step++) {
      assert_int_equal(choices(routing, DITMOE_CONDITIONAL, l, step, -1), COUNT * info.tokens);
      assert_int_equal(choices(routing, DITMOE_CONDITIONAL, l, step, 12), info.tokens);
      assert_int_equal(choices(routing, DITMOE_UNCONDITIONAL, l, step, 12), COUNT * info.tokens);
    }
  ditmoe_routing_tables(routing, DITMOE_UNCONDITIONAL, &tables);
  for (int c = 0; c < info.labels; c++)
    assert_int_equal(tables.label_evaluations[c], c < 4 || c == 1000 ? STEPS : 0);
  ditmoe_routing_destroy(routing);
  ditmoe_model_close(model);
}

/* Batch and threads change no cell, and recording no bit of a latent. */
static void test_invariance(void **state) {
  (void)state;
  enum { COUNT = 4 };
  static float plain[LATENTS];
  struct ditmoe_routing *first = NULL;
  for (int threads = 1; threads <= 2; threads++) {
    struct ditmoe_model *model = open_default(threads);
    for (int batch = 1; batch <= COUNT; batch *= 2) {
      struct ditmoe_request request = short_request(COUNT);
      request.batch = batch;
      memcpy(plain, sample(model, &request), sizeof plain);
      struct ditmoe_routing *routing = request.routing = empty(model, &request, &all);
      assert_memory_equal(plain, sample(model, &request), sizeof plain);
      assert_int_equal(routing->slots.count, batch);
      if (first) {
        assert_same_tables(first, routing);
        ditmoe_routing_destroy(routing);
      } else {
        first = routing;
      }
    }
    ditmoe_model_close(model);
  }
  ditmoe_routing_destroy(first);
}

/* Four parts, each image sampled on its own, make the tables of the whole. */
static void test_parts(void **state) {
  (void)state;
  enum { COUNT = 4 };
  struct ditmoe_model *model = open_uneven();
  static const int32_t labels[COUNT] = {0, 1, 2, 1};
  struct ditmoe_request request = short_request(COUNT);
  request.labels = labels;
  struct ditmoe_routing *whole = recorded(model, request, &all), *sum = NULL;
  for (int i = COUNT - 1; i >= 0; i--) {
    request.labels = labels + i, request.count = 1, request.first_index = i;
    struct ditmoe_routing *part = recorded(model, request, &all);
    if (!sum) {
      sum = part;
      continue;
    }
    assert_ok(test_ctx(), ditmoe_routing_merge(test_ctx(), sum, part));
    ditmoe_routing_destroy(part);
  }
  assert_same_tables(whole, sum);
  ditmoe_routing_destroy(whole);
  ditmoe_routing_destroy(sum);
  ditmoe_model_close(model);
}

static uint64_t evaluations(const struct ditmoe_routing *routing, enum ditmoe_half half, int bin) {
  struct ditmoe_routing_tables tables;
  ditmoe_routing_tables(routing, half, &tables);
  return tables.evaluations[bin];
}

/* How many choices of a step were compared with those of the step before, in layer 0. */
static uint64_t compared(const struct ditmoe_routing *routing, enum ditmoe_half half, int step) {
  struct ditmoe_routing_tables tables;
  ditmoe_routing_tables(routing, half, &tables);
  return tables.kept[2 * step + 1];
}

/* Guidance in one call of the model, in two, in part of the run, or none. */
static void test_halves(void **state) {
  (void)state;
  struct ditmoe_model *models[] = {open_default(1),
                                   open_fixture("promoe/diffmoe/bare.safetensors", "diffmoe")};
  for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
    struct ditmoe_request request = short_request(2);
    struct ditmoe_routing *guided = recorded(models[m], request, &all);
    request.cfg_from = 0.5;
    struct ditmoe_routing *late = recorded(models[m], request, &all);
    request.cfg_scale = 1;
    struct ditmoe_routing *plain = recorded(models[m], request, &all);
    for (int step = 0; step < STEPS; step++) {
      assert_int_equal(evaluations(guided, DITMOE_CONDITIONAL, step), 2);
      assert_int_equal(evaluations(guided, DITMOE_UNCONDITIONAL, step), 2);
      assert_int_equal(evaluations(late, DITMOE_CONDITIONAL, step), 2);
      assert_int_equal(evaluations(late, DITMOE_UNCONDITIONAL, step), step >= 2 ? 2 : 0);
      assert_int_equal(evaluations(plain, DITMOE_CONDITIONAL, step), 2);
      assert_int_equal(evaluations(plain, DITMOE_UNCONDITIONAL, step), 0);
      assert_int_equal(compared(late, DITMOE_CONDITIONAL, step) > 0, step > 0);
      assert_int_equal(compared(late, DITMOE_UNCONDITIONAL, step) > 0, step > 2);
    }
    struct ditmoe_routing *const made[] = {guided, late, plain};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) ditmoe_routing_destroy(made[i]);
    ditmoe_model_close(models[m]);
  }
}

/* One half alone is as beside the other. */
static void test_one_half(void **state) {
  (void)state;
  struct ditmoe_model *model = open_default(1);
  const struct ditmoe_request request = short_request(3);
  const struct ditmoe_routing_options one = {.mass = 1};
  struct ditmoe_routing *both = recorded(model, request, &all);
  struct ditmoe_routing *half = recorded(model, request, &one);
  assert_int_equal(half->shape.halves, 1);
  both->shape.halves = 1;
  assert_same_tables(both, half);
  both->shape.halves = DITMOE_HALVES;
  ditmoe_routing_destroy(both);
  ditmoe_routing_destroy(half);
  ditmoe_model_close(model);
}

/* Heun asks the model twice in a step; the first answer is compared with that of the step before.
 */
static void test_heun(void **state) {
  (void)state;
  struct ditmoe_model *model = open_default(1);
  struct ditmoe_request request = short_request(3);
  request.sampler = "heun";
  struct ditmoe_routing *routing = recorded(model, request, &all);
  for (int half = 0; half < DITMOE_HALVES; half++)
    for (int step = 0; step < STEPS; step++) {
      assert_int_equal(evaluations(routing, half, step), 6);
      assert_int_equal(choices(routing, half, 0, step, -1), 6 * routing->shape.tokens);
      assert_int_equal(compared(routing, half, step), step ? 3 * routing->shape.tokens : 0);
    }
  ditmoe_routing_destroy(routing);
  ditmoe_model_close(model);
}

/* The bins of steps hold the sums of their steps. */
static void test_bins(void **state) {
  (void)state;
  struct ditmoe_model *model = open_default(1);
  const struct ditmoe_request request = short_request(2);
  const struct ditmoe_routing_options few = {.bins = 3}, many = {.bins = STEPS + 1};
  struct ditmoe_routing *each = recorded(model, request, NULL), *none = NULL;
  struct ditmoe_routing *binned = recorded(model, request, &few);
  struct ditmoe_routing_info info;
  ditmoe_routing_info(binned, &info);
  assert_int_equal(info.bins, 3);
  assert_int_equal(info.bin_step[3], STEPS);
  for (int b = 0; b < 3; b++)
    for (int e = 0; e < info.experts; e++) {
      int64_t sum = 0;
      for (int step = info.bin_step[b]; step < info.bin_step[b + 1]; step++)
        sum += choices(each, DITMOE_CONDITIONAL, 1, step, e);
      assert_int_equal(choices(binned, DITMOE_CONDITIONAL, 1, b, e), sum);
    }
  assert_fails(test_ctx(), DITMOE_USAGE, "5 bins of 4 steps",
               ditmoe_routing_create(test_ctx(), model, &request, &many, &none));
  assert_fails(test_ctx(), DITMOE_MISMATCH, "bins of the steps differ",
               ditmoe_routing_merge(test_ctx(), each, binned));
  ditmoe_routing_destroy(each);
  ditmoe_routing_destroy(binned);
  ditmoe_model_close(model);
}

/* The times are in the order of the run for chains of noise levels, too. */
static void test_times(void **state) {
  (void)state;
  static const char *const samplers[] = {"ddpm", "ddim", "dpmpp-2m"};
  struct ditmoe_model *model = open_default(1);
  for (size_t i = 0; i < sizeof samplers / sizeof *samplers; i++) {
    struct ditmoe_request request = short_request(1);
    struct ditmoe_routing_info info;
    request.sampler = samplers[i], request.force = 1;
    struct ditmoe_routing *routing = empty(model, &request, NULL);
    ditmoe_routing_info(routing, &info);
    for (int step = 1; step < STEPS; step++) assert_true(info.time[step] < info.time[step - 1]);
    ditmoe_routing_destroy(routing);
  }
  ditmoe_model_close(model);
}

/* Every kind of router: all choices have a place, and images of the null class, too. */
static void test_routers(void **state) {
  (void)state;
  static const char *const paths[][2] = {{"promoe/promoe_ec/bare.safetensors", "promoe-ec"},
                                         {"promoe/ecdit_swiglu_shared/bare.safetensors", "ec-dit"},
                                         {"promoe/diffmoe/bare.safetensors", "diffmoe"}};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    struct ditmoe_model *model = open_fixture(paths[i][0], paths[i][1]);
    struct ditmoe_routing *routing = recorded(model, short_request(2), &all);
    assert_int_equal(routing->shape.top_k, 0);
    assert_true(choices(routing, DITMOE_CONDITIONAL, 0, 0, -1) > 0);
    assert_int_equal(indices_total(&routing->images), 2);
    ditmoe_routing_destroy(routing);
    ditmoe_model_close(model);
  }
}

static int32_t another_label(void *user, int64_t image) {
  *(int64_t *)user = image;
  return 7;
}

/* A trace that is counted again makes the tables of the run. */
static void test_replay(void **state) {
  (void)state;
  struct ditmoe_model *model = open_default(1);
  struct ditmoe_request request = short_request(5);
  struct ditmoe_trace *trace = NULL;
  struct ditmoe_routing *again = NULL;
  struct ditmoe_trace_record record;
  const char *path = temporary_path("run.trace");
  int end = 0;
  int64_t asked = -1;
  const struct ditmoe_routing_options options = {
      .mass = 1, .unconditional = 1, .user = &asked, .other_label = another_label};
  request.batch = 2;
  request.routing = empty(model, &request, &options);
  assert_ok(test_ctx(),
            ditmoe_routing_trace_begin(test_ctx(), request.routing, path, DITMOE_TRACE_SCORES));
  sample(model, &request);
  assert_ok(test_ctx(), ditmoe_routing_trace_commit(test_ctx(), request.routing));
  assert_ok(test_ctx(), ditmoe_trace_open(test_ctx(), path, &trace));
  assert_ok(test_ctx(), ditmoe_trace_tables(test_ctx(), trace, &again));
  for (;;) {
    assert_ok(test_ctx(), ditmoe_trace_next(test_ctx(), trace, &record, &end));
    if (end) break;
    const bool null = record.half == DITMOE_UNCONDITIONAL || record.label == 1000;
    assert_int_equal(record.scores != NULL, !null);
    for (int t = 0; record.scores && t < again->shape.tokens; t++) /* the best is chosen */
      for (int e = 0; e < record.scored; e++)
        assert_true(record.scores[t * record.scored + e] <= record.weight[record.first[t]]);
    assert_ok(test_ctx(), ditmoe_routing_count(test_ctx(), again, &record));
  }
  assert_same_tables(request.routing, again);
  assert_int_equal(asked, 4);
  struct ditmoe_routing_tables tables;
  ditmoe_routing_tables(again, DITMOE_CONDITIONAL, &tables);
  const int experts = again->shape.experts;
  uint64_t sum = 0; /* all choices of layer 0, and no other row of it */
  for (int i = 0; i < again->shape.labels * experts; i++)
    if (i / experts == 7)
      sum += tables.shuffled_labels[i];
    else
      assert_int_equal(tables.shuffled_labels[i], 0);
  assert_int_equal(sum, 5 * STEPS * again->shape.tokens);
  ditmoe_trace_close(trace);
  ditmoe_routing_destroy(again);
  ditmoe_routing_destroy(request.routing);
  ditmoe_model_close(model);
}

/* Images that have been counted, or are excluded, are sampled and left out. */
static void test_left_out(void **state) {
  (void)state;
  struct ditmoe_model *model = open_default(1);
  struct ditmoe_request request = short_request(4), part = short_request(1);
  struct ditmoe_routing *whole = recorded(model, request, &all);
  part.labels = classes + 1, part.first_index = 1;
  request.routing = recorded(model, part, &all);
  for (int64_t i = 1; i < 3; i++)
    assert_ok(test_ctx(), ditmoe_routing_exclude(test_ctx(), request.routing, i));
  assert_fails(test_ctx(), DITMOE_USAGE, "no such image",
               ditmoe_routing_exclude(test_ctx(), request.routing, -1));
  sample(model, &request);
  sample(model, &request);
  for (int64_t i = 0; i < 4; i++) assert_int_equal(ditmoe_routing_has(request.routing, i), i != 2);
  part.labels = classes + 2, part.first_index = 2;
  struct ditmoe_routing *missing = recorded(model, part, &all);
  assert_ok(test_ctx(), ditmoe_routing_merge(test_ctx(), request.routing, missing));
  assert_same_tables(whole, request.routing);
  ditmoe_routing_destroy(missing);
  ditmoe_routing_destroy(request.routing);
  ditmoe_routing_destroy(whole);
  ditmoe_model_close(model);
}

static void test_refused(void **state) {
  (void)state;
  struct ditmoe_model *model = open_default(1);
  struct ditmoe_model *other = open_fixture("promoe/promoe_tc/bare.safetensors", "promoe-tc");
  struct ditmoe_model *dense = open_fixture("promoe/dit_dense/bare.safetensors", "dit");
  struct ditmoe_request request = short_request(2);
  struct ditmoe_routing *none = NULL;
  assert_fails(test_ctx(), DITMOE_USAGE, "no experts",
               ditmoe_routing_create(test_ctx(), dense, &request, &all, &none));
  request.routing = recorded(model, request, &all);
  request.first_index = 2;
  sample_fails(other, &request, DITMOE_MISMATCH, "the tables of routing were made for another");
  request.steps = STEPS + 1;
  sample_fails(model, &request, DITMOE_MISMATCH, "steps differ");
  request.steps = STEPS, request.shift = 3;
  sample_fails(model, &request, DITMOE_MISMATCH, "times of the steps differ");
  ditmoe_routing_destroy(request.routing);
  ditmoe_model_close(model);
  ditmoe_model_close(other);
  ditmoe_model_close(dense);
}

/* What goes wrong while counting ends the run. */
static void test_count_fails(void **state) {
  (void)state;
  struct ditmoe_model *model = open_default(1);
  struct ditmoe_request request = short_request(2);
  request.routing = empty(model, &request, &all);
  uint32_t *counts = request.routing->table[DITMOE_CONDITIONAL][TABLE_COUNTS];
  memset(counts, 0xff, (size_t)table_cells(&request.routing->shape, TABLE_COUNTS) * sizeof *counts);
  sample_fails(model, &request, DITMOE_FAILED, "step 0, layer 0: the count of token 0");
  ditmoe_routing_destroy(request.routing);
  ditmoe_model_close(model);
}

struct watch {
  const struct ditmoe_routing *routing;
  uint64_t first, last;
};

static int watch_step(void *user, const struct ditmoe_observation *seen) {
  struct watch *watch = user;
  watch->last = ditmoe_allocations(&watch->routing->own) + ditmoe_allocations(test_ctx());
  if (seen->step == 1) watch->first = watch->last;
  return 0;
}

/* No allocation after the first step. */
static void test_steady_state(void **state) {
  (void)state;
  struct ditmoe_model *model = open_default(1);
  struct ditmoe_request request = short_request(2);
  request.routing = empty(model, &request, &all);
  struct watch watch = {.routing = request.routing};
  request.observe = watch_step, request.user = &watch;
  sample(model, &request);
  assert_true(watch.first > 0);
  assert_int_equal(watch.first, watch.last);
  ditmoe_routing_destroy(request.routing);
  ditmoe_model_close(model);
}

/* The n-th allocation of a run fails, for every n. */
static enum ditmoe_status whole_run(struct ditmoe_ctx *ctx, const struct ditmoe_model *model) {
  static float latents[LATENTS];
  struct ditmoe_request request = short_request(2);
  struct ditmoe_session *session = NULL;
  request.steps = 1;
  enum ditmoe_status status = ditmoe_routing_create(ctx, model, &request, &all, &request.routing);
  if (status == DITMOE_OK) status = ditmoe_session_create(ctx, model, NULL, &request, &session);
  if (status == DITMOE_OK) status = ditmoe_sample(ctx, session, &request, latents, NULL);
  ditmoe_session_destroy(session);
  ditmoe_routing_destroy(request.routing);
  return status;
}

static void test_allocation_failures(void **state) {
  (void)state;
  struct ditmoe_model *model = open_default(1);
  for (int64_t at = 0;; at++) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    const enum ditmoe_status status = whole_run(ctx, model);
    const bool fired = faulty_fired();
    assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
    if (!fired) break;
  }
  ditmoe_model_close(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sums),         cmocka_unit_test(test_prototypes),
      cmocka_unit_test(test_invariance),   cmocka_unit_test(test_parts),
      cmocka_unit_test(test_halves),       cmocka_unit_test(test_one_half),
      cmocka_unit_test(test_heun),         cmocka_unit_test(test_bins),
      cmocka_unit_test(test_times),        cmocka_unit_test(test_routers),
      cmocka_unit_test(test_replay),       cmocka_unit_test(test_left_out),
      cmocka_unit_test(test_refused),      cmocka_unit_test(test_count_fails),
      cmocka_unit_test(test_steady_state), cmocka_unit_test(test_allocation_failures),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
