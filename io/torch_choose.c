/* Which entry of a training dictionary has the weights: averaged ones before those that they were
 * averaged from, under the names that training programs use (docs/FILES.md). */
#include "io/torch.h"

#include <stdio.h>
#include <string.h>

/* In the order of preference. Keys that say in other words that they are averages come between. */
static const char averages[] =
    "ema ema_model_state_dict model_ema model_ema1 state_dict_ema ema_state_dict"
    " model_ema_state_dict ema_model params_ema averaged_model average_model_state module_ema"
    " shadow";
static const char usual[] =
    "model model_state_dict state_dict module net network params generator denoiser";

enum rank { /* a place in the first list, or USUAL and one in the second */
            OTHER_AVERAGE = sizeof averages,
            USUAL,
            ROOT = USUAL + sizeof usual,
            UNKNOWN
};
enum { MAX_DEPTH = 3, MAX_STATES = 32, MAX_UNKNOWN = 8 };

struct state { /* a dictionary with tensors */
  struct pickle_value dict;
  int rank;
  char path[TORCH_PATH];
};

struct search {
  const struct pickle *pickle;
  int64_t looks; /* cells that may still be looked at, so that time is linear in the file */
  int count, unknown;
  struct state states[MAX_STATES];
  char list[TORCH_PATH];  /* averaged values without names   */
  char empty[TORCH_PATH]; /* a name of averages without any  */
};

/* The entry at *cell, which moves on to the next; false at the end. */
static bool next_entry(const struct pickle *p, int32_t *cell, struct text *key,
                       struct pickle_value *value) {
  while (*cell != PICKLE_NIL) {
    const struct pickle_cell *name = &p->cells[*cell], *item = &p->cells[name->next];
    *value = item->value;
    *cell = item->next;
    *key = name->value.text;
    if (name->value.kind == PICKLE_STRING && text_is_printable(*key)) return true;
  }
  return false;
}

static int rank_of(struct text key) {
  const int average = text_place(key, averages), other = text_place(key, usual);
  if (average >= 0) return average;
  if (other >= 0) return USUAL + other;
  return name_says_average(key) ? OTHER_AVERAGE : UNKNOWN;
}

/* Of an entry: all below an average is one, and weights have usual names all the way. */
static int combine(int above, int own) {
  if (above <= OTHER_AVERAGE || own <= OTHER_AVERAGE) return above < own ? above : own;
  if (above == UNKNOWN || own == UNKNOWN) return UNKNOWN;
  return above == ROOT ? own : above;
}

static void add_state(struct search *s, struct pickle_value dict, const char *path, int rank) {
  if (s->count == MAX_STATES || (rank == UNKNOWN && s->unknown++ >= MAX_UNKNOWN)) return;
  struct state *state = &s->states[s->count++];
  *state = (struct state){.dict = dict, .rank = rank};
  memcpy(state->path, path, sizeof state->path);
}

/* Adds what lies below `dict` and then itself: inner ones come first. */
static void visit(struct search *s, struct pickle_value dict, const char path[TORCH_PATH], int rank,
                  int depth) {
  struct pickle_value value;
  struct text key;
  bool tensors = false;
  for (int32_t cell = s->pickle->nodes[dict.node].first;
       s->looks-- > 0 && next_entry(s->pickle, &cell, &key, &value);) {
    const int own = rank_of(key), inner_rank = combine(rank, own), before = s->count;
    const bool list = value.kind == PICKLE_LIST || value.kind == PICKLE_TUPLE;
    char inner[TORCH_PATH];
    snprintf(inner, sizeof inner, "%s%s%.*s", path, *path ? "." : "", TEXT(key));
    tensors |= value.kind == PICKLE_TENSOR;
    if (value.kind == PICKLE_DICT && depth < MAX_DEPTH)
      visit(s, value, inner, inner_rank, depth + 1);
    if (list && inner_rank <= OTHER_AVERAGE && !*s->list &&
        pickle_item(s->pickle, value, 0).kind == PICKLE_TENSOR)
      memcpy(s->list, inner, sizeof inner);
    if ((value.kind == PICKLE_DICT || value.kind == PICKLE_NONE) && own < OTHER_AVERAGE &&
        s->count == before)
      memcpy(s->empty, inner, sizeof inner);
  }
  if (tensors) add_state(s, dict, path, rank);
}

/* Best of all states, NULL if there is none; *other = one that is as good. An inner one comes
 * before the one that it is in. */
static const struct state *best_state(const struct search *s, const struct state **other) {
  const struct state *best = NULL;
  *other = NULL;
  for (int i = 0; i < s->count; i++) {
    const struct state *state = &s->states[i];
    if (state->rank == UNKNOWN || (best && state->rank > best->rank)) continue;
    if (best && state->rank == best->rank) {
      const size_t length = strlen(state->path);
      if (strncmp(best->path, state->path, length) != 0 || best->path[length] != '.')
        *other = state;
      continue;
    }
    best = state;
    *other = NULL;
  }
  return best;
}

