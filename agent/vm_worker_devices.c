/* SPDX-License-Identifier: Apache-2.0 */
/* The devices' commands, carried out as jobs, and what the devices report. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_worker_priv.h"
#include "base/cleanup.h"
#include "base/log.h"

/* --- events --- */

static json_t *place_json(const struct vm_device_event *event)
{
	return json_pack("{s:i, s:i}", "controller", (int)event->controller, "lun",
			 (int)event->lun);
}

static void disk_news(struct vm_worker *worker, const struct vm_device_event *event)
{
	static const struct {
		enum base_log_level level;
		const char *log;
		const char *event;
	} rows[VM_DEVICE_EVENTS] = {
		[VM_DEVICE_DISK_STALLED] = { BASE_LOG_ERR, "vm.disk-stalled", "disk-stalled" },
		[VM_DEVICE_DISK_UNSTALLED] = { BASE_LOG_NOTICE, "vm.disk-unstalled",
					       "disk-unstalled" },
		[VM_DEVICE_DISK_FAILED] = { BASE_LOG_ERR, "vm.disk-failed", "disk-failed" },
		[VM_DEVICE_DISK_STORE] = { BASE_LOG_WARNING, "vm.disk-store", "disk-store" },
	};
	json_t *fields = place_json(event);

	base_log(rows[event->kind].level, rows[event->kind].log,
		 "vm=%s controller=%u lun=%u why=%s", worker->config->name, event->controller,
		 event->lun, base_log_str(event->text));
	if (fields != NULL && event->code != 0)
		(void)json_object_set_new(fields, "code", json_string(vm_error_name(event->code)));
	if (fields != NULL)
		(void)json_object_set_new(fields, "text", json_string(event->text));
	vm_worker_event(worker, rows[event->kind].event, fields);
}

void vm_worker_device_news(struct vm_worker *worker)
{
	struct vm_device_event event;

	while (vm_devices_event(worker->devices, &event)) {
		if (event.kind == VM_DEVICE_HEARTBEAT)
			vm_worker_event(worker, "heartbeat",
					json_pack("{s:s}", "state", event.text));
		else if (event.kind == VM_DEVICE_GUEST_INFO)
			vm_worker_event(worker, "guest-info", NULL);
		else
			disk_news(worker, &event);
	}
}

/* --- jobs --- */

static void done_result(struct vm_job *job, json_t **ret_result)
{
	*ret_result = job->result;
}

static int run_devices(struct vm_job *job, struct base_error *err)
{
	job->result = vm_devices_json(job->worker->devices);
	return job->result != NULL ? 0 : base_fail(err, -ENOMEM, "devices: no memory");
}

const struct vm_job vm_job_devices = { .run = run_devices, .done = done_result };

static void dump_devices(void *context, FILE *out)
{
	vm_devices_dump(context, out);
}

static int run_dump(struct vm_job *job, struct base_error *err)
{
	BASE_FREE char *text = NULL;
	size_t size_bytes = 0;
	FILE *out = open_memstream(&text, &size_bytes);

	if (out == NULL)
		return base_fail(err, -ENOMEM, "dump: no memory");
	hv_machine_dump(job->worker->machine, out, dump_devices, job->worker->devices);
	if (fclose(out) != 0 || text == NULL)
		return base_fail(err, -ENOMEM, "dump: no memory");
	if (size_bytes > VM_DUMP_BYTES_MAX)
		size_bytes = VM_DUMP_BYTES_MAX;
	job->result = json_pack("{s:s%}", "text", text, size_bytes);
	return job->result != NULL ? 0 : base_fail(err, -ENOMEM, "dump: no memory");
}

const struct vm_job vm_job_dump = { .run = run_dump, .done = done_result };

static int run_disk_add(struct vm_job *job, struct base_error *err)
{
	return vm_devices_disk_add(job->worker->devices, &job->disk, err);
}

