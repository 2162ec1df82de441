/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages and event flags.  Slots and flags are memory of a running guest: all but the filling
 * of a slot that is ours goes through atomic accesses, each of them once.
 */
#include "hypervisor/synic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/synic_parts_priv.h"
#include "hypervisor/synic_slot_priv.h"

/* Of a slot. */
#define SLOT_TYPE       0
#define SLOT_SIZE       4
#define SLOT_FLAGS      5
#define SLOT_SENDER     8
#define SLOT_PAYLOAD    16
#define MESSAGE_PENDING 1u

#define PAGE_MASK  (~(uint64_t)(HV_PAGE_BYTES - 1))
#define FLAG_BYTES (HV_EVENT_FLAGS / 8)

static bool sint_is_on(const struct synic_vp *vp, uint32_t sint)
{
	return (vp->control & HV_SYNIC_ENABLE) != 0 &&
	       ((vp->sint[sint] & HV_SINT_POLLING) != 0 || (vp->sint[sint] & HV_SINT_MASKED) == 0);
}

void hv_synic_raise(const struct synic_vp *vp, uint32_t sint, struct synic_after *after)
{
	uint32_t vector = (uint8_t)vp->sint[sint];

	if ((vp->control & HV_SYNIC_ENABLE) == 0 ||
	    (vp->sint[sint] & (HV_SINT_MASKED | HV_SINT_POLLING)) != 0)
		return;
	if (vector >= HV_SINT_VECTOR_MIN)
		after->vectors[vector / 32] |= 1U << (vector % 32);
}

void hv_synic_after(struct hv_synic *synic, uint32_t vp, const struct synic_after *after)
{
	for (uint32_t i = 0; i < 256 / 32; i++)
		for (uint32_t bits = after->vectors[i]; bits != 0; bits &= bits - 1)
			synic->ops->interrupt(synic->context, vp,
					      (uint8_t)(i * 32 + (uint32_t)__builtin_ctz(bits)));
	if (after->room && synic->room != NULL)
		synic->room(synic->room_context);
}

/* All of a message but its type.  The slot is free: only we write to it; but who has just freed it
 * looks at the flags of before, or already at ours, which tell of the same. */
static void fill_slot(uint8_t *slot, const struct hv_message *message, bool more)
{
	uint8_t flags = more ? MESSAGE_PENDING : 0;

#ifdef GODWIT_MUTANT_SYNIC_MORE_PENDING
	flags = 0;
#endif
	__atomic_store_n(slot + SLOT_FLAGS, flags, __ATOMIC_RELAXED);
	slot[SLOT_SIZE] = (uint8_t)message->size_bytes;
	memset(slot + SLOT_FLAGS + 1, 0, HV_MESSAGE_BYTES - SLOT_FLAGS - 1);
	base_put_le64(slot + SLOT_SENDER, message->sender);
	memcpy(slot + SLOT_PAYLOAD, message->payload, message->size_bytes);
}

/* True: delivered.  False: the guest will write EOM when it frees the slot. */
static bool write_slot(uint8_t *slot, const struct hv_message *message, bool more)
{
	uint32_t *type = (void *)(slot + SLOT_TYPE);
	enum hv_slot_step step = HV_SLOT_LOOK;
	uint32_t seen = 0;

	for (;;) {
		switch (step) {
		case HV_SLOT_LOOK:
		case HV_SLOT_LOOK_AGAIN:
			seen = __atomic_load_n(type, __ATOMIC_SEQ_CST);
			break;
		case HV_SLOT_ASK: /* a full barrier, too: the look after it is not before it */
			(void)__atomic_fetch_or(slot + SLOT_FLAGS, MESSAGE_PENDING,
						__ATOMIC_SEQ_CST);
			break;
		case HV_SLOT_FILL:
			fill_slot(slot, message, more);
			break;
		case HV_SLOT_PUBLISH:
			__atomic_store_n(type, message->type, __ATOMIC_RELEASE);
			break;
		case HV_SLOT_DELIVERED:
			return true;
		case HV_SLOT_BUSY:
			return false;
		case HV_SLOT_INVALID:
		case HV_SLOT_STEPS:
		default:
			base_bug("message slot: step %d", (int)step);
		}
		step = hv_slot_next(step, seen);
	}
}

void hv_synic_deliver(struct hv_synic *synic, struct synic_vp *vp, uint32_t sint,
		      struct synic_after *after)
{
	struct synic_queue *queue = &vp->queues[sint];
	HV_SLAT_WINDOW window = { .data = NULL };
	uint64_t gpa = (vp->simp & PAGE_MASK) + (uint64_t)sint * HV_MESSAGE_BYTES;

	if (queue->count == 0 || !sint_is_on(vp, sint) || (vp->simp & HV_SYNIC_ENABLE) == 0)
		return;
	if (hv_slat_window_begin(synic->slat, gpa, HV_MESSAGE_BYTES, &window) < 0)
		return; /* checked when it was set */
	if (!write_slot(window.data, &queue->messages[queue->first], queue->count > 1))
		return;
	hv_slat_window_end(&window); /* marked before the guest hears of it */
	queue->first = (queue->first + 1) % HV_SYNIC_QUEUE_MAX;
	queue->count--;
	after->room = after->room || queue->refused;
	queue->refused = false;
	hv_synic_raise(vp, sint, after);
}

