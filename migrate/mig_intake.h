/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a destination makes of chunks: decompress, clear, verify, and keep order.
 *
 * Chunks come on several channels, each of which has a thread of its own; a unit (page, sector)
 * belongs to one channel while the VM runs, so two threads never work on one span.  Between rounds
 * is a barrier over all channels.  A memory chunk whose checksum fails is remembered for the
 * source, which knows whether the guest has changed it since; in the last round, where nothing
 * changes, it is corruption.  docs/migrate/protocol.md, sections 4 and 5.
 *
 * Threads: mig_intake_chunk() and mig_intake_barrier() on the channels' threads; the others on one
 * thread while no channel is inside.
 */
#ifndef MIGRATE_MIG_INTAKE_H
#define MIGRATE_MIG_INTAKE_H

#include "migrate/mig_wire.h"

#define MIG_REGION_MEMORY 1u /* guest memory itself */
#define MIG_REGION_BOUNCE 2u /* of the channel, MIG_BOUNCE_BYTES */
#define MIG_BOUNCE_BYTES  MIG_SPAN_BYTES
#define MIG_FAILURE_BYTES 16u /* of one in ROUND_DONE */
#define MIG_FAILURES_MAX                                                                           \
	((MIG_BODY_BYTES_MAX - 8) / MIG_FAILURE_BYTES) /* of one round: 64 GiB of spans */

struct mig_intake;
struct mig_map;
struct mig_verify;

/* Images, filled in by agent/.  On the channel's thread; @sector and @count lie within the image.
 */
struct mig_disk_ops {
	int (*write)(void *context, uint16_t object, uint64_t sector, const uint8_t *bytes,
		     uint32_t count, struct base_error *err);
	int (*clear)(void *context, uint16_t object, uint64_t sector, uint32_t count, bool unmap,
		     struct base_error *err);
	/* Of a verified move, while nothing is written; as in struct mig_image_ops. */
	int (*map)(void *context, uint16_t object, struct mig_map *map, struct base_error *err);
	int (*read)(void *context, uint16_t object, uint64_t sector, uint8_t *to, uint32_t count,
		    struct base_error *err);
};

struct mig_intake_options {
	uint8_t *memory;                  /* borrowed: pages in a row, all zero */
	const struct mig_object *objects; /* copied; the first is memory */
	uint32_t object_count;            /* 1 to MIG_OBJECTS_MAX */
	uint32_t channel_count;           /* 1 to MIG_CHANNELS_MAX */
	const struct mig_disk_ops *disk;  /* NULL: no images */
	void *disk_context;
	struct mig_verify *verify; /* borrowed: is told what came; NULL: nobody is */
	bool bare; /* what came is what was sent, by other means: pages and blocks have no checksums
		    */
};

/* A chunk whose checksum failed. */
struct mig_failure {
	uint64_t first;
	uint32_t count;
	uint16_t object;
};

struct mig_intake_counts {
	uint64_t chunks;     /* all that were taken */
	uint64_t page_count; /* received, also by LZ4 */
	uint64_t zero_pages;
};

/* -ENOMEM. */
BASE_MUST_CHECK int mig_intake_new(const struct mig_intake_options *options,
				   struct mig_intake **ret_intake, struct base_error *err);
void mig_intake_free(struct mig_intake *intake);

/* The bounce region of @channel (1 and up); its link registers it. */
uint8_t *mig_intake_bounce(struct mig_intake *intake, uint32_t channel);

/**
 * mig_intake_round - chunks of round @number may come.
 * @last: the VM stands still: any channel may bring any span, and no checksum may fail.
 * -EPROTO: not the next one, or the round before has not ended.
 */
BASE_MUST_CHECK int mig_intake_round(struct mig_intake *intake, uint32_t number, bool last,
				     struct base_error *err);

/**
 * mig_intake_cut - all channels were cut off, and nobody is inside.
 * The round under way is over, whatever there is of it, also where it was to be the last.  How many
 * were opened; the next has that number.
 */
uint32_t mig_intake_cut(struct mig_intake *intake);
/* Bytes have landed in memory of which no chunk has told: those pages may be other than zero. */
void mig_intake_loose(struct mig_intake *intake, uint64_t offset_bytes, uint64_t size_bytes);
uint64_t mig_intake_span_count(const struct mig_intake *intake, uint16_t object);
/* Of @count spans of @object, from @first on: the generation of the newest chunk; 0: none came.
 * While no chunks come. */
void mig_intake_generations(const struct mig_intake *intake, uint16_t object, uint64_t first,
			    uint64_t count, uint64_t *ret_generations);

/**
 * mig_intake_chunk - one CHUNK message of @channel.
 * -EBADMSG bytes that cannot be, a generation older than what is there, a checksum that may not
 * fail, more failures than a guest can cause; -EPROTO not in this round, or not on this channel;
 * what an image's ops gave.  Then the migration has failed.
 */
BASE_MUST_CHECK int mig_intake_chunk(struct mig_intake *intake, uint32_t channel,
				     const uint8_t bytes[MIG_CHUNK_BYTES], struct base_error *err);

/* BARRIER of round @number on @channel.  1: it was the last of all; 0; -EPROTO. */
BASE_MUST_CHECK int mig_intake_barrier(struct mig_intake *intake, uint32_t channel, uint32_t number,
				       struct base_error *err);

/* After the last barrier of a round: what failed in it; at most MIG_FAILURES_MAX. */
uint32_t mig_intake_failures(const struct mig_intake *intake, struct mig_failure *ret_failures);
/* Whether the round under way is the last; for a channel's thread within it. */
bool mig_intake_is_last(const struct mig_intake *intake);
/* Whether the last round has ended. */
bool mig_intake_is_whole(const struct mig_intake *intake);
/* Pages that may be other than zero: a bit each. */
const uint64_t *mig_intake_touched(const struct mig_intake *intake);
struct mig_intake_counts mig_intake_counts(const struct mig_intake *intake);

#endif
