/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_link.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
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

/* --- slow, frozen and half-closed peers --- */

/* What a way has failed with it fails with again, and no byte is looked at or sent any more. */
Test(mig_link, an_error_is_the_end)
{
	struct mig_received received;
	uint64_t sent = 0;

	make_links(TIMEOUT_MS);
	expect_refused(-ETIMEDOUT, "nothing could be received for 100 ms");
	cr_assert_eq(mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, &err), 0);
	expect_refused(-ETIMEDOUT, "it has failed before");
	cr_assert_eq(mig_link_counts(destination).received_bytes, 0);
	cr_assert_eq(mig_link_write(source, 1, 0, memory, REGION_BYTES, &err), -ETIMEDOUT);
	sent = mig_link_counts(source).sent_bytes;
	while (recv(fds[1], memory, 65536, MSG_DONTWAIT) > 0)
		continue; /* there is room again */
	cr_assert_eq(mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, &err), -ETIMEDOUT);
	cr_assert_eq(mig_link_counts(source).sent_bytes, sent);
	mig_link_cancel(source);
	cr_assert_eq(mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, &err), -ECANCELED);
	cr_assert_eq(mig_link_receive(source, &received, &err), -ECANCELED);
}

struct trickle {
	const uint8_t *bytes;
	size_t size_bytes;
};

static void *send_bytes(void *context)
{
	const struct trickle *trickle = context;

	for (size_t i = 0; i < trickle->size_bytes; i++)
		if (send(fds[0], trickle->bytes + i, 1, MSG_NOSIGNAL) != 1)
			break;
	return NULL;
}

/* A write and a message, a byte at a time; then the end, in the middle of the next frame. */
Test(mig_link, one_byte_at_a_time)
{
	uint8_t bytes[3 * MIG_FRAME_BYTES + 100 + 8 + 5] = { 0 };
	struct trickle trickle = { .bytes = bytes, .size_bytes = sizeof(bytes) };
	struct mig_frame frame = {
		.type = MIG_TYPE_WRITE, .body_bytes = 100, .offset_bytes = 50, .region = 1
	};
	struct mig_received received;
	uint8_t *at = bytes;
	pthread_t thread;

	mig_frame_encode(&frame, at);
	memset(at + MIG_FRAME_BYTES, 7, 100);
	at += MIG_FRAME_BYTES + 100;
	frame = (struct mig_frame){ .type = MIG_TYPE_BARRIER,
				    .body_bytes = 8,
				    .body_crc = base_crc32c(0, barrier, 8) };
	mig_frame_encode(&frame, at);
	memcpy(at + MIG_FRAME_BYTES, barrier, 8);
	mig_frame_encode(&frame, at + MIG_FRAME_BYTES + 8); /* and five bytes of its body */
	cr_assert_eq(pthread_create(&thread, NULL, send_bytes, &trickle), 0);
	cr_assert_eq(mig_link_receive(destination, &received, &err), 0, "%s", err.text);
	cr_assert_eq(received.type, MIG_TYPE_BARRIER);
	cr_assert_eq(memory[49] + memory[50] + memory[149] + memory[150], 14);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	(void)shutdown(fds[0], SHUT_WR);
	expect_refused(-ECONNRESET, "in the middle");
}

/* One half is closed: the other goes on. */
Test(mig_link, a_closed_half)
{
	struct mig_received received;
	const uint8_t opened[MIG_BODY_BYTES_MAX] = { 1 };

	(void)shutdown(fds[1], SHUT_WR); /* the destination says nothing any more */
	cr_assert_eq(mig_link_receive(source, &received, &err), -ENOTCONN);
	cr_assert_eq(mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, &err), 0);
	cr_assert_eq(mig_link_receive(destination, &received, &err), 0);
	cr_assert_lt(mig_link_send(destination, MIG_TYPE_OPENED, opened, 32, &err), 0);
	(void)shutdown(fds[0], SHUT_WR);
	expect_refused(-ENOTCONN, "has ended it");
}

