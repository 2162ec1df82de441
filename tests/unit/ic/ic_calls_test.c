/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>

#include "base/thread.h"
#include "tests/unit/ic/ic_rig.h"

TestSuite(ic_calls, .init = rig_setup, .fini = rig_teardown);

#define FREEZE_LIMIT_MS 3000u

static struct ic_call call;
static struct base_error call_err;

/* As ic_shutdown(), ic_freeze(), ic_thaw(), but that the test plays the guest meanwhile. */
static void begin(enum ic_call_kind kind, uint32_t timeout_ms)
{
	call_err = (struct base_error){ 0 };
	call = (struct ic_call){
		.set = rig_set,
		.kind = kind,
		.power = IC_POWER_OFF,
		.timeout_ms = timeout_ms,
		.limit_ms = FREEZE_LIMIT_MS,
		.err = &call_err,
	};
	ic_call_begin(&call);
	vmbus_guest_run(rig_guest);
}

static void set_running(bool running)
{
	ic_set_running(rig_set, running);
	vmbus_guest_run(rig_guest);
}

static void is_done(int result)
{
	cr_assert(call.done);
	cr_assert_eq(call.result, result, "%d: %s", call.result, call_err.text);
	cr_assert_eq(call_err.code, result);
}

static void fails(enum ic_call_kind kind, int result)
{
	begin(kind, 1000);
	is_done(result);
}

Test(ic_calls, no_service)
{
	struct base_error err = { 0 };

	cr_assert_eq(ic_shutdown(rig_set, IC_POWER_OFF, false, 1000, &err), -ENOTCONN);
	cr_assert_eq(ic_freeze(rig_set, 1000, 1000, &err), -ENOTCONN);
	cr_assert_eq(ic_thaw(rig_set, 1000, &err), -ENOTCONN);
	rig_open(IC_SHUTDOWN); /* not negotiated is no service either */
	cr_assert_eq(ic_shutdown(rig_set, IC_POWER_OFF, false, 1000, &err), -ENOTCONN);
}

Test(ic_calls, shutdown_agreed_refused_and_kinds)
{
	rig_up(IC_SHUTDOWN, 3, 2);
	for (uint32_t i = 0; i < 4; i++) {
		call = (struct ic_call){ .set = rig_set,
					 .kind = IC_CALL_SHUTDOWN,
					 .power = i % 2 == 0 ? IC_POWER_OFF : IC_POWER_RESTART,
					 .force = i >= 2,
					 .timeout_ms = 1000,
					 .err = &call_err };
		call_err = (struct base_error){ 0 };
		ic_call_begin(&call);
		cr_assert(rig_request(IC_SHUTDOWN));
		cr_assert_eq(base_get_le16(rig_packet.bytes + 18), 2060);
		cr_assert_eq(base_get_le32(rig_body() + 8), (i % 2) * 2 + i / 2);
		cr_assert_not(call.done);
		rig_answer(IC_SHUTDOWN, i == 3 ? IC_STATUS_FAILED : 0);
		is_done(i == 3 ? -EIO : 0);
	}
}

Test(ic_calls, an_old_guest_cannot_restart)
{
	rig_up(IC_SHUTDOWN, 1, 0);
	call = (struct ic_call){ .set = rig_set,
				 .kind = IC_CALL_SHUTDOWN,
				 .power = IC_POWER_RESTART,
				 .err = &call_err };
	ic_call_begin(&call);
	is_done(-ENOTCONN);
	begin(IC_CALL_SHUTDOWN, 1000);
	cr_assert(rig_request(IC_SHUTDOWN));
	rig_answer(IC_SHUTDOWN, 0);
	is_done(0);
}

Test(ic_calls, shutdown_times_out_and_is_not_doubled)
{
	rig_up(IC_SHUTDOWN, 3, 2);
	begin(IC_CALL_SHUTDOWN, 1000);
	rig_pass(1000);
	is_done(-ETIMEDOUT);
	fails(IC_CALL_SHUTDOWN, -EBUSY); /* it may still do it */
	cr_assert(rig_request(IC_SHUTDOWN));
	rig_answer(IC_SHUTDOWN, 0); /* late: nobody waits, nothing breaks */
	cr_assert_not(rig_request(IC_SHUTDOWN));
	begin(IC_CALL_SHUTDOWN, 1000);
	cr_assert(rig_request(IC_SHUTDOWN));
	rig_packet.bytes[24]--; /* the answer of the one before */
	rig_answer(IC_SHUTDOWN, 0);
	cr_assert_not(call.done);
	vmbus_guest_close(&rig_channels[IC_SHUTDOWN]);
	is_done(-ETIMEDOUT);
}

