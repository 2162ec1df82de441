/* SPDX-License-Identifier: Apache-2.0 */
/* Whole migrations of a guest that cannot be caught as it is, and that nobody is left slowed. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "migrate/mig_throttle.h"
#include "tests/support/mig_rig.h"

BASE_DEFINE_FREEP(struct mig_rate, mig_rate_free);

static struct mig_rig rig;
static struct mig_rate *rate;
static struct mig_out_report report;
static int control = -1; /* a copy of the first connection's socket */

static void set_up(void)
{
	mig_rig_init(&rig);
	cr_assert_eq(mig_rate_new(16u << 20, &rate, &rig.err), 0);
	rig.source.writes_per_harvest = 2000; /* 7.8 MiB, of which 3.2 fit into the goal */
	rig.out_options.rate = rate;
	rig.out_options.throttle_permille = MIG_THROTTLE_MAX;
	rig.out_options.compress = MIG_COMPRESS_NEVER;
	rig.out_options.pace = (struct mig_pace_options){ .downtime_goal_ns = 200 * BASE_NS_PER_MS,
							  .time_limit_ns = 60 * BASE_NS_PER_SECOND,
							  .late = MIG_LATE_CANCEL };
}

static void tear_down(void)
{
	mig_rig_fini(&rig);
	mig_rate_free(rate);
	if (control >= 0)
		(void)close(control);
}

TestSuite(mig_throttle_session, .init = set_up, .fini = tear_down, .timeout = 120);

static void finish(enum mig_out_end expected)
{
	enum mig_out_end end = mig_rig_finish(&rig);

	cr_assert_eq(end, expected, "%s", rig.err.text);
	cr_assert_eq(rig.world.twice, 0);
	cr_assert_eq(rig.world.bad_page, 0);
	mig_out_report(rig.out, &report);
	cr_assert_eq(atomic_load(&rig.source.throttled), 0, "nobody is left slowed");
}

Test(mig_throttle_session, it_is_caught)
{
	mig_rig_begin(&rig);
	finish(MIG_OUT_MOVED);
	cr_assert(report.throttle_most > 0 && report.throttle_most <= MIG_THROTTLE_MAX, "%u",
		  report.throttle_most);
	cr_assert(report.throttle_ns > 0 && report.throttle_ns <= report.copy_ns);
}

Test(mig_throttle_session, who_may_not_be_slowed_is_not)
{
	rig.out_options.throttle_permille = 0;
	rig.out_options.pace.late = MIG_LATE_SWITCH;
	rig.out_options.pace.time_limit_ns = BASE_NS_PER_SECOND;
	mig_rig_begin(&rig);
	finish(MIG_OUT_MOVED);
	cr_assert_eq(atomic_load(&rig.source.throttles), 0);
	cr_assert(report.throttle_most == 0 && report.throttle_ns == 0);
}

Test(mig_throttle_session, a_guest_that_is_caught_anyway_is_left_alone)
{
	rig.source.writes_per_harvest = 1;
	mig_rig_begin(&rig);
	finish(MIG_OUT_MOVED);
	cr_assert_eq(report.throttle_most, 0);
}

static void cancel(const char *operation)
{
	if (strcmp(operation, "slow") == 0)
		mig_out_cancel(rig.out);
}

Test(mig_throttle_session, cancelled)
{
	rig.source.at = cancel;
	mig_rig_begin(&rig);
	finish(MIG_OUT_CANCELLED);
	cr_assert(atomic_load(&rig.source.runs));
	cr_assert_gt(report.throttle_most, 0);
}

static int remember(uint32_t index, int fd)
{
	if (index == 0 && control < 0)
		control = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return fd;
}

static void cut(const char *operation)
{
	if (strcmp(operation, "slow") == 0)
		(void)shutdown(control, SHUT_RDWR);
}

/* While there is no connection slowing it is for nothing; and then it is judged anew. */
Test(mig_throttle_session, cut)
{
	rig.source.at = cut;
	rig.between = remember;
	rig.out_options.resume_ms = 20000;
	rig.in_options.resume_ms = 20000;
	mig_rig_begin(&rig);
	finish(MIG_OUT_MOVED);
	cr_assert_eq(report.cuts, 1);
	cr_assert_geq(atomic_load(&rig.source.unslowed), 2);
}

static void cut_for_good(const char *operation)
{
	if (strcmp(operation, "slow") != 0)
		return;
	atomic_store(&rig.refused, -1);
	(void)shutdown(control, SHUT_RDWR);
}

/* The destination is gone: the VM stays, as it was. */
Test(mig_throttle_session, cut_for_good)
{
	rig.source.at = cut_for_good;
	rig.between = remember;
	mig_rig_begin(&rig);
	finish(MIG_OUT_FAILED);
	cr_assert(atomic_load(&rig.source.runs));
}
