/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a network card.
 *
 * Who owns what: a queue (its channel, its TAP descriptor, the sections of the receive buffer
 * that are its) lives on its own loop.  Control (versions, buffers, RNDIS, sub-channels) lives on
 * the loop of queue 0.  What control decides reaches the queues in two ways: single values are
 * atomics, and buffers are immutable, counted, and handed over under path_lock; a queue looks
 * again (sync) when it is kicked and before it receives.
 *
 * A buffer is let go of when no queue has it any more; only then is the primary channel closed,
 * or the guest's page list given back.
 */
#ifndef HYPERVISOR_NETVSP_NETVSP_PRIV_H
#define HYPERVISOR_NETVSP_NETVSP_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "hypervisor/netvsp/netvsp.h"
#include "hypervisor/netvsp/netvsp_frame.h"
#include "hypervisor/netvsp/netvsp_state.h"
#include "hypervisor/netvsp/nvsp_message.h"
#include "hypervisor/netvsp/rndis_message.h"
#include "hypervisor/netvsp/rndis_oid.h"
#include "hypervisor/slat.h"
#include "hypervisor/vmbus/vmbus_channel.h"

#define NETVSP_PACKETS_PER_TURN  256u /* then others on the loop have theirs */
#define NETVSP_FRAMES_PER_TURN   64u
#define NETVSP_STALE_FRAMES_MAX  2048u /* twice what a TAP queue holds by default */
#define NETVSP_ANNOUNCEMENTS     6u
#define NETVSP_RETRY_NS          BASE_NS_PER_SECOND /* after a TAP device gave an error */
#define NETVSP_RECEIVE_BYTES_MAX (NETVSP_MTU_MAX + NETVSP_ETHERNET_BYTES + NETVSP_VLAN_BYTES)

/* The sections of a receive buffer that one queue uses.  On that queue's loop. */
struct netvsp_sections {
	uint32_t first, count;
	uint32_t free_count;
	uint32_t *free; /* a stack */
	uint8_t *used;  /* by number - first: given to the guest and not completed */
};

/* A receive or a send buffer.  Immutable but for the sections and the count. */
struct netvsp_buffer {
	_Atomic uint32_t refs;
	struct netvsp *netvsp;
	struct vmbus_gpadl *gpadl;
	uint32_t generation; /* of a receive buffer: in the transaction ids of what it carries */
	uint16_t id;
	uint32_t section_bytes, section_count;
	uint32_t shares; /* queues that a receive buffer is divided among; 0: a send buffer */
	struct netvsp_sections sections[NETVSP_QUEUES_MAX];
};

struct netvsp_queue {
	struct netvsp *netvsp;
	uint32_t index;
	struct base_io_loop *loop;
	int tap_fd;
	struct vmbus_channel *channel; /* while it is open; else NULL */
	bool quiet;                    /* quiesced */

	struct netvsp_buffer *receive;
	struct netvsp_buffer *send;
	struct base_io_task sync_task;
	atomic_bool sync_posted;

	struct netvsp_completion waiting; /* for room in the ring; nothing is received until then */

	/* Receiving. */
	bool rx_on;      /* the guest takes frames: before that, what the TAP device held is old */
	bool rx_held;    /* a frame is in its section, and waits for room in the ring */
	bool rx_pending; /* rx_task is posted */
	bool rx_waiting; /* for the TAP device to be readable */
	bool rx_error_told;
	uint32_t held_section, held_bytes;
	struct base_io_task rx_task;
	struct base_io_completion poll_done;
	struct base_io_completion cancel_done;
	bool cancel_waiting;
	bool idle; /* set when neither is in the ring, for who ends the card */
	struct base_io_timer retry;
	uint8_t rx_vnet[NETVSP_VNET_BYTES];
	uint8_t rx_frame[NETVSP_RECEIVE_BYTES_MAX + 1]; /* one more, so that too long shows */

	struct netvsp_tx_frame tx;

	atomic_bool is_open;
	_Atomic uint64_t rx_frames, rx_bytes, rx_dropped;
	_Atomic uint64_t tx_frames, tx_bytes, tx_dropped, tx_spoofed;
	uint64_t told_mask; /* bits of enum netvsp_complaint that were logged */
};

