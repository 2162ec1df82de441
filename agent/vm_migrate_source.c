/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that moves away: what its session wants done with it.  All on the session's threads, one
 * call at a time; the machine has its own lock.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/vm_migrate_priv.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "hypervisor/slat.h"
#include "migrate/mig_throttle.h"

static void plan_freep(struct vm_plan **plan)
{
	free(*plan);
}

/* An object for each image, behind memory. */
static int plan_images(struct vm_move *move, struct mig_plan *plan, struct base_error *err)
{
	struct vm_migrate_from disks[VM_DISKS_MAX];
	uint32_t count = vm_devices_images(move->options.devices, disks);
	int code = 0;

	if (count == 0 || move->request.disks_stay)
		return 0;
	code = vm_migrate_out_new(disks, count, plan, &move->images_out, err);
	return code == 0 ? vm_move_images_leave(move, err) : code;
}

/* For the destination, to touch it ahead; without it that is done when it comes. */
static void plan_touched(const struct hv_slat *slat, struct vm_touched *touched)
{
	BASE_FREE uint64_t *bits = malloc(hv_slat_word_count(slat) * sizeof(*bits));

	if (bits == NULL)
		return;
	hv_slat_touched(slat, bits, NULL);
	vm_touched_of(bits, hv_slat_page_count(slat), touched);
}

static int plan_vm(void *vm, struct mig_plan *ret_plan, struct base_error *err)
{
	struct vm_move *move = vm;
	BASE_CLEANUP(plan_freep) struct vm_plan *plan = calloc(1, sizeof(*plan));
	BASE_CLEANUP(mig_plan_fini) struct mig_plan made = { .config = NULL };
	int r = 0;

	if (plan == NULL)
		return base_fail(err, -ENOMEM, "plan of the move");
	vm_plan_of(move->options.config, plan);
	memcpy(plan->id, move->id, sizeof(plan->id));
	(void)snprintf(plan->host, sizeof(plan->host), "%s", move->options.host);
	hv_machine_cpu(move->options.machine, &plan->processor);
	plan_touched(hv_machine_slat(move->options.machine), &plan->touched);
	plan->disk_count = vm_devices_seen(move->options.devices, plan->disks);
	made.epoch = move->epoch;
	made.capabilities = MIG_CAN_ALL;
	made.objects = calloc(1, sizeof(*made.objects));
	if (made.objects == NULL)
		return base_fail(err, -ENOMEM, "plan of the move");
	made.object_count = 1;
	made.objects[0].object.unit_count =
		hv_slat_page_count(hv_machine_slat(move->options.machine));
	made.objects[0].description = strdup("");
	if (made.objects[0].description == NULL)
		return base_fail(err, -ENOMEM, "plan of the move");
	r = vm_plan_encode(plan, &made.config, err);
	if (r == 0)
		r = plan_images(move, &made, err);
	if (r < 0)
		return r;
	*ret_plan = made;
	made = (struct mig_plan){ .config = NULL };
	return 0;
}

static const uint8_t *memory(void *vm)
{
	struct vm_move *move = vm;
	struct hv_slat *slat = hv_machine_slat(move->options.machine);

	return hv_slat_pages(slat, 0, hv_slat_page_count(slat));
}

/* Holes are forgotten at once, as nobody is going to read them; all else stays writable until it is
 * read. */
static int track_on(struct hv_slat *slat, struct base_error *err)
{
	BASE_FREE uint64_t *bits = malloc(hv_slat_word_count(slat) * sizeof(*bits));
	int r = 0;

	if (bits == NULL)
		return base_fail(err, -ENOMEM, "bitmap of memory");
	r = hv_slat_start(slat, err);
	if (r < 0)
		return r;
	hv_slat_touched(slat, bits, NULL);
	for (size_t i = 0; i < hv_slat_word_count(slat); i++)
		bits[i] = ~bits[i];
	r = hv_slat_dirty_clear(slat, 0, hv_slat_page_count(slat), bits, err);
	if (r < 0)
		(void)!hv_slat_stop(slat, NULL);
	return r;
}

static int track(void *vm, bool on, struct base_error *err)
{
	struct vm_move *move = vm;
	struct hv_slat *slat = hv_machine_slat(move->options.machine);

	if (on)
		return track_on(slat, err);
	return hv_slat_is_tracking(slat) ? hv_slat_stop(slat, err) : 0;
}

static int dirty_get(void *vm, uint64_t *into, struct base_error *err)
{
	struct vm_move *move = vm;

	return hv_slat_dirty_get(hv_machine_slat(move->options.machine), into, err);
}

