/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of a controller: docs/hypervisor/storvsp/storvsp.md section 6.  The service is
 * quiesced, or has not begun.
 */
#include "hypervisor/storvsp/storvsp_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct hv_service_section storvsp_section = { .name = "storvsp", .version = 1 };

/* --- save --- */

struct saving {
	struct storvsp_channel *channel;
	struct base_buffer *out;
};

static void save_request(struct base_buffer *out, const struct storvsp_request *request, bool over)
{
	base_buffer_u8(out, over ? 2 : 1);
	base_buffer_u8(out, request->wants_completion);
	base_buffer_le32(out, request->channel->index);
	base_buffer_le64(out, request->trans_id);
	if (over) {
		base_buffer_append(out, request->answer, VSTOR_BYTES);
		return;
	}
	base_buffer_append(out, request->message, VSTOR_BYTES);
	base_buffer_le32(out, request->run_count);
	for (uint32_t i = 0; i < request->run_count; i++) {
		base_buffer_le64(out, request->runs[i].gpa);
		base_buffer_le32(out, request->runs[i].length_bytes);
	}
}

static void save_channel(void *context)
{
	struct saving *saving = context;
	const struct storvsp_list *lists[] = { &saving->channel->parked, &saving->channel->bouncing,
					       &saving->channel->outgoing };

	if (saving->channel->state != STORVSP_OPEN)
		return;
	for (uint32_t i = 0; i < 3; i++) {
#ifdef GODWIT_MUTANT_STORVSP_REPLAY
		if (i == 0)
			continue;
#endif
		for (const struct storvsp_request *at = lists[i]->head; at != NULL; at = at->next)
			save_request(saving->out, at, i == 2);
	}
}

static void save_unit(struct storvsp *storvsp, uint32_t lun, struct base_buffer *out)
{
	const struct storvsp_medium *unit = &storvsp->units[lun];
	struct disk_geometry geometry = { .size_bytes = 0 };

	if (unit->disk != NULL)
		disk_geometry(unit->disk, &geometry);
	base_buffer_u8(out, (uint8_t)unit->kind);
	base_buffer_append(out, unit->id.bytes, sizeof(unit->id.bytes));
	base_buffer_le64(out, geometry.size_bytes);
	base_buffer_le32(out, atomic_load(&storvsp->attention[lun]));
	base_buffer_le32(out, atomic_load(&storvsp->drive[lun]));
}

int storvsp_state_save(struct storvsp *storvsp, struct base_buffer *out, struct base_error *err)
{
	uint64_t luns = 0;

	for (uint32_t i = 0; i < STORVSP_LUNS; i++) {
		if (storvsp->units[i].kind != STORVSP_INVALID)
			luns |= 1ULL << i;
	}
	base_buffer_le32(out, atomic_load(&storvsp->protocol));
	base_buffer_le32(out, atomic_load(&storvsp->version));
	base_buffer_le32(out, atomic_load(&storvsp->sub_count));
	base_buffer_le32(out, atomic_load(&storvsp->tell));
	base_buffer_le64(out, luns);
	for (uint32_t i = 0; i < STORVSP_LUNS; i++) {
		if ((luns >> i & 1) != 0)
			save_unit(storvsp, i, out);
	}
	/* Others are on their way out with the primary one that has closed. */
	for (uint32_t i = 0; i <= atomic_load(&storvsp->sub_count); i++) {
		struct saving saving = { .channel = &storvsp->channels[i], .out = out };

		base_io_call(saving.channel->shard->loop, save_channel, &saving);
	}
	base_buffer_u8(out, 0); /* no more requests */
	return out->failed ? base_fail(err, -ENOMEM, "%s: state", storvsp->name) : 0;
}

/* --- load: one walk, which checks, and which takes when it is told to --- */

struct head {
	uint32_t protocol, version, sub_count, tell;
	uint64_t luns;
};

