/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole migrations over connections that fail: at each frame of the protocol, before it, within it
 * and behind it, cut, shut down, held longer than the timeouts, or with a bit flipped.  Whatever
 * happens: never two, and exactly one in the end, with each page as the guest wrote it.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "base/clock.h"
#include "tests/support/depth.h"
#include "tests/support/fault_proxy.h"
#include "tests/support/mig_rig.h"

#define TIMEOUT_MS 300u
#define PROXIES    256u

/* A frame, on which connection: 0 the control channel, 1 the first data channel. */
struct place {
	const char *name;
	uint32_t connection;
	enum fault_way way;
	enum mig_type type;
	uint32_t skip;
};

static const struct place places[] = {
	{ "open", 0, FAULT_FORTH, MIG_TYPE_OPEN, 0 },
	{ "opened", 0, FAULT_BACK, MIG_TYPE_OPENED, 0 },
	{ "plan", 0, FAULT_FORTH, MIG_TYPE_PLAN, 0 },
	{ "findings", 0, FAULT_BACK, MIG_TYPE_FINDINGS, 0 },
	{ "first round", 0, FAULT_FORTH, MIG_TYPE_ROUND, 0 },
	{ "second round", 0, FAULT_FORTH, MIG_TYPE_ROUND, 1 },
	{ "first round done", 0, FAULT_BACK, MIG_TYPE_ROUND_DONE, 0 },
	{ "second round done", 0, FAULT_BACK, MIG_TYPE_ROUND_DONE, 1 },
	{ "state", 0, FAULT_FORTH, MIG_TYPE_STATE, 0 },
	{ "sealed", 0, FAULT_FORTH, MIG_TYPE_SEALED, 0 },
	{ "ready", 0, FAULT_BACK, MIG_TYPE_READY, 0 },
	{ "ask", 0, FAULT_FORTH, MIG_TYPE_ASK, 0 },
	{ "register", 0, FAULT_BACK, MIG_TYPE_REGISTER, 0 },
	{ "commit", 0, FAULT_FORTH, MIG_TYPE_COMMIT, 0 },
	{ "running", 0, FAULT_BACK, MIG_TYPE_RUNNING, 0 },
	{ "handed back", 0, FAULT_BACK, MIG_TYPE_HANDED_BACK, 0 },
	{ "bye", 0, FAULT_FORTH, MIG_TYPE_BYE, 0 },
	{ "data open", 1, FAULT_FORTH, MIG_TYPE_OPEN, 0 },
	{ "data opened", 1, FAULT_BACK, MIG_TYPE_OPENED, 0 },
	{ "first write", 1, FAULT_FORTH, MIG_TYPE_WRITE, 0 },
	{ "a later write", 1, FAULT_FORTH, MIG_TYPE_WRITE, 40 },
	{ "first chunk", 1, FAULT_FORTH, MIG_TYPE_CHUNK, 0 },
	{ "a later chunk", 1, FAULT_FORTH, MIG_TYPE_CHUNK, 40 },
	{ "first barrier", 1, FAULT_FORTH, MIG_TYPE_BARRIER, 0 },
	{ "second barrier", 1, FAULT_FORTH, MIG_TYPE_BARRIER, 1 },
	{ "sweep's barrier", 1, FAULT_FORTH, MIG_TYPE_BARRIER, 1 },
	{ "roots", 0, FAULT_FORTH, MIG_TYPE_ROOTS, 0 },
	{ "verified", 0, FAULT_BACK, MIG_TYPE_VERIFIED, 0 },
};
#define PLACES          (sizeof(places) / sizeof(places[0]))
#define VERIFIED_PLACES 3u /* the last ones are of a verified move */

static struct mig_rig rig;
static struct fault_proxy *proxies[PROXIES];
static uint32_t proxy_count;
static const struct place *at;
static struct fault_rule rule;

/* The connections that are made after the fault are sound. */
static int between(uint32_t index, int fd)
{
	int near_fd = -1;

	cr_assert_lt(proxy_count, PROXIES);
	near_fd = fault_proxy_before(fd, &proxies[proxy_count]);
	if (index == at->connection)
		fault_proxy_arm(proxies[proxy_count], &rule);
	proxy_count++;
	return near_fd;
}

