/* Attention with the processor's products of bf16, laid out as in kernels_attention.c: queries lie
 * along the vectors. Queries, keys, values and probabilities are rounded to bf16, sums are f32.
 *
 *   logits [keys, queries] = strip K [keys, d]     x panel q^T [d, queries]
 *   output [d, queries]   += strip v^T [d, keys]   x panel p   [keys, queries]
 */
#include "backend/cpu/state.h"
#include "backend/cpu/transpose.h"

#include <math.h>

enum { COLUMNS = 2 * VEC_LANES, BLOCK = VEC_LANES };

static int least(int a, int b) { return a < b ? a : b; }

static int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

/* Lanes of a vector that begin at `at` of n values. */
static __mmask16 mask_of(int at, int n) {
  int left = n - at;
  if (left <= 0) return 0;
  return (__mmask16)(left >= VEC_LANES ? 0xffff : (1u << left) - 1);
}

/* Words of two values of bf16: lane i holds low[i], high[i]. */
VEC_INLINE vec_bits pair(__m512 low, __m512 high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (vec_bits)_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* Inputs at .. at + 31 of a row of n floats, as pairs; zeros past the last. */
VEC_INLINE vec_bits load_pairs(const float *row, int at, int n, __m512 scale) {
  __m512 low = _mm512_maskz_loadu_ps(mask_of(at, n), row + at);
  __m512 high = _mm512_maskz_loadu_ps(mask_of(at + VEC_LANES, n), row + at + VEC_LANES);
  return (vec_bits)_mm512_cvtne2ps_pbh(_mm512_mul_ps(high, scale), _mm512_mul_ps(low, scale));
}

/* panel [padded d / 2, columns] of pairs = scale q^T for `count` queries, the others 0. */
static void pack_queries(uint32_t *panel, const float *q, int64_t stride, int count, int d,
                         int padded, float scale) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int first = 0; first < COLUMNS; first += BLOCK)
    for (int i = 0; i < padded; i += 2 * BLOCK) {
      struct square r;
      for (int j = 0; j < BLOCK; j++)
        r.row[j] =
            first + j < count ? load_pairs(q + (first + j) * stride, i, d, factor) : (vec_bits){0};
      r = transposed(r);
      for (int j = 0; j < BLOCK && i / 2 + j < padded / 2; j++)
        _mm512_storeu_si512(panel + (i / 2 + j) * COLUMNS + first, (__m512i)r.row[j]);
    }
}

static void load_keys(char *strip, const struct gemm_kernels *g, const struct cpu_head *h,
                      int first, int keys) {
  const int padded = round_up(h->d, g->unit);
  for (int i = 0; i < keys; i++, strip += g->stride)
    for (int c = 0; c < padded; c += 2 * VEC_LANES)
      _mm512_storeu_si512(
          strip + c * g->element,
          (__m512i)load_pairs(h->k + (first + i) * h->stride, c, h->d, _mm512_set1_ps(1)));
}

/* Row c of the strip: value c of CPU_KEY_BLOCK keys, those past the last 0. */
static void load_values(char *strip, const struct gemm_kernels *g, const struct cpu_head *h,
                        int first, int keys) {
  const float *v = h->v + first * h->stride;
  for (int c = 0; c < h->d; c += BLOCK)
    for (int i = 0; i < CPU_KEY_BLOCK; i += 2 * BLOCK) {
      const __mmask16 lanes = mask_of(c, h->d);
      struct square r;
      for (int j = 0; j < BLOCK; j++) {
        const int key = i + 2 * j;
        const __mmask16 low = (__mmask16)(key < keys ? lanes : 0);
        const __mmask16 high = (__mmask16)(key + 1 < keys ? lanes : 0);
        r.row[j] = pair(_mm512_maskz_loadu_ps(low, v + key * h->stride + c),
                        _mm512_maskz_loadu_ps(high, v + (key + 1) * h->stride + c));
      }
      r = transposed(r);
      for (int j = 0; j < BLOCK && c + j < h->d; j++)
        _mm512_storeu_si512(strip + (c + j) * g->stride + i * g->element, (__m512i)r.row[j]);
    }
}

/* One vector of queries and one block of keys: panel p = e^(logits - max), 0 for keys past the
 * last; max, sum and the output so far are brought up to date. */
