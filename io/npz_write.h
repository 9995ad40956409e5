/* What the writer of .npz files does besides ditmoe_npz_* of ditmoe.h. Private to io/ and its
 * tests. */
#ifndef IO_NPZ_WRITE_H
#define IO_NPZ_WRITE_H

#include "base/status.h"

/* As ditmoe_npz_write of `size` zeros, without touching them: they become a hole in the file, so
 * that files of any size can be made at once. */
enum ditmoe_status npz_write_hole(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz, uint64_t size);

#endif
