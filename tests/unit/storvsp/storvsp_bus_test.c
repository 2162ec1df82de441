/* SPDX-License-Identifier: Apache-2.0 */
/* The storage service on the bus itself, with a guest's end of it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "hypervisor/storvsp/storvsp.h"
#include "tests/support/disk_lab.h"
#include "tests/support/vmbus_guest.h"

#define SCSI      "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"
#define DISK_SIZE (16ULL << 20)

static struct vmbus_guest *guest;
static struct storvsp *storvsp;
static struct disk_lab lab;
static struct disk *disk;
static struct disk_guid class_scsi;
static struct vmbus_guest_channel channel;

static void controller(void)
{
	const struct storvsp_medium medium = { .kind = STORVSP_DISK,
					       .disk = disk,
					       .write_cache = true };
	struct storvsp_options options = {
		.bus = vmbus_guest_bus(guest),
		.slat = vmbus_guest_slat(guest),
		.loops = { vmbus_guest_loop(guest) },
		.loop_count = 1,
		.vcpu_count = 2,
		.vm_name = "test",
	};

	options.instance.bytes[3] = 0x77;
	cr_assert_eq(storvsp_new(&options, &storvsp, NULL), 0);
	cr_assert_eq(storvsp_attach(storvsp, 0, &medium, NULL), 0);
}

static void setup(void)
{
	const struct vmbus_guest_opts opts = { .vcpus = 2 };

	guest = vmbus_guest_new(&opts);
	/* The disk lives on the loop of the bus, so that one thread pumps both. */
	disk_lab_init(&lab);
	base_io_loop_free(lab.loop);
	lab.loop = vmbus_guest_loop(guest);
	disk_lab_make(&lab, "a.img", DISK_RAW, DISK_DYNAMIC, DISK_SIZE, NULL);
	disk = disk_lab_open(&lab, "a.img");
	controller();
	cr_assert(disk_guid_parse(SCSI, strlen(SCSI), &class_scsi));
}

static void teardown(void)
{
	storvsp_free(storvsp);
	disk_close(disk);
	store_free(lab.store);
	vmbus_guest_free(guest);
}

TestSuite(storvsp_bus, .init = setup, .fini = teardown);

/* A message of the start sequence; its answer's status. */
static uint32_t message(uint32_t operation, uint16_t word)
{
	uint8_t bytes[64] = { 0 };
	static struct vmbus_guest_packet packet;

	base_put_le32(bytes, operation);
	base_put_le16(bytes + 12, word);
	cr_assert_eq(vmbus_guest_send_inband(&channel, UINT64_MAX - 2, bytes, 64, true), 0);
	cr_assert(vmbus_guest_receive(&channel, &packet));
	cr_assert_eq(packet.type, 11);
	cr_assert_eq(packet.trans_id, UINT64_MAX - 2);
	cr_assert_eq(packet.payload_bytes, 64);
	return base_get_le32(packet.bytes + packet.header_bytes + 8);
}

static void start(void)
{
	const struct vmbus_guest_offer *offer = NULL;

	vmbus_guest_connect(guest);
	offer = vmbus_guest_offer(guest, &class_scsi, 0);
	cr_assert_not_null(offer);
	cr_assert_eq(vmbus_guest_open(guest, offer, 0, &channel), 0);
	cr_assert_eq(message(7, 0), 0);
	cr_assert_eq(message(9, 0x0602), 0);
	cr_assert_eq(message(10, 0), 0);
	cr_assert_eq(message(8, 0), 0);
}

static void command(uint64_t id, uint8_t opcode, uint64_t lba, uint16_t blocks,
		    const uint64_t *pfns)
{
	uint8_t bytes[64] = { 3 };

	bytes[12 + 8] = 10;
	base_put_le32(bytes + 12 + 12, blocks * 512U);
	bytes[28] = opcode;
	for (uint32_t i = 0; i < 4; i++)
		bytes[28 + 2 + i] = (uint8_t)(lba >> (24 - 8 * i));
	bytes[28 + 7] = (uint8_t)(blocks >> 8);
	bytes[28 + 8] = (uint8_t)blocks;
	if (blocks == 0)
		cr_assert_eq(vmbus_guest_send_inband(&channel, id, bytes, 64, true), 0);
	else
		cr_assert_eq(
			vmbus_guest_send_direct(&channel, id, bytes, 64, pfns, 0, blocks * 512U),
			0);
}

static void is_done(uint64_t id, uint32_t moved)
{
	static struct vmbus_guest_packet packet;

	cr_assert(vmbus_guest_receive(&channel, &packet));
	cr_assert_eq(packet.trans_id, id);
	cr_assert_eq(packet.bytes[packet.header_bytes + 14], 1);
	cr_assert_eq(base_get_le32(packet.bytes + packet.header_bytes + 24), moved);
}

