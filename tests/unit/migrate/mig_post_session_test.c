/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole migrations that end by post-copy: real faults at the destination, whose guest looks at
 * every page and writes on, and connections that are cut while the source serves.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/thread.h"
#include "tests/support/mig_rig.h"

#define FDS_MAX 1024u

BASE_DEFINE_FREEP(struct mig_rate, mig_rate_free);

static struct mig_rig rig;
static struct mig_out_report report;
static int fds[FDS_MAX]; /* copies of the source's sockets */
static atomic_uint fd_count;

static int remember(uint32_t index, int fd)
{
	(void)index;
	if (atomic_load(&fd_count) < FDS_MAX)
		fds[atomic_fetch_add(&fd_count, 1)] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return fd;
}

static void cut(void)
{
	for (uint32_t i = 0; i < atomic_load(&fd_count); i++)
		(void)shutdown(fds[i], SHUT_RDWR);
}

static void set_up(void)
{
	mig_rig_init(&rig);
#ifdef OVER_TLS
	mig_rig_use_tls(&rig);
#endif
	if (!mig_fake_vm_share(&rig.destination))
		cr_skip_test("no userfaultfd here");
	rig.between = remember;
	/* Each harvest names something, and the last one too, whoever got a processor when. */
	rig.source.writes_per_harvest = 100;
	rig.source.writes_last = true;
	rig.destination.writes = true;
	rig.destination.writes_per_ms = 50;
	rig.in_options.post = true;
	rig.in_options.fault_fd = rig.destination.fault_fd;
	rig.in_options.memory_fd = rig.destination.memory_fd;
	rig.out_options.pace = (struct mig_pace_options){ .downtime_goal_ns = 1,
							  .time_limit_ns = 1,
							  .late = MIG_LATE_POSTCOPY };
}

static void tear_down(void)
{
	mig_rig_fini(&rig);
	for (uint32_t i = 0; i < atomic_load(&fd_count); i++)
		(void)close(fds[i]);
}

TestSuite(mig_post_session, .init = set_up, .fini = tear_down, .timeout = 120);

static void expect_moved(void)
{
	enum mig_out_end end = mig_rig_finish(&rig);

	cr_assert_eq(end, MIG_OUT_MOVED, "%s", rig.err.text);
	cr_assert(rig.in_end == MIG_IN_RUNNING && rig.in_epoch == MIG_FAKE_EPOCH + 1, "%s",
		  rig.in_err.text);
	cr_assert(!mig_in_is_broken(rig.in));
	mig_fake_vm_wait_checked(&rig.destination);
	cr_assert(atomic_load(&rig.source.released));
	cr_assert_eq(rig.world.twice, 0);
	cr_assert_eq(rig.world.bad_page, 0);
	mig_out_report(rig.out, &report);
}

Test(mig_post_session, it_runs_there_before_all_is_there)
{
	mig_rig_begin(&rig);
	expect_moved();
	cr_assert(report.is_post && report.post.owed_pages > 0);
	cr_assert_eq(report.post.fault_pages + report.post.rest_pages, report.post.owed_pages);
	cr_assert_eq(report.post.reconnects, 0);
	cr_assert_eq(atomic_load(&rig.source.serves), 1);
	cr_assert_leq(report.post.p50_ns, report.post.p99_ns);
	cr_assert_leq(report.post.p99_ns, report.post.longest_ns);
	cr_assert_eq(report.blackout_ns, report.pause_ns + report.last_round_ns + report.state_ns +
						 report.let_go_ns + report.check_ns +
						 report.commit_ns + report.activate_ns);
}

/* A goal that can be met is met: nothing is owed. */
Test(mig_post_session, it_is_the_last_resort)
{
	rig.source.writes_last = false;
	rig.out_options.pace.downtime_goal_ns = 10 * BASE_NS_PER_SECOND;
	rig.out_options.pace.time_limit_ns = 20 * BASE_NS_PER_SECOND;
	mig_rig_begin(&rig);
	expect_moved();
	cr_assert(!report.is_post && report.post.owed_pages == 0);
	cr_assert_eq(atomic_load(&rig.source.serves), 0);
}

Test(mig_post_session, at_once_by_the_users_word)
{
	rig.out_options.pace.time_limit_ns = 0;
	mig_rig_begin(&rig);
	mig_out_post_now(rig.out);
	expect_moved();
	cr_assert(report.is_post);
	cr_assert_eq(report.rounds, 2);
}

Test(mig_post_session, disks_are_there_before)
{
	mig_fake_vm_add_image(&rig.source);
	mig_fake_vm_add_image(&rig.destination);
	mig_rig_begin(&rig);
	expect_moved();
	cr_assert(report.is_post);
	cr_assert_eq(memcmp(rig.source.image, rig.destination.image,
			    (size_t)MIG_FAKE_SECTORS * MIG_SECTOR_BYTES),
		     0);
}

/* Who loads the device state touches pages that are owed, before anybody runs. */
Test(mig_post_session, the_check_waits_for_pages)
{
	rig.destination.check_touches = true;
	mig_rig_begin(&rig);
	expect_moved();
	cr_assert(report.is_post);
	cr_assert_eq(report.post.fault_pages, report.post.owed_pages);
}

static void cut_at_serve(const char *operation)
{
	if (strcmp(operation, "serve") == 0)
		cut();
}

Test(mig_post_session, cut_when_it_begins_to_serve)
{
	rig.source.at = cut_at_serve;
	mig_rig_begin(&rig);
	expect_moved();
	cr_assert(report.is_post);
}

static void cut_at_state_once(const char *operation)
{
	static atomic_bool was;

	if (strcmp(operation, "state") == 0 && !atomic_exchange(&was, true))
		cut();
}

