/* What ditmoe-sample leaves behind: metadata, reproduction, and nothing wrong after any fault. */
#include "tests/programs.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A small model of random weights that makes 16 x 16 pixels; the real one with its decoder. */
#define TINY                                                                                       \
  "@sample -q -t 1 -m @fixtures/dit_moe/b_mixed/bare.safetensors --vae none --heads 6 --top-k 1 "  \
  "--objective ddpm --steps 2 "
#define REAL "@sample -q -t 1 -m @source/assets/default/model.pth --steps 2 "
#define LONG "@sample -q -t 1 -m @source/assets/default/model.pth --steps 1000 "

static int fresh_folder(void **state) {
  (void)state;
  return run("rm -rf d && mkdir d").code;
}

static char *text_of(const char *image, const char *key) {
  static char text[1 << 16];
  assert_ok(test_ctx(),
            ditmoe_image_text(test_ctx(), temporary_path(image), key, text, sizeof text));
  return text;
}

static void assert_contains(const char *text, const char *part) {
  if (!strstr(text, part)) fail_msg("\"%s\" is not in:\n%s", part, text);
}

static void images_carry_their_settings(void **state) {
  (void)state;
  char hash[65], expected[256];
  assert_exit(run(TINY "-c 0,1,2 --seed 5 -o d/"), 0, "");
  assert_ok(test_ctx(),
            ditmoe_file_sha256(test_ctx(), fixture_path("dit_moe/b_mixed/bare.safetensors"), hash));
  snprintf(expected, sizeof expected,
           "class 2 class 2\nSteps: 2, Sampler: ddpm, CFG scale: 4.0, Seed: 5, Size: 16x16, "
           "Model: bare, Model hash: %.10s, RNG: philox, Version: ditmoe " DITMOE_VERSION,
           hash);
  assert_string_equal(text_of("d/000002.png", "parameters"), expected);
  assert_contains(text_of("d/000002.png", "ditmoe"), "\"index\":2");
  assert_contains(text_of("d/000002.png", "ditmoe"), hash);
  assert_shell("grep -aq tEXtparameters d/000002.png && grep -aq iTXtditmoe d/000002.png");
}

/* tEXt has no room for other alphabets; control characters of a name reach no terminal. */
static void names_of_any_alphabet_survive(void **state) {
  (void)state;
  assert_shell("printf '{\"class_names\": [\"\\\\u00e9t\\\\u00e9\", \"\\\\u732b\", "
               "\"a\\\\u001b[31mb\\\\nc\"]}' > names.json");
  assert_exit(run(TINY "--record names.json -c 0,1,2 -o d/"), 0, "");
  assert_contains(text_of("d/000000.png", "parameters"), "class 0 \xc3\xa9t\xc3\xa9\n");
  assert_contains(text_of("d/000001.png", "parameters"), "class 1 \xe7\x8c\xab\n");
  assert_contains(text_of("d/000002.png", "parameters"), "class 2 a?[31mb?c\n");
  assert_shell("grep -aq tEXtparameters d/000000.png && grep -aq iTXtparameters d/000001.png");
  struct outcome list = run(TINY "--record names.json --list-classes a");
  assert_contains(list.out, "a?[31mb?c");
  assert_null(strchr(list.out, 27));
  assert_exit(run(TINY "--record names.json -c \xe7\x8c\xab -o d/cat.png"), 0, "");
  assert_exit(run(TINY "--record names.json -c \xe7\x8c\xac -o d/dog.png"), DITMOE_USAGE, "near");
}

