/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an operator may decide: docs/migrate/records.md, section 6.  First record by record; then
 * with both machines of the switchover on records in two directories, cut off from each other at
 * each step of the way: whatever true word is given on which side, never two, and one in the end.
 */
#include "migrate/mig_resolve.h"

#include <errno.h>

#include "migrate/mig_switch.h"
#include "tests/unit/migrate/mig_records_rig.h"

/* --- record by record --- */

static void put(const struct mig_record *record)
{
	static const char *const files[] = { NULL, "web.register", "web.promise" };
	uint8_t bytes[MIG_RECORD_BYTES];
	int fd = openat(folder_fd, files[record->kind], O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC,
			0600);

	cr_assert_eq(mig_record_check(record, &err), 0, "%s", err.text);
	mig_record_encode(record, bytes);
	cr_assert_eq(base_write_all(fd, bytes, sizeof(bytes)), 0);
	(void)close(fd);
}

static struct mig_record record_of(enum mig_record_state state, uint64_t epoch, enum mig_side owner)
{
	struct mig_record record = {
		.kind = state >= MIG_HELD_PROMISED && state != MIG_HELD_COMING
				? MIG_RECORD_PROMISE
				: MIG_RECORD_REGISTER,
		.state = state,
		.now = { .epoch = epoch, .owner = owner },
		.from_epoch = 7,
		.id = "migration one..",
		.name = "web",
		.peer = "10.0.0.1:7011",
	};

	return record;
}

struct outcome {
	int code;
	uint64_t epoch; /* afterwards */
	enum mig_side owner;
};

static void expect_outcome(const struct mig_record *record, const struct mig_resolve *resolve,
			   const struct outcome *wanted)
{
	struct mig_record after = { 0 };
	struct mig_record told = { 0 };
	int code;

	put(record);
	code = mig_resolve_decide(records, "web", resolve, &told, &err);
	cr_assert_eq(code, wanted->code, "%s (%d, %d) %s: %d %s",
		     mig_record_state_name(record->state), (int)record->now.epoch,
		     (int)record->now.owner, resolve->here ? "here" : "there", code, err.text);
	after = on_disk(record->kind);
	if (code <= 0 || resolve->dry_run) {
		after.written_s = record->written_s;
		cr_assert_eq(memcmp(&after, record, sizeof(after)), 0, "nothing was to change");
	} else {
		cr_assert_eq(memcmp(&after, &told, sizeof(after)), 0);
	}
	if (code >= 0) {
		cr_assert_eq(told.now.epoch, wanted->epoch);
		cr_assert_eq(told.now.owner, wanted->owner);
	}
}

#define IS_SO(epoch, owner)                                                                        \
	{                                                                                          \
		0, epoch, owner                                                                    \
	}
#define DECIDED(epoch, owner)                                                                      \
	{                                                                                          \
		1, epoch, owner                                                                    \
	}
#define REFUSED                                                                                    \
	{                                                                                          \
		-EPROTO, 0, MIG_SIDE_INVALID                                                       \
	}