VEC_INLINE void softmax(uint32_t *p, const float *s, float *max, float *sum, float *o, int keys,
                        int d) {
  const vec none = vec_set1(0), before = vec_load(max);
  vec largest = before, total = none;
  for (int i = 0; i < keys; i++) largest = vec_max(largest, vec_load(s + i * COLUMNS));
  for (int i = 0; i < CPU_KEY_BLOCK; i += 2) {
    vec e0 = i < keys ? vec_exp(vec_load(s + i * COLUMNS) - largest) : none;
    vec e1 = i + 1 < keys ? vec_exp(vec_load(s + (i + 1) * COLUMNS) - largest) : none;
    total = total + e0 + e1;
    _mm512_storeu_si512(p + i / 2 * COLUMNS, (__m512i)pair(e0, e1));
  }
  vec correction = vec_exp(before - largest);
  vec_store(sum, vec_fma(vec_load(sum), correction, total));
  vec_store(max, largest);
  for (int i = 0; i < d; i++) vec_store(o + i * COLUMNS, vec_load(o + i * COLUMNS) * correction);
}

/* Rows of d values of bf16 = (o / sum)^T for `count` queries of one vector. */
static void unpack(uint16_t *y, int64_t stride, const float *o, vec sum, int count, int d) {
  for (int c = 0; c < d; c += BLOCK) {
    struct square r;
    for (int j = 0; j < BLOCK; j++)
      r.row[j] = c + j < d ? (vec_bits)(vec_load(o + (c + j) * COLUMNS) / sum) : (vec_bits){0};
    r = transposed(r);
    for (int j = 0; j < least(count, BLOCK); j++)
      vec_put(y + j * stride, true, c, (vec)r.row[j], d - c);
  }
}

/* Takes panel p of queries through the loaded keys. */
static void attend(struct attention_bf16_scratch *s, const struct gemm_kernels *g, int p, int keys,
                   int d) {
  const int padded = round_up(d, g->unit);
  const uint32_t *query = s->query + p * padded / 2 * COLUMNS;
  float *output = s->output + p * d * COLUMNS;
  for (int i = 0; i < keys; i += g->rows)
    g->tile(s->logits + i * COLUMNS, s->key + i * g->stride, query, least(g->rows, keys - i),
            padded, false);
  for (int half = 0; half < COLUMNS; half += VEC_LANES)
    softmax(s->panel + half, s->logits + half, s->max + p * COLUMNS + half,
            s->sum + p * COLUMNS + half, output + half, keys, d);
  for (int i = 0; i < d; i += g->rows)
    g->tile(output + i * COLUMNS, s->value + i * g->stride, s->panel, least(g->rows, d - i),
            CPU_KEY_BLOCK, true);
}

void attention_bf16(struct attention_bf16_scratch *s, const struct gemm_kernels *g,
                    const struct cpu_head *h, int first, int count) {
  const int d = h->d, padded = round_up(d, g->unit), panels = (count + COLUMNS - 1) / COLUMNS;
  if (g->enter) g->enter();
  for (int p = 0; p < panels; p++)
    pack_queries(s->query + p * padded / 2 * COLUMNS, h->q + (first + p * COLUMNS) * h->stride,
                 h->stride, count - p * COLUMNS, d, padded, (float)(1 / sqrt(d)));
  memset(s->output, 0, (size_t)(panels * d * COLUMNS) * sizeof *s->output);
  for (int i = 0; i < panels * COLUMNS; i++) s->max[i] = -INFINITY, s->sum[i] = 0;
  for (int key = 0; key < h->T; key += CPU_KEY_BLOCK) {
    const int keys = least(CPU_KEY_BLOCK, h->T - key);
    load_keys(s->key, g, h, key, keys);
    load_values(s->value, g, h, key, keys);
    for (int p = 0; p < panels; p++) attend(s, g, p, keys, d);
  }
  if (g->leave) g->leave();
  for (int at = 0; at < count; at += VEC_LANES)
    unpack((uint16_t *)h->o + (first + at) * h->ldo, h->ldo,
           s->output + at / COLUMNS * d * COLUMNS + at % COLUMNS, vec_load(s->sum + at), count - at,
           d);
}
