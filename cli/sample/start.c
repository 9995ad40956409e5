/* The beginning of a run: nothing that is there is touched without --resume or --force. */
#include "cli/sample/files.h"
#include "cli/sample/work.h"
#include "cli/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static bool has_ranks(const struct sample *run) { return run->settings.ranks > 1; }

static enum ditmoe_status holds_a_run(const struct sample *run) {
  return report_error(DITMOE_OUTPUT, "%s: holds a run; --resume continues it%s",
                      run->names.npz ? run->names.npz : run->names.manifest,
                      has_ranks(run) ? "" : ", --force replaces it");
}

/* Journals of other processes. */

/* Active ranks of this launch are no obstacle; those of another launch are. */
static enum ditmoe_status refuse_active(void *user, const char *path, int64_t rank) {
  const struct sample *run = user;
  bool sibling = has_ranks(run) && rank < run->settings.ranks;
  if (sibling || rank == run->settings.rank || !journal_is_locked(path)) return DITMOE_OK;
  return report_error(DITMOE_OUTPUT, "%s: this run is active, in process %lld", path,
                      (long long)journal_process(path));
}

static void note_piece(void *user, const char *text) {
  struct journal_piece piece;
  if (journal_parse(text, &piece)) *(bool *)user = true;
}

/* One rank alone must find no journal with images, several no own one. */
static enum ditmoe_status refuse_journal(void *user, const char *path, int64_t rank) {
  const struct sample *run = user;
  bool pieces = false;
  if (has_ranks(run) && rank != run->settings.rank) return DITMOE_OK;
  journal_read(path, NULL, note_piece, &pieces);
  if (pieces && run->settings.resume)
    return report_error(DITMOE_FORMAT,
                        "%s: is missing, without which %s cannot be continued; remove that",
                        run->names.manifest, path);
  return pieces ? holds_a_run(run) : DITMOE_OK;
}

/* Files of images. */

static enum ditmoe_status refuse_image(void *user, const char *name) {
  const struct sample *run = user;
  char *path = text_format("%s%s", run->names.folder, name);
  int64_t index = sample_file_index(&run->names, path);
  bool ours = index >= run->state.share_first && index < run->state.share_end &&
              sample_selected(run, index);
  enum ditmoe_status status = DITMOE_OK;
  if (ours)
    status = report_error(
        DITMOE_OUTPUT, folder_exists(path) ? "%s: is a folder" : "%s: exists; --force replaces it",
        path);
  free(path);
  return status;
}

static enum ditmoe_status refuse_old(struct sample *run) {
  const struct sample_names *names = &run->names;
  TRY(sample_each_journal(run, refuse_journal, run));
  if (!has_ranks(run) && file_exists(names->manifest)) return holds_a_run(run);
  if (names->npz && file_exists(names->npz)) return holds_a_run(run);
  return names->npz ? DITMOE_OK : folder_scan(names->folder, refuse_image, run);
}

/* --force. */

static void remove_piece(void *user, const char *text) {
  const struct sample *run = user;
  struct journal_piece piece;
  if (!journal_parse(text, &piece) || piece.shard) return;
  char *path = sample_piece_name(run, &piece);
  (void)unlink(path);
  free(path);
}

static enum ditmoe_status remove_journal(void *user, const char *path, int64_t rank) {
  const struct sample *run = user;
  journal_read(path, NULL, remove_piece, user);
  if (rank != run->settings.rank) (void)unlink(path);
  return DITMOE_OK;
}

/* An old .npz stays until the new one replaces it. */
static enum ditmoe_status replace_old(struct sample *run) {
  TRY(sample_each_journal(run, remove_journal, run));
  (void)unlink(run->names.manifest);
  if (run->routing.parts) folder_remove(run->routing.parts);
  return DITMOE_OK;
}

/* run.json. */

static void draw_id(char id[JOURNAL_ID + 1]) {
  uint8_t bytes[JOURNAL_ID / 2];
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
    memcpy(bytes, &(uint64_t){(uint64_t)(1e9 * clock_seconds())}, sizeof bytes);
  for (size_t i = 0; i < sizeof bytes; i++) snprintf(id + 2 * i, 3, "%02x", bytes[i]);
}

/* Of several ranks one makes run.json; the others compare theirs with it. */
static enum ditmoe_status create_manifest(struct sample *run) {
  char *text = sample_manifest(run, "running", DITMOE_OK);
  int cause = file_create(run->names.manifest, text);
  free(text);
  if (cause == EEXIST && has_ranks(run)) {
    TRY(sample_read_manifest(run));
    return run->state.complete ? holds_a_run(run) : DITMOE_OK;
  }
  if (!cause) return DITMOE_OK;
  return report_error(DITMOE_OUTPUT, "%s: %s", run->names.manifest, strerror(cause));
}

