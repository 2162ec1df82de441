/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SynIC as text, without KVM.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/machine_dump_priv.h"
#include "hypervisor/synic_parts_priv.h"

#define MEMORY_BYTES (64ULL << 20)
#define SIMP         0x10000ULL
#define SIEFP        0x20000ULL
#define VECTOR       0xf3u

struct world {
	struct hv_memory *memory;
	struct hv_slat *slat;
	struct hv_synic *synic;
	char text[65536];
};

static void on_interrupt(void *context, uint32_t vp, uint8_t vector)
{
	(void)context;
	(void)vp;
	(void)vector;
}

static const struct hv_synic_ops ops = { .interrupt = on_interrupt };

static struct world *world_new(void)
{
	struct world *world = calloc(1, sizeof(*world));

	cr_assert_not_null(world);
	cr_assert_eq(hv_memory_new(MEMORY_BYTES, HV_MEMORY_SMALL, &world->memory, NULL), 0);
	cr_assert_eq(hv_slat_new(world->memory, -1, &world->slat, NULL), 0);
	cr_assert_eq(hv_synic_new(world->slat, 2, &ops, world, &world->synic, NULL), 0);
	return world;
}

static void world_free(struct world *world)
{
	hv_synic_free(world->synic);
	hv_slat_free(world->slat);
	hv_memory_free(world->memory);
	free(world);
}

static void set(struct world *world, uint32_t msr, uint64_t value)
{
	cr_assert_eq(hv_synic_write_msr(world->synic, 1, msr, value), 0, "msr 0x%x", msr);
}

static void enable(struct world *world)
{
	set(world, HV_MSR_SIMP, SIMP + HV_SYNIC_ENABLE);
	set(world, HV_MSR_SIEFP, SIEFP + HV_SYNIC_ENABLE);
	set(world, HV_MSR_SINT0 + HV_SINT_VMBUS, VECTOR);
	set(world, HV_MSR_SCONTROL, HV_SYNIC_ENABLE);
}

static const char *dump(struct world *world, uint32_t vp)
{
	FILE *out = fmemopen(world->text, sizeof(world->text), "w");

	cr_assert_not_null(out);
	hv_synic_dump(world->synic, vp, out);
	cr_assert_eq(fclose(out), 0);
	return world->text;
}

Test(synic_dump, at_power_on_there_is_nothing)
{
	struct world *world = world_new();

	cr_assert_str_eq(dump(world, 0), "  synic: on=0 control=0x0 simp=0x0 siefp=0x0\n"
					 "    16 SINTs are off and empty\n");
	world_free(world);
}

Test(synic_dump, what_waits_is_shown)
{
	struct hv_message message = { .type = 7, .size_bytes = 4 };
	struct world *world = world_new();

	enable(world);
	cr_assert_str_eq(dump(world, 1),
			 "  synic: on=1 control=0x1 simp=0x10001 siefp=0x20001\n"
			 "    sint2: vector=243 masked=0 auto-eoi=0 polling=0 queued=0 next-type=0"
			 " refused=0 slot-type=0x0 slot-bytes=0 slot-pending=0 flags=none\n"
			 "    15 SINTs are off and empty\n");
	for (int i = 0; i < 3; i++)
		cr_assert_eq(hv_synic_post(world->synic, 1, HV_SINT_VMBUS, &message), 0);
	cr_assert_eq(hv_synic_signal(world->synic, 1, HV_SINT_VMBUS, 5), 0);
	cr_assert_eq(hv_synic_signal(world->synic, 1, HV_SINT_VMBUS, 6), 0);
	cr_assert_not_null(strstr(dump(world, 1), " queued=2 next-type=7 refused=0 slot-type=0x7"
						  " slot-bytes=4 slot-pending=1 flags=5-6\n"),
			   "%s", world->text);
	cr_assert_not_null(strstr(dump(world, 0), "16 SINTs are off and empty"), "the other's");
	world_free(world);
}

/* A SINT that is masked still has what came to it. */
Test(synic_dump, a_masked_one_that_is_not_empty_is_shown)
{
	struct world *world = world_new();

	enable(world);
	set(world, HV_MSR_SINT0 + HV_SINT_VMBUS, HV_SINT_MASKED);
	cr_assert_not_null(strstr(dump(world, 1), "16 SINTs are off and empty"));
	cr_assert_eq(hv_synic_signal(world->synic, 1, HV_SINT_VMBUS, 2047), 0);
	cr_assert_not_null(strstr(dump(world, 1), "sint2: vector=0 masked=1"));
	cr_assert_not_null(strstr(world->text, " flags=2047\n"));
	world_free(world);
}

Test(synic_dump, a_refused_message_is_shown_without_pages)
{
	struct hv_message message = { .type = UINT32_MAX, .size_bytes = 0 };
	struct world *world = world_new();

	for (uint32_t i = 0; i <= HV_SYNIC_QUEUE_MAX; i++)
		(void)!hv_synic_post(world->synic, 1, 3, &message);
	cr_assert_not_null(strstr(dump(world, 1), "sint3: vector=0 masked=1 auto-eoi=0 polling=0"
						  " queued=32 next-type=4294967295 refused=1\n"),
			   "%s", world->text);
	world_free(world);
}

/* A dump is for when something is stuck: it must not be stuck itself. */
Test(synic_dump, a_lock_that_is_never_let_go_is_said)
{
	struct world *world = world_new();

	(void)pthread_mutex_lock(&world->synic->vps[1].lock);
	cr_assert_str_eq(dump(world, 1),
			 "  synic: somebody holds its lock and does not let it go\n");
	(void)pthread_mutex_unlock(&world->synic->vps[1].lock);
	world_free(world);
}

/* The longest text there can be: every SINT in use, every other flag set. */
Test(synic_dump, text_is_bounded)
{
	struct world *world = world_new();
	uint8_t pattern[HV_PAGE_BYTES];

	enable(world);
	for (uint32_t i = 0; i < HV_SINTS; i++)
		set(world, HV_MSR_SINT0 + i, ~(uint64_t)HV_SINT_AUTO_EOI);
	memset(pattern, 0x55, sizeof(pattern));
	cr_assert_eq(hv_slat_write(world->slat, SIEFP, pattern, sizeof(pattern)), 0);
	memset(pattern, 0xff, sizeof(pattern));
	cr_assert_eq(hv_slat_write(world->slat, SIMP, pattern, sizeof(pattern)), 0);
	cr_assert_lt(strlen(dump(world, 1)), HV_DUMP_VCPU_BYTES_MAX / 2, "%zu",
		     strlen(world->text));
	cr_assert_not_null(strstr(world->text, ",... (1008 more)\n"), "%s", world->text);
	world_free(world);
}
