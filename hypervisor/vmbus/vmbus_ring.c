/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing a ring: vmbus_ring.h.
 */
#include "hypervisor/vmbus/vmbus_ring.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define WORD 8u /* all lengths and indices are multiples */

/* --- accesses to shared memory --- */

static void step(const struct vmbus_ring *ring, enum vmbus_ring_step which)
{
	if (ring->hook != NULL)
		ring->hook(ring->hook_context, which);
}

static uint32_t header_load(const struct vmbus_ring *ring, uint32_t offset,
			    enum vmbus_ring_step which)
{
	uint32_t value;

	step(ring, which);
	/* The view is of a page: aligned. */
	value = __atomic_load_n((const uint32_t *)(const void *)(ring->header + offset),
				__ATOMIC_ACQUIRE);
	return le32toh(value);
}

static void header_store(struct vmbus_ring *ring, uint32_t offset, uint32_t value,
			 enum vmbus_ring_step which)
{
	HV_SLAT_WINDOW window = { .data = NULL };

	step(ring, which);
	if (hv_slat_window_begin(ring->slat, ring->gpas[0], VMBUS_RING_HEADER_BYTES, &window) < 0)
		base_bug("a ring's header is not RAM any more");
	__atomic_store_n((uint32_t *)(void *)(window.data + offset), htole32(value),
			 __ATOMIC_RELEASE);
}

/* Stores before it are visible to the guest before loads after it are made.  The marking of a
 * header's page happens to be one too, but nothing here may lean on that. */
static void barrier(const struct vmbus_ring *ring)
{
#ifndef GODWIT_MUTANT_VMBUS_BARRIER
	step(ring, VMBUS_STEP_BARRIER);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#else
	(void)ring;
#endif
}

static bool index_is_good(const struct vmbus_ring *ring, uint32_t index)
{
	return index < ring->size_bytes && index % WORD == 0;
}

static uint32_t advance(const struct vmbus_ring *ring, uint32_t index, uint32_t bytes)
{
	uint64_t next = (uint64_t)index + bytes;

	return (uint32_t)(next >= ring->size_bytes ? next - ring->size_bytes : next);
}

/* Bytes from @from up to @to, going round. */
static uint32_t distance(const struct vmbus_ring *ring, uint32_t from, uint32_t to)
{
	return to >= from ? to - from : ring->size_bytes - (from - to);
}

static uint64_t data_gpa(const struct vmbus_ring *ring, uint32_t index, uint32_t *ret_in_page)
{
	uint32_t in_page = index % (uint32_t)HV_PAGE_BYTES;

	*ret_in_page = (uint32_t)HV_PAGE_BYTES - in_page;
	return ring->gpas[1 + index / (uint32_t)HV_PAGE_BYTES] + in_page;
}

static void copy_out(const struct vmbus_ring *ring, uint32_t index, uint8_t *to, uint32_t bytes)
{
	while (bytes > 0) {
		uint32_t piece;
		uint64_t gpa = data_gpa(ring, index, &piece);

		if (piece > bytes)
			piece = bytes;
		if (hv_slat_read(ring->slat, gpa, to, piece) < 0)
			base_bug("a ring's page is not RAM any more");
		to += piece;
		bytes -= piece;
		index = advance(ring, index, piece);
	}
}

/* --- life --- */

int vmbus_ring_init(struct vmbus_ring *ring, struct hv_slat *slat, const uint64_t *page_gpas,
		    uint32_t page_count)
{
	uint64_t *gpas = NULL;

	*ring = (struct vmbus_ring){ .slat = slat };
	if (page_count < 2 || page_count > UINT32_MAX / HV_PAGE_BYTES)
		return -EINVAL;
	for (uint32_t i = 0; i < page_count; i++)
		if (page_gpas[i] % HV_PAGE_BYTES != 0 ||
		    hv_slat_view(slat, page_gpas[i], HV_PAGE_BYTES) == NULL)
			return -EFAULT;
	gpas = calloc(page_count, sizeof(*gpas));
	if (gpas == NULL)
		return -ENOMEM;
	memcpy(gpas, page_gpas, page_count * sizeof(*gpas));
	ring->gpas = gpas;
	ring->page_count = page_count;
	ring->size_bytes = (page_count - 1) * (uint32_t)HV_PAGE_BYTES;
	ring->header = hv_slat_view(slat, gpas[0], HV_PAGE_BYTES);
	return 0;
}

