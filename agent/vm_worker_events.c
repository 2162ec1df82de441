/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What machine, console and leash report from their threads, and what the loop
 * does about it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/vm_worker_priv.h"
#include "base/cleanup.h"
#include "base/log.h"

void vm_worker_event(struct vm_worker *worker, const char *event, json_t *fields)
{
	json_t *all = json_pack("{s:s, s:I}", "vm", worker->config->name, "time_ns",
				(json_int_t)base_clock_real_ns(&base_clock_system));

	if (all != NULL && fields != NULL)
		(void)json_object_update(all, fields);
	json_decref(fields);
	if (worker->control != NULL)
		vm_control_event(worker->control, event, all);
	else
		json_decref(all);
}

static void on_power_off(struct vm_worker *worker)
{
	base_log(BASE_LOG_NOTICE, "vm.power-off", "vm=%s", worker->config->name);
	vm_worker_event(worker, "power-off", NULL);
	vm_worker_end(worker, VM_EXIT_DONE, "power-off");
}

void vm_worker_reset_failed(struct vm_worker *worker, const char *by, const struct base_error *err)
{
	base_log(BASE_LOG_ERR, "vm.reset-failed", "vm=%s by=%s why=%s", worker->config->name, by,
		 base_log_str(err->text));
	vm_worker_event(worker, "reset-failed",
			json_pack("{s:s, s:s, s:s}", "by", by, "code", vm_error_name(err->code),
				  "text", err->text));
	vm_worker_end(worker, VM_EXIT_FAILED, "reset-failed");
}

static void on_reset(struct vm_worker *worker)
{
	struct base_error err = { 0 };

	if (worker->config->on_reset == VM_ON_RESET_STOP) {
		vm_worker_event(worker, "reset", json_pack("{s:s}", "by", "guest"));
		vm_worker_end(worker, VM_EXIT_RESET, "reset");
		return;
	}
	if (vm_worker_job(worker, &vm_job_reset, NULL, NULL, &err) == 0)
		return;
	if (err.code == -EAGAIN) {
		worker->reset_waits = true; /* carried out after the job that is under way */
		return;
	}
	if (!worker->ending)
		vm_worker_reset_failed(worker, "guest", &err);
}

static void on_crashed(struct vm_worker *worker)
{
	char text[sizeof(worker->crash_text)];

	{
		BASE_LOCKED(&worker->lock);

		memcpy(text, worker->crash_text, sizeof(text));
	}
	base_log(BASE_LOG_ERR, "vm.crashed", "vm=%s why=%s", worker->config->name,
		 base_log_str(text));
	vm_worker_event(worker, "crashed", json_pack("{s:s}", "text", text));
	vm_worker_end(worker, VM_EXIT_CRASHED, "crashed");
}

static void on_frozen(struct vm_worker *worker)
{
	base_log(BASE_LOG_WARNING, "vm.frozen", "vm=%s", worker->config->name);
	if (!worker->loading)
		vm_worker_running(worker);
	vm_worker_event(worker, "frozen", NULL);
}

static void on_thawed(struct vm_worker *worker)
{
	base_log(BASE_LOG_NOTICE, "vm.thawed", "vm=%s", worker->config->name);
	if (!worker->loading)
		vm_worker_running(worker);
	vm_worker_event(worker, "thawed", NULL);
}

static void on_stale(struct vm_worker *worker)
{
	base_log(BASE_LOG_ERR, "vm.stale", "vm=%s epoch=%llu", worker->config->name,
		 (unsigned long long)worker->epoch);
	vm_worker_event(worker, "stale", NULL);
	vm_worker_end(worker, VM_EXIT_STALE, "stale");
}

static void on_room(struct vm_worker *worker)
{
	vm_console_room(worker->console);
}

/* Tried again after the next job when too many are waiting. */
static void quit_again(struct vm_worker *worker)
{
	struct base_error err = { 0 };

	worker->quit_waits = false;
	if (vm_worker_quit(worker, &err) == 0 || worker->ending)
		return;
	if (err.code == -EAGAIN && worker->job_count > 0)
		worker->quit_waits = true;
	else
		vm_worker_end(worker, VM_EXIT_DONE, "quit");
}

static void on_job(struct vm_worker *worker)
{
	vm_worker_jobs_done(worker);
	if (worker->quit_waits && !worker->saving)
		quit_again(worker);
	if (worker->reset_waits && !worker->saving) {
		worker->reset_waits = false;
		on_reset(worker);
	}
}

