/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages, event flags and registers of the SynIC, without KVM.
 * What must never happen: a message lost or out of order, an interrupt that nobody asked for
 * where it is masked, a page written and not marked.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/synic_priv.h"

#define MEMORY_BYTES (64ULL << 20)
#define SIMP         0x10000ULL
#define SIEFP        0x20000ULL
#define VECTOR       0xf3u
#define VPS          2u

struct world {
	struct hv_memory *memory;
	struct hv_slat *slat;
	struct hv_synic *synic;
	_Atomic uint32_t interrupts[VPS];
	_Atomic uint32_t last_vector;
	uint32_t rooms;
};

static void on_interrupt(void *context, uint32_t vp, uint8_t vector)
{
	struct world *world = context;

	atomic_fetch_add(&world->interrupts[vp], 1);
	atomic_store(&world->last_vector, vector);
}

static void on_room(void *context)
{
	((struct world *)context)->rooms++;
}

static const struct hv_synic_ops ops = { .interrupt = on_interrupt };

static void world_init(struct world *world)
{
	memset(world, 0, sizeof(*world));
	cr_assert_eq(hv_memory_new(MEMORY_BYTES, HV_MEMORY_SMALL, &world->memory, NULL), 0);
	cr_assert_eq(hv_slat_new(world->memory, -1, &world->slat, NULL), 0);
	cr_assert_eq(hv_synic_new(world->slat, VPS, &ops, world, &world->synic, NULL), 0);
	hv_synic_on_room(world->synic, on_room, world);
}

static void world_fini(struct world *world)
{
	hv_synic_free(world->synic);
	hv_slat_free(world->slat);
	hv_memory_free(world->memory);
}

static void set(struct world *world, uint32_t vp, uint32_t msr, uint64_t value)
{
	cr_assert_eq(hv_synic_write_msr(world->synic, vp, msr, value), 0, "msr 0x%x", msr);
}

static uint64_t get(struct world *world, uint32_t vp, uint32_t msr)
{
	uint64_t value = 0;

	cr_assert_eq(hv_synic_read_msr(world->synic, vp, msr, &value), 0, "msr 0x%x", msr);
	return value;
}

static void enable(struct world *world, uint32_t vp)
{
	set(world, vp, HV_MSR_SIMP, SIMP + vp * HV_PAGE_BYTES + HV_SYNIC_ENABLE);
	set(world, vp, HV_MSR_SIEFP, SIEFP + vp * HV_PAGE_BYTES + HV_SYNIC_ENABLE);
	set(world, vp, HV_MSR_SINT0 + HV_SINT_VMBUS, VECTOR);
	set(world, vp, HV_MSR_SCONTROL, HV_SYNIC_ENABLE);
	atomic_store(&world->interrupts[vp], 0);
}

static struct hv_message message_of(uint8_t stamp)
{
	struct hv_message message = { .type = 1, .size_bytes = 4, .sender = 7 };

	message.payload[0] = stamp;
	return message;
}

static int post(struct world *world, uint32_t vp, uint8_t stamp)
{
	struct hv_message message = message_of(stamp);

	return hv_synic_post(world->synic, vp, HV_SINT_VMBUS, &message);
}

static uint64_t slot_gpa(uint32_t vp)
{
	return SIMP + vp * HV_PAGE_BYTES + (uint64_t)HV_SINT_VMBUS * HV_MESSAGE_BYTES;
}

/* The slot's stamp, or -1 when it is free. */
static int look(struct world *world, uint32_t vp, bool *ret_pending)
{
	uint8_t slot[HV_MESSAGE_BYTES];

	cr_assert_eq(hv_slat_read(world->slat, slot_gpa(vp), slot, sizeof(slot)), 0);
	if (base_get_le32(slot) == 0)
		return -1;
	cr_assert_eq(base_get_le32(slot), 1);
	cr_assert_eq(slot[4], 4);
	cr_assert_eq(base_get_le64(slot + 8), 7);
	if (ret_pending != NULL)
		*ret_pending = (slot[5] & 1) != 0;
	return slot[16];
}

static void consume(struct world *world, uint32_t vp)
{
	bool pending = false;

	cr_assert_neq(look(world, vp, &pending), -1);
	cr_assert_eq(hv_slat_zero(world->slat, slot_gpa(vp), 4), 0);
	if (pending)
		set(world, vp, HV_MSR_EOM, 0);
}

Test(synic, messages_wait_for_the_slot_in_order)
{
	struct world world;

	world_init(&world);
	enable(&world, 1);
	for (uint8_t i = 0; i < 5; i++)
		cr_assert_eq(post(&world, 1, i), 0);
	for (int i = 0; i < 5; i++) {
		cr_assert_eq(look(&world, 1, NULL), i);
		cr_assert_eq(atomic_load(&world.interrupts[1]), (uint32_t)i + 1);
		consume(&world, 1);
	}
	cr_assert_eq(look(&world, 1, NULL), -1);
	cr_assert_eq(atomic_load(&world.interrupts[0]), 0);
	cr_assert_eq(atomic_load(&world.last_vector), VECTOR);
	world_fini(&world);
}

