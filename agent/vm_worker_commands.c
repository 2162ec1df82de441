/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of commands.  A new command is a row and a handler; what may block is a
 * job (vm_worker_jobs.c).
 */
#include <errno.h>
#include <string.h>

#include "agent/vm_worker_priv.h"
#include "hypervisor/storvsp/storvsp.h"

/* Pass a command on to the job thread; the job's end answers it. */
static int as_job(struct vm_worker *worker, const struct vm_job *kind, const struct vm_call *call,
		  const struct vm_request *request, struct base_error *err)
{
	int code = vm_worker_job(worker, kind, call, request, err);

	return code < 0 ? code : VM_CALL_LATER;
}

#define HANDLER(name)                                                                              \
	static int name(void *context, const struct vm_call *call,                                 \
			const struct vm_request *request, json_t **ret_result,                     \
			struct base_error *err)

HANDLER(handle_pause)
{
	(void)ret_result;
	return as_job(context, &vm_job_pause, call, request, err);
}

HANDLER(handle_resume)
{
	(void)ret_result;
	return as_job(context, &vm_job_resume, call, request, err);
}

HANDLER(handle_power_button)
{
	(void)ret_result;
	return as_job(context, &vm_job_power_button, call, request, err);
}

/* What may not change while the machine is being moved. */
static int as_job_at_home(struct vm_worker *worker, const struct vm_job *kind,
			  const struct vm_call *call, const struct vm_request *request,
			  struct base_error *err)
{
	int code = vm_worker_refuse_moving(worker, vm_worker_commands[request->command].spec.name,
					   err);

	return code < 0 ? code : as_job(worker, kind, call, request, err);
}

/* Nor while a disk is. */
static int as_job_at_rest(struct vm_worker *worker, const struct vm_job *kind,
			  const struct vm_call *call, const struct vm_request *request,
			  struct base_error *err)
{
	int code = vm_worker_refuse_disk_move(worker,
					      vm_worker_commands[request->command].spec.name, err);

	return code < 0 ? code : as_job_at_home(worker, kind, call, request, err);
}

HANDLER(handle_reset)
{
	(void)ret_result;
	return as_job_at_home(context, &vm_job_reset, call, request, err);
}

HANDLER(handle_status)
{
	(void)call;
	(void)request;
	(void)err;
	*ret_result = vm_worker_status_json(context);
	return 0;
}

/* A frozen machine is perhaps another worker's already: its state is not ours to write. */
static int check_leash(struct vm_worker *worker, struct base_error *err)
{
	const struct base_leash *leash = atomic_load(&worker->leash);

	if (base_leash_state(leash) == BASE_LEASH_STALE)
		return base_fail(err, -ESTALE,
				 "command 'save': a higher epoch exists: expected "
				 "the machine to be ours");
	if (!base_leash_may_submit(leash))
		return base_fail(err, -EAGAIN,
				 "command 'save': the leash has frozen the machine: expected a "
				 "leash that is held");
	return 0;
}

HANDLER(handle_save)
{
	struct vm_worker *worker = context;
	const char *file = request->args[0].text;
	int code = 0;

	(void)ret_result;
	if (worker->state_dir_fd < 0)
		return base_fail(err, -EPROTO,
				 "command 'save': expected a worker with the key 'state-dir'");
	if (strchr(file, '/') != NULL || file[0] == '.')
		return base_fail(err, -EINVAL,
				 "command 'save': argument 'file': expected a plain name, without "
				 "'/' and not beginning with '.'");
	code = check_leash(worker, err);
	if (code == 0)
		code = as_job_at_rest(worker, &vm_job_save, call, request, err);
	if (code == VM_CALL_LATER)
		worker->saving = true;
	return code;
}

HANDLER(handle_stop)
{
	(void)call;
	(void)request;
	(void)ret_result;
	(void)err;
	vm_worker_end(context, VM_EXIT_DONE, "stop");
	return 0;
}

