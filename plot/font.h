/* The letters of figures, drawn with a pen of round tip: what plot/text.c needs to know. */
#ifndef PLOT_FONT_H
#define PLOT_FONT_H

#include <stdint.h>

/* Heights in units of the drawings, two of which are a pixel of TEXT_NORMAL. */
enum { FONT_CAPITAL = 18, FONT_SMALL_LETTER = 12 };

/* A letter in units, y upwards from the base line. path: points "x,y", '~' before those that bend
 * a curve and are not on it (quadratic; between two of them the curve passes through the middle),
 * '/' where the pen lifts. */
struct glyph {
  uint32_t code;
  int advance; /* to the next letter */
  const char *path;
  const char *mark; /* an accent's path around x = 0 above y = 0, NULL: none */
};

/* The letter of a Unicode code point; a box for what the font does not have. */
struct glyph font_glyph(uint32_t code);

#endif
