/* The files that a record is from: what they say, what contradicts the weights, what is not theirs,
 * and what the programs tell of it. */
#include "programs.h"

#include "io/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TINY     "@source/tests/data/cases/00-tiny/tiny.safetensors"
#define PIPELINE "@source/tests/data/cases/02-scheduler-config"
#define FOREIGN  "@source/tests/data/cases/08-foreign-config-json"
#define RUN                                                                                        \
  "@sample --vae none --dtype f32 -n 2 -c 1,2 --label-sampling list --steps 2 --cfg-scale 1 -o "   \
  "d/ --force --latents l.safetensors "

static const double tiny_latents[] = {-147.48616, 245.89830};

/* The first values of the latents that a run left. */
static void assert_latents(const char *what, const double *expected, int count) {
  struct ditmoe_checkpoint *checkpoint = checkpoint_of(temporary_path("l.safetensors"));
  float *latents = tensor_f32(checkpoint, "latents", NULL);
  assert_within(what, relative_max_f64(latents, expected, count), 1e-4);
  free(latents);
  ditmoe_checkpoint_close(checkpoint);
}

static void write_file(const char *path, const char *text) {
  FILE *file = fopen(temporary_path(path), "wb");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0 && fclose(file) == 0);
}

/* A folder q/ with the tiny model of original names and this config.json; or, transformer, with
 * both in a folder of that name. */
static void tiny_folder(bool transformer, const char *config) {
  const char *inner = transformer ? "q/transformer" : "q";
  char path[64];
  assert_int_equal(run("rm -rf q && mkdir -p %s && cp " TINY
                       " %s/diffusion_pytorch_model.safetensors",
                       inner, inner)
                       .code,
                   0);
  snprintf(path, sizeof path, "%s/config.json", inner);
  write_file(path, config);
}

/* A pipeline folder p/ of diffusers; its network gives 0. sed: changes a file of it. */
static void pipeline(const char *file, const char *sed) {
  assert_int_equal(
      run("rm -rf p && cp -r " PIPELINE "/pipeline p && sed -i '%s' p/%s", sed, file).code, 0);
}

/* What is peculiar to diffusers follows from the names of the tensors, not from a class. */
static void test_original_names(void **state) {
  (void)state;
  const char model[] = "@source/tests/data/cases/01-class-name-original-names/M";
  assert_exit(run(RUN "-m " TINY " --heads 2 --objective ddpm"), 0, "");
  assert_latents("tiny", tiny_latents, 2);
  assert_exit(run(RUN "-m %s --heads 2 --objective ddpm", model), 0, "");
  assert_latents("class and original names", tiny_latents, 2);
  assert_exit(run(RUN "-m %s --objective ddpm", model), 0, "");
  assert_latents("num_heads of the file", tiny_latents, 2);
  assert_exit(run(RUN "-m %s --heads 2", model), DITMOE_USAGE, "--objective");
  /* Other classes, other places, other words. */
  tiny_folder(false, "{\"_class_name\":\"SiTTransformer2DModel\",\"num_attention_heads\":2}");
  assert_exit(run(RUN "-m q --objective ddpm"), 0, "");
  assert_latents("beside the weights", tiny_latents, 2);
  assert_exit(run(RUN "-m q"), DITMOE_USAGE, "--objective");
  tiny_folder(true, "{\"_class_name\":\"Transformer2DModel\",\"num_attention_heads\":2,"
                    "\"attention_head_dim\":4,\"sample_size\":4}");
  assert_exit(run(RUN "-m q/transformer --objective ddpm"), 0, "");
  assert_latents("words of diffusers", tiny_latents, 2);
  assert_exit(run(RUN "-m q/transformer"), DITMOE_USAGE, "--objective");
}

