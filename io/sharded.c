/* An index.json of shards, safetensors or PyTorch files: {"weight_map": {TENSOR: FILE, ...}}. A
 * shard is a plain file name in the folder of the index. */
#include "io/formats.h"
#include "io/json.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_SHARDS = 1000 };

struct entry { /* of the map */
  const char *tensor, *shard;
  bool found; /* the tensor, in its shard */
};

struct map { /* sorted by tensors */
  struct entry *entries;
  size_t count;
  const char *shards[MAX_SHARDS];
  size_t shard_count;
};

static bool is_plain_name(const char *name) {
  return *name && !strchr(name, '/') && !strchr(name, '\\') && strcmp(name, ".") != 0 &&
         strcmp(name, "..") != 0;
}

static int compare_entries(const void *a, const void *b) {
  return strcmp(((const struct entry *)a)->tensor, ((const struct entry *)b)->tensor);
}

/* Adds all tensors of the file `name` beside the index. */
static enum ditmoe_status read_shard(const struct source *index, const char *name) {
  struct source source = *index;
  const struct format *format;
  const char *slash = strrchr(index->path, '/');
  size_t folder = slash ? (size_t)(slash - index->path) + 1 : 0;
  size_t size = folder + strlen(name) + 1;
  char *path;
  TRY(mem_alloc(index->ctx, size, 1, "a file name", &path));
  snprintf(path, size, "%.*s%s", (int)folder, index->path, name);
  source.key = NULL;
  enum ditmoe_status status = source_map(&source, path);
  if (status == DITMOE_OK) status = source_sniff(&source, &format);
  if (status == DITMOE_OK && format == &sharded_format)
    status = fail(index->ctx, DITMOE_FORMAT,
                  "%s: a shard must be a safetensors file or one of PyTorch", path);
  if (status == DITMOE_OK && format != &safetensors_format)
    index->checkpoint->format = "pytorch-sharded";
  if (status == DITMOE_OK) status = format->read(&source);
  if (status == DITMOE_OK && index->checkpoint->key)
    status = fail(index->ctx, DITMOE_FORMAT, "%s: a shard must not be a training dictionary (%s)",
                  path, index->checkpoint->key);
  mem_free(index->ctx, path);
  return status;
}

/* Marks the tensors from number `first` on, which are of this shard. */
static void mark(const struct source *index, struct map *map, const char *shard, size_t first) {
  const struct ditmoe_checkpoint *c = index->checkpoint;
  for (size_t i = first; i < c->count && map->count; i++) {
    const struct entry wanted = {.tensor = c->tensors[i].name};
    struct entry *entry =
        bsearch(&wanted, map->entries, map->count, sizeof wanted, compare_entries);
    if (entry && strcmp(entry->shard, shard) == 0) entry->found = true;
  }
}

static bool is_new(const struct map *map, const char *shard) {
  for (size_t i = map->shard_count; i-- > 0;)
    if (strcmp(map->shards[i], shard) == 0) return false;
  return true;
}

static enum ditmoe_status list_entries(const struct source *index, const cJSON *object,
                                       struct map *map) {
  const int size = cJSON_GetArraySize(object);
  TRY(mem_alloc(index->ctx, (size_t)size, sizeof *map->entries, "the shards", &map->entries));
  for (const cJSON *item = object->child; item; item = item->next) {
    if (!cJSON_IsString(item) || !is_plain_name(item->valuestring))
      return fail(index->ctx, DITMOE_FORMAT,
                  "%s: tensor %.200s: its shard is not a plain file name in this folder",
                  index->path, item->string);
    map->entries[map->count++] = (struct entry){item->string, item->valuestring, false};
    if (!is_new(map, item->valuestring)) continue;
    if (map->shard_count == MAX_SHARDS)
      return fail(index->ctx, DITMOE_FORMAT, "%s: more than %d shards", index->path, MAX_SHARDS);
    map->shards[map->shard_count++] = item->valuestring;
  }
  if (map->count) qsort(map->entries, map->count, sizeof *map->entries, compare_entries);
  return DITMOE_OK;
}

static enum ditmoe_status read_map(struct source *index, const cJSON *object, struct map *map) {
  struct ditmoe_checkpoint *c = index->checkpoint;
  TRY(list_entries(index, object, map));
  for (size_t i = 0; i < map->shard_count; i++) {
    const size_t metadata_count = c->metadata_count, first = c->count;
    TRY(read_shard(index, map->shards[i]));
    if (i) c->metadata_count = metadata_count; /* repetitions */
    mark(index, map, map->shards[i], first);
  }
  TRY(source_sort(index));
  for (size_t i = 0; i < map->count; i++)
    if (!map->entries[i].found)
      return fail(index->ctx, DITMOE_FORMAT, "%s: tensor %.200s is not in its shard %.200s",
                  index->path, map->entries[i].tensor, map->entries[i].shard);
  return DITMOE_OK;
}

static enum ditmoe_status read_index(struct source *source) {
  struct map map = {.count = 0};
  enum ditmoe_status status;
  cJSON *tree;
  TRY(json_parse(source->ctx, source->path, (const char *)source->file.data, source->file.size,
                 &tree));
  const cJSON *object = cJSON_GetObjectItemCaseSensitive(tree, "weight_map");
  if (!cJSON_IsObject(object))
    status = fail(source->ctx, DITMOE_FORMAT,
                  "%s: JSON without a weight_map, so no index of shards; name the weights file",
                  source->path);
  else
    status = read_map(source, object, &map);
  mem_free(source->ctx, map.entries);
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
