/* A checkpoint record: read as ours and as somebody else's configuration, written, read again; its
 * scheduler followed by every sampler. */
#include "api/scheduler.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A router of which the record alone knows: its members are of every type. */
static const struct record_choice modes[] = {{"identity", 0}, {"softmax", 1}, {NULL, 0}};
static const struct router_key keys[] = {
    {.key = {.name = "capacity", .type = RECORD_NUMBER, .high = 4096}},
    {.key = {.name = "uncond_label", .type = RECORD_INT, .high = 1 << 30}},
    {.key = {.name = "router_weight_mode", .type = RECORD_CHOICE, .low = 1, .choices = modes}},
};
static const struct router router = {.name = "fuzz", .keys = keys, .key_count = 3};
static const struct mixture mixture = {.kind = "promoe-tc", .alias = "fuzz", .router = &router};
MIXTURE_ENTRY(mixture);

static void follow(struct ditmoe_ctx *ctx, const struct dit_record *record) {
  const struct sampler *sampler;
  double *betas = NULL;
  if (scheduler_open(ctx, record, &betas) != DITMOE_OK) return;
  for (int i = 0; (sampler = sampler_at(i)); i++) {
    struct schedule_request request = {.train_steps = 1000};
    struct schedule schedule;
    if (scheduler_follow(ctx, record, betas, sampler, &request) != DITMOE_OK) continue;
    request.steps = 4, request.shift = 1;
    if (sampler->plan(ctx, &request, &schedule) == DITMOE_OK) schedule_free(ctx, &schedule);
  }
  mem_free(ctx, betas);
}

static void read_record(struct ditmoe_ctx *ctx, const cJSON *tree, enum record_trust trust) {
  const struct record_origin origin = {"fuzz", trust, NULL};
  struct dit_record record = {0};
  char *text = NULL;
  if (record_read_json(ctx, &record, &origin, tree) == DITMOE_OK &&
      record_write_json(ctx, &record, &text) == DITMOE_OK) {
    mem_free(ctx, text);
    follow(ctx, &record);
  }
  record_free(ctx, &record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  cJSON *tree = NULL;
  if (json_parse(ctx, "fuzz", (const char *)data, size, &tree) == DITMOE_OK) {
    for (enum record_trust trust = RECORD_GIVEN; trust <= RECORD_FOREIGN; trust++)
      read_record(ctx, tree, trust);
    cJSON_Delete(tree);
  }
  ditmoe_ctx_destroy(ctx);
  return 0;
}
