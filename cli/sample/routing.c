/* What is counted of a run, and how its parts come together. */
#include "cli/sample/files.h"
#include "cli/sample/work.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { SHUFFLE_SEED = 0x5eed };

/* Tables are written again when what that took is this part of the time since. */
static const double SAVE_SHARE = 0.02;

static bool counts_routing(const struct sample *run) {
  return run->settings.routing_dump || run->settings.routing_trace;
}

/* Tables. */

/* As if every block had experts. */
uint64_t sample_routing_bytes(const struct sample *run) {
  const struct sample_settings *s = &run->settings;
  const struct ditmoe_model_info *info = &run->info;
  const uint64_t side = (uint64_t)(info->size / info->patch), depth = (uint64_t)info->depth;
  const uint64_t bins = (uint64_t)(s->routing_bins ? s->routing_bins : run->plan.steps);
  const uint64_t cells = depth * bins * side * side * ((uint64_t)info->experts + 1);
  const uint64_t bytes = sizeof(uint32_t) + (s->routing_mass ? sizeof(int64_t) : 0);
  return counts_routing(run) ? cells * bytes * (s->routing_uncond ? 2 : 1) : 0;
}

/* Of the whole run, so that its parts agree. */
static int32_t other_label(void *user, int64_t image) {
  const struct sample *run = user;
  const struct sample_labels *labels = &run->labels;
  const bool given = labels->rule == LABELS_GIVEN;
  const int64_t all = given ? labels->count : labels->total;
  const int32_t count = all < INT32_MAX ? (int32_t)all : INT32_MAX;
  return sample_label(run, (given ? labels->first : 0) +
                               ditmoe_random_label(SHUFFLE_SEED, image, count));
}

static void add_class_names(const struct sample *run, cJSON *object) {
  cJSON *names = cJSON_AddObjectToObject(object, "class_names");
  for (int label = 0; label < run->classes.used; label++) {
    char number[16], *title = class_title(&run->classes, label);
    snprintf(number, sizeof number, "%d", label);
    if (class_names(&run->classes, label)) cJSON_AddStringToObject(names, number, title);
    free(title);
  }
}

/* Nothing in it depends on ranks, batches or the time: all parts of a run have the same. */
static char *description(const struct sample *run) {
  cJSON *object = cJSON_CreateObject();
  sample_add_program(object);
  sample_add_model(run, object);
  sample_add_execution(run, object);
  cJSON_AddStringToObject(object, "sampler", run->plan.sampler);
  cJSON_AddNumberToObject(object, "steps", run->plan.steps);
  cJSON_AddNumberToObject(object, "cfg_scale", run->settings.cfg_scale);
  json_add_whole(object, "seed", run->settings.seed);
  json_add_whole(object, "samples", (uint64_t)run->labels.total);
  add_class_names(run, object);
  char *text = json_text(object, false);
  cJSON_Delete(object);
  return text;
}

/* Before anything is written. It needs the hash of the model, which is still being made while the
 * first batch is sampled. */
static enum ditmoe_status describe(struct sample *run) {
  struct sample_routing *r = &run->routing;
  if (r->described) return DITMOE_OK;
  TRY(sample_hash_finish(run));
  char *meta = description(run);
  enum ditmoe_status status =
      report_call(run->ctx, ditmoe_routing_describe(run->ctx, r->tables, meta));
  free(meta);
  r->described = status == DITMOE_OK;
  return status;
}

enum ditmoe_status sample_routing_create(struct sample *run) {
  struct sample_routing *r = &run->routing;
  const struct sample_settings *s = &run->settings;
  const struct ditmoe_routing_options options = {.bins = (int)s->routing_bins,
                                                 .mass = s->routing_mass,
                                                 .unconditional = s->routing_uncond,
                                                 .user = run,
                                                 .other_label = other_label};
  if (!counts_routing(run)) return DITMOE_OK;
  TRY(report_call(
      run->ctx, ditmoe_routing_create(run->ctx, run->model, &run->request, &options, &r->tables)));
  r->parts = text_format("%s.parts/", s->routing_dump ? s->routing_dump : s->routing_trace);
  made_create(&r->elsewhere, run->labels.first, run->labels.count);
  r->saved = clock_seconds();
  run->request.routing = r->tables;
  return DITMOE_OK;
}