static void an_image_is_reproduced(void **state) {
  (void)state;
  assert_exit(run(REAL "-n 12 -g 2 -s 7 -o d/"), 0, "");
  assert_exit(run("@sample -q --reproduce d/000009.png -o r.png --force"), 0, "");
  assert_shell("cmp d/000009.png r.png");
  assert_exit(run("@sample -q --reproduce d/000009.png -o r.png --force --steps 2 -b 1 -t 2"), 0,
              "");
  assert_shell("cmp d/000009.png r.png");
  assert_exit(run("@sample -q --reproduce d/000009.png -o r2.png --steps 3"), DITMOE_USAGE,
              "--steps 3 contradicts");
  assert_exit(run("@sample -q --reproduce d/000009.png -o r2.png --eta 0.5"), DITMOE_USAGE,
              "--eta 0.5 contradicts");
  assert_exit(run("@sample -q --reproduce d/000009.png -o r2.png -c 3"), DITMOE_USAGE,
              "--class contradicts --reproduce");
  assert_exit(run("@convert -q @source/assets/default/model.pth -o d/m.st"), 0, "");
  assert_exit(run("@sample -q --reproduce d/000009.png -o r2.png -m d/m.st"), DITMOE_MISMATCH,
              "d/m.st: not the file that d/000009.png was made with");
  assert_exit(run("@sample -q --reproduce d/000009.png -o r2.png -m d/m.st --force"), 0, "");
  assert_exit(run("@sample -q --reproduce d/000009.png -o r3.png --steps 3 --force"), 0, "");
  assert_shell("! cmp -s d/000009.png r3.png");
}

/* Images that depend on each other are reproduced together, and one is written. */
static void a_block_is_reproduced(void **state) {
  (void)state;
  assert_exit(run(TINY "-n 6 --rng torch-cpu --index-block 4 -o d/"), 0, "");
  assert_exit(run("@sample -q --reproduce d/000005.png -o r.png --force"), 0, "");
  assert_shell("cmp d/000005.png r.png && test $(grep -c '\"file\"' r.json) = 1");
  assert_exit(run(TINY "-n 6 --rng torch-cpu --index-block 4 --index-range 4:6 -o r_%%d.png"), 0,
              "");
  assert_shell("cmp d/000005.png r_5.png");
  assert_exit(run(TINY "-n 6 --rng torch-cpu --index-block 4 --index-range 3:6 -o s_%%d.png"),
              DITMOE_USAGE, "must begin an index block of 4");
  assert_exit(run(TINY "-n 6 --rng torch-cpu --index-block 4 --index-range 0:2 -o s_%%d.png"),
              DITMOE_USAGE, "blocks of 4");
}

/* The default is that of the tier; the compute type is recorded, given or not, and with the tier
 * makes the image again. */
static void a_compute_type_is_reproduced(void **state) {
  static const char *const defaults[][2] = {{"generic", "f32"},
                                            {"avx2", "f32"},
                                            {"avx512", "f32"},
                                            {"avx512bf16", "bf16"},
                                            {"amx", "bf16"}};
  for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
    for (int given = 0; given < 2; given++) {
      const char *const tier = defaults[i][0], *dtype = defaults[i][1];
      if (given) dtype = strcmp(dtype, "f32") == 0 ? "bf16" : "f32";
      fresh_folder(state);
      struct outcome outcome =
          run(REAL "-n 3 -o d/ --tier %s %s %s", tier, given ? "--dtype" : "", given ? dtype : "");
      if (outcome.code != 0) {
        assert_exit(outcome, DITMOE_DEVICE, "this processor has no");
        continue;
      }
      assert_exit(run("grep -q '^\t\"dtype\":.*\"%s\"' d/run.json", dtype), 0, "");
      assert_exit(run("grep -q '^\t\"tier\":.*\"%s\"' d/run.json", tier), 0, "");
      assert_exit(run("@sample -q --reproduce d/000002.png -o d/r.png"), 0, "");
      assert_shell("cmp d/000002.png d/r.png");
    }
}

static void a_compute_type_matters(void **state) {
  (void)state;
  assert_exit(run(REAL "-n 2 -o d/ --dtype bf16"), 0, "");
  assert_exit(run("@sample -q --reproduce d/000001.png --dtype bf16 -o d/r.png"), 0, "");
  assert_exit(run("@sample -q --reproduce d/000001.png --dtype f32 -o d/s.png"), DITMOE_USAGE,
              "--dtype f32 contradicts");
  assert_exit(run("@sample -q --reproduce d/000001.png --dtype f32 -o d/s.png --force"), 0, "");
  assert_shell("cmp d/000001.png d/r.png && ! cmp -s d/000001.png d/s.png");
}

