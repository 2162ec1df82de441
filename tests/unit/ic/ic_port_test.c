/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/ic/ic_body.h"
#include "hypervisor/ic/ic_port.h"

static uint8_t message[IC_MESSAGE_BYTES_MAX];
static struct ic_port port;
static struct ic_answer answer;

static int receive(size_t size_bytes)
{
	struct ic_port before = port;
	struct base_error err = { 0 };
	int result = ic_port_receive(&port, message, size_bytes, &answer, &err);

	if (result < 0) { /* nothing has changed */
		cr_assert_eq(before.state, port.state);
		cr_assert_eq(before.pending, port.pending);
		cr_assert_eq(before.pending_transaction, port.pending_transaction);
		cr_assert_eq(err.code, result);
	}
	return result;
}

static size_t negotiate(enum ic_service service)
{
	size_t size_bytes = 0;

	port = ic_port_new(service);
	ic_port_opened(&port);
	size_bytes = ic_port_negotiate(&port, message);
	ic_port_sent(&port);
	return size_bytes;
}

static int choose(size_t size_bytes, struct ic_version framework, struct ic_version version)
{
	base_put_le16(message + 18, 16);
	message[25] = IC_FLAG_TRANSACTION | IC_FLAG_RESPONSE;
	base_put_le16(message + 28, 1);
	base_put_le16(message + 30, 1);
	base_put_le16(message + 36, framework.major);
	base_put_le16(message + 38, framework.minor);
	base_put_le16(message + 40, version.major);
	base_put_le16(message + 42, version.minor);
	return receive(size_bytes);
}

Test(ic_port, every_version_that_is_offered_can_be_chosen)
{
	uint32_t seen = 0;

	for (enum ic_service service = 0; service < IC_SERVICES; service++) {
		for (uint16_t major = 0; major < 9; major++) {
			for (uint16_t minor = 0; minor < 4; minor++) {
				size_t size = negotiate(service);
				uint16_t count = base_get_le16(message + 30);
				bool offered = false;

				cr_assert_eq(size, IC_HEADER_BYTES + 8u + 4u * (2u + count));
				cr_assert_eq(base_get_le16(message + 18), size - IC_HEADER_BYTES);
				cr_assert_eq(base_get_le32(message + 4), size - 8);
				for (uint32_t i = 0; i < count; i++)
					offered |= base_get_le16(message + 44 + 4 * i) == major &&
						   base_get_le16(message + 46 + 4 * i) == minor;
				cr_assert_eq(choose(size, (struct ic_version){ 3, 0 },
						    (struct ic_version){ major, minor }),
					     offered ? (int)IC_EVENT_READY : -EBADMSG);
				seen += offered;
			}
		}
	}
	cr_assert_eq(seen, 2 + 4 + 3 + 3 + 1);
}

Test(ic_port, framework_versions)
{
	size_t size = negotiate(IC_SHUTDOWN);

	cr_assert_eq(choose(size, (struct ic_version){ 2, 0 }, (struct ic_version){ 3, 2 }),
		     -EBADMSG);
	cr_assert_eq(choose(size, (struct ic_version){ 1, 0 }, (struct ic_version){ 3, 2 }),
		     IC_EVENT_READY);
	cr_assert_eq(port.framework.major, 1);
	cr_assert_eq(port.version.minor, 2);
}

Test(ic_port, no_version_in_common)
{
	size_t size = negotiate(IC_VSS);

	message[25] = 5;
	base_put_le16(message + 28, 0);
	base_put_le16(message + 30, 1);
	cr_assert_eq(receive(size), -EBADMSG);
	base_put_le16(message + 30, 0);
	cr_assert_eq(receive(size), IC_EVENT_REFUSED);
	cr_assert_eq(port.state, IC_PORT_REFUSED);
	cr_assert_eq(receive(size), -EPROTO);
}

