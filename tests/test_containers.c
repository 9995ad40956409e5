/* Where the weights are in a file: averages under the names that people use, wrappers in names of
 * tensors, calls that make tensors, element types, shards and folders. */
#include "programs.h"

#include "io/formats.h"
#include "pickle_emit.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *case_path(const char *name) {
  char path[200];
  snprintf(path, sizeof path, "tests/data/cases/%s", name);
  return source_path(path);
}

static const struct storage storages[] = {{"0", &(float){0}, 1, 4},
                                          {"1", &(float){1}, 1, 4},
                                          {"2", &(float){2}, 1, 4},
                                          {"3", &(float){3}, 1, 4}};

/* A value: {key:value ...}, [value ...], N for None, # for an integer, 0 to 3 for a tensor of one
 * element with this value. Returns what follows. */
static const char *put_value(struct bytes *b, const char *at) {
  if (*at == '{' || *at == '[') {
    const bool list = *at++ == '[';
    put(b, list ? "](" : "}(", 2);
    while (*at != '}' && *at != ']') {
      char key[100];
      const size_t length = list ? 0 : strcspn(at, ":");
      snprintf(key, sizeof key, "%.*s", (int)length, at);
      if (!list) put_text(b, key);
      at = put_value(b, at + length + !list);
      while (*at == ' ') at++;
    }
    put(b, list ? "e" : "u", 1);
  } else if (isdigit((unsigned char)*at)) {
    put_tensor(b, &(struct view){"Float", (char[]){*at, '\0'}, 1, 0, 1, {1}, {1}});
  } else {
    put(b, *at == 'N' ? "N" : "K\1", *at == 'N' ? 1 : 2);
  }
  return at + 1;
}

/* The file outlives the checkpoint. */
static enum ditmoe_status open_spec(struct bytes *file, const char *spec, const char *key,
                                    struct ditmoe_checkpoint **out) {
  struct storage used[4];
  size_t count = 0;
  for (int i = 0; i < 4; i++) {
    const char tensors[][3] = {{':', storages[i].key[0]}, {'[', storages[i].key[0]}};
    if (strstr(spec, tensors[0]) || strstr(spec, tensors[1])) used[count++] = storages[i];
  }
  file->size = 0;
  put_legacy_header(file);
  put_value(file, spec);
  PUT(file, ".");
  put_storages(file, used, count);
  return checkpoint_open_bytes(test_ctx(), "spec", file->data, file->size, key, out);
}

