/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/storvsp/vstor.h"

#include <string.h>

#include "base/bytes.h"

#define BODY            12u
#define SRB_STATUS      (BODY + 2)
#define SCSI_STATUS     (BODY + 3)
#define SRB_PATH        (BODY + 5)
#define SRB_TARGET      (BODY + 6)
#define SRB_LUN         (BODY + 7)
#define SRB_CDB_LENGTH  (BODY + 8)
#define SRB_SENSE_BYTES (BODY + 9)
#define SRB_TRANSFER    (BODY + 12)
#define SRB_CDB         (BODY + 16)
#define SRB_SENSE_ROOM  20u

uint32_t vstor_operation(const uint8_t message[VSTOR_BYTES])
{
	return base_get_le32(message);
}

uint16_t vstor_word(const uint8_t message[VSTOR_BYTES])
{
	return base_get_le16(message + BODY);
}

void vstor_srb_decode(const uint8_t message[VSTOR_BYTES], struct vstor_srb *ret_srb)
{
	uint32_t length = message[SRB_CDB_LENGTH];

	memset(ret_srb, 0, sizeof(*ret_srb));
	ret_srb->path = message[SRB_PATH];
	ret_srb->target = message[SRB_TARGET];
	ret_srb->lun = message[SRB_LUN];
	ret_srb->transfer_bytes = base_get_le32(message + SRB_TRANSFER);
	ret_srb->valid = length > 0 && length <= SCSI_CDB_BYTES;
	if (ret_srb->valid)
		memcpy(ret_srb->cdb, message + SRB_CDB, length);
}

void vstor_answer(const uint8_t message[VSTOR_BYTES], uint32_t status,
		  uint8_t ret_answer[VSTOR_BYTES])
{
	memcpy(ret_answer, message, VSTOR_BYTES);
	base_put_le32(ret_answer, VSTOR_COMPLETE_IO);
	base_put_le32(ret_answer + 8, status);
}

void vstor_answer_properties(const uint8_t message[VSTOR_BYTES], uint16_t sub_channels,
			     uint32_t transfer_bytes, uint8_t ret_answer[VSTOR_BYTES])
{
	vstor_answer(message, VSTOR_STATUS_OK, ret_answer);
	memset(ret_answer + BODY, 0, VSTOR_BYTES - BODY);
	base_put_le16(ret_answer + BODY + 4, sub_channels);
	base_put_le32(ret_answer + BODY + 8, sub_channels > 0 ? 1 : 0);
	base_put_le32(ret_answer + BODY + 12, transfer_bytes);
}

void vstor_answer_srb(const uint8_t message[VSTOR_BYTES], enum vstor_srb_status srb_status,
		      const struct scsi_plan *plan, uint32_t moved_bytes,
		      uint8_t ret_answer[VSTOR_BYTES])
{
	vstor_answer(message, VSTOR_STATUS_OK, ret_answer);
	ret_answer[SRB_STATUS] = (uint8_t)srb_status;
	ret_answer[SCSI_STATUS] = plan == NULL ? 0 : plan->status;
	ret_answer[SRB_SENSE_BYTES] = 0;
	base_put_le32(ret_answer + SRB_TRANSFER, moved_bytes);
	memset(ret_answer + SRB_CDB, 0, SRB_SENSE_ROOM);
	if (plan != NULL && plan->status == SCSI_CHECK_CONDITION) {
		ret_answer[SRB_SENSE_BYTES] = SCSI_SENSE_BYTES;
		scsi_sense_encode(&plan->sense, ret_answer + SRB_CDB);
	}
}

void vstor_tell(enum vstor_operation operation, uint8_t ret_message[VSTOR_BYTES])
{
	memset(ret_message, 0, VSTOR_BYTES);
	base_put_le32(ret_message, (uint32_t)operation);
}
