/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS of a connection: who is let in and who is not, at both sides.  What must never happen: a byte
 * is given on of a peer that is not who it shall be.
 */
#include "migrate/mig_tls.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>

#include "tests/unit/migrate/mig_tls_rig.h"

TestSuite(mig_tls, .init = setup, .fini = teardown, .timeout = 60);

/* What the source, whose handshake is done first, hears when it reads. */
static int source_hears(void)
{
	uint8_t byte = 0;
	size_t got = 0;
	short events = 0;

	return mig_tls_stream_read(source, &byte, 1, &got, &events, &source_err);
}

/* --- it works --- */

Test(mig_tls, two_hosts_that_know_each_other)
{
	struct mig_tls_facts facts;
	char text[32];
	size_t got = 0;

	greeted();
	cr_assert_eq(says(source, "to you", 6), 0);
	cr_assert_eq(hears(destination, text, sizeof(text), &got), 0);
	cr_assert_eq(got, 6);
	cr_assert_eq(memcmp(text, "to you", 6), 0);
	cr_assert_eq(hears(destination, text, sizeof(text), &got), -EAGAIN);
	cr_assert_eq(says(destination, "and back", 8), 0);
	cr_assert_eq(hears(source, text, sizeof(text), &got), 0);
	cr_assert_eq(got, 8);
	mig_tls_stream_facts(source, &facts);
	cr_assert_not_null(strstr(mig_tls_ciphers(), facts.cipher));
	cr_assert_str_eq(facts.peer, "b.example");
	cr_assert_not(facts.in_kernel); /* a socket of a kind that it does not know */
	mig_tls_stream_facts(destination, &facts);
	cr_assert_str_eq(facts.peer, "a.example");
}

Test(mig_tls, names_are_found_as_letters_and_numbers)
{
	static const char *const names[] = { "192.0.2.2", "2001:db8::2", "2001:0db8:0:0::2",
					     "B.Example" };
	int there = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (i > 0) {
			teardown();
			source = destination = NULL;
			setup();
		}
		make("a", "b", names[i], "192.0.2.1");
		cr_assert_eq(greet_both(&there), 0, "%s: %s", names[i], source_err.text);
		cr_assert_eq(there, 0);
	}
}

Test(mig_tls, any_of_a_list)
{
	const char *peers[] = { "c.example", "192.0.2.9", "a.example" };
	struct mig_tls_options options = { .peers = peers, .peer_count = 3 };
	char path[MIG_TLS_LAB_PATH_BYTES];
	int there = 0;

	make("a", "b", "b.example", "x.example");
	mig_tls_stream_free(destination);
	mig_tls_free(destination_tls);
	mig_tls_lab_path(&lab, "b", "", path);
	options.directory_fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert_eq(mig_tls_new(&options, &destination_tls, &err), 0);
	(void)close(options.directory_fd);
	destination = stream(destination_tls, fds[1]);
	cr_assert_eq(greet_both(&there), 0);
	cr_assert_eq(there, 0, "%s", destination_err.text);
}

/* --- certificates that are not good --- */

/* The destination does not let the source in, and the source hears why. */
static void source_refused(const char *folder, const char *text)
{
	int there = 0;
	int r = 0;

	make(folder, "b", "b.example", "a.example");
	r = greet_both(&there);
	cr_assert_eq(there, -EACCES, "%d: %s", there, destination_err.text);
	has_text(&destination_err, text);
	if (r == 0)
		r = source_hears();
	cr_assert_eq(r, -EACCES, "%d: %s", r, source_err.text);
	has_text(&source_err, "the other side refuses this host's certificate");
}

/* The source does not talk to that destination. */
static void destination_refused(const char *folder, const char *text)
{
	int there = 0;
	int r = 0;

	make("a", folder, "b.example", "a.example");
	r = greet_both(&there);
	cr_assert_eq(r, -EACCES, "%d: %s", r, source_err.text);
	has_text(&source_err, text);
	cr_assert_eq(there, -EACCES, "%d: %s", there, destination_err.text);
	has_text(&destination_err, "the other side refuses this host's certificate");
}

