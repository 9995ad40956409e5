/* Every option of ditmoe-sample acts or is refused: a case for each, run on small models of random
 * weights whose latents are shown as pixels. An option without a case fails the test. */
#include "tests/programs.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum effect {
  IMAGE,    /* other pixels, and other settings in the manifest            */
  MANIFEST, /* the same pixels, other settings                             */
  OUTPUT,   /* other files or streams: `text` is a shell test of them, in the
               folder of the images; ../out and ../err are the streams      */
  REFUSED   /* exit `code`, and `text` in the message                      */
};

/* Models and their records. */
#define FREE "-m @fixtures/dit_moe/b_mixed/bare.safetensors --vae none --record ../tiny.json"
#define TINY FREE " -n 2"
#define BASE TINY " --steps 2"
#define FLOW TINY " --objective rf --steps 2"
#define SDE  FLOW " --sampler sde"
#define NORM                                                                                       \
  "-m @fixtures/dit_moe/c_flash_qknorm/bare.safetensors --vae none --record ../norm.json -n 2 "    \
  "--steps 2"
#define PROMOE                                                                                     \
  "-m @fixtures/promoe/promoe_tc/bare.safetensors --vae none --record ../promoe.json -n 2 "        \
  "--steps 2"
#define CHOICE                                                                                     \
  "-m @fixtures/promoe/ecdit_swiglu_shared/bare.safetensors --vae none --record ../choice.json "   \
  "-n 2 --steps 2"
#define KL                                                                                         \
  "-m @fixtures/dit_moe/b_mixed/bare.safetensors --record ../tiny.json -n 2 --steps 2 --vae "      \
  "@fixtures/vae/kl_oldkeys"

#define IMAGES                                                                                     \
  "-m @fixtures/jitmoe/jitmoe_tiny/checkpoint-last.pth --record ../images.json -n 2 --steps 2"
#define LIGHT                                                                                      \
  "-m @fixtures/lightningdit/ldit_tiny/0080000.pt --vae @fixtures/vae2/vavae/bare.safetensors "    \
  "--record ../light.json -n 2 --steps 3"

static const struct record {
  const char *file, *text;
} records[] = {
    {"tiny.json", "{\"heads\": 6, \"top_k\": 1, \"objective\": \"ddpm\"}"},
    {"norm.json", "{\"top_k\": 2, \"objective\": \"ddpm\"}"},
    {"promoe.json", "{\"kind\": \"promoe-tc\", \"objective\": \"rf\", \"heads\": 4, \"top_k\": 1, "
                    "\"router_weight_mode\": \"identity\"}"},
    {"choice.json", "{\"kind\": \"ec-dit\", \"objective\": \"rf\", \"heads\": 4, \"capacity\": 2}"},
    {"images.json", "{\"top_k\": 2, \"routed_scaling_factor\": 2.5, \"in_context_start\": 2}"},
    {"light.json", "{\"heads\": 4, \"latent_mean\": [0, 0, 0, 0, 0, 0, 0, 0], "
                   "\"latent_std\": [1, 1, 1, 1, 1, 1, 1, 1]}"},
    {"eps.json", "{\"norm_eps\": 0.01}"},
    {"classes.txt", "5\n6\n"},
};

