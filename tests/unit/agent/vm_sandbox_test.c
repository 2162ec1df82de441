/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock-down, from inside: each test forks a child that locks itself down and then
 * tries what it may not, or must be able to, do.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/vm_migrate_net.h"
#include "agent/vm_sandbox.h"
#include "agent/vm_sandbox_priv.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/io_loop.h"
#include "base/thread.h"
#include "hypervisor/disk/local_store.h"
#include "migrate/mig_host.h"
#include "migrate/mig_tls.h"
#include "tests/support/mig_tls_lab.h"

#define STAYED 7 /* exit code of a child that was let do what it may not */

static char directory[] = "/tmp/vm_sandbox_test.XXXXXX";

static void setup(void)
{
#if defined(__SANITIZE_THREAD__)
	/* Its own thread cannot be locked down, and that would be refused. */
	cr_skip_test("SKIP vm_sandbox: the thread sanitizer has a thread of its own");
#endif
	cr_assert_not_null(mkdtemp(directory));
}

static void teardown(void)
{
	char command[64];

	(void)snprintf(command, sizeof(command), "rm -rf %s", directory);
	cr_assert_eq(system(command), 0);
}

TestSuite(vm_sandbox, .init = setup, .fini = teardown);

static bool migrates;       /* the lock-down of the tests that set it has what a migration needs */
static int tls_dir_fd = -1; /* likewise: a folder of certificates */

static int lock_down(int state_dir_fd)
{
	struct vm_sandbox_spec spec = { .state_dir_fd = state_dir_fd,
					.directory_fds = { -1, -1, -1, -1 },
					.migrate = migrates,
					.tls_dir_fd = tls_dir_fd };
	struct vm_sandbox_facts facts = { 0 };
	struct base_error err = { 0 };
	int code = vm_sandbox_enter(&spec, &facts, &err);

	if (code < 0) {
		(void)fprintf(stderr, "%s\n", err.text);
		return code;
	}
	return facts.no_new_privileges && facts.capabilities_dropped && facts.seccomp ? 0 : -EPERM;
}

/* The child's wait status.  @act runs locked down; its result is the exit code. */
static int in_child(int (*act)(int state_dir_fd), bool with_state_dir)
{
	int status = 0;
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0) {
		int fd = with_state_dir ? open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

		if (lock_down(fd) < 0)
			_exit(100);
		_exit(act(fd));
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	return status;
}

static void assert_killed(int (*act)(int state_dir_fd), const char *what)
{
	int status = in_child(act, true);

	cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%s: wait status 0x%x", what,
		  (unsigned int)status);
}

static void assert_exits(int (*act)(int state_dir_fd), bool with_state_dir, const char *what)
{
	int status = in_child(act, with_state_dir);

	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: wait status 0x%x", what,
		  (unsigned int)status);
}

static int do_exec(int fd)
{
	char *argv[] = { NULL };

	(void)fd;
	(void)execve("/bin/true", argv, argv);
	return STAYED;
}

static int do_socket(int fd)
{
	(void)fd;
	(void)socket(AF_UNIX, SOCK_STREAM, 0);
	return STAYED;
}

static int do_fork(int fd)
{
	(void)fd;
	(void)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	return STAYED;
}