/* Batches and threads change no pixel of bf16. */
static void bf16_is_the_same_in_any_batch(void **state) {
  (void)state;
#define BF16 "@sample -q -m @source/assets/default/model.pth --steps 2 -n 5 --dtype bf16 "
  assert_exit(run(BF16 "-t 1 -b 5 -o d/a_%%d.bmp"), 0, "");
  assert_exit(run(BF16 "-t 4 -b 2 -o d/b_%%d.bmp"), 0, "");
  assert_exit(run(BF16 "-t 3 -b 1 -o d/c_%%d.bmp"), 0, "");
  assert_shell("for i in 0 1 2 3 4; do cmp d/a_$i.bmp d/b_$i.bmp && cmp d/a_$i.bmp d/c_$i.bmp || "
               "exit 1; done");
}

static void edited_metadata_is_refused(void **state) {
  (void)state;
  static const char *const texts[] = {
      "{",
      "[]",
      "{}",
      "{\"model\": 3}",
      "{\"model\": {\"path\": \"x\", \"sha256\": \"short\"}, \"vae\": null}",
      "{\"model\": {\"path\": \"x\", \"sha256\": "
      "\"0123456789012345678901234567890123456789012345678901234567890123\"}, \"vae\": null, "
      "\"unit\": {\"first\": 0, \"labels\": [-1]}}",
      "{\"model\": {\"path\": \"x\", \"sha256\": "
      "\"0123456789012345678901234567890123456789012345678901234567890123\"}, \"vae\": null, "
      "\"unit\": {\"first\": 0, \"labels\": [1]}, \"index\": 9}",
      "{\"model\": {\"path\": \"x\", \"sha256\": "
      "\"0123456789012345678901234567890123456789012345678901234567890123\"}, \"vae\": null, "
      "\"unit\": {\"first\": 0, \"labels\": [1]}, \"index\": 0, \"options\": {\"output\": "
      "\"/etc/x\"}}",
      "{\"model\": {\"path\": \"x\", \"sha256\": "
      "\"0123456789012345678901234567890123456789012345678901234567890123\"}, \"vae\": null, "
      "\"unit\": {\"first\": 0, \"labels\": [1]}, \"index\": 0, \"options\": {\"steps\": 5}}",
  };
  const uint8_t pixel[3] = {0};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    const struct ditmoe_text text[] = {{"ditmoe", texts[i]}, {NULL, NULL}};
    assert_ok(test_ctx(),
              ditmoe_image_write(test_ctx(), temporary_path("e.png"), pixel, 1, 1, text));
    assert_exit(run("@sample -q --reproduce e.png -o r.png"), DITMOE_FORMAT, "e.png: its settings");
  }
  assert_exit(run("@sample -q --reproduce @fixtures/bad/png_good.png"), DITMOE_FORMAT,
              "no text entry");
  assert_exit(run("@sample -q --reproduce @fixtures/bad/png_huge.png"), DITMOE_FORMAT,
              "png_huge.png");
  assert_exit(run("@sample -q --reproduce @fixtures/bad/png_not.png"), DITMOE_FORMAT, "not a PNG");
  assert_exit(run("@sample -q --reproduce @fixtures/bad/empty.png"), DITMOE_FORMAT, "not a PNG");
  assert_exit(run("@sample -q --reproduce d"), DITMOE_FORMAT, "folder");
}

