/* SPDX-License-Identifier: Apache-2.0 */
/* Images of a migration over stores that fail: what a plan says, objections, what is written
 * meanwhile, power failures, no space, no memory. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_migrate_disk.h"
#include "hypervisor/disk/disk_next.h"
#include "migrate/mig_verify.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/disk_lab.h"

#define MIB  (1ULL << 20)
#define SIZE (8 * MIB)

static struct disk_lab lab; /* the source's store */
static struct store *there; /* the destination's */
static struct mig_plan plan;
static struct mig_findings findings;
static struct vm_migrate_out *out;
static struct vm_migrate_in *in;
static struct disk *disk;
static uint8_t *buffer; /* of a span */
static struct base_error err;

static void plan_begin(void)
{
	plan.objects = calloc(1, sizeof(*plan.objects));
	cr_assert_not_null(plan.objects);
	plan.objects[0].object.unit_count = 1;
	plan.objects[0].description = calloc(1, 1);
	plan.object_count = 1;
}

static void setup(void)
{
	disk_lab_init(&lab);
	cr_assert_eq(fake_store_new(&there, &err), 0);
	buffer = aligned_alloc(4096, MIG_SPAN_BYTES);
	cr_assert_not_null(buffer);
	plan_begin();
}

static void teardown(void)
{
	vm_migrate_in_free(in);
	vm_migrate_out_free(out);
	disk_close(disk);
	mig_plan_fini(&plan);
	store_free(there);
	disk_lab_fini(&lab);
	free(buffer);
}

TestSuite(vm_migrate_disk, .init = setup, .fini = teardown, .timeout = 120);

static int source_new(void)
{
	const struct vm_migrate_from from = { .store = lab.store, .disk = disk };

	return vm_migrate_out_new(&from, 1, &plan, &out, &err);
}

static int destination_new(void)
{
	const struct vm_migrate_in_options options = {
		.store = there, .folder = "vm", .loop = lab.loop, .plan = &plan
	};

	return vm_migrate_in_new(&options, &findings, &in, &err);
}

/* base, mid and top, each with something in it; @disk is the top. */
static void chain(enum disk_format format)
{
	disk_lab_make(&lab, "base", format, DISK_DYNAMIC, SIZE, NULL);
	disk = disk_lab_open(&lab, "base");
	cr_assert_eq(lab_write(disk, 0, 2 * MIB, 1), 0);
	disk_close(disk);
	disk_lab_make(&lab, "top", format == DISK_RAW ? DISK_VHDX : format, DISK_DIFFERENCING, 0,
		      "base");
	disk = disk_lab_open(&lab, "top");
	cr_assert_eq(lab_write(disk, MIB, 4096, 2), 0);
}

static int send(uint16_t object, const struct mig_run *run)
{
	uint64_t first = run->first;
	uint64_t end = first + run->count;
	int code = 0;

	if (run->kind == MIG_RUN_NOTHING)
		return 0;
	if (run->kind != MIG_RUN_DATA)
		return vm_migrate_in_ops.clear(in, object, first, run->count,
					       run->kind == MIG_RUN_UNMAPPED, &err);
	for (; first < end && code == 0; first += MIG_GRANULE_SECTORS) {
		uint32_t count = end - first < MIG_GRANULE_SECTORS ? (uint32_t)(end - first)
								   : MIG_GRANULE_SECTORS;

		code = vm_migrate_out_ops.read(out, object, first, buffer, count, &err);
		if (code == 0)
			code = vm_migrate_in_ops.write(in, object, first, buffer, count, &err);
	}
	return code;
}

