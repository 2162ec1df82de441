/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logs built by hand: what is applied, in which order, and what is refused.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/support/depth.h"
#include "tests/support/vhdx_file.h"

#define NAME       "disk.vhdx"
#define FILE_BYTES (4 * VHDX_MIB)
#define PLACE      (3 * VHDX_MIB + 65536) /* in the BAT, behind its entries */
#define LOG_BYTES  (1U << 20)

static struct vhdx_world world;
static struct base_error err;
static const struct disk_guid log_id = { { 9, 8, 7, 6 } };

static void setup(void)
{
	vhdx_world_init(&world);
	vhdx_file_make(&world, NAME);
}

static void teardown(void)
{
	vhdx_world_fini(&world);
}

TestSuite(vhdx_replay, .init = setup, .fini = teardown);

static void mark_dirty(void)
{
	struct vhdx_header header = vhdx_file_header(&world, NAME);

	header.log = log_id;
	vhdx_file_set_header(&world, NAME, header);
}

static struct vhdx_log_entry entry(uint64_t sequence, uint32_t tail)
{
	return (struct vhdx_log_entry){
		.tail_bytes = tail,
		.sequence = sequence,
		.log = log_id,
		.flushed_file_bytes = FILE_BYTES,
		.last_file_bytes = FILE_BYTES,
	};
}

/* One entry with one page; returns where the next goes. */
static uint32_t put(uint32_t at, uint64_t sequence, uint32_t tail, uint64_t place, uint8_t fill)
{
	struct vhdx_log_entry head = entry(sequence, tail);
	struct vhdx_log_piece piece = { .file_offset = place, .fill = fill };

	return (at + vhdx_file_log(&world, NAME, at, &head, &piece, 1)) % LOG_BYTES;
}

static int load(struct vhdx_overlay **ret_overlay)
{
	const struct store_open_options options = { .loop = world.loop, .align_bytes = 512 };
	struct vhdx_header header = vhdx_file_header(&world, NAME);
	struct store_file *file = NULL;
	struct store_facts facts;
	int code;

	cr_assert_eq(store_open(world.store, NAME, &options, &file, &err), 0, "%s", err.text);
	store_facts(file, &facts);
	code = vhdx_overlay_load(file, &header, facts.size_bytes, ret_overlay, &err);
	store_close(file);
	return code;
}

static void expect_bad(const char *text)
{
	struct vhdx_overlay *overlay = NULL;

	mark_dirty();
	cr_assert_eq(load(&overlay), -EBADMSG, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "%s", err.text);
	cr_assert_null(overlay);
}

/* The byte that the overlay makes of 0xff there. */
static uint8_t at(const struct vhdx_overlay *overlay, uint64_t offset)
{
	uint8_t byte = 0xff;

	vhdx_overlay_apply(overlay, offset, &byte, 1);
	return byte;
}

static struct vhdx_overlay *load_good(void)
{
	struct vhdx_overlay *overlay = NULL;

	mark_dirty();
	cr_assert_eq(load(&overlay), 0, "%s", err.text);
	cr_assert_not_null(overlay);
	return overlay;
}

Test(vhdx_replay, a_clean_file_has_no_overlay)
{
	struct vhdx_overlay *overlay = NULL;

	put(0, 1, 0, PLACE, 1);
	cr_assert_eq(load(&overlay), 0);
	cr_assert_null(overlay);
}

Test(vhdx_replay, later_entries_win)
{
	struct vhdx_overlay *overlay;
	uint32_t next = put(0, 5, 0, PLACE, 1);

	next = put(next, 6, 0, PLACE + 4096, 2);
	put(next, 7, 0, PLACE, 3);
	overlay = load_good();
	cr_assert_eq(at(overlay, PLACE), 3);
	cr_assert_eq(at(overlay, PLACE + 4095), 3);
	cr_assert_eq(at(overlay, PLACE + 4096), 2);
	cr_assert_eq(at(overlay, PLACE + 8192), 0xff);
	cr_assert_eq(at(overlay, PLACE - 1), 0xff);
	vhdx_overlay_free(overlay);
}

Test(vhdx_replay, entries_before_the_tail_do_not_count)
{
	struct vhdx_overlay *overlay;
	uint32_t second = put(0, 5, 0, PLACE, 1);

	put(second, 6, second, PLACE + 4096, 2);
	overlay = load_good();
	cr_assert_eq(at(overlay, PLACE), 0xff);
	cr_assert_eq(at(overlay, PLACE + 4096), 2);
	vhdx_overlay_free(overlay);
}

