/* ditmoe-bench: how fast this machine runs the models, and where the time goes. */
#include "base/system.h"
#include "bench/bench.h"
#include "cli/outputs.h"
#include "io/file.h"

#include <stdlib.h>
#include <string.h>

#define AT(member) .field = offsetof(struct bench_settings, member)
static const struct option table[] = {
    {.name = "step",
     .kind = OPTION_LIST,
     AT(step),
     .argument = "SIZE,...",
     .group = "What to measure (one; by default --step S/2)",
     .help = "Whole calls of DiT-MoE with random weights: S/2, B/2, L/2, XL/2, G/2."},
    {.name = "ops",
     .kind = OPTION_TEXT,
     AT(ops),
     .argument = "FILE",
     .help =
         "Each operation alone: a line \"operation key=value ...\" for each case; see the files "
         "in the folder shapes."},
    {.name = "decoder",
     .kind = OPTION_OPTIONAL,
     AT(decoder),
     .argument = "kl|taesd",
     .help = "Decoding of an image with random weights, kl by default; with --sample: its "
             "decoder."},
    {.name = "features",
     .kind = OPTION_TEXT,
     AT(features),
     .argument = "FILE",
     .help = "Features of --batch random images by the network in FILE, as ditmoe-eval uses it."},
    {.name = "routing",
     .kind = OPTION_OPTIONAL,
     AT(routing),
     .argument = "SIZE",
     .help = "What recording routing costs: calls of a model, S/2 by default, with each way of "
             "recording in alternation."},
    {.name = "sample",
     .kind = OPTION_OPTIONAL,
     AT(sample),
     .argument = "SIZE",
     .help = "A whole sampling run with random weights, S/2 by default; times of one image."},
    {.name = "load",
     .kind = OPTION_TEXT,
     AT(load),
     .argument = "FILE",
     .help = "Loading of a checkpoint, from the start of the program to the end of the first "
             "step, and the memory that takes. What the page cache holds counts: run it twice."},
    {.name = "peak",
     .kind = OPTION_FLAG,
     AT(peak),
     .help = "Matrix products by us, by OpenBLAS and by oneDNN where they are installed."},
    {.name = "make",
     .kind = OPTION_TEXT,
     AT(make),
     .argument = "SIZE",
     .help = "Measure nothing: write a random checkpoint, in bf16 or as --dtype says."},
    {.name = "experts",
     .kind = OPTION_INTEGER,
     AT(experts),
     .argument = "N",
     .low = 1,
     .high = DIT_MAX_EXPERTS - 1,
     .preset = "8",
     .group = "Work",
     .help = "Routed experts of a layer."},
    {.name = "top-k",
     .kind = OPTION_INTEGER,
     AT(top_k),
     .argument = "K",
     .low = 1,
     .high = DIT_MAX_EXPERTS - 1,
     .preset = "2",
     .help = "Experts of a token."},
    {.name = "depth",
     .kind = OPTION_INTEGER,
     AT(depth),
     .argument = "N",
     .low = 1,
     .high = 1000,
     .help = "Blocks of the model, by default as published."},
    {.name = "batch",
     .letter = 'b',
     .kind = OPTION_INTEGER,
     AT(batch),
     .argument = "N",
     .low = 1,
     .high = 4096,
     .preset = "2",
     .help = "Images of a call."},
    {.name = "image-size",
     .kind = OPTION_INTEGER,
     AT(image_size),
     .argument = "PIXELS",
     .low = 16,
     .high = 4096,
     .preset = "256",
     .help = "Side of an image; that of the latents is an eighth."},
    {.name = "guided",
     .kind = OPTION_FLAG,
     AT(guided),
     .help = "As classifier-free guidance: half of a batch has the null label; with --sample, "
             "every image is two of a call."},
    {.name = "steps",
     .kind = OPTION_INTEGER,
     AT(steps),
     .argument = "N",
     .low = 1,
     .high = 1000,
     .preset = "25",
     .help = "With --sample: steps of the model's sampler."},
    {.name = "seed", .kind = OPTION_SEED, AT(seed), .argument = "N", .help = "Of all values."},
    {.name = "backend",
     .kind = OPTION_CHOICE,
     AT(backend),
     .argument = "cpu|cuda|ref",
     .preset = "cpu",
     .group = "Variants",
     .help = "Implementation of the operations."},
    {.name = "dtype",
     .kind = OPTION_LIST,
     AT(dtype),
     .argument = "TYPE,...",
     .help = "f32 or bf16, by default what the machine does best. Several values of this and the "
             "next two options are run in alternation, repetition by repetition; the same twice "
             "shows how far two equal things differ."},
    {.name = "tier",
     .kind = OPTION_LIST,
     AT(tier),
     .argument = "TIER,...",
     .help = "Instructions: generic, avx2, avx512, avx512bf16, amx; by default the best."},
    {.name = "threads",
     .kind = OPTION_LIST,
     AT(threads),
     .argument = "N,...",
     .help = "By default one for each processor available."},
    {.name = "reps",
     .letter = 'r',
     .kind = OPTION_INTEGER,
     AT(reps),
     .argument = "N",
     .low = 1,
     .high = 100000,
     .preset = "7",
     .group = "Measuring",
     .help = "Repetitions. Reported are the fastest, the median, and the range from the 10th to "
             "the 90th percentile over the median; rates are those of the fastest."},
    {.name = "warm-up",
     .kind = OPTION_INTEGER,
     AT(warm_up),
     .argument = "N",
     .low = 0,
     .high = 1000,
     .preset = "2",
     .help = "Calls before the first repetition."},
    {.name = "profile",
     .kind = OPTION_FLAG,
     AT(profile),
     .help = "Then measure as often again where the time goes, operation by operation."},
    {.name = "no-share",
     .kind = OPTION_FLAG,
     AT(no_share),
     .help = "Do not measure the machine's peak (the best of --peak), and no share of it."},
    {.name = "format",
     .kind = OPTION_CHOICE,
     AT(format),
     .argument = "text|md|jsonl",
     .preset = "text",
     .group = "Output",
     .help = "Tables, or a JSON object in each line."},
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_TEXT,
     AT(output),
     .argument = "FILE",
     .help = "Where results, or the checkpoint, are written; by default standard output."},
    {.name = "force", .kind = OPTION_FLAG, AT(force), .help = "Replace an existing file."},
};

