/* Operations on images, channels last: GroupNorm and upsampling. */
#include "backend/cpu/state.h"
#include "backend/ref/ref.h"

#include <math.h>
#include <string.h>

/* Channels that go through a kernel at a time. */
enum { SLICE = 256 };

/* Pixels of one image, `rows` of `columns` pixels whose starts are `stride` pixels apart, and the
 * moments of its groups. */
struct group_norm {
  const struct row_kernels *kernels;
  struct group_sum *sums; /* [CPU_GROUP_PIECES, CPU_GROUPS_MAX] */
  const float *x;
  int64_t rows, columns, stride;
  int C, groups;
  double mean[CPU_GROUPS_MAX], inverse[CPU_GROUPS_MAX]; /* inverse = 1 / sqrt(variance + eps) */
};

/* Row at which piece i begins; the cut depends on the image alone. */
static int64_t piece_begin(const struct group_norm *g, int i) {
  return g->rows * i / CPU_GROUP_PIECES;
}

/* Values of one group in a piece. */
static double piece_count(const struct group_norm *g, int piece) {
  int64_t rows = piece_begin(g, piece + 1) - piece_begin(g, piece);
  return (double)(rows * g->columns) * (g->C / g->groups);
}

/* Adds up value - center and its square over `pixels` pixels from x on, by group. */
static void add_pixels(const struct group_norm *g, const float *x, int64_t pixels,
                       const float *center, struct group_sum *out) {
  int width = g->C / g->groups;
  for (int c = 0; c < g->C; c += SLICE) {
    int n = g->C - c < SLICE ? g->C - c : SLICE;
    float centers[SLICE];
    double sum[SLICE] = {0}, squares[SLICE] = {0};
    for (int i = 0; i < n; i++) centers[i] = center[(c + i) / width];
    g->kernels->moments(sum, squares, x + c, centers, pixels, g->C, n);
    for (int i = 0; i < n; i++) {
      out[(c + i) / width].sum += sum[i];
      out[(c + i) / width].squares += squares[i];
    }
  }
}

static void add_piece(const struct group_norm *g, int piece, const float *center,
                      struct group_sum *out) {
  int64_t begin = piece_begin(g, piece), rows = piece_begin(g, piece + 1) - begin;
  int64_t runs = g->columns == g->stride ? 1 : rows;
  const float *x = g->x + begin * g->stride * g->C;
  memset(out, 0, (size_t)g->groups * sizeof *out);
  for (int64_t r = 0; r < runs; r++)
    add_pixels(g, x + r * g->stride * g->C, (runs == 1 ? rows : 1) * g->columns, center, out);
}

/* The sum of the values and the squares about their mean, of one piece: in two passes, the second
 * one from the cache. */
static void piece_moments(const struct group_norm *g, int piece) {
  struct group_sum *out = g->sums + piece * CPU_GROUPS_MAX;
  double count = piece_count(g, piece);
  float center[CPU_GROUPS_MAX] = {0};
  add_piece(g, piece, center, out);
  if (count == 0) return;
  for (int k = 0; k < g->groups; k++) center[k] = (float)(out[k].sum / count);
  add_piece(g, piece, center, out);
  for (int k = 0; k < g->groups; k++) {
    out[k].squares -= out[k].sum * out[k].sum / count;
    out[k].sum += count * (double)center[k];
  }
}

static void all_pieces(struct exec *ex, const struct group_norm *g) {
  CPU_PARALLEL_FOR(ex, g->rows * g->columns * g->C)
  for (int i = 0; i < CPU_GROUP_PIECES; i++) piece_moments(g, i);
}

/* Joins the pieces of group k (Chan, Golub & LeVeque 1979): the squares about `mean` are those
 * about the mean of each piece, and those of these means. */
static struct group_sum join_pieces(const struct group_norm *g, int k, double mean) {
  struct group_sum all = {0};
  for (int i = 0; i < CPU_GROUP_PIECES; i++) {
    struct group_sum piece = g->sums[i * CPU_GROUPS_MAX + k];
    double count = piece_count(g, i), off = count > 0 ? piece.sum / count - mean : 0;
    all.sum += piece.sum;
    all.squares += piece.squares + count * off * off;
  }
  return all;
}

/* y = (x - mean) inverse weight + bias over one piece. */
static void normalize_piece(const struct group_norm *g, int piece, struct act y,
                            const float *weight, const float *bias, bool silu) {
  int64_t begin = piece_begin(g, piece), end = piece_begin(g, piece + 1);
  int width = g->C / g->groups;
  for (int c = 0; c < g->C; c += SLICE) {
    int n = g->C - c < SLICE ? g->C - c : SLICE;
    float center[SLICE], scale[SLICE], shift[SLICE];
    for (int i = 0; i < n; i++) {
      int k = (c + i) / width;
      double factor = g->inverse[k] * (double)weight[c + i];
      center[i] = (float)g->mean[k];
      scale[i] = (float)factor;
      shift[i] = (float)((double)bias[c + i] - (g->mean[k] - (double)center[i]) * factor);
    }
    for (int64_t p = begin; p < end; p++)
      g->kernels->affine[cpu_type(y.type)](act_at(y, p * g->C + c), g->x + p * g->C + c, center,
                                           scale, shift, n, silu);
  }
}

