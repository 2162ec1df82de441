/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole migrations between two sessions over a real connection, with VMs that are none: what
 * happens, and what happens when something fails on the way.  Never two that run; one in the end;
 * every page as the guest wrote it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/thread.h"
#include "migrate/mig_in.h"
#include "migrate/mig_out.h"
#include "tests/support/mig_fake.h"

#define TIMEOUT_MS     5000u
#define MIG_FAKE_NOISE 20

static struct mig_fake_world world;
static struct mig_fake_vm source, destination;
static struct mig_arbiter arbiter;
static struct mig_in *in;
static struct mig_out *out;
static struct mig_out_options out_options;
static struct mig_in_options in_options;
static struct mig_findings findings;
static struct base_error err, in_err;
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static socklen_t address_bytes;
static int listen_fd = -1;
static atomic_int refused; /* connections that are still to be refused */
static int connections[400];
static atomic_uint connection_count;
static const char *cut_at;    /* the operation at which all connections end */
static const char *cancel_at; /* the operation at which the user cancels */

static pthread_t in_thread;
static enum mig_in_end in_end;
static uint64_t in_epoch;

/* A name of its own that no file has. */
static void listen_anywhere(void)
{
	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cr_assert_geq(listen_fd, 0);
	cr_assert_eq(bind(listen_fd, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
	address_bytes = sizeof(address);
	cr_assert_eq(getsockname(listen_fd, (struct sockaddr *)&address, &address_bytes), 0);
	cr_assert_eq(listen(listen_fd, 20), 0);
}

static int connect_there(void *context, int *ret_fd, struct base_error *ret_err)
{
	BASE_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int left = atomic_load(&refused);

	(void)context;
	if (left != 0) {
		atomic_store(&refused, left - 1);
		return base_fail(ret_err, -ECONNREFUSED, "connect: by the test's wish");
	}
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, address_bytes) < 0)
		return base_fail_errno(ret_err, -errno, "connect");
	connections[atomic_fetch_add(&connection_count, 1)] = dup(fd);
	*ret_fd = base_take_fd(&fd);
	return 0;
}

static void cut(void)
{
	for (uint32_t i = 0; i < connection_count; i++)
		(void)shutdown(connections[i], SHUT_RDWR);
}

/* Once, at the first operation of that name. */
static void at(const char *operation)
{
	if (cut_at != NULL && strcmp(operation, cut_at) == 0) {
		cut_at = NULL;
		cut();
	}
	if (cancel_at != NULL && strcmp(operation, cancel_at) == 0) {
		cancel_at = NULL;
		mig_out_cancel(out);
	}
}

static void setup(void)
{
	mig_fake_world_init(&world);
	mig_fake_vm_init(&source, &world, true);
	mig_fake_vm_init(&destination, &world, false);
	source.at = at;
	destination.at = at;
	arbiter = mig_fake_arbiter(&destination);
	listen_anywhere();
	in_options = (struct mig_in_options){ .vm = &mig_fake_destination,
					      .vm_context = &destination,
					      .listen_fd = listen_fd,
					      .arbiter = &arbiter,
					      .keeps_register = true,
					      .timeout_ms = TIMEOUT_MS,
					      .retry_ms = 5 };
	out_options =
		(struct mig_out_options){ .vm = &mig_fake_source,
					  .vm_context = &source,
					  .connect = connect_there,
					  .epoch = MIG_FAKE_EPOCH,
					  .channel_count = 3,
					  .timeout_ms = TIMEOUT_MS,
					  .retry_ms = 5,
					  .pace = { .downtime_goal_ns = 50 * BASE_NS_PER_MS,
						    .time_limit_ns = 20 * BASE_NS_PER_SECOND } };
}

