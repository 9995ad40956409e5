/* The experts of a layer: what a kind of expert does with its rows, and which of them have their
 * weights at hand. */
#ifndef BACKEND_EXPERTS_H
#define BACKEND_EXPERTS_H

#include "backend/weights.h"

/* What becomes of the sums of a first product, a = x W^T + b. SwiGLU has two matrices, gate and up,
 * in a paired layer (Shazeer 2020). */
enum activation {
  ACTIVATION_GELU,   /* a / 2 (1 + tanh(sqrt(2 / pi) (a + 0.044715 a^3))) */
  ACTIVATION_SWIGLU, /* silu(gate) up */
  ACTIVATION_RELU,   /* max(a, 0) */
  ACTIVATION_SILU,   /* a / (1 + e^-a) */
};

/* Where the result of an expert comes from. */
enum expert_rows {
  ROWS_PRODUCT, /* out(activation(in(x))) */
  ROWS_ZERO,    /* 0: the token is dropped */
  ROWS_COPY,    /* x */
};

/* A kind is a row of this table; executor, recorder and backends know no single one. */
struct expert_kind {
  const char *name;
  enum expert_rows rows;
  enum activation activation; /* of ROWS_PRODUCT */
};

extern const struct expert_kind expert_swiglu, expert_gelu, expert_silu, expert_zero, expert_copy;

struct expert {
  const struct expert_kind *kind;
  int hidden; /* F; 0 without products */
  const struct linear *in, *out;
};

static inline bool expert_has_weights(const struct expert *expert) {
  return expert->kind->rows == ROWS_PRODUCT;
}

/* All experts of a layer in the order of the plan; widths and types may differ from one to the
 * next. */
struct expert_bank {
  int count;             /* E, an unconditional one included             */
  int width, hidden;     /* D; largest F: the leading dimension of h     */
  enum dtype input;      /* of x and h                                   */
  struct expert *expert; /* [count] */
};

/* Experts of a bank whose weights may be used now. */
struct expert_wave {
  const struct expert_bank *bank;
  int count;
  const int32_t *index; /* [count] ascending numbers; NULL: all of the bank */
};

static inline int wave_index(const struct expert_wave *wave, int i) {
  return wave->index ? wave->index[i] : i;
}
static inline const struct expert *wave_expert(const struct expert_wave *wave, int i) {
  return &wave->bank->expert[wave_index(wave, i)];
}

#endif