/* Which entry is taken: value is that of tensor w. */
static void test_keys(void **state) {
  (void)state;
  static const struct {
    const char *spec, *key, *taken;
    float value;
    const char *left;
  } cases[] = {
      {"{model:{w:1}ema:{w:2}}", NULL, "ema", 2, "model"},
      {"{model:{w:1}ema:{w:2}}", "model", "model", 1, NULL},
      {"{ema_state_dict:{w:2}model:{w:1}}", NULL, "ema_state_dict", 2, "model"},
      {"{net:{w:1}ema_model:{w:2}opt:{state:{}}}", NULL, "ema_model", 2, "net"},
      {"{params:{w:1}params_ema:{w:2}}", NULL, "params_ema", 2, "params"},
      {"{model:{w:1}averaged_model:{w:2}}", NULL, "averaged_model", 2, "model"},
      {"{module:{w:1}module_ema:{w:2}}", NULL, "module_ema", 2, "module"},
      {"{model:{w:1}shadow:{w:2}}", NULL, "shadow", 2, "model"},
      {"{model:{w:1}model_ema1:{w:2}model_ema2:{w:3}}", NULL, "model_ema1", 2, "model, model_ema2"},
      {"{net:{w:1}netEMA:{w:2}}", NULL, "netEMA", 2, "net"},
      {"{model:{w:1}polyak-0.99:{w:2}}", NULL, "polyak-0.99", 2, "model"},
      {"{schema:{w:2}model:{w:1}swash:{w:2}}", NULL, "model", 1, "schema, swash"},
      {"{state_dict:{w:1}callbacks:{EMA{'a'}:{ema_weights:{w:2}}}}", NULL,
       "callbacks.EMA{'a'}.ema_weights", 2, "state_dict"},
      {"{state_dict:{w:1}callbacks:{EMA:{state:{w:2}}}}", "callbacks.EMA.state",
       "callbacks.EMA.state", 2, NULL},
      {"{model:{w:1}ema:{decay:# shadow:{w:2}}}", NULL, "ema.shadow", 2, "model"},
      {"{model:{w:1}ema:{module:{w:2}}}", "ema", "ema.module", 2, NULL},
      {"{model:{w:1}ema:{step:3 shadow:{w:2}}}", NULL, "ema.shadow", 2, "model, ema"},
      {"{step:3 state_dict:{model:{w:1}}}", NULL, "state_dict.model", 1, NULL},
      {"{foo:{w:1}w:2}", NULL, NULL, 2, "foo"},
      {"{ema:{shadow_params:[2]}model:{w:1}}", "model", "model", 1, NULL},
      {"{ema_model.w:2 online_model.w:1 initted:0 step:3}", NULL, "ema_model", 2, "online_model"},
      {"{ema_model.w:2 online_model.w:1 step:3}", "online_model", "online_model", 1, NULL},
      {"{ema:{ema_model.w:2 initted:0}model:{w:1}}", NULL, "ema.ema_model", 2, "model"},
      {"{state_dict:{model.w:1 ema_model.w:2 loss.v:3}}", NULL, "state_dict.ema_model", 2, "model"},
      {"{state_dict:{model.w:1 vae.w:2}}", "state_dict.model", "state_dict.model", 1, NULL},
      {"{state_dict:{model.w:1 vae.w:2}}", "model", "state_dict.model", 1, NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes file;
    struct ditmoe_checkpoint *c;
    print_message("%s\n", cases[i].spec);
    assert_ok(test_ctx(), open_spec(&file, cases[i].spec, cases[i].key, &c));
    const char *taken = ditmoe_checkpoint_key(c), *left = ditmoe_checkpoint_left(c);
    assert_string_equal(taken ? taken : "", cases[i].taken ? cases[i].taken : "");
    assert_string_equal(left ? left : "", cases[i].left ? cases[i].left : "");
    const struct tensor *w = checkpoint_find(c, "w");
    assert_non_null(w);
    assert_memory_equal(w->data, &cases[i].value, 4);
    ditmoe_checkpoint_close(c);
  }
}

static void test_no_key(void **state) {
  (void)state;
  static const struct {
    const char *spec, *key;
    int status;
    const char *words[3];
  } cases[] = {
      {"{ema:{shadow_params:[2]decay:#}model:{w:1}}",
       NULL,
       4,
       {"ema.shadow_params is a list", "without names", "--key model"}},
      {"{shadow_params:[2]}", NULL, 4, {"shadow_params", "without names", "state dictionary"}},
      {"{ema_a:{w:1}ema_b:{w:2}model:{w:3}}", NULL, 2, {"ema_a", "ema_b", "--key chooses"}},
      {"{ema:{encoder:{w:1}decoder:{w:2}}}", NULL, 2, {"ema.encoder", "ema.decoder", "--key"}},
      {"{foo:{w:1}bar:{baz:{w:2}}}", NULL, 4, {"no tensors", "--key", "foo, bar.baz"}},
      {"{foo:{bar:{w:1}}}", "foo", 4, {"no tensors under key foo", "--key", "foo.bar"}},
      {"{model:{w:1}lr:#}", "lr", 2, {"is an integer", "model, lr", ""}},
      {"{model:{w:1}}", "model.blocks", 2, {"\"model.blocks\" is not there", "model", ""}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes file;
    struct ditmoe_checkpoint *c;
    assert_fails(test_ctx(), (enum ditmoe_status)cases[i].status, cases[i].words[0],
                 open_spec(&file, cases[i].spec, cases[i].key, &c));
    for (int j = 1; j < 3; j++)
      assert_non_null(strstr(ditmoe_errmsg(test_ctx()), cases[i].words[j]));
  }
}

/* Averages without weights. */
static void test_fallback(void **state) {
  (void)state;
  static const char *const specs[] = {"{ema:{}model:{w:1}}", "{model:{w:1}ema:{decay:#}}",
                                      "{model:{w:1}model_ema:N}"};
  for (int i = 0; i < 3; i++) {
    struct bytes file;
    struct ditmoe_checkpoint *c;
    assert_ok(test_ctx(), open_spec(&file, specs[i], NULL, &c));
    assert_string_equal(ditmoe_checkpoint_key(c), "model");
    assert_non_null(strstr(test_warning(), i == 2 ? "model_ema has no weights" : "ema has no"));
    assert_non_null(strstr(test_warning(), "those of model"));
    ditmoe_checkpoint_close(c);
  }
}

/* Names of all tensors after opening, in order. */
static void test_prefixes(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"{module.a:1 module.b.c:2}", "a b.c"},
      {"{module._orig_mod.a:1 module._orig_mod.b:2}", "a b"},
      {"{a.0._orig_mod.w:1 a.1._orig_mod.w:2}", "a.0.w a.1.w"},
      {"{_fsdp_wrapped_module.a._fsdp_wrapped_module._checkpoint_wrapped_module.w:1}", "a.w"},
      {"{n_averaged:3 module.a:1 module.b:2}", "a b"},
      {"{n_averaged:3 b:2}", "b n_averaged"},
      {"{model.net.a:1 model.net.b:2}", "a b"},
      {"{backbone.module.a:1 backbone.b:2}", "a b"},
      {"{ema_model.transformer.a:1}", "a"},
      {"{module:1 a._orig_mod:2}", "a._orig_mod module"},
      {"{model.a:1 head.b:2}", "head.b model.a"},
      {"{foo.a:1 foo.b:2}", "foo.a foo.b"},
      {"{model.a.b:1 model_ema.ab:2}", "model.a.b model_ema.ab"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes file;
    struct ditmoe_checkpoint *c;
    char names[200] = "";
    assert_ok(test_ctx(), open_spec(&file, cases[i][0], NULL, &c));
    for (size_t j = 0; j < c->count; j++)
      snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", j ? " " : "",
               c->tensors[j].name);
    assert_string_equal(names, cases[i][1]);
    ditmoe_checkpoint_close(c);
  }
  static const char *const same[] = {"{module.w:1 w:2}", "{a._orig_mod.w:1 a.module.w:2}"};
  for (int i = 0; i < 2; i++) {
    struct bytes file;
    struct ditmoe_checkpoint *c;
    assert_fails(test_ctx(), DITMOE_FORMAT, i ? "a._orig_mod.w and a.module.w" : "module.w",
                 open_spec(&file, same[i], NULL, &c));
  }
}

