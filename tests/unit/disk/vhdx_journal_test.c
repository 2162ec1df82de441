/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model runs against the journal over a fake store that records: numbered changes, each to a
 * pair of pages that must always show the same number, some of them naming data that has to be
 * durable first.  Then the power fails everywhere, and what is left is judged:
 *   it can be opened;                                     (W5, tail and truncation)
 *   both pages of a pair show the same number             (a commit is whole; W1)
 *   not older than what a commit acknowledged before;     (W4)
 *   and the data that an ordered change names is there    (W2).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/depth.h"
#include "tests/support/journal_rig.h"

#define PAIRS     40U
#define ACKS_MAX  8192U
#define STEPS_MAX 8192U

struct ack {
	uint64_t event;  /* of the record when it was given */
	uint32_t change; /* all up to this one are durable */
};

struct model {
	struct journal_rig rig;
	uint64_t random;
	uint32_t change_count;
	uint8_t pair_of[STEPS_MAX];
	bool ordered_of[STEPS_MAX];
	uint32_t ack_count;
	struct ack acks[ACKS_MAX];
};

static uint32_t draw(struct model *model, uint32_t below)
{
	model->random = model->random * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(model->random >> 33) % below;
}

static uint64_t page_of(const struct model *model, uint32_t pair, uint32_t half)
{
	return jrig_bat(&model->rig) + (pair * 2ULL + half) * VHDX_PAGE_BYTES;
}

static uint64_t data_of(const struct model *model, uint32_t pair)
{
	return jrig_blocks(&model->rig) + pair * 4096ULL;
}

/* Change a pair; an ordered one writes its data first. */
static void change(struct model *model, bool ordered)
{
	uint32_t number = ++model->change_count;
	uint32_t pair = draw(model, PAIRS);
	uint8_t data[4096] = { 0 };

	cr_assert_lt(number, STEPS_MAX);
	model->pair_of[number] = (uint8_t)pair;
	model->ordered_of[number] = ordered;
	if (ordered) {
		base_put_le64(data, number);
		cr_assert_eq(jrig_store(&model->rig, STORE_WRITE, data_of(model, pair), data,
					sizeof(data)),
			     0);
	}
	for (uint32_t half = 0; half < 2; half++) /* both loaded: no commit can come between */
		vhdx_page_put(jrig_page(&model->rig, page_of(model, pair, half)));
	jrig_put(&model->rig, page_of(model, pair, 0), 0, number, ordered);
	jrig_put(&model->rig, page_of(model, pair, 1), 0, number, ordered);
}

static void commit(struct model *model)
{
	uint32_t number = model->change_count;

	cr_assert_eq(jrig_commit(&model->rig), 0);
	cr_assert_lt(model->ack_count, ACKS_MAX);
	model->acks[model->ack_count++] = (struct ack){
		.event = fake_store_event_count(model->rig.store),
		.change = number,
	};
}

/* What was acknowledged when so many events were over. */
static uint32_t acknowledged(const struct model *model, uint64_t event)
{
	uint32_t change = 0;

	for (uint32_t i = 0; i < model->ack_count && model->acks[i].event <= event; i++)
		change = model->acks[i].change;
	return change;
}

/* NULL, or what is wrong. */
static const char *judge(const struct model *model, struct jrig_left *left, uint32_t durable)
{
	uint32_t wanted[PAIRS] = { 0 };

	for (uint32_t number = 1; number <= durable; number++)
		wanted[model->pair_of[number]] = number;
	for (uint32_t pair = 0; pair < PAIRS; pair++) {
		uint64_t first = jrig_left_value(left, page_of(model, pair, 0));
		uint64_t second = jrig_left_value(left, page_of(model, pair, 1));

		if (first != second)
			return "half a change";
		if (first < wanted[pair])
			return "an acknowledged change is lost";
		if (first > model->change_count || (first > 0 && model->pair_of[first] != pair))
			return "a change that nobody made";
		if (model->ordered_of[first] && jrig_left_value(left, data_of(model, pair)) < first)
			return "data that a table names is missing";
	}
	return NULL;
}

static const char *crash(const struct model *model, uint64_t event, enum fake_store_loss loss,
			 uint64_t seed)
{
	struct store *after = NULL;
	struct jrig_left left;
	const char *wrong;

	cr_assert_eq(fake_store_crash(model->rig.store, event, loss, seed, &after, NULL), 0);
	if (jrig_left_open(&left, after) < 0)
		wrong = "it cannot be opened";
	else
		wrong = judge(model, &left, acknowledged(model, event));
	jrig_left_fini(&left);
	return wrong;
}