static void nothing_is_overwritten(void **state) {
  (void)state;
  assert_exit(run(TINY "-n 2 -o d/ --grid d/g.png"), 0, "");
  assert_exit(run(TINY "-n 2 -o d/"), DITMOE_OUTPUT, "d/run.json: holds a run; --resume");
  assert_exit(run("rm d/run.json; " TINY "-n 2 -o d/"), DITMOE_OUTPUT, "d/run.json: holds a run");
  assert_exit(run("rm d/run.journal d/000001.png; " TINY "-n 2 -o d/"), DITMOE_OUTPUT,
              "d/000000.png: exists; --force");
  assert_exit(run(TINY "-n 1 -o e_%%d.png --grid d/g.png"), DITMOE_OUTPUT, "d/g.png: exists");
  assert_shell("test ! -e d/run.json -a ! -e d/run.journal");
  assert_exit(run(TINY "-n 2 -o d/ --force --seed 1"), 0, "");
  assert_exit(run(TINY "-n 1 -o d/ --force --seed 1"), 0, "");
  assert_shell("test \"$(ls -A d | tr '\\n' ' ')\" = '000000.png g.png run.journal run.json '");
  assert_exit(run(TINY "-n 1 -o d/x.png"), 0, "");
  assert_exit(run("rm d/x.png; " TINY "-n 1 -o d/x.png"), DITMOE_OUTPUT, "d/x.json: exists");
}

static void bad_outputs_are_refused_before_the_work(void **state) {
  (void)state;
  static const struct {
    const char *arguments;
    int code;
    const char *text;
  } refused[] = {
      {"-n 2 -o absent/more/", DITMOE_OUTPUT, "make the folder first"},
      {"-n 2 -o absent/x_%d.png", DITMOE_OUTPUT, "absent/: No such file"},
      {"-n 2 --grid absent/g.png -o d/", DITMOE_OUTPUT, "absent/: No such file"},
      {"-n 2 -o x.png", DITMOE_USAGE, "need a number in the name"},
      {"-n 2 -o x_%s.png", DITMOE_USAGE, "one number such as %06d"},
      {"-n 2 -o x_%d_%d.png", DITMOE_USAGE, "one number such as %06d"},
      {"-n 2 -o x_%999999999999d.png", DITMOE_USAGE, "one number such as %06d"},
      {"-n 2 -o d_%d/x.png", DITMOE_USAGE, "in its last part"},
      {"-n 2 -o x_%.png", DITMOE_USAGE, "one number such as %06d"},
      {"-n 2 -o x_%d.npz", DITMOE_USAGE, "the ending must be .png"},
      {"-n 2 -o x_%d", DITMOE_USAGE, "the ending must be .png"},
      {"-n 2 -o d/ --grid g.gif", DITMOE_USAGE, "the ending must be .png"},
      {"-n 2 -o d/ --grid d/000001.png", DITMOE_USAGE, "two outputs of this name"},
      {"-n 2 -o d/ --latents d/run.json", DITMOE_USAGE, "two outputs of this name"},
      {"-n 2 -o d/x.npz --latents d/x.npz", DITMOE_USAGE, "two outputs of this name"},
      {"-n 2 -o d/x.npz --format png", DITMOE_USAGE, "--format has no effect"},
      {"-n 1 -o d/x.png --grid d/x.png", DITMOE_USAGE, "two outputs of this name"},
      {"-n 1 -o d/x.png --latents d/x.json", DITMOE_USAGE, "two outputs of this name"},
      {"-n 1 -o d/x.png --grid d/y.png --latents d/y.png", DITMOE_USAGE,
       "two outputs of this name"},
      {"-n 1 -o d/f_%d.png", DITMOE_OUTPUT, "is a folder"},
  };
  assert_shell("mkdir d/f_0.png");
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
    assert_exit(run(TINY "%s", refused[i].arguments), refused[i].code, refused[i].text);
  if (geteuid() != 0) {
    assert_exit(run("chmod a-w d; " TINY "-n 1 -o d/"), DITMOE_OUTPUT, "Permission denied");
    assert_shell("chmod u+w d");
  }
  assert_shell("test \"$(ls -A d)\" = f_0.png");
}

/* A limit on the size of files stands for a full disk. */
static void a_failed_write_leaves_nothing(void **state) {
  (void)state;
  assert_exit(run("ulimit -f 1; " TINY "-n 2 -o d/"), DITMOE_OUTPUT, "d/run.json");
  assert_shell("test -z \"$(ls -A d)\"");
  assert_exit(run("ulimit -f 1; " TINY "-n 2 -o new/"), DITMOE_OUTPUT, "new/run.json");
  assert_exit(run("ulimit -f 1; " TINY "-n 2 -o d/x.npz"), DITMOE_OUTPUT, "d/x.json");
  assert_shell("test -z \"$(ls -A d)\" -a ! -e new");
  assert_exit(run(TINY "-n 1 -o d/x.png > /dev/full"), DITMOE_OUTPUT, "standard output");
}

