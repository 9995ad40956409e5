/* The CUDA runtime of the emulated device. All work is done at once, in the order of the calls, or
 * recorded where a stream is captured. */
#include "backend/cuda/tensor_map.h"
#include "tests/cuda/block.h"

#include <chrono>
#include <cstdlib>
#include <sys/mman.h>

using namespace emulate;

struct CUstream_st {
  CUgraph_st *capture;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point time;
};
struct CUgraph_st {
  std::vector<std::function<cudaError_t()>> nodes;
};
struct CUgraphExec_st {
  CUgraph_st graph;
};

static cudaError_t last_error, broken; /* broken: after a kernel's fault, for good */
static int capability = 9, multiprocessors = 3;
static const unsigned long long no_launches = 14695981039346656037ull;
static unsigned long long launches, sequence = no_launches;
static std::map<const void *, int> dynamic_limits;

static cudaError_t fail(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

static bool capturing(cudaStream_t stream) { return stream && stream->capture; }

static cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> work) {
  if (broken != cudaSuccess) return broken;
  if (capturing(stream)) {
    stream->capture->nodes.push_back(static_cast<std::function<cudaError_t()> &&>(work));
    return cudaSuccess;
  }
  return fail(work());
}

/* Launches. */

static void count_launch(const launch_shape &s) {
  launches++;
  unsigned long long words[] = {s.grid.x,  s.grid.y,  s.grid.z, s.block.x,
                                s.block.y, s.block.z, s.shared};
  for (const char *c = s.name; *c; c++)
    sequence = (sequence ^ (unsigned char)*c) * 1099511628211ull;
  for (unsigned long long w : words) sequence = (sequence ^ w) * 1099511628211ull;
}

static cudaError_t check_shape(const launch_shape &s) {
  auto limit = dynamic_limits.find(s.kernel);
  size_t shared = limit == dynamic_limits.end() ? (size_t)SHARED_DEFAULT : (size_t)limit->second;
  bool grid = s.grid.x && s.grid.y && s.grid.z && s.grid.x < 1u << 31 && s.grid.y < 1u << 16 &&
              s.grid.z < 1u << 16;
  unsigned long long threads_asked = (unsigned long long)s.block.x * s.block.y * s.block.z;
  if (!grid || !threads_asked || threads_asked > MAX_THREADS || s.block.z > 64)
    return cudaErrorInvalidConfiguration;
  return s.shared > shared ? cudaErrorInvalidValue : cudaSuccess;
}

void emulate::submit(const launch_shape &shape, cudaStream_t stream,
                     std::function<void()> thread_main) {
  if (broken != cudaSuccess || fail(check_shape(shape)) != cudaSuccess) return;
  count_launch(shape);
  if (!shared_window) {
    void *memory = mmap(nullptr, SHARED_LIMIT + 65536, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      fail(cudaErrorMemoryAllocation);
      return;
    }
    shared_window = static_cast<unsigned char *>(memory);
  }
  enqueue(stream, [shape, thread_main]() -> cudaError_t {
    emulator_open();
    int failed = run_launch(shape, thread_main);
    emulator_close();
    if (failed) broken = cudaErrorLaunchFailure;
    return broken;
  });
}

/* Copies. */

static cudaError_t check_range(const void *at, size_t bytes, bool device) {
  if (device != is_device_address(at)) return cudaErrorInvalidValue;
  return device && !is_device(at, bytes) ? cudaErrorInvalidValue : cudaSuccess;
}

static cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  if (!bytes) return cudaSuccess;
  bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  if (kind == cudaMemcpyDefault) {
    from_device = is_device_address(from);
    to_device = is_device_address(to);
  }
  if (check_range(to, bytes, to_device) != cudaSuccess ||
      check_range(from, bytes, from_device) != cudaSuccess)
    return cudaErrorInvalidValue;
  emulator_open();
  memmove(to, from, bytes);
  emulator_close();
  return cudaSuccess;
}

static cudaError_t set_bytes(void *to, int value, size_t bytes) {
  if (!bytes) return cudaSuccess;
  if (check_range(to, bytes, true) != cudaSuccess) return cudaErrorInvalidValue;
  emulator_open();
  memset(to, value, bytes);
  emulator_close();
  return cudaSuccess;
}

