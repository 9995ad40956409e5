/* The options of ditmoe-heatmap, and the rules between them that need no file. */
#include "cli/heatmap/heatmap.h"
#include "cli/outputs.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

#define AT(member)        .field = offsetof(struct heatmap_settings, member)
#define FLAG              .kind = OPTION_FLAG
#define TEXT(placeholder) .kind = OPTION_TEXT, .argument = placeholder
#define CHOICE(values)    .kind = OPTION_CHOICE, .argument = values
#define INTEGER(from, to) .kind = OPTION_INTEGER, .argument = "N", .low = from, .high = to

/* clang-format off */
static const struct option table[] = {
  {.name = "output", .letter = 'o', AT(page), TEXT("FILE.html"),
   .group = "Outputs (none given: numbers as text, with --json as JSON)",
   .help = "A page with everything: no other file and no network needed."},
  {.name = "png", AT(png), TEXT("FILE.png"), .help = "A picture, see --by."},
  {.name = "animation", AT(animation), TEXT("FILE.png"),
   .help = "Animated PNG over the steps, of --by map unless it says token or layer."},
  {.name = "csv", AT(csv), TEXT("FILE.csv"), .help = "What --png would show, a line a value."},
  {.name = "npz", AT(npz), TEXT("FILE.npz"), .help = "The same as arrays for NumPy."},
  {.name = "force", AT(force), FLAG, .help = "Replace outputs that exist."},

  {.name = "by", AT(by),
   CHOICE("class|token|step|layer|expert|map|weights|subspace|router"),
   .synonyms = "patch=token position=token", .group = "What is shown",
   .help = "Rows of the heatmap; columns are experts. expert: columns are steps. map: tokens as an "
           "image, for each expert. weights, subspace, router: similarity of experts (--model). "
           "Default: layer."},
  {.name = "half", AT(half), CHOICE("cond|uncond|both"), .preset = "cond",
   .help = "Conditional or unconditional half of guidance."},
  {.name = "layers", AT(layers), TEXT("A-B"), .help = "Blocks of the model, or a single one."},
  {.name = "steps", AT(steps), .kind = OPTION_SPAN, .argument = "A:B", .low = 0, .high = 1e9,
   .help = "Steps A to B-1; 0 is pure noise."},
  {.name = "weighted", AT(weighted), FLAG, .help = "Sums of gate weights instead of choices."},
  {.name = "class-file", AT(class_file), TEXT("FILE"),
   .help = "Names of classes: one a line from class 0 on, or lines of number, tabulator, name. "
           "Default: those of the run."},
  {.name = "class-every", AT(class_every), INTEGER(1, 1000000),
   .help = "Only every N-th class in --png. Default: so that at most 100 remain."},
  {.name = "add", AT(add), .kind = OPTION_LIST, .argument = "FILE,...",
   .help = "Other parts of the run, with other images, such as the jobs of an array make."},
  {.name = "diff", AT(diff), TEXT("OTHER"),
   .help = "Another run of the same shape; shown is the first minus this one."},
  {.name = "model", AT(model), TEXT("FILE"), .help = "The model, for the similarity of experts."},
  {.name = "record", AT(record), TEXT("FILE"),
   .help = "JSON: members of the model's checkpoint record, as for ditmoe-sample."},

  {.name = "overlay", AT(overlay), TEXT("IMAGE"), .group = "Overlay",
   .help = "Draw the experts over this image: those it had (from a trace), or those that most "
           "images have at each position."},
  {.name = "overlay-index", AT(overlay_index), INTEGER(0, 1e15),
   .help = "Its index in the run. Default: what its metadata or its name say."},
  {.name = "overlay-layer", AT(overlay_layer), INTEGER(0, 1e6),
   .help = "One block of the model. Default: those of --layers, a panel each."},

  {.name = "normalize", AT(normalize), CHOICE("uniform|row|layer|none"), .preset = "uniform",
   .group = "How it is shown",
   .help = "uniform: multiples of an equal share, 1 is fair. row: share of the row. layer: share "
           "of the layer's largest. none: choices or weights."},
  {.name = "scale", AT(scale), CHOICE("shared|layer"), .preset = "shared",
   .help = "One colour scale for all panels, or one each."},
  {.name = "colormap", AT(colormap),
   CHOICE("viridis|cividis|magma|blues|greens|oranges|gray"),
   .help = "Default: viridis. Differences have their own."},
  {.name = "title", AT(title), TEXT("TEXT"), .help = "Instead of the name of the run."},
  {.name = "cell", AT(cell), INTEGER(1, 256), .help = "Pixels of a cell. Default: as it fits."},
  {.name = "columns", AT(columns), INTEGER(1, 1000), .help = "Panels side by side."},
  {.name = "delay", AT(delay), INTEGER(10, 60000), .preset = "200",
   .help = "Milliseconds of each frame of --animation."},
};
/* clang-format on */

