/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands that move a disk of the running VM to another folder: docs/agent/disk-move.md.
 *
 * A job looks at it, after all that was asked for before; then a thread of its own moves it, so
 * that other commands go on meanwhile; the loop's thread makes the end of it known.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "agent/vm_worker_priv.h"
#include "base/log.h"
#include "base/thread.h"
#include "hypervisor/storvsp/storvsp.h"
#include "migrate/mig_rate.h"

int vm_worker_refuse_disk_move(const struct vm_worker *worker, const char *command,
			       struct base_error *err)
{
	const struct vm_disk_moving *moving = &worker->disk_moving;

	if (!moving->under_way)
		return 0;
	return base_fail(err, -EAGAIN,
			 "command '%s': disk %" PRIu32 ":%" PRIu32
			 " is being moved: expected it when that is over or cancelled",
			 command, moving->controller, moving->lun);
}

static int check_now(const struct vm_worker *worker, struct base_error *err)
{
	int code = 0;

	if (worker->saving || worker->checkpoint.under_way)
		return base_fail(err, -EAGAIN,
				 "command 'disk-move': the machine is being saved: try again when "
				 "it is done");
	code = vm_worker_refuse_moving(worker, "disk-move", err);
	return code == 0 ? vm_worker_refuse_disk_move(worker, "disk-move", err) : code;
}

/* Arguments: lun, controller, to, keep, bandwidth. */
static int check_args(const struct vm_request *request, struct base_error *err)
{
	const struct vm_arg *bandwidth = &request->args[4];

	if (request->args[2].text[0] != '/')
		return base_fail(err, -EINVAL,
				 "command 'disk-move': argument 'to': value '%s': expected a path "
				 "that begins with '/'",
				 request->args[2].text);
	if (bandwidth->given &&
	    (bandwidth->number < MIG_RATE_MIN_BYTES_PER_S || bandwidth->number > INT64_MAX))
		return base_fail(err, -EINVAL,
				 "command 'disk-move': argument 'bandwidth': expected %u or more",
				 MIG_RATE_MIN_BYTES_PER_S);
	return 0;
}

/* --- its end --- */

static json_t *place_json(const struct vm_disk_moving *moving)
{
	return json_pack("{s:i, s:i}", "controller", (int)moving->controller, "lun",
			 (int)moving->lun);
}

