/* Odd but legal inputs of the programs: the right value, or a refusal in the user's words. */
#include "tests/programs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CASES  "@source/tests/data/cases/"
#define RECORD "--heads 2 --objective ddpm "
#define TINY                                                                                       \
  "@sample -q -t 1 --dtype f32 -m " CASES "00-tiny/tiny.safetensors " RECORD "--vae none "         \
  "--steps 2 --cfg-scale 1 "

static int fresh_folder(void **state) {
  (void)state;
  return run("rm -rf d g t* l.st && mkdir d g").code;
}

/* The first latent of l.st, to 1e-4. */
static void assert_first_latent(double expected) {
  struct ditmoe_checkpoint *file = checkpoint_of(temporary_path("l.st"));
  float *latents = tensor_f32(file, "latents", NULL);
  assert_within("the first latent", fabs((double)latents[0] / expected - 1), 1e-4);
  free(latents);
  ditmoe_checkpoint_close(file);
}

/* Null rows and guidance. */

#define TABLE(file)                                                                                \
  "@sample -q -t 1 --dtype f32 -m " CASES "17-null-row/" file " --vae none --steps 2 "

static void a_class_is_not_the_empty_class(void **state) {
  (void)state;
#define TEN TABLE("ten-rows.safetensors")
  static const struct {
    const char *arguments, *text;
  } refused[] = {
      {TEN "--record " CASES "17-null-row/record-10.json -c 9 --cfg-scale 3 -o d/", "no row of"},
      {TEN "--record " CASES "17-null-row/record-10.json -c 9 --cfg-scale 0 -o d/", "no row of"},
      {TABLE("one-row.safetensors") RECORD "--cfg-scale 3 -o d/", "only --cfg-scale 1"},
      {TEN RECORD "--null-label 3 -c 3 -o d/", "3 is the empty class; --allow-null permits it"},
      {TEN "--record both.json -c 1 -o d/", "classes_used 10 makes it a class"},
      {TEN "--record both.json --null-label 4 -c 1 -o d/", "null_label 4 is the empty class"},
  };
  assert_shell(
      "echo '{\"heads\": 2, \"objective\": \"ddpm\", \"classes_used\": 10, \"null_label\": "
      "9}' > both.json");
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
    assert_exit(run("%s", refused[i].arguments), DITMOE_USAGE, refused[i].text);
  assert_exit(run(TEN "--record " CASES "17-null-row/record-10.json -c 9 --cfg-scale 1 -o d/"), 0,
              "");
  assert_exit(run(TEN RECORD "--null-label 3 --allow-null -c 3 -o d/ --force"), 0, "");
  assert_exit(run("@sample -q -m " CASES "17-null-row/ten-rows.safetensors " RECORD
                  "--null-label 3 --vae none --list-classes > list; test $(wc -l < list) = 9 && "
                  "! grep -q '^3 ' list"),
              0, "");
#undef TEN
}

static void one_row_is_a_class(void **state) {
  (void)state;
  static const char *const counts[] = {"", "-n 2", "-c 0"};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    assert_exit(run(TABLE("one-row.safetensors") RECORD "--cfg-scale 1 %s -o d/ --latents l.st "
                                                        "--force",
                    counts[i]),
                0, "");
    assert_first_latent(588.09052);
  }
}

/* A guided variance would be an extrapolated one. */
static void the_variance_is_not_guided(void **state) {
  (void)state;
  static const char *const channels[] = {"\"all\"", "4", "8"};
  for (int i = 0; i < 3; i++) {
    assert_exit(run("echo '{\"heads\": 4, \"objective\": \"ddpm\", \"cfg_channels\": %s}' > r.json",
                    channels[i]),
                0, "");
    struct outcome outcome =
        run("@sample -q -t 1 --dtype f32 -m "
            "@fixtures/diffusers_dit/facebook_dit/DiT-tiny.safetensors --record r.json "
            "--vae none -n 1 -c 3 --steps 20 --cfg-scale 4 -o d/ --latents l.st --force");
    if (i < 2) {
      assert_exit(outcome, 0, "");
      assert_first_latent(230.23460);
    } else {
      assert_exit(outcome, DITMOE_MISMATCH, "cfg_channels 8, but the latents have 4");
    }
  }
}

