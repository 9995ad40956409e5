/* ditmoe-heatmap: which experts work on what, from a file of routing. */
#include "cli/heatmap/heatmap.h"

static enum ditmoe_status run(struct heatmap *heatmap) {
  TRY(heatmap_check_options(heatmap));
  heatmap->ctx = report_context();
  if (!heatmap->ctx) return DITMOE_NOMEM;
  TRY(heatmap_open(heatmap));
  TRY(heatmap_write_figure(heatmap));
  TRY(heatmap_write_animation(heatmap));
  TRY(heatmap_write_csv(heatmap));
  TRY(heatmap_write_npz(heatmap));
  TRY(heatmap_write_page(heatmap));
  return heatmap_print_numbers(heatmap);
}

int main(int argc, char **argv) {
  static struct heatmap heatmap;
  int code = options_read(&heatmap.options, &heatmap_program, &heatmap.settings, argc, argv);
  if (code < 0) code = (int)report_finish(run(&heatmap));
  heatmap_close(&heatmap);
  ditmoe_ctx_destroy(heatmap.ctx);
  options_free(&heatmap.options);
  return code;
}
