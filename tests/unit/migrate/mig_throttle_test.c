/* SPDX-License-Identifier: Apache-2.0 */
/* Guests made of numbers: how much they are slowed, and whether that catches them. */
#include "migrate/mig_throttle.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/clock.h"

#define MIB (1ULL << 20)
#define SEC BASE_NS_PER_SECOND

/* Of memory, where it writes all over or to a part of it only. */
struct guest {
	uint64_t writes_bytes_per_s, set_bytes, link_bytes_per_s;
};

static uint64_t written(const struct guest *guest, uint64_t took_ns, uint32_t permille)
{
	double bytes = (double)guest->writes_bytes_per_s * (double)took_ns / (double)SEC *
		       (double)(1000 - permille) / 1000;

	return bytes > (double)guest->set_bytes ? guest->set_bytes : (uint64_t)bytes;
}

static uint64_t sending_ns(const struct guest *guest, uint64_t bytes)
{
	return bytes * SEC / guest->link_bytes_per_s;
}

/* Rounds until what is left fits into @room_bytes; the time they took, 0: never. */
static uint64_t run(const struct guest *guest, uint32_t most, uint64_t room_bytes,
		    uint64_t limit_ns, uint32_t *ret_most)
{
	struct mig_throttle throttle = mig_throttle_begin(most);
	uint64_t left = 4 * guest->set_bytes;
	uint64_t now_ns = 0;

	*ret_most = 0;
	for (uint32_t i = 0; i < 1000; i++) {
		struct mig_throttle_round round = { .sent_bytes = left,
						    .took_ns = sending_ns(guest, left),
						    .room_bytes = room_bytes };

		left = written(guest, round.took_ns, throttle.permille);
		now_ns += round.took_ns;
		if (left <= room_bytes)
			return now_ns;
		round.left_bytes = left;
		round.time_ns = limit_ns == 0       ? UINT64_MAX
				: now_ns < limit_ns ? limit_ns - now_ns
						    : 0;
		(void)mig_throttle_next(&throttle, &round);
		cr_assert_leq(throttle.permille, most);
		if (throttle.permille > *ret_most)
			*ret_most = throttle.permille;
	}
	return 0;
}

Test(mig_throttle, rounds_that_shrink_are_left_alone)
{
	struct guest guest = { .writes_bytes_per_s = 50 * MIB,
			       .set_bytes = 256 * MIB,
			       .link_bytes_per_s = 100 * MIB };
	uint32_t most = 0;

	cr_assert_gt(run(&guest, 900, MIB, 0, &most), 0);
	cr_assert_eq(most, 0);
}

Test(mig_throttle, a_guest_that_cannot_be_caught_is)
{
	struct guest guest = { .writes_bytes_per_s = 120 * MIB,
			       .set_bytes = 256 * MIB,
			       .link_bytes_per_s = 100 * MIB };
	uint32_t most = 0;

	cr_assert_eq(run(&guest, 0, MIB, 0, &most), 0, "without");
	cr_assert_eq(most, 0);
	cr_assert_gt(run(&guest, 500, MIB, 0, &most), 0);
	/* Only as much as is needed: 0.75 of 100 MiB/s of 120. */
	cr_assert(most >= 350 && most <= 450, "%u", most);
}

Test(mig_throttle, never_more_than_the_policy_allows)
{
	struct guest guest = { .writes_bytes_per_s = 500 * MIB,
			       .set_bytes = 256 * MIB,
			       .link_bytes_per_s = 100 * MIB };
	uint32_t most = 0;

	cr_assert_eq(run(&guest, 500, MIB, 0, &most), 0);
	cr_assert_eq(most, 500);
	cr_assert_gt(run(&guest, 900, MIB, 0, &most), 0);
	cr_assert_eq(mig_throttle_begin(5000).most_permille, MIG_THROTTLE_MAX);
}

/* It works by and by, but not in the time there is. */
Test(mig_throttle, little_time_takes_more)
{
	struct guest guest = { .writes_bytes_per_s = 70 * MIB,
			       .set_bytes = 1024 * MIB,
			       .link_bytes_per_s = 100 * MIB };
	uint32_t most = 0;
	uint64_t all = run(&guest, 900, MIB, 0, &most);
	uint64_t fast = 0;

	cr_assert_eq(most, 0);
	fast = run(&guest, 900, MIB, 55 * SEC, &most);
	cr_assert(fast > 0 && fast < all && most > 0, "%llu %llu %u", (unsigned long long)fast,
		  (unsigned long long)all, most);
}

