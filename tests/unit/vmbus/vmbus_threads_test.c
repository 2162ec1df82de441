/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus with its loops on threads of their own and a guest on several: signals race with channels
 * that open, close, go and are freed.  For the thread sanitizer and for crashes; what arrives is
 * counted.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/log.h"
#include "hypervisor/synic_priv.h"
#include "tests/unit/vmbus/vmbus_rig.h"

#define SIGNALLERS 3
#define ROUNDS     200
#define SAVES      40
#define OPENINGS   8u

struct world {
	struct hv_memory *memory;
	struct hv_slat *slat;
	struct hv_synic *synic;
	struct base_io_loop *bus_loop;
	struct base_io_loop *channel_loop;
	struct vmbus *bus;
	atomic_bool stop;
	atomic_uint opened;
	atomic_uint closed;
	atomic_uint ready;
	atomic_uint gone;
	uint32_t next_gpadl;
	bool busy;
};

#define SIMP 0x800000ULL

/* Messages are taken and thrown away. */
static void on_interrupt(void *context, uint32_t vp, uint8_t vector)
{
	struct world *world = context;

	(void)vector;
	if (hv_slat_zero(world->slat, SIMP + (uint64_t)HV_SINT_VMBUS * HV_MESSAGE_BYTES, 4) < 0 ||
	    hv_synic_write_msr(world->synic, vp, HV_MSR_EOM, 0) < 0)
		abort();
}

static const struct hv_synic_ops synic_ops = { .interrupt = on_interrupt };

static int opened(void *device, struct vmbus_channel *channel,
		  const uint8_t user_data[VMBUS_USER_DATA_BYTES])
{
	struct world *world = device;

	(void)channel;
	(void)user_data;
	atomic_fetch_add(&world->opened, 1);
	return 0;
}

static void ready(void *device, struct vmbus_channel *channel)
{
	struct world *world = device;
	struct vmbus_packet packet;

	cr_assert(base_io_loop_is_owner(world->channel_loop));
	while (vmbus_receive(channel, &packet) > 0)
		continue;
	atomic_fetch_add(&world->ready, 1);
}

static void closing(void *device, struct vmbus_channel *channel)
{
	struct world *world = device;

	atomic_fetch_add(&world->closed, 1);
	vmbus_channel_closed(channel);
}

static void gone(void *device, struct vmbus_channel *channel)
{
	struct world *world = device;

	(void)channel;
	atomic_fetch_add(&world->gone, 1);
}

static const struct vmbus_channel_ops ops = {
	.opened = opened,
	.ready = ready,
	.closing = closing,
	.gone = gone,
};

static void *signaller(void *context)
{
	struct world *world = context;

	for (uint32_t i = 0; !atomic_load(&world->stop); i++)
		(void)vmbus_hypercall_ops.signal_event(world->bus, 0x10001 + i % 3, 0);
	return NULL;
}

static void post(struct world *world, const uint32_t *words, uint32_t count)
{
	uint8_t m[HV_MESSAGE_PAYLOAD_BYTES];

	for (uint32_t i = 0; i < count; i++)
		base_put_le32(m + 4 * i, words[i]);
	while (vmbus_hypercall_ops.post_message(world->bus, 4, 1, m, 4 * count) ==
	       HV_STATUS_INSUFFICIENT_BUFFERS)
		vmbus_settle(world->bus_loop);
}

static void settle(struct world *world)
{
	for (int i = 0; i < 3; i++)
		vmbus_settle_all(world->bus);
}

static void look_if_busy(void *context)
{
	struct world *world = context;
	BASE_LOCKED(&world->bus->lock);

	world->busy = world->bus->in_count > 0 || world->bus->resetting;
}

/* Until every message that was posted has been handled and the reset has ended: the bus takes so
 * many a turn. */
static void settle_wholly(struct world *world)
{
	do {
		settle(world);
		base_io_call(world->bus_loop, look_if_busy, world);
	} while (world->busy);
}