static void teardown(void)
{
	mig_out_free(out);
	mig_in_free(in);
	mig_fake_vm_fini(&source);
	mig_fake_vm_fini(&destination);
	if (world.twice != 0 || world.bad_page != 0) /* an assertion here would not count */
		base_bug("%d times two at once, %u bad pages", world.twice, world.bad_page);
	(void)close(listen_fd);
	for (uint32_t i = 0; i < connection_count; i++)
		(void)close(connections[i]);
}

TestSuite(mig_session, .init = setup, .fini = teardown, .timeout = 30);

static void *run_in(void *context)
{
	(void)context;
	in_end = mig_in_run(in, &in_epoch, &in_err);
	mig_in_linger(in, 20000);
	return NULL;
}

static void begin(void)
{
	cr_assert_eq(mig_in_new(&in_options, &in, &err), 0, "%s", err.text);
	cr_assert_eq(mig_out_new(&out_options, &out, &err), 0, "%s", err.text);
	cr_assert_eq(base_thread_start(&in_thread, "run-in", run_in, NULL, &err), 0);
	mig_fake_vm_start(&source);
}

static enum mig_out_end finish(void)
{
	enum mig_out_end end = mig_out_run(out, &findings, &err);

	base_thread_join(in_thread);
	return end;
}

static void expect_moved(enum mig_out_end end)
{
	cr_assert_eq(end, MIG_OUT_MOVED, "%d: %s", (int)end, err.text);
	cr_assert_eq(in_end, MIG_IN_RUNNING, "%s", in_err.text);
	cr_assert_eq(in_epoch, MIG_FAKE_EPOCH + 1);
	cr_assert_eq(world.owner.epoch, MIG_FAKE_EPOCH + 1);
	cr_assert_eq(world.owner.owner, MIG_DESTINATION);
	cr_assert(source.released);
	cr_assert_not(source.runs);
	cr_assert(destination.runs);
	cr_assert_eq(destination.epoch, MIG_FAKE_EPOCH + 1);
	cr_assert_not(destination.released);
	cr_assert_not(world.promised);
}

/* It runs at the source, at @epoch, and the destination is clean. */
static void expect_stays(enum mig_out_end end, enum mig_out_end expected, uint64_t epoch)
{
	cr_assert_eq(end, expected, "%d: %s", (int)end, err.text);
	cr_assert_eq(in_end, MIG_IN_GONE);
	cr_assert(source.runs);
	cr_assert_not(source.released);
	cr_assert_not(destination.runs);
	cr_assert_eq(source.epoch, epoch);
	cr_assert_not(world.promised);
	cr_assert_not(source.tracking);
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

	begin();
	expect_moved(finish());
	mig_out_report(out, &report);
	cr_assert_eq(report.blackout_ns, report.pause_ns + report.last_round_ns + report.state_ns +
						 report.let_go_ns + report.check_ns +
						 report.commit_ns + report.activate_ns);
	cr_assert_geq(report.total_ns, report.prepare_ns + report.copy_ns + report.blackout_ns);
	cr_assert_eq(report.state_bytes, sizeof(MIG_FAKE_STATE));
	cr_assert_geq(report.page_count, MIG_FAKE_PAGES / 5 * 3);
	cr_assert_geq(report.zero_pages, MIG_FAKE_PAGES / 5);
	cr_assert_geq(report.rounds, 2);
	mig_out_progress(out, &progress);
	cr_assert_eq(progress.state, MIG_SRC_MOVED);
	cr_assert_eq(findings.count, 0);
}

Test(mig_session, moves_on_one_channel)
{
	out_options.channel_count = 1;
	begin();
	expect_moved(finish());
}

Test(mig_session, moves_on_sixteen_channels)
{
	out_options.channel_count = MIG_CHANNELS_MAX;
	begin();
	expect_moved(finish());
}

#if !defined(__SANITIZE_THREAD__) /* a guest's writes race with the sender by design */
Test(mig_session, moves_a_guest_that_writes)
{
	source.writes = true;
	source.writes_per_ms = 20;
	destination.writes = true;
	begin();
	mig_fake_vm_wait_writes(&source, 50);
	expect_moved(finish());
	mig_fake_vm_wait_writes(&destination, 1000);
}

