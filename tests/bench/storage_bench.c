/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the storage service costs for each request: the test guest's storage client through rings,
 * VMBus, SCSI and disk interface to a store in memory, against the same requests made by the disk
 * interface itself, in turns.  Driver, bus, service and disk share one thread, so the figure is
 * processor time, and no exit of a virtual processor is in it: those are counted beside it.
 *
 *   storage_bench [--quick]
 */
#include <stdio.h>
#include <string.h>

#include "hypervisor/disk/disk.h"
#include "hypervisor/disk/fake_store.h"
#include "hypervisor/storvsp/storvsp.h"
#include "tests/guest/guest_cmdline.h"
#include "tests/support/bench_table.h"
#include "tests/support/guest_host.h"

#define NAME         "bench.vhdx"
#define REGION_BYTES (16ULL << 20)
#define IO_BYTES     4096u
#define DEPTH_MAX    32u
#define EPOCH        7
#define RUNS_MAX     15u

struct direct {
	struct disk_request request;
	struct iovec iov;
	struct bench *bench;
	uint8_t *buffer;
};

struct bench {
	struct guest_host *host;
	struct store *store;
	struct disk *disk;
	struct storvsp *scsi;
	struct direct requests[DEPTH_MAX];
	enum disk_op op;
	uint64_t end_ns, done, random;
	uint32_t in_flight;
};

static uint8_t buffers[DEPTH_MAX][IO_BYTES] __attribute__((aligned(4096)));

static void submit(struct direct *direct);

static void direct_done(struct disk_request *request, int result)
{
	struct direct *direct = request->context;

	if (result < 0)
		base_bug("a request of the benchmark failed");
	direct->bench->done++;
	direct->bench->in_flight--;
	if (bench_now_ns() < direct->bench->end_ns)
		submit(direct);
}

static void submit(struct direct *direct)
{
	struct bench *bench = direct->bench;

	bench->random = bench->random * 6364136223846793005U + 1442695040888963407U;
	direct->iov = (struct iovec){ direct->buffer, IO_BYTES };
	direct->request = (struct disk_request){
		.op = bench->op,
		.offset_bytes = (bench->random >> 33) % (REGION_BYTES / IO_BYTES) * IO_BYTES,
		.length_bytes = IO_BYTES,
		.iov = &direct->iov,
		.iov_count = 1,
		.done = direct_done,
		.context = direct,
	};
	bench->in_flight++;
	disk_submit(bench->disk, &direct->request);
}

/* us for each request of the disk interface alone. */
static double run_direct(struct bench *bench, enum disk_op op, uint32_t depth, uint64_t ms)
{
	uint64_t begin_ns = bench_cpu_ns();

	bench->op = op;
	bench->done = 0;
	bench->end_ns = bench_now_ns() + ms * BASE_NS_PER_MS;
	for (uint32_t i = 0; i < depth; i++)
		submit(&bench->requests[i]);
	while (bench->in_flight != 0)
		(void)base_io_loop_step(guest_host_loop(bench->host), false);
	return (double)(bench_cpu_ns() - begin_ns) / 1000 / (double)bench->done;
}

static void start(struct bench *bench)
{
	const struct disk_create_options make = { .format = DISK_VHDX,
						  .kind = DISK_DYNAMIC,
						  .size_bytes = 4 * REGION_BYTES };
	struct storvsp_options options = { .loop_count = 1, .vcpu_count = 1, .vm_name = "bench" };
	struct storvsp_medium medium = { .kind = STORVSP_DISK, .write_cache = true };
	struct disk_options disk = { .name = NAME };
	struct base_error err = { .code = 0 };

	bench->host = guest_host_new(1, "disk=stamp disk_depth=32 disk_bytes=16M disk_flush=0");
	disk.loop = guest_host_loop(bench->host);
	bench_need(fake_store_new(&bench->store, &err), &err);
	disk.store = bench->store;
	bench_need(disk_create(bench->store, NAME, disk.loop, &make, &err), &err);
	bench_need(disk_open_standby(&disk, &bench->disk, &err), &err);
	bench_need(disk_activate(bench->disk, EPOCH, NULL, &err), &err);
	options.bus = guest_host_bus(bench->host);
	options.slat = guest_host_slat(bench->host);
	options.loops[0] = disk.loop;
	options.instance.bytes[0] = 1;
	bench_need(storvsp_new(&options, &bench->scsi, &err), &err);
	medium.disk = bench->disk;
	bench_need(storvsp_attach(bench->scsi, 0, &medium, &err), &err);
	for (uint32_t i = 0; i < DEPTH_MAX; i++) {
		bench->requests[i].bench = bench;
		bench->requests[i].buffer = buffers[i];
	}
	guest_host_boot(bench->host);
	guest_host_until(bench->host, TESTPAGE_DISK_STATE, TESTPAGE_IO_RUNNING);
}

static void compare(struct bench *bench, bool write, uint32_t depth, bool quick)
{
	static const char *const names[] = { "read", "write" };
	struct bench_series alone = { .count = 0 }, service = { .count = 0 };
	struct bench_series overhead = { .count = 0 }, signals = { .count = 0 };
	struct bench_series interrupts = { .count = 0 };
	uint64_t ms = quick ? 100 : 300;
	char name[64];

	for (uint32_t i = 0; i < (quick ? 5 : RUNS_MAX); i++) {
		uint64_t signals_before = guest_host_get(bench->host, TESTPAGE_HV_SIGNALS);
		uint64_t irqs_before = guest_host_get(bench->host, TESTPAGE_HV_IRQS(0));
		double direct_us = run_direct(bench, write ? DISK_WRITE : DISK_READ, depth, ms);
		uint64_t begin_ns = bench_cpu_ns();
		uint64_t ops = guest_host_command(
			bench->host, TESTPAGE_DISK_BENCH,
			write ? GUEST_DISK_RANDWRITE : GUEST_DISK_RANDREAD, depth, ms);
		double us = (double)(bench_cpu_ns() - begin_ns) / 1000 / (double)ops;

		bench_add(&alone, direct_us);
		bench_add(&service, us);
		bench_add(&overhead, us - direct_us);
		bench_add(&signals, (double)(guest_host_get(bench->host, TESTPAGE_HV_SIGNALS) -
					     signals_before) /
					    (double)ops);
		bench_add(&interrupts,
			  (double)(guest_host_get(bench->host, TESTPAGE_HV_IRQS(0)) - irqs_before) /
				  (double)ops);
	}
	(void)snprintf(name, sizeof(name), "random 4 KiB %s, depth %u", names[write], depth);
	bench_row(name, &service, "us", "disk interface alone %.3f us", bench_median(&alone));
	bench_row("  the service's part, driver included", &overhead, "us", "same requests");
	bench_row("  signals (exits) each", &signals, "exits", "1: one hypercall per request");
	bench_row("  interrupts each", &interrupts, "irqs", "1: one per completion");
}

int main(int argc, char **argv)
{
	bool quick = bench_has_word(argc, argv, "--quick");
	static struct bench bench;

	start(&bench);
	(void)guest_host_command(bench.host, TESTPAGE_IO_STOP, 0, 0, 0);
	bench_title("storage service on a dynamic VHDX in memory, one thread for guest and host");
	/* every block is there before the first figure */
	(void)run_direct(&bench, DISK_WRITE, DEPTH_MAX, 500);
	compare(&bench, false, 1, quick);
	compare(&bench, false, DEPTH_MAX, quick);
	compare(&bench, true, 1, quick);
	compare(&bench, true, DEPTH_MAX, quick);
	return 0;
}
