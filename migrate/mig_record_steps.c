/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of a record: pure, docs/migrate/records.md, sections 3 and 4.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "migrate/mig_records_priv.h"

static const char *owner_name(enum mig_side owner)
{
	return owner == MIG_SOURCE ? "source" : "destination";
}

static int refuse(const struct mig_record *now, int code, const char *what, const char *expected,
		  struct base_error *err)
{
	return base_fail(err, code, "%s: the %s of '%s' is (%" PRIu64 ", %s), %s: expected %s",
			 what, mig_record_kind_name(now->kind), now->name, now->now.epoch,
			 owner_name(now->now.owner), mig_record_state_name(now->state), expected);
}

static bool same_migration(const struct mig_record *now, const struct mig_wish *wish)
{
	return memcmp(now->id, wish->whose.id, sizeof(now->id)) == 0;
}

/* The same host: its port is another one each time it connects. */
static bool same_peer(const struct mig_record *now, const struct mig_wish *wish)
{
	const char *colon = strrchr(now->peer, ':');
	size_t length = colon != NULL ? (size_t)(colon - now->peer) : strlen(now->peer);
	const char *other = strrchr(wish->whose.peer, ':');
	size_t other_length =
		other != NULL ? (size_t)(other - wish->whose.peer) : strlen(wish->whose.peer);

	return length == other_length && memcmp(now->peer, wish->whose.peer, length) == 0;
}

/* A record of this migration. */
static int need(const struct mig_record *now, const struct mig_wish *wish, const char *what,
		struct base_error *err)
{
	if (now == NULL)
		return base_fail(err, -ENOENT, "%s: there is no record of '%s'", what,
				 wish->whose.name);
	if (!same_migration(now, wish))
		return refuse(now, -ESTALE, what, "the record of this migration", err);
	return 0;
}

static bool activation_begun(const struct mig_record *now, const struct mig_wish *wish)
{
#ifdef GODWIT_MUTANT_MIG_RECORD_BEGUN
	(void)now;
	(void)wish;
	return false;
#else
	return now->state == MIG_HELD_RUNS ||
	       (now->state == MIG_HELD_ACTIVATING && !wish->untouched);
#endif
}

/* A register in @state, over what is there. */
static int begin(const struct mig_record *now, const struct mig_wish *wish,
		 enum mig_record_state state, struct mig_record *next, struct base_error *err)
{
	const char *what = mig_record_state_name(state);
	uint64_t epoch = wish->epoch;
	bool later = false; /* @now is of a later life of the VM than the one that comes */

	*next = wish->whose;
	next->kind = MIG_RECORD_REGISTER;
	next->state = state;
	next->from_epoch = epoch;
	next->now = (struct mig_register){ .epoch = epoch, .owner = MIG_SOURCE };
	/* What never came to an end is nobody's life. */
	if (now == NULL || (now->state == MIG_HELD_COMING && !same_migration(now, wish)))
		return MIG_CHANGE_WRITE;
	if (same_migration(now, wish)) {
		if ((now->state != MIG_HELD_COMING && now->state != state) ||
		    now->from_epoch != epoch || now->now.epoch != epoch)
			return refuse(now, -EPROTO, what, "a migration that begins", err);
		return MIG_CHANGE_WRITE;
	}
	if (now->now.owner == MIG_DESTINATION)
		later = epoch <= now->now.epoch;
	else if (mig_record_given_back(now))
		later = epoch + 1 < now->now.epoch;
	else
		later = epoch < now->now.epoch ||
			(epoch == now->now.epoch && !same_peer(now, wish));
	if (later)
		return refuse(now, -ESTALE, what, "an earlier life of it", err);
	return MIG_CHANGE_WRITE;
}

int mig_step_coming(const struct mig_record *now, const struct mig_wish *wish,
		    struct mig_record *next, struct base_error *err)
{
	return begin(now, wish, MIG_HELD_COMING, next, err);
}

int mig_step_begin(const struct mig_record *now, const struct mig_wish *wish,
		   struct mig_record *next, struct base_error *err)
{
	return begin(now, wish, MIG_HELD_ALL_HERE, next, err);
}

int mig_step_ask(const struct mig_record *now, const struct mig_wish *wish, struct mig_record *next,
		 struct base_error *err)
{
	int code = need(now, wish, "compare-and-swap", err);

	if (code < 0)
		return code;
	*next = *now;
#ifndef GODWIT_MUTANT_MIG_RECORD_COMPARE
	if (now->now.epoch != wish->epoch)
		return MIG_CHANGE_NONE;
#endif
	if (now->state == MIG_HELD_LEFT)
		return MIG_CHANGE_NONE;
	if (now->state == MIG_HELD_COMING)
		return refuse(now, -EPROTO, "compare-and-swap", "all of it to be here", err);
	if (activation_begun(now, wish))
		return refuse(now, -EPROTO, "compare-and-swap", "one that was not activated", err);
	next->state = MIG_HELD_ALL_HERE;
	next->now = (struct mig_register){ .epoch = wish->epoch + 1, .owner = wish->owner };
	if (wish->owner != MIG_SOURCE && wish->owner != MIG_DESTINATION)
		return base_fail(err, -EINVAL, "compare-and-swap: owner %d: expected one of 1, 2",
				 (int)wish->owner);
	code = mig_record_check(next, NULL);
	if (code < 0)
		return refuse(now, -EPROTO, "compare-and-swap",
			      "one that can be given to that side", err);
	return MIG_CHANGE_WRITE;
}

