/* SPDX-License-Identifier: Apache-2.0 */
/* A destination whose source says what it must not: one line of reason, nothing stays, nothing
 * runs.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/thread.h"
#include "migrate/mig_link.h"
#include "tests/support/mig_rig.h"

static struct mig_fake_world world;
static struct mig_fake_vm vm;
static struct mig_arbiter arbiter;
static struct mig_in *in;
static struct base_error err, in_err;
static struct mig_rig_place place;
static pthread_t in_thread;
static enum mig_in_end in_end;
static uint64_t in_epoch;
static struct mig_open open_frame = {
	.version_min = 1, .version_max = MIG_VERSION, .channel_count = 1, .id = { 7 }
};

/* What the hostile source has. */
static struct mig_link *control, *data;
static int control_fd = -1, data_fd = -1;
static struct mig_received received;

static void *run_in(void *context)
{
	(void)context;
	in_end = mig_in_run(in, &in_epoch, &in_err);
	return NULL;
}

static void setup(void)
{
	struct mig_in_options options = { .vm = &mig_fake_destination,
					  .vm_context = &vm,
					  .arbiter = &arbiter,
					  .keeps_register = true,
					  .timeout_ms = 5000,
					  .retry_ms = 5,
					  .give_up_ms = 5 };

	mig_fake_world_init(&world);
	mig_fake_vm_init(&vm, &world, false);
	arbiter = mig_fake_arbiter(&vm);
	mig_rig_listen(&place);
	options.listen_fd = place.listen_fd;
	cr_assert_eq(mig_in_new(&options, &in, &err), 0, "%s", err.text);
	cr_assert_eq(base_thread_start(&in_thread, "run-in", run_in, NULL, &err), 0);
}

static void teardown(void)
{
	mig_link_free(control);
	mig_link_free(data);
	base_closep(&control_fd);
	base_closep(&data_fd);
	mig_in_free(in);
	mig_fake_vm_fini(&vm);
	base_closep(&place.listen_fd);
	if (world.twice != 0) /* an assertion here would not count */
		base_bug("%d times two at once", world.twice);
}

TestSuite(mig_in_hostile, .init = setup, .fini = teardown, .timeout = 30);

static int dial(bool is_control, struct mig_link **ret_link)
{
	struct mig_link_options options = { .is_source = true,
					    .is_control = is_control,
					    .timeout_ms = 5000 };

	options.fd = mig_rig_dial(&place);
	cr_assert_eq(mig_link_new(&options, ret_link, &err), 0);
	return options.fd;
}

static void say(enum mig_type type, const void *body, uint32_t body_bytes)
{
	(void)!mig_link_send(control, type, body, body_bytes, &err);
}

/* The next message but signs of life. */
static int hear(void)
{
	int r = 0;

	do {
		r = mig_link_receive(control, &received, &err);
	} while (r == 0 && received.type == MIG_TYPE_ALIVE);
	return r == 0 ? (int)received.type : r;
}

static void greet(void)
{
	uint8_t body[MIG_OPEN_BYTES];
	struct mig_opened opened;

	control_fd = dial(true, &control);
	mig_open_encode(&open_frame, body);
	say(MIG_TYPE_OPEN, body, sizeof(body));
	cr_assert_eq(hear(), MIG_TYPE_OPENED, "%s", err.text);
	cr_assert_eq(mig_opened_decode(received.body, received.body_bytes, &opened, &err), 0);
	cr_assert_eq(opened.version, MIG_VERSION);
	memcpy(open_frame.secret, opened.secret, sizeof(open_frame.secret));
}

static void say_plan(void)
{
	static struct mig_plan plan;
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };

	cr_assert_eq(mig_fake_source.plan(&vm, &plan, &err), 0);
	plan.epoch = MIG_FAKE_EPOCH;
	cr_assert_eq(mig_plan_encode(&plan, &body, &err), 0, "%s", err.text);
	say(MIG_TYPE_PLAN, body.data, (uint32_t)body.size_bytes);
	mig_plan_fini(&plan);
}

static void agree(void)
{
	uint8_t body[MIG_OPEN_BYTES];
	struct mig_received opened;

	greet();
	say_plan();
	cr_assert_eq(hear(), MIG_TYPE_FINDINGS, "%s", err.text);
	data_fd = dial(false, &data);
	open_frame.channel = 1;
	mig_open_encode(&open_frame, body);
	cr_assert_eq(mig_link_send(data, MIG_TYPE_OPEN, body, sizeof(body), &err), 0);
	cr_assert_eq(mig_link_receive(data, &opened, &err), 0, "%s", err.text);
}

