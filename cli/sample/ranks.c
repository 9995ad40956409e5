/* Many processes on one run. Each rank has a fixed range of the indices and writes its own files
 * and journal; nothing passes between ranks but what is in the folder of the run. */
#include "cli/sample/files.h"
#include "cli/sample/work.h"
#include "cli/stop.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { POLL_MICROSECONDS = 200000 };

void sample_share(const struct sample *run, int64_t rank, int64_t *first, int64_t *end) {
  const struct sample_labels *labels = &run->labels;
  int64_t units = (labels->count + run->unit - 1) / run->unit, ranks = run->settings.ranks;
  int64_t last = labels->first + labels->count;
  *first = labels->first + units * rank / ranks * run->unit;
  *end = labels->first + units * (rank + 1) / ranks * run->unit;
  if (*first > last) *first = last;
  if (*end > last) *end = last;
}

/* The other ranks. */

static bool is_complete(const struct sample *run, int64_t rank) {
  int64_t first, end;
  sample_share(run, rank, &first, &end);
  return made_find(&run->state.made, first, end, false) == end;
}

static bool is_locked(const struct sample *run, int64_t rank) {
  char *path = sample_journal_name(&run->names, rank);
  bool locked = journal_is_locked(path);
  free(path);
  return locked;
}

/* Bytes of its journal, 0 without one. */
static int64_t journal_size(const struct sample *run, int64_t rank) {
  struct stat info;
  char *path = sample_journal_name(&run->names, rank);
  int64_t size = stat(path, &info) == 0 ? info.st_size : 0;
  free(path);
  return size;
}

static bool in_time(const struct sample *run) {
  return clock_seconds() - run->clock_started < (double)run->settings.rank_timeout;
}

struct sighting { /* of another rank */
  int64_t size;   /* of its journal before it came; a rank that comes writes a line */
  bool seen;
};

/* Whether a rank has ended, or will not appear. */
static bool has_ended(const struct sample *run, int64_t rank, struct sighting *sighting) {
  bool locked = is_locked(run, rank);
  sighting->seen = sighting->seen || locked || journal_size(run, rank) != sighting->size;
  return !locked && (sighting->seen || is_complete(run, rank) || !in_time(run));
}

static bool all_have_ended(const struct sample *run, struct sighting *sightings) {
  bool all = true;
  for (int64_t rank = 1; rank < run->settings.ranks; rank++)
    all = has_ended(run, rank, &sightings[rank]) && all;
  return all;
}

static enum ditmoe_status wait_for_all(const struct sample *run, struct sighting *sightings) {
  while (!all_have_ended(run, sightings)) {
    if (stop_asked()) return DITMOE_CANCELLED;
    usleep(POLL_MICROSECONDS);
  }
  return DITMOE_OK;
}

/* In a new run every journal is of a process of this run. */
static struct sighting *first_sightings(const struct sample *run) {
  struct sighting *sightings = memory_get((size_t)run->settings.ranks, sizeof *sightings);
  for (int64_t rank = 1; rank < run->settings.ranks && run->state.resumed; rank++)
    sightings[rank].size = journal_size(run, rank);
  (void)all_have_ended(run, sightings);
  return sightings;
}

static enum ditmoe_status report_lost(const struct sample *run) {
  const struct sample_labels *labels = &run->labels;
  const struct made *made = &run->state.made;
  int64_t end = labels->first + labels->count, first = made_find(made, labels->first, end, false);
  if (first == end) return DITMOE_OK;
  int64_t missing = labels->count - made_count(made, labels->first, end);
  char *ranks = text_copy("");
  for (int64_t rank = 0; rank < run->settings.ranks; rank++) {
    if (is_complete(run, rank)) continue;
    char *longer = text_format("%s%s%lld", ranks, *ranks ? ", " : "", (long long)rank);
    free(ranks);
    ranks = longer;
  }
  report_error(DITMOE_INCOMPLETE,
               "rank %s ended early: %lld images are missing, the first %lld to %lld; --resume "
               "makes them",
               ranks, (long long)missing, (long long)first,
               (long long)made_find(made, first, end, true) - 1);
  free(ranks);
  return DITMOE_INCOMPLETE;
}

/* The shards of a complete .npz are gone. */
static bool has_npz(const struct sample *run) { return run->names.npz && run->state.complete; }

/* What was there before a resume may be damaged, and then its rank makes it again: so the files
 * count, not the journals. */
enum ditmoe_status sample_wait_for_ranks(struct sample *run) {
  const struct sample_labels *labels = &run->labels;
  int64_t end = labels->first + labels->count, claimed;
  bool resumed = run->state.resumed;
  if (has_npz(run)) return DITMOE_OK;
  struct sighting *sightings = first_sightings(run); /* before the files are read */
  enum ditmoe_status status = DITMOE_OK;
  if (resumed) status = sample_load(run, labels->first, end, true, &claimed);
  bool complete = made_find(&run->state.made, labels->first, end, false) == end;
  if (status == DITMOE_OK) status = wait_for_all(run, sightings);
  free(sightings);
  TRY(status);
  if (!complete) TRY(sample_load(run, labels->first, end, resumed, &claimed));
  return report_lost(run);
}

enum ditmoe_status sample_check_first_rank(struct sample *run) {
  int64_t first, end, claimed;
  sample_share(run, 0, &first, &end);
  while (!has_npz(run) && !is_locked(run, 0)) {
    TRY(sample_load(run, first, end, false, &claimed));
    if (is_complete(run, 0)) return DITMOE_OK;
    if ((!run->state.resumed && journal_size(run, 0) > 0) || !in_time(run))
      return report_error(DITMOE_INCOMPLETE,
                          "rank 0 has ended, and left image %lld and others; --resume makes them",
                          (long long)made_find(&run->state.made, first, end, false));
    if (stop_asked()) return DITMOE_CANCELLED;
    usleep(POLL_MICROSECONDS);
  }
  return DITMOE_OK;
}
