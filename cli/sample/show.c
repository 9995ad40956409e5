/* Pictures in the terminal. */
#include "cli/sample/show.h"

#include "cli/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Base64 (RFC 4648) of size bytes; free(). */
static char *base64(const uint8_t *bytes, size_t size) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  char *text = memory_get((size + 2) / 3 * 4 + 1, 1), *out = text;
  for (size_t i = 0; i < size; i += 3) {
    size_t left = size - i;
    uint32_t bits = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                    (left > 2 ? bytes[i + 2] : 0);
    *out++ = digits[bits >> 18];
    *out++ = digits[bits >> 12 & 63];
    *out++ = left > 1 ? digits[bits >> 6 & 63] : '=';
    *out++ = left > 2 ? digits[bits & 63] : '=';
  }
  return text;
}

/* kitty's graphics protocol: raw RGB, base64, in pieces of 4096. The terminal enlarges nothing by
 * whole pixels, so the pixels are repeated here. */
static void show_kitty(const uint8_t *pixels, int width, int height, FILE *out) {
  enum { PIECE = 4096 };
  char *text = base64(pixels, (size_t)width * (size_t)height * 3);
  size_t length = strlen(text);
  for (size_t at = 0; at < length; at += PIECE) {
    if (at == 0)
      fprintf(out, "\033_Ga=T,f=24,q=2,s=%d,v=%d,m=%d;", width, height, length > PIECE);
    else
      fprintf(out, "\033_Gm=%d;", length - at > PIECE);
    fprintf(out, "%.*s\033\\", PIECE, text + at);
  }
  fputc('\n', out);
  free(text);
}

static void put_u32(uint8_t *out, uint32_t value) {
  for (int i = 0; i < 4; i++) out[i] = (uint8_t)(value >> 8 * i);
}

/* iTerm2 shows any image file; BMP needs no compression: two headers and rows from the bottom. */
static void show_iterm(const uint8_t *pixels, int width, int height, FILE *out) {
  enum { HEADER = 54 };
  size_t row = ((size_t)width * 3 + 3) / 4 * 4, size = HEADER + row * (size_t)height;
  uint8_t *bmp = memory_get(size, 1);
  memcpy(bmp, "BM", 2);
  put_u32(bmp + 2, (uint32_t)size);
  put_u32(bmp + 10, HEADER);
  put_u32(bmp + 14, 40);
  put_u32(bmp + 18, (uint32_t)width);
  put_u32(bmp + 22, (uint32_t)height);
  bmp[26] = 1;
  bmp[28] = 24;
  for (int y = 0; y < height; y++)
    for (int x = 0; x < width; x++)
      for (int c = 0; c < 3; c++)
        bmp[HEADER + row * (size_t)(height - 1 - y) + (size_t)(3 * x + c)] =
            pixels[3 * ((size_t)y * (size_t)width + (size_t)x) + (size_t)(2 - c)];
  char *text = base64(bmp, size);
  fprintf(out, "\033]1337;File=inline=1;size=%zu;width=%dpx;height=%dpx:%s\a\n", size, width,
          height, text);
  free(text);
  free(bmp);
}

/* Each character shows two pixels, one above the other. */
static void show_blocks(const uint8_t *pixels, int width, int height, int columns, FILE *out) {
  int step =
      (width + columns - 1) / columns; /* pixels for each cell when the picture is too wide */
  for (int y = 0; y < height; y += 2 * step) {
    for (int x = 0; x < width; x += step) {
      const uint8_t *top = pixels + 3 * ((size_t)y * (size_t)width + (size_t)x);
      const uint8_t *low = y + step < height ? top + 3 * (size_t)step * (size_t)width : top;
      fprintf(out, "\033[38;2;%d;%d;%dm\033[48;2;%d;%d;%dm\u2580", top[0], top[1], top[2], low[0],
              low[1], low[2]);
    }
    fputs("\033[0m\n", out);
  }
}

static uint8_t *enlarge(const uint8_t *pixels, int width, int height, int zoom) {
  size_t w = (size_t)width * (size_t)zoom, h = (size_t)height * (size_t)zoom;
  uint8_t *out = memory_get(w * h, 3);
  for (size_t y = 0; y < h; y++)
    for (size_t x = 0; x < w; x++)
      memcpy(out + 3 * (y * w + x),
             pixels + 3 * (y / (size_t)zoom * (size_t)width + x / (size_t)zoom), 3);
  return out;
}

/* Whether environment variable `name` begins with `value` ("": whether it is set). Multiplexers
 * swallow the protocols. */
static bool environment_is(const char *name, const char *value) {
  const char *found = getenv("TMUX") ? NULL : getenv(name);
  return found && strncmp(found, value, strlen(value)) == 0;
}

void show_image(const uint8_t *pixels, int width, int height, int zoom, int columns, FILE *out) {
  uint8_t *large = enlarge(pixels, width, height, zoom);
  width *= zoom;
  height *= zoom;
  if (environment_is("TERM", "xterm-kitty") || environment_is("KITTY_WINDOW_ID", ""))
    show_kitty(large, width, height, out);
  else if (environment_is("TERM_PROGRAM", "iTerm") || environment_is("TERM_PROGRAM", "WezTerm") ||
           environment_is("LC_TERMINAL", "iTerm2"))
    show_iterm(large, width, height, out);
  else if (!show_chafa(large, width, height, columns, out))
    show_blocks(large, width, height, columns, out);
  fflush(out);
  free(large);
}
