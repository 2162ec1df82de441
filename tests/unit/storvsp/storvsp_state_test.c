/* SPDX-License-Identifier: Apache-2.0 */
/* Quiesce, save, restore and reset, with requests in every place. */
#include <criterion/criterion.h>

#include "base/bytes.h"
#include "tests/support/depth.h"
#include "tests/unit/storvsp/storvsp_rig.h"

TestSuite(storvsp_state, .init = rig_init, .fini = rig_fini);

static const uint8_t cdb_ready[16] = { 0x00 };

static void full(void)
{
	rig_plan((struct fake_store_plan){
		.fail_at = 1, .fail_forever = true, .fail_code = -ENOSPC });
}

static void heal(void)
{
	rig_plan((struct fake_store_plan){ .fail_at = 0 });
}

static void save(struct base_buffer *out)
{
	cr_assert_eq(storvsp_service_ops.section_count(rig.storvsp), 1);
	cr_assert_str_eq(storvsp_service_ops.section(rig.storvsp, 0).name, "storvsp");
	cr_assert_eq(storvsp_service_ops.save(rig.storvsp, 0, out, NULL), 0);
}

static bool fake_not_open;

/* The controller goes, another one is loaded; the bus opens what was open. */
static int restore(const struct base_buffer *saved, struct base_error *err)
{
	struct base_reader in = base_reader_over(saved->data, saved->size_bytes);
	int rc = 0;

	storvsp_free(rig.storvsp);
	fake_loading_open = !fake_not_open;
	rig_controller();
	rig_attach(0, rig.disk);
	base_assert(storvsp_service_ops.quiesce(rig.storvsp, NULL) == 0);
	rc = storvsp_service_ops.load(rig.storvsp, 0, 1, &in, err);
	fake_loading_open = false;
	return rc != 0 ? rc : storvsp_service_ops.loaded(rig.storvsp, err);
}

Test(storvsp_state, quiesce_finishes_what_is_in_flight)
{
	rig_start();
	rig_plan((struct fake_store_plan){ .delay_steps = 40, .seed = 2 });
	(void)rig_io(true, 0, 0x200000, 8192);
	for (uint32_t i = 0; i < 3; i++)
		(void)base_io_loop_step(rig.lab.loop, false);
	cr_assert_not(rig_get().there);
	rig_quiesce();
	cr_assert_eq(rig_get().srb_status, 1); /* before quiesce returned */
	rig_resume();
	rig_settle();
	cr_assert_not(rig_get().there);
}

Test(storvsp_state, what_waits_for_the_store_goes_on_after_a_pause)
{
	uint64_t id = 0;

	rig_start();
	rig_fill(0x200000, 0, 8192, 4);
	full();
	id = rig_io(true, 0, 0x200000, 8192);
	rig_settle();
	rig_quiesce();
	rig_settle();
	cr_assert_not(rig_get().there);
	rig_resume();
	heal();
	disk_lab_pass_ms(&rig.lab, 2000);
	cr_assert_eq(rig_get().trans_id, id);
	cr_assert_not(rig_get().there);
	cr_assert_eq(lab_verify(rig.disk, 0, 8192, 4), 0);
}

Test(storvsp_state, a_unit_the_guest_takes_for_another_stays_so_over_a_restore)
{
	const uint8_t cdb_inquiry[16] = { 0x12, 0, 0, 0, 36 };
	struct base_buffer saved = { .size_bytes = 0 };

	rig_start();
	cr_assert_eq(rig_do(0, cdb_inquiry, 0x1000, 36).srb_status, 1);
	rig_quiesce();
	cr_assert_eq(storvsp_detach(rig.storvsp, 0, NULL), 0);
	rig_attach(0, rig.disk);
	save(&saved);
	cr_assert_eq(restore(&saved, NULL), 0);
	rig_resume();
	rig_settle();
	while (rig_told() != 0)
		continue;
	cr_assert_eq(rig_do(0, cdb_ready, 0, 0).srb_status, 0x20);
	base_buffer_fini(&saved);
	saved = (struct base_buffer){ .size_bytes = 0 };
	/* Nor does one that was out when it was saved, and comes afterwards. */
	rig_settle();
	while (rig_told() != 0)
		continue;
	cr_assert_eq(rig_do(0, cdb_inquiry, 0x1000, 36).srb_status, 1);
	rig_quiesce();
	cr_assert_eq(storvsp_detach(rig.storvsp, 0, NULL), 0);
	save(&saved);
	cr_assert_eq(restore(&saved, NULL), 0);
	rig_resume();
	rig_settle();
	while (rig_told() != 0)
		continue;
	cr_assert_eq(rig_do(0, cdb_ready, 0, 0).srb_status, 0x20);
	base_buffer_fini(&saved);
}

