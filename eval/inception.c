/* The Inception network of the Frechet distance (Szegedy et al. 2015, arXiv 1512.00567, as
 * TensorFlow published it in 2015 and pytorch-fid holds its weights): convolutions with batch
 * normalisation and relu, in blocks whose branches lie side by side in the channels of the result.
 *
 *   image [299, 299, 3] -> stem -> A A A -> B -> C C C C -> D -> E E -> mean -> fc
 *
 * A block is a list of steps between places: its input, scratch images, its output. Steps that end
 * in the output take the next channels of it. Steps in a row that are the same convolution of the
 * same place but for their weights are done at once.
 *
 * The mean of pixels and a 1x1 convolution may change places, as both are linear: the convolution
 * comes first here, since it leaves the mean fewer channels and has siblings to join. Its sums stay
 * in f32, and relu comes after the mean. */
#include "eval/network.h"
#include "params/params.h"

enum {
  SIDE = 299,
  BLOCKS = 12,
  CONVS = 94,
  POOL = 2048,
  CLASSES = 1008,
  SPATIAL = 7,       /* channels of spatial features              */
  SPATIAL_BLOCK = 7, /* whose output they are of: Mixed_6d        */
  SPATIAL_PIXELS = 17 * 17
};

static const double NORM_EPS = 1e-3;

/* SUMS is in f32 and before relu. */
enum place { IN, ONE, TWO, THREE, SUMS, OUT, PLACES };

/* 3x3: relu of the mean of the pixels that there are, from SUMS; maximum; maximum of every second
 * pixel. */
enum pooling { NONE, MEAN, LARGEST, HALVE };

struct step {
  enum place from, to;
  enum pooling pool;            /* NONE: a convolution               */
  int width;                    /* channels; 0: those of the block   */
  const struct conv_form *form; /* NULL: a pooling                   */
  const char *name;             /* of the tensors, after the block's */
};

struct block {
  const char *name; /* of the tensors; NULL: the steps have names of their own */
  const struct step *steps;
  int count, width;
};

#define SAME(rows, columns)                                                                        \
  {                                                                                                \
    .kernel = {rows, columns}, .window = {                                                         \
      .stride = 1,                                                                                 \
      .before = {rows / 2, columns / 2},                                                           \
      .after = {rows / 2, columns / 2}                                                             \
    }                                                                                              \
  }
static const struct conv_form c1x1 = SAME(1, 1), c3x3 = SAME(3, 3), c5x5 = SAME(5, 5),
                              c1x7 = SAME(1, 7), c7x1 = SAME(7, 1), c1x3 = SAME(1, 3),
                              c3x1 = SAME(3, 1);
static const struct conv_form inner = {.kernel = {3, 3}, .window = {.stride = 1}};
static const struct conv_form halve = {.kernel = {3, 3}, .window = {.stride = 2}};

