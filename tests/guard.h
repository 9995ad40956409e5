/* A backend as strict as a device of its own: it hands all work to another backend, but its memory
 * is closed to the host except while an operation runs, and it writes down what it is asked. */
#ifndef TESTS_GUARD_H
#define TESTS_GUARD_H

#include "backend/backend.h"

#include <stdio.h>

struct guard {
  struct backend_ops ops; /* the table of the guarded execution; first, so that it finds the rest */
  struct device device;
  const struct backend_ops *real;
  char *memory; /* of the device: all that it allocates in an operation, weights included */
  size_t used;
  int running;  /* operations now; the memory is open unless 0 */
  FILE *record; /* one line an operation but for sync, or NULL */
};

/* An execution on `backend` behind a guard, with a context of its own; fails the test if there is
 * none. The table has what a forward pass calls: gradients and packed layers are left out, and so
 * is an operation that tests/guard.c does not list. One thread, one execution.
 *
 * An operation whose arrays are not in memory of the device fails, and so does an upload from there
 * or a download to there. In the record addresses are offsets, a+ within the arena and m+ within
 * all memory; those of the host are left out. */
void guard_open(struct guard *guard, struct exec *ex, const char *backend, const char *dtype,
                int threads);
void guard_close(struct guard *guard, struct exec *ex);

#endif
