/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every order of events that a source, a destination, an arbiter and the network between them can
 * come to, with the product's own machines (mig_source_step(), mig_destination_step()).
 *
 * Faults: the connection is cut, and of what was on its way either side still gets as much as had
 * come, before it hears of the cut, and perhaps after the other side is back; either worker dies;
 * an answer of the arbiter is lost, its request executed or not, now or much later; the user
 * cancels; the destination gives up, finds a fault, or cannot run what it received.  Of each at
 * most as many as the budgets below, at any instant.
 *
 * Some worlds switch by post-copy: the destination runs before it has all of the memory, which the
 * source keeps and sends.
 *
 * What must never happen is asserted in each state; and from each state, once nothing fails any
 * more, an end can be reached in which exactly one VM runs, and no other end is there.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/mig_switch.h"
#include "tests/support/depth.h"

#define TABLE_SIZE (1u << 22)
#define STATES_MAX (3u << 20)
#define QUEUE_MAX  12u
#define MOVES_MAX  160u
#define EPOCH      1u

/* Compare-and-swaps that were asked for and have not reached the register. */
enum cas {
	CAS_COMMIT,   /* the source: e -> destination */
	CAS_KEEP,     /* the source: e -> source */
	CAS_WITHDRAW, /* the destination: e -> source */
	CAS_BACK,     /* the destination: e + 1 -> source */
	CASES
};

enum who {
	SRC,
	DST,
	SIDES
};

/* What a worker was told to do and has not done. */
#define JOB_PAUSE   1u
#define JOB_REST    2u
#define JOB_PROMISE 4u
#define JOB_CHECK   8u
#define JOB_RUN     16u

enum record {
	RECORD_NONE,
	RECORD_ALL_HERE, /* written before READY */
	RECORD_RUNS,     /* written before the disks are touched; taken back where none was */
};

/* Bytes only, so that states compare by memcmp(). */
struct side {
	uint8_t state;
	uint8_t epoch;
	uint8_t flags; /* the machine's booleans */
	uint8_t jobs;
	uint8_t job_epoch;
	uint8_t retry;
	uint8_t asks;         /* waits for an answer of the arbiter */
	uint8_t answer_epoch; /* 0: none is on its way */
	uint8_t answer_owner;
	uint8_t dead;
	uint8_t may_run;          /* from the order to run on, to the end of the pause */
	uint8_t has;              /* the memory */
	uint8_t queue[QUEUE_MAX]; /* what comes to it: messages, and what it hears of the link */
};
#define HEARS_LOST ((uint8_t)(MIG_MSGS + 1))
#define HEARS_BACK ((uint8_t)(MIG_MSGS + 2))

struct world {
	struct side sides[SIDES];
	uint8_t epoch; /* the register */
	uint8_t owner;
	uint8_t flying; /* bits of enum cas */
	uint8_t asked;  /* a commit was asked for, ever */
	uint8_t link;
	uint8_t record;           /* at the destination */
	uint8_t restarted[SIDES]; /* from its disks, after its worker died */
	uint8_t ran_there;
	uint8_t post;        /* this world switches by post-copy */
	uint8_t filled;      /* all of the memory came */
	uint8_t ended_there; /* its user ended it at the destination */
	uint8_t given_up;    /* a user at the source, who heard nothing of the destination */
	uint8_t cuts, deaths, cancels, faults, unknowns; /* budgets */
};

static struct world *states;
static uint32_t *table; /* index + 1 */
static uint8_t *good;
static uint32_t state_count;

/* --- the two workers --- */

static uint32_t queued(const struct side *side)
{
	uint32_t count = 0;

	while (count < QUEUE_MAX && side->queue[count] != 0)
		count++;
	return count;
}

static void put(struct side *side, uint8_t what)
{
	uint32_t count = queued(side);

	cr_assert_lt(count, QUEUE_MAX, "more under way than expected");
	side->queue[count] = what;
}