/* The table of the page: here without the word, here with it, there. */
static const struct row {
	enum mig_record_state state;
	uint64_t epoch;
	enum mig_side owner;
	bool in_doubt;
	struct outcome here_alone;
	struct outcome here;
	struct outcome there;
} rows[] = {
	{ MIG_HELD_ALL_HERE, 7, MIG_SOURCE, true, REFUSED, DECIDED(8, MIG_DESTINATION),
	  DECIDED(8, MIG_SOURCE) },
	{ MIG_HELD_COMING, 7, MIG_SOURCE, false, REFUSED, REFUSED, IS_SO(7, MIG_SOURCE) },
	{ MIG_HELD_ALL_HERE, 8, MIG_DESTINATION, false, IS_SO(8, MIG_DESTINATION),
	  IS_SO(8, MIG_DESTINATION), DECIDED(9, MIG_SOURCE) },
	{ MIG_HELD_ALL_HERE, 8, MIG_SOURCE, false, REFUSED, REFUSED, IS_SO(8, MIG_SOURCE) },
	{ MIG_HELD_ALL_HERE, 9, MIG_SOURCE, false, REFUSED, REFUSED, IS_SO(9, MIG_SOURCE) },
	{ MIG_HELD_LEFT, 8, MIG_SOURCE, false, REFUSED, REFUSED, IS_SO(8, MIG_SOURCE) },
	{ MIG_HELD_LEFT, 9, MIG_SOURCE, false, REFUSED, REFUSED, IS_SO(9, MIG_SOURCE) },
	{ MIG_HELD_ACTIVATING, 8, MIG_DESTINATION, false, IS_SO(8, MIG_DESTINATION),
	  IS_SO(8, MIG_DESTINATION), REFUSED },
	{ MIG_HELD_RUNS, 8, MIG_DESTINATION, false, IS_SO(8, MIG_DESTINATION),
	  IS_SO(8, MIG_DESTINATION), REFUSED },
	{ MIG_HELD_PROMISED, 7, MIG_SOURCE, true, REFUSED, DECIDED(9, MIG_SOURCE),
	  DECIDED(9, MIG_DESTINATION) },
	{ MIG_HELD_RESOLVED, 9, MIG_SOURCE, false, IS_SO(9, MIG_SOURCE), IS_SO(9, MIG_SOURCE),
	  REFUSED },
	{ MIG_HELD_RESOLVED, 9, MIG_DESTINATION, false, REFUSED, REFUSED,
	  IS_SO(9, MIG_DESTINATION) },
	{ MIG_HELD_OVER, 8, MIG_DESTINATION, false, REFUSED, DECIDED(9, MIG_SOURCE),
	  IS_SO(8, MIG_DESTINATION) },
	{ MIG_HELD_OVER, 8, MIG_SOURCE, false, IS_SO(8, MIG_SOURCE), IS_SO(8, MIG_SOURCE),
	  REFUSED },
	{ MIG_HELD_OVER, 9, MIG_SOURCE, false, IS_SO(9, MIG_SOURCE), IS_SO(9, MIG_SOURCE),
	  REFUSED },
};

Test(mig_resolve, every_record, .init = begin, .fini = end)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];
		struct mig_record record = record_of(row->state, row->epoch, row->owner);

		cr_assert_eq(mig_record_in_doubt(&record), row->in_doubt);
		for (int dry = 0; dry < 2; dry++) {
			struct mig_resolve resolve = { .here = true, .dry_run = dry != 0 };

			expect_outcome(&record, &resolve, &row->here_alone);
			resolve.other_is_dead = true;
			expect_outcome(&record, &resolve, &row->here);
			resolve.here = false;
			expect_outcome(&record, &resolve, &row->there);
			resolve.other_is_dead = false;
			expect_outcome(&record, &resolve, &row->there);
		}
		wipe();
	}
}

Test(mig_resolve, refusals_are_one_line_with_the_reason, .init = begin, .fini = end)
{
	struct mig_record record = record_of(MIG_HELD_ALL_HERE, 7, MIG_SOURCE);
	struct mig_resolve here = { .here = true };
	struct mig_record after;

	put(&record);
	cr_assert_eq(mig_resolve_decide(records, "web", &here, &after, &err), -EPROTO);
	cr_assert_str_eq(err.text, "'web', register (7, source), all here: the source may run it: "
				   "expected --other-is-dead, the word that its worker is dead, or "
				   "waits in doubt");
	cr_assert_eq(mig_resolve_decide(records, "db", &here, &after, &err), -ENOENT);
	cr_assert_str_eq(err.text, "'db': there is no record of a migration");
	cr_assert_eq(mig_resolve_decide(records, "../web", &here, &after, &err), -EINVAL);
	cr_assert_eq(mig_resolve_look(records, "db", &after, &err), -ENOENT);
}

