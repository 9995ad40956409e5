/* Paths, contexts and comparisons for the tests. */
#include "tests/support.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const tiers[TIERS] = {"generic", "avx2", "avx512", "avx512bf16", "amx"};

enum { PATH_RING = 4, PATH_SIZE = 1024 };

static const char *ring_path(const char *folder, const char *name) {
  static char ring[PATH_RING][PATH_SIZE];
  static unsigned next;
  char *path = ring[next++ % PATH_RING];
  if (snprintf(path, PATH_SIZE, "%s/%s", folder, name) >= PATH_SIZE) fail_msg("%s: too long", name);
  return path;
}

static const char *root(const char *variable, const char *otherwise) {
  const char *value = getenv(variable);
  if (!value) value = otherwise;
  if (!value) fail_msg("the environment variable %s is not set", variable);
  return value;
}

const char *fixture_path(const char *relative) {
  return ring_path(root("DITMOE_FIXTURES", NULL), relative);
}

const char *source_path(const char *relative) {
  return ring_path(root("DITMOE_SOURCE", "."), relative);
}

const char *program_path(const char *name) { return ring_path(root("DITMOE_BIN", NULL), name); }

static char temporary[PATH_SIZE];

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk) {
  (void)status, (void)type, (void)walk;
  return remove(path);
}

/* A child that a test forked inherits the handler, but the folder belongs to its parent. */
static pid_t temporary_owner;

static void temporary_remove(void) {
  if (getpid() == temporary_owner) nftw(temporary, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *temporary_path(const char *name) {
  if (!temporary[0]) {
    const char *parent = getenv("TMPDIR");
    snprintf(temporary, sizeof temporary, "%s/ditmoe-test-XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(temporary)) fail_msg("%s: %s", temporary, strerror(errno));
    temporary_owner = getpid();
    atexit(temporary_remove);
  }
  return ring_path(temporary, name);
}

static struct ditmoe_ctx *context;
static char warning[1024];

static void keep_warning(void *user, const char *line) {
  (void)user;
  snprintf(warning, sizeof warning, "%s", line);
}

static void context_destroy(void) { ditmoe_ctx_destroy(context); }

struct ditmoe_ctx *test_ctx(void) {
  if (!context) {
    context = ditmoe_ctx_create(&(struct ditmoe_hooks){.warn = keep_warning});
    assert_non_null(context);
    atexit(context_destroy);
  }
  return context;
}

const char *test_warning(void) { return warning; }

static struct { int64_t at, asked, held; } fault;

static void *fault_alloc(void *user, size_t size) {
  (void)user;
  if (fault.asked++ == fault.at) return NULL;
  void *block = aligned_alloc(64, (size + 63) / 64 * 64);
  fault.held += block != NULL;
  return block;
}

static void fault_release(void *user, void *memory) {
  (void)user;
  fault.held -= memory != NULL;
  free(memory);
}

struct ditmoe_ctx *faulty_ctx(int64_t at) {
  struct ditmoe_hooks hooks = {.alloc = fault_alloc, .release = fault_release};
  fault.at = -1, fault.asked = 0, fault.held = 0;
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(&hooks);
  assert_non_null(ctx);
  fault.at = at, fault.asked = 0, fault.held = 0;
  return ctx;
}

int64_t faulty_held(void) { return fault.held; }
int faulty_fired(void) { return fault.at >= 0 && fault.asked > fault.at; }

void assert_ok_(struct ditmoe_ctx *ctx, enum ditmoe_status status, const char *call,
                const char *file, int line) {
  if (status == DITMOE_OK) return;
  print_error("%s\n  status %d: %s\n", call, (int)status, ditmoe_errmsg(ctx));
  _fail(file, line);
}

void assert_fails_(struct ditmoe_ctx *ctx, enum ditmoe_status code, const char *text,
                   enum ditmoe_status status, const char *call, const char *file, int line) {
  const char *message = status == DITMOE_OK ? "" : ditmoe_errmsg(ctx);
  if (status == code && strstr(message, text) && !strchr(message, '\n')) return;
  print_error("%s\n  status %d, expected %d\n  message \"%s\"\n  expected one line with \"%s\"\n",
              call, (int)status, (int)code, message, text);
  _fail(file, line);
}

/* The sums of squares and the largest magnitudes of a difference and of its reference. */
struct norms {
  double difference2, reference2, difference, reference;
};

static void norms_add(struct norms *n, double value, double reference) {
  double d = value == reference ? 0 : fabs(value - reference);
  if (!isfinite(d)) d = INFINITY;
  n->difference2 += d * d;
  n->reference2 += reference * reference;
  n->difference = fmax(n->difference, d);
  n->reference = fmax(n->reference, fabs(reference));
}

/* A reference of zeros makes any difference infinite. */
static double ratio(double difference, double reference) {
  if (isinf(difference)) return INFINITY;
  return difference == 0 ? 0 : difference / reference;
}

static struct norms norms_f32(const float *value, const float *reference, int64_t n) {
  struct norms norms = {0};
  for (int64_t i = 0; i < n; i++) norms_add(&norms, value[i], reference[i]);
  return norms;
}

static struct norms norms_f64(const float *value, const double *reference, int64_t n) {
  struct norms norms = {0};
  for (int64_t i = 0; i < n; i++) norms_add(&norms, value[i], reference[i]);
  return norms;
}

static double l2_of(struct norms n) { return sqrt(ratio(n.difference2, n.reference2)); }
static double max_of(struct norms n) { return ratio(n.difference, n.reference); }

double relative_l2(const float *value, const float *reference, int64_t n) {
  return l2_of(norms_f32(value, reference, n));
}

double relative_l2_f64(const float *value, const double *reference, int64_t n) {
  return l2_of(norms_f64(value, reference, n));
}

double relative_max(const float *value, const float *reference, int64_t n) {
  return max_of(norms_f32(value, reference, n));
}

double relative_max_f64(const float *value, const double *reference, int64_t n) {
  return max_of(norms_f64(value, reference, n));
}

void assert_within_(const char *what, double value, double limit, const char *file, int line) {
  if (value <= limit) return;
  print_error("%s: %.3g, limit %.3g\n", what, value, limit);
  _fail(file, line);
}

char *file_bytes(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file) fail_msg("%s: %s", path, strerror(errno));
  char *bytes = NULL;
  size_t length = 0;
  FILE *memory = open_memstream(&bytes, &length);
  char block[1 << 16];
  assert_non_null(memory);
  for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;) fwrite(block, 1, n, memory);
  assert_int_equal(ferror(file), 0);
  fclose(file);
  fclose(memory);
  if (size) *size = length;
  return bytes;
}

int files_in(const char *path) {
  DIR *folder = opendir(path);
  int count = 0;
  assert_non_null(folder);
  while (readdir(folder)) count++;
  closedir(folder);
  return count - 2;
}
