/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the storage client says to a SCSI controller on VMBus: 64-byte VSTOR packets, with the
 * data's pages before them.  Pure but for the send; compiles for the guest and the host.
 */
#ifndef GUEST_SCSI_H
#define GUEST_SCSI_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/guest/guest_bus.h"

#define GUEST_SCSI_PAGES_MAX 258
#define GUEST_VSTOR_BYTES    64

enum guest_vstor {
	GUEST_VSTOR_COMPLETE = 1,
	GUEST_VSTOR_EXECUTE = 3,
	GUEST_VSTOR_BEGIN = 7,
	GUEST_VSTOR_END = 8,
	GUEST_VSTOR_VERSION = 9,
	GUEST_VSTOR_PROPERTIES = 10,
	GUEST_VSTOR_ENUMERATE = 11,
	GUEST_VSTOR_SUB_CHANNELS = 13
};

enum guest_scsi_op {
	GUEST_SCSI_TEST_READY = 0x00,
	GUEST_SCSI_INQUIRY = 0x12,
	GUEST_SCSI_FLUSH = 0x35,
	GUEST_SCSI_READ = 0x88,     /* 16 */
	GUEST_SCSI_WRITE = 0x8a,    /* 16 */
	GUEST_SCSI_CAPACITY = 0x9e, /* 16 */
	GUEST_SCSI_LUNS = 0xa0
};

struct guest_scsi_request {
	enum guest_scsi_op op;
	uint8_t lun;
	bool fua;
	uint64_t lba;
	uint32_t lba_count;
	uint8_t *data; /* bytes 0: none */
	uint32_t data_bytes;
	uint64_t trans_id;
};

struct guest_scsi_answer {
	uint32_t status; /* of the packet */
	uint8_t srb_status, scsi_status;
	uint8_t sense_key, asc, ascq; /* 0 without sense */
	uint32_t moved_bytes;
	bool good; /* all of it well */
};

/** guest_scsi_send_control - a packet without an SRB; @value goes to offset 12. */
bool guest_scsi_send_control(struct guest_channel *channel, enum guest_vstor op, uint16_t value,
			     uint64_t trans_id);

/** guest_scsi_send - an SRB.  Return: false when the ring is full. */
bool guest_scsi_send(struct guest_channel *channel, const struct guest_scsi_request *request);

/** guest_scsi_answer - what a completion says. */
struct guest_scsi_answer guest_scsi_answer(const struct guest_packet *packet);

/* Supplied from outside (guest_hv.h). */
bool guest_hv_send(struct guest_channel *channel, const struct guest_packet *packet);

#endif
