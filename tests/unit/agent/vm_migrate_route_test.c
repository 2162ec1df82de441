/* SPDX-License-Identifier: Apache-2.0 */
/* Which of a destination's addresses a connection goes to. */
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/vm_migrate_route.h"
#include "base/clock.h"
#include "tests/support/mig_rig.h"

#define S UINT64_C(1000000000)

static struct base_error err;

static struct vm_addresses parse(const char *text)
{
	struct vm_addresses addresses;

	cr_assert_eq(vm_addresses_parse(text, &addresses, &err), 0, "%s", err.text);
	return addresses;
}

Test(vm_migrate_route, lists_of_addresses)
{
	static const char *const bad[] = {
		"",
		",",
		"127.0.0.1:1,",
		",127.0.0.1:1",
		"127.0.0.1:1,,127.0.0.2:1",
		"127.0.0.1:1, 127.0.0.2:1",
		"127.0.0.1:1 127.0.0.2:1",
		"127.0.0.1:1,n2:1",
		"127.0.0.1:1,127.0.0.1:1",
		"[::1]:1,[0::1]:1",
		"127.0.0.1:1,127.0.0.2:1,127.0.0.3:1,127.0.0.4:1,127.0.0.5:1",
		"127.0.0.1:1,[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:00]:1",
	};
	struct vm_addresses addresses = parse("127.0.0.1:1");

	cr_assert_eq(addresses.count, 1);
	addresses = parse("10.0.1.2:7011,[2001:db8::2]:7012,10.0.3.2:1,10.0.3.2:2");
	cr_assert_eq(addresses.count, 4);
	cr_assert_str_eq(addresses.list[1].text, "[2001:db8::2]:7012");
	cr_assert_str_eq(addresses.list[3].text, "10.0.3.2:2");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(vm_addresses_parse(bad[i], &addresses, &err), -EINVAL, "%s", bad[i]);
		cr_assert_not_null(strstr(err.text, "ADDRESS:PORT"), "%s: %s", bad[i], err.text);
	}
}

/* "012" for the order in which connection @turn tries them. */
static const char *order(const struct vm_route *route, uint32_t turn, uint64_t now_ns)
{
	static char text[VM_ADDRESSES_MAX + 1];
	uint32_t list[VM_ADDRESSES_MAX];

	vm_route_order(route, turn, now_ns, list);
	for (uint32_t i = 0; i < route->addresses.count; i++)
		text[i] = (char)('0' + list[i]);
	text[route->addresses.count] = '\0';
	return text;
}

Test(vm_migrate_route, order_of_preference)
{
	const struct vm_addresses addresses = parse("10.0.1.2:1,10.0.2.2:1,10.0.3.2:1");
	struct vm_route route;

	vm_route_init(&route, &addresses, false);
	for (uint32_t turn = 0; turn < 5; turn++)
		cr_assert_str_eq(order(&route, turn, S), "012");
	route.failed_ns[0] = 100 * S;
	cr_assert_str_eq(order(&route, 0, 101 * S), "120", "it failed lately");
	cr_assert_str_eq(order(&route, 0, 100 * S + VM_ROUTE_AGAIN_NS), "012", "and long ago");
	route.failed_ns[1] = 100 * S;
	route.failed_ns[2] = 100 * S;
	cr_assert_str_eq(order(&route, 0, 101 * S), "012", "none is left out");
	vm_route_fini(&route);
}

Test(vm_migrate_route, round_over_all)
{
	const struct vm_addresses addresses = parse("10.0.1.2:1,10.0.2.2:1,10.0.3.2:1");
	struct vm_route route;

	vm_route_init(&route, &addresses, true);
	cr_assert_str_eq(order(&route, 0, S), "012");
	cr_assert_str_eq(order(&route, 1, S), "120");
	cr_assert_str_eq(order(&route, 2, S), "201");
	cr_assert_str_eq(order(&route, 3, S), "012");
	route.failed_ns[1] = 100 * S;
	cr_assert_str_eq(order(&route, 0, 101 * S), "021", "over those that work");
	cr_assert_str_eq(order(&route, 1, 101 * S), "201");
	cr_assert_str_eq(order(&route, UINT32_MAX, 101 * S), "201");
	vm_route_fini(&route);
	vm_route_fini(&route);
}

/* Listens at @host, on a port that was free; its descriptor and, behind it, its text. */
static int listen_at(const char *host, char text[VM_ADDRESS_BYTES])
{
	struct sockaddr_in at;
	socklen_t bytes = sizeof(at);
	struct vm_address address;
	int fd = -1;

	for (unsigned port = 20000 + (unsigned)getpid() % 20000; fd < 0; port++) {
		(void)snprintf(text, VM_ADDRESS_BYTES, "%s:%u", host, port);
		cr_assert_eq(vm_address_parse(text, &address, &err), 0);
		if (vm_address_listen(&address, &fd, NULL) < 0)
			fd = -1;
	}
	cr_assert_eq(getsockname(fd, (struct sockaddr *)(void *)&at, &bytes), 0);
	return fd;
}

static bool has_come(int listen_fd)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		(void)close(fd);
	return fd >= 0;
}

Test(vm_migrate_route, the_next_one_where_one_fails)
{
	char texts[2][VM_ADDRESS_BYTES];
	char both[2 * VM_ADDRESS_BYTES];
	int first = listen_at("127.0.0.1", texts[0]);
	int second = listen_at("127.0.0.2", texts[1]);
	struct vm_addresses addresses;
	struct vm_route route;
	int fd = -1;

	(void)snprintf(both, sizeof(both), "%s,%s", texts[0], texts[1]);
	addresses = parse(both);
	vm_route_init(&route, &addresses, false);
	cr_assert_eq(vm_route_connect(&route, 1000, &fd, &err), 0, "%s", err.text);
	(void)close(fd);
	cr_assert(has_come(first) && !has_come(second), "the first one is preferred");
	(void)close(first);
	cr_assert_eq(vm_route_connect(&route, 1000, &fd, &err), 0, "%s", err.text);
	(void)close(fd);
	cr_assert(has_come(second));
	cr_assert_neq(route.failed_ns[0], 0U);
	cr_assert_eq(route.failed_ns[1], 0U);
	(void)close(second);
	cr_assert_eq(vm_route_connect(&route, 1000, &fd, &err), -ECONNREFUSED);
	cr_assert_not_null(strstr(err.text, texts[1]), "%s", err.text);
	vm_route_fini(&route);
}

/* --- a whole move over two networks --- */

static struct mig_rig rig;
static struct mig_rig_place other;
static uint32_t turn, over_other;

static int connect_in_turn(void *context, int *ret_fd, struct base_error *why)
{
	if (turn++ % 2 == 0)
		return mig_rig_connect(context, ret_fd, why);
	over_other++;
	*ret_fd = mig_rig_dial(&other);
	return *ret_fd < 0 ? base_fail_errno(why, -ECONNREFUSED, "the other network") : 0;
}

Test(vm_migrate_route, a_destination_that_listens_twice)
{
	mig_rig_init(&rig);
	mig_rig_listen(&other);
	rig.in_options.more_fds[0] = other.listen_fd;
	rig.in_options.more_count = 1;
	rig.out_options.connect = connect_in_turn;
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_MOVED, "%s", rig.err.text);
	cr_assert_gt(over_other, 0U);
	(void)close(other.listen_fd);
	mig_rig_fini(&rig);
}