static int dirty_clear(void *vm, uint64_t first_page, uint64_t page_count, const uint64_t *bits,
		       struct base_error *err)
{
	struct vm_move *move = vm;

	return hv_slat_dirty_clear(hv_machine_slat(move->options.machine), first_page, page_count,
				   bits, err);
}

static int touched(void *vm, uint64_t *into, struct base_error *err)
{
	struct vm_move *move = vm;

	(void)err;
	hv_slat_touched(hv_machine_slat(move->options.machine), into, NULL);
	return 0;
}

/* Who writes, as far as the host tells; a guest that cannot be slowed is sent as it is. */
static void throttle(void *vm, uint32_t permille)
{
	struct vm_move *move = vm;
	struct hv_machine_status status;
	uint64_t written[HV_VCPUS_MAX] = { 0 };
	uint32_t *shares = move->shares;
	struct base_error why = { 0 };

	hv_machine_status(move->options.machine, &status);
	if (!hv_machine_writers(move->options.machine, written))
		memset(written, 0, sizeof(written));
	/* As if none had been slowed: else who writes most is the one to be let go on next. */
	for (uint32_t i = 0; i < status.vcpu_count; i++)
		written[i] = mig_throttle_freely(written[i], shares[i]);
	memset(shares, 0, sizeof(move->shares));
	if (permille != 0)
		mig_throttle_shares(permille, (uint32_t)move->request.throttle * 10, written,
				    status.vcpu_count, shares);
	if (hv_machine_throttle(move->options.machine, shares, &why) < 0)
		base_log(BASE_LOG_WARNING, "vm.throttle", "vm=%s why=%s",
			 move->options.config->name, base_log_str(why.text));
}

/* --- the switchover --- */

static uint32_t holds(const struct vm_move *move)
{
	struct hv_machine_status status;

	hv_machine_status(move->options.machine, &status);
	return status.holds;
}

/* A reset that the guest has asked for belongs to its past: it is carried out here, since it would
 * be forgotten in the state. */
static int reset_first(struct vm_move *move, struct base_error *err)
{
	int r = hv_machine_unquiesce(move->options.machine, HV_HOLD_MIGRATE, err);

	if (r < 0)
		return r;
	move->quiet = false;
	if (move->options.config->on_reset == VM_ON_RESET_STOP)
		return base_fail(err, -ECANCELED, "the guest has asked for a reset");
	r = hv_machine_reset(move->options.machine, true, err);
	if (r == 0)
		r = hv_machine_quiesce(move->options.machine, HV_HOLD_MIGRATE, err);
	move->quiet = r == 0;
	return r;
}

static int hold(void *vm, struct base_error *err)
{
	struct vm_move *move = vm;
	int r = hv_machine_quiesce(move->options.machine, HV_HOLD_MIGRATE, err);

	if (r < 0)
		return r;
	move->quiet = true;
	move->options.news(move->options.context);
	return (holds(move) & HV_HOLD_RESET) != 0 ? reset_first(move, err) : 0;
}

static int read_state(struct vm_move *move, uint32_t flags, struct base_buffer *out,
		      struct base_error *err)
{
	off_t bytes = lseek(move->options.state_fd, 0, SEEK_END);
	uint8_t *to = NULL;
	int r = 0;

	if (bytes < 0)
		return base_fail_errno(err, -errno, "state of the move");
	base_buffer_le32(out, VM_MOVE_STATE_VERSION);
	base_buffer_le32(out, flags);
	to = base_buffer_extend(out, (size_t)bytes);
	if (to == NULL)
		return base_fail(err, -ENOMEM, "state of the move: %lld bytes", (long long)bytes);
	r = base_pread_all(move->options.state_fd, to, (size_t)bytes, 0);
	return r < 0 ? base_fail_errno(err, r, "state of the move") : 0;
}

static int state(void *vm, struct base_buffer *out, struct base_error *err)
{
	struct vm_move *move = vm;
	uint32_t flags = 0;
	int r = 0;

	{
		BASE_LOCKED(&move->options.gate->lock);

		move->options.gate->written = true;
		if ((holds(move) & HV_HOLD_USER) != 0)
			flags |= VM_MOVE_STATE_PAUSED;
	}
	if (ftruncate(move->options.state_fd, 0) < 0)
		return base_fail_errno(err, -errno, "state of the move");
	r = hv_machine_state_save(move->options.machine, move->options.state_fd, err);
	return r < 0 ? r : read_state(move, flags, out, err);
}

