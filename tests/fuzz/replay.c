/* Stands in for libFuzzer where it is absent: feeds the files of the given folders, and the empty
 * input, to the target. Fails if a folder cannot be read or no file was fed; the target itself
 * fails by crashing. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A block of exactly the file's size, so that a sanitizer sees a read beyond it. */
static int feed(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END) != 0) return perror(path), -1;
  long size = ftell(file);
  rewind(file);
  uint8_t *data = malloc(size > 0 ? (size_t)size : 1);
  if (size < 0 || !data || fread(data, 1, (size_t)size, file) != (size_t)size) {
    perror(path);
    fclose(file);
    free(data);
    return -1;
  }
  fclose(file);
  LLVMFuzzerTestOneInput(data, (size_t)size);
  free(data);
  return 0;
}

/* Number of files fed, -1 on failure. */
static int feed_folder(const char *folder) {
  struct dirent **entries;
  int count = scandir(folder, &entries, NULL, alphasort), fed = 0;
  if (count < 0) return perror(folder), -1;
  for (int i = 0; i < count; i++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
    if (fed >= 0 && entries[i]->d_name[0] != '.') fed = feed(path) == 0 ? fed + 1 : -1;
    free(entries[i]);
  }
  free(entries);
  return fed;
}

int main(int argc, char **argv) {
  int total = 0;
  LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
  for (int i = 1; i < argc; i++) {
    int fed = feed_folder(argv[i]);
    if (fed < 0) return 1;
    total += fed;
  }
  printf("%d files\n", total);
  return total == 0;
}
