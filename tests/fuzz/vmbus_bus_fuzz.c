/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole bus driven by bytes: messages, signals, words of a ring, quiescing, save and restore in
 * the middle, and a saved section.
 *
 * The first byte chooses: a section to be loaded (1; 2 with devices there already), or a run of
 * records {u8 what, u8 length, bytes}. Nothing may crash, hang, leave the bus so that it cannot be
 * freed, or write into guest memory without a mark; what a bus saves, a new one loads.
 *
 * Memory and loop are made once; the bus is a new one for each input.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "hypervisor/synic_priv.h"
#include "hypervisor/vmbus/vmbus_priv.h"
#include "tests/fuzz/block_cache.h"
#include "tests/fuzz/fuzz_memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VPS           2u
#define SIMP_PAGE     0x8f0u /* message pages of the processors, then their event flags */
#define SIEFP_PAGE    (SIMP_PAGE + VPS)
#define RING_PAGE     0x900u /* where seeds put a ring; its words can be written by a record */
#define RING_PAGES    17u    /* as far as a record can write */
#define RECORDS_MAX   200u
#define SECTION_BYTES 65536u
#define PART_BYTES    64u
#define VIEWS         4u

static struct {
	struct fuzz_memory memory;
	struct base_fake_clock time;
	struct base_clock clock;
	struct hv_synic *synic;
	struct base_io_loop *loop;
	struct vmbus *bus;
	struct vmbus_channel *channels[2];
	struct vmbus_gpadl *held; /* by channel 0 */
} rig;

static void no_interrupt(void *context, uint32_t vp, uint8_t vector)
{
	(void)context;
	(void)vp;
	(void)vector;
}

static const struct hv_synic_ops synic_ops = { .interrupt = no_interrupt };

static int opened(void *device, struct vmbus_channel *channel,
		  const uint8_t user_data[VMBUS_USER_DATA_BYTES])
{
	(void)device;
	(void)channel;
	return user_data[0] == 0xff ? -ENOMEM : 0;
}

static int each(void *context, const struct vmbus_gpa_piece *piece, uint32_t range)
{
	uint64_t *sum = context;

	*sum += piece->length_bytes + range;
	return 0;
}

static void let_go(void)
{
	vmbus_gpadl_unref(base_take(&rig.held));
}

/* What a device does with a page list that a packet names. */
static void use_gpadl(struct vmbus_channel *channel, const struct vmbus_packet *packet)
{
	struct hv_slat_window windows[VIEWS];
	struct iovec views[VIEWS];
	uint8_t bytes[PART_BYTES];
	struct vmbus_gpadl *gpadl = NULL;
	uint32_t offset = 0;
	int count = 0;

	if (packet->payload_bytes < 8 || channel != rig.channels[0] ||
	    vmbus_gpadl_ref(channel, base_get_le32(packet->payload), &gpadl) < 0)
		return;
	let_go();
	rig.held = gpadl;
	offset = base_get_le32(packet->payload + 4);
	if (vmbus_gpadl_read(gpadl, offset, bytes, sizeof(bytes)) == 0 &&
	    vmbus_gpadl_write(gpadl, offset, bytes, sizeof(bytes)) < 0)
		abort();
	if (vmbus_gpadl_view(gpadl, offset, vmbus_gpadl_size(gpadl) / 2, views, VIEWS) < 0)
		return;
	count = vmbus_gpadl_windows(gpadl, offset, vmbus_gpadl_size(gpadl) / 2, windows, VIEWS);
	if (count < 0)
		abort();
	while (count-- > 0)
		hv_slat_window_end(&windows[count]);
}

static void gpadl_torn(void *device, struct vmbus_channel *channel, struct vmbus_gpadl *gpadl)
{
	(void)device;
	(void)channel;
	if (gpadl == rig.held)
		let_go();
}

static void ready(void *device, struct vmbus_channel *channel)
{
	struct vmbus_packet packet;
	uint64_t sum = 0;

	(void)device;
	while (vmbus_receive(channel, &packet) > 0) {
		const struct vmbus_send send = { .type = VMBUS_PACKET_COMPLETION,
						 .trans_id = packet.trans_id,
						 .payload = packet.payload,
						 .payload_bytes = packet.payload_bytes };

		if (packet.type == VMBUS_PACKET_GPA_DIRECT &&
		    vmbus_gpa_walk(&packet, each, &sum) < 0)
			vmbus_channel_break(channel, "ranges");
		use_gpadl(channel, &packet);
		if (vmbus_send(channel, &send) < 0)
			return;
	}
}

