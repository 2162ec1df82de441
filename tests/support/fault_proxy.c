/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fault_proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/thread.h"
#include "migrate/mig_wire.h"

#define PIPE_BYTES  (64u << 10)
#define TYPE_OFFSET 4u /* in a frame */
#define BODY_OFFSET 8u
#define NO_PLACE    UINT64_MAX
#define NEAR        0
#define FAR         1

struct armed {
	struct fault_rule rule;
	uint64_t place_bytes; /* in the stream; NO_PLACE: its frame has not come */
	uint32_t seen;        /* frames of the type */
	bool over;
};

/* One way.  Offsets count from the stream's beginning. */
struct pipe {
	uint8_t bytes[PIPE_BYTES]; /* read and not forwarded, from the beginning */
	size_t size_bytes;
	uint64_t forwarded;
	bool source_ended; /* nothing more comes */
	bool over;         /* and nothing more goes */
	bool held;
	bool full; /* the receiver's socket takes no more now */

	/* Frames, as far as bytes were read. */
	uint64_t frame_at;
	uint64_t body_left;
	size_t header_size;
	uint8_t header[MIG_FRAME_BYTES];
};

struct fault_proxy {
	pthread_t thread;
	int wake_fd;

	pthread_mutex_t lock; /* all below */
	pthread_cond_t moved;
	int fds[2];
	struct pipe pipes[FAULT_WAYS];
	struct armed rules[FAULT_RULES_MAX];
	uint32_t rule_count;
	uint32_t hit_count;
	bool stop;
};

static int from_fd(const struct fault_proxy *proxy, int way)
{
	return proxy->fds[way == FAULT_FORTH ? NEAR : FAR];
}

static int to_fd(const struct fault_proxy *proxy, int way)
{
	return proxy->fds[way == FAULT_FORTH ? FAR : NEAR];
}

