/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator's decision.  It is put where the waiting session looks anyway: into the register at
 * the destination, as any other compare-and-swap; into the promise at the source.
 */
#include "migrate/mig_resolve.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "migrate/mig_records_priv.h"

int mig_resolve_look(struct mig_records *records, const char *name, struct mig_record *ret_record,
		     struct base_error *err)
{
	struct mig_record promise = { 0 };
	struct mig_record here = { 0 };
	int promised = mig_records_find(records, MIG_RECORD_PROMISE, name, &promise, err);
	int found = promised < 0 ? promised
				 : mig_records_find(records, MIG_RECORD_REGISTER, name, &here, err);

	if (found < 0)
		return found;
	if (found == 0 && promised == 0)
		return base_fail(err, -ENOENT, "'%s': there is no record of a migration", name);
	if (found > 0 && promised > 0 && memcmp(here.id, promise.id, sizeof(here.id)) == 0)
		return base_fail(err, -EPROTO,
				 "'%s': both sides of one migration have their records here: "
				 "expected a state directory for each",
				 name);
	/* A later beginning counts: it moved away, and has come again since. */
	*ret_record = found > 0 && (promised == 0 || here.from_epoch > promise.from_epoch)
			      ? here
			      : promise;
	return 0;
}

static int refuse(const struct mig_record *now, const char *why, struct base_error *err)
{
	return base_fail(err, -EPROTO, "'%s', %s (%" PRIu64 ", %s), %s: %s", now->name,
			 mig_record_kind_name(now->kind), now->now.epoch,
			 now->now.owner == MIG_SOURCE ? "source" : "destination",
			 mig_record_state_name(now->state), why);
}

static int need_word(const struct mig_record *now, const struct mig_wish *wish, const char *why,
		     struct base_error *err)
{
#ifdef GODWIT_MUTANT_MIG_RESOLVE_WORD
	(void)now;
	(void)wish;
	(void)why;
	(void)err;
	return 0;
#else
	return wish->other_is_dead ? 0 : refuse(now, why, err);
#endif
}

static int decide_register(const struct mig_record *now, const struct mig_wish *wish,
			   struct mig_record *next, struct base_error *err)
{
	int code;

	if (now->now.owner == MIG_DESTINATION) {
		if (wish->here)
			return MIG_CHANGE_NONE;
		if (now->state != MIG_HELD_ALL_HERE)
			return refuse(now,
				      "its activation had begun here: expected it to go on here",
				      err);
		next->now.epoch = now->now.epoch + 1;
		next->now.owner = MIG_SOURCE;
		return MIG_CHANGE_WRITE;
	}
	if (now->state == MIG_HELD_COMING) {
		if (!wish->here)
			return MIG_CHANGE_NONE;
		return refuse(now, "not all of it is here: expected it to go on at the other side",
			      err);
	}
	if (mig_record_given_back(now)) {
		if (!wish->here)
			return MIG_CHANGE_NONE;
		return refuse(now, "it was given back: expected it to go on at the other side",
			      err);
	}
	code = wish->here ? need_word(now, wish,
				      "the source may run it: expected --other-is-dead, the word "
				      "that its worker is dead, or waits in doubt",
				      err)
			  : 0;
	if (code < 0)
		return code;
	next->now.epoch = now->now.epoch + 1;
	next->now.owner = wish->here ? MIG_DESTINATION : MIG_SOURCE;
	return MIG_CHANGE_WRITE;
}

static int decide_promise(const struct mig_record *now, const struct mig_wish *wish,
			  struct mig_record *next, struct base_error *err)
{
	enum mig_side owner = wish->here ? MIG_SOURCE : MIG_DESTINATION;
	int code;

	if (now->state != MIG_HELD_PROMISED && now->now.owner == owner)
		return MIG_CHANGE_NONE;
	if (now->state == MIG_HELD_OVER && owner == MIG_DESTINATION)
		return refuse(now, "it came back and runs here: expected it to stay so", err);
	if (now->state == MIG_HELD_RESOLVED) {
		return refuse(now, "it was decided otherwise: expected it to stay so", err);
	}
	code = wish->here
		       ? need_word(now, wish,
				   "the destination may run it: expected --other-is-dead, the word "
				   "that its worker is dead, or gave it back",
				   err)
		       : 0;
	if (code < 0)
		return code;
	next->state = MIG_HELD_RESOLVED;
	next->now.epoch = now->from_epoch + 2; /* more than the destination can have run at */
	next->now.owner = owner;
	return MIG_CHANGE_WRITE;
}

static int step_decide(const struct mig_record *now, const struct mig_wish *wish,
		       struct mig_record *next, struct base_error *err)
{
	if (now == NULL)
		return base_fail(err, -ENOENT, "'%s': its record has just gone", wish->whose.name);
	/* What was looked at is what is decided; of the epochs this is checked anew. */
	if (memcmp(now->id, wish->whose.id, sizeof(now->id)) != 0)
		return base_fail(err, -EAGAIN, "'%s': another migration has begun meanwhile",
				 now->name);
	*next = *now;
	return now->kind == MIG_RECORD_REGISTER ? decide_register(now, wish, next, err)
						: decide_promise(now, wish, next, err);
}

int mig_resolve_decide(struct mig_records *records, const char *name,
		       const struct mig_resolve *resolve, struct mig_record *ret_record,
		       struct base_error *err)
{
	struct mig_wish wish = { .step = step_decide,
				 .here = resolve->here,
				 .other_is_dead = resolve->other_is_dead };
	struct mig_record now = { 0 };
	struct mig_keep keep;
	int code = mig_resolve_look(records, name, &now, err);

	if (code < 0)
		return code;
	wish.kind = now.kind;
	wish.whose = now;
	if (resolve->dry_run) {
		struct mig_record next = now;

		code = step_decide(&now, &wish, &next, err);
		if (code >= 0)
			*ret_record = next;
		return code;
	}
	/* With a keep: also where it is so already, it is so for good when this returns. */
	code = mig_keep_init(&keep, records, now.name, now.peer, now.id, err);
	if (code < 0)
		return code;
	return mig_records_change(records, &wish, &keep, ret_record, err);
}
