/* SPDX-License-Identifier: Apache-2.0 */
/* What a power failure, or somebody who wants it to look like one, leaves of footers. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhd_priv.h"
#include "tests/support/depth.h"
#include "tests/support/image_rig.h"

#define MIB   (1ULL << 20)
#define BLOCK (512U << 10)
#define NAME  "disk.vhd"
#define SEEDS 12

static const struct image_ops *const ops = &image_vhd_ops;

static void make(struct image_rig *rig, enum disk_kind kind, uint64_t size_bytes)
{
	const struct disk_create_options options = { .kind = kind,
						     .size_bytes = size_bytes,
						     .block_bytes =
							     kind == DISK_FIXED ? 0 : BLOCK };
	struct base_error err = { 0 };

	image_rig_init(rig);
	cr_assert_eq(image_rig_create(rig, ops, NAME, &options, NULL, &err), 0, "%s", err.text);
}

static void keep_text(void *context, enum disk_finding finding, const char *text)
{
	(void)finding;
	(void)snprintf(context, 256, "%s", text);
}

/* The last finding's text goes to @text, 256 bytes. */
static struct disk_check_result check(struct image_rig *rig, char *text)
{
	struct disk_check_result result = { 0 };
	struct base_error err = { 0 };
	struct image *image = NULL;

	text[0] = '\0';
	cr_assert_eq(image_rig_open(rig, ops, NAME, &image, &err), 0, "%s", err.text);
	cr_assert_eq(ops->check(image, false, keep_text, text, &result, &err), 0, "%s", err.text);
	ops->close(image);
	return result;
}

static uint64_t file_bytes(const struct image_rig *rig)
{
	uint64_t bytes = 0;

	cr_assert(fake_store_file_bytes(rig->store, NAME, &bytes));
	return bytes;
}

enum hurt {
	TAIL_LOST,
	TAIL_TORN,
	COPY_OLDER,
	HURTS
};

/* A dynamic disk with a sector of 5 at 1 MiB, and what a power failure has left of its footers. */
static void make_hurt(struct image_rig *rig, enum hurt hurt)
{
	struct vhd_footer footer;
	uint8_t sector[512] = { 0 };
	struct image *image;

	make(rig, DISK_DYNAMIC, 4 * MIB);
	image = image_rig_active(rig, ops, NAME);
	memset(sector, 5, sizeof(sector));
	cr_assert_eq(image_rig_do(image, DISK_WRITE, DISK_FUA, MIB, sector, 512), 0);
	image_rig_close(image);
	cr_assert(fake_store_peek(rig->store, NAME, file_bytes(rig) - 512, sector, 512));
	if (hurt == TAIL_LOST)
		memset(sector, 0, sizeof(sector));
	if (hurt == TAIL_TORN)
		memset(sector + 100, 9, 400);
	if (hurt == COPY_OLDER) { /* the resize that wrote the footer did not get to the copy */
		cr_assert_eq(vhd_footer_decode(sector, false, &footer, NULL), 0);
		footer.current_bytes = 3 * MIB;
		vhd_footer_encode(&footer, sector);
		cr_assert(fake_store_poke(rig->store, NAME, 0, sector, 512));
		return;
	}
	cr_assert(fake_store_poke(rig->store, NAME, file_bytes(rig) - 512, sector, 512));
}

Test(vhd_mend, what_a_power_failure_leaves_is_no_damage)
{
	for (int hurt = 0; hurt < HURTS; hurt++) {
		struct disk_check_result result;
		struct image_rig rig;
		char text[256];

		make_hurt(&rig, (enum hurt)hurt);
		result = check(&rig, text);
		cr_assert_eq(result.damages, 0);
		cr_assert_eq(result.leaks, 1);
		cr_assert_not_null(strstr(text, "is used"), "%s", text);
		cr_assert_not_null(strstr(text, "--repair"), "%s", text);
		image_rig_close(image_rig_active(&rig, ops, NAME));
		result = check(&rig, text);
		cr_assert_eq(result.damages + result.leaks, 0, "%s", text);
		image_rig_fini(&rig);
	}
}

Test(vhd_mend, standby_writes_nothing)
{
	for (int hurt = 0; hurt < HURTS; hurt++) {
		struct base_error err = { 0 };
		struct image_rig rig;
		struct image *image;

		make_hurt(&rig, (enum hurt)hurt);
		cr_assert_eq(fake_store_record(rig.store, &err), 0);
		cr_assert_eq(image_rig_open(&rig, ops, NAME, &image, &err), 0, "%s", err.text);
		cr_assert_eq(image->geometry.size_bytes, 4 * MIB);
		cr_assert(image_rig_is(image, MIB, 512, 5));
		ops->close(image);
		cr_assert_eq(fake_store_event_count(rig.store), 0);
		image_rig_fini(&rig);
	}
}

