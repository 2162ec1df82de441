/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that come while the guest runs: real faults, threads as the guest, and a source played by
 * the test, which may send what it likes.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/thread.h"
#include "hypervisor/memory_priv.h"
#include "migrate/mig_body.h"
#include "migrate/mig_fill.h"

#define PAGES (4u * MIG_FAULTS_BLOCK_PAGES + 5u)
#define WORDS (PAGES / 64u + 1u)
#define OLD   0x11 /* what a page had in an earlier round */
#define GUEST 0x77 /* what the guest writes */

/* One connection: the fill's end, its thread, and the test's end. */
struct end {
	int fds[2];
	struct mig_link *fill_link, *source;
	pthread_t thread;
	bool urgent;
	bool there;
	int code;
	struct base_error err;
};

static int fault_fd = -1;
static int memory_fd = -1;
static uint8_t *memory;
static _Atomic uint64_t owed[WORDS];
static struct mig_fill *fill;
static uint32_t patience_ms = 20000;
static struct end ends[2]; /* urgent, rest */
static atomic_int done;
static struct base_error err;

static void on_done(void *context)
{
	(void)context;
	atomic_fetch_add(&done, 1);
}

static uint8_t new_byte(uint64_t page)
{
	return (uint8_t)(0x80 + page % 97);
}

static void set_up(void)
{
	memset(owed, 0, sizeof(owed));
	atomic_store(&done, 0);
	if (mig_faults_open(&fault_fd, &err) < 0)
		cr_skip_test("%s", err.text);
	memory_fd = memfd_create("fill-test", MFD_CLOEXEC);
	cr_assert(memory_fd >= 0 && ftruncate(memory_fd, (off_t)PAGES * MIG_PAGE_BYTES) == 0);
	memory = mmap(NULL, (size_t)PAGES * MIG_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		      memory_fd, 0);
	cr_assert(memory != MAP_FAILED);
	memset(memory, OLD, (size_t)PAGES * MIG_PAGE_BYTES);
}

static void owe(uint64_t page)
{
	owed[page / 64] |= 1ULL << page % 64;
}

static void make_fill(void)
{
	const struct mig_fill_options options = {
		.place = { .fault_fd = fault_fd,
			   .memory_fd = memory_fd,
			   .memory = memory,
			   .page_count = PAGES },
		.owed = owed,
		.timeout_ms = patience_ms,
		.done = on_done,
	};

	cr_assert_eq(mig_fill_new(&options, &fill, &err), 0, "%s", err.text);
}

static void *lane(void *context)
{
	struct end *end = context;

	end->code = mig_fill_lane(fill, end->fill_link, end->urgent, &end->err);
	mig_link_cancel(end->fill_link);
	return NULL;
}

static struct end *open_end(bool urgent)
{
	struct end *end = &ends[urgent ? 0 : 1];
	struct mig_link_options options = { 0 };

	*end = (struct end){ .urgent = urgent, .there = true };
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end->fds), 0);
	options.fd = end->fds[0];
	cr_assert_eq(mig_link_new(&options, &end->fill_link, &err), 0);
	options = (struct mig_link_options){ .fd = end->fds[1],
					     .is_source = true,
					     .timeout_ms = 20000 };
	cr_assert_eq(mig_link_new(&options, &end->source, &err), 0);
	cr_assert_eq(base_thread_start(&end->thread, "lane", lane, end, &err), 0);
	return end;
}

/* What it has ended with. */
static int close_end(struct end *end)
{
	mig_link_cancel(end->source);
	base_thread_join(end->thread);
	mig_link_free(end->fill_link);
	mig_link_free(end->source);
	(void)close(end->fds[0]);
	(void)close(end->fds[1]);
	end->there = false;
	return end->code;
}

static void tear_down(void)
{
	for (size_t i = 0; i < 2; i++)
		if (ends[i].there)
			(void)close_end(&ends[i]);
	mig_fill_free(fill);
	fill = NULL;
	(void)munmap(memory, (size_t)PAGES * MIG_PAGE_BYTES);
	(void)close(memory_fd);
	(void)close(fault_fd);
}

