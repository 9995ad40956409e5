/* torch.save before 1.6: five pickles in a row (magic number, protocol, system, object, storage
 * keys), then for each key its element count and raw bytes. */
#include "io/torch.h"

#include <stdlib.h>
#include <string.h>

enum { LEGACY_PROTOCOL = 1001 };

static const uint8_t legacy_magic[10] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                         0x20, 0x6a, 0xa8, 0x50, 0x19};

struct stored {
  struct text key;
  enum dtype dtype;
  uint64_t elements;
  const uint8_t *data; /* NULL until its bytes have been reached */
};

struct storages { /* sorted by key, unique */
  struct stored *items;
  size_t count;
};

static int compare_stored(const void *a, const void *b) {
  return text_compare(((const struct stored *)a)->key, ((const struct stored *)b)->key);
}

static struct stored *find_stored(const struct storages *storages, struct text key) {
  struct stored wanted = {.key = key};
  if (!storages->count) return NULL;
  return bsearch(&wanted, storages->items, storages->count, sizeof wanted, compare_stored);
}

/* The storages that the object refers to; several references to one must agree. */
static enum ditmoe_status collect(const struct pickle *p, struct storages *out) {
  TRY(mem_alloc(p->ctx, p->storage_count, sizeof *out->items, "the storages", &out->items));
  for (size_t i = 0; i < p->storage_count; i++) {
    struct pickle_value id = p->storages[i];
    out->items[i] = (struct stored){.key = pickle_item(p, id, 2).text,
                                    .dtype = pickle_dtype(pickle_item(p, id, 1)),
                                    .elements = (uint64_t)pickle_item(p, id, 4).integer};
  }
  if (p->storage_count) qsort(out->items, p->storage_count, sizeof *out->items, compare_stored);
  for (size_t i = 0; i < p->storage_count; i++) {
    const struct stored *item = &out->items[i];
    const struct stored *last = out->count ? &out->items[out->count - 1] : NULL;
    if (!last || compare_stored(last, item) != 0)
      out->items[out->count++] = *item;
    else if (last->dtype != item->dtype || last->elements != item->elements)
      return fail(p->ctx, DITMOE_FORMAT, "%s: storage %.*s is described in two ways", p->path,
                  TEXT(item->key));
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_header(struct pickle *p, struct span *file) {
  struct pickle_value magic = {0}, protocol = {0}, system = {0};
  TRY(pickle_run(p, file, &magic));
  if (magic.kind != PICKLE_LONG || magic.text.length != sizeof legacy_magic ||
      memcmp(magic.text.bytes, legacy_magic, sizeof legacy_magic) != 0)
    return fail(p->ctx, DITMOE_FORMAT, "%s: a pickle file, but not one of torch.save", p->path);
  TRY(pickle_run(p, file, &protocol));
  if (protocol.kind != PICKLE_INT || protocol.integer != LEGACY_PROTOCOL)
    return fail(p->ctx, DITMOE_FORMAT, "%s: unknown version of the torch.save format", p->path);
  TRY(pickle_run(p, file, &system));
  if (system.kind == PICKLE_DICT) system = pickle_get(p, system, "little_endian");
  if (system.kind != PICKLE_BOOL || !system.integer)
    return fail(p->ctx, DITMOE_FORMAT, "%s: written on a big-endian machine: not supported",
                p->path);
  return DITMOE_OK;
}

static enum ditmoe_status read_storage(const struct pickle *p, struct span *file,
                                       const struct storages *storages, struct pickle_value key) {
  uint64_t elements, bytes;
  struct stored *stored = key.kind == PICKLE_STRING ? find_stored(storages, key.text) : NULL;
  if (!stored || stored->data)
    return fail(p->ctx, DITMOE_FORMAT, "%s: the list of storages does not fit the object", p->path);
  if (!span_number(file, 8, &elements) || elements != stored->elements ||
      __builtin_mul_overflow(elements, dtype_size(stored->dtype), &bytes) ||
      !span_take(file, bytes, &stored->data))
    return fail(p->ctx, DITMOE_FORMAT,
                "%s: storage %.*s is not there in full: the file is damaged or truncated; fetch it "
                "again",
                p->path, TEXT(stored->key));
  return DITMOE_OK;
}

static enum ditmoe_status find_storage(struct source *source, void *archive, struct text tensor,
                                       struct text key, uint64_t bytes, struct span *content) {
  (void)bytes; /* the same product as in read_storage */
  const struct stored *stored = find_stored(archive, key);
  if (!stored || !stored->data)
    return fail(source->ctx, DITMOE_FORMAT, "%s: tensor %.*s: its storage %.*s is missing",
                source->path, TEXT(tensor), TEXT(key));
  *content = span_of(stored->data, (size_t)stored->elements * dtype_size(stored->dtype));
  return DITMOE_OK;
}

static enum ditmoe_status read_pickles(struct source *source, struct pickle *p,
                                       struct storages *storages) {
  struct span file = source->file;
  struct pickle_value root = {0}, keys = {0};
  TRY(read_header(p, &file));
  TRY(pickle_run(p, &file, &root));
  TRY(collect(p, storages));
  TRY(pickle_run(p, &file, &keys));
  if (keys.kind != PICKLE_LIST) return pickle_bad(p, "no list of storages after the object");
  for (int32_t cell = p->nodes[keys.node].first; cell != PICKLE_NIL; cell = p->cells[cell].next)
    TRY(read_storage(p, &file, storages, p->cells[cell].value));
  if (span_left(&file))
    return fail(source->ctx, DITMOE_FORMAT, "%s: %zu bytes after the last storage", source->path,
                span_left(&file));
  return torch_state_read(source, p, root, find_storage, storages);
}

static enum ditmoe_status read_legacy(struct source *source) {
  struct storages storages = {0};
  struct pickle pickle;
  pickle_init(&pickle, source->ctx, source->path);
  enum ditmoe_status status = read_pickles(source, &pickle, &storages);
  mem_free(source->ctx, storages.items);
  pickle_fini(&pickle);
  return status;
}

/* The length of a safetensors header, 640 for example, can look like the start of a pickle. */
static bool is_safetensors(struct span file) {
  return file.size > 8 && memcmp(file.data + 4, "\0\0\0\0{", 5) == 0;
}

/* PROTO 2 to 5. */
static bool match_pickle(struct span file) {
  return file.size >= 2 && file.data[0] == 0x80 && file.data[1] >= 2 && file.data[1] <= 5 &&
         !is_safetensors(file);
}

const struct format torch_legacy_format = {"pytorch-legacy", match_pickle, read_legacy};
