/* What routers are made of: every choice is a list of assignments (expert, token, weight). No
 * choice needs memory beyond its own slots, and a NaN among the scores counts as the smallest. */
#include "backend/ref/ref_ops.h"

/* Total order of candidates: larger score first, then the lower index; NaN after all numbers. */
static bool precedes(float a, int64_t a_index, float b, int64_t b_index) {
  if (isnan(a) || isnan(b)) return isnan(a) == isnan(b) ? a_index < b_index : isnan(b);
  return a != b ? a > b : a_index < b_index;
}

static void set(struct dispatch *d, int64_t at, int32_t expert, int32_t token, float gate) {
  d->expert[at] = expert;
  d->source[at] = token;
  d->gate[at] = gate;
}

/* dst[i] = src[index[i]], rows of D */
void ref_gather_rows(struct exec *ex, float *dst, const float *src, const int32_t *index, int64_t n,
                     int D) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t c = 0; c < D; c++) dst[i * D + c] = src[(int64_t)index[i] * D + c];
}

/* The first candidate after `last` in the order, -1 if there is none; last = -1 asks for the
 * first. */
static int next_best(const float *scores, int E, int last) {
  int best = -1;
  for (int e = 0; e < E; e++)
    if ((last < 0 || precedes(scores[last], last, scores[e], e)) &&
        (best < 0 || precedes(scores[e], e, scores[best], best)))
      best = e;
  return best;
}

/* Token choice (Shazeer et al. 2017): assignment r K + j is token r with the expert of rank skip +
 * j by its scores [E]. */
void ref_assign_topk(struct exec *ex, struct dispatch *d, const float *scores, int64_t rows, int E,
                     int K, int skip) {
  for (int64_t r = 0; r < rows; r++, scores += E) {
    int expert = -1;
    for (int rank = 0; rank < skip + K; rank++) {
      expert = next_best(scores, E, expert);
      if (rank >= skip) set(d, r * K + rank - skip, expert, (int32_t)r, scores[expert]);
    }
  }
}

/* What expert e is chosen by. */
static float biased(const float *scores, const struct biased_choice *choice, int e) {
  return scores[e] + choice->bias[e];
}

/* Sum of the two best of a group of n experts from `first` on. */
static float group_score(const float *scores, const struct biased_choice *choice, int first,
                         int n) {
  float best = -INFINITY, next = -INFINITY;
  for (int e = first; e < first + n; e++) {
    const float c = biased(scores, choice, e);
    if (c > best)
      next = best, best = c;
    else if (c > next)
      next = c;
  }
  return best + next;
}

/* Whether the group is one of those kept: fewer than so many are better. */
static bool group_is_kept(const float *scores, const struct biased_choice *choice, int group,
                          int n) {
  const float own = group_score(scores, choice, group * n, n);
  int better = 0;
  for (int g = 0; choice->kept < choice->groups && g < choice->groups; g++)
    better += precedes(group_score(scores, choice, g * n, n), g, own, group);
  return better < choice->kept;
}

void ref_assign_biased(struct exec *ex, struct dispatch *d, float *ranked, const float *scores,
                       const struct biased_choice *choice, int64_t rows, int E, int K, int skip) {
  const int n = E / choice->groups;
  for (int64_t r = 0; r < rows; r++)
    for (int e = 0; e < E; e++)
      ranked[r * E + e] =
          group_is_kept(scores + r * E, choice, e / n, n) ? biased(scores + r * E, choice, e) : 0;
  ref_assign_topk(ex, d, ranked, rows, E, K, skip);
  for (int64_t r = 0; r < rows; r++) {
    const int32_t *expert = d->expert + r * K;
    double sum = 1e-20;
    for (int j = 0; j < K; j++) sum += scores[r * E + expert[j]];
    for (int j = 0; j < K; j++)
      d->gate[r * K + j] = (float)(scores[r * E + expert[j]] / (K > 1 ? sum : 1) * choice->factor);
  }
}

