/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker and its migrations: the commands that move the VM away, and the start that waits for
 * one to come.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/vm_config_priv.h"
#include "agent/vm_migrate_host.h"
#include "agent/vm_migrate_tls.h"
#include "agent/vm_worker_priv.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "migrate/mig_faults.h"

#define ROUND_LOOK_NS (500 * BASE_NS_PER_MS) /* how often subscribers hear of rounds at most */

/* --- before the lock-down --- */

static int open_host(struct vm_worker *worker)
{
	char name[sizeof(worker->host)] = "";

	if (gethostname(name, sizeof(name) - 1) < 0 || !vm_config_is_name(name, strlen(name)))
		(void)snprintf(name, sizeof(name), "unknown");
	memcpy(worker->host, name, sizeof(name));
	return 0;
}

/* What was decided of the VM before: it is not started where it is another's, or perhaps is. */
static int check_records(struct vm_worker *worker, struct base_error *err)
{
	const struct vm_config *config = worker->config;
	uint64_t least = 0;
	int code = 0;

	if (config->incoming[0] != '\0')
		return 0;
	code = mig_records_may_start(worker->records, config->name, config->epoch, &least, err);
	if (code < 0)
		return base_fail_within(err, code, "key 'state-dir': value '%s'",
					config->state_dir);
	if (worker->epoch < least)
		worker->epoch = least;
	return 0;
}

/* While there is a privilege for it.  Without, a source that wants post-copy is told before a byte
 * moves. */
static void open_faults(struct vm_worker *worker)
{
	struct base_error why = { 0 };

	if (mig_faults_open(&worker->fault_fd, &why) < 0)
		base_log(BASE_LOG_NOTICE, "vm.postcopy-none", "vm=%s why=%s", worker->config->name,
			 base_log_str(why.text));
}

/* One a network. */
static int listen_on_all(struct vm_worker *worker, struct base_error *err)
{
	struct vm_addresses addresses;
	int code = vm_addresses_parse(worker->config->incoming, &addresses, err);

	for (uint32_t i = 0; code == 0 && i < addresses.count; i++) {
		int fd = -1;

		code = vm_address_listen(&addresses.list[i], &fd, err);
		if (code == 0 && i > 0)
			worker->more_fds[worker->more_count++] = fd;
		else if (code == 0)
			worker->listen_fd = fd;
	}
	return code;
}

int vm_worker_move_open(struct vm_worker *worker, struct base_error *err)
{
	const struct vm_config *config = worker->config;
	int code = open_host(worker);

	worker->epoch = config->epoch;
	if (worker->state_dir_fd >= 0) {
		code = mig_records_new(worker->state_dir_fd, NULL, &worker->records, err);
		if (code == 0)
			code = vm_worker_images_look(worker, err);
		config = worker->config;
		if (code == 0)
			code = check_records(worker, err);
	}
	if (code < 0 || config->migrate == VM_SWITCH_OFF)
		return code;
	if (worker->records != NULL)
		code = vm_migrate_host_open(config, &worker->host_moves, err);
	if (code < 0)
		return code;
	code = vm_migrate_tls_open(config, &worker->tls_dir_fd, err);
	if (code < 0)
		return code;
	worker->move_state_fd = memfd_create("move-state", MFD_CLOEXEC);
	if (worker->move_state_fd < 0)
		return base_fail_errno(err, -errno, "memory file for moves");
	if (config->incoming[0] == '\0')
		return 0;
	open_faults(worker);
	code = listen_on_all(worker, err);
	return code < 0 ? base_fail_within(err, code, "key 'incoming'") : 0;
}

/* --- both sides --- */

static void move_news(void *context)
{
	vm_worker_tell(context, VM_NEWS_MOVE);
}

static struct vm_move_options move_options(struct vm_worker *worker)
{
	return (struct vm_move_options){
		.config = worker->config,
		.machine = worker->machine,
		.devices = worker->devices,
		.host = worker->host,
		.records = worker->records,
		.host_moves = worker->host_moves,
		.gate = &worker->gate,
		.state_fd = worker->move_state_fd,
		.state_dir_fd = worker->state_dir_fd,
		.fault_fd = worker->fault_fd,
		.more_fds = worker->more_fds,
		.more_count = worker->more_count,
		.epoch = worker->epoch,
		.leash_bound = worker->config->leash_page_fd >= 0,
		.may_act = vm_worker_may_act,
		.news = move_news,
		.context = worker,
	};
}

