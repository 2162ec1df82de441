/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock: files are made, written and removed only below the state directory
 * and the folders of disks, and removed in the directories of our sockets.  landlock(7).
 *
 * Applies to the calling thread and those it starts afterwards; vCPU and leash
 * threads exist by then.  So this is a second fence behind chroot and seccomp for
 * what runs on the main thread and on the threads of saves, not the only one.
 */
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/vm_sandbox_priv.h"
#include "base/cleanup.h"

#define ABI_1_RIGHTS                                                                               \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |                              \
	 LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |                              \
	 LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                          \
	 LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |                              \
	 LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |                              \
	 LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |                            \
	 LANDLOCK_ACCESS_FS_MAKE_SYM)
#define STATE_RIGHTS                                                                               \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |                            \
	 LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE)

/* Images, their lease records, and syncing the folder. */
#define STORE_RIGHTS (STATE_RIGHTS | LANDLOCK_ACCESS_FS_READ_DIR)

static bool allow(int ruleset_fd, int directory_fd, uint64_t rights)
{
	struct landlock_path_beneath_attr rule = { .allowed_access = rights,
						   .parent_fd = directory_fd };

	return directory_fd < 0 || syscall(SYS_landlock_add_rule, ruleset_fd,
					   LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
}

int vm_sandbox_landlock(const struct vm_sandbox_spec *spec)
{
	struct landlock_ruleset_attr ruleset = { .handled_access_fs = ABI_1_RIGHTS };
	BASE_CLOSE int fd = -1;
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	if (abi < 1)
		return 0;
	fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, sizeof(ruleset), 0);
	if (fd < 0 || !allow(fd, spec->state_dir_fd, STATE_RIGHTS))
		return 0;
	for (size_t i = 0; i < VM_SANDBOX_DIRECTORIES; i++)
		if (!allow(fd, spec->directory_fds[i], LANDLOCK_ACCESS_FS_REMOVE_FILE))
			return 0;
	if (spec->migrate && spec->tls_dir_fd > 0 &&
	    !allow(fd, spec->tls_dir_fd, LANDLOCK_ACCESS_FS_READ_FILE))
		return 0;
	for (size_t i = 0; i < spec->store_count; i++)
		if (!allow(fd, spec->store_fds[i], STORE_RIGHTS))
			return 0;
	return syscall(SYS_landlock_restrict_self, fd, 0) == 0 ? (int)abi : 0;
}
