/* SPDX-License-Identifier: Apache-2.0 */
/* A network card: made, looked at, ended.  netvsp.h; netvsp_priv.h says who owns what. */
#include "hypervisor/netvsp/netvsp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/netvsp/netvsp_priv.h"

#define MTU_DEFAULT 1500u

uint64_t netvsp_mac_pack(const uint8_t mac[6])
{
	uint8_t bytes[8] = { 0 };

	memcpy(bytes, mac, 6);
	return base_get_le64(bytes);
}

void netvsp_mac_unpack(uint64_t packed, uint8_t ret_mac[6])
{
	uint8_t bytes[8];

	base_put_le64(bytes, packed);
	memcpy(ret_mac, bytes, 6);
}

bool netvsp_may_send(const struct netvsp *netvsp)
{
#ifdef GODWIT_MUTANT_NETVSP_GATE
	return true;
#endif
	return netvsp->options.may_send == NULL ||
	       netvsp->options.may_send(netvsp->options.gate_context);
}

/* --- made --- */

static int options_check(const struct netvsp_options *options, struct base_error *err)
{
	if (options->loop_count == 0 || options->loop_count > NETVSP_QUEUES_MAX)
		return base_fail(err, -EINVAL, "network card %u: %u loops, expected 1..%u",
				 options->index, options->loop_count, NETVSP_QUEUES_MAX);
	if (options->queue_count == 0 || options->queue_count > NETVSP_QUEUES_MAX)
		return base_fail(err, -EINVAL, "network card %u: %u queues, expected 1..%u",
				 options->index, options->queue_count, NETVSP_QUEUES_MAX);
	if (options->mtu != 0 && (options->mtu < NETVSP_MTU_MIN || options->mtu > NETVSP_MTU_MAX))
		return base_fail(err, -EINVAL, "network card %u: MTU %u, expected %u..%u",
				 options->index, options->mtu, NETVSP_MTU_MIN, NETVSP_MTU_MAX);
	if ((options->mac[0] & 1) != 0 || base_is_zero(options->mac, 6))
		return base_fail(
			err, -EINVAL,
			"network card %u: %02x:%02x:%02x:%02x:%02x:%02x is no address of a "
			"card",
			options->index, options->mac[0], options->mac[1], options->mac[2],
			options->mac[3], options->mac[4], options->mac[5]);
	return 0;
}

static void queues_init(struct netvsp *netvsp)
{
	const struct netvsp_options *options = &netvsp->options;

	for (uint32_t i = 0; i < netvsp->queue_limit; i++) {
		struct netvsp_queue *queue = &netvsp->queues[i];

		queue->netvsp = netvsp;
		queue->index = i;
		queue->loop = options->loops[i % options->loop_count];
		queue->tap_fd = options->tap_fds[i];
		netvsp_queue_init(queue);
		netvsp_queue_take_part(queue, false);
	}
	for (uint32_t i = netvsp->queue_limit; i < options->queue_count; i++)
		(void)!netvsp_tap_take_part(options->tap_fds[i], false);
}

struct ring_question {
	const struct base_io_loop *loop;
	bool has_ring;
};

static void ask_ring(void *context)
{
	struct ring_question *question = context;

	question->has_ring = base_io_loop_has_ring(question->loop);
}

static bool all_have_rings(const struct netvsp *netvsp)
{
	for (uint32_t i = 0; i < netvsp->queue_limit; i++) {
		struct ring_question question = { .loop = netvsp->queues[i].loop };

		base_io_call(netvsp->queues[i].loop, ask_ring, &question);
		if (!question.has_ring)
			return false;
	}
	return true;
}

static void netvsp_release(struct netvsp *netvsp)
{
	netvsp_poller_free(netvsp->poller);
	(void)pthread_mutex_destroy(&netvsp->path_lock);
	free(netvsp->loaded);
	free(netvsp->queues);
	free(netvsp);
}

int netvsp_new(const struct netvsp_options *options, struct netvsp **ret_netvsp,
	       struct base_error *err)
{
	struct netvsp *netvsp = NULL;
	int rc = options_check(options, err);