static void normalize_pieces(struct exec *ex, const struct group_norm *g, struct act y,
                             const float *weight, const float *bias, bool silu) {
  CPU_PARALLEL_FOR(ex, g->rows * g->columns * g->C)
  for (int i = 0; i < CPU_GROUP_PIECES; i++) normalize_piece(g, i, y, weight, bias, silu);
}

void cpu_group_norm(struct exec *ex, struct act y, const float *x, const float *weight,
                    const float *bias, int B, int64_t pixels, int C, int groups, float eps,
                    bool silu) {
  if (groups > CPU_GROUPS_MAX) { /* more than the working memory holds; no known model has them */
    backend_ref.group_norm(ex, y, x, weight, bias, B, pixels, C, groups, eps, silu);
    return;
  }
  double count = (double)pixels * (C / groups);
  for (int b = 0; b < B; b++, x += pixels * C) {
    struct group_norm g = {
        cpu_kernels(ex)->rows, cpu_scratch(ex)->group_sums, x, pixels, 1, 1, C, groups, {0}, {0}};
    all_pieces(ex, &g);
    for (int k = 0; k < groups; k++) {
      g.mean[k] = join_pieces(&g, k, 0).sum / count;
      g.inverse[k] = 1 / sqrt(join_pieces(&g, k, g.mean[k]).squares / count + (double)eps);
    }
    normalize_pieces(ex, &g, act_from(y, b * pixels * C), weight, bias, silu);
  }
}

void cpu_group_moments(struct exec *ex, double *moments, const float *x, int width,
                       const int window[4], int C, int groups, int64_t pixels) {
  if (groups > CPU_GROUPS_MAX) {
    backend_ref.group_moments(ex, moments, x, width, window, C, groups, pixels);
    return;
  }
  double count = (double)pixels * (C / groups);
  struct group_norm g = {.kernels = cpu_kernels(ex)->rows,
                         .sums = cpu_scratch(ex)->group_sums,
                         .x = x + ((int64_t)window[0] * width + window[1]) * C,
                         .rows = window[2] - window[0],
                         .columns = window[3] - window[1],
                         .stride = width,
                         .C = C,
                         .groups = groups};
  all_pieces(ex, &g);
  for (int k = 0; k < groups; k++) {
    struct group_sum all = join_pieces(&g, k, 0);
    moments[2 * k] += all.sum / count;
    moments[2 * k + 1] += all.squares / count;
  }
}

void cpu_group_norm_given(struct exec *ex, struct act y, const float *x, const double *moments,
                          const float *weight, const float *bias, int64_t pixels, int C, int groups,
                          float eps, bool silu) {
  if (groups > CPU_GROUPS_MAX) {
    backend_ref.group_norm_given(ex, y, x, moments, weight, bias, pixels, C, groups, eps, silu);
    return;
  }
  struct group_norm g = {
      cpu_kernels(ex)->rows, cpu_scratch(ex)->group_sums, x, pixels, 1, 1, C, groups, {0}, {0}};
  for (int k = 0; k < groups; k++) {
    double mean = moments[2 * k], variance = moments[2 * k + 1] - mean * mean;
    g.mean[k] = mean;
    g.inverse[k] = 1 / sqrt(fmax(variance, 0) + (double)eps);
  }
  normalize_pieces(ex, &g, y, weight, bias, silu);
}

void cpu_upsample2x(struct exec *ex, struct act y, const float *x, int B, int height, int width,
                    int C) {
  int64_t rows = (int64_t)B * height, out = 2 * (int64_t)width * C;
  size_t pixel = (size_t)C * dtype_size(y.type);
  CPU_PARALLEL_FOR(ex, rows * out)
  for (int64_t r = 0; r < rows; r++) {
    char *upper = act_at(y, 2 * r * out);
    for (int64_t j = 0; j < width; j++, upper += 2 * pixel) {
      if (y.type == DT_BF16)
        cpu_kernels(ex)->rows->narrow(upper, x + (r * width + j) * C, C);
      else
        memcpy(upper, x + (r * width + j) * C, pixel);
      memcpy(upper + pixel, upper, pixel);
    }
    memcpy(act_at(y, (2 * r + 1) * out), act_at(y, 2 * r * out), 2 * (size_t)width * pixel);
  }
}
