/* SPDX-License-Identifier: Apache-2.0 */
/* Commands on blocks: reading, writing, flushing, unmapping, capacity. */
#include <stddef.h>

#include "base/bytes.h"
#include "hypervisor/storvsp/scsi_priv.h"

struct extent {
	uint64_t lba;
	uint64_t count; /* blocks */
};

static bool is_read_or_write6(uint8_t opcode)
{
	return opcode == 0x08 || opcode == 0x0a;
}

/* The upper three bits of an operation code give the CDB's length, and that where these are. */
static struct extent extent_of(const uint8_t *cdb)
{
	struct extent extent = { .lba = 0 };

	switch (cdb[0] >> 5) {
	case 0:
		extent.lba = base_get_be32(cdb) & 0x1fffff;
		extent.count = cdb[4] == 0 ? 256 : cdb[4];
		break;
	case 4:
		extent.lba = base_get_be64(cdb + 2);
		extent.count = base_get_be32(cdb + 10);
		break;
	case 5:
		extent.lba = base_get_be32(cdb + 2);
		extent.count = base_get_be32(cdb + 6);
		break;
	default:
		extent.lba = base_get_be32(cdb + 2);
		extent.count = base_get_be16(cdb + 7);
		break;
	}
	return extent;
}

/* Bytes of the extent into the plan; false: it is outside, and refused. */
static bool extent_take(const struct scsi_call *call, struct extent extent)
{
	uint64_t blocks = call->unit->size_bytes / call->unit->block_bytes;

	if (extent.lba > blocks || extent.count > blocks - extent.lba) {
		scsi_refuse(call->plan, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_LBA_RANGE);
		return false;
	}
	call->plan->offset_bytes = extent.lba * call->unit->block_bytes;
	call->plan->length_bytes = extent.count * call->unit->block_bytes;
	return true;
}

/* READ and WRITE of whole blocks from or into the guest's buffer. */
static void transfer(const struct scsi_call *call, enum scsi_action action)
{
	struct extent extent = extent_of(call->cdb);

	/* RDPROTECT, WRPROTECT: there is no protection information. */
	if (!is_read_or_write6(call->cdb[0]) && call->cdb[1] >> 5 != 0) {
		scsi_refuse_field(call->plan);
		return;
	}
	if (!extent_take(call, extent))
		return;
	if (extent.count == 0) {
		scsi_good(call->plan);
		return;
	}
	if (call->plan->length_bytes > call->unit->transfer_bytes_max ||
	    call->plan->length_bytes > call->command->transfer_bytes) {
		scsi_refuse_field(call->plan);
		return;
	}
	call->plan->action = action;
	call->plan->fua = !is_read_or_write6(call->cdb[0]) && (call->cdb[1] & 8) != 0;
}

void scsi_read(const struct scsi_call *call)
{
	transfer(call, SCSI_READ);
}

void scsi_write(const struct scsi_call *call)
{
	transfer(call, SCSI_WRITE);
}

/* That the blocks are there; comparing (BYTCHK) is not offered. */
void scsi_verify(const struct scsi_call *call)
{
	if (call->cdb[1] >> 5 != 0 || (call->cdb[1] & 6) != 0)
		scsi_refuse_field(call->plan);
	else if (extent_take(call, extent_of(call->cdb)))
		scsi_good(call->plan);
}

/* The whole cache, whatever the range; count 0 means up to the end. */
void scsi_synchronize_cache(const struct scsi_call *call)
{
	if (!extent_take(call, extent_of(call->cdb)))
		return;
	if (call->unit->dvd || call->unit->read_only)
		scsi_good(call->plan);
	else
		call->plan->action = SCSI_FLUSH;
}

/* --- UNMAP --- */

void scsi_unmap(const struct scsi_call *call)
{
	if (call->unit->unmap_bytes == 0) {
		scsi_refuse(call->plan, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_OPCODE);
		return;
	}
	if ((call->cdb[1] & 1) != 0) { /* ANCHOR */
		scsi_refuse_field(call->plan);
		return;
	}
	scsi_want_parameters(call, base_get_be16(call->cdb + 7));
}

void scsi_unmap_range(const struct scsi_unit *unit, const struct scsi_plan *plan, uint32_t index,
		      uint64_t *ret_offset_bytes, uint64_t *ret_length_bytes)
{
	const uint8_t *range = plan->data + 8 + 16 * (size_t)index;

	*ret_offset_bytes = base_get_be64(range) * unit->block_bytes;
	*ret_length_bytes = (uint64_t)base_get_be32(range + 8) * unit->block_bytes;
}

