/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket with a table of its own: answers now and later, events, bad clients. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/vm_control.h"
#include "agent/vm_socket.h"
#include "base/cleanup.h"
#include "base/thread.h"

static char directory[] = "/tmp/vm_control_test.XXXXXX";
static char path[64];
static struct base_loop *loop;
static struct vm_control *control;
static pthread_t thread;
static struct vm_call kept;
static atomic_uint gone_count;
static struct vm_call gone_call;

static void on_gone(void *context, const struct vm_call *call)
{
	(void)context;
	gone_call = *call;
	atomic_fetch_add(&gone_count, 1);
}

static int handle_echo(void *context, const struct vm_call *call, const struct vm_request *request,
		       json_t **ret_result, struct base_error *err)
{
	(void)context;
	(void)call;
	(void)err;
	*ret_result = json_pack("{s:s}", "text", request->args[0].text);
	return 0;
}

static int handle_fail(void *context, const struct vm_call *call, const struct vm_request *request,
		       json_t **ret_result, struct base_error *err)
{
	(void)context;
	(void)call;
	(void)request;
	(void)ret_result;
	return base_fail(err, -EPROTO, "not now");
}

static int handle_later(void *context, const struct vm_call *call, const struct vm_request *request,
			json_t **ret_result, struct base_error *err)
{
	(void)context;
	(void)request;
	(void)ret_result;
	(void)err;
	kept = *call;
	return VM_CALL_LATER;
}

static int handle_answer_kept(void *context, const struct vm_call *call,
			      const struct vm_request *request, json_t **ret_result,
			      struct base_error *err)
{
	(void)context;
	(void)call;
	(void)request;
	(void)ret_result;
	(void)err;
	vm_control_answer(control, &kept, NULL);
	return 0;
}

static int handle_subscribe(void *context, const struct vm_call *call,
			    const struct vm_request *request, json_t **ret_result,
			    struct base_error *err)
{
	(void)context;
	(void)request;
	(void)ret_result;
	(void)err;
	vm_control_subscribe(control, call);
	return 0;
}

static int handle_shout(void *context, const struct vm_call *call, const struct vm_request *request,
			json_t **ret_result, struct base_error *err)
{
	(void)context;
	(void)call;
	(void)ret_result;
	(void)err;
	vm_control_event(control, "shout", json_pack("{s:s}", "text", request->args[0].text));
	return 0;
}

static const struct vm_command commands[] = {
	{ { "echo", { { "text", VM_ARG_BYTES, true } } }, handle_echo },
	{ { "fail", { { NULL, VM_ARG_INVALID, false } } }, handle_fail },
	{ { "later", { { NULL, VM_ARG_INVALID, false } } }, handle_later },
	{ { "answer-kept", { { NULL, VM_ARG_INVALID, false } } }, handle_answer_kept },
	{ { "subscribe", { { NULL, VM_ARG_INVALID, false } } }, handle_subscribe },
	{ { "shout", { { "text", VM_ARG_BYTES, true } } }, handle_shout },
};

static void *run(void *context)
{
	(void)context;
	cr_assert_eq(base_loop_run(loop, NULL), 0);
	return NULL;
}

static void setup(void)
{
	cr_assert_not_null(mkdtemp(directory));
	(void)snprintf(path, sizeof(path), "%s/ctl", directory);
	(void)signal(SIGPIPE, SIG_IGN);
	cr_assert_eq(base_loop_new(&loop, NULL), 0);
	cr_assert_eq(vm_control_new(path, commands, sizeof(commands) / sizeof(commands[0]), NULL,
				    &control, NULL),
		     0);
	vm_control_on_gone(control, on_gone);
	cr_assert_eq(vm_control_begin(control, loop, NULL), 0);
	cr_assert_eq(base_thread_start(&thread, "loop", run, NULL, NULL), 0);
}

static void teardown(void)
{
	base_loop_stop(loop);
	base_thread_join(thread);
	vm_control_free(control);
	base_loop_free(loop);
	cr_expect_eq(rmdir(directory), 0, "something was left behind");
}

TestSuite(vm_control, .init = setup, .fini = teardown, .timeout = 60);

