/* Strings and memory of the programs. Running out of memory here ends the program with exit code
 * 5. */
#ifndef CLI_TEXT_H
#define CLI_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Cleared; free(). */
void *memory_get(size_t count, size_t size);
/* block becomes count * size bytes; new bytes are not cleared. */
void *memory_resize(void *block, size_t count, size_t size);

/* A new string; free(). */
char *text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *text_format_list(const char *format, va_list arguments) __attribute__((format(printf, 1, 0)));
char *text_copy(const char *text);
/* The first `length` bytes of text. */
char *text_copy_part(const char *text, size_t length);

/* Bytes of the UTF-8 character that `text` begins with, and its code; 0 if it is not well formed.
 */
size_t text_character(const char *text, uint32_t *code);
/* The text with U+FFFD for every byte that is not UTF-8, such as names of files may have; free().
 */
char *text_utf8(const char *text);
/* out [size] = the text with what cannot be seen as \u00a0 or \xff: characters without a shape of
 * their own, and bytes that are not UTF-8. Controls stay. */
void text_show(char *out, size_t size, const char *text);

/* Replaces what could drive a terminal or break a line: control characters, also those of two
 * bytes in UTF-8. Works in place and returns text. */
char *text_sanitize(char *text);

/* The text without blanks, tabulators and carriage returns at its ends, in place. */
char *text_trim(char *text);

/* A short decimal that reads back as `value`, in the C locale. */
char *text_number(double value);

/* Last part of a path; the string without its last ending. */
const char *path_name(const char *path);
char *path_stem(const char *path);
/* Folder of a path with the final '/', "" if there is none. */
char *path_folder(const char *path);

#endif
