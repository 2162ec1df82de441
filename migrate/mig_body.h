/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bodies of the control messages: docs/migrate/protocol.md, section 3.
 *
 * Decoders take bytes of a peer that may be hostile: every length is checked against what is
 * there, reserved bytes have to be zero, nothing may follow, text is printable UTF-8 of one line.
 * One encoding of each value.  -EBADMSG names field, value and expectation; -ENOMEM.
 *
 * Any thread.
 */
#ifndef MIGRATE_MIG_BODY_H
#define MIGRATE_MIG_BODY_H

#include "base/bytes.h"
#include "migrate/mig_wire.h"

#define MIG_OPENED_BYTES       32u
#define MIG_ROUND_BYTES        24u
#define MIG_SEALED_BYTES       48u
#define MIG_EPOCH_BYTES        16u /* COMMIT, READY, RUNNING, HANDED_BACK */
#define MIG_ASK_BYTES          24u
#define MIG_REGISTER_BYTES     24u
#define MIG_NUMBER_BYTES       8u /* BARRIER, ALIVE */
#define MIG_PLAN_HEADER_BYTES  24u
#define MIG_PLAN_OBJECT_BYTES  16u          /* before the description */
#define MIG_DESCRIPTION_BYTES  4096u        /* of an object, at most */
#define MIG_CONFIG_BYTES       (64u << 10)  /* of a VM, at most */
#define MIG_OBJECT_BYTES_MAX   (1ULL << 46) /* memory or an image: the largest VHDX has 64 TiB */
#define MIG_EPOCH_MAX          (UINT64_MAX - 2) /* a migration may need the next two */
#define MIG_LIST_HEADER_BYTES  8u               /* FINDINGS, ROUND_DONE */
#define MIG_FINDINGS_MAX       64u
#define MIG_FINDING_BYTES      400u /* of a line, with its end */
#define MIG_FINDINGS_BYTES_MAX (MIG_LIST_HEADER_BYTES + MIG_FINDINGS_MAX * (1u + MIG_FINDING_BYTES))
#define MIG_STATE_HEADER_BYTES 8u
#define MIG_STATE_BYTES_MAX    (64u << 20)                                   /* of all pieces */
#define MIG_STATE_PIECE_BYTES  (MIG_BODY_BYTES_MAX - MIG_STATE_HEADER_BYTES) /* at most */
#define MIG_REASON_BYTES       (MIG_NOTIFY_BYTES_MAX - 8u)

/* Capabilities of either side; both use what both have. */
#define MIG_CAN_LZ4    (1u << 0)
#define MIG_CAN_DISKS  (1u << 1)
#define MIG_CAN_VERIFY (1u << 2)
#define MIG_CAN_RESUME (1u << 3) /* goes on after a cut: resume.md */
#define MIG_CAN_POST   (1u << 4) /* pages may come later: not of all sides */
#define MIG_CAN_BARE   (1u << 5) /* under TLS: pages and blocks without checksums: tls.md */
/* Of every side that has this version. */
#define MIG_CAN_USUAL  (MIG_CAN_LZ4 | MIG_CAN_DISKS | MIG_CAN_VERIFY)
#define MIG_CAN_ALL    (MIG_CAN_USUAL | MIG_CAN_RESUME | MIG_CAN_BARE)

struct mig_opened {
	uint16_t version;     /* chosen; 0: none of those offered */
	uint16_t version_min; /* what this side has */
	uint16_t version_max;
	uint32_t capabilities; /* unknown bits are kept: a later side may have more */
	uint8_t secret[MIG_ID_BYTES];
};
void mig_opened_encode(const struct mig_opened *opened, uint8_t ret_bytes[MIG_OPENED_BYTES]);
BASE_MUST_CHECK int mig_opened_decode(const uint8_t *bytes, uint32_t size_bytes,
				      struct mig_opened *ret_opened, struct base_error *err);

/* What there is to move.  The texts are the agents' own (JSON), opaque here, owned. */
struct mig_plan_object {
	struct mig_object object;
	char *description; /* what the destination has to make; "" for memory only */
};
struct mig_plan {
	uint64_t epoch;        /* at which the VM runs at the source; at most MIG_EPOCH_MAX */
	uint32_t capabilities; /* of the source */
	uint32_t flags;        /* MIG_PLAN_* */
	char *config;          /* of the VM */
	uint32_t object_count; /* 1 to MIG_OBJECTS_MAX: memory first */
	struct mig_plan_object *objects;
};
#define MIG_PLAN_NO_MEMORY (1u << 0) /* storage only: the VM stays; memory then has no pages */
#define MIG_PLAN_VERIFY    (1u << 1) /* a hash tree is kept */
#define MIG_PLAN_FLAGS     (MIG_PLAN_NO_MEMORY | MIG_PLAN_VERIFY)
void mig_plan_fini(struct mig_plan *plan); /* zeroed is fine, and what it leaves */
/* Appends MIG_BODY_BYTES_MAX or less.  -EINVAL what mig_plan_decode() would refuse (a text too long
 * or not printable, ...), -ENOMEM. */
BASE_MUST_CHECK int mig_plan_encode(const struct mig_plan *plan, struct base_buffer *out,
				    struct base_error *err);
BASE_MUST_CHECK int mig_plan_decode(const uint8_t *bytes, uint32_t size_bytes,
				    struct mig_plan *ret_plan, struct base_error *err);

