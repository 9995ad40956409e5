/* The limits of limits.def as constants LIMIT_FORWARD and so on. */
#ifndef TESTS_LIMIT_H
#define TESTS_LIMIT_H

#define LIMIT(name, value, what) static const double LIMIT_##name = (value);
#include "tests/limits.def"
#undef LIMIT

#endif