static void say_round(uint32_t number, bool last)
{
	const struct mig_round round = { .number = number, .last = last };
	uint8_t body[MIG_ROUND_BYTES];

	mig_round_encode(&round, body);
	say(MIG_TYPE_ROUND, body, sizeof(body));
}

static void say_barrier(uint32_t number)
{
	uint8_t body[MIG_NUMBER_BYTES];

	mig_barrier_encode(number, body);
	cr_assert_eq(mig_link_send(data, MIG_TYPE_BARRIER, body, sizeof(body), &err), 0);
}

static void say_state(uint64_t offset_bytes)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
	const struct mig_state_piece piece = { .offset_bytes = offset_bytes,
					       .bytes = (const uint8_t *)MIG_FAKE_STATE,
					       .size_bytes = sizeof(MIG_FAKE_STATE) };

	mig_state_encode(&piece, &body);
	say(MIG_TYPE_STATE, body.data, (uint32_t)body.size_bytes);
}

static struct mig_sealed sealed(void)
{
	return (struct mig_sealed){ .round = 0,
				    .state_bytes = sizeof(MIG_FAKE_STATE),
				    .state_crc = base_crc32c(0, MIG_FAKE_STATE,
							     sizeof(MIG_FAKE_STATE)) };
}

static void say_sealed(struct mig_sealed what)
{
	uint8_t body[MIG_SEALED_BYTES];

	mig_sealed_encode(&what, body);
	say(MIG_TYPE_SEALED, body, sizeof(body));
}

static struct mig_answer ask(uint64_t epoch, enum mig_side owner)
{
	const struct mig_ask question = { .number = 5, .epoch = epoch, .owner = (uint32_t)owner };
	struct mig_answer answer = { .number = 0 };
	uint8_t body[MIG_ASK_BYTES];

	mig_ask_encode(&question, body);
	say(MIG_TYPE_ASK, body, sizeof(body));
	cr_assert_eq(hear(), MIG_TYPE_REGISTER, "%s", err.text);
	cr_assert_eq(mig_answer_decode(received.body, received.body_bytes, &answer, &err), 0);
	cr_assert_eq(answer.number, 5);
	return answer;
}

/* The destination says why, and nothing of the VM is there. */
static void expect_failed(const char *text)
{
	char reason[MIG_REASON_BYTES] = "";
	int heard = 0;

	do {
		heard = hear();
	} while (heard == MIG_TYPE_ROUND_DONE || heard == MIG_TYPE_FINDINGS);
	cr_assert_eq(heard, MIG_TYPE_FAILED, "%d %s", heard, err.text);
	mig_reason_decode(received.body, received.body_bytes, reason, sizeof(reason));
	cr_assert_not_null(strstr(reason, text), "'%s', expected '%s'", reason, text);
	base_thread_join(in_thread);
	cr_assert_eq(in_end, MIG_IN_GONE);
	cr_assert_not(vm.runs);
	cr_assert_eq(world.owner.owner, MIG_SOURCE);
}

static void all_but_sealed(void)
{
	agree();
	say_round(0, true);
	say_barrier(0);
	say_state(0);
}

Test(mig_in_hostile, a_round_before_the_plan)
{
	greet();
	say_round(0, false);
	expect_failed("message round before a plan");
}

Test(mig_in_hostile, a_second_plan)
{
	agree();
	say_plan();
	expect_failed("a second plan");
	cr_assert(vm.released);
}

Test(mig_in_hostile, a_plan_that_is_none)
{
	static const uint8_t bytes[100];

	greet();
	say(MIG_TYPE_PLAN, bytes, sizeof(bytes));
	expect_failed("plan");
	cr_assert_not(vm.released); /* there was nothing */
}

Test(mig_in_hostile, a_round_out_of_order)
{
	agree();
	say_round(1, false);
	expect_failed("round 1 begins, expected 0");
}

Test(mig_in_hostile, two_rounds_at_once)
{
	agree();
	say_round(0, false);
	say_round(1, false);
	expect_failed("round 1 begins, expected 0 after the report");
}

Test(mig_in_hostile, a_round_after_the_last)
{
	all_but_sealed();
	cr_assert_eq(hear(), MIG_TYPE_ROUND_DONE);
	say_round(1, false);
	expect_failed("there was a last one");
}

Test(mig_in_hostile, a_piece_of_state_is_missing)
{
	agree();
	say_state(4096);
	expect_failed("device state from byte 4096, expected 0");
}

