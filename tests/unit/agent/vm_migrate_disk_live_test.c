/* SPDX-License-Identifier: Apache-2.0 */
/* Disks move between two folders, over channels, while a guest writes to them. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "hypervisor/disk/disk_next.h"
#include "hypervisor/disk/local_store.h"
#include "tests/support/disk_mover.h"

#define MIB      (1ULL << 20)
#define SIZE     (96 * MIB)
#define CHANNELS 3u
#define RECORD   4096u
#define PIECE    (1u << 20)

static char folder[300];
static char paths[2][320];
static char command[1000];
static struct store *stores[2]; /* from, to */
static struct base_io_loop *loop;
static struct disk_mover mover;
static struct base_error err;
static uint8_t *pieces[2];

static void setup(void)
{
	static const char *const names[] = { "from", "to" };

	(void)snprintf(folder, sizeof(folder), "%s/disk-move-XXXXXX", TEST_BINARY_DIR);
	cr_assert_not_null(mkdtemp(folder));
	cr_assert_eq(base_io_loop_new(NULL, &loop, &err), 0);
	cr_assert_eq(base_io_loop_start(loop, "io", &err), 0);
	for (uint32_t i = 0; i < 2; i++) {
		(void)snprintf(paths[i], sizeof(paths[i]), "%s/%s", folder, names[i]);
		cr_assert_eq(mkdir(paths[i], 0700), 0);
		cr_assert_eq(local_store_open(paths[i], NULL, &stores[i], &err), 0);
		pieces[i] = aligned_alloc(4096, PIECE);
		cr_assert_not_null(pieces[i]);
	}
}

static void teardown(void)
{
	for (uint32_t i = 0; i < 2; i++) {
		store_free(stores[i]);
		free(pieces[i]);
	}
	base_io_loop_free(loop);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	cr_assert_eq(system(command), 0); /* NOLINT: the test's own path */
}

TestSuite(vm_migrate_disk_live, .init = setup, .fini = teardown, .timeout = 280);

/* --- images --- */

static void make(const char *name, enum disk_format format, enum disk_kind kind, const char *parent)
{
	const struct disk_create_options options = {
		.format = format, .kind = kind, .size_bytes = SIZE, .parent = parent
	};

	cr_assert_eq(disk_create(stores[0], name, loop, &options, &err), 0, "%s", err.text);
}

static struct disk *open_at(uint32_t side, const char *name, enum disk_format format, bool active)
{
	const struct disk_options options = {
		.store = stores[side], .name = name, .format = format, .loop = loop
	};
	struct disk *disk = NULL;

	cr_assert_eq(disk_open_standby(&options, &disk, &err), 0, "%s", err.text);
	if (active)
		cr_assert_eq(disk_activate(disk, 5, NULL, &err), 0, "%s", err.text);
	return disk;
}

/* A record says where it belongs and which one it is. */
static void write_record(struct disk *disk, uint64_t offset_bytes, uint32_t number, void *buffer)
{
	struct base_error why = { 0 };

	for (uint32_t at = 0; at < RECORD; at += 16) {
		base_put_le64((uint8_t *)buffer + at, offset_bytes + at);
		base_put_le64((uint8_t *)buffer + at + 8, number);
	}
	cr_assert_eq(disk_do(disk, DISK_WRITE, offset_bytes, buffer, RECORD, &why), 0, "%s",
		     why.text);
}

static void fill(const char *name, enum disk_format format, uint64_t from, uint64_t to,
		 uint64_t step)
{
	struct disk *disk = open_at(0, name, format, true);

	for (uint64_t at = from; at < to; at += step)
		write_record(disk, at, 1, pieces[0]);
	disk_close(disk);
}

/* --- the guest --- */

struct guest {
	struct disk *disk;
	atomic_bool over;
	uint64_t writes;
	pthread_t thread;
};

static void *guest_run(void *context)
{
	struct guest *guest = context;
	uint64_t seed = 99;
	void *buffer = aligned_alloc(4096, RECORD);

	while (!atomic_load(&guest->over)) {
		uint64_t at = 0;

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		/* Mostly in a part that the first round has, sometimes anywhere. */
		at = (seed >> 40) % (seed % 5 == 0 ? SIZE / RECORD : 2048) * RECORD;
		if ((seed >> 30) % 16 == 3)
			cr_assert_eq(disk_do(guest->disk, DISK_ZERO, at, NULL, RECORD, NULL), 0);
		else
			write_record(guest->disk, at, (uint32_t)++guest->writes, buffer);
	}
	free(buffer);
	return NULL;
}

static void guest_start(struct guest *guest, struct disk *disk)
{
	*guest = (struct guest){ .disk = disk };
	cr_assert_eq(pthread_create(&guest->thread, NULL, guest_run, guest), 0);
}

