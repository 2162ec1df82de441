/* SPDX-License-Identifier: Apache-2.0 */
/* Records over every failing and every last system call, and between threads and processes. */
#include <errno.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "base/thread.h"
#include "tests/support/record_faults.h"
#include "tests/unit/migrate/mig_records_rig.h"

/* --- system calls --- */

/* The changes that a side makes, each from where it is made. */
static void prepare_register(void)
{
	left_behind(id_one, "host", MIG_HELD_ALL_HERE, 7, 7, MIG_SOURCE);
}

static void prepare_named(void)
{
	left_behind(id_one, "host", MIG_HELD_ALL_HERE, 7, 8, MIG_DESTINATION);
}

static void prepare_activating(void)
{
	left_behind(id_one, "host", MIG_HELD_ACTIVATING, 7, 8, MIG_DESTINATION);
}

static void prepare_withdrawn(void)
{
	left_behind(id_one, "host", MIG_HELD_ALL_HERE, 7, 8, MIG_SOURCE);
}

static void prepare_promise(void)
{
	struct mig_keep keep = one();

	cr_assert_eq(mig_promise_make(&keep, 7, &err), 0);
}

static void prepare_nothing(void)
{
}

static int do_begin(struct mig_keep *keep)
{
	return mig_register_begin(keep, 7, &err);
}

static int do_ask(struct mig_keep *keep)
{
	struct mig_register now;
	int code = mig_register_ask(keep, 7, MIG_DESTINATION, &now, &err);

	cr_assert(code != 0 || (now.epoch == 8 && now.owner == MIG_DESTINATION));
	return code;
}

static int do_read(struct mig_keep *keep)
{
	struct mig_register now;

	return mig_register_read(keep, &now, &err);
}

static int do_activate(struct mig_keep *keep)
{
	return mig_register_activate(keep, 8, &err);
}

static int do_untouched(struct mig_keep *keep)
{
	return mig_register_untouched(keep, &err);
}

static int do_runs(struct mig_keep *keep)
{
	return mig_register_runs(keep, &err);
}

static int do_leave(struct mig_keep *keep)
{
	return mig_register_leave(keep, &err);
}

static int do_coming(struct mig_keep *keep)
{
	return mig_register_coming(keep, 7, &err);
}

static int do_promise(struct mig_keep *keep)
{
	return mig_promise_make(keep, 7, &err);
}

static int do_promise_end(struct mig_keep *keep)
{
	return mig_promise_end(keep, false, 7, &err);
}

static int do_promise_moved(struct mig_keep *keep)
{
	return mig_promise_end(keep, true, 7, &err);
}

static int do_promise_back(struct mig_keep *keep)
{
	return mig_promise_end(keep, false, 9, &err);
}

static const struct change {
	const char *what;
	void (*prepare)(void);
	int (*act)(struct mig_keep *keep);
	enum mig_record_kind kind;
	bool has_old;
	bool has_new;
} changes[] = {
	{ "coming", prepare_nothing, do_coming, MIG_RECORD_REGISTER, false, true },
	{ "begin", prepare_nothing, do_begin, MIG_RECORD_REGISTER, false, true },
	{ "begin again", prepare_register, do_begin, MIG_RECORD_REGISTER, true, true },
	{ "ask", prepare_register, do_ask, MIG_RECORD_REGISTER, true, true },
	{ "read", prepare_register, do_read, MIG_RECORD_REGISTER, true, true },
	{ "activate", prepare_named, do_activate, MIG_RECORD_REGISTER, true, true },
	{ "untouched", prepare_activating, do_untouched, MIG_RECORD_REGISTER, true, true },
	{ "runs", prepare_activating, do_runs, MIG_RECORD_REGISTER, true, true },
	{ "leave", prepare_withdrawn, do_leave, MIG_RECORD_REGISTER, true, true },
	{ "leave at the source's word", prepare_register, do_leave, MIG_RECORD_REGISTER, true,
	  false },
	{ "promise", prepare_nothing, do_promise, MIG_RECORD_PROMISE, false, true },
	{ "end of a promise", prepare_promise, do_promise_end, MIG_RECORD_PROMISE, true, false },
	{ "moved", prepare_promise, do_promise_moved, MIG_RECORD_PROMISE, true, true },
	{ "came back", prepare_promise, do_promise_back, MIG_RECORD_PROMISE, true, true },
};
#define CHANGES (sizeof(changes) / sizeof(changes[0]))

