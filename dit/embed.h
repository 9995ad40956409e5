/* The condition of a call: time and class. */
#ifndef DIT_EMBED_H
#define DIT_EMBED_H

#include "dit/acts.h"

enum { TIME_FEATURES = 256 };

/* silu_c = silu(time embedding + class embedding), by way of the other arrays. */
void dit_embed_condition(struct exec *ex, const struct dit *model,
                         const struct dit_embedder *embedder, const struct dit_condition_acts *acts,
                         const struct dit_input *in);

/* The sin-cos table [rows cols, D] of a grid: sin and cos of the column, then of the row, in blocks
 * of D / 4 (D a multiple of 4); computed in float64. base > 0: rows and columns are numbered so
 * that `base` of them would span the grid. */
void sincos_positions(float *table, int rows, int cols, int base, int width);

#endif
