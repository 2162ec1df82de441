/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_serve.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/thread.h"
#include "migrate/mig_body.h"
#include "migrate/mig_body_post.h"
#include "migrate/mig_yield.h"

#define REST_PAGES 15u  /* of bytes, in one message: two fit into the least window */
#define NEAR_PAGES 256u /* behind a fault, before all others */
#define NO_PAGE    UINT64_MAX

struct lane {
	struct mig_serve *serve;
	bool urgent;
	pthread_t thread;
	bool has_thread;
	struct mig_link *link; /* changed by its thread under the lock */
	int fd;
	uint8_t body[MIG_PAGES_BYTES_MAX];
};

struct mig_serve {
	struct mig_serve_options options;
	uint64_t word_count;
	_Atomic uint64_t *unsent; /* of what the destination lacks */
	_Atomic uint64_t near;    /* the newest fault that the rest has not seen; NO_PAGE */
	struct lane lanes[2];
	atomic_bool stop;
	_Atomic uint64_t asked_pages, rest_pages, zero_pages, sent_bytes, dials;

	/* The rest's own. */
	struct mig_yield yield;
	uint64_t cursor;
	uint64_t near_at, near_end;

	pthread_mutex_t lock; /* a leaf: what is below, and the lanes' links */
	pthread_cond_t changed;
	bool is_open, goes;
};

static uint64_t now_ns(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

static bool is_unsent(const struct mig_serve *serve, uint64_t page)
{
	return (atomic_load(&serve->unsent[page / 64]) & 1ULL << page % 64) != 0;
}

static bool take_unsent(struct mig_serve *serve, uint64_t page)
{
	uint64_t bit = 1ULL << page % 64;

	return (atomic_fetch_and(&serve->unsent[page / 64], ~bit) & bit) != 0;
}

static const uint8_t *page_at(const struct mig_serve *serve, uint64_t page)
{
	return serve->options.memory + page * MIG_PAGE_BYTES;
}

static bool is_zero(const struct mig_serve *serve, uint64_t page)
{
	return base_is_zero(page_at(serve, page), MIG_PAGE_BYTES);
}

/* All of them are zero, or none is taken for it. */
static int send_pages(struct lane *lane, uint64_t first, uint32_t count, bool zero,
		      struct base_error *err)
{
	struct mig_serve *serve = lane->serve;
	const struct mig_pages pages = { .first = first,
					 .count = count,
					 .bytes = zero ? NULL : page_at(serve, first) };
	static const atomic_bool at_once = true;
	uint32_t bytes = mig_pages_encode(&pages, lane->body);

	if (!zero)
		memcpy(lane->body + MIG_PAGES_HEADER_BYTES, pages.bytes,
		       (size_t)count * MIG_PAGE_BYTES);
	mig_rate_wait(serve->options.rate, bytes, lane->urgent ? &at_once : &serve->stop);
	atomic_fetch_add(lane->urgent ? &serve->asked_pages : &serve->rest_pages, count);
	atomic_fetch_add(&serve->zero_pages, zero ? count : 0);
	atomic_fetch_add(&serve->sent_bytes, bytes + MIG_FRAME_BYTES);
	return mig_link_send(lane->link, MIG_TYPE_PAGES, lane->body, bytes, err);
}

/* Until it is so, or over. */
static bool wait_for(struct mig_serve *serve, const bool *what)
{
	BASE_LOCKED(&serve->lock);

	while (!*what && !atomic_load(&serve->stop))
		(void)base_cond_wait(&serve->changed, &serve->lock, BASE_TIME_NEVER);
	return !atomic_load(&serve->stop);
}

/* --- what is asked for --- */

static int answer(struct lane *lane, const struct mig_want *want, struct base_error *err)
{
	struct mig_serve *serve = lane->serve;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < want->count; i++) {
		uint64_t page = want->pages[i];

		if (page >= serve->options.page_count)
			return base_fail(err, -EBADMSG,
					 "migration want: page %" PRIu64 ", memory has %" PRIu64,
					 page, serve->options.page_count);
		/* Whether it was sent before or not: it may have been lost with a connection. */
		(void)take_unsent(serve, page);
		r = send_pages(lane, page, 1, is_zero(serve, page), err);
		atomic_store(&serve->near, page + 1);
	}
	return r;
}

static int run_urgent(struct lane *lane, struct base_error *err)
{
	struct mig_received received;
	struct mig_want want;
	int r = 0;

	while (r == 0) {
		r = mig_link_receive(lane->link, &received, err);
		if (r == 0 && received.type == MIG_TYPE_GOT) /* a sign of life */
			continue;
		if (r == 0 && received.type != MIG_TYPE_WANT)
			r = base_fail(err, -EPROTO,
				      "migration: message %s where pages are asked for",
				      mig_type_row((uint32_t)received.type)->name);
		if (r == 0)
			r = mig_want_decode(received.body, received.body_bytes, &want, err);
		if (r == 0)
			r = answer(lane, &want, err);
	}
	return r;
}