static uint32_t crash_all(const struct model *model, uint64_t step)
{
	uint64_t count = fake_store_event_count(model->rig.store);
	uint32_t points = 0;

	for (uint64_t event = 0; event <= count; event += step * depth_stride()) {
		enum fake_store_loss loss = FAKE_LOSE_NONE + (points % 4);
		const char *wrong = crash(model, event, loss, event);

		cr_assert_null(wrong, "%s: after event %llu of %llu, loss %d", wrong,
			       (unsigned long long)event, (unsigned long long)count, (int)loss);
		points++;
	}
	return points;
}

static struct model *model_new(uint32_t log_mib, uint64_t seed)
{
	struct model *model = calloc(1, sizeof(*model));

	cr_assert_not_null(model);
	model->random = seed;
	jrig_new(&model->rig, log_mib, 8);
	cr_assert_eq(fake_store_record(model->rig.store, NULL), 0);
	jrig_open(&model->rig);
	fake_store_set_plan(
		model->rig.store,
		&(struct fake_store_plan){ .seed = seed, .reorder = true, .delay_steps = 3 });
	cr_assert_eq(jrig_touch(&model->rig, true), 0);
	return model;
}

static void model_free(struct model *model)
{
	jrig_free(&model->rig);
	free(model);
}

/* --- power failures --- */

Test(vhdx_journal, survives_a_crash_anywhere_while_the_log_wraps_around, .timeout = 240)
{
	struct model *model = model_new(1, 42);
	uint64_t first_sequence = model->rig.vhdx->journal->next_sequence;
	uint32_t points;

	for (uint32_t i = 0; i < 1500; i++) {
		uint32_t changes = draw(model, 12) == 0 ? 25 : 1 + draw(model, 4);

		for (uint32_t k = 0; k < changes && model->change_count < 8000; k++)
			change(model, draw(model, 3) == 0);
		commit(model);
	}
	cr_assert_geq(model->rig.vhdx->journal->next_sequence - first_sequence, 1400);
	points = crash_all(model, 7);
	cr_assert_eq(jrig_close(&model->rig), 0);
	cr_log_info("%u crash points", points);
	cr_assert_geq(points, 2000 / depth_stride());
	model_free(model);
}

Test(vhdx_journal, survives_a_crash_at_every_event_of_a_session, .timeout = 240)
{
	struct model *model = model_new(1, 7);

	for (uint32_t session = 0; session < 3; session++) {
		for (uint32_t i = 0; i < 25; i++) {
			change(model, draw(model, 2) == 0);
			if (draw(model, 3) != 0)
				commit(model);
		}
		cr_assert_eq(jrig_close(&model->rig), 0);
		jrig_open(&model->rig);
		cr_assert_eq(jrig_touch(&model->rig, false), 0);
	}
	for (int loss = FAKE_LOSE_NONE; loss < FAKE_LOSSES; loss++) {
		uint64_t count = fake_store_event_count(model->rig.store);

		for (uint64_t event = 0; event <= count; event += depth_stride()) {
			const char *wrong = crash(model, event, (enum fake_store_loss)loss, event);

			cr_assert_null(wrong, "%s: after event %llu, loss %d", wrong,
				       (unsigned long long)event, loss);
		}
	}
	model_free(model);
}

/* One page over and over: every entry holds it anew, so the tail follows without a home write. */
Test(vhdx_journal, a_hot_page_needs_no_home_write)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, true), 0);
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .fail_ops = 1U << STORE_WRITE });
	for (uint64_t i = 1; i <= 1000; i++) {
		jrig_put(&rig, jrig_bat(&rig), 0, i, false);
		cr_assert_eq(jrig_commit(&rig), 0);
	}
	/* An entry of two sectors each, eight of them in two pieces at the log's end. */
	cr_assert_leq(fake_store_request_count(rig.store), 1000 + 16);
	cr_assert_eq(jrig_close(&rig), 0);
	jrig_free(&rig);
}

/* --- failures --- */

static void fail_run(struct model *model, const struct fake_store_plan *plan)
{
	uint32_t lost = 0;

	fake_store_set_plan(model->rig.store, plan);
	for (uint32_t i = 0; i < 35; i++) { /* half a log: no home writes */
		uint32_t number;

		change(model, false);
		number = model->change_count;
		if (jrig_commit(&model->rig) != 0) {
			lost++;
			continue;
		}
		model->acks[model->ack_count++] = (struct ack){
			.event = fake_store_event_count(model->rig.store),
			.change = number,
		};
	}
	cr_assert_geq(lost, 1);
}

