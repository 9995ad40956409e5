/* Checks of every access of a kernel. The calls that -fsanitize=thread puts before each load and
 * store of kernels come here. */
#include "tests/cuda/block.h"

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace emulate {

unsigned char *shared_window;

static const void *site; /* in the kernel: the last access */
static char fault[800];
static bool quiet;

/* The line of a kernel that an address is in, by addr2line if that is there. */
static void print_place(const char *what, const void *code) {
  Dl_info info;
  if (!code || !dladdr(code, &info)) return;
  char command[600], line[600] = "";
  snprintf(command, sizeof command, "addr2line -e '%s' %#lx 2>/dev/null", info.dli_fname,
           static_cast<const char *>(code) - static_cast<const char *>(info.dli_fbase) - 1L);
  FILE *pipe = popen(command, "r");
  if (!pipe) return;
  if (fgets(line, sizeof line, pipe)) fprintf(stderr, "  %s %s", what, line);
  pclose(pipe);
}

void report(const char *format, ...) {
  char text[600];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  const uint3 &b = emulate_builtins.block, &t = emulate_builtins.thread;
  if (!*fault)
    snprintf(fault, sizeof fault, "%s: block (%u, %u, %u), thread (%u, %u, %u): %s",
             now.shape ? now.shape->name : "host", b.x, b.y, b.z, t.x, t.y, t.z, text);
  if (!quiet && !now.failed) {
    fprintf(stderr, "emulated device: %s\n", fault);
    print_place("near", site);
  }
  now.failed = true;
  if (now.current) switch_to_scheduler();
}

/* Shared memory. Cells of 2 bytes: who wrote last, and two who read since, each one word:
 *
 *   epoch 30 | clock 14 | thread 10 | atomic 1 | fences of the thread 9                          */
typedef uint64_t stamp;
struct cell {
  stamp write, read[2];
  const void *site; /* of the write */
};
enum : unsigned { CLOCK_MAX = (1 << 14) - 1, FENCES = 511, BY_ENGINE = FENCES };

static inline uint32_t stamp_epoch(stamp s) { return static_cast<uint32_t>(s >> 34); }
static inline uint32_t stamp_clock(stamp s) { return static_cast<uint32_t>(s >> 20) & CLOCK_MAX; }
static inline uint32_t stamp_thread(stamp s) { return static_cast<uint32_t>(s >> 10) & 1023; }
static inline bool stamp_atomic(stamp s) { return s >> 9 & 1; }
static inline uint32_t stamp_fences(stamp s) { return static_cast<uint32_t>(s) & FENCES; }
static inline stamp stamp_of(const thread &t, bool atomic) {
  uint64_t clock = t.clock < CLOCK_MAX ? t.clock : CLOCK_MAX;
  return static_cast<uint64_t>(now.epoch) << 34 | clock << 20 |
         static_cast<uint64_t>(t.index) << 10 | static_cast<uint64_t>(atomic) << 9 |
         t.fences % BY_ENGINE;
}

static inline bool unordered(stamp s, const thread &t) {
  return stamp_epoch(s) == now.epoch && stamp_thread(s) != t.index &&
         stamp_clock(s) > t.seen[stamp_thread(s)];
}

static void conflict(const cell &c, stamp s, const char *mine, const char *theirs, size_t place,
                     const char *where) {
  if (!quiet && !now.failed && s == c.write) print_place("the other access was near", c.site);
  report("%s byte %zu of %s, which thread %u %s, and no barrier is between them", mine, place,
         where, stamp_thread(s), theirs);
}

static inline void add_reader(cell &c, stamp s, const thread &t) {
  if (stamp_epoch(c.read[0]) != now.epoch || stamp_thread(c.read[0]) == t.index) {
    c.read[0] = s;
    return;
  }
  for (stamp &r : c.read)
    if (!unordered(r, t)) {
      r = s;
      return;
    }
  c.read[1] = s;
}

/* Of a read that is no atomic operation. */
static void check_written(const cell &c, bool async, size_t place, const char *where) {
  if (stamp_epoch(c.write) < now.first_epoch)
    report("reads byte %zu of %s, which the block has not written", place, where);
  if (async && stamp_fences(c.write) != BY_ENGINE &&
      stamp_fences(c.write) == threads[stamp_thread(c.write)].fences % BY_ENGINE)
    report("byte %zu of %s was written without async_proxy_fence before an asynchronous read",
           place, where);
}

static inline void watch_shared(cell *cells, size_t at, size_t bytes, thread &t, bool write,
                                bool atomic, bool async, const char *where) {
  const stamp s = stamp_of(t, atomic);
  for (size_t i = at / 2; i <= (at + bytes - 1) / 2; i++) {
    cell &c = cells[i];
    if (unordered(c.write, t) && !(atomic && stamp_atomic(c.write)))
      conflict(c, c.write, write ? "writes" : "reads", "writes", 2 * i, where);
    if (!write) {
      check_written(c, async, 2 * i, where);
      add_reader(c, s, t);
      continue;
    }
    for (stamp r : c.read)
      if (unordered(r, t) && !(atomic && stamp_atomic(r)))
        conflict(c, r, "writes", "reads", 2 * i, where);
    c.write = async ? s | BY_ENGINE : s; /* what the copy engine wrote needs no fence */
    c.site = site;
  }
}

static cell *make_cells(size_t bytes) {
  void *memory = mmap(nullptr, (bytes / 2 + 8) * sizeof(cell), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) abort();
  return static_cast<cell *>(memory);
}

static cell *dynamic_cells() {
  static cell *const cells = make_cells(SHARED_LIMIT);
  return cells;
}

/* Static shared memory: what the program or module that holds the kernels can write and no
 * relocation has made constant. What cannot be written, of all of them, is constant memory. */
static struct static_memory {
  uintptr_t begin, end;
  cell *cells;
} statics;
struct segment {
  uintptr_t begin, end;
};
static std::vector<segment> constants;

static int find_segments(dl_phdr_info *info, size_t, void *) {
  const uintptr_t code = reinterpret_cast<uintptr_t>(&find_segments);
  bool ours = false;
  segment written = {0, 0}, fixed = {0, 0};
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto &p = info->dlpi_phdr[i];
    const segment s = {info->dlpi_addr + p.p_vaddr, info->dlpi_addr + p.p_vaddr + p.p_memsz};
    ours = ours || (p.p_type == PT_LOAD && code >= s.begin && code < s.end);
    if (p.p_type == PT_GNU_RELRO) fixed = s;
    if (p.p_type == PT_LOAD && (p.p_flags & PF_W)) written = s;
    if (p.p_type == PT_GNU_RELRO || (p.p_type == PT_LOAD && !(p.p_flags & PF_W)))
      constants.push_back(s);
  }
  if (ours) {
    statics.begin =
        fixed.end > written.begin && fixed.end < written.end ? fixed.end : written.begin;
    statics.end = written.end;
    statics.cells = make_cells(statics.end - statics.begin);
  }
  return 0;
}

