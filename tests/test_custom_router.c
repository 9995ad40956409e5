/* A router and a kind of expert that nothing but this file knows: they are found in a checkpoint by
 * the names of their tensors, have parameters and members of the record of their own, route, are
 * counted, packed and saved. */
#include "dit/acts.h"
#include "support.h"

#include "dit/params.h"
#include "ditmoe_routing.h"
#include "synthetic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Token choice with a handicap for each expert and without the best `rank_taken` experts. */
struct ranked {
  struct router_layer layer;
  const float *handicap; /* [E] */
  int rank_taken;
  double patience;
};

static const struct router_key ranked_keys[] = {
    {.key = {.name = "rank_taken",
             .type = RECORD_INT,
             .offset = offsetof(struct ranked, rank_taken),
             .high = 8,
             .need = "which rank its router takes"}},
    {.key = {.name = "patience",
             .type = RECORD_NUMBER,
             .offset = offsetof(struct ranked, patience),
             .high = 1},
     .fallback = 0.5},
};

static void ranked_params(struct router_layer *layer, struct params *params, const char *gate,
                          int D) {
  struct ranked *own = (struct ranked *)layer;
  router_gate(layer, params, gate, D, 0);
  params_floats(params, &own->handicap, 1, (int64_t[1]){layer->experts}, PARAM_FIXED, "handicap");
}

static int64_t ranked_assignments(const struct router_layer *layer, const struct router_input *in) {
  return (int64_t)in->B * in->T * layer->top_k;
}

static void ranked_route(struct exec *ex, const struct router_layer *layer,
                         const struct router_input *in, struct dispatch *d,
                         struct router_trace *trace) {
  const struct ranked *own = (const struct ranked *)layer;
  const int64_t tokens = (int64_t)in->B * in->T;
  float *scores = router_softmax_scores(ex, layer, in, trace);
  be_add_rows(ex, scores, own->handicap, tokens, layer->experts);
  const int64_t n = tokens * layer->experts;
  float *before = be_floats(ex, n);
  be_copy(ex, before, in->logits, (size_t)n * sizeof *before);
  be_copy(ex, in->logits, scores, (size_t)n * sizeof *scores);
  trace->capacity = before; /* for `look` */
  be_assign_topk(ex, d, scores, tokens, layer->experts, layer->top_k, own->rank_taken);
}

static const struct router ranked = {.name = "ranked",
                                     .size = sizeof(struct ranked),
                                     .token_choice = true,
                                     .needs_top_k = true,
                                     .flows = true,
                                     .keys = ranked_keys,
                                     .key_count = 2,
                                     .params = ranked_params,
                                     .assignments = ranked_assignments,
                                     .route = ranked_route};

static const struct mixture ranked_mixture = {.kind = "ranked-dit",
                                              .router = &ranked,
                                              .prefix = "blocks.%d.mlp.",
                                              .gate = "scorer",
                                              .shared = "shared_expert."};
MIXTURE_ENTRY(ranked_mixture);

static const struct expert_kind rectified = {
    .name = "rectified", .rows = ROWS_PRODUCT, .activation = ACTIVATION_RELU};
static const struct expert_form rise_and_fall = {&rectified, "rise", NULL, "fall", true};
EXPERT_FORM_ENTRY(rise_and_fall);

/* Checkpoints: those of ProMoE with other names and without the unconditional expert. */

enum { E = 5, D = 32, K = 2, FAVOURITE = 3, IMAGES = 3, TOKENS = 16 };

static const char record[] = "{\"objective\":\"rf\",\"heads\":2,\"top_k\":2,\"rank_taken\":1}";

static char *renamed(const char *name) {
  static const char *const pairs[][2] = {
      {"cluster_centers", "scorer"}, {"up_proj", "rise"}, {"down_proj", "fall"}};
  char *copy = malloc(strlen(name) + 1);
  assert_non_null(copy);
  strcpy(copy, name);
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    char *place = strstr(copy, pairs[i][0]);
    if (!place) continue;
    const size_t length = strlen(pairs[i][1]);
    memmove(place + length, place + strlen(pairs[i][0]), strlen(place + strlen(pairs[i][0])) + 1);
    memcpy(place, pairs[i][1], length);
  }
  return copy;
}