/* A round, without channels. */
static int ferry(void)
{
	for (uint32_t i = 1; i < plan.object_count; i++) {
		uint64_t bits[SIZE / MIG_GRANULE_BYTES] = { 0 }; /* more than enough */
		uint64_t sectors = plan.objects[i].object.unit_count;
		int code = vm_migrate_out_ops.harvest(out, (uint16_t)i, false, bits, &err);

		for (uint64_t at = 0; at < sectors && code == 0; at += MIG_GRANULE_SECTORS) {
			uint64_t granule = at / MIG_GRANULE_SECTORS;
			struct mig_map map = { .first = at, .count = MIG_GRANULE_SECTORS };

			if ((bits[granule / 64] & 1ULL << granule % 64) == 0)
				continue;
			if (sectors - at < map.count)
				map.count = (uint32_t)(sectors - at);
			code = vm_migrate_out_ops.map(out, (uint16_t)i, &map, &err);
			for (uint32_t r = 0; r < map.run_count && code == 0; r++)
				code = send((uint16_t)i, &map.runs[r]);
		}
		if (code < 0)
			return code;
	}
	return 0;
}

static int count_name(void *context, const char *name, uint64_t size_bytes)
{
	(void)name;
	(void)size_bytes;
	(*(uint32_t *)context)++;
	return 0;
}

static uint32_t files_there(void)
{
	uint32_t count = 0;

	if (store_list(there, "vm", count_name, &count, NULL) < 0)
		return 0;
	return count;
}

/* What the destination's @store shows is what the source's disk shows. */
static void check_same(struct store *store)
{
	const struct disk_options options = { .store = store, .name = "vm/top", .loop = lab.loop };
	struct disk *to = NULL;
	uint8_t *other = aligned_alloc(4096, MIG_SPAN_BYTES);

	cr_assert_not_null(other);
	cr_assert_eq(disk_open_standby(&options, &to, &err), 0, "%s", err.text);
	for (uint64_t at = 0; at < SIZE; at += MIG_SPAN_BYTES) {
		cr_assert_eq(disk_do(disk, DISK_READ, at, buffer, MIG_SPAN_BYTES, &err), 0);
		cr_assert_eq(disk_do(to, DISK_READ, at, other, MIG_SPAN_BYTES, &err), 0, "%s",
			     err.text);
		cr_assert_arr_eq(buffer, other, MIG_SPAN_BYTES, "MiB %llu",
				 (unsigned long long)(at / MIB));
	}
	disk_close(to);
	free(other);
}

static void move_whole(void)
{
	cr_assert_eq(source_new(), 0, "%s", err.text);
	cr_assert_eq(destination_new(), 0, "%s", err.text);
	cr_assert_eq(findings.count, 0, "%s", findings.lines[0]);
	cr_assert_eq(ferry(), 0, "%s", err.text);
	cr_assert_eq(lab_write(disk, 3 * MIB, 8192, 3), 0);
	cr_assert_eq(disk_do(disk, DISK_ZERO, MIB, NULL, 512, &err), 0);
	cr_assert_eq(ferry(), 0, "%s", err.text);
}

/* --- what a verified move sees --- */

/* The tree of all images at one side, as they read back. */
static struct mig_verify *tree_of(bool source)
{
	static uint8_t memory[MIG_PAGE_BYTES];
	struct mig_object objects[8];
	struct mig_verify_options options = {
		.memory = memory,
		.objects = objects,
		.object_count = plan.object_count,
		.lane_count = 1,
		.map = source ? vm_migrate_out_ops.map : vm_migrate_in_ops.map,
		.read = source ? vm_migrate_out_ops.read : vm_migrate_in_ops.read,
		.context = source ? (void *)out : (void *)in,
	};
	struct mig_verify *verify = NULL;

	cr_assert_leq(plan.object_count, 8);
	for (uint32_t i = 0; i < plan.object_count; i++)
		objects[i] = plan.objects[i].object;
	cr_assert_eq(mig_verify_new(&options, &verify, &err), 0, "%s", err.text);
	mig_verify_round(verify, true, false);
	cr_assert_eq(mig_verify_hash(verify, 0, &err), 0, "%s", err.text);
	cr_assert_eq(mig_verify_settle(verify, &err), 0, "%s", err.text);
	return verify;
}

