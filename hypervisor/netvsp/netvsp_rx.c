/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames for the guest.  On the queue's loop.
 *
 * The TAP device is read only when there is somewhere to put a frame: a free section of the
 * guest's receive buffer, and nothing that waits for room in the ring.  Otherwise frames stay in
 * the TAP device's queue, and are lost there when it is full; nobody polls meanwhile.  What ends
 * such a wait comes through the channel (a completion of the guest, room in the ring), and ends
 * in netvsp_rx_update().
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "hypervisor/netvsp/netvsp_priv.h"

/* Whether a frame that came now could be given to the guest. */
static bool can_receive(const struct netvsp_queue *queue)
{
	const struct netvsp_buffer *receive = queue->receive;

	return queue->channel != NULL && !queue->quiet && !queue->rx_held &&
	       !queue->waiting.is_set && receive != NULL && queue->index < receive->shares &&
	       receive->sections[queue->index].free_count >
		       netvsp_section_spare(receive, queue->index);
}

/* Whether the guest takes frames at all. */
static bool wants_frames(const struct netvsp *netvsp)
{
	return atomic_load(&netvsp->data_on) && atomic_load(&netvsp->link_up) &&
	       atomic_load(&netvsp->filter) != 0;
}

/* --- one frame --- */

static int deliver(struct netvsp_queue *queue, uint32_t section, uint32_t frame_bytes,
		   const struct rndis_receive *receive)
{
	const struct netvsp_buffer *buffer = queue->receive;
	const uint32_t at = section * buffer->section_bytes;
	uint8_t head[RNDIS_RECEIVE_HEAD_BYTES];
	int rc = 0;

	rndis_receive_head(head, frame_bytes, receive);
	rc = vmbus_gpadl_write(buffer->gpadl, at, head, sizeof(head));
	if (rc == 0)
		rc = vmbus_gpadl_write(buffer->gpadl, at + sizeof(head), queue->rx_frame,
				       frame_bytes);
	if (rc < 0)
		return rc;
	return netvsp_queue_send_section(queue, section, frame_bytes + sizeof(head), false);
}

static void receive_frame(struct netvsp_queue *queue, uint32_t frame_bytes)
{
	struct netvsp *netvsp = queue->netvsp;
	const uint32_t offloads = atomic_load(&netvsp->offloads);
	struct rndis_receive receive;
	uint8_t mac[6];
	uint32_t section = 0;
	int rc = 0;

	netvsp_mac_unpack(atomic_load(&netvsp->mac), mac);
	if (!netvsp_rx_wanted(queue->rx_frame, frame_bytes, atomic_load(&netvsp->filter), mac))
		return; /* not for this guest */
	if (frame_bytes > sizeof(queue->rx_frame) - 1 ||
	    frame_bytes + RNDIS_RECEIVE_HEAD_BYTES > queue->receive->section_bytes ||
	    netvsp_rx_plan(queue->rx_vnet, queue->rx_frame, frame_bytes, &receive) < 0 ||
	    !netvsp_section_take(queue->receive, queue->index,
				 netvsp_section_spare(queue->receive, queue->index), &section)) {
		netvsp_count(&queue->rx_dropped, 1);
		return;
	}
	if ((offloads & (RNDIS_OFFLOAD_RX_CHECKSUM4 | RNDIS_OFFLOAD_RX_CHECKSUM6)) == 0)
		memset(&receive, 0, sizeof(receive));
	rc = deliver(queue, section, frame_bytes, &receive);
	if (rc == -EAGAIN) {
		queue->rx_held = true;
		queue->held_section = section;
		queue->held_bytes = frame_bytes;
	} else if (rc < 0) {
		netvsp_section_give(queue->receive, queue->index, section);
		netvsp_count(&queue->rx_dropped, 1);
		return;
	}
	netvsp_count(&queue->rx_frames, 1);
	netvsp_count(&queue->rx_bytes, frame_bytes);
}

bool netvsp_rx_send_held(struct netvsp_queue *queue)
{
	int rc = 0;

	if (!queue->rx_held)
		return true;
	if (queue->channel == NULL)
		return false;
	rc = netvsp_queue_send_section(queue, queue->held_section,
				       queue->held_bytes + RNDIS_RECEIVE_HEAD_BYTES, false);
	if (rc == -EAGAIN)
		return false;
	queue->rx_held = false;
	if (rc < 0)
		netvsp_section_give(queue->receive, queue->index, queue->held_section);
	return true;
}

void netvsp_rx_drop_held(struct netvsp_queue *queue)
{
	if (!queue->rx_held)
		return;
	queue->rx_held = false;
	if (queue->receive != NULL)
		netvsp_section_give(queue->receive, queue->index, queue->held_section);
	netvsp_count(&queue->rx_dropped, 1);
}

/* --- the TAP device --- */

/* A frame into rx_vnet and rx_frame: its bytes; 0 none there; negative errno. */
static int read_frame(struct netvsp_queue *queue)
{
	struct iovec pieces[2] = { { queue->rx_vnet, sizeof(queue->rx_vnet) },
				   { queue->rx_frame, sizeof(queue->rx_frame) } };
	ssize_t got = 0;

	do
		got = readv(queue->tap_fd, pieces, 2);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == EAGAIN ? 0 : -errno;
	if ((size_t)got <= sizeof(queue->rx_vnet))
		return -EIO; /* its other end is gone */
	return (int)((size_t)got - sizeof(queue->rx_vnet));
}

