/* ditmoe-sample: what makes and keeps the images of a run; cli/sample/sample.h has the order. */
#ifndef CLI_SAMPLE_WORK_H
#define CLI_SAMPLE_WORK_H

#include "cli/sample/sample.h"

/* start.c */
/* Takes the journal; DITMOE_OUTPUT if there is a run or a file that must not be touched. */
enum ditmoe_status sample_start(struct sample *run);
/* The hashes are known and run.json is written: what must be before the first image. */
enum ditmoe_status sample_begin(struct sample *run);
/* Removes what sample_start made, if no image was. Whether it did. */
bool sample_undo(struct sample *run);

/* resume.c */
/* Reads run.json; DITMOE_MISMATCH, naming what differs, if it is that of another run. */
enum ditmoe_status sample_read_manifest(struct sample *run);
/* Visits every journal of this run, those of other ranks included. */
typedef enum ditmoe_status journal_visitor(void *user, const char *path, int64_t rank);
enum ditmoe_status sample_each_journal(const struct sample *run, journal_visitor *visit,
                                       void *user);
/* Fills state.made from all journals; with `verify`, of [first, end) only files that are as they
 * were written. `claimed`: images in it that the journals tell of. */
enum ditmoe_status sample_load(struct sample *run, int64_t first, int64_t end, bool verify,
                               int64_t *claimed);
enum ditmoe_status sample_resume(struct sample *run);

/* batch.c */
enum ditmoe_status sample_open_session(struct sample *run);
/* The next images that are missing from index `first` on: whole units, and no more than a batch.
 * 0 at the end of this rank's share. */
int64_t sample_next_batch(const struct sample *run, int64_t *first);
/* Samples, counts and writes them. DITMOE_CANCELLED after a signal. */
enum ditmoe_status sample_batch(struct sample *run, int64_t first, int64_t count);
/* After the last batch, which ended with `status`; passes that on, or a failure of its own. */
enum ditmoe_status sample_close_session(struct sample *run, enum ditmoe_status status);

/* output.c */
/* Writes what is missing of a batch, and the journal. */
enum ditmoe_status sample_write_batch(struct sample *run, int64_t first, int64_t count,
                                      const uint8_t *pixels);
/* index -1 is the grid. */
enum ditmoe_status sample_write_picture(struct sample *run, const char *path, int64_t index,
                                        const uint8_t *pixels, int width, int height);
enum ditmoe_status sample_write_latents(struct sample *run);

/* shards.c */
enum ditmoe_status sample_write_shard(struct sample *run, int64_t first, int64_t count,
                                      const uint8_t *pixels);
/* The npz of all shards, which are all there. */
enum ditmoe_status sample_pack(struct sample *run);
/* DITMOE_OUTPUT unless the disk has room for what is still to be written. */
enum ditmoe_status sample_check_room(const struct sample *run);

/* grid.c */
/* Images of the grid, 0 without one. */
int64_t sample_grid_count(const struct sample *run);
/* DITMOE_USAGE if it would be too large, or its images could not be read again. */
enum ditmoe_status sample_grid_create(struct sample *run);
void sample_grid_add(struct sample *run, int64_t index, const uint8_t *pixels);
enum ditmoe_status sample_write_grid(struct sample *run);

/* finish.c */
/* Ends the run, whose batches ended with `status`. */
enum ditmoe_status sample_finish(struct sample *run, enum ditmoe_status status);

/* metadata.c */
/* The text entries of an image; index -1 is the grid. free(). */
void sample_metadata(const struct sample *run, int64_t index, char **parameters, char **json);
void sample_add_program(cJSON *object);
void sample_add_class(const struct sample *run, cJSON *object, int32_t label);
void sample_add_model(const struct sample *run, cJSON *object);
void sample_add_execution(const struct sample *run, cJSON *object);
/* Everything that decides the bytes of the images, as an object of texts. */
cJSON *sample_identity(const struct sample *run);
/* Options with any of these traits (0: all) that have a value, as text. */
cJSON *sample_options_json(const struct sample *run, unsigned traits);

/* manifest.c */
/* NULL-terminated text of run.json; outcome "running" and so on; free(). */
char *sample_manifest(const struct sample *run, const char *outcome, enum ditmoe_status status);
/* For the list of failures in it. */
void sample_add_failure(struct sample *run, int64_t first, int64_t count, int code,
                        const char *message);
/* The time now, UTC, as "2026-01-31T12:34:56Z". */
void sample_time(char text[32]);

#endif
