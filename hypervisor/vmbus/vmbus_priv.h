/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus and its channels from inside.
 *
 * Who owns what: the connection, the state of each channel as the guest knows it, and the page
 * lists belong to the bus's loop.  Rings and callbacks belong to the channel's loop.  The two talk
 * by bits: bus to channel (enum channel_command), channel to bus (enum channel_news), each set at
 * most once at a time and carried by one embedded task.  bus->lock, a leaf, guards the list of
 * channels, the list of page lists and the incoming queue; it is held for a few instructions.
 *
 * A vCPU that signals finds a port by number.  Ports live as long as the bus; a port that is
 * queued pins its channel: it is freed only after the task has run (port_state).
 */
#ifndef HYPERVISOR_VMBUS_VMBUS_PRIV_H
#define HYPERVISOR_VMBUS_VMBUS_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/bytes.h"
#include "base/log.h"
#include "hypervisor/vmbus/vmbus.h"
#include "hypervisor/vmbus/vmbus_channel.h"
#include "hypervisor/vmbus/vmbus_gpadl.h"
#include "hypervisor/vmbus/vmbus_packet_priv.h"
#include "hypervisor/vmbus/vmbus_proto.h"
#include "hypervisor/vmbus/vmbus_ring.h"

#define VMBUS_CHANNELS_MAX       VMBUS_RELID_MAX
#define VMBUS_LOOPS_MAX          64u /* I/O threads of one worker; it has a few */
/* Messages of the guest that wait; more get HV_STATUS_INSUFFICIENT_BUFFERS. */
#define VMBUS_IN_MAX             64u
/* Messages handled in a row before others on the loop have their turn: many vCPUs can post as fast
 * as one loop takes. */
#define VMBUS_IN_TURN            16u
/* Answers that wait for the guest before we stop taking its messages. */
#define VMBUS_OUT_PAUSE          64u
/* What can wait at most: the above, an offer twice, a retraction and an open result per channel,
 * and each page list torn down; no message is ever lost for want of room. */
#define VMBUS_OUT_MAX            16384u
/* Quiescing handles what came in whatever waits, but not without end: a guest that is stopped time
 * and again and never takes an answer would fill the queue. */
#define VMBUS_OUT_QUIET          2048u
#define VMBUS_GPADLS_MAX         4096u
#define VMBUS_GPADL_PAGES_MAX    (1u << 20) /* 4 GiB of the guest; 8 MiB of ours */
#define VMBUS_NAME_BYTES         24u
/* Signals go to this connection id plus the relid. */
#define VMBUS_CONNECTION_CHANNEL 0x10000u
/* Calls of ready() in a row before others on the loop have their turn. */
#define VMBUS_READY_TURNS        4u

/* Lines of one kind that a guest can cause in a second. */
#define VMBUS_LOG_LINES 4u

enum vmbus_log_kind {
	VMBUS_LOG_REFUSED,
	VMBUS_LOG_CONTACT,
	VMBUS_LOG_BROKEN,
	VMBUS_LOG_KINDS
};

enum port_state {
	PORT_LIVE = 1,   /* signals are taken */
	PORT_QUEUED = 2, /* its task is on its way to the loop */
};

struct vmbus_port {
	_Atomic uint32_t state; /* enum port_state bits; 0: free when channel is NULL */
	struct base_io_task task;
	struct base_io_loop *loop;
	_Atomic(struct vmbus_channel *) channel;
};

enum channel_command { /* bus to channel */
	COMMAND_OPEN = 1 << 0,
	COMMAND_CLOSE = 1 << 1,
	COMMAND_MODIFY = 1 << 2,
	COMMAND_KICK = 1 << 3, /* after a resume */
	COMMAND_GONE = 1 << 4,
};

enum channel_news { /* channel to bus */
	NEWS_OPENED = 1 << 0,
	NEWS_BROKEN = 1 << 1,
	NEWS_MODIFIED = 1 << 2,
	NEWS_CLOSED = 1 << 3,
	NEWS_RETRACT = 1 << 4,
	NEWS_OFFER = 1 << 5,
};

