#include "dit/names.h"

/* The original programs name all but the attention alike. */
#define ORIGINAL_NAMES                                                                             \
  .pos_embed = "pos_embed", .time_in = "t_embedder.mlp.0", .time_out = "t_embedder.mlp.2",         \
  .labels = "y_embedder.embedding_table.weight", .modulation = "blocks.%d.adaLN_modulation.1",     \
  .q_norm = "blocks.%d.attn.q_norm", .k_norm = "blocks.%d.attn.k_norm", .block = "blocks.%d.",     \
  .mlp = "blocks.%d.mlp.", .final_modulation = "final_layer.adaLN_modulation.1",                   \
  .final_linear = "final_layer.linear", .norm1 = "blocks.%d.norm1", .norm2 = "blocks.%d.norm2",    \
  .final_norm = "final_layer.norm_final"

const struct dialect dialects[DIALECTS] = {
    [DIALECT_DIT] = {ORIGINAL_NAMES, .patch_embed = "x_embedder.proj",
                     .qkv = {"blocks.%d.attn.qkv"}, .proj = "blocks.%d.attn.proj",
                     .rope_cos = "feat_rope.freqs_cos", .rope_sin = "feat_rope.freqs_sin"},
    [DIALECT_FLASH] = {ORIGINAL_NAMES, .patch_embed = "x_embedder.proj",
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
    [DIALECT_JIT] = {ORIGINAL_NAMES, .patch_reduce = "x_embedder.proj1",
                     .patch_embed = "x_embedder.proj2", .qkv = {"blocks.%d.attn.qkv"},
                     .proj = "blocks.%d.attn.proj", .prefix_positions = "in_context_posemb",
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