/* A descriptor that does not block would look like a peer that is silent. */
Test(mig_link, a_socket_that_does_not_block)
{
	struct mig_link_options options = { .fd = fds[1] };
	pthread_t thread;
	int code = 1;

	mig_link_free(destination);
	cr_assert_eq(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
	cr_assert_eq(mig_link_new(&options, &destination, &err), 0);
	cr_assert_eq(pthread_create(&thread, NULL, receive_one, &code), 0);
	cr_assert_eq(mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, &err), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(code, 0);
	options.fd = -1;
	cr_assert_eq(mig_link_new(&options, &destination, &err), -EBADF);
}

/* Until task @task of process @process sleeps in a system call. */
static void wait_asleep(long process, long task)
{
	char path[64];
	char text[256] = { 0 };

	(void)snprintf(path, sizeof(path), "/proc/%ld/task/%ld/stat", process, task);
	do {
		FILE *file = fopen(path, "re");
		const char *behind = NULL;
		size_t got = 0;

		if (file == NULL)
			return; /* it has ended */
		got = fread(text, 1, sizeof(text) - 1, file);
		text[got] = '\0';
		(void)fclose(file);
		behind = strrchr(text, ')');
		if (behind != NULL && (behind[2] == 'S' || behind[2] == 'Z'))
			return;
		(void)sched_yield();
	} while (true);
}

struct waiter {
	atomic_long task;
	int code;
};

static void *wait_for_ever(void *context)
{
	struct waiter *waiter = context;
	struct mig_received received;

	atomic_store(&waiter->task, gettid());
	waiter->code = mig_link_receive(destination, &received, NULL);
	return NULL;
}

/* A data channel is quiet between rounds, for as long as it takes. */
/* --- byte by byte --- */

static void *write_slowly(void *context)
{
	const uint8_t byte = 7;

	(void)context;
	while (send(fds[0], &byte, 1, MSG_NOSIGNAL) == 1)
		base_sleep_ns(TIMEOUT_MS * BASE_NS_PER_MS / 4);
	return NULL;
}

static void *read_slowly(void *context)
{
	static uint8_t bytes[1000];

	(void)context;
	while (recv(fds[1], bytes, sizeof(bytes), 0) > 0)
		base_sleep_ns(TIMEOUT_MS * BASE_NS_PER_MS / 4);
	return NULL;
}

/* A byte in each timeout is no sign of life: of a WRITE's body, and of a message's. */
Test(mig_link, who_sends_byte_by_byte_is_lost)
{
	const enum mig_type types[] = { MIG_TYPE_WRITE, MIG_TYPE_PLAN };
	struct mig_received received;
	pthread_t peer;

	for (size_t i = 0; i < 2; i++) {
		struct mig_link_options options = { .fd = fds[1],
						    .is_control = i == 1,
						    .timeout_ms = TIMEOUT_MS };
		struct mig_frame frame = { .type = types[i],
					   .body_bytes = MIG_BODY_BYTES_MAX,
					   .region = i == 0 ? 1 : 0 };
		uint8_t header[MIG_FRAME_BYTES];

		mig_link_free(destination);
		cr_assert_eq(mig_link_new(&options, &destination, &err), 0);
		mig_link_register(destination, 1, memory, REGION_BYTES);
		mig_frame_encode(&frame, header);
		cr_assert_eq(write(fds[0], header, sizeof(header)), (ssize_t)sizeof(header));
		cr_assert_eq(pthread_create(&peer, NULL, write_slowly, NULL), 0);
		cr_assert_eq(mig_link_receive(destination, &received, &err), -ETIMEDOUT, "%s",
			     err.text);
		mig_link_cancel(destination);
		cr_assert_eq(pthread_join(peer, NULL), 0);
		(void)close(fds[0]);
		(void)close(fds[1]);
		cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	}
}

Test(mig_link, without_a_timeout_only_a_cancel_ends_the_wait)
{
	struct mig_link_options options = { .fd = fds[1] };
	struct waiter waiter = { .code = 1 };
	pthread_t thread;

	mig_link_free(destination);
	cr_assert_eq(mig_link_new(&options, &destination, &err), 0);
	cr_assert_eq(pthread_create(&thread, NULL, wait_for_ever, &waiter), 0);
	while (atomic_load(&waiter.task) == 0)
		(void)sched_yield();
	wait_asleep(getpid(), atomic_load(&waiter.task));
	base_sleep_ns(2 * TIMEOUT_MS * BASE_NS_PER_MS);
	mig_link_cancel(destination);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(waiter.code, -ECANCELED);
}

/* A process of its own that runs @body. */
static pid_t in_process(int (*body)(void))
{
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0)
		_exit(body());
	return pid;
}

