/* Attention: tasks of one image, one head and CPU_QUERIES queries, which meet the keys in blocks of
 * CPU_KEY_BLOCK. Every query goes through the same blocks in the same order. */
#include "backend/cpu/state.h"
#include "backend/ref/ref.h"

#include <math.h>
#include <omp.h>
#include <string.h>

static int least(int a, int b) { return a < b ? a : b; }

static void load_keys(struct attention_scratch *s, const struct cpu_head *h, int first, int keys) {
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
  const struct attention_kernels *a = kernels->attention;
  const float *query = s->query + p * d * a->columns;
  float *output = s->output + p * d * a->columns;
  for (int c = 0; c < d; c += CPU_DEPTH_BLOCK)
    for (int i = 0; i < keys; i += a->rows)
      kernels->gemm[CPU_F32]->tile(
          s->logits + i * a->columns, s->key[c / CPU_DEPTH_BLOCK] + i * CPU_STRIP_STRIDE,
          query + c * a->columns, least(a->rows, keys - i), least(CPU_DEPTH_BLOCK, d - c), c > 0);
  a->softmax(s->logits, s->max + p * a->columns, s->sum + p * a->columns, output, keys, d);
  for (int i = 0; i < d; i += a->rows)
    a->tile_transposed(output + i * a->columns, s->value + i, d, s->logits, least(a->rows, d - i),
                       keys);
}

/* Queries first .. first + count - 1 of a head. */
static void attention_f32(struct attention_scratch *s, const struct cpu_kernels *kernels,
                          enum cpu_type type, const struct cpu_head *h, int first, int count) {
  const struct attention_kernels *a = kernels->attention;
  int columns = a->columns, panels = (count + columns - 1) / columns, d = h->d;
  float scale = (float)(1 / sqrt(d));
  for (int p = 0; p < panels; p++)
    a->pack(s->query + p * d * columns, h->q + (first + p * columns) * h->stride, h->stride,
            least(columns, count - p * columns), d, scale);
  memset(s->output, 0, (size_t)(panels * d * columns) * sizeof *s->output);
  for (int i = 0; i < panels * columns; i++) s->max[i] = -INFINITY, s->sum[i] = 0;
  for (int key = 0; key < h->T; key += CPU_KEY_BLOCK) {
    int keys = least(CPU_KEY_BLOCK, h->T - key);
    load_keys(s, h, key, keys);
    for (int p = 0; p < panels; p++) attend(s, kernels, p, keys, d);
  }
  for (int p = 0; p < panels; p++)
    a->unpack[type]((char *)h->o + (first + p * columns) * h->ldo * (type == CPU_BF16 ? 2 : 4),
                    h->ldo, s->output + p * d * columns, s->sum + p * columns,
                    least(columns, count - p * columns), d);
}

static void write_lse(float *lse, const float *max, const float *sum, int count) {
  for (int i = 0; i < count; i++) lse[i] = max[i] + logf(sum[i]);
}

static struct cpu_head head_of(struct act o, const float *qkv, int64_t index, int T, int H, int d) {
  int64_t D = (int64_t)H * d, b = index / H, h = index % H;
  const float *q = qkv + b * T * 3 * D + h * d;
  return (struct cpu_head){q, q + D, q + 2 * D, act_at(o, b * T * D + h * d), 3 * D, D, T, d};
}

/* Queries of a task: whole panels, as many as the working memory holds, fewer if threads would have
 * nothing to do. */
static int queries_of(const struct exec *ex, int64_t heads, int T, int d) {
  int columns = cpu_kernels(ex)->attention->columns;
  int queries = least(CPU_QUERIES, CPU_QUERY_VALUES / ((d + 31) / 32 * 32)) / columns * columns;
  while (queries >= 2 * columns && heads * ((T + queries - 1) / queries) < 4 * ex->device->threads)
    queries = queries / 2 / columns * columns;
  return queries;
}

void cpu_attention(struct exec *ex, struct act o, float *lse, const float *qkv, int B, int T, int H,
                   int d) {
  const struct cpu_kernels *kernels = cpu_kernels(ex);
  if (d > CPU_HEAD_MAX) { /* wider than the working memory; no known model is */
    backend_ref.attention(ex, o, lse, qkv, B, T, H, d);
    return;
  }
  int queries = queries_of(ex, (int64_t)B * H, T, d), blocks = (T + queries - 1) / queries;
  bool large = 2.0 * B * H * T * T * d > CPU_PARALLEL_PRODUCTS;
#pragma omp parallel for num_threads(ex->device->threads) schedule(dynamic) if (large)
  for (int64_t i = 0; i < (int64_t)B * H * blocks; i++) {
    union thread_scratch *scratch = &cpu_scratch(ex)->thread[omp_get_thread_num()];
    struct cpu_head h = head_of(o, qkv, i / blocks, T, H, d);
    int first = (int)(i % blocks) * queries, count = least(queries, T - first);
    const bool bf16 = o.type == DT_BF16 && kernels->attention_bf16;
    if (bf16)
      kernels->attention_bf16(&scratch->attention_bf16, kernels->gemm[CPU_BF16], &h, first, count);
    else
      attention_f32(&scratch->attention, kernels, cpu_type(o.type), &h, first, count);
    if (lse)
      write_lse(lse + i / blocks * T + first,
                bf16 ? scratch->attention_bf16.max : scratch->attention.max,
                bf16 ? scratch->attention_bf16.sum : scratch->attention.sum, count);
  }
}