static const struct step stem[] = {
    {IN, ONE, NONE, 32, &halve, "Conv2d_1a_3x3"},
    {ONE, TWO, NONE, 32, &inner, "Conv2d_2a_3x3"},
    {TWO, ONE, NONE, 64, &c3x3, "Conv2d_2b_3x3"},
    {ONE, TWO, HALVE, 0, NULL, NULL},
    {TWO, ONE, NONE, 80, &c1x1, "Conv2d_3b_1x1"},
    {ONE, TWO, NONE, 192, &inner, "Conv2d_4a_3x3"},
    {TWO, OUT, HALVE, 0, NULL, NULL},
};
static const struct step block_a[] = {
    {IN, OUT, NONE, 64, &c1x1, "branch1x1"},       {IN, ONE, NONE, 48, &c1x1, "branch5x5_1"},
    {IN, TWO, NONE, 64, &c1x1, "branch3x3dbl_1"},  {IN, SUMS, NONE, 0, &c1x1, "branch_pool"},
    {ONE, OUT, NONE, 64, &c5x5, "branch5x5_2"},    {TWO, ONE, NONE, 96, &c3x3, "branch3x3dbl_2"},
    {ONE, OUT, NONE, 96, &c3x3, "branch3x3dbl_3"}, {SUMS, OUT, MEAN, 0, NULL, NULL},
};
static const struct step block_b[] = {
    {IN, OUT, NONE, 384, &halve, "branch3x3"},
    {IN, ONE, NONE, 64, &c1x1, "branch3x3dbl_1"},
    {ONE, TWO, NONE, 96, &c3x3, "branch3x3dbl_2"},
    {TWO, OUT, NONE, 96, &halve, "branch3x3dbl_3"},
    {IN, OUT, HALVE, 0, NULL, NULL},
};
static const struct step block_c[] = {
    {IN, OUT, NONE, 192, &c1x1, "branch1x1"},
    {IN, ONE, NONE, 0, &c1x1, "branch7x7_1"},
    {IN, TWO, NONE, 0, &c1x1, "branch7x7dbl_1"},
    {IN, SUMS, NONE, 192, &c1x1, "branch_pool"},
    {ONE, THREE, NONE, 0, &c1x7, "branch7x7_2"},
    {THREE, OUT, NONE, 192, &c7x1, "branch7x7_3"},
    {TWO, ONE, NONE, 0, &c7x1, "branch7x7dbl_2"},
    {ONE, TWO, NONE, 0, &c1x7, "branch7x7dbl_3"},
    {TWO, ONE, NONE, 0, &c7x1, "branch7x7dbl_4"},
    {ONE, OUT, NONE, 192, &c1x7, "branch7x7dbl_5"},
    {SUMS, OUT, MEAN, 0, NULL, NULL},
};
static const struct step block_d[] = {
    {IN, ONE, NONE, 192, &c1x1, "branch3x3_1"},
    {IN, TWO, NONE, 192, &c1x1, "branch7x7x3_1"},
    {ONE, OUT, NONE, 320, &halve, "branch3x3_2"},
    {TWO, ONE, NONE, 192, &c1x7, "branch7x7x3_2"},
    {ONE, TWO, NONE, 192, &c7x1, "branch7x7x3_3"},
    {TWO, OUT, NONE, 192, &halve, "branch7x7x3_4"},
    {IN, OUT, HALVE, 0, NULL, NULL},
};
#define BLOCK_E_BEGIN                                                                              \
  {IN, OUT, NONE, 320, &c1x1, "branch1x1"}, {IN, ONE, NONE, 384, &c1x1, "branch3x3_1"}, {          \
    IN, TWO, NONE, 448, &c1x1, "branch3x3dbl_1"                                                    \
  }
#define BLOCK_E_MIDDLE                                                                             \
  {ONE, OUT, NONE, 384, &c1x3, "branch3x3_2a"}, {ONE, OUT, NONE, 384, &c3x1, "branch3x3_2b"},      \
      {TWO, ONE, NONE, 384, &c3x3, "branch3x3dbl_2"},                                              \
      {ONE, OUT, NONE, 384, &c1x3, "branch3x3dbl_3a"}, {                                           \
    ONE, OUT, NONE, 384, &c3x1, "branch3x3dbl_3b"                                                  \
  }
static const struct step block_e_mean[] = {
    BLOCK_E_BEGIN,
    {IN, SUMS, NONE, 192, &c1x1, "branch_pool"},
    BLOCK_E_MIDDLE,
    {SUMS, OUT, MEAN, 0, NULL, NULL},
};
static const struct step block_e_largest[] = {
    BLOCK_E_BEGIN,
    BLOCK_E_MIDDLE,
    {IN, ONE, LARGEST, 0, NULL, NULL},
    {ONE, OUT, NONE, 192, &c1x1, "branch_pool"},
};

#define STEPS(list) .steps = (list), .count = sizeof(list) / sizeof *(list)
static const struct block blocks[BLOCKS] = {
    {.name = NULL, STEPS(stem)},
    {.name = "Mixed_5b", STEPS(block_a), .width = 32},
    {.name = "Mixed_5c", STEPS(block_a), .width = 64},
    {.name = "Mixed_5d", STEPS(block_a), .width = 64},
    {.name = "Mixed_6a", STEPS(block_b)},
    {.name = "Mixed_6b", STEPS(block_c), .width = 128},
    {.name = "Mixed_6c", STEPS(block_c), .width = 160},
    {.name = "Mixed_6d", STEPS(block_c), .width = 160},
    {.name = "Mixed_6e", STEPS(block_c), .width = 192},
    {.name = "Mixed_7a", STEPS(block_d)},
    {.name = "Mixed_7b", STEPS(block_e_mean)},
    {.name = "Mixed_7c", STEPS(block_e_largest)},
};

/* Square images, channels-last. */
struct shape {
  int side, channels;
};

static int64_t values(struct shape shape) {
  return (int64_t)shape.side * shape.side * shape.channels;
}

struct layout { /* of a block's images */
  struct shape in, out;
  int64_t scratch[PLACES]; /* values of the largest image in a place */
};

struct inception {
  struct params params;
  struct conv *conv[CONVS]; /* in the order of the steps */
  const struct linear *fc;
  struct layout layout[BLOCKS];
  int64_t trunk; /* values of the largest output of a block */
};

