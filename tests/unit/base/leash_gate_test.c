/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's side inside this process: what is refused at the start, pages that a
 * hostile or broken holder writes, and the gate while the leash thread is held up.
 * Hard deadlines are never or far away.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/leash_priv.h"
#include "tests/support/alloc_fail.h"

#define EPOCH   7
#define HOUR_NS (3600 * BASE_NS_PER_SECOND)

static int page_fd = -1;
static int event_fd = -1;
static void *shared; /* the page, as a holder that may write anything */
static struct base_leash *leash;
static atomic_int changes[BASE_LEASH_STATES];
static atomic_bool hold; /* the callback of HELD waits for... */
static sem_t release;    /* ... this */

/* The machine never let a test come to its point. */
_Noreturn static void give_up(const char *what)
{
	cr_assert_fail("%s", what);
	abort();
}

static uint64_t now(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

static void changed(void *context, enum base_leash_state state)
{
	(void)context;
	atomic_fetch_add(&changes[state], 1);
	if (state == BASE_LEASH_HELD && atomic_load(&hold))
		(void)sem_wait(&release);
}

static void put_page(uint64_t sequence, uint64_t epoch, uint64_t soft_ns)
{
	const struct base_leash_page page = {
		.sequence = sequence,
		.terms = { .epoch = epoch, .soft_ns = soft_ns, .hard_ns = BASE_TIME_NEVER },
	};

	base_leash_page_write(shared, &page);
}

static void wake(void)
{
	const uint64_t one = 1;

	cr_assert_eq(write(event_fd, &one, sizeof(one)), 8);
}

static int memory_file(off_t size_bytes, int seals)
{
	int fd = memfd_create("page", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, size_bytes), 0);
	cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void begin(void)
{
	(void)sem_init(&release, 0, 0);
	page_fd = memory_file(BASE_LEASH_PAGE_BYTES, F_SEAL_SHRINK);
	event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	shared = mmap(NULL, BASE_LEASH_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
	cr_assert_neq(shared, MAP_FAILED);
	put_page(10, EPOCH, now() + HOUR_NS);
}

static void end(void)
{
	(void)sem_post(&release); /* a test that failed half-way must not hang here */
	base_leash_free(leash);
	(void)munmap(shared, BASE_LEASH_PAGE_BYTES);
	(void)close(page_fd);
	(void)close(event_fd);
}

static int start(struct base_error *err)
{
	return base_leash_new(page_fd, event_fd, EPOCH, changed, NULL, &leash, err);
}

static void expect_refused(int wanted)
{
	struct base_error err = { .code = 0 };

	cr_assert_eq(start(&err), wanted, "%s", err.text);
	cr_assert_eq(err.code, wanted);
	cr_assert_null(leash);
}

static void wait_state(enum base_leash_state state)
{
	while (base_leash_state(leash) != state)
		base_sleep_ns(BASE_NS_PER_MS);
}

Test(leash_gate, alone_it_runs_for_ever)
{
	struct base_leash_terms terms;

	cr_assert_eq(base_leash_new(-1, -1, 3, NULL, NULL, &leash, NULL), 0);
	cr_assert_eq(base_leash_state(leash), BASE_LEASH_HELD);
	cr_assert(base_leash_may_submit(leash));
	base_leash_terms(leash, &terms);
	cr_assert_eq(terms.epoch, 3);
	cr_assert_eq(terms.soft_ns, BASE_TIME_NEVER);
	cr_assert_eq(terms.hard_ns, BASE_TIME_NEVER);
	base_leash_free(leash);
	base_leash_free(NULL);
}

Test(leash_gate, no_memory, .init = begin, .fini = end)
{
	alloc_fail_at(0);
	cr_assert_eq(start(NULL), -ENOMEM);
	cr_assert(alloc_fail_done());
	cr_assert_null(leash);
}

Test(leash_gate, start_and_free, .init = begin, .fini = end)
{
	struct base_leash_terms terms;

	cr_assert_eq(start(NULL), 0);
	cr_assert_eq(base_leash_state(leash), BASE_LEASH_HELD);
	cr_assert(base_leash_may_submit(leash));
	base_leash_terms(leash, &terms);
	cr_assert_eq(terms.epoch, EPOCH);
	cr_assert_eq(atomic_load(&changes[BASE_LEASH_HELD]), 0, "no change, no call");
}

Test(leash_gate, malformed_page_is_refused, .init = begin, .fini = end)
{
	memset(shared, 0, BASE_LEASH_PAGE_BYTES);
	expect_refused(-EBADMSG);
	memset(shared, 0xff, BASE_LEASH_PAGE_BYTES);
	expect_refused(-EBADMSG);
	put_page(10, EPOCH, now() + HOUR_NS);
	((uint8_t *)shared)[32] ^= 1; /* soft deadline, without a new checksum */
	expect_refused(-EBADMSG);
}

Test(leash_gate, update_without_end_is_refused, .init = begin, .fini = end)
{
	((uint8_t *)shared)[16] = 11;
	expect_refused(-EAGAIN);
}

Test(leash_gate, no_right_no_start, .init = begin, .fini = end)
{
	put_page(12, EPOCH + 1, now() + HOUR_NS);
	expect_refused(-ESTALE);
	put_page(14, EPOCH - 1, now() + HOUR_NS);
	expect_refused(-ETIME);
	put_page(16, 0, BASE_TIME_NEVER);
	expect_refused(-ETIME);
	put_page(18, EPOCH, now());
	expect_refused(-ETIME);
	put_page(20, EPOCH, 0);
	expect_refused(-ETIME);
}

static void expect_bad_descriptors(int page, int event)
{
	struct base_error err = { .code = 0 };

	cr_assert_eq(base_leash_new(page, event, EPOCH, changed, NULL, &leash, &err), -EINVAL);
	cr_assert_eq(err.code, -EINVAL);
	cr_assert_null(leash);
}

Test(leash_gate, bad_descriptors_are_refused, .init = begin, .fini = end)
{
	int device = open("/dev/zero", O_RDWR | O_CLOEXEC);
	int unsealed = memory_file(BASE_LEASH_PAGE_BYTES, 0);
	int shorter = memory_file(BASE_LEASH_PAGE_BYTES - 1, F_SEAL_SHRINK);
	int longer = memory_file(2 * BASE_LEASH_PAGE_BYTES, F_SEAL_SHRINK);

	expect_bad_descriptors(-1, event_fd);
	expect_bad_descriptors(page_fd, -1);
	expect_bad_descriptors(page_fd, 9999);
	expect_bad_descriptors(device, event_fd);
	expect_bad_descriptors(unsealed, event_fd);
	expect_bad_descriptors(shorter, event_fd);
	expect_bad_descriptors(longer, event_fd);
	(void)close(device);
	(void)close(unsealed);
	(void)close(shorter);
	(void)close(longer);
}

static int next_descriptor(void)
{
	int fd = dup(event_fd);

	if (fd >= 0)
		(void)close(fd);
	return fd;
}

Test(leash_gate, no_descriptor_is_left_by_a_start_that_lacks_one, .init = begin, .fini = end)
{
	struct rlimit before;
	int first = next_descriptor();
	int code = 0;
	int missing = 0;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	for (missing = 0; missing < 10; missing++) {
		struct rlimit few = { .rlim_cur = (rlim_t)(first + missing),
				      .rlim_max = before.rlim_max };

		cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
		code = start(NULL);
		cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
		if (code == 0)
			break;
		cr_assert_eq(code, -EMFILE);
		cr_assert_eq(next_descriptor(), first);
	}
	cr_assert_eq(code, 0);
	cr_assert_gt(missing, 0);
	base_leash_free(leash);
	leash = NULL;
	cr_assert_eq(next_descriptor(), first);
}

/* 0 refused, 1 not refused, 2 no namespaces here.  Ends in _exit: only what forked returns. */
static int try_as_process_1(void)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		if (unshare(CLONE_NEWPID) < 0)
			_exit(2);
		pid = fork(); /* this child is the namespace's process 1 */
		if (pid == 0)
			_exit(start(NULL) == -EPROTO ? 0 : 1);
		if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
			_exit(1);
		_exit(WEXITSTATUS(status));
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

Test(leash_gate, process_1_of_a_namespace_is_refused, .init = begin, .fini = end)
{
	int result = try_as_process_1();

	if (result == 2)
		cr_skip_test("a PID namespace needs CAP_SYS_ADMIN");
	cr_assert_eq(result, 0);
}

/* A worker with a near soft deadline; true unless the machine was too slow for it. */
static bool start_near(unsigned int attempt, uint64_t *ret_soft_ns)
{
	uint64_t soft_ns = now() + (50 * BASE_NS_PER_MS << attempt);

	put_page(10, EPOCH, soft_ns);
	*ret_soft_ns = soft_ns;
	return start(NULL) == 0;
}

static uint64_t start_near_surely(void)
{
	uint64_t soft_ns = 0;

	for (unsigned int attempt = 0; attempt < 10; attempt++) {
		if (start_near(attempt, &soft_ns))
			return soft_ns;
	}
	give_up("no start before the soft deadline");
}

/* The worker must freeze at its old deadline, whatever stands in the page now. */
static void expect_not_extended(uint64_t soft_ns)
{
	struct base_leash_terms terms;

	wake();
	wait_state(BASE_LEASH_FROZEN);
	cr_assert_geq(now(), soft_ns);
	cr_assert_not(base_leash_may_submit(leash));
	base_leash_terms(leash, &terms);
	cr_assert_eq(terms.soft_ns, soft_ns);
	cr_assert_eq(terms.epoch, EPOCH);
}

Test(leash_gate, lower_epoch_is_no_extension, .init = begin, .fini = end, .timeout = 120)
{
	uint64_t soft_ns = start_near_surely();

	put_page(12, EPOCH - 1, now() + HOUR_NS);
	expect_not_extended(soft_ns);
}

Test(leash_gate, bad_checksum_is_no_extension, .init = begin, .fini = end, .timeout = 120)
{
	uint64_t soft_ns = start_near_surely();

	put_page(12, EPOCH, now() + HOUR_NS);
	((uint8_t *)shared)[64] ^= 1;
	expect_not_extended(soft_ns);
}

Test(leash_gate, garbage_is_no_extension, .init = begin, .fini = end, .timeout = 120)
{
	uint64_t soft_ns = start_near_surely();

	memset(shared, 0xee, BASE_LEASH_PAGE_BYTES);
	expect_not_extended(soft_ns);
}

Test(leash_gate, update_without_end_is_no_extension, .init = begin, .fini = end, .timeout = 120)
{
	uint64_t soft_ns = start_near_surely();

	put_page(12, EPOCH, now() + HOUR_NS);
	((uint8_t *)shared)[16] = 13;
	expect_not_extended(soft_ns);
}

Test(leash_gate, older_sequence_is_no_extension, .init = begin, .fini = end, .timeout = 120)
{
	uint64_t soft_ns = start_near_surely();

	put_page(8, EPOCH, now() + HOUR_NS);
	expect_not_extended(soft_ns);
	put_page(10, EPOCH, now() + HOUR_NS);
	expect_not_extended(soft_ns);
}

Test(leash_gate, an_event_descriptor_that_hangs_up_changes_nothing, .timeout = 120)
{
	int ends[2];

	begin();
	cr_assert_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	(void)close(event_fd);
	event_fd = ends[0];
	(void)close(ends[1]);
	(void)start_near_surely();
	wait_state(BASE_LEASH_FROZEN);
	end();
}

/*
 * The gate must not lean on the leash thread: here that thread sits in the callback of
 * a thaw while the soft deadline passes, so the state is still HELD.
 */
Test(leash_gate, closed_by_the_clock_before_the_thread_has_run, .init = begin, .fini = end,
     .timeout = 300)
{
	(void)start_near_surely();
	wait_state(BASE_LEASH_FROZEN);
	atomic_store(&hold, true);
	for (uint64_t attempt = 1; attempt < 10; attempt++) {
		struct base_leash_page page = { .sequence = 10 + 2 * attempt };

		page.terms.epoch = EPOCH;
		page.terms.soft_ns = now() + (50 * BASE_NS_PER_MS << attempt);
		page.terms.hard_ns = BASE_TIME_NEVER;
		page.terms.thaw_count = attempt;
		page.terms.thaw_until_ns = page.terms.soft_ns;
		base_leash_page_write(shared, &page);
		wake();
		while (now() < page.terms.soft_ns)
			base_sleep_ns(BASE_NS_PER_MS);
		if (atomic_load(&changes[BASE_LEASH_HELD]) == 0)
			continue; /* the thread was too late for this thaw: it is still frozen */
		cr_assert_eq(base_leash_state(leash), BASE_LEASH_HELD);
		cr_assert_not(base_leash_may_submit(leash));
		atomic_store(&hold, false);
		(void)sem_post(&release);
		wait_state(BASE_LEASH_FROZEN);
		return;
	}
	give_up("no thaw reached the thread in time");
}
