/* Progress on standard error. */
#include "cli/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const double BAR_INTERVAL = 0.1, LINE_INTERVAL = 60; /* seconds */

double clock_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool has_bar(void) {
  const char *term = getenv("TERM"), *ci = getenv("CI");
  return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0 && !(ci && *ci);
}

void progress_start(struct progress *progress, const char *mode, bool quiet, bool color,
                    int64_t images) {
  static const char *const names[] = {"bar", "line", "json", "none"};
  *progress = (struct progress){.mode = quiet       ? PROGRESS_NONE
                                        : has_bar() ? PROGRESS_BAR
                                                    : PROGRESS_LINE,
                                .color = color,
                                .images = images,
                                .started = clock_seconds()};
  progress->shown = progress->started;
  for (int i = 0; i <= PROGRESS_NONE; i++)
    if (strcmp(mode, names[i]) == 0) progress->mode = (enum progress_mode)i;
}

void progress_skip(struct progress *progress, int64_t there) {
  progress->there = there;
  progress->decile = progress->images ? (int)(10 * there / progress->images) : 0;
}

/* What every form shows. */
struct state {
  int64_t done;
  int step, steps;
  double fraction, elapsed; /* of the run; seconds of this process      */
  double rate, left;        /* images per second, seconds to the end    */
};

enum { DURATION = 24, STEPS = 48 };

/* "7 s", "12:34", "3:04:05" */
static const char *duration(char text[DURATION], double seconds) {
  long long whole = seconds < 1e9 ? (long long)(seconds + 0.5) : 1000000000;
  int s = (int)(whole % 60), m = (int)(whole / 60 % 60);
  if (whole < 60) snprintf(text, DURATION, "%d s", s);
  if (whole >= 60) snprintf(text, DURATION, "%d:%02d", m, s);
  if (whole >= 3600) snprintf(text, DURATION, "%lld:%02d:%02d", whole / 3600, m, s);
  return text;
}

/* Three digits, for 0.0123 images as for 1230. */
static const char *rate(char text[DURATION], double value) {
  snprintf(text, DURATION, "%.*f", value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3, value);
  return text;
}

/* ", step 3/50", nothing without steps. */
static const char *steps_text(char text[STEPS], const struct state *state, const char *between) {
  text[0] = 0;
  if (state->steps) snprintf(text, STEPS, ", step %d%s%d", state->step, between, state->steps);
  return text;
}

static void draw_bar(struct progress *progress, const struct state *state) {
  struct winsize window = {0};
  char text[256], bar[96], step[STEPS], left[DURATION], speed[DURATION];
  int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col ? window.ws_col : 80;
  int cells = width - 70 < 0 ? 0 : width - 70 > 40 ? 40 : width - 70;
  int full = (int)(state->fraction * cells);
  snprintf(bar, sizeof bar, "%.*s%.*s", full, "########################################",
           cells - full, "........................................");
  snprintf(text, sizeof text, "%3.0f%% %s%s%lld/%lld images%s, %s images/s, %s left",
           100 * state->fraction, bar, cells ? " " : "", (long long)state->done,
           (long long)progress->images, steps_text(step, state, "/"), rate(speed, state->rate),
           duration(left, state->left));
  int length = (int)strlen(text);
  if (length >= width) length = width - 1;
  fprintf(stderr, "\r%s%.*s%s%*s", progress->color ? "\033[36m" : "", length, text,
          progress->color ? "\033[0m" : "", progress->drawn > length ? progress->drawn - length : 0,
          "");
  fflush(stderr);
  progress->drawn = length;
}

static void print_line(struct progress *progress, const struct state *state) {
  char step[STEPS], left[DURATION], speed[DURATION];
  fprintf(stderr, "%3.0f%%: %lld of %lld images%s, %.1f s, %s images/s, about %s left\n",
          100 * state->fraction, (long long)state->done, (long long)progress->images,
          steps_text(step, state, " of "), state->elapsed, rate(speed, state->rate),
          duration(left, state->left));
}

static void print_json(const struct progress *progress, const struct state *state) {
  fprintf(stderr,
          "{\"event\": \"progress\", \"fraction\": %.4f, \"images\": %lld, \"of\": %lld, "
          "\"step\": %d, \"steps\": %d, \"seconds\": %.3f, \"images_per_second\": %.4g, "
          "\"seconds_left\": %.1f}\n",
          state->fraction, (long long)state->done, (long long)progress->images, state->step,
          state->steps, state->elapsed, state->rate, state->left);
}

static bool is_due(const struct progress *progress, const struct state *state, double now) {
  double since = now - progress->shown;
  int decile = (int)(10 * state->fraction + 1e-9);
  switch (progress->mode) {
  case PROGRESS_BAR:
    return since >= BAR_INTERVAL || state->fraction >= 1;
  case PROGRESS_LINE:
    return since >= LINE_INTERVAL || decile > progress->decile;
  case PROGRESS_JSON:
    return true;
  case PROGRESS_NONE:
    break;
  }
  return false;
}

void progress_step(struct progress *progress, int64_t done, double part, int step, int steps) {
  double now = clock_seconds(), all = (double)progress->images;
  double new_images = (double)(done - progress->there) + part;
  struct state state = {.done = done, .step = step, .steps = steps};
  state.fraction = ((double)done + part) / all;
  state.elapsed = now - progress->started;
  state.rate = state.elapsed > 0 ? new_images / state.elapsed : 0;
  state.left = state.rate > 0 ? (all - (double)done - part) / state.rate : 0;
  if (!is_due(progress, &state, now)) return;
  progress->decile = (int)(10 * state.fraction + 1e-9);
  progress->shown = now;
  if (progress->mode == PROGRESS_BAR) draw_bar(progress, &state);
  if (progress->mode == PROGRESS_LINE) print_line(progress, &state);
  if (progress->mode == PROGRESS_JSON) print_json(progress, &state);
}

void progress_finish(struct progress *progress) {
  if (progress->mode == PROGRESS_BAR && progress->drawn)
    fprintf(stderr, "\r%*s\r", progress->drawn, "");
  progress->drawn = 0;
}
