/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each side does to its record, in the words of mig_records.h; and the question whether a VM
 * may be started beside the records that are there.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "migrate/mig_records.h"
#include "migrate/mig_records_priv.h"

static int change(struct mig_keep *keep, struct mig_wish *wish, struct mig_record *ret_record,
		  struct base_error *err)
{
	int code;

	wish->whose = keep->whose;
	code = mig_records_change(keep->records, wish, keep, ret_record, err);
	return code < 0 ? code : 0;
}

int mig_register_may_begin(const struct mig_keep *keep, uint64_t epoch, struct base_error *err)
{
	const struct mig_wish wish = { .whose = keep->whose, .epoch = epoch };
	struct mig_record now = { 0 };
	struct mig_record next = { 0 };
	int code =
		mig_records_find(keep->records, MIG_RECORD_REGISTER, keep->whose.name, &now, err);

	if (code < 0)
		return code;
	code = mig_step_begin(code > 0 ? &now : NULL, &wish, &next, err);
	return code < 0 ? code : mig_record_check(&next, err);
}

int mig_register_coming(struct mig_keep *keep, uint64_t epoch, struct base_error *err)
{
	struct mig_wish wish = { .kind = MIG_RECORD_REGISTER,
				 .step = mig_step_coming,
				 .epoch = epoch };

	return change(keep, &wish, NULL, err);
}

int mig_register_begin(struct mig_keep *keep, uint64_t epoch, struct base_error *err)
{
	struct mig_wish wish = { .kind = MIG_RECORD_REGISTER,
				 .step = mig_step_begin,
				 .epoch = epoch };

	return change(keep, &wish, NULL, err);
}

int mig_register_ask(struct mig_keep *keep, uint64_t epoch, enum mig_side owner,
		     struct mig_register *ret_register, struct base_error *err)
{
	struct mig_wish wish = {
		.kind = MIG_RECORD_REGISTER,
		.step = mig_step_ask,
		.epoch = epoch,
		.owner = owner,
		.untouched = atomic_load(&keep->untouched),
	};
	struct mig_record record;
	int code = change(keep, &wish, &record, err);

	if (code == 0)
		*ret_register = record.now;
	return code;
}

int mig_register_read(struct mig_keep *keep, struct mig_register *ret_register,
		      struct base_error *err)
{
	struct mig_wish wish = { .kind = MIG_RECORD_REGISTER, .step = mig_step_read };
	struct mig_record record;
	int code = change(keep, &wish, &record, err);

	if (code == 0)
		*ret_register = record.now;
	return code;
}

int mig_register_activate(struct mig_keep *keep, uint64_t epoch, struct base_error *err)
{
	struct mig_wish wish = { .kind = MIG_RECORD_REGISTER,
				 .step = mig_step_activate,
				 .epoch = epoch };
	int code;

	atomic_store(&keep->untouched, false);
	code = change(keep, &wish, NULL, err);
	if (code < 0) /* it may say "activating", and nothing will be */
		atomic_store(&keep->untouched, true);
	return code;
}

int mig_register_untouched(struct mig_keep *keep, struct base_error *err)
{
	struct mig_wish wish = { .kind = MIG_RECORD_REGISTER,
				 .step = mig_step_untouched,
				 .untouched = true };

	atomic_store(&keep->untouched, true);
	return change(keep, &wish, NULL, err);
}

int mig_register_runs(struct mig_keep *keep, struct base_error *err)
{
	struct mig_wish wish = { .kind = MIG_RECORD_REGISTER, .step = mig_step_runs };

	return change(keep, &wish, NULL, err);
}

int mig_register_leave(struct mig_keep *keep, struct base_error *err)
{
	struct mig_wish wish = { .kind = MIG_RECORD_REGISTER, .step = mig_step_leave };

	return change(keep, &wish, NULL, err);
}

static int arbiter_ask(void *context, uint64_t epoch, enum mig_side owner,
		       struct mig_register *ret_register, struct base_error *err)
{
	return mig_register_ask(context, epoch, owner, ret_register, err);
}

static int arbiter_read(void *context, struct mig_register *ret_register, struct base_error *err)
{
	return mig_register_read(context, ret_register, err);
}

struct mig_arbiter mig_register_arbiter(struct mig_keep *keep)
{
	return (struct mig_arbiter){ .ask = arbiter_ask, .read = arbiter_read, .context = keep };
}

int mig_promise_make(struct mig_keep *keep, uint64_t epoch, struct base_error *err)
{
	struct mig_wish wish = { .kind = MIG_RECORD_PROMISE,
				 .step = mig_step_promise,
				 .epoch = epoch };

	return change(keep, &wish, NULL, err);
}

