/* A restricted pickle machine: protocol 2 to 5 opcodes that describe data, and the few globals that
 * a PyTorch checkpoint needs. It builds a tree of values and executes nothing; any other global or
 * opcode is an error that names it. Time and memory are linear in the bytes read. */
#ifndef IO_PICKLE_H
#define IO_PICKLE_H

#include "io/formats.h"

enum pickle_kind {
  PICKLE_UNSET, /* memo slot without a value */
  PICKLE_NONE,
  PICKLE_BOOL,
  PICKLE_INT,
  PICKLE_LONG, /* an integer beyond 64 bits: `text` is its little-endian two's complement */
  PICKLE_FLOAT,
  PICKLE_STRING,
  PICKLE_BYTES,
  PICKLE_GLOBAL, /* a function                                                               */
  PICKLE_TYPE,   /* torch.float32 ...; an enum dtype                                           */
  PICKLE_CLASS,  /* torch.FloatStorage ...; the same                                         */
  PICKLE_OPAQUE, /* a device, a layout, a complex number: data that nobody needs             */
  PICKLE_TUPLE,
  PICKLE_LIST,
  PICKLE_DICT,
  PICKLE_RECORD, /* argparse.Namespace; node: attributes, as of a dictionary                      */
  PICKLE_STORAGE, /* node: the persistent id ("storage", class, key, device, elements)          */
  PICKLE_TENSOR   /* node: the call (function, (storage, offset, size, ...)), not yet checked   */
};

struct pickle_value {
  enum pickle_kind kind;
  union {
    int64_t integer; /* also bool, and the index of a global, type or class */
    double real;
    struct text text;
    uint32_t node;
  };
};

/* Containers are chains of cells; a dictionary alternates keys and values. Nothing is freed one by
 * one, so the depth of nesting costs nothing. */
enum { PICKLE_NIL = -1 };
struct pickle_cell {
  struct pickle_value value;
  int32_t next;
};
struct pickle_node {
  int32_t first, last;
  uint32_t count; /* cells */
};

struct pickle;
struct pickle_opcode {
  const char *name;
  enum ditmoe_status (*run)(struct pickle *pickle); /* NULL: known and refused                */
  unsigned width;        /* bytes of the argument, items of a container, or a constant's value */
  enum pickle_kind kind; /* of what it makes, or adds to                                       */
};

struct pickle {
  struct ditmoe_ctx *ctx;
  const char *path;
  struct span in;
  const struct pickle_opcode *op; /* being run */
  size_t steps;
  bool stopped;
  struct pickle_value *stack, *memo;
  uint32_t *marks; /* heights of the stack */
  struct pickle_node *nodes;
  struct pickle_cell *cells;
  struct pickle_value *storages; /* in order of appearance, also repeated ones */
  size_t stack_count, stack_capacity, mark_count, mark_capacity, memo_capacity, memo_next;
  size_t node_count, cell_count, storage_count;
};

void pickle_init(struct pickle *pickle, struct ditmoe_ctx *ctx, const char *path);
void pickle_fini(struct pickle *pickle);
/* Runs one pickle of `in`, which advances behind it. Values of earlier runs stay valid. */
enum ditmoe_status pickle_run(struct pickle *pickle, struct span *in, struct pickle_value *out);

/* "tuple", "tensor" and so on, for messages. */
const char *pickle_kind_name(enum pickle_kind kind);
/* Item `index` of a tuple or of the arguments of a storage or tensor; UNSET if there is none. */
struct pickle_value pickle_item(const struct pickle *pickle, struct pickle_value container,
                                uint32_t index);
static inline uint32_t pickle_count(const struct pickle *pickle, struct pickle_value container) {
  return pickle->nodes[container.node].count;
}
/* What a tensor was made of, each still any value; storage is UNSET for one that is not a view of a
 * storage: a sparse one, or one without values. bits: dictionary of view bits such as "neg". */
struct pickle_view {
  struct pickle_value storage, offset, size, stride, type, bits;
};
struct pickle_view pickle_view(const struct pickle *pickle, struct pickle_value tensor);
/* Value of a string key of a dictionary; UNSET if absent. */
struct pickle_value pickle_get(const struct pickle *pickle, struct pickle_value dict,
                               const char *key);

/* For pickle_torch.c. */
enum ditmoe_status pickle_bad(struct pickle *pickle, const char *what);
enum ditmoe_status pickle_node_new(struct pickle *pickle, enum pickle_kind kind,
                                   struct pickle_value *out);
enum ditmoe_status pickle_append(struct pickle *pickle, struct pickle_value container,
                                 struct pickle_value item);

/* The outside world of a pickle (pickle_torch.c): what a global means, what calling one with a
 * tuple gives, and what a persistent id is. */
enum ditmoe_status pickle_global(struct pickle *pickle, struct text module, struct text name,
                                 struct pickle_value *out);
enum ditmoe_status pickle_call(struct pickle *pickle, struct pickle_value callee,
                               struct pickle_value arguments, struct pickle_value *out);
enum ditmoe_status pickle_persistent(struct pickle *pickle, struct pickle_value id,
                                     struct pickle_value *out);
/* Element type of a storage class or of a type, DT_COUNT for other values. */
static inline enum dtype pickle_dtype(struct pickle_value type) {
  const bool typed = type.kind == PICKLE_TYPE || type.kind == PICKLE_CLASS;
  return typed ? (enum dtype)type.integer : DT_COUNT;
}

#endif
