/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs: calls into the machine that may block, on a thread of their own, one after
 * the other, so that the loop answers meanwhile.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "agent/vm_worker_priv.h"
#include "base/cleanup.h"
#include "base/log.h"

/* Job thread. */
static void job_body(void *context)
{
	struct vm_job *job = context;
	struct vm_worker *worker = job->worker;

	job->code = job->run(job, &job->err);
	job->next = NULL;
	{
		BASE_LOCKED(&worker->lock);

		if (worker->done_last != NULL)
			worker->done_last->next = job;
		else
			worker->done_first = job;
		worker->done_last = job;
	}
	vm_worker_tell(worker, VM_NEWS_JOB);
}

int vm_worker_job(struct vm_worker *worker, const struct vm_job *kind, const struct vm_call *call,
		  const struct vm_request *request, struct base_error *err)
{
	BASE_FREE struct vm_job *job = NULL;

	if (worker->ending)
		return base_fail(err, -EPROTO, "the worker is ending: expected no more changes");
	if (worker->loading)
		return base_fail(err, -EAGAIN,
				 "the machine is being loaded: try again when it is done");
	if (worker->saving)
		return base_fail(err, -EAGAIN, "a state is being saved: try again when it is done");
	if (worker->job_count >= VM_JOBS_MAX)
		return base_fail(err, -EAGAIN, "%" PRIu32 " changes are waiting: try again later",
				 worker->job_count);
	job = malloc(sizeof(*job));
	if (job == NULL)
		return base_fail(err, -ENOMEM, "job: no memory");
	*job = *kind;
	job->worker = worker;
	job->has_call = call != NULL;
	if (call != NULL)
		job->call = *call;
	if (request != NULL)
		job->request = *request;
	if (base_pool_submit(kind->asks_guest ? worker->asks : worker->jobs, job_body, job) < 0)
		return base_fail(err, -EAGAIN, "too many changes are waiting: try again later");
	worker->job_count++;
	(void)base_take(&job);
	return 0;
}

static struct vm_job *take_done(struct vm_worker *worker)
{
	BASE_LOCKED(&worker->lock);
	struct vm_job *job = worker->done_first;

	if (job == NULL)
		return NULL;
	worker->done_first = job->next;
	if (worker->done_first == NULL)
		worker->done_last = NULL;
	return job;
}

static void job_finish(struct vm_worker *worker, struct vm_job *job)
{
	json_t *result = NULL;

	if (job->code < 0 && job->err.code == 0)
		(void)base_fail_errno(&job->err, job->code, "machine");
	job->done(job, &result);
	if (!job->has_call || worker->control == NULL)
		json_decref(result);
	else if (job->code < 0)
		vm_control_refuse(worker->control, &job->call, &job->err);
	else
		vm_control_answer(worker->control, &job->call, result);
}

void vm_worker_jobs_done(struct vm_worker *worker)
{
	for (;;) {
		BASE_FREE struct vm_job *job = take_done(worker);

		if (job == NULL)
			break;
		worker->job_count--;
		job_finish(worker, job);
	}
	vm_worker_may_stop(worker);
}

/* --- the jobs --- */

static int run_load(struct vm_job *job, struct base_error *err)
{
	return vm_worker_load(job->worker, err);
}

static void done_load(struct vm_job *job, json_t **ret_result)
{
	(void)ret_result;
	vm_worker_loaded(job->worker, job->code, &job->err);
}

const struct vm_job vm_job_load = { .run = run_load, .done = done_load };

/* @pause: or resume.  While the VM moves the hold moves with it. */
static int change_hold(struct vm_worker *worker, bool pause, struct base_error *err)
{
	int code = vm_move_gate_begin(&worker->gate, err);

	if (code < 0)
		return code;
	code = pause ? hv_machine_hold(worker->machine, HV_HOLD_USER, err)
		     : hv_machine_release(worker->machine, HV_HOLD_USER, err);
	vm_move_gate_end(&worker->gate);
	return code;
}

static int run_pause(struct vm_job *job, struct base_error *err)
{
	return change_hold(job->worker, true, err);
}

static void done_pause(struct vm_job *job, json_t **ret_result)
{
	struct vm_worker *worker = job->worker;
	struct hv_machine_status status;

	vm_worker_running(worker);
	if (job->code < 0)
		return;
	hv_machine_status(worker->machine, &status);
	base_log(BASE_LOG_NOTICE, "vm.paused", "vm=%s pause_us=%" PRIu64, worker->config->name,
		 (uint64_t)(status.pause_ns / BASE_NS_PER_US));
	*ret_result = json_pack("{s:I}", "pause_ns", (json_int_t)status.pause_ns);
	vm_worker_event(worker, "paused", NULL);
}

const struct vm_job vm_job_pause = { .run = run_pause, .done = done_pause };

static int run_resume(struct vm_job *job, struct base_error *err)
{
	return change_hold(job->worker, false, err);
}

static void done_resume(struct vm_job *job, json_t **ret_result)
{
	(void)ret_result;
	vm_worker_running(job->worker);
	if (job->code < 0)
		return;
	base_log(BASE_LOG_NOTICE, "vm.resumed", "vm=%s", job->worker->config->name);
	vm_worker_event(job->worker, "resumed", NULL);
}

const struct vm_job vm_job_resume = { .run = run_resume, .done = done_resume };

/* Arguments of save: file, go_on. */
static int run_save(struct vm_job *job, struct base_error *err)
{
	struct vm_worker *worker = job->worker;
	bool go_on = job->request.args[1].flag;
	struct base_error why = { 0 };
	int code = hv_machine_save(worker->machine, worker->state_dir_fd, job->request.args[0].text,
				   go_on, &job->report, err);

	/* The machine is the file's from here on, and so are its disks.  They were flushed before
	 * the file was written: what this may fail at is nothing that the guest knows of. */
	if (code == 0 && !go_on && vm_devices_stop(worker->devices, &why) < 0)
		base_log(BASE_LOG_WARNING, "vm.disks-not-closed", "vm=%s why=%s",
			 worker->config->name, base_log_str(why.text));
	return code;
}