/* A write of the log fails, landed or not: told, tried again, nothing lost. */
Test(vhdx_journal, a_failed_write_is_tried_again_at_the_same_place, .timeout = 240)
{
	static const int codes[] = { -EIO, -ENOSPC, -ENODEV };

	for (uint32_t k = 0; k < 12; k++) {
		struct model *model = model_new(1, k + 1);
		uint64_t before = model->rig.vhdx->journal->next_sequence;

		for (uint32_t pair = 0; pair < PAIRS; pair++)
			for (uint32_t half = 0; half < 2; half++)
				vhdx_page_put(jrig_page(&model->rig, page_of(model, pair, half)));
		fail_run(model, &(struct fake_store_plan){
					.seed = k,
					.reorder = true,
					.fail_at = k * 2 + 1,
					.fail_ops = 1U << STORE_WRITE,
					.fail_code = codes[k % 3],
					.fail_does_it = k % 2 == 0,
				});
		cr_assert(!model->rig.vhdx->image.failed);
		cr_assert_eq(model->rig.vhdx->journal->next_sequence - before, 34);
		(void)crash_all(model, 1);
		cr_assert_eq(jrig_close(&model->rig), 0);
		model_free(model);
	}
}

Test(vhdx_journal, a_failed_home_write_loses_nothing, .timeout = 240)
{
	struct model *model = model_new(1, 3);
	uint32_t failed = 0;

	for (uint32_t i = 0; i < 300; i++) {
		for (uint32_t k = 0; k < 8; k++)
			change(model, false);
		if (i % 10 == 9)
			fake_store_set_plan(model->rig.store, &(struct fake_store_plan){
								      .seed = i,
								      .reorder = true,
								      .fail_at = 3 + i % 17,
								      .fail_ops = 1U << STORE_WRITE,
								      .fail_code = -EIO,
							      });
		if (jrig_commit(&model->rig) != 0) {
			failed++;
			continue;
		}
		model->acks[model->ack_count++] = (struct ack){
			.event = fake_store_event_count(model->rig.store),
			.change = model->change_count,
		};
	}
	cr_assert_lt(failed, 30);
	(void)crash_all(model, 3);
	fake_store_set_plan(model->rig.store, &(struct fake_store_plan){ .seed = 1 });
	cr_assert_eq(jrig_close(&model->rig), 0);
	jrig_open(&model->rig);
	for (uint32_t pair = 0; pair < PAIRS; pair++)
		cr_assert_eq(base_get_le64(jrig_page(&model->rig, page_of(model, pair, 0))->data),
			     base_get_le64(jrig_page(&model->rig, page_of(model, pair, 1))->data));
	model_free(model);
}

Test(vhdx_journal, a_failed_flush_is_final)
{
	struct journal_rig rig;
	struct jrig_wait wait;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, false), 0);
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .fail_at = 1,
								  .fail_ops = 1U << STORE_FLUSH,
								  .fail_code = -EIO });
	jrig_put(&rig, jrig_bat(&rig), 0, 1, false);
	cr_assert_eq(jrig_commit(&rig), -EIO);
	cr_assert(rig.vhdx->image.failed);
	cr_assert_eq(jrig_commit(&rig), -EIO); /* though the store is well again */
	cr_assert_eq(vhdx_touch(rig.vhdx, true, &wait.waiter), -EIO);
	cr_assert_eq(jrig_close(&rig), -EIO);
	jrig_free(&rig);
}

/* A write that may land later is as good as a failed flush: nothing may be written there. */
Test(vhdx_journal, an_unknown_outcome_is_final)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, true), 0);
	jrig_put(&rig, jrig_bat(&rig), 0, 1, false);
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .fail_at = 1,
								  .fail_ops = 1U << STORE_WRITE,
								  .fail_code = -ETIMEDOUT });
	cr_assert_eq(jrig_commit(&rig), -ETIMEDOUT);
	cr_assert(rig.vhdx->image.failed);
	cr_assert_eq(jrig_commit(&rig), -EIO);
	jrig_free(&rig);
}

