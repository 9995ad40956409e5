/* The part that both forms of PyTorch files share: from an unpickled object to tensors. */
#ifndef IO_TORCH_H
#define IO_TORCH_H

#include "io/pickle.h"

/* Finds the bytes of storage `key`, which must be `bytes` long, in an archive of either form.
 * `tensor` needs it, for messages. */
typedef enum ditmoe_status torch_storage(struct source *source, void *archive, struct text tensor,
                                         struct text key, uint64_t bytes, const uint8_t **data);

/* Adds the tensors of the state dictionary in `root`, which is the entry source->key of it, or the
 * first of ema, ema_model_state_dict, model, model_state_dict, state_dict, or root itself. */
enum ditmoe_status torch_state_read(struct source *source, const struct pickle *pickle,
                                    struct pickle_value root, torch_storage *storage,
                                    void *archive);
/* Adds the arguments of the training program in `root`, if it has them, to the metadata. */
enum ditmoe_status torch_args_read(struct source *source, const struct pickle *pickle,
                                   struct pickle_value root);

#endif