int vm_worker_quit(struct vm_worker *worker, struct base_error *err)
{
	struct hv_machine_status status;
	uint64_t now_ns = base_clock_boot_ns(&base_clock_system);
	int code = 0;

	hv_machine_status(worker->machine, &status);
	/* A guest that stands still hears no button. */
	if (worker->config->quit_timeout_s == 0 || status.holds != 0) {
		vm_worker_end(worker, VM_EXIT_DONE, "quit");
		return 0;
	}
	code = vm_worker_job(worker, &vm_job_power_button, NULL, NULL, err);
	if (code < 0)
		return code;
	base_loop_timer_arm(worker->quit_timer,
			    now_ns + worker->config->quit_timeout_s * BASE_NS_PER_SECOND);
	return 0;
}

HANDLER(handle_quit)
{
	struct vm_worker *worker = context;

	(void)call;
	(void)request;
	(void)ret_result;
	if (worker->loading) { /* no guest to ask yet */
		vm_worker_end(worker, VM_EXIT_DONE, "quit");
		return 0;
	}
	if (worker->saving) {
		worker->quit_waits = true; /* carried out after the save, like stop */
		return 0;
	}
	return vm_worker_quit(worker, err);
}

HANDLER(handle_subscribe)
{
	struct vm_worker *worker = context;

	(void)request;
	(void)ret_result;
	(void)err;
	vm_control_subscribe(worker->control, call);
	return 0;
}

HANDLER(handle_console_in)
{
	struct vm_worker *worker = context;
	const char *text = request->args[0].text;
	size_t taken = 0;

	(void)call;
	(void)err;
	if (!worker->loading) /* a restore would undo it */
		taken = hv_machine_console_in(worker->machine, (const uint8_t *)text, strlen(text));
	*ret_result = json_pack("{s:I}", "taken", (json_int_t)taken);
	return 0;
}

HANDLER(handle_guest)
{
	(void)ret_result;
	return as_job(context, &vm_job_guest, call, request, err);
}

HANDLER(handle_shutdown)
{
	(void)ret_result;
	return as_job(context, &vm_job_shutdown, call, request, err);
}

HANDLER(handle_time_sync)
{
	(void)ret_result;
	return as_job(context, &vm_job_time_sync, call, request, err);
}

HANDLER(handle_checkpoint)
{
	int code = vm_worker_refuse_moving(context, "checkpoint", err);

	(void)ret_result;
	if (code == 0)
		code = vm_worker_refuse_disk_move(context, "checkpoint", err);
	return code < 0 ? code : vm_worker_checkpoint(context, call, request, err);
}

HANDLER(handle_migrate)
{
	(void)ret_result;
	return vm_worker_migrate(context, call, request, err);
}

HANDLER(handle_migrate_cancel)
{
	(void)call;
	(void)request;
	(void)ret_result;
	return vm_worker_migrate_cancel(context, err);
}

HANDLER(handle_migrate_post)
{
	(void)call;
	(void)request;
	(void)ret_result;
	return vm_worker_migrate_post(context, err);
}

HANDLER(handle_migrate_status)
{
	(void)call;
	(void)request;
	(void)err;
	*ret_result = vm_worker_migrate_status(context);
	return 0;
}

HANDLER(handle_migrate_timeline)
{
	return vm_worker_timeline(context, call, request->args[0].flag, ret_result, err);
}

HANDLER(handle_devices)
{
	(void)ret_result;
	return as_job(context, &vm_job_devices, call, request, err);
}

HANDLER(handle_dump)
{
	(void)ret_result;
	return as_job(context, &vm_job_dump, call, request, err);
}

HANDLER(handle_disk_add)
{
	const char *text = request->args[0].text;
	struct vm_job job = vm_job_disk_add;
	int code = vm_config_disk("command 'disk-add'", text, strlen(text), &job.disk, err);

	(void)ret_result;
	return code < 0 ? code : as_job_at_rest(context, &job, call, request, err);
}

