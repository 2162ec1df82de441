/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_link.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/crc32c.h"
#include "migrate/mig_link_priv.h"

#define TRICKLE_BYTES (64u << 10) /* in a timeout: less is as good as nothing */
#define TRICKLES_MAX  3u          /* in a row */
#define AHEAD_BYTES   (64u << 10) /* received beyond a small chunk: a dozen of single pages */
#define SMALL_BYTES   (16u << 10) /* of a write: copying costs less than a system call */

static int set_timeout(const struct mig_link *link, int option, struct base_error *err)
{
	struct timeval timeout = {
		.tv_sec = (time_t)(link->timeout_ms / 1000),
		.tv_usec = (suseconds_t)(link->timeout_ms % 1000) * 1000,
	};

	if (setsockopt(link->fd, SOL_SOCKET, option, &timeout, sizeof(timeout)) < 0)
		return base_fail_errno(err, -errno, "migration channel: timeout");
	return 0;
}

/* Calls block; what is complete leaves at once: the last segment of a message would wait for the
 * other side's acknowledgement, which may be 40 ms late, while the VM is paused. */
static int set_mode(const struct mig_link *link, struct base_error *err)
{
	const int on = 1;
	int flags = fcntl(link->fd, F_GETFL);

	if (flags < 0 ||
	    ((flags & O_NONBLOCK) != 0 && fcntl(link->fd, F_SETFL, flags & ~O_NONBLOCK) < 0))
		return base_fail_errno(err, -errno, "migration channel: blocking");
#ifdef GODWIT_MUTANT_MIG_NODELAY
	(void)on;
#else
	if (setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 &&
	    errno != EOPNOTSUPP && errno != ENOPROTOOPT) /* not TCP */
		return base_fail_errno(err, -errno, "migration channel: no delay");
#endif
	return 0;
}

int mig_link_new(const struct mig_link_options *options, struct mig_link **ret_link,
		 struct base_error *err)
{
	struct mig_link *link = calloc(1, sizeof(*link));
	int r = 0;

	if (link == NULL) {
		mig_tls_stream_free(options->tls);
		return base_fail(err, -ENOMEM, "migration channel");
	}
	link->tls = options->tls;
	link->fd = options->fd;
	link->is_source = options->is_source;
	link->is_control = options->is_control;
	link->timeout_ms = options->timeout_ms;
	link->body = malloc(MIG_BODY_BYTES_MAX);
	link->ahead = malloc(AHEAD_BYTES);
	if (link->tls != NULL)
		link->record = malloc(MIG_TLS_RECORD_BYTES);
	if (link->body == NULL || link->ahead == NULL ||
	    (link->tls != NULL && link->record == NULL))
		r = base_fail(err, -ENOMEM, "migration channel: %u bytes", MIG_BODY_BYTES_MAX);
	if (r == 0)
		r = set_mode(link, err);
	if (r == 0)
		r = set_timeout(link, SO_RCVTIMEO, err);
	if (r == 0)
		r = set_timeout(link, SO_SNDTIMEO, err);
	if (r < 0) {
		mig_link_free(link);
		return r;
	}
	*ret_link = link;
	return 0;
}

void mig_link_free(struct mig_link *link)
{
	if (link == NULL)
		return;
	if (link->tls != NULL && !atomic_load(&link->cancelled) && link->send_failed == 0)
		mig_tls_stream_goodbye(link->tls);
	mig_tls_stream_free(link->tls);
	free(link->record);
	free(link->ahead);
	free(link->body);
	free(link);
}

void mig_link_register(struct mig_link *link, uint32_t number, uint8_t *memory, uint64_t size_bytes)
{
	base_assert(number > 0 && number < MIG_REGIONS_MAX && memory != NULL);
	base_assert(link->regions[number].memory == NULL);
	link->regions[number].memory = memory;
	link->regions[number].size_bytes = size_bytes;
}

bool mig_link_is_broken(int code)
{
	switch (code) {
	case -ECONNRESET:
	case -ECONNABORTED:
	case -ENOTCONN:
	case -EPIPE:
	case -ETIMEDOUT:
	case -ECANCELED: /* by the thread that found another one broken */
	case -EHOSTUNREACH:
	case -ENETUNREACH:
	case -ENETDOWN:
	case -ENETRESET:
		return true;
	default:
		return false;
	}
}