Test(ic_calls, one_at_a_time_and_only_while_running)
{
	struct ic_call first;

	rig_up(IC_SHUTDOWN, 3, 2);
	set_running(false);
	fails(IC_CALL_SHUTDOWN, -EAGAIN);
	set_running(true);
	cr_assert_eq(ic_service_ops.quiesce(rig_set, NULL), 0);
	fails(IC_CALL_SHUTDOWN, -EAGAIN);
	ic_service_ops.resume(rig_set);
	first = (struct ic_call){
		.set = rig_set, .kind = IC_CALL_SHUTDOWN, .power = IC_POWER_OFF, .timeout_ms = 1000
	};
	ic_call_begin(&first);
	fails(IC_CALL_SHUTDOWN, -EBUSY);
	cr_assert(rig_request(IC_SHUTDOWN));
	cr_assert_eq(ic_service_ops.quiesce(rig_set, NULL), 0);
	cr_assert_eq(ic_service_ops.reset(rig_set, NULL), 0);
	cr_assert(first.done);
	cr_assert_eq(first.result, -ETIMEDOUT);
}

static void vss_is(enum ic_vss_op op)
{
	cr_assert(rig_request(IC_VSS));
	cr_assert_eq(base_get_le16(rig_packet.bytes + 12), IC_TYPE_VSS);
	cr_assert_eq(rig_body()[0], (uint8_t)op);
}

static void freeze_agreed(void)
{
	begin(IC_CALL_FREEZE, 5000);
	vss_is(IC_VSS_HOT_BACKUP);
	base_put_le32(rig_body() + 8, 5);
	rig_answer(IC_VSS, 0);
	vss_is(IC_VSS_FREEZE);
	cr_assert_not(call.done);
	rig_answer(IC_VSS, 0);
	is_done(0);
}

Test(ic_calls, freeze_and_thaw)
{
	rig_up(IC_VSS, 5, 0);
	for (uint32_t i = 0; i < 3; i++) {
		freeze_agreed();
		fails(IC_CALL_FREEZE, -EBUSY);
		rig_pass(100);
		cr_assert_not(rig_request(IC_VSS));
		begin(IC_CALL_THAW, 1000);
		vss_is(IC_VSS_THAW);
		rig_answer(IC_VSS, 0);
		is_done(0);
		cr_assert_not(rig_set->frozen);
	}
}

/* The set thaws by itself, and whoever froze is told that it was not frozen all the time. */
static void is_thawed_early(void)
{
	vss_is(IC_VSS_THAW);
	cr_assert_not(rig_set->frozen);
	fails(IC_CALL_THAW, -ECANCELED);
	fails(IC_CALL_FREEZE, -EBUSY);
	rig_answer(IC_VSS, 0);
	cr_assert_not(rig_request(IC_VSS));
	freeze_agreed(); /* works again */
	begin(IC_CALL_THAW, 1000);
	vss_is(IC_VSS_THAW);
	rig_answer(IC_VSS, 0);
	is_done(0);
	rig_pass(2 * FREEZE_LIMIT_MS); /* its limit ended with it */
	cr_assert_not(rig_request(IC_VSS));
}

Test(ic_calls, a_freeze_has_a_limit)
{
	rig_up(IC_VSS, 5, 0);
	freeze_agreed();
	rig_pass(FREEZE_LIMIT_MS - 20);
	cr_assert_not(rig_request(IC_VSS));
	rig_pass(20);
	is_thawed_early();
}

Test(ic_calls, a_pause_ends_a_freeze)
{
	rig_up(IC_VSS, 5, 0);
	freeze_agreed();
	set_running(false);
	rig_pass(2 * FREEZE_LIMIT_MS);
	cr_assert_not(rig_request(IC_VSS)); /* who stands still is not thawed */
	set_running(true);
	rig_pass(2 * IC_RESUME_DELAY_MS);
	is_thawed_early();
}

