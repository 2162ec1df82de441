/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's session, for the files that make it up: mig_out.c (life and actions), mig_out_net.c
 * (connections and messages), mig_out_copy.c (the rounds), mig_out_throttle.c (a guest that cannot
 * be caught), mig_out_verify.c (the hash tree),
 * mig_out_resume.c (after a cut), mig_out_forecast.c (a dry run), mig_out_post.c (pages that
 * follow).
 *
 * Threads: the runner (mig_out_run()) owns what says nothing else; the mover makes the rounds, from
 * COPYING until it is stopped; the control channel's receiver.
 */
#ifndef MIGRATE_MIG_OUT_PRIV_H
#define MIGRATE_MIG_OUT_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "migrate/mig_body_post.h"
#include "migrate/mig_body_verify.h"
#include "migrate/mig_control_priv.h"
#include "migrate/mig_copy.h"
#include "migrate/mig_events_priv.h"
#include "migrate/mig_out.h"
#include "migrate/mig_serve.h"
#include "migrate/mig_throttle.h"

/* Instants of the way to the other side, 0: not reached.  Each is written by one thread before the
 * event that makes another look at it. */
struct mig_out_times {
	uint64_t begin_ns;
	uint64_t entered_ns; /* the host lets it take part */
	uint64_t linked_ns;
	uint64_t pause_ns; /* the order */
	uint64_t paused_ns;
	uint64_t last_round_ns;
	uint64_t state_ns;
	uint64_t sealed_ns;
	uint64_t ready_ns;
	uint64_t committed_ns;
	uint64_t running_ns; /* there, or here again */
	uint64_t end_ns;
};

struct mig_out {
	struct mig_out_options options;
	struct mig_events events;
	struct mig_source machine;
	struct mig_out_times times;
	uint64_t retry_ns; /* deadline of MIG_DO_RETRY */

	/* Of the migration; set while linking. */
	uint8_t id[MIG_ID_BYTES];
	struct mig_opened opened;
	struct mig_out_line line;
	struct mig_plan plan;
	uint64_t page_count;
	size_t word_count;
	struct mig_link *links[MIG_CHANNELS_MAX];
	int fds[MIG_CHANNELS_MAX];
	uint32_t link_count;
	struct base_pool *pool;
	struct mig_copy *copy;
	uint64_t *dirty;         /* the mover's: of the round */
	uint64_t *next;          /* the mover's: of the harvest */
	uint64_t *scratch;       /* the mover's */
	struct mig_image *image; /* NULL: no images */
	uint64_t image_bytes;    /* the mover's: of them to be sent, at most */

	struct mig_verify *verify; /* NULL: not verified */
	bool sweep_next;           /* the mover's: nearly all is sent */
	bool swept;                /* the mover's: the sweep was begun */
	bool cannot_verify;        /* the destination */
	bool cannot_post;          /* likewise */
	bool post;                 /* the mover's: what is left of memory follows */

	pthread_t mover;
	bool mover_runs; /* to be joined */
	bool is_tracked; /* what the VM writes */

	/* Across a cut.  The mover's while it runs, else the runner's and, once there is a control
	 * channel again, its receiver's. */
	bool open_round;   /* begun, and not confirmed; @dirty is what it was to send */
	bool goes_on;      /* the mover begins with what a cut has left */
	bool cut_in_pause; /* the VM is let go on, and then the move */
	bool let_go;       /* the mover's: of disks, which are not watched from then on */
	uint32_t cuts;     /* the runner's, up to the end of it */
	uint64_t cut_ns;   /* without a connection, in all */
	uint64_t cut_held_ns;
	uint64_t cut_until; /* when it is given up */
	uint64_t cut_mark;  /* what had come when it was cut last */
	uint64_t have_spans;
	uint64_t lost_chunks; /* sent, and will never come */
	uint64_t again_bytes;

	struct mig_forecast_facts facts; /* the mover's, of a dry run */
	bool uncapped;                   /* the mover's: the round is none that a cap is for */
	struct mig_throttle throttle;    /* the mover's */