void vm_worker_move_free(struct vm_worker *worker)
{
	base_loop_timer_free(worker->move_timer);
	vm_worker_watch_free(worker);
	vm_move_free(worker->move);
	vm_move_free(worker->arrival);
	mig_host_free(worker->host_moves);
	mig_records_free(worker->records);
	worker->records = NULL;
	base_closep(&worker->move_state_fd);
	base_closep(&worker->listen_fd);
	while (worker->more_count > 0)
		base_closep(&worker->more_fds[--worker->more_count]);
	base_closep(&worker->tls_dir_fd);
	base_closep(&worker->fault_fd);
}

void vm_worker_move_stop(struct vm_worker *worker)
{
	struct vm_move *arrival = NULL;

	{
		BASE_LOCKED(&worker->lock);

		worker->arrival_unwanted = true;
		worker->arrival_exit = worker->exit_code;
		arrival = worker->arrival;
		if (!worker->loading && arrival != NULL && !vm_move_is_filling(arrival))
			arrival = NULL;
	}
	if (arrival != NULL)
		vm_move_give_up(arrival);
	if (worker->move != NULL)
		vm_move_cancel(worker->move);
}

/* Whether the VM runs here and some of its pages are not. */
static bool is_filling(const struct vm_worker *worker)
{
	return !worker->loading && worker->arrival != NULL && vm_move_is_filling(worker->arrival);
}

int vm_worker_refuse_moving(const struct vm_worker *worker, const char *command,
			    struct base_error *err)
{
	if (is_filling(worker))
		return base_fail(err, -EAGAIN,
				 "command '%s': pages of the machine are still coming: expected it "
				 "when all are here",
				 command);
	if (worker->move == NULL)
		return 0;
	return base_fail(err, -EAGAIN,
			 "command '%s': the machine is being moved: expected it when that is over "
			 "or cancelled",
			 command);
}

/* --- source --- */

static int number_arg(const struct vm_arg *arg, const char *name, uint64_t least, uint64_t most,
		      uint64_t *number, struct base_error *err)
{
	if (!arg->given)
		return 0;
	if (arg->number < least || arg->number > most)
		return base_fail(err, -EINVAL,
				 "command 'migrate': argument '%s': expected %" PRIu64
				 " to %" PRIu64,
				 name, least, most);
	*number = arg->number;
	return 0;
}

static int late_arg(const struct vm_arg *arg, enum mig_late *late, struct base_error *err)
{
	if (!arg->given)
		return 0;
	if (strcmp(arg->text, "switch") == 0)
		*late = MIG_LATE_SWITCH;
	else if (strcmp(arg->text, "cancel") == 0)
		*late = MIG_LATE_CANCEL;
	else if (strcmp(arg->text, "postcopy") == 0)
		*late = MIG_LATE_POSTCOPY;
	else
		return base_fail(err, -EINVAL,
				 "command 'migrate': argument 'late': expected switch, cancel or "
				 "postcopy");
	return 0;
}

static int disks_arg(const struct vm_arg *arg, bool *disks_stay, struct base_error *err)
{
	if (!arg->given)
		return 0;
	if (strcmp(arg->text, "copy") != 0 && strcmp(arg->text, "stay") != 0)
		return base_fail(err, -EINVAL,
				 "command 'migrate': argument 'disks': expected copy or stay");
	*disks_stay = arg->text[0] == 's';
	return 0;
}

static int compress_arg(const struct vm_arg *arg, enum mig_compress *compress,
			struct base_error *err)
{
	static const char *const words[MIG_COMPRESSES] = {
		[MIG_COMPRESS_NEVER] = "never",
		[MIG_COMPRESS_AUTO] = "auto",
		[MIG_COMPRESS_ALWAYS] = "always",
	};

