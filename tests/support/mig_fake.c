/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/mig_fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/thread.h"
#include "migrate/mig_faults.h"

static bool fails(atomic_int *fault)
{
	int left = atomic_load(fault);

	while (left > 0 && !atomic_compare_exchange_weak(fault, &left, left - 1))
		continue;
	return left != 0;
}

static int fault(struct mig_fake_vm *vm, atomic_int *which, const char *what,
		 struct base_error *err)
{
	if (vm->at != NULL)
		vm->at(what);
	return fails(which) ? base_fail(err, -EIO, "%s: by the test's wish", what) : 0;
}

/* --- the guest --- */

/* A page's first word says when it was written; the byte is there before its page is logged. */
static void write_page(struct mig_fake_vm *vm, uint64_t page)
{
	uint64_t *word = (uint64_t *)(void *)(vm->memory + page * MIG_PAGE_BYTES);

	vm->world->written[page] = ++vm->world->clock;
	__atomic_store_n(word, vm->world->clock, __ATOMIC_RELAXED);
	atomic_fetch_or(&vm->log[page / 64], 1ULL << page % 64);
}

static void check_page(struct mig_fake_vm *vm, uint64_t page)
{
	const uint64_t *word = (const uint64_t *)(const void *)(vm->memory + page * MIG_PAGE_BYTES);

	if (__atomic_load_n(word, __ATOMIC_RELAXED) != vm->world->written[page])
		atomic_fetch_add(&vm->world->bad_page, 1);
}

static void *guest(void *context)
{
	struct mig_fake_vm *vm = context;
	uint32_t random = 12345;

	for (uint64_t page = 0; page < MIG_FAKE_PAGES; page++)
		check_page(vm, page);
	atomic_store(&vm->checked, true);
	while (!atomic_load(&vm->stop) && vm->writes) {
		uint64_t page = 0;

		random = random * 1664525u + 1013904223u;
		page = (random >> 8) % MIG_FAKE_PAGES;
		check_page(vm, page);
		write_page(vm, page);
		__atomic_store_n(&vm->writes_done, vm->writes_done + 1, __ATOMIC_RELEASE);
		if (vm->writes_per_ms != 0 && vm->writes_done % vm->writes_per_ms == 0)
			base_sleep_ns(BASE_NS_PER_MS * 1000 / (1001 - atomic_load(&vm->throttled)));
	}
	return NULL;
}

static void guest_go(struct mig_fake_vm *vm)
{
	if (atomic_exchange(&vm->runs, true))
		return;
	if (atomic_fetch_add(&vm->world->running, 1) != 0)
		atomic_fetch_add(&vm->world->twice, 1);
	atomic_store(&vm->stop, false);
	atomic_store(&vm->checked, false);
	if (base_thread_start(&vm->thread, "fake-guest", guest, vm, NULL) < 0)
		base_bug("fake guest: no thread");
	vm->has_thread = true;
}

static void guest_stop(struct mig_fake_vm *vm)
{
	if (!atomic_exchange(&vm->runs, false))
		return;
	atomic_store(&vm->stop, true);
	base_thread_join(vm->thread);
	vm->has_thread = false;
	atomic_fetch_sub(&vm->world->running, 1);
}

static void take_disk(struct mig_fake_vm *vm)
{
	if (vm->has_disk)
		return;
	vm->has_disk = true;
	if (atomic_fetch_add(&vm->world->disk, 1) != 0)
		atomic_fetch_add(&vm->world->twice, 1);
}

static void drop_disk(struct mig_fake_vm *vm)
{
	if (vm->has_disk)
		atomic_fetch_sub(&vm->world->disk, 1);
	vm->has_disk = false;
}

/* --- the source --- */

