/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls of a locked-down worker: tables, and the filter made of them.
 *
 * What is not here kills the process, apart from two answers that are errors:
 * clone3 (its flags are behind a pointer no filter can read) is "not there", so
 * that the C library uses clone; opening a file outside the state directory is
 * "not permitted", since libraries look for optional files.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/tls.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "agent/vm_sandbox_priv.h"

/* Allowed whatever the arguments: they act on this process and its descriptors only. */
static const int plain_calls[] = {
	/* data */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
	SCMP_SYS(pread64),
	SCMP_SYS(pwrite64),
	SCMP_SYS(preadv),
	SCMP_SYS(pwritev),
	SCMP_SYS(preadv2),
	SCMP_SYS(pwritev2),
	SCMP_SYS(io_uring_enter),
	SCMP_SYS(lseek),
	SCMP_SYS(close),
	SCMP_SYS(fstat),
	SCMP_SYS(fsync),
	SCMP_SYS(fdatasync),
	SCMP_SYS(sync_file_range),
	SCMP_SYS(ftruncate),
	SCMP_SYS(flock),
	SCMP_SYS(fallocate),
	SCMP_SYS(fadvise64),
	SCMP_SYS(newfstatat),
	SCMP_SYS(accept4),
	SCMP_SYS(shutdown),
	/* memory */
	SCMP_SYS(brk),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(mincore),
	SCMP_SYS(msync),
	/* threads and signals */
	SCMP_SYS(futex),
	SCMP_SYS(rseq),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(gettid),
	SCMP_SYS(getpid),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigtimedwait),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(getcpu),
	SCMP_SYS(sysinfo),
	SCMP_SYS(getrandom),
	SCMP_SYS(membarrier),
	/* time and waiting */
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_getres),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(timer_settime),
	SCMP_SYS(timer_gettime),
	SCMP_SYS(timer_delete),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(eventfd2),
};

/* What a machine does after it was made; making VMs, vCPUs and devices is not among it. */
static const unsigned long ioctl_requests[] = {
	/* the system descriptor */
	KVM_GET_API_VERSION,
	KVM_CHECK_EXTENSION,
	KVM_GET_MSR_INDEX_LIST,
	KVM_GET_MSR_FEATURE_INDEX_LIST,
	KVM_GET_SUPPORTED_CPUID,
	KVM_GET_VCPU_MMAP_SIZE,
	/* the VM */
	KVM_SET_USER_MEMORY_REGION,
	KVM_GET_DIRTY_LOG,
	KVM_CLEAR_DIRTY_LOG,
	KVM_RESET_DIRTY_RINGS,
	KVM_IRQ_LINE,
	KVM_IRQ_LINE_STATUS,
	KVM_GET_IRQCHIP,
	KVM_SET_IRQCHIP,
	KVM_GET_PIT2,
	KVM_SET_PIT2,
	KVM_GET_CLOCK,
	KVM_SET_CLOCK,
	KVM_SIGNAL_MSI,
	KVM_SET_GSI_ROUTING,
	KVM_IRQFD,
	KVM_IOEVENTFD,
	KVM_REINJECT_CONTROL,
	KVM_SET_BOOT_CPU_ID,
	/* a vCPU */
	KVM_RUN,
	KVM_GET_REGS,
	KVM_SET_REGS,
	KVM_GET_SREGS,
	KVM_SET_SREGS,
	KVM_GET_SREGS2,
	KVM_SET_SREGS2,
	KVM_GET_FPU,
	KVM_SET_FPU,
	KVM_GET_XSAVE,
	KVM_GET_XSAVE2,
	KVM_SET_XSAVE,
	KVM_GET_XCRS,
	KVM_SET_XCRS,
	KVM_GET_MSRS,
	KVM_SET_MSRS,
	KVM_GET_LAPIC,
	KVM_SET_LAPIC,
	KVM_GET_DEBUGREGS,
	KVM_SET_DEBUGREGS,
	KVM_GET_MP_STATE,
	KVM_SET_MP_STATE,
	KVM_GET_VCPU_EVENTS,
	KVM_SET_VCPU_EVENTS,
	KVM_GET_CPUID2,
	KVM_SET_CPUID2,
	KVM_GET_TSC_KHZ,
	KVM_SET_TSC_KHZ,
	KVM_KVMCLOCK_CTRL,
	KVM_NMI,
	KVM_INTERRUPT,
	KVM_SET_SIGNAL_MASK,
	KVM_TRANSLATE,
	KVM_GET_NESTED_STATE,
	KVM_SET_NESTED_STATE,
	KVM_ENABLE_CAP,
	KVM_GET_DEVICE_ATTR,
	KVM_SET_DEVICE_ATTR,
	KVM_HAS_DEVICE_ATTR,
	KVM_X86_SET_MSR_FILTER,
	KVM_SMI,
	/* queues of network cards, as the guest opens and closes them */
	TUNSETQUEUE,
	/* the terminal, restored at the end */
	TCGETS,
	TCSETS,
	TCSETSW,
	TCSETSF,
};

