/* ditmoe-sample --routing-dump and --routing-trace: the same bytes whatever happens to the run. */
#include "tests/programs.h"

#include "ditmoe_routing.h"

#include <stdio.h>
#include <string.h>

/* A model of random weights that makes 16 x 16 pixels, some milliseconds each. */
#define MODEL   "@fixtures/dit_moe/b_mixed/bare.safetensors "
#define OPTIONS "--progress none --vae none --heads 6 --top-k 1 --objective ddpm "
#define SAMPLE  "@sample " OPTIONS "-m "
#define REST    "--steps 10 -n 32 "
#define RUN     SAMPLE MODEL REST
#define ROUTING "--routing-dump r.npz --routing-trace r.trace --routing-mass --routing-uncond "
#define FOLDER  ROUTING "-o d/ "
#define NPZ     ROUTING "--routing-scores -o x.npz "

enum { IMAGES = 32, STEPS = 10 };

/* What an undisturbed run makes, with and without routing. */
static int make_full(void **state) {
  (void)state;
  assert_exit(run(RUN "-b 5 -t 1 " FOLDER), 0, "");
  assert_shell(
      "mv d full && mv r.npz full.r.npz && mv r.trace full.trace && test ! -e r.npz.parts");
  assert_exit(run(RUN "-b 7 -t 2 " NPZ), 0, "");
  assert_shell("cmp r.npz full.r.npz && mv r.trace scores.trace && rm r.npz x.json");
  assert_exit(run("mv x.npz full.npz; " RUN "-b 32 -o plain.npz"), 0, "");
  assert_shell("cmp plain.npz full.npz");
  return 0;
}

static int clean(void **state) {
  (void)state;
  return run("rm -rf d x.* r.*").code;
}

static void assert_folder(void) {
  assert_shell("for i in full/*.png; do cmp $i d/${i#full/} || exit 1; done; "
               "cmp full.r.npz r.npz && cmp full.trace r.trace && ! ls -d r.*.parts .ditmoe* "
               "2>/dev/null && grep -q '\"routing_dump\"' d/run.json");
}

static void assert_npz(void) {
  assert_shell("cmp full.npz x.npz && cmp full.r.npz r.npz && cmp scores.trace r.trace && "
               "! ls -d r.*.parts .ditmoe* 2>/dev/null");
}

/* What was counted. */

static struct ditmoe_routing *read_dump(const char *name) {
  struct ditmoe_routing *routing = NULL;
  assert_ok(test_ctx(), ditmoe_routing_read(test_ctx(), temporary_path(name), &routing));
  return routing;
}

static void sums_are_complete(void **state) {
  (void)state;
  struct ditmoe_routing *routing = read_dump("full.r.npz");
  struct ditmoe_routing_info info;
  ditmoe_routing_info(routing, &info);
  assert_int_equal(info.images, IMAGES);
  assert_int_equal(info.bins, STEPS);
  assert_int_equal(info.halves, DITMOE_HALVES);
  assert_true(info.mass && strstr(info.meta, "model"));
  for (int half = 0; half < info.halves; half++) {
    struct ditmoe_routing_tables tables;
    uint64_t sum = 0, classes = 0;
    ditmoe_routing_tables(routing, half, &tables);
    for (int i = 0; i < info.layers * info.bins * info.tokens * info.experts; i++)
      sum += tables.counts[i];
    for (int i = 0; i < info.layers * info.labels * info.experts; i++)
      classes += tables.class_counts[i];
    assert_int_equal(sum, (uint64_t)info.tokens * info.top_k * info.layers * STEPS * IMAGES);
    assert_int_equal(classes, sum);
  }
  ditmoe_routing_destroy(routing);
}

static void assert_same_counts(const struct ditmoe_routing *a, const struct ditmoe_routing *b) {
  struct ditmoe_routing_info info;
  ditmoe_routing_info(a, &info);
  const size_t classes = (size_t)info.layers * info.labels * info.experts;
  const size_t cells = (size_t)info.layers * info.bins * info.tokens * info.experts;
  for (int half = 0; half < info.halves; half++) {
    struct ditmoe_routing_tables left, right;
    ditmoe_routing_tables(a, half, &left);
    ditmoe_routing_tables(b, half, &right);
    assert_memory_equal(left.counts, right.counts, cells * sizeof *left.counts);
    assert_memory_equal(left.class_counts, right.class_counts, classes * sizeof(uint64_t));
    assert_memory_equal(left.shuffled_labels, right.shuffled_labels, classes * sizeof(uint64_t));
    assert_memory_equal(left.kept, right.kept,
                        (size_t)info.layers * info.steps * 2 * sizeof *left.kept);
    assert_memory_equal(left.pairs, right.pairs,
                        (size_t)info.layers * info.experts * info.experts * sizeof *left.pairs);
  }
}