Test(ic_calls, a_pause_too_short_to_be_seen_ends_a_freeze)
{
	rig_up(IC_TIME, 4, 0);
	cr_assert(rig_request(IC_TIME));
	rig_answer(IC_TIME, 0);
	rig_up(IC_VSS, 5, 0);
	freeze_agreed();
	ic_set_running(rig_set, false);
	ic_set_running(rig_set, true);
	rig_pass(2 * IC_RESUME_DELAY_MS);
	cr_assert(rig_request(IC_TIME)); /* and the clock is set */
	cr_assert_eq(rig_body()[16], IC_TIME_SYNC);
	is_thawed_early();
}

Test(ic_calls, a_save_or_move_ends_a_freeze)
{
	rig_up(IC_VSS, 5, 0);
	freeze_agreed();
	cr_assert_eq(ic_service_ops.quiesce(rig_set, NULL), 0);
	rig_pass(100);
	cr_assert_not(rig_request(IC_VSS));
	ic_service_ops.resume(rig_set);
	rig_pass(2 * IC_RESUME_DELAY_MS);
	is_thawed_early();
}

Test(ic_calls, who_froze_is_gone)
{
	rig_up(IC_VSS, 5, 0);
	freeze_agreed();
	ic_thaw_soon(rig_set);
	vmbus_guest_run(rig_guest);
	is_thawed_early();
	ic_thaw_soon(rig_set); /* nothing is frozen */
	vmbus_guest_run(rig_guest);
	cr_assert_not(rig_request(IC_VSS));
}

Test(ic_calls, who_freezes_is_gone)
{
	struct vmbus_guest_packet freeze;

	rig_up(IC_VSS, 5, 0);
	begin(IC_CALL_FREEZE, 1000);
	vss_is(IC_VSS_HOT_BACKUP);
	rig_answer(IC_VSS, 0);
	vss_is(IC_VSS_FREEZE);
	freeze = rig_packet;
	ic_thaw_soon(rig_set);
	vmbus_guest_run(rig_guest);
	is_done(-ECANCELED);
	vss_is(IC_VSS_THAW); /* in the ring behind it */
	rig_answer(IC_VSS, 0);
	rig_packet = freeze;
	rig_answer(IC_VSS, 0);
	cr_assert_not(rig_set->frozen);
}

Test(ic_calls, a_channel_opened_again_was_not_frozen)
{
	rig_up(IC_VSS, 5, 0);
	freeze_agreed();
	vmbus_guest_close(&rig_channels[IC_VSS]);
	rig_up(IC_VSS, 5, 0);
	fails(IC_CALL_THAW, -ECANCELED);
	rig_pass(2 * FREEZE_LIMIT_MS);
	cr_assert_not(rig_request(IC_VSS));
}

Test(ic_calls, the_end_wakes_everybody)
{
	struct ic_call shutdown;

	rig_up(IC_SHUTDOWN, 3, 2);
	rig_up(IC_VSS, 5, 0);
	begin(IC_CALL_SHUTDOWN, 10000);
	shutdown = call;
	rig_set->channels[IC_SHUTDOWN].call = &shutdown;
	base_io_timer_disarm(vmbus_guest_loop(rig_guest), &call.timer);
	shutdown.timer = (struct base_io_timer){ .expired = call.timer.expired };
	freeze_agreed();
	ic_end(rig_set);
	vmbus_guest_run(rig_guest);
	cr_assert(shutdown.done);
	cr_assert_eq(shutdown.result, -ECANCELED);
	vss_is(IC_VSS_THAW);
	fails(IC_CALL_SHUTDOWN, -ECANCELED);
	fails(IC_CALL_THAW, -ECANCELED);
}

Test(ic_calls, no_daemon)
{
	rig_up(IC_VSS, 5, 0);
	begin(IC_CALL_FREEZE, 1000);
	vss_is(IC_VSS_HOT_BACKUP);
	rig_answer(IC_VSS, IC_STATUS_FAILED);
	is_done(-ENOTCONN);
	rig_pass(100);
	cr_assert_not(rig_request(IC_VSS)); /* nothing was frozen */
}

