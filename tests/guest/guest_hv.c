/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_hv.h.  Source: Hypervisor Top-Level Functional Specification 6.0b. */
#include "tests/guest/guest_hv.h"

#include <stddef.h>

#include "tests/guest/guest_bytes.h"
#include "tests/guest/guest_call.h"
#include "tests/guest/guest_disk.h"
#include "tests/guest/guest_ic.h"
#include "tests/guest/guest_net.h"
#include "tests/guest/guest_print.h"
#include "tests/guest/guest_region.h"

#define CPUID_FEATURES  1
#define CPUID_PRESENT   (1u << 31)
#define CPUID_HV        0x40000000
#define CPUID_HV_PRIVS  0x40000003
#define PRIV_SYNIC      (1u << 2)
#define PRIV_HYPERCALL  (1u << 5)
#define PRIV_VP_INDEX   (1u << 6)
#define PRIV_REFERENCE  (1u << 1)
#define MSR_OS_ID       0x40000000
#define MSR_HYPERCALL   0x40000001
#define MSR_VP_INDEX    0x40000002
#define MSR_TIME        0x40000020
#define MSR_SCONTROL    0x40000080
#define MSR_SIEFP       0x40000082
#define MSR_SIMP        0x40000083
#define MSR_EOM         0x40000084
#define MSR_SINT2       0x40000092
#define OS_ID           0x8200000000000001 /* open source, of no known kind */
#define CALL_POST       0x5c
#define CALL_SIGNAL     (0x5d | 1 << 16) /* fast */
#define STATUS_BUFFERS  19
#define SINT            2
#define SLOT_BYTES      256
#define FLAG_WORDS      32
#define POST_TRIES      5000
#define POST_PAUSE_US   200
#define DRAIN_ROUNDS    8
#define PUBLISH_EVERY   16
#define PACKET_BYTES    16384
#define RING_DISK_BYTES (256u << 10)
#define RING_NET_BYTES  (512u << 10)
#define RING_IC_BYTES   (32u << 10)
#define POOL_BASE_BYTES (1u << 20)
#define PAGE            4096
#define ENABLED         1

struct hv_cpu {
	uint8_t *messages; /* SIMP */
	uint64_t *flags;   /* SIEFP, the words of SINT 2 */
	uint8_t *buffer;   /* a packet read from a ring */
	uint64_t seen;     /* interrupts looked at */
	uint32_t vp;
	uint64_t signals;
} __attribute__((aligned(64)));

struct guest_bus guest_bus;
bool guest_hv_active;

static struct hv_cpu cpus[SUPER_VCPUS_MAX];
static bool signal_due[GUEST_CHANNELS_MAX]; /* the owner's */
static uint64_t hypercall_page;
static uint8_t post_page[SLOT_BYTES] __attribute__((aligned(SLOT_BYTES)));
static uint32_t watched_received;
static uint64_t watched_since;

extern uint8_t guest_ticks[]; /* the supervisor's stacks: guest.ld */

uint64_t guest_hv_interrupts(uint64_t vcpu)
{
	const uint8_t *page = guest_ticks + vcpu * SUPER_STACK_BYTES;

	return __atomic_load_n((const uint64_t *)(const void *)(page + SUPER_COUNT_HV),
			       __ATOMIC_ACQUIRE);
}

uint64_t guest_hv_signals(void)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < guest_vcpu_count; i++)
		sum += __atomic_load_n(&cpus[i].signals, __ATOMIC_RELAXED);
	return sum;
}

static uint32_t ring_bytes(enum guest_class class)
{
	return class == GUEST_CLASS_SCSI  ? RING_DISK_BYTES
	       : class == GUEST_CLASS_NIC ? RING_NET_BYTES
					  : RING_IC_BYTES;
}

uint64_t guest_hv_pool_bytes(void)
{
	uint64_t bytes = POOL_BASE_BYTES + guest_vcpu_count * (2 * PAGE + PACKET_BYTES);

	if (!guest_cmdline_wants_hv(&guest_options))
		return 0;
	if (guest_options.disk != GUEST_DISK_NONE)
		bytes += guest_vcpu_count * RING_DISK_BYTES + guest_disk_pool_bytes();
	if (guest_options.net != 0)
		bytes += guest_vcpu_count * RING_NET_BYTES + guest_net_pool_bytes();
	return bytes;
}

