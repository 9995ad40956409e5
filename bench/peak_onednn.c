/* oneDNN 2, if it was there when this program was built: matmul with weights in the layout that it
 * likes best. */
#include "bench/peak.h"
#include "cli/text.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>

struct onednn {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_primitive_desc_t description;
  dnnl_primitive_t matmul;
  dnnl_memory_t x, packed, y;
};

/* Evaluates to false and leaves the function where a call fails. */
#define DNNL(call)                                                                                 \
  do {                                                                                             \
    if ((call) != dnnl_success) return false;                                                      \
  } while (0)

static bool describe(struct onednn *d, const struct product *p) {
  const dnnl_data_type_t type = p->ex->compute == DT_BF16 ? dnnl_bf16 : dnnl_f32;
  const dnnl_dims_t x = {p->rows, p->in}, w = {p->in, p->out}, y = {p->rows, p->out};
  dnnl_memory_desc_t x_desc, w_desc, y_desc;
  dnnl_matmul_desc_t matmul;
  DNNL(dnnl_memory_desc_init_by_tag(&x_desc, 2, x, type, dnnl_ab));
  DNNL(dnnl_memory_desc_init_by_tag(&w_desc, 2, w, type, dnnl_format_tag_any));
  DNNL(dnnl_memory_desc_init_by_tag(&y_desc, 2, y, dnnl_f32, dnnl_ab));
  DNNL(dnnl_matmul_desc_init(&matmul, &x_desc, &w_desc, NULL, &y_desc));
  DNNL(dnnl_primitive_desc_create(&d->description, &matmul, NULL, d->engine, NULL));
  DNNL(dnnl_primitive_create(&d->matmul, d->description));
  DNNL(dnnl_memory_create(&d->x, &x_desc, d->engine, (void *)(uintptr_t)p->x));
  DNNL(dnnl_memory_create(&d->y, &y_desc, d->engine, p->y));
  return true;
}

/* W [out, in] row by row is a matrix [in, out] column by column. */
static bool pack(struct onednn *d, const struct product *p) {
  const dnnl_data_type_t type = p->ex->compute == DT_BF16 ? dnnl_bf16 : dnnl_f32;
  const dnnl_dims_t w = {p->in, p->out};
  const dnnl_memory_desc_t *packed_desc =
      dnnl_primitive_desc_query_md(d->description, dnnl_query_weights_md, 0);
  dnnl_memory_desc_t plain_desc;
  dnnl_memory_t plain = NULL;
  dnnl_primitive_desc_t description = NULL;
  dnnl_primitive_t reorder = NULL;
  DNNL(dnnl_memory_desc_init_by_tag(&plain_desc, 2, w, type, dnnl_ba));
  DNNL(dnnl_memory_create(&d->packed, packed_desc, d->engine, DNNL_MEMORY_ALLOCATE));
  bool done =
      dnnl_memory_create(&plain, &plain_desc, d->engine, (void *)(uintptr_t)p->w) == dnnl_success &&
      dnnl_reorder_primitive_desc_create(&description, &plain_desc, d->engine, packed_desc,
                                         d->engine, NULL) == dnnl_success &&
      dnnl_primitive_create(&reorder, description) == dnnl_success;
  const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, d->packed}};
  done = done && dnnl_primitive_execute(reorder, d->stream, 2, arguments) == dnnl_success &&
         dnnl_stream_wait(d->stream) == dnnl_success;
  if (reorder) dnnl_primitive_destroy(reorder);
  if (description) dnnl_primitive_desc_destroy(description);
  if (plain) dnnl_memory_destroy(plain);
  return done;
}

static bool make(struct onednn *d, const struct product *p) {
  DNNL(dnnl_engine_create(&d->engine, dnnl_cpu, 0));
  DNNL(dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags));
  return describe(d, p) && pack(d, p);
}

static void close_onednn(struct product *p) {
  struct onednn *d = p->state;
  if (d->x) dnnl_memory_destroy(d->x);
  if (d->packed) dnnl_memory_destroy(d->packed);
  if (d->y) dnnl_memory_destroy(d->y);
  if (d->matmul) dnnl_primitive_destroy(d->matmul);
  if (d->description) dnnl_primitive_desc_destroy(d->description);
  if (d->stream) dnnl_stream_destroy(d->stream);
  if (d->engine) dnnl_engine_destroy(d->engine);
  free(d);
}

/* A primitive belongs to the number of threads that it was made with. */
static enum ditmoe_status open_onednn(struct product *p, bool *available) {
  p->state = memory_get(1, sizeof(struct onednn));
  omp_set_num_threads(p->ex->device->threads);
  *available = make(p->state, p);
  if (!*available) close_onednn(p);
  return DITMOE_OK;
}

static enum ditmoe_status call(void *user) {
  const struct product *p = user;
  const struct onednn *d = p->state;
  const dnnl_exec_arg_t arguments[] = {
      {DNNL_ARG_SRC, d->x}, {DNNL_ARG_WEIGHTS, d->packed}, {DNNL_ARG_DST, d->y}};
  if (dnnl_primitive_execute(d->matmul, d->stream, 3, arguments) == dnnl_success &&
      dnnl_stream_wait(d->stream) == dnnl_success)
    return DITMOE_OK;
  return report_error(DITMOE_FAILED, "oneDNN: a product failed");
}

const struct product_library product_onednn = {"oneDNN", open_onednn, call, close_onednn};
