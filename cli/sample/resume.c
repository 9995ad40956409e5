/* A run that was there before: whether it is this one, and which of its files are good. */
#include "cli/sample/files.h"
#include "cli/sample/work.h"
#include "cli/text.h"
#include "cli/text_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MANIFEST_MAX_BYTES = 64 << 20 };

/* Identity. */

static const char *text_at(const cJSON *object, const char *name) {
  const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
  return text ? text : "none";
}

/* "steps (2, now 3), seed (0, now 1)"; free(). */
static char *differences(const cJSON *was, const cJSON *is) {
  const cJSON *lists[] = {was, is}, *item;
  char *text = text_copy("");
  for (int i = 0; i < 2; i++) cJSON_ArrayForEach(item, lists[i]) {
      const char *a = text_at(was, item->string), *b = text_at(is, item->string);
      bool known = i == 1 && cJSON_GetObjectItemCaseSensitive(was, item->string);
      if (known || strcmp(a, b) == 0) continue;
      char *longer =
          text_format("%s%s%s (%.70s, now %.70s)", text, *text ? ", " : "", item->string, a, b);
      free(text);
      text = longer;
    }
  return text;
}

static enum ditmoe_status compare_identity(const struct sample *run, const cJSON *was) {
  cJSON *is = sample_identity(run);
  char *text = differences(was, is);
  enum ditmoe_status status = DITMOE_OK;
  if (*text)
    status = report_error(DITMOE_MISMATCH, "%s: a run with other settings: %s", run->names.manifest,
                          text);
  free(text);
  cJSON_Delete(is);
  return status;
}

/* run.json. */

static enum ditmoe_status malformed(const struct sample *run) {
  return report_error(DITMOE_FORMAT, "%s: not the record of a run; --force starts anew",
                      run->names.manifest);
}

/* What the record says of an output, if it says anything. */
static void read_file(const cJSON *object, const char *name, int64_t *bytes, uint32_t *crc) {
  const cJSON *file = cJSON_GetObjectItemCaseSensitive(object, name);
  if (!file) return;
  *bytes = (int64_t)cJSON_GetNumberValue(cJSON_GetObjectItem(file, "bytes"));
  *crc = (uint32_t)strtoul(text_at(file, "crc32"), NULL, 16);
}

static enum ditmoe_status read_members(struct sample *run, const cJSON *object) {
  struct sample_state *state = &run->state;
  const cJSON *identity = cJSON_GetObjectItemCaseSensitive(object, "identity");
  const cJSON *resumes = cJSON_GetObjectItemCaseSensitive(object, "resumes");
  const char *id = text_at(object, "id");
  if (strlen(id) != JOURNAL_ID || !cJSON_IsObject(identity) || !cJSON_IsNumber(resumes))
    return malformed(run);
  TRY(compare_identity(run, identity));
  snprintf(state->id, sizeof state->id, "%s", id);
  snprintf(run->started, sizeof run->started, "%s", text_at(object, "started"));
  state->resumes = (int64_t)resumes->valuedouble;
  state->complete = strcmp(text_at(object, "status"), "complete") == 0;
  read_file(object, "npz", &state->npz_bytes, &state->npz_crc);
  read_file(object, "routing_dump", &run->routing.dump.bytes, &run->routing.dump.crc);
  read_file(object, "routing_trace", &run->routing.trace.bytes, &run->routing.trace.crc);
  return DITMOE_OK;
}

enum ditmoe_status sample_read_manifest(struct sample *run) {
  char *text;
  TRY(sample_hash_finish(run));
  TRY(text_file_read("--resume", run->names.manifest, MANIFEST_MAX_BYTES, &text));
  cJSON *object = cJSON_Parse(text);
  free(text);
  enum ditmoe_status status = object ? read_members(run, object) : malformed(run);
  cJSON_Delete(object);
  return status;
}

/* Journals. */

struct search { /* for journals in a folder */
  const struct sample_names *names;
  journal_visitor *visit;
  void *user;
};

/* "run.journal" is rank 0's, "run.7.journal" rank 7's. */
static enum ditmoe_status try_journal(void *user, const char *name) {
  const struct search *search = user;
  const char *begin = path_name(search->names->journals);
  long long rank = 0;
  if (strncmp(name, begin, strlen(begin)) != 0) return DITMOE_OK;
  (void)sscanf(name + strlen(begin), ".%lld.", &rank);
  char *path = sample_journal_name(search->names, rank);
  enum ditmoe_status status = DITMOE_OK;
  if (strcmp(path_name(path), name) == 0) status = search->visit(search->user, path, rank);
  free(path);
  return status;
}

