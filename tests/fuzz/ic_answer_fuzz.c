/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of each integration service, negotiation included: whatever comes, a port keeps its
 * invariant, and what is taken is text that ends within its field.
 * Input: 1 byte service, 1 byte operation or index, then the packet.
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/ic/ic_body.h"
#include "hypervisor/ic/ic_port.h"

/* NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static void need(bool condition)
{
	if (!condition)
		abort();
}

static void body(enum ic_service service, uint8_t with, const struct ic_answer *answer)
{
	static struct ic_kvp_item item;
	struct ic_guest_info info = { 0 };

	switch (service) {
	case IC_HEARTBEAT:
		need(ic_heartbeat_decode(answer, with, NULL) <= 0);
		break;
	case IC_KVP:
		if (ic_kvp_decode(answer, with, &item, NULL) < 0)
			return;
		need(memchr(item.key, 0, sizeof(item.key)) != NULL);
		need(memchr(item.value, 0, sizeof(item.value)) != NULL);
		ic_kvp_absorb(&item, &info);
		need(info.fqdn[sizeof(info.fqdn) - 1] == 0);
		need(info.ipv4[sizeof(info.ipv4) - 1] == 0);
		break;
	case IC_VSS:
		if (ic_vss_decode(answer, (enum ic_vss_op)with, NULL) == 0)
			need(answer->body[0] == with);
		break;
	case IC_SHUTDOWN:
	case IC_TIME:
	case IC_SERVICES:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct ic_port port;
	struct ic_answer answer = { 0 };
	struct ic_header header;
	struct ic_version chosen[2];
	const struct ic_versions versions = { { { 3, 0 }, { 1, 0 } }, 2 };

	if (size < 2)
		return 0;
	port = ic_port_new((enum ic_service)(input[0] % IC_SERVICES));
	ic_port_opened(&port);
	ic_port_sent(&port);
	if (ic_header_decode(input + 2, size - 2, &header, NULL) == 0)
		(void)ic_negotiate_decode(input + 2 + IC_HEADER_BYTES, header.body_bytes, &versions,
					  &versions, chosen, NULL);
	if (input[0] >= 128) { /* negotiate */
		int event = ic_port_receive(&port, input + 2, size - 2, &answer, NULL);

		need(event < 0 || event == IC_EVENT_READY || event == IC_EVENT_REFUSED);
		need(port.pending == (event < 0));
		return 0;
	}
	port.state = IC_PORT_READY;
	if (ic_port_receive(&port, input + 2, size - 2, &answer, NULL) < 0) {
		need(port.pending);
		return 0;
	}
	need(!port.pending);
	need(answer.body_bytes <= size - 2 - IC_HEADER_BYTES);
	body(port.service, input[1], &answer);
	return 0;
}
