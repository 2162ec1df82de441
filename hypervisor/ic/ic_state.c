/* SPDX-License-Identifier: Apache-2.0 */
/* The saved state of the integration services: docs/hypervisor/ic/ic.md. */
#include <errno.h>

#include "base/bytes.h"
#include "hypervisor/ic/ic_priv.h"

#define REST_BYTES 5u

void ic_state_encode(const struct ic_set *set, struct base_buffer *out)
{
	for (enum ic_service i = 0; i < IC_SERVICES; i++)
		ic_port_encode(&set->channels[i].port, out);
	base_buffer_le64(out, set->sequence);
	base_buffer_u8(out, (uint8_t)set->heartbeat);
	base_buffer_u8(out, (uint8_t)set->vss_op);
	base_buffer_u8(out, set->frozen || set->thaw_due);
	for (uint32_t i = 0; i < REST_BYTES; i++)
		base_buffer_u8(out, 0);
}

static int check(const struct ic_port ports[IC_SERVICES], uint8_t heartbeat, uint8_t vss_op,
		 uint8_t frozen, struct base_error *err)
{
	const struct ic_port *vss = &ports[IC_VSS];
	bool vss_ready = vss->state == IC_PORT_READY;
	bool op_known =
		vss_op == IC_VSS_HOT_BACKUP || vss_op == IC_VSS_FREEZE || vss_op == IC_VSS_THAW;

	if (heartbeat == IC_HEARTBEAT_INVALID || heartbeat >= IC_HEARTBEATS ||
	    (heartbeat != IC_HEARTBEAT_NONE && ports[IC_HEARTBEAT].state != IC_PORT_READY))
		return base_fail(err, -EBADMSG, "heartbeat %u", (unsigned)heartbeat);
	if (vss_ready && vss->pending ? !op_known : vss_op != 0)
		return base_fail(err, -EBADMSG, "VSS operation %u", (unsigned)vss_op);
	if (frozen > 1 || (frozen != 0 && !vss_ready))
		return base_fail(err, -EBADMSG, "VSS frozen %u", (unsigned)frozen);
	return 0;
}

int ic_state_decode(struct ic_set *set, struct base_reader *in, struct base_error *err)
{
	struct ic_port ports[IC_SERVICES];
	uint64_t sequence = 0;
	uint8_t heartbeat = 0;
	uint8_t vss_op = 0;
	uint8_t frozen = 0;
	uint8_t rest[REST_BYTES];
	int result = 0;

	for (enum ic_service i = 0; i < IC_SERVICES; i++) {
		result = ic_port_decode(in, i, &ports[i], err);
		if (result < 0)
			return result;
	}
	sequence = base_read_le64(in);
	heartbeat = base_read_u8(in);
	vss_op = base_read_u8(in);
	frozen = base_read_u8(in);
	base_read_bytes(in, rest, sizeof(rest));
	if (in->failed || base_reader_left(in) != 0 || !base_is_zero(rest, sizeof(rest)))
		return base_fail(err, -EBADMSG, "not 96 bytes, or not zero at their end");
	result = check(ports, heartbeat, vss_op, frozen, err);
	if (result < 0)
		return result;

	for (enum ic_service i = 0; i < IC_SERVICES; i++)
		set->channels[i].port = ports[i];
	set->sequence = sequence;
	set->heartbeat = (enum ic_heartbeat)heartbeat;
	set->vss_op = (enum ic_vss_op)vss_op;
	set->frozen = false;
	set->thaw_due = frozen != 0; /* who froze it is not here to thaw it */
	return 0;
}