static int do_ptrace(int fd)
{
	(void)fd;
	(void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	return STAYED;
}

static int do_kill(int fd)
{
	(void)fd;
	(void)kill(getppid(), 0);
	return STAYED;
}

static int do_make_vm(int fd)
{
	(void)ioctl(fd, KVM_CREATE_VM, 0);
	return STAYED;
}

static int do_inject(int fd)
{
	(void)fd;
	(void)ioctl(0, TIOCSTI, "x"); /* types on the terminal of whoever started us */
	return STAYED;
}

static int do_executable_memory(int fd)
{
	(void)fd;
	(void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return STAYED;
}

static int do_mount(int fd)
{
	(void)fd;
	(void)syscall(SYS_mount, "none", "/", "tmpfs", 0, NULL);
	return STAYED;
}

/* A directory from outside must not come to the state directory's number. */
static int do_duplicate(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 100) >= 0 ? STAYED : STAYED + 1;
}

static int do_remove_directory(int fd)
{
	return unlinkat(fd, "x", AT_REMOVEDIR) == 0 ? STAYED : STAYED + 1;
}

static int do_link(int fd)
{
	int linked = linkat(fd, "a", fd, "b", 0);

	(void)linked;
	return STAYED;
}

static int do_rename_elsewhere(int fd)
{
	(void)renameat(fd, "a", AT_FDCWD, "/tmp/b");
	return STAYED;
}

Test(vm_sandbox, forbidden_calls_kill)
{
	assert_killed(do_exec, "execve");
	assert_killed(do_socket, "socket");
	assert_killed(do_fork, "fork");
	assert_killed(do_ptrace, "ptrace");
	assert_killed(do_kill, "kill");
	assert_killed(do_make_vm, "KVM_CREATE_VM");
	assert_killed(do_inject, "TIOCSTI");
	assert_killed(do_executable_memory, "mmap PROT_EXEC");
	assert_killed(do_mount, "mount");
	assert_killed(do_link, "linkat");
	assert_killed(do_duplicate, "F_DUPFD_CLOEXEC");
	assert_killed(do_remove_directory, "unlinkat AT_REMOVEDIR");
	assert_killed(do_rename_elsewhere, "renameat");
}

static int do_open_elsewhere(int fd)
{
	(void)fd;
	if (open("/tmp/vm_sandbox_test.elsewhere", O_WRONLY | O_CREAT, 0600) >= 0)
		return STAYED;
	if (errno != EACCES)
		return 1;
	return open("/etc/passwd", O_RDONLY) >= 0 ? STAYED : 0;
}

/* An absolute path makes openat() forget its descriptor: chroot or Landlock stand behind. */
static int do_open_absolute(int fd)
{
	if (openat(fd, "/etc/passwd", O_RDONLY) >= 0)
		return STAYED;
	if (openat(fd, "../../etc/passwd", O_RDONLY) >= 0)
		return STAYED;
	return openat(fd, "/tmp/vm_sandbox_test.elsewhere", O_WRONLY | O_CREAT, 0600) >= 0 ? STAYED
											   : 0;
}

static int do_save(int fd)
{
	struct base_new_file file;
	struct base_error err = { 0 };

	if (base_new_file_begin(fd, "state", &file, &err) < 0)
		return 1;
	if (base_write_all(file.fd, "x", 1) < 0 || base_new_file_commit(&file, &err) < 0)
		return 2;
	return 0;
}

static int do_second_save(int fd)
{
	struct base_new_file one;
	struct base_new_file two;

	if (base_new_file_begin(fd, "state2", &one, NULL) < 0)
		return 1;
	return base_new_file_begin(fd, "state2", &two, NULL) == -EBUSY ? 0 : 2;
}

static int do_abort_save(int fd)
{
	struct base_new_file file;

	if (base_new_file_begin(fd, "state2", &file, NULL) < 0)
		return 1;
	base_new_file_abort(&file);
	return 0;
}

Test(vm_sandbox, files_only_in_the_state_directory)
{
	char path[64];

	assert_exits(do_open_elsewhere, true, "open elsewhere");
	assert_exits(do_open_elsewhere, false, "open elsewhere, no state directory");
	cr_expect_lt(access("/tmp/vm_sandbox_test.elsewhere", F_OK), 0);
	assert_exits(do_save, true, "save");
	assert_exits(do_second_save, true, "two writers"); /* leaves one behind, unlocked */
	assert_exits(do_abort_save, true, "abort");
	(void)snprintf(path, sizeof(path), "%s/state", directory);
	cr_expect_eq(access(path, F_OK), 0);
	if (geteuid() != 0)
		cr_skip("not root: no chroot; Landlock may be missing, too");
	assert_exits(do_open_absolute, true, "absolute paths");
}

/* --- stores --- */

static struct base_io_loop *loop; /* made before the lock-down, as a worker does */
static struct store *store;

/* All that a disk asks of its folder, at an epoch, so that the lease's record is written. */
static int use_store(void)
{
	struct store_open_options options = { .loop = loop, .create = true, .align_bytes = 512 };
	struct store_file *file = NULL;
	static uint8_t data[4096] __attribute__((aligned(4096)));
	uint64_t epoch = 0;
	struct base_error err = { 0 };
	int code = store_open(store, "disk", &options, &file, &err);

	if (code == 0)
		code = store_acquire(file, 7, NULL, &epoch, &err);
	if (code == 0)
		code = store_do(file, STORE_ALLOCATE, 0, NULL, 65536, &err);
	if (code == 0)
		code = store_do(file, STORE_WRITE, 0, data, sizeof(data), &err);
	if (code == 0)
		code = store_do(file, STORE_FLUSH, 0, NULL, 0, &err);
	if (code == 0)
		code = store_do(file, STORE_PUNCH, 0, NULL, sizeof(data), &err);
	if (code == 0)
		code = store_do(file, STORE_TRUNCATE, 0, NULL, 0, &err);
	if (code == 0)
		code = store_release(file, &err);
	store_close(file);
	if (code == 0)
		code = store_rename(store, "disk", "disk2", &err);
	if (code == 0)
		code = store_sync_folder(store, "disk2", &err);
	if (code == 0)
		code = store_remove(store, "disk2", &err);
	if (code < 0)
		(void)fprintf(stderr, "store: %s\n", err.text);
	return code;
}

/* In a child: locked down with a store, and without a state directory. */
static int do_store(bool may_use)
{
	int store_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int state_fd = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct vm_sandbox_spec spec = { .state_dir_fd = -1,
					.directory_fds = { -1, -1, -1, -1 },
					.store_fds = &store_fd,
					.store_count = may_use ? 1 : 0 };
	struct vm_sandbox_facts facts = { 0 };

	if (base_io_loop_new(NULL, &loop, NULL) < 0 ||
	    local_store_open(directory, NULL, &store, NULL) < 0)
		return 1;
	if (vm_sandbox_enter(&spec, &facts, NULL) < 0)
		return 2;
	if (use_store() < 0)
		return 3;
	/* Landlock, where it is: nothing outside of the store. */
	if (facts.landlock_abi > 0 && openat(state_fd, "vm_sandbox_test.elsewhere",
					     O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0)
		return STAYED;
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0 ? STAYED : 0;
}

static int store_child(bool may_use)
{
	int status = 0;
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0)
		_exit(do_store(may_use));
	cr_assert_eq(waitpid(child, &status, 0), child);
	return status;
}

Test(vm_sandbox, a_store_works_locked_down)
{
	int status = store_child(true);

	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status 0x%x",
		  (unsigned int)status);
	cr_expect_lt(access("/tmp/vm_sandbox_test.elsewhere", F_OK), 0);
}

