#include "bench/cases.h"

#include "bench/ops/run.h"
#include "cli/report.h"
#include "cli/text.h"
#include "cli/text_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 1 << 20, MAX_VALUE = 1 << 22, MAX_GROUPS = 32, MAX_PARTS = 3 };

static const struct operation operations[] = {
#define OP(name, timed, needs, takes) {#name, timed, needs, takes, run_##name},
#include "bench/ops/operations.def"
#undef OP
};

/* Keys. */

static const struct word { /* of a choice */
  const char *key, *word;
  int value;
} words[] = {
    {"kinds", "swiglu", KINDS_SWIGLU},
    {"kinds", "gelu", KINDS_GELU},
    {"kinds", "mixed", KINDS_MIXED},
    {"kinds", "free", KINDS_FREE},
    {"pattern", "random", PATTERN_RANDOM},
    {"pattern", "empty", PATTERN_EMPTY},
    {"pattern", "one", PATTERN_ONE},
    {"round", "not", ROUND_NOT},
    {"round", "bf16", ROUND_BF16},
    {"round", "halfway", ROUND_HALFWAY},
    {"dtype", "f32", DT_F32},
    {"dtype", "bf16", DT_BF16},
    {"dtype", "f16", DT_F16},
};

enum key_type { KEY_WHOLE, KEY_NUMBER, KEY_WORD };