void vmbus_ring_fini(struct vmbus_ring *ring)
{
	free(ring->gpas);
	*ring = (struct vmbus_ring){ .slat = NULL };
}

int vmbus_ring_begin_reader(struct vmbus_ring *ring)
{
	uint32_t index = header_load(ring, VMBUS_RING_READ_INDEX, VMBUS_STEP_LOAD_READ);

	if (!index_is_good(ring, index))
		return -EBADMSG;
	ring->index = index;
	ring->published = index;
	ring->masked = header_load(ring, VMBUS_RING_MASK, VMBUS_STEP_LOAD_MASK) != 0;
	return 0;
}

int vmbus_ring_begin_writer(struct vmbus_ring *ring)
{
	uint32_t index = header_load(ring, VMBUS_RING_WRITE_INDEX, VMBUS_STEP_LOAD_WRITE);

	if (!index_is_good(ring, index))
		return -EBADMSG;
	ring->index = index;
	ring->published = index;
	ring->pending = header_load(ring, VMBUS_RING_PENDING, VMBUS_STEP_LOAD_PENDING);
	header_store(ring, VMBUS_RING_FEATURES, VMBUS_RING_FEAT_PENDING, VMBUS_STEP_INVALID);
	return 0;
}

/* --- reader --- */

/* Bytes that wait for us, or -EBADMSG. */
static int64_t bytes_to_read(const struct vmbus_ring *ring)
{
	uint32_t index = header_load(ring, VMBUS_RING_WRITE_INDEX, VMBUS_STEP_LOAD_WRITE);

	if (!index_is_good(ring, index))
		return -EBADMSG;
	return distance(ring, ring->index, index);
}

int vmbus_ring_get(struct vmbus_ring *ring, uint8_t *to, uint32_t capacity, uint32_t *ret_bytes)
{
	int64_t waiting = bytes_to_read(ring);
	uint32_t offset = 0;
	uint32_t bytes = 0;

	if (waiting <= 0)
		return (int)waiting;
	if (waiting < VMBUS_PACKET_HEAD_BYTES + VMBUS_PACKET_TAIL_BYTES ||
	    capacity < VMBUS_PACKET_HEAD_BYTES)
		return -EBADMSG;
	copy_out(ring, ring->index, to, VMBUS_PACKET_HEAD_BYTES);
	offset = base_get_le16(to + 2) * WORD;
	bytes = base_get_le16(to + 4) * WORD;
	if (bytes < VMBUS_PACKET_HEAD_BYTES || bytes > capacity ||
	    bytes + VMBUS_PACKET_TAIL_BYTES > waiting || offset < VMBUS_PACKET_HEAD_BYTES ||
	    offset > bytes)
		return -EBADMSG;
	/* Not the descriptor again: it has been checked. */
	copy_out(ring, advance(ring, ring->index, VMBUS_PACKET_HEAD_BYTES),
		 to + VMBUS_PACKET_HEAD_BYTES, bytes - VMBUS_PACKET_HEAD_BYTES);
	ring->index = advance(ring, ring->index, bytes + VMBUS_PACKET_TAIL_BYTES);
	ring->packet_count++;
	*ret_bytes = bytes;
	return 1;
}

void vmbus_ring_mask(struct vmbus_ring *ring)
{
	if (ring->masked)
		return;
	header_store(ring, VMBUS_RING_MASK, 1, VMBUS_STEP_MASK);
	ring->masked = true;
}

