/* SPDX-License-Identifier: Apache-2.0 */
/* One command at a time for the tests of the SCSI layer: set up, run, look. */
#ifndef TESTS_UNIT_STORVSP_SCSI_RIG_H
#define TESTS_UNIT_STORVSP_SCSI_RIG_H
#include "hypervisor/storvsp/scsi.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#define GIB    (1ULL << 30)
#define BLOCKS (64 * GIB / 512)

static struct scsi_unit unit;
static struct scsi_command command;
static struct scsi_plan plan;
static _Alignas(512) uint8_t data[SCSI_DATA_BYTES];

static inline void setup(void)
{
	unit = (struct scsi_unit){
		.has_medium = true,
		.write_cache = true,
		.size_bytes = 64 * GIB,
		.block_bytes = 512,
		.physical_block_bytes = 4096,
		.unmap_bytes = 1 << 20,
		.transfer_bytes_max = 1 << 20,
		.luns = 5,
	};
	for (uint8_t i = 0; i < 16; i++)
		unit.id.bytes[i] = (uint8_t)(0x10 + i);
	memset(data, 0xee, sizeof(data));
	plan = (struct scsi_plan){ .data = data };
	command = (struct scsi_command){ .transfer_bytes = 65536 };
}

static inline void put(uint32_t at, uint32_t bytes, uint64_t value)
{
	for (uint32_t i = 0; i < bytes; i++)
		command.cdb[at + i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

static inline uint64_t get(const uint8_t *from, uint32_t bytes)
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < bytes; i++)
		value = value << 8 | from[i];
	return value;
}

static inline void run(void)
{
	scsi_plan(&unit, &command, &plan);
}

/* A command by its first byte and the others as given. */
static inline void cdb(uint8_t opcode, uint8_t one)
{
	memset(command.cdb, 0, sizeof(command.cdb));
	command.cdb[0] = opcode;
	command.cdb[1] = one;
}

static inline void is_check(uint8_t key, uint8_t asc, uint8_t ascq)
{
	cr_assert_eq(plan.action, SCSI_ANSWER);
	cr_assert_eq(plan.status, SCSI_CHECK_CONDITION);
	cr_assert_eq(plan.sense.key, key, "key %x", plan.sense.key);
	cr_assert_eq(plan.sense.asc, asc, "asc %x", plan.sense.asc);
	cr_assert_eq(plan.sense.ascq, ascq, "ascq %x", plan.sense.ascq);
	cr_assert_eq(plan.data_bytes, 0);
}

static inline void is_good(uint32_t bytes)
{
	cr_assert_eq(plan.action, SCSI_ANSWER);
	cr_assert_eq(plan.status, SCSI_GOOD, "%x/%x", plan.sense.key, plan.sense.asc);
	cr_assert_eq(plan.data_bytes, bytes, "%u bytes", plan.data_bytes);
}

#endif
