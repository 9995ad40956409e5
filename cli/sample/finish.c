/* The end of a run: the outputs that need all images, run.json, and what is not needed any more. */
#include "cli/sample/files.h"
#include "cli/sample/work.h"
#include "cli/stop.h"
#include "cli/text.h"
#include "cli/text_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum ditmoe_status write_outputs(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  bool new_grid = s->grid && (!run->state.complete || !file_exists(s->grid));
  if (run->names.npz && !run->state.complete) TRY(sample_pack(run));
  TRY(sample_routing_write(run));
  if (new_grid) TRY(sample_write_grid(run));
  return run->batches.latents ? sample_write_latents(run) : DITMOE_OK;
}

static enum ditmoe_status write_manifest(struct sample *run, enum ditmoe_status status) {
  const char *outcome = status == DITMOE_OK           ? "complete"
                        : status == DITMOE_CANCELLED  ? "stopped"
                        : status == DITMOE_INCOMPLETE ? "incomplete"
                                                      : "failed";
  char *text = sample_manifest(run, outcome, status);
  enum ditmoe_status written = ditmoe_file_write(run->ctx, run->names.manifest, text, strlen(text));
  if (status == DITMOE_OK) status = report_call(run->ctx, written); /* else one error is enough */
  if (run->settings.common.json) fputs(text, stdout);
  free(text);
  return status;
}

/* That of a run that was complete before stays as it is. */
static enum ditmoe_status show_manifest(const struct sample *run) {
  enum { MAX_BYTES = 64 << 20 };
  char *text;
  report_note("the run is complete and its files are good");
  if (!run->settings.common.json) return DITMOE_OK;
  TRY(text_file_read("--resume", run->names.manifest, MAX_BYTES, &text));
  fputs(text, stdout);
  free(text);
  return DITMOE_OK;
}

/* Cleaning. */

struct sweep {
  const struct sample_state *state;
  const char *folder;
};

/* A process of this run that was killed while it wrote. */
static enum ditmoe_status remove_temporary(void *user, const char *name) {
  const struct sweep *sweep = user;
  int64_t process = temporary_process(name);
  for (size_t i = 0; process && i < sweep->state->process_count; i++) {
    if (sweep->state->processes[i] != process) continue;
    char *path = text_format("%s%s", sweep->folder, name);
    (void)unlink(path);
    free(path);
    break;
  }
  return DITMOE_OK;
}

static void remove_temporaries(const struct sample *run) {
  char *folders[] = {text_copy(run->names.folder),
                     run->settings.grid ? path_folder(run->settings.grid) : NULL};
  for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
    struct sweep sweep = {&run->state, folders[i]};
    if (folders[i]) (void)folder_scan(folders[i], remove_temporary, &sweep);
    free(folders[i]);
  }
}

static enum ditmoe_status find_locked(void *user, const char *path, int64_t rank) {
  (void)user;
  return rank > 0 && journal_is_locked(path) ? DITMOE_INCOMPLETE : DITMOE_OK;
}

/* A rank that comes late, after a resume, may still be checking its shards. */
static void remove_leftovers(struct sample *run) {
  enum { POLL_MICROSECONDS = 200000 };
  while (sample_each_journal(run, find_locked, NULL) == DITMOE_INCOMPLETE && !stop_asked())
    usleep(POLL_MICROSECONDS);
  if (run->state.resumed) remove_temporaries(run);
  if (run->names.parts) folder_remove(run->names.parts);
}

/* The end. */

static void say_stopped(const struct sample *run) {
  const struct sample_state *state = &run->state;
  report_note("stopped; %lld of %lld images are there%s",
              (long long)made_count(&state->made, state->share_first, state->share_end),
              (long long)(state->share_end - state->share_first),
              run->names.journals ? ", --resume makes the others" : "");
}

/* A rank that was late to a run that is complete has made the folder of shards again. */
static enum ditmoe_status finish_rank(struct sample *run, enum ditmoe_status status) {
  if (status == DITMOE_OK) status = sample_check_first_rank(run);
  if (status == DITMOE_CANCELLED) say_stopped(run);
  if (run->names.npz && run->state.complete) {
    (void)unlink(run->state.journal.path);
    (void)rmdir(run->names.parts);
  }
  return status;
}

enum ditmoe_status sample_finish(struct sample *run, enum ditmoe_status status) {
  bool was_complete = run->state.complete && file_exists(run->names.manifest);
  if (status != DITMOE_OK && sample_undo(run)) return status;
  if (run->settings.rank > 0) return finish_rank(run, status);
  if (status == DITMOE_OK && run->settings.ranks > 1) status = sample_wait_for_ranks(run);
  if (status == DITMOE_OK) status = write_outputs(run);
  if (status == DITMOE_CANCELLED) say_stopped(run);
  if (status == DITMOE_OK && was_complete && !run->wrote_grid)
    status = show_manifest(run);
  else
    status = write_manifest(run, status);
  if (status == DITMOE_OK && run->names.journals) remove_leftovers(run);
  if (run->routing.parts && (status == DITMOE_OK || !run->names.journals))
    folder_remove(run->routing.parts);
  return status;
}
