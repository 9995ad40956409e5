/* Decoders with random weights. */
#ifndef BENCH_DECODER_H
#define BENCH_DECODER_H

#include "bench/bench.h"
#include "vae/vae.h"

/* kind: "kl" or "taesd". */
enum ditmoe_status decoder_open(struct bench *bench, struct exec *ex, const char *kind,
                                struct vae **out);
/* The kind that --decoder names; DITMOE_USAGE for any other. */
enum ditmoe_status decoder_kind(const struct bench *bench, const char **kind);

#endif
