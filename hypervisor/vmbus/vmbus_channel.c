/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel on its own loop: opening, packets, signals, closing (vmbus_channel.h).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "hypervisor/vmbus/vmbus_priv.h"

/* --- between the loops --- */

void vmbus_channel_command(struct vmbus_channel *channel, enum channel_command command)
{
	if (atomic_fetch_or(&channel->commands, (uint32_t)command) == 0)
		base_io_post(channel->loop, &channel->command_task);
}

void vmbus_channel_tell(struct vmbus_channel *channel, enum channel_news news)
{
	if (atomic_fetch_or(&channel->news, (uint32_t)news) == 0)
		base_io_post(channel->bus->loop, &channel->news_task);
}

/* --- signals --- */

bool vmbus_port_notify(struct vmbus_port *port)
{
	uint32_t state = atomic_load(&port->state);

	do {
		if ((state & PORT_LIVE) == 0)
			return false;
		if ((state & PORT_QUEUED) != 0)
			return true; /* the run to come sees what we tell of */
	} while (!atomic_compare_exchange_weak(&port->state, &state, state | PORT_QUEUED));
	base_io_post(port->loop, &port->task);
	return true;
}

void vmbus_port_open(struct vmbus_channel *channel)
{
	struct vmbus_port *port = &channel->bus->ports[channel->relid];

	port->loop = channel->loop;
	channel->port = port;
	atomic_store(&port->channel, channel);
	atomic_store(&port->state, PORT_LIVE);
}

static void interrupt(struct vmbus_channel *channel)
{
	struct vmbus *bus = channel->bus;

	/* -ENXIO: the guest listens to nothing; it looks at its rings when it does. */
	if (hv_synic_signal(bus->synic, channel->vp, HV_SINT_VMBUS, channel->relid) < 0)
		return;
	atomic_fetch_add_explicit(&channel->interrupt_count, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&bus->interrupt_count, 1, memory_order_relaxed);
}

/* --- opening and closing --- */

static void stop(struct vmbus_channel *channel)
{
	atomic_store(&channel->is_open, false);
	vmbus_ring_fini(&channel->in);
	vmbus_ring_fini(&channel->out);
	free(base_take(&channel->packet));
}

static int start_rings(struct vmbus_channel *channel, const uint64_t *gpas, uint32_t page_count)
{
	struct hv_slat *slat = channel->bus->slat;
	uint32_t down = channel->open.downstream_page;
	int r = 0;

	if (down == 0 || down >= page_count)
		return -EINVAL;
	r = vmbus_ring_init(&channel->in, slat, gpas, down);
	if (r == 0)
		r = vmbus_ring_init(&channel->out, slat, gpas + down, page_count - down);
	if (r == 0)
		r = vmbus_ring_begin_reader(&channel->in);
	if (r == 0)
		r = vmbus_ring_begin_writer(&channel->out);
	return r;
}

int vmbus_channel_start(struct vmbus_channel *channel)
{
	const struct vmbus_gpadl *gpadl = channel->ring_gpadl;
	BASE_FREE uint64_t *gpas = calloc(gpadl->page_count, sizeof(*gpas));
	int r = gpas == NULL ? -ENOMEM : 0;

	if (r == 0)
		r = vmbus_gpadl_page_gpas(gpadl, gpas, gpadl->page_count);
	if (r == 0)
		r = start_rings(channel, gpas, gpadl->page_count);
	if (r == 0) {
		channel->packet = malloc(VMBUS_PACKET_BYTES_MAX);
		if (channel->packet == NULL)
			r = -ENOMEM;
	}
	if (r < 0) {
		stop(channel);
		return r;
	}
	channel->vp = channel->open.vp;
	channel->broken = false;
	channel->closing = false;
	atomic_store(&channel->is_open, true);
	return 0;
}

