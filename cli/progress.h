/* Progress on standard error: a bar on a terminal, a line for each 10% or minute in a log. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

enum progress_mode { PROGRESS_BAR, PROGRESS_LINE, PROGRESS_JSON, PROGRESS_NONE };

struct progress {
  enum progress_mode mode;
  bool color;
  int64_t images, there; /* of the whole run; of them before it began */
  double started, shown; /* seconds of a monotonic clock */
  int decile;            /* last tenth that got a line   */
  int drawn;             /* characters of the bar        */
};

double clock_seconds(void);

/* mode: "auto", "bar", "line", "json" or "none". auto is none when quiet, a bar on a terminal, and
 * lines elsewhere, on a dumb terminal and where the variable CI is set. */
void progress_start(struct progress *progress, const char *mode, bool quiet, bool color,
                    int64_t images);
/* `there` of them need not be made: they say nothing about the speed. */
void progress_skip(struct progress *progress, int64_t there);
/* `done` images are finished, with those that were there, and `part` images' worth of work of the
 * next ones; step of steps,
 * 0 of 0 where there are none. */
void progress_step(struct progress *progress, int64_t done, double part, int step, int steps);
/* Clears the bar. */
void progress_finish(struct progress *progress);

#endif
