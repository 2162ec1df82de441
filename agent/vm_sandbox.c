/* SPDX-License-Identifier: Apache-2.0 */
/* The order of the lock-down, and what needs only a few calls. */
#include "agent/vm_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "agent/vm_sandbox_priv.h"

#define FIRST_OTHER_FD 3
#define KEEP_MAX       256 /* queues of network cards, and a few */

static int compare_ints(const void *a, const void *b)
{
	int left = *(const int *)a;
	int right = *(const int *)b;

	return (left > right) - (left < right);
}

static int open_standard_fds(struct base_error *err)
{
	for (int fd = 0; fd < FIRST_OTHER_FD; fd++) {
		int got = 0;

		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		got = open("/dev/null", O_RDWR); /* inherited by nobody: we never exec */
		if (got < 0)
			return base_fail_errno(err, -errno, "/dev/null for descriptor %d", fd);
		if (got != fd) /* lower ones are open, so the lowest free one is this one */
			base_bug("descriptor %d instead of %d", got, fd);
	}
	return 0;
}

static int close_span(unsigned int first, unsigned int last, struct base_error *err)
{
	if (first > last)
		return 0;
	if (close_range(first, last, 0) < 0)
		return base_fail_errno(err, -errno, "close descriptors from %u", first);
	return 0;
}

int vm_sandbox_begin(const int *keep, size_t count, struct base_error *err)
{
	int sorted[KEEP_MAX];
	unsigned int next = FIRST_OTHER_FD;
	int code = open_standard_fds(err);

	base_assert(count <= KEEP_MAX);
	if (code < 0)
		return code;
	if (count > 0)
		memcpy(sorted, keep, count * sizeof(sorted[0]));
	qsort(sorted, count, sizeof(sorted[0]), compare_ints);
	for (size_t i = 0; i < count; i++) {
		if (sorted[i] < (int)next)
			continue;
		if (fcntl(sorted[i], F_SETFD, FD_CLOEXEC) < 0)
			return base_fail(err, -EBADF,
					 "descriptor %d: not open: expected one from the parent",
					 sorted[i]);
		code = close_span(next, (unsigned int)sorted[i] - 1, err);
		if (code < 0)
			return code;
		next = (unsigned int)sorted[i] + 1;
	}
	return close_span(next, ~0U, err);
}

/* Where the process is root an absolute path can then reach nothing but saved states. */
static bool try_chroot(int state_dir_fd)
{
	/* The working directory first: chroot(".") needs no path that could be swapped. */
	return fchdir(state_dir_fd) == 0 && chroot(".") == 0;
}

int vm_sandbox_enter(const struct vm_sandbox_spec *spec, struct vm_sandbox_facts *ret_facts,
		     struct base_error *err)
{
	struct vm_sandbox_facts facts = { .no_new_privileges = true };
	int code = 0;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return base_fail_errno(err, -errno, "lock-down: no new privileges");
	/* The others while /proc is still in reach, our own when chroot is done. */
	code = vm_sandbox_drop_others(err);
	if (code < 0)
		return base_fail_within(err, code, "lock-down");
	if (spec->state_dir_fd >= 0)
		facts.chroot = try_chroot(spec->state_dir_fd);
	facts.landlock_abi = vm_sandbox_landlock(spec);
	code = vm_sandbox_drop_own(err);
	if (code < 0)
		return base_fail_within(err, code, "lock-down");
	facts.capabilities_dropped = true;
	code = vm_sandbox_seccomp(spec, err);
	if (code < 0)
		return base_fail_within(err, code, "lock-down");
	facts.seccomp = true;
	*ret_facts = facts;
	return 0;
}
