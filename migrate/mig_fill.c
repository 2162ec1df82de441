/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_fill.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "migrate/mig_body.h"
#include "migrate/mig_waits_priv.h"

#define READ_MAX 64u

struct mig_fill {
	struct mig_fill_options options;
	struct mig_faults *faults;
	uint64_t word_count;
	_Atomic uint64_t *missing; /* may be claimed by who places */
	_Atomic uint64_t *absent;  /* not shown; goes behind the page's being shown */
	_Atomic uint64_t left;     /* of @absent */
	uint64_t owed_pages;
	_Atomic uint64_t fault_pages, rest_pages, twice_pages;
	atomic_uint lanes; /* that there were */
	atomic_bool aborted;
	int wake_fd;
	pthread_t thread;
	bool has_thread;

	pthread_mutex_t lane_lock; /* the life of @urgent; nothing but a send under it */
	struct mig_link *urgent;

	pthread_mutex_t lock; /* a leaf: what is below */
	struct mig_waits waits;
};

static uint64_t now_ns(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

static bool has_bit(const _Atomic uint64_t *bits, uint64_t page)
{
	return (atomic_load(&bits[page / 64]) & 1ULL << page % 64) != 0;
}

/* Whether it was set. */
static bool take_bit(_Atomic uint64_t *bits, uint64_t page)
{
	uint64_t bit = 1ULL << page % 64;

	return (atomic_fetch_and(&bits[page / 64], ~bit) & bit) != 0;
}

static bool is_absent(const struct mig_fill *fill, uint64_t page)
{
#ifdef GODWIT_MUTANT_MIG_POST_STALE
	return false;
#endif
	return has_bit(fill->absent, page);
}

static void wake(const struct mig_fill *fill)
{
	const uint64_t one = 1;

	if (write(fill->wake_fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
		base_bug("post-copy: the thread of faults cannot be told");
}

/* --- asking --- */

static void ask(struct mig_fill *fill, const struct mig_want *want)
{
	uint8_t body[MIG_WANT_BYTES_MAX];
	BASE_LOCKED(&fill->lane_lock);

	/* Without a connection, or where it breaks now, it is asked for on the next. */
	if (fill->urgent != NULL && want->count > 0)
		(void)!mig_link_send(fill->urgent, MIG_TYPE_WANT, body, mig_want_encode(want, body),
				     NULL);
}

/* All that is waited for, on a new connection. */
static void ask_again(struct mig_fill *fill)
{
	uint64_t pages[MIG_WAITS_MAX];
	uint32_t count = 0;

	{
		BASE_LOCKED(&fill->lock);

		count = mig_waits_list(&fill->waits, pages, now_ns());
	}
	for (uint32_t at = 0; at < count; at += MIG_WANT_MAX) {
		struct mig_want want = { .count = count - at < MIG_WANT_MAX ? count - at
									    : MIG_WANT_MAX };

		memcpy(want.pages, pages + at, want.count * sizeof(pages[0]));
		ask(fill, &want);
	}
}

/* --- faults --- */

/* A page that is here, and was dropped with its neighbours: as far as they are here, too. */
static void show(struct mig_fill *fill, uint64_t page)
{
	uint64_t end =
		page / MIG_FAULTS_BLOCK_PAGES * MIG_FAULTS_BLOCK_PAGES + MIG_FAULTS_BLOCK_PAGES;
	uint64_t behind = page + 1;

	end = end < fill->options.place.page_count ? end : fill->options.place.page_count;
	while (behind < end && !is_absent(fill, behind))
		behind++;
	if (mig_faults_show(fill->faults, page, behind - page, NULL) < 0)
		(void)!mig_faults_show(fill->faults, page, 1,
				       NULL); /* no memory: it faults again */
}

/* The placer clears the bit and then looks for who waits: one of us sees the other. */
static bool note_wait(struct mig_fill *fill, uint64_t page)
{
	BASE_LOCKED(&fill->lock);

	return is_absent(fill, page) && mig_waits_add(&fill->waits, page, now_ns());
}

static void take_faults(struct mig_fill *fill)
{
	uint64_t pages[READ_MAX];
	struct mig_want want = { .count = 0 };
	int count = mig_faults_read(fill->faults, pages, READ_MAX, NULL);

	for (int i = 0; i < count; i++) {
		if (!is_absent(fill, pages[i]))
			show(fill, pages[i]);
		else if (note_wait(fill, pages[i]))
			want.pages[want.count++] = pages[i];
	}
	ask(fill, &want);
}

/* Signs of life on the way that only we speak on, and a look at who waits for too long. */
static void tick(struct mig_fill *fill)
{
	uint64_t patience_ns = (uint64_t)fill->options.timeout_ms * BASE_NS_PER_MS;
	uint8_t body[MIG_NUMBER_BYTES];
	bool late = false;

	{
		BASE_LOCKED(&fill->lock);

		late = mig_waits_oldest(&fill->waits) + patience_ns < now_ns();
	}
	mig_number_encode(atomic_load(&fill->fault_pages), body);
	BASE_LOCKED(&fill->lane_lock);
	if (fill->urgent == NULL)
		return;
	(void)!mig_link_send(fill->urgent, MIG_TYPE_GOT, body, sizeof(body), NULL);
	if (late)
		mig_link_cancel(fill->urgent); /* the source makes another */
}

static void *serve_faults(void *context)
{
	struct mig_fill *fill = context;
	uint64_t tick_ns = (uint64_t)fill->options.timeout_ms * BASE_NS_PER_MS / 3;
	uint64_t next_ns = now_ns() + tick_ns;
	struct pollfd fds[2] = { { .fd = fill->wake_fd, .events = POLLIN },
				 { .fd = fill->options.place.fault_fd, .events = POLLIN } };

	while (!atomic_load(&fill->aborted) && atomic_load(&fill->left) > 0) {
		uint64_t now = now_ns();

		if (now >= next_ns) {
			tick(fill);
			next_ns = now + tick_ns;
			continue;
		}
		(void)poll(fds, 2, (int)((next_ns - now) / BASE_NS_PER_MS) + 1);
		if (fds[1].revents != 0)
			take_faults(fill);
	}
	mig_faults_end(fill->faults);
	if (!atomic_load(&fill->aborted))
		fill->options.done(fill->options.context);
	return NULL;
}

/* --- what comes --- */

static bool claim(struct mig_fill *fill, uint64_t page)
{
#ifdef GODWIT_MUTANT_MIG_POST_TWICE
	(void)take_bit(fill->missing, page);
	return true;
#endif
	return take_bit(fill->missing, page);
}

/* Claimed pages, which are ours alone. */
static int place_run(struct mig_fill *fill, uint64_t first, uint64_t count, const uint8_t *bytes,
		     struct base_error *err)
{
	uint64_t shown = 0;
	int r = mig_faults_fill(fill->faults, first, count, bytes, err);

	if (r < 0) { /* to come again: nobody was shown what was not whole */
		for (uint64_t page = first; page < first + count; page++)
			atomic_fetch_or(&fill->missing[page / 64], 1ULL << page % 64);
		return r;
	}
	for (uint64_t page = first; page < first + count; page++)
		shown += take_bit(fill->absent, page) ? 1 : 0;
	{
		uint64_t now = now_ns();
		BASE_LOCKED(&fill->lock);

		for (uint64_t page = first; page < first + count; page++)
			mig_waits_end(&fill->waits, page, now);
	}
	if (atomic_fetch_sub(&fill->left, shown) == shown)
		wake(fill);
	return 0;
}

static int place(struct mig_fill *fill, const struct mig_pages *pages, bool urgent,
		 struct base_error *err)
{
	uint64_t end = pages->first + pages->count;
	uint64_t page = pages->first;

	if (end > fill->options.place.page_count)
		return base_fail(err, -EBADMSG,
				 "migration pages: %" PRIu32 " from %" PRIu64
				 ", memory has %" PRIu64,
				 pages->count, pages->first, fill->options.place.page_count);
	while (page < end) {
		uint64_t first = page;
		int r = 0;

		while (page < end && claim(fill, page))
			page++;
		atomic_fetch_add(urgent ? &fill->fault_pages : &fill->rest_pages, page - first);
		if (page > first)
			r = place_run(fill, first, page - first,
				      pages->bytes != NULL ? pages->bytes + (first - pages->first) *
										    MIG_PAGE_BYTES
							   : NULL,
				      err);
		if (r < 0)
			return r;
		if (page < end) {
			atomic_fetch_add(&fill->twice_pages, 1);
			page++;
		}
	}
	return 0;
}

/* --- lanes --- */

static int say_lacks(struct mig_fill *fill, struct mig_link *link, struct base_error *err)
{
	const struct mig_owed end = { .last = true };
	bool more = true;
	uint64_t at = 0;
	int r = 0;

	while (r == 0 && more) {
		BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };

		more = mig_owed_next(fill->missing, fill->word_count, &at, &body);
		if (!more)
			mig_owed_encode(&end, &body);
		if (body.failed)
			return base_fail(err, -ENOMEM, "migration: pages that lack");
		r = mig_link_send(link, MIG_TYPE_LACKS, body.data, (uint32_t)body.size_bytes, err);
	}
	return r;
}

static int take(struct mig_fill *fill, const struct mig_received *received, bool urgent,
		struct base_error *err)
{
	struct mig_pages pages;
	int r = 0;

	if (received->type != MIG_TYPE_PAGES)
		return base_fail(err, -EPROTO, "migration: message %s where pages come",
				 mig_type_row((uint32_t)received->type)->name);
	r = mig_pages_decode(received->body, received->body_bytes, &pages, err);
	return r == 0 ? place(fill, &pages, urgent, err) : r;
}

static void set_urgent(struct mig_fill *fill, struct mig_link *link)
{
	BASE_LOCKED(&fill->lane_lock);

	fill->urgent = link;
}

int mig_fill_lane(struct mig_fill *fill, struct mig_link *link, bool urgent, struct base_error *err)
{
	struct mig_received received;
	uint8_t body[MIG_NUMBER_BYTES];
	uint64_t count = 0;
	int r = urgent ? 0 : say_lacks(fill, link, err);

	atomic_fetch_add(&fill->lanes, 1);
	if (urgent) {
		set_urgent(fill, link);
		ask_again(fill);
	}
	while (r == 0) {
		r = mig_link_receive(link, &received, err);
		if (r == 0)
			r = take(fill, &received, urgent, err);
		if (r == 0 && !urgent) {
			mig_number_encode(++count, body);
			r = mig_link_send(link, MIG_TYPE_GOT, body, sizeof(body), err);
		}
	}
	if (urgent)
		set_urgent(fill, NULL);
	return r;
}

/* --- life --- */

static int make_bits(struct mig_fill *fill, struct base_error *err)
{
	uint64_t count = 0;

	fill->missing = calloc(fill->word_count + 1, sizeof(*fill->missing));
	fill->absent = calloc(fill->word_count + 1, sizeof(*fill->absent));
	if (fill->missing == NULL || fill->absent == NULL)
		return base_fail(err, -ENOMEM, "migration: bitmaps of pages that come later");
	for (uint64_t i = 0; i < fill->word_count; i++) {
		uint64_t word = atomic_load(&fill->options.owed[i]);

		atomic_init(&fill->missing[i], word);
		atomic_init(&fill->absent[i], word);
		count += (uint64_t)__builtin_popcountll(word);
	}
	fill->owed_pages = count;
	atomic_init(&fill->left, count);
	return 0;
}

int mig_fill_new(const struct mig_fill_options *options, struct mig_fill **ret_fill,
		 struct base_error *err)
{
	struct mig_fill *fill = calloc(1, sizeof(*fill));
	int r = 0;

	if (fill == NULL)
		return base_fail(err, -ENOMEM, "migration: pages that come later");
	fill->options = *options;
	fill->word_count = options->place.page_count / 64 + 1;
	(void)pthread_mutex_init(&fill->lane_lock, NULL); /* these two cannot fail on Linux */
	(void)pthread_mutex_init(&fill->lock, NULL);
	fill->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fill->wake_fd < 0)
		r = base_fail_errno(err, -errno, "migration: eventfd");
	if (r == 0)
		r = make_bits(fill, err);
	if (r == 0)
		r = mig_faults_new(&options->place, fill->absent, &fill->faults, err);
	if (r == 0)
		r = base_thread_start(&fill->thread, "mig-faults", serve_faults, fill, err);
	fill->has_thread = r == 0;
	if (r < 0) {
		mig_fill_free(fill);
		return r;
	}
	*ret_fill = fill;
	return 0;
}

void mig_fill_free(struct mig_fill *fill)
{
	if (fill == NULL)
		return;
	if (fill->has_thread) {
		mig_fill_abort(fill);
		base_thread_join(fill->thread);
	}
	mig_faults_free(fill->faults);
	base_closep(&fill->wake_fd);
	free(fill->missing);
	free(fill->absent);
	(void)pthread_mutex_destroy(&fill->lane_lock);
	(void)pthread_mutex_destroy(&fill->lock);
	free(fill);
}

void mig_fill_abort(struct mig_fill *fill)
{
	atomic_store(&fill->aborted, true);
	wake(fill);
}

bool mig_fill_is_aborted(const struct mig_fill *fill)
{
	return atomic_load(&fill->aborted);
}

uint64_t mig_fill_left(const struct mig_fill *fill)
{
	return atomic_load(&fill->left);
}

struct mig_complete mig_fill_counts(struct mig_fill *fill)
{
	uint32_t lanes = atomic_load(&fill->lanes);
	struct mig_complete counts = {
		.owed_pages = fill->owed_pages,
		.fault_pages = atomic_load(&fill->fault_pages),
		.rest_pages = atomic_load(&fill->rest_pages),
		.twice_pages = atomic_load(&fill->twice_pages),
		.reconnects = lanes > 2 ? lanes - 2 : 0,
	};
	BASE_LOCKED(&fill->lock);

	mig_waits_tell(&fill->waits, &counts);
	return counts;
}
