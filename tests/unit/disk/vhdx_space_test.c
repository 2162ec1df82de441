/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/depth.h"
#include "tests/support/journal_rig.h"

#define MIB VHDX_MIB

/* An entry of the BAT as it is in the file. */
static void entry_poke(struct journal_rig *rig, uint64_t index, uint64_t entry)
{
	uint8_t bytes[8];

	base_put_le64(bytes, entry);
	cr_assert(fake_store_poke(rig->store, JRIG_NAME, jrig_bat(rig) + index * 8, bytes,
				  sizeof(bytes)));
}

static uint64_t block_at(const struct journal_rig *rig, uint32_t index)
{
	return jrig_blocks(rig) + index * MIB;
}

static uint64_t take(struct journal_rig *rig, uint64_t length_bytes, bool want_fresh)
{
	uint64_t offset = 0;
	bool fresh = !want_fresh;

	cr_assert_eq(jrig_take(rig, length_bytes, &offset, &fresh), 0);
	cr_assert_eq(fresh, want_fresh);
	cr_assert_eq(offset % MIB, 0);
	cr_assert_geq(offset, jrig_blocks(rig));
	cr_assert_leq(offset + length_bytes, rig->vhdx->file_bytes);
	return offset;
}

static int scan(struct journal_rig *rig)
{
	struct jrig_wait wait;
	int code;

	jrig_wait_init(&wait);
	code = vhdx_space_scan(rig->vhdx, &wait.waiter);
	if (code != -EINPROGRESS)
		return code;
	jrig_run(rig);
	cr_assert(wait.done);
	return wait.result;
}

Test(vhdx_space, fresh_space_comes_from_the_end_once)
{
	struct journal_rig rig;
	uint64_t begin;

	jrig_new(&rig, 1, 3);
	jrig_open(&rig);
	for (uint32_t i = 0; i < 3; i++)
		entry_poke(&rig, i, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, i)));
	begin = rig.vhdx->file_bytes;
	cr_assert_eq(take(&rig, MIB, true), begin);
	cr_assert_eq(take(&rig, 4 * MIB, true), begin + MIB);
	cr_assert_eq(take(&rig, MIB, true), begin + 5 * MIB);
	jrig_run(&rig);
	cr_assert(vhdx_space_known(rig.vhdx));
	cr_assert_eq(vhdx_space_end(rig.vhdx), begin + 6 * MIB);
	jrig_free(&rig);
}

Test(vhdx_space, what_no_table_names_is_found_and_is_not_fresh)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 6);
	jrig_open(&rig);
	entry_poke(&rig, 0, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 1)));
	entry_poke(&rig, 4096, vhdx_entry_make(VHDX_BITMAP_PRESENT, block_at(&rig, 3)));
	entry_poke(&rig, 200000, vhdx_entry_make(VHDX_BLOCK_UNMAPPED, block_at(&rig, 5)));
	cr_assert_eq(scan(&rig), 0);
	cr_assert(vhdx_space_is_free(rig.vhdx, block_at(&rig, 0), MIB));
	cr_assert(!vhdx_space_is_free(rig.vhdx, block_at(&rig, 0), 2 * MIB));
	cr_assert(!vhdx_space_is_free(rig.vhdx, 0, MIB));
	cr_assert(!vhdx_space_is_free(rig.vhdx, block_at(&rig, 5), MIB));
	cr_assert_eq(take(&rig, 2 * MIB, true), block_at(&rig, 6));
	cr_assert_eq(take(&rig, MIB, false), block_at(&rig, 0));
	cr_assert_eq(take(&rig, MIB, false), block_at(&rig, 2));
	cr_assert_eq(take(&rig, MIB, false), block_at(&rig, 4));
	cr_assert_eq(take(&rig, MIB, true), block_at(&rig, 8));
	jrig_free(&rig);
}

