/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole migrations whose connections break while the VM runs, and that go on where they were: at
 * each frame, again and again, with an image, verified.  What came before a cut is not sent again,
 * what did not come is not missing, and what broke for good leaves the VM where it is.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "tests/support/depth.h"
#include "tests/support/fault_proxy.h"
#include "tests/support/mig_steps.h"

#define TIMEOUT_MS 300u
#define LONG_MS    60000u /* longer than any test */
#define PROXIES    256u
#define DATA_1     1u /* connections: 0 the control channel, then the data channels */

static struct mig_rig rig;
static struct fault_proxy *proxies[PROXIES];
static uint32_t proxy_count;
static struct fault_rule rule;
static uint32_t at_connection, at_every; /* every so many connections; 0: that one only */
static uint32_t cut_count, cuts_most;
static void (*at_again)(void); /* before the first connection after a cut */

static int between(uint32_t index, int fd)
{
	int near_fd = -1;

	cr_assert_lt(proxy_count, PROXIES);
	if (index == 1 + rig.out_options.channel_count && at_again != NULL)
		at_again();
	near_fd = fault_proxy_before(fd, &proxies[proxy_count]);
	if ((at_every == 0 ? index == at_connection : index % at_every == at_connection) &&
	    cut_count < cuts_most) {
		fault_proxy_arm(proxies[proxy_count], &rule);
		cut_count++;
	}
	proxy_count++;
	return near_fd;
}

static void begin(uint32_t connection, const struct fault_rule *fault)
{
	at_connection = connection;
	at_every = 0;
	at_again = NULL;
	rule = *fault;
	proxy_count = 0;
	cut_count = 0;
	cuts_most = 1;
	mig_rig_init(&rig);
	mig_fake_vm_add_image(&rig.source);
	mig_fake_vm_add_image(&rig.destination);
	rig.between = between;
	rig.linger_ms = 3 * TIMEOUT_MS;
	rig.in_options.timeout_ms = TIMEOUT_MS;
	rig.in_options.give_up_ms = 2 * TIMEOUT_MS;
	rig.in_options.resume_ms = LONG_MS;
	rig.out_options.timeout_ms = TIMEOUT_MS;
	rig.out_options.resume_ms = LONG_MS;
	rig.out_options.channel_count = 2;
#if !defined(__SANITIZE_THREAD__) /* its writes race with the sender by design */
	rig.source.writes = true;
	rig.source.writes_per_ms = 5;
#endif
}

static void end(void)
{
	for (uint32_t i = 0; i < proxy_count; i++)
		fault_proxy_free(proxies[i]);
	mig_rig_fini(&rig);
}

static struct mig_out_report expect_moved(const char *name)
{
	struct mig_out_report report;
	enum mig_out_end how = MIG_OUT_INVALID;

	mig_rig_begin(&rig);
	how = mig_rig_finish(&rig);
	cr_assert_eq(how, MIG_OUT_MOVED, "%s: %d: %s; %s", name, (int)how, rig.err.text,
		     rig.in_err.text);
	mig_fake_vm_wait_checked(&rig.destination);
	cr_assert_eq(rig.world.bad_page, 0, "%s: %u bad pages", name, rig.world.bad_page);
	cr_assert_eq(rig.world.twice, 0, "%s", name);
	cr_assert_arr_eq(rig.destination.image, rig.source.image,
			 MIG_FAKE_SECTORS * MIG_SECTOR_BYTES);
	cr_assert_eq(rig.world.owner.owner, MIG_DESTINATION);
	cr_assert_eq(atomic_load(&rig.source.tracks), 1, "%s", name);
	mig_out_report(rig.out, &report);
	return report;
}

static void expect_stays(const char *name, enum mig_out_end expected)
{
	enum mig_out_end how = MIG_OUT_INVALID;

	mig_rig_begin(&rig);
	how = mig_rig_finish(&rig);
	cr_assert_eq(how, expected, "%s: %d: %s", name, (int)how, rig.err.text);
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
	cr_assert(rig.source.runs);
	cr_assert_not(rig.source.tracking);
	cr_assert_not(rig.destination.runs);
	cr_assert(rig.destination.released);
	cr_assert_eq(rig.source.epoch, MIG_FAKE_EPOCH);
	cr_assert_not(rig.world.promised);
}

