/* Pictures through libchafa, which knows sixels and the terminals that have them. Built with
 * HAVE_CHAFA. */
#include "cli/sample/show.h"

#ifdef HAVE_CHAFA

#include <chafa.h>

int show_chafa(const uint8_t *pixels, int width, int height, int columns, FILE *out) {
  gchar **environment = g_get_environ();
  ChafaTermInfo *terminal = chafa_term_db_detect(chafa_term_db_get_default(), environment);
  ChafaCanvasConfig *config = chafa_canvas_config_new();
  ChafaSymbolMap *symbols = chafa_symbol_map_new();
  gboolean sixels = chafa_term_info_have_seq(terminal, CHAFA_TERM_SEQ_BEGIN_SIXELS);
  gint wide = width < 2 * columns ? (width + 1) / 2 : columns, high = columns;
  chafa_calc_canvas_geometry(width, height, &wide, &high, 0.5f, TRUE, FALSE);
  chafa_symbol_map_add_by_tags(symbols, CHAFA_SYMBOL_TAG_BLOCK | CHAFA_SYMBOL_TAG_BORDER);
  chafa_canvas_config_set_symbol_map(config, symbols);
  chafa_canvas_config_set_canvas_mode(config, CHAFA_CANVAS_MODE_TRUECOLOR);
  chafa_canvas_config_set_pixel_mode(config,
                                     sixels ? CHAFA_PIXEL_MODE_SIXELS : CHAFA_PIXEL_MODE_SYMBOLS);
  chafa_canvas_config_set_geometry(config, wide, high);
  ChafaCanvas *canvas = chafa_canvas_new(config);
  chafa_canvas_draw_all_pixels(canvas, CHAFA_PIXEL_RGB8, pixels, width, height, 3 * width);
  GString *text = chafa_canvas_print(canvas, terminal);
  fwrite(text->str, 1, text->len, out);
  fputc('\n', out);
  g_string_free(text, TRUE);
  chafa_canvas_unref(canvas);
  chafa_canvas_config_unref(config);
  chafa_symbol_map_unref(symbols);
  chafa_term_info_unref(terminal);
  g_strfreev(environment);
  return 1;
}

#else

int show_chafa(const uint8_t *pixels, int width, int height, int columns, FILE *out) {
  (void)pixels, (void)width, (void)height, (void)columns, (void)out;
  return 0;
}

#endif
