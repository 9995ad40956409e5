/* What is known of published models besides their weights. */
#include "dit/record.h"

#include <string.h>

struct known_model {
  const char *kind;
  int width, depth, experts; /* experts 0: any */
  const char *record;
};

#define SIZE(heads) "{\"heads\":" #heads ",\"latent_scale\":0.18215"
#define DDPM(heads) SIZE(heads) ",\"objective\":\"ddpm\""
#define FLOW(heads) SIZE(heads) ",\"objective\":\"rf\""
#define TOP_2       ",\"top_k\":2}"
#define GATE(k, groups, factor)                                                                    \
  ",\"top_k\":" #k ",\"n_group\":" #groups ",\"topk_group\":" #groups                              \
  ",\"routed_scaling_factor\":" #factor "}"
#define PROMOE ",\"top_k\":1,\"kind\":\"promoe-tc\",\"router_weight_mode\":\"identity\"}"

/* Sizes of DiT (arXiv 2212.09748), DiT-MoE (arXiv 2407.11633) and ProMoE; 1000 classes. The S and B
 * checkpoints of DiT-MoE are DDPM models, XL and G rectified flow. Dense models of one size come
 * with either objective: dit/families.c. */
static const struct known_model models[] = {
    {"dit-moe", 384, 12, 0, DDPM(6) TOP_2},
    {"dit-moe", 768, 12, 0, DDPM(12) TOP_2},
    {"dit-moe", 1024, 24, 0, DDPM(16) TOP_2},
    {"dit-moe", 1152, 28, 0, FLOW(16) TOP_2},
    {"dit-moe", 1408, 40, 0, FLOW(16) TOP_2},
    {"promoe-tc", 384, 12, 12, FLOW(6) PROMOE},
    {"promoe-tc", 768, 12, 12, FLOW(12) PROMOE},
    {"promoe-tc", 1024, 24, 12, FLOW(16) PROMOE},
    {"promoe-tc", 1152, 28, 12, FLOW(16) PROMOE},
    {"dsmoe", 768, 10, 16, SIZE(12) GATE(2, 2, 2)},
    {"dsmoe", 768, 12, 48, SIZE(12) GATE(5, 1, 2.5)},
    {"jitmoe", 768, 10, 16, "{\"heads\":12,\"in_context_start\":4" GATE(2, 2, 2.5)},
    {"dit", 384, 12, 0, SIZE(6) "}"},
    {"dit", 768, 12, 0, SIZE(12) "}"},
    {"dit", 1024, 24, 0, SIZE(16) "}"},
    {"dit", 1152, 28, 0, SIZE(16) "}"},
};

static bool is_kind(const struct known_model *m, const struct known_shape *shape) {
  const struct mixture *kind = mixture_find(m->kind), *family = shape->family;
  if (shape->kind) return kind == shape->kind;
  return kind == family ||
         (kind->family && family->family && strcmp(kind->family, family->family) == 0);
}

enum ditmoe_status record_known_model(struct ditmoe_ctx *ctx, struct dit_record *record,
                                      const struct known_shape *shape) {
  for (size_t i = 0; shape->num_classes == 1000 && i < sizeof models / sizeof *models; i++) {
    const struct known_model *m = &models[i];
    if (!is_kind(m, shape) || m->width != shape->width || m->depth != shape->depth ||
        (m->experts && m->experts != shape->experts))
      continue;
    const struct record_origin origin = {"published models", RECORD_STORED, NULL};
    return record_read_text(ctx, record, &origin, m->record);
  }
  return DITMOE_OK;
}
