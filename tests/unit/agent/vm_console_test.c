/* SPDX-License-Identifier: Apache-2.0 */
/* The console's sinks: file, socket, standard descriptors, nowhere. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/vm_console.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/thread.h"

static char directory[] = "/tmp/vm_console_test.XXXXXX";
static struct vm_console_spec spec;
static struct base_loop *loop;
static struct vm_console *console;
static pthread_t thread;
static bool is_looping;

/* The guest: takes at most @appetite bytes in all. */
static char typed[8192];
static size_t typed_bytes;
static size_t appetite = SIZE_MAX;
static int typed_pipe[2]; /* one byte for each call */

static size_t take_input(void *context, const uint8_t *bytes, size_t size_bytes)
{
	size_t taken = size_bytes < appetite ? size_bytes : appetite;

	(void)context;
	appetite -= taken;
	memcpy(typed + typed_bytes, bytes, taken);
	typed_bytes += taken;
	(void)!write(typed_pipe[1], "x", 1);
	return taken;
}

static void take_quit(void *context)
{
	(void)context;
	(void)!write(typed_pipe[1], "q", 1);
}

static const struct vm_console_ops ops = { .input = take_input, .quit = take_quit };

static void setup(void)
{
	cr_assert_not_null(mkdtemp(directory));
	cr_assert_eq(pipe(typed_pipe), 0);
	(void)signal(SIGPIPE, SIG_IGN);
	cr_assert_eq(base_loop_new(&loop, NULL), 0);
	(void)snprintf(spec.path, sizeof(spec.path), "%s/console", directory);
}

static void *run(void *context)
{
	(void)context;
	cr_assert_eq(base_loop_run(loop, NULL), 0);
	return NULL;
}

static void start_loop(void)
{
	cr_assert_eq(vm_console_begin(console, loop, &ops, NULL, NULL), 0);
	cr_assert_eq(base_thread_start(&thread, "loop", run, NULL, NULL), 0);
	is_looping = true;
}

static void stop_loop(void)
{
	if (!is_looping)
		return;
	base_loop_stop(loop);
	base_thread_join(thread);
	is_looping = false;
}

static void teardown(void)
{
	char command[80];

	stop_loop();
	vm_console_free(console);
	base_loop_free(loop);
	(void)snprintf(command, sizeof(command), "rm -rf %s", directory);
	cr_assert_eq(system(command), 0);
}

TestSuite(vm_console, .init = setup, .fini = teardown, .timeout = 60);

static void write_text(const char *text)
{
	vm_console_write(console, (const uint8_t *)text, strlen(text));
}

static void assert_content(const char *expected)
{
	BASE_FREE uint8_t *data = NULL;
	size_t size_bytes = 0;

	cr_assert_eq(base_file_load(spec.path, 1 << 20, &data, &size_bytes, NULL), 0);
	cr_assert_str_eq((const char *)data, expected);
}

Test(vm_console, file_is_appended_to_and_complete)
{
	struct vm_console_status status;

	spec.kind = VM_CONSOLE_FILE;
	cr_assert_eq(vm_console_new(&spec, &console, NULL), 0);
	write_text("before "); /* the guest may print before the loop runs */
	start_loop();
	write_text("during ");
	stop_loop();
	write_text("after");
	vm_console_finish(console);
	vm_console_status(console, &status);
	cr_assert_eq(status.output_bytes, 19);
	cr_assert_eq(status.dropped_bytes, 0);
	vm_console_free(console);
	console = NULL;
	assert_content("before during after");

	cr_assert_eq(vm_console_new(&spec, &console, NULL), 0);
	cr_assert_eq(vm_console_begin(console, loop, &ops, NULL, NULL), 0);
	write_text(" again");
	vm_console_finish(console);
	assert_content("before during after again");
}

Test(vm_console, file_made_in_vain_is_removed)
{
	spec.kind = VM_CONSOLE_FILE;
	cr_assert_eq(vm_console_new(&spec, &console, NULL), 0);
	cr_assert_eq(access(spec.path, F_OK), 0);
	vm_console_free(console);
	console = NULL;
	cr_assert_lt(access(spec.path, F_OK), 0);
}

