/* Names of tensors as wrappers around a network leave them: parts that mean nothing, weights beside
 * their averages, and a prefix that all names have. */
#include "io/formats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Parts of a name that compilers, data parallelism and checkpointing of activations put in, at any
 * place. */
static const char wrappers[] = "module _orig_mod _fsdp_wrapped_module _checkpoint_wrapped_module";
/* First parts that say no more than that this is the network, where all names have them. */
static const char holders[] =
    "model backbone net network generator denoiser transformer diffusion_model dit";
/* What lies beside averaged weights without being weights. */
static const char counters[] = "initted step n_averaged decay num_updates";

/* Length of the first part of a name, 0 if it is the whole name. */
static size_t first_part(const char *name) {
  const char *dot = strchr(name, '.');
  return dot ? (size_t)(dot - name) : 0;
}

static struct text first_text(const char *name) {
  return (struct text){(const uint8_t *)name, first_part(name)};
}

static bool is_letter(char c, char first, char last) { return c >= first && c <= last; }

/* The word at `at`, not in the middle of a word: "ema", "model_ema2", "netEMA", not "schema". */
static bool stands_alone(struct text name, size_t at, size_t length) {
  const char *text = (const char *)name.bytes;
  const char before = at ? text[at - 1] : '_';
  const char after = at + length < name.length ? text[at + length] : '_';
  const bool begins =
      is_letter(before, 'a', 'z') ? is_letter(text[at], 'A', 'Z') : !is_letter(before, 'A', 'Z');
  return begins && !is_letter(after, 'a', 'z');
}

bool name_says_average(struct text name) {
  static const char *const words[] = {"ema", "average", "averaged", "averages",
                                      "avg", "shadow",  "polyak",   "swa"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    const size_t length = strlen(words[i]);
    for (size_t at = 0; at + length <= name.length; at++)
      if (strncasecmp((const char *)name.bytes + at, words[i], length) == 0 &&
          stands_alone(name, at, length))
        return true;
  }
  return false;
}

/* Keeps the tensors [from, from + count), takes the `length` bytes that their names begin with and
 * a dot off, and adds these to the key. */
static enum ditmoe_status keep_group(struct source *source, size_t from, size_t count,
                                     size_t length) {
  struct ditmoe_checkpoint *c = source->checkpoint;
  char part[256];
  const char *key = c->key ? c->key : "";
  snprintf(part, sizeof part, "%s%s%.*s", key, *key ? "." : "", (int)length, c->tensors[from].name);
  memmove(c->tensors, c->tensors + from, count * sizeof *c->tensors);
  c->count = count;
  for (size_t i = 0; i < count; i++) c->tensors[i].name += length + 1;
  mem_free(source->ctx, c->key);
  c->key = NULL;
  return mem_strdup(source->ctx, part, &c->key);
}

/* The tensors whose names begin with source->key. */
static enum ditmoe_status keep_key(struct source *source) {
  struct ditmoe_checkpoint *c = source->checkpoint;
  const size_t length = strlen(source->key);
  size_t from = 0, count = 0;
  for (size_t i = 0; i < c->count; i++) {
    const char *name = c->tensors[i].name;
    if (strncmp(name, source->key, length) != 0 || name[length] != '.' || !name[length + 1])
      continue;
    if (count++ == 0) from = i;
  }
  if (!count)
    return fail(source->ctx, DITMOE_USAGE,
                "%s: no names of tensors begin with \"%s.\", and %s files have no keys; "
                "leave the key out",
                source->path, source->key, c->format);
  return keep_group(source, from, count, length);
}

/* Averaged weights that lie under a first part of their own, beside the weights or alone with
 * counters: ema_model.* of ema_pytorch and of Lightning modules. */