/* One runs it, whichever; and that one has what the guest wrote. */
static void expect_one(const char *name)
{
	enum mig_out_end how = MIG_OUT_INVALID;

	mig_rig_begin(&rig);
	how = mig_rig_finish(&rig);
	cr_assert(how == MIG_OUT_MOVED || how == MIG_OUT_FAILED, "%s: %d", name, (int)how);
	cr_assert_eq(rig.in_end, how == MIG_OUT_MOVED ? MIG_IN_RUNNING : MIG_IN_GONE, "%s: %s",
		     name, rig.in_err.text);
	cr_assert_eq(atomic_load(&rig.source.runs), how == MIG_OUT_FAILED);
	mig_fake_vm_wait_checked(how == MIG_OUT_MOVED ? &rig.destination : &rig.source);
	cr_assert_eq(rig.world.bad_page, 0);
	cr_assert_eq(rig.world.twice, 0);
	if (how == MIG_OUT_MOVED)
		cr_assert_arr_eq(rig.destination.image, rig.source.image,
				 MIG_FAKE_SECTORS * MIG_SECTOR_BYTES);
}

/* --- each frame of the first round --- */

struct place {
	const char *name;
	uint32_t connection;
	enum fault_way way;
	enum mig_type type;
	uint32_t skip;
};
static const struct place places[] = {
	{ "round", 0, FAULT_FORTH, MIG_TYPE_ROUND, 0 },
	{ "round done", 0, FAULT_BACK, MIG_TYPE_ROUND_DONE, 0 },
	{ "first write", DATA_1, FAULT_FORTH, MIG_TYPE_WRITE, 0 },
	{ "a later write", DATA_1, FAULT_FORTH, MIG_TYPE_WRITE, 40 },
	{ "first chunk", DATA_1, FAULT_FORTH, MIG_TYPE_CHUNK, 0 },
	{ "a later chunk", DATA_1, FAULT_FORTH, MIG_TYPE_CHUNK, 40 },
	{ "barrier", DATA_1, FAULT_FORTH, MIG_TYPE_BARRIER, 0 },
};
#define PLACES (sizeof(places) / sizeof(places[0]))

static void run_all(const struct fault_rule *fault)
{
	static uint32_t turn;

	for (size_t i = 0; i < PLACES; i += depth_stride()) {
		const struct place *place = &places[(i + turn++) % PLACES];
		struct fault_rule here = *fault;
		struct mig_out_report report;

		here.way = place->way;
		here.type = (uint32_t)place->type;
		here.skip = place->skip;
		begin(place->connection, &here);
		if (place->type == MIG_TYPE_ROUND_DONE) { /* it may be on its way to the pause */
			expect_one(place->name);
			end();
			continue;
		}
		report = expect_moved(place->name);
		cr_assert_geq(report.cuts, 1, "%s: %u cuts", place->name, report.cuts);
		cr_assert_gt(report.cut_ns, 0);
		cr_assert_leq(report.cut_ns, report.copy_ns);
		end();
	}
}

TestSuite(mig_resume, .timeout = 250);

#define FAULT(name, ...)                                                                           \
	Test(mig_resume, name)                                                                     \
	{                                                                                          \
		const struct fault_rule fault = { __VA_ARGS__ };                                   \
                                                                                                   \
		run_all(&fault);                                                                   \
	}

FAULT(cut_before, .action = FAULT_CUT)
FAULT(cut_within, .action = FAULT_CUT, .at_bytes = 17)
FAULT(cut_behind, .action = FAULT_CUT, .at_bytes = FAULT_END)
FAULT(shut_before, .action = FAULT_SHUT)
FAULT(held_before, .action = FAULT_HOLD)
FAULT(frozen_before, .action = FAULT_HOLD, .both_ways = true)
FAULT(frozen_within, .action = FAULT_HOLD, .at_bytes = 40, .both_ways = true)

/* --- the VM stands still --- */

static const char *cut_at;

static void cut_once(const char *operation)
{
	if (cut_at == NULL || strcmp(operation, cut_at) != 0)
		return;
	cut_at = NULL;
	for (uint32_t i = 0; i < proxy_count; i++)
		fault_proxy_cut(proxies[i]);
}