static void a_nan_leaves_nothing(void **state) {
  (void)state;
  assert_exit(run("@sample -q -m @fixtures/bad/ck_nan.safetensors --vae none --heads 2 --top-k 1 "
                  "--objective ddpm --steps 2 -o d/"),
              DITMOE_NONFINITE, "step");
  assert_shell("test -z \"$(ls -A d)\"");
}

static void surroundings_do_not_matter(void **state) {
  (void)state;
  assert_exit(run(TINY "-n 1 -o d/a.png"), 0, "");
  assert_exit(
      run("env -i LC_ALL=de_DE.UTF-8 TZ=Asia/Tokyo TERM=dumb COLUMNS=20 " TINY "-n 1 -o d/b.png"),
      0, "");
  assert_exit(run("umask 077; " TINY "-n 1 -o d/c.png <&-"), 0, "");
  assert_int_equal(run(TINY "-n 1 -o d/d.png <&- >&- 2>&-").code, 0);
  assert_shell("cmp d/a.png d/b.png && cmp d/a.png d/c.png && cmp d/a.png d/d.png");
}

static void signals_end_the_run_cleanly(void **state) {
  (void)state;
  static const int signals[] = {SIGINT, SIGTERM};
  for (int i = 0; i < 2; i++) {
    fresh_folder(state);
    assert_exit(run_and_signal(signals[i], 1500, 0, TINY "-n 20000 -o d/"), 128 + signals[i], "");
    assert_shell("grep -q '\"status\":.*\"stopped\"' d/run.json && "
                 "test $(grep -c ^image d/run.journal) = $(ls d/*.png | wc -l) && "
                 "grep -q \"made.:.*$(ls d/*.png | wc -l)\" d/run.json && "
                 "! ls -A d | grep -q tmp");
  }
  fresh_folder(state);
  assert_exit(run_and_signal(SIGINT, 1500, 500, LONG "-n 64 -b 64 -o d/"), 128 + SIGINT, "");
}

static void classes_are_found(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int code;
    const char *message;
  } asked[] = {
      {"T-Shirt", 0, ""},
      {"shirt", 0, ""},
      {"boot", 0, ""},
      {"9", 0, ""},
      {"s", DITMOE_USAGE, "\"s\" may be"},
      {"shirts", DITMOE_USAGE, "near: 6 shirt; 0 t-shirt"},
      {"-1", DITMOE_USAGE, "-1 is not a class the model was trained on: 0 to 9"},
      {"10", DITMOE_USAGE, "0 to 9"},
      {"1000", DITMOE_USAGE, "--allow-null permits it"},
      {"1001", DITMOE_USAGE, "0 to 9"},
      {"2147483648", DITMOE_USAGE, "0 to 9"},
      {"99999999999999999999", DITMOE_USAGE, "0 to 9"},
      {"bag,", DITMOE_USAGE, "empty"},
      {"n02099601", DITMOE_USAGE, "no class \"n02099601\""},
  };
  for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
    assert_exit(run(REAL "--dry-run -c '%s'", asked[i].text), asked[i].code, asked[i].message);
}

#define IMAGENET                                                                                   \
  "@sample -q -t 1 -m @fixtures/promoe/promoe_tc/bare.safetensors --vae none --kind promoe-tc "    \
  "--objective rf --heads 4 --top-k 1 --router-weight-mode identity --steps 1 "

