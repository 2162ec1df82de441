/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's session, for the files that make it up: mig_in.c (life and actions),
 * mig_in_net.c (who connects), mig_in_control.c (what the source says), mig_in_data.c (the data
 * channels), mig_in_verify.c (the hash tree), mig_in_resume.c (after a cut),
 * mig_in_post.c (pages that follow).
 *
 * Threads: the runner (mig_in_run()) owns what says nothing else; the door looks at the listening
 * socket and makes channels; the control channel's receiver; one for each data channel.
 */
#ifndef MIGRATE_MIG_IN_PRIV_H
#define MIGRATE_MIG_IN_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "migrate/mig_body_verify.h"
#include "migrate/mig_control_priv.h"
#include "migrate/mig_events_priv.h"
#include "migrate/mig_fill.h"
#include "migrate/mig_in.h"

#define MIG_IN_PENDING_MAX 64u    /* connections that have not said OPEN */
#define MIG_IN_OPEN_MS     10000u /* for saying it */

struct mig_in_channel {
	struct mig_in *in;
	uint32_t number; /* from 1 */
	struct mig_link *link;
	int fd;
	pthread_t thread;
	bool there;
};

/* One of post-copy's two connections.  The door's. */
struct mig_in_lane {
	struct mig_in *in;
	bool urgent;
	struct mig_link *link;
	int fd;
	pthread_t thread;
	bool there;
	bool ended; /* under lock: its thread waits for nothing more */
};

struct mig_in_post {
	_Atomic uint64_t *owed; /* the receiver's; the runner's from SEALED on */
	uint64_t owed_at, owed_pages;
	struct mig_fill *fill; /* made by the runner; set under lock, once */
	bool checking;         /* under lock: the device state is being loaded */
	struct mig_in_lane lanes[2];
	uint64_t running_ns, filled_ns;
};

struct mig_in {
	struct mig_in_options options;
	struct mig_events events;
	struct mig_destination machine;
	uint64_t retry_ns;   /* deadline of MIG_DO_RETRY */
	uint64_t give_up_ns; /* ready, and nothing heard until then */
	bool prepared;       /* vm->prepare() was called, vm->release() was not; under lock */
	uint64_t check_ns, activate_ns;
	struct mig_in_post post;

	pthread_t door;
	bool has_door;
	int wake_fd; /* tells the door that it is over */

	/* Made by the receiver with the plan, before any data channel may come. */
	struct mig_plan plan;
	struct mig_intake *intake; /* set under lock */
	uint8_t *memory;
	struct base_buffer state; /* the receiver's; the runner's from SEALED on */
	struct mig_sealed sealed;
	struct mig_verify *verify; /* NULL: not verified; set under lock */
	struct mig_digest *roots;  /* the source's; the receiver's, the runner's from SEALED on */
	bool sweeps, swept;        /* the round under way, or one up to it; the receiver's, and the
				    * data channels' before the round is reported */
	atomic_uint hashed_from;   /* number + 1 of the sweep; 0: not yet */
	atomic_uint round_open;    /* number + 1 of the round whose chunks may come; 0: none */

	pthread_mutex_t control_lock; /* the control channel's life; nothing but a send under it */
	struct mig_control *control;  /* changed by the door and, at the end, the runner */

	pthread_mutex_t lock; /* a leaf: what is below */
	pthread_cond_t changed;
	bool taken; /* a source has come; id and secret are its own */
	uint8_t id[MIG_ID_BYTES];
	uint8_t secret[MIG_ID_BYTES];
	uint32_t channel_count;
	uint32_t resume_ms; /* a source that is cut off may be back within; 0: never */
	bool preparing;     /* the receiver is in vm->prepare() */
	bool accepted;      /* no findings: data channels may come */
	bool stop;          /* for data channels and door */
	bool cutting;       /* for data channels: the door waits for their end, and is inside */
	bool lost;          /* no control channel */
	bool parted;        /* the source has said BYE */
	bool has_sealed, whole, sealed_told;
	bool was_ready;
	uint32_t rounds_reported; /* ROUND_DONE was sent for so many */
	uint32_t hash_open;       /* number + 1 of the round that may be hashed */
	uint32_t hash_done;       /* channels that have hashed it */
	bool asked_nodes;         /* for those of @node; the answer is @nodes */
	struct mig_node node;
	struct mig_nodes nodes;
	bool has_reason;
	struct base_error reason;
	struct mig_in_channel channels[MIG_CHANNELS_MAX + 1];
};

