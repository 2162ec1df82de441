/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sectors of an image are, as whoever has it tells: runs, asked for in large pieces and
 * used in small ones.
 *
 * Values; a cursor is one thread's.
 */
#ifndef MIGRATE_MIG_MAP_H
#define MIGRATE_MIG_MAP_H

#include <stdint.h>

#include "base/error.h"

#define MIG_RUNS_MAX 64u /* of a map, at a time */

enum mig_run_kind {
	MIG_RUN_INVALID,
	MIG_RUN_DATA,
	MIG_RUN_ZERO,     /* reads zero */
	MIG_RUN_UNMAPPED, /* reads zero and takes no space */
	MIG_RUN_NOTHING,  /* not of this image: a parent shows */
	MIG_RUN_KINDS
};

struct mig_run {
	uint64_t first; /* sector */
	uint32_t count;
	enum mig_run_kind kind;
};

/* What a range of sectors consists of: runs in order, without gaps, from its first sector on. */
struct mig_map {
	uint64_t first;
	uint32_t count;
	uint32_t run_count; /* set: 1 or more; they may end before the range does */
	struct mig_run runs[MIG_RUNS_MAX];
};

/* Who tells. */
struct mig_mapped {
	int (*map)(void *context, uint16_t object, struct mig_map *map, struct base_error *err);
	void *context;
	uint16_t object; /* from 1 */
	uint64_t sector_count;
};

/* What was told last; zero: nothing.  It may be older than a write. */
struct mig_map_cursor {
	struct mig_map map;
	uint16_t object; /* 0: none */
	uint32_t run;    /* that was used last; sectors are asked for in rising order */
};

/* The run that @sector of @object is in; NULL: that is not known. */
const struct mig_run *mig_map_seen(struct mig_map_cursor *cursor, uint16_t object, uint64_t sector);

/**
 * mig_map_part - what is at sector @first: a run that begins there and ends at @end or before.
 * What map() gave, when it had to be asked.
 */
BASE_MUST_CHECK int mig_map_part(struct mig_map_cursor *cursor, const struct mig_mapped *mapped,
				 uint64_t first, uint64_t end, struct mig_run *ret_part,
				 struct base_error *err);

#endif