	if (!arg->given)
		return 0;
	for (int i = MIG_COMPRESS_NEVER; i < MIG_COMPRESSES; i++)
		if (strcmp(arg->text, words[i]) == 0) {
			*compress = (enum mig_compress)i;
			return 0;
		}
	return base_fail(err, -EINVAL,
			 "command 'migrate': argument 'compress': expected never, auto or always");
}

/* A VM that is held first has no downtime to aim at. */
static int mode_arg(const struct vm_request *request, bool *quick, struct base_error *err)
{
	static const struct {
		const char *name;
		uint32_t index;
	} live_only[] = {
		{ "downtime_ms", 2 },
		{ "time_limit_ms", 3 },
		{ "late", 4 },
		{ "throttle", 17 },
	};
	const struct vm_arg *arg = &request->args[8];

	if (!arg->given)
		return 0;
	if (strcmp(arg->text, "live") != 0 && strcmp(arg->text, "quick") != 0)
		return base_fail(err, -EINVAL,
				 "command 'migrate': argument 'mode': expected live or quick");
	*quick = arg->text[0] == 'q';
	for (size_t i = 0; *quick && i < sizeof(live_only) / sizeof(live_only[0]); i++)
		if (request->args[live_only[i].index].given)
			return base_fail(err, -EINVAL,
					 "command 'migrate': argument '%s': expected none with "
					 "mode=quick",
					 live_only[i].name);
	return 0;
}

/* Arguments: to, channels, downtime_ms, time_limit_ms, late, disks, compress, bandwidth, mode,
 * verify, keep, resume_ms, dry_run_ms; then, behind peer and clear, which are peer_args()'s:
 * spread, heartbeat, throttle. */
static int read_request(const struct vm_request *request, struct vm_move_request *ret_move,
			struct base_error *err)
{
	struct vm_move_request move = { .late = MIG_LATE_SWITCH,
					.compress = MIG_COMPRESS_AUTO,
					.downtime_ms = VM_MOVE_DOWNTIME_MS,
					.throttle = VM_MOVE_THROTTLE,
					.resume_ms = VM_MOVE_RESUME_MS };
	uint64_t channels = VM_MOVE_CHANNELS;
	struct base_error why = { 0 };
	int code = 0;

	if (vm_addresses_parse(request->args[0].text, &move.to, &why) < 0)
		return base_fail(err, -EINVAL, "command 'migrate': argument 'to': %s", why.text);
	code = number_arg(&request->args[1], "channels", 1, MIG_CHANNELS_MAX, &channels, err);
	if (code == 0)
		code = number_arg(&request->args[2], "downtime_ms", 1, VM_MOVE_DOWNTIME_MS_MAX,
				  &move.downtime_ms, err);
	if (code == 0)
		code = number_arg(&request->args[3], "time_limit_ms", 0, VM_MOVE_TIME_LIMIT_MS_MAX,
				  &move.time_limit_ms, err);
	if (code == 0)
		code = late_arg(&request->args[4], &move.late, err);
	if (code == 0)
		code = disks_arg(&request->args[5], &move.disks_stay, err);
	if (code == 0)
		code = compress_arg(&request->args[6], &move.compress, err);
	if (code == 0)
		code = number_arg(&request->args[7], "bandwidth", MIG_RATE_MIN_BYTES_PER_S,
				  INT64_MAX, &move.bandwidth, err);
	if (code == 0)
		code = mode_arg(request, &move.quick, err);
	if (code == 0)
		code = number_arg(&request->args[11], "resume_ms", 0, VM_MOVE_RESUME_MS_MAX,
				  &move.resume_ms, err);
	if (code == 0)
		code = number_arg(&request->args[12], "dry_run_ms", 100, VM_MOVE_DRY_RUN_MS_MAX,
				  &move.dry_run_ms, err);
	if (code == 0)
		code = number_arg(&request->args[17], "throttle", 0, VM_MOVE_THROTTLE_MAX,
				  &move.throttle, err);
	move.keep = request->args[10].flag;
	move.spread = request->args[15].flag;
	move.yields = request->args[16].given;
	if (code == 0 && move.yields &&
	    vm_address_parse(request->args[16].text, &move.heartbeat, &why) < 0)
		code = base_fail(err, -EINVAL, "command 'migrate': argument 'heartbeat': %s",
				 why.text);
	move.channel_count = (uint32_t)channels;
	move.verify = request->args[9].given && request->args[9].flag;
	if (code == 0 && move.verify && move.late == MIG_LATE_POSTCOPY)
		code = base_fail(err, -EINVAL,
				 "command 'migrate': argument 'verify': expected none with "
				 "late=postcopy");
	if (code == 0)
		*ret_move = move;
	return code;
}

