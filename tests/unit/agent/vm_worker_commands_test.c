/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that would change what moves are refused in one line while it does, and the other way
 * round; the rest is not.  No machine: a refusal comes before anything of it is touched. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "agent/vm_worker_priv.h"

static struct vm_config config = { .name = "web1", .migrate = VM_SWITCH_ON };
static struct vm_worker worker;
static struct base_error err;

static void changed(void *context, enum base_leash_state state)
{
	(void)context;
	(void)state;
}

static void setup(void)
{
	struct base_leash *leash = NULL;

	memset(&worker, 0, sizeof(worker));
	worker.config = &config;
	worker.records = (struct mig_records *)&worker; /* there are some: it is only looked at */
	worker.state_dir_fd = 0;
	cr_assert_eq(base_leash_new(-1, -1, 0, changed, NULL, &leash, &err), 0, "%s", err.text);
	atomic_store(&worker.leash, leash);
}

static void teardown(void)
{
	base_leash_free(worker.leash);
}

TestSuite(vm_worker_commands, .init = setup, .fini = teardown);

static size_t index_of(const char *name)
{
	for (size_t i = 0; i < vm_worker_command_count; i++)
		if (strcmp(vm_worker_commands[i].spec.name, name) == 0)
			return i;
	cr_assert_fail("no command '%s'", name);
	return 0;
}

/* With arguments that it would take. */
static int give(const char *name)
{
	static const char *const texts[][2] = { { "file", "state" },
						{ "disk", "/srv/b.vhdx" },
						{ "to", "/srv/new" } };
	size_t command = index_of(name);
	const struct vm_arg_spec *specs = vm_worker_commands[command].spec.args;
	struct vm_request request = { .command = command };
	const struct vm_call call = { .id = 1 };
	json_t *result = NULL;

	for (size_t i = 0; i < VM_CONTROL_ARGS_MAX && specs[i].name != NULL; i++) {
		request.args[i].given = specs[i].required;
		for (size_t t = 0; t < sizeof(texts) / sizeof(texts[0]); t++)
			if (strcmp(specs[i].name, texts[t][0]) == 0)
				(void)snprintf(request.args[i].text, sizeof(request.args[i].text),
					       "%s", texts[t][1]);
	}
	err = (struct base_error){ 0 };
	return vm_worker_commands[command].handle(&worker, &call, &request, &result, &err);
}

static void refuse(const char *name, const char *why)
{
	cr_assert_eq(give(name), -EAGAIN, "'%s': %s", name, err.text);
	cr_assert(strstr(err.text, why) != NULL, "'%s': %s", name, err.text);
	cr_assert(strstr(err.text, name) != NULL, "'%s': %s", name, err.text);
	cr_assert(strchr(err.text, '\n') == NULL);
}

Test(vm_worker_commands, what_would_change_a_machine_that_moves_is_refused)
{
	static const char *const names[] = { "reset",       "save",        "checkpoint",
					     "disk-add",    "disk-remove", "medium",
					     "disk-resize", "disk-move",   "migrate" };

	worker.move = (struct vm_move *)&worker; /* there is one: it is only looked at */
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		refuse(names[i], "the machine is being moved: expected it when that is over");
}

Test(vm_worker_commands, what_would_change_a_disk_that_moves_is_refused)
{
	static const char *const names[] = { "save",   "checkpoint",  "disk-add",  "disk-remove",
					     "medium", "disk-resize", "disk-move", "migrate" };

	worker.disk_moving.under_way = true;
	worker.disk_moving.controller = 1;
	worker.disk_moving.lun = 3;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		refuse(names[i], "disk 1:3 is being moved: expected it when that is over");
	cr_assert_eq(give("disk-move-cancel"), 0);
	cr_assert(atomic_load(&worker.disk_moving.view.cancel));
}

Test(vm_worker_commands, no_disk_moves_while_the_machine_is_saved)
{
	worker.saving = true;
	refuse("disk-move", "being saved");
	cr_assert_eq(give("migrate"), -EAGAIN);
	worker.saving = false;
	worker.checkpoint.under_way = true;
	refuse("disk-move", "being saved");
	worker.checkpoint.under_way = false;
	worker.loading = true;
	cr_assert_eq(give("disk-move"), -EAGAIN);
	cr_assert(strstr(err.text, "being loaded") != NULL, "%s", err.text);
	cr_assert(!worker.disk_moving.under_way);
}

static int move_disk(uint64_t lun, const char *to, uint64_t bandwidth)
{
	struct vm_request request = { .command = index_of("disk-move") };
	const struct vm_call call = { .id = 1 };
	json_t *result = NULL;

	request.args[0].number = lun;
	(void)snprintf(request.args[2].text, sizeof(request.args[2].text), "%s", to);
	request.args[4].given = bandwidth > 0;
	request.args[4].number = bandwidth;
	return vm_worker_commands[request.command].handle(&worker, &call, &request, &result, &err);
}

Test(vm_worker_commands, what_no_disk_moves_by)
{
	cr_assert_eq(move_disk(64, "/srv/new", 0), -EINVAL);
	cr_assert_eq(move_disk(0, "srv/new", 0), -EINVAL);
	cr_assert(strstr(err.text, "argument 'to': value 'srv/new'") != NULL, "%s", err.text);
	cr_assert_eq(move_disk(0, "/srv/new", 1000), -EINVAL);
	cr_assert(strstr(err.text, "argument 'bandwidth': expected 1048576") != NULL, "%s",
		  err.text);
	cr_assert_eq(give("disk-move-cancel"), -EPROTO);
	worker.ending = true;
	cr_assert_eq(move_disk(0, "/srv/new", 0), -EPROTO);
	cr_assert(!worker.disk_moving.under_way);
}

static int migrate(const char *mode, const char *also)
{
	struct vm_request request = { .command = index_of("migrate") };
	const struct vm_arg_spec *specs = vm_worker_commands[request.command].spec.args;
	const struct vm_call call = { .id = 1 };
	json_t *result = NULL;

	for (size_t i = 0; i < VM_CONTROL_ARGS_MAX && specs[i].name != NULL; i++) {
		struct vm_arg *arg = &request.args[i];

		arg->given = strcmp(specs[i].name, "mode") == 0 || strcmp(specs[i].name, also) == 0;
		arg->number = 1000;
		(void)snprintf(arg->text, sizeof(arg->text), "%s",
			       i == 0                               ? "192.0.2.1:7011"
			       : strcmp(specs[i].name, "late") == 0 ? "cancel"
								    : mode);
	}
	err = (struct base_error){ 0 };
	return vm_worker_commands[request.command].handle(&worker, &call, &request, &result, &err);
}

Test(vm_worker_commands, what_no_machine_moves_by)
{
	static const char *const live_only[] = { "downtime_ms", "time_limit_ms", "late" };

	cr_assert_eq(migrate("warm", ""), -EINVAL);
	cr_assert(strstr(err.text, "argument 'mode': expected live or quick") != NULL, "%s",
		  err.text);
	for (size_t i = 0; i < sizeof(live_only) / sizeof(live_only[0]); i++) {
		cr_assert_eq(migrate("quick", live_only[i]), -EINVAL);
		cr_assert(strstr(err.text, live_only[i]) != NULL, "%s", err.text);
		cr_assert(strstr(err.text, "expected none with mode=quick") != NULL, "%s",
			  err.text);
	}
	cr_assert_null(worker.move);
}
