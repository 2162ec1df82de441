/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quick migration between two sessions: the VM is held once the destination has agreed, and all of
 * it goes in one round.  The same commit as live; whatever fails before it, the VM runs on.
 */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/mig_steps.h"

static struct mig_rig rig;

static void setup(void)
{
	mig_rig_init(&rig);
#ifdef OVER_TLS
	mig_rig_use_tls(&rig);
#endif
	mig_steps_init(&rig);
	rig.out_options.quick = true;
}

static void teardown(void)
{
	mig_rig_fini(&rig);
	mig_steps_fini();
}

TestSuite(mig_quick, .init = setup, .fini = teardown, .timeout = 30);

static void expect_moved(void)
{
	enum mig_out_end end = mig_rig_finish(&rig);

	cr_assert_eq(end, MIG_OUT_MOVED, "%d: %s", (int)end, rig.err.text);
	mig_fake_vm_wait_checked(&rig.destination);
	cr_assert_eq(rig.world.bad_page, 0, "%u bad pages", rig.world.bad_page);
	cr_assert_eq(rig.world.twice, 0);
	cr_assert_eq(rig.in_end, MIG_IN_RUNNING, "%s", rig.in_err.text);
	cr_assert_eq(rig.world.owner.epoch, MIG_FAKE_EPOCH + 1);
	cr_assert_eq(rig.world.owner.owner, MIG_DESTINATION);
	cr_assert_eq(rig.world.asked, 1);
	cr_assert(rig.source.released);
	cr_assert_not(rig.source.runs);
	cr_assert(rig.destination.runs);
	cr_assert_not(rig.world.promised);
	cr_assert_eq(rig.source.holds, 1);
	cr_assert_eq(rig.source.tracks, 0);
	cr_assert_null(mig_steps.cut_at);
	cr_assert_null(mig_steps.cancel_at);
}

static void expect_stays(enum mig_out_end expected, uint64_t epoch)
{
	enum mig_out_end end = mig_rig_finish(&rig);

	cr_assert_eq(end, expected, "%d: %s", (int)end, rig.err.text);
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
	cr_assert(rig.source.runs);
	cr_assert_not(rig.source.released);
	cr_assert_not(rig.destination.runs);
	cr_assert_eq(rig.source.epoch, epoch);
	cr_assert_eq(rig.source.tracks, 0);
	cr_assert_not(rig.world.promised);
	cr_assert_null(mig_steps.cut_at);
	cr_assert_null(mig_steps.cancel_at);
}

/* --- nothing fails --- */

Test(mig_quick, one_round_and_nothing_tracked)
{
	struct mig_out_progress progress;
	struct mig_out_report report;

	mig_rig_begin(&rig);
	expect_moved();
	mig_out_report(rig.out, &report);
	cr_assert_eq(report.rounds, 1);
	cr_assert_eq(report.blackout_ns, report.pause_ns + report.last_round_ns + report.state_ns +
						 report.let_go_ns + report.check_ns +
						 report.commit_ns + report.activate_ns);
	cr_assert_geq(report.total_ns, report.prepare_ns + report.copy_ns + report.blackout_ns);
	cr_assert_geq(report.page_count, MIG_FAKE_PAGES / 5 * 3);
	cr_assert_geq(report.zero_pages, MIG_FAKE_PAGES / 5);
	cr_assert_leq(report.page_count + report.zero_pages, MIG_FAKE_PAGES);
	cr_assert_eq(report.state_bytes, sizeof(MIG_FAKE_STATE));
	mig_out_progress(rig.out, &progress);
	cr_assert_eq(progress.state, MIG_SRC_MOVED);
	cr_assert_eq(progress.round, 0);
}

#if !defined(__SANITIZE_THREAD__) /* a guest's writes race with the sender by design */
static void write_until_held(const char *operation)
{
	if (strcmp(operation, "hold") == 0)
		mig_fake_vm_wait_writes(&rig.source, 200);
}

Test(mig_quick, a_guest_that_writes_as_fast_as_it_can)
{
	rig.source.at = write_until_held;
	rig.source.writes = true;
	rig.destination.writes = true;
	mig_rig_begin(&rig);
	expect_moved();
	mig_fake_vm_wait_writes(&rig.destination, 1000);
}
#endif