/* W3: not before the commit that ended its use, and not fresh. */
Test(vhdx_space, released_space_waits_for_its_commit)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 1);
	jrig_open(&rig);
	entry_poke(&rig, 0, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 0)));
	cr_assert_eq(jrig_touch(&rig, true), 0);
	cr_assert_eq(scan(&rig), 0);
	jrig_put(&rig, jrig_bat(&rig), 0, 0, false);
	vhdx_space_release(rig.vhdx, block_at(&rig, 0), MIB);
	cr_assert(!vhdx_space_is_free(rig.vhdx, block_at(&rig, 0), MIB));
	cr_assert_eq(take(&rig, MIB, true), block_at(&rig, 1));
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .fail_at = 1,
								  .fail_ops = 1U << STORE_WRITE,
								  .fail_code = -EIO });
	cr_assert_eq(jrig_commit(&rig), -EIO);
	cr_assert(!vhdx_space_is_free(rig.vhdx, block_at(&rig, 0), MIB));
	cr_assert_eq(jrig_commit(&rig), 0);
	cr_assert_eq(take(&rig, MIB, false), block_at(&rig, 0));
	jrig_free(&rig);
}

/* The commit under way took its pages before the change: it is not the one to wait for. */
Test(vhdx_space, space_released_during_a_commit_waits_for_the_next)
{
	struct journal_rig rig;
	struct jrig_wait wait;

	jrig_new(&rig, 1, 1);
	jrig_open(&rig);
	entry_poke(&rig, 0, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 0)));
	cr_assert_eq(jrig_touch(&rig, true), 0);
	cr_assert_eq(scan(&rig), 0);
	jrig_put(&rig, jrig_bat(&rig), 8, 0, true);
	jrig_wait_init(&wait);
	vhdx_commit(rig.vhdx, &wait.waiter);
	while (rig.vhdx->journal->entry == NULL)
		(void)base_io_loop_step(rig.loop, false);
	jrig_put(&rig, jrig_bat(&rig), 0, 0, false);
	vhdx_space_release(rig.vhdx, block_at(&rig, 0), MIB);
	cr_assert(!wait.done);
	jrig_run(&rig);
	cr_assert(wait.done);
	cr_assert(!vhdx_space_is_free(rig.vhdx, block_at(&rig, 0), MIB));
	cr_assert_eq(jrig_commit(&rig), 0);
	cr_assert(vhdx_space_is_free(rig.vhdx, block_at(&rig, 0), MIB));
	jrig_free(&rig);
}

/* Where a bitmap was, a replay would still write: free only when the log has forgotten it. */
Test(vhdx_space, released_space_of_a_bitmap_waits_for_the_log)
{
	struct journal_rig rig;
	uint64_t at;
	uint32_t commits = 0;

	jrig_new(&rig, 1, 1);
	jrig_open(&rig);
	entry_poke(&rig, 0, vhdx_entry_make(VHDX_BITMAP_PRESENT, block_at(&rig, 0)));
	cr_assert_eq(jrig_touch(&rig, true), 0);
	cr_assert_eq(scan(&rig), 0);
	at = block_at(&rig, 0);
	jrig_put(&rig, at + 8192, 0, 77, true);
	cr_assert_eq(jrig_commit(&rig), 0);
	jrig_put(&rig, jrig_bat(&rig), 0, 0, false);
	vhdx_space_release(rig.vhdx, at, MIB);
	cr_assert_eq(jrig_commit(&rig), 0);
	cr_assert(!vhdx_space_is_free(rig.vhdx, at, MIB));
	while (!vhdx_space_is_free(rig.vhdx, at, MIB)) {
		cr_assert_neq(vhdx_log_newest_over(rig.vhdx, at, MIB), 0);
		jrig_put(&rig, jrig_bat(&rig) + 4096, 0, ++commits, false);
		cr_assert_eq(jrig_commit(&rig), 0);
		cr_assert_lt(commits, 1000);
	}
	cr_assert_eq(vhdx_log_newest_over(rig.vhdx, at, MIB), 0);
	cr_assert_gt(commits, 10);
	cr_assert_null(vhdx_page_peek(rig.vhdx, at + 8192)); /* nothing old in memory either */
	jrig_free(&rig);
}

