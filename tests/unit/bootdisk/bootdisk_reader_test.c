/* SPDX-License-Identifier: Apache-2.0 */
/* The processes that read a guest's disk: what they must not be able to do, and that they come
 * back. */
#include "hypervisor/bootdisk/bootdisk_reader.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/bootdisk/bootdisk_reader_priv.h"

/* --- what a child must not do: each ends it, or fails --- */

static void *page;

static void make_socket(void)
{
	(void)!socket(AF_INET, SOCK_STREAM, 0);
}

static void make_local_socket(void)
{
	int fds[2];

	(void)!socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
}

static void connect_out(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	(void)!connect(0, (const struct sockaddr *)&address, sizeof(address));
}

static void run_program(void)
{
	char *const arguments[] = { NULL };

	(void)!execve("/bin/true", arguments, arguments);
}

static void make_process(void)
{
	(void)!fork();
}

static void kill_parent(void)
{
	(void)!kill(getppid(), 0);
}

static void trace_parent(void)
{
	(void)!ptrace(PTRACE_SEIZE, getppid(), NULL, NULL);
}

static void make_code(void)
{
	(void)!mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

static void map_code(void)
{
	(void)!mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void remove_file(void)
{
	(void)!unlink("/tmp/nothing");
}

static void rename_file(void)
{
	(void)!rename("/tmp/nothing", "/tmp/other");
}

static void make_folder(void)
{
	(void)!mkdir("/tmp/nothing", 0700);
}

static void make_ring(void)
{
	(void)!syscall(SYS_io_uring_setup, 1, NULL);
}

static void control_device(void)
{
	(void)!syscall(SYS_ioctl, 0, 0, 0);
}

static void change_descriptor(void)
{
	(void)!fcntl(0, F_SETFL, O_NONBLOCK);
}

static void more_memory(void) /* its own limits */
{
	(void)!syscall(SYS_prlimit64, 0, 0, NULL, NULL);
}

static void old_style_call(void) /* another table of calls */
{
	(void)!syscall(0x40000000 + 39);
}

static int in_locked_child(void (*act)(void), int act_code)
{
	int status = 0;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0) { /* with as few descriptors as a child has */
		if (close_range(3, ~0u, 0) < 0 || bootdisk_lock_down(1u << 20) < 0)
			_exit(100);
		act();
		_exit(act_code);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return status;
}

Test(bootdisk_reader, a_locked_child_is_killed_at_what_it_must_not_do)
{
	static const struct {
		const char *name;
		void (*act)(void);
	} acts[] = {
		{ "socket", make_socket },      { "socketpair", make_local_socket },
		{ "connect", connect_out },     { "execve", run_program },
		{ "fork", make_process },       { "kill", kill_parent },
		{ "ptrace", trace_parent },     { "mprotect", make_code },
		{ "mmap", map_code },           { "unlink", remove_file },
		{ "rename", rename_file },      { "mkdir", make_folder },
		{ "io_uring", make_ring },      { "ioctl", control_device },
		{ "fcntl", change_descriptor }, { "prlimit", more_memory },
		{ "x32", old_style_call },
	};

	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(page, MAP_FAILED);
	for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
		int status = in_locked_child(acts[i].act, 0);

		cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%s: wait status 0x%x",
			  acts[i].name, (unsigned int)status);
	}
	(void)munmap(page, 4096);
}

