/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory from a source to a destination over several channels, with a guest that writes while it is
 * sent, a channel that is late, and bytes that are damaged on their way.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "migrate/mig_copy.h"

#define PAGES    (40u * 256u + 77u) /* the last span is not whole */
#define WORDS    (PAGES / 64u + 1u)
#define CHANNELS 4u
#define ROUNDS   4u

struct receiver {
	uint32_t channel;
	int code;
	bool late; /* looks at nothing for a while */
	pthread_t thread;
	struct base_error err;
};

static struct mig_object objects[] = { { .unit_count = PAGES } };
static uint8_t *from_memory;
static uint8_t *to_memory;
static _Atomic uint64_t log_words[WORDS]; /* what the guest wrote */
static uint64_t harvest[WORDS];
static int fds[CHANNELS][2];
static struct mig_link *from_links[CHANNELS];
static struct mig_link *to_links[CHANNELS];
static struct receiver receivers[CHANNELS];
static struct mig_intake *intake;
static struct mig_copy *copy;
static struct base_pool *pool;
static struct base_error err;
static uint32_t channel_count = CHANNELS;

static struct mig_copy_options copy_options = { .page_count = PAGES, .links = from_links };

static void setup(void)
{
	struct mig_intake_options intake_options = { .objects = objects,
						     .object_count = 1,
						     .channel_count = channel_count };

	from_memory = calloc(PAGES, MIG_PAGE_BYTES);
	to_memory = calloc(PAGES, MIG_PAGE_BYTES);
	cr_assert(from_memory != NULL && to_memory != NULL);
	intake_options.memory = to_memory;
	copy_options.memory = from_memory;
	copy_options.channel_count = channel_count;
	cr_assert_eq(mig_intake_new(&intake_options, &intake, &err), 0);
	for (uint32_t i = 0; i < channel_count; i++) {
		struct mig_link_options options = { .is_source = true, .timeout_ms = 20000 };

		cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds[i]), 0);
		options.fd = fds[i][0];
		cr_assert_eq(mig_link_new(&options, &from_links[i], &err), 0);
		options.is_source = false;
		options.fd = fds[i][1];
		cr_assert_eq(mig_link_new(&options, &to_links[i], &err), 0);
		mig_link_register(to_links[i], MIG_REGION_MEMORY, to_memory,
				  (uint64_t)PAGES * MIG_PAGE_BYTES);
		mig_link_register(to_links[i], MIG_REGION_BOUNCE, mig_intake_bounce(intake, i + 1),
				  MIG_BOUNCE_BYTES);
		receivers[i] = (struct receiver){ .channel = i + 1 };
	}
	cr_assert_eq(base_pool_new(CHANNELS, "mover", &pool, &err), 0);
	copy_options.pool = pool;
	cr_assert_eq(mig_copy_new(&copy_options, &copy, &err), 0);
}

static void teardown(void)
{
	mig_copy_free(copy);
	base_pool_free(pool);
	for (uint32_t i = 0; i < channel_count; i++) {
		mig_link_free(from_links[i]);
		mig_link_free(to_links[i]);
		(void)close(fds[i][0]);
		(void)close(fds[i][1]);
	}
	mig_intake_free(intake);
	free(from_memory);
	free(to_memory);
}

TestSuite(mig_stream, .init = setup, .fini = teardown, .timeout = 240);

static void compress_all(void)
{
	mig_copy_free(copy);
	copy_options.compress = MIG_COMPRESS_ALWAYS;
	cr_assert_eq(mig_copy_new(&copy_options, &copy, &err), 0);
}

/* Until the barrier of the round, or an error. */
static void *receive(void *context)
{
	struct receiver *receiver = context;
	struct mig_link *link = to_links[receiver->channel - 1];
	struct mig_received received;

	if (receiver->late)
		base_sleep_ns(300 * BASE_NS_PER_MS);
	for (;;) {
		int r = mig_link_receive(link, &received, &receiver->err);

		if (r == 0 && received.type == MIG_TYPE_CHUNK)
			r = mig_intake_chunk(intake, receiver->channel, received.body,
					     &receiver->err);
		else if (r == 0 && received.type == MIG_TYPE_BARRIER)
			r = mig_intake_barrier(intake, receiver->channel,
					       base_get_le32(received.body), &receiver->err);
		receiver->code = r;
		if (r < 0 || received.type == MIG_TYPE_BARRIER)
			return NULL;
	}
}

