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

/* NULL: of another kind, or no memory. */
static cJSON *scalar(struct pickle_value value) {
  char text[LONGEST + 1];
  switch (value.kind) {
  case PICKLE_BOOL:
    return cJSON_CreateBool(value.integer != 0);
  case PICKLE_INT:
    return cJSON_CreateNumber((double)value.integer);
  case PICKLE_FLOAT:
    return cJSON_CreateNumber(value.real);
  case PICKLE_STRING:
    return copy_name(text, value.text) ? cJSON_CreateString(text) : NULL;
  default:
    return NULL;
  }
}

static void add_arguments(cJSON *object, const struct pickle *pickle, struct pickle_value args) {
  int count = 0;
  for (int32_t cell = pickle->nodes[args.node].first; cell != PICKLE_NIL && count < MOST_ARGUMENTS;
       count++) {
    const struct pickle_cell *key = &pickle->cells[cell], *value = &pickle->cells[key->next];
    char name[LONGEST + 1];
    cell = value->next;
    if (key->value.kind != PICKLE_STRING || !copy_name(name, key->value.text) ||
        cJSON_HasObjectItem(object, name))
      continue;
    cJSON *item = scalar(value->value);
    if (item && !cJSON_AddItemToObject(object, name, item)) cJSON_Delete(item);
  }
}

enum ditmoe_status torch_args_read(struct source *source, const struct pickle *pickle,
                                   struct pickle_value root) {
  const struct pickle_value args = pickle_get(pickle, root, "args");
  if (args.kind != PICKLE_DICT && args.kind != PICKLE_RECORD) return DITMOE_OK;
  cJSON *object = cJSON_CreateObject();
  if (object) add_arguments(object, pickle, args);
  char *text = object && object->child ? cJSON_PrintUnformatted(object) : NULL;
  cJSON_Delete(object);
  if (!text) return DITMOE_OK;
  static const char key[] = CHECKPOINT_ARGS;
  const struct text name = {(const uint8_t *)key, strlen(key)};
  enum ditmoe_status status =
      source_add_metadata(source, name, (struct text){(const uint8_t *)text, strlen(text)});
  cJSON_free(text);
  return status;
}
