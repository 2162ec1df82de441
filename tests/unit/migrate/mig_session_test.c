/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole migrations between two sessions over a real connection, with VMs that are none: what
 * happens, and what happens when something fails on the way.  Never two that run; one in the end;
 * every page as the guest wrote it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/thread.h"
#include "tests/support/mig_steps.h"

#define NOISE 20

static struct mig_rig rig;

static void setup(void)
{
	mig_rig_init(&rig);
#ifdef OVER_TLS
	mig_rig_use_tls(&rig);
#endif
	mig_steps_init(&rig);
}

static void teardown(void)
{
	mig_rig_fini(&rig);
	mig_steps_fini();
}

TestSuite(mig_session, .init = setup, .fini = teardown, .timeout = 30);

static void expect_moved(enum mig_out_end end)
{
	cr_assert_eq(end, MIG_OUT_MOVED, "%d: %s", (int)end, rig.err.text);
	mig_fake_vm_wait_checked(&rig.destination);
	cr_assert_eq(rig.world.bad_page, 0, "%u bad pages", rig.world.bad_page);
	cr_assert_eq(rig.world.twice, 0);
	cr_assert_eq(rig.in_end, MIG_IN_RUNNING, "%s", rig.in_err.text);
	cr_assert_eq(rig.in_epoch, MIG_FAKE_EPOCH + 1);
	cr_assert_eq(rig.world.owner.epoch, MIG_FAKE_EPOCH + 1);
	cr_assert_eq(rig.world.owner.owner, MIG_DESTINATION);
	cr_assert(rig.source.released);
	cr_assert_not(rig.source.runs);
	cr_assert(rig.destination.runs);
	cr_assert_eq(rig.destination.epoch, MIG_FAKE_EPOCH + 1);
	cr_assert_not(rig.destination.released);
	cr_assert_not(rig.world.promised);
}

/* It runs at the rig.source, at @epoch, and the rig.destination is clean. */
static void expect_stays(enum mig_out_end end, enum mig_out_end expected, uint64_t epoch)
{
	cr_assert_eq(end, expected, "%d: %s", (int)end, rig.err.text);
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
	cr_assert(rig.source.runs);
	cr_assert_not(rig.source.released);
	cr_assert_not(rig.destination.runs);
	cr_assert_eq(rig.source.epoch, epoch);
	cr_assert_not(rig.world.promised);
	cr_assert_not(rig.source.tracking);
}

static void expect_text(const char *text, const char *part)
{
	cr_assert_not_null(strstr(text, part), "'%s', expected '%s'", text, part);
}

/* --- nothing fails --- */

Test(mig_session, moves)
{
	struct mig_out_report report;
	struct mig_out_progress progress;

	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
	mig_out_report(rig.out, &report);
	cr_assert_eq(report.blackout_ns, report.pause_ns + report.last_round_ns + report.state_ns +
						 report.let_go_ns + report.check_ns +
						 report.commit_ns + report.activate_ns);
	cr_assert_geq(report.total_ns, report.prepare_ns + report.copy_ns + report.blackout_ns);
	cr_assert_eq(report.state_bytes, sizeof(MIG_FAKE_STATE));
	cr_assert_geq(report.page_count, MIG_FAKE_PAGES / 5 * 3);
	cr_assert_geq(report.zero_pages, MIG_FAKE_PAGES / 5);
	cr_assert_geq(report.rounds, 2);
	mig_out_progress(rig.out, &progress);
	cr_assert_eq(progress.state, MIG_SRC_MOVED);
	cr_assert_eq(rig.findings.count, 0);
}

Test(mig_session, moves_on_one_channel)
{
	rig.out_options.channel_count = 1;
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
}

Test(mig_session, moves_on_sixteen_channels)
{
	rig.out_options.channel_count = MIG_CHANNELS_MAX;
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
}

Test(mig_session, moves_compressed)
{
	struct mig_out_report report;

	rig.out_options.compress = MIG_COMPRESS_ALWAYS;
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
	mig_out_report(rig.out, &report);
	cr_assert_gt(report.lz4_pages, 0);
	cr_assert_leq(report.lz4_pages, report.page_count);
	cr_assert_lt(report.lz4_bytes, report.lz4_pages * MIG_PAGE_BYTES);
}