/* Writes it with this record; handicaps: whether the tensors of this name are there. */
static const char *write_file(const char *name, const char *text, bool handicaps) {
  enum { MOST = 256 };
  static const float handicap[E] = {0, 0, 0, [FAVOURITE] = 10, 0};
  static const char *const extra[] = {"blocks.0.mlp.handicap", "blocks.1.mlp.handicap"};
  struct synthetic spec = synthetic_prototypes;
  struct tensor tensors[MOST];
  size_t count = 0, kept;
  char key[] = CHECKPOINT_RECORD, value[256];
  synthetic_write(&spec, temporary_path("prototypes.safetensors"));
  struct ditmoe_checkpoint *file = checkpoint_of(temporary_path("prototypes.safetensors"));
  for (size_t i = 0; i < file->count; i++) {
    if (strstr(file->tensors[i].name, "experts.5.")) continue;
    tensors[count] = file->tensors[i];
    tensors[count++].name = renamed(file->tensors[i].name);
  }
  kept = count;
  for (int i = 0; handicaps && i < 2; i++)
    tensors[count++] = (struct tensor){extra[i], DT_F32, 1, {E}, E, handicap};
  snprintf(value, sizeof value, "%s", text);
  const struct checkpoint_entry entry = {key, value};
  const char *path = temporary_path(name);
  assert_ok(test_ctx(), safetensors_write(test_ctx(), path, tensors, count, DT_COUNT, &entry, 1));
  for (size_t i = 0; i < kept; i++) free((void *)tensors[i].name);
  ditmoe_checkpoint_close(file);
  return path;
}

static float *predict(const char *path, const char *backend) {
  struct opened o;
  model_open(&o, path, backend, NULL, "f32", 2);
  float *out = malloc(IMAGES * model_output_size(&o) * sizeof *out);
  assert_non_null(out);
  model_predict(&o, out, 0, IMAGES, 0, NULL);
  model_close(&o);
  return out;
}

/* Token t takes the K experts behind the favourite, by its own scores, and each layer sees those of
 * the one before. */
static void look(void *user, struct exec *ex, const struct dit_tap_data *data) {
  static float scores[IMAGES * TOKENS * E], left[IMAGES * TOKENS * E];
  float before[IMAGES * TOKENS * E];
  static int32_t expert[IMAGES * TOKENS * K];
  if (data->point != TAP_ROUTER) return;
  const int64_t tokens = data->trace->rows;
  assert_int_equal(tokens, TOKENS);
  be_download(ex, scores, data->trace->scores, (size_t)(tokens * E) * sizeof *scores);
  be_download(ex, before, data->trace->capacity, (size_t)(tokens * E) * sizeof *before);
  for (int64_t i = 0; i < tokens * E; i++) assert_true(before[i] == left[i]); /* first: 0 */
  memcpy(left, scores, sizeof left);
  be_download(ex, expert, data->dispatch->expert, (size_t)(tokens * K) * sizeof *expert);
  for (int64_t t = 0; t < tokens; t++) {
    const float *own = scores + t * E;
    assert_true(own[FAVOURITE] >= 10 && own[FAVOURITE] < 11);
    for (int k = 0; k < K; k++) {
      int better = 0;
      for (int e = 0; e < E; e++) better += own[e] > own[expert[t * K + k]];
      assert_int_equal(better, 1 + k);
    }
  }
  ++*(int *)user;
}

static void test_routes(void **state) {
  (void)state;
  const char *path = write_file("ranked.safetensors", record, true);
  struct opened o;
  int layers = 0;
  model_open(&o, path, "cpu", NULL, "f32", 1);
  const struct router_layer *layer = o.model->blocks[1].moe->router;
  assert_ptr_equal(layer->router, &ranked);
  assert_int_equal(((const struct ranked *)layer)->rank_taken, 1);
  assert_true(((const struct ranked *)layer)->patience == 0.5);
  static float x[4 * 8 * 8], out[4 * 8 * 8];
  const float time = 0.5F;
  const int32_t label = 1;
  const struct dit_tap tap = {&layers, look};
  for (int i = 0; i < 4 * 8 * 8; i++) x[i] = (float)(i % 7) - 3;
  assert_int_equal(model_output_size(&o), sizeof out / sizeof *out);
  assert_ok(test_ctx(), exec_reserve(&o.ex, dit_predict_bytes(&o.ex, o.model, NULL, 1)));
  assert_ok(test_ctx(),
            dit_predict(
                &o.ex, o.model, out,
                &(struct dit_input){.x = x, .time = &time, .labels = &label, .B = 1, .tap = &tap}));
  assert_int_equal(layers, 2);
  model_close(&o);
}

