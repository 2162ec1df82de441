/* SPDX-License-Identifier: Apache-2.0 */
/* Records as they change: what each side may do to them, and what beside them. */
#include "migrate/mig_records.h"

#include <errno.h>
#include <sys/stat.h>

#include "migrate/mig_resolve.h"
#include "tests/support/alloc_fail.h"
#include "tests/unit/migrate/mig_records_rig.h"

/* --- the destination's register --- */

Test(mig_records, a_move, .init = begin, .fini = end)
{
	struct mig_keep keep = one();

	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0, "%s", err.text);
	expect(MIG_HELD_ALL_HERE, 7, MIG_SOURCE);
	ask(&keep, 7, MIG_DESTINATION, 8, MIG_DESTINATION);
	expect(MIG_HELD_ALL_HERE, 8, MIG_DESTINATION);
	cr_assert_eq(mig_register_activate(&keep, 8, &err), 0, "%s", err.text);
	expect(MIG_HELD_ACTIVATING, 8, MIG_DESTINATION);
	cr_assert_eq(mig_register_runs(&keep, &err), 0, "%s", err.text);
	cr_assert_eq(mig_register_runs(&keep, &err), 0, "%s", err.text);
	expect(MIG_HELD_RUNS, 8, MIG_DESTINATION);
	/* The source has not heard of it, and asks again. */
	ask(&keep, 7, MIG_DESTINATION, 8, MIG_DESTINATION);
	ask(&keep, 7, MIG_SOURCE, 8, MIG_DESTINATION);
	cr_assert_str_eq(on_disk(MIG_RECORD_REGISTER).peer, "10.0.0.1:7011");
}

Test(mig_records, swaps_compare, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	struct mig_arbiter arbiter = mig_register_arbiter(&keep);
	struct mig_register now;

	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0);
	ask(&keep, 6, MIG_DESTINATION, 7, MIG_SOURCE);
	ask(&keep, 8, MIG_DESTINATION, 7, MIG_SOURCE);
	ask(&keep, 0, MIG_DESTINATION, 7, MIG_SOURCE);
	ask(&keep, UINT64_MAX, MIG_DESTINATION, 7, MIG_SOURCE);
	ask(&keep, 7, MIG_SOURCE, 8, MIG_SOURCE);      /* withdrawn */
	ask(&keep, 7, MIG_DESTINATION, 8, MIG_SOURCE); /* too late */
	cr_assert_eq(arbiter.read(arbiter.context, &now, &err), 0);
	cr_assert(now.epoch == 8 && now.owner == MIG_SOURCE);
	cr_assert_eq(arbiter.ask(arbiter.context, 7, MIG_DESTINATION, &now, &err), 0);
	cr_assert(now.epoch == 8 && now.owner == MIG_SOURCE);
	/* What was given back is not given to the destination by another swap. */
	cr_assert_eq(mig_register_ask(&keep, 8, MIG_DESTINATION, &now, &err), -EPROTO);
	cr_assert_eq(mig_register_activate(&keep, 8, &err), -EPROTO);
	cr_assert_eq(mig_register_activate(&keep, 9, &err), -EPROTO);
}

Test(mig_records, swap_refuses, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	struct mig_keep other = keep_of(id_two, "10.0.0.1:7011");
	struct mig_register now;

	cr_assert_eq(mig_register_ask(&keep, 7, MIG_SOURCE, &now, &err), -ENOENT);
	cr_assert_str_eq(err.text, "compare-and-swap: there is no record of 'web'");
	cr_assert_eq(mig_register_read(&keep, &now, &err), -ENOENT);
	cr_assert_eq(mig_register_activate(&keep, 8, &err), -ENOENT);
	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0);
	cr_assert_eq(mig_register_ask(&keep, 7, MIG_OTHER, &now, &err), -EINVAL);
	cr_assert_eq(mig_register_ask(&other, 7, MIG_SOURCE, &now, &err), -ESTALE);
	cr_assert_str_eq(err.text, "compare-and-swap: the register of 'web' is (7, source), all "
				   "here: expected the record of this migration");
	cr_assert_eq(mig_register_read(&other, &now, &err), -ESTALE);
	expect(MIG_HELD_ALL_HERE, 7, MIG_SOURCE);
	cr_assert_eq(mig_register_begin(&keep, 0, &err), -EPROTO);
	cr_assert_eq(mig_register_may_begin(&keep, 0, &err), -EPROTO);
	wipe();
	cr_assert_eq(mig_register_may_begin(&keep, 0, &err), -EINVAL);
	cr_assert_eq(mig_register_may_begin(&keep, 7, &err), 0);
	cr_assert_eq(mig_register_begin(&keep, 0, &err), -EINVAL);
	cr_assert_eq(mig_register_begin(&keep, MIG_EPOCH_MAX + 1, &err), -EINVAL);
}

