/* Loads, dependences and memory, told from tables. Nothing is allocated: experts are looked at in
 * blocks of a fixed size. */
#include "ditmoe_routing.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 64 };

/* Choices of one layer by something: [rows, E], each of them a sum over `inner` counts, or given.
 */
struct joint {
  const uint32_t *counts; /* NULL: `sums` has the choices */
  const uint64_t *sums;
  int rows, inner;
  size_t row_stride, inner_stride;
  int experts, skip; /* of the layer; one that is left out, or -1 */
};

/* What a half of the tables is made of. */
struct half {
  struct ditmoe_routing_info info;
  struct ditmoe_routing_tables tables;
};

/* Whether this half is counted at all. */
static int half_of(const struct ditmoe_routing *routing, enum ditmoe_half half, struct half *out) {
  memset(out, 0, sizeof *out);
  ditmoe_routing_info(routing, &out->info);
  if ((int)half >= out->info.halves) return 0;
  ditmoe_routing_tables(routing, half, &out->tables);
  return 1;
}

static int uncond_of(const struct ditmoe_routing_info *info, int layer) {
  return info->uncond_expert < info->layer_experts[layer] ? info->uncond_expert : -1;
}

static struct joint joint_init(const struct half *h, int layer, int rows) {
  return (struct joint){.rows = rows,
                        .inner = 1,
                        .row_stride = (size_t)h->info.experts,
                        .experts = h->info.layer_experts[layer],
                        .skip = uncond_of(&h->info, layer)};
}

static struct joint by_position(const struct half *h, int layer) {
  const size_t T = (size_t)h->info.tokens, E = (size_t)h->info.experts, S = (size_t)h->info.bins;
  struct joint joint = joint_init(h, layer, h->info.tokens);
  joint.counts = h->tables.counts + (size_t)layer * S * T * E;
  joint.inner = h->info.bins;
  joint.inner_stride = T * E;
  return joint;
}

static struct joint by_step(const struct half *h, int layer) {
  struct joint joint = by_position(h, layer);
  joint.rows = h->info.bins;
  joint.inner = h->info.tokens;
  joint.row_stride = joint.inner_stride;
  joint.inner_stride = (size_t)h->info.experts;
  return joint;
}

/* One of the tables [L, rows, E]. */
static struct joint by_sums(const struct half *h, int layer, const uint64_t *sums, int rows) {
  struct joint joint = joint_init(h, layer, rows);
  joint.sums = sums + (size_t)layer * (size_t)rows * joint.row_stride;
  return joint;
}

/* Experts of the block that begins with `first`. */
static int block_size(const struct joint *joint, int first) {
  return joint->experts - first < BLOCK ? joint->experts - first : BLOCK;
}

/* Adds a row of the block that begins with `first`. */
static void add_row(const struct joint *joint, int row, int first, uint64_t out[BLOCK]) {
  const int n = block_size(joint, first);
  for (int i = 0; i < joint->inner; i++) {
    const size_t at = (size_t)row * joint->row_stride + (size_t)i * joint->inner_stride;
    for (int e = 0; e < n; e++)
      out[e] += joint->counts ? joint->counts[at + (size_t)(first + e)]
                              : joint->sums[at + (size_t)(first + e)];
  }
  if (joint->skip >= first && joint->skip < first + n) out[joint->skip - first] = 0;
}

/* Choices of the experts of a block. */
static void add_rows(const struct joint *joint, int first, uint64_t out[BLOCK]) {
  memset(out, 0, BLOCK * sizeof *out);
  for (int row = 0; row < joint->rows; row++) add_row(joint, row, first, out);
}

static uint64_t sum_block(const uint64_t values[BLOCK], int n) {
  uint64_t sum = 0;
  for (int i = 0; i < n; i++) sum += values[i];
  return sum;
}

static uint64_t choices(const struct joint *joint) {
  uint64_t block[BLOCK], sum = 0;
  for (int first = 0; first < joint->experts; first += BLOCK) {
    add_rows(joint, first, block);
    sum += sum_block(block, block_size(joint, first));
  }
  return sum;
}

/* Entropies are log2 N - sum of n log2 n / N. */
static double n_log_n(uint64_t n) { return n ? (double)n * log2((double)n) : 0; }

static double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

/* One more expert, `load` times as busy as the mean. */
static void add_load(struct ditmoe_routing_load *out, double load, int index) {
  out->dead += load == 0;
  out->largest = fmax(out->largest, load);
  out->smallest = index == 0 ? load : fmin(out->smallest, load);
  out->variation += (load - 1) * (load - 1);
}