static void guidance_below_one_is_the_formula(void **state) {
  (void)state;
  static const struct {
    const char *arguments;
    double first;
  } runs[] = {{"-c 3 --cfg-scale 0", 5.665395},
              {"-c 10 --allow-null --cfg-scale 1", 5.665395},
              {"-c 3 --cfg-scale 1", 5.910921}};
  for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
    assert_exit(
        run("@sample -q -t 1 --dtype f32 -m @fixtures/diffusers_dit/pipeline --sampler ddim "
            "--vae none -n 1 --steps 4 %s -o d/ --latents l.st --force",
            runs[i].arguments),
        0, "");
    assert_first_latent(runs[i].first);
  }
}

/* Outputs. */

static void outputs_replace_no_input_and_no_output(void **state) {
  (void)state;
#define RUN TINY "-n 2 -c 1,2 "
#define T   "@sample -q -t 1 " RECORD "--vae none -n 2 -c 1,2 --steps 2 --cfg-scale 1 --force "
  static const char *const refused[] = {
      RUN "-o g/ --grid ./g/000000.png",
      RUN "-o g --grid g/../g//000001.png",
      RUN "-o g/ --grid link/000000.png",
      RUN "-o g/ --grid dangling.png",
      RUN "-o new/ --grid ./new/000000.png",
      RUN "-o g/ --latents g/./run.json",
      RUN "-o g/ --latents link/run.journal",
      RUN "-o g/x_%d.png --latents g/x_run.json",
      RUN "-o g/x.npz --latents ./g/x.npz",
      RUN "-o g/x.npz --grid g/x.png --latents link/x.png",
      RUN "-o g/ --grid d/g.png --latents d/../d/g.png",
      T "-m t.st -o g/ --latents t.st",
      T "-m t.st -o g/ --latents ./d/../t.st",
      T "-m t.st -o g/ --latents t.soft",
      T "-m t.st -o g/ --latents t.hard",
      T "-m t.soft -o g/ --latents t.st",
      T "-m t.st -o g/ --latents t.json",
      T "-m t.st -o t.npz",
      "@sample -q -m @fixtures/lightningdit/ldit_tiny/0080000.pt --heads 4 --vae none -n 1 "
      "--latents-stats t.pt -o g/ --latents t.pt --force",
      "@sample -q -m t.st " RECORD "--vae none --class-file t.txt -o g/ --latents t.txt --force",
      T "-m t.d -o g/ --latents t.d/transformer/config.json",
      "@convert t.st -o t.soft --force",
      "@convert t.st -o ./t.hard --force",
      "@convert t.d -o t.d/transformer/diffusion_pytorch_model.safetensors --force",
      "@convert t.st -o t.json --force",
      "@bench --load t.st -o ./t.soft --force",
      "@bench --ops t.txt -o t.txt --force",
      "@eval d/a.png --features ./d/a.png --force",
      "@eval d --save-stats d/a.png --force",
      "@eval d d --fid --report x --save-stats ./x",
      "@heatmap t.st -o ./t.st --force",
      "@heatmap t.st --csv x --npz ./x",
      "@heatmap t.st --csv t.soft --force",
  };
  assert_shell("ln -s g link; ln -s g/000000.png dangling.png; mkdir t.d t.d/transformer; "
               "cp " CASES "00-tiny/tiny.safetensors t.st; ln -s t.st t.soft; ln t.st t.hard; "
               "cp t.st t.d/transformer/diffusion_pytorch_model.safetensors; echo '{}' > "
               "t.d/transformer/config.json; "
               "echo '{}' > t.json; cp @fixtures/lightningdit/ldit_tiny/latents_stats.pt t.pt; "
               "printf '1\\n2\\n' > t.txt; "
               "cp " CASES "03-png-text-after-pixels/before.png d/a.png; "
               "sha256sum t.st t.pt t.json t.txt t.d/transformer/* d/a.png > sums");
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    struct outcome outcome = run("%s", refused[i]);
    if (outcome.code != DITMOE_USAGE ||
        (!strstr(outcome.err, "is an input") && !strstr(outcome.err, "two outputs of this name") &&
         !strstr(outcome.err, "name the same file")))
      fail_msg("%s: exit %d, %s", refused[i], outcome.code, outcome.err);
    assert_shell("sha256sum --quiet -c sums && test -z \"$(ls -A g)\"");
  }
  assert_shell("rm link dangling.png");
  assert_exit(run(RUN "-o g/ --grid g/grid.png --latents d/l.st"), 0, "");
  assert_exit(run("ln g/000001.png d/hard.png; " RUN "-o g/ --grid d/hard.png --force"),
              DITMOE_USAGE, "two outputs");
  assert_exit(run("@sample -q --reproduce g/000001.png -o g/ --force"), DITMOE_USAGE,
              "is an input");