static void guest_stop(struct guest *guest)
{
	atomic_store(&guest->over, true);
	cr_assert_eq(pthread_join(guest->thread, NULL), 0);
}

/* --- moving --- */

static void mover_start(struct disk *disk, bool read_only)
{
	const struct vm_migrate_from from = { .store = stores[0],
					      .disk = disk,
					      .read_only = read_only };
	const struct disk_mover_options options = { .disks = &from,
						    .disk_count = 1,
						    .store = stores[1],
						    .folder = "",
						    .loop = loop,
						    .channel_count = CHANNELS };

	cr_assert_eq(disk_mover_init(&mover, &options, &err), 0, "%s", err.text);
	cr_assert_eq(mover.findings->count, 0, "%s", mover.findings->lines[0]);
}

static void go(bool last)
{
	cr_assert_eq(disk_mover_round(&mover, last, NULL, &err), 0, "%s", err.text);
}

static uint32_t files_in(uint32_t side, const char *suffix)
{
	DIR *dir = opendir(paths[side]);
	const struct dirent *entry = NULL;
	uint32_t count = 0;

	cr_assert_not_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		size_t length = strlen(entry->d_name);

		if (entry->d_name[0] != '.' && length >= strlen(suffix) &&
		    strcmp(entry->d_name + length - strlen(suffix), suffix) == 0)
			count++;
	}
	(void)closedir(dir);
	return count;
}

static void check_same(struct disk *from, const char *name, enum disk_format format)
{
	struct disk *to = open_at(1, name, format, true);
	struct disk_geometry was;
	struct disk_geometry is;

	disk_geometry(from, &was);
	disk_geometry(to, &is);
	cr_assert_eq(was.size_bytes, is.size_bytes);
	cr_assert_eq(was.logical_sector_bytes, is.logical_sector_bytes);
	cr_assert_eq(was.physical_sector_bytes, is.physical_sector_bytes);
	cr_assert(disk_guid_equal(&was.id, &is.id));
	for (uint64_t at = 0; at < SIZE; at += PIECE) {
		cr_assert_eq(disk_do(from, DISK_READ, at, pieces[0], PIECE, &err), 0);
		cr_assert_eq(disk_do(to, DISK_READ, at, pieces[1], PIECE, &err), 0, "%s", err.text);
		for (uint32_t i = 0; i < PIECE; i += RECORD)
			cr_assert_arr_eq(pieces[0] + i, pieces[1] + i, RECORD, "at %llu",
					 (unsigned long long)(at + i));
	}
	disk_close(to);
}

/* Four rounds while a guest writes, then the last one. */
static void move(const char *name, enum disk_format format)
{
	struct disk *disk = open_at(0, name, format, true);
	struct disk_layer_info was;
	struct disk_layer_info is;
	struct disk *to = NULL;
	struct guest guest;

	mover_start(disk, false);
	guest_start(&guest, disk);
	for (uint32_t i = 0; i < 4; i++)
		go(false);
	guest_stop(&guest);
	go(true);
	cr_assert(mig_intake_is_whole(mover.intake));
	cr_assert_eq(files_in(1, ""), files_in(1, ".incoming"));
	vm_migrate_out_stop(mover.out);
	cr_assert_eq(vm_migrate_in_finish(mover.in, &err), 0, "%s", err.text);
	cr_assert_eq(files_in(1, ".incoming"), 0);
	to = open_at(1, name, format, false);
	cr_assert_eq(disk_layer(disk, 0, &was, &err), 0);
	cr_assert_eq(disk_layer(to, 0, &is, &err), 0);
	cr_assert(disk_guid_equal(&was.data_id, &is.data_id), "a saved state fits");
	cr_assert_eq(was.block_bytes, is.block_bytes);
	cr_assert_eq(was.kind, is.kind);
	cr_assert_str_eq(was.parent, is.parent);
	disk_close(to);
	vm_migrate_in_keep(mover.in);
	disk_mover_fini(&mover);
	check_same(disk, name, format);
	disk_close(disk);
}

