/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/guest_host.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/memory.h"
#include "hypervisor/synic_priv.h"
#include "tests/guest/guest_call.h"
#include "tests/guest/guest_control.h"
#include "tests/guest/guest_disk.h"
#include "tests/guest/guest_hv.h"
#include "tests/guest/guest_net.h"
#include "tests/guest/guest_print.h"
#include "tests/guest/guest_region.h"

#define POOL_GPA       (1u << 20)
#define ASLEEP_NS      (30 * BASE_NS_PER_SECOND) /* far more than any timer of a service */
#define TSC_KHZ        2000000
#define STATUS_BUFFERS 19
#define CALL_POST      0x5c
#define MSR_OS_ID      0x40000000
#define MSR_HYPERCALL  0x40000001
#define MSR_VP_INDEX   0x40000002
#define MSR_TIME       0x40000020
#define REGISTERS      512

struct guest_host {
	struct hv_memory *memory;
	struct hv_slat *slat;
	struct hv_synic *synic;
	struct base_io_loop *loop;
	struct vmbus *bus;
	uint64_t registers[REGISTERS], hypercall_msr, bad, command;
	uint32_t vcpu; /* whose turn it is */
	struct base_io_task guest_task;
	bool in_background;
	bool end_asked;
};

/* What the guest's drivers know the machine by. */
uint8_t guest_ticks[SUPER_VCPUS_MAX * SUPER_STACK_BYTES];
struct guest_options guest_options;
uint64_t guest_vcpu_count, guest_tsc_khz, guest_lapic_khz;
struct guest_worker guest_workers[SUPER_VCPUS_MAX];
struct guest_command guest_command;
struct guest_region guest_region;

static struct guest_host *the;

static _Noreturn void give_up(const char *what)
{
	printf("guest_host: %s\n", what);
	if (the != NULL && the->bus != NULL)
		vmbus_dump(the->bus, stdout);
	(void)fflush(stdout);
	abort();
}

static void need(int code, const struct base_error *err)
{
	if (code < 0)
		give_up(err->text);
}

static void on_interrupt(void *context, uint32_t vp, uint8_t vector)
{
	uint64_t *count =
		(uint64_t *)(void *)(guest_ticks + (size_t)vp * SUPER_STACK_BYTES + SUPER_COUNT_HV);

	(void)context;
	if (vector == SUPER_VECTOR_HV)
		__atomic_fetch_add(count, 1, __ATOMIC_RELEASE);
}

static const struct hv_synic_ops synic_ops = { .interrupt = on_interrupt };

static void pump(void)
{
	while (base_io_loop_step(the->loop, false))
		continue;
}

static uint64_t hypercall(uint64_t control, uint64_t input)
{
	const uint8_t *message = (const uint8_t *)(input + guest_region.shift);
	enum hv_status status;
	uint32_t head[4];

	if (control != CALL_POST)
		return vmbus_hypercall_ops.signal_event(the->bus, (uint32_t)input,
							(uint16_t)(input >> 32));
	memcpy(head, message, sizeof(head));
	status = vmbus_hypercall_ops.post_message(the->bus, head[0], head[2],
						  message + sizeof(head), head[3]);
	if (status == (enum hv_status)STATUS_BUFFERS)
		pump();
	return status;
}

static uint64_t read_msr(uint32_t msr)
{
	uint64_t value = 0;

	if (msr == MSR_HYPERCALL)
		return the->hypercall_msr;
	if (msr == MSR_VP_INDEX)
		return the->vcpu;
	if (msr == MSR_TIME)
		return base_clock_boot_ns(&base_clock_system) / 100;
	if (hv_synic_read_msr(the->synic, the->vcpu, msr, &value) < 0)
		give_up("the guest reads a register that is not there");
	return value;
}

static void write_msr(uint32_t msr, uint64_t value)
{
	if (msr == MSR_OS_ID)
		return;
	if (msr == MSR_HYPERCALL)
		the->hypercall_msr = value;
	else if (hv_synic_write_msr(the->synic, the->vcpu, msr, value) < 0)
		give_up("the guest writes a register that does not take it");
}

uint64_t guest_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c)
{
	switch (number) {
	case SUPER_HYPERCALL:
		return hypercall(b, c);
	case SUPER_MSR_READ:
		return read_msr((uint32_t)a);
	case SUPER_MSR_WRITE:
		write_msr((uint32_t)a, b);
		return 0;
	default:
		return 0;
	}
}