/* A model through each wrapper samples the same latents. */
static void test_wrapped_model(void **state) {
  (void)state;
  static const char *const wraps[][2] = {
      {"", ""},          {"_orig_mod.", ""}, {"module._orig_mod.", ""},
      {"backbone.", ""}, {"", "_orig_mod."}, {"model.net.", "module."}};
  struct ditmoe_checkpoint *tiny = checkpoint_of(case_path("00-tiny/tiny.safetensors"));
  struct tensor tensors[40];
  char names[40][200];
  char *first = NULL;
  size_t size = 0;
  for (size_t i = 0; i < sizeof wraps / sizeof *wraps; i++) {
    for (size_t j = 0; j < tiny->count; j++) {
      const char *name = tiny->tensors[j].name, *rest = strstr(name, "attn.");
      const int before = rest ? (int)(rest - name) : 0;
      snprintf(names[j], sizeof names[j], "%s%.*s%s%s", wraps[i][0], before, name,
               rest ? wraps[i][1] : "", name + before);
      tensors[j] = tiny->tensors[j];
      tensors[j].name = names[j];
    }
    assert_ok(test_ctx(), safetensors_write(test_ctx(), temporary_path("m.safetensors"), tensors,
                                            tiny->count, DT_COUNT, NULL, 0));
    assert_exit(run("rm -rf o; @sample -m m.safetensors --heads 2 --objective ddpm --vae none -n 2 "
                    "-c 1,2 --label-sampling list --steps 2 --cfg-scale 1 -o o/ --latents "
                    "l.safetensors --force --dtype f32 --tier generic"),
                0, "");
    size_t own;
    char *bytes = file_bytes(temporary_path("l.safetensors"), &own);
    if (first) assert_int_equal(own, size);
    if (first) assert_memory_equal(bytes, first, size);
    if (first) free(bytes);
    if (!first) first = bytes, size = own;
  }
  struct ditmoe_checkpoint *latents = checkpoint_of(temporary_path("l.safetensors"));
  float begin;
  memcpy(&begin, checkpoint_find(latents, "latents")->data, sizeof begin);
  assert_within("the first latent", fabsf(begin + 147.48616f), 0.02);
  ditmoe_checkpoint_close(latents);
  free(first);
  ditmoe_checkpoint_close(tiny);
}