/* In the pause: the VM goes on where it is, and what was owed is dirty again. */
Test(mig_post_session, cut_in_the_pause)
{
	rig.source.at = cut_at_state_once;
	rig.out_options.resume_ms = 20000;
	rig.in_options.resume_ms = 20000;
	mig_rig_begin(&rig);
	expect_moved();
	cr_assert(report.is_post);
	cr_assert_eq(report.cuts, 1);
	cr_assert_eq(atomic_load(&rig.source.holds), 2);
}

static void *cut_again(void *context)
{
	struct mig_out_progress progress = { 0 };
	atomic_bool *stop = context;

	while (!atomic_load(stop)) {
		mig_out_progress(rig.out, &progress);
		if (progress.state == MIG_SRC_SERVING)
			cut();
		base_sleep_ns(3 * BASE_NS_PER_MS);
	}
	return NULL;
}

/* Again and again, control and pages: each time it comes nearer to its end. */
Test(mig_post_session, cut_many_times)
{
	BASE_CLEANUP(mig_rate_freep) struct mig_rate *rate = NULL;
	atomic_bool stop = false;
	pthread_t thread;

	cr_assert_eq(mig_rate_new(8u << 20, &rate, &rig.err), 0);
	rig.out_options.rate = rate;
	mig_rig_begin(&rig);
	cr_assert_eq(base_thread_start(&thread, "cutter", cut_again, &stop, &rig.err), 0);
	expect_moved();
	atomic_store(&stop, true);
	base_thread_join(thread);
	cr_assert(report.is_post);
	cr_assert_gt(report.post.reconnects, 0);
}

/* --- what does not come about --- */

static void expect_stays(const char *why)
{
	enum mig_out_end end = mig_rig_finish(&rig);

	cr_assert_eq(end, MIG_OUT_FAILED);
	cr_assert_not_null(strstr(rig.err.text, why), "%s", rig.err.text);
	cr_assert(atomic_load(&rig.source.runs));
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
}

Test(mig_post_session, a_destination_that_cannot)
{
	rig.in_options.post = false;
	mig_rig_begin(&rig);
	expect_stays("post-copy");
	cr_assert_eq(rig.findings.count, 1);
}

Test(mig_post_session, not_with_verify)
{
	rig.out_options.verify = true;
	mig_rig_begin(&rig);
	expect_stays("a verified move cannot end by post-copy");
}

static void cut_at_check(const char *operation)
{
	if (strcmp(operation, "check") == 0)
		cut();
}

/* The source is gone while the device state is loaded: it stays there, and who waits is let go. */
Test(mig_post_session, cut_before_it_is_ready)
{
	rig.destination.at = cut_at_check;
	rig.destination.faults.check = 0;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_FAILED);
	cr_assert(atomic_load(&rig.source.runs));
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
	cr_assert(atomic_load(&rig.destination.released));
}

Test(mig_post_session, the_destination_fails_its_check)
{
	rig.destination.faults.check = -1;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_FAILED);
	cr_assert(atomic_load(&rig.source.runs));
}

/* Committed, and it cannot run there: it comes back, and pages that were fetched do not matter. */
Test(mig_post_session, it_is_handed_back)
{
	rig.destination.faults.run = -1;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_FAILED);
	cr_assert(atomic_load(&rig.source.runs));
	cr_assert_eq(rig.source.epoch, MIG_FAKE_EPOCH + 2);
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
}

/* --- what is lost --- */

static void refuse_at_serve(const char *operation)
{
	if (strcmp(operation, "serve") != 0)
		return;
	mig_out_cancel(rig.out); /* while it is heard of: nothing */
	atomic_store(&rig.refused, -1);
	cut();
}

static void *cancel_later(void *context)
{
	struct mig_out_progress progress = { 0 };

	(void)context;
	do {
		base_sleep_ns(BASE_NS_PER_MS);
		mig_out_progress(rig.out, &progress);
	} while (progress.state != MIG_SRC_SERVING);
	while (!atomic_load(&rig.source.released)) {
		mig_out_cancel(rig.out);
		base_sleep_ns(BASE_NS_PER_MS);
	}
	return NULL;
}

/* The bad pages are those that nobody brings any more: the guest saw them when it was let go. */
static void end_broken(void)
{
	cr_assert_eq(rig.in_end, MIG_IN_RUNNING);
	cr_assert(mig_in_is_broken(rig.in));
	cr_assert_eq(rig.world.bad_page, 0);
	mig_in_free(rig.in);
	rig.in = NULL;
	atomic_store(&rig.destination.stop, true);
	mig_fake_vm_wait_checked(&rig.destination);
	rig.world.bad_page = 0;
}

/* The user gives it up where nothing is heard of the destination; whose own user ends it there. */
Test(mig_post_session, given_up_on_both_sides)
{
	BASE_CLEANUP(mig_rate_freep) struct mig_rate *rate = NULL;
	pthread_t thread;

	cr_assert_eq(mig_rate_new(8u << 20, &rate, &rig.err), 0);
	rig.linger_ms = 0;
	rig.out_options.rate = rate;
	rig.source.at = refuse_at_serve;
	mig_rig_begin(&rig);
	cr_assert_eq(base_thread_start(&thread, "cancel", cancel_later, NULL, &rig.err), 0);
	cr_assert_eq(mig_out_run(rig.out, &rig.findings, &rig.err), MIG_OUT_STALE);
	cr_assert(atomic_load(&rig.source.released) && !atomic_load(&rig.source.runs));
	mig_in_give_up(rig.in);
	base_thread_join(rig.in_thread);
	base_thread_join(thread);
	end_broken();
}
