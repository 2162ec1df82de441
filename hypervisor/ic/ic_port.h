/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One service's side of its channel as a state machine: the host speaks first, negotiates, then
 * has one request under way at most.  A value without pointers; pure.
 *
 * closed -> negotiating -> ready; or refused: the guest knows no version.  Any -> closed.
 *
 * Spec: docs/hypervisor/ic/ic.md.
 */
#ifndef HYPERVISOR_IC_IC_PORT_H
#define HYPERVISOR_IC_IC_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "hypervisor/ic/ic_message.h"

enum ic_service {
	IC_HEARTBEAT,
	IC_SHUTDOWN,
	IC_TIME,
	IC_KVP,
	IC_VSS,
	IC_SERVICES
};

enum ic_port_state {
	IC_PORT_CLOSED, /* values as saved */
	IC_PORT_NEGOTIATING,
	IC_PORT_READY,
	IC_PORT_REFUSED,
	IC_PORT_STATES
};

struct ic_port {
	enum ic_service service;
	enum ic_port_state state;
	bool pending; /* a request is under way: a negotiation, or one of the service */
	uint8_t next_transaction;
	uint8_t pending_transaction;
	struct ic_version framework;
	struct ic_version version;
};

#define IC_BODY_BYTES_MAX    2580u
#define IC_MESSAGE_BYTES_MAX (IC_HEADER_BYTES + IC_BODY_BYTES_MAX)

struct ic_port ic_port_new(enum ic_service service);
void ic_port_opened(struct ic_port *port);
void ic_port_closed(struct ic_port *port);

/* The message to send now; counts as sent once ic_port_sent() is called.  The negotiation has no
 * body of the caller's; a request's body is at @message + IC_HEADER_BYTES.  Nothing is pending.
 * Return: bytes of the message. */
size_t ic_port_negotiate(const struct ic_port *port, uint8_t message[IC_MESSAGE_BYTES_MAX]);
size_t ic_port_request(const struct ic_port *port, uint16_t body_bytes, uint8_t *message);
void ic_port_sent(struct ic_port *port);
/* The request under way is given up: its answer, if it comes, is not taken. */
void ic_port_abandon(struct ic_port *port);

enum ic_event {
	IC_EVENT_INVALID,
	IC_EVENT_READY,   /* negotiated */
	IC_EVENT_REFUSED, /* no version in common */
	IC_EVENT_ANSWER,  /* of the service */
	IC_EVENTS
};

struct ic_answer {
	uint32_t status;
	const uint8_t *body; /* in the caller's bytes */
	uint16_t body_bytes;
};

/* What the guest sent, @bytes: an enum ic_event, and @ret_answer for IC_EVENT_ANSWER: the request
 * is not under way any more.  -EBADMSG malformed; -EPROTO not the answer of the request under way;
 * then nothing has changed. */
BASE_MUST_CHECK int ic_port_receive(struct ic_port *port, const uint8_t *bytes, size_t size_bytes,
				    struct ic_answer *ret_answer, struct base_error *err);

/* One record of the saved state, 16 bytes. */
#define IC_PORT_RECORD_BYTES 16u
void ic_port_encode(const struct ic_port *port, struct base_buffer *out);
BASE_MUST_CHECK int ic_port_decode(struct base_reader *in, enum ic_service service,
				   struct ic_port *ret_port, struct base_error *err);

const char *ic_service_text(enum ic_service service);

#endif
