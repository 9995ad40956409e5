/* Emits legacy PyTorch files byte by byte, for checkpoints that torch itself would not write. */
#ifndef TESTS_PICKLE_EMIT_H
#define TESTS_PICKLE_EMIT_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

struct bytes {
  uint8_t data[8192];
  size_t size;
};

static inline void put(struct bytes *b, const void *bytes, size_t size) {
  assert(size <= sizeof b->data - b->size);
  memcpy(b->data + b->size, bytes, size);
  b->size += size;
}

#define PUT(b, literal) put((b), (literal), sizeof(literal) - 1)

static inline void put_number(struct bytes *b, uint64_t number, unsigned width) {
  for (unsigned i = 0; i < width; i++) put(b, &(uint8_t){(uint8_t)(number >> 8 * i)}, 1);
}

static inline void put_int(struct bytes *b, int64_t number) { /* LONG1 */
  PUT(b, "\x8a\x08");
  put_number(b, (uint64_t)number, 8);
}

static inline void put_text(struct bytes *b, const char *text) { /* BINUNICODE */
  PUT(b, "X");
  put_number(b, strlen(text), 4);
  put(b, text, strlen(text));
}

static inline void put_tuple(struct bytes *b, int count, const int64_t numbers[]) {
  PUT(b, "(");
  for (int i = 0; i < count; i++) put_int(b, numbers[i]);
  PUT(b, "t");
}

struct view { /* of a storage */
  const char *type, *key;
  int64_t elements, offset;
  int rank;
  int64_t shape[10], stride[10];
};

/* _rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict()) */
static inline void put_tensor(struct bytes *b, const struct view *v) {
  PUT(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
  put_text(b, "storage");
  PUT(b, "ctorch\n");
  put(b, v->type, strlen(v->type));
  PUT(b, "Storage\n");
  put_text(b, v->key);
  put_text(b, "cpu");
  put_int(b, v->elements);
  PUT(b, "NtQ");
  put_int(b, v->offset);
  put_tuple(b, v->rank, v->shape);
  put_tuple(b, v->rank, v->stride);
  PUT(b, "\x89"
         "ccollections\nOrderedDict\n)RtR");
}

/* The three pickles before the object. */
static inline void put_legacy_header(struct bytes *b) {
  PUT(b, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}");
  put_text(b, "little_endian");
  PUT(b, "\x88s.");
}

struct storage {
  const char *key;
  const void *data;
  uint64_t elements;
  size_t element_size;
};

/* The list of keys and the data behind the object. */
static inline void put_storages(struct bytes *b, const struct storage *storages, size_t count) {
  PUT(b, "\x80\x02](");
  for (size_t i = 0; i < count; i++) put_text(b, storages[i].key);
  PUT(b, "e.");
  for (size_t i = 0; i < count; i++) {
    put_number(b, storages[i].elements, 8);
    put(b, storages[i].data, storages[i].elements * storages[i].element_size);
  }
}

#endif
