/* SPDX-License-Identifier: Apache-2.0 */
/* A controller over fake channels, disks on a fake store, guest memory without a guest. */
#ifndef TESTS_UNIT_STORVSP_STORVSP_RIG_H
#define TESTS_UNIT_STORVSP_STORVSP_RIG_H

#include "hypervisor/memory.h"
#include "hypervisor/slat.h"
#include "hypervisor/storvsp/storvsp.h"
#include "tests/support/disk_lab.h"
#include "tests/unit/storvsp/fake_vmbus.h"

#define RIG_MEMORY (64ULL << 20)
#define RIG_DISK   (16ULL << 20)

struct rig {
	struct disk_lab lab;
	struct hv_memory *memory;
	struct hv_slat *slat;
	struct storvsp *storvsp;
	struct vmbus_channel *channel;
	struct disk *disk;
	uint64_t trans_id;
};

static struct rig rig;

static inline void rig_controller(void)
{
	struct storvsp_options options = {
		.slat = rig.slat,
		.loops = { rig.lab.loop },
		.loop_count = 1,
		.vcpu_count = 3,
		.vm_name = "test",
	};

	options.instance.bytes[0] = 0x5a;
	base_assert(storvsp_new(&options, &rig.storvsp, NULL) == 0);
	rig.channel = fake_channels[0];
}

static inline void rig_attach(uint32_t lun, struct disk *disk)
{
	const struct storvsp_medium medium = { .kind = STORVSP_DISK,
					       .disk = disk,
					       .write_cache = true };

	base_assert(storvsp_attach(rig.storvsp, lun, &medium, NULL) == 0);
}

static inline void rig_init(void)
{
	memset(&rig, 0, sizeof(rig));
	fake_quiesced = false;
	disk_lab_init(&rig.lab);
	disk_lab_make(&rig.lab, "a.img", DISK_RAW, DISK_DYNAMIC, RIG_DISK, NULL);
	rig.disk = disk_lab_open(&rig.lab, "a.img");
	base_assert(hv_memory_new(RIG_MEMORY, HV_MEMORY_SMALL, &rig.memory, NULL) == 0);
	base_assert(hv_slat_new(rig.memory, -1, &rig.slat, NULL) == 0);
	rig_controller();
	rig_attach(0, rig.disk);
	rig.trans_id = 1;
}

static inline void rig_settle(void)
{
	disk_lab_settle(&rig.lab);
}

static inline void rig_fini(void)
{
	storvsp_free(rig.storvsp);
	disk_close(rig.disk);
	hv_slat_free(rig.slat);
	hv_memory_free(rig.memory);
	disk_lab_fini(&rig.lab);
}

/* A message that is no command; its answer's status, or UINT32_MAX: none. */
static inline uint32_t rig_message(uint32_t operation, uint16_t word)
{
	struct fake_packet *packet = fake_put(rig.channel, VMBUS_PACKET_INBAND, 999);
	const struct fake_packet *answer = NULL;

	base_put_le32(packet->payload, operation);
	base_put_le16(packet->payload + 12, word);
	rig_settle();
	answer = fake_get(rig.channel);
	if (answer == NULL || answer->type != VMBUS_PACKET_COMPLETION || answer->trans_id != 999)
		return UINT32_MAX;
	base_assert(base_get_le32(answer->payload) == 1);
	return base_get_le32(answer->payload + 8);
}

static inline void rig_start(void)
{
	fake_open(rig.channel);
	base_assert(rig_message(7, 0) == 0);
	base_assert(rig_message(9, 0x0602) == 0);
	base_assert(rig_message(10, 0) == 0);
	base_assert(rig_message(8, 0) == 0);
}

