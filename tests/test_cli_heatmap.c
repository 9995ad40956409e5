/* ditmoe-heatmap on a made-up run whose numbers can be worked out by hand: blocks 1 and 3, 4 steps
 * in 2 bins, 4 tokens, experts 0 and 1 and an unconditional one, 3 images of classes 0, 1, 2.
 *
 * Block 1: tokens 0 and 1 have expert 0, from step 2 on token 0 alone; the others have expert 1.
 * Block 3: class 0 has expert 0, the others expert 1. All weights are 1/2. */
#include "io/npz.h"
#include "tests/programs.h"
#include "trace/tables.h"
#include "trace/trace.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 2, STEPS = 4, BINS = 2, SIDE = 2, TOKENS = 4, EXPERTS = 3, LABELS = 4, IMAGES = 3 };

static int32_t layer[BLOCKS] = {1, 3}, layer_experts[BLOCKS] = {EXPERTS, EXPERTS};
static int32_t bin_step[BINS + 1] = {0, 2, 4};
static double times[STEPS] = {1, 0.75, 0.5, 0.25};

static const struct routing_shape small = {.layers = BLOCKS,
                                           .bins = BINS,
                                           .tokens = TOKENS,
                                           .experts = EXPERTS,
                                           .labels = LABELS,
                                           .steps = STEPS,
                                           .side = SIDE,
                                           .top_k = 1,
                                           .uncond_expert = EXPERTS - 1,
                                           .null_label = LABELS - 1,
                                           .halves = DITMOE_HALVES,
                                           .mass = true,
                                           .layer = layer,
                                           .layer_experts = layer_experts,
                                           .bin_step = bin_step,
                                           .time = times};

static const char plain_meta[] = "{\"class_names\":{\"0\":\"shirt, \\\"blue\\\"\",\"2\":\"bag\"}}";
static const char hostile_meta[] =
    "{\"class_names\":{\"0\":\"a\\u001b[31m<script>alert(1)</script>\",\"1\":\"\\u009b\\u202eb\","
    "\"2\":\"a\\nbc\"},\"sampler\":\"\\u001b]0;x\\u0007\"}";

static uint16_t expert_of(const struct ditmoe_trace_record *where, int token) {
  if (where->half == DITMOE_UNCONDITIONAL) return EXPERTS - 1;
  if (where->layer == 0) return token >= (where->step < 2 ? 2 : 1);
  return where->label > 0;
}

static void count_record(struct ditmoe_routing *routing, struct ditmoe_trace_record where) {
  int32_t first[16 + 1] = {0};
  uint16_t expert[16];
  float weight[16];
  where.label = (int32_t)where.image;
  for (int t = 0; t < routing->shape.tokens; t++) {
    first[t + 1] = t + 1;
    expert[t] = expert_of(&where, t);
    weight[t] = 0.5f;
  }
  where.first = first;
  where.expert = expert;
  where.weight = weight;
  assert_ok(test_ctx(), ditmoe_routing_count(test_ctx(), routing, &where));
}

static int32_t next_label(void *user, int64_t image) {
  (void)user;
  return (int32_t)((image + 1) % IMAGES);
}

/* NAME.npz, and with `trace` NAME.trace. */
static void make_run(const struct routing_shape *shape, int images, const char *meta,
                     const char *name, bool trace) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_routing *routing;
  char file[64];
  assert_ok(ctx, routing_create(ctx, shape, &routing));
  routing->other_label = next_label;
  assert_ok(ctx, ditmoe_routing_describe(ctx, routing, meta));
  snprintf(file, sizeof file, "%s.trace", name);
  if (trace) assert_ok(ctx, ditmoe_routing_trace_begin(ctx, routing, temporary_path(file), 0));
  for (int i = 0; i < images * STEPS * shape->layers * shape->halves; i++)
    count_record(routing,
                 (struct ditmoe_trace_record){.half = (enum ditmoe_half)(i % shape->halves),
                                              .layer = i / shape->halves % shape->layers,
                                              .step = i / shape->halves / shape->layers % STEPS,
                                              .image = i / shape->halves / shape->layers / STEPS});
  if (trace) assert_ok(ctx, ditmoe_routing_trace_commit(ctx, routing));
  snprintf(file, sizeof file, "%s.npz", name);
  assert_ok(ctx, ditmoe_routing_write(ctx, routing, temporary_path(file), DITMOE_ROUTING_FINAL));
  ditmoe_routing_destroy(routing);
}

