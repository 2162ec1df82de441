/* SPDX-License-Identifier: Apache-2.0 */
/* The door: who connects, says OPEN, and becomes a channel. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
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

/* A connection that has not said OPEN. */
struct pending {
	int fd;
	uint64_t deadline_ns;
	uint32_t got_bytes;
	uint8_t bytes[OPEN_FRAME_BYTES];
};

struct door {
	struct mig_in *in;
	uint32_t count;
	struct pending list[MIG_IN_PENDING_MAX];
};

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

static int make_link(struct mig_in *in, const struct mig_open *open, int fd,
		     struct mig_link **ret_link, struct base_error *err)
{
	struct mig_link_options options = {
		.fd = fd,
		.is_control = open->channel == 0,
		/* A data channel is quiet between rounds; the control channel knows who lives. */
		.timeout_ms = open->channel == 0 ? in->options.timeout_ms : 0,
	};

	return mig_link_new(&options, ret_link, err);
}

static void turn_away(int fd, const struct mig_open *open)
{
	static const char why[] = "it is busy with another migration, or does not know this one";
	uint8_t body[MIG_NOTIFY_BYTES_MAX];
	struct mig_link_options options = { .fd = fd, .is_control = true, .timeout_ms = 100 };
	struct mig_link *link = NULL;

	if (open->channel == 0 && mig_link_new(&options, &link, NULL) == 0)
		(void)!mig_link_send(link, MIG_TYPE_FAILED, body, mig_reason_encode(why, body),
				     NULL);
	mig_link_free(link);
	base_closep(&fd);
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

static int admit_control(struct mig_in *in, const struct mig_open *open, int *fd, bool again,
			 struct base_error *err)
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
		r = make_link(in, open, *fd, &link, err);
	if (r == 0)
		r = say_opened(in, link, open, err);
	if (r < 0) {
		mig_link_free(link);
		return r;
	}
	r = begin_control(in, link, base_take_fd(fd), err);
	if (r == 0 && again)
		mig_events_post_kind(&in->events, MIG_EV_LINK_BACK);
	if (r == 0 && resumes)
		mig_in_say_have(in);
	return r;
}

static int admit_data(struct mig_in *in, const struct mig_open *open, int *fd,
		      struct base_error *err)
{
	struct mig_link *link = NULL;
	int r = make_link(in, open, *fd, &link, err);

	if (r < 0)
		return r;
	mig_in_channel_register(in, open->channel, link);
	r = say_opened(in, link, open, err);
	if (r < 0) {
		mig_link_free(link);
		return r;
	}
	return mig_in_channel_begin(in, open->channel, link, base_take_fd(fd), err);
}

static int admit_lane(struct mig_in *in, const struct mig_open *open, int *fd,
		      struct base_error *err)
{
	struct mig_link *link = NULL;
	int r = make_link(in, open, *fd, &link, err);

	if (r < 0)
		return r;
	r = say_opened(in, link, open, err);
	if (r < 0) {
		mig_link_free(link);
		return r;
	}
	return mig_in_post_admit(in, open->channel == MIG_CHANNEL_URGENT, link, base_take_fd(fd),
				 err);
}

/* @fd is taken. */
static void admit(struct mig_in *in, int fd_taken, const struct mig_open *open)
{
	BASE_CLOSE int fd = fd_taken;
	struct base_error why = { 0 };
	enum visitor visitor = who_is(in, open);
	int r = 0;

	if (visitor == VISITOR_NONE) {
		turn_away(base_take_fd(&fd), open);
		return;
	}
	if (visitor == VISITOR_DATA)
		r = admit_data(in, open, &fd, &why);
	else if (visitor == VISITOR_LANE)
		r = admit_lane(in, open, &fd, &why);
	else
		r = admit_control(in, open, &fd, visitor == VISITOR_AGAIN, &why);
	if (r < 0 && visitor == VISITOR_FIRST)
		mig_in_fault(in, r, &why);
}

/* --- those who have not --- */

static void drop(struct door *door, uint32_t index)
{
	door->list[index] = door->list[--door->count];
}

/* What has come of OPEN; without waiting. */
static void listen_to(struct door *door, uint32_t index)
{
	struct pending *pending = &door->list[index];
	struct mig_open open = { 0 };
	ssize_t got = recv(pending->fd, pending->bytes + pending->got_bytes,
			   OPEN_FRAME_BYTES - pending->got_bytes, MSG_DONTWAIT);
	int fd = pending->fd;

	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return;
	if (got > 0)
		pending->got_bytes += (uint32_t)got;
	if (got > 0 && pending->got_bytes < OPEN_FRAME_BYTES)
		return;
	if (got <= 0 || decode_open(pending->bytes, &open, NULL) < 0) {
		drop(door, index);
		base_closep(&fd);
		return;
	}
	drop(door, index);
	admit(door->in, fd, &open);
}

static void answer_door(struct door *door)
{
	int fd = accept4(door->in->options.listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
		base_sleep_ns(NO_DESCRIPTOR_NS); /* who knocks goes on knocking */
	if (fd < 0)
		return; /* or it was gone again */
	if (door->count == MIG_IN_PENDING_MAX) {
		base_closep(&fd);
		return;
	}
	door->list[door->count++] =
		(struct pending){ .fd = fd,
				  .deadline_ns = mig_in_now() + MIG_IN_OPEN_MS * BASE_NS_PER_MS };
}

static void drop_late(struct door *door)
{
	uint64_t now_ns = mig_in_now();

	for (uint32_t i = door->count; i-- > 0;)
		if (door->list[i].deadline_ns <= now_ns) {
			base_closep(&door->list[i].fd);
			drop(door, i);
		}
}

static void *watch(void *context)
{
	struct door door = { .in = context };
	struct pollfd fds[2 + MIG_IN_PENDING_MAX];

	for (;;) {
		uint32_t count = door.count;

		fds[0] = (struct pollfd){ .fd = door.in->wake_fd, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = door.in->options.listen_fd, .events = POLLIN };
		for (uint32_t i = 0; i < count; i++)
			fds[2 + i] = (struct pollfd){ .fd = door.list[i].fd, .events = POLLIN };
		(void)poll(fds, 2 + count, count > 0 ? 500 : -1);
		if (fds[0].revents != 0)
			break;
		for (uint32_t i = count; i-- > 0;) /* backwards: one that goes is replaced by the
						      last, which was looked at */
			if (fds[2 + i].revents != 0)
				listen_to(&door, i);
		if (fds[1].revents != 0)
			answer_door(&door);
		drop_late(&door);
	}
	for (uint32_t i = 0; i < door.count; i++)
		base_closep(&door.list[i].fd);
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
