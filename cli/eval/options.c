/* The options of ditmoe-eval, and the rules between them. */
#include "cli/eval/eval.h"
#include "cli/outputs.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

#define AT(member)        .field = offsetof(struct eval_settings, member)
#define FLAG              .kind = OPTION_FLAG
#define TEXT(placeholder) .kind = OPTION_TEXT, .argument = placeholder
#define CHOICE(values)    .kind = OPTION_CHOICE, .argument = values
#define INTEGER(from, to) .kind = OPTION_INTEGER, .argument = "N", .low = from, .high = to

/* clang-format off */
static const struct option table[] = {
  {.name = "fid", AT(fid), FLAG, .group = "Measures (none given: --fid --sfid --isc --prc)",
   .help = "Frechet distance of pool features."},
  {.name = "sfid", AT(sfid), FLAG, .help = "Frechet distance of spatial features."},
  {.name = "isc", AT(isc), FLAG, .help = "Inception Score; needs no REF."},
  {.name = "prc", AT(prc), FLAG, .help = "Improved precision and recall, k = 3."},
  {.name = "kid", AT(kid), FLAG, .help = "Kernel distance of the whole sets, unbiased."},

  {.name = "inception", AT(inception), TEXT("FILE"), .group = "Features",
   .help = "Weights: pt_inception-2015-12-05-6726825d.pth as published, or safetensors. Else "
           "$DITMOE_INCEPTION."},
  {.name = "resize", AT(resize), CHOICE("adm|pytorch-fid"), .preset = "adm",
   .help = "Whose rule brings images to the network's size."},
  {.name = "dtype", AT(dtype), CHOICE("f32|bf16"), .preset = "f32", .help = "Compute type."},
  {.name = "backend", AT(backend), CHOICE("cpu|cuda|ref"), .preset = "cpu",
   .help = "ref: plain loops, very slow."},
  {.name = "tier", AT(tier), CHOICE("generic|avx2|avx512|avx512bf16|amx"),
   .help = "Instruction tier. Default: the best of this machine."},
  {.name = "threads", AT(threads), INTEGER(0, 4096), .preset = "0",
   .help = "0: $DITMOE_THREADS, else one for each processor."},
  {.name = "batch-size", AT(batch_size), INTEGER(1, 4096), .preset = "16",
   .help = "Images at a time; no number depends on it."},

  {.name = "num", .aliases = "num-samples", .letter = 'n', AT(num), INTEGER(1, 100000000),
   .group = "Images", .help = "Only the first N of SAMPLES; fewer are an error."},
  {.name = "recursive", .aliases = "samples-find-deep", AT(recursive), FLAG,
   .help = "Also the folders inside a folder."},
  {.name = "recompute", AT(recompute), FLAG,
   .help = "Ignore the statistics that an npz holds beside its images."},

  {.name = "save-stats", AT(save_stats), TEXT("FILE.npz"), .group = "Outputs",
   .help = "Write mu, sigma, mu_s, sigma_s of SAMPLES."},
  {.name = "make-ref", AT(make_ref), TEXT("FILE.npz"),
   .help = "The same and the images: a reference file like ADM's."},
  {.name = "features", AT(features), TEXT("FILE.npy"),
   .help = "Write the pool features of SAMPLES, float32 [N, 2048]."},
  {.name = "report", AT(report), TEXT("FILE.html"),
   .help = "Numbers, protocol, contact sheet and settings in one file."},
  {.name = "info", AT(info), FLAG, .help = "Say what the one operand is and whether it is sound."},
  {.name = "force", AT(force), FLAG, .help = "Replace outputs that exist."},
  {.name = "progress", AT(progress), CHOICE("auto|bar|line|json|none"), .preset = "auto",
   .help = "A bar on a terminal, lines elsewhere, or a JSON object a line."},
};
/* clang-format on */