static void wake(const struct fault_proxy *proxy)
{
	uint64_t one = 1;

	if (write(proxy->wake_fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
		base_bug("fault proxy: wake");
}

/* --- effects; the lock is held --- */

static void cut(struct fault_proxy *proxy)
{
	for (int way = 0; way < FAULT_WAYS; way++) {
		proxy->pipes[way].source_ended = true;
		proxy->pipes[way].over = true;
		proxy->pipes[way].size_bytes = 0;
	}
	for (int side = NEAR; side <= FAR; side++) {
		if (proxy->fds[side] < 0)
			continue;
		(void)shutdown(proxy->fds[side], SHUT_RDWR);
		(void)close(proxy->fds[side]);
		proxy->fds[side] = -1;
	}
}

/* Nothing more goes this way: the receiver reads an end, a sender is told where that can be. */
static void end_way(struct fault_proxy *proxy, int way)
{
	struct pipe *pipe = &proxy->pipes[way];

	pipe->source_ended = true;
	pipe->over = true;
	pipe->size_bytes = 0;
	(void)shutdown(to_fd(proxy, way), SHUT_WR);
	(void)shutdown(from_fd(proxy, way), SHUT_RD);
}

static void hit(struct fault_proxy *proxy, struct armed *armed)
{
	int way = (int)armed->rule.way;
	struct pipe *pipe = &proxy->pipes[way];

	armed->over = true;
	proxy->hit_count++;
	switch (armed->rule.action) {
	case FAULT_CUT:
		cut(proxy);
		break;
	case FAULT_HOLD:
		pipe->held = true;
		if (armed->rule.both_ways)
			proxy->pipes[1 - way].held = true;
		break;
	case FAULT_SHUT:
		end_way(proxy, way);
		break;
	case FAULT_FLIP: /* the next one to go, which is there */
		pipe->bytes[0] ^= (uint8_t)(1u << armed->rule.bit);
		break;
	case FAULT_NONE:
	case FAULT_ACTIONS:
	default:
		base_bug("fault %d", (int)armed->rule.action);
	}
}

/* --- frames --- */

/* The header at frame_at is whole: which rules have their place now? */
static void frame_begins(struct fault_proxy *proxy, int way)
{
	struct pipe *pipe = &proxy->pipes[way];
	uint32_t type = base_get_le16(pipe->header + TYPE_OFFSET);
	uint64_t end = MIG_FRAME_BYTES + (uint64_t)base_get_le32(pipe->header + BODY_OFFSET);

	for (uint32_t i = 0; i < proxy->rule_count; i++) {
		struct armed *armed = &proxy->rules[i];
		uint64_t at = armed->rule.at_bytes;

		if (armed->over || armed->place_bytes != NO_PLACE || (int)armed->rule.way != way ||
		    armed->rule.type != type || armed->seen++ < armed->rule.skip)
			continue;
		if (armed->rule.action == FAULT_FLIP && at >= end)
			at = end - 1;
		armed->place_bytes = pipe->frame_at + (at < end ? at : end);
	}
	pipe->body_left = end - MIG_FRAME_BYTES;
}

static void scan(struct fault_proxy *proxy, int way, const uint8_t *bytes, size_t size_bytes)
{
	struct pipe *pipe = &proxy->pipes[way];
	uint64_t at = pipe->forwarded + (uint64_t)(bytes - pipe->bytes);

	for (size_t i = 0; i < size_bytes;) {
		if (pipe->body_left > 0) {
			size_t part = size_bytes - i < pipe->body_left ? size_bytes - i
								       : (size_t)pipe->body_left;

			pipe->body_left -= part;
			i += part;
			continue;
		}
		if (pipe->header_size == 0)
			pipe->frame_at = at + i;
		pipe->header[pipe->header_size++] = bytes[i++];
		if (pipe->header_size == MIG_FRAME_BYTES) {
			pipe->header_size = 0;
			frame_begins(proxy, way);
		}
	}
}

/* How many bytes may go before the next rule; a frame whose type is not known waits for it. */
static uint64_t room_before_rules(struct fault_proxy *proxy, int way, struct armed **ret_next)
{
	struct pipe *pipe = &proxy->pipes[way];
	uint64_t room = NO_PLACE;

	*ret_next = NULL;
	for (uint32_t i = 0; i < proxy->rule_count; i++) {
		struct armed *armed = &proxy->rules[i];
		uint64_t place = armed->place_bytes;

		if (armed->over || (int)armed->rule.way != way)
			continue;
		if (place == NO_PLACE && pipe->header_size > 0 && !pipe->source_ended) {
			uint64_t before = pipe->frame_at - pipe->forwarded;

			room = before < room ? before : room;
		} else if (place != NO_PLACE && place >= pipe->forwarded &&
			   (place - pipe->forwarded < room ||
			    (*ret_next == NULL && place - pipe->forwarded == room))) {
			room = place - pipe->forwarded;
			*ret_next = armed;
		}
	}
	return room;
}

/* --- forwarding; the lock is held --- */

static bool is_broken(ssize_t result)
{
	return result < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
}

static bool take_in(struct fault_proxy *proxy, int way)
{
	struct pipe *pipe = &proxy->pipes[way];
	uint8_t *to = pipe->bytes + pipe->size_bytes;
	ssize_t got = 0;

	if (pipe->source_ended || pipe->held || pipe->size_bytes == PIPE_BYTES)
		return false;
	got = recv(from_fd(proxy, way), to, PIPE_BYTES - pipe->size_bytes, MSG_DONTWAIT);
	if (got == 0 || is_broken(got)) {
		pipe->source_ended = true;
		return true;
	}
	if (got < 0)
		return false;
	scan(proxy, way, to, (size_t)got);
	pipe->size_bytes += (size_t)got;
	return true;
}

/* What may go, and the rules on the way. */
static bool give_out(struct fault_proxy *proxy, int way)
{
	struct pipe *pipe = &proxy->pipes[way];
	struct armed *next = NULL;
	uint64_t room = 0;
	size_t size = 0;
	ssize_t sent = 0;

	if (pipe->over || pipe->held)
		return false;
	room = room_before_rules(proxy, way, &next);
	if (room == 0 && next != NULL &&
	    (next->rule.action != FAULT_FLIP || pipe->size_bytes > 0)) {
		hit(proxy, next);
		return true;
	}
	size = pipe->size_bytes < room ? pipe->size_bytes : (size_t)room;
	if (size == 0) {
		if (!pipe->source_ended || pipe->size_bytes > 0)
			return false;
		end_way(proxy, way);
		return true;
	}
	sent = send(to_fd(proxy, way), pipe->bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (is_broken(sent)) {
		end_way(proxy, way);
		return true;
	}
	pipe->full = sent < 0;
	if (sent < 0)
		return false;
	pipe->forwarded += (uint64_t)sent;
	pipe->size_bytes -= (size_t)sent;
	memmove(pipe->bytes, pipe->bytes + sent, pipe->size_bytes);
	return true;
}

/* Events that something waits for; a socket without any is not looked at, so that an end which may
 * not be seen does not keep the thread awake. */
static void watch(const struct fault_proxy *proxy, struct pollfd polled[2])
{
	for (int side = NEAR; side <= FAR; side++) {
		const struct pipe *in = &proxy->pipes[side == NEAR ? FAULT_FORTH : FAULT_BACK];
		const struct pipe *out = &proxy->pipes[side == NEAR ? FAULT_BACK : FAULT_FORTH];
		short events = 0;

		if (!in->source_ended && !in->held && in->size_bytes < PIPE_BYTES)
			events |= POLLIN;
		if (!out->over && !out->held && out->full)
			events |= POLLOUT;
		polled[side] = (struct pollfd){ .fd = events != 0 ? proxy->fds[side] : -1,
						.events = events };
	}
}

static void *forward(void *context)
{
	struct fault_proxy *proxy = context;
	struct pollfd polled[3] = { { .fd = -1 }, { .fd = -1 }, { .fd = -1, .events = POLLIN } };
	uint64_t wakes = 0;

	polled[2].fd = proxy->wake_fd;
	for (;;) {
		bool again = true;

		{
			BASE_LOCKED(&proxy->lock);

			while (again && !proxy->stop) {
				again = false;
				for (int way = 0; way < FAULT_WAYS; way++) {
					again = give_out(proxy, way) || again;
					again = take_in(proxy, way) || again;
				}
				if (pthread_cond_broadcast(&proxy->moved) != 0)
					base_bug("fault proxy: broadcast");
			}
			if (proxy->stop)
				return NULL;
			watch(proxy, polled);
		}
		if (poll(polled, 3, -1) < 0 && errno != EINTR)
			base_bug("fault proxy: poll: %s", strerror(errno));
		(void)!read(proxy->wake_fd, &wakes, sizeof(wakes));
	}
}

/* --- calls --- */

struct fault_proxy *fault_proxy_new(int near_fd, int far_fd)
{
	struct fault_proxy *proxy = calloc(1, sizeof(*proxy));
	struct base_error err = { .code = 0 };

	base_assert(proxy != NULL && near_fd >= 0 && far_fd >= 0);
	proxy->fds[NEAR] = near_fd;
	proxy->fds[FAR] = far_fd;
	proxy->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	base_assert(proxy->wake_fd >= 0);
	base_assert(pthread_mutex_init(&proxy->lock, NULL) == 0);
	base_assert(pthread_cond_init(&proxy->moved, NULL) == 0);
	if (base_thread_start(&proxy->thread, "fault-proxy", forward, proxy, &err) < 0)
		base_bug("fault proxy: %s", err.text);
	return proxy;
}

int fault_proxy_before(int far_fd, struct fault_proxy **ret_proxy)
{
	int pair[2] = { -1, -1 };

	base_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	*ret_proxy = fault_proxy_new(pair[1], far_fd);
	return pair[0];
}

void fault_proxy_free(struct fault_proxy *proxy)
{
	if (proxy == NULL)
		return;
	{
		BASE_LOCKED(&proxy->lock);

		cut(proxy);
		proxy->stop = true;
	}
	wake(proxy);
	base_thread_join(proxy->thread);
	(void)close(proxy->wake_fd);
	(void)pthread_cond_destroy(&proxy->moved);
	(void)pthread_mutex_destroy(&proxy->lock);
	free(proxy);
}

void fault_proxy_arm(struct fault_proxy *proxy, const struct fault_rule *rule)
{
	BASE_LOCKED(&proxy->lock);

	base_assert(proxy->rule_count < FAULT_RULES_MAX && rule->bit < 8);
	base_assert(rule->action > FAULT_NONE && rule->action < FAULT_ACTIONS);
	proxy->rules[proxy->rule_count++] = (struct armed){
		.rule = *rule,
		.place_bytes = rule->type == MIG_TYPE_INVALID ? rule->at_bytes : NO_PLACE,
	};
	wake(proxy);
}

void fault_proxy_cut(struct fault_proxy *proxy)
{
	BASE_LOCKED(&proxy->lock);

	cut(proxy);
	(void)pthread_cond_broadcast(&proxy->moved);
	wake(proxy);
}

static void set_held(struct fault_proxy *proxy, enum fault_way way, bool held)
{
	BASE_LOCKED(&proxy->lock);

	proxy->pipes[way].held = held;
	(void)pthread_cond_broadcast(&proxy->moved);
	wake(proxy);
}

void fault_proxy_hold(struct fault_proxy *proxy, enum fault_way way)
{
	set_held(proxy, way, true);
}

void fault_proxy_release(struct fault_proxy *proxy, enum fault_way way)
{
	set_held(proxy, way, false);
}

uint64_t fault_proxy_forwarded(struct fault_proxy *proxy, enum fault_way way)
{
	BASE_LOCKED(&proxy->lock);

	return proxy->pipes[way].forwarded;
}

bool fault_proxy_wait(struct fault_proxy *proxy, enum fault_way way, uint64_t bytes)
{
	const struct pipe *pipe = &proxy->pipes[way];
	BASE_LOCKED(&proxy->lock);

	while (pipe->forwarded < bytes && !pipe->over && !pipe->held)
		if (pthread_cond_wait(&proxy->moved, &proxy->lock) != 0)
			base_bug("fault proxy: wait");
	return pipe->forwarded >= bytes;
}

bool fault_proxy_wait_hit(struct fault_proxy *proxy, uint32_t count)
{
	BASE_LOCKED(&proxy->lock);

	while (proxy->hit_count < count &&
	       !(proxy->pipes[FAULT_FORTH].over && proxy->pipes[FAULT_BACK].over))
		if (pthread_cond_wait(&proxy->moved, &proxy->lock) != 0)
			base_bug("fault proxy: wait");
	return proxy->hit_count >= count;
}
