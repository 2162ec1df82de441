/* SPDX-License-Identifier: Apache-2.0 */
/* What the migrations of a host share: who takes part, in which order, and how much all send. */
#include "tests/unit/migrate/mig_host_rig.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "migrate/mig_rate.h"
#include "migrate/mig_scale_priv.h"
#include "tests/support/alloc_fail.h"

#define MIB     (1ULL << 20)
#define CAP     (10 * MIB)
#define LATE    (1000 * BASE_NS_PER_SECOND)
#define WORKERS 4

TestSuite(mig_host, .init = folder_begin, .fini = folder_end, .timeout = 60);

static int enter(struct mig_host *host)
{
	return mig_host_enter(host, MIG_OUTGOING, &err);
}

static void leave(struct mig_host *host)
{
	mig_host_leave(host, MIG_OUTGOING);
}

static uint32_t busy(const struct mig_host *host)
{
	uint32_t most = 0;

	return mig_host_busy(host, MIG_OUTGOING, &most);
}

/* --- who takes part --- */

Test(mig_host, no_more_than_the_limit)
{
	struct mig_host *hosts[3];
	uint32_t most = 0;

	for (int i = 0; i < 3; i++)
		hosts[i] = host_new(2, 0);
	cr_assert_eq(busy(hosts[2]), 0);
	cr_assert_eq(enter(hosts[0]), 1);
	cr_assert_eq(enter(hosts[1]), 1);
	cr_assert_eq(enter(hosts[0]), 1); /* again */
	cr_assert_eq(enter(hosts[2]), 0);
	cr_assert_eq(enter(hosts[2]), 0);
	cr_assert_eq(mig_host_try(hosts[2], MIG_OUTGOING, &err), 0);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(mig_host_busy(hosts[i], MIG_OUTGOING, &most), 2);
		cr_assert_eq(most, 2);
	}
	leave(hosts[0]);
	cr_assert_eq(busy(hosts[2]), 1);
	cr_assert_eq(enter(hosts[2]), 1);
	for (int i = 0; i < 3; i++) {
		leave(hosts[i]);
		leave(hosts[i]);
	}
	cr_assert_eq(busy(hosts[0]), 0);
	for (int i = 0; i < 3; i++)
		mig_host_free(hosts[i]);
	mig_host_free(NULL);
}

Test(mig_host, the_two_ways_are_apart)
{
	struct mig_host *one = host_new(1, 0);
	struct mig_host *other = host_new(1, 0);

	cr_assert_eq(enter(one), 1);
	cr_assert_eq(mig_host_try(one, MIG_INCOMING, &err), 1);
	cr_assert_eq(mig_host_try(other, MIG_INCOMING, &err), 0);
	leave(one);
	cr_assert_eq(mig_host_try(other, MIG_INCOMING, &err), 0);
	cr_assert_eq(enter(other), 1);
	mig_host_free(one); /* gives back what it holds */
	cr_assert_eq(mig_host_try(other, MIG_INCOMING, &err), 1);
	mig_host_free(other);
}

Test(mig_host, who_came_first_goes_first)
{
	struct mig_host *hosts[5];

	for (int i = 0; i < 5; i++)
		hosts[i] = host_new(1, 0);
	cr_assert_eq(enter(hosts[0]), 1);
	for (int i = 1; i < 5; i++)
		cr_assert_eq(enter(hosts[i]), 0);
	leave(hosts[0]);
	for (int i = 4; i > 1; i--)
		cr_assert_eq(enter(hosts[i]), 0, "%d", i);
	cr_assert_eq(enter(hosts[0]), 0); /* to the end of the line */
	for (int i = 1; i < 5; i++) {
		cr_assert_eq(enter(hosts[i]), 1, "%d", i);
		cr_assert_eq(enter(hosts[0]), 0);
		leave(hosts[i]);
	}
	cr_assert_eq(enter(hosts[0]), 1);
	for (int i = 0; i < 5; i++)
		mig_host_free(hosts[i]);
}

/* Those behind who gives up, in the line or at its head, do not wait for him. */
Test(mig_host, who_gives_up_is_not_waited_for)
{
	struct mig_host *hosts[5];

	for (int i = 0; i < 5; i++)
		hosts[i] = host_new(1, 0);
	cr_assert_eq(enter(hosts[0]), 1);
	for (int i = 1; i < 5; i++)
		cr_assert_eq(enter(hosts[i]), 0);
	leave(hosts[3]);
	leave(hosts[1]);
	leave(hosts[0]);
	cr_assert_eq(enter(hosts[4]), 0);
	cr_assert_eq(enter(hosts[2]), 1);
	leave(hosts[2]);
	cr_assert_eq(enter(hosts[4]), 1);
	for (int i = 0; i < 5; i++)
		mig_host_free(hosts[i]);
}

