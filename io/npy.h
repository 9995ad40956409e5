/* The header of a .npy file: a Python dictionary in a grammar of our own, never evaluated. Private
 * to io/. */
#ifndef IO_NPY_H
#define IO_NPY_H

#include "base/span.h"
#include "io/npz.h"

/* An array's bytes begin with NPY_PREFIX bytes, which say how long the rest of its header is. */
enum { NPY_PREFIX = 12, NPY_TEXT_MAX = 10000, NPY_TYPE_MAX = 40 };

struct npy {
  char type[NPY_TYPE_MAX]; /* as in the file; of structures the beginning */
  char kind;               /* 'b', 'i', 'u', 'f'; 0: cannot be read       */
  int width;               /* bytes of an element                         */
  size_t header;           /* bytes before the first element              */
  uint64_t bytes;          /* of all elements, if they can be read        */
};

/* *rest = bytes of the header behind the prefix; the first `early` of them are in it already. false
 * if these are not the first NPY_PREFIX bytes of an array. */
bool npy_prefix(const uint8_t *prefix, size_t *rest, size_t *early);
/* Reads the header text into both; `type` of the array is not set. NULL, or what is wrong. */
const char *npy_parse(struct text text, struct npy *npy, struct npz_array *array);
/* Why a type whose kind is 0 cannot be read. */
const char *npy_why_not(const char *type);
/* n elements, as they are in the file. */
void npy_widen(double *out, const uint8_t *bytes, int64_t n, char kind, int width, bool swapped);

#endif
