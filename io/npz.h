/* NumPy arrays in files. Reading: .npy, and .npz as a set of them (stored or deflated entries,
 * zip64), untrusted. The writer is ditmoe_npz_* of ditmoe.h.
 *
 * Types |b1 |i1 |u1 <i2 <u2 <f2 <i4 <u4 <f4 <i8 <u8 <f8 and the big-endian ones of these, C or
 * Fortran order, format versions 1 to 3. Objects (pickles), structures, texts and complex numbers
 * are refused by name when they are read, and do not keep the arrays beside them from being read:
 * nothing in a file is executed. Entries that are not called NAME.npy are no arrays. */
#ifndef IO_NPZ_H
#define IO_NPZ_H

#include "base/memory.h"
#include "base/tensor.h"
#include "io/file.h"

struct npz; /* an archive, or a single array */

struct npz_array {
  const char *name; /* without .npy; "" for a file that is a single .npy */
  const char *type; /* NumPy's spelling, "<f4"                           */
  enum dtype dtype; /* DT_COUNT: unsigned ones, which only npz_read_f64 reads, and types that cannot
                       be read, where reading is the error */
  int rank;
  int64_t shape[TENSOR_MAX_RANK];
  int64_t elements;
  bool fortran, swapped; /* order and bytes in the file; the readers below undo both */
};

/* path: .npz or .npy, told apart by content. All headers are checked, no data are read. ctx is the
 * same in all calls of one npz. Arrays come in the order of their names. */
enum ditmoe_status npz_open(struct ditmoe_ctx *ctx, const char *path, struct npz **out);
/* The same of bytes that outlive it. */
enum ditmoe_status npz_open_bytes(struct ditmoe_ctx *ctx, const char *path, const void *bytes,
                                  size_t size, struct npz **out);
void npz_close(struct npz *npz);
int npz_count(const struct npz *npz);
const struct npz_array *npz_at(const struct npz *npz, int index);
/* NULL if there is none. */
const struct npz_array *npz_find(const struct npz *npz, const char *name);

/* Arrays that are read as a whole; others are refused. Check before making room for one. */
enum { NPZ_MAX_ELEMENTS = 1 << 28 };

/* "[6, 8]" */
enum { NPZ_SHAPE_TEXT = 24 * TENSOR_MAX_RANK };
const char *npz_shape_text(char out[NPZ_SHAPE_TEXT], const struct npz_array *array);

/* out [elements] of a whole array, C order; any real type. The CRC is checked. DITMOE_FORMAT names
 * the file and the array. Ends a stream. */
enum ditmoe_status npz_read_f64(struct ditmoe_ctx *ctx, struct npz *npz,
                                const struct npz_array *array, double *out);
/* The next `size` bytes of a |u1 array in C order, from its beginning on, in constant memory
 * whatever its size; the CRC is checked when the last byte is read. One array at a time: another
 * one, npz_rewind or a failure starts anew. An array in Fortran order is read as a whole first. */
enum ditmoe_status npz_stream_u8(struct ditmoe_ctx *ctx, struct npz *npz,
                                 const struct npz_array *array, uint8_t *out, size_t size);
void npz_rewind(struct npz *npz);

/* Writes one array as .npy, complete or not at all. dtype as for ditmoe_npz_array. */
enum ditmoe_status npy_write(struct ditmoe_ctx *ctx, const char *path, const char *dtype, int rank,
                             const int64_t *shape, const void *bytes);
/* For both writers: the header of an array into out; its size, a multiple of 64; 0 if dtype is
 * unknown or the shape is negative or too large. */
enum { NPY_HEADER_MAX = 512 };
size_t npy_header(char out[NPY_HEADER_MAX], const char *dtype, int rank, const int64_t *shape,
                  uint64_t *bytes);

#endif
