/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_body_verify.h"

#include <errno.h>
#include <inttypes.h>

#include "migrate/mig_body_priv.h"

/* --- ROOTS --- */

void mig_roots_encode(const struct mig_digest *roots, uint32_t count, struct base_buffer *out)
{
	base_assert(count > 0 && count <= MIG_OBJECTS_MAX);
	base_buffer_le32(out, count);
	base_buffer_le32(out, 0);
	base_buffer_append(out, roots, count * sizeof(*roots));
}

int mig_roots_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_digest *ret_roots,
		     uint32_t *ret_count, struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	uint32_t count = base_read_le32(&in);
	int r = mig_body_zeros("roots", &in, 4, err);

	if (r < 0)
		return r;
	if (count == 0 || count > MIG_OBJECTS_MAX)
		return base_fail(err, -EBADMSG, "migration roots: %" PRIu32 ", expected 1 to %u",
				 count, MIG_OBJECTS_MAX);
	r = mig_body_size("roots", size_bytes, MIG_ROOTS_HEADER_BYTES + count * MIG_DIGEST_BYTES,
			  err);
	if (r < 0)
		return r;
	base_read_bytes(&in, ret_roots, count * sizeof(*ret_roots));
	*ret_count = count;
	return 0;
}

/* --- ASK_NODES, NODES --- */

static int node_check(const char *name, const struct mig_node *node, struct base_error *err)
{
	if (node->object >= MIG_OBJECTS_MAX)
		return base_fail(err, -EBADMSG, "migration %s: object %u, expected less than %u",
				 name, (unsigned int)node->object, MIG_OBJECTS_MAX);
	if (node->level == 0 || node->level >= MIG_VERIFY_LEVELS)
		return base_fail(err, -EBADMSG, "migration %s: level %u, expected 1 to %u", name,
				 (unsigned int)node->level, MIG_VERIFY_LEVELS - 1);
	return 0;
}

void mig_ask_nodes_encode(const struct mig_node *node, uint8_t ret_bytes[MIG_ASK_NODES_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_ASK_NODES_BYTES);

	base_write_le16(&out, node->object);
	base_write_le16(&out, node->level);
	base_write_le32(&out, 0);
	base_write_le64(&out, node->index);
}

int mig_ask_nodes_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_node *ret_node,
			 struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_node node = { .object = base_read_le16(&in) };
	int r = mig_body_size("ask-nodes", size_bytes, MIG_ASK_NODES_BYTES, err);

	node.level = base_read_le16(&in);
	if (r == 0)
		r = mig_body_zeros("ask-nodes", &in, 4, err);
	node.index = base_read_le64(&in);
	if (r == 0)
		r = node_check("ask-nodes", &node, err);
	if (r < 0)
		return r;
	*ret_node = node;
	return 0;
}

void mig_nodes_encode(const struct mig_nodes *nodes, struct base_buffer *out)
{
	base_assert(nodes->count > 0 && nodes->count <= MIG_VERIFY_FANOUT);
	base_buffer_le16(out, nodes->of.object);
	base_buffer_le16(out, nodes->of.level);
	base_buffer_le32(out, nodes->count);
	base_buffer_le64(out, nodes->of.index);
	base_buffer_append(out, nodes->children, nodes->count * sizeof(nodes->children[0]));
}

int mig_nodes_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_nodes *ret_nodes,
		     struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_node node = { .object = base_read_le16(&in) };
	uint32_t count = 0;
	int r = 0;

	node.level = base_read_le16(&in);
	count = base_read_le32(&in);
	node.index = base_read_le64(&in);
	if (in.failed)
		return base_fail(err, -EBADMSG, "migration nodes: truncated");
	r = node_check("nodes", &node, err);
	if (r < 0)
		return r;
	if (count == 0 || count > MIG_VERIFY_FANOUT)
		return base_fail(err, -EBADMSG, "migration nodes: %" PRIu32 ", expected 1 to %u",
				 count, MIG_VERIFY_FANOUT);
	r = mig_body_size("nodes", size_bytes, MIG_NODES_HEADER_BYTES + count * MIG_DIGEST_BYTES,
			  err);
	if (r < 0)
		return r;
	ret_nodes->of = node;
	ret_nodes->count = count;
	base_read_bytes(&in, ret_nodes->children, count * sizeof(ret_nodes->children[0]));
	return 0;
}

/* --- VERIFIED --- */

void mig_verified_encode(const struct mig_verified *verified, uint8_t ret_bytes[MIG_VERIFIED_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_VERIFIED_BYTES);

	base_write_le64(&out, verified->bytes);
	base_write_le64(&out, verified->running_ns);
	base_write_le64(&out, verified->blackout_ns);
}

int mig_verified_decode(const uint8_t *bytes, uint32_t size_bytes,
			struct mig_verified *ret_verified, struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_verified verified = { .bytes = base_read_le64(&in) };
	int r = mig_body_size("verified", size_bytes, MIG_VERIFIED_BYTES, err);

	verified.running_ns = base_read_le64(&in);
	verified.blackout_ns = base_read_le64(&in);
	if (r < 0)
		return r;
	*ret_verified = verified;
	return 0;
}