TestSuite(mig_fill, .init = set_up, .fini = tear_down, .timeout = 30);

/* --- the source --- */

static void send_bytes(struct end *end, uint64_t first, uint32_t count, int byte)
{
	static uint8_t body[MIG_PAGES_BYTES_MAX];
	static const uint8_t some;
	const struct mig_pages pages = { .first = first,
					 .count = count,
					 .bytes = byte == 0 ? NULL : &some };
	uint32_t bytes = mig_pages_encode(&pages, body);

	for (uint32_t i = 0; byte != 0 && i < count; i++)
		memset(body + MIG_PAGES_HEADER_BYTES + (size_t)i * MIG_PAGE_BYTES,
		       byte < 0 ? new_byte(first + i) : byte, MIG_PAGE_BYTES);
	cr_assert_eq(mig_link_send(end->source, MIG_TYPE_PAGES, body, bytes, &err), 0, "%s",
		     err.text);
}

/* The next message; signs of life are passed over on the urgent one. */
static struct mig_received hear(struct end *end)
{
	struct mig_received received;

	do {
		cr_assert_eq(mig_link_receive(end->source, &received, &err), 0, "%s", err.text);
	} while (end->urgent && received.type == MIG_TYPE_GOT);
	return received;
}

static struct mig_want hear_want(struct end *end)
{
	struct mig_received received = hear(end);
	struct mig_want want;

	cr_assert_eq(received.type, MIG_TYPE_WANT);
	cr_assert_eq(mig_want_decode(received.body, received.body_bytes, &want, &err), 0);
	return want;
}

static void hear_lacks(struct end *end, _Atomic uint64_t *into)
{
	struct mig_owed part = { .last = false };
	uint64_t at = 0;

	while (!part.last) {
		struct mig_received received = hear(end);

		cr_assert_eq(received.type, MIG_TYPE_LACKS);
		cr_assert_eq(mig_owed_decode(received.body, received.body_bytes, &part, &err), 0);
		cr_assert_eq(mig_owed_take(&part, PAGES, &at, into, &err), 0, "%s", err.text);
	}
}

/* --- the guest --- */

struct toucher {
	pthread_t thread;
	uint64_t page;
	bool writes;
	atomic_int saw; /* 0: it waits */
};

static void *touch(void *context)
{
	struct toucher *toucher = context;
	uint8_t *at = memory + toucher->page * MIG_PAGE_BYTES;
	uint8_t first = *(volatile uint8_t *)at;
	uint8_t last = ((volatile uint8_t *)at)[MIG_PAGE_BYTES - 1];

	if (toucher->writes)
		memset(at, GUEST, MIG_PAGE_BYTES);
	atomic_store(&toucher->saw, first == last ? 1 + first : 1000); /* torn */
	return NULL;
}

static void touch_begin(struct toucher *toucher, uint64_t page, bool writes)
{
	*toucher = (struct toucher){ .page = page, .writes = writes };
	cr_assert_eq(base_thread_start(&toucher->thread, "guest", touch, toucher, &err), 0);
}

static int touch_end(struct toucher *toucher)
{
	base_thread_join(toucher->thread);
	return atomic_load(&toucher->saw) - 1;
}

static void wait_done(void)
{
	while (atomic_load(&done) == 0)
		base_sleep_ns(BASE_NS_PER_MS / 10);
}

/* --- tests --- */

Test(mig_fill, a_page_that_is_asked_for_is_waited_for)
{
	struct toucher toucher;
	struct mig_complete counts;
	struct mig_want want;
	struct end *urgent = NULL;

	owe(7);
	make_fill();
	urgent = open_end(true);
	touch_begin(&toucher, 7, false);
	want = hear_want(urgent);
	cr_assert(want.count == 1 && want.pages[0] == 7);
	cr_assert_eq(atomic_load(&toucher.saw), 0, "it has seen the old one");
	send_bytes(urgent, 7, 1, -1);
	cr_assert_eq(touch_end(&toucher), new_byte(7));
	wait_done();
	counts = mig_fill_counts(fill);
	cr_assert(counts.owed_pages == 1 && counts.fault_pages == 1 && counts.waits == 1);
	cr_assert(counts.longest_ns > 0 && counts.p99_ns <= counts.longest_ns &&
		  counts.p50_ns <= counts.p99_ns);
}

