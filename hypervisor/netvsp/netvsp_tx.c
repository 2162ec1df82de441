/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of the guest on their way out.  On the queue's loop.
 *
 * A packet of the guest is a run of bytes in pieces: what it put into a section of its send
 * buffer, then what its page ranges name.  In this run RNDIS messages follow one another.  Of each
 * message the envelope and the frame's headers are copied, checked, and sent from the copy; the
 * rest of the frame goes to the TAP device straight from guest memory.
 *
 * The TAP device takes a frame at once or not at all, so nothing of the guest is in flight when
 * its packet is completed.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "hypervisor/netvsp/netvsp_priv.h"

/* A frame of the largest size with its envelope, with each page a piece of its own, twice over. */
#define PIECES_MAX       64u
#define SOURCE_BYTES_MAX (128u << 10)

struct source {
	const struct hv_slat *slat;
	struct iovec pieces[PIECES_MAX];
	uint32_t count;
	uint32_t total_bytes;
};

static int source_add(struct source *source, const uint8_t *data, uint32_t size_bytes)
{
	struct iovec *last = source->count > 0 ? &source->pieces[source->count - 1] : NULL;

	if (size_bytes > SOURCE_BYTES_MAX - source->total_bytes)
		return -ENOSPC;
	source->total_bytes += size_bytes;
	if (last != NULL && (const uint8_t *)last->iov_base + last->iov_len == data) {
		last->iov_len += size_bytes;
		return 0;
	}
	if (source->count == PIECES_MAX)
		return -ENOSPC;
	source->pieces[source->count].iov_base = (void *)(uintptr_t)data;
	source->pieces[source->count].iov_len = size_bytes;
	source->count++;
	return 0;
}

static int add_page(void *context, const struct vmbus_gpa_piece *piece, uint32_t range)
{
	struct source *source = context;
	const uint8_t *data = hv_slat_view(source->slat, piece->gpa, piece->length_bytes);

	(void)range;
	if (data == NULL)
		return -EFAULT;
	return source_add(source, data, piece->length_bytes);
}

static int add_section(struct source *source, const struct netvsp_buffer *send, uint32_t section,
		       uint32_t size_bytes)
{
	struct iovec views[PIECES_MAX];
	int count = 0;

	if (send == NULL || section >= send->section_count || size_bytes > send->section_bytes)
		return -EINVAL;
	if (size_bytes == 0)
		return 0;
	count = vmbus_gpadl_view(send->gpadl, section * send->section_bytes, size_bytes, views,
				 PIECES_MAX);
	for (int i = 0; i < count; i++) {
		const int rc = source_add(source, views[i].iov_base, (uint32_t)views[i].iov_len);

		if (rc < 0)
			return rc;
	}
	return count < 0 ? count : 0;
}

static int source_open(struct source *source, const struct netvsp_queue *queue,
		       const struct vmbus_packet *packet, const struct nvsp_request *request,
		       struct base_error *err)
{
	int rc = 0;

	source->slat = queue->netvsp->options.slat;
	if (request->rndis.section != NVSP_NO_SECTION) {
		rc = add_section(source, queue->send, request->rndis.section,
				 request->rndis.section_bytes);
		if (rc < 0)
			return base_fail(err, rc, "send section %u with %u bytes",
					 request->rndis.section, request->rndis.section_bytes);
	}
	if (packet->type == VMBUS_PACKET_GPA_DIRECT)
		rc = vmbus_gpa_walk(packet, add_page, source);
	if (rc < 0)
		return base_fail(err, rc, "page ranges of an RNDIS packet");
	return 0;
}

/* Copy out; the run holds the bytes (the caller has compared lengths). */
static void source_copy(const struct source *source, uint32_t offset, uint8_t *to,
			uint32_t size_bytes)
{
	for (uint32_t i = 0; i < source->count && size_bytes > 0; i++) {
		const struct iovec *piece = &source->pieces[i];
		uint32_t part = 0;

		if (offset >= piece->iov_len) {
			offset -= (uint32_t)piece->iov_len;
			continue;
		}
		part = (uint32_t)piece->iov_len - offset;
		if (part > size_bytes)
			part = size_bytes;
		memcpy(to, (const uint8_t *)piece->iov_base + offset, part);
		to += part;
		size_bytes -= part;
		offset = 0;
	}
	base_assert(size_bytes == 0);
}

/* The same bytes as pieces; the count. */
static uint32_t source_slice(const struct source *source, uint32_t offset, uint32_t size_bytes,
			     struct iovec ret_pieces[PIECES_MAX])
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < source->count && size_bytes > 0; i++) {
		const struct iovec *piece = &source->pieces[i];
		uint32_t part = 0;

		if (offset >= piece->iov_len) {
			offset -= (uint32_t)piece->iov_len;
			continue;
		}
		part = (uint32_t)piece->iov_len - offset;
		if (part > size_bytes)
			part = size_bytes;
		ret_pieces[count].iov_base = (uint8_t *)piece->iov_base + offset;
		ret_pieces[count].iov_len = part;
		count++;
		size_bytes -= part;
		offset = 0;
	}
	base_assert(size_bytes == 0);
	return count;
}