void sample_routing_free(struct sample *run) {
  struct sample_routing *r = &run->routing;
  for (size_t i = 0; i < r->replaced_count; i++) free(r->replaced[i]);
  free(r->replaced);
  ditmoe_routing_destroy(r->tables);
  made_free(&r->elsewhere);
  free(r->parts);
  free(r->file);
}

/* Parts: "ID-XXXXXXXXXXXXXXXX.npz" has tables, "ID-000000000064+16.trace" is of a batch. */

static void name_tables(struct sample *run) {
  struct sample_routing *r = &run->routing;
  uint64_t number = (uint64_t)getpid();
  if (r->file) return;
  if (getrandom(&number, sizeof number, 0) != sizeof number)
    number ^= (uint64_t)(1e9 * clock_seconds());
  r->file = text_format("%s%s-%016llx.npz", r->parts, run->state.id, (unsigned long long)number);
}

static char *trace_name(const struct sample *run, long long first, long long count) {
  return text_format("%s%s-%012lld+%lld.trace", run->routing.parts, run->state.id, first, count);
}

static bool is_tables(const struct sample *run, const char *name) {
  const size_t id = strlen(run->state.id), length = strlen(name);
  return strncmp(name, run->state.id, id) == 0 && name[id] == '-' && length > 4 &&
         strcmp(name + length - 4, ".npz") == 0;
}

static bool is_trace(const struct sample *run, const char *name, int64_t *first, int64_t *count) {
  const size_t id = strlen(run->state.id);
  long long from, images;
  if (strncmp(name, run->state.id, id) != 0 || name[id] != '-') return false;
  if (sscanf(name + id + 1, "%lld+%lld.trace", &from, &images) != 2) return false;
  char *path = trace_name(run, from, images);
  const bool ours = strcmp(path_name(path), name) == 0;
  free(path);
  *first = from;
  *count = images;
  return ours;
}

/* What is there. */

struct part { /* a file of tables */
  char *path;
  int64_t images;
};

struct survey {
  const struct sample *run;
  struct made counted, traced; /* images in any tables, in any trace */
  struct part *parts;
  size_t count;
};

/* NULL if the file is gone: another rank has just replaced it. Its images are in that rank's share,
 * and whoever needs them looks again when the rank has ended. */
static enum ditmoe_status read_tables(const struct sample *run, const char *path,
                                      struct ditmoe_routing **out) {
  *out = NULL;
  const enum ditmoe_status status = ditmoe_routing_read(run->ctx, path, out);
  if (status != DITMOE_OK && access(path, F_OK) != 0) return DITMOE_OK;
  return report_call(run->ctx, status);
}

static enum ditmoe_status survey_tables(struct survey *survey, const char *path) {
  const struct sample *run = survey->run;
  const struct sample_labels *labels = &run->labels;
  struct ditmoe_routing *tables;
  TRY(read_tables(run, path, &tables));
  if (!tables) return DITMOE_OK;
  struct part part = {.path = text_copy(path)};
  for (int64_t i = labels->first; i < labels->first + labels->count; i++)
    if (ditmoe_routing_has(tables, i)) {
      made_add(&survey->counted, i, 1);
      part.images++;
    }
  ditmoe_routing_destroy(tables);
  survey->parts = memory_resize(survey->parts, survey->count + 1, sizeof part);
  survey->parts[survey->count++] = part;
  return DITMOE_OK;
}

static enum ditmoe_status survey_file(void *user, const char *name) {
  struct survey *survey = user;
  int64_t first, count;
  if (is_trace(survey->run, name, &first, &count))
    for (int64_t i = first; i < first + count; i++) made_add(&survey->traced, i, 1);
  if (!is_tables(survey->run, name)) return DITMOE_OK;
  char *path = text_format("%s%s", survey->run->routing.parts, name);
  enum ditmoe_status status = survey_tables(survey, path);
  free(path);
  return status;
}

static int by_images(const void *a, const void *b) {
  const struct part *left = a, *right = b;
  return (left->images < right->images) - (left->images > right->images);
}