/* --- the rest --- */

static int take_lacks(struct lane *lane, struct base_error *err)
{
	struct mig_serve *serve = lane->serve;
	struct mig_received received;
	struct mig_owed owed = { .last = false };
	uint64_t at = 0;
	int r = 0;

	for (uint64_t i = 0; i < serve->word_count; i++)
		atomic_store(&serve->unsent[i], 0);
	while (r == 0 && !owed.last) {
		r = mig_link_receive(lane->link, &received, err);
		if (r == 0 && received.type != MIG_TYPE_LACKS)
			return base_fail(err, -EPROTO, "migration: message %s, expected lacks",
					 mig_type_row((uint32_t)received.type)->name);
		if (r == 0)
			r = mig_owed_decode(received.body, received.body_bytes, &owed, err);
		if (r == 0)
			r = mig_owed_take(&owed, serve->options.page_count, &at, serve->unsent,
					  err);
	}
	return r;
}

/* The first unsent page of [@page, @end); @end: none. */
static uint64_t next_unsent(const struct mig_serve *serve, uint64_t page, uint64_t end)
{
	while (page < end) {
		uint64_t word = atomic_load(&serve->unsent[page / 64]) >> page % 64;

		if (word != 0) {
			page += (uint64_t)__builtin_ctzll(word);
			return page < end ? page : end;
		}
		page = (page / 64 + 1) * 64;
	}
	return end;
}

/* What is sent next: near a fault, else in order from where it was, and round. */
static uint64_t choose(struct mig_serve *serve)
{
	uint64_t pages = serve->options.page_count;
	uint64_t near = atomic_exchange(&serve->near, NO_PAGE);
	uint64_t page = 0;

	if (near < pages) {
		serve->near_at = near;
		serve->near_end = pages - near < NEAR_PAGES ? pages : near + NEAR_PAGES;
	}
	page = next_unsent(serve, serve->near_at, serve->near_end);
	serve->near_at = page;
	if (page < serve->near_end)
		return page;
	page = next_unsent(serve, serve->cursor, pages);
	if (page == pages)
		page = next_unsent(serve, 0, serve->cursor);
	else
		serve->cursor = page;
	return page < pages && is_unsent(serve, page) ? page : NO_PAGE;
}

static int take_got(struct lane *lane, struct base_error *err)
{
	struct mig_received received;
	int r = mig_link_receive(lane->link, &received, err);

	if (r < 0)
		return r;
	if (received.type != MIG_TYPE_GOT || !mig_yield_got(&lane->serve->yield, now_ns()))
		return base_fail(err, -EPROTO, "migration: message %s where pages go",
				 mig_type_row((uint32_t)received.type)->name);
	return 0;
}

/* A run of unsent pages that are all zero or all not.  1: there was none. */
static int send_run(struct lane *lane, struct base_error *err)
{
	struct mig_serve *serve = lane->serve;
	uint64_t first = choose(serve);
	uint32_t most = REST_PAGES;
	uint32_t count = 0;
	uint32_t bytes = 0;
	bool zero = false;

	if (first == NO_PAGE)
		return 1;
	zero = is_zero(serve, first);
	most = zero ? MIG_PAGES_MAX : REST_PAGES;
	while (count < most && first + count < serve->options.page_count &&
	       is_zero(serve, first + count) == zero && take_unsent(serve, first + count))
		count++;
	if (count == 0) /* it was asked for in this instant */
		return 0;
	bytes = MIG_PAGES_HEADER_BYTES + (zero ? 0 : count * MIG_PAGE_BYTES);
	mig_yield_sent(&serve->yield, now_ns(), bytes);
	return send_pages(lane, first, count, zero, err);
}

/* Room on the way first: what is chosen goes at once, and is not asked for meanwhile. */
static int send_next(struct lane *lane, struct base_error *err)
{
	const uint32_t bytes = MIG_PAGES_HEADER_BYTES + REST_PAGES * MIG_PAGE_BYTES;
	int r = 0;

	while (r == 0 && !mig_yield_may(&lane->serve->yield, bytes))
		r = take_got(lane, err);
	return r == 0 ? send_run(lane, err) : r;
}

/* 1: all is sent, and in its place.  What was answered elsewhere and got lost is asked for again
 * there. */
static int run_rest(struct lane *lane, struct base_error *err)
{
	struct mig_serve *serve = lane->serve;
	int r = take_lacks(lane, err);

	if (r == 0 && !wait_for(serve, &serve->goes))
		return base_fail(err, -ECANCELED, "migration: over");
	mig_yield_begin(&serve->yield);
	while (r == 0)
		r = send_next(lane, err);
	while (r == 1 && serve->yield.count > 0)
		if (take_got(lane, err) < 0)
			r = -ECONNRESET;
	return r;
}

/* --- lanes --- */

static void drop_link(struct lane *lane)
{
	struct mig_link *link = NULL;

	{
		BASE_LOCKED(&lane->serve->lock);

		link = lane->link;
		lane->link = NULL;
	}
	mig_link_free(link);
	base_closep(&lane->fd);
}

