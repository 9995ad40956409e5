/* What this machine has. */
#ifndef BASE_SYSTEM_H
#define BASE_SYSTEM_H

#include <stdint.h>

/* Bytes that a new allocation can count on: free memory and reclaimable cache, within the limit of
 * this process's control group and address space; UINT64_MAX where the system does not tell. */
uint64_t system_memory_available(void);

/* Of a clock that only runs forward. */
double system_seconds(void);

#endif
