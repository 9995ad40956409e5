/* SHA-256 of bytes as they come (FIPS 180-4, by libcrypto). */
#ifndef IO_HASH_H
#define IO_HASH_H

#include "base/status.h"

struct hash;

enum ditmoe_status hash_create(struct ditmoe_ctx *ctx, struct hash **out);
void hash_free(struct ditmoe_ctx *ctx, struct hash *hash); /* NULL is allowed */
/* A failure is kept until hash_read. */
void hash_add(struct hash *hash, const void *bytes, size_t size);
/* 64 hexadecimal digits and a zero, of all bytes added; nothing can be added after it. */
enum ditmoe_status hash_read(struct ditmoe_ctx *ctx, struct hash *hash, char digest[65]);

#endif
