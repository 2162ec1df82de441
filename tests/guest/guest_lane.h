/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane of the storage client: the requests in flight on one channel.  Only its vCPU touches
 * it, but for what is marked.
 */
#ifndef GUEST_LANE_H
#define GUEST_LANE_H

#include "tests/guest/guest_bus.h"
#include "tests/guest/guest_ledger.h"
#include "tests/guest/guest_work.h"

#define GUEST_LANES_MAX       16
#define GUEST_SLOTS_MAX       256
#define GUEST_LATENCY_BUCKETS 640

enum guest_lane_mode {
	GUEST_LANE_OFF = 0,
	GUEST_LANE_ADOPT,  /* read every record for the first time; then LOAD */
	GUEST_LANE_LOAD,   /* write stamped records, read them back, flush */
	GUEST_LANE_VERIFY, /* read every record; then STOPPED */
	GUEST_LANE_BENCH,  /* until its end; then STOPPED */
	GUEST_LANE_STOPPING,
	GUEST_LANE_STOPPED
};

struct guest_lane_bench {
	enum guest_disk_mode mode;
	uint32_t depth, blocks; /* records of each request */
	uint64_t time_ms;
};

struct guest_slot {
	bool busy, reported;
	uint8_t index;
	uint8_t op; /* enum guest_scsi_op */
	uint32_t blocks;
	uint64_t block;  /* first record, index into the ledger */
	uint64_t id;     /* transaction */
	uint64_t since;  /* active_tsc at the start, for stalls */
	uint64_t from;   /* TSC at the start, for latencies */
	uint64_t serial; /* flush: acknowledgements before it */
	uint8_t *buffer;
};

struct guest_lane {
	uint32_t mode; /* enum guest_lane_mode; atomic: vCPU 0 looks, and gives the first one */
	struct guest_channel *channel;
	struct guest_ledger own; /* entries are those of the region: it touches its slice */
	uint64_t first, count;   /* slice */
	uint64_t lba_first;      /* of record 0 of the region */
	uint32_t lba_per_record;
	uint32_t depth, busy;
	uint8_t lun;
	struct guest_slot slots[GUEST_SLOTS_MAX];
	uint64_t next_id, random, cursor, found;
	uint64_t abandoned_below; /* of ids below this completions may come, until the close */
	uint32_t writes_since_flush;
	struct guest_lane_bench bench;
	uint64_t bench_from, bench_end, bench_done_tsc; /* TSC */

	/* counters, read by vCPU 0 */
	uint64_t writes, reads, flushes, errors, attentions, bench_ops, bench_max;
	uint32_t latencies[GUEST_LATENCY_BUCKETS];
};

/** guest_lane_poll - keep as much in flight as the mode asks for; look for stalls. */
void guest_lane_poll(struct guest_worker *worker, struct guest_lane *lane);

/** guest_lane_packet - a completion. */
void guest_lane_packet(struct guest_worker *worker, struct guest_lane *lane,
		       const struct guest_packet *packet);

void guest_lane_channel(struct guest_lane *lane, struct guest_channel *channel);
void guest_lane_set(struct guest_lane *lane, enum guest_lane_mode mode);
enum guest_lane_mode guest_lane_mode(const struct guest_lane *lane);

/** guest_lane_bench - begin a measurement. */
void guest_lane_bench(struct guest_lane *lane, const struct guest_lane_bench *bench);

/** guest_lane_abandon - the channel closes over what is in flight: each write may have happened
 *  or not.  Completions that come before it is closed are passed over; on a channel given by
 *  guest_lane_channel() they are wrong. */
void guest_lane_abandon(struct guest_lane *lane);

/* A latency in ns has a bucket with an error of 6 %. */
uint32_t guest_latency_bucket(uint64_t ns);
uint64_t guest_latency_ns(uint32_t bucket);

#endif
