/* SPDX-License-Identifier: Apache-2.0 */
/* A move's life on either side, and what is told of it. */
#include "agent/vm_migrate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_migrate_priv.h"
#include "base/cleanup.h"
#include "base/thread.h"

#define CONNECT_TIMEOUT_MS 5000u
#define LINGER_MS          10000u
/* What the parts of a switch cost that do not depend on memory, before one was seen. */
#define FIXED_COST_NS      (5 * BASE_NS_PER_MS)

static void move_freep(struct vm_move **move)
{
	vm_move_free(*move);
}

static struct vm_move *move_new(const struct vm_move_options *options)
{
	struct vm_move *move = calloc(1, sizeof(*move));

	if (move == NULL) {
		mig_tls_free(options->tls);
		return NULL;
	}
	move->options = *options;
	move->epoch = options->epoch > 0 ? options->epoch : 1; /* the register has no epoch 0 */
	return move;
}

void vm_move_free(struct vm_move *move)
{
	if (move == NULL)
		return;
	if (move->has_thread) {
		mig_out_cancel(move->out);
		base_thread_join(move->thread);
	}
	mig_out_free(move->out);
	vm_route_fini(&move->route);
	mig_rate_free(move->rate);
	mig_in_free(move->in);
	mig_tls_free(move->options.tls);
	vm_migrate_out_free(move->images_out);
	vm_migrate_in_free(move->images_in);
	vm_inventory_free(move->inventory);
	free(move->plan);
	free(move);
}

/* --- source --- */

static int dial(void *context, int *ret_fd, struct base_error *err)
{
	struct vm_move *move = context;

	return vm_route_connect(&move->route, CONNECT_TIMEOUT_MS, ret_fd, err);
}

static uint64_t sent_bytes(void *context)
{
	struct vm_move *move = context;
	struct mig_out_progress progress;

	mig_out_progress(move->out, &progress);
	return progress.sent_bytes;
}

static void *out_body(void *context)
{
	struct vm_move *move = context;

	if (move->request.yields) {
		move->yield.to = move->request.heartbeat;
		move->yield.rate = move->rate;
		move->yield.sent_bytes = sent_bytes;
		move->yield.context = move;
		vm_yield_begin(&move->yield, move->request.bandwidth);
	}
	move->end = mig_out_run(move->out, &move->findings, &move->err);
	vm_yield_end(&move->yield);
	mig_out_report(move->out, &move->report);
	vm_move_images_left(move);
	atomic_store(&move->over, true);
	move->options.news(move->options.context);
	return NULL;
}

/* The command's own cap, and the host's. */
static int rate_new(struct vm_move *move, struct base_error *err)
{
	struct mig_host *host = move->options.host_moves;
	bool shared = host != NULL && mig_host_is_capped(host);
	int code = 0;

	if (move->request.bandwidth == 0 && !shared && !move->request.yields)
		return 0;
	code = mig_rate_new(move->request.bandwidth, &move->rate, err);
	if (code == 0 && shared)
		mig_rate_share(move->rate, host);
	return code;
}

int vm_move_out_begin(const struct vm_move_options *options, const struct vm_move_request *request,
		      struct vm_move **ret_move, struct base_error *err)
{
	BASE_CLEANUP(move_freep) struct vm_move *move = move_new(options);
	struct mig_out_options out = {
		.vm = &vm_move_source,
		.vm_context = move,
		.connect = dial,
		.connect_context = move,
		.tls = options->tls,
		.channel_count = request->channel_count,
		.quick = request->quick,
		.host = options->host_moves,
		.pace = { .downtime_goal_ns = request->downtime_ms * BASE_NS_PER_MS,
			  .time_limit_ns = request->time_limit_ms * BASE_NS_PER_MS,
			  .late = request->late,
			  .fixed_ns = FIXED_COST_NS },
		.throttle_permille = (uint32_t)request->throttle * 10,
		.compress = request->compress,
		.verify = request->verify,
		.resume_ms = (uint32_t)request->resume_ms,
		.forecast_ms = (uint32_t)request->dry_run_ms,
	};
	int code = 0;

