/* Recording the routing of a request. */
#ifndef API_ROUTING_H
#define API_ROUTING_H

#include "api/handles.h"
#include "api/recorder.h"

/* A recorder for request->routing, which must be for this model and these steps; does
 * nothing without one. */
enum ditmoe_status routing_start(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                 const struct ditmoe_request *request,
                                 const struct resolved *resolved, const struct schedule *schedule,
                                 struct recorder *out);

#endif
