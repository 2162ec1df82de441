/* SPDX-License-Identifier: Apache-2.0 */
/* The test guest's integration services against the real ones.  No KVM, one thread. */
#include <criterion/criterion.h>
#include <string.h>

#include "hypervisor/ic/ic.h"
#include "tests/support/guest_host.h"

#define EPSILON_MS 1000u

static struct guest_host *host;
static struct ic_set *set;

static uint64_t reference_time(void *context)
{
	(void)context;
	return base_clock_boot_ns(&base_clock_system) / 100;
}

static void start(const char *cmdline)
{
	struct ic_options options = { .clock = &base_clock_system,
				      .vm_name = "test",
				      .reference_time = reference_time };
	struct base_error err = { .code = 0 };

	host = guest_host_new(1, cmdline);
	options.bus = guest_host_bus(host);
	options.loop = guest_host_loop(host);
	cr_assert_geq(ic_new(&options, &set, &err), 0, "%s", err.text);
	guest_host_boot(host);
}

static void stop(void)
{
	cr_assert_eq(guest_host_bad(host), 0);
	ic_free(set);
	guest_host_free(host);
}

/* The call pumps the loop, and the loop has the guest's turns in it. */
static int during(int (*run)(void))
{
	int result;

	guest_host_background(host, true);
	result = run();
	guest_host_background(host, false);
	return result;
}

static int power_off(void)
{
	return ic_shutdown(set, IC_POWER_OFF, false, 10000, NULL);
}

static int freeze(void)
{
	return ic_freeze(set, 10000, 10000, NULL);
}

static int thaw(void)
{
	return ic_thaw(set, 10000, NULL);
}

Test(guest_services, heartbeat_and_time, .timeout = 60)
{
	struct ic_status status;
	uint64_t now_ms;

	start("ic=on");
	guest_host_until(host, TESTPAGE_IC_BEATS, 1);
	guest_host_until(host, TESTPAGE_IC_SYNCS, 1);
	for (int i = 0; i < 1000; i++) /* the answer is on its way */
		(void)guest_host_turn(host);
	ic_status(set, &status);
	cr_assert_eq(status.heartbeat, IC_HEARTBEAT_OK);
	cr_assert(status.shutdown);
	cr_assert(status.time_sync);
	now_ms = base_clock_real_ns(&base_clock_system) / BASE_NS_PER_MS;
	cr_assert_lt(now_ms - guest_host_get(host, TESTPAGE_IC_TIME_MS) + EPSILON_MS,
		     60 * EPSILON_MS);
	stop();
}

Test(guest_services, shutdown, .timeout = 60)
{
	start("ic=on");
	guest_host_until(host, TESTPAGE_IC_BEATS, 1);
	cr_assert_eq(during(power_off), 0);
	cr_assert(guest_host_end_asked(host));
	stop();
}

Test(guest_services, freeze_and_thaw, .timeout = 60)
{
	start("ic=on");
	guest_host_until(host, TESTPAGE_IC_BEATS, 1);
	cr_assert_eq(during(freeze), 0);
	cr_assert_eq(guest_host_get(host, TESTPAGE_IC_FROZEN), 1);
	cr_assert_eq(during(thaw), 0);
	cr_assert_eq(guest_host_get(host, TESTPAGE_IC_FROZEN), 0);
	stop();
}

Test(guest_services, what_the_guest_tells_of_itself, .timeout = 60)
{
	struct ic_guest_info info;

	start("ic=on net=10.0.0.2/24");
	guest_host_until(host, TESTPAGE_IC_KVP, 9);
	for (int i = 0; i < 1000; i++)
		(void)guest_host_turn(host);
	ic_guest_info(set, &info);
	cr_assert(info.kvp);
	cr_assert_str_eq(info.fqdn, "testguest.godwit.example");
	cr_assert_str_eq(info.os_name, "Godwit test guest");
	stop();
}