struct netvsp_poller;

struct netvsp_sub {
	struct vmbus_channel *channel; /* until it is gone */
	bool retracted;
	atomic_bool gone;
};

struct netvsp {
	struct netvsp_options options;
	uint32_t queue_limit; /* queues there can be */
	struct netvsp_queue *queues;
	struct vmbus_channel *primary;
	struct netvsp_poller *poller; /* NULL: every loop has a ring */

	/* For all queues. */
	_Atomic uint32_t filter;
	_Atomic uint64_t mac;
	_Atomic uint32_t offloads;
	atomic_bool link_up;
	atomic_bool data_on; /* RNDIS is initialised */
	_Atomic uint32_t live_buffers;
	pthread_mutex_t path_lock; /* a leaf: the two pointers */
	struct netvsp_buffer *receive;
	struct netvsp_buffer *send;

	/* Control: on the loop of queue 0. */
	struct netvsp_control control;
	struct netvsp_sub subs[NETVSP_QUEUES_MAX]; /* [0] is not used */
	bool closing;
	struct netvsp_state *loaded;      /* a saved state that loaded() is to take up */
	struct base_io_task control_task; /* buffers or sub-channels are gone */
	atomic_bool control_posted;
	struct base_io_task announce_task;
	atomic_bool announce_posted;
	struct base_io_timer announce_timer;
	uint32_t announce_step;
	struct base_io_task link_task;
	atomic_bool link_posted;
	atomic_bool link_wanted;
	uint8_t control_bytes[RNDIS_CONTROL_BYTES_MAX];
};

/* What a guest can do wrong; each kind is logged once per queue and life. */
enum netvsp_complaint {
	NETVSP_COMPLAINT_MESSAGE,
	NETVSP_COMPLAINT_RNDIS,
	NETVSP_COMPLAINT_FRAME,
	NETVSP_COMPLAINT_SPOOFED,
	NETVSP_COMPLAINT_COMPLETION,
};
void netvsp_complain(struct netvsp_queue *queue, enum netvsp_complaint kind,
		     const struct base_error *why);

static inline void netvsp_count(_Atomic uint64_t *counter, uint64_t by)
{
	atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}
uint64_t netvsp_mac_pack(const uint8_t mac[6]);
void netvsp_mac_unpack(uint64_t packed, uint8_t ret_mac[6]);
bool netvsp_may_send(const struct netvsp *netvsp);

/* --- netvsp_buffer.c --- */

/* -ENOENT no such list; -EINVAL too small; -ENOMEM.  On the loop of queue 0. */
BASE_MUST_CHECK int netvsp_buffer_new(struct netvsp *netvsp, const struct netvsp_state_buffer *from,
				      struct netvsp_buffer **ret_buffer, struct base_error *err);
void netvsp_buffer_unref(struct netvsp_buffer *buffer); /* any thread; NULL is fine */
/* Put @buffer (taken, may be NULL) in the place of what @place holds, and kick the queues. */
void netvsp_buffer_publish(struct netvsp *netvsp, struct netvsp_buffer **place,
			   struct netvsp_buffer *buffer);
/* A free section of the queue's, at least @spare left; false: none. */
bool netvsp_section_take(struct netvsp_buffer *buffer, uint32_t queue, uint32_t spare,
			 uint32_t *ret_section);
void netvsp_section_give(struct netvsp_buffer *buffer, uint32_t queue, uint32_t section);
/* A completion of the guest; false: it names nothing that the guest has. */
bool netvsp_section_complete(struct netvsp_buffer *buffer, uint32_t queue, uint64_t trans_id);
/* Sections of queue 0 that frames leave for control messages. */
uint32_t netvsp_section_spare(const struct netvsp_buffer *buffer, uint32_t queue);

/* --- netvsp_queue.c --- */

extern const struct vmbus_channel_ops netvsp_channel_ops;
int netvsp_offer(struct netvsp *netvsp, uint32_t index, struct vmbus_channel **ret_channel,
		 struct base_error *err);
