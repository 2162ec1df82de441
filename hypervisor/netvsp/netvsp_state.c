/* SPDX-License-Identifier: Apache-2.0 */
/* The saved state of a network card: netvsp_state.h. */
#include "hypervisor/netvsp/netvsp_state.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "hypervisor/netvsp/rndis_oid.h"

/* Bits of the first word behind the version. */
#define FLAG_RNDIS_READY 0x01u
#define FLAG_RSS_ON      0x02u
#define FLAG_LINK_SHOWN  0x04u
#define FLAG_TABLE_WAITS 0x08u
#define FLAG_RECEIVE     0x10u
#define FLAG_SEND        0x20u
#define FLAG_SUB_REQUEST 0x40u
#define FLAGS_KNOWN      0x7Fu

static bool is_used(const struct netvsp_state *state, uint32_t section)
{
	return (state->used[section / 64] >> (section % 64) & 1) != 0;
}

/* --- encode --- */

static void encode_buffer(const struct netvsp_state_buffer *buffer, struct base_buffer *out)
{
	base_buffer_le32(out, buffer->gpadl_id);
	base_buffer_le32(out, buffer->id);
	base_buffer_le32(out, buffer->section_bytes);
	base_buffer_le32(out, buffer->section_count);
	base_buffer_le32(out, buffer->shares);
	base_buffer_le32(out, buffer->generation);
}

static uint32_t flags_of(const struct netvsp_control *control)
{
	return (control->rndis_ready ? FLAG_RNDIS_READY : 0) | (control->rss_on ? FLAG_RSS_ON : 0) |
	       (control->link_shown ? FLAG_LINK_SHOWN : 0) |
	       (control->table_waits ? FLAG_TABLE_WAITS : 0) |
	       (control->receive.is_set ? FLAG_RECEIVE : 0) |
	       (control->send.is_set ? FLAG_SEND : 0) |
	       (control->sub_request.is_set ? FLAG_SUB_REQUEST : 0);
}

void netvsp_state_encode(const struct netvsp_state *state, struct base_buffer *out)
{
	const struct netvsp_control *control = &state->control;
	uint32_t used_count = 0;
	uint32_t waiting_count = 0;

	base_buffer_le32(out, control->version);
	base_buffer_le32(out, flags_of(control));
	base_buffer_le32(out, control->ndis_major);
	base_buffer_le32(out, control->ndis_minor);
	base_buffer_le32(out, control->guest_mtu);
	base_buffer_le32(out, control->generation);
	base_buffer_le64(out, control->capabilities);
	base_buffer_le32(out, state->filter);
	base_buffer_le32(out, state->offloads);
	base_buffer_append(out, state->mac, 6);
	base_buffer_le16(out, 0);
	base_buffer_le32(out, control->sub_count);
	if (control->receive.is_set)
		encode_buffer(&control->receive, out);
	if (control->send.is_set)
		encode_buffer(&control->send, out);
	if (control->sub_request.is_set) {
		base_buffer_le64(out, control->sub_request.trans_id);
		base_buffer_le32(out, control->sub_request.count);
	}
	for (uint32_t i = 0; i < NETVSP_QUEUES_MAX; i++)
		waiting_count += state->waiting[i].is_set ? 1 : 0;
	base_buffer_le32(out, waiting_count);
	for (uint32_t i = 0; i < NETVSP_QUEUES_MAX; i++) {
		if (!state->waiting[i].is_set)
			continue;
		base_buffer_le32(out, i);
		base_buffer_le64(out, state->waiting[i].trans_id);
		base_buffer_append(out, state->waiting[i].payload, NVSP_MESSAGE_BYTES);
	}
	base_buffer_le32(out, control->answer_count);
	for (uint32_t i = 0; i < control->answer_count; i++) {
		const struct netvsp_answer *answer =
			&control->answers[(control->answer_first + i) % NETVSP_ANSWERS_MAX];

		base_buffer_le32(out, answer->size_bytes);
		base_buffer_append(out, answer->bytes, answer->size_bytes);
	}
	for (uint32_t i = 0; i < NETVSP_SECTIONS_MAX; i++)
		used_count += is_used(state, i) ? 1 : 0;
	base_buffer_le32(out, used_count);
	for (uint32_t i = 0; i < NETVSP_SECTIONS_MAX; i++)
		if (is_used(state, i))
			base_buffer_le32(out, i);
}