static void detect(void)
{
	struct guest_cpuid leaf = guest_cpuid(CPUID_FEATURES);
	uint32_t need = PRIV_SYNIC | PRIV_HYPERCALL | PRIV_VP_INDEX | PRIV_REFERENCE;

	if ((leaf.ecx & CPUID_PRESENT) == 0)
		guest_die("no hypervisor says that it is there", "");
	leaf = guest_cpuid(CPUID_HV);
	if (leaf.ebx != 0x7263694d || leaf.ecx != 0x666f736f || leaf.edx != 0x76482074)
		guest_die("the hypervisor is not Hyper-V", "");
	leaf = guest_cpuid(CPUID_HV_PRIVS);
	if ((leaf.eax & need) != need)
		guest_die("Hyper-V does not grant hypercalls, VP index, clock and SynIC", "");
}

void guest_hv_init(void)
{
	uint64_t register_value;

	if (!guest_cmdline_wants_hv(&guest_options))
		return;
	detect();
	hypercall_page = guest_hv_address(guest_region_take(PAGE));
	guest_call(SUPER_MSR_WRITE, MSR_OS_ID, OS_ID, 0);
	guest_call(SUPER_MSR_WRITE, MSR_HYPERCALL, hypercall_page | ENABLED, 0);
	register_value = guest_call(SUPER_MSR_READ, MSR_HYPERCALL, 0, 0);
	if (register_value != (hypercall_page | ENABLED))
		guest_die("the hypercall page is not where it was put", "");
	for (uint64_t i = 0; i < guest_vcpu_count; i++) {
		cpus[i].messages = guest_region_take(PAGE);
		cpus[i].flags = guest_region_take(PAGE);
		cpus[i].flags += SINT * SLOT_BYTES / sizeof(uint64_t);
		cpus[i].buffer = guest_region_take(PACKET_BYTES);
	}
	guest_hv_active = true;
}

void guest_hv_start_vcpu(uint64_t vcpu)
{
	struct hv_cpu *cpu = &cpus[vcpu];

	if (!guest_hv_active)
		return;
	cpu->vp = (uint32_t)guest_call(SUPER_MSR_READ, MSR_VP_INDEX, 0, 0);
	guest_call(SUPER_MSR_WRITE, MSR_SIMP, guest_hv_address(cpu->messages) | ENABLED, 0);
	guest_call(SUPER_MSR_WRITE, MSR_SIEFP,
		   (guest_hv_address((uint8_t *)cpu->flags) & ~(uint64_t)(PAGE - 1)) | ENABLED, 0);
	guest_call(SUPER_MSR_WRITE, MSR_SINT2, SUPER_VECTOR_HV, 0);
	guest_call(SUPER_MSR_WRITE, MSR_SCONTROL, ENABLED, 0);
}

void guest_hv_begin(void)
{
	if (!guest_hv_active)
		return;
	watched_since = guest_workers[0].active_tsc;
	guest_bus_start(&guest_bus, cpus[0].vp);
}

uint64_t guest_hv_reference_time(void)
{
	return guest_call(SUPER_MSR_READ, MSR_TIME, 0, 0);
}

uint64_t guest_hv_call_page(void)
{
	return hypercall_page;
}

uint32_t guest_hv_vp(uint32_t vcpu)
{
	return cpus[vcpu].vp;
}

uint64_t guest_hv_address(const uint8_t *at)
{
	return (uint64_t)at - guest_region.shift;
}

static void pause_us(uint64_t us)
{
	uint64_t from = guest_tsc();

	while (guest_tsc() - from < us * guest_tsc_khz / 1000)
		__builtin_ia32_pause();
}

uint32_t guest_hv_post(uint32_t connection, const uint8_t *payload, uint32_t bytes)
{
	uint32_t status = STATUS_BUFFERS;

	guest_put32(post_page, connection);
	guest_put32(post_page + 4, 0);
	guest_put32(post_page + 8, 1);
	guest_put32(post_page + 12, bytes);
	__builtin_memcpy(post_page + 16, payload, bytes);
	for (unsigned int i = 0; i < POST_TRIES && status == STATUS_BUFFERS; i++) {
		if (i > 0)
			pause_us(POST_PAUSE_US);
		status = (uint32_t)guest_call(SUPER_HYPERCALL, hypercall_page, CALL_POST,
					      guest_hv_address(post_page)) &
			 0xffff;
	}
	return status;
}