/* Faster than it can be sent: it is switched over at the time limit. */
Test(mig_session, moves_a_guest_that_writes_too_fast)
{
	source.writes = true;
	destination.writes = true;
	out_options.pace.downtime_goal_ns = 1;
	out_options.pace.time_limit_ns = BASE_NS_PER_SECOND / 5;
	begin();
	mig_fake_vm_wait_writes(&source, 50);
	expect_moved(finish());
	mig_fake_vm_wait_writes(&destination, 1000);
}

Test(mig_session, stays_where_the_goal_cannot_be_met)
{
	source.writes = true;
	out_options.pace.fixed_ns = 1;
	out_options.pace.downtime_goal_ns = 2;
	out_options.pace.time_limit_ns = BASE_NS_PER_SECOND / 5;
	out_options.pace.late = MIG_LATE_CANCEL;
	begin();
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	expect_text(err.text, "faster than can be sent");
	mig_fake_vm_wait_writes(&source, 100);
	cr_assert_eq(world.owner.epoch, MIG_FAKE_EPOCH);
}
#endif

/* --- before a byte moves --- */

Test(mig_session, the_destination_objects)
{
	atomic_store(&destination.faults.findings, 1);
	begin();
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_eq(findings.count, 2);
	expect_text(findings.lines[0], "9 GiB are needed");
	expect_text(findings.lines[1], "bridge 'br0'");
	expect_text(err.text, "objects: memory: 9 GiB");
	cr_assert_eq(source.holds, 0);
	cr_assert(destination.released);
}

Test(mig_session, the_destination_cannot_look)
{
	atomic_store(&destination.faults.prepare, 1);
	begin();
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_eq(source.holds, 0);
}

Test(mig_session, nobody_is_there)
{
	atomic_store(&refused, 1);
	begin();
	mig_in_give_up(in);
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	expect_text(err.text, "by the test's wish");
}

/* --- until READY --- */

Test(mig_session, cancelled_at_once)
{
	begin();
	mig_out_cancel(out);
	mig_in_give_up(in);
	expect_stays(finish(), MIG_OUT_CANCELLED, MIG_FAKE_EPOCH);
	cr_assert_eq(source.holds, 0);
}

Test(mig_session, cannot_be_paused)
{
	atomic_store(&source.faults.hold, 1);
	begin();
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	expect_text(err.text, "cannot be paused");
	expect_text(in_err.text, "the source has cancelled");
}

Test(mig_session, state_cannot_be_read)
{
	atomic_store(&source.faults.state, 1);
	begin();
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_eq(source.holds, 1);
}

Test(mig_session, disks_cannot_be_let_go)
{
	atomic_store(&source.faults.let_go, 1);
	begin();
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
}

Test(mig_session, check_fails_at_the_destination)
{
	atomic_store(&destination.faults.check, 1);
	begin();
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	expect_text(err.text, "the destination has failed: the VM cannot run here: check");
	cr_assert(destination.released);
}

Test(mig_session, the_source_runs_again_at_the_second_try)
{
	atomic_store(&destination.faults.check, 1);
	atomic_store(&source.faults.run, 2);
	begin();
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
}

Test(mig_session, the_promise_cannot_be_written)
{
	atomic_store(&source.faults.promise, 1);
	begin();
	in_options.give_up_ms = 0;
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	expect_text(err.text, "the promise cannot be written");
	cr_assert_eq(world.asked, 0);
}

/* --- from the question on --- */

Test(mig_session, no_answer_for_a_while_nothing_done)
{
	atomic_store(&destination.faults.unknown_before, 3);
	begin();
	expect_moved(finish());
	cr_assert_eq(world.asked, 1);
}

Test(mig_session, no_answer_for_a_while_done)
{
	atomic_store(&destination.faults.unknown_after, 1);
	begin();
	expect_moved(finish());
	cr_assert_eq(world.asked, 1);
}

