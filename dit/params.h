/* The parameters of a model: every row of its table (params/params.h), and where the layers made of
 * them stand in struct dit. */
#ifndef DIT_PARAMS_H
#define DIT_PARAMS_H

#include "dit/config.h"

/* Infers the config, lists the parameters and matches them with the checkpoint, of which nothing
 * more is made. packed: where the layers of a packed file are, or NULL. `model` is cleared; on
 * failure dit_close is still due. */
enum ditmoe_status dit_params(struct exec *ex, struct dit *model,
                              const struct ditmoe_checkpoint *checkpoint,
                              const struct packed *packed, const char *record);
/* What dit_params allocated, except the config. */
void dit_params_free(struct exec *ex, struct dit *model);

/* The mixture of a layer (params_moe.c). */
void list_moe(struct exec *ex, struct dit *model, int layer);
/* An expert or MLP of width D under the prefix; its form is found by the names. *hint is the form
 * of the expert before, tried first. */
void list_expert(struct params *params, struct expert *expert, int D,
                 const struct expert_form **hint);
void moe_free(struct exec *ex, struct dit_moe *moe);

#endif
