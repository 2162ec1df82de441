/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where ring 3 begins.  vCPU 0 reads the firmware and the command line, measures
 * the clocks, lays out memory and starts the others; every vCPU then works.
 */
#include <stdbool.h>
#include <stddef.h>

#include "tests/guest/guest_call.h"
#include "tests/guest/guest_control.h"
#include "tests/guest/guest_hv.h"
#include "tests/guest/guest_page.h"
#include "tests/guest/guest_print.h"
#include "tests/guest/guest_region.h"
#include "tests/guest/guest_work.h"

#define PIT_HZ            1193182
#define PIT_CONTROL       0x43
#define PIT_CHANNEL_0     0x40
#define PIT_MODE_0        0x30  /* count down once; no interrupt reaches anybody */
#define CALIBRATE_PIT     11932 /* 10 ms */
/* A PIT that has not got there after so many looks *and* so many ticks is none: looks alone may be
 * quick, and ticks alone may be one look of a guest that did not get a processor. */
#define CALIBRATE_SAMPLES 20000
#define CALIBRATE_TICKS   (1ULL << 33)
#define APIC_ICR          0x300
#define APIC_ICR_HIGH     0x310
#define APIC_ID           0x020
#define APIC_LVT_TIMER    0x320
#define APIC_COUNT        0x380
#define APIC_DIVIDE       0x3e0
#define APIC_DIVIDE_BY_1  0xb
#define APIC_MASKED       0x10000
#define IPI_INIT          0x4500
#define IPI_STARTUP       0x4600
#define INIT_WAIT_MS      10
#define STARTUP_RETRY_MS  200
#define STARTUP_TRIES     50
#define CPUID_LEAVES_MAX  0x20
#define CPUID_SUBLEAVES   16
#define CPUID_HYPERVISOR  0x40000000
#define CPUID_EXTENDED    0x80000000

void guest_main(uint64_t vcpu);

extern uint32_t guest_start_info;
extern uint8_t guest_stacks[];

uint8_t guest_stacks[SUPER_VCPUS_MAX * 16384] __attribute__((aligned(4096)));

static struct guest_firmware firmware;
static uint64_t online; /* vCPUs that have reached ring 3 */

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};

static struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
	struct cpuid out;

	__asm__ volatile("cpuid"
			 : "=a"(out.eax), "=b"(out.ebx), "=c"(out.ecx), "=d"(out.edx)
			 : "a"(leaf), "c"(subleaf));
	return out;
}

/* One 10 ms window.  Return: false when the PIT stands still. */
static bool measure(uint64_t *ret_tsc_khz, uint64_t *ret_lapic_khz)
{
	struct guest_sample first, last;
	uint64_t pit = 0;

	guest_call(SUPER_PORT_OUT, PIT_CONTROL, PIT_MODE_0, 1);
	guest_call(SUPER_PORT_OUT, PIT_CHANNEL_0, 0xff, 1);
	guest_call(SUPER_PORT_OUT, PIT_CHANNEL_0, 0xff, 1);
	guest_call(SUPER_APIC_WRITE, APIC_DIVIDE, APIC_DIVIDE_BY_1, 0);
	guest_call(SUPER_APIC_WRITE, APIC_COUNT, UINT32_MAX, 0);
	guest_sample(); /* the first one may still see the old count */
	first = guest_sample();
	for (unsigned int i = 0; pit < CALIBRATE_PIT; i++) {
		last = guest_sample();
		if (i >= CALIBRATE_SAMPLES && last.tsc - first.tsc > CALIBRATE_TICKS)
			return false;
		pit = (first.pit - last.pit) & 0xffff;
	}
	guest_call(SUPER_APIC_WRITE, APIC_COUNT, 0, 0);
	*ret_tsc_khz = (last.tsc - first.tsc) * PIT_HZ / pit / 1000;
	*ret_lapic_khz = (first.apic - last.apic) * PIT_HZ / pit / 1000;
	return true;
}

static uint64_t middle(const uint64_t *v)
{
	uint64_t low = v[0] < v[1] ? v[0] : v[1];
	uint64_t high = v[0] < v[1] ? v[1] : v[0];

	return v[2] < low ? low : v[2] > high ? high : v[2];
}

/* The middle of three windows: one may be spoilt by whatever else the host runs. */
static void calibrate(void)
{
	uint64_t tsc_khz[3], lapic_khz[3];

	guest_tsc_khz = guest_options.tsc_khz;
	guest_lapic_khz = guest_options.lapic_khz;
	if (guest_tsc_khz != 0 && guest_lapic_khz != 0)
		return;
	for (unsigned int i = 0; i < 3; i++)
		if (!measure(&tsc_khz[i], &lapic_khz[i]))
			guest_die("the PIT does not count: give tsc_khz= and lapic_khz=", "");
	if (guest_tsc_khz == 0)
		guest_tsc_khz = middle(tsc_khz);
	if (guest_lapic_khz == 0)
		guest_lapic_khz = middle(lapic_khz);
	if (guest_tsc_khz == 0 || guest_lapic_khz == 0)
		guest_die("a clock stands still: give tsc_khz= and lapic_khz=", "");
}

static void print_cpuid(uint32_t leaf, uint32_t subleaf, struct cpuid value)
{
	struct guest_line line = { .used = 0 };

	guest_line_hex(&line, "guest: cpuid 0x", leaf, 1);
	guest_line_hex(&line, ".", subleaf, 1);
	guest_line_hex(&line, " ", value.eax, 8);
	guest_line_hex(&line, " ", value.ebx, 8);
	guest_line_hex(&line, " ", value.ecx, 8);
	guest_line_hex(&line, " ", value.edx, 8);
	guest_line_send(&line);
}

