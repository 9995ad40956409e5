/* Blocks and threads: fibres, and the barriers at which they change. */
#include "tests/cuda/block.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct emulate_builtins emulate_builtins;

namespace emulate {

block now;
thread threads[MAX_THREADS];

static void *scheduler_stack_pointer;
static const std::function<void()> *thread_main;

/* Fibres. A change saves the registers that a called function must keep. */

#if defined(__x86_64__)
extern "C" void emulate_switch(void **save, void *load);
asm(R"(
.text
.globl emulate_switch
.hidden emulate_switch
.type emulate_switch, @function
emulate_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size emulate_switch, . - emulate_switch
)");

static void fibre_prepare(thread &t, void (*entry)()) {
  void **top = reinterpret_cast<void **>(t.stack + STACK) - 2;
  *top = reinterpret_cast<void *>(entry);
  t.stack_pointer = top - 6;
}
static void fibre_change(void **save, void **load) { emulate_switch(save, *load); }
#else
#include <ucontext.h>
static void fibre_prepare(thread &t, void (*entry)()) {
  static ucontext_t contexts[MAX_THREADS];
  ucontext_t &c = contexts[t.index];
  getcontext(&c);
  c.uc_stack.ss_sp = t.stack;
  c.uc_stack.ss_size = STACK;
  makecontext(&c, entry, 0);
  t.stack_pointer = &c;
}
static void fibre_change(void **save, void **load) {
  static ucontext_t scheduler;
  if (!*save) *save = &scheduler;
  swapcontext(static_cast<ucontext_t *>(*save), static_cast<ucontext_t *>(*load));
}
#endif

#if defined(__SANITIZE_ADDRESS__)
static void *scheduler_fake_stack;
static const void *scheduler_bottom;
static size_t scheduler_size;
#endif

static void run_fibre(thread &t) {
  now.current = &t;
  emulate_builtins.thread = t.id;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, t.stack, STACK);
  fibre_change(&scheduler_stack_pointer, &t.stack_pointer);
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#else
  fibre_change(&scheduler_stack_pointer, &t.stack_pointer);
#endif
  now.current = nullptr;
}

void switch_to_scheduler() {
  thread &t = *now.current;
#if defined(__SANITIZE_ADDRESS__)
  bool last = t.state == thread::DONE || now.failed;
  __sanitizer_start_switch_fiber(last ? nullptr : &t.fake_stack, scheduler_bottom, scheduler_size);
  fibre_change(&t.stack_pointer, &scheduler_stack_pointer);
  __sanitizer_finish_switch_fiber(t.fake_stack, &scheduler_bottom, &scheduler_size);
#else
  fibre_change(&t.stack_pointer, &scheduler_stack_pointer);
#endif
}

void wait_for(const char *what) {
  thread &t = *now.current;
  t.state = thread::WAITING;
  t.waits_for = what;
  switch_to_scheduler();
}

static void finish_barriers_of_all();

static void fibre_entry() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
  (*thread_main)();
  thread &t = *now.current;
  if (!t.copies.open.empty() || !t.copies.groups.empty()) copies_wait(0);
  t.state = thread::DONE;
  now.live--;
  finish_barriers_of_all();
  switch_to_scheduler();
}

/* Order. */

void release(thread &t, clocks &c) {
  if (c.epoch != now.epoch || c.at.size() != now.threads) {
    c.epoch = now.epoch;
    c.at.assign(now.threads, 0);
  }
  if (t.saw)
    for (unsigned i = 0; i < now.threads; i++) c.at[i] = t.seen[i] > c.at[i] ? t.seen[i] : c.at[i];
  if (t.clock > c.at[t.index]) c.at[t.index] = t.clock;
  t.clock++;
}

void acquire(thread &t, const clocks &c) {
  if (c.epoch != now.epoch) return;
  for (unsigned i = 0; i < now.threads; i++)
    if (c.at[i] > t.seen[i]) t.seen[i] = c.at[i];
  t.saw = true;
}

void begin_epoch() {
  now.epoch++;
  for (unsigned i = 0; i < now.threads; i++) {
    thread &t = threads[i];
    if (t.saw) t.seen.assign(now.threads, 0);
    t.saw = false;
    t.clock = 1;
  }
}