/* Loop thread.  In this order: an end given by the leash or a crash wins over the rest. */
static void read_news(void *context)
{
	static const struct {
		enum vm_news news;
		void (*handle)(struct vm_worker *worker);
	} handlers[] = {
		{ VM_NEWS_FROZEN, on_frozen },
		{ VM_NEWS_STALE, on_stale },
		{ VM_NEWS_CRASHED, on_crashed },
		{ VM_NEWS_POWER_OFF, on_power_off },
		{ VM_NEWS_RESET, on_reset },
		{ VM_NEWS_THAWED, on_thawed },
		{ VM_NEWS_JOB, on_job },
		{ VM_NEWS_ROOM, on_room },
		{ VM_NEWS_DEVICE, vm_worker_device_news },
		{ VM_NEWS_MOVE, vm_worker_move_news },
		{ VM_NEWS_STORAGE, vm_worker_disk_move_news },
	};
	struct vm_worker *worker = context;
	unsigned int news = atomic_exchange(&worker->news, 0);

	for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++)
		if ((news & (unsigned int)handlers[i].news) != 0)
			handlers[i].handle(worker);
}

void vm_worker_tell(struct vm_worker *worker, enum vm_news news)
{
	/* Only who finds no news waiting posts: at most one post is under way, so the
	 * loop's queue cannot be full of ours. */
	if (atomic_fetch_or(&worker->news, (unsigned int)news) == 0 &&
	    base_loop_post(worker->loop, read_news, worker) < 0)
		base_bug("the loop takes no message");
}

/* --- the machine's --- */

static void machine_event(void *context, enum hv_machine_event event, const char *text)
{
	struct vm_worker *worker = context;

	switch (event) {
	case HV_EVENT_POWER_OFF:
		vm_worker_tell(worker, VM_NEWS_POWER_OFF);
		return;
	case HV_EVENT_RESET_REQUEST:
		vm_worker_tell(worker, VM_NEWS_RESET);
		return;
	case HV_EVENT_CRASHED: {
		BASE_LOCKED(&worker->lock);

		if (worker->crash_text[0] == '\0') /* the first reason counts */
			(void)snprintf(worker->crash_text, sizeof(worker->crash_text), "%s",
				       text != NULL ? text : "no reason given");
	}
		vm_worker_tell(worker, VM_NEWS_CRASHED);
		return;
	case HV_EVENT_GUEST_PANIC:
		base_log(BASE_LOG_WARNING, "vm.guest-panic", "vm=%s why=%s", worker->config->name,
			 base_log_str(text != NULL ? text : ""));
		return;
	case HV_EVENT_INVALID:
	case HV_EVENT_EVENTS:
		break;
	}
	base_bug("machine event %d", (int)event);
}

static void machine_console_out(void *context, const uint8_t *bytes, size_t size_bytes)
{
	struct vm_worker *worker = context;

	vm_console_write(worker->console, bytes, size_bytes);
}

static void machine_console_room(void *context)
{
	vm_worker_tell(context, VM_NEWS_ROOM);
}

/* vCPU, job and I/O threads. */
bool vm_worker_may_act(void *context)
{
	struct vm_worker *worker = context;
	const struct base_leash *leash = atomic_load(&worker->leash);

	return leash == NULL || base_leash_may_submit(leash);
}

const struct hv_machine_ops vm_worker_machine_ops = {
	.event = machine_event,
	.console_out = machine_console_out,
	.console_room = machine_console_room,
	.may_act = vm_worker_may_act,
};

/* --- the console's --- */

static size_t console_input(void *context, const uint8_t *bytes, size_t size_bytes)
{
	struct vm_worker *worker = context;

	return hv_machine_console_in(worker->machine, bytes, size_bytes);
}

static void console_quit(void *context)
{
	vm_worker_end(context, VM_EXIT_DONE, "terminal");
}

const struct vm_console_ops vm_worker_console_ops = {
	.input = console_input,
	.quit = console_quit,
};

/* --- the leash's --- */

static void freeze(struct vm_worker *worker)
{
	struct base_error err = { 0 };
	int code = hv_machine_hold(worker->machine, HV_HOLD_LEASH, &err);

	if (code == 0 || code == -EPROTO) /* stopped for good stands still, too */
		return;
	/* A guest that cannot be stopped must not outlive its leash: end at once. */
	base_log(BASE_LOG_ERR, "vm.failed", "vm=%s why=%s", worker->config->name,
		 base_log_str(err.text));
	_exit(VM_EXIT_FAILED);
}

void vm_worker_leash_changed(void *context, enum base_leash_state state)
{
	struct vm_worker *worker = context;

	switch (state) {
	case BASE_LEASH_FROZEN:
		freeze(worker);
		vm_worker_tell(worker, VM_NEWS_FROZEN);
		return;
	case BASE_LEASH_STALE:
		freeze(worker);
		vm_worker_tell(worker, VM_NEWS_STALE);
		return;
	case BASE_LEASH_HELD:
		/* safety: the leash says HELD again only after the holder's thaw. */
		if (hv_machine_release(worker->machine, HV_HOLD_LEASH, NULL) == 0)
			vm_worker_tell(worker, VM_NEWS_THAWED);
		return;
	case BASE_LEASH_INVALID:
	case BASE_LEASH_STATES:
		break;
	}
	base_bug("leash state %d", (int)state);
}
