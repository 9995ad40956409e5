/* Text for HTML. */
#include "plot/html.h"

#include "cli/text.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char REPLACEMENT[] = "\xEF\xBF\xBD"; /* U+FFFD */

static void append(struct html *html, const char *bytes, size_t size) {
  if (html->room < html->size + size + 1) {
    html->room = 2 * (html->size + size) + 4096;
    html->text = memory_resize(html->text, html->room, 1);
  }
  memcpy(html->text + html->size, bytes, size);
  html->size += size;
  html->text[html->size] = 0;
}

void html_raw(struct html *html, const char *markup) { append(html, markup, strlen(markup)); }

void html_format(struct html *html, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char *markup = text_format_list(format, arguments);
  va_end(arguments);
  html_raw(html, markup);
  free(markup);
}

static bool is_control(uint32_t code) { return code < 0x20 || (code >= 0x7F && code < 0xA0); }

static const char *entity(char c) {
  return c == '<'    ? "&lt;"
         : c == '>'  ? "&gt;"
         : c == '&'  ? "&amp;"
         : c == '"'  ? "&quot;"
         : c == '\'' ? "&#39;"
                     : NULL;
}

void html_text(struct html *html, const char *text) {
  uint32_t code;
  for (size_t size; *text; text += size ? size : 1) {
    size = text_character(text, &code);
    if (!size || is_control(code))
      html_raw(html, REPLACEMENT);
    else if (entity(*text))
      html_raw(html, entity(*text));
    else
      append(html, text, size);
  }
}

void html_element(struct html *html, const char *open, const char *text) {
  html_raw(html, "<");
  html_raw(html, open);
  html_raw(html, ">");
  html_text(html, text);
  html_raw(html, "</");
  append(html, open, strcspn(open, " "));
  html_raw(html, ">");
}

void html_base64(struct html *html, const void *bytes, size_t size) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const uint8_t *from = bytes;
  for (size_t i = 0; i < size; i += 3) {
    const size_t left = size - i;
    const unsigned value = (unsigned)from[i] << 16 | (left > 1 ? (unsigned)from[i + 1] << 8 : 0) |
                           (left > 2 ? from[i + 2] : 0);
    const char group[] = {digits[value >> 18], digits[value >> 12 & 63],
                          left > 1 ? digits[value >> 6 & 63] : '=',
                          left > 2 ? digits[value & 63] : '='};
    append(html, group, sizeof group);
  }
}
