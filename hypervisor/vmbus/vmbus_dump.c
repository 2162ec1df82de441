/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one looks at when a guest has stalled: vmbus_dump() of vmbus.h.
 */
#include <errno.h>
#include <inttypes.h>

#include "hypervisor/vmbus/vmbus_priv.h"

#define LOOP_WAIT_MS 2000u /* a loop that is not stuck takes far below one */

struct dump {
	struct vmbus *bus;
	struct base_io_loop *loop;
	FILE *out;
};

static void dump_ring(const struct vmbus_ring *ring, const char *name, FILE *out)
{
	struct vmbus_ring_header header = vmbus_ring_peek(ring);

	fprintf(out,
		"    %s size=%" PRIu32 " write=%" PRIu32 " read=%" PRIu32 " mask=%" PRIu32
		" pending=%" PRIu32 " features=0x%" PRIx32 " ours=%" PRIu32 " published=%" PRIu32
		" packets=%" PRIu64 " full=%" PRIu64 "\n",
		name, ring->size_bytes, header.write_index, header.read_index,
		header.interrupt_mask, header.pending_send_sz, header.features, ring->index,
		ring->published, ring->packet_count, ring->full_count);
}

static void dump_channel(const struct vmbus_port *port, const struct vmbus_channel *channel,
			 FILE *out)
{
	fprintf(out,
		"  relid=%" PRIu32 " %s sub=%u vp=%" PRIu32 " open=%d closing=%d broken=%d"
		" drained=%d port=%" PRIu32 " ready=%" PRIu64 " interrupts=%" PRIu64 "\n",
		channel->relid, channel->name, (unsigned int)channel->sub_index, channel->vp,
		vmbus_channel_is_open(channel) ? 1 : 0, channel->closing ? 1 : 0,
		channel->broken ? 1 : 0, channel->drained ? 1 : 0, atomic_load(&port->state),
		atomic_load(&channel->ready_count), atomic_load(&channel->interrupt_count));
	if (!vmbus_channel_is_open(channel))
		return;
	dump_ring(&channel->in, "from-guest", out);
	dump_ring(&channel->out, "to-guest", out);
}

/* On a loop: the channels that live there; none of them can go meanwhile. */
static void dump_loop(void *context)
{
	const struct dump *dump = context;

	for (uint32_t i = 1; i <= VMBUS_RELID_MAX; i++) {
		const struct vmbus_port *port = &dump->bus->ports[i];
		const struct vmbus_channel *channel = atomic_load(&port->channel);

		if (channel != NULL && port->loop == dump->loop)
			dump_channel(port, channel, dump->out);
	}
}

static void dump_bus(void *context)
{
	const struct dump *dump = context;
	struct vmbus *bus = dump->bus;
	uint32_t in_count = 0;

	{
		BASE_LOCKED(&bus->lock);

		in_count = bus->in_count;
	}
	fprintf(dump->out,
		"vmbus: connected=%d version=0x%" PRIx32 " vp=%" PRIu32
		" resetting=%d offers=%d quiet=%d in=%" PRIu32 " out=%" PRIu32 " opening=%" PRIu32
		" closing=%" PRIu32 " channels=%" PRIu32 " gpadls=%" PRIu32 " pages=%" PRIu32
		" messages=%" PRIu64 " signals=%" PRIu64 " interrupts=%" PRIu64 " refused=%" PRIu64
		"\n",
		bus->connected ? 1 : 0, bus->contact.version, bus->contact.vp,
		bus->resetting ? 1 : 0, bus->offers_requested ? 1 : 0,
		atomic_load(&bus->quiet) ? 1 : 0, in_count, bus->out_count, bus->hop_count,
		bus->close_count, bus->channel_count, bus->gpadl_count, bus->gpadl_pages,
		atomic_load(&bus->message_count), atomic_load(&bus->signal_count),
		atomic_load(&bus->interrupt_count), atomic_load(&bus->refused_count));
}

/* A loop that is stuck is perhaps why we are asked: then the rest has to be shown. */
static void look(struct base_io_loop *loop, void (*call)(void *context), struct dump *dump,
		 const char *what)
{
	int r = base_io_call_within(loop, LOOP_WAIT_MS, call, dump);

	if (r == -ETIMEDOUT)
		fprintf(dump->out, "%s: STUCK: its I/O loop does nothing for %u ms\n", what,
			LOOP_WAIT_MS);
	else if (r < 0)
		fprintf(dump->out, "%s: no memory\n", what);
}

void vmbus_dump(struct vmbus *bus, FILE *out)
{
	struct dump dump = { .bus = bus, .out = out };
	uint32_t count = 0;

	look(bus->loop, dump_bus, &dump, "vmbus");
	{
		BASE_LOCKED(&bus->lock);

		count = bus->loop_count;
	}
	for (uint32_t i = 0; i < count; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "channels of loop %" PRIu32, i);
		dump.loop = bus->loops[i];
		look(dump.loop, dump_loop, &dump, name);
	}
}