static void watch_other(uintptr_t at, size_t bytes, bool write) {
  if (at - reinterpret_cast<uintptr_t>(now.arguments) < now.argument_bytes && !write) return;
  for (const segment &s : constants)
    if (at >= s.begin && at + bytes <= s.end) {
      if (write) report("writes constant memory at %#lx", at);
      return;
    }
  report("%s memory of the host at %#lx", write ? "writes" : "reads", at);
}

static void watch_static(thread &by, uintptr_t at, size_t bytes, bool write, bool atomic) {
  const uintptr_t builtins = reinterpret_cast<uintptr_t>(&emulate_builtins);
  if (!write && at - builtins < sizeof emulate_builtins) return;
  watch_shared(statics.cells, at - statics.begin, bytes, by, write, atomic, false,
               "static shared memory");
}

void watch_as(thread &by, const volatile void *at, size_t bytes, bool write, bool atomic,
              bool async) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(at);
  const size_t place = address - reinterpret_cast<uintptr_t>(shared_window);
  if (constants.empty()) dl_iterate_phdr(find_segments, nullptr);
  if (place < SHARED_LIMIT && place + bytes > now.shape->shared)
    report("%s byte %zu of %zu bytes of shared memory", write ? "writes" : "reads", place,
           now.shape->shared);
  else if (place < SHARED_LIMIT)
    watch_shared(dynamic_cells(), place, bytes, by, write, atomic, async, "shared memory");
  else if (address - statics.begin < statics.end - statics.begin)
    watch_static(by, address, bytes, write, atomic);
  else if (is_device_address(const_cast<const void *>(at)))
    watch_device(const_cast<const void *>(at), bytes, write, atomic);
  else
    watch_other(address, bytes, write);
}

