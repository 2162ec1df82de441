/* SPDX-License-Identifier: Apache-2.0 */
/* The common part of stores, over a provider that completes what the test tells it to. */
#include "hypervisor/disk/store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"

enum {
	TAKEN_MAX = 512
};

struct hand_file {
	struct store_file common; /* first */
	struct store_request *taken[TAKEN_MAX];
	int taken_count;
	int at_once; /* complete within submit */
	int acquire_code;
	int release_code;
	int releases;
};

static struct hand_file *opened; /* the newest */
static int closes;

static void hand_submit(struct store_file *common, struct store_request *request)
{
	struct hand_file *file = (struct hand_file *)common;

	file->taken[file->taken_count++] = request;
	if (file->at_once != 0)
		store_complete(request, 0);
}

static int hand_acquire(struct store_file *common, uint64_t epoch, const struct store_proof *proof,
			uint64_t *ret_epoch, struct base_error *err)
{
	struct hand_file *file = (struct hand_file *)common;

	(void)proof;
	if (file->acquire_code < 0)
		return base_fail(err, file->acquire_code, "as told");
	*ret_epoch = epoch == STORE_EPOCH_NONE ? 7 : epoch;
	return 0;
}

static int hand_release(struct store_file *common, struct base_error *err)
{
	struct hand_file *file = (struct hand_file *)common;

	file->releases++;
	return file->release_code < 0 ? base_fail(err, file->release_code, "as told") : 0;
}

static void hand_close(struct store_file *common)
{
	closes++;
	free(common);
}

static const struct store_file_ops hand_file_ops = {
	.submit = hand_submit,
	.acquire = hand_acquire,
	.release = hand_release,
	.close = hand_close,
};

static int hand_open(struct store *store, const char *name,
		     const struct store_open_options *options, struct store_file **ret_file,
		     struct base_error *err)
{
	struct hand_file *file = NULL;

	(void)store;
	(void)options;
	if (strcmp(name, "missing") == 0)
		return base_fail(err, -ENOENT, "'%s'", name);
	file = calloc(1, sizeof(*file));
	cr_assert_not_null(file);
	file->common.ops = &hand_file_ops;
	file->common.align_bytes = 512;
	file->common.size_bytes = 1 << 20;
	file->common.max_inflight_ms = 5000;
	file->common.read_only = strcmp(name, "readonly") == 0;
	opened = file;
	*ret_file = &file->common;
	return 0;
}

static char told[3][STORE_NAME_BYTES]; /* names that the other operations were given */

static int hand_rename(struct store *store, const char *from, const char *to,
		       struct base_error *err)
{
	(void)store;
	(void)err;
	memcpy(told[0], from, strlen(from) + 1);
	memcpy(told[1], to, strlen(to) + 1);
	return 0;
}

static int hand_name(struct store *store, const char *name, struct base_error *err)
{
	(void)store;
	(void)err;
	memcpy(told[0], name, strlen(name) + 1);
	return 0;
}

static int hand_list(struct store *store, const char *folder,
		     int (*each)(void *context, const char *name, uint64_t size_bytes),
		     void *context, struct base_error *err)
{
	(void)store;
	(void)err;
	memcpy(told[0], folder, strlen(folder) + 1);
	return each(context, "one", 1);
}

static int hand_free_space(struct store *store, uint64_t *ret_bytes, struct base_error *err)
{
	(void)store;
	(void)err;
	*ret_bytes = 42;
	return 0;
}

static int hand_lease(struct store *store, const char *name, struct store_lease *ret_lease,
		      struct base_error *err)
{
	*ret_lease = (struct store_lease){ .epoch = 3 };
	return hand_name(store, name, err);
}

static void hand_free(struct store *store)
{
	(void)store;
}

static const struct store_ops hand_ops = {
	.open = hand_open,
	.list = hand_list,
	.rename = hand_rename,
	.remove = hand_name,
	.sync_folder = hand_name,
	.free_space = hand_free_space,
	.lease = hand_lease,
	.free = hand_free,
};

static struct store hand_store = { .ops = &hand_ops };

/* --- a file on a loop that the test pumps, under a clock that it sets --- */

static struct base_fake_clock fake_time = { .boot_ns = 1000 };
static struct base_clock fake_clock;
static bool gate_open = true;
static int events_quiesced;
static int events_resumed;
static enum store_state event_state;
static char event_reason[STORE_TEXT_BYTES];

