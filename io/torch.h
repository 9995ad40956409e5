/* The part that both forms of PyTorch files share: from an unpickled object to tensors. */
#ifndef IO_TORCH_H
#define IO_TORCH_H

#include "io/pickle.h"

enum { TORCH_PATH = 256 };

/* Finds the content of storage `key` in an archive of either form; it is only read if it is `bytes`
 * long. `tensor` needs it, for messages. */
typedef enum ditmoe_status torch_storage(struct source *source, void *archive, struct text tensor,
                                         struct text key, uint64_t bytes, struct span *content);

/* Adds the tensors of the state dictionary in `root`: the entry source->key of it, else averaged
 * weights under a name of theirs, else weights under a usual name, else root itself. A key that is
 * no entry, but begins names of tensors, is left in source->key. */
enum ditmoe_status torch_state_read(struct source *source, const struct pickle *pickle,
                                    struct pickle_value root, torch_storage *storage,
                                    void *archive);
/* Adds the arguments of the training program in `root`, if it has them, to the metadata. */
enum ditmoe_status torch_args_read(struct source *source, const struct pickle *pickle,
                                   struct pickle_value root);

/* The part of it that chooses: *dict, and its path "a.b", "" for root itself. The entries that have
 * tensors, too, are listed in source->checkpoint->left. */
enum ditmoe_status torch_state_choose(struct source *source, const struct pickle *pickle,
                                      struct pickle_value root, struct pickle_value *dict,
                                      char path[TORCH_PATH]);

#endif