/* Whose activation had begun is given to nobody; untouched takes it back. */
Test(mig_records, activation_is_the_end_of_giving_back, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	struct mig_register now;

	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0);
	cr_assert_eq(mig_register_activate(&keep, 7, &err), -EPROTO);
	cr_assert_eq(mig_register_activate(&keep, 8, &err), -EPROTO);
	cr_assert_eq(mig_register_leave(&keep, &err), 0);
	cr_assert_not(is_there(MIG_RECORD_REGISTER), "the source let it go");

	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0);
	ask(&keep, 7, MIG_DESTINATION, 8, MIG_DESTINATION);
	cr_assert_eq(mig_register_leave(&keep, &err), -EPROTO);
	cr_assert_eq(mig_register_runs(&keep, &err), -EPROTO);
	cr_assert_eq(mig_register_activate(&keep, 8, &err), 0);
	cr_assert_eq(mig_register_ask(&keep, 8, MIG_SOURCE, &now, &err), -EPROTO);
	expect(MIG_HELD_ACTIVATING, 8, MIG_DESTINATION);
	cr_assert_eq(mig_register_untouched(&keep, &err), 0);
	ask(&keep, 8, MIG_SOURCE, 9, MIG_SOURCE);
	cr_assert_eq(mig_register_activate(&keep, 8, &err), -EPROTO);
	cr_assert_eq(mig_register_leave(&keep, &err), 0);
	cr_assert_eq(mig_register_leave(&keep, &err), 0);
	expect(MIG_HELD_LEFT, 9, MIG_SOURCE);
	ask(&keep, 7, MIG_DESTINATION, 9, MIG_SOURCE); /* a source that still asks */
	ask(&keep, 9, MIG_DESTINATION, 9, MIG_SOURCE);

	wipe();
	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0);
	ask(&keep, 7, MIG_DESTINATION, 8, MIG_DESTINATION);
	cr_assert_eq(mig_register_activate(&keep, 8, &err), 0);
	cr_assert_eq(mig_register_runs(&keep, &err), 0);
	cr_assert_eq(mig_register_untouched(&keep, &err), -EPROTO);
	cr_assert_eq(mig_register_ask(&keep, 8, MIG_SOURCE, &now, &err), -EPROTO);
	cr_assert_eq(mig_register_leave(&keep, &err), -EPROTO);
	expect(MIG_HELD_RUNS, 8, MIG_DESTINATION);
}