/* Who finds no place comes behind those who have one, sooner or later. */
Test(mig_host, a_longer_line_than_there_are_places)
{
	struct mig_host *hosts[MIG_HOST_MOVES_MAX + 3];
	bool had[MIG_HOST_MOVES_MAX + 3] = { true };
	const uint32_t count = sizeof(hosts) / sizeof(hosts[0]);

	for (uint32_t i = 0; i < count; i++) {
		hosts[i] = host_new(1, 0);
		cr_assert_eq(enter(hosts[i]), i == 0 ? 1 : 0);
	}
	leave(hosts[0]);
	for (uint32_t turn = 1; turn < count; turn++) {
		uint32_t who = 0;

		for (uint32_t i = 1; i < count; i++)
			if (!had[i] && enter(hosts[i]) == 1) {
				cr_assert_eq(who, 0);
				who = i;
			}
		cr_assert_neq(who, 0);
		if (turn <= MIG_HOST_MOVES_MAX)
			cr_assert_eq(who, turn);
		had[who] = true;
		leave(hosts[who]);
	}
	for (uint32_t i = 0; i < count; i++)
		mig_host_free(hosts[i]);
}

/* Each counts by its own limit. */
Test(mig_host, unequal_limits)
{
	struct mig_host *narrow = host_new(1, 0);
	struct mig_host *wide = host_new(2, 0);
	struct mig_host *most = host_new(MIG_HOST_MOVES_MAX, 0);

	cr_assert_eq(enter(narrow), 1);
	cr_assert_eq(enter(wide), 1);
	cr_assert_eq(enter(most), 1);
	leave(narrow);
	cr_assert_eq(enter(narrow), 1);
	mig_host_free(narrow);
	mig_host_free(wide);
	mig_host_free(most);
}

/* --- processes --- */

/* A worker in a process of its own; returns once it has asked, as @expected. */
static pid_t worker(int expected)
{
	char answer = 0;
	int pipe_fds[2];
	pid_t pid = 0;

	cr_assert_eq(pipe(pipe_fds), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		struct mig_host *host = host_new(1, 0);

		answer = (char)('0' + enter(host));
		(void)!write(pipe_fds[1], &answer, 1);
		while (true)
			(void)pause();
	}
	cr_assert_eq(read(pipe_fds[0], &answer, 1), 1);
	cr_assert_eq(answer, '0' + expected);
	(void)close(pipe_fds[0]);
	(void)close(pipe_fds[1]);
	return pid;
}

static void end(pid_t pid)
{
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

Test(mig_host, a_killed_worker_holds_nothing)
{
	struct mig_host *host = host_new(1, 0);
	pid_t holder = worker(1);
	pid_t first = worker(0);
	pid_t second = worker(0);

	cr_assert_eq(enter(host), 0);
	end(second);
	cr_assert_eq(enter(host), 0);
	end(holder);
	cr_assert_eq(enter(host), 0); /* the first in line still lives */
	end(first);
	cr_assert_eq(enter(host), 1);
	mig_host_free(host);
}

/* --- the files --- */

static void write_file(const char *name, const void *bytes, size_t size)
{
	int fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, bytes, size), (ssize_t)size);
	(void)close(fd);
}

Test(mig_host, what_the_locked_files_hold_is_nobodys_matter)
{
	struct mig_host *host = NULL;

	write_file("outgoing", "garbage", 7);
	write_file("incoming", "\xff\xff", 2);
	host = host_new(1, 0);
	cr_assert_eq(enter(host), 1);
	cr_assert_null(mig_host_healed(host));
	mig_host_free(host);
}

static void expect_refused(const char *text)
{
	struct mig_host *host = NULL;

	cr_assert_eq(host_try_new(1, CAP, &host), -EINVAL, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "%s", err.text);
	cr_assert_null(host);
}

Test(mig_host, a_folder_in_a_files_place)
{
	cr_assert_eq(mkdirat(folder_fd, "incoming", 0700), 0);
	expect_refused("'incoming': expected a file");
}

Test(mig_host, a_link_in_a_files_place)
{
	cr_assert_eq(symlinkat("/etc/passwd", folder_fd, "outgoing"), 0);
	expect_refused("'outgoing': expected a file");
}

Test(mig_host, a_pipe_in_a_files_place)
{
	cr_assert_eq(mkfifoat(folder_fd, "bandwidth", 0600), 0);
	expect_refused("'bandwidth': mode 01");
}

