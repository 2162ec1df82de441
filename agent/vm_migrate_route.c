/* SPDX-License-Identifier: Apache-2.0 */
/* Which of a destination's addresses a connection goes to. */
#include "agent/vm_migrate_route.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"

void vm_route_init(struct vm_route *route, const struct vm_addresses *addresses, bool spread)
{
	*route = (struct vm_route){ .addresses = *addresses, .spread = spread };
	(void)pthread_mutex_init(&route->lock, NULL); /* cannot fail on Linux */
}

void vm_route_fini(struct vm_route *route)
{
	if (route->addresses.count > 0)
		(void)pthread_mutex_destroy(&route->lock);
	route->addresses.count = 0;
}

static bool failed_lately(const struct vm_route *route, uint32_t index, uint64_t now_ns)
{
	uint64_t failed_ns = route->failed_ns[index];

	return failed_ns != 0 && now_ns < failed_ns + VM_ROUTE_AGAIN_NS;
}

void vm_route_order(const struct vm_route *route, uint32_t turn, uint64_t now_ns,
		    uint32_t ret_order[VM_ADDRESSES_MAX])
{
	uint32_t good[VM_ADDRESSES_MAX] = { 0 };
	uint32_t good_count = 0;
	uint32_t used = 0;

	for (uint32_t i = 0; i < route->addresses.count; i++)
		if (!failed_lately(route, i, now_ns))
			good[good_count++] = i;
	for (uint32_t i = 0; i < good_count; i++)
		ret_order[used++] = good[(i + (route->spread ? turn : 0)) % good_count];
	for (uint32_t i = 0; i < route->addresses.count; i++)
		if (failed_lately(route, i, now_ns))
			ret_order[used++] = i;
}

static void begin(struct vm_route *route, uint32_t ret_order[VM_ADDRESSES_MAX])
{
	BASE_LOCKED(&route->lock);

	vm_route_order(route, route->turn, base_clock_boot_ns(&base_clock_system), ret_order);
	route->turn++;
}

static void note(struct vm_route *route, uint32_t index, bool worked)
{
	BASE_LOCKED(&route->lock);

	route->failed_ns[index] = worked ? 0 : base_clock_boot_ns(&base_clock_system);
}

int vm_route_connect(struct vm_route *route, uint32_t timeout_ms, int *ret_fd,
		     struct base_error *err)
{
	uint32_t order[VM_ADDRESSES_MAX] = { 0 };
	struct base_error first = { 0 };
	int code = 0;

	begin(route, order);
	for (uint32_t i = 0; i < route->addresses.count; i++) {
		struct base_error why = { 0 };
		int r = vm_address_connect(&route->addresses.list[order[i]], timeout_ms, ret_fd,
					   &why);

		note(route, order[i], r == 0);
		if (r == 0)
			return 0;
		if (code == 0 || (code == -ECONNREFUSED && r != -ECONNREFUSED)) {
			code = r;
			first = why;
		}
	}
	if (err != NULL)
		*err = first;
	return code;
}
