/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bodies of the messages of a verified move: docs/migrate/protocol.md, section 3.  As
 * mig_body.h; whether there is such an object or node is the caller's to check.
 *
 * Any thread.
 */
#ifndef MIGRATE_MIG_BODY_VERIFY_H
#define MIGRATE_MIG_BODY_VERIFY_H

#include "base/bytes.h"
#include "migrate/mig_verify.h"

#define MIG_ROOTS_HEADER_BYTES 8u
#define MIG_ROOTS_BYTES_MAX    (MIG_ROOTS_HEADER_BYTES + MIG_OBJECTS_MAX * MIG_DIGEST_BYTES)
#define MIG_ASK_NODES_BYTES    16u
#define MIG_NODES_HEADER_BYTES 16u
#define MIG_NODES_BYTES_MAX    (MIG_NODES_HEADER_BYTES + MIG_VERIFY_FANOUT * MIG_DIGEST_BYTES)
#define MIG_VERIFIED_BYTES     24u

/* ROOTS, of all objects; @roots: room for MIG_OBJECTS_MAX.  Encoding appends; out->failed: no
 * memory. */
void mig_roots_encode(const struct mig_digest *roots, uint32_t count, struct base_buffer *out);
BASE_MUST_CHECK int mig_roots_decode(const uint8_t *bytes, uint32_t size_bytes,
				     struct mig_digest *ret_roots, uint32_t *ret_count,
				     struct base_error *err);

/* A node whose children are asked for, or given. */
struct mig_node {
	uint16_t object;
	uint16_t level; /* 1 to MIG_VERIFY_LEVELS - 1 */
	uint64_t index;
};
void mig_ask_nodes_encode(const struct mig_node *node, uint8_t ret_bytes[MIG_ASK_NODES_BYTES]);
BASE_MUST_CHECK int mig_ask_nodes_decode(const uint8_t *bytes, uint32_t size_bytes,
					 struct mig_node *ret_node, struct base_error *err);
struct mig_nodes {
	struct mig_node of;
	uint32_t count; /* 1 to MIG_VERIFY_FANOUT */
	struct mig_digest children[MIG_VERIFY_FANOUT];
};
/* Appends; out->failed: no memory. */
void mig_nodes_encode(const struct mig_nodes *nodes, struct base_buffer *out);
BASE_MUST_CHECK int mig_nodes_decode(const uint8_t *bytes, uint32_t size_bytes,
				     struct mig_nodes *ret_nodes, struct base_error *err);

/* VERIFIED: what it cost at the destination. */
struct mig_verified {
	uint64_t bytes;
	uint64_t running_ns;
	uint64_t blackout_ns;
};
void mig_verified_encode(const struct mig_verified *verified,
			 uint8_t ret_bytes[MIG_VERIFIED_BYTES]);
BASE_MUST_CHECK int mig_verified_decode(const uint8_t *bytes, uint32_t size_bytes,
					struct mig_verified *ret_verified, struct base_error *err);

#endif
