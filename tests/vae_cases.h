/* Decoder fixtures, kinds vae_kl and taesd: every output tensor of a folder's io.safetensors. */
#ifndef TESTS_VAE_CASES_H
#define TESTS_VAE_CASES_H

#include "tests/cases.h"

/* Tensors are held to LIMIT_DECODED, those in float64 to LIMIT_F64_RATIO (our error over that of the
 * float32 tensor of the same name), pixels to LIMIT_PIXEL. A tensor of the file that is neither an input
 * nor known as an output is reported with an infinite error. */
enum ditmoe_status vae_case(struct ditmoe_ctx *ctx, const char *backend, const char *folder,
                            const cJSON *manifest, case_report *report, void *user);

#endif
