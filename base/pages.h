/* Advice to the system about the pages of a range of memory. Only whole pages inside the range are
 * meant, and the system may ignore it. */
#ifndef BASE_PAGES_H
#define BASE_PAGES_H

#include <stddef.h>

/* Memory that will be written soon: large pages, of which fewer have to be made. */
void pages_large(void *memory, size_t bytes);
/* Parts of mapped files: will be read soon, so they are read from the disk now; are not needed for
 * now, and come back if they are read again. */
void pages_map(const void *mapped, size_t bytes);
void pages_drop(const void *mapped, size_t bytes);

#endif
