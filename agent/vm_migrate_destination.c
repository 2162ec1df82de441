/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that comes: what its session wants done with it.  All on the session's threads, one call at
 * a time.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/vm_migrate_priv.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "hypervisor/slat.h"

static int read_plan(struct vm_move *move, const struct mig_plan *plan, struct base_error *err)
{
	if (move->plan == NULL)
		move->plan = calloc(1, sizeof(*move->plan));
	if (move->plan == NULL)
		return base_fail(err, -ENOMEM, "plan of the move");
	return vm_plan_decode(plan->config, move->plan, err);
}

/* What is not a matter of the VM's configuration. */
static void find_others(struct vm_move *move, const struct mig_plan *plan,
			struct mig_findings *findings)
{
	const struct vm_config *config = move->options.config;
	uint64_t pages = hv_slat_page_count(hv_machine_slat(move->options.machine));

	if (config->epoch != 0 && plan->epoch + 1 != config->epoch)
		mig_findings_add(findings,
				 "epoch: the VM runs at %" PRIu64 " and would come at %" PRIu64
				 ", this worker is for %" PRIu64,
				 plan->epoch, plan->epoch + 1, config->epoch);
	if ((plan->flags & MIG_PLAN_NO_MEMORY) != 0)
		mig_findings_add(findings, "plan: storage without a VM, this worker takes a VM");
	if (plan->objects[0].object.unit_count != pages)
		mig_findings_add(findings,
				 "memory: %" PRIu64 " pages would come, here are %" PRIu64,
				 plan->objects[0].object.unit_count, pages);
	if (!move->options.may_act(move->options.context))
		mig_findings_add(findings, "leash: it is not held here");
}

static void find_all(struct vm_move *move, const struct mig_plan *plan, struct vm_plan *here,
		     struct hv_cpu_report *report, struct mig_findings *findings)
{
	vm_plan_of(move->options.config, here);
	here->disk_count = vm_devices_seen(move->options.devices, here->disks);
	vm_plan_compare(move->plan, here, findings);
	find_others(move, plan, findings);
	(void)hv_machine_cpu_check(move->options.machine, &move->plan->processor, report);
	vm_plan_findings_cpu(report, findings);
}

/* What was decided of this VM here before; and that it comes, before anything of it is here that
 * somebody could take for all of it. */
static int look_at_records(struct vm_move *move, const struct mig_plan *plan,
			   struct mig_findings *findings, struct base_error *err)
{
	struct base_error why = { 0 };
	int r = mig_keep_init(&move->keep, move->options.records, move->plan->name,
			      move->plan->host, move->plan->id, err);

	if (r == 0 && mig_register_may_begin(&move->keep, plan->epoch, &why) < 0)
		mig_findings_add(findings, "records: %s", why.text);
	if (r < 0 || findings->count > 0)
		return r;
	move->epoch = plan->epoch;
	atomic_store(&move->has_keep, true);
	return mig_register_coming(&move->keep, move->epoch, err);
}

/* Where there is no other objection images are made, too. */
static int prepare_images(struct vm_move *move, const struct mig_plan *plan,
			  struct mig_findings *findings, struct base_error *err)
{
	uint32_t awaited = vm_devices_awaited(move->options.devices);
	struct vm_migrate_in_options options = {
		.store = vm_devices_store(move->options.devices),
		.folder = "",
		.plan = plan,
		.making = vm_move_images_making,
		.context = move,
	};

	if (plan->object_count == 1) {
		if (awaited > 0)
			mig_findings_add(findings,
					 "disks: %" PRIu32 " images are not here, and none come",
					 awaited);
		return 0;
	}
	if (options.store == NULL)
		mig_findings_add(findings, "disks: images come, and there is not one folder for "
					   "all of them here");
	if (findings->count > 0)
		return 0;
	options.loop = vm_devices_move_loop(move->options.devices);
	return vm_migrate_in_new(&options, findings, &move->images_in, err);
}

static int prepare(void *vm, const struct mig_plan *plan, struct mig_findings *findings,
		   uint8_t **ret_memory, struct base_error *err)
{
	struct vm_move *move = vm;
	struct hv_slat *slat = hv_machine_slat(move->options.machine);
	BASE_FREE struct vm_plan *here = calloc(1, sizeof(*here));
	BASE_FREE struct hv_cpu_report *report = calloc(1, sizeof(*report));
	int r = read_plan(move, plan, err);

	if (r < 0)
		return r;
	if (here == NULL || report == NULL)
		return base_fail(err, -ENOMEM, "plan of the move");
	find_all(move, plan, here, report, findings);
	r = look_at_records(move, plan, findings, err);
	if (r == 0)
		r = prepare_images(move, plan, findings, err);
	if (r < 0 || findings->count > 0)
		return r;
	/* All of it was reserved when the machine was made, and is zero.  Without a thread it is
	 * touched when it comes. */
	(void)!vm_ahead_start(hv_slat_memory(slat), &move->plan->touched, &move->ahead, NULL);
	*ret_memory = hv_slat_arrival_pages(slat, 0, hv_slat_page_count(slat));
	base_assert(*ret_memory != NULL);
	return 0;
}

static void came(void *vm, uint64_t bytes)
{
	struct vm_move *move = vm;

	if (move->ahead != NULL)
		vm_ahead_came(move->ahead, bytes);
}