static bool gate_look(void *context)
{
	(void)context;
	return gate_open;
}

static void on_state(void *context, enum store_state state, const char *reason)
{
	(void)context;
	event_state = state;
	(void)snprintf(event_reason, sizeof(event_reason), "%s", reason);
}

static void on_quiesced(void *context)
{
	(void)context;
	events_quiesced++;
}

static void on_resumed(void *context)
{
	(void)context;
	events_resumed++;
}

static const struct store_events events = {
	.state = on_state,
	.quiesced = on_quiesced,
	.resumed = on_resumed,
};

static struct base_io_loop *loop;
static struct store_file *file;

static void begin(bool acquired)
{
	struct base_io_loop_options options = { .clock = &fake_clock, .without_ring = true };
	struct store_open_options open = {
		.align_bytes = 512,
		.events = &events,
		.gate = { .may_submit = gate_look },
	};
	uint64_t epoch = 0;

	fake_clock = base_clock_fake(&fake_time);
	cr_assert_eq(base_io_loop_new(&options, &loop, NULL), 0);
	open.loop = loop;
	cr_assert_eq(store_open(&hand_store, "a/file", &open, &file, NULL), 0);
	if (acquired) {
		cr_assert_eq(store_acquire(file, 7, NULL, &epoch, NULL), 0);
		cr_assert_eq(epoch, 7);
	}
}

static void end(void)
{
	store_close(file);
	base_io_loop_free(loop);
}

static void pump(void)
{
	while (base_io_loop_step(loop, false))
		;
}

struct asked {
	struct store_request request; /* first */
	int result;                   /* 1: not done */
	int order;
};

static int done_count;

static void asked_done(struct store_request *request, int result)
{
	struct asked *asked = (struct asked *)request;

	cr_assert_eq(asked->result, 1); /* once */
	asked->result = result;
	asked->order = done_count++;
}

static uint8_t memory[4096];
static struct iovec memory_iov = { .iov_base = memory, .iov_len = sizeof(memory) };

static struct asked asking(enum store_op op, uint64_t epoch)
{
	return (struct asked){
		.request = {
			.op = op,
			.epoch = epoch,
			.length_bytes = sizeof(memory),
			.iov = &memory_iov,
			.iov_count = 1,
			.done = asked_done,
		},
		.result = 1,
	};
}

/* Submit and say what came of it without the provider: 1 when it got there. */
static int outcome(struct asked asked)
{
	int before = opened->taken_count;

	store_submit(file, &asked.request);
	cr_assert_eq(asked.result, 1); /* never within submit */
	pump();
	if (opened->taken_count > before) {
		store_complete(&asked.request, 0);
		pump();
		cr_assert_eq(asked.result, 0);
		return 1;
	}
	cr_assert_lt(asked.result, 1);
	return asked.result;
}

static bool reads(enum store_op op)
{
	return op == STORE_READ || op == STORE_RANGES;
}

static struct asked whole(enum store_op op, uint64_t epoch)
{
	static struct store_range range;
	struct asked asked = asking(op, epoch);

	asked.request.ranges = &range;
	asked.request.range_capacity = 1;
	return asked;
}

/* --- the tests --- */

Test(store, open_says_what_is_wrong)
{
	struct store_open_options options = { .align_bytes = 512 };
	struct store_file *none = NULL;
	char longest[STORE_NAME_BYTES + 8];

	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	cr_assert_eq(store_open(&hand_store, "", &options, &none, NULL), -EINVAL);
	cr_assert_eq(store_open(&hand_store, "../x", &options, &none, NULL), -EINVAL);
	cr_assert_eq(store_open(&hand_store, "a/../..", &options, &none, NULL), -EINVAL);
	cr_assert_eq(store_open(&hand_store, longest, &options, &none, NULL), -EINVAL);
	cr_assert_eq(store_open(&hand_store, "missing", &options, &none, NULL), -ENOENT);
	options.align_bytes = 100;
	cr_assert_eq(store_open(&hand_store, "x", &options, &none, NULL), -EINVAL);
	options.align_bytes = 1536;
	cr_assert_eq(store_open(&hand_store, "x", &options, &none, NULL), -EINVAL);
	cr_assert_null(none);
	store_close(NULL);
	store_free(NULL);
}

