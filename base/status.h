/* The context that every fallible function takes first: error text, warnings, memory hooks. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include "base/try.h"

#include <stdarg.h>
#include <stdbool.h>

struct ditmoe_ctx {
  struct ditmoe_hooks hooks;
  uint64_t allocations;
  enum ditmoe_status status; /* of the last failure */
  char error[1024];
};

/* Records the failure and returns its code: `return fail(ctx, DITMOE_FORMAT, "%s: ...", path);`.
 * Control characters of the arguments are replaced, so that a name from a file cannot drive a
 * terminal. */
enum ditmoe_status fail(struct ditmoe_ctx *ctx, enum ditmoe_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Lets a compiler that sees only the caller know that the result is the code. */
static inline enum ditmoe_status failed(enum ditmoe_status recorded, enum ditmoe_status code) {
  (void)recorded;
  return code;
}
#define fail(ctx, code, ...) failed(fail(ctx, code, __VA_ARGS__), code)

void warn(struct ditmoe_ctx *ctx, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
