/* What a PyTorch checkpoint may refer to, and what calling it gives: all that torch's own
 * weights-only loader takes without being asked (torch/_weights_only_unpickler.py), and
 * argparse.Namespace. */
#include "io/pickle.h"

#include <string.h>

struct global;
typedef enum ditmoe_status call_function(struct pickle *, const struct global *,
                                         struct pickle_value arguments, struct pickle_value *out);
static call_function call_ordered_dict, call_opaque, call_same, call_tensor, call_parameter,
    call_subclass;

static const struct global {
  const char *module, *name;
  call_function *call;      /* NULL: cannot be called */
  enum pickle_kind kind;    /* of the result          */
  uint8_t least, most;      /* arguments of a view of a storage; 0: it is made of other things */
  uint8_t type_at, view_at; /* which of them are its element type and its view bits; 0: none   */
} globals[] = {
    {"collections", "OrderedDict", call_ordered_dict, PICKLE_DICT, 0, 0, 0, 0},
    {"collections", "Counter", call_same, PICKLE_DICT, 0, 0, 0, 0},
    {"builtins", "set", call_same, PICKLE_LIST, 0, 0, 0, 0},
    {"torch", "Size", call_same, PICKLE_TUPLE, 0, 0, 0, 0},
    {"argparse", "Namespace", call_opaque, PICKLE_RECORD, 0, 0, 0, 0},
    {"builtins", "bytes", call_opaque, PICKLE_OPAQUE, 0, 0, 0, 0}, /* an empty one, in protocol 2 */
    {"builtins", "bytearray", call_opaque, PICKLE_OPAQUE, 0, 2, 0, 0},
    {"builtins", "complex", call_opaque, PICKLE_OPAQUE, 0, 2, 0, 0},
    {"_codecs", "encode", call_opaque, PICKLE_OPAQUE, 0, 2, 0, 0}, /* bytes, in protocol 2 */
    {"torch", "device", call_opaque, PICKLE_OPAQUE, 0, 2, 0, 0},
    {"torch.serialization", "_get_layout", call_opaque, PICKLE_OPAQUE, 0, 1, 0, 0},
    {"torch", "Tensor", NULL, PICKLE_UNSET, 0, 0, 0, 0},
    {"torch.nn.parameter", "Parameter", call_parameter, PICKLE_TENSOR, 0, 0, 0, 0},
    {"torch._utils", "_rebuild_parameter", call_parameter, PICKLE_TENSOR, 0, 0, 0, 0},
    {"torch._utils", "_rebuild_parameter_with_state", call_parameter, PICKLE_TENSOR, 0, 0, 0, 0},
    {"torch._tensor", "_rebuild_from_type_v2", call_subclass, PICKLE_TENSOR, 0, 0, 0, 0},
    {"torch._utils", "_rebuild_tensor", call_tensor, PICKLE_TENSOR, 4, 4, 0, 0},
    {"torch._utils", "_rebuild_tensor_v2", call_tensor, PICKLE_TENSOR, 6, 7, 0, 6},
    {"torch._utils", "_rebuild_tensor_v3", call_tensor, PICKLE_TENSOR, 7, 8, 6, 7},
    {"torch._utils", "_rebuild_qtensor", call_tensor, PICKLE_TENSOR, 7, 7, 0, 0},
    {"torch._utils", "_rebuild_sparse_tensor", call_tensor, PICKLE_TENSOR, 0, 0, 0, 0},
    {"torch._utils", "_rebuild_meta_tensor_no_storage", call_tensor, PICKLE_TENSOR, 0, 0, 0, 0},
    {"torch._utils", "_rebuild_wrapper_subclass", call_tensor, PICKLE_TENSOR, 0, 0, 0, 0},
    {"torch._utils", "_rebuild_device_tensor_from_numpy", call_tensor, PICKLE_TENSOR, 0, 0, 0, 0},
    {"torch._utils", "_rebuild_device_tensor_from_cpu_tensor", call_tensor, PICKLE_TENSOR, 0, 0, 0,
     0},
};

/* Names in arguments that are types of no tensor, and ways of quantising. */
static const char constants[] =
    "bits8 bits16 bits1x8 bits2x4 bits4x2 uint1 uint2 uint3 uint4 uint5 uint6 uint7 int1 int2 int3"
    " int4 int5 int6 int7 per_tensor_affine per_tensor_symmetric per_channel_affine"
    " per_channel_symmetric per_channel_affine_float_qparams";

