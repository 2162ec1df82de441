/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A live update: a VM goes from one worker to another on the same host, over descriptors of its
 * memory, disks and network.  docs/migrate/update.md is the contract.
 *
 * Two pure machines: a step reads no clock, does no I/O and cannot fail.  The point of no return
 * is the token, one message: whoever holds it runs the VM once the other is surely dead.
 *
 * Threads: values, no state of their own.
 */
#ifndef MIGRATE_MIG_UPDATE_H
#define MIGRATE_MIG_UPDATE_H

#include <stdint.h>

#define MIG_UPDATE_ACTIONS_MAX 2

enum mig_update_event {
	MIG_UPDATE_EV_INVALID,
	MIG_UPDATE_EV_DONE,      /* the last BUILD, HOLD, FREEZE or LOAD is done */
	MIG_UPDATE_EV_FAULT,     /* it has failed, took too long, or the user wants no update */
	MIG_UPDATE_EV_LINK_LOST, /* the socket is hung up; says nothing of the peer's life */
	MIG_UPDATE_EV_DEAD,      /* the peer is surely dead, and all that it sent has been read */
	MIG_UPDATE_EV_PLAN,      /* old to new: what to build, with the descriptors */
	MIG_UPDATE_EV_BUILT,     /* new to old: partition and vCPUs are there */
	MIG_UPDATE_EV_STATE,     /* old to new: the state of a VM that is held and frozen */
	MIG_UPDATE_EV_READY,     /* new to old: all is loaded, nothing is left that could fail */
	MIG_UPDATE_EV_TOKEN,     /* old to new: it is yours when I am dead */
	MIG_UPDATE_EV_CANCEL,    /* old to new: it stays here */
	MIG_UPDATE_EVENTS
};

enum mig_update_do {
	MIG_UPDATE_DO_INVALID,
	MIG_UPDATE_DO_BUILD,  /* new: partition and vCPUs, which do not run */
	MIG_UPDATE_DO_HOLD,   /* old: hold the vCPUs, drain disks and network */
	MIG_UPDATE_DO_FREEZE, /* old: flush, touch no shared descriptor any more, save the state */
	MIG_UPDATE_DO_LOAD,   /* new: the state; touches no disk and no network */
	MIG_UPDATE_DO_RUN,    /* release the vCPUs */
	MIG_UPDATE_DO_KILL,   /* new: SIGKILL to the old one's pidfd, then wait for its death */
	MIG_UPDATE_DO_EXIT,   /* new: end this process */
	MIG_UPDATE_DO_SEND_PLAN,
	MIG_UPDATE_DO_SEND_BUILT,
	MIG_UPDATE_DO_SEND_STATE,
	MIG_UPDATE_DO_SEND_READY,
	MIG_UPDATE_DO_SEND_TOKEN, /* counts as sent, whatever the call returns */
	MIG_UPDATE_DO_SEND_CANCEL,
	MIG_UPDATE_DOS
};

struct mig_update_actions {
	uint32_t count;
	enum mig_update_do list[MIG_UPDATE_ACTIONS_MAX];
};

enum mig_update_old {
	MIG_OLD_INVALID,
	MIG_OLD_PLANNED,  /* the new one builds; the VM runs here */
	MIG_OLD_HOLDING,  /* the VM is being held */
	MIG_OLD_FREEZING, /* held; the state is being saved */
	MIG_OLD_OFFERED,  /* the state is sent; no token yet */
	MIG_OLD_GIVEN,    /* the token is sent: waits to be killed, or for the new one's death */
	MIG_OLD_STAYS,    /* end: the VM runs here */
	MIG_OLD_STATES
};

enum mig_update_new {
	MIG_NEW_INVALID,
	MIG_NEW_WAITING, /* for the plan */
	MIG_NEW_BUILDING,
	MIG_NEW_BUILT, /* waits for the state */
	MIG_NEW_LOADING,
	MIG_NEW_READY,  /* waits for the token */
	MIG_NEW_TAKING, /* has the token; the old one is not surely dead */
	MIG_NEW_RUNS,   /* end: the VM runs here */
	MIG_NEW_GONE,   /* end: this process ends */
	MIG_NEW_STATES
};

/* The VM runs here, and the new one waits: plan it. */
enum mig_update_old mig_update_old_begin(struct mig_update_actions *ret_actions);

/* One event: the next state, and what to do about it, in that order. */
enum mig_update_old mig_update_old_step(enum mig_update_old state, enum mig_update_event event,
					struct mig_update_actions *ret_actions);
enum mig_update_new mig_update_new_step(enum mig_update_new state, enum mig_update_event event,
					struct mig_update_actions *ret_actions);

#endif