static void imagenet_names_are_found(void **state) {
  (void)state;
  assert_exit(run(IMAGENET "-c 'golden retriever',n09288635,LESSER' 'panda -o d/"), 0, "");
  assert_shell("test \"$(sed -n 's/.*\"label\":[^0-9]*\\([0-9]*\\).*/\\1/p' d/run.json | tr '\\n' "
               "' ')\" = '207 974 387 '");
  assert_contains(text_of("d/000000.png", "parameters"), "class 207 golden retriever\n");
  assert_exit(run(IMAGENET "-c crane"), DITMOE_USAGE, "134 n02012849 crane; 517 n03126707 crane");
  assert_exit(run(IMAGENET "-c cat"), DITMOE_USAGE, "; ...");
  assert_exit(run(IMAGENET "-c n99999999"), DITMOE_USAGE, "not one of the 1000 synsets");
  assert_exit(run(IMAGENET "-c 'goldn retriever'"), DITMOE_USAGE,
              "near: 207 n02099601 golden retriever");
  assert_exit(run(IMAGENET "--dry-run --json"), 0, "");
}

static void decoders_are_looked_for(void **state) {
  (void)state;
  assert_exit(run("cp @source/assets/default/model.pth @source/assets/default/config.json d/ && "
                  "@sample -q -m d/model.pth"),
              DITMOE_FORMAT, "none of d/vae");
  assert_exit(run("DITMOE_VAE=@source/assets/default/vae @sample -q --steps 1 -n 1 -m d/model.pth "
                  "-o d/x.png"),
              0, "");
  assert_exit(run("DITMOE_VAE=absent @sample -q --steps 1 -n 1 -m d/model.pth"), DITMOE_FORMAT,
              "absent");
  assert_exit(
      run("@sample -q --steps 1 -n 1 -m d/model.pth --vae @fixtures/vae/kl_oldkeys -o d/y.png"),
      DITMOE_MISMATCH, "");
}

static void memory_is_counted(void **state) {
  (void)state;
  assert_contains(run(TINY "--dry-run --json").out, "\"fits\": true");
#ifndef __SANITIZE_ADDRESS__ /* which reserves address space without end */
  assert_exit(run("ulimit -v 1000000; " TINY "--dry-run -n 900000 --latents l.st"), DITMOE_NOMEM,
              "MiB are needed");
#endif
  assert_exit(run(TINY "--dry-run -n 20000000 --latents l.st"), DITMOE_USAGE, "more than 4 GiB");
  assert_exit(run(TINY "--dry-run -n 100000000 -o d/"), 0, "");
}

static void checkpoints_are_converted(void **state) {
  (void)state;
  assert_exit(run(TINY "-n 1 -o d/a.bmp"), 0, "");
  assert_shell("printf '{\"heads\": 6, \"top_k\": 1, \"objective\": \"ddpm\"}' > r.json");
  assert_exit(run("@convert -q @fixtures/dit_moe/b_mixed/0050000.pt -o d/c.st --record r.json"), 0,
              "");
  assert_exit(run("@sample -q -m d/c.st --vae none --steps 2 -n 1 -o d/b.bmp"), 0, "");
  assert_shell("cmp d/a.bmp d/b.bmp");
  assert_exit(run("@convert @fixtures/dit_moe/b_mixed/bare.pt -o d/c.st"), DITMOE_OUTPUT,
              "--force");
  assert_exit(run("@convert @fixtures/dit_moe/b_mixed/bare.pt -o d/h.st --dtype bf16"), 0,
              "no record");
  assert_shell("@info --tensors d/h.st | grep -q BF16");
  assert_exit(run("@convert @fixtures/dit_moe/b_mixed/bare.pt"), DITMOE_USAGE, "--output");
  assert_exit(run("@convert @fixtures/bad/garbage.pt -o d/g.st"), DITMOE_FORMAT, "garbage.pt");
  assert_exit(run("@convert -q @fixtures/dit_moe/b_mixed/bare.pt -o absent/g.st"), DITMOE_OUTPUT,
              "absent/g.st");
  assert_contains(run("@info --model --json d/c.st").out, "\"kind\":\t\"dit-moe\"");
  assert_contains(run("@info --vae @fixtures/vae2/ldm_keys/vae-tiny.ckpt").out,
                  "decoder.names: CompVis\ndecoder.latent_channels: 4\ndecoder.factor: 8\n");
  assert_contains(run("@info --vae @fixtures/vae2/kl_meanstd").out, "decoder.names: diffusers\n");
  assert_contains(run("@info --vae @fixtures/vae2/vavae/vavae-tiny.pt").out,
                  "decoder.latent_channels: 8\ndecoder.factor: 16\ndecoder.scale: 1\n");
  assert_exit(run("@info --vae d/c.st"), DITMOE_MISMATCH, "not a decoder");
  assert_exit(run("@info"), DITMOE_USAGE, "FILE is missing");
  assert_exit(run("@info d"), DITMOE_FORMAT, "d");
  assert_shell("mkfifo d/pipe");
  assert_exit(run("@info d/pipe"), DITMOE_FORMAT, "pipe");
  assert_exit(run("@info /dev/zero"), DITMOE_FORMAT, "/dev/zero");
}

