/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VSTOR messages: 64 bytes each way.  Pure.
 * Format: docs/hypervisor/storvsp/storvsp.md sections 1 and 2.
 * Source: Linux drivers/scsi/storvsc_drv.c.
 */
#ifndef HYPERVISOR_STORVSP_VSTOR_H
#define HYPERVISOR_STORVSP_VSTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/storvsp/scsi.h"

#define VSTOR_BYTES     64u
#define VSTOR_BYTES_MIN 48u /* of a guest's message: up to the end of the CDB */

enum vstor_operation {
	VSTOR_INVALID = 0,
	VSTOR_COMPLETE_IO = 1,
	VSTOR_REMOVE_DEVICE = 2,
	VSTOR_EXECUTE_SRB = 3,
	VSTOR_RESET_LUN = 4,
	VSTOR_RESET_ADAPTER = 5,
	VSTOR_RESET_BUS = 6,
	VSTOR_BEGIN_INITIALIZATION = 7,
	VSTOR_END_INITIALIZATION = 8,
	VSTOR_QUERY_PROTOCOL_VERSION = 9,
	VSTOR_QUERY_PROPERTIES = 10,
	VSTOR_ENUMERATE_BUS = 11,
	VSTOR_CREATE_SUB_CHANNELS = 13,
};

/* NTSTATUS */
#define VSTOR_STATUS_OK                0u
#define VSTOR_STATUS_INVALID_PARAMETER 0xc000000du
#define VSTOR_STATUS_INVALID_REQUEST   0xc0000010u
#define VSTOR_STATUS_REVISION_MISMATCH 0xc0000059u
#define VSTOR_STATUS_NO_RESOURCES      0xc000009au
#define VSTOR_STATUS_INVALID_STATE     0xc0000184u

enum vstor_srb_status {
	VSTOR_SRB_SUCCESS = 0x01,
	VSTOR_SRB_BUSY = 0x05,
	VSTOR_SRB_INVALID_REQUEST = 0x06,
	VSTOR_SRB_SELECTION_TIMEOUT = 0x0a,
	VSTOR_SRB_INVALID_LUN = 0x20,
	VSTOR_SRB_ERROR_WITH_SENSE = 0x84,
};

struct vstor_srb {
	uint8_t path, target, lun;
	uint32_t transfer_bytes;
	uint8_t cdb[SCSI_CDB_BYTES]; /* zeros behind its length */
	bool valid;                  /* the CDB's length is */
};

uint32_t vstor_operation(const uint8_t message[VSTOR_BYTES]);
uint16_t vstor_word(const uint8_t message[VSTOR_BYTES]); /* the u16 at 12: version, count */
void vstor_srb_decode(const uint8_t message[VSTOR_BYTES], struct vstor_srb *ret_srb);

/* The answer to @message; nothing but the status differs. */
void vstor_answer(const uint8_t message[VSTOR_BYTES], uint32_t status,
		  uint8_t ret_answer[VSTOR_BYTES]);
void vstor_answer_properties(const uint8_t message[VSTOR_BYTES], uint16_t sub_channels,
			     uint32_t transfer_bytes, uint8_t ret_answer[VSTOR_BYTES]);
/* @plan NULL: neither SCSI status nor sense. */
void vstor_answer_srb(const uint8_t message[VSTOR_BYTES], enum vstor_srb_status srb_status,
		      const struct scsi_plan *plan, uint32_t moved_bytes,
		      uint8_t ret_answer[VSTOR_BYTES]);
/* Unsolicited. */
void vstor_tell(enum vstor_operation operation, uint8_t ret_message[VSTOR_BYTES]);

#endif