/* One expert's choice among n tokens, score of token t at scores[t * stride]. */
struct choice {
  const float *scores;
  int64_t stride, n;
  int32_t expert, first_token;
};

static bool token_precedes(const struct choice *c, int64_t a, int64_t b) {
  return precedes(c->scores[a * c->stride], a, c->scores[b * c->stride], b);
}

/* Restores the heap of k tokens, in which no token precedes its parent, after a change at its
 * root. */
static void sift(const struct choice *c, int32_t *heap, int64_t k) {
  for (int64_t i = 0, child; (child = 2 * i + 1) < k; i = child) {
    if (child + 1 < k && token_precedes(c, heap[child], heap[child + 1])) child++;
    if (!token_precedes(c, heap[i], heap[child])) return;
    int32_t swap = heap[i];
    heap[i] = heap[child];
    heap[child] = swap;
  }
}

/* The last of the k > 0 best tokens; heap [k] is overwritten. */
static int32_t last_taken(const struct choice *c, int32_t *heap, int64_t k) {
  heap[0] = 0;
  for (int64_t t = 1; t < c->n; t++) {
    if (t < k) {
      int64_t i = t;
      for (; i > 0 && token_precedes(c, heap[(i - 1) / 2], t); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
      heap[i] = (int32_t)t;
    } else if (token_precedes(c, t, heap[0])) {
      heap[0] = (int32_t)t;
      sift(c, heap, k);
    }
  }
  return heap[0];
}

/* Fills `slots` assignments from `at`: the k best tokens in ascending order, then unused ones. */
static void take_tokens(struct dispatch *d, int64_t at, int64_t slots, const struct choice *c,
                        int64_t k) {
  int64_t taken = 0;
  if (k > c->n) k = c->n;
  if (k > 0) {
    int32_t last = last_taken(c, d->source + at, k);
    for (int64_t t = 0; t < c->n; t++)
      if (!token_precedes(c, last, t))
        set(d, at + taken++, c->expert, c->first_token + (int32_t)t, c->scores[t * c->stride]);
  }
  for (; taken < slots; taken++) set(d, at + taken, -1, 0, 0);
}

/* Expert choice (Zhou et al. 2022): in each image an expert takes the K tokens t with the largest
 * scores[b, t, e]. */
void ref_assign_tokens(struct exec *ex, struct dispatch *d, const float *scores, int B, int T,
                       int E, int K, int64_t stride) {
  for (int b = 0; b < B; b++) {
    int64_t at = b * stride;
    for (int e = 0; e < E; e++, at += K) {
      struct choice c = {scores + (int64_t)b * T * E + e, E, T, e, b * T};
      take_tokens(d, at, K, &c, K);
    }
    for (; at < (b + 1) * stride; at++) set(d, at, -1, 0, 0);
  }
}

/* DiffMoE (Shi et al. 2025) among all S tokens of a batch: expert e takes k[e] = the number of t
 * with capacity[t, e] > threshold[e], those with the largest scores[t, e]. */
void ref_assign_counted(struct exec *ex, struct dispatch *d, const float *scores,
                        const float *capacity, const float *threshold, int64_t S, int E) {
  for (int e = 0; e < E; e++) {
    int64_t k = 0;
    for (int64_t t = 0; t < S; t++) k += capacity[t * E + e] > threshold[e];
    struct choice c = {scores + e, E, S, e, 0};
    take_tokens(d, e * S, S, &c, k);
  }
}

/* Assignments b each .. (b + 1) each - 1 are those of image b. If its label is the null label, all
 * of its T tokens go to the one expert, with weight 1. */
void ref_assign_label(struct exec *ex, struct dispatch *d, const int32_t *labels, int32_t label,
                      int32_t expert, int B, int T) {
  const int64_t each = d->capacity / B;
  for (int b = 0; b < B; b++)
    for (int64_t i = 0; labels[b] == label && i < each; i++)
      set(d, b * each + i, i < T ? expert : -1, i < T ? b * T + (int32_t)i : 0,
          i < T ? 1.0f : 0.0f);
}