Test(vhdx_replay, around_the_end_of_the_log)
{
	struct vhdx_overlay *overlay;
	uint32_t first = LOG_BYTES - 12288;
	uint32_t next = put(first, 5, first, PLACE, 1);

	cr_assert_eq(next, LOG_BYTES - 4096);
	next = put(next, 6, first, PLACE + 4096, 2); /* header at the end, data at the begin */
	cr_assert_eq(next, 4096);
	put(next, 7, first, PLACE + 8192, 3);
	overlay = load_good();
	for (uint8_t i = 0; i < 3; i++)
		cr_assert_eq(at(overlay, PLACE + 4096 * (uint64_t)i), i + 1);
	vhdx_overlay_free(overlay);
}

Test(vhdx_replay, a_torn_last_entry_is_as_if_never_written)
{
	struct vhdx_overlay *overlay;
	uint32_t next = put(0, 5, 0, PLACE, 1);
	uint8_t zero[512] = { 0 };

	put(next, 6, 0, PLACE, 2);
	vhdx_file_poke(&world, NAME, VHDX_MIB + next + 6144, zero, sizeof(zero));
	overlay = load_good();
	cr_assert_eq(at(overlay, PLACE), 1);
	vhdx_overlay_free(overlay);
}

Test(vhdx_replay, the_newest_of_two_sequences)
{
	struct vhdx_overlay *overlay;

	put(0, 50, 0, PLACE, 1);
	put(65536, 70, 65536, PLACE, 2);
	put(131072, 60, 131072, PLACE, 3);
	overlay = load_good();
	cr_assert_eq(at(overlay, PLACE), 2);
	vhdx_overlay_free(overlay);
}

Test(vhdx_replay, entries_of_another_log_do_not_count)
{
	struct vhdx_overlay *overlay;
	struct vhdx_log_entry other = entry(100, 0);
	struct vhdx_log_piece piece = { .file_offset = PLACE, .fill = 4 };

	memset(other.log.bytes, 0x55, 16);
	put(65536, 5, 65536, PLACE, 1);
	vhdx_file_log(&world, NAME, 0, &other, &piece, 1);
	overlay = load_good();
	cr_assert_eq(at(overlay, PLACE), 1);
	vhdx_overlay_free(overlay);
}

Test(vhdx_replay, zeros_and_pages_over_each_other)
{
	const struct vhdx_log_piece pieces[] = {
		{ .file_offset = PLACE, .fill = 1 },
		{ .file_offset = PLACE + 4096, .zero_bytes = 5 * 4096 },
		{ .file_offset = PLACE + 8192, .fill = 2 },
		{ .file_offset = PLACE + 12288, .fill = 3 },
		{ .file_offset = PLACE + 12288, .zero_bytes = 4096 },
		{ .file_offset = PLACE, .zero_bytes = 4096 },
	};
	struct vhdx_log_entry head = entry(1, 0);
	struct vhdx_overlay *overlay;

	vhdx_file_log(&world, NAME, 0, &head, pieces, 6);
	overlay = load_good();
	cr_assert_eq(at(overlay, PLACE), 0);
	cr_assert_eq(at(overlay, PLACE + 4096), 0);
	cr_assert_eq(at(overlay, PLACE + 8192), 2);
	cr_assert_eq(at(overlay, PLACE + 12288), 0);
	cr_assert_eq(at(overlay, PLACE + 6 * 4096 - 1), 0);
	cr_assert_eq(at(overlay, PLACE + 6 * 4096), 0xff);
	vhdx_overlay_free(overlay);
}