static void begin_cut_at(const char *operation)
{
	static const struct fault_rule none = { .action = FAULT_CUT };

	begin(DATA_1, &none);
	cuts_most = 0;
	rig.source.at = cut_once;
	cut_at = operation;
}

/* It goes on at the source meanwhile, writes to its disk, and is held again. */
Test(mig_resume, a_cut_while_it_stands_still)
{
	static const char *const operations[] = { "hold", "state" };

	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
		struct mig_out_report report;

		begin_cut_at(operations[i]);
		report = expect_moved(operations[i]);
		cr_assert_geq(report.cuts, 1);
		cr_assert_geq(atomic_load(&rig.source.holds), 2);
		cr_assert_gt(report.cut_held_ns, 0);
		cr_assert_eq(report.blackout_ns, report.pause_ns + report.last_round_ns +
							 report.state_ns + report.let_go_ns +
							 report.check_ns + report.commit_ns +
							 report.activate_ns);
		end();
	}
}

/* Nobody watches its disk any more when it goes on: the move is over. */
Test(mig_resume, a_cut_when_its_disk_is_let_go)
{
	begin_cut_at("let go");
	expect_one("let go");
	cr_assert(atomic_load(&rig.source.runs));
	end();
}

static void run_held(uint32_t connection, enum mig_type type, uint32_t skip, bool verify)
{
	const struct fault_rule fault = {
		.action = FAULT_CUT, .way = FAULT_FORTH, .type = (uint32_t)type, .skip = skip
	};

	begin(connection, &fault);
	rig.source.writes_per_ms = 1;
	rig.out_options.verify = verify;
	rig.out_options.pace.downtime_goal_ns =
		300 * BASE_NS_PER_MS; /* two rounds, and the sweep */
	expect_one("held");
	end();
}

Test(mig_resume, a_cut_while_the_state_is_sent)
{
	run_held(0, MIG_TYPE_STATE, 0, false);
}

Test(mig_resume, a_cut_in_the_last_round)
{
	run_held(DATA_1, MIG_TYPE_BARRIER, 1, false);
	run_held(DATA_1, MIG_TYPE_BARRIER, 2, true);
}

/* If all has come behind the other channels, the destination is as good as ready, for a VM that
 * goes on at the source: then it stays there.  If not, the move goes on. */
Test(mig_resume, a_cut_behind_the_seal)
{
	const struct fault_rule sealed = { .action = FAULT_CUT,
					   .way = FAULT_FORTH,
					   .type = MIG_TYPE_SEALED,
					   .at_bytes = FAULT_END };

	begin(0, &sealed);
	expect_one("sealed");
	end();
}

/* --- again and again --- */

static const struct fault_rule third_chunk = { .action = FAULT_CUT,
					       .way = FAULT_FORTH,
					       .type = MIG_TYPE_CHUNK,
					       .skip = 3,
					       .at_bytes = FAULT_END };

Test(mig_resume, ten_cuts_in_a_row)
{
	struct mig_out_report report;

	begin(DATA_1, &third_chunk);
	at_every = 3; /* channels and control channel */
	cuts_most = 10;
	report = expect_moved("ten cuts");
	cr_assert_geq(report.cuts, 9, "%u cuts",
		      report.cuts); /* the guest may leave less to send */
	end();
}

/* All that had come but what was under way: far less than what there is. */
Test(mig_resume, what_came_is_not_sent_again)
{
	struct mig_out_report report;
	const struct fault_rule late = { .action = FAULT_CUT,
					 .way = FAULT_FORTH,
					 .type = MIG_TYPE_BARRIER };

	begin(DATA_1, &late);
	rig.source.writes = false;
	report = expect_moved("late");
	cr_assert_geq(report.cuts, 1);
	cr_assert_leq(report.page_count + report.zero_pages,
		      MIG_FAKE_PAGES + report.again_bytes / MIG_PAGE_BYTES,
		      "%llu pages, %llu bytes again", (unsigned long long)report.page_count,
		      (unsigned long long)report.again_bytes);
	/* At the barrier of one channel, all of that channel had come. */
	cr_assert_leq(report.again_bytes, MIG_FAKE_PAGES * MIG_PAGE_BYTES / 2);
	end();
}

