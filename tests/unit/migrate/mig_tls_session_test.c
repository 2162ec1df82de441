/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole migrations and TLS: who is not let in, who speaks otherwise, and what becomes of a move
 * whose records are changed or cut on the way.  Wherever it does not come about, the VM runs at the
 * source and the destination is clean.  mig_session_test.c runs over TLS besides.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/thread.h"
#include "migrate/mig_tls_priv.h"
#include "tests/support/mig_steps.h"

static struct mig_rig rig;

static pthread_mutex_t away_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t away_count;
static struct base_error away; /* what the destination said of who was turned away last */

static int put_dripper(uint32_t index, int fd);

static void turned_away(void *context, const struct base_error *why)
{
	BASE_LOCKED(&away_lock);

	(void)context;
	away = *why;
	away_count++;
}

static void setup(void)
{
	mig_rig_init(&rig);
	mig_steps_init(&rig);
	mig_rig_use_tls(&rig);
	rig.in_options.turned_away = turned_away;
}

static void teardown(void)
{
	mig_rig_fini(&rig);
	mig_steps_fini();
}

TestSuite(mig_tls_session, .init = setup, .fini = teardown, .timeout = 60);

static void has_text(const char *text, const char *part)
{
	cr_assert_not_null(strstr(text, part), "'%s', expected '%s'", text, part);
}

static void expect_moved(enum mig_out_end end)
{
	cr_assert_eq(end, MIG_OUT_MOVED, "%d: %s", (int)end, rig.err.text);
	mig_fake_vm_wait_checked(&rig.destination);
	cr_assert_eq(rig.in_end, MIG_IN_RUNNING, "%s", rig.in_err.text);
	cr_assert(rig.source.released);
	cr_assert_not(rig.source.runs);
	cr_assert(rig.destination.runs);
}

static void expect_stays(enum mig_out_end end)
{
	cr_assert_eq(end, MIG_OUT_FAILED, "%d: %s", (int)end, rig.err.text);
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
	cr_assert(rig.source.runs);
	cr_assert_not(rig.source.released);
	cr_assert_not(rig.destination.runs);
	cr_assert_eq(rig.source.epoch, MIG_FAKE_EPOCH);
	cr_assert_not(rig.source.tracking);
}

static bool was_turned_away(void)
{
	BASE_LOCKED(&away_lock);

	return away_count > 0;
}

/* The source fails before anything has begun; the destination goes on waiting until it is told. */
static void refused(const char *text)
{
	enum mig_out_end end = MIG_OUT_INVALID;

	mig_rig_begin(&rig);
	end = mig_out_run(rig.out, &rig.findings, &rig.err);
	cr_assert_not(rig.destination.released); /* nothing came that it could release */
	while (rig.in_options.tls != NULL && rig.between != put_dripper && !was_turned_away())
		(void)sched_yield();
	mig_in_give_up(rig.in);
	base_thread_join(rig.in_thread);
	expect_stays(end);
	has_text(rig.err.text, text);
	cr_assert_eq(rig.source.holds, 0);
	has_text(rig.in_err.text, "given up");
}

Test(mig_tls_session, says_what_was_spoken)
{
	struct mig_out_report report;

	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
	mig_out_report(rig.out, &report);
	cr_assert(report.line.is_tls);
	has_text(mig_tls_ciphers(), report.line.cipher);
	cr_assert_eq(strncmp(report.line.cipher, "TLS_", 4), 0);
	cr_assert_str_eq(report.line.peer, "b.example");
	cr_assert_not(report.line.in_kernel); /* of no kind that it knows */
	cr_assert_eq(report.resent_chunks, 0);
	cr_assert_eq(away_count, 0);
}

Test(mig_tls_session, clear_text_says_so)
{
	struct mig_out_report report;

	rig.out_options.tls = NULL;
	rig.in_options.tls = NULL;
	mig_rig_begin(&rig);
	expect_moved(mig_rig_finish(&rig));
	mig_out_report(rig.out, &report);
	cr_assert_not(report.line.is_tls);
}

#if !defined(__SANITIZE_THREAD__) /* a guest's writes race with the sender by design */
/* Pages that change while they are enciphered are in the log, and nobody reports them. */
Test(mig_tls_session, a_guest_that_writes_all_the_time)
{
	struct mig_out_report report;

	rig.source.writes = true;
	rig.destination.writes = true;
	rig.out_options.pace.downtime_goal_ns = 1;
	rig.out_options.pace.time_limit_ns = BASE_NS_PER_SECOND / 2;
	mig_rig_begin(&rig);
	mig_fake_vm_wait_writes(&rig.source, 50);
	expect_moved(mig_rig_finish(&rig));
	mig_fake_vm_wait_writes(&rig.destination, 1000);
	mig_out_report(rig.out, &report);
	cr_assert_eq(report.resent_chunks, 0);
	cr_assert_geq(report.rounds, 2);
}
#endif

