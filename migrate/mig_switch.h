/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switchover of a migration: who runs the VM, source or destination, decided as a commit.
 *
 * Two pure machines, one in the worker of each side.  A step reads no clock, does no I/O and cannot
 * fail: time and completions come in as events, effects go out as actions, which agent/ executes
 * and whose results it gives back as events.  Any event in any state is taken; one that means
 * nothing there changes nothing.
 *
 * The owner of a VM is a register (epoch, side) that an arbiter keeps: the cluster's database, or
 * without a cluster a record at the destination.  It is changed by compare-and-swap only: from
 * epoch e to epoch e + 1.  The point of no return is that change, whoever learns of it when: an
 * answer that does not come is *unknown*, and a machine that does not know stays where it is and
 * asks again.  docs/migrate/switchover.md has the states, what each failure leads to, and the
 * promises, which tests/unit/migrate/mig_switch_model_test.c shows over every order of events.
 *
 * Threads: values, no state of their own.
 */
#ifndef MIGRATE_MIG_SWITCH_H
#define MIGRATE_MIG_SWITCH_H

#include <stdbool.h>
#include <stdint.h>

#define MIG_ACTIONS_MAX 4

enum mig_side {
	MIG_SIDE_INVALID,
	MIG_SOURCE,
	MIG_DESTINATION,
	MIG_OTHER, /* a node that takes no part in this migration */
	MIG_SIDES
};

/* What the two sides tell each other about the switchover: docs/migrate/protocol.md. */
enum mig_message {
	MIG_MSG_INVALID,
	MIG_MSG_SEALED,      /* source: that was all, and nothing changes any more */
	MIG_MSG_SEALED_POST, /* source: the same, but for pages that were named and follow */
	MIG_MSG_CANCEL,      /* source: the arbiter was not asked and will not be: forget it */
	MIG_MSG_COMMIT,      /* source: the register names you */
	MIG_MSG_READY,       /* destination: all is here, checked and durable */
	MIG_MSG_FAILED,      /* destination: it will not run here */
	MIG_MSG_RUNNING,     /* destination: it runs here */
	MIG_MSG_HANDED_BACK, /* destination: the register names you again */
	MIG_MSG_COMPLETE,    /* destination: every page is here; your memory is not needed */
	MIG_MSGS
};

enum mig_event_kind {
	MIG_EV_INVALID,
	MIG_EV_LINKED,          /* source: the destination has agreed to all */
	MIG_EV_SWITCH,          /* source: what is left fits into the downtime goal */
	MIG_EV_SWITCH_POST,     /* source: what is left of memory follows when it runs there */
	MIG_EV_PAUSED,          /* source: vCPUs stand still, no request is in flight */
	MIG_EV_PROMISED,        /* source: the record of the promise is durable */
	MIG_EV_CHECKED,         /* destination: all verified, disks flushed, record durable */
	MIG_EV_RUNS,            /* MIG_DO_RUN is done */
	MIG_EV_FILLED,          /* destination: the last of the pages that followed is here */
	MIG_EV_RUN_FAILED,      /* nothing ran, and no byte of a disk was changed */
	MIG_EV_MESSAGE,         /* @message of the other side */
	MIG_EV_LINK_LOST,       /* the connection, or the other side is silent for too long */
	MIG_EV_LINK_BACK,       /* a connection again, with the same other side */
	MIG_EV_ARBITER,         /* an answer: the register is (@epoch, @owner) */
	MIG_EV_ARBITER_UNKNOWN, /* no answer, or it cannot be reached */
	MIG_EV_RETRY,           /* the time of MIG_DO_RETRY is over */
	MIG_EV_CANCEL,          /* the user */
	MIG_EV_GIVE_UP,         /* destination: waited long enough, or the user */
	MIG_EV_FAULT,           /* copying, checking or the record has failed here */
	MIG_EVENTS
};

struct mig_event {
	enum mig_event_kind kind;
	enum mig_message message; /* MIG_EV_MESSAGE */
	uint64_t epoch;           /* MIG_EV_ARBITER */
	enum mig_side owner;      /* MIG_EV_ARBITER */
};