static int send_round(uint32_t number, bool last)
{
	int worst = 0;
	int r = 0;

	cr_assert_eq(mig_intake_round(intake, number, last, &err), 0, "%s", err.text);
	for (uint32_t i = 0; i < channel_count; i++)
		cr_assert_eq(pthread_create(&receivers[i].thread, NULL, receive, &receivers[i]), 0);
	r = mig_copy_round(copy, harvest, number, last, &err);
	cr_assert_eq(r, 0, "%s", err.text);
	for (uint32_t i = 0; i < channel_count; i++) {
		cr_assert_eq(pthread_join(receivers[i].thread, NULL), 0);
		if (receivers[i].code < 0)
			worst = receivers[i].code;
	}
	return worst;
}

static void take_harvest(void)
{
	for (uint32_t i = 0; i < WORDS; i++)
		harvest[i] = atomic_exchange(&log_words[i], 0);
}

/* The guest: the byte is there before its page is logged, as with a dirty log. */
static void guest_write(uint64_t page, uint32_t at, uint8_t value)
{
	__atomic_store_n(&from_memory[page * MIG_PAGE_BYTES + at], value, __ATOMIC_RELAXED);
	atomic_fetch_or(&log_words[page / 64], 1ULL << page % 64);
}

static void fill(void)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		if (page % 5 == 0)
			continue; /* zero */
		memset(from_memory + page * MIG_PAGE_BYTES, (int)(1 + page % 250), MIG_PAGE_BYTES);
		atomic_fetch_or(&log_words[page / 64], 1ULL << page % 64);
	}
	for (uint64_t page = 0; page < PAGES; page += 10) /* touched, and zero */
		atomic_fetch_or(&log_words[page / 64], 1ULL << page % 64);
}

static void expect_same(void)
{
	cr_assert_eq(memcmp(from_memory, to_memory, (size_t)PAGES * MIG_PAGE_BYTES), 0);
}

/* What was reported of the round before, against what was written since; returns how many. */
static uint32_t forgive(void)
{
	static struct mig_failure failures[MIG_FAILURES_MAX];
	uint32_t count = mig_intake_failures(intake, failures);

	cr_assert_eq(mig_copy_forgive(copy, failures, count, harvest, &err), 0, "%s", err.text);
	return count;
}

Test(mig_stream, a_guest_that_stands_still)
{
	struct mig_copy_counts counts;

	fill();
	take_harvest();
	cr_assert_eq(send_round(0, false), 0);
	counts = mig_copy_counts(copy);
	cr_assert_eq(counts.page_count, mig_intake_counts(intake).page_count);
	cr_assert_eq(counts.zero_pages, mig_intake_counts(intake).zero_pages);
	cr_assert_eq(counts.zero_pages, (PAGES + 9) / 10);
	cr_assert_eq(counts.chunks, mig_intake_counts(intake).chunks);
	take_harvest();
	cr_assert_eq(forgive(), 0);
	cr_assert_eq(send_round(1, true), 0);
	cr_assert_eq(mig_copy_counts(copy).chunks, counts.chunks); /* nothing was left */
	cr_assert(mig_intake_is_whole(intake));
	expect_same();
}

/* --- with a log, of which pages are forgotten before they are read --- */

static uint64_t cleared[PAGES / 256u + 1u]; /* spans, in their order */
static size_t cleared_count;
static atomic_bool others_write; /* not these operations */
static uint64_t hot_span;        /* written to all the time; 0: none */

static int log_get(void *context, uint64_t *into, struct base_error *log_err)
{
	(void)context;
	(void)log_err;
	for (uint32_t i = 0; i < WORDS; i++)
		into[i] = atomic_load(&log_words[i]);
	return 0;
}