/* Whom the VM goes to; in clear text it is whoever is there. */
static int peer_args(const struct vm_worker *worker, const struct vm_request *request,
		     struct vm_move_request *move, struct base_error *err)
{
	const struct vm_arg *peer = &request->args[13];
	const struct vm_arg *clear = &request->args[14];
	bool is_clear = clear->given ? clear->flag : worker->config->migrate_clear == VM_SWITCH_ON;
	struct base_error why = { 0 };

	if (is_clear && peer->given)
		return base_fail(err, -EINVAL,
				 "command 'migrate': argument 'peer': expected none in clear text");
	if (peer->given && mig_tls_check_name(peer->text, &why) < 0)
		return base_fail(err, -EINVAL, "command 'migrate': argument 'peer': %s", why.text);
	if (peer->given)
		(void)snprintf(move->peer, sizeof(move->peer), "%s", peer->text);
	else if (!is_clear)
		vm_address_host(&move->to.list[0], move->peer);
	return 0;
}

static void say_clear(const struct vm_worker *worker, const char *with)
{
	base_log(BASE_LOG_WARNING, "vm.move-clear", "vm=%s with=%s", worker->config->name, with);
}

static int check_movable(const struct vm_worker *worker, struct base_error *err)
{
	if (worker->ending)
		return base_fail(err, -EPROTO, "the worker is ending: expected no move");
	if (worker->loading)
		return base_fail(err, -EAGAIN,
				 "the machine is being loaded: try again when it is done");
	if (worker->saving || worker->checkpoint.under_way)
		return base_fail(err, -EAGAIN,
				 "the machine is being saved: try again when it is done");
	if (worker->config->migrate == VM_SWITCH_OFF)
		return base_fail(err, -EPROTO,
				 "command 'migrate': expected a worker with the key 'migrate' on");
	if (worker->records == NULL)
		return base_fail(err, -EPROTO,
				 "command 'migrate': expected a worker with the key 'state-dir'");
	if (vm_worker_refuse_disk_move(worker, "migrate", err) < 0)
		return -EAGAIN;
	return vm_worker_refuse_moving(worker, "migrate", err);
}

int vm_worker_migrate(struct vm_worker *worker, const struct vm_call *call,
		      const struct vm_request *request, struct base_error *err)
{
	struct vm_move_options options = move_options(worker);
	struct vm_move_request move;
	int code = check_movable(worker, err);

	if (code == 0)
		code = read_request(request, &move, err);
	if (code == 0)
		code = peer_args(worker, request, &move, err);
	if (code == 0 && move.peer[0] != '\0')
		code = vm_migrate_tls_new(worker->config, worker->tls_dir_fd, move.peer,
					  &options.tls, err);
	if (code == 0)
		code = vm_move_out_begin(&options, &move, &worker->move, err);
	if (code < 0)
		return code;
	if (move.peer[0] == '\0')
		say_clear(worker, move.to.list[0].text);
	worker->move_call = *call;
	worker->move_round = 0;
	worker->move_round_ns = 0;
	vm_worker_watch_begin(worker, move.to.list[0].text);
	vm_worker_move_look(worker);
	base_log(BASE_LOG_NOTICE, "vm.move-begun", "vm=%s to=%s channels=%" PRIu32,
		 worker->config->name, move.to.list[0].text, move.channel_count);
	vm_worker_event(worker, "migrate-begun", json_pack("{s:s}", "to", move.to.list[0].text));
	return VM_CALL_LATER;
}

int vm_worker_migrate_cancel(struct vm_worker *worker, struct base_error *err)
{
	if (worker->move == NULL)
		return base_fail(err, -EPROTO, "command 'migrate-cancel': no move is under way");
	vm_move_cancel(worker->move);
	return 0;
}

