/* SPDX-License-Identifier: Apache-2.0 */
/* The table of SCSI commands, and those that belong to no other file. */
#include "hypervisor/storvsp/scsi.h"

#include <errno.h>
#include <stddef.h>

#include "hypervisor/storvsp/scsi_priv.h"

#define OPCODE_INQUIRY     0x12
#define OPCODE_REPORT_LUNS 0xa0

#define FOR_DISK   1u
#define FOR_DVD    2u
#define FOR_ALL    (FOR_DISK | FOR_DVD)
#define MEDIUM     4u  /* needs one */
#define CHANGES    8u  /* writes: not on a write-protected unit */
#define BEFORE_ALL 16u /* answered with a unit attention pending; it stays pending */
#define SERVICE    32u /* several commands share the operation code: service action in byte 1 */

struct row {
	uint8_t opcode;
	uint8_t service_action;
	uint8_t cdb_bytes;
	uint8_t flags;
	const char *name;
	scsi_handler handler;
	scsi_handler parameters; /* with the guest's parameters in plan->data */
};

void scsi_refuse(struct scsi_plan *plan, enum scsi_key key, enum scsi_asc asc)
{
	plan->action = SCSI_ANSWER;
	plan->effect = SCSI_EFFECT_NONE;
	plan->status = SCSI_CHECK_CONDITION;
	plan->sense.key = (uint8_t)key;
	plan->sense.asc = (uint8_t)(asc >> 8);
	plan->sense.ascq = (uint8_t)(asc & 0xff);
	plan->data_bytes = 0;
}

void scsi_refuse_field(struct scsi_plan *plan)
{
	scsi_refuse(plan, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_CDB_FIELD);
}

void scsi_good(struct scsi_plan *plan)
{
	plan->action = SCSI_ANSWER;
	plan->status = SCSI_GOOD;
	plan->data_bytes = 0;
}

void scsi_good_data(const struct scsi_call *call, uint32_t size_bytes, uint32_t allocation_bytes)
{
	uint32_t room = allocation_bytes < call->command->transfer_bytes
				? allocation_bytes
				: call->command->transfer_bytes;

	scsi_good(call->plan);
	call->plan->data_bytes = size_bytes < room ? size_bytes : room;
}

void scsi_want_parameters(const struct scsi_call *call, uint32_t size_bytes)
{
	if (size_bytes == 0) {
		scsi_good(call->plan);
		return;
	}
	if (size_bytes > SCSI_DATA_BYTES || size_bytes > call->command->transfer_bytes) {
		scsi_refuse(call->plan, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LENGTH);
		return;
	}
	call->plan->action = SCSI_PARAMETERS;
	call->plan->length_bytes = size_bytes;
}

/* --- unit attention --- */

static enum scsi_asc attention_asc(uint32_t attention)
{
	if ((attention & SCSI_ATTENTION_RESET) != 0)
		return SCSI_ASC_BUS_RESET;
	if ((attention & SCSI_ATTENTION_MEDIUM) != 0)
		return SCSI_ASC_MEDIUM_CHANGED;
	if ((attention & SCSI_ATTENTION_CAPACITY) != 0)
		return SCSI_ASC_CAPACITY_CHANGED;
	return SCSI_ASC_LUNS_CHANGED;
}

/* --- commands of the unit itself --- */

static void test_unit_ready(const struct scsi_call *call)
{
	scsi_good(call->plan);
}

/* Sense travels with each status, so there is only a unit attention or an empty drive to tell. */
static void request_sense(const struct scsi_call *call)
{
	struct scsi_sense sense = { .key = SCSI_KEY_NONE };
	uint32_t attention = call->command->attention;
	enum scsi_asc asc = SCSI_ASC_NONE;

	if ((call->cdb[1] & 1) != 0) { /* DESC: descriptor format */
		scsi_refuse_field(call->plan);
		return;
	}
	if (attention != 0) {
		sense.key = SCSI_KEY_UNIT_ATTENTION;
		asc = attention_asc(attention);
		call->plan->attention_told = attention & (~attention + 1); /* the lowest */
	} else if (!call->unit->has_medium) {
		sense.key = SCSI_KEY_NOT_READY;
		asc = SCSI_ASC_NO_MEDIUM;
	}
	sense.asc = (uint8_t)(asc >> 8);
	sense.ascq = (uint8_t)(asc & 0xff);
	scsi_sense_encode(&sense, call->plan->data);
	scsi_good_data(call, SCSI_SENSE_BYTES, call->cdb[4]);
}

