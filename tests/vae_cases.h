/* Decoder fixtures, kinds vae_kl and taesd: every output tensor of a folder's io.safetensors. */
#ifndef TESTS_VAE_CASES_H
#define TESTS_VAE_CASES_H

#include "backend/backend.h"
#include "tests/cases.h"

/* Uses the backend's arena. Tensors are held to LIMIT_DECODED, those in float64 to LIMIT_F64_RATIO
 * (our error over that of the float32 tensor of the same name), pixels to LIMIT_PIXEL. A tensor of
 * the file that is neither an input nor known as an output is reported with an infinite error. */
enum ditmoe_status vae_case(struct exec *ex, const char *folder, const cJSON *manifest,
                            case_report *report, void *user);

#endif
