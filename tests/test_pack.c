/* Packed files: the same numbers as from the plain file, and nothing but one line from a file that
 * is damaged, of another tier or hostile. */
#include "backend/packed.h"
#include "io/formats.h"
#include "io/packed.h"
#include "tests/programs.h"
#include "tests/synthetic.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const dtypes[] = {"f32", "bf16"};

static bool available(const char *tier) {
  struct exec ex;
  enum ditmoe_status status = backend_open(&ex, test_ctx(), "cpu", tier, 1);
  if (status != DITMOE_DEVICE) assert_ok(test_ctx(), status);
  exec_close(&ex);
  return status == DITMOE_OK;
}

static void pack_file(const char *from, const char *to, const char *tier, const char *dtype,
                      int threads) {
  const struct ditmoe_model_options options = {.tier = tier, .dtype = dtype, .threads = threads};
  assert_ok(test_ctx(), ditmoe_model_pack(test_ctx(), from, &options, to));
}

/* A model and the file that its layers lie in. */
struct loaded {
  struct opened opened;
  struct ditmoe_checkpoint *file;
};

static void load(struct loaded *out, const char *path, const char *tier, const char *dtype,
                 const char *record) {
  struct exec *ex = &out->opened.ex;
  out->file = checkpoint_of(path);
  assert_ok(test_ctx(), backend_open(ex, test_ctx(), "cpu", tier, 2));
  assert_ok(test_ctx(), backend_compute(ex, dtype));
  assert_ok(test_ctx(), dit_open(ex, out->file, record, &out->opened.model));
}

static void unload(struct loaded *loaded) {
  model_close(&loaded->opened);
  ditmoe_checkpoint_close(loaded->file);
}

enum { IMAGES = 3 };

static float *predict(struct loaded *loaded, size_t *count) {
  *count = IMAGES * model_output_size(&loaded->opened);
  float *out = malloc(*count * sizeof *out);
  assert_non_null(out);
  model_predict(&loaded->opened, out, 0, IMAGES, 2, NULL);
  return out;
}

static void assert_same_model(const char *plain, const char *packed, const char *tier,
                              const char *dtype, const char *record) {
  struct loaded a, b;
  size_t count, other;
  load(&a, plain, tier, dtype, record);
  load(&b, packed, tier, dtype, NULL);
  const struct dit *x = a.opened.model, *y = b.opened.model;
  assert_int_equal(x->params.parameters, y->params.parameters);
  assert_int_equal(x->params.weight_bytes, y->params.weight_bytes);
  float *expected = predict(&a, &count), *found = predict(&b, &other);
  assert_int_equal(count, other);
  assert_memory_equal(expected, found, count * sizeof *found);
  free(expected);
  free(found);
  unload(&a);
  unload(&b);
}

static void test_same_bits(void **state) {
  (void)state;
  const struct synthetic *const specs[] = {&synthetic_uneven, &synthetic_prototypes};
  for (int s = 0; s < 2; s++) {
    synthetic_write(specs[s], temporary_path("plain.safetensors"));
    for (int t = 0; t < 2 * TIERS; t++) {
      const char *tier = tiers[t / 2], *dtype = dtypes[t % 2];
      if (!available(tier)) continue;
      const char *plain = temporary_path("plain.safetensors"), *packed = temporary_path("packed");
      pack_file(plain, packed, tier, dtype, 1 + t % 2);
      assert_same_model(plain, packed, tier, dtype, NULL);
    }
  }
}

/* q, k and v apart, an embedder in every block, half types, PyTorch files: where fixtures have
 * them. */
static void test_other_sources(void **state) {
  (void)state;
  static const struct {
    const char *name, *record;
  } files[] = {
      {"diffusers_dit/pipeline", NULL},
      {"promoe/dit_dense/bare.safetensors", "{\"heads\":4,\"family\":\"promoe-dit\"}"},
      {"promoe/diffmoe_shared_qknorm/bare.safetensors", "{\"objective\":\"rf\"}"},
      {"promoe/ecdit_swiglu_shared/bare.safetensors",
       "{\"objective\":\"rf\",\"heads\":4,\"capacity\":1}"},
      {"dit_moe/c_flash_qknorm/bare_fp16.pt", "{\"top_k\":1,\"objective\":\"ddpm\"}"},
      {"dit_moe/c_flash_qknorm/bare_bf16.pt", "{\"top_k\":1,\"objective\":\"rf\"}"},
  };
  int compared = 0;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    const char *plain = fixture_path(files[i].name), *packed = temporary_path("packed");
    /* plan_only is of models that are opened. */
    const struct ditmoe_model_options options = {.record = files[i].record, .plan_only = i % 2};
    if (access(plain, R_OK) != 0) continue;
    assert_ok(test_ctx(), ditmoe_model_pack(test_ctx(), plain, &options, packed));
    assert_same_model(plain, packed, NULL, NULL, files[i].record);
    compared++;
  }
  assert_true(compared > 0);
}

