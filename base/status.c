/* Contexts, error text and warnings. */
#include "base/status.h"
#include "base/span.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *default_alloc(void *user, size_t size) {
  (void)user;
  return size > SIZE_MAX - 63 ? NULL : aligned_alloc(64, (size + 63) & ~(size_t)63);
}

static void default_release(void *user, void *memory) {
  (void)user;
  free(memory);
}

const char *ditmoe_version(void) { return DITMOE_VERSION; }

struct ditmoe_ctx *ditmoe_ctx_create(const struct ditmoe_hooks *hooks) {
  struct ditmoe_hooks used = {0};
  if (hooks) used = *hooks;
  if (!used.alloc || !used.release) {
    used.alloc = default_alloc;
    used.release = default_release;
  }
  struct ditmoe_ctx *ctx = used.alloc(used.user, sizeof *ctx);
  if (!ctx) return NULL;
  *ctx = (struct ditmoe_ctx){.hooks = used, .allocations = 1};
  return ctx;
}

void ditmoe_ctx_destroy(struct ditmoe_ctx *ctx) {
  if (!ctx) return;
  struct ditmoe_hooks hooks = ctx->hooks;
  hooks.release(hooks.user, ctx);
}

const char *ditmoe_errmsg(const struct ditmoe_ctx *ctx) { return ctx->error; }

uint64_t ditmoe_allocations(const struct ditmoe_ctx *ctx) { return ctx->allocations; }

/* One printable line: every byte that is not part of a printable UTF-8 character becomes '?'. */
static void make_printable(char *text) {
  size_t length = strlen(text);
  for (size_t i = 0, step; i < length; i += step) {
    step = utf8_printable_step((const uint8_t *)text + i, length - i);
    if (step) continue;
    text[i] = '?';
    step = 1;
  }
}

enum ditmoe_status(fail)(struct ditmoe_ctx *ctx, enum ditmoe_status code, const char *format, ...) {
  char line[sizeof ctx->error]; /* the arguments may include the previous text */
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (length < 0) line[0] = '\0';
  make_printable(line);
  memcpy(ctx->error, line, sizeof line);
  ctx->status = code;
  return code;
}

void warn(struct ditmoe_ctx *ctx, const char *format, ...) {
  if (!ctx->hooks.warn) return;
  char line[sizeof ctx->error];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (length < 0) return;
  make_printable(line);
  ctx->hooks.warn(ctx->hooks.user, line);
}