Test(vm_sandbox, without_a_store_its_calls_kill)
{
	int status = store_child(false);

	cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "wait status 0x%x",
		  (unsigned int)status);
}

static void *thread_body(void *context)
{
	*(bool *)context = true;
	return NULL;
}

static int do_ordinary(int fd)
{
	bool ran = false;
	pthread_t thread;
	void *memory = malloc(64 << 20);
	struct timespec pause = { .tv_nsec = 1000 };

	(void)fd;
	if (memory == NULL)
		return 1;
	memset(memory, 1, 64 << 20);
	free(memory);
	if (base_thread_start(&thread, "late", thread_body, &ran, NULL) < 0)
		return 2;
	base_thread_join(thread);
	if (!ran)
		return 3;
	if (clock_nanosleep(CLOCK_BOOTTIME, 0, &pause, NULL) != 0)
		return 4;
	if (raise(SIGUSR1) != 0) /* ignored below */
		return 5;
	return 0;
}

Test(vm_sandbox, ordinary_work_goes_on)
{
	(void)signal(SIGUSR1, SIG_IGN);
	assert_exits(do_ordinary, true, "malloc, threads, clocks, signals");
	assert_exits(do_ordinary, false, "the same without a state directory");
}

static int tap_fd = -1;

static int do_queue(int fd)
{
	struct ifreq request = { .ifr_flags = IFF_DETACH_QUEUE };

	(void)fd;
	if (ioctl(tap_fd, TUNSETQUEUE, &request) < 0 && tap_fd >= 0)
		return 1;
	request.ifr_flags = IFF_ATTACH_QUEUE;
	return ioctl(tap_fd, TUNSETQUEUE, &request) < 0 && tap_fd >= 0 ? 2 : 0;
}

/* As when the guest opens and closes its channels; without any capability. */
Test(vm_sandbox, queues_of_a_network_card_come_and_go)
{
	struct ifreq device = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE };

	if (unshare(CLONE_NEWNET) == 0)
		tap_fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (tap_fd >= 0 && ioctl(tap_fd, TUNSETIFF, &device) < 0)
		tap_fd = -1; /* at least that nothing kills */
	assert_exits(do_queue, false, "TUNSETQUEUE");
}

/* A thread that was there before has neither capabilities nor system calls left. */
static int pipe_fds[2];

