/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions of a host with limits: a source waits in line, a destination says what stands against
 * it, and what is over holds nothing. */
#include "tests/unit/migrate/mig_host_rig.h"

#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "migrate/mig_rate.h"
#include "tests/support/mig_rig.h"

static struct mig_rig rig;
static struct mig_host *here;  /* of the session that is tested */
static struct mig_host *other; /* of another worker */
static pthread_t helper;

static void setup(void)
{
	folder_begin();
	mig_rig_init(&rig);
	here = host_new(1, 0);
	other = host_new(1, 0);
}

static void teardown(void)
{
	mig_rig_fini(&rig);
	mig_host_free(here);
	mig_host_free(other);
	folder_end();
}

TestSuite(mig_host_session, .init = setup, .fini = teardown, .timeout = 30);

static bool is_free(enum mig_way way)
{
	uint32_t most = 0;

	return mig_host_busy(other, way, &most) == 0;
}

static void wait_queued(void)
{
	struct mig_out_progress progress = { .is_queued = false };

	while (!progress.is_queued) {
		base_sleep_ns(BASE_NS_PER_MS);
		mig_out_progress(rig.out, &progress);
	}
	cr_assert_eq(progress.state, MIG_SRC_LINKING);
	cr_assert_eq(rig.connects, 0);
}

static void *let_in(void *context)
{
	wait_queued();
	mig_host_leave(other, MIG_OUTGOING);
	return context;
}

static void *cancel(void *context)
{
	wait_queued();
	mig_out_cancel(rig.out);
	return context;
}

static void help(void *(*body)(void *context))
{
	if (base_thread_start(&helper, "helper", body, NULL, &err) < 0)
		base_bug("helper: %s", err.text);
}

Test(mig_host_session, takes_part_and_leaves)
{
	struct mig_out_progress progress;
	struct mig_out_report report;

	rig.out_options.host = here;
	rig.in_options.host = here;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_MOVED, "%s", rig.err.text);
	mig_fake_vm_wait_checked(&rig.destination);
	mig_out_progress(rig.out, &progress);
	cr_assert_not(progress.is_queued);
	mig_out_report(rig.out, &report);
	cr_assert_geq(report.total_ns,
		      report.queued_ns + report.prepare_ns + report.copy_ns + report.blackout_ns);
	cr_assert(is_free(MIG_OUTGOING));
	cr_assert(is_free(MIG_INCOMING));
}

Test(mig_host_session, a_source_waits_for_its_turn)
{
	struct mig_out_report report;

	cr_assert_eq(mig_host_enter(other, MIG_OUTGOING, &err), 1);
	rig.out_options.host = here;
	mig_rig_begin(&rig);
	help(let_in);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_MOVED, "%s", rig.err.text);
	base_thread_join(helper);
	mig_fake_vm_wait_checked(&rig.destination);
	mig_out_report(rig.out, &report);
	cr_assert_gt(report.queued_ns, 0);
	cr_assert(is_free(MIG_OUTGOING));
}

/* Nobody was told of it. */
Test(mig_host_session, cancelled_in_the_line)
{
	cr_assert_eq(mig_host_enter(other, MIG_OUTGOING, &err), 1);
	rig.out_options.host = here;
	mig_rig_begin(&rig);
	help(cancel);
	cr_assert_eq(mig_out_run(rig.out, &rig.findings, &rig.err), MIG_OUT_CANCELLED);
	base_thread_join(helper);
	mig_in_give_up(rig.in);
	base_thread_join(rig.in_thread);
	cr_assert_eq(rig.connects, 0);
	cr_assert_eq(rig.source.holds, 0);
	cr_assert(rig.source.runs);
	mig_host_leave(other, MIG_OUTGOING);
	cr_assert(is_free(MIG_OUTGOING));
	cr_assert_eq(mig_host_enter(other, MIG_OUTGOING, &err), 1);
}

Test(mig_host_session, a_full_destination_objects)
{
	cr_assert_eq(mig_host_try(other, MIG_INCOMING, &err), 1);
	rig.out_options.host = here; /* which sends none yet */
	rig.in_options.host = here;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_FAILED);
	cr_assert_eq(rig.findings.count, 1);
	cr_assert_str_eq(rig.findings.lines[0],
			 "host: it takes part in 1 of 1 incoming migrations");
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
	cr_assert_eq(rig.source.holds, 0);
	cr_assert(rig.source.runs);
	cr_assert(is_free(MIG_OUTGOING));
	mig_host_leave(other, MIG_INCOMING);
	cr_assert(is_free(MIG_INCOMING));
}