static void command_open(struct vmbus_channel *channel)
{
	int r = atomic_load(&channel->freeing) ? -ENODEV : vmbus_channel_start(channel);

	if (r == 0) {
		r = channel->ops->opened(channel->device, channel, channel->open.user_data);
		if (r < 0)
			stop(channel);
	}
	channel->open_code = r;
	vmbus_channel_tell(channel, NEWS_OPENED);
	/* What the guest wrote before it opened was told to nobody. */
	if (r == 0)
		(void)vmbus_port_notify(channel->port);
}

static void command_close(struct vmbus_channel *channel)
{
	stop(channel);
	if (atomic_load(&channel->freeing))
		return;
	channel->closing = true;
	channel->ops->closing(channel->device, channel);
}

void vmbus_channel_closed(struct vmbus_channel *channel)
{
	base_assert(base_io_loop_is_owner(channel->loop));
	if (!channel->closing)
		return; /* its device ended it meanwhile */
	channel->closing = false;
	vmbus_channel_tell(channel, NEWS_CLOSED);
}

void vmbus_channel_destroy(struct vmbus_channel *channel)
{
	stop(channel);
	free(channel);
}

/* The bus has forgotten it; nobody signals any more, but one signal may be under way. */
static void finish(struct vmbus_channel *channel)
{
	struct vmbus_port *port = channel->port;

	if (port != NULL) {
		if ((atomic_load(&port->state) & PORT_QUEUED) != 0) {
			channel->dying = true;
			return;
		}
		atomic_store(&port->channel, NULL);
	}
	if (channel->ops->gone != NULL && !atomic_load(&channel->freeing))
		channel->ops->gone(channel->device, channel);
	vmbus_channel_destroy(channel);
}

/* After a restore an edge may be lost on either side: look once at both rings. */
static void command_kick(struct vmbus_channel *channel)
{
	if (!atomic_load(&channel->is_open))
		return;
	interrupt(channel);
	hv_synic_nudge(channel->bus->synic, channel->vp, HV_SINT_VMBUS);
	(void)vmbus_port_notify(channel->port);
}

void vmbus_channel_commands(struct base_io_task *task)
{
	struct vmbus_channel *channel =
		(struct vmbus_channel *)(void *)((uint8_t *)task -
						 offsetof(struct vmbus_channel, command_task));
	uint32_t commands = atomic_exchange(&channel->commands, 0);

	if ((commands & COMMAND_OPEN) != 0)
		command_open(channel);
	if ((commands & COMMAND_MODIFY) != 0) {
		channel->vp = channel->modify_vp;
		vmbus_channel_tell(channel, NEWS_MODIFIED);
	}
	if ((commands & COMMAND_CLOSE) != 0)
		command_close(channel);
	if ((commands & COMMAND_KICK) != 0)
		command_kick(channel);
	if ((commands & COMMAND_GONE) != 0)
		finish(channel); /* last: frees it */
}

/* --- packets --- */

void vmbus_channel_break(struct vmbus_channel *channel, const char *format, ...)
{
	char why[160];
	va_list args;

	if (channel->broken || !atomic_load(&channel->is_open))
		return;
	va_start(args, format);
	(void)vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	channel->broken = true;
	atomic_fetch_add(&channel->bus->refused_count, 1);
	if (vmbus_may_log(channel->bus, VMBUS_LOG_BROKEN))
		base_log(BASE_LOG_WARNING, "vmbus.channel-broken",
			 "vm=%s channel=%s relid=%" PRIu32 " why=%s", channel->bus->vm_name,
			 channel->name, channel->relid, base_log_str(why));
	vmbus_channel_tell(channel, NEWS_BROKEN);
}

int vmbus_receive(struct vmbus_channel *channel, struct vmbus_packet *ret_packet)
{
	uint32_t bytes = 0;
	int r = 0;

	if (channel->broken || !atomic_load(&channel->is_open))
		return 0;
	r = vmbus_ring_get(&channel->in, channel->packet, VMBUS_PACKET_BYTES_MAX, &bytes);
	channel->drained = r == 0;
	if (r > 0)
		r = vmbus_packet_decode(channel->packet, bytes, ret_packet) < 0 ? -EBADMSG : 1;
	if (r < 0)
		vmbus_channel_break(channel, "malformed packet at %" PRIu32 " of the ring",
				    channel->in.index);
	return r;
}