static void write_bytes(const char *name, const char *bytes, size_t size) {
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path(name), bytes, size));
}

static void write_text(const char *name, const char *text) {
  write_bytes(name, text, strlen(text));
}

static void write_image(const char *name, const char *index) {
  uint8_t pixels[3 * 16 * 16];
  const struct ditmoe_text text[] = {{index ? "ditmoe" : NULL, index}, {0}};
  for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 37);
  assert_ok(test_ctx(), ditmoe_image_write(test_ctx(), temporary_path(name), pixels, 16, 16, text));
}

static int make_inputs(void **state) {
  (void)state;
  struct routing_shape other = small;
  make_run(&small, IMAGES, plain_meta, "run", true);
  make_run(&small, 2, plain_meta, "two", false);
  make_run(&small, 0, plain_meta, "none", true);
  make_run(&small, IMAGES, hostile_meta, "hostile", true);
  other.side = 4;
  other.tokens = 16;
  make_run(&other, IMAGES, plain_meta, "tokens", false);
  other = small;
  other.halves = 1;
  other.mass = false;
  make_run(&other, IMAGES, plain_meta, "bare", false);
  write_image("000002.png", NULL);
  write_image("marked.png", "{\"index\":1}");
  write_image("nameless.png", NULL);
  write_image("img000009_class3.png", NULL);
  write_text("names.txt", "zero\none\ntwo\n");
  write_text("table.tsv", "2\tn01440764\ttench, Tinca\n0\tnothing\n");
  write_text("many.txt", "a\nb\nc\nd\ne\n");
  return 0;
}

/* What came out. */

static void assert_contains(const char *text, const char *part) {
  if (!strstr(text, part)) fail_msg("\"%s\" is not in:\n%s", part, text);
}

