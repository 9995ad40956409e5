/* Traces of routing: round trips, replay, joining, failures. */
#include "support.h"
#include "trace_cases.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

static const struct plan six_images = {0, 6, 2, true};

/* A temporary path that stays. */
enum { PATH = 300 };
static const char *path_in(char out[PATH], const char *name) {
  snprintf(out, PATH, "%s", temporary_path(name));
  return out;
}

static struct ditmoe_trace *open_trace(const char *path) {
  struct ditmoe_trace *trace;
  assert_ok(test_ctx(), ditmoe_trace_open(test_ctx(), path, &trace));
  return trace;
}

static void assert_same_record(const struct ditmoe_trace_record *a,
                               const struct ditmoe_trace_record *b, int tokens, bool scores) {
  const size_t T = (size_t)tokens, N = (size_t)b->first[T];
  assert_true(a->image == b->image && a->label == b->label && a->step == b->step);
  assert_true(a->layer == b->layer && a->evaluation == b->evaluation && a->half == b->half);
  assert_int_equal(a->other_label, b->other_label);
  assert_memory_equal(a->first, b->first, (T + 1) * sizeof *a->first);
  assert_memory_equal(a->expert, b->expert, N * sizeof *a->expert);
  assert_memory_equal(a->weight, b->weight, N * sizeof *a->weight);
  assert_int_equal(a->scores != NULL, scores && b->scores);
  if (!a->scores) return;
  assert_int_equal(a->scored, b->scored);
  assert_memory_equal(a->scores, b->scores, T * (size_t)a->scored * sizeof(float));
}

/* Every record is that of its place; in order if the trace has been joined. */
static void assert_records(const char *path, const struct routing_shape *shape, bool scores,
                           int expected, bool joined) {
  static struct sample sample;
  struct ditmoe_trace *trace = open_trace(path);
  struct ditmoe_trace_record record;
  int64_t last = 0;
  assert_null(shape_difference(&trace->header.shape, shape));
  assert_string_equal(trace->header.meta, trace_meta);
  for (int end = 0, count = 0;; count++) {
    assert_ok(test_ctx(), ditmoe_trace_next(test_ctx(), trace, &record, &end));
    if (end) {
      assert_int_equal(count, expected);
      break;
    }
    make_record(&sample, shape, record);
    assert_same_record(&record, &sample.record, shape->tokens, scores);
    const int64_t order =
        (((record.image * STEPS + record.step) * 2 + record.evaluation) * 2 + record.half) *
            LAYERS +
        record.layer;
    if (joined) assert_true(count == 0 || order > last);
    last = order;
  }
  ditmoe_trace_close(trace);
}

static void test_round_trip(void **state) {
  (void)state;
  const char *path = temporary_path("round.trace");
  for (int i = 0; i < 12; i++) {
    const struct routing_shape shape = shape_of((enum router)(i % 3), i % 4 + 1);
    const bool scores = i / 3 % 2;
    assert_ok(test_ctx(), trace_run(test_ctx(), &shape, &six_images, 1,
                                    scores ? DITMOE_TRACE_SCORES : 0, path, NULL));
    assert_records(path, &shape, scores, 6 * PER_IMAGE, false);
  }
}

/* A trace without records, and one of tokens that nothing takes. */
static void test_empty(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const struct routing_shape shape = shape_of(THRESHOLD, 2);
  static const int32_t first[5];
  const struct ditmoe_trace_record nothing = {
      .first = first, .expert = (const uint16_t[1]){0}, .weight = (const float[1]){0}};
  struct ditmoe_trace_record record;
  const char *path = temporary_path("empty.trace"), *joined = temporary_path("joined.trace");
  int end = 0;
  for (int count = 0; count < 2; count++) {
    struct ditmoe_routing *routing;
    assert_ok(ctx, routing_create(ctx, &shape, &routing));
    assert_ok(ctx, ditmoe_routing_trace_begin(ctx, routing, path, 0));
    if (count) assert_ok(ctx, ditmoe_routing_count(ctx, routing, &nothing));
    assert_ok(ctx, ditmoe_routing_trace_commit(ctx, routing));
    ditmoe_routing_destroy(routing);
    assert_ok(ctx, ditmoe_trace_join(ctx, &path, 1, joined));
    struct ditmoe_trace *trace = open_trace(joined);
    if (count) assert_ok(ctx, ditmoe_trace_next(ctx, trace, &record, &end));
    if (count) assert_true(!end && record.first[4] == 0 && !record.scores);
    for (int i = 0; i < 2; i++, assert_true(end))
      assert_ok(ctx, ditmoe_trace_next(ctx, trace, &record, &end));
    ditmoe_trace_close(trace);
  }
}