static int source_plan(void *context, struct mig_plan *ret_plan, struct base_error *err)
{
	const struct mig_fake_vm *vm = context;
	struct mig_plan plan = { .object_count = vm->image != NULL ? 2 : 1 };

	plan.config = strdup("{\"name\":\"fake\"}");
	plan.objects = calloc(2, sizeof(*plan.objects));
	if (plan.objects != NULL)
		plan.objects[0].description = strdup("");
	if (plan.objects != NULL && vm->image != NULL) {
		plan.objects[1].description = strdup("fake image");
		plan.objects[1].object.unit_count = MIG_FAKE_SECTORS;
	}
	if (plan.config == NULL || plan.objects == NULL || plan.objects[0].description == NULL) {
		mig_plan_fini(&plan);
		return base_fail(err, -ENOMEM, "fake plan");
	}
	plan.objects[0].object.unit_count = MIG_FAKE_PAGES;
	*ret_plan = plan;
	return 0;
}

static const uint8_t *source_memory(void *context)
{
	return ((struct mig_fake_vm *)context)->memory;
}

static int source_track(void *context, bool on, struct base_error *err)
{
	struct mig_fake_vm *vm = context;

	if (on && vm->at != NULL)
		vm->at("track");
	(void)err;
	for (uint64_t page = 0; on && page < MIG_FAKE_PAGES; page++)
		atomic_fetch_or(&vm->log[page / 64], 1ULL << page % 64);
	atomic_fetch_add(&vm->tracks, on ? 1 : 0);
	vm->tracking = on;
	return 0;
}

static void write_some(struct mig_fake_vm *vm)
{
	uint32_t count = vm->writes_per_harvest * (1000 - atomic_load(&vm->throttled)) / 1000;

	if (count == 0 || !atomic_load(&vm->runs))
		return;
	mig_fake_vm_wait_checked(vm); /* by its own thread */
	for (uint32_t page = 0; page < count; page++)
		write_page(vm, page % MIG_FAKE_PAGES);
}

static int source_dirty_get(void *context, uint64_t *into, struct base_error *err)
{
	struct mig_fake_vm *vm = context;
	atomic_int none = 0;

	(void)fault(vm, &none, "dirty get", err);
	write_some(vm);
	if (!vm->tracking)
		return base_fail(err, -EPROTO, "fake log that is not kept");
	for (size_t i = 0; i < MIG_FAKE_WORDS; i++)
		into[i] = atomic_load(&vm->log[i]);
	return 0;
}

static int source_dirty_clear(void *context, uint64_t first_page, uint64_t page_count,
			      const uint64_t *bits, struct base_error *err)
{
	struct mig_fake_vm *vm = context;

	if (!vm->tracking || first_page % 64 != 0 || first_page + page_count > MIG_FAKE_PAGES)
		return base_fail(err, -EPROTO, "fake log: clear of %llu+%llu",
				 (unsigned long long)first_page, (unsigned long long)page_count);
	for (uint64_t i = 0; i < (page_count + 63) / 64; i++)
		atomic_fetch_and(&vm->log[first_page / 64 + i], ~bits[i]);
	return 0;
}

/* Every fifth page was never touched, unless the guest did. */
static int source_touched(void *context, uint64_t *into, struct base_error *err)
{
	struct mig_fake_vm *vm = context;
	int r = fault(vm, &vm->faults.touched, "touched", err);

	memset(into, 0, MIG_FAKE_WORDS * sizeof(*into));
	for (uint64_t page = 0; page < MIG_FAKE_PAGES; page++)
		if (page % 5 != 0 || vm->world->written[page] != 0)
			into[page / 64] |= 1ULL << page % 64;
	return r;
}

static void source_throttle(void *context, uint32_t permille)
{
	struct mig_fake_vm *vm = context;

	base_assert(permille <= 1000);
	atomic_store(&vm->throttled, permille);
	atomic_fetch_add(permille != 0 ? &vm->throttles : &vm->unslowed, 1);
	if (vm->at != NULL)
		vm->at(permille != 0 ? "slow" : "let go on");
}

static int source_hold(void *context, struct base_error *err)
{
	struct mig_fake_vm *vm = context;
	int r = fault(vm, &vm->faults.hold, "hold", err);

	if (r < 0)
		return r;
	guest_stop(vm);
	for (uint64_t page = 0; vm->writes_last && page < 64; page++)
		write_page(vm, page * 31 % MIG_FAKE_PAGES);
	atomic_fetch_add(&vm->holds, 1);
	return 0;
}