void ditmoe_routing_load(const struct ditmoe_routing *routing, enum ditmoe_half half, int layer,
                         int bin, struct ditmoe_routing_load *out, double *load) {
  struct half h;
  const int counted = half_of(routing, half, &h), E = h.info.layer_experts[layer];
  *out = (struct ditmoe_routing_load){.experts = E - (uncond_of(&h.info, layer) >= 0)};
  out->dead = out->experts;
  for (int e = 0; load && e < E; e++) load[e] = 0;
  if (!counted) return;
  struct joint joint = by_step(&h, layer);
  if (bin >= 0) joint.counts += (size_t)bin * joint.row_stride, joint.rows = 1;
  const double N = out->tokens = (double)choices(&joint);
  if (N == 0) return;
  double sum = 0;
  int index = 0;
  out->dead = 0;
  for (int first = 0; first < E; first += BLOCK) {
    uint64_t block[BLOCK];
    add_rows(&joint, first, block);
    for (int e = first; e < first + block_size(&joint, first); e++) {
      if (e == joint.skip) continue;
      const double multiple = (double)block[e - first] * out->experts / N;
      add_load(out, multiple, index++);
      sum += n_log_n(block[e - first]);
      if (load) load[e] = multiple;
    }
  }
  out->variation = sqrt(out->variation / out->experts);
  out->entropy = fmax(0, log2(N) - sum / N);
  /* A single expert is as even as it can be. */
  out->evenness = out->experts > 1 ? fmin(1, out->entropy / log2(out->experts)) : 1;
}

struct information {
  double bits, normalised;
};

/* Of the expert and the rows of a table. */
static struct information information_of(const struct joint *joint) {
  double both = 0, rows = 0, experts = 0;
  uint64_t block[BLOCK], total = 0;
  for (int row = 0; row < joint->rows; row++) {
    uint64_t sum = 0;
    for (int first = 0; first < joint->experts; first += BLOCK) {
      memset(block, 0, sizeof block);
      add_row(joint, row, first, block);
      for (int e = 0; e < block_size(joint, first); e++) both += n_log_n(block[e]);
      sum += sum_block(block, block_size(joint, first));
    }
    rows += n_log_n(sum);
    total += sum;
  }
  if (total == 0) return (struct information){0, 0};
  for (int first = 0; first < joint->experts; first += BLOCK) {
    add_rows(joint, first, block);
    for (int e = 0; e < block_size(joint, first); e++) experts += n_log_n(block[e]);
  }
  const double N = (double)total, entropy = log2(N) - experts / N;
  /* H(expert) + H(axis) - H(both), which rounding may leave a little outside its bounds. */
  const double bits = fmax(0, log2(N) + (both - rows - experts) / N);
  return (struct information){bits, fmin(1, share(bits, entropy))};
}

static void layer_dependence(const struct half *h, int layer, enum ditmoe_routing_axis axis,
                             struct ditmoe_routing_dependence *out) {
  const struct ditmoe_routing_info *info = &h->info;
  const struct ditmoe_routing_tables *t = &h->tables;
  struct joint joint, shuffled;
  if (axis == DITMOE_BY_POSITION) {
    joint = by_position(h, layer);
    shuffled = by_sums(h, layer, t->shuffled_positions, info->tokens);
  } else if (axis == DITMOE_BY_STEP) {
    joint = by_step(h, layer);
    shuffled = by_sums(h, layer, t->shuffled_steps, info->bins);
  } else {
    joint = by_sums(h, layer, t->class_counts, info->labels);
    shuffled = by_sums(h, layer, t->shuffled_labels, info->labels);
  }
  const struct information own = information_of(&joint);
  struct information other = information_of(&shuffled);
  if (axis == DITMOE_BY_LABEL && choices(&shuffled) == 0) other = (struct information){NAN, NAN};
  *out = (struct ditmoe_routing_dependence){own.bits, own.normalised, other.bits, other.normalised};
}

/* The mean of numbers that may be NaN, which are left out; NaN if nothing is left. */
struct mean {
  double sum;
  int count;
};

static void mean_add(struct mean *mean, double value) {
  if (isnan(value)) return;
  mean->sum += value;
  mean->count++;
}

static double mean_of(const struct mean *mean) {
  return mean->count ? mean->sum / mean->count : NAN;
}

