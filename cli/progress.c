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

/* What every form shows. */
struct state {
  int64_t done;
  int step, steps;
  double fraction, elapsed, left; /* seconds */
};

static void draw_bar(struct progress *progress, const struct state *state) {
  struct winsize window = {0};
  char text[192], bar[96];
  int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col ? window.ws_col : 80;
  int cells = width - 62 < 0 ? 0 : width - 62 > 40 ? 40 : width - 62;
  int full = (int)(state->fraction * cells);
  snprintf(bar, sizeof bar, "%.*s%.*s", full, "########################################",
           cells - full, "........................................");
  snprintf(text, sizeof text, "%3.0f%% %s%s%lld/%lld images, step %d/%d, %.0f s, %.0f s left",
           100 * state->fraction, bar, cells ? " " : "", (long long)state->done,
           (long long)progress->images, state->step, state->steps, state->elapsed, state->left);
  int length = (int)strlen(text);
  if (length >= width) length = width - 1;
  fprintf(stderr, "\r%s%.*s%s%*s", progress->color ? "\033[36m" : "", length, text,
          progress->color ? "\033[0m" : "", progress->drawn > length ? progress->drawn - length : 0,
          "");
  fflush(stderr);
  progress->drawn = length;
}

static void print_line(struct progress *progress, const struct state *state) {
  fprintf(stderr, "%3.0f%%: %lld of %lld images, step %d of %d, %.1f s, about %.0f s left\n",
          100 * state->fraction, (long long)state->done, (long long)progress->images, state->step,
          state->steps, state->elapsed, state->left);
}

static void print_json(const struct progress *progress, const struct state *state) {
  fprintf(stderr,
          "{\"event\": \"progress\", \"fraction\": %.4f, \"images\": %lld, \"of\": %lld, "
          "\"step\": %d, \"steps\": %d, \"seconds\": %.3f}\n",
          state->fraction, (long long)state->done, (long long)progress->images, state->step,
          state->steps, state->elapsed);
}

void progress_step(struct progress *progress, int64_t done, double part, int step, int steps) {
  double now = clock_seconds();
  struct state state = {.done = done, .step = step, .steps = steps};
  state.fraction = ((double)done + part) / (double)progress->images;
  state.elapsed = now - progress->started;
  state.left = state.fraction > 0 ? state.elapsed * (1 - state.fraction) / state.fraction : 0;
  int decile = (int)(10 * state.fraction + 1e-9);
  bool due = decile > progress->decile || now - progress->shown >= LINE_INTERVAL;
  if (progress->mode == PROGRESS_NONE) return;
  if (progress->mode == PROGRESS_BAR && now - progress->shown < BAR_INTERVAL && state.fraction < 1)
    return;
  if (progress->mode == PROGRESS_LINE && !due) return;
  progress->decile = decile;
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