static void begin(struct world *world)
{
	struct vmbus_options options = { .vcpu_count = 1, .vm_name = "test" };

	cr_assert_eq(hv_memory_new(64ULL << 20, HV_MEMORY_SMALL, &world->memory, NULL), 0);
	cr_assert_eq(hv_slat_new(world->memory, -1, &world->slat, NULL), 0);
	cr_assert_eq(hv_synic_new(world->slat, 1, &synic_ops, world, &world->synic, NULL), 0);
	cr_assert_eq(base_io_loop_new(&(struct base_io_loop_options){ .without_ring = true },
				      &world->bus_loop, NULL),
		     0);
	cr_assert_eq(base_io_loop_new(&(struct base_io_loop_options){ .without_ring = true },
				      &world->channel_loop, NULL),
		     0);
	cr_assert_eq(base_io_loop_start(world->bus_loop, "bus", NULL), 0);
	cr_assert_eq(base_io_loop_start(world->channel_loop, "channel", NULL), 0);
	options.slat = world->slat;
	options.synic = world->synic;
	options.loop = world->bus_loop;
	cr_assert_eq(vmbus_new(&options, &world->bus, NULL), 0);
}

static struct vmbus_channel *offer(struct world *world)
{
	const struct vmbus_offer offer = { .type = rig_type,
					   .instance = rig_type,
					   .loop = world->channel_loop,
					   .ops = &ops,
					   .device = world,
					   .name = "race" };
	struct vmbus_channel *channel = NULL;

	cr_assert_eq(vmbus_offer(world->bus, &offer, &channel, NULL), 0);
	return channel;
}

/* Contact, offers, page list, open: the guest does not listen, so it works on relid 1 or 2. */
static void open_all(struct world *world)
{
	const uint32_t contact[10] = { VMBUS_MSG_INITIATE_CONTACT, 0, 0x50003 };
	const uint32_t request[2] = { VMBUS_MSG_REQUESTOFFERS };

	post(world, contact, 10);
	settle(world);
	post(world, request, 2);
	for (uint32_t relid = 1; relid <= 2; relid++) {
		uint32_t gpadl = ++world->next_gpadl;
		const uint32_t list[15] = { VMBUS_MSG_GPADL_HEADER,
					    0,
					    relid,
					    gpadl,
					    40 | 1u << 16,
					    4 * 4096,
					    0,
					    0x900,
					    0,
					    0x901,
					    0,
					    0x902,
					    0,
					    0x903,
					    0 };
		const uint32_t open[37] = { VMBUS_MSG_OPENCHANNEL, 0, relid, 1, gpadl, 0, 2 };

		post(world, list, 15);
		post(world, open, 37);
	}
}

static void end(struct world *world)
{
	vmbus_free(world->bus);
	base_io_loop_free(world->channel_loop);
	base_io_loop_free(world->bus_loop);
	hv_synic_free(world->synic);
	hv_slat_free(world->slat);
	hv_memory_free(world->memory);
}

Test(vmbus_threads, signals_race_with_channels_that_come_and_go, .timeout = 120)
{
	struct world world = { .bus = NULL };
	struct vmbus_channel *channel = NULL;
	pthread_t threads[SIGNALLERS];

	begin(&world);
	for (int i = 0; i < SIGNALLERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, signaller, &world), 0);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		channel = offer(&world);
		open_all(&world);
		if (round % 4 == 0)
			settle(&world);
		if (round % 3 == 0) {
			cr_assert_eq(vmbus_service_ops.quiesce(world.bus, NULL), 0);
			vmbus_service_ops.resume(world.bus);
		}
		vmbus_retract(channel);
		if (round % 2 == 0)
			settle(&world);
		{
			const uint32_t unload[2] = { VMBUS_MSG_UNLOAD };

			post(&world, unload, 2); /* then the guest does not know of it */
		}
		/* A signaller that was preempted half-way pins the channel until it goes on. */
		while (atomic_load(&world.gone) != round + 1)
			settle(&world);
	}
	channel = offer(&world);
	open_all(&world);
	settle(&world);
	atomic_store(&world.stop, true);
	for (int i = 0; i < SIGNALLERS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	vmbus_channel_free(channel); /* open, and no callback comes */
	cr_assert_eq(atomic_load(&world.opened), atomic_load(&world.closed) + 1);
	end(&world);
}

