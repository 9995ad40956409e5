/* SHA-256 of bytes as they come. */
#include "io/hash.h"

#include "base/memory.h"

#include <openssl/evp.h>
#include <stdio.h>

struct hash {
  EVP_MD_CTX *sum;
  bool intact; /* no call failed */
};

enum ditmoe_status hash_create(struct ditmoe_ctx *ctx, struct hash **out) {
  struct hash *hash;
  TRY(mem_zalloc(ctx, 1, sizeof *hash, "SHA-256", &hash));
  hash->sum = EVP_MD_CTX_new();
  hash->intact = hash->sum && EVP_DigestInit_ex(hash->sum, EVP_sha256(), NULL);
  *out = hash;
  return DITMOE_OK;
}

void hash_free(struct ditmoe_ctx *ctx, struct hash *hash) {
  if (hash) EVP_MD_CTX_free(hash->sum);
  mem_free(ctx, hash);
}

void hash_add(struct hash *hash, const void *bytes, size_t size) {
  hash->intact = hash->intact && EVP_DigestUpdate(hash->sum, bytes, size);
}

enum ditmoe_status hash_read(struct ditmoe_ctx *ctx, struct hash *hash, char digest[65]) {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (!hash->intact || !EVP_DigestFinal_ex(hash->sum, bytes, &size))
    return fail(ctx, DITMOE_FAILED, "libcrypto cannot compute SHA-256");
  for (unsigned i = 0; i < size; i++) snprintf(digest + 2 * i, 3, "%02x", bytes[i]);
  return DITMOE_OK;
}
