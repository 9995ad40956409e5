/* The option table of the programs: parsing, --help, man page, completion, and what they refuse. */
#include "tests/programs.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const programs[] = {"@sample", "@eval", "@info", "@convert", "@bench"};
enum { PROGRAMS = sizeof programs / sizeof programs[0] };

static void help_is_narrow(void **state) {
  (void)state;
  for (int i = 0; i < PROGRAMS; i++) {
    struct outcome help = run("%s --help", programs[i]);
    assert_exit(help, 0, "");
    assert_non_null(strstr(help.out, "--version"));
    for (char *line = strtok(help.out, "\n"); line; line = strtok(NULL, "\n"))
      if (strlen(line) > 80) fail_msg("more than 80 columns: %s", line);
  }
}

static void version_is_printed(void **state) {
  (void)state;
  for (int i = 0; i < PROGRAMS; i++) {
    assert_non_null(strstr(run("%s -V", programs[i]).out, " " DITMOE_VERSION "\n"));
    assert_non_null(
        strstr(run("%s --version --json", programs[i]).out, "\"version\": \"" DITMOE_VERSION "\""));
  }
}

/* Every long option of --help is in the man page and in each completion. */
static void help_man_and_completion_agree(void **state) {
  (void)state;
  for (int i = 0; i < PROGRAMS; i++) {
    char *help = strdup(run("%s --help", programs[i]).out);
    char *man = strdup(run("%s --emit-man", programs[i]).out);
    char *bash = strdup(run("%s --emit-completion bash", programs[i]).out);
    char *zsh = strdup(run("%s --emit-completion zsh", programs[i]).out);
    char *fish = strdup(run("%s --emit-completion fish", programs[i]).out);
    int found = 0;
    for (char *line = strtok(help, "\n"); line; line = strtok(NULL, "\n")) {
      char name[64], roff[128] = "\\-\\-", word[80];
      bool heading = strlen(line) > 8 && strncmp(line + 6, "--", 2) == 0;
      if (!heading || sscanf(line + 8, "%63[a-z0-9-]", name) != 1) continue;
      found++;
      for (const char *c = name; *c; c++)
        snprintf(roff + strlen(roff), sizeof roff - strlen(roff), "%s%c", *c == '-' ? "\\" : "",
                 *c);
      assert_non_null(strstr(man, roff));
      snprintf(word, sizeof word, "--%s", name);
      assert_non_null(strstr(bash, word));
      assert_non_null(strstr(zsh, word));
      snprintf(word, sizeof word, " -l %s", name);
      assert_non_null(strstr(fish, word));
    }
    assert_true(found >= 8);
    free(help), free(man), free(bash), free(zsh), free(fish);
    assert_exit(run("%s --emit-completion bash > c.sh && bash -n c.sh", programs[i]), 0, "");
  }
}

static const struct {
  const char *arguments, *message;
} refused[] = {
    {"--step 5", "unknown option --step; did you mean --steps?"},
    {"--stepps 5", "did you mean --steps?"},
    {"--xyzzy", "unknown option --xyzzy; see --help"},
    {"-y", "unknown option -y"},
    {"stray", "unexpected argument \"stray\""},
    {"--steps", "--steps needs a value"},
    {"--steps --force", "--steps needs a value, but --force follows"},
    {"--force=yes", "--force takes no value"},
    {"--steps 5 --steps 6", "--steps is given twice: 5 and 6"},
    {"--steps 12x", "\"12x\" is not a whole number from 1 to 1000"},
    {"--steps ''", "is not a whole number"},
    {"--steps ' 5'", "is not a whole number"},
    {"--steps 0x10", "is not a whole number"},
    {"--steps 5.0", "is not a whole number"},
    {"--steps 0", "from 1 to 1000"},
    {"--num_sampling_steps 1001", "--steps: \"1001\" is not"},
    {"--steps 99999999999999999999", "from 1 to 1000"},
    {"--cfg-scale nan", "\"nan\" is not a number from 0 to 1000"},
    {"--cfg-scale inf", "is not a number"},
    {"--cfg-scale 1e9", "from 0 to 1000"},
    {"-g 4,0", "\"4,0\" is not a number"},
    {"--cfg-scale 0x1p3", "is not a number"},
    {"--seed abc", "--seed: \"abc\" is not"},
    {"--seed -2", "-1 for a random one"},
    {"--seed 18446744073709551616", "from 0 to 18446744073709551615"},
    {"--batch-size 0", "from 1 to 65536"},
    {"-b 1000000000", "from 1 to 65536"},
    {"--threads 0", "from 1 to 1024"},
    {"-t100000", "from 1 to 1024"},
    {"--num-samples 99999999999", "from 1 to 100000000"},
    {"--image-size 0", "from 1 to"},
    {"--index-range 5:3", "A:B, whole numbers A < B"},
    {"--index-range 5", "A:B"},
    {"--cfg-interval 0.5", "A:B, numbers A < B from 0 to 1"},
    {"--cfg-interval 0:2", "from 0 to 1"},
    {"--sampler heum", "one of ddpm|ddim|dpmpp-2m|euler|heun|midpoint"},
    {"--sampler ''", "one of ddpm"},
    {"--sampler 'euler|heun'", "one of ddpm"},
    {"--model ''", "not empty"},
    {"--quiet --verbose", "contradict"},
    {"--steps 5 --respacing ddim5", "alternatives"},
    {"--class 1 --class-file x", "alternatives"},
    {"--cfg-scale 1 --cfg-interval 0:0.5", "--cfg-interval has no effect without guidance"},
    {"--cfg-scale 1 --cfg-channels 3", "--cfg-channels has no effect without guidance"},
    {"--zoom 2", "--zoom has no effect without --show"},
    {"--grid-cols 2", "--grid-cols has no effect without --grid"},
    {"--vae none --tile 8", "--tile has no effect with --vae none"},
    {"--backend ref --tier avx2", "--tier has no effect with --backend ref"},
    {"--dtype f16", "\"f16\" is not one of f32|bf16"},
    {"--dtype BF16", "\"BF16\" is not one of f32|bf16"},
    {"--tier sse", "\"sse\" is not one of generic|avx2|avx512|avx512bf16|amx"},
    {"--device tpu", "is not one of cpu|cuda"},
    {"--model DiT-S/2", "this is the file to load"},
    {"--ckpt DiT_MoE-XL/2", "this is the file to load"},
    {"--list-classes '('", "--list-classes"},
};

