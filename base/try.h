/* Passing the status of a call that failed to the caller. The programs include this, too. */
#ifndef BASE_TRY_H
#define BASE_TRY_H

#include "ditmoe.h"

/* Returns the status of a call that failed, from the calling function. */
#define TRY(call)                                                                                  \
  do {                                                                                             \
    enum ditmoe_status try_status_ = (call);                                                       \
    if (try_status_ != DITMOE_OK) return try_status_;                                              \
  } while (0)

/* The same with clean-up: sets `status` and jumps to `done`. */
#define TRY_DONE(call)                                                                             \
  do {                                                                                             \
    if ((status = (call)) != DITMOE_OK) goto done;                                                 \
  } while (0)

#endif
