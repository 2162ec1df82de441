/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.3 with certificates on both sides, for the connections of a migration: who this side is,
 * whom it talks to, and one connection's ciphering without any waiting.
 *
 * A peer is let in when its certificate is good *and* its name is one of those that were asked for.
 * docs/migrate/tls.md; mig_link.h waits, and knows frames.
 *
 * Threads: struct mig_tls is not changed after it was made: any.  Of a connection one thread may
 * greet; then one may read and one may write at the same time.
 */
#ifndef MIGRATE_MIG_TLS_H
#define MIGRATE_MIG_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MIG_TLS_DIR              "/etc/godwit/tls" /* unless told otherwise */
#define MIG_TLS_ALPN             "godwit-migrate/1"
#define MIG_TLS_NAME_BYTES       256u /* of a host, with its zero: what DNS allows */
#define MIG_TLS_PEERS_MAX        64u
#define MIG_TLS_FILE_BYTES_MAX   (1u << 20)
#define MIG_TLS_CERTS_BYTES_MAX  (32u << 10)    /* of the other side, in a handshake */
#define MIG_TLS_KEY_BYTES        (64ULL << 30)  /* sent with one key; the limit is six times this */
#define MIG_TLS_KERNEL_BYTES_MAX (256ULL << 30) /* the same where no new key can be had */
#define MIG_TLS_RECORD_BYTES     (16u << 10)
#define MIG_TLS_STRAYS_MAX       4096u /* handshake messages behind the handshake */

struct mig_tls;

struct mig_tls_options {
	int directory_fd; /* of ca.pem, cert.pem, key.pem and perhaps crl.pem; for the call only */
	bool is_source;
	const char *const *peers; /* names that the other side may have; copied */
	uint32_t peer_count;      /* 1 to MIG_TLS_PEERS_MAX */
};

/* What OpenSSL does once in a process: before a lock-down.  Any thread; again is fine. */
void mig_tls_begin(void);

/* Whether @name can be a host's: a DNS name without wildcards, or an address in numbers.  Pure.
 * -EINVAL; the text says what was expected and not of what. */
BASE_MUST_CHECK int mig_tls_check_name(const char *name, struct base_error *err);

/**
 * mig_tls_new - read the files and see that they are good.
 * -ENOENT, ... a file that is not there, and other errno of the kernel; -EPERM the key's owner or
 * mode; -EINVAL what is in a file, or a name; -EKEYEXPIRED this host's own certificate would not be
 * taken (dates, authority, usage); -ENOMEM.
 */
BASE_MUST_CHECK int mig_tls_new(const struct mig_tls_options *options, struct mig_tls **ret_tls,
				struct base_error *err);
/* No connection is left.  NULL is fine. */
void mig_tls_free(struct mig_tls *tls);

/* --- a connection --- */

struct mig_tls_stream;

struct mig_tls_stream_options {
	struct mig_tls *tls; /* borrowed */
	int fd;              /* a connected stream socket, blocking or not; borrowed */
	bool may_use_kernel; /* for sending, where there is TLS in the kernel */
};

/* What is spoken; texts are static or live as long as the stream. */
struct mig_tls_facts {
	const char *cipher;
	const char *peer; /* the name that was asked for and found; "" before */
	bool in_kernel;   /* what is sent is enciphered there */
};

/* With small buffers, for strangers and messages.  -ENOMEM. */
BASE_MUST_CHECK int mig_tls_stream_new(const struct mig_tls_stream_options *options,
				       struct mig_tls_stream **ret_stream, struct base_error *err);
/* Large buffers from here on: a data channel.  Nobody is inside.  -ENOMEM. */
BASE_MUST_CHECK int mig_tls_stream_widen(struct mig_tls_stream *stream, struct base_error *err);
/* The socket stays open.  NULL is fine. */
void mig_tls_stream_free(struct mig_tls_stream *stream);
void mig_tls_stream_facts(struct mig_tls_stream *stream, struct mig_tls_facts *ret_facts);

/*
 * What follows does not wait.  -EAGAIN: nothing, or no more, can be done before @ret_events (of
 * poll()) come.  After any other error all of it gives errors.
 *
 * -EACCES a certificate, ours or theirs, is refused; -EPROTO another version, ALPN, or not TLS;
 * -EBADMSG a record is damaged; -ENOTCONN the other side has said goodbye; -ECONNRESET the
 * connection has ended without one; errno of the socket.
 */

/* The handshake; 0 when it is done and the other side is who it shall be. */
BASE_MUST_CHECK int mig_tls_stream_greet(struct mig_tls_stream *stream, short *ret_events,
					 struct base_error *err);
/* 0 with 1 to @size_bytes bytes. */
BASE_MUST_CHECK int mig_tls_stream_read(struct mig_tls_stream *stream, void *to, size_t size_bytes,
					size_t *ret_bytes, short *ret_events,
					struct base_error *err);
/**
 * mig_tls_stream_write - encipher and begin to send.
 * 0 with all of @size_bytes; -EAGAIN with *@ret_bytes of them, which may be 0: call again with the
 * rest.  Each byte is read once.  What is enciphered may wait here for mig_tls_stream_flush().
 */
BASE_MUST_CHECK int mig_tls_stream_write(struct mig_tls_stream *stream, const void *from,
					 size_t size_bytes, size_t *ret_bytes, short *ret_events,
					 struct base_error *err);
BASE_MUST_CHECK int mig_tls_stream_flush(struct mig_tls_stream *stream, short *ret_events,
					 struct base_error *err);
/* Enciphered bytes that the socket has taken so far, of all kinds. */
uint64_t mig_tls_stream_sent(struct mig_tls_stream *stream);
/* Says goodbye, if it can be said at once.  Nobody writes any more. */
void mig_tls_stream_goodbye(struct mig_tls_stream *stream);

#endif
