/* Convolutions by oneDNN; the only file that knows it.
 *
 * oneDNN's own sums depend on its number of threads. So an image is cut into bands of rows, by its size
 * alone, and each band is a convolution of one thread; bands and images are shared among ours. The
 * format of the weights is oneDNN's choice for an image of about 64 x 64, made once. Primitives are described
 * anew for every call: oneDNN keeps the compiled code of those it has seen, for all threads. Its
 * scratchpad is ours, because its own belongs to the thread that made the primitive. */
#include "backend/cpu/state.h"

#include <dnnl.h>
#include <omp.h>
#include <pthread.h>
#include <string.h>

#if DNNL_VERSION_MAJOR != 2
#error "backend/cpu/onednn.c is written for the C interface of oneDNN 2"
#endif

struct packed {
  dnnl_memory_desc_t format; /* of weights */
  float *weights, *bias;
};

static dnnl_engine_t engine; /* the processor; lives as long as the process */
static dnnl_status_t engine_status;
static pthread_once_t engine_once = PTHREAD_ONCE_INIT;

static void make_engine(void) { engine_status = dnnl_engine_create(&engine, dnnl_cpu, 0); }

void onednn_cap(const char *tier) {
  static const struct {
    const char *tier;
    dnnl_cpu_isa_t isa;
  } caps[] = {{"generic", dnnl_cpu_isa_sse41}, {"avx2", dnnl_cpu_isa_avx2}};
  for (size_t i = 0; i < sizeof caps / sizeof *caps; i++)
    if (strcmp(caps[i].tier, tier) == 0) dnnl_set_max_cpu_isa(caps[i].isa);
}

/* oneDNN uses one thread from here on, also in threads that this one makes by a pragma that counts
 * them. Returns what to give back to omp_set_num_threads. */
static int one_thread(void) {
  int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  return threads;
}

static enum ditmoe_status translate(struct ditmoe_ctx *ctx, const struct conv *w,
                                    dnnl_status_t status) {
  if (status == dnnl_success) return DITMOE_OK;
  return fail(ctx, status == dnnl_out_of_memory ? DITMOE_NOMEM : DITMOE_FAILED,
              "convolution [%d, %d, %d, %d]: oneDNN reports error %d%s", w->out, w->in, w->kernel,
              w->kernel, (int)status, status == dnnl_out_of_memory ? ", not enough memory" : "");
}

/* Calls oneDNN in a function with a local `status`; jumps to `done` on failure. */
#define TRY_DNNL(call)                                                                             \
  do {                                                                                             \
    if ((status = (call)) != dnnl_success) goto done;                                              \
  } while (0)

static int out_size(const struct conv *w, int size) {
  return (size + w->pad_before + w->pad_after - w->kernel) / w->stride + 1;
}

/* Rows out_first .. of the output, and the rows of the input that they see: in_first .. with `above`
 * and `below` rows of zeros around them. */
struct band {
  int out_first, out_rows, in_first, in_rows, above, below, width;
  dnnl_primitive_desc_t desc;
};

enum { BANDS_MAX = 32, BAND_PIXELS = 128 /* at least, for speed */ };

static int cut_bands(struct band *bands, const struct conv *w, int height, int width) {
  int rows = out_size(w, height), columns = out_size(w, width), count = 0;
  int by_count = (rows + BANDS_MAX - 1) / BANDS_MAX;
  int by_pixels = (BAND_PIXELS + columns - 1) / columns;
  int step = by_count > by_pixels ? by_count : by_pixels;
  for (int first = 0; first < rows; first += step, count++) {
    int n = rows - first < step ? rows - first : step;
    int begin = first * w->stride - w->pad_before, end = begin + (n - 1) * w->stride + w->kernel;
    int above = begin < 0 ? -begin : 0, below = end > height ? end - height : 0;
    bands[count] = (struct band){.out_first = first,
                                 .out_rows = n,
                                 .in_first = begin + above,
                                 .in_rows = end - begin - above - below,
                                 .above = above,
                                 .below = below,
                                 .width = width};
  }
  return count;
}