size_t vm_sandbox_ioctls(const unsigned long **ret_requests)
{
	*ret_requests = ioctl_requests;
	return sizeof(ioctl_requests) / sizeof(ioctl_requests[0]);
}

/* Argument @number is an int with @value: the upper half of the register is noise. */
#define INT_ARG(number, value)                                                                     \
	SCMP_CMP64((number), SCMP_CMP_MASKED_EQ, 0xffffffffU, (scmp_datum_t)(unsigned int)(value))

/* One call with conditions on its arguments, all of which must hold. */
struct rule {
	int call;
	unsigned int count;
	struct scmp_arg_cmp when[2];
};

static int add_rules(scmp_filter_ctx filter, const struct rule *rules, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int code = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rules[i].call,
						  rules[i].count, rules[i].when);

		if (code < 0)
			return code;
	}
	return 0;
}

static int add_plain(scmp_filter_ctx filter)
{
	for (size_t i = 0; i < sizeof(plain_calls) / sizeof(plain_calls[0]); i++) {
		int code = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, plain_calls[i], 0, NULL);

		if (code < 0)
			return code;
	}
	for (size_t i = 0; i < sizeof(ioctl_requests) / sizeof(ioctl_requests[0]); i++) {
		/* The kernel looks at 32 bits of the request, and so must the filter. */
		struct scmp_arg_cmp when = INT_ARG(1, ioctl_requests[i]);
		int code =
			seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, &when);

		if (code < 0)
			return code;
	}
	return 0;
}

static int add_conditional(scmp_filter_ctx filter)
{
	const pid_t self = getpid();
	const struct rule rules[] = {
		/* Threads only; a flag that makes a namespace has no place in a thread. */
		{ SCMP_SYS(clone),
		  1,
		  { SCMP_A0(SCMP_CMP_MASKED_EQ,
			    CLONE_THREAD | CLONE_VM | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID |
				    CLONE_NEWNET,
			    CLONE_THREAD | CLONE_VM) } },
		/* No memory becomes code. */
		{ SCMP_SYS(mmap), 1, { SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) } },
		{ SCMP_SYS(mprotect), 1, { SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) } },
		{ SCMP_SYS(tgkill), 1, { INT_ARG(0, self) } },
		{ SCMP_SYS(prctl), 1, { INT_ARG(0, PR_SET_NAME) } },
		{ SCMP_SYS(prlimit64),
		  2,
		  { INT_ARG(0, 0), SCMP_A2(SCMP_CMP_MASKED_EQ, UINT64_MAX, 0) } }, /* read only */
		{ SCMP_SYS(fcntl), 1, { INT_ARG(1, F_GETFD) } },
		{ SCMP_SYS(fcntl), 1, { INT_ARG(1, F_SETFD) } },
		{ SCMP_SYS(fcntl), 1, { INT_ARG(1, F_GETFL) } },
		{ SCMP_SYS(fcntl), 1, { INT_ARG(1, F_SETFL) } },
	};

	return add_rules(filter, rules, sizeof(rules) / sizeof(rules[0]));
}

