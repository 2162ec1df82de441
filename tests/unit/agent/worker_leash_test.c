/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leash on a real worker with a real guest: what must never happen is a guest that
 * runs past the soft deadline, or a worker that is there after the hard one.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/vm_exit.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/leash.h"

/* The leak sanitizer looks at a process from outside, and the thread sanitizer has a thread of its
 * own: the lock-down forbids both. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANDBOX "off"
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX "off"
#endif
#endif
#ifndef SANDBOX
#define SANDBOX "on"
#endif

#define EPOCH          7u
#define WAIT_NS        (120 * BASE_NS_PER_SECOND) /* a stuck worker, not a slow one */
#define LINE_BYTES_MAX 160 /* two of the guest's lines: one being printed, one in the ring */

struct world {
	char folder[64];
	char console[96];
	char control[96];
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

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves no worker */
	(void)snprintf(console, sizeof(console), "file:%s", world->console);
	(void)snprintf(page, sizeof(page), "%d", page_fd);
	(void)snprintf(event, sizeof(event), "%d", event_fd);
	(void)execl(TEST_BINARY_DIR "/godwit-vm", "godwit-vm", "--name", "leashed", "--memory",
		    "64M", "--kernel", TEST_BINARY_DIR "/tests/guest/testguest", "--cmdline",
		    "ws=8M rate=1000 report=20", "--console", console, "--leash-page-fd", page,
		    "--leash-event-fd", event, "--epoch", "7", "--control", world->control,
		    "--state-dir", world->folder, "--log-level", "err", "--sandbox", SANDBOX,
		    (char *)NULL);
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
	(void)snprintf(world->control, sizeof(world->control), "%s/control", world->folder);
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

static const char *path_in(const struct world *world, const char *name)
{
	static char path[160];

	(void)snprintf(path, sizeof(path), "%s/%s", world->folder, name);
	return path;
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
	(void)unlink(world->control);
	(void)unlink(path_in(world, "control.lock"));
	cr_expect_eq(rmdir(world->folder), 0, "something else is left in the state directory");
}

static void extend(struct world *world, uint64_t soft_in_ns, uint64_t hard_in_ns)
{
	uint64_t now = now_ns();
	struct base_error err = { .code = 0 };

	cr_assert_eq(
		base_leash_extend(world->holder, now + soft_in_ns, now + hard_in_ns, true, &err), 0,
		"%s", err.text);
}

/* One command over the control socket; the answer's line. */
static const char *command(const struct world *world, const char *line)
{
	static char answer[8192];
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t got = 0;

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", world->control);
	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(base_write_all(fd, line, strlen(line)), 0);
	while (got < sizeof(answer) - 1 && memchr(answer, '\n', got) == NULL) {
		ssize_t more = read(fd, answer + got, sizeof(answer) - 1 - got);

		cr_assert_gt(more, 0, "no answer");
		got += (size_t)more;
	}
	answer[got] = '\0';
	(void)close(fd);
	return answer;
}

static void assert_save_refused(const struct world *world)
{
	const char *answer = command(world, "{\"id\":1,\"cmd\":\"save\",\"file\":\"s\"}\n");

	cr_assert_not_null(strstr(answer, "\"ok\":false"), "%s", answer);
	cr_assert_not_null(strstr(answer, "EAGAIN"), "%s", answer);
	cr_assert_not_null(strstr(answer, "leash"), "%s", answer);
}

/* Set the soft deadline, and wait until the worker goes by it. */
static uint64_t set_soft_deadline(struct world *world, uint64_t soft_in_ns)
{
	uint64_t end_ns = now_ns() + WAIT_NS;
	uint64_t soft_ns = now_ns() + soft_in_ns;
	struct base_error err = { .code = 0 };
	char wanted[64];

	(void)snprintf(wanted, sizeof(wanted), "\"soft_deadline_ns\":%llu",
		       (unsigned long long)soft_ns);
	cr_assert_eq(base_leash_extend(world->holder, soft_ns, soft_ns + WAIT_NS * 5, true, &err),
		     0, "%s", err.text);
	while (strstr(command(world, "{\"id\":1,\"cmd\":\"status\"}\n"), wanted) == NULL) {
		cr_assert_lt(now_ns(), end_ns, "the worker does not take %s", wanted);
		base_sleep_ns(5 * BASE_NS_PER_MS);
	}
	return soft_ns;
}

static void wait_until(uint64_t deadline_ns)
{
	while (now_ns() < deadline_ns)
		base_sleep_ns(5 * BASE_NS_PER_MS);
}

/* The thread of the worker with that name. */
static pid_t thread_called(const struct world *world, const char *name)
{
	char path[400];
	struct dirent *entry = NULL;
	pid_t found = -1;
	DIR *list = NULL;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)world->pid);
	list = opendir(path);
	cr_assert_not_null(list);
	while (found < 0 && (entry = readdir(list)) != NULL) {
		char comm[32] = "";
		int fd = -1;

		(void)snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", (int)world->pid,
			       entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && read(fd, comm, sizeof(comm) - 1) > 0 &&
		    strncmp(comm, name, strlen(name)) == 0)
			found = (pid_t)strtol(entry->d_name, NULL, 10);
		if (fd >= 0)
			(void)close(fd);
	}
	(void)closedir(list);
	cr_assert_gt(found, 0, "no thread '%s'", name);
	return found;
}