int mig_step_read(const struct mig_record *now, const struct mig_wish *wish,
		  struct mig_record *next, struct base_error *err)
{
	int code = need(now, wish, "read", err);

	if (code < 0)
		return code;
	*next = *now;
	return MIG_CHANGE_NONE;
}

int mig_step_activate(const struct mig_record *now, const struct mig_wish *wish,
		      struct mig_record *next, struct base_error *err)
{
	int code = need(now, wish, "activate", err);

	if (code < 0)
		return code;
	if (now->now.owner != MIG_DESTINATION || now->now.epoch != wish->epoch ||
	    now->state == MIG_HELD_RUNS)
		return refuse(now, -EPROTO, "activate", "one that names this side, not run yet",
			      err);
	*next = *now;
	next->state = MIG_HELD_ACTIVATING;
	return MIG_CHANGE_WRITE;
}

int mig_step_untouched(const struct mig_record *now, const struct mig_wish *wish,
		       struct mig_record *next, struct base_error *err)
{
	int code = need(now, wish, "untouched", err);

	if (code < 0)
		return code;
	if (now->state == MIG_HELD_RUNS)
		return refuse(now, -EPROTO, "untouched", "one that does not run", err);
	*next = *now;
	if (now->state != MIG_HELD_ACTIVATING)
		return MIG_CHANGE_NONE;
	next->state = MIG_HELD_ALL_HERE;
	return MIG_CHANGE_WRITE;
}

int mig_step_runs(const struct mig_record *now, const struct mig_wish *wish,
		  struct mig_record *next, struct base_error *err)
{
	int code = need(now, wish, "runs", err);

	if (code < 0)
		return code;
	if (now->state != MIG_HELD_ACTIVATING && now->state != MIG_HELD_RUNS)
		return refuse(now, -EPROTO, "runs", "one that is being activated", err);
	*next = *now;
	next->state = MIG_HELD_RUNS;
	return now->state == MIG_HELD_RUNS ? MIG_CHANGE_NONE : MIG_CHANGE_WRITE;
}

int mig_step_leave(const struct mig_record *now, const struct mig_wish *wish,
		   struct mig_record *next, struct base_error *err)
{
	if (now == NULL)
		return MIG_CHANGE_REMOVE; /* that it is gone may not be durable */
	if (!same_migration(now, wish))
		return MIG_CHANGE_NONE;
	*next = *now;
	if (now->now.owner == MIG_DESTINATION)
		return refuse(now, -EPROTO, "leave", "one that is the source's", err);
	if (!mig_record_given_back(now))
		return MIG_CHANGE_REMOVE;
	next->state = MIG_HELD_LEFT;
	return now->state == MIG_HELD_LEFT ? MIG_CHANGE_NONE : MIG_CHANGE_WRITE;
}

int mig_step_promise(const struct mig_record *now, const struct mig_wish *wish,
		     struct mig_record *next, struct base_error *err)
{
	bool over = now != NULL && now->state != MIG_HELD_PROMISED;

	*next = wish->whose;
	next->kind = MIG_RECORD_PROMISE;
	next->state = MIG_HELD_PROMISED;
	next->from_epoch = wish->epoch;
	next->now = (struct mig_register){ .epoch = wish->epoch, .owner = MIG_SOURCE };
	if (now == NULL)
		return MIG_CHANGE_WRITE;
	if (same_migration(now, wish) && (over || now->from_epoch != wish->epoch))
		return refuse(now, -EPROTO, "promise", "a migration that begins", err);
	/* The other side ran it at the next epoch at most: from there it may have come back. */
	if (now->now.owner == MIG_DESTINATION ? wish->epoch <= now->from_epoch + 1
					      : wish->epoch < now->now.epoch)
		return refuse(now, -ESTALE, "promise", "an earlier life of it", err);
	return MIG_CHANGE_WRITE;
}

int mig_step_promise_end(const struct mig_record *now, const struct mig_wish *wish,
			 struct mig_record *next, struct base_error *err)
{
	bool moved = wish->owner == MIG_DESTINATION;

	(void)err;
	if (now == NULL)
		return MIG_CHANGE_REMOVE; /* that it is gone may not be durable */
	if (!same_migration(now, wish))
		return MIG_CHANGE_NONE;
	*next = *now;
	next->state = MIG_HELD_OVER;
	next->now = (struct mig_register){ .epoch = moved ? now->from_epoch + 1 : wish->epoch,
					   .owner = wish->owner };
	/* It runs on as if nothing had been, or at an epoch that somebody else keeps. */
	if (wish->epoch <= now->from_epoch && !moved)
		return MIG_CHANGE_REMOVE;
#ifdef GODWIT_MUTANT_MIG_RECORD_OVER
	return MIG_CHANGE_REMOVE;
#endif
	if (mig_record_check(next, NULL) < 0)
		return MIG_CHANGE_REMOVE;
	return now->state == MIG_HELD_OVER && now->now.epoch == next->now.epoch &&
			       now->now.owner == next->now.owner
		       ? MIG_CHANGE_NONE
		       : MIG_CHANGE_WRITE;
}

int mig_step_moved(const struct mig_record *now, const struct mig_wish *wish,
		   struct mig_record *next, struct base_error *err)
{
	(void)next;
	(void)err;
	if (now == NULL || (now->now.owner == MIG_DESTINATION && now->now.epoch <= wish->epoch))
		return MIG_CHANGE_REMOVE;
	return MIG_CHANGE_NONE; /* it has come again */
}
