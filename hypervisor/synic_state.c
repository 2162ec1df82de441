/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of the SynIC: section "synic", docs/hypervisor/hyperv.md.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/synic_parts_priv.h"

#define PAGE_MASK (~(uint64_t)(HV_PAGE_BYTES - 1))

static void save_queue(const struct synic_queue *queue, struct base_buffer *out)
{
	base_buffer_le32(out, queue->count);
	for (uint32_t i = 0; i < queue->count; i++) {
		const struct hv_message *message =
			&queue->messages[(queue->first + i) % HV_SYNIC_QUEUE_MAX];

		base_buffer_le32(out, message->type);
		base_buffer_le32(out, message->size_bytes);
		base_buffer_le64(out, message->sender);
		base_buffer_append(out, message->payload, message->size_bytes);
	}
}

void hv_synic_save(struct hv_synic *synic, struct base_buffer *out)
{
	base_buffer_le32(out, synic->vp_count);
	for (uint32_t i = 0; i < synic->vp_count; i++) {
		struct synic_vp *vp = &synic->vps[i];
		BASE_LOCKED(&vp->lock);

		base_buffer_le64(out, vp->control);
		base_buffer_le64(out, vp->siefp);
		base_buffer_le64(out, vp->simp);
		for (uint32_t k = 0; k < HV_SINTS; k++)
			base_buffer_le64(out, vp->sint[k]);
		for (uint32_t k = 0; k < HV_SINTS; k++)
			save_queue(&vp->queues[k], out);
	}
}

static int load_queue(struct base_reader *in, struct synic_queue *queue, struct base_error *err)
{
	uint32_t count = base_read_le32(in);

	if (in->failed || count > HV_SYNIC_QUEUE_MAX)
		return base_fail(err, -EBADMSG, "%" PRIu32 " messages wait, expected at most %u",
				 count, HV_SYNIC_QUEUE_MAX);
	for (uint32_t i = 0; i < count; i++) {
		struct hv_message *message = &queue->messages[i];

		message->type = base_read_le32(in);
		message->size_bytes = base_read_le32(in);
		message->sender = base_read_le64(in);
		if (message->size_bytes > HV_MESSAGE_PAYLOAD_BYTES || message->type == 0)
			return base_fail(err, -EBADMSG,
					 "message of type %" PRIu32 ", %" PRIu32
					 " bytes: expected a type and at most %u bytes",
					 message->type, message->size_bytes,
					 HV_MESSAGE_PAYLOAD_BYTES);
		base_read_bytes(in, message->payload, message->size_bytes);
	}
	queue->first = 0;
	queue->count = count;
	return in->failed ? base_fail(err, -EBADMSG, "truncated") : 0;
}

static int check_page(const struct hv_synic *synic, const char *name, uint64_t value,
		      struct base_error *err)
{
	if ((value & HV_SYNIC_ENABLE) != 0 &&
	    hv_slat_view(synic->slat, value & PAGE_MASK, HV_PAGE_BYTES) == NULL)
		return base_fail(err, -EBADMSG, "%s 0x%" PRIx64 ": expected an address in RAM",
				 name, value);
	return 0;
}

static int load_vp(const struct hv_synic *synic, struct base_reader *in, struct synic_vp *vp,
		   struct base_error *err)
{
	int r;

	vp->control = base_read_le64(in);
	vp->siefp = base_read_le64(in);
	vp->simp = base_read_le64(in);
	for (uint32_t i = 0; i < HV_SINTS; i++)
		vp->sint[i] = base_read_le64(in);
	if (in->failed)
		return base_fail(err, -EBADMSG, "truncated");
	for (uint32_t i = 0; i < HV_SINTS; i++)
		if (!hv_synic_sint_is_sane(vp->sint[i]))
			return base_fail(err, -EBADMSG,
					 "SINT%" PRIu32 " 0x%" PRIx64
					 ": expected no AutoEOI, and masked or a vector of 16 on",
					 i, vp->sint[i]);
	r = check_page(synic, "SIEFP", vp->siefp, err);
	if (r >= 0)
		r = check_page(synic, "SIMP", vp->simp, err);
	for (uint32_t i = 0; i < HV_SINTS && r >= 0; i++)
		r = load_queue(in, &vp->queues[i], err);
	return r;
}

static void take_over(struct synic_vp *to, const struct synic_vp *from)
{
	BASE_LOCKED(&to->lock);

	to->control = from->control;
	to->siefp = from->siefp;
	to->simp = from->simp;
	memcpy(to->sint, from->sint, sizeof(to->sint));
	memcpy(to->queues, from->queues, sizeof(to->queues));
}

int hv_synic_load(struct hv_synic *synic, uint32_t version, struct base_reader *in,
		  struct base_error *err)
{
	BASE_FREE struct synic_vp *vps = NULL;
	uint32_t count;

	if (version != HV_SYNIC_VERSION)
		return base_fail(err, -ENOTSUP, "version %" PRIu32 ", expected %u", version,
				 HV_SYNIC_VERSION);
	count = base_read_le32(in);
	if (in->failed || count != synic->vp_count)
		return base_fail(err, -EBADMSG, "%" PRIu32 " processors, expected %" PRIu32, count,
				 synic->vp_count);
	vps = calloc(count, sizeof(*vps));
	if (vps == NULL)
		return base_fail(err, -ENOMEM, "SynIC of %" PRIu32 " processors", count);
	for (uint32_t i = 0; i < count; i++) {
		int r = load_vp(synic, in, &vps[i], err);

		if (r < 0)
			return base_fail_within(err, r, "processor %" PRIu32, i);
	}
	for (uint32_t i = 0; i < count; i++)
		take_over(&synic->vps[i], &vps[i]);
	return 0;
}