/* A scheduler tells the objective of such a folder, and whose sampler runs. */
static void test_original_names_with_scheduler(void **state) {
  (void)state;
  tiny_folder(true, "{\"num_heads\":2}");
  assert_int_equal(run("mkdir q/scheduler").code, 0);
  write_file("q/scheduler/scheduler_config.json",
             "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"shift\":3.0}");
  assert_exit(run(RUN "-m q -v"), 0,
              "objective rf, by q/scheduler/scheduler_config.json:_class_name");
  assert_exit(run(RUN "-m q -v"), 0, "record: shift 3 (q/scheduler/scheduler_config.json:shift)");
  assert_exit(run(RUN "-m q/transformer"), 0, "2 images, sampler euler");
  assert_exit(run(RUN "-m q --objective ddpm"), 0,
              "FlowMatchEulerDiscreteScheduler is for rf models, but the objective is ddpm");
  assert_latents("the objective of the user", tiny_latents, 2);
  write_file("q/scheduler/scheduler_config.json", "{\"_class_name\":\"DDPMScheduler\"}");
  assert_exit(run(RUN "-m q"), 0, "2 images, sampler ddpm");
  write_file("r.json", "{\"scheduler\":{},\"objective\":\"ddpm\"}");
  assert_exit(run(RUN "-m q --record r.json"), 0, "2 images, sampler ddpm");
  assert_latents("a scheduler of the user, which says nothing", tiny_latents, 2);
  write_file("q/scheduler/scheduler_config.json",
             "{\"_class_name\":\"DPMSolverMultistepScheduler\",\"lambda_min_clipped\":-Infinity,"
             "\"prediction_type\":\"flow_prediction\",\"use_flow_sigmas\":true}");
  assert_exit(run(RUN "-m q"), DITMOE_FORMAT, "is not supported for flows");
  assert_exit(run(RUN "-m q --sampler euler"), 0, "objective rf, by");
  write_file("q/scheduler/scheduler_config.json", "{");
  assert_exit(run(RUN "-m q"), DITMOE_FORMAT, "scheduler_config.json: bad JSON");
  write_file("q/scheduler/scheduler_config.json", "{\"shift\":3}");
  assert_exit(run(RUN "-m q"), DITMOE_FORMAT, "no \"_class_name\"");
}

/* A list that is passed over leaves nothing behind for the next file that has it. */
static void test_list_passed_over(void **state) {
  (void)state;
  tiny_folder(false, "{\"latent_mean\":[0,0,0,0],\"latent_std\":[1,1,1,1]}");
  assert_int_equal(run("mv q/diffusion_pytorch_model.safetensors q/m.safetensors && (printf "
                       "'{\"latent_mean\":['; yes 0, | head -n 5000; printf '\"x\"]}') > q/m.json")
                       .code,
                   0);
  assert_exit(run(RUN "-m q/m.safetensors --heads 2 --objective ddpm"), 0,
              "\"latent_mean\" must be a list of numbers");
  assert_latents("the list of the other file", tiny_latents, 2);
}

/* Every file of the case, with the sampler named and not. */
static void test_scheduler_files(void **state) {
  static const struct {
    const char *file;
    double first;
  } cases[] = {{"pipeline/scheduler/scheduler_config", 12.845328},
               {"v_prediction", 0.453931},
               {"scaled_linear", 3.113588},
               {"steps_offset", 12.943160},
               {"trailing", 116.157212},
               {"zero_snr", 0.447983}};
  static const char *const samplers[] = {"--sampler ddim", ""};
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (size_t j = 0; j < sizeof samplers / sizeof *samplers; j++) {
      pipeline("model_index.json", "");
      assert_exit(run("cp " PIPELINE "/%s.json p/scheduler/scheduler_config.json && @sample -m p "
                      "--vae none -n 1 -c 1 %s --steps 4 --cfg-scale 1 -o d/ --force --latents "
                      "l.safetensors",
                      cases[i].file, samplers[j]),
                  0, "sampler ddim");
      assert_latents(cases[i].file, &cases[i].first, 1);
    }
  pipeline("scheduler/scheduler_config.json", "s/DDIMScheduler/EulerDiscreteScheduler/");
  assert_exit(run(RUN "-m p"), DITMOE_FORMAT, "EulerDiscreteScheduler is not supported");
  assert_exit(run(RUN "-m p --sampler ddim"), 0, "sampler ddim");
  pipeline("scheduler/scheduler_config.json", "s/\"thresholding\": false/\"thresholding\": true/");
  assert_exit(run(RUN "-m p"), DITMOE_FORMAT, "\"thresholding\": true is not supported");
  assert_exit(run("@info --model p"), 0, "");
  /* The record of a converted model keeps the scheduler. */
  assert_exit(run("cp " PIPELINE "/v_prediction.json p/scheduler/scheduler_config.json && "
                  "@convert p -o p.safetensors && @sample -m p.safetensors --vae none -n 1 -c 1 "
                  "--steps 4 --cfg-scale 1 -o d/ --force --latents l.safetensors"),
              0, "sampler ddim");
  assert_latents("converted", &cases[1].first, 1);
}