static void push(struct world *world, enum who to, enum mig_message message)
{
	if (world->link)
		put(&world->sides[to], (uint8_t)message);
}

static void cas_apply(struct world *world, enum cas cas)
{
	uint8_t from = cas == CAS_BACK ? EPOCH + 1 : EPOCH;

	if (world->epoch != from)
		return;
	world->epoch = (uint8_t)(from + 1);
	world->owner = cas == CAS_COMMIT ? MIG_DESTINATION : MIG_SOURCE;
}

static enum cas cas_of(enum who who, const struct mig_action *action)
{
	if (who == SRC)
		return action->owner == MIG_DESTINATION ? CAS_COMMIT : CAS_KEEP;
	cr_assert_eq(action->owner, MIG_SOURCE, "a destination asks for itself");
	return action->epoch == EPOCH ? CAS_WITHDRAW : CAS_BACK;
}

static void run_ordered(struct world *world, enum who who, uint64_t epoch)
{
	struct side *side = &world->sides[who];

	cr_assert(side->has, "runs what is not there");
	cr_assert(who == DST || !world->post || !world->ran_there,
		  "runs what has gone on elsewhere");
	side->jobs = (uint8_t)((side->jobs & ~JOB_PAUSE) | JOB_RUN);
	side->job_epoch = (uint8_t)epoch;
	side->may_run = 1;
	if (who == DST) {
		cr_assert_eq(world->record, RECORD_ALL_HERE, "runs what is not all there");
		cr_assert_eq(epoch, EPOCH + 1);
		cr_assert(world->epoch == EPOCH + 1 && world->owner == MIG_DESTINATION,
			  "the destination runs, not named");
		world->record = RECORD_RUNS;
	} else if (epoch == EPOCH) {
		cr_assert(!world->asked, "the source resumes by itself after it has asked");
	} else {
		cr_assert_eq(world->owner, MIG_SOURCE, "the source runs, not named");
	}
}

static void execute(struct world *world, enum who who, const struct mig_action *action)
{
	struct side *side = &world->sides[who];

	switch ((uint32_t)action->kind) {
	case MIG_DO_PAUSE:
		side->jobs |= JOB_PAUSE;
		break;
	case MIG_DO_SEND_REST:
		side->jobs |= JOB_REST;
		break;
	case MIG_DO_PROMISE:
		side->jobs |= JOB_PROMISE;
		break;
	case MIG_DO_CHECK:
		side->jobs |= JOB_CHECK;
		break;
	case MIG_DO_SEND:
		push(world, who == SRC ? DST : SRC, action->message);
		break;
	case MIG_DO_ASK:
		world->flying |= (uint8_t)(1u << cas_of(who, action));
		world->asked |= who == SRC;
		side->asks = 1;
		break;
	case MIG_DO_READ:
		side->asks = 1;
		break;
	case MIG_DO_RUN:
		run_ordered(world, who, action->epoch);
		break;
	case MIG_DO_RELEASE:
		cr_assert(!side->may_run, "what runs is released");
		cr_assert(who == DST || world->ran_there, "released before it ran there");
		cr_assert(who == DST || !world->post || world->filled || world->given_up ||
				  world->restarted[DST] || world->ended_there,
			  "released before the destination had all of it");
		side->has = 0;
		side->jobs = 0;
		if (who == DST)
			world->record = RECORD_NONE;
		break;
	case MIG_DO_RETRY:
		side->retry = 1;
		break;
	case MIG_DO_SERVE:
		cr_assert(who == SRC && world->ran_there && world->post);
		cr_assert(!side->may_run && side->has);
		break;
	default:
		cr_assert_fail("action %d", (int)action->kind);
	}
}