int vm_worker_migrate_post(struct vm_worker *worker, struct base_error *err)
{
	if (worker->move == NULL)
		return base_fail(err, -EPROTO, "command 'migrate-postcopy': no move is under way");
	return vm_move_post_now(worker->move, err);
}

json_t *vm_worker_migrate_status(struct vm_worker *worker)
{
	if (worker->move != NULL)
		return vm_move_progress_json(worker->move);
	if (is_filling(worker))
		return vm_move_fill_json(worker->arrival);
	return json_pack("{s:s}", "state", "none");
}

static void tell_round(struct vm_worker *worker)
{
	uint32_t round = vm_move_round(worker->move);

	if (round != worker->move_round)
		vm_worker_event(worker, "migrate-round", vm_move_progress_json(worker->move));
	worker->move_round = round;
}

void vm_worker_move_look(void *context)
{
	struct vm_worker *worker = context;
	uint64_t now_ns = base_clock_boot_ns(&base_clock_system);

	if (worker->move == NULL)
		return;
	if (now_ns - worker->move_round_ns >= ROUND_LOOK_NS) {
		tell_round(worker);
		worker->move_round_ns = now_ns;
	}
	base_loop_timer_arm(worker->move_timer, vm_worker_watch_look(worker));
}

static json_t *findings_json(const struct mig_findings *findings)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < findings->count; i++)
		(void)json_array_append_new(list, json_string(findings->lines[i]));
	return list;
}

static void move_failed(struct vm_worker *worker, enum mig_out_end end,
			const struct base_error *err, const struct mig_findings *findings)
{
	json_t *report = vm_move_report_json(worker->move);

	base_log(BASE_LOG_WARNING, "vm.move-failed", "vm=%s end=%s findings=%" PRIu32 " why=%s",
		 worker->config->name, vm_move_end_name(end), findings->count,
		 base_log_str(err->text));
	for (uint32_t i = 0; i < findings->count; i++)
		base_log(BASE_LOG_WARNING, "vm.move-finding", "vm=%s what=%s", worker->config->name,
			 base_log_str(findings->lines[i]));
	if (report != NULL) {
		(void)json_object_set_new(report, "code", json_string(vm_error_name(err->code)));
		(void)json_object_set_new(report, "text", json_string(err->text));
		(void)json_object_set_new(report, "findings", findings_json(findings));
	}
	vm_worker_watch_end(worker, report);
	vm_worker_event(worker, "migrate-ended", report);
	if (worker->control != NULL)
		vm_control_refuse(worker->control, &worker->move_call, err);
}

static void move_done(struct vm_worker *worker)
{
	json_t *report = vm_move_report_json(worker->move);

	base_log(BASE_LOG_NOTICE, "vm.moved",
		 "vm=%s to=%s epoch=%lld total_ms=%lld blackout_us=%lld sent_bytes=%lld "
		 "rounds=%lld",
		 worker->config->name, json_string_value(json_object_get(report, "to")),
		 json_integer_value(json_object_get(report, "epoch")),
		 json_integer_value(json_object_get(report, "total_ns")) /
			 (long long)BASE_NS_PER_MS,
		 json_integer_value(json_object_get(report, "blackout_ns")) /
			 (long long)BASE_NS_PER_US,
		 json_integer_value(json_object_get(report, "sent_bytes")),
		 json_integer_value(json_object_get(report, "rounds")));
	vm_worker_watch_end(worker, report);
	vm_worker_event(worker, "migrate-ended", json_copy(report));
	if (worker->control != NULL)
		vm_control_answer(worker->control, &worker->move_call, report);
	else
		json_decref(report);
}

static void dry_run_done(struct vm_worker *worker)
{
	json_t *report = vm_move_report_json(worker->move);

	base_log(BASE_LOG_NOTICE, "vm.move-forecast", "vm=%s to=%s", worker->config->name,
		 json_string_value(json_object_get(report, "to")));
	vm_worker_watch_end(worker, report);
	vm_worker_event(worker, "migrate-ended", json_copy(report));
	if (worker->control != NULL)
		vm_control_answer(worker->control, &worker->move_call, report);
	else
		json_decref(report);
}