/* Making, renaming and removing files in the state directory; removing in the others. */
static int add_files(scmp_filter_ctx filter, const struct vm_sandbox_spec *spec)
{
	const int state = spec->state_dir_fd;
	const struct rule state_rules[] = {
		{ SCMP_SYS(openat), 1, { INT_ARG(0, state) } },
		{ SCMP_SYS(unlinkat), 2, { INT_ARG(0, state), INT_ARG(2, 0) } },
		{ SCMP_SYS(renameat), 2, { INT_ARG(0, state), INT_ARG(2, state) } },
		{ SCMP_SYS(renameat2), 2, { INT_ARG(0, state), INT_ARG(2, state) } },
	};
	/* glibc and the sanitizers look for files by path: those are not there. */
	const struct scmp_arg_cmp by_path = INT_ARG(0, AT_FDCWD);
	int code = 0;

	if (spec->state_dir_fd >= 0)
		code = add_rules(filter, state_rules, sizeof(state_rules) / sizeof(state_rules[0]));
	for (size_t i = 0; code == 0 && i < VM_SANDBOX_DIRECTORIES; i++) {
		const struct rule rule = { SCMP_SYS(unlinkat),
					   2,
					   { INT_ARG(0, spec->directory_fds[i]), INT_ARG(2, 0) } };

		if (spec->directory_fds[i] < 0)
			continue;
		code = add_rules(filter, &rule, 1);
	}
	if (code == 0)
		code = seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 1,
					      &by_path);
	if (code == 0)
		code = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(open), 0);
	return code;
}

/* A directory's descriptor, whichever: not AT_FDCWD. */
#define ANY_FD(number) SCMP_CMP64((number), SCMP_CMP_MASKED_EQ, 0x80000000U, 0)

/*
 * What stores do in their folders.  A disk's folder is found below the store's, so its
 * descriptor is not known here: Landlock and the lack of capabilities say where.
 */
static int add_stores(scmp_filter_ctx filter, const struct vm_sandbox_spec *spec)
{
	const struct rule rules[] = {
		{ SCMP_SYS(openat), 1, { ANY_FD(0) } },
		{ SCMP_SYS(openat2), 1, { ANY_FD(0) } },
		{ SCMP_SYS(readlinkat), 1, { ANY_FD(0) } },
		{ SCMP_SYS(faccessat), 1, { ANY_FD(0) } },
		{ SCMP_SYS(faccessat2), 1, { ANY_FD(0) } },
		{ SCMP_SYS(statx), 1, { ANY_FD(0) } },
		{ SCMP_SYS(unlinkat), 2, { ANY_FD(0), INT_ARG(2, 0) } },
		{ SCMP_SYS(renameat), 2, { ANY_FD(0), ANY_FD(2) } },
		{ SCMP_SYS(renameat2), 2, { ANY_FD(0), ANY_FD(2) } },
		{ SCMP_SYS(getdents64), 0, { { 0 } } },
		{ SCMP_SYS(fstatfs), 0, { { 0 } } },
		{ SCMP_SYS(ioctl), 1, { INT_ARG(1, BLKGETSIZE64) } },
		{ SCMP_SYS(fcntl), 1, { INT_ARG(1, F_OFD_SETLK) } },
		{ SCMP_SYS(fcntl), 1, { INT_ARG(1, F_OFD_GETLK) } },
		{ SCMP_SYS(fcntl), 1, { INT_ARG(1, F_DUPFD_CLOEXEC) } },
	};

	return spec->store_count > 0 ? add_rules(filter, rules, sizeof(rules) / sizeof(rules[0]))
				     : 0;
}

/* Reading the boot disk through a process made before: bootdisk_reader_find(). */
static int add_boot_reader(scmp_filter_ctx filter, const struct vm_sandbox_spec *spec)
{
	const struct rule rules[] = {
		{ SCMP_SYS(socketpair),
		  2,
		  { INT_ARG(0, AF_UNIX), INT_ARG(1, SOCK_SEQPACKET | SOCK_CLOEXEC) } },
		{ SCMP_SYS(sendmsg), 0, { { 0 } } },
		{ SCMP_SYS(recvmsg), 0, { { 0 } } },
		{ SCMP_SYS(fcntl), 1, { INT_ARG(1, F_GET_SEALS) } },
	};

	return spec->boot_reader ? add_rules(filter, rules, sizeof(rules) / sizeof(rules[0])) : 0;
}

static void filter_release(scmp_filter_ctx *filter)
{
	if (*filter != NULL)
		seccomp_release(*filter);
}