/* Where a disk is: arguments lun and controller come first. */
static int check_lun(const struct vm_request *request, struct base_error *err)
{
	if (request->args[0].number >= STORVSP_LUNS)
		return base_fail(err, -EINVAL, "argument 'lun': expected 0 to %u",
				 STORVSP_LUNS - 1);
	if (request->args[1].number >= VM_CONTROLLERS)
		return base_fail(err, -EINVAL, "argument 'controller': expected 0 to %u",
				 VM_CONTROLLERS - 1);
	return 0;
}

HANDLER(handle_disk_remove)
{
	int code = check_lun(request, err);

	(void)ret_result;
	return code < 0 ? code : as_job_at_rest(context, &vm_job_disk_remove, call, request, err);
}

HANDLER(handle_medium)
{
	int code = check_lun(request, err);

	(void)ret_result;
	return code < 0 ? code : as_job_at_rest(context, &vm_job_medium, call, request, err);
}

HANDLER(handle_disk_resize)
{
	int code = check_lun(request, err);

	(void)ret_result;
	return code < 0 ? code : as_job_at_rest(context, &vm_job_disk_resize, call, request, err);
}

HANDLER(handle_disk_move)
{
	int code = check_lun(request, err);

	(void)ret_result;
	return code < 0 ? code : vm_worker_disk_move(context, call, request, err);
}

HANDLER(handle_disk_move_cancel)
{
	(void)call;
	(void)request;
	(void)ret_result;
	return vm_worker_disk_move_cancel(context, err);
}

HANDLER(handle_disk_move_status)
{
	(void)call;
	(void)request;
	(void)err;
	*ret_result = vm_worker_disk_move_status(context);
	return 0;
}

HANDLER(handle_link)
{
	(void)ret_result;
	if (request->args[0].number >= VM_NICS_MAX)
		return base_fail(err, -EINVAL, "argument 'nic': expected 0 to %u", VM_NICS_MAX - 1);
	return as_job(context, &vm_job_link, call, request, err);
}

static int check_register(const struct vm_worker *worker, const struct vm_request *request,
			  struct base_error *err)
{
	if (worker->config->test_page != VM_SWITCH_ON)
		return base_fail(err, -ENOTSUP, "test page: expected the key 'test-page' to be on");
	if (request->args[0].number > UINT32_MAX)
		return base_fail(err, -EINVAL, "argument 'reg': expected at most 4294967295");
	return 0;
}

HANDLER(handle_test_get)
{
	int code = check_register(context, request, err);

	(void)ret_result;
	return code < 0 ? code : as_job(context, &vm_job_test_get, call, request, err);
}

HANDLER(handle_test_set)
{
	int code = check_register(context, request, err);

	(void)ret_result;
	return code < 0 ? code : as_job(context, &vm_job_test_set, call, request, err);
}

#define NO_ARGS                                                                                    \
	{                                                                                          \
		{                                                                                  \
			NULL, VM_ARG_INVALID, false                                                \
		}                                                                                  \
	}

#define LUN_ARGS                                                                                   \
	{ "lun", VM_ARG_NUMBER, true },                                                            \
	{                                                                                          \
		"controller", VM_ARG_NUMBER, false                                                 \
	}

