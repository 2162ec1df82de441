/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded queue of pointers between threads.  Full means -EAGAIN for those who
 * may not wait.  Closing wakes everyone; what was queued can still be taken.
 * Any number of threads at both ends.
 */
#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include <stddef.h>

#include "base/error.h"

struct base_queue;

/* @capacity: 1..BASE_QUEUE_CAPACITY_MAX items.  -ENOMEM, -EINVAL. */
#define BASE_QUEUE_CAPACITY_MAX 65536 /* larger is not a queue but a leak */
BASE_MUST_CHECK int base_queue_new(size_t capacity, struct base_queue **ret_queue,
				   struct base_error *err);
/* Items still inside are the caller's to drain first; NULL is fine. */
void base_queue_free(struct base_queue *queue);

/* Add without waiting.  0; -EAGAIN full; -ECANCELED closed.  On 0 the queue holds @item. */
BASE_MUST_CHECK int base_queue_try_push(struct base_queue *queue, void *item);
/* Add, waiting for room.  0; -ECANCELED closed. */
BASE_MUST_CHECK int base_queue_push(struct base_queue *queue, void *item);
/* Take without waiting.  0; -EAGAIN empty; -ECANCELED closed and empty. */
BASE_MUST_CHECK int base_queue_try_pop(struct base_queue *queue, void **ret_item);
/* Take, waiting for one.  0; -ECANCELED closed and empty. */
BASE_MUST_CHECK int base_queue_pop(struct base_queue *queue, void **ret_item);
void base_queue_close(struct base_queue *queue);

#endif