/* The power fails again at each event of the mending. */
Test(vhd_mend, mending_is_safe_and_durable_before_activation_ends)
{
	for (int hurt = 0; hurt < HURTS; hurt++) {
		struct disk_check_result result;
		struct base_error err = { 0 };
		struct image_rig rig;
		struct image *image;
		uint64_t mended;
		char text[256];

		make_hurt(&rig, (enum hurt)hurt);
		cr_assert_eq(fake_store_record(rig.store, &err), 0);
		image = image_rig_active(&rig, ops, NAME);
		mended = fake_store_event_count(rig.store);
		cr_assert_gt(mended, 0);
		for (uint64_t i = 0; i <= mended * SEEDS; i++) {
			struct image_rig after = rig;
			struct image *left;

			cr_assert_eq(fake_store_crash(rig.store, i / SEEDS,
						      (enum fake_store_loss)(1 + i % 4), i,
						      &after.store, &err),
				     0);
			result = check(&after, text);
			cr_assert_eq(result.damages, 0, "%s", text);
			if (i / SEEDS == mended)
				cr_assert_eq(result.leaks, 0, "%s", text);
			left = image_rig_active(&after, ops, NAME);
			cr_assert_eq(left->geometry.size_bytes, 4 * MIB);
			cr_assert(image_rig_is(left, MIB, 512, 5));
			image_rig_close(left);
			store_free(after.store);
		}
		image_rig_close(image);
		image_rig_fini(&rig);
	}
}

Test(vhd_mend, footers_of_different_disks_are_not_written_to)
{
	struct base_error err = { 0 };
	struct vhd_footer footer;
	uint8_t sector[512];
	struct image_rig rig;
	struct image *image;
	char text[256];

	make(&rig, DISK_DYNAMIC, 4 * MIB);
	cr_assert(fake_store_peek(rig.store, NAME, 0, sector, 512));
	cr_assert_eq(vhd_footer_decode(sector, false, &footer, NULL), 0);
	footer.id.bytes[3] ^= 1;
	vhd_footer_encode(&footer, sector);
	cr_assert(fake_store_poke(rig.store, NAME, 0, sector, 512));
	cr_assert_eq(check(&rig, text).damages, 1);
	cr_assert_not_null(strstr(text, "different disks"));
	cr_assert_eq(image_rig_open(&rig, ops, NAME, &image, &err), 0);
	cr_assert_eq(ops->activate(image, STORE_EPOCH_NONE, NULL, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "different disks"));
	ops->close(image);
	image_rig_fini(&rig);
}

static void forge_fixed(uint64_t at, uint8_t bytes[512])
{
	const struct vhd_footer footer = { .header_offset = VHD_NO_OFFSET,
					   .creator = { 'w', 'i', 'n', ' ' },
					   .original_bytes = at,
					   .current_bytes = at,
					   .geometry = vhd_geometry_of(at),
					   .type = VHD_TYPE_FIXED,
					   .id = { .bytes = { 6, 6, 6 } } };

	memset(bytes, 0, 512);
	vhd_footer_encode(&footer, bytes);
}

/* A guest ends each block with a footer that makes a fixed disk of the file up to there: tables,
 * a parent of its choice and all.  No power failure may leave the file ending with it. */
Test(vhd_mend, a_guest_cannot_end_the_file_with_a_footer_of_its_own)
{
	uint8_t *data = aligned_alloc(512, BLOCK);
	struct base_error err = { 0 };
	struct image_rig rig;
	struct image *image;
	uint64_t at;
	uint64_t count;

	make(&rig, DISK_DYNAMIC, 16 * MIB);
	at = (1536 + 512 + 512 + 4095) & ~4095ULL; /* footer copy, header, table, bitmap */
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(fake_store_record(rig.store, &err), 0);
	for (uint64_t i = 0; i < 20; i++) {
		memset(data, 1, BLOCK);
		forge_fixed(at + BLOCK - 512, data + BLOCK - 512);
		cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, i * BLOCK, data, BLOCK), 0);
		cr_assert_eq((uint64_t)vhd_of(image)->bat[i] * 512 + 512, at, "the layout");
		at += BLOCK + 4096;
	}
	count = fake_store_event_count(rig.store);
	for (uint64_t i = 0; i < count * SEEDS; i++) {
		struct image_rig after = rig;
		struct image *left;

		cr_assert_eq(fake_store_crash(rig.store, i / SEEDS,
					      (enum fake_store_loss)(1 + i % 4), i, &after.store,
					      &err),
			     0);
		cr_assert_eq(image_rig_open(&after, ops, NAME, &left, &err), 0, "%s", err.text);
		cr_assert_eq(left->kind, DISK_DYNAMIC);
		cr_assert_eq(left->geometry.size_bytes, 16 * MIB);
		ops->close(left);
		store_free(after.store);
	}
	image_rig_close(image);
	image_rig_fini(&rig);
	free(data);
}

/* A guest has the beginning of a dynamic VHD in its first sectors, the fixed disk grows, and the
 * power fails when the new footer is not there yet. */