static void closing(void *device, struct vmbus_channel *channel)
{
	if (device == &rig.channels[0])
		let_go();
	vmbus_channel_closed(channel);
}

static void gone(void *device, struct vmbus_channel *channel)
{
	struct vmbus_channel **held = device;

	if (channel == rig.channels[0])
		let_go();
	*held = NULL;
}

static const struct vmbus_channel_ops ops = {
	.opened = opened,
	.ready = ready,
	.closing = closing,
	.gpadl_torn = gpadl_torn,
	.gone = gone,
};

static void offer(uint32_t index)
{
	struct vmbus_offer offer = { .type = { { 1 } },
				     .instance = { { 2 } },
				     .sub_index = (uint16_t)index,
				     .loop = rig.loop,
				     .ops = &ops,
				     .device = &rig.channels[index],
				     .name = "fuzz" };

	if (rig.channels[index] == NULL &&
	    vmbus_offer(rig.bus, &offer, &rig.channels[index], NULL) < 0)
		rig.channels[index] = NULL; /* it goes, but the guest has not let go of it */
}

static void run(void)
{
	for (uint32_t turn = 0; base_io_loop_step(rig.loop, false); turn++)
		if (turn == 100000)
			abort();
}

/* What hv_vmbus does first: each processor's pages, and its interrupt. */
static void switch_on(uint32_t vp)
{
	if (hv_synic_write_msr(rig.synic, vp, HV_MSR_SIMP,
			       (SIMP_PAGE + vp) * HV_PAGE_BYTES | HV_SYNIC_ENABLE) < 0 ||
	    hv_synic_write_msr(rig.synic, vp, HV_MSR_SIEFP,
			       (SIEFP_PAGE + vp) * HV_PAGE_BYTES | HV_SYNIC_ENABLE) < 0 ||
	    hv_synic_write_msr(rig.synic, vp, HV_MSR_SINT0 + HV_SINT_VMBUS, 0x40) < 0 ||
	    hv_synic_write_msr(rig.synic, vp, HV_MSR_SCONTROL, HV_SYNIC_ENABLE) < 0)
		abort();
}

/* The guest takes the messages that wait for it, on all processors. */
static void take_messages(void)
{
	static const uint8_t none[4];
	uint8_t type[4];

	for (uint32_t vp = 0; vp < VPS; vp++) {
		uint64_t slot = (SIMP_PAGE + vp) * HV_PAGE_BYTES +
				(uint64_t)HV_SINT_VMBUS * HV_MESSAGE_BYTES;

		for (uint32_t i = 0; i <= HV_SYNIC_QUEUE_MAX; i++) {
			if (hv_slat_read(rig.memory.slat, slot, type, sizeof(type)) < 0)
				abort();
			if (base_get_le32(type) == 0)
				break;
			if (hv_slat_write(rig.memory.slat, slot, none, sizeof(none)) < 0 ||
			    hv_synic_write_msr(rig.synic, vp, HV_MSR_EOM, 0) < 0)
				abort();
		}
	}
}

static void make_once(void)
{
	struct base_io_loop_options options = { .without_ring = true };

	base_log_init(2, BASE_LOG_ERR);
	fuzz_memory_init(&rig.memory);
	rig.clock = base_clock_fake(&rig.time);
	options.clock = &rig.clock;
	if (base_io_loop_new(&options, &rig.loop, NULL) < 0)
		abort();
}

static void make_bus(void)
{
	const struct vmbus_options options = {
		.slat = rig.memory.slat,
		.synic = rig.synic,
		.loop = rig.loop,
		.vcpu_count = VPS,
		.vm_name = "fuzz",
	};

	if (vmbus_new(&options, &rig.bus, NULL) < 0)
		abort();
}

static void begin(void)
{
	if (rig.loop == NULL)
		make_once();
	rig.time = (struct base_fake_clock){ .boot_ns = BASE_NS_PER_SECOND };
	if (hv_synic_new(rig.memory.slat, VPS, &synic_ops, NULL, &rig.synic, NULL) < 0)
		abort();
	for (uint32_t vp = 0; vp < VPS; vp++)
		switch_on(vp);
	make_bus();
}

static void free_bus(void)
{
	let_go();
	for (uint32_t i = 0; i < 2; i++)
		vmbus_channel_free(base_take(&rig.channels[i]));
	vmbus_free(base_take(&rig.bus));
}

