/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who waits for the guest: shutdown, freeze, thaw; and that no freeze stays without a thaw.  The
 * caller sleeps in its own thread, all else is on the set's loop.
 */
#include <errno.h>

#include "base/log.h"
#include "hypervisor/ic/ic_priv.h"

static enum ic_service service_of(const struct ic_call *call)
{
	return call->kind == IC_CALL_SHUTDOWN ? IC_SHUTDOWN : IC_VSS;
}

/* The caller's struct is gone when this returns. */
static void finish(struct ic_channel *channel, int result)
{
	struct ic_call *call = channel->call;

	if (call == NULL)
		return;
	channel->call = NULL;
	call->result = result;
	base_io_timer_disarm(channel->set->options.loop, &call->timer);
	base_io_done(channel->set->options.loop, &call->done);
}

void ic_calls_end(struct ic_channel *channel, const char *why)
{
	if (channel->call != NULL)
		finish(channel,
		       base_fail(channel->call->err, -ETIMEDOUT, "%s: %s, the outcome is unknown",
				 ic_service_text(channel->port.service), why));
}

void ic_shutdown_answer(struct ic_set *set, const struct ic_answer *answer)
{
	struct ic_channel *channel = &set->channels[IC_SHUTDOWN];

	base_log(BASE_LOG_INFO, "ic.shutdown", "vm=%s status=0x%x", set->options.vm_name,
		 (unsigned)answer->status);
	if (channel->call == NULL)
		return;
	if (answer->status == IC_STATUS_OK)
		finish(channel, 0);
	else
		finish(channel, base_fail(channel->call->err, -EIO,
					  "shutdown: the guest refused, status 0x%x",
					  (unsigned)answer->status));
}

/*
 * --- freeze and thaw ---
 */

static void frozen_until(struct ic_set *set, uint32_t limit_ms)
{
	struct base_io_loop *loop = set->options.loop;

	set->frozen = true;
	set->broken = NULL;
#ifdef GODWIT_MUTANT_IC_FREEZE_LIMIT
	limit_ms = UINT32_MAX;
#endif
	base_io_timer_arm(loop, &set->freeze_timer,
			  base_io_loop_now_ns(loop) + limit_ms * BASE_NS_PER_MS);
}

static void not_frozen(struct ic_set *set)
{
	set->frozen = false;
	base_io_timer_disarm(set->options.loop, &set->freeze_timer);
}

void ic_vss_forget(struct ic_set *set)
{
	if (set->frozen)
		set->broken = "the guest closed the channel or was reset";
	not_frozen(set);
	set->vss_op = IC_VSS_NONE;
	set->thaw_due = false;
}

void ic_vss_break(struct ic_set *set, const char *why)
{
	/* Its caller's thaw is in the ring: then it was frozen long enough. */
	if (!set->frozen || set->vss_op == IC_VSS_THAW)
		return;
	not_frozen(set);
	set->broken = why;
	set->thaw_due = true;
	base_log(BASE_LOG_WARNING, "ic.freeze-broken", "vm=%s why=%s", set->options.vm_name,
		 base_log_str(why));
	ic_pump(set, IC_VSS);
}

void ic_freeze_expired(struct base_io_timer *timer)
{
	struct ic_set *set =
		(struct ic_set *)(void *)((char *)timer - offsetof(struct ic_set, freeze_timer));

	ic_vss_break(set, "it lasted longer than it may");
}

static int vss_send(struct ic_set *set, enum ic_vss_op op)
{
	int result = ic_send(set, IC_VSS, ic_vss_encode(op, set->message + IC_HEADER_BYTES));

	if (result < 0)
		return result;
	set->vss_op = op;
	return 0;
}

void ic_vss_pump(struct ic_set *set)
{
	if (!set->thaw_due || vss_send(set, IC_VSS_THAW) < 0)
		return;
	set->thaw_due = false;
	base_log(BASE_LOG_NOTICE, "ic.thaw", "vm=%s", set->options.vm_name);
}