Test(mig_tls, another_host_as_source)
{
	host("c", "DNS:c.example,IP:192.0.2.3");
	source_refused("c", "certificate of 'c.example', '192.0.2.3': another host, expected "
			    "'a.example'");
}

Test(mig_tls, another_host_as_destination)
{
	host("c", "DNS:c.example");
	destination_refused("c", "certificate of 'c.example': another host, expected 'b.example'");
}

/* Neither the common name nor a wildcard nor a part of a name is a name. */
Test(mig_tls, what_only_looks_like_the_name)
{
	static const char *const names[] = { "DNS:*.example",     "DNS:xb.example",
					     "DNS:b.example.org", "DNS:example",
					     "email:b.example",   "IP:192.0.2.1" };
	char folder[8];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (i > 0) {
			teardown();
			source = destination = NULL;
			setup();
		}
		(void)snprintf(folder, sizeof(folder), "c%zu", i);
		mig_tls_lab_host(&lab, &(struct mig_tls_lab_host){ .folder = folder,
								   .names = names[i],
								   .common_name = "b.example" });
		destination_refused(folder, "another host");
	}
}

Test(mig_tls, a_name_as_letters_is_no_address)
{
	int there = 0;

	mig_tls_lab_host(&lab,
			 &(struct mig_tls_lab_host){ .folder = "c", .names = "DNS:192.0.2.2" });
	make("a", "c", "192.0.2.2", "a.example");
	cr_assert_eq(greet_both(&there), -EACCES);
	has_text(&source_err, "another host");
}

Test(mig_tls, a_common_name_only)
{
	mig_tls_lab_host(&lab,
			 &(struct mig_tls_lab_host){ .folder = "c", .common_name = "a.example" });
	source_refused("c", "certificate of nobody: another host");
}

/* A certificate that this host would not even begin with, in another one's hands. */
static SSL_CTX *raw_context(bool is_source, const char *folder)
{
	SSL_CTX *context = SSL_CTX_new(is_source ? TLS_client_method() : TLS_server_method());
	char path[MIG_TLS_LAB_PATH_BYTES];

	cr_assert_not_null(context);
	SSL_CTX_set_security_level(context, 0);
	if (is_source)
		(void)SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\x10" MIG_TLS_ALPN,
					      17);
	if (folder == NULL)
		return context;
	mig_tls_lab_path(&lab, folder, "cert.pem", path);
	cr_assert_eq(SSL_CTX_use_certificate_chain_file(context, path), 1);
	mig_tls_lab_path(&lab, folder, "key.pem", path);
	cr_assert_eq(SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM), 1);
	return context;
}

/* A peer of @context at the other end of our @side (0 source, 1 destination): our code. */
static int against(SSL_CTX *context, int side, struct base_error *why)
{
	SSL *ssl = SSL_new(context);
	short events = 0;
	int r = -EAGAIN;

	cr_assert_not_null(ssl);
	SSL_CTX_free(context);
	if (side == 0)
		cr_assert_eq(mig_tls_lab_open(&lab, "a", true, "b.example", &source_tls, &err), 0);
	else
		cr_assert_eq(
			mig_tls_lab_open(&lab, "b", false, "a.example", &destination_tls, &err), 0);
	source = side == 0 ? stream(source_tls, fds[0]) : NULL;
	destination = side == 1 ? stream(destination_tls, fds[1]) : NULL;
	cr_assert_eq(fcntl(fds[1 - side], F_SETFL, O_NONBLOCK), 0);
	SSL_set_fd(ssl, fds[1 - side]);
	if (side == 0)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	for (int i = 0; i < 100 && r == -EAGAIN; i++) {
		(void)SSL_do_handshake(ssl);
		r = mig_tls_stream_greet(side == 0 ? source : destination, &events, why);
	}
	SSL_free(ssl);
	ERR_clear_error();
	return r;
}