/* Of which objects the trees differ: a bit each. */
static uint32_t compare_trees(void)
{
	struct mig_verify *here = tree_of(true);
	struct mig_verify *other = tree_of(false);
	uint32_t differ = 0;

	for (uint32_t i = 0; i < plan.object_count; i++) {
		struct mig_digest one = mig_verify_root(here, (uint16_t)i);
		struct mig_digest two = mig_verify_root(other, (uint16_t)i);

		differ |= memcmp(&one, &two, sizeof(one)) != 0 ? 1u << i : 0;
	}
	mig_verify_free(here);
	mig_verify_free(other);
	return differ;
}

static void compare_moved(enum disk_format format)
{
	chain(format);
	move_whole();
	cr_assert_eq(plan.object_count, 3);
	cr_assert_eq(compare_trees(), 0);
	memset(buffer, 9, MIG_SECTOR_BYTES);
	cr_assert_eq(vm_migrate_in_ops.write(in, 1, 6 * MIB / MIG_SECTOR_BYTES, buffer, 1, &err),
		     0);
	cr_assert_eq(compare_trees(), 1u << 1, "a sector of the top image");
	cr_assert_eq(vm_migrate_in_ops.write(in, 2, 128, buffer, 1, &err), 0);
	cr_assert_eq(compare_trees(), 3u << 1, "and one of its parent's file");
}

Test(vm_migrate_disk, images_read_back_as_they_were_vhdx)
{
	compare_moved(DISK_VHDX);
}

Test(vm_migrate_disk, images_read_back_as_they_were_vhd)
{
	compare_moved(DISK_VHD);
}

Test(vm_migrate_disk, images_read_back_as_they_were_raw)
{
	compare_moved(DISK_RAW);
}

/* A parent that the destination had already is read as well. */
Test(vm_migrate_disk, a_file_that_is_there_is_compared)
{
	const struct store_open_options options = { .loop = lab.loop,
						    .align_bytes = MIG_SECTOR_BYTES };
	struct store_file *file = NULL;
	uint64_t epoch = 0;

	chain(DISK_VHDX);
	move_whole();
	cr_assert_eq(vm_migrate_in_finish(in, &err), 0, "%s", err.text);
	vm_migrate_in_keep(in);
	vm_migrate_in_free(in);
	in = NULL;
	cr_assert_eq(store_remove(there, "vm/top", &err), 0);
	plan.flags |= MIG_PLAN_VERIFY;
	cr_assert_eq(destination_new(), 0, "%s", err.text);
	cr_assert_eq(findings.count, 0, "%s", findings.lines[0]);
	cr_assert_eq(compare_trees() & 4u, 0);
	vm_migrate_in_free(in);
	in = NULL;
	cr_assert_eq(store_open(there, "vm/base", &options, &file, &err), 0, "%s", err.text);
	cr_assert_eq(store_acquire(file, STORE_EPOCH_NONE, NULL, &epoch, &err), 0);
	memset(buffer, 7, MIG_SECTOR_BYTES);
	cr_assert_eq(store_do(file, STORE_WRITE, 5 * MIB, buffer, MIG_SECTOR_BYTES, &err), 0, "%s",
		     err.text);
	store_close(file);
	cr_assert_eq(destination_new(), 0, "%s", err.text);
	cr_assert_eq(findings.count, 0, "%s", findings.lines[0]);
	cr_assert_eq(compare_trees() & 4u, 4u, "its content is another");
}

/* --- what is written meanwhile --- */

Test(vm_migrate_disk, what_is_written_between_the_rounds_arrives)
{
	chain(DISK_VHDX);
	move_whole();
	cr_assert_eq(vm_migrate_in_finish(in, &err), 0, "%s", err.text);
	check_same(there);
}

Test(vm_migrate_disk, a_disk_that_has_moved_is_not_there_any_more)
{
	chain(DISK_VHDX);
	move_whole();
	cr_assert_lt(vm_migrate_out_discard(out, false, &err), 0, "it is still written");
	vm_migrate_out_stop(out);
	cr_assert_eq(disk_deactivate(disk, &err), 0);
	cr_assert_eq(vm_migrate_out_discard(out, false, &err), 0, "%s", err.text);
	cr_assert_eq(disk_next_exists(lab.store, lab.loop, "top", &err), 0);
	cr_assert_eq(disk_next_exists(lab.store, lab.loop, "top.moved", &err), 0);
	cr_assert_eq(disk_next_exists(lab.store, lab.loop, "base", &err), 1);
}