Test(mig_resume, a_verified_move_sweeps_again)
{
	struct mig_out_report report;
	const struct fault_rule sweep = {
		.action = FAULT_CUT, .way = FAULT_FORTH, .type = MIG_TYPE_BARRIER, .skip = 1
	};

	for (uint32_t skip = 0; skip < 3; skip++) {
		struct fault_rule here = sweep;

		here.skip = skip;
		begin(DATA_1, &here);
		rig.out_options.verify = true;
		rig.source.writes_per_ms = 2;
		rig.out_options.pace.downtime_goal_ns = 300 * BASE_NS_PER_MS;
		if (skip < 2) { /* the third may be the last round's: then it stays */
			report = expect_moved("verified");
			cr_assert(report.is_verified);
			cr_assert_geq(report.cuts, 1);
		} else {
			mig_rig_begin(&rig);
			(void)mig_rig_finish(&rig);
			cr_assert_eq(rig.world.twice, 0);
		}
		end();
	}
}

/* Bytes of pages that landed, and no chunk told of them; meanwhile the guest has cleared them. */
static void clear_all(void)
{
	memset(rig.source.memory, 0, (size_t)MIG_FAKE_PAGES * MIG_PAGE_BYTES);
	memset(rig.world.written, 0, sizeof(rig.world.written));
	for (uint32_t i = 0; i < MIG_FAKE_PAGES / 64; i++)
		atomic_store(&rig.source.log[i], UINT64_MAX);
}

Test(mig_resume, what_was_placed_and_not_told_of_is_cleared)
{
	const struct fault_rule within = { .action = FAULT_CUT,
					   .way = FAULT_FORTH,
					   .type = MIG_TYPE_WRITE,
					   .at_bytes = MIG_FRAME_BYTES + 2 * MIG_PAGE_BYTES };

	begin(DATA_1, &within);
	rig.source.writes = false;
	at_again = clear_all;
	(void)expect_moved("cleared");
	cr_assert_eq(memcmp(rig.destination.memory, rig.source.memory,
			    (size_t)MIG_FAKE_PAGES * MIG_PAGE_BYTES),
		     0);
	end();
}

/* --- for good --- */

static void begin_for_good(int code)
{
	begin(DATA_1, &third_chunk);
	rig.refuse_from = 1 + rig.out_options.channel_count;
	rig.refuse_code = code;
	rig.in_options.resume_ms = TIMEOUT_MS;
}

Test(mig_resume, a_limit_is_a_limit)
{
	begin_for_good(-EHOSTUNREACH);
	rig.out_options.resume_ms = 50;
	expect_stays("limit", MIG_OUT_FAILED);
	cr_assert_not_null(strstr(rig.err.text, "it was not back in 50 ms: connect"), "%s",
			   rig.err.text);
	end();
}

Test(mig_resume, a_destination_that_is_gone_is_not_waited_for)
{
	begin_for_good(-ECONNREFUSED);
	expect_stays("gone", MIG_OUT_FAILED);
	end();
}

Test(mig_resume, without_a_limit_a_cut_is_the_end)
{
	begin(DATA_1, &third_chunk);
	rig.out_options.resume_ms = 0;
	rig.in_options.resume_ms = 0;
	expect_stays("no limit", MIG_OUT_FAILED);
	end();
}

static void cancel(void)
{
	mig_out_cancel(rig.out);
}

/* The destination, which would wait for ever, hears of it. */
Test(mig_resume, is_cancelled_while_there_is_no_connection)
{
	begin(DATA_1, &third_chunk);
	at_again = cancel;
	expect_stays("cancelled", MIG_OUT_CANCELLED);
	cr_assert_not_null(strstr(rig.in_err.text, "cancel"), "%s", rig.in_err.text);
	end();
}

/* Each attempt gets as far as the data channels, and no chunk comes. */
Test(mig_resume, a_connection_that_breaks_ever_again_is_given_up)
{
	const struct fault_rule first = { .action = FAULT_CUT,
					  .way = FAULT_FORTH,
					  .type = MIG_TYPE_ROUND };

	begin(0, &first);
	at_every = 3;
	cuts_most = PROXIES;
	rig.out_options.resume_ms = 150;
	rig.in_options.resume_ms = 2 * TIMEOUT_MS;
	rig.out_options.retry_ms = 20;
	expect_stays("ever again", MIG_OUT_FAILED);
	end();
}