/* --- any message at any time --- */

static void listen_to_messages(struct world *world)
{
	cr_assert_eq(hv_synic_write_msr(world->synic, 0, HV_MSR_SIMP, SIMP | HV_SYNIC_ENABLE), 0);
	cr_assert_eq(hv_synic_write_msr(world->synic, 0, HV_MSR_SINT0 + HV_SINT_VMBUS, 0x60), 0);
	cr_assert_eq(hv_synic_write_msr(world->synic, 0, HV_MSR_SCONTROL, HV_SYNIC_ENABLE), 0);
}

struct poster {
	struct world *world;
	uint32_t random;
};

static uint32_t draw(struct poster *poster, uint32_t below)
{
	poster->random = poster->random * 1664525u + 1013904223u;
	return (poster->random >> 8) % below;
}

static void post_any(struct poster *poster)
{
	static const uint32_t kinds[] = { VMBUS_MSG_OPENCHANNEL,    VMBUS_MSG_CLOSECHANNEL,
					  VMBUS_MSG_GPADL_TEARDOWN, VMBUS_MSG_RELID_RELEASED,
					  VMBUS_MSG_MODIFYCHANNEL,  VMBUS_MSG_MODIFYCHANNEL,
					  VMBUS_MSG_CLOSECHANNEL,   VMBUS_MSG_OPENCHANNEL };
	uint32_t words[37] = { kinds[draw(poster, 8)], 0, 1 + draw(poster, 2), 7 };
	uint32_t gpadl = 1 + draw(poster, 3);
	uint8_t m[HV_MESSAGE_PAYLOAD_BYTES];
	uint32_t other = draw(poster, 200);

	if (words[0] == VMBUS_MSG_OPENCHANNEL) {
		words[4] = gpadl;
		words[6] = 2;
	} else if (words[0] == VMBUS_MSG_GPADL_TEARDOWN) {
		words[3] = gpadl;
	} else if (words[0] == VMBUS_MSG_MODIFYCHANNEL) {
		words[3] = 0;
	}
	if (other < 4)
		memcpy(words,
		       (const uint32_t[]){ other == 0 ? VMBUS_MSG_INITIATE_CONTACT
						      : VMBUS_MSG_REQUESTOFFERS,
					   0, 0x50003, 0, 0, 0, 0, 0, 0, 0 },
		       40);
	else if (other < 50)
		memcpy(words,
		       (const uint32_t[]){ VMBUS_MSG_GPADL_HEADER, 0, words[2], gpadl,
					   40 | 1u << 16, 4 * 4096, 0, 0x900, 0, 0x901, 0, 0x902, 0,
					   0x903, 0 },
		       60);
	for (uint32_t i = 0; i < 37; i++)
		base_put_le32(m + 4 * i, words[i]);
	(void)vmbus_hypercall_ops.post_message(poster->world->bus, 4, 1, m, 148);
	(void)vmbus_hypercall_ops.signal_event(poster->world->bus, 0x10001 + draw(poster, 2), 0);
}

static void *poster_run(void *context)
{
	struct poster *poster = context;

	while (!atomic_load(&poster->world->stop)) {
		post_any(poster);
		(void)sched_yield(); /* the loops are to keep up */
	}
	return NULL;
}

/* What is counted of openings, closings and lists comes back to nothing: a quiesce ends, a save has
 * a connection that a fresh bus takes, and so does the last contact. */