void vm_worker_move_news(struct vm_worker *worker)
{
	const struct mig_findings *findings = NULL;
	struct base_error err = { 0 };
	enum mig_out_end end = MIG_OUT_INVALID;

	if (!worker->loading)
		vm_worker_running(worker); /* it may have been held, or let go */
	if (worker->move == NULL || !vm_move_is_over(worker->move))
		return;
	end = vm_move_out_end(worker->move, &err, &findings);
	if (end == MIG_OUT_MOVED)
		move_done(worker);
	else if (end == MIG_OUT_FORECAST)
		dry_run_done(worker);
	else
		move_failed(worker, end, &err, findings);
	/* The next move begins where this one has ended. */
	worker->epoch = vm_move_epoch(worker->move);
	vm_move_free(base_take(&worker->move));
	if (end == MIG_OUT_MOVED)
		vm_worker_end(worker, VM_EXIT_MOVED, "moved");
	else if (end == MIG_OUT_STALE)
		vm_worker_end(worker, VM_EXIT_STALE, "stale");
	vm_worker_may_stop(worker);
}

/* --- destination --- */

static void tell_filled(struct vm_worker *worker)
{
	json_t *figures = vm_move_fill_json(worker->arrival);

	base_log(BASE_LOG_NOTICE, "vm.postcopy-complete",
		 "vm=%s pages=%lld faults=%lld p99_us=%lld longest_us=%lld", worker->config->name,
		 json_integer_value(json_object_get(figures, "owed_pages")),
		 json_integer_value(json_object_get(figures, "waits")),
		 json_integer_value(json_object_get(figures, "wait_p99_ns")) /
			 (long long)BASE_NS_PER_US,
		 json_integer_value(json_object_get(figures, "wait_longest_ns")) /
			 (long long)BASE_NS_PER_US);
	json_decref(figures);
}

static void linger(void *context)
{
	struct vm_worker *worker = context;
	bool filled = vm_move_is_filling(worker->arrival);

	if (!vm_move_fill(worker->arrival)) {
		/* safety: a processor that waits for a page would go on with an old one, were it
		 * let go: nothing of this process may run any more, orderly or not. */
		BASE_LOCKED(&worker->lock);

		base_log(BASE_LOG_ERR, "vm.postcopy-lost", "vm=%s", worker->config->name);
		_exit((int)(worker->arrival_unwanted ? worker->arrival_exit : VM_EXIT_CRASHED));
	}
	if (filled)
		tell_filled(worker);
	vm_move_linger(worker->arrival);
}

int vm_worker_arrive(struct vm_worker *worker, struct base_error *err)
{
	struct vm_move_options options = move_options(worker);
	struct vm_move *arrival = NULL;
	bool is_clear = worker->config->migrate_clear == VM_SWITCH_ON;
	bool unwanted = false;
	int code = 0;

	if (!is_clear)
		code = vm_migrate_tls_new(worker->config, worker->tls_dir_fd, NULL, &options.tls,
					  err);
	if (code == 0)
		code = vm_move_in_new(&options, worker->listen_fd, &arrival, err);
	if (code < 0)
		return code;
	if (is_clear)
		say_clear(worker, worker->config->incoming);
	{
		BASE_LOCKED(&worker->lock);

		worker->arrival = arrival;
		unwanted = worker->arrival_unwanted;
	}
	base_log(BASE_LOG_NOTICE, "vm.arriving", "vm=%s at=%s", worker->config->name,
		 worker->config->incoming);
	if (unwanted)
		vm_move_give_up(arrival);
	code = vm_move_in_run(arrival, &worker->epoch, err);
	if (code < 0) {
		/* A source that was cut off when it was given the VM back hears of it here; else an
		 * operator has to say so. */
		vm_move_linger(arrival);
		return code;
	}
	base_log(BASE_LOG_NOTICE, "vm.arrived", "vm=%s epoch=%" PRIu64, worker->config->name,
		 worker->epoch);
	/* A source that has not heard of it asks; without it, it would hear by the register. */
	(void)!base_pool_submit(worker->asks, linger, worker);
	return 0;
}
