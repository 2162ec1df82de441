/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SynIC's registers.
 */
#include <errno.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "hypervisor/synic_parts_priv.h"

#define PAGE_MASK (~(uint64_t)(HV_PAGE_BYTES - 1))

static bool is_sint(uint32_t msr)
{
	return msr >= HV_MSR_SINT0 && msr < HV_MSR_SINT0 + HV_SINTS;
}

bool hv_synic_has_msr(uint32_t msr)
{
	return (msr >= HV_MSR_SCONTROL && msr <= HV_MSR_EOM) || is_sint(msr);
}

bool hv_synic_sint_is_sane(uint64_t value)
{
	if ((value & HV_SINT_AUTO_EOI) != 0)
		return false;
	return (value & HV_SINT_MASKED) != 0 || (uint8_t)value >= HV_SINT_VECTOR_MIN;
}

int hv_synic_read_msr(struct hv_synic *synic, uint32_t vp, uint32_t msr, uint64_t *ret_value)
{
	struct synic_vp *own = &synic->vps[vp];
	BASE_LOCKED(&own->lock);

	switch (msr) {
	case HV_MSR_SCONTROL:
		*ret_value = own->control;
		return 0;
	case HV_MSR_SVERSION:
		*ret_value = 1;
		return 0;
	case HV_MSR_SIEFP:
		*ret_value = own->siefp;
		return 0;
	case HV_MSR_SIMP:
		*ret_value = own->simp;
		return 0;
	case HV_MSR_EOM:
		*ret_value = 0;
		return 0;
	default:
		if (!is_sint(msr))
			return -EINVAL;
		*ret_value = own->sint[msr - HV_MSR_SINT0];
		return 0;
	}
}

static void deliver_all(struct hv_synic *synic, struct synic_vp *vp, struct synic_after *after)
{
	for (uint32_t i = 0; i < HV_SINTS; i++)
		hv_synic_deliver(synic, vp, i, after);
}

/* A page that is switched on, or moved, starts as zeros. */
static int write_page(struct hv_synic *synic, uint64_t *page, uint64_t value)
{
	bool was_on = (*page & HV_SYNIC_ENABLE) != 0;

	if ((value & HV_SYNIC_ENABLE) != 0 &&
	    (!was_on || (*page & PAGE_MASK) != (value & PAGE_MASK)) &&
	    hv_slat_zero(synic->slat, value & PAGE_MASK, HV_PAGE_BYTES) < 0)
		return -EINVAL; /* not RAM */
	*page = value;
	return 0;
}

/* Without AutoEOI a guest that relies on it would never see a second interrupt: a fault here is
 * seen at once.  The hint says not to use it. */
static int write_sint(struct hv_synic *synic, struct synic_vp *vp, uint32_t sint, uint64_t value,
		      struct synic_after *after)
{
	bool was_masked = (vp->sint[sint] & HV_SINT_MASKED) != 0;

	if ((value & HV_SINT_AUTO_EOI) != 0 && !atomic_exchange(&synic->auto_eoi_logged, true))
		base_log(BASE_LOG_WARNING, "hv.synic.auto-eoi", "sint=%u value=0x%llx",
			 (unsigned int)sint, (unsigned long long)value);
	if (!hv_synic_sint_is_sane(value))
		return -EINVAL;
	vp->sint[sint] = value;
	/* Flags that were set while it was masked interrupted nobody. */
	if (was_masked && (value & HV_SINT_MASKED) == 0 && (vp->siefp & HV_SYNIC_ENABLE) != 0)
		hv_synic_raise(vp, sint, after);
	hv_synic_deliver(synic, vp, sint, after);
	return 0;
}

static int write_locked(struct hv_synic *synic, struct synic_vp *vp, uint32_t msr, uint64_t value,
			struct synic_after *after)
{
	int r;

	switch (msr) {
	case HV_MSR_SCONTROL:
		vp->control = value;
		deliver_all(synic, vp, after);
		return 0;
	case HV_MSR_SIEFP:
		return write_page(synic, &vp->siefp, value);
	case HV_MSR_SIMP:
		r = write_page(synic, &vp->simp, value);
		if (r == 0)
			deliver_all(synic, vp, after);
		return r;
	case HV_MSR_EOM:
		deliver_all(synic, vp, after);
		return 0;
	default:
		if (!is_sint(msr))
			return -EINVAL;
		return write_sint(synic, vp, msr - HV_MSR_SINT0, value, after);
	}
}

int hv_synic_write_msr(struct hv_synic *synic, uint32_t vp, uint32_t msr, uint64_t value)
{
	struct synic_after after = { .room = false };
	int r;

	{
		BASE_LOCKED(&synic->vps[vp].lock);
		r = write_locked(synic, &synic->vps[vp], msr, value, &after);
	}
	hv_synic_after(synic, vp, &after);
	return r;
}
