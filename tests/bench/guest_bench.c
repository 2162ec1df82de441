/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test guest in a machine of KVM: what a hypercall costs, requests of 4 KiB through the
 * storage service and datagrams through the network service as the guest sees them, and how many
 * exits to the worker each takes.  Beside each what it cannot be better than, in turns: a port
 * that nobody has, the disk interface alone on its own thread.
 *
 *   guest_bench [--quick]
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "hypervisor/host_probe.h"
#include "tests/guest/guest_cmdline.h"
#include "tests/guest/guest_inet.h"
#include "tests/support/bench_table.h"
#include "tests/support/guest_rig.h"

#define IO_BYTES     4096u
#define REGION_BYTES (16ULL << 20)
#define DEPTH_MAX    32u
#define RUNS_MAX     11u
#define FRAME_BYTES  2048u
#define NOBODYS_PORT 0x5du
#define ECHO_NS      (5 * BASE_NS_PER_SECOND) /* one that takes longer is lost */
#define SKIPPED      77
#define QUIET        "ws=1M rate=10 verify=10 report=0 idle=halt "

struct direct {
	struct disk_request request;
	struct iovec iov;
	struct bench *bench;
	uint8_t *buffer;
};

struct bench {
	struct guest_rig rig;
	uint32_t runs;
	uint64_t ms;

	/* The disk interface alone: on the loop's thread. */
	struct direct requests[DEPTH_MAX];
	enum disk_op op;
	uint32_t depth, in_flight;
	uint64_t begin_ns, end_ns, last_ns, done, random;
	bool is_over;

	struct guest_inet peer;
	uint8_t frame[GUEST_RIG_VNET_BYTES + FRAME_BYTES];
};

static uint8_t buffers[DEPTH_MAX][IO_BYTES] __attribute__((aligned(4096)));

/* --- exits --- */

struct counts {
	uint64_t exits, hypercalls, interrupts; /* exits: but for the test page's */
};

static struct counts counts_of(const struct guest_rig *rig)
{
	struct hv_machine_status status;

	hv_machine_status(guest_vm_machine(rig->vm), &status);
	return (struct counts){ .exits = status.exits.total - status.exits.mmio,
				.hypercalls = status.exits.hypercalls,
				.interrupts = guest_vm_get(rig->vm, TESTPAGE_HV_IRQS(0)) };
}

struct series {
	struct bench_series us, limit, exits, hypercalls, interrupts;
};

static void add_counts(struct series *series, const struct counts *before,
		       const struct counts *after, uint64_t each)
{
	bench_add(&series->exits, (double)(after->exits - before->exits) / (double)each);
	bench_add(&series->hypercalls,
		  (double)(after->hypercalls - before->hypercalls) / (double)each);
	bench_add(&series->interrupts,
		  (double)(after->interrupts - before->interrupts) / (double)each);
}

static void print_counts(const struct series *series)
{
	bench_row("  exits each", &series->exits, "exits",
		  "all kinds but MMIO: that is the test page");
	bench_row("  hypercalls each", &series->hypercalls, "exits", "of them");
	bench_row("  interrupts each", &series->interrupts, "irqs", "no exits of their own");
}

/* --- hypercalls --- */

static double calls(const struct guest_rig *rig, enum testpage_call kind, uint64_t count)
{
	uint64_t taken = guest_vm_command(rig->vm, TESTPAGE_CALL_LOOP, count, kind, NOBODYS_PORT);

	if (taken != (kind == TESTPAGE_CALL_PAGE ? count : 0))
		base_bug("%llu hypercalls were taken", (unsigned long long)taken);
	return (double)guest_vm_get(rig->vm, TESTPAGE_CALL_NS) / 1000 / (double)count;
}