static int head_read(const struct storvsp *storvsp, struct base_reader *in, struct head *ret_head,
		     struct base_error *err)
{
	struct head head = { .protocol = base_read_le32(in) };

	head.version = base_read_le32(in);
	head.sub_count = base_read_le32(in);
	head.tell = base_read_le32(in);
	head.luns = base_read_le64(in);
	if (in->failed)
		return base_fail(err, -EBADMSG, "state is cut off");
	if (head.protocol >= STORVSP_PROTOCOLS || head.version > UINT16_MAX ||
	    head.tell > (STORVSP_TELL_REMOVE | STORVSP_TELL_ENUMERATE) ||
	    (head.sub_count > 0 && head.protocol == STORVSP_IDLE)) /* a guest may begin again */
		return base_fail(err, -EBADMSG, "protocol state %u, version 0x%x, %u sub-channels",
				 head.protocol, head.version, head.sub_count);
	if (head.sub_count > storvsp->sub_max)
		return base_fail(err, -EINVAL, "%u sub-channels were saved, at most %u here",
				 head.sub_count, storvsp->sub_max);
	*ret_head = head;
	return 0;
}

struct saved_unit {
	uint8_t kind;
	struct disk_guid id;
	uint64_t size_bytes;
	uint32_t attention, drive;
};

static int unit_read(const struct storvsp *storvsp, uint32_t lun, struct base_reader *in,
		     struct saved_unit *ret_unit, struct base_error *err)
{
	const struct storvsp_medium *here = &storvsp->units[lun];
	struct saved_unit unit = { .kind = base_read_u8(in) };

	base_read_bytes(in, unit.id.bytes, sizeof(unit.id.bytes));
	unit.size_bytes = base_read_le64(in);
	unit.attention = base_read_le32(in);
	unit.drive = base_read_le32(in);
	if (in->failed)
		return base_fail(err, -EBADMSG, "state is cut off");
	if (unit.kind == STORVSP_INVALID || unit.kind >= STORVSP_KINDS ||
	    unit.attention > SCSI_ATTENTIONS || unit.drive > STORVSP_DRIVE)
		return base_fail(err, -EBADMSG, "LUN %u: kind %u, attention 0x%x, drive 0x%x", lun,
				 unit.kind, unit.attention, unit.drive);
	if (here->kind != (enum storvsp_kind)unit.kind)
		return base_fail(err, -EINVAL, "LUN %u was saved as a %s, here it is %s", lun,
				 unit.kind == STORVSP_DISK ? "disk" : "DVD drive",
				 here->kind == STORVSP_INVALID ? "missing" : "another kind");
	if (unit.kind == STORVSP_DISK && !disk_guid_equal(&unit.id, &here->id)) {
		char was[DISK_GUID_TEXT_BYTES];
		char is[DISK_GUID_TEXT_BYTES];

		disk_guid_text(&unit.id, was);
		disk_guid_text(&here->id, is);
		return base_fail(err, -EINVAL, "LUN %u was saved with the disk %s, here it is %s",
				 lun, was, is);
	}
	*ret_unit = unit;
	return 0;
}

/* What has changed while it was saved is told like what changes while it runs. */
static void unit_apply(struct storvsp *storvsp, uint32_t lun, const struct saved_unit *unit)
{
	const struct storvsp_medium *here = &storvsp->units[lun];
	struct disk_geometry geometry = { .size_bytes = 0 };
	uint32_t attention = unit->attention;

	if (here->disk != NULL)
		disk_geometry(here->disk, &geometry);
	if (geometry.size_bytes != unit->size_bytes || !disk_guid_equal(&here->id, &unit->id))
		attention |=
			here->kind == STORVSP_DVD ? SCSI_ATTENTION_MEDIUM : SCSI_ATTENTION_CAPACITY;
	atomic_store(&storvsp->attention[lun], attention);
	atomic_store(&storvsp->drive[lun], unit->drive);
	if (attention != unit->attention)
		(void)atomic_fetch_or(&storvsp->tell, STORVSP_TELL_ENUMERATE);
}

