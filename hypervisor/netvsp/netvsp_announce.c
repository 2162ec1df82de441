/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling others where the guest is, and the guest that its link has changed.
 *
 * On the loop of queue 0; asked for from any thread.
 */
#include "base/log.h"
#include "hypervisor/netvsp/netvsp_priv.h"

/* From one announcement to the next. */
static const uint64_t pauses_ms[NETVSP_ANNOUNCEMENTS - 1] = { 50, 150, 250, 350, 450 };

static void send_rarp(struct netvsp *netvsp)
{
	struct netvsp_queue *queue = &netvsp->queues[0];
	uint8_t vnet[NETVSP_VNET_BYTES] = { 0 };
	uint8_t frame[NETVSP_RARP_BYTES];
	uint8_t mac[6];
	const struct iovec pieces[2] = { { vnet, sizeof(vnet) }, { frame, sizeof(frame) } };

	netvsp_mac_unpack(atomic_load(&netvsp->mac), mac);
	netvsp_rarp(frame, mac);
	netvsp_write(queue, pieces, 2, sizeof(frame));
}

static void announce_next(struct netvsp *netvsp)
{
	struct base_io_loop *loop = netvsp->queues[0].loop;

	if (!netvsp->queues[0].quiet) /* about to be saved, and perhaps left */
		send_rarp(netvsp);
	if (netvsp->announce_step < NETVSP_ANNOUNCEMENTS - 1)
		base_io_timer_arm(loop, &netvsp->announce_timer,
				  base_io_loop_now_ns(loop) +
					  pauses_ms[netvsp->announce_step] * BASE_NS_PER_MS);
	netvsp->announce_step++;
}

static void announce_expired(struct base_io_timer *timer)
{
	announce_next((struct netvsp *)((char *)timer - offsetof(struct netvsp, announce_timer)));
}

static void push_indications(struct netvsp *netvsp)
{
	struct netvsp_queue *queue = &netvsp->queues[0];

	if (queue->channel == NULL || queue->quiet)
		return; /* with the rest, when it goes on */
	(void)netvsp_queue_flush(queue);
	vmbus_channel_flush(queue->channel);
}

static void announce_run(struct base_io_task *task)
{
	struct netvsp *netvsp =
		(struct netvsp *)((char *)task - offsetof(struct netvsp, announce_task));

	atomic_store(&netvsp->announce_posted, false);
	base_io_timer_disarm(netvsp->queues[0].loop, &netvsp->announce_timer);
	netvsp->announce_step = 0;
	announce_next(netvsp);
	/* A connect without a disconnect: Linux answers it with gratuitous ARP and unsolicited
	 * neighbour advertisements at once.  RNDIS_STATUS_NETWORK_CHANGE would make it take its
	 * carrier away for two seconds first, which is an outage where none has to be. */
	if (atomic_load(&netvsp->link_up) && netvsp->control.link_shown)
		(void)netvsp_control_indicate(netvsp, RNDIS_STATUS_MEDIA_CONNECT);
	push_indications(netvsp);
}

void netvsp_announce(struct netvsp *netvsp)
{
	if (!atomic_exchange(&netvsp->announce_posted, true))
		base_io_post(netvsp->queues[0].loop, &netvsp->announce_task);
}

static void link_run(struct base_io_task *task)
{
	struct netvsp *netvsp =
		(struct netvsp *)((char *)task - offsetof(struct netvsp, link_task));
	bool up = false;

	atomic_store(&netvsp->link_posted, false);
	up = atomic_load(&netvsp->link_wanted);
	if (up != atomic_load(&netvsp->link_up)) {
		atomic_store(&netvsp->link_up, up);
		base_log(BASE_LOG_NOTICE, "net.link", "vm=%s card=%u up=%d",
			 base_log_str(netvsp->options.vm_name), netvsp->options.index, up);
		for (uint32_t i = 0; i < netvsp->queue_limit; i++)
			netvsp_queue_kick(&netvsp->queues[i]);
	}
	push_indications(netvsp); /* shows it */
}

void netvsp_set_link(struct netvsp *netvsp, bool up)
{
	atomic_store(&netvsp->link_wanted, up);
	if (!atomic_exchange(&netvsp->link_posted, true))
		base_io_post(netvsp->queues[0].loop, &netvsp->link_task);
}

void netvsp_announce_init(struct netvsp *netvsp)
{
	netvsp->announce_task.run = announce_run;
	netvsp->announce_timer.expired = announce_expired;
	netvsp->link_task.run = link_run;
}

void netvsp_announce_end(struct netvsp *netvsp)
{
	base_io_timer_disarm(netvsp->queues[0].loop, &netvsp->announce_timer);
}
