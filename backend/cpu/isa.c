/* Which instruction tier to use: what the processor has and the operating system saves. */
#include "backend/cpu/state.h"

#include <string.h>

#define TIER(name)                                                                                 \
  { #name, &gemm_kernels_##name, &attention_kernels_##name, &row_kernels_##name }

static bool has_generic(void) { return true; }

#ifdef __x86_64__
#include <cpuid.h>

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
#endif

/* Best first. */
static const struct {
  struct cpu_kernels kernels;
  bool (*available)(void);
} tiers[] = {
#ifdef __x86_64__
    {TIER(avx512), has_avx512},
    {TIER(avx2), has_avx2},
#endif
    {TIER(generic), has_generic},
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
  return fail(ctx, DITMOE_USAGE, "tier: expected generic, avx2 or avx512, found \"%s\"", tier);
}
