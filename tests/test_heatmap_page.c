/* The HTML page of ditmoe-heatmap: as text, and at work in a browser where there is one. */
#include "tests/programs.h"
#include "trace/tables.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 3, STEPS = 9, BINS = 5, SIDE = 4, TOKENS = SIDE * SIDE, EXPERTS = 5, LABELS = 7 };
enum { IMAGES = 12, MANY = 50000, TOP = 2, SIZE_LIMIT = 5000000 };

static int32_t blocks[] = {1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
static int32_t experts_of[] = {5, 4, 5}, eight[] = {8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8};
static int32_t bin_step[] = {0, 2, 4, 6, 8, 9}, each_step[51];
static double times[50];

/* Layers of different widths, an unconditional expert, bins of different lengths. */
static const struct routing_shape small = {.layers = BLOCKS,
                                           .bins = BINS,
                                           .tokens = TOKENS,
                                           .experts = EXPERTS,
                                           .labels = LABELS,
                                           .steps = STEPS,
                                           .side = SIDE,
                                           .top_k = TOP,
                                           .uncond_expert = 3,
                                           .null_label = LABELS - 1,
                                           .halves = DITMOE_HALVES,
                                           .mass = true,
                                           .layer = blocks,
                                           .layer_experts = experts_of,
                                           .bin_step = bin_step,
                                           .time = times};
/* DiT-MoE S/2 at 50 steps. */
static const struct routing_shape large = {.layers = 12,
                                           .bins = 50,
                                           .tokens = 256,
                                           .experts = 8,
                                           .labels = 1001,
                                           .steps = 50,
                                           .side = 16,
                                           .top_k = TOP,
                                           .uncond_expert = -1,
                                           .null_label = 1000,
                                           .halves = DITMOE_HALVES,
                                           .mass = true,
                                           .layer = blocks,
                                           .layer_experts = eight,
                                           .bin_step = each_step,
                                           .time = times};

static const char meta[] =
    "{\"class_names\":{\"0\":\"a\\u001b[31m</script><script>alert(1)</script>\","
    "\"1\":\"\\u2028\\u2029\\u202e\\\"'\\\\\",\"2\":\"<!--<script>\",\"3\":\"\\u00e9\\ud83d\\ude00&"
    "\"},"
    "\"model\":\"</script><img src=x onerror=alert(1)>\",\"sampler\":\"euler\"}";

static uint32_t draw(uint32_t *state) { return (*state = *state * 1664525u + 1013904223u) >> 8; }

/* Two different experts for each token; those without a class have the unconditional one. */
static void count_record(struct ditmoe_routing *routing, struct ditmoe_trace_record where,
                         uint32_t *state) {
  const struct routing_shape *shape = &routing->shape;
  int32_t first[TOKENS + 1];
  uint16_t expert[TOP * TOKENS];
  float weight[TOP * TOKENS];
  where.label = (int32_t)(where.image % (LABELS - 2));
  for (int t = 0; t <= TOKENS; t++) first[t] = TOP * t;
  for (int t = 0; t < TOKENS; t++) {
    const int experts = shape->layer_experts[where.layer];
    const uint32_t one = draw(state) % (uint32_t)(1 + (t + where.step) % experts);
    const uint32_t by = 1 + draw(state) % (uint32_t)(experts - 1);
    expert[TOP * t] = (uint16_t)one;
    expert[TOP * t + 1] = (uint16_t)((one + by) % (uint32_t)experts);
    weight[TOP * t] = 0.5f + (float)(draw(state) % 1024) / 2048;
    weight[TOP * t + 1] = 1 - weight[TOP * t];
  }
  where.first = first;
  where.expert = expert;
  where.weight = weight;
  assert_ok(test_ctx(), ditmoe_routing_count(test_ctx(), routing, &where));
}

/* NAME.npz and NAME.trace. */
static void make_run(int images, uint32_t seed, const char *name) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_routing *routing;
  char file[64];
  assert_ok(ctx, routing_create(ctx, &small, &routing));
  assert_ok(ctx, ditmoe_routing_describe(ctx, routing, meta));
  snprintf(file, sizeof file, "%s.trace", name);
  assert_ok(ctx, ditmoe_routing_trace_begin(ctx, routing, temporary_path(file), 0));
  for (int i = 0; i < images * STEPS * BLOCKS * DITMOE_HALVES; i++)
    count_record(routing,
                 (struct ditmoe_trace_record){.half = (enum ditmoe_half)(i % DITMOE_HALVES),
                                              .layer = i / DITMOE_HALVES % BLOCKS,
                                              .step = i / DITMOE_HALVES / BLOCKS % STEPS,
                                              .image = i / DITMOE_HALVES / BLOCKS / STEPS},
                 &seed);
  assert_ok(ctx, ditmoe_routing_trace_commit(ctx, routing));
  snprintf(file, sizeof file, "%s.npz", name);
  assert_ok(ctx, ditmoe_routing_write(ctx, routing, temporary_path(file), DITMOE_ROUTING_FINAL));
  ditmoe_routing_destroy(routing);
}