enum ditmoe_status sample_each_journal(const struct sample *run, journal_visitor *visit,
                                       void *user) {
  const struct sample_names *names = &run->names;
  struct search search = {names, visit, user};
  return folder_scan(names->parts ? names->parts : names->folder, try_journal, &search);
}

struct load {
  struct sample *run;
  int64_t first, end;
  bool verify;
  struct made claimed;
};

static void load_piece(struct load *load, const struct journal_piece *piece) {
  struct sample *run = load->run;
  int64_t bytes, end = piece->first + piece->count;
  uint32_t crc;
  if (piece->shard != (run->names.npz != NULL)) return;
  if (piece->first >= load->end || end <= load->first) return;
  made_add(&load->claimed, piece->first, piece->count);
  if (load->verify) {
    char *path = sample_piece_name(run, piece);
    bool good = file_checksum(path, &bytes, &crc) && bytes == piece->bytes && crc == piece->crc;
    free(path);
    if (!good) return;
  }
  made_replace(&run->state.made, piece->first, piece->count); /* the last one made counts */
}

static void load_failure(struct sample *run, const char *text) {
  long long first, count;
  int code, at = 0;
  if (sscanf(text, "failure %lld %lld %d %n", &first, &count, &code, &at) != 3 || !at) return;
  sample_add_failure(run, first, count, code, text + at);
}

static void load_session(struct sample_state *state, const char *text) {
  long long process;
  if (sscanf(text, "session %lld", &process) != 1) return;
  size_t count = state->process_count++;
  state->processes = memory_resize(state->processes, count + 1, sizeof *state->processes);
  state->processes[count] = process;
}

static void load_line(void *user, const char *text) {
  struct load *load = user;
  struct journal_piece piece;
  if (journal_parse(text, &piece)) load_piece(load, &piece);
  load_failure(load->run, text);
  load_session(&load->run->state, text);
}

static enum ditmoe_status load_journal(void *user, const char *path, int64_t rank) {
  struct load *load = user;
  (void)rank;
  struct journal_extent extent = journal_read(path, load->run->state.id, load_line, load);
  if (extent.size > 0 && !extent.ours && load->verify)
    report_warning("%s: not of this run or damaged; it does not count", path);
  return DITMOE_OK;
}

enum ditmoe_status sample_load(struct sample *run, int64_t first, int64_t end, bool verify,
                               int64_t *claimed) {
  struct load load = {.run = run, .first = first, .end = end, .verify = verify};
  struct sample_state *state = &run->state;
  made_create(&load.claimed, run->labels.first, run->labels.count);
  made_clear(&state->made);
  state->process_count = 0;
  cJSON_Delete(state->failures);
  state->failures = NULL;
  enum ditmoe_status status = sample_each_journal(run, load_journal, &load);
  *claimed = made_count(&load.claimed, first, end);
  made_free(&load.claimed);
  TRY(status);
  int64_t there = made_count(&state->made, first, end);
  TRY(sample_routing_filter(run));
  there -= made_count(&state->made, first, end);
  if (there > 0 && verify)
    report_note("%lld images are there, but their routing was not counted; they are made again",
                (long long)there);
  *claimed -= there;
  return DITMOE_OK;
}

/* Resuming. */

/* The npz of a complete run has all images; without it, or if it is damaged, none is there. */
static bool npz_is_good(const struct sample *run) {
  int64_t bytes;
  uint32_t crc;
  return file_checksum(run->names.npz, &bytes, &crc) && bytes == run->state.npz_bytes &&
         crc == run->state.npz_crc;
}

enum ditmoe_status sample_resume(struct sample *run) {
  struct sample_state *state = &run->state;
  int64_t first = state->share_first, end = state->share_end, claimed;
  TRY(sample_read_manifest(run));
  state->resumed = true;
  state->resumes++;
  run->routing.complete = state->complete && sample_routing_is_good(run);
  TRY(sample_routing_resume(run));
  TRY(sample_load(run, first, end, true, &claimed));
  if (run->names.npz && state->complete) {
    claimed = end - first;
    state->complete = npz_is_good(run) && run->routing.complete;
    if (state->complete) made_add(&state->made, run->labels.first, run->labels.count);
  }
  int64_t there = made_count(&state->made, first, end);
  if (there < end - first) state->complete = false;
  if (there < claimed)
    report_warning("%lld images are missing or damaged, and are made again",
                   (long long)(claimed - there));
  report_note("%lld of %lld images are there and good", (long long)there, (long long)(end - first));
  return DITMOE_OK;
}