#undef T
#undef RUN
}

/* Text. */

static void text_files_are_taken_as_they_are(void **state) {
  (void)state;
  static const char *const same[] = {"printf '\\357\\273\\2771\\r\\n2\\r\\n\\r\\n'",
                                     "printf '1 \\n2\\t\\n'", "printf '\\t1\\n\\n \\n  2'",
                                     "printf '1\\r2\\r'"};
  static const struct {
    const char *bytes, *text;
  } refused[] = {
      {"\\377\\3761\\000\\n\\000", "f.txt: is UTF-16 text"},
      {"\\376\\377\\0001\\000\\n", "f.txt: is UTF-16 text"},
      {"\\377\\376\\000\\0001\\000\\000\\000", "f.txt: is UTF-32 text"},
      {"1\\n\\n2\\302\\240\\n", "f.txt: line 3: \"2\\u00a0\""},
      {"1\\n\\357\\273\\2772\\n", "line 2: \"\\ufeff2\""},
      {"1\\n2\\377\\n", "line 2: \"2\\xff\""},
  };
  assert_exit(run(TINY "-c 1,2 -o d/x_%%d.png"), 0, "");
  for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
    assert_exit(run("%s > f.txt; " TINY "--class-file f.txt -o g/x_%%d.png --force", same[i]), 0,
                "");
    assert_shell("cmp d/x_0.png g/x_0.png && cmp d/x_1.png g/x_1.png && test ! -e g/x_2.png");
    assert_exit(
        run("{ sleep 0.2; %s; } | " TINY "--class-file /dev/stdin -o g/x_%%d.png --force", same[i]),
        0, "");
    assert_shell("cmp d/x_0.png g/x_0.png && cmp d/x_1.png g/x_1.png && test ! -e g/x_2.png");
  }
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    struct outcome outcome =
        run("printf '%s' > f.txt; " TINY "--class-file f.txt -o g/ --force", refused[i].bytes);
    assert_true(outcome.code == DITMOE_FORMAT || outcome.code == DITMOE_USAGE);
    assert_exit(outcome, outcome.code, refused[i].text);
  }
  assert_exit(run("printf '\\357\\273\\277{\"heads\": 2,\\r\\n\"objective\": \"ddpm\"}' > r.json; "
                  "@sample -q -m " CASES "00-tiny/tiny.safetensors --vae none --record r.json "
                  "--dry-run"),
              0, "");
  assert_exit(run("printf '{\\n\"heads\": 2,\\n}' > r.json; @sample -m x --record r.json"),
              DITMOE_FORMAT, "r.json: line 3: not a JSON object");
}

static void json_is_utf8_whatever_the_names(void **state) {
  (void)state;
  assert_shell("cp " CASES "00-tiny/tiny.safetensors \"$(printf 't\\377.st')\"");
  assert_exit(run("@info --json t?.st > j && iconv -f UTF-8 -t UTF-8 j > /dev/null"), 0, "");
  assert_exit(run("@sample -q -t 1 -m t?.st " RECORD "--vae none --steps 1 -n 1 -c 1 -o d/ && "
                  "iconv -f UTF-8 -t UTF-8 d/run.json > /dev/null"),
              0, "");
  static char text[1 << 16];
  assert_ok(test_ctx(), ditmoe_image_text(test_ctx(), temporary_path("d/000000.png"), "parameters",
                                          text, sizeof text));
  assert_non_null(strstr(text, "Model: t\xef\xbf\xbd,"));
  assert_exit(run("@sample -m x --record n$(printf '\\377').json"), DITMOE_FORMAT, "n\\xff.json");
}

