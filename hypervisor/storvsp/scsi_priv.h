/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the SCSI layer share: big-endian fields, answers, the table of commands. */
#ifndef HYPERVISOR_STORVSP_SCSI_PRIV_H
#define HYPERVISOR_STORVSP_SCSI_PRIV_H

#include <string.h>

#include "base/bytes.h"
#include "hypervisor/storvsp/scsi.h"

/* Additional sense codes, ASC << 8 | ASCQ. */
enum scsi_asc {
	SCSI_ASC_NONE = 0x0000,
	SCSI_ASC_NOT_READY = 0x0400,
	SCSI_ASC_COMMUNICATION_TIMEOUT = 0x0801,
	SCSI_ASC_WRITE_ERROR = 0x0c00,
	SCSI_ASC_READ_ERROR = 0x1100,
	SCSI_ASC_PARAMETER_LENGTH = 0x1a00,
	SCSI_ASC_OPCODE = 0x2000,
	SCSI_ASC_LBA_RANGE = 0x2100,
	SCSI_ASC_CDB_FIELD = 0x2400,
	SCSI_ASC_PARAMETER_FIELD = 0x2600,
	SCSI_ASC_WRITE_PROTECTED = 0x2700,
	SCSI_ASC_SPACE = 0x2707,
	SCSI_ASC_MEDIUM_CHANGED = 0x2800,
	SCSI_ASC_BUS_RESET = 0x2902,
	SCSI_ASC_CAPACITY_CHANGED = 0x2a09,
	SCSI_ASC_SAVING_NOT_SUPPORTED = 0x3900,
	SCSI_ASC_NO_MEDIUM = 0x3a00,
	SCSI_ASC_LUNS_CHANGED = 0x3f0e,
	SCSI_ASC_TARGET_FAILURE = 0x4400,
	SCSI_ASC_REMOVAL_PREVENTED = 0x5302,
};

/* One call: everything a handler looks at. */
struct scsi_call {
	const struct scsi_unit *unit;
	const struct scsi_command *command;
	const uint8_t *cdb;
	struct scsi_plan *plan;
};

/* --- scsi.c --- */

/* CHECK CONDITION. */
void scsi_refuse(struct scsi_plan *plan, enum scsi_key key, enum scsi_asc asc);
/* 5/24: a field of the CDB. */
void scsi_refuse_field(struct scsi_plan *plan);
/* GOOD without data. */
void scsi_good(struct scsi_plan *plan);
/* GOOD with @size_bytes of plan->data, cut to @allocation_bytes and to the guest's buffer. */
void scsi_good_data(const struct scsi_call *call, uint32_t size_bytes, uint32_t allocation_bytes);
/* Ask for the guest's parameters: 0 bytes is GOOD at once, more than there are 5/1A. */
void scsi_want_parameters(const struct scsi_call *call, uint32_t size_bytes);

/* --- handlers, one a row of the table --- */

typedef void (*scsi_handler)(const struct scsi_call *call);

/* scsi_inquiry.c */
void scsi_inquiry(const struct scsi_call *call);
/* INQUIRY of a LUN that is not there. */
void scsi_inquiry_absent(const struct scsi_call *call);
/* scsi_mode.c */
void scsi_mode_sense6(const struct scsi_call *call);
void scsi_mode_sense10(const struct scsi_call *call);
void scsi_mode_select6(const struct scsi_call *call);
void scsi_mode_select10(const struct scsi_call *call);
void scsi_mode_select6_list(const struct scsi_call *call);
void scsi_mode_select10_list(const struct scsi_call *call);
/* scsi_block.c */
void scsi_read(const struct scsi_call *call);
void scsi_write(const struct scsi_call *call);
void scsi_verify(const struct scsi_call *call);
void scsi_synchronize_cache(const struct scsi_call *call);
void scsi_unmap(const struct scsi_call *call);
void scsi_unmap_list(const struct scsi_call *call);
void scsi_write_same(const struct scsi_call *call);
void scsi_write_same_block(const struct scsi_call *call);
void scsi_read_capacity10(const struct scsi_call *call);
void scsi_read_capacity16(const struct scsi_call *call);
/* scsi_dvd.c */
void scsi_read_toc(const struct scsi_call *call);
void scsi_get_configuration(const struct scsi_call *call);
void scsi_get_event(const struct scsi_call *call);
void scsi_read_disc_information(const struct scsi_call *call);
void scsi_read_track_information(const struct scsi_call *call);
void scsi_mechanism_status(const struct scsi_call *call);

#endif
