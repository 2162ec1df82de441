/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a migration did over time, in a fixed space: for people to look at afterwards.
 *
 * Whoever watches a migration gives what it shows now and then.  Counters are sums since the
 * begin, so that leaving samples out loses no total: when all places are taken every second sample
 * goes, and from then on half as many are taken.  A move of hours fits as one of a second does.
 * docs/migrate/report.md.
 *
 * Threads: values; reads no clock.
 */
#ifndef MIGRATE_MIG_TIMELINE_H
#define MIGRATE_MIG_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>

#define MIG_TIMELINE_SAMPLES 512u        /* as many as a screen has columns to tell apart */
#define MIG_TIMELINE_ROUNDS  128u        /* then every second one goes */
#define MIG_TIMELINE_MARKS   64u         /* of states and cuts */
#define MIG_TIMELINE_STEP_NS 20000000ULL /* between two samples, at first */

/* What is seen at an instant. */
struct mig_timeline_view {
	uint64_t at_ns;             /* since the begin */
	uint64_t sent_bytes;        /* since the begin */
	uint64_t dirty_bytes;       /* likewise: what harvests named, each time that they did */
	uint64_t left_bytes;        /* to be sent, of the newest harvest */
	uint64_t fault_pages;       /* since the begin: sent because somebody waited for them */
	uint32_t throttle_permille; /* of the guest's time that it is kept from running; 0: none */
	uint32_t round;
	uint32_t state; /* a number of the caller's; each change is a mark */
	bool is_cut;    /* no connection; likewise */
};

struct mig_timeline_sample {
	uint64_t at_ns;
	uint64_t sent_bytes;
	uint64_t dirty_bytes;
	uint64_t left_bytes;
	uint64_t fault_pages;
	uint32_t throttle_permille; /* the most since the sample before */
};

struct mig_timeline_round {
	uint64_t at_ns;
	uint32_t number;
};

enum mig_timeline_what {
	MIG_TIMELINE_INVALID,
	MIG_TIMELINE_STATE, /* it changed to @state */
	MIG_TIMELINE_CUT,
	MIG_TIMELINE_RESUMED,
	MIG_TIMELINE_WHATS
};

struct mig_timeline_mark {
	uint64_t at_ns;
	enum mig_timeline_what what;
	uint32_t state;
};

struct mig_timeline {
	uint64_t step_ns; /* between two samples */
	uint64_t next_ns; /* when the next one is due */
	uint32_t round_stride;
	uint32_t sample_count, round_count, mark_count;
	uint32_t lost_marks;        /* found no place */
	uint32_t throttle_permille; /* the most since the newest sample */
	uint32_t throttle_most;     /* of all */
	bool has_view;
	struct mig_timeline_view last;
	struct mig_timeline_sample samples[MIG_TIMELINE_SAMPLES];
	struct mig_timeline_round rounds[MIG_TIMELINE_ROUNDS];
	struct mig_timeline_mark marks[MIG_TIMELINE_MARKS];
};

void mig_timeline_begin(struct mig_timeline *timeline);
/* Time and counters that go back count as standing still. */
void mig_timeline_look(struct mig_timeline *timeline, const struct mig_timeline_view *view);
/* The migration is over: what was seen last is a sample, whenever that was. */
void mig_timeline_end(struct mig_timeline *timeline);

#endif