static enum ditmoe_status keep_average(struct source *source) {
  struct ditmoe_checkpoint *c = source->checkpoint;
  const struct tensor *group = NULL;
  const char *beside = NULL;
  size_t length = 0, inside = 0;
  bool alone = true;
  for (size_t i = 0; i < c->count && !group; i++) {
    length = first_part(c->tensors[i].name);
    if (name_says_average(first_text(c->tensors[i].name))) group = &c->tensors[i];
  }
  if (!group) return DITMOE_OK;
  const char *inner = group->name + length + 1;
  for (size_t i = 0; i < c->count; i++) {
    const char *name = c->tensors[i].name;
    const size_t own = first_part(name);
    if (strncmp(name, group->name, length + 1) == 0) {
      inside++;
      continue;
    }
    alone &= text_place(text_of(name), counters) >= 0;
    if (strcmp(own ? name + own + 1 : name, inner) == 0 || strcmp(name, inner) == 0) beside = name;
  }
  if (inside == c->count || (!beside && !alone)) return DITMOE_OK;
  if (beside && strcmp(beside, inner) != 0) {
    char part[256];
    snprintf(part, sizeof part, "%.*s", (int)first_part(beside), beside);
    TRY(source_leave(source, part));
  }
  return keep_group(source, (size_t)(group - c->tensors), inside, length);
}

/* Takes off what all names begin with. */
static void strip_holders(struct ditmoe_checkpoint *c) {
  for (;;) {
    const char *first = c->tensors[0].name, *last = c->tensors[c->count - 1].name;
    const size_t length = first_part(first);
    const bool holder =
        text_place(first_text(first), holders) >= 0 || name_says_average(first_text(first));
    if (!length || !holder || strncmp(first, last, length + 1) != 0) return;
    for (size_t i = 0; i < c->count; i++) c->tensors[i].name += length + 1;
  }
}

struct renamed {
  struct tensor tensor;
  const char *original;
};

static int compare_renamed(const void *a, const void *b) {
  return strcmp(((const struct renamed *)a)->tensor.name, ((const struct renamed *)b)->tensor.name);
}

/* out = name without wrappers, of room for as much; false if it has none. */
static bool unwrap(const char *name, char *out) {
  const char *begin = name;
  char *end = out;
  for (size_t length; (length = first_part(name)) > 0; name += length + 1) {
    if (text_place(first_text(name), wrappers) >= 0) continue;
    memcpy(end, name, length + 1);
    end += length + 1;
  }
  strcpy(end, name);
  return strlen(out) < strlen(begin);
}

static enum ditmoe_status check_renamed(const struct source *source, const struct renamed *list,
                                        size_t count) {
  for (size_t i = 1; i < count; i++)
    if (compare_renamed(&list[i - 1], &list[i]) == 0)
      return fail(source->ctx, DITMOE_FORMAT,
                  "%s: tensors %.200s and %.200s are both %.200s without %s", source->path,
                  list[i - 1].original, list[i].original, list[i].tensor.name,
                  "what wrappers put into names");
  return DITMOE_OK;
}

static enum ditmoe_status strip_wrappers(struct source *source, struct renamed *list) {
  struct ditmoe_checkpoint *c = source->checkpoint;
  size_t count = 0, changed = 0;
  for (size_t i = 0; i < c->count; i++) {
    const struct tensor *t = &c->tensors[i];
    char *name;
    list[count] = (struct renamed){*t, t->name};
    if (strstr(t->name, "mod")) { /* all of them have that */
      TRY(source_copy(source, text_of(t->name), &name));
      changed += unwrap(t->name, name);
      list[count].tensor.name = name;
    }
    /* The counter of torch.optim.swa_utils.AveragedModel, beside module.* */
    count += strcmp(t->name, "n_averaged") != 0 || t->elements > 1;
  }
  if (!changed) return DITMOE_OK;
  qsort(list, count, sizeof *list, compare_renamed);
  TRY(check_renamed(source, list, count));
  for (size_t i = 0; i < count; i++) c->tensors[i] = list[i].tensor;
  c->count = count;
  return DITMOE_OK;
}

enum ditmoe_status source_unwrap(struct source *source) {
  struct ditmoe_checkpoint *c = source->checkpoint;
  struct renamed *list;
  if (source->key) TRY(keep_key(source));
  if (!c->count) return DITMOE_OK;
  TRY(mem_alloc(source->ctx, c->count, sizeof *list, "the names", &list));
  enum ditmoe_status status = strip_wrappers(source, list);
  mem_free(source->ctx, list);
  TRY(status);
  if (!source->key) TRY(keep_average(source));
  strip_holders(c);
  return DITMOE_OK;
}