Test(vm_migrate_disk, a_disk_that_is_kept_is_not_found_under_its_name)
{
	chain(DISK_VHDX);
	move_whole();
	vm_migrate_out_stop(out);
	cr_assert_eq(disk_deactivate(disk, &err), 0);
	cr_assert_eq(vm_migrate_out_discard(out, true, &err), 0, "%s", err.text);
	cr_assert_eq(disk_next_exists(lab.store, lab.loop, "top", &err), 0);
	cr_assert_eq(disk_next_exists(lab.store, lab.loop, "top.moved", &err), 1);
}

Test(vm_migrate_disk, what_others_may_use_is_not_the_vms_own)
{
	struct vm_migrate_own own[MIG_OBJECTS_MAX];

	chain(DISK_VHDX);
	cr_assert_eq(source_new(), 0, "%s", err.text);
	cr_assert_eq(vm_migrate_out_own(out, own), 1);
	cr_assert_str_eq(own[0].name, "top");
	cr_assert_eq(own[0].store, lab.store);
	vm_migrate_out_free(out);
	out = NULL;
	mig_plan_fini(&plan);
	plan = (struct mig_plan){ .config = NULL };
	plan_begin();
	cr_assert_eq(disk_next_write(lab.store, lab.loop, "base", "top", &err), 0);
	cr_assert_eq(source_new(), 0, "%s", err.text);
	cr_assert_eq(vm_migrate_out_own(out, own), 2, "a checkpoint has made it a parent");
	cr_assert_str_eq(own[1].name, "base");
}

Test(vm_migrate_disk, only_what_is_there_is_sent)
{
	uint64_t bits[SIZE / MIG_GRANULE_BYTES] = { 0 };
	uint64_t all = 0;

	chain(DISK_VHDX);
	cr_assert_eq(source_new(), 0, "%s", err.text);
	cr_assert_eq(vm_migrate_out_ops.harvest(out, 1, true, bits, &err), 0);
	for (uint32_t i = 0; i < SIZE / MIG_GRANULE_BYTES; i++)
		all |= bits[i] & ~(1ULL << (MIB / MIG_GRANULE_BYTES));
	cr_assert_eq(all, 0, "of the top one granule");
	cr_assert_eq(plan.object_count, 3);
}

Test(vm_migrate_disk, a_disk_is_moved_once_at_a_time)
{
	struct vm_migrate_out *first = NULL;

	chain(DISK_VHDX);
	cr_assert_eq(source_new(), 0);
	first = out;
	cr_assert_eq(source_new(), -EBUSY);
	cr_assert(strstr(err.text, "move disk 'top'") != NULL, "%s", err.text);
	vm_migrate_out_stop(first);
	cr_assert_eq(lab_write(disk, 0, 4096, 1), 0);
	out = first;
}

Test(vm_migrate_disk, a_chain_over_two_folders_is_refused)
{
	disk_lab_make(&lab, "base", DISK_VHDX, DISK_DYNAMIC, SIZE, NULL);
	disk_lab_make(&lab, "sub/top", DISK_VHDX, DISK_DIFFERENCING, 0, "base");
	disk = disk_lab_open(&lab, "sub/top");
	cr_assert_eq(source_new(), -EINVAL);
	cr_assert(strstr(err.text, "two folders") != NULL, "%s", err.text);
	cr_assert_eq(disk_checkpoint(disk, "sub/next", &err), 0, "it is not watched any more");
}

/* --- power failures --- */