/* A time that the round cannot be faster than: all but the burst, at the cap. */
Test(mig_quick, a_cap_holds_while_it_stands_still)
{
	const uint64_t cap = 2ULL << 20; /* so low that no machine is that slow */
	struct mig_out_report report;
	struct mig_rate *rate = NULL;
	uint64_t bytes = 0;

	cr_assert_eq(mig_rate_new(cap, &rate, &rig.err), 0);
	rig.out_options.rate = rate;
	mig_rig_begin(&rig);
	expect_moved();
	mig_out_report(rig.out, &report);
	bytes = report.page_count * MIG_PAGE_BYTES;
	/* The burst is free, and a channel's last bytes wait for those before them only. */
	cr_assert_gt(bytes, cap / 10 + 4 * MIG_SPAN_BYTES);
	bytes -= cap / 10 + 3 * MIG_SPAN_BYTES;
	cr_assert_geq(report.last_round_ns, bytes * BASE_NS_PER_SECOND / cap);
	mig_rate_free(rate);
}

/* --- before the pause --- */

Test(mig_quick, what_stands_against_it_is_said_before_the_pause)
{
	atomic_store(&rig.destination.faults.findings, 1);
	mig_rig_begin(&rig);
	expect_stays(MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_eq(rig.findings.count, 2);
	cr_assert_eq(rig.source.holds, 0);
}

/* --- an operation fails: it runs on --- */

#define FAULT(side, operation)                                                                     \
	Test(mig_quick, operation##_fails)                                                         \
	{                                                                                          \
		atomic_store(&rig.side.faults.operation, 1);                                       \
		mig_rig_begin(&rig);                                                               \
		expect_stays(MIG_OUT_FAILED, MIG_FAKE_EPOCH);                                      \
		cr_assert_eq(rig.world.asked, 0);                                                  \
	}

FAULT(source, hold)
FAULT(source, touched)
FAULT(source, state)
FAULT(source, let_go)
FAULT(source, promise)
FAULT(destination, prepare)
FAULT(destination, check)

Test(mig_quick, the_destination_cannot_run_it)
{
	atomic_store(&rig.destination.faults.run, -1);
	mig_rig_begin(&rig);
	expect_stays(MIG_OUT_FAILED, MIG_FAKE_EPOCH + 2);
	cr_assert_eq(rig.world.owner.owner, MIG_SOURCE);
}

/* --- all connections end --- */

#define CUT_EARLY(name, step)                                                                      \
	Test(mig_quick, cut_at_##name)                                                             \
	{                                                                                          \
		mig_steps.cut_at = step;                                                           \
		mig_rig_begin(&rig);                                                               \
		expect_stays(MIG_OUT_FAILED, MIG_FAKE_EPOCH);                                      \
	}
#define CUT_LATE(name, step)                                                                       \
	Test(mig_quick, cut_at_##name)                                                             \
	{                                                                                          \
		mig_steps.cut_at = step;                                                           \
		mig_rig_begin(&rig);                                                               \
		expect_moved(); /* connected again */                                              \
	}

CUT_EARLY(prepare, "prepare")
CUT_EARLY(hold, "hold")
CUT_EARLY(the_round, "touched")
CUT_EARLY(state, "state")
CUT_EARLY(let_go, "let go")
CUT_EARLY(check, "check")
CUT_LATE(ask, "ask")
CUT_LATE(asked, "asked")
CUT_LATE(run, "run")

/* --- the user cancels --- */

#define CANCEL(name, step)                                                                         \
	Test(mig_quick, cancelled_at_##name)                                                       \
	{                                                                                          \
		mig_steps.cancel_at = step;                                                        \
		mig_rig_begin(&rig);                                                               \
		expect_stays(MIG_OUT_CANCELLED, MIG_FAKE_EPOCH);                                   \
		cr_assert_eq(rig.world.asked, 0);                                                  \
	}

CANCEL(prepare, "prepare")
CANCEL(hold, "hold")
CANCEL(the_round, "touched")
CANCEL(state, "state")
CANCEL(let_go, "let go")
CANCEL(promise, "promise")

/* In the middle of a round that would take days. */
Test(mig_quick, cancelled_while_it_waits_for_its_turn)
{
	struct mig_rate *rate = NULL;
	atomic_bool at_once = true;

	cr_assert_eq(mig_rate_new(MIG_RATE_MIN_BYTES_PER_S, &rate, &rig.err), 0);
	mig_rate_wait(rate, 1ULL << 40, &at_once); /* somebody else's turn */
	rig.out_options.rate = rate;
	mig_steps.cancel_at = "touched";
	mig_rig_begin(&rig);
	expect_stays(MIG_OUT_CANCELLED, MIG_FAKE_EPOCH);
	cr_assert_eq(rig.source.holds, 1);
	mig_rate_free(rate);
}

Test(mig_quick, cancelled_when_it_is_too_late)
{
	mig_steps.cancel_at = "asked";
	mig_rig_begin(&rig);
	expect_moved();
}
