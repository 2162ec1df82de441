/* SPDX-License-Identifier: Apache-2.0 */
/* What a source's session wants done, as agent/vm_migrate_source.c does it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tests/fault/fault_step.h"
#include "tests/fault/fault_vm_priv.h"

#define STATE "the device state of a machine that is not one"

static int plan(void *context, struct mig_plan *ret_plan, struct base_error *err)
{
	struct fault_vm *vm = context;
	const struct vm_migrate_from from = { .store = vm->store, .disk = vm->disk };
	BASE_CLEANUP(mig_plan_fini) struct mig_plan made = { .object_count = 1 };
	int code = 0;

	fault_step("plan");
	made.config = malloc(2 * MIG_ID_BYTES + 1);
	made.objects = calloc(1, sizeof(*made.objects));
	if (made.config == NULL || made.objects == NULL)
		return base_fail(err, -ENOMEM, "plan");
	made.objects[0].description = calloc(1, 1);
	if (made.objects[0].description == NULL)
		return base_fail(err, -ENOMEM, "plan");
	made.objects[0].object.unit_count = FAULT_PAGES;
	for (uint32_t i = 0; i < MIG_ID_BYTES; i++)
		(void)snprintf(made.config + (size_t)i * 2, 3, "%02x", vm->id[i]);
	code = vm_migrate_out_new(&from, 1, &made, &vm->images_out, err);
	if (code < 0)
		return code;
	*ret_plan = made;
	made = (struct mig_plan){ .config = NULL };
	return 0;
}

static const uint8_t *memory(void *context)
{
	return ((struct fault_vm *)context)->guest.memory;
}

static int track(void *context, bool on, struct base_error *err)
{
	struct fault_guest *guest = &((struct fault_vm *)context)->guest;

	(void)err;
	if (on)
		fault_step("track");
	for (uint64_t page = 0; on && page < FAULT_PAGES; page++)
		atomic_fetch_or(&guest->log[page / 64], 1ULL << page % 64);
	guest->tracks = on;
	return 0;
}

static int dirty_get(void *context, uint64_t *into, struct base_error *err)
{
	struct fault_guest *guest = &((struct fault_vm *)context)->guest;

	fault_step("dirty-get");
	if (!guest->tracks)
		return base_fail(err, -EPROTO, "a log that is not kept");
	for (uint32_t i = 0; i < FAULT_WORDS; i++)
		into[i] = atomic_load(&guest->log[i]);
	return 0;
}

static int dirty_clear(void *context, uint64_t first_page, uint64_t page_count,
		       const uint64_t *bits, struct base_error *err)
{
	struct fault_guest *guest = &((struct fault_vm *)context)->guest;

	(void)err;
	fault_step("dirty-clear");
	for (uint64_t i = 0; i < (page_count + 63) / 64; i++)
		atomic_fetch_and(&guest->log[first_page / 64 + i], ~bits[i]);
	return 0;
}

static int touched(void *context, uint64_t *into, struct base_error *err)
{
	const struct fault_guest *guest = &((struct fault_vm *)context)->guest;

	(void)err;
	memset(into, 0, FAULT_WORDS * sizeof(*into));
	for (uint64_t page = 0; page < FAULT_PAGES; page++)
		if (page % 5 != 0 || atomic_load(&guest->witness->pages[page]) != 0)
			into[page / 64] |= 1ULL << page % 64;
	return 0;
}

static int hold(void *context, struct base_error *err)
{
	struct fault_vm *vm = context;

	(void)err;
	fault_step("hold");
	fault_guest_hold(&vm->guest);
	fault_step("held");
	return 0;
}

static int state(void *context, struct base_buffer *out, struct base_error *err)
{
	(void)context;
	(void)err;
	fault_step("state");
	base_buffer_append(out, STATE, sizeof(STATE));
	return 0;
}

static int let_go(void *context, struct base_error *err)
{
	struct fault_vm *vm = context;
	int code = 0;

	fault_step("let-go");
	vm->given = true;
	vm_migrate_out_stop(vm->images_out);
	code = fault_vm_deactivate(vm, err);
	fault_step("let-gone");
	return code;
}

static int run(void *context, uint64_t epoch, struct base_error *err)
{
	struct fault_vm *vm = context;
	int code = 0;

	fault_step("take-back");
	if (vm->given && disk_epoch(vm->disk) == STORE_EPOCH_NONE)
		code = fault_vm_activate(vm, epoch, err);
	if (code < 0)
		return code;
	vm->given = false;
	vm->epoch = epoch;
	if (!vm->guest.runs)
		fault_guest_run(&vm->guest);
	return 0;
}

static void serve(void *context)
{
	struct fault_vm *vm = context;

	fault_step("serve");
	vm->released = true;
	(void)!mig_promise_end(&vm->keep, true, vm->epoch, NULL);
	fault_step("served");
}

static void release(void *context)
{
	struct fault_vm *vm = context;

	fault_step("give-up");
	fault_guest_hold(&vm->guest);
	vm->released = true;
}

static int promise(void *context, bool on, uint64_t epoch, struct base_error *err)
{
	struct fault_vm *vm = context;
	int code = 0;

	if (!on) {
		fault_step("promise-end");
		return mig_promise_end(&vm->keep, vm->released, epoch, err);
	}
	fault_step("promise");
	code = mig_promise_make(&vm->keep, epoch, err);
	fault_step("promised");
	return code;
}

static int resolved(void *context, struct mig_register *ret_register)
{
	struct fault_vm *vm = context;

	return mig_promise_answer(&vm->keep, ret_register, NULL) == 1;
}

static int image_harvest(void *context, uint16_t object, bool first, uint64_t *into,
			 struct base_error *err)
{
	struct fault_vm *vm = context;

	fault_step("image-harvest");
	return vm_migrate_out_ops.harvest(vm->images_out, object, first, into, err);
}

static int image_map(void *context, uint16_t object, struct mig_map *map, struct base_error *err)
{
	struct fault_vm *vm = context;

	return vm_migrate_out_ops.map(vm->images_out, object, map, err);
}

static int image_read(void *context, uint16_t object, uint64_t sector, uint8_t *to, uint32_t count,
		      struct base_error *err)
{
	struct fault_vm *vm = context;

	fault_step("image-read");
	return vm_migrate_out_ops.read(vm->images_out, object, sector, to, count, err);
}

static const struct mig_image_ops images = { .harvest = image_harvest,
					     .map = image_map,
					     .read = image_read };

const struct mig_source_vm fault_source = { .plan = plan,
					    .memory = memory,
					    .track = track,
					    .dirty = { .get = dirty_get, .clear = dirty_clear },
					    .touched = touched,
					    .images = &images,
					    .hold = hold,
					    .state = state,
					    .let_go = let_go,
					    .run = run,
					    .serve = serve,
					    .release = release,
					    .promise = promise,
					    .resolved = resolved };