static int request_read(const struct storvsp *storvsp, uint8_t kind, struct base_reader *in,
			struct storvsp_request *ret_request, uint32_t *ret_channel,
			struct base_error *err)
{
	struct storvsp_request *request = ret_request;
	uint8_t wants = base_read_u8(in);

	request->wants_completion = wants != 0;
	*ret_channel = base_read_le32(in);
	request->trans_id = base_read_le64(in);
	request->malformed = false;
	request->gone = false;
	request->run_count = 0;
	request->run_bytes = 0;
	request->tries = 0;
	base_read_bytes(in, kind == 2 ? request->answer : request->message, VSTOR_BYTES);
	if (kind == 1)
		request->run_count = base_read_le32(in);
	if (in->failed || kind > 2 || wants > 1 || request->run_count > STORVSP_RUNS)
		return base_fail(err, -EBADMSG, "request of kind %u with %u runs is malformed",
				 kind, request->run_count);
	if (*ret_channel > storvsp->sub_max)
		return base_fail(err, -EBADMSG, "request of channel %u, which there is not",
				 *ret_channel);
	for (uint32_t i = 0; i < request->run_count; i++) {
		request->runs[i].gpa = base_read_le64(in);
		request->runs[i].length_bytes = base_read_le32(in);
		request->run_bytes += request->runs[i].length_bytes;
	}
	if (in->failed)
		return base_fail(err, -EBADMSG, "state is cut off");
	if (kind == 1 && vstor_operation(request->message) != VSTOR_EXECUTE_SRB)
		return base_fail(err, -EBADMSG, "a request that is no command");
	return 0;
}

static int requests_check(const struct storvsp *storvsp, const struct head *head,
			  struct base_reader *in, struct base_error *err)
{
	struct storvsp_request *scratch = calloc(1, sizeof(*scratch));
	uint32_t counts[STORVSP_CHANNELS_MAX] = { 0 };
	uint32_t channel = 0;
	uint8_t kind = 0;
	int rc = 0;

	if (scratch == NULL)
		return base_fail(err, -ENOMEM, "state");
	for (kind = base_read_u8(in); rc == 0 && kind != 0; kind = base_read_u8(in)) {
		rc = request_read(storvsp, kind, in, scratch, &channel, err);
		if (rc == 0 && channel > head->sub_count)
			rc = base_fail(err, -EBADMSG, "a request of channel %u, of %u", channel,
				       head->sub_count);
		if (rc == 0 && ++counts[channel] > STORVSP_REQUESTS)
			rc = base_fail(err, -EBADMSG, "more than %u requests of channel %u",
				       STORVSP_REQUESTS, channel);
	}
	free(scratch);
	if (rc == 0 && (in->failed || base_reader_left(in) != 0))
		rc = base_fail(err, -EBADMSG, "state is cut off, or too long");
	return rc;
}

int storvsp_state_check(const struct storvsp *storvsp, struct base_reader *in,
			struct base_error *err)
{
	struct saved_unit unit;
	struct head head = { .luns = 0 };
	int rc = head_read(storvsp, in, &head, err);

	for (uint32_t i = 0; rc == 0 && i < STORVSP_LUNS; i++) {
		if ((head.luns >> i & 1) != 0)
			rc = unit_read(storvsp, i, in, &unit, err);
	}
	return rc == 0 ? requests_check(storvsp, &head, in, err) : rc;
}

