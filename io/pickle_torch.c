/* What a PyTorch checkpoint may refer to: one table of globals, and what calling each one gives. */
#include "io/pickle.h"

#include <string.h>

typedef enum ditmoe_status call_function(struct pickle *, struct pickle_value arguments,
                                         struct pickle_value *out);
static call_function call_ordered_dict, call_namespace, call_tensor, call_parameter;

static const struct global {
  const char *module, *name;
  call_function *call; /* NULL: cannot be called      */
  enum dtype storage;  /* DT_COUNT: no storage class  */
} globals[] = {
    {"collections", "OrderedDict", call_ordered_dict, DT_COUNT},
    {"argparse", "Namespace", call_namespace, DT_COUNT},
    {"torch._utils", "_rebuild_tensor_v2", call_tensor, DT_COUNT},
    {"torch._utils", "_rebuild_parameter", call_parameter, DT_COUNT},
    {"torch", "FloatStorage", NULL, DT_F32},
    {"torch", "HalfStorage", NULL, DT_F16},
    {"torch", "BFloat16Storage", NULL, DT_BF16},
    {"torch", "DoubleStorage", NULL, DT_F64},
    {"torch", "LongStorage", NULL, DT_I64},
    {"torch", "IntStorage", NULL, DT_I32},
    {"torch", "ShortStorage", NULL, DT_I16},
    {"torch", "CharStorage", NULL, DT_I8},
    {"torch", "ByteStorage", NULL, DT_U8},
    {"torch", "BoolStorage", NULL, DT_BOOL},
};

enum { GLOBAL_COUNT = sizeof globals / sizeof *globals };

static bool ends_with(struct text text, const char *ending) {
  size_t length = strlen(ending);
  return text.length >= length && memcmp(text.bytes + text.length - length, ending, length) == 0;
}

enum ditmoe_status pickle_global(struct pickle *p, struct text module, struct text name,
                                 struct pickle_value *out) {
  for (int i = 0; i < GLOBAL_COUNT; i++) {
    if (!text_is(module, globals[i].module) || !text_is(name, globals[i].name)) continue;
    *out = (struct pickle_value){.kind = PICKLE_GLOBAL, .integer = i};
    return DITMOE_OK;
  }
  if (text_is(module, "torch") && ends_with(name, "Storage"))
    return fail(p->ctx, DITMOE_FORMAT, "%s: storage type torch.%.*s is not supported", p->path,
                TEXT(name));
  return fail(p->ctx, DITMOE_FORMAT,
              "%s: forbidden global %.*s.%.*s: only tensors and plain containers are read, and "
              "nothing was executed",
              p->path, TEXT(module), TEXT(name));
}

enum dtype pickle_storage_dtype(struct pickle_value global) {
  return global.kind == PICKLE_GLOBAL ? globals[global.integer].storage : DT_COUNT;
}

enum ditmoe_status pickle_call(struct pickle *p, struct pickle_value callee,
                               struct pickle_value arguments, struct pickle_value *out) {
  if (callee.kind != PICKLE_GLOBAL || !globals[callee.integer].call)
    return pickle_bad(p, "something is called that is not a function");
  if (arguments.kind != PICKLE_TUPLE) return pickle_bad(p, "a call without a tuple of arguments");
  return globals[callee.integer].call(p, arguments, out);
}

/* OrderedDict(), or the form of Python 2: OrderedDict([[key, value], ...]). */
static enum ditmoe_status call_ordered_dict(struct pickle *p, struct pickle_value arguments,
                                            struct pickle_value *out) {
  TRY(pickle_node_new(p, PICKLE_DICT, out));
  if (pickle_count(p, arguments) == 0) return DITMOE_OK;
  struct pickle_value pairs = pickle_item(p, arguments, 0);
  if (pickle_count(p, arguments) != 1 || pairs.kind != PICKLE_LIST)
    return pickle_bad(p, "OrderedDict of something else than pairs");
  p->steps += pickle_count(p, pairs); /* one list may be used many times */
  for (int32_t cell = p->nodes[pairs.node].first; cell != PICKLE_NIL; cell = p->cells[cell].next) {
    struct pickle_value pair = p->cells[cell].value;
    bool sequence = pair.kind == PICKLE_LIST || pair.kind == PICKLE_TUPLE;
    if (!sequence || pickle_count(p, pair) != 2)
      return pickle_bad(p, "OrderedDict of something else than pairs");
    TRY(pickle_append(p, *out, pickle_item(p, pair, 0)));
    TRY(pickle_append(p, *out, pickle_item(p, pair, 1)));
  }
  return DITMOE_OK;
}

static enum ditmoe_status call_namespace(struct pickle *p, struct pickle_value arguments,
                                         struct pickle_value *out) {
  if (pickle_count(p, arguments)) return pickle_bad(p, "Namespace with arguments");
  return pickle_node_new(p, PICKLE_RECORD, out);
}

/* (storage, offset, size, stride, requires_grad, hooks[, metadata]). Numbers are checked when the
 * tensor is used, where its name is known. */
static enum ditmoe_status call_tensor(struct pickle *p, struct pickle_value arguments,
                                      struct pickle_value *out) {
  uint32_t count = pickle_count(p, arguments);
  if (count < 6 || count > 7 || pickle_item(p, arguments, 0).kind != PICKLE_STORAGE)
    return pickle_bad(p, "a tensor that is not made of (storage, offset, size, stride, ...)");
  *out = (struct pickle_value){.kind = PICKLE_TENSOR, .node = arguments.node};
  return DITMOE_OK;
}

/* (tensor, requires_grad, hooks) */
static enum ditmoe_status call_parameter(struct pickle *p, struct pickle_value arguments,
                                         struct pickle_value *out) {
  *out = pickle_item(p, arguments, 0);
  if (out->kind != PICKLE_TENSOR) return pickle_bad(p, "a parameter that is not made of a tensor");
  return DITMOE_OK;
}

/* ("storage", class, key, device, elements[, view]); view is None in all files since torch 0.4. */
enum ditmoe_status pickle_persistent(struct pickle *p, struct pickle_value id,
                                     struct pickle_value *out) {
  static const enum pickle_kind kinds[] = {PICKLE_STRING, PICKLE_GLOBAL, PICKLE_STRING,
                                           PICKLE_STRING, PICKLE_INT,    PICKLE_NONE};
  uint32_t count = id.kind == PICKLE_TUPLE ? pickle_count(p, id) : 0;
  bool good = count == 5 || count == 6;
  for (uint32_t i = 0; good && i < count; i++) good = pickle_item(p, id, i).kind == kinds[i];
  if (!good || !text_is(pickle_item(p, id, 0).text, "storage") ||
      pickle_storage_dtype(pickle_item(p, id, 1)) == DT_COUNT || pickle_item(p, id, 4).integer < 0)
    return pickle_bad(p, "a persistent id that is not a storage");
  *out = (struct pickle_value){.kind = PICKLE_STORAGE, .node = id.node};
  TRY(mem_room(p->ctx, p->storage_count, sizeof *p->storages, "the pickle", &p->storages));
  p->storages[p->storage_count++] = *out;
  return DITMOE_OK;
}