static void open_files(void)
{
	if (open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0 ||
	    open("/tmp/bootdisk_reader", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0 ||
	    openat(AT_FDCWD, ".", O_RDONLY | O_CLOEXEC) >= 0)
		_exit(1);
}

static void what_it_needs(void)
{
	int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *bytes = malloc(1 << 20);

	if (fd < 0 || bytes == NULL || write(fd, "x", 1) != 1 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0)
		_exit(1);
	free(bytes);
}

Test(bootdisk_reader, a_locked_child_opens_nothing_and_can_do_its_work)
{
	cr_expect_eq(in_locked_child(open_files, 7), 7 << 8);
	cr_expect_eq(in_locked_child(what_it_needs, 7), 7 << 8);
}

/* --- that it comes back --- */

static uint32_t reads;

static int read_zeros(void *context, uint64_t offset, void *to, size_t size_bytes,
		      struct base_error *err)
{
	(void)context;
	(void)offset;
	(void)err;
	reads++;
	memset(to, 0, size_bytes);
	return 0;
}

/* An empty disk is read, and nothing is found: -ENOENT is the good answer. */
static int find(struct bootdisk_reader *reader)
{
	struct bootdisk_entry entry = { .kernel_fd = -1, .initrd_fd = -1 };
	struct bootdisk_source source = { .size_bytes = 1 << 20,
					  .sector_bytes = 512,
					  .read = read_zeros };

	reads = 0;
	return bootdisk_reader_find(reader, &source, &entry, NULL);
}

/* A process whose parent is @parent; 0: none. */
static pid_t child_of(pid_t parent)
{
	DIR *folder = opendir("/proc");
	struct dirent *entry = NULL;
	pid_t found = 0;

	cr_assert_not_null(folder);
	while (found == 0 && (entry = readdir(folder)) != NULL) {
		char path[300];
		char text[300] = "";
		const char *after = NULL;
		FILE *file = NULL;

		(void)snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
		file = fopen(path, "re");
		if (file == NULL)
			continue;
		if (fgets(text, sizeof(text), file) != NULL)
			after = strrchr(text, ')');
		if (after != NULL && after[2] != 'Z' && strtol(after + 4, NULL, 10) == parent)
			found = (pid_t)strtol(entry->d_name, NULL, 10);
		(void)fclose(file);
	}
	(void)closedir(folder);
	return found;
}

static pid_t wait_for_child_of(pid_t parent)
{
	pid_t pid = 0;

	while (pid == 0)
		pid = child_of(parent);
	return pid;
}

static void end_process(pid_t pid)
{
	cr_assert_gt(pid, 1);
	cr_assert_eq(kill(pid, SIGKILL), 0);
	while (kill(pid, 0) == 0 && child_of(getpid()) == pid) /* our own: until it is gone */
		(void)waitpid(pid, NULL, WNOHANG);
}

Test(bootdisk_reader, a_helper_that_was_killed_is_made_anew, .timeout = 120)
{
	struct bootdisk_reader *reader = NULL;
	pid_t keeper;

	cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* the keeper is our child, then */
	cr_assert_eq(bootdisk_reader_start(&reader, NULL), 0);
	keeper = wait_for_child_of(getpid());
	cr_assert_eq(find(reader), -ENOENT);
	for (uint32_t i = 0; i < READER_RESTARTS_MAX; i++) {
		end_process(wait_for_child_of(keeper));
		cr_assert_eq(find(reader), -ENOENT, "after %u ends", i + 1);
		cr_assert_gt(reads, 0);
	}
	/* More often is no accident: then it is an error, not a hang. */
	end_process(wait_for_child_of(keeper));
	cr_assert_eq(waitpid(keeper, NULL, 0), keeper);
	cr_assert_eq(find(reader), -EIO);
	bootdisk_reader_free(reader);
}

Test(bootdisk_reader, a_helper_without_a_keeper_goes_on_and_ends, .timeout = 120)
{
	struct bootdisk_reader *reader = NULL;
	pid_t keeper;
	pid_t helper;
	int status = 0;

	cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	cr_assert_eq(bootdisk_reader_start(&reader, NULL), 0);
	keeper = wait_for_child_of(getpid());
	helper = wait_for_child_of(keeper);
	end_process(keeper);
	cr_assert_eq(find(reader), -ENOENT);
	bootdisk_reader_free(reader);
	cr_assert_eq(waitpid(helper, &status, 0), helper); /* with its owner */
	cr_assert_eq(status, 0);
}