Test(store, every_operation_needs_the_owner_and_its_epoch)
{
	begin(false);
	for (int op = STORE_READ; op < STORE_OPS; op++) {
		cr_assert_eq(outcome(whole((enum store_op)op, STORE_EPOCH_NONE)),
			     reads((enum store_op)op) ? 1 : -EROFS);
		cr_assert_eq(outcome(whole((enum store_op)op, 7)),
			     reads((enum store_op)op) ? -ESTALE : -EROFS);
	}
	cr_assert_eq(store_acquire(file, 7, NULL, NULL, NULL), 0);
	for (int op = STORE_READ; op < STORE_OPS; op++) {
		cr_assert_eq(outcome(whole((enum store_op)op, 7)), 1);
		cr_assert_eq(outcome(whole((enum store_op)op, 6)), -ESTALE);
		cr_assert_eq(outcome(whole((enum store_op)op, 8)), -ESTALE);
	}
	cr_assert_eq(store_release(file, NULL), 0);
	cr_assert_eq(store_epoch(file), STORE_EPOCH_NONE);
	cr_assert_eq(outcome(whole(STORE_WRITE, 7)), -EROFS);
	end();
}

static int form(struct store_request change)
{
	struct asked asked = asking(change.op, 7);

	asked.request = change;
	asked.request.epoch = 7;
	asked.request.done = asked_done;
	return outcome(asked);
}

Test(store, a_request_that_makes_no_sense_is_refused)
{
	struct iovec halves[2] = {
		{ .iov_base = memory, .iov_len = 2048 },
		{ .iov_base = memory, .iov_len = 2048 },
	};
	struct store_request good = asking(STORE_WRITE, 7).request;
	struct store_request bad = good;

	begin(true);
	cr_assert_eq(form(good), 1);
	bad.op = STORE_OP_INVALID;
	cr_assert_eq(form(bad), -EINVAL);
	bad.op = STORE_OPS;
	cr_assert_eq(form(bad), -EINVAL);
	bad = good;
	bad.flags = 2;
	cr_assert_eq(form(bad), -EINVAL);
	bad.flags = STORE_FUA;
	cr_assert_eq(form(bad), 1);
	bad.op = STORE_READ;
	cr_assert_eq(form(bad), -EINVAL);
	bad = good;
	bad.offset_bytes = 256;
	cr_assert_eq(form(bad), -EINVAL);
	bad.offset_bytes = UINT64_MAX - 511;
	cr_assert_eq(form(bad), -EINVAL);
	bad.offset_bytes = (UINT64_C(1) << 63) - 512;
	cr_assert_eq(form(bad), -EINVAL);
	bad = good;
	bad.length_bytes = 2048; /* less than the memory */
	cr_assert_eq(form(bad), -EINVAL);
	bad.length_bytes = 8192; /* more */
	cr_assert_eq(form(bad), -EINVAL);
	bad.length_bytes = STORE_REQUEST_BYTES_MAX + 512;
	cr_assert_eq(form(bad), -EINVAL);
	bad = good;
	bad.iov = halves;
	bad.iov_count = 2;
	cr_assert_eq(form(bad), 1);
	bad = good;
	bad.op = STORE_RANGES;
	cr_assert_eq(form(bad), -EINVAL);
	bad = good;
	bad.iov_count = 0;
	bad.length_bytes = 0;
	cr_assert_eq(form(bad), 0); /* nothing to do */
	end();
}

Test(store, sizes_follow_what_completed)
{
	struct asked write = asking(STORE_WRITE, 7);
	struct store_facts facts;

	begin(true);
	write.request.offset_bytes = 2 << 20;
	cr_assert_eq(outcome(write), 1);
	store_facts(file, &facts);
	cr_assert_eq(facts.size_bytes, (2 << 20) + 4096);
	cr_assert_eq(facts.max_inflight_ms, 5000);
	cr_assert_eq(facts.state, STORE_DIRECT);
	write = asking(STORE_TRUNCATE, 7);
	write.request.offset_bytes = 512;
	cr_assert_eq(outcome(write), 1);
	store_facts(file, &facts);
	cr_assert_eq(facts.size_bytes, 512);
	end();
}

