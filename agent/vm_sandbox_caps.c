/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capabilities belong to threads, and capset(2) changes only the caller's.  So each
 * other thread is made to call it: by a signal whose handler does.  The signal is
 * SIGSYS, which threads of ours never block (base/thread.h) and which has no other
 * meaning before the seccomp filter is there.  Whether it worked is read back from
 * /proc, thread by thread.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/agent_limits.h"
#include "agent/vm_sandbox_priv.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define TEXT_BYTES     4096
#define PF_USER_WORKER 0x4000UL /* linux/sched.h: a kernel's thread inside our process */

static int capset_none(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

static void on_signal(int number)
{
	int saved_errno = errno;

	(void)number;
	(void)capset_none(); /* judged by what /proc says afterwards */
	errno = saved_errno;
}

/* One of a thread's files; its length, or negative errno: -ESRCH, the thread is gone. */
static ssize_t read_task(int task_fd, const char *tid, const char *file, char text[TEXT_BYTES])
{
	char path[64];
	ssize_t got = 0;
	BASE_CLOSE int fd = -1;

	(void)snprintf(path, sizeof(path), "%.20s/%s", tid, file);
	fd = openat(task_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	got = read(fd, text, TEXT_BYTES - 1);
	if (got < 0)
		return -errno;
	text[got] = '\0';
	return got;
}

/*
 * Is it a thread of the kernel's, such as KVM's "kvm-nx-lpage-re"?  It runs no code of
 * ours and takes no signal.  proc(5), /proc/pid/stat: flags are the 7th field after the name.
 */
static bool is_kernel_worker(int task_fd, const char *tid)
{
	char text[TEXT_BYTES];
	const char *field = NULL;

	if (read_task(task_fd, tid, "stat", text) < 0)
		return false;
	field = strrchr(text, ')'); /* the name may hold anything else */
	for (int i = 0; field != NULL && i < 7; i++)
		field = strchr(field + 1, ' ');
	return field != NULL && (strtoul(field, NULL, 10) & PF_USER_WORKER) != 0;
}

/* Permitted capabilities of one thread: none?  True also when the thread is gone. */
static int is_dropped(int task_fd, const char *tid, bool *ret_dropped)
{
	static const char label[] = "\nCapPrm:";
	char text[TEXT_BYTES];
	const char *line = NULL;
	ssize_t got = read_task(task_fd, tid, "status", text);

	if (got == -ESRCH) {
		*ret_dropped = true;
		return 0;
	}
	if (got < 0)
		return (int)got;
	line = strstr(text, label);
	if (line == NULL)
		return -EBADMSG;
	*ret_dropped = strtoull(line + strlen(label), NULL, 16) == 0;
	return 0;
}

static void closedirp(DIR **directory)
{
	if (*directory != NULL)
		(void)closedir(*directory);
}

/* One look at every thread; those with capabilities get the signal.  The count of them. */
static int signal_round(struct base_error *err)
{
	BASE_CLEANUP(closedirp) DIR *tasks = opendir("/proc/self/task");
	const struct dirent *entry = NULL;
	int left = 0;

	if (tasks == NULL)
		return base_fail_errno(err, -errno, "/proc/self/task");
	/* NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is ours alone */
	for (entry = readdir(tasks); entry != NULL; entry = readdir(tasks)) {
		bool dropped = false;
		long tid = 0;
		int code = 0;

		tid = strtol(entry->d_name, NULL, 10); /* 0 for "." and ".." */
		if (tid <= 0 || tid == gettid())
			continue;
		code = is_dropped(dirfd(tasks), entry->d_name, &dropped);
		if (code < 0)
			return base_fail_errno(err, code, "/proc/self/task/%s/status",
					       entry->d_name);
		if (dropped || is_kernel_worker(dirfd(tasks), entry->d_name))
			continue;
		left++;
		(void)syscall(SYS_tgkill, getpid(), tid, SIGSYS);
	}
	return left;
}

int vm_sandbox_drop_own(struct base_error *err)
{
	int code = capset_none();

	return code < 0 ? base_fail_errno(err, code, "capset") : 0;
}

int vm_sandbox_drop_others(struct base_error *err)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct sigaction before;
	int left = 1;

	if (sigaction(SIGSYS, &action, &before) < 0)
		return base_fail_errno(err, -errno, "sigaction");
	for (unsigned int i = 0; i < VM_SANDBOX_DROP_TRIES; i++) {
		left = signal_round(err);
		if (left <= 0)
			break;
		base_sleep_ns(BASE_NS_PER_MS);
	}
	(void)sigaction(SIGSYS, &before, NULL);
	if (left < 0)
		return left;
	if (left > 0)
		return base_fail(err, -EPERM, "%d threads keep their capabilities: expected none",
				 left);
	return 0;
}
