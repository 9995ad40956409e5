/* The pickle machine: one table row per opcode, each a small handler over a stack of values. Opcode
 * numbers and their arguments: CPython, Lib/pickletools.py. */
#include "io/pickle.h"

#include <string.h>

/* More opcodes than the largest training dictionary has; bounds time and memory on hostile
 * files. */
enum { PICKLE_MAX_STEPS = 1 << 25 };

enum ditmoe_status pickle_bad(struct pickle *p, const char *what) {
  return fail(p->ctx, DITMOE_FORMAT, "%s: damaged pickle at byte %zu: %s", p->path, p->in.at, what);
}

const char *pickle_kind_name(enum pickle_kind kind) {
  static const char *const names[] = {
      [PICKLE_UNSET] = "nothing",       [PICKLE_NONE] = "None",
      [PICKLE_BOOL] = "a bool",         [PICKLE_INT] = "an integer",
      [PICKLE_LONG] = "a huge integer", [PICKLE_FLOAT] = "a float",
      [PICKLE_STRING] = "a string",     [PICKLE_BYTES] = "bytes",
      [PICKLE_GLOBAL] = "a function",   [PICKLE_TUPLE] = "a tuple",
      [PICKLE_LIST] = "a list",         [PICKLE_DICT] = "a dictionary",
      [PICKLE_RECORD] = "a Namespace",  [PICKLE_STORAGE] = "a storage",
      [PICKLE_TENSOR] = "a tensor",     [PICKLE_TYPE] = "a torch constant",
      [PICKLE_CLASS] = "a class",       [PICKLE_OPAQUE] = "an object"};
  return names[kind];
}

/* Containers. */

enum ditmoe_status pickle_node_new(struct pickle *p, enum pickle_kind kind,
                                   struct pickle_value *out) {
  TRY(mem_room(p->ctx, p->node_count, sizeof *p->nodes, "the pickle", &p->nodes));
  p->nodes[p->node_count] = (struct pickle_node){PICKLE_NIL, PICKLE_NIL, 0};
  *out = (struct pickle_value){.kind = kind, .node = (uint32_t)p->node_count++};
  return DITMOE_OK;
}

enum ditmoe_status pickle_append(struct pickle *p, struct pickle_value container,
                                 struct pickle_value item) {
  struct pickle_node *node = &p->nodes[container.node];
  TRY(mem_room(p->ctx, p->cell_count, sizeof *p->cells, "the pickle", &p->cells));
  int32_t cell = (int32_t)p->cell_count++;
  p->cells[cell] = (struct pickle_cell){.value = item, .next = PICKLE_NIL};
  if (node->last == PICKLE_NIL)
    node->first = cell;
  else
    p->cells[node->last].next = cell;
  node->last = cell;
  node->count++;
  return DITMOE_OK;
}

struct pickle_value pickle_item(const struct pickle *p, struct pickle_value container,
                                uint32_t index) {
  int32_t cell = p->nodes[container.node].first;
  while (cell != PICKLE_NIL && index--) cell = p->cells[cell].next;
  return cell == PICKLE_NIL ? (struct pickle_value){0} : p->cells[cell].value;
}

struct pickle_value pickle_get(const struct pickle *p, struct pickle_value dict, const char *key) {
  struct pickle_value found = {0};
  for (int32_t cell = p->nodes[dict.node].first; cell != PICKLE_NIL;) {
    const struct pickle_cell *name = &p->cells[cell], *value = &p->cells[name->next];
    if (name->value.kind == PICKLE_STRING && text_is(name->value.text, key)) found = value->value;
    cell = value->next;
  }
  return found;
}

/* The stack. Items below the last mark are out of reach. */

/* Room for `needed` elements in a list that may also have shrunk. */
static enum ditmoe_status reserve(struct pickle *p, size_t needed, size_t *capacity, size_t size,
                                  void *block) {
  if (needed <= *capacity) return DITMOE_OK;
  TRY(mem_grow(p->ctx, *capacity, 2 * needed + 16, size, "the pickle", block));
  *capacity = 2 * needed + 16;
  return DITMOE_OK;
}

static enum ditmoe_status push(struct pickle *p, struct pickle_value value) {
  TRY(reserve(p, p->stack_count + 1, &p->stack_capacity, sizeof *p->stack, &p->stack));
  p->stack[p->stack_count++] = value;
  return DITMOE_OK;
}