void netvsp_write(struct netvsp_queue *queue, const struct iovec *pieces, uint32_t count,
		  uint32_t frame_bytes)
{
	const struct netvsp *netvsp = queue->netvsp;
	ssize_t written = -1;

	/* safety: a frame of an owner that is not one any more would mislead switches. */
	if (netvsp_may_send(netvsp) && atomic_load(&netvsp->link_up))
		written = writev(queue->tap_fd, pieces, (int)count);
	if (written < 0) { /* no room there either: as on any wire, it is lost */
		netvsp_count(&queue->tx_dropped, 1);
		return;
	}
	netvsp_count(&queue->tx_frames, 1);
	netvsp_count(&queue->tx_bytes, frame_bytes);
}

/* One frame.  Not 0: the message was malformed. */
static int send_frame(struct netvsp_queue *queue, const struct source *source, uint32_t at,
		      const struct rndis_packet *packet, struct base_error *err)
{
	struct netvsp *netvsp = queue->netvsp;
	struct netvsp_tx_frame *frame = &queue->tx;
	struct netvsp_tx_rules rules = { .mac_spoofing = netvsp->options.mac_spoofing,
					 .mtu = netvsp->options.mtu };
	uint8_t ppis[RNDIS_PPI_BYTES_MAX];
	struct iovec pieces[2 + PIECES_MAX];
	uint32_t count = 2;
	int rc = 0;

	source_copy(source, at + packet->ppi_offset, ppis, packet->ppi_bytes);
	rc = rndis_wishes_decode(ppis, packet->ppi_bytes, &frame->wishes, err);
	if (rc < 0)
		return rc;
	netvsp_mac_unpack(atomic_load(&netvsp->mac), rules.mac);
	frame->frame_bytes = packet->frame_bytes;
	frame->head_bytes = netvsp_tx_head_bytes(packet->frame_bytes, &frame->wishes);
	source_copy(source, at + packet->frame_offset, frame->bytes + NETVSP_VLAN_BYTES,
		    frame->head_bytes);
	rc = netvsp_tx_plan(frame, &rules, err);
	if (rc == -EPERM) {
		netvsp_count(&queue->tx_spoofed, 1);
		netvsp_complain(queue, NETVSP_COMPLAINT_SPOOFED, err);
		return 0; /* lost on the wire, as far as the guest can see */
	}
	if (rc < 0) {
		netvsp_count(&queue->tx_dropped, 1);
		netvsp_complain(queue, NETVSP_COMPLAINT_FRAME, err);
		return 0;
	}
	pieces[0].iov_base = frame->vnet;
	pieces[0].iov_len = NETVSP_VNET_BYTES;
	pieces[1].iov_base = (void *)(uintptr_t)frame->head;
	pieces[1].iov_len = frame->head_send_bytes;
	count += source_slice(source, at + packet->frame_offset + frame->head_bytes,
			      packet->frame_bytes - frame->head_bytes, pieces + 2);
	netvsp_write(queue, pieces, count, packet->frame_bytes);
	return 0;
}

static int send_frames(struct netvsp_queue *queue, const struct source *source,
		       struct base_error *err)
{
	uint8_t head[RNDIS_PACKET_HEAD_BYTES];
	struct rndis_packet packet;
	uint32_t at = 0;
	uint32_t count = 0;
	int rc = 0;

	if (!atomic_load(&queue->netvsp->data_on))
		return base_fail(err, -EPROTO, "a frame before RNDIS is initialised");
	/* What is left of less than a header is padding. */
	while (source->total_bytes - at >= RNDIS_HEADER_BYTES) {
		if (count++ == RNDIS_PACKETS_PER_MESSAGE) /* as it was told */
			return base_fail(err, -EBADMSG, "RNDIS packet: more than %u messages",
					 RNDIS_PACKETS_PER_MESSAGE);
		if (source->total_bytes - at < sizeof(head))
			return base_fail(err, -EBADMSG, "RNDIS packet: %u bytes left",
					 source->total_bytes - at);
		source_copy(source, at, head, sizeof(head));
		rc = rndis_packet_decode(head, source->total_bytes - at, &packet, err);
		if (rc == 0)
			rc = send_frame(queue, source, at, &packet, err);
		if (rc < 0)
			return rc;
		at += packet.message_bytes;
	}
	return 0;
}

enum nvsp_status netvsp_transmit(struct netvsp_queue *queue, const struct vmbus_packet *packet,
				 const struct nvsp_request *request)
{
	struct source source = { .count = 0 };
	struct netvsp *netvsp = queue->netvsp;
	struct base_error why = { 0 };
	uint8_t type[4] = { 0 };
	int rc = source_open(&source, queue, packet, request, &why);

	if (rc == 0 && source.total_bytes < RNDIS_HEADER_BYTES)
		rc = base_fail(&why, -EBADMSG, "RNDIS packet: %u bytes", source.total_bytes);
	if (rc == 0) {
		source_copy(&source, 0, type, sizeof(type));
		if (base_get_le32(type) != RNDIS_PACKET && queue->index == 0) {
			if (source.total_bytes <= sizeof(netvsp->control_bytes)) {
				source_copy(&source, 0, netvsp->control_bytes, source.total_bytes);
				return netvsp_control_request(netvsp, netvsp->control_bytes,
							      source.total_bytes);
			}
			rc = base_fail(&why, -EBADMSG, "RNDIS request: %u bytes",
				       source.total_bytes);
		} else {
			rc = send_frames(queue, &source, &why);
		}
	}
	if (rc == 0)
		return NVSP_STATUS_SUCCESS;
	netvsp_count(&queue->tx_dropped, 1);
	netvsp_complain(queue, NETVSP_COMPLAINT_RNDIS, &why);
	return NVSP_STATUS_BAD_RNDIS;
}
