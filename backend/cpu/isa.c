/* Which instruction tier to use: what the processor has and the operating system saves. */
#include "backend/cpu/state.h"

#include <string.h>

/* A tier: its name, what it does best, its attention in bf16, the instructions of its products of
 * bf16 and of all else. */
#define TIER(name, best, attention, bf16, others)                                                  \
  {                                                                                                \
    name, best, {&gemm_f32_##others, &gemm_bf16_##bf16}, &attention_kernels_##others, attention,   \
        &row_kernels_##others, &pack_kernels_##others                                              \
  }

static bool has_generic(void) { return true; }

#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* __builtin_cpu_supports also asks the operating system, for the registers. */
static bool has_avx2(void) {
  unsigned a, b, c, d;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512bf16(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

/* The tile registers are large, so the system gives them to a process only on request (Linux 5.16);
 * its threads inherit the permission. */
static bool has_amx(void) {
  enum { FEATURES = 7, BF16_AND_TILE = 1 << 22 | 1 << 24, REQUEST_PERMISSION = 0x1023, TILES = 18 };
  unsigned a, b, c, d;
  return has_avx512() && __get_cpuid_count(FEATURES, 0, &a, &b, &c, &d) &&
         (d & BF16_AND_TILE) == BF16_AND_TILE &&
         syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILES) == 0;
}
#endif

/* Best first. */
static const struct {
  struct cpu_kernels kernels;
  bool (*available)(void);
} tiers[] = {
#ifdef __x86_64__
    {TIER("amx", CPU_BF16, attention_bf16, amx, avx512), has_amx},
    {TIER("avx512bf16", CPU_BF16, attention_bf16, avx512bf16, avx512), has_avx512bf16},
    {TIER("avx512", CPU_F32, NULL, avx512, avx512), has_avx512},
    {TIER("avx2", CPU_F32, NULL, avx2, avx2), has_avx2},
#endif
    {TIER("generic", CPU_F32, NULL, generic, generic), has_generic},
};

enum ditmoe_status isa_select(struct ditmoe_ctx *ctx, const char *tier,
                              const struct cpu_kernels **out) {
  for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++) {
    if (tier && strcmp(tier, tiers[i].kernels.tier) != 0) continue;
    if (tiers[i].available()) {
      *out = &tiers[i].kernels;
      return DITMOE_OK;
    }
    if (tier)
      return fail(ctx, DITMOE_DEVICE, "tier: this processor has no %s; use a lower tier", tier);
  }
  return fail(ctx, DITMOE_USAGE,
              "tier: expected generic, avx2, avx512, avx512bf16 or amx, found \"%s\"", tier);
}