static size_t reachable(const struct pickle *p) {
  return p->stack_count - (p->mark_count ? p->marks[p->mark_count - 1] : 0);
}

static enum ditmoe_status pop(struct pickle *p, struct pickle_value *out) {
  if (!reachable(p)) return pickle_bad(p, "the stack is empty");
  *out = p->stack[--p->stack_count];
  return DITMOE_OK;
}

static enum ditmoe_status pop_mark(struct pickle *p, size_t *from) {
  if (!p->mark_count) return pickle_bad(p, "no mark on the stack");
  *from = p->marks[--p->mark_count];
  return DITMOE_OK;
}

/* Moves the stack from height `from` up into a container. */
static enum ditmoe_status move_items(struct pickle *p, struct pickle_value container, size_t from) {
  for (size_t i = from; i < p->stack_count; i++) TRY(pickle_append(p, container, p->stack[i]));
  p->stack_count = from;
  return DITMOE_OK;
}

static enum ditmoe_status push_items(struct pickle *p, enum pickle_kind kind, size_t from) {
  struct pickle_value container;
  if (kind == PICKLE_DICT && (p->stack_count - from) % 2)
    return pickle_bad(p, "a dictionary key without a value");
  TRY(pickle_node_new(p, kind, &container));
  TRY(move_items(p, container, from));
  return push(p, container);
}

/* Arguments in the stream. */

static enum ditmoe_status take_number(struct pickle *p, unsigned width, uint64_t *out) {
  return span_number(&p->in, width, out) ? DITMOE_OK : pickle_bad(p, "it ends in the middle");
}

static enum ditmoe_status take_text(struct pickle *p, unsigned width, struct text *out) {
  uint64_t length;
  TRY(take_number(p, width, &length));
  if (!span_take(&p->in, length, &out->bytes))
    return pickle_bad(p, "a string longer than the file");
  out->length = (size_t)length;
  return DITMOE_OK;
}

/* Handlers. */

static enum ditmoe_status op_mark(struct pickle *p) {
  TRY(reserve(p, p->mark_count + 1, &p->mark_capacity, sizeof *p->marks, &p->marks));
  p->marks[p->mark_count++] = (uint32_t)p->stack_count;
  return DITMOE_OK;
}

static enum ditmoe_status op_stop(struct pickle *p) {
  p->stopped = true;
  return DITMOE_OK;
}

static enum ditmoe_status op_pop(struct pickle *p) {
  struct pickle_value value;
  return pop(p, &value);
}

static enum ditmoe_status op_pop_mark(struct pickle *p) { return pop_mark(p, &p->stack_count); }

static enum ditmoe_status op_dup(struct pickle *p) {
  if (!reachable(p)) return pickle_bad(p, "the stack is empty");
  return push(p, p->stack[p->stack_count - 1]);
}

static enum ditmoe_status op_constant(struct pickle *p) {
  return push(p, (struct pickle_value){.kind = p->op->kind, .integer = p->op->width});
}

static enum ditmoe_status op_integer(struct pickle *p) {
  uint64_t number;
  TRY(take_number(p, p->op->width, &number));
  const bool is_signed = p->op->width == 4;
  const int64_t integer = is_signed ? (int32_t)(uint32_t)number : (int64_t)number;
  return push(p, (struct pickle_value){.kind = PICKLE_INT, .integer = integer});
}

static enum ditmoe_status op_long(struct pickle *p) {
  struct text digits;
  TRY(take_text(p, p->op->width, &digits));
  if (digits.length > 8) return push(p, (struct pickle_value){.kind = PICKLE_LONG, .text = digits});
  bool negative = digits.length && digits.bytes[digits.length - 1] & 0x80;
  uint64_t number = negative ? UINT64_MAX : 0;
  for (size_t i = digits.length; i-- > 0;) number = number << 8 | digits.bytes[i];
  return push(p, (struct pickle_value){.kind = PICKLE_INT, .integer = (int64_t)number});
}

/* Big-endian, alone among all arguments. */
static enum ditmoe_status op_float(struct pickle *p) {
  uint64_t number;
  TRY(take_number(p, p->op->width, &number));
  number = __builtin_bswap64(number);
  struct pickle_value value = {.kind = PICKLE_FLOAT};
  memcpy(&value.real, &number, sizeof value.real);
  return push(p, value);
}