Test(mig_in_hostile, a_chunk_of_nothing)
{
	static const uint8_t bytes[MIG_CHUNK_BYTES];

	agree();
	say_round(0, false);
	cr_assert_eq(mig_link_send(data, MIG_TYPE_CHUNK, bytes, sizeof(bytes), &err), 0);
	expect_failed("migration chunk: kind 0");
}

Test(mig_in_hostile, chunks_are_missing)
{
	struct mig_sealed what = sealed();

	what.chunks = 1;
	all_but_sealed();
	say_sealed(what);
	expect_failed("0 chunks came, the source sent 1");
}

Test(mig_in_hostile, another_round_is_sealed)
{
	struct mig_sealed what = sealed();

	what.round = 3;
	all_but_sealed();
	say_sealed(what);
	expect_failed("sealed after round 3, expected 0");
}

Test(mig_in_hostile, another_state_is_sealed)
{
	struct mig_sealed what = sealed();

	what.state_crc ^= 1;
	all_but_sealed();
	say_sealed(what);
	expect_failed("not what the source sent");
}

Test(mig_in_hostile, sealed_twice)
{
	all_but_sealed();
	say_sealed(sealed());
	say_sealed(sealed());
	do {
		(void)hear();
	} while (received.type == MIG_TYPE_ROUND_DONE || received.type == MIG_TYPE_READY);
	cr_assert_eq(received.type, MIG_TYPE_FAILED);
	base_thread_join(in_thread);
	cr_assert_eq(in_end, MIG_IN_GONE);
	cr_assert_neq(world.owner.owner, MIG_DESTINATION);
}

/* Nobody becomes the owner of what it has not. */
Test(mig_in_hostile, asked_for_before_it_is_ready)
{
	agree();
	cr_assert_eq(ask(MIG_FAKE_EPOCH, MIG_DESTINATION).owner, MIG_SIDE_INVALID);
	cr_assert_eq(ask(0, MIG_SIDE_INVALID).owner, MIG_SIDE_INVALID);
	cr_assert_eq(world.owner.owner, MIG_SOURCE);
	cr_assert_eq(world.asked, 0);
	say_round(5, false);
	expect_failed("round 5");
}

Test(mig_in_hostile, asked_from_another_epoch)
{
	all_but_sealed();
	say_sealed(sealed());
	while (hear() != MIG_TYPE_READY)
		cr_assert_eq(received.type, MIG_TYPE_ROUND_DONE);
	cr_assert_eq(ask(MIG_FAKE_EPOCH + 1, MIG_SOURCE).owner, MIG_SIDE_INVALID);
	cr_assert_eq(world.asked, 0);
	cr_assert_eq(ask(0, MIG_SIDE_INVALID).owner, MIG_SOURCE);
	cr_assert_eq(ask(MIG_FAKE_EPOCH, MIG_SOURCE).owner, MIG_SOURCE);
	base_thread_join(in_thread); /* it reads the register when the connection goes */
	cr_assert_eq(in_end, MIG_IN_GONE);
}

/* A commit that the register does not know is a lie: it does not run. */
static void lie(uint64_t epoch, const char *text)
{
	const struct mig_epoch_note note = { .epoch = epoch };
	char reason[MIG_REASON_BYTES] = "";
	uint8_t body[MIG_EPOCH_BYTES];

	all_but_sealed();
	say_sealed(sealed());
	while (hear() != MIG_TYPE_READY)
		cr_assert_eq(received.type, MIG_TYPE_ROUND_DONE);
	mig_epoch_encode(&note, body);
	say(MIG_TYPE_COMMIT, body, sizeof(body));
	cr_assert_eq(hear(), MIG_TYPE_FAILED, "%s", err.text);
	mig_reason_decode(received.body, received.body_bytes, reason, sizeof(reason));
	cr_assert_not_null(strstr(reason, text), "%s", reason);
	base_thread_join(in_thread);
	cr_assert_eq(in_end, MIG_IN_GONE);
	cr_assert_eq(world.owner.owner, MIG_SOURCE);
	cr_assert_not(vm.runs);
}

Test(mig_in_hostile, a_commit_of_another_epoch)
{
	lie(MIG_FAKE_EPOCH + 5, "commit of epoch 12, expected 8");
}

Test(mig_in_hostile, a_commit_that_nobody_asked_for)
{
	lie(MIG_FAKE_EPOCH + 1, "which the register does not know");
}