static const struct program program = {
    .name = "ditmoe-bench",
    .summary = "measure the speed of DiT-MoE models",
    .about =
        "Times whole calls of models of the published shapes, with random weights in memory, and\n"
        "their parts. GFLOP/s of a step counts the products of attention and experts; GB/s is\n"
        "the weights that a call reads over its time.",
    .options = table,
    .count = sizeof table / sizeof table[0],
    .settings_size = sizeof(struct bench_settings),
};

/* Which of the options mean something to which mode. */

enum {
  STEP = 1,
  OPS = 2,
  DECODER = 4,
  SAMPLE = 8,
  LOAD = 16,
  PEAK = 32,
  MAKE = 64,
  FEATURES = 128,
  ROUTING = 256,
  MODES = 9
};

static const struct mode {
  unsigned bit;
  const char *option;
  enum ditmoe_status (*run)(struct bench *bench);
} modes[MODES] = {
    {STEP, "step", bench_step},          {OPS, "ops", bench_operations},
    {DECODER, "decoder", bench_decoder}, {FEATURES, "features", bench_features},
    {ROUTING, "routing", bench_routing}, {SAMPLE, "sample", bench_sample},
    {LOAD, "load", bench_load},          {PEAK, "peak", bench_peak},
    {MAKE, "make", bench_make},
};

static const struct {
  const char *option;
  unsigned modes;
} uses[] = {
    {"experts", STEP | ROUTING | SAMPLE | MAKE},
    {"top-k", STEP | ROUTING | SAMPLE | MAKE},
    {"depth", STEP | ROUTING | SAMPLE | MAKE},
    {"batch", STEP | ROUTING | SAMPLE | LOAD | FEATURES},
    {"image-size", STEP | ROUTING | DECODER | SAMPLE | MAKE | FEATURES},
    {"guided", STEP | ROUTING | SAMPLE | LOAD},
    {"steps", SAMPLE},
    {"seed", STEP | ROUTING | DECODER | SAMPLE | MAKE | FEATURES},
    {"backend", STEP | ROUTING | OPS | DECODER | SAMPLE | LOAD | PEAK | FEATURES},
    {"tier", STEP | ROUTING | OPS | DECODER | SAMPLE | LOAD | PEAK | FEATURES},
    {"threads", STEP | ROUTING | OPS | DECODER | SAMPLE | LOAD | PEAK | FEATURES},
    {"reps", STEP | ROUTING | OPS | DECODER | SAMPLE | PEAK | FEATURES},
    {"warm-up", STEP | ROUTING | OPS | DECODER | SAMPLE | PEAK | FEATURES},
    {"profile", STEP | DECODER | SAMPLE | FEATURES},
    {"no-share", STEP | OPS | DECODER | SAMPLE | FEATURES},
    {"format", STEP | ROUTING | OPS | DECODER | SAMPLE | LOAD | PEAK | FEATURES},
};