static void fail_power(enum disk_format base)
{
	struct store *left = NULL;
	enum fake_store_loss losses[] = { FAKE_LOSE_ALL, FAKE_LOSE_SOME, FAKE_LOSE_SECTORS };

	chain(base);
	cr_assert_eq(fake_store_record(there, &err), 0);
	move_whole();
	cr_assert_eq(vm_migrate_in_finish(in, &err), 0, "%s", err.text);
	vm_migrate_out_stop(out);
	for (uint32_t i = 0; i < 3; i++) {
		cr_assert_eq(fake_store_crash(there, fake_store_event_count(there), losses[i], 7,
					      &left, &err),
			     0);
		check_same(left);
		store_free(left);
	}
}

Test(vm_migrate_disk, what_is_finished_survives_a_power_failure_vhdx)
{
	fail_power(DISK_VHDX);
}

Test(vm_migrate_disk, what_is_finished_survives_a_power_failure_vhd)
{
	fail_power(DISK_VHD);
}

Test(vm_migrate_disk, what_is_finished_survives_a_power_failure_raw)
{
	fail_power(DISK_RAW);
}

/* --- objections --- */

static void object_to(const char *text)
{
	for (uint32_t i = 0; i < findings.count; i++)
		if (strstr(findings.lines[i], text) != NULL)
			return;
	cr_assert_fail("%u objections, none '%s': %s", findings.count, text, findings.lines[0]);
}

static void make_there(const char *name)
{
	const struct disk_create_options options = { .format = DISK_RAW,
						     .kind = DISK_DYNAMIC,
						     .size_bytes = 4096 };

	cr_assert_eq(disk_create(there, name, lab.loop, &options, &err), 0, "%s", err.text);
}

Test(vm_migrate_disk, all_objections_at_once)
{
	const struct fake_store_plan full = { .capacity_bytes = 64 * 1024 };

	chain(DISK_VHDX);
	cr_assert_eq(source_new(), 0);
	make_there("vm/top");
	make_there("vm/base.incoming");
	fake_store_set_plan(there, &full);
	cr_assert_eq(destination_new(), 0, "%s", err.text);
	cr_assert_eq(findings.count, 3);
	cr_assert_null(in);
	object_to("image 'vm/top': it exists already");
	object_to("image 'vm/base.incoming': it exists already, left by an earlier move");
	object_to("disk space: the images need");
	cr_assert_eq(files_there(), 2, "nothing else was made");
}

static void say(uint32_t object, const struct vm_image *image)
{
	free(plan.objects[object].description);
	plan.objects[object].description = vm_image_encode(image);
	cr_assert_not_null(plan.objects[object].description);
}

Test(vm_migrate_disk, plans_that_cannot_be_made)
{
	struct vm_image top;
	struct vm_image base;

	chain(DISK_VHDX);
	cr_assert_eq(source_new(), 0);
	cr_assert_eq(vm_image_decode(plan.objects[1].description, &top, &err), 0, "%s", err.text);
	cr_assert_eq(vm_image_decode(plan.objects[2].description, &base, &err), 0, "%s", err.text);
	cr_assert_str_eq(top.name, "top");
	cr_assert_str_eq(top.parent, "base");
	(void)strcpy(base.name, "other"); /* NOLINT: it fits */
	say(2, &base);
	cr_assert_eq(destination_new(), 0);
	object_to("its parent 'base' is not in the plan");
	(void)strcpy(base.name, "top"); /* NOLINT: it fits */
	say(2, &base);
	findings.count = 0;
	cr_assert_eq(destination_new(), 0);
	object_to("two of the plan have this name");
	(void)strcpy(base.name, "base"); /* NOLINT: it fits */
	base.bytes += MIB;
	say(2, &base);
	findings.count = 0;
	cr_assert_eq(destination_new(), 0);
	object_to("sectors by its size");
	base.bytes -= MIB;
	say(2, &base);
	top.block_bytes = 12345;
	say(1, &top);
	findings.count = 0;
	cr_assert_eq(destination_new(), 0);
	object_to("block size 12345");
	cr_assert_eq(files_there(), 0);
	free(plan.objects[1].description);
	plan.objects[1].description = strdup("{}");
	findings.count = 0;
	cr_assert_eq(destination_new(), 0);
	object_to("image of the plan");
}

