/* SPDX-License-Identifier: Apache-2.0 */
/* The door: who connects, says OPEN, and becomes a channel. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/thread.h"
#include "migrate/mig_in_priv.h"

#define NO_DESCRIPTOR_NS (100 * BASE_NS_PER_MS)
#define OPEN_FRAME_BYTES (MIG_FRAME_BYTES + MIG_OPEN_BYTES)
#define HEAR_OUT_NS      BASE_NS_PER_SECOND
#define HEAR_OUT_BYTES   4096u /* at a time */
#define FROM_BYTES       64u
#define CLEAR_FIRST      'G' /* of a frame's magic; TLS begins with 22 */

/* A connection that has not said OPEN. */
struct pending {
	int fd;
	struct mig_tls_stream *tls; /* NULL: clear text, or nothing has come */
	bool is_clear;              /* though it should not */
	bool is_greeted;
	bool is_over; /* it is heard out, so that it hears why */
	short events; /* that it waits for */
	uint64_t deadline_ns;
	uint32_t got_bytes;
	uint8_t bytes[OPEN_FRAME_BYTES];
	char from[FROM_BYTES];
};

struct door {
	struct mig_in *in;
	uint32_t count;
	struct pending list[MIG_IN_PENDING_MAX];
};

/* A connection in other hands than the door's. */
struct visit {
	int fd;
	struct mig_tls_stream *tls;
};

static void visit_fini(struct visit *visit)
{
	mig_tls_stream_free(visit->tls);
	base_closep(&visit->fd);
}

/* --- a connection that has said OPEN --- */

static int decode_open(const uint8_t bytes[OPEN_FRAME_BYTES], struct mig_open *ret_open,
		       struct base_error *err)
{
	struct mig_frame frame;
	int r = mig_frame_decode(bytes, true, true, &frame, err);

	if (r < 0)
		return r;
	if (frame.type != MIG_TYPE_OPEN ||
	    base_crc32c(0, bytes + MIG_FRAME_BYTES, MIG_OPEN_BYTES) != frame.body_crc)
		return base_fail(err, -EBADMSG, "migration: expected open, and whole");
	return mig_open_decode(bytes + MIG_FRAME_BYTES, ret_open, err);
}

static int same(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, MIG_ID_BYTES) == 0;
}

enum visitor {
	VISITOR_NONE, /* to be turned away */
	VISITOR_FIRST,
	VISITOR_AGAIN, /* the control channel's connection was lost */
	VISITOR_DATA,
	VISITOR_LANE, /* of post-copy */
};

static enum visitor who_is(struct mig_in *in, const struct mig_open *open)
{
	BASE_LOCKED(&in->lock);

	if (in->stop && !in->was_ready)
		return VISITOR_NONE;
	if (!in->taken) {
		if (open->channel != 0 || !base_is_zero(open->secret, MIG_ID_BYTES))
			return VISITOR_NONE;
		in->taken = true;
		in->channel_count = open->channel_count;
		in->resume_ms = open->resume_ms < in->options.resume_ms ? open->resume_ms
									: in->options.resume_ms;
		memcpy(in->id, open->id, sizeof(in->id));
		return VISITOR_FIRST;
	}
#ifdef GODWIT_MUTANT_MIG_SECRET
	return open->channel == 0 ? VISITOR_AGAIN : VISITOR_DATA;
#endif
	if (!same(open->id, in->id) || !same(open->secret, in->secret) ||
	    open->channel_count != in->channel_count)
		return VISITOR_NONE;
	if (open->channel == 0)
		return in->was_ready || in->sealed_told || in->resume_ms == 0 || in->accepted
			       ? VISITOR_AGAIN
			       : VISITOR_NONE;
	if (!in->accepted || in->stop)
		return VISITOR_NONE;
	if (open->channel < MIG_CHANNEL_URGENT)
		return VISITOR_DATA;
	return in->options.post ? VISITOR_LANE : VISITOR_NONE;
}

static int say_opened(const struct mig_in *in, struct mig_link *link, const struct mig_open *open,
		      struct base_error *err)
{
	struct mig_opened opened = { .version = mig_open_version(open),
				     .version_min = 1,
				     .version_max = MIG_VERSION,
				     .capabilities = MIG_CAN_ALL };
	uint8_t body[MIG_OPENED_BYTES];

	if (in->options.post)
		opened.capabilities |= MIG_CAN_POST;
	if (open->channel == 0)
		memcpy(opened.secret, in->secret, sizeof(opened.secret));
	mig_opened_encode(&opened, body);
	return mig_link_send(link, MIG_TYPE_OPENED, body, sizeof(body), err);
}