/* Replay. */

static void assert_same_tables(const struct ditmoe_routing *a, const struct ditmoe_routing *b) {
  assert_null(shape_difference(&a->shape, &b->shape));
  assert_string_equal(a->meta, b->meta);
  assert_int_equal(indices_total(&a->images), indices_total(&b->images));
  for (int half = 0; half < a->shape.halves; half++)
    for (enum table table = 0; table < TABLES; table++)
      assert_memory_equal(a->table[half][table], b->table[half][table],
                          (size_t)table_cells(&a->shape, table) * table_cell_size(table));
}

static struct ditmoe_routing *replay(const char *path) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_trace *trace = open_trace(path);
  struct ditmoe_trace_record record;
  struct ditmoe_routing *routing;
  assert_ok(ctx, ditmoe_trace_tables(ctx, trace, &routing));
  for (int end = 0;;) {
    assert_ok(ctx, ditmoe_trace_next(ctx, trace, &record, &end));
    if (end) break;
    assert_ok(ctx, ditmoe_routing_count(ctx, routing, &record));
  }
  ditmoe_trace_close(trace);
  return routing;
}

static void test_replay(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const char *path = temporary_path("live.trace"), *joined = temporary_path("joined.trace");
  for (int i = 0; i < 6; i++) {
    const struct routing_shape shape = shape_of((enum router)(i % 3), 3);
    const struct plan plan = {10, 17, 3, i / 3};
    struct ditmoe_routing *live, *again;
    assert_ok(ctx, trace_run(ctx, &shape, &plan, 1, DITMOE_TRACE_SCORES, path, &live));
    assert_ok(ctx, ditmoe_trace_join(ctx, &path, 1, joined));
    const char *const paths[] = {path, joined};
    for (int j = 0; j < 2; j++) {
      again = replay(paths[j]);
      assert_same_tables(live, again);
      ditmoe_routing_destroy(again);
    }
    ditmoe_routing_destroy(live);
  }
}

/* Joining. */

static void assert_same_file(const char *path, const char *other) {
  size_t size, other_size;
  char *bytes = file_bytes(path, &size), *other_bytes = file_bytes(other, &other_size);
  assert_int_equal(size, other_size);
  assert_memory_equal(bytes, other_bytes, size);
  free(bytes);
  free(other_bytes);
}

/* Parts of 12 images: up to 4, each of up to 3 runs. */
static const struct plan cuts[][4][3] = {
    {{{0, 12, 12, true}}},
    {{{0, 12, 5, false}}},
    {{{0, 6, 4, true}}, {{6, 12, 4, true}}},
    {{{8, 12, 4, true}}, {{0, 8, 2, false}}},
    {{{0, 2, 2, true}, {6, 8, 2, true}}, {{2, 4, 1, false}, {8, 12, 3, true}}, {{4, 6, 2, true}}},
    {{{9, 12, 3, true}, {0, 3, 1, true}, {5, 6, 1, true}},
     {{3, 5, 2, true}},
     {{8, 9, 1, false}},
     {{6, 8, 2, true}}},
};