Test(synic, a_delivered_message_tells_that_more_wait)
{
	struct world world;
	bool pending = true;

	world_init(&world);
	cr_assert_eq(post(&world, 0, 1), 0); /* all is off: both wait */
	cr_assert_eq(post(&world, 0, 2), 0);
	enable(&world, 0);
	cr_assert_eq(look(&world, 0, &pending), 1);
	cr_assert(pending);
	consume(&world, 0);
	cr_assert_eq(look(&world, 0, &pending), 2);
	cr_assert_not(pending);
	cr_assert_eq(post(&world, 0, 3), 0);
	(void)look(&world, 0, &pending);
	cr_assert(pending, "the poster asks for EOM in a slot that is taken");
	world_fini(&world);
}

Test(synic, full_queue_refuses_and_tells_of_room_once)
{
	struct world world;

	world_init(&world);
	enable(&world, 0);
	for (uint32_t i = 0; i < HV_SYNIC_QUEUE_MAX + 1; i++)
		cr_assert_eq(post(&world, 0, (uint8_t)i), 0);
	cr_assert_eq(post(&world, 0, 99), -EAGAIN);
	cr_assert_eq(world.rooms, 0);
	consume(&world, 0);
	cr_assert_eq(world.rooms, 1);
	consume(&world, 0);
	cr_assert_eq(world.rooms, 1);
	hv_synic_drop(world.synic, 0, HV_SINT_VMBUS);
	cr_assert_eq(look(&world, 0, NULL), 2, "the slot is the guest's");
	consume(&world, 0);
	cr_assert_eq(look(&world, 0, NULL), -1);
	world_fini(&world);
}

Test(synic, events_interrupt_on_the_edge_only)
{
	struct world world;
	uint64_t word = 0;
	uint64_t gpa = SIEFP + HV_SINT_VMBUS * HV_EVENT_FLAGS / 8 + 8;

	world_init(&world);
	cr_assert_eq(hv_synic_signal(world.synic, 0, HV_SINT_VMBUS, 65), -ENXIO);
	enable(&world, 0);
	cr_assert_eq(hv_synic_signal(world.synic, 0, HV_SINT_VMBUS, 65), 0);
	cr_assert_eq(hv_synic_signal(world.synic, 0, HV_SINT_VMBUS, 65), 0);
	cr_assert_eq(atomic_load(&world.interrupts[0]), 1);
	cr_assert_eq(hv_slat_read(world.slat, gpa, &word, sizeof(word)), 0);
	cr_assert_eq(word, 2);
	cr_assert_eq(hv_slat_zero(world.slat, gpa, 8), 0);
	cr_assert_eq(hv_synic_signal(world.synic, 0, HV_SINT_VMBUS, 65), 0);
	cr_assert_eq(atomic_load(&world.interrupts[0]), 2);
	hv_synic_nudge(world.synic, 0, HV_SINT_VMBUS);
	cr_assert_eq(atomic_load(&world.interrupts[0]), 3);
	world_fini(&world);
}

Test(synic, nonsense_is_refused)
{
	struct world world;
	struct hv_message message = message_of(1);

	world_init(&world);
	cr_assert_eq(hv_synic_post(world.synic, VPS, 2, &message), -EINVAL);
	cr_assert_eq(hv_synic_post(world.synic, 0, HV_SINTS, &message), -EINVAL);
	cr_assert_eq(hv_synic_signal(world.synic, VPS, 2, 0), -EINVAL);
	cr_assert_eq(hv_synic_signal(world.synic, 0, HV_SINTS, 0), -EINVAL);
	cr_assert_eq(hv_synic_signal(world.synic, 0, 2, HV_EVENT_FLAGS), -EINVAL);
	hv_synic_nudge(world.synic, VPS, 2);
	hv_synic_drop(world.synic, 0, HV_SINTS);
	world_fini(&world);
}