static void step(struct world *world, enum who who, const struct mig_event *event)
{
	struct side *side = &world->sides[who];
	struct mig_actions actions;

	if (who == SRC) {
		struct mig_source machine = { .state = (enum mig_source_state)side->state,
					      .epoch = side->epoch,
					      .cancelled = (side->flags & 1u) != 0,
					      .post = (side->flags & 2u) != 0,
					      .lost = (side->flags & 4u) != 0 };

		machine = mig_source_step(machine, event, &actions);
		side->state = (uint8_t)machine.state;
		side->epoch = (uint8_t)machine.epoch;
		side->flags = (uint8_t)(machine.cancelled | machine.post << 1 | machine.lost << 2);
	} else {
		struct mig_destination machine = {
			.state = (enum mig_destination_state)side->state,
			.epoch = side->epoch,
			.broken = (side->flags & 1u) != 0,
			.handed_back = (side->flags & 2u) != 0,
			.post = (side->flags & 4u) != 0,
		};

		machine = mig_destination_step(machine, event, &actions);
		side->state = (uint8_t)machine.state;
		side->flags =
			(uint8_t)(machine.broken | machine.handed_back << 1 | machine.post << 2);
	}
	for (uint32_t i = 0; i < actions.count; i++)
		execute(world, who, &actions.list[i]);
}

static void happens(struct world *world, enum who who, enum mig_event_kind kind)
{
	step(world, who, &(struct mig_event){ .kind = kind });
}

static bool machine_is_over(const struct world *world, enum who who)
{
	uint8_t state = world->sides[who].state;

	return who == SRC ? state >= MIG_SRC_STAYS : state >= MIG_DST_RUNNING;
}

/* --- what can happen next --- */

struct moves {
	uint32_t count;
	uint32_t good_count; /* the first ones: nothing fails in them */
	struct world next[MOVES_MAX];
};

static struct world *move(struct moves *moves, const struct world *from)
{
	cr_assert_lt(moves->count, MOVES_MAX);
	moves->next[moves->count] = *from;
	return &moves->next[moves->count++];
}

static void job_moves(struct moves *moves, const struct world *from, enum who who)
{
	const struct side *side = &from->sides[who];
	struct world *next = NULL;

	if ((side->jobs & JOB_PAUSE) != 0) {
		next = move(moves, from);
		next->sides[who].jobs &= (uint8_t)~JOB_PAUSE;
		next->sides[who].may_run = 0;
		happens(next, who, MIG_EV_PAUSED);
	}
	if ((side->jobs & JOB_REST) != 0) {
		next = move(moves, from);
		next->sides[who].jobs &= (uint8_t)~JOB_REST;
		push(next, DST, from->post ? MIG_MSG_SEALED_POST : MIG_MSG_SEALED);
	}
	if ((side->jobs & JOB_PROMISE) != 0) {
		next = move(moves, from);
		next->sides[who].jobs &= (uint8_t)~JOB_PROMISE;
		happens(next, who, MIG_EV_PROMISED);
	}
	if ((side->jobs & JOB_CHECK) != 0) {
		next = move(moves, from);
		next->sides[who].jobs &= (uint8_t)~JOB_CHECK;
		next->record = RECORD_ALL_HERE;
		happens(next, who, MIG_EV_CHECKED);
	}
	if ((side->jobs & JOB_RUN) != 0) {
		next = move(moves, from);
		next->sides[who].jobs &= (uint8_t)~JOB_RUN;
		next->ran_there |= who == DST;
		happens(next, who, MIG_EV_RUNS);
	}
}

static void message_moves(struct moves *moves, const struct world *from, enum who who)
{
	const struct side *side = &from->sides[who];
	struct mig_event event = { .kind = MIG_EV_MESSAGE };
	struct world *next = NULL;

	if (side->queue[0] == 0)
		return;
	next = move(moves, from);
	if (side->queue[0] == HEARS_LOST)
		event.kind = MIG_EV_LINK_LOST;
	else if (side->queue[0] == HEARS_BACK)
		event.kind = MIG_EV_LINK_BACK;
	else
		event.message = (enum mig_message)side->queue[0];
	memmove(next->sides[who].queue, next->sides[who].queue + 1, QUEUE_MAX - 1);
	next->sides[who].queue[QUEUE_MAX - 1] = 0;
	step(next, who, &event);
}

