/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One VMBus channel as a device (VSP) sees it: offered, opened by the guest, packets both
 * ways, closed.
 *
 * All callbacks come on the channel's loop, and all calls belong to it, unless said otherwise.
 * Packets are copied out of the ring before anything in them is looked at.
 *
 * Life:  offered -> opened() -> ready()... -> closing() -> vmbus_channel_closed() -> offered
 * A channel that is retracted goes: RESCIND to the guest, closing() if it was open, the guest
 * releases its number, gone().
 */
#ifndef HYPERVISOR_VMBUS_VMBUS_CHANNEL_H
#define HYPERVISOR_VMBUS_VMBUS_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/io_loop.h"
#include "hypervisor/disk/guid.h"
#include "hypervisor/slat.h"

struct vmbus;
struct vmbus_channel;
struct vmbus_gpadl;

#define VMBUS_USER_DATA_BYTES  120u
/* The largest packet we take: 16 MiB of page numbers and a bit; larger breaks the channel. */
#define VMBUS_PACKET_BYTES_MAX 65536u

struct vmbus_channel_ops {
	/* The guest has opened it; the rings are empty or hold what it wrote already.  0, or a
	 * negative errno: the guest's open fails. */
	int (*opened)(void *device, struct vmbus_channel *channel,
		      const uint8_t user_data[VMBUS_USER_DATA_BYTES]);
	/* There may be packets, or, after vmbus_send() gave -EAGAIN, there is room: receive until
	 * there is nothing.  Never called while the machine is quiesced. */
	void (*ready)(void *device, struct vmbus_channel *channel);
	/* Closed by the guest, by a reset of the bus, by retraction, or because its ring is broken:
	 * nothing is received or sent any more.  Call vmbus_channel_closed() once no access to
	 * guest memory on its behalf is in flight; at once, or later. */
	void (*closing)(void *device, struct vmbus_channel *channel);
	/* The guest asks for the page list @gpadl back while the channel is open: the same, then
	 * vmbus_gpadl_unref().  NULL: the device holds none. */
	void (*gpadl_torn)(void *device, struct vmbus_channel *channel, struct vmbus_gpadl *gpadl);
	/* Retracted, and the guest has let go: the channel is freed after it.  NULL: nothing to do.
	 */
	void (*gone)(void *device, struct vmbus_channel *channel);
};

struct vmbus_offer {
	struct disk_guid type;     /* class of device */
	struct disk_guid instance; /* stable for the life of the VM */
	uint16_t sub_index;        /* 0: primary */
	uint16_t flags;            /* chn_flags of the offer */
	uint16_t mmio_megabytes;
	uint8_t user_defined[VMBUS_USER_DATA_BYTES];
	struct base_io_loop *loop; /* the channel's; borrowed */
	const struct vmbus_channel_ops *ops;
	void *device;
	const char *name; /* for logs and dumps, such as "scsi0"; copied */
};

/**
 * vmbus_offer - put a channel on the bus; the guest is told when it has asked for offers.
 * Any thread but never within a lock that a callback takes.  While a saved state is being
 * loaded, a channel that was saved with the same type, instance and sub_index is taken up:
 * it is opened again in loaded(), without the callback opened() (the device has its own
 * section), and ready() follows after resume.
 * -ENOSPC 2047 channels; -EEXIST the same key is offered; -ENOMEM.
 */
BASE_MUST_CHECK int vmbus_offer(struct vmbus *bus, const struct vmbus_offer *offer,
				struct vmbus_channel **ret_channel, struct base_error *err);
/* Take the channel off the bus: gone() comes when the guest has let go of it (at once when it
 * never saw it, or when the bus is not connected).  Any thread. */
void vmbus_retract(struct vmbus_channel *channel);
/* For the device's own end, when the machine is gone or held: the channel is closed (without a
 * message to the guest) and freed, whatever its state, and no callback comes during or after the
 * call; the device has let go of guest memory and unreferenced its page lists.  Blocks for the
 * bus's and the channel's loop; any thread but a loop.  NULL is fine. */
void vmbus_channel_free(struct vmbus_channel *channel);

/* From the device, once, in or after closing(). */
void vmbus_channel_closed(struct vmbus_channel *channel);
/* In the device's loaded() too: whether it was taken up open. */
bool vmbus_channel_is_open(const struct vmbus_channel *channel);
/* Its ring broke, and it has not been opened again.  In the device's loaded(): it was open when it
 * was saved, and what the guest left of its rings cannot be taken up. */
