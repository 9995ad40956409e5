/* Gradients of operations against finite differences of their forward: problems, and the check.
 *
 * The loss is sum(r y) with random r. Derivatives come from the five-point formula
 * (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, whose error is of order h^4. */
#ifndef TESTS_GRADIENT_PROBLEM_H
#define TESTS_GRADIENT_PROBLEM_H

#include "backend/backend.h"
#include "tests/support.h"

enum { MAX_BLOCKS = 12 };

/* What the loss is differentiated by. Gradients of parameters accumulate, those of inputs are
 * written. */
struct block {
  const char *name;
  bool parameter;
  int64_t n;
  float *value, *gradient; /* host   */
  float *x, *dx;           /* device, during a pass */
};

struct problem {
  struct exec *ex;
  /* Makes y of the blocks; with dy not NULL also the gradients. Returns y on the device. */
  float *(*pass)(struct problem *p, const float *dy);
  int64_t outputs;
  float *r, *y;
  int blocks;
  struct block block[MAX_BLOCKS];
  struct linear *linear[MAX_BLOCKS]; /* of this pass */
  int linears;
  const void *user;
};

float *random_values(int64_t n, double scale); /* free() it */
struct block *add_block(struct problem *p, const char *name, bool parameter, int64_t n);
float *to_device(struct problem *p, const float *values, int64_t n);
/* A layer of this pass from a weight and a bias; paired: halves of both. */
struct linear *layer(struct problem *p, const float *weight, const float *bias, int in, int out,
                     bool paired);
struct linear_grad grad_of(const struct block *weight);

/* On every backend that has all gradients, of which there is at least one: every element of every
 * block, and a second backward pass. */
void check_gradients(void (*setup)(struct problem *p), const void *user);

#endif