Test(vhd_mend, a_fixed_disk_stays_fixed_whatever_its_guest_has_at_0)
{
	struct base_error err = { 0 };
	uint8_t inner[4096] = { 0 };
	struct image_rig rig;
	struct image *image;
	uint64_t count;
	char text[256];

	make(&rig, DISK_DYNAMIC, 4 * MIB);
	cr_assert(fake_store_peek(rig.store, NAME, 0, inner, file_bytes(&rig)));
	image_rig_fini(&rig);
	make(&rig, DISK_FIXED, MIB);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, DISK_FUA, 0, inner, sizeof(inner)), 0);
	cr_assert_eq(fake_store_record(rig.store, &err), 0);
	cr_assert_eq(image_rig_do(image, DISK_RESIZE, 0, 2 * MIB, NULL, 0), 0);
	count = fake_store_event_count(rig.store);
	for (uint64_t i = 0; i < count * SEEDS; i++) {
		struct image_rig after = rig;
		struct image *left;

		cr_assert_eq(fake_store_crash(rig.store, i / SEEDS,
					      (enum fake_store_loss)(1 + i % 4), i, &after.store,
					      &err),
			     0);
		cr_assert_eq(check(&after, text).damages, 0, "%s", text);
		left = image_rig_active(&after, ops, NAME);
		cr_assert_eq(left->kind, DISK_FIXED);
		cr_assert(left->geometry.size_bytes == MIB || left->geometry.size_bytes == 2 * MIB);
		image_rig_close(left);
		cr_assert_eq(check(&after, text).damages, 0, "%s", text);
		store_free(after.store);
	}
	image_rig_close(image);
	image_rig_fini(&rig);
}

/* Wherever a resize was cut off, the next one shows zeros: no footer that was left behind. */
Test(vhd_mend, a_fixed_disk_grows_again_after_a_power_failure)
{
	struct base_error err = { 0 };
	struct image_rig rig;
	struct image *image;
	uint64_t count;
	char text[256];

	make(&rig, DISK_FIXED, MIB);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(fake_store_record(rig.store, &err), 0);
	cr_assert_eq(image_rig_do(image, DISK_RESIZE, 0, 2 * MIB, NULL, 0), 0);
	count = fake_store_event_count(rig.store);
	for (uint64_t i = 0; i < (count + 1) * SEEDS; i += depth_stride()) {
		struct image_rig after = rig;
		struct image *left;

		cr_assert_eq(fake_store_crash(rig.store, i / SEEDS,
					      (enum fake_store_loss)(1 + i % 4), i, &after.store,
					      &err),
			     0);
		left = image_rig_active(&after, ops, NAME);
		for (uint64_t size = 2; size < 4; size++) {
			cr_assert_eq(image_rig_do(left, DISK_RESIZE, 0, size * MIB, NULL, 0), 0);
			cr_assert(image_rig_is(left, 0, size * MIB, 0), "event %u, %u MiB",
				  (unsigned int)(i / SEEDS), (unsigned int)size);
		}
		image_rig_close(left);
		cr_assert_eq(check(&after, text).leaks, 0, "%s", text);
		store_free(after.store);
	}
	image_rig_close(image);
	image_rig_fini(&rig);
}

/* The k-th request of a resize fails, the next attempt is larger, and the power fails in that. */
Test(vhd_mend, a_resize_that_failed_leaves_a_footer)
{
	for (uint64_t k = 1; k <= 8; k++) {
		struct base_error err = { 0 };
		struct image_rig rig;
		struct image *image;
		uint64_t count;

		make(&rig, DISK_FIXED, MIB);
		image = image_rig_active(&rig, ops, NAME);
		cr_assert_eq(fake_store_record(rig.store, &err), 0);
		fake_store_set_plan(
			rig.store, &(struct fake_store_plan){ .fail_at = k, .fail_code = -ENOSPC });
		(void)image_rig_do(image, DISK_RESIZE, 0, 2 * MIB, NULL, 0);
		fake_store_set_plan(rig.store, &(struct fake_store_plan){ 0 });
		(void)image_rig_do(image, DISK_RESIZE, 0, 3 * MIB, NULL, 0);
		count = fake_store_event_count(rig.store);
		for (uint64_t i = 0; i < (count + 1) * SEEDS; i += depth_stride()) {
			struct image_rig after = rig;
			struct image *left = NULL;

			cr_assert_eq(fake_store_crash(rig.store, i / SEEDS,
						      (enum fake_store_loss)(1 + i % 4), i,
						      &after.store, &err),
				     0);
			cr_assert_eq(image_rig_open(&after, ops, NAME, &left, &err), 0,
				     "k %u event %u: %s", (unsigned int)k,
				     (unsigned int)(i / SEEDS), err.text);
			cr_assert(image_rig_is(left, 0, left->geometry.size_bytes, 0));
			ops->close(left);
			store_free(after.store);
		}
		(void)!ops->deactivate(image, &err);
		ops->close(image);
		image_rig_fini(&rig);
	}
}
