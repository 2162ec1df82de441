/* SPDX-License-Identifier: Apache-2.0 */
/* What a channel receives beyond a small chunk. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "migrate/mig_link.h"

#define REGION_BYTES (1u << 20)
#define TIMEOUT_MS   60000u /* longer than any machine is busy with something else */

static int fds[2];
static struct mig_link *source; /* on fds[0] */
static struct mig_link *destination;
static uint8_t *memory;
static struct base_error err;

static void setup(void)
{
	struct mig_link_options options = { .is_source = true, .timeout_ms = TIMEOUT_MS };

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	options.fd = fds[0];
	cr_assert_eq(mig_link_new(&options, &source, &err), 0, "%s", err.text);
	options = (struct mig_link_options){ .fd = fds[1], .timeout_ms = TIMEOUT_MS };
	cr_assert_eq(mig_link_new(&options, &destination, &err), 0, "%s", err.text);
	memory = calloc(1, REGION_BYTES);
	cr_assert_not_null(memory);
	mig_link_register(destination, 1, memory, REGION_BYTES);
}

static void teardown(void)
{
	mig_link_free(source);
	mig_link_free(destination);
	(void)close(fds[0]);
	(void)close(fds[1]);
	free(memory);
}

TestSuite(mig_link_ahead, .init = setup, .fini = teardown, .timeout = 120);

static const uint8_t barrier[8] = { 5 };

#define MIXED 600u
static const uint32_t mixed_bytes[] = { 0, 4096, 1, 16384, 4096, 4096, 16385, 0, 0, 4096, 300000 };

static uint32_t mixed_size(uint32_t i)
{
	return mixed_bytes[(i + i / 64) % (sizeof(mixed_bytes) / sizeof(mixed_bytes[0]))];
}

static void *send_mixed(void *context)
{
	uint8_t *bytes = calloc(1, 300000);
	uint8_t chunk[MIG_CHUNK_BYTES] = { 0 };
	int *code = context;

	for (uint32_t i = 0; *code == 0 && i < MIXED; i++) {
		const struct mig_post post = { .region = 1,
					       .size_bytes = mixed_size(i),
					       .offset_bytes = i,
					       .from = bytes,
					       .chunk = chunk };

		memset(bytes, (int)(i % 255) + 1, post.size_bytes);
		base_put_le32(chunk, i);
		*code = mig_link_post(source, &post, 1, NULL);
		if (*code == 0 && i % 50 == 49)
			*code = mig_link_send(source, MIG_TYPE_BARRIER, barrier, 8, NULL);
	}
	free(bytes);
	return NULL;
}

/* What has come beyond a small chunk belongs to whatever is behind it. */
Test(mig_link_ahead, small_and_large_chunks_in_any_order)
{
	struct mig_received received;
	pthread_t thread;
	int code = 0;

	cr_assert_eq(pthread_create(&thread, NULL, send_mixed, &code), 0);
	for (uint32_t i = 0; i < MIXED; i++) {
		uint32_t size_bytes = mixed_size(i);

		memset(memory, 0, 300000 + MIXED + 1);
		cr_assert_eq(mig_link_receive(destination, &received, &err), 0, "%s", err.text);
		cr_assert_eq(received.type, MIG_TYPE_CHUNK);
		cr_assert_eq(base_get_le32(received.body), i);
		for (uint32_t at = 0; at <= 300000 + MIXED; at++)
			cr_assert_eq(memory[at], at >= i && at - i < size_bytes ? i % 255 + 1 : 0);
		if (i % 50 == 49) {
			cr_assert_eq(mig_link_receive(destination, &received, &err), 0);
			cr_assert_eq(received.type, MIG_TYPE_BARRIER);
			cr_assert_eq(memcmp(received.body, barrier, 8), 0);
		}
	}
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(code, 0);
	cr_assert_eq(mig_link_counts(destination).received_bytes,
		     mig_link_counts(source).sent_bytes);
}

/* Also when there is more to take without asking the socket. */
Test(mig_link_ahead, a_cancel_ends_what_has_come_already)
{
	const uint8_t chunk[MIG_CHUNK_BYTES] = { 1 };
	const struct mig_post post = { .chunk = chunk };
	const struct mig_post posts[] = { post, post, post, post };
	struct mig_received received;

	cr_assert_eq(mig_link_post(source, posts, 4, &err), 0, "%s", err.text);
	cr_assert_eq(mig_link_receive(destination, &received, &err), 0, "%s", err.text);
	cr_assert_eq(mig_link_receive(destination, &received, &err), 0, "%s", err.text);
	mig_link_cancel(destination);
	cr_assert_eq(mig_link_receive(destination, &received, &err), -ECANCELED);
}