/* Section 3's table. */
Test(mig_records, begin_beside_an_older_record, .init = begin, .fini = end)
{
	static const struct {
		enum mig_record_state state;
		uint64_t from_epoch;
		uint64_t epoch;
		enum mig_side owner;
		const char *peer;
		uint64_t least; /* epoch at which another may begin */
	} rows[] = {
		{ MIG_HELD_RUNS, 7, 8, MIG_DESTINATION, "10.0.0.1:1", 9 },
		{ MIG_HELD_ACTIVATING, 7, 8, MIG_DESTINATION, "10.0.0.1:1", 9 },
		{ MIG_HELD_ALL_HERE, 7, 8, MIG_DESTINATION, "10.0.0.1:1", 9 },
		{ MIG_HELD_ALL_HERE, 7, 7, MIG_SOURCE, "10.0.0.1:1", 7 },
		{ MIG_HELD_ALL_HERE, 7, 7, MIG_SOURCE, "10.0.0.11:1", 8 },
		{ MIG_HELD_ALL_HERE, 7, 7, MIG_SOURCE, "host", 8 },
		{ MIG_HELD_ALL_HERE, 7, 8, MIG_SOURCE, "10.0.0.1:1", 7 },
		{ MIG_HELD_LEFT, 7, 8, MIG_SOURCE, "host", 7 },
		{ MIG_HELD_LEFT, 7, 9, MIG_SOURCE, "10.0.0.1:1", 8 },
	};
	struct mig_keep keep = keep_of(id_two, "10.0.0.1:7011");

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (uint64_t epoch = 5; epoch <= 11; epoch++) {
			int code;

			left_behind(id_one, rows[i].peer, rows[i].state, rows[i].from_epoch,
				    rows[i].epoch, rows[i].owner);
			code = mig_register_may_begin(&keep, epoch, &err);
			expect(rows[i].state, rows[i].epoch, rows[i].owner);
			cr_assert_eq(mig_register_begin(&keep, epoch, &err), code);
			cr_assert_eq(code, epoch < rows[i].least ? -ESTALE : 0,
				     "row %zu epoch %d: %d", i, (int)epoch, code);
			if (code < 0)
				expect(rows[i].state, rows[i].epoch, rows[i].owner);
			else
				expect(MIG_HELD_ALL_HERE, epoch, MIG_SOURCE);
		}
	}
	/* The same migration: again only where it has got no further. */
	left_behind(id_two, "host", MIG_HELD_ALL_HERE, 7, 7, MIG_SOURCE);
	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0);
	cr_assert_eq(mig_register_begin(&keep, 8, &err), -EPROTO);
	left_behind(id_two, "host", MIG_HELD_ALL_HERE, 7, 8, MIG_SOURCE);
	cr_assert_eq(mig_register_begin(&keep, 7, &err), -EPROTO);
	left_behind(id_two, "host", MIG_HELD_LEFT, 7, 8, MIG_SOURCE);
	cr_assert_eq(mig_register_begin(&keep, 7, &err), -EPROTO);
	/* Another's record is not ours to leave. */
	left_behind(id_one, "host", MIG_HELD_ALL_HERE, 7, 7, MIG_SOURCE);
	cr_assert_eq(mig_register_leave(&keep, &err), 0);
	expect(MIG_HELD_ALL_HERE, 7, MIG_SOURCE);
}

/* Before all is here: named by nobody, run by nobody, and no obstacle to whoever comes next. */
Test(mig_records, what_is_coming, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	struct mig_keep other = keep_of(id_two, "10.0.0.2:7011");
	struct mig_register now;
	uint64_t least = 0;

	cr_assert_eq(mig_register_coming(&keep, 7, &err), 0, "%s", err.text);
	cr_assert_eq(mig_register_coming(&keep, 7, &err), 0, "it may have been unknown");
	expect(MIG_HELD_COMING, 7, MIG_SOURCE);
	cr_assert_eq(mig_records_may_start(records, "web", 0, &least, &err), -EPROTO);
	cr_assert_not_null(strstr(err.text, "not all of it is here"), "%s", err.text);
	cr_assert_eq(mig_register_ask(&keep, 7, MIG_DESTINATION, &now, &err), -EPROTO);
	cr_assert_eq(mig_register_ask(&keep, 7, MIG_SOURCE, &now, &err), -EPROTO);
	cr_assert_eq(mig_register_activate(&keep, 8, &err), -EPROTO);
	cr_assert_eq(mig_register_begin(&keep, 8, &err), -EPROTO, "of another epoch");
	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0, "%s", err.text);
	expect(MIG_HELD_ALL_HERE, 7, MIG_SOURCE);
	cr_assert_eq(mig_register_coming(&keep, 7, &err), -EPROTO, "it has got further");
	cr_assert_eq(mig_register_leave(&keep, &err), 0);
	cr_assert_not(is_there(MIG_RECORD_REGISTER));

	cr_assert_eq(mig_register_coming(&keep, 9, &err), 0);
	cr_assert_eq(mig_register_may_begin(&other, 7, &err), 0, "what died is nobody's life");
	cr_assert_eq(mig_register_coming(&other, 7, &err), 0);
	cr_assert_eq(mig_register_leave(&keep, &err), 0, "it is not this one's");
	cr_assert_eq(mig_register_leave(&other, &err), 0);
	cr_assert_not(is_there(MIG_RECORD_REGISTER));
	left_behind(id_one, "host", MIG_HELD_RUNS, 7, 8, MIG_DESTINATION);
	cr_assert_eq(mig_register_coming(&other, 8, &err), -ESTALE, "as begin");
}