Test(vhdx_journal, without_memory_a_commit_fails_and_the_next_one_works)
{
	struct journal_rig rig;
	unsigned int failures = 0;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, true), 0);
	for (uint64_t k = 0;; k++) {
		int code;

		for (uint32_t i = 0; i < 20; i++)
			jrig_put(&rig, jrig_bat(&rig) + i * 4096ULL, 0, k, false);
		alloc_fail_at((unsigned int)k);
		code = jrig_commit(&rig);
		if (!alloc_fail_done()) {
			cr_assert_eq(code, 0);
			break;
		}
		failures++;
		cr_assert_eq(code, -ENOMEM);
		cr_assert_eq(vhdx_pages_dirty_count(rig.vhdx), 20);
	}
	cr_assert_geq(failures, 3);
	cr_assert_eq(jrig_close(&rig), 0);
	jrig_free(&rig);
}

/* More at once than the log holds: refused as a whole, never in two halves. */
Test(vhdx_journal, a_change_larger_than_the_log_fails_the_image)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, true), 0);
	for (uint32_t i = 0; i < 240; i++)
		jrig_put(&rig, jrig_bat(&rig) + i * 4096ULL, 0, 1, false);
	jrig_run(&rig); /* what is as large as the log still fits */
	cr_assert_eq(jrig_commit(&rig), 0);
	cr_assert(!rig.vhdx->image.failed);
	for (uint32_t i = 0; i < 260; i++)
		vhdx_page_put(jrig_page(&rig, jrig_bat(&rig) + i * 4096ULL));
	jrig_run(&rig);
	for (uint32_t i = 0; i < 260; i++)
		jrig_put(&rig, jrig_bat(&rig) + i * 4096ULL, 0, 2, false);
	cr_assert_eq(jrig_commit(&rig), -EIO);
	cr_assert(rig.vhdx->image.failed);
	jrig_free(&rig);
}

/* --- counts --- */

static void count_from_now(struct journal_rig *rig, enum store_op op)
{
	fake_store_set_plan(rig->store, &(struct fake_store_plan){ .fail_ops = 1U << op });
}

Test(vhdx_journal, flushes_are_shared_and_no_more_than_needed)
{
	struct journal_rig rig;
	struct jrig_wait waits[50];

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, true), 0);
	count_from_now(&rig, STORE_FLUSH); /* nothing dirty: one */
	cr_assert_eq(jrig_commit(&rig), 0);
	cr_assert_eq(fake_store_request_count(rig.store), 1);

	jrig_put(&rig, jrig_bat(&rig), 0, 1, false); /* fresh space: one */
	count_from_now(&rig, STORE_FLUSH);
	cr_assert_eq(jrig_commit(&rig), 0);
	cr_assert_eq(fake_store_request_count(rig.store), 1);

	jrig_put(&rig, jrig_bat(&rig), 0, 2, true); /* ordered: two */
	count_from_now(&rig, STORE_FLUSH);
	cr_assert_eq(jrig_commit(&rig), 0);
#ifndef GODWIT_MUTANT_VHDX_FLUSH
	cr_assert_eq(fake_store_request_count(rig.store), 2);
#endif

	count_from_now(&rig, STORE_FLUSH); /* many callers share */
	for (int i = 0; i < 50; i++) {
		jrig_wait_init(&waits[i]);
		vhdx_commit(rig.vhdx, &waits[i].waiter);
		if (i % 10 == 9)
			(void)base_io_loop_step(rig.loop, false);
	}
	jrig_run(&rig);
	for (int i = 0; i < 50; i++)
		cr_assert(waits[i].done && waits[i].result == 0);
	cr_assert_leq(fake_store_request_count(rig.store), 5);
	jrig_free(&rig);
}

Test(vhdx_journal, dirty_pages_are_committed_when_their_time_is_up)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, true), 0);
	jrig_put(&rig, jrig_bat(&rig), 0, 1, false);
	jrig_run(&rig);
	cr_assert(vhdx_commit_pending(rig.vhdx));
	cr_assert_eq(base_io_loop_next_ns(rig.loop), rig.fake.boot_ns + VHDX_COMMIT_NS);
	rig.fake.boot_ns += VHDX_COMMIT_NS;
	jrig_run(&rig);
	cr_assert(!vhdx_commit_pending(rig.vhdx));
	cr_assert_eq(base_io_loop_next_ns(rig.loop), BASE_TIME_NEVER);
	jrig_free(&rig);
}

