/* A stage of a decoder in tiles, with the result of running it at once.
 *
 * A tile goes through the stage with a margin as wide as what its pixels can see, so that its
 * convolutions read what they would read in the whole image: nothing has to be blended, and no
 * tile leaves an edge. What is left are the statistics of GroupNorm, which belong to the whole
 * image. The input of norm k depends on norms 0 .. k-1 alone, so they are found in order: sweep k
 * runs all tiles as far as norm k and adds up its statistics, and the last sweep has them all and
 * gives the result.
 *
 * So time is paid for memory: a stage with n norms costs about n / 2 + 1 times as much as at once,
 * and the arena holds its input, its output and one tile. The alternatives give up more. Tiles
 * with statistics of their own differ in colour by tens of 255; iterating on those statistics
 * until they settle takes as many sweeps as there are norms; and one pass with exact statistics
 * needs every activation of the image, which is what tiles are to avoid. */
#include "vae/network.h"

static int lesser(int a, int b) { return a < b ? a : b; }
static int greater(int a, int b) { return a > b ? a : b; }

static struct box box_widen(struct box box, int margin, int height, int width) {
  return (struct box){greater(box.top - margin, 0), greater(box.left - margin, 0),
                      lesser(box.bottom + margin, height), lesser(box.right + margin, width)};
}

static struct box box_scale(struct box box, int scale) {
  return (struct box){box.top * scale, box.left * scale, box.bottom * scale, box.right * scale};
}

/* Pixels [., width, C]. */
struct view {
  float *data;
  int width, C;
};

static float *view_at(struct view view, int y, int x) {
  return view.data + ((int64_t)y * view.width + x) * view.C;
}

/* dst from (y, x) on = src in a box. */
static void copy_box(struct exec *ex, struct view dst, int y, int x, struct view src,
                     struct box box) {
  const size_t bytes = (size_t)(box.right - box.left) * (size_t)src.C * sizeof(float);
  for (int row = box.top; be_active(ex) && row < box.bottom; row++)
    be_copy(ex, view_at(dst, y + row - box.top, x), view_at(src, row, box.left), bytes);
}

/* All tiles of a stage, as often as its norms need. */
struct sweep {
  const struct vae *vae;
  int s, height, width, side;
  struct view x, y; /* the whole image before and after the stage */
  struct tile tile;
};

static void run_tile(struct exec *ex, struct sweep *sweep, struct box own) {
  const struct vae_stage *stage = &sweep->vae->stage[sweep->s];
  const struct box area = box_widen(own, stage->margin, sweep->height, sweep->width);
  const int height = area.bottom - area.top, width = area.right - area.left, scale = stage->scale;
  const struct box window = {own.top - area.top, own.left - area.left, own.bottom - area.top,
                             own.right - area.left};
  const int64_t pixels = (int64_t)height * width;
  const bool dry = ex->dry;
  const size_t mark = arena_mark(&ex->arena);
  const struct view x = {be_floats(ex, pixels * stage->in), width, stage->in};
  const struct view y = {be_floats(ex, pixels * scale * scale * stage->out), width * scale,
                         stage->out};

  sweep->tile.window = window;
  sweep->tile.width = width;
  sweep->tile.next = 0;
  copy_box(ex, x, 0, 0, sweep->x, area);
  sweep->vae->stage_forward(ex, sweep->vae, sweep->s, y.data, x.data, height, width, &sweep->tile);
  copy_box(ex, sweep->y, own.top * scale, own.left * scale, y, box_scale(window, scale));
  ex->dry = dry;
  arena_reset(&ex->arena, mark);
}

static void run_tiles(struct exec *ex, struct sweep *sweep) {
  const int H = sweep->height, W = sweep->width, side = sweep->side;
  for (int top = 0; top < H; top += side)
    for (int left = 0; left < W; left += side)
      run_tile(ex, sweep, (struct box){top, left, lesser(top + side, H), lesser(left + side, W)});
}

/* [norms, groups, 2] doubles of the arena, cleared. */
static double *moments_alloc(struct exec *ex, int norms, int groups) {
  const int64_t n = (int64_t)norms * groups * 2;
  double *moments = (double *)(void *)be_floats(ex, 2 * n);
  be_fill(ex, moments, 0, (size_t)n * sizeof *moments);
  return moments;
}

void tiles_forward(struct exec *ex, const struct vae *vae, int s, float *y, const float *x,
                   int height, int width, int side) {
  const struct vae_stage *stage = &vae->stage[s];
  if (side >= height && side >= width) {
    vae->stage_forward(ex, vae, s, y, x, height, width, NULL);
    return;
  }
  const size_t mark = arena_mark(&ex->arena);
  struct sweep sweep = {.vae = vae,
                        .s = s,
                        .height = height,
                        .width = width,
                        .side = side,
                        .x = {(float *)x, width, stage->in},
                        .y = {y, width * stage->scale, stage->out},
                        .tile = {.area = (int64_t)height * width,
                                 .moments = moments_alloc(ex, stage->norms, vae->groups)}};
  for (int k = 0; ex->status == DITMOE_OK && k <= stage->norms; k++) {
    sweep.tile.sweep = k;
    run_tiles(ex, &sweep);
  }
  arena_reset(&ex->arena, mark);
}
