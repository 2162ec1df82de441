/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of services as its parts see it.  Everything here belongs to the set's loop.
 */
#ifndef HYPERVISOR_IC_IC_PRIV_H
#define HYPERVISOR_IC_IC_PRIV_H

#include <stdatomic.h>

#include "base/io_loop.h"
#include "hypervisor/ic/ic.h"
#include "hypervisor/ic/ic_body.h"
#include "hypervisor/ic/ic_port.h"
#include "hypervisor/vmbus/vmbus_channel.h"

#define IC_SAMPLE_PERIOD_MS 5000u
#define IC_KVP_PERIOD_MS    30000u
/* From resume() until we send: the bus resumes after us. */
#define IC_RESUME_DELAY_MS  20u
#define IC_LOG_PERIOD_MS    10000u
/* One answer to one request is all that a channel has; a guest that sends more takes turns. */
#define IC_PACKETS_PER_TURN 16u

/* What is to be done on the loop, with nobody who waits for it. */
enum ic_order {
	IC_ORDER_RUNNING = 1 << 0, /* wanted_running has changed */
	IC_ORDER_PAUSED = 1 << 1,  /* and was false meanwhile */
	IC_ORDER_THAW = 1 << 2,
	IC_ORDER_END = 1 << 3,
};

/* A caller that waits; on its stack. */
enum ic_call_kind {
	IC_CALL_SHUTDOWN,
	IC_CALL_FREEZE,
	IC_CALL_THAW,
};
struct ic_call {
	struct ic_set *set;
	enum ic_call_kind kind;
	enum ic_power power;
	bool force;
	uint32_t timeout_ms;
	uint32_t limit_ms; /* of a freeze: how long it may last */
	struct base_io_timer timer;
	int result;
	struct base_error *err; /* the caller's; it waits meanwhile */
	bool done;
};

struct ic_channel {
	struct ic_set *set;
	struct ic_port port;
	struct vmbus_channel *channel;
	struct ic_call *call; /* who waits for the request under way; NULL: nobody */
	uint64_t log_after_ns;
};

struct ic_set {
	struct ic_options options;
	struct ic_channel channels[IC_SERVICES];
	bool quiet;   /* between quiesce and resume */
	bool running; /* ic_set_running() */
	struct base_io_timer heartbeat_timer;
	struct base_io_timer sample_timer;
	struct base_io_timer kvp_timer;
	struct base_io_timer resume_timer;

	uint64_t sequence; /* of the last heartbeat */
	enum ic_heartbeat heartbeat;
	uint32_t silent_periods;

	bool sync_due;

	bool kvp_walks;
	bool kvp_stale; /* the request under way is of a walk before a restore */
	uint32_t kvp_index;
	struct ic_guest_info kvp_fresh; /* of the walk */
	struct ic_guest_info info;
	struct ic_kvp_item kvp_item; /* too large for a stack */

	enum ic_vss_op vss_op; /* under way */
	bool frozen;
	bool thaw_due;      /* nobody waits for it */
	const char *broken; /* why the freeze ended before its caller said so; NULL: it did not */
	struct base_io_timer freeze_timer;

	/* From any thread to the loop: enum ic_order, and what ic_set_running() was told last. */
	atomic_uint orders;
	atomic_bool wanted_running;
	struct base_io_task order_task;
	bool ending;

	uint8_t message[IC_MESSAGE_BYTES_MAX + 8];
};

/* Whether anything may be sent now. */
bool ic_is_active(const struct ic_set *set);
/* @channel may be asked something of its service now. */
bool ic_is_idle(const struct ic_set *set, enum ic_service service);
/* Send a request with the body that stands in set->message behind the header. 0; -EAGAIN. */
BASE_MUST_CHECK int ic_send(struct ic_set *set, enum ic_service service, uint16_t body_bytes);
/* Send what is due in the channel, if anything. */
void ic_pump(struct ic_set *set, enum ic_service service);
/* Arm or disarm the timers, by whether we are active. */
void ic_timers(struct ic_set *set);
/* One line about what a guest did wrong, at most one per service and IC_LOG_PERIOD_MS. */
void ic_log_refused(struct ic_channel *channel, const struct base_error *err);

/* The services' answers, and their turn to ask. */
void ic_heartbeat_answer(struct ic_set *set, const struct ic_answer *answer);
void ic_heartbeat_set(struct ic_set *set, enum ic_heartbeat state);
void ic_heartbeat_expired(struct base_io_timer *timer);
void ic_sample_expired(struct base_io_timer *timer);
void ic_kvp_expired(struct base_io_timer *timer);
void ic_time_pump(struct ic_set *set);
void ic_kvp_pump(struct ic_set *set);
void ic_kvp_answer(struct ic_set *set, const struct ic_answer *answer);
void ic_vss_pump(struct ic_set *set);
void ic_vss_answer(struct ic_set *set, const struct ic_answer *answer);
void ic_shutdown_answer(struct ic_set *set, const struct ic_answer *answer);
/* @context: a struct ic_call; on the loop.  Its `done` is set now or later, exactly once. */
void ic_call_begin(void *context);
/* The channel is gone with what was under way. */
void ic_calls_end(struct ic_channel *channel, const char *why);
/* The channel is gone with what was frozen; or the freeze ends now, and its thaw is sent or owed.
 */
void ic_vss_forget(struct ic_set *set);
void ic_vss_break(struct ic_set *set, const char *why);
void ic_freeze_expired(struct base_io_timer *timer);
void ic_orders_run(struct base_io_task *task);

/* Saved state. */
void ic_state_encode(const struct ic_set *set, struct base_buffer *out);
BASE_MUST_CHECK int ic_state_decode(struct ic_set *set, struct base_reader *in,
				    struct base_error *err);

#endif
