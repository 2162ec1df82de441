/* SPDX-License-Identifier: Apache-2.0 */
/* Console: the flow of bytes.  Opening the sinks is in vm_console_open.c. */
#include "agent/vm_console.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "agent/vm_console_priv.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#define ESCAPE 0x01 /* Ctrl-A */

const char *vm_console_kind_name(enum vm_console_kind kind)
{
	static const char *const names[VM_CONSOLE_KINDS] = {
		[VM_CONSOLE_STDIO] = "stdio",
		[VM_CONSOLE_FILE] = "file",
		[VM_CONSOLE_UNIX] = "unix",
		[VM_CONSOLE_NONE] = "none",
	};

	return kind > VM_CONSOLE_INVALID && kind < VM_CONSOLE_KINDS ? names[kind] : "invalid";
}

#define WRITE_MORE 1 /* of write_out(): a ring's worth is out, and there is more */

static void unwatch(struct base_loop_fd **watch)
{
	base_loop_remove(*watch);
	*watch = NULL;
}

/* A client of the socket is gone or replaced; from now on the newest bytes are kept. */
static void drop_client(struct vm_console *console)
{
	if (console->out_watch == console->in_watch)
		console->out_watch = NULL;
	unwatch(&console->in_watch);
	unwatch(&console->out_watch);
	base_closep(&console->client_fd);
	console->out_fd = -1;
	console->in_fd = -1;
	console->out_wanted = false;
	vm_ring_keep_newest(&console->ring, true);
}

/* The sink gave an error: what it was to get is lost.  It is tried again with the next bytes. */
static void sink_failed(struct vm_console *console, int code)
{
	if (console->kind == VM_CONSOLE_UNIX) {
		drop_client(console);
		return;
	}
	if (!console->failure_said)
		base_log(BASE_LOG_WARNING, "console.failed", "sink=%s error=%d why=%s",
			 vm_console_kind_name(console->kind), -code,
			 base_log_str(strerrordesc_np(-code)));
	console->failure_said = true;
	vm_ring_discard(&console->ring);
}

/* Write what is there until the sink would block; 0 all written, -EAGAIN, or an error. */
static int write_out(struct vm_console *console)
{
	size_t written_bytes = 0;

	for (;;) {
		const uint8_t *bytes = NULL;
		size_t size_bytes = vm_ring_span(&console->ring, &bytes);
		ssize_t done = 0;

		if (size_bytes == 0)
			return 0;
		if (console->blocking_out && size_bytes > VM_CONSOLE_BLOCKING_BYTES)
			size_bytes = VM_CONSOLE_BLOCKING_BYTES;
		done = write(console->out_fd, bytes, size_bytes);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		vm_ring_consume(&console->ring, (size_t)done);
		written_bytes += (size_t)done;
		if (written_bytes >= VM_CONSOLE_RING_BYTES)
			return WRITE_MORE; /* a guest that prints without end must not keep the loop
					    */
		if (console->blocking_out)
			return -EAGAIN; /* ask again whether the next piece would block */
	}
}

/* Make the loop watch for what is wanted now; one watch where both ways are one descriptor. */
static void update_watches(struct vm_console *console)
{
	uint32_t in = console->in_stalled ? 0 : EPOLLIN;
	uint32_t out = console->out_wanted ? EPOLLOUT : 0;

	if (console->in_watch != NULL && console->in_watch == console->out_watch) {
		base_loop_modify(console->in_watch, in | out);
		return;
	}
	if (console->in_watch != NULL)
		base_loop_modify(console->in_watch, in);
	if (console->out_watch != NULL)
		base_loop_modify(console->out_watch, out);
}

static void drain_posted(void *context);

static void drain(struct vm_console *console)
{
	int code = 0;
	bool wanted = false;

	if (console->out_fd < 0)
		return; /* nobody is connected: the ring keeps it */
	code = write_out(console);
	wanted = code == -EAGAIN && console->out_watch != NULL;
	if (code < 0 && !wanted)
		sink_failed(console, code);
	if (code == WRITE_MORE && !atomic_exchange(&console->posted, true))
		(void)!base_loop_post(console->loop, drain_posted, console);
	if (wanted != console->out_wanted) {
		console->out_wanted = wanted;
		update_watches(console);
	}
}

static void drain_posted(void *context)
{
	struct vm_console *console = context;

	atomic_store(&console->posted, false);
	drain(console);
}

void vm_console_write(struct vm_console *console, const uint8_t *bytes, size_t size_bytes)
{
	if (console->kind == VM_CONSOLE_NONE)
		return;
	if (!vm_ring_put(&console->ring, bytes, size_bytes) || console->loop == NULL)
		return;
	if (atomic_exchange(&console->posted, true))
		return;
	/* One post at a time, so the loop's queue has room; if not, the end writes it all. */
	(void)!base_loop_post(console->loop, drain_posted, console);
}

/* --- input --- */

/* Offer what waits; reading goes on when all of it was taken. */
static void offer(struct vm_console *console)
{
	size_t taken = 0;

	if (console->input_bytes > 0)
		taken = console->ops->input(console->context, console->input, console->input_bytes);
	base_assert(taken <= console->input_bytes);
	console->input_bytes -= taken;
	memmove(console->input, console->input + taken, console->input_bytes);
	if (console->in_stalled != (console->input_bytes > 0)) {
		console->in_stalled = console->input_bytes > 0;
		update_watches(console);
	}
}

void vm_console_room(struct vm_console *console)
{
	if (console->ops != NULL && console->input_bytes > 0)
		offer(console);
}

