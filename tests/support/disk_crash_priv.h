/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two halves of the crash harness: running a workload (disk_crash_run.c) and looking at what
 * a power failure left (disk_crash.c).
 */
#ifndef TESTS_DISK_CRASH_PRIV_H
#define TESTS_DISK_CRASH_PRIV_H

#include "base/clock.h"
#include "tests/support/crash_model.h"
#include "tests/support/disk_crash.h"

#define CRASH_IN_FLIGHT  16U
#define CRASH_TOPS       32U
#define CRASH_READ_MAX   (1U << 20) /* one read of a verification */
#define CRASH_LENGTH_MAX (4U << 20) /* one write */
#define CRASH_WHY_BYTES  1024U

/* Which image is the disk's, from some event on: the first of the names that is there. */
struct crash_top {
	uint64_t from_count;
	char names[2][64]; /* the second may be "" */
};

struct crash_slot {
	struct disk_request request;
	struct iovec iov;
	uint8_t *data; /* CRASH_LENGTH_MAX; allocated at first use */
	uint32_t number;
	bool used;
	struct crash *crash;
};

struct crash {
	const struct crash_case *plan;
	struct crash_model model;
	struct base_fake_clock time;
	struct base_clock clock;
	struct base_io_loop *loop;
	struct store *store;
	struct disk *disk;
	struct disk_geometry geometry;
	char name[64]; /* of the image that is on top now */
	uint64_t random;
	bool recording;
	struct crash_slot slots[CRASH_IN_FLIGHT];
	uint32_t in_flight;
	bool idle;
	struct crash_top tops[CRASH_TOPS];
	uint32_t top_count;
	void (*guest)(struct crash *crash);
	uint8_t *buffer; /* CRASH_READ_MAX */
};

void crash_init(struct crash *crash, const struct crash_case *plan);
void crash_fini(struct crash *crash);
/* The options with which @name of @store is opened here. */
struct disk_options crash_options(const struct crash *crash, struct store *store, const char *name);
/* Compare what was written; false and @why.  @event_count: CRASH_NOW or of the crash. */
bool crash_compare(const struct crash *crash, struct disk *disk, uint64_t event_count, char *why);
/* The same for one run. */
bool crash_compare_run(const struct crash *crash, struct disk *disk, uint64_t event_count,
		       uint64_t offset_bytes, uint64_t length_bytes, char *why);

#endif
