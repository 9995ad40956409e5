/* Pictures in the terminal. */
#ifndef CLI_SAMPLE_SHOW_H
#define CLI_SAMPLE_SHOW_H

#include <stdint.h>
#include <stdio.h>

/* Draws pixels [height, width, 3] to `out`, enlarged `zoom` times, in the best way the terminal of
 * the environment knows: the kitty protocol, iTerm2's, what libchafa finds if it is built in, else
 * half blocks in 24-bit colour of at most `columns` characters. */
void show_image(const uint8_t *pixels, int width, int height, int zoom, int columns, FILE *out);

/* By libchafa, cli/sample/show_chafa.c. 0 if it is not built in. */
int show_chafa(const uint8_t *pixels, int width, int height, int columns, FILE *out);

#endif
