/* Where the executor gets expert weights from, if not all of them are in memory all the time. It
 * runs a layer in waves: the store says which experts are ready, their rows are computed, and the
 * next call of the store may take their weights away. So a budget smaller than a layer works. */
#ifndef DIT_EXPERTS_H
#define DIT_EXPERTS_H

#include "backend/backend.h"

struct expert_store {
  /* Whether `wave` wants to know the rows. */
  bool wants_rows;
  /* The next experts of a layer's bank, false after the last: every expert with rows was in one
   * wave then, and all are given back. number: 0, 1, ... within a layer. rows [E] (host): rows of
   * each expert, or NULL. A failure is recorded in `ex` and ends the layer. What the wave points to
   * is the store's. */
  bool (*wave)(struct expert_store *self, struct exec *ex, int layer, int number,
               const int32_t *rows, struct expert_wave *out);
};

#endif