Test(vhdx_space, space_given_back_is_free_at_once_and_not_fresh)
{
	struct journal_rig rig;
	uint64_t at;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, true), 0);
	at = take(&rig, MIB, true);
	vhdx_space_give_back(rig.vhdx, at, MIB); /* while the scan runs */
	cr_assert_eq(scan(&rig), 0);
	cr_assert_eq(take(&rig, MIB, false), at);
	jrig_put(&rig, at, 0, 1, true); /* its pages are forgotten */
	vhdx_space_give_back(rig.vhdx, at, MIB);
	cr_assert_eq(vhdx_pages_dirty_count(rig.vhdx), 0);
	cr_assert_eq(take(&rig, MIB, false), at);
	jrig_free(&rig);
}

/* The scan reads while blocks are taken and freed: nothing is ever given to two. */
Test(vhdx_space, the_scan_goes_well_with_changes)
{
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct journal_rig rig;
		struct jrig_wait wait;
		uint64_t mine[40] = { 0 };

		jrig_new(&rig, 1, 20);
		jrig_open(&rig);
		for (uint32_t i = 0; i < 20; i++)
			entry_poke(&rig, i * 10000ULL + 1,
				   vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, i)));
		cr_assert_eq(jrig_touch(&rig, true), 0);
		fake_store_set_plan(rig.store, &(struct fake_store_plan){ .seed = seed,
									  .reorder = true,
									  .delay_steps = 20 });
		jrig_wait_init(&wait);
		cr_assert_eq(vhdx_space_scan(rig.vhdx, &wait.waiter), -EINPROGRESS);
		for (uint32_t i = 0; i < 20; i++) {
			uint64_t index = i * 10000ULL + 1;

			if ((seed + i) % 3 != 0)
				continue;
			jrig_put(&rig, jrig_bat(&rig) + index * 8 / 4096 * 4096,
				 (uint32_t)(index * 8 % 4096), 0, false);
			vhdx_space_release(rig.vhdx, block_at(&rig, i), MIB);
			if (i % 2 == 0)
				cr_assert_eq(jrig_commit(&rig), 0);
		}
		for (uint32_t i = 0; i < 40; i++) {
			bool fresh;

			cr_assert_eq(jrig_take(&rig, MIB, &mine[i], &fresh), 0);
			cr_assert_eq(fresh, mine[i] >= block_at(&rig, 20));
			for (uint32_t k = 0; k < i; k++)
				cr_assert_neq(mine[i], mine[k]);
			for (uint32_t k = 0; k < 20; k++) /* still in use */
				cr_assert(mine[i] != block_at(&rig, k) || (seed + k) % 3 == 0);
		}
		jrig_run(&rig);
		cr_assert(wait.done);
		cr_assert_eq(jrig_close(&rig), 0);
		jrig_free(&rig);
	}
}

/* --- power failures --- */

#define OWNERS 12U

/* A block with data (even owners) or a page of a table (odd ones) that says whose it is. */
static void own(struct journal_rig *rig, uint32_t owner, uint64_t *place)
{
	uint8_t data[4096] = { 0 };
	uint64_t offset = 0;
	bool fresh = false;

	if (*place != 0) {
		jrig_put(rig, jrig_bat(rig), owner * 8, 0, false);
		vhdx_space_release(rig->vhdx, *place, MIB);
		*place = 0;
		return;
	}
	cr_assert_eq(jrig_take(rig, MIB, &offset, &fresh), 0);
	vhdx_page_put(jrig_page(rig, jrig_bat(rig)));
	base_put_le64(data, owner + 1);
	if (owner % 2 == 0) {
		cr_assert_eq(jrig_store(rig, STORE_WRITE, offset, data, sizeof(data)), 0);
	} else {
		struct vhdx_page *page = NULL;

		cr_assert_eq(vhdx_page_fresh(rig->vhdx, offset, &page), 0);
		base_put_le64(page->data, owner + 1);
		vhdx_page_dirty(page, !fresh);
		vhdx_page_put(page);
	}
	jrig_put(rig, jrig_bat(rig), owner * 8, vhdx_entry_make(VHDX_BLOCK_FULL, offset), !fresh);
	*place = offset;
}