Test(vm_migrate_disk, a_name_that_is_taken_meanwhile_is_not_replaced)
{
	chain(DISK_VHDX);
	move_whole();
	make_there("vm/top");
	cr_assert_eq(vm_migrate_in_finish(in, &err), -EEXIST);
	vm_migrate_in_free(base_take(&in));
	cr_assert_eq(files_there(), 1, "only that");
}

/* --- a store that fails --- */

Test(vm_migrate_disk, a_full_store_fails_the_move_and_keeps_nothing)
{
	struct fake_store_plan full = { .fail_at = 1,
					.fail_ops = 1U << STORE_WRITE | 1U << STORE_ALLOCATE,
					.fail_code = -ENOSPC,
					.fail_forever = true };

	chain(DISK_VHDX);
	cr_assert_eq(source_new(), 0);
	cr_assert_eq(destination_new(), 0);
	fake_store_set_plan(there, &full);
	cr_assert_eq(ferry(), -ENOSPC, "it does not wait for space");
	vm_migrate_in_free(base_take(&in));
	cr_assert_eq(files_there(), 0);
	cr_assert_eq(lab_write(disk, 0, 4096, 4), 0, "the guest goes on");
}

Test(vm_migrate_disk, a_flush_that_fails_is_no_finish)
{
	chain(DISK_VHDX);
	move_whole();
	for (uint64_t at = 1;; at++) {
		struct fake_store_plan plan_of = { .fail_at = at,
						   .fail_ops = 1U << STORE_FLUSH,
						   .fail_code = -EIO };
		uint64_t made = 0;
		int code = 0;

		fake_store_set_plan(there, &plan_of);
		code = vm_migrate_in_finish(in, &err);
		made = fake_store_request_count(there);
		vm_migrate_in_free(base_take(&in));
		cr_assert_eq(files_there(), 0);
		if (made < at) {
			cr_assert_eq(code, 0, "%s", err.text);
			break;
		}
		cr_assert_eq(code, -EIO);
		/* Again, from the beginning. */
		fake_store_set_plan(there, &(struct fake_store_plan){ 0 });
		vm_migrate_out_free(base_take(&out));
		mig_plan_fini(&plan);
		plan_begin();
		move_whole();
	}
}

/* --- memory --- */

Test(vm_migrate_disk, without_memory_nothing_stays)
{
	chain(DISK_VHDX);
	for (unsigned int k = 0;; k++) {
		int code = 0;

		alloc_fail_at(k);
		code = source_new();
		if (!alloc_fail_done()) {
			cr_assert_eq(code, 0, "%s", err.text);
			break;
		}
		cr_assert_lt(code, 0);
		mig_plan_fini(&plan);
		plan_begin();
	}
	for (unsigned int k = 0;; k++) {
		int code = 0;
		bool failed = false;

		findings.count = 0;
		alloc_fail_at(k);
		code = destination_new();
		failed = alloc_fail_done();
		if (code == 0 && findings.count == 0)
			cr_assert_not_null(in);
		if (!failed)
			break;
		vm_migrate_in_free(base_take(&in));
		cr_assert_eq(files_there(), 0);
	}
	cr_assert_not_null(in);
}

/* --- what a plan says --- */

static struct vm_image example(void)
{
	struct vm_image image = {
		.is_top = true,
		.name = "disk \"1\".vhdx",
		.format = DISK_VHDX,
		.bytes = 5ULL << 40,
		.need_bytes = 12345,
		.data_id = disk_guid_new(),
		.kind = DISK_DIFFERENCING,
		.block_bytes = 2 << 20,
		.logical_sector_bytes = 512,
		.physical_sector_bytes = 4096,
		.id = disk_guid_new(),
		.parent = "base.vhd",
		.parent_format = DISK_VHD,
		.parent_is = { .size_bytes = 5ULL << 40,
			       .logical_sector_bytes = 512,
			       .physical_sector_bytes = 512,
			       .id = disk_guid_new(),
			       .data_id = disk_guid_new() },
	};