/* Nothing has moved, nobody was held, and the destination is clean. */
static struct mig_forecast expect_forecast(void)
{
	struct mig_forecast_facts facts;
	struct mig_forecast forecast;

	cr_assert_not(mig_out_forecast(rig.out, &facts, &forecast));
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FORECAST, MIG_FAKE_EPOCH);
	cr_assert_eq(rig.source.holds, 0);
	cr_assert(rig.destination.released);
	cr_assert(mig_out_forecast(rig.out, &facts, &forecast));
	cr_assert_gt(facts.rate_bytes_per_s, 0);
	cr_assert_leq(facts.total_bytes, MIG_FAKE_PAGES * MIG_PAGE_BYTES);
	cr_assert_geq(facts.total_bytes, MIG_FAKE_PAGES * MIG_PAGE_BYTES / 5 * 4 - MIG_PAGE_BYTES);
	return forecast;
}

Test(mig_session, a_dry_run_moves_nothing)
{
	struct mig_forecast forecast;

	rig.out_options.forecast_ms = 40;
	mig_rig_begin(&rig);
	forecast = expect_forecast();
	cr_assert(forecast.meets_goal);
	cr_assert_eq(forecast.dirty_bytes_per_s, 0);
	cr_assert_gt(forecast.total_ns, 0);
}

Test(mig_session, a_dry_run_of_a_quick_one)
{
	struct mig_forecast forecast;

	rig.out_options.forecast_ms = 40;
	rig.out_options.quick = true;
	mig_rig_begin(&rig);
	forecast = expect_forecast();
	cr_assert_not(forecast.meets_goal);
	cr_assert_gt(forecast.blackout_ns, 0);
}

Test(mig_session, a_dry_run_is_cancelled)
{
	rig.out_options.forecast_ms = 3600000;
	mig_rig_begin(&rig);
	mig_steps.cancel_at = "dirty get";
	expect_stays(mig_rig_finish(&rig), MIG_OUT_CANCELLED, MIG_FAKE_EPOCH);
}

/* So slow that it would take days: it is cancelled at once all the same. */
Test(mig_session, a_cap_does_not_hold_up_a_cancel)
{
	struct mig_rate *rate = NULL;
	atomic_bool at_once = true;

	cr_assert_eq(mig_rate_new(MIG_RATE_MIN_BYTES_PER_S, &rate, &rig.err), 0);
	mig_rate_wait(rate, 1ULL << 40, &at_once); /* somebody else's turn */
	rig.out_options.rate = rate;
	mig_rig_begin(&rig);
	mig_steps.cancel_at = "track";
	expect_stays(mig_rig_finish(&rig), MIG_OUT_CANCELLED, MIG_FAKE_EPOCH);
	mig_rate_free(rate);
}

#if !defined(__SANITIZE_THREAD__) /* a guest's writes race with the sender by design */
/* Between the harvest before the pause and the pause. */
static void write_until_held(const char *operation)
{
	if (strcmp(operation, "hold") == 0)
		mig_fake_vm_wait_writes(&rig.source, 200);
}

Test(mig_session, moves_a_guest_that_writes)
{
	rig.source.at = write_until_held;
	rig.source.writes = true;
	rig.source.writes_per_ms = 20;
	rig.destination.writes = true;
	mig_rig_begin(&rig);
	mig_fake_vm_wait_writes(&rig.source, 50);
	expect_moved(mig_rig_finish(&rig));
	mig_fake_vm_wait_writes(&rig.destination, 1000);
}

/* Faster than it can be sent: it is switched over at the time limit. */
Test(mig_session, moves_a_guest_that_writes_too_fast)
{
	rig.source.writes = true;
	rig.destination.writes = true;
	rig.out_options.pace.downtime_goal_ns = 1;
	rig.out_options.pace.time_limit_ns = BASE_NS_PER_SECOND / 5;
	mig_rig_begin(&rig);
	mig_fake_vm_wait_writes(&rig.source, 50);
	expect_moved(mig_rig_finish(&rig));
	mig_fake_vm_wait_writes(&rig.destination, 1000);
}