/* W3: whoever a table names, is in its own place, alone, inside the file. */
static void owners_check(struct journal_rig *rig, uint64_t event)
{
	struct store *after = NULL;
	struct jrig_left left;
	uint64_t offsets[OWNERS];

	cr_assert_eq(fake_store_crash(rig->store, event, FAKE_LOSE_NONE + event % 4, event, &after,
				      NULL),
		     0);
	cr_assert_eq(jrig_left_open(&left, after), 0, "event %llu", (unsigned long long)event);
	for (uint32_t owner = 0; owner < OWNERS; owner++) {
		uint64_t offset =
			vhdx_entry_offset(jrig_left_value(&left, jrig_bat(rig) + owner * 8ULL));
		uint64_t end = left.overlay != NULL ? vhdx_overlay_file_bytes(left.overlay)
						    : left.file_bytes;
		uint64_t whose;

		offsets[owner] = offset;
		if (offset == 0)
			continue;
		cr_assert_leq(offset + MIB, end);
		whose = jrig_left_value(&left, offset);
		cr_assert(whose == owner + 1 || (whose == 0 && owner % 2 == 0),
			  "event %llu: block of %u holds %llu", (unsigned long long)event, owner,
			  (unsigned long long)whose);
		for (uint32_t other = 0; other < owner; other++)
			cr_assert_neq(offsets[other], offset);
	}
	jrig_left_fini(&left);
}

Test(vhdx_space, no_crash_gives_space_to_two, .timeout = 240)
{
	struct journal_rig rig;
	uint64_t places[OWNERS] = { 0 };
	uint64_t random = 5;
	uint32_t reused = 0;

	jrig_new(&rig, 1, 0);
	cr_assert_eq(fake_store_record(rig.store, NULL), 0);
	jrig_open(&rig);
	fake_store_set_plan(rig.store, &(struct fake_store_plan){
					       .seed = 9, .reorder = true, .delay_steps = 2 });
	cr_assert_eq(jrig_touch(&rig, true), 0);
	cr_assert_eq(scan(&rig), 0);
	for (uint32_t i = 0; i < 900; i++) {
		uint32_t owner;

		random = random * 6364136223846793005ULL + 1442695040888963407ULL;
		owner = (uint32_t)(random >> 33) % OWNERS;
		own(&rig, owner, &places[owner]);
		reused += places[owner] != 0;
		if ((random >> 50) % 3 == 0)
			cr_assert_eq(jrig_commit(&rig), 0);
	}
	cr_assert_gt(reused, 300);
	cr_assert_lt(rig.vhdx->space->end_bytes, jrig_blocks(&rig) + 150 * MIB); /* it is reused */
	for (uint64_t event = 0; event <= fake_store_event_count(rig.store);
	     event += depth_stride())
		owners_check(&rig, event);
	cr_assert_eq(jrig_close(&rig), 0);
	jrig_free(&rig);
}

/* --- extending --- */

Test(vhdx_space, the_file_grows_in_steps)
{
	struct journal_rig rig;
	uint64_t before;

	jrig_new(&rig, 1, 800);
	jrig_open(&rig);
	cr_assert_eq(scan(&rig), 0);
	vhdx_units_mark(rig.vhdx->space, 0, rig.vhdx->file_bytes); /* as if all were in use */
	before = rig.vhdx->file_bytes;
	fake_store_set_plan(rig.store,
			    &(struct fake_store_plan){ .fail_ops = 1U << STORE_TRUNCATE });
	for (uint32_t i = 0; i < 64; i++)
		(void)take(&rig, MIB, true);
	cr_assert_eq(fake_store_request_count(rig.store), 1);
	cr_assert_eq(rig.vhdx->file_bytes, before + 64 * MIB);
	(void)take(&rig, 256 * MIB, true);
	cr_assert_eq(fake_store_request_count(rig.store), 2);
	cr_assert_eq(rig.vhdx->file_bytes, before + 320 * MIB);
	jrig_free(&rig);
}

