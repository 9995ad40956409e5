/* The kinds of experts: SwiGLU and GELU of DiT-MoE, ProMoE and others, SiLU of DSMoE; zero and copy
 * experts of MoE++ (Jin et al. 2024). */
#include "backend/experts.h"

const struct expert_kind expert_swiglu = {"swiglu", ROWS_PRODUCT, ACTIVATION_SWIGLU};
const struct expert_kind expert_gelu = {"gelu", ROWS_PRODUCT, ACTIVATION_GELU};
const struct expert_kind expert_silu = {"silu", ROWS_PRODUCT, ACTIVATION_SILU};
const struct expert_kind expert_zero = {.name = "zero", .rows = ROWS_ZERO};
const struct expert_kind expert_copy = {.name = "copy", .rows = ROWS_COPY};