/* Tables are disjoint, or one has all that another has: its process was killed between writing it
 * and removing those that it had taken over. So the larger come first. */
static enum ditmoe_status look(const struct sample *run, struct survey *survey) {
  const struct sample_labels *labels = &run->labels;
  *survey = (struct survey){.run = run};
  made_create(&survey->counted, labels->first, labels->count);
  made_create(&survey->traced, labels->first, labels->count);
  if (!folder_exists(run->routing.parts)) return DITMOE_OK;
  TRY(folder_scan(run->routing.parts, survey_file, survey));
  if (survey->count) qsort(survey->parts, survey->count, sizeof *survey->parts, by_images);
  return DITMOE_OK;
}

static void survey_free(struct survey *survey) {
  for (size_t i = 0; i < survey->count; i++) free(survey->parts[i].path);
  free(survey->parts);
  made_free(&survey->counted);
  made_free(&survey->traced);
}

/* Images of the tables in [first, end). */
static int64_t images_in(const struct ditmoe_routing *tables, int64_t first, int64_t end) {
  int64_t count = 0;
  for (int64_t i = first; i < end; i++) count += ditmoe_routing_has(tables, i) != 0;
  return count;
}

static bool overlap(const struct sample *run, const struct ditmoe_routing *a,
                    const struct ditmoe_routing *b) {
  const struct sample_labels *labels = &run->labels;
  for (int64_t i = labels->first; i < labels->first + labels->count; i++)
    if (ditmoe_routing_has(a, i) && ditmoe_routing_has(b, i)) return true;
  return false;
}

/* Adds what another process has counted, unless it is in already. */
static enum ditmoe_status add(struct sample *run, const struct ditmoe_routing *found) {
  struct ditmoe_routing *tables = run->routing.tables;
  if (overlap(run, tables, found)) return DITMOE_OK;
  return report_call(run->ctx, ditmoe_routing_merge(run->ctx, tables, found));
}

/* Going on. */

/* Tables that lie in this rank's share become its own, and their file goes with the next save. Of
 * others, from a run with other shares, the images must not be counted again. */
static enum ditmoe_status adopt(struct sample *run, const struct ditmoe_routing *found,
                                const struct part *part) {
  struct sample_routing *r = &run->routing;
  const int64_t first = run->state.share_first, end = run->state.share_end;
  if (images_in(found, first, end) == part->images) {
    r->replaced = memory_resize(r->replaced, r->replaced_count + 1, sizeof *r->replaced);
    r->replaced[r->replaced_count++] = text_copy(part->path);
    return add(run, found);
  }
  for (int64_t i = first; i < end; i++) {
    if (!ditmoe_routing_has(found, i)) continue;
    made_add(&r->elsewhere, i, 1);
    TRY(report_call(run->ctx, ditmoe_routing_exclude(run->ctx, r->tables, i)));
  }
  return DITMOE_OK;
}

/* The work of a batch that was not counted any more: it is made again. */
static enum ditmoe_status remove_trace(void *user, const char *name) {
  const struct survey *survey = user;
  const struct sample_state *state = &survey->run->state;
  int64_t first, count;
  if (!is_trace(survey->run, name, &first, &count)) return DITMOE_OK;
  if (first < state->share_first || first >= state->share_end) return DITMOE_OK;
  if (made_count(&survey->counted, first, first + count) == count) return DITMOE_OK;
  char *path = text_format("%s%s", survey->run->routing.parts, name);
  (void)unlink(path);
  free(path);
  return DITMOE_OK;
}

enum ditmoe_status sample_routing_resume(struct sample *run) {
  struct survey survey;
  if (!run->routing.tables || run->routing.complete) return DITMOE_OK;
  enum ditmoe_status status = look(run, &survey);
  for (size_t i = 0; i < survey.count && status == DITMOE_OK; i++) {
    struct ditmoe_routing *found;
    status = read_tables(run, survey.parts[i].path, &found);
    if (found) status = adopt(run, found, &survey.parts[i]);
    ditmoe_routing_destroy(found);
  }
  if (status == DITMOE_OK && folder_exists(run->routing.parts))
    status = folder_scan(run->routing.parts, remove_trace, &survey);
  survey_free(&survey);
  return status;
}

