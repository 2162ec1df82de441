/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SynIC of one virtual processor as text.
 */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "hypervisor/machine_dump_priv.h"
#include "hypervisor/synic_parts_priv.h"

#define PAGE_MASK  (~(uint64_t)(HV_PAGE_BYTES - 1))
#define FLAG_BYTES (HV_EVENT_FLAGS / 8)
#define LOCK_TRIES 100u /* a millisecond apart; it is held for far less */

/* What is shown of a SINT. */
struct sint_view {
	uint64_t value;
	uint32_t queued;
	bool refused;
	uint32_t next_type; /* of the first that waits */
};

/* All of it at one instant. */
struct synic_view {
	uint64_t control;
	uint64_t siefp;
	uint64_t simp;
	struct sint_view sints[HV_SINTS];
	bool has_slots; /* the page is on, and was read */
	bool has_flags;
	uint8_t slots[HV_SINTS * HV_MESSAGE_BYTES];
	uint8_t flags[HV_SINTS * FLAG_BYTES];
};

static bool lock(struct synic_vp *vp)
{
	for (uint32_t i = 0; i < LOCK_TRIES; i++) {
		if (pthread_mutex_trylock(&vp->lock) == 0)
			return true;
		base_sleep_ns(BASE_NS_PER_MS);
	}
	return false;
}

static bool read_page(const struct hv_slat *slat, uint64_t page, uint8_t *to, size_t size_bytes)
{
	return (page & HV_SYNIC_ENABLE) != 0 &&
	       hv_slat_read(slat, page & PAGE_MASK, to, size_bytes) == 0;
}

/* Under the lock. */
static void take(const struct hv_synic *synic, const struct synic_vp *vp,
		 struct synic_view *ret_view)
{
	ret_view->control = vp->control;
	ret_view->siefp = vp->siefp;
	ret_view->simp = vp->simp;
	for (uint32_t i = 0; i < HV_SINTS; i++) {
		const struct synic_queue *queue = &vp->queues[i];

		ret_view->sints[i] = (struct sint_view){
			.value = vp->sint[i],
			.queued = queue->count,
			.refused = queue->refused,
			.next_type = queue->count > 0 ? queue->messages[queue->first].type : 0,
		};
	}
	ret_view->has_slots =
		read_page(synic->slat, vp->simp, ret_view->slots, sizeof(ret_view->slots));
	ret_view->has_flags =
		read_page(synic->slat, vp->siefp, ret_view->flags, sizeof(ret_view->flags));
}

static bool has_flag(const struct synic_view *view, uint32_t sint)
{
	for (uint32_t i = 0; view->has_flags && i < FLAG_BYTES; i++)
		if (view->flags[sint * FLAG_BYTES + i] != 0)
			return true;
	return false;
}

static bool is_off_and_empty(const struct synic_view *view, uint32_t sint)
{
	const uint8_t *slot = view->slots + (size_t)sint * HV_MESSAGE_BYTES;

	return view->sints[sint].value == SYNIC_SINT_RESET && view->sints[sint].queued == 0 &&
	       !(view->has_slots && base_get_le32(slot) != 0) && !has_flag(view, sint);
}

static void print_sint(const struct synic_view *view, uint32_t sint, FILE *out)
{
	const struct sint_view *own = &view->sints[sint];
	const uint8_t *slot = view->slots + (size_t)sint * HV_MESSAGE_BYTES;

	fprintf(out,
		"    sint%" PRIu32 ": vector=%u masked=%d auto-eoi=%d polling=%d queued=%" PRIu32
		" next-type=%" PRIu32 " refused=%d",
		sint, (unsigned int)(uint8_t)own->value, (own->value & HV_SINT_MASKED) != 0,
		(own->value & HV_SINT_AUTO_EOI) != 0, (own->value & HV_SINT_POLLING) != 0,
		own->queued, own->next_type, own->refused ? 1 : 0);
	if (view->has_slots)
		fprintf(out, " slot-type=0x%" PRIx32 " slot-bytes=%u slot-pending=%u",
			base_get_le32(slot), (unsigned int)slot[4], slot[5] & 1U);
	if (view->has_flags) {
		fputs(" flags=", out);
		hv_dump_bits(view->flags + (size_t)sint * FLAG_BYTES, HV_EVENT_FLAGS, out);
	}
	fputc('\n', out);
}

void hv_synic_dump(struct hv_synic *synic, uint32_t vp, FILE *out)
{
	struct synic_view view = { .control = 0 };
	uint32_t off_count = 0;

	base_assert(vp < synic->vp_count);
	if (!lock(&synic->vps[vp])) {
		fputs("  synic: somebody holds its lock and does not let it go\n", out);
		return;
	}
	take(synic, &synic->vps[vp], &view);
	(void)pthread_mutex_unlock(&synic->vps[vp].lock);
	fprintf(out,
		"  synic: on=%d control=0x%" PRIx64 " simp=0x%" PRIx64 " siefp=0x%" PRIx64 "\n",
		(view.control & HV_SYNIC_ENABLE) != 0, view.control, view.simp, view.siefp);
	for (uint32_t i = 0; i < HV_SINTS; i++) {
		if (is_off_and_empty(&view, i))
			off_count++;
		else
			print_sint(&view, i, out);
	}
	fprintf(out, "    %" PRIu32 " SINTs are off and empty\n", off_count);
}