/* Stop one thread alone, as if it got no processor.  False: not allowed here. */
static bool thread_stop(pid_t thread)
{
	int status = 0;

	if (ptrace(PTRACE_SEIZE, thread, NULL, NULL) < 0) {
		printf("SKIP worker_leash: ptrace: %s\n", strerror(errno));
		return false;
	}
	cr_assert_eq(ptrace(PTRACE_INTERRUPT, thread, NULL, NULL), 0);
	cr_assert_eq(waitpid(thread, &status, __WALL), thread);
	cr_assert(WIFSTOPPED(status));
	return true;
}

static void end_in_order(struct world *world)
{
	cr_assert_eq(kill(world->pid, SIGTERM), 0);
	cr_assert_eq(wait_status(world), VM_EXIT_DONE << 8);
	world_free(world);
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
	assert_save_refused(&world);
	cr_assert_eq(base_leash_thaw(world.holder, NULL), 0);
	wait_for_growth(&world, silent_bytes);
	end_in_order(&world);
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

/*
 * The gate alone, without the thread that freezes: a guest past its soft deadline does not
 * go on, and is not saved.
 */
Test(worker_leash, the_gate_shuts_without_the_leash_thread, .timeout = 300)
{
	struct world world;
	pid_t thread;

	if (!world_new(&world))
		return;
	(void)set_soft_deadline(&world, 2 * BASE_NS_PER_SECOND);
	thread = thread_called(&world, "leash");
	if (!thread_stop(thread)) {
		end_in_order(&world);
		return;
	}
	(void)wait_for_silence(&world);
	cr_assert_not_null(
		strstr(command(&world, "{\"id\":1,\"cmd\":\"status\"}\n"), "\"state\":\"held\""),
		"the leash thread was to be stopped");
	assert_save_refused(&world);
	cr_assert_eq(ptrace(PTRACE_DETACH, thread, NULL, NULL), 0);
	end_in_order(&world);
}

/*
 * Stopped before the soft deadline and continued after it: the guest must not run another
 * instruction, however late the thread that freezes is; here it comes last of all.  What
 * was on its way to the console when the worker stopped may still get there.
 */
Test(worker_leash, a_stopped_worker_wakes_frozen, .timeout = 300)
{
	struct world world;
	pid_t thread;
	size_t bytes;
	uint64_t soft_ns;
	int status = 0;

	if (!world_new(&world))
		return;
	soft_ns = set_soft_deadline(&world, 2 * BASE_NS_PER_SECOND);
	thread = thread_called(&world, "leash");
	cr_assert_eq(kill(world.pid, SIGSTOP), 0);
	cr_assert_eq(waitpid(world.pid, &status, WUNTRACED), world.pid);
	cr_assert(WIFSTOPPED(status));
	/* Only now: a thread that is traced already would not take part in the stop. */
	if (!thread_stop(thread)) {
		cr_assert_eq(kill(world.pid, SIGCONT), 0);
		end_in_order(&world);
		return;
	}
	bytes = console_bytes(&world);
	wait_until(soft_ns);
	cr_assert_eq(console_bytes(&world), bytes);
	cr_assert_eq(kill(world.pid, SIGCONT), 0);
	base_sleep_ns(BASE_NS_PER_SECOND); /* as long as fifty of its lines take */
	cr_assert_leq(console_bytes(&world), bytes + LINE_BYTES_MAX);
	cr_assert_eq(wait_for_silence(&world), console_bytes(&world));
	cr_assert_not_null(
		strstr(command(&world, "{\"id\":1,\"cmd\":\"status\"}\n"), "\"state\":\"held\""),
		"the leash thread was to be stopped");
	cr_assert_eq(ptrace(PTRACE_DETACH, thread, NULL, NULL), 0);
	end_in_order(&world);
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
