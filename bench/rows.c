#include "bench/rows.h"

#include "cli/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

void rows_begin(struct rows *rows) { rows->list = cJSON_CreateArray(); }

void rows_free(struct rows *rows) { cJSON_Delete(rows->list); }

/* Making rows. */

/* "model name" of the first processor. */
static const char *processor(void) {
  static char name[128];
  char line[256];
  FILE *file = name[0] ? NULL : fopen("/proc/cpuinfo", "r");
  while (file && !name[0] && fgets(line, sizeof line, file)) {
    const char *value = strstr(line, ": ");
    if (strncmp(line, "model name", 10) == 0 && value)
      snprintf(name, sizeof name, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
  }
  if (file) fclose(file);
  if (!name[0]) strcpy(name, "unknown");
  return name;
}

void row_number(cJSON *row, const char *name, double value, int digits) {
  char *text = text_format("%.*g", digits, value);
  cJSON_AddRawToObject(row, name, isfinite(value) ? text : "null");
  free(text);
}

static void add_rate(cJSON *row, const char *name, double amount, double seconds) {
  if (amount > 0 && seconds > 0)
    row_number(row, name, amount / seconds, 5);
  else
    cJSON_AddNullToObject(row, name);
}

cJSON *rows_add(struct rows *rows, const struct row *row) {
  cJSON *object = cJSON_CreateObject();
  const struct exec *ex = row->ex;
  cJSON_AddItemToArray(rows->list, object);
  cJSON_AddStringToObject(object, "what", row->what);
  cJSON_AddStringToObject(object, "shape", row->shape);
  cJSON_AddStringToObject(object, "backend", ex->device->ops->name);
  cJSON_AddStringToObject(object, "dtype", ex->compute == DT_BF16 ? "bf16" : "f32");
  cJSON_AddStringToObject(object, "tier", ex->device->tier);
  cJSON_AddNumberToObject(object, "threads", ex->device->threads);
  cJSON_AddNumberToObject(object, "batch", row->batch);
  cJSON_AddNumberToObject(object, "reps", row->reps);
  row_number(object, "ms_min", 1e3 * row->time.min, 6);
  row_number(object, "ms_median", 1e3 * row->time.median, 6);
  row_number(object, "spread", row->time.relative_range, 3);
  add_rate(object, "gflops", row->flop / 1e9, row->time.min);
  add_rate(object, "gb_per_s", row->bytes / 1e9, row->time.min);
  add_rate(object, "share_of_peak", row->peak > 0 ? row->flop / row->peak : 0, row->time.min);
  add_rate(object, "peak_gflops", row->peak / 1e9, 1);
  cJSON_AddStringToObject(object, "commit", DITMOE_COMMIT);
  cJSON_AddStringToObject(object, "compiler", COMPILER);
  cJSON_AddStringToObject(object, "cpu", processor());
  cJSON_AddStringToObject(object, "version", DITMOE_VERSION);
  return object;
}

/* Printing them. */

struct column {
  const char *heading, *key;
  double scale; /* of numbers; 0: text */
  int decimals;
};

#define WHERE                                                                                      \
  {"what", "what", 0, 0}, {"shape", "shape", 0, 0}, {"backend", "backend", 0, 0},                  \
      {"dtype", "dtype", 0, 0}, {"tier", "tier", 0, 0}, {"threads", "threads", 1, 0}, {            \
    "batch", "batch", 1, 0                                                                         \
  }
#define TIMES                                                                                      \
  {"ms min", "ms_min", 1, 3}, {"median", "ms_median", 1, 3}, { "spread %", "spread", 100, 1 }

/* A kind of row is known by a member that only it has. */
static const struct table {
  const char *mark;
  struct column columns[20];
} tables[] = {
    {"operation",
     {WHERE,
      {"operation", "operation", 0, 0},
      {"calls", "calls", 1, 0},
      TIMES,
      {"% of all", "share_of_whole", 100, 1},
      {"GFLOP/s", "gflops", 1, 1}}},
    {"file_bytes",
     {WHERE,
      {"ms", "ms_min", 1, 1},
      {"GB/s", "gb_per_s", 1, 2},
      {"file MB", "file_bytes", 1e-6, 1},
      {"peak RSS MB", "peak_rss_bytes", 1e-6, 1}}},
    {"what",
     {WHERE,
      {"reps", "reps", 1, 0},
      TIMES,
      {"GFLOP/s", "gflops", 1, 1},
      {"GB/s", "gb_per_s", 1, 2},
      {"% of peak", "share_of_peak", 100, 1}}},
};

static const struct column origin[] = {{"commit", "commit", 0, 0},
                                       {"compiler", "compiler", 0, 0},
                                       {"cpu", "cpu", 0, 0},
                                       {"version", "version", 0, 0}};
enum { ORIGINS = sizeof origin / sizeof *origin };

static const struct table *table_of(const cJSON *row) {
  const struct table *table = tables;
  while (!cJSON_HasObjectItem(row, table->mark)) table++;
  return table;
}

/* free() */
static char *cell(const cJSON *row, const struct column *column) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(row, column->key);
  if (!item || cJSON_IsNull(item)) return text_copy("-");
  if (cJSON_IsString(item)) return text_copy(item->valuestring);
  double value = cJSON_IsRaw(item) ? strtod(item->valuestring, NULL) : item->valuedouble;
  return text_format("%.*f", column->decimals, value * column->scale);
}