static void put_number(json_t *object, const char *key, uint64_t value)
{
	(void)json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void failed(struct vm_worker *worker)
{
	struct vm_disk_moving *moving = &worker->disk_moving;
	json_t *fields = place_json(moving);

	base_log(BASE_LOG_WARNING, "vm.disk-move-failed", "vm=%s controller=%u lun=%u why=%s",
		 worker->config->name, moving->controller, moving->lun,
		 base_log_str(moving->err.text));
	(void)json_object_set_new(fields, "code", json_string(vm_error_name(moving->code)));
	(void)json_object_set_new(fields, "text", json_string(moving->err.text));
	vm_worker_event(worker, "disk-move-failed", fields);
	if (worker->control != NULL)
		vm_control_refuse(worker->control, &moving->call, &moving->err);
}

static void moved(struct vm_worker *worker)
{
	struct vm_disk_moving *moving = &worker->disk_moving;
	const struct vm_storage_move_report *report = &moving->report;
	const char *path = vm_disk_move_to(moving->move);
	json_t *fields = place_json(moving);

	vm_disk_move_done(moving->move);
	base_log(BASE_LOG_NOTICE, "vm.disk-moved",
		 "vm=%s controller=%u lun=%u from=%s path=%s total_ms=%" PRIu64 " held_us=%" PRIu64
		 " sent_bytes=%" PRIu64 " rounds=%" PRIu32,
		 worker->config->name, moving->controller, moving->lun,
		 base_log_str(vm_disk_move_from(moving->move)), base_log_str(path),
		 (uint64_t)(report->total_ns / BASE_NS_PER_MS),
		 (uint64_t)(report->held_ns / BASE_NS_PER_US), report->sent_bytes, report->rounds);
	(void)json_object_set_new(fields, "image", json_string(report->name));
	(void)json_object_set_new(fields, "path", json_string(path));
	/* Whoever keeps the VM's configuration has to know. */
	vm_worker_event(worker, "disk-image", json_copy(fields));
	put_number(fields, "total_ns", report->total_ns);
	put_number(fields, "held_ns", report->held_ns);
	put_number(fields, "sent_bytes", report->sent_bytes);
	put_number(fields, "rounds", report->rounds);
	(void)json_object_set_new(fields, "kept", json_boolean(moving->keep));
	vm_worker_event(worker, "disk-moved", json_copy(fields));
	if (worker->control != NULL)
		vm_control_answer(worker->control, &moving->call, fields);
	else
		json_decref(fields);
}

static void end(struct vm_worker *worker)
{
	struct vm_disk_moving *moving = &worker->disk_moving;

	if (moving->code < 0)
		failed(worker);
	else
		moved(worker);
	vm_disk_move_free(moving->move);
	moving->move = NULL;
	moving->under_way = false;
	vm_worker_may_stop(worker);
}

void vm_worker_disk_move_news(struct vm_worker *worker)
{
	struct vm_disk_moving *moving = &worker->disk_moving;

	if (!moving->under_way || !atomic_load(&moving->over))
		return;
	base_thread_join(moving->thread);
	end(worker);
}

/* --- on its way --- */

static void *body(void *context)
{
	struct vm_worker *worker = context;
	struct vm_disk_moving *moving = &worker->disk_moving;

	moving->code = vm_disk_move_run(moving->move, &moving->report, &moving->err);
	atomic_store(&moving->over, true);
	vm_worker_tell(worker, VM_NEWS_STORAGE);
	return NULL;
}

static int run_begin(struct vm_job *job, struct base_error *err)
{
	struct vm_disk_moving *moving = &job->worker->disk_moving;
	const struct vm_disk_move_options options = {
		.controller = moving->controller,
		.lun = moving->lun,
		.to = job->request.args[2].text,
		.keep = moving->keep,
		.bandwidth = job->request.args[4].number,
		.state_dir_fd = job->worker->state_dir_fd,
		.view = &moving->view,
	};

	return vm_disk_move_new(job->worker->devices, &options, &moving->move, err);
}

static void done_begin(struct vm_job *job, json_t **ret_result)
{
	struct vm_worker *worker = job->worker;
	struct vm_disk_moving *moving = &worker->disk_moving;

	(void)ret_result;
	moving->code = job->code;
	moving->err = job->err;
	if (moving->code == 0 && atomic_load(&moving->view.cancel))
		moving->code = base_fail(&moving->err, -ECANCELED,
					 "command 'disk-move': "
					 "cancelled");
	if (moving->code == 0) {
		base_log(BASE_LOG_NOTICE, "vm.disk-move-begun",
			 "vm=%s controller=%u lun=%u from=%s to=%s", worker->config->name,
			 moving->controller, moving->lun,
			 base_log_str(vm_disk_move_from(moving->move)),
			 base_log_str(vm_disk_move_to(moving->move)));
		moving->code =
			base_thread_start(&moving->thread, "disk-move", body, worker, &moving->err);
	}
	if (moving->code < 0)
		end(worker);
}

static const struct vm_job job_begin = { .run = run_begin, .done = done_begin };

int vm_worker_disk_move(struct vm_worker *worker, const struct vm_call *call,
			const struct vm_request *request, struct base_error *err)
{
	struct vm_disk_moving *moving = &worker->disk_moving;
	int code = check_now(worker, err);

	if (code == 0)
		code = check_args(request, err);
	if (code < 0)
		return code;
	memset(moving, 0, sizeof(*moving));
	moving->call = *call;
	moving->lun = (uint32_t)request->args[0].number;
	moving->controller = (uint32_t)request->args[1].number;
	moving->keep = request->args[3].flag;
	moving->begin_ns = base_clock_boot_ns(&base_clock_system);
	/* Nobody's: the call is answered when it has moved. */
	code = vm_worker_job(worker, &job_begin, NULL, request, err);
	if (code < 0)
		return code;
	moving->under_way = true;
	return VM_CALL_LATER;
}

int vm_worker_disk_move_cancel(struct vm_worker *worker, struct base_error *err)
{
	if (!worker->disk_moving.under_way)
		return base_fail(err, -EPROTO,
				 "command 'disk-move-cancel': no disk is being moved");
	atomic_store(&worker->disk_moving.view.cancel, true);
	return 0;
}

void vm_worker_disk_move_stop(struct vm_worker *worker)
{
	atomic_store(&worker->disk_moving.view.cancel, true);
}

json_t *vm_worker_disk_move_status(struct vm_worker *worker)
{
	struct vm_disk_moving *moving = &worker->disk_moving;
	struct vm_storage_view *view = &moving->view;
	uint64_t took_ns = base_clock_boot_ns(&base_clock_system) - moving->begin_ns;
	uint64_t done = atomic_load(&view->done_bytes);
	uint64_t left = atomic_load(&view->left_bytes);
	double rate = took_ns > 0 ? (double)done * (double)BASE_NS_PER_SECOND / (double)took_ns : 0;
	json_t *object = NULL;

	if (!moving->under_way)
		return json_pack("{s:s}", "state", "none");
	object = place_json(moving);
	(void)json_object_set_new(object, "state",
				  json_string(atomic_load(&view->cancel)           ? "cancelling"
					      : done == 0                          ? "preparing"
					      : atomic_load(&view->percent) == 100 ? "removing"
										   : "copying"));
	put_number(object, "round", atomic_load(&view->round));
	put_number(object, "percent", atomic_load(&view->percent));
	put_number(object, "done_bytes", done);
	put_number(object, "left_bytes", left);
	put_number(object, "rate_bytes_per_s", (uint64_t)rate);
	if (rate < 1)
		(void)json_object_set_new(object, "left_ns", json_null());
	else
		put_number(object, "left_ns",
			   (uint64_t)((double)left * (double)BASE_NS_PER_SECOND / rate));
	return object;
}