Test(vhdx_journal, changes_wait_when_too_many_pages_are_dirty)
{
	struct journal_rig rig;
	struct jrig_wait wait;
	uint32_t limit;
	uint64_t number;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, true), 0);
	limit = rig.vhdx->journal->crowd_pages;
	cr_assert_leq(vhdx_log_entry_bytes(limit), VHDX_MIB / 4);
	for (uint32_t i = 0; i < limit; i++)
		vhdx_page_put(jrig_page(&rig, jrig_bat(&rig) + i * 4096ULL));
	jrig_wait_init(&wait);
	for (uint32_t i = 0; i < limit; i++) {
		cr_assert(!vhdx_commit_crowded(rig.vhdx, &wait.waiter));
		jrig_put(&rig, jrig_bat(&rig) + i * 4096ULL, 0, 1, false);
	}
	number = vhdx_commit_next(rig.vhdx);
	cr_assert(vhdx_commit_crowded(rig.vhdx, &wait.waiter));
	cr_assert(!wait.done);
	jrig_run(&rig);
	cr_assert(wait.done);
	cr_assert_eq(wait.result, 0);
	cr_assert_eq(vhdx_commit_durable(rig.vhdx), number);
	cr_assert_eq(vhdx_commit_next(rig.vhdx), number + 1);
	cr_assert(!vhdx_commit_crowded(rig.vhdx, &wait.waiter));
	jrig_free(&rig);
}

/* --- headers --- */

Test(vhdx_journal, a_session_that_touches_nothing_writes_nothing)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 4);
	jrig_open(&rig);
	cr_assert_eq(jrig_commit(&rig), 0);
	fake_store_set_plan(
		rig.store,
		&(struct fake_store_plan){ .fail_ops = 1U << STORE_WRITE | 1U << STORE_TRUNCATE });
	cr_assert_eq(jrig_close(&rig), 0);
	cr_assert_eq(fake_store_request_count(rig.store), 0);
	jrig_free(&rig);
}

Test(vhdx_journal, touching_renews_the_ids_once)
{
	struct journal_rig rig;
	struct jrig_wait waits[4];
	struct vhdx_header before, first, second;
	struct disk_guid id = disk_guid_new();
	uint64_t sequence;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	before = rig.vhdx->header;
	for (int i = 0; i < 4; i++) {
		jrig_wait_init(&waits[i]);
		cr_assert_eq(vhdx_touch(rig.vhdx, false, &waits[i].waiter), -EINPROGRESS);
	}
	jrig_run(&rig);
	for (int i = 0; i < 4; i++)
		cr_assert(waits[i].done && waits[i].result == 0);
	first = rig.vhdx->header;
	cr_assert_eq(first.sequence, before.sequence + 1);
	cr_assert(!disk_guid_equal(&first.file_write, &before.file_write));
	cr_assert(disk_guid_equal(&first.data_write, &before.data_write));
	cr_assert(!disk_guid_is_zero(&first.log));

	cr_assert_eq(jrig_touch(&rig, true), 0);
	second = rig.vhdx->header;
	cr_assert_eq(second.sequence, first.sequence + 1);
	cr_assert(disk_guid_equal(&second.file_write, &first.file_write));
	cr_assert(!disk_guid_equal(&second.data_write, &first.data_write));
	cr_assert(disk_guid_equal(&second.log, &first.log));
	cr_assert(disk_guid_equal(&rig.vhdx->image.data_id, &second.data_write));
	cr_assert_eq(jrig_touch(&rig, true), 0);
	cr_assert_eq(rig.vhdx->header.sequence, second.sequence);

	jrig_wait_init(&waits[0]);
	vhdx_journal_set_data_id(rig.vhdx, &id, &waits[0].waiter);
	jrig_run(&rig);
	cr_assert(waits[0].done && waits[0].result == 0);
	cr_assert(disk_guid_equal(&rig.vhdx->image.data_id, &id));
	sequence = rig.vhdx->header.sequence;
	cr_assert_eq(jrig_close(&rig), 0);
	jrig_open(&rig);
	cr_assert_eq(rig.vhdx->header.sequence, sequence + 1);
	cr_assert(disk_guid_is_zero(&rig.vhdx->header.log));
	cr_assert(disk_guid_equal(&rig.vhdx->image.data_id, &id));
	jrig_free(&rig);
}

