/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stranger may send where TLS is expected: to a destination that waits, to a source that has
 * connected, and to a destination behind a good handshake.  Nobody gets in, and no byte is given
 * on.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/mig_tls_lab.h"

#define BYTES_MAX (64u << 10) /* a socket takes so many at once */

static struct mig_tls *tls[2]; /* a destination's, a source's */

static void make_hosts(void)
{
	struct mig_tls_lab lab;
	struct base_error err = { 0 };

	mig_tls_lab_init(&lab);
	mig_tls_lab_host(&lab, &(struct mig_tls_lab_host){ .folder = "a", .names = "DNS:a" });
	if (mig_tls_lab_open(&lab, "a", false, "a", &tls[0], &err) < 0 ||
	    mig_tls_lab_open(&lab, "a", true, "a", &tls[1], &err) < 0)
		base_bug("%s", err.text);
	mig_tls_lab_fini(&lab);
}

static struct mig_tls_stream *stream(bool is_source, int fd)
{
	const struct mig_tls_stream_options options = { .tls = tls[is_source ? 1 : 0], .fd = fd };
	struct mig_tls_stream *made = NULL;

	if (mig_tls_stream_new(&options, &made, NULL) < 0)
		abort();
	return made;
}

/* Both ends of a connection know each other; the source's goes away without a word. */
static void greet(struct mig_tls_stream *destination, int far_fd)
{
	struct mig_tls_stream *ends[2] = { destination, stream(true, far_fd) };
	int codes[2] = { -EAGAIN, -EAGAIN };
	short events = 0;

	while (codes[0] == -EAGAIN || codes[1] == -EAGAIN)
		for (int i = 0; i < 2; i++)
			if (codes[i] == -EAGAIN)
				codes[i] = mig_tls_stream_greet(ends[i], &events, NULL);
	if (codes[0] < 0 || codes[1] < 0)
		abort();
	mig_tls_stream_free(ends[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mig_tls_stream *ours = NULL;
	struct base_error err = { 0 };
	int fds[2];
	uint8_t byte = 0;
	size_t got = 0;
	short events = 0;
	int kind = size > 0 ? data[0] % 3 : 0;
	int r = 0;

	if (tls[0] == NULL)
		make_hosts();
	if (size == 0 || size > BYTES_MAX ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return 0;
	ours = stream(kind == 1, fds[0]);
	if (kind == 2)
		greet(ours, fds[1]);
	else
		r = mig_tls_stream_greet(ours, &events, &err);
	if (send(fds[1], data + 1, size - 1, MSG_NOSIGNAL) != (ssize_t)size - 1)
		abort();
	(void)shutdown(fds[1], SHUT_WR);
	if (kind < 2)
		r = mig_tls_stream_greet(ours, &events, &err);
	else
		r = mig_tls_stream_read(ours, &byte, 1, &got, &events, &err);
	if (r == 0 || (r != -EAGAIN && err.code == 0))
		abort(); /* let in, or without a word why not */
	mig_tls_stream_free(ours);
	(void)close(fds[0]);
	(void)close(fds[1]);
	return 0;
}
