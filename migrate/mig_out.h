/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration's source: one session that moves a running VM away, or leaves it where it is.
 *
 * It connects, shows the plan, copies round by round, pauses, sends the rest and lets the register
 * decide (mig_switch.h).  docs/migrate/protocol.md.  Quick, it pauses once the destination has
 * agreed, and the rest is all there is.
 *
 * Threads: mig_out_run() on a thread of the caller's, until the end; it makes others of its own.
 * Cancel and progress from any thread.
 */
#ifndef MIGRATE_MIG_OUT_H
#define MIGRATE_MIG_OUT_H

#include "migrate/mig_body_post.h"
#include "migrate/mig_forecast.h"
#include "migrate/mig_host.h"
#include "migrate/mig_pace.h"
#include "migrate/mig_rate.h"
#include "migrate/mig_squeeze.h"
#include "migrate/mig_tls.h"
#include "migrate/mig_vm.h"

struct mig_out;

struct mig_out_options {
	const struct mig_source_vm *vm; /* borrowed */
	void *vm_context;
	/* A new connection to the destination, blocking for less than the timeout; a stream socket
	 * whose descriptor the session closes. */
	int (*connect)(void *context, int *ret_fd, struct base_error *err);
	void *connect_context;
	struct mig_tls *tls; /* borrowed; of a source; NULL: clear text */
	bool kernel_tls; /* the kernel may encipher what is sent: docs/migrate/tls.md, section 8 */
	const struct mig_arbiter *arbiter; /* borrowed; NULL: the destination keeps the register */
	uint64_t epoch;
	uint32_t channel_count; /* 1 to MIG_CHANNELS_MAX */
	uint32_t timeout_ms;    /* nothing heard for so long: the connection is lost; 0: 10000 */
	uint32_t retry_ms;      /* between questions to the arbiter; 0: 1000 */
	uint32_t resume_ms;     /* a connection that breaks while the VM runs may be back within:
				 * docs/migrate/resume.md; 0: never; not of a quick migration */
	struct mig_rate *rate;  /* borrowed; a cap shared with others; or NULL.  The last round of a
				 * live move does not wait for it */
	struct mig_host *host;  /* borrowed: waits until it may take part; NULL: at once */
	bool quick; /* quick migration: the VM is held first, then all goes in one round */
	uint32_t forecast_ms; /* a dry run: measure for so long, move nothing; 0: none.  While it
			       * lasts the VM's writes are tracked */
	struct mig_pace_options pace;
	uint32_t throttle_permille; /* how much of its time the guest may be kept from running so
				     * that the goal is met: docs/migrate/throttle.md; 0: never */
	enum mig_compress compress; /* never where the destination cannot */
	bool verify; /* docs/migrate/verify.md; where the destination cannot: a finding.  Not with
		      * the action MIG_LATE_POSTCOPY */
};

enum mig_out_end {
	MIG_OUT_INVALID,
	MIG_OUT_MOVED,     /* it runs there; vm->release() was called */
	MIG_OUT_CANCELLED, /* by the user: it runs here */
	MIG_OUT_FAILED,    /* @err says why: it runs here */
	MIG_OUT_STALE,     /* another node was given it; vm->release() was called */
	MIG_OUT_FORECAST,  /* the dry run is over: it runs here */
	MIG_OUT_ENDS
};

struct mig_out_progress {
	enum mig_source_state state;
	bool is_queued; /* LINKING: others of this host come first; nothing has begun */
	bool is_cut;    /* COPYING: no connection, it is being made again */
	uint32_t round;
	struct mig_progress_view view;
	uint64_t sent_bytes; /* over all channels, with headers */
	uint64_t page_count, zero_pages;
	uint64_t left_pages; /* of the last harvest */
	/* For those who watch it over time: mig_timeline.h. */
	uint64_t left_bytes;  /* of memory and images, of what the round under way has to send */
	uint64_t dirty_bytes; /* what the harvests named, in all */
	uint64_t fault_pages; /* by post-copy, because somebody waited */
	uint32_t throttle_permille; /* of its time that the guest is kept from running */
};

/* What was spoken; of the last connections that were made. */
struct mig_out_line {
	bool is_tls;
	bool in_kernel; /* the data channels: the kernel enciphers */
	char cipher[48];
	char peer[MIG_TLS_NAME_BYTES];
};

/* What it took; nanoseconds.  The phases of the blackout follow each other and add up to it. */
struct mig_out_report {
	uint64_t total_ns;
	uint64_t queued_ns;
	uint64_t prepare_ns; /* connect, plan, findings */
	uint64_t copy_ns;
	uint64_t blackout_ns; /* from the order to pause to RUNNING (or to running here again) */
	uint64_t pause_ns, last_round_ns, state_ns, let_go_ns;
	uint64_t check_ns;  /* SEALED to READY; destination_check_ns of it at the destination */
	uint64_t commit_ns; /* promise and register */
	uint64_t activate_ns;
	uint64_t destination_check_ns, destination_activate_ns;
	uint64_t sent_bytes;
	uint64_t page_count, zero_pages, lz4_pages, lz4_bytes, chunks, resent_chunks;
	uint64_t state_bytes;
	uint32_t rounds;
	uint32_t throttle_most; /* permille of its time, while it lasted */
	uint64_t throttle_ns;   /* so long, up to the end of the last round */
	struct mig_out_line line;
	uint32_t cuts;        /* connections that broke and were back */
	uint64_t cut_ns;      /* without one: a part of copy_ns */
	uint64_t cut_held_ns; /* the VM stood still, in vain, as one broke just then; likewise */
	uint64_t again_bytes; /* of memory and images, sent twice because of that; at most */
	bool is_post;         /* by post-copy; what follows is 0 without */
	struct mig_complete post; /* as the destination saw it, but pages owed when it began to run
				   * there, and reconnects, as the source did */
	uint64_t post_ns;         /* from RUNNING to the end; not a part of the blackout */
	bool is_verified;         /* what follows is 0 without */
	uint64_t verify_bytes;    /* hashed here */
	uint64_t verify_running_ns, verify_blackout_ns;
	uint64_t destination_verify_bytes;
	uint64_t destination_verify_running_ns, destination_verify_blackout_ns;
};

/* -ENOMEM, -EAGAIN no threads. */
BASE_MUST_CHECK int mig_out_new(const struct mig_out_options *options, struct mig_out **ret_out,
				struct base_error *err);
/* Blocks until the end.  @findings: what the destination had to object to (count 0: nothing). */
enum mig_out_end mig_out_run(struct mig_out *out, struct mig_findings *findings,
			     struct base_error *err);
/* The user wants it to stay.  Before the arbiter was asked it will; afterwards the source asks for
 * itself.  Again is fine. */
void mig_out_cancel(struct mig_out *out);
/* Do not wait until it is late: by post-copy after the round under way.  Only with the action
 * MIG_LATE_POSTCOPY; else, and later, nothing. */
void mig_out_post_now(struct mig_out *out);
void mig_out_progress(struct mig_out *out, struct mig_out_progress *ret_progress);
/* After MIG_OUT_FORECAST, else false. */
bool mig_out_forecast(const struct mig_out *out, struct mig_forecast_facts *ret_facts,
		      struct mig_forecast *ret_forecast);
/* After the end. */
void mig_out_report(const struct mig_out *out, struct mig_out_report *ret_report);
void mig_out_free(struct mig_out *out); /* NULL is fine */

#endif