/* The guest has written since the last harvest, however busy the machine is. */
static void write_more(const char *operation)
{
	if (strcmp(operation, "dirty get") == 0 && atomic_load(&rig.source.runs))
		mig_fake_vm_wait_writes(&rig.source, 1);
}

Test(mig_session, stays_where_the_goal_cannot_be_met)
{
	rig.source.at = write_more;
	rig.source.writes = true;
	rig.out_options.pace.fixed_ns = 1;
	rig.out_options.pace.downtime_goal_ns = 2;
	rig.out_options.pace.time_limit_ns = BASE_NS_PER_SECOND / 5;
	rig.out_options.pace.late = MIG_LATE_CANCEL;
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	expect_text(rig.err.text, "faster than can be sent");
	mig_fake_vm_wait_writes(&rig.source, 100);
	cr_assert_eq(rig.world.owner.epoch, MIG_FAKE_EPOCH);
}
#endif

/* --- before a byte moves --- */

Test(mig_session, the_destination_objects)
{
	atomic_store(&rig.destination.faults.findings, 1);
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_eq(rig.findings.count, 2);
	expect_text(rig.findings.lines[0], "9 GiB are needed");
	expect_text(rig.findings.lines[1], "bridge 'br0'");
	expect_text(rig.err.text, "objects: memory: 9 GiB");
	cr_assert_eq(rig.source.holds, 0);
	cr_assert(rig.destination.released);
}

Test(mig_session, the_destination_cannot_look)
{
	atomic_store(&rig.destination.faults.prepare, 1);
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_eq(rig.source.holds, 0);
}

Test(mig_session, nobody_is_there)
{
	atomic_store(&rig.refused, 1);
	mig_rig_begin(&rig);
	mig_in_give_up(rig.in);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	expect_text(rig.err.text, "by the test's wish");
}

/* --- until READY --- */

Test(mig_session, cancelled_at_once)
{
	mig_rig_begin(&rig);
	mig_out_cancel(rig.out);
	mig_in_give_up(rig.in);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_CANCELLED, MIG_FAKE_EPOCH);
	cr_assert_eq(rig.source.holds, 0);
}

Test(mig_session, cannot_be_paused)
{
	atomic_store(&rig.source.faults.hold, 1);
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	expect_text(rig.err.text, "cannot be paused");
	expect_text(rig.in_err.text, "the source has cancelled");
}

Test(mig_session, state_cannot_be_read)
{
	atomic_store(&rig.source.faults.state, 1);
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_eq(rig.source.holds, 1);
}

Test(mig_session, disks_cannot_be_let_go)
{
	atomic_store(&rig.source.faults.let_go, 1);
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
}

Test(mig_session, check_fails_at_the_destination)
{
	atomic_store(&rig.destination.faults.check, 1);
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	expect_text(rig.err.text, "the destination has failed: the VM cannot run here: check");
	cr_assert(rig.destination.released);
}

Test(mig_session, the_source_runs_again_at_the_second_try)
{
	atomic_store(&rig.destination.faults.check, 1);
	atomic_store(&rig.source.faults.run, 2);
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
}

Test(mig_session, the_promise_cannot_be_written)
{
	atomic_store(&rig.source.faults.promise, 1);
	mig_rig_begin(&rig);
	rig.in_options.give_up_ms = 0;
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	expect_text(rig.err.text, "the promise cannot be written");
	cr_assert_eq(rig.world.asked, 0);
}

/* --- from the question on --- */

Test(mig_session, no_answer_for_a_while_nothing_done)
{
	atomic_store(&rig.destination.faults.unknown_before, 3);
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
	cr_assert_eq(rig.world.asked, 1);
}

Test(mig_session, no_answer_for_a_while_done)
{
	atomic_store(&rig.destination.faults.unknown_after, 1);
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
	cr_assert_eq(rig.world.asked, 1);
}

/* It is handed back, two epochs later. */
Test(mig_session, the_destination_cannot_run_it)
{
	atomic_store(&rig.destination.faults.run, -1);
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH + 2);
	cr_assert_eq(rig.world.owner.epoch, MIG_FAKE_EPOCH + 2);
	cr_assert_eq(rig.world.owner.owner, MIG_SOURCE);
	cr_assert(rig.destination.released);
}

