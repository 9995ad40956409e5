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

static bool is_plain_name(const char *name) {
  return *name && !strchr(name, '/') && !strchr(name, '\\') && strcmp(name, ".") != 0 &&
         strcmp(name, "..") != 0;
}

/* By shard, then by tensor. */
static int compare_entries(const void *a, const void *b) {
  const struct entry *x = a, *y = b;
  const int order = strcmp(x->shard, y->shard);
  return order ? order : strcmp(x->tensor, y->tensor);
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

static enum ditmoe_status sort_entries(const struct source *index, const cJSON *map,
                                       struct entry *entries) {
  size_t count = 0;
  for (const cJSON *item = map->child; item; item = item->next) {
    if (!cJSON_IsString(item) || !is_plain_name(item->valuestring))
      return fail(index->ctx, DITMOE_FORMAT,
                  "%s: tensor %.200s: its shard is not a plain file name in this folder",
                  index->path, item->string);
    entries[count++] = (struct entry){item->string, item->valuestring, false};
  }
  if (count) qsort(entries, count, sizeof *entries, compare_entries);
  return DITMOE_OK;
}

static enum ditmoe_status read_shards(struct source *index, struct entry *entries, size_t count) {
  struct ditmoe_checkpoint *c = index->checkpoint;
  int shards = 0;
  for (size_t i = 0; i < count; i++) {
    const char *shard = entries[i].shard;
    const size_t metadata_count = c->metadata_count, first = c->count;
    if (i && strcmp(entries[i - 1].shard, shard) == 0) continue;
    if (shards++ == MAX_SHARDS)
      return fail(index->ctx, DITMOE_FORMAT, "%s: more than %d shards", index->path, MAX_SHARDS);
    TRY(read_shard(index, shard));
    if (i) c->metadata_count = metadata_count; /* repetitions */
    for (size_t j = first; j < c->count; j++) {
      const struct entry wanted = {.tensor = c->tensors[j].name, .shard = shard};
      struct entry *entry = bsearch(&wanted, entries, count, sizeof wanted, compare_entries);
      if (entry) entry->found = true;
    }
  }
  for (size_t i = 0; i < count; i++)
    if (!entries[i].found)
      return fail(index->ctx, DITMOE_FORMAT, "%s: tensor %.200s is not in its shard %.200s",
                  index->path, entries[i].tensor, entries[i].shard);
  return DITMOE_OK;
}

static enum ditmoe_status read_map(struct source *index, const cJSON *map) {
  struct entry *entries;
  if (!cJSON_IsObject(map))
    return fail(index->ctx, DITMOE_FORMAT,
                "%s: JSON without a weight_map, so no index of shards; name the weights file",
                index->path);
  const size_t count = (size_t)cJSON_GetArraySize(map);
  TRY(mem_alloc(index->ctx, count, sizeof *entries, "the shards", &entries));
  enum ditmoe_status status = sort_entries(index, map, entries);
  if (status == DITMOE_OK) status = read_shards(index, entries, count);
  mem_free(index->ctx, entries);
  return status;
}

static enum ditmoe_status read_index(struct source *source) {
  cJSON *tree;
  TRY(json_parse(source->ctx, source->path, (const char *)source->file.data, source->file.size,
                 &tree));
  enum ditmoe_status status =
      read_map(source, cJSON_GetObjectItemCaseSensitive(tree, "weight_map"));
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