static void traces_replay(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_routing *live = read_dump("full.r.npz"), *replayed = NULL;
  struct ditmoe_trace *trace = NULL;
  struct ditmoe_trace_record record;
  int end = 0;
  assert_ok(ctx, ditmoe_trace_open(ctx, temporary_path("scores.trace"), &trace));
  assert_ok(ctx, ditmoe_trace_tables(ctx, trace, &replayed));
  for (;;) {
    assert_ok(ctx, ditmoe_trace_next(ctx, trace, &record, &end));
    if (end) break;
    assert_non_null(record.scores);
    assert_ok(ctx, ditmoe_routing_count(ctx, replayed, &record));
  }
  assert_same_counts(live, replayed);
  ditmoe_trace_close(trace);
  ditmoe_routing_destroy(live);
  ditmoe_routing_destroy(replayed);
}

/* Killing. */

static void killed_runs_go_on(void **state) {
  for (int ranks = 1; ranks <= 2; ranks++) {
    clean(state);
    kill_and_resume(ranks, RUN, FOLDER);
    assert_folder();
    clean(state);
    kill_and_resume(ranks, RUN, NPZ);
    assert_npz();
  }
}

static void ranks_may_change(void **state) {
  (void)state;
  static const int ranks[] = {3, 1, 2};
  for (int i = 0; i < 3; i++)
    run_ranks(ranks[i], "sleep 0.25; kill -9 $p", RUN "--resume -b 3 -t 1 " NPZ);
  assert_exit(run_ranks(4, ":", RUN "--resume -b 2 -t 1 " NPZ), 0, "");
  assert_npz();
}

/* As a rank finds tables in a folder that another rank replaces before they are opened. */
#define REPLACED "set r.npz.parts/*.npz && ln -s gone ${1%-*}-0.npz"

/* The run ends, complete, before its last output is written. */
static void damage_is_repaired(void **state) {
  static const char uncounted[] = "routing was not counted";
  static const struct {
    const char *damage, *note;
  } cases[] = {{":", ""},
               {"rm r.npz.parts/*.npz", uncounted},
               {"rm d/000003.png d/000004.png", "2 images are missing"},
               {"rm d/000003.png && rm -r r.npz.parts", uncounted},
               {REPLACED, ""}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    clean(state);
    assert_exit(run("ulimit -f 800; " RUN "-b 4 " FOLDER), DITMOE_OUTPUT, "r.");
    assert_shell(cases[i].damage);
    assert_exit(run(RUN "--resume -b 3 " FOLDER), 0, cases[i].note);
    assert_folder();
  }
}

/* Shards that are made again in others of another size stand beside them in the journal. */
static void other_batches_replace_shards(void **state) {
  (void)state;
  run_ranks(2, ":", "sh -c 'ulimit -f 800; " RUN "-b 3 " NPZ "'");
  assert_shell("test ! -e r.trace && rm r.npz.parts/*.npz x.npz.parts/*[1-9]+3.raw");
  assert_exit(run_ranks(2, ":", RUN "--resume -b 5 " NPZ), 0, "routing was not counted");
  assert_npz();
}

static void complete_runs_are_checked(void **state) {
  (void)state;
  assert_exit(run(RUN FOLDER), 0, "");
  assert_shell("cp d/run.json was.json");
  assert_exit(run(RUN "--resume " FOLDER), 0, "");
  assert_shell("cmp d/run.json was.json");
  assert_exit(run("rm r.trace; " RUN "--resume " FOLDER), 0, "");
  assert_folder();
  assert_exit(run("printf x | dd of=r.npz bs=1 seek=3000 conv=notrunc 2>/dev/null; " RUN
                  "--resume " FOLDER),
              0, "");
  assert_folder();
}