/* A configuration of the model that contradicts its weights is refused with both values. */
static void test_contradictions(void **state) {
  static const struct {
    const char *sed, *text;
  } cases[] = {
      {"s/\"num_layers\": 1/\"num_layers\": 2/",
       "\"num_layers\" is 2, but that of the weights is 1"},
      {"s/\"patch_size\": 2/\"patch_size\": 4/",
       "\"patch_size\" is 4, but that of the weights is 2"},
      {"s/\"in_channels\": 4/\"in_channels\": 3/",
       "\"in_channels\" is 3, but that of the weights is 4"},
      {"s/\"out_channels\": 8/\"out_channels\": 4/",
       "\"out_channels\" is 4, but that of the weights is 8"},
      {"s/\"num_embeds_ada_norm\": 10/\"num_embeds_ada_norm\": 1000/",
       "\"num_embeds_ada_norm\" is 1000, but that of the weights is 10"},
      {"s/\"attention_head_dim\": 4/\"attention_head_dim\": 72/",
       "make a width of 144, but that of the weights is 8"},
      {"s/\"sample_size\": 4/\"sample_size\": 5/",
       "input_size 5 (p/transformer/config.json:sample_size)"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pipeline("transformer/config.json", cases[i].sed);
    assert_exit(run("@info --model p"), DITMOE_MISMATCH, cases[i].text);
    assert_exit(run(RUN "-m p/transformer"), DITMOE_MISMATCH, cases[i].text);
  }
  tiny_folder(true, "{\"num_heads\":2,\"sample_size\":8}");
  assert_exit(run(RUN "-m q --objective ddpm"), DITMOE_MISMATCH,
              "\"sample_size\" is 8, but that of the weights is 4");
  tiny_folder(true, "{\"num_heads\":2,\"hidden_size\":16}");
  assert_exit(run(RUN "-m q --objective ddpm"), DITMOE_MISMATCH, "\"hidden_size\" is 16");
  /* Beside a file it may be that of any program. */
  tiny_folder(false, "{\"num_heads\":4,\"hidden_size\":768,\"patch_size\":16}");
  assert_exit(run(RUN "-m q/diffusion_pytorch_model.safetensors --heads 2 --objective ddpm"), 0,
              "q/config.json: \"hidden_size\" is 768, but that of the weights is 8; the file is "
              "passed over");
}

/* What another program wrote there is passed over, with a note. */
static void test_foreign_files(void **state) {
  static const struct {
    const char *text, *warning;
  } cases[] = {
      {"{\"clip\": Infinity}", ""},
      {"{\"a\": [-Infinity, NaN], \"b\": \"NaN \\\" Infinity\"}", ""},
      {"{\"vae\": {\"type\": \"mse\"}}", "\"vae\" must be text: the member is passed over"},
      {"{\"architecture\": \"resnet\"}", "the member is passed over"},
      {"{\"kind\": \"foreign\", \"shift\": NaN}", "\"kind\" must be one of"},
      {"{\"top_k\": [1, \"a\"], \"class_names\": [\"a\", 1]}", "\"class_names\" must be a list"},
      {"{\"norm_eps\": Infinity}", "\"norm_eps\" must be a number"},
      {"{\"scheduler\": \"cosine\"}", ""},
      {"{\"scheduler\": {\"type\": \"cosine\", \"beta_end\": 7}}", ""},
      {"[1, 2]", "not a JSON object, the file is passed over"},
      {"{\"a\": 1,}", "bad JSON in line 1: a syntax error; the file is passed over"},
      {"", "is empty; the file is passed over"},
  };
  static const char *const folders[] = {"infinity", "vae-object", "architecture"};
  const char model[] = "-m q/diffusion_pytorch_model.safetensors --record " FOREIGN "/record.json";
  (void)state;
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    tiny_folder(false, "");
    assert_exit(run("cp " FOREIGN "/%s/config.json q/ && " RUN "%s", folders[i], model), 0, "");
    assert_latents(folders[i], tiny_latents, 2);
  }
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tiny_folder(false, cases[i].text);
    assert_exit(run(RUN "%s", model), 0, cases[i].warning);
    assert_latents(cases[i].text, tiny_latents, 2);
  }
  /* What can be read of such a file counts. */
  tiny_folder(false, "{\"clip\": Infinity, \"num_heads\": 2, \"objective\": \"ddpm\"}");
  assert_exit(run(RUN "-m q"), 0, "objective ddpm, by q/config.json:objective");
  assert_latents("the readable part", tiny_latents, 2);
}