static void assert_same_files(const char *a, const char *b) {
  size_t size, other;
  char *x = file_bytes(a, &size), *y = file_bytes(b, &other);
  assert_int_equal(size, other);
  assert_memory_equal(x, y, size);
  free(x);
  free(y);
}

static void test_same_file(void **state) {
  (void)state;
  const char *plain = temporary_path("plain.safetensors");
  synthetic_write(&synthetic_uneven, plain);
  pack_file(plain, temporary_path("one"), NULL, "bf16", 1);
  pack_file(plain, temporary_path("two"), NULL, "bf16", 2);
  assert_same_files(temporary_path("one"), temporary_path("two"));
}

/* The compute type is that of the file if nobody asks for another; the record is inside; data of
 * the context that opened the model are not needed later. */
static void test_open(void **state) {
  (void)state;
  struct ditmoe_model_info info;
  synthetic_write(&synthetic_uneven, temporary_path("plain.safetensors"));
  for (int d = 0; d < 2; d++) {
    struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
    struct ditmoe_model *model = NULL;
    pack_file(temporary_path("plain.safetensors"), temporary_path("packed"), NULL, dtypes[d], 0);
    assert_ok(ctx, ditmoe_model_open(ctx, temporary_path("packed"), NULL, &model));
    ditmoe_ctx_destroy(ctx);
    ditmoe_model_info(model, &info);
    assert_string_equal(info.dtype, dtypes[d]);
    assert_string_equal(info.kind, "dit-moe");
    ditmoe_model_close(model);
  }
}

static void test_other_tier(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_model *model = NULL;
  char packed[256], plain[256], none[256];
  snprintf(packed, sizeof packed, "%s", temporary_path("packed"));
  snprintf(plain, sizeof plain, "%s", temporary_path("plain.safetensors"));
  snprintf(none, sizeof none, "%s", temporary_path("none"));
  synthetic_write(&synthetic_uneven, plain);
  pack_file(plain, packed, "generic", "bf16", 0);
  const struct ditmoe_model_options ref = {.backend = "ref"},
                                    f32 = {.tier = "generic", .dtype = "f32"};
  assert_fails(ctx, DITMOE_MISMATCH, "this run is of backend ref",
               ditmoe_model_open(ctx, packed, &ref, &model));
  assert_fails(ctx, DITMOE_MISMATCH, "or use --tier generic --dtype bf16",
               ditmoe_model_open(ctx, packed, &f32, &model));
  if (available("avx2")) {
    const struct ditmoe_model_options avx2 = {.tier = "avx2"};
    assert_fails(ctx, DITMOE_MISMATCH, packed, ditmoe_model_open(ctx, packed, &avx2, &model));
    assert_fails(
        ctx, DITMOE_MISMATCH,
        "packed for tier generic (cpu-2 bf16 8 4 2 2 256, f32 8 4 1 1 256), this run is of "
        "backend cpu, tier avx2 (cpu-2 bf16 16 8 2 2 256, f32 16 8 1 1 256); pack it "
        "again",
        ditmoe_model_open(ctx, packed, &avx2, &model));
  }
  struct ditmoe_checkpoint *file = checkpoint_of(packed);
  assert_fails(ctx, DITMOE_USAGE, "is packed",
               ditmoe_checkpoint_write(ctx, file, none, NULL, NULL));
  ditmoe_checkpoint_close(file);
  assert_fails(ctx, DITMOE_USAGE, "is packed", ditmoe_model_pack(ctx, packed, NULL, none));
  assert_fails(ctx, DITMOE_USAGE, "backend ref", ditmoe_model_pack(ctx, plain, &ref, none));
  assert_int_not_equal(access(none, F_OK), 0);
}

/* Writes the packed file again, with other metadata and tensors. */
struct edit {
  const char *key, *value; /* entry to set, or to take out where value is NULL */
  const char *layer;       /* tensor to change, by the following; NULL: none   */
  int64_t more;            /* values; INT64_MIN: none is left of the tensor    */
  enum dtype dtype;        /* DT_COUNT: as it is                               */
  const char *rename;
  int alignment;
  enum ditmoe_status status;
  const char *message;
};