void ditmoe_routing_dependence(const struct ditmoe_routing *routing, enum ditmoe_half half,
                               int layer, enum ditmoe_routing_axis axis,
                               struct ditmoe_routing_dependence *out) {
  struct half h;
  struct mean mean[4] = {{0, 0}};
  *out = (struct ditmoe_routing_dependence){0};
  if (axis == DITMOE_BY_LABEL) out->shuffled = out->shuffled_normalised = NAN;
  if (!half_of(routing, half, &h)) return;
  if (layer >= 0) {
    layer_dependence(&h, layer, axis, out);
    return;
  }
  for (int l = 0; l < h.info.layers; l++) {
    layer_dependence(&h, l, axis, out);
    mean_add(&mean[0], out->information);
    mean_add(&mean[1], out->normalised);
    mean_add(&mean[2], out->shuffled);
    mean_add(&mean[3], out->shuffled_normalised);
  }
  *out = (struct ditmoe_routing_dependence){mean_of(&mean[0]), mean_of(&mean[1]), mean_of(&mean[2]),
                                            mean_of(&mean[3])};
}

/* Share of pairs {how many, of how many} [steps]. */
static double kept_share(const struct half *h, int layer, const uint64_t *kept) {
  uint64_t part = 0, whole = 0;
  kept += (size_t)layer * (size_t)h->info.steps * 2;
  for (int s = 0; s < h->info.steps; s++) part += kept[2 * s], whole += kept[2 * s + 1];
  return share((double)part, (double)whole);
}

/* An expert with n of N choices is among those of a token with probability n / tokens: nobody
 * chooses an expert twice. If the choices of a token were drawn anew with these probabilities, the
 * share n / N of choices that fall on the expert would meet it before with just this probability.
 * The unconditional expert is one of them, as its choices are kept too. */
static double kept_by_chance(const struct half *h, int layer) {
  struct joint joint = by_step(h, layer);
  uint64_t evaluations = 0, block[BLOCK];
  double sum = 0;
  joint.skip = -1;
  for (int s = 0; s < h->info.bins; s++) evaluations += h->tables.evaluations[s];
  const double N = (double)choices(&joint), tokens = (double)evaluations * h->info.tokens;
  for (int first = 0; first < joint.experts; first += BLOCK) {
    add_rows(&joint, first, block);
    for (int e = 0; e < block_size(&joint, first); e++)
      sum += share((double)block[e], N) * fmin(1, share((double)block[e], tokens));
  }
  return sum;
}

static void guess(const struct half *h, int layer, struct ditmoe_routing_memory *out) {
  const size_t E = (size_t)h->info.experts;
  const uint64_t *pairs = h->tables.pairs + (size_t)layer * E * E;
  uint64_t total = 0, right = 0, constant = 0;
  out->from_layer = out->from_nothing = NAN;
  if (layer == 0) return;
  for (size_t i = 0; i < E; i++) {
    uint64_t best = 0, column = 0;
    for (size_t j = 0; j < E; j++) {
      if (pairs[i * E + j] > best) best = pairs[i * E + j];
      column += pairs[j * E + i];
    }
    right += best;
    total += column;
    if (column > constant) constant = column;
  }
  out->from_layer = share((double)right, (double)total);
  out->from_nothing = share((double)constant, (double)total);
}

static void layer_memory(const struct half *h, int layer, struct ditmoe_routing_memory *out) {
  out->kept = kept_share(h, layer, h->tables.kept);
  out->kept_leading = kept_share(h, layer, h->tables.kept_leading);
  out->by_chance = kept_by_chance(h, layer);
  guess(h, layer, out);
}

void ditmoe_routing_memory(const struct ditmoe_routing *routing, enum ditmoe_half half, int layer,
                           struct ditmoe_routing_memory *out) {
  struct half h;
  struct mean mean[5] = {{0, 0}};
  *out = (struct ditmoe_routing_memory){0};
  if (layer == 0) out->from_layer = out->from_nothing = NAN;
  if (!half_of(routing, half, &h)) return;
  if (layer >= 0) {
    layer_memory(&h, layer, out);
    return;
  }
  for (int l = 0; l < h.info.layers; l++) {
    layer_memory(&h, l, out);
    mean_add(&mean[0], out->kept);
    mean_add(&mean[1], out->kept_leading);
    mean_add(&mean[2], out->by_chance);
    mean_add(&mean[3], out->from_layer);
    mean_add(&mean[4], out->from_nothing);
  }
  *out = (struct ditmoe_routing_memory){mean_of(&mean[0]), mean_of(&mean[1]), mean_of(&mean[2]),
                                        mean_of(&mean[3]), mean_of(&mean[4])};
}
