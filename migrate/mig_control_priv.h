/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control channel of a session on either side: one thread receives, one says every third of the
 * timeout that this side lives, and anybody sends.
 *
 * Nothing heard for the timeout means that the connection is lost, whatever TCP thinks of it.
 */
#ifndef MIGRATE_MIG_CONTROL_PRIV_H
#define MIGRATE_MIG_CONTROL_PRIV_H

#include "migrate/mig_link.h"

struct mig_control;

struct mig_control_ops {
	/* Receiving thread; all but ALIVE.  Not 0: the connection ends with that. */
	int (*message)(void *context, const struct mig_received *received, struct base_error *err);
	/* What this side's signs of life say; any thread; NULL: they are counted. */
	uint64_t (*progress)(void *context);
	/* What the other side's say; receiving thread; may be NULL. */
	void (*alive)(void *context, uint64_t number);
	/* Receiving thread, its last call: nothing is heard any more, but a last word can be sent.
	 * -ENOTCONN: the other side has ended it in good order. */
	void (*lost)(void *context, int code, const struct base_error *err);
	void *context;
};

/**
 * mig_control_new - from here on messages are received.
 * @link, @fd: taken, also on failure; @fd is closed with the link.  @ops is copied.
 * -ENOMEM, -EAGAIN no threads.
 */
BASE_MUST_CHECK int mig_control_new(struct mig_link *link, int fd, uint32_t timeout_ms,
				    const struct mig_control_ops *ops,
				    struct mig_control **ret_control, struct base_error *err);
/* Any thread.  As mig_link_send(). */
BASE_MUST_CHECK int mig_control_send(struct mig_control *control, enum mig_type type,
				     const void *body, uint32_t body_bytes, struct base_error *err);
/* The connection ends now, for both sides; lost() comes if it did not yet.  Any thread. */
void mig_control_cancel(struct mig_control *control);
struct mig_link_counts mig_control_counts(const struct mig_control *control);
/* Not from its own callbacks.  NULL is fine. */
void mig_control_free(struct mig_control *control);

#endif