static size_t edit_metadata(const struct edit *e, const struct ditmoe_checkpoint *file,
                            struct checkpoint_entry *out) {
  const struct checkpoint_entry own = metadata_entry(e->key ? e->key : "x", e->value);
  size_t count = metadata_merge(out, file, &own, 1);
  return e->value ? count : count - 1;
}

static void write_edited(const struct edit *e, const struct ditmoe_checkpoint *file,
                         const char *path) {
  static const uint8_t zeros[1 << 16];
  struct checkpoint_entry metadata[16];
  struct tensor *tensors = calloc(file->count, sizeof *tensors);
  struct stored_tensor *stored = calloc(file->count, sizeof *stored);
  struct file_output out;
  size_t count = 0;
  assert_true(tensors && stored && file->metadata_count < 16);
  for (int bytes = 1; bytes >= 0; bytes--) /* layers first, which keeps them aligned */
    for (size_t i = 0; i < file->count; i++) {
      struct tensor *t = &tensors[count];
      *t = file->tensors[i];
      if ((t->dtype == DT_U8) != bytes) continue;
      const bool edited = e->layer && strcmp(t->name, e->layer) == 0;
      if (edited && e->more == INT64_MIN) continue;
      if (edited && e->dtype != DT_COUNT) t->dtype = e->dtype;
      if (edited && e->rename) t->name = e->rename;
      if (edited && e->more) t->elements = t->shape[0] += e->more, t->data = zeros;
      stored[count++] = (struct stored_tensor){t, t->dtype};
    }
  assert_ok(test_ctx(), safetensors_begin(test_ctx(), path, stored, count, metadata,
                                          edit_metadata(e, file, metadata), e->alignment, &out));
  for (size_t i = 0; i < count; i++)
    assert_ok(test_ctx(), safetensors_put(test_ctx(), path, &stored[i], &out));
  assert_ok(test_ctx(), file_output_commit(test_ctx(), &out));
  free(tensors);
  free(stored);
}

#define LAYER    "blocks.0.attn.qkv.packed"
#define METADATA NULL, 0, DT_COUNT, NULL, 64
#define TENSOR   NULL, NULL, LAYER

static void test_edited(void **state) {
  (void)state;
  static const struct edit edits[] = {
      {"other", "value", METADATA, DITMOE_OK, ""},
      {PACKED_TENSORS, NULL, METADATA, DITMOE_FORMAT, "without ditmoe.tensors"},
      {PACKED_TIER, NULL, METADATA, DITMOE_FORMAT, "without ditmoe.tier"},
      {PACKED_LAYOUT, "", METADATA, DITMOE_MISMATCH, "packed for tier"},
      {PACKED_LAYOUT, "cpu-2 bf16\n\x1b[31m 32", METADATA, DITMOE_MISMATCH, "packed for tier"},
      {PACKED_LAYOUT, NULL, METADATA, DITMOE_MISMATCH, "not a diffusion transformer"},
      {PACKED_TENSORS, "", METADATA, DITMOE_FORMAT, "bad list of tensors"},
      {PACKED_TENSORS, "{}", METADATA, DITMOE_MISMATCH, "no tensors"},
      {PACKED_TENSORS, "[]", METADATA, DITMOE_FORMAT, "bad list of tensors"},
      {PACKED_TENSORS, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]},", METADATA, DITMOE_FORMAT,
       "bad list of tensors"},
      {PACKED_TENSORS, "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1]}}", METADATA, DITMOE_FORMAT,
       "bad list of tensors"},
      {PACKED_TENSORS, "{\"a\":{\"dtype\":\"F32\"}}", METADATA, DITMOE_FORMAT,
       "bad list of tensors"},
      {PACKED_TENSORS, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", METADATA,
       DITMOE_FORMAT, "bad list of tensors"},
      {PACKED_TENSORS,
       "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]},\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}",
       METADATA, DITMOE_FORMAT, "occurs twice"},
      {PACKED_TENSORS, "{\"pos_embed\":{\"dtype\":\"F32\",\"shape\":[1,1,16]}}", METADATA,
       DITMOE_FORMAT, "tensor pos_embed is not as ditmoe.tensors describes it"},
      {PACKED_SUSPECTS, "nothing\n", METADATA, DITMOE_FORMAT, "nothing"},
      {PACKED_SUSPECTS, "pos_embed", METADATA, DITMOE_FORMAT, "newline"},
      {TENSOR, 64, DT_COUNT, NULL, 64, DITMOE_MISMATCH, LAYER " has"},
      {TENSOR, -64, DT_COUNT, NULL, 64, DITMOE_MISMATCH, LAYER " has"},
      {TENSOR, INT64_MIN, DT_COUNT, NULL, 64, DITMOE_MISMATCH, "missing " LAYER},
      {TENSOR, 0, DT_I8, NULL, 64, DITMOE_MISMATCH, LAYER " has"},
      {TENSOR, 0, DT_COUNT, "other.packed", 64, DITMOE_MISMATCH, "unexpected other.packed"},
      {TENSOR, 0, DT_COUNT, "blocks.0.attn.qkv.weight", 64, DITMOE_FORMAT, "describes it"},
      {NULL, NULL, "pos_embed", INT64_MIN, DT_COUNT, NULL, 64, DITMOE_MISMATCH,
       "pos_embed is described, but not stored"},
  };
  const char *packed = temporary_path("packed"), *edited = temporary_path("edited");
  struct ditmoe_model *model = NULL;
  synthetic_write(&synthetic_uneven, temporary_path("plain.safetensors"));
  pack_file(temporary_path("plain.safetensors"), packed, NULL, "bf16", 0);
  struct ditmoe_checkpoint *file = checkpoint_of(packed);
  for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
    write_edited(&edits[i], file, edited);
    enum ditmoe_status status = ditmoe_model_open(test_ctx(), edited, NULL, &model);
    if (edits[i].status == DITMOE_OK) {
      assert_ok(test_ctx(), status);
      ditmoe_model_close(model);
      continue;
    }
    assert_fails(test_ctx(), edits[i].status, edits[i].message, status);
  }
  ditmoe_checkpoint_close(file);
}