int mig_promise_end(struct mig_keep *keep, bool moved, uint64_t epoch, struct base_error *err)
{
	struct mig_wish end = { .kind = MIG_RECORD_PROMISE,
				.step = mig_step_promise_end,
				.epoch = epoch,
				.owner = moved ? MIG_DESTINATION : MIG_SOURCE };
	struct mig_wish wish = { .kind = MIG_RECORD_REGISTER, .step = mig_step_moved };
	struct mig_record record;
	int code =
		mig_records_find(keep->records, MIG_RECORD_PROMISE, keep->whose.name, &record, err);

	if (code < 0)
		return code;
	if (code > 0 && moved && memcmp(record.id, keep->whose.id, sizeof(record.id)) == 0) {
		wish.epoch = record.from_epoch;
		code = change(keep, &wish, NULL, err);
		if (code < 0)
			return code;
	}
	return change(keep, &end, NULL, err);
}

static int step_answer(const struct mig_record *now, const struct mig_wish *wish,
		       struct mig_record *next, struct base_error *err)
{
	return now == NULL ? MIG_CHANGE_NONE : mig_step_read(now, wish, next, err);
}

int mig_promise_answer(struct mig_keep *keep, struct mig_register *ret_register,
		       struct base_error *err)
{
	struct mig_wish wish = { .kind = MIG_RECORD_PROMISE, .step = step_answer };
	struct mig_record record = { 0 };
	int code = change(keep, &wish, &record, err);

	if (code < 0)
		return code;
	if (record.state != MIG_HELD_RESOLVED)
		return 0;
	*ret_register = record.now;
	return 1;
}

/* What one record says of starting its VM here: the least epoch, or why not. */
static int start_beside(const struct mig_record *record, uint64_t *ret_epoch,
			struct base_error *err)
{
	if (record->state == MIG_HELD_PROMISED)
		return base_fail(err, -EPROTO,
				 "'%s' may have been given to '%s' at epoch %" PRIu64
				 ": expected a decision by 'godwit vm resolve'",
				 record->name, record->peer, record->from_epoch + 1);
	if (record->state == MIG_HELD_RESOLVED && record->now.owner == MIG_DESTINATION)
		return base_fail(err, -EPROTO,
				 "'%s' was left to '%s' by 'godwit vm resolve': expected it to be "
				 "started there",
				 record->name, record->peer);
	if (record->state == MIG_HELD_OVER && record->now.owner == MIG_DESTINATION)
		return base_fail(err, -EPROTO,
				 "'%s' has moved to '%s', at epoch %" PRIu64
				 ": expected it to be started there",
				 record->name, record->peer, record->now.epoch);
	if (record->state == MIG_HELD_COMING)
		return base_fail(
			err, -EPROTO,
			"'%s' was coming from '%s', and not all of it is here: expected it "
			"to be started there, or to come again",
			record->name, record->peer);
	if (record->kind == MIG_RECORD_REGISTER && record->now.owner == MIG_SOURCE &&
	    record->state == MIG_HELD_ALL_HERE)
		return base_fail(err, -EPROTO,
				 "'%s' is the one of '%s', at epoch %" PRIu64
				 ": expected it to be started there",
				 record->name, record->peer, record->now.epoch);
	*ret_epoch = record->now.epoch + (record->state == MIG_HELD_LEFT ? 1 : 0);
	return 0;
}

int mig_records_may_start(struct mig_records *records, const char *name, uint64_t epoch,
			  uint64_t *ret_epoch, struct base_error *err)
{
	struct mig_record promise = { 0 };
	struct mig_record here = { 0 };
	uint64_t least = 0;
	int promised = mig_records_find(records, MIG_RECORD_PROMISE, name, &promise, err);
	int found = promised < 0 ? promised
				 : mig_records_find(records, MIG_RECORD_REGISTER, name, &here, err);
	int code = 0;

	if (found < 0)
		return found;
	/* A register of a later beginning: it moved away, and has come back since. */
	if (found > 0 && (promised == 0 || here.from_epoch > promise.from_epoch))
		code = start_beside(&here, &least, err);
	else if (promised > 0)
		code = start_beside(&promise, &least, err);
	if (code < 0)
		return code;
	if (epoch != 0 && epoch < least)
		return base_fail(err, -ESTALE,
				 "'%s' at epoch %" PRIu64 ": expected at least %" PRIu64, name,
				 epoch, least);
	*ret_epoch = least;
	return 0;
}
