/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One channel of a migration over a stream socket: writes into memory that the other side has
 * registered, and messages that arrive after all writes posted before them.
 *
 * This is the transport of docs/migrate/protocol.md, sections 1 and 2, on TCP, under TLS or not
 * (docs/migrate/tls.md); its bytes are counted without what TLS adds.  Order holds within
 * one channel.  *Placed is not verified*: a write's bytes carry no checksum of their own, because a
 * running guest may change them under the sender; the chunk that follows has it.  Messages are
 * checked here.
 *
 * Threads: one may send and one may receive at the same time; mig_link_cancel() from any.  Calls
 * block, a socket that moves no byte for the timeout (or, behind the first bytes of a frame, for up
 * to twice of it) is -ETIMEDOUT, and so is one that moves less than 64 KiB in each of three
 * timeouts in a row while there is more to be moved: a peer does not hold up a paused VM byte by
 * byte.  After any error the channel is of no use any more: that way of it gives the same code
 * again, at once.
 */
#ifndef MIGRATE_MIG_LINK_H
#define MIGRATE_MIG_LINK_H

#include "migrate/mig_rate.h"
#include "migrate/mig_tls.h"
#include "migrate/mig_wire.h"

#define MIG_REGIONS_MAX 4u /* numbers from 1: memory, a bounce region, one to spare */

#define MIG_POSTS_MAX 64u /* in one call: small chunks */

struct mig_link;

struct mig_link_options {
	int fd;          /* a connected stream socket; borrowed, outlives the link; made blocking */
	bool is_source;  /* this side is the source */
	bool is_control; /* the control channel */
	uint32_t timeout_ms; /* 0: none */
	/* On the same socket; taken, also on failure.  NULL: clear text. */
	struct mig_tls_stream *tls;
};

/* A message; @body stays until the next call of mig_link_receive(). */
struct mig_received {
	enum mig_type type;
	const uint8_t *body;
	uint32_t body_bytes;
};

/* What went over it so far. */
struct mig_link_counts {
	uint64_t sent_bytes;
	uint64_t received_bytes;
	uint64_t written_bytes; /* of received ones: into regions */
};

/* -ENOMEM; errno of setsockopt() or fcntl(). */
BASE_MUST_CHECK int mig_link_new(const struct mig_link_options *options, struct mig_link **ret_link,
				 struct base_error *err);
/**
 * mig_link_greet - the handshake, where there is TLS and it was not done yet.
 * @most_ms: for all of it; 0: without end.  -ETIMEDOUT, -ECANCELED, and what mig_tls_stream_greet()
 * gives.
 */
BASE_MUST_CHECK int mig_link_greet(struct mig_link *link, uint32_t most_ms, struct base_error *err);
/* What is spoken; false: clear text.  Texts live as long as the link. */
bool mig_link_tls_facts(const struct mig_link *link, struct mig_tls_facts *ret_facts);
/* Nobody is inside any more.  NULL is fine.  The socket stays open. */
void mig_link_free(struct mig_link *link);

/**
 * mig_link_register - let the other side write into @size_bytes at @memory.
 * @number: 1 to MIG_REGIONS_MAX - 1, not in use.  Before the first mig_link_receive().
 * The memory outlives the link.
 */
void mig_link_register(struct mig_link *link, uint32_t number, uint8_t *memory,
		       uint64_t size_bytes);

/**
 * mig_link_write - bytes for (@region, @offset_bytes) of the other side.
 * Any size; cut into frames.  @from is free afterwards.  More is expected to follow at once: a
 * message sends what is held back.
 * -ETIMEDOUT, -ECANCELED; -ECONNRESET, -EPIPE, ...: the connection is gone.
 */
BASE_MUST_CHECK int mig_link_write(struct mig_link *link, uint32_t region, uint64_t offset_bytes,
				   const void *from, uint64_t size_bytes, struct base_error *err);
/* The bytes of a chunk, if it has any, and the CHUNK message behind them. */
struct mig_post {
	uint32_t region;
	uint32_t size_bytes; /* at most MIG_BODY_BYTES_MAX; 0: the message alone */
	uint64_t offset_bytes;
	const uint8_t *from;
	const uint8_t *chunk; /* MIG_CHUNK_BYTES, encoded */
};
/* What mig_link_write() and mig_link_send() of a CHUNK do, for @count (at most MIG_POSTS_MAX) of
 * them and in one system call. */
BASE_MUST_CHECK int mig_link_post(struct mig_link *link, const struct mig_post *posts,
				  uint32_t count, struct base_error *err);
/* Writes from here on wait for @rate (borrowed; NULL: for nobody), or, without @waits, are counted
 * there and go at once.  No one is inside. */
void mig_link_set_rate(struct mig_link *link, struct mig_rate *rate, bool waits);
/* A message, of a type that this side sends here (base_bug otherwise).  Errors as above. */
BASE_MUST_CHECK int mig_link_send(struct mig_link *link, enum mig_type type, const void *body,
				  uint32_t body_bytes, struct base_error *err);

/**
 * mig_link_receive - the next message; writes before it are in their regions.
 * 0; -ETIMEDOUT; -ECANCELED; -ENOTCONN the other side has ended the connection between two frames,
 * -ECONNRESET within one or otherwise; -EBADMSG, -EPROTO: bytes that cannot be, or not now (a
 * region that is not registered, a place outside it, a wrong checksum, and what mig_frame_decode()
 * refuses).
 */
BASE_MUST_CHECK int mig_link_receive(struct mig_link *link, struct mig_received *ret_received,
				     struct base_error *err);

/* Where writes have landed in region @number since the last message, as far as is known: some of
 * it, or all; false: nowhere.  Nobody receives. */
bool mig_link_loose(const struct mig_link *link, uint32_t number, uint64_t *ret_offset_bytes,
		    uint64_t *ret_size_bytes);

/* Whether an error of a call here, or of a connection that is being made, says no more than that
 * this connection is of no use: another one may be. */
bool mig_link_is_broken(int code);

/* Whoever is inside comes out with -ECANCELED, now and later.  Async-signal-safe. */
void mig_link_cancel(struct mig_link *link);

struct mig_link_counts mig_link_counts(const struct mig_link *link); /* any thread */

#endif
