/* SPDX-License-Identifier: Apache-2.0 */
/* Round trips to the heartbeat network, for as long as a move lasts. */
#include <criterion/criterion.h>
#include <string.h>

#include "agent/vm_migrate_yield.h"
#include "base/clock.h"

#define BYTES_PER_LOOK (UINT64_C(1) << 20)

static struct base_error err;
static atomic_uint looks;

static uint64_t sent_bytes(void *context)
{
	(void)context;
	return atomic_fetch_add(&looks, 1) * BYTES_PER_LOOK;
}

static void watch(struct vm_yield *yield, const char *to)
{
	*yield = (struct vm_yield){ .sent_bytes = sent_bytes };
	cr_assert_eq(vm_address_parse(to, &yield->to, &err), 0, "%s", err.text);
	cr_assert_eq(mig_rate_new(0, &yield->rate, &err), 0, "%s", err.text);
	vm_yield_begin(yield, 0);
	for (int i = 0; i < 100 && atomic_load(&looks) < 4; i++)
		base_sleep_ns(50 * BASE_NS_PER_MS);
	vm_yield_end(yield);
	vm_yield_end(yield);
	mig_rate_free(yield->rate);
}

Test(vm_migrate_yield, a_port_where_nobody_listens_answers)
{
	struct vm_yield yield;

	watch(&yield, "127.0.0.1:1");
	cr_assert_geq(atomic_load(&looks), 4U);
	cr_assert_neq(yield.law.base_ns, 0U);
	cr_assert_gt(yield.law.seen_bytes_per_s, BYTES_PER_LOOK, "a look is a tenth of a second");
}

Test(vm_migrate_yield, an_address_that_never_answers_says_nothing)
{
	struct vm_yield yield;

	watch(&yield, "255.255.255.255:1");
	cr_assert_eq(yield.law.base_ns, 0U);
	cr_assert_eq(yield.law.backoffs, 0U);
	cr_assert_eq(yield.law.cap_bytes_per_s, 0U);
}

Test(vm_migrate_yield, what_is_owed_stays_owed)
{
	struct mig_rate *rate = NULL;
	const atomic_bool stop = false;
	uint64_t begin_ns = 0;

	cr_assert_eq(mig_rate_new(10 << 20, &rate, &err), 0);
	begin_ns = base_clock_boot_ns(&base_clock_system);
	mig_rate_wait(rate, 3 << 20, &stop); /* owes two tenths of a second */
	for (int i = 0; i < 10; i++)
		mig_rate_adjust(rate, (10U << 20) + (uint64_t)i);
	mig_rate_wait(rate, 1, &stop);
	cr_assert_geq(base_clock_boot_ns(&base_clock_system) - begin_ns, 150 * BASE_NS_PER_MS);
	mig_rate_free(rate);
}