static void hot_backup_answered(struct ic_set *set, uint32_t status)
{
	struct ic_channel *channel = &set->channels[IC_VSS];

	if (channel->call == NULL)
		return; /* nothing is frozen yet */
	if (status != IC_STATUS_OK)
		finish(channel,
		       base_fail(channel->call->err, -ENOTCONN,
				 "freeze: no daemon in the guest, status 0x%x", (unsigned)status));
	else if (vss_send(set, IC_VSS_FREEZE) < 0 && channel->call != NULL)
		finish(channel, base_fail(channel->call->err, -EAGAIN, "freeze: the ring is full"));
}

static void freeze_answered(struct ic_set *set, uint32_t status)
{
	struct ic_channel *channel = &set->channels[IC_VSS];

	if (status == IC_STATUS_OK && channel->call != NULL) {
		frozen_until(set, channel->call->limit_ms);
		finish(channel, 0);
		return;
	}
#ifndef GODWIT_MUTANT_IC_THAW
	set->thaw_due = true;
#endif
	if (channel->call != NULL)
		finish(channel,
		       base_fail(channel->call->err, -EIO, "freeze: the guest refused, status 0x%x",
				 (unsigned)status));
}

void ic_vss_answer(struct ic_set *set, const struct ic_answer *answer)
{
	struct ic_channel *channel = &set->channels[IC_VSS];
	enum ic_vss_op op = set->vss_op;
	uint32_t status = answer->status;
	struct base_error err = { 0 };

	set->vss_op = IC_VSS_NONE;
	if (ic_vss_decode(answer, op, &err) < 0) {
		ic_log_refused(channel, &err);
		status = IC_STATUS_FAILED; /* as good as refused */
	}
	if (op == IC_VSS_HOT_BACKUP) {
		hot_backup_answered(set, status);
	} else if (op == IC_VSS_FREEZE) {
		freeze_answered(set, status);
	} else {
		not_frozen(set);
		if (channel->call != NULL && status != IC_STATUS_OK)
			finish(channel,
			       base_fail(channel->call->err, -EIO,
					 "thaw: the guest refused, status 0x%x", (unsigned)status));
		else
			finish(channel, 0);
	}
}

/*
 * --- callers ---
 */

/* Who waits does so no longer: with @result, whose text is set.  A freeze that the guest may carry
 * out yet is followed by its thaw. */
static void give_up(struct ic_call *call, int result)
{
	struct ic_set *set = call->set;
	struct ic_channel *channel = &set->channels[service_of(call)];
	bool freezes = call->kind == IC_CALL_FREEZE && set->vss_op == IC_VSS_FREEZE;

	finish(channel, result);
	if (!freezes)
		return;
	ic_port_abandon(&channel->port);
	set->vss_op = IC_VSS_NONE;
#ifndef GODWIT_MUTANT_IC_THAW
	set->thaw_due = true;
#endif
	ic_pump(set, IC_VSS);
}

static void timed_out(struct base_io_timer *timer)
{
	struct ic_call *call =
		(struct ic_call *)(void *)((char *)timer - offsetof(struct ic_call, timer));

	give_up(call, base_fail(call->err, -ETIMEDOUT,
				"%s: no answer within %u ms, the outcome is unknown",
				ic_service_text((enum ic_service)service_of(call)),
				(unsigned)call->timeout_ms));
}

static int thaw_begin(struct ic_call *call)
{
	struct ic_set *set = call->set;
	int result = vss_send(set, IC_VSS_THAW);

	if (result < 0)
		return result; /* one that was owed before still is */
	set->thaw_due = false;
	/* From here on the limit is that of the call. */
	base_io_timer_disarm(set->options.loop, &set->freeze_timer);
	return 0;
}

