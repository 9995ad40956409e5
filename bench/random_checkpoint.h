/* Checkpoints of random values, of any size for little memory: all tensors look into one block. */
#ifndef BENCH_RANDOM_CHECKPOINT_H
#define BENCH_RANDOM_CHECKPOINT_H

#include "io/checkpoint.h"

enum fill { FILL_RANDOM, FILL_ONES }; /* normal with standard deviation 0.02, or 1 */

/* Names and shapes of the tensors to come. */
struct blueprint {
  struct blueprint_tensor {
    char *name;
    enum fill fill;
    int rank;
    int64_t shape[4], elements;
  } * tensors;
  size_t count, room;
  char *record; /* JSON, or NULL */
};

void blueprint_add(struct blueprint *blueprint, enum fill fill, int rank, const int64_t *shape,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));
/* NAME.weight [out, in], and NAME.bias [out]. */
void blueprint_linear(struct blueprint *blueprint, bool bias, int out, int in, const char *name);
/* Elements of all tensors. */
int64_t blueprint_elements(const struct blueprint *blueprint);
void blueprint_free(struct blueprint *blueprint);

/* A checkpoint called `path` without a file behind it, in DT_F32 or DT_BF16. */
enum ditmoe_status random_checkpoint(struct ditmoe_ctx *ctx, const struct blueprint *blueprint,
                                     const char *path, enum dtype dtype, uint64_t seed,
                                     struct ditmoe_checkpoint **out);

#endif
