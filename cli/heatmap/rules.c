/* Which options act on what: one that would change nothing is refused. */
#include "cli/heatmap/heatmap.h"
#include "cli/outputs.h"

enum ditmoe_status heatmap_refuse_needless(const struct heatmap *heatmap) {
  const struct heatmap_settings *s = &heatmap->settings;
  const enum view_kind kind = heatmap_view_kind(heatmap, VIEW_LAYER);
  /* With --overlay the pictures are that of the overlay. */
  const bool picture = s->png || s->animation, page = s->page != NULL, table = s->csv || s->npz;
  const bool heat = picture && !s->overlay, view = heat || table || page;
  const bool counts = (kind < VIEW_WEIGHTS && view) || page || (picture && s->overlay);
  const bool numbers = s->common.json || !(picture || table || page);
  const bool classes = kind == VIEW_CLASS && (heat || table);
  static const char no_view[] = "without --output, --png, --animation, --csv or --npz",
                    no_picture[] = "without --png or --animation",
                    no_heat[] = "without a heatmap in --png, --animation or --output",
                    no_tables[] = "on what is shown";
  const struct option_use uses[] = {
      {&s->force, picture || table || page, "without an output"},
      {&s->by, view, no_view},
      {&s->by, kind < VIEW_MAP || heat || table, "on what --output shows first"},
      {&s->half, counts || numbers, no_tables},
      {&s->layers, view || picture, no_view},
      {&s->steps, view || picture, no_view},
      {&s->steps, counts, no_tables},
      {&s->weighted, view || picture, no_view},
      {&s->weighted, counts, no_tables},
      {&s->class_file, classes || page, "without --by class or --output"},
      {&s->class_every, kind == VIEW_CLASS && s->png && heat, "without --png --by class"},
      {&s->normalize, view, no_view},
      {&s->normalize, kind < VIEW_WEIGHTS || page, no_tables},
      {&s->scale, heat || page, no_heat},
      {&s->colormap, heat || page, no_heat},
      {&s->colormap, !s->diff || page, "on differences"},
      {&s->title, picture || page, "without a picture or page"},
      {&s->cell, picture, no_picture},
      {&s->columns, picture, no_picture},
      {&s->delay, s->animation, "without --animation"},
      {&s->model, kind >= VIEW_WEIGHTS || numbers || page,
       "without --by weights, subspace or router, --output or --json"},
      {&s->record, s->model, "without --model"},
      {&s->overlay, picture || page, "without --png, --animation or --output"},
      {&s->overlay_index, s->overlay, "without --overlay"},
      {&s->overlay_layer, s->overlay, "without --overlay"},
  };
  return options_refuse_needless(&heatmap->options, uses, sizeof uses / sizeof *uses);
}