static enum ditmoe_status op_text(struct pickle *p) {
  struct pickle_value value = {.kind = p->op->kind};
  TRY(take_text(p, p->op->width, &value.text));
  return push(p, value);
}

/* A container of the `width` topmost values. */
static enum ditmoe_status op_container(struct pickle *p) {
  if (reachable(p) < p->op->width) return pickle_bad(p, "the stack is empty");
  return push_items(p, p->op->kind, p->stack_count - p->op->width);
}

/* The same of all above the mark. */
static enum ditmoe_status op_marked(struct pickle *p) {
  size_t from = 0;
  TRY(pop_mark(p, &from));
  return push_items(p, p->op->kind, from);
}

/* The items above height `from` go to the container just below. */
static enum ditmoe_status extend(struct pickle *p, size_t from) {
  const enum pickle_kind kind = p->op->kind;
  size_t floor = p->stack_count - reachable(p);
  if (from <= floor || from > p->stack_count) return pickle_bad(p, "the stack is empty");
  struct pickle_value target = p->stack[from - 1];
  if (target.kind != kind)
    return fail(p->ctx, DITMOE_FORMAT, "%s: damaged pickle at byte %zu: items are added to %s",
                p->path, p->in.at, pickle_kind_name(target.kind));
  if (kind == PICKLE_DICT && (p->stack_count - from) % 2)
    return pickle_bad(p, "a dictionary key without a value");
  return move_items(p, target, from);
}

/* `width` items; 0: all above the mark. */
static enum ditmoe_status op_extend(struct pickle *p) {
  size_t from = p->stack_count - p->op->width;
  if (p->stack_count < p->op->width) return pickle_bad(p, "the stack is empty");
  if (p->op->width == 0) TRY(pop_mark(p, &from));
  return extend(p, from);
}

static enum ditmoe_status op_get(struct pickle *p) {
  uint64_t index;
  TRY(take_number(p, p->op->width, &index));
  if (index >= p->memo_capacity || p->memo[index].kind == PICKLE_UNSET)
    return pickle_bad(p, "a memo entry that was never stored");
  return push(p, p->memo[index]);
}

static enum ditmoe_status memo_put(struct pickle *p, uint64_t index) {
  if (!reachable(p)) return pickle_bad(p, "the stack is empty");
  /* Picklers number entries from 0 in order of appearance, so an index beyond the bytes read is
   * never asked for again; keeping it would cost memory without bound. */
  if (index > p->in.at) return DITMOE_OK;
  size_t cleared = p->memo_capacity;
  TRY(reserve(p, (size_t)index + 1, &p->memo_capacity, sizeof *p->memo, &p->memo));
  if (cleared < p->memo_capacity)
    memset(p->memo + cleared, 0, (p->memo_capacity - cleared) * sizeof *p->memo);
  p->memo[index] = p->stack[p->stack_count - 1];
  return DITMOE_OK;
}

static enum ditmoe_status op_put(struct pickle *p) {
  uint64_t index;
  TRY(take_number(p, p->op->width, &index));
  return memo_put(p, index);
}

static enum ditmoe_status op_memoize(struct pickle *p) { return memo_put(p, p->memo_next++); }

static enum ditmoe_status push_global(struct pickle *p, struct text module, struct text name) {
  struct pickle_value value;
  TRY(pickle_global(p, module, name, &value));
  return push(p, value);
}

/* GLOBAL, and INST, of which only the refusal is left: it would call the global at once. */
static enum ditmoe_status op_global(struct pickle *p) {
  struct text module, name;
  if (!span_line(&p->in, &module) || !span_line(&p->in, &name))
    return pickle_bad(p, "it ends in the middle");
  TRY(push_global(p, module, name));
  return p->op->width == 0 ? DITMOE_OK : pickle_bad(p, "opcode INST");
}

static enum ditmoe_status op_stack_global(struct pickle *p) {
  struct pickle_value module = {0}, name = {0};
  TRY(pop(p, &name));
  TRY(pop(p, &module));
  if (module.kind != PICKLE_STRING || name.kind != PICKLE_STRING)
    return pickle_bad(p, "a global whose name is not a string");
  return push_global(p, module.text, name.text);
}

static enum ditmoe_status op_call(struct pickle *p) {
  struct pickle_value callee, arguments, result;
  TRY(pop(p, &arguments));
  TRY(pop(p, &callee));
  TRY(pickle_call(p, callee, arguments, &result));
  return push(p, result);
}