Test(store, acquire_and_release_say_why)
{
	struct store_open_options options = { .align_bytes = 512 };
	struct base_error err = { .code = 0 };
	struct store_file *other = NULL;
	uint64_t epoch = 0;

	begin(false);
	cr_assert_eq(store_release(file, &err), -EPROTO);
	opened->acquire_code = -EBUSY;
	cr_assert_eq(store_acquire(file, 3, NULL, &epoch, &err), -EBUSY);
	cr_assert_not_null(strstr(err.text, "a/file"));
	opened->acquire_code = 0;
	cr_assert_eq(store_acquire(file, STORE_EPOCH_NONE, NULL, &epoch, &err), 0);
	cr_assert_eq(epoch, 7);
	cr_assert_eq(store_acquire(file, 8, NULL, &epoch, &err), -EPROTO);
	opened->release_code = -EIO;
	cr_assert_eq(store_release(file, &err), -EIO);
	cr_assert_eq(outcome(asking(STORE_WRITE, 7)), -EROFS); /* given back all the same */
	options.loop = loop;
	cr_assert_eq(store_open(&hand_store, "readonly", &options, &other, NULL), 0);
	cr_assert_eq(store_acquire(other, 3, NULL, &epoch, &err), -EROFS);
	store_close(other);
	options.read_only = true;
	cr_assert_eq(store_open(&hand_store, "x", &options, &other, NULL), 0);
	cr_assert_eq(store_acquire(other, 3, NULL, &epoch, &err), -EROFS);
	cr_assert_not_null(strstr(err.text, "opened for reading"));
	store_close(other);
	end();
}

static void set_true(void *context)
{
	*(bool *)context = true;
}

Test(store, quiesce_lets_requests_wait_in_order)
{
	static struct asked asked[300];
	bool drained = false;

	begin(true);
	for (int i = 0; i < 300; i++) {
		asked[i] = asking(i % 3 == 0 ? STORE_READ : STORE_WRITE, 7);
		if (i == 100) {
			store_quiesce(file, set_true, &drained);
			cr_assert_eq(events_quiesced, 1);
		}
		store_submit(file, &asked[i].request);
	}
	pump();
	cr_assert_eq(opened->taken_count, 100);
	cr_assert_not(drained);
	for (int i = 0; i < 100; i++)
		store_complete(opened->taken[99 - i], 0); /* in any order */
	cr_assert_not(drained);
	pump();
	cr_assert(drained);
	cr_assert_eq(done_count, 100);
	cr_assert_eq(opened->taken_count, 100);
	store_resume(file);
	store_resume(file); /* twice: nothing */
	cr_assert_eq(events_resumed, 1);
	cr_assert_eq(opened->taken_count, 300);
	for (int i = 100; i < 300; i++) {
		cr_assert_eq(opened->taken[i], &asked[i].request);
		store_complete(opened->taken[i], i % 2 == 0 ? 0 : -EIO);
	}
	pump();
	for (int i = 100; i < 300; i++)
		cr_assert_eq(asked[i].result, i % 2 == 0 ? 0 : -EIO);
	drained = false;
	store_quiesce(file, set_true, &drained); /* nothing is under way */
	cr_assert(drained);
	store_resume(file);
	end();
}

Test(store, a_request_that_waited_is_looked_at_again)
{
	struct asked asked = asking(STORE_WRITE, 7);

	begin(true);
	store_quiesce(file, NULL, NULL);
	store_submit(file, &asked.request);
	cr_assert_eq(store_release(file, NULL), 0); /* what waits is not in flight */
	cr_assert_eq(store_acquire(file, 8, NULL, NULL, NULL), 0);
	store_resume(file);
	pump();
	cr_assert_eq(asked.result, -ESTALE);
	cr_assert_eq(opened->taken_count, 0);
	end();
}

static int sent_again;

/* A reader that never stops: asks again as soon as it was answered. */
static void send_again(struct store_request *request, int result)
{
	(void)result;
	if (++sent_again < 1000)
		store_submit(file, request);
}

Test(store, an_owner_changes_while_its_senders_go_on)
{
	struct asked asked = asking(STORE_READ, 7);

	begin(true);
	opened->at_once = 1;
	asked.request.done = send_again;
	store_submit(file, &asked.request);
	cr_assert_eq(store_release(file, NULL), 0);
	cr_assert_lt(sent_again, 10); /* the last one waited, and is stale then */
	cr_assert_eq(store_acquire(file, 8, NULL, NULL, NULL), 0);
	sent_again = 1000;
	pump();
	end();
}