Test(vm_console, file_that_was_there_stays)
{
	int fd = open(spec.path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	(void)close(fd);
	spec.kind = VM_CONSOLE_FILE;
	cr_assert_eq(vm_console_new(&spec, &console, NULL), 0);
	vm_console_free(console);
	console = NULL;
	cr_assert_eq(access(spec.path, F_OK), 0);
}

Test(vm_console, refused_files)
{
	struct base_error err = { 0 };

	spec.kind = VM_CONSOLE_FILE;
	cr_assert_eq(mkfifo(spec.path, 0600), 0);
	cr_expect_lt(vm_console_new(&spec, &console, &err), 0);
	cr_expect_not_null(strstr(err.text, "console file"));
	(void)unlink(spec.path);
	cr_assert_eq(mkdir(spec.path, 0700), 0);
	cr_expect_eq(vm_console_new(&spec, &console, &err), -EISDIR);
	(void)strcat(spec.path, "/none/file");
	cr_expect_eq(vm_console_new(&spec, &console, &err), -ENOENT);
}

Test(vm_console, a_full_disk_loses_and_says_so)
{
	struct vm_console_status status;

	(void)snprintf(spec.path, sizeof(spec.path), "/dev/full");
	spec.kind = VM_CONSOLE_FILE;
	cr_assert_eq(vm_console_new(&spec, &console, NULL), 0);
	cr_assert_eq(vm_console_begin(console, loop, &ops, NULL, NULL), 0);
	write_text("lost");
	vm_console_finish(console);
	vm_console_status(console, &status);
	cr_assert_geq(status.dropped_bytes, 4);
}

Test(vm_console, none_takes_everything)
{
	struct vm_console_status status;

	spec.kind = VM_CONSOLE_NONE;
	cr_assert_eq(vm_console_new(&spec, &console, NULL), 0);
	cr_assert_eq(vm_console_begin(console, loop, &ops, NULL, NULL), 0);
	write_text("gone");
	vm_console_finish(console);
	vm_console_status(console, &status);
	cr_assert_eq(status.dropped_bytes, 0);
}

static int dial(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, spec.path, strlen(spec.path) + 1);
	cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void assert_hears(int fd, const char *expected)
{
	char text[256] = "";

	cr_assert_eq(base_read_all(fd, text, strlen(expected)), 0);
	cr_assert_str_eq(text, expected);
}

static void wait_for(char what)
{
	char got = 0;

	cr_assert_eq(read(typed_pipe[0], &got, 1), 1);
	cr_assert_eq(got, what);
}

Test(vm_console, socket_keeps_for_the_next_client)
{
	spec.kind = VM_CONSOLE_UNIX;
	cr_assert_eq(vm_console_new(&spec, &console, NULL), 0);
	start_loop();
	write_text("early ");
	{
		BASE_CLOSE int fd = dial();

		assert_hears(fd, "early ");
		write_text("live");
		assert_hears(fd, "live");
		cr_assert_eq(write(fd, "ls\n", 3), 3);
		wait_for('x');
		cr_assert_eq(memcmp(typed, "ls\n", 3), 0);
	}
	write_text(" between");
	{
		BASE_CLOSE int fd = dial();
		char text[16] = "";

		/* The end of the first client and the output meet in any order: what was
		 * written into its socket is gone, the rest is kept. */
		write_text("!");
		do
			cr_assert_eq(base_read_all(fd, text, 1), 0);
		while (text[0] != '!');
	}
}

Test(vm_console, later_client_takes_over)
{
	BASE_CLOSE int first = -1;
	BASE_CLOSE int second = -1;

	spec.kind = VM_CONSOLE_UNIX;
	cr_assert_eq(vm_console_new(&spec, &console, NULL), 0);
	start_loop();
	write_text("a");
	first = dial();
	assert_hears(first, "a");
	second = dial();
	assert_hears(first, "\r\n[godwit: console taken over by another client]\r\n");
	write_text("b");
	assert_hears(second, "b");
	cr_assert_eq(read(first, typed, 1), 0);
}

static void give_room(void *context)
{
	(void)context;
	appetite = SIZE_MAX;
	vm_console_room(console);
}

Test(vm_console, a_guest_that_takes_no_input_gets_it_later)
{
	BASE_CLOSE int fd = -1;

	spec.kind = VM_CONSOLE_UNIX;
	appetite = 2;
	cr_assert_eq(vm_console_new(&spec, &console, NULL), 0);
	start_loop();
	fd = dial();
	cr_assert_eq(write(fd, "abcdef", 6), 6);
	wait_for('x');
	write_text("out"); /* output goes on while input rests */
	assert_hears(fd, "out");
	cr_assert_eq(base_loop_post(loop, give_room, NULL), 0);
	wait_for('x');
	cr_assert_eq(write(fd, "gh", 2), 2);
	wait_for('x');
	stop_loop();
	cr_assert_eq(typed_bytes, 8);
	cr_assert_eq(memcmp(typed, "abcdefgh", 8), 0);
}

/* Standard output and input become pipes for the time of this test's process. */
Test(vm_console, stdio_on_pipes)
{
	int in[2];
	int out[2];

	cr_assert_eq(pipe(in), 0);
	cr_assert_eq(pipe(out), 0);
	cr_assert_eq(dup2(in[0], STDIN_FILENO), STDIN_FILENO);
	cr_assert_eq(dup2(out[1], STDOUT_FILENO), STDOUT_FILENO);
	spec.kind = VM_CONSOLE_STDIO;
	cr_assert_eq(vm_console_new(&spec, &console, NULL), 0);
	start_loop();
	write_text("hello");
	assert_hears(out[0], "hello");
	cr_assert_eq(fcntl(STDOUT_FILENO, F_GETFL) & O_NONBLOCK, 0); /* others share it */
	cr_assert_eq(write(in[1], "\x01x", 2), 2);                   /* no terminal: no escapes */
	wait_for('x');
	cr_assert_eq(memcmp(typed, "\x01x", 2), 0);
	(void)close(in[1]);
	write_text("still there");
	assert_hears(out[0], "still there");
}

Test(vm_console, stdio_on_a_terminal)
{
	BASE_CLOSE int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	BASE_CLOSE int terminal = -1;

	cr_assert_geq(master, 0);
	cr_assert_eq(grantpt(master), 0);
	cr_assert_eq(unlockpt(master), 0);
	terminal = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	cr_assert_geq(terminal, 0);
	cr_assert_eq(dup2(terminal, STDIN_FILENO), STDIN_FILENO);
	cr_assert_eq(dup2(terminal, STDOUT_FILENO), STDOUT_FILENO);

	spec.kind = VM_CONSOLE_STDIO;
	cr_assert_eq(vm_console_new(&spec, &console, NULL), 0);
	start_loop();
	write_text("hello");
	assert_hears(master, "hello");
	cr_assert_eq(write(master, "a\x01\x01z\x03", 5), 5); /* Ctrl-C goes to the guest */
	wait_for('x');
	while (typed_bytes < 4)
		wait_for('x');
	cr_assert_eq(memcmp(typed, "a\x01z\x03", 4), 0);
	cr_assert_eq(write(master, "\x01x", 2), 2);
	wait_for('q');
}