/* Up to the requests. */
static int apply_units(struct storvsp *storvsp, struct base_reader *in, struct head *ret_head,
		       bool apply, struct base_error *err)
{
	int rc = head_read(storvsp, in, ret_head, err);

	for (uint32_t i = 0; rc == 0 && i < STORVSP_LUNS; i++) {
		struct saved_unit unit;
		bool was = (ret_head->luns >> i & 1) != 0;

		if (was)
			rc = unit_read(storvsp, i, in, &unit, err);
		if (rc == 0 && was && apply)
			unit_apply(storvsp, i, &unit);
		if (!was && apply && storvsp->units[i].kind != STORVSP_INVALID)
			(void)atomic_fetch_or(&storvsp->tell, STORVSP_TELL_ENUMERATE);
		/* It may have been there, and the guest has not looked yet. */
		if (!was && apply && (ret_head->tell & STORVSP_TELL_REMOVE) != 0)
			atomic_store(&storvsp->drive[i], STORVSP_VACATED);
	}
	return rc;
}

int storvsp_state_apply(struct storvsp *storvsp, struct base_error *err)
{
	struct base_reader in = base_reader_over(storvsp->saved, storvsp->saved_bytes);
	struct head head = { .luns = 0 };
	int rc = 0;

	atomic_store(&storvsp->tell, 0);
	rc = apply_units(storvsp, &in, &head, true, err);
	if (rc != 0)
		return rc;
	(void)atomic_fetch_or(&storvsp->tell, head.tell);
	atomic_store(&storvsp->protocol, head.protocol);
	atomic_store(&storvsp->version, head.version);
	for (uint32_t i = 1; i <= head.sub_count; i++) {
		rc = storvsp_channel_offer(&storvsp->channels[i], err);
		if (rc != 0)
			return base_fail_within(err, rc, "sub-channel %u", i);
		atomic_store(&storvsp->sub_count, i);
	}
	return 0;
}

/* --- requests back into their channels --- */

struct taking {
	struct storvsp *storvsp;
	struct base_reader *in;
	struct storvsp_channel *channel;
	uint8_t kind;
	struct base_error *err;
	int result;
};

/* A guest that broke its rings has lost its channel, and what it asked for there. */
static void drop_request(struct taking *taking)
{
	struct storvsp_request *scratch = calloc(1, sizeof(*scratch));
	uint32_t index = 0;

	if (scratch == NULL)
		taking->result = base_fail(taking->err, -ENOMEM, "state");
	else
		taking->result = request_read(taking->storvsp, taking->kind, taking->in, scratch,
					      &index, taking->err);
	free(scratch);
}

static void take_request(void *context)
{
	struct taking *taking = context;
	struct storvsp_channel *channel = taking->channel;
	struct storvsp_request *request = NULL;
	uint32_t index = 0;

	if (channel->state == STORVSP_OPEN)
		request = storvsp_list_take(&channel->unused);
	if (channel->state != STORVSP_OPEN && storvsp_channel_is_lost(channel)) {
		drop_request(taking);
		return;
	}
	if (request == NULL) {
		taking->result =
			base_fail(taking->err, -EBADMSG,
				  "requests of channel %u, which is not open", channel->index);
		return;
	}
	taking->result = request_read(taking->storvsp, taking->kind, taking->in, request, &index,
				      taking->err);
	storvsp_list_add(taking->kind == 2 ? &channel->outgoing : &channel->parked, request);
}

int storvsp_state_apply_requests(struct storvsp *storvsp, struct base_error *err)
{
	struct base_reader in = base_reader_over(storvsp->saved, storvsp->saved_bytes);
	struct taking taking = { .storvsp = storvsp, .in = &in, .err = err };
	struct head head = { .luns = 0 };

	taking.result = apply_units(storvsp, &in, &head, false, err);
	for (taking.kind = base_read_u8(&in); taking.result == 0 && taking.kind != 0;
	     taking.kind = base_read_u8(&in)) {
		struct base_reader peek = in;
		uint32_t channel = 0;

		base_read_skip(&peek, 1);
		channel = base_read_le32(&peek);
		base_assert(channel <= storvsp->sub_max); /* checked */
		taking.channel = &storvsp->channels[channel];
		base_io_call(taking.channel->shard->loop, take_request, &taking);
	}
	return taking.result;
}