Test(vhdx_journal, an_id_that_was_set_stays_over_the_first_change)
{
	struct journal_rig rig;
	struct jrig_wait wait;
	struct disk_guid id = disk_guid_new();

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	jrig_wait_init(&wait);
	vhdx_journal_set_data_id(rig.vhdx, &id, &wait.waiter);
	jrig_run(&rig);
	cr_assert(wait.done && wait.result == 0);
	cr_assert_eq(vhdx_touch(rig.vhdx, true, &wait.waiter), 0);
	cr_assert(disk_guid_equal(&rig.vhdx->image.data_id, &id));
	jrig_free(&rig);
}

/* Every request of the first change fails once, landed or not; a crash before the next try, or
 * after it, finds a file that opens. */
Test(vhdx_journal, a_touch_that_fails_can_be_tried_again)
{
	for (uint64_t k = 1; k <= 2; k++) {
		for (int lands = 0; lands < 2; lands++) {
			struct journal_rig rig;
			struct store *after = NULL;
			struct jrig_left left;

			jrig_new(&rig, 1, 0);
			cr_assert_eq(fake_store_record(rig.store, NULL), 0);
			jrig_open(&rig);
			fake_store_set_plan(
				rig.store, &(struct fake_store_plan){ .fail_at = k,
								      .fail_ops = 1U << STORE_WRITE,
								      .fail_code = -ENOSPC,
								      .fail_does_it = lands != 0 });
			cr_assert_eq(jrig_touch(&rig, true), -ENOSPC);
			cr_assert_eq(jrig_touch(&rig, true), 0);
			jrig_put(&rig, jrig_bat(&rig), 0, 1, false);
			cr_assert_eq(jrig_commit(&rig), 0);
			for (uint64_t e = 0; e <= fake_store_event_count(rig.store); e++) {
				cr_assert_eq(fake_store_crash(rig.store, e, FAKE_LOSE_SECTORS, e,
							      &after, NULL),
					     0);
				cr_assert_eq(jrig_left_open(&left, after), 0);
				jrig_left_fini(&left);
			}
			cr_assert_eq(jrig_close(&rig), 0);
			jrig_free(&rig);
		}
	}
}

Test(vhdx_journal, a_header_at_the_end_of_its_numbers_is_refused)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	rig.vhdx->header.sequence = UINT64_MAX - 1;
	cr_assert_eq(jrig_touch(&rig, true), -EBADMSG);
	cr_assert_eq(jrig_touch(&rig, true), -EBADMSG);
	jrig_free(&rig);
}

Test(vhdx_journal, a_log_of_a_wrong_size_is_refused)
{
	struct base_error err = { 0 };
	struct journal_rig rig;
	struct vhdx_header header;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	vhdx_journal_free(rig.vhdx);
	header = rig.vhdx->header;
	rig.vhdx->header.log_bytes = 4096;
	cr_assert_eq(vhdx_journal_begin(rig.vhdx, &err), -EBADMSG);
	cr_assert(strstr(err.text, "4096") != NULL);
	rig.vhdx->header = header;
	alloc_fail_at(0);
	cr_assert_eq(vhdx_journal_begin(rig.vhdx, &err), -ENOMEM);
	cr_assert(alloc_fail_done());
	cr_assert_eq(vhdx_journal_begin(rig.vhdx, &err), 0);
	jrig_free(&rig);
}

/* The end fails when its commit does; the log stays, and the next one replays it. */
Test(vhdx_journal, an_end_that_fails_leaves_the_log)
{
	struct journal_rig rig;

	for (uint64_t k = 1; k <= 4; k++) {
		int code;

		jrig_new(&rig, 1, 0);
		jrig_open(&rig);
		cr_assert_eq(jrig_touch(&rig, true), 0);
		jrig_put(&rig, jrig_bat(&rig), 0, 5, false);
		cr_assert_eq(jrig_commit(&rig), 0);
		jrig_put(&rig, jrig_bat(&rig) + 4096, 0, 6, false);
		fake_store_set_plan(rig.store,
				    &(struct fake_store_plan){ .fail_at = k,
							       .fail_ops = 1U << STORE_WRITE,
							       .fail_code = -EIO });
		code = jrig_close(&rig);
		cr_assert_eq(code, -EIO, "k %llu", (unsigned long long)k);
		jrig_open(&rig);
		cr_assert_eq(base_get_le64(jrig_page(&rig, jrig_bat(&rig))->data), 5);
		if (k > 1)
			cr_assert_eq(base_get_le64(jrig_page(&rig, jrig_bat(&rig) + 4096)->data),
				     6);
		jrig_free(&rig);
	}
}
