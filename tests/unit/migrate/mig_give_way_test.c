/* SPDX-License-Identifier: Apache-2.0 */
/* A cap that yields: over links whose queues fill, with a clock that is only counted. */
#include <criterion/criterion.h>

#include "migrate/mig_give_way.h"

#define MIB   UINT64_C(1048576)
#define MS    UINT64_C(1000000)
#define FLOOR MIB

static struct mig_give_way yield;

/* A link of @capacity with a queue of 200 ms at most, and a round trip of @base_ns without. */
struct wire {
	uint64_t capacity, base_ns, queued, sent;
};

static uint64_t rtt_of(const struct wire *wire)
{
	return wire->base_ns + wire->queued * 1000 / wire->capacity * MS;
}

/* A tenth of a second, in which as much is offered as may go. */
static void run(struct wire *wire, uint64_t offered)
{
	uint64_t cap = yield.cap_bytes_per_s;
	uint64_t rate = cap != 0 && cap < offered ? cap : offered;
	uint64_t room = wire->capacity / 5;
	uint64_t through = wire->capacity / 10;
	uint64_t in = rate / 10;

	if (wire->queued + in > through + room)
		in = through + room - wire->queued; /* TCP holds it back */
	wire->sent = in * 10;
	wire->queued = wire->queued + in > through ? wire->queued + in - through : 0;
	(void)mig_give_way_step(&yield, rtt_of(wire), wire->sent);
	cr_assert(yield.cap_bytes_per_s == 0 || yield.cap_bytes_per_s >= FLOOR);
	cr_assert(yield.most_bytes_per_s == 0 || yield.cap_bytes_per_s <= yield.most_bytes_per_s);
}

Test(mig_give_way, nothing_grows_and_nothing_is_capped)
{
	yield = mig_give_way_begin(FLOOR, 0);
	for (int i = 0; i < 1000; i++)
		cr_assert_eq(
			mig_give_way_step(&yield, (uint64_t)(300 + i % 7 * 100) * 1000, 900 * MIB),
			0U);
	cr_assert_eq(yield.backoffs, 0U);
}

Test(mig_give_way, backs_off_and_keeps_round_trips_short)
{
	static const uint64_t capacities[] = { 5 * MIB, 120 * MIB, 1200 * MIB };

	for (size_t i = 0; i < sizeof(capacities) / sizeof(capacities[0]); i++) {
		struct wire wire = { .capacity = capacities[i], .base_ns = 2 * MS };
		uint64_t rtts_ns = 0;
		uint64_t sent = 0;

		yield = mig_give_way_begin(FLOOR, 0);
		for (int n = 0; n < 10; n++)
			run(&wire, 0); /* it knows the way before it is full */
		for (int n = 0; n < 50; n++)
			run(&wire, 4 * wire.capacity);
		cr_assert_gt(yield.backoffs, 0U);
		for (int n = 0; n < 1000; n++) {
			run(&wire, 4 * wire.capacity);
			rtts_ns += rtt_of(&wire);
			sent += wire.sent / 10;
		}
		cr_assert_lt(rtts_ns / 1000, 30 * MS, "200 ms without");
		cr_assert_gt(sent, 100 * wire.capacity / 2, "and the link is used");
	}
}

Test(mig_give_way, recovers_when_the_others_are_gone)
{
	struct wire wire = { .capacity = 100 * MIB, .base_ns = MS };

	yield = mig_give_way_begin(FLOOR, 0);
	run(&wire, 0);
	for (int n = 0; n < 100; n++)
		run(&wire, 400 * MIB);
	wire.capacity = 10 * MIB; /* somebody else takes the rest */
	for (int n = 0; n < 100; n++)
		run(&wire, 400 * MIB);
	cr_assert_lt(yield.cap_bytes_per_s, 15 * MIB);
	wire.capacity = 100 * MIB;
	for (int n = 0; n < 200; n++)
		run(&wire, 400 * MIB);
	cr_assert_gt(yield.cap_bytes_per_s, 50 * MIB);
}

Test(mig_give_way, no_answer_is_the_worst_and_the_floor_the_end)
{
	yield = mig_give_way_begin(FLOOR, 0);
	cr_assert_eq(mig_give_way_step(&yield, UINT64_MAX, 500 * MIB), 0U, "it never answered");
	(void)mig_give_way_step(&yield, MS, 500 * MIB);
	for (int n = 0; n < 100; n++)
		(void)mig_give_way_step(&yield, UINT64_MAX, 500 * MIB);
	cr_assert_eq(yield.cap_bytes_per_s, FLOOR);
	for (int n = 0; n < 100; n++)
		(void)mig_give_way_step(&yield, UINT64_MAX, 0);
	cr_assert_eq(yield.cap_bytes_per_s, FLOOR);
}

Test(mig_give_way, never_above_what_the_user_allows)
{
	yield = mig_give_way_begin(FLOOR, 50 * MIB);
	cr_assert_eq(yield.cap_bytes_per_s, 50 * MIB);
	(void)mig_give_way_step(&yield, MS, 50 * MIB);
	(void)mig_give_way_step(&yield, 80 * MS, 50 * MIB);
	cr_assert_eq(yield.cap_bytes_per_s / MIB, 35);
	for (int n = 0; n < 500; n++)
		cr_assert_leq(mig_give_way_step(&yield, MS, 50 * MIB), 50 * MIB);
	cr_assert_eq(yield.cap_bytes_per_s, 50 * MIB);
}

Test(mig_give_way, a_longer_way_is_learnt)
{
	yield = mig_give_way_begin(FLOOR, 0);
	(void)mig_give_way_step(&yield, 10 * MS, 0);
	for (int n = 0; n < 1000; n++)
		(void)mig_give_way_step(&yield, 18 * MS, 100 * MIB);
	cr_assert_gt(yield.base_ns, 17 * MS);
	cr_assert_eq(yield.backoffs, 0U);
}

Test(mig_give_way, numbers_near_the_end)
{
	yield = mig_give_way_begin(FLOOR, 0);
	(void)mig_give_way_step(&yield, 0, UINT64_MAX);
	for (int n = 0; n < 1000; n++)
		cr_assert_geq(
			mig_give_way_step(&yield, n % 3 == 0 ? UINT64_MAX - 1 : 1, UINT64_MAX), 0U);
	cr_assert_geq(yield.cap_bytes_per_s, FLOOR);
}