static enum ditmoe_status op_persistent(struct pickle *p) {
  struct pickle_value id, result;
  TRY(pop(p, &id));
  TRY(pickle_persistent(p, id, &result));
  return push(p, result);
}

/* Attributes: the arguments in a Namespace; `_metadata` of a state dictionary, which nobody
 * needs. A Namespace can take items in no other way, so that it may share the cells. */
static enum ditmoe_status op_build(struct pickle *p) {
  struct pickle_value state;
  TRY(pop(p, &state));
  if (!reachable(p)) return pickle_bad(p, "the stack is empty");
  const struct pickle_value object = p->stack[p->stack_count - 1];
  const enum pickle_kind target = object.kind;
  if ((target != PICKLE_DICT && target != PICKLE_RECORD) || state.kind != PICKLE_DICT)
    return fail(p->ctx, DITMOE_FORMAT,
                "%s: damaged pickle at byte %zu: attributes are set on %s from %s", p->path,
                p->in.at, pickle_kind_name(target), pickle_kind_name(state.kind));
  if (target == PICKLE_RECORD) p->nodes[object.node] = p->nodes[state.node];
  return DITMOE_OK;
}

static enum ditmoe_status op_protocol(struct pickle *p) {
  uint64_t protocol;
  TRY(take_number(p, p->op->width, &protocol));
  return protocol <= 5 ? DITMOE_OK : pickle_bad(p, "a protocol newer than 5");
}

static enum ditmoe_status op_frame(struct pickle *p) {
  uint64_t length;
  TRY(take_number(p, p->op->width, &length));
  return length <= span_left(&p->in) ? DITMOE_OK : pickle_bad(p, "a frame longer than the file");
}

