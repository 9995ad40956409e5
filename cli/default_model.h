#ifndef CLI_DEFAULT_MODEL_H
#define CLI_DEFAULT_MODEL_H

#include "cli/report.h"

/* The folder of the model that comes with the programs, to be freed; DITMOE_USAGE, reported, if it
 * is not where they look. */
enum ditmoe_status default_model(char **out);

#endif
