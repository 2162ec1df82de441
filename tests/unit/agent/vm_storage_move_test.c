/* SPDX-License-Identifier: Apache-2.0 */
/* A disk moves between two folders while its guest writes and reads, through the switch. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/vm_storage_move.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "hypervisor/disk/disk_next.h"
#include "hypervisor/disk/local_store.h"

#define MIB    (1ULL << 20)
#define SIZE   (64 * MIB)
#define RECORD 4096u
#define BLOCKS 4096u /* that the guest uses: 16 MiB */

static char folder[300];
static char paths[2][320];
static struct store *stores[2]; /* from, to */
static struct base_io_loop *loop;
static struct disk *disk;
static struct base_error err;

static void setup(void)
{
	static const char *const names[] = { "from", "to" };

	(void)snprintf(folder, sizeof(folder), "%s/storage-move-XXXXXX", TEST_BINARY_DIR);
	cr_assert_not_null(mkdtemp(folder));
	cr_assert_eq(base_io_loop_new(NULL, &loop, &err), 0);
	cr_assert_eq(base_io_loop_start(loop, "io", &err), 0);
	for (uint32_t i = 0; i < 2; i++) {
		(void)snprintf(paths[i], sizeof(paths[i]), "%s/%s", folder, names[i]);
		cr_assert_eq(mkdir(paths[i], 0700), 0);
		cr_assert_eq(local_store_open(paths[i], NULL, &stores[i], &err), 0);
	}
}

static void teardown(void)
{
	char command[400];

	disk_close(disk);
	store_free(stores[0]);
	store_free(stores[1]);
	base_io_loop_free(loop);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	cr_assert_eq(system(command), 0); /* NOLINT: the test's own path */
}

TestSuite(vm_storage_move, .init = setup, .fini = teardown, .timeout = 200);

static void make(const char *name, enum disk_format format, enum disk_kind kind, const char *parent)
{
	const struct disk_create_options options = {
		.format = format, .kind = kind, .size_bytes = SIZE, .parent = parent
	};

	cr_assert_eq(disk_create(stores[0], name, loop, &options, &err), 0, "%s", err.text);
}

static struct disk *open_at(uint32_t side, const char *name, enum disk_format format)
{
	const struct disk_options options = {
		.store = stores[side], .name = name, .format = format, .loop = loop
	};
	struct disk *opened = NULL;

	cr_assert_eq(disk_open_standby(&options, &opened, &err), 0, "%s", err.text);
	cr_assert_eq(disk_activate(opened, 5, NULL, &err), 0, "%s", err.text);
	return opened;
}

static bool is_there(uint32_t side, const char *name)
{
	return disk_next_exists(stores[side], loop, name, NULL) == 1;
}

/* --- a guest that knows what it wrote --- */

static uint32_t written[BLOCKS];
static atomic_bool over;
static atomic_uint guest_failed;
static atomic_uint_fast64_t guest_writes;

static int guest_io(enum disk_op op, uint32_t block, uint8_t *buffer)
{
	struct base_error why = { 0 };
	int code = disk_do(disk, op, (uint64_t)block * RECORD, buffer, RECORD, &why);

	if (code < 0)
		(void)fprintf(stderr, "guest: %s\n", why.text);
	return code;
}

static bool shows(const uint8_t *buffer, uint32_t block)
{
	return base_get_le32(buffer) == written[block] &&
	       base_get_le32(buffer + RECORD - 4) == written[block] &&
	       (written[block] == 0 || base_get_le32(buffer + 4) == block);
}

static void *guest(void *context)
{
	uint8_t *buffer = aligned_alloc(4096, RECORD);
	uint64_t seed = 7;

	(void)context;
	while (!atomic_load(&over)) {
		uint32_t block = 0;
		int code = 0;

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		block = (uint32_t)(seed >> 40) % BLOCKS;
		code = guest_io(DISK_READ, block, buffer);
		if (code < 0 || !shows(buffer, block))
			atomic_fetch_add(&guest_failed, 1);
		memset(buffer, 0, RECORD);
		base_put_le32(buffer, ++written[block]);
		base_put_le32(buffer + 4, block);
		base_put_le32(buffer + RECORD - 4, written[block]);
		if (guest_io(DISK_WRITE, block, buffer) < 0)
			atomic_fetch_add(&guest_failed, 1);
		atomic_fetch_add(&guest_writes, 1);
	}
	free(buffer);
	return NULL;
}

static void check_all(struct disk *from)
{
	uint8_t *buffer = aligned_alloc(4096, RECORD);

	cr_assert_not_null(buffer);
	for (uint32_t block = 0; block < BLOCKS; block++) {
		cr_assert_eq(
			disk_do(from, DISK_READ, (uint64_t)block * RECORD, buffer, RECORD, &err),
			0);
		cr_assert(shows(buffer, block), "block %u", block);
	}
	free(buffer);
}

/* --- moving --- */

struct watch {
	uint32_t calls;
	uint32_t cancel_at;
};

static int progress(void *context, uint64_t sent_bytes, uint64_t left_bytes)
{
	struct watch *watch = context;
	uint64_t before = atomic_load(&guest_writes);

	(void)sent_bytes;
	(void)left_bytes;
	/* The guest gets on between the rounds. */
	while (!atomic_load(&over) && atomic_load(&guest_writes) < before + 50)
		base_sleep_ns(100000);
	return ++watch->calls == watch->cancel_at ? 1 : 0;
}