	if (move == NULL)
		return base_fail(err, -ENOMEM, "move: no memory");
	out.epoch = move->epoch;
	move->request = *request;
	vm_route_init(&move->route, &request->to, request->spread);
	base_random_bytes(move->id, sizeof(move->id));
	code = mig_keep_init(&move->keep, options->records, options->config->name,
			     request->to.list[0].text, move->id, err);
	if (code == 0)
		code = rate_new(move, err);
	out.rate = move->rate;
	if (code == 0)
		code = mig_out_new(&out, &move->out, err);
	if (code == 0)
		code = base_thread_start(&move->thread, "migrate", out_body, move, err);
	if (code < 0)
		return code;
	move->has_thread = true;
	*ret_move = base_take(&move);
	return 0;
}

void vm_move_cancel(struct vm_move *move)
{
	mig_out_cancel(move->out);
}

bool vm_move_is_over(const struct vm_move *move)
{
	return atomic_load(&move->over);
}

enum mig_out_end vm_move_out_end(struct vm_move *move, struct base_error *err,
				 const struct mig_findings **ret_findings)
{
	base_assert(vm_move_is_over(move));
	*err = move->err;
	if (move->end == MIG_OUT_CANCELLED)
		(void)base_fail(err, -ECANCELED, "move: cancelled");
	else if (move->end == MIG_OUT_FAILED && err->code == 0)
		(void)base_fail(err, -EIO, "move: failed");
	*ret_findings = &move->findings;
	return move->end;
}

uint64_t vm_move_epoch(const struct vm_move *move)
{
	uint64_t now = atomic_load(&move->epoch_now);

	return now != 0 ? now : move->options.epoch;
}

int vm_move_gate_begin(struct vm_move_gate *gate, struct base_error *err)
{
	(void)pthread_mutex_lock(&gate->lock);
	if (!gate->written)
		return 0;
	(void)pthread_mutex_unlock(&gate->lock);
	return base_fail(err, -EAGAIN,
			 "the machine is being handed over: try again when that is decided");
}

void vm_move_gate_end(struct vm_move_gate *gate)
{
	(void)pthread_mutex_unlock(&gate->lock);
}

/* --- what is told --- */

const char *vm_move_end_name(enum mig_out_end end)
{
	static const char *const names[MIG_OUT_ENDS] = {
		[MIG_OUT_INVALID] = "invalid",     [MIG_OUT_MOVED] = "moved",
		[MIG_OUT_CANCELLED] = "cancelled", [MIG_OUT_FAILED] = "failed",
		[MIG_OUT_STALE] = "stale",         [MIG_OUT_FORECAST] = "dry-run",
	};

	return names[end];
}

static void put(json_t *object, const char *key, uint64_t value)
{
	(void)json_object_set_new(object, key, json_integer((json_int_t)value));
}

/* What verifying cost; nothing where it was not asked for. */
static void put_verify(json_t *object, const struct vm_move *move)
{
	const struct mig_out_report *report = &move->report;
	json_t *verify = json_object();

	if (!move->request.verify) {
		json_decref(verify);
		return;
	}
	(void)json_object_set_new(verify, "verified", json_boolean(report->is_verified));
	put(verify, "bytes", report->verify_bytes);
	put(verify, "running_ns", report->verify_running_ns);
	put(verify, "blackout_ns", report->verify_blackout_ns);
	put(verify, "there_bytes", report->destination_verify_bytes);
	put(verify, "there_running_ns", report->destination_verify_running_ns);
	put(verify, "there_blackout_ns", report->destination_verify_blackout_ns);
	(void)json_object_set_new(object, "verify", verify);
}