int hv_synic_post(struct hv_synic *synic, uint32_t vp, uint32_t sint,
		  const struct hv_message *message)
{
	struct synic_after after = { .room = false };
	int r = 0;

	if (vp >= synic->vp_count || sint >= HV_SINTS)
		return -EINVAL;
	base_assert(message->type != 0 && message->size_bytes <= HV_MESSAGE_PAYLOAD_BYTES);
	{
		struct synic_vp *own = &synic->vps[vp];
		struct synic_queue *queue = &own->queues[sint];
		BASE_LOCKED(&own->lock);

		if (queue->count == HV_SYNIC_QUEUE_MAX) {
			queue->refused = true;
			r = -EAGAIN;
		} else {
			uint32_t at = (queue->first + queue->count) % HV_SYNIC_QUEUE_MAX;

			queue->messages[at] = *message;
			queue->count++;
			hv_synic_deliver(synic, own, sint, &after);
		}
	}
	hv_synic_after(synic, vp, &after);
	return r;
}

int hv_synic_signal(struct hv_synic *synic, uint32_t vp, uint32_t sint, uint32_t flag)
{
	struct synic_after after = { .room = false };

	if (vp >= synic->vp_count || sint >= HV_SINTS || flag >= HV_EVENT_FLAGS)
		return -EINVAL;
	{
		struct synic_vp *own = &synic->vps[vp];
		HV_SLAT_WINDOW window = { .data = NULL };
		BASE_LOCKED(&own->lock);
		uint64_t gpa = (own->siefp & PAGE_MASK) + (uint64_t)sint * FLAG_BYTES +
			       flag / 64 * sizeof(uint64_t);
		uint64_t bit = 1ULL << (flag % 64);
		uint64_t *word;

		if ((own->control & own->siefp & HV_SYNIC_ENABLE) == 0 ||
		    hv_slat_window_begin(synic->slat, gpa, sizeof(uint64_t), &window) < 0)
			return -ENXIO;
		word = (void *)window.data;
		if ((__atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST) & bit) == 0)
			hv_synic_raise(own, sint, &after);
		hv_slat_window_end(&window); /* marked before the guest hears of it */
	}
	hv_synic_after(synic, vp, &after);
	return 0;
}

void hv_synic_nudge(struct hv_synic *synic, uint32_t vp, uint32_t sint)
{
	struct synic_after after = { .room = false };

	if (vp >= synic->vp_count || sint >= HV_SINTS)
		return;
	{
		BASE_LOCKED(&synic->vps[vp].lock);
		hv_synic_raise(&synic->vps[vp], sint, &after);
	}
	hv_synic_after(synic, vp, &after);
}

void hv_synic_drop(struct hv_synic *synic, uint32_t vp, uint32_t sint)
{
	if (vp >= synic->vp_count || sint >= HV_SINTS)
		return;
	BASE_LOCKED(&synic->vps[vp].lock);
	synic->vps[vp].queues[sint].count = 0;
	synic->vps[vp].queues[sint].refused = false;
}

void hv_synic_on_room(struct hv_synic *synic, void (*room)(void *context), void *context)
{
	synic->room_context = context;
	synic->room = room;
}

void hv_synic_reset_vp(struct synic_vp *vp)
{
	vp->control = 0;
	vp->siefp = 0;
	vp->simp = 0;
	for (uint32_t i = 0; i < HV_SINTS; i++) {
		vp->sint[i] = SYNIC_SINT_RESET;
		vp->queues[i].first = 0;
		vp->queues[i].count = 0;
		vp->queues[i].refused = false;
	}
}

void hv_synic_reset(struct hv_synic *synic)
{
	for (uint32_t i = 0; i < synic->vp_count; i++) {
		BASE_LOCKED(&synic->vps[i].lock);
		hv_synic_reset_vp(&synic->vps[i]);
	}
}

int hv_synic_new(struct hv_slat *slat, uint32_t vp_count, const struct hv_synic_ops *ops,
		 void *context, struct hv_synic **ret_synic, struct base_error *err)
{
	struct hv_synic *synic;

	base_assert(vp_count >= 1 && vp_count <= HV_VCPUS_MAX);
	synic = calloc(1, sizeof(*synic) + vp_count * sizeof(synic->vps[0]));
	if (synic == NULL)
		return base_fail(err, -ENOMEM, "SynIC of %u processors", (unsigned int)vp_count);
	synic->slat = slat;
	synic->ops = ops;
	synic->context = context;
	synic->vp_count = vp_count;
	for (uint32_t i = 0; i < vp_count; i++) {
		(void)pthread_mutex_init(&synic->vps[i].lock, NULL);
		hv_synic_reset_vp(&synic->vps[i]);
	}
	*ret_synic = synic;
	return 0;
}

void hv_synic_free(struct hv_synic *synic)
{
	if (synic == NULL)
		return;
	for (uint32_t i = 0; i < synic->vp_count; i++)
		(void)pthread_mutex_destroy(&synic->vps[i].lock);
	free(synic);
}