/* --- the source's promise --- */

Test(mig_records, promise_comes_and_goes, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	struct mig_register now;

	cr_assert_eq(mig_promise_answer(&keep, &now, &err), 0);
	cr_assert_eq(mig_promise_end(&keep, false, 7, &err), 0);
	cr_assert_eq(mig_promise_make(&keep, 7, &err), 0, "%s", err.text);
	cr_assert_eq(mig_promise_make(&keep, 7, &err), 0, "it may have been unknown");
	cr_assert_eq(mig_promise_make(&keep, 8, &err), -EPROTO);
	cr_assert_eq(on_disk(MIG_RECORD_PROMISE).state, MIG_HELD_PROMISED);
	cr_assert_eq(mig_promise_answer(&keep, &now, &err), 0);
	cr_assert_eq(mig_promise_end(&keep, false, 7, &err), 0);
	cr_assert_not(is_there(MIG_RECORD_PROMISE));
}

Test(mig_records, promise_beside_an_older_one, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	struct mig_keep other = keep_of(id_two, "10.0.0.2:7011");

	cr_assert_eq(mig_promise_make(&keep, 7, &err), 0);
	cr_assert_eq(mig_promise_make(&other, 6, &err), -ESTALE);
	cr_assert_eq(mig_promise_end(&other, true, 6, &err), 0, "it is not this one's");
	cr_assert(is_there(MIG_RECORD_PROMISE));
	cr_assert_eq(mig_promise_make(&other, 7, &err), 0, "its end could not be written");
	cr_assert_str_eq(on_disk(MIG_RECORD_PROMISE).peer, "10.0.0.2:7011");
}

/* A VM that came, and moves on: what says that it runs here goes first. */
Test(mig_records, moving_on_takes_the_register_along, .init = begin, .fini = end)
{
	struct mig_keep came = one();
	struct mig_keep goes = keep_of(id_two, "10.0.0.3:7011");

	cr_assert_eq(mig_register_begin(&came, 7, &err), 0);
	ask(&came, 7, MIG_DESTINATION, 8, MIG_DESTINATION);
	cr_assert_eq(mig_register_activate(&came, 8, &err), 0);
	cr_assert_eq(mig_register_runs(&came, &err), 0);
	cr_assert_eq(mig_promise_make(&goes, 8, &err), 0);
	cr_assert_eq(mig_promise_end(&goes, false, 8, &err), 0);
	cr_assert(is_there(MIG_RECORD_REGISTER), "it stays");
	cr_assert_eq(mig_promise_make(&goes, 8, &err), 0);
	cr_assert_eq(mig_promise_end(&goes, true, 8, &err), 0);
	cr_assert_not(is_there(MIG_RECORD_REGISTER));
	cr_assert_eq(on_disk(MIG_RECORD_PROMISE).state, MIG_HELD_OVER);

	/* It has come back before that was written: what it came with stays. */
	cr_assert_eq(unlinkat(folder_fd, "web.promise", 0), 0);
	cr_assert_eq(mig_promise_make(&goes, 8, &err), 0);
	left_behind(id_one, "host", MIG_HELD_ALL_HERE, 9, 9, MIG_SOURCE);
	cr_assert_eq(mig_promise_end(&goes, true, 8, &err), 0);
	cr_assert(is_there(MIG_RECORD_REGISTER));
}

/* --- what may be started --- */

static void may_start(uint64_t epoch, int wanted, uint64_t least)
{
	uint64_t got = 99;
	int code = mig_records_may_start(records, "web", epoch, &got, &err);

	cr_assert_eq(code, wanted, "%d: %s", code, err.text);
	if (code == 0)
		cr_assert_eq(got, least);
}