enum mig_action_kind {
	MIG_DO_INVALID,
	MIG_DO_PAUSE,     /* source: hold the vCPUs, drain the disks */
	MIG_DO_SEND_REST, /* source: the last round, device state, deactivate the disks, SEALED */
	MIG_DO_PROMISE,   /* source: make durable that the arbiter may have been asked */
	MIG_DO_CHECK,     /* destination: verify, flush, make durable that all is here */
	MIG_DO_SEND,      /* @message; dropped where there is no connection */
	MIG_DO_ASK,       /* compare-and-swap from (@epoch, anyone) to (@epoch + 1, @owner) */
	MIG_DO_READ,      /* read the register */
	MIG_DO_RUN,       /* activate the disks at @epoch, release the vCPUs */
	MIG_DO_RELEASE,   /* the VM's memory here goes; at the destination its disks as well */
	MIG_DO_SERVE,     /* source: never run it again, and send what is left of its memory */
	MIG_DO_RETRY,     /* MIG_EV_RETRY after a while; replaces an earlier one */
	MIG_DOS
};

struct mig_action {
	enum mig_action_kind kind;
	enum mig_message message; /* MIG_DO_SEND */
	enum mig_side owner;      /* MIG_DO_ASK */
	uint64_t epoch;           /* MIG_DO_ASK, MIG_DO_RUN */
};

struct mig_actions {
	uint32_t count;
	struct mig_action list[MIG_ACTIONS_MAX];
};

enum mig_source_state {
	MIG_SRC_INVALID,
	MIG_SRC_LINKING,   /* nothing is agreed on; the VM runs */
	MIG_SRC_COPYING,   /* rounds; the VM runs */
	MIG_SRC_PAUSING,   /* the VM is being held */
	MIG_SRC_SENDING,   /* held; the rest is on its way */
	MIG_SRC_PROMISING, /* the destination is ready; the promise is being written */
	MIG_SRC_ASKING,    /* the outcome is unknown */
	MIG_SRC_COMMITTED, /* the register names the destination, which has not said that it runs */
	MIG_SRC_SERVING,   /* it runs there, and a part of its memory is still here only */
	MIG_SRC_RETAKING,  /* it is ours: the VM is on its way back into life */
	MIG_SRC_STAYS,     /* end: the VM runs here */
	MIG_SRC_MOVED,     /* end: it runs there; nothing of it is here */
	MIG_SRC_STALE,     /* end: another node has been given it; nothing of it is here */
	MIG_SRC_STATES
};

struct mig_source {
	enum mig_source_state state;
	uint64_t epoch; /* at which the VM ran here when this began; in STAYS: at which it runs */
	bool cancelled; /* ASKING: the user wants it back */
	bool post;      /* pages follow when it runs there */
	bool lost;      /* SERVING: nothing is heard of the destination */
};

enum mig_destination_state {
	MIG_DST_INVALID,
	MIG_DST_RECEIVING,
	MIG_DST_CHECKING,     /* sealed; not everything is verified and durable */
	MIG_DST_READY,        /* may be told to run, may not run */
	MIG_DST_WITHDRAWING,  /* wants out, and has to make sure that it is not named */
	MIG_DST_ACTIVATING,   /* named by the register */
	MIG_DST_HANDING_BACK, /* named, and cannot run it */
	MIG_DST_FILLING,      /* the VM runs here, and pages of it are still at the source only */
	MIG_DST_RUNNING,      /* end: the VM runs here, and all of it is here */
	MIG_DST_GONE,         /* end: nothing of it is here */
	MIG_DST_STATES
};

struct mig_destination {
	enum mig_destination_state state;
	uint64_t epoch;   /* of the source: this side runs at the next one only */
	bool broken;      /* what is here cannot run */
	bool handed_back; /* GONE: the source owns it at epoch + 2 */
	bool post;        /* pages follow when it runs here */
};

/* The VM runs at @epoch where this begins. */
struct mig_source mig_source_begin(uint64_t epoch);
struct mig_destination mig_destination_begin(uint64_t epoch);

/* One event: the next state, and what to do about it, in that order. */
struct mig_source mig_source_step(struct mig_source source, const struct mig_event *event,
				  struct mig_actions *ret_actions);
struct mig_destination mig_destination_step(struct mig_destination destination,
					    const struct mig_event *event,
					    struct mig_actions *ret_actions);

bool mig_source_is_over(const struct mig_source *source);
bool mig_destination_is_over(const struct mig_destination *destination);

/* For logs and reports. */
const char *mig_source_state_name(enum mig_source_state state);
const char *mig_destination_state_name(enum mig_destination_state state);
const char *mig_event_name(const struct mig_event *event);
const char *mig_message_name(enum mig_message message);

#endif
