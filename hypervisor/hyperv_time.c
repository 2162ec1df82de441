/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reference time: the TSC's rate put into units of 100 ns, or the boot clock's where the TSC is
 * not to be trusted.  The guest computes the same from its page:
 * (tsc * scale >> 64) + offset.
 */
#include <errno.h>

#include "base/cleanup.h"
#include "hypervisor/hyperv_priv.h"

#define UNITS_PER_SECOND 10000000ULL
#define NS_PER_UNIT      100u
#define PAGE_SEQUENCE    0
#define PAGE_SCALE       8
#define PAGE_OFFSET      16
#define SEQUENCE_INVALID UINT32_MAX

__extension__ typedef unsigned __int128 wide;

static uint64_t high_product(uint64_t a, uint64_t b)
{
	return (uint64_t)((wide)a * b >> 64);
}

/* Under clock_lock: the guest's TSC when the host's reads @host_tsc. */
static uint64_t guest_tsc(const struct hv_hyperv_clock *clock, uint64_t host_tsc)
{
	uint64_t gone = host_tsc - clock->host_tsc;

	if (clock->host_hz != clock->tsc_hz && clock->host_hz != 0)
		gone = (uint64_t)((wide)gone * clock->tsc_hz / clock->host_hz);
	return clock->guest_tsc + gone;
}

static uint64_t reference_locked(const struct hv_hyperv *hyperv)
{
	const struct hv_hyperv_clock *clock = &hyperv->clock;
	uint64_t boot_ns;

	if (hyperv->scale != 0)
		return high_product(guest_tsc(clock, base_tsc_read()), hyperv->scale) +
		       hyperv->offset;
	boot_ns = base_clock_boot_ns(clock->clock);
	return hyperv->clock_reference +
	       (boot_ns > clock->boot_ns ? boot_ns - clock->boot_ns : 0) / NS_PER_UNIT;
}

uint64_t hv_hyperv_reference_time(struct hv_hyperv *hyperv)
{
	BASE_LOCKED(&hyperv->clock_lock);

	return reference_locked(hyperv);
}

/* Under clock_lock. */
static int put_page_locked(struct hv_hyperv *hyperv, uint64_t page)
{
	HV_SLAT_WINDOW window = { .data = NULL };
	uint32_t *sequence;

	if ((page & HV_PAGE_ENABLE) == 0)
		return 0;
	if (hv_slat_window_begin(hyperv->slat, page & HV_GPA_PAGE_MASK, HV_PAGE_BYTES, &window) < 0)
		return -EINVAL;
	sequence = (void *)(window.data + PAGE_SEQUENCE);
	__atomic_store_n(sequence, 0, __ATOMIC_SEQ_CST); /* read the register meanwhile */
	base_put_le32(window.data + 4, 0);
	base_put_le64(window.data + PAGE_SCALE, hyperv->scale);
	base_put_le64(window.data + PAGE_OFFSET, hyperv->offset);
	if (hyperv->scale == 0)
		return 0;
	do
		hyperv->sequence++;
	while (hyperv->sequence == 0 || hyperv->sequence == SEQUENCE_INVALID);
	__atomic_store_n(sequence, hyperv->sequence, __ATOMIC_RELEASE);
	return 0;
}

int hv_hyperv_put_page(struct hv_hyperv *hyperv, uint64_t page)
{
	BASE_LOCKED(&hyperv->clock_lock);

	return put_page_locked(hyperv, page);
}

void hv_hyperv_set_clock(struct hv_hyperv *hyperv, const struct hv_hyperv_clock *clock,
			 uint64_t reference)
{
	uint64_t page;

	{
		BASE_LOCKED(&hyperv->lock);
		page = hyperv->regs.reference_tsc;
	}
	BASE_LOCKED(&hyperv->clock_lock);
#ifndef GODWIT_MUTANT_HYPERV_TIME_FLOOR
	if (reference < reference_locked(hyperv))
		reference = reference_locked(hyperv);
#endif
	hyperv->clock = *clock;
	hyperv->clock_reference = reference;
	hyperv->scale = 0;
	hyperv->offset = 0;
	if (clock->is_trusted &&
	    clock->tsc_hz > UNITS_PER_SECOND) { /* below it, the scale does not fit */
		hyperv->scale = (uint64_t)(((wide)UNITS_PER_SECOND << 64) / clock->tsc_hz);
		hyperv->offset = reference - high_product(clock->guest_tsc, hyperv->scale);
	}
	/* It was RAM when the guest set it. */
	(void)!put_page_locked(hyperv, page);
}
