/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leash on a real worker with a real guest: what must never happen is a guest that
 * runs past the soft deadline, or a worker that is there after the hard one.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/vm_exit.h"
#include "base/clock.h"
#include "base/leash.h"

/* The leak sanitizer looks at a process from outside, which the lock-down forbids. */
#if defined(__SANITIZE_ADDRESS__)
#define SANDBOX "off"
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX "off"
#endif
#endif
#ifndef SANDBOX
#define SANDBOX "on"
#endif

#define EPOCH   7u
#define WAIT_NS (120 * BASE_NS_PER_SECOND) /* a stuck worker, not a slow one */

struct world {
	char folder[64];
	char console[96];
	struct base_leash_holder *holder;
	pid_t pid;
};

static uint64_t now_ns(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

static size_t console_bytes(const struct world *world)
{
	int fd = open(world->console, O_RDONLY | O_CLOEXEC);
	off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);

	if (fd >= 0)
		(void)close(fd);
	return (size_t)size;
}

/* In the child: the two descriptors of the leash, nothing else of ours. */
static _Noreturn void become_worker(const struct world *world)
{
	char console[128];
	char page[16];
	char event[16];
	int page_fd = dup(base_leash_holder_page_fd(world->holder));
	int event_fd = dup(base_leash_holder_event_fd(world->holder));

	(void)snprintf(console, sizeof(console), "file:%s", world->console);
	(void)snprintf(page, sizeof(page), "%d", page_fd);
	(void)snprintf(event, sizeof(event), "%d", event_fd);
	(void)execl(TEST_BINARY_DIR "/godwit-vm", "godwit-vm", "--name", "leashed", "--memory",
		    "64M", "--kernel", TEST_BINARY_DIR "/tests/guest/testguest", "--cmdline",
		    "ws=8M rate=1000 report=20", "--console", console, "--leash-page-fd", page,
		    "--leash-event-fd", event, "--epoch", "7", "--log-level", "err", "--sandbox",
		    SANDBOX, (char *)NULL);
	_exit(127);
}

static void wait_for_growth(const struct world *world, size_t beyond_bytes)
{
	uint64_t end_ns = now_ns() + WAIT_NS;

	while (console_bytes(world) <= beyond_bytes) {
		cr_assert_eq(waitpid(world->pid, NULL, WNOHANG), 0, "the worker has ended");
		cr_assert_lt(now_ns(), end_ns, "the guest says nothing");
		base_sleep_ns(5 * BASE_NS_PER_MS);
	}
}

/* A worker whose guest talks every 20 ms, on a leash far away.  False: no KVM here. */
static bool world_new(struct world *world)
{
	struct base_leash_terms terms = { .epoch = EPOCH };

	if (access("/dev/kvm", R_OK | W_OK) != 0) {
		printf("SKIP worker_leash: /dev/kvm is not there\n");
		return false;
	}
	*world = (struct world){ .folder = "/tmp/godwit-leash-XXXXXX" };
	cr_assert_not_null(mkdtemp(world->folder));
	(void)snprintf(world->console, sizeof(world->console), "%s/console", world->folder);
	terms.soft_ns = now_ns() + 600 * BASE_NS_PER_SECOND;
	terms.hard_ns = terms.soft_ns;
	cr_assert_eq(base_leash_holder_new(&terms, &world->holder, NULL), 0);
	world->pid = fork();
	cr_assert_geq(world->pid, 0);
	if (world->pid == 0)
		become_worker(world);
	wait_for_growth(world, 200);
	return true;
}

static int wait_status(const struct world *world)
{
	int status;

	cr_assert_eq(waitpid(world->pid, &status, 0), world->pid);
	return status;
}

static void world_free(struct world *world)
{
	base_leash_holder_free(world->holder);
	(void)unlink(world->console);
	(void)rmdir(world->folder);
}

static void extend(struct world *world, uint64_t soft_in_ns, uint64_t hard_in_ns)
{
	uint64_t now = now_ns();
	struct base_error err = { .code = 0 };

	cr_assert_eq(
		base_leash_extend(world->holder, now + soft_in_ns, now + hard_in_ns, true, &err), 0,
		"%s", err.text);
}

/* Wait until the guest has been silent for as long as twenty of its lines take. */
static size_t wait_for_silence(const struct world *world)
{
	uint64_t end_ns = now_ns() + WAIT_NS;
	size_t before;

	do {
		cr_assert_lt(now_ns(), end_ns, "the guest goes on talking past its soft deadline");
		before = console_bytes(world);
		base_sleep_ns(400 * BASE_NS_PER_MS);
	} while (console_bytes(world) != before);
	return before;
}

Test(worker_leash, freezes_at_the_soft_deadline_and_thaws_when_told, .timeout = 300)
{
	struct world world;
	size_t silent_bytes;

	if (!world_new(&world))
		return;
	extend(&world, 10 * BASE_NS_PER_MS, 600 * BASE_NS_PER_SECOND);
	silent_bytes = wait_for_silence(&world);
	/* An extension alone thaws nothing. */
	extend(&world, 500 * BASE_NS_PER_SECOND, 600 * BASE_NS_PER_SECOND);
	base_sleep_ns(500 * BASE_NS_PER_MS);
	cr_assert_eq(console_bytes(&world), silent_bytes);
	cr_assert_eq(base_leash_thaw(world.holder, NULL), 0);
	wait_for_growth(&world, silent_bytes);
	cr_assert_eq(kill(world.pid, SIGTERM), 0);
	cr_assert_eq(wait_status(&world), VM_EXIT_DONE << 8);
	world_free(&world);
}

Test(worker_leash, hard_deadline_ends_a_worker_that_is_stopped, .timeout = 300)
{
	struct world world;
	int status;

	if (!world_new(&world))
		return;
	extend(&world, 500 * BASE_NS_PER_MS, 1000 * BASE_NS_PER_MS);
	base_sleep_ns(100 * BASE_NS_PER_MS); /* it takes the terms */
	cr_assert_eq(kill(world.pid, SIGSTOP), 0);
	cr_assert_eq(waitpid(world.pid, &status, WUNTRACED), world.pid);
	if (WIFSTOPPED(status)) /* never continued: the kernel's timer ends it */
		status = wait_status(&world);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status 0x%x", status);
	world_free(&world);
}

Test(worker_leash, a_stopped_worker_wakes_frozen, .timeout = 300)
{
	struct world world;
	size_t bytes;

	if (!world_new(&world))
		return;
	extend(&world, 300 * BASE_NS_PER_MS, 600 * BASE_NS_PER_SECOND);
	base_sleep_ns(50 * BASE_NS_PER_MS);
	cr_assert_eq(kill(world.pid, SIGSTOP), 0);
	base_sleep_ns(600 * BASE_NS_PER_MS); /* over the soft deadline */
	cr_assert_eq(kill(world.pid, SIGCONT), 0);
	bytes = wait_for_silence(&world);
	base_sleep_ns(300 * BASE_NS_PER_MS);
	cr_assert_eq(console_bytes(&world), bytes);
	cr_assert_eq(kill(world.pid, SIGTERM), 0);
	(void)wait_status(&world);
	world_free(&world);
}

Test(worker_leash, a_higher_epoch_ends_it, .timeout = 300)
{
	struct world world;

	if (!world_new(&world))
		return;
	cr_assert_eq(base_leash_revoke(world.holder, EPOCH + 1, NULL), 0);
	cr_assert_eq(wait_status(&world), VM_EXIT_STALE << 8);
	world_free(&world);
}