Test(mig_tls, a_source_without_a_certificate)
{
	cr_assert_eq(against(raw_context(true, NULL), 1, &err), -EACCES, "%s", err.text);
	has_text(&err, "the other side has no certificate, expected one of 'a.example'");
}

Test(mig_tls, certificates_of_another_authority)
{
	mig_tls_lab_host(&lab, &(struct mig_tls_lab_host){ .folder = "c",
							   .names = "DNS:a.example,DNS:b.example",
							   .of_other = true });
	cr_assert_eq(against(raw_context(true, "c"), 1, &err), -EACCES, "%s", err.text);
	has_text(&err, "expected a valid one of 'a.example'");
	teardown();
	source = destination = NULL;
	source_tls = destination_tls = NULL;
	setup();
	mig_tls_lab_host(&lab, &(struct mig_tls_lab_host){ .folder = "c",
							   .names = "DNS:a.example,DNS:b.example",
							   .of_other = true });
	cr_assert_eq(against(raw_context(false, "c"), 0, &err), -EACCES, "%s", err.text);
	has_text(&err, "expected a valid one of 'b.example'");
}

static void bad_source(struct mig_tls_lab_host bad, const char *text)
{
	bad.folder = "c";
	bad.names = "DNS:a.example,DNS:b.example";
	mig_tls_lab_host(&lab, &bad);
	cr_assert_eq(against(raw_context(true, "c"), 1, &err), -EACCES, "%s", err.text);
	has_text(&err, text);
}

static void bad_destination(struct mig_tls_lab_host bad, const char *text)
{
	bad.folder = "c";
	bad.names = "DNS:a.example,DNS:b.example";
	mig_tls_lab_host(&lab, &bad);
	cr_assert_eq(against(raw_context(false, "c"), 0, &err), -EACCES, "%s", err.text);
	has_text(&err, text);
}

Test(mig_tls, an_expired_source)
{
	bad_source((struct mig_tls_lab_host){ .from_days = -3, .to_days = -1 },
		   "certificate has expired");
}

Test(mig_tls, an_expired_destination)
{
	bad_destination((struct mig_tls_lab_host){ .from_days = -3, .to_days = -1 },
			"certificate has expired");
}

Test(mig_tls, a_source_of_tomorrow)
{
	bad_source((struct mig_tls_lab_host){ .from_days = 1, .to_days = 3 }, "not yet valid");
}

Test(mig_tls, a_certificate_for_servers_only_is_no_source)
{
	bad_source((struct mig_tls_lab_host){ .usage = "serverAuth" }, "unsuitable");
}

Test(mig_tls, a_certificate_for_clients_only_is_no_destination)
{
	bad_destination((struct mig_tls_lab_host){ .usage = "clientAuth" }, "unsuitable");
}

Test(mig_tls, revoked)
{
	struct mig_tls_lab_host lost = { .folder = "c", .names = "DNS:a.example" };

	mig_tls_lab_host(&lab, &lost);
	mig_tls_lab_revoke(&lab, "b", lost.serial, -1, 1);
	source_refused("c", "certificate revoked");
}

Test(mig_tls, a_list_of_others)
{
	int there = 0;

	mig_tls_lab_revoke(&lab, "b", 4711, -1, 1);
	mig_tls_lab_revoke(&lab, "a", 0, -1, 1);
	make("a", "b", "b.example", "a.example");
	cr_assert_eq(greet_both(&there), 0);
	cr_assert_eq(there, 0);
}

/* A list that is out of date says nothing of what was revoked since. */
Test(mig_tls, a_list_out_of_date)
{
	struct mig_tls *tls = NULL;

	mig_tls_lab_revoke(&lab, "b", 0, -3, -1);
	cr_assert_eq(mig_tls_lab_open(&lab, "b", false, "a.example", &tls, &err), -EKEYEXPIRED);
	has_text(&err, "CRL has expired");
}