Test(ic_calls, a_freeze_that_times_out_is_thawed)
{
	struct vmbus_guest_packet freeze;

	rig_up(IC_VSS, 5, 0);
	begin(IC_CALL_FREEZE, 1000);
	vss_is(IC_VSS_HOT_BACKUP);
	rig_answer(IC_VSS, 0);
	vss_is(IC_VSS_FREEZE);
	freeze = rig_packet;
	rig_pass(1000);
	is_done(-ETIMEDOUT);
	vss_is(IC_VSS_THAW); /* in the ring behind it */
	begin(IC_CALL_THAW, 1000);
	cr_assert_not(call.done);
	{
		struct vmbus_guest_packet thaw = rig_packet;

		rig_packet = freeze;
		rig_answer(IC_VSS, 0); /* late: not taken for the thaw's */
		cr_assert_not(call.done);
		rig_packet = thaw;
	}
	rig_answer(IC_VSS, 0);
	is_done(0);
	freeze_agreed();
}

/* The ring is full when a freeze is given up, and when somebody wants to thaw. */
Test(ic_calls, a_thaw_that_is_owed_stays_owed)
{
	uint32_t *read_at = NULL;
	uint32_t before = 0;

	rig_up(IC_VSS, 5, 0);
	begin(IC_CALL_FREEZE, 1000);
	vss_is(IC_VSS_HOT_BACKUP);
	rig_answer(IC_VSS, 0);
	vss_is(IC_VSS_FREEZE);
	read_at = vmbus_guest_ring_word(&rig_channels[IC_VSS], true, 4);
	before = *read_at;
	*read_at = *vmbus_guest_ring_word(&rig_channels[IC_VSS], true, 0) + 8;
	rig_pass(1000);
	is_done(-ETIMEDOUT);
	fails(IC_CALL_THAW, -EAGAIN);
	*read_at = before;
	vmbus_guest_signal(&rig_channels[IC_VSS]);
	vmbus_guest_run(rig_guest);
	vss_is(IC_VSS_THAW);
}

Test(ic_calls, a_refused_freeze_is_thawed)
{
	rig_up(IC_VSS, 5, 0);
	begin(IC_CALL_FREEZE, 1000);
	vss_is(IC_VSS_HOT_BACKUP);
	rig_answer(IC_VSS, 0);
	vss_is(IC_VSS_FREEZE);
	rig_answer(IC_VSS, IC_STATUS_FAILED);
	is_done(-EIO);
	vss_is(IC_VSS_THAW);
	rig_answer(IC_VSS, IC_STATUS_FAILED);
	cr_assert_not(rig_request(IC_VSS));
}

Test(ic_calls, the_answer_of_another_operation)
{
	rig_up(IC_VSS, 5, 0);
	begin(IC_CALL_FREEZE, 1000);
	vss_is(IC_VSS_HOT_BACKUP);
	rig_body()[0] = IC_VSS_FREEZE;
	rig_answer(IC_VSS, 0);
	is_done(-ENOTCONN);
}

/*
 * --- saved state: the set is made anew on the same bus, as after a restore ---
 */

static void saved(struct base_buffer *out)
{
	cr_assert_eq(ic_service_ops.quiesce(rig_set, NULL), 0);
	cr_assert_eq(ic_service_ops.save(rig_set, 0, out, NULL), 0);
	cr_assert_eq(out->size_bytes, 96);
}

static void load_again(const struct base_buffer *bytes, int result)
{
	struct base_reader in = base_reader_over(bytes->data, bytes->size_bytes);

	cr_assert_eq(ic_service_ops.load(rig_set, 0, 1, &in, NULL), result);
}

static void resume(void)
{
	cr_assert_eq(ic_service_ops.loaded(rig_set, NULL), 0);
	ic_service_ops.resume(rig_set);
	rig_pass(2 * IC_RESUME_DELAY_MS);
}

Test(ic_calls, a_shutdown_under_way_survives)
{
	struct base_buffer bytes = { 0 };

	rig_up(IC_SHUTDOWN, 3, 2);
	begin(IC_CALL_SHUTDOWN, 100);
	saved(&bytes);
	rig_pass(100);
	is_done(-ETIMEDOUT); /* whoever asked is of the old worker */
	rig_set->channels[IC_SHUTDOWN].port = ic_port_new(IC_SHUTDOWN);
	load_again(&bytes, 0);
	resume();
	cr_assert(rig_request(IC_SHUTDOWN)); /* once */
	cr_assert_eq(base_get_le16(rig_packet.bytes + 12), IC_TYPE_SHUTDOWN);
	cr_assert_not(rig_request(IC_SHUTDOWN));
	cr_assert(rig_set->channels[IC_SHUTDOWN].port.pending);
	rig_answer(IC_SHUTDOWN, 0);
	cr_assert_not(rig_set->channels[IC_SHUTDOWN].port.pending);
	base_buffer_fini(&bytes);
}