/* Is there anything after subleaf @sub of @leaf, which reads @value? */
static bool more_subleaves(uint32_t leaf, uint32_t sub, struct cpuid value)
{
	switch (leaf) {
	case 0x4:
		return (value.eax & 0x1f) != 0;
	case 0x7:
		return sub < cpuid(leaf, 0).eax;
	case 0xb:
	case 0x1f:
		return (value.ecx & 0xff00) != 0;
	case 0xd:
		return true;
	case 0x14:
		return sub < cpuid(leaf, 0).eax;
	default:
		return false;
	}
}

static void dump_cpuid(void)
{
	static const uint32_t bases[] = { 0, CPUID_HYPERVISOR, CPUID_EXTENDED };
	struct guest_line line = { .used = 0 };

	for (unsigned int i = 0; i < sizeof(bases) / sizeof(bases[0]); i++) {
		uint32_t last = cpuid(bases[i], 0).eax;

		/* a range that does not exist answers with the last basic leaf */
		if (last < bases[i])
			last = bases[i];
		if (last - bases[i] > CPUID_LEAVES_MAX)
			last = bases[i] + CPUID_LEAVES_MAX;
		for (uint32_t leaf = bases[i]; leaf <= last; leaf++) {
			for (uint32_t sub = 0; sub < CPUID_SUBLEAVES; sub++) {
				struct cpuid value = cpuid(leaf, sub);

				if (sub == 0 || (value.eax | value.ebx | value.ecx) != 0)
					print_cpuid(leaf, sub, value);
				if (!more_subleaves(leaf, sub, value))
					break;
			}
		}
	}
	guest_line_text(&line, "guest: cpuid end");
	guest_line_send(&line);
}

static void hello(void)
{
	struct guest_line line = { .used = 0 };

	guest_line_number(&line, "guest: hello vcpus=", guest_vcpu_count);
	guest_line_number(&line, " mem=", firmware.ram_bytes);
	guest_line_number(&line, " ws=", guest_region.ws_pages * GUEST_PAGE_BYTES);
	guest_line_number(&line, " fill=", guest_region.fill_pages * GUEST_PAGE_BYTES);
	guest_line_number(&line, " tsc_khz=", guest_tsc_khz);
	guest_line_number(&line, " lapic_khz=", guest_lapic_khz);
	guest_line_send(&line);
}

static void wait_ms(uint64_t ms)
{
	uint64_t from = guest_tsc();

	while (guest_tsc() - from < ms * guest_tsc_khz)
		__builtin_ia32_pause();
}

static void send_ipi(uint64_t vcpu, uint32_t what)
{
	guest_call(SUPER_APIC_WRITE, APIC_ICR_HIGH, (uint64_t)firmware.apic_ids[vcpu] << 24, 0);
	guest_call(SUPER_APIC_WRITE, APIC_ICR, what, 0);
}

static void start_others(void)
{
	for (uint64_t i = 1; i < guest_vcpu_count; i++)
		send_ipi(i, IPI_INIT);
	if (guest_vcpu_count > 1)
		wait_ms(INIT_WAIT_MS);
	/* one after another: the trampoline takes its number from one place */
	for (uint64_t i = 1; i < guest_vcpu_count; i++) {
		guest_call(SUPER_PREPARE_VCPU, i, 0, 0);
		for (unsigned int try = 0; __atomic_load_n(&online, __ATOMIC_ACQUIRE) < i; try++) {
			uint64_t from = guest_tsc();

			if (try == STARTUP_TRIES)
				guest_die("a vCPU does not start", "");
			send_ipi(i, IPI_STARTUP | (SUPER_TRAMPOLINE >> 12));
			while (__atomic_load_n(&online, __ATOMIC_ACQUIRE) < i &&
			       guest_tsc() - from < STARTUP_RETRY_MS * guest_tsc_khz)
				__builtin_ia32_pause();
		}
	}
}

/* vCPU 0 is number 0 here whatever its APIC id is. */
static void number_vcpus(void)
{
	uint8_t own = (uint8_t)(guest_call(SUPER_APIC_READ, APIC_ID, 0, 0) >> 24);

	guest_vcpu_count = guest_options.vcpus;
	if (firmware.vcpu_count == 0) {
		for (uint64_t i = 0; i < SUPER_VCPUS_MAX; i++)
			firmware.apic_ids[i] = (uint8_t)i;
		firmware.vcpu_count = guest_vcpu_count == 0 ? 1 : SUPER_VCPUS_MAX;
	}
	for (uint64_t i = 1; i < firmware.vcpu_count; i++) {
		if (firmware.apic_ids[i] == own) {
			firmware.apic_ids[i] = firmware.apic_ids[0];
			firmware.apic_ids[0] = own;
		}
	}
	if (guest_vcpu_count == 0)
		guest_vcpu_count = firmware.vcpu_count;
	if (guest_vcpu_count > firmware.vcpu_count)
		guest_die("vcpus= is more than the machine has", "");
}

static void start_machine(void)
{
	char word[GUEST_WORD_BYTES];

	guest_firmware_read(guest_start_info, &firmware);
	if (!guest_cmdline_parse(firmware.cmdline, &guest_options, word))
		guest_die("cannot use the command line word ", word);
	number_vcpus();
	calibrate();
	guest_region_init(&firmware, &guest_options, guest_hv_pool_bytes());
	hello();
	if (guest_options.dump == GUEST_DUMP_CPUID)
		dump_cpuid();
	guest_control_init(&firmware);
	guest_hv_init();
	start_others();
}

/* Every vCPU comes here once, from guest_boot.S. */
void guest_main(uint64_t vcpu)
{
	if (vcpu == 0)
		start_machine();
	else
		__atomic_store_n(&online, vcpu, __ATOMIC_RELEASE);
	guest_work_run(vcpu);
}
