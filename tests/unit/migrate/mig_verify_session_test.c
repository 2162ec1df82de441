/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole moves that are verified: what a checksum does not see is found before the commit, and the
 * VM stays; what is as it should be moves, and says what it cost.  The second look for touched
 * pages is the sweep's: then all that was sent so far has arrived, and nothing of the round that
 * comes.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "base/clock.h"
#include "tests/support/mig_rig.h"

#define PAGE   1003u /* touched, not zero; the guest does not look at bytes behind the first word */
#define SECTOR 5000u

static struct mig_rig rig;
static uint32_t touched_calls;
static void (*at_sweep)(void);
static void (*at_hold)(void);

static void at(const char *operation)
{
	if (strcmp(operation, "touched") == 0 && ++touched_calls == 2 && at_sweep != NULL)
		at_sweep();
	if (strcmp(operation, "hold") == 0 && at_hold != NULL)
		at_hold();
}

static void setup(void)
{
	mig_rig_init(&rig);
#ifdef OVER_TLS
	mig_rig_use_tls(&rig);
#endif
	mig_fake_vm_add_image(&rig.source);
	mig_fake_vm_add_image(&rig.destination);
	rig.source.at = at;
	rig.out_options.verify = true;
	rig.out_options.pace.downtime_goal_ns = 300 * BASE_NS_PER_MS;
}

static void teardown(void)
{
	mig_rig_fini(&rig);
}

TestSuite(mig_verify_session, .init = setup, .fini = teardown, .timeout = 60);

static void expect_moved(void)
{
	enum mig_out_end end = MIG_OUT_INVALID;

	mig_rig_begin(&rig);
	end = mig_rig_finish(&rig);
	cr_assert_eq(end, MIG_OUT_MOVED, "%d: %s", (int)end, rig.err.text);
	mig_fake_vm_wait_checked(&rig.destination);
	cr_assert_eq(rig.world.bad_page, 0);
	cr_assert_arr_eq(rig.destination.image, rig.source.image,
			 MIG_FAKE_SECTORS * MIG_SECTOR_BYTES);
}

/* It was found between SEALED and READY: nobody was asked, and the VM runs on where it was. */
static void expect_found(const char *what)
{
	enum mig_out_end end = MIG_OUT_INVALID;

	mig_rig_begin(&rig);
	end = mig_rig_finish(&rig);
	cr_assert_eq(end, MIG_OUT_FAILED, "%d: %s", (int)end, rig.err.text);
	cr_assert_not_null(strstr(rig.err.text, what), "'%s', expected '%s'", rig.err.text, what);
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
	cr_assert(rig.source.runs);
	cr_assert_eq(rig.source.epoch, MIG_FAKE_EPOCH);
	cr_assert_not(rig.destination.runs);
	cr_assert(rig.destination.released);
	cr_assert_eq(rig.world.asked, 0);
	cr_assert_not(rig.world.promised);
	cr_assert_eq(rig.world.owner.owner, MIG_SOURCE);
}

static void flip_page(struct mig_fake_vm *vm, uint32_t page)
{
	vm->memory[(size_t)page * MIG_PAGE_BYTES + 1234] ^= 0x40;
}

/* --- nothing is wrong --- */

Test(mig_verify_session, moves_and_says_what_it_cost)
{
	struct mig_out_report report;
	uint64_t touched = MIG_FAKE_PAGES / 5 * 3;

	expect_moved();
	mig_out_report(rig.out, &report);
	cr_assert(report.is_verified);
	cr_assert_geq(report.verify_bytes, touched * MIG_PAGE_BYTES);
	cr_assert_geq(report.destination_verify_bytes, touched * MIG_PAGE_BYTES);
	/* Each page once, and a node for each span. */
	cr_assert_leq(report.verify_bytes, (uint64_t)(MIG_FAKE_PAGES + 40) * MIG_PAGE_BYTES +
						   MIG_FAKE_SECTORS * MIG_SECTOR_BYTES);
	cr_assert_gt(report.verify_running_ns, 0);
	cr_assert_gt(report.destination_verify_running_ns, 0);
	cr_assert_gt(report.verify_blackout_ns, 0);
	cr_assert_gt(report.destination_verify_blackout_ns, 0);
	cr_assert_leq(report.verify_blackout_ns, report.last_round_ns);
	cr_assert_geq(report.rounds, 4, "one of all, the sweep, one that shows the rate, the last");
}

