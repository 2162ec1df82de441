/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/journal_rig.h"

static uint64_t page_at(const struct journal_rig *rig, uint32_t index)
{
	return jrig_bat(rig) + (uint64_t)index * VHDX_PAGE_BYTES;
}

static void poke(struct journal_rig *rig, uint64_t offset_bytes, uint64_t value)
{
	uint8_t bytes[8];

	base_put_le64(bytes, value);
	cr_assert(fake_store_poke(rig->store, JRIG_NAME, offset_bytes, bytes, sizeof(bytes)));
}

Test(vhdx_pages, a_page_is_read_once_and_all_who_wait_find_it)
{
	struct journal_rig rig;
	struct jrig_wait waits[3];
	struct vhdx_page *page = NULL;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	poke(&rig, page_at(&rig, 5) + 16, 77);
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .seed = 1 });
	for (int i = 0; i < 3; i++) {
		jrig_wait_init(&waits[i]);
		cr_assert_eq(vhdx_page_get(rig.vhdx, page_at(&rig, 5), &waits[i].waiter, &page),
			     -EINPROGRESS);
		cr_assert(!waits[i].done);
	}
	jrig_run(&rig);
	for (int i = 0; i < 3; i++) {
		cr_assert(waits[i].done);
		cr_assert_eq(waits[i].result, 0);
		cr_assert_eq(vhdx_page_get(rig.vhdx, page_at(&rig, 5), &waits[i].waiter, &page), 0);
		cr_assert_eq(base_get_le64(page->data + 16), 77);
	}
	cr_assert_eq(page->pins, 3);
	cr_assert_eq(fake_store_request_count(rig.store), 1);
	jrig_free(&rig);
}

Test(vhdx_pages, a_read_that_fails_is_told_and_can_be_tried_again)
{
	struct journal_rig rig;
	struct jrig_wait wait;
	struct vhdx_page *page = NULL;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	fake_store_set_plan(rig.store,
			    &(struct fake_store_plan){ .fail_at = 1, .fail_code = -EIO });
	jrig_wait_init(&wait);
	cr_assert_eq(vhdx_page_get(rig.vhdx, page_at(&rig, 0), &wait.waiter, &page), -EINPROGRESS);
	jrig_run(&rig);
	cr_assert(wait.done);
	cr_assert_eq(wait.result, -EIO);
	cr_assert_eq(rig.vhdx->pages->count, 0);
	cr_assert_not_null(jrig_page(&rig, page_at(&rig, 0)));
	jrig_free(&rig);
}

/* More pages than are kept: the oldest clean ones go, and read the same when they come back. */
Test(vhdx_pages, clean_pages_are_bounded)
{
	struct journal_rig rig;
	uint32_t count = VHDX_PAGES_MAX + 300;

	jrig_new(&rig, 1, 20);
	jrig_open(&rig);
	for (uint32_t i = 0; i < count; i++)
		poke(&rig, page_at(&rig, i), i + 1);
	for (int round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < count; i++) {
			struct vhdx_page *page = jrig_page(&rig, page_at(&rig, i));

			cr_assert_not_null(page);
			cr_assert_eq(base_get_le64(page->data), i + 1);
			vhdx_page_put(page);
			cr_assert_leq(rig.vhdx->pages->count, VHDX_PAGES_MAX + 1);
		}
	}
	cr_assert_eq(rig.vhdx->pages->idle_count, VHDX_PAGES_MAX);
	jrig_free(&rig);
}

Test(vhdx_pages, pinned_dirty_and_logged_pages_stay)
{
	struct journal_rig rig;
	struct vhdx_page *pinned;

	jrig_new(&rig, 1, 20);
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, true), 0);
	jrig_put(&rig, page_at(&rig, 0), 0, 1, false);
	cr_assert_eq(jrig_commit(&rig), 0); /* logged, not home */
	jrig_put(&rig, page_at(&rig, 1), 0, 2, false);
	pinned = jrig_page(&rig, page_at(&rig, 2));
	base_put_le64(pinned->data, 3);
	for (uint32_t i = 3; i < VHDX_PAGES_MAX + 100; i++)
		vhdx_page_put(jrig_page(&rig, page_at(&rig, i)));
	cr_assert_not_null(vhdx_page_peek(rig.vhdx, page_at(&rig, 0))->logged);
	cr_assert(vhdx_page_peek(rig.vhdx, page_at(&rig, 1))->dirty);
	cr_assert_eq(vhdx_page_peek(rig.vhdx, page_at(&rig, 2)), pinned);
	cr_assert_null(vhdx_page_peek(rig.vhdx, page_at(&rig, 3)));
	jrig_free(&rig);
}

