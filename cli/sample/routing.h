/* --routing-dump and --routing-trace of ditmoe-sample: which experts worked on the images of a run.
 *
 * Counts are sums over images, so they cannot be made again from what is on disk. A process keeps
 * its own in a file of tables that it replaces now and then; an image counts as made only if one of
 * these files has counted it, too. A trace is written batch by batch. At the end rank 0 adds all
 * tables and joins all traces. */
#ifndef CLI_SAMPLE_ROUTING_H
#define CLI_SAMPLE_ROUTING_H

#include "cli/sample/made.h"
#include "ditmoe_routing.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sample;

struct routing_file { /* as it was written; bytes 0: it was not */
  int64_t bytes;
  uint32_t crc;
};

struct sample_routing {
  struct ditmoe_routing *tables; /* of this process; NULL: nothing is counted           */
  char *parts;                   /* folder of unfinished files, with the last '/'       */
  char *file;                    /* that the tables are written to; NULL: not yet       */
  char **replaced;               /* [replaced_count] files that it replaces             */
  size_t replaced_count;
  struct made elsewhere;      /* images that tables of other shares have counted     */
  bool described;             /* the tables say where they come from                 */
  bool tracing;               /* a trace is open                                     */
  bool unsaved, spoiled;      /* tables have more than the file; have too much       */
  double saved, save_seconds; /* when the file was written, and what that took       */
  bool complete;              /* the run was, and its files are good                 */
  struct routing_file dump, trace;
};

/* Memory of the tables, at most. */
uint64_t sample_routing_bytes(const struct sample *run);
enum ditmoe_status sample_routing_create(struct sample *run);
void sample_routing_free(struct sample *run);
/* Whether the files of a complete run are as they were written. */
bool sample_routing_is_good(const struct sample *run);
/* Takes over what earlier processes have counted of this rank's share. */
enum ditmoe_status sample_routing_resume(struct sample *run);
/* Removes images from state.made whose routing nobody has counted. */
enum ditmoe_status sample_routing_filter(struct sample *run);
/* Around a batch, whose sampling ended with `status`, which is passed on. */
enum ditmoe_status sample_routing_begin(struct sample *run, int64_t first, int64_t count);
enum ditmoe_status sample_routing_end(struct sample *run, enum ditmoe_status status);
/* Saves what has been counted, if it is time to or `now`. */
enum ditmoe_status sample_routing_save(struct sample *run, bool now);
/* The dump and the trace of the whole run. */
enum ditmoe_status sample_routing_write(struct sample *run);
void sample_add_routing(const struct sample *run, cJSON *object);

#endif