Test(store, a_closed_gate_is_looked_at_again)
{
	struct asked asked[3];

	begin(true);
	gate_open = false;
	for (int i = 0; i < 2; i++) {
		asked[i] = asking(STORE_WRITE, 7);
		store_submit(file, &asked[i].request);
	}
	pump();
	cr_assert_eq(opened->taken_count, 0);
	fake_time.boot_ns += 10 * BASE_NS_PER_MS;
	pump();
	cr_assert_eq(opened->taken_count, 0);
	gate_open = true;
	asked[2] = asking(STORE_WRITE, 7);
	store_submit(file, &asked[2].request); /* not before those that wait */
	cr_assert_eq(opened->taken_count, 0);
	fake_time.boot_ns += 10 * BASE_NS_PER_MS;
	pump();
	cr_assert_eq(opened->taken_count, 3);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(opened->taken[i], &asked[i].request);
		store_complete(&asked[i].request, 0);
	}
	pump();
	end();
}

Test(store, close_cancels_what_waits)
{
	struct asked asked[2];

	begin(true);
	gate_open = false;
	for (int i = 0; i < 2; i++) {
		asked[i] = asking(STORE_WRITE, 7);
		store_submit(file, &asked[i].request);
	}
	end();
	cr_assert_eq(asked[0].result, -ECANCELED);
	cr_assert_eq(asked[1].result, -ECANCELED);
	cr_assert_eq(closes, 1);
}

Test(store, states_are_told_once)
{
	struct store_facts facts;

	begin(false);
	store_set_state(file, STORE_REDIRECTED, "over the network");
	cr_assert_eq(event_state, STORE_REDIRECTED);
	cr_assert_str_eq(event_reason, "over the network");
	event_state = STORE_STATE_INVALID;
	store_set_state(file, STORE_REDIRECTED, "over the network");
	cr_assert_eq(event_state, STORE_STATE_INVALID);
	store_facts(file, &facts);
	cr_assert_eq(facts.state, STORE_REDIRECTED);
	cr_assert_str_eq(facts.reason, "over the network");
	end();
}

Test(store, the_blocking_form_says_what_it_did)
{
	struct base_error err = { .code = 0 };

	begin(false);
	cr_assert_eq(store_do(file, STORE_WRITE, 0, memory, 512, &err), -EROFS);
	cr_assert_not_null(strstr(err.text, "write 'a/file' at 0, 512 bytes"));
	cr_assert_eq(store_do(file, STORE_WRITE, 512, memory, UINT64_MAX, &err), -EINVAL);
	cr_assert_eq(store_do(file, STORE_RANGES, 0, NULL, 512, &err), -EINVAL);
	cr_assert_eq(store_acquire(file, 9, NULL, NULL, NULL), 0);
	opened->at_once = 1;
	cr_assert_eq(store_do(file, STORE_WRITE, 0, memory, 512, &err), 0);
	cr_assert_eq(opened->taken_count, 1);
	cr_assert_eq(store_do(file, STORE_FLUSH, 0, NULL, 0, &err), 0);
	cr_assert_eq(opened->taken_count, 2);
	end();
}

Test(store, names_are_resolved)
{
	static const struct {
		const char *from;
		const char *path;
		const char *want; /* NULL: -EINVAL */
	} cases[] = {
		{ "", "x", "x" },           { "a/b", "x", "a/x" },
		{ "a/b/c", "../x", "a/x" }, { "a/b", "./x//y/.", "a/x/y" },
		{ "a/b", "/x", "x" },       { "a/b", "../../x", NULL },
		{ "a", "..", NULL },        { "a/b", ".", "a" },
		{ "a", "/", NULL },         { "a/b", "..x", "a/..x" },
		{ "a/b", "/../x", NULL },
	};
	char name[STORE_NAME_BYTES];
	char longest[STORE_NAME_BYTES + 1];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int code = store_resolve(cases[i].from, cases[i].path, name, NULL);

		cr_assert_eq(code, cases[i].want != NULL ? 0 : -EINVAL, "case %zu", i);
		if (cases[i].want != NULL)
			cr_assert_str_eq(name, cases[i].want);
	}
	memset(longest, 'x', sizeof(longest));
	longest[STORE_NAME_BYTES] = '\0';
	cr_assert_eq(store_resolve("", longest, name, NULL), -ENAMETOOLONG);
	memcpy(longest + STORE_NAME_BYTES - 3, "/y", 3); /* 1023 bytes: it fits */
	cr_assert_eq(store_resolve("", longest, name, NULL), 0);
	cr_assert_eq(strlen(name), STORE_NAME_BYTES - 1);
	cr_assert_eq(store_resolve(name, "y/z", name, NULL), -ENAMETOOLONG);
	memcpy(longest + STORE_NAME_BYTES - 3, "xx", 3);
	cr_assert_eq(store_resolve("", longest, name, NULL), -ENAMETOOLONG);
}

