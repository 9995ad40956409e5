/* Sizes and rules of a model, inferred from the shapes of its tensors and its record. */
#ifndef DIT_CONFIG_H
#define DIT_CONFIG_H

#include "dit/dit.h"
#include "dit/names.h"

/* The sources of the record that are files: `__metadata__`, then JSON beside the checkpoint.
 * DITMOE_MISMATCH: a configuration of this model contradicts the sizes of its weights. */
enum ditmoe_status record_read_files(struct ditmoe_ctx *ctx, struct dit_config *config,
                                     const struct ditmoe_checkpoint *checkpoint);
/* Positions in a row, 0 if nothing tells yet. */
int config_side(const struct dit_config *config);

/* Fills the config; overrides (JSON text, or NULL) come first. On failure config_free is still due.
 * DITMOE_MISMATCH: not a model of a known kind; DITMOE_USAGE: something the weights do not tell is
 * missing, and the message says which flag gives it. */
enum ditmoe_status config_infer(struct ditmoe_ctx *ctx, struct dit_config *config,
                                const struct ditmoe_checkpoint *checkpoint, const char *overrides);
/* The kind that the tensors are of. DITMOE_MISMATCH: no model of a known one. */
enum ditmoe_status config_kind(struct ditmoe_ctx *ctx, const struct ditmoe_checkpoint *checkpoint,
                               const struct mixture **kind);
void config_free(struct ditmoe_ctx *ctx, struct dit_config *config);

/* The tensor by which a layer's mixture is known, [E, D]; NULL: the layer has none of this kind. */
const struct tensor *mixture_gate(const struct ditmoe_checkpoint *checkpoint,
                                  const struct mixture *mixture, int layer);

#endif