static void done_disk_add(struct vm_job *job, json_t **ret_result)
{
	struct vm_worker *worker = job->worker;

	if (job->code < 0)
		return;
	base_log(BASE_LOG_NOTICE, "vm.disk-added", "vm=%s controller=%u lun=%u path=%s",
		 worker->config->name, job->disk.controller, job->disk.lun,
		 base_log_str(job->disk.path));
	*ret_result = json_pack("{s:i, s:i}", "controller", (int)job->disk.controller, "lun",
				(int)job->disk.lun);
	vm_worker_event(worker, "disk-added",
			json_pack("{s:i, s:i, s:s}", "controller", (int)job->disk.controller, "lun",
				  (int)job->disk.lun, "path", job->disk.path));
}

const struct vm_job vm_job_disk_add = { .run = run_disk_add, .done = done_disk_add };

/* Arguments of all that follow: lun, controller, and their own. */
static uint32_t lun_of(const struct vm_job *job)
{
	return (uint32_t)job->request.args[0].number;
}

static uint32_t controller_of(const struct vm_job *job)
{
	return (uint32_t)job->request.args[1].number;
}

static int run_disk_remove(struct vm_job *job, struct base_error *err)
{
	return vm_devices_disk_remove(job->worker->devices, controller_of(job), lun_of(job), err);
}

static void done_disk_remove(struct vm_job *job, json_t **ret_result)
{
	struct vm_worker *worker = job->worker;

	(void)ret_result;
	if (job->code < 0)
		return;
	base_log(BASE_LOG_NOTICE, "vm.disk-removed", "vm=%s controller=%u lun=%u",
		 worker->config->name, controller_of(job), lun_of(job));
	vm_worker_event(worker, "disk-removed",
			json_pack("{s:i, s:i}", "controller", (int)controller_of(job), "lun",
				  (int)lun_of(job)));
}

const struct vm_job vm_job_disk_remove = { .run = run_disk_remove, .done = done_disk_remove };

static int run_medium(struct vm_job *job, struct base_error *err)
{
	return vm_devices_medium(job->worker->devices, controller_of(job), lun_of(job),
				 job->request.args[2].text, err);
}

static void done_medium(struct vm_job *job, json_t **ret_result)
{
	(void)ret_result;
	if (job->code == 0)
		base_log(BASE_LOG_NOTICE, "vm.medium", "vm=%s controller=%u lun=%u path=%s",
			 job->worker->config->name, controller_of(job), lun_of(job),
			 base_log_str(job->request.args[2].text));
}

const struct vm_job vm_job_medium = { .run = run_medium, .done = done_medium };

static int run_disk_resize(struct vm_job *job, struct base_error *err)
{
	return vm_devices_disk_resize(job->worker->devices, controller_of(job), lun_of(job),
				      job->request.args[2].number, err);
}

static void done_disk_resize(struct vm_job *job, json_t **ret_result)
{
	(void)ret_result;
	if (job->code == 0)
		base_log(BASE_LOG_NOTICE, "vm.disk-resized",
			 "vm=%s controller=%u lun=%u bytes=%llu", job->worker->config->name,
			 controller_of(job), lun_of(job),
			 (unsigned long long)job->request.args[2].number);
}

const struct vm_job vm_job_disk_resize = { .run = run_disk_resize, .done = done_disk_resize };

/* Arguments of link: nic, up. */
static int run_link(struct vm_job *job, struct base_error *err)
{
	return vm_devices_link(job->worker->devices, (uint32_t)job->request.args[0].number,
			       job->request.args[1].flag, err);
}

static void done_link(struct vm_job *job, json_t **ret_result)
{
	(void)ret_result;
	if (job->code == 0)
		base_log(BASE_LOG_NOTICE, "vm.link", "vm=%s nic=%u up=%d",
			 job->worker->config->name, (unsigned int)job->request.args[0].number,
			 job->request.args[1].flag);
}

const struct vm_job vm_job_link = { .run = run_link, .done = done_link };
