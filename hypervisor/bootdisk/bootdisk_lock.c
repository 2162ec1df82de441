/* SPDX-License-Identifier: Apache-2.0 */
/* The lock-down of the process that reads a guest's disk: the system calls it may make. */
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "hypervisor/bootdisk/bootdisk_reader_priv.h"

#define LOCK_CPU_SECONDS  50u            /* below the caller's limit */
#define LOCK_FILES        8u             /* memory files are memory beyond the limit of it */
#define LOCK_MEMORY_BYTES (512ULL << 20) /* the descriptors of 100 TiB of ext4 fit */

#if defined(__SANITIZE_ADDRESS__)
#define LOCK_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LOCK_SANITIZED 1
#endif
#endif
#ifndef LOCK_SANITIZED
#define LOCK_SANITIZED 0
#endif

static int limits(uint64_t file_bytes_max)
{
	struct rlimit none = { 0, 0 };
	struct rlimit cpu = { LOCK_CPU_SECONDS, LOCK_CPU_SECONDS };
	struct rlimit memory = { LOCK_MEMORY_BYTES, LOCK_MEMORY_BYTES };
	struct rlimit file = { file_bytes_max, file_bytes_max };
	struct rlimit files = { LOCK_FILES, LOCK_FILES };

	if (setrlimit(RLIMIT_CORE, &none) < 0 || setrlimit(RLIMIT_CPU, &cpu) < 0 ||
	    setrlimit(RLIMIT_FSIZE, &file) < 0 || setrlimit(RLIMIT_NOFILE, &files) < 0)
		return -errno;
	/* A sanitizer's shadow is larger than any limit. */
	if (!LOCK_SANITIZED && setrlimit(RLIMIT_AS, &memory) < 0)
		return -errno;
	return 0;
}

static int rules(scmp_filter_ctx filter)
{
	static const int allowed[] = {
		SCMP_SYS(read),       SCMP_SYS(write),         SCMP_SYS(sendmsg),
		SCMP_SYS(recvmsg),    SCMP_SYS(brk),           SCMP_SYS(munmap),
		SCMP_SYS(mremap),     SCMP_SYS(madvise),       SCMP_SYS(memfd_create),
		SCMP_SYS(ftruncate),  SCMP_SYS(close),         SCMP_SYS(exit),
		SCMP_SYS(exit_group), SCMP_SYS(futex),         SCMP_SYS(rt_sigreturn),
		SCMP_SYS(getrandom),  SCMP_SYS(clock_gettime), SCMP_SYS(restart_syscall),
	};
	/* The C library asks, and does without. */
	static const int refused[] = { SCMP_SYS(sysinfo), SCMP_SYS(openat), SCMP_SYS(getpid),
				       SCMP_SYS(newfstatat), SCMP_SYS(fstat) };
	static const unsigned int commands[] = { F_ADD_SEALS, F_GET_SEALS };
	int rc = 0;

	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]) && rc == 0; i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]) && rc == 0; i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), refused[i], 0);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]) && rc == 0; i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
				      SCMP_A1(SCMP_CMP_EQ, commands[i], 0));
	if (LOCK_SANITIZED && rc == 0) /* asked before each exit */
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sigaltstack), 0);
	if (rc == 0) /* memory, never code */
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				      SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (rc == 0)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				      SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	return rc;
}

int bootdisk_lock_down(uint64_t file_bytes_max)
{
	scmp_filter_ctx filter;
	int rc;

	if (prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	rc = limits(file_bytes_max);
	if (rc < 0)
		return rc;
	filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (filter == NULL)
		return -ENOMEM;
	rc = rules(filter);
#ifndef GODWIT_MUTANT_BOOTDISK_LOCK
	if (rc == 0)
		rc = seccomp_load(filter);
#endif
	seccomp_release(filter);
	return rc;
}
