/* SIGINT and SIGTERM: the first asks to stop, the second ends the program. */
#ifndef CLI_STOP_H
#define CLI_STOP_H

#include "ditmoe.h"

#include <stdbool.h>

/* A signal that the parent ignores stays ignored. */
void stop_on_signals(void);
bool stop_asked(void);
/* The status, or 128 + the signal if that was why the work was cancelled. */
int stop_exit_code(enum ditmoe_status status);

#endif
