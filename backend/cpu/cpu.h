/* The CPU backend: own kernels for every instruction tier, threads by OpenMP. */
#ifndef BACKEND_CPU_CPU_H
#define BACKEND_CPU_CPU_H

#include "backend/backend.h"

extern const struct backend_ops backend_cpu;

#endif