static int source_state(void *context, struct base_buffer *out, struct base_error *err)
{
	struct mig_fake_vm *vm = context;

	base_buffer_append(out, MIG_FAKE_STATE, sizeof(MIG_FAKE_STATE));
	return fault(vm, &vm->faults.state, "state", err);
}

static int source_let_go(void *context, struct base_error *err)
{
	struct mig_fake_vm *vm = context;
	int r = fault(vm, &vm->faults.let_go, "let go", err);

	if (r == 0)
		drop_disk(vm);
	vm->unwatched = vm->unwatched || r == 0;
	return r;
}

/* Its guest goes on where it was held: the first it does is to write to its disk. */
static void write_image(struct mig_fake_vm *vm)
{
	if (vm->image == NULL)
		return;
	vm->image[0] ^= 0xff;
	vm->image_marks |= vm->unwatched ? 0 : 1;
}

static int either_run(void *context, uint64_t epoch, struct base_error *err)
{
	struct mig_fake_vm *vm = context;
	int r = fault(vm, &vm->faults.run, "run", err);

	if (r < 0)
		return r;
	take_disk(vm);
	if (vm->is_source)
		write_image(vm);
	vm->epoch = epoch;
	guest_go(vm);
	return 0;
}

static void source_serve(void *context)
{
	struct mig_fake_vm *vm = context;
	atomic_int none = 0;

	atomic_fetch_add(&vm->serves, 1);
	(void)fault(vm, &none, "serve", NULL);
}

static void either_release(void *context)
{
	struct mig_fake_vm *vm = context;

	guest_stop(vm);
	drop_disk(vm);
	atomic_store(&vm->released, true);
}

static int source_promise(void *context, bool on, uint64_t epoch, struct base_error *err)
{
	struct mig_fake_vm *vm = context;
	int r = on ? fault(vm, &vm->faults.promise, "promise", err) : 0;

	(void)epoch;
	if (r == 0)
		vm->world->promised = on;
	return r;
}

static int source_resolved(void *context, struct mig_register *ret_register)
{
	struct mig_fake_vm *vm = context;

	ret_register->epoch = atomic_load(&vm->world->resolved);
	ret_register->owner = MIG_SOURCE;
	return ret_register->epoch != 0;
}

/* --- its image: data throughout --- */

static int image_harvest(void *context, uint16_t object, bool first, uint64_t *into,
			 struct base_error *err)
{
	struct mig_fake_vm *vm = context;

	(void)object;
	(void)first;
	(void)err;
	*into |= vm->image_marks;
	vm->image_marks = 0;
	return 0;
}

static int image_map(void *context, uint16_t object, struct mig_map *map, struct base_error *err)
{
	(void)context;
	(void)object;
	(void)err;
	map->runs[0] =
		(struct mig_run){ .first = map->first, .count = map->count, .kind = MIG_RUN_DATA };
	map->run_count = 1;
	return 0;
}

static int image_read(void *context, uint16_t object, uint64_t sector, uint8_t *to, uint32_t count,
		      struct base_error *err)
{
	struct mig_fake_vm *vm = context;

	(void)object;
	(void)err;
	memcpy(to, vm->image + sector * MIG_SECTOR_BYTES, (size_t)count * MIG_SECTOR_BYTES);
	return 0;
}

static int image_write(void *context, uint16_t object, uint64_t sector, const uint8_t *bytes,
		       uint32_t count, struct base_error *err)
{
	struct mig_fake_vm *vm = context;

	(void)object;
	(void)err;
	memcpy(vm->image + sector * MIG_SECTOR_BYTES, bytes, (size_t)count * MIG_SECTOR_BYTES);
	return 0;
}

static int image_clear(void *context, uint16_t object, uint64_t sector, uint32_t count, bool unmap,
		       struct base_error *err)
{
	struct mig_fake_vm *vm = context;

