/* SPDX-License-Identifier: Apache-2.0 */
/* Negotiation and the one request of an integration service; pure. */
#include "hypervisor/ic/ic_port.h"

#include <errno.h>

static const struct ic_versions framework_versions = { .list = { { 3, 0 }, { 1, 0 } }, .count = 2 };

static const struct {
	const char *text;
	uint16_t type;
	struct ic_versions versions;
} services[IC_SERVICES] = {
	[IC_HEARTBEAT] = { "heartbeat", IC_TYPE_HEARTBEAT, { { { 3, 0 }, { 1, 0 } }, 2 } },
	[IC_SHUTDOWN] = { "shutdown",
			  IC_TYPE_SHUTDOWN,
			  { { { 3, 2 }, { 3, 1 }, { 3, 0 }, { 1, 0 } }, 4 } },
	[IC_TIME] = { "time", IC_TYPE_TIME, { { { 4, 0 }, { 3, 0 }, { 1, 0 } }, 3 } },
	[IC_KVP] = { "kvp", IC_TYPE_KVP, { { { 4, 0 }, { 3, 0 }, { 1, 0 } }, 3 } },
	[IC_VSS] = { "vss", IC_TYPE_VSS, { { { 5, 0 } }, 1 } },
};

const char *ic_service_text(enum ic_service service)
{
	return services[service].text;
}

struct ic_port ic_port_new(enum ic_service service)
{
	return (struct ic_port){ .service = service };
}

void ic_port_opened(struct ic_port *port)
{
	*port = (struct ic_port){ .service = port->service, .state = IC_PORT_NEGOTIATING };
}

void ic_port_closed(struct ic_port *port)
{
	*port = ic_port_new(port->service);
}

static struct ic_header request_header(const struct ic_port *port, uint16_t body_bytes)
{
	return (struct ic_header){
		.framework = port->framework,
		.version = port->version,
		.type = services[port->service].type,
		.body_bytes = body_bytes,
		.transaction = port->next_transaction,
		.flags = IC_FLAG_TRANSACTION | IC_FLAG_REQUEST,
	};
}

size_t ic_port_negotiate(const struct ic_port *port, uint8_t message[IC_MESSAGE_BYTES_MAX])
{
	const struct ic_versions *versions = &services[port->service].versions;
	struct ic_header header;

	base_assert(port->state == IC_PORT_NEGOTIATING && !port->pending);
	header = request_header(port, ic_negotiate_encode(&framework_versions, versions,
							  message + IC_HEADER_BYTES));
	header.type = IC_TYPE_NEGOTIATE;
	header.framework = framework_versions.list[0];
	header.version = versions->list[0];
	ic_header_encode(&header, message);
	return IC_HEADER_BYTES + (size_t)header.body_bytes;
}

size_t ic_port_request(const struct ic_port *port, uint16_t body_bytes, uint8_t *message)
{
	struct ic_header header = request_header(port, body_bytes);

	base_assert(port->state == IC_PORT_READY && !port->pending);
	base_assert(body_bytes <= IC_BODY_BYTES_MAX);
	ic_header_encode(&header, message);
	return IC_HEADER_BYTES + (size_t)body_bytes;
}

void ic_port_sent(struct ic_port *port)
{
	port->pending = true;
	port->pending_transaction = port->next_transaction++;
}

void ic_port_abandon(struct ic_port *port)
{
	port->pending = false;
	port->pending_transaction = 0;
}

static int negotiated(struct ic_port *port, const uint8_t *body, uint16_t body_bytes,
		      struct base_error *err)
{
	struct ic_version chosen[2];
	int known = ic_negotiate_decode(body, body_bytes, &framework_versions,
					&services[port->service].versions, chosen, err);

	if (known < 0)
		return known;
	ic_port_abandon(port);
	if (known == 0) {
		port->state = IC_PORT_REFUSED;
		return IC_EVENT_REFUSED;
	}
	port->state = IC_PORT_READY;
	port->framework = chosen[0];
	port->version = chosen[1];
	return IC_EVENT_READY;
}