	if (rc < 0)
		return rc;
	netvsp = calloc(1, sizeof(*netvsp));
	if (netvsp == NULL)
		return base_fail(err, -ENOMEM, "network card %u", options->index);
	(void)pthread_mutex_init(&netvsp->path_lock, NULL);
	netvsp->options = *options;
	if (netvsp->options.mtu == 0)
		netvsp->options.mtu = MTU_DEFAULT;
	if (netvsp->options.vm_name == NULL)
		netvsp->options.vm_name = "";
	netvsp->queue_limit = options->queue_count;
	if (netvsp->queue_limit > options->vcpu_count)
		netvsp->queue_limit = options->vcpu_count == 0 ? 1 : options->vcpu_count;
	atomic_store(&netvsp->mac, netvsp_mac_pack(options->mac));
	atomic_store(&netvsp->offloads, RNDIS_OFFLOAD_KNOWN);
	atomic_store(&netvsp->link_up, options->link_up);
	atomic_store(&netvsp->link_wanted, options->link_up);
	netvsp->control.link_shown = options->link_up;
	netvsp_announce_init(netvsp);
	netvsp_control_init(netvsp);
	netvsp->queues = calloc(netvsp->queue_limit, sizeof(*netvsp->queues));
	if (netvsp->queues == NULL) {
		netvsp_release(netvsp);
		return base_fail(err, -ENOMEM, "queues of network card %u", options->index);
	}
	queues_init(netvsp);
	if (!all_have_rings(netvsp))
		rc = netvsp_poller_new(&netvsp->poller, err);
	if (rc == 0)
		rc = netvsp_offer(netvsp, 0, &netvsp->primary, err);
	if (rc < 0) {
		netvsp_release(netvsp);
		return base_fail_within(err, rc, "network card %u", options->index);
	}
	*ret_netvsp = netvsp;
	return 0;
}

/* --- ended --- */

struct barrier {
	struct base_io_task task;
	struct base_io_loop *loop;
	bool done;
};

static void barrier_run(struct base_io_task *task)
{
	struct barrier *barrier = (struct barrier *)task; /* its first member */

	base_io_done(barrier->loop, &barrier->done);
}

/* Behind everything that was posted to the loop so far. */
static void wait_behind(struct base_io_loop *loop)
{
	struct barrier barrier = { .task = { .run = barrier_run }, .loop = loop };

	base_io_post(loop, &barrier.task);
	base_io_wait(loop, &barrier.done);
}

static void end_queue(void *context)
{
	struct netvsp_queue *queue = context;

	queue->quiet = true;
	queue->channel = NULL;
	queue->rx_held = false;
	netvsp_buffer_unref(base_take(&queue->receive));
	netvsp_buffer_unref(base_take(&queue->send));
	if (queue->index == 0) {
		netvsp_announce_end(queue->netvsp);
		netvsp_buffer_unref(base_take(&queue->netvsp->receive));
		netvsp_buffer_unref(base_take(&queue->netvsp->send));
		queue->netvsp->closing = false;
		queue->netvsp->control.sub_request.is_set = false;
	}
}

void netvsp_free(struct netvsp *netvsp)
{
	if (netvsp == NULL)
		return;
	/* Queue 0 last: a sub-channel that goes is told to control. */
	for (uint32_t i = netvsp->queue_limit; i > 0; i--)
		base_io_call(netvsp->queues[i - 1].loop, end_queue, &netvsp->queues[i - 1]);
	wait_behind(netvsp->queues[0].loop);
	for (uint32_t i = 1; i < netvsp->queue_limit; i++)
		if (netvsp->subs[i].channel != NULL && !atomic_load(&netvsp->subs[i].gone))
			vmbus_channel_free(netvsp->subs[i].channel);
	vmbus_channel_free(netvsp->primary);
	netvsp_poller_free(base_take(&netvsp->poller));
	for (uint32_t i = 0; i < netvsp->queue_limit; i++) {
		wait_behind(netvsp->queues[i].loop);
		netvsp_rx_end(&netvsp->queues[i]);
	}
	wait_behind(netvsp->queues[0].loop);
	netvsp_release(netvsp);
}

/* --- looked at --- */

struct status_call {
	struct netvsp *netvsp;
	struct netvsp_status *status;
};

static void status_on_loop(void *context)
{
	const struct status_call *call = context;

	call->status->connected = call->netvsp->control.rndis_ready;
}

void netvsp_status(struct netvsp *netvsp, struct netvsp_status *ret_status)
{
	struct netvsp_status status = { .link_up = atomic_load(&netvsp->link_up) };
	struct status_call call = { .netvsp = netvsp, .status = &status };

	base_io_call(netvsp->queues[0].loop, status_on_loop, &call);
	netvsp_mac_unpack(atomic_load(&netvsp->mac), status.mac);
	for (uint32_t i = 0; i < netvsp->queue_limit; i++) {
		const struct netvsp_queue *queue = &netvsp->queues[i];

		status.queue_count += atomic_load(&queue->is_open) ? 1 : 0;
		status.rx_frames += atomic_load(&queue->rx_frames);
		status.rx_bytes += atomic_load(&queue->rx_bytes);
		status.rx_dropped += atomic_load(&queue->rx_dropped);
		status.tx_frames += atomic_load(&queue->tx_frames);
		status.tx_bytes += atomic_load(&queue->tx_bytes);
		status.tx_dropped += atomic_load(&queue->tx_dropped);
		status.tx_spoofed += atomic_load(&queue->tx_spoofed);
	}
	*ret_status = status;
}