/* The same as a loop over bytes, for many random logs. */
Test(vhdx_replay, any_order_equals_one_after_the_other)
{
	enum {
		SPACE = 40,
		PIECES = 60
	};
	struct vhdx_log_piece pieces[PIECES];
	uint8_t want[SPACE];
	uint32_t random = 1;

	mark_dirty();
	for (uint32_t round = 1; round <= 200; round++) {
		struct vhdx_log_entry head = entry(round, 0);
		struct vhdx_overlay *overlay = NULL;

		memset(want, 0xff, sizeof(want));
		for (uint32_t i = 0; i < PIECES; i++) {
			uint32_t from = (random = random * 1103515245 + 12345) >> 16;
			uint32_t pages = (random = random * 1103515245 + 12345) >> 16;

			from %= SPACE;
			pages = pages % 3 == 0 ? 0 : pages % (SPACE - from) + 1;
			pieces[i] = (struct vhdx_log_piece){
				.file_offset = PLACE + 4096 * (uint64_t)from,
				.zero_bytes = 4096 * (uint64_t)pages,
				.fill = (uint8_t)(i + 1),
			};
			memset(want + from, pages == 0 ? (int)i + 1 : 0, pages == 0 ? 1 : pages);
		}
		vhdx_file_log(&world, NAME, 0, &head, pieces, PIECES);
		cr_assert_eq(load(&overlay), 0, "%s", err.text);
		for (uint32_t i = 0; i < SPACE; i++)
			cr_assert_eq(at(overlay, PLACE + 4096 * (uint64_t)i + 77), want[i],
				     "round %u page %u", round, i);
		vhdx_overlay_free(overlay);
	}
}

Test(vhdx_replay, ranges_that_begin_anywhere)
{
	struct vhdx_overlay *overlay;
	uint8_t bytes[10000];

	put(0, 1, 0, PLACE, 7);
	overlay = load_good();
	for (uint64_t skip = 0; skip < 9000; skip += 911) {
		memset(bytes, 0xff, sizeof(bytes));
		vhdx_overlay_apply(overlay, PLACE - 4000 + skip, bytes, sizeof(bytes));
		for (size_t i = 0; i < sizeof(bytes); i++) {
			uint64_t place = PLACE - 4000 + skip + i;

			cr_assert_eq(bytes[i], place >= PLACE && place < PLACE + 4096 ? 7 : 0xff);
		}
	}
	vhdx_overlay_free(overlay);
}

Test(vhdx_replay, no_valid_sequence)
{
	uint32_t next;

	expect_bad("holds no valid sequence");
	next = put(0, 5, 8192, PLACE, 1); /* the tail is behind the head */
	expect_bad("holds no valid sequence");
	put(next, 7, 0, PLACE, 1); /* number 6 is missing */
	expect_bad("holds no valid sequence");
}

Test(vhdx_replay, two_sequences_that_cannot_be_told_apart)
{
	put(0, 5, 0, PLACE, 1);
	put(65536, 5, 65536, PLACE, 2);
	expect_bad("two sequences of entries end with number 5");
}

Test(vhdx_replay, a_file_that_was_cut)
{
	struct vhdx_log_entry head = entry(1, 0);

	head.flushed_file_bytes = FILE_BYTES + 4096;
	vhdx_file_log(&world, NAME, 0, &head, NULL, 0);
	expect_bad("the file had 4198400 bytes then and has 4194304 now");
}

Test(vhdx_replay, sizes_and_places_past_the_file)
{
	struct vhdx_log_entry head = entry(1, 0);

	head.last_file_bytes = UINT64_MAX;
	vhdx_file_log(&world, NAME, 0, &head, NULL, 0);
	expect_bad("more than any file has");
	put(0, 1, 0, FILE_BYTES, 1);
	expect_bad("ends past the file's 4194304 bytes");
}

Test(vhdx_replay, the_file_grows_to_what_the_last_entry_says)
{
	struct vhdx_log_piece piece = { .file_offset = FILE_BYTES + VHDX_MIB, .fill = 5 };
	struct vhdx_log_entry head = entry(1, 0);
	struct vhdx_overlay *overlay;

	head.last_file_bytes = 8 * VHDX_MIB;
	vhdx_file_log(&world, NAME, 0, &head, &piece, 1);
	overlay = load_good();
	cr_assert_eq(vhdx_overlay_file_bytes(overlay), 8 * VHDX_MIB);
	cr_assert_eq(at(overlay, FILE_BYTES + VHDX_MIB), 5);
	vhdx_overlay_free(overlay);
}

