/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest can do again and again costs neither the log nor the worker.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/unit/vmbus/vmbus_rig.h"

#define STORM 100u

static uint32_t lines_of(int log, const char *event)
{
	static char text[1 << 20];
	ssize_t size = pread(log, text, sizeof(text) - 1, 0);
	uint32_t count = 0;

	cr_assert(size >= 0 && (size_t)size < sizeof(text) - 1);
	text[size] = '\0';
	for (const char *at = strstr(text, event); at != NULL; at = strstr(at + 1, event))
		count++;
	return count;
}

Test(vmbus_storm, lines_are_few_a_second)
{
	struct base_fake_clock fake = { .boot_ns = 5 * BASE_NS_PER_SECOND };
	struct base_clock clock = base_clock_fake(&fake);
	const struct vmbus_guest_opts opts = { .clock = &clock };
	struct vmbus_guest_channel channel;
	const struct vmbus_guest_offer *offer = NULL;
	int log = memfd_create("log", MFD_CLOEXEC);
	struct echo echo = { .bus = NULL };
	struct vmbus_guest *guest = NULL;

	base_log_init(log, BASE_LOG_DEBUG);
	guest = vmbus_guest_new(&opts);
	rig_offer(guest, &echo, 0);
	for (uint32_t i = 0; i < STORM; i++)
		cr_assert(vmbus_guest_contact(guest, 0x50003));
	cr_assert_eq(lines_of(log, "vmbus.contact"), VMBUS_LOG_LINES);
	vmbus_guest_request_offers(guest);
	offer = vmbus_guest_offer(guest, &rig_type, 0);
	for (uint32_t i = 0; i < STORM; i++) {
		cr_assert_eq(vmbus_guest_open(guest, offer, 2, &channel), 0);
		*vmbus_guest_ring_word(&channel, false, VMBUS_RING_WRITE_INDEX) = 3;
		vmbus_guest_signal(&channel);
		cr_assert_not(vmbus_channel_is_open(echo.channel));
		vmbus_guest_close(&channel);
	}
	cr_assert_eq(lines_of(log, "vmbus.channel-broken"), VMBUS_LOG_LINES);
	fake.boot_ns += BASE_NS_PER_SECOND;
	cr_assert(vmbus_guest_contact(guest, 0x50003));
	cr_assert_eq(lines_of(log, "vmbus.contact"), VMBUS_LOG_LINES + 1);
	vmbus_channel_free(echo.channel);
	vmbus_guest_free(guest);
}

/* Others on the loop have their turn while vCPUs post as fast as it takes. */
Test(vmbus_storm, messages_are_taken_some_at_a_time)
{
	const uint8_t close[12] = { VMBUS_MSG_CLOSECHANNEL };
	struct vmbus_guest *guest = vmbus_guest_new(NULL);
	struct vmbus *bus = vmbus_guest_bus(guest);

	for (uint32_t turn = 1; turn <= VMBUS_IN_MAX / VMBUS_IN_TURN; turn++) {
		while (vmbus_hypercall_ops.post_message(bus, 4, 1, close, sizeof(close)) ==
		       HV_STATUS_SUCCESS)
			continue;
		cr_assert(base_io_loop_step(vmbus_guest_loop(guest), false));
		cr_assert_eq(bus->in_count, VMBUS_IN_MAX - VMBUS_IN_TURN, "turn %u", turn);
	}
	vmbus_guest_run(guest);
	cr_assert_eq(bus->in_count, 0);
	vmbus_guest_free(guest);
}

struct late {
	struct base_io_task task; /* first */
	struct vmbus *bus;
	bool ran;
};

static enum hv_status post_close(struct vmbus *bus)
{
	const uint8_t close[12] = { VMBUS_MSG_CLOSECHANNEL };

	return vmbus_hypercall_ops.post_message(bus, 4, 1, close, sizeof(close));
}

static void post_late(struct base_io_task *task)
{
	struct late *late = (struct late *)task;

	cr_assert_eq(late->bus->in_count, 0);
	cr_assert_eq(post_close(late->bus), HV_STATUS_SUCCESS);
	late->ran = true;
}

/* A turn takes all messages while the task that was queued for the last of them is still on its
 * way. What is posted then has its turn, and nothing on the loop is lost. */
Test(vmbus_storm, a_turn_that_takes_all_messages_loses_none)
{
	struct late late = { .task.run = post_late };
	struct late behind = { .task.run = post_late };
	struct vmbus_guest *guest = vmbus_guest_new(NULL);

	late.bus = behind.bus = vmbus_guest_bus(guest);
	for (uint32_t i = 0; i < VMBUS_IN_TURN + 1; i++)
		cr_assert_eq(post_close(late.bus), HV_STATUS_SUCCESS);
	cr_assert(base_io_loop_step(vmbus_guest_loop(guest), false));
	cr_assert_eq(late.bus->in_count, 1); /* the next turn's */
	base_io_post(vmbus_guest_loop(guest), &late.task);
	cr_assert_eq(post_close(late.bus), HV_STATUS_SUCCESS);
	cr_assert(base_io_loop_step(vmbus_guest_loop(guest), false));
	base_io_post(vmbus_guest_loop(guest), &behind.task);
	vmbus_guest_run(guest);
	cr_assert(late.ran && behind.ran);
	cr_assert_eq(late.bus->in_count, 0);
	vmbus_guest_free(guest);
}

/* A guest that is stopped time and again, posts all it can in between and takes no answer. */
Test(vmbus_storm, answers_nobody_takes_are_bounded_over_many_saves)
{
	uint8_t bad_open[148] = { VMBUS_MSG_OPENCHANNEL };
	struct hv_message answer;
	struct rig rig;
	struct vmbus *bus = NULL;

	rig_begin(&rig, 0);
	bus = vmbus_guest_bus(rig.guest);
	for (uint32_t i = 0; i < 2 * VMBUS_OUT_MAX / VMBUS_IN_MAX; i++) {
		while (vmbus_hypercall_ops.post_message(bus, 4, 1, bad_open, sizeof(bad_open)) ==
		       HV_STATUS_SUCCESS)
			continue;
		cr_assert_eq(vmbus_service_ops.quiesce(bus, NULL), 0);
		vmbus_service_ops.resume(bus);
	}
	cr_assert_leq(bus->out_count, VMBUS_OUT_QUIET + VMBUS_OUT_PAUSE);
	/* And when it listens again all is well. */
	while (vmbus_guest_take(rig.guest, &answer))
		continue;
	vmbus_guest_close(&rig.channel);
	cr_assert_eq(vmbus_guest_open(rig.guest, rig.offer, 0, &rig.channel), 0);
	rig_end(&rig);
}
