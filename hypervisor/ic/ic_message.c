/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the integration services as bytes; pure. */
#include "hypervisor/ic/ic_message.h"

#include <errno.h>

#include "base/bytes.h"

#define PIPE_HEADER_BYTES 8u
#define PIPE_DATA         1u

static void put_version(struct base_writer *out, struct ic_version version)
{
	base_write_le16(out, version.major);
	base_write_le16(out, version.minor);
}

static struct ic_version get_version(struct base_reader *in)
{
	struct ic_version version;

	version.major = base_read_le16(in);
	version.minor = base_read_le16(in);
	return version;
}

void ic_header_encode(const struct ic_header *header, uint8_t *to)
{
	struct base_writer out = base_writer_over(to, IC_HEADER_BYTES);

	base_write_le32(&out, PIPE_DATA);
	base_write_le32(&out, IC_HEADER_BYTES - PIPE_HEADER_BYTES + header->body_bytes);
	put_version(&out, header->framework);
	base_write_le16(&out, header->type);
	put_version(&out, header->version);
	base_write_le16(&out, header->body_bytes);
	base_write_le32(&out, header->status);
	base_write_u8(&out, header->transaction);
	base_write_u8(&out, header->flags);
	base_write_le16(&out, 0);
}

int ic_header_decode(const uint8_t *bytes, size_t size_bytes, struct ic_header *ret_header,
		     struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct ic_header header;

	base_read_skip(&in, PIPE_HEADER_BYTES); /* guests leave there what was in their buffer */
	header.framework = get_version(&in);
	header.type = base_read_le16(&in);
	header.version = get_version(&in);
	header.body_bytes = base_read_le16(&in);
	header.status = base_read_le32(&in);
	header.transaction = base_read_u8(&in);
	header.flags = base_read_u8(&in);
	base_read_skip(&in, 2);
	if (in.failed)
		return base_fail(err, -EBADMSG, "%zu bytes, expected at least %u", size_bytes,
				 IC_HEADER_BYTES);
	if (header.body_bytes > base_reader_left(&in))
		return base_fail(err, -EBADMSG, "body of %u bytes in a message of %zu",
				 (unsigned)header.body_bytes, size_bytes);
	*ret_header = header;
	return 0;
}

uint16_t ic_negotiate_encode(const struct ic_versions *framework, const struct ic_versions *service,
			     uint8_t *to)
{
	struct base_writer out = base_writer_over(to, 8 + 8 * IC_VERSIONS_MAX);

	base_write_le16(&out, (uint16_t)framework->count);
	base_write_le16(&out, (uint16_t)service->count);
	base_write_le32(&out, 0);
	for (uint32_t i = 0; i < framework->count; i++)
		put_version(&out, framework->list[i]);
	for (uint32_t i = 0; i < service->count; i++)
		put_version(&out, service->list[i]);
	return (uint16_t)out.offset_bytes;
}

int ic_version_is_offered(const struct ic_versions *versions, struct ic_version version)
{
#ifdef GODWIT_MUTANT_IC_VERSION
	return 1;
#endif
	for (uint32_t i = 0; i < versions->count; i++) {
		if (versions->list[i].major == version.major &&
		    versions->list[i].minor == version.minor)
			return 1;
	}
	return 0;
}

int ic_negotiate_decode(const uint8_t *body, size_t size_bytes, const struct ic_versions *framework,
			const struct ic_versions *service, struct ic_version ret_chosen[2],
			struct base_error *err)
{
	struct base_reader in = base_reader_over(body, size_bytes);
	struct ic_version chosen[2];
	uint16_t framework_count = base_read_le16(&in);
	uint16_t service_count = base_read_le16(&in);

	base_read_skip(&in, 4);
	chosen[0] = get_version(&in);
	chosen[1] = get_version(&in);
	if (in.failed)
		return base_fail(err, -EBADMSG, "negotiation: %zu bytes, expected %u", size_bytes,
				 IC_NEGOTIATE_BODY_BYTES);
	if (framework_count == 0 && service_count == 0)
		return 0;
	if (framework_count != 1 || service_count != 1)
		return base_fail(err, -EBADMSG, "negotiation: %u and %u versions, expected 1 and 1",
				 (unsigned)framework_count, (unsigned)service_count);
	if (!ic_version_is_offered(framework, chosen[0]) ||
	    !ic_version_is_offered(service, chosen[1]))
		return base_fail(err, -EBADMSG,
				 "negotiation: framework %u.%u, service %u.%u were not offered",
				 (unsigned)chosen[0].major, (unsigned)chosen[0].minor,
				 (unsigned)chosen[1].major, (unsigned)chosen[1].minor);
	ret_chosen[0] = chosen[0];
	ret_chosen[1] = chosen[1];
	return 1;
}
