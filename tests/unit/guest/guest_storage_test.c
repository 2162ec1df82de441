/* SPDX-License-Identifier: Apache-2.0 */
/* The test guest's storage client on the real bus, storage service and VHDX, over a store that
 * delays and reorders.  One thread, no KVM. */
#include <criterion/criterion.h>
#include <string.h>

#include "hypervisor/disk/disk.h"
#include "hypervisor/disk/fake_store.h"
#include "hypervisor/storvsp/storvsp.h"
#include "tests/support/guest_host.h"

#define NAME       "a.vhdx"
#define DISK_BYTES (64ULL << 20)
#define EPOCH      7

static struct guest_host *host;
static struct store *store;
static struct disk *disk;
static struct storvsp *scsi;

static void make_disk(uint64_t seed)
{
	const struct disk_create_options make = { .format = DISK_VHDX,
						  .kind = DISK_DYNAMIC,
						  .size_bytes = DISK_BYTES };
	const struct fake_store_plan plan = {
		.seed = seed, .reorder = true, .delay_steps = 3, .garbage_buffers = true
	};
	struct disk_options options = { .name = NAME, .loop = guest_host_loop(host) };
	struct base_error err = { .code = 0 };

	cr_assert_geq(fake_store_new(&store, &err), 0);
	options.store = store;
	cr_assert_geq(disk_create(store, NAME, options.loop, &make, &err), 0, "%s", err.text);
	fake_store_set_plan(store, &plan);
	cr_assert_geq(disk_open_standby(&options, &disk, &err), 0, "%s", err.text);
	cr_assert_geq(disk_activate(disk, EPOCH, NULL, &err), 0, "%s", err.text);
}

static void add_controller(uint32_t vcpus)
{
	struct base_error err = { .code = 0 };
	struct storvsp_options options = { .loop_count = 1,
					   .vcpu_count = vcpus,
					   .instance = { .bytes = { 5, 5, 5 } },
					   .vm_name = "test" };
	struct storvsp_medium medium = { .kind = STORVSP_DISK, .write_cache = true };

	options.bus = guest_host_bus(host);
	options.slat = guest_host_slat(host);
	options.loops[0] = guest_host_loop(host);
	cr_assert_geq(storvsp_new(&options, &scsi, &err), 0, "%s", err.text);
	medium.disk = disk;
	cr_assert_geq(storvsp_attach(scsi, 0, &medium, &err), 0, "%s", err.text);
}

static void start(uint32_t vcpus, const char *cmdline, uint64_t seed)
{
	host = guest_host_new(vcpus, cmdline);
	make_disk(seed);
	add_controller(vcpus);
	guest_host_boot(host);
	guest_host_until(host, TESTPAGE_DISK_STATE, TESTPAGE_IO_RUNNING);
}

static void stop(void)
{
	struct base_error err = { .code = 0 };

	cr_assert_eq(guest_host_bad(host), 0);
	cr_assert_geq(storvsp_detach(scsi, 0, &err), 0, "%s", err.text);
	storvsp_free(scsi);
	cr_assert_geq(disk_deactivate(disk, &err), 0, "%s", err.text);
	disk_close(disk);
	guest_host_free(host);
	store_free(store);
}

static uint64_t verify(void)
{
	return guest_host_command(host, TESTPAGE_DISK_VERIFY, 0, 0, 0);
}

static void stamped_load(uint32_t vcpus, const char *cmdline)
{
	for (uint64_t writes = 500; writes <= 2000; writes += 500) {
		if (writes == 500)
			start(vcpus, cmdline, vcpus);
		guest_host_until(host, TESTPAGE_DISK_WRITES, writes);
		cr_assert_eq(verify(), 0);
		(void)guest_host_command(host, TESTPAGE_IO_START, 0, 0, 0);
	}
	cr_assert_gt(guest_host_get(host, TESTPAGE_DISK_FLUSHES), 0);
	cr_assert_eq(guest_host_get(host, TESTPAGE_DISK_ERRORS), 0);
	(void)guest_host_command(host, TESTPAGE_IO_STOP, 0, 0, 0);
	stop();
}

Test(guest_storage, records_are_where_they_were_put)
{
	stamped_load(1, "disk=stamp disk_bytes=4M disk_depth=1");
}

Test(guest_storage, with_much_in_flight)
{
	stamped_load(1, "disk=stamp disk_bytes=4M disk_depth=32 disk_io=64K disk_flush=16");
}

Test(guest_storage, with_a_channel_for_each_vcpu)
{
	stamped_load(4, "disk=stamp disk_bytes=8M disk_depth=32 disk_io=16K");
}

/* Closing over what is in flight: whatever it did, no record is older than acknowledged. */
static void reopens(uint32_t vcpus, uint64_t hard)
{
	uint64_t writes = 0;

	start(vcpus, "disk=stamp disk_bytes=4M disk_depth=16 disk_io=16K disk_reads=10", hard);
	for (int i = 0; i < 5; i++) {
		writes = guest_host_get(host, TESTPAGE_DISK_WRITES);
		guest_host_until(host, TESTPAGE_DISK_WRITES, writes + 100);
		(void)guest_host_command(host, TESTPAGE_DISK_REOPEN, hard, 0, 0);
		cr_assert_eq(verify(), 0);
		(void)guest_host_command(host, TESTPAGE_IO_START, 0, 0, 0);
	}
	(void)guest_host_command(host, TESTPAGE_IO_STOP, 0, 0, 0);
	stop();
}