/* @visit->tls is taken, also on failure. */
static int make_link(struct mig_in *in, const struct mig_open *open, struct visit *visit,
		     struct mig_link **ret_link, struct base_error *err)
{
	struct mig_link_options options = {
		.fd = visit->fd,
		.tls = base_take(&visit->tls),
		.is_control = open->channel == 0,
		/* A data channel is quiet between rounds; the control channel knows who lives. */
		.timeout_ms = open->channel == 0 ? in->options.timeout_ms : 0,
	};

	return mig_link_new(&options, ret_link, err);
}

static void turn_away(struct visit *visit, const struct mig_open *open, const char *why)
{
	uint8_t body[MIG_NOTIFY_BYTES_MAX];
	struct mig_link_options options = { .fd = visit->fd,
					    .is_control = true,
					    .timeout_ms = 100 };
	struct mig_link *link = NULL;

	if (open->channel != 0)
		return;
	options.tls = base_take(&visit->tls);
	if (mig_link_new(&options, &link, NULL) == 0)
		(void)!mig_link_send(link, MIG_TYPE_FAILED, body, mig_reason_encode(why, body),
				     NULL);
	mig_link_free(link);
}

/* The receiver's first message may want to answer: it waits for the lock. */
static int begin_control(struct mig_in *in, struct mig_link *link, int fd, struct base_error *err)
{
	const struct mig_control_ops ops = mig_in_control_ops(in);
	BASE_LOCKED(&in->control_lock);

	{
		BASE_LOCKED(&in->lock);

		in->lost = false;
	}
	return mig_control_new(link, fd, in->options.timeout_ms, &ops, &in->control, err);
}

/* The old connection's receiver has come to its end, and LINK_LOST is queued, when it returns. */
static void end_control(struct mig_in *in)
{
	struct mig_control *control = NULL;

	{
		BASE_LOCKED(&in->control_lock);

		control = base_take(&in->control);
	}
	mig_control_free(control);
}

static int admit_control(struct mig_in *in, const struct mig_open *open, struct visit *visit,
			 bool again, struct base_error *err)
{
	struct mig_link *link = NULL;
	bool resumes = false;
	int r = 0;

	if (again) {
		end_control(in);
		resumes = mig_in_can_resume(in);
	}
	if (resumes)
		r = mig_in_cut(in, err);
	if (r == 0)
		r = make_link(in, open, visit, &link, err);
	if (r == 0)
		r = say_opened(in, link, open, err);
	if (r < 0) {
		mig_link_free(link);
		return r;
	}
	r = begin_control(in, link, base_take_fd(&visit->fd), err);
	if (r == 0 && again)
		mig_events_post_kind(&in->events, MIG_EV_LINK_BACK);
	if (r == 0 && resumes)
		mig_in_say_have(in);
	return r;
}

static int admit_data(struct mig_in *in, const struct mig_open *open, struct visit *visit,
		      struct base_error *err)
{
	struct mig_link *link = NULL;
	int r = visit->tls != NULL ? mig_tls_stream_widen(visit->tls, err) : 0;

	if (r == 0)
		r = make_link(in, open, visit, &link, err);
	if (r < 0)
		return r;
	mig_in_channel_register(in, open->channel, link);
	r = say_opened(in, link, open, err);
	if (r < 0) {
		mig_link_free(link);
		return r;
	}
	return mig_in_channel_begin(in, open->channel, link, base_take_fd(&visit->fd), err);
}

static int admit_lane(struct mig_in *in, const struct mig_open *open, struct visit *visit,
		      struct base_error *err)
{
	struct mig_link *link = NULL;
	int r = make_link(in, open, visit, &link, err);

	if (r < 0)
		return r;
	r = say_opened(in, link, open, err);
	if (r < 0) {
		mig_link_free(link);
		return r;
	}
	return mig_in_post_admit(in, open->channel == MIG_CHANNEL_URGENT, link,
				 base_take_fd(&visit->fd), err);
}

/* What it has is taken. */
static void admit(struct mig_in *in, const struct visit *visit_taken, const struct mig_open *open)
{
	BASE_CLEANUP(visit_fini) struct visit visit = *visit_taken;
	struct base_error why = { 0 };
	enum visitor visitor = who_is(in, open);
	int r = 0;

	if (visitor == VISITOR_NONE) {
		turn_away(&visit, open,
			  "it is busy with another migration, or does not know this one");
		return;
	}
	if (visitor == VISITOR_DATA)
		r = admit_data(in, open, &visit, &why);
	else if (visitor == VISITOR_LANE)
		r = admit_lane(in, open, &visit, &why);
	else
		r = admit_control(in, open, &visit, visitor == VISITOR_AGAIN, &why);
	if (r < 0 && visitor == VISITOR_FIRST)
		mig_in_fault(in, r, &why);
}

