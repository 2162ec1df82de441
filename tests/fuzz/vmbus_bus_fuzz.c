/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole bus driven by bytes: messages, signals, words of a ring, quiescing, and a saved section.
 *
 * The first byte chooses: a section to be loaded, or a run of records {u8 what, u8 length, bytes}.
 * Nothing may crash, hang, or leave the bus so that it cannot be freed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "hypervisor/synic_priv.h"
#include "hypervisor/vmbus/vmbus_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY_BYTES  (64ULL << 20)
#define RING_PAGE     0x900u /* where seeds put a ring; its words can be written by a record */
#define RECORDS_MAX   200u
#define SECTION_BYTES 65536u

static struct {
	struct hv_memory *memory;
	struct hv_slat *slat;
	struct hv_synic *synic;
	struct base_io_loop *loop;
	struct vmbus *bus;
	struct vmbus_channel *channels[2];
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
		if (vmbus_send(channel, &send) < 0)
			return;
	}
}

static void closing(void *device, struct vmbus_channel *channel)
{
	(void)device;
	vmbus_channel_closed(channel);
}

static void gone(void *device, struct vmbus_channel *channel)
{
	struct vmbus_channel **held = device;

	(void)channel;
	*held = NULL;
}

static const struct vmbus_channel_ops ops = {
	.opened = opened,
	.ready = ready,
	.closing = closing,
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

static void begin(void)
{
	struct vmbus_options options = { .vcpu_count = 2, .vm_name = "fuzz" };

	if (rig.slat == NULL) {
		base_log_init(2, BASE_LOG_ERR);
		if (hv_memory_new(MEMORY_BYTES, HV_MEMORY_SMALL, &rig.memory, NULL) < 0 ||
		    hv_slat_new(rig.memory, -1, &rig.slat, NULL) < 0)
			abort();
	}
	if (hv_synic_new(rig.slat, 2, &synic_ops, NULL, &rig.synic, NULL) < 0 ||
	    base_io_loop_new(&(struct base_io_loop_options){ .without_ring = true }, &rig.loop,
			     NULL) < 0 ||
	    hv_slat_zero(rig.slat, RING_PAGE * HV_PAGE_BYTES, 8 * HV_PAGE_BYTES) < 0)
		abort();
	options.slat = rig.slat;
	options.synic = rig.synic;
	options.loop = rig.loop;
	if (vmbus_new(&options, &rig.bus, NULL) < 0)
		abort();
}

static void end(void)
{
	for (uint32_t i = 0; i < 2; i++)
		vmbus_channel_free(base_take(&rig.channels[i]));
	vmbus_free(rig.bus);
	base_io_loop_free(rig.loop);
	hv_synic_free(rig.synic);
}

static void quiesce_and_resume(void)
{
	if (vmbus_service_ops.quiesce(rig.bus, NULL) < 0)
		abort();
	vmbus_service_ops.resume(rig.bus);
}

static void record(uint8_t what, const uint8_t *bytes, uint32_t length)
{
	switch (what % 8) {
	case 0:
		(void)vmbus_hypercall_ops.post_message(rig.bus, 4, 1, bytes, length);
		break;
	case 1:
		if (length >= 4)
			(void)vmbus_hypercall_ops.signal_event(rig.bus, base_get_le32(bytes), 0);
		break;
	case 2: /* {u16 offset in the ring's pages, bytes} */
		if (length > 2 &&
		    hv_slat_write(rig.slat, RING_PAGE * HV_PAGE_BYTES + base_get_le16(bytes),
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
	case 6: /* messages are handled in one go, too */
		return;
	default:
		if (rig.channels[0] != NULL && vmbus_channel_is_open(rig.channels[0]))
			vmbus_channel_break(rig.channels[0], "because");
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

/* What is taken is written again as it was, but for what is gone for good. */
static void restore(const uint8_t *data, size_t size)
{
	struct base_reader in = base_reader_over(data, size);
	struct base_buffer out = { .data = NULL };

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
	if (data[0] == 1)
		restore(data + 1, size - 1);
	else
		drive(data + 1, size - 1);
	end();
	return 0;
}
