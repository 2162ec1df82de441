/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/thread.h"
#include "migrate/mig_body.h"
#include "migrate/mig_control_priv.h"

struct mig_control {
	struct mig_link *link;
	int fd;
	uint32_t timeout_ms;
	struct mig_control_ops ops;
	pthread_t receiver;
	pthread_t ticker;
	pthread_mutex_t send_lock; /* a leaf: one message at a time goes out */
	pthread_mutex_t lock;      /* a leaf: over */
	pthread_cond_t changed;
	bool over;
};

int mig_control_send(struct mig_control *control, enum mig_type type, const void *body,
		     uint32_t body_bytes, struct base_error *err)
{
	BASE_LOCKED(&control->send_lock);

	return mig_link_send(control->link, type, body, body_bytes, err);
}

void mig_control_cancel(struct mig_control *control)
{
	mig_link_cancel(control->link);
}

struct mig_link_counts mig_control_counts(const struct mig_control *control)
{
	return mig_link_counts(control->link);
}

static int take_alive(struct mig_control *control, const struct mig_received *received,
		      struct base_error *err)
{
	uint64_t number = 0;
	int r = mig_number_decode(received->body, received->body_bytes, &number, err);

	if (r == 0 && control->ops.alive != NULL)
		control->ops.alive(control->ops.context, number);
	return r;
}

static void *receive(void *context)
{
	struct mig_control *control = context;
	struct base_error err = { 0 };
	struct mig_received received;
	int r = 0;

	do {
		r = mig_link_receive(control->link, &received, &err);
		if (r == 0 && received.type == MIG_TYPE_ALIVE)
			r = take_alive(control, &received, &err);
		else if (r == 0)
			r = control->ops.message(control->ops.context, &received, &err);
	} while (r == 0);
	control->ops.lost(control->ops.context, r, &err);
	mig_link_cancel(control->link);
	return NULL;
}

/* False: the channel is over. */
static bool wait_tick(struct mig_control *control)
{
	uint64_t tick_ns = (uint64_t)control->timeout_ms * BASE_NS_PER_MS / 3;
	uint64_t deadline_ns = base_clock_boot_ns(&base_clock_system) + tick_ns;
	BASE_LOCKED(&control->lock);

	while (!control->over && base_cond_wait(&control->changed, &control->lock, deadline_ns))
		continue;
	return !control->over;
}

static void *tick(void *context)
{
	struct mig_control *control = context;
	uint8_t body[MIG_NUMBER_BYTES];
	uint64_t number = 0;

	while (wait_tick(control)) {
		number = control->ops.progress != NULL ? control->ops.progress(control->ops.context)
						       : number + 1;
		mig_number_encode(number, body);
		if (mig_control_send(control, MIG_TYPE_ALIVE, body, sizeof(body), NULL) < 0)
			mig_link_cancel(control->link); /* the receiver tells */
	}
	return NULL;
}

static void end(struct mig_control *control)
{
	BASE_LOCKED(&control->lock);

	control->over = true;
	(void)pthread_cond_broadcast(&control->changed);
}

static void release(struct mig_control *control)
{
	(void)pthread_cond_destroy(&control->changed);
	(void)pthread_mutex_destroy(&control->lock);
	(void)pthread_mutex_destroy(&control->send_lock);
	mig_link_free(control->link);
	base_closep(&control->fd);
	free(control);
}

int mig_control_new(struct mig_link *link, int fd, uint32_t timeout_ms,
		    const struct mig_control_ops *ops, struct mig_control **ret_control,
		    struct base_error *err)
{
	struct mig_control *control = calloc(1, sizeof(*control));
	int r = 0;

	if (control == NULL) {
		mig_link_free(link);
		base_closep(&fd);
		return base_fail(err, -ENOMEM, "migration control channel");
	}
	*control = (struct mig_control){
		.link = link, .fd = fd, .timeout_ms = timeout_ms, .ops = *ops
	};
	(void)pthread_mutex_init(&control->send_lock, NULL); /* these three cannot fail on Linux */
	(void)pthread_mutex_init(&control->lock, NULL);
	(void)pthread_cond_init(&control->changed, NULL);
	r = base_thread_start(&control->ticker, "mig-alive", tick, control, err);
	if (r < 0) {
		release(control);
		return r;
	}
	*ret_control = control; /* before the first callback */
	r = base_thread_start(&control->receiver, "mig-control", receive, control, err);
	if (r < 0) {
		end(control);
		base_thread_join(control->ticker);
		release(control);
		*ret_control = NULL;
		return r;
	}
	return 0;
}

void mig_control_free(struct mig_control *control)
{
	if (control == NULL)
		return;
	mig_link_cancel(control->link);
	end(control);
	base_thread_join(control->ticker);
	base_thread_join(control->receiver);
	release(control);
}
