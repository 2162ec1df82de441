/* SPDX-License-Identifier: Apache-2.0 */
/* A verified move whose peer says what it must not: one line of reason, and one VM that runs. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/thread.h"
#include "migrate/mig_body_verify.h"
#include "migrate/mig_link.h"
#include "tests/support/mig_rig.h"

static struct mig_rig rig;
static struct base_error err;
static struct mig_link *control, *data;
static int control_fd = -1, data_fd = -1;
static struct mig_received received;
static pthread_t runner;
static enum mig_out_end out_end;

static void setup(void)
{
	mig_rig_init(&rig);
	rig.out_options.verify = true;
	rig.out_options.channel_count = 1;
	rig.linger_ms = 10;
}

static void teardown(void)
{
	mig_link_free(control);
	mig_link_free(data);
	base_closep(&control_fd);
	base_closep(&data_fd);
	mig_rig_fini(&rig);
}

TestSuite(mig_verify_hostile, .init = setup, .fini = teardown, .timeout = 30);

static void say(enum mig_type type, const void *body, size_t body_bytes)
{
	(void)!mig_link_send(control, type, body, (uint32_t)body_bytes, &err);
}

/* The next message but signs of life. */
static int hear(struct mig_link *link)
{
	int r = 0;

	do {
		r = mig_link_receive(link, &received, &err);
	} while (r == 0 && received.type == MIG_TYPE_ALIVE);
	return r == 0 ? (int)received.type : r;
}

/* --- a hostile source --- */

static void *run_in(void *context)
{
	(void)context;
	rig.in_end = mig_in_run(rig.in, &rig.in_epoch, &rig.in_err);
	return NULL;
}

static void open_channel(struct mig_open *open, struct mig_link **ret_link, int *ret_fd)
{
	struct mig_link_options options = { .is_source = true,
					    .is_control = open->channel == 0,
					    .timeout_ms = 5000 };
	uint8_t body[MIG_OPEN_BYTES];
	struct mig_opened opened;

	*ret_fd = mig_rig_dial(&rig.place);
	options.fd = *ret_fd;
	cr_assert_eq(mig_link_new(&options, ret_link, &err), 0);
	mig_open_encode(open, body);
	cr_assert_eq(mig_link_send(*ret_link, MIG_TYPE_OPEN, body, sizeof(body), &err), 0);
	cr_assert_eq(hear(*ret_link), MIG_TYPE_OPENED, "%s", err.text);
	cr_assert_eq(mig_opened_decode(received.body, received.body_bytes, &opened, &err), 0);
	cr_assert_neq(opened.capabilities & MIG_CAN_VERIFY, 0);
	if (open->channel == 0)
		memcpy(open->secret, opened.secret, sizeof(open->secret));
}

static void agree(uint32_t flags)
{
	struct mig_open open = {
		.version_min = 1, .version_max = MIG_VERSION, .channel_count = 1, .id = { 7 }
	};
	struct mig_plan plan;
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };

	cr_assert_eq(mig_in_new(&rig.in_options, &rig.in, &err), 0);
	cr_assert_eq(base_thread_start(&runner, "run-in", run_in, NULL, &err), 0);
	open_channel(&open, &control, &control_fd);
	cr_assert_eq(mig_fake_source.plan(&rig.source, &plan, &err), 0);
	plan.epoch = MIG_FAKE_EPOCH;
	plan.flags = flags;
	cr_assert_eq(mig_plan_encode(&plan, &body, &err), 0, "%s", err.text);
	say(MIG_TYPE_PLAN, body.data, body.size_bytes);
	mig_plan_fini(&plan);
	cr_assert_eq(hear(control), MIG_TYPE_FINDINGS, "%s", err.text);
	open.channel = 1;
	open_channel(&open, &data, &data_fd);
}

/* A round without anything in it. */
static void say_round(uint32_t number, bool last, bool sweep)
{
	const struct mig_round round = { .number = number, .last = last, .sweep = sweep };
	uint8_t body[MIG_ROUND_BYTES];

	mig_round_encode(&round, body);
	say(MIG_TYPE_ROUND, body, sizeof(body));
}

static void end_round(uint32_t number)
{
	uint8_t body[MIG_NUMBER_BYTES];

	mig_barrier_encode(number, body);
	cr_assert_eq(mig_link_send(data, MIG_TYPE_BARRIER, body, sizeof(body), &err), 0);
	cr_assert_eq(hear(control), MIG_TYPE_ROUND_DONE, "%s", err.text);
}