static int connect_lane(struct lane *lane, struct base_error *err)
{
	const struct mig_serve_options *options = &lane->serve->options;
	struct mig_link *link = NULL;
	int r = options->dial(options->context,
			      lane->urgent ? MIG_CHANNEL_URGENT : MIG_CHANNEL_REST, &link,
			      &lane->fd, err);
	BASE_LOCKED(&lane->serve->lock);

	if (r == 0)
		lane->link = link;
	return r;
}

/* False: over. */
static bool wait_again(struct mig_serve *serve)
{
	uint64_t until_ns = now_ns() + serve->options.retry_ms * BASE_NS_PER_MS;
	BASE_LOCKED(&serve->lock);

	while (!atomic_load(&serve->stop) &&
	       base_cond_wait(&serve->changed, &serve->lock, until_ns))
		continue;
	return !atomic_load(&serve->stop);
}

static void *lane_body(void *context)
{
	struct lane *lane = context;
	struct mig_serve *serve = lane->serve;

	if (!wait_for(serve, &serve->is_open))
		return NULL;
	while (!atomic_load(&serve->stop)) {
		struct base_error why = { 0 };

		if (lane->link != NULL) {
			if ((lane->urgent ? run_urgent(lane, &why) : run_rest(lane, &why)) == 1)
				break;
			drop_link(lane);
		}
		if (!wait_again(serve))
			break;
		if (connect_lane(lane, &why) == 0)
			atomic_fetch_add(&serve->dials, 1);
	}
	return NULL;
}

/* --- life --- */

int mig_serve_new(const struct mig_serve_options *options, struct mig_serve **ret_serve,
		  struct base_error *err)
{
	struct mig_serve *serve = calloc(1, sizeof(*serve));
	int r = 0;

	if (serve == NULL)
		return base_fail(err, -ENOMEM, "migration: pages that follow");
	serve->options = *options;
	serve->word_count = options->page_count / 64 + 1;
	atomic_init(&serve->near, NO_PAGE);
	(void)pthread_mutex_init(&serve->lock, NULL); /* these two cannot fail on Linux */
	(void)pthread_cond_init(&serve->changed, NULL);
	serve->unsent = calloc(serve->word_count, sizeof(*serve->unsent));
	if (serve->unsent == NULL)
		r = base_fail(err, -ENOMEM, "migration: bitmap of pages that follow");
	for (uint32_t i = 0; i < 2; i++) {
		serve->lanes[i].serve = serve;
		serve->lanes[i].urgent = i == 0;
		serve->lanes[i].fd = -1;
	}
	for (uint32_t i = 0; i < 2 && r == 0; i++) {
		struct lane *lane = &serve->lanes[i];

		r = connect_lane(lane, err);
		if (r == 0)
			r = base_thread_start(&lane->thread, "mig-serve", lane_body, lane, err);
		lane->has_thread = r == 0;
	}
	if (r < 0) {
		mig_serve_free(serve);
		return r;
	}
	*ret_serve = serve;
	return 0;
}

static void set(struct mig_serve *serve, bool *what)
{
	BASE_LOCKED(&serve->lock);

	*what = true;
	(void)pthread_cond_broadcast(&serve->changed);
}

void mig_serve_open(struct mig_serve *serve)
{
	set(serve, &serve->is_open);
}

void mig_serve_go(struct mig_serve *serve)
{
	set(serve, &serve->goes);
}

void mig_serve_redial(struct mig_serve *serve)
{
	BASE_LOCKED(&serve->lock);

	for (uint32_t i = 0; i < 2; i++)
		if (serve->lanes[i].link != NULL)
			mig_link_cancel(serve->lanes[i].link);
	(void)pthread_cond_broadcast(&serve->changed);
}

void mig_serve_stop(struct mig_serve *serve)
{
	atomic_store(&serve->stop, true);
	mig_serve_redial(serve);
	for (uint32_t i = 0; i < 2; i++) {
		if (serve->lanes[i].has_thread)
			base_thread_join(serve->lanes[i].thread);
		serve->lanes[i].has_thread = false;
		drop_link(&serve->lanes[i]);
	}
}

void mig_serve_free(struct mig_serve *serve)
{
	if (serve == NULL)
		return;
	mig_serve_stop(serve);
	free(serve->unsent);
	(void)pthread_cond_destroy(&serve->changed);
	(void)pthread_mutex_destroy(&serve->lock);
	free(serve);
}

struct mig_serve_counts mig_serve_counts(const struct mig_serve *serve)
{
	return (struct mig_serve_counts){
		.asked_pages = atomic_load(&serve->asked_pages),
		.rest_pages = atomic_load(&serve->rest_pages),
		.zero_pages = atomic_load(&serve->zero_pages),
		.sent_bytes = atomic_load(&serve->sent_bytes),
		.dials = atomic_load(&serve->dials),
	};
}