static void print_text_line(const struct table *table, const int *widths, const cJSON *row,
                            FILE *out) {
  for (int i = 0; table->columns[i].key; i++) {
    const struct column *column = &table->columns[i];
    char *text = row ? cell(row, column) : text_copy(column->heading);
    bool last = !column[1].key, number = column->scale > 0;
    fprintf(out, "%*s%s", number ? widths[i] : last ? 0 : -widths[i], text, last ? "\n" : "  ");
    free(text);
  }
}

static void print_text(const struct table *table, const cJSON *first, const cJSON *end, FILE *out) {
  int widths[20] = {0};
  for (int i = 0; table->columns[i].key; i++) {
    widths[i] = (int)strlen(table->columns[i].heading);
    for (const cJSON *row = first; row != end; row = row->next) {
      char *text = cell(row, &table->columns[i]);
      if ((int)strlen(text) > widths[i]) widths[i] = (int)strlen(text);
      free(text);
    }
  }
  print_text_line(table, widths, NULL, out);
  for (const cJSON *row = first; row != end; row = row->next)
    print_text_line(table, widths, row, out);
  for (int i = 0; i < ORIGINS; i++) {
    char *text = cell(first, &origin[i]);
    fprintf(out, "%s%s %s", i ? ", " : "", origin[i].heading, text);
    free(text);
  }
  fputs("\n", out);
}

static void print_md_line(const struct table *table, const cJSON *row, FILE *out) {
  int columns = 0;
  while (table->columns[columns].key) columns++;
  for (int i = 0; i < columns + ORIGINS; i++) {
    const struct column *column = i < columns ? &table->columns[i] : &origin[i - columns];
    char *text = row ? cell(row, column) : text_copy(column->heading);
    fprintf(out, "| %s ", text);
    free(text);
  }
  fputs("|\n", out);
  for (int i = 0; i < columns + ORIGINS && !row; i++)
    fputs(i < columns && table->columns[i].scale > 0 ? "|--:" : "|---", out);
  if (!row) fputs("|\n", out);
}

static void print_md(const struct table *table, const cJSON *first, const cJSON *end, FILE *out) {
  print_md_line(table, NULL, out);
  for (const cJSON *row = first; row != end; row = row->next) print_md_line(table, row, out);
}

static void print_jsonl(const cJSON *row, FILE *out) {
  char *text = cJSON_PrintUnformatted(row);
  if (text) fprintf(out, "%s\n", text);
  cJSON_free(text);
}

/* The row after those that share a table with `row`: a profile has one of its own, which ends with
 * the whole. */
static const cJSON *table_end(const cJSON *row) {
  const struct table *table = table_of(row);
  const cJSON *operation = NULL;
  do {
    operation = cJSON_GetObjectItemCaseSensitive(row, "operation");
    row = row->next;
  } while (row && table_of(row) == table &&
           !(operation && strcmp(operation->valuestring, PROFILE_WHOLE) == 0));
  return row;
}

void rows_print(const struct rows *rows, const char *format, FILE *out) {
  for (const cJSON *row = rows->list ? rows->list->child : NULL, *end; row; row = end) {
    const struct table *table = table_of(row);
    end = table_end(row);
    if (row != rows->list->child && strcmp(format, "jsonl") != 0) fputs("\n", out);
    if (strcmp(format, "text") == 0) print_text(table, row, end, out);
    if (strcmp(format, "md") == 0) print_md(table, row, end, out);
    for (; strcmp(format, "jsonl") == 0 && row != end; row = row->next) print_jsonl(row, out);
  }
}
