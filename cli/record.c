/* Checkpoint records in files. The library checks the members. */
#include "cli/record.h"

#include "cli/report.h"
#include "cli/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 1 << 20 };

enum ditmoe_status record_read_file(const char *path, cJSON **out) {
  FILE *file = fopen(path, "rb");
  if (!file) return report_error(DITMOE_FORMAT, "--record %s: %s", path, strerror(errno));
  char *text = memory_get(MAX_BYTES + 1, 1);
  size_t size = fread(text, 1, MAX_BYTES + 1, file);
  bool failed = ferror(file);
  fclose(file);
  *out = failed || size > MAX_BYTES ? NULL : cJSON_ParseWithLength(text, size);
  free(text);
  if (failed) return report_error(DITMOE_FORMAT, "--record %s: cannot be read", path);
  if (size > MAX_BYTES) return report_error(DITMOE_FORMAT, "--record %s: larger than 1 MB", path);
  if (cJSON_IsObject(*out)) return DITMOE_OK;
  cJSON_Delete(*out);
  return report_error(DITMOE_FORMAT, "--record %s: not a JSON object", path);
}