void mig_link_cancel(struct mig_link *link)
{
	atomic_store(&link->cancelled, true);
	(void)shutdown(link->fd, SHUT_RDWR);
}

struct mig_link_counts mig_link_counts(const struct mig_link *link)
{
	return (struct mig_link_counts){
		.sent_bytes = atomic_load_explicit(&link->sent_bytes, memory_order_relaxed),
		.received_bytes = atomic_load_explicit(&link->received_bytes, memory_order_relaxed),
		.written_bytes = atomic_load_explicit(&link->written_bytes, memory_order_relaxed),
	};
}

int mig_link_fail(const struct mig_link *link, int code, const char *what, struct base_error *err)
{
	if (atomic_load(&link->cancelled))
		return base_fail(err, -ECANCELED, "migration channel: cancelled");
	if (code == -EAGAIN || code == -EWOULDBLOCK)
		return base_fail(err, -ETIMEDOUT,
				 "migration channel: nothing could be %s for %" PRIu32 " ms", what,
				 link->timeout_ms);
	return base_fail_errno(err, code, "migration channel: nothing can be %s", what);
}

int mig_link_look_at_pace(const struct mig_link *link, uint64_t moved_bytes, uint32_t *trickles,
			  const char *what, struct base_error *err)
{
	*trickles = moved_bytes < TRICKLE_BYTES ? *trickles + 1 : 0;
#ifdef GODWIT_MUTANT_MIG_TRICKLE
	return 0;
#endif
	if (*trickles < TRICKLES_MAX || link->timeout_ms == 0)
		return 0;
	return base_fail(err, -ETIMEDOUT,
			 "migration channel: hardly anything could be %s in %u times %" PRIu32
			 " ms",
			 what, TRICKLES_MAX, link->timeout_ms);
}

/* What ended it before. */
static int fail_again(const struct mig_link *link, int code, struct base_error *err)
{
	if (atomic_load(&link->cancelled))
		return base_fail(err, -ECANCELED, "migration channel: cancelled");
	return base_fail(err, code, "migration channel: it has failed before");
}

/* --- sending --- */

static int send_all(struct mig_link *link, struct iovec *parts, size_t count, int flags,
		    struct base_error *err)
{
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = count };
	uint32_t trickles = 0;
	int r = 0;

	while (r == 0 && message.msg_iovlen > 0) {
		ssize_t sent = sendmsg(link->fd, &message, flags | MSG_NOSIGNAL);
		size_t left = 0;

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 || atomic_load(&link->cancelled))
			return mig_link_fail(link, -errno, "sent", err);
		atomic_fetch_add_explicit(&link->sent_bytes, (uint64_t)sent, memory_order_relaxed);
		left = (size_t)sent;
		while (message.msg_iovlen > 0 && left >= message.msg_iov->iov_len) {
			left -= message.msg_iov->iov_len;
			message.msg_iov++;
			message.msg_iovlen--;
		}
		if (message.msg_iovlen == 0)
			break;
		message.msg_iov->iov_base = (uint8_t *)message.msg_iov->iov_base + left;
		message.msg_iov->iov_len -= left;
		r = mig_link_look_at_pace(link, (uint64_t)sent, &trickles, "sent", err);
	}
	return r;
}

static struct iovec part(const void *bytes, size_t size_bytes)
{
	return (struct iovec){ .iov_base = (void *)(uintptr_t)bytes, .iov_len = size_bytes };
}

static int send_parts(struct mig_link *link, struct iovec *parts, size_t count, int flags,
		      struct base_error *err)
{
	if (link->send_failed < 0)
		return fail_again(link, link->send_failed, err);
	if (link->tls != NULL && !link->in_kernel)
		link->send_failed =
			mig_link_tls_send(link, parts, count, (flags & MSG_MORE) != 0, err);
	else if (link->in_kernel && atomic_load(&link->sent_bytes) > MIG_TLS_KERNEL_BYTES_MAX)
		link->send_failed = base_fail(err, -EOVERFLOW,
					      "migration channel: the kernel's TLS has sent %llu "
					      "GiB with one key, expected no more",
					      MIG_TLS_KERNEL_BYTES_MAX >> 30);
	else
		link->send_failed = send_all(link, parts, count, flags, err);
	return link->send_failed;
}