static int let_go(void *vm, struct base_error *err)
{
	struct vm_move *move = vm;

	move->given = true;
	if (move->images_out != NULL)
		vm_migrate_out_stop(move->images_out);
	return vm_devices_stop(move->options.devices, err);
}

/* safety: an epoch that the leash is not for is nobody's here: its holder knows only the old one.
 * A VM that stands still is not run twice. */
static int take_back(struct vm_move *move, uint64_t epoch, struct base_error *err)
{
	int r = 0;

	if (epoch != move->epoch && move->options.leash_bound)
		return base_fail(err, -ESTALE, "the leash is for epoch %" PRIu64 ", not %" PRIu64,
				 move->epoch, epoch);
	if (!move->options.may_act(move->options.context))
		return base_fail(err, -EAGAIN, "the leash is not held");
	vm_devices_set_epoch(move->options.devices, epoch);
	if (move->given)
		r = vm_devices_activate(move->options.devices, err);
	if (r < 0)
		return r;
	move->given = false;
	return 0;
}

static int run(void *vm, uint64_t epoch, struct base_error *err)
{
	struct vm_move *move = vm;
	int r = 0;

	if (move->quiet || move->given || epoch != move->epoch)
		r = take_back(move, epoch, err);
	if (r < 0)
		return r;
	if (epoch != move->epoch)
		atomic_store(&move->epoch_now, epoch);
	{
		BASE_LOCKED(&move->options.gate->lock);

		move->options.gate->written = false;
	}
	/* A VM that has stopped stands still, and that is where it goes on. */
	if (move->quiet && hv_machine_unquiesce(move->options.machine, HV_HOLD_MIGRATE, err) < 0 &&
	    (holds(move) & HV_HOLD_STOPPED) == 0)
		return -EAGAIN;
	move->quiet = false;
	move->options.news(move->options.context);
	return 0;
}

/* It runs there, before all of its memory is there.  What is here is read only from now on. */
static void serve(void *vm)
{
	struct vm_move *move = vm;
	struct base_error why = { 0 };

	/* safety: from here on nothing in this process runs it, and no start with these records
	 * will, whatever becomes of the pages. */
	hv_machine_end(move->options.machine);
	move->released = true;
	if (mig_promise_end(&move->keep, true, move->epoch, &why) < 0) /* once more at the end */
		base_log(BASE_LOG_WARNING, "vm.move-record", "vm=%s why=%s",
			 move->options.config->name, base_log_str(why.text));
	base_log(BASE_LOG_NOTICE, "vm.postcopy-serving", "vm=%s to=%s", move->options.config->name,
		 move->request.to.list[0].text);
}

/* The memory goes with the process, which has nothing else to do now. */
static void release(void *vm)
{
	struct vm_move *move = vm;

	/* safety: from here on nothing in this process runs it, whatever is released. */
	hv_machine_end(move->options.machine);
	move->released = true;
}

static int promise(void *vm, bool on, uint64_t epoch, struct base_error *err)
{
	struct vm_move *move = vm;

	if (on)
		return mig_promise_make(&move->keep, epoch, err);
	return mig_promise_end(&move->keep, move->released, epoch, err);
}

static int resolved(void *vm, struct mig_register *ret_register)
{
	struct vm_move *move = vm;

	return mig_promise_answer(&move->keep, ret_register, NULL) == 1;
}

static int image_harvest(void *vm, uint16_t object, bool first, uint64_t *into,
			 struct base_error *err)
{
	struct vm_move *move = vm;

	return vm_migrate_out_ops.harvest(move->images_out, object, first, into, err);
}

static int image_map(void *vm, uint16_t object, struct mig_map *map, struct base_error *err)
{
	struct vm_move *move = vm;

	return vm_migrate_out_ops.map(move->images_out, object, map, err);
}

static int image_read(void *vm, uint16_t object, uint64_t sector, uint8_t *to, uint32_t count,
		      struct base_error *err)
{
	struct vm_move *move = vm;

	return vm_migrate_out_ops.read(move->images_out, object, sector, to, count, err);
}

static const struct mig_image_ops images = {
	.harvest = image_harvest,
	.map = image_map,
	.read = image_read,
};

const struct mig_source_vm vm_move_source = {
	.plan = plan_vm,
	.memory = memory,
	.track = track,
	.dirty = { .get = dirty_get, .clear = dirty_clear },
	.touched = touched,
	.images = &images,
	.throttle = throttle,
	.hold = hold,
	.state = state,
	.let_go = let_go,
	.run = run,
	.serve = serve,
	.release = release,
	.promise = promise,
	.resolved = resolved,
};