/* {"x": PROGRAM, "w": tensor}: x is passed over, or refused with these words. */
static void test_globals(void **state) {
  (void)state;
#define CASE(program, words)                                                                       \
  { program, sizeof(program) - 1, words }
#define REDUCE(global, arguments) "c" global "\n" arguments "R"
  static const struct {
    const char *program;
    size_t size;
    const char *words;
  } cases[] = {
      CASE(REDUCE("torch\nSize", "K\2K\3\x86\x85"), NULL),
      CASE(REDUCE("torch\nSize", ")"), NULL),
      CASE(REDUCE("torch\ndevice", "X\4\0\0\0cudaK\0\x86"), NULL),
      CASE(REDUCE("torch\ndevice", "X\3\0\0\0cpu\x85"), NULL),
      CASE("ctorch\nbfloat16\n", NULL),
      CASE("ctorch\nfloat8_e4m3fn\n", NULL),
      CASE("ctorch\nuint3\n", NULL),
      CASE("ctorch\nper_channel_affine\n", NULL),
      CASE("ctorch\nTensor\n", NULL),
      CASE("ctorch.cuda\nHalfStorage\n", NULL),
      CASE(REDUCE("torch.serialization\n_get_layout", "X\x0d\0\0\0torch.strided\x85"), NULL),
      CASE(REDUCE("_codecs\nencode", "X\3\0\0\0abcX\6\0\0\0latin1\x86"), NULL),
      CASE(REDUCE("collections\nCounter", "}(X\1\0\0\0aK\2u\x85"), NULL),
      CASE(REDUCE("collections\nCounter", ")") "X\1\0\0\0aK\2s", NULL),
      CASE(REDUCE("__builtin__\nset", "](K\1K\2e\x85"), NULL),
      CASE(REDUCE("builtins\nset", ")"), NULL),
      CASE("\x8f(K\1K\2\x90", NULL),
      CASE(REDUCE("__builtin__\nbytearray", "X\1\0\0\0aX\7\0\0\0latin-1\x86"), NULL),
      CASE(REDUCE("__builtin__\ncomplex", "G\0\0\0\0\0\0\0\0G\0\0\0\0\0\0\0\0\x86"), NULL),
      CASE(REDUCE("__builtin__\nbytes", ")"), NULL),
      CASE(REDUCE("collections\ndefaultdict", "c__builtin__\nint\n\x85"),
           "collections.defaultdict"),
      CASE(REDUCE("__builtin__\neval", "X\1\0\0\0a\x85"), "__builtin__.eval"),
      CASE(REDUCE("_codecs\ndecode", ")"), "_codecs.decode"),
      CASE("ctorch\nload\n", "torch.load"),
      CASE("ctorch\nuint9\n", "torch.uint9"),
      CASE(REDUCE("torch\nSize", "K\2\x85"), "with other arguments"),
      CASE(REDUCE("__builtin__\nset", "](K\1eK\2\x86"), "with other arguments"),
      CASE(REDUCE("torch\nbfloat16", ")"), "not a function"),
      CASE(REDUCE("torch\nTensor", ")"), "not a function"),
      CASE("K\1(K\2\x90", "added to an integer"),
      CASE(REDUCE("torch._tensor\n_rebuild_from_type_v2",
                  "(ctorch._tensor\n_rebuild_from_type_v2\nctorch\nTensor\n)}t"),
           "not made of a tensor"),
      CASE(REDUCE("torch._tensor\n_rebuild_from_type_v2", "(ctorch\ndevice\nctorch\nTensor\n)}t"),
           "not made of a tensor"),
  };
#undef CASE
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes file = {.size = 0};
    struct ditmoe_checkpoint *c;
    put_legacy_header(&file);
    PUT(&file, "}(");
    put_text(&file, "x");
    put(&file, cases[i].program, cases[i].size);
    put_text(&file, "w");
    put_value(&file, "1");
    PUT(&file, "u.");
    put_storages(&file, &storages[1], 1);
    const enum ditmoe_status status =
        checkpoint_open_bytes(test_ctx(), "globals", file.data, file.size, NULL, &c);
    if (cases[i].words) {
      assert_fails(test_ctx(), DITMOE_FORMAT, cases[i].words, status);
      continue;
    }
    assert_ok(test_ctx(), status);
    assert_int_equal(c->count, 1);
    ditmoe_checkpoint_close(c);
  }
}

