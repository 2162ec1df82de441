/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel under TLS: the same bytes in the same places, and the same rules for peers that are
 * silent, slow, or frozen.  mig_link_test.c has what frames are; mig_tls_test.c who is who.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/thread.h"
#include "migrate/mig_link.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/mig_tls_lab.h"

#define REGION_BYTES (4u << 20)
#define PATIENT_MS   60000u /* longer than any machine is busy with something else */
#define TIMEOUT_MS   100u

static struct mig_tls_lab lab;
static struct mig_tls *tls[2];            /* the source's, the destination's */
static struct mig_tls_stream *streams[2]; /* before they are a channel's */
static struct mig_link *links[2];
static int fds[2];
static uint8_t *memory;
static struct base_error err;

static const uint8_t barrier[8] = { 5 };

static void make_stream(int side)
{
	struct mig_tls_stream_options options = { .tls = tls[side],
						  .fd = fds[side],
						  .may_use_kernel = true };

	cr_assert_eq(mig_tls_stream_new(&options, &streams[side], &err), 0);
}

static void greet(void)
{
	int codes[2] = { -EAGAIN, -EAGAIN };
	short events = 0;

	while (codes[0] == -EAGAIN || codes[1] == -EAGAIN)
		for (int i = 0; i < 2; i++)
			if (codes[i] == -EAGAIN)
				codes[i] = mig_tls_stream_greet(streams[i], &events, &err);
	cr_assert_eq(codes[0], 0, "%s", err.text);
	cr_assert_eq(codes[1], 0, "%s", err.text);
}

static void make_link(int side, bool is_control, uint32_t timeout_ms)
{
	struct mig_link_options options = { .fd = fds[side],
					    .is_source = side == 0,
					    .is_control = is_control,
					    .timeout_ms = timeout_ms,
					    .tls = base_take(&streams[side]) };

	if (!is_control)
		cr_assert_eq(mig_tls_stream_widen(options.tls, &err), 0);
	cr_assert_eq(mig_link_new(&options, &links[side], &err), 0, "%s", err.text);
}

