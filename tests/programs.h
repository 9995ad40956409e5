/* Running the programs: a command line in, exit code and both streams out. */
#ifndef TESTS_PROGRAMS_H
#define TESTS_PROGRAMS_H

#include "tests/support.h"

struct outcome {
  int code;        /* exit code, or 128 + signal         */
  char *out, *err; /* whole text; valid until the next run */
};

/* Runs a shell command line in the temporary folder; "@sample", "@info", "@convert", "@eval",
 * "@heatmap" and "@bench" in it stand for the programs, "@fixtures/" and "@source/" for the folders
 * of the data.
 */
struct outcome run(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, but sends `signal_number` after `milliseconds`, and once more `again` milliseconds
 * later unless 0. */
struct outcome run_and_signal(int signal_number, int milliseconds, int again, const char *format,
                              ...) __attribute__((format(printf, 4, 5)));

/* Ranks at the same time: each runs `command`, "$r" in which is the rank; then `then`, in which $p
 * are the processes. The largest exit code. */
struct outcome run_ranks(int ranks, const char *then, const char *command);

/* "<command>--resume ... <output>" of ditmoe-sample is killed five times, with other batches and
 * threads each time, and then ends. */
void kill_and_resume(int ranks, const char *command, const char *output);

/* The command ends with 0. */
void assert_shell(const char *command);
/* The run ended with `code`; standard error has `text`, exactly one line of an error if there was
 * one, and nothing that drives a terminal. */
#define assert_exit(outcome, code, text) assert_exit_(outcome, code, text, __FILE__, __LINE__)
void assert_exit_(struct outcome outcome, int code, const char *text, const char *file, int line);

#endif