/* The jobs of an array. */
static void parts_add_up(void **state) {
  (void)state;
  assert_exit(run(RUN "--index-range 0:12 --routing-dump r.a.npz -o d/"), 0, "");
  assert_exit(run(RUN "--index-range 12:32 --routing-dump r.b.npz -o d/"), 0, "");
  assert_shell("@heatmap r.a.npz --add r.b.npz | tail -n +2 >r.parts && "
               "@heatmap full.r.npz | tail -n +2 >r.whole && cmp r.parts r.whole");
  assert_exit(run("@heatmap r.a.npz --add r.b.npz,r.a.npz"), DITMOE_MISMATCH, "image 0");
  assert_exit(run("@heatmap r.a.npz --add r.b.npz --force --csv r.b.npz"), DITMOE_USAGE,
              "r.b.npz: is an input");
  assert_shell("rm r.b.npz && @convert " MODEL "--dtype f16 -o r.other.safetensors");
  assert_exit(
      run(SAMPLE "r.other.safetensors " REST "--index-range 12:32 --routing-dump r.b.npz -o r.d/"),
      0, "");
  assert_exit(run("@heatmap r.a.npz --add r.b.npz"), DITMOE_MISMATCH, "model differs");
}

/* One image has no journal. */
static void one_image(void **state) {
  (void)state;
  assert_exit(
      run(SAMPLE MODEL "--steps 4 -n 1 -o x.png --routing-dump r.npz --routing-trace r.trace"), 0,
      "");
  struct ditmoe_routing *routing = read_dump("r.npz");
  struct ditmoe_routing_info info;
  ditmoe_routing_info(routing, &info);
  assert_int_equal(info.images, 1);
  ditmoe_routing_destroy(routing);
  assert_shell("test -s r.trace && test ! -e r.npz.parts");
}

static void what_cannot_work_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *options;
    int code;
    const char *message;
  } refused[] = {
      {RUN "-o x.npz --routing-mass", DITMOE_USAGE, "--routing-mass has no effect"},
      {RUN "-o x.npz --routing-uncond", DITMOE_USAGE, "--routing-uncond has no effect"},
      {RUN "-o x.npz --cfg-scale 1 --routing-dump r.npz --routing-uncond", DITMOE_USAGE,
       "without guidance"},
      {RUN "-o x.npz --routing-dump r.npz --routing-scores", DITMOE_USAGE,
       "--routing-scores has no effect"},
      {RUN "-o x.npz --routing-dump r.npz --routing-bins 11", DITMOE_USAGE, "11"},
      {RUN "-o x.npz --routing-dump x.npz", DITMOE_USAGE, "two outputs"},
      {RUN "-o x.npz --routing-dump r.npz --routing-trace r.npz", DITMOE_USAGE, "two outputs"},
      {RUN "-o x.npz --routing-dump no/r.npz", DITMOE_OUTPUT, "no/"},
      {RUN "-o x.npz --routing-dump full.r.npz", DITMOE_OUTPUT, "full.r.npz: exists"},
      {RUN "-o full/ --resume " ROUTING "--routing-bins 5", DITMOE_MISMATCH, "routing-bins"},
      {RUN "-o full/ --resume", DITMOE_MISMATCH, "routing-dump"},
      {"@sample -q -m @fixtures/diffusers_dit/pipeline/transformer --vae none -n 1 -o x.png "
       "--routing-dump r.npz",
       DITMOE_USAGE, "no experts"},
  };
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
    assert_exit(run("%s", refused[i].options), refused[i].code, refused[i].message);
  assert_shell("! ls -d x.* r.* 2>/dev/null");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sums_are_complete),
      cmocka_unit_test(traces_replay),
      cmocka_unit_test_setup(killed_runs_go_on, clean),
      cmocka_unit_test_setup(ranks_may_change, clean),
      cmocka_unit_test_setup(damage_is_repaired, clean),
      cmocka_unit_test_setup(other_batches_replace_shards, clean),
      cmocka_unit_test_setup(complete_runs_are_checked, clean),
      cmocka_unit_test_setup(parts_add_up, clean),
      cmocka_unit_test_setup(one_image, clean),
      cmocka_unit_test_setup(what_cannot_work_is_refused, clean),
  };
  return cmocka_run_group_tests(tests, make_full, NULL);
}