static inline uint64_t mig_in_now(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

/* Keep the first reason.  Any thread. */
void mig_in_note(struct mig_in *in, int code, const struct base_error *why);
/* The same, and the machine hears of a fault. */
void mig_in_fault(struct mig_in *in, int code, const struct base_error *why);
/* On the control channel, if there is one.  Any thread. */
void mig_in_send(struct mig_in *in, enum mig_type type, const void *body, uint32_t body_bytes);

void mig_in_send_failed(struct mig_in *in, const char *why);

/* --- mig_in_net.c --- */

BASE_MUST_CHECK int mig_in_door_open(struct mig_in *in, struct base_error *err);
void mig_in_door_close(struct mig_in *in); /* no connection is made after it; again is fine */

/* --- mig_in_control.c --- */

struct mig_control_ops mig_in_control_ops(struct mig_in *in);
/* The message SEALED has come and all data: tell the machine, once. */
void mig_in_sealed(struct mig_in *in);

/* --- mig_in_data.c --- */

/* A data channel, greeted.  @link and @fd are taken, also on failure. */
BASE_MUST_CHECK int mig_in_channel_begin(struct mig_in *in, uint32_t number, struct mig_link *link,
					 int fd, struct base_error *err);
/* Regions that the source may write to. */
void mig_in_channel_register(struct mig_in *in, uint32_t number, struct mig_link *link);
/* A number that changes while data comes and is taken in; any thread; context: the session. */
uint64_t mig_in_progress(void *context);
/* The receiver has opened a round. */
void mig_in_round_opened(struct mig_in *in, uint32_t number);
/* No data channel is at work when it returns, and none comes.  Again is fine. */
void mig_in_data_stop(struct mig_in *in);

/* The same for now, by the door, which then makes others.  -ECANCELED: it is over. */
BASE_MUST_CHECK int mig_in_data_cut(struct mig_in *in, struct base_error *err);
/* Whether a data channel has to come to its end.  Under the lock. */
static inline bool mig_in_is_ending(const struct mig_in *in)
{
	return in->stop || in->cutting;
}

/* --- mig_in_resume.c --- */

/* Whether a source that is cut off now may be back. */
bool mig_in_can_resume(struct mig_in *in);
/* Whether an error of this code on a data channel is no more than that. */
bool mig_in_is_cut(struct mig_in *in, int code);
/* The door: the source is back; its old channels are gone after it. */
BASE_MUST_CHECK int mig_in_cut(struct mig_in *in, struct base_error *err);
/* On the new control channel: what had come. */
void mig_in_say_have(struct mig_in *in);

/* --- mig_in_post.c --- */

/* The receiver: OWED.  Then the count of SEALED. */
BASE_MUST_CHECK int mig_in_post_take_owed(struct mig_in *in, const struct mig_received *received,
					  struct base_error *err);
/* The door, after a cut, while there is no receiver: what was owed comes in a round, or is owed
 * anew. */
void mig_in_post_cut(struct mig_in *in);
BASE_MUST_CHECK int mig_in_post_check(const struct mig_in *in, struct base_error *err);
/* From here on whoever touches an owed page waits; and until the end of the check for as long only
 * as the source is there.  Not 0: it cannot run here. */
BASE_MUST_CHECK int mig_in_post_begin(struct mig_in *in, struct base_error *err);
/* What the check has come to, with that. */
BASE_MUST_CHECK int mig_in_post_end_check(struct mig_in *in, int code, struct base_error *err);
/* The source is not heard of, or has cancelled.  Any thread. */
void mig_in_post_parted(struct mig_in *in);
/* The VM runs here. */
void mig_in_post_runs(struct mig_in *in);
/* COMPLETE. */
void mig_in_post_say(struct mig_in *in);
/* The door: one of the two connections, greeted.  @link and @fd are taken, also on failure. */
BASE_MUST_CHECK int mig_in_post_admit(struct mig_in *in, bool urgent, struct mig_link *link, int fd,
				      struct base_error *err);
/* Whether pages are missing.  Any thread. */
bool mig_in_post_needs(struct mig_in *in);
/* What is here will not run: nobody waits, and nothing comes any more. */
void mig_in_post_halt(struct mig_in *in);
/* The door is closed. */
void mig_in_post_fini(struct mig_in *in);

/* --- mig_in_verify.c; nothing where it is not verified --- */

BASE_MUST_CHECK int mig_in_verify_new(const struct mig_in *in, const struct mig_object *objects,
				      struct mig_verify **ret_verify, struct base_error *err);
/* A round is about to be opened. */
BASE_MUST_CHECK int mig_in_verify_begin(struct mig_in *in, const struct mig_round *round,
					struct base_error *err);
/**
 * mig_in_verify_hash - behind a barrier: wait for the others', and hash together.
 * @all_there: this was the last of the round's barriers.
 * 1: the round is over, and this is the thread that says so; 0; errors.
 */
BASE_MUST_CHECK int mig_in_verify_hash(struct mig_in *in, uint32_t lane, uint32_t number,
				       bool all_there, struct base_error *err);
/* Hashes of before a cut are worth nothing. */
void mig_in_verify_cut(struct mig_in *in);
BASE_MUST_CHECK int mig_in_verify_take_roots(struct mig_in *in, const struct mig_received *received,
					     struct base_error *err);
BASE_MUST_CHECK int mig_in_verify_take_nodes(struct mig_in *in, const struct mig_received *received,
					     struct base_error *err);
/* Of what came with what was sent.  -EBADMSG names the object and the first unit that differs. */
BASE_MUST_CHECK int mig_in_verify_compare(struct mig_in *in, struct base_error *err);
void mig_in_verify_say(struct mig_in *in);

#endif
