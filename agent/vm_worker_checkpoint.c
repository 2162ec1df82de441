/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command checkpoint: freeze, disks, thaw, one after the other, as jobs of their own.  The
 * first and the last wait for the guest, on a thread that waits for nothing else; the disks are
 * changed by the thread that changes the machine.  In between the loop decides, so that a save, a
 * move or an end does not wait for a guest: what comes first is done, and the freeze ends by it.
 */
#include <errno.h>
#include <string.h>

#include "agent/vm_worker_priv.h"
#include "base/log.h"

/* Over, with what stands in worker->checkpoint: done, or failed. */
static void checkpoint_over(struct vm_job *job, json_t **ret_result)
{
	struct vm_worker *worker = job->worker;
	struct vm_checkpoint *checkpoint = &worker->checkpoint;
	const char *name = checkpoint->label;
	bool consistent = checkpoint->frozen == 0;

	checkpoint->under_way = false;
	job->code = checkpoint->code;
	job->err = checkpoint->err;
	if (checkpoint->code < 0) {
		base_log(BASE_LOG_ERR, "vm.checkpoint-failed", "vm=%s name=%s why=%s",
			 worker->config->name, base_log_str(name), base_log_str(job->err.text));
		vm_worker_event(worker, "checkpoint-failed",
				json_pack("{s:s, s:s, s:s}", "name", name, "code",
					  vm_error_name(job->code), "text", job->err.text));
		json_decref(checkpoint->disks);
		checkpoint->disks = NULL;
		return;
	}
	base_log(BASE_LOG_NOTICE, "vm.checkpoint", "vm=%s name=%s consistent=%d why=%s",
		 worker->config->name, base_log_str(name), consistent,
		 base_log_str(consistent ? "" : checkpoint->why.text));
	vm_worker_event(worker, "checkpoint",
			json_pack("{s:s, s:b, s:O}", "name", name, "consistent", (int)consistent,
				  "disks", checkpoint->disks));
	*ret_result = json_pack("{s:s, s:b, s:s, s:o}", "name", name, "consistent", (int)consistent,
				"why", consistent ? "" : checkpoint->why.text, "disks",
				checkpoint->disks);
	checkpoint->disks = NULL;
}

/* The next job takes over the call.  Not 0: it does not, and @job has the reason. */
static int go_on_with(struct vm_job *job, const struct vm_job *next)
{
	struct base_error err = { 0 };
	int code = vm_worker_job(job->worker, next, job->has_call ? &job->call : NULL,
				 &job->request, &err);

	if (code < 0) {
		job->code = code;
		job->err = err;
	} else {
		job->has_call = false;
	}
	return code;
}

static void failed(struct vm_job *job)
{
	struct vm_checkpoint *checkpoint = &job->worker->checkpoint;

	vm_devices_thaw_soon(job->worker->devices);
	checkpoint->code = job->code;
	checkpoint->err = job->err;
}

/* --- thaw --- */

static int run_thaw(struct vm_job *job, struct base_error *err)
{
	return vm_devices_thaw(job->worker->devices, err);
}

static void not_consistent(struct vm_job *job)
{
	struct vm_checkpoint *checkpoint = &job->worker->checkpoint;

	if (job->code == 0 || checkpoint->frozen < 0)
		return;
	checkpoint->frozen = job->code;
	checkpoint->why = job->err;
}

static void done_thaw(struct vm_job *job, json_t **ret_result)
{
	not_consistent(job);
	checkpoint_over(job, ret_result);
}

static const struct vm_job job_thaw = { .run = run_thaw, .done = done_thaw, .asks_guest = true };

/* --- the disks --- */

static int run_disks(struct vm_job *job, struct base_error *err)
{
	struct vm_checkpoint *checkpoint = &job->worker->checkpoint;

	return vm_devices_checkpoint(job->worker->devices, checkpoint->label, checkpoint->disks,
				     err);
}

/* Whoever keeps the VM's configuration has to know these, also when another disk failed. */
static void tell_tops(struct vm_worker *worker)
{
	size_t index = 0;
	json_t *disk = NULL;

	json_array_foreach(worker->checkpoint.disks, index, disk)
	{
		base_log(BASE_LOG_NOTICE, "vm.disk-image", "vm=%s controller=%d lun=%d path=%s",
			 worker->config->name,
			 (int)json_integer_value(json_object_get(disk, "controller")),
			 (int)json_integer_value(json_object_get(disk, "lun")),
			 base_log_str(json_string_value(json_object_get(disk, "path"))));
		vm_worker_event(worker, "disk-image", json_copy(disk));
	}
}

static void done_disks(struct vm_job *job, json_t **ret_result)
{
	struct vm_worker *worker = job->worker;
	struct vm_checkpoint *checkpoint = &worker->checkpoint;

	checkpoint->code = job->code;
	checkpoint->err = job->err;
	tell_tops(worker);
	if (checkpoint->frozen == 0 && go_on_with(job, &job_thaw) == 0)
		return;
	if (checkpoint->frozen == 0) {
		not_consistent(job);
		vm_devices_thaw_soon(worker->devices);
	}
	checkpoint_over(job, ret_result);
}

static const struct vm_job job_disks = { .run = run_disks, .done = done_disks };

/* --- freeze --- */

static int run_freeze(struct vm_job *job, struct base_error *err)
{
	return vm_devices_freeze(job->worker->devices, err);
}

static void done_freeze(struct vm_job *job, json_t **ret_result)
{
	struct vm_worker *worker = job->worker;
	struct vm_checkpoint *checkpoint = &worker->checkpoint;

	checkpoint->frozen = job->code;
	checkpoint->why = job->err;
	job->code = 0;
	job->err = (struct base_error){ 0 };
	if (checkpoint->gone)
		job->code = base_fail(&job->err, -ECANCELED,
				      "checkpoint: who asked for it is gone: nothing was done");
	else if (go_on_with(job, &job_disks) == 0)
		return;
	failed(job);
	checkpoint_over(job, ret_result);
}

static const struct vm_job job_freeze = {
	.run = run_freeze,
	.done = done_freeze,
	.asks_guest = true,
};

/* --- for the loop --- */

int vm_worker_checkpoint(struct vm_worker *worker, const struct vm_call *call,
			 const struct vm_request *request, struct base_error *err)
{
	struct vm_checkpoint *checkpoint = &worker->checkpoint;
	json_t *disks = NULL;
	int code = 0;

	if (checkpoint->under_way)
		return base_fail(err, -EBUSY,
				 "checkpoint '%s' is under way: expected one at a time",
				 checkpoint->label);
	disks = json_array();
	if (disks == NULL)
		return base_fail(err, -ENOMEM, "checkpoint: no memory");
	*checkpoint = (struct vm_checkpoint){ .call = *call, .disks = disks };
	memcpy(checkpoint->label, request->args[0].text, sizeof(checkpoint->label));
	code = vm_worker_job(worker, &job_freeze, call, request, err);
	if (code < 0) {
		json_decref(disks);
		checkpoint->disks = NULL;
		return code;
	}
	checkpoint->under_way = true;
	return VM_CALL_LATER;
}

void vm_worker_client_gone(void *context, const struct vm_call *call)
{
	struct vm_worker *worker = context;
	struct vm_checkpoint *checkpoint = &worker->checkpoint;

	vm_worker_watch_gone(worker, call);
	if (!checkpoint->under_way || checkpoint->call.client != call->client ||
	    checkpoint->call.generation != call->generation)
		return;
	checkpoint->gone = true;
	vm_devices_thaw_soon(worker->devices);
}