static int send_frame(struct mig_link *link, const struct mig_frame *frame, const void *body,
		      int flags, struct base_error *err)
{
	uint8_t header[MIG_FRAME_BYTES];
	struct iovec parts[2] = {
		{ .iov_base = header, .iov_len = sizeof(header) },
		{ .iov_base = (void *)(uintptr_t)body, .iov_len = frame->body_bytes },
	};

	mig_frame_encode(frame, header);
	return send_parts(link, parts, frame->body_bytes > 0 ? 2 : 1, flags, err);
}

void mig_link_set_rate(struct mig_link *link, struct mig_rate *rate, bool waits)
{
	link->rate = rate;
	link->urgent = !waits;
}

static void wait_turn(struct mig_link *link, uint64_t bytes)
{
	static const atomic_bool at_once = true;

	mig_rate_wait(link->rate, bytes, link->urgent ? &at_once : &link->cancelled);
}

int mig_link_write(struct mig_link *link, uint32_t region, uint64_t offset_bytes, const void *from,
		   uint64_t size_bytes, struct base_error *err)
{
	const uint8_t *at = from;

	while (size_bytes > 0) {
		struct mig_frame frame = {
			.type = MIG_TYPE_WRITE,
			.body_bytes = size_bytes < MIG_BODY_BYTES_MAX ? (uint32_t)size_bytes
								      : MIG_BODY_BYTES_MAX,
			.offset_bytes = offset_bytes,
			.region = region,
		};
		int r = 0;

		wait_turn(link, frame.body_bytes);
		r = send_frame(link, &frame, at, MSG_MORE, err);
		if (r < 0)
			return r;
		at += frame.body_bytes;
		offset_bytes += frame.body_bytes;
		size_bytes -= frame.body_bytes;
	}
	return 0;
}

int mig_link_send(struct mig_link *link, enum mig_type type, const void *body, uint32_t body_bytes,
		  struct base_error *err)
{
	const struct mig_type_row *row = mig_type_row((uint32_t)type);
	const struct mig_frame frame = {
		.type = type,
		.body_bytes = body_bytes,
		.body_crc = base_crc32c(0, body, body_bytes),
	};

	base_assert(row != NULL && type != MIG_TYPE_WRITE && body_bytes >= row->body_bytes_min &&
		    body_bytes <= row->body_bytes_max);
	base_assert(link->is_source ? row->by_source : row->by_destination);
	base_assert(link->is_control ? row->on_control : row->on_data);
	return send_frame(link, &frame, body, 0, err);
}

int mig_link_post(struct mig_link *link, const struct mig_post *posts, uint32_t count,
		  struct base_error *err)
{
	uint8_t headers[MIG_POSTS_MAX][2][MIG_FRAME_BYTES];
	struct iovec parts[MIG_POSTS_MAX * 4];
	uint64_t bytes = 0;
	size_t used = 0;

	base_assert(link->is_source && !link->is_control && count <= MIG_POSTS_MAX);
	for (uint32_t i = 0; i < count; i++) {
		const struct mig_post *post = &posts[i];
		const struct mig_frame write = { .type = MIG_TYPE_WRITE,
						 .body_bytes = post->size_bytes,
						 .offset_bytes = post->offset_bytes,
						 .region = post->region };
		const struct mig_frame chunk = { .type = MIG_TYPE_CHUNK,
						 .body_bytes = MIG_CHUNK_BYTES,
						 .body_crc = base_crc32c(0, post->chunk,
									 MIG_CHUNK_BYTES) };

		base_assert(post->size_bytes <= MIG_BODY_BYTES_MAX);
		bytes += post->size_bytes;
		mig_frame_encode(&write, headers[i][0]);
		mig_frame_encode(&chunk, headers[i][1]);
		if (post->size_bytes > 0) {
			parts[used++] = part(headers[i][0], MIG_FRAME_BYTES);
			parts[used++] = part(post->from, post->size_bytes);
		}
		parts[used++] = part(headers[i][1], MIG_FRAME_BYTES);
		parts[used++] = part(post->chunk, MIG_CHUNK_BYTES);
	}
	wait_turn(link, bytes);
	return send_parts(link, parts, used, 0, err);
}