/* Files that the user names are checked like those of strangers, and nothing hangs. */
static void text_files_are_checked(void **state) {
  (void)state;
  static const struct {
    const char *make;
    int record, classes;
  } files[] = {
      {"printf '{\"heads\":6,\"heads\":6,\"top_k\":1,\"objective\":\"ddpm\"}'", DITMOE_FORMAT,
       DITMOE_USAGE},
      {"printf '{\"headz\":6}'", DITMOE_USAGE, DITMOE_USAGE},
      {"printf '{\"heads\":NaN}'", DITMOE_FORMAT, DITMOE_USAGE},
      {"printf '[]'", DITMOE_FORMAT, DITMOE_USAGE},
      {"printf ''", DITMOE_FORMAT, DITMOE_FORMAT},
      {"printf '\\000'", DITMOE_FORMAT, DITMOE_FORMAT},
      {"yes '{\"a\":' | head -5000", DITMOE_FORMAT, DITMOE_USAGE},
      {"head -c 99000000 /dev/zero", DITMOE_FORMAT, DITMOE_FORMAT},
  };
  static const char *const places[] = {"d", "d/pipe", "/dev/zero", "d/loop", "d/absent"};
  assert_shell("mkfifo d/pipe && ln -s loop d/loop");
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    assert_exit(
        run("%s > f.json; @sample -q -m @fixtures/dit_moe/b_mixed/bare.safetensors --vae none "
            "--record f.json --dry-run",
            files[i].make),
        files[i].record, "");
    assert_exit(run(TINY "--class-file f.json --dry-run"), files[i].classes, "f.json");
  }
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    assert_exit(run(TINY "--record %s", places[i]), DITMOE_FORMAT, places[i]);
    assert_exit(run(TINY "--class-file %s", places[i]), DITMOE_FORMAT, places[i]);
    assert_exit(run("@sample --reproduce %s", places[i]), DITMOE_FORMAT, places[i]);
    assert_exit(run("@sample -m %s --vae none", places[i]), DITMOE_FORMAT, places[i]);
  }
}

#define FRESH(test) cmocka_unit_test_setup(test, fresh_folder)

int main(void) {
  const struct CMUnitTest tests[] = {
      FRESH(images_carry_their_settings),
      FRESH(names_of_any_alphabet_survive),
      FRESH(an_image_is_reproduced),
      FRESH(a_block_is_reproduced),
      FRESH(a_compute_type_is_reproduced),
      FRESH(a_compute_type_matters),
      FRESH(bf16_is_the_same_in_any_batch),
      FRESH(edited_metadata_is_refused),
      FRESH(nothing_is_overwritten),
      FRESH(bad_outputs_are_refused_before_the_work),
      FRESH(a_failed_write_leaves_nothing),
      FRESH(a_nan_leaves_nothing),
      FRESH(surroundings_do_not_matter),
      FRESH(signals_end_the_run_cleanly),
      FRESH(classes_are_found),
      FRESH(imagenet_names_are_found),
      FRESH(decoders_are_looked_for),
      FRESH(memory_is_counted),
      FRESH(checkpoints_are_converted),
      FRESH(text_files_are_checked),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