/* An answer is what the register was at one instant after the question. */
static void answer_moves(struct moves *moves, const struct world *from, enum who who)
{
	const struct side *side = &from->sides[who];
	struct world *next = NULL;

	if (side->answer_epoch != 0) {
		const struct mig_event event = { .kind = MIG_EV_ARBITER,
						 .epoch = side->answer_epoch,
						 .owner = (enum mig_side)side->answer_owner };

		next = move(moves, from);
		next->sides[who].answer_epoch = 0;
		next->sides[who].answer_owner = 0;
		next->sides[who].asks = 0;
		step(next, who, &event);
	} else if (side->asks) {
		next = move(moves, from);
		next->sides[who].answer_epoch = from->epoch;
		next->sides[who].answer_owner = from->owner;
	}
}

static void worker_moves(struct moves *moves, const struct world *from, enum who who)
{
	const struct side *side = &from->sides[who];
	struct world *next = NULL;

	if (side->dead)
		return;
	job_moves(moves, from, who);
	message_moves(moves, from, who);
	answer_moves(moves, from, who);
	if (side->retry && !machine_is_over(from, who) && !side->asks) {
		next = move(moves, from);
		next->sides[who].retry = 0;
		happens(next, who, MIG_EV_RETRY);
	}
	if (who == DST && side->state == MIG_DST_READY && from->sides[SRC].dead) { /* in time */
		next = move(moves, from);
		happens(next, DST, MIG_EV_GIVE_UP);
	}
	if (who == SRC && (side->state == MIG_SRC_LINKING || side->state == MIG_SRC_COPYING)) {
		next = move(moves, from);
		happens(next, SRC,
			side->state == MIG_SRC_LINKING ? MIG_EV_LINKED
			: from->post                   ? MIG_EV_SWITCH_POST
						       : MIG_EV_SWITCH);
	}
}

static void die(struct world *world, enum who who);

/* Pages come while both are there and hear of each other; where the source has none any more, the
 * VM cannot go on, and who manages it restarts it from its disks. */
static void fill_moves(struct moves *moves, const struct world *from)
{
	const struct side *sides = from->sides;
	struct world *next = NULL;

	if (sides[DST].dead || sides[DST].state != MIG_DST_FILLING || from->filled)
		return;
	if (from->link && !sides[SRC].dead && sides[SRC].has &&
	    sides[SRC].state == MIG_SRC_SERVING) {
		next = move(moves, from);
		next->filled = 1;
		happens(next, DST, MIG_EV_FILLED);
	}
	if (!sides[SRC].dead && sides[SRC].has)
		return;
	next = move(moves, from);
	next->link = 0;
	die(next, DST);
}

/* The keeper of a node whose worker died: it asks as the worker would have, and has the record. */
static void keeper_moves(struct moves *moves, const struct world *from)
{
	struct world *next = NULL;

	if (from->sides[SRC].dead && !from->restarted[SRC] && from->sides[SRC].has &&
	    from->sides[SRC].state != MIG_SRC_STAYS && from->owner == MIG_SOURCE) {
		next = move(moves, from);
		cas_apply(next, CAS_KEEP);
		if (next->owner == MIG_SOURCE)
			next->restarted[SRC] = 1;
	}
	if (!from->sides[DST].dead || from->restarted[DST] || from->record == RECORD_NONE)
		return;
	next = move(moves, from);
	if (from->record == RECORD_ALL_HERE) {
		cas_apply(next, CAS_WITHDRAW);
		cas_apply(next, CAS_BACK);
		next->record = RECORD_NONE;
	} else {
		next->restarted[DST] = 1;
		next->ran_there = 1;
	}
}