Test(vhdx_replay, what_lies_behind_a_later_cut_is_dropped)
{
	const struct vhdx_log_piece pieces[] = {
		{ .file_offset = FILE_BYTES + VHDX_MIB, .fill = 5 },
		{ .file_offset = FILE_BYTES - 4096, .zero_bytes = VHDX_MIB },
	};
	struct vhdx_log_entry head = entry(1, 0);
	struct vhdx_overlay *overlay;
	uint32_t next;

	head.last_file_bytes = 8 * VHDX_MIB;
	next = vhdx_file_log(&world, NAME, 0, &head, pieces, 2);
	put(next, 2, 0, PLACE, 1);
	overlay = load_good();
	cr_assert_eq(vhdx_overlay_file_bytes(overlay), FILE_BYTES);
	cr_assert_eq(at(overlay, FILE_BYTES - 1), 0);
	cr_assert_eq(at(overlay, FILE_BYTES), 0xff);
	cr_assert_eq(at(overlay, FILE_BYTES + VHDX_MIB), 0xff);
	vhdx_overlay_free(overlay);
}

/* Headers that claim long entries at every sector: the work has an end. */
Test(vhdx_replay, entries_over_entries_are_refused)
{
	for (uint32_t i = 0; i < LOG_BYTES / 4096; i++) {
		uint8_t header[4096] = { 0 };

		memcpy(header, "loge", 4);
		base_put_le32(header + 8, LOG_BYTES);
		base_put_le64(header + 16, 1);
		memcpy(header + 32, log_id.bytes, 16);
		vhdx_file_poke(&world, NAME, VHDX_MIB + 4096 * (uint64_t)i, header, 4096);
	}
	expect_bad("entries overlap again and again");
}

Test(vhdx_replay, activation_writes_it_home_and_closes_the_log)
{
	struct vhdx_header before;
	struct vhdx_header after;
	struct image *image = NULL;
	uint8_t page[4096];

	put(0, 5, 0, PLACE, 0x77);
	mark_dirty();
	before = vhdx_file_header(&world, NAME);
	cr_assert_eq(vhdx_file_open(&world, NAME, &image, &err), 0, "%s", err.text);
	vhdx_file_peek(&world, NAME, PLACE, page, sizeof(page));
	cr_assert(base_is_zero(page, sizeof(page)), "standby writes nothing");
	cr_assert_eq(image->ops->activate(image, STORE_EPOCH_NONE, NULL, &err), 0, "%s", err.text);
	vhdx_file_peek(&world, NAME, PLACE, page, sizeof(page));
	cr_assert_eq(page[0], 0x77);
	cr_assert_eq(page[4095], 0x77);
	after = vhdx_file_header(&world, NAME);
	cr_assert(disk_guid_is_zero(&after.log));
	cr_assert_not(disk_guid_equal(&before.file_write, &after.file_write));
	cr_assert(disk_guid_equal(&before.data_write, &after.data_write));
	cr_assert_eq(image->ops->deactivate(image, &err), 0, "%s", err.text);
	image->ops->close(image);
}

/* At each write and flush of an activation the power fails; the next one ends the same. */
Test(vhdx_replay, a_crash_at_any_point_of_a_replay_is_harmless)
{
	struct image *image = NULL;
	uint64_t events;
	uint32_t next = put(0, 5, 0, PLACE, 0x77);

	put(next, 6, 0, PLACE + 8192, 0x78);
	mark_dirty();
	cr_assert_eq(fake_store_record(world.store, &err), 0);
	cr_assert_eq(vhdx_file_open(&world, NAME, &image, &err), 0);
	cr_assert_eq(image->ops->activate(image, STORE_EPOCH_NONE, NULL, &err), 0);
	events = fake_store_event_count(world.store);
	image->ops->deactivate(image, &err);
	image->ops->close(image);
	cr_assert_gt(events, 6);
	for (uint64_t seed = 0; seed < 20; seed += depth_stride()) {
		for (uint64_t i = 0; i <= events; i++) {
			struct vhdx_world after = { .loop = world.loop };
			uint8_t page[4096];

			cr_assert_eq(fake_store_crash(world.store, i, FAKE_LOSE_SECTORS, seed,
						      &after.store, &err),
				     0);
			cr_assert_eq(vhdx_file_open(&after, NAME, &image, &err), 0,
				     "event %lu seed %lu: %s", i, seed, err.text);
			cr_assert_eq(image->ops->activate(image, 0, NULL, &err), 0, "%s", err.text);
			vhdx_file_peek(&after, NAME, PLACE + 8192, page, sizeof(page));
			cr_assert_eq(page[1], 0x78);
			vhdx_file_peek(&after, NAME, PLACE, page, sizeof(page));
			cr_assert_eq(page[4095], 0x77);
			cr_assert_eq(image->ops->deactivate(image, &err), 0);
			image->ops->close(image);
			store_free(after.store);
		}
	}
}
