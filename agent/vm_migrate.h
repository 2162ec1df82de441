/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's part in a migration: as the source, which the command migrate begins, or as the
 * destination, which the key incoming makes of it.  docs/agent/migrate.md.
 *
 * Knows the VM by what it is given here and nothing of the worker.  Threads: new, begin, finish and
 * free on the worker's loop thread; the rest says so.
 */
#ifndef AGENT_VM_MIGRATE_H
#define AGENT_VM_MIGRATE_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/vm_config.h"
#include "agent/vm_devices.h"
#include "agent/vm_migrate_net.h"
#include "hypervisor/machine.h"
#include "migrate/mig_in.h"
#include "migrate/mig_out.h"
#include "migrate/mig_records.h"
#include "migrate/mig_timeline.h"

struct vm_move;

/*
 * A user's pause or resume belongs to the VM and moves with it, up to the instant in which its
 * state is written: between begin and end it is not.  Any thread.  -EAGAIN it is written.
 */
struct vm_move_gate {
	pthread_mutex_t lock; /* held over a round of signals to the vCPUs */
	bool written;         /* under it: the state is, and the VM stands still for it */
};
BASE_MUST_CHECK int vm_move_gate_begin(struct vm_move_gate *gate, struct base_error *err);
void vm_move_gate_end(struct vm_move_gate *gate);

/* What both sides have; borrowed, outlives the move. */
struct vm_move_options {
	const struct vm_config *config;
	struct hv_machine *machine;
	struct vm_devices *devices;
	const char *host;            /* this one's name, for people */
	struct mig_records *records; /* of the state directory */
	struct mig_host *host_moves; /* what this host's moves share; NULL: nothing */
	struct mig_tls *tls;         /* taken, also on failure; NULL: clear text */
	struct vm_move_gate *gate;   /* source */
	int state_fd;                /* a file in memory: the device state */
	int state_dir_fd;            /* the state directory */
	int fault_fd;                /* destination: of mig_faults_open(); -1: no post-copy */
	const int *more_fds;         /* destination: further ones to listen on */
	uint32_t more_count;
	uint64_t epoch;                 /* of the VM here; 0: none that anybody keeps */
	bool leash_bound;               /* to that epoch */
	bool (*may_act)(void *context); /* the leash's gate; any thread */
	/* Something has changed: ended, or whether the VM stands still.  Any thread, must not
	 * block. */
	void (*news)(void *context);
	void *context;
};

/* Of the command. */
struct vm_move_request {
	struct vm_addresses to; /* in order of preference */
	bool spread;            /* channels go round over all of them */
	bool yields;            /* to round trips to @heartbeat */
	struct vm_address heartbeat;
	char peer[MIG_TLS_NAME_BYTES]; /* name in the other host's certificate; "": clear text */
	uint32_t channel_count;
	uint64_t downtime_ms;
	uint64_t time_limit_ms; /* 0: none */
	enum mig_late late;
	uint64_t throttle; /* percent of its time that a vCPU may be kept from running; 0: never */
	bool disks_stay;   /* both hosts see them: no image is sent */
	bool keep;         /* the source's images stay, as NAME.moved */
	enum mig_compress compress;
	bool quick;          /* held first, moved as a whole: no goal, no time limit, no action */
	bool verify;         /* docs/migrate/verify.md */
	uint64_t bandwidth;  /* bytes a second, while the VM runs, or quick; 0: as it goes */
	uint64_t dry_run_ms; /* only measured, for so long; 0: moved */
	uint64_t resume_ms;  /* docs/migrate/resume.md; 0: a cut is the end */
};
#define VM_MOVE_DRY_RUN_MS_MAX    60000u
#define VM_MOVE_RESUME_MS         60000u
#define VM_MOVE_RESUME_MS_MAX     3600000u
#define VM_MOVE_CHANNELS          4u
#define VM_MOVE_DOWNTIME_MS       300u
#define VM_MOVE_THROTTLE          50u /* percent */
#define VM_MOVE_THROTTLE_MAX      90u
#define VM_MOVE_DOWNTIME_MS_MAX   3600000u
#define VM_MOVE_TIME_LIMIT_MS_MAX UINT64_C(604800000) /* a week */

/* --- source --- */

/**
 * vm_move_out_begin - begin to move the VM away, on a thread of its own.
 * -EINVAL, -ENOMEM, -EAGAIN; nothing has happened then.
 */
BASE_MUST_CHECK int vm_move_out_begin(const struct vm_move_options *options,
				      const struct vm_move_request *request,
				      struct vm_move **ret_move, struct base_error *err);
/* Any thread; again is fine. */
void vm_move_cancel(struct vm_move *move);
/* By post-copy now, where the move may: docs/migrate/postcopy.md.  Any thread.  -EPROTO it may not.
 */
BASE_MUST_CHECK int vm_move_post_now(struct vm_move *move, struct base_error *err);
/* Whether it is over: then vm_move_out_end() tells how. */
bool vm_move_is_over(const struct vm_move *move);
/* MIG_OUT_*, with @err and @findings (borrowed until free) unless it moved. */
enum mig_out_end vm_move_out_end(struct vm_move *move, struct base_error *err,
				 const struct mig_findings **ret_findings);
/* At which epoch the VM runs here after it: as before, unless it was asked for and came back. */
uint64_t vm_move_epoch(const struct vm_move *move);
/* Figures of the whole, once it is over; and how far it is.  NULL: no memory. */
json_t *vm_move_report_json(const struct vm_move *move);
json_t *vm_move_progress_json(struct vm_move *move);
uint32_t vm_move_round(struct vm_move *move);
void vm_move_look(struct vm_move *move, struct mig_timeline_view *ret_view); /* all but the time */
const char *vm_move_end_name(enum mig_out_end end);

/* --- destination --- */

/* @listen_fd: borrowed.  -ENOMEM. */
BASE_MUST_CHECK int vm_move_in_new(const struct vm_move_options *options, int listen_fd,
				   struct vm_move **ret_move, struct base_error *err);
/* Blocks until the VM runs here (0; *ret_epoch) or nothing of it is here.  Any thread. */
BASE_MUST_CHECK int vm_move_in_run(struct vm_move *move, uint64_t *ret_epoch,
				   struct base_error *err);
/* The user wants it to end.  Any thread. */
void vm_move_give_up(struct vm_move *move);
/* Take in the pages that come after the VM, if any do; any thread, one at a time.  False: some are
 * missing, and nobody will bring them: what runs here cannot go on, and must not. */
BASE_MUST_CHECK bool vm_move_fill(struct vm_move *move);
/* Whether some are missing now; any thread. */
bool vm_move_is_filling(struct vm_move *move);
/* Figures of that; NULL: no memory.  Any thread. */
json_t *vm_move_fill_json(struct vm_move *move);
/* Answer a source that has not heard of the end.  Any thread, one at a time. */
void vm_move_linger(struct vm_move *move);

/* Waits for threads.  NULL is fine. */
void vm_move_free(struct vm_move *move);

#endif