/* What is there, or zeros; it is never damaged. */
static struct mig_record look(const struct change *change)
{
	struct mig_record record = { 0 };
	int code = mig_records_load(records, change->kind, "web", &record, &err);

	cr_assert(code == 0 || code == -ENOENT, "%s: %s", change->what, err.text);
	record.written_s = 0;
	return record;
}

static void expect_old_or_new(const struct change *change, const struct mig_record *before,
			      const struct mig_record *after, unsigned int at)
{
	struct mig_record record = look(change);

	cr_assert(memcmp(&record, before, sizeof(record)) == 0 ||
			  memcmp(&record, after, sizeof(record)) == 0,
		  "%s, call %u", change->what, at);
}

/* Before and after, without a fault; and that what is done is durable. */
static void plain(const struct change *change, struct mig_record *ret_before,
		  struct mig_record *ret_after)
{
	struct mig_keep keep = one();

	change->prepare();
	*ret_before = look(change);
	cr_assert_eq(ret_before->kind != MIG_RECORD_INVALID, change->has_old);
	memset(&faults, 0, sizeof(faults));
	cr_assert_eq(change->act(&keep), 0, "%s: %s", change->what, err.text);
	cr_assert_not(faults.names_dirty, "%s", change->what);
	cr_assert_not(faults.name_unsafe, "%s: renamed before it was durable", change->what);
	*ret_after = look(change);
	cr_assert_eq(ret_after->kind != MIG_RECORD_INVALID, change->has_new);
	wipe();
}

/* The call number @at fails.  False: there are not that many. */
static bool one_fault(const struct change *change, const struct mig_record *before,
		      const struct mig_record *after, unsigned int at, int error)
{
	struct mig_keep keep = one();
	struct mig_record record;
	bool reached;
	int code;

	change->prepare();
	memset(&faults, 0, sizeof(faults));
	faults.armed = true;
	faults.at = at;
	faults.error = error;
	code = change->act(&keep);
	faults.armed = false;
	reached = faults.count > at;
	expect_old_or_new(change, before, after, at);
	record = look(change);
	if (code < 0 && code != -ETIMEDOUT)
		cr_assert_eq(memcmp(&record, before, sizeof(record)), 0,
			     "%s, call %u: %d, and something has changed", change->what, at, code);
	if (code == 0)
		cr_assert(!faults.names_dirty && !faults.name_unsafe, "%s, call %u", change->what,
			  at);
	/* Afterwards it can be done, and is durable, whatever is left from before. */
	cr_assert_eq(change->act(&keep), 0, "%s, call %u: %s", change->what, at, err.text);
	cr_assert(!faults.names_dirty && !faults.name_unsafe, "%s, call %u", change->what, at);
	record = look(change);
	cr_assert_eq(memcmp(&record, after, sizeof(record)), 0, "%s, call %u", change->what, at);
	wipe();
	return reached;
}

Test(mig_records_fault, every_call_fails_once, .init = begin, .fini = end, .timeout = 120)
{
	static const int errors[] = { ENOSPC, ETIMEDOUT };

	for (size_t i = 0; i < CHANGES; i++) {
		struct mig_record before;
		struct mig_record after;

		plain(&changes[i], &before, &after);
		for (size_t e = 0; e < 2; e++) {
			unsigned int at = 0;

			while (one_fault(&changes[i], &before, &after, at, errors[e]))
				at++;
			cr_assert_gt(at, 3, "%s", changes[i].what);
		}
	}
}

/* The process ends before each call, which is after the one before: no record is damaged, and the
 * next goes on. */