#if !defined(__SANITIZE_THREAD__) /* a guest's writes race with the sender by design */
Test(mig_verify_session, moves_while_the_guest_writes)
{
	struct mig_out_report report;

	rig.source.writes = true;
	rig.source.writes_per_ms = 20;
	expect_moved();
	mig_out_report(rig.out, &report);
	cr_assert(report.is_verified);
}

Test(mig_verify_session, moves_on_one_channel)
{
	rig.source.writes = true;
	rig.source.writes_per_ms = 20;
	rig.out_options.channel_count = 1;
	expect_moved();
}

Test(mig_verify_session, moves_on_sixteen_channels_compressed)
{
	rig.source.writes = true;
	rig.source.writes_per_ms = 20;
	rig.out_options.channel_count = MIG_CHANNELS_MAX;
	rig.out_options.compress = MIG_COMPRESS_ALWAYS;
	expect_moved();
}

#endif

Test(mig_verify_session, moves_quickly)
{
	struct mig_out_report report;

	rig.out_options.quick = true;
	expect_moved();
	mig_out_report(rig.out, &report);
	cr_assert(report.is_verified);
	cr_assert_eq(report.verify_running_ns, 0);
	cr_assert_gt(report.verify_blackout_ns, 0);
}

Test(mig_verify_session, off_it_does_nothing)
{
	struct mig_out_report report;

	rig.out_options.verify = false;
	expect_moved();
	mig_out_report(rig.out, &report);
	cr_assert_not(report.is_verified);
	cr_assert_eq(report.verify_bytes + report.verify_running_ns + report.verify_blackout_ns, 0);
	cr_assert_eq(report.destination_verify_bytes, 0);
	cr_assert_eq(touched_calls, 1, "nobody sweeps");
}

/* --- what is found --- */

static void flip_there(void)
{
	flip_page(&rig.destination, PAGE);
}

Test(mig_verify_session, a_page_altered_after_it_arrived)
{
	at_sweep = flip_there;
	expect_found("verify: memory differs from page 1003 on");
}

static void flip_here(void)
{
	flip_page(&rig.source, PAGE);
}

Test(mig_verify_session, a_write_that_the_log_missed)
{
	at_sweep = flip_here;
	expect_found("verify: memory differs from page 1003 on");
}

#if !defined(__SANITIZE_THREAD__)
Test(mig_verify_session, a_write_that_the_log_missed_of_a_busy_guest)
{
	rig.source.writes = true;
	rig.source.writes_per_ms = 1;
	rig.out_options.channel_count = 2;
	at_sweep = flip_here;
	mig_rig_begin(&rig);
	if (mig_rig_finish(&rig) ==
	    MIG_OUT_MOVED) /* the guest wrote that page again: it was sent */
		cr_assert_neq(rig.world.written[PAGE], 0);
	else
		cr_assert_not_null(strstr(rig.err.text, "verify: memory differs from page 1003 on"),
				   "%s", rig.err.text);
}

#endif

static void flip_image_there(void)
{
	rig.destination.image[SECTOR * MIG_SECTOR_BYTES + 100] ^= 1;
}

Test(mig_verify_session, an_image_that_reads_back_differently)
{
	at_sweep = flip_image_there;
	expect_found("verify: image 1 differs from sector 4992 on");
}

static void flip_image_here(void)
{
	rig.source.image[SECTOR * MIG_SECTOR_BYTES + 100] ^= 1;
}

Test(mig_verify_session, a_write_to_an_image_that_nobody_marked)
{
	at_sweep = flip_image_here;
	expect_found("verify: image 1 differs from sector 4992 on");
}

/* Without it such a move comes about: this is what it is for. */
Test(mig_verify_session, off_nothing_is_found)
{
	rig.out_options.verify = false;
	at_hold = flip_there;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_MOVED, "%s", rig.err.text);
	cr_assert_neq(memcmp(rig.destination.memory, rig.source.memory,
			     (size_t)MIG_FAKE_PAGES * MIG_PAGE_BYTES),
		      0);
}

/* --- it fails on its way --- */

static void cancel(void)
{
	mig_out_cancel(rig.out);
}

Test(mig_verify_session, cancelled_in_the_sweep)
{
	at_sweep = cancel;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_CANCELLED);
	cr_assert(rig.source.runs);
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
}

static void give_up(void)
{
	mig_in_give_up(rig.in);
}

Test(mig_verify_session, given_up_in_the_sweep)
{
	at_sweep = give_up;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_FAILED);
	cr_assert(rig.source.runs);
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
}