/* Noise, which no compression helps: counts up to `most`. */
static void make_noise(uint32_t most, const char *name) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_routing *routing;
  uint32_t state = most;
  assert_ok(ctx, routing_create(ctx, &large, &routing));
  assert_ok(ctx, indices_room(ctx, &routing->images));
  indices_add(&routing->images, 0);
  routing->images.ranges[0].end = MANY;
  for (int half = 0; half < DITMOE_HALVES; half++) {
    uint32_t *counts = routing->table[half][TABLE_COUNTS];
    int64_t *mass = routing->table[half][TABLE_MASS];
    for (int64_t i = 0; i < table_cells(&large, TABLE_COUNTS); i++) {
      counts[i] = draw(&state) % most;
      mass[i] = (int64_t)(counts[i] * (0.2 + (draw(&state) % 1000) / 2000.0) / DITMOE_ROUTING_UNIT);
    }
  }
  assert_ok(ctx, ditmoe_routing_write(ctx, routing, temporary_path(name), DITMOE_ROUTING_FINAL));
  ditmoe_routing_destroy(routing);
}

static int make_inputs(void **state) {
  (void)state;
  uint8_t pixels[3 * 16 * 24];
  for (int i = 0; i < 50; i++) times[i] = 1 - i / 50.0;
  for (int i = 0; i <= 50; i++) each_step[i] = i;
  for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 37);
  make_run(IMAGES, 1, "run");
  make_run(IMAGES / 2, 2, "other");
  assert_ok(test_ctx(),
            ditmoe_image_write(test_ctx(), temporary_path("000002.png"), pixels, 24, 16, NULL));
  return 0;
}

static int occurrences(const char *text, const char *part) {
  int count = 0;
  while ((text = strstr(text, part))) {
    text += strlen(part);
    count++;
  }
  return count;
}

/* Nothing of the names acts; nothing is fetched. */
static void the_text(void **state) {
  (void)state;
  static const char *const never[] = {
      "http:",    "https:",    "src=\"", "href=",        "innerHTML", "outerHTML",
      "eval(",    "alert(1)<", "<img",   "onerror=\"",   "<!--",      "document.write",
      "onclick=", "@DATA@",    "\033",   "\xE2\x80\xA8", "import(",   "new Function"};
  char *page;
  size_t size;
  assert_exit(run("@heatmap run.npz -o text.html"), 0, "");
  page = file_bytes(temporary_path("text.html"), &size);
  for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
    if (strstr(page, never[i])) fail_msg("the page has \"%s\"", never[i]);
  assert_int_equal(occurrences(page, "<script"), 2);
  assert_int_equal(occurrences(page, "</script"), 2);
  assert_int_equal(occurrences(page, "default-src 'none'"), 1);
  for (size_t i = 0; i < size; i++)
    if ((unsigned char)page[i] > 0x7E) fail_msg("byte %u at %zu", (unsigned char)page[i], i);
  free(page);
}