/* It is handed back, two epochs later. */
Test(mig_session, the_destination_cannot_run_it)
{
	atomic_store(&destination.faults.run, -1);
	begin();
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH + 2);
	cr_assert_eq(world.owner.epoch, MIG_FAKE_EPOCH + 2);
	cr_assert_eq(world.owner.owner, MIG_SOURCE);
	cr_assert(destination.released);
}

/* The arbiter is elsewhere: nobody asks the destination for it. */
Test(mig_session, an_arbiter_of_its_own)
{
	struct mig_arbiter own = mig_fake_arbiter(&source);

	out_options.arbiter = &own;
	in_options.keeps_register = false;
	atomic_store(&source.faults.unknown_before, 2);
	begin();
	expect_moved(finish());
}

/* --- all connections end at a step --- */

/* Before READY: the VM stays, at its epoch, and nobody asked. */
static void cut_early(const char *step)
{
	cut_at = step;
	begin();
	expect_stays(finish(), MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_null(cut_at);
	cr_assert(destination.released);
	cr_assert_eq(world.owner.epoch, MIG_FAKE_EPOCH);
}

/* After it: it moves, when the source has connected again, at the third time. */
static void cut_late(const char *step)
{
	cut_at = step;
	begin();
	expect_moved(finish());
	cr_assert_null(cut_at);
	cr_assert_eq(world.asked, 1);
}

static void cut_either(const char *step)
{
	enum mig_out_end end = MIG_OUT_INVALID;

	cut_at = step;
	begin();
	end = finish();
	if (end == MIG_OUT_MOVED)
		expect_moved(end);
	else
		expect_stays(end, MIG_OUT_FAILED, MIG_FAKE_EPOCH);
	cr_assert_null(cut_at);
}

#define CUT(when, name, step)                                                                      \
	Test(mig_session, cut_at_##name)                                                           \
	{                                                                                          \
		cut_##when(step);                                                                  \
	}

CUT(early, prepare, "prepare")
CUT(early, harvest, "harvest")
CUT(early, hold, "hold")
CUT(early, state, "state")
CUT(early, let_go, "let go")
CUT(early, check, "check")      /* the source comes back to say that it was cancelled */
CUT(either, promise, "promise") /* the loss is heard before the promise is written, or after */
CUT(late, ask, "ask")
CUT(late, asked, "asked")
CUT(late, run, "run")

/* --- the user cancels at a step --- */

static void cancel_early(const char *step)
{
	cancel_at = step;
	begin();
	expect_stays(finish(), MIG_OUT_CANCELLED, MIG_FAKE_EPOCH);
	cr_assert_null(cancel_at);
	cr_assert(destination.released);
	cr_assert_eq(world.owner.epoch, MIG_FAKE_EPOCH);
}

/* From the question on it is too late. */
static void cancel_late(const char *step)
{
	cancel_at = step;
	begin();
	expect_moved(finish());
	cr_assert_null(cancel_at);
}

#define CANCEL(when, name, step)                                                                   \
	Test(mig_session, cancelled_at_##name)                                                     \
	{                                                                                          \
		cancel_##when(step);                                                               \
	}

CANCEL(early, prepare, "prepare")
CANCEL(early, harvest, "harvest")
CANCEL(early, hold, "hold")
CANCEL(early, state, "state")
CANCEL(early, let_go, "let go")
CANCEL(early, promise, "promise")
CANCEL(late, asked, "asked")
CANCEL(late, run, "run")

/* The register is the source's again, if the user's question comes before the first one. */
Test(mig_session, cancelled_in_doubt)
{
	atomic_store(&destination.faults.unknown_before, 3);
	cancel_at = "ask";
	begin();
	expect_stays(finish(), MIG_OUT_CANCELLED, MIG_FAKE_EPOCH + 1);
	cr_assert_eq(world.owner.owner, MIG_SOURCE);
	cr_assert_eq(world.asked, 1);
}

/* --- an operator decides --- */

/* The destination is heard of no more at the first question, which stays without an answer. */
static void lost_in_doubt(const char *operation)
{
	if (strcmp(operation, "ask") != 0)
		return;
	destination.at = NULL;
	atomic_store(&refused, -1);
	cut();
	atomic_store(&world.resolved, MIG_FAKE_EPOCH + 2);
}

Test(mig_session, decided_by_hand)
{
	enum mig_out_end end = MIG_OUT_INVALID;

	atomic_store(&destination.faults.unknown_before, -1);
	destination.at = lost_in_doubt;
	begin();
	end = mig_out_run(out, &findings, &err);
	cr_assert_eq(end, MIG_OUT_FAILED, "%d: %s", (int)end, err.text);
	cr_assert(source.runs);
	cr_assert_eq(source.epoch, MIG_FAKE_EPOCH + 2);
	cr_assert_not(destination.runs);
	atomic_store(&destination.faults.unknown_before, 0);
	mig_in_give_up(in);
	base_thread_join(in_thread);
	cr_assert_eq(in_end, MIG_IN_GONE);
}

/* Who is heard of is not dead, whatever an operator said. */
Test(mig_session, decided_by_hand_of_somebody_alive)
{
	atomic_store(&world.resolved, MIG_FAKE_EPOCH + 2);
	atomic_store(&destination.faults.unknown_before, 3);
	begin();
	expect_moved(finish());
}

/* --- who is at the door --- */

static int knock(const struct mig_open *open)
{
	uint8_t body[MIG_OPEN_BYTES];
	struct mig_link_options options = { .is_source = true,
					    .is_control = open->channel == 0,
					    .timeout_ms = TIMEOUT_MS };
	struct mig_link *link = NULL;
	struct mig_received received;
	BASE_CLOSE int fd = -1;
	int r = 0;

	cr_assert_eq(connect_there(NULL, &fd, &err), 0);
	options.fd = fd;
	cr_assert_eq(mig_link_new(&options, &link, &err), 0);
	mig_open_encode(open, body);
	cr_assert_eq(mig_link_send(link, MIG_TYPE_OPEN, body, sizeof(body), &err), 0);
	r = mig_link_receive(link, &received, &err);
	if (r == 0)
		r = (int)received.type;
	mig_link_free(link);
	return r;
}

/* At the first harvest there is a migration: nobody else gets in. */
static void strangers(const char *operation)
{
	struct mig_open open = {
		.version_min = 1, .version_max = 1, .channel_count = 3, .id = { 1 }
	};

	if (strcmp(operation, "harvest") != 0)
		return;
	source.at = NULL;
	cr_assert_eq(knock(&open), MIG_TYPE_FAILED);
	open.secret[0] = 1; /* not the secret */
	cr_assert_eq(knock(&open), MIG_TYPE_FAILED);
	open.channel = 1;
	cr_assert_eq(knock(&open), -ENOTCONN);
}

Test(mig_session, a_stranger_is_turned_away)
{
	source.at = strangers;
	begin();
	expect_moved(finish());
}

/* Bytes that are no protocol, half a message, many who say nothing: the migration is not hurt. */
Test(mig_session, noise_at_the_door)
{
	static const char noise[200] = "GET / HTTP/1.1";
	int fds[MIG_FAKE_NOISE];

	cr_assert_eq(mig_in_new(&in_options, &in, &err), 0);
	for (int i = 0; i < MIG_FAKE_NOISE; i++) {
		cr_assert_eq(connect_there(NULL, &fds[i], &err), 0);
		cr_assert_gt(write(fds[i], noise, i % 2 == 0 ? sizeof(noise) : 10), 0);
	}
	mig_in_free(in);
	in = NULL;
	for (int i = 0; i < MIG_FAKE_NOISE; i++)
		(void)close(fds[i]);
	begin();
	expect_moved(finish());
}
