/* What the programs say: everything but results goes to standard error, one line each. */
#ifndef CLI_REPORT_H
#define CLI_REPORT_H

#include "base/try.h"

#include <stdbool.h>

enum report_level { REPORT_QUIET, REPORT_NORMAL, REPORT_VERBOSE };

/* Names the program in every line. Also opens /dev/null for standard streams that are closed, so
 * that no output file takes their place, and turns SIGPIPE and SIGXFSZ into write errors. */
void report_start(const char *program);
/* color: "auto", "always" or "never"; auto follows the terminal, NO_COLOR and TERM. */
void report_style(enum report_level level, const char *color);
bool report_uses_color(void);

/* Prints the error and returns `status`: return report_error(DITMOE_USAGE, "..."). */
enum ditmoe_status report_error(enum ditmoe_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void report_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Left out with -q. */
void report_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Only with -v. */
void report_detail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Passes the status of a library call through, printing its message if it failed. */
enum ditmoe_status report_call(const struct ditmoe_ctx *ctx, enum ditmoe_status status);

/* A line of results on standard output, control characters replaced. */
void report_result(const char *line);
/* The name of a file that was written: as it is, unless a terminal reads it. */
void report_file(const char *path);
/* Flushes standard output: DITMOE_OUTPUT if any of it was lost. */
enum ditmoe_status report_finish(enum ditmoe_status status);

/* A context whose warnings are printed like ours. NULL, with a message, on no memory. */
struct ditmoe_ctx *report_context(void);

/* Text of the last error reported, for the manifest; "" if there was none. */
const char *report_last_error(void);

#endif
