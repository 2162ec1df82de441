/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SCSI layer: what a command of the guest means for a disk or a DVD, and the answers that
 * need no I/O.  Pure: no disk, no guest memory, no state; bytes and values in, a plan out.
 *
 * A command is planned with scsi_plan().  A plan is either the whole answer, or asks for the
 * parameters that the guest sends along (then scsi_plan_parameters() goes on), or says which I/O
 * is to be done; how that went is turned into an answer by scsi_result().
 *
 * Commands, fields and sense codes: docs/hypervisor/storvsp/storvsp.md.
 * Source: SPC-4, SBC-3, MMC-6.
 */
#ifndef HYPERVISOR_STORVSP_SCSI_H
#define HYPERVISOR_STORVSP_SCSI_H

#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/disk/guid.h"

#define SCSI_CDB_BYTES        16u
#define SCSI_SENSE_BYTES      18u   /* fixed format */
#define SCSI_DATA_BYTES       4096u /* the largest answer and the largest parameter list */
#define SCSI_DATA_LUNS        64u
/* What fits into SCSI_DATA_BYTES behind the header. */
#define SCSI_UNMAP_RANGES_MAX 255u
/* WRITE SAME of other bytes than zeros is made of ordinary writes: bounded, so that one command
 * cannot keep a disk busy for minutes. */
#define SCSI_FILL_BYTES_MAX   (32ULL << 20)
#define SCSI_ZERO_BYTES_MAX   (1ULL << 30) /* WRITE SAME of zeros */

enum scsi_status {
	SCSI_GOOD = 0,
	SCSI_CHECK_CONDITION = 2,
	SCSI_BUSY = 8,
};

enum scsi_key {
	SCSI_KEY_NONE = 0,
	SCSI_KEY_NOT_READY = 2,
	SCSI_KEY_MEDIUM_ERROR = 3,
	SCSI_KEY_HARDWARE_ERROR = 4,
	SCSI_KEY_ILLEGAL_REQUEST = 5,
	SCSI_KEY_UNIT_ATTENTION = 6,
	SCSI_KEY_DATA_PROTECT = 7,
	SCSI_KEY_ABORTED_COMMAND = 11,
};

struct scsi_sense {
	uint8_t key; /* enum scsi_key */
	uint8_t asc;
	uint8_t ascq;
};

/* What a LUN is at this moment: a value. */
struct scsi_unit {
	bool dvd;        /* removable, read-only, 2048-byte blocks */
	bool has_medium; /* always for a disk */
	bool read_only;
	bool write_cache;
	bool solid_state;
	bool locked; /* PREVENT MEDIUM REMOVAL */
	uint64_t size_bytes;
	uint32_t block_bytes;          /* 512..4096, a power of two */
	uint32_t physical_block_bytes; /* a multiple of it */
	uint32_t unmap_bytes;          /* granularity; 0: not thin */
	uint32_t transfer_bytes_max;
	struct disk_guid id;
	uint64_t luns; /* bit n: LUN n is there (for REPORT LUNS) */
};

/* Sense to report before, or instead of, what a command does.  Bits, reported lowest first. */
enum scsi_attention {
	SCSI_ATTENTION_RESET = 1 << 0,    /* 29/02 */
	SCSI_ATTENTION_MEDIUM = 1 << 1,   /* 28/00 */
	SCSI_ATTENTION_CAPACITY = 1 << 2, /* 2A/09 */
	SCSI_ATTENTION_LUNS = 1 << 3,     /* 3F/0E */
	SCSI_ATTENTIONS = (1 << 4) - 1,
};

enum scsi_action {
	SCSI_INVALID,
	SCSI_ANSWER,     /* status, sense and data are final */
	SCSI_PARAMETERS, /* @length_bytes of the guest's data, then scsi_plan_parameters() */
	SCSI_READ,       /* [offset, offset + length) into the guest's buffer */
	SCSI_WRITE,
	SCSI_FLUSH,
	SCSI_UNMAP, /* @range_count ranges: scsi_unmap_range() */
	SCSI_ZERO,
	SCSI_FILL, /* [offset, offset + length) with the block in @data again and again */
	SCSI_ACTIONS
};

/* What else a command that ends well does to the LUN. */
enum scsi_effect {
	SCSI_EFFECT_NONE,
	SCSI_EFFECT_EJECT,
	SCSI_EFFECT_LOAD,
	SCSI_EFFECT_LOCK,
	SCSI_EFFECT_UNLOCK,
	SCSI_EFFECTS
};

struct scsi_command {
	uint8_t cdb[SCSI_CDB_BYTES];
	uint32_t transfer_bytes; /* of the guest's buffer */
	uint32_t attention;      /* enum scsi_attention bits that are pending */
};

struct scsi_plan {
	enum scsi_action action;
	enum scsi_effect effect;
	uint32_t attention_told; /* bits that this answer has reported: no longer pending */
	uint8_t status;          /* ANSWER */
	struct scsi_sense sense; /* CHECK CONDITION */
	bool fua;
	bool may_unmap; /* ZERO: the space may be given back */
	uint64_t offset_bytes;
	uint64_t length_bytes; /* READ, WRITE: also what the guest's buffer holds of it */
	uint32_t range_count;
	uint32_t data_bytes; /* ANSWER: of @data, for the guest's buffer */
	/* The answer's data, or the guest's parameters: SCSI_DATA_BYTES, the caller's, aligned to
	 * 512 bytes. */
	uint8_t *data;
};

/* @plan: its @data is set, all else is overwritten. */
void scsi_plan(const struct scsi_unit *unit, const struct scsi_command *command,
	       struct scsi_plan *plan);
/* The parameters that PARAMETERS asked for are in @plan->data.  Never PARAMETERS again. */
void scsi_plan_parameters(const struct scsi_unit *unit, const struct scsi_command *command,
			  struct scsi_plan *plan);
/* Range @index of an UNMAP plan; its blocks were checked. */
void scsi_unmap_range(const struct scsi_unit *unit, const struct scsi_plan *plan, uint32_t index,
		      uint64_t *ret_offset_bytes, uint64_t *ret_length_bytes);
/* The plan's I/O ended with @result (0 or the disk's negative errno): status and sense. */
void scsi_result(struct scsi_plan *plan, int result);
/* A LUN that is not there: true and an answer for INQUIRY and REPORT LUNS; false: the transport
 * says so.  @luns: what REPORT LUNS gives. */
bool scsi_plan_absent(const struct scsi_command *command, uint64_t luns, struct scsi_plan *plan);
/* The answer CHECK CONDITION with that sense. */
void scsi_check(struct scsi_plan *plan, enum scsi_key key, uint8_t asc, uint8_t ascq);
/* Fixed format, current error. */
void scsi_sense_encode(const struct scsi_sense *sense, uint8_t ret_bytes[SCSI_SENSE_BYTES]);
/* Name of an operation code for logs, "unknown" when it has none. */
const char *scsi_name(uint8_t opcode);

#endif