static void test_join(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  char names[6][PATH];
  const char *const parts[] = {path_in(names[0], "a.trace"), path_in(names[1], "b.trace"),
                               path_in(names[2], "c.trace"), path_in(names[3], "d.trace")};
  const char *whole = path_in(names[4], "whole.trace");
  const char *joined = path_in(names[5], "joined.trace");
  for (int router = 0; router < 3; router++)
    for (size_t cut = 0; cut < sizeof cuts / sizeof *cuts; cut++) {
      const struct routing_shape shape = shape_of((enum router)router, 2);
      size_t count = 0;
      for (; count < 4 && cuts[cut][count][0].end; count++) {
        int runs = 1;
        while (runs < 3 && cuts[cut][count][runs].end) runs++;
        assert_ok(ctx, trace_run(ctx, &shape, cuts[cut][count], runs, DITMOE_TRACE_SCORES,
                                 parts[count], NULL));
      }
      assert_ok(ctx, ditmoe_trace_join(ctx, parts, count, cut ? joined : whole));
      if (cut) assert_same_file(joined, whole);
      if (!cut) assert_records(whole, &shape, true, 12 * PER_IMAGE, true);
    }
  assert_ok(ctx, ditmoe_trace_join(ctx, &whole, 1, whole));
  assert_same_file(joined, whole);
}

static void test_join_refused(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const struct routing_shape shape = shape_of(TOKEN_CHOICE, 2), other = shape_of(TOKEN_CHOICE, 3);
  static const struct plan later = {5, 8, 3, true};
  mkdir(temporary_path("join"), 0777);
  char names[3][PATH];
  const char *parts[] = {path_in(names[0], "join/a.trace"), path_in(names[1], "join/b.trace")};
  const char *out = path_in(names[2], "join/out.trace");
  assert_ok(ctx, trace_run(ctx, &shape, &six_images, 1, 0, parts[0], NULL));
  assert_ok(ctx, trace_run(ctx, &shape, &later, 1, 0, parts[1], NULL));
  assert_fails(ctx, DITMOE_MISMATCH, "b.trace: image 5 is also in /",
               ditmoe_trace_join(ctx, parts, 2, out));
  assert_fails(ctx, DITMOE_USAGE, "0 traces", ditmoe_trace_join(ctx, parts, 0, out));
  assert_ok(ctx, trace_run(ctx, &other, &later, 1, 0, parts[1], NULL));
  assert_fails(ctx, DITMOE_MISMATCH, "differs in its tokens",
               ditmoe_trace_join(ctx, parts, 2, out));
  assert_ok(ctx, trace_run(ctx, &shape, &later, 1, DITMOE_TRACE_SCORES, parts[1], NULL));
  assert_fails(ctx, DITMOE_MISMATCH, "differs in its scores",
               ditmoe_trace_join(ctx, parts, 2, out));
  remove(parts[1]);
  assert_fails(ctx, DITMOE_FORMAT, "b.trace: cannot be read",
               ditmoe_trace_join(ctx, parts, 2, out));
  assert_int_equal(files_in(temporary_path("join")), 1);
}

/* Failures. */