/* With what else it has to object to. */
Test(mig_host_session, what_failed_holds_nothing)
{
	cr_assert_eq(mig_host_try(other, MIG_INCOMING, &err), 1);
	atomic_store(&rig.destination.faults.findings, 1);
	rig.out_options.host = here;
	rig.in_options.host = here;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_FAILED);
	cr_assert_eq(rig.findings.count, 3);
	mig_host_leave(other, MIG_INCOMING);
	cr_assert(is_free(MIG_OUTGOING));
	cr_assert(is_free(MIG_INCOMING));
}

Test(mig_host_session, a_destination_that_cannot_check_holds_nothing)
{
	atomic_store(&rig.destination.faults.check, 1);
	rig.in_options.host = here;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_FAILED);
	cr_assert(is_free(MIG_INCOMING));
}

/* The last round waits for nobody, and yet others of the host wait for it. */
Test(mig_host_session, the_last_round_is_counted)
{
	const uint64_t cap = 1ULL << 40;
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	struct mig_host *capped = host_new(1, cap);
	struct mig_rate *rate = NULL;
	atomic_bool at_once = true;

	cr_assert_eq(mig_rate_new(0, &rate, &err), 0);
	mig_rate_share(rate, capped);
	mig_rate_wait(rate, cap * 2, &at_once); /* as such a round does */
	cr_assert_gt(bandwidth_in_file(), begin_ns + BASE_NS_PER_SECOND);
	mig_rate_free(rate);
	mig_host_free(capped);
}

/* All that goes shares the host's cap, which here is the only one. */
Test(mig_host_session, moves_under_the_cap_of_the_host)
{
	const uint64_t cap = 8ULL << 20;
	struct mig_host *capped = host_new(1, cap);
	struct mig_out_report report;
	struct mig_rate *rate = NULL;
	uint64_t bytes = 0;

	cr_assert_eq(mig_rate_new(0, &rate, &err), 0);
	mig_rate_share(rate, capped);
	rig.out_options.rate = rate;
	rig.out_options.quick = true;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_MOVED, "%s", rig.err.text);
	mig_fake_vm_wait_checked(&rig.destination);
	mig_out_report(rig.out, &report);
	bytes = report.page_count * MIG_PAGE_BYTES;
	/* The burst is free, and a channel's last bytes wait for those before them only. */
	cr_assert_gt(bytes, cap / 10 + 4 * MIG_SPAN_BYTES);
	bytes -= cap / 10 + 3 * MIG_SPAN_BYTES;
	cr_assert_geq(report.last_round_ns, bytes * BASE_NS_PER_SECOND / cap);
	mig_rate_free(rate);
	mig_host_free(capped);
}

static void *finish_other(void *context)
{
	struct mig_rig *second = context;

	if (mig_rig_finish(second) != MIG_OUT_MOVED)
		base_bug("the second: %s", second->err.text);
	return NULL;
}

/* Two workers, one cap: not before all but the burst and the newest post could go. */
Test(mig_host_session, two_at_once_share_the_cap_of_the_host)
{
	static struct mig_rig second;
	struct mig_rig *rigs[2] = { &rig, &second };
	const uint64_t cap = 16ULL << 20;
	struct mig_host *capped[2];
	struct mig_rate *rates[2];
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	uint64_t bytes = 0;

	mig_rig_init(&second);
	for (int i = 0; i < 2; i++) {
		capped[i] = host_new(2, cap);
		cr_assert_eq(mig_rate_new(0, &rates[i], &err), 0);
		mig_rate_share(rates[i], capped[i]);
		rigs[i]->out_options.rate = rates[i];
		rigs[i]->out_options.host = capped[i];
		rigs[i]->out_options.quick = true;
		mig_rig_begin(rigs[i]);
	}
	if (base_thread_start(&helper, "second", finish_other, &second, &err) < 0)
		base_bug("second: %s", err.text);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_MOVED, "%s", rig.err.text);
	base_thread_join(helper);
	for (int i = 0; i < 2; i++) {
		struct mig_out_report report;

		mig_out_report(rigs[i]->out, &report);
		bytes += report.page_count * MIG_PAGE_BYTES;
		mig_fake_vm_wait_checked(&rigs[i]->destination);
	}
	cr_assert_gt(bytes, cap / 10 + 4 * MIG_SPAN_BYTES);
	bytes -= cap / 10 + 2 * MIG_SPAN_BYTES;
	cr_assert_geq(base_clock_boot_ns(&base_clock_system) - begin_ns,
		      bytes * BASE_NS_PER_SECOND / cap);
	mig_rig_fini(&second);
	for (int i = 0; i < 2; i++) {
		mig_rate_free(rates[i]);
		mig_host_free(capped[i]);
	}
}