/* The table has every tensor of the file, each once, and knows what is trained. */
static void test_table(void **state) {
  (void)state;
  struct ditmoe_checkpoint *file = checkpoint_of(write_file("ranked.safetensors", record, true));
  struct opened o;
  uint64_t elements = 0;
  size_t fixed = 0;
  model_open(&o, temporary_path("ranked.safetensors"), "cpu", NULL, "f32", 1);
  const struct params *params = &o.model->params;
  assert_int_equal(params->count, file->count);
  for (size_t i = 0; i < params->count; i++) {
    const struct param *row = &params->row[i];
    const struct tensor *tensor = checkpoint_find(file, row->name);
    assert_non_null(tensor);
    assert_int_equal(row->expert >= 0, strstr(row->name, ".experts.") != NULL);
    elements += (uint64_t)tensor->elements;
    if (!(row->flags & PARAM_FIXED)) continue;
    assert_true(strstr(row->name, "handicap") || strcmp(row->name, "pos_embed") == 0);
    fixed++;
  }
  assert_int_equal(fixed, 3);
  assert_int_equal(params->parameters, elements);
  model_close(&o);
  ditmoe_checkpoint_close(file);
}

static void test_counted(void **state) {
  (void)state;
  static const int32_t labels[IMAGES] = {0, 1, 2};
  static float latents[IMAGES * 4 * 8 * 8];
  const struct ditmoe_model_options options = {.threads = 2};
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_model *model = NULL;
  struct ditmoe_session *session = NULL;
  struct ditmoe_request request = ditmoe_request_default();
  struct ditmoe_model_info info;
  struct ditmoe_routing_info shape;
  struct ditmoe_routing_tables tables;
  assert_ok(ctx, ditmoe_model_open(ctx, write_file("ranked.safetensors", record, true), &options,
                                   &model));
  ditmoe_model_info(model, &info);
  assert_string_equal(info.kind, "ranked-dit");
  assert_int_equal(info.top_k, K);
  request.labels = labels, request.count = IMAGES, request.steps = 2;
  assert_ok(ctx, ditmoe_routing_create(ctx, model, &request, NULL, &request.routing));
  assert_ok(ctx, ditmoe_session_create(ctx, model, NULL, &request, &session));
  assert_ok(ctx, ditmoe_sample(ctx, session, &request, latents, NULL));
  ditmoe_routing_info(request.routing, &shape);
  ditmoe_routing_tables(request.routing, DITMOE_CONDITIONAL, &tables);
  assert_int_equal(shape.experts, E);
  int64_t sum[E] = {0};
  for (int i = 0; i < shape.layers * shape.bins * TOKENS * E; i++) sum[i % E] += tables.counts[i];
  assert_int_equal(sum[FAVOURITE], 0);
  assert_int_equal(sum[0] + sum[1] + sum[2] + sum[4], 2 * 2 * IMAGES * TOKENS * K);
  ditmoe_session_destroy(session);
  ditmoe_routing_destroy(request.routing);
  ditmoe_model_close(model);
}

/* What was saved is the same model, and can be packed; the saved record is complete. */
static void test_saved(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const struct ditmoe_model_options options = {.threads = 2, .dtype = "f32"};
  char path[512], saved[512], packed[512];
  snprintf(path, sizeof path, "%s", write_file("ranked.safetensors", record, true));
  snprintf(saved, sizeof saved, "%s", temporary_path("saved.safetensors"));
  snprintf(packed, sizeof packed, "%s", temporary_path("packed"));
  struct ditmoe_checkpoint *file = checkpoint_of(path);
  struct opened o;
  model_open(&o, path, "cpu", NULL, "f32", 1);
  assert_ok(ctx, dit_save(ctx, o.model, file, saved));
  struct ditmoe_checkpoint *empty = checkpoint_of(temporary_path("prototypes.safetensors"));
  assert_fails(ctx, DITMOE_MISMATCH, "holds no values of blocks.0.mlp.scorer",
               dit_save(ctx, o.model, empty, temporary_path("none.safetensors")));
  ditmoe_checkpoint_close(empty);
  model_close(&o);
  ditmoe_checkpoint_close(file);
  assert_ok(ctx, ditmoe_model_pack(ctx, saved, &options, packed));
  struct ditmoe_checkpoint *written = checkpoint_of(saved);
  const char *text = checkpoint_metadata(written, CHECKPOINT_RECORD);
  assert_non_null(strstr(text, "\"kind\":\"ranked-dit\""));
  assert_non_null(strstr(text, "\"rank_taken\":1"));
  assert_non_null(strstr(text, "\"patience\":0.5"));
  ditmoe_checkpoint_close(written);
  float *expected = predict(path, "cpu"), *again = predict(saved, "cpu");
  const size_t bytes = IMAGES * 4 * 8 * 8 * sizeof(float);
  assert_memory_equal(expected, again, bytes);
  free(again);
  struct ditmoe_model *model = NULL;
  assert_ok(ctx, ditmoe_model_open(ctx, packed, &options, &model));
  assert_non_null(strstr(ditmoe_model_record(model), "\"rank_taken\":1"));
  ditmoe_model_close(model);
  free(expected);
}