/* Whatever the counts are. */
static void the_size(void **state) {
  (void)state;
  static const uint32_t most[] = {16, 1 << 24};
  for (int i = 0; i < 2; i++) {
    size_t size;
    make_noise(most[i], "noise.npz");
    assert_exit(run("@heatmap noise.npz -o noise.html --force"), 0, "");
    char *page = file_bytes(temporary_path("noise.html"), &size);
    assert_true(size < SIZE_LIMIT);
    if (!strstr(page, "To keep this page small")) fail_msg("the page has no note");
    free(page);
  }
}

/* In a browser. */

static const char *browser(void) {
  static char path[1024];
  struct outcome outcome = run("command -v chromium || command -v chromium-browser || "
                               "command -v google-chrome");
  if (outcome.code != 0) return NULL;
  snprintf(path, sizeof path, "%.*s", (int)strcspn(outcome.out, "\n"), outcome.out);
  return path;
}

/* What the page wrote into its result node; it is in the document that the browser prints. */
static char *selftest(const char *name) {
  const char *program = browser();
  if (!program) skip();
  struct outcome outcome =
      run("timeout 300 '%s' --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage "
          "--user-data-dir=\"$PWD/profile\" --virtual-time-budget=600000 --dump-dom "
          "\"file://$PWD/%s#selftest\" 2>browser.err | grep -o '<pre id=\"selftest-result\">[^<]*'",
          program, name);
  const char *result = strchr(outcome.out, '>');
  if (!result) fail_msg("%s: %s printed no result", name, program);
  return strdup(result + 1);
}

static void assert_works(const char *name, int least) {
  int count = 0;
  char *result = selftest(name);
  if (sscanf(result, "ok %d checks", &count) != 1) fail_msg("%s: %s", name, result);
  if (count < least) fail_msg("%s: only %d checks", name, count);
  free(result);
}

static void a_run_and_an_image(void **state) {
  (void)state;
  assert_exit(run("@heatmap run.trace --overlay 000002.png -o run.html"), 0, "");
  assert_works("run.html", 800);
}

static void two_runs(void **state) {
  (void)state;
  assert_exit(run("@heatmap run.npz --diff other.npz --by step --half both --normalize row --scale "
                  "layer --layers 3-5 --steps 2:8 --weighted -o two.html"),
              0, "");
  assert_works("two.html", 1500);
}

/* Merged bins and rounded counts. */
static void a_coarse_page(void **state) {
  (void)state;
  make_noise(4 * MANY / 8, "coarse.npz");
  assert_exit(run("@heatmap coarse.npz -o coarse.html"), 0, "");
  assert_works("coarse.html", 1000);
}

/* The checks find a page that shows anything else than the tables hold. */
static void the_checks_see(void **state) {
  (void)state;
  size_t size;
  assert_exit(run("@heatmap run.npz -o wrong.html"), 0, "");
  char *page = file_bytes(temporary_path("wrong.html"), &size);
  char *value = strstr(page, "\"type\":\"cell\"");
  value = value ? strstr(value, "\"value\":") : NULL;
  assert_non_null(value);
  value[strlen("\"value\":")] = value[strlen("\"value\":")] == '7' ? '8' : '7';
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path("wrong.html"), page, size));
  free(page);
  char *result = selftest("wrong.html");
  if (strncmp(result, "failed: value ", 14) != 0) fail_msg("%s", result);
  free(result);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_text),           cmocka_unit_test(the_size),
      cmocka_unit_test(a_run_and_an_image), cmocka_unit_test(two_runs),
      cmocka_unit_test(a_coarse_page),      cmocka_unit_test(the_checks_see),
  };
  return cmocka_run_group_tests(tests, make_inputs, NULL);
}