/* What a step makes of an image of this shape. */
static struct shape step_shape(const struct block *block, const struct step *step,
                               struct shape in) {
  if (!step->form && step->pool == HALVE)
    return (struct shape){pool_size(in.side, 2, 0), in.channels};
  if (!step->form) return in;
  const struct conv_window *window = &step->form->window;
  const int room = in.side + window->before[0] + window->after[0] - step->form->kernel[0];
  return (struct shape){room / window->stride + 1, step->width ? step->width : block->width};
}

/* Names the weights of a block and lays out its images; returns the place after its convolutions.
 */
static struct conv **block_walk(struct conv **conv, struct params *params,
                                const struct block *block, struct layout *layout, struct shape in) {
  struct shape at[PLACES] = {[IN] = in};
  const size_t length = block->name ? params_enter(params, "%s.", block->name) : 0;
  *layout = (struct layout){.in = in};
  for (const struct step *step = block->steps; step < block->steps + block->count; step++) {
    const struct shape from = at[step->from], to = step_shape(block, step, from);
    if (step->form)
      params_conv_normalised(params, conv++, from.channels, to.channels, step->form, NORM_EPS,
                             step->name);
    at[step->to] = to;
    if (step->to == OUT)
      layout->out = (struct shape){to.side, layout->out.channels + to.channels};
    else if (values(to) > layout->scratch[step->to])
      layout->scratch[step->to] = values(to);
  }
  params_leave(params, length);
  return conv;
}

static void walk(struct inception *inception) {
  struct params *params = &inception->params;
  struct conv **conv = inception->conv;
  struct shape shape = {SIDE, 3};
  for (int i = 0; i < BLOCKS; i++) {
    struct layout *layout = &inception->layout[i];
    conv = block_walk(conv, params, &blocks[i], layout, shape);
    shape = layout->out;
    if (values(shape) > inception->trunk) inception->trunk = values(shape);
  }
  params_matrix(params, &inception->fc, CLASSES, POOL, false, PARAM_EXACT, "fc");
  params_unused(params, 1, (int64_t[1]){CLASSES}, "fc.bias");
}

static enum ditmoe_status inception_open(struct exec *ex, struct network *network,
                                         const struct ditmoe_checkpoint *file) {
  struct inception *inception;
  TRY(mem_zalloc(ex->ctx, 1, sizeof *inception, "the feature network", &inception));
  network->weights = inception;
  inception->params = params_begin(ex->ctx, file);
  walk(inception);
  TRY(params_load(&inception->params, ex, network->kind->name));
  network->weight_bytes = inception->params.weight_bytes;
  return DITMOE_OK;
}

static void inception_close(struct exec *ex, struct network *network) {
  struct inception *inception = network->weights;
  if (!inception) return;
  params_free(&inception->params, ex);
  mem_free(ex->ctx, inception);
}

/* The images [B, side, side, channels] of a place while a block runs. */
struct image {
  struct act data;
  float *sums; /* where the place is SUMS */
  struct shape shape;
};

/* A batch, or a part of one. */
struct batch {
  const struct network *network;
  int first, count; /* of the images */
};

static void tap(struct exec *ex, const struct batch *batch, const char *layer,
                const struct image *image) {
  const struct network_tap *tap = batch->network->tap;
  if (tap && be_active(ex))
    tap->seen(tap->user, ex, layer, image->data, batch->first, batch->count, image->shape.side,
              image->shape.channels);
}

/* A block under way. */
struct run {
  const struct batch *batch;
  const struct block *block;
  struct conv *const *conv; /* of the next step */
  struct image image[PLACES];
  int64_t at; /* value of the output that comes next */
};

static void pool_forward(struct exec *ex, const struct run *run, const struct step *step) {
  const struct image *x = &run->image[step->from], *y = &run->image[step->to];
  const int side = x->shape.side, C = x->shape.channels, B = run->batch->count;
  const int64_t ldy = y->shape.channels, at = step->to == OUT ? run->at : 0;
  if (step->pool == MEAN)
    be_avg_pool_relu(ex, y->data, ldy, at, x->sums, B, side, side, C);
  else if (step->pool == LARGEST)
    be_max_pool(ex, y->data, ldy, at, x->data, B, side, side, C, 1, 1);
  else
    be_max_pool(ex, y->data, ldy, at, x->data, B, side, side, C, 2, 0);
}

static bool are_siblings(const struct step *a, const struct step *b) {
  return a->form && a->form == b->form && a->from == b->from;
}

