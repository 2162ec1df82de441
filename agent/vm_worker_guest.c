/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the guest itself, through the integration services, carried out as jobs. */
#include <errno.h>

#include "agent/vm_worker_priv.h"
#include "base/log.h"

void vm_worker_running(struct vm_worker *worker)
{
	struct hv_machine_status status;

	hv_machine_status(worker->machine, &status);
	vm_devices_running(worker->devices, status.holds == 0);
	if (status.holds != 0 || !worker->announce_waits)
		return;
	worker->announce_waits = false;
	vm_devices_announce(worker->devices);
}

static void done_result(struct vm_job *job, json_t **ret_result)
{
	*ret_result = job->result;
}

static int run_guest(struct vm_job *job, struct base_error *err)
{
	job->result = vm_devices_guest_json(job->worker->devices);
	return job->result != NULL ? 0 : base_fail(err, -ENOMEM, "guest: no memory");
}

const struct vm_job vm_job_guest = { .run = run_guest, .done = done_result };

/* Arguments of shutdown: restart, force.  value: by the power button. */
static int run_shutdown(struct vm_job *job, struct base_error *err)
{
	bool by_button = false;
	int code = vm_devices_shutdown(job->worker->devices, job->request.args[0].flag,
				       job->request.args[1].flag, &by_button, err);

	job->value = by_button;
	return code;
}

static void done_shutdown(struct vm_job *job, json_t **ret_result)
{
	const char *by = job->value != 0 ? "power-button" : "service";

	if (job->code < 0)
		return;
	base_log(BASE_LOG_NOTICE, "vm.shutdown", "vm=%s by=%s restart=%d",
		 job->worker->config->name, by, job->request.args[0].flag);
	*ret_result = json_pack("{s:s}", "by", by);
}

const struct vm_job vm_job_shutdown = {
	.run = run_shutdown,
	.done = done_shutdown,
	.asks_guest = true,
};

static int run_time_sync(struct vm_job *job, struct base_error *err)
{
	(void)err;
	vm_devices_time_sync(job->worker->devices);
	return 0;
}

const struct vm_job vm_job_time_sync = { .run = run_time_sync, .done = done_result };