static void say_roots(uint32_t count, uint8_t value)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
	struct mig_digest roots[2];

	memset(roots, value, sizeof(roots));
	mig_roots_encode(roots, count, &body);
	say(MIG_TYPE_ROOTS, body.data, body.size_bytes);
}

static void say_sealed(void)
{
	const struct mig_sealed sealed = {
		.state_bytes = sizeof(MIG_FAKE_STATE),
		.state_crc = base_crc32c(0, MIG_FAKE_STATE, sizeof(MIG_FAKE_STATE)),
	};
	const struct mig_state_piece piece = { .bytes = (const uint8_t *)MIG_FAKE_STATE,
					       .size_bytes = sizeof(MIG_FAKE_STATE) };
	BASE_CLEANUP(base_buffer_fini) struct base_buffer state = { .data = NULL };
	uint8_t body[MIG_SEALED_BYTES];

	mig_state_encode(&piece, &state);
	say(MIG_TYPE_STATE, state.data, state.size_bytes);
	mig_sealed_encode(&sealed, body);
	say(MIG_TYPE_SEALED, body, sizeof(body));
}

static void expect_failed(const char *text)
{
	char reason[MIG_REASON_BYTES] = "";

	cr_assert_eq(hear(control), MIG_TYPE_FAILED, "%s", err.text);
	mig_reason_decode(received.body, received.body_bytes, reason, sizeof(reason));
	cr_assert_not_null(strstr(reason, text), "'%s', expected '%s'", reason, text);
	base_thread_join(runner);
	cr_assert_eq(rig.in_end, MIG_IN_GONE);
	cr_assert(rig.destination.released);
	cr_assert_not(rig.destination.runs);
}

Test(mig_verify_hostile, a_sweep_that_the_plan_does_not_have)
{
	agree(0);
	say_round(0, false, true);
	expect_failed("round 0 is a sweep, and the plan does not verify");
}

Test(mig_verify_hostile, a_second_sweep)
{
	agree(MIG_PLAN_VERIFY);
	say_round(0, false, true);
	end_round(0);
	say_round(1, false, true);
	expect_failed("round 1 is a second sweep");
}

Test(mig_verify_hostile, a_last_round_without_a_sweep)
{
	agree(MIG_PLAN_VERIFY);
	say_round(0, true, false);
	expect_failed("round 0 is the last, and there was no sweep");
}

Test(mig_verify_hostile, roots_that_nobody_wants)
{
	agree(0);
	say_roots(1, 0);
	expect_failed("roots of a move that is not verified");
}

Test(mig_verify_hostile, roots_twice)
{
	agree(MIG_PLAN_VERIFY);
	say_roots(1, 0);
	say_roots(1, 0);
	expect_failed("roots a second time");
}

Test(mig_verify_hostile, more_roots_than_objects)
{
	agree(MIG_PLAN_VERIFY);
	say_roots(2, 0);
	expect_failed("2 roots, expected 1");
}

Test(mig_verify_hostile, sealed_without_roots)
{
	agree(MIG_PLAN_VERIFY);
	say_round(0, true, true);
	end_round(0);
	say_sealed();
	expect_failed("sealed, expected roots before it");
}

Test(mig_verify_hostile, nodes_that_nobody_asked_for)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
	const struct mig_nodes nodes = { .of = { .level = 1 }, .count = 1 };

	agree(MIG_PLAN_VERIFY);
	mig_nodes_encode(&nodes, &body);
	say(MIG_TYPE_NODES, body.data, body.size_bytes);
	expect_failed("nodes, which nobody asked for");
}

/* The destination holds zeros, and the source says something else. */
static void differ(void)
{
	agree(MIG_PLAN_VERIFY);
	say_round(0, true, true);
	end_round(0);
	say_roots(1, 5);
	say_sealed();
	cr_assert_eq(hear(control), MIG_TYPE_ASK_NODES, "%s", err.text);
}

static void answer(uint16_t level, uint32_t count, uint8_t value)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
	struct mig_nodes nodes = { .of = { .level = level }, .count = count };

	memset(nodes.children, value, sizeof(nodes.children));
	mig_nodes_encode(&nodes, &body);
	say(MIG_TYPE_NODES, body.data, body.size_bytes);
}

Test(mig_verify_hostile, children_that_do_not_make_their_parent)
{
	differ();
	answer(2, 10, 0); /* as they are at the destination */
	expect_failed("verify: memory differs from page 0 on");
}