bool vmbus_channel_is_broken(const struct vmbus_channel *channel);
uint16_t vmbus_channel_sub_index(const struct vmbus_channel *channel);
struct base_io_loop *vmbus_channel_loop(const struct vmbus_channel *channel);
/* Call ready() again soon (fairness: a device that stops before the ring is empty). */
void vmbus_channel_again(struct vmbus_channel *channel);
/* The guest broke the device's protocol beyond repair: closes the channel, with one log line. */
void vmbus_channel_break(struct vmbus_channel *channel, const char *format, ...) BASE_PRINTF(2, 3);

enum vmbus_packet_type {
	VMBUS_PACKET_INBAND = 6,
	VMBUS_PACKET_XFER_PAGES = 7,
	VMBUS_PACKET_GPA_DIRECT = 9,
	VMBUS_PACKET_COMPLETION = 11,
};

/* A packet from the guest: private memory of the channel, valid until the next receive. */
struct vmbus_packet {
	enum vmbus_packet_type type; /* others are refused before they get here */
	bool wants_completion;
	uint64_t trans_id;
	const uint8_t *header; /* behind the 16 bytes of the descriptor; GPA ranges... */
	uint32_t header_bytes;
	const uint8_t *payload;
	uint32_t payload_bytes; /* a multiple of 8: padding is in it */
};

/* 1: @ret_packet is the next one, and its space in the ring is free again (the guest is told in
 * vmbus_channel_flush() or at the end of ready()); 0: none; -EBADMSG: the ring is broken and the
 * channel is closing. */
BASE_MUST_CHECK int vmbus_receive(struct vmbus_channel *channel, struct vmbus_packet *ret_packet);

/* What to send.  The pieces are copied into the ring. */
struct vmbus_send {
	enum vmbus_packet_type type;
	bool wants_completion;
	uint64_t trans_id;
	const void *header; /* behind the descriptor: XFER_PAGES ranges; a multiple of 8 bytes */
	uint32_t header_bytes;
	const void *payload;
	uint32_t payload_bytes;
};
/* 0; -EAGAIN the ring is full: ready() comes when there is room; -EPIPE the channel is not open.
 * Interrupts are raised once, at vmbus_channel_flush() or at the end of ready().  Allowed while
 * quiescing, for completions. */
BASE_MUST_CHECK int vmbus_send(struct vmbus_channel *channel, const struct vmbus_send *send);
/* Publish what was received and sent, and interrupt the guest if it waits for it.  Needed only
 * outside of ready(). */
void vmbus_channel_flush(struct vmbus_channel *channel);

/*
 * GPA ranges of a GPA_DIRECT packet (in packet->header).
 */
struct vmbus_gpa_piece {
	uint64_t gpa;
	uint32_t length_bytes; /* within one page */
};
/* Walk all pages of all ranges: @each(@context, piece, index of the range); not 0 stops with it.
 * -EBADMSG the ranges are malformed (checked before the first call). */
BASE_MUST_CHECK int vmbus_gpa_walk(const struct vmbus_packet *packet,
				   int (*each)(void *context, const struct vmbus_gpa_piece *piece,
					       uint32_t range),
				   void *context);

/*
 * A GPADL that the guest made for this channel: pages of guest memory seen as one run of bytes.
 * Immutable; counted.
 */
BASE_MUST_CHECK int vmbus_gpadl_ref(struct vmbus_channel *channel, uint32_t gpadl_id,
				    struct vmbus_gpadl **ret_gpadl); /* -ENOENT */
void vmbus_gpadl_unref(struct vmbus_gpadl *gpadl);                   /* any thread; NULL is fine */
uint32_t vmbus_gpadl_id(const struct vmbus_gpadl *gpadl);
uint32_t vmbus_gpadl_size(const struct vmbus_gpadl *gpadl); /* bytes */
/* Copy out or in (marked).  -EFAULT outside the run, or a page that is not RAM. */
BASE_MUST_CHECK int vmbus_gpadl_read(const struct vmbus_gpadl *gpadl, uint32_t offset, void *to,
				     uint32_t size_bytes);
BASE_MUST_CHECK int vmbus_gpadl_write(const struct vmbus_gpadl *gpadl, uint32_t offset,
				      const void *from, uint32_t size_bytes);
/* The bytes themselves, as pieces of host memory.  For reading: *ret_iov; for writing: windows,
 * which the caller ends when the last byte has landed.  Count used, or -EFAULT, -ENOSPC. */
BASE_MUST_CHECK int vmbus_gpadl_view(const struct vmbus_gpadl *gpadl, uint32_t offset,
				     uint32_t size_bytes, struct iovec *ret_iov, uint32_t capacity);
BASE_MUST_CHECK int vmbus_gpadl_windows(const struct vmbus_gpadl *gpadl, uint32_t offset,
					uint32_t size_bytes, struct hv_slat_window *ret_windows,
					uint32_t capacity);

#endif