Test(mig_host, a_file_of_two_names)
{
	write_file("other", "precious", 8);
	cr_assert_eq(linkat(folder_fd, "other", folder_fd, "bandwidth", 0), 0);
	expect_refused("2 names: expected a file of one");
}

Test(mig_host, a_cap_that_is_too_low)
{
	struct mig_host *host = NULL;

	cr_assert_eq(host_try_new(1, 1000, &host), -EINVAL);
	cr_assert_not_null(strstr(err.text, "bandwidth: 1000 bytes a second"), "%s", err.text);
}

Test(mig_host, no_folder)
{
	struct mig_host *host = NULL;

	(void)close(folder_fd);
	folder_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	cr_assert_eq(host_try_new(1, CAP, &host), -ENOTDIR);
	(void)close(folder_fd);
	folder_fd = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
}

Test(mig_host, no_memory)
{
	for (unsigned int k = 0;; k++) {
		struct mig_host *host = NULL;
		int r = 0;

		alloc_fail_at(k);
		r = host_try_new(1, CAP, &host);
		if (!alloc_fail_done()) {
			mig_host_free(host);
			break;
		}
		cr_assert_eq(r, -ENOMEM);
	}
}

/* --- the cap --- */

Test(mig_host, no_cap)
{
	struct mig_host *host = host_new(1, 0);
	uint64_t wait_ns = 7;

	cr_assert_not(mig_host_is_capped(host));
	cr_assert(mig_host_reserve(host, LATE, UINT64_MAX, &wait_ns));
	cr_assert_eq(wait_ns, 0);
	cr_assert_eq(faccessat(folder_fd, "bandwidth", F_OK, 0), -1);
	mig_host_free(host);
}

Test(mig_host, who_comes_later_waits_for_all_before)
{
	struct mig_host *one = host_new(1, CAP);
	struct mig_host *other = host_new(1, CAP);
	uint64_t wait_ns = 0;

	cr_assert(mig_host_is_capped(one));
	cr_assert(mig_host_reserve(one, LATE, MIB, &wait_ns));
	cr_assert_eq(wait_ns, 0);
	cr_assert(mig_host_reserve(other, LATE, MIB, &wait_ns));
	cr_assert_eq(wait_ns, 0); /* the burst is used up */
	cr_assert(mig_host_reserve(one, LATE, MIB, &wait_ns));
	cr_assert_eq(wait_ns, BASE_NS_PER_SECOND / 10);
	mig_host_free(one); /* what it took stays taken, and is over soon */
	cr_assert(mig_host_reserve(other, LATE, 1, &wait_ns));
	cr_assert_eq(wait_ns, BASE_NS_PER_SECOND / 5);
	cr_assert(mig_host_reserve(other, LATE + BASE_NS_PER_SECOND, 1, &wait_ns));
	cr_assert_eq(wait_ns, 0);
	mig_host_free(other);
}