	pthread_mutex_t lock;    /* a leaf: what is below */
	struct mig_serve *serve; /* NULL: no pages follow; set once, by the mover */
	uint64_t owed_pages;
	bool post_now; /* by the user */
	struct mig_complete complete;
	pthread_cond_t changed;
	struct mig_control *control; /* changed by the runner only */
	struct mig_link *dialing;    /* a connection that is being made */
	bool lost;                   /* the control channel is of no use */
	bool cancelled;              /* by the user */
	bool queued;
	bool resuming;       /* RESUMED is waited for */
	bool resumed;        /* it came */
	uint32_t resumed_at; /* number of the next round */
	bool faulted;        /* the mover, by something that no connection mends */
	bool refused;        /* FAILED came, or READY when the VM runs again */
	uint64_t past_bytes; /* sent over connections that are gone */
	bool stop;           /* for the mover */
	bool last;           /* for the mover: the VM is paused, send the rest */
	bool has_reason;
	struct base_error reason; /* the first one */
	bool has_findings;
	struct mig_findings *findings;
	uint32_t rounds_done;  /* ROUND_DONE came for so many */
	uint64_t alive_number; /* what the destination's signs of life said last */
	uint64_t progress_ns;  /* when that changed */
	uint32_t failure_count;
	struct mig_failure failures[MIG_FAILURES_MAX]; /* of the last of them */
	uint64_t question;
	bool has_answer;
	struct mig_answer answer;
	struct mig_pace pace;
	uint32_t round;
	uint64_t round_bytes;       /* at most, of the round under way */
	uint64_t round_begin_bytes; /* of memory and disks sent when it began */
	uint64_t left_pages;
	uint32_t throttle_now, throttle_most; /* permille */
	uint64_t throttle_since_ns;           /* 0: not throttled */
	uint64_t throttle_ns;                 /* before that */
	uint64_t dirty_bytes;                 /* of all harvests but the first */
	uint64_t resent_chunks;
	uint64_t state_bytes;
	uint64_t destination_check_ns, destination_activate_ns;
	bool has_roots;   /* they were sent: the trees are as they are */
	bool has_facts;   /* the dry run is over */
	bool is_verified; /* the destination says so */
	struct mig_verified verified;
	enum mig_source_state shown; /* the machine's, for progress */
};