static void report_luns(const struct scsi_call *call)
{
	uint8_t *data = call->plan->data;
	uint32_t count = 0;

	if (call->cdb[2] > 2) { /* SELECT REPORT */
		scsi_refuse_field(call->plan);
		return;
	}
	memset(data, 0, 8);
	for (uint32_t lun = 0; lun < SCSI_DATA_LUNS && call->cdb[2] != 1; lun++) {
		if ((call->unit->luns >> lun & 1) == 0)
			continue;
		memset(data + 8 + 8 * (size_t)count, 0, 8);
		data[8 + 8 * (size_t)count + 1] = (uint8_t)lun;
		count++;
	}
	base_put_be32(data, 8 * count);
	scsi_good_data(call, 8 + 8 * count, base_get_be32(call->cdb + 6));
}

static void start_stop(const struct scsi_call *call)
{
	bool start = (call->cdb[4] & 1) != 0;
	bool load_eject = (call->cdb[4] & 2) != 0;

	if ((call->cdb[4] >> 4) != 0) { /* POWER CONDITION */
		scsi_refuse_field(call->plan);
		return;
	}
	scsi_good(call->plan);
	if (!call->unit->dvd || !load_eject)
		return; /* there is nothing that spins */
	if (start)
		call->plan->effect = SCSI_EFFECT_LOAD;
	else if (call->unit->locked)
		scsi_refuse(call->plan, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_REMOVAL_PREVENTED);
	else
		call->plan->effect = SCSI_EFFECT_EJECT;
}

static void prevent_allow(const struct scsi_call *call)
{
	scsi_good(call->plan);
	if (!call->unit->dvd)
		return;
	call->plan->effect = (call->cdb[4] & 1) != 0 ? SCSI_EFFECT_LOCK : SCSI_EFFECT_UNLOCK;
}

static void report_opcodes(const struct scsi_call *call);

/* --- the table --- */

