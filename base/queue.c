/* SPDX-License-Identifier: Apache-2.0 */
/* A ring under one lock, which is a leaf; one condition for each direction. */
#include "base/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct base_queue {
	pthread_mutex_t lock;
	pthread_cond_t has_item;
	pthread_cond_t has_room;
	size_t capacity;
	size_t first; /* index of the oldest item */
	size_t count;
	bool closed;
	void *items[];
};

int base_queue_new(size_t capacity, struct base_queue **ret_queue, struct base_error *err)
{
	struct base_queue *queue = NULL;

	if (capacity == 0 || capacity > BASE_QUEUE_CAPACITY_MAX)
		return base_fail(err, -EINVAL, "queue: capacity %zu not in 1..%d", capacity,
				 BASE_QUEUE_CAPACITY_MAX);
	queue = calloc(1, sizeof(*queue) + capacity * sizeof(queue->items[0]));
	if (queue == NULL)
		return base_fail(err, -ENOMEM, "queue of %zu items: no memory", capacity);

	queue->capacity = capacity;
	(void)pthread_mutex_init(&queue->lock, NULL); /* these three cannot fail on Linux */
	(void)pthread_cond_init(&queue->has_item, NULL);
	(void)pthread_cond_init(&queue->has_room, NULL);
	*ret_queue = queue;
	return 0;
}

void base_queue_free(struct base_queue *queue)
{
	if (queue == NULL)
		return;
	(void)pthread_cond_destroy(&queue->has_room);
	(void)pthread_cond_destroy(&queue->has_item);
	(void)pthread_mutex_destroy(&queue->lock);
	free(queue);
}

/* With the lock held. */
static int push_locked(struct base_queue *queue, void *item)
{
	if (queue->closed)
		return -ECANCELED;
	if (queue->count == queue->capacity)
		return -EAGAIN;
	queue->items[(queue->first + queue->count) % queue->capacity] = item;
	queue->count++;
	(void)pthread_cond_signal(&queue->has_item);
	return 0;
}

/* With the lock held. */
static int pop_locked(struct base_queue *queue, void **ret_item)
{
	if (queue->count == 0)
		return queue->closed ? -ECANCELED : -EAGAIN;
	*ret_item = queue->items[queue->first];
	queue->first = (queue->first + 1) % queue->capacity;
	queue->count--;
	(void)pthread_cond_signal(&queue->has_room);
	return 0;
}

int base_queue_try_push(struct base_queue *queue, void *item)
{
	BASE_LOCKED(&queue->lock);

	return push_locked(queue, item);
}

int base_queue_push(struct base_queue *queue, void *item)
{
	BASE_LOCKED(&queue->lock);
	int code = 0;

	while ((code = push_locked(queue, item)) == -EAGAIN)
		(void)pthread_cond_wait(&queue->has_room, &queue->lock);
	return code;
}

int base_queue_try_pop(struct base_queue *queue, void **ret_item)
{
	BASE_LOCKED(&queue->lock);

	return pop_locked(queue, ret_item);
}

int base_queue_pop(struct base_queue *queue, void **ret_item)
{
	BASE_LOCKED(&queue->lock);
	int code = 0;

	while ((code = pop_locked(queue, ret_item)) == -EAGAIN)
		(void)pthread_cond_wait(&queue->has_item, &queue->lock);
	return code;
}

void base_queue_close(struct base_queue *queue)
{
	BASE_LOCKED(&queue->lock);

	queue->closed = true;
	(void)pthread_cond_broadcast(&queue->has_item);
	(void)pthread_cond_broadcast(&queue->has_room);
}