enum { GLOBAL_COUNT = sizeof globals / sizeof *globals };

static bool ends_with(struct text text, const char *ending) {
  size_t length = strlen(ending);
  return text.length >= length && memcmp(text.bytes + text.length - length, ending, length) == 0;
}

/* A constant: type, storage class or another one; UNSET if it is none. */
static struct pickle_value find_constant(struct text module, struct text name) {
  const bool torch = text_is(module, "torch"), classes = torch || text_is(module, "torch.cuda");
  /* A storage of bytes; the call that makes the tensor says of what type. */
  if (text_is(module, "torch.storage") && text_is(name, "UntypedStorage"))
    return (struct pickle_value){.kind = PICKLE_CLASS, .integer = DT_U8};
  for (int i = 0; i < DT_COUNT && name.length; i++) {
    if (torch && text_is(name, dtype_torch_name((enum dtype)i)))
      return (struct pickle_value){.kind = PICKLE_TYPE, .integer = i};
    if (classes && text_is(name, dtype_torch_storage((enum dtype)i)))
      return (struct pickle_value){.kind = PICKLE_CLASS, .integer = i};
  }
  const bool constant = torch && text_place(name, constants) >= 0;
  return (struct pickle_value){.kind = constant ? PICKLE_OPAQUE : PICKLE_UNSET};
}

