/* ZIP archives in memory (APPNOTE 6.3: stored and deflated entries, zip64). The central directory
 * is the only truth; local headers must agree with it. Nothing is ever extracted to a path. */
#ifndef IO_ZIP_H
#define IO_ZIP_H

#include "io/formats.h"

struct zip_entry {
  struct text name;
  uint64_t local;        /* offset of the local header           */
  uint64_t packed, size; /* bytes in the file, bytes of content  */
  uint32_t crc;
  uint16_t flags, method;
  const uint8_t *data; /* checked content, NULL until read       */
};

struct zip {
  struct source *source;
  struct zip_entry *entries; /* sorted by name, unique */
  size_t count;
  uint64_t directory; /* offset of the central directory */
  uint64_t read;      /* packed bytes read so far        */
};

enum ditmoe_status zip_open(struct zip *zip, struct source *source);
void zip_close(struct zip *zip);
/* NULL if there is none. */
struct zip_entry *zip_find(const struct zip *zip, struct text name);
/* Content of an entry: in place if stored, in a block of the checkpoint if deflated. The first call
 * checks the local header and the CRC-32. */
enum ditmoe_status zip_read(struct zip *zip, struct zip_entry *entry, struct span *out);

/* Content of an entry of any size in pieces, in constant memory. */
struct zip_stream;
enum ditmoe_status zip_stream_open(const struct zip *zip, const struct zip_entry *entry,
                                   struct zip_stream **out);
/* The next `size` bytes, which must be there. The read that gives the last one checks the CRC-32
 * and that no more follow. */
enum ditmoe_status zip_stream_read(struct zip_stream *stream, void *out, size_t size);
/* Where in the file the next read begins. */
const uint8_t *zip_stream_place(const struct zip_stream *stream);
void zip_stream_close(struct zip_stream *stream); /* may be NULL */

/* For zip.c and zip_stream.c. */

enum { ZIP_STORED = 0, ZIP_DEFLATED = 8 };
#define ZIP_BAD_CRC "CRC mismatch: the data are damaged; fetch the file again"
/* *packed = the bytes of an entry that can be read: its local header agrees, its method is known.
 */
enum ditmoe_status zip_locate(const struct zip *zip, const struct zip_entry *entry,
                              const uint8_t **packed);
enum ditmoe_status zip_bad_entry(const struct zip *zip, const struct zip_entry *entry,
                                 const char *what);

#endif
