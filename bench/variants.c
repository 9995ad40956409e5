/* Variants: what --dtype, --tier and --threads list, and their backends. */
#include "bench/bench.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ITEMS = MAX_VARIANTS, MAX_THREADS = 1024 };

/* Cuts "a,b" into its parts, in place. text NULL: one part, NULL. */
static enum ditmoe_status split(const char *option, char *text, const char *parts[MAX_ITEMS],
                                int *count) {
  char *rest = NULL;
  *count = 0;
  if (!text) parts[(*count)++] = NULL;
  for (char *part = text ? strtok_r(text, ",", &rest) : NULL; part;
       part = strtok_r(NULL, ",", &rest)) {
    if (*count == MAX_ITEMS)
      return report_error(DITMOE_USAGE, "--%s: more than %d values", option, MAX_ITEMS);
    parts[(*count)++] = part;
  }
  return *count ? DITMOE_OK : report_error(DITMOE_USAGE, "--%s: the list is empty", option);
}

static enum ditmoe_status read_threads(const char *text, int *out) {
  char *end = NULL;
  long value = text ? strtol(text, &end, 10) : 0;
  if (text && (end == text || *end || value < 1 || value > MAX_THREADS))
    return report_error(DITMOE_USAGE, "--threads: \"%.40s\" is not a whole number from 1 to %d",
                        text, MAX_THREADS);
  *out = (int)value;
  return DITMOE_OK;
}

enum ditmoe_status variants_read(struct bench *bench) {
  static const char *const names[3] = {"dtype", "tier", "threads"};
  const struct bench_settings *s = &bench->settings;
  const char *given[3] = {s->dtype, s->tier, s->threads}, *parts[3][MAX_ITEMS];
  int counts[3], threads = 0;
  for (int i = 0; i < 3; i++) {
    bench->variant_texts[i] = given[i] ? text_copy(given[i]) : NULL;
    TRY(split(names[i], bench->variant_texts[i], parts[i], &counts[i]));
  }
  if (counts[0] * counts[1] * counts[2] > MAX_VARIANTS)
    return report_error(DITMOE_USAGE, "--dtype, --tier and --threads give %d variants, at most %d",
                        counts[0] * counts[1] * counts[2], MAX_VARIANTS);
  for (int d = 0; d < counts[0]; d++)
    for (int t = 0; t < counts[1]; t++)
      for (int n = 0; n < counts[2]; n++) {
        TRY(read_threads(parts[2][n], &threads));
        bench->variants[bench->variant_count++] =
            (struct variant){parts[0][d], parts[1][t], threads};
      }
  return DITMOE_OK;
}

void variants_free(struct bench *bench) {
  for (int i = 0; i < 3; i++) free(bench->variant_texts[i]);
}

enum ditmoe_status variant_open(struct bench *bench, const struct variant *variant,
                                struct exec *out) {
  TRY(report_call(bench->ctx, backend_open(out, bench->ctx, bench->settings.backend, variant->tier,
                                           variant->threads)));
  enum ditmoe_status status = report_call(bench->ctx, backend_compute(out, variant->dtype));
  if (status != DITMOE_OK) exec_close(out);
  return status;
}

enum ditmoe_status variants_open(struct bench *bench, struct exec out[MAX_VARIANTS]) {
  for (int i = 0; i < bench->variant_count; i++) {
    enum ditmoe_status status = variant_open(bench, &bench->variants[i], &out[i]);
    if (status == DITMOE_OK) continue;
    while (i-- > 0) exec_close(&out[i]);
    return status;
  }
  return DITMOE_OK;
}