static int dial(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* The next line of @fd, without newline; "" at the end of the stream. */
static const char *hear(int fd)
{
	static char line[4096];
	size_t used = 0;

	while (used < sizeof(line) - 1 && read(fd, line + used, 1) == 1 && line[used] != '\n')
		used++;
	line[used] = '\0';
	return line;
}

Test(vm_control, answers_and_refuses)
{
	BASE_CLOSE int fd = dial();
	struct stat status;

	cr_assert_eq(stat(path, &status), 0);
	cr_assert_eq(status.st_mode & 0777, 0600);
	say(fd,
	    "{\"id\":1,\"cmd\":\"echo\",\"text\":\"hi\"}\n\n{\"id\":2,\"cmd\":\"fail\"}\nnoise\n");
	cr_assert_str_eq(hear(fd), "{\"id\":1,\"ok\":true,\"result\":{\"text\":\"hi\"}}");
	cr_assert_str_eq(hear(fd), "{\"id\":2,\"ok\":false,\"error\":{\"code\":\"EPROTO\",\"text\":"
				   "\"not now\"}}");
	cr_assert_eq(strncmp(hear(fd), "{\"id\":null,\"ok\":false", 21), 0);
}

Test(vm_control, a_line_in_pieces)
{
	BASE_CLOSE int fd = dial();

	say(fd, "{\"id\":1,\"cmd\":");
	say(fd, "\"echo\",\"text\":\"x\"}");
	say(fd, "\n");
	cr_assert_str_eq(hear(fd), "{\"id\":1,\"ok\":true,\"result\":{\"text\":\"x\"}}");
}

Test(vm_control, later_answer_also_after_half_close)
{
	BASE_CLOSE int fd = dial();
	BASE_CLOSE int other = dial();

	say(fd, "{\"id\":5,\"cmd\":\"later\"}\n{\"id\":6,\"cmd\":\"fail\"}\n");
	cr_assert_eq(strncmp(hear(fd), "{\"id\":6", 7), 0);
	cr_assert_eq(shutdown(fd, SHUT_WR), 0);
	say(other, "{\"id\":1,\"cmd\":\"answer-kept\"}\n");
	cr_assert_eq(strncmp(hear(other), "{\"id\":1,\"ok\":true", 17), 0);
	cr_assert_str_eq(hear(fd), "{\"id\":5,\"ok\":true,\"result\":{}}");
	cr_assert_str_eq(hear(fd), ""); /* nothing more to come: closed */
	cr_assert_eq(atomic_load(&gone_count), 0);
}

Test(vm_control, later_answer_to_a_client_that_is_gone)
{
	int fd = dial();
	BASE_CLOSE int other = dial();

	say(fd, "{\"id\":5,\"cmd\":\"later\"}\n{\"id\":6,\"cmd\":\"fail\"}\n");
	cr_assert_eq(strncmp(hear(fd), "{\"id\":6", 7), 0);
	(void)close(fd);
	while (atomic_load(&gone_count) == 0) { /* the loop turns with each line */
		say(other, "{\"id\":1,\"cmd\":\"fail\"}\n");
		(void)hear(other);
	}
	cr_assert_eq(gone_call.client, kept.client);
	cr_assert_eq(gone_call.generation, kept.generation);
	say(other, "{\"id\":1,\"cmd\":\"fail\"}\n{\"id\":2,\"cmd\":\"answer-kept\"}\n");
	(void)hear(other);
	cr_assert_eq(strncmp(hear(other), "{\"id\":2,\"ok\":true", 17), 0);
}

Test(vm_control, events_go_to_subscribers_only)
{
	BASE_CLOSE int first = dial();
	BASE_CLOSE int second = dial();

	say(first, "{\"id\":1,\"cmd\":\"subscribe\"}\n");
	(void)hear(first);
	say(second, "{\"id\":1,\"cmd\":\"shout\",\"text\":\"a\"}\n");
	cr_assert_str_eq(hear(second), "{\"id\":1,\"ok\":true,\"result\":{}}");
	cr_assert_str_eq(hear(first), "{\"event\":\"shout\",\"text\":\"a\"}");
	/* A subscriber that causes an event itself gets both lines. */
	say(first, "{\"id\":2,\"cmd\":\"shout\",\"text\":\"b\"}\n");
	cr_assert_str_eq(hear(first), "{\"event\":\"shout\",\"text\":\"b\"}");
	cr_assert_str_eq(hear(first), "{\"id\":2,\"ok\":true,\"result\":{}}");
}

Test(vm_control, too_long_a_line_ends_the_client)
{
	BASE_CLOSE int fd = dial();
	static char noise[VM_CONTROL_LINE_BYTES_MAX];

	memset(noise, 'x', sizeof(noise));
	cr_assert_eq(write(fd, noise, sizeof(noise)), (ssize_t)sizeof(noise));
	cr_assert_not_null(strstr(hear(fd), "EBADMSG"));
	cr_assert_str_eq(hear(fd), "");
}

Test(vm_control, too_many_clients)
{
	int fds[VM_CONTROL_CLIENTS_MAX];

	for (size_t i = 0; i < VM_CONTROL_CLIENTS_MAX; i++) {
		fds[i] = dial();
		say(fds[i], "{\"id\":1,\"cmd\":\"fail\"}\n");
		(void)hear(fds[i]);
	}
	{
		BASE_CLOSE int fd = dial();

		cr_assert_not_null(strstr(hear(fd), "EAGAIN"));
		cr_assert_str_eq(hear(fd), "");
	}
	for (size_t i = 0; i < VM_CONTROL_CLIENTS_MAX; i++)
		(void)close(fds[i]);
}

Test(vm_control, a_client_that_does_not_read_is_dropped)
{
	static const char line[] = "{\"id\":1,\"cmd\":\"echo\",\"text\":\"0123456789012345678901234"
				   "56789012345678901234567890123456789012345678901234567890123456"
				   "78901234567890123456789\"}\n";
	BASE_CLOSE int fd = dial();
	bool dropped = false;

	for (int i = 0; i < 100000 && !dropped; i++)
		dropped = send(fd, line, sizeof(line) - 1, MSG_NOSIGNAL) < 0;
	cr_assert(dropped);
	{
		BASE_CLOSE int other = dial();

		say(other, "{\"id\":1,\"cmd\":\"fail\"}\n");
		cr_assert_eq(strncmp(hear(other), "{\"id\":1", 7), 0);
	}
}

/* --- the listening socket itself --- */

Test(vm_control, a_living_owner_is_named)
{
	struct vm_socket second = VM_SOCKET_NONE;
	struct base_error err = { 0 };
	char owner[32];

	cr_assert_eq(vm_socket_open(path, "control socket", &second, &err), -EBUSY);
	(void)snprintf(owner, sizeof(owner), "process %d uses it", (int)getpid());
	cr_assert_not_null(strstr(err.text, owner), "%s", err.text);
}

Test(vm_control, a_dead_owner_is_replaced)
{
	struct vm_socket listening = VM_SOCKET_NONE;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	BASE_CLOSE int dead = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	BASE_CLOSE int lock = -1;

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/dead", directory);
	cr_assert_eq(bind(dead, (const struct sockaddr *)&address, sizeof(address)), 0);
	{
		char lock_path[128];

		(void)snprintf(lock_path, sizeof(lock_path), "%s/dead.lock", directory);
		lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	}
	cr_assert_eq(vm_socket_open(address.sun_path, "control socket", &listening, NULL), 0);
	vm_socket_close(&listening);
	cr_assert_lt(access(address.sun_path, F_OK), 0);
}

Test(vm_control, refused_paths)
{
	struct vm_socket listening = VM_SOCKET_NONE;
	struct base_error err = { 0 };
	char other[128];
	char lock_path[160];
	BASE_CLOSE int file = -1;

	(void)snprintf(other, sizeof(other), "%s/file", directory);
	file = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cr_expect_eq(vm_socket_open(other, "control socket", &listening, &err), -EEXIST);
	cr_expect_eq(access(other, F_OK), 0);
	(void)snprintf(lock_path, sizeof(lock_path), "%s.lock", other);
	cr_expect_lt(access(lock_path, F_OK), 0);
	(void)unlink(other);
	cr_expect_eq(vm_socket_open("/does/not/exist/x", "control socket", &listening, &err),
		     -ENOENT);
	cr_expect_eq(vm_socket_open("/tmp/", "control socket", &listening, &err), -EINVAL);
	cr_expect_eq(vm_socket_open("..", "control socket", &listening, &err), -EINVAL);
	memset(other, 'a', sizeof(other) - 1);
	other[sizeof(other) - 1] = '\0';
	cr_expect_eq(vm_socket_open(other, "control socket", &listening, &err), -EINVAL);
}