/* Whatever a guest does, what is saved of it can be loaded: else it could keep itself from being
 * moved. */
Test(storvsp_state, a_guest_that_begins_again_can_be_restored)
{
	struct base_buffer saved = { .size_bytes = 0 };

	rig_start();
	cr_assert_eq(rig_message(13, 2), 0);
	cr_assert_eq(rig_message(7, 0), 0);
	rig_quiesce();
	save(&saved);
	cr_assert_eq(restore(&saved, NULL), 0);
	cr_assert_not_null(fake_channels[2]);
	rig_resume();
	cr_assert_eq(rig_message(9, 0x0602), 0);
	base_buffer_fini(&saved);
}

/* The primary channel breaks when its last answers find a ring that is none; a request of a
 * sub-channel is parked, and that has not closed yet. */
Test(storvsp_state, a_primary_channel_that_breaks_in_a_save_can_be_restored)
{
	struct base_buffer saved = { .size_bytes = 0 };
	struct vmbus_channel *primary = rig.channel;

	rig_start();
	cr_assert_eq(rig_message(13, 1), 0);
	fake_open(fake_channels[1]);
	full();
	rig.channel = fake_channels[1];
	(void)rig_io(true, 0, 0x200000, 8192);
	rig_settle();
	rig_quiesce();
	fake_close(primary);
	save(&saved);
	fake_close(fake_channels[1]);
	fake_let_go();
	rig.channel = primary;
	cr_assert_eq(restore(&saved, NULL), 0);
	heal();
	base_buffer_fini(&saved);
}

/* The guest wrote nonsense into its rings just before the save. */
Test(storvsp_state, channels_whose_rings_broke_are_lost_and_no_more)
{
	struct base_buffer saved = { .size_bytes = 0 };

	rig_start();
	cr_assert_eq(rig_message(13, 1), 0);
	full();
	(void)rig_io(true, 0, 0x200000, 8192);
	(void)rig_io(true, 8192, 0x200004, 8192);
	rig_settle();
	rig_quiesce();
	save(&saved);
	heal();
	fake_loading_broken = true;
	cr_assert_eq(restore(&saved, NULL), 0);
	fake_loading_broken = false;
	rig_resume();
	cr_assert(fake_channels[1]->retracted);
	fake_let_go();
	rig_start();
	cr_assert_eq(rig_message(13, 1), 0);
	base_buffer_fini(&saved);
	/* A state that says so of a channel that was not open is none. */
	saved = (struct base_buffer){ .size_bytes = 0 };
	full();
	(void)rig_io(true, 0, 0x200000, 8192);
	rig_settle();
	rig_quiesce();
	save(&saved);
	heal();
	fake_not_open = true;
	cr_assert_eq(restore(&saved, NULL), -EBADMSG);
	fake_not_open = false;
	base_buffer_fini(&saved);
}

Test(storvsp_state, saved_and_restored_with_requests_in_every_place)
{
	struct base_buffer saved = { .size_bytes = 0 };
	bool seen[64] = { false };

	rig_start();
	cr_assert_eq(rig_message(13, 1), 0);
	rig_fill(0x200000, 0, 8192, 4);
	full();
	for (uint64_t i = 0; i < 12; i++)
		(void)rig_io(true, 8192 * i, 0x200000 + 4 * (i % 2), 8192); /* bounced or not */
	rig_settle();
	rig.channel->room = 0;
	for (uint32_t i = 0; i < 10; i++)
		(void)rig_put(0, cdb_ready, 0, 0);
	rig_settle();
	storvsp_resized(rig.storvsp, 0);
	rig_quiesce();
	save(&saved);
	heal();
	cr_assert_eq(restore(&saved, NULL), 0);
	cr_assert_not_null(fake_channels[1]); /* the sub-channel is there again */
	rig_resume();
	disk_lab_pass_ms(&rig.lab, 2000);
	for (;;) {
		const struct fake_packet *packet = fake_get(rig.channel);

		if (packet == NULL)
			break;
		if (packet->trans_id == 0)
			continue; /* ENUMERATE_BUS */
		cr_assert_lt(packet->trans_id, 64);
		cr_assert_not(seen[packet->trans_id], "twice: %llu",
			      (unsigned long long)packet->trans_id);
		seen[packet->trans_id] = true;
	}
	for (uint32_t i = 1; i <= 22; i++)
		cr_assert(seen[i], "lost: %u", i);
	base_buffer_fini(&saved);
}

