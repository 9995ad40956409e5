/* ditmoe-sample: the steps of a run in their order. Each is a file of this folder. */
#include "cli/sample/work.h"
#include "cli/stop.h"

#include <stdlib.h>

/* Without a model the names are those of ImageNet. */
static enum ditmoe_status list_classes(struct sample *run) {
  if (run->settings.model) TRY(sample_open(run));
  if (!run->settings.model) run->classes = classes_of(NULL, false);
  return classes_print(&run->classes, run->settings.list_classes, run->settings.common.json);
}

/* What is missing of this rank's share, batch after batch, until the end or a signal. */
static enum ditmoe_status make_batches(struct sample *run) {
  int64_t first = run->state.share_first, count = sample_next_batch(run, &first);
  stop_on_signals();
  if (count == 0) return DITMOE_OK;
  enum ditmoe_status status = sample_open_session(run);
  while (status == DITMOE_OK && (count = sample_next_batch(run, &first)) > 0) {
    status = sample_batch(run, first, count);
    first += count;
  }
  return sample_close_session(run, status);
}

static enum ditmoe_status sample(struct sample *run) {
  if (run->settings.list_presets) {
    sample_list_presets(run->settings.common.json);
    return DITMOE_OK;
  }
  TRY(sample_read_settings(run));
  if (run->settings.list_classes) return list_classes(run);
  TRY(sample_open(run));
  if (run->settings.reproduce) TRY(sample_verify_origin(run));
  TRY(sample_choose_labels(run));
  TRY(sample_plan(run));
  if (run->settings.dry_run) return sample_print_plan(run);
  TRY(sample_name_outputs(run));
  TRY(sample_grid_create(run));
  TRY(sample_routing_create(run));
  TRY(sample_start(run));
  return sample_finish(run, make_batches(run));
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
  free(run->batches.latents);
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