Test(mig_fill, pages_that_are_here_are_shown_without_the_source)
{
	struct toucher toucher;

	owe(MIG_FAULTS_BLOCK_PAGES + 1);
	make_fill();
	for (uint64_t page = 0; page < PAGES; page += 3) {
		if (page == MIG_FAULTS_BLOCK_PAGES + 1)
			continue;
		touch_begin(&toucher, page, false);
		cr_assert_eq(touch_end(&toucher), OLD);
	}
	cr_assert_eq(mig_fill_left(fill), 1);
}

/* What was never touched is a hole of the file, and zero. */
Test(mig_fill, holes_are_pages_of_zeros)
{
	struct toucher toucher;

	cr_assert_eq(madvise(memory, (size_t)PAGES * MIG_PAGE_BYTES, MADV_REMOVE), 0);
	owe(3);
	make_fill();
	touch_begin(&toucher, 2, false);
	cr_assert_eq(touch_end(&toucher), 0);
	touch_begin(&toucher, 4, true);
	cr_assert_eq(touch_end(&toucher), 0);
	cr_assert_eq(memory[4 * MIG_PAGE_BYTES], GUEST);
}

/* The guest may have written to it since. */
Test(mig_fill, what_comes_twice_is_dropped)
{
	struct toucher toucher;
	struct end *urgent = NULL;
	struct end *rest = NULL;

	owe(7);
	owe(8);
	make_fill();
	urgent = open_end(true);
	rest = open_end(false);
	hear_lacks(rest, owed);
	touch_begin(&toucher, 7, true);
	(void)hear_want(urgent);
	send_bytes(urgent, 7, 1, -1);
	cr_assert_eq(touch_end(&toucher), new_byte(7));
	send_bytes(rest, 6, 3, -1); /* 6 was never owed */
	cr_assert_eq(hear(rest).type, MIG_TYPE_GOT);
	cr_assert_eq(memory[7 * MIG_PAGE_BYTES], GUEST, "an old one over the guest's");
	cr_assert_eq(memory[6 * MIG_PAGE_BYTES], OLD);
	cr_assert_eq(memory[8 * MIG_PAGE_BYTES], new_byte(8));
	wait_done();
	cr_assert_eq(mig_fill_counts(fill).twice_pages, 2);
	cr_assert_eq(mig_fill_counts(fill).rest_pages, 1);
}

/* Zeros over what an earlier round brought; by the block, beyond its end, the last page of all. */
Test(mig_fill, zeros_and_runs)
{
	_Atomic uint64_t lacks[WORDS];
	struct end *rest = NULL;

	memset(lacks, 0, sizeof(lacks));
	for (uint64_t page = MIG_FAULTS_BLOCK_PAGES - 20; page < MIG_FAULTS_BLOCK_PAGES + 20;
	     page++)
		owe(page);
	owe(PAGES - 1);
	make_fill();
	rest = open_end(false);
	hear_lacks(rest, lacks);
	for (size_t i = 0; i < WORDS; i++)
		cr_assert_eq(lacks[i], owed[i]);
	send_bytes(rest, MIG_FAULTS_BLOCK_PAGES - 20, 40, 0);
	send_bytes(rest, PAGES - 1, 1, -1);
	wait_done();
	cr_assert(base_is_zero(memory + (MIG_FAULTS_BLOCK_PAGES - 20) * (size_t)MIG_PAGE_BYTES,
			       40 * (size_t)MIG_PAGE_BYTES));
	cr_assert_eq(memory[(MIG_FAULTS_BLOCK_PAGES + 20) * (size_t)MIG_PAGE_BYTES], OLD);
	cr_assert_eq(memory[(PAGES - 1) * (size_t)MIG_PAGE_BYTES], new_byte(PAGES - 1));
}