Test(storvsp_bus, a_guest_writes_and_reads)
{
	uint64_t pfns[16];
	uint64_t back[16];

	start();
	vmbus_guest_scattered(guest, 16, pfns);
	vmbus_guest_scattered(guest, 16, back);
	for (uint32_t i = 0; i < 16; i++)
		lab_fill(vmbus_guest_at(guest, pfns[i] * 4096, 4096), 4096ULL * i, 4096, 3);
	command(1, 0x2a, 0, 128, pfns);
	is_done(1, 65536);
	cr_assert_eq(lab_verify(disk, 0, 65536, 3), 0);
	command(2, 0x28, 0, 128, back);
	is_done(2, 65536);
	for (uint32_t i = 0; i < 16; i++)
		cr_assert_eq(lab_differs(vmbus_guest_at(guest, back[i] * 4096, 4096), 4096ULL * i,
					 4096, 3),
			     UINT64_MAX);
	command(3, 0x35, 0, 0, NULL);
	is_done(3, 0);
	cr_assert(vmbus_guest_event(&channel));
}

Test(storvsp_bus, sub_channels_come_and_go)
{
	const struct vmbus_guest_offer *offer = NULL;

	start();
	cr_assert_eq(message(13, 1), 0);
	offer = vmbus_guest_offer(guest, &class_scsi, 1);
	cr_assert_not_null(offer);
	vmbus_guest_close(&channel);
	cr_assert_neq(vmbus_guest_rescinded(guest), 0);
}

Test(storvsp_bus, saved_and_restored)
{
	struct base_buffer bus_state = { .size_bytes = 0 };
	struct base_buffer state = { .size_bytes = 0 };
	struct base_reader in;
	struct base_error err = { .code = 0 };
	uint64_t pfns[2];

	start();
	vmbus_guest_scattered(guest, 2, pfns);
	lab_fill(vmbus_guest_at(guest, pfns[0] * 4096, 4096), 0, 4096, 5);
	fake_store_set_plan(lab.store, &(struct fake_store_plan){ .fail_at = 1,
								  .fail_forever = true,
								  .fail_code = -ENOSPC });
	command(7, 0x2a, 0, 8, pfns);
	vmbus_guest_run(guest);
	cr_assert_eq(vmbus_service_ops.quiesce(vmbus_guest_bus(guest), NULL), 0);
	cr_assert_eq(storvsp_service_ops.quiesce(storvsp, NULL), 0);
	cr_assert_eq(vmbus_service_ops.section_count(vmbus_guest_bus(guest)), 1);
	cr_assert_eq(vmbus_service_ops.save(vmbus_guest_bus(guest), 0, &bus_state, NULL), 0);
	cr_assert_eq(storvsp_service_ops.save(storvsp, 0, &state, NULL), 0);

	storvsp_free(storvsp);
	vmbus_guest_new_bus(guest);
	controller();
	cr_assert_eq(vmbus_service_ops.quiesce(vmbus_guest_bus(guest), NULL), 0);
	cr_assert_eq(storvsp_service_ops.quiesce(storvsp, NULL), 0);
	in = base_reader_over(bus_state.data, bus_state.size_bytes);
	cr_assert_eq(
		vmbus_service_ops.load(vmbus_guest_bus(guest), 0,
				       vmbus_service_ops.section(vmbus_guest_bus(guest), 0).version,
				       &in, &err),
		0, "%s", err.text);
	in = base_reader_over(state.data, state.size_bytes);
	cr_assert_eq(storvsp_service_ops.load(storvsp, 0, 1, &in, &err), 0, "%s", err.text);
	cr_assert_eq(vmbus_service_ops.loaded(vmbus_guest_bus(guest), &err), 0, "%s", err.text);
	cr_assert_eq(storvsp_service_ops.loaded(storvsp, &err), 0, "%s", err.text);
	fake_store_set_plan(lab.store, &(struct fake_store_plan){ .fail_at = 0 });
	storvsp_service_ops.resume(storvsp);
	vmbus_service_ops.resume(vmbus_guest_bus(guest));
	disk_retry(disk);
	is_done(7, 4096);
	cr_assert_eq(lab_verify(disk, 0, 4096, 5), 0);
	command(8, 0x28, 0, 8, pfns + 1);
	is_done(8, 4096);
	cr_assert_eq(lab_differs(vmbus_guest_at(guest, pfns[1] * 4096, 4096), 0, 4096, 5),
		     UINT64_MAX);
	base_buffer_fini(&bus_state);
	base_buffer_fini(&state);
}