int ic_port_receive(struct ic_port *port, const uint8_t *bytes, size_t size_bytes,
		    struct ic_answer *ret_answer, struct base_error *err)
{
	struct ic_header header;
	uint16_t type = port->state == IC_PORT_NEGOTIATING ? (uint16_t)IC_TYPE_NEGOTIATE
							   : services[port->service].type;
	int result = ic_header_decode(bytes, size_bytes, &header, err);

	if (result < 0)
		return result;
	if ((header.flags & (IC_FLAG_REQUEST | IC_FLAG_RESPONSE)) != IC_FLAG_RESPONSE)
		return base_fail(err, -EBADMSG, "flags 0x%x are not an answer's",
				 (unsigned)header.flags);
	if (!port->pending)
		return base_fail(err, -EPROTO, "an answer of type %u that nobody waits for",
				 (unsigned)header.type);
	if (header.type != type)
		return base_fail(err, -EPROTO, "type %u, expected %u", (unsigned)header.type,
				 (unsigned)type);
#ifndef GODWIT_MUTANT_IC_TRANSACTION
	if (header.transaction != port->pending_transaction)
		return base_fail(err, -EPROTO, "transaction %u, expected %u",
				 (unsigned)header.transaction, (unsigned)port->pending_transaction);
#endif
	if (port->state == IC_PORT_NEGOTIATING)
		return negotiated(port, bytes + IC_HEADER_BYTES, header.body_bytes, err);
	ic_port_abandon(port);
	*ret_answer = (struct ic_answer){
		.status = header.status,
		.body = bytes + IC_HEADER_BYTES,
		.body_bytes = header.body_bytes,
	};
	return IC_EVENT_ANSWER;
}

void ic_port_encode(const struct ic_port *port, struct base_buffer *out)
{
	base_buffer_u8(out, (uint8_t)port->state);
	base_buffer_u8(out, port->pending);
	base_buffer_u8(out, port->next_transaction);
	base_buffer_u8(out, port->pending_transaction);
	base_buffer_le16(out, port->framework.major);
	base_buffer_le16(out, port->framework.minor);
	base_buffer_le16(out, port->version.major);
	base_buffer_le16(out, port->version.minor);
	base_buffer_le32(out, 0);
}

static bool is_zero(struct ic_version version)
{
	return version.major == 0 && version.minor == 0;
}

static bool versions_fit(const struct ic_port *port)
{
	if (port->state != IC_PORT_READY)
		return is_zero(port->framework) && is_zero(port->version);
	return ic_version_is_offered(&framework_versions, port->framework) &&
	       ic_version_is_offered(&services[port->service].versions, port->version);
}

int ic_port_decode(struct base_reader *in, enum ic_service service, struct ic_port *ret_port,
		   struct base_error *err)
{
	struct ic_port port = { .service = service };
	uint8_t state = base_read_u8(in);
	uint8_t pending = base_read_u8(in);
	uint32_t rest = 0;

	port.next_transaction = base_read_u8(in);
	port.pending_transaction = base_read_u8(in);
	port.framework.major = base_read_le16(in);
	port.framework.minor = base_read_le16(in);
	port.version.major = base_read_le16(in);
	port.version.minor = base_read_le16(in);
	rest = base_read_le32(in);
	if (in->failed)
		return base_fail(err, -EBADMSG, "%s: truncated", ic_service_text(service));
	if (state >= IC_PORT_STATES || pending > 1 || rest != 0)
		return base_fail(err, -EBADMSG, "%s: state %u, request %u, rest 0x%x",
				 ic_service_text(service), (unsigned)state, (unsigned)pending,
				 (unsigned)rest);
	port.state = (enum ic_port_state)state;
	port.pending = pending != 0;
	if ((port.pending && state != IC_PORT_NEGOTIATING && state != IC_PORT_READY) ||
	    (!port.pending && port.pending_transaction != 0))
		return base_fail(err, -EBADMSG, "%s: a request in state %u",
				 ic_service_text(service), (unsigned)state);
	if (!versions_fit(&port))
		return base_fail(err, -EBADMSG, "%s: versions %u.%u and %u.%u in state %u",
				 ic_service_text(service), (unsigned)port.framework.major,
				 (unsigned)port.framework.minor, (unsigned)port.version.major,
				 (unsigned)port.version.minor, (unsigned)state);
	*ret_port = port;
	return 0;
}
