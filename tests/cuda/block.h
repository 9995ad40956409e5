/* Inside the emulated device: the block that runs, its threads, and who has seen whose accesses.
 *
 * Order between threads. Each thread counts its releases (`clock`); seen[u] is the clock of thread
 * u up to which its accesses are before what this thread does now. A barrier of all threads begins
 * a new epoch, in which nothing of the last one is unordered any more. */
#ifndef TESTS_CUDA_BLOCK_H
#define TESTS_CUDA_BLOCK_H

#include "tests/cuda/emulate.h"
#include "tests/cuda/emulator.h"

#include <map>
#include <vector>

#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace emulate {

enum { MAX_THREADS = 1024, MAX_WARPS = 32, BARRIERS = 16 };
enum : size_t { STACK = 256 << 10, SHARED_LIMIT = 227 << 10, SHARED_DEFAULT = 48 << 10 };

/* Clocks of all threads that have come to a barrier. */
struct clocks {
  uint32_t epoch = 0;
  std::vector<uint32_t> at;
};

/* A copy to shared memory that has been asked for but may not be there yet. */
struct pending_copy {
  unsigned char *to;
  const unsigned char *from; /* nullptr: zeros */
  int bytes;
};

/* A product of a warpgroup that has been asked for; each thread has its own. */
struct pending_product {
  float *c;
  uint64_t a, b;
  int accumulate, columns;
  bool f16;
};

template <class T> struct pending {
  std::vector<std::vector<T>> groups; /* oldest first */
  std::vector<T> open;
  void commit() {
    groups.push_back(static_cast<std::vector<T> &&>(open));
    open.clear();
  }
};

struct mbarrier;

struct thread {
  enum { READY, WAITING, DONE } state;
  const char *waits_for;
  mbarrier *barrier; /* waited for, until the phase of this parity has ended */
  int parity;
  void *stack_pointer, *fake_stack;
  unsigned char *stack;
  unsigned index;
  uint3 id;
  uint32_t clock, fences;
  bool saw; /* seen is not all 0 */
  std::vector<uint32_t> seen;
  pending<pending_copy> copies;
  pending<pending_product> products;
  bool started;
};

struct meeting { /* of the lanes in mask */
  const char *what;
  unsigned mask, arrived;
  void *lanes[32];
};

struct barrier {
  int expected, arrived;
  clocks order;
  std::vector<thread *> waiting;
};

/* A box that the copy engine fetches for a barrier, as late as it may. */
struct fetch {
  unsigned char *to;
  CUtensorMap map;
  int at[3];
  thread issuer; /* a shadow of it: its clocks then */
};

struct mbarrier {
  int count, left;
  int64_t bytes; /* expected and not there */
  int phase;
  clocks order;
  std::vector<fetch> fetches;
};

struct block {
  const launch_shape *shape;
  unsigned serial;       /* of this block among all that ever ran */
  unsigned first_serial; /* of its launch */
  unsigned threads, live;
  uint32_t epoch, first_epoch; /* now, of this block's start */
  thread *current;             /* nullptr: the host runs */
  bool failed, fenced;
  const void *arguments;
  size_t argument_bytes;
  meeting meetings[MAX_WARPS][32];
  int warpgroup_arrived[MAX_THREADS / 128];
  barrier barriers[BARRIERS];
  int count, all; /* of the predicates at a barrier; result of the last */
  int count_result, all_result;
  std::map<const void *, mbarrier> mbarriers;
};
extern block now;
extern thread threads[MAX_THREADS];

void switch_to_scheduler();
void wait_for(const char *what); /* until somebody sets READY */

void release(thread &t, clocks &c);
void acquire(thread &t, const clocks &c);
/* Everybody's accesses so far are before everybody's from now on. */
void begin_epoch();

/* Shared memory's window, of SHARED_LIMIT bytes. */
extern unsigned char *shared_window;
/* Checks of an access by `by` from the async proxy, or of the copy engine. */
void watch_as(thread &by, const volatile void *at, size_t bytes, bool write, bool atomic,
              bool async);
/* Checks an access to memory of the device by the block that runs. */
void watch_device(const void *at, size_t bytes, bool write, bool atomic);
/* Whether [at, at + bytes) is one allocation of the device. */
bool is_device(const void *at, size_t bytes);
bool is_device_address(const void *at);

/* runtime.cpp's part of memory. */
cudaError_t device_malloc(void **memory, size_t bytes);
cudaError_t device_free(void *memory);
size_t device_total();

/* Traps and faults of a kernel become reports between true and false. */
void catch_signals(bool begin);

int run_launch(const launch_shape &shape, const std::function<void()> &thread_main);

} // namespace emulate

#endif