/* --- those who have not --- */

static void drop(struct door *door, uint32_t index)
{
	door->list[index] = door->list[--door->count];
}

static void close_pending(struct door *door, uint32_t index)
{
	struct visit visit = { .fd = door->list[index].fd, .tls = door->list[index].tls };

	drop(door, index);
	visit_fini(&visit);
}

static void tell_turned_away(const struct door *door, const struct pending *pending, int code,
			     struct base_error *why)
{
	const struct mig_in_options *options = &door->in->options;

	(void)base_fail_within(why, code, "connection from %s", pending->from);
	if (options->turned_away != NULL)
		options->turned_away(options->vm_context, why);
}

/* It has heard why, if it reads on: what it says meanwhile must not reset the connection. */
static void hear_out(struct pending *pending)
{
	uint64_t end_ns = mig_in_now() + HEAR_OUT_NS;

	(void)shutdown(pending->fd, SHUT_WR);
	pending->is_over = true;
	pending->events = POLLIN;
	if (pending->deadline_ns > end_ns)
		pending->deadline_ns = end_ns;
}

/* What it speaks, by its first byte. */
static int begin_tls(const struct door *door, struct pending *pending, struct base_error *err)
{
	const struct mig_tls_stream_options options = { .tls = door->in->options.tls,
							.fd = pending->fd };
	uint8_t first = 0;
	ssize_t got = recv(pending->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);

	if (got < 0)
		return errno == EINTR || errno == EWOULDBLOCK ? -EAGAIN : -errno;
	if (got == 1 && first == CLEAR_FIRST) {
		pending->is_clear = true;
		return 0;
	}
	return mig_tls_stream_new(&options, &pending->tls, err);
}

static int read_clear(struct pending *pending, size_t *ret_bytes)
{
	ssize_t got = recv(pending->fd, pending->bytes + pending->got_bytes,
			   OPEN_FRAME_BYTES - pending->got_bytes, MSG_DONTWAIT);

	if (got < 0)
		return errno == EINTR || errno == EWOULDBLOCK ? -EAGAIN : -errno;
	*ret_bytes = (size_t)got;
	return got > 0 ? 0 : -ECONNRESET;
}

/* 0 when OPEN is there; -EAGAIN; else it is of no use, and @err says why where TLS does. */
static int read_open(const struct door *door, struct pending *pending, struct base_error *err)
{
	bool wants_tls = door->in->options.tls != NULL && !pending->is_clear;
	size_t got = 0;
	int r = 0;

	pending->events = POLLIN;
	if (wants_tls && pending->tls == NULL) {
		r = begin_tls(door, pending, err);
		wants_tls = !pending->is_clear;
	}
	if (r == 0 && wants_tls && !pending->is_greeted) {
		r = mig_tls_stream_greet(pending->tls, &pending->events, err);
		pending->is_greeted = r == 0;
	}
	while (r == 0 && pending->got_bytes < OPEN_FRAME_BYTES) {
		r = wants_tls
			    ? mig_tls_stream_read(pending->tls, pending->bytes + pending->got_bytes,
						  OPEN_FRAME_BYTES - pending->got_bytes, &got,
						  &pending->events, err)
			    : read_clear(pending, &got);
		if (r == 0)
			pending->got_bytes += (uint32_t)got;
	}
	return r;
}

static void hear_rest(struct door *door, uint32_t index)
{
	uint8_t nothing[HEAR_OUT_BYTES];
	ssize_t got = recv(door->list[index].fd, nothing, sizeof(nothing), MSG_DONTWAIT);

	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
		close_pending(door, index);
}

/* What has come of OPEN; without waiting. */
static void listen_to(struct door *door, uint32_t index)
{
	struct pending *pending = &door->list[index];
	struct visit visit = { .fd = pending->fd };
	struct base_error why = { 0 };
	struct mig_open open = { 0 };
	int r = 0;

	if (pending->is_over) {
		hear_rest(door, index);
		return;
	}
	r = read_open(door, pending, &why);
	if (r == -EAGAIN)
		return;
	if (r < 0 && why.code != 0) {
		tell_turned_away(door, pending, r, &why);
		hear_out(pending);
		return;
	}
	if (r < 0 || decode_open(pending->bytes, &open, NULL) < 0) {
		close_pending(door, index);
		return;
	}
	if (pending->is_clear) {
		(void)base_fail(&why, -EPROTO,
				"clear text, expected TLS (migrate-clear is off here)");
		turn_away(&visit, &open, why.text);
		tell_turned_away(door, pending, -EPROTO, &why);
		hear_out(pending);
		return;
	}
	visit.tls = pending->tls;
	drop(door, index);
	admit(door->in, &visit, &open);
}

