/* What is known of published models besides their weights. */
#include "dit/record.h"

struct known_model {
  int kind, width, depth, experts; /* experts 0: any */
  int heads, top_k;
  int objective;
};

/* Sizes of DiT (arXiv 2212.09748), DiT-MoE (arXiv 2407.11633) and ProMoE; 1000 classes. The S and B
 * checkpoints of DiT-MoE are DDPM models, XL and G rectified flow. */
static const struct known_model models[] = {
    {DIT_MOE, 384, 12, 0, 6, 2, OBJECTIVE_DDPM},
    {DIT_MOE, 768, 12, 0, 12, 2, OBJECTIVE_DDPM},
    {DIT_MOE, 1024, 24, 0, 16, 2, OBJECTIVE_DDPM},
    {DIT_MOE, 1152, 28, 0, 16, 2, OBJECTIVE_RF},
    {DIT_MOE, 1408, 40, 0, 16, 2, OBJECTIVE_RF},
    {DIT_PROMOE_TC, 384, 12, 12, 6, 1, OBJECTIVE_RF},
    {DIT_PROMOE_TC, 768, 12, 12, 12, 1, OBJECTIVE_RF},
    {DIT_PROMOE_TC, 1024, 24, 12, 16, 1, OBJECTIVE_RF},
    {DIT_PROMOE_TC, 1152, 28, 12, 16, 1, OBJECTIVE_RF},
    {DIT_DENSE, 384, 12, 0, 6, 0, OBJECTIVE_DDPM},
    {DIT_DENSE, 768, 12, 0, 12, 0, OBJECTIVE_DDPM},
    {DIT_DENSE, 1024, 24, 0, 16, 0, OBJECTIVE_DDPM},
    {DIT_DENSE, 1152, 28, 0, 16, 0, OBJECTIVE_DDPM},
};

static const struct known_model *find(const struct known_shape *shape) {
  if (shape->num_classes != 1000) return NULL;
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    const struct known_model *m = &models[i];
    bool kind = m->kind == shape->kind || (shape->kind == DIT_KINDS && m->kind == DIT_PROMOE_TC);
    if (kind && m->width == shape->width && m->depth == shape->depth &&
        (m->experts == 0 || m->experts == shape->experts))
      return m;
  }
  return NULL;
}

#define SUPPLY(field, member, value)                                                               \
  do {                                                                                             \
    if (!record_has(record, field)) record->member = (value), record->set |= 1u << field;          \
  } while (0)

enum ditmoe_status record_known_model(struct ditmoe_ctx *ctx, struct dit_record *record,
                                      const struct known_shape *shape) {
  const struct known_model *m = find(shape);
  if (!m) return DITMOE_OK;
  SUPPLY(REC_KIND, kind, m->kind);
  SUPPLY(REC_HEADS, heads, m->heads);
  SUPPLY(REC_OBJECTIVE, objective, m->objective);
  SUPPLY(REC_LATENT_SCALE, latent_scale, 0.18215);
  if (m->kind == DIT_PROMOE_TC)
    SUPPLY(REC_ROUTER_WEIGHT_MODE, router_weight_mode, WEIGHTS_IDENTITY);
  if (m->top_k && !record_has(record, REC_TOP_K))
    TRY(record_set_ints(ctx, record, REC_TOP_K, &m->top_k, 1));
  return DITMOE_OK;
}