static void setup(void)
{
	mig_tls_lab_init(&lab);
	mig_tls_lab_host(&lab, &(struct mig_tls_lab_host){ .folder = "a", .names = "DNS:a" });
	cr_assert_eq(mig_tls_lab_open(&lab, "a", true, "a", &tls[0], &err), 0, "%s", err.text);
	cr_assert_eq(mig_tls_lab_open(&lab, "a", false, "a", &tls[1], &err), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	make_stream(0);
	make_stream(1);
	memory = calloc(1, REGION_BYTES);
	cr_assert_not_null(memory);
}

static void make_links(bool is_control, uint32_t source_ms, uint32_t destination_ms)
{
	greet();
	make_link(0, is_control, source_ms);
	make_link(1, is_control, destination_ms);
	mig_link_register(links[1], 1, memory, REGION_BYTES);
}

static void teardown(void)
{
	for (int i = 0; i < 2; i++) {
		mig_link_free(links[i]);
		mig_tls_stream_free(streams[i]);
		mig_tls_free(tls[i]);
		(void)close(fds[i]);
	}
	free(memory);
	mig_tls_lab_fini(&lab);
}

TestSuite(mig_link_tls, .init = setup, .fini = teardown, .timeout = 120);

struct sender {
	const uint8_t *bytes;
	uint64_t size_bytes;
	int code;
};

static void *send_all(void *context)
{
	struct sender *sender = context;

	sender->code = mig_link_write(links[0], 1, 1, sender->bytes, sender->size_bytes, NULL);
	if (sender->code == 0)
		sender->code = mig_link_send(links[0], MIG_TYPE_BARRIER, barrier, 8, NULL);
	return NULL;
}

/* More than all buffers hold, at an odd place, straight from where it lies and to where it shall.
 */
Test(mig_link_tls, large_writes)
{
	struct sender sender = { .size_bytes = REGION_BYTES - 1 };
	struct mig_received received;
	uint8_t *bytes = malloc(REGION_BYTES);
	pthread_t thread;

	make_links(false, PATIENT_MS, PATIENT_MS);
	cr_assert_not_null(bytes);
	for (uint32_t i = 0; i < REGION_BYTES; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 4096);
	sender.bytes = bytes;
	cr_assert_eq(base_thread_start(&thread, "send", send_all, &sender, &err), 0);
	cr_assert_eq(mig_link_receive(links[1], &received, &err), 0, "%s", err.text);
	base_thread_join(thread);
	cr_assert_eq(sender.code, 0);
	cr_assert_eq(received.type, MIG_TYPE_BARRIER);
	cr_assert_eq(memcmp(memory + 1, bytes, REGION_BYTES - 1), 0);
	cr_assert_eq(mig_link_counts(links[1]).written_bytes, REGION_BYTES - 1);
	cr_assert_eq(mig_link_counts(links[1]).received_bytes,
		     mig_link_counts(links[0]).sent_bytes);
	free(bytes);
}

/* Small ones are gathered into records, and a message takes with it what was held back. */
Test(mig_link_tls, chunks_in_a_row)
{
	uint8_t bytes[20][MIG_CHUNK_BYTES];
	struct mig_post posts[20];
	struct mig_received received;

	make_links(false, PATIENT_MS, PATIENT_MS);
	for (uint8_t i = 0; i < 20; i++) {
		memset(bytes[i], i + 1, sizeof(bytes[i]));
		posts[i] = (struct mig_post){ .region = 1,
					      .size_bytes = i % 3 == 0 ? 0 : 300u + i,
					      .offset_bytes = i * 1000u,
					      .from = (const uint8_t *)bytes,
					      .chunk = bytes[i] };
	}
	cr_assert_eq(mig_link_post(links[0], posts, 20, &err), 0, "%s", err.text);
	cr_assert_eq(mig_link_write(links[0], 1, 30000, barrier, 8, &err), 0);
	cr_assert_eq(mig_link_send(links[0], MIG_TYPE_BARRIER, barrier, 8, &err), 0);
	for (uint8_t i = 0; i < 20; i++) {
		cr_assert_eq(mig_link_receive(links[1], &received, &err), 0, "%s", err.text);
		cr_assert_eq(received.type, MIG_TYPE_CHUNK);
		cr_assert_eq(memcmp(received.body, bytes[i], MIG_CHUNK_BYTES), 0);
		cr_assert_eq(memory[i * 1000u], i % 3 == 0 ? 0 : 1);
		cr_assert_eq(memory[i * 1000u + 300 + i], 0);
	}
	cr_assert_eq(mig_link_receive(links[1], &received, &err), 0, "%s", err.text);
	cr_assert_eq(received.type, MIG_TYPE_BARRIER);
	cr_assert_eq(memcmp(memory + 30000, barrier, 8), 0);
}

/* One thread reads and one writes, at both ends, as on a control channel. */
static void *say_alive(void *context)
{
	struct sender *sender = context;

	for (uint32_t i = 0; i < 5000 && sender->code == 0; i++)
		sender->code =
			mig_link_send(links[sender->size_bytes], MIG_TYPE_ALIVE, barrier, 8, NULL);
	return NULL;
}

static void *hear_alive(void *context)
{
	struct sender *sender = context;
	struct mig_received received;

	for (uint32_t i = 0; i < 5000 && sender->code == 0; i++)
		sender->code = mig_link_receive(links[sender->size_bytes], &received, NULL);
	return NULL;
}

Test(mig_link_tls, both_ways_at_once)
{
	struct sender sides[4] = {
		{ .size_bytes = 0 }, { .size_bytes = 1 }, { .size_bytes = 0 }, { .size_bytes = 1 }
	};
	pthread_t threads[4];

	make_links(true, PATIENT_MS, PATIENT_MS);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(base_thread_start(&threads[i], "side", i < 2 ? say_alive : hear_alive,
					       &sides[i], &err),
			     0);
	for (int i = 0; i < 4; i++) {
		base_thread_join(threads[i]);
		cr_assert_eq(sides[i].code, 0, "%d: %d", i, sides[i].code);
	}
}

/* --- silent, slow and frozen peers --- */

Test(mig_link_tls, silence_is_not_an_end)
{
	struct mig_received received;

	make_links(false, PATIENT_MS, TIMEOUT_MS);
	cr_assert_eq(mig_link_receive(links[1], &received, &err), -ETIMEDOUT);
	cr_assert_not_null(strstr(err.text, "nothing could be received for 100 ms"), "%s",
			   err.text);
	cr_assert_eq(mig_link_receive(links[1], &received, &err), -ETIMEDOUT);
	cr_assert_not_null(strstr(err.text, "it has failed before"), "%s", err.text);
}

Test(mig_link_tls, a_sender_that_is_not_heard)
{
	make_links(false, TIMEOUT_MS, PATIENT_MS);
	cr_assert_eq(mig_link_write(links[0], 1, 0, memory, REGION_BYTES, &err), -ETIMEDOUT, "%s",
		     err.text);
	cr_assert_not_null(strstr(err.text, "sent"), "%s", err.text);
}

/* A record with a byte in each part of a timeout, of a frame that is to have a megabyte. */
static void *write_slowly(void *context)
{
	struct mig_tls_stream *stream = context;
	const uint8_t byte = 7;
	size_t done = 0;
	short events = 0;

	while (mig_tls_stream_write(stream, &byte, 1, &done, &events, NULL) == 0 &&
	       mig_tls_stream_flush(stream, &events, NULL) == 0)
		base_sleep_ns(TIMEOUT_MS * BASE_NS_PER_MS / 4);
	return NULL;
}

Test(mig_link_tls, who_sends_byte_by_byte_is_lost)
{
	const struct mig_frame frame = { .type = MIG_TYPE_WRITE,
					 .body_bytes = MIG_BODY_BYTES_MAX,
					 .region = 1 };
	uint8_t header[MIG_FRAME_BYTES];
	struct mig_received received;
	pthread_t peer;
	size_t done = 0;
	short events = 0;

	greet();
	make_link(1, false, TIMEOUT_MS);
	mig_link_register(links[1], 1, memory, REGION_BYTES);
	mig_frame_encode(&frame, header);
	cr_assert_eq(mig_tls_stream_write(streams[0], header, sizeof(header), &done, &events, &err),
		     0);
	cr_assert_eq(base_thread_start(&peer, "peer", write_slowly, streams[0], &err), 0);
	cr_assert_eq(mig_link_receive(links[1], &received, &err), -ETIMEDOUT, "%s", err.text);
	cr_assert_not_null(strstr(err.text, "hardly anything could be received"), "%s", err.text);
	mig_link_cancel(links[1]);
	base_thread_join(peer);
}

/* A record that comes byte by byte, and of which nothing can be deciphered for ever. */
static void *drip(void *context)
{
	static const uint8_t header[] = { 23, 3, 3, 0x40, 0 };

	(void)context;
	for (size_t i = 0;
	     send(fds[0], i < sizeof(header) ? &header[i] : &header[4], 1, MSG_NOSIGNAL) == 1; i++)
		base_sleep_ns(TIMEOUT_MS * BASE_NS_PER_MS / 4);
	return NULL;
}

Test(mig_link_tls, a_record_that_drips_is_silence)
{
	struct mig_received received;
	pthread_t peer;

	make_links(false, PATIENT_MS, TIMEOUT_MS);
	cr_assert_eq(base_thread_start(&peer, "peer", drip, NULL, &err), 0);
	cr_assert_eq(mig_link_receive(links[1], &received, &err), -ETIMEDOUT, "%s", err.text);
	cr_assert_not_null(strstr(err.text, "nothing could be received"), "%s", err.text);
	mig_link_cancel(links[1]);
	base_thread_join(peer);
}

static void *read_slowly(void *context)
{
	static uint8_t bytes[1000];

	(void)context;
	while (recv(fds[1], bytes, sizeof(bytes), 0) > 0)
		base_sleep_ns(TIMEOUT_MS * BASE_NS_PER_MS / 4);
	return NULL;
}

Test(mig_link_tls, who_reads_byte_by_byte_is_lost)
{
	const int small = 4096;
	pthread_t peer;
	int r = 0;

	make_links(false, TIMEOUT_MS, PATIENT_MS);
	cr_assert_eq(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	cr_assert_eq(base_thread_start(&peer, "peer", read_slowly, NULL, &err), 0);
	for (int i = 0; i < 8 && r == 0; i++)
		r = mig_link_write(links[0], 1, 0, memory, REGION_BYTES, &err);
	cr_assert_eq(r, -ETIMEDOUT, "%s", err.text);
	mig_link_cancel(links[0]);
	(void)shutdown(fds[1], SHUT_RDWR);
	base_thread_join(peer);
}

/* --- the end --- */

static void *receive_one(void *context)
{
	struct mig_received received;

	*(int *)context = mig_link_receive(links[1], &received, NULL);
	return NULL;
}

Test(mig_link_tls, a_cancel_wakes_whoever_waits)
{
	struct mig_received received;
	pthread_t thread;
	int code = 0;

	make_links(false, PATIENT_MS, 0);
	cr_assert_eq(base_thread_start(&thread, "wait", receive_one, &code, &err), 0);
	mig_link_cancel(links[1]); /* before it waits or while it does */
	base_thread_join(thread);
	cr_assert_eq(code, -ECANCELED);
	cr_assert_eq(mig_link_receive(links[1], &received, &err), -ECANCELED);
	cr_assert_eq(mig_link_send(links[1], MIG_TYPE_OPENED, memory, 32, &err), -ECANCELED);
}

Test(mig_link_tls, a_cancel_ends_a_handshake)
{
	struct mig_link_options options = { .fd = fds[0], .is_source = true };

	options.tls = base_take(&streams[0]);
	cr_assert_eq(mig_link_new(&options, &links[0], &err), 0);
	mig_link_cancel(links[0]);
	cr_assert_eq(mig_link_greet(links[0], PATIENT_MS, &err), -ECANCELED);
}

Test(mig_link_tls, a_handshake_has_its_time)
{
	struct mig_link_options options = { .fd = fds[0], .is_source = true };

	options.tls = base_take(&streams[0]);
	cr_assert_eq(mig_link_new(&options, &links[0], &err), 0);
	cr_assert_eq(mig_link_greet(links[0], TIMEOUT_MS, &err), -ETIMEDOUT);
	cr_assert_not_null(strstr(err.text, "TLS: handshake not done within 100 ms"), "%s",
			   err.text);
}

Test(mig_link_tls, a_goodbye_between_frames_and_in_one)
{
	const struct mig_frame frame = { .type = MIG_TYPE_WRITE, .body_bytes = 8, .region = 1 };
	uint8_t header[MIG_FRAME_BYTES];
	struct mig_received received;
	size_t done = 0;
	short events = 0;

	make_links(false, PATIENT_MS, PATIENT_MS);
	mig_link_free(base_take(&links[0])); /* in good order */
	cr_assert_eq(mig_link_receive(links[1], &received, &err), -ENOTCONN, "%s", err.text);
	teardown();
	links[1] = NULL;
	streams[0] = streams[1] = NULL;
	setup();
	greet();
	make_link(1, false, PATIENT_MS);
	mig_link_register(links[1], 1, memory, REGION_BYTES);
	mig_frame_encode(&frame, header);
	cr_assert_eq(mig_tls_stream_write(streams[0], header, sizeof(header), &done, &events, &err),
		     0);
	mig_tls_stream_goodbye(streams[0]);
	cr_assert_eq(mig_link_receive(links[1], &received, &err), -ECONNRESET, "%s", err.text);
}

/* The end of a connection without a goodbye is never its end. */
Test(mig_link_tls, an_end_between_frames)
{
	struct mig_received received;

	make_links(false, PATIENT_MS, PATIENT_MS);
	(void)shutdown(fds[0], SHUT_WR);
	cr_assert_eq(mig_link_receive(links[1], &received, &err), -ECONNRESET, "%s", err.text);
	cr_assert_not_null(strstr(err.text, "ended without a goodbye"), "%s", err.text);
}

Test(mig_link_tls, no_memory)
{
	struct mig_link *link = NULL;

	for (unsigned int k = 0; k < 4; k++) {
		struct mig_link_options options = { .fd = fds[0] };

		if (streams[0] == NULL)
			make_stream(0);
		options.tls = base_take(&streams[0]); /* is taken, also on failure */
		alloc_fail_at(k);
		cr_assert_eq(mig_link_new(&options, &link, &err), -ENOMEM);
		cr_assert(alloc_fail_done());
		cr_assert_null(link);
	}
}