struct guest_cpuid guest_cpuid(uint32_t leaf)
{
	if (leaf == 1)
		return (struct guest_cpuid){ .ecx = 1u << 31 };
	if (leaf == 0x40000000)
		return (struct guest_cpuid){ 0x40000005, 0x7263694d, 0x666f736f, 0x76482074 };
	return (struct guest_cpuid){ .eax = UINT32_MAX };
}

void *guest_region_take(uint64_t bytes)
{
	uint64_t at = guest_region.pool_at;

	guest_region.pool_at += (bytes + HV_PAGE_BYTES - 1) & ~(uint64_t)(HV_PAGE_BYTES - 1);
	if (guest_region.pool_at > guest_region.pool_end)
		give_up("the pool is too small");
	return (void *)at;
}

void guest_line_text(struct guest_line *line, const char *text)
{
	size_t room = sizeof(line->text) - line->used, length = strlen(text);

	if (length > room)
		length = room;
	memcpy(line->text + line->used, text, length);
	line->used += (uint32_t)length;
}

void guest_line_number(struct guest_line *line, const char *name, uint64_t value)
{
	char text[32];

	guest_line_text(line, name);
	(void)snprintf(text, sizeof(text), "%" PRIu64, value);
	guest_line_text(line, text);
}

void guest_line_hex(struct guest_line *line, const char *name, uint64_t value, unsigned int digits)
{
	char text[32];

	guest_line_text(line, name);
	(void)snprintf(text, sizeof(text), "%0*" PRIx64, (int)digits, value);
	guest_line_text(line, text);
}

void guest_line_send(struct guest_line *line)
{
	printf("%.*s\n", (int)line->used, line->text);
	line->used = 0;
}

void guest_die(const char *what, const char *detail)
{
	printf("guest: FATAL %s%s\n", what, detail);
	give_up("the guest cannot go on");
}

void guest_work_bad(struct guest_worker *w, const char *what, uint64_t which,
		    const uint64_t *want_got, const char *kind)
{
	the->bad++;
	w->bad++;
	printf("guest: BAD %s%" PRIu64 " want=%" PRIu64 " got=%" PRIu64 " kind=%s vcpu=%" PRIu64
	       "\n",
	       what, which, want_got[0], want_got[1], kind, w->vcpu);
}

uint64_t guest_work_observe(struct guest_worker *w)
{
	the->vcpu = (uint32_t)w->vcpu;
	(void)base_io_loop_step(the->loop, false);
	w->run_tsc = guest_tsc();
	return w->run_tsc;
}

void guest_control_ask_end(bool with_reset)
{
	(void)with_reset;
	the->end_asked = true;
}

static void make_bus(struct guest_host *host)
{
	const struct vmbus_options options = { .slat = host->slat,
					       .synic = host->synic,
					       .loop = host->loop,
					       .vcpu_count = (uint32_t)guest_vcpu_count,
					       .vm_name = "test" };
	struct base_error err = { .code = 0 };

	need(vmbus_new(&options, &host->bus, &err), &err);
}

void guest_host_new_bus(struct guest_host *host)
{
	vmbus_free(host->bus);
	make_bus(host);
}

struct guest_host *guest_host_new(uint32_t vcpus, const char *cmdline)
{
	struct base_error err = { .code = 0 };
	struct guest_host *host = calloc(1, sizeof(*host));
	char word[GUEST_WORD_BYTES];

	if (host == NULL || !guest_cmdline_parse(cmdline, &guest_options, word))
		give_up("the command line");
	the = host;
	need(hv_memory_new(GUEST_HOST_MEMORY_BYTES, HV_MEMORY_AUTO, &host->memory, &err), &err);
	need(hv_slat_new(host->memory, -1, &host->slat, &err), &err);
	need(hv_synic_new(host->slat, vcpus, &synic_ops, host, &host->synic, &err), &err);
	need(base_io_loop_new(&(struct base_io_loop_options){ .clock = NULL }, &host->loop, &err),
	     &err);
	guest_vcpu_count = vcpus;
	make_bus(host);
	guest_tsc_khz = TSC_KHZ;
	guest_region.shift = (uint64_t)hv_slat_view(host->slat, 0, GUEST_HOST_MEMORY_BYTES);
	guest_region.pool_at = guest_region.shift + POOL_GPA;
	guest_region.pool_end = guest_region.pool_at + guest_hv_pool_bytes();
	if (guest_region.pool_end > guest_region.shift + GUEST_HOST_MEMORY_BYTES)
		give_up("the pool does not fit into memory");
	for (uint32_t i = 0; i < vcpus; i++)
		guest_workers[i].vcpu = i;
	return host;
}

