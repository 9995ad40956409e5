/* torch.save since 1.6: a zip archive of ROOT/data.pkl, ROOT/data/KEY for every storage, and
 * ROOT/byteorder. */
#include "io/torch.h"
#include "io/zip.h"

#include <string.h>

enum { MAX_NAME = 512 };

/* The entry ROOT/tail, given the name ROOT/data.pkl, with `more` appended; NULL if there is
 * none. */
static struct zip_entry *find_beside(const struct zip *zip, struct text pickle_name,
                                     const char *tail, struct text more) {
  char name[MAX_NAME];
  size_t root = pickle_name.length - strlen("data.pkl"), middle = strlen(tail);
  if (more.length > MAX_NAME || root + middle + more.length > MAX_NAME) return NULL;
  memcpy(name, pickle_name.bytes, root);
  memcpy(name + root, tail, middle);
  if (more.length) memcpy(name + root + middle, more.bytes, more.length);
  return zip_find(zip, (struct text){(const uint8_t *)name, root + middle + more.length});
}

static bool is_root_pickle(struct text name) {
  static const char tail[] = "/data.pkl";
  size_t root = name.length - strlen(tail);
  return name.length > strlen(tail) && memcmp(name.bytes + root, tail, strlen(tail)) == 0 &&
         !memchr(name.bytes, '/', root);
}

static enum ditmoe_status find_pickle(const struct zip *zip, struct zip_entry **out) {
  struct source *source = zip->source;
  *out = NULL;
  for (size_t i = 0; i < zip->count; i++) {
    if (!is_root_pickle(zip->entries[i].name)) continue;
    if (*out) return fail(source->ctx, DITMOE_FORMAT, "%s: two entries data.pkl", source->path);
    *out = &zip->entries[i];
  }
  if (!*out)
    return fail(source->ctx, DITMOE_FORMAT,
                "%s: a zip archive without data.pkl, so no PyTorch checkpoint", source->path);
  if (find_beside(zip, (*out)->name, "constants.pkl", (struct text){0}))
    return fail(source->ctx, DITMOE_FORMAT,
                "%s: a TorchScript program; save its state_dict() instead", source->path);
  return DITMOE_OK;
}

static enum ditmoe_status check_byte_order(struct zip *zip, struct text pickle_name) {
  struct zip_entry *entry = find_beside(zip, pickle_name, "byteorder", (struct text){0});
  struct span order;
  if (!entry) return DITMOE_OK; /* before torch 2.1, which wrote it first */
  TRY(zip_read(zip, entry, &order));
  struct text value = {order.data, order.size};
  if (text_is(value, "little")) return DITMOE_OK;
  return fail(zip->source->ctx, DITMOE_FORMAT, "%s: byte order \"%.*s\" is not supported",
              zip->source->path, TEXT(value));
}

struct archive {
  struct zip zip;
  struct text pickle_name;
};

static enum ditmoe_status find_storage(struct source *source, void *opaque, struct text tensor,
                                       struct text key, uint64_t bytes, struct span *content) {
  struct archive *archive = opaque;
  struct zip_entry *entry = find_beside(&archive->zip, archive->pickle_name, "data/", key);
  if (entry && entry->size == bytes) return zip_read(&archive->zip, entry, content);
  *content = (struct span){.size = entry ? entry->size : 0};
  if (entry) return DITMOE_OK;
  return fail(source->ctx, DITMOE_FORMAT, "%s: tensor %.*s: its storage data/%.*s is missing",
              source->path, TEXT(tensor), TEXT(key));
}

static enum ditmoe_status read_archive(struct archive *archive, struct pickle *pickle,
                                       struct source *source) {
  struct zip_entry *entry = NULL;
  struct pickle_value root;
  struct span program;
  TRY(zip_open(&archive->zip, source));
  TRY(find_pickle(&archive->zip, &entry));
  archive->pickle_name = entry->name;
  TRY(check_byte_order(&archive->zip, entry->name));
  TRY(zip_read(&archive->zip, entry, &program));
  TRY(pickle_run(pickle, &program, &root));
  if (span_left(&program)) return pickle_bad(pickle, "bytes after its end");
  return torch_state_read(source, pickle, root, find_storage, archive);
}

static enum ditmoe_status read_zip(struct source *source) {
  struct archive archive = {.zip.source = source};
  struct pickle pickle;
  pickle_init(&pickle, source->ctx, source->path);
  enum ditmoe_status status = read_archive(&archive, &pickle, source);
  pickle_fini(&pickle);
  zip_close(&archive.zip);
  return status;
}

static bool match_zip(struct span file) {
  return file.size >= 4 &&
         (memcmp(file.data, "PK\3\4", 4) == 0 || memcmp(file.data, "PK\5\6", 4) == 0);
}

const struct format torch_zip_format = {"pytorch-zip", match_zip, read_zip};