static void from_text(const struct sockaddr_storage *from, char text[FROM_BYTES])
{
	char number[INET6_ADDRSTRLEN] = "";
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	memcpy(&v4, from, sizeof(v4));
	memcpy(&v6, from, sizeof(v6));
	if (from->ss_family == AF_INET)
		(void)inet_ntop(AF_INET, &v4.sin_addr, number, sizeof(number));
	else if (from->ss_family == AF_INET6)
		(void)inet_ntop(AF_INET6, &v6.sin6_addr, number, sizeof(number));
	(void)snprintf(text, FROM_BYTES, "%s", number[0] != '\0' ? number : "this host");
}

static void answer_door(struct door *door, int listen_fd)
{
	struct sockaddr_storage from = { .ss_family = AF_UNSPEC };
	socklen_t from_bytes = sizeof(from);
	struct pending *pending = &door->list[door->count];
	int fd = accept4(listen_fd, (struct sockaddr *)&from, &from_bytes, SOCK_CLOEXEC);

	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
		base_sleep_ns(NO_DESCRIPTOR_NS); /* who knocks goes on knocking */
	if (fd < 0)
		return; /* or it was gone again */
	if (door->count == MIG_IN_PENDING_MAX) {
		base_closep(&fd);
		return;
	}
	*pending =
		(struct pending){ .fd = fd,
				  .events = POLLIN,
				  .deadline_ns = mig_in_now() + MIG_IN_OPEN_MS * BASE_NS_PER_MS };
	from_text(&from, pending->from);
	door->count++;
}

static void drop_late(struct door *door)
{
	uint64_t now_ns = mig_in_now();

	for (uint32_t i = door->count; i-- > 0;)
		if (door->list[i].deadline_ns <= now_ns)
			close_pending(door, i);
}

/* Where it listens, one a network; poll() skips what is -1. */
static void set_listening(const struct mig_in_options *options, struct pollfd *fds)
{
	fds[0] = (struct pollfd){ .fd = options->listen_fd, .events = POLLIN };
	for (uint32_t i = 0; i < MIG_IN_MORE_MAX; i++)
		fds[1 + i] =
			(struct pollfd){ .fd = i < options->more_count ? options->more_fds[i] : -1,
					 .events = POLLIN };
}

static void *watch(void *context)
{
	enum {
		LISTENING = 1,
		PENDING = LISTENING + 1 + MIG_IN_MORE_MAX
	};
	struct door door = { .in = context };
	struct pollfd fds[PENDING + MIG_IN_PENDING_MAX];

	for (;;) {
		uint32_t count = door.count;

		fds[0] = (struct pollfd){ .fd = door.in->wake_fd, .events = POLLIN };
		set_listening(&door.in->options, fds + LISTENING);
		for (uint32_t i = 0; i < count; i++)
			fds[PENDING + i] = (struct pollfd){ .fd = door.list[i].fd,
							    .events = door.list[i].events };
		(void)poll(fds, PENDING + count, count > 0 ? 500 : -1);
		if (fds[0].revents != 0)
			break;
		for (uint32_t i = count; i-- > 0;) /* backwards: one that goes is replaced by the
						      last, which was looked at */
			if (fds[PENDING + i].revents != 0)
				listen_to(&door, i);
		for (uint32_t i = LISTENING; i < PENDING; i++)
			if (fds[i].revents != 0)
				answer_door(&door, fds[i].fd);
		drop_late(&door);
	}
	while (door.count > 0)
		close_pending(&door, door.count - 1);
	return NULL;
}

int mig_in_door_open(struct mig_in *in, struct base_error *err)
{
	int r = 0;

	in->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (in->wake_fd < 0)
		return base_fail_errno(err, -errno, "migration: eventfd");
	r = base_thread_start(&in->door, "mig-door", watch, in, err);
	in->has_door = r == 0;
	return r;
}

void mig_in_door_close(struct mig_in *in)
{
	const uint64_t one = 1;

	if (in->has_door) {
		if (write(in->wake_fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
			base_bug("migration: the door cannot be told to close");
		base_thread_join(in->door);
	}
	in->has_door = false;
	base_closep(&in->wake_fd);
}
