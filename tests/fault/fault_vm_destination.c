/* SPDX-License-Identifier: Apache-2.0 */
/* What a destination's session wants done, as agent/vm_migrate_destination.c does it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/fault/fault_step.h"
#include "tests/fault/fault_vm_priv.h"

static int read_id(const char *config, uint8_t id[MIG_ID_BYTES], struct base_error *err)
{
	unsigned int byte = 0;

	for (size_t i = 0; i < MIG_ID_BYTES; i++) {
		if (sscanf(config + i * 2, "%2x", &byte) != 1) /* NOLINT: two digits */
			return base_fail(err, -EBADMSG, "plan: no id");
		id[i] = (uint8_t)byte;
	}
	return 0;
}

static int prepare(void *context, const struct mig_plan *plan, struct mig_findings *findings,
		   uint8_t **ret_memory, struct base_error *err)
{
	struct fault_vm *vm = context;
	const struct vm_migrate_in_options options = {
		.store = vm->store, .folder = "", .loop = vm->loop, .plan = plan
	};
	struct base_error why = { 0 };
	int code = read_id(plan->config, vm->id, err);

	fault_step("prepare");
	if (code == 0)
		code = mig_keep_init(&vm->keep, vm->records, FAULT_NAME, vm->peer, vm->id, err);
	if (code < 0)
		return code;
	if (mig_register_may_begin(&vm->keep, plan->epoch, &why) < 0)
		mig_findings_add(findings, "records: %s", why.text);
	if (plan->objects[0].object.unit_count != FAULT_PAGES)
		mig_findings_add(findings, "memory: another size");
	if (findings->count > 0)
		return 0;
	vm->epoch = plan->epoch;
	vm->has_keep = true;
	code = mig_register_coming(&vm->keep, vm->epoch, err);
	fault_step("coming");
	if (code == 0)
		code = vm_migrate_in_new(&options, findings, &vm->images_in, err);
	fault_step("prepared");
	if (code < 0 || findings->count > 0)
		return code;
	*ret_memory = vm->guest.memory;
	return 0;
}

static int check(void *context, const uint8_t *state, size_t state_bytes, struct base_error *err)
{
	struct fault_vm *vm = context;
	int code = 0;

	(void)state;
	fault_step("check");
	if (state_bytes == 0)
		return base_fail(err, -EBADMSG, "no device state");
	code = vm_migrate_in_finish(vm->images_in, err);
	fault_step("images-named");
	if (code == 0)
		code = fault_vm_open(vm, err);
	if (code == 0)
		code = mig_register_begin(&vm->keep, vm->epoch, err);
	fault_step("checked");
	return code;
}

static int activate(struct fault_vm *vm, uint64_t epoch, struct base_error *err)
{
	int code = 0;

	fault_step("activating");
	code = fault_vm_activate(vm, epoch, err);
	fault_step("active");
	if (code < 0)
		(void)!fault_vm_deactivate(vm, NULL);
	return code;
}

static int run(void *context, uint64_t epoch, struct base_error *err)
{
	struct fault_vm *vm = context;
	int code = 0;

	fault_step("activate");
	code = mig_register_activate(&vm->keep, epoch, err);
	if (code < 0)
		return code;
	code = activate(vm, epoch, err);
	if (code < 0) {
		(void)!mig_register_untouched(&vm->keep, NULL);
		return code;
	}
	vm_migrate_in_keep(vm->images_in);
	vm->epoch = epoch;
	fault_guest_run(&vm->guest);
	fault_step("runs");
	(void)!mig_register_runs(&vm->keep, NULL);
	fault_step("ran");
	return 0;
}

static void release(void *context)
{
	struct fault_vm *vm = context;

	fault_step("leave");
	disk_close(base_take(&vm->disk));
	vm_migrate_in_free(base_take(&vm->images_in));
	if (vm->has_keep)
		(void)!mig_register_leave(&vm->keep, NULL);
	fault_step("left");
}

static int image_write(void *context, uint16_t object, uint64_t sector, const uint8_t *bytes,
		       uint32_t count, struct base_error *err)
{
	struct fault_vm *vm = context;

	fault_step("image-write");
	return vm_migrate_in_ops.write(vm->images_in, object, sector, bytes, count, err);
}

static int image_clear(void *context, uint16_t object, uint64_t sector, uint32_t count, bool unmap,
		       struct base_error *err)
{
	struct fault_vm *vm = context;

	return vm_migrate_in_ops.clear(vm->images_in, object, sector, count, unmap, err);
}

const struct mig_destination_vm fault_destination = {
	.prepare = prepare,
	.disk = { .write = image_write, .clear = image_clear },
	.check = check,
	.run = run,
	.release = release,
};

/* --- the register --- */

static bool lost(atomic_int *count)
{
	int now = atomic_load(count);

	while (now > 0 && !atomic_compare_exchange_weak(count, &now, now - 1))
		continue;
	return now > 0;
}

static int ask(void *context, uint64_t epoch, enum mig_side owner,
	       struct mig_register *ret_register, struct base_error *err)
{
	struct fault_vm *vm = context;
	struct mig_register answer = { 0 };
	int code = 0;

	fault_step("ask");
	if (!vm->has_keep)
		return base_fail(err, -ENOENT, "no migration has come this far");
	if (lost(&vm->lose_before))
		return base_fail(err, -ETIMEDOUT, "no answer");
	code = mig_register_ask(&vm->keep, epoch, owner, &answer, err);
	fault_step("asked");
	if (lost(&vm->lose_after))
		return base_fail(err, -ETIMEDOUT, "no answer");
	if (code == 0)
		*ret_register = answer;
	return code;
}

static int read_register(void *context, struct mig_register *ret_register, struct base_error *err)
{
	struct fault_vm *vm = context;

	if (!vm->has_keep)
		return base_fail(err, -ENOENT, "no migration has come this far");
	if (lost(&vm->lose_before) || lost(&vm->lose_after))
		return base_fail(err, -ETIMEDOUT, "no answer");
	return mig_register_read(&vm->keep, ret_register, err);
}

struct mig_arbiter fault_vm_arbiter(struct fault_vm *vm)
{
	return (struct mig_arbiter){ .ask = ask, .read = read_register, .context = vm };
}
