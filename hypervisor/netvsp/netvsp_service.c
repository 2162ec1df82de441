/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's life as a network card sees it: quiesce, reset, save, load.
 *
 * Quiesced, a card has nothing in flight: what it took from a ring it has sent or lost, and what
 * the guest is to get (a completion, an answer) is in its state.  A frame that waits for room in
 * a ring is dropped, as a full switch would.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/netvsp/netvsp_priv.h"

static void for_all_queues(struct netvsp *netvsp, void (*call)(void *queue))
{
	for (uint32_t i = 0; i < netvsp->queue_limit; i++)
		base_io_call(netvsp->queues[i].loop, call, &netvsp->queues[i]);
}

static void queue_quiesce(void *context)
{
	struct netvsp_queue *queue = context;

	netvsp_rx_drop_held(queue);
	queue->quiet = true;
}

static int card_quiesce(void *service, struct base_error *err)
{
	(void)err;
	for_all_queues(service, queue_quiesce);
	return 0;
}

static void queue_resume(void *context)
{
	struct netvsp_queue *queue = context;

	queue->quiet = false;
	netvsp_queue_sync(queue);
	if (queue->index == 0)
		netvsp_control_gone(queue->netvsp);
	if (queue->channel == NULL)
		return;
	(void)netvsp_queue_flush(queue);
	vmbus_channel_flush(queue->channel);
	vmbus_channel_again(queue->channel);
}

static void card_resume(void *service)
{
	struct netvsp *netvsp = service;

	/* Where the cable is here may not be what the guest was told there: it is shown now. */
	for_all_queues(netvsp, queue_resume);
}

static void reset_control(void *context)
{
	struct netvsp *netvsp = context;

	base_io_timer_disarm(netvsp->queues[0].loop, &netvsp->announce_timer);
	netvsp_control_reset(netvsp);
	netvsp->control.generation = 0;
	atomic_store(&netvsp->mac, netvsp_mac_pack(netvsp->options.mac));
}

static int card_reset(void *service, struct base_error *err)
{
	struct netvsp *netvsp = service;

	(void)err;
	base_io_call(netvsp->queues[0].loop, reset_control, netvsp);
	return 0;
}

static uint32_t card_section_count(void *service)
{
	(void)service;
	return 1;
}

static struct hv_service_section card_section(void *service, uint32_t index)
{
	const struct netvsp *netvsp = service;

	(void)index;
	return (struct hv_service_section){ .name = NETVSP_STATE_NAME,
					    .instance = netvsp->options.index,
					    .version = NETVSP_STATE_VERSION };
}

/* --- save --- */

static void gather(void *context)
{
	struct netvsp_queue *queue = context;
	struct netvsp_state *state = queue->netvsp->loaded; /* lent by card_save() */
	const struct netvsp_sections *sections = NULL;

	netvsp_queue_sync(queue); /* so that all speak of the same buffer */
	state->waiting[queue->index] = queue->waiting;
	if (queue->index == 0)
		state->control = queue->netvsp->control;
	if (queue->receive == NULL || queue->index >= queue->receive->shares)
		return;
	sections = &queue->receive->sections[queue->index];
	for (uint32_t i = 0; i < sections->count; i++) {
		const uint32_t section = sections->first + i;

		if (sections->used[i] != 0)
			state->used[section / 64] |= 1ULL << (section % 64);
	}
}

static int card_save(void *service, uint32_t index, struct base_buffer *out, struct base_error *err)
{
	struct netvsp *netvsp = service;
	struct netvsp_state *state = calloc(1, sizeof(*state));

	(void)index;
	if (state == NULL)
		return base_fail(err, -ENOMEM, "state of network card %u", netvsp->options.index);
	netvsp->loaded = state;
	for_all_queues(netvsp, gather);
	netvsp->loaded = NULL;
	state->filter = atomic_load(&netvsp->filter);
	state->offloads = atomic_load(&netvsp->offloads);
	netvsp_mac_unpack(atomic_load(&netvsp->mac), state->mac);
	netvsp_state_encode(state, out);
	free(state);
	if (out->failed)
		return base_fail(err, -ENOMEM, "state of network card %u", netvsp->options.index);
	return 0;
}

/* --- load --- */

static int check_configuration(const struct netvsp *netvsp, const struct netvsp_state *state,
			       struct base_error *err)
{
	const struct netvsp_control *control = &state->control;

	if (control->sub_count >= netvsp->queue_limit ||
	    (control->sub_request.is_set && control->sub_request.count >= netvsp->queue_limit) ||
	    (control->receive.is_set && control->receive.shares < control->sub_count + 1))
		return base_fail(err, -EINVAL, "network card %u: saved with %u queues, has %u",
				 netvsp->options.index, control->sub_count + 1,
				 netvsp->queue_limit);
	if (!netvsp->options.mac_spoofing && memcmp(state->mac, netvsp->options.mac, 6) != 0)
		return base_fail(err, -EINVAL,
				 "network card %u: saved with the address "
				 "%02x:%02x:%02x:%02x:%02x:%02x, not its own",
				 netvsp->options.index, state->mac[0], state->mac[1], state->mac[2],
				 state->mac[3], state->mac[4], state->mac[5]);
	return 0;
}

