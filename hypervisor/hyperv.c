/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The synthetic MSRs.
 */
#include "hypervisor/hyperv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/hyperv_priv.h"
#include "hypervisor/synic_priv.h"

#define PANIC_TEXT_BYTES (HV_PAGE_BYTES + 256)

/* NOLINTNEXTLINE(readability-function-size): seven parameters, as the header has it */
int hv_hyperv_new(struct hv_slat *slat, struct hv_synic *synic, uint32_t vp_count,
		  const struct hv_hyperv_ops *ops, void *context, struct hv_hyperv **ret_hyperv,
		  struct base_error *err)
{
	struct hv_hyperv *hyperv = calloc(1, sizeof(*hyperv));

	base_assert(vp_count >= 1 && vp_count <= HV_VCPUS_MAX);
	if (hyperv == NULL)
		return base_fail(err, -ENOMEM, "Hyper-V registers");
	hyperv->slat = slat;
	hyperv->synic = synic;
	hyperv->vp_count = vp_count;
	hyperv->ops = ops;
	hyperv->context = context;
	hyperv->clock.clock = &base_clock_system;
	hyperv->clock.boot_ns = base_clock_boot_ns(&base_clock_system);
	(void)pthread_mutex_init(&hyperv->lock, NULL);
	(void)pthread_mutex_init(&hyperv->clock_lock, NULL);
	(void)pthread_mutex_init(&hyperv->log_lock, NULL);
	*ret_hyperv = hyperv;
	return 0;
}

void hv_hyperv_free(struct hv_hyperv *hyperv)
{
	if (hyperv == NULL)
		return;
	(void)pthread_mutex_destroy(&hyperv->log_lock);
	(void)pthread_mutex_destroy(&hyperv->clock_lock);
	(void)pthread_mutex_destroy(&hyperv->lock);
	free(hyperv);
}

void hv_hyperv_reset(struct hv_hyperv *hyperv)
{
	BASE_LOCKED(&hyperv->lock);

	memset(&hyperv->regs, 0, sizeof(hyperv->regs));
	atomic_store(&hyperv->call_page, 0);
}

void hv_hyperv_set_calls(struct hv_hyperv *hyperv, const struct hv_hypercall_ops *ops,
			 void *context)
{
	hyperv->call_ops = ops;
	hyperv->call_context = context;
}

static uint64_t tsc_hz(struct hv_hyperv *hyperv)
{
	BASE_LOCKED(&hyperv->clock_lock);

	return hyperv->clock.tsc_hz;
}

static int read_register(const struct hv_hyperv *hyperv, uint32_t vp, uint32_t msr,
			 uint64_t *ret_value)
{
	switch (msr) {
	case HV_MSR_GUEST_OS_ID:
		*ret_value = hyperv->regs.guest_os_id;
		return 0;
	case HV_MSR_HYPERCALL:
		*ret_value = hyperv->regs.hypercall;
		return 0;
	case HV_MSR_VP_INDEX:
		*ret_value = vp;
		return 0;
	case HV_MSR_RESET:
		*ret_value = 0;
		return 0;
	case HV_MSR_REFERENCE_TSC:
		*ret_value = hyperv->regs.reference_tsc;
		return 0;
	case HV_MSR_APIC_HZ:
		*ret_value = HV_APIC_HZ;
		return 0;
	case HV_MSR_VP_ASSIST:
		*ret_value = hyperv->regs.assist[vp];
		return 0;
	case HV_MSR_CRASH_CTL: /* what we can do with a crash */
		*ret_value = HV_CRASH_NOTIFY | HV_CRASH_MESSAGE;
		return 0;
	default:
		if (msr < HV_MSR_CRASH_P0 || msr >= HV_MSR_CRASH_P0 + HV_CRASH_PARAMETERS)
			return -EINVAL;
		*ret_value = hyperv->regs.crash[msr - HV_MSR_CRASH_P0];
		return 0;
	}
}

int hv_hyperv_read_msr(struct hv_hyperv *hyperv, uint32_t vp, uint32_t msr, uint64_t *ret_value)
{
	if (hv_synic_has_msr(msr))
		return hv_synic_read_msr(hyperv->synic, vp, msr, ret_value);
	if (msr == HV_MSR_REFERENCE_TIME) {
		*ret_value = hv_hyperv_reference_time(hyperv);
		return 0;
	}
	if (msr == HV_MSR_TSC_HZ) {
		*ret_value = tsc_hz(hyperv);
		return *ret_value != 0 ? 0 : -EINVAL;
	}
	BASE_LOCKED(&hyperv->lock);
	return read_register(hyperv, vp, msr, ret_value);
}

/*
 * The hypercall page: "in eax, port; ret".  A port, because that exit reaches user space under
 * every KVM and on every processor; the stub is the same after a move to another vendor's.
 */