Test(vhdx_space, a_file_that_cannot_grow_says_so_to_all_who_wait)
{
	struct journal_rig rig;
	struct jrig_wait waits[3];
	uint64_t offset;
	bool fresh;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .fail_at = 1,
								  .fail_ops = 1U << STORE_TRUNCATE,
								  .fail_code = -ENOSPC,
								  .fail_forever = true });
	cr_assert_eq(scan(&rig), 0);
	for (int i = 0; i < 3; i++) {
		jrig_wait_init(&waits[i]);
		cr_assert_eq(vhdx_space_take(rig.vhdx, MIB, &waits[i].waiter, &offset, &fresh),
			     -EINPROGRESS);
	}
	jrig_run(&rig);
	for (int i = 0; i < 3; i++) {
		cr_assert(waits[i].done);
		cr_assert_eq(waits[i].result, -ENOSPC);
	}
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .seed = 1 });
	(void)take(&rig, MIB, true);
	jrig_free(&rig);
}

Test(vhdx_space, a_file_of_unknown_size_is_final)
{
	struct journal_rig rig;
	uint64_t offset;
	bool fresh;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .fail_at = 1,
								  .fail_ops = 1U << STORE_TRUNCATE,
								  .fail_code = -ETIMEDOUT });
	cr_assert_eq(jrig_take(&rig, MIB, &offset, &fresh), -ETIMEDOUT);
	cr_assert(rig.vhdx->image.failed);
	cr_assert_eq(jrig_take(&rig, MIB, &offset, &fresh), -EIO);
	jrig_free(&rig);
}

Test(vhdx_space, without_memory_nothing_is_taken)
{
	struct journal_rig rig;
	struct jrig_wait wait;
	unsigned int failures = 0;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	jrig_wait_init(&wait);
	for (unsigned int k = 0;; k++) {
		uint64_t offset;
		bool fresh;
		int code;

		alloc_fail_at(k);
		code = vhdx_space_take(rig.vhdx, MIB, &wait.waiter, &offset, &fresh);
		if (!alloc_fail_done())
			break;
		failures++;
		cr_assert_eq(code, -ENOMEM);
	}
	cr_assert_geq(failures, 1);
	jrig_run(&rig);
	alloc_fail_at(0); /* what cannot be remembered as free is not given out again */
	vhdx_space_give_back(rig.vhdx, take(&rig, MIB, true), MIB);
	(void)alloc_fail_done();
	jrig_free(&rig);
}

/* --- damaged tables --- */

Test(vhdx_space, tables_that_contradict_each_other_end_the_reuse_of_space)
{
	for (int kind = 0; kind < 3; kind++) {
		struct journal_rig rig;
		uint64_t end;

		jrig_new(&rig, 1, 4);
		jrig_open(&rig);
		entry_poke(&rig, 0, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 1)));
		if (kind == 0) /* two blocks in one place */
			entry_poke(&rig, 9, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 1)));
		if (kind == 1) /* over the log */
			entry_poke(&rig, 9, vhdx_entry_make(VHDX_BLOCK_FULL, MIB));
		if (kind == 2) /* no file is that long */
			entry_poke(&rig, 9, UINT64_MAX);
		cr_assert_eq(scan(&rig), 0);
		end = rig.vhdx->file_bytes;
		cr_assert_eq(take(&rig, MIB, true), end);
		cr_assert(!vhdx_space_is_free(rig.vhdx, block_at(&rig, 0), MIB));
		cr_assert_eq(vhdx_space_cut_bytes(rig.vhdx), rig.vhdx->file_bytes);
		jrig_free(&rig);
	}
}