/* Not done, or not known to be: then the machine stands still until somebody decides. */
static void save_failed(struct vm_worker *worker, const struct vm_job *job)
{
	const char *file = job->request.args[0].text;
	json_t *fields = json_pack("{s:s, s:s, s:s}", "file", file, "code",
				   vm_error_name(job->code), "text", job->err.text);

	if (job->code == -ETIMEDOUT) {
		base_log(BASE_LOG_ERR, "vm.save-unknown", "vm=%s file=%s why=%s",
			 worker->config->name, base_log_str(file), base_log_str(job->err.text));
		vm_worker_event(worker, "save-unknown", fields);
		return;
	}
	base_log(BASE_LOG_ERR, "vm.save-failed", "vm=%s file=%s why=%s", worker->config->name,
		 base_log_str(file), base_log_str(job->err.text));
	vm_worker_event(worker, "save-failed", fields);
}

static void done_save(struct vm_job *job, json_t **ret_result)
{
	struct vm_worker *worker = job->worker;
	const char *file = job->request.args[0].text;
	const struct hv_save_report *report = &job->report;
	bool go_on = job->request.args[1].flag;

	worker->saving = false;
	if (job->code < 0) {
		save_failed(worker, job);
		return;
	}
	base_log(BASE_LOG_NOTICE, "vm.saved",
		 "vm=%s file=%s bytes=%" PRIu64 " took_ms=%" PRIu64 " go_on=%d",
		 worker->config->name, base_log_str(file), report->file_bytes,
		 (uint64_t)(report->total_ns / BASE_NS_PER_MS), go_on);
	*ret_result =
		json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "file", file, "file_bytes",
			  (json_int_t)report->file_bytes, "total_ns", (json_int_t)report->total_ns,
			  "pages", (json_int_t)report->ram.page_count, "zero_pages",
			  (json_int_t)report->ram.zero_page_count, "raw_pages",
			  (json_int_t)report->ram.raw_page_count, "lz4_pages",
			  (json_int_t)report->ram.lz4_page_count);
	vm_worker_event(worker, "saved",
			json_pack("{s:s, s:I, s:I, s:b}", "file", file, "file_bytes",
				  (json_int_t)report->file_bytes, "total_ns",
				  (json_int_t)report->total_ns, "go_on", (int)go_on));
	/* safety: the machine is the file's now; nothing here may run it again. */
	if (!go_on)
		vm_worker_end(worker, VM_EXIT_DONE, "saved");
}

const struct vm_job vm_job_save = { .run = run_save, .done = done_save };

/* value: whether there was a reset; of two vCPUs that asked, the second finds it done. */
static int run_reset(struct vm_job *job, struct base_error *err)
{
	struct hv_machine *machine = job->worker->machine;
	struct hv_machine_status before;
	struct hv_machine_status after;
	int code = 0;

	hv_machine_status(machine, &before);
	code = hv_machine_reset(machine, !job->has_call, err);
	hv_machine_status(machine, &after);
	job->value = after.reset_count - before.reset_count;
	return code;
}

static void done_reset(struct vm_job *job, json_t **ret_result)
{
	struct vm_worker *worker = job->worker;
	const char *by = job->has_call ? "command" : "guest";
	struct hv_machine_status status;

	(void)ret_result;
	if (job->code == 0 && job->value > 0) {
		base_log(BASE_LOG_NOTICE, "vm.reset", "vm=%s by=%s", worker->config->name, by);
		vm_worker_event(worker, "reset", json_pack("{s:s}", "by", by));
	}
	hv_machine_status(worker->machine, &status);
	if (job->code == 0 || (status.holds & (uint32_t)HV_HOLD_RESET) == 0 ||
	    (status.holds & (uint32_t)HV_HOLD_STOPPED) != 0)
		return; /* refused before anything was changed: whoever asked is told */
	vm_worker_reset_failed(worker, by, &job->err);
}

const struct vm_job vm_job_reset = { .run = run_reset, .done = done_reset };

static int run_power_button(struct vm_job *job, struct base_error *err)
{
	(void)err;
	hv_machine_power_button(job->worker->machine);
	return 0;
}

static void done_power_button(struct vm_job *job, json_t **ret_result)
{
	(void)ret_result;
	base_log(BASE_LOG_NOTICE, "vm.power-button", "vm=%s", job->worker->config->name);
}

const struct vm_job vm_job_power_button = { .run = run_power_button, .done = done_power_button };

/* Arguments of test-get: reg; of test-set: reg, value. */
static int run_test_get(struct vm_job *job, struct base_error *err)
{
	return hv_machine_test_get(job->worker->machine, (uint32_t)job->request.args[0].number,
				   &job->value, err);
}

static void done_test_get(struct vm_job *job, json_t **ret_result)
{
	if (job->code == 0)
		*ret_result = json_pack("{s:o}", "value", vm_json_hex(job->value));
}

const struct vm_job vm_job_test_get = { .run = run_test_get, .done = done_test_get };

static int run_test_set(struct vm_job *job, struct base_error *err)
{
	return hv_machine_test_set(job->worker->machine, (uint32_t)job->request.args[0].number,
				   job->request.args[1].number, err);
}

static void done_nothing(struct vm_job *job, json_t **ret_result)
{
	(void)job;
	(void)ret_result;
}

const struct vm_job vm_job_test_set = { .run = run_test_set, .done = done_nothing };