Test(mig_records, starting_beside_a_register, .init = begin, .fini = end)
{
	may_start(0, 0, 0);
	may_start(5, 0, 0);
	left_behind(id_one, "host", MIG_HELD_ALL_HERE, 7, 7, MIG_SOURCE);
	may_start(0, -EPROTO, 0);
	may_start(100, -EPROTO, 0);
	left_behind(id_one, "host", MIG_HELD_ALL_HERE, 7, 8, MIG_SOURCE);
	may_start(0, -EPROTO, 0);
	left_behind(id_one, "host", MIG_HELD_LEFT, 7, 8, MIG_SOURCE);
	may_start(8, -ESTALE, 0);
	may_start(9, 0, 9);
	left_behind(id_one, "host", MIG_HELD_ALL_HERE, 7, 8, MIG_DESTINATION);
	may_start(7, -ESTALE, 0);
	may_start(0, 0, 8);
	left_behind(id_one, "host", MIG_HELD_RUNS, 7, 8, MIG_DESTINATION);
	may_start(8, 0, 8);
	may_start(20, 0, 8);
}

Test(mig_records, starting_beside_a_promise, .init = begin, .fini = end)
{
	struct mig_keep keep = one();

	left_behind(id_two, "host", MIG_HELD_RUNS, 6, 7, MIG_DESTINATION);
	cr_assert_eq(mig_promise_make(&keep, 7, &err), 0);
	may_start(0, -EPROTO, 0);
	may_start(100, -EPROTO, 0);
	left_behind(id_two, "host", MIG_HELD_RUNS, 8, 9, MIG_DESTINATION); /* it came back */
	may_start(0, 0, 9);
}

/* A VM that has moved is not started from what is old; until it has come back. */
Test(mig_records, starting_what_has_moved, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	struct mig_keep other = keep_of(id_two, "10.0.0.2:7011");

	cr_assert_eq(mig_promise_make(&keep, 7, &err), 0);
	cr_assert_eq(mig_promise_end(&keep, true, 7, &err), 0);
	cr_assert_eq(mig_promise_end(&keep, true, 7, &err), 0, "again");
	may_start(0, -EPROTO, 0);
	cr_assert_not_null(strstr(err.text, "has moved to '10.0.0.1:7011', at epoch 8"), "%s",
			   err.text);
	may_start(100, -EPROTO, 0);
	cr_assert_eq(mig_promise_make(&keep, 7, &err), -EPROTO, "it is over");
	cr_assert_eq(mig_promise_make(&other, 8, &err), -ESTALE, "it runs there");
	left_behind(id_two, "host", MIG_HELD_RUNS, 8, 9, MIG_DESTINATION); /* it came back */
	may_start(0, 0, 9);
	cr_assert_eq(mig_promise_make(&other, 9, &err), 0, "%s", err.text);
}

/* A VM that was asked for and came back: the epoch is not forgotten with its worker. */
Test(mig_records, starting_what_came_back, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	struct mig_keep other = keep_of(id_two, "10.0.0.2:7011");

	for (uint64_t epoch = 8; epoch <= 9; epoch++) {
		cr_assert_eq(mig_promise_make(&keep, 7, &err), 0);
		cr_assert_eq(mig_promise_end(&keep, false, epoch, &err), 0);
		may_start(0, 0, epoch);
		may_start(epoch - 1, -ESTALE, 0);
		cr_assert_eq(mig_promise_make(&other, epoch - 1, &err), -ESTALE);
		cr_assert_eq(unlinkat(folder_fd, "web.promise", 0), 0);
	}
	cr_assert_eq(mig_promise_make(&keep, 7, &err), 0);
	cr_assert_eq(mig_promise_end(&keep, false, 9, &err), 0);
	cr_assert_eq(mig_promise_make(&other, 9, &err), 0, "%s", err.text);
	/* An epoch that an arbiter of a cluster's gave, which keeps it. */
	cr_assert_eq(mig_promise_end(&other, false, 19, &err), 0);
	cr_assert_not(is_there(MIG_RECORD_PROMISE));
}

