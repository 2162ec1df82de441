/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for TAP devices where the kernel gives the I/O loops no ring: one thread per card that
 * sleeps in poll(2) and posts the queue's task when its descriptor is readable.
 *
 * The lock is a leaf; no callback runs under it (base_io_post only queues).
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/thread.h"
#include "hypervisor/netvsp/netvsp_priv.h"

struct wait {
	int fd; /* -1: nobody waits */
	struct base_io_loop *loop;
	struct base_io_task *task;
};

struct netvsp_poller {
	pthread_t thread;
	int event_fd;
	pthread_mutex_t lock;
	bool ending;
	struct wait waits[NETVSP_QUEUES_MAX];
};

static bool collect(struct netvsp_poller *poller, struct pollfd fds[NETVSP_QUEUES_MAX + 1])
{
	BASE_LOCKED(&poller->lock);

	for (uint32_t i = 0; i < NETVSP_QUEUES_MAX; i++)
		fds[i] = (struct pollfd){ .fd = poller->waits[i].fd, .events = POLLIN };
	fds[NETVSP_QUEUES_MAX] = (struct pollfd){ .fd = poller->event_fd, .events = POLLIN };
	return !poller->ending;
}

static void report(struct netvsp_poller *poller, uint32_t slot)
{
	struct wait wait = { .fd = -1 };

	{
		BASE_LOCKED(&poller->lock);
		wait = poller->waits[slot];
		poller->waits[slot].fd = -1;
	}
	if (wait.fd >= 0)
		base_io_post(wait.loop, wait.task);
}

static void *poller_body(void *context)
{
	struct netvsp_poller *poller = context;
	struct pollfd fds[NETVSP_QUEUES_MAX + 1];
	uint64_t value = 0;

	while (collect(poller, fds)) {
		if (poll(fds, NETVSP_QUEUES_MAX + 1, -1) < 0)
			continue;
		if (fds[NETVSP_QUEUES_MAX].revents != 0)
			(void)!read(poller->event_fd, &value, sizeof(value));
		for (uint32_t i = 0; i < NETVSP_QUEUES_MAX; i++)
			if (fds[i].fd >= 0 && fds[i].revents != 0)
				report(poller, i);
	}
	return NULL;
}

static void poller_wake(const struct netvsp_poller *poller)
{
	const uint64_t one = 1;

	(void)!write(poller->event_fd, &one, sizeof(one));
}

int netvsp_poller_new(struct netvsp_poller **ret_poller, struct base_error *err)
{
	struct netvsp_poller *poller = calloc(1, sizeof(*poller));
	int rc = 0;

	if (poller == NULL)
		return base_fail(err, -ENOMEM, "poller of a network card");
	for (uint32_t i = 0; i < NETVSP_QUEUES_MAX; i++)
		poller->waits[i].fd = -1;
	poller->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (poller->event_fd < 0) {
		rc = -errno;
		free(poller);
		return base_fail_errno(err, rc, "eventfd of a network card");
	}
	(void)pthread_mutex_init(&poller->lock, NULL);
	rc = base_thread_start(&poller->thread, "net-poll", poller_body, poller, err);
	if (rc < 0) {
		(void)close(poller->event_fd);
		(void)pthread_mutex_destroy(&poller->lock);
		free(poller);
		return rc;
	}
	*ret_poller = poller;
	return 0;
}

void netvsp_poller_free(struct netvsp_poller *poller)
{
	if (poller == NULL)
		return;
	{
		BASE_LOCKED(&poller->lock);
		poller->ending = true;
	}
	poller_wake(poller);
	base_thread_join(poller->thread);
	(void)close(poller->event_fd);
	(void)pthread_mutex_destroy(&poller->lock);
	free(poller);
}

void netvsp_poller_wait(struct netvsp_poller *poller, uint32_t slot, int fd,
			struct base_io_loop *loop, struct base_io_task *task)
{
	{
		BASE_LOCKED(&poller->lock);
		poller->waits[slot] = (struct wait){ .fd = fd, .loop = loop, .task = task };
	}
	poller_wake(poller);
}