static void nonsense_is_refused(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
    assert_exit(run("@sample %s", refused[i].arguments), DITMOE_USAGE, refused[i].message);
  assert_exit(run("cp $(command -v @sample) alone; ./alone"), DITMOE_USAGE,
              "no model: give -m FILE or set DITMOE_MODEL; the one that comes with");
  assert_exit(run("@sample --device cuda:1"), DITMOE_DEVICE, "one GPU is used");
  assert_exit(run("CUDA_VISIBLE_DEVICES= @sample -m @fixtures/dit_moe/b_mixed/bare.safetensors "
                  "--vae none -n 1 --backend cuda"),
              DITMOE_DEVICE, "backend cuda: ");
}

static void environment_is_checked(void **state) {
  (void)state;
  assert_exit(run("DITMOE_THREADS=many @sample"), DITMOE_USAGE, "DITMOE_THREADS: \"many\" is not");
  assert_exit(run("DITMOE_THREADS=many @sample -t 1 --dry-run"), DITMOE_OK, "assets/default");
  static const char *const foreign[] = {"0",   "-1",  "all",   "auto", "1.0",
                                        "4,x", "0,2", "99999", ","};
  for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
    char warning[64];
    snprintf(warning, sizeof warning, "warning: OMP_NUM_THREADS=%s is not used", foreign[i]);
    struct outcome outcome = run("OMP_NUM_THREADS=%s @sample --dry-run", foreign[i]);
    assert_exit(outcome, DITMOE_OK, "assets/default");
    assert_non_null(strstr(outcome.err, warning));
    assert_null(
        strstr(run("OMP_NUM_THREADS=%s @sample --dry-run -t 1", foreign[i]).err, "warning"));
  }
  static const char *const usual[] = {"4,2", "' 3 '", "'2 , 1'", "''"};
  for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
    assert_null(strstr(run("OMP_NUM_THREADS=%s @sample --dry-run", usual[i]).err, "warning"));
  assert_exit(run("DITMOE_MODEL=a,b @sample"), DITMOE_FORMAT, "a,b");
  assert_exit(run("DITMOE_MODEL=absent @sample -m other"), DITMOE_FORMAT, "other");
}

/* Neither a locale nor a control character changes what is printed. */
static void messages_are_plain(void **state) {
  (void)state;
  assert_exit(run("LC_ALL=de_DE.UTF-8 @sample -g 1,5"), DITMOE_USAGE, "\"1,5\" is not a number");
  assert_exit(run("@sample -m \"$(printf 'x\\033[31my')\""), DITMOE_FORMAT, "x?[31my");
  assert_exit(run("@sample \"$(printf -- '--a\\nb')\""), DITMOE_USAGE, "--a?b");
  assert_exit(run("NO_COLOR=1 @sample --xyzzy"), DITMOE_USAGE, "xyzzy");
  assert_non_null(strchr(run("@sample --color always -m absent").err, 27));
}

static void imagenet_classes_are_listed(void **state) {
  (void)state;
  struct outcome all = run("@sample --list-classes");
  assert_exit(all, 0, "");
  int lines = 0;
  for (const char *c = all.out; *c; c++) lines += *c == '\n';
  assert_int_equal(lines, 1000);
  assert_string_equal(run("@sample --list-classes '^207 '").out,
                      "207  n02099601  golden retriever\n");
  assert_string_equal(run("@sample --list-classes=n02099601").out,
                      "207  n02099601  golden retriever\n");
  assert_non_null(strstr(run("@sample --list-classes GEYSER --json").out, "\"id\":\t974"));
}

/* What was lost on the way out is an error. */
static void full_output_is_an_error(void **state) {
  (void)state;
  assert_exit(run("@sample --list-classes > /dev/full"), DITMOE_OUTPUT, "standard output");
  assert_exit(run("@sample --help > /dev/full"), DITMOE_OUTPUT, "standard output");
  assert_exit(run("@sample --list-classes >&- <&-"), 0, "");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(help_is_narrow),
      cmocka_unit_test(version_is_printed),
      cmocka_unit_test(help_man_and_completion_agree),
      cmocka_unit_test(nonsense_is_refused),
      cmocka_unit_test(environment_is_checked),
      cmocka_unit_test(messages_are_plain),
      cmocka_unit_test(imagenet_classes_are_listed),
      cmocka_unit_test(full_output_is_an_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
