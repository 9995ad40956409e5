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

#endif
