/* An index.json of safetensors shards: {"weight_map": {TENSOR: FILE, ...}}. A shard is a plain file
 * name in the folder of the index. */
#include "io/formats.h"
#include "io/json.h"

#include <string.h>

enum { MAX_SHARDS = 1000 };

struct shard {
  const char *name;
  struct span file;
};

struct shards {
  struct shard *items;
  size_t count;
};

static bool is_plain_name(const char *name) {
  return *name && !strchr(name, '/') && !strchr(name, '\\') && strcmp(name, ".") != 0 &&
         strcmp(name, "..") != 0;
}

static struct shard *find_shard(const struct shards *shards, const char *name) {
  for (size_t i = shards->count; i-- > 0;)
    if (strcmp(shards->items[i].name, name) == 0) return &shards->items[i];
  return NULL;
}

/* Adds all tensors of the file `name` beside the index. */
static enum ditmoe_status read_shard(const struct source *index, struct shard *shard) {
  struct source source = *index;
  const struct format *format;
  const char *slash = strrchr(index->path, '/');
  size_t folder = slash ? (size_t)(slash - index->path) + 1 : 0;
  size_t size = folder + strlen(shard->name) + 1;
  char *path;
  TRY(mem_alloc(index->ctx, size, 1, "a file name", &path));
  snprintf(path, size, "%.*s%s", (int)folder, index->path, shard->name);
  enum ditmoe_status status = source_map(&source, path);
  if (status == DITMOE_OK) status = source_sniff(&source, &format);
  if (status == DITMOE_OK && format != &safetensors_format)
    status = fail(index->ctx, DITMOE_FORMAT, "%s: a shard must be a safetensors file", path);
  if (status == DITMOE_OK) status = format->read(&source);
  shard->file = source.file;
  mem_free(index->ctx, path);
  return status;
}

static enum ditmoe_status read_shards(const struct source *index, const cJSON *map,
                                      struct shards *shards) {
  for (const cJSON *item = map->child; item; item = item->next) {
    if (!cJSON_IsString(item) || !is_plain_name(item->valuestring))
      return fail(index->ctx, DITMOE_FORMAT,
                  "%s: tensor %.200s: its shard is not a plain file name in this folder",
                  index->path, item->string);
    if (find_shard(shards, item->valuestring)) continue;
    if (shards->count == MAX_SHARDS)
      return fail(index->ctx, DITMOE_FORMAT, "%s: more than %d shards", index->path, MAX_SHARDS);
    TRY(mem_room(index->ctx, shards->count, sizeof *shards->items, "the shards", &shards->items));
    struct shard *shard = &shards->items[shards->count++];
    *shard = (struct shard){.name = item->valuestring};
    size_t metadata_count = index->checkpoint->metadata_count;
    TRY(read_shard(index, shard));
    if (shards->count > 1) index->checkpoint->metadata_count = metadata_count; /* repetitions */
  }
  return DITMOE_OK;
}

static enum ditmoe_status check_map(const struct source *index, const cJSON *map,
                                    const struct shards *shards) {
  for (const cJSON *item = map->child; item; item = item->next) {
    const struct shard *shard = find_shard(shards, item->valuestring);
    const struct tensor *tensor = checkpoint_find(index->checkpoint, item->string);
    const uint8_t *data = tensor ? tensor->data : NULL;
    if (!data || data < shard->file.data || data > shard->file.data + shard->file.size)
      return fail(index->ctx, DITMOE_FORMAT, "%s: tensor %.200s is not in its shard %.200s",
                  index->path, item->string, shard->name);
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_index(struct source *source) {
  struct shards shards = {0};
  enum ditmoe_status status;
  cJSON *tree;
  TRY(json_parse(source->ctx, source->path, (const char *)source->file.data, source->file.size,
                 &tree));
  const cJSON *map = cJSON_GetObjectItemCaseSensitive(tree, "weight_map");
  if (!cJSON_IsObject(map))
    status = fail(source->ctx, DITMOE_FORMAT,
                  "%s: JSON without a weight_map, so no index of shards; name the weights file",
                  source->path);
  else
    status = read_shards(source, map, &shards);
  if (status == DITMOE_OK) status = source_sort(source);
  if (status == DITMOE_OK) status = check_map(source, map, &shards);
  mem_free(source->ctx, shards.items);
  cJSON_Delete(tree);
  return status;
}

static bool match_json(struct span file) {
  size_t at = 0;
  while (at < file.size && memchr(" \t\r\n", file.data[at], 4)) at++;
  if (at == file.size || file.data[at] != '{') return false;
  /* A safetensors header of 123 bytes begins with '{', too, but then with zeros. */
  for (size_t i = 0; i < file.size && i < 8; i++)
    if (file.data[i] < ' ' && !memchr("\t\r\n", file.data[i], 3)) return false;
  return true;
}

const struct format sharded_format = {"safetensors-sharded", match_json, read_index};
