/* Comparison of tables of routing. */
#include "tests/support.h"

#include "tests/routing_support.h"

#include <string.h>

void assert_same_tables(const struct ditmoe_routing *a, const struct ditmoe_routing *b) {
  const struct routing_shape *shape = &a->shape;
  assert_null(shape_difference(shape, &b->shape));
  assert_int_equal(a->images.count, b->images.count);
  assert_memory_equal(a->images.ranges, b->images.ranges,
                      a->images.count * sizeof *a->images.ranges);
  for (int i = 0; i < shape->halves * TABLES; i++) {
    const int half = i / TABLES, table = i % TABLES;
    const size_t cells = table_exists(shape, table) ? (size_t)table_cells(shape, table) : 0;
    if (cells &&
        memcmp(a->table[half][table], b->table[half][table], cells * table_cell_size(table)) != 0)
      fail_msg("half %d: %s differ", half, table_kinds[table].name);
  }
}
