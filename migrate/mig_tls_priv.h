/* SPDX-License-Identifier: Apache-2.0 */
/* TLS of migrations, for its files: mig_tls.c (who is who), mig_tls_files.c (what this host has),
 * mig_tls_stream.c (a connection), mig_tls_bio.c (its socket). */
#ifndef MIGRATE_MIG_TLS_PRIV_H
#define MIGRATE_MIG_TLS_PRIV_H

#include <openssl/ssl.h>
#include <pthread.h>

#include "migrate/mig_tls.h"

struct mig_tls {
	SSL_CTX *context;
	bool is_source;
	uint32_t peer_count;
	char peers[MIG_TLS_PEERS_MAX][MIG_TLS_NAME_BYTES];
};

/* Bytes on their way between OpenSSL and a socket. */
struct mig_tls_buffer {
	uint8_t *bytes;
	size_t size_bytes;
	size_t begin, end; /* what is in it */
};

struct mig_tls_stream {
	struct mig_tls *tls;
	int fd;
	pthread_mutex_t lock; /* a leaf: all below; never held while anything is waited for */
	SSL *ssl;
	BIO *socket; /* OpenSSL's own, which can hand a key to the kernel; the stream's */
	struct mig_tls_buffer in, out;
	int in_code, out_code; /* what the socket said, or 0 */
	bool has_ended;        /* the other side sends nothing more */
	bool has_failed;       /* nothing can be said or heard any more */
	bool cannot_write;     /* that alone: what has come meanwhile is still heard */
	bool greeted;          /* the handshake is done */
	uint32_t strays;       /* handshake messages behind the handshake */
	uint64_t key_bytes;    /* sent with the key of now */
	uint64_t key_bytes_max;
	uint64_t sent_bytes;    /* to the socket */
	const char *peer;       /* of tls->peers */
	struct base_error why;  /* what was found wrong with the other side's certificate */
	struct base_error late; /* what ended reading, behind bytes that were given on first */
};

/* --- mig_tls_files.c --- */

/* Certificates, key and lists of @directory_fd into @context; and whether they are good. */
BASE_MUST_CHECK int mig_tls_files_load(SSL_CTX *context, int directory_fd, struct base_error *err);

/* --- mig_tls_cipher.c --- */

/* All that are spoken, the best for this processor first; a destination takes the source's first.
 */
const char *mig_tls_ciphers(void);

/* --- mig_tls_bio.c --- */

/* The kind of BIO that reads and writes a stream's socket without waiting; made once. */
BASE_MUST_CHECK BIO *mig_tls_bio_new(struct mig_tls_stream *stream);
/* Sends what is in @stream->out: true when it is empty. */
bool mig_tls_bio_flush(struct mig_tls_stream *stream);

/* --- mig_tls.c --- */

#define MIG_TLS_EXPECTED_BYTES 160u

/* Of OpenSSL's verification: is the chain good, and the name one of those?  Its stream has why not.
 */
int mig_tls_verify(X509_STORE_CTX *store, void *context);
/* The names that the other side may have, for people. */
void mig_tls_expected(const struct mig_tls *tls, char text[MIG_TLS_EXPECTED_BYTES]);

#endif