static const struct key {
  const char *name;
  enum key_type type;
  size_t offset;
} keys[] = {
#define WHOLE(member)                                                                              \
  { #member, KEY_WHOLE, offsetof(struct shape, member) }
#define NUMBER(member)                                                                             \
  { #member, KEY_NUMBER, offsetof(struct shape, member) }
#define WORD(member)                                                                               \
  { #member, KEY_WORD, offsetof(struct shape, member) }
    WHOLE(N),        WHOLE(B),        WHOLE(T),       WHOLE(D),     WHOLE(H),      WHOLE(d),
    WHOLE(E),        WHOLE(K),        WHOLE(F),       WHOLE(C),     WHOLE(in),     WHOLE(out),
    WHOLE(parts),    WHOLE(bias),     WHOLE(exact),   WHOLE(size),  WHOLE(width),  WHOLE(patch),
    WHOLE(kernel),   WHOLE(stride),   WHOLE(before),  WHOLE(after), WHOLE(groups), WHOLE(silu),
    WHOLE(skip),     WHOLE(ties),     WHOLE(add),     WHOLE(nans),  WHOLE(nulls),  WHOLE(poison),
    WHOLE(kernel_x), WHOLE(before_x), WHOLE(after_x), WHOLE(ldy),   WHOLE(at),     WHOLE(full),
    NUMBER(scale),   NUMBER(offset),  NUMBER(eps),    WORD(kinds),  WORD(pattern), WORD(round),
    WORD(dtype),
};

/* Whether `list`, of words separated by spaces, has this word. */
static bool listed(const char *list, const char *word, size_t length) {
  for (; *list; list += strcspn(list, " "), list += strspn(list, " "))
    if (strcspn(list, " ") == length && strncmp(list, word, length) == 0) return true;
  return false;
}

static const struct key *find_key(const char *name, size_t length) {
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (strlen(keys[i].name) == length && strncmp(keys[i].name, name, length) == 0) return &keys[i];
  return NULL;
}

static bool set_word(const struct key *key, const char *value, void *field) {
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    if (strcmp(words[i].key, key->name) != 0 || strcmp(words[i].word, value) != 0) continue;
    *(int *)field = words[i].value;
    return true;
  }
  return false;
}

static bool set_value(struct shape *shape, const struct key *key, const char *value) {
  void *field = (char *)shape + key->offset;
  char *end;
  if (key->type == KEY_WORD) return set_word(key, value, field);
  if (key->type == KEY_NUMBER) {
    double number = strtod(value, &end);
    *(double *)field = number;
    return end != value && !*end && isfinite(number);
  }
  long whole = strtol(value, &end, 10);
  *(int *)field = (int)whole;
  return end != value && !*end && whole >= 0 && whole <= MAX_VALUE;
}

static int whole_of(const struct shape *shape, const struct key *key) {
  int value;
  memcpy(&value, (const char *)shape + key->offset, sizeof value);
  return value;
}

/* Sizes that do not fit each other; NULL if they do. Others are 0. */
static const char *contradiction(const struct op_case *c) {
  const struct shape *s = &c->shape;
  const int slack = s->before + s->after - s->kernel;
  const int slack_x = s->kernel_x ? s->before_x + s->after_x - s->kernel_x : slack;
  const int slice = strcmp(c->operation->name, "max_pool") == 0 ? s->C : s->out;
  const double images = (double)s->N * (s->T ? s->T : 1) * (s->K ? s->K : 1);
  const bool by_token = strcmp(c->operation->name, "assign_tokens") == 0;
  if (s->K && !by_token && s->K + s->skip > s->E) return "K is more than E";
  if (by_token && s->K > s->T) return "K is more than T";
  if (s->pattern == PATTERN_EMPTY && s->K > s->E / 2)
    return "half of the E experts are less than K";
  if (s->pattern == PATTERN_ONE && s->K > 1) return "one expert for each token, but K is more";
  if (listed(c->operation->needs, "E", 1) && s->F && s->E > TRIAL_EXPERTS) return "E is too large";
  if (strcmp(c->operation->name, "assign_counted") == 0 && s->E > TRIAL_EXPERTS)
    return "E is too large";
  if (s->patch && (s->size % s->patch || s->width % s->patch))
    return "size or width is no multiple of patch";
  if (s->groups && s->C % s->groups) return "C is no multiple of groups";
  if (s->groups > MAX_GROUPS) return "there are too many groups";
  if (s->parts > MAX_PARTS) return "there are too many parts";
  if (s->kernel && (s->size + slack < 0 || s->width + slack_x < 0))
    return "the kernel is too large";
  if (strcmp(c->operation->name, "max_pool") == 0 && s->before > 1) return "before is more than 1";
  if (strcmp(c->operation->name, "max_pool") == 0 &&
      (s->size + 2 * s->before < 3 || s->width + 2 * s->before < 3))
    return "the image is too small";
  if (strcmp(c->operation->name, "take_channels") == 0 && s->out > s->C)
    return "out is more than C";
  if ((s->ldy || s->at) && s->at + slice > s->ldy) return "ldy is less than at and the channels";
  if (images > 1 << 28) return "there are too many items";
  return NULL;
}

/* Reading. */

struct place {
  const char *path;
  int line;
};

static enum ditmoe_status read_key(const struct place *at, struct op_case *c, const char *word) {
  const char *equals = strchr(word, '=');
  size_t length = equals ? (size_t)(equals - word) : strlen(word);
  const struct operation *o = c->operation;
  const struct key *key = find_key(word, length);
  if (!equals)
    return report_error(DITMOE_FORMAT, "%s:%d: expected key=value, found \"%.40s\"", at->path,
                        at->line, word);
  if (!key || (!listed(o->needs, word, length) && !listed(o->takes, word, length)))
    return report_error(DITMOE_FORMAT, "%s:%d: %s has no key \"%.*s\"; it needs %s%s%s", at->path,
                        at->line, o->name, length > 40 ? 40 : (int)length, word, o->needs,
                        *o->takes ? " and takes " : "", o->takes);
  if (!set_value(&c->shape, key, equals + 1))
    return report_error(DITMOE_FORMAT, "%s:%d: %.*s: \"%.40s\" is not a value of it", at->path,
                        at->line, (int)length, word, equals + 1);
  return DITMOE_OK;
}

static enum ditmoe_status check_case(const struct place *at, const struct op_case *c) {
  const char *needs = c->operation->needs;
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (listed(needs, keys[i].name, strlen(keys[i].name)) && whole_of(&c->shape, &keys[i]) < 1)
      return report_error(DITMOE_FORMAT, "%s:%d: %s needs %s, at least 1", at->path, at->line,
                          c->operation->name, keys[i].name);
  const char *wrong = contradiction(c);
  if (wrong)
    return report_error(DITMOE_FORMAT, "%s:%d: %s: %s", at->path, at->line, c->operation->name,
                        wrong);
  return DITMOE_OK;
}

static const struct operation *find_operation(const char *name) {
  for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
    if (strcmp(operations[i].name, name) == 0) return &operations[i];
  return NULL;
}

static enum ditmoe_status read_line(const struct place *at, char *line, struct op_cases *cases) {
  static const char blanks[] = " \t\r";
  char *rest = NULL, *word = strtok_r(line, blanks, &rest);
  if (!word) return DITMOE_OK;
  cases->list = memory_resize(cases->list, cases->count + 1, sizeof *cases->list);
  struct op_case *c = &cases->list[cases->count++];
  *c = (struct op_case){find_operation(word), {.eps = 1e-6}, text_copy("")};
  if (!c->operation)
    return report_error(DITMOE_FORMAT, "%s:%d: no operation \"%.40s\"", at->path, at->line, word);
  while ((word = strtok_r(NULL, blanks, &rest))) {
    TRY(read_key(at, c, word));
    char *longer = text_format("%s%s%s", c->text, *c->text ? " " : "", word);
    free(c->text);
    c->text = longer;
  }
  return check_case(at, c);
}

enum ditmoe_status cases_read(const char *path, struct op_cases *out) {
  char *text = NULL, *rest;
  *out = (struct op_cases){0};
  TRY(text_file_read("--ops", path, MAX_BYTES, &text));
  enum ditmoe_status status = DITMOE_OK;
  struct place at = {path, 0};
  for (char *line = text; line && status == DITMOE_OK; line = rest) {
    rest = strchr(line, '\n');
    if (rest) *rest++ = 0;
    line[strcspn(line, "#")] = 0;
    at.line++;
    status = read_line(&at, line, out);
  }
  free(text);
  if (status == DITMOE_OK && out->count == 0)
    status = report_error(DITMOE_FORMAT, "%s: holds no case", path);
  if (status != DITMOE_OK) cases_free(out);
  return status;
}

void cases_free(struct op_cases *cases) {
  for (size_t i = 0; i < cases->count; i++) free(cases->list[i].text);
  free(cases->list);
  *cases = (struct op_cases){0};
}
