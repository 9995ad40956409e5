/* The large tables of the page. A table [outer, bins, inner] of whole numbers is stored as
 * differences from the bin before (routing hardly changes from step to step) in planes of bytes,
 * the lowest first, deflated and in base64. */
#include "cli/heatmap/page.h"
#include "cli/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { DEFLATE_LEVEL = 6 };

/* {"z": ... , without the closing brace. */
static void add_deflated(struct html *html, const uint8_t *bytes, size_t size) {
  uLongf packed = compressBound(size);
  uint8_t *out = memory_get(packed, 1);
  if (compress2(out, &packed, bytes, size, DEFLATE_LEVEL) != Z_OK) packed = 0; /* no memory */
  html_raw(html, "{\"z\":\"");
  html_base64(html, out, packed);
  html_raw(html, "\"");
  free(out);
}

static int planes_of(const uint64_t *values, size_t count) {
  uint64_t all = 0;
  int planes = 1;
  for (size_t i = 0; i < count; i++) all |= values[i];
  while (planes < 8 && all >> 8 * planes) planes++;
  return planes;
}

static void add_planes(struct html *html, const uint64_t *values, size_t count) {
  const int planes = planes_of(values, count);
  uint8_t *bytes = memory_get(count, (size_t)planes);
  for (int p = 0; p < planes; p++)
    for (size_t i = 0; i < count; i++) bytes[(size_t)p * count + i] = (uint8_t)(values[i] >> 8 * p);
  add_deflated(html, bytes, (size_t)planes * count);
  html_format(html, ",\"planes\":%d", planes);
  free(bytes);
}

struct table {
  size_t outer, bins, inner; /* bins: 0 for a table without steps, which is stored as it is */
  size_t size;
  uint64_t *values; /* [outer, bins, inner], below 2^32 if there are bins */
};

static struct table table_create(size_t outer, size_t bins, size_t inner) {
  struct table table = {outer, bins, inner, outer * (bins ? bins : 1) * inner, NULL};
  table.values = memory_get(table.size, sizeof *table.values);
  return table;
}

/* In place, modulo 2^32, the sign in the lowest bit. */
static void take_differences(struct table *table) {
  for (size_t i = table->size; table->bins && i-- > 0;) {
    const bool begins = i / table->inner % table->bins == 0;
    const uint32_t before = begins ? 0 : (uint32_t)table->values[i - table->inner];
    const uint32_t step = (uint32_t)table->values[i] - before;
    table->values[i] = step << 1 ^ (step >> 31 ? UINT32_MAX : 0);
  }
}

int page_bins(const struct ditmoe_routing_info *info, int merge) {
  return (info->bins + merge - 1) / merge;
}

int page_bin(const struct ditmoe_routing_info *info, int merge, int bin) {
  return bin * merge < info->bins ? bin * merge : info->bins;
}

/* Sums over the bins that become one. */
static struct table merged_counts(const struct ditmoe_routing_info *info, const uint32_t *counts,
                                  int merge) {
  const size_t L = (size_t)info->layers, S = (size_t)info->bins, M = (size_t)merge;
  struct table table =
      table_create(L, (size_t)page_bins(info, merge), (size_t)info->tokens * (size_t)info->experts);
  for (size_t l = 0; l < L; l++)
    for (size_t s = 0; s < S; s++) {
      uint64_t *to = table.values + (l * table.bins + s / M) * table.inner;
      const uint32_t *from = counts + (l * S + s) * table.inner;
      for (size_t i = 0; i < table.inner; i++) to[i] += from[i];
    }
  return table;
}

static struct table class_counts(const struct ditmoe_routing_info *info, const uint64_t *counts,
                                 const int *labels, int label_count) {
  const size_t L = (size_t)info->layers, E = (size_t)info->experts, N = (size_t)label_count;
  struct table table = table_create(L, 0, N * E);
  for (size_t l = 0; l < L; l++)
    for (size_t n = 0; n < N; n++)
      memcpy(table.values + (l * N + n) * E,
             counts + (l * (size_t)info->labels + (size_t)labels[n]) * E, E * sizeof *table.values);
  return table;
}

/* Sums of weights, laid out like the counts. */
static double *merged_mass(const struct ditmoe_routing_info *info, const int64_t *mass,
                           const struct table *like, int merge) {
  const size_t L = (size_t)info->layers, S = (size_t)info->bins, M = (size_t)merge;
  double *sums = memory_get(like->size, sizeof *sums);
  for (size_t l = 0; l < L; l++)
    for (size_t s = 0; s < S; s++) {
      double *to = sums + (l * like->bins + s / M) * like->inner;
      const int64_t *from = mass + (l * S + s) * like->inner;
      for (size_t i = 0; i < like->inner; i++) to[i] += DITMOE_ROUTING_UNIT * (double)from[i];
    }
  return sums;
}

