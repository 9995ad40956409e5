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
  operations.bwd.linear_bwd_input = NULL; /* those that read the reference backend's weights */
  operations.bwd.hidden_bwd = NULL;
  operations.bwd.experts_bwd = NULL;
  operations.bwd.conv2d_bwd_input = NULL;
}

const struct backend_ops backend_cpu = {.name = "cpu", .init = cpu_init};

enum dtype cpu_best_dtype(const struct device *device) {
  const struct cpu_kernels *kernels = device->state;
  return kernels->best == CPU_BF16 ? DT_BF16 : DT_F32;
}

enum ditmoe_status cpu_init(struct device *device, struct ditmoe_ctx *ctx, const char *tier) {
  const struct cpu_kernels *kernels;
  TRY(isa_select(ctx, tier, &kernels));
  if (device->threads > CPU_THREADS_MAX)
    return fail(ctx, DITMOE_USAGE, "threads: at most %d, found %d", CPU_THREADS_MAX,
                device->threads);
  pthread_once(&operations_once, make_operations);
  device->ops = &operations;
  device->tier = kernels->tier;
  device->state = kernels;
  return DITMOE_OK;
}

enum ditmoe_status cpu_exec_init(struct exec *ex) {
  struct cpu_scratch *scratch;
  TRY(mem_zalloc(ex->ctx, 1, sizeof *scratch, "the CPU backend", &scratch));
  ex->state = scratch;
  TRY(mem_alloc(ex->ctx, (size_t)ex->device->threads, sizeof *scratch->thread,
                "working memory of the threads", &scratch->thread));
  return mem_alloc(ex->ctx, CPU_GROUP_PIECES * CPU_GROUPS_MAX, sizeof *scratch->group_sums,
                   "working memory of GroupNorm", &scratch->group_sums);
}

void cpu_exec_fini(struct exec *ex) {
  struct cpu_scratch *scratch = cpu_scratch(ex);
  if (!scratch) return;
  mem_free(ex->ctx, scratch->group_sums);
  mem_free(ex->ctx, scratch->thread);
  mem_free(ex->ctx, scratch);
}
