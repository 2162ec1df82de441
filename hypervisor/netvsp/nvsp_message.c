/* SPDX-License-Identifier: Apache-2.0 */
/* NVSP messages: nvsp_message.h. */
#include "hypervisor/netvsp/nvsp_message.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"

/* Of a chain of memory descriptors that the host's driver would take: as Hyper-V answers. */
#define MDL_CHAIN_MAX 34u

static const uint32_t versions[] = {
	NVSP_VERSION_61, NVSP_VERSION_6, NVSP_VERSION_5,
	NVSP_VERSION_4,  NVSP_VERSION_2, NVSP_VERSION_1,
};

enum nvsp_version nvsp_version_choose(uint32_t oldest, uint32_t newest)
{
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
		if (versions[i] >= oldest && versions[i] <= newest)
			return (enum nvsp_version)versions[i];
	return NVSP_VERSION_NONE;
}

static int body_decode(struct base_reader *in, uint32_t type, struct nvsp_request *request,
		       struct base_error *err)
{
	switch (type) {
	case NVSP_INIT:
		request->init.oldest = base_read_le32(in);
		request->init.newest = base_read_le32(in);
		break;
	case NVSP_NDIS_VERSION:
		request->ndis.major = base_read_le32(in);
		request->ndis.minor = base_read_le32(in);
		break;
	case NVSP_RECEIVE_BUFFER:
	case NVSP_SEND_BUFFER:
		request->buffer.gpadl_id = base_read_le32(in);
		request->buffer.id = base_read_le16(in);
		break;
	case NVSP_REVOKE_RECEIVE_BUFFER:
	case NVSP_REVOKE_SEND_BUFFER:
		request->buffer.id = base_read_le16(in);
		break;
	case NVSP_RNDIS:
		request->rndis.is_control = base_read_le32(in) != 0;
		request->rndis.section = base_read_le32(in);
		request->rndis.section_bytes = base_read_le32(in);
		break;
	case NVSP_RNDIS_COMPLETE:
		request->complete.status = base_read_le32(in);
		break;
	case NVSP_NDIS_CONFIG:
		request->config.mtu = base_read_le32(in);
		base_read_skip(in, 4);
		request->config.capabilities = base_read_le64(in);
		break;
	case NVSP_SWITCH_DATA_PATH:
		break; /* whatever it names: there is one path */
	case NVSP_SUBCHANNEL:
		request->subchannel.operation = base_read_le32(in);
		request->subchannel.count = base_read_le32(in);
		break;
	default:
		return base_fail(err, -ENOTSUP, "NVSP message: type %u is none of a guest", type);
	}
	return 0;
}

int nvsp_request_decode(const uint8_t *bytes, uint32_t size_bytes, struct nvsp_request *ret_request,
			struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct nvsp_request request = { .type = NVSP_INVALID };
	uint32_t type = base_read_le32(&in);
	int rc = 0;

	if (in.failed)
		return base_fail(err, -EBADMSG, "NVSP message: %u bytes", size_bytes);
	request.type = (enum nvsp_type)type;
	rc = body_decode(&in, type, &request, err);
	if (rc == 0 && in.failed)
		rc = base_fail(err, -EBADMSG, "NVSP message of type %u: only %u bytes", type,
			       size_bytes);
	if (rc == 0 || rc == -ENOTSUP)
		*ret_request = request;
	return rc;
}

static struct base_writer begin(uint8_t to[NVSP_MESSAGE_BYTES], enum nvsp_type type)
{
	struct base_writer out = base_writer_over(to, NVSP_MESSAGE_BYTES);

	memset(to, 0, NVSP_MESSAGE_BYTES);
	base_write_le32(&out, (uint32_t)type);
	return out;
}

void nvsp_init_complete(uint8_t to[NVSP_MESSAGE_BYTES], uint32_t version, enum nvsp_status status)
{
	struct base_writer out = begin(to, NVSP_INIT_COMPLETE);

	base_write_le32(&out, version);
	base_write_le32(&out, MDL_CHAIN_MAX);
	base_write_le32(&out, (uint32_t)status);
}

void nvsp_receive_buffer_complete(uint8_t to[NVSP_MESSAGE_BYTES], enum nvsp_status status,
				  uint32_t section_bytes, uint32_t section_count)
{
	struct base_writer out = begin(to, NVSP_RECEIVE_BUFFER_COMPLETE);

	base_write_le32(&out, (uint32_t)status);
	base_write_le32(&out, section_count == 0 ? 0 : 1); /* one run of equal sections */
	base_write_le32(&out, 0);
	base_write_le32(&out, section_bytes);
	base_write_le32(&out, section_count);
	base_write_le32(&out, section_bytes * section_count);
}

void nvsp_send_buffer_complete(uint8_t to[NVSP_MESSAGE_BYTES], enum nvsp_status status,
			       uint32_t section_bytes)
{
	struct base_writer out = begin(to, NVSP_SEND_BUFFER_COMPLETE);

	base_write_le32(&out, (uint32_t)status);
	base_write_le32(&out, section_bytes);
}

void nvsp_rndis_complete(uint8_t to[NVSP_MESSAGE_BYTES], enum nvsp_status status)
{
	struct base_writer out = begin(to, NVSP_RNDIS_COMPLETE);

	base_write_le32(&out, (uint32_t)status);
}

void nvsp_rndis_message(uint8_t to[NVSP_MESSAGE_BYTES], bool is_control)
{
	struct base_writer out = begin(to, NVSP_RNDIS);

	base_write_le32(&out, is_control ? 1 : 0);
	base_write_le32(&out, NVSP_NO_SECTION);
	base_write_le32(&out, 0);
}

void nvsp_subchannel_complete(uint8_t to[NVSP_MESSAGE_BYTES], enum nvsp_status status,
			      uint32_t count)
{
	struct base_writer out = begin(to, NVSP_SUBCHANNEL);

	base_write_le32(&out, (uint32_t)status);
	base_write_le32(&out, count);
}

void nvsp_indirection_table(uint8_t to[NVSP_TABLE_MESSAGE_BYTES], uint32_t queue_count)
{
	struct base_writer out = base_writer_over(to, NVSP_TABLE_MESSAGE_BYTES);

	memset(to, 0, NVSP_TABLE_MESSAGE_BYTES);
	base_write_le32(&out, NVSP_INDIRECTION_TABLE);
	base_write_le32(&out, NVSP_TABLE_ENTRIES);
	/* Behind the largest plain message: guests of up to version 6 look there whatever
	 * we say here. */
	base_write_le32(&out, NVSP_MESSAGE_BYTES);
	out = base_writer_over(to + NVSP_MESSAGE_BYTES,
			       NVSP_TABLE_MESSAGE_BYTES - NVSP_MESSAGE_BYTES);
	for (uint32_t i = 0; i < NVSP_TABLE_ENTRIES; i++)
		base_write_le32(&out, i % queue_count);
}