	(void)object;
	(void)unmap;
	(void)err;
	memset(vm->image + sector * MIG_SECTOR_BYTES, 0, (size_t)count * MIG_SECTOR_BYTES);
	return 0;
}

static const struct mig_image_ops image_ops = { .harvest = image_harvest,
						.map = image_map,
						.read = image_read };

void mig_fake_vm_add_image(struct mig_fake_vm *vm)
{
	vm->image = calloc(MIG_FAKE_SECTORS, MIG_SECTOR_BYTES);
	if (vm->image == NULL)
		base_bug("fake VM: no memory");
	for (uint32_t sector = 0; vm->is_source && sector < MIG_FAKE_SECTORS; sector++)
		if (sector % 700 > 200)
			memset(vm->image + (size_t)sector * MIG_SECTOR_BYTES, (int)(sector % 255),
			       MIG_SECTOR_BYTES);
	vm->image_marks = (1ULL << (MIG_FAKE_SECTORS / MIG_GRANULE_SECTORS + 1)) - 1;
}

const struct mig_source_vm mig_fake_source = {
	.plan = source_plan,
	.memory = source_memory,
	.track = source_track,
	.dirty = { .get = source_dirty_get, .clear = source_dirty_clear },
	.touched = source_touched,
	.images = &image_ops,
	.throttle = source_throttle,
	.hold = source_hold,
	.state = source_state,
	.let_go = source_let_go,
	.run = either_run,
	.serve = source_serve,
	.release = either_release,
	.promise = source_promise,
	.resolved = source_resolved,
};

/* --- the destination --- */

static int destination_prepare(void *context, const struct mig_plan *plan,
			       struct mig_findings *findings, uint8_t **ret_memory,
			       struct base_error *err)
{
	struct mig_fake_vm *vm = context;
	int r = fault(vm, &vm->faults.prepare, "prepare", err);

	if (r < 0)
		return r;
	if (fails(&vm->faults.findings)) {
		mig_findings_add(findings, "memory: 9 GiB are needed, 1 GiB is free");
		mig_findings_add(findings, "bridge 'br0' is missing");
		return 0;
	}
	if (plan->object_count != (vm->image != NULL ? 2 : 1) ||
	    plan->objects[0].object.unit_count != MIG_FAKE_PAGES ||
	    (vm->image != NULL && plan->objects[1].object.unit_count != MIG_FAKE_SECTORS))
		return base_fail(err, -EBADMSG, "fake plan is another");
	*ret_memory = vm->memory;
	return 0;
}

static int destination_check(void *context, const uint8_t *state, size_t state_bytes,
			     struct base_error *err)
{
	struct mig_fake_vm *vm = context;

	if (state_bytes != sizeof(MIG_FAKE_STATE) ||
	    memcmp(state, MIG_FAKE_STATE, state_bytes) != 0)
		return base_fail(err, -EBADMSG, "fake state is another");
	for (uint64_t page = 0; vm->check_touches && page < MIG_FAKE_PAGES; page++)
		check_page(vm, page);
	return fault(vm, &vm->faults.check, "check", err);
}

const struct mig_destination_vm mig_fake_destination = {
	.prepare = destination_prepare,
	.disk = { .write = image_write,
		  .clear = image_clear,
		  .map = image_map,
		  .read = image_read },
	.check = destination_check,
	.run = either_run,
	.release = either_release,
};

/* --- the register --- */

static int arbiter_ask(void *context, uint64_t epoch, enum mig_side owner,
		       struct mig_register *ret_register, struct base_error *err)
{
	struct mig_fake_vm *vm = context;
	struct mig_fake_world *world = vm->world;
	BASE_LOCKED(&world->lock);

	if (vm->at != NULL)
		vm->at("ask");
	if (fails(&vm->faults.unknown_before))
		return base_fail(err, -ETIMEDOUT, "no answer");
	if (world->owner.epoch == epoch) {
		world->owner = (struct mig_register){ .epoch = epoch + 1, .owner = owner };
		world->asked++;
	}
	if (vm->at != NULL)
		vm->at("asked");
	if (fails(&vm->faults.unknown_after))
		return base_fail(err, -ETIMEDOUT, "no answer");
	*ret_register = world->owner;
	return 0;
}