/* Objections, a line each; more than MIG_FINDINGS_MAX are counted only. */
struct mig_findings {
	uint32_t count;
	uint32_t dropped;
	char lines[MIG_FINDINGS_MAX][MIG_FINDING_BYTES];
};
/* What cannot be printed becomes '?', what is too long is cut. */
void mig_findings_add(struct mig_findings *findings, const char *format, ...) BASE_PRINTF(2, 3);
/* Appends; out->failed: no memory. */
void mig_findings_encode(const struct mig_findings *findings, struct base_buffer *out);
BASE_MUST_CHECK int mig_findings_decode(const uint8_t *bytes, uint32_t size_bytes,
					struct mig_findings *ret_findings, struct base_error *err);

struct mig_round {
	uint32_t number;
	bool last;
	bool sweep;          /* behind it all that was ever touched is hashed */
	uint64_t page_count; /* at most */
	uint64_t bytes;      /* at most, without headers */
};
void mig_round_encode(const struct mig_round *round, uint8_t ret_bytes[MIG_ROUND_BYTES]);
BASE_MUST_CHECK int mig_round_decode(const uint8_t *bytes, uint32_t size_bytes,
				     struct mig_round *ret_round, struct base_error *err);

/* BARRIER: the round that ends on its channel. */
void mig_barrier_encode(uint32_t round, uint8_t ret_bytes[MIG_NUMBER_BYTES]);
BASE_MUST_CHECK int mig_barrier_decode(const uint8_t *bytes, uint32_t size_bytes,
				       uint32_t *ret_round, struct base_error *err);

/* ROUND_DONE.  Appends; out->failed: no memory. */
struct mig_failure;
void mig_done_encode(uint32_t number, const struct mig_failure *failures, uint32_t count,
		     struct base_buffer *out);
/* @ret_failures: room for MIG_FAILURES_MAX; filled up to what is wrong.  Each lies within a span;
 * whether the object has it, mig_copy_forgive() says. */
BASE_MUST_CHECK int mig_done_decode(const uint8_t *bytes, uint32_t size_bytes, uint32_t *ret_number,
				    struct mig_failure *ret_failures, uint32_t *ret_count,
				    struct base_error *err);

/* STATE: a part of the device state. */
struct mig_state_piece {
	uint64_t offset_bytes; /* in the state; with the piece at most MIG_STATE_BYTES_MAX */
	const uint8_t *bytes;  /* decoded: in the body */
	uint32_t size_bytes;   /* 1 to MIG_STATE_PIECE_BYTES */
};
/* Appends; out->failed: no memory. */
void mig_state_encode(const struct mig_state_piece *piece, struct base_buffer *out);
BASE_MUST_CHECK int mig_state_decode(const uint8_t *bytes, uint32_t size_bytes,
				     struct mig_state_piece *ret_piece, struct base_error *err);

struct mig_sealed {
	uint32_t round;
	uint64_t chunks;
	uint64_t state_bytes;
	uint32_t state_crc; /* CRC-32C of the whole device state */
	bool post;          /* pages follow: so many that OWED named */
	uint64_t owed_pages;
};
void mig_sealed_encode(const struct mig_sealed *sealed, uint8_t ret_bytes[MIG_SEALED_BYTES]);
BASE_MUST_CHECK int mig_sealed_decode(const uint8_t *bytes, uint32_t size_bytes,
				      struct mig_sealed *ret_sealed, struct base_error *err);

/* COMMIT, READY, RUNNING, HANDED_BACK. */
struct mig_epoch_note {
	uint64_t epoch;
	uint64_t took_ns; /* READY: checking; RUNNING: activation; else 0 */
};
void mig_epoch_encode(const struct mig_epoch_note *note, uint8_t ret_bytes[MIG_EPOCH_BYTES]);
BASE_MUST_CHECK int mig_epoch_decode(const uint8_t *bytes, uint32_t size_bytes,
				     struct mig_epoch_note *ret_note, struct base_error *err);

/* ASK (source, where the destination keeps the register) and REGISTER (its answer). */
struct mig_ask {
	uint64_t number; /* of the question; the answer has it */
	uint64_t epoch;  /* from which it is asked; 0 where it is only read */
	uint32_t owner;  /* enum mig_side: source or destination; 0: only read */
};
void mig_ask_encode(const struct mig_ask *ask, uint8_t ret_bytes[MIG_ASK_BYTES]);
BASE_MUST_CHECK int mig_ask_decode(const uint8_t *bytes, uint32_t size_bytes,
				   struct mig_ask *ret_ask, struct base_error *err);
struct mig_answer {
	uint64_t number;
	uint64_t epoch;
	uint32_t owner; /* enum mig_side; 0: unknown, and so is the epoch, which is 0 then */
};
void mig_answer_encode(const struct mig_answer *answer, uint8_t ret_bytes[MIG_REGISTER_BYTES]);
BASE_MUST_CHECK int mig_answer_decode(const uint8_t *bytes, uint32_t size_bytes,
				      struct mig_answer *ret_answer, struct base_error *err);

/* ALIVE: any number. */
void mig_number_encode(uint64_t number, uint8_t ret_bytes[MIG_NUMBER_BYTES]);
BASE_MUST_CHECK int mig_number_decode(const uint8_t *bytes, uint32_t size_bytes,
				      uint64_t *ret_number, struct base_error *err);

/* CANCEL and FAILED: why, a line; returns its bytes, which are at most MIG_REASON_BYTES.  Longer
 * ones are cut, unprintable bytes become '?'. */
uint32_t mig_reason_encode(const char *text, uint8_t ret_bytes[MIG_NOTIFY_BYTES_MAX]);
void mig_reason_decode(const uint8_t *bytes, uint32_t size_bytes, char *ret_text, size_t size);

#endif