static bool one_death(const struct change *change, const struct mig_record *before,
		      const struct mig_record *after, unsigned int at)
{
	struct mig_keep keep = one();
	struct mig_record record;
	int status = 0;
	pid_t child;

	change->prepare();
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		memset(&faults, 0, sizeof(faults));
		faults.armed = true;
		faults.dies = true;
		faults.at = at;
		_exit(change->act(&keep) == 0 ? 0 : 1);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) != 1, "%s", change->what);
	expect_old_or_new(change, before, after, at);
	cr_assert_eq(change->act(&keep), 0, "%s, call %u: %s", change->what, at, err.text);
	record = look(change);
	cr_assert_eq(memcmp(&record, after, sizeof(record)), 0, "%s, call %u", change->what, at);
	wipe();
	return WEXITSTATUS(status) == RECORD_FAULT_DIED;
}

Test(mig_records_fault, death_between_any_two_calls, .init = begin, .fini = end, .timeout = 120)
{
	for (size_t i = 0; i < CHANGES; i++) {
		struct mig_record before;
		struct mig_record after;
		unsigned int at = 0;

		plain(&changes[i], &before, &after);
		while (one_death(&changes[i], &before, &after, at))
			at++;
		cr_assert_gt(at, 3, "%s", changes[i].what);
	}
}

/* In place, and perhaps gone after a power cut: nobody is told of it before it is written again. */
Test(mig_records_fault, unknown_is_written_again_before_it_is_told, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	struct mig_keep other_process = one();
	struct mig_register now = { 0 };
	unsigned int at = 0;

	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0);
	for (int code = 0; code != -ETIMEDOUT; at++) {
		left_behind(id_one, "host", MIG_HELD_ALL_HERE, 7, 7, MIG_SOURCE);
		memset(&faults, 0, sizeof(faults));
		faults.armed = true;
		faults.at = at;
		faults.error = EIO;
		code = mig_register_ask(&keep, 7, MIG_DESTINATION, &now, &err);
		faults.armed = false;
		cr_assert_neq(code, 0);
	}
	cr_assert_eq(now.epoch, 0, "it was not told");
	cr_assert(faults.names_dirty);
	expect(MIG_HELD_ALL_HERE, 8, MIG_DESTINATION);
	cr_assert_eq(mig_register_read(&other_process, &now, &err), 0);
	cr_assert(now.epoch == 8 && !faults.names_dirty);
	faults.names_dirty = true; /* as if it were this one's doing again */
	cr_assert_eq(mig_register_read(&keep, &now, &err), 0);
	cr_assert(now.epoch == 8 && !faults.names_dirty);
	faults.names_dirty = true;
	cr_assert_eq(mig_register_read(&keep, &now, &err), 0);
	cr_assert(faults.names_dirty, "what is known to be durable is not written each time");
}

/* Activation that may have been written down, and was not begun: it can be handed back. */
Test(mig_records_fault, unknown_activation_can_be_handed_back, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	struct mig_keep keeper = one(); /* after this process's death */
	struct mig_register now;

	for (unsigned int at = 0;; at++) {
		int code;

		prepare_named();
		memset(&faults, 0, sizeof(faults));
		faults.armed = true;
		faults.at = at;
		faults.error = EIO;
		code = mig_register_activate(&keep, 8, &err);
		faults.armed = false;
		if (code == 0)
			break;
		if (on_disk(MIG_RECORD_REGISTER).state == MIG_HELD_ACTIVATING)
			cr_assert_eq(mig_register_ask(&keeper, 8, MIG_SOURCE, &now, &err), -EPROTO);
		ask(&keep, 8, MIG_SOURCE, 9, MIG_SOURCE);
	}
	cr_assert_eq(mig_register_ask(&keep, 8, MIG_SOURCE, &now, &err), -EPROTO);
}

/* --- others at the same time --- */

struct racer {
	struct mig_keep keep;
	enum mig_side owner;
	struct mig_register got;
	int code;
};