int vmbus_send(struct vmbus_channel *channel, const struct vmbus_send *send)
{
	int r = 0;

	if (channel->broken || !atomic_load(&channel->is_open))
		return -EPIPE;
	r = vmbus_ring_put(&channel->out, send);
	if (r == -EAGAIN && vmbus_ring_end_write(&channel->out))
		interrupt(channel); /* the reader must see what it is to make room of */
	if (r == -EBADMSG) {
		vmbus_channel_break(channel, "read index out of range");
		r = -EPIPE;
	}
	return r;
}

/* Publish; whether there is more to read that nobody would tell us of. */
static bool publish(struct vmbus_channel *channel)
{
	bool room = false;
	bool written = false;
	int more = 0;

	if (channel->broken || !atomic_load(&channel->is_open))
		return false;
	written = vmbus_ring_end_write(&channel->out);
	more = vmbus_ring_end_read(&channel->in, channel->drained, &room);
	if (written || room)
		interrupt(channel);
	if (more < 0)
		vmbus_channel_break(channel, "write index out of range");
	return more > 0;
}

void vmbus_channel_flush(struct vmbus_channel *channel)
{
	if (publish(channel) && !channel->in_ready)
		(void)vmbus_port_notify(channel->port);
}

static void serve(struct vmbus_channel *channel)
{
	bool more = true;

	for (uint32_t turn = 0; more && turn < VMBUS_READY_TURNS; turn++) {
		if (channel->broken || !atomic_load(&channel->is_open))
			return;
		vmbus_ring_mask(&channel->in);
		(void)vmbus_ring_take_room(&channel->out);
		channel->drained = false;
		channel->in_ready = true;
		atomic_fetch_add_explicit(&channel->ready_count, 1, memory_order_relaxed);
		channel->ops->ready(channel->device, channel);
		channel->in_ready = false;
		more = publish(channel);
	}
	if (more)
		(void)vmbus_port_notify(channel->port);
}

void vmbus_port_run(struct base_io_task *task)
{
	struct vmbus_port *port =
		(struct vmbus_port *)(void *)((uint8_t *)task - offsetof(struct vmbus_port, task));
	struct vmbus_channel *channel = atomic_load(&port->channel);

	/* From here on a signal queues the port again: it tells of what came after this. */
	(void)atomic_fetch_and(&port->state, ~(uint32_t)PORT_QUEUED);

	if (channel == NULL)
		return;
	if (channel->dying) {
		finish(channel);
		return;
	}
	if (atomic_load(&channel->is_open) && !atomic_load(&channel->bus->quiet) &&
	    !atomic_load(&channel->freeing))
		serve(channel);
}

bool vmbus_channel_is_open(const struct vmbus_channel *channel)
{
	return atomic_load(&channel->is_open);
}

bool vmbus_channel_is_broken(const struct vmbus_channel *channel)
{
	return channel->broken;
}

uint16_t vmbus_channel_sub_index(const struct vmbus_channel *channel)
{
	return channel->sub_index;
}

struct base_io_loop *vmbus_channel_loop(const struct vmbus_channel *channel)
{
	return channel->loop;
}

void vmbus_channel_again(struct vmbus_channel *channel)
{
	if (channel->port != NULL)
		(void)vmbus_port_notify(channel->port);
}

int vmbus_gpadl_ref(struct vmbus_channel *channel, uint32_t gpadl_id,
		    struct vmbus_gpadl **ret_gpadl)
{
	struct vmbus *bus = channel->bus;
	struct vmbus_gpadl *gpadl = NULL;
	BASE_LOCKED(&bus->lock);

	gpadl = vmbus_find_gpadl(bus, gpadl_id);
	if (gpadl == NULL || !gpadl->usable || gpadl->tearing || gpadl->relid != channel->relid)
		return -ENOENT;
	vmbus_gpadl_hold(gpadl);
	*ret_gpadl = gpadl;
	return 0;
}