/* Layers that do not begin at a multiple of 64 bytes. */
static void test_alignment(void **state) {
  (void)state;
  const char *packed = temporary_path("packed"), *edited = temporary_path("edited");
  struct ditmoe_model *model = NULL;
  int refused = 0;
  synthetic_write(&synthetic_prototypes, temporary_path("plain.safetensors"));
  pack_file(temporary_path("plain.safetensors"), packed, NULL, NULL, 0);
  struct ditmoe_checkpoint *file = checkpoint_of(packed);
  for (int more = 0; more < 8; more++) {
    char text[65];
    snprintf(text, sizeof text, "%*s", 8 * more, "");
    write_edited(&(struct edit){.key = "other", .value = text, .dtype = DT_COUNT, .alignment = 8},
                 file, edited);
    struct ditmoe_checkpoint *other = checkpoint_of(edited);
    const struct tensor *layer = checkpoint_find(other, LAYER);
    const bool aligned = (uintptr_t)layer->data % PACKED_ALIGN == 0;
    ditmoe_checkpoint_close(other);
    enum ditmoe_status status = ditmoe_model_open(test_ctx(), edited, NULL, &model);
    if (!aligned) assert_fails(test_ctx(), DITMOE_FORMAT, "aligned to 64", status);
    if (aligned) assert_ok(test_ctx(), status);
    if (aligned) ditmoe_model_close(model);
    refused += !aligned;
  }
  assert_int_equal(refused, 7);
  ditmoe_checkpoint_close(file);
}