static int put_state(struct vm_move *move, const uint8_t *bytes, size_t size_bytes,
		     struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	uint32_t version = base_read_le32(&in);
	uint32_t flags = base_read_le32(&in);
	size_t left = base_reader_left(&in);
	const uint8_t *container = base_read_span(&in, left);
	int r = 0;

	if (in.failed || version == 0 || (flags & ~VM_MOVE_STATE_PAUSED) != 0)
		return base_fail(err, -EBADMSG, "state of the move: %zu bytes, flags 0x%" PRIx32,
				 size_bytes, flags);
	if (version > VM_MOVE_STATE_VERSION)
		return base_fail(err, -ENOTSUP,
				 "state of the move: version %" PRIu32 ", expected at most %u",
				 version, VM_MOVE_STATE_VERSION);
	move->comes_paused = (flags & VM_MOVE_STATE_PAUSED) != 0;
	if (ftruncate(move->options.state_fd, 0) < 0)
		return base_fail_errno(err, -errno, "state of the move");
	r = base_pwrite_all(move->options.state_fd, container, left, 0);
	return r < 0 ? base_fail_errno(err, r, "state of the move") : 0;
}

/* Nothing touches memory ahead any more: it would wait for pages that nobody has asked for. */
static void settle(void *vm)
{
	struct vm_move *move = vm;

	vm_ahead_stop(base_take(&move->ahead));
}

static int check(void *vm, const uint8_t *state, size_t state_bytes, struct base_error *err)
{
	struct vm_move *move = vm;
	int r = 0;

	vm_ahead_stop(base_take(&move->ahead));
	r = put_state(move, state, state_bytes, err);

	if (r == 0 && move->images_in != NULL)
		r = vm_migrate_in_finish(move->images_in, err);
	if (r == 0)
		r = vm_devices_came(move->options.devices, err);
	if (r == 0)
		r = hv_machine_arrive(move->options.machine, move->options.state_fd,
				      move->options.config->restore_force_tsc == VM_SWITCH_ON, err);
	return r == 0 ? mig_register_begin(&move->keep, move->epoch, err) : r;
}

/* The record says that it may have been activated before it is, and takes that back only when
 * nothing was, or all of it was given back again.  @ret_held: a disk may still be active. */
static int activate(struct vm_move *move, uint64_t epoch, bool *ret_held, struct base_error *err)
{
	int r = 0;

	/* safety: only a leash for this very epoch lets anything here act. */
	if (!move->options.may_act(move->options.context))
		return base_fail(err, -EAGAIN, "the leash is not held");
	vm_devices_set_epoch(move->options.devices, epoch);
	r = hv_machine_arrive_finish(move->options.machine, err);
	/* The loaded machine's devices have done that, unless it had none. */
	if (r == 0)
		r = vm_devices_activate(move->options.devices, err);
	if (r < 0)
		*ret_held = vm_devices_stop(move->options.devices, NULL) < 0;
	return r;
}

static int run(void *vm, uint64_t epoch, struct base_error *err)
{
	struct vm_move *move = vm;
	struct base_error why = { 0 };
	bool held = false;
	int r = mig_register_activate(&move->keep, epoch, err);

	if (r < 0)
		return r;
	r = activate(move, epoch, &held, err);
	/* safety: what may still be written here is given to nobody; until this worker is gone, and
	 * the VM started here anew. */
	if (r < 0 && !held)
		(void)!mig_register_untouched(&move->keep, NULL);
	if (r < 0)
		return r;
	if (move->images_in != NULL)
		vm_migrate_in_keep(move->images_in);
	if (!move->comes_paused && move->options.config->start == VM_START_RUNNING)
		(void)!hv_machine_release(move->options.machine, HV_HOLD_USER, NULL);
	/* It runs, whatever the record says of it; the next start finds out. */
	if (mig_register_runs(&move->keep, &why) < 0)
		base_log(BASE_LOG_WARNING, "vm.move-record", "vm=%s why=%s",
			 move->options.config->name, base_log_str(why.text));
	vm_move_images_came(move);
	return 0;
}

/* The memory goes with the process. */
static void release(void *vm)
{
	struct vm_move *move = vm;
	struct base_error why = { 0 };

	vm_ahead_stop(base_take(&move->ahead));
	vm_migrate_in_free(base_take(&move->images_in));
	vm_move_images_gone(move);
	if (atomic_load(&move->has_keep) && mig_register_leave(&move->keep, &why) < 0)
		base_log(BASE_LOG_WARNING, "vm.move-record", "vm=%s why=%s",
			 move->options.config->name, base_log_str(why.text));
}

static int image_write(void *vm, uint16_t object, uint64_t sector, const uint8_t *bytes,
		       uint32_t count, struct base_error *err)
{
	struct vm_move *move = vm;

	return vm_migrate_in_ops.write(move->images_in, object, sector, bytes, count, err);
}

static int image_clear(void *vm, uint16_t object, uint64_t sector, uint32_t count, bool unmap,
		       struct base_error *err)
{
	struct vm_move *move = vm;

	return vm_migrate_in_ops.clear(move->images_in, object, sector, count, unmap, err);
}

static int image_map(void *vm, uint16_t object, struct mig_map *map, struct base_error *err)
{
	struct vm_move *move = vm;

	return vm_migrate_in_ops.map(move->images_in, object, map, err);
}

static int image_read(void *vm, uint16_t object, uint64_t sector, uint8_t *to, uint32_t count,
		      struct base_error *err)
{
	struct vm_move *move = vm;

	return vm_migrate_in_ops.read(move->images_in, object, sector, to, count, err);
}

const struct mig_destination_vm vm_move_destination = {
	.prepare = prepare,
	.disk = { .write = image_write,
		  .clear = image_clear,
		  .map = image_map,
		  .read = image_read },
	.came = came,
	.settle = settle,
	.check = check,
	.run = run,
	.release = release,
};