static bool given(const struct bench *bench, const char *name) {
  const struct option *option = option_find(&program, name, strlen(name));
  return option_source(&bench->options, option) >= FROM_ENVIRONMENT;
}

/* The one mode that was asked for. */
static enum ditmoe_status find_mode(struct bench *bench, const struct mode **out) {
  const struct mode *found = NULL;
  for (int i = 0; i < MODES; i++) {
    const struct mode *mode = &modes[i];
    if (!given(bench, mode->option)) continue;
    if (mode->bit == DECODER && given(bench, "sample")) continue; /* which decoder */
    if (found)
      return report_error(DITMOE_USAGE, "--%s and --%s: one at a time", found->option,
                          mode->option);
    found = mode;
  }
  if (!found) bench->settings.step = "S/2";
  *out = found ? found : &modes[0];
  return DITMOE_OK;
}

static enum ditmoe_status refuse_needless(const struct bench *bench, const struct mode *mode) {
  for (size_t i = 0; i < sizeof uses / sizeof *uses; i++)
    if (given(bench, uses[i].option) && !(uses[i].modes & mode->bit))
      return report_error(DITMOE_USAGE, "--%s has no effect with --%s", uses[i].option,
                          mode->option);
  if (given(bench, "force") && !bench->settings.output)
    return report_error(DITMOE_USAGE, "--force has no effect without --output");
  if (bench->settings.common.json && given(bench, "format") &&
      strcmp(bench->settings.format, "jsonl") != 0)
    return report_error(DITMOE_USAGE, "--json and --format %s contradict each other",
                        bench->settings.format);
  return DITMOE_OK;
}

static enum ditmoe_status check_output(const struct bench_settings *settings) {
  const struct output_file output = {"output", settings->output};
  const struct input_file inputs[] = {
      {settings->ops, false}, {settings->features, false}, {settings->load, true}};
  return outputs_check(&output, 1, inputs, sizeof inputs / sizeof *inputs, settings->force);
}

static enum ditmoe_status measure_into(struct bench *bench, const struct mode *mode, FILE *out) {
  const char *format = bench->settings.common.json ? "jsonl" : bench->settings.format;
  TRY(variants_read(bench));
  TRY(mode->run(bench));
  rows_print(&bench->rows, format, out);
  return DITMOE_OK;
}

/* The output is opened first: a long measurement is not lost for a folder that does not exist. */
static enum ditmoe_status measure_to_file(struct bench *bench, const struct mode *mode) {
  struct file_output output;
  TRY(report_call(bench->ctx, file_output_open(bench->ctx, bench->settings.output, &output)));
  enum ditmoe_status status = measure_into(bench, mode, output.stream);
  if (status != DITMOE_OK) {
    file_output_abandon(bench->ctx, &output);
    return status;
  }
  TRY(report_call(bench->ctx, file_output_commit(bench->ctx, &output)));
  report_file(bench->settings.output);
  return DITMOE_OK;
}

static enum ditmoe_status run(struct bench *bench) {
  const struct mode *mode = &modes[0];
  TRY(find_mode(bench, &mode));
  TRY(refuse_needless(bench, mode));
  TRY(check_output(&bench->settings));
  if (mode->bit == MAKE) return bench_make(bench);
  return bench->settings.output ? measure_to_file(bench, mode) : measure_into(bench, mode, stdout);
}

int main(int argc, char **argv) {
  struct bench bench = {.started = system_seconds()};
  int code = options_read(&bench.options, &program, &bench.settings, argc, argv);
  if (code < 0) {
    rows_begin(&bench.rows);
    bench.ctx = report_context();
    code = (int)report_finish(bench.ctx ? run(&bench) : DITMOE_NOMEM);
    ditmoe_ctx_destroy(bench.ctx);
    rows_free(&bench.rows);
    variants_free(&bench);
  }
  options_free(&bench.options);
  return code;
}