void netvsp_queue_init(struct netvsp_queue *queue);
/* Any thread: the queue looks again at what control has published. */
void netvsp_queue_kick(struct netvsp_queue *queue);
void netvsp_queue_sync(struct netvsp_queue *queue);
/* The queue's channel is open, or not: whether the TAP device gives it frames. */
void netvsp_queue_take_part(struct netvsp_queue *queue, bool takes_part);
/* On its loop: send what waits; false while something still does. */
bool netvsp_queue_flush(struct netvsp_queue *queue);
/* Complete a packet of the guest, now or when there is room; at most one waits. */
void netvsp_queue_complete(struct netvsp_queue *queue, uint64_t trans_id,
			   const uint8_t payload[NVSP_MESSAGE_BYTES]);
/* A filled section to the guest.  0; -EAGAIN no room; -EPIPE. */
BASE_MUST_CHECK int netvsp_queue_send_section(struct netvsp_queue *queue, uint32_t section,
					      uint32_t size_bytes, bool is_control);

/* --- netvsp_tx.c --- */

/* An RNDIS packet of the guest: frames out, control requests to control.  The status for its
 * completion. */
enum nvsp_status netvsp_transmit(struct netvsp_queue *queue, const struct vmbus_packet *packet,
				 const struct nvsp_request *request);
/* One frame with its header, if the gate is open. */
void netvsp_write(struct netvsp_queue *queue, const struct iovec *pieces, uint32_t count,
		  uint32_t frame_bytes);

/* --- netvsp_rx.c --- */

void netvsp_rx_init(struct netvsp_queue *queue);
void netvsp_rx_update(struct netvsp_queue *queue); /* something changed: look, and wait again */
void netvsp_rx_drop_held(struct netvsp_queue *queue);
/* Nothing of the queue is in the ring or on its timers any more.  Not on a loop's thread. */
void netvsp_rx_end(struct netvsp_queue *queue);
bool netvsp_rx_send_held(struct netvsp_queue *queue); /* false: still no room */

/* --- netvsp_tap.c --- */

/* Whether the kernel gives frames to this queue of a device: it spreads flows over all that take
 * part, so one that nobody reads must not.  Frames that it holds are lost when it leaves.  Waits
 * for the kernel's network configuration lock, which others hold for moments.  0; -errno. */
BASE_MUST_CHECK int netvsp_tap_take_part(int tap_fd, bool takes_part);

/* --- netvsp_poller.c: for loops without a ring --- */

BASE_MUST_CHECK int netvsp_poller_new(struct netvsp_poller **ret_poller, struct base_error *err);
void netvsp_poller_free(struct netvsp_poller *poller);
/* Post @task to @loop when @fd is readable; once.  Any thread; @slot is below NETVSP_QUEUES_MAX and
 * has one wait at a time. */
void netvsp_poller_wait(struct netvsp_poller *poller, uint32_t slot, int fd,
			struct base_io_loop *loop, struct base_io_task *task);

/* --- netvsp_control.c: on the loop of queue 0 --- */

void netvsp_control_init(struct netvsp *netvsp);
void netvsp_control_reset(struct netvsp *netvsp);
/* A message that is no RNDIS packet. */
void netvsp_control_message(struct netvsp *netvsp, const struct vmbus_packet *packet,
			    const struct nvsp_request *request);
/* An RNDIS control request, already private. */
enum nvsp_status netvsp_control_request(struct netvsp *netvsp, const uint8_t *bytes,
					uint32_t size_bytes);
/* False: the guest's driver is not there, or takes no answers for now. */
bool netvsp_control_indicate(struct netvsp *netvsp, uint32_t status);
bool netvsp_control_flush(struct netvsp *netvsp); /* false: something still waits */
void netvsp_control_kick(struct netvsp *netvsp);  /* any thread: look for what is gone */
void netvsp_control_gone(struct netvsp *netvsp);

/* --- netvsp_announce.c --- */

void netvsp_announce_init(struct netvsp *netvsp);
void netvsp_announce_end(struct netvsp *netvsp); /* on the loop of queue 0 */

#endif
