/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Section "hyperv" of a saved state: docs/hypervisor/hyperv.md.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/cleanup.h"
#include "hypervisor/hyperv_priv.h"

void hv_hyperv_save(struct hv_hyperv *hyperv, struct base_buffer *out)
{
	uint64_t reference = hv_hyperv_reference_time(hyperv);

	base_buffer_le32(out, hyperv->vp_count);
	base_buffer_le32(out, hyperv->sequence);
	base_buffer_le64(out, reference);
	BASE_LOCKED(&hyperv->lock);
	base_buffer_le64(out, hyperv->regs.guest_os_id);
	base_buffer_le64(out, hyperv->regs.hypercall);
	base_buffer_le64(out, hyperv->regs.reference_tsc);
	for (uint32_t i = 0; i < HV_CRASH_PARAMETERS; i++)
		base_buffer_le64(out, hyperv->regs.crash[i]);
	for (uint32_t i = 0; i < hyperv->vp_count; i++)
		base_buffer_le64(out, hyperv->regs.assist[i]);
}

static int check_page(const struct hv_hyperv *hyperv, const char *name, uint64_t value,
		      struct base_error *err)
{
	if ((value & HV_PAGE_ENABLE) != 0 &&
	    hv_slat_view(hyperv->slat, value & HV_GPA_PAGE_MASK, HV_PAGE_BYTES) == NULL)
		return base_fail(err, -EBADMSG, "%s 0x%" PRIx64 ": expected an address in RAM",
				 name, value);
	return 0;
}

static int check(const struct hv_hyperv *hyperv, const struct hv_hyperv_regs *regs,
		 struct base_error *err)
{
	int r = check_page(hyperv, "hypercall page", regs->hypercall, err);

	if (r >= 0 && regs->guest_os_id == 0 && (regs->hypercall & HV_PAGE_ENABLE) != 0)
		r = base_fail(err, -EBADMSG, "hypercall page on: expected a guest OS id");
	if (r >= 0)
		r = check_page(hyperv, "reference TSC page", regs->reference_tsc, err);
	for (uint32_t i = 0; i < hyperv->vp_count && r >= 0; i++)
		r = check_page(hyperv, "VP assist page", regs->assist[i], err);
	return r;
}

int hv_hyperv_load(struct hv_hyperv *hyperv, uint32_t version, struct base_reader *in,
		   struct base_error *err)
{
	struct hv_hyperv_regs regs = { .guest_os_id = 0 };
	uint32_t vp_count;
	uint32_t sequence;
	uint64_t reference;
	int r;

	if (version != HV_HYPERV_VERSION)
		return base_fail(err, -ENOTSUP, "version %" PRIu32 ", expected %u", version,
				 HV_HYPERV_VERSION);
	vp_count = base_read_le32(in);
	if (in->failed || vp_count != hyperv->vp_count)
		return base_fail(err, -EBADMSG, "%" PRIu32 " processors, expected %" PRIu32,
				 vp_count, hyperv->vp_count);
	sequence = base_read_le32(in);
	reference = base_read_le64(in);
	regs.guest_os_id = base_read_le64(in);
	regs.hypercall = base_read_le64(in);
	regs.reference_tsc = base_read_le64(in);
	for (uint32_t i = 0; i < HV_CRASH_PARAMETERS; i++)
		regs.crash[i] = base_read_le64(in);
	for (uint32_t i = 0; i < vp_count; i++)
		regs.assist[i] = base_read_le64(in);
	if (in->failed)
		return base_fail(err, -EBADMSG, "truncated");
	if (reference >> 60 != 0)
		return base_fail(err, -EBADMSG,
				 "reference time %" PRIu64 ": expected less than 2^60", reference);
	r = check(hyperv, &regs, err);
	if (r < 0)
		return r;
	{
		BASE_LOCKED(&hyperv->lock);
		hyperv->regs = regs;
		atomic_store(&hyperv->call_page, regs.hypercall);
	}
	BASE_LOCKED(&hyperv->clock_lock);
	hyperv->sequence = sequence;
	hyperv->saved_reference = reference;
	return 0;
}

uint64_t hv_hyperv_saved_reference(const struct hv_hyperv *hyperv)
{
	return hyperv->saved_reference;
}