/* --- receiving --- */

/* Exactly @size_bytes.  @begun: they are the rest of something. */
static int receive_all(struct mig_link *link, uint8_t *to, uint64_t size_bytes, bool begun,
		       struct base_error *err)
{
	uint32_t trickles = 0;
	int r = 0;

	while (r == 0 && size_bytes > 0) {
		ssize_t got = recv(link->fd, to, size_bytes, MSG_WAITALL);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 || atomic_load(&link->cancelled))
			return mig_link_fail(link, got < 0 ? -errno : 0, "received", err);
		if (got == 0)
			return base_fail(err, begun ? -ECONNRESET : -ENOTCONN,
					 "migration channel: the other side has ended it%s",
					 begun ? " in the middle" : "");
		atomic_fetch_add_explicit(&link->received_bytes, (uint64_t)got,
					  memory_order_relaxed);
		to += got;
		size_bytes -= (uint64_t)got;
		begun = true;
		if (size_bytes > 0)
			r = mig_link_look_at_pace(link, (uint64_t)got, &trickles, "received", err);
	}
	return r;
}

/* What is here of the next @size_bytes. */
static size_t take_ahead(struct mig_link *link, uint8_t *to, size_t size_bytes)
{
	size_t have_bytes = link->ahead_bytes < size_bytes ? link->ahead_bytes : size_bytes;

	memcpy(to, link->ahead + link->ahead_at, have_bytes);
	link->ahead_at += have_bytes;
	link->ahead_bytes -= have_bytes;
	return have_bytes;
}

static int receive(struct mig_link *link, uint8_t *to, uint64_t size_bytes, bool begun,
		   struct base_error *err)
{
	size_t have_bytes = take_ahead(link, to, size_bytes);

	to += have_bytes;
	size_bytes -= have_bytes;
	begun = begun || have_bytes > 0;
	return link->tls != NULL ? mig_link_tls_receive(link, to, size_bytes, begun, err)
				 : receive_all(link, to, size_bytes, begun, err);
}

static int receive_header(struct mig_link *link, uint8_t *ret_header, struct base_error *err)
{
	if (atomic_load(&link->cancelled)) /* there may be many here */
		return mig_link_fail(link, 0, "received", err);
	return receive(link, ret_header, MIG_FRAME_BYTES, false, err);
}

/*
 * Exactly @size_bytes, the rest of a frame, and what has come of the frames behind it: the header,
 * which halves the system calls of chunks, and behind small ones several others.  @followed:
 * something always comes behind, so wait for both.
 */
static int receive_body(struct mig_link *link, uint8_t *to, size_t size_bytes, bool followed,
			struct base_error *err)
{
	uint32_t trickles = 0;
	size_t taken = 0;
	int r = 0;