Test(synic, masked_and_polled_sources_do_not_interrupt)
{
	struct world world;

	world_init(&world);
	enable(&world, 0);
	set(&world, 0, HV_MSR_SINT0 + 2, VECTOR | HV_SINT_MASKED);
	cr_assert_eq(post(&world, 0, 1), 0);
	cr_assert_eq(look(&world, 0, NULL), -1, "off: it waits");
	cr_assert_eq(hv_synic_signal(world.synic, 0, 2, 1), 0);
	hv_synic_nudge(world.synic, 0, 2);
	cr_assert_eq(atomic_load(&world.interrupts[0]), 0);
	set(&world, 0, HV_MSR_SINT0 + 2, VECTOR | HV_SINT_POLLING);
	cr_assert_eq(look(&world, 0, NULL), 1, "polled: it is delivered");
	cr_assert_eq(atomic_load(&world.interrupts[0]), 0);
	set(&world, 0, HV_MSR_SINT0 + 2, VECTOR | HV_SINT_MASKED);
	set(&world, 0, HV_MSR_SINT0 + 2, VECTOR);
	cr_assert_geq(atomic_load(&world.interrupts[0]), 1, "flags set meanwhile are told of");
	world_fini(&world);
}

Test(synic, registers)
{
	struct world world;
	uint64_t value;

	world_init(&world);
	cr_assert_eq(get(&world, 0, HV_MSR_SCONTROL), 0);
	cr_assert_eq(get(&world, 0, HV_MSR_SVERSION), 1);
	cr_assert_eq(get(&world, 0, HV_MSR_EOM), 0);
	cr_assert_eq(get(&world, 0, HV_MSR_SINT0 + 15), HV_SINT_MASKED);
	cr_assert_eq(hv_synic_write_msr(world.synic, 0, HV_MSR_SVERSION, 1), -EINVAL);
	cr_assert_eq(hv_synic_write_msr(world.synic, 0, HV_MSR_SINT0, 15), -EINVAL);
	cr_assert_eq(hv_synic_write_msr(world.synic, 0, HV_MSR_SINT0, 15 | HV_SINT_MASKED), 0);
	cr_assert_eq(hv_synic_write_msr(world.synic, 0, HV_MSR_SINT0, 0xf3 | HV_SINT_AUTO_EOI),
		     -EINVAL);
	cr_assert_eq(hv_synic_write_msr(world.synic, 0, HV_MSR_SIMP, HV_GPA_LAPIC | 1), -EINVAL);
	cr_assert_eq(hv_synic_write_msr(world.synic, 0, HV_MSR_SIEFP, ~0ULL), -EINVAL);
	cr_assert_eq(hv_synic_write_msr(world.synic, 0, HV_MSR_SINT0 + 16, 0), -EINVAL);
	cr_assert_eq(hv_synic_read_msr(world.synic, 0, HV_MSR_SINT0 + 16, &value), -EINVAL);
	cr_assert_eq(get(&world, 0, HV_MSR_SIMP), 0);
	enable(&world, 1);
	cr_assert_eq(get(&world, 1, HV_MSR_SIMP), SIMP + HV_PAGE_BYTES + 1);
	hv_synic_reset(world.synic);
	cr_assert_eq(get(&world, 1, HV_MSR_SIMP), 0);
	cr_assert_eq(get(&world, 1, HV_MSR_SINT0 + 2), HV_SINT_MASKED);
	world_fini(&world);
}

Test(synic, what_it_writes_is_marked)
{
	struct world world;
	uint64_t *bitmap;

	world_init(&world);
	enable(&world, 0);
	bitmap = calloc(hv_slat_word_count(world.slat), sizeof(uint64_t));
	cr_assert_eq(hv_slat_start(world.slat, NULL), 0);
	cr_assert_eq(hv_slat_harvest(world.slat, bitmap, NULL, NULL), 0);
	cr_assert_eq(post(&world, 0, 1), 0);
	cr_assert_eq(hv_synic_signal(world.synic, 0, 2, 5), 0);
	cr_assert_eq(hv_slat_harvest(world.slat, bitmap, NULL, NULL), 0);
	cr_assert_eq(bitmap[0], 1ULL << (SIMP >> HV_PAGE_SHIFT) | 1ULL << (SIEFP >> HV_PAGE_SHIFT));
	cr_assert_eq(post(&world, 0, 2), 0); /* asks for EOM: that is a write, too */
	cr_assert_eq(hv_slat_harvest(world.slat, bitmap, NULL, NULL), 0);
	cr_assert_eq(bitmap[0], 1ULL << (SIMP >> HV_PAGE_SHIFT));
	free(bitmap);
	world_fini(&world);
}

