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
      [PICKLE_GLOBAL] = "a class",      [PICKLE_TUPLE] = "a tuple",
      [PICKLE_LIST] = "a list",         [PICKLE_DICT] = "a dictionary",
      [PICKLE_RECORD] = "a Namespace",  [PICKLE_STORAGE] = "a storage",
      [PICKLE_TENSOR] = "a tensor"};
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

/* Handlers. `width` is the number of bytes of the argument, or of items, from the table. */

static enum ditmoe_status op_mark(struct pickle *p, unsigned width) {
  (void)width;
  TRY(reserve(p, p->mark_count + 1, &p->mark_capacity, sizeof *p->marks, &p->marks));
  p->marks[p->mark_count++] = (uint32_t)p->stack_count;
  return DITMOE_OK;
}

static enum ditmoe_status op_stop(struct pickle *p, unsigned width) {
  (void)width;
  p->stopped = true;
  return DITMOE_OK;
}

static enum ditmoe_status op_pop(struct pickle *p, unsigned width) {
  (void)width;
  struct pickle_value value;
  return pop(p, &value);
}

static enum ditmoe_status op_pop_mark(struct pickle *p, unsigned width) {
  (void)width;
  return pop_mark(p, &p->stack_count);
}

static enum ditmoe_status op_dup(struct pickle *p, unsigned width) {
  (void)width;
  if (!reachable(p)) return pickle_bad(p, "the stack is empty");
  return push(p, p->stack[p->stack_count - 1]);
}

static enum ditmoe_status op_none(struct pickle *p, unsigned width) {
  (void)width;
  return push(p, (struct pickle_value){.kind = PICKLE_NONE});
}

static enum ditmoe_status op_bool(struct pickle *p, unsigned width) {
  (void)width;
  return push(p, (struct pickle_value){.kind = PICKLE_BOOL, .integer = p->opcode == 0x88});
}

static enum ditmoe_status op_unsigned(struct pickle *p, unsigned width) {
  uint64_t number;
  TRY(take_number(p, width, &number));
  return push(p, (struct pickle_value){.kind = PICKLE_INT, .integer = (int64_t)number});
}

static enum ditmoe_status op_signed(struct pickle *p, unsigned width) {
  uint64_t number;
  TRY(take_number(p, width, &number));
  return push(p, (struct pickle_value){.kind = PICKLE_INT, .integer = (int32_t)(uint32_t)number});
}

static enum ditmoe_status op_long(struct pickle *p, unsigned width) {
  struct text digits;
  TRY(take_text(p, width, &digits));
  if (digits.length > 8) return push(p, (struct pickle_value){.kind = PICKLE_LONG, .text = digits});
  bool negative = digits.length && digits.bytes[digits.length - 1] & 0x80;
  uint64_t number = negative ? UINT64_MAX : 0;
  for (size_t i = digits.length; i-- > 0;) number = number << 8 | digits.bytes[i];
  return push(p, (struct pickle_value){.kind = PICKLE_INT, .integer = (int64_t)number});
}

/* Big-endian, alone among all arguments. */
static enum ditmoe_status op_float(struct pickle *p, unsigned width) {
  uint64_t number;
  TRY(take_number(p, width, &number));
  number = __builtin_bswap64(number);
  struct pickle_value value = {.kind = PICKLE_FLOAT};
  memcpy(&value.real, &number, sizeof value.real);
  return push(p, value);
}

static enum ditmoe_status op_string(struct pickle *p, unsigned width) {
  struct pickle_value value = {.kind = PICKLE_STRING};
  TRY(take_text(p, width, &value.text));
  return push(p, value);
}

static enum ditmoe_status op_bytes(struct pickle *p, unsigned width) {
  struct pickle_value value = {.kind = PICKLE_BYTES};
  TRY(take_text(p, width, &value.text));
  return push(p, value);
}

static enum ditmoe_status op_empty_list(struct pickle *p, unsigned width) {
  (void)width;
  return push_items(p, PICKLE_LIST, p->stack_count);
}

static enum ditmoe_status op_empty_dict(struct pickle *p, unsigned width) {
  (void)width;
  return push_items(p, PICKLE_DICT, p->stack_count);
}

static enum ditmoe_status op_short_tuple(struct pickle *p, unsigned width) {
  if (reachable(p) < width) return pickle_bad(p, "the stack is empty");
  return push_items(p, PICKLE_TUPLE, p->stack_count - width);
}

