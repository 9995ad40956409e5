/* The table of the CPU backend, and its start. Operations that move few data are those of the
 * reference backend. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/state.h"
#include "backend/ref/ref.h"

#include <pthread.h>

/* What backend_cpu stands for once it is in use; made at the first start. */
static struct backend_ops operations;
static pthread_once_t operations_once = PTHREAD_ONCE_INIT;

static void make_operations(void) {
  operations = backend_ref;
  operations.name = backend_cpu.name;
#define CPU_ENTRY(op) operations.op = cpu_##op;
  CPU_OPS(CPU_ENTRY)
#undef CPU_ENTRY
  operations.packed = &cpu_packed;
  operations.linear_bwd = NULL; /* these two read the reference backend's weights */
  operations.experts_bwd = NULL;
}

const struct backend_ops backend_cpu = {.name = "cpu", .init = cpu_init, .fini = cpu_fini};

enum dtype cpu_best_dtype(const struct backend *be) {
  return cpu_state(be)->kernels->best == CPU_BF16 ? DT_BF16 : DT_F32;
}

enum ditmoe_status cpu_init(struct backend *be, const char *tier) {
  struct ditmoe_ctx *ctx = be->ctx;
  struct cpu_state *cpu;
  const struct cpu_kernels *kernels;
  TRY(isa_select(ctx, tier, &kernels));
  if (be->threads > CPU_THREADS_MAX)
    return fail(ctx, DITMOE_USAGE, "threads: at most %d, found %d", CPU_THREADS_MAX, be->threads);
  TRY(mem_zalloc(ctx, 1, sizeof *cpu, "the CPU backend", &cpu));
  be->state = cpu;
  cpu->kernels = kernels;
  enum ditmoe_status status = mem_alloc(ctx, (size_t)be->threads, sizeof *cpu->scratch,
                                        "working memory of the threads", &cpu->scratch);
  if (status == DITMOE_OK)
    status = mem_alloc(ctx, CPU_GROUP_PIECES * CPU_GROUPS_MAX, sizeof *cpu->group_sums,
                       "working memory of GroupNorm", &cpu->group_sums);
  if (status != DITMOE_OK) {
    cpu_fini(be);
    return status;
  }
  pthread_once(&operations_once, make_operations);
  be->ops = &operations;
  be->tier = kernels->tier;
  return DITMOE_OK;
}

void cpu_fini(struct backend *be) {
  struct cpu_state *cpu = cpu_state(be);
  mem_free(be->ctx, cpu->group_sums);
  mem_free(be->ctx, cpu->scratch);
  mem_free(be->ctx, cpu);
  be->state = NULL;
}