/* What a dead destination's node tells the source, once it is there again. */
static void told_by_keeper(struct world *world)
{
	struct mig_event event = { .kind = MIG_EV_MESSAGE };

	event.message = MIG_MSG_FAILED;
	if (world->restarted[DST])
		event.message = world->post ? MIG_MSG_COMPLETE : MIG_MSG_RUNNING;
	step(world, SRC, &event);
}

static void network_moves(struct moves *moves, const struct world *from)
{
	const struct side *sides = from->sides;
	struct world *next = NULL;

	/* The source connects again, when it has heard of the loss; the destination may be behind
	 * with all that. */
	if (!from->link && !sides[SRC].dead && !sides[DST].dead && sides[SRC].queue[0] == 0) {
		next = move(moves, from);
		next->link = 1;
		put(&next->sides[SRC], HEARS_BACK);
		put(&next->sides[DST], HEARS_BACK);
	}
	if (!from->link && sides[DST].dead && !sides[SRC].dead && sides[SRC].queue[0] == 0 &&
	    (from->restarted[DST] || from->record == RECORD_NONE) && !machine_is_over(from, SRC)) {
		next = move(moves, from);
		told_by_keeper(next);
	}
	for (uint32_t i = 0; i < CASES; i++)
		if ((from->flying & 1u << i) != 0) {
			next = move(moves, from);
			next->flying &= (uint8_t) ~(1u << i);
			cas_apply(next, (enum cas)i);
		}
}

/* Messages at the end of the queue, which a cut may lose. */
static uint32_t under_way(const struct side *side)
{
	uint32_t count = queued(side);
	uint32_t at = count;

	while (at > 0 && side->queue[at - 1] < HEARS_LOST)
		at--;
	return count - at;
}

static void lose(struct side *side, uint32_t lost)
{
	uint32_t count = queued(side);

	memset(side->queue + count - lost, 0, lost);
	if (!side->dead)
		put(side, HEARS_LOST);
}

static void die(struct world *world, enum who who)
{
	struct side *side = &world->sides[who];
	uint8_t has = side->has;
	uint8_t state = side->state;

	if (who == SRC && side->may_run && state == MIG_SRC_STAYS)
		world->restarted[SRC] = 1; /* a VM that crashes is no matter of a migration's */
	if (who == DST && (state == MIG_DST_RUNNING || state == MIG_DST_FILLING))
		world->restarted[DST] = 1;
	*side = (struct side){ .dead = 1, .has = has, .state = state };
}

/* The connection ends, with each number of messages lost that were on their way to either side; and
 * @dead, unless it is none, with it. */
static void cut_moves(struct moves *moves, const struct world *from, enum who dead)
{
	uint32_t to_source = dead == SRC || !from->link ? 0 : under_way(&from->sides[SRC]);
	uint32_t to_destination = dead == DST || !from->link ? 0 : under_way(&from->sides[DST]);

	for (uint32_t i = 0; i <= to_source; i++)
		for (uint32_t k = 0; k <= to_destination; k++) {
			struct world *next = move(moves, from);

			if (dead < SIDES) {
				next->deaths--;
				die(next, dead);
			} else {
				next->cuts--;
			}
			if (!from->link)
				continue;
			next->link = 0;
			if (dead != SRC)
				lose(&next->sides[SRC], i);
			if (dead != DST)
				lose(&next->sides[DST], k);
		}
}