/* Where each value is from. */
static void test_sources(void **state) {
  static const char *const lines[] = {
      "objective ddpm, by q/config.json:objective",
      "record: heads 2 (--heads)",
      "record: norm_eps 1e-05 (r.json:norm_eps)",
      "record: kind dit (weights)",
      "record: input_size 4 (weights)",
      "record: frequency_shift 0 (default)",
      "record: latent_scale 0.5 (q/config.json:latent_scaling_factor)",
  };
  (void)state;
  tiny_folder(false, "{\"num_heads\":4,\"objective\":\"ddpm\",\"latent_scaling_factor\":0.5}");
  write_file("r.json", "{\"norm_eps\":1e-5}");
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
    assert_exit(run(RUN "-v -m q --record r.json --heads 2"), 0, lines[i]);
  assert_null(strstr(run(RUN "-m q --objective ddpm").err, "objective ddpm, by"));
  assert_exit(run(RUN "-v -m q --preset dit-xl-2-256"), 0,
              "record: objective ddpm (--preset dit-xl-2-256)");
  struct outcome info = run("@info -v --model --record r.json q");
  assert_int_equal(info.code, 0);
  assert_non_null(strstr(info.out, "model.record_sources.heads: q/config.json:num_heads\n"));
  assert_non_null(strstr(info.out, "model.record_sources.norm_eps: record:norm_eps\n"));
  assert_null(strstr(run("@info --model q").out, "record_sources"));
  pipeline("scheduler/scheduler_config.json", "");
  info = run("@info -v --model p");
  assert_non_null(
      strstr(info.out, "record_sources.scheduler: p/scheduler/scheduler_config.json\n"));
  assert_non_null(strstr(
      info.out, "record_sources.objective: p/scheduler/scheduler_config.json:_class_name\n"));
  assert_int_equal(run("rm -r p/scheduler").code, 0);
  info = run("@info -v --model p");
  assert_non_null(
      strstr(info.out, "record_sources.objective: p/transformer/config.json:_class_name\n"));
  assert_non_null(strstr(info.out, "record_sources.scheduler: default\n"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_original_names),   cmocka_unit_test(test_original_names_with_scheduler),
      cmocka_unit_test(test_scheduler_files),  cmocka_unit_test(test_contradictions),
      cmocka_unit_test(test_list_passed_over), cmocka_unit_test(test_foreign_files),
      cmocka_unit_test(test_sources),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