/* --- what is spoken --- */

Test(mig_tls, an_older_source)
{
	SSL_CTX *context = raw_context(true, "a");

	cr_assert_eq(SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION), 1);
	cr_assert_eq(against(context, 1, &err), -EPROTO, "%s", err.text);
	has_text(&err, "unsupported protocol, expected TLS 1.3 and 'godwit-migrate/1'");
}

Test(mig_tls, an_older_destination)
{
	SSL_CTX *context = raw_context(false, "b");

	cr_assert_eq(SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION), 1);
	cr_assert_eq(against(context, 0, &err), -EPROTO, "%s", err.text);
	has_text(&err, "the other side refuses");
	has_text(&err, "expected TLS 1.3");
}

Test(mig_tls, a_source_that_speaks_of_something_else)
{
	SSL_CTX *context = raw_context(true, "a");

	(void)SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\x02h2", 3);
	cr_assert_eq(against(context, 1, &err), -EPROTO, "%s", err.text);
	has_text(&err, "expected TLS 1.3 and 'godwit-migrate/1'");
}

Test(mig_tls, a_source_that_does_not_say_what_it_speaks)
{
	SSL_CTX *context = raw_context(true, "a");

	(void)SSL_CTX_set_alpn_protos(context, NULL, 0);
	cr_assert_eq(against(context, 1, &err), -EPROTO, "%s", err.text);
	has_text(&err, "TLSv1.3 without 'godwit-migrate/1'");
}

Test(mig_tls, a_destination_that_does_not_say_what_it_speaks)
{
	cr_assert_eq(against(raw_context(false, "b"), 0, &err), -EPROTO, "%s", err.text);
	has_text(&err, "TLSv1.3 without 'godwit-migrate/1'");
}

Test(mig_tls, a_cipher_that_is_not_spoken)
{
	SSL_CTX *context = raw_context(true, "a");

	cr_assert_eq(SSL_CTX_set_ciphersuites(context, "TLS_AES_128_CCM_SHA256"), 1);
	cr_assert_eq(against(context, 1, &err), -EPROTO, "%s", err.text);
	has_text(&err, "no shared cipher");
}

Test(mig_tls, large_certificates)
{
	mig_tls_lab_host(&lab, &(struct mig_tls_lab_host){ .folder = "c",
							   .names = "DNS:a.example,DNS:b.example",
							   .filler_bytes = 40 << 10 });
	cr_assert_eq(against(raw_context(true, "c"), 1, &err), -EPROTO, "%s", err.text);
	has_text(&err, "excessive message size");
}

/* --- bytes that are not TLS --- */

static int destination_gets(const void *bytes, size_t size_bytes)
{
	short events = 0;
	int r = 0;

	cr_assert_eq(mig_tls_lab_open(&lab, "b", false, "a.example", &destination_tls, &err), 0);
	destination = stream(destination_tls, fds[1]);
	cr_assert_eq(write(fds[0], bytes, size_bytes), (ssize_t)size_bytes);
	(void)shutdown(fds[0], SHUT_WR);
	do {
		r = mig_tls_stream_greet(destination, &events, &err);
	} while (r == -EAGAIN);
	return r;
}

Test(mig_tls, clear_text_to_a_destination)
{
	char frame[96] = "GWMF";

	cr_assert_eq(destination_gets(frame, sizeof(frame)), -EPROTO, "%s", err.text);
	has_text(&err, "what came is not TLS");
}

Test(mig_tls, http_to_a_destination)
{
	static const char get[] = "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";

	cr_assert_eq(destination_gets(get, sizeof(get)), -EPROTO, "%s", err.text);
	has_text(&err, "what came is not TLS");
}

Test(mig_tls, silence_to_a_destination)
{
	cr_assert_eq(destination_gets("", 0), -ECONNRESET, "%s", err.text);
	has_text(&err, "ended the connection in the handshake, expected one that speaks TLS");
	{
		short events = 0;

		cr_assert_eq(mig_tls_stream_greet(destination, &events, &err), -ECONNRESET);
		has_text(&err, "has failed before");
	}
}

