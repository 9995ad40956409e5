/* What the tests share: paths, a context, tensors of a file, comparisons. Every helper that cannot
 * do its work fails the running test. Include it instead of cmocka.h. */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
/* The library has a function `fail`; fail_msg stays, without the macro of that name. */
#undef fail
#undef fail_msg
#define fail_msg(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

#include "ditmoe.h"

/* Paths live in a ring of 4 buffers. The roots are environment variables: DITMOE_FIXTURES (the
 * unpacked fixtures, required), DITMOE_SOURCE (the source tree, by default the working directory)
 * and DITMOE_BIN (the programs, required). */
const char *fixture_path(const char *relative);
const char *source_path(const char *relative);
const char *program_path(const char *name);
/* A path inside a folder that is made on first use and removed, with all in it, at the end. */
const char *temporary_path(const char *name);

/* Instruction tiers, whether this machine has them or not. */
enum { TIERS = 5 };
extern const char *const tiers[TIERS];

/* One context for the whole executable, destroyed at the end. Its last warning, "" without any. */
struct ditmoe_ctx *test_ctx(void);
const char *test_warning(void);

/* A context that fails allocation number `at` (from 0, after its own) and no other; at < 0: none.
 * One at a time, destroyed by the caller. faulty_held is the number of blocks that are still out,
 * faulty_fired whether allocation `at` was asked for. */
struct ditmoe_ctx *faulty_ctx(int64_t at);
int64_t faulty_held(void);
int faulty_fired(void);

/* The call succeeds, or the test fails with the context's message. */
#define assert_ok(ctx, call) assert_ok_((ctx), (call), #call, __FILE__, __LINE__)
/* The call fails with `code` and a one-line message that contains `text`. */
#define assert_fails(ctx, code, text, call)                                                        \
  assert_fails_((ctx), (code), (text), (call), #call, __FILE__, __LINE__)
void assert_ok_(struct ditmoe_ctx *ctx, enum ditmoe_status status, const char *call,
                const char *file, int line);
void assert_fails_(struct ditmoe_ctx *ctx, enum ditmoe_status code, const char *text,
                   enum ditmoe_status status, const char *call, const char *file, int line);

/* Tensors of a checkpoint, converted; free() the result. *count may be NULL. */
struct ditmoe_checkpoint *checkpoint_of(const char *path); /* closed by the caller */
float *tensor_f32(const struct ditmoe_checkpoint *checkpoint, const char *name, int64_t *count);
double *tensor_f64(const struct ditmoe_checkpoint *checkpoint, const char *name, int64_t *count);
int64_t *tensor_i64(const struct ditmoe_checkpoint *checkpoint, const char *name, int64_t *count);
/* Whole file, zero-terminated; free() the result. *size may be NULL. */
char *file_bytes(const char *path, size_t *size);
/* Entries of a folder. */
int files_in(const char *path);

/* |value - reference| / |reference| in the 2-norm, and the largest difference over the largest
 * magnitude of the reference. Infinite if any difference is not finite. */
double relative_l2(const float *value, const float *reference, int64_t n);
double relative_l2_f64(const float *value, const double *reference, int64_t n);
double relative_max(const float *value, const float *reference, int64_t n);
double relative_max_f64(const float *value, const double *reference, int64_t n);

/* Fails the test, naming `what`, the value and the limit, unless value <= limit. */
#define assert_within(what, value, limit) assert_within_(what, value, limit, __FILE__, __LINE__)
void assert_within_(const char *what, double value, double limit, const char *file, int line);

#endif