/* After our index was published: does the writer wait for room that it has now? */
static bool writer_has_room(const struct vmbus_ring *ring)
{
	uint32_t pending = header_load(ring, VMBUS_RING_PENDING, VMBUS_STEP_LOAD_PENDING);
	int64_t used = 0;

	if (pending == 0)
		return false;
	used = bytes_to_read(ring);
	return used >= 0 && ring->size_bytes - (uint32_t)used >= pending;
}

int vmbus_ring_end_read(struct vmbus_ring *ring, bool recheck, bool *ret_room)
{
	bool published = ring->index != ring->published;
	bool unmasked = ring->masked;
	int64_t waiting = 0;

	*ret_room = false;
	if (published) {
		header_store(ring, VMBUS_RING_READ_INDEX, ring->index, VMBUS_STEP_STORE_READ);
		ring->published = ring->index;
	}
	if (unmasked) {
		header_store(ring, VMBUS_RING_MASK, 0, VMBUS_STEP_UNMASK);
		ring->masked = false;
	}
	if (published || unmasked)
		barrier(ring);
	if (published)
		*ret_room = writer_has_room(ring);
#ifdef GODWIT_MUTANT_VMBUS_RECHECK
	recheck = false;
#endif
	if (!recheck)
		return 0;
	waiting = bytes_to_read(ring);
	if (waiting < 0)
		return -EBADMSG;
	return waiting > 0 ? 1 : 0;
}

/* --- writer --- */

/* A place in the data area, with the window of the page it is in. */
struct cursor {
	struct vmbus_ring *ring;
	uint32_t index;
	struct hv_slat_window window;
	uint32_t in_window; /* bytes of it written so far */
};

static void cursor_copy(struct cursor *cursor, const void *from, uint32_t bytes)
{
	const uint8_t *next = from;

	while (bytes > 0) {
		uint32_t room = 0;
		uint32_t piece = bytes;

		if (cursor->window.data == NULL) {
			uint64_t gpa = data_gpa(cursor->ring, cursor->index, &room);

			if (hv_slat_window_begin(cursor->ring->slat, gpa, room, &cursor->window) <
			    0)
				base_bug("a ring's page is not RAM any more");
			cursor->in_window = 0;
		}
		room = (uint32_t)cursor->window.size_bytes - cursor->in_window;
		if (piece > room)
			piece = room;
		memcpy(cursor->window.data + cursor->in_window, next, piece);
		cursor->in_window += piece;
		cursor->index = advance(cursor->ring, cursor->index, piece);
		if (piece == room)
			hv_slat_window_end(&cursor->window);
		next += piece;
		bytes -= piece;
	}
}

/* Bytes that are free, or -EBADMSG. */
static int64_t bytes_free(const struct vmbus_ring *ring)
{
	uint32_t index = header_load(ring, VMBUS_RING_READ_INDEX, VMBUS_STEP_LOAD_READ);

	if (!index_is_good(ring, index))
		return -EBADMSG;
	return ring->size_bytes - distance(ring, index, ring->index);
}

static void publish_write(struct vmbus_ring *ring)
{
	if (ring->index == ring->published)
		return;
	header_store(ring, VMBUS_RING_WRITE_INDEX, ring->index, VMBUS_STEP_STORE_WRITE);
	ring->published = ring->index;
	ring->unannounced = true;
}

/* No room: say so where the reader looks after it has made some, and look again, because it may
 * just have done that.  What was written so far is published first: the reader reckons the room
 * there was from what it sees, and would think that we never had to wait.  Of two packets that wait
 * the smaller one counts; but the reader only tells of the moment at which room grows beyond what
 * was asked for, so a wish already granted goes. */
static int wait_for_room(struct vmbus_ring *ring, uint32_t need, int64_t room)
{
#ifndef GODWIT_MUTANT_VMBUS_SHOW_FIRST
	publish_write(ring);
#endif
	if (ring->pending == 0 || need < ring->pending || room > ring->pending) {
		header_store(ring, VMBUS_RING_PENDING, need, VMBUS_STEP_STORE_PENDING);
		ring->pending = need;
	}
	barrier(ring);
	room = bytes_free(ring);
	if (room < 0)
		return -EBADMSG;
	if (room <= need)
		ring->full_count++;
	return room > need ? 1 : 0;
}