static const struct row rows[] = {
	{ 0x00, 0, 6, FOR_ALL | MEDIUM, "TEST UNIT READY", test_unit_ready, NULL },
	{ 0x03, 0, 6, FOR_ALL | BEFORE_ALL, "REQUEST SENSE", request_sense, NULL },
	{ 0x08, 0, 6, FOR_ALL | MEDIUM, "READ(6)", scsi_read, NULL },
	{ 0x0a, 0, 6, FOR_DISK | MEDIUM | CHANGES, "WRITE(6)", scsi_write, NULL },
	{ 0x12, 0, 6, FOR_ALL | BEFORE_ALL, "INQUIRY", scsi_inquiry, NULL },
	{ 0x15, 0, 6, FOR_ALL, "MODE SELECT(6)", scsi_mode_select6, scsi_mode_select6_list },
	{ 0x1a, 0, 6, FOR_ALL, "MODE SENSE(6)", scsi_mode_sense6, NULL },
	{ 0x1b, 0, 6, FOR_ALL, "START STOP UNIT", start_stop, NULL },
	{ 0x1e, 0, 6, FOR_ALL, "PREVENT ALLOW MEDIUM REMOVAL", prevent_allow, NULL },
	{ 0x25, 0, 10, FOR_ALL | MEDIUM, "READ CAPACITY(10)", scsi_read_capacity10, NULL },
	{ 0x28, 0, 10, FOR_ALL | MEDIUM, "READ(10)", scsi_read, NULL },
	{ 0x2a, 0, 10, FOR_DISK | MEDIUM | CHANGES, "WRITE(10)", scsi_write, NULL },
	{ 0x2f, 0, 10, FOR_ALL | MEDIUM, "VERIFY(10)", scsi_verify, NULL },
	{ 0x35, 0, 10, FOR_ALL | MEDIUM, "SYNCHRONIZE CACHE(10)", scsi_synchronize_cache, NULL },
	{ 0x41, 0, 10, FOR_DISK | MEDIUM | CHANGES, "WRITE SAME(10)", scsi_write_same,
	  scsi_write_same_block },
	{ 0x42, 0, 10, FOR_DISK | MEDIUM | CHANGES, "UNMAP", scsi_unmap, scsi_unmap_list },
	{ 0x43, 0, 10, FOR_DVD | MEDIUM, "READ TOC", scsi_read_toc, NULL },
	{ 0x46, 0, 10, FOR_DVD | BEFORE_ALL, "GET CONFIGURATION", scsi_get_configuration, NULL },
	{ 0x4a, 0, 10, FOR_DVD | BEFORE_ALL, "GET EVENT STATUS NOTIFICATION", scsi_get_event,
	  NULL },
	{ 0x51, 0, 10, FOR_DVD | MEDIUM, "READ DISC INFORMATION", scsi_read_disc_information,
	  NULL },
	{ 0x52, 0, 10, FOR_DVD | MEDIUM, "READ TRACK INFORMATION", scsi_read_track_information,
	  NULL },
	{ 0x55, 0, 10, FOR_ALL, "MODE SELECT(10)", scsi_mode_select10, scsi_mode_select10_list },
	{ 0x5a, 0, 10, FOR_ALL, "MODE SENSE(10)", scsi_mode_sense10, NULL },
	{ 0x88, 0, 16, FOR_DISK | MEDIUM, "READ(16)", scsi_read, NULL },
	{ 0x8a, 0, 16, FOR_DISK | MEDIUM | CHANGES, "WRITE(16)", scsi_write, NULL },
	{ 0x8f, 0, 16, FOR_DISK | MEDIUM, "VERIFY(16)", scsi_verify, NULL },
	{ 0x91, 0, 16, FOR_DISK | MEDIUM, "SYNCHRONIZE CACHE(16)", scsi_synchronize_cache, NULL },
	{ 0x93, 0, 16, FOR_DISK | MEDIUM | CHANGES, "WRITE SAME(16)", scsi_write_same,
	  scsi_write_same_block },
	{ 0x9e, 0x10, 16, FOR_DISK | MEDIUM | SERVICE, "READ CAPACITY(16)", scsi_read_capacity16,
	  NULL },
	{ 0xa0, 0, 12, FOR_ALL | BEFORE_ALL, "REPORT LUNS", report_luns, NULL },
	{ 0xa3, 0x0c, 12, FOR_ALL | SERVICE, "REPORT SUPPORTED OPERATION CODES", report_opcodes,
	  NULL },
	{ 0xa8, 0, 12, FOR_ALL | MEDIUM, "READ(12)", scsi_read, NULL },
	{ 0xaa, 0, 12, FOR_DISK | MEDIUM | CHANGES, "WRITE(12)", scsi_write, NULL },
	{ 0xbd, 0, 12, FOR_DVD, "MECHANISM STATUS", scsi_mechanism_status, NULL },
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static bool row_is_for(const struct row *row, const struct scsi_unit *unit)
{
	return (row->flags & (unit->dvd ? FOR_DVD : FOR_DISK)) != 0;
}

/* All commands; of a single one there is nothing to tell that trying it would not. */
static void report_opcodes(const struct scsi_call *call)
{
	uint8_t *at = call->plan->data + 4;

	if ((call->cdb[2] & 0x87) != 0) { /* RCTD, REPORTING OPTIONS */
		scsi_refuse_field(call->plan);
		return;
	}
	for (size_t i = 0; i < ROW_COUNT; i++) {
		if (!row_is_for(&rows[i], call->unit))
			continue;
		memset(at, 0, 8);
		at[0] = rows[i].opcode;
		base_put_be16(at + 2, rows[i].service_action);
		at[5] = (rows[i].flags & SERVICE) != 0; /* SERVACTV */
		base_put_be16(at + 6, rows[i].cdb_bytes);
		at += 8;
	}
	base_put_be32(call->plan->data, (uint32_t)(at - call->plan->data - 4));
	scsi_good_data(call, (uint32_t)(at - call->plan->data), base_get_be32(call->cdb + 6));
}

static const struct row *row_find(const struct scsi_unit *unit, const uint8_t *cdb, bool *ret_other)
{
	*ret_other = false;
	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct row *row = &rows[i];

		if (row->opcode != cdb[0] || !row_is_for(row, unit))
			continue;
		if ((row->flags & SERVICE) == 0 || (cdb[1] & 0x1f) == row->service_action)
			return row;
		*ret_other = true; /* the code is known, its service action is not */
	}
	return NULL;
}

const char *scsi_name(uint8_t opcode)
{
	for (size_t i = 0; i < ROW_COUNT; i++) {
		if (rows[i].opcode == opcode)
			return rows[i].name;
	}
	return "unknown";
}

/* --- planning --- */

static void plan_begin(struct scsi_plan *plan)
{
	uint8_t *data = plan->data;

	*plan = (struct scsi_plan){ .action = SCSI_ANSWER, .data = data };
}

void scsi_plan(const struct scsi_unit *unit, const struct scsi_command *command,
	       struct scsi_plan *plan)
{
	struct scsi_call call = {
		.unit = unit, .command = command, .cdb = command->cdb, .plan = plan
	};
	bool other = false;
	const struct row *row = row_find(unit, command->cdb, &other);
	uint32_t attention = command->attention;