/* A reader and a writer of each of many pages, at once; never an old byte, never a torn page. */
Test(mig_fill, many_wait_at_once)
{
	static struct toucher touchers[200];
	struct end *urgent = NULL;

	for (uint64_t page = 0; page < PAGES; page++)
		owe(page);
	make_fill();
	urgent = open_end(true);
	(void)open_end(false);
	for (uint32_t i = 0; i < 200; i++)
		touch_begin(&touchers[i], (uint64_t)(i / 2) * 19, i % 2 == 1);
	for (uint32_t got = 0; got < 100;) {
		struct mig_want want = hear_want(urgent);

		for (uint32_t i = 0; i < want.count; i++)
			send_bytes(urgent, want.pages[i], 1, -1);
		got += want.count;
	}
	for (uint32_t i = 0; i < 200; i++) {
		int saw = touch_end(&touchers[i]);

		cr_assert(saw == new_byte(touchers[i].page) || saw == GUEST, "saw %d", saw);
	}
	cr_assert_eq(mig_fill_left(fill), PAGES - 100);
}

/* What was asked for on a connection that broke is asked for on the next; what is here is not. */
Test(mig_fill, a_connection_breaks)
{
	_Atomic uint64_t lacks[WORDS];
	struct toucher toucher;
	struct mig_want want;
	struct end *urgent = NULL;
	struct end *rest = NULL;

	memset(lacks, 0, sizeof(lacks));
	owe(100);
	owe(101);
	owe(102);
	make_fill();
	rest = open_end(false);
	hear_lacks(rest, lacks);
	send_bytes(rest, 101, 1, -1);
	cr_assert_eq(hear(rest).type, MIG_TYPE_GOT);
	urgent = open_end(true);
	touch_begin(&toucher, 100, false);
	(void)hear_want(urgent);
	(void)close_end(urgent);
	(void)close_end(rest);

	urgent = open_end(true);
	want = hear_want(urgent);
	cr_assert(want.count == 1 && want.pages[0] == 100);
	rest = open_end(false);
	memset(lacks, 0, sizeof(lacks));
	hear_lacks(rest, lacks);
	cr_assert_eq(lacks[100 / 64], 1ULL << 100 % 64 | 1ULL << 102 % 64);
	send_bytes(urgent, 100, 1, -1);
	cr_assert_eq(touch_end(&toucher), new_byte(100));
	send_bytes(rest, 102, 1, -1);
	wait_done();
	cr_assert_eq(mig_fill_counts(fill).reconnects, 2);
}

/* A source that lives and does not answer: the connection is ended, for another to be made. */
Test(mig_fill, an_answer_that_does_not_come)
{
	struct toucher toucher;
	struct end *urgent = NULL;

	patience_ms = 1500;
	owe(100);
	make_fill();
	urgent = open_end(true);
	touch_begin(&toucher, 100, false);
	(void)hear_want(urgent);
	base_thread_join(urgent->thread); /* by itself */
	cr_assert_eq(urgent->code, -ECANCELED);
	cr_assert_eq(base_thread_start(&urgent->thread, "lane", lane, urgent, &err), 0); /* none */
	(void)close_end(urgent);
	urgent = open_end(true);
	(void)hear_want(urgent);
	send_bytes(urgent, 100, 1, -1);
	cr_assert_eq(touch_end(&toucher), new_byte(100));
}

