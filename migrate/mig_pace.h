/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to switch over, and what to tell of the way there: pure, from counts and times.
 *
 * Each round tells how much it sent and how long that took; each harvest how much there is to send
 * now.  The blackout that a switch now would cost is predicted from all of its parts: what is left
 * at the rate seen, and the fixed costs (pausing, draining, device state, checking, commit,
 * activation), as they were measured before or are assumed.  docs/migrate/pace.md.
 *
 * Threads: values.
 */
#ifndef MIGRATE_MIG_PACE_H
#define MIGRATE_MIG_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* What to do when the goal is not met within the time limit, or cannot be met at all. */
enum mig_late {
	MIG_LATE_INVALID, /* as SWITCH */
	MIG_LATE_SWITCH,  /* pause, however long it takes: at a local minimum */
	MIG_LATE_CANCEL,  /* the VM stays */
	/* Pause, and leave what is left of memory to be sent when the VM runs there: the name says
	 * what that costs.  Survives a broken network, not the loss of either host:
	 * docs/migrate/postcopy.md. */
	MIG_LATE_POSTCOPY,
	MIG_LATES
};

#define MIG_PACE_GOAL_NS     (300 * 1000000ULL)
#define MIG_PACE_FIXED_NS    (5 * 1000000ULL)
#define MIG_PACE_ROUNDS_MAX  (1u << 20) /* then it is late, whatever the clock says */
/* When it is late, rounds given to a guest in the middle of a burst. */
#define MIG_PACE_LATE_ROUNDS 4u

struct mig_pace_options {
	uint64_t downtime_goal_ns; /* of the blackout, all costs counted; 0: MIG_PACE_GOAL_NS */
	uint64_t time_limit_ns;    /* of the copying; 0: none */
	enum mig_late late;
	uint64_t fixed_ns; /* of an earlier move, or a guess; 0: MIG_PACE_FIXED_NS */
};

enum mig_pace_step {
	MIG_PACE_INVALID,
	MIG_PACE_ROUND,  /* send what was harvested, and go on */
	MIG_PACE_SWITCH, /* pause now */
	MIG_PACE_CANCEL, /* it will not get there */
	MIG_PACE_POST,   /* pause now, and send what is left of memory afterwards */
	MIG_PACE_STEPS
};

struct mig_pace {
	struct mig_pace_options options;
	/* The rest is its own. */
	uint64_t rate_bytes_per_s; /* smoothed; 0: not known */
	uint64_t seen_bytes;       /* what the rate is from */
	uint64_t seen_ns;
	uint64_t best_left_bytes; /* the least that was left after a round; UINT64_MAX: none */
	uint64_t near_left_bytes; /* the least lately */
	uint32_t rounds;
	uint32_t rounds_without_gain;
	uint32_t late_rounds; /* since it is late */
	bool is_late;
	uint64_t begin_ns;
	uint64_t gain_ns;     /* when best_left_bytes was found */
	uint64_t round_ns;    /* when the round under way began */
	uint64_t sent_bytes;  /* of all rounds that have ended */
	uint64_t first_bytes; /* of the first */
	uint64_t last_bytes;  /* of the last */
	uint64_t left_bytes;  /* what the last harvest named */
	uint64_t total_bytes; /* of the first round, as it was announced */
	uint32_t percent;     /* shown last: never goes back */
	uint64_t left_ns;     /* shown last */
};

struct mig_pace mig_pace_begin(const struct mig_pace_options *options, uint64_t now_ns,
			       uint64_t total_bytes);

/**
 * mig_pace_next - a round has ended and the next harvest is there.
 * @sent_bytes, @took_ns: of the round, over all channels; @left_bytes: what the harvest names.
 * Both in bytes of guest memory and disks, not of the connection.
 */
enum mig_pace_step mig_pace_next(struct mig_pace *pace, uint64_t now_ns, uint64_t sent_bytes,
				 uint64_t took_ns, uint64_t left_bytes);

/* The same where the round did more than send, and those that come do more than those before: it
 * says nothing of the rate, the next one says all, and the way to the pause begins anew from what
 * the harvest names. */
void mig_pace_skip(struct mig_pace *pace, uint64_t now_ns, uint64_t sent_bytes,
		   uint64_t left_bytes);

/**
 * mig_pace_post - whether MIG_PACE_POST is taken now, or asked for by somebody.
 * @image_bytes: of what is left, those that have to be there before the VM runs.
 * MIG_PACE_POST; MIG_PACE_ROUND: they do not fit into the goal, and may get fewer; at most
 * MIG_PACE_LATE_ROUNDS times.
 */
enum mig_pace_step mig_pace_post(struct mig_pace *pace, uint64_t image_bytes);

/* Until it is late because of the time limit; UINT64_MAX: there is none. */
uint64_t mig_pace_time_ns(const struct mig_pace *pace, uint64_t now_ns);

/* The blackout that a switch with @left_bytes would cost. */
uint64_t mig_pace_blackout_ns(const struct mig_pace *pace, uint64_t left_bytes);

/* What can be left for the pause within the goal; 0: nothing, or not known. */
uint64_t mig_pace_room_bytes(const struct mig_pace *pace);

/* For people: how far, how fast, how long still.  Percent never falls, the time left never rises:
 * both may stand.  @round_sent_bytes: of the round under way, which has @round_bytes. */
struct mig_progress_view {
	uint32_t percent; /* 0 to 99: who knows that it is over says 100 */
	uint64_t rate_bytes_per_s;
	uint64_t left_ns; /* UINT64_MAX: not known */
};
struct mig_progress_view mig_pace_view(struct mig_pace *pace, uint64_t now_ns,
				       uint64_t round_sent_bytes, uint64_t round_bytes);

#endif