/* Steps first .. end - 1, siblings if there are several. */
static void steps_forward(struct exec *ex, struct run *run, const struct step *first,
                          const struct step *end) {
  const struct image *x = &run->image[first->from];
  struct conv_branch branches[CONV_BRANCHES];
  int count = 0;
  for (const struct step *step = first; step < end; step++) {
    struct image *y = &run->image[step->to];
    const struct shape made = step_shape(run->block, step, x->shape);
    if (step->to != OUT) y->shape = made;
    if (step->form)
      branches[count++] = (struct conv_branch){.w = *run->conv++,
                                               .y = y->data,
                                               .ldy = y->shape.channels,
                                               .at = step->to == OUT ? run->at : 0,
                                               .sum = y->sums};
    else
      pool_forward(ex, run, step);
    if (step->to == OUT) run->at += made.channels;
  }
  if (count)
    be_conv2d_relu(ex, branches, count, x->data, run->batch->count, x->shape.side, x->shape.side);
}

/* Block i: y [B, out] of x [B, in]; at: the value of y that the block's output begins with. Returns
 * the place after its convolutions. */
static struct conv *const *block_forward(struct exec *ex, const struct batch *batch, int i,
                                         struct conv *const *conv, struct act y, int64_t at,
                                         struct act x) {
  const struct inception *inception = batch->network->weights;
  const struct layout *layout = &inception->layout[i];
  const struct block *block = &blocks[i];
  const struct step *end = block->steps + block->count;
  const size_t mark = arena_mark(&ex->arena);
  struct run run = {
      batch, block, conv, {[IN] = {x, NULL, layout->in}, [OUT] = {y, NULL, layout->out}}, at};
  for (int p = ONE; p <= THREE; p++)
    run.image[p].data = be_acts(ex, x.type, batch->count * layout->scratch[p]);
  run.image[SUMS].sums = be_floats(ex, batch->count * layout->scratch[SUMS]);
  for (const struct step *step = block->steps, *next; step < end; step = next) {
    for (next = step + 1; next < end && are_siblings(step, next);) next++;
    steps_forward(ex, &run, step, next);
    if (!block->name && step->form) tap(ex, batch, step->name, &run.image[step->to]);
  }
  arena_reset(&ex->arena, mark);
  return run.conv;
}

/* x [B, out of the stem]: one image at a time, whose layers fit into a cache. */
static struct conv *const *stem_forward(struct exec *ex, const struct network *network,
                                        struct act x, const float *image, int B) {
  const struct inception *inception = network->weights;
  const int64_t pixels = values(inception->layout[0].in), each = values(inception->layout[0].out);
  struct conv *const *conv = inception->conv;
  for (int b = 0; b < B; b++) {
    const size_t mark = arena_mark(&ex->arena);
    const struct batch one = {network, b, 1};
    conv = block_forward(ex, &one, 0, inception->conv, x, b * each,
                         be_narrowed(ex, x.type, image + b * pixels, pixels));
    arena_reset(&ex->arena, mark);
  }
  return conv;
}

static void inception_forward(struct exec *ex, const struct network *network, const float *image,
                              int B, const struct features *out) {
  const struct inception *inception = network->weights;
  const struct batch all = {network, 0, B};
  const size_t mark = arena_mark(&ex->arena);
  const int64_t images = B;
  const enum dtype type = inception->conv[0]->input;
  struct act x = be_acts(ex, type, images * inception->trunk);
  struct act y = be_acts(ex, type, images * inception->trunk);
  struct conv *const *conv = stem_forward(ex, network, x, image, B);
  for (int i = 1; i < BLOCKS; i++) {
    const struct shape shape = inception->layout[i].out;
    conv = block_forward(ex, &all, i, conv, y, 0, x);
    tap(ex, &all, blocks[i].name, &(struct image){y, NULL, shape});
    if (i == SPATIAL_BLOCK && out->spatial)
      be_take_channels(ex, out->spatial, y, images * SPATIAL_PIXELS, shape.channels, SPATIAL);
    struct act made = y;
    y = x;
    x = made;
  }
  const struct shape last = inception->layout[BLOCKS - 1].out;
  float *pool = out->pool ? out->pool : be_floats(ex, images * POOL);
  be_mean_pixels(ex, pool, x, B, (int64_t)last.side * last.side, POOL);
  if (out->logits) be_linear(ex, out->logits, act_f32(pool), inception->fc, B);
  arena_reset(&ex->arena, mark);
}

const struct network_kind inception_kind = {
    .name = "fid-inception-v3",
    .tensor = "Conv2d_1a_3x3.conv.weight",
    .side = SIDE,
    .pool = POOL,
    .spatial = SPATIAL_PIXELS * SPATIAL,
    .logits = CLASSES,
    .open = inception_open,
    .close = inception_close,
    .forward = inception_forward,
};
