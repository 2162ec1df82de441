/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of TLS share: two hosts with certificates, and a connection between them. */
#ifndef TESTS_UNIT_MIGRATE_MIG_TLS_RIG_H
#define TESTS_UNIT_MIGRATE_MIG_TLS_RIG_H

#include <criterion/criterion.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migrate/mig_tls_priv.h"
#include "tests/support/mig_tls_lab.h"

static struct mig_tls_lab lab;
static struct mig_tls *source_tls, *destination_tls;
static struct mig_tls_stream *source, *destination;
static int fds[2]; /* the source's, the destination's */
static struct base_error err, source_err, destination_err;

static inline void host(const char *folder, const char *names)
{
	mig_tls_lab_host(&lab, &(struct mig_tls_lab_host){ .folder = folder, .names = names });
}

static inline void setup(void)
{
	mig_tls_lab_init(&lab);
	host("a", "DNS:a.example,IP:192.0.2.1");
	host("b", "DNS:b.example,IP:192.0.2.2,IP:2001:db8::2");
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static inline void teardown(void)
{
	mig_tls_stream_free(source);
	mig_tls_stream_free(destination);
	mig_tls_free(source_tls);
	mig_tls_free(destination_tls);
	(void)close(fds[0]);
	(void)close(fds[1]);
	mig_tls_lab_fini(&lab);
}

static inline void has_text(const struct base_error *of, const char *text)
{
	cr_assert_not_null(strstr(of->text, text), "'%s', expected '%s'", of->text, text);
}

static inline struct mig_tls_stream *stream(struct mig_tls *tls, int fd)
{
	struct mig_tls_stream_options options = { .tls = tls, .fd = fd, .may_use_kernel = true };
	struct mig_tls_stream *made = NULL;

	cr_assert_eq(mig_tls_stream_new(&options, &made, &err), 0, "%s", err.text);
	return made;
}

static inline void make(const char *from, const char *to, const char *expects, const char *allows)
{
	cr_assert_eq(mig_tls_lab_open(&lab, from, true, expects, &source_tls, &err), 0, "%s",
		     err.text);
	cr_assert_eq(mig_tls_lab_open(&lab, to, false, allows, &destination_tls, &err), 0, "%s",
		     err.text);
	source = stream(source_tls, fds[0]);
	destination = stream(destination_tls, fds[1]);
}

/* Both sides as far as they come; *_err says why they did not. */
static inline int greet_both(int *ret_destination)
{
	int r[2] = { -EAGAIN, -EAGAIN };
	short events = 0;

	for (int i = 0; i < 100 && (r[0] == -EAGAIN || r[1] == -EAGAIN); i++) {
		if (r[0] == -EAGAIN)
			r[0] = mig_tls_stream_greet(source, &events, &source_err);
		if (r[1] == -EAGAIN)
			r[1] = mig_tls_stream_greet(destination, &events, &destination_err);
		if (r[1] != -EAGAIN && r[1] != 0)
			(void)shutdown(fds[1], SHUT_WR);
		if (r[0] != -EAGAIN && r[0] != 0)
			(void)shutdown(fds[0], SHUT_WR);
	}
	*ret_destination = r[1];
	return r[0];
}

static inline void greeted(void)
{
	int there = 0;

	make("a", "b", "b.example", "a.example");
	cr_assert_eq(greet_both(&there), 0, "%s", source_err.text);
	cr_assert_eq(there, 0, "%s", destination_err.text);
}

static inline int says(struct mig_tls_stream *from, const void *bytes, size_t size_bytes)
{
	size_t done = 0;
	short events = 0;
	int r = mig_tls_stream_write(from, bytes, size_bytes, &done, &events, &err);

	if (r == 0)
		r = mig_tls_stream_flush(from, &events, &err);
	return r;
}

static inline int hears(struct mig_tls_stream *to, void *bytes, size_t size_bytes,
			size_t *ret_bytes)
{
	short events = 0;

	*ret_bytes = 0;
	return mig_tls_stream_read(to, bytes, size_bytes, ret_bytes, &events, &err);
}

/* All that @from has said, to be given on in another way. */
static inline size_t taken(int from, uint8_t *bytes, size_t size_bytes)
{
	ssize_t got = recv(from, bytes, size_bytes, MSG_DONTWAIT);

	return got > 0 ? (size_t)got : 0;
}

#endif