/* Barriers. */

static void complete_block() {
  barrier &b = now.barriers[0];
  now.count_result = now.count;
  now.all_result = now.all;
  now.count = 0;
  now.all = 1;
  b.arrived = 0;
  b.expected = 0;
  begin_epoch();
  for (thread *t : b.waiting) t->state = thread::READY;
  b.waiting.clear();
}

/* __syncthreads waits for the threads that have not ended. */
static void finish_barriers_of_all() {
  barrier &b = now.barriers[0];
  if (b.arrived && static_cast<unsigned>(b.arrived) == now.live) complete_block();
}

int block_barrier(int predicate, int kind) {
  barrier &b = now.barriers[0];
  b.arrived++;
  now.count += predicate != 0;
  now.all &= predicate != 0;
  b.waiting.push_back(now.current);
  if (static_cast<unsigned>(b.arrived) == now.live)
    complete_block();
  else
    wait_for("__syncthreads");
  return kind == 0 ? now.count_result : now.all_result;
}

static void arrive(int id, int threads_expected, bool waits) {
  thread &t = *now.current;
  if (id < 1 || id >= BARRIERS || threads_expected < 32 || threads_expected % 32)
    report("barrier %d of %d threads", id, threads_expected);
  barrier &b = now.barriers[id];
  if (b.arrived && b.expected != threads_expected)
    report("barrier %d of %d threads is asked for with %d", id, b.expected, threads_expected);
  b.expected = threads_expected;
  b.arrived++;
  release(t, b.order);
  if (waits) b.waiting.push_back(&t);
  bool complete = b.arrived == b.expected;
  if (complete) {
    b.arrived = 0;
    for (thread *w : b.waiting) {
      acquire(*w, b.order);
      w->state = thread::READY;
    }
    b.waiting.clear();
    b.order = clocks();
  }
  if (waits && !complete) wait_for("a named barrier");
}

/* Warps. */

void together(const char *what, unsigned mask, void *mine, complete_function *complete) {
  thread &t = *now.current;
  unsigned warp = t.index / 32, me = t.index % 32;
  if (!(mask >> me & 1)) report("%s: lane %u is not in its own mask %08x", what, me, mask);
  unsigned lanes_there = now.threads - warp * 32;
  if (lanes_there < 32) mask &= (1u << lanes_there) - 1;
  for (unsigned l = 0; l < 32; l++)
    if ((mask >> l & 1) && threads[warp * 32 + l].state == thread::DONE)
      report("%s: lane %u has ended", what, l);
  meeting &m = now.meetings[warp][__builtin_ctz(mask)];
  if (m.arrived && (m.what != what || m.mask != mask))
    report("lanes of a warp meet in %s (%08x) and %s (%08x)", m.what, m.mask, what, mask);
  m.what = what;
  m.mask = mask;
  m.arrived |= 1u << me;
  m.lanes[me] = mine;
  if (m.arrived != mask) {
    wait_for(what);
    return;
  }
  complete(m.lanes, mask);
  m.arrived = 0;
  for (unsigned l = 0; l < 32; l++)
    if (mask >> l & 1) threads[warp * 32 + l].state = thread::READY;
}

unsigned lane() { return now.current->index % 32; }

/* The scheduler. */

static bool ready(thread &t);

static void describe_deadlock() {
  char text[400];
  size_t length = 0;
  for (unsigned i = 0, shown = 0; i < now.threads && shown < 6; i++) {
    const thread &t = threads[i];
    if (t.state != thread::WAITING) continue;
    if (i % 32 && threads[i - 1].state == thread::WAITING &&
        threads[i - 1].waits_for == t.waits_for)
      continue;
    int n = snprintf(text + length, sizeof text - length, "%sthread %u in %s", shown ? ", " : "", i,
                     t.waits_for);
    length = length + static_cast<size_t>(n) < sizeof text ? length + static_cast<size_t>(n)
                                                           : sizeof text - 1;
    shown++;
  }
  report("the block waits for ever: %s", text);
}

