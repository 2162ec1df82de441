/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket. */
#include "agent/vm_control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "agent/vm_socket.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/log.h"

struct client {
	struct vm_control *control;
	uint32_t slot;
	uint64_t generation; /* raised with each client of this slot */
	int fd;              /* -1: free */
	struct base_loop_fd *watch;
	bool subscribed;
	bool closing;         /* the client has closed its side: answers still go out */
	bool doomed;          /* to be dropped as soon as nobody works on it */
	bool busy;            /* its lines are being worked on: not to be dropped under them */
	uint32_t later_count; /* answers that are still to come */
	size_t line_bytes;
	struct base_buffer out;
	size_t out_sent; /* of out */
	char line[VM_CONTROL_LINE_BYTES_MAX];
};

struct vm_control {
	struct vm_socket listening;
	struct base_loop *loop;
	struct base_loop_fd *watch;
	const struct vm_command *commands;
	size_t command_count;
	void *context;
	void (*gone)(void *context, const struct vm_call *call); /* may be NULL */
	struct vm_command_spec specs[VM_CONTROL_COMMANDS_MAX];
	struct client clients[VM_CONTROL_CLIENTS_MAX];
};

BASE_DEFINE_FREEP(struct vm_control, vm_control_free);

static void client_drop(struct client *client)
{
	const struct vm_control *control = client->control;
	const struct vm_call call = { .client = client->slot, .generation = client->generation };
	bool waited = client->later_count > 0;

	base_loop_remove(client->watch);
	client->watch = NULL;
	base_closep(&client->fd);
	base_buffer_fini(&client->out);
	client->out = (struct base_buffer){ 0 };
	client->out_sent = 0;
	client->line_bytes = 0;
	client->subscribed = false;
	client->closing = false;
	client->doomed = false;
	client->later_count = 0;
	client->generation++;
	if (waited && control->gone != NULL)
		control->gone(control->context, &call);
}

/* Send what waits, as far as it goes. */
static void client_flush(struct client *client)
{
	while (client->out_sent < client->out.size_bytes) {
		ssize_t done = write(client->fd, client->out.data + client->out_sent,
				     client->out.size_bytes - client->out_sent);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && errno == EAGAIN)
			return;
		if (done < 0) {
			client->doomed = true;
			return;
		}
		client->out_sent += (size_t)done;
	}
	base_buffer_fini(&client->out);
	client->out = (struct base_buffer){ 0 };
	client->out_sent = 0;
}

static void client_watch(struct client *client)
{
	bool waiting = client->out.size_bytes > 0;

	base_loop_modify(client->watch,
			 (client->closing ? 0 : EPOLLIN) | (waiting ? (uint32_t)EPOLLOUT : 0));
}

/* Queue a line, which is freed here; NULL is lack of memory and ends the client. */
static void client_send(struct client *client, char *line)
{
	BASE_FREE char *owned = line;
	size_t waiting = client->out.size_bytes - client->out_sent;

	if (client->doomed)
		return;
	if (owned == NULL || strlen(owned) > VM_CONTROL_BACKLOG_BYTES_MAX - waiting) {
		base_log(BASE_LOG_WARNING, "control.slow-client",
			 "client=%" PRIu32 " waiting_bytes=%zu", client->slot, waiting);
		client->doomed = true;
		return;
	}
	base_buffer_append(&client->out, owned, strlen(owned));
	if (client->out.failed) {
		client->doomed = true;
		return;
	}
	client_flush(client);
}

/* After work on a client, by whoever called in: drop it, or watch for what it needs. */
static void client_settle(struct client *client)
{
	bool idle = client->out.size_bytes == 0 && client->later_count == 0 && !client->subscribed;

	if (client->fd < 0 || client->busy)
		return;
	if (client->doomed || (client->closing && idle))
		client_drop(client);
	else
		client_watch(client);
}

static struct client *client_of(struct vm_control *control, const struct vm_call *call)
{
	struct client *client = &control->clients[call->client];

	return client->fd >= 0 && client->generation == call->generation ? client : NULL;
}

static void client_line(struct client *client, const char *line, size_t size_bytes)
{
	struct vm_control *control = client->control;
	struct vm_request request;
	struct base_error err = { 0 };
	json_t *result = NULL;
	struct vm_call call = { .client = client->slot, .generation = client->generation };
	int code = vm_request_decode(control->specs, control->command_count, line, size_bytes,
				     &request, &err);

	call.id = request.id;
	if (code == 0)
		code = control->commands[request.command].handle(control->context, &call, &request,
								 &result, &err);
	if (code == VM_CALL_LATER) {
		client->later_count++;
		return;
	}
	if (code == 0) {
		client_send(client, vm_answer_encode(true, request.id, result));
		return;
	}
	if (err.code == 0)
		(void)base_fail_errno(&err, code, "command");
	client_send(client, vm_refusal_encode(request.has_id, request.id, &err));
}

/* Run all whole lines of the buffer; the rest moves to its front. */
static void client_lines(struct client *client)
{
	size_t begin = 0;

	while (!client->doomed) {
		const char *start = client->line + begin;
		const char *end = memchr(start, '\n', client->line_bytes - begin);

		if (end == NULL)
			break;
		if (end > start)
			client_line(client, start, (size_t)(end - start));
		begin += (size_t)(end - start) + 1;
	}
	client->line_bytes -= begin;
	memmove(client->line, client->line + begin, client->line_bytes);
}

