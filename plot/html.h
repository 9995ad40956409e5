/* Text for HTML, in memory. */
#ifndef PLOT_HTML_H
#define PLOT_HTML_H

#include <stddef.h>

struct html {
  char *text; /* zero-terminated; free() */
  size_t size, room;
};

/* Markup of ours, as it is. */
void html_raw(struct html *html, const char *markup);
void html_format(struct html *html, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Text of anybody's: what could be markup is escaped, control characters and what is not UTF-8
 * become U+FFFD. */
void html_text(struct html *html, const char *text);
/* <name>text</name>, with attributes of ours in `open`: "td class=x". */
void html_element(struct html *html, const char *open, const char *text);
void html_base64(struct html *html, const void *bytes, size_t size);

#endif