/* Images. */

static void texts_may_follow_the_pixels(void **state) {
  (void)state;
  static const char *const keys[] = {"ditmoe", "parameters"};
  static char before[1 << 16], after[1 << 16];
  for (size_t i = 0; i < 2; i++) {
    assert_ok(test_ctx(),
              ditmoe_image_text(test_ctx(),
                                source_path("tests/data/cases/03-png-text-after-pixels/before.png"),
                                keys[i], before, sizeof before));
    assert_ok(test_ctx(),
              ditmoe_image_text(test_ctx(),
                                source_path("tests/data/cases/03-png-text-after-pixels/after.png"),
                                keys[i], after, sizeof after));
    assert_string_equal(before, after);
  }
  assert_exit(run("cp " CASES "00-tiny/tiny.safetensors . && cp " CASES
                  "03-png-text-after-pixels/before.png . && @sample -q --reproduce " CASES
                  "03-png-text-after-pixels/after.png -o d/"),
              0, "");
  assert_shell("cmp d/*.png before.png");
}

static void one_image_is_an_operand(void **state) {
  (void)state;
  static const struct {
    const char *file, *line;
  } images[] = {{CASES "19-cmyk-jpeg/a.jpg", "width: 16"},
                {CASES "03-png-text-after-pixels/after.png", "kind: image"},
                {"@fixtures/bad/png_16bit_ok.png", "width: 24"}};
  for (size_t i = 0; i < sizeof images / sizeof *images; i++) {
    struct outcome outcome = run("@eval -q --info %s", images[i].file);
    assert_exit(outcome, 0, "");
    assert_non_null(strstr(outcome.out, "images: 1\n"));
    assert_non_null(strstr(outcome.out, images[i].line));
  }
  assert_non_null(strstr(run("@eval -q --info " CASES "19-cmyk-jpeg/a.jpg").out,
                         "418d1bbea9d9003f8036cd95a8abc108e8968096be843569cd52715b83f0d88a"));
  assert_exit(run("@eval --info @fixtures/bad/png_trunc.png"), DITMOE_FORMAT, "truncated");
}

/* Folders of TAESD as published: its own weights beside a config.json of diffusers. */
static void a_taesd_folder_is_a_decoder(void **state) {
  (void)state;
#define DIT                                                                                        \
  "@sample -q -t 1 -m @fixtures/dit_moe/b_mixed/bare.safetensors --heads 6 --top-k 1 "             \
  "--objective ddpm -n 1 -c 1 --steps 2 --cfg-scale 1 "
  assert_shell("mkdir t.taesd && cp @fixtures/vae/taesd/taesd_decoder.safetensors t.taesd && "
               "echo '{\"_class_name\": \"AutoencoderTiny\", \"latent_channels\": 4}' > "
               "t.taesd/config.json");
  assert_exit(run(DIT "--vae t.taesd -o d/a.bmp"), 0, "");
  assert_exit(run(DIT "--vae t.taesd/taesd_decoder.safetensors -o d/b.bmp"), 0, "");
  assert_shell("cmp d/a.bmp d/b.bmp");
  assert_exit(
      run("cp t.taesd/taesd_decoder.safetensors t.taesd/diffusion_pytorch_model.safetensors "
          "&& " DIT "--vae t.taesd -o d/c.bmp"),
      0, "");
  assert_shell("cmp d/a.bmp d/c.bmp");
#undef DIT
}

#define FRESH(test) cmocka_unit_test_setup(test, fresh_folder)

int main(void) {
  const struct CMUnitTest tests[] = {
      FRESH(a_class_is_not_the_empty_class),
      FRESH(one_row_is_a_class),
      FRESH(the_variance_is_not_guided),
      FRESH(guidance_below_one_is_the_formula),
      FRESH(outputs_replace_no_input_and_no_output),
      FRESH(text_files_are_taken_as_they_are),
      FRESH(json_is_utf8_whatever_the_names),
      FRESH(texts_may_follow_the_pixels),
      FRESH(one_image_is_an_operand),
      FRESH(a_taesd_folder_is_a_decoder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
