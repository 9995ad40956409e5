/* Running the programs. */
#include "tests/programs.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void append(char **text, const char *more, size_t length) {
  size_t used = *text ? strlen(*text) : 0;
  *text = realloc(*text, used + length + 1);
  assert_non_null(*text);
  memcpy(*text + used, more, length);
  (*text)[used + length] = 0;
}

static char *absolute(const char *path) {
  char *full = realpath(path, NULL);
  if (!full) fail_msg("%s: not found", path);
  return full;
}

/* "@name" and what it stands for; free(). */
static char *expansion(const char *word, size_t length) {
  static const char *const programs[] = {"sample", "info", "convert", "eval", "heatmap", "bench"};
  for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++)
    if (strlen(programs[i]) == length && strncmp(word, programs[i], length) == 0) {
      char name[64];
      snprintf(name, sizeof name, "ditmoe-%s", programs[i]);
      return absolute(program_path(name));
    }
  if (length == 8 && strncmp(word, "fixtures", 8) == 0) return absolute(fixture_path(""));
  if (length == 6 && strncmp(word, "source", 6) == 0) return absolute(source_path(""));
  return NULL;
}

static char *expand(const char *command) {
  char *line = NULL;
  append(&line, "", 0);
  while (*command) {
    size_t length = *command == '@' ? 1 + strspn(command + 1, "abcdefghijklmnopqrstuvwxyz") : 0;
    char *meaning = length ? expansion(command + 1, length - 1) : NULL;
    append(&line, meaning ? meaning : command, meaning ? strlen(meaning) : 1);
    command += meaning ? length : 1;
    free(meaning);
  }
  return line;
}

/* The shell gives way to the program (exec), so that signals reach it. */
static pid_t start(const char *command) {
  char folder[1024], line[8192];
  char *expanded = expand(command);
  snprintf(folder, sizeof folder, "%s", temporary_path(""));
  int length = snprintf(line, sizeof line, "cd '%s' && { %s ; } >.out 2>.err", folder, expanded);
  free(expanded);
  assert_true(length < (int)sizeof line);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", line, (char *)NULL);
    _exit(127);
  }
  return child;
}

static struct outcome finish(pid_t child) {
  static char *out, *err;
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  free(out);
  free(err);
  out = file_bytes(temporary_path(".out"), NULL);
  err = file_bytes(temporary_path(".err"), NULL);
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return (struct outcome){code, out, err};
}

struct outcome run(const char *format, ...) {
  char command[4096];
  va_list arguments;
  va_start(arguments, format);
  assert_true(vsnprintf(command, sizeof command, format, arguments) < (int)sizeof command);
  va_end(arguments);
  return finish(start(command));
}

struct outcome run_and_signal(int signal_number, int milliseconds, int again, const char *format,
                              ...) {
  char command[4096], line[4200];
  va_list arguments;
  va_start(arguments, format);
  assert_true(vsnprintf(command, sizeof command, format, arguments) < (int)sizeof command);
  va_end(arguments);
  snprintf(line, sizeof line, "exec %s", command);
  pid_t child = start(line);
  usleep((useconds_t)milliseconds * 1000);
  kill(child, signal_number);
  if (again) {
    usleep((useconds_t)again * 1000);
    kill(child, signal_number);
  }
  return finish(child);
}

struct outcome run_ranks(int ranks, const char *then, const char *command) {
  return run("p=; for r in $(seq 0 %d); do { RANK=$r WORLD_SIZE=%d; export RANK WORLD_SIZE; "
             "exec %s; } & p=\"$p $!\"; done; %s; c=0; for i in $p; do wait $i; e=$?; "
             "test $c -ge $e || c=$e; done; exit $c",
             ranks - 1, ranks, command, then);
}

static unsigned draw(void) {
  static unsigned state = 12345;
  state = state * 1664525u + 1013904223u;
  return state >> 16;
}

void kill_and_resume(int ranks, const char *command, const char *output) {
  char line[2048], then[64];
  for (int i = 0; i < 5; i++) {
    snprintf(line, sizeof line, "%s--resume -b %u -t %u %s", command, 1 + draw() % 7,
             1 + draw() % 2, output);
    snprintf(then, sizeof then, "sleep 0.%03u; kill -9 $p", 100 + draw() % 300);
    run_ranks(ranks, then, line);
  }
  snprintf(line, sizeof line, "%s--resume -b 4 %s", command, output);
  assert_exit(run_ranks(ranks, ":", line), 0, "");
}

void assert_shell(const char *command) {
  struct outcome outcome = run("%s", command);
  if (outcome.code != 0) fail_msg("%s\n%s%s", command, outcome.out, outcome.err);
}

static int count(const char *text, const char *part) {
  int found = 0;
  while ((text = strstr(text, part))) found++, text++;
  return found;
}

void assert_exit_(struct outcome outcome, int code, const char *text, const char *file, int line) {
  int errors = code == 0 || code >= 128 ? 0 : 1;
  if (outcome.code == code && strstr(outcome.err, text) && !strchr(outcome.err, 27) &&
      count(outcome.err, "error: ") == errors)
    return;
  print_error("exit %d, expected %d and \"%s\"; standard error:\n%s", outcome.code, code, text,
              outcome.err);
  _fail(file, line);
}