/* An operator gave it to the other side; it ran there, and came from there again. */
Test(mig_records, a_promise_after_what_an_operator_gave_away, .init = begin, .fini = end)
{
	const struct mig_resolve there = { .here = false };
	struct mig_keep given = one();
	struct mig_keep keep = keep_of(id_two, "10.0.0.2:7011");
	struct mig_record record;

	cr_assert_eq(mig_promise_make(&given, 7, &err), 0);
	cr_assert_eq(mig_resolve_decide(records, "web", &there, &record, &err), 1);
	cr_assert_eq(mig_promise_make(&keep, 8, &err), -ESTALE, "at 8 it ran there");
	cr_assert_eq(mig_promise_make(&keep, 9, &err), 0, "%s", err.text);
}

/* --- damage --- */

static void damage(const void *bytes, size_t size)
{
	int fd = openat(folder_fd, "web.register", O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);

	cr_assert_eq(base_write_all(fd, bytes, size), 0);
	(void)close(fd);
}

static void expect_damage(void)
{
	struct mig_keep keep = one();
	struct mig_register now;
	struct mig_record record;
	uint64_t least;

	cr_assert_eq(mig_records_load(records, MIG_RECORD_REGISTER, "web", &record, &err),
		     -EBADMSG);
	cr_assert_not_null(strstr(err.text, "'web.register': "), "%s", err.text);
	cr_assert_eq(mig_register_may_begin(&keep, 100, &err), -EBADMSG);
	cr_assert_eq(mig_register_begin(&keep, 100, &err), -EBADMSG);
	cr_assert_eq(mig_register_ask(&keep, 7, MIG_SOURCE, &now, &err), -EBADMSG);
	cr_assert_eq(mig_register_read(&keep, &now, &err), -EBADMSG);
	cr_assert_eq(mig_register_activate(&keep, 8, &err), -EBADMSG);
	cr_assert_eq(mig_register_untouched(&keep, &err), -EBADMSG);
	cr_assert_eq(mig_register_runs(&keep, &err), -EBADMSG);
	cr_assert_eq(mig_register_leave(&keep, &err), -EBADMSG);
	cr_assert_eq(mig_records_may_start(records, "web", 0, &least, &err), -EBADMSG);
}

Test(mig_records, damaged_is_not_none, .init = begin, .fini = end)
{
	struct mig_keep keep = one();
	uint8_t bytes[MIG_RECORD_BYTES] = { 0 };
	int fd;

	damage("", 0);
	expect_damage();
	damage(bytes, sizeof(bytes));
	expect_damage();
	cr_assert_eq(unlinkat(folder_fd, "web.register", 0), 0);
	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0);
	fd = openat(folder_fd, "web.register", O_RDWR | O_CLOEXEC);
	cr_assert_eq(base_pread_all(fd, bytes, sizeof(bytes), 0), 0);
	(void)close(fd);
	damage(bytes, sizeof(bytes) - 1);
	expect_damage();
	bytes[100] ^= 1;
	damage(bytes, sizeof(bytes));
	expect_damage();
	bytes[100] ^= 1;
	damage(bytes, sizeof(bytes));
	expect(MIG_HELD_ALL_HERE, 7, MIG_SOURCE);

	/* Of another VM, of the other kind, a link, a directory. */
	cr_assert_eq(renameat(folder_fd, "web.register", folder_fd, "web2.register"), 0);
	cr_assert_eq(linkat(folder_fd, "web2.register", folder_fd, "web.promise", 0), 0);
	cr_assert_eq(symlinkat("web2.register", folder_fd, "web.register"), 0);
	cr_assert_eq(mig_promise_make(&keep, 7, &err), -EBADMSG);
	expect_damage();
	cr_assert_eq(unlinkat(folder_fd, "web.register", 0), 0);
	cr_assert_eq(linkat(folder_fd, "web2.register", folder_fd, "web.register", 0), 0);
	cr_assert_eq(unlinkat(folder_fd, "web.promise", 0), 0);
	expect(MIG_HELD_ALL_HERE, 7, MIG_SOURCE); /* it is web's, whatever the other is called */
	cr_assert_eq(unlinkat(folder_fd, "web.register", 0), 0);
	cr_assert_eq(mkdirat(folder_fd, "web.register", 0700), 0);
	expect_damage();
	cr_assert_eq(unlinkat(folder_fd, "web.register", AT_REMOVEDIR), 0);
}

