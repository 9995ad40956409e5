/* Fixture folders against the library: each function compares every output tensor of one folder and
 * reports it. The tests and the golden checker share them. */
#ifndef TESTS_CASES_H
#define TESTS_CASES_H

#include "io/checkpoint.h"
#include "io/json.h"

/* One compared tensor: "file:tensor", its error and the limit; an infinite error where the tensor
 * cannot be computed. */
typedef void case_report(void *user, const char *tensor, double error, double limit);

/* Philox words, and draws of torch's CPU generator, of which only the normals may differ. */
enum ditmoe_status rng_case(struct ditmoe_ctx *ctx, const char *folder, case_report *report,
                            void *user);
/* Tables of respaced chains, betas, timesteps (exact), and respacings that must be refused. */
enum ditmoe_status schedule_case(struct ditmoe_ctx *ctx, const char *folder, case_report *report,
                                 void *user);
/* Samplers without a model: dpmpp-2m on given predictions, and flow solvers on fields in closed
 * form with the slopes of their convergence. */
enum ditmoe_status sampler_table_case(struct ditmoe_ctx *ctx, const char *folder,
                                      const cJSON *manifest, case_report *report, void *user);

/* The rest is for the case modules. */

struct case_file {
  struct ditmoe_ctx *ctx;
  struct ditmoe_checkpoint *checkpoint;
  char name[128]; /* within the folder, for reports */
  case_report *report;
  void *user;
};

enum ditmoe_status case_open(struct ditmoe_ctx *ctx, const char *folder, const char *name,
                             case_report *report, void *user, struct case_file *out);
void case_close(struct case_file *file);
void case_line(struct case_file *file, const char *tensor, double error, double limit);
/* Element i of a floating or 64-bit integer tensor. */
double case_value(const struct tensor *tensor, int64_t i);
/* Values of a floating or 64-bit integer tensor; mem_free them. *count may be NULL. */
enum ditmoe_status case_values(struct case_file *file, const char *tensor, double **values,
                               int64_t *count);
/* Reports values against a tensor of the file: the number of unequal ones (limit 0), the largest
 * relative difference, or the largest difference over the largest magnitude. A tensor of another
 * length counts as infinitely wrong. */
enum ditmoe_status case_equal(struct case_file *file, const char *tensor, const double *values,
                              int64_t count);
enum ditmoe_status case_relative(struct case_file *file, const char *tensor, const double *values,
                                 int64_t count, double limit);
enum ditmoe_status case_peak(struct case_file *file, const char *tensor, const double *values,
                             int64_t count, double limit);
double case_number(const cJSON *object, const char *key, double otherwise);
/* "" if absent or no string. */
const char *case_string(const cJSON *object, const char *key);

#endif