extern "C" {

void emulator_reset(void) {
  emulator_fault();
  last_error = broken = cudaSuccess;
  launches = 0;
  sequence = no_launches;
}
void emulator_device(int major, int count) {
  capability = major;
  multiprocessors = count;
}
unsigned long long emulator_launches(unsigned long long *of_sequence) {
  if (of_sequence) *of_sequence = sequence;
  return launches;
}

cudaError_t cudaGetDeviceCount(int *count) {
  *count = capability ? 1 : 0;
  return capability ? cudaSuccess : fail(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) { return device ? fail(cudaErrorInvalidDevice) : broken; }
cudaError_t cudaGetDevice(int *device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
  if (device || !capability) return fail(cudaErrorInvalidDevice);
  *p = cudaDeviceProp();
  strcpy(p->name, "emulated device");
  p->totalGlobalMem = device_total();
  p->sharedMemPerBlockOptin = SHARED_LIMIT;
  p->major = capability;
  p->multiProcessorCount = multiprocessors;
  p->l2CacheSize = 1 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
  if (device || !capability) return fail(cudaErrorInvalidDevice);
  switch (attribute) {
  case cudaDevAttrMultiProcessorCount:
    *value = multiprocessors;
    return cudaSuccess;
  case cudaDevAttrComputeCapabilityMajor:
    *value = capability;
    return cudaSuccess;
  case cudaDevAttrComputeCapabilityMinor:
    *value = 0;
    return cudaSuccess;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    *value = SHARED_LIMIT;
    return cudaSuccess;
  }
  return fail(cudaErrorInvalidValue);
}
cudaError_t cudaDeviceSynchronize(void) { return broken; }
cudaError_t cudaGetLastError(void) {
  cudaError_t error = broken != cudaSuccess ? broken : last_error;
  last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError(void) { return broken != cudaSuccess ? broken : last_error; }

static const struct {
  cudaError_t error;
  const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
};
const char *cudaGetErrorName(cudaError_t error) {
  for (const auto &e : errors)
    if (e.error == error) return e.name;
  return "cudaErrorUnknown";
}
const char *cudaGetErrorString(cudaError_t error) {
  for (const auto &e : errors)
    if (e.error == error) return e.text;
  return "unknown error";
}
cudaError_t cudaDriverGetVersion(int *version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes) { return fail(device_malloc(memory, bytes)); }
cudaError_t cudaFree(void *memory) { return fail(device_free(memory)); }
cudaError_t cudaMallocHost(void **memory, size_t bytes) {
  *memory = malloc(bytes ? bytes : 1);
  return *memory ? cudaSuccess : fail(cudaErrorMemoryAllocation);
}
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) {
  return cudaMallocHost(memory, bytes);
}
cudaError_t cudaFreeHost(void *memory) {
  free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  *total = device_total();
  *available = *total - emulator_allocated();
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  return broken != cudaSuccess ? broken : fail(copy(to, from, bytes, kind));
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return enqueue(stream, [=] { return copy(to, from, bytes, kind); });
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) {
  return broken != cudaSuccess ? broken : fail(set_bytes(to, value, bytes));
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  return enqueue(stream, [=] { return set_bytes(to, value, bytes); });
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  *stream = new CUstream_st();
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  return cudaStreamCreate(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return capturing(stream) ? fail(cudaErrorStreamCaptureUnsupported) : broken;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return broken; }
cudaError_t cudaEventCreate(cudaEvent_t *event) {
  *event = new CUevent_st();
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  return cudaEventCreate(event);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->time = std::chrono::steady_clock::now();
  return broken;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return broken; }
cudaError_t cudaEventQuery(cudaEvent_t) { return broken; }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  *milliseconds = std::chrono::duration<float, std::milli>(stop->time - start->time).count();
  return broken;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || stream->capture) return fail(cudaErrorInvalidValue);
  stream->capture = new CUgraph_st();
  return broken;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  if (!capturing(stream)) return fail(cudaErrorInvalidValue);
  *graph = stream->capture;
  stream->capture = nullptr;
  return broken;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{*graph};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  for (const auto &node : exec->graph.nodes) {
    cudaError_t error = enqueue(stream, node);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      (size_t)value > SHARED_LIMIT)
    return fail(cudaErrorInvalidValue);
  dynamic_limits[kernel] = value;
  return cudaSuccess;
}

cudaError_t tensor_map_create(CUtensorMap *map, void *memory, const tensor_shape *s) {
  bool pitches = s->pitch % 16 == 0 && (s->rank == 2 || s->plane_pitch % 16 == 0);
  if (s->rank < 2 || s->rank > 3 || reinterpret_cast<uintptr_t>(memory) % 16 || !pitches ||
      s->box[0] != 64 || s->box[1] < 1 || s->box[1] > 256)
    return cudaErrorInvalidValue;
  *map = {memory,   s->rank,        {s->size[0], s->size[1], s->rank == 3 ? s->size[2] : 1},
          s->pitch, s->plane_pitch, {s->box[0], s->box[1]}};
  return cudaSuccess;
}
}