Test(storvsp_state, what_is_saved_twice_is_the_same)
{
	struct base_buffer saved[2] = { { .size_bytes = 0 }, { .size_bytes = 0 } };

	rig_start();
	cr_assert_eq(rig_message(13, 2), 0);
	full();
	(void)rig_io(true, 0, 0x200000, 8192);
	rig_settle();
	rig.channel->room = 0;
	(void)rig_put(0, cdb_ready, 0, 0);
	rig_settle();
	rig_quiesce();
	save(&saved[0]);
	cr_assert_eq(restore(&saved[0], NULL), 0);
	save(&saved[1]);
	cr_assert_eq(saved[0].size_bytes, saved[1].size_bytes);
	cr_assert_arr_eq(saved[0].data, saved[1].data, saved[0].size_bytes);
	base_buffer_fini(&saved[0]);
	base_buffer_fini(&saved[1]);
}

Test(storvsp_state, every_cut_and_other_disks_are_refused)
{
	struct base_buffer saved = { .size_bytes = 0 };
	struct base_error err = { .code = 0 };

	rig_start();
	full();
	(void)rig_io(true, 0, 0x200000, 8192);
	rig_settle();
	rig_quiesce();
	save(&saved);
	for (size_t size = 0; size < saved.size_bytes; size++) {
		struct base_reader in = base_reader_over(saved.data, size);

		cr_assert_eq(storvsp_service_ops.load(rig.storvsp, 0, 1, &in, NULL), -EBADMSG);
	}
	{
		struct base_reader in = base_reader_over(saved.data, saved.size_bytes);

		cr_assert_eq(storvsp_service_ops.load(rig.storvsp, 0, 2, &in, NULL), -ENOTSUP);
	}
	saved.data[24 + 3] ^= 1; /* the id of the disk */
	{
		struct base_reader in = base_reader_over(saved.data, saved.size_bytes);

		cr_assert_eq(storvsp_service_ops.load(rig.storvsp, 0, 1, &in, &err), -EINVAL);
		cr_assert_not_null(strstr(err.text, "LUN 0"), "%s", err.text);
	}
	base_buffer_fini(&saved);
}

Test(storvsp_state, reset_forgets_the_guest)
{
	rig_start();
	full();
	(void)rig_io(true, 0, 0x200000, 8192);
	rig_settle();
	storvsp_resized(rig.storvsp, 0);
	rig_quiesce();
	cr_assert_eq(storvsp_service_ops.reset(rig.storvsp, NULL), 0);
	heal();
	rig_resume();
	disk_lab_pass_ms(&rig.lab, 5000);
	cr_assert_not(rig_get().there);
	cr_assert_eq(lab_verify(rig.disk, 0, 8192, 0), 0); /* never made */
	fake_close(rig.channel);
	rig_start();
	cr_assert_eq(rig_do(0, cdb_ready, 0, 0).srb_status, 1); /* no unit attention of before */
}

/* --- a random load, verified --- */

#define SLOTS      24u
#define SLOT_BYTES 16384u

struct slot {
	uint64_t trans_id; /* 0: idle */
	uint64_t gpa;
	bool write;
	uint32_t version; /* on the disk; of a write, what it writes */
};

static struct slot slots[SLOTS];
static uint64_t dice = 1;

static uint32_t roll(uint32_t below)
{
	dice = dice * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(dice >> 33) % below;
}

static void load_begin(uint32_t i)
{
	struct slot *slot = &slots[i];
	uint64_t offset = (uint64_t)i * SLOT_BYTES;

	slot->gpa = 0x400000 + (uint64_t)i * 0x8000 + 4 * roll(3) * 128;
	if (roll(3) == 0)
		slot->gpa += 4; /* not aligned */
	slot->write = roll(2) == 0;
	if (slot->write) {
		slot->version = roll(1U << 30) + 1;
		rig_fill(slot->gpa, offset, SLOT_BYTES, slot->version);
	}
	slot->trans_id = rig_io(slot->write, offset, slot->gpa, SLOT_BYTES);
}