static double *class_mass(const struct ditmoe_routing_info *info, const int64_t *mass,
                          const int *labels, int label_count) {
  const size_t L = (size_t)info->layers, E = (size_t)info->experts, N = (size_t)label_count;
  double *sums = memory_get(L * N * E, sizeof *sums);
  for (size_t i = 0; i < L * N * E; i++) {
    const size_t l = i / (N * E), n = i / E % N;
    sums[i] = DITMOE_ROUTING_UNIT *
              (double)mass[(l * (size_t)info->labels + (size_t)labels[n]) * E + i % E];
  }
  return sums;
}

static uint64_t rounded(uint64_t value, uint64_t unit) { return (value + unit / 2) / unit; }

static void add_counts(struct html *html, const char *member, const struct table *exact,
                       uint64_t unit) {
  struct table table = table_create(exact->outer, exact->bins, exact->inner);
  for (size_t i = 0; i < table.size; i++) table.values[i] = rounded(exact->values[i], unit);
  take_differences(&table);
  html_raw(html, member);
  add_planes(html, table.values, table.size);
  html_format(html, ",\"unit\":%.0f}", (double)unit);
  free(table.values);
}

/* Least and largest mean weight of the cells in which anything was counted. */
static void extremes(const struct table *counts, const double *mass, double *low, double *high) {
  *low = INFINITY;
  *high = -INFINITY;
  for (size_t i = 0; i < counts->size; i++) {
    if (!counts->values[i]) continue;
    *low = fmin(*low, mass[i] / (double)counts->values[i]);
    *high = fmax(*high, mass[i] / (double)counts->values[i]);
  }
  if (*low > *high) *low = *high = 0;
}

/* Mean weights. Where there is none, that of the bin before stands, which costs nothing. */
static void add_mass(struct html *html, const char *member, const struct table *counts,
                     const double *mass, int levels) {
  struct table table = table_create(counts->outer, counts->bins, counts->inner);
  double low, high;
  extremes(counts, mass, &low, &high);
  const double step = (high - low) / levels;
  for (size_t i = 0; i < table.size; i++) {
    const bool begins = !table.bins || i / table.inner % table.bins == 0;
    if (counts->values[i] && step > 0)
      table.values[i] = (uint64_t)llround((mass[i] / (double)counts->values[i] - low) / step);
    else
      table.values[i] = begins ? 0 : table.values[i - table.inner];
  }
  take_differences(&table);
  html_raw(html, member);
  add_planes(html, table.values, table.size);
  html_format(html, ",\"low\":%.17g,\"step\":%.17g}", low, step);
  free(table.values);
}

static void add_classes(struct html *html, const struct ditmoe_routing_info *info,
                        const struct ditmoe_routing_tables *tables,
                        const struct page_detail *detail, const int *labels, int label_count) {
  struct table counts = class_counts(info, tables->class_counts, labels, label_count);
  add_counts(html, ",\"classCounts\":", &counts, 1);
  if (info->mass) {
    double *mass = class_mass(info, tables->class_mass, labels, label_count);
    add_mass(html, ",\"classMass\":", &counts, mass, detail->levels);
    free(mass);
  }
  free(counts.values);
}

void page_tables(struct html *html, const struct ditmoe_routing *routing, enum ditmoe_half half,
                 const struct page_detail *detail, const int *labels, int label_count) {
  struct ditmoe_routing_info info;
  struct ditmoe_routing_tables tables;
  ditmoe_routing_info(routing, &info);
  ditmoe_routing_tables(routing, half, &tables);
  struct table counts = merged_counts(&info, tables.counts, detail->merge);
  add_counts(html, "\"counts\":", &counts, detail->unit);
  if (info.mass) {
    double *mass = merged_mass(&info, tables.mass, &counts, detail->merge);
    add_mass(html, ",\"mass\":", &counts, mass, detail->levels);
    free(mass);
  }
  free(counts.values);
  if (labels) add_classes(html, &info, &tables, detail, labels, label_count);
}

/* Each byte as its difference from the pixel to the left. */
void page_pixels(struct html *html, const uint8_t *pixels, int width, int height) {
  const size_t row = 3 * (size_t)width, size = row * (size_t)height;
  uint8_t *bytes = memory_get(size, 1);
  for (size_t i = 0; i < size; i++)
    bytes[i] = (uint8_t)(pixels[i] - (i % row < 3 ? 0 : pixels[i - 3]));
  add_deflated(html, bytes, size);
  html_format(html, ",\"width\":%d,\"height\":%d}", width, height);
  free(bytes);
}
