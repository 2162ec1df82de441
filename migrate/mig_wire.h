/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of the migration protocol on TCP: frames, the first frame of a connection, chunks.
 *
 * Decoders take bytes of a peer that may be hostile: each field is checked before it is given on,
 * reserved ones have to be zero, and there is one encoding of each value.  They say in one line
 * which field of what has which value, and what was expected.  docs/migrate/protocol.md, sections 2
 * to 4.
 *
 * Any thread.
 */
#ifndef MIGRATE_MIG_WIRE_H
#define MIGRATE_MIG_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"

#define MIG_VERSION          1u
#define MIG_FRAME_BYTES      32u
#define MIG_OPEN_BYTES       64u
#define MIG_CHUNK_BYTES      48u
#define MIG_ID_BYTES         16u
#define MIG_CHANNELS_MAX     16u        /* of data, besides the control channel */
#define MIG_CHANNEL_URGENT   65534u     /* of post-copy: pages that are asked for */
#define MIG_CHANNEL_REST     65535u     /* all others */
#define MIG_NOTIFY_BYTES_MAX 4096u      /* a message beside writes */
#define MIG_BODY_BYTES_MAX   (1u << 20) /* of any frame: a chunk, a piece of state or a plan */
#define MIG_SPAN_BYTES       (1u << 20) /* what a chunk covers at most, aligned to itself */
#define MIG_PAGE_BYTES       4096u
#define MIG_SECTOR_BYTES     512u
#define MIG_OBJECTS_MAX      1024u /* memory and the images of all chains */

enum mig_type {
	MIG_TYPE_INVALID,
	MIG_TYPE_OPEN,
	MIG_TYPE_OPENED,
	MIG_TYPE_PLAN,
	MIG_TYPE_FINDINGS,
	MIG_TYPE_ROUND,
	MIG_TYPE_CHUNK,
	MIG_TYPE_BARRIER,
	MIG_TYPE_ROUND_DONE,
	MIG_TYPE_STATE,
	MIG_TYPE_SEALED,
	MIG_TYPE_CANCEL,
	MIG_TYPE_COMMIT,
	MIG_TYPE_READY,
	MIG_TYPE_FAILED,
	MIG_TYPE_RUNNING,
	MIG_TYPE_HANDED_BACK,
	MIG_TYPE_ALIVE,
	MIG_TYPE_WRITE,    /* bytes for a region */
	MIG_TYPE_ASK,      /* where the destination keeps the register */
	MIG_TYPE_REGISTER, /* the answer */
	MIG_TYPE_BYE,      /* the source has heard the end and asks nothing more */
	MIG_TYPE_ROOTS,    /* of a verified move's trees */
	MIG_TYPE_ASK_NODES,
	MIG_TYPE_NODES,    /* the answer */
	MIG_TYPE_VERIFIED, /* the trees are the same */
	MIG_TYPE_HAVE,     /* after a cut: what came before it */
	MIG_TYPE_RESUMED,  /* that was all: go on */
	MIG_TYPE_OWED,     /* post-copy: pages that the destination has not */
	MIG_TYPE_WANT,     /* somebody waits for them */
	MIG_TYPE_PAGES,    /* the answer, and what comes unasked */
	MIG_TYPE_LACKS,    /* OWED as the destination sees it, on a new connection */
	MIG_TYPE_GOT,      /* so many PAGES are in their places */
	MIG_TYPE_COMPLETE, /* all are */
	MIG_TYPES
};

/* Who may send a type, and where. */
struct mig_type_row {
	const char *name;
	bool by_source;
	bool by_destination;
	bool on_control;
	bool on_data;
	uint32_t body_bytes_min;
	uint32_t body_bytes_max;
};

/* NULL: there is no such type. */
const struct mig_type_row *mig_type_row(uint32_t type);