static void test_misuse(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  char name[PATH];
  static struct sample sample;
  const struct routing_shape shape = shape_of(TOKEN_CHOICE, 2);
  struct ditmoe_routing *routing;
  mkdir(temporary_path("misuse"), 0777);
  const char *path = path_in(name, "misuse/a.trace");
  assert_ok(ctx, routing_create(ctx, &shape, &routing));
  assert_fails(ctx, DITMOE_USAGE, "no trace", ditmoe_routing_trace_commit(ctx, routing));
  ditmoe_routing_trace_abandon(routing);
  assert_fails(ctx, DITMOE_USAGE, "unknown", ditmoe_routing_trace_begin(ctx, routing, path, 2));
  assert_fails(ctx, DITMOE_OUTPUT, "No such file",
               ditmoe_routing_trace_begin(ctx, routing, "/nonexistent/a.trace", 0));
  assert_ok(ctx, ditmoe_routing_trace_begin(ctx, routing, path, 0));
  assert_fails(ctx, DITMOE_USAGE, "already", ditmoe_routing_trace_begin(ctx, routing, path, 0));
  make_record(&sample, &shape, (struct ditmoe_trace_record){.image = 7});
  assert_ok(ctx, ditmoe_routing_count(ctx, routing, &sample.record));
  ditmoe_routing_trace_abandon(routing);
  assert_int_equal(files_in(temporary_path("misuse")), 0);
  /* A record that no reader would take makes the trace worthless. */
  assert_ok(ctx, ditmoe_routing_trace_begin(ctx, routing, path, 0));
  sample.first[1] = -1;
  assert_fails(ctx, DITMOE_FAILED, "a.trace: a record of image 7: a number of choices",
               trace_writer_add(ctx, routing->trace, &sample.record));
  assert_fails(ctx, DITMOE_OUTPUT, "earlier record", ditmoe_routing_trace_commit(ctx, routing));
  assert_int_equal(files_in(temporary_path("misuse")), 0);
  assert_ok(ctx, ditmoe_routing_trace_begin(ctx, routing, path, 0));
  ditmoe_routing_destroy(routing); /* abandons it */
  assert_int_equal(files_in(temporary_path("misuse")), 0);
}

/* A limit on file sizes stands for a full disk: it is hit at the end, and among records that do not
 * fit the buffer. */
static void test_full_disk(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  char name[PATH];
  static const rlim_t limits[] = {10, 1000, 20000, 1 << 20, 1100000};
  static const struct plan plan = {0, 10, 3, true};
  const struct routing_shape shape = shape_of(TOKEN_CHOICE, 16);
  struct rlimit old;
  mkdir(temporary_path("full"), 0777);
  const char *path = path_in(name, "full/run.trace");
  getrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, SIG_IGN);
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
    struct rlimit limit = {.rlim_cur = limits[i], .rlim_max = old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    enum ditmoe_status status = trace_run(ctx, &shape, &plan, 1, DITMOE_TRACE_SCORES, path, NULL);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_fails(ctx, DITMOE_OUTPUT, "run.trace: cannot be written", status);
    assert_int_equal(files_in(temporary_path("full")), 0);
  }
}

/* Writing, joining and reading of two parts. */
static enum ditmoe_status write_and_read(struct ditmoe_ctx *ctx, const char *const *parts,
                                         const char *joined) {
  static const struct plan plans[] = {{0, 2, 2, true}, {2, 3, 1, false}};
  const struct routing_shape shape = shape_of(UNCOND_EXPERT, 2);
  struct ditmoe_trace *trace;
  struct ditmoe_routing *routing;
  uint64_t records;
  for (int i = 0; i < 2; i++)
    TRY(trace_run(ctx, &shape, &plans[i], 1, DITMOE_TRACE_SCORES, parts[i], NULL));
  TRY(ditmoe_trace_join(ctx, parts, 2, joined));
  TRY(ditmoe_trace_open(ctx, joined, &trace));
  enum ditmoe_status status = read_trace(ctx, trace, &records);
  if (status == DITMOE_OK) status = ditmoe_trace_tables(ctx, trace, &routing);
  if (status == DITMOE_OK) ditmoe_routing_destroy(routing);
  ditmoe_trace_close(trace);
  return status;
}

static void test_no_memory(void **state) {
  (void)state;
  bool fired = true;
  mkdir(temporary_path("memory"), 0777);
  char names[3][PATH];
  const char *parts[] = {path_in(names[0], "memory/a"), path_in(names[1], "memory/b")};
  const char *joined = path_in(names[2], "memory/joined");
  for (int64_t at = 0; fired; at++) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    enum ditmoe_status status = write_and_read(ctx, parts, joined);
    fired = faulty_fired();
    assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
    assert_true(files_in(temporary_path("memory")) <= 3);
    remove(joined);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_empty),
      cmocka_unit_test(test_replay),       cmocka_unit_test(test_join),
      cmocka_unit_test(test_join_refused), cmocka_unit_test(test_misuse),
      cmocka_unit_test(test_full_disk),    cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