static void test_refused(void **state) {
  (void)state;
  static const struct {
    const char *record, *text;
    bool handicaps;
    enum ditmoe_status status;
  } cases[] = {
      {"{\"objective\":\"rf\",\"heads\":2,\"top_k\":2}",
       "the weights do not tell which rank its router takes; give rank_taken in a record", true,
       DITMOE_USAGE},
      {"{\"objective\":\"rf\",\"heads\":2,\"rank_taken\":1}", "--top-k", true, DITMOE_USAGE},
      {"{\"objective\":\"rf\",\"heads\":2,\"top_k\":2,\"rank_taken\":9}",
       "\"rank_taken\" must be a number from 0 to 8", true, DITMOE_FORMAT},
      {record, "missing blocks.0.mlp.handicap [5]", false, DITMOE_MISMATCH},
      {"{\"objective\":\"rf\",\"heads\":2,\"top_k\":2,\"rank_taken\":1,\"kind\":\"tc-dit\"}",
       "the tensors are those of ranked-dit, but the record or --kind says tc-dit", true,
       DITMOE_MISMATCH},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct ditmoe_model *model = NULL;
    const char *path = write_file("refused.safetensors", cases[i].record, cases[i].handicaps);
    assert_fails(test_ctx(), cases[i].status, cases[i].text,
                 ditmoe_model_open(test_ctx(), path, NULL, &model));
  }
}

/* y = fall relu(rise x + b) + b, by hand from the tensors. */
static void check_expert(struct opened *o, const struct ditmoe_checkpoint *file, int e) {
  static const char *const names[] = {"rise.weight", "rise.bias", "fall.weight", "fall.bias"};
  float *part[4], x[D], y[D], expected[D], hidden[64];
  const struct expert *expert = &o->model->blocks[1].moe->bank.expert[e];
  const int F = expert->hidden;
  char name[96];
  for (int i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "blocks.1.mlp.experts.%d.%s", e, names[i]);
    part[i] = tensor_f32(file, name, NULL);
  }
  assert_ptr_equal(expert->kind, &rectified);
  for (int i = 0; i < D; i++) x[i] = (float)((i * 7 + e) % 11) / 5 - 1;
  for (int f = 0; f < F; f++) {
    hidden[f] = part[1][f];
    for (int i = 0; i < D; i++) hidden[f] += part[0][f * D + i] * x[i];
    if (hidden[f] < 0) hidden[f] = 0;
  }
  for (int i = 0; i < D; i++) {
    expected[i] = part[3][i];
    for (int f = 0; f < F; f++) expected[i] += part[2][i * F + f] * hidden[f];
  }
  assert_ok(test_ctx(), exec_reserve(&o->ex, 1 << 20));
  ffn_forward(&o->ex, expert, y, act_f32(hidden), act_f32(x), 1);
  assert_ok(test_ctx(), o->ex.status);
  assert_within("the expert", relative_l2(y, expected, D), 1e-6);
  for (int i = 0; i < 4; i++) free(part[i]);
}

static void test_expert_kind(void **state) {
  (void)state;
  const char *path = write_file("ranked.safetensors", record, true);
  struct ditmoe_checkpoint *file = checkpoint_of(path);
  struct opened o;
  for (int i = 0; i < 2; i++) {
    model_open(&o, path, i ? "cpu" : "ref", NULL, "f32", 1);
    for (int e = 0; e < E; e++) check_expert(&o, file, e);
    model_close(&o);
  }
  float *ref = predict(path, "ref"), *cpu = predict(path, "cpu");
  assert_within("all", relative_l2(cpu, ref, IMAGES * 4 * 8 * 8), 3e-6);
  free(ref), free(cpu);
  ditmoe_checkpoint_close(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_routes),  cmocka_unit_test(test_table),
      cmocka_unit_test(test_counted), cmocka_unit_test(test_saved),
      cmocka_unit_test(test_refused), cmocka_unit_test(test_expert_kind),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
