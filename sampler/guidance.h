/* Classifier-free guidance. */
#ifndef SAMPLER_GUIDANCE_H
#define SAMPLER_GUIDANCE_H

#include "sampler/sampler.h"

/* output [B, Cout, H, W] = the conditional prediction, guided where run->guidance acts at this
 * step. scratch has the size of output and is used only then. */
enum ditmoe_status guidance_predict(struct sampler_run *run, float *output, float *scratch,
                                    const struct prediction *prediction);

#endif