bool vmbus_ring_take_room(struct vmbus_ring *ring)
{
	if (ring->pending == 0 || bytes_free(ring) <= ring->pending)
		return false;
	header_store(ring, VMBUS_RING_PENDING, 0, VMBUS_STEP_CLEAR_PENDING);
	ring->pending = 0;
	return true;
}

static void write_packet(struct vmbus_ring *ring, const struct vmbus_send *send, uint32_t bytes)
{
	static const uint8_t zeros[WORD];
	struct cursor cursor = { .ring = ring, .index = ring->index };
	uint8_t head[VMBUS_PACKET_HEAD_BYTES];
	uint8_t tail[VMBUS_PACKET_TAIL_BYTES];
	uint32_t offset = VMBUS_PACKET_HEAD_BYTES + send->header_bytes;

	base_put_le16(head, (uint16_t)send->type);
	base_put_le16(head + 2, (uint16_t)(offset / WORD));
	base_put_le16(head + 4, (uint16_t)(bytes / WORD));
	base_put_le16(head + 6, send->wants_completion ? VMBUS_PACKET_WANTS_REPLY : 0);
	base_put_le64(head + 8, send->trans_id);
	base_put_le64(tail, (uint64_t)ring->index << 32);
	cursor_copy(&cursor, head, sizeof(head));
	cursor_copy(&cursor, send->header, send->header_bytes);
	cursor_copy(&cursor, send->payload, send->payload_bytes);
	cursor_copy(&cursor, zeros, bytes - offset - send->payload_bytes);
	cursor_copy(&cursor, tail, sizeof(tail));
	hv_slat_window_end(&cursor.window);
	ring->index = cursor.index;
	ring->packet_count++;
}

int vmbus_ring_put(struct vmbus_ring *ring, const struct vmbus_send *send)
{
	uint32_t bytes = 0;
	uint32_t need = 0;
	int64_t room = 0;

	if (send->header_bytes % WORD != 0 || send->header_bytes > VMBUS_PACKET_BYTES_MAX ||
	    send->payload_bytes > VMBUS_PACKET_BYTES_MAX)
		return -EINVAL;
	bytes = VMBUS_PACKET_HEAD_BYTES + send->header_bytes +
		(send->payload_bytes + WORD - 1) / WORD * WORD;
	need = bytes + VMBUS_PACKET_TAIL_BYTES;
	if (need >= ring->size_bytes || bytes / WORD > UINT16_MAX)
		return -EINVAL;
	room = bytes_free(ring);
	if (room < 0)
		return -EBADMSG;
	/* A ring that is quite full would look empty: something always stays free. */
	if (room <= need) {
		int r = wait_for_room(ring, need, room);

		if (r <= 0)
			return r < 0 ? r : -EAGAIN;
	}
	write_packet(ring, send, bytes);
	return 0;
}

bool vmbus_ring_end_write(struct vmbus_ring *ring)
{
	publish_write(ring);
	if (!ring->unannounced)
		return false;
	ring->unannounced = false;
	barrier(ring);
	/* Also when the reader has not come as far as this yet: one that takes a single packet
	 * per interrupt would never look again. */
	return header_load(ring, VMBUS_RING_MASK, VMBUS_STEP_LOAD_MASK) == 0;
}

struct vmbus_ring_header vmbus_ring_peek(const struct vmbus_ring *ring)
{
	const uint8_t *header = ring->header;

	return (struct vmbus_ring_header){
		.write_index = base_get_le32(header + VMBUS_RING_WRITE_INDEX),
		.read_index = base_get_le32(header + VMBUS_RING_READ_INDEX),
		.interrupt_mask = base_get_le32(header + VMBUS_RING_MASK),
		.pending_send_sz = base_get_le32(header + VMBUS_RING_PENDING),
		.features = base_get_le32(header + VMBUS_RING_FEATURES),
	};
}