/* Sets the description of a band; format NULL leaves that of the weights to oneDNN. */
static dnnl_status_t describe(struct band *band, const struct conv *w,
                              const dnnl_memory_desc_t *format) {
  dnnl_dims_t x_dims = {1, w->in, band->in_rows, band->width}, bias_dims = {w->out};
  dnnl_dims_t y_dims = {1, w->out, band->out_rows, out_size(w, band->width)};
  dnnl_dims_t w_dims = {w->out, w->in, w->kernel, w->kernel};
  dnnl_dims_t stride = {w->stride, w->stride};
  dnnl_dims_t before = {band->above, w->pad_before}, after = {band->below, w->pad_after};
  dnnl_memory_desc_t x, y, weights, bias;
  dnnl_convolution_desc_t desc;
  dnnl_primitive_attr_t attr = NULL;
  dnnl_status_t status;
  TRY_DNNL(dnnl_memory_desc_init_by_tag(&x, 4, x_dims, dnnl_f32, dnnl_nhwc));
  TRY_DNNL(dnnl_memory_desc_init_by_tag(&y, 4, y_dims, dnnl_f32, dnnl_nhwc));
  TRY_DNNL(dnnl_memory_desc_init_by_tag(&bias, 1, bias_dims, dnnl_f32, dnnl_a));
  TRY_DNNL(dnnl_memory_desc_init_by_tag(&weights, 4, w_dims, dnnl_f32, dnnl_format_tag_any));
  TRY_DNNL(dnnl_convolution_forward_desc_init(
      &desc, dnnl_forward_inference, dnnl_convolution_direct, &x, format ? format : &weights, &bias,
      &y, stride, before, after));
  TRY_DNNL(dnnl_primitive_attr_create(&attr));
  TRY_DNNL(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
  TRY_DNNL(dnnl_primitive_desc_create(&band->desc, &desc, attr, engine, NULL));
done:
  if (attr) dnnl_primitive_attr_destroy(attr);
  return status;
}

/* One argument of a primitive: which, and its memory in the format of the primitive's description. */
struct argument {
  int index;
  const void *data;
};

enum { ARGUMENTS_MAX = 5 };

static dnnl_status_t run(dnnl_primitive_desc_t desc, int count, const struct argument *arguments) {
  dnnl_exec_arg_t args[ARGUMENTS_MAX];
  dnnl_primitive_t primitive = NULL;
  dnnl_stream_t stream = NULL;
  dnnl_status_t status;
  int made = 0;
  TRY_DNNL(dnnl_primitive_create(&primitive, desc));
  TRY_DNNL(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
  for (; made < count; made++) {
    const struct argument *a = &arguments[made];
    const dnnl_memory_desc_t *format =
        dnnl_primitive_desc_query_md(desc, dnnl_query_exec_arg_md, a->index);
    args[made].arg = a->index;
    TRY_DNNL(dnnl_memory_create(&args[made].memory, format, engine, (void *)(uintptr_t)a->data));
  }
  TRY_DNNL(dnnl_primitive_execute(primitive, stream, count, args));
  TRY_DNNL(dnnl_stream_wait(stream));
done:
  while (made > 0) dnnl_memory_destroy(args[--made].memory);
  if (stream) dnnl_stream_destroy(stream);
  if (primitive) dnnl_primitive_destroy(primitive);
  return status;
}

/* packed = weights [out, in, kernel, kernel] in its format. */
static dnnl_status_t reorder(const struct packed *packed, const struct conv *w,
                             const float *weights) {
  dnnl_dims_t dims = {w->out, w->in, w->kernel, w->kernel};
  dnnl_memory_desc_t plain;
  dnnl_primitive_desc_t desc = NULL;
  dnnl_status_t status;
  TRY_DNNL(dnnl_memory_desc_init_by_tag(&plain, 4, dims, dnnl_f32, dnnl_oihw));
  TRY_DNNL(
      dnnl_reorder_primitive_desc_create(&desc, &plain, engine, &packed->format, engine, NULL));
  status =
      run(desc, 2, (struct argument[]){{DNNL_ARG_FROM, weights}, {DNNL_ARG_TO, packed->weights}});
done:
  if (desc) dnnl_primitive_desc_destroy(desc);
  return status;
}

/* The weights' format, and memory for them and for the bias. */
static enum ditmoe_status make_packed(struct backend *be, struct conv *w) {
  struct packed *packed = w->data;
  struct band bands[BANDS_MAX];
  int size = 64 + w->kernel;
  cut_bands(bands, w, size, size);
  TRY(translate(be->ctx, w, engine_status));
  TRY(translate(be->ctx, w, describe(bands, w, NULL)));
  packed->format = *dnnl_primitive_desc_query_md(bands->desc, dnnl_query_weights_md, 0);
  dnnl_primitive_desc_destroy(bands->desc);
  w->bytes = dnnl_memory_desc_get_size(&packed->format);
  TRY(mem_alloc(be->ctx, w->bytes, 1, "a convolution", &packed->weights));
  return mem_zalloc(be->ctx, (size_t)w->out, sizeof(float), "a convolution", &packed->bias);
}

static enum ditmoe_status pack(struct backend *be, struct conv *w, const struct tensor *weight,
                               const struct tensor *bias) {
  struct packed *packed = w->data;
  float *plain;
  TRY(make_packed(be, w));
  TRY(mem_alloc(be->ctx, (size_t)weight->elements, sizeof *plain, weight->name, &plain));
  tensor_read_f32(plain, weight, 0, weight->elements);
  if (bias) tensor_read_f32(packed->bias, bias, 0, w->out);
  dnnl_status_t status = reorder(packed, w, plain);
  mem_free(be->ctx, plain);
  return translate(be->ctx, w, status);
}

enum ditmoe_status cpu_conv_create(struct backend *be, const struct tensor *weight,
                                   const struct tensor *bias, int stride, int pad_before,
                                   int pad_after, struct conv **out) {
  struct conv shape = {.stride = stride, .pad_before = pad_before, .pad_after = pad_after}, *w;
  TRY(conv_source_shape(be->ctx, weight, bias, &shape));
  pthread_once(&engine_once, make_engine);
  TRY(mem_alloc(be->ctx, 1, sizeof *w, "a convolution", &w));
  *w = shape;
  int threads = one_thread();
  enum ditmoe_status status =
      mem_zalloc(be->ctx, 1, sizeof(struct packed), "a convolution", &w->data);
  if (status == DITMOE_OK) status = pack(be, w, weight, bias);
  omp_set_num_threads(threads);
  if (status == DITMOE_OK)
    *out = w;
  else
    cpu_conv_destroy(be, w);
  return status;
}

void cpu_conv_destroy(struct backend *be, struct conv *conv) {
  struct packed *packed = conv ? conv->data : NULL;
  if (packed) {
    mem_free(be->ctx, packed->weights);
    mem_free(be->ctx, packed->bias);
  }
  mem_free(be->ctx, packed);
  mem_free(be->ctx, conv);
}

/* Scratchpads for all threads that suit every band. */
static enum ditmoe_status grow_scratch(struct backend *be, const struct band *bands, int count) {
  struct cpu_state *cpu = cpu_state(be);
  size_t bytes = cpu->conv_scratch_bytes;
  for (int i = 0; i < count; i++) {
    size_t need = dnnl_memory_desc_get_size(
        dnnl_primitive_desc_query_md(bands[i].desc, dnnl_query_scratchpad_md, 0));
    if (need > bytes) bytes = need;
  }
  bytes = (bytes + 63) & ~(size_t)63;
  if (bytes == cpu->conv_scratch_bytes) return DITMOE_OK;
  mem_free(be->ctx, cpu->conv_scratch);
  cpu->conv_scratch = NULL;
  cpu->conv_scratch_bytes = 0;
  TRY(mem_alloc(be->ctx, (size_t)be->threads, bytes, "working memory of convolutions",
                &cpu->conv_scratch));
  cpu->conv_scratch_bytes = bytes;
  return DITMOE_OK;
}

static dnnl_status_t run_band(const struct cpu_state *cpu, const struct band *band, float *y,
                              const float *x, const struct conv *w) {
  const struct packed *packed = w->data;
  int64_t columns = out_size(w, band->width);
  char *scratch = cpu->conv_scratch;
  if (scratch) scratch += (size_t)omp_get_thread_num() * cpu->conv_scratch_bytes;
  return run(band->desc, ARGUMENTS_MAX,
             (struct argument[]){
                 {DNNL_ARG_SRC, x + (int64_t)band->in_first * band->width * w->in},
                 {DNNL_ARG_WEIGHTS, packed->weights},
                 {DNNL_ARG_BIAS, packed->bias},
                 {DNNL_ARG_DST, y + band->out_first * columns * w->out},
                 {DNNL_ARG_SCRATCHPAD, scratch},
             });
}

/* B images whose bands have been described. */
static dnnl_status_t run_bands(struct backend *be, const struct band *bands, int count, float *y,
                               const float *x, const struct conv *w, int B, int height) {
  const struct cpu_state *cpu = cpu_state(be);
  if (count == 0) return dnnl_success;
  int64_t x_step = (int64_t)height * bands->width * w->in;
  int64_t y_step = (int64_t)out_size(w, height) * out_size(w, bands->width) * w->out;
  dnnl_status_t worst = dnnl_success;
#pragma omp parallel for num_threads(be->threads) schedule(dynamic)
  for (int64_t i = 0; i < (int64_t)B * count; i++) {
    int64_t b = i / count;
    dnnl_status_t status = run_band(cpu, &bands[i % count], y + b * y_step, x + b * x_step, w);
    if (status != dnnl_success) {
#pragma omp atomic write
      worst = status;
    }
  }
  return worst;
}

void cpu_conv2d(struct backend *be, float *y, const float *x, const struct conv *w, int B,
                int height, int width) {
  const struct packed *packed = w->data;
  struct band bands[BANDS_MAX];
  int count = cut_bands(bands, w, height, width), described = 0;
  int threads = one_thread();
  enum ditmoe_status status = DITMOE_OK;
  for (; described < count && status == DITMOE_OK; described += status == DITMOE_OK)
    status = translate(be->ctx, w, describe(&bands[described], w, &packed->format));
  if (status == DITMOE_OK) status = grow_scratch(be, bands, count);
  if (status == DITMOE_OK)
    status = translate(be->ctx, w, run_bands(be, bands, count, y, x, w, B, height));
  while (described > 0) dnnl_primitive_desc_destroy(bands[--described].desc);
  omp_set_num_threads(threads);
  if (status != DITMOE_OK) backend_fail(be, status);
}