enum channel_state { /* the bus's view */
	CHANNEL_OFFERED = 1,
	CHANNEL_OPENING,
	CHANNEL_OPEN,
	CHANNEL_CLOSING,
};

struct vmbus_channel {
	struct vmbus *bus;
	struct vmbus_channel *next; /* bus->lock */
	struct disk_guid type;
	struct disk_guid instance;
	uint16_t sub_index;
	uint16_t flags;
	uint16_t mmio_megabytes;
	uint8_t user_defined[VMBUS_USER_DATA_BYTES];
	char name[VMBUS_NAME_BYTES];
	struct base_io_loop *loop; /* NULL: saved, and not claimed by a device */
	const struct vmbus_channel_ops *ops;
	void *device;

	_Atomic uint32_t commands;
	_Atomic uint32_t news;
	struct base_io_task command_task;
	struct base_io_task news_task;

	/* The bus's loop. */
	enum channel_state state;
	uint32_t relid;    /* 0: never offered yet; kept until it is gone */
	bool known;        /* offered to the guest in this connection */
	bool released;     /* RELID_RELEASED came while it was closing */
	bool saved_open;   /* of a saved state, open there, not claimed by its device yet */
	bool guest_open;   /* it opened it and has not closed it yet */
	bool close_wanted; /* while it is opening */
	bool retracted;
	bool rescinded;         /* the guest was told */
	bool hopping;           /* an open or a modification is on the channel's loop */
	struct vmbus_open open; /* also read by the channel's loop while opening */
	uint32_t modify_vp;
	bool modify_again;
	struct vmbus_gpadl *ring_gpadl; /* a reference, while not OFFERED */

	/* The channel's loop. */
	struct vmbus_port *port;
	atomic_bool is_open;
	bool closing; /* closing() was called, vmbus_channel_closed() not yet */
	bool broken;
	bool in_ready;
	bool drained;        /* the last look found the ring empty */
	bool dying;          /* gone() is next, when the port is idle */
	atomic_bool freeing; /* its device ends: no callback any more */
	int open_code;
	uint32_t vp;
	struct vmbus_ring in;
	struct vmbus_ring out;
	uint8_t *packet;                  /* VMBUS_PACKET_BYTES_MAX, while open */
	_Atomic uint64_t signal_count;    /* from the guest */
	_Atomic uint64_t interrupt_count; /* to the guest */
	_Atomic uint64_t ready_count;
};

struct vmbus {
	struct hv_slat *slat;
	struct hv_synic *synic;
	struct base_io_loop *loop;
	uint32_t vcpu_count;
	const char *vm_name;

	pthread_mutex_t lock; /* a leaf */
	struct vmbus_channel *channels;
	uint32_t channel_count;
	struct vmbus_gpadl *gpadls;
	uint32_t gpadl_count;
	uint32_t gpadl_pages;
	struct base_io_loop *loops[VMBUS_LOOPS_MAX]; /* only grows */
	uint32_t loop_count;
	struct vmbus_host_message in[VMBUS_IN_MAX];
	uint32_t in_head;
	uint32_t in_count;
	bool in_queued; /* in_task is on its way: not to be queued twice */
	struct base_log_rate logs[VMBUS_LOG_KINDS];

	struct base_io_task in_task;
	struct base_io_task room_task;
	atomic_bool room_queued;
	atomic_bool quiet; /* between quiesce and resume */
	/* A device ends: the machine, and the SynIC with it, may be gone.  Until a guest is heard.
	 */
	atomic_bool muted;