bool guest_hv_is_open(const struct guest_channel *channel)
{
	return __atomic_load_n(&channel->state, __ATOMIC_ACQUIRE) == GUEST_CHANNEL_OPEN;
}

bool guest_hv_send(struct guest_channel *channel, const struct guest_packet *packet)
{
	return guest_ring_write(&channel->ring, packet, &signal_due[channel - guest_bus.channels]);
}

bool guest_hv_stalled(const struct guest_worker *w, uint64_t since)
{
	return w->active_tsc > since &&
	       w->active_tsc - since > guest_options.stall_ms * guest_tsc_khz;
}

static bool wanted(const struct guest_channel *channel)
{
	switch (channel->class) {
	case GUEST_CLASS_SCSI:
		return guest_disk_wants(channel);
	case GUEST_CLASS_NIC:
		return guest_net_wants(channel);
	case GUEST_CLASS_HEARTBEAT:
	case GUEST_CLASS_SHUTDOWN:
	case GUEST_CLASS_TIMESYNC:
	case GUEST_CLASS_KVP:
	case GUEST_CLASS_VSS:
		return guest_options.ic != 0;
	case GUEST_CLASS_OTHER:
	case GUEST_CLASSES:
	default:
		return false;
	}
}

/* Which vCPU serves it: disks from vCPU 0 up, network queues from vCPU 1 up, the rest vCPU 0. */
static uint32_t vcpu_for(const struct guest_channel *channel)
{
	if (channel->class == GUEST_CLASS_SCSI)
		return (uint32_t)(channel->sub_index % guest_vcpu_count);
	if (channel->class == GUEST_CLASS_NIC)
		return (uint32_t)((channel->sub_index + 1u) % guest_vcpu_count);
	return 0;
}

static void open_if_wanted(struct guest_channel *channel)
{
	if (channel->state != GUEST_CHANNEL_OFFERED || !wanted(channel))
		return;
	if (channel->ring_at == NULL) {
		channel->ring_bytes = ring_bytes(channel->class);
		channel->ring_at = guest_region_take(channel->ring_bytes);
	}
	guest_bus_open(&guest_bus, channel, vcpu_for(channel));
}

static void print_offer(const struct guest_channel *channel)
{
	struct guest_line line = { .used = 0 };

	guest_line_number(&line, "guest: offer relid=", channel->relid);
	guest_line_text(&line, " class=");
	guest_line_text(&line, guest_class_names[channel->class]);
	guest_line_number(&line, " sub=", channel->sub_index);
	guest_line_send(&line);
}

static void print_bus(void)
{
	struct guest_line line = { .used = 0 };

	guest_line_hex(&line, "guest: bus version=0x", guest_bus.version, 1);
	guest_line_number(&line, " offers=", guest_bus.offer_count);
	guest_line_send(&line);
}

/* Devices only once all offers are there: the order of offers must not matter. */
void guest_bus_event(struct guest_bus *bus, enum guest_bus_event event,
		     struct guest_channel *channel)
{
	switch (event) {
	case GUEST_BUS_CONNECTED:
		print_bus();
		for (unsigned int i = 0; i < GUEST_CHANNELS_MAX; i++)
			open_if_wanted(&bus->channels[i]);
		break;
	case GUEST_BUS_OFFERED:
		print_offer(channel);
		if (bus->state == GUEST_BUS_READY)
			open_if_wanted(channel);
		break;
	case GUEST_BUS_GONE:
	case GUEST_BUS_OPENED:
	case GUEST_BUS_CLOSED:
	default:
		break;
	}
}

void guest_hv_close(enum guest_class class)
{
	for (unsigned int i = GUEST_CHANNELS_MAX; i-- > 0;) {
		struct guest_channel *channel = &guest_bus.channels[i];

		/* sub-channels first: they came later */
		if (channel->class == class && channel->state == GUEST_CHANNEL_OPEN)
			guest_bus_close(&guest_bus, channel);
	}
}

