#include "eval/metrics.h"

#include <cblas.h>

void metrics_threads(int threads) {
  if (threads > 0) openblas_set_num_threads(threads);
}