/* --- decode --- */

static int bad(struct base_error *err, const char *what, uint64_t value)
{
	return base_fail(err, -EBADMSG, "network card: %s %" PRIu64, what, value);
}

static int decode_buffer(struct base_reader *in, bool is_receive,
			 struct netvsp_state_buffer *buffer, struct base_error *err)
{
	uint32_t id = 0;

	buffer->is_set = true;
	buffer->is_receive = is_receive;
	buffer->gpadl_id = base_read_le32(in);
	id = base_read_le32(in);
	buffer->id = (uint16_t)id;
	buffer->section_bytes = base_read_le32(in);
	buffer->section_count = base_read_le32(in);
	buffer->shares = base_read_le32(in);
	buffer->generation = base_read_le32(in);
	if (in->failed)
		return bad(err, "cut in a buffer, at", in->offset_bytes);
	if (id > 0xFFFF)
		return bad(err, "buffer id", id);
	if (buffer->section_bytes < RNDIS_RECEIVE_HEAD_BYTES + NETVSP_ANSWER_BYTES_MAX ||
	    buffer->section_bytes > 65536)
		return bad(err, "section bytes", buffer->section_bytes);
	if (buffer->section_count == 0 || buffer->section_count > NETVSP_SECTIONS_MAX)
		return bad(err, "section count", buffer->section_count);
	if (is_receive ? buffer->shares == 0 || buffer->shares > NETVSP_QUEUES_MAX ||
				 buffer->section_count < 2 * buffer->shares
		       : buffer->shares != 0)
		return bad(err, "shares", buffer->shares);
	if (is_receive != (buffer->generation != 0))
		return bad(err, "generation", buffer->generation);
	return 0;
}

static int decode_card(struct base_reader *in, struct netvsp_state *state, uint32_t *ret_flags,
		       struct base_error *err)
{
	struct netvsp_control *control = &state->control;
	uint32_t flags = 0;

	control->version = base_read_le32(in);
	flags = base_read_le32(in);
	control->rndis_ready = (flags & FLAG_RNDIS_READY) != 0;
	control->rss_on = (flags & FLAG_RSS_ON) != 0;
	control->link_shown = (flags & FLAG_LINK_SHOWN) != 0;
	control->table_waits = (flags & FLAG_TABLE_WAITS) != 0;
	control->ndis_major = base_read_le32(in);
	control->ndis_minor = base_read_le32(in);
	control->guest_mtu = base_read_le32(in);
	control->generation = base_read_le32(in);
	control->capabilities = base_read_le64(in);
	state->filter = base_read_le32(in);
	state->offloads = base_read_le32(in);
	base_read_bytes(in, state->mac, 6);
	if (base_read_le16(in) != 0)
		return bad(err, "reserved bytes at", in->offset_bytes);
	control->sub_count = base_read_le32(in);
	if (in->failed)
		return bad(err, "cut at", in->offset_bytes);
	if ((flags & ~FLAGS_KNOWN) != 0)
		return bad(err, "flags", flags);
	if (control->version != NVSP_VERSION_NONE &&
	    nvsp_version_choose(control->version, control->version) == NVSP_VERSION_NONE)
		return bad(err, "NVSP version", control->version);
	if (control->version == NVSP_VERSION_NONE &&
	    ((flags & ~FLAG_LINK_SHOWN) != 0 || control->sub_count != 0))
		return bad(err, "set up without a version, flags", flags);
	if ((state->filter & ~RNDIS_FILTER_KNOWN) != 0)
		return bad(err, "filter", state->filter);
	if (state->filter != 0 && !control->rndis_ready)
		return bad(err, "without RNDIS, filter", state->filter);
	if ((state->offloads & ~RNDIS_OFFLOAD_KNOWN) != 0)
		return bad(err, "offloads", state->offloads);
	if ((state->mac[0] & 1) != 0)
		return bad(err, "group address", state->mac[0]);
	if (control->sub_count >= NETVSP_QUEUES_MAX)
		return bad(err, "sub-channels", control->sub_count);
	if (control->sub_count != 0 && (flags & FLAG_SUB_REQUEST) != 0)
		return bad(err, "a request beside sub-channels", control->sub_count);
	if (control->sub_count == 0 && control->table_waits)
		return bad(err, "a table for sub-channels", 0);
	*ret_flags = flags;
	return 0;
}

