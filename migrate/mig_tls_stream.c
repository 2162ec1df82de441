/* SPDX-License-Identifier: Apache-2.0 */
/* One connection under TLS: handshake, records, and what their failures mean. */
#include <errno.h>
#include <inttypes.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "migrate/mig_tls_priv.h"

#define SMALL_BYTES (20u << 10) /* a record, with what TLS adds */
#define LARGE_BYTES (160u << 10)

static int buffer_new(struct mig_tls_buffer *buffer, size_t size_bytes)
{
	uint8_t *bytes = malloc(size_bytes);

	if (bytes == NULL)
		return -ENOMEM;
	if (buffer->end > buffer->begin)
		memcpy(bytes, buffer->bytes + buffer->begin, buffer->end - buffer->begin);
	buffer->end -= buffer->begin;
	buffer->begin = 0;
	free(buffer->bytes);
	buffer->bytes = bytes;
	buffer->size_bytes = size_bytes;
	return 0;
}

static int make_ssl(struct mig_tls_stream *stream, bool may_use_kernel)
{
	BIO *bio = NULL;

	stream->socket = BIO_new_socket(stream->fd, BIO_NOCLOSE);
	stream->ssl = SSL_new(stream->tls->context);
	if (stream->socket == NULL || stream->ssl == NULL)
		return -ENOMEM;
	bio = mig_tls_bio_new(stream);
	if (bio == NULL)
		return -ENOMEM;
	SSL_set_bio(stream->ssl, bio, bio);
	if (SSL_set_app_data(stream->ssl, stream) != 1)
		return -ENOMEM;
	if (may_use_kernel)
		SSL_set_options(stream->ssl, SSL_OP_ENABLE_KTLS);
	if (stream->tls->is_source)
		SSL_set_connect_state(stream->ssl);
	else
		SSL_set_accept_state(stream->ssl);
	return 0;
}

int mig_tls_stream_new(const struct mig_tls_stream_options *options,
		       struct mig_tls_stream **ret_stream, struct base_error *err)
{
	struct mig_tls_stream *stream = calloc(1, sizeof(*stream));

	if (stream == NULL)
		return base_fail(err, -ENOMEM, "TLS: connection");
	stream->tls = options->tls;
	stream->fd = options->fd;
	stream->key_bytes_max = MIG_TLS_KEY_BYTES;
	(void)pthread_mutex_init(&stream->lock, NULL); /* cannot fail on Linux */
	if (buffer_new(&stream->in, SMALL_BYTES) < 0 || buffer_new(&stream->out, SMALL_BYTES) < 0 ||
	    make_ssl(stream, options->may_use_kernel) < 0) {
		ERR_clear_error();
		mig_tls_stream_free(stream);
		return base_fail(err, -ENOMEM, "TLS: connection");
	}
	*ret_stream = stream;
	return 0;
}

int mig_tls_stream_widen(struct mig_tls_stream *stream, struct base_error *err)
{
	if (buffer_new(&stream->in, LARGE_BYTES) < 0 || buffer_new(&stream->out, LARGE_BYTES) < 0)
		return base_fail(err, -ENOMEM, "TLS: connection");
	return 0;
}

void mig_tls_stream_free(struct mig_tls_stream *stream)
{
	if (stream == NULL)
		return;
	SSL_free(stream->ssl); /* and its BIO, which uses the stream */
	BIO_free(stream->socket);
	free(stream->in.bytes);
	free(stream->out.bytes);
	(void)pthread_mutex_destroy(&stream->lock);
	free(stream);
}

void mig_tls_stream_facts(struct mig_tls_stream *stream, struct mig_tls_facts *ret_facts)
{
	BASE_LOCKED(&stream->lock);

	ret_facts->cipher = SSL_get_cipher_name(stream->ssl);
	ret_facts->peer = stream->greeted ? stream->peer : "";
	ret_facts->in_kernel = BIO_get_ktls_send(stream->socket);
}

uint64_t mig_tls_stream_sent(struct mig_tls_stream *stream)
{
	BASE_LOCKED(&stream->lock);

	return stream->sent_bytes;
}

/* --- what went wrong --- */

static bool is_about_certificates(int alert)
{
	switch (alert) {
	case SSL_AD_BAD_CERTIFICATE:
	case SSL_AD_UNSUPPORTED_CERTIFICATE:
	case SSL_AD_CERTIFICATE_REVOKED:
	case SSL_AD_CERTIFICATE_EXPIRED:
	case SSL_AD_CERTIFICATE_UNKNOWN:
	case SSL_AD_UNKNOWN_CA:
	case SSL_AD_ACCESS_DENIED:
	case TLS13_AD_CERTIFICATE_REQUIRED:
		return true;
	default:
		return false;
	}
}

/* The other side has said what it does not like. */
static int fail_alert(const struct mig_tls_stream *stream, int alert, struct base_error *err)
{
	const char *text = SSL_alert_desc_string_long(alert);

	if (is_about_certificates(alert))
		return base_fail(
			err, -EACCES,
			"TLS: the other side refuses this host's certificate: %s, expected "
			"one that is good there (authority, dates, migrate-peers)",
			text);
	if (stream->greeted)
		return base_fail(err, -EBADMSG,
				 "TLS: the other side refuses a record: %s, expected it whole",
				 text);
	return base_fail(err, -EPROTO,
			 "TLS: the other side refuses: %s, expected TLS 1.3 and '" MIG_TLS_ALPN "'",
			 text);
}