static int arbiter_read(void *context, struct mig_register *ret_register, struct base_error *err)
{
	struct mig_fake_vm *vm = context;
	struct mig_fake_world *world = vm->world;
	BASE_LOCKED(&world->lock);

	if (fails(&vm->faults.unknown_before))
		return base_fail(err, -ETIMEDOUT, "no answer");
	*ret_register = world->owner;
	return 0;
}

struct mig_arbiter mig_fake_arbiter(struct mig_fake_vm *vm)
{
	return (struct mig_arbiter){ .ask = arbiter_ask, .read = arbiter_read, .context = vm };
}

/* --- life --- */

void mig_fake_world_init(struct mig_fake_world *world)
{
	memset(world, 0, sizeof(*world));
	(void)pthread_mutex_init(&world->lock, NULL);
	world->owner = (struct mig_register){ .epoch = MIG_FAKE_EPOCH, .owner = MIG_SOURCE };
}

void mig_fake_vm_init(struct mig_fake_vm *vm, struct mig_fake_world *world, bool is_source)
{
	memset(vm, 0, sizeof(*vm));
	vm->world = world;
	vm->is_source = is_source;
	vm->memory_fd = -1;
	vm->fault_fd = -1;
	vm->memory = calloc(MIG_FAKE_PAGES, MIG_PAGE_BYTES);
	if (vm->memory == NULL)
		base_bug("fake VM: no memory");
	for (uint64_t page = 0; is_source && page < MIG_FAKE_PAGES; page++)
		if (page % 5 > 1) { /* the others are zero */
			memset(vm->memory + page * MIG_PAGE_BYTES, (int)(1 + page % 200),
			       MIG_PAGE_BYTES);
			write_page(vm, page);
		}
}

bool mig_fake_vm_share(struct mig_fake_vm *vm)
{
	size_t bytes = (size_t)MIG_FAKE_PAGES * MIG_PAGE_BYTES;
	uint8_t *memory = NULL;

	if (!vm->is_source && mig_faults_open(&vm->fault_fd, NULL) < 0)
		return false;
	vm->memory_fd = memfd_create("fake-vm", MFD_CLOEXEC);
	if (vm->memory_fd < 0 || ftruncate(vm->memory_fd, (off_t)bytes) < 0)
		base_bug("fake VM: no file");
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vm->memory_fd, 0);
	if (memory == MAP_FAILED)
		base_bug("fake VM: no mapping");
	memcpy(memory, vm->memory, bytes);
	free(vm->memory);
	vm->memory = memory;
	return true;
}

void mig_fake_vm_start(struct mig_fake_vm *vm)
{
	vm->epoch = MIG_FAKE_EPOCH;
	take_disk(vm);
	guest_go(vm);
}

void mig_fake_vm_wait_checked(struct mig_fake_vm *vm)
{
	while (!atomic_load(&vm->checked))
		base_sleep_ns(BASE_NS_PER_MS / 10);
}

void mig_fake_vm_wait_writes(struct mig_fake_vm *vm, uint64_t count)
{
	uint64_t until = __atomic_load_n(&vm->writes_done, __ATOMIC_ACQUIRE) + count;

	while (__atomic_load_n(&vm->writes_done, __ATOMIC_ACQUIRE) < until)
		base_sleep_ns(BASE_NS_PER_MS / 10);
}

void mig_fake_vm_fini(struct mig_fake_vm *vm)
{
	guest_stop(vm);
	drop_disk(vm);
	if (vm->memory_fd >= 0)
		(void)munmap(vm->memory, (size_t)MIG_FAKE_PAGES * MIG_PAGE_BYTES);
	else
		free(vm->memory);
	base_closep(&vm->memory_fd);
	base_closep(&vm->fault_fd);
	free(vm->image);
}
