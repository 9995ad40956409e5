/* Which images of a run are there: two bits for each. Images come in pieces, the files of a run; a
 * piece holds one image or the images of a batch. */
#ifndef CLI_SAMPLE_MADE_H
#define CLI_SAMPLE_MADE_H

#include <stdbool.h>
#include <stdint.h>

struct made {
  int64_t first, count;     /* the images of the run                         */
  uint8_t *images, *starts; /* it is there; it is the first one of its piece */
};

void made_create(struct made *made, int64_t first, int64_t count);
void made_free(struct made *made);
void made_clear(struct made *made);

/* Adds a piece; one that is not of this run, or has an image that is there already, is left out. */
void made_add(struct made *made, int64_t first, int64_t count);
/* Adds a piece in the place of all that it overlaps. */
void made_replace(struct made *made, int64_t first, int64_t count);
/* Takes [first, end) out again, whole pieces. */
void made_remove(struct made *made, int64_t first, int64_t end);
bool made_has(const struct made *made, int64_t index);
/* The first image in [from, to) that is there, or is not; `to` if there is none. */
int64_t made_find(const struct made *made, int64_t from, int64_t to, bool there);
/* Images in [from, to) that are there. */
int64_t made_count(const struct made *made, int64_t from, int64_t to);
/* The end of the piece that begins with image `first`, which is there. */
int64_t made_piece_end(const struct made *made, int64_t first);

#endif
