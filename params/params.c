/* The rows and groups of a table, as a walk lists them. */
#include "params/params.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct params params_begin(struct ditmoe_ctx *ctx, const struct ditmoe_checkpoint *file) {
  return (struct params){.ctx = ctx, .file = file, .layer = -1, .expert = -1};
}

size_t params_enter(struct params *params, const char *format, ...) {
  const size_t length = strlen(params->prefix);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(params->prefix + length, sizeof params->prefix - length, format, arguments);
  va_end(arguments);
  return length;
}

void params_leave(struct params *params, size_t length) { params->prefix[length] = 0; }

/* <prefix><name><suffix> with the layer in the place of %d. */
static void full_name(const struct params *params, char out[PARAM_NAME], const char *name,
                      const char *suffix) {
  char pattern[2 * PARAM_NAME];
  snprintf(pattern, sizeof pattern, "%s%s%s", params->prefix, name, suffix);
  const char *place = strstr(pattern, "%d");
  if (place)
    snprintf(out, PARAM_NAME, "%.*s%d%s", (int)(place - pattern), pattern,
             params->layer < 0 ? 0 : params->layer, place + 2);
  else
    snprintf(out, PARAM_NAME, "%.*s", PARAM_NAME - 1, pattern);
}

const struct tensor *params_find(const struct params *params, const char *name) {
  char full[PARAM_NAME];
  full_name(params, full, name, "");
  return checkpoint_find(params->file, full);
}

static void add_row(struct params *params, const char *name, const char *suffix, int rank,
                    const int64_t *shape, uint32_t flags) {
  if (params->status == DITMOE_OK)
    params->status = mem_room(params->ctx, params->count, sizeof *params->row,
                              "the table of parameters", &params->row);
  if (params->status != DITMOE_OK) return;
  struct param *row = &params->row[params->count++];
  *row = (struct param){
      .rank = rank, .layer = params->layer, .expert = params->expert, .flags = flags};
  if (rank > 0) memcpy(row->shape, shape, (size_t)rank * sizeof *shape);
  full_name(params, row->name, name, suffix);
}

static void add_group(struct params *params, struct param_group group) {
  if (params->status == DITMOE_OK)
    params->status = mem_room(params->ctx, params->group_count, sizeof *params->group,
                              "the table of layers", &params->group);
  if (params->status != DITMOE_OK) return;
  group.first = params->count;
  group.original = -1;
  params->group[params->group_count++] = group;
}

void params_unused(struct params *params, int rank, const int64_t *shape, const char *name) {
  add_row(params, name, "", rank, shape, PARAM_UNUSED | PARAM_FIXED);
}

void params_linear(struct params *params, const struct linear **slot,
                   const struct linear_form *form) {
  const char *suffix = form->flags & PARAM_BARE ? "" : ".weight";
  const int p = form->patch;
  add_group(params, (struct param_group){.kind = PARAM_LINEAR,
                                         .weights = form->parts,
                                         .biases = form->bias ? form->parts : 0,
                                         .flags = form->flags,
                                         .slot.linear = slot});
  for (int i = 0; i < form->parts; i++) {
    const int64_t matrix[2] = {form->out[i], form->in};
    const int64_t patches[4] = {form->out[i], p ? form->in / p / p : 0, p, p};
    add_row(params, form->name[i], suffix, p ? 4 : 2, p ? patches : matrix, form->flags);
  }
  for (int i = 0; form->bias && i < form->parts; i++)
    add_row(params, form->name[i], ".bias", 1, (int64_t[1]){form->out[i]}, form->flags);
}

void params_matrix(struct params *params, const struct linear **slot, int out, int in, bool bias,
                   uint32_t flags, const char *name) {
  params_linear(
      params, slot,
      &(struct linear_form){
          .parts = 1, .in = in, .out = {out}, .name = {name}, .bias = bias, .flags = flags});
}

void params_conv(struct params *params, struct conv **slot, int in, int out,
                 const struct conv_form *form, const char *name) {
  add_group(params, (struct param_group){.kind = PARAM_CONV,
                                         .weights = 1,
                                         .biases = form->bias,
                                         .window = form->window,
                                         .slot.conv = slot});
  add_row(params, name, ".weight", 4, (int64_t[4]){out, in, form->kernel[0], form->kernel[1]}, 0);
  if (form->bias) add_row(params, name, ".bias", 1, (int64_t[1]){out}, 0);
}

void params_conv_normalised(struct params *params, struct conv **slot, int in, int out,
                            const struct conv_form *form, double eps, const char *name) {
  const int64_t channels[1] = {out};
  const size_t length = params_enter(params, "%s.", name);
  add_group(params, (struct param_group){.kind = PARAM_CONV_NORMALISED,
                                         .weights = 1,
                                         .biases = 4,
                                         .window = form->window,
                                         .eps = eps,
                                         .slot.conv = slot});
  add_row(params, "conv.weight", "", 4, (int64_t[4]){out, in, form->kernel[0], form->kernel[1]}, 0);
  add_row(params, "bn.weight", "", 1, channels, 0);
  add_row(params, "bn.bias", "", 1, channels, 0);
  add_row(params, "bn.running_mean", "", 1, channels, PARAM_FIXED);
  add_row(params, "bn.running_var", "", 1, channels, PARAM_FIXED);
  params_unused(params, 0, NULL, "bn.num_batches_tracked");
  params_leave(params, length);
}

void params_norm(struct params *params, struct norm *slot, int channels, const char *name) {
  slot->channels = channels;
  add_group(params,
            (struct param_group){.kind = PARAM_NORM, .weights = 1, .biases = 1, .slot.norm = slot});
  add_row(params, name, ".weight", 1, (int64_t[1]){channels}, 0);
  add_row(params, name, ".bias", 1, (int64_t[1]){channels}, 0);
}

void params_floats(struct params *params, const float **slot, int rank, const int64_t *shape,
                   uint32_t flags, const char *name) {
  add_group(params, (struct param_group){
                        .kind = PARAM_FLOATS, .weights = 1, .flags = flags, .slot.floats = slot});
  add_row(params, name, "", rank, shape, flags);
}