Test(vhdx_pages, a_fresh_page_reads_nothing_and_is_zero)
{
	struct journal_rig rig;
	struct vhdx_page *page = NULL;

	jrig_new(&rig, 1, 4);
	jrig_open(&rig);
	poke(&rig, jrig_blocks(&rig), 5); /* what was there before the space was cleared */
	vhdx_page_put(jrig_page(&rig, jrig_blocks(&rig)));
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .seed = 1 });
	cr_assert_eq(vhdx_page_fresh(rig.vhdx, jrig_blocks(&rig), &page), 0);
	cr_assert(base_is_zero(page->data, VHDX_PAGE_BYTES));
	vhdx_page_put(page);
	cr_assert_eq(vhdx_page_fresh(rig.vhdx, jrig_blocks(&rig) + 4096, &page), 0);
	cr_assert(base_is_zero(page->data, VHDX_PAGE_BYTES));
	vhdx_page_put(page);
	cr_assert_eq(fake_store_request_count(rig.store), 0);
	jrig_free(&rig);
}

/* A table that is damaged names fresh space, and somebody is reading it. */
Test(vhdx_pages, a_fresh_page_that_is_being_read_is_refused)
{
	struct journal_rig rig;
	struct jrig_wait wait;
	struct vhdx_page *page = NULL;

	jrig_new(&rig, 1, 4);
	jrig_open(&rig);
	jrig_wait_init(&wait);
	cr_assert_eq(vhdx_page_get(rig.vhdx, jrig_blocks(&rig), &wait.waiter, &page), -EINPROGRESS);
	cr_assert_eq(vhdx_page_fresh(rig.vhdx, jrig_blocks(&rig), &page), -EAGAIN);
	jrig_free(&rig);
}

Test(vhdx_pages, dropped_pages_are_read_anew)
{
	struct journal_rig rig;

	jrig_new(&rig, 1, 4);
	jrig_open(&rig);
	cr_assert_eq(jrig_touch(&rig, true), 0);
	for (int large = 0; large < 2; large++) { /* both ways to look for them */
		uint64_t length = large != 0 ? 64 * VHDX_MIB : VHDX_MIB;

		jrig_put(&rig, page_at(&rig, 0), 0, 1, false);
		cr_assert_eq(jrig_commit(&rig), 0);
		jrig_put(&rig, page_at(&rig, 0), 0, 2, false);
		jrig_put(&rig, page_at(&rig, 1), 0, 3, false);
		cr_assert_eq(vhdx_pages_dirty_count(rig.vhdx), 2);
		vhdx_pages_drop(rig.vhdx, jrig_bat(&rig), length);
		cr_assert_eq(vhdx_pages_dirty_count(rig.vhdx), 0);
		cr_assert_eq(rig.vhdx->pages->count, 0);
		poke(&rig, page_at(&rig, 0), 9);
		cr_assert_eq(base_get_le64(jrig_page(&rig, page_at(&rig, 0))->data), 9);
		vhdx_page_put(vhdx_page_peek(rig.vhdx, page_at(&rig, 0)));
		cr_assert_eq(jrig_commit(&rig), 0);
	}
	cr_assert_eq(jrig_close(&rig), 0);
	jrig_free(&rig);
}

Test(vhdx_pages, the_list_of_dirty_pages_keeps_their_order)
{
	struct journal_rig rig;
	struct vhdx_page *page;
	uint32_t count = 0;
	bool ordered = false;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	jrig_put(&rig, page_at(&rig, 3), 0, 1, false);
	jrig_put(&rig, page_at(&rig, 1), 0, 1, true);
	jrig_put(&rig, page_at(&rig, 3), 0, 2, false);
	page = vhdx_pages_take_dirty(rig.vhdx, &count, &ordered);
	cr_assert_eq(count, 2);
	cr_assert(ordered);
	cr_assert_eq(page->offset_bytes, page_at(&rig, 3));
	cr_assert(!page->snapshot_ordered);
	cr_assert_eq(page->dirty_next->offset_bytes, page_at(&rig, 1));
	cr_assert(page->dirty_next->snapshot_ordered);
	(void)vhdx_pages_take_dirty(rig.vhdx, &count, &ordered);
	cr_assert_eq(count, 0);
	cr_assert(!ordered);
	jrig_free(&rig);
}

Test(vhdx_pages, without_memory_nothing_changes)
{
	struct journal_rig rig;
	struct jrig_wait wait;
	uint8_t data[VHDX_PAGE_BYTES] = { 1 };
	unsigned int failures = 0;

	jrig_new(&rig, 1, 0);
	jrig_open(&rig);
	for (unsigned int k = 0;; k++) {
		struct vhdx_page *page = NULL;
		int code;

		jrig_wait_init(&wait);
		alloc_fail_at(k);
		code = vhdx_page_get(rig.vhdx, page_at(&rig, 0), &wait.waiter, &page);
		if (!alloc_fail_done()) {
			cr_assert_eq(code, -EINPROGRESS);
			break;
		}
		failures++;
		cr_assert_eq(code, -ENOMEM);
		cr_assert_eq(rig.vhdx->pages->count, 0);
	}
	cr_assert_geq(failures, 2);
	alloc_fail_at(0);
	cr_assert_eq(vhdx_commit_extra(rig.vhdx, page_at(&rig, 9), data), -ENOMEM);
	cr_assert(alloc_fail_done());
	cr_assert_eq(vhdx_pages_dirty_count(rig.vhdx), 0);
	jrig_free(&rig);
}