static void fault_moves(struct moves *moves, const struct world *from, enum who who)
{
	const struct side *side = &from->sides[who];
	struct world *next = NULL;

	if (side->dead)
		return;
	if (from->deaths > 0)
		cut_moves(moves, from, who);
	/* The answer, or the question, is lost. */
	if (side->asks && from->unknowns > 0) {
		next = move(moves, from);
		next->unknowns--;
		next->sides[who].asks = 0;
		next->sides[who].answer_epoch = 0;
		next->sides[who].answer_owner = 0;
		happens(next, who, MIG_EV_ARBITER_UNKNOWN);
	}
	if (from->faults > 0 && !machine_is_over(from, who)) {
		next = move(moves, from);
		next->faults--;
		happens(next, who, MIG_EV_FAULT);
		if ((side->jobs & JOB_RUN) != 0) {
			next = move(moves, from);
			next->faults--;
			next->sides[who].jobs &= (uint8_t)~JOB_RUN;
			next->sides[who].may_run = 0;
			if (who == DST)
				next->record = RECORD_ALL_HERE;
			happens(next, who, MIG_EV_RUN_FAILED);
		}
	}
	if (from->cancels > 0 && !machine_is_over(from, who)) {
		next = move(moves, from);
		next->cancels--;
		next->given_up |=
			who == SRC && side->state == MIG_SRC_SERVING && (side->flags & 4u) != 0;
		next->ended_there |= who == DST && side->state == MIG_DST_FILLING;
		happens(next, who, who == SRC ? MIG_EV_CANCEL : MIG_EV_GIVE_UP);
	}
}

static void all_moves(const struct world *from, struct moves *moves)
{
	moves->count = 0;
	worker_moves(moves, from, SRC);
	worker_moves(moves, from, DST);
	keeper_moves(moves, from);
	network_moves(moves, from);
	fill_moves(moves, from);
	moves->good_count = moves->count;
	fault_moves(moves, from, SRC);
	fault_moves(moves, from, DST);
	if (from->link && from->cuts > 0)
		cut_moves(moves, from, SIDES);
}

/* --- what must never happen --- */

static uint32_t running(const struct world *world)
{
	return (uint32_t)(world->sides[SRC].may_run + world->sides[DST].may_run +
			  world->restarted[SRC] + world->restarted[DST]);
}

static void check(const struct world *world)
{
	cr_assert_leq(
		running(world), 1, "two VMs: %s and %s, register %u of %u",
		mig_source_state_name((enum mig_source_state)world->sides[SRC].state),
		mig_destination_state_name((enum mig_destination_state)world->sides[DST].state),
		world->epoch, world->owner);
}

static bool is_good_end(const struct world *world)
{
	return running(world) == 1 && (world->sides[SRC].dead || machine_is_over(world, SRC)) &&
	       (world->sides[DST].dead || machine_is_over(world, DST));
}

/* --- the search --- */

static uint32_t hash_of(const struct world *world)
{
	const uint8_t *bytes = (const uint8_t *)world;
	uint64_t hash = 14695981039346656037ULL;

	for (size_t i = 0; i < sizeof(*world); i++)
		hash = (hash ^ bytes[i]) * 1099511628211ULL;
	return (uint32_t)(hash ^ hash >> 29);
}

/* The index of @world; a new one is put behind the others. */
static uint32_t index_of(const struct world *world)
{
	uint32_t at = hash_of(world) % TABLE_SIZE;

	while (table[at] != 0) {
		if (memcmp(&states[table[at] - 1], world, sizeof(*world)) == 0)
			return table[at] - 1;
		at = (at + 1) % TABLE_SIZE;
	}
	cr_assert_lt(state_count, STATES_MAX);
	states[state_count] = *world;
	table[at] = ++state_count;
	check(world);
	return state_count - 1;
}

static struct world first(void)
{
	struct mig_source source = mig_source_begin(EPOCH);
	struct mig_destination destination = mig_destination_begin(EPOCH);
	struct world world;

	memset(&world, 0, sizeof(world));
	world.sides[SRC].state = (uint8_t)source.state;
	world.sides[SRC].epoch = EPOCH;
	world.sides[SRC].may_run = 1;
	world.sides[SRC].has = 1;
	world.sides[DST].state = (uint8_t)destination.state;
	world.sides[DST].epoch = EPOCH;
	world.sides[DST].has = 1;
	world.epoch = EPOCH;
	world.owner = MIG_SOURCE;
	world.link = 1;
	return world;
}