static const struct pickle_opcode opcodes[256] = {
    ['('] = {"MARK", op_mark, 0, 0},
    ['.'] = {"STOP", op_stop, 0, 0},
    ['0'] = {"POP", op_pop, 0, 0},
    ['1'] = {"POP_MARK", op_pop_mark, 0, 0},
    ['2'] = {"DUP", op_dup, 0, 0},
    ['N'] = {"NONE", op_constant, 0, PICKLE_NONE},
    [0x88] = {"NEWTRUE", op_constant, 1, PICKLE_BOOL},
    [0x89] = {"NEWFALSE", op_constant, 0, PICKLE_BOOL},
    ['K'] = {"BININT1", op_integer, 1, PICKLE_INT},
    ['M'] = {"BININT2", op_integer, 2, PICKLE_INT},
    ['J'] = {"BININT", op_integer, 4, PICKLE_INT},
    [0x8a] = {"LONG1", op_long, 1, 0},
    [0x8b] = {"LONG4", op_long, 4, 0},
    ['G'] = {"BINFLOAT", op_float, 8, 0},
    ['U'] = {"SHORT_BINSTRING", op_text, 1, PICKLE_STRING},
    ['T'] = {"BINSTRING", op_text, 4, PICKLE_STRING},
    [0x8c] = {"SHORT_BINUNICODE", op_text, 1, PICKLE_STRING},
    ['X'] = {"BINUNICODE", op_text, 4, PICKLE_STRING},
    [0x8d] = {"BINUNICODE8", op_text, 8, PICKLE_STRING},
    ['C'] = {"SHORT_BINBYTES", op_text, 1, PICKLE_BYTES},
    ['B'] = {"BINBYTES", op_text, 4, PICKLE_BYTES},
    [0x8e] = {"BINBYTES8", op_text, 8, PICKLE_BYTES},
    [']'] = {"EMPTY_LIST", op_container, 0, PICKLE_LIST},
    ['l'] = {"LIST", op_marked, 0, PICKLE_LIST},
    ['a'] = {"APPEND", op_extend, 1, PICKLE_LIST},
    ['e'] = {"APPENDS", op_extend, 0, PICKLE_LIST},
    [')'] = {"EMPTY_TUPLE", op_container, 0, PICKLE_TUPLE},
    [0x85] = {"TUPLE1", op_container, 1, PICKLE_TUPLE},
    [0x86] = {"TUPLE2", op_container, 2, PICKLE_TUPLE},
    [0x87] = {"TUPLE3", op_container, 3, PICKLE_TUPLE},
    ['t'] = {"TUPLE", op_marked, 0, PICKLE_TUPLE},
    ['}'] = {"EMPTY_DICT", op_container, 0, PICKLE_DICT},
    ['d'] = {"DICT", op_marked, 0, PICKLE_DICT},
    ['s'] = {"SETITEM", op_extend, 2, PICKLE_DICT},
    ['u'] = {"SETITEMS", op_extend, 0, PICKLE_DICT},
    ['h'] = {"BINGET", op_get, 1, 0},
    ['j'] = {"LONG_BINGET", op_get, 4, 0},
    ['q'] = {"BINPUT", op_put, 1, 0},
    ['r'] = {"LONG_BINPUT", op_put, 4, 0},
    [0x94] = {"MEMOIZE", op_memoize, 0, 0},
    ['c'] = {"GLOBAL", op_global, 0, 0},
    ['i'] = {"INST", op_global, 1, 0},
    [0x93] = {"STACK_GLOBAL", op_stack_global, 0, 0},
    ['R'] = {"REDUCE", op_call, 0, 0},
    [0x81] = {"NEWOBJ", op_call, 0, 0},
    ['b'] = {"BUILD", op_build, 0, 0},
    ['Q'] = {"BINPERSID", op_persistent, 0, 0},
    [0x80] = {"PROTO", op_protocol, 1, 0},
    [0x95] = {"FRAME", op_frame, 8, 0},
    ['P'] = {"PERSID", NULL, 0, 0},
    ['I'] = {"INT", NULL, 0, 0},
    ['L'] = {"LONG", NULL, 0, 0},
    ['F'] = {"FLOAT", NULL, 0, 0},
    ['S'] = {"STRING", NULL, 0, 0},
    ['V'] = {"UNICODE", NULL, 0, 0},
    ['g'] = {"GET", NULL, 0, 0},
    ['p'] = {"PUT", NULL, 0, 0},
    ['o'] = {"OBJ", NULL, 0, 0},
    [0x82] = {"EXT1", NULL, 0, 0},
    [0x83] = {"EXT2", NULL, 0, 0},
    [0x84] = {"EXT4", NULL, 0, 0},
    [0x8f] = {"EMPTY_SET", op_container, 0, PICKLE_LIST},
    [0x90] = {"ADDITEMS", op_extend, 0, PICKLE_LIST},
    [0x91] = {"FROZENSET", NULL, 0, 0},
    [0x92] = {"NEWOBJ_EX", NULL, 0, 0},
    [0x96] = {"BYTEARRAY8", NULL, 0, 0},
    [0x97] = {"NEXT_BUFFER", NULL, 0, 0},
    [0x98] = {"READONLY_BUFFER", NULL, 0, 0},
};

static enum ditmoe_status step(struct pickle *p) {
  uint64_t code = 0;
  TRY(take_number(p, 1, &code));
  p->op = &opcodes[code];
  if (!p->op->name)
    return fail(p->ctx, DITMOE_FORMAT, "%s: damaged pickle at byte %zu: undefined opcode 0x%02x",
                p->path, p->in.at, (unsigned)code);
  if (!p->op->run)
    return fail(p->ctx, DITMOE_FORMAT,
                "%s: pickle opcode %s at byte %zu is refused: checkpoints do not need it", p->path,
                p->op->name, p->in.at);
  if (p->steps++ >= PICKLE_MAX_STEPS) return pickle_bad(p, "it is too long");
  return p->op->run(p);
}

enum ditmoe_status pickle_run(struct pickle *p, struct span *in, struct pickle_value *out) {
  p->in = *in;
  p->stopped = false;
  p->stack_count = p->mark_count = p->memo_next = 0;
  if (p->memo_capacity) memset(p->memo, 0, p->memo_capacity * sizeof *p->memo);
  while (!p->stopped) TRY(step(p));
  *in = p->in;
  return pop(p, out);
}

void pickle_init(struct pickle *p, struct ditmoe_ctx *ctx, const char *path) {
  *p = (struct pickle){.ctx = ctx, .path = path};
}

void pickle_fini(struct pickle *p) {
  mem_free(p->ctx, p->stack);
  mem_free(p->ctx, p->memo);
  mem_free(p->ctx, p->marks);
  mem_free(p->ctx, p->nodes);
  mem_free(p->ctx, p->cells);
  mem_free(p->ctx, p->storages);
}