Test(synic, saved_and_loaded)
{
	struct world from;
	struct world to;
	struct base_buffer out = { .data = NULL };
	struct base_buffer again = { .data = NULL };
	struct base_reader in;
	struct base_error err;

	world_init(&from);
	enable(&from, 1);
	for (uint8_t i = 0; i < 4; i++)
		cr_assert_eq(post(&from, 1, i), 0);
	cr_assert_eq(post(&from, 0, 9), 0);
	consume(&from, 1); /* the queue does not begin at its first entry */
	hv_synic_save(from.synic, &out);
	world_init(&to);
	for (size_t size = 0; size < out.size_bytes; size++) {
		in = base_reader_over(out.data, size);
		cr_assert_eq(hv_synic_load(to.synic, HV_SYNIC_VERSION, &in, &err), -EBADMSG);
		cr_assert_eq(get(&to, 1, HV_MSR_SCONTROL), 0, "nothing has changed");
	}
	in = base_reader_over(out.data, out.size_bytes);
	cr_assert_eq(hv_synic_load(to.synic, HV_SYNIC_VERSION + 1, &in, &err), -ENOTSUP);
	cr_assert_eq(hv_synic_load(to.synic, HV_SYNIC_VERSION, &in, &err), 0, "%s", err.text);
	cr_assert_eq(base_reader_left(&in), 0);
	hv_synic_save(to.synic, &again);
	cr_assert_eq(again.size_bytes, out.size_bytes);
	cr_assert_arr_eq(again.data, out.data, out.size_bytes);
	set(&to, 1, HV_MSR_EOM, 0); /* its memory is empty: the slot is free */
	cr_assert_eq(look(&to, 1, NULL), 2);
	base_buffer_fini(&out);
	base_buffer_fini(&again);
	world_fini(&from);
	world_fini(&to);
}

/* Byte @offset of a saved section of one that is on. */
static int load_patched(size_t offset, uint32_t value)
{
	struct world world;
	struct base_buffer out = { .data = NULL };
	struct base_reader in;
	int r;

	world_init(&world);
	enable(&world, 0);
	cr_assert_eq(post(&world, 0, 1), 0);
	cr_assert_eq(post(&world, 0, 2), 0);
	hv_synic_save(world.synic, &out);
	base_put_le32(out.data + offset, value);
	in = base_reader_over(out.data, out.size_bytes);
	r = hv_synic_load(world.synic, HV_SYNIC_VERSION, &in, NULL);
	base_buffer_fini(&out);
	world_fini(&world);
	return r;
}

Test(synic, nonsense_is_not_loaded)
{
	size_t queues = 4 + 3 * 8 + HV_SINTS * 8;

	cr_assert_eq(load_patched(0, VPS), 0);
	cr_assert_eq(load_patched(0, VPS + 1), -EBADMSG);
	cr_assert_eq(load_patched(4 + 8, (uint32_t)HV_GPA_LAPIC | 1U), -EBADMSG);  /* SIEFP */
	cr_assert_eq(load_patched(4 + 16, (uint32_t)HV_GPA_LAPIC | 1U), -EBADMSG); /* SIMP */
	cr_assert_eq(load_patched(4 + 24, HV_SINT_AUTO_EOI | 0xf3), -EBADMSG);
	cr_assert_eq(load_patched(4 + 24, 3), -EBADMSG);
	cr_assert_eq(load_patched(queues, HV_SYNIC_QUEUE_MAX + 1), -EBADMSG);
	cr_assert_eq(load_patched(queues + 3 * 4, 0), -EBADMSG); /* type of the one that waits */
	cr_assert_eq(load_patched(queues + 3 * 4 + 4, HV_MESSAGE_PAYLOAD_BYTES + 1), -EBADMSG);
}

/* Real threads against each other; the model has all interleavings, this the real accesses. */
#define MANY 20000u

static void *post_many(void *context)
{
	struct world *world = context;

	for (uint32_t i = 0; i < MANY; i++)
		while (post(world, 0, (uint8_t)i) == -EAGAIN)
			;
	return NULL;
}

Test(synic, nothing_is_lost_between_threads, .timeout = 60)
{
	struct world world;
	pthread_t thread;
	uint8_t *slot;
	HV_SLAT_WINDOW window = { .data = NULL };
	uint32_t heard = 0;

	world_init(&world);
	enable(&world, 0);
	cr_assert_eq(hv_slat_window_begin(world.slat, slot_gpa(0), HV_MESSAGE_BYTES, &window), 0);
	slot = window.data;
	cr_assert_eq(pthread_create(&thread, NULL, post_many, &world), 0);
	for (uint32_t i = 0; i < MANY; i++) {
		while (atomic_load(&world.interrupts[0]) == heard)
			;
		heard++;
		cr_assert_eq(__atomic_load_n((uint32_t *)(void *)slot, __ATOMIC_ACQUIRE), 1);
		cr_assert_eq(slot[16], (uint8_t)i);
		(void)__atomic_exchange_n((uint32_t *)(void *)slot, 0, __ATOMIC_SEQ_CST);
		if ((__atomic_load_n(slot + 5, __ATOMIC_SEQ_CST) & 1) != 0)
			set(&world, 0, HV_MSR_EOM, 0);
	}
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(atomic_load(&world.interrupts[0]), MANY);
	hv_slat_window_end(&window);
	world_fini(&world);
}