/* What a move would be like; nothing but for a dry run. */
static void put_forecast(json_t *object, const struct vm_move *move)
{
	struct mig_forecast_facts facts;
	struct mig_forecast forecast;
	json_t *told = NULL;

	if (!mig_out_forecast(move->out, &facts, &forecast))
		return;
	told = json_object();
	(void)json_object_set_new(told, "meets_goal", json_boolean(forecast.meets_goal));
	(void)json_object_set_new(told, "is_cancelled", json_boolean(forecast.is_cancelled));
	(void)json_object_set_new(told, "is_postcopy", json_boolean(forecast.is_post));
	put(told, "rounds", forecast.rounds);
	put(told, "total_ns", forecast.total_ns);
	put(told, "total_margin_ns", forecast.total_margin_ns);
	put(told, "blackout_ns", forecast.blackout_ns);
	put(told, "blackout_margin_ns", forecast.blackout_margin_ns);
	put(told, "bytes", facts.total_bytes);
	put(told, "rate_bytes_per_s", facts.rate_bytes_per_s);
	put(told, "dirty_bytes_per_s", forecast.dirty_bytes_per_s);
	(void)json_object_set_new(object, "forecast", told);
}

/* What was spoken. */
static json_t *line_json(const struct mig_out_line *line)
{
	if (!line->is_tls)
		return json_null();
	return json_pack("{s:s,s:s,s:b}", "cipher", line->cipher, "peer", line->peer, "kernel",
			 line->in_kernel);
}

json_t *vm_move_report_json(const struct vm_move *move)
{
	const struct mig_out_report *report = &move->report;
	const struct {
		const char *key;
		uint64_t value;
	} figures[] = {
		{ "total_ns", report->total_ns },
		{ "queued_ns", report->queued_ns },
		{ "prepare_ns", report->prepare_ns },
		{ "copy_ns", report->copy_ns },
		{ "blackout_ns", report->blackout_ns },
		{ "pause_ns", report->pause_ns },
		{ "last_round_ns", report->last_round_ns },
		{ "state_ns", report->state_ns },
		{ "let_go_ns", report->let_go_ns },
		{ "check_ns", report->check_ns },
		{ "commit_ns", report->commit_ns },
		{ "activate_ns", report->activate_ns },
		{ "destination_check_ns", report->destination_check_ns },
		{ "destination_activate_ns", report->destination_activate_ns },
		{ "rounds", report->rounds },
		{ "throttle_permille_most", report->throttle_most },
		{ "throttle_ns", report->throttle_ns },
		{ "sent_bytes", report->sent_bytes },
		{ "pages", report->page_count },
		{ "zero_pages", report->zero_pages },
		{ "lz4_pages", report->lz4_pages },
		{ "lz4_bytes", report->lz4_bytes },
		{ "chunks", report->chunks },
		{ "resent_chunks", report->resent_chunks },
		{ "state_bytes", report->state_bytes },
		{ "cuts", report->cuts },
		{ "cut_ns", report->cut_ns },
		{ "again_bytes", report->again_bytes },
	};
	json_t *object = json_object();

	(void)json_object_set_new(object, "end", json_string(vm_move_end_name(move->end)));
	(void)json_object_set_new(object, "to", json_string(move->request.to.list[0].text));
	(void)json_object_set_new(object, "mode",
				  json_string(move->request.quick ? "quick" : "live"));
	put(object, "epoch", move->end == MIG_OUT_MOVED ? move->epoch + 1 : move->epoch);
	for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
		put(object, figures[i].key, figures[i].value);
	if (move->request.yields)
		put(object, "backoffs", move->yield.law.backoffs);
	put_verify(object, move);
	put_forecast(object, move);
	(void)json_object_set_new(object, "tls", line_json(&report->line));
	vm_move_put_post(object, move);
	return object;
}

uint32_t vm_move_round(struct vm_move *move)
{
	struct mig_out_progress progress;

	mig_out_progress(move->out, &progress);
	return progress.round;
}

void vm_move_look(struct vm_move *move, struct mig_timeline_view *ret_view)
{
	struct mig_out_progress progress;

	mig_out_progress(move->out, &progress);
	*ret_view = (struct mig_timeline_view){
		.sent_bytes = progress.sent_bytes,
		.dirty_bytes = progress.dirty_bytes,
		.left_bytes = progress.left_bytes,
		.fault_pages = progress.fault_pages,
		.throttle_permille = progress.throttle_permille,
		.round = progress.round,
		.state = (uint32_t)progress.state,
		.is_cut = progress.is_cut,
	};
}

