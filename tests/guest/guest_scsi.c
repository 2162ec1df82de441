/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_scsi.h.  Layouts: docs/hypervisor/storvsp/storvsp.md, SPC-4, SBC-3. */
#include "tests/guest/guest_scsi.h"

#include "tests/guest/guest_bytes.h"

#define SRB            12 /* offset of the union */
#define SRB_BYTES      0x34
#define SENSE_BYTES    0x14
#define PAGE           4096u
#define PAGE_SHIFT     12
#define DATA_OUT       0
#define DATA_IN        1
#define DATA_NONE      2
#define SRB_SUCCESS    1
#define SRB_AUTOSENSE  0x80
#define FUA            8
#define SERVICE_ACTION 0x10 /* READ CAPACITY (16) */

bool guest_scsi_send_control(struct guest_channel *channel, enum guest_vstor op, uint16_t value,
			     uint64_t trans_id)
{
	uint8_t packet[GUEST_VSTOR_BYTES] = { 0 };
	const struct guest_packet send = { .type = GUEST_PACKET_INBAND,
					   .flags = GUEST_PACKET_ANSWER,
					   .trans_id = trans_id,
					   .payload = packet,
					   .payload_bytes = sizeof(packet) };

	guest_put32(packet, op);
	guest_put32(packet + 4, 1);
	guest_put16(packet + SRB, value);
	return guest_hv_send(channel, &send);
}

static void put_cdb(uint8_t *srb, const struct guest_scsi_request *request)
{
	uint8_t *cdb = srb + 16;

	cdb[0] = (uint8_t)request->op;
	srb[8] = 16;
	switch (request->op) {
	case GUEST_SCSI_READ:
	case GUEST_SCSI_WRITE:
		cdb[1] = request->fua ? FUA : 0;
		guest_put_be64(cdb + 2, request->lba);
		guest_put_be32(cdb + 10, request->lba_count);
		break;
	case GUEST_SCSI_CAPACITY:
		cdb[1] = SERVICE_ACTION;
		guest_put_be32(cdb + 10, request->data_bytes);
		break;
	case GUEST_SCSI_LUNS:
		guest_put_be32(cdb + 6, request->data_bytes);
		srb[8] = 12;
		break;
	case GUEST_SCSI_INQUIRY:
		guest_put_be16(cdb + 3, (uint16_t)request->data_bytes);
		srb[8] = 6;
		break;
	case GUEST_SCSI_TEST_READY:
		srb[8] = 6;
		break;
	case GUEST_SCSI_FLUSH:
	default:
		srb[8] = 10;
		break;
	}
}

/* One range of the pages that hold the data.  Return: bytes of the header. */
static uint32_t put_pages(uint8_t *header, const struct guest_scsi_request *request)
{
	uint64_t address = guest_hv_address(request->data);
	uint32_t offset = (uint32_t)(address % PAGE);
	uint32_t pages = (offset + request->data_bytes + PAGE - 1) / PAGE;

	guest_put32(header, 0);
	guest_put32(header + 4, 1);
	guest_put32(header + 8, request->data_bytes);
	guest_put32(header + 12, offset);
	for (uint32_t i = 0; i < pages && i < GUEST_SCSI_PAGES_MAX; i++)
		guest_put64(header + 16 + i * 8, (address >> PAGE_SHIFT) + i);
	return 16 + pages * 8;
}

bool guest_scsi_send(struct guest_channel *channel, const struct guest_scsi_request *request)
{
	uint8_t packet[GUEST_VSTOR_BYTES] = { 0 }, header[16 + GUEST_SCSI_PAGES_MAX * 8];
	uint8_t *srb = packet + SRB;
	struct guest_packet send = { .type = GUEST_PACKET_INBAND,
				     .flags = GUEST_PACKET_ANSWER,
				     .trans_id = request->trans_id,
				     .payload = packet,
				     .payload_bytes = sizeof(packet) };

	guest_put32(packet, GUEST_VSTOR_EXECUTE);
	guest_put32(packet + 4, 1);
	guest_put16(srb, SRB_BYTES);
	srb[7] = request->lun;
	srb[9] = SENSE_BYTES;
	srb[10] = DATA_NONE;
	guest_put32(srb + 44, 60);
	put_cdb(srb, request);
	if (request->data_bytes != 0) {
		srb[10] = request->op == GUEST_SCSI_WRITE ? DATA_OUT : DATA_IN;
		guest_put32(srb + 12, request->data_bytes);
		send.type = GUEST_PACKET_GPA_DIRECT;
		send.header = header;
		send.header_bytes = put_pages(header, request);
	}
	return guest_hv_send(channel, &send);
}

struct guest_scsi_answer guest_scsi_answer(const struct guest_packet *packet)
{
	const uint8_t *srb = packet->payload + SRB;
	struct guest_scsi_answer answer = { .status = UINT32_MAX };

	if (packet->payload_bytes < GUEST_VSTOR_BYTES ||
	    guest_get32(packet->payload) != GUEST_VSTOR_COMPLETE)
		return answer;
	answer.status = guest_get32(packet->payload + 8);
	answer.srb_status = srb[2];
	answer.scsi_status = srb[3];
	answer.moved_bytes = guest_get32(srb + 12);
	if ((answer.srb_status & SRB_AUTOSENSE) != 0) {
		answer.sense_key = srb[16 + 2] & 15;
		answer.asc = srb[16 + 12];
		answer.ascq = srb[16 + 13];
	}
	answer.good =
		answer.status == 0 && answer.srb_status == SRB_SUCCESS && answer.scsi_status == 0;
	return answer;
}