static int fail_greeting(const struct mig_tls_stream *stream, int reason, const char *text,
			 struct base_error *err)
{
	char expected[MIG_TLS_EXPECTED_BYTES];

	switch (reason) {
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		mig_tls_expected(stream->tls, expected);
		return base_fail(err, -EACCES,
				 "TLS: the other side has no certificate, expected one of %s",
				 expected);
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_HTTP_REQUEST:
	case SSL_R_HTTPS_PROXY_REQUEST:
	case SSL_R_PACKET_LENGTH_TOO_LONG:
	case SSL_R_RECORD_LENGTH_MISMATCH:
		return base_fail(err, -EPROTO, "TLS: what came is not TLS, expected TLS 1.3");
	default:
		return base_fail(err, -EPROTO, "TLS: %s, expected TLS 1.3 and '" MIG_TLS_ALPN "'",
				 text);
	}
}

/* OpenSSL has found fault with what came. */
static int fail_openssl(const struct mig_tls_stream *stream, struct base_error *err)
{
	unsigned long code = ERR_peek_error(); /* the first one: what follows is its consequence */
	const char *text = ERR_reason_error_string(code);
	int reason = ERR_GET_REASON(code);

	text = text != NULL ? text : "unknown error";
	if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET &&
	    reason <= SSL_AD_REASON_OFFSET + UINT8_MAX)
		return fail_alert(stream, reason - SSL_AD_REASON_OFFSET, err);
	if (reason == ERR_R_MALLOC_FAILURE)
		return base_fail(err, -ENOMEM, "TLS: no memory");
	if (!stream->greeted)
		return fail_greeting(stream, reason, text, err);
	return base_fail(err, -EBADMSG, "TLS: a record is damaged: %s, expected it whole", text);
}

static int fail_ended(const struct mig_tls_stream *stream, struct base_error *err)
{
	if (stream->greeted)
		return base_fail(err, -ECONNRESET,
				 "TLS: the connection has ended without a goodbye");
	return base_fail(err, -ECONNRESET,
			 "TLS: the other side has ended the connection in the handshake, expected "
			 "one that speaks TLS");
}

/* What a call of OpenSSL that gave @result means.  @is_write: each way has an end of its own. */
static int fail(struct mig_tls_stream *stream, int result, bool is_write, short *ret_events,
		struct base_error *err)
{
	int kind = SSL_get_error(stream->ssl, result);
	int code = is_write ? stream->out_code : stream->in_code;
	int r = 0;

	if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
		*ret_events = kind == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
		return -EAGAIN;
	}
	if (kind == SSL_ERROR_ZERO_RETURN) /* it may still be talked to */
		return base_fail(err, -ENOTCONN, "TLS: the other side has said goodbye");
	if (is_write && code != 0)
		stream->cannot_write = true;
	else
		stream->has_failed = true;
	if (stream->why.code != 0)
		r = base_fail(err, stream->why.code, "%s", stream->why.text);
	else if (code != 0 && (code != -ECONNRESET || stream->greeted))
		r = base_fail_errno(err, code, "TLS: connection");
	else if (stream->strays > MIG_TLS_STRAYS_MAX)
		r = base_fail(err, -EPROTO,
			      "TLS: %" PRIu32 " messages behind the handshake, expected at most %u",
			      stream->strays, MIG_TLS_STRAYS_MAX);
	else if (stream->has_ended || code != 0)
		r = fail_ended(stream, err);
	else if (stream->out_code != 0)
		r = base_fail_errno(err, stream->out_code, "TLS: connection");
	else
		r = fail_openssl(stream, err);
	/* What it wants to tell the other side about it goes, if it can at once. */
	(void)!mig_tls_bio_flush(stream);
	ERR_clear_error();
	return r;
}

static int fail_again(struct base_error *err)
{
	return base_fail(err, -ECONNRESET, "TLS: the connection has failed before");
}

/* --- handshake --- */

static int check_greeted(struct mig_tls_stream *stream, struct base_error *err)
{
	const unsigned char *name = NULL;
	unsigned int name_bytes = 0;

	SSL_get0_alpn_selected(stream->ssl, &name, &name_bytes);
	if (SSL_version(stream->ssl) != TLS1_3_VERSION || name_bytes != strlen(MIG_TLS_ALPN) ||
	    memcmp(name, MIG_TLS_ALPN, name_bytes) != 0)
		return base_fail(err, -EPROTO, "TLS: %s without '" MIG_TLS_ALPN "', expected both",
				 SSL_get_version(stream->ssl));
#ifndef GODWIT_MUTANT_MIG_TLS_CERT
	if (SSL_get0_peer_certificate(stream->ssl) == NULL || stream->peer == NULL ||
	    SSL_get_verify_result(stream->ssl) != X509_V_OK)
		return base_fail(err, -EACCES, "TLS: the other side has no certificate");
#endif
	return 0;
}