bool guest_hv_is_closed(enum guest_class class)
{
	for (unsigned int i = 0; i < GUEST_CHANNELS_MAX; i++) {
		const struct guest_channel *channel = &guest_bus.channels[i];

		if (channel->class == class && channel->state > GUEST_CHANNEL_OFFERED)
			return false;
	}
	return true;
}

void guest_hv_reopen(enum guest_class class)
{
	for (unsigned int i = 0; i < GUEST_CHANNELS_MAX; i++) {
		struct guest_channel *channel = &guest_bus.channels[i];

		if (channel->class == class && channel->sub_index == 0)
			open_if_wanted(channel);
	}
}

/* The message slot of this vCPU.  Freed before it is acted on: more may come meanwhile. */
static void take_messages(struct guest_worker *w, struct hv_cpu *cpu)
{
	uint8_t *slot = cpu->messages + SINT * SLOT_BYTES;
	uint32_t *type = (uint32_t *)(void *)slot;
	uint8_t payload[GUEST_MESSAGE_BYTES];

	while (__atomic_load_n(type, __ATOMIC_ACQUIRE) != 0) {
		uint32_t bytes = slot[4];

		if (bytes > GUEST_MESSAGE_BYTES)
			bytes = GUEST_MESSAGE_BYTES;
		__builtin_memcpy(payload, slot + 16, bytes);
		__atomic_store_n(type, 0, __ATOMIC_SEQ_CST);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if ((__atomic_load_n(slot + 5, __ATOMIC_ACQUIRE) & 1) != 0)
			guest_call(SUPER_MSR_WRITE, MSR_EOM, 0, 0);
		if (w->vcpu == 0) {
			guest_bus_message(&guest_bus, payload, bytes);
		} else {
			uint64_t want_got[2] = { 0, w->vcpu };

			guest_work_bad(w, "message=", guest_get32(payload), want_got, "vcpu");
		}
	}
}

static void take_flags(struct hv_cpu *cpu)
{
	for (uint32_t word = 0; word < FLAG_WORDS; word++) {
		uint64_t bits;

		if (__atomic_load_n(&cpu->flags[word], __ATOMIC_RELAXED) == 0)
			continue;
		bits = __atomic_exchange_n(&cpu->flags[word], 0, __ATOMIC_ACQ_REL);
		for (; bits != 0; bits &= bits - 1) {
			uint32_t relid = word * 64 + (uint32_t)__builtin_ctzll(bits);
			struct guest_channel *channel = guest_bus_channel(&guest_bus, relid);

			if (channel != NULL)
				__atomic_store_n(&channel->pending, true, __ATOMIC_RELEASE);
		}
	}
}

static void deliver(struct guest_worker *w, struct guest_channel *channel,
		    const struct guest_packet *packet)
{
	if (channel->class == GUEST_CLASS_SCSI)
		guest_disk_packet(w, channel, packet);
	else if (channel->class == GUEST_CLASS_NIC)
		guest_net_packet(w, channel, packet);
	else
		guest_ic_packet(w, channel, packet);
}

/* Read until it is empty.  Return: false when there may be more. */
static bool drain(struct guest_worker *w, struct guest_channel *channel)
{
	bool *signal = &signal_due[channel - guest_bus.channels];
	struct guest_packet packet;
	uint32_t count = 0;
	int got;

	while ((got = guest_ring_read(&channel->ring, cpus[w->vcpu].buffer, PACKET_BYTES,
				      &packet)) > 0) {
		deliver(w, channel, &packet);
		if (!guest_hv_is_open(channel))
			return true;
		if (++count % PUBLISH_EVERY == 0 && guest_ring_publish(&channel->ring))
			*signal = true;
	}
	if (guest_ring_publish(&channel->ring))
		*signal = true;
	if (got < 0) {
		uint64_t want_got[2] = { 0, channel->relid };

		guest_work_bad(w, "relid=", channel->relid, want_got, "ring");
		guest_die("what the host put into a ring is no packet", "");
	}
	return guest_ring_is_empty(&channel->ring);
}

