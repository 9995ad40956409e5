/* The zip container of PyTorch files: forms that are legal, and every kind of contradiction. */
#include "support.h"

#include "io/formats.h"
#include "pickle_emit.h"

#include <stdlib.h>
#include <zlib.h>

struct entry {
  const char *name;
  const void *data;
  size_t size;
  uint16_t flags, method;
  uint32_t wrong_crc;     /* added */
  const char *local_name; /* NULL: the same */
  uint64_t claimed;       /* uncompressed size if not `size` */
};

enum { DESCRIPTOR = 8, DEFLATED = 8 };

static void put_fields(struct bytes *b, const struct entry *e, bool later) {
  uint32_t crc = (uint32_t)crc32(0, e->data, (uInt)e->size) + e->wrong_crc;
  put_number(b, e->flags, 2);
  put_number(b, e->method, 2);
  put_number(b, 0, 4); /* time, date */
  put_number(b, later ? 0 : crc, 4);
  put_number(b, later ? 0 : e->size, 4);
  put_number(b, later ? 0 : e->claimed ? e->claimed : e->size, 4);
}

static void put_local(struct bytes *b, const struct entry *e) {
  const char *name = e->local_name ? e->local_name : e->name;
  PUT(b, "PK\3\4\0\0");
  put_fields(b, e, e->flags & DESCRIPTOR);
  put_number(b, strlen(name), 2);
  put_number(b, 5, 2);
  put(b, name, strlen(name));
  PUT(b, "FB\1\0Z");
  put(b, e->data, e->size);
}

static void put_central(struct bytes *b, const struct entry *e, size_t offset) {
  PUT(b, "PK\1\2\0\0\0\0");
  put_fields(b, e, false);
  put_number(b, strlen(e->name), 2);
  put_number(b, 0, 8);
  put_number(b, 0, 4);
  put_number(b, offset, 4);
  put(b, e->name, strlen(e->name));
}

static void put_zip(struct bytes *b, const struct entry *entries, int count, bool wide) {
  size_t offsets[8];
  for (int i = 0; i < count; i++) {
    offsets[i] = b->size;
    put_local(b, &entries[i]);
  }
  size_t start = b->size;
  for (int i = 0; i < count; i++) put_central(b, &entries[i], offsets[i]);
  size_t end = b->size;
  if (wide) {
    PUT(b, "PK\6\6");
    put_number(b, 44, 8);
    put_number(b, 0, 8);
    put_number(b, 0, 4);
    const uint64_t fields[] = {(uint64_t)count, (uint64_t)count, end - start, start};
    for (int i = 0; i < 4; i++) put_number(b, fields[i], 8);
    PUT(b, "PK\6\7\0\0\0\0");
    put_number(b, end, 8);
    put_number(b, 1, 4);
  }
  PUT(b, "PK\5\6\0\0\0\0");
  put_number(b, wide ? 0xffff : (uint64_t)count, 2);
  put_number(b, wide ? 0xffff : (uint64_t)count, 2);
  put_number(b, wide ? 0xffffffff : end - start, 4);
  put_number(b, wide ? 0xffffffff : start, 4);
  put_number(b, 0, 2);
}

static const float numbers[2] = {1, 2};

/* The entries of a good file with one tensor w = {1, 2}; the pickle lives as long as the test. */
static void good_entries(struct entry entries[4]) {
  static struct bytes program;
  program.size = 0;
  PUT(&program, "\x80\x02}");
  put_text(&program, "w");
  put_tensor(&program, &(struct view){"Float", "0", 2, 0, 1, {2}, {1}});
  PUT(&program, "s.");
  entries[0] = (struct entry){.name = "r/data.pkl", .data = program.data, .size = program.size};
  entries[1] = (struct entry){.name = "r/data/0", .data = numbers, .size = sizeof numbers};
  entries[2] = (struct entry){.name = "r/byteorder", .data = "little", .size = 6};
  entries[3] = (struct entry){.name = "r/version", .data = "3\n", .size = 2};
}

static enum ditmoe_status open_zip(const struct entry *entries, bool wide, const char *rest) {
  struct bytes file = {.size = 0};
  struct ditmoe_checkpoint *checkpoint = NULL;
  put_zip(&file, entries, 4, wide);
  put(&file, rest, strlen(rest));
  enum ditmoe_status status =
      checkpoint_open_bytes(test_ctx(), "file.pt", file.data, file.size, NULL, &checkpoint);
  if (status == DITMOE_OK) {
    assert_int_equal(checkpoint->count, 1);
    assert_memory_equal(checkpoint->tensors[0].data, numbers, sizeof numbers);
  }
  ditmoe_checkpoint_close(checkpoint);
  return status;
}

static void test_legal(void **state) {
  (void)state;
  struct entry entries[4];
  for (int wide = 0; wide < 2; wide++) {
    good_entries(entries);
    assert_ok(test_ctx(), open_zip(entries, wide, ""));
    for (int i = 0; i < 4; i++) entries[i].flags = DESCRIPTOR | 0x800;
    assert_ok(test_ctx(), open_zip(entries, wide, ""));
  }
  entries[3].name = "../../r/data/1"; /* not looked at, never a path */
  assert_ok(test_ctx(), open_zip(entries, false, ""));
  entries[3].wrong_crc = 1; /* not used */
  assert_ok(test_ctx(), open_zip(entries, false, ""));
}

/* One entry of a good file is replaced. */
static void test_refused(void **state) {
  (void)state;
  static const struct {
    int index;
    struct entry change; /* fields that are not zero */
    const char *words;
  } cases[] = {
      {0, {.wrong_crc = 1}, "r/data.pkl: CRC mismatch"},
      {1, {.wrong_crc = 1}, "r/data/0: CRC mismatch"},
      {1, {.local_name = "r/data/1"}, "disagrees"},
      {1, {.flags = 1}, "encrypted"},
      {1, {.method = 12}, "compression method"},
      {1, {.method = DEFLATED}, "damaged deflate data"},
      {1, {.claimed = 9}, "has 9 bytes instead of 8"},
      {0, {.method = DEFLATED, .claimed = 0xfffffff0}, "out of proportion"},
      {1, {.name = "r/data/00"}, "data/0 is missing"},
      {3, {.name = "r/data/0"}, "occurs twice"},
      {3, {.name = "s/data.pkl"}, "two entries data.pkl"},
      {3, {.name = "r/constants.pkl"}, "TorchScript"},
      {0, {.name = "r/s/data.pkl"}, "without data.pkl"},
      {0, {.name = "data.pkl"}, "without data.pkl"},
      {2, {.data = "big", .size = 3}, "byte order \"big\""},
      {0, {.data = "\x80\x02}..", .size = 5}, "bytes after its end"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct entry entries[4], *e = &entries[cases[i].index];
    const struct entry *change = &cases[i].change;
    good_entries(entries);
    if (change->name) e->name = change->name;
    if (change->data) e->data = change->data, e->size = change->size;
    e->flags = change->flags, e->method = change->method, e->wrong_crc = change->wrong_crc;
    e->local_name = change->local_name, e->claimed = change->claimed;
    assert_fails(test_ctx(), DITMOE_FORMAT, cases[i].words, open_zip(entries, false, ""));
  }
  struct entry entries[4];
  good_entries(entries);
  assert_fails(test_ctx(), DITMOE_FORMAT, "no end of central directory",
               open_zip(entries, false, "x"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_legal), cmocka_unit_test(test_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