/* Exactly one, and the register knows it. */
static void expect_one(enum mig_out_end end)
{
	bool moved = end == MIG_OUT_MOVED;

	cr_assert(moved || end == MIG_OUT_FAILED, "%s: end %d", at->name, (int)end);
	cr_assert_eq(atomic_load(&rig.destination.runs), moved, "%s: %s", at->name, rig.err.text);
	cr_assert_eq(atomic_load(&rig.source.runs), !moved, "%s: %s", at->name, rig.err.text);
	cr_assert_eq(rig.in_end, moved ? MIG_IN_RUNNING : MIG_IN_GONE, "%s: %s", at->name,
		     rig.in_err.text);
	cr_assert_eq(rig.world.owner.owner, moved ? MIG_DESTINATION : MIG_SOURCE, "%s", at->name);
	cr_assert_eq(atomic_load(&rig.source.released), moved, "%s", at->name);
	cr_assert_not(rig.world.promised, "%s", at->name);
	mig_fake_vm_wait_checked(moved ? &rig.destination : &rig.source);
	cr_assert_eq(rig.world.bad_page, 0, "%s: %u bad pages", at->name, rig.world.bad_page);
	cr_assert_eq(rig.world.twice, 0, "%s", at->name);
}

static void run_one(const struct place *place, const struct fault_rule *fault)
{
	enum mig_out_end end = MIG_OUT_INVALID;

	at = place;
	rule = *fault;
	rule.way = place->way;
	rule.type = (uint32_t)place->type;
	rule.skip = place->skip;
	proxy_count = 0;
	mig_rig_init(&rig);
#ifdef OVER_TLS
	mig_rig_use_tls(&rig);
#endif
	rig.between = between;
	rig.linger_ms = 3 * TIMEOUT_MS;
	rig.in_options.timeout_ms = TIMEOUT_MS;
	rig.in_options.give_up_ms = 2 * TIMEOUT_MS;
	rig.out_options.timeout_ms = TIMEOUT_MS;
	rig.out_options.channel_count = 2;
	rig.out_options.verify = place >= &places[PLACES - VERIFIED_PLACES];
	/* A guest that writes would race with the sender by design: TSan has one that does not. */
#if !defined(__SANITIZE_THREAD__)
	rig.source.writes = true;
	rig.source.writes_per_ms = 5;
#endif
	if (place->type == MIG_TYPE_HANDED_BACK) /* it cannot be activated there */
		atomic_store(&rig.destination.faults.run, 1);
	mig_rig_begin(&rig);
	if (place->connection == 0 && place->type == MIG_TYPE_OPEN)
		mig_in_give_up(rig.in); /* nobody may ever come */
	end = mig_rig_finish(&rig);
	expect_one(end);
	for (uint32_t i = 0; i < proxy_count; i++)
		fault_proxy_free(proxies[i]);
	mig_rig_fini(&rig);
}

static void run_all(const struct fault_rule *fault)
{
	static uint32_t turn;

	for (size_t i = 0; i < PLACES; i += depth_stride())
		run_one(&places[(i + turn++) % PLACES], fault);
}

TestSuite(mig_session_fault, .timeout = 250);

#define FAULT(name, ...)                                                                           \
	Test(mig_session_fault, name)                                                              \
	{                                                                                          \
		const struct fault_rule fault = { __VA_ARGS__ };                                   \
                                                                                                   \
		run_all(&fault);                                                                   \
	}

FAULT(cut_before, .action = FAULT_CUT)
FAULT(cut_within, .action = FAULT_CUT, .at_bytes = 17)
FAULT(cut_behind, .action = FAULT_CUT, .at_bytes = FAULT_END)
FAULT(shut_before, .action = FAULT_SHUT)
FAULT(shut_behind, .action = FAULT_SHUT, .at_bytes = FAULT_END)
FAULT(held_before, .action = FAULT_HOLD)
FAULT(held_behind, .action = FAULT_HOLD, .at_bytes = FAULT_END)
FAULT(frozen_before, .action = FAULT_HOLD, .both_ways = true)
FAULT(frozen_within, .action = FAULT_HOLD, .at_bytes = 40, .both_ways = true)
FAULT(flipped_in_the_header, .action = FAULT_FLIP, .at_bytes = 9, .bit = 3)
FAULT(flipped_at_the_end, .action = FAULT_FLIP, .at_bytes = FAULT_END, .bit = 6)
