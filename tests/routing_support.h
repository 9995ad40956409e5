/* What the tests of routing share. */
#ifndef TESTS_ROUTING_SUPPORT_H
#define TESTS_ROUTING_SUPPORT_H

#include "trace/tables.h"

/* Shapes, images and every cell of every table are equal, or the test fails. */
void assert_same_tables(const struct ditmoe_routing *a, const struct ditmoe_routing *b);

#endif
