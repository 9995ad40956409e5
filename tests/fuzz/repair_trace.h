/* Makes the CRCs of a trace fit its bytes again, so that damage comes to what is behind them. */
#ifndef TESTS_FUZZ_REPAIR_TRACE_H
#define TESTS_FUZZ_REPAIR_TRACE_H

#include "trace/trace.h"

#include <string.h>

/* The CRC of bytes[0 .. size - 1] follows them. */
static inline void repair_crc(uint8_t *bytes, size_t size) {
  const uint32_t crc = trace_crc(bytes, size);
  memcpy(bytes + size, &crc, sizeof crc);
}

static inline void repair_trace(uint8_t *bytes, size_t size) {
  size_t at = 0, n = TRACE_TEXT;
  if (size < TRACE_TEXT + TRACE_CRC) return;
  n += le_number(bytes + 16, 4);
  while (n <= size - at && size - at - n >= TRACE_CRC) {
    repair_crc(bytes + at, n);
    at += n + TRACE_CRC;
    if (size - at < TRACE_LENGTH) return;
    const size_t length = le_number(bytes + at, TRACE_LENGTH);
    n = length ? TRACE_LENGTH + length : TRACE_END - TRACE_CRC;
  }
}

#endif