	/* The bus's loop. */
	bool connected;
	bool resetting; /* the old connection's accesses have not all ended */
	bool offers_requested;
	bool contact_waits; /* answer @contact when the reset is done */
	bool unload_waits;
	struct vmbus_contact contact; /* version and VP of the connection, or of the one to come */
	struct vmbus_channel *by_relid[VMBUS_RELID_MAX + 1];
	struct vmbus_host_message *out; /* VMBUS_OUT_MAX of them, a ring */
	uint32_t out_head;
	uint32_t out_count;
	uint32_t hop_count;   /* channels that are hopping */
	uint32_t close_count; /* channels that are CLOSING */
	bool settled_wanted;
	bool settled;
	bool taking_up;   /* bus->lock: loaded, not resumed: channels wait for their devices */
	bool memory_back; /* bus->lock: and guest memory is in place */

	_Atomic uint64_t message_count;
	_Atomic uint64_t signal_count;
	_Atomic uint64_t interrupt_count;
	_Atomic uint64_t refused_count;

	struct vmbus_port ports[VMBUS_RELID_MAX + 1];
};

/* vmbus.c: queues.  The bus's loop. */
void vmbus_post(struct vmbus *bus, const struct vmbus_host_message *message);
void vmbus_pump_out(struct vmbus *bus);
void vmbus_take_all(struct vmbus *bus); /* messages of the guest, whatever waits for it */
/* Whether one more line of that kind may be written now: few a second.  Any loop. */
bool vmbus_may_log(struct vmbus *bus, enum vmbus_log_kind kind);
/* One line, few a second; any loop. */
void vmbus_refuse(struct vmbus *bus, const char *what, const char *format, ...) BASE_PRINTF(3, 4);
/* Wait until what was posted to @loop before has run.  No loop's thread, or the owner of one that
 * was not started. */
void vmbus_settle(struct base_io_loop *loop);
void vmbus_settle_all(struct vmbus *bus); /* every loop, and the bus's after it */
void vmbus_take_some(struct vmbus *bus);
struct vmbus_channel *vmbus_channel_new(struct vmbus *bus); /* NULL: no memory */

/* vmbus_connection.c.  The bus's loop. */
void vmbus_channel_settled(struct vmbus_channel *channel); /* an orphan or closed one may go */
void vmbus_forget(struct vmbus_channel *channel);          /* out of all the bus's tables */
void vmbus_handle(struct vmbus *bus, const uint8_t *bytes, uint32_t size_bytes);
void vmbus_news(struct base_io_task *task);
void vmbus_start_reset(struct vmbus *bus);
void vmbus_reset_step(struct vmbus *bus); /* goes on when nothing is in flight any more */
void vmbus_gpadl_unused(void *context, struct vmbus_gpadl *gpadl);
bool vmbus_version_is_served(uint32_t version);
void vmbus_offer_to_guest(struct vmbus_channel *channel);
void vmbus_rescind(struct vmbus_channel *channel);
bool vmbus_assign(struct vmbus_channel *channel, uint32_t relid);     /* 0: any that is free */
struct vmbus_gpadl *vmbus_find_gpadl(struct vmbus *bus, uint32_t id); /* bus->lock held */
void vmbus_link_gpadl(struct vmbus *bus, struct vmbus_gpadl *gpadl);
/* The first channel; the bus's loop may follow next from it without the lock. */
struct vmbus_channel *vmbus_first(struct vmbus *bus);

/* vmbus_channel.c. */
void vmbus_channel_command(struct vmbus_channel *channel, enum channel_command command);
void vmbus_channel_tell(struct vmbus_channel *channel, enum channel_news news); /* any thread */
void vmbus_channel_commands(struct base_io_task *task);
bool vmbus_port_notify(struct vmbus_port *port); /* false: nobody is there */
void vmbus_port_run(struct base_io_task *task);
/* The channel's loop: rings over the pages given at opening. */
int vmbus_channel_start(struct vmbus_channel *channel);
void vmbus_channel_destroy(struct vmbus_channel *channel); /* memory only */

void vmbus_port_open(struct vmbus_channel *channel); /* signals are taken */

/* vmbus_state.c. */
struct vmbus_channel *vmbus_find_key(struct vmbus *bus, const struct vmbus_offer *offer,
				     bool waiting); /* bus->lock held */

#endif
