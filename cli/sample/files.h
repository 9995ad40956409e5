/* The files of a run: checksums, folders, what an interrupted process left. */
#ifndef CLI_SAMPLE_FILES_H
#define CLI_SAMPLE_FILES_H

#include "ditmoe.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Size and CRC-32 of a file; false if it cannot be read. */
bool file_checksum(const char *path, int64_t *bytes, uint32_t *crc);
/* All bytes, however many calls that takes: 0 or errno. */
int write_all(int file, const char *bytes, size_t size);
bool file_exists(const char *path);
bool folder_exists(const char *path);

/* Makes a file with this text, complete and synced, unless there is one: 0 or errno. */
int file_create(const char *path, const char *text);

/* Calls `entry` with every name in a folder ("": the working folder). DITMOE_OUTPUT if it cannot be
 * read; the first other status ends it. */
enum ditmoe_status folder_scan(const char *folder,
                               enum ditmoe_status (*entry)(void *user, const char *name),
                               void *user);
/* Makes the folder unless it exists; `made` says whether it did. */
enum ditmoe_status folder_make(const char *folder, bool *made);
/* Removes a folder and the files in it; what cannot be removed stays. */
void folder_remove(const char *folder);
/* The process that left a temporary file of this name, 0 for any other name. */
int64_t temporary_process(const char *name);

/* DITMOE_OUTPUT unless the file system of the folder has room for so many bytes. */
enum ditmoe_status folder_has_room(const char *folder, uint64_t bytes, const char *what);

#endif