	plan_begin(plan);
	if (attention != 0 && (row == NULL || (row->flags & BEFORE_ALL) == 0)) {
		scsi_refuse(plan, SCSI_KEY_UNIT_ATTENTION, attention_asc(attention));
		plan->attention_told = attention & (~attention + 1);
		return;
	}
	if (row == NULL) {
		scsi_refuse(plan, SCSI_KEY_ILLEGAL_REQUEST,
			    other ? SCSI_ASC_CDB_FIELD : SCSI_ASC_OPCODE);
		return;
	}
	if ((command->cdb[row->cdb_bytes - 1] & 4) != 0) { /* CONTROL: NACA */
		scsi_refuse_field(plan);
		return;
	}
	if ((row->flags & MEDIUM) != 0 && !unit->has_medium) {
		scsi_refuse(plan, SCSI_KEY_NOT_READY, SCSI_ASC_NO_MEDIUM);
		return;
	}
	if ((row->flags & CHANGES) != 0 && unit->read_only) {
		scsi_refuse(plan, SCSI_KEY_DATA_PROTECT, SCSI_ASC_WRITE_PROTECTED);
		return;
	}
	row->handler(&call);
}

void scsi_plan_parameters(const struct scsi_unit *unit, const struct scsi_command *command,
			  struct scsi_plan *plan)
{
	struct scsi_call call = {
		.unit = unit, .command = command, .cdb = command->cdb, .plan = plan
	};
	bool other = false;
	const struct row *row = row_find(unit, command->cdb, &other);

	if (row == NULL || row->parameters == NULL)
		scsi_refuse_field(plan);
	else
		row->parameters(&call);
}

bool scsi_plan_absent(const struct scsi_command *command, uint64_t luns, struct scsi_plan *plan)
{
	const struct scsi_unit unit = { .luns = luns };
	struct scsi_call call = {
		.unit = &unit, .command = command, .cdb = command->cdb, .plan = plan
	};

	plan_begin(plan);
	if (command->cdb[0] == OPCODE_INQUIRY)
		scsi_inquiry_absent(&call);
	else if (command->cdb[0] == OPCODE_REPORT_LUNS)
		report_luns(&call);
	else
		return false;
	return true;
}

/* --- answers --- */

void scsi_check(struct scsi_plan *plan, enum scsi_key key, uint8_t asc, uint8_t ascq)
{
	scsi_refuse(plan, key, (enum scsi_asc)((uint32_t)asc << 8 | ascq));
}

void scsi_result(struct scsi_plan *plan, int result)
{
	enum scsi_action action = plan->action;
	bool reads = action == SCSI_READ;

	switch (result) {
	case 0:
		scsi_good(plan);
		return;
	case -EOPNOTSUPP: /* UNMAP is a hint; nothing else is planned that a disk cannot do */
		if (action == SCSI_UNMAP)
			scsi_good(plan);
		else
			scsi_refuse_field(plan);
		return;
	case -EINVAL: /* it has become smaller meanwhile */
		scsi_refuse(plan, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_LBA_RANGE);
		return;
	case -EROFS:
		scsi_refuse(plan, SCSI_KEY_DATA_PROTECT, SCSI_ASC_WRITE_PROTECTED);
		return;
	case -ENOSPC:
		scsi_refuse(plan, SCSI_KEY_DATA_PROTECT, SCSI_ASC_SPACE);
		return;
	case -ENODEV:
		scsi_refuse(plan, SCSI_KEY_NOT_READY, SCSI_ASC_NOT_READY);
		return;
	case -ETIMEDOUT: /* unknown: the same data once more makes it known */
	case -ECANCELED:
		scsi_refuse(plan, SCSI_KEY_ABORTED_COMMAND, SCSI_ASC_COMMUNICATION_TIMEOUT);
		return;
	case -ENOMEM:
		scsi_good(plan);
		plan->status = SCSI_BUSY;
		return;
	default:
		break;
	}
	/* A flush that failed must not be tried into success: no key that initiators retry. */
	if (action == SCSI_FLUSH)
		scsi_refuse(plan, SCSI_KEY_HARDWARE_ERROR, SCSI_ASC_TARGET_FAILURE);
	else
		scsi_refuse(plan, SCSI_KEY_MEDIUM_ERROR,
			    reads ? SCSI_ASC_READ_ERROR : SCSI_ASC_WRITE_ERROR);
}

void scsi_sense_encode(const struct scsi_sense *sense, uint8_t ret_bytes[SCSI_SENSE_BYTES])
{
	memset(ret_bytes, 0, SCSI_SENSE_BYTES);
	ret_bytes[0] = 0x70; /* current, fixed format */
	ret_bytes[2] = sense->key;
	ret_bytes[7] = SCSI_SENSE_BYTES - 8;
	ret_bytes[12] = sense->asc;
	ret_bytes[13] = sense->ascq;
}