/* A warp runs until none of its threads can, so that warps are as far apart as they may be. */
static void run_threads() {
  while (now.live && !now.failed) {
    bool progress = false;
    for (unsigned warp = 0; warp * 32 < now.threads && !now.failed; warp++) {
      bool again = true;
      while (again && !now.failed) {
        again = false;
        for (unsigned i = warp * 32; i < warp * 32 + 32 && i < now.threads && !now.failed; i++) {
          if (threads[i].state == thread::WAITING && threads[i].barrier && ready(threads[i]))
            threads[i].state = thread::READY;
          if (threads[i].state != thread::READY) continue;
          run_fibre(threads[i]);
          again = progress = true;
        }
      }
    }
    if (!progress && now.live && !now.failed) describe_deadlock();
  }
}

static void start_block(const launch_shape &shape, unsigned linear) {
  static unsigned char *stacks;
  if (!stacks) {
    void *memory = mmap(nullptr, STACK * MAX_THREADS, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) abort();
    stacks = static_cast<unsigned char *>(memory);
  }
  emulate_builtins.block = {linear % shape.grid.x, linear / shape.grid.x % shape.grid.y,
                            linear / shape.grid.x / shape.grid.y};
  now.threads = now.live = shape.block.x * shape.block.y * shape.block.z;
  now.serial = now.first_serial + linear;
  now.fenced = false;
  now.epoch++;
  now.first_epoch = now.epoch;
  now.count = 0;
  now.all = 1;
  now.mbarriers.clear();
  memset(now.meetings, 0, sizeof now.meetings);
  memset(now.warpgroup_arrived, 0, sizeof now.warpgroup_arrived);
  for (barrier &b : now.barriers) b = barrier();
  for (unsigned i = 0; i < now.threads; i++) {
    thread &t = threads[i];
    t = thread();
    t.index = i;
    t.stack = stacks + STACK * i;
    t.id = {i % shape.block.x, i / shape.block.x % shape.block.y,
            i / shape.block.x / shape.block.y};
    t.clock = 1;
    t.seen.assign(now.threads, 0);
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(t.stack, STACK);
#endif
    fibre_prepare(t, fibre_entry);
  }
}

int run_launch(const launch_shape &shape, const std::function<void()> &main) {
  static unsigned next_serial = 1;
  unsigned blocks = shape.grid.x * shape.grid.y * shape.grid.z;
  now.shape = &shape;
  now.first_serial = next_serial;
  next_serial += blocks;
  now.failed = false;
  thread_main = &main;
  emulate_builtins.block_size = shape.block;
  emulate_builtins.grid_size = shape.grid;
  /* Blocks in an arbitrary order, always the same: multiples of a number prime to theirs. */
  unsigned long long stride = 0x9e3779b1ull % blocks;
  for (;; stride++) {
    unsigned long long a = stride, b = blocks;
    while (b) {
      unsigned long long rest = a % b;
      a = b;
      b = rest;
    }
    if (a == 1) break;
  }
  catch_signals(true);
  for (unsigned i = 0; i < blocks && !now.failed; i++) {
    start_block(shape, static_cast<unsigned>((i + 1) * stride % blocks));
    run_threads();
  }
  catch_signals(false);
  return now.failed;
}

/* Barriers in shared memory. */

static mbarrier &mbarrier_at(const uint64_t *at) {
  watch(at, sizeof *at, true, true);
  auto found = now.mbarriers.find(at);
  if (found == now.mbarriers.end()) report("a barrier at %p that was never made", (const void *)at);
  return found->second;
}

static void end_phase(mbarrier &b) {
  if (b.left || b.bytes) return;
  b.phase++;
  b.left = b.count;
}

/* The copy engine's work is done when somebody must wait for it. */
static void fetch_box(mbarrier &b, fetch &f) {
  const CUtensorMap &m = f.map;
  const unsigned char *base = static_cast<const unsigned char *>(m.memory);
  thread &by = f.issuer;
  for (unsigned y = 0; y < m.box[1]; y++)
    for (unsigned x = 0; x < m.box[0]; x += 8) {
      unsigned char sixteen[16] = {0};
      for (unsigned i = 0; i < 8; i++) {
        int64_t at[3] = {f.at[0] + (int64_t)x + i, f.at[1] + (int64_t)y, f.at[2]};
        bool inside = x + i < m.box[0];
        for (int axis = 0; axis < 3; axis++)
          inside = inside && at[axis] >= 0 && at[axis] < (int64_t)m.size[axis];
        if (!inside) continue;
        const unsigned char *from =
            base + at[2] * (int64_t)m.plane_pitch + at[1] * (int64_t)m.pitch + 2 * at[0];
        watch_as(by, from, 2, false, false, true);
        if (now.failed) return;
        memcpy(sixteen + 2 * i, from, 2);
      }
      unsigned row = y, place = (x / 8) ^ (row % 8); /* 128-byte rows, swizzled */
      unsigned char *to = f.to + row * 128 + place * 16;
      watch_as(by, to, 16, true, false, true);
      if (now.failed) return;
      memcpy(to, sixteen, 16);
    }
  b.bytes -= (int64_t)m.box[1] * 128;
  release(by, b.order);
}