struct mig_frame {
	enum mig_type type;
	uint32_t body_bytes;
	uint32_t body_crc;     /* CRC-32C of the body; WRITE: 0, the chunk has it */
	uint64_t offset_bytes; /* WRITE: in the region */
	uint32_t region;       /* WRITE */
};

void mig_frame_encode(const struct mig_frame *frame, uint8_t ret_bytes[MIG_FRAME_BYTES]);

/**
 * mig_frame_decode - a frame's header.
 * @by_source, @on_control: whom and which channel it came from.
 * -EBADMSG: not a header (magic, checksum, reserved bits, an unknown type or a body of a size that
 * the type cannot have); -EPROTO: a type that this side may not send, or not here.
 */
BASE_MUST_CHECK int mig_frame_decode(const uint8_t bytes[MIG_FRAME_BYTES], bool by_source,
				     bool on_control, struct mig_frame *ret_frame,
				     struct base_error *err);

/* What a connection begins with. */
struct mig_open {
	uint16_t version_min;
	uint16_t version_max;
	uint16_t channel;       /* 0: control; or one of post-copy's two */
	uint16_t channel_count; /* of data */
	uint8_t id[MIG_ID_BYTES];
	uint8_t secret[MIG_ID_BYTES]; /* as OPENED gave it; zeros: a migration begins */
	uint32_t resume_ms;           /* for so long the source tries to be back after a cut */
};

void mig_open_encode(const struct mig_open *open, uint8_t ret_bytes[MIG_OPEN_BYTES]);
/* -EBADMSG; a range of versions without ours is no error here. */
BASE_MUST_CHECK int mig_open_decode(const uint8_t bytes[MIG_OPEN_BYTES], struct mig_open *ret_open,
				    struct base_error *err);
/* The newest version that both have; 0: none. */
uint16_t mig_open_version(const struct mig_open *open);

enum mig_chunk_kind {
	MIG_CHUNK_INVALID,
	MIG_CHUNK_PAGES,  /* of memory, as they are, written to their place */
	MIG_CHUNK_LZ4,    /* of memory, compressed, in the bounce region */
	MIG_CHUNK_ZEROS,  /* of memory; nothing is written */
	MIG_CHUNK_BLOCKS, /* of an image, in the bounce region */
	MIG_CHUNK_CLEAR,  /* of an image: reads zero */
	MIG_CHUNK_UNMAP,  /* of an image: reads zero and needs no space */
	MIG_CHUNK_KINDS
};

struct mig_chunk {
	enum mig_chunk_kind kind;
	uint16_t object; /* 0: memory */
	uint32_t round;
	uint64_t first; /* page or sector */
	uint32_t count;
	uint32_t stored_bytes; /* in the writes before it */
	uint64_t generation;
	uint64_t offset_bytes; /* where they are in @region */
	uint32_t region;
	uint32_t crc; /* CRC-32C of the bytes as they shall be; 0 where they are zeros */
};

/* What the plan says of an object. */
struct mig_object {
	uint64_t unit_count; /* pages or sectors */
};

void mig_chunk_encode(const struct mig_chunk *chunk, uint8_t ret_bytes[MIG_CHUNK_BYTES]);

/**
 * mig_chunk_decode - a chunk of one of @object_count objects.
 * What it gives lies within its object and within one span, and its stored bytes fit its kind;
 * whether region and offset are what this channel may use is the caller's to check.  -EBADMSG.
 */
BASE_MUST_CHECK int mig_chunk_decode(const uint8_t bytes[MIG_CHUNK_BYTES],
				     const struct mig_object *objects, uint32_t object_count,
				     struct mig_chunk *ret_chunk, struct base_error *err);

/* Bytes of a page or sector of @object, and what @count of them are. */
uint32_t mig_unit_bytes(uint16_t object);
/* The data channel, from 1, that a unit belongs to while the VM runs. */
uint32_t mig_channel_of(uint16_t object, uint64_t unit, uint32_t channel_count);

#endif
