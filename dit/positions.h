/* Where a token is in its image, and in-context tokens, which have no place there. */
#ifndef DIT_POSITIONS_H
#define DIT_POSITIONS_H

#include "dit/acts.h"

/* The sin-cos table [rows cols, D] of a grid: sin and cos of the column, then of the row, in blocks
 * of D / 4 (D a multiple of 4); computed in float64. base > 0: rows and columns are numbered so
 * that `base` of them would span the grid. */
void sincos_positions(float *table, int rows, int cols, int base, int width);
/* Cosines and sines [rows cols, pairs] of a grid for struct rope, pairs = d / 2: the first half of
 * them has the angles row * 10000^(-j / (d / 4)), the second those of the column; computed in f32
 * as the original programs do. */
void rope_table(float *cosines, float *sines, int rows, int cols, int pairs);

/* Turns q and k of a block's qkv [B, T, 3, H, d] by the positions of their tokens, 1, or back, -1,
 * where the model has such. */
void positions_turn(struct exec *ex, const struct dit *model, int layer, float *qkv,
                    float direction, const struct dit_input *in);

/* acts->x [B, T, D] becomes [B, prefix + T, D]: before an image its in-context tokens, the row of
 * its label + their positions. Memory is left in the arena. And back. */
void prefix_put(struct exec *ex, const struct dit *model, struct dit_acts *acts,
                const struct dit_input *in);
void prefix_drop(struct exec *ex, const struct dit *model, struct dit_acts *acts,
                 const struct dit_input *in);

#endif
