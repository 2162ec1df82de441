/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked by the clock: heartbeat, time, key-value pairs.  On the set's loop. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "hypervisor/ic/ic_priv.h"

#define SILENT_PERIODS (IC_HEARTBEAT_LOST_MS / IC_HEARTBEAT_PERIOD_MS)

/* The set that a timer is embedded in. */
#define SET_OF(timer, member)                                                                      \
	((struct ic_set *)(void *)((char *)(timer)-offsetof(struct ic_set, member)))

static void again(struct ic_set *set, struct base_io_timer *timer, uint32_t after_ms)
{
	struct base_io_loop *loop = set->options.loop;

	base_io_timer_arm(loop, timer, base_io_loop_now_ns(loop) + after_ms * BASE_NS_PER_MS);
}

static uint8_t *body_of(struct ic_set *set)
{
	return set->message + IC_HEADER_BYTES;
}

/*
 * --- heartbeat ---
 */

void ic_heartbeat_set(struct ic_set *set, enum ic_heartbeat state)
{
	set->silent_periods = 0;
	if (set->heartbeat == state)
		return;
	set->heartbeat = state;
	base_log(state == IC_HEARTBEAT_LOST ? BASE_LOG_WARNING : BASE_LOG_INFO, "ic.heartbeat",
		 "vm=%s state=%s", set->options.vm_name,
		 state == IC_HEARTBEAT_LOST ? "lost"
		 : state == IC_HEARTBEAT_OK ? "ok"
					    : "none");
	if (set->options.events != NULL && set->options.events->heartbeat != NULL)
		set->options.events->heartbeat(set->options.events_context, state);
}

void ic_heartbeat_answer(struct ic_set *set, const struct ic_answer *answer)
{
	struct base_error err = { 0 };

	if (answer->status != IC_STATUS_OK)
		(void)base_fail(&err, -EBADMSG, "status 0x%x", (unsigned)answer->status);
	else if (ic_heartbeat_decode(answer, set->sequence, &err) == 0)
		ic_heartbeat_set(set, IC_HEARTBEAT_OK);
	if (err.code != 0)
		ic_log_refused(&set->channels[IC_HEARTBEAT], &err);
}

void ic_heartbeat_expired(struct base_io_timer *timer)
{
	struct ic_set *set = SET_OF(timer, heartbeat_timer);

	again(set, timer, IC_HEARTBEAT_PERIOD_MS);
	if (set->channels[IC_HEARTBEAT].port.state != IC_PORT_READY)
		return;
	if (set->heartbeat == IC_HEARTBEAT_OK && ++set->silent_periods > SILENT_PERIODS)
		ic_heartbeat_set(set, IC_HEARTBEAT_LOST);
	if (!ic_is_idle(set, IC_HEARTBEAT))
		return;
	if (ic_send(set, IC_HEARTBEAT, ic_heartbeat_encode(set->sequence + 1, body_of(set))) == 0)
		set->sequence++;
}

/*
 * --- time ---
 */

static void send_time(struct ic_set *set, uint8_t flags)
{
	const struct ic_options *options = &set->options;
	uint64_t before = options->reference_time(options->reference_context);
	uint64_t real_ns = base_clock_real_ns(options->clock);
	uint64_t after = options->reference_time(options->reference_context);
	struct ic_version version = set->channels[IC_TIME].port.version;
	uint16_t bytes = ic_time_encode(version, real_ns, before + (after - before) / 2, flags,
					body_of(set));

	if (ic_send(set, IC_TIME, bytes) == 0 && (flags & IC_TIME_SYNC) != 0)
		set->sync_due = false;
}

void ic_time_pump(struct ic_set *set)
{
	if (set->sync_due)
		send_time(set, IC_TIME_SYNC);
}

void ic_sample_expired(struct base_io_timer *timer)
{
	struct ic_set *set = SET_OF(timer, sample_timer);

	again(set, timer, IC_SAMPLE_PERIOD_MS);
	if (ic_is_idle(set, IC_TIME))
		send_time(set, set->sync_due ? IC_TIME_SYNC : IC_TIME_SAMPLE);
}

static void sync_now(void *context)
{
	struct ic_set *set = context;

	set->sync_due = true;
	ic_pump(set, IC_TIME);
}

void ic_sync_time(struct ic_set *set)
{
	base_io_call(set->options.loop, sync_now, set);
}

/*
 * --- key-value pairs ---
 */

void ic_kvp_expired(struct base_io_timer *timer)
{
	struct ic_set *set = SET_OF(timer, kvp_timer);

	again(set, timer, IC_KVP_PERIOD_MS);
	if (set->kvp_walks && set->kvp_index > 0)
		return; /* still at it */
	set->kvp_walks = true;
	ic_pump(set, IC_KVP);
}

void ic_kvp_pump(struct ic_set *set)
{
	if (!set->kvp_walks)
		return;
	if (set->kvp_index == 0)
		memset(&set->kvp_fresh, 0, sizeof(set->kvp_fresh));
	if (ic_send(set, IC_KVP, ic_kvp_encode(set->kvp_index, body_of(set))) < 0)
		return; /* ready() comes when there is room */
}

static void walk_ends(struct ic_set *set, bool well)
{
	bool changed = set->info.kvp != well;

	set->kvp_walks = false;
	set->kvp_index = 0;
	if (ic_is_active(set))
		again(set, &set->kvp_timer, IC_KVP_PERIOD_MS);
	if (well) {
		set->kvp_fresh.kvp = true;
		changed = memcmp(&set->kvp_fresh, &set->info, sizeof(set->info)) != 0;
		memcpy(&set->info, &set->kvp_fresh, sizeof(set->info));
	}
	set->info.kvp = well;
	if (changed && set->options.events != NULL && set->options.events->kvp_changed != NULL)
		set->options.events->kvp_changed(set->options.events_context);
}

void ic_kvp_answer(struct ic_set *set, const struct ic_answer *answer)
{
	struct base_error err = { 0 };

	if (set->kvp_stale) { /* whatever it says, our walk has not begun */
		set->kvp_stale = false;
		return;
	}
	if (!set->kvp_walks)
		return;
	if (answer->status != IC_STATUS_OK) {
		walk_ends(set, answer->status == IC_STATUS_NO_MORE);
		return;
	}
	if (ic_kvp_decode(answer, set->kvp_index, &set->kvp_item, &err) == 0)
		ic_kvp_absorb(&set->kvp_item, &set->kvp_fresh);
	else
		ic_log_refused(&set->channels[IC_KVP], &err);
	set->kvp_index++;
#ifndef GODWIT_MUTANT_IC_KVP_WALK
	if (set->kvp_index >= IC_KVP_ITEMS_MAX)
		walk_ends(set, true);
#endif
}