static void poll_again(struct netvsp_queue *queue);

/* Not again at once: an interface that is down answers so for as long as it is. */
static void tap_failed(struct netvsp_queue *queue, int code)
{
	if (!queue->rx_error_told) {
		queue->rx_error_told = true;
		base_log(BASE_LOG_WARNING, "net.tap-error", "vm=%s card=%u queue=%u why=%s",
			 base_log_str(queue->netvsp->options.vm_name), queue->netvsp->options.index,
			 queue->index, base_log_str(strerrordesc_np(-code)));
	}
	base_io_timer_arm(queue->loop, &queue->retry,
			  base_io_loop_now_ns(queue->loop) + NETVSP_RETRY_NS);
}

/* The guest begins to take frames: what came before that is old. */
static bool drop_stale(struct netvsp_queue *queue)
{
	for (uint32_t i = 0; i < NETVSP_STALE_FRAMES_MAX; i++)
		if (read_frame(queue) <= 0)
			break;
	return true;
}

/* Read what there is, as far as it can be given away. */
static void receive_frames(struct netvsp_queue *queue)
{
	uint32_t count = 0;
	int got = 0;

	while (wants_frames(queue->netvsp) && can_receive(queue)) {
		if (count == NETVSP_FRAMES_PER_TURN) {
			if (!queue->rx_pending) {
				queue->rx_pending = true;
				base_io_post(queue->loop, &queue->rx_task);
			}
			break;
		}
		got = read_frame(queue);
		if (got == 0) {
			poll_again(queue);
			break;
		}
		if (got < 0) {
			tap_failed(queue, got);
			break;
		}
		receive_frame(queue, (uint32_t)got);
		count++;
	}
	if (queue->channel != NULL && count > 0)
		vmbus_channel_flush(queue->channel);
}

static struct netvsp_queue *queue_of_task(struct base_io_task *task)
{
	return (struct netvsp_queue *)((char *)task - offsetof(struct netvsp_queue, rx_task));
}

static void rx_run(struct base_io_task *task)
{
	struct netvsp_queue *queue = queue_of_task(task);

	queue->rx_pending = false;
	queue->rx_waiting = false; /* the poller's thread posts it too */
	receive_frames(queue);
}

static void idle_check(struct netvsp_queue *queue)
{
	if (!queue->rx_waiting && !queue->cancel_waiting)
		base_io_done(queue->loop, &queue->idle);
}

static void poll_done(struct base_io_completion *completion, int32_t result)
{
	struct netvsp_queue *queue =
		(struct netvsp_queue *)((char *)completion -
					offsetof(struct netvsp_queue, poll_done));

	queue->rx_waiting = false;
	if (queue->cancel_waiting || result == -ECANCELED) {
		idle_check(queue);
		return;
	}
	receive_frames(queue);
}

static void cancel_done(struct base_io_completion *completion, int32_t result)
{
	struct netvsp_queue *queue =
		(struct netvsp_queue *)((char *)completion -
					offsetof(struct netvsp_queue, cancel_done));

	(void)result;
	queue->cancel_waiting = false;
	idle_check(queue);
}

static void poll_again(struct netvsp_queue *queue)
{
	struct io_uring_sqe *sqe = NULL;

	if (queue->rx_waiting)
		return;
	queue->rx_waiting = true;
	if (!base_io_loop_has_ring(queue->loop)) {
		netvsp_poller_wait(queue->netvsp->poller, queue->index, queue->tap_fd, queue->loop,
				   &queue->rx_task);
		return;
	}
	sqe = base_io_sqe(queue->loop, &queue->poll_done);
	io_uring_prep_poll_add(sqe, queue->tap_fd, POLLIN);
}

static void retry_expired(struct base_io_timer *timer)
{
	struct netvsp_queue *queue =
		(struct netvsp_queue *)((char *)timer - offsetof(struct netvsp_queue, retry));

	receive_frames(queue);
}

void netvsp_rx_init(struct netvsp_queue *queue)
{
	queue->rx_task.run = rx_run;
	queue->poll_done.done = poll_done;
	queue->cancel_done.done = cancel_done;
	queue->retry.expired = retry_expired;
}

void netvsp_rx_update(struct netvsp_queue *queue)
{
	if (!wants_frames(queue->netvsp) || queue->channel == NULL) {
		queue->rx_on = false;
		return;
	}
	if (!queue->rx_on && !queue->quiet)
		queue->rx_on = drop_stale(queue);
	if (!queue->rx_waiting && !queue->rx_pending && !queue->retry.armed && can_receive(queue)) {
		queue->rx_pending = true;
		base_io_post(queue->loop, &queue->rx_task);
	}
}

static void cancel(void *context)
{
	struct netvsp_queue *queue = context;
	struct io_uring_sqe *sqe = NULL;

	base_io_timer_disarm(queue->loop, &queue->retry);
	if (!queue->rx_waiting || !base_io_loop_has_ring(queue->loop)) {
		base_io_done(queue->loop, &queue->idle);
		return;
	}
	queue->cancel_waiting = true;
	sqe = base_io_sqe(queue->loop, &queue->cancel_done);
	io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)&queue->poll_done, 0);
}

void netvsp_rx_end(struct netvsp_queue *queue)
{
	queue->idle = false;
	base_io_call(queue->loop, cancel, queue);
	base_io_wait(queue->loop, &queue->idle);
}
