/* What the lanes of a warp, or the threads of a warpgroup, do together; and copies beside the
 * computation. The products: sums in double of exact products, rounded to float once. */
#include "tests/cuda/block.h"

#include <cstdio>

namespace emulate {

/* Shuffles and votes. */

struct shuffled {
  shuffle_kind kind;
  uint64_t in, out;
  int by, width;
};

static void complete_shuffle(void *const lanes[32], unsigned mask) {
  for (unsigned l = 0; l < 32; l++) {
    if (!(mask >> l & 1)) continue;
    shuffled &s = *static_cast<shuffled *>(lanes[l]);
    int width = s.width, first = static_cast<int>(l) / width * width, from = static_cast<int>(l);
    if (s.kind == SHUFFLE_INDEX) from = first + (s.by & (width - 1));
    if (s.kind == SHUFFLE_UP && from - s.by >= first) from -= s.by;
    if (s.kind == SHUFFLE_DOWN && from + s.by < first + width) from += s.by;
    if (s.kind == SHUFFLE_XOR && (from ^ s.by) < first + width) from ^= s.by;
    if (!(mask >> from & 1)) {
      report("lane %u shuffles from lane %d, which is not in %08x", l, from, mask);
      return;
    }
    s.out = static_cast<shuffled *>(lanes[from])->in;
  }
}

uint64_t shuffle(shuffle_kind kind, unsigned mask, uint64_t value, int by, int width) {
  shuffled s = {kind, value, 0, by, width};
  together("a shuffle", mask, &s, complete_shuffle);
  return s.out;
}

/* Each lane gives a number and receives one. */
struct voted {
  uint64_t in, out;
  uint64_t (*join)(uint64_t, uint64_t);
};

unsigned ballot(unsigned mask, bool vote) {
  voted v = {vote, 0, nullptr};
  together("a vote", mask, &v, [](void *const lanes[32], unsigned there) {
    uint64_t votes = 0;
    for (unsigned l = 0; l < 32; l++)
      if (there >> l & 1) votes |= static_cast<voted *>(lanes[l])->in << l;
    for (unsigned l = 0; l < 32; l++)
      if (there >> l & 1) static_cast<voted *>(lanes[l])->out = votes;
  });
  return static_cast<unsigned>(v.out);
}

unsigned match(unsigned mask, uint64_t value) {
  voted v = {value, 0, nullptr};
  together("a match", mask, &v, [](void *const lanes[32], unsigned there) {
    for (unsigned l = 0; l < 32; l++)
      for (unsigned m = 0; m < 32 && (there >> l & 1); m++)
        if ((there >> m & 1) &&
            static_cast<voted *>(lanes[l])->in == static_cast<voted *>(lanes[m])->in)
          static_cast<voted *>(lanes[l])->out |= 1ull << m;
  });
  return static_cast<unsigned>(v.out);
}

uint64_t reduce(unsigned mask, uint64_t value, uint64_t (*join)(uint64_t, uint64_t)) {
  voted v = {value, 0, join};
  together("a reduction", mask, &v, [](void *const lanes[32], unsigned there) {
    unsigned first = static_cast<unsigned>(__builtin_ctz(there));
    uint64_t all = static_cast<voted *>(lanes[first])->in;
    for (unsigned l = first + 1; l < 32; l++)
      if (there >> l & 1) {
        voted &next = *static_cast<voted *>(lanes[l]);
        all = next.join(all, next.in);
      }
    for (unsigned l = 0; l < 32; l++)
      if (there >> l & 1) static_cast<voted *>(lanes[l])->out = all;
  });
  return v.out;
}

/* Copies, done when their thread waits for them. */

void copy_async(void *shared, const void *global, int bytes, bool valid) {
  if (reinterpret_cast<uintptr_t>(shared) % static_cast<unsigned>(bytes) ||
      (valid && reinterpret_cast<uintptr_t>(global) % static_cast<unsigned>(bytes)))
    report("copy_async%d from %p to %p is not aligned", bytes, global, shared);
  shared_offset(shared);
  if (valid && !is_device_address(global)) report("copy_async from %p of the host", global);
  if (valid) watch(global, static_cast<size_t>(bytes), false, false);
  now.current->copies.open.push_back({static_cast<unsigned char *>(shared),
                                      valid ? static_cast<const unsigned char *>(global) : nullptr,
                                      bytes});
}

void copies_wait(int groups) {
  auto &all = now.current->copies.groups;
  while (all.size() > static_cast<size_t>(groups)) {
    for (const pending_copy &c : all.front()) {
      watch(c.to, static_cast<size_t>(c.bytes), true, false);
      if (c.from)
        memcpy(c.to, c.from, static_cast<size_t>(c.bytes));
      else
        memset(c.to, 0, static_cast<size_t>(c.bytes));
    }
    all.erase(all.begin());
  }
}

/* Matrices in the registers of a warp. */

struct loaded {
  uint32_t *r;
  const unsigned char *row;
  int matrices;
  bool transposed;
};

static void complete_ldmatrix(void *const lanes[32], unsigned mask) {
  const loaded &first = *static_cast<loaded *>(lanes[0]);
  const thread *warp = now.current - now.current->index % 32;
  if (mask != 0xffffffff) report("ldmatrix by lanes %08x", mask);
  for (int m = 0; m < first.matrices; m++) {
    uint16_t matrix[8][8];
    for (int row = 0; row < 8; row++) {
      const unsigned char *at = static_cast<loaded *>(lanes[8 * m + row])->row;
      if (reinterpret_cast<uintptr_t>(at) % 16) report("ldmatrix of a row at %p", (const void *)at);
      watch_as(const_cast<thread &>(warp[8 * m + row]), at, 16, false, false, false);
      memcpy(matrix[row], at, 16);
    }
    for (int l = 0; l < 32; l++) {
      int row = l / 4, column = l % 4 * 2;
      uint32_t low = first.transposed ? matrix[column][row] : matrix[row][column];
      uint32_t high = first.transposed ? matrix[column + 1][row] : matrix[row][column + 1];
      static_cast<loaded *>(lanes[l])->r[m] = low | high << 16;
    }
  }
}

void ldmatrix(uint32_t *r, const void *row, int matrices, bool transposed) {
  loaded mine = {r, static_cast<const unsigned char *>(row), matrices, transposed};
  together(transposed ? "ldmatrix.trans" : "ldmatrix", 0xffffffff, &mine, complete_ldmatrix);
}

static double half_value(uint16_t bits, bool f16) {
  if (f16) return static_cast<double>(emulate_f16_to(bits));
  return static_cast<double>(__uint_as_float(static_cast<uint32_t>(bits) << 16));
}

static double pair_value(uint32_t pair, int which, bool f16) {
  return half_value(static_cast<uint16_t>(pair >> 16 * which), f16);
}

struct multiplied {
  float *c;
  const uint32_t *a, *b;
  int depth;
  bool f16;
};

static void complete_mma(void *const lanes[32], unsigned mask) {
  if (mask != 0xffffffff) report("mma by lanes %08x", mask);
  const multiplied &first = *static_cast<multiplied *>(lanes[0]);
  double a[16][16], b[16][8];
  for (int l = 0; l < 32; l++) {
    const multiplied &m = *static_cast<multiplied *>(lanes[l]);
    int g = l / 4, t = l % 4;
    for (int r = 0; r < first.depth / 4; r++)
      for (int i = 0; i < 2; i++)
        a[g + r % 2 * 8][2 * t + r / 2 * 8 + i] = pair_value(m.a[r], i, m.f16);
    for (int r = 0; r < first.depth / 8; r++)
      for (int i = 0; i < 2; i++) b[2 * t + r * 8 + i][g] = pair_value(m.b[r], i, m.f16);
  }
  for (int l = 0; l < 32; l++)
    for (int i = 0; i < 4; i++) {
      const multiplied &m = *static_cast<multiplied *>(lanes[l]);
      int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
      double sum = static_cast<double>(m.c[i]);
      for (int k = 0; k < first.depth; k++) sum += a[row][k] * b[k][column];
      m.c[i] = static_cast<float>(sum);
    }
}

void mma(float *c, const uint32_t *a, const uint32_t *b, int depth, bool f16) {
  multiplied mine = {c, a, b, depth, f16};
  together("mma", 0xffffffff, &mine, complete_mma);
}

/* Products of a warpgroup, done when all its threads wait for them. */

/* 16 values of row `row` of an operand. */
static void operand_row(uint64_t operand, int row, bool f16, thread &by, double *out) {
  uint64_t start = (operand & 0x3fff) << 4, group = (operand >> 32 & 0x3fff) << 4;
  for (int half = 0; half < 2; half++) {
    uint64_t at = start + static_cast<uint64_t>(row / 8) * group +
                  static_cast<uint64_t>(row % 8) * 128 + static_cast<uint64_t>(half) * 16;
    at ^= (at >> 7 & 7) << 4;
    watch_as(by, shared_window + at, 16, false, false, true);
    for (int i = 0; i < 8; i++) {
      uint16_t bits;
      memcpy(&bits, shared_window + at + 2 * i, 2);
      out[8 * half + i] = half_value(bits, f16);
    }
  }
}

static void run_product(thread *group, const pending_product *products[128]) {
  const pending_product &p = *products[0];
  static double a[64][16], b[256][16];
  for (int row = 0; row < 64; row++) operand_row(p.a, row, p.f16, group[0], a[row]);
  for (int row = 0; row < p.columns; row++) operand_row(p.b, row, p.f16, group[0], b[row]);
  for (int t = 0; t < 128; t++) {
    const pending_product &mine = *products[t];
    if (mine.a != p.a || mine.b != p.b || mine.accumulate != p.accumulate)
      report("threads of a warpgroup ask for different products");
    for (int i = 0; i < p.columns / 2; i++) {
      int row = t / 32 * 16 + t % 32 / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + t % 4 * 2 + i % 2;
      double sum = p.accumulate ? static_cast<double>(mine.c[i]) : 0;
      for (int k = 0; k < 16; k++) sum += a[row][k] * b[column][k];
      mine.c[i] = static_cast<float>(sum);
    }
  }
}

static void run_oldest_group(thread *group) {
  size_t count = group[0].products.groups[0].size();
  for (size_t i = 0; i < count; i++) {
    const pending_product *products[128];
    for (int t = 0; t < 128; t++) {
      auto &mine = group[t].products.groups;
      if (mine.empty() || mine[0].size() != count)
        report("threads of a warpgroup ask for different products");
      products[t] = &mine[0][i];
    }
    run_product(group, products);
  }
  for (int t = 0; t < 128; t++) {
    auto &mine = group[t].products.groups;
    mine.erase(mine.begin());
  }
}

void warpgroup_wait(int groups) {
  thread &t = *now.current;
  thread *group = &t - t.index % 128;
  int &count = now.warpgroup_arrived[t.index / 128];
  if (t.index / 128 * 128 + 128 > now.threads) report("a warpgroup of less than 128 threads");
  if (++count < 128) {
    wait_for("warpgroup_wait");
    return;
  }
  count = 0;
  while (group->products.groups.size() > static_cast<size_t>(groups)) run_oldest_group(group);
  clocks order;
  for (int i = 0; i < 128; i++) release(group[i], order);
  for (int i = 0; i < 128; i++) {
    acquire(group[i], order);
    group[i].state = thread::READY;
  }
}

void warpgroup_mma(float *c, uint64_t a, uint64_t b, int accumulate, int columns, bool f16) {
  now.current->products.open.push_back({c, a, b, accumulate, columns, f16});
}

} // namespace emulate

void copy_async_commit() { emulate::now.current->copies.commit(); }
void warpgroup_fence() {}
void warpgroup_commit() { emulate::now.current->products.commit(); }