Test(mig_records, names_that_are_none, .init = begin, .fini = end)
{
	static const char *const names[] = { "", ".", "..", "a/b", ".web", "web ", "we\nb" };
	struct mig_record record;
	struct mig_keep keep;
	char longest[300];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		cr_assert_eq(mig_records_load(records, MIG_RECORD_PROMISE, names[i], &record, &err),
			     -EINVAL, "%s", names[i]);
		cr_assert_eq(mig_keep_init(&keep, records, names[i], "host", id_one, &err), 0);
		cr_assert_eq(mig_register_begin(&keep, 7, &err), -EINVAL);
	}
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	cr_assert_eq(mig_records_load(records, MIG_RECORD_PROMISE, longest, &record, &err),
		     -EINVAL);
	cr_assert_eq(mig_keep_init(&keep, records, longest, "host", id_one, &err), -EINVAL);
	cr_assert_eq(mig_keep_init(&keep, records, "web", longest, id_one, &err), -EINVAL);
	longest[63] = '\0';
	cr_assert_eq(mig_keep_init(&keep, records, longest, "host", id_one, &err), 0);
	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0, "%s", err.text);
	cr_assert_eq(mig_keep_init(&keep, records, "web", "", id_one, &err), 0);
	cr_assert_eq(mig_register_begin(&keep, 7, &err), -EINVAL);
}

/* --- lists --- */

Test(mig_records, list_has_all_and_the_damaged, .init = begin, .fini = end)
{
	struct mig_records_entry *list = NULL;
	struct mig_keep keep = one();
	size_t count = 99;

	cr_assert_eq(mig_records_list(records, &list, &count, &err), 0);
	cr_assert_eq(count, 0);
	free(list);
	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0);
	cr_assert_eq(mig_promise_make(&keep, 7, &err), 0);
	damage("x", 1);
	cr_assert_eq(mkdirat(folder_fd, "sub", 0700), 0);
	(void)close(openat(folder_fd, "db.promise", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	(void)close(openat(folder_fd, ".db.promise.part", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	(void)close(openat(folder_fd, "web.state", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	(void)close(openat(folder_fd, "promise", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	cr_assert_eq(mig_records_list(records, &list, &count, &err), 0);
	cr_assert_eq(count, 3);
	cr_assert_str_eq(list[0].name, "db");
	cr_assert_eq(list[0].code, -EBADMSG);
	cr_assert_not_null(strstr(list[0].err.text, "'db.promise'"));
	cr_assert_str_eq(list[1].name, "web");
	cr_assert_eq(list[1].kind, MIG_RECORD_REGISTER);
	cr_assert_eq(list[1].code, -EBADMSG);
	cr_assert_eq(list[2].kind, MIG_RECORD_PROMISE);
	cr_assert_eq(list[2].code, 0);
	cr_assert_eq(list[2].record.from_epoch, 7);
	free(list);
	cr_assert_eq(unlinkat(folder_fd, "sub", AT_REMOVEDIR), 0);
}

Test(mig_records, without_memory, .init = begin, .fini = end)
{
	struct mig_records *more = NULL;
	struct mig_records_entry *list = NULL;
	struct mig_keep keep = one();
	size_t count = 0;
	int code = -1;

	alloc_fail_at(0);
	cr_assert_eq(mig_records_new(folder_fd, NULL, &more, &err), -ENOMEM);
	cr_assert(alloc_fail_done());
	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0);
	for (unsigned int k = 0; code < 0; k++) {
		alloc_fail_at(k);
		code = mig_records_list(records, &list, &count, &err);
		if (alloc_fail_done())
			cr_assert_eq(code, -ENOMEM);
		else
			cr_assert_eq(code, 0);
	}
	cr_assert_eq(count, 1);
	free(list);
}
