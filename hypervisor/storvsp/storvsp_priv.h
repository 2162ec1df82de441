/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the storage service share.
 *
 * Who owns what:
 *   - a channel and its requests: the channel's loop;
 *   - a shard, one for each loop: that loop.  It has a copy of the table of units, so that a
 *     command takes no lock; the table is changed loop by loop, by who holds the control lock;
 *   - unit attentions and the state of a drive are the same for all channels: atomics;
 *   - the rest of the controller: the control lock.
 *
 * Invariants:
 *   S1  A request is in one place: a list of its channel, or at a disk (counted in at_disk of
 *       its channel and in_flight of its shard).
 *   S2  What is at a disk has its answer in the ring or in the outgoing list, or is parked, or its
 *       channel is closing, before it is counted out.
 *   S3  Nothing of a quiesced shard is at a disk once the quiesce has returned.
 */
#ifndef HYPERVISOR_STORVSP_STORVSP_PRIV_H
#define HYPERVISOR_STORVSP_STORVSP_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "hypervisor/storvsp/scsi.h"
#include "hypervisor/storvsp/storvsp.h"
#include "hypervisor/storvsp/vstor.h"
#include "hypervisor/vmbus/vmbus_channel.h"

#define STORVSP_CHANNELS_MAX   64u  /* primary and sub-channels */
#define STORVSP_REQUESTS       128u /* of one channel: beyond, the guest's ring is the queue */
#define STORVSP_TRANSFER_BYTES (1u << 20) /* what a guest may move with one command */
#define STORVSP_RUNS           257u       /* pages of that, when it begins inside of one */
#define STORVSP_BOUNCES        8u         /* of a channel, STORVSP_TRANSFER_BYTES each */
#define STORVSP_BATCH          64u        /* packets before others on the loop have their turn */
#define STORVSP_TRIES_MAX      16u        /* a disk that gives back unasked is at its end */
#define STORVSP_ALIGN          512u       /* what a disk wants of memory */

/* Contiguous guest memory. */
struct storvsp_run {
	uint64_t gpa;
	uint32_t length_bytes;
};

struct storvsp_request {
	struct storvsp_channel *channel;
	struct storvsp_request *next; /* of the list it is in */
	uint64_t trans_id;
	bool wants_completion;
	bool malformed;               /* its page list */
	bool gone;                    /* its unit was taken out since it came */
	uint8_t message[VSTOR_BYTES]; /* as it came */
	uint8_t answer[VSTOR_BYTES];
	uint32_t run_count;
	uint64_t run_bytes;

	/* From its planning on. */
	struct vstor_srb srb;
	struct scsi_unit unit;
	struct scsi_command command;
	struct scsi_plan plan;
	struct disk *disk;
	uint64_t step; /* ranges or bytes that are over */
	int result;
	uint32_t tries;
	uint8_t *bounce;
	uint32_t window_count;
	struct disk_request io;
	struct base_io_task task;

	uint8_t *data; /* SCSI_DATA_BYTES */
	struct storvsp_run runs[STORVSP_RUNS];
	struct iovec iov[STORVSP_RUNS];
	struct hv_slat_window windows[STORVSP_RUNS];
};

struct storvsp_list {
	struct storvsp_request *head;
	struct storvsp_request *tail;
};

enum storvsp_channel_state {
	STORVSP_CLOSED,
	STORVSP_OPEN,
	STORVSP_CLOSING, /* the guest has closed it; something of it is at a disk */
};

enum storvsp_offer_state {
	STORVSP_NOT_OFFERED,
	STORVSP_OFFERED,
	STORVSP_RETRACTED, /* gone() comes */
};

struct storvsp_channel {
	struct storvsp *storvsp;
	struct storvsp_shard *shard;
	uint32_t index;               /* 0: the primary one */
	_Atomic uint32_t offer_state; /* enum storvsp_offer_state */
	struct vmbus_channel *offer;  /* whoever offers: the primary's loop, or control */

	/* The channel's loop. */
	struct vmbus_channel *bus; /* while it is open */
	enum storvsp_channel_state state;
	struct storvsp_request *requests;
	uint8_t *memory; /* data of the requests, then bounce buffers */
	struct storvsp_list unused;
	struct storvsp_list parked;   /* to be begun when nothing is given back any more */
	struct storvsp_list bouncing; /* to be begun when a bounce buffer is free */
	struct storvsp_list outgoing; /* answers for which the ring had no room */
	uint8_t *bounces[STORVSP_BOUNCES];
	uint32_t bounce_count; /* free ones */
	uint32_t at_disk;
	struct disk *gave_back[STORVSP_LUNS]; /* while it is closing */
	bool starved;                         /* it stopped receiving for want of a request */
	bool unflushed;
	bool flush_posted;
	struct base_io_task flush_task;
	struct base_io_task unpark_task;
	atomic_bool unpark_posted;
};

#define STORVSP_ALL_LUNS UINT32_MAX

struct storvsp_drain {
	struct storvsp_shard *shard;
	uint32_t lun; /* or ALL */
	bool done;
	struct storvsp_drain *next;
};

/* What one loop knows and counts. */
struct storvsp_shard {
	struct storvsp *storvsp;
	struct base_io_loop *loop;
	bool quiesced;
	struct storvsp_medium units[STORVSP_LUNS]; /* id filled in */
	uint64_t luns;                             /* those that there are, a bit each */
	struct storvsp_lun_status counts[STORVSP_LUNS];
	uint32_t in_flight; /* of all units: counts[].in_flight has each */
	struct storvsp_drain *drains;
};

enum storvsp_protocol {
	STORVSP_IDLE,
	STORVSP_BEGUN,
	STORVSP_VERSIONED,
	STORVSP_READY,
	STORVSP_PROTOCOLS
};

