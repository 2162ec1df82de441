/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS of a connection behind its handshake: what becomes of records that are not whole.  What must
 * never happen: a byte of a damaged one is given on, or an end is taken for the end.
 */

#include "tests/unit/migrate/mig_tls_rig.h"

TestSuite(mig_tls_record, .init = setup, .fini = teardown, .timeout = 60);

#define RECORD_BYTES 300u
#define MANY_BYTES   (1u << 20)

/* A connection whose bytes go by way of the test: @wire has what the source said. */
static size_t record_on_wire(uint8_t *wire, size_t size_bytes)
{
	uint8_t bytes[RECORD_BYTES];

	memset(bytes, 7, sizeof(bytes));
	cr_assert_eq(says(source, bytes, sizeof(bytes)), 0);
	return taken(fds[1], wire, size_bytes);
}

/* No byte of a damaged record is given on, whichever bit of it is another one. */
Test(mig_tls_record, a_changed_record)
{
	static uint8_t wire[1024];

	for (size_t at = 0; at < RECORD_BYTES + 22; at++) {
		uint8_t bytes[RECORD_BYTES];
		size_t count = 0;
		size_t got = 0;
		int r = 0;

		if (at % 8 != 0 && at > 5 && at < RECORD_BYTES)
			continue; /* a handshake for each takes its time */
		if (at > 0) {
			teardown();
			setup();
		}
		greeted();
		count = record_on_wire(wire, sizeof(wire));
		cr_assert_eq(count, RECORD_BYTES + 22);
		wire[at] ^= 1;
		cr_assert_eq(write(fds[0], wire, count), (ssize_t)count);
		(void)shutdown(fds[0], SHUT_WR);
		r = hears(destination, bytes, sizeof(bytes), &got);
		cr_assert(r == -EBADMSG || r == -ECONNRESET, "byte %zu: %d, %s", at, r, err.text);
		cr_assert_eq(got, 0);
		cr_assert_lt(hears(destination, bytes, sizeof(bytes), &got), 0);
	}
}

Test(mig_tls_record, a_record_that_is_cut)
{
	static uint8_t wire[1024];

	for (size_t cut = 0; cut < RECORD_BYTES + 22; cut += cut < 8 ? 1 : 40) {
		uint8_t bytes[RECORD_BYTES];
		size_t got = 0;

		if (cut > 0) {
			teardown();
			setup();
		}
		greeted();
		cr_assert_eq(record_on_wire(wire, sizeof(wire)), RECORD_BYTES + 22);
		cr_assert_eq(write(fds[0], wire, cut), (ssize_t)cut);
		cr_assert_eq(hears(destination, bytes, sizeof(bytes), &got), -EAGAIN);
		(void)shutdown(fds[0], SHUT_WR);
		cr_assert_eq(hears(destination, bytes, sizeof(bytes), &got), -ECONNRESET, "%s",
			     err.text);
		has_text(&err, "ended without a goodbye");
		cr_assert_eq(got, 0);
	}
}

Test(mig_tls_record, a_record_twice)
{
	static uint8_t wire[1024];
	uint8_t bytes[2 * RECORD_BYTES];
	size_t count = 0;
	size_t got = 0;

	greeted();
	count = record_on_wire(wire, sizeof(wire));
	cr_assert_eq(write(fds[0], wire, count), (ssize_t)count);
	cr_assert_eq(write(fds[0], wire, count), (ssize_t)count);
	cr_assert_eq(hears(destination, bytes, sizeof(bytes), &got), 0); /* what came before it */
	cr_assert_eq(got, RECORD_BYTES);
	cr_assert_eq(hears(destination, bytes, sizeof(bytes), &got), -EBADMSG, "%s", err.text);
	has_text(&err, "a record is damaged");
	cr_assert_eq(hears(destination, bytes, sizeof(bytes), &got), -ECONNRESET);
}

Test(mig_tls_record, a_record_that_is_left_out)
{
	static uint8_t wire[1024];
	uint8_t bytes[RECORD_BYTES];
	size_t count = 0;
	size_t got = 0;

	greeted();
	(void)record_on_wire(wire, sizeof(wire));
	count = record_on_wire(wire, sizeof(wire));
	cr_assert_eq(write(fds[0], wire, count), (ssize_t)count);
	cr_assert_eq(hears(destination, bytes, sizeof(bytes), &got), -EBADMSG, "%s", err.text);
}