static enum ditmoe_status update_manifest(struct sample *run) {
  if (run->settings.rank > 0 || run->state.complete) return DITMOE_OK;
  char *text = sample_manifest(run, "running", DITMOE_OK);
  enum ditmoe_status status =
      report_call(run->ctx, ditmoe_file_write(run->ctx, run->names.manifest, text, strlen(text)));
  free(text);
  return status;
}

enum ditmoe_status sample_begin(struct sample *run) {
  if (run->state.begun) return DITMOE_OK;
  TRY(sample_hash_finish(run));
  if (run->names.journals) TRY(run->state.resumed ? update_manifest(run) : create_manifest(run));
  run->state.begun = true;
  return DITMOE_OK;
}

/* The journal. */

static void ignore_line(void *user, const char *text) {
  (void)user;
  (void)text;
}

/* What is good of it stays, and the line of this process follows. */
static enum ditmoe_status begin_journal(struct sample *run) {
  struct journal *journal = &run->state.journal;
  const struct sample_settings *s = &run->settings;
  struct journal_extent extent = journal_read(journal->path, run->state.id, ignore_line, NULL);
  if (run->state.resumed && extent.good < extent.size)
    report_warning("%s: the last %lld bytes are damaged and do not count", journal->path,
                   (long long)(extent.size - extent.good));
  TRY(journal_cut(journal, extent.good));
  if (extent.good == 0) journal_add(journal, "journal 1 %s", run->state.id);
  journal_add(journal, "session %lld %lld %lld", (long long)getpid(), (long long)s->rank,
              (long long)s->ranks);
  int cause = journal_commit(journal);
  if (!cause) return DITMOE_OK;
  return report_error(DITMOE_OUTPUT, "%s: %s", journal->path, strerror(cause));
}

static enum ditmoe_status start_new(struct sample *run) {
  bool replace = run->settings.force && !has_ranks(run); /* ranks would replace each other */
  TRY(replace ? replace_old(run) : refuse_old(run));
  draw_id(run->state.id);
  if (has_ranks(run)) TRY(sample_begin(run));
  return DITMOE_OK;
}

/* A run without a number in its names is one image: it has no journal, and is not resumed. */
static enum ditmoe_status start_journal(struct sample *run) {
  struct sample_state *state = &run->state;
  char *path = sample_journal_name(&run->names, run->settings.rank);
  enum ditmoe_status status = journal_take(&state->journal, path);
  free(path);
  TRY(status);
  TRY(sample_each_journal(run, refuse_active, run));
  if (run->settings.resume && file_exists(run->names.manifest))
    TRY(sample_resume(run));
  else
    TRY(start_new(run));
  TRY(sample_check_room(run));
  TRY(begin_journal(run));
  return state->resumed ? sample_begin(run) : DITMOE_OK;
}

static enum ditmoe_status take_over(struct sample *run) {
  struct sample_state *state = &run->state;
  const struct sample_names *names = &run->names;
  bool made_parts;
  sample_share(run, run->settings.rank, &state->share_first, &state->share_end);
  made_create(&state->made, run->labels.first, run->labels.count);
  TRY(folder_make(names->folder, &state->made_folder));
  if (names->parts) TRY(folder_make(names->parts, &made_parts));
  return names->journals ? start_journal(run) : DITMOE_OK;
}

bool sample_undo(struct sample *run) {
  struct sample_state *state = &run->state;
  const struct sample_names *names = &run->names;
  if (state->new_images > 0) return false;
  if (state->journal.file >= 0) {
    struct journal *journal = &state->journal;
    bool pieces = false;
    struct journal_extent extent = journal_read(journal->path, NULL, note_piece, &pieces);
    if (state->resumed || pieces || (has_ranks(run) && extent.size > 0)) return false;
    (void)unlink(journal->path);
    if (state->begun) (void)unlink(names->manifest);
  }
  if (names->parts) (void)rmdir(names->parts);
  if (run->routing.parts && names->journals) (void)rmdir(run->routing.parts);
  if (run->routing.parts && !names->journals) folder_remove(run->routing.parts);
  if (state->made_folder) (void)rmdir(names->folder);
  return true;
}

/* Says what will be made, and what the images will not show. */
static void say_start(const struct sample *run) {
  report_note("%lld images, sampler %s, %d steps, guidance %g, seed %llu",
              (long long)run->labels.count, run->plan.sampler, run->plan.steps,
              run->settings.cfg_scale, (unsigned long long)run->settings.seed);
  if (!run->decoder && run->info.channels != 1 && run->info.channels != 3)
    report_warning("--vae none: of %d channels the images show the first%s", run->info.channels,
                   run->info.channels > 3 ? " three" : "");
}

enum ditmoe_status sample_start(struct sample *run) {
  enum ditmoe_status status = take_over(run);
  if (status == DITMOE_OK)
    say_start(run);
  else
    (void)sample_undo(run);
  return status;
}
