/* The checkpoint record: what the weights of a model do not tell (docs/RECORD.md). It is merged
 * from several sources, the first that has a field wins: options, `__metadata__` of the file, a
 * JSON beside it, the table of known models, defaults of the architecture. */
#ifndef DIT_RECORD_H
#define DIT_RECORD_H

#include "io/json.h"
#include "router/router.h"

enum dit_objective { OBJECTIVE_DDPM, OBJECTIVE_RF };
enum flow_prediction { FLOW_PREDICTS_VELOCITY, FLOW_PREDICTS_CLEAN };
enum time_direction { NOISE_AT_1, NOISE_AT_0 }; /* which time of a flow is noise */

/* Per-layer integers: one value for all layers, or one for each. */
struct layer_ints {
  int count; /* 0: not set; 1: for all layers */
  int *values;
};

/* One for each channel; count 0: not set. */
struct channel_numbers {
  int count;
  double *values;
};

enum record_field {
  REC_KIND,
  REC_FAMILY,
  REC_HEADS,
  REC_TOP_K,
  REC_OBJECTIVE,
  REC_TIME_DIRECTION,
  REC_INPUT_SIZE,
  REC_TIME_SCALE,
  REC_FREQUENCY_SHIFT,
  REC_NORM_EPS,
  REC_NORM2_EPS,
  REC_QK_NORM_EPS,
  REC_QK_HALF,
  REC_CFG_CHANNELS,
  REC_NULL_LABEL,
  REC_CLASSES_USED,
  REC_ZERO_EXPERTS,
  REC_COPY_EXPERTS,
  REC_SHIFT,
  REC_LATENT_SCALE,
  REC_LATENT_SHIFT,
  REC_IN_CONTEXT_START,
  REC_PREDICTION,
  REC_T_EPS,
  REC_NOISE_SCALE,
  REC_PIXELS,
  REC_LATENT_MEAN,
  REC_LATENT_STD,
  REC_CLASS_NAMES,
  REC_VAE,
  REC_SCHEDULER,
  REC_FIELDS
};

/* The value of a member that a router defines. */
struct router_value {
  const struct router_key *key;
  double value;
  char *source;
};

struct dit_record {
  uint64_t set;              /* bit f: field f has a value */
  char *sources[REC_FIELDS]; /* where it is from; NULL: the default of the architecture */
  const struct mixture *kind;
  char *family; /* name of a row of dit/families.c */
  int heads;
  struct layer_ints top_k;
  int objective;      /* enum dit_objective  */
  int time_direction; /* enum time_direction */
  int input_size;
  double time_scale;
  double frequency_shift;
  double norm_eps, norm2_eps, qk_norm_eps;
  int qk_half;      /* q and k are rounded to float16 before attention */
  int cfg_channels; /* 0: all */
  int null_label, classes_used;
  struct layer_ints zero_experts, copy_experts;
  double shift;
  double latent_scale, latent_shift;
  int in_context_start; /* block before which in-context tokens are put in */
  int prediction;       /* of a flow: enum flow_prediction                 */
  double t_eps;         /* least time to clean data that a prediction of it is divided by */
  double noise_scale;   /* deviation of the noise that a flow starts from */
  int pixels;           /* images, not latents */
  struct channel_numbers latent_mean, latent_std; /* of the encoder's latents, taken away */
  int class_count;
  char **class_names;
  char *vae;        /* path of the decoder, relative to the model */
  cJSON *scheduler; /* as a scheduler_config.json of diffusers has it */
  struct router_value *own;
  int own_count;
};

static inline bool record_has(const struct dit_record *record, enum record_field field) {
  return record->set >> field & 1;
}
/* Name, option and meaning of a member. */
const struct record_key *record_key(enum record_field field);
/* Whether both, which have it, agree in a member that is a number or a choice. */
bool record_equal(const struct dit_record *a, const struct dit_record *b, enum record_field field);
/* The value of a router's member, or NULL. */
const double *record_own(const struct dit_record *record, const char *name);
/* source NULL: the default. */
enum ditmoe_status record_set_own(struct ditmoe_ctx *ctx, struct dit_record *record,
                                  const struct router_key *key, double value, const char *source);
/* Marks a field that has been filled, and where it is from: "origin:member", or origin alone. */
enum ditmoe_status record_set(struct ditmoe_ctx *ctx, struct dit_record *record,
                              enum record_field field, const char *origin, const char *member);
int layer_int(const struct layer_ints *ints, int layer);

/* Whose record it is. What an author of ours would have to put right is an error, an unknown member
 * (GIVEN only) and a value that cannot be (DITMOE_USAGE if GIVEN, else DITMOE_FORMAT). A FOREIGN
 * file may belong to any program: such values are passed over with a warning. */
enum record_trust { RECORD_GIVEN, RECORD_STORED, RECORD_FOREIGN };
struct record_origin {
  const char *name; /* a path, or what stands for one; it begins every message */
  enum record_trust trust;
  const char *const (*words)[2]; /* their names and ours, {NULL} ends; or NULL */
};
/* Takes from a JSON object the fields that `record` lacks. */
enum ditmoe_status record_read_json(struct ditmoe_ctx *ctx, struct dit_record *record,
                                    const struct record_origin *origin, const cJSON *object);
/* The same of JSON text. */
enum ditmoe_status record_read_text(struct ditmoe_ctx *ctx, struct dit_record *record,
                                    const struct record_origin *origin, const char *text);
/* The record as JSON text, of the routers' members, top_k among them, those that its kind has; free
 * with mem_free. */
enum ditmoe_status record_write_json(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                     char **text);
/* The same members, each with the text of its source. */
enum ditmoe_status record_write_sources(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                        char **text);
void record_free(struct ditmoe_ctx *ctx, struct dit_record *record);

/* Shapes by which a published model is known. */
struct known_shape {
  const struct mixture *kind; /* NULL: one with the tensors of `family` */
  const struct mixture *family;
  int width, depth, experts, num_classes;
};
/* Fills the missing fields of a published model (heads, top_k, objective, ...). */
enum ditmoe_status record_known_model(struct ditmoe_ctx *ctx, struct dit_record *record,
                                      const struct known_shape *shape);

#endif