#define STORAGE(class, bytes) "(X\7\0\0\0storagec" class "\nX\1\0\0\0sX\3\0\0\0cpuK" bytes "tQ"
#define ORDERED                                                                                    \
  "\x89"                                                                                           \
  "ccollections\nOrderedDict\n)R"
#define V2(class, count, offset, shape, stride, bits)                                              \
  "ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE(class,                                            \
                                                 count) "K" offset shape stride ORDERED bits "tR"
#define V3(bytes, offset, shape, stride, type, bits)                                               \
  "ctorch._utils\n_rebuild_tensor_v3\n(" STORAGE("torch.storage\nUntypedStorage",                  \
                                                 bytes) "K" offset shape stride ORDERED            \
                                                        "ctorch\n" type "\n" bits "tR"
#define NEGATIVE  "}X\3\0\0\0neg\x88s"
#define CONJUGATE "}X\4\0\0\0conj\x88s"

/* {"w": PROGRAM} over a storage of 8 bytes. */
static void test_calls(void **state) {
  (void)state;
  static const uint8_t bytes[8] = {0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}; /* F32: 1 2 */
#define CASE(program, dtype, shape, expected, words)                                               \
  { program, sizeof(program) - 1, dtype, shape, expected, words }
#define FLOAT2 "torch\nFloatStorage\n", "\2"
  static const struct {
    const char *program;
    size_t size;
    const char *dtype;
    int64_t elements;
    const char *expected, *words;
  } cases[] = {
      CASE(V2("torch\nFloatStorage", "\2", "\0", "K\2\x85", "K\1\x85", NEGATIVE), "F32", 2,
           "\0\0\x80\xbf\0\0\0\xc0", NULL),
      CASE(V2("torch\nFloatStorage", "\2", "\1", "K\1\x85", "K\1\x85", "}X\3\0\0\0neg\x89s"), "F32",
           1, "\0\0\0\x40", NULL),
      CASE(V2("torch\nHalfStorage", "\4", "\0", "K\2K\2\x86", "K\1K\2\x86", NEGATIVE), "F16", 4,
           "\0\x80\0\x80\x80\xbf\0\xc0", NULL),
      CASE(V3("\x08", "\1", "K\3\x85", "K\1\x85", "float8_e4m3fn", NEGATIVE), "F8_E4M3", 3,
           "\x80\0\xbf", NULL),
      CASE(V3("\x08", "\1", "K\3\x85", "K\1\x85", "uint16", ""), "U16", 3, "\x80\x3f\0\0\0\x40",
           NULL),
      CASE(V3("\x08", "\1", "K\3\x85", "K\1\x85", "float8_e5m2", ""), "F8_E5M2", 3, "\0\x80\x3f",
           NULL),
      CASE(V3("\x08", "\0", "K\2\x85", "K\1\x85", "complex32", ""), "C32", 2,
           "\0\0\x80\x3f\0\0\0\x40", NULL),
      CASE(V2("torch\nComplexFloatStorage", "\1", "\0", "K\1\x85", "K\1\x85", ""), "C64", 1,
           "\0\0\x80\x3f\0\0\0\x40", NULL),
      CASE(V2("torch\nQUInt4x2Storage", "\x08", "\2", "K\5\x85", "K\1\x85", ""), "QUINT4", 5,
           "\0\x80\x3f", NULL),
      CASE("ctorch._utils\n_rebuild_tensor\n(" STORAGE("torch\nFloatStorage",
                                                       "\2") "K\1K\1\x85K\1\x85tR",
           "F32", 1, "\0\0\0\x40", NULL),
      CASE("ctorch._utils\n_rebuild_qtensor\n(" STORAGE(
               "torch\nQInt8Storage",
               "\x08") "K\2K\2\x85K\1\x85(ctorch\nper_tensor_affine\nG\0\0\0\0\0\0\0\0K\0t" ORDERED
                       "tR",
           "QINT8", 2, "\x80\x3f", NULL),
      CASE("ctorch._utils\n_rebuild_parameter_with_state\n(" V2(
               "torch\nFloatStorage", "\2", "\0", "K\1\x85", "K\1\x85", "") ORDERED "}tR",
           "F32", 1, "\0\0\x80\x3f", NULL),
      CASE("ctorch.nn.parameter\nParameter\n" V2("torch\nFloatStorage", "\2", "\0", "K\1\x85",
                                                 "K\1\x85", "") "\x88\x86\x81",
           "F32", 1, "\0\0\x80\x3f", NULL),
      CASE("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_"
           "tensor\nctorch\nTensor\n(" STORAGE("torch\nFloatStorage", "\2") "K\1K\1\x85K\1\x85t}tR",
           "F32", 1, "\0\0\0\x40", NULL),
      CASE(V2("torch\nFloatStorage", "\2", "\0", "K\2\x85", "K\1\x85", CONJUGATE), NULL, 0, NULL,
           "tensor w: a conjugate"),
      CASE(V2("torch\nIntStorage", "\2", "\0", "K\2\x85", "K\1\x85", NEGATIVE), NULL, 0, NULL,
           "tensor w: a conjugate or negative"),
      CASE(V2("torch\nComplexFloatStorage", "\1", "\0", "K\1\x85", "K\1\x85", CONJUGATE), NULL, 0,
           NULL, "tensor w: a conjugate"),
      CASE(V3("\x08", "\0", "K\2\x85", "K\1\x85", "bits8", ""), NULL, 0, NULL,
           "tensor w: its element type"),
      CASE(V3("\x08", "\3", "K\2\x85", "K\1\x85", "uint16", ""), NULL, 0, NULL,
           "beyond its storage"),
      CASE(V2("torch\nQUInt4x2Storage", "\x08", "\1", "K\5\x85", "K\1\x85", ""), NULL, 0, NULL,
           "smaller than a byte"),
      CASE("ctorch._utils\n_rebuild_sparse_tensor\n(K\1K\2tR", NULL, 0, NULL,
           "tensor w: it is sparse"),
      CASE("ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\nK\1\x85K\1\x85\x89tR",
           NULL, 0, NULL, "tensor w: it is sparse, without values"),
  };
#undef CASE
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes file = {.size = 0};
    struct ditmoe_checkpoint *c;
    const bool stored =
        strstr(cases[i].program, "_sparse_") == NULL && strstr(cases[i].program, "_meta_") == NULL;
    put_legacy_header(&file);
    PUT(&file, "}");
    put_text(&file, "w");
    put(&file, cases[i].program, cases[i].size);
    PUT(&file, "s.");
    /* The count is that of the storage's own class. */
    const uint8_t *count = memmem(cases[i].program, cases[i].size, "cpuK", 4);
    const uint64_t elements = stored ? count[4] : 1;
    put_storages(&file, &(struct storage){"s", bytes, elements, 8 / (size_t)elements}, stored);
    const enum ditmoe_status status =
        checkpoint_open_bytes(test_ctx(), "calls", file.data, file.size, NULL, &c);
    if (cases[i].words) {
      assert_fails(test_ctx(), DITMOE_FORMAT, cases[i].words, status);
      continue;
    }
    assert_ok(test_ctx(), status);
    assert_string_equal(dtype_name(c->tensors[0].dtype), cases[i].dtype);
    assert_int_equal(c->tensors[0].elements, cases[i].elements);
    assert_memory_equal(c->tensors[0].data, cases[i].expected, tensor_bytes(&c->tensors[0]));
    ditmoe_checkpoint_close(c);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_keys),          cmocka_unit_test(test_no_key),
      cmocka_unit_test(test_fallback),      cmocka_unit_test(test_prefixes),
      cmocka_unit_test(test_wrapped_model), cmocka_unit_test(test_globals),
      cmocka_unit_test(test_calls),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
