/* Titles: text in lines of a width. */
#include "cli/text.h"
#include "plot/figure_parts.h"

#include <stdlib.h>
#include <string.h>

const color ink_dark = {0x22, 0x22, 0x22}, ink_middle = {0x5c, 0x5c, 0x5c};

/* Bytes of the line that begins at `text`: up to the last space that fits, and always some. */
static size_t line_length(enum text_size size, const char *text, int width) {
  const size_t paragraph = strcspn(text, "\n");
  const size_t fits = canvas_text_part(size, text, width);
  if (fits >= paragraph) return paragraph;
  size_t length = fits;
  while (length > 0 && text[length] != ' ') length--;
  if (length == 0) length = fits;
  return length > 0 ? length : 1;
}

void lines_wrap(struct lines *lines, enum text_size size, const char *text, int width) {
  *lines = (struct lines){.size = size};
  while (text && *text && lines->count < LINES_MAX) {
    const size_t length = line_length(size, text, width);
    char *line = text_copy_part(text, length);
    text += length;
    while (*text == ' ') text++;
    if (*text == '\n') text++;
    if (*text && lines->count == LINES_MAX - 1) {
      char *more = text_format("%s \xe2\x80\xa6", line);
      free(line);
      line = canvas_text_fit(size, more, width);
      free(more);
    }
    lines->text[lines->count++] = line;
  }
}

void lines_free(struct lines *lines) {
  for (int i = 0; i < lines->count; i++) free(lines->text[i]);
  *lines = (struct lines){0};
}

int lines_height(const struct lines *lines) {
  return lines->count * (canvas_text_height(lines->size) + 1);
}

void lines_draw(struct canvas *canvas, int x, int y, const color rgb, const struct lines *lines) {
  for (int i = 0; i < lines->count; i++)
    canvas_text(canvas, x, y + i * (canvas_text_height(lines->size) + 1), lines->size, rgb,
                lines->text[i]);
}

void text_centered(struct canvas *canvas, int x, int y, int width, const char *text) {
  char *part = canvas_text_fit(TEXT_NORMAL, text, width);
  canvas_text(canvas, x + (width - canvas_text_width(TEXT_NORMAL, part)) / 2, y, TEXT_NORMAL,
              ink_dark, part);
  free(part);
}

void text_centered_vertical(struct canvas *canvas, int x, int y, int height, const char *text) {
  char *part = canvas_text_fit(TEXT_NORMAL, text, height);
  canvas_text_vertical(canvas, x, y + (height - canvas_text_width(TEXT_NORMAL, part)) / 2,
                       TEXT_NORMAL, ink_dark, part);
  free(part);
}