static void serve(struct guest_worker *w, struct guest_channel *channel)
{
	bool event = guest_options.irq == GUEST_IRQ_EVENT;

	if (event && !__atomic_exchange_n(&channel->pending, false, __ATOMIC_ACQ_REL))
		return;
	if (!event && guest_ring_is_empty(&channel->ring))
		return;
	guest_ring_mask(&channel->ring, true);
	for (unsigned int i = 0; i < DRAIN_ROUNDS; i++) {
		(void)drain(w, channel);
		if (!event || !guest_hv_is_open(channel))
			return;
		guest_ring_mask(&channel->ring, false);
		if (guest_ring_is_empty(&channel->ring))
			return;
		guest_ring_mask(&channel->ring, true);
	}
	__atomic_store_n(&channel->pending, true, __ATOMIC_RELEASE);
}

static void flush_signal(uint64_t vcpu, struct guest_channel *channel)
{
	bool *due = &signal_due[channel - guest_bus.channels];

	if (!*due)
		return;
	*due = false;
	if (!guest_hv_is_open(channel))
		return;
	cpus[vcpu].signals++;
	guest_call(SUPER_HYPERCALL, hypercall_page, CALL_SIGNAL, channel->connection);
}

/* vCPU 0: the host owes an answer, and nothing has come for long. */
static void watch_bus(struct guest_worker *w)
{
	bool waiting = guest_bus.state == GUEST_BUS_CONTACT || guest_bus.state == GUEST_BUS_OFFERS;
	uint64_t want_got[2] = { guest_bus.received + 1, guest_bus.received };

	if (guest_bus.state == GUEST_BUS_REFUSED)
		guest_die("VMBus: ", guest_bus.failure);
	for (uint32_t i = 0; i < guest_bus.place_count; i++)
		waiting |= guest_bus.channels[i].state == GUEST_CHANNEL_GPADL ||
			   guest_bus.channels[i].state == GUEST_CHANNEL_OPENING ||
			   guest_bus.channels[i].state == GUEST_CHANNEL_CLOSING;
	if (!waiting || guest_bus.received != watched_received) {
		watched_received = guest_bus.received;
		watched_since = w->active_tsc;
	} else if (guest_hv_stalled(w, watched_since)) {
		guest_work_bad(w, "bus=", (uint64_t)guest_bus.state, want_got, "stalled");
		watched_since = w->active_tsc;
	}
}

void guest_hv_poll(struct guest_worker *w)
{
	struct hv_cpu *cpu = &cpus[w->vcpu];
	uint32_t places;
	uint64_t count;

	if (!guest_hv_active)
		return;
	count = guest_hv_interrupts(w->vcpu);
	if (count != cpu->seen) {
		cpu->seen = count;
		take_messages(w, cpu);
		take_flags(cpu);
	}
	if (w->vcpu == 0)
		watch_bus(w);
	places = __atomic_load_n(&guest_bus.place_count, __ATOMIC_ACQUIRE);
	for (uint32_t i = 0; i < places; i++) {
		struct guest_channel *channel = &guest_bus.channels[i];

		if (guest_hv_is_open(channel) && channel->vcpu == w->vcpu)
			serve(w, channel);
	}
	guest_disk_poll(w);
	guest_net_poll(w);
	for (uint32_t i = 0; i < places; i++)
		if (guest_bus.channels[i].vcpu == w->vcpu)
			flush_signal(w->vcpu, &guest_bus.channels[i]);
}

void guest_hv_wait(const struct guest_worker *w)
{
	if (guest_hv_active)
		guest_call(SUPER_WAIT, cpus[w->vcpu].seen, 0, 0);
	else
		guest_call(SUPER_IDLE, 0, 0, 0);
}

void guest_hv_put(void (*put)(uint64_t offset, uint64_t value))
{
	if (!guest_hv_active)
		return;
	put(TESTPAGE_HV_SIGNALS, guest_hv_signals());
	put(TESTPAGE_HV_OFFERS, guest_bus.offer_count);
	put(TESTPAGE_HV_VERSION, guest_bus.state == GUEST_BUS_READY ? guest_bus.version : 0);
	for (uint64_t i = 0; i < guest_vcpu_count && i < TESTPAGE_HV_IRQS_MAX; i++)
		put(TESTPAGE_HV_IRQS(i), guest_hv_interrupts(i));
	guest_disk_put(put);
	guest_net_put(put);
	guest_ic_put(put);
}