/* As many as there are take all that they can get at one instant: it is what one would get. */
Test(mig_host, processes_share_one_cap)
{
	uint64_t total = 0;
	int pipe_fds[2];

	cr_assert_eq(pipe(pipe_fds), 0);
	for (int i = 0; i < WORKERS; i++) {
		pid_t pid = fork();
		struct mig_host *host = NULL;
		uint64_t wait_ns = 0;
		uint64_t bytes = 0;

		cr_assert_geq(pid, 0);
		if (pid > 0)
			continue;
		host = host_new(1, 1000 * MIB);
		while (mig_host_reserve(host, LATE, MIB / 4, &wait_ns))
			bytes += MIB / 4;
		(void)!write(pipe_fds[1], &bytes, sizeof(bytes));
		_exit(0);
	}
	for (int i = 0; i < WORKERS; i++) {
		uint64_t bytes = 0;

		cr_assert_eq(read(pipe_fds[0], &bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
		total += bytes;
		cr_assert_gt(wait(NULL), 0);
	}
	/* The burst, the second that may be owed, and the post that exceeds it; a nanosecond is cut
	 * off each. */
	cr_assert_geq(total, 1100 * MIB);
	cr_assert_leq(total, 1100 * MIB + MIB / 2);
	(void)close(pipe_fds[0]);
	(void)close(pipe_fds[1]);
}

static void put_in_file(uint64_t value)
{
	int fd = openat(folder_fd, "bandwidth", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	cr_assert_eq(pwrite(fd, &value, sizeof(value), 0), (ssize_t)sizeof(value));
	(void)close(fd);
}

/* Of before a start of the host, or garbage. */
Test(mig_host, what_nobody_can_owe_is_forgotten_when_it_is_found)
{
	struct mig_host *host = NULL;
	const char *line = NULL;

	put_in_file(UINT64_MAX);
	host = host_new(1, CAP);
	line = mig_host_healed(host);
	cr_assert_not_null(line);
	cr_assert_not_null(strstr(line, "ns owed, expected few seconds: forgotten"), "%s", line);
	cr_assert_eq(bandwidth_in_file(), 0);
	mig_host_free(host);
	host = host_new(1, CAP);
	cr_assert_null(mig_host_healed(host));
	mig_host_free(host);
}

Test(mig_host, garbage_in_use_holds_nobody_up)
{
	struct mig_host *host = host_new(1, CAP);
	uint64_t wait_ns = 7;

	put_in_file(UINT64_MAX);
	cr_assert(mig_host_reserve(host, LATE, MIB, &wait_ns));
	cr_assert_eq(wait_ns, 0);
	cr_assert_eq(bandwidth_in_file(), LATE); /* the burst's tenth of a second, used up */
	put_in_file(LATE + 5 * BASE_NS_PER_SECOND);
	cr_assert(mig_host_reserve(host, LATE, MIB, &wait_ns));
	cr_assert_eq(wait_ns, 0);
	mig_host_free(host);
}

/* The file of a test, or of an older version: it grows, and is never cut off. */
Test(mig_host, a_file_of_another_length)
{
	static const uint8_t bytes[5000];
	struct mig_host *host = NULL;
	uint64_t wait_ns = 0;
	struct stat status;

	write_file("bandwidth", "123", 3);
	host = host_new(1, CAP);
	cr_assert(mig_host_reserve(host, LATE, MIB, &wait_ns));
	cr_assert_eq(fstatat(folder_fd, "bandwidth", &status, 0), 0);
	cr_assert_eq(status.st_size, 4096);
	mig_host_free(host);
	write_file("bandwidth", bytes, sizeof(bytes));
	host = host_new(1, CAP);
	cr_assert_eq(fstatat(folder_fd, "bandwidth", &status, 0), 0);
	cr_assert_eq(status.st_size, sizeof(bytes));
	mig_host_free(host);
}

/* --- pure --- */

Test(mig_host, what_is_owed_stays_bounded)
{
	struct mig_rate_state state = { .bytes_per_s = MIG_RATE_MIN_BYTES_PER_S };
	uint64_t wait_ns = 0;
	uint32_t random = 3;

	cr_assert(mig_rate_step_shared(&state, LATE, UINT64_MAX, &wait_ns));
	cr_assert_eq(wait_ns, 0);
	cr_assert_eq(state.free_ns, LATE + 4 * BASE_NS_PER_SECOND);
	cr_assert_not(mig_rate_is_foreign(state.free_ns, LATE));
	cr_assert_not(mig_rate_step_shared(&state, LATE, 1, &wait_ns));
	cr_assert_eq(state.free_ns, LATE + 4 * BASE_NS_PER_SECOND); /* nothing was taken */
	cr_assert(mig_rate_is_foreign(UINT64_MAX, 0));
	cr_assert_not(mig_rate_is_foreign(0, UINT64_MAX));
	for (int i = 0; i < 100000; i++) { /* whatever is found */
		uint64_t now_ns = 0;

		random = random * 1664525u + 1013904223u;
		now_ns = LATE + random % (10 * BASE_NS_PER_SECOND);
		state.free_ns = (uint64_t)random * random * (random % 7);
		if (mig_rate_step_shared(&state, now_ns, random % MIB, &wait_ns))
			cr_assert_leq(wait_ns, BASE_NS_PER_SECOND);
		cr_assert_leq(state.free_ns, now_ns + 4 * BASE_NS_PER_SECOND);
	}
}

/* Over any stretch, whoever asks: at most the cap, the burst, and what is owed at its end. */
Test(mig_host, the_cap_holds_over_any_stretch)
{
	struct mig_rate_state state = { .bytes_per_s = 50 * MIB };
	uint64_t now_ns = LATE;
	uint64_t taken = 0;
	uint32_t random = 7;

	for (uint64_t i = 0; i < 50000; i++) {
		uint64_t wait_ns = 0;
		uint64_t bytes = 0;
		uint64_t most = 0;

		random = random * 1664525u + 1013904223u;
		bytes = 1 + (random >> 8) % MIB;
		now_ns += random % (20 * BASE_NS_PER_MS);
		if (mig_rate_step_shared(&state, now_ns, bytes, &wait_ns))
			taken += bytes;
		most = mig_scale(now_ns - LATE + 11 * BASE_NS_PER_SECOND / 10, state.bytes_per_s,
				 BASE_NS_PER_SECOND);
		cr_assert_leq(taken, most + MIB + i);
	}
}
