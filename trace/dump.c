/* Writing tables. Equal tables give equal bytes. */
#include "trace/dump.h"
#include "io/json.h"

#include <stdio.h>
#include <string.h>

struct dump_array dump_array_of(const struct routing_shape *shape, enum ditmoe_half half,
                                enum table table, enum ditmoe_routing_form form) {
  const struct table_kind *kind = &table_kinds[table];
  const bool exact = kind->cell == CELL_MASS && form == DITMOE_ROUTING_EXACT;
  struct dump_array array = {.type = kind->cell == CELL_U32 ? "u4" : "i8"};
  snprintf(array.name, sizeof array.name, "%s%s%s", half == DITMOE_UNCONDITIONAL ? "uncond_" : "",
           kind->name, exact ? "_exact" : "");
  array.rank = table_shape(shape, table, array.shape);
  if (exact) {
    array.type = "u4";
    array.shape[array.rank++] = 2;
  } else if (kind->cell == CELL_MASS) {
    array.type = table == TABLE_MASS ? "f4" : "f8";
  }
  return array;
}

struct writer {
  struct ditmoe_ctx *ctx;
  struct ditmoe_npz *npz;
  const struct ditmoe_routing *routing;
};

static enum ditmoe_status put(const struct writer *w, const char *name, const char *type, int rank,
                              const int64_t *shape, const void *bytes, size_t size) {
  TRY(ditmoe_npz_array(w->ctx, w->npz, name, type, rank, shape));
  return ditmoe_npz_write(w->ctx, w->npz, bytes, size);
}

static enum ditmoe_status put_header(const struct writer *w) {
  const struct routing_shape *s = &w->routing->shape;
  const size_t capacity = strlen(w->routing->meta) + 256;
  char *text;
  TRY(mem_alloc(w->ctx, capacity, 1, "header", &text));
  const int length =
      snprintf(text, capacity,
               "{\"format\":\"" DUMP_FORMAT "\",\"version\":%d,\"side\":%d,\"top_k\":%d,"
               "\"uncond_expert\":%d,\"null_label\":%d,\"run\":%s}",
               DUMP_VERSION, s->side, s->top_k, s->uncond_expert, s->null_label, w->routing->meta);
  enum ditmoe_status status = put(w, "info", "u1", 1, (int64_t[]){length}, text, (size_t)length);
  mem_free(w->ctx, text);
  return status;
}

static enum ditmoe_status put_shape(const struct writer *w) {
  const struct routing_shape *s = &w->routing->shape;
  const struct indices *images = &w->routing->images;
  const int64_t L = s->layers, edges = s->bins + 1, steps = s->steps;
  TRY(put(w, "layers", "i4", 1, &L, s->layer, (size_t)L * sizeof *s->layer));
  TRY(put(w, "layer_experts", "i4", 1, &L, s->layer_experts, (size_t)L * sizeof *s->layer_experts));
  TRY(put(w, "bin_steps", "i4", 1, &edges, s->bin_step, (size_t)edges * sizeof *s->bin_step));
  TRY(put(w, "times", "f8", 1, &steps, s->time, (size_t)steps * sizeof *s->time));
  return put(w, "images", "i8", 2, (int64_t[]){(int64_t)images->count, 2}, images->ranges,
             images->count * sizeof *images->ranges);
}

/* Sums of weights as floating-point numbers, piece by piece. */
static enum ditmoe_status put_mass(const struct writer *w, const int64_t *mass, int64_t cells,
                                   bool wide) {
  enum { PIECE = 4096 };
  double f64[PIECE];
  float f32[PIECE];
  for (int64_t at = 0, n; at < cells; at += n) {
    n = cells - at < PIECE ? cells - at : PIECE;
    for (int64_t i = 0; i < n; i++) {
      f64[i] = (double)mass[at + i] * DITMOE_ROUTING_UNIT;
      f32[i] = (float)f64[i];
    }
    TRY(ditmoe_npz_write(w->ctx, w->npz, wide ? (void *)f64 : (void *)f32,
                         (size_t)n * (wide ? sizeof *f64 : sizeof *f32)));
  }
  return DITMOE_OK;
}

static enum ditmoe_status put_table(const struct writer *w, enum ditmoe_half half, enum table table,
                                    enum ditmoe_routing_form form) {
  const struct routing_shape *shape = &w->routing->shape;
  const struct dump_array array = dump_array_of(shape, half, table, form);
  const int64_t cells = table_cells(shape, table);
  const void *data = w->routing->table[half][table];
  TRY(ditmoe_npz_array(w->ctx, w->npz, array.name, array.type, array.rank, array.shape));
  if (table_kinds[table].cell == CELL_MASS && form == DITMOE_ROUTING_FINAL)
    return put_mass(w, data, cells, array.type[1] == '8');
  return ditmoe_npz_write(w->ctx, w->npz, data, (size_t)cells * table_cell_size(table));
}

static enum ditmoe_status put_all(const struct writer *w, enum ditmoe_routing_form form) {
  const struct routing_shape *shape = &w->routing->shape;
  TRY(put_header(w));
  TRY(put_shape(w));
  for (int h = 0; h < shape->halves; h++)
    for (int t = 0; t < TABLES; t++)
      if (table_exists(shape, t)) TRY(put_table(w, h, t, form));
  return DITMOE_OK;
}

enum ditmoe_status ditmoe_routing_write(struct ditmoe_ctx *ctx,
                                        const struct ditmoe_routing *routing, const char *path,
                                        enum ditmoe_routing_form form) {
  struct writer w = {.ctx = ctx, .routing = routing};
  TRY(ditmoe_npz_create(ctx, path, &w.npz));
  enum ditmoe_status status = put_all(&w, form);
  if (status == DITMOE_OK) return ditmoe_npz_commit(ctx, w.npz);
  ditmoe_npz_abandon(ctx, w.npz);
  return status;
}