Test(vhdx_space, space_behind_the_file_that_a_table_names_is_never_given_out)
{
	struct journal_rig rig;
	uint64_t offset;
	bool fresh;

	jrig_new(&rig, 1, 4);
	jrig_open(&rig);
	for (uint32_t i = 0; i < 4; i++)
		entry_poke(&rig, i, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, i)));
	entry_poke(&rig, 9, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 6)));
	cr_assert_eq(scan(&rig), 0);
	cr_assert_eq(take(&rig, 2 * MIB, true), block_at(&rig, 4));
	cr_assert_eq(jrig_take(&rig, MIB, &offset, &fresh), -EBADMSG);
	jrig_free(&rig);
}

/* Whatever is taken before the scan's end must not be what a damaged entry names. */
Test(vhdx_space, nobody_takes_space_before_the_scan_is_over)
{
	struct journal_rig rig;
	struct jrig_wait wait;
	uint64_t offset = 0;
	bool fresh = false;

	jrig_new(&rig, 1, 4);
	jrig_open(&rig);
	for (uint32_t i = 0; i < 4; i++)
		entry_poke(&rig, i, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, i)));
	entry_poke(&rig, 200000, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 4)));
	jrig_wait_init(&wait);
	cr_assert_eq(vhdx_space_take(rig.vhdx, MIB, &wait.waiter, &offset, &fresh), -EINPROGRESS);
	cr_assert_eq(jrig_take(&rig, MIB, &offset, &fresh), -EBADMSG);
	cr_assert_eq(rig.vhdx->file_bytes, block_at(&rig, 4)); /* nor does it come to be */
	jrig_free(&rig);
}

Test(vhdx_space, the_file_does_not_grow_over_what_a_damaged_table_names)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 100);
	jrig_open(&rig);
	entry_poke(&rig, 9, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 103)));
	cr_assert_eq(scan(&rig), 0);
	vhdx_units_mark(rig.vhdx->space, 0, rig.vhdx->file_bytes);
	(void)take(&rig, MIB, true); /* a step would be longer */
	cr_assert_eq(rig.vhdx->file_bytes, block_at(&rig, 103));
	jrig_free(&rig);
}

/* One of two owners of a place gives it up while the scan goes on: the other still has it. */
Test(vhdx_space, a_place_with_two_owners_is_not_free_when_one_leaves)
{
	/* Who leaves, and where the scan is then: before both; between them; it has not begun. */
	static const struct {
		uint64_t leaves, stays, scanned_to;
		bool begun;
	} cases[] = {
		{ 200000, 0, 0, true },  { 200000, 0, MIB, true }, { 0, 200000, MIB, true },
		{ 200000, 0, 0, false }, { 0, 200000, 0, true },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct journal_rig rig;
		struct jrig_wait wait;
		uint64_t entry;
		uint64_t place = cases[i].leaves * 8;

		jrig_new(&rig, 1, 4);
		jrig_open(&rig);
		entry = vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 1));
		entry_poke(&rig, cases[i].leaves, entry);
		entry_poke(&rig, cases[i].stays, entry);
		cr_assert_eq(jrig_touch(&rig, true), 0);
		vhdx_page_put(jrig_page(&rig, jrig_bat(&rig) + place / 4096 * 4096));
		jrig_wait_init(&wait);
		if (cases[i].begun)
			cr_assert_eq(vhdx_space_scan(rig.vhdx, &wait.waiter), -EINPROGRESS);
		while (rig.vhdx->space->scan_done < cases[i].scanned_to)
			(void)base_io_loop_step(rig.loop, false);
		jrig_put(&rig, jrig_bat(&rig) + place / 4096 * 4096, (uint32_t)(place % 4096), 0,
			 false);
		vhdx_space_release_entry(rig.vhdx, cases[i].leaves, entry, MIB);
		cr_assert_eq(scan(&rig), 0, "case %zu", i);
		cr_assert_eq(jrig_commit(&rig), 0);
		jrig_run(&rig);
		cr_assert(!vhdx_space_is_free(rig.vhdx, block_at(&rig, 1), MIB), "case %zu", i);
		cr_assert_eq(take(&rig, MIB, true), block_at(&rig, 4), "case %zu", i);
		jrig_free(&rig);
	}
}