/* State of a drive, the same for all channels. */
#define STORVSP_EJECTED 1u
#define STORVSP_LOCKED  2u
#define STORVSP_SEEN    4u
/* The guest knew a unit here that was taken out, and may still take what is here now for it: until
 * it has been told so, and asks for an identity anew, nothing of it gets to another unit. */
#define STORVSP_VACATED 8u
#define STORVSP_TOLD    16u
#define STORVSP_DRIVE   31u /* all of them */

#define STORVSP_TELL_REMOVE    1u
#define STORVSP_TELL_ENUMERATE 2u

struct storvsp {
	struct storvsp_options options;
	char name[16];
	struct storvsp_shard shards[STORVSP_LOOPS_MAX];
	struct storvsp_channel channels[STORVSP_CHANNELS_MAX];
	uint32_t sub_max; /* sub-channels that may be created */

	_Atomic uint32_t protocol; /* enum storvsp_protocol; written on the primary's loop */
	_Atomic uint32_t version;
	_Atomic uint32_t sub_count; /* created */
	_Atomic uint32_t attention[STORVSP_LUNS];
	_Atomic uint32_t drive[STORVSP_LUNS]; /* STORVSP_EJECTED... */
	_Atomic uint32_t giving_back;         /* somebody has asked a disk to give back */
	_Atomic uint32_t complained;          /* kinds of complaints that were logged */

	_Atomic uint32_t tell; /* STORVSP_TELL_...: still to be sent */
	struct base_io_task tell_task;
	atomic_bool tell_posted;

	pthread_mutex_t control_lock;
	struct storvsp_medium units[STORVSP_LUNS];
	bool quiesced;
	uint8_t *saved; /* between load() and loaded() */
	size_t saved_bytes;
};

/* --- lists --- */

void storvsp_list_add(struct storvsp_list *list, struct storvsp_request *request);
struct storvsp_request *storvsp_list_take(struct storvsp_list *list); /* the first, or NULL */

/* --- storvsp.c --- */

enum storvsp_complaint {
	STORVSP_BAD_PACKET,
	STORVSP_BAD_ORDER,
	STORVSP_BAD_SRB,
	STORVSP_COMPLAINTS
};
/* Once per kind: the guest did something wrong. */
void storvsp_complain(struct storvsp *storvsp, enum storvsp_complaint kind, const char *what);
/* Tell the guest, soon, when it listens.  Any thread. */
void storvsp_tell(struct storvsp *storvsp, uint32_t what);
/* Everything parked is begun.  Any thread. */
void storvsp_unpark_all(struct storvsp *storvsp);
/* Control: wait until nothing of @lun (or of all units) is at a disk. */
void storvsp_drain(struct storvsp *storvsp, uint32_t lun);

/* --- storvsp_channel.c: the channel's loop --- */

extern const struct vmbus_channel_ops storvsp_channel_ops;
int storvsp_channel_offer(struct storvsp_channel *channel, struct base_error *err); /* any thread */
void storvsp_channel_init(struct storvsp_channel *channel);
/* Memory of its requests: -ENOMEM. */
int storvsp_channel_memory(struct storvsp_channel *channel);
/* Put the answer into the ring, or into the queue for it; and the request is over. */
void storvsp_channel_answer(struct storvsp_request *request);
void storvsp_channel_release(struct storvsp_request *request); /* over, without an answer */
/* Its rings were malformed when it was to be taken up after a restore. */
bool storvsp_channel_is_lost(const struct storvsp_channel *channel);
/* The sub-channels go with the primary one. */
void storvsp_channel_retract_subs(struct storvsp *storvsp);
/* What waits of @lun is for a unit that is not there any more. */
void storvsp_channel_gone(struct storvsp_channel *channel, uint32_t lun);
/* Nothing of a closing channel is at a disk any more. */
void storvsp_channel_closed(struct storvsp_channel *channel);
void storvsp_channel_drop(struct storvsp_channel *channel); /* all that waits */
void storvsp_channel_flush(struct storvsp_channel *channel);
void storvsp_tell_now(struct storvsp *storvsp); /* the primary's loop */

/* --- storvsp_request.c: the channel's loop --- */

void storvsp_request_begin(struct storvsp_request *request);
void storvsp_request_retry_bounce(struct storvsp_channel *channel);

/* --- storvsp_data.c: the channel's loop --- */

/* Take over the packet's page list; sets malformed. */
void storvsp_data_take(struct storvsp_request *request, const struct vmbus_packet *packet);
enum storvsp_data {
	STORVSP_DATA_READY,
	STORVSP_DATA_NO_BOUNCE,
	STORVSP_DATA_FAULT
};
/* The iovec of a READ or WRITE: the guest's pages, or a bounce buffer. */
enum storvsp_data storvsp_data_map(struct storvsp_request *request);
/* The disk is done with it. */
void storvsp_data_unmap(struct storvsp_request *request, bool well);
/* Between plan.data and the guest's pages; -EFAULT. */
int storvsp_data_get(struct storvsp_request *request, uint32_t size_bytes);
int storvsp_data_put(struct storvsp_request *request, uint32_t size_bytes);

/* --- storvsp_state.c: control --- */

extern const struct hv_service_section storvsp_section;
int storvsp_state_save(struct storvsp *storvsp, struct base_buffer *out, struct base_error *err);
/* Pure: is it one that storvsp_state_apply() can take?  Changes nothing. */
int storvsp_state_check(const struct storvsp *storvsp, struct base_reader *in,
			struct base_error *err);
/* What belongs to no channel; and, when the channels are open again, what does. */
int storvsp_state_apply(struct storvsp *storvsp, struct base_error *err);
int storvsp_state_apply_requests(struct storvsp *storvsp, struct base_error *err);

#endif