/* The images of a shard may be made again in others, beside which it would still seem good. */
static void drop_shard(const struct sample *run, int64_t first, int64_t end) {
  const struct journal_piece piece = {.shard = true, .first = first, .count = end - first};
  if (!run->names.npz || first < run->state.share_first || first >= run->state.share_end) return;
  char *path = sample_piece_name(run, &piece);
  (void)unlink(path);
  free(path);
}

enum ditmoe_status sample_routing_filter(struct sample *run) {
  struct made *made = &run->state.made;
  const int64_t last = run->labels.first + run->labels.count;
  struct survey survey;
  if (!run->routing.tables || run->routing.complete) return DITMOE_OK;
  enum ditmoe_status status = look(run, &survey);
  for (int64_t first = run->labels.first, end; status == DITMOE_OK; first = end) {
    first = made_find(made, first, last, true);
    if (first == last) break;
    end = made_piece_end(made, first);
    if (made_count(&survey.counted, first, end) == end - first) continue;
    if (!run->state.begun) drop_shard(run, first, end);
    made_remove(made, first, end);
  }
  survey_free(&survey);
  return status;
}

bool sample_routing_is_good(const struct sample *run) {
  const struct sample_settings *s = &run->settings;
  const struct sample_routing *r = &run->routing;
  const struct routing_file files[] = {r->dump, r->trace};
  const char *const paths[] = {s->routing_dump, s->routing_trace};
  for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
    int64_t bytes;
    uint32_t crc;
    if (paths[i] &&
        !(file_checksum(paths[i], &bytes, &crc) && bytes == files[i].bytes && crc == files[i].crc))
      return false;
  }
  return true;
}

/* Batches. */

/* Images that were counted before and are made again are in another trace, perhaps of this name. */
static bool is_traced(const struct sample *run, int64_t first, int64_t count) {
  const struct sample_routing *r = &run->routing;
  int64_t counted = 0;
  for (int64_t i = first; i < first + count; i++)
    counted += ditmoe_routing_has(r->tables, i) || made_has(&r->elsewhere, i);
  return counted == count;
}

enum ditmoe_status sample_routing_begin(struct sample *run, int64_t first, int64_t count) {
  struct sample_routing *r = &run->routing;
  const unsigned what = run->settings.routing_scores ? DITMOE_TRACE_SCORES : 0;
  bool made;
  if (!r->tables || !run->settings.routing_trace) return DITMOE_OK;
  if (is_traced(run, first, count)) return DITMOE_OK;
  TRY(describe(run));
  TRY(folder_make(r->parts, &made));
  char *path = trace_name(run, first, count);
  enum ditmoe_status status =
      report_call(run->ctx, ditmoe_routing_trace_begin(run->ctx, r->tables, path, what));
  free(path);
  r->tracing = status == DITMOE_OK;
  return status;
}

enum ditmoe_status sample_routing_end(struct sample *run, enum ditmoe_status status) {
  struct sample_routing *r = &run->routing;
  const bool tracing = r->tracing;
  r->tracing = false;
  if (!r->tables) return status;
  r->spoiled = r->spoiled || status != DITMOE_OK;
  r->unsaved = true;
  if (!tracing) return status;
  if (status == DITMOE_OK)
    return report_call(run->ctx, ditmoe_routing_trace_commit(run->ctx, r->tables));
  ditmoe_routing_trace_abandon(r->tables);
  return status;
}

/* A batch that failed is counted in part, so these tables are of no use any more. */
enum ditmoe_status sample_routing_save(struct sample *run, bool now) {
  struct sample_routing *r = &run->routing;
  const double start = clock_seconds();
  bool made;
  if (!r->unsaved || r->spoiled || !run->names.journals) return DITMOE_OK;
  if (!now && r->file && r->save_seconds > SAVE_SHARE * (start - r->saved)) return DITMOE_OK;
  TRY(describe(run));
  TRY(folder_make(r->parts, &made));
  name_tables(run);
  TRY(report_call(run->ctx,
                  ditmoe_routing_write(run->ctx, r->tables, r->file, DITMOE_ROUTING_EXACT)));
  for (; r->replaced_count > 0; r->replaced_count--) {
    char *path = r->replaced[r->replaced_count - 1];
    (void)unlink(path);
    free(path);
  }
  r->saved = clock_seconds();
  r->save_seconds = r->saved - start;
  r->unsaved = false;
  return DITMOE_OK;
}

