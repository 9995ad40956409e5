/* Attention: tasks of one image, one head and CPU_QUERIES queries, which meet the keys in blocks of
 * CPU_KEY_BLOCK. Every query goes through the same blocks in the same order. */
#include "backend/cpu/state.h"
#include "backend/ref/ref.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* One head of one image; rows of q, k and v are `stride` floats apart, those of o D. */
struct head {
  const float *q, *k, *v;
  float *o;
  int64_t stride, D;
  int T, d;
};

static int least(int a, int b) { return a < b ? a : b; }

/* Panels of queries in a task. */
static int panels_of(const struct gemm_kernels *g, int d) {
  return least(CPU_QUERIES, CPU_QUERY_FLOATS / d) / g->columns;
}

static void load_keys(struct attention_scratch *s, const struct head *h, int first, int keys) {
  for (int i = 0; i < keys; i++) {
    const float *k = h->k + (first + i) * h->stride;
    for (int c = 0; c < h->d; c += CPU_DEPTH_BLOCK)
      memcpy(s->key[c / CPU_DEPTH_BLOCK] + i * CPU_STRIP_STRIDE, k + c,
             (size_t)least(CPU_DEPTH_BLOCK, h->d - c) * sizeof *k);
    memcpy(s->value + i * h->d, h->v + (first + i) * h->stride, (size_t)h->d * sizeof *k);
  }
}

/* Takes panel p of queries through the loaded keys. */
static void attend(struct attention_scratch *s, const struct cpu_kernels *kernels, int p, int keys,
                   int d) {
  const struct gemm_kernels *g = kernels->gemm;
  const float *query = s->query + p * d * g->columns;
  float *output = s->output + p * d * g->columns;
  for (int c = 0; c < d; c += CPU_DEPTH_BLOCK)
    for (int i = 0; i < keys; i += g->rows)
      g->tile[least(g->rows, keys - i)](
          s->logits + i * g->columns, s->key[c / CPU_DEPTH_BLOCK] + i * CPU_STRIP_STRIDE,
          query + c * g->columns, least(CPU_DEPTH_BLOCK, d - c), c > 0);
  kernels->attention->softmax(s->logits, s->max + p * g->columns, s->sum + p * g->columns, output,
                              keys, d);
  for (int i = 0; i < d; i += g->rows)
    g->tile_transposed[least(g->rows, d - i)](output + i * g->columns, s->value + i, d, s->logits,
                                              keys);
}

/* Queries first .. first + count - 1 of a head. */
static void run_task(struct attention_scratch *s, const struct cpu_kernels *kernels,
                     const struct head *h, int first, int count) {
  int columns = kernels->gemm->columns, panels = (count + columns - 1) / columns, d = h->d;
  float scale = (float)(1 / sqrt(d));
  for (int p = 0; p < panels; p++)
    kernels->attention->pack(s->query + p * d * columns, h->q + (first + p * columns) * h->stride,
                             h->stride, least(columns, count - p * columns), d, scale);
  memset(s->output, 0, (size_t)(panels * d * columns) * sizeof *s->output);
  for (int i = 0; i < panels * columns; i++) s->max[i] = -INFINITY, s->sum[i] = 0;
  for (int key = 0; key < h->T; key += CPU_KEY_BLOCK) {
    int keys = least(CPU_KEY_BLOCK, h->T - key);
    load_keys(s, h, key, keys);
    for (int p = 0; p < panels; p++) attend(s, kernels, p, keys, d);
  }
  for (int p = 0; p < panels; p++)
    kernels->attention->unpack(h->o + (first + p * columns) * h->D, h->D,
                               s->output + p * d * columns, s->sum + p * columns,
                               least(columns, count - p * columns), d);
}

static struct head head_of(float *o, const float *qkv, int64_t index, int T, int H, int d) {
  int64_t D = (int64_t)H * d, b = index / H, h = index % H;
  const float *q = qkv + b * T * 3 * D + h * d;
  return (struct head){q, q + D, q + 2 * D, o + b * T * D + h * d, 3 * D, D, T, d};
}

void cpu_attention(struct backend *be, float *o, const float *qkv, int B, int T, int H, int d) {
  const struct cpu_state *cpu = cpu_state(be);
  if (d > CPU_HEAD_MAX) { /* wider than the working memory; no known model is */
    backend_ref.attention(be, o, qkv, B, T, H, d);
    return;
  }
  int queries = panels_of(cpu->kernels->gemm, d) * cpu->kernels->gemm->columns;
  int blocks = (T + queries - 1) / queries;
  bool large = 2.0 * B * H * T * T * d > CPU_PARALLEL_PRODUCTS;
#pragma omp parallel for num_threads(be->threads) schedule(dynamic) if (large)
  for (int64_t i = 0; i < (int64_t)B * H * blocks; i++) {
    struct head h = head_of(o, qkv, i / blocks, T, H, d);
    int first = (int)(i % blocks) * queries;
    run_task(&cpu->scratch[omp_get_thread_num()].attention, cpu->kernels, &h, first,
             least(queries, T - first));
  }
}