/* A crash may leave a file that ends within a MiB: space there is taken only inside the file. */
Test(vhdx_space, free_space_where_the_file_ends_is_made_whole_first)
{
	struct journal_rig rig;
	uint64_t at;

	jrig_new(&rig, 1, 2);
	jrig_open(&rig);
	cr_assert_eq(jrig_store(&rig, STORE_TRUNCATE, block_at(&rig, 1) + 4096, NULL, 0), 0);
	jrig_drop(&rig);
	jrig_open(&rig);
	entry_poke(&rig, 0, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 0)));
	at = take(&rig, MIB, false); /* looks at the file's size, too */
	cr_assert_eq(at, block_at(&rig, 1));
	jrig_free(&rig);
}

/* The file was cut within a block: it must not grow, or what is lost would read zero. */
Test(vhdx_space, a_file_cut_within_a_block_does_not_grow)
{
	struct journal_rig rig;
	uint64_t offset;
	bool fresh;

	jrig_new(&rig, 1, 2);
	jrig_open(&rig);
	cr_assert_eq(jrig_store(&rig, STORE_TRUNCATE, block_at(&rig, 1) + 4096, NULL, 0), 0);
	jrig_drop(&rig);
	jrig_open(&rig);
	entry_poke(&rig, 0, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 1)));
	cr_assert_eq(jrig_take(&rig, MIB, &offset, &fresh), -EBADMSG);
	cr_assert_eq(rig.vhdx->file_bytes, block_at(&rig, 1) + 4096);
	jrig_free(&rig);
}

/* What somebody let an unmapped entry keep is released when the entry is replaced. */
Test(vhdx_space, kept_space_is_released_only_when_it_is_nobody_elses)
{
	for (int shared = 0; shared < 2; shared++) {
		struct journal_rig rig;
		uint64_t entry;

		jrig_new(&rig, 1, 2);
		jrig_open(&rig);
		entry = vhdx_entry_make(VHDX_BLOCK_UNMAPPED, block_at(&rig, 1));
		entry_poke(&rig, 5, entry);
		if (shared != 0)
			entry_poke(&rig, 6, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 1)));
		cr_assert_eq(jrig_touch(&rig, true), 0);
		cr_assert_eq(scan(&rig), 0);
		jrig_put(&rig, jrig_bat(&rig), 5 * 8, 0, false);
		vhdx_space_release_kept(rig.vhdx, entry, MIB);
		cr_assert(!vhdx_space_is_free(rig.vhdx, block_at(&rig, 1), MIB));
		cr_assert_eq(jrig_commit(&rig), 0);
		cr_assert_eq(vhdx_space_is_free(rig.vhdx, block_at(&rig, 1), MIB), shared == 0);
		jrig_free(&rig);
	}
}

Test(vhdx_space, after_a_write_of_unknown_outcome_nothing_is_reused)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 2);
	jrig_open(&rig);
	cr_assert_eq(scan(&rig), 0);
	cr_assert(vhdx_space_is_free(rig.vhdx, block_at(&rig, 0), MIB));
	vhdx_space_unsure(rig.vhdx);
	cr_assert_eq(take(&rig, MIB, true), block_at(&rig, 2));
	cr_assert_eq(vhdx_space_cut_bytes(rig.vhdx), rig.vhdx->file_bytes);
	jrig_free(&rig);
}

Test(vhdx_space, a_scan_that_fails_is_told_and_tried_again)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 4);
	jrig_open(&rig);
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .fail_at = 1,
								  .fail_ops = 1U << STORE_READ,
								  .fail_code = -EIO });
	cr_assert_eq(scan(&rig), -EIO);
	cr_assert(!vhdx_space_known(rig.vhdx));
	(void)take(&rig, MIB, false);
	cr_assert(vhdx_space_known(rig.vhdx));
	jrig_free(&rig);
}

/* --- the end of a session --- */

