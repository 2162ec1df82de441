/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between OpenSSL and a socket: large pieces, no waiting, no signal when the other side is gone,
 * and a note of what the socket said.
 *
 * Under the stream's lock.
 */
#include <errno.h>
#include <openssl/bio.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "migrate/mig_tls_priv.h"

#define BIO_CTRL_SET_KTLS 72 /* as <openssl/bio.h> says in a comment */

static size_t filled(const struct mig_tls_buffer *buffer)
{
	return buffer->end - buffer->begin;
}

static void drop(struct mig_tls_buffer *buffer, size_t bytes)
{
	buffer->begin += bytes;
	if (buffer->begin == buffer->end)
		buffer->begin = buffer->end = 0;
}

/* What the kernel enciphers does not come this way. */
static bool in_kernel(const struct mig_tls_stream *stream)
{
	return BIO_get_ktls_send(stream->socket);
}

bool mig_tls_bio_flush(struct mig_tls_stream *stream)
{
	struct mig_tls_buffer *out = &stream->out;

	while (filled(out) > 0 && stream->out_code == 0) {
		ssize_t sent = send(stream->fd, out->bytes + out->begin, filled(out),
				    MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return false;
		if (sent < 0) {
			stream->out_code = -errno;
			return false;
		}
		stream->sent_bytes += (uint64_t)sent;
		drop(out, (size_t)sent);
	}
	return stream->out_code == 0;
}

static int bio_write(BIO *bio, const char *from, int size_bytes)
{
	struct mig_tls_stream *stream = BIO_get_data(bio);
	struct mig_tls_buffer *out = &stream->out;
	size_t room = 0;

	BIO_clear_retry_flags(bio);
	if (in_kernel(stream))
		return size_bytes; /* an alert; the connection ends, and that says enough */
	if (out->end == out->size_bytes && !mig_tls_bio_flush(stream) && stream->out_code != 0)
		return -1;
	if (out->end == out->size_bytes && out->begin > 0) {
		memmove(out->bytes, out->bytes + out->begin, filled(out));
		out->end = filled(out);
		out->begin = 0;
	}
	room = out->size_bytes - out->end;
	if (room == 0) {
		BIO_set_retry_write(bio);
		return -1;
	}
	room = room < (size_t)size_bytes ? room : (size_t)size_bytes;
	memcpy(out->bytes + out->end, from, room);
	out->end += room;
	return (int)room;
}

static int bio_read(BIO *bio, char *to, int size_bytes)
{
	struct mig_tls_stream *stream = BIO_get_data(bio);
	struct mig_tls_buffer *in = &stream->in;
	size_t bytes = 0;

	BIO_clear_retry_flags(bio);
	if (stream->strays > MIG_TLS_STRAYS_MAX)
		return -1;
	while (filled(in) == 0) {
		ssize_t got = recv(stream->fd, in->bytes, in->size_bytes, MSG_DONTWAIT);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			BIO_set_retry_read(bio);
		else if (got < 0)
			stream->in_code = -errno;
		else if (got == 0)
			stream->has_ended = true;
		if (got <= 0)
			return got < 0 ? -1 : 0;
		in->end = (size_t)got;
	}
	bytes = filled(in) < (size_t)size_bytes ? filled(in) : (size_t)size_bytes;
	memcpy(to, in->bytes + in->begin, bytes);
	drop(in, bytes);
	return (int)bytes;
}

static long bio_ctrl(BIO *bio, int what, long number, void *pointer)
{
	struct mig_tls_stream *stream = BIO_get_data(bio);

	switch (what) {
	case BIO_CTRL_FLUSH: /* what cannot go now waits for the stream's own flush */
		(void)!mig_tls_bio_flush(stream);
		return stream->out_code == 0 ? 1 : -1;
	case BIO_CTRL_SET_KTLS: /* nothing of before may be behind what the kernel enciphers */
		return filled(&stream->out) == 0 ? BIO_ctrl(stream->socket, what, number, pointer)
						 : 0;
	case BIO_CTRL_EOF:
		return stream->has_ended && filled(&stream->in) == 0;
	case BIO_CTRL_PENDING:
		return (long)filled(&stream->in);
	case BIO_CTRL_WPENDING:
		return (long)filled(&stream->out);
	default: /* handing a key to the kernel is OpenSSL's own business */
		return BIO_ctrl(stream->socket, what, number, pointer);
	}
}

static BIO_METHOD *method;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_method(void)
{
	BIO_METHOD *made =
		BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "godwit migration");

	if (made != NULL && BIO_meth_set_write(made, bio_write) == 1 &&
	    BIO_meth_set_read(made, bio_read) == 1 && BIO_meth_set_ctrl(made, bio_ctrl) == 1)
		method = made;
	else
		BIO_meth_free(made);
}

BIO *mig_tls_bio_new(struct mig_tls_stream *stream)
{
	BIO *bio = NULL;

	(void)pthread_once(&once, make_method);
	bio = method != NULL ? BIO_new(method) : NULL;
	if (bio == NULL)
		return NULL;
	BIO_set_data(bio, stream);
	BIO_set_init(bio, 1);
	return bio;
}