/* The second run has the arguments base and change; a change that begins with '=' stands alone. */
/* clang-format off */
static const struct option_case {
  const char *option, *base, *change;
  enum effect effect;
  int code;
  const char *text;
} cases[] = {
    {"model", BASE, "=-m @fixtures/dit_moe/b_mixed/bare.pt --vae none --record ../tiny.json -n 2 "
                    "--steps 2", MANIFEST, 0, NULL},
    {"model", "", "-m absent.pt", REFUSED, DITMOE_FORMAT, "absent.pt"},
    {"key", "-m @fixtures/dit_moe/b_mixed/0050000.pt --vae none --record ../tiny.json -n 2 "
            "--steps 2", "--key model", IMAGE, 0, NULL},
    {"key", BASE, "--key ema", REFUSED, DITMOE_USAGE, "ema"},
    {"vae", BASE, "=" KL, IMAGE, 0, NULL},
    {"vae", IMAGES, "--vae none", MANIFEST, 0, NULL},
    {"vae", IMAGES, "--vae @fixtures/vae/kl_oldkeys", REFUSED, DITMOE_MISMATCH,
     "it takes no decoder"},
    {"latents-stats", LIGHT, "--latents-stats @fixtures/lightningdit/ldit_tiny/latents_stats.pt",
     IMAGE, 0, NULL},
    {"latents-stats", LIGHT, "--latents-stats @fixtures/lightningdit/ldit_tiny/bare.safetensors",
     REFUSED, DITMOE_MISMATCH, "no statistics of latents"},
    {"latents-stats", "", "-m @fixtures/lightningdit/ldit_tiny/0080000.pt --heads 4 -n 1 --steps 3 "
     "--vae @fixtures/vae2/vavae/bare.safetensors", REFUSED, DITMOE_USAGE, "--latents-stats FILE"},
    {"vae", TINY, "--vae absent", REFUSED, DITMOE_USAGE, "given twice"},
    {"record", "-m @fixtures/dit_moe/b_mixed/bare.safetensors --vae none -n 2 --steps 2 "
               "--objective ddpm --heads 6 --top-k 1", "--record ../eps.json", IMAGE, 0, NULL},
    {"record", "", "-m x --record absent", REFUSED, DITMOE_FORMAT, "absent"},
    {"image-size", BASE, "--image-size 16", MANIFEST, 0, NULL},
    {"image-size", BASE, "--image-size 257", REFUSED, DITMOE_MISMATCH,
     "--image-size 257: the model has 16"},
    {"num-classes", BASE, "--num-classes 17", MANIFEST, 0, NULL},
    {"num-classes", BASE, "--num-classes 1000", REFUSED, DITMOE_MISMATCH, "the model has 17"},
    {"num-experts", BASE, "--num_experts 8", MANIFEST, 0, NULL},
    {"num-experts", BASE, "--num-experts 16", REFUSED, DITMOE_MISMATCH, "the model has 8"},

    {"kind", BASE, "--kind dit-moe", MANIFEST, 0, NULL},
    {"kind", BASE, "--kind dit", REFUSED, DITMOE_MISMATCH, "--kind"},
    {"objective", BASE, "--objective rf", IMAGE, 0, NULL},
    {"family", BASE, "--family dit-moe", MANIFEST, 0, NULL},
    {"family", BASE, "--family sit", REFUSED, DITMOE_MISMATCH, "not of family sit"},
    {"family", BASE, "--family site", REFUSED, DITMOE_USAGE, "is not one of: dit-moe, promoe"},
    {"time-direction", FLOW, "--time-direction 0to1", IMAGE, 0, NULL},
    {"time-direction", BASE, "--time-direction 0to1", REFUSED, DITMOE_USAGE,
     "--time-direction has no effect on a model that is no flow"},
    {"heads", BASE, "--heads 3", IMAGE, 0, NULL},
    {"heads", BASE, "--heads 7", REFUSED, DITMOE_MISMATCH, "heads"},
    {"top-k", BASE, "--top-k 2", IMAGE, 0, NULL},
    {"top-k", CHOICE, "--top-k 2", REFUSED, DITMOE_USAGE, "--top-k has no effect"},
    {"time-scale", FLOW, "--time-scale 1000", IMAGE, 0, NULL},
    {"frequency-shift", BASE, "--frequency-shift 1", IMAGE, 0, NULL},
    {"norm-eps", BASE, "--norm-eps 1e-2", IMAGE, 0, NULL},
    {"norm2-eps", BASE, "--norm2-eps 1e-2", IMAGE, 0, NULL},
    {"qk-norm-eps", NORM, "--qk-norm-eps 1e-1", IMAGE, 0, NULL},
    {"qk-norm-eps", BASE, "--qk-norm-eps 1e-1", REFUSED, DITMOE_USAGE,
     "--qk-norm-eps has no effect"},
    {"uncond-label", PROMOE, "--uncond-label 0", IMAGE, 0, NULL},
    {"uncond-label", BASE, "--uncond-label 0", REFUSED, DITMOE_USAGE,
     "--uncond-label has no effect"},
    {"null-label", BASE, "--null-label 3", IMAGE, 0, NULL},
    {"router-weight-mode", PROMOE, "--router-weight-mode sigmoid", IMAGE, 0, NULL},
    {"router-weight-mode", BASE, "--router-weight-mode sigmoid", REFUSED, DITMOE_USAGE,
     "--router-weight-mode has no effect"},
    {"capacity", CHOICE, "--capacity 1", IMAGE, 0, NULL},
    {"capacity", BASE, "--capacity 1", REFUSED, DITMOE_USAGE, "--capacity has no effect"},
    {"latent-scale", KL, "--latent-scale 0.18215", MANIFEST, 0, NULL},
    {"latent-scale", KL, "--latent-scale 3", REFUSED, DITMOE_MISMATCH, "--latent-scale"},
    {"latent-scale", BASE, "--latent-scale 3", REFUSED, DITMOE_USAGE,
     "--latent-scale has no effect"},
    {"latent-shift", KL, "--latent-shift 0", MANIFEST, 0, NULL},
    {"latent-shift", KL, "--latent-shift 1", REFUSED, DITMOE_MISMATCH, "--latent-shift 1"},

    {"class", BASE, "--class 3,4", IMAGE, 0, NULL},
    {"class-file", BASE, "--class-file ../classes.txt", IMAGE, 0, NULL},
    {"class-file", BASE, "--class-file absent", REFUSED, DITMOE_FORMAT, "absent"},
    {"num-samples", FREE, "--steps 2 --num-samples 3", OUTPUT, 0,
     "test -f 000002.png -a ! -f 000003.png"},
    {"label-sampling", BASE, "--label-sampling list", IMAGE, 0, NULL},
    {"label-sampling", BASE, "--label-sampling random", OUTPUT, 0,
     "grep -q '\"label-sampling\":.*\"random\"' run.json"},
    {"label-sampling", BASE " -c 0,1", "--label-sampling equal", MANIFEST, 0, NULL},
    {"label-sampling", BASE " -c 0,1,2", "--label-sampling equal", REFUSED, DITMOE_USAGE,
     "multiple of 3"},
    {"index-range", BASE, "--index-range 1:2", OUTPUT, 0,
     "test ! -f 000000.png -a -f 000001.png -a -f run.1-1.json"},
    {"index-range", BASE, "--index-range 1:3", REFUSED, DITMOE_USAGE, "the run has 2 images"},
    {"allow-null", BASE, "--allow-null -c 17", IMAGE, 0, NULL},
    {"list-classes", BASE, "--list-classes", OUTPUT, 0,
     "test ! -f run.json && grep -q '^16 ' ../out"},

    {"seed", BASE, "--seed 1", IMAGE, 0, NULL},
    {"seed", BASE, "--global_seed 18446744073709551615", IMAGE, 0, NULL},
    {"seed", BASE, "--seed -1", IMAGE, 0, NULL},
    {"sampler", BASE, "--sampler ddim", IMAGE, 0, NULL},
    {"sampler", BASE, "--sampler dpmpp-2m", IMAGE, 0, NULL},
    {"sampler", FLOW, "--sampler rf-heun", IMAGE, 0, NULL},
    {"sampler", FLOW, "--sampler midpoint", IMAGE, 0, NULL},
    {"sampler", BASE, "--sampler euler", REFUSED, DITMOE_MISMATCH, "--force"},
    {"steps", BASE, "=" TINY " --num-sampling-steps 3", IMAGE, 0, NULL},
    {"respacing", BASE, "=" TINY " --respacing 1,2", IMAGE, 0, NULL},
    {"respacing", FLOW, "--respacing 2", REFUSED, DITMOE_USAGE, "alternatives"},
    {"cfg-scale", BASE, "--cfg-scale 1.5", IMAGE, 0, NULL},
    {"cfg-interval", BASE, "--cfg-interval 0:0.5", IMAGE, 0, NULL},
    {"cfg-channels", FREE " -n 2 --steps 9", "--cfg-channels all", IMAGE, 0, NULL},
    {"eta", BASE " --sampler ddim", "--eta 0.5", IMAGE, 0, NULL},
    {"eta", BASE, "--eta 0", REFUSED, DITMOE_USAGE, "--eta has no effect"},
    {"cfg-times", FLOW, "--cfg-times 0:0.7", IMAGE, 0, NULL},
    {"cfg-times", FLOW, "--cfg-times 0:0.7 --cfg-interval 0:0.5", REFUSED, DITMOE_USAGE,
     "alternatives"},
    {"cfg-times", BASE, "--cfg-times 0:0.7", REFUSED, DITMOE_USAGE, "sampler ddpm has no use"},
    {"preset", TINY, "=" FREE " --preset dit-moe-s -n 2 --steps 3", IMAGE, 0, NULL},
    {"preset", BASE, "--preset dit-moe-t", REFUSED, DITMOE_USAGE, "see --list-presets"},
    {"list-presets", BASE, "--list-presets", OUTPUT, 0,
     "test ! -f run.json && grep -q '^sit-xl-2-256 .*FID 2.06' ../out"},
    {"diffusion-form", SDE, "--diffusion-form constant", IMAGE, 0, NULL},
    {"diffusion-form", SDE, "--diffusion-form sbdm", REFUSED, DITMOE_USAGE, "--sample-eps"},
    {"diffusion-form", FLOW, "--diffusion-form sigma", REFUSED, DITMOE_USAGE,
     "sampler euler has no use for it"},
    {"diffusion-norm", SDE, "--diffusion-norm 0.5", IMAGE, 0, NULL},
    {"last-step", SDE, "--last-step tweedie", IMAGE, 0, NULL},
    {"last-step", SDE, "--last-step None", IMAGE, 0, NULL},
    {"last-step-size", SDE, "--last-step-size 0.1", IMAGE, 0, NULL},
    {"last-step-size", SDE, "--last-step none --last-step-size 0.1", REFUSED, DITMOE_USAGE,
     "there is no last step"},
    {"sample-eps", SDE, "--sample-eps 0.1", IMAGE, 0, NULL},
    {"shift", SDE, "--shift 3", REFUSED, DITMOE_USAGE, "sampler sde has no use"},
    {"shift", FLOW, "--shift 3", IMAGE, 0, NULL},
    {"shift", BASE, "--shift 3", REFUSED, DITMOE_USAGE, "shift"},
    {"size", BASE, "--size 16x16", MANIFEST, 0, NULL},
    {"size", BASE, "--size 16", REFUSED, DITMOE_USAGE, "WIDTHxHEIGHT"},
    {"width", PROMOE, "-W 24", IMAGE, 0, NULL},
    {"width", BASE, "--width 24", REFUSED, DITMOE_MISMATCH, "follows no formula"},
    {"height", PROMOE, "--height 4", IMAGE, 0, NULL},
    {"height", BASE, "-H 9", REFUSED, DITMOE_USAGE, "--height 9: with this model and decoder"},
    {"fixed-variance", TINY " --steps 3", "--fixed-variance", IMAGE, 0, NULL},
    {"rng", BASE, "--rng torch-cpu", IMAGE, 0, NULL},
    {"index-block", BASE " --rng torch-cpu", "--index-block 1", IMAGE, 0, NULL},
    {"index-block", BASE, "--index-block 1", REFUSED, DITMOE_USAGE, "index block"},

    {"batch-size", BASE, "--batch-size 1", MANIFEST, 0, NULL},
    {"dtype", BASE " --dtype f32", "=" BASE " --dtype bf16", IMAGE, 0, NULL},
    {"dtype", BASE, "--dtype f16", REFUSED, DITMOE_USAGE, "is not one of f32|bf16"},
    {"device", BASE, "--device cuda", REFUSED, DITMOE_DEVICE, "backend cuda"},
    {"backend", BASE, "--backend ref", OUTPUT, 0, "grep -q '\"backend\":.*\"ref\"' run.json"},
    {"tier", BASE, "--tier generic", OUTPUT, 0, "grep -q '\"tier\":.*\"generic\"' run.json"},
    {"threads", BASE, "--threads 2", MANIFEST, 0, NULL},
    {"tile", KL, "--tile 4 --dry-run --json", OUTPUT, 0,
     "test $(sed 's/.*working\": \\([0-9]*\\).*/\\1/' ../out) -lt 5000000"},
    {"dry-run", BASE, "--dry-run", OUTPUT, 0, "test ! -f run.json && grep -q '^fits' ../out"},

    {"output", BASE, "--output x_%03d.bmp", OUTPUT, 0, "test -f x_001.bmp -a -f x_run.json"},
    {"format", BASE, "--format jpg", OUTPUT, 0, "test -f 000001.jpg -a ! -f 000001.png"},
    {"format", BASE, "--output x_%d.png --format jpg", REFUSED, DITMOE_USAGE,
     "--format has no effect"},
    {"grid", BASE, "--grid g.png", OUTPUT, 0, "test -f g.png && grep -q '\"grid\"' run.json"},
    {"grid-samples", BASE, "--grid g.png --grid-samples 1", OUTPUT, 0,
     "test \"$(od -An -tu1 -j16 -N8 g.png | tr -d ' ')\" = 0001600016"},
    {"grid-samples", BASE, "--grid-samples 1", REFUSED, DITMOE_USAGE, "without --grid"},
    {"grid-cols", BASE, "--grid g.png --grid-cols 1", OUTPUT, 0, "test -f g.png"},
    {"latents", BASE, "--latents l.st", OUTPUT, 0,
     "@info --tensors l.st | grep -q '2,4,16,16.*latents'"},
    {"routing-dump", BASE, "--routing-dump r.npz", OUTPUT, 0, "@heatmap r.npz | grep -q images"},
    {"routing-dump", BASE, "--routing-dump r.npz --grid r.npz", REFUSED, DITMOE_USAGE, "--grid"},
    {"routing-mass", BASE, "--routing-dump r.npz --routing-mass", OUTPUT, 0,
     "grep -aq mass.npy r.npz"},
    {"routing-mass", BASE, "--routing-mass", REFUSED, DITMOE_USAGE, "without --routing-dump"},
    {"routing-uncond", BASE, "--cfg-scale 2 --routing-dump r.npz --routing-uncond", OUTPUT, 0,
     "grep -aq uncond_counts r.npz"},
    {"routing-bins", BASE, "--routing-dump r.npz --routing-bins 1", OUTPUT, 0,
     "@heatmap r.npz --by step --csv r.csv && test $(cut -d, -f3 r.csv | sort -u | wc -l) = 3"},
    {"routing-trace", BASE, "--routing-trace r.trace", OUTPUT, 0,
     "@heatmap r.trace | grep -q images"},
    {"routing-scores", BASE, "--routing-trace r.trace --routing-scores", OUTPUT, 0,
     "head -c 4000 r.trace | grep -aq '\"scores\":true'"},
    {"routing-scores", BASE, "--routing-scores", REFUSED, DITMOE_USAGE, "--routing-trace"},
    {"show", BASE, "--show --color always", OUTPUT, 0, "grep -q 's=16,v=16' ../err"},
    {"show", BASE, "--show", REFUSED, DITMOE_USAGE, "not a terminal"},
    {"zoom", BASE, "--show --color always --zoom 2", OUTPUT, 0, "grep -q 's=32,v=32' ../err"},
    {"disable-image-metadata", BASE, "--grid g.png --disable-image-metadata", OUTPUT, 0,
     "test -f g.png && ! grep -aq parameters g.png"},
    {"disable-image-metadata", BASE, "--format bmp --disable-image-metadata", REFUSED, DITMOE_USAGE,
     "only PNG"},
    {"reproduce", BASE, "=--reproduce absent.png", REFUSED, DITMOE_FORMAT, "absent.png"},
    {"force", BASE, "--sampler euler --force", IMAGE, 0, NULL},
    {"resume", BASE, "--resume", OUTPUT, 0, "grep -q '\"resumes\":.*0' run.json"},
    {"resume", BASE, "-o d/ --latents l.st --resume", REFUSED, DITMOE_USAGE, "--latents"},
    {"resume", FREE " --steps 2 -c 0", "-o x.png --resume", REFUSED, DITMOE_USAGE, "a number"},
    {"rank", BASE, "--rank 1 --ranks 2 --rank-timeout 0; test $? = 9", OUTPUT, 0,
     "test ! -f 000000.png -a -f 000001.png -a -f run.1.journal"},
    {"rank", BASE, "--rank 1", REFUSED, DITMOE_USAGE, "--rank needs --ranks"},
    {"rank", BASE, "--rank 2 --ranks 2", REFUSED, DITMOE_USAGE, "the last is 1"},
    {"ranks", BASE, "--ranks 1", OUTPUT, 0, "test -f 000001.png"},
    {"ranks", BASE, "--ranks 2", REFUSED, DITMOE_USAGE, "--ranks needs --rank"},
    {"ranks", BASE, "--ranks 2 --rank 0 --show --color always", REFUSED, DITMOE_USAGE, "--show"},
    {"rank-timeout", BASE, "--ranks 2 --rank 0 --rank-timeout 0; test $? = 9", OUTPUT, 0,
     "grep -q incomplete run.json"},
    {"rank-timeout", BASE, "--rank-timeout 1", REFUSED, DITMOE_USAGE, "without --ranks"},
    {"progress", BASE, "--progress json", OUTPUT, 0,
     "grep -q '{\"event\": \"progress\".*images_per_second' ../err"},
    {"json", BASE, "--json", OUTPUT, 0, "grep -q '\"images\":' ../out"},
    {"quiet", BASE, "--quiet", OUTPUT, 0, "! grep -v warning ../err"},
    {"verbose", BASE, "--verbose", OUTPUT, 0, "grep -q 'steps: 2 (command line)' ../err"},
    {"color", BASE, "--color always", OUTPUT, 0, "grep -q '\033' ../err"},
    {"help", BASE, "--help", OUTPUT, 0, "grep -q Usage ../out"},
    {"version", BASE, "--version", OUTPUT, 0, "grep -q ^ditmoe ../out"},
};
/* clang-format on */