/* States from which a good end can be reached without a fault, from the ends backwards. */
static void mark_good(void)
{
	bool more = true;
	static struct moves moves;

	while (more) {
		more = false;
		for (uint32_t i = state_count; i-- > 0;) {
			if (good[i])
				continue;
			all_moves(&states[i], &moves);
			if (moves.good_count == 0)
				good[i] = is_good_end(&states[i]);
			for (uint32_t k = 0; k < moves.good_count && !good[i]; k++)
				good[i] = good[index_of(&moves.next[k])];
			more = more || good[i];
		}
	}
}

static void search(struct world world)
{
	static struct moves moves;

	states = calloc(STATES_MAX, sizeof(*states));
	table = calloc(TABLE_SIZE, sizeof(*table));
	good = calloc(STATES_MAX, sizeof(*good));
	cr_assert(states != NULL && table != NULL && good != NULL);
	state_count = 0;
	(void)index_of(&world);
	for (uint32_t i = 0; i < state_count; i++) {
		all_moves(&states[i], &moves);
		for (uint32_t k = 0; k < moves.count; k++)
			(void)index_of(&moves.next[k]);
	}
	mark_good();
	for (uint32_t i = 0; i < state_count; i++)
		cr_assert(good[i], "stuck: %s, %s, register %u of %u, record %u",
			  mig_source_state_name((enum mig_source_state)states[i].sides[SRC].state),
			  mig_destination_state_name(
				  (enum mig_destination_state)states[i].sides[DST].state),
			  states[i].epoch, states[i].owner, states[i].record);
	cr_log_info("%u states", state_count);
	free(states);
	free(table);
	free(good);
}

Test(mig_switch_model, without_faults)
{
	search(first());
}

Test(mig_switch_model, the_connection_and_the_arbiter_fail, .timeout = 600)
{
	struct world world = first();

	world.cuts = 2;
	world.unknowns = 2;
	search(world);
}

Test(mig_switch_model, a_worker_dies, .timeout = 600)
{
	struct world world = first();

	world.deaths = 1;
	world.unknowns = 1;
	world.cuts = 1;
	world.faults = 1;
	search(world);
}

Test(mig_switch_model, people_and_faults, .timeout = 600)
{
	struct world world = first();

	world.cancels = depth_stride() == 1 ? 2 : 1;
	world.faults = 1;
	world.unknowns = 1;
	world.cuts = 1;
	search(world);
}

/* Two of each of two kinds, at any two steps, in any order. */
Test(mig_switch_model, each_pair_of_kinds, .timeout = 900)
{
	uint8_t most = depth_stride() == 1 ? 2 : 1;

	for (uint32_t i = 0; i < 5; i++)
		for (uint32_t k = i + 1; k < 5; k++) {
			struct world world = first();
			uint8_t *const budgets[] = { &world.cuts, &world.deaths, &world.cancels,
						     &world.faults, &world.unknowns };

			*budgets[i] = most;
			*budgets[k] = most;
			search(world);
		}
}

/* Budgets as in struct world: cuts, deaths, cancels, faults, unknowns. */
Test(mig_switch_model, post_copy, .timeout = 900)
{
	static const uint8_t budgets[][5] = {
		{ 0, 0, 0, 0, 0 }, { 2, 0, 1, 0, 1 }, { 1, 2, 0, 1, 0 }, { 1, 1, 1, 0, 0 }
	};

	for (size_t i = 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
		struct world world = first();

		world.post = 1;
		memcpy(&world.cuts, budgets[i], sizeof(budgets[i]));
		search(world);
	}
}

Test(mig_switch_model, all_of_it, .timeout = 600)
{
	struct world world = first();

	world.cuts = 1;
	world.deaths = 2;
	world.cancels = 1;
	world.faults = 1;
	world.unknowns = 1;
	search(world);
}
