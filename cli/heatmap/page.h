/* The HTML page of ditmoe-heatmap: its template is assets/heatmap.html, whose script reads one JSON
 * object with everything that is shown. */
#ifndef CLI_HEATMAP_PAGE_H
#define CLI_HEATMAP_PAGE_H

#include "cli/heatmap/heatmap.h"
#include "plot/html.h"

/* How finely the large tables are told, so that the page stays small. */
struct page_detail {
  int merge;     /* bins of the tables that become one of the page          */
  uint64_t unit; /* counts are rounded to multiples of it                   */
  int levels;    /* steps between the least and the largest mean weight     */
};

/* page_json.c: the template, with a place for the JSON; free(). */
char *page_template(void);
/* JSON in ASCII that can stand inside <script>, whatever the texts hold. */
void page_text(struct html *html, const char *text);
/* Reads back as the same value; null if it is not finite. */
void page_number(struct html *html, double value);
/* Six digits. */
void page_rounded(struct html *html, double value);
void page_integers(struct html *html, const int32_t *values, int count);

/* page_data.c: tables as base64 of deflated planes of bytes. */
int page_bins(const struct ditmoe_routing_info *info, int merge);
/* First bin of the tables in bin `bin` of the page. */
int page_bin(const struct ditmoe_routing_info *info, int merge, int bin);
/* Members "counts" and "mass" [L, bins, T, E] of a half, and for `labels` [count], "classCounts"
 * and "classMass" [L, count, E]; labels may be NULL. */
void page_tables(struct html *html, const struct ditmoe_routing *routing, enum ditmoe_half half,
                 const struct page_detail *detail, const int *labels, int label_count);
/* An RGB image [height, width, 3]; a member "z". */
void page_pixels(struct html *html, const uint8_t *pixels, int width, int height);

/* page_numbers.c: the object of loads, dependence, memory and findings of a half. */
void page_numbers(struct html *html, const struct heatmap_run *run, enum ditmoe_half half);

/* page_check.c: the list of values that the page compares its own with under #selftest. */
void page_checks(struct html *html, const struct heatmap *heatmap,
                 const struct page_detail *detail);

#endif