const struct vm_command vm_worker_commands[] = {
	{ .spec = { "status", NO_ARGS }, .handle = handle_status },
	{ .spec = { "pause", NO_ARGS }, .handle = handle_pause },
	{ .spec = { "resume", NO_ARGS }, .handle = handle_resume },
	{ .spec = { "save", { { "file", VM_ARG_TEXT, true }, { "go_on", VM_ARG_SWITCH, false } } },
	  .handle = handle_save },
	{ .spec = { "power-button", NO_ARGS }, .handle = handle_power_button },
	{ .spec = { "reset", NO_ARGS }, .handle = handle_reset },
	{ .spec = { "stop", NO_ARGS }, .handle = handle_stop },
	{ .spec = { "quit", NO_ARGS }, .handle = handle_quit },
	{ .spec = { "subscribe", NO_ARGS }, .handle = handle_subscribe },
	{ .spec = { "console-in", { { "text", VM_ARG_BYTES, true } } },
	  .handle = handle_console_in },
	{ .spec = { "guest", NO_ARGS }, .handle = handle_guest },
	{ .spec = { "shutdown",
		    { { "restart", VM_ARG_SWITCH, false }, { "force", VM_ARG_SWITCH, false } } },
	  .handle = handle_shutdown },
	{ .spec = { "time-sync", NO_ARGS }, .handle = handle_time_sync },
	{ .spec = { "checkpoint", { { "name", VM_ARG_TEXT, false } } },
	  .handle = handle_checkpoint },
	{ .spec = { "migrate",
		    { { "to", VM_ARG_TEXT, true },
		      { "channels", VM_ARG_NUMBER, false },
		      { "downtime_ms", VM_ARG_NUMBER, false },
		      { "time_limit_ms", VM_ARG_NUMBER, false },
		      { "late", VM_ARG_TEXT, false },
		      { "disks", VM_ARG_TEXT, false },
		      { "compress", VM_ARG_TEXT, false },
		      { "bandwidth", VM_ARG_NUMBER, false },
		      { "mode", VM_ARG_TEXT, false },
		      { "verify", VM_ARG_SWITCH, false },
		      { "keep", VM_ARG_SWITCH, false },
		      { "resume_ms", VM_ARG_NUMBER, false },
		      { "dry_run_ms", VM_ARG_NUMBER, false },
		      { "peer", VM_ARG_TEXT, false },
		      { "clear", VM_ARG_SWITCH, false },
		      { "spread", VM_ARG_SWITCH, false },
		      { "heartbeat", VM_ARG_TEXT, false },
		      { "throttle", VM_ARG_NUMBER, false } } },
	  .handle = handle_migrate },
	{ .spec = { "migrate-cancel", NO_ARGS }, .handle = handle_migrate_cancel },
	{ .spec = { "migrate-postcopy", NO_ARGS }, .handle = handle_migrate_post },
	{ .spec = { "migrate-status", NO_ARGS }, .handle = handle_migrate_status },
	{ .spec = { "migrate-timeline", { { "wait", VM_ARG_SWITCH, false } } },
	  .handle = handle_migrate_timeline },
	{ .spec = { "devices", NO_ARGS }, .handle = handle_devices },
	{ .spec = { "dump", NO_ARGS }, .handle = handle_dump },
	{ .spec = { "disk-add", { { "disk", VM_ARG_TEXT, true } } }, .handle = handle_disk_add },
	{ .spec = { "disk-remove", { LUN_ARGS } }, .handle = handle_disk_remove },
	{ .spec = { "medium", { LUN_ARGS, { "path", VM_ARG_TEXT, false } } },
	  .handle = handle_medium },
	{ .spec = { "disk-resize", { LUN_ARGS, { "size", VM_ARG_NUMBER, true } } },
	  .handle = handle_disk_resize },
	{ .spec = { "disk-move",
		    { LUN_ARGS,
		      { "to", VM_ARG_TEXT, true },
		      { "keep", VM_ARG_SWITCH, false },
		      { "bandwidth", VM_ARG_NUMBER, false } } },
	  .handle = handle_disk_move },
	{ .spec = { "disk-move-cancel", NO_ARGS }, .handle = handle_disk_move_cancel },
	{ .spec = { "disk-move-status", NO_ARGS }, .handle = handle_disk_move_status },
	{ .spec = { "link", { { "nic", VM_ARG_NUMBER, true }, { "up", VM_ARG_SWITCH, true } } },
	  .handle = handle_link },
	{ .spec = { "test-get", { { "reg", VM_ARG_NUMBER, true } } }, .handle = handle_test_get },
	{ .spec = { "test-set",
		    { { "reg", VM_ARG_NUMBER, true }, { "value", VM_ARG_NUMBER, true } } },
	  .handle = handle_test_set },
};

const size_t vm_worker_command_count = sizeof(vm_worker_commands) / sizeof(vm_worker_commands[0]);