/* Places that cannot be, types that are not for here: nothing of it is placed. */
Test(mig_fill, a_source_that_means_ill)
{
	static uint8_t body[MIG_PAGES_BYTES_MAX];
	struct end *end = NULL;

	owe(PAGES - 1);
	make_fill();
	end = open_end(true);
	send_bytes(end, PAGES - 1, 2, -1);
	base_thread_join(end->thread);
	cr_assert_eq(end->code, -EBADMSG, "%s", end->err.text);
	cr_assert_eq(base_thread_start(&end->thread, "lane", lane, end, &err), 0);
	(void)close_end(end);
	end = open_end(true);
	base_put_le64(body, UINT64_MAX - 3);
	base_put_le32(body + 8, 4);
	base_put_le32(body + 12, 2);
	cr_assert_eq(mig_link_send(end->source, MIG_TYPE_PAGES, body, 16, &err), 0);
	base_thread_join(end->thread);
	cr_assert_eq(end->code, -EBADMSG, "%s", end->err.text);
	cr_assert_eq(base_thread_start(&end->thread, "lane", lane, end, &err), 0);
	(void)close_end(end);
	end = open_end(true);
	mig_number_encode(1, body);
	cr_assert_eq(mig_link_send(end->source, MIG_TYPE_BARRIER, body, 8, &err), 0);
	base_thread_join(end->thread);
	cr_assert_eq(end->code, -EPROTO, "%s", end->err.text);
	cr_assert_eq(base_thread_start(&end->thread, "lane", lane, end, &err), 0);
	cr_assert_eq(mig_fill_left(fill), 1);
}

/* Memory as a worker has it: reserved, of large pages where the host gives them, and mapped so. */
Test(mig_fill, memory_of_large_pages)
{
	uint8_t *small = memory;
	int small_fd = memory_fd;
	struct hv_memory *large = NULL;
	struct toucher toucher;
	struct end *rest = NULL;

	cr_assert_eq(hv_memory_new(64u << 20, HV_MEMORY_AUTO, &large, &err), 0, "%s", err.text);
	cr_assert_eq(hv_memory_reserve(large, &err), 0, "%s", err.text);
	memory = hv_memory_base(large);
	memory_fd = hv_memory_fd(large);
	memset(memory, OLD, 3u * MIG_FAULTS_BLOCK_PAGES * MIG_PAGE_BYTES); /* the others: holes */
	for (uint64_t page = 1; page < PAGES; page += 2)
		owe(page);
	make_fill();
	for (uint64_t page = 0; page < PAGES; page += 100) {
		touch_begin(&toucher, page, false);
		cr_assert_eq(touch_end(&toucher), page < 3u * MIG_FAULTS_BLOCK_PAGES ? OLD : 0);
	}
	rest = open_end(false);
	hear_lacks(rest, owed);
	touch_begin(&toucher, 777, true);
	for (uint64_t page = 1; page < PAGES; page += 2) {
		send_bytes(rest, page, 1, -1);
		cr_assert_eq(hear(rest).type, MIG_TYPE_GOT);
	}
	cr_assert_eq(touch_end(&toucher), new_byte(777));
	wait_done();
	for (uint64_t page = 0; page < PAGES; page++) {
		uint8_t expected = page == 777                          ? GUEST
				   : page % 2 == 1                      ? new_byte(page)
				   : page < 3u * MIG_FAULTS_BLOCK_PAGES ? OLD
									: 0;

		cr_assert_eq(memory[page * MIG_PAGE_BYTES + 5], expected, "page %d", (int)page);
	}
	(void)close_end(rest);
	mig_fill_free(fill);
	fill = NULL;
	hv_memory_free(large);
	memory = small;
	memory_fd = small_fd;
}

/* A move that has ended before the VM ran: who waits goes on. */
Test(mig_fill, an_abort_lets_them_go)
{
	struct toucher toucher;

	owe(7);
	make_fill();
	touch_begin(&toucher, 7, false);
	mig_fill_abort(fill);
	cr_assert_eq(touch_end(&toucher), OLD);
	cr_assert(mig_fill_is_aborted(fill));
	cr_assert_eq(atomic_load(&done), 0);
}

Test(mig_fill, nothing_is_owed)
{
	make_fill();
	wait_done();
	cr_assert_eq(atomic_load(&done), 1);
	cr_assert_eq(memory[0], OLD);
}
