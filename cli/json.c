/* JSON of the programs. */
#include "cli/json.h"

#include "cli/report.h"
#include "cli/text.h"
#include "cli/text_file.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_BYTES = 1 << 20 };

enum ditmoe_status json_file_read(const char *what, const char *path, cJSON **object) {
  char *text;
  const char *end;
  int line = 1;
  TRY(text_file_read(what, path, MAX_BYTES, &text));
  *object = cJSON_ParseWithOpts(text, &end, true);
  for (const char *c = text; c < end; c++) line += *c == '\n';
  free(text);
  if (cJSON_IsObject(*object)) return DITMOE_OK;
  const bool other = *object != NULL;
  cJSON_Delete(*object);
  return other ? report_error(DITMOE_FORMAT, "%s %s: not a JSON object", what, path)
               : report_error(DITMOE_FORMAT, "%s %s: line %d: not a JSON object", what, path, line);
}

enum ditmoe_status json_file_text(const char *what, const char *path, char **text) {
  cJSON *object;
  *text = NULL;
  if (!path) return DITMOE_OK;
  TRY(json_file_read(what, path, &object));
  *text = json_text(object, false);
  cJSON_Delete(object);
  return DITMOE_OK;
}

char *json_text(const cJSON *json, bool pretty) {
  char *printed = pretty ? cJSON_Print(json) : cJSON_PrintUnformatted(json);
  if (!printed) exit((int)report_error(DITMOE_NOMEM, "not enough memory"));
  char *text = text_utf8(printed);
  cJSON_free(printed);
  return text;
}

char *json_value_text(const cJSON *item) {
  return cJSON_IsString(item) ? text_copy(item->valuestring) : json_text(item, false);
}

void json_put(const cJSON *json) {
  char *text = json_text(json, true);
  puts(text);
  free(text);
}

void json_add_whole(cJSON *object, const char *name, uint64_t value) {
  char *text = text_format("%llu", (unsigned long long)value);
  cJSON_AddRawToObject(object, name, text);
  free(text);
}