static bool ended(mbarrier &b, int parity) {
  if ((b.phase & 1) == (parity & 1) && !b.fetches.empty() && b.left == 0) {
    std::vector<fetch> fetches;
    fetches.swap(b.fetches);
    for (fetch &f : fetches) fetch_box(b, f);
    end_phase(b);
  }
  return (b.phase & 1) != (parity & 1);
}

static bool ready(thread &t) { /* the copies are not of a thread that runs: a report returns */
  return ended(*t.barrier, t.parity);
}

} // namespace emulate

using namespace emulate;

void barrier_sync(int id, int count) { arrive(id, count, true); }
void barrier_arrive(int id, int count) { arrive(id, count, false); }

void __syncwarp(unsigned mask) {
  together("__syncwarp", mask, nullptr, [](void *const *, unsigned lanes) {
    unsigned first = now.current->index / 32 * 32;
    clocks order;
    for (unsigned l = 0; l < 32; l++)
      if (lanes >> l & 1) release(threads[first + l], order);
    for (unsigned l = 0; l < 32; l++)
      if (lanes >> l & 1) acquire(threads[first + l], order);
  });
}

unsigned __activemask() {
  unsigned first = now.current->index / 32 * 32, mask = 0;
  for (unsigned l = 0; l < 32 && first + l < now.threads; l++)
    mask |= static_cast<unsigned>(threads[first + l].state != thread::DONE) << l;
  return mask;
}

void __threadfence() { now.fenced = true; }

void async_proxy_fence() { now.current->fences++; }

void mbarrier_init(uint64_t *at, int count) {
  watch(at, sizeof *at, true, true);
  mbarrier b = mbarrier();
  b.count = b.left = count;
  now.mbarriers[at] = b;
  if (reinterpret_cast<uintptr_t>(at) % 8 || count < 1) report("a barrier of %d arrivals", count);
}

static void arrive_at(mbarrier &b) {
  if (b.left == 0) report("more arrivals at a barrier than its %d", b.count);
  release(*now.current, b.order);
  b.left--;
  if (b.fetches.empty()) end_phase(b);
}

void mbarrier_arrive(uint64_t *at) { arrive_at(mbarrier_at(at)); }

void mbarrier_expect(uint64_t *at, int bytes) {
  mbarrier &b = mbarrier_at(at);
  b.bytes += bytes;
  arrive_at(b);
}

void mbarrier_arrive_copies(uint64_t *at) {
  copy_async_commit();
  copies_wait(0);
  mbarrier_arrive(at);
}

void mbarrier_wait(uint64_t *at, int parity) {
  thread &t = *now.current;
  mbarrier &b = mbarrier_at(at);
  if (!ended(b, parity)) {
    t.barrier = &b;
    t.parity = parity;
    wait_for("mbarrier_wait");
    t.barrier = nullptr;
  }
  acquire(t, b.order);
}

void emulate::tensor_load(void *shared, const CUtensorMap *map, uint64_t *at, int x, int y, int z) {
  mbarrier &b = mbarrier_at(at);
  if (shared_offset(shared) % 1024) report("a tile at %p is not aligned to 1024 bytes", shared);
  fetch f = {static_cast<unsigned char *>(shared), *map, {x, y, z}, thread()};
  thread &t = *now.current;
  f.issuer.index = t.index;
  f.issuer.clock = t.clock;
  f.issuer.seen = t.seen;
  f.issuer.saw = t.saw;
  f.issuer.fences = t.fences;
  t.clock++;
  b.fetches.push_back(f);
}