/* The other machine stands still meanwhile. */
static void compare_calls(struct bench *bench)
{
	struct guest_rig asked = { .vcpus = 1,
				   .cmdline = QUIET "hv=on",
				   .registers_by_call = true };
	static struct bench_series with_exit, by_call, port, ratio;
	/* short and often: then a neighbour of ours is a neighbour of all three */
	uint64_t count = bench->ms;

	if (!guest_rig_setup(&asked))
		return;
	guest_rig_until(&asked, TESTPAGE_HV_VERSION, 1);
	for (uint32_t i = 0; i < 10 * bench->runs; i++) {
		double us[3];

		guest_vm_pause(asked.vm);
		us[0] = calls(&bench->rig, TESTPAGE_CALL_STRAY, count);
		us[1] = calls(&bench->rig, TESTPAGE_CALL_PAGE, count);
		guest_vm_resume(asked.vm);
		guest_vm_pause(bench->rig.vm);
		us[2] = calls(&asked, TESTPAGE_CALL_PAGE, count);
		guest_vm_resume(bench->rig.vm);
		bench_add(&port, us[0]);
		bench_add(&with_exit, us[1]);
		bench_add(&by_call, us[2]);
		bench_add(&ratio, us[1] / us[2]);
	}
	bench_row("a hypercall, registers come with the exit", &with_exit, "us",
		  "a port that nobody has %.3f us", bench_median(&port));
	bench_row("  registers and page asked for", &by_call, "us",
		  "three system calls more, as it was once");
	bench_row("  the former by the latter", &ratio, "ratio", "the less the better");
	guest_rig_teardown(&asked);
}

/* --- storage --- */

static void submit(struct direct *direct);

static void direct_done(struct disk_request *request, int result)
{
	struct direct *direct = request->context;
	struct bench *bench = direct->bench;

	if (result < 0)
		base_bug("a request of the benchmark failed");
	bench->done++;
	bench->in_flight--;
	bench->last_ns = bench_now_ns();
	if (bench->last_ns < bench->end_ns)
		submit(direct);
	else if (bench->in_flight == 0)
		base_io_done(bench->rig.loop, &bench->is_over);
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
	disk_submit(bench->rig.disk, &direct->request);
}

static void submit_all(void *context)
{
	struct bench *bench = context;

	for (uint32_t i = 0; i < bench->depth; i++)
		submit(&bench->requests[i]);
}

static double run_direct(struct bench *bench, bool write, uint32_t depth)
{
	bench->op = write ? DISK_WRITE : DISK_READ;
	bench->depth = depth;
	bench->done = 0;
	bench->is_over = false;
	bench->begin_ns = bench_now_ns();
	bench->end_ns = bench->begin_ns + bench->ms * BASE_NS_PER_MS;
	guest_vm_pause(bench->rig.vm);
	base_io_call(bench->rig.loop, submit_all, bench);
	base_io_wait(bench->rig.loop, &bench->is_over);
	guest_vm_resume(bench->rig.vm);
	return (double)(bench->last_ns - bench->begin_ns) / 1000 / (double)bench->done;
}

static void compare_disk(struct bench *bench, bool write, uint32_t depth)
{
	static struct series series;
	struct guest_rig *rig = &bench->rig;
	char name[64];

	memset(&series, 0, sizeof(series));
	for (uint32_t i = 0; i < bench->runs; i++) {
		struct counts before, after;
		uint64_t ops;

		bench_add(&series.limit, run_direct(bench, write, depth));
		before = counts_of(rig);
		ops = guest_vm_command(rig->vm, TESTPAGE_DISK_BENCH,
				       write ? GUEST_DISK_RANDWRITE : GUEST_DISK_RANDREAD, depth,
				       bench->ms);
		after = counts_of(rig);
		if (ops == 0)
			base_bug("the guest made no request");
		bench_add(&series.us,
			  (double)guest_vm_get(rig->vm, TESTPAGE_BENCH_NS) / 1000 / (double)ops);
		add_counts(&series, &before, &after, ops);
	}
	(void)snprintf(name, sizeof(name), "random 4 KiB %s, depth %u", write ? "write" : "read",
		       depth);
	bench_row(name, &series.us, "us", "disk interface alone %.3f us",
		  bench_median(&series.limit));
	print_counts(&series);
}

/* --- network --- */

static bool take(const struct bench *bench, int timeout_ms)
{
	static uint8_t taken[GUEST_RIG_VNET_BYTES + FRAME_BYTES];
	struct pollfd wait = { .fd = bench->rig.tap[0], .events = POLLIN };

	return poll(&wait, 1, timeout_ms) > 0 && recv(wait.fd, taken, sizeof(taken), 0) > 0;
}