static void *early_body(void *context)
{
	char go = 0;

	(void)context;
	while (read(pipe_fds[0], &go, 1) < 0)
		;
	(void)socket(AF_UNIX, SOCK_STREAM, 0);
	_exit(STAYED);
}

Test(vm_sandbox, threads_made_before_are_locked_down_too)
{
	int status = 0;
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0) {
		pthread_t thread;

		if (pipe(pipe_fds) < 0 ||
		    base_thread_start(&thread, "early", early_body, NULL, NULL) < 0 ||
		    lock_down(-1) < 0)
			_exit(100);
		(void)!write(pipe_fds[1], "x", 1);
		base_thread_join(thread);
		_exit(101);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "wait status 0x%x",
		  (unsigned int)status);
}

Test(vm_sandbox, begin_closes_what_nobody_named)
{
	int status = 0;
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0) {
		int keep = fcntl(0, F_DUPFD, 20);
		int stray = fcntl(0, F_DUPFD, 10);
		int far = fcntl(0, F_DUPFD, 200);
		int listed[] = { -1, keep, -1 };

		(void)close(1);
		if (vm_sandbox_begin(listed, 3, NULL) < 0)
			_exit(1);
		if (fcntl(keep, F_GETFD) != FD_CLOEXEC)
			_exit(2);
		if (fcntl(stray, F_GETFD) >= 0 || fcntl(far, F_GETFD) >= 0)
			_exit(3);
		_exit(fcntl(1, F_GETFD) >= 0 ? 0 : 4);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0);
}

Test(vm_sandbox, begin_names_a_descriptor_that_is_not_open)
{
	struct base_error err = { 0 };
	int listed[] = { 987 };

	cr_assert_eq(vm_sandbox_begin(listed, 1, &err), -EBADF);
	cr_assert_not_null(strstr(err.text, "987"));
}

/* Making partitions and devices is over when the lock-down comes. */
Test(vm_sandbox, no_request_that_makes_things)
{
	static const unsigned long makers[] = { KVM_CREATE_VM,      KVM_CREATE_VCPU,
						KVM_CREATE_IRQCHIP, KVM_CREATE_DEVICE,
						KVM_CREATE_PIT2,    TIOCSTI };
	const unsigned long *requests = NULL;
	size_t count = vm_sandbox_ioctls(&requests);

	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < sizeof(makers) / sizeof(makers[0]); j++)
			cr_expect_neq(requests[i], makers[j]);
}

/* --- what a migration needs, and no more --- */

static int do_tcp_socket(int fd)
{
	(void)fd;
	(void)socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return STAYED;
}

static int do_udp_socket(int fd)
{
	(void)fd;
	(void)socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return STAYED;
}

static int do_packet_socket(int fd)
{
	(void)fd;
	(void)socket(AF_PACKET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return STAYED;
}

static int do_bind(int fd)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	(void)fd;
	(void)bind(tcp, (struct sockaddr *)(void *)&any, sizeof(any));
	return STAYED;
}

static int do_option(int fd)
{
	const int mark = 1;
	int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	(void)fd;
	(void)setsockopt(tcp, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	return STAYED;
}

/* Nobody listens there: the kernel says so, which is what matters. */
static int do_connect(int fd)
{
	struct vm_address address;
	int tcp = -1;

	(void)fd;
	if (vm_address_parse("127.0.0.1:1", &address, NULL) < 0)
		return 1;
	return vm_address_connect(&address, 1000, &tcp, NULL) == -ECONNREFUSED ? 0 : 2;
}

static struct mig_host *moves; /* opened before the lock-down, as a worker does */

static int do_host_moves(int fd)
{
	uint64_t wait_ns = 0;
	uint32_t most = 0;

	(void)fd;
	if (mig_host_enter(moves, MIG_OUTGOING, NULL) != 1 ||
	    mig_host_try(moves, MIG_INCOMING, NULL) != 1)
		return 1;
	if (mig_host_busy(moves, MIG_OUTGOING, &most) != 1 || most != 2)
		return 2;
	if (!mig_host_reserve(moves, 1, 1, &wait_ns))
		return 3;
	mig_host_leave(moves, MIG_OUTGOING);
	mig_host_leave(moves, MIG_INCOMING);
	return 0;
}

Test(vm_sandbox, a_migration_keeps_to_the_limits_of_the_host)
{
	BASE_CLOSE int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct mig_host_options options = {
		.directory_fd = fd,
		.most = { [MIG_OUTGOING] = 2, [MIG_INCOMING] = 2 },
		.bytes_per_s = 1 << 20,
	};

	cr_assert_eq(mig_host_new(&options, &moves, NULL), 0);
	migrates = true;
	assert_exits(do_host_moves, true, "limits of the host");
	mig_host_free(moves);
}

static int tls_pair[2]; /* a connection over loopback */

static void connect_tls_pair(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t bytes = sizeof(address);
	BASE_CLOSE int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(listener, 1), 0);
	cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
	tls_pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(tls_pair[0], (struct sockaddr *)&address, sizeof(address)), 0);
	tls_pair[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(tls_pair[1], 0);
}

