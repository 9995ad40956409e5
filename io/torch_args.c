/* The arguments of the program that trained a checkpoint: `args` of a training dictionary, a
 * Namespace or a dictionary. What is a number, a truth value or a text of them becomes an entry of
 * the metadata, as JSON. */
#include "io/checkpoint.h"
#include "io/json.h"
#include "io/torch.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ARGUMENTS = 256, LONGEST = 255 };

static bool copy_name(char out[LONGEST + 1], struct text text) {
  if (text.length > LONGEST || !text_is_printable(text)) return false;
  if (text.length) memcpy(out, text.bytes, text.length);
  out[text.length] = '\0';
  return true;
}

/* Values of other kinds are left out; false: no memory. */
static bool add(cJSON *object, const char *name, struct pickle_value value) {
  char text[LONGEST + 1];
  switch (value.kind) {
  case PICKLE_BOOL:
    return cJSON_AddBoolToObject(object, name, value.integer != 0);
  case PICKLE_INT:
    return cJSON_AddNumberToObject(object, name, (double)value.integer);
  case PICKLE_FLOAT:
    return cJSON_AddNumberToObject(object, name, value.real);
  case PICKLE_STRING:
    return !copy_name(text, value.text) || cJSON_AddStringToObject(object, name, text);
  default:
    return true;
  }
}

static bool add_arguments(cJSON *object, const struct pickle *pickle, struct pickle_value args) {
  int count = 0;
  for (int32_t cell = pickle->nodes[args.node].first; cell != PICKLE_NIL && count < MOST_ARGUMENTS;
       count++) {
    const struct pickle_cell *key = &pickle->cells[cell], *value = &pickle->cells[key->next];
    char name[LONGEST + 1];
    cell = value->next;
    if (key->value.kind != PICKLE_STRING || !copy_name(name, key->value.text) ||
        cJSON_GetObjectItemCaseSensitive(object, name))
      continue;
    if (!add(object, name, value->value)) return false;
  }
  return true;
}

enum ditmoe_status torch_args_read(struct source *source, const struct pickle *pickle,
                                   struct pickle_value root) {
  const struct pickle_value args = pickle_get(pickle, root, "args");
  if (args.kind != PICKLE_DICT && args.kind != PICKLE_RECORD) return DITMOE_OK;
  cJSON *object = cJSON_CreateObject();
  const bool complete = object && add_arguments(object, pickle, args);
  const bool none = complete && !object->child;
  char *text = complete && !none ? cJSON_PrintUnformatted(object) : NULL;
  cJSON_Delete(object);
  if (none) return DITMOE_OK;
  if (!text) return fail(source->ctx, DITMOE_NOMEM, "%s: no memory for its args", source->path);
  enum ditmoe_status status = source_add_metadata(source, text_of(CHECKPOINT_ARGS), text_of(text));
  cJSON_free(text);
  return status;
}