static void give(const struct bench *bench, uint32_t bytes)
{
	if (send(bench->rig.tap[0], bench->frame, GUEST_RIG_VNET_BYTES + bytes, 0) < 0)
		base_bug("send: errno %d", errno);
}

static void compare_echo(struct bench *bench, uint32_t payload, uint32_t window)
{
	static struct series series;
	uint8_t *udp = bench->frame + GUEST_RIG_VNET_BYTES + 34;
	uint32_t bytes =
		guest_inet_datagram(&bench->peer, payload, 1, bench->frame + GUEST_RIG_VNET_BYTES);
	char name[64];

	udp[3] = GUEST_PORT_ECHO;
	memset(udp + 6, 0, 2); /* no checksum */
	memset(&series, 0, sizeof(series));
	for (uint32_t i = 0; i < bench->runs; i++) {
		struct counts before = counts_of(&bench->rig), after;
		uint64_t begin_ns = bench_now_ns(), done = 0;
		uint64_t end_ns = begin_ns + bench->ms * BASE_NS_PER_MS;

		for (uint32_t n = 0; n < window; n++)
			give(bench, bytes);
		for (uint32_t under_way = window; under_way != 0;) {
			if (!take(bench, ECHO_NS / BASE_NS_PER_MS))
				base_bug("an echo was lost");
			done++;
			if (bench_now_ns() < end_ns)
				give(bench, bytes);
			else
				under_way--;
		}
		bench_add(&series.us, (double)(bench_now_ns() - begin_ns) / 1000 / (double)done);
		/* the guest shows its counters from time to time */
		base_sleep_ns(250 * BASE_NS_PER_MS);
		after = counts_of(&bench->rig);
		add_counts(&series, &before, &after, done);
	}
	(void)snprintf(name, sizeof(name), "UDP echo of %u bytes, %u under way", payload, window);
	bench_row(name, &series.us, "us", "from a socket in place of the TAP device and back");
	print_counts(&series);
}

int main(int argc, char **argv)
{
	static struct bench bench;
	bool quick = bench_has_word(argc, argv, "--quick");
	static const uint8_t mac[6] = GUEST_RIG_MAC;

	bench.rig.vcpus = 1;
	bench.rig.cmdline =
		QUIET "disk=stamp disk_depth=32 disk_bytes=16M disk_flush=0 net=10.0.0.2/24";
	bench.runs = quick ? 5 : RUNS_MAX;
	bench.ms = quick ? 200 : 500;
	bench.peer = (struct guest_inet){ .mac = { 2, 0, 0, 0, 0, 9 },
					  .address = 0x0a000009,
					  .peer = 0x0a000002 };
	memcpy(bench.peer.peer_mac, mac, sizeof(mac));
	for (uint32_t i = 0; i < DEPTH_MAX; i++) {
		bench.requests[i].bench = &bench;
		bench.requests[i].buffer = buffers[i];
	}
	if (access(HV_KVM_PATH, R_OK | W_OK) != 0) {
		printf("SKIP guest_bench: no " HV_KVM_PATH "\n");
		return SKIPPED;
	}
	if (!guest_rig_setup(&bench.rig))
		return SKIPPED;
	guest_rig_until(&bench.rig, TESTPAGE_DISK_STATE, TESTPAGE_IO_RUNNING);
	guest_rig_until(&bench.rig, TESTPAGE_NET_STATE, TESTPAGE_IO_RUNNING);
	(void)guest_vm_command(bench.rig.vm, TESTPAGE_IO_STOP, 0, 0, 0);
	while (take(&bench, 500)) /* the announcement */
		continue;
	(void)run_direct(&bench, true,
			 DEPTH_MAX); /* every block is there before the first figure */
	bench_title("the test guest on KVM, 1 vCPU, I/O on another thread");
	compare_calls(&bench);
	for (uint32_t write = 0; write < 2; write++) {
		compare_disk(&bench, write != 0, 1);
		compare_disk(&bench, write != 0, DEPTH_MAX);
	}
	compare_echo(&bench, 64, 1);
	compare_echo(&bench, 64, 8);
	compare_echo(&bench, 1400, 1);
	compare_echo(&bench, 1400, 8);
	guest_rig_teardown(&bench.rig);
	return 0;
}