static int freeze(void)
{
	return raise(SIGSTOP);
}

/* SIGSTOP: nothing is read, nothing is said, and the connection stands. */
Test(mig_link, a_frozen_peer)
{
	struct mig_received received;
	pid_t pid = 0;
	int status = 0;

	make_links(TIMEOUT_MS);
	pid = in_process(freeze);
	cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
	cr_assert_eq(mig_link_receive(source, &received, &err), -ETIMEDOUT);
	cr_assert_eq(mig_link_write(source, 1, 0, memory, REGION_BYTES, &err), -ETIMEDOUT);
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
}

#define FROZEN_MS 400u

static int receive_patiently(void)
{
	struct mig_received received;

	return mig_link_receive(destination, &received, NULL) == 0 ? 0 : 1;
}

static int send_patiently(void)
{
	static uint8_t bytes[MIG_BODY_BYTES_MAX];

	return mig_link_write(source, 1, 0, bytes, sizeof(bytes), NULL) == 0 ? 0 : 1;
}

/* Who was frozen itself for longer than the timeout looks first at what has come meanwhile. */
static int thaw(int (*body)(void), void (*meanwhile)(void), void (*afterwards)(void))
{
	struct mig_link_options options = { .timeout_ms = FROZEN_MS };
	int status = 0;
	pid_t pid = 0;

	mig_link_free(source);
	mig_link_free(destination);
	options.fd = fds[1];
	cr_assert_eq(mig_link_new(&options, &destination, &err), 0);
	mig_link_register(destination, 1, memory, REGION_BYTES);
	options.fd = fds[0];
	options.is_source = true;
	cr_assert_eq(mig_link_new(&options, &source, &err), 0);
	pid = in_process(body);
	wait_asleep(pid, pid);
	cr_assert_eq(kill(pid, SIGSTOP), 0);
	cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
	if (!WIFSTOPPED(status))
		return -1; /* its time was over before: a machine with much to do */
	meanwhile();
	base_sleep_ns(2 * FROZEN_MS * BASE_NS_PER_MS);
	cr_assert_eq(kill(pid, SIGCONT), 0);
	while (waitpid(pid, &status, WNOHANG) == 0)
		afterwards();
	return WEXITSTATUS(status);
}

static void say_barrier(void)
{
	cr_assert_eq(mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, &err), 0, "%s", err.text);
}

static void drain(void)
{
	static uint8_t bytes[MIG_BODY_BYTES_MAX / 2];

	(void)!recv(fds[1], bytes, sizeof(bytes), MSG_DONTWAIT);
	(void)sched_yield();
}

static void let_it(void)
{
	(void)sched_yield();
}

static void expect_thaw(int (*body)(void), void (*meanwhile)(void), void (*afterwards)(void))
{
	int r = -1;

	for (int i = 0; i < 20 && r < 0; i++) {
		teardown();
		setup();
		r = thaw(body, meanwhile, afterwards);
	}
	cr_assert_eq(r, 0);
}

Test(mig_link, frozen_while_it_receives)
{
	make_links(TIMEOUT_MS);
	expect_thaw(receive_patiently, say_barrier, let_it);
}

Test(mig_link, frozen_while_it_sends)
{
	make_links(TIMEOUT_MS);
	expect_thaw(send_patiently, let_it, drain);
}

/* --- over TCP --- */