	if (link->tls != NULL) /* has it in larger pieces already */
		return mig_link_tls_receive(link, to, size_bytes, true, err);
	for (taken = take_ahead(link, to, size_bytes); taken < size_bytes;) {
		struct iovec parts[2] = {
			{ .iov_base = to + taken, .iov_len = size_bytes - taken },
			{ .iov_base = link->ahead,
			  .iov_len = !followed && link->small ? AHEAD_BYTES : MIG_FRAME_BYTES },
		};
		struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
		ssize_t got = recvmsg(link->fd, &message, followed ? MSG_WAITALL : 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 || atomic_load(&link->cancelled))
			return mig_link_fail(link, got < 0 ? -errno : 0, "received", err);
		if (got == 0)
			return base_fail(
				err, -ECONNRESET,
				"migration channel: the other side has ended it in the middle");
		atomic_fetch_add_explicit(&link->received_bytes, (uint64_t)got,
					  memory_order_relaxed);
		taken += (size_t)got;
		if (taken >= size_bytes) {
			link->ahead_at = 0;
			link->ahead_bytes = taken - size_bytes;
		} else if (followed) { /* others come in pieces, and are small */
			r = mig_link_look_at_pace(link, (uint64_t)got, &trickles, "received", err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static void touch(struct mig_link_region *region, uint64_t from, uint64_t to)
{
	bool first = region->loose_from == region->loose_to;

	region->loose_from = first || from < region->loose_from ? from : region->loose_from;
	region->loose_to = first || to > region->loose_to ? to : region->loose_to;
}

bool mig_link_loose(const struct mig_link *link, uint32_t number, uint64_t *ret_offset_bytes,
		    uint64_t *ret_size_bytes)
{
	const struct mig_link_region *region = &link->regions[number];

	base_assert(number > 0 && number < MIG_REGIONS_MAX);
	*ret_offset_bytes = region->loose_from;
	*ret_size_bytes = region->loose_to - region->loose_from;
	return *ret_size_bytes > 0;
}

static int place(struct mig_link *link, const struct mig_frame *frame, struct base_error *err)
{
	struct mig_link_region *region =
		frame->region < MIG_REGIONS_MAX ? &link->regions[frame->region] : NULL;
	int r = 0;

	if (region == NULL || region->memory == NULL)
		return base_fail(err, -EBADMSG,
				 "migration frame write: region %" PRIu32 " is not registered",
				 frame->region);
#ifndef GODWIT_MUTANT_MIG_PLACE
	if (frame->body_bytes > region->size_bytes ||
	    frame->offset_bytes > region->size_bytes - frame->body_bytes)
		return base_fail(err, -EBADMSG,
				 "migration frame write: %" PRIu32 " bytes at %" PRIu64
				 " of region %" PRIu32 ", which has %" PRIu64,
				 frame->body_bytes, frame->offset_bytes, frame->region,
				 region->size_bytes);
#endif
	link->small = link->small && frame->body_bytes <= SMALL_BYTES;
	touch(region, frame->offset_bytes, frame->offset_bytes + frame->body_bytes);
	r = receive_body(link, region->memory + frame->offset_bytes, frame->body_bytes, true, err);
	if (r == 0)
		atomic_fetch_add_explicit(&link->written_bytes, frame->body_bytes,
					  memory_order_relaxed);
	return r;
}

static int take_message(struct mig_link *link, const struct mig_frame *frame,
			struct mig_received *ret_received, struct base_error *err)
{
	/* Others may be the last that is read here: what follows is for whoever reads then. */
	int r = frame->type == MIG_TYPE_CHUNK
			? receive_body(link, link->body, frame->body_bytes, false, err)
			: receive(link, link->body, frame->body_bytes, true, err);

	if (r < 0)
		return r;
	if (base_crc32c(0, link->body, frame->body_bytes) != frame->body_crc)
		return base_fail(err, -EBADMSG, "migration frame %s: the body's checksum is wrong",
				 mig_type_row((uint32_t)frame->type)->name);
	*ret_received = (struct mig_received){ .type = frame->type,
					       .body = link->body,
					       .body_bytes = frame->body_bytes };
	return 0;
}

static int receive_message(struct mig_link *link, struct mig_received *ret_received,
			   struct base_error *err)
{
	for (;;) {
		uint8_t header[MIG_FRAME_BYTES];
		struct mig_frame frame = { .type = MIG_TYPE_INVALID };
		int r = receive_header(link, header, err);

		if (r == 0)
			r = mig_frame_decode(header, !link->is_source, link->is_control, &frame,
					     err);
		if (r < 0)
			return r;
		if (frame.type != MIG_TYPE_WRITE)
			return take_message(link, &frame, ret_received, err);
		r = place(link, &frame, err);
		if (r < 0)
			return r;
	}
}

int mig_link_receive(struct mig_link *link, struct mig_received *ret_received,
		     struct base_error *err)
{
	if (link->receive_failed < 0)
		return fail_again(link, link->receive_failed, err);
	for (uint32_t i = 1; i < MIG_REGIONS_MAX; i++)
		link->regions[i].loose_to = link->regions[i].loose_from = 0;
	link->small = true;
	link->receive_failed = receive_message(link, ret_received, err);
	return link->receive_failed;
}