static int log_clear(void *context, uint64_t first_page, uint64_t page_count, const uint64_t *bits,
		     struct base_error *log_err)
{
	(void)context;
	(void)log_err;
	if (page_count != PAGES && !atomic_load(&others_write)) {
		cleared[cleared_count++] = first_page / 256;
		guest_write(first_page + 7, 5, 99); /* as late as can be: read, or lost */
	}
	for (uint64_t i = 0; i < (page_count + 63) / 64; i++)
		atomic_fetch_and(&log_words[first_page / 64 + i], ~bits[i]);
	if (page_count != PAGES && !atomic_load(&others_write))
		guest_write(first_page + 9, 5, 98); /* sent or not, it is in the log again */
	for (uint64_t page = hot_span * 256; page_count == PAGES && hot_span != 0; page++) {
		if (page == hot_span * 256 + 256)
			break;
		guest_write(page, 1, 1);
	}
	if (page_count == PAGES)
		base_sleep_ns(5 * BASE_NS_PER_MS); /* after which the log is looked at */
	return 0;
}

static const struct mig_dirty_ops log_ops = { .get = log_get, .clear = log_clear };

/* One channel: an order can be seen. */
static void one_logged_channel(void)
{
	teardown();
	channel_count = 1;
	copy_options.log = &log_ops;
	setup();
	for (uint64_t page = 0; page < PAGES; page++)
		guest_write(page, 0, (uint8_t)(1 + page % 250));
	(void)log_get(NULL, harvest, NULL);
}

Test(mig_stream, what_is_written_before_it_is_read_is_not_lost)
{
	one_logged_channel();
	cr_assert_eq(send_round(0, false), 0);
	cr_assert_eq(cleared_count, PAGES / 256u + 1u);
	(void)log_get(NULL, harvest, NULL);
	for (uint64_t page = 0; page < PAGES; page++)
		cr_assert_eq(harvest[page / 64] >> page % 64 & 1, page % 256 == 9, "page %u",
			     (unsigned int)page);
	cr_assert_eq(send_round(1, true), 0);
	cr_assert_eq(cleared_count, PAGES / 256u + 1u,
		     "nothing is cleared of a VM that stands still");
	expect_same();
}

Test(mig_stream, what_the_guest_writes_to_goes_last)
{
	hot_span = 17;
	one_logged_channel();
	cr_assert_eq(send_round(0, false), 0);
	cr_assert_eq(cleared_count, PAGES / 256u + 1u);
	cr_assert_eq(cleared[cleared_count - 1], 17);
	(void)log_get(NULL, harvest, NULL);
	cr_assert_eq(send_round(1, true), 0);
	expect_same();
}

/* Whatever shrinks is compressed; what does not goes as it is. */
Test(mig_stream, compressed)
{
	struct mig_copy_counts counts;
	uint32_t random = 1;

	compress_all();
	fill();
	for (uint64_t at = 0; at < 300ULL * MIG_PAGE_BYTES; at++) {
		random = random * 1664525u + 1013904223u;
		from_memory[at] = (uint8_t)(random >> 24);
	}
	take_harvest();
	for (uint64_t page = 0; page < 300; page++)
		harvest[page / 64] |= 1ULL << page % 64;
	cr_assert_eq(send_round(0, false), 0);
	counts = mig_copy_counts(copy);
	cr_assert_eq(counts.page_count, mig_intake_counts(intake).page_count);
	cr_assert_eq(counts.lz4_pages, counts.page_count - 300);
	cr_assert_lt(counts.lz4_bytes, counts.lz4_pages * MIG_PAGE_BYTES / 50);
	expect_same();
	take_harvest();
	cr_assert_eq(send_round(1, true), 0);
	cr_assert(mig_intake_is_whole(intake));
}

#if !defined(__SANITIZE_THREAD__) /* a guest's writes race with the sender by design */
static atomic_bool stop;

static void *guest(void *context)
{
	uint32_t random = 1;

	(void)context;
	while (!atomic_load(&stop)) {
		random = random * 1664525u + 1013904223u;
		guest_write((random >> 8) % PAGES, random >> 3 & 4095u, (uint8_t)(random >> 24));
	}
	return NULL;
}

static void writes_meanwhile(void)
{
	uint32_t forgiven = 0;
	pthread_t thread;

	fill();
	take_harvest();
	cr_assert_eq(pthread_create(&thread, NULL, guest, NULL), 0);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		receivers[round % CHANNELS].late = true;
		cr_assert_eq(send_round(round, false), 0, "%s",
			     receivers[round % CHANNELS].err.text);
		receivers[round % CHANNELS].late = false;
		take_harvest();
		forgiven += forgive();
	}
	atomic_store(&stop, true);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	for (uint32_t i = 0; i < WORDS; i++) /* what was written since the harvest */
		harvest[i] |= atomic_exchange(&log_words[i], 0);
	cr_assert_eq(send_round(ROUNDS, true), 0);
	expect_same();
	cr_log_info("%u chunks changed under the sender", forgiven);
}