Test(mig_throttle, it_is_given_back)
{
	struct mig_throttle throttle = mig_throttle_begin(900);
	struct mig_throttle_round round = { .sent_bytes = MIB,
					    .took_ns = SEC,
					    .left_bytes = 4 * MIB,
					    .room_bytes = 1,
					    .time_ns = UINT64_MAX };

	(void)mig_throttle_next(&throttle, &round);
	cr_assert_eq(throttle.permille, 0, "the first round says nothing");
	cr_assert_eq(mig_throttle_next(&throttle, &round), 500, "gently: half at most");
	cr_assert_eq(mig_throttle_next(&throttle, &round), 750);
	round.left_bytes = 0;
	for (uint32_t i = 0; i < 20; i++) {
		uint32_t before = throttle.permille;

		cr_assert_leq(mig_throttle_next(&throttle, &round), before);
	}
	cr_assert_eq(throttle.permille, 0);
}

Test(mig_throttle, a_goal_that_cannot_be_met_slows_nobody)
{
	struct mig_throttle throttle = mig_throttle_begin(900);
	struct mig_throttle_round round = {
		.sent_bytes = MIB, .took_ns = SEC, .left_bytes = 4 * MIB, .time_ns = UINT64_MAX
	};

	for (uint32_t i = 0; i < 5; i++)
		cr_assert_eq(mig_throttle_next(&throttle, &round), 0);
}

Test(mig_throttle, any_numbers)
{
	uint64_t random = 1;

	for (uint32_t i = 0; i < 100000; i++) {
		struct mig_throttle throttle = { .rounds = 1 };
		struct mig_throttle_round round;
		uint64_t *fields[] = { &round.sent_bytes, &round.took_ns, &round.left_bytes,
				       &round.room_bytes, &round.time_ns };

		for (size_t k = 0; k < sizeof(fields) / sizeof(fields[0]); k++) {
			random = random * 6364136223846793005ULL + 1442695040888963407ULL;
			*fields[k] = random >> (random >> 58);
		}
		throttle.most_permille = (uint32_t)(random % (MIG_THROTTLE_MAX + 1));
		throttle.permille = throttle.most_permille / 2;
		cr_assert_leq(mig_throttle_next(&throttle, &round), throttle.most_permille);
	}
}

/* --- who --- */

Test(mig_throttle, who_writes_is_slowed)
{
	const uint64_t one[] = { 0, 1000, 0, 0 };
	const uint64_t none[4] = { 0 };
	const uint64_t some[] = { 300, 100, 0 };
	const uint64_t most[] = { UINT64_MAX, UINT64_MAX, 1 };
	uint32_t shares[4];

	mig_throttle_shares(400, 900, one, 4, shares);
	cr_assert(shares[0] == 0 && shares[1] == 400 && shares[2] == 0 && shares[3] == 0);
	mig_throttle_shares(400, 900, none, 4, shares);
	for (uint32_t i = 0; i < 4; i++)
		cr_assert_eq(shares[i], 400, "nobody is known to write: all alike");
	/* 300 * 0.3 + 100 * 0.1 = a quarter of 400 */
	mig_throttle_shares(250, 900, some, 3, shares);
	cr_assert(shares[0] >= 298 && shares[0] <= 301, "%u", shares[0]);
	cr_assert(shares[1] >= 98 && shares[1] <= 101, "%u", shares[1]);
	cr_assert_eq(shares[2], 0);
	mig_throttle_shares(900, 500, some, 3, shares);
	cr_assert(shares[0] == 500 && shares[1] <= 500);
	mig_throttle_shares(900, 900, most, 3, shares);
	cr_assert(shares[0] <= 900 && shares[0] >= 890 && shares[1] == shares[0]);
}

/* Two that write 9 to 1: the shares stay, though who is slowed writes less. */
Test(mig_throttle, shares_stay_where_the_guest_does)
{
	uint32_t shares[2] = { 0 };
	uint32_t first[2];

	for (uint32_t i = 0; i < 10; i++) {
		uint64_t written[] = { 9000000ULL * (1000 - shares[0]) / 1000,
				       1000000ULL * (1000 - shares[1]) / 1000 };

		for (uint32_t k = 0; k < 2; k++)
			written[k] = mig_throttle_freely(written[k], shares[k]);
		mig_throttle_shares(800, 900, written, 2, shares);
		if (i == 0)
			memcpy(first, shares, sizeof(first));
		cr_assert(shares[0] >= first[0] - 2 && shares[0] <= first[0] + 2, "%u: %u", i,
			  shares[0]);
		cr_assert(shares[1] >= first[1] - 2 && shares[1] <= first[1] + 2, "%u: %u", i,
			  shares[1]);
	}
}