/* One end of it, with the only host's certificate. */
static struct mig_tls_stream *tls_end(bool is_source)
{
	const char *peer = "a";
	struct mig_tls_options options = {
		.directory_fd = tls_dir_fd, .is_source = is_source, .peers = &peer, .peer_count = 1
	};
	struct mig_tls_stream_options stream = { .fd = tls_pair[is_source ? 0 : 1],
						 .may_use_kernel = true };
	struct mig_tls_stream *made = NULL;

	if (mig_tls_new(&options, &stream.tls, NULL) < 0 ||
	    mig_tls_stream_new(&stream, &made, NULL) < 0)
		return NULL;
	return made;
}

/* All of TLS from the files to a byte that has arrived. */
static int do_tls(int fd)
{
	struct mig_tls_stream *ends[2] = { tls_end(true), tls_end(false) };
	int codes[2] = { -EAGAIN, -EAGAIN };
	size_t done = 0;
	short events = 0;
	uint8_t byte = 7;

	(void)fd;
	if (ends[0] == NULL || ends[1] == NULL)
		return 1;
	while (codes[0] == -EAGAIN || codes[1] == -EAGAIN)
		for (int i = 0; i < 2; i++)
			if (codes[i] == -EAGAIN)
				codes[i] = mig_tls_stream_greet(ends[i], &events, NULL);
	if (codes[0] < 0 || codes[1] < 0)
		return 2;
	if (mig_tls_stream_write(ends[0], &byte, 1, &done, &events, NULL) < 0 ||
	    mig_tls_stream_flush(ends[0], &events, NULL) < 0)
		return 3;
	byte = 0;
	do {
		codes[1] = mig_tls_stream_read(ends[1], &byte, 1, &done, &events, NULL);
	} while (codes[1] == -EAGAIN);
	return codes[1] == 0 && byte == 7 ? 0 : 4;
}

static int do_make_beside_the_key(int fd)
{
	(void)fd;
	(void)openat(tls_dir_fd, "new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return STAYED;
}

static int do_write_the_key(int fd)
{
	(void)fd;
	(void)openat(tls_dir_fd, "key.pem", O_RDWR | O_CLOEXEC);
	return STAYED;
}

static int do_read_the_key(int fd)
{
	(void)fd;
	(void)openat(tls_dir_fd, "key.pem", O_RDONLY | O_CLOEXEC);
	return STAYED;
}

Test(vm_sandbox, a_migration_reads_certificates_and_speaks_tls)
{
	struct mig_tls_lab lab;
	char path[MIG_TLS_LAB_PATH_BYTES];

	mig_tls_begin();
	mig_tls_lab_init(&lab);
	mig_tls_lab_host(&lab, &(struct mig_tls_lab_host){ .folder = "a", .names = "DNS:a" });
	mig_tls_lab_path(&lab, "a", "", path);
	tls_dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_gt(tls_dir_fd, 0);
	connect_tls_pair();
	assert_killed(do_read_the_key, "certificates without the key migrate");
	migrates = true;
	assert_exits(do_tls, true, "TLS");
	assert_killed(do_make_beside_the_key, "a file beside the key");
	assert_killed(do_write_the_key, "the key for writing");
	mig_tls_lab_fini(&lab);
}

Test(vm_sandbox, a_migration_may_connect_and_nothing_else)
{
	assert_killed(do_tcp_socket, "a connection without the key migrate");
	migrates = true;
	assert_exits(do_connect, true, "connect");
	assert_killed(do_socket, "a local socket");
	assert_killed(do_udp_socket, "datagrams");
	assert_killed(do_packet_socket, "frames");
	assert_killed(do_bind, "bind");
	assert_killed(do_option, "a socket option");
	assert_killed(do_exec, "exec");
}