static int write_hypercall(struct hv_hyperv *hyperv, uint64_t value)
{
	static const uint8_t stub[] = { 0xe5, HV_HYPERCALL_PORT, 0xc3 };
	uint8_t page[HV_PAGE_BYTES];

	if ((hyperv->regs.hypercall & HV_HYPERCALL_LOCK) != 0)
		return 0; /* until the next reset */
	if (hyperv->regs.guest_os_id == 0)
		value &= ~(uint64_t)HV_PAGE_ENABLE;
	if ((value & HV_PAGE_ENABLE) != 0) {
		memset(page, 0xcc, sizeof(page));
		memcpy(page, stub, sizeof(stub));
		if (hv_slat_write(hyperv->slat, value & HV_GPA_PAGE_MASK, page, sizeof(page)) < 0)
			return -EINVAL;
	}
	hyperv->regs.hypercall = value;
	atomic_store(&hyperv->call_page, value);
	return 0;
}

static int write_assist(struct hv_hyperv *hyperv, uint32_t vp, uint64_t value)
{
	if ((value & HV_PAGE_ENABLE) != 0 && value != hyperv->regs.assist[vp] &&
	    hv_slat_zero(hyperv->slat, value & HV_GPA_PAGE_MASK, HV_PAGE_BYTES) < 0)
		return -EINVAL;
	hyperv->regs.assist[vp] = value;
	return 0;
}

static void write_guest_os_id(struct hv_hyperv *hyperv, uint64_t value)
{
	hyperv->regs.guest_os_id = value;
	if (value == 0) {
		hyperv->regs.hypercall &= ~(uint64_t)HV_PAGE_ENABLE;
		atomic_store(&hyperv->call_page, hyperv->regs.hypercall);
	}
}

static int write_register(struct hv_hyperv *hyperv, uint32_t vp, uint32_t msr, uint64_t value)
{
	int r;

	switch (msr) {
	case HV_MSR_GUEST_OS_ID:
		write_guest_os_id(hyperv, value);
		return 0;
	case HV_MSR_HYPERCALL:
		return write_hypercall(hyperv, value);
	case HV_MSR_REFERENCE_TSC:
		r = hv_hyperv_put_page(hyperv, value);
		if (r == 0)
			hyperv->regs.reference_tsc = value;
		return r;
	case HV_MSR_VP_ASSIST:
		return write_assist(hyperv, vp, value);
	default:
		if (msr < HV_MSR_CRASH_P0 || msr >= HV_MSR_CRASH_P0 + HV_CRASH_PARAMETERS)
			return -EINVAL;
		hyperv->regs.crash[msr - HV_MSR_CRASH_P0] = value;
		return 0;
	}
}

/* The guest's own words, made harmless; empty when it gave none. */
static void read_message(struct hv_hyperv *hyperv, uint64_t gpa, uint64_t size_bytes, char *to)
{
	to[0] = '\0';
	if (size_bytes > HV_PAGE_BYTES || hv_slat_read(hyperv->slat, gpa, to, size_bytes) < 0)
		return;
	to[size_bytes] = '\0';
	for (uint64_t i = 0; i < size_bytes && to[i] != '\0'; i++)
		if ((to[i] < ' ' || to[i] > '~') && to[i] != '\n')
			to[i] = '.';
}

static bool crash_is_told(struct hv_hyperv *hyperv)
{
	uint64_t now_ns = base_clock_boot_ns(hyperv->clock.clock);
	BASE_LOCKED(&hyperv->log_lock);
	bool is_told = base_log_rate_take(&hyperv->crashes_told, now_ns, HV_CRASHES_TOLD);

#ifdef GODWIT_MUTANT_HYPERV_CRASH_STORM
	is_told = true;
#endif
	return is_told;
}

static void report_crash(struct hv_hyperv *hyperv, uint64_t control)
{
	uint64_t crash[HV_CRASH_PARAMETERS];
	char message[HV_PAGE_BYTES + 1] = "";
	char text[PANIC_TEXT_BYTES];

	if ((control & HV_CRASH_NOTIFY) == 0 || !crash_is_told(hyperv))
		return;
	{
		BASE_LOCKED(&hyperv->lock);
		memcpy(crash, hyperv->regs.crash, sizeof(crash));
	}
	if ((control & HV_CRASH_MESSAGE) != 0)
		read_message(hyperv, crash[3], crash[4], message);
	(void)snprintf(text, sizeof(text),
		       "guest crash 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64
		       " 0x%" PRIx64 "%s%s",
		       crash[0], crash[1], crash[2], crash[3], crash[4],
		       message[0] != '\0' ? ": " : "", message);
	hyperv->ops->panic(hyperv->context, text);
}

int hv_hyperv_write_msr(struct hv_hyperv *hyperv, uint32_t vp, uint32_t msr, uint64_t value)
{
	if (hv_synic_has_msr(msr))
		return hv_synic_write_msr(hyperv->synic, vp, msr, value);
	if (msr == HV_MSR_RESET) {
		if ((value & 1) != 0)
			hyperv->ops->reset(hyperv->context);
		return 0;
	}
	if (msr == HV_MSR_CRASH_CTL) {
		report_crash(hyperv, value);
		return 0;
	}
	BASE_LOCKED(&hyperv->lock);
	return write_register(hyperv, vp, msr, value);
}
