/* SPDX-License-Identifier: Apache-2.0 */
/* A move that yields to the heartbeat network. */
#include "agent/vm_migrate_yield.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

static uint64_t now(void)
{
	return base_clock_boot_ns(&base_clock_system);
}

/* UINT64_MAX: no answer. */
static uint64_t round_trip(const struct vm_address *to)
{
	uint64_t begin_ns = now();
	BASE_CLOSE int fd = -1;
	int code = vm_address_connect(to, (uint32_t)(MIG_GIVE_WAY_LOST_NS / BASE_NS_PER_MS), &fd,
				      NULL);

	return code == 0 || code == -ECONNREFUSED ? now() - begin_ns : UINT64_MAX;
}

static uint64_t per_s(uint64_t bytes, uint64_t took_ns)
{
	return took_ns > 0 ? (uint64_t)((double)bytes * 1e9 / (double)took_ns) : 0;
}

static void *watch(void *context)
{
	struct vm_yield *yield = context;
	uint64_t since_ns = now();
	uint64_t sent = yield->sent_bytes(yield->context);

	while (!atomic_load(&yield->stop)) {
		uint64_t rtt_ns = round_trip(&yield->to);
		uint64_t spent_ns = now() - since_ns;
		uint64_t all = 0;
		uint64_t cap = 0;

		if (spent_ns < MIG_GIVE_WAY_STEP_NS)
			base_sleep_ns(MIG_GIVE_WAY_STEP_NS - spent_ns);
		all = yield->sent_bytes(yield->context);
		cap = mig_give_way_step(&yield->law, rtt_ns,
					per_s(all > sent ? all - sent : 0, now() - since_ns));
		if (cap != 0)
			mig_rate_adjust(yield->rate, cap);
		sent = all;
		since_ns = now();
	}
	return NULL;
}

void vm_yield_begin(struct vm_yield *yield, uint64_t most_bytes_per_s)
{
	struct base_error why = { 0 };

	yield->law = mig_give_way_begin(MIG_RATE_MIN_BYTES_PER_S, most_bytes_per_s);
	yield->has_thread =
		base_thread_start(&yield->thread, "migrate-yield", watch, yield, &why) == 0;
	if (!yield->has_thread)
		base_log(BASE_LOG_WARNING, "vm.move-yield", "to=%s why=%s", yield->to.text,
			 base_log_str(why.text));
}

void vm_yield_end(struct vm_yield *yield)
{
	atomic_store(&yield->stop, true);
	if (yield->has_thread)
		base_thread_join(yield->thread);
	yield->has_thread = false;
}
