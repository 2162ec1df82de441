/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both machines of a live update, joined by two queues: every state that any order of steps,
 * messages, faults, broken links and deaths leads to.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "migrate/mig_update.h"

#define QUEUE  8
#define WORLDS 65536

enum {
	OLD,
	NEW,
	SIDES
};

/* Bytes only, so that worlds compare as bytes. */
struct world {
	uint8_t state[SIDES], dead[SIDES], runs[SIDES], busy[SIDES];
	uint8_t told[SIDES];  /* of the other one's death */
	uint8_t count[SIDES]; /* what is on its way to that side */
	uint8_t queue[SIDES][QUEUE];
	uint8_t killed, token, ran; /* a signal to the old one is on its way; the token was sent */
};

static struct world worlds[WORLDS];
static size_t world_count;

static void see(const struct world *world)
{
	for (size_t i = 0; i < world_count; i++)
		if (memcmp(&worlds[i], world, sizeof(*world)) == 0)
			return;
	cr_assert_lt(world_count, (size_t)WORLDS);
	worlds[world_count++] = *world;
}

static void send(struct world *world, int from, enum mig_update_event message)
{
	int to = 1 - from;

	if (world->dead[to])
		return;
	cr_assert_lt(world->count[to], QUEUE);
	world->queue[to][world->count[to]++] = (uint8_t)message;
}

static void start(struct world *world, int side)
{
	if (side == OLD)
		cr_assert(!world->token || (world->dead[NEW] && !world->ran),
			  "after the token only when the new one is dead and never ran");
	else
		cr_assert(world->token && world->dead[OLD], "only when the old one is dead");
	world->runs[side] = 1;
	world->ran |= side == NEW;
	world->busy[side] = 0;
}

static void die(struct world *world, int side)
{
	world->dead[side] = 1;
	world->runs[side] = 0;
	world->busy[side] = 0;
	world->count[side] = 0;
	memset(world->queue[side], 0, QUEUE);
}

static void act(struct world *world, int side, enum mig_update_do what)
{
	switch (what) {
	case MIG_UPDATE_DO_BUILD:
	case MIG_UPDATE_DO_HOLD:
	case MIG_UPDATE_DO_FREEZE:
	case MIG_UPDATE_DO_LOAD:
		world->busy[side] = (uint8_t)what;
		break;
	case MIG_UPDATE_DO_RUN:
		start(world, side);
		break;
	case MIG_UPDATE_DO_KILL:
		world->killed = 1;
		break;
	case MIG_UPDATE_DO_EXIT:
		die(world, side);
		break;
	case MIG_UPDATE_DO_SEND_PLAN:
		send(world, side, MIG_UPDATE_EV_PLAN);
		break;
	case MIG_UPDATE_DO_SEND_BUILT:
		send(world, side, MIG_UPDATE_EV_BUILT);
		break;
	case MIG_UPDATE_DO_SEND_STATE:
		cr_assert_not(world->runs[OLD], "what is sent does not change");
		send(world, side, MIG_UPDATE_EV_STATE);
		break;
	case MIG_UPDATE_DO_SEND_READY:
		send(world, side, MIG_UPDATE_EV_READY);
		break;
	case MIG_UPDATE_DO_SEND_TOKEN:
		cr_assert_not(world->token, "one token");
		world->token = 1;
		send(world, side, MIG_UPDATE_EV_TOKEN);
		break;
	case MIG_UPDATE_DO_SEND_CANCEL:
		send(world, side, MIG_UPDATE_EV_CANCEL);
		break;
	case MIG_UPDATE_DO_INVALID:
	case MIG_UPDATE_DOS:
		cr_assert_fail("no action");
	}
}

static void step(struct world world, int side, enum mig_update_event event)
{
	struct mig_update_actions actions;

	if (side == OLD)
		world.state[OLD] = (uint8_t)mig_update_old_step(world.state[OLD], event, &actions);
	else
		world.state[NEW] = (uint8_t)mig_update_new_step(world.state[NEW], event, &actions);
	for (uint32_t i = 0; i < actions.count; i++)
		act(&world, side, actions.list[i]);
	cr_assert_not(world.runs[OLD] && world.runs[NEW], "it runs twice");
	see(&world);
}

static void receive(struct world world, int side)
{
	enum mig_update_event message = world.queue[side][0];

	memmove(world.queue[side], world.queue[side] + 1, QUEUE - 1);
	world.queue[side][QUEUE - 1] = 0;
	world.count[side]--;
	step(world, side, message);
}

static void done(struct world world, int side)
{
	if (world.busy[side] == MIG_UPDATE_DO_HOLD)
		world.runs[side] = 0;
	world.busy[side] = 0;
	step(world, side, MIG_UPDATE_EV_DONE);
}

/* Whatever may happen to one side; whether something has to. */
static bool go_on(const struct world *world, int side)
{
	struct world next = *world;
	bool must = false;

	if (world->dead[side])
		return false;
	die(&next, side);
	see(&next);
	step(*world, side, MIG_UPDATE_EV_FAULT);
	step(*world, side, MIG_UPDATE_EV_LINK_LOST);
	if (world->busy[side]) {
		done(*world, side);
		must = true;
	}
	if (world->count[side]) {
		receive(*world, side);
		must = true;
	} else if (world->dead[1 - side] && !world->told[side]) {
		next = *world;
		next.told[side] = 1;
		step(next, side, MIG_UPDATE_EV_DEAD);
		must = true;
	}
	return must || (side == OLD && world->killed);
}

Test(mig_update, never_twice_and_never_none_that_could)
{
	struct world first = { .state = { 0, MIG_NEW_WAITING }, .runs = { 1, 0 } };
	struct mig_update_actions actions;
	size_t moved = 0;
	size_t given_back = 0;

	first.state[OLD] = (uint8_t)mig_update_old_begin(&actions);
	for (uint32_t i = 0; i < actions.count; i++)
		act(&first, OLD, actions.list[i]);
	world_count = 0;
	see(&first);
	for (size_t i = 0; i < world_count; i++) {
		struct world world = worlds[i];
		bool old_goes_on = go_on(&world, OLD);
		bool new_goes_on = go_on(&world, NEW);

		moved += world.runs[NEW];
		given_back += world.token && world.runs[OLD];
		if (old_goes_on || new_goes_on || (world.dead[OLD] && world.dead[NEW]))
			continue;
		cr_assert(world.runs[OLD] || world.runs[NEW], "one lives, and nobody runs it");
	}
	cr_assert_gt(moved, 0U);
	cr_assert_gt(given_back, 0U);
	cr_assert_gt(world_count, 100U);
}

Test(mig_update, every_event_in_every_state_is_taken)
{
	struct mig_update_actions actions;

	for (uint32_t event = 0; event < MIG_UPDATE_EVENTS; event++) {
		for (uint32_t state = 1; state < MIG_OLD_STATES; state++) {
			uint32_t next = mig_update_old_step(state, event, &actions);

			cr_assert(next != 0 && next < MIG_OLD_STATES);
			cr_assert_leq(actions.count, MIG_UPDATE_ACTIONS_MAX);
		}
		for (uint32_t state = 1; state < MIG_NEW_STATES; state++) {
			uint32_t next = mig_update_new_step(state, event, &actions);

			cr_assert(next != 0 && next < MIG_NEW_STATES);
			cr_assert_leq(actions.count, MIG_UPDATE_ACTIONS_MAX);
		}
	}
}
