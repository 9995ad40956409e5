/* Where the executor gets expert weights from. A weight may be used between acquire and release
 * only: a store may bring it from elsewhere in the first and drop it in the second. */
#ifndef DIT_EXPERTS_H
#define DIT_EXPERTS_H

#include "backend/backend.h"

struct expert_store {
  /* NULL after a failure, which is recorded in `ex`. */
  const struct expert *(*acquire)(struct expert_store *self, struct exec *ex, int layer,
                                  int expert);
  void (*release)(struct expert_store *self, struct exec *ex, int layer, int expert);
};

/* All experts in memory, all the time. */
struct resident_experts {
  struct expert_store store;
  struct expert **layers; /* [depth] arrays of experts, NULL for a dense layer */
};

void resident_experts_init(struct resident_experts *resident, struct expert **layers);

#endif