Test(mig_resolve, of_two_records_the_later_counts, .init = begin, .fini = end)
{
	struct mig_record here = record_of(MIG_HELD_RUNS, 8, MIG_DESTINATION);
	struct mig_record promise = record_of(MIG_HELD_PROMISED, 8, MIG_SOURCE);
	struct mig_record found;

	memcpy(promise.id, id_two, sizeof(promise.id));
	promise.from_epoch = 8;
	put(&here);
	put(&promise);
	cr_assert_eq(mig_resolve_look(records, "web", &found, &err), 0);
	cr_assert_eq(found.kind, MIG_RECORD_PROMISE);
	here.from_epoch = 9; /* it has come back */
	here.now.epoch = 10;
	put(&here);
	cr_assert_eq(mig_resolve_look(records, "web", &found, &err), 0);
	cr_assert_eq(found.kind, MIG_RECORD_REGISTER);
	memcpy(promise.id, id_one, sizeof(promise.id));
	put(&promise);
	cr_assert_eq(mig_resolve_look(records, "web", &found, &err), -EPROTO);
	cr_assert_not_null(strstr(err.text, "both sides of one migration"));
}

Test(mig_resolve, damaged_is_not_decided, .init = begin, .fini = end)
{
	struct mig_record record = record_of(MIG_HELD_PROMISED, 7, MIG_SOURCE);
	struct mig_resolve there = { .here = false };
	struct mig_record after;
	int fd;

	put(&record);
	fd = openat(folder_fd, "web.register", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	(void)close(fd);
	cr_assert_eq(mig_resolve_look(records, "web", &after, &err), -EBADMSG);
	cr_assert_eq(mig_resolve_decide(records, "web", &there, &after, &err), -EBADMSG);
	cr_assert_eq(on_disk(MIG_RECORD_PROMISE).state, MIG_HELD_PROMISED);
}

/* --- both machines on their records --- */

#define QUEUE_MAX 64

struct side {
	struct mig_records *records;
	struct mig_keep keep;
	struct mig_event queue[QUEUE_MAX];
	uint32_t first, count;
	int folder_fd;
	char folder[48];
	bool dead;
	bool runs;
	bool retries;
	bool released;
};

static struct side src;
static struct side dst;
static struct mig_source source;
static struct mig_destination destination;
static bool cut;

static void side_begin(struct side *side, const char *peer)
{
	memset(side, 0, sizeof(*side));
	make_folder(side->folder);
	side->folder_fd = open(side->folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cr_assert_eq(mig_records_new(side->folder_fd, NULL, &side->records, &err), 0);
	cr_assert_eq(mig_keep_init(&side->keep, side->records, "web", peer, id_one, &err), 0);
}

static void side_end(struct side *side)
{
	(void)unlinkat(side->folder_fd, "web.register", 0);
	(void)unlinkat(side->folder_fd, "web.promise", 0);
	mig_records_free(side->records);
	(void)close(side->folder_fd);
	cr_assert_eq(rmdir(side->folder), 0);
}

static void post(struct side *side, const struct mig_event *event)
{
	if (side->dead)
		return;
	cr_assert_lt(side->count, QUEUE_MAX);
	side->queue[(side->first + side->count++) % QUEUE_MAX] = *event;
}

static void post_kind(struct side *side, enum mig_event_kind kind)
{
	const struct mig_event event = { .kind = kind };

	post(side, &event);
}

static void say(struct side *to, enum mig_message message)
{
	const struct mig_event event = { .kind = MIG_EV_MESSAGE, .message = message };

	if (!cut)
		post(to, &event);
}

static void answer(struct side *to, int code, const struct mig_register *now)
{
	const struct mig_event event = { .kind = code == 0 ? MIG_EV_ARBITER
							   : MIG_EV_ARBITER_UNKNOWN,
					 .epoch = now->epoch,
					 .owner = now->owner };

	post(to, &event);
}

static void starts(struct side *side)
{
	side->runs = true;
	cr_assert(!src.runs || !dst.runs, "two of it");
}

/* A question of the source's: of the destination, or where that is not there, of the operator. */
static void source_asks(uint64_t epoch, enum mig_side owner)
{
	struct mig_register now = { 0 };
	int code = -ETIMEDOUT;

	if (!cut && !dst.dead)
		code = owner == MIG_SIDE_INVALID
			       ? mig_register_read(&dst.keep, &now, NULL)
			       : mig_register_ask(&dst.keep, epoch, owner, &now, NULL);
	else if (mig_promise_answer(&src.keep, &now, &err) == 1)
		code = 0;
	answer(&src, code, &now);
}

static void source_does(const struct mig_action *action)
{
	switch ((uint32_t)action->kind) {
	case MIG_DO_PAUSE:
		src.runs = false;
		post_kind(&src, MIG_EV_PAUSED);
		break;
	case MIG_DO_SEND_REST:
		say(&dst, MIG_MSG_SEALED);
		break;
	case MIG_DO_PROMISE:
		cr_assert_eq(mig_promise_make(&src.keep, source.epoch, &err), 0, "%s", err.text);
		post_kind(&src, MIG_EV_PROMISED);
		break;
	case MIG_DO_SEND:
		say(&dst, action->message);
		break;
	case MIG_DO_ASK:
	case MIG_DO_READ:
		source_asks(action->epoch, action->owner);
		break;
	case MIG_DO_RUN:
		cr_assert_eq(mig_promise_end(&src.keep, false, action->epoch, &err), 0);
		starts(&src);
		post_kind(&src, MIG_EV_RUNS);
		break;
	case MIG_DO_RELEASE:
		src.released = true;
		cr_assert_eq(mig_promise_end(&src.keep, true, source.epoch, &err), 0);
		break;
	case MIG_DO_RETRY:
		src.retries = true;
		break;
	default:
		cr_assert(false, "source: action %d", (int)action->kind);
	}
}

static void destination_runs(uint64_t epoch)
{
	if (mig_register_activate(&dst.keep, epoch, NULL) < 0) {
		(void)!mig_register_untouched(&dst.keep, NULL);
		post_kind(&dst, MIG_EV_RUN_FAILED);
		return;
	}
	starts(&dst);
	cr_assert_eq(mig_register_runs(&dst.keep, &err), 0);
	post_kind(&dst, MIG_EV_RUNS);
}

static void destination_does(const struct mig_action *action)
{
	struct mig_register now = { 0 };
	int code;

	switch ((uint32_t)action->kind) {
	case MIG_DO_CHECK:
		cr_assert_eq(mig_register_begin(&dst.keep, 7, &err), 0, "%s", err.text);
		post_kind(&dst, MIG_EV_CHECKED);
		break;
	case MIG_DO_SEND:
		say(&src, action->message);
		break;
	case MIG_DO_ASK:
		code = mig_register_ask(&dst.keep, action->epoch, action->owner, &now, NULL);
		answer(&dst, code, &now);
		break;
	case MIG_DO_READ:
		code = mig_register_read(&dst.keep, &now, NULL);
		answer(&dst, code, &now);
		break;
	case MIG_DO_RUN:
		destination_runs(action->epoch);
		break;
	case MIG_DO_RELEASE:
		dst.released = true;
		cr_assert_eq(mig_register_leave(&dst.keep, &err), 0, "%s", err.text);
		break;
	case MIG_DO_RETRY:
		dst.retries = true;
		break;
	default:
		cr_assert(false, "destination: action %d", (int)action->kind);
	}
}

/* The next event of one side.  False: there is none. */
static bool turn(struct side *side)
{
	struct mig_actions actions;
	struct mig_event event;

	if (side->dead || side->count == 0)
		return false;
	event = side->queue[side->first];
	side->first = (side->first + 1) % QUEUE_MAX;
	side->count--;
	if (side == &src)
		source = mig_source_step(source, &event, &actions);
	else
		destination = mig_destination_step(destination, &event, &actions);
	for (uint32_t i = 0; i < actions.count && !side->dead; i++)
		(side == &src ? source_does : destination_does)(&actions.list[i]);
	return true;
}

/* Until nothing comes of retrying any more. */
static void settle(void)
{
	for (uint32_t i = 0; i < 6; i++) {
		while (turn(&src) || turn(&dst))
			continue;
		if (src.retries)
			post_kind(&src, MIG_EV_RETRY);
		if (dst.retries)
			post_kind(&dst, MIG_EV_RETRY);
		src.retries = false;
		dst.retries = false;
	}
	while (turn(&src) || turn(&dst))
		continue;
	src.retries = true;
	dst.retries = true;
}

static void dies(struct side *side)
{
	side->dead = true;
	side->runs = false;
}

/* A move that is cut off after @steps turns.  False: it was over before. */
static bool move_until(uint32_t steps)
{
	bool busy = true;

	cut = false;
	side_begin(&src, "10.0.0.2:7011");
	side_begin(&dst, "10.0.0.1:7011");
	source = mig_source_begin(7);
	destination = mig_destination_begin(7);
	src.runs = true;
	post_kind(&src, MIG_EV_LINKED);
	post_kind(&src, MIG_EV_SWITCH);
	for (uint32_t i = 0; busy && i < steps; i++)
		busy = i % 2 == 0 ? turn(&src) || turn(&dst) : turn(&dst) || turn(&src);
	cut = true;
	post_kind(&src, MIG_EV_LINK_LOST);
	post_kind(&dst, MIG_EV_LINK_LOST);
	return busy;
}

static int decide(struct side *side, bool here, bool word)
{
	const struct mig_resolve resolve = { .here = here, .other_is_dead = word };
	struct mig_record after;
	int code = mig_resolve_decide(side->records, "web", &resolve, &after, &err);

	settle();
	return code;
}

static bool in_doubt(struct side *side)
{
	struct mig_record record;

	return mig_resolve_look(side->records, "web", &record, NULL) == 0 &&
	       mig_record_in_doubt(&record);
}

static void heal(void)
{
	cut = false;
	post_kind(&src, MIG_EV_LINK_BACK);
	post_kind(&dst, MIG_EV_LINK_BACK);
	settle();
}

static void expect_one(uint32_t steps, const char *what)
{
	cr_assert(src.runs != dst.runs, "%s, cut after %u: %s, %s", what, steps,
		  mig_source_state_name(source.state),
		  mig_destination_state_name(destination.state));
	side_end(&src);
	side_end(&dst);
}

/* Nobody says anything: both wait, until they hear of each other. */
Test(mig_resolve, without_an_operator_they_wait, .timeout = 60)
{
	uint32_t doubts = 0;

	for (uint32_t steps = 0; move_until(steps); steps++) {
		settle();
		settle();
		if (!src.runs && !dst.runs) {
			doubts++;
			cr_assert(in_doubt(&src) || in_doubt(&dst));
			cr_assert_eq(decide(&src, true, false), -EPROTO);
			cr_assert_neq(decide(&dst, true, false), 1);
			cr_assert(!src.runs && !dst.runs);
		}
		heal();
		expect_one(steps, "healed");
	}
	cr_assert_gt(doubts, 0);
	side_end(&src);
	side_end(&dst);
}

/* The destination gives it back; the source hears of that when they meet again. */
Test(mig_resolve, at_the_destination_there, .timeout = 60)
{
	for (uint32_t steps = 0; move_until(steps); steps++) {
		settle();
		if (in_doubt(&dst))
			cr_assert_eq(decide(&dst, false, false), 1, "%s", err.text);
		heal();
		expect_one(steps, "given back");
	}
	side_end(&src);
	side_end(&dst);
}

/* ... or by its own operator, who has seen that it was given back. */
Test(mig_resolve, at_the_destination_there_then_at_the_source_here, .timeout = 60)
{
	uint32_t decided = 0;

	for (uint32_t steps = 0; move_until(steps); steps++) {
		settle();
		if (in_doubt(&dst))
			cr_assert_eq(decide(&dst, false, false), 1, "%s", err.text);
		if (in_doubt(&src) && !dst.runs && dst.released) {
			cr_assert_eq(decide(&src, true, true), 1, "%s", err.text);
			cr_assert(src.runs);
			cr_assert_eq(source.epoch, 9);
			decided++;
		}
		heal();
		expect_one(steps, "given back by hand");
	}
	cr_assert_gt(decided, 0);
	side_end(&src);
	side_end(&dst);
}

/* The source waits in doubt, which its operator has seen. */
Test(mig_resolve, at_the_destination_here, .timeout = 60)
{
	uint32_t decided = 0;

	for (uint32_t steps = 0; move_until(steps); steps++) {
		settle();
		if (in_doubt(&src) && in_doubt(&dst)) {
			cr_assert_eq(decide(&dst, true, true), 1, "%s", err.text);
			cr_assert(dst.runs);
			cr_assert_not(src.runs);
			cr_assert_eq(decide(&dst, false, true), -EPROTO,
				     "its activation had begun");
			decided++;
		}
		heal();
		expect_one(steps, "taken");
	}
	cr_assert_gt(decided, 0);
	side_end(&src);
	side_end(&dst);
}

Test(mig_resolve, the_source_is_dead, .timeout = 60)
{
	for (uint32_t steps = 0; move_until(steps); steps++) {
		dies(&src);
		settle();
		if (in_doubt(&dst)) {
			cr_assert_eq(decide(&dst, true, false), -EPROTO);
			cr_assert_not(dst.runs);
			cr_assert_eq(decide(&dst, true, true), 1, "%s", err.text);
			cr_assert(dst.runs);
		}
		/* Else it had not come to the question, or it runs there. */
		cr_assert(dst.runs || dst.released);
		side_end(&src);
		side_end(&dst);
	}
	side_end(&src);
	side_end(&dst);
}

/* Dead for good.  Where it had begun to run, the word is about what it had. */
Test(mig_resolve, the_destination_is_dead, .timeout = 60)
{
	uint32_t decided = 0;

	for (uint32_t steps = 0; move_until(steps); steps++) {
		dies(&dst);
		settle();
		if (!src.runs && !src.released) {
			cr_assert(in_doubt(&src));
			cr_assert_eq(decide(&src, true, false), -EPROTO);
			cr_assert_not(src.runs);
			cr_assert_eq(decide(&src, true, true), 1, "%s", err.text);
			cr_assert(src.runs);
			cr_assert_eq(source.epoch, 9);
			decided++;
		}
		cr_assert(src.runs || src.released);
		side_end(&src);
		side_end(&dst);
	}
	cr_assert_gt(decided, 0);
	side_end(&src);
	side_end(&dst);
}

/* It runs there, and the source will never hear of it again: it gives its memory up. */
Test(mig_resolve, at_the_source_there, .timeout = 60)
{
	uint32_t decided = 0;

	for (uint32_t steps = 0; move_until(steps); steps++) {
		settle();
		if (in_doubt(&src) && dst.runs) {
			cr_assert_eq(decide(&src, false, false), 1, "%s", err.text);
			cr_assert(src.released);
			cr_assert_not(in_doubt(&src));
			decided++;
		}
		heal();
		expect_one(steps, "left there");
	}
	cr_assert_gt(decided, 0);
	side_end(&src);
	side_end(&dst);
}

/* --- any order --- */

static uint64_t seed;
static uint32_t said;

static uint32_t draw(uint32_t below)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(seed >> 33) % below;
}

static bool source_waits(void)
{
	return !src.dead && in_doubt(&src) &&
	       (source.state == MIG_SRC_ASKING || source.state == MIG_SRC_COMMITTED);
}

static struct mig_record register_of(struct side *side)
{
	struct mig_record record = { 0 };

	(void)!mig_records_load(side->records, MIG_RECORD_REGISTER, "web", &record, NULL);
	return record;
}

/* What an operator who has looked at both sides may say.  True: something was decided. */
static bool operator_says(void)
{
	struct mig_record now = register_of(&dst);
	struct mig_resolve resolve = { .here = draw(2) == 0, .other_is_dead = true };
	bool at_source = draw(2) == 0;
	struct mig_record after;

	if (at_source && resolve.here && !dst.dead && !mig_record_given_back(&now) &&
	    now.kind != MIG_RECORD_INVALID)
		return false;
	if (at_source && resolve.here && dst.dead && now.state >= MIG_HELD_ACTIVATING &&
	    now.state <= MIG_HELD_RUNS)
		return false; /* it is started again there */
	if (at_source && !resolve.here && now.state != MIG_HELD_RUNS)
		return false;
	if (!at_source && resolve.here && !src.dead && !source_waits())
		return false;
	if (!at_source && resolve.here && source.state == MIG_SRC_STAYS)
		return false; /* its disks are newer */
	return mig_resolve_decide((at_source ? &src : &dst)->records, "web", &resolve, &after,
				  NULL) == 1;
}

static void wait_is_over(struct side *side)
{
	if (side->retries && side->count == 0) {
		side->retries = false;
		post_kind(side, MIG_EV_RETRY);
	}
}

static void connection_changes(void)
{
	const enum mig_event_kind kind = cut ? MIG_EV_LINK_BACK : MIG_EV_LINK_LOST;

	cut = !cut;
	post_kind(&src, kind);
	post_kind(&dst, kind);
}

static void happens(void)
{
	switch (draw(24)) {
	case 0:
		if (src.count < 8 && dst.count < 8)
			connection_changes();
		break;
	case 1:
		if (draw(8) == 0)
			dies(draw(2) == 0 ? &src : &dst);
		break;
	case 2:
	case 3:
		said += operator_says();
		break;
	case 4:
		post_kind(&src, draw(2) == 0 ? MIG_EV_CANCEL : MIG_EV_INVALID);
		break;
	case 5:
		post_kind(&dst, draw(2) == 0 ? MIG_EV_GIVE_UP : MIG_EV_INVALID);
		break;
	case 6:
		wait_is_over(&src);
		break;
	case 7:
		wait_is_over(&dst);
		break;
	default:
		(void)turn(draw(2) == 0 ? &src : &dst);
		break;
	}
}

/* The VM goes on by itself, or may be started from its disks on exactly one side. */
static void expect_an_end(uint32_t number)
{
	uint64_t least;
	bool here = !src.dead && src.runs;
	bool there = !dst.dead && dst.runs;

	if (src.dead && !there)
		here = mig_records_may_start(src.records, "web", 0, &least, NULL) == 0;
	if (dst.dead && !here && register_of(&dst).now.owner == MIG_DESTINATION)
		there = mig_records_may_start(dst.records, "web", 0, &least, NULL) == 0;
	cr_assert(here || there, "sequence %u: %s%s, %s%s", number,
		  mig_source_state_name(source.state), src.dead ? " dead" : "",
		  mig_destination_state_name(destination.state), dst.dead ? " dead" : "");
}

Test(mig_resolve, any_order_of_events_and_true_words, .timeout = 120)
{
	uint32_t died = 0;

	for (uint32_t n = 0; n < 3000; n++) {
		seed = n;
		(void)move_until(draw(14));
		for (uint32_t i = 0; i < 120; i++)
			happens();
		if (cut)
			connection_changes();
		settle();
		for (uint32_t i = 0; i < 40; i++) {
			said += operator_says();
			settle();
		}
		died += src.dead || dst.dead;
		expect_an_end(n);
		side_end(&src);
		side_end(&dst);
	}
	cr_assert_gt(said, 100);
	cr_assert_gt(died, 100);
}
