/* Choices, plans and combinations against plain definitions. Integers must be equal. */
#include "tests/cuda/moe_checks.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

struct assignment {
  int32_t expert, token;
  float gate;
};

static bool precedes(float a, int a_index, float b, int b_index) {
  if (std::isnan(a) || std::isnan(b))
    return std::isnan(a) == std::isnan(b) ? a_index < b_index : std::isnan(b);
  return a != b ? a > b : a_index < b_index;
}

static bool same(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

static int report(const char *what, bool good, int verbose) {
  if (!good || verbose) printf("%s %s\n", good ? "ok" : "FAILED", what);
  return !good;
}

/* A plan in device memory. */
struct plan_memory {
  device_array<int32_t> expert, source, offset, token, first, row, work;
  device_array<float> gate, weight;
  struct cuda_plan plan;
  plan_memory(int experts, int tokens, int64_t capacity)
      : expert((size_t)capacity), source((size_t)capacity), offset((size_t)experts + 1),
        token((size_t)capacity), first((size_t)tokens + 1), row((size_t)capacity),
        work((size_t)cuda_dispatch_work(tokens, experts, capacity)), gate((size_t)capacity),
        weight((size_t)capacity), plan{experts,     tokens,     capacity,    expert.data,
                                       source.data, gate.data,  offset.data, token.data,
                                       weight.data, first.data, row.data} {}
  std::vector<assignment> assignments() const {
    std::vector<int32_t> e = expert.host(), s = source.host();
    std::vector<float> g = gate.host();
    std::vector<assignment> all;
    for (size_t i = 0; i < e.size(); i++) all.push_back({e[i], s[i], g[i]});
    return all;
  }
};

/* Few different values, so that there are ties, zeros of both signs and NaN. */
static std::vector<float> some_scores(size_t n, uint64_t seed, int nans) {
  std::vector<float> scores(n);
  for (float &s : scores) {
    s = roundf(random_value(&seed) * 40) / 8;
    if (nans && (int)(random_bits(&seed) % 100) < nans) s = NAN;
  }
  return scores;
}

static bool equal(const std::vector<assignment> &got, const std::vector<assignment> &want) {
  for (size_t i = 0; i < want.size(); i++) {
    if (got[i].expert != want[i].expert) return false;
    if (want[i].expert >= 0 && (got[i].token != want[i].token || !same(got[i].gate, want[i].gate)))
      return false;
  }
  return got.size() == want.size();
}

static int check_topk(int rows, int E, int K, int skip, int nans, int verbose) {
  std::vector<float> scores = some_scores((size_t)rows * E, (uint64_t)rows + E, nans);
  device_array<float> device(scores);
  plan_memory memory(E, rows, (int64_t)rows * K);
  must(cuda_assign_topk(nullptr, &memory.plan, 0, device.data, 0, rows, E, K, skip), "assign_topk");
  std::vector<assignment> want;
  for (int r = 0; r < rows; r++) {
    const float *s = &scores[(size_t)r * E];
    std::vector<int> order(E);
    for (int e = 0; e < E; e++) order[e] = e;
    std::sort(order.begin(), order.end(), [s](int a, int b) { return precedes(s[a], a, s[b], b); });
    for (int k = skip; k < skip + K; k++) want.push_back({order[k], r, s[order[k]]});
  }
  return report("assign_topk", equal(memory.assignments(), want), verbose);
}

/* The k best of n tokens of expert e, ascending. */
static void take(std::vector<assignment> *to, const float *scores, int n, int E, int e, int first,
                 int k, int slots) {
  std::vector<int> order(n);
  for (int t = 0; t < n; t++) order[t] = t;
  std::sort(order.begin(), order.end(), [=](int a, int b) {
    return precedes(scores[(size_t)a * E + e], a, scores[(size_t)b * E + e], b);
  });
  k = std::min(k, n);
  std::sort(order.begin(), order.begin() + k);
  for (int i = 0; i < k; i++)
    to->push_back({e, first + order[i], scores[(size_t)order[i] * E + e]});
  for (int i = k; i < slots; i++) to->push_back({-1, 0, 0});
}

static int check_tokens(int B, int T, int E, int K, int nans, int verbose) {
  std::vector<float> scores = some_scores((size_t)B * T * E, (uint64_t)T * E + K, nans);
  std::vector<int32_t> labels(B);
  int stride = std::max(T, E * K) + 2;
  device_array<float> device(scores);
  plan_memory memory(E + 1, B * T, (int64_t)B * stride);
  for (int b = 0; b < B; b++) labels[b] = b % 2 ? 1000 : b;
  device_array<int32_t> device_labels(labels);
  must(cuda_assign_tokens(nullptr, &memory.plan, 0, device.data, 0, B, T, E, K, stride),
       "assign_tokens");
  std::vector<assignment> got = memory.assignments(), want, null;
  for (int b = 0; b < B; b++) {
    for (int e = 0; e < E; e++) take(&want, &scores[(size_t)b * T * E], T, E, e, b * T, K, K);
    while ((int)want.size() < (b + 1) * stride) want.push_back({-1, 0, 0});
  }
  int failed = report("assign_tokens", equal(got, want), verbose);
  must(cuda_assign_by_label(nullptr, &memory.plan, 0, device_labels.data, 1000, E, B, T, stride),
       "assign_by_label");
  for (int i = 0; i < B * stride; i++)
    if (labels[i / stride] == 1000)
      want[i] =
          i % stride < T ? assignment{E, i / stride * T + i % stride, 1} : assignment{-1, 0, 0};
  return failed + report("assign_by_label", equal(memory.assignments(), want), verbose);
}

static int check_counted(int S, int E, int nans, int verbose) {
  std::vector<float> scores = some_scores((size_t)S * E, (uint64_t)S + 7, nans), threshold(E),
                     capacity = some_scores((size_t)S * E, (uint64_t)S + 9, 0);
  for (int e = 0; e < E; e++) threshold[e] = 6 - 12 * (float)e / (float)(E - 1);
  device_array<float> device(scores), device_capacity(capacity), device_threshold(threshold);
  plan_memory memory(E, S, (int64_t)S * E);
  must(cuda_assign_counted(nullptr, &memory.plan, 0, device.data, device_capacity.data,
                           device_threshold.data, S, E),
       "assign_counted");
  std::vector<assignment> want;
  for (int e = 0; e < E; e++) {
    int k = 0;
    for (int t = 0; t < S; t++) k += capacity[(size_t)t * E + e] > threshold[e];
    take(&want, scores.data(), S, E, e, 0, k, S);
  }
  return report("assign_counted", equal(memory.assignments(), want), verbose);
}

/* The plan of assignments by sorting. */
struct expected_plan {
  std::vector<int32_t> offset, token, first, row;
  std::vector<float> weight;
};

static expected_plan plan_of(const std::vector<assignment> &all, int E, int tokens) {
  std::vector<assignment> used;
  for (const assignment &a : all)
    if (a.expert >= 0) used.push_back(a);
  std::stable_sort(used.begin(), used.end(), [](const assignment &a, const assignment &b) {
    return a.expert != b.expert ? a.expert < b.expert : a.token < b.token;
  });
  expected_plan p;
  for (int e = 0; e <= E; e++) {
    int32_t n = 0;
    for (const assignment &a : used) n += a.expert < e;
    p.offset.push_back(n);
  }
  for (const assignment &a : used) {
    p.token.push_back(a.token);
    p.weight.push_back(a.gate);
  }
  for (int t = 0; t <= tokens; t++) {
    p.first.push_back((int32_t)p.row.size());
    for (size_t r = 0; r < used.size(); r++)
      if (used[r].token == t) p.row.push_back((int32_t)r);
    std::stable_sort(p.row.begin() + p.first.back(), p.row.end(), [&](int32_t a, int32_t b) {
      float x = p.weight[a], y = p.weight[b];
      return x > y || (std::isnan(y) && !std::isnan(x));
    });
  }
  return p;
}

/* Assignments in any order, a share of them unused; a token may have an expert twice. */
static void random_plan(plan_memory *memory, std::vector<assignment> *all, int nans) {
  struct cuda_plan *d = &memory->plan;
  uint64_t state = (uint64_t)d->capacity;
  std::vector<int32_t> expert, source;
  std::vector<float> gate = some_scores((size_t)d->capacity, state, nans);
  for (int64_t i = 0; i < d->capacity; i++) {
    expert.push_back((int32_t)(random_bits(&state) % (unsigned)(d->experts + 1)) - 1);
    if (expert.back() == d->experts / 2) expert.back() = -1;
    source.push_back((int32_t)(random_bits(&state) % (unsigned)d->tokens));
    all->push_back({expert.back(), source.back(), gate[i]});
  }
  if (d->capacity == 0) return;
  size_t bytes = (size_t)d->capacity * 4;
  must(cudaMemcpy(d->expert, expert.data(), bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
  must(cudaMemcpy(d->source, source.data(), bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
  must(cudaMemcpy(d->gate, gate.data(), bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
}

template <class T> static bool begins(const std::vector<T> &got, const std::vector<T> &want) {
  return got.size() >= want.size() &&
         (want.empty() || !memcmp(got.data(), want.data(), want.size() * sizeof(T)));
}

static int check_order(int E, int tokens, int capacity, int nans, int verbose) {
  plan_memory memory(E, tokens, capacity);
  std::vector<assignment> all;
  random_plan(&memory, &all, nans);
  must(cuda_dispatch_order(nullptr, &memory.plan, memory.work.data), "dispatch_order");
  expected_plan want = plan_of(all, E, tokens);
  bool good = begins(memory.offset.host(), want.offset) &&
              begins(memory.token.host(), want.token) &&
              begins(memory.weight.host(), want.weight) &&
              begins(memory.first.host(), want.first) && begins(memory.row.host(), want.row);
  return report("dispatch_order", good, verbose);
}

int check_plans(int verbose) {
  int failed = 0;
  failed += check_topk(300, 8, 2, 0, 0, verbose);
  failed += check_topk(33, 16, 3, 2, 20, verbose);
  failed += check_topk(1, 5, 5, 0, 50, verbose);
  failed += check_tokens(3, 64, 8, 8, 0, verbose);
  failed += check_tokens(2, 300, 3, 170, 10, verbose);
  failed += check_tokens(4, 16, 4, 16, 60, verbose);
  failed += check_tokens(2, 20, 6, 1, 0, verbose);
  failed += check_counted(1500, 5, 10, verbose);
  failed += check_counted(40, 3, 0, verbose);
  failed += check_order(8, 700, 1400, 0, verbose);
  failed += check_order(3, 129, 900, 15, verbose);
  failed += check_order(17, 1, 40, 0, verbose);
  failed += check_order(4, 5000, 300, 0, verbose);
  failed += check_order(2, 6, 0, 0, verbose);
  return failed;
}

static int check_combine(enum dtype type, int D, bool add, int verbose) {
  const int E = 5, tokens = 70, capacity = 200;
  plan_memory memory(E, tokens, capacity);
  std::vector<assignment> all;
  uint64_t state = (uint64_t)D;
  random_plan(&memory, &all, 0);
  must(cuda_dispatch_order(nullptr, &memory.plan, memory.work.data), "dispatch_order");
  expected_plan plan = plan_of(all, E, tokens);
  std::vector<float> rows((size_t)capacity * D), more((size_t)tokens * D);
  std::vector<uint16_t> narrow(rows.size());
  for (size_t i = 0; i < rows.size(); i++) {
    rows[i] = random_value(&state);
    if (type == DT_F32) continue;
    narrow[i] = narrow_bits(rows[i], type);
    rows[i] = widen_bits(narrow[i], type);
  }
  for (float &m : more) m = random_value(&state);
  device_array<float> wide_rows(rows), device_more(more), y((size_t)tokens * D);
  device_array<uint16_t> narrow_rows(narrow);
  must(cuda_combine_rows(nullptr, y.data,
                         type == DT_F32 ? (void *)wide_rows.data : narrow_rows.data, type,
                         &memory.plan, add ? device_more.data : nullptr, D),
       "combine_rows");
  std::vector<float> got = y.host();
  double error = 0, norm = 0;
  for (int t = 0; t < tokens; t++)
    for (int c = 0; c < D; c++) {
      double want = add ? more[(size_t)t * D + c] : 0;
      for (int i = plan.first[t]; i < plan.first[t + 1]; i++)
        want += (double)plan.weight[plan.row[i]] * rows[(size_t)plan.row[i] * D + c];
      double off = got[(size_t)t * D + c] - want;
      error += off * off;
      norm += want * want;
    }
  return report("combine_rows", sqrt(error / norm) < 1e-6, verbose);
}

/* Rows of 4 or 2 bytes a value from x [8, D] of `type`, or zeros. */
static int check_copy(bool copy, int D, enum dtype type, enum dtype rows_type, int verbose) {
  const int E = 2;
  std::vector<int32_t> offset = {3, 3, 9}, token(12, 1);
  for (int r = 3; r < 9; r++) token[r] = 10 - r;
  size_t size = type == DT_F32 ? 4 : 2, rows_size = rows_type == DT_F32 ? 4 : 2;
  std::vector<unsigned char> x(8 * D * size), want(12 * D * rows_size, 0xa5);
  std::vector<float> value((size_t)8 * D);
  uint64_t state = 5;
  for (size_t i = 0; i < value.size(); i++) {
    value[i] = random_value(&state);
    uint16_t bits = type == DT_F32 ? 0 : narrow_bits(value[i], type);
    if (type != DT_F32) value[i] = widen_bits(bits, type);
    memcpy(&x[i * size], type == DT_F32 ? (void *)&value[i] : &bits, size);
  }
  for (int i = 3 * D; i < 9 * D; i++) {
    float v = copy ? value[(size_t)token[i / D] * D + i % D] : 0;
    uint16_t bits = rows_type == DT_F32 ? 0 : narrow_bits(v, rows_type);
    memcpy(&want[i * rows_size], rows_type == DT_F32 ? (void *)&v : &bits, rows_size);
  }
  device_array<int32_t> device_offset(offset), device_token(token);
  device_array<unsigned char> device_x(x), rows(want.size());
  must(cuda_rows_copy(nullptr, rows.data, rows_type, copy ? device_x.data : nullptr, type,
                      device_offset.data, E, device_token.data, 12, D),
       "rows_copy");
  bool good = rows.host() == want;
  return report("rows_copy", good, verbose);
}

static int check_copies(bool copy, int verbose) {
  int failed = 0;
  for (int D : {37, 296})
    for (enum dtype type : {DT_F32, DT_BF16, DT_F16}) {
      failed += check_copy(copy, D, type, DT_F32, verbose);
      if (type != DT_F32) failed += check_copy(copy, D, type, type, verbose);
    }
  return failed;
}

int check_rows(int verbose) {
  int failed = 0;
  failed += check_combine(DT_F32, 72, true, verbose);
  failed += check_combine(DT_BF16, 72, false, verbose);
  failed += check_combine(DT_F16, 37, true, verbose);
  failed += check_copies(false, verbose);
  failed += check_copies(true, verbose);
  return failed;
}