	return image;
}

Test(vm_migrate_disk, a_description_says_all)
{
	struct vm_image image = example();
	struct vm_image again;
	char *text = vm_image_encode(&image);
	char *other = NULL;

	cr_assert_not_null(text);
	cr_assert_lt(strlen(text), MIG_DESCRIPTION_BYTES);
	cr_assert_eq(vm_image_decode(text, &again, &err), 0, "%s", err.text);
	other = vm_image_encode(&again);
	cr_assert_str_eq(text, other);
	cr_assert_str_eq(again.name, image.name);
	cr_assert_eq(again.bytes, image.bytes);
	cr_assert(disk_guid_equal(&again.parent_is.data_id, &image.parent_is.data_id));
	free(text);
	free(other);
	image = (struct vm_image){
		.name = "base.img", .format = DISK_RAW, .bytes = 777, .next = "x"
	};
	text = vm_image_encode(&image);
	cr_assert_eq(vm_image_decode(text, &again, &err), 0, "%s", err.text);
	cr_assert(!again.is_top);
	cr_assert_str_eq(again.next, "x");
	free(text);
}

/* @from of the example's text becomes @to; the error names @what. */
static void refused(const char *from, const char *to, const char *what)
{
	struct vm_image image = example();
	char *text = NULL;
	char changed[2048];
	char *at = NULL;

	(void)strcpy(image.name, "n.vhdx"); /* NOLINT: it fits */
	text = vm_image_encode(&image);
	at = strstr(text, from);
	cr_assert_not_null(at, "%s in %s", from, text);
	(void)snprintf(changed, sizeof(changed), "%.*s%s%s", (int)(at - text), text, to,
		       at + strlen(from));
	cr_assert_eq(vm_image_decode(changed, &image, &err), -EBADMSG, "%s", changed);
	cr_assert(strstr(err.text, what) != NULL, "%s: %s", what, err.text);
	free(text);
}

Test(vm_migrate_disk, descriptions_that_cannot_be)
{
	struct vm_image image;

	cr_assert_eq(vm_image_decode("", &image, &err), -EBADMSG);
	cr_assert_eq(vm_image_decode("[]", &image, &err), -EBADMSG);
	refused("n.vhdx", "../n.vhdx", "'name'");
	refused("n.vhdx", "", "'name'");
	refused("n.vhdx", "/n", "'name'");
	refused("n.vhdx", ".n", "'name'");
	refused("n.vhdx", "a\\\\b", "'name'");
	refused("n.vhdx", "a\\nb", "'name'");
	refused("n.vhdx", "a\\u0000b", "image of the plan");
	refused("\"vhdx\"", "\"qcow2\"", "'format'");
	refused("\"vhdx\"", "1", "image of the plan");
	refused("\"bytes\":5497558138880", "\"bytes\":-1", "'bytes'");
	refused("\"bytes\":5497558138880", "\"bytes\":0", "'bytes'");
	refused("\"bytes\":5497558138880", "\"bytes\":511", "'bytes'");
	refused("\"bytes\":5497558138880", "\"bytes\":9223372036854775807", "'bytes'");
	refused("12345", "-1", "'need_bytes'");
	refused("\"next\":\"\"", "\"next\":\"a/b\"", "'next'");
	refused("\"next\":\"\"", "\"next\":\"\",\"more\":1", "image of the plan");
	refused("\"next\":\"\",", "", "image of the plan");
	refused("\"data_id\":\"{", "\"data_id\":\"(", "'data_id'");
	refused("differencing", "round", "'kind'");
	refused("differencing", "fixed", "'parent'");
	refused("2097152", "-5", "'block_bytes'");
	refused("\"physical_sector_bytes\":4096", "\"physical_sector_bytes\":1",
		"'physical_sector_bytes'");
	refused("base.vhd", "a/b", "'parent.name'");
	refused("\"vhd\"", "\"x\"", "'parent.format'");
	refused("\"id\":\"{", "\"id\":\"", "'id'");
}
