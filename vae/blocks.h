/* The blocks of a convolutional autoencoder: what they consist of, and their forward passes.
 * Images are channels-last [height, width, channels], one at a time. */
#ifndef VAE_BLOCKS_H
#define VAE_BLOCKS_H

#include "params/params.h"

enum { VAE_GROUPS = 256 }; /* most groups of a norm */

extern const struct conv_form conv_1x1, conv_3x3;

/* Rows top .. bottom - 1 and columns left .. right - 1 of an image. */
struct box {
  int top, left, bottom, right;
};

/* The tile that is being computed, for norms whose statistics belong to the whole image (tiles.c).
 * Sizes are those of the stage's input; where the image has been doubled they count twice. */
struct tile {
  struct box window; /* the tile's own part, inside its margin */
  int width;         /* of the tile with its margin            */
  int64_t area;      /* of the whole image                     */
  double *moments;   /* [norms, groups, 2], see be_group_moments */
  int sweep, next;   /* moments are known of norms below `sweep`; number of the next norm */
};

/* y [height, width, C] = GroupNorm(x) of eps 1e-6, or silu of it. tile NULL: x is the whole image.
 * At the norm that a sweep is for, the moments of x are added up and the rest of the tile runs
 * dry. */
void norm_forward(struct exec *ex, struct act y, const float *x, const struct norm *norm,
                  int groups, int height, int width, bool silu, struct tile *tile);

/* y = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1 x))))) */
struct resblock {
  int in, out, groups;
  struct norm norm1, norm2;
  struct conv *conv1, *conv2, *shortcut; /* shortcut NULL where in = out */
};
enum { RESBLOCK_NORMS = 2, RESBLOCK_CONVS = 2 };

void resblock_walk(struct resblock *block, struct params *params, int in, int out, int groups,
                   const char *shortcut);
/* y [height, width, out] of x [height, width, in]; y may be x where in = out. */
void resblock_forward(struct exec *ex, const struct resblock *block, float *y, const float *x,
                      int height, int width, struct tile *tile);

/* y [2 height, 2 width, out] = conv(nearest neighbours of x [height, width, in]) */
void double_forward(struct exec *ex, const struct conv *conv, float *y, const float *x, int height,
                    int width);

/* x + out(attention(qkv(GroupNorm(x)))): one head as wide as the image has channels. */
struct attention_block {
  int channels, groups;
  struct norm norm;
  const struct linear *qkv, *out;
};

/* Names of its tensors; files of diffusers before version 0.15 have the second. */
enum { ATTENTION_DIFFUSERS, ATTENTION_DIFFUSERS_OLD, ATTENTION_COMPVIS, ATTENTION_NAMES };
/* usual: the names that are missed where the file has none of them. The matrices may be stored as
 * 1x1 convolutions. */
void attention_walk(struct attention_block *block, struct params *params, int channels, int groups,
                    int usual);
void attention_forward(struct exec *ex, const struct attention_block *block, float *x, int height,
                       int width);

#endif
