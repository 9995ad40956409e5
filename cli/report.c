/* What the programs say. */
#include "cli/report.h"

#include "cli/text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
  const char *program;
  enum report_level level;
  bool color;
  char last_error[1024];
} report = {.program = "ditmoe", .level = REPORT_NORMAL};

void report_start(const char *program) {
  report.program = program;
  for (int fd = 0; fd <= 2; fd++) /* open returns the lowest free number */
    if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) != fd)
      _exit(1);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

static bool terminal_has_color(void) {
  const char *none = getenv("NO_COLOR"), *term = getenv("TERM");
  return isatty(STDERR_FILENO) && !(none && *none) && term && strcmp(term, "dumb") != 0;
}

void report_style(enum report_level level, const char *color) {
  report.level = level;
  report.color =
      strcmp(color, "always") == 0 || (strcmp(color, "auto") == 0 && terminal_has_color());
}

bool report_uses_color(void) { return report.color; }

static void print_line(const char *kind, const char *color, const char *format, va_list arguments) {
  char line[1024], shown[2 * sizeof line];
  vsnprintf(line, sizeof line, format, arguments);
  text_show(shown, sizeof shown, line);
  fprintf(stderr, "%s: %s%s%s%s\n", report.program, report.color ? color : "", kind,
          report.color && *kind ? "\033[0m" : "", text_sanitize(shown));
}

enum ditmoe_status report_error(enum ditmoe_status status, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  vsnprintf(report.last_error, sizeof report.last_error, format, again);
  va_end(again);
  print_line("error: ", "\033[1;31m", format, arguments);
  va_end(arguments);
  return status;
}

void report_warning(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print_line("warning: ", "\033[1;33m", format, arguments);
  va_end(arguments);
}

void report_note(const char *format, ...) {
  if (report.level == REPORT_QUIET) return;
  va_list arguments;
  va_start(arguments, format);
  print_line("", "", format, arguments);
  va_end(arguments);
}

void report_detail(const char *format, ...) {
  if (report.level != REPORT_VERBOSE) return;
  va_list arguments;
  va_start(arguments, format);
  print_line("", "", format, arguments);
  va_end(arguments);
}

enum ditmoe_status report_call(const struct ditmoe_ctx *ctx, enum ditmoe_status status) {
  return status == DITMOE_OK ? status : report_error(status, "%s", ditmoe_errmsg(ctx));
}

void report_result(const char *line) {
  char *copy = text_copy(line);
  puts(text_sanitize(copy));
  free(copy);
}

void report_file(const char *path) {
  if (isatty(STDOUT_FILENO))
    report_result(path);
  else
    puts(path);
}

enum ditmoe_status report_finish(enum ditmoe_status status) {
  bool lost = fflush(stdout) != 0 || ferror(stdout);
  if (lost && status == DITMOE_OK)
    return report_error(DITMOE_OUTPUT, "standard output: %s", strerror(errno));
  return status;
}

static void warn_line(void *user, const char *line) {
  (void)user;
  report_warning("%s", line);
}

struct ditmoe_ctx *report_context(void) {
  struct ditmoe_hooks hooks = {.warn = warn_line};
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(&hooks);
  if (!ctx) report_error(DITMOE_NOMEM, "not enough memory");
  return ctx;
}

const char *report_last_error(void) { return report.last_error; }
