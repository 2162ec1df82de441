/* SPDX-License-Identifier: Apache-2.0 */
/* What the test guest takes for right and wrong on a disk. */
#include <criterion/criterion.h>
#include <string.h>

/* Parts of the guest image, not of a library.  NOLINTBEGIN(bugprone-suspicious-include) */
#include "tests/guest/guest_ledger.c"
#include "tests/guest/guest_page.c"
/* NOLINTEND(bugprone-suspicious-include) */

#define RECORDS 4
#define NUMBER  (1ULL << 48)

static struct guest_ledger_entry entries[RECORDS];
static struct guest_ledger ledger;
static uint64_t on_disk[RECORDS][GUEST_PAGE_WORDS];
static uint64_t want;

static void setup(void)
{
	memset(entries, 0, sizeof(entries));
	memset(on_disk, 0, sizeof(on_disk));
	ledger = (struct guest_ledger){ .entries = entries,
					.first_number = NUMBER,
					.content = GUEST_CONTENT_TEXT };
}

/* A write that is issued, and lands. */
static void issue(uint64_t index)
{
	guest_ledger_stamp(&ledger, index, on_disk[index]);
	guest_ledger_issued(&ledger, index);
}

static enum guest_page_kind look(uint64_t index)
{
	return guest_ledger_check(&ledger, index, on_disk[index], &want).kind;
}

Test(guest_ledger, what_was_acknowledged_is_right, .init = setup)
{
	cr_assert_eq(look(0), GUEST_PAGE_GOOD, "zeros, never written");
	issue(0);
	guest_ledger_acknowledged(&ledger, 0);
	cr_assert_eq(look(0), GUEST_PAGE_GOOD);
	issue(0);
	guest_ledger_acknowledged(&ledger, 0);
	cr_assert_eq(look(0), GUEST_PAGE_GOOD);
	cr_assert_eq(want, 2);
}

Test(guest_ledger, every_kind_of_wrong_is_found, .init = setup)
{
	uint64_t older[GUEST_PAGE_WORDS];

	issue(1);
	guest_ledger_acknowledged(&ledger, 1);
	memcpy(older, on_disk[1], sizeof(older));
	issue(1);
	cr_assert_eq(look(1), GUEST_PAGE_AHEAD, "it has not been acknowledged");
	guest_ledger_acknowledged(&ledger, 1);
	memcpy(on_disk[1], older, sizeof(older));
	cr_assert_eq(look(1), GUEST_PAGE_STALE);
	cr_assert_eq(look(1), GUEST_PAGE_GOOD, "reported once, settled");
	memset(on_disk[1], 0, sizeof(on_disk[1]));
	cr_assert_eq(look(1), GUEST_PAGE_STALE, "zeros are older than anything");
	issue(2);
	guest_ledger_acknowledged(&ledger, 2);
	on_disk[2][300] ^= 1;
	cr_assert_eq(look(2), GUEST_PAGE_TORN);
	issue(3);
	guest_ledger_acknowledged(&ledger, 3);
	guest_page_stamp(on_disk[3], NUMBER + 1, 1, GUEST_CONTENT_TEXT);
	cr_assert_eq(look(3), GUEST_PAGE_FOREIGN);
	cr_assert_eq(look(3), GUEST_PAGE_GOOD, "anything, until it is written anew");
	issue(3);
	guest_ledger_acknowledged(&ledger, 3);
	cr_assert_eq(look(3), GUEST_PAGE_GOOD);
}

Test(guest_ledger, a_write_that_failed_may_have_happened_or_not, .init = setup)
{
	uint64_t older[GUEST_PAGE_WORDS];

	issue(0);
	guest_ledger_acknowledged(&ledger, 0);
	memcpy(older, on_disk[0], sizeof(older));
	issue(0);
	guest_ledger_failed(&ledger, 0);
	cr_assert_eq(look(0), GUEST_PAGE_GOOD, "it did");
	memcpy(on_disk[0], older, sizeof(older));
	cr_assert_eq(look(0), GUEST_PAGE_STALE, "and was seen: not any more");
	issue(0);
	guest_ledger_failed(&ledger, 0);
	guest_page_stamp(on_disk[0], NUMBER, entries[0].acknowledged, GUEST_CONTENT_TEXT);
	cr_assert_eq(look(0), GUEST_PAGE_GOOD, "it did not");
}

Test(guest_ledger, a_flush_covers_what_was_acknowledged_before_it, .init = setup)
{
	uint64_t serial;

	issue(0);
	guest_ledger_acknowledged(&ledger, 0);
	serial = ledger.serial;
	issue(1);
	guest_ledger_acknowledged(&ledger, 1);
	guest_ledger_flushed(&ledger, 0, RECORDS, serial);
	cr_assert_eq(entries[0].flushed, 1);
	cr_assert_eq(entries[1].flushed, 0);
}

Test(guest_ledger, the_first_look_takes_what_is_whole, .init = setup)
{
	guest_page_stamp(on_disk[1], NUMBER + 1, 77, GUEST_CONTENT_TEXT);
	guest_page_stamp(on_disk[2], NUMBER + 2, 5, GUEST_CONTENT_TEXT);
	on_disk[2][500] ^= 1;
	guest_page_stamp(on_disk[3], NUMBER + 1, 5, GUEST_CONTENT_TEXT);
	cr_assert_eq(guest_ledger_adopt(&ledger, 0, on_disk[0]).kind, GUEST_PAGE_GOOD);
	cr_assert_eq(guest_ledger_adopt(&ledger, 1, on_disk[1]).kind, GUEST_PAGE_GOOD);
	cr_assert_eq(guest_ledger_adopt(&ledger, 2, on_disk[2]).kind, GUEST_PAGE_TORN);
	cr_assert_eq(guest_ledger_adopt(&ledger, 3, on_disk[3]).kind, GUEST_PAGE_FOREIGN);
	cr_assert_eq(entries[0].acknowledged, 0);
	cr_assert_eq(entries[1].acknowledged, 77);
	cr_assert_eq(look(1), GUEST_PAGE_GOOD);
	issue(1);
	guest_ledger_acknowledged(&ledger, 1);
	cr_assert_eq(entries[1].acknowledged, 78);
}
