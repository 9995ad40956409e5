/* The CUDA backend's table, devices and memory. It is a module of its own, libditmoe_cuda.so, so
 * that programs start where there is no driver; backend/backend.c loads it. */
#include "backend/cuda/cuda.h"

#include <stdio.h>
#include <string.h>

#define CUDA_ENTRY(op) .op = cuda_op_##op,
#define BE_OP(op, ...) CUDA_ENTRY(op)
/* What the module is loaded for. */
__attribute__((visibility("default")))
const struct backend_ops ditmoe_backend_cuda = {.name = "cuda", CUDA_SLOTS(CUDA_ENTRY)
#include "backend/operations.h"
};
#undef BE_OP

enum ditmoe_status cuda_failure(struct ditmoe_ctx *ctx, cudaError_t error, const char *what) {
  const enum ditmoe_status status =
      error == cudaErrorMemoryAllocation ? DITMOE_NOMEM : DITMOE_DEVICE;
  return fail(ctx, status, "backend cuda: %s: %s", what, cudaGetErrorString(error));
}

void cuda_check(struct exec *ex, cudaError_t error, const char *operation) {
  if (error != cudaSuccess && ex->status == DITMOE_OK)
    ex->status = cuda_failure(ex->ctx, error, operation);
}

enum dtype cuda_op_best_dtype(const struct device *device) {
  (void)device;
  return DT_BF16;
}

/* The tiers that kernels are made for, the best first. */
static const struct tier {
  const char *name;
  int capability; /* at least */
  enum cuda_product_kernel kernel;
} tiers[] = {{"sm_90", 90, CUDA_PRODUCT_BEST}, {"sm_80", 80, CUDA_PRODUCT_SM80}};
enum { TIERS = sizeof tiers / sizeof *tiers };

static enum ditmoe_status choose_tier(struct ditmoe_ctx *ctx, const char *wanted, int capability,
                                      struct cuda_state *state) {
  for (int i = 0; i < TIERS; i++) {
    if (wanted && strcmp(wanted, tiers[i].name) != 0) continue;
    if (capability < tiers[i].capability && wanted) break;
    if (capability < tiers[i].capability) continue;
    snprintf(state->tier, sizeof state->tier, "%s", tiers[i].name);
    state->kernel = tiers[i].kernel;
    return DITMOE_OK;
  }
  if (wanted)
    return fail(ctx, DITMOE_DEVICE,
                "backend cuda: no tier \"%s\" on a GPU of compute capability %d.%d", wanted,
                capability / 10, capability % 10);
  return fail(ctx, DITMOE_DEVICE,
              "backend cuda: the GPU has compute capability %d.%d, at least 8.0 is needed",
              capability / 10, capability % 10);
}

enum ditmoe_status cuda_op_init(struct device *device, struct ditmoe_ctx *ctx, const char *tier) {
  struct cuda_state *state;
  int count = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count == 0) error = cudaErrorNoDevice;
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
  if (error != cudaSuccess) {
    (void)cuda_failure(ctx, error, "no GPU can be used");
    return failed(DITMOE_DEVICE, DITMOE_DEVICE);
  }
  TRY(mem_zalloc(ctx, 1, sizeof *state, "the device", &state));
  device->state = state;
  device->tier = state->tier;
  device->threads = 1;
  return choose_tier(ctx, tier, 10 * major + minor, state);
}

void cuda_op_fini(struct device *device, struct ditmoe_ctx *ctx) {
  mem_free(ctx, (void *)(uintptr_t)device->state);
}

enum ditmoe_status cuda_op_exec_init(struct exec *ex) {
  struct cuda_exec *own;
  TRY(mem_zalloc(ex->ctx, 1, sizeof *own, "an execution", &own));
  ex->state = own;
  cudaError_t error = cudaSetDevice(cuda_state(ex)->device);
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&own->stream, cudaStreamNonBlocking);
  return error == cudaSuccess ? DITMOE_OK : cuda_failure(ex->ctx, error, "a stream");
}

void cuda_op_exec_fini(struct exec *ex) {
  struct cuda_exec *own = cuda_exec(ex);
  if (!own) return;
  if (own->stream) (void)cudaStreamSynchronize(own->stream);
  (void)cudaFree(own->work);
  cuda_slab_release(ex, own->slab);
  if (own->stream) (void)cudaStreamDestroy(own->stream);
  mem_free(ex->ctx, own);
}

enum ditmoe_status cuda_op_alloc(struct exec *ex, size_t bytes, const char *what, void **out) {
  *out = NULL;
  cudaError_t error = cudaMalloc(out, bytes ? bytes : 1);
  if (error == cudaSuccess) return DITMOE_OK;
  (void)cudaGetLastError();
  size_t available = 0, all = 0;
  (void)cudaMemGetInfo(&available, &all);
  return fail(ex->ctx, error == cudaErrorMemoryAllocation ? DITMOE_NOMEM : DITMOE_DEVICE,
              "not enough memory on the GPU: %s needs %.1f MiB, %.1f of %.1f MiB are free (%s)",
              what, (double)bytes / 1048576, (double)available / 1048576, (double)all / 1048576,
              cudaGetErrorString(error));
}

void cuda_op_release(struct exec *ex, void *memory) {
  (void)cudaStreamSynchronize(cuda_stream(ex));
  (void)cudaFree(memory);
}

uint64_t cuda_op_memory_available(const struct device *device) {
  size_t available = 0, all = 0;
  (void)device;
  return cudaMemGetInfo(&available, &all) == cudaSuccess ? available : 0;
}

static void transfer(struct exec *ex, void *dst, const void *src, size_t bytes,
                     enum cudaMemcpyKind kind, const char *operation) {
  if (bytes == 0) return;
  cudaError_t error = cudaMemcpyAsync(dst, src, bytes, kind, cuda_stream(ex));
  if (error == cudaSuccess && kind != cudaMemcpyDeviceToDevice)
    error = cudaStreamSynchronize(cuda_stream(ex));
  cuda_check(ex, error, operation);
}

void cuda_op_upload(struct exec *ex, void *dst, const void *src, size_t bytes) {
  transfer(ex, dst, src, bytes, cudaMemcpyHostToDevice, "upload");
}

void cuda_op_download(struct exec *ex, void *dst, const void *src, size_t bytes) {
  transfer(ex, dst, src, bytes, cudaMemcpyDeviceToHost, "download");
}

void cuda_op_copy(struct exec *ex, void *dst, const void *src, size_t bytes) {
  transfer(ex, dst, src, bytes, cudaMemcpyDeviceToDevice, "copy");
}

void cuda_op_fill(struct exec *ex, void *dst, int byte, size_t bytes) {
  cuda_check(ex, cudaMemsetAsync(dst, byte, bytes, cuda_stream(ex)), "fill");
}

void cuda_op_sync(struct exec *ex) {
  cuda_check(ex, cudaStreamSynchronize(cuda_stream(ex)), "a kernel");
}

void *cuda_work(struct exec *ex, size_t bytes) {
  struct cuda_exec *own = cuda_exec(ex);
  if (own->work_bytes >= bytes && own->work) return own->work;
  cuda_op_release(ex, own->work);
  own->work_bytes = 0;
  enum ditmoe_status status = cuda_op_alloc(ex, bytes, "scratch memory", &own->work);
  if (status != DITMOE_OK && ex->status == DITMOE_OK) ex->status = status;
  if (status == DITMOE_OK) own->work_bytes = bytes;
  return own->work;
}