static const char *arguments_of(char *line, size_t size, const struct option_case *c) {
  if (c->change[0] == '=') return c->change + 1;
  snprintf(line, size, "%s %s", c->base, c->change);
  return line;
}

/* Runs in a new folder below the temporary one. */
static struct outcome run_in(const char *folder, const char *arguments, const char *more) {
  return run("rm -rf %s && mkdir %s && cd %s && env -u TMUX KITTY_WINDOW_ID=1 DITMOE_THREADS=1 "
             "@sample %s %s",
             folder, folder, folder, arguments, more);
}

static char *checksum(const char *folder, const char *what) {
  return strdup(run("cd %s && %s | cksum", folder, what).out);
}

static bool differ(const char *what) {
  char *a = checksum("a", what), *b = checksum("b", what);
  bool different = strcmp(a, b) != 0;
  free(a);
  free(b);
  return different;
}

static bool succeeds(const char *folder, const char *arguments) {
  struct outcome outcome = run_in(folder, arguments, "--format bmp");
  if (outcome.code != 0) print_error("%s\n%s", arguments, outcome.err);
  return outcome.code == 0;
}

/* Folder a holds what the last base made. */
static bool acts(const struct option_case *c, const char *arguments) {
  static const char *made = "";
  if (strcmp(made, c->base) != 0 && !succeeds("a", c->base)) return false;
  made = c->base;
  if (!succeeds("b", arguments)) return false;
  return differ(
             "sed -n '/\"arguments\"/d; /\"options\"/,/\"sources\"/p; /\"plan\"/,/}/p' run.json") &&
         differ("cat *.bmp") == (c->effect == IMAGE);
}