/* The other states that a key can select, for messages. */
static enum ditmoe_status list_left(struct source *source, const struct search *s,
                                    const char *chosen) {
  for (int i = 0; i < s->count; i++)
    if (*s->states[i].path && strcmp(s->states[i].path, chosen) != 0)
      TRY(source_leave(source, s->states[i].path));
  return DITMOE_OK;
}

/* Averages that cannot be used are a reason to stop, or to say so. */
static enum ditmoe_status check_averages(struct source *source, const struct search *s,
                                         const struct state *best) {
  const char *path = best ? best->path : "";
  const bool named = *path != '\0';
  if (best && best->rank <= OTHER_AVERAGE) return DITMOE_OK;
  if (*s->list)
    return fail(source->ctx, DITMOE_MISMATCH,
                "%s: %s is a list of averaged weights without names; %s%s%s", source->path, s->list,
                named ? "--key " : "save them as a state dictionary", path,
                named ? " takes the weights that are no averages" : "");
  if (*s->empty && best)
    warn(source->ctx, "%s: %s has no weights; those of %s are taken, which are no averages",
         source->path, s->empty, named ? path : "the file itself");
  return DITMOE_OK;
}

/* String keys of a dictionary as "a, b, c", cut where the buffer ends. */
static void list_keys(const struct pickle *p, struct pickle_value dict, char *out, size_t size) {
  struct pickle_value value;
  struct text key;
  size_t used = 0;
  out[0] = '\0';
  for (int32_t cell = p->nodes[dict.node].first; used < size && next_entry(p, &cell, &key, &value);)
    used += (size_t)snprintf(out + used, size - used, "%s%.*s", used ? ", " : "", TEXT(key));
}

static bool begins_name(const struct pickle *p, struct pickle_value dict, const char *prefix) {
  const size_t length = strlen(prefix);
  struct pickle_value value;
  struct text key;
  for (int32_t cell = p->nodes[dict.node].first; next_entry(p, &cell, &key, &value);)
    if (value.kind == PICKLE_TENSOR && key.length > length && key.bytes[length] == '.' &&
        memcmp(key.bytes, prefix, length) == 0)
      return true;
  return false;
}

/* Follows the path *key down from *dict as far as it names entries; *key = the rest. *found = the
 * last entry, if it is no dictionary. */
static void follow(const struct pickle *p, struct pickle_value *dict, const char **key,
                   struct pickle_value *found) {
  struct pickle_value value;
  struct text name;
  for (int32_t cell = p->nodes[dict->node].first; **key && next_entry(p, &cell, &name, &value);) {
    const char after = strlen(*key) >= name.length ? (*key)[name.length] : '?';
    if ((after && after != '.') || memcmp(*key, name.bytes, name.length) != 0) continue;
    *found = value;
    if (value.kind != PICKLE_DICT) continue;
    *key += name.length + (after == '.');
    *dict = value;
    cell = p->nodes[dict->node].first;
  }
}

enum ditmoe_status torch_state_choose(struct source *source, const struct pickle *p,
                                      struct pickle_value root, struct pickle_value *dict,
                                      char path[TORCH_PATH]) {
  const char *key = source->key ? source->key : "", *rest = key;
  struct search s = {.pickle = p, .looks = (int64_t)p->cell_count + 1};
  struct pickle_value found = {0};
  const struct state *other;
  if (root.kind != PICKLE_DICT)
    return fail(source->ctx, DITMOE_MISMATCH, "%s: no tensors: the file holds %s, not a dictionary",
                source->path, pickle_kind_name(root.kind));
  *dict = root;
  follow(p, dict, &rest, &found);
  snprintf(path, TORCH_PATH, "%.*s", (int)(rest - key) - (*rest && rest > key), key);
  visit(&s, *dict, path, ROOT, 0);
  const struct state *best = best_state(&s, &other);
  if (other)
    return fail(source->ctx, DITMOE_USAGE, "%s: weights under %s and under %s; --key chooses one",
                source->path, best->path, other->path);
  if (!*key) TRY(check_averages(source, &s, best));
  TRY(list_left(source, &s, best ? best->path : path));
  if (best) {
    *dict = best->dict;
    memcpy(path, best->path, sizeof best->path);
  }
  source->key = *rest ? rest : NULL;
  if (!*rest || begins_name(p, *dict, rest)) return DITMOE_OK;
  char keys[400];
  list_keys(p, root, keys, sizeof keys);
  const bool other_kind = found.kind != PICKLE_UNSET && found.kind != PICKLE_DICT;
  return fail(source->ctx, DITMOE_USAGE, "%s: key \"%s\" is %s; the keys of this file are: %s",
              source->path, key, other_kind ? pickle_kind_name(found.kind) : "not there", keys);
}