enum ditmoe_status pickle_global(struct pickle *p, struct text module, struct text name,
                                 struct pickle_value *out) {
  const char *builtins = text_is(module, "__builtin__") ? "builtins" : NULL; /* in Python 2 */
  *out = find_constant(module, name);
  if (out->kind != PICKLE_UNSET) return DITMOE_OK;
  for (int i = 0; i < GLOBAL_COUNT; i++) {
    const bool same =
        builtins ? strcmp(globals[i].module, builtins) == 0 : text_is(module, globals[i].module);
    if (!same || !text_is(name, globals[i].name)) continue;
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

static enum ditmoe_status bad_call(struct pickle *p, const struct global *g, const char *what) {
  return fail(p->ctx, DITMOE_FORMAT, "%s: damaged pickle at byte %zu: %s.%s %s", p->path, p->in.at,
              g->module, g->name, what);
}

enum ditmoe_status pickle_call(struct pickle *p, struct pickle_value callee,
                               struct pickle_value arguments, struct pickle_value *out) {
  const struct global *g = callee.kind == PICKLE_GLOBAL ? &globals[callee.integer] : NULL;
  if (!g || !g->call) return pickle_bad(p, "something is called that is not a function");
  if (arguments.kind != PICKLE_TUPLE) return pickle_bad(p, "a call without a tuple of arguments");
  return g->call(p, g, arguments, out);
}

/* OrderedDict(), or the form of Python 2: OrderedDict([[key, value], ...]). */
static enum ditmoe_status call_ordered_dict(struct pickle *p, const struct global *g,
                                            struct pickle_value arguments,
                                            struct pickle_value *out) {
  TRY(pickle_node_new(p, g->kind, out));
  if (pickle_count(p, arguments) == 0) return DITMOE_OK;
  struct pickle_value pairs = pickle_item(p, arguments, 0);
  if (pickle_count(p, arguments) != 1 || pairs.kind != PICKLE_LIST)
    return bad_call(p, g, "of something else than pairs");
  p->steps += pickle_count(p, pairs); /* one list may be used many times */
  for (int32_t cell = p->nodes[pairs.node].first; cell != PICKLE_NIL; cell = p->cells[cell].next) {
    struct pickle_value pair = p->cells[cell].value;
    bool sequence = pair.kind == PICKLE_LIST || pair.kind == PICKLE_TUPLE;
    if (!sequence || pickle_count(p, pair) != 2)
      return bad_call(p, g, "of something else than pairs");
    TRY(pickle_append(p, *out, pickle_item(p, pair, 0)));
    TRY(pickle_append(p, *out, pickle_item(p, pair, 1)));
  }
  return DITMOE_OK;
}

/* Data that nobody needs. */
static enum ditmoe_status call_opaque(struct pickle *p, const struct global *g,
                                      struct pickle_value arguments, struct pickle_value *out) {
  if (pickle_count(p, arguments) > g->most) return bad_call(p, g, "with arguments");
  return pickle_node_new(p, g->kind, out);
}

/* Made of a container of its own kind, which takes its place. */
static enum ditmoe_status call_same(struct pickle *p, const struct global *g,
                                    struct pickle_value arguments, struct pickle_value *out) {
  if (pickle_count(p, arguments) == 0) return pickle_node_new(p, g->kind, out);
  *out = pickle_item(p, arguments, 0);
  if (pickle_count(p, arguments) == 1 && out->kind == g->kind) return DITMOE_OK;
  return bad_call(p, g, "with other arguments");
}

/* Numbers are checked when the tensor is used, where its name is known. */
static enum ditmoe_status call_tensor(struct pickle *p, const struct global *g,
                                      struct pickle_value arguments, struct pickle_value *out) {
  const uint32_t count = pickle_count(p, arguments);
  if (g->least &&
      (count < g->least || count > g->most || pickle_item(p, arguments, 0).kind != PICKLE_STORAGE))
    return bad_call(p, g, "is not made of (storage, offset, size, stride, ...)");
  TRY(pickle_node_new(p, g->kind, out));
  TRY(pickle_append(p, *out, (struct pickle_value){.kind = PICKLE_GLOBAL, .integer = g - globals}));
  return pickle_append(p, *out, arguments);
}

struct pickle_view pickle_view(const struct pickle *p, struct pickle_value tensor) {
  const struct global *g = &globals[pickle_item(p, tensor, 0).integer];
  const struct pickle_value call = pickle_item(p, tensor, 1);
  if (!g->least) return (struct pickle_view){0};
  struct pickle_view view = {.storage = pickle_item(p, call, 0),
                             .offset = pickle_item(p, call, 1),
                             .size = pickle_item(p, call, 2),
                             .stride = pickle_item(p, call, 3)};
  view.type = g->type_at ? pickle_item(p, call, g->type_at) : pickle_item(p, view.storage, 1);
  if (g->view_at) view.bits = pickle_item(p, call, g->view_at);
  return view;
}

/* (tensor, requires_grad, hooks, ...) */
static enum ditmoe_status call_parameter(struct pickle *p, const struct global *g,
                                         struct pickle_value arguments, struct pickle_value *out) {
  *out = pickle_item(p, arguments, 0);
  return out->kind == PICKLE_TENSOR ? DITMOE_OK : bad_call(p, g, "is not made of a tensor");
}

/* (function, class, arguments of the function, attributes) */
static enum ditmoe_status call_subclass(struct pickle *p, const struct global *g,
                                        struct pickle_value arguments, struct pickle_value *out) {
  const struct pickle_value function = pickle_item(p, arguments, 0);
  const struct pickle_value inner = pickle_item(p, arguments, 2);
  const struct global *made = function.kind == PICKLE_GLOBAL ? &globals[function.integer] : g;
  /* Not of itself: depth of calls would be that of the file. */
  if (made == g || made->kind != PICKLE_TENSOR || inner.kind != PICKLE_TUPLE)
    return bad_call(p, g, "is not made of a tensor");
  return made->call(p, made, inner, out);
}

/* ("storage", class, key, device, elements[, view]); view is None in all files since torch 0.4. */
enum ditmoe_status pickle_persistent(struct pickle *p, struct pickle_value id,
                                     struct pickle_value *out) {
  static const enum pickle_kind kinds[] = {PICKLE_STRING, PICKLE_CLASS, PICKLE_STRING,
                                           PICKLE_STRING, PICKLE_INT,   PICKLE_NONE};
  uint32_t count = id.kind == PICKLE_TUPLE ? pickle_count(p, id) : 0;
  bool good = count == 5 || count == 6;
  for (uint32_t i = 0; good && i < count; i++) good = pickle_item(p, id, i).kind == kinds[i];
  if (!good || !text_is(pickle_item(p, id, 0).text, "storage") || pickle_item(p, id, 4).integer < 0)
    return pickle_bad(p, "a persistent id that is not a storage");
  *out = (struct pickle_value){.kind = PICKLE_STORAGE, .node = id.node};
  TRY(mem_room(p->ctx, p->storage_count, sizeof *p->storages, "the pickle", &p->storages));
  p->storages[p->storage_count++] = *out;
  return DITMOE_OK;
}
