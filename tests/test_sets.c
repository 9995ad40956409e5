/* Sets of images and their comparison, without a network: statistics of files, faults. */
#include "tests/support.h"

#include "ditmoe_eval.h"

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#define REFERENCE "metrics/adm_ref_batch.npz"

static struct ditmoe_set *open_set(struct ditmoe_ctx *ctx, const char *path,
                                   const struct ditmoe_set_options *options) {
  struct ditmoe_set *set = NULL;
  assert_ok(ctx, ditmoe_set_open(ctx, path, NULL, options, &set));
  return set;
}

static void what_a_set_says(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_set_info info;
  struct ditmoe_set *set = open_set(ctx, fixture_path(REFERENCE), NULL);
  ditmoe_set_info(set, &info);
  assert_string_equal(info.kind, "npz");
  assert_string_equal(info.statistics, "file");
  assert_true(info.images == 6 && info.width == 12 && info.height == 12 && info.sizes == 0);
  ditmoe_set_close(set);
  set = open_set(ctx, fixture_path("metrics/adm_sample_batch.npz"), NULL);
  ditmoe_set_info(set, &info);
  assert_null(info.statistics);
  assert_true(info.images == 5);
  ditmoe_set_close(set);
  set = open_set(ctx, fixture_path("metrics/stats_A_pytorch_fid.npz"), NULL);
  ditmoe_set_info(set, &info);
  assert_string_equal(info.kind, "statistics");
  assert_true(info.images == -1);
  ditmoe_set_close(set);
}

static void what_a_set_lacks(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_scores scores;
  struct ditmoe_set *stats = open_set(ctx, fixture_path("metrics/stats_A_pytorch_fid.npz"), NULL);
  struct ditmoe_set *images = open_set(ctx, fixture_path("metrics/adm_sample_batch.npz"), NULL);
  assert_fails(ctx, DITMOE_USAGE, "the Frechet distance needs",
               ditmoe_compare(ctx, stats, images, DITMOE_FRECHET, &scores));
  assert_fails(ctx, DITMOE_USAGE, "the spatial Frechet distance needs",
               ditmoe_compare(ctx, stats, stats, DITMOE_SPATIAL, &scores));
  assert_fails(ctx, DITMOE_USAGE, "precision and recall needs",
               ditmoe_compare(ctx, stats, images, DITMOE_PRECISION, &scores));
  assert_fails(ctx, DITMOE_USAGE, "the kernel distance needs",
               ditmoe_compare(ctx, stats, images, DITMOE_KERNEL, &scores));
  assert_fails(ctx, DITMOE_USAGE, "the Inception Score needs",
               ditmoe_compare(ctx, stats, images, DITMOE_INCEPTION, &scores));
  assert_fails(ctx, DITMOE_USAGE, "no statistics",
               ditmoe_set_save(ctx, images, temporary_path("x.npz"), 0));
  assert_fails(ctx, DITMOE_USAGE, "no images",
               ditmoe_set_save(ctx, stats, temporary_path("x.npz"), 1));
  assert_fails(ctx, DITMOE_USAGE, "no features",
               ditmoe_set_save_features(ctx, stats, temporary_path("x.npy")));
  ditmoe_set_close(stats);
  ditmoe_set_close(images);
}

/* Statistics of all images say nothing about the first few, which need a network. */
static void parts_are_computed_anew(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_set *set = NULL;
  struct ditmoe_set_options options = {.measures = DITMOE_FRECHET, .count = 6};
  ditmoe_set_close(open_set(ctx, fixture_path(REFERENCE), &options));
  options.count = 5;
  assert_fails(ctx, DITMOE_USAGE, "a feature network is needed",
               ditmoe_set_open(ctx, fixture_path(REFERENCE), NULL, &options, &set));
  options = (struct ditmoe_set_options){.measures = DITMOE_FRECHET, .recompute = 1};
  assert_fails(ctx, DITMOE_USAGE, "a feature network is needed",
               ditmoe_set_open(ctx, fixture_path(REFERENCE), NULL, &options, &set));
  assert_fails(
      ctx, DITMOE_USAGE, "statistics alone",
      ditmoe_set_open(ctx, fixture_path("metrics/stats_A_pytorch_fid.npz"), NULL, &options, &set));
}

static int stop_at_four(void *user, int64_t done, int64_t count) {
  assert_true(count == 6);
  *(int64_t *)user = done;
  return done >= 4;
}

static void an_observer_can_stop(void **state) {
  (void)state;
  int64_t done = 0;
  struct ditmoe_set *set = NULL;
  const struct ditmoe_set_options options = {.batch = 2, .user = &done, .observe = stop_at_four};
  assert_fails(test_ctx(), DITMOE_CANCELLED, "4 of 6",
               ditmoe_set_open(test_ctx(), fixture_path(REFERENCE), NULL, &options, &set));
  assert_true(done == 4);
}

/* Open, compare, save; whatever fails. */
static enum ditmoe_status whole_way(struct ditmoe_ctx *ctx, const char *out) {
  struct ditmoe_set *set = NULL;
  struct ditmoe_scores scores;
  enum ditmoe_status status = ditmoe_set_open(ctx, fixture_path(REFERENCE), NULL, NULL, &set);
  if (status == DITMOE_OK)
    status = ditmoe_compare(ctx, set, set, DITMOE_FRECHET | DITMOE_SPATIAL, &scores);
  if (status == DITMOE_OK) status = ditmoe_set_save(ctx, set, out, 1);
  ditmoe_set_close(set);
  return status;
}

static void memory_may_fail(void **state) {
  (void)state;
  char out[512];
  snprintf(out, sizeof out, "%s", temporary_path("saved.npz"));
  int64_t at = 0;
  for (bool fired = true; fired; at++) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    enum ditmoe_status status = whole_way(ctx, out);
    fired = faulty_fired();
    assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
    assert_int_equal(access(out, F_OK) == 0, !fired);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
  }
  assert_true(at > 20);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_a_set_says),         cmocka_unit_test(what_a_set_lacks),
      cmocka_unit_test(parts_are_computed_anew), cmocka_unit_test(an_observer_can_stop),
      cmocka_unit_test(memory_may_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
