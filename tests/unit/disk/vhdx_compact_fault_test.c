/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compaction with a guest beside it, on a store that reorders, fails, and loses power.
 *
 * The guest lives on the loop: each of its requests that ends begins the next.  Every page of the
 * disk remembers all values it ever had since the record began; after a power failure a page
 * may have any of them, and no other.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/depth.h"
#include "tests/support/vhdx_rig.h"

#define MIB    VHDX_MIB
#define PAGE   4096U
#define DEPTH  6U
#define PAGES  64U /* of one request, at most */
#define VALUES 256U

struct work;

struct slot {
	struct work *work;
	struct disk_request request;
	struct iovec iov;
	uint8_t *buffer;
	uint64_t from, count; /* pages */
	uint8_t value;
	bool busy;
};

struct work {
	struct rig *rig;
	struct slot slots[DEPTH];
	uint64_t page_count;
	bool (*past)[VALUES]; /* values that a page has had */
	uint32_t left;        /* requests to begin */
	uint32_t busy;
	uint32_t progress_calls;
	uint32_t cancel_at;
};

static void slot_start(struct slot *slot);

static void slot_done(struct disk_request *request, int result)
{
	struct slot *slot = request->context;
	struct rig *rig = slot->work->rig;
	uint8_t *model = rig->model + slot->from * PAGE;

	slot->busy = false;
	slot->work->busy--;
	if (request->op == DISK_READ && result == 0) {
		for (uint64_t i = 0; i < slot->count * PAGE; i++)
			cr_assert(rig->unsure[(slot->from * PAGE + i) / RIG_SECTOR] ||
				  slot->buffer[i] == model[i]);
	} else if (request->op != DISK_READ && result == 0) {
		memset(model, slot->value, slot->count * PAGE);
		memset(rig->unsure + slot->from * PAGE / RIG_SECTOR, 0,
		       slot->count * PAGE / RIG_SECTOR);
	} else if (result < 0) {
		rig->failures++;
		memset(rig->unsure + slot->from * PAGE / RIG_SECTOR, 1,
		       slot->count * PAGE / RIG_SECTOR);
	}
	slot_start(slot);
}

static bool is_free(const struct work *work, uint64_t from, uint64_t count)
{
	for (uint32_t i = 0; i < DEPTH; i++) {
		const struct slot *slot = &work->slots[i];

		if (slot->busy && slot->from < from + count && from < slot->from + slot->count)
			return false;
	}
	return true;
}

static void slot_start(struct slot *slot)
{
	struct work *work = slot->work;
	struct rig *rig = work->rig;
	uint64_t dice = rig_rand(rig, 10);
	uint64_t from, count;

	if (work->left == 0)
		return;
	work->left--;
	do {
		count = 1 + rig_rand(rig, dice == 0 ? PAGES : 4);
		from = rig_rand(rig, work->page_count - count);
	} while (!is_free(work, from, count));
	slot->from = from;
	slot->count = count;
	slot->value = dice < 2 ? 0 : (uint8_t)(1 + rig_rand(rig, 255));
	memset(slot->buffer, slot->value, count * PAGE);
	slot->iov = (struct iovec){ .iov_base = slot->buffer, .iov_len = count * PAGE };
	slot->request = (struct disk_request){
		.op = dice == 0  ? DISK_ZERO
		      : dice < 6 ? DISK_WRITE
				 : DISK_READ,
		.flags = dice == 0   ? DISK_MAY_UNMAP
			 : dice == 3 ? DISK_FUA
				     : 0,
		.offset_bytes = from * PAGE,
		.length_bytes = count * PAGE,
		.iov = &slot->iov,
		.iov_count = 1,
		.done = slot_done,
		.context = slot,
	};
	if (slot->request.op == DISK_WRITE && slot->value == 0)
		slot->value = slot->buffer[0];
	if (slot->request.op != DISK_READ) {
		for (uint64_t i = 0; i < count; i++)
			work->past[from + i][slot->value] = true;
	}
	slot->busy = true;
	work->busy++;
	rig->image->ops->submit(rig->image, &slot->request);
}

static int at_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	struct work *work = context;

	cr_assert_leq(done_bytes, total_bytes);
	work->progress_calls++;
	return work->progress_calls == work->cancel_at ? -1 : 0;
}

static void work_init(struct work *work, struct rig *rig, uint32_t requests)
{
	*work = (struct work){ .rig = rig, .left = requests };
	work->page_count = rig->size_bytes / PAGE;
	work->past = calloc(work->page_count, sizeof(*work->past));
	for (uint64_t at = 0; at < work->page_count * PAGE; at += RIG_SECTOR)
		work->past[at / PAGE][rig->model[at]] = true;
	for (uint32_t i = 0; i < DEPTH; i++) {
		work->slots[i].work = work;
		work->slots[i].buffer = malloc(PAGES * PAGE);
	}
}