static int ask(struct ic_call *call)
{
	struct ic_set *set = call->set;
	struct ic_port *port = &set->channels[service_of(call)].port;
	uint8_t *body = set->message + IC_HEADER_BYTES;

	switch (call->kind) {
	case IC_CALL_SHUTDOWN:
		if (!ic_shutdown_can(port->version, call->power))
			return base_fail(call->err, -ENOTCONN, "shutdown: version %u.%u has none",
					 (unsigned)port->version.major,
					 (unsigned)port->version.minor);
		return ic_send(set, IC_SHUTDOWN,
			       ic_shutdown_encode(call->power, call->force, body));
	case IC_CALL_FREEZE:
		if (set->frozen || set->thaw_due)
			return base_fail(call->err, -EBUSY, "freeze: it is frozen already");
		set->broken = NULL;
		return vss_send(set, IC_VSS_HOT_BACKUP);
	case IC_CALL_THAW:
		return thaw_begin(call);
	}
	base_bug("call %d", (int)call->kind);
}

static int begin_checked(struct ic_call *call)
{
	struct ic_set *set = call->set;
	const struct ic_channel *channel = &set->channels[service_of(call)];
	const char *what = ic_service_text(channel->port.service);
	int result = 0;

	if (set->ending)
		return base_fail(call->err, -ECANCELED, "%s: the worker is ending", what);
#ifndef GODWIT_MUTANT_IC_FREEZE_BROKEN
	if (call->kind == IC_CALL_THAW && set->broken != NULL) {
		result =
			base_fail(call->err, -ECANCELED, "the freeze ended early: %s", set->broken);
		set->broken = NULL;
		return result;
	}
#endif
	if (channel->port.state != IC_PORT_READY)
		return base_fail(call->err, -ENOTCONN, "%s: the guest has no such service", what);
	if (!ic_is_active(set))
		return base_fail(call->err, -EAGAIN, "%s: the machine does not run now", what);
	if (channel->call != NULL)
		return base_fail(call->err, -EBUSY, "%s: somebody else waits", what);
	if (channel->port.pending) {
		if (call->kind == IC_CALL_THAW && set->vss_op == IC_VSS_THAW)
			return 0; /* the one that the set sent by itself */
		return base_fail(call->err, -EBUSY, "%s: a request is under way", what);
	}
	result = ask(call);
	if (result == -EAGAIN)
		return base_fail(call->err, -EAGAIN, "%s: the ring is full", what);
	return result;
}

void ic_call_begin(void *context)
{
	struct ic_call *call = context;
	struct ic_set *set = call->set;
	struct base_io_loop *loop = set->options.loop;

	call->timer.expired = timed_out;
	call->result = begin_checked(call);
	if (call->result < 0) {
		/* A thaw that could not be sent is still owed. */
		if (call->kind == IC_CALL_THAW && set->frozen)
			set->thaw_due = true;
		base_io_done(loop, &call->done);
		return;
	}
	set->channels[service_of(call)].call = call;
	base_io_timer_arm(loop, &call->timer,
			  base_io_loop_now_ns(loop) + call->timeout_ms * BASE_NS_PER_MS);
}

static int wait_for(struct ic_call *call)
{
	struct base_io_loop *loop = call->set->options.loop;

	base_io_call(loop, ic_call_begin, call);
	base_io_wait(loop, &call->done);
	return call->result;
}

int ic_shutdown(struct ic_set *set, enum ic_power kind, bool force, uint32_t timeout_ms,
		struct base_error *err)
{
	struct ic_call call = {
		.set = set,
		.kind = IC_CALL_SHUTDOWN,
		.power = kind,
		.force = force,
		.timeout_ms = timeout_ms,
		.err = err,
	};

	return wait_for(&call);
}

int ic_freeze(struct ic_set *set, uint32_t timeout_ms, uint32_t limit_ms, struct base_error *err)
{
	struct ic_call call = {
		.set = set,
		.kind = IC_CALL_FREEZE,
		.timeout_ms = timeout_ms,
		.limit_ms = limit_ms,
		.err = err,
	};

	return wait_for(&call);
}