const struct program heatmap_program = {
    .name = "ditmoe-heatmap",
    .summary = "show which experts work on what",
    .operand = "RUN",
    .about =
        "RUN is a file of ditmoe-sample --routing-dump (tables) or --routing-trace (every choice\n"
        "of the run, which is counted again here). What it is follows from its content.\n\n"
        "Titles say which half, steps and layers are shown and how values are normalised. An\n"
        "unconditional expert is a column of its own, and left out of the equal shares.",
    .options = table,
    .count = sizeof table / sizeof table[0],
    .settings_size = sizeof(struct heatmap_settings),
};

static enum ditmoe_status check_outputs(const struct heatmap *heatmap) {
  const struct heatmap_settings *s = &heatmap->settings;
  const struct output_file outputs[] = {{"output", s->page},
                                        {"png", s->png},
                                        {"animation", s->animation},
                                        {"csv", s->csv},
                                        {"npz", s->npz}};
  enum { OTHERS = 6 };
  size_t count = OTHERS;
  char *list = text_copy(s->add ? s->add : ""), *rest = s->add ? list : NULL;
  struct input_file *inputs = memory_get(OTHERS + strlen(list) + 1, sizeof *inputs);
  memcpy(inputs,
         (const struct input_file[OTHERS]){{heatmap->options.operand, false},
                                           {s->diff, false},
                                           {s->model, true},
                                           {s->record, false},
                                           {s->overlay, false},
                                           {s->class_file, false}},
         OTHERS * sizeof *inputs);
  while (rest) inputs[count++].path = strsep(&rest, ",");
  const enum ditmoe_status status =
      outputs_check(outputs, sizeof outputs / sizeof *outputs, inputs, count, s->force);
  free(inputs);
  free(list);
  return status;
}

/* The library would write a JPEG. */
static enum ditmoe_status check_ending(const char *option, const char *path) {
  const size_t length = path ? strlen(path) : 0;
  if (!path || (length > 4 && strcasecmp(path + length - 4, ".png") == 0)) return DITMOE_OK;
  return report_error(DITMOE_USAGE, "--%s %s: the name must end in .png", option, path);
}

/* Combinations that cannot be had. */
static enum ditmoe_status check_kind(const struct heatmap *heatmap) {
  const struct heatmap_settings *s = &heatmap->settings;
  const enum view_kind kind = heatmap_view_kind(heatmap, VIEW_LAYER);
  if (kind >= VIEW_WEIGHTS && !s->model)
    return report_error(DITMOE_USAGE, "--by %s needs --model", s->by);
  if (kind >= VIEW_WEIGHTS && s->diff)
    return report_error(DITMOE_USAGE, "--by %s is of one model: not with --diff", s->by);
  if (s->animation && !s->overlay && s->by && kind != VIEW_MAP && kind != VIEW_TOKEN &&
      kind != VIEW_LAYER)
    return report_error(DITMOE_USAGE, "--animation shows --by map, token or layer, not %s", s->by);
  if (kind == VIEW_CLASS && s->steps.to)
    return report_error(DITMOE_USAGE,
                        "--by class: classes are counted over all steps; --steps has no effect");
  if (s->overlay && s->diff)
    return report_error(DITMOE_USAGE, "--overlay shows one run: not with --diff");
  return DITMOE_OK;
}

enum ditmoe_status heatmap_check_options(const struct heatmap *heatmap) {
  const struct heatmap_settings *s = &heatmap->settings;
  TRY(check_kind(heatmap));
  TRY(heatmap_refuse_needless(heatmap));
  TRY(check_ending("png", s->png));
  TRY(check_ending("animation", s->animation));
  return check_outputs(heatmap);
}
