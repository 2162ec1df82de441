/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fault_proxy.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "migrate/mig_link.h"

static int near_fd;
static int far_fd;
static struct fault_proxy *proxy;

static void setup(void)
{
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	near_fd = fault_proxy_before(pair[0], &proxy);
	far_fd = pair[1];
}

static void teardown(void)
{
	fault_proxy_free(proxy);
	(void)close(near_fd);
	(void)close(far_fd);
}

TestSuite(fault_proxy, .init = setup, .fini = teardown, .timeout = 60);

static void say(int fd, const char *text)
{
	cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static void expect(int fd, const char *text)
{
	char got[64] = { 0 };

	cr_assert_eq(recv(fd, got, strlen(text), MSG_WAITALL), (ssize_t)strlen(text));
	cr_assert_str_eq(got, text);
}

static void expect_end(int fd)
{
	char byte = 0;
	ssize_t got = recv(fd, &byte, 1, 0);

	cr_assert(got == 0 || (got < 0 && errno == ECONNRESET), "%zd", got);
}

static void expect_nothing(int fd)
{
	char byte = 0;

	cr_assert_eq(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
	cr_assert(errno == EAGAIN || errno == EWOULDBLOCK);
}

Test(fault_proxy, bytes_go_through_both_ways)
{
	say(near_fd, "hello");
	expect(far_fd, "hello");
	say(far_fd, "you");
	expect(near_fd, "you");
	cr_assert(fault_proxy_wait(proxy, FAULT_FORTH, 5));
	cr_assert_eq(fault_proxy_forwarded(proxy, FAULT_FORTH), 5);
	cr_assert(fault_proxy_wait(proxy, FAULT_BACK, 3));
	(void)shutdown(near_fd, SHUT_WR); /* an end goes through, too, alone */
	expect_end(far_fd);
	say(far_fd, "still");
	expect(near_fd, "still");
	cr_assert_not(fault_proxy_wait(proxy, FAULT_FORTH, 6));
	cr_assert(fault_proxy_wait(proxy, FAULT_BACK, 8));
}

Test(fault_proxy, an_end_of_either_reaches_the_other)
{
	(void)close(far_fd);
	far_fd = -1;
	expect_end(near_fd);
}

Test(fault_proxy, cut_at_once)
{
	say(near_fd, "x");
	cr_assert(fault_proxy_wait(proxy, FAULT_FORTH, 1));
	fault_proxy_cut(proxy);
	expect(far_fd, "x"); /* what was there stays */
	expect_end(far_fd);
	expect_end(near_fd);
	cr_assert_eq(send(near_fd, "y", 1, MSG_NOSIGNAL), -1);
	fault_proxy_cut(proxy); /* again is fine */
}

Test(fault_proxy, cut_after_bytes)
{
	fault_proxy_arm(proxy, &(struct fault_rule){
				       .way = FAULT_FORTH, .action = FAULT_CUT, .at_bytes = 5 });
	say(near_fd, "abcdefgh");
	expect(far_fd, "abcde");
	expect_end(far_fd);
	expect_end(near_fd);
	cr_assert(fault_proxy_wait_hit(proxy, 1));
	cr_assert_eq(fault_proxy_forwarded(proxy, FAULT_FORTH), 5);
	cr_assert_not(fault_proxy_wait_hit(proxy, 2));
}

/* With nothing behind them: it does not wait for the byte after. */
Test(fault_proxy, cut_after_exactly_what_was_said)
{
	fault_proxy_arm(proxy, &(struct fault_rule){
				       .way = FAULT_BACK, .action = FAULT_CUT, .at_bytes = 3 });
	say(far_fd, "abc");
	expect(near_fd, "abc");
	expect_end(near_fd);
	expect_end(far_fd);
}

Test(fault_proxy, cut_before_the_first_byte)
{
	fault_proxy_arm(proxy, &(struct fault_rule){ .action = FAULT_CUT });
	expect_end(far_fd);
	expect_end(near_fd);
}

Test(fault_proxy, hold_one_way_and_release)
{
	fault_proxy_arm(proxy, &(struct fault_rule){
				       .way = FAULT_FORTH, .action = FAULT_HOLD, .at_bytes = 2 });
	say(near_fd, "abcd");
	cr_assert(fault_proxy_wait_hit(proxy, 1));
	expect(far_fd, "ab");
	expect_nothing(far_fd);
	say(far_fd, "back"); /* the other way goes on */
	expect(near_fd, "back");
	cr_assert_not(fault_proxy_wait(proxy, FAULT_FORTH, 3));
	fault_proxy_release(proxy, FAULT_FORTH);
	expect(far_fd, "cd");
	fault_proxy_hold(proxy, FAULT_FORTH);
	say(near_fd, "ef");
	expect_nothing(far_fd);
	fault_proxy_release(proxy, FAULT_FORTH);
	expect(far_fd, "ef");
}

/* As with a peer that is frozen: not even the end of the other is seen, and a sender gets stuck. */
Test(fault_proxy, frozen_for_ever)
{
	uint8_t block[4096] = { 0 };
	ssize_t sent = 0;

	fault_proxy_arm(proxy, &(struct fault_rule){ .way = FAULT_FORTH,
						     .action = FAULT_HOLD,
						     .at_bytes = 4,
						     .both_ways = true });
	say(near_fd, "abcd");
	cr_assert(fault_proxy_wait_hit(proxy, 1));
	expect(far_fd, "abcd");
	say(far_fd, "x");
	expect_nothing(near_fd);
	do {
		sent = send(near_fd, block, sizeof(block), MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (sent > 0);
	cr_assert(errno == EAGAIN || errno == EWOULDBLOCK);
	(void)close(far_fd);
	far_fd = -1;
	expect_nothing(near_fd);
	fault_proxy_release(proxy, FAULT_BACK);
	expect(near_fd, "x");
	expect_end(near_fd);
}

Test(fault_proxy, one_way_ends)
{
	fault_proxy_arm(proxy, &(struct fault_rule){
				       .way = FAULT_BACK, .action = FAULT_SHUT, .at_bytes = 1 });
	say(far_fd, "ab");
	expect(near_fd, "a");
	expect_end(near_fd);
	say(near_fd, "forth");
	expect(far_fd, "forth");
}

Test(fault_proxy, a_bit_of_a_byte)
{
	fault_proxy_arm(
		proxy, &(struct fault_rule){
			       .way = FAULT_FORTH, .action = FAULT_FLIP, .at_bytes = 2, .bit = 5 });
	fault_proxy_arm(proxy, &(struct fault_rule){
				       .way = FAULT_FORTH, .action = FAULT_FLIP, .at_bytes = 4 });
	say(near_fd, "abcd");
	expect(far_fd, "abCd");
	say(near_fd, "ab");
	expect(far_fd, "`b");
	cr_assert(fault_proxy_wait_hit(proxy, 2));
}

/* --- frames --- */

static struct mig_link *link_over(int fd, bool is_source)
{
	struct mig_link_options options = {
		.fd = fd, .is_source = is_source, .is_control = true, .timeout_ms = 20000
	};
	struct mig_link *link = NULL;

	cr_assert_eq(mig_link_new(&options, &link, NULL), 0);
	return link;
}

static const uint8_t body[MIG_CHUNK_BYTES] = { 1 };

/* Three rounds and a commit with a rule on their way: how many bytes came, and what the end was. */
static int commit_under(const struct fault_rule *rule, uint32_t *ret_messages, uint64_t *ret_bytes)
{
	struct mig_link *source = NULL;
	struct mig_link *destination = NULL;
	struct mig_received received;
	int r = 0;

	teardown();
	setup();
	source = link_over(near_fd, true);
	destination = link_over(far_fd, false);
	fault_proxy_arm(proxy, rule);
	for (int i = 0; i < 3; i++)
		(void)!mig_link_send(source, MIG_TYPE_ROUND, body, 24, NULL);
	(void)!mig_link_send(source, MIG_TYPE_COMMIT, body, 16, NULL);
	(void)shutdown(near_fd, SHUT_WR);
	for (*ret_messages = 0; r == 0; *ret_messages += r == 0 ? 1 : 0)
		r = mig_link_receive(destination, &received, NULL);
	*ret_bytes = mig_link_counts(destination).received_bytes;
	mig_link_free(source);
	mig_link_free(destination);
	return r;
}

static void expect_under(struct fault_rule rule, int code, uint32_t messages, uint64_t bytes)
{
	uint32_t got_messages = 0;
	uint64_t got_bytes = 0;
	int r = commit_under(&rule, &got_messages, &got_bytes);

	cr_assert_eq(r, code, "%d", r);
	cr_assert_eq(got_messages, messages);
	cr_assert_eq(got_bytes, bytes, "%llu", (unsigned long long)got_bytes);
}

Test(fault_proxy, rules_of_frames)
{
	struct fault_rule rule = {
		.way = FAULT_FORTH, .action = FAULT_CUT, .type = MIG_TYPE_ROUND, .skip = 1
	};

	expect_under(rule, -ENOTCONN, 1, 56);
	rule.at_bytes = 1;
	expect_under(rule, -ECONNRESET, 1, 57);
	rule.at_bytes = FAULT_END;
	expect_under(rule, -ENOTCONN, 2, 112);
	rule.skip = 3; /* there are not so many */
	expect_under(rule, -ENOTCONN, 4, 216);
	rule = (struct fault_rule){ .action = FAULT_CUT, .type = MIG_TYPE_COMMIT };
	expect_under(rule, -ENOTCONN, 3, 168);
	rule.action = FAULT_SHUT;
	rule.at_bytes = 40;
	expect_under(rule, -ECONNRESET, 3, 208);
	rule.action = FAULT_FLIP;
	rule.at_bytes = FAULT_END;
	expect_under(rule, -EBADMSG, 3, 216);
	rule.at_bytes = 0;
	expect_under(rule, -EBADMSG, 3, 200);
}

/* A header that comes byte by byte is held back until its type is known, and no longer. */
Test(fault_proxy, frames_in_pieces)
{
	struct mig_frame frame = { .type = MIG_TYPE_ROUND, .body_bytes = 24 };
	uint8_t bytes[MIG_FRAME_BYTES + 24] = { 0 };
	char got[MIG_FRAME_BYTES + 24];

	fault_proxy_arm(proxy, &(struct fault_rule){ .way = FAULT_FORTH,
						     .action = FAULT_HOLD,
						     .type = MIG_TYPE_COMMIT });
	mig_frame_encode(&frame, bytes);
	for (size_t i = 0; i < sizeof(bytes); i++)
		cr_assert_eq(send(near_fd, bytes + i, 1, MSG_NOSIGNAL), 1);
	cr_assert_eq(recv(far_fd, got, sizeof(got), MSG_WAITALL), (ssize_t)sizeof(got));
	cr_assert_eq(memcmp(got, bytes, sizeof(got)), 0);
	frame = (struct mig_frame){ .type = MIG_TYPE_COMMIT, .body_bytes = 16 };
	mig_frame_encode(&frame, bytes);
	cr_assert_eq(send(near_fd, bytes, MIG_FRAME_BYTES, MSG_NOSIGNAL), MIG_FRAME_BYTES);
	cr_assert(fault_proxy_wait_hit(proxy, 1));
	expect_nothing(far_fd);
	fault_proxy_release(proxy, FAULT_FORTH);
	cr_assert_eq(recv(far_fd, got, MIG_FRAME_BYTES, MSG_WAITALL), MIG_FRAME_BYTES);
	cr_assert_eq(memcmp(got, bytes, MIG_FRAME_BYTES), 0);
}

/* --- more than fits anywhere --- */

#define MANY_BYTES (8u << 20)

static void *send_many(void *context)
{
	const uint8_t *at = context;
	size_t left = MANY_BYTES;

	while (left > 0) {
		ssize_t sent = send(near_fd, at, left, MSG_NOSIGNAL);

		if (sent <= 0)
			break;
		at += sent;
		left -= (size_t)sent;
	}
	return NULL;
}

Test(fault_proxy, many_bytes_stay_in_order)
{
	uint8_t *from = malloc(MANY_BYTES);
	uint8_t *to = malloc(MANY_BYTES);
	pthread_t thread;

	cr_assert(from != NULL && to != NULL);
	for (uint32_t i = 0; i < MANY_BYTES; i++)
		from[i] = (uint8_t)(i * 31 + i / 4096);
	fault_proxy_arm(proxy, &(struct fault_rule){ .way = FAULT_FORTH,
						     .action = FAULT_FLIP,
						     .at_bytes = 5u << 20,
						     .bit = 7 });
	cr_assert_eq(pthread_create(&thread, NULL, send_many, from), 0);
	cr_assert_eq(recv(far_fd, to, MANY_BYTES, MSG_WAITALL), MANY_BYTES);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(to[5u << 20] ^ from[5u << 20], 0x80);
	to[5u << 20] ^= 0x80;
	cr_assert_eq(memcmp(from, to, MANY_BYTES), 0);
	free(from);
	free(to);
}
