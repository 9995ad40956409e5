/* The condition of a call: time and class. */
#ifndef DIT_EMBED_H
#define DIT_EMBED_H

#include "dit/acts.h"

enum { TIME_FEATURES = 256 };

/* silu_c = silu(time embedding + class embedding), by way of the other arrays. */
void dit_embed_condition(struct exec *ex, const struct dit *model,
                         const struct dit_embedder *embedder, const struct dit_condition_acts *acts,
                         const struct dit_input *in);

#endif