Test(guest_storage, close_and_open_again)
{
	reopens(1, 0);
}

Test(guest_storage, close_over_what_is_in_flight)
{
	reopens(1, 1);
}

Test(guest_storage, close_and_open_again_with_sub_channels)
{
	reopens(3, 0);
}

Test(guest_storage, close_over_what_is_in_flight_with_sub_channels)
{
	reopens(3, 1);
}

#define SECTIONS_MAX 64u

/* The sections of one service. */
static uint32_t save_all(const struct hv_service_ops *ops, void *service,
			 struct base_buffer sections[SECTIONS_MAX])
{
	uint32_t count = ops->section_count(service);
	struct base_error err = { .code = 0 };

	cr_assert_leq(count, SECTIONS_MAX);
	for (uint32_t i = 0; i < count; i++)
		cr_assert_geq(ops->save(service, i, &sections[i], &err), 0, "%s", err.text);
	return count;
}

static void load_all(const struct hv_service_ops *ops, void *service,
		     struct base_buffer sections[SECTIONS_MAX], uint32_t count)
{
	struct base_error err = { .code = 0 };

	for (uint32_t i = 0; i < count; i++) {
		struct base_reader in = base_reader_over(sections[i].data, sections[i].size_bytes);

		cr_assert_geq(ops->load(service, i, ops->section(service, i).version, &in, &err), 0,
			      "%s", err.text);
		base_buffer_fini(&sections[i]);
	}
}

/* As the machine does it: the bus first, and the last when it goes on. */
static void save_and_restore(uint32_t vcpus)
{
	static struct base_buffer bus_sections[SECTIONS_MAX], scsi_sections[SECTIONS_MAX];
	struct base_error err = { .code = 0 };
	uint32_t bus_count, scsi_count;

	memset(bus_sections, 0, sizeof(bus_sections));
	memset(scsi_sections, 0, sizeof(scsi_sections));
	cr_assert_geq(vmbus_service_ops.quiesce(guest_host_bus(host), &err), 0, "%s", err.text);
	cr_assert_geq(storvsp_service_ops.quiesce(scsi, &err), 0, "%s", err.text);
	bus_count = save_all(&vmbus_service_ops, guest_host_bus(host), bus_sections);
	scsi_count = save_all(&storvsp_service_ops, scsi, scsi_sections);
	storvsp_free(scsi);
	guest_host_new_bus(host);
	add_controller(vcpus);
	cr_assert_geq(vmbus_service_ops.quiesce(guest_host_bus(host), &err), 0, "%s", err.text);
	cr_assert_geq(storvsp_service_ops.quiesce(scsi, &err), 0, "%s", err.text);
	load_all(&vmbus_service_ops, guest_host_bus(host), bus_sections, bus_count);
	load_all(&storvsp_service_ops, scsi, scsi_sections, scsi_count);
	cr_assert_geq(vmbus_service_ops.loaded(guest_host_bus(host), &err), 0, "%s", err.text);
	cr_assert_geq(storvsp_service_ops.loaded(scsi, &err), 0, "%s", err.text);
	storvsp_service_ops.resume(scsi);
	vmbus_service_ops.resume(guest_host_bus(host));
}

static void saves(uint32_t vcpus)
{
	start(vcpus, "disk=stamp disk_bytes=4M disk_depth=16 disk_io=16K", vcpus);
	for (int i = 0; i < 20; i++) {
		uint64_t writes = guest_host_get(host, TESTPAGE_DISK_WRITES);

		guest_host_until(host, TESTPAGE_DISK_WRITES, writes + 37);
		save_and_restore(vcpus);
	}
	cr_assert_eq(verify(), 0);
	stop();
}

Test(guest_storage, saved_and_restored_under_load)
{
	saves(1);
}

Test(guest_storage, saved_and_restored_under_load_with_sub_channels)
{
	saves(3);
}

/* The ledger that the guest leaves behind, against the disk itself. */
Test(guest_storage, the_disk_holds_what_the_ledger_says)
{
	uint64_t at, records;
	struct base_error err = { .code = 0 };
	uint64_t record[512] __attribute__((aligned(4096)));

	start(2, "disk=stamp disk_bytes=4M disk_depth=8", 3);
	guest_host_until(host, TESTPAGE_DISK_WRITES, 1500);
	(void)guest_host_command(host, TESTPAGE_IO_STOP, 0, 0, 0);
	at = guest_host_get(host, TESTPAGE_DISK_LEDGER);
	records = guest_host_get(host, TESTPAGE_DISK_RECORDS);
	cr_assert_eq(records, 1024);
	for (uint64_t i = 0; i < records; i++) {
		uint32_t entry[6];

		cr_assert_eq(hv_slat_read(guest_host_slat(host), at + i * sizeof(entry), entry,
					  sizeof(entry)),
			     0);
		cr_assert_geq(
			disk_do(disk, DISK_READ, i * sizeof(record), record, sizeof(record), &err),
			0, "%s", err.text);
		cr_assert_eq(record[2], entry[0], "record %lu", i);
		cr_assert_leq(entry[2], entry[0]);
	}
	stop();
}
