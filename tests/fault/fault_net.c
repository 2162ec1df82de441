/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fault/fault_net.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_migrate_net.h"
#include "base/cleanup.h"
#include "base/thread.h"
#include "migrate/mig_wire.h"
#include "tests/fault/fault_step.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/fault_proxy.h"

#define PROXIES 512u

static struct {
	pthread_mutex_t lock;
	struct vm_address to;
	uint32_t timeout_ms;
	struct fault_proxy *proxies[PROXIES];
	uint32_t count;
	bool refuse;
	bool has_rule;
	uint32_t index; /* of the connection that the rule is for */
	struct fault_rule rule;
	pthread_t watch;
	bool watches;
} net = { .lock = PTHREAD_MUTEX_INITIALIZER };

void fault_net_init(uint16_t port, uint32_t timeout_ms)
{
	char text[VM_ADDRESS_BYTES];
	struct base_error err = { 0 };

	(void)snprintf(text, sizeof(text), "127.0.0.1:%u", (unsigned int)port);
	if (vm_address_parse(text, &net.to, &err) < 0)
		base_bug("%s", err.text);
	net.timeout_ms = timeout_ms;
}

static uint32_t type_of(const char *name)
{
	for (uint32_t type = 1; type < MIG_TYPES; type++)
		if (strcmp(mig_type_row(type)->name, name) == 0)
			return type;
	base_bug("no frame is called '%s'", name);
}

void fault_net_rule(const char *text)
{
	char way[8];
	char type[24];
	char place[8];
	char what[8];

	/* NOLINTNEXTLINE(cert-err34-c): the driver's own */
	if (sscanf(text, "%u,%7[^,],%23[^,],%u,%7[^,],%7s", &net.index, way, type, &net.rule.skip,
		   place, what) != 6)
		base_bug("rule '%s'", text);
	net.rule.way = strcmp(way, "back") == 0 ? FAULT_BACK : FAULT_FORTH;
	net.rule.type = type_of(type);
	net.rule.at_bytes = strcmp(place, "behind") == 0 ? FAULT_END : 0;
	net.rule.action = FAULT_HOLD;
	net.rule.both_ways = true;
	if (strcmp(what, "flip") == 0) {
		net.rule.action = FAULT_FLIP;
		net.rule.bit = 5;
		if (net.rule.at_bytes == 0)
			net.rule.at_bytes = 9; /* of the header */
	}
	net.has_rule = true;
}

static void *watch(void *context)
{
	if (fault_proxy_wait_hit(context, 1)) {
		if (net.rule.action == FAULT_FLIP)
			fault_say("flipped");
		else
			fault_step_reached("frame");
	}
	return NULL;
}

static void watch_rule(struct fault_proxy *proxy)
{
	struct base_error err = { 0 };

	fault_proxy_arm(proxy, &net.rule);
	if (base_thread_start(&net.watch, "watch", watch, proxy, &err) < 0)
		base_bug("%s", err.text);
	net.watches = true;
}

void fault_net_settle(void)
{
	if (net.watches)
		base_thread_join(net.watch);
	net.watches = false;
}

int fault_net_connect(void *context, int *ret_fd, struct base_error *err)
{
	BASE_LOCKED(&net.lock);
	int code = 0;

	(void)context;
	if (net.refuse || net.count == PROXIES)
		return base_fail(err, -EHOSTUNREACH, "connect: by the test's wish");
	code = vm_address_connect(&net.to, net.timeout_ms, ret_fd, err);
	if (code < 0)
		return code;
	(void)alloc_fail_done(); /* not the test's own */
	*ret_fd = fault_proxy_before(*ret_fd, &net.proxies[net.count]);
	if (net.has_rule && net.count == net.index)
		watch_rule(net.proxies[net.count]);
	net.count++;
	return 0;
}

void fault_net_go(void)
{
	BASE_LOCKED(&net.lock);

	for (uint32_t i = 0; i < net.count; i++) {
		fault_proxy_release(net.proxies[i], FAULT_FORTH);
		fault_proxy_release(net.proxies[i], FAULT_BACK);
	}
}

void fault_net_cut(void)
{
	BASE_LOCKED(&net.lock);

	net.refuse = true;
	for (uint32_t i = 0; i < net.count; i++)
		fault_proxy_cut(net.proxies[i]);
}

void fault_net_heal(void)
{
	BASE_LOCKED(&net.lock);

	net.refuse = false;
}