Test(vhdx_space, the_unused_end_is_cut_when_the_session_ends)
{
	struct journal_rig rig;
	struct jrig_wait wait;
	uint64_t size = 0;

	jrig_new(&rig, 1, 8);
	jrig_open(&rig);
	entry_poke(&rig, 0, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 2)));
	cr_assert_eq(jrig_touch(&rig, true), 0);
	cr_assert_eq(scan(&rig), 0);
	cr_assert_eq(jrig_close(&rig), 0);
	cr_assert(fake_store_file_bytes(rig.store, JRIG_NAME, &size));
	cr_assert_eq(size, block_at(&rig, 3));
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, true), 0);
	jrig_wait_init(&wait);
	cr_assert_eq(vhdx_space_scan(rig.vhdx, &wait.waiter), -EINPROGRESS);
	cr_assert_eq(jrig_close(&rig), 0); /* while the scan runs: nothing is sure */
	cr_assert(wait.done);
	cr_assert(fake_store_file_bytes(rig.store, JRIG_NAME, &size));
	cr_assert_eq(size, block_at(&rig, 3));
	jrig_free(&rig);
}

Test(vhdx_space, compaction_gets_the_lowest_place)
{
	struct journal_rig rig;
	uint64_t offset = 0;

	jrig_new(&rig, 1, 8);
	jrig_open(&rig);
	entry_poke(&rig, 0, vhdx_entry_make(VHDX_BLOCK_FULL, block_at(&rig, 1)));
	cr_assert(!vhdx_space_take_below(rig.vhdx, MIB, UINT64_MAX, &offset)); /* not known */
	cr_assert_eq(scan(&rig), 0);
	cr_assert(vhdx_space_take_below(rig.vhdx, 2 * MIB, UINT64_MAX, &offset));
	cr_assert_eq(offset, block_at(&rig, 2));
	cr_assert(vhdx_space_take_below(rig.vhdx, MIB, block_at(&rig, 1), &offset));
	cr_assert_eq(offset, block_at(&rig, 0));
	cr_assert(!vhdx_space_take_below(rig.vhdx, MIB, block_at(&rig, 4), &offset));
	jrig_free(&rig);
}

/* The map against a plain array. */
Test(vhdx_space, the_map_finds_what_a_plain_search_finds)
{
	struct vhdx_space space = { 0 };
	bool plain[2048] = { false };
	uint64_t random = 1;

	cr_assert_eq(vhdx_units_grow(&space, 2000 * MIB), 0);
	for (uint32_t round = 0; round < 3000; round++) {
		uint64_t first, length, found, at;

		random = random * 6364136223846793005ULL + 1442695040888963407ULL;
		first = (random >> 33) % 1990;
		length = 1 + (random >> 50) % (round % 10 == 0 ? 300 : 9);
		if (first + length > 2000)
			length = 2000 - first;
		if (((random >> 30) & 1) != 0)
			vhdx_units_mark(&space, first * MIB, length * MIB);
		else
			vhdx_units_clear(&space, first * MIB, length * MIB);
		for (uint64_t i = 0; i < length; i++)
			plain[first + i] = ((random >> 30) & 1) != 0;
		found = vhdx_units_find(&space, first, 2000, length);
		for (at = first; at + length <= 2000; at++) {
			uint64_t run = 0;

			while (run < length && !plain[at + run])
				run++;
			if (run == length)
				break;
		}
		cr_assert_eq(found, at + length <= 2000 ? at : UINT64_MAX);
		at = 2000;
		while (at > 0 && !plain[at - 1])
			at--;
		cr_assert_eq(vhdx_units_end(&space), at * MIB);
	}
	vhdx_units_mark(&space, UINT64_MAX - 5, UINT64_MAX); /* clipped */
	vhdx_units_mark(&space, 0, UINT64_MAX);
	cr_assert_eq(vhdx_units_find(&space, 0, 2000, 1), UINT64_MAX);
	cr_assert_eq(vhdx_units_grow(&space, UINT64_MAX), -EFBIG);
	cr_assert_eq(vhdx_units_grow(&space, 100000 * MIB), 0);
	cr_assert_eq(vhdx_units_find(&space, 0, 100000, 5000), 2048);
	free(space.used);
}
