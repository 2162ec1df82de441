/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_link.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "tests/support/alloc_fail.h"

#define REGION_BYTES (4u << 20)
#define PATIENT_MS   60000u /* longer than any machine is busy with something else */
#define TIMEOUT_MS   100u

static int fds[2];              /* ours is the destination's */
static struct mig_link *source; /* on fds[0] */
static struct mig_link *destination;
static uint8_t *memory;
static struct base_error err;

static void make_links(uint32_t timeout_ms)
{
	struct mig_link_options options = { .fd = fds[0],
					    .is_source = true,
					    .timeout_ms = timeout_ms };

	mig_link_free(source);
	mig_link_free(destination);
	cr_assert_eq(mig_link_new(&options, &source, &err), 0, "%s", err.text);
	options = (struct mig_link_options){ .fd = fds[1], .timeout_ms = timeout_ms };
	cr_assert_eq(mig_link_new(&options, &destination, &err), 0, "%s", err.text);
}

static void setup(void)
{
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	make_links(PATIENT_MS);
	memory = calloc(1, REGION_BYTES);
	cr_assert_not_null(memory);
	mig_link_register(destination, 1, memory, REGION_BYTES);
}

static void teardown(void)
{
	mig_link_free(source);
	mig_link_free(destination);
	source = NULL;
	destination = NULL;
	(void)close(fds[0]);
	(void)close(fds[1]);
	free(memory);
}

TestSuite(mig_link, .init = setup, .fini = teardown, .timeout = 120);

static void expect_refused(int code, const char *text)
{
	struct mig_received received;

	cr_assert_eq(mig_link_receive(destination, &received, &err), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "%s, not %s", err.text, text);
}

/* A frame as a peer may make it, with a header that is well formed. */
static void raw(struct mig_frame frame, const void *body, size_t bytes)
{
	uint8_t header[MIG_FRAME_BYTES];

	mig_frame_encode(&frame, header);
	cr_assert_eq(write(fds[0], header, sizeof(header)), sizeof(header));
	if (bytes > 0)
		cr_assert_eq(write(fds[0], body, bytes), (ssize_t)bytes);
}

static const uint8_t barrier[8] = { 5 };

/* A message comes after the writes before it, and they are where they belong. */
Test(mig_link, a_message_comes_after_its_writes)
{
	struct mig_received received;

	for (uint8_t round = 1; round < 20; round++) {
		uint8_t bytes[3000];

		memset(bytes, round, sizeof(bytes));
		cr_assert_eq(mig_link_write(source, 1, round * 4096u, bytes, sizeof(bytes), &err),
			     0);
		cr_assert_eq(mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, &err), 0);
		cr_assert_eq(mig_link_receive(destination, &received, &err), 0, "%s", err.text);
		cr_assert_eq(received.type, MIG_TYPE_BARRIER);
		cr_assert_eq(received.body_bytes, 8);
		cr_assert_eq(memcmp(received.body, barrier, 8), 0);
		cr_assert_eq(memcmp(memory + round * 4096u, bytes, sizeof(bytes)), 0);
		cr_assert_eq(memory[round * 4096u + 3000], 0);
	}
}

/* Chunks with bytes and without, one behind the other: each is whole, and in its place in the row.
 */
Test(mig_link, chunks_in_a_row)
{
	uint8_t bytes[20][MIG_CHUNK_BYTES];
	struct mig_post posts[20];
	struct mig_received received;

	for (uint8_t i = 0; i < 20; i++) {
		memset(bytes[i], i + 1, sizeof(bytes[i]));
		posts[i] = (struct mig_post){ .region = 1,
					      .size_bytes = i % 3 == 0 ? 0 : 300u + i,
					      .offset_bytes = i * 1000u,
					      .from = (const uint8_t *)bytes,
					      .chunk = bytes[i] };
	}
	cr_assert_eq(mig_link_post(source, posts, 1, &err), 0, "%s", err.text);
	cr_assert_eq(mig_link_post(source, posts + 1, 19, &err), 0, "%s", err.text);
	cr_assert_eq(mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, &err), 0);
	for (uint8_t i = 0; i < 20; i++) {
		cr_assert_eq(mig_link_receive(destination, &received, &err), 0, "%s", err.text);
		cr_assert_eq(received.type, MIG_TYPE_CHUNK);
		cr_assert_eq(memcmp(received.body, bytes[i], MIG_CHUNK_BYTES), 0);
		cr_assert_eq(memory[i * 1000u], i % 3 == 0 ? 0 : 1);
		cr_assert_eq(memory[i * 1000u + 300 + i], 0);
	}
	cr_assert_eq(mig_link_receive(destination, &received, &err), 0, "%s", err.text);
	cr_assert_eq(received.type, MIG_TYPE_BARRIER);
	cr_assert_eq(mig_link_counts(destination).received_bytes,
		     mig_link_counts(source).sent_bytes);
}

struct sender {
	const uint8_t *bytes;
	uint64_t size_bytes;
	int code;
};

static void *send_all(void *context)
{
	struct sender *sender = context;

	sender->code = mig_link_write(source, 1, 1, sender->bytes, sender->size_bytes, NULL);
	if (sender->code == 0)
		sender->code = mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, NULL);
	return NULL;
}

