#include "dit/names.h"

/* The original programs name all but the attention alike. */
#define ORIGINAL_NAMES                                                                             \
  .patch_embed = "x_embedder.proj", .pos_embed = "pos_embed", .time_in = "t_embedder.mlp.0",       \
  .time_out = "t_embedder.mlp.2", .labels = "y_embedder.embedding_table.weight",                   \
  .modulation = "blocks.%d.adaLN_modulation.1", .q_norm = "blocks.%d.attn.q_norm",                 \
  .k_norm = "blocks.%d.attn.k_norm", .block = "blocks.%d.", .mlp = "blocks.%d.mlp.",               \
  .final_modulation = "final_layer.adaLN_modulation.1", .final_linear = "final_layer.linear"

const struct dialect dialects[DIALECTS] = {
    [DIALECT_DIT] = {ORIGINAL_NAMES, .qkv = {"blocks.%d.attn.qkv"}, .proj = "blocks.%d.attn.proj"},
    [DIALECT_FLASH] = {ORIGINAL_NAMES, .qkv = {"blocks.%d.attn.Wqkv"},
                       .proj = "blocks.%d.attn.out_proj"},
    [DIALECT_DIFFUSERS] = {"pos_embed.proj",
                           NULL,
                           "transformer_blocks.%d.norm1.emb.timestep_embedder.linear_1",
                           "transformer_blocks.%d.norm1.emb.timestep_embedder.linear_2",
                           "transformer_blocks.%d.norm1.emb.class_embedder.embedding_table.weight",
                           "transformer_blocks.%d.norm1.linear",
                           {"transformer_blocks.%d.attn1.to_q", "transformer_blocks.%d.attn1.to_k",
                            "transformer_blocks.%d.attn1.to_v"},
                           "transformer_blocks.%d.attn1.to_out.0",
                           NULL,
                           NULL,
                           "transformer_blocks.%d.",
                           "transformer_blocks.%d.ff.",
                           "proj_out_1",
                           "proj_out_2"},
};

const struct moe_names moe_families[MOE_FAMILIES] = {
    {"blocks.%d.moe.", "gate.weight", "shared_experts.", NULL, DIT_MOE},
    {"blocks.%d.mlp.", "cluster_centers", "shared_expert.", NULL, DIT_KINDS},
    {"blocks.%d.mlp.", "gate.weight", "shared_experts.", NULL, DIT_TC},
    {"blocks.%d.mlp.", "gate_weight", "shared_experts.", "expert_threshold", DIT_DIFFMOE},
    {"blocks.%d.mlp.", "gate_weight", "shared_experts.", NULL, DIT_EC},
};

const struct expert_form expert_forms[EXPERT_FORMS] = {
    {&expert_swiglu, "gate_proj", "up_proj", "down_proj", false},
    {&expert_gelu, "fc1", NULL, "fc2", true},
    {&expert_gelu, "up_proj", NULL, "down_proj", true},
    {&expert_gelu, "net.0.proj", NULL, "net.2", true},
};
