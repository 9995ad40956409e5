#include "dit/names.h"

/* The original programs name all but the attention alike; JiT's has everything under "net.". */
#define ORIGINAL_NAMES(net)                                                                        \
  .pos_embed = net "pos_embed", .time_in = net "t_embedder.mlp.0",                                 \
  .time_out = net "t_embedder.mlp.2", .labels = net "y_embedder.embedding_table.weight",           \
  .modulation = net "blocks.%d.adaLN_modulation.1", .q_norm = net "blocks.%d.attn.q_norm",         \
  .k_norm = net "blocks.%d.attn.k_norm", .block = net "blocks.%d.", .mlp = net "blocks.%d.mlp.",   \
  .final_modulation = net "final_layer.adaLN_modulation.1",                                        \
  .final_linear = net "final_layer.linear", .norm1 = net "blocks.%d.norm1",                        \
  .norm2 = net "blocks.%d.norm2", .final_norm = net "final_layer.norm_final"

const struct dialect dialects[DIALECTS] = {
    [DIALECT_DIT] = {ORIGINAL_NAMES(""), .patch_embed = "x_embedder.proj",
                     .qkv = {"blocks.%d.attn.qkv"}, .proj = "blocks.%d.attn.proj",
                     .rope_cos = "feat_rope.freqs_cos", .rope_sin = "feat_rope.freqs_sin"},
    [DIALECT_FLASH] = {ORIGINAL_NAMES(""), .patch_embed = "x_embedder.proj",
                       .qkv = {"blocks.%d.attn.Wqkv"}, .proj = "blocks.%d.attn.out_proj"},
    [DIALECT_DIFFUSERS] =
        {.patch_embed = "pos_embed.proj",
         .time_in = "transformer_blocks.%d.norm1.emb.timestep_embedder.linear_1",
         .time_out = "transformer_blocks.%d.norm1.emb.timestep_embedder.linear_2",
         .labels = "transformer_blocks.%d.norm1.emb.class_embedder.embedding_table.weight",
         .modulation = "transformer_blocks.%d.norm1.linear",
         .qkv = {"transformer_blocks.%d.attn1.to_q", "transformer_blocks.%d.attn1.to_k",
                 "transformer_blocks.%d.attn1.to_v"},
         .proj = "transformer_blocks.%d.attn1.to_out.0",
         .block = "transformer_blocks.%d.",
         .mlp = "transformer_blocks.%d.ff.",
         .final_modulation = "proj_out_1",
         .final_linear = "proj_out_2"},
    [DIALECT_JIT] = {ORIGINAL_NAMES("net."), .patch_reduce = "net.x_embedder.proj1",
                     .patch_embed = "net.x_embedder.proj2", .qkv = {"net.blocks.%d.attn.qkv"},
                     .proj = "net.blocks.%d.attn.proj", .prefix_positions = "net.in_context_posemb",
                     .rotary = true},
};

/* Spellings of the feed-forward parts. */
static const struct expert_form swiglu = {&expert_swiglu, "gate_proj", "up_proj", "down_proj",
                                          false};
static const struct expert_form fc = {&expert_gelu, "fc1", NULL, "fc2", true};
static const struct expert_form up_down = {&expert_gelu, "up_proj", NULL, "down_proj", true};
static const struct expert_form net = {&expert_gelu, "net.0.proj", NULL, "net.2", true};
static const struct expert_form w12 = {&expert_swiglu, "w12", NULL, "w3", true};
EXPERT_FORM_ENTRY(swiglu);
EXPERT_FORM_ENTRY(fc);
EXPERT_FORM_ENTRY(up_down);
EXPERT_FORM_ENTRY(net);
EXPERT_FORM_ENTRY(w12);

extern const struct expert_form *const forms_begin[] __asm__("__start_ditmoe_expert_forms")
    __attribute__((visibility("hidden")));
extern const struct expert_form *const forms_end[] __asm__("__stop_ditmoe_expert_forms")
    __attribute__((visibility("hidden")));

const struct expert_form *expert_form_at(int index) {
  return index < forms_end - forms_begin ? forms_begin[index] : NULL;
}