/* More than a socket holds and than a frame may have, at an odd place. */
Test(mig_link, large_writes_are_cut)
{
	struct sender sender = { .size_bytes = REGION_BYTES - 1 };
	struct mig_received received;
	struct mig_link_counts counts;
	uint8_t *bytes = malloc(REGION_BYTES);
	pthread_t thread;

	cr_assert_not_null(bytes);
	for (uint32_t i = 0; i < REGION_BYTES; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 4096);
	sender.bytes = bytes;
	cr_assert_eq(pthread_create(&thread, NULL, send_all, &sender), 0);
	cr_assert_eq(mig_link_receive(destination, &received, &err), 0, "%s", err.text);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(sender.code, 0);
	cr_assert_eq(memcmp(memory + 1, bytes, REGION_BYTES - 1), 0);
	counts = mig_link_counts(destination);
	cr_assert_eq(counts.written_bytes, REGION_BYTES - 1);
	cr_assert_eq(counts.received_bytes, mig_link_counts(source).sent_bytes);
	free(bytes);
}

Test(mig_link, writes_outside_are_refused)
{
	static const struct {
		uint32_t region;
		uint64_t offset_bytes;
		const char *text;
	} bad[] = {
		{ 0, 0, "region 0 is not registered" },
		{ 2, 0, "region 2 is not registered" },
		{ MIG_REGIONS_MAX, 0, "is not registered" },
		{ UINT32_MAX, 0, "is not registered" },
		{ 1, REGION_BYTES - 7, "8 bytes at 4194297 of region 1, which has 4194304" },
		{ 1, REGION_BYTES, "of region 1" },
		{ 1, UINT64_MAX - 8, "of region 1" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		teardown();
		setup();
		raw((struct mig_frame){ .type = MIG_TYPE_WRITE,
					.body_bytes = 8,
					.offset_bytes = bad[i].offset_bytes,
					.region = bad[i].region },
		    "xxxxxxxx", 8);
		expect_refused(-EBADMSG, bad[i].text);
		cr_assert(base_is_zero(memory, REGION_BYTES));
	}
}

Test(mig_link, a_message_is_checked)
{
	raw((struct mig_frame){ .type = MIG_TYPE_BARRIER,
				.body_bytes = 8,
				.body_crc = base_crc32c(0, barrier, 8) ^ 1 },
	    barrier, 8);
	expect_refused(-EBADMSG, "barrier: the body's checksum is wrong");
}

Test(mig_link, a_type_that_the_other_side_may_not_send)
{
	raw((struct mig_frame){ .type = MIG_TYPE_READY, .body_bytes = 16 }, barrier, 0);
	expect_refused(-EPROTO, "ready: not for a source to send");
}

Test(mig_link, a_type_of_the_other_channel)
{
	raw((struct mig_frame){ .type = MIG_TYPE_COMMIT, .body_bytes = 16 }, barrier, 0);
	expect_refused(-EPROTO, "commit: not for a data channel");
}

Test(mig_link, an_end_between_frames_and_in_one)
{
	uint8_t header[MIG_FRAME_BYTES];

	(void)shutdown(fds[0], SHUT_WR);
	expect_refused(-ENOTCONN, "has ended it");
	for (size_t cut = 1; cut < MIG_FRAME_BYTES + 8; cut++) {
		uint8_t frame[MIG_FRAME_BYTES + 8] = { 0 };

		teardown();
		setup();
		mig_frame_encode(
			&(struct mig_frame){ .type = MIG_TYPE_WRITE, .body_bytes = 8, .region = 1 },
			header);
		memcpy(frame, header, sizeof(header));
		cr_assert_eq(write(fds[0], frame, cut), (ssize_t)cut);
		(void)shutdown(fds[0], SHUT_WR);
		expect_refused(-ECONNRESET, "in the middle");
	}
}

Test(mig_link, silence_is_not_an_end)
{
	make_links(TIMEOUT_MS);
	expect_refused(-ETIMEDOUT, "nothing could be received for 100 ms");
}

/* Nobody takes anything: the sender comes out. */
Test(mig_link, a_sender_that_is_not_heard)
{
	int r = 0;

	make_links(TIMEOUT_MS);
	r = mig_link_write(source, 1, 0, memory, REGION_BYTES, &err);
	cr_assert_eq(r, -ETIMEDOUT, "%s", err.text);
	cr_assert_not_null(strstr(err.text, "nothing could be sent for 100 ms"), "%s", err.text);
}

Test(mig_link, a_peer_that_is_gone)
{
	(void)close(fds[1]);
	fds[1] = -1;
	cr_assert_lt(mig_link_write(source, 1, 0, memory, 8, &err), 0); /* and no SIGPIPE */
}

static void *receive_one(void *context)
{
	struct mig_received received;

	*(int *)context = mig_link_receive(destination, &received, NULL);
	return NULL;
}

Test(mig_link, a_cancel_wakes_whoever_waits)
{
	struct mig_link_options options = { .fd = fds[1] };
	struct mig_received received;
	pthread_t thread;
	int code = 0;

	mig_link_free(destination);
	cr_assert_eq(mig_link_new(&options, &destination, &err), 0); /* without a timeout */
	cr_assert_eq(pthread_create(&thread, NULL, receive_one, &code), 0);
	mig_link_cancel(destination); /* before it waits or while it does */
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(code, -ECANCELED);
	cr_assert_eq(mig_link_receive(destination, &received, &err), -ECANCELED);
	cr_assert_eq(mig_link_send(destination, MIG_TYPE_OPENED, memory, 32, &err), -ECANCELED);
}

Test(mig_link, no_memory)
{
	struct mig_link_options options = { .fd = fds[0] };
	struct mig_link *link = NULL;

	for (unsigned int k = 0; k < 2; k++) {
		alloc_fail_at(k);
		cr_assert_eq(mig_link_new(&options, &link, &err), -ENOMEM);
		cr_assert(alloc_fail_done());
		cr_assert_null(link);
	}
	mig_link_free(NULL);
}