static int move(const char *to, uint32_t cancel_at, struct vm_storage_move_report *report)
{
	struct watch watch = { .cancel_at = cancel_at };
	const struct vm_storage_move_options options = { .from = stores[0],
							 .disk = disk,
							 .to = stores[1],
							 .folder = to,
							 .progress = progress,
							 .context = &watch };

	return vm_storage_move(&options, report, &err);
}

static void move_under_a_guest(const char *name, enum disk_format format)
{
	struct vm_storage_move_report report;
	struct disk_geometry was;
	struct disk_geometry is;
	pthread_t thread;
	uint64_t before = 0;

	disk = open_at(0, name, format);
	disk_geometry(disk, &was);
	cr_assert_eq(pthread_create(&thread, NULL, guest, NULL), 0);
	cr_assert_eq(move("", 0, &report), 0, "%s", err.text);
	before = atomic_load(&guest_writes);
	while (atomic_load(&guest_writes) < before + 200 && atomic_load(&guest_failed) == 0)
		base_sleep_ns(1000000);
	atomic_store(&over, true);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(atomic_load(&guest_failed), 0);
	cr_assert_str_eq(report.name, name);
	cr_assert_str_eq(disk_name(disk), name);
	cr_assert_geq(report.rounds, 2);
	cr_assert_eq(disk_epoch(disk), 5);
	disk_geometry(disk, &is);
	cr_assert(disk_guid_equal(&was.id, &is.id));
	check_all(disk);
	cr_assert(!is_there(0, name), "nobody starts from the old one");
	cr_assert(is_there(1, name));
	disk_close(disk);
	disk = open_at(1, name, format);
	check_all(disk);
	/* It is a disk like any other. */
	cr_assert_eq(disk_checkpoint(disk, "later.vhdx", &err), 0, "%s", err.text);
}

Test(vm_storage_move, a_vhdx_goes_on_in_the_other_store)
{
	make("a.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	move_under_a_guest("a.vhdx", DISK_VHDX);
}

Test(vm_storage_move, a_raw_disk_goes_on_in_the_other_store)
{
	make("a.img", DISK_RAW, DISK_DYNAMIC, NULL);
	move_under_a_guest("a.img", DISK_RAW);
}

Test(vm_storage_move, a_chain_goes_on_in_the_other_store)
{
	make("base.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	make("mid.vhdx", DISK_VHDX, DISK_DIFFERENCING, "base.vhdx");
	make("top.vhdx", DISK_VHDX, DISK_DIFFERENCING, "mid.vhdx");
	move_under_a_guest("top.vhdx", DISK_VHDX);
	cr_assert(is_there(0, "base.vhdx"), "others may use it");
	cr_assert(is_there(1, "base.vhdx"));
}

Test(vm_storage_move, cancelled_it_leaves_no_trace)
{
	struct vm_storage_move_report report;
	pthread_t thread;

	make("a.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	for (uint32_t cancel_at = 1; cancel_at <= 2; cancel_at++) {
		disk = open_at(0, "a.vhdx", DISK_VHDX);
		atomic_store(&over, false);
		cr_assert_eq(pthread_create(&thread, NULL, guest, NULL), 0);
		cr_assert_eq(move("", cancel_at, &report), -ECANCELED);
		atomic_store(&over, true);
		cr_assert_eq(pthread_join(thread, NULL), 0);
		cr_assert_eq(atomic_load(&guest_failed), 0);
		cr_assert(!is_there(1, "a.vhdx") && !is_there(1, "a.vhdx.incoming"));
		check_all(disk);
		cr_assert_eq(disk_checkpoint(disk, cancel_at == 1 ? "b.vhdx" : "c.vhdx", &err), 0);
		check_all(disk);
		disk_close(base_take(&disk));
		cr_assert_eq(store_remove(stores[0], "a.vhdx", &err), 0);
		memset(written, 0, sizeof(written));
		make("a.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	}
}

static bool closed(void *context)
{
	(void)context;
	return false;
}

Test(vm_storage_move, without_a_leash_nothing_is_switched)
{
	struct vm_storage_move_report report;
	const struct vm_storage_move_options options = {
		.from = stores[0], .to = stores[1], .folder = "", .gate = { .may_submit = closed }
	};
	struct vm_storage_move_options now = options;

	make("a.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	disk = open_at(0, "a.vhdx", DISK_VHDX);
	now.disk = disk;
	cr_assert_eq(vm_storage_move(&now, &report, &err), -EAGAIN, "%s", err.text);
	cr_assert(is_there(0, "a.vhdx"));
	cr_assert(!is_there(1, "a.vhdx"));
	check_all(disk);
}

Test(vm_storage_move, what_the_store_objects_to_is_said)
{
	struct vm_storage_move_report report;
	const struct disk_create_options options = { .format = DISK_RAW,
						     .kind = DISK_DYNAMIC,
						     .size_bytes = 4096 };

	make("a.vhdx", DISK_VHDX, DISK_DYNAMIC, NULL);
	cr_assert_eq(disk_create(stores[1], "a.vhdx", loop, &options, &err), 0);
	disk = open_at(0, "a.vhdx", DISK_VHDX);
	atomic_store(&over, true);
	cr_assert_eq(move("", 0, &report), -EINVAL);
	cr_assert(strstr(err.text, "exists already") != NULL, "%s", err.text);
	cr_assert(strstr(err.text, "storage of disk 'a.vhdx'") != NULL, "%s", err.text);
}
