/* SPDX-License-Identifier: Apache-2.0 */
/* A channel, for its files: mig_link.c (frames, clear text) and mig_link_tls.c (the same bytes
 * under TLS). */
#ifndef MIGRATE_MIG_LINK_PRIV_H
#define MIGRATE_MIG_LINK_PRIV_H

#include <stdatomic.h>
#include <sys/uio.h>

#include "migrate/mig_link.h"

struct mig_link_region {
	uint8_t *memory; /* NULL: not registered */
	uint64_t size_bytes;
	uint64_t loose_from, loose_to; /* written to since the last message; the same: not at all */
};

struct mig_link {
	int fd;
	bool is_source;
	bool is_control;
	uint32_t timeout_ms;
	atomic_bool cancelled;
	int send_failed;    /* the sender's: a frame may be there in part, nothing can follow it */
	int receive_failed; /* the receiver's */
	atomic_uint_fast64_t sent_bytes;
	atomic_uint_fast64_t received_bytes;
	atomic_uint_fast64_t written_bytes;
	uint8_t *ahead; /* what came with a body and belongs behind it: @ahead_bytes at @ahead_at */
	size_t ahead_at;
	size_t ahead_bytes;
	bool small;                 /* so are the writes of the message that is received */
	struct mig_tls_stream *tls; /* NULL: clear text */
	bool in_kernel;             /* it enciphers what is sent here as clear text */
	uint8_t *record;            /* TLS: of small parts, until there is enough of them */
	size_t record_bytes;
	struct mig_rate *rate; /* NULL: as fast as it goes */
	bool urgent;           /* it counts only */
	uint8_t *body;         /* MIG_BODY_BYTES_MAX, of the message received last */
	struct mig_link_region regions[MIG_REGIONS_MAX];
};

/* What a system call said, or the cancel behind it. */
int mig_link_fail(const struct mig_link *link, int code, const char *what, struct base_error *err);
/* A wait has ended with only a part of what there was to move, because its time was over. */
BASE_MUST_CHECK int mig_link_look_at_pace(const struct mig_link *link, uint64_t moved_bytes,
					  uint32_t *trickles, const char *what,
					  struct base_error *err);

/* --- mig_link_tls.c --- */

/* Exactly @size_bytes.  @begun: they are the rest of something. */
BASE_MUST_CHECK int mig_link_tls_receive(struct mig_link *link, uint8_t *to, uint64_t size_bytes,
					 bool begun, struct base_error *err);
/* @more is to come at once: the rest may wait for it. */
BASE_MUST_CHECK int mig_link_tls_send(struct mig_link *link, const struct iovec *parts,
				      size_t count, bool more, struct base_error *err);

#endif