/*
 * What a migration needs: connections of TCP and nothing else that is a socket.  Where connect()
 * goes is behind a pointer no filter can read; the worker has no other kind of socket that is
 * not connected already.
 */
static int add_migrate(scmp_filter_ctx filter, const struct vm_sandbox_spec *spec)
{
	const unsigned int type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
	const struct rule rules[] = {
		{ SCMP_SYS(socket), 2, { INT_ARG(0, AF_INET), INT_ARG(1, type) } },
		{ SCMP_SYS(socket), 2, { INT_ARG(0, AF_INET6), INT_ARG(1, type) } },
		{ SCMP_SYS(connect), 0, { { 0 } } },
		{ SCMP_SYS(sendmsg), 0, { { 0 } } },
		{ SCMP_SYS(sendto), 0, { { 0 } } },
		{ SCMP_SYS(recvfrom), 0, { { 0 } } },
		{ SCMP_SYS(recvmsg), 0, { { 0 } } },
		{ SCMP_SYS(getsockopt), 2, { INT_ARG(1, SOL_SOCKET), INT_ARG(2, SO_ERROR) } },
		{ SCMP_SYS(setsockopt), 2, { INT_ARG(1, SOL_SOCKET), INT_ARG(2, SO_RCVTIMEO) } },
		{ SCMP_SYS(setsockopt), 2, { INT_ARG(1, SOL_SOCKET), INT_ARG(2, SO_SNDTIMEO) } },
		{ SCMP_SYS(setsockopt), 2, { INT_ARG(1, IPPROTO_TCP), INT_ARG(2, TCP_NODELAY) } },
		{ SCMP_SYS(setsockopt), 2, { INT_ARG(1, IPPROTO_TCP), INT_ARG(2, TCP_ULP) } },
		{ SCMP_SYS(setsockopt), 2, { INT_ARG(1, SOL_TLS), INT_ARG(2, TLS_TX) } },
		/* pages that come after it */
		{ SCMP_SYS(ioctl), 1, { INT_ARG(1, UFFDIO_REGISTER) } },
		{ SCMP_SYS(ioctl), 1, { INT_ARG(1, UFFDIO_UNREGISTER) } },
		{ SCMP_SYS(ioctl), 1, { INT_ARG(1, UFFDIO_CONTINUE) } },
		{ SCMP_SYS(ioctl), 1, { INT_ARG(1, UFFDIO_WAKE) } },
		{ SCMP_SYS(fcntl), 1, { INT_ARG(1, F_OFD_SETLK) } }, /* the host's limits */
		{ SCMP_SYS(fcntl), 1, { INT_ARG(1, F_OFD_GETLK) } },
	};

	/* Certificates are read when a migration begins, and nothing else is done there. */
	const struct rule tls = { SCMP_SYS(openat),
				  2,
				  { INT_ARG(0, spec->tls_dir_fd),
				    SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC,
					    O_RDONLY) } };
	int code = 0;

	if (!spec->migrate)
		return 0;
	code = add_rules(filter, rules, sizeof(rules) / sizeof(rules[0]));
	return code == 0 && spec->tls_dir_fd > 0 ? add_rules(filter, &tls, 1) : code;
}

#define FILTER __attribute__((cleanup(filter_release))) scmp_filter_ctx

int vm_sandbox_seccomp(const struct vm_sandbox_spec *spec, struct base_error *err)
{
	FILTER filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int code = 0;

	if (filter == NULL)
		return base_fail(err, -ENOMEM, "seccomp: no memory");
	code = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1); /* all threads at once */
	if (code == 0)
		code = seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
	if (code == 0)
		code = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* binary tree */
	if (code == 0)
		code = add_plain(filter);
	if (code == 0)
		code = add_conditional(filter);
	if (code == 0)
		code = add_files(filter, spec);
	if (code == 0)
		code = add_stores(filter, spec);
	if (code == 0)
		code = add_boot_reader(filter, spec);
	if (code == 0)
		code = add_migrate(filter, spec);
	if (code == 0)
		code = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	if (code < 0)
		return base_fail_errno(err, code, "seccomp: rules");
	code = seccomp_load(filter);
	if (code < 0)
		return base_fail_errno(err, code, "seccomp: load");
	return 0;
}