static void end(void)
{
	free_bus();
	if (base_io_loop_step(rig.loop, false))
		abort(); /* something was left behind */
	hv_synic_free(rig.synic);
	fuzz_memory_reset(&rig.memory, SIMP_PAGE, RING_PAGE + RING_PAGES - SIMP_PAGE);
	if (block_cache_used() != 0)
		abort();
}

static void quiesce_and_resume(void)
{
	if (vmbus_service_ops.quiesce(rig.bus, NULL) < 0)
		abort();
	vmbus_service_ops.resume(rig.bus);
}

/* What is saved of whatever state it is in is taken by a new bus, and the guest goes on there. */
static void save_and_restore(void)
{
	struct base_buffer saved = { .data = NULL };
	struct base_reader in;

	if (vmbus_service_ops.quiesce(rig.bus, NULL) < 0 ||
	    vmbus_service_ops.save(rig.bus, 0, &saved, NULL) < 0)
		abort();
	free_bus();
	make_bus();
	in = base_reader_over(saved.data, saved.size_bytes);
	offer(0);
	if (vmbus_service_ops.quiesce(rig.bus, NULL) < 0 ||
	    vmbus_service_ops.load(rig.bus, 0, 1, &in, NULL) < 0)
		abort();
	offer(1);
	if (vmbus_service_ops.loaded(rig.bus, NULL) < 0)
		abort();
	base_buffer_fini(&saved);
	vmbus_service_ops.resume(rig.bus);
}

static void record(uint8_t what, const uint8_t *bytes, uint32_t length)
{
	switch (what % 9) {
	case 0:
		(void)vmbus_hypercall_ops.post_message(rig.bus, 4, 1, bytes, length);
		break;
	case 1:
		if (length >= 4)
			(void)vmbus_hypercall_ops.signal_event(rig.bus, base_get_le32(bytes), 0);
		break;
	case 2: /* {u16 offset in the ring's pages, bytes} */
		if (length > 2 &&
		    hv_slat_write(rig.memory.slat, RING_PAGE * HV_PAGE_BYTES + base_get_le16(bytes),
				  bytes + 2, length - 2) < 0)
			abort();
		break;
	case 3:
		quiesce_and_resume();
		break;
	case 4:
		if (rig.channels[1] != NULL)
			vmbus_retract(rig.channels[1]);
		break;
	case 5:
		offer(1);
		break;
	case 6:
		take_messages();
		break;
	case 7:
		if (rig.channels[0] != NULL && vmbus_channel_is_open(rig.channels[0]))
			vmbus_channel_break(rig.channels[0], "because");
		break;
	default:
		save_and_restore();
		break;
	}
	run();
}

static void drive(const uint8_t *data, size_t size)
{
	struct base_reader in = base_reader_over(data, size);

	offer(0);
	offer(1);
	run();
	for (uint32_t i = 0; i < RECORDS_MAX && base_reader_left(&in) >= 2; i++) {
		uint8_t what = base_read_u8(&in);
		uint32_t length = base_read_u8(&in);
		const uint8_t *bytes = NULL;

		if (length > HV_MESSAGE_PAYLOAD_BYTES)
			length = HV_MESSAGE_PAYLOAD_BYTES;
		if (length > base_reader_left(&in))
			length = (uint32_t)base_reader_left(&in);
		bytes = base_read_span(&in, length);
		record(what, bytes, length);
	}
}

/* What is taken is written again as it was, but for what is gone for good.  Devices come before it,
 * or in the middle and late. */
static void restore(const uint8_t *data, size_t size, bool devices_first)
{
	struct base_reader in = base_reader_over(data, size);
	struct base_buffer out = { .data = NULL };

	if (devices_first) {
		offer(0);
		offer(1);
		run();
	}
	if (vmbus_service_ops.quiesce(rig.bus, NULL) < 0)
		abort();
	if (size <= SECTION_BYTES && vmbus_service_ops.load(rig.bus, 0, 1, &in, NULL) == 0) {
		offer(0);
		if (vmbus_service_ops.loaded(rig.bus, NULL) < 0)
			abort();
		offer(1);
		if (vmbus_service_ops.save(rig.bus, 0, &out, NULL) < 0)
			abort();
		base_buffer_fini(&out);
	}
	vmbus_service_ops.resume(rig.bus);
	run();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	begin();
	if (data[0] == 1 || data[0] == 2)
		restore(data + 1, size - 1, data[0] == 2);
	else
		drive(data + 1, size - 1);
	end();
	return 0;
}
