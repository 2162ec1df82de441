/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a session's threads have to tell the thread that steps its machine: a bounded queue of
 * events and one deadline.  A full queue makes the poster wait, unless it is closed.
 */
#ifndef MIGRATE_MIG_EVENTS_PRIV_H
#define MIGRATE_MIG_EVENTS_PRIV_H

#include <pthread.h>

#include "base/clock.h"
#include "base/error.h"
#include "migrate/mig_switch.h"

#define MIG_EVENTS_MAX 64u

struct mig_events {
	pthread_mutex_t lock; /* a leaf: what is below */
	pthread_cond_t changed;
	struct mig_event list[MIG_EVENTS_MAX];
	uint32_t first;
	uint32_t count;
	bool closed;
	bool dropping; /* posters do not wait: what does not fit is dropped */
};

void mig_events_init(struct mig_events *events);
void mig_events_fini(struct mig_events *events);
/* Any thread.  After mig_events_close() they are dropped. */
void mig_events_post(struct mig_events *events, const struct mig_event *event);
void mig_events_post_kind(struct mig_events *events, enum mig_event_kind kind);
/* The next one, or false at @deadline_ns (BASE_TIME_NEVER: wait for ever). */
bool mig_events_take(struct mig_events *events, uint64_t deadline_ns, struct mig_event *ret_event);
/* What was posted and not taken is forgotten. */
void mig_events_clear(struct mig_events *events);
/* For who waits for the end of a thread that posts, and is the one who takes. */
void mig_events_drop(struct mig_events *events, bool on);
/* Posters wait no longer. */
void mig_events_close(struct mig_events *events);

#endif
