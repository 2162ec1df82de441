/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "migrate/mig_events_priv.h"

void mig_events_init(struct mig_events *events)
{
	*events = (struct mig_events){ .first = 0 };
	(void)pthread_mutex_init(&events->lock, NULL); /* these two cannot fail on Linux */
	(void)pthread_cond_init(&events->changed, NULL);
}

void mig_events_fini(struct mig_events *events)
{
	(void)pthread_cond_destroy(&events->changed);
	(void)pthread_mutex_destroy(&events->lock);
}

/* A peer that says the same again and again does not keep the session's own thread, which takes the
 * events, from posting what it has done. */
void mig_events_post(struct mig_events *events, const struct mig_event *event)
{
	uint32_t most = event->kind == MIG_EV_MESSAGE ? MIG_EVENTS_MAX / 2 : MIG_EVENTS_MAX;
	BASE_LOCKED(&events->lock);

	while (events->count >= most && !events->closed && !events->dropping)
		(void)base_cond_wait(&events->changed, &events->lock, BASE_TIME_NEVER);
	if (events->closed || events->count >= most)
		return;
	events->list[(events->first + events->count++) % MIG_EVENTS_MAX] = *event;
	(void)pthread_cond_broadcast(&events->changed);
}

void mig_events_post_kind(struct mig_events *events, enum mig_event_kind kind)
{
	const struct mig_event event = { .kind = kind };

	mig_events_post(events, &event);
}

bool mig_events_take(struct mig_events *events, uint64_t deadline_ns, struct mig_event *ret_event)
{
	BASE_LOCKED(&events->lock);

	while (events->count == 0)
		if (!base_cond_wait(&events->changed, &events->lock, deadline_ns))
			return false;
	*ret_event = events->list[events->first];
	events->first = (events->first + 1) % MIG_EVENTS_MAX;
	events->count--;
	(void)pthread_cond_broadcast(&events->changed);
	return true;
}

void mig_events_clear(struct mig_events *events)
{
	BASE_LOCKED(&events->lock);

	events->count = 0;
	(void)pthread_cond_broadcast(&events->changed);
}

void mig_events_drop(struct mig_events *events, bool on)
{
	BASE_LOCKED(&events->lock);

	events->dropping = on;
	(void)pthread_cond_broadcast(&events->changed);
}

void mig_events_close(struct mig_events *events)
{
	BASE_LOCKED(&events->lock);

	events->closed = true;
	(void)pthread_cond_broadcast(&events->changed);
}