Test(mig_verify_hostile, fewer_children_than_there_are)
{
	differ();
	answer(2, 3, 1);
	expect_failed("verify: memory differs from page 0 on");
}

Test(mig_verify_hostile, children_of_another_node)
{
	differ();
	answer(1, 10, 0);
	expect_failed("children of node 0 of level 1 of object 0, expected those of 0 of 2 of 0");
}

/* --- a hostile destination --- */

static void *run_out(void *context)
{
	(void)context;
	out_end = mig_out_run(rig.out, &rig.findings, &rig.err);
	return NULL;
}

static void take_channel(bool is_control, uint32_t capabilities, struct mig_link **ret_link,
			 int *ret_fd)
{
	struct mig_link_options options = { .is_control = is_control, .timeout_ms = 5000 };
	const struct mig_opened opened = { .version = MIG_VERSION,
					   .version_min = 1,
					   .version_max = MIG_VERSION,
					   .capabilities = capabilities };
	uint8_t body[MIG_OPENED_BYTES];

	do {
		*ret_fd = accept(rig.place.listen_fd, NULL, NULL);
	} while (*ret_fd < 0 && (errno == EAGAIN || errno == EINTR));
	cr_assert_geq(*ret_fd, 0);
	options.fd = *ret_fd;
	cr_assert_eq(mig_link_new(&options, ret_link, &err), 0);
	cr_assert_eq(hear(*ret_link), MIG_TYPE_OPEN, "%s", err.text);
	mig_opened_encode(&opened, body);
	cr_assert_eq(mig_link_send(*ret_link, MIG_TYPE_OPENED, body, sizeof(body), &err), 0);
}

static void be_found(uint32_t capabilities)
{
	cr_assert_eq(mig_out_new(&rig.out_options, &rig.out, &err), 0);
	mig_fake_vm_start(&rig.source);
	cr_assert_eq(base_thread_start(&runner, "run-out", run_out, NULL, &err), 0);
	take_channel(true, capabilities, &control, &control_fd);
}

static void expect_stays(const char *text)
{
	base_thread_join(runner);
	cr_assert_eq(out_end, MIG_OUT_FAILED);
	cr_assert_not_null(strstr(rig.err.text, text), "'%s', expected '%s'", rig.err.text, text);
	cr_assert(rig.source.runs);
	cr_assert_eq(rig.world.asked, 0);
}

Test(mig_verify_hostile, an_older_destination_is_a_finding)
{
	be_found(MIG_CAN_ALL & ~MIG_CAN_VERIFY);
	expect_stays("the destination cannot verify");
	cr_assert_eq(rig.findings.count, 1);
	cr_assert_str_eq(rig.findings.lines[0],
			 "the destination cannot verify: it is of an older version");
}

static void say_epoch(enum mig_type type)
{
	const struct mig_epoch_note note = { .epoch = MIG_FAKE_EPOCH + 1 };
	uint8_t body[MIG_EPOCH_BYTES];

	mig_epoch_encode(&note, body);
	say(type, body, sizeof(body));
}

Test(mig_verify_hostile, ready_without_verified)
{
	be_found(MIG_CAN_ALL);
	cr_assert_eq(hear(control), MIG_TYPE_PLAN, "%s", err.text);
	say_epoch(MIG_TYPE_READY);
	expect_stays("ready, expected verified before it");
}

Test(mig_verify_hostile, verified_before_there_is_anything)
{
	const struct mig_verified verified = { .bytes = 1 };
	uint8_t body[MIG_VERIFIED_BYTES];

	be_found(MIG_CAN_ALL);
	cr_assert_eq(hear(control), MIG_TYPE_PLAN, "%s", err.text);
	mig_verified_encode(&verified, body);
	say(MIG_TYPE_VERIFIED, body, sizeof(body));
	expect_stays("verified before roots");
}

Test(mig_verify_hostile, nodes_before_there_are_any)
{
	const struct mig_node node = { .level = 1 };
	uint8_t body[MIG_ASK_NODES_BYTES];

	be_found(MIG_CAN_ALL);
	cr_assert_eq(hear(control), MIG_TYPE_PLAN, "%s", err.text);
	mig_ask_nodes_encode(&node, body);
	say(MIG_TYPE_ASK_NODES, body, sizeof(body));
	expect_stays("nodes are asked for before roots");
}