const struct program eval_program = {
    .name = "ditmoe-eval",
    .summary = "compare images with a reference",
    .operand = "REF",
    .second = "SAMPLES",
    .about =
        "REF and SAMPLES are folders of PNG and JPEG files, .npz files of images (arr_0, uint8\n"
        "[N, H, W, 3]) or .npz files of statistics (mu, sigma, and perhaps mu_s, sigma_s); the\n"
        "reference comes first, as for ADM's evaluator. A single operand is SAMPLES: for --info,\n"
        "--save-stats, --make-ref, --features and --isc.\n\n"
        "The numbers are printed in ADM's lines, followed by lines that begin with # and say how\n"
        "they came about. Only with the weights that define it is a number called FID.",
    .options = table,
    .count = sizeof table / sizeof table[0],
    .settings_size = sizeof(struct eval_settings),
};

enum ditmoe_status eval_read_environment(struct eval *eval) {
  const struct option_variable variables[] = {
      {"DITMOE_INCEPTION", &eval->settings.inception, false},
      {"DITMOE_THREADS", &eval->settings.threads, false}};
  return options_read_environment(&eval->options, variables, sizeof variables / sizeof *variables);
}

static enum ditmoe_status check_outputs(const struct eval *eval) {
  const struct eval_settings *s = &eval->settings;
  const struct output_file outputs[] = {{"save-stats", s->save_stats},
                                        {"make-ref", s->make_ref},
                                        {"features", s->features},
                                        {"report", s->report}};
  const struct input_file inputs[] = {
      {eval->reference.path, true}, {eval->samples.path, true}, {s->inception, false}};
  return outputs_check(outputs, sizeof outputs / sizeof *outputs, inputs,
                       sizeof inputs / sizeof *inputs, s->force);
}

enum ditmoe_status eval_refuse_needless(const struct eval *eval, bool network) {
  const struct eval_settings *s = &eval->settings;
  const bool folder = eval->reference.folder || eval->samples.folder;
  const bool output = s->save_stats || s->make_ref || s->features || s->report;
  const struct option_use uses[] = {{&s->inception, network, "where no features are computed"},
                                    {&s->resize, network, "where no features are computed"},
                                    {&s->dtype, network, "where no features are computed"},
                                    {&s->backend, network, "where no features are computed"},
                                    {&s->tier, network, "where no features are computed"},
                                    {&s->batch_size, network, "where no features are computed"},
                                    {&s->recursive, folder, "without a folder"},
                                    {&s->force, output, "without an output"}};
  return options_refuse_needless(&eval->options, uses, sizeof uses / sizeof *uses);
}

/* One operand: no comparison. */
static enum ditmoe_status check_alone(const struct eval_settings *s) {
  const char *needs_two = s->fid    ? "fid"
                          : s->sfid ? "sfid"
                          : s->prc  ? "prc"
                          : s->kid  ? "kid"
                                    : NULL;
  if (needs_two)
    return report_error(DITMOE_USAGE, "--%s needs REF and SAMPLES, but one operand is given",
                        needs_two);
  if (s->report && !s->isc)
    return report_error(DITMOE_USAGE, "--report needs REF and SAMPLES, or --isc");
  if (!s->isc && !s->save_stats && !s->make_ref && !s->features)
    return report_error(DITMOE_USAGE, "the SAMPLES are missing; see --help");
  return DITMOE_OK;
}

enum ditmoe_status eval_check_options(const struct eval *eval) {
  const struct eval_settings *s = &eval->settings;
  const bool two = eval->reference.path;
  if (s->info && two) return report_error(DITMOE_USAGE, "--info takes one operand");
  if (s->info && (s->fid || s->sfid || s->isc || s->prc || s->kid || s->save_stats || s->make_ref ||
                  s->features || s->report))
    return report_error(DITMOE_USAGE, "--info stands alone");
  if (s->make_ref && two)
    return report_error(DITMOE_USAGE, "--make-ref takes one operand, the images");
  if (s->tier && strcmp(s->backend, "ref") == 0)
    return report_error(DITMOE_USAGE, "--tier has no effect with --backend ref");
  if (!two && !s->info) TRY(check_alone(s));
  return check_outputs(eval);
}