/* A command on its way: transaction id. */
static inline uint64_t rig_put(uint8_t lun, const uint8_t cdb[16], uint64_t gpa, uint32_t bytes)
{
	uint32_t count = (uint32_t)((gpa % 4096 + bytes + 4095) / 4096);
	struct fake_packet *packet =
		fake_put(rig.channel, bytes > 0 ? VMBUS_PACKET_GPA_DIRECT : VMBUS_PACKET_INBAND,
			 rig.trans_id);
	uint8_t *message = packet->payload;

	base_put_le32(message, 3);
	message[12 + 7] = lun;
	message[12 + 8] = 16;
	base_put_le32(message + 12 + 12, bytes);
	memcpy(message + 12 + 16, cdb, 16);
	packet->header = calloc(count + 1, 16);
	base_assert(packet->header != NULL);
	packet->header_bytes = count * 16;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t part = 4096 - gpa % 4096;
		uint64_t length = part < bytes ? part : bytes;

		memcpy(packet->header + 16 * (size_t)i, &gpa, 8);
		memcpy(packet->header + 16 * (size_t)i + 8, &length, 8);
		gpa += length;
		bytes -= (uint32_t)length;
	}
	return rig.trans_id++;
}

/* READ(16) or WRITE(16). */
static inline uint64_t rig_io(bool write, uint64_t offset, uint64_t gpa, uint32_t bytes)
{
	uint8_t cdb[16] = { write ? 0x8a : 0x88 };

	for (uint32_t i = 0; i < 8; i++)
		cdb[2 + i] = (uint8_t)(offset / 512 >> (56 - 8 * i));
	for (uint32_t i = 0; i < 4; i++)
		cdb[10 + i] = (uint8_t)(bytes / 512 >> (24 - 8 * i));
	return rig_put(0, cdb, gpa, bytes);
}

struct rig_answer {
	bool there;
	uint64_t trans_id;
	uint8_t srb_status, scsi_status, key, asc, ascq;
	uint32_t bytes;
};

static inline struct rig_answer rig_get(void)
{
	const struct fake_packet *packet = fake_get(rig.channel);
	struct rig_answer answer = { .there = packet != NULL };

	if (packet == NULL)
		return answer;
	answer.trans_id = packet->trans_id;
	answer.srb_status = packet->payload[14];
	answer.scsi_status = packet->payload[15];
	answer.bytes = base_get_le32(packet->payload + 24);
	if (answer.srb_status == 0x84) {
		answer.key = packet->payload[28 + 2];
		answer.asc = packet->payload[28 + 12];
		answer.ascq = packet->payload[28 + 13];
	}
	return answer;
}

/* The operation of an unsolicited message; 0: there is none. */
static inline uint8_t rig_told(void)
{
	const struct fake_packet *packet = fake_get(rig.channel);

	return packet == NULL || packet->trans_id != 0 ? 0 : packet->payload[0];
}

static inline struct rig_answer rig_do(uint8_t lun, const uint8_t cdb[16], uint64_t gpa,
				       uint32_t bytes)
{
	uint64_t id = rig_put(lun, cdb, gpa, bytes);
	struct rig_answer answer;

	rig_settle();
	answer = rig_get();
	base_assert(!answer.there || answer.trans_id == id);
	return answer;
}

static inline void rig_fill(uint64_t gpa, uint64_t offset, uint32_t bytes, uint32_t version)
{
	uint8_t *data = malloc(bytes);

	base_assert(data != NULL);
	lab_fill(data, offset, bytes, version);
	base_assert(hv_slat_write(rig.slat, gpa, data, bytes) == 0);
	free(data);
}

static inline bool rig_holds(uint64_t gpa, uint64_t offset, uint32_t bytes, uint32_t version)
{
	uint8_t *data = malloc(bytes);
	bool same = false;

	base_assert(data != NULL);
	base_assert(hv_slat_read(rig.slat, gpa, data, bytes) == 0);
	same = lab_differs(data, offset, bytes, version) == UINT64_MAX;
	free(data);
	return same;
}

static inline void rig_plan(struct fake_store_plan plan)
{
	fake_store_set_plan(rig.lab.store, &plan);
}

static inline void rig_quiesce(void)
{
	fake_quiesced = true;
	base_assert(storvsp_service_ops.quiesce(rig.storvsp, NULL) == 0);
}

static inline void rig_resume(void)
{
	storvsp_service_ops.resume(rig.storvsp);
	fake_quiesced = false;
	for (uint32_t i = 0; i < FAKE_CHANNELS; i++) {
		if (fake_channels[i] != NULL && fake_channels[i]->open)
			vmbus_channel_again(fake_channels[i]);
	}
}

#endif