/* The end. */

static enum ditmoe_status add_all(struct sample *run, const struct survey *survey) {
  enum ditmoe_status status = DITMOE_OK;
  for (size_t i = 0; i < survey->count && status == DITMOE_OK; i++) {
    struct ditmoe_routing *found;
    status = read_tables(run, survey->parts[i].path, &found);
    if (found) status = add(run, found);
    ditmoe_routing_destroy(found);
  }
  return status;
}

struct list {
  const struct sample *run;
  char **paths;
  size_t count;
};

static enum ditmoe_status list_trace(void *user, const char *name) {
  struct list *list = user;
  int64_t first, count;
  if (!is_trace(list->run, name, &first, &count)) return DITMOE_OK;
  list->paths = memory_resize(list->paths, list->count + 1, sizeof *list->paths);
  list->paths[list->count++] = text_format("%s%s", list->run->routing.parts, name);
  return DITMOE_OK;
}

static enum ditmoe_status join_traces(struct sample *run) {
  struct list list = {.run = run};
  enum ditmoe_status status = folder_scan(run->routing.parts, list_trace, &list);
  if (status == DITMOE_OK)
    status = report_call(run->ctx, ditmoe_trace_join(run->ctx, (const char *const *)list.paths,
                                                     list.count, run->settings.routing_trace));
  for (size_t i = 0; i < list.count; i++) free(list.paths[i]);
  free(list.paths);
  return status;
}

static enum ditmoe_status note_file(const struct sample *run, const char *path,
                                    struct routing_file *file) {
  if (!file_checksum(path, &file->bytes, &file->crc))
    return report_error(DITMOE_OUTPUT, "%s: cannot be read again", path);
  if (!run->settings.common.json) report_file(path);
  return DITMOE_OK;
}

static enum ditmoe_status check_complete(const struct sample *run, const struct survey *survey) {
  const int64_t first = run->labels.first, count = run->labels.count;
  const int64_t counted = images_in(run->routing.tables, first, first + count);
  const int64_t traced =
      run->settings.routing_trace ? made_count(&survey->traced, first, first + count) : count;
  if (counted == count && traced == count) return DITMOE_OK;
  return report_error(DITMOE_INCOMPLETE,
                      "%s: has the routing of %lld of %lld images; start the run anew with --force",
                      run->routing.parts, (long long)(counted < traced ? counted : traced),
                      (long long)count);
}

enum ditmoe_status sample_routing_write(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  struct sample_routing *r = &run->routing;
  struct survey survey;
  if (!r->tables || r->complete) return DITMOE_OK;
  TRY(describe(run));
  enum ditmoe_status status = look(run, &survey);
  if (status == DITMOE_OK) status = add_all(run, &survey);
  if (status == DITMOE_OK) status = check_complete(run, &survey);
  survey_free(&survey);
  TRY(status);
  if (s->routing_trace) {
    TRY(join_traces(run));
    TRY(note_file(run, s->routing_trace, &r->trace));
  }
  if (!s->routing_dump) return DITMOE_OK;
  TRY(report_call(
      run->ctx, ditmoe_routing_write(run->ctx, r->tables, s->routing_dump, DITMOE_ROUTING_FINAL)));
  return note_file(run, s->routing_dump, &r->dump);
}

/* In run.json. */

static void add_file(cJSON *object, const char *name, const char *path,
                     const struct routing_file *file) {
  char crc[16];
  if (!path || !file->bytes) return;
  snprintf(crc, sizeof crc, "%08x", file->crc);
  cJSON *out = cJSON_AddObjectToObject(object, name);
  cJSON_AddStringToObject(out, "file", path);
  json_add_whole(out, "bytes", (uint64_t)file->bytes);
  cJSON_AddStringToObject(out, "crc32", crc);
}

void sample_add_routing(const struct sample *run, cJSON *object) {
  add_file(object, "routing_dump", run->settings.routing_dump, &run->routing.dump);
  add_file(object, "routing_trace", run->settings.routing_trace, &run->routing.trace);
}
