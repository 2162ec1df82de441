/* SPDX-License-Identifier: Apache-2.0 */
/* The answer to the command status. */
#include <unistd.h>

#include "agent/vm_worker_priv.h"

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *deadline(uint64_t value_ns)
{
	return value_ns == BASE_TIME_NEVER ? json_null() : number(value_ns);
}

static json_t *holds_json(uint32_t holds)
{
	static const struct {
		enum hv_hold hold;
		const char *name;
	} names[] = {
		{ HV_HOLD_USER, "user" },       { HV_HOLD_SAVE, "save" },
		{ HV_HOLD_LEASH, "leash" },     { HV_HOLD_RESET, "reset" },
		{ HV_HOLD_MIGRATE, "migrate" }, { HV_HOLD_STOPPED, "stopped" },
	};
	json_t *list = json_array();

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if ((holds & (uint32_t)names[i].hold) != 0)
			(void)json_array_append_new(list, json_string(names[i].name));
	return list;
}

/* One word for several holds: the one that lasts longest. */
static const char *state_name(const struct vm_worker *worker, uint32_t holds)
{
	if (worker->loading && worker->config->incoming[0] != '\0')
		return "arriving";
	if (worker->loading)
		return worker->config->restore[0] != '\0' ? "restoring" : "starting";
	if ((holds & HV_HOLD_STOPPED) != 0)
		return "stopped";
	if ((holds & HV_HOLD_SAVE) != 0 || worker->saving)
		return "saving";
	if ((holds & HV_HOLD_LEASH) != 0)
		return "frozen";
	if ((holds & HV_HOLD_RESET) != 0)
		return "resetting";
	if ((holds & HV_HOLD_MIGRATE) != 0)
		return "moving";
	return holds != 0 ? "paused" : "running";
}

static const char *leash_state_name(enum base_leash_state state)
{
	static const char *const names[BASE_LEASH_STATES] = {
		[BASE_LEASH_INVALID] = "invalid",
		[BASE_LEASH_HELD] = "held",
		[BASE_LEASH_FROZEN] = "frozen",
		[BASE_LEASH_STALE] = "stale",
	};

	return names[state];
}

static json_t *leash_json(struct vm_worker *worker)
{
	const struct base_leash *leash = atomic_load(&worker->leash);
	struct base_leash_terms terms;

	base_leash_terms(leash, &terms);
	return json_pack("{s:b, s:s, s:o, s:o, s:o}", "bound", worker->config->leash_page_fd >= 0,
			 "state", leash_state_name(base_leash_state(leash)), "epoch",
			 number(worker->epoch), "soft_deadline_ns", deadline(terms.soft_ns),
			 "hard_deadline_ns", deadline(terms.hard_ns));
}

static json_t *console_json(struct vm_worker *worker)
{
	struct vm_console_status status;

	vm_console_status(worker->console, &status);
	return json_pack("{s:s, s:o, s:o, s:b}", "kind", vm_console_kind_name(status.kind),
			 "output_bytes", number(status.output_bytes), "dropped_bytes",
			 number(status.dropped_bytes), "connected", (int)status.connected);
}

static json_t *sandbox_json(const struct vm_sandbox_facts *facts)
{
	return json_pack("{s:b, s:b, s:b, s:i, s:b}", "no_new_privileges",
			 (int)facts->no_new_privileges, "capabilities_dropped",
			 (int)facts->capabilities_dropped, "chroot", (int)facts->chroot,
			 "landlock_abi", facts->landlock_abi, "seccomp", (int)facts->seccomp);
}

json_t *vm_worker_status_json(struct vm_worker *worker)
{
	struct hv_machine_status status;
	json_t *object = NULL;

	if (worker->loading) /* its parts belong to the job thread */
		status = worker->loading_status;
	else
		hv_machine_status(worker->machine, &status);
	object = json_pack("{s:s, s:i, s:s, s:o, s:i, s:o, s:s}", "name", worker->config->name,
			   "pid", (int)getpid(), "state", state_name(worker, status.holds), "holds",
			   holds_json(status.holds), "vcpus", (int)status.vcpu_count,
			   "memory_bytes", number(status.memory_bytes), "backing",
			   hv_memory_backing_name(status.backing));
	if (object == NULL)
		return NULL;
	(void)json_object_set_new(object, "cpu",
				  json_pack("{s:s, s:b, s:s}", "model",
					    hv_cpu_model_name(status.cpu), "honoured",
					    (int)status.cpu_honoured, "text", status.cpu_text));
	(void)json_object_set_new(object, "tsc",
				  json_pack("{s:b, s:o}", "offset_honoured",
					    (int)status.tsc_offset_honoured, "khz",
					    number(status.tsc_khz)));
	(void)json_object_set_new(object, "exits", number(status.exits.total));
	(void)json_object_set_new(object, "resets", number(status.reset_count));
	(void)json_object_set_new(object, "pause_ns", number(status.pause_ns));
	(void)json_object_set_new(object, "guest_ns", number(status.guest_ns));
	(void)json_object_set_new(object, "console", console_json(worker));
	(void)json_object_set_new(object, "leash", leash_json(worker));
	(void)json_object_set_new(object, "sandbox", sandbox_json(&worker->sandbox));
	(void)json_object_set_new(object, "version", json_string(GODWIT_VERSION));
	return object;
}