Test(vm_migrate_disk_live, a_dynamic_vhdx)
{
	make("a.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	fill("a.vhdx", DISK_VHDX, 0, 8 * MIB, 12288);
	move("a.vhdx", DISK_VHDX);
}

Test(vm_migrate_disk_live, a_fixed_vhdx)
{
	make("a.vhdx", DISK_VHDX, DISK_FIXED, NULL);
	fill("a.vhdx", DISK_VHDX, 0, 8 * MIB, 12288);
	move("a.vhdx", DISK_VHDX);
}

Test(vm_migrate_disk_live, a_dynamic_vhd)
{
	make("a.vhd", DISK_VHD, DISK_DYNAMIC, NULL);
	fill("a.vhd", DISK_VHD, 0, 8 * MIB, 12288);
	move("a.vhd", DISK_VHD);
}

Test(vm_migrate_disk_live, a_fixed_vhd)
{
	make("a.vhd", DISK_VHD, DISK_FIXED, NULL);
	fill("a.vhd", DISK_VHD, 0, 8 * MIB, 12288);
	move("a.vhd", DISK_VHD);
}

Test(vm_migrate_disk_live, a_sparse_raw_disk)
{
	make("a.img", DISK_RAW, DISK_DYNAMIC, NULL);
	fill("a.img", DISK_RAW, 0, 8 * MIB, 12288);
	move("a.img", DISK_RAW);
}

Test(vm_migrate_disk_live, a_chain_of_three_vhdx)
{
	make("base.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	fill("base.vhdx", DISK_VHDX, 0, 40 * MIB, 65536);
	make("mid.vhdx", DISK_VHDX, DISK_DIFFERENCING, "base.vhdx");
	fill("mid.vhdx", DISK_VHDX, 4096, 20 * MIB, 131072);
	make("top.vhdx", DISK_VHDX, DISK_DIFFERENCING, "mid.vhdx");
	fill("top.vhdx", DISK_VHDX, 8192, 10 * MIB, 65536);
	move("top.vhdx", DISK_VHDX);
	cr_assert_eq(files_in(1, ".vhdx"), 3);
}

Test(vm_migrate_disk_live, a_chain_of_three_vhd)
{
	make("base.vhd", DISK_VHD, DISK_DYNAMIC, NULL);
	fill("base.vhd", DISK_VHD, 0, 40 * MIB, 65536);
	make("mid.vhd", DISK_VHD, DISK_DIFFERENCING, "base.vhd");
	fill("mid.vhd", DISK_VHD, 4096, 20 * MIB, 131072);
	make("top.vhd", DISK_VHD, DISK_DIFFERENCING, "mid.vhd");
	fill("top.vhd", DISK_VHD, 8192, 10 * MIB, 65536);
	move("top.vhd", DISK_VHD);
}

Test(vm_migrate_disk_live, a_chain_on_a_raw_file_that_ends_within_a_sector)
{
	FILE *file = NULL;

	(void)snprintf(command, sizeof(command), "%s/base.img", paths[0]);
	file = fopen(command, "w");
	cr_assert_not_null(file);
	cr_assert_eq(fseek(file, (long)(SIZE - 700), SEEK_SET), 0);
	cr_assert_gt(fputs("the end", file), 0);
	cr_assert_eq(fclose(file), 0);
	make("top.vhdx", DISK_VHDX, DISK_DIFFERENCING, "base.img");
	move("top.vhdx", DISK_VHDX);
	(void)snprintf(command, sizeof(command), "cmp '%s/base.img' '%s/base.img'", paths[0],
		       paths[1]);
	cr_assert_eq(system(command), 0); /* NOLINT: the test's own path */
}

/* --- what is not there --- */

Test(vm_migrate_disk_live, unmapped_stays_unmapped)
{
	struct disk *disk = NULL;
	struct disk *to = NULL;
	struct disk_layer_info info;
	struct disk_extent extents[64];
	struct disk_request map = {
		.op = DISK_MAP, .length_bytes = SIZE, .extents = extents, .extent_capacity = 64
	};

	make("a.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL); /* blocks of 32 MiB */
	disk = open_at(0, "a.vhdx", DISK_VHDX, true);
	for (uint64_t at = 0; at < 64 * MIB; at += MIB)
		write_record(disk, at, 1, pieces[0]);
	mover_start(disk, false);
	go(false);
	/* One whole block goes, of another one a part; the third was never there. */
	cr_assert_eq(disk_do(disk, DISK_UNMAP, 0, NULL, 32 * MIB, &err), 0);
	cr_assert_eq(disk_do(disk, DISK_ZERO, 40 * MIB, NULL, 3 * MIB, &err), 0);
	go(true);
	vm_migrate_out_stop(mover.out);
	cr_assert_eq(vm_migrate_in_finish(mover.in, &err), 0, "%s", err.text);
	vm_migrate_in_keep(mover.in);
	cr_assert_gt(mig_image_counts(mover.image).unmap_bytes, 31 * MIB);
	disk_mover_fini(&mover);
	check_same(disk, "a.vhdx", DISK_VHDX);
	disk_close(disk);
	to = open_at(1, "a.vhdx", DISK_VHDX, false);
	cr_assert_eq(disk_do_request(to, &map, &err), 0);
	cr_assert_eq(map.extent_count, 3);
	cr_assert_eq(extents[0].kind, DISK_EXTENT_UNMAPPED);
	cr_assert_eq(extents[0].length_bytes, 32 * MIB);
	cr_assert_eq(extents[1].kind, DISK_EXTENT_DATA);
	cr_assert_eq(extents[2].kind, DISK_EXTENT_UNMAPPED);
	cr_assert_eq(disk_layer(to, 0, &info, &err), 0);
	disk_close(to);
}

/* --- ends that are none --- */

Test(vm_migrate_disk_live, cancelled_it_leaves_nothing_there_and_the_guest_where_it_was)
{
	struct disk *disk = NULL;

	make("base.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	fill("base.vhdx", DISK_VHDX, 0, 8 * MIB, 65536);
	make("top.vhdx", DISK_VHDX, DISK_DIFFERENCING, "base.vhdx");
	disk = open_at(0, "top.vhdx", DISK_VHDX, true);
	mover_start(disk, false);
	go(false);
	cr_assert_eq(files_in(1, ""), 2);
	cr_assert_eq(disk_checkpoint(disk, "next.vhdx", &err), -EBUSY);
	disk_mover_fini(&mover);
	cr_assert_eq(files_in(1, ""), 0);
	write_record(disk, 0, 7, pieces[0]);
	cr_assert_eq(disk_checkpoint(disk, "next.vhdx", &err), 0, "%s", err.text);
	disk_close(disk);
}

Test(vm_migrate_disk_live, left_after_it_was_whole_it_leaves_nothing_either)
{
	struct disk *disk = NULL;

	make("base.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	make("top.vhdx", DISK_VHDX, DISK_DIFFERENCING, "base.vhdx");
	cr_assert_eq(disk_next_write(stores[0], loop, "base.vhdx", "top.vhdx", &err), 0);
	disk = open_at(0, "top.vhdx", DISK_VHDX, true);
	mover_start(disk, false);
	go(false);
	go(true);
	cr_assert_eq(vm_migrate_in_finish(mover.in, &err), 0, "%s", err.text);
	cr_assert_eq(disk_next_check(stores[1], loop, "base.vhdx", &err), -EPROTO,
		     "a checkpoint's past is marked there as well");
	disk_mover_fini(&mover);
	cr_assert_eq(files_in(1, ""), 0);
	cr_assert_eq(disk_next_check(stores[1], loop, "base.vhdx", &err), 0);
	disk_close(disk);
}

Test(vm_migrate_disk_live, a_damaged_byte_ends_it)
{
	struct disk *disk = NULL;

	make("a.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	fill("a.vhdx", DISK_VHDX, 0, 8 * MIB, 65536);
	disk = open_at(0, "a.vhdx", DISK_VHDX, true);
	mover_start(disk, false);
	atomic_store(&mover.damage, 1);
	cr_assert_eq(disk_mover_round(&mover, false, NULL, &err), -EBADMSG);
	cr_assert(strstr(err.text, "checksum") != NULL, "%s", err.text);
	disk_mover_fini(&mover);
	cr_assert_eq(files_in(1, ""), 0);
	disk_close(disk);
}

Test(vm_migrate_disk_live, a_parent_that_came_before_is_used)
{
	struct disk *disk = NULL;

	make("base.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	fill("base.vhdx", DISK_VHDX, 0, 8 * MIB, 65536);
	make("top.vhdx", DISK_VHDX, DISK_DIFFERENCING, "base.vhdx");
	(void)snprintf(command, sizeof(command), "cp '%s/base.vhdx' '%s/'", paths[0], paths[1]);
	cr_assert_eq(system(command), 0); /* NOLINT: the test's own path */
	disk = open_at(0, "top.vhdx", DISK_VHDX, true);
	mover_start(disk, false);
	go(false);
	go(true);
	cr_assert_eq(vm_migrate_in_finish(mover.in, &err), 0, "%s", err.text);
	disk_mover_fini(&mover);
	cr_assert_eq(files_in(1, ".vhdx"), 1, "it is not this move's to remove");
	disk_close(disk);
}

Test(vm_migrate_disk_live, a_disk_that_is_only_read_goes_as_its_file)
{
	struct disk *disk = NULL;

	make("a.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	fill("a.vhdx", DISK_VHDX, 0, 8 * MIB, 65536);
	disk = open_at(0, "a.vhdx", DISK_VHDX, false);
	mover_start(disk, true);
	go(false);
	go(true);
	cr_assert_eq(vm_migrate_in_finish(mover.in, &err), 0, "%s", err.text);
	vm_migrate_in_keep(mover.in);
	disk_mover_fini(&mover);
	(void)snprintf(command, sizeof(command), "cmp '%s/a.vhdx' '%s/a.vhdx'", paths[0], paths[1]);
	cr_assert_eq(system(command), 0); /* NOLINT: the test's own path */
	disk_close(disk);
}