/* The answer to the old worker's question is no item of the new one's walk. */
Test(ic_calls, a_walk_begins_anew_after_a_restore)
{
	struct base_buffer bytes = { 0 };

	rig_up(IC_KVP, 4, 0);
	for (uint32_t i = 0; i < 3; i++) {
		cr_assert(rig_request(IC_KVP));
		rig_answer(IC_KVP, 0);
	}
	cr_assert(rig_request(IC_KVP));
	saved(&bytes);
	load_again(&bytes, 0);
	rig_set->kvp_index = 0; /* another worker's set */
	rig_set->kvp_walks = false;
	resume();
	rig_answer(IC_KVP, 0); /* of item 3 */
	cr_assert(rig_request(IC_KVP));
	cr_assert_eq(base_get_le32(rig_body() + 4), 0);
	rig_answer(IC_KVP, 0);
	cr_assert(rig_request(IC_KVP));
	cr_assert_eq(base_get_le32(rig_body() + 4), 1);
	base_buffer_fini(&bytes);
}

Test(ic_calls, a_frozen_guest_is_thawed_after_a_restore)
{
	struct base_buffer bytes = { 0 };

	rig_up(IC_VSS, 5, 0);
	freeze_agreed();
	saved(&bytes);
	load_again(&bytes, 0);
	resume();
	vss_is(IC_VSS_THAW);
	base_buffer_fini(&bytes);
}

Test(ic_calls, a_freeze_under_way_is_thawed_after_a_restore)
{
	struct base_buffer bytes = { 0 };

	rig_up(IC_VSS, 5, 0);
	begin(IC_CALL_FREEZE, 50);
	vss_is(IC_VSS_HOT_BACKUP);
	rig_answer(IC_VSS, 0);
	saved(&bytes);
	rig_pass(50);
	load_again(&bytes, 0);
	resume();
	vss_is(IC_VSS_FREEZE);
	cr_assert_not(rig_set->thaw_due && !rig_set->channels[IC_VSS].port.pending);
	rig_answer(IC_VSS, 0);
	vss_is(IC_VSS_THAW);
	base_buffer_fini(&bytes);
}

Test(ic_calls, a_restored_clock_is_set)
{
	struct base_buffer bytes = { 0 };

	rig_up(IC_TIME, 4, 0);
	cr_assert(rig_request(IC_TIME));
	rig_answer(IC_TIME, 0);
	saved(&bytes);
	rig_time.real_ns += 3600 * BASE_NS_PER_SECOND; /* it lay on a disk */
	load_again(&bytes, 0);
	resume();
	cr_assert(rig_request(IC_TIME));
	cr_assert_eq(rig_body()[16], IC_TIME_SYNC);
	cr_assert_lt(rig_time.real_ns / 100 + 116444736000000000ULL - base_get_le64(rig_body()),
		     10000000);
	base_buffer_fini(&bytes);
}

/* With a bus and a set of their own over the same memory, as in another worker. */
Test(ic_calls, moved_to_another_worker)
{
	struct base_buffer bus = { 0 };
	struct base_buffer bytes = { 0 };
	struct base_reader in;

	rig_up(IC_SHUTDOWN, 3, 2);
	rig_up(IC_VSS, 5, 0);
	rig_up(IC_TIME, 4, 0);
	cr_assert(rig_request(IC_TIME));
	rig_answer(IC_TIME, 0);
	freeze_agreed();
	begin(IC_CALL_SHUTDOWN, 10);
	cr_assert_eq(vmbus_service_ops.quiesce(vmbus_guest_bus(rig_guest), NULL), 0);
	saved(&bytes);
	cr_assert_eq(vmbus_service_ops.save(vmbus_guest_bus(rig_guest), 0, &bus, NULL), 0);
	rig_pass(10);
	is_done(-ETIMEDOUT);
	ic_free(rig_set);

	vmbus_guest_new_bus(rig_guest);
	rig_set = rig_new_set(rig_guest);
	cr_assert_eq(vmbus_service_ops.quiesce(vmbus_guest_bus(rig_guest), NULL), 0);
	cr_assert_eq(ic_service_ops.quiesce(rig_set, NULL), 0);
	in = base_reader_over(bus.data, bus.size_bytes);
	cr_assert_eq(vmbus_service_ops.load(vmbus_guest_bus(rig_guest), 0, 1, &in, NULL), 0);
	load_again(&bytes, 0);
	cr_assert_eq(vmbus_service_ops.loaded(vmbus_guest_bus(rig_guest), NULL), 0);
	cr_assert_eq(ic_service_ops.loaded(rig_set, NULL), 0);
	ic_service_ops.resume(rig_set);
	vmbus_service_ops.resume(vmbus_guest_bus(rig_guest));
	rig_pass(2 * IC_RESUME_DELAY_MS);

	vss_is(IC_VSS_THAW);
	cr_assert(rig_request(IC_TIME));
	cr_assert_eq(rig_body()[16], IC_TIME_SYNC);
	cr_assert(rig_request(IC_SHUTDOWN));
	rig_answer(IC_SHUTDOWN, 0);
	cr_assert_not(rig_set->channels[IC_SHUTDOWN].port.pending);
	cr_assert_not(rig_request(IC_SHUTDOWN));
	base_buffer_fini(&bytes);
	base_buffer_fini(&bus);
}