static void client_read(struct client *client)
{
	size_t room = sizeof(client->line) - client->line_bytes;
	ssize_t got = read(client->fd, client->line + client->line_bytes, room);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		client->closing = got == 0;
		client->doomed = got < 0;
		return;
	}
	client->line_bytes += (size_t)got;
	client_lines(client);
	if (client->line_bytes == sizeof(client->line)) {
		struct base_error err = { 0 };

		(void)base_fail(&err, -EBADMSG, "line: expected at most %u bytes",
				VM_CONTROL_LINE_BYTES_MAX - 1);
		client_send(client, vm_refusal_encode(false, 0, &err));
		client->doomed = true; /* where the next line begins is not known */
	}
}

static void client_ready(void *context, uint32_t events)
{
	struct client *client = context;

	client->busy = true;
	if ((events & EPOLLOUT) != 0)
		client_flush(client);
	if ((events & EPOLLIN) != 0)
		client_read(client);
	else if ((events & (EPOLLHUP | EPOLLERR)) != 0)
		client->doomed = true;
	client->busy = false;
	client_settle(client);
}

static void refuse_client(int fd)
{
	BASE_FREE char *line = NULL;
	struct base_error err = { 0 };

	(void)base_fail(&err, -EAGAIN, "control socket: %u clients: expected fewer",
			VM_CONTROL_CLIENTS_MAX);
	line = vm_refusal_encode(false, 0, &err);
	if (line != NULL)
		(void)!write(fd, line, strlen(line));
}

static void listening_ready(void *context, uint32_t events)
{
	struct vm_control *control = context;
	BASE_CLOSE int fd = vm_socket_accept(&control->listening);

	(void)events;
	for (uint32_t i = 0; fd >= 0 && i < VM_CONTROL_CLIENTS_MAX; i++) {
		struct client *client = &control->clients[i];

		if (client->fd >= 0)
			continue;
		if (base_loop_add(control->loop, fd, EPOLLIN, client_ready, client, &client->watch,
				  NULL) == 0)
			client->fd = base_take_fd(&fd);
		return;
	}
	if (fd >= 0)
		refuse_client(fd);
}

int vm_control_new(const char *path, const struct vm_command *commands, size_t command_count,
		   void *context, struct vm_control **ret_control, struct base_error *err)
{
	BASE_CLEANUP(vm_control_freep) struct vm_control *control = NULL;
	int code = 0;

	base_assert(command_count > 0 && command_count <= VM_CONTROL_COMMANDS_MAX);
	control = calloc(1, sizeof(*control));
	if (control == NULL)
		return base_fail(err, -ENOMEM, "control socket: no memory");
	control->listening = VM_SOCKET_NONE;
	control->commands = commands;
	control->command_count = command_count;
	control->context = context;
	for (size_t i = 0; i < command_count; i++)
		control->specs[i] = commands[i].spec;
	for (uint32_t i = 0; i < VM_CONTROL_CLIENTS_MAX; i++) {
		control->clients[i].control = control;
		control->clients[i].slot = i;
		control->clients[i].fd = -1;
	}
	code = vm_socket_open(path, "control socket", &control->listening, err);
	if (code < 0)
		return code;
	*ret_control = base_take(&control);
	return 0;
}

void vm_control_free(struct vm_control *control)
{
	if (control == NULL)
		return;
	control->gone = NULL;
	for (uint32_t i = 0; i < VM_CONTROL_CLIENTS_MAX; i++) {
		if (control->clients[i].fd < 0)
			continue;
		client_flush(&control->clients[i]);
		client_drop(&control->clients[i]);
	}
	base_loop_remove(control->watch);
	vm_socket_close(&control->listening);
	free(control);
}

int vm_control_begin(struct vm_control *control, struct base_loop *loop, struct base_error *err)
{
	control->loop = loop;
	return base_loop_add(loop, control->listening.fd, EPOLLIN, listening_ready, control,
			     &control->watch, err);
}

void vm_control_on_gone(struct vm_control *control,
			void (*gone)(void *context, const struct vm_call *call))
{
	control->gone = gone;
}

void vm_control_answer(struct vm_control *control, const struct vm_call *call, json_t *result)
{
	struct client *client = client_of(control, call);

	if (client == NULL) {
		json_decref(result);
		return;
	}
	client->later_count--;
	client_send(client, vm_answer_encode(true, call->id, result));
	client_settle(client);
}

void vm_control_refuse(struct vm_control *control, const struct vm_call *call,
		       const struct base_error *err)
{
	struct client *client = client_of(control, call);

	if (client == NULL)
		return;
	client->later_count--;
	client_send(client, vm_refusal_encode(true, call->id, err));
	client_settle(client);
}

void vm_control_subscribe(struct vm_control *control, const struct vm_call *call)
{
	struct client *client = client_of(control, call);

	if (client != NULL)
		client->subscribed = true;
}

void vm_control_event(struct vm_control *control, const char *event, json_t *fields)
{
	BASE_FREE char *line = vm_event_encode(event, fields);

	for (uint32_t i = 0; line != NULL && i < VM_CONTROL_CLIENTS_MAX; i++) {
		struct client *client = &control->clients[i];

		if (client->fd < 0 || !client->subscribed)
			continue;
		client_send(client, strdup(line));
		client_settle(client);
	}
}

int vm_control_directory_fd(const struct vm_control *control)
{
	return control->listening.directory_fd;
}