static void connect_tcp(void)
{
	struct mig_link_options options = { .is_source = true, .timeout_ms = TIMEOUT_MS };
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t bytes = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	teardown();
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(listener, 1), 0);
	cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(fds[0], (struct sockaddr *)&address, sizeof(address)), 0);
	fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(fds[1], 0);
	(void)close(listener);
	options.fd = fds[0];
	cr_assert_eq(mig_link_new(&options, &source, &err), 0, "%s", err.text);
	options = (struct mig_link_options){ .fd = fds[1], .timeout_ms = TIMEOUT_MS };
	cr_assert_eq(mig_link_new(&options, &destination, &err), 0, "%s", err.text);
	memory = calloc(1, REGION_BYTES);
	cr_assert_not_null(memory);
	mig_link_register(destination, 1, memory, REGION_BYTES);
}

/* So slowly that it would take minutes; faster than a timeout notices. */
Test(mig_link, who_reads_byte_by_byte_is_lost)
{
	const int small = 4096;
	pthread_t peer;
	int r = 0;

	connect_tcp();
	cr_assert_eq(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	cr_assert_eq(setsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	cr_assert_eq(pthread_create(&peer, NULL, read_slowly, NULL), 0);
	for (int i = 0; i < 8 && r == 0; i++)
		r = mig_link_write(source, 1, 0, memory, REGION_BYTES, &err);
	cr_assert_eq(r, -ETIMEDOUT, "%s", err.text);
	mig_link_cancel(source);
	cr_assert_eq(pthread_join(peer, NULL), 0);
}

/* A message does not wait for the acknowledgement of the one before. */
Test(mig_link, tcp_does_not_wait_for_more)
{
	struct mig_received received;
	socklen_t bytes = sizeof(int);
	int on = 0;

	connect_tcp();
	cr_assert_eq(getsockopt(fds[0], IPPROTO_TCP, TCP_NODELAY, &on, &bytes), 0);
	cr_assert_neq(on, 0);
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(mig_link_write(source, 1, 4096, &i, sizeof(i), &err), 0);
		cr_assert_eq(mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, &err), 0);
		cr_assert_eq(mig_link_receive(destination, &received, &err), 0, "%s", err.text);
		cr_assert_eq(memcmp(memory + 4096, &i, sizeof(i)), 0);
	}
}

/* The other side stops reading in the middle of a write: its window is full. */
Test(mig_link, tcp_with_a_peer_that_does_not_read)
{
	int r = 0;

	connect_tcp();
	while (r == 0) /* until what the kernel holds is full */
		r = mig_link_write(source, 1, 0, memory, REGION_BYTES, &err);
	cr_assert_eq(r, -ETIMEDOUT, "%s", err.text);
}

/* A reset: bytes that nobody took, and the socket is closed. */
Test(mig_link, tcp_reset)
{
	struct mig_received received;
	int r = 0;

	connect_tcp();
	cr_assert_eq(mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, &err), 0);
	(void)close(fds[1]);
	fds[1] = -1;
	r = mig_link_receive(source, &received, &err);
	cr_assert(r == -ECONNRESET || r == -ENOTCONN, "%d", r);
	for (int i = 0; r == -ECONNRESET || r == -ENOTCONN || r == 0; i++) {
		r = mig_link_write(source, 1, 0, memory, REGION_BYTES, &err);
		cr_assert_lt(i, 1000);
		if (r < 0)
			break;
	}
	cr_assert(r == -EPIPE || r == -ECONNRESET, "%s", err.text);
}

/* Whoever sends comes out, too. */
static void *send_for_ever(void *context)
{
	struct waiter *waiter = context;

	atomic_store(&waiter->task, gettid());
	while (waiter->code == 0)
		waiter->code = mig_link_write(source, 1, 0, memory, REGION_BYTES, NULL);
	return NULL;
}

Test(mig_link, tcp_cancel_of_a_sender)
{
	struct mig_link_options options = { .is_source = true };
	struct waiter waiter = { .code = 0 };
	pthread_t thread;

	connect_tcp();
	mig_link_free(source);
	options.fd = fds[0];
	cr_assert_eq(mig_link_new(&options, &source, &err), 0);
	cr_assert_eq(pthread_create(&thread, NULL, send_for_ever, &waiter), 0);
	while (atomic_load(&waiter.task) == 0)
		(void)sched_yield();
	wait_asleep(getpid(), atomic_load(&waiter.task));
	mig_link_cancel(source);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(waiter.code, -ECANCELED);
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