Test(ic_calls, a_negotiation_under_way_and_channels_that_differ)
{
	struct base_buffer bytes = { 0 };

	rig_open(IC_KVP);
	saved(&bytes);
	load_again(&bytes, 0);
	resume();
	cr_assert(rig_request(IC_KVP));
	cr_assert_not(rig_request(IC_KVP));
	rig_choose(IC_KVP, 4, 0);
	cr_assert(rig_request(IC_KVP));
	/* saved as closed, but open; and the other way round */
	rig_open(IC_VSS);
	cr_assert_eq(ic_service_ops.quiesce(rig_set, NULL), 0);
	rig_set->channels[IC_VSS].port = ic_port_new(IC_VSS);
	rig_set->channels[IC_TIME].port.state = IC_PORT_NEGOTIATING;
	resume();
	cr_assert_eq(rig_set->channels[IC_VSS].port.state, IC_PORT_NEGOTIATING);
	cr_assert_eq(rig_set->channels[IC_TIME].port.state, IC_PORT_CLOSED);
	base_buffer_fini(&bytes);
}

Test(ic_calls, a_bad_section_changes_nothing)
{
	struct base_buffer bytes = { 0 };
	struct base_reader in;
	uint32_t refused = 0;

	rig_up(IC_HEARTBEAT, 3, 0);
	saved(&bytes);
	for (size_t size = 0; size < bytes.size_bytes; size++) {
		in = base_reader_over(bytes.data, size);
		cr_assert_eq(ic_service_ops.load(rig_set, 0, 1, &in, NULL), -EBADMSG);
	}
	in = base_reader_over(bytes.data, bytes.size_bytes);
	cr_assert_eq(ic_service_ops.load(rig_set, 0, 0, &in, NULL), -EBADMSG);
	cr_assert_eq(ic_service_ops.load(rig_set, 0, 2, &in, NULL), -ENOTSUP);
	for (size_t i = 0; i < bytes.size_bytes; i++) {
		bytes.data[i] ^= 0xff;
		in = base_reader_over(bytes.data, bytes.size_bytes);
		refused += ic_service_ops.load(rig_set, 0, 1, &in, NULL) == -EBADMSG;
		bytes.data[i] ^= 0xff;
	}
	cr_assert_eq(refused, 96 - 5 - 8); /* numbers of transactions and the sequence are free */
	cr_assert_eq(rig_set->channels[IC_HEARTBEAT].port.state, IC_PORT_READY);
	base_buffer_fini(&bytes);
}

static void *tell_set(void *context)
{
	(void)context;
	ic_set_running(rig_set, false);
	ic_thaw_soon(rig_set);
	ic_end(rig_set);
	return NULL;
}

/* Nobody turns the loop: who freezes a fenced machine, or ends it, must not wait for that. */
Test(ic_calls, a_loop_that_is_stuck_holds_up_nobody, .timeout = 60)
{
	pthread_t thread;

	rig_up(IC_VSS, 5, 0);
	freeze_agreed();
	cr_assert_eq(base_thread_start(&thread, "teller", tell_set, NULL, NULL), 0);
	base_thread_join(thread);
	cr_assert(rig_set->running);
	vmbus_guest_run(rig_guest);
	cr_assert_not(rig_set->running);
	cr_assert_not(rig_set->frozen);
	fails(IC_CALL_SHUTDOWN, -ECANCELED);
}