Test(vmbus_threads, any_message_races_with_saves, .timeout = 120)
{
	const uint32_t contact[10] = { VMBUS_MSG_INITIATE_CONTACT, 0, 0x50003 };
	struct world world = { .bus = NULL };
	struct world other = { .bus = NULL };
	struct vmbus_channel *channel = NULL;
	struct poster posters[SIGNALLERS];
	pthread_t threads[SIGNALLERS];

	base_log_init(-1, BASE_LOG_ERR);
	begin(&world);
	listen_to_messages(&world);
	channel = offer(&world);
	for (uint32_t i = 0; i < SIGNALLERS; i++) {
		posters[i] = (struct poster){ .world = &world, .random = i };
		cr_assert_eq(pthread_create(&threads[i], NULL, poster_run, &posters[i]), 0);
	}
	for (uint32_t round = 0; round < SAVES || atomic_load(&world.opened) < OPENINGS; round++) {
		struct base_buffer saved = { .data = NULL };
		struct base_reader in;

		cr_assert_eq(vmbus_service_ops.quiesce(world.bus, NULL), 0);
		cr_assert_eq(vmbus_service_ops.save(world.bus, 0, &saved, NULL), 0);
		vmbus_service_ops.resume(world.bus);
		begin(&other);
		in = base_reader_over(saved.data, saved.size_bytes);
		cr_assert_eq(vmbus_service_ops.quiesce(other.bus, NULL), 0);
		cr_assert_eq(vmbus_service_ops.load(other.bus, 0, 1, &in, NULL), 0);
		end(&other);
		base_buffer_fini(&saved);
	}
	atomic_store(&world.stop, true);
	for (int i = 0; i < SIGNALLERS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	post(&world, contact, 10);
	settle_wholly(&world);
	cr_assert_eq(world.bus->hop_count, 0);
	cr_assert_eq(world.bus->close_count, 0);
	cr_assert_eq(world.bus->gpadl_count, 0);
	cr_assert(world.bus->connected);
	cr_assert_eq(atomic_load(&world.opened), atomic_load(&world.closed));
	vmbus_channel_free(channel);
	end(&world);
}

/* --- dumps --- */

struct stuck {
	struct base_io_task task; /* first */
	atomic_bool is_free;
};

static void hang(struct base_io_task *task)
{
	struct stuck *stuck = (struct stuck *)task;

	while (!atomic_load(&stuck->is_free))
		base_sleep_ns(BASE_NS_PER_MS);
}

static char *dump(struct world *world)
{
	char *text = NULL;
	size_t size_bytes = 0;
	FILE *out = open_memstream(&text, &size_bytes);

	cr_assert_not_null(out);
	vmbus_dump(world->bus, out);
	cr_assert_eq(fclose(out), 0);
	return text;
}

/* A dump is for when something is stuck: it must not be stuck itself. */
Test(vmbus_threads, a_dump_does_not_wait_for_a_stuck_loop, .timeout = 120)
{
	struct stuck stuck = { .task = { .run = hang } };
	struct world world = { .bus = NULL };
	struct vmbus_channel *channel;
	char *text;

	begin(&world);
	channel = offer(&world);
	open_all(&world);
	settle(&world);
	base_io_post(world.channel_loop, &stuck.task);
	text = dump(&world);
	cr_assert_not_null(strstr(text, "vmbus: connected=1"), "%s", text);
	cr_assert_not_null(strstr(text, ": STUCK: "), "%s", text);
	cr_assert_null(strstr(text, "race"), "%s", text);
	free(text);
	atomic_store(&stuck.is_free, true);
	text = dump(&world);
	cr_assert_not_null(strstr(text, "relid=1 race "), "%s", text);
	cr_assert_null(strstr(text, "STUCK"), "%s", text);
	free(text);
	vmbus_channel_free(channel);
	end(&world);
}