/* All ranges are checked before the first takes effect. */
void scsi_unmap_list(const struct scsi_call *call)
{
	struct scsi_plan *plan = call->plan;
	uint32_t size = (uint32_t)plan->length_bytes;
	uint32_t ranges_bytes = size < 8 ? 0 : base_get_be16(plan->data + 2);
	uint32_t count = ranges_bytes / 16;

	if (size < 8 || ranges_bytes % 16 != 0 || ranges_bytes > size - 8) {
		scsi_refuse(plan, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LENGTH);
		return;
	}
	if (count > SCSI_UNMAP_RANGES_MAX) {
		scsi_refuse(plan, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_FIELD);
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct extent extent = {
			.lba = base_get_be64(plan->data + 8 + 16 * (size_t)i),
			.count = base_get_be32(plan->data + 16 + 16 * (size_t)i),
		};

		if (!extent_take(call, extent))
			return;
	}
	plan->offset_bytes = 0;
	plan->length_bytes = 0;
	plan->range_count = count;
	if (count == 0)
		scsi_good(plan);
	else
		plan->action = SCSI_UNMAP;
}

/* --- WRITE SAME --- */

static void zero(const struct scsi_call *call)
{
	call->plan->action = SCSI_ZERO;
	call->plan->may_unmap = (call->cdb[1] & 8) != 0; /* UNMAP */
}

void scsi_write_same(const struct scsi_call *call)
{
	bool sixteen = call->cdb[0] == 0x93;
	bool no_data = sixteen && (call->cdb[1] & 1) != 0; /* NDOB */
	struct extent extent = extent_of(call->cdb);
	uint32_t refused = 0x10 | (sixteen ? 0 : 7); /* ANCHOR; obsolete bits of the short one */

	if (call->cdb[1] >> 5 != 0 || (call->cdb[1] & refused) != 0 || extent.count == 0 ||
	    extent.count > SCSI_ZERO_BYTES_MAX / call->unit->block_bytes ||
	    ((call->cdb[1] & 8) != 0 && call->unit->unmap_bytes == 0)) {
		scsi_refuse_field(call->plan);
		return;
	}
	if (!extent_take(call, extent))
		return;
	if (no_data)
		zero(call);
	else
		scsi_want_parameters(call, call->unit->block_bytes);
}

void scsi_write_same_block(const struct scsi_call *call)
{
	struct scsi_plan *plan = call->plan;
	uint32_t block_bytes = call->unit->block_bytes;

	if (!extent_take(call, extent_of(call->cdb)))
		return;
	if (base_is_zero(plan->data, block_bytes)) {
		zero(call);
		return;
	}
	if (plan->length_bytes > SCSI_FILL_BYTES_MAX) {
		scsi_refuse_field(plan);
		return;
	}
	/* The whole buffer of it, so that one write can hold many blocks. */
	for (uint32_t at = block_bytes; at + block_bytes <= SCSI_DATA_BYTES; at += block_bytes)
		memcpy(plan->data + at, plan->data, block_bytes);
	plan->action = SCSI_FILL;
}

/* --- capacity --- */

void scsi_read_capacity10(const struct scsi_call *call)
{
	uint64_t last = call->unit->size_bytes / call->unit->block_bytes - 1;

	base_put_be32(call->plan->data, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
	base_put_be32(call->plan->data + 4, call->unit->block_bytes);
	scsi_good_data(call, 8, 8);
}

void scsi_read_capacity16(const struct scsi_call *call)
{
	uint8_t *data = call->plan->data;
	uint32_t ratio = call->unit->physical_block_bytes / call->unit->block_bytes;

	memset(data, 0, 32);
	base_put_be64(data, call->unit->size_bytes / call->unit->block_bytes - 1);
	base_put_be32(data + 8, call->unit->block_bytes);
	while (ratio > 1) {
		data[13]++; /* logical blocks per physical one, as an exponent */
		ratio /= 2;
	}
	if (call->unit->unmap_bytes != 0)
		data[14] = 0x80 | 0x40; /* LBPME, LBPRZ */
	scsi_good_data(call, 32, base_get_be32(call->cdb + 10));
}