/* --- who is not let in --- */

Test(mig_tls_session, a_destination_that_is_another_host)
{
	mig_tls_free(rig.source_tls);
	cr_assert_eq(mig_tls_lab_open(&rig.lab, "a", true, "c.example", &rig.source_tls, &rig.err),
		     0);
	rig.out_options.tls = rig.source_tls;
	refused("certificate of 'b.example': another host, expected 'c.example'");
	has_text(away.text, "the other side refuses this host's certificate");
}

Test(mig_tls_session, a_source_that_is_another_host)
{
	mig_tls_free(rig.destination_tls);
	cr_assert_eq(
		mig_tls_lab_open(&rig.lab, "b", false, "c.example", &rig.destination_tls, &rig.err),
		0);
	rig.in_options.tls = rig.destination_tls;
	refused("the other side refuses this host's certificate");
	has_text(away.text, "connection from this host: TLS: certificate of 'a.example': another "
			    "host, expected 'c.example'");
}

Test(mig_tls_session, clear_text_where_tls_is_spoken)
{
	rig.out_options.tls = NULL;
	refused("the destination refuses: clear text, expected TLS (migrate-clear is off here)");
	has_text(away.text, "clear text, expected TLS");
}

Test(mig_tls_session, tls_where_clear_text_is_spoken)
{
	rig.in_options.tls = NULL;
	refused("TLS: the other side has ended the connection in the handshake, expected one that "
		"speaks TLS");
}

/* Others who say nothing, or half a word, or nonsense, hold nobody up. */
Test(mig_tls_session, strangers_beside_it)
{
	static const char *const words[] = { "",  "\x16", "\x16\x03\x01\x02",
					     "G", "GWMF", "\x16\x03\x01\xff\xff nonsense" };
	int strangers[30];

	mig_rig_begin(&rig);
	for (size_t i = 0; i < 30; i++) {
		const char *word = words[i % 6];

		strangers[i] = mig_rig_dial(&rig.place);
		cr_assert_eq(send(strangers[i], word, strlen(word), MSG_NOSIGNAL),
			     (ssize_t)strlen(word));
	}
	expect_moved(mig_rig_finish(&rig));
	for (size_t i = 0; i < 30; i++)
		(void)close(strangers[i]);
}

/* A destination that lets the handshake drip is given up within the timeout. */
static void *drip(void *context)
{
	static const uint8_t header[] = { 22, 3, 3, 0x40, 0 };
	int fd = *(int *)context;
	uint8_t hello[4096];

	(void)recv(fd, hello, sizeof(hello), 0);
	for (size_t i = 0;
	     send(fd, i < sizeof(header) ? &header[i] : &hello[0], 1, MSG_NOSIGNAL) == 1; i++)
		base_sleep_ns(10 * BASE_NS_PER_MS);
	return NULL;
}

static int drip_fd;
static pthread_t dripper;

static int put_dripper(uint32_t index, int fd)
{
	int pair[2];

	(void)index;
	(void)close(fd);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	drip_fd = pair[1];
	cr_assert_eq(base_thread_start(&dripper, "drip", drip, &drip_fd, &rig.err), 0);
	return pair[0];
}

Test(mig_tls_session, a_handshake_that_drips)
{
	rig.out_options.timeout_ms = 300;
	rig.between = put_dripper;
	refused("TLS: handshake not done within 300 ms");
	base_thread_join(dripper);
	(void)close(drip_fd);
}

/* --- what happens on the way --- */

#define PROXIES 8u

/* Between source and destination on one connection: copies, and once does something else. */
struct proxy {
	int ends[2];       /* the source's side, the destination's */
	uint64_t at_bytes; /* of what the source sends; UINT64_MAX: never */
	bool cuts;         /* else it changes one bit */
	pthread_t thread;
	bool done;
};
static struct proxy proxies[PROXIES];
static uint32_t proxy_count;
static uint32_t spoiled_index; /* connection */
static uint64_t spoiled_bytes;
static bool spoiled_cuts;