/* Pages change under the sender; one channel is late in each round; the end is the same. */
Test(mig_stream, a_guest_that_writes_meanwhile)
{
	writes_meanwhile();
}

/* Only in the first round chunks are sent from where the guest writes. */
Test(mig_stream, later_rounds_are_sent_from_copies)
{
	pthread_t thread;

	atomic_store(&others_write, true);
	mig_copy_free(copy);
	copy_options.log = &log_ops;
	cr_assert_eq(mig_copy_new(&copy_options, &copy, &err), 0);
	fill();
	(void)log_get(NULL, harvest, NULL);
	cr_assert_eq(pthread_create(&thread, NULL, guest, NULL), 0);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		cr_assert_eq(send_round(round, false), 0);
		(void)log_get(NULL, harvest, NULL);
		if (round > 0)
			cr_assert_eq(forgive(), 0, "round %u", round);
		else
			(void)forgive();
	}
	atomic_store(&stop, true);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	(void)log_get(NULL, harvest, NULL);
	cr_assert_eq(send_round(ROUNDS, true), 0);
	expect_same();
}

/* What is compressed is a copy: no checksum of it ever fails. */
Test(mig_stream, a_guest_that_writes_what_is_compressed)
{
	compress_all();
	writes_meanwhile();
	cr_assert_gt(mig_copy_counts(copy).lz4_pages, 0);
}
#endif

/* A page is damaged on its way while the guest runs: it is reported, and as nobody wrote it, that
 * is the end. */
Test(mig_stream, damage_is_not_forgiven)
{
	static struct mig_failure failures[MIG_FAILURES_MAX];
	uint8_t bytes[MIG_CHUNK_BYTES];
	struct mig_chunk chunk = { .kind = MIG_CHUNK_PAGES,
				   .count = 1,
				   .stored_bytes = MIG_PAGE_BYTES,
				   .generation = 1,
				   .region = MIG_REGION_MEMORY };

	cr_assert_eq(mig_intake_round(intake, 0, false, &err), 0);
	memset(to_memory, 7, MIG_PAGE_BYTES);
	chunk.crc = base_crc32c(0, to_memory, MIG_PAGE_BYTES);
	to_memory[99] ^= 0x10;
	mig_chunk_encode(&chunk, bytes);
	cr_assert_eq(mig_intake_chunk(intake, 1, bytes, &err), 0);
	cr_assert_eq(mig_intake_failures(intake, failures), 1);
	cr_assert_eq(mig_copy_forgive(copy, failures, 1, harvest, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "pages 0+1 arrived damaged"), "%s", err.text);
	guest_write(0, 5, 5);
	take_harvest();
	cr_assert_eq(mig_copy_forgive(copy, failures, 1, harvest, &err), 0);
	failures[0].count = 256; /* and then all of it is sent again */
	cr_assert_eq(mig_copy_forgive(copy, failures, 1, harvest, &err), 0);
	cr_assert_eq(harvest[0], UINT64_MAX);
	cr_assert_eq(harvest[3], UINT64_MAX);
	cr_assert_eq(harvest[4], 0);
	failures[0].first = PAGES;
	cr_assert_eq(mig_copy_forgive(copy, failures, 1, harvest, &err), -EBADMSG);
	failures[0] = (struct mig_failure){ .object = 1, .count = 1 };
	cr_assert_eq(mig_copy_forgive(copy, failures, 1, harvest, &err), -EBADMSG);
}

/* The other side goes away in the middle: the round ends with an error on all channels. */
Test(mig_stream, a_destination_that_goes_away)
{
	fill();
	take_harvest();
	for (uint32_t i = 0; i < CHANNELS; i++)
		mig_link_cancel(to_links[i]);
	cr_assert_lt(mig_copy_round(copy, harvest, 0, false, &err), 0);
	cr_assert_neq(err.text[0], '\0');
}