static enum ditmoe_status op_container(struct pickle *p, unsigned width) {
  (void)width;
  size_t from = 0;
  TRY(pop_mark(p, &from));
  bool list = p->opcode == 'l', tuple = p->opcode == 't';
  return push_items(p, list ? PICKLE_LIST : tuple ? PICKLE_TUPLE : PICKLE_DICT, from);
}

/* The items above height `from` go to the container just below. */
static enum ditmoe_status extend(struct pickle *p, enum pickle_kind kind, size_t from) {
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

/* APPEND and SETITEM: `width` items; APPENDS and SETITEMS: all items above the mark. */
static enum ditmoe_status op_extend(struct pickle *p, unsigned width) {
  size_t from = p->stack_count - width;
  if (p->stack_count < width) return pickle_bad(p, "the stack is empty");
  if (width == 0) TRY(pop_mark(p, &from));
  bool list = p->opcode == 'a' || p->opcode == 'e';
  return extend(p, list ? PICKLE_LIST : PICKLE_DICT, from);
}

static enum ditmoe_status op_get(struct pickle *p, unsigned width) {
  uint64_t index;
  TRY(take_number(p, width, &index));
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

static enum ditmoe_status op_put(struct pickle *p, unsigned width) {
  uint64_t index;
  TRY(take_number(p, width, &index));
  return memo_put(p, index);
}

static enum ditmoe_status op_memoize(struct pickle *p, unsigned width) {
  (void)width;
  return memo_put(p, p->memo_next++);
}

static enum ditmoe_status push_global(struct pickle *p, struct text module, struct text name) {
  struct pickle_value value;
  TRY(pickle_global(p, module, name, &value));
  return push(p, value);
}

/* GLOBAL, and INST, of which only the refusal is left: it would call the global at once. */
static enum ditmoe_status op_global(struct pickle *p, unsigned width) {
  (void)width;
  struct text module, name;
  if (!span_line(&p->in, &module) || !span_line(&p->in, &name))
    return pickle_bad(p, "it ends in the middle");
  TRY(push_global(p, module, name));
  return p->opcode == 'c' ? DITMOE_OK : pickle_bad(p, "opcode INST");
}

static enum ditmoe_status op_stack_global(struct pickle *p, unsigned width) {
  (void)width;
  struct pickle_value module = {0}, name = {0};
  TRY(pop(p, &name));
  TRY(pop(p, &module));
  if (module.kind != PICKLE_STRING || name.kind != PICKLE_STRING)
    return pickle_bad(p, "a global whose name is not a string");
  return push_global(p, module.text, name.text);
}

static enum ditmoe_status op_call(struct pickle *p, unsigned width) {
  (void)width;
  struct pickle_value callee, arguments, result;
  TRY(pop(p, &arguments));
  TRY(pop(p, &callee));
  TRY(pickle_call(p, callee, arguments, &result));
  return push(p, result);
}

static enum ditmoe_status op_persistent(struct pickle *p, unsigned width) {
  (void)width;
  struct pickle_value id, result;
  TRY(pop(p, &id));
  TRY(pickle_persistent(p, id, &result));
  return push(p, result);
}

/* Attributes: the arguments in a Namespace; `_metadata` of a state dictionary, which nobody
 * needs. A Namespace can take items in no other way, so that it may share the cells. */
static enum ditmoe_status op_build(struct pickle *p, unsigned width) {
  (void)width;
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

static enum ditmoe_status op_protocol(struct pickle *p, unsigned width) {
  uint64_t protocol;
  TRY(take_number(p, width, &protocol));
  return protocol <= 5 ? DITMOE_OK : pickle_bad(p, "a protocol newer than 5");
}

static enum ditmoe_status op_frame(struct pickle *p, unsigned width) {
  uint64_t length;
  TRY(take_number(p, width, &length));
  return length <= span_left(&p->in) ? DITMOE_OK : pickle_bad(p, "a frame longer than the file");
}

static const struct opcode {
  const char *name;
  enum ditmoe_status (*run)(struct pickle *, unsigned width); /* NULL: known and refused */
  unsigned width;
} opcodes[256] = {
    ['('] = {"MARK", op_mark, 0},
    ['.'] = {"STOP", op_stop, 0},
    ['0'] = {"POP", op_pop, 0},
    ['1'] = {"POP_MARK", op_pop_mark, 0},
    ['2'] = {"DUP", op_dup, 0},
    ['N'] = {"NONE", op_none, 0},
    [0x88] = {"NEWTRUE", op_bool, 0},
    [0x89] = {"NEWFALSE", op_bool, 0},
    ['K'] = {"BININT1", op_unsigned, 1},
    ['M'] = {"BININT2", op_unsigned, 2},
    ['J'] = {"BININT", op_signed, 4},
    [0x8a] = {"LONG1", op_long, 1},
    [0x8b] = {"LONG4", op_long, 4},
    ['G'] = {"BINFLOAT", op_float, 8},
    ['U'] = {"SHORT_BINSTRING", op_string, 1},
    ['T'] = {"BINSTRING", op_string, 4},
    [0x8c] = {"SHORT_BINUNICODE", op_string, 1},
    ['X'] = {"BINUNICODE", op_string, 4},
    [0x8d] = {"BINUNICODE8", op_string, 8},
    ['C'] = {"SHORT_BINBYTES", op_bytes, 1},
    ['B'] = {"BINBYTES", op_bytes, 4},
    [0x8e] = {"BINBYTES8", op_bytes, 8},
    [']'] = {"EMPTY_LIST", op_empty_list, 0},
    ['l'] = {"LIST", op_container, 0},
    ['a'] = {"APPEND", op_extend, 1},
    ['e'] = {"APPENDS", op_extend, 0},
    [')'] = {"EMPTY_TUPLE", op_short_tuple, 0},
    [0x85] = {"TUPLE1", op_short_tuple, 1},
    [0x86] = {"TUPLE2", op_short_tuple, 2},
    [0x87] = {"TUPLE3", op_short_tuple, 3},
    ['t'] = {"TUPLE", op_container, 0},
    ['}'] = {"EMPTY_DICT", op_empty_dict, 0},
    ['d'] = {"DICT", op_container, 0},
    ['s'] = {"SETITEM", op_extend, 2},
    ['u'] = {"SETITEMS", op_extend, 0},
    ['h'] = {"BINGET", op_get, 1},
    ['j'] = {"LONG_BINGET", op_get, 4},
    ['q'] = {"BINPUT", op_put, 1},
    ['r'] = {"LONG_BINPUT", op_put, 4},
    [0x94] = {"MEMOIZE", op_memoize, 0},
    ['c'] = {"GLOBAL", op_global, 0},
    ['i'] = {"INST", op_global, 0},
    [0x93] = {"STACK_GLOBAL", op_stack_global, 0},
    ['R'] = {"REDUCE", op_call, 0},
    [0x81] = {"NEWOBJ", op_call, 0},
    ['b'] = {"BUILD", op_build, 0},
    ['Q'] = {"BINPERSID", op_persistent, 0},
    [0x80] = {"PROTO", op_protocol, 1},
    [0x95] = {"FRAME", op_frame, 8},
    ['P'] = {"PERSID", NULL, 0},
    ['I'] = {"INT", NULL, 0},
    ['L'] = {"LONG", NULL, 0},
    ['F'] = {"FLOAT", NULL, 0},
    ['S'] = {"STRING", NULL, 0},
    ['V'] = {"UNICODE", NULL, 0},
    ['g'] = {"GET", NULL, 0},
    ['p'] = {"PUT", NULL, 0},
    ['o'] = {"OBJ", NULL, 0},
    [0x82] = {"EXT1", NULL, 0},
    [0x83] = {"EXT2", NULL, 0},
    [0x84] = {"EXT4", NULL, 0},
    [0x8f] = {"EMPTY_SET", NULL, 0},
    [0x90] = {"ADDITEMS", NULL, 0},
    [0x91] = {"FROZENSET", NULL, 0},
    [0x92] = {"NEWOBJ_EX", NULL, 0},
    [0x96] = {"BYTEARRAY8", NULL, 0},
    [0x97] = {"NEXT_BUFFER", NULL, 0},
    [0x98] = {"READONLY_BUFFER", NULL, 0},
};

static enum ditmoe_status step(struct pickle *p) {
  uint64_t code = 0;
  TRY(take_number(p, 1, &code));
  const struct opcode *opcode = &opcodes[code];
  p->opcode = (unsigned)code;
  if (!opcode->name)
    return fail(p->ctx, DITMOE_FORMAT, "%s: damaged pickle at byte %zu: undefined opcode 0x%02x",
                p->path, p->in.at, p->opcode);
  if (!opcode->run)
    return fail(p->ctx, DITMOE_FORMAT,
                "%s: pickle opcode %s at byte %zu is refused: checkpoints do not need it", p->path,
                opcode->name, p->in.at);
  if (p->steps++ >= PICKLE_MAX_STEPS) return pickle_bad(p, "it is too long");
  return opcode->run(p, opcode->width);
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