void guest_host_free(struct guest_host *host)
{
	vmbus_free(host->bus);
	pump();
	base_io_loop_free(host->loop);
	hv_synic_free(host->synic);
	hv_slat_free(host->slat);
	hv_memory_free(host->memory);
	free(host);
	the = NULL;
}

struct vmbus *guest_host_bus(struct guest_host *host)
{
	return host->bus;
}

struct hv_slat *guest_host_slat(struct guest_host *host)
{
	return host->slat;
}

struct base_io_loop *guest_host_loop(struct guest_host *host)
{
	return host->loop;
}

void guest_host_boot(struct guest_host *host)
{
	guest_hv_init();
	for (uint32_t i = 0; i < guest_vcpu_count; i++) {
		host->vcpu = i;
		guest_hv_start_vcpu(i);
	}
	host->vcpu = 0;
	guest_hv_begin();
}

bool guest_host_turn(struct guest_host *host)
{
	uint64_t posted = guest_bus.posted + guest_bus.received + guest_hv_signals();
	bool ran = base_io_loop_step(host->loop, false);

	for (uint32_t i = 0; i < guest_vcpu_count; i++) {
		uint64_t before = guest_hv_interrupts(i);

		host->vcpu = i;
		guest_hv_poll(&guest_workers[i]);
		ran |= before != guest_hv_interrupts(i);
	}
	return ran || posted != guest_bus.posted + guest_bus.received + guest_hv_signals();
}

static void poll_all(struct guest_host *host)
{
	for (uint32_t i = 0; i < guest_vcpu_count; i++) {
		host->vcpu = i;
		guest_hv_poll(&guest_workers[i]);
	}
}

static void background_turn(struct base_io_task *task)
{
	struct guest_host *host = the;

	if (!host->in_background)
		return;
	poll_all(host);
	base_io_post(host->loop, task);
}

void guest_host_background(struct guest_host *host, bool on)
{
	host->in_background = on;
	host->guest_task.run = background_turn;
	if (on)
		base_io_post(host->loop, &host->guest_task);
	else
		(void)base_io_loop_step(host->loop, false);
}

static void put(uint64_t offset, uint64_t value)
{
	the->registers[offset / 8] = value;
}

uint64_t guest_host_get(struct guest_host *host, uint32_t offset)
{
	guest_hv_put(put);
	return host->registers[offset / 8];
}

void guest_host_until(struct guest_host *host, uint32_t offset, uint64_t least)
{
	uint64_t busy_ns = base_clock_boot_ns(&base_clock_system), now_ns;

	while (guest_host_get(host, offset) < least) {
		now_ns = base_clock_boot_ns(&base_clock_system);
		if (guest_host_turn(host))
			busy_ns = now_ns;
		else if (now_ns - busy_ns > ASLEEP_NS)
			give_up("all have gone to sleep");
	}
}

uint64_t guest_host_command(struct guest_host *host, enum testpage_opcode opcode, uint64_t arg0,
			    uint64_t arg1, uint64_t arg2)
{
	const struct guest_command command = { .number = ++host->command,
					       .opcode = opcode,
					       .args = { arg0, arg1, arg2 } };
	uint64_t sum = 0;

	/* vCPU 0 last: it may wait for the others */
	for (uint64_t i = guest_vcpu_count; i-- > 0;) {
		host->vcpu = (uint32_t)i;
		if (opcode == TESTPAGE_NET_SOURCE)
			sum += guest_net_command(&guest_workers[i], &command);
		else
			sum += guest_disk_command(&guest_workers[i], &command);
	}
	return sum;
}

uint64_t guest_host_bad(struct guest_host *host)
{
	return host->bad;
}

bool guest_host_end_asked(struct guest_host *host)
{
	return host->end_asked;
}