static void work_fini(struct work *work)
{
	for (uint32_t i = 0; i < DEPTH; i++)
		free(work->slots[i].buffer);
	free(work->past);
}

static int compact_beside(struct work *work)
{
	struct base_error err = { 0 };
	int code;

	for (uint32_t i = 0; i < DEPTH; i++)
		slot_start(&work->slots[i]);
	code = vhdx_compact(work->rig->image, at_progress, work, &err);
	cr_assert_eq(code == 0, err.code == 0);
	for (uint64_t turn = 0; work->left > 0 || work->busy > 0; turn++) {
		(void)base_io_loop_step(work->rig->loop, false);
		cr_assert_lt(turn, 1000000, "%u requests hang", work->busy);
	}
	return code;
}

/* Uniform pages: some with data, some with zeros written, some not there. */
static void fill(struct rig *rig)
{
	uint8_t *bytes = malloc(MIB);

	for (uint64_t at = 0; at < rig->size_bytes; at += MIB) {
		uint64_t kind = rig_rand(rig, 4);
		uint8_t value = kind == 0 ? 0 : (uint8_t)(1 + rig_rand(rig, 255));
		uint64_t length = kind == 3 ? 5 * PAGE : MIB; /* over a parent: PARTIAL */

		memset(bytes, value, MIB);
		cr_assert_eq(rig_do(rig, DISK_WRITE, 0, at, bytes, length), 0);
		memset(rig->model + at, value, length);
		if (length == MIB)
			continue;
		cr_assert_eq(rig_do(rig, DISK_READ, 0, at, bytes, MIB), 0);
		memcpy(rig->model + at, bytes, MIB);
	}
	for (uint64_t at = 0; at < rig->size_bytes; at += MIB) {
		if (rig_rand(rig, 3) != 0)
			continue;
		cr_assert_eq(rig_do(rig, DISK_UNMAP, 0, at, NULL, MIB), 0);
		memset(rig->model + at, 0, MIB);
	}
	cr_assert_eq(rig_do(rig, DISK_FLUSH, 0, 0, NULL, 0), 0);
	free(bytes);
}

static const struct rig_options dynamic = { .kind = DISK_DYNAMIC, .size_bytes = 16 * MIB };
static const struct rig_options child = {
	.kind = DISK_DIFFERENCING,
	.size_bytes = 16 * MIB,
	.parent_bytes = 13 * MIB,
};

static void expect_clean(struct store *store, struct base_io_loop *loop)
{
	const struct disk_options options = {
		.store = store, .name = RIG_NAME, .format = DISK_VHDX, .loop = loop
	};
	struct disk_check_result result = { 0 };

	cr_assert_eq(disk_check(&options, false, NULL, NULL, &result, NULL), 0);
	cr_assert_eq(result.damages, 0);
}

static void guest_seed(const struct rig_options *options, uint64_t seed)
{
	struct rig rig = { .random = seed };
	struct fake_store_plan plan = {
		.seed = seed,
		.reorder = true,
		.delay_steps = (uint32_t)(seed % 5),
		.garbage_buffers = seed % 2 == 0,
	};

	rig_init(&rig, options);
	fill(&rig);
	fake_store_set_plan(rig.store, &plan);
	for (uint32_t round = 0; round < 3; round++) {
		struct work work;
		int code;

		work_init(&work, &rig, 400);
		work.cancel_at = round == 1 ? 1 : 0;
		code = compact_beside(&work);
		cr_assert_eq(code, round == 1 ? -ECANCELED : 0);
		work_fini(&work);
		rig_verify(&rig);
		rig_check_space(&rig);
		rig_random(&rig, 60, 8);
		rig_verify(&rig);
		if (round == 1)
			rig_reopen(&rig);
		rig_verify(&rig);
	}
	cr_assert_eq(rig.failures, 0);
	rig_reopen(&rig);
	rig_verify(&rig);
	rig_check_space(&rig);
	rig_fini(&rig);
}

Test(vhdx_compact_fault, a_guest_beside_it_on_a_store_that_reorders)
{
	for (uint64_t seed = 1; seed <= 4; seed += depth_stride())
		guest_seed(&dynamic, seed);
}

Test(vhdx_compact_fault, a_guest_beside_a_differencing_one)
{
	for (uint64_t seed = 11; seed <= 14; seed += depth_stride())
		guest_seed(&child, seed);
}

/* Every sector has a value that its page once had. */
static void expect_past(const struct work *work, struct rig *rig, uint64_t event)
{
	uint8_t page[PAGE];

	for (uint64_t i = 0; i < work->page_count; i++) {
		cr_assert_eq(rig_do(rig, DISK_READ, 0, i * PAGE, page, PAGE), 0);
		for (uint32_t at = 0; at < PAGE; at += RIG_SECTOR)
			cr_assert(work->past[i][page[at]], "%llu: page %llu has 0x%02x",
				  (unsigned long long)event, (unsigned long long)i, page[at]);
	}
}

