/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection that fails on order: a thread that forwards bytes between two stream sockets, and at
 * a given byte of the stream, or of a frame of the migration protocol, cuts the connection, holds
 * it, ends one way of it or flips a bit.  Nothing depends on time.
 *
 * A byte is forwarded when it was written to the socket of the other side.  What was forwarded
 * before a cut can still be read there; what was not is lost.  A way that is held reads no more
 * either, so that a sender sooner or later finds its socket full, as with a peer that is frozen;
 * the end of the connection does not come through it.
 *
 * Any thread; free when nobody else uses it.  An impossible call aborts.
 */
#ifndef TESTS_FAULT_PROXY_H
#define TESTS_FAULT_PROXY_H

#include <stdbool.h>
#include <stdint.h>

#define FAULT_RULES_MAX 8u
#define FAULT_END       UINT64_MAX /* of a frame: behind its last byte; FAULT_FLIP: the last byte */

enum fault_way {
	FAULT_FORTH, /* near to far: source to destination */
	FAULT_BACK,
	FAULT_WAYS
};

enum fault_action {
	FAULT_NONE,
	FAULT_CUT,  /* the connection, both ways, for ever */
	FAULT_HOLD, /* until fault_proxy_release() */
	FAULT_SHUT, /* this way ends as if its sender had shut it down; the other goes on */
	FAULT_FLIP, /* a bit of the byte at the place */
	FAULT_ACTIONS
};

/* Where, and what. */
struct fault_rule {
	enum fault_way way;
	enum fault_action action;
	uint32_t type;     /* 0: of the stream; else of a frame of this type (enum mig_type) */
	uint32_t skip;     /* so many frames of the type are let through first */
	uint64_t at_bytes; /* that many bytes of the stream or frame are forwarded before */
	uint32_t bit;      /* FAULT_FLIP: 0 to 7 */
	bool both_ways;    /* FAULT_HOLD: the other way too, wherever it is */
};

struct fault_proxy;

/* Takes both sockets. */
struct fault_proxy *fault_proxy_new(int near_fd, int far_fd);
/* The same with a pair of its own: returns the socket for the near side, which is the caller's. */
int fault_proxy_before(int far_fd, struct fault_proxy **ret_proxy);
/* Cuts.  NULL is fine. */
void fault_proxy_free(struct fault_proxy *proxy);

/**
 * fault_proxy_arm - one rule; it hits once.
 * Before the connection is used, or while the way is held: bytes and frames that have been read
 * are not waited for again.
 */
void fault_proxy_arm(struct fault_proxy *proxy, const struct fault_rule *rule);

/* At once.  When they return nothing is forwarded any more (or only what follows the release). */
void fault_proxy_cut(struct fault_proxy *proxy);
void fault_proxy_hold(struct fault_proxy *proxy, enum fault_way way);
void fault_proxy_release(struct fault_proxy *proxy, enum fault_way way);

uint64_t fault_proxy_forwarded(struct fault_proxy *proxy, enum fault_way way);
/* Wait for at least @bytes of @way; false: it has ended, or is cut or held, with fewer. */
bool fault_proxy_wait(struct fault_proxy *proxy, enum fault_way way, uint64_t bytes);
/* Wait until @count rules have hit; false: the connection is over in both ways before. */
bool fault_proxy_wait_hit(struct fault_proxy *proxy, uint32_t count);

#endif