static void *race(void *context)
{
	struct racer *racer = context;
	struct base_error why;

	racer->code = mig_register_ask(&racer->keep, 7, racer->owner, &racer->got, &why);
	return NULL;
}

Test(mig_records_fault, one_of_two_threads_wins, .init = begin, .fini = end, .timeout = 60)
{
	for (uint32_t i = 0; i < 100; i++) {
		struct racer racers[2] = { { .owner = MIG_SOURCE }, { .owner = MIG_DESTINATION } };
		pthread_t threads[2];
		struct mig_record record;

		prepare_register();
		for (uint32_t t = 0; t < 2; t++) {
			racers[t].keep = one();
			cr_assert_eq(base_thread_start(&threads[t], "race", race, &racers[t], &err),
				     0);
		}
		for (uint32_t t = 0; t < 2; t++)
			base_thread_join(threads[t]);
		record = on_disk(MIG_RECORD_REGISTER);
		for (uint32_t t = 0; t < 2; t++) {
			cr_assert_eq(racers[t].code, 0);
			cr_assert_eq(racers[t].got.epoch, 8);
			cr_assert_eq(racers[t].got.owner, record.now.owner);
		}
	}
}

/* In a process of its own, over its own descriptor. */
static pid_t racing_process(enum mig_side owner)
{
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0) {
		struct racer racer = { .owner = owner, .code = -1 };
		int fd = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);

		if (mig_records_new(fd, NULL, &records, NULL) < 0 ||
		    mig_keep_init(&racer.keep, records, "web", "host", id_one, NULL) < 0)
			_exit(100);
		(void)race(&racer);
		_exit(racer.code == 0 ? (int)racer.got.owner : 101);
	}
	return child;
}

Test(mig_records_fault, one_of_two_processes_wins, .init = begin, .fini = end, .timeout = 60)
{
	for (uint32_t i = 0; i < 40; i++) {
		pid_t children[2];
		struct mig_record record;

		prepare_register();
		children[0] = racing_process(MIG_SOURCE);
		children[1] = racing_process(MIG_DESTINATION);
		for (uint32_t t = 0; t < 2; t++) {
			int status = 0;

			cr_assert_eq(waitpid(children[t], &status, 0), children[t]);
			record = on_disk(MIG_RECORD_REGISTER);
			cr_assert(WIFEXITED(status));
			cr_assert_eq(WEXITSTATUS(status), (int)record.now.owner);
		}
	}
}

/* Somebody who holds the directory for ever: an answer, and nothing has happened. */
Test(mig_records_fault, a_lock_that_is_held, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	struct mig_register now;
	int fd = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);

	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0);
	cr_assert_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
	cr_assert_eq(mig_register_ask(&keep, 7, MIG_SOURCE, &now, &err), -EAGAIN);
	expect(MIG_HELD_ALL_HERE, 7, MIG_SOURCE);
	(void)close(fd);
	ask(&keep, 7, MIG_SOURCE, 8, MIG_SOURCE);
}

/* No sequence of swaps gives an epoch to two: all of five steps, from each beginning. */
Test(mig_records_fault, no_epoch_is_given_twice, .init = begin, .fini = end, .timeout = 60)
{
	for (uint32_t n = 0; n < 6 * 6 * 6 * 6; n++) {
		enum mig_side given[4] = { MIG_SIDE_INVALID };
		struct mig_keep keep = one();
		uint32_t word = n;

		prepare_register();
		for (uint32_t i = 0; i < 4; i++, word /= 6) {
			struct mig_register now = { 0 };
			enum mig_side *slot;

			if (mig_register_ask(&keep, 7 + word % 6 / 2,
					     word % 2 == 0 ? MIG_SOURCE : MIG_DESTINATION, &now,
					     &err) < 0)
				continue;
			cr_assert(now.epoch >= 7 && now.epoch <= 9);
			slot = &given[now.epoch - 7];
			cr_assert(*slot == MIG_SIDE_INVALID || *slot == now.owner);
			*slot = now.owner;
		}
	}
}
