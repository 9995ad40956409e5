/* ditmoe-sample: read the command line, open the model, choose classes, plan, sample, finish. */
#include "cli/sample/work.h"
#include "cli/stop.h"

#include <stdlib.h>

static enum ditmoe_status prepare(struct sample *run) {
  if (run->settings.reproduce) TRY(sample_read_image(run));
  TRY(sample_read_environment(run));
  TRY(sample_read_ranks(run));
  TRY(sample_check_options(run));
  sample_show_sources(run);
  return DITMOE_OK;
}

/* Without a model the names are those of ImageNet. */
static enum ditmoe_status list_classes(struct sample *run) {
  if (run->settings.model) TRY(sample_open(run));
  if (!run->settings.model) run->classes = classes_of(NULL, false);
  return classes_print(&run->classes, run->settings.list_classes, run->settings.common.json);
}

static enum ditmoe_status make_images(struct sample *run) {
  float *latents = NULL;
  TRY(sample_name_outputs(run));
  TRY(sample_routing_create(run));
  enum ditmoe_status status = sample_start(run);
  if (status != DITMOE_OK) {
    (void)sample_undo(run);
    return status;
  }
  report_note("%lld images, sampler %s, %d steps, guidance %g, seed %llu",
              (long long)run->labels.count, run->plan.sampler, run->plan.steps,
              run->settings.cfg_scale, (unsigned long long)run->settings.seed);
  status = sample_images(run, &latents);
  status = sample_finish(run, status, latents);
  free(latents);
  return status;
}

static enum ditmoe_status sample(struct sample *run) {
  TRY(prepare(run));
  if (run->settings.list_classes) return list_classes(run);
  TRY(sample_open(run));
  if (run->settings.reproduce) {
    TRY(sample_hash_finish(run));
    TRY(sample_verify_origin(run));
  }
  TRY(sample_choose_labels(run));
  TRY(sample_plan(run));
  return run->settings.dry_run ? sample_print_plan(run) : make_images(run);
}

static void free_names(struct sample_names *names) {
  free(names->before);
  free(names->after);
  free(names->folder);
  free(names->npz);
  free(names->parts);
  free(names->journals);
  free(names->manifest);
}

static void free_state(struct sample_state *state) {
  journal_close(&state->journal);
  made_free(&state->made);
  cJSON_Delete(state->failures);
  free(state->processes);
}

static void clean_up(struct sample *run) {
  (void)sample_hash_finish(run);
  sample_routing_free(run);
  ditmoe_decoder_close(run->decoder);
  ditmoe_model_close(run->model);
  ditmoe_ctx_destroy(run->ctx);
  sample_origin_free(&run->origin);
  free(run->labels.classes);
  free_names(&run->names);
  free_state(&run->state);
  free(run->grid.pixels);
  free(run->grid.have);
  free(run->record);
  free(run->vae_path);
  options_free(&run->options);
}

int main(int argc, char **argv) {
  struct sample run = {
      .argc = argc, .argv = argv, .clock_started = clock_seconds(), .state.journal.file = -1};
  sample_time(run.started);
  int code = options_read(&run.options, &sample_program, &run.settings, argc, argv);
  if (code < 0) {
    run.ctx = report_context();
    code = stop_exit_code(report_finish(run.ctx ? sample(&run) : DITMOE_NOMEM));
  }
  clean_up(&run);
  return code;
}