static void load_end(void)
{
	for (;;) {
		struct rig_answer answer = rig_get();
		uint32_t i = 0;

		if (!answer.there)
			return;
		while (i < SLOTS && slots[i].trans_id != answer.trans_id)
			i++;
		cr_assert_lt(i, SLOTS, "an answer to nothing");
		cr_assert_eq(answer.srb_status, 1, "status %x %x/%x", answer.srb_status, answer.key,
			     answer.asc);
		cr_assert_eq(answer.bytes, SLOT_BYTES);
		if (!slots[i].write)
			cr_assert(rig_holds(slots[i].gpa, (uint64_t)i * SLOT_BYTES, SLOT_BYTES,
					    slots[i].version));
		slots[i].trans_id = 0;
	}
}

static void load_restart(void)
{
	struct base_buffer saved = { .size_bytes = 0 };
	struct fake_packet *kept = calloc(FAKE_PACKETS, sizeof(*kept));
	uint32_t head = rig.channel->in_head;
	uint32_t tail = rig.channel->in_tail;

	cr_assert_not_null(kept);
	rig_quiesce();
	load_end();
	save(&saved);
	/* The ring is guest memory: what the guest has written stays. */
	memcpy(kept, rig.channel->in, sizeof(rig.channel->in));
	rig.channel->in_head = rig.channel->in_tail;
	cr_assert_eq(restore(&saved, NULL), 0);
	memcpy(rig.channel->in, kept, sizeof(rig.channel->in));
	rig.channel->in_head = head;
	rig.channel->in_tail = tail;
	rig_resume();
	free(kept);
	base_buffer_fini(&saved);
}

/* The guest lets go of everything: what was written may be there or not. */
static void load_reopen(void)
{
	fake_close(rig.channel);
	rig_settle();
	cr_assert(rig.channel->closed_called);
	heal(); /* for the test's own writes */
	rig_settle();
	disk_lab_pass_ms(&rig.lab, 1000);
	rig_start();
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct slot *slot = &slots[i];

		if (slot->trans_id != 0 && slot->write) {
			slot->version = roll(1U << 30) + 1;
			cr_assert_eq(lab_write(rig.disk, (uint64_t)i * SLOT_BYTES, SLOT_BYTES,
					       slot->version),
				     0);
		}
		slot->trans_id = 0;
	}
}

static void load_plan(void)
{
	struct fake_store_plan plan = { .seed = dice, .reorder = true, .delay_steps = roll(30) };

	if (roll(2) == 0) {
		plan.fail_at = 1 + roll(5);
		plan.fail_code = -ENOSPC;
		plan.fail_ops = 1U << STORE_WRITE;
		plan.fail_forever = true;
	}
	rig_plan(plan);
}

static void load_heal(void)
{
	rig.channel->room = UINT32_MAX;
	vmbus_channel_again(rig.channel);
	heal();
	rig_settle(); /* what was on its way may fail still, and wait for the next try */
	disk_lab_pass_ms(&rig.lab, 1000);
	load_end();
	for (uint32_t i = 0; i < SLOTS; i++)
		cr_assert_eq(slots[i].trans_id, 0, "slot %u hangs", i);
}

static void load_step(void)
{
	uint32_t i = roll(SLOTS);

	switch (roll(60)) {
	case 0:
		load_restart();
		break;
	case 1:
		load_heal();
		load_reopen();
		break;
	case 2:
		load_reopen();
		break;
	case 3:
		load_heal();
		break;
	case 4:
		load_plan();
		break;
	case 5:
		rig.channel->room = roll(4);
		break;
	case 6:
		rig.channel->room = UINT32_MAX;
		vmbus_channel_again(rig.channel);
		break;
	case 7:
		rig_quiesce();
		load_end();
		rig_resume();
		break;
	default:
		if (slots[i].trans_id == 0)
			load_begin(i);
		(void)base_io_loop_step(rig.lab.loop, false);
		load_end();
		break;
	}
}

Test(storvsp_state, random_load_over_everything)
{
	for (uint32_t seed = 1; seed <= 12; seed += depth_stride()) {
		if (seed > 1) {
			rig_fini();
			rig_init();
		}
		dice = seed;
		memset(slots, 0, sizeof(slots));
		rig_start();
		for (uint32_t i = 0; i < 1500; i++)
			load_step();
		load_heal();
		for (uint32_t i = 0; i < SLOTS; i++)
			cr_assert_eq(lab_verify(rig.disk, (uint64_t)i * SLOT_BYTES, SLOT_BYTES,
						slots[i].version),
				     0, "seed %u slot %u", seed, i);
	}
}
