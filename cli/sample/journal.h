/* The journal of a run: one line of text for each file that is complete, appended and synced after
 * the file is (docs/RUNS.md). Every line ends with the CRC-32 of what is before it, so that a torn
 * or damaged one is known. Whoever writes a journal holds a lock on it, which ends with the process
 * whatever ends that.
 *
 *   journal 1 ID                     first; ID is that of run.json
 *   session PID RANK RANKS           a process that begins to write
 *   image FIRST 1 BYTES CRC          a file with an image
 *   shard FIRST COUNT BYTES CRC      a file with the pixels of a batch
 *   failure FIRST COUNT EXIT TEXT    a batch that failed */
#ifndef CLI_SAMPLE_JOURNAL_H
#define CLI_SAMPLE_JOURNAL_H

#include "ditmoe.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JOURNAL_LINE = 1024, JOURNAL_ID = 16 /* hexadecimal digits of an ID */ };

struct journal {
  char *path, *pending; /* lines that are not written yet */
  size_t pending_size;
  int file; /* -1: closed, nothing is written */
};

struct journal_piece { /* a line `image` or `shard` */
  bool shard;
  long long first, count, bytes;
  unsigned crc;
};

/* Opens or makes the file and locks it. DITMOE_OUTPUT if another process writes it. */
enum ditmoe_status journal_take(struct journal *journal, const char *path);
/* Cuts it to `size` bytes. */
enum ditmoe_status journal_cut(struct journal *journal, int64_t size);
/* A line without its CRC; nothing is written before journal_commit. */
void journal_add(struct journal *journal, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Writes and syncs what was added. On failure 0 bytes of it stay, and the result is errno. */
int journal_commit(struct journal *journal);
void journal_close(struct journal *journal);
/* Whether a process holds the lock of this file. */
bool journal_is_locked(const char *path);

struct journal_extent { /* what journal_read found */
  int64_t size, good;   /* bytes, and how many of them are good lines; size -1: no such file */
  bool ours;            /* the first line has the ID                                         */
};

/* Calls `line` for every good line after the first, until one is damaged. id NULL: any. */
struct journal_extent journal_read(const char *path, const char *id,
                                   void (*line)(void *user, const char *text), void *user);
bool journal_parse(const char *text, struct journal_piece *out);
/* The process that wrote last, 0 if unknown. */
int64_t journal_process(const char *path);

#endif
