/* The template of the page, and JSON for its <script> element. */
#include "cli/heatmap/page.h"
#include "cli/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const unsigned char heatmap_page[]; /* assets/heatmap */
extern const size_t heatmap_page_size;

char *page_template(void) { return text_copy_part((const char *)heatmap_page, heatmap_page_size); }

/* Bytes of the UTF-8 character at c and its code; 0 if it is not well formed. */
static size_t decode(const unsigned char *c, unsigned *code) {
  static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
  const size_t size = c[0] < 0x80   ? 1
                      : c[0] < 0xC2 ? 0
                      : c[0] < 0xE0 ? 2
                      : c[0] < 0xF0 ? 3
                      : c[0] < 0xF5 ? 4
                                    : 0;
  *code = size == 1 ? c[0] : c[0] & (0x7Fu >> size);
  for (size_t i = 1; i < size; i++) {
    if ((c[i] & 0xC0) != 0x80) return 0;
    *code = *code << 6 | (c[i] & 0x3Fu);
  }
  return size == 0 || *code < least[size] || *code > 0x10FFFF || *code >> 11 == 0x1B ? 0 : size;
}

static void escape(struct html *html, unsigned code) {
  char digits[16];
  if (code >= 0x10000) {
    escape(html, 0xD7C0 + (code >> 10));
    escape(html, 0xDC00 + (code & 0x3FF));
    return;
  }
  snprintf(digits, sizeof digits, "\\u%04x", code);
  html_raw(html, digits);
}

/* Whatever could end the element, the string or the line is a number, and so is all that is not
 * ASCII: no byte of the text can be taken for anything else. */
void page_text(struct html *html, const char *text) {
  const unsigned char *c = (const unsigned char *)text;
  html_raw(html, "\"");
  while (*c) {
    const char plain[] = {(char)*c, 0};
    unsigned code = 0;
    const size_t size = decode(c, &code);
    if (size == 0)
      escape(html, 0xFFFD);
    else if (code < 0x20 || code > 0x7E || strchr("\"\\<>&'", (int)code))
      escape(html, code);
    else
      html_raw(html, plain);
    c += size ? size : 1;
  }
  html_raw(html, "\"");
}

void page_number(struct html *html, double value) {
  char *text = isfinite(value) ? text_number(value) : text_copy("null");
  html_raw(html, text);
  free(text);
}

void page_rounded(struct html *html, double value) {
  char text[32];
  snprintf(text, sizeof text, "%.6g", value);
  html_raw(html, isfinite(value) ? text : "null");
}

void page_integers(struct html *html, const int32_t *values, int count) {
  for (int i = 0; i < count; i++) {
    html_format(html, "%s%d", i ? "," : "[", values[i]);
  }
  html_raw(html, count ? "]" : "[]");
}