/* The sub-channels have to be on the bus before it takes its own state up. */
static int offer_saved(struct netvsp *netvsp, uint32_t count, struct base_error *err)
{
	for (uint32_t i = 1; i <= count; i++) {
		int rc = 0;

		if (netvsp->subs[i].channel != NULL)
			continue;
		atomic_store(&netvsp->subs[i].gone, false);
		netvsp->subs[i].retracted = false;
		rc = netvsp_offer(netvsp, i, &netvsp->subs[i].channel, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int card_load(void *service, uint32_t index, uint32_t version, struct base_reader *in,
		     struct base_error *err)
{
	struct netvsp *netvsp = service;
	BASE_FREE struct netvsp_state *state = NULL;
	int rc = 0;

	(void)index;
	if (version != NETVSP_STATE_VERSION)
		return base_fail(err, version == 0 ? -EBADMSG : -ENOTSUP,
				 "network card %u: state of version %u, known is %u",
				 netvsp->options.index, version, NETVSP_STATE_VERSION);
	state = calloc(1, sizeof(*state));
	if (state == NULL)
		return base_fail(err, -ENOMEM, "state of network card %u", netvsp->options.index);
	rc = netvsp_state_decode(in, state, err);
	if (rc == 0)
		rc = check_configuration(netvsp, state, err);
	if (rc == 0)
		rc = offer_saved(netvsp, state->control.sub_count, err);
	if (rc < 0)
		return rc;
	free(netvsp->loaded);
	netvsp->loaded = base_take(&state);
	return 0;
}

struct take_up {
	struct netvsp *netvsp;
	struct base_error *err;
	int rc;
};

static int take_up_buffer(struct netvsp *netvsp, const struct netvsp_state_buffer *saved,
			  struct netvsp_buffer **place, struct base_error *err)
{
	const struct netvsp_state *state = netvsp->loaded;
	struct netvsp_buffer *buffer = NULL;
	int rc = 0;

	if (!saved->is_set)
		return 0;
	rc = netvsp_buffer_new(netvsp, saved, &buffer, err);
	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < buffer->shares; i++) {
		struct netvsp_sections *sections = &buffer->sections[i];

		sections->free_count = 0;
		for (uint32_t n = sections->count; n > 0; n--) {
			const uint32_t section = sections->first + n - 1;

			if ((state->used[section / 64] >> (section % 64) & 1) != 0)
				sections->used[n - 1] = 1;
			else
				sections->free[sections->free_count++] = section;
		}
	}
	*place = buffer;
	return 0;
}

static void take_up_control(void *context)
{
	struct take_up *call = context;
	struct netvsp *netvsp = call->netvsp;
	const struct netvsp_state *state = netvsp->loaded;

	netvsp->control = state->control;
	atomic_store(&netvsp->filter, state->filter);
	atomic_store(&netvsp->offloads, state->offloads);
	atomic_store(&netvsp->mac, netvsp_mac_pack(state->mac));
	atomic_store(&netvsp->data_on, state->control.rndis_ready);
	if (!vmbus_channel_is_open(netvsp->primary)) {
		if (state->control.version != NVSP_VERSION_NONE)
			call->rc = base_fail(call->err, -EBADMSG,
					     "network card %u: set up, but its channel is not open",
					     netvsp->options.index);
		return;
	}
	call->rc = take_up_buffer(netvsp, &state->control.receive, &netvsp->receive, call->err);
	if (call->rc == 0)
		call->rc = take_up_buffer(netvsp, &state->control.send, &netvsp->send, call->err);
}

static void take_up_queue(void *context)
{
	struct netvsp_queue *queue = context;
	struct netvsp *netvsp = queue->netvsp;
	struct vmbus_channel *channel =
		queue->index == 0 ? netvsp->primary : netvsp->subs[queue->index].channel;

	if (channel != NULL && vmbus_channel_is_open(channel)) {
		queue->channel = channel;
		queue->waiting = netvsp->loaded->waiting[queue->index];
		queue->rx_on = true; /* what waits in the TAP device is for this guest */
		atomic_store(&queue->is_open, true);
		netvsp_queue_take_part(queue, true);
	}
	netvsp_queue_sync(queue);
}

static int card_loaded(void *service, struct base_error *err)
{
	struct netvsp *netvsp = service;
	struct take_up call = { .netvsp = netvsp, .err = err };

	if (netvsp->loaded == NULL)
		return 0; /* a state without this card */
	base_io_call(netvsp->queues[0].loop, take_up_control, &call);
	if (call.rc == 0)
		for_all_queues(netvsp, take_up_queue);
	free(netvsp->loaded);
	netvsp->loaded = NULL;
	return call.rc;
}

const struct hv_service_ops netvsp_service_ops = {
	.quiesce = card_quiesce,
	.resume = card_resume,
	.reset = card_reset,
	.section_count = card_section_count,
	.section = card_section,
	.save = card_save,
	.load = card_load,
	.loaded = card_loaded,
};
