/* The list of mixtures. */
#include "router/router.h"

#include <strings.h>

/* The entries of all files, which the linker puts side by side. */
extern const struct mixture *const mixtures_begin[] __asm__("__start_ditmoe_mixtures")
    __attribute__((visibility("hidden")));
extern const struct mixture *const mixtures_end[] __asm__("__stop_ditmoe_mixtures")
    __attribute__((visibility("hidden")));

static const struct mixture dense = {.kind = "dit"};

const struct mixture *mixture_at(int index) {
  if (index == 0) return &dense;
  return index - 1 < mixtures_end - mixtures_begin ? mixtures_begin[index - 1] : NULL;
}

const struct mixture *mixture_find(const char *kind) {
  const struct mixture *mixture;
  for (int i = 0; (mixture = mixture_at(i)); i++)
    if (strcasecmp(mixture->kind, kind) == 0 ||
        (mixture->alias && strcasecmp(mixture->alias, kind) == 0))
      return mixture;
  return NULL;
}