/* Text that somebody made: no controls but tabulators and line ends, no C1 ones, nothing bidi. */
static void assert_clean(const char *text) {
  for (const unsigned char *c = (const unsigned char *)text; *c; c++)
    if ((*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7F || (*c == 0xC2 && c[1] < 0xA0) ||
        (c[0] == 0xE2 && c[1] == 0x80 && c[2] >= 0xA8 && c[2] <= 0xAE))
      fail_msg("byte %u in:\n%s", *c, text);
}

static const cJSON *find(const cJSON *at, const char *path) {
  char copy[256], *rest = copy, *name;
  snprintf(copy, sizeof copy, "%s", path);
  while (at && (name = strsep(&rest, ".")))
    at = cJSON_IsArray(at) ? cJSON_GetArrayItem(at, atoi(name))
                           : cJSON_GetObjectItemCaseSensitive(at, name);
  if (!at) fail_msg("no %s", path);
  return at;
}

static void assert_number(const cJSON *json, const char *path, double expected) {
  const cJSON *item = find(json, path);
  if (!cJSON_IsNumber(item)) fail_msg("%s is not a number", path);
  assert_within(path, fabs(item->valuedouble - expected), 1e-12);
}

static cJSON *json_of(const char *arguments) {
  struct outcome outcome = run("@heatmap %s --json", arguments);
  assert_exit(outcome, 0, "");
  cJSON *json = cJSON_Parse(outcome.out);
  if (!json) fail_msg("not JSON:\n%s", outcome.out);
  return json;
}

struct csv {
  int lines;
  double choices, weight, difference; /* sums, of magnitudes */
};

/* Numbers of a field from the end of the line; 0 for an empty one. */
static struct csv read_csv(const char *name) {
  struct csv csv = {0};
  char *text = file_bytes(temporary_path(name), NULL), *rest = text, *line;
  int field = 0, fields = 0;
  assert_contains(text, "# ditmoe-heatmap csv 1; by ");
  while ((line = strsep(&rest, "\n"))) {
    if (*line == '#' || !*line) continue;
    const bool head = strncmp(line, "half,", 5) == 0;
    double values[16] = {0};
    bool quoted = false;
    field = 0;
    for (char *c = line; *c; c++) {
      if (*c == '"') quoted = !quoted;
      if (*c == ',' && !quoted) values[++field] = strtod(c + 1, NULL);
    }
    if (head) fields = field;
    if (field != fields) fail_msg("%d fields: %s", field, line);
    if (head) continue;
    csv.lines++;
    csv.choices += values[8];
    csv.weight += values[9];
    csv.difference += fabs(values[14]);
  }
  free(text);
  return csv;
}

/* Tests. */

static void numbers_by_hand(void **state) {
  (void)state;
  cJSON *json = json_of("run.npz --half both");
  const cJSON *half = find(json, "run.conditional");
  const double third = -(log2(1.0 / 3) / 3 + 2 * log2(2.0 / 3) / 3);
  const double mixed = -(0.375 * log2(0.375) + 0.625 * log2(0.625));
  assert_number(half, "layers.0.load.choices", 48);
  assert_number(half, "layers.0.loads.0", 0.75);
  assert_number(half, "layers.0.load.max_over_mean", 1.25);
  assert_number(half, "layers.0.load.variation", 0.25);
  assert_number(half, "layers.0.load.entropy", mixed);
  assert_number(half, "layers.0.steps.0.evenness", 1);
  assert_number(half, "layers.0.steps.1.min_over_mean", 0.5);
  assert_number(half, "layers.0.steps.1.step_from", 2);
  assert_number(half, "layers.0.steps.1.step_to", 4);
  assert_number(half, "layers.0.memory.kept", 11.0 / 12);
  assert_number(half, "layers.1.layer", 3);
  assert_number(half, "layers.1.load.evenness", third);
  assert_number(half, "layers.1.load.dead", 0);
  assert_number(half, "layers.1.dependence.class.normalized", 1);
  assert_number(half, "layers.1.dependence.position.normalized", 0);
  assert_number(half, "layers.1.memory.kept", 1);
  assert_string_equal(find(half, "findings.2.finding")->valuestring, "class_matters");
  assert_number(find(json, "run.unconditional"), "layers.0.load.choices", 0);
  assert_number(find(json, "run.unconditional"), "layers.0.load.dead", 2);
  assert_string_equal(find(json, "run.meta.class_names.2")->valuestring, "bag");
  cJSON_Delete(json);
  struct outcome text = run("@heatmap run.npz");
  assert_exit(text, 0, "");
  assert_contains(text.out, "run.npz, conditional half: 3 images, 4 steps, 4 tokens, 3 experts");
  assert_contains(text.out, "1         1.25   0.75      0.250");
  assert_contains(text.out, "the class decides about the expert: ");
  assert_null(strstr(text.out, "unconditional half"));
}

/* Every kind of table has all choices; what is selected of them adds up too. */
static void tables_add_up(void **state) {
  (void)state;
  static const char *const kinds[] = {"class", "token", "step", "layer", "expert", "map"};
  for (int i = 0; i < 6; i++) {
    assert_exit(run("@heatmap run.npz --by %s --csv all.csv --force", kinds[i]), 0, "");
    struct csv csv = read_csv("all.csv");
    assert_within(kinds[i], fabs(csv.choices - BLOCKS * 48), 0);
    assert_within(kinds[i], fabs(csv.weight - BLOCKS * 24), 1e-9);
    assert_exit(run("@heatmap run.trace --half both --by %s --csv all.csv --force", kinds[i]), 0,
                "");
    csv = read_csv("all.csv");
    assert_within(kinds[i], fabs(csv.choices - 2 * BLOCKS * 48), 0);
  }
  assert_exit(run("@heatmap run.npz --by token --layers 3 --steps 2:4 --csv part.csv"), 0, "");
  assert_int_equal(read_csv("part.csv").lines, TOKENS * EXPERTS);
  assert_within("part", fabs(read_csv("part.csv").choices - 24), 0);
}

static void values_by_hand(void **state) {
  (void)state;
  static const struct {
    const char *arguments, *line;
  } cases[] = {
      {"--by layer", "conditional,1,,0,4,1,\"1\",0,18,9,0.75\n"},
      {"--by layer", "conditional,3,,0,4,3,\"3\",1,32,16,1.33333333333333"},
      {"--by layer", "conditional,1,,0,4,1,\"1\",2,0,0,\n"}, /* no fair share */
      {"--by token", "conditional,1,,0,4,1,\"1\",0,6,3,1\n"},
      {"--by token --steps 2:4", "conditional,1,,2,4,1,\"1\",0,0,0,0\n"},
      {"--by map", "conditional,1,,0,4,0,\"\",0,12,6,2\n"},
      {"--by step", "conditional,1,1,2,4,1,\"2-3\",1,18,9,1.5\n"},
      {"--by step --normalize row", "conditional,1,1,2,4,1,\"2-3\",1,18,9,0.75\n"},
      {"--by step --normalize layer", "conditional,1,0,0,2,0,\"0-1\",1,12,6,0.6666666666666666\n"},
      {"--by step --normalize none", "conditional,1,1,2,4,1,\"2-3\",1,18,9,18\n"},
      {"--by step --normalize none --weighted", "conditional,1,1,2,4,1,\"2-3\",1,18,9,9\n"},
      {"--by expert --normalize row", "conditional,1,1,2,4,1,\"2-3\",1,18,9,0.6\n"},
      {"--by class", "conditional,3,,0,4,0,\"0 shirt, \"\"blue\"\"\",0,16,8,2\n"},
      {"--by class", "conditional,3,,0,4,1,\"class 1\",0,0,0,0\n"},
      {"--by class --half uncond --normalize row", "unconditional,3,,0,4,2,\"2 bag\",2,16,8,1\n"},
      {"--by class --half uncond", "unconditional,3,,0,4,2,\"2 bag\",0,0,0,\n"},
      {"--by class --class-file names.txt", ",\"1 one\","},
      {"--by class --class-file table.tsv", ",\"2 tench\","},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    assert_exit(run("@heatmap run.npz %s --csv value.csv --force", cases[i].arguments), 0, "");
    char *text = file_bytes(temporary_path("value.csv"), NULL);
    assert_contains(text, cases[i].line);
    free(text);
  }
}

static void differences(void **state) {
  (void)state;
  static const char *const kinds[] = {"class", "token", "step", "layer", "expert", "map"};
  for (int i = 0; i < 6; i++) {
    assert_exit(run("@heatmap run.npz --diff run.trace --by %s --csv d.csv --force", kinds[i]), 0,
                "");
    assert_within(kinds[i], read_csv("d.csv").difference, 0);
  }
  assert_exit(run("@heatmap run.npz --diff two.npz --csv d.csv --png d.png --force"), 0, "");
  /* Block 3: 2/3 and 4/3 against 1 and 1; block 1 is the same. */
  assert_within("two images", fabs(read_csv("d.csv").difference - 2.0 / 3), 1e-12);
  cJSON *json = json_of("run.npz --diff two.npz");
  assert_number(json, "difference.conditional.layers.1.loads.1", 1.0 / 3);
  assert_number(json, "difference.conditional.layers.0.load.choices", 16);
  assert_number(json, "difference.conditional.layers.1.layer", 3);
  cJSON_Delete(json);
  assert_contains(run("@heatmap run.npz --diff two.npz").out,
                  "difference, the first minus the other");
  json = json_of("run.npz --diff run.trace");
  assert_number(json, "difference.conditional.memory.kept", 0);
  assert_number(json, "difference.conditional.layers.0.load.entropy", 0);
  assert_number(json, "difference.conditional.layers.1.dependence.class.bits", 0);
  cJSON_Delete(json);
}

static void arrays(void **state) {
  (void)state;
  struct npz *npz;
  double values[BLOCKS * BINS * EXPERTS];
  char text[4096] = {0};
  assert_exit(run("@heatmap run.npz --by step --npz view.npz"), 0, "");
  assert_ok(test_ctx(), npz_open(test_ctx(), temporary_path("view.npz"), &npz));
  const struct npz_array *array = npz_find(npz, "values"), *info = npz_find(npz, "info");
  assert_true(array && array->rank == 3 && array->elements == BLOCKS * BINS * EXPERTS);
  assert_ok(test_ctx(), npz_read_f64(test_ctx(), npz, array, values));
  assert_true(values[0] == 1 && values[3] == 0.5 && values[4] == 1.5 && isnan(values[5]));
  assert_ok(test_ctx(), npz_read_f64(test_ctx(), npz, npz_find(npz, "choices"), values));
  assert_true(values[3] == 6 && values[4] == 18 && values[5] == 0);
  assert_true(info && info->elements < (int64_t)sizeof text);
  assert_ok(test_ctx(),
            npz_stream_u8(test_ctx(), npz, info, (uint8_t *)text, (size_t)info->elements));
  cJSON *json = cJSON_Parse(text);
  assert_string_equal(find(json, "rows.labels.1")->valuestring, "2-3");
  assert_string_equal(find(json, "columns.labels.2")->valuestring, "uncond");
  assert_number(json, "panels.1.layer", 3);
  cJSON_Delete(json);
  npz_close(npz);
}

/* Whether a file of pictures says so. */
static void assert_png(const char *name, bool animated) {
  size_t size;
  char *bytes = file_bytes(temporary_path(name), &size);
  assert_true(size > 64 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0);
  assert_true((memmem(bytes, size, "acTL", 4) != NULL) == animated);
  free(bytes);
}

/* Every option changes the picture or the file. */
static void options_act(void **state) {
  (void)state;
  static const struct {
    const char *base, *change;
  } cases[] = {
      {"--png", "--by token"},
      {"--png", "--by class"},
      {"--png", "--by step"},
      {"--png", "--by expert"},
      {"--png", "--by map"},
      {"--png", "--half uncond"},
      {"--png", "--half both"},
      {"--png", "--layers 3"},
      {"--png", "--steps 2:4"},
      {"--normalize none --png", "--weighted"},
      {"--png", "--diff two.npz"},
      {"--png", "--normalize row"},
      {"--png", "--normalize layer"},
      {"--by step --png", "--scale layer"},
      {"--png", "--colormap magma"},
      {"--png", "--title Other"},
      {"--png", "--cell 9"},
      {"--by step --png", "--columns 1"},
      {"--by class --png", "--class-every 2"},
      {"--by class --png", "--class-file names.txt"},
      {"--png", "--overlay 000002.png"},
      {"--overlay 000002.png --png", "--overlay-layer 3"},
      {"--overlay 000002.png --png", "--cell 40"},
      {"--overlay 000002.png --png", "--steps 0:2"},
      {"--animation", "--delay 500"},
      {"--animation", "--overlay 000002.png"},
      {"--csv", "--diff two.npz"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct outcome outcome = run("@heatmap run.npz --force %s base.png", cases[i].base);
    assert_exit(outcome, 0, "");
    assert_string_equal(outcome.out, "base.png\n");
    outcome = run("@heatmap run.npz --force %s other.png %s", cases[i].base, cases[i].change);
    assert_exit(outcome, 0, "");
    if (strcmp(cases[i].base, "--csv") != 0)
      assert_png("other.png", strcmp(cases[i].base, "--animation") == 0);
    if (run("cmp -s base.png other.png").code != 1)
      fail_msg("%s %s changes nothing", cases[i].base, cases[i].change);
  }
}

/* A trace knows the experts of each image; its index comes from options, metadata or the name. */
static void overlays(void **state) {
  (void)state;
  static const char *const images[] = {"000002.png", "marked.png",
                                       "nameless.png --overlay-index 0"};
  for (int i = 0; i < 3; i++)
    assert_exit(run("@heatmap run.trace --overlay %s --title x --png over%d.png", images[i], i), 0,
                "");
  /* Block 3 has expert 0 for image 0 alone. */
  assert_int_equal(run("cmp -s over0.png over2.png").code, 1);
  assert_exit(run("@heatmap run.trace --overlay nameless.png --png x.png"), DITMOE_USAGE,
              "give --overlay-index");
  assert_exit(run("@heatmap run.trace --overlay img000009_class3.png --png x.png"), DITMOE_USAGE,
              "image 9 is not in run.trace");
  assert_exit(run("@heatmap run.npz --overlay 000002.png --overlay-index 1 --png x.png"),
              DITMOE_USAGE, "only a trace tells them apart");
  assert_exit(run("@heatmap run.npz --overlay names.txt --png x.png"), DITMOE_FORMAT,
              "--overlay names.txt");
  assert_exit(run("@heatmap run.npz --overlay no.png --png x.png"), DITMOE_FORMAT, "no.png");
  assert_exit(run("@heatmap run.npz --overlay . --png x.png"), DITMOE_FORMAT, "not a file");
}

/* The experts of a model, whose blocks the run has to be of. */
static void similarity(void **state) {
  (void)state;
#define MODEL "--model @fixtures/dit_moe/b_mixed/bare.safetensors --record record.json "
  static int32_t blocks[] = {0, 1}, eight[] = {8, 8};
  struct routing_shape shape = small;
  shape.layers = 2;
  shape.experts = 8;
  shape.uncond_expert = -1;
  shape.halves = 1;
  shape.layer = blocks;
  shape.layer_experts = eight;
  make_run(&shape, IMAGES, "{\"model\":{\"sha256\":\"0123456789abcdef\"}}", "model", false);
  write_text("record.json", "{\"objective\":\"rf\",\"heads\":6,\"top_k\":1}");
  assert_exit(run("@heatmap model.npz " MODEL "--by router --csv r.csv --png r.png --npz r.npz"), 0,
              "the run was of another file, with SHA-256 0123456789");
  assert_int_equal(run("sed -n 2,3p r.csv | tr '\\n' ' ' | "
                       "grep -qx 'layer,expert,other_expert,value 0,0,0,1 '")
                       .code,
                   0);
  assert_png("r.png", false);
  assert_exit(run("@heatmap model.npz " MODEL "--by weights --png w.png && "
                  "@heatmap model.npz " MODEL "--by subspace --png s.png && "
                  "! cmp -s w.png s.png && ! cmp -s w.png r.png"),
              0, "");
  assert_contains(run("@heatmap model.npz " MODEL).out, "layer 1: weights ");
  cJSON *json = cJSON_Parse(run("@heatmap model.npz --json " MODEL).out);
  assert_number(json, "similarity.rank", 8);
  assert_within("itself", fabs(find(json, "similarity.layers.1.weights.2.2")->valuedouble - 1),
                1e-6);
  cJSON_Delete(json);
  assert_exit(run("@heatmap run.npz " MODEL "--by router --png x.png"), DITMOE_MISMATCH,
              "its layers with experts are not those of run.npz");
}

/* Names from files reach no terminal, picture or table as they are. */
static void hostile_names(void **state) {
  (void)state;
  struct outcome outcome =
      run("@heatmap hostile.npz --by class --png h.png --csv h.csv --npz h.npz -o h.html --json");
  assert_exit(outcome, 0, "");
  assert_clean(outcome.out);
  assert_contains(outcome.out, "a?[31m<script>");
  char *csv = file_bytes(temporary_path("h.csv"), NULL);
  assert_clean(csv);
  assert_contains(csv, "\"1 ??b\"");
  assert_contains(csv, "\"2 a?b");
  free(csv);
  char *html = file_bytes(temporary_path("h.html"), NULL);
  assert_null(strstr(html, "<script>alert(1)"));
  assert_null(strstr(html, "\033"));
  free(html);
  assert_clean(run("@heatmap hostile.npz").out);
  outcome = run("cp hostile.npz \"$(printf 'e\\033[2Jvil\\nname.npz')\" && "
                "@heatmap e*.npz --csv evil.csv --json && @heatmap e*.npz");
  assert_exit(outcome, 0, "");
  assert_clean(outcome.out);
  outcome = run("@heatmap hostile.npz --by class --png t.png --title \"$(printf 'a\\033[31mb')\"");
  assert_exit(outcome, 0, "");
}

/* Options that cannot be had, or would change nothing. */
static void refused_options(void **state) {
  (void)state;
  static const struct {
    const char *arguments, *message;
  } cases[] = {
      {"", "RUN"},
      {"run.npz two.npz", "two.npz"},
      {"run.npz --force", "--force has no effect"},
      {"run.npz --by step", "--by has no effect"},
      {"run.npz --layers 1", "--layers has no effect"},
      {"run.npz --steps 0:2", "--steps has no effect"},
      {"run.npz --weighted", "--weighted has no effect"},
      {"run.npz --normalize row --json", "--normalize has no effect"},
      {"run.npz --scale layer --csv x", "--scale has no effect"},
      {"run.npz --colormap magma --csv x", "--colormap has no effect"},
      {"run.npz --diff two.npz --colormap magma --png x.png", "on differences"},
      {"run.npz --title x --csv x", "--title has no effect"},
      {"run.npz --cell 4 --csv x", "--cell has no effect"},
      {"run.npz --columns 4 --csv x", "--columns has no effect"},
      {"run.npz --delay 100 --png x.png", "--delay has no effect"},
      {"run.npz --class-file names.txt --by step --csv x", "--class-file has no effect"},
      {"run.npz --class-every 2 --by class --csv x", "--class-every has no effect"},
      {"run.npz --by weights --png x.png", "--by weights needs --model"},
      {"run.npz --model m --by weights --diff two.npz --png x.png", "not with --diff"},
      {"run.npz --model m --by weights --half both --png x.png", "--half has no effect"},
      {"run.npz --model m --by weights --steps 0:2 --csv x", "--steps has no effect"},
      {"run.npz --model m --by weights --weighted --csv x", "--weighted has no effect"},
      {"run.npz --model m --by weights --normalize row --csv x", "--normalize has no effect"},
      {"run.npz --model m --png x.png", "--model has no effect"},
      {"run.npz --record r", "--record has no effect"},
      {"run.npz --by map -o x.html", "--by has no effect"},
      {"run.npz --overlay 000002.png --csv x", "--overlay has no effect"},
      {"run.npz --overlay 000002.png --by step --png x.png", "--by has no effect"},
      {"run.npz --overlay 000002.png --diff two.npz --png x.png", "not with --diff"},
      {"run.npz --overlay-layer 1 --png x.png", "without --overlay"},
      {"run.npz --overlay-index 1 --png x.png", "without --overlay"},
      {"run.npz --overlay 000002.png --overlay-layer 2 --png x.png", "experts: 1 3"},
      {"run.npz --by class --animation x.png", "not class"},
      {"run.npz --by step --animation x.png", "not step"},
      {"run.npz --by class --steps 0:2 --png x.png", "classes are counted over all steps"},
      {"run.npz --layers 4-9 --png x.png", "none of the blocks with experts: 1 3"},
      {"run.npz --layers 3-1 --png x.png", "is not A-B"},
      {"run.npz --steps 0:5 --png x.png", "the run has steps 0:4"},
      {"run.npz --steps 1:4 --png x.png", "only whole bins"},
      {"run.npz --png x.jpg", "must end in .png"},
      {"run.npz --png x.png --animation x.png", "name the same file"},
      {"run.npz --png 000002.png --overlay 000002.png --force", "is an input"},
      {"bare.npz --half uncond", "bare.npz has no unconditional half"},
      {"bare.npz --weighted --csv x", "bare.npz has no weights"},
      {"run.npz --half both --diff bare.npz", "bare.npz has no unconditional half"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct outcome outcome = run("@heatmap %s", cases[i].arguments);
    assert_exit(outcome, DITMOE_USAGE, cases[i].message);
    assert_string_equal(outcome.out, "");
    assert_int_equal(run("test -e x || test -e x.png || test -e x.html").code, 1);
  }
}

/* Each is one line and an exit code, and nothing is written. */
static void bad_inputs(void **state) {
  (void)state;
  size_t size;
  char *trace = file_bytes(temporary_path("run.trace"), &size);
  write_bytes("cut.trace", trace, size - 40);
  write_bytes("short.trace", trace, 10);
  trace[12] = 9;
  write_bytes("later.trace", trace, size);
  free(trace);
  char *dump = file_bytes(temporary_path("run.npz"), &size);
  write_bytes("cut.npz", dump, size / 2);
  free(dump);
  write_text("bad.tsv", "x\tname\n");
  write_text("empty", "");
  static const struct {
    const char *arguments;
    enum ditmoe_status code;
    const char *message;
  } cases[] = {
      {"no.npz", DITMOE_FORMAT, "no.npz: No such file"},
      {".", DITMOE_FORMAT, "not a file"},
      {"/dev/zero", DITMOE_FORMAT, "not a file"},
      {"empty", DITMOE_FORMAT, "empty"},
      {"none.npz", DITMOE_FORMAT, "no image has been counted"},
      {"run.npz --diff none.trace", DITMOE_FORMAT, "none.trace: no image has been counted"},
      {"000002.png", DITMOE_FORMAT, "000002.png"},
      {"cut.npz", DITMOE_FORMAT, "cut.npz"},
      {"cut.trace", DITMOE_FORMAT, "cut.trace"},
      {"short.trace", DITMOE_FORMAT, "short.trace"},
      {"later.trace", DITMOE_FORMAT, "version 9"},
      {"@fixtures/metrics/stats_A_pytorch_fid.npz", DITMOE_FORMAT, "stats_A"},
      {"run.npz --diff tokens.npz", DITMOE_MISMATCH, "differ in their tokens"},
      {"run.npz --diff cut.trace", DITMOE_FORMAT, "cut.trace"},
      {"run.npz --class-file bad.tsv -o x.html", DITMOE_FORMAT, "line 1"},
      {"run.npz --class-file many.txt -o x.html", DITMOE_FORMAT, "class 4, but the run has 0 to 3"},
      {"run.npz --png 000002.png", DITMOE_OUTPUT, "exists; --force replaces it"},
      {"run.npz --csv names.txt", DITMOE_OUTPUT, "exists; --force replaces it"},
      {"run.npz --csv .", DITMOE_OUTPUT, "is a folder"},
      {"run.npz --csv no/x", DITMOE_OUTPUT, "cannot be written"},
      {"run.npz --model names.txt", DITMOE_FORMAT, "names.txt"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    assert_exit(run("@heatmap %s", cases[i].arguments), (int)cases[i].code, cases[i].message);
  assert_exit(run("@heatmap tokens.npz --by map --half both --cell 256 --columns 12 --png big.png"),
              DITMOE_USAGE, "pixels: a side has");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(numbers_by_hand), cmocka_unit_test(tables_add_up),
      cmocka_unit_test(values_by_hand),  cmocka_unit_test(differences),
      cmocka_unit_test(arrays),          cmocka_unit_test(options_act),
      cmocka_unit_test(overlays),        cmocka_unit_test(similarity),
      cmocka_unit_test(hostile_names),   cmocka_unit_test(refused_options),
      cmocka_unit_test(bad_inputs),
  };
  return cmocka_run_group_tests(tests, make_inputs, NULL);
}
