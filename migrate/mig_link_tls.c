/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel's bytes under TLS: waiting, with the same rules for who is slow or silent as in clear
 * text.  docs/migrate/tls.md, section 9.
 *
 * Small parts are gathered to whole records; what is larger than one is enciphered from where it
 * lies.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "migrate/mig_link_priv.h"

/* The time in which something has to move. */
struct window {
	struct mig_link *link;
	const char *what; /* sent, received */
	uint64_t end_ns;
	uint64_t moved_bytes;
	uint64_t sent_begin; /* sending: what the socket had when it began */
	uint32_t trickles;
	bool sends;
};

static uint64_t now_ns(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

static void open_window(struct window *window)
{
	const struct mig_link *link = window->link;

	window->end_ns = link->timeout_ms == 0 ? BASE_TIME_NEVER
					       : now_ns() + link->timeout_ms * BASE_NS_PER_MS;
	window->moved_bytes = 0;
	window->sent_begin = window->sends ? mig_tls_stream_sent(link->tls) : 0;
}

static bool is_over(const struct window *window)
{
	return window->end_ns != BASE_TIME_NEVER && now_ns() >= window->end_ns;
}

static int poll_until(const struct mig_link *link, short events, uint64_t end_ns)
{
	struct pollfd wait = { .fd = link->fd, .events = events };
	uint64_t now = now_ns();
	uint64_t left_ms = end_ns > now ? (end_ns - now) / BASE_NS_PER_MS + 1 : 0;

	if (atomic_load(&link->cancelled))
		return 0;
	return poll(&wait, 1,
		    end_ns == BASE_TIME_NEVER ? -1
					      : (int)(left_ms < INT32_MAX ? left_ms : INT32_MAX));
}

/*
 * Nothing can be moved before @events.  @was_over: the time was over before it was tried, so that
 * who was frozen himself has looked first at what has come meanwhile.
 */
static int wait_more(struct window *window, short events, bool was_over, struct base_error *err)
{
	struct mig_link *link = window->link;
	int r = 0;

	if (atomic_load(&link->cancelled))
		return mig_link_fail(link, -ECANCELED, window->what, err);
	if (window->sends)
		window->moved_bytes = mig_tls_stream_sent(link->tls) - window->sent_begin;
	if (was_over && window->moved_bytes == 0)
		return mig_link_fail(link, -EAGAIN, window->what, err);
	if (was_over) {
		r = mig_link_look_at_pace(link, window->moved_bytes, &window->trickles,
					  window->what, err);
		open_window(window);
	}
	if (r == 0)
		(void)poll_until(link, events, window->end_ns);
	return r;
}

/* What TLS says, in the words of the channel. */
static int fail(const struct mig_link *link, int code, const struct base_error *why,
		struct base_error *err)
{
	if (atomic_load(&link->cancelled))
		return mig_link_fail(link, -ECANCELED, "", err);
	/* Whoever damages what is on its way breaks the connection, and no more than that. */
	return base_fail(err, code == -EBADMSG ? -ECONNRESET : code, "migration channel: %s",
			 why->text);
}

int mig_link_greet(struct mig_link *link, uint32_t most_ms, struct base_error *err)
{
	uint64_t end_ns = most_ms == 0 ? BASE_TIME_NEVER : now_ns() + most_ms * BASE_NS_PER_MS;
	struct base_error why = { 0 };
	struct mig_tls_facts facts;
	int r = link->tls != NULL ? -EAGAIN : 0;

	while (r == -EAGAIN) {
		bool was_over = end_ns != BASE_TIME_NEVER && now_ns() >= end_ns;
		short events = 0;

		r = mig_tls_stream_greet(link->tls, &events, &why);
		if (atomic_load(&link->cancelled))
			return mig_link_fail(link, -ECANCELED, "", err);
		if (r == -EAGAIN && was_over)
			r = base_fail(&why, -ETIMEDOUT,
				      "TLS: handshake not done within %" PRIu32 " ms", most_ms);
		if (r == -EAGAIN)
			(void)poll_until(link, events, end_ns);
	}
	if (r < 0)
		return fail(link, r, &why, err);
	link->in_kernel = mig_link_tls_facts(link, &facts) && facts.in_kernel;
	return 0;
}

bool mig_link_tls_facts(const struct mig_link *link, struct mig_tls_facts *ret_facts)
{
	if (link->tls == NULL)
		return false;
	mig_tls_stream_facts(link->tls, ret_facts);
	return true;
}

int mig_link_tls_receive(struct mig_link *link, uint8_t *to, uint64_t size_bytes, bool begun,
			 struct base_error *err)
{
	struct window window = { .link = link, .what = "received" };

	open_window(&window);
	while (size_bytes > 0) {
		struct base_error why = { 0 };
		bool was_over = is_over(&window);
		short events = 0;
		size_t got = 0;
		int r = mig_tls_stream_read(link->tls, to, size_bytes, &got, &events, &why);

		if (r == -EAGAIN) {
			r = wait_more(&window, events, was_over, err);
			if (r < 0)
				return r;
			continue;
		}
		if (r == -ENOTCONN && begun)
			return fail(link, -ECONNRESET, &why, err);
		if (r < 0 || atomic_load(&link->cancelled))
			return fail(link, r, &why, err);
		atomic_fetch_add_explicit(&link->received_bytes, got, memory_order_relaxed);
		window.moved_bytes += got;
		to += got;
		size_bytes -= got;
		begun = true;
	}
	return 0;
}

/* --- sending --- */

static int push(struct window *window, const uint8_t *from, size_t size_bytes,
		struct base_error *err)
{
	struct mig_link *link = window->link;

	while (size_bytes > 0) {
		struct base_error why = { 0 };
		bool was_over = is_over(window);
		short events = 0;
		size_t done = 0;
		int r = mig_tls_stream_write(link->tls, from, size_bytes, &done, &events, &why);

		atomic_fetch_add_explicit(&link->sent_bytes, done, memory_order_relaxed);
		from += done;
		size_bytes -= done;
		if (r == -EAGAIN)
			r = wait_more(window, events, was_over, err);
		else if (r < 0)
			r = fail(link, r, &why, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int push_record(struct window *window, struct base_error *err)
{
	struct mig_link *link = window->link;
	size_t size_bytes = link->record_bytes;

	link->record_bytes = 0;
	return push(window, link->record, size_bytes, err);
}

static int flush(struct window *window, struct base_error *err)
{
	struct mig_link *link = window->link;
	int r = -EAGAIN;

	while (r == -EAGAIN) {
		struct base_error why = { 0 };
		bool was_over = is_over(window);
		short events = 0;

		r = mig_tls_stream_flush(link->tls, &events, &why);
		if (r < 0 && r != -EAGAIN)
			return fail(link, r, &why, err);
		if (r == -EAGAIN) {
			int waited = wait_more(window, events, was_over, err);

			if (waited < 0)
				return waited;
		}
	}
	return 0;
}

static int send_part(struct window *window, const uint8_t *from, size_t size_bytes,
		     struct base_error *err)
{
	struct mig_link *link = window->link;
	int r = 0;

	while (r == 0 && size_bytes > 0) {
		size_t taken = MIG_TLS_RECORD_BYTES - link->record_bytes;

		if (link->record_bytes == 0 && size_bytes >= MIG_TLS_RECORD_BYTES) {
			taken = size_bytes - size_bytes % MIG_TLS_RECORD_BYTES;
			r = push(window, from, taken, err);
		} else {
			taken = size_bytes < taken ? size_bytes : taken;
			memcpy(link->record + link->record_bytes, from, taken);
			link->record_bytes += taken;
			if (link->record_bytes == MIG_TLS_RECORD_BYTES)
				r = push_record(window, err);
		}
		from += taken;
		size_bytes -= taken;
	}
	return r;
}

int mig_link_tls_send(struct mig_link *link, const struct iovec *parts, size_t count, bool more,
		      struct base_error *err)
{
	struct window window = { .link = link, .what = "sent", .sends = true };
	int r = 0;

	open_window(&window);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = send_part(&window, parts[i].iov_base, parts[i].iov_len, err);
	if (r == 0 && !more)
		r = push_record(&window, err);
	if (r == 0 && !more)
		r = flush(&window, err);
	return r;
}
