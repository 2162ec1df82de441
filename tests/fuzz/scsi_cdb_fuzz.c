/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI commands: whatever the CDB, the unit and the parameters are, the plan stays inside the
 * disk, the guest's buffer and the data buffer; and how the I/O then ends becomes an answer.
 * Input: 16 bytes CDB, unit flags, attention (upper half: how I/O ends), log of the size, le32
 * bytes of transfer, and the parameters.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/storvsp/scsi.h"

#define HEADER_BYTES 23

/* NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static void need(bool condition)
{
	if (!condition)
		abort();
}

static void inside(const struct scsi_unit *unit, uint64_t offset, uint64_t length)
{
	need(offset <= unit->size_bytes && length <= unit->size_bytes - offset);
}

/* The plan's I/O has ended with one of what disks give: a final answer without data. */
static void end_with(struct scsi_plan *plan, uint8_t which)
{
	static const int results[] = { 0,       -EIO,       -EOPNOTSUPP, -EINVAL, -EROFS,  -ENOSPC,
				       -ENODEV, -ETIMEDOUT, -ECANCELED,  -ENOMEM, -EBADMSG };
	uint8_t sense[SCSI_SENSE_BYTES];

	scsi_result(plan, results[which % (sizeof(results) / sizeof(results[0]))]);
	need(plan->action == SCSI_ANSWER && plan->data_bytes == 0);
	need((plan->status == SCSI_CHECK_CONDITION) == (plan->sense.key != SCSI_KEY_NONE));
	scsi_sense_encode(&plan->sense, sense);
	need(sense[2] == plan->sense.key && sense[7] == SCSI_SENSE_BYTES - 8);
}

/* The same command for a LUN that is not there. */
static void absent(const struct scsi_command *command, struct scsi_plan *plan)
{
	if (!scsi_plan_absent(command, UINT64_MAX, plan))
		return;
	need(plan->action == SCSI_ANSWER);
	need(plan->data_bytes <= command->transfer_bytes && plan->data_bytes <= SCSI_DATA_BYTES);
}

static void check(const struct scsi_unit *unit, const struct scsi_command *command,
		  const struct scsi_plan *plan)
{
	uint64_t offset = 0;
	uint64_t length = 0;

	switch (plan->action) {
	case SCSI_ANSWER:
		need(plan->data_bytes <= command->transfer_bytes);
		need(plan->data_bytes <= SCSI_DATA_BYTES);
		return;
	case SCSI_READ:
	case SCSI_WRITE:
		need(plan->length_bytes <= command->transfer_bytes);
		need(plan->length_bytes > 0 && plan->length_bytes <= unit->transfer_bytes_max);
		inside(unit, plan->offset_bytes, plan->length_bytes);
		break;
	case SCSI_ZERO:
	case SCSI_FILL:
		need(plan->length_bytes > 0);
		inside(unit, plan->offset_bytes, plan->length_bytes);
		break;
	case SCSI_UNMAP:
		need(plan->range_count > 0 && plan->range_count <= SCSI_UNMAP_RANGES_MAX);
		for (uint32_t i = 0; i < plan->range_count; i++) {
			scsi_unmap_range(unit, plan, i, &offset, &length);
			inside(unit, offset, length);
		}
		break;
	case SCSI_FLUSH:
		break;
	case SCSI_PARAMETERS:
	case SCSI_INVALID:
	case SCSI_ACTIONS:
		abort();
	}
	need(!unit->dvd || plan->action == SCSI_READ);
	need(!unit->read_only || plan->action == SCSI_READ);
	need(unit->has_medium);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct scsi_unit unit = { .transfer_bytes_max = 1 << 20, .luns = 0x8001 };
	struct scsi_command command = { .transfer_bytes = 0 };
	struct scsi_plan plan = { .data = NULL };
	uint8_t flags = 0;

	if (size < HEADER_BYTES)
		return 0;
	plan.data = aligned_alloc(512, SCSI_DATA_BYTES);
	need(plan.data != NULL);
	memset(plan.data, 0, SCSI_DATA_BYTES);
	memcpy(command.cdb, input, sizeof(command.cdb));
	flags = input[16];
	unit.dvd = (flags & 1) != 0;
	unit.has_medium = !unit.dvd || (flags & 2) != 0;
	unit.read_only = unit.dvd || (flags & 4) != 0;
	unit.locked = (flags & 8) != 0;
	unit.block_bytes = unit.dvd ? 2048 : (flags & 16) != 0 ? 4096 : 512;
	unit.physical_block_bytes = 4096;
	unit.unmap_bytes = (flags & 32) != 0 ? 1 << 20 : 0;
	command.attention = input[17] & SCSI_ATTENTIONS;
	unit.size_bytes = 4096ULL << input[18] % 44;
	command.transfer_bytes = base_get_le32(input + 19);
	scsi_plan(&unit, &command, &plan);
	if (plan.action == SCSI_PARAMETERS) {
		need(plan.length_bytes <= SCSI_DATA_BYTES);
		need(plan.length_bytes <= command.transfer_bytes);
		memcpy(plan.data, input + HEADER_BYTES,
		       size - HEADER_BYTES < plan.length_bytes ? size - HEADER_BYTES
							       : plan.length_bytes);
		scsi_plan_parameters(&unit, &command, &plan);
	}
	check(&unit, &command, &plan);
	need(scsi_name(command.cdb[0])[0] != '\0');
	if (plan.action != SCSI_ANSWER)
		end_with(&plan, input[17] >> 4);
	absent(&command, &plan);
	free(plan.data);
	return 0;
}
