/* Scheduler files of diffusers (scheduler_config.json), which a record may hold: who samples, and
 * with which schedule. docs/RECORD.md has the table of their members. */
#ifndef API_SCHEDULER_H
#define API_SCHEDULER_H

#include "dit/record.h"
#include "sampler/sampler.h"

/* Warns of members that nobody knows and keeps the given betas of a record's scheduler, NULL if it
 * has none; free them with mem_free. */
enum ditmoe_status scheduler_open(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                  double **trained_betas);
/* The sampler of a record's scheduler, NULL if it names none. DITMOE_FORMAT: one that is not here,
 * or not for models of this objective ("ddpm", "rf"). */
enum ditmoe_status scheduler_sampler(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                     const char *objective, const char **sampler);
/* Sets what the scheduler says of a run with this sampler: the members that the sampler's class in
 * diffusers has, and where the scheduler is of that class, its defaults for the rest. Another
 * value than one that can be followed is DITMOE_FORMAT and names the member. */
enum ditmoe_status scheduler_follow(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                    const double *trained_betas, const struct sampler *sampler,
                                    struct schedule_request *request);

#endif