Test(mig_tls_record, a_goodbye_is_an_end)
{
	uint8_t byte = 0;
	size_t got = 0;

	greeted();
	mig_tls_stream_goodbye(source);
	cr_assert_eq(hears(destination, &byte, 1, &got), -ENOTCONN);
	cr_assert_eq(says(destination, "one more", 8), 0); /* a last word */
	cr_assert_lt(says(source, "more", 4), 0);
}

Test(mig_tls_record, a_peer_that_is_gone)
{
	static uint8_t bytes[MANY_BYTES];
	int r = 0;

	greeted();
	(void)close(fds[1]);
	fds[1] = -1;
	for (int i = 0; i < 4 && r == 0; i++)
		r = says(source, bytes, sizeof(bytes)); /* and no SIGPIPE */
	cr_assert(r == -EPIPE || r == -ECONNRESET, "%d", r);
	mig_tls_stream_goodbye(source);
}

/* What it has said before it went is heard, although nothing can be said to it any more. */
Test(mig_tls_record, a_last_word)
{
	static uint8_t bytes[MANY_BYTES];
	char text[16];
	size_t got = 0;
	int r = 0;

	greeted();
	cr_assert_eq(says(source, "farewell", 8), 0);
	(void)shutdown(fds[0], SHUT_RDWR);
	for (int i = 0; i < 4 && r == 0; i++)
		r = says(destination, bytes, sizeof(bytes));
	cr_assert_eq(r, -EPIPE, "%d", r);
	cr_assert_eq(hears(destination, text, sizeof(text), &got), 0, "%s", err.text);
	cr_assert_eq(got, 8);
	cr_assert_eq(hears(destination, text, sizeof(text), &got), -ECONNRESET);
}

/* More than the buffers hold, read in odd pieces; and the key is changed all the time. */
static void carries(uint64_t key_bytes)
{
	static uint8_t from[MANY_BYTES], to[MANY_BYTES];
	size_t sent = 0;
	size_t heard = 0;
	short events = 0;

	for (size_t i = 0; i < sizeof(from); i++)
		from[i] = (uint8_t)(i * 7 + i / 4096);
	greeted();
	cr_assert_eq(mig_tls_stream_widen(source, &err), 0);
	cr_assert_eq(mig_tls_stream_widen(destination, &err), 0);
	source->key_bytes_max = key_bytes;
	while (heard < sizeof(to)) {
		size_t done = 0;
		size_t most = heard % 5000 + 1;
		int r = 0;

		if (sent < sizeof(from)) {
			r = mig_tls_stream_write(source, from + sent, sizeof(from) - sent, &done,
						 &events, &err);
			cr_assert(r == 0 || r == -EAGAIN, "%s", err.text);
			sent += done;
		}
		r = mig_tls_stream_flush(source, &events, &err);
		cr_assert(r == 0 || r == -EAGAIN, "%s", err.text);
		do {
			most = most < sizeof(to) - heard ? most : sizeof(to) - heard;
			r = hears(destination, to + heard, most, &done);
			cr_assert(r == 0 || r == -EAGAIN, "%s", err.text);
			heard += done;
		} while (r == 0 && heard < sizeof(to));
	}
	cr_assert_eq(memcmp(from, to, sizeof(to)), 0);
	cr_assert_gt(mig_tls_stream_sent(source), sizeof(from));
}

Test(mig_tls_record, carries_much)
{
	carries(MIG_TLS_KEY_BYTES);
}

Test(mig_tls_record, a_new_key_every_now_and_then)
{
	carries(50000);
	cr_assert_geq(destination->strays, 10, "%u", destination->strays);
	cr_assert_leq(destination->strays, MANY_BYTES / 50000);
}

/* A peer that sends nothing but new keys is let go. */
Test(mig_tls_record, new_keys_without_end)
{
	uint8_t byte = 0;
	size_t got = 0;
	int r = -EAGAIN;

	greeted();
	for (int i = 0; i < 8192 && r == -EAGAIN; i++) {
		cr_assert_eq(SSL_key_update(source->ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
		cr_assert_eq(SSL_do_handshake(source->ssl), 1);
		(void)!mig_tls_bio_flush(source);
		r = hears(destination, &byte, 1, &got);
	}
	cr_assert_eq(r, -EPROTO, "%d: %s", r, err.text);
	has_text(&err, "messages behind the handshake, expected at most 4096");
}
