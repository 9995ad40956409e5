/* The backend for GPUs where there is no GPU, an old one, or too little of its memory. */
#include "support.h"
#include "synthetic.h"
#include "tests/cuda/module.h"

#include <stdlib.h>

static const struct emulator *emulator;

static int set_up(void **state) {
  (void)state;
  emulator = emulator_of_module();
  if (emulator) emulator->reset();
  return 0;
}

static void test_devices(void **state) {
  (void)state;
  struct exec ex;
  if (!emulator) skip();
  emulator->device(0, 3);
  assert_fails(test_ctx(), DITMOE_DEVICE, "no GPU can be used: no CUDA-capable device",
               backend_open(&ex, test_ctx(), "cuda", NULL, 1));
  emulator->device(7, 3);
  assert_fails(test_ctx(), DITMOE_DEVICE, "compute capability 7.0, at least 8.0 is needed",
               backend_open(&ex, test_ctx(), "cuda", NULL, 1));
  emulator->device(8, 3);
  assert_fails(test_ctx(), DITMOE_DEVICE, "no tier \"sm_90\" on a GPU of compute capability 8.0",
               backend_open(&ex, test_ctx(), "cuda", "sm_90", 1));
  assert_fails(test_ctx(), DITMOE_DEVICE, "no tier \"avx2\"",
               backend_open(&ex, test_ctx(), "cuda", "avx2", 1));
  assert_ok(test_ctx(), backend_open(&ex, test_ctx(), "cuda", NULL, 1));
  assert_string_equal(ex.device->tier, "sm_80");
  exec_close(&ex);
  emulator->device(9, 3);
  assert_ok(test_ctx(), backend_open(&ex, test_ctx(), "cuda", NULL, 1));
  assert_string_equal(ex.device->tier, "sm_90");
  exec_close(&ex);
}

/* Opens a model and asks it for one prediction. */
static enum ditmoe_status predict(struct exec *ex, struct ditmoe_checkpoint *file) {
  const float time = 0.5F;
  const int32_t label = 1;
  struct dit *model;
  TRY(dit_open(ex, file, NULL, &model));
  const struct opened opened = {.model = model};
  float *out = calloc(model_output_size(&opened), sizeof *out);
  float *x = calloc(model_output_size(&opened), sizeof *x);
  assert_true(x && out);
  const struct dit_input in = {.x = x, .time = &time, .labels = &label, .B = 1};
  enum ditmoe_status status = exec_reserve(ex, dit_predict_bytes(ex, model, NULL, 1));
  if (status == DITMOE_OK) status = dit_predict(ex, model, out, &in);
  dit_close(ex, model);
  free(x);
  free(out);
  return status;
}

/* Whichever allocation of device memory fails, the error says so and nothing is left behind. */
static void test_no_memory(void **state) {
  (void)state;
  const char *path = temporary_path("prototypes.safetensors");
  enum ditmoe_status status = DITMOE_NOMEM;
  int failed = 0;
  if (!emulator) skip();
  synthetic_write(&synthetic_prototypes, path);
  while (status != DITMOE_OK) {
    struct ditmoe_ctx *ctx = faulty_ctx(-1);
    struct ditmoe_checkpoint *file;
    struct exec ex;
    assert_ok(ctx, ditmoe_checkpoint_open(ctx, path, NULL, &file));
    assert_ok(ctx, backend_open(&ex, ctx, "cuda", NULL, 1));
    assert_ok(ctx, backend_compute(&ex, "bf16"));
    emulator->fail_malloc(failed + 1);
    status = predict(&ex, file);
    emulator->fail_malloc(0);
    if (status != DITMOE_OK)
      assert_fails(ctx, DITMOE_NOMEM, "not enough memory on the GPU: ", status), failed++;
    exec_close(&ex);
    ditmoe_checkpoint_close(file);
    assert_int_equal(emulator->allocated(), 0);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
  }
  assert_true(failed > 5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(test_devices, set_up),
      cmocka_unit_test_setup(test_no_memory, set_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