static void copy_rest(int from, int to)
{
	uint8_t bytes[16384];
	ssize_t got = recv(from, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (got > 0)
		(void)send(to, bytes, (size_t)got, MSG_NOSIGNAL);
	else if (got == 0)
		(void)shutdown(to, SHUT_WR);
}

static bool copy_some(struct proxy *proxy, uint64_t *seen, int side)
{
	uint8_t bytes[4096];
	ssize_t got = recv(proxy->ends[side], bytes, sizeof(bytes), 0);

	if (got <= 0)
		return false;
	if (side == 0 && proxy->at_bytes < *seen + (uint64_t)got) {
		if (proxy->cuts)
			return false;
		bytes[proxy->at_bytes - *seen] ^= 4;
		proxy->at_bytes = UINT64_MAX;
	}
	*seen += side == 0 ? (uint64_t)got : 0;
	return send(proxy->ends[1 - side], bytes, (size_t)got, MSG_NOSIGNAL) == got;
}

static void *pass_on(void *context)
{
	struct proxy *proxy = context;
	uint64_t seen = 0;
	bool goes_on = true;

	while (goes_on) {
		struct pollfd fds[2] = { { .fd = proxy->ends[0], .events = POLLIN },
					 { .fd = proxy->ends[1], .events = POLLIN } };

		(void)poll(fds, 2, -1);
		for (int side = 0; side < 2 && goes_on; side++)
			if (fds[side].revents != 0)
				goes_on = copy_some(proxy, &seen, side);
	}
	copy_rest(proxy->ends[1], proxy->ends[0]); /* a last word on its way */
	(void)shutdown(proxy->ends[0], SHUT_RDWR);
	(void)shutdown(proxy->ends[1], SHUT_RDWR);
	return NULL;
}

static int put_proxy(uint32_t index, int fd)
{
	struct proxy *proxy = &proxies[proxy_count];
	int pair[2];

	if (proxy_count == PROXIES)
		return fd; /* goes straight from here on */
	proxy_count++;
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	*proxy = (struct proxy){ .ends = { pair[1], fd },
				 .at_bytes = index == spoiled_index ? spoiled_bytes : UINT64_MAX,
				 .cuts = spoiled_cuts };
	cr_assert_eq(base_thread_start(&proxy->thread, "proxy", pass_on, proxy, &rig.err), 0);
	return pair[0];
}

static void end_proxies(void)
{
	for (uint32_t i = 0; i < proxy_count; i++) {
		(void)shutdown(proxies[i].ends[0], SHUT_RDWR);
		base_thread_join(proxies[i].thread);
		(void)close(proxies[i].ends[0]);
		(void)close(proxies[i].ends[1]);
	}
}

static enum mig_out_end run_spoiled(uint32_t index, uint64_t at_bytes, bool cuts)
{
	enum mig_out_end end = MIG_OUT_INVALID;

	spoiled_index = index;
	spoiled_bytes = at_bytes;
	spoiled_cuts = cuts;
	rig.between = put_proxy;
	rig.linger_ms = 0;
	rig.out_options.timeout_ms = 2000;
	rig.in_options.timeout_ms = 2000;
	mig_rig_begin(&rig);
	end = mig_out_run(rig.out, &rig.findings, &rig.err);
	mig_in_give_up(rig.in);
	base_thread_join(rig.in_thread);
	end_proxies();
	return end;
}

/* One bit, in the handshake, in OPEN or in the plan, or in what a data channel carries. */
Test(mig_tls_session, a_bit_of_the_first_message)
{
	expect_stays(run_spoiled(0, 40, false));
}

Test(mig_tls_session, a_bit_of_the_certificate)
{
	expect_stays(run_spoiled(0, 700, false));
}

Test(mig_tls_session, a_bit_of_the_plan)
{
	expect_stays(run_spoiled(0, 1500, false));
}

Test(mig_tls_session, a_bit_of_memory)
{
	expect_stays(run_spoiled(2, 60000, false));
}

Test(mig_tls_session, a_cut_in_the_first_message)
{
	expect_stays(run_spoiled(0, 40, true));
}

Test(mig_tls_session, a_cut_in_the_certificate)
{
	expect_stays(run_spoiled(1, 700, true));
}

Test(mig_tls_session, a_cut_in_memory)
{
	expect_stays(run_spoiled(2, 60000, true));
}

/* The same, where it may go on: over new connections, with the handshake anew. */
static void expect_goes_on(bool cuts)
{
	struct mig_out_report report;

	rig.out_options.resume_ms = 20000;
	rig.in_options.resume_ms = 20000;
	expect_moved(run_spoiled(2, 60000, cuts));
	mig_out_report(rig.out, &report);
	cr_assert_eq(report.cuts, 1);
}

Test(mig_tls_session, goes_on_after_a_cut)
{
	expect_goes_on(true);
}

Test(mig_tls_session, goes_on_after_a_damaged_record)
{
	expect_goes_on(false);
}