static bool shows(const struct option_case *c, const char *arguments) {
  struct outcome outcome = run_in("b", arguments, ">../out 2>../err");
  return outcome.code == 0 && run("cd b && %s", c->text).code == 0;
}

static bool refuses(const struct option_case *c, const char *arguments) {
  struct outcome outcome = run_in("b", arguments, "");
  if (outcome.code == c->code && strstr(outcome.err, c->text)) return run("rmdir b").code == 0;
  print_error("exit %d: %s", outcome.code, outcome.err);
  return false;
}

static void every_option_acts_or_is_refused(void **state) {
  (void)state;
  int failures = 0;
  for (size_t i = 0; i < sizeof records / sizeof records[0]; i++)
    assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), temporary_path(records[i].file),
                                            records[i].text, strlen(records[i].text)));
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char line[1024];
    const struct option_case *c = &cases[i];
    const char *arguments = arguments_of(line, sizeof line, c);
    bool good = c->effect == REFUSED  ? refuses(c, arguments)
                : c->effect == OUTPUT ? shows(c, arguments)
                                      : acts(c, arguments);
    if (!good) print_error("--%s: not as expected with: %s\n", c->option, arguments);
    failures += !good;
  }
  assert_int_equal(failures, 0);
}

static void every_option_has_a_case(void **state) {
  (void)state;
  struct outcome fish = run("@sample --emit-completion fish");
  int options = 0;
  for (char *at = fish.out; (at = strstr(at, " -l ")); options++) {
    char name[64];
    bool found = false;
    at += 4;
    assert_int_equal(sscanf(at, "%63[a-z0-9-]", name), 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && !found; i++)
      found = strcmp(cases[i].option, name) == 0;
    if (!found) fail_msg("no case for --%s", name);
  }
  assert_true(options > 60);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_option_has_a_case),
      cmocka_unit_test(every_option_acts_or_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