int mig_tls_stream_greet(struct mig_tls_stream *stream, short *ret_events, struct base_error *err)
{
	BASE_LOCKED(&stream->lock);
	int result = 0;
	int r = 0;

	if (stream->has_failed)
		return fail_again(err);
	ERR_clear_error();
	result = SSL_do_handshake(stream->ssl);
	if (result != 1)
		r = fail(stream, result, false, ret_events, err);
	else
		r = check_greeted(stream, err);
	if ((r == 0 || r == -EAGAIN) && !mig_tls_bio_flush(stream)) {
		if (stream->out_code != 0)
			r = base_fail_errno(err, stream->out_code, "TLS: connection");
		else
			*ret_events = r == 0 ? POLLOUT : POLLIN | POLLOUT;
		r = r == 0 ? -EAGAIN : r;
	}
	if (r < 0 && r != -EAGAIN)
		stream->has_failed = true;
	stream->greeted = r == 0;
	return r;
}

/* --- records --- */

int mig_tls_stream_read(struct mig_tls_stream *stream, void *to, size_t size_bytes,
			size_t *ret_bytes, short *ret_events, struct base_error *err)
{
	BASE_LOCKED(&stream->lock);
	size_t done = 0;
	int r = 0;

	base_assert(stream->greeted);
	if (stream->late.code != 0) {
		r = base_fail(err, stream->late.code, "%s", stream->late.text);
		stream->late.code = 0; /* from then on it has failed before */
		return r;
	}
	if (stream->has_failed)
		return fail_again(err);
	do {
		size_t got = 0;
		int result = 0;

		ERR_clear_error();
		result = SSL_read_ex(stream->ssl, (uint8_t *)to + done, size_bytes - done, &got);
		if (result != 1)
			r = fail(stream, result, false, ret_events, &stream->late);
		done += got;
	} while (r == 0 && done < size_bytes);
	*ret_bytes = done;
	if (done > 0 || r == 0) /* what ended it is told the next time */
		return 0;
	if (r != -EAGAIN)
		r = base_fail(err, r, "%s", stream->late.text);
	stream->late.code = 0;
	return r;
}

/* A key that has done its part.  While a record waits it cannot be changed; soon it can. */
static void turn_key(struct mig_tls_stream *stream)
{
	if (stream->key_bytes >= stream->key_bytes_max && !BIO_get_ktls_send(stream->socket) &&
	    SSL_key_update(stream->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
		stream->key_bytes = 0;
}

/* It has the key: what goes to the socket is enciphered there. */
static int write_to_kernel(struct mig_tls_stream *stream, const uint8_t *from, size_t size_bytes,
			   size_t *ret_bytes, short *ret_events, struct base_error *err)
{
	while (*ret_bytes < size_bytes) {
		ssize_t sent = send(stream->fd, from + *ret_bytes, size_bytes - *ret_bytes,
				    MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			*ret_events = POLLOUT;
			return -EAGAIN;
		}
		if (sent < 0) {
			stream->cannot_write = true;
			return base_fail_errno(err, -errno, "TLS: connection");
		}
		stream->sent_bytes += (uint64_t)sent;
		*ret_bytes += (size_t)sent;
	}
	return 0;
}

int mig_tls_stream_write(struct mig_tls_stream *stream, const void *from, size_t size_bytes,
			 size_t *ret_bytes, short *ret_events, struct base_error *err)
{
	BASE_LOCKED(&stream->lock);
	size_t done = 0;
	int r = 0;

	base_assert(stream->greeted);
	*ret_bytes = 0;
	if (stream->has_failed || stream->cannot_write)
		return fail_again(err);
	if (BIO_get_ktls_send(stream->socket))
		return write_to_kernel(stream, from, size_bytes, ret_bytes, ret_events, err);
	while (r == 0 && done < size_bytes) {
		size_t taken = 0;
		int result = 0;

		turn_key(stream);
		ERR_clear_error();
		result = SSL_write_ex(stream->ssl, (const uint8_t *)from + done, size_bytes - done,
				      &taken);
		if (result != 1)
			r = fail(stream, result, true, ret_events, err);
		done += taken;
		stream->key_bytes += taken;
	}
	*ret_bytes = done;
	return r;
}

int mig_tls_stream_flush(struct mig_tls_stream *stream, short *ret_events, struct base_error *err)
{
	BASE_LOCKED(&stream->lock);

	if (mig_tls_bio_flush(stream))
		return 0;
	if (stream->out_code == 0) {
		*ret_events = POLLOUT;
		return -EAGAIN;
	}
	stream->cannot_write = true;
	return base_fail_errno(err, stream->out_code, "TLS: connection");
}

void mig_tls_stream_goodbye(struct mig_tls_stream *stream)
{
	BASE_LOCKED(&stream->lock);

	if (!stream->greeted || stream->has_failed || stream->cannot_write)
		return;
	ERR_clear_error();
	(void)SSL_shutdown(stream->ssl);
	(void)!mig_tls_bio_flush(stream);
	ERR_clear_error();
	stream->has_failed = true;
}
