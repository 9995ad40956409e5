/* Classes by id, name or WordNet id. Names come from the model's record; a model of 1000 trained
 * classes without names has those of ImageNet. */
#ifndef CLI_SAMPLE_CLASSES_H
#define CLI_SAMPLE_CLASSES_H

#include "ditmoe.h"

#include <stdbool.h>

struct classes {
  const struct ditmoe_model *model; /* NULL: no names from a record         */
  int used;                         /* labels 0 .. used-1 but null_label have been trained */
  int null_label;                   /* -1: there is none */
  bool allow_null;
  bool imagenet; /* names are those of ImageNet          */
};

/* The classes of an open model, or, for NULL, ImageNet's. */
struct classes classes_of(const struct ditmoe_model *model, bool allow_null);

/* "tench, Tinca tinca": all names of a label, or NULL. Lives as long as the model. */
const char *class_names(const struct classes *classes, int label);
/* The first of them as a new string, "class 3" if there is none; free(). */
char *class_title(const struct classes *classes, int label);
/* "n01440764", or NULL. */
const char *class_wnid(const struct classes *classes, int label);

/* The label that text means: an id, a WordNet id, a name (any synonym, case does not matter), or a
 * part of the name of one class only. DITMOE_USAGE with the candidates or the nearest names.
 * `what` begins the message. */
enum ditmoe_status class_find(const struct classes *classes, const char *what, const char *text,
                              int32_t *label);

/* Prints the classes whose id, WordNet id and names match the extended regular expression ("":
 * all). */
enum ditmoe_status classes_print(const struct classes *classes, const char *regex, bool json);

#endif