static inline uint64_t mig_out_now(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

/* Keep the first reason.  Any thread. */
void mig_out_note(struct mig_out *out, int code, const struct base_error *why);
uint64_t mig_out_sent_bytes(const struct mig_out *out); /* over the data channels */

/* --- mig_out_net.c --- */

/* A connection that both sides have agreed on.  Gives link and descriptor.  Any thread for those of
 * post-copy. */
BASE_MUST_CHECK int mig_out_dial(struct mig_out *out, uint16_t channel, struct mig_link **ret_link,
				 int *ret_fd, struct mig_opened *ret_opened,
				 struct base_error *err);
/* Control channel, plan, findings, data channels; -ECANCELED by the user or by findings. */
BASE_MUST_CHECK int mig_out_link(struct mig_out *out, struct base_error *err);
BASE_MUST_CHECK int mig_out_open_data(struct mig_out *out, struct base_error *err);
/* The control channel is gone, and whoever used it. */
void mig_out_drop_control(struct mig_out *out);
/* A control channel again, after it was lost. */
BASE_MUST_CHECK int mig_out_relink(struct mig_out *out, struct base_error *err);
/* A message of the switchover; what cannot be sent is dropped. */
void mig_out_say(struct mig_out *out, enum mig_message message);
/* Ask the destination for its register, and wait; @owner MIG_SIDE_INVALID: only read.  Not 0:
 * unknown. */
BASE_MUST_CHECK int mig_out_ask(struct mig_out *out, uint64_t epoch, enum mig_side owner,
				struct mig_register *ret_register, struct base_error *err);

/* --- mig_out_copy.c --- */

BASE_MUST_CHECK int mig_out_copy_begin(struct mig_out *out, struct base_error *err);
/* Bytes of guest memory and disks that have been sent, zeros too.  There is a copy. */
uint64_t mig_out_moved_bytes(const struct mig_out *out);
/* The VM is paused: send the rest. */
void mig_out_copy_last(struct mig_out *out);
/* The mover is at its end when this returns; its data channels are closed.  Again is fine. */
void mig_out_copy_stop(struct mig_out *out);
/* The same, for now: what the VM writes is still tracked, and the mover may be started again. */
void mig_out_copy_halt(struct mig_out *out);
BASE_MUST_CHECK int mig_out_copy_go_on(struct mig_out *out, struct base_error *err);

/* For a dry run: what the first round would send; and as much of a round as goes until
 * @deadline_ns, confirmed. */
BASE_MUST_CHECK int mig_out_copy_first(struct mig_out *out, struct base_error *err);
BASE_MUST_CHECK int mig_out_copy_sample(struct mig_out *out, uint32_t number, uint64_t deadline_ns,
					bool capped, struct base_error *err);

/* --- mig_out_throttle.c: the mover --- */

/* A round is over and another one comes, with @left_bytes. */
void mig_out_throttle_next(struct mig_out *out, uint64_t sent_bytes, uint64_t took_ns,
			   uint64_t left_bytes);
/* Nothing is kept from running any more.  Again is fine. */
void mig_out_throttle_end(struct mig_out *out);

/* --- mig_out_forecast.c: the mover --- */

BASE_MUST_CHECK int mig_out_forecast_measure(struct mig_out *out, struct base_error *err);

/* --- mig_out_resume.c --- */

/* A destination that is cut off from it may wait for it. */
bool mig_out_can_resume(const struct mig_out *out);
/* Whether an error of this code may be mended by another connection. */
bool mig_out_is_cut(const struct mig_out *out, int code);
/**
 * mig_out_resume - the connection is lost in the midst of copying: get another, and go on.
 * 0: it goes on.  Not 0: it is over; the reason is noted.
 */
BASE_MUST_CHECK int mig_out_resume(struct mig_out *out);
/* The connection is lost while the VM stands still, and nobody was asked: unless disks were let go,
 * the move will go on once the machine has let the VM go on.  Before the machine hears of it. */
void mig_out_cut_in_pause(struct mig_out *out);
/* The receiver: READY, to a VM that runs on here since a cut: it has what is old by now. */
bool mig_out_is_too_late(struct mig_out *out);
BASE_MUST_CHECK int mig_out_take_have(struct mig_out *out, const struct mig_received *received,
				      struct base_error *err);
BASE_MUST_CHECK int mig_out_take_resumed(struct mig_out *out, const struct mig_received *received,
					 struct base_error *err);

#define MIG_OUT_CANNOT_POST                                                                        \
	"the destination cannot take pages by post-copy: it may not, or is of an older version"

/* --- mig_out_post.c --- */

bool mig_out_post_is_wanted(const struct mig_out *out);
/* The mover, while the VM runs: the connections. */
BASE_MUST_CHECK int mig_out_post_begin(struct mig_out *out, struct base_error *err);
/* The mover, when it stands still: what was to be sent is owed, and nothing of memory is sent. */
void mig_out_post_instead(struct mig_out *out);
/* Says so, and answers what is asked for from now on. */
BASE_MUST_CHECK int mig_out_post_owe(struct mig_out *out, struct base_error *err);
/* The receiver. */
BASE_MUST_CHECK int mig_out_post_take_complete(struct mig_out *out,
					       const struct mig_received *received,
					       struct base_error *err);
/* The runner; nothing without post-copy but for the first. */
void mig_out_post_serve(struct mig_out *out);
void mig_out_post_lost(struct mig_out *out);
void mig_out_post_stop(struct mig_out *out);
uint64_t mig_out_post_left(const struct mig_out *out); /* there is a serve */
/* Under the lock. */
void mig_out_post_progress(const struct mig_out *out, struct mig_out_progress *progress);
void mig_out_post_report(const struct mig_out *out, struct mig_out_report *report);

#define MIG_OUT_CANNOT_VERIFY "the destination cannot verify: it is of an older version"

/* --- mig_out_verify.c; nothing where it is not verified --- */

BASE_MUST_CHECK int mig_out_verify_new(struct mig_out *out, struct base_error *err);
/* Whether the next round is the sweep. */
bool mig_out_verify_sweeps(const struct mig_out *out, bool last);
/* Before a round is sent: what is to be hashed behind it. */
BASE_MUST_CHECK int mig_out_verify_begin(struct mig_out *out, bool last, struct base_error *err);
/* Behind its barriers. */
BASE_MUST_CHECK int mig_out_verify_hash(struct mig_out *out, struct base_error *err);
/* Hashes of before a cut are worth nothing: another sweep, if there was one. */
void mig_out_verify_after_cut(struct mig_out *out);
BASE_MUST_CHECK int mig_out_verify_send_roots(struct mig_out *out, struct base_error *err);
BASE_MUST_CHECK int mig_out_verify_take_ask(struct mig_out *out,
					    const struct mig_received *received,
					    struct base_error *err);
BASE_MUST_CHECK int mig_out_verify_take_verified(struct mig_out *out,
						 const struct mig_received *received,
						 struct base_error *err);
/* -EPROTO: a destination that has not compared is not ready. */
BASE_MUST_CHECK int mig_out_verify_check_ready(struct mig_out *out, struct base_error *err);
void mig_out_verify_report(const struct mig_out *out, struct mig_out_report *report);

#endif