Test(ic_port, hostile_answers_change_nothing)
{
	size_t size = negotiate(IC_HEARTBEAT);

	cr_assert_eq(receive(size), -EBADMSG); /* a request */
	message[25] = 7;
	cr_assert_eq(receive(size), -EBADMSG);
	message[25] = 5;
	for (size_t short_bytes = 0; short_bytes < IC_HEADER_BYTES; short_bytes++)
		cr_assert_eq(receive(short_bytes), -EBADMSG);
	base_put_le16(message + 18, (uint16_t)(size - IC_HEADER_BYTES + 1));
	cr_assert_eq(receive(size), -EBADMSG);
	base_put_le16(message + 18, 15); /* too short for a choice */
	cr_assert_eq(receive(size), -EBADMSG);
	base_put_le16(message + 18, 16);
	message[12] = IC_TYPE_HEARTBEAT;
	cr_assert_eq(receive(size), -EPROTO);
	message[12] = IC_TYPE_NEGOTIATE;
	message[24]++;
	cr_assert_eq(receive(size), -EPROTO);
	message[24]--;
	base_put_le16(message + 28, 2);
	cr_assert_eq(receive(size), -EBADMSG);
	cr_assert_eq(choose(size, (struct ic_version){ 3, 0 }, (struct ic_version){ 3, 0 }),
		     IC_EVENT_READY);
}

Test(ic_port, one_request_one_answer)
{
	size_t size = negotiate(IC_HEARTBEAT);

	cr_assert_eq(choose(size, (struct ic_version){ 3, 0 }, (struct ic_version){ 3, 0 }),
		     IC_EVENT_READY);
	for (uint32_t i = 0; i < 600; i++) { /* numbers wrap */
		size = ic_port_request(&port, ic_heartbeat_encode(i, message + IC_HEADER_BYTES),
				       message);
		ic_port_sent(&port);
		message[25] = 5;
		cr_assert_eq(receive(size), IC_EVENT_ANSWER);
		cr_assert_eq(ic_heartbeat_decode(&answer, i, NULL), 0);
		cr_assert_eq(receive(size), -EPROTO); /* twice */
	}
	size = ic_port_request(&port, 8, message);
	ic_port_sent(&port);
	ic_port_abandon(&port);
	message[25] = 5;
	cr_assert_eq(receive(size), -EPROTO); /* late */
}

Test(ic_port, records_are_canonical_and_checked)
{
	struct base_buffer buffer = { 0 };
	struct ic_port again;
	struct base_reader in;
	size_t size = negotiate(IC_TIME);

	ic_port_encode(&port, &buffer);
	cr_assert_eq(choose(size, (struct ic_version){ 3, 0 }, (struct ic_version){ 4, 0 }),
		     IC_EVENT_READY);
	ic_port_encode(&port, &buffer);
	cr_assert_eq(buffer.size_bytes, 2 * IC_PORT_RECORD_BYTES);
	in = base_reader_over(buffer.data, buffer.size_bytes);
	cr_assert_eq(ic_port_decode(&in, IC_TIME, &again, NULL), 0);
	cr_assert(again.pending);
	cr_assert_eq(ic_port_decode(&in, IC_TIME, &again, NULL), 0);
	cr_assert_eq(again.version.major, 4);
	cr_assert_eq(ic_port_decode(&in, IC_TIME, &again, NULL), -EBADMSG); /* truncated */
	for (size_t i = 0; i < IC_PORT_RECORD_BYTES; i++) {
		uint8_t *bytes = buffer.data + IC_PORT_RECORD_BYTES;
		uint8_t kept = bytes[i];

		bytes[i] ^= 0x81;
		in = base_reader_over(bytes, IC_PORT_RECORD_BYTES);
		cr_assert_eq(ic_port_decode(&in, IC_TIME, &again, NULL), i == 2 ? 0 : -EBADMSG,
			     "byte %zu", i);
		bytes[i] = kept;
	}
	base_buffer_fini(&buffer);
}