static void test_truncated(void **state) {
  (void)state;
  struct ditmoe_model *model = NULL;
  size_t size;
  synthetic_write(&synthetic_prototypes, temporary_path("plain.safetensors"));
  pack_file(temporary_path("plain.safetensors"), temporary_path("packed"), NULL, NULL, 0);
  char *bytes = file_bytes(temporary_path("packed"), &size);
  for (size_t length = 0; length < size; length += length < 64 ? 7 : size / 23) {
    FILE *file = fopen(temporary_path("edited"), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    fclose(file);
    assert_fails(test_ctx(), DITMOE_FORMAT, "edited",
                 ditmoe_model_open(test_ctx(), temporary_path("edited"), NULL, &model));
  }
  free(bytes);
}

/* NaN in an expert's matrix, an infinity in a table and one in the synthetic_prototypes. */
static void plant(void *user, const char *name, float *values, int64_t count) {
  (void)user;
  if (strcmp(name, "blocks.1.mlp.experts.2.up_proj.weight") == 0) values[count - 1] = NAN;
  if (strcmp(name, "blocks.0.mlp.experts.5.down_proj.bias") == 0) values[3] = -INFINITY;
  if (strcmp(name, "y_embedder.embedding_table.weight") == 0) values[count / 2] = INFINITY;
  if (strcmp(name, "blocks.1.mlp.cluster_centers") == 0) values[0] = NAN;
}

static void test_suspects(void **state) {
  (void)state;
  struct synthetic spec = synthetic_prototypes;
  struct loaded plain, packed;
  spec.plant = plant;
  synthetic_write(&spec, temporary_path("plain.safetensors"));
  pack_file(temporary_path("plain.safetensors"), temporary_path("packed"), NULL, "bf16", 2);
  load(&plain, temporary_path("plain.safetensors"), NULL, "bf16", NULL);
  load(&packed, temporary_path("packed"), NULL, "bf16", NULL);
  const struct params *a = &plain.opened.model->params, *b = &packed.opened.model->params;
  int suspects = 0;
  assert_int_equal(a->count, b->count);
  for (size_t i = 0; i < a->count; i++) {
    assert_string_equal(a->row[i].name, b->row[i].name);
    assert_int_equal(a->row[i].suspect, b->row[i].suspect);
    suspects += a->row[i].suspect;
    if (strcmp(a->row[i].name, "blocks.1.mlp.experts.2.up_proj.weight") != 0) continue;
    assert_true(a->row[i].suspect);
    assert_int_equal(a->row[i].layer, 1);
    assert_int_equal(a->row[i].expert, 2);
  }
  assert_int_equal(suspects, 4);
  assert_non_null(strstr(test_warning(), "packed: tensor blocks.1.mlp.experts.2.up_proj.weight"));
  unload(&plain);
  unload(&packed);
}

/* Every allocation fails once; nothing stays behind, in memory or in the folder. */
static void test_allocations(void **state) {
  (void)state;
  const char *plain = temporary_path("plain.safetensors"), *packed = temporary_path("packed");
  const struct ditmoe_model_options options = {.threads = 1};
  synthetic_write(&synthetic_prototypes, plain);
  for (int packing = 1; packing >= 0; packing--) {
    int64_t at = 0;
    for (bool fired = true; fired; at++) {
      struct ditmoe_ctx *ctx = faulty_ctx(at);
      struct ditmoe_model *model = NULL;
      unlink(packing ? packed : "");
      enum ditmoe_status status = packing ? ditmoe_model_pack(ctx, plain, &options, packed)
                                          : ditmoe_model_open(ctx, packed, &options, &model);
      fired = faulty_fired();
      if (fired) assert_fails(ctx, DITMOE_NOMEM, "not enough memory", status);
      if (fired && packing) assert_int_not_equal(access(packed, F_OK), 0);
      if (!fired) assert_ok(ctx, status);
      ditmoe_model_close(model);
      assert_int_equal(faulty_held(), 0);
      ditmoe_ctx_destroy(ctx);
    }
    assert_true(at > 50);
  }
}

static void test_programs(void **state) {
  (void)state;
  assert_exit(run("@convert -q @source/assets/default/model.pth -o p.st --pack --tier generic "
                  "--dtype bf16 && @info p.st | grep -q '^packed: cpu-2 bf16 8 4 2 2 256, '"),
              0, "");
  assert_exit(run("@info p.st | grep -qx 'packed_for: generic' && "
                  "@info p.st | grep -qx 'parameters: 5762320'"),
              0, "");
  assert_exit(run("@convert -q @source/assets/default/model.pth -o p.st --pack"), DITMOE_OUTPUT,
              "--force");
  assert_exit(run("@sample -q -m p.st --vae none --steps 1 -n 1 --tier generic -o a.bmp && "
                  "@sample -q -m @source/assets/default/model.pth --vae none --steps 1 -n 1 --tier "
                  "generic --dtype bf16 -o b.bmp && cmp a.bmp b.bmp"),
              0, "");
  assert_exit(run("@sample -q -m p.st --vae none --steps 1 -n 1 --backend ref -o c.bmp"),
              DITMOE_MISMATCH, "p.st: packed for tier generic");
  assert_exit(run("@convert -q p.st -o q.st"), DITMOE_USAGE, "is packed");
  assert_exit(run("@convert -q p.st -o q.st --pack"), DITMOE_USAGE, "is packed");
  assert_exit(run("@convert -q @source/assets/default/vae -o q.st --pack"), DITMOE_MISMATCH,
              "not a diffusion transformer");
  assert_exit(run("@convert -q p.st -o q.st --pack --dtype f16"), DITMOE_USAGE, "f32 or bf16");
  assert_exit(run("@convert -q p.st -o q.st --tier generic"), DITMOE_USAGE, "without --pack");
  assert_exit(run("! ls -A | grep -E 'q.st|tmp'"), 0, "");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_same_bits),  cmocka_unit_test(test_other_sources),
      cmocka_unit_test(test_same_file),  cmocka_unit_test(test_open),
      cmocka_unit_test(test_other_tier), cmocka_unit_test(test_edited),
      cmocka_unit_test(test_alignment),  cmocka_unit_test(test_truncated),
      cmocka_unit_test(test_suspects),   cmocka_unit_test(test_allocations),
      cmocka_unit_test(test_programs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
