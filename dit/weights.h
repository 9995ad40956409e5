/* Walks over a model and binds every part to its tensors. */
#ifndef DIT_WEIGHTS_H
#define DIT_WEIGHTS_H

#include "dit/binder.h"

/* Checks all tensors, then makes all weights of b->model, whose config is inferred; b has backend,
 * checkpoint, packed and sink. */
enum ditmoe_status weights_bind(struct binder *b);
void weights_free(struct exec *ex, struct dit *model);

/* The mixture of a layer (weights_moe.c). */
enum ditmoe_status bind_moe(struct binder *b, int layer);
/* An expert or MLP with tensors under `prefix`; its form is found by the names. *hint is the form
 * of the expert before, tried first. */
enum ditmoe_status bind_expert(struct binder *b, struct expert *expert, const char *prefix,
                               const struct expert_form **hint);
void free_moe(struct exec *ex, struct dit *model, int layer);
void free_expert(struct exec *ex, struct expert *expert);

#endif