static inline bool on_stack(const thread &t, const volatile void *at) {
  return reinterpret_cast<uintptr_t>(at) - reinterpret_cast<uintptr_t>(t.stack) < STACK;
}

void watch(const volatile void *at, size_t bytes, bool write, bool atomic) {
  thread &t = *now.current;
  if (!on_stack(t, at)) watch_as(t, at, bytes, write, atomic, false);
}

/* Kernels are compiled with -fsanitize=undefined and trap. */
static void caught(int signal, siginfo_t *info, void *context) {
  site = static_cast<unsigned char *>(info->si_addr) + 1;
#if defined(__x86_64__)
  site = reinterpret_cast<unsigned char *>(
      static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP] + 1);
#endif
  if (!now.current) {
    fprintf(stderr, "emulated device: signal %d in its own code\n", signal);
    abort();
  }
  if (signal == SIGILL)
    report("undefined behaviour: an address that is not aligned, an index past an array, an "
           "overflow or a shift");
  report("signal %d", signal);
}

void catch_signals(bool begin) {
  static const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
  static struct sigaction before[4];
  struct sigaction action = {};
  action.sa_sigaction = caught;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  for (int i = 0; i < 4; i++)
    sigaction(signals[i], begin ? &action : &before[i], begin ? &before[i] : nullptr);
}

unsigned char *dynamic_shared() { return shared_window; }

uint64_t shared_offset(const void *shared) {
  size_t place = static_cast<size_t>(static_cast<const unsigned char *>(shared) - shared_window);
  if (place >= SHARED_LIMIT) report("%p is not in dynamic shared memory", shared);
  return place;
}

void begin_thread(const void *arguments, size_t bytes) {
  now.arguments = arguments;
  now.argument_bytes = bytes;
  now.current->started = true;
}

} // namespace emulate

using namespace emulate;

static inline void access(const void *at, size_t bytes, bool write, const void *from) {
  thread *t = now.current;
  if (!t || !t->started) return;
  if (on_stack(*t, at)) return;
  site = from;
  watch_as(*t, at, bytes, write, false, false);
}

extern "C" {
const char *emulator_fault(void) {
  static char last[sizeof fault];
  memcpy(last, fault, sizeof last);
  *fault = 0;
  return last;
}
void emulator_quiet(int be_quiet) { quiet = be_quiet != 0; }

void __tsan_init(void);
void __tsan_func_entry(void *);
void __tsan_func_exit(void);
void __tsan_vptr_update(void **, void *);
void __tsan_vptr_read(void **);
void __tsan_read_range(void *at, unsigned long bytes);
void __tsan_write_range(void *at, unsigned long bytes);
void __tsan_init(void) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
void __tsan_read_range(void *at, unsigned long bytes) {
  access(at, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void *at, unsigned long bytes) {
  access(at, bytes, true, __builtin_return_address(0));
}
#define ACCESS(name, bytes, write)                                                                 \
  void name(void *at);                                                                             \
  void name(void *at) { access(at, bytes, write, __builtin_return_address(0)); }
#define ACCESSES(bytes)                                                                            \
  ACCESS(__tsan_read##bytes, bytes, false)                                                         \
  ACCESS(__tsan_write##bytes, bytes, true)                                                         \
  ACCESS(__tsan_unaligned_read##bytes, bytes, false)                                               \
  ACCESS(__tsan_unaligned_write##bytes, bytes, true)                                               \
  ACCESS(__tsan_volatile_read##bytes, bytes, false)                                                \
  ACCESS(__tsan_volatile_write##bytes, bytes, true)
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
}