static int decode_waiting(struct base_reader *in, struct netvsp_state *state,
			  struct base_error *err)
{
	const uint32_t count = base_read_le32(in);
	uint32_t next = 0;

	if (in->failed || count > NETVSP_QUEUES_MAX)
		return bad(err, "completions", count);
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t queue = base_read_le32(in);
		struct netvsp_completion *waiting = NULL;

		if (in->failed || queue < next || queue > state->control.sub_count)
			return bad(err, "completion of queue", queue);
		next = queue + 1;
		waiting = &state->waiting[queue];
		waiting->is_set = true;
		waiting->trans_id = base_read_le64(in);
		base_read_bytes(in, waiting->payload, NVSP_MESSAGE_BYTES);
	}
	return 0;
}

static int decode_answers(struct base_reader *in, struct netvsp_state *state,
			  struct base_error *err)
{
	struct netvsp_control *control = &state->control;

	control->answer_count = base_read_le32(in);
	if (in->failed || control->answer_count > NETVSP_ANSWERS_MAX)
		return bad(err, "answers", control->answer_count);
	for (uint32_t i = 0; i < control->answer_count; i++) {
		struct netvsp_answer *answer = &control->answers[i];

		answer->size_bytes = base_read_le32(in);
		if (in->failed || answer->size_bytes < RNDIS_HEADER_BYTES ||
		    answer->size_bytes > NETVSP_ANSWER_BYTES_MAX)
			return bad(err, "bytes of an answer", answer->size_bytes);
		base_read_bytes(in, answer->bytes, answer->size_bytes);
	}
	return 0;
}

static int decode_used(struct base_reader *in, struct netvsp_state *state, struct base_error *err)
{
	const struct netvsp_state_buffer *receive = &state->control.receive;
	const uint32_t limit = receive->is_set ? receive->section_count : 0;
	const uint32_t count = base_read_le32(in);
	uint32_t next = 0;

	if (in->failed || count > limit)
		return bad(err, "sections with the guest", count);
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t section = base_read_le32(in);

		if (in->failed || section < next || section >= limit)
			return bad(err, "section", section);
		next = section + 1;
		state->used[section / 64] |= 1ULL << (section % 64);
	}
	return 0;
}

int netvsp_state_decode(struct base_reader *in, struct netvsp_state *ret_state,
			struct base_error *err)
{
	struct netvsp_control *control = &ret_state->control;
	uint32_t flags = 0;
	int rc = 0;

	memset(ret_state, 0, sizeof(*ret_state));
	rc = decode_card(in, ret_state, &flags, err);
	if (rc == 0 && (flags & FLAG_RECEIVE) != 0)
		rc = decode_buffer(in, true, &control->receive, err);
	if (rc == 0 && (flags & FLAG_SEND) != 0)
		rc = decode_buffer(in, false, &control->send, err);
	if (rc == 0 && (flags & FLAG_SUB_REQUEST) != 0) {
		control->sub_request.is_set = true;
		control->sub_request.trans_id = base_read_le64(in);
		control->sub_request.count = base_read_le32(in);
		if (in->failed || control->sub_request.count == 0 ||
		    control->sub_request.count >= NETVSP_QUEUES_MAX)
			rc = bad(err, "sub-channels asked for", control->sub_request.count);
	}
	if (rc == 0)
		rc = decode_waiting(in, ret_state, err);
	if (rc == 0)
		rc = decode_answers(in, ret_state, err);
	if (rc == 0)
		rc = decode_used(in, ret_state, err);
	if (rc == 0 && (in->failed || base_reader_left(in) != 0))
		rc = bad(err, "cut, or bytes behind it:", base_reader_left(in));
	return rc;
}