Test(mig_tls, clear_text_to_a_source)
{
	char frame[96] = "GWMF";
	short events = 0;

	cr_assert_eq(mig_tls_lab_open(&lab, "a", true, "b.example", &source_tls, &err), 0);
	source = stream(source_tls, fds[0]);
	cr_assert_eq(mig_tls_stream_greet(source, &events, &err), -EAGAIN);
	cr_assert_eq(events, POLLIN);
	cr_assert_eq(write(fds[1], frame, sizeof(frame)), (ssize_t)sizeof(frame));
	cr_assert_eq(mig_tls_stream_greet(source, &events, &err), -EPROTO, "%s", err.text);
	has_text(&err, "what came is not TLS");
}

/* --- handshakes that come in pieces --- */

/* Each side hears the other byte by byte: it waits, and it works. */
Test(mig_tls, a_handshake_byte_by_byte)
{
	static uint8_t bytes[2][16384];
	int ends[2][2];
	int there = -EAGAIN;
	int here = -EAGAIN;
	short events = 0;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends[0]), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends[1]), 0);
	make("a", "b", "b.example", "a.example");
	mig_tls_stream_free(source);
	mig_tls_stream_free(destination);
	source = stream(source_tls, ends[0][0]);
	destination = stream(destination_tls, ends[1][0]);
	here = mig_tls_stream_greet(source, &events, &source_err);
	for (int turn = 0; turn < 10 && (here == -EAGAIN || there == -EAGAIN); turn++) {
		size_t count = taken(ends[0][1], bytes[0], sizeof(bytes[0]));

		for (size_t i = 0; i < count && there == -EAGAIN; i++) {
			cr_assert_eq(write(ends[1][1], &bytes[0][i], 1), 1);
			there = mig_tls_stream_greet(destination, &events, &destination_err);
		}
		count = taken(ends[1][1], bytes[1], sizeof(bytes[1]));
		for (size_t i = 0; i < count && here == -EAGAIN; i++) {
			cr_assert_eq(write(ends[0][1], &bytes[1][i], 1), 1);
			here = mig_tls_stream_greet(source, &events, &source_err);
		}
	}
	cr_assert_eq(here, 0, "%s", source_err.text);
	cr_assert_eq(there, 0, "%s", destination_err.text);
	for (int i = 0; i < 2; i++) {
		(void)close(ends[i][0]);
		(void)close(ends[i][1]);
	}
}

/* A first message that ends anywhere, or has any one bit changed, never gets in. */
Test(mig_tls, a_first_message_that_is_cut_or_changed)
{
	static uint8_t hello[4096];
	size_t count = 0;
	short events = 0;

	make("a", "b", "b.example", "a.example");
	cr_assert_eq(mig_tls_stream_greet(source, &events, &err), -EAGAIN);
	count = taken(fds[1], hello, sizeof(hello));
	cr_assert_gt(count, 100);
	for (size_t i = 0; i < count; i++) {
		int pair[2];
		int r = -EAGAIN;

		for (int is_cut = 0; is_cut < 2; is_cut++) {
			cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
			mig_tls_stream_free(destination);
			destination = stream(destination_tls, pair[1]);
			hello[i] ^= is_cut ? 0 : 0x40;
			cr_assert_gt(write(pair[0], hello, is_cut ? i + 0 : count), -1);
			hello[i] ^= is_cut ? 0 : 0x40;
			(void)shutdown(pair[0], SHUT_WR);
			for (int turn = 0; turn < 10 && r == -EAGAIN; turn++)
				r = mig_tls_stream_greet(destination, &events, &err);
			cr_assert_lt(r, 0);
			r = -EAGAIN;
			mig_tls_stream_free(base_take(&destination));
			(void)close(pair[0]);
			(void)close(pair[1]);
		}
	}
}