/* The rig.arbiter is elsewhere: nobody asks the rig.destination for it. */
Test(mig_session, an_arbiter_of_its_own)
{
	struct mig_arbiter own = mig_fake_arbiter(&rig.source);

	rig.out_options.arbiter = &own;
	rig.in_options.keeps_register = false;
	atomic_store(&rig.source.faults.unknown_before, 2);
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
}

/* --- all connections end at a step --- */

/* Before READY: the VM stays, at its epoch, and nobody asked. */
static void cut_early(const char *step)
{
	mig_steps.cut_at = step;
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_null(mig_steps.cut_at);
	cr_assert(rig.destination.released);
	cr_assert_eq(rig.world.owner.epoch, MIG_FAKE_EPOCH);
}

/* After it: it moves, when the source has connected again, at the third time. */
static void cut_late(const char *step)
{
	mig_steps.cut_at = step;
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
	cr_assert_null(mig_steps.cut_at);
	cr_assert_eq(rig.world.asked, 1);
}

static void cut_either(const char *step)
{
	enum mig_out_end end = MIG_OUT_INVALID;

	mig_steps.cut_at = step;
	mig_rig_begin(&rig);
	end = mig_rig_finish(&rig);
	if (end == MIG_OUT_MOVED)
		expect_moved(end);
	else
		expect_stays(end, MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_null(mig_steps.cut_at);
}

#define CUT(when, name, step)                                                                      \
	Test(mig_session, cut_at_##name)                                                           \
	{                                                                                          \
		cut_##when(step);                                                                  \
	}

CUT(early, prepare, "prepare")
CUT(early, track, "track")
CUT(early, dirty_get, "dirty get")
CUT(early, hold, "hold")
CUT(early, state, "state")
CUT(early, let_go, "let go")
CUT(early, check, "check")      /* the rig.source comes back to say that it was cancelled */
CUT(either, promise, "promise") /* the loss is heard before the promise is written, or after */
CUT(late, ask, "ask")
CUT(late, asked, "asked")
CUT(late, run, "run")

/* The network is gone for longer than one attempt to connect again takes. */
static void cut_for_longer(const char *operation)
{
	if (strcmp(operation, "check") != 0)
		return;
	rig.destination.at = NULL;
	atomic_store(&rig.refused, 3);
	mig_steps_cut();
}

Test(mig_session, a_destination_that_is_ready_is_told_when_the_network_is_back)
{
	rig.refuse_code = -EHOSTUNREACH;
	rig.destination.at = cut_for_longer;
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_eq(atomic_load(&rig.refused), 0);
	cr_assert(rig.destination.released);
}

/* --- the user cancels at a step --- */

static void cancel_early(const char *step)
{
	mig_steps.cancel_at = step;
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_CANCELLED, MIG_FAKE_EPOCH);
	cr_assert_null(mig_steps.cancel_at);
	cr_assert(rig.destination.released);
	cr_assert_eq(rig.world.owner.epoch, MIG_FAKE_EPOCH);
}

/* From the question on it is too late. */
static void cancel_late(const char *step)
{
	mig_steps.cancel_at = step;
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
	cr_assert_null(mig_steps.cancel_at);
}

#define CANCEL(when, name, step)                                                                   \
	Test(mig_session, cancelled_at_##name)                                                     \
	{                                                                                          \
		cancel_##when(step);                                                               \
	}

CANCEL(early, prepare, "prepare")
CANCEL(early, track, "track")
CANCEL(early, dirty_get, "dirty get")
CANCEL(early, hold, "hold")
CANCEL(early, state, "state")
CANCEL(early, let_go, "let go")
CANCEL(early, promise, "promise")
CANCEL(late, asked, "asked")
CANCEL(late, run, "run")

/* The register is the source's again, if the user's question comes before the first one. */
Test(mig_session, cancelled_in_doubt)
{
	atomic_store(&rig.destination.faults.unknown_before, 3);
	mig_steps.cancel_at = "ask";
	mig_rig_begin(&rig);
	expect_stays(mig_rig_finish(&rig), MIG_OUT_CANCELLED, MIG_FAKE_EPOCH + 1);
	cr_assert_eq(rig.world.owner.owner, MIG_SOURCE);
	cr_assert_eq(rig.world.asked, 1);
}

/* --- an operator decides --- */

/* The rig.destination is heard of no more at the first question, which stays without an answer. */
static void lost_in_doubt(const char *operation)
{
	if (strcmp(operation, "ask") != 0)
		return;
	rig.destination.at = NULL;
	atomic_store(&rig.refused, -1);
	mig_steps_cut();
	atomic_store(&rig.world.resolved, MIG_FAKE_EPOCH + 2);
}

Test(mig_session, decided_by_hand)
{
	enum mig_out_end end = MIG_OUT_INVALID;

	atomic_store(&rig.destination.faults.unknown_before, -1);
	rig.destination.at = lost_in_doubt;
	mig_rig_begin(&rig);
	end = mig_out_run(rig.out, &rig.findings, &rig.err);
	cr_assert_eq(end, MIG_OUT_FAILED, "%d: %s", (int)end, rig.err.text);
	cr_assert(rig.source.runs);
	cr_assert_eq(rig.source.epoch, MIG_FAKE_EPOCH + 2);
	cr_assert_not(rig.destination.runs);
	atomic_store(&rig.destination.faults.unknown_before, 0);
	mig_in_give_up(rig.in);
	base_thread_join(rig.in_thread);
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
}

/* Who is heard of is not dead, whatever an operator said. */
Test(mig_session, decided_by_hand_of_somebody_alive)
{
	atomic_store(&rig.world.resolved, MIG_FAKE_EPOCH + 2);
	atomic_store(&rig.destination.faults.unknown_before, 3);
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
}

/* --- who is at the door --- */

static int knock(const struct mig_open *open)
{
	uint8_t body[MIG_OPEN_BYTES];
	struct mig_link_options options = { .is_source = true,
					    .is_control = open->channel == 0,
					    .timeout_ms = 5000 };
	struct mig_link *link = NULL;
	struct mig_received received;
	BASE_CLOSE int fd = -1;
	int r = 0;

	fd = mig_rig_dial(&rig.place);
	options.fd = fd;
	cr_assert_eq(mig_link_new(&options, &link, &rig.err), 0);
	mig_open_encode(open, body);
	cr_assert_eq(mig_link_send(link, MIG_TYPE_OPEN, body, sizeof(body), &rig.err), 0);
	r = mig_link_receive(link, &received, &rig.err);
	if (r == 0)
		r = (int)received.type;
	mig_link_free(link);
	return r;
}

/* When its log begins there is a migration: nobody else gets in. */
static void strangers(const char *operation)
{
	struct mig_open open = {
		.version_min = 1, .version_max = 1, .channel_count = 3, .id = { 1 }
	};

	if (strcmp(operation, "track") != 0)
		return;
	rig.source.at = NULL;
	cr_assert_eq(knock(&open), MIG_TYPE_FAILED);
	open.secret[0] = 1; /* not the secret */
	cr_assert_eq(knock(&open), MIG_TYPE_FAILED);
	open.channel = 1;
	cr_assert_eq(knock(&open), -ENOTCONN);
}

Test(mig_session, a_stranger_is_turned_away)
{
	rig.source.at = strangers;
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
}

/* Bytes that are no protocol, half a message, many who say nothing: the migration is not hurt. */
Test(mig_session, noise_at_the_door)
{
	static const char noise[200] = "GET / HTTP/1.1";
	int fds[NOISE];

	cr_assert_eq(mig_in_new(&rig.in_options, &rig.in, &rig.err), 0);
	for (int i = 0; i < NOISE; i++) {
		fds[i] = mig_rig_dial(&rig.place);
		cr_assert_gt(write(fds[i], noise, i % 2 == 0 ? sizeof(noise) : 10), 0);
	}
	mig_in_free(rig.in);
	rig.in = NULL;
	for (int i = 0; i < NOISE; i++)
		(void)close(fds[i]);
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
}