int ic_thaw(struct ic_set *set, uint32_t timeout_ms, struct base_error *err)
{
	struct ic_call call = {
		.set = set, .kind = IC_CALL_THAW, .timeout_ms = timeout_ms, .err = err
	};

	return wait_for(&call);
}

/*
 * --- what is known ---
 */

struct info_call {
	struct ic_set *set;
	struct ic_guest_info *info;
	struct ic_status *status;
};

static void copy_info(void *context)
{
	struct info_call *call = context;

	*call->info = call->set->info;
}

void ic_guest_info(struct ic_set *set, struct ic_guest_info *ret_info)
{
	struct info_call call = { .set = set, .info = ret_info };

	base_io_call(set->options.loop, copy_info, &call);
}

static void copy_status(void *context)
{
	struct info_call *call = context;
	const struct ic_channel *channels = call->set->channels;

	*call->status = (struct ic_status){
		.heartbeat = call->set->heartbeat,
		.shutdown = channels[IC_SHUTDOWN].port.state == IC_PORT_READY,
		.time_sync = channels[IC_TIME].port.state == IC_PORT_READY,
		.kvp = channels[IC_KVP].port.state == IC_PORT_READY,
		.vss = channels[IC_VSS].port.state == IC_PORT_READY,
	};
}

void ic_status(struct ic_set *set, struct ic_status *ret_status)
{
	struct info_call call = { .set = set, .status = ret_status };

	base_io_call(set->options.loop, copy_status, &call);
}

/*
 * --- orders: nobody waits for them ---
 */

static void change_running(struct ic_set *set, bool running)
{
	if (set->running == running)
		return;
	set->running = running;
	if (running)
		set->sync_due = true;
	ic_timers(set);
	if (!running)
		ic_vss_break(set, "the machine was paused");
}

/* Who waits for @service does so no longer. */
static void cancel(struct ic_set *set, enum ic_service service, const char *why)
{
	struct ic_call *call = set->channels[service].call;

	if (call != NULL)
		give_up(call,
			base_fail(call->err, -ECANCELED, "%s: %s", ic_service_text(service), why));
}

void ic_orders_run(struct base_io_task *task)
{
	struct ic_set *set =
		(struct ic_set *)(void *)((char *)task - offsetof(struct ic_set, order_task));
	unsigned int orders = atomic_exchange(&set->orders, 0);

	if ((orders & IC_ORDER_PAUSED) != 0) /* also when it has ended since: time has passed */
		change_running(set, false);
	if ((orders & IC_ORDER_RUNNING) != 0)
		change_running(set, atomic_load(&set->wanted_running));
	if ((orders & IC_ORDER_THAW) != 0) {
		cancel(set, IC_VSS, "who asked is gone");
		ic_vss_break(set, "who asked is gone");
	}
	if ((orders & IC_ORDER_END) == 0)
		return;
	set->ending = true;
	cancel(set, IC_VSS, "the worker is ending");
	cancel(set, IC_SHUTDOWN, "the worker is ending");
	ic_vss_break(set, "the worker is ending");
}

/* Only who finds no order waiting posts: the task is queued once at most. */
static void order(struct ic_set *set, unsigned int orders)
{
	if (atomic_fetch_or(&set->orders, orders) == 0)
		base_io_post(set->options.loop, &set->order_task);
}

void ic_set_running(struct ic_set *set, bool running)
{
	atomic_store(&set->wanted_running, running);
	order(set, running ? IC_ORDER_RUNNING : IC_ORDER_RUNNING | IC_ORDER_PAUSED);
}

void ic_thaw_soon(struct ic_set *set)
{
	order(set, IC_ORDER_THAW);
}

void ic_end(struct ic_set *set)
{
	order(set, IC_ORDER_END);
}