/* --- failing requests --- */

static void fail_seed(const struct rig_options *options, uint64_t k, struct fake_store_plan plan,
		      bool *ret_over)
{
	struct rig rig = { .random = k, .may_keep = true };
	struct work work;
	bool lost;

	rig_init(&rig, options);
	fill(&rig);
	work_init(&work, &rig, 40);
	plan.fail_at = k;
	fake_store_set_plan(rig.store, &plan);
	(void)compact_beside(&work);
	*ret_over = fake_store_request_count(rig.store) < k;
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ 0 });
	rig_verify(&rig);
	/* A flush that failed may have lost what was not flushed before, and says so. */
	lost = rig.image->failed;
	if (!lost)
		rig_random(&rig, 20, 4); /* it goes on */
	rig.failures++;                  /* the end of the session may tell of it */
	rig_reopen(&rig);
	expect_clean(rig.store, rig.loop);
	if (lost)
		expect_past(&work, &rig, k);
	else
		rig_verify(&rig);
	work_fini(&work);
	rig_fini(&rig);
}

static void fail_all(const struct rig_options *options, struct fake_store_plan plan)
{
	bool over = false;
	uint64_t k = 1;

	for (; !over && k < 2000; k += 1 + k * depth_stride() / 9)
		fail_seed(options, k, plan, &over);
	cr_assert(over);
}

Test(vhdx_compact_fault, the_kth_request_fails)
{
	fail_all(&dynamic, (struct fake_store_plan){ .fail_code = -EIO });
}

Test(vhdx_compact_fault, the_kth_request_finds_the_store_full_and_later_ones_do_not)
{
	fail_all(&child, (struct fake_store_plan){ .fail_code = -ENOSPC });
}

/* An error that is told although it was done: also the cut. */
Test(vhdx_compact_fault, the_kth_change_fails_and_lands)
{
	const struct fake_store_plan plan = {
		.fail_code = -EIO,
		.fail_does_it = true,
		.fail_ops = 1U << STORE_WRITE | 1U << STORE_TRUNCATE | 1U << STORE_ZERO,
	};
	const struct fake_store_plan cut = {
		.fail_code = -EIO,
		.fail_does_it = true,
		.fail_ops = 1U << STORE_TRUNCATE,
	};

	fail_all(&dynamic, plan);
	fail_all(&dynamic, cut);
}

/* --- power failures --- */

static void crash_at(struct work *work, uint64_t event, uint64_t seed)
{
	struct rig left = *work->rig;
	struct base_error err = { 0 };

	cr_assert_eq(fake_store_crash(work->rig->store, event, (enum fake_store_loss)(1 + seed % 4),
				      seed, &left.store, &err),
		     0);
	left.image = NULL;
	expect_clean(left.store, left.loop);
	rig_reopen(&left);
	expect_past(work, &left, event);
	cr_assert_eq(image_vhdx_ops.deactivate(left.image, &err), 0, "%s", err.text);
	image_vhdx_ops.close(left.image);
	expect_clean(left.store, left.loop);
	store_free(left.store);
}

static void crash_seed(const struct rig_options *options, uint64_t seed, uint32_t requests,
		       uint32_t points)
{
	struct rig rig = { .random = seed };
	struct fake_store_plan plan = { .seed = seed, .reorder = true, .delay_steps = 2 };
	struct work work;
	uint64_t events;

	rig_init(&rig, options);
	fill(&rig);
	cr_assert_eq(fake_store_record(rig.store, NULL), 0);
	fake_store_set_plan(rig.store, &plan);
	work_init(&work, &rig, requests);
	cr_assert_eq(compact_beside(&work), 0);
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ 0 });
	events = fake_store_event_count(rig.store);
	cr_assert_gt(events, 20);
	for (uint32_t i = 0; i < points; i += depth_stride())
		crash_at(&work, events * i / points + (i == points - 1), seed * 1000 + i);
	work_fini(&work);
	rig_verify(&rig);
	rig_fini(&rig);
}

/* Without a guest nothing at all may change. */
Test(vhdx_compact_fault, power_failures_alone)
{
	static const struct rig_options small = { .kind = DISK_DYNAMIC, .size_bytes = 6 * MIB };

	for (uint64_t seed = 1; seed <= 3; seed++)
		crash_seed(&small, seed, 0, 40);
}

Test(vhdx_compact_fault, power_failures_beside_a_guest)
{
	static const struct rig_options small = { .kind = DISK_DYNAMIC, .size_bytes = 6 * MIB };

	for (uint64_t seed = 4; seed <= 7; seed++)
		crash_seed(&small, seed, 150, 60);
}