/* Bytes typed at a terminal, without the escape sequences; the count kept. */
static size_t take_escapes(struct vm_console *console, uint8_t *bytes, size_t size_bytes)
{
	size_t kept = 0;

	for (size_t i = 0; i < size_bytes; i++) {
		uint8_t byte = bytes[i];

		if (!console->escaped && byte == ESCAPE) {
			console->escaped = true;
			continue;
		}
		if (console->escaped) {
			console->escaped = false;
			if (byte == 'x' || byte == 'X') {
				console->ops->quit(console->context);
				continue;
			}
			if (byte != 'a' && byte != ESCAPE)
				continue; /* no such command */
			byte = ESCAPE;
		}
		bytes[kept++] = byte;
	}
	return kept;
}

static void input_ready(void *context, uint32_t events)
{
	struct vm_console *console = context;
	uint8_t *to = console->input + console->input_bytes;
	size_t room = sizeof(console->input) - console->input_bytes;
	ssize_t got = 0;

	if ((events & EPOLLOUT) != 0)
		drain(console);
	if (console->in_fd < 0 || (events & (uint32_t)~EPOLLOUT) == 0)
		return;
	if (room == 0) {
		/* Nothing can be read now; a hang-up would be reported for ever. */
		if ((events & (EPOLLHUP | EPOLLERR)) != 0)
			got = 0;
		else
			return;
	} else {
		got = read(console->in_fd, to, room);
	}
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (got <= 0) {
		if (console->kind == VM_CONSOLE_UNIX) {
			drop_client(console);
		} else {
			unwatch(&console->in_watch); /* the end of a pipe: output goes on */
			console->in_fd = -1;
		}
		return;
	}
	if (console->is_terminal)
		got = (ssize_t)take_escapes(console, to, (size_t)got);
	console->input_bytes += (size_t)got;
	offer(console);
}

static void output_ready(void *context, uint32_t events)
{
	struct vm_console *console = context;

	drain(console);
	/* Reported for ever by epoll; a later write tells the error. */
	if ((events & (EPOLLERR | EPOLLHUP)) != 0 && console->out_watch != NULL) {
		unwatch(&console->out_watch);
		console->out_wanted = false;
	}
}

/* --- the socket's clients --- */

static void client_ready(void *context, uint32_t events)
{
	static const char taken_over[] = "\r\n[godwit: console taken over by another client]\r\n";
	struct vm_console *console = context;
	int fd = vm_socket_accept(&console->listening);
	struct base_error err = { 0 };

	(void)events;
	if (fd < 0)
		return;
	if (console->client_fd >= 0) {
		(void)!write(console->client_fd, taken_over, sizeof(taken_over) - 1);
		drop_client(console);
	}
	console->client_fd = fd;
	console->in_stalled = console->input_bytes > 0;
	if (base_loop_add(console->loop, fd, console->in_stalled ? 0 : EPOLLIN, input_ready,
			  console, &console->in_watch, &err) < 0) {
		base_log(BASE_LOG_WARNING, "console.failed", "sink=unix why=%s",
			 base_log_str(err.text));
		base_closep(&console->client_fd);
		return;
	}
	console->out_watch = console->in_watch;
	console->in_fd = fd;
	console->out_fd = fd;
	vm_ring_keep_newest(&console->ring, false);
	drain(console);
}

/* A regular file cannot be waited for: epoll says EPERM, and it never blocks for long. */
static int watch_optional(struct vm_console *console, int fd, uint32_t events,
			  void (*ready)(void *context, uint32_t events),
			  struct base_loop_fd **ret_watch, struct base_error *err)
{
	struct base_error own = { 0 };
	int code = base_loop_add(console->loop, fd, events, ready, console, ret_watch, &own);

	if (code == 0 || code == -EPERM)
		return 0;
	return base_fail(err, code, "%s", own.text);
}

int vm_console_begin(struct vm_console *console, struct base_loop *loop,
		     const struct vm_console_ops *ops, void *context, struct base_error *err)
{
	int code = 0;

	console->ops = ops;
	console->context = context;
	console->loop = loop;
	console->begun = true;
	if (console->kind == VM_CONSOLE_UNIX)
		code = base_loop_add(loop, console->listening.fd, EPOLLIN, client_ready, console,
				     &console->listen_watch, err);
	if (code == 0 && console->in_fd >= 0)
		code = watch_optional(console, console->in_fd, EPOLLIN, input_ready,
				      &console->in_watch, err);
	if (code == 0 && console->out_fd >= 0)
		code = watch_optional(console, console->out_fd, 0, output_ready,
				      &console->out_watch, err);
	if (code < 0)
		return base_fail_within(err, code, "console");
	drain(console);
	return 0;
}

void vm_console_finish(struct vm_console *console)
{
	uint64_t deadline_ns =
		base_clock_boot_ns(&base_clock_system) + VM_CONSOLE_FLUSH_MS * BASE_NS_PER_MS;

	while (console->out_fd >= 0) {
		int code = write_out(console);
		uint64_t now_ns = base_clock_boot_ns(&base_clock_system);
		struct pollfd wait = { .fd = console->out_fd, .events = POLLOUT };

		if (code == WRITE_MORE)
			continue;
		if (code != -EAGAIN) {
			if (code < 0)
				sink_failed(console, code);
			return;
		}
		if (now_ns >= deadline_ns)
			return;
		(void)poll(&wait, 1, (int)((deadline_ns - now_ns) / BASE_NS_PER_MS) + 1);
	}
}

int vm_console_directory_fd(const struct vm_console *console)
{
	return console->kind == VM_CONSOLE_UNIX ? console->listening.directory_fd
						: console->directory_fd;
}

void vm_console_status(struct vm_console *console, struct vm_console_status *ret_status)
{
	struct vm_console_status status = { .kind = console->kind,
					    .connected = console->client_fd >= 0 };

	vm_ring_counts(&console->ring, &status.output_bytes, &status.dropped_bytes);
	*ret_status = status;
}