json_t *vm_move_progress_json(struct vm_move *move)
{
	struct mig_out_progress progress;
	json_t *object = json_object();

	mig_out_progress(move->out, &progress);
	(void)json_object_set_new(object, "to", json_string(move->request.to.list[0].text));
	(void)json_object_set_new(object, "state",
				  json_string(progress.is_queued ? "queued"
					      : progress.is_cut
						      ? "reconnecting"
						      : mig_source_state_name(progress.state)));
	put(object, "round", progress.round);
	put(object, "percent", progress.view.percent);
	put(object, "rate_bytes_per_s", progress.view.rate_bytes_per_s);
	if (progress.view.left_ns == UINT64_MAX)
		(void)json_object_set_new(object, "left_ns", json_null());
	else
		put(object, "left_ns", progress.view.left_ns);
	put(object, "sent_bytes", progress.sent_bytes);
	put(object, "pages", progress.page_count);
	put(object, "zero_pages", progress.zero_pages);
	put(object, "left_pages", progress.left_pages);
	put(object, "throttle_permille", progress.throttle_permille);
	return object;
}

/* --- destination --- */

/* The register is on a record that is made with the plan; who asks before has nothing to ask. */
static int register_ask(void *context, uint64_t epoch, enum mig_side owner,
			struct mig_register *ret_register, struct base_error *err)
{
	struct vm_move *move = context;

	if (!atomic_load(&move->has_keep))
		return base_fail(err, -ENOENT, "no migration has come this far");
	return mig_register_ask(&move->keep, epoch, owner, ret_register, err);
}

static int register_read(void *context, struct mig_register *ret_register, struct base_error *err)
{
	struct vm_move *move = context;

	if (!atomic_load(&move->has_keep))
		return base_fail(err, -ENOENT, "no migration has come this far");
	return mig_register_read(&move->keep, ret_register, err);
}

/* Strangers may be many, and a log is for what matters. */
static void turned_away(void *context, const struct base_error *why)
{
	struct vm_move *move = context;
	uint64_t now_ns = base_clock_boot_ns(&base_clock_system);

	if (move->turned_away_ns != 0 && now_ns - move->turned_away_ns < BASE_NS_PER_SECOND)
		return;
	move->turned_away_ns = now_ns;
	base_log(BASE_LOG_WARNING, "vm.move-refused", "vm=%s why=%s", move->options.config->name,
		 base_log_str(why->text));
}

int vm_move_in_new(const struct vm_move_options *options, int listen_fd, struct vm_move **ret_move,
		   struct base_error *err)
{
	BASE_CLEANUP(move_freep) struct vm_move *move = move_new(options);
	struct mig_in_options in = {
		.vm = &vm_move_destination,
		.vm_context = move,
		.listen_fd = listen_fd,
		.tls = options->tls,
		.turned_away = turned_away,
		.host = options->host_moves,
		.keeps_register = true,
		.resume_ms = VM_MOVE_RESUME_MS_MAX,
	};
	int code = 0;

	if (move == NULL)
		return base_fail(err, -ENOMEM, "move: no memory");
	move->arbiter =
		(struct mig_arbiter){ .ask = register_ask, .read = register_read, .context = move };
	in.arbiter = &move->arbiter;
	in.more_count = options->more_count;
	for (uint32_t i = 0; i < options->more_count; i++)
		in.more_fds[i] = options->more_fds[i];
	vm_move_post_options(move, &in);
	code = mig_in_new(&in, &move->in, err);
	if (code < 0)
		return code;
	*ret_move = base_take(&move);
	return 0;
}

int vm_move_in_run(struct vm_move *move, uint64_t *ret_epoch, struct base_error *err)
{
	struct base_error why = { 0 };

	if (mig_in_run(move->in, ret_epoch, &why) == MIG_IN_RUNNING)
		return 0;
	return base_fail(err, why.code < 0 ? why.code : -EIO, "the move has not come about: %s",
			 why.text);
}

void vm_move_give_up(struct vm_move *move)
{
	mig_in_give_up(move->in);
}

void vm_move_linger(struct vm_move *move)
{
	mig_in_linger(move->in, LINGER_MS);
}