static int count_name(void *context, const char *name, uint64_t size_bytes)
{
	(void)name;
	(void)size_bytes;
	++*(int *)context;
	return 0;
}

Test(store, the_other_calls_give_clean_names)
{
	struct store_lease lease;
	uint64_t bytes = 0;
	int count = 0;

	cr_assert_eq(store_rename(&hand_store, "/a//b", "c/./d", NULL), 0);
	cr_assert_str_eq(told[0], "a/b");
	cr_assert_str_eq(told[1], "c/d");
	cr_assert_eq(store_rename(&hand_store, "a", "../b", NULL), -EINVAL);
	cr_assert_eq(store_remove(&hand_store, "a/../b", NULL), 0);
	cr_assert_str_eq(told[0], "b");
	cr_assert_eq(store_remove(&hand_store, "..", NULL), -EINVAL);
	cr_assert_eq(store_sync_folder(&hand_store, "./x", NULL), 0);
	cr_assert_str_eq(told[0], "x");
	cr_assert_eq(store_sync_folder(&hand_store, "", NULL), -EINVAL);
	cr_assert_eq(store_lease(&hand_store, "q/", &lease, NULL), 0);
	cr_assert_str_eq(told[0], "q");
	cr_assert_eq(store_lease(&hand_store, "/", &lease, NULL), -EINVAL);
	cr_assert_eq(store_list(&hand_store, "a/b/", count_name, &count, NULL), 0);
	cr_assert_str_eq(told[0], "a/b");
	cr_assert_eq(store_list(&hand_store, "", count_name, &count, NULL), 0);
	cr_assert_str_eq(told[0], "");
	cr_assert_eq(count, 2);
	cr_assert_eq(store_list(&hand_store, "..", count_name, &count, NULL), -EINVAL);
	cr_assert_eq(store_free_space(&hand_store, &bytes, NULL), 0);
	cr_assert_eq(bytes, 42);
}

/* --- completions from another thread, on a loop with a thread --- */

struct completer {
	struct base_io_task task; /* first */
	struct hand_file *file;
	pthread_t thread;
	struct asked asked[200];
	bool all;
};

static void *complete_all(void *context)
{
	struct completer *completer = context;

	for (int i = 0; i < 200; i++)
		store_complete(&completer->asked[i].request, 0);
	return NULL;
}

static void submit_all(struct base_io_task *task)
{
	struct completer *completer = (struct completer *)task;

	for (int i = 0; i < 200; i++) {
		completer->asked[i] = asking(STORE_READ, STORE_EPOCH_NONE);
		store_submit(&completer->file->common, &completer->asked[i].request);
	}
	cr_assert_eq(
		base_thread_start(&completer->thread, "completer", complete_all, completer, NULL),
		0);
	base_io_done(completer->file->common.loop, &completer->all);
}

Test(store, close_waits_for_a_provider_on_another_thread)
{
	struct store_open_options options = { .align_bytes = 512 };
	struct completer *completer = calloc(1, sizeof(*completer));
	struct base_io_loop *own = NULL;
	struct store_file *one = NULL;

	cr_assert_not_null(completer);
	cr_assert_eq(base_io_loop_new(NULL, &own, NULL), 0);
	cr_assert_eq(base_io_loop_start(own, "disk", NULL), 0);
	options.loop = own;
	cr_assert_eq(store_open(&hand_store, "x", &options, &one, NULL), 0);
	completer->file = opened;
	completer->task.run = submit_all;
	base_io_post(own, &completer->task);
	base_io_wait(own, &completer->all);
	store_close(one);
	base_thread_join(completer->thread);
	for (int i = 0; i < 200; i++)
		cr_assert_eq(completer->asked[i].result, 0);
	base_io_loop_free(own);
	free(completer);
}
