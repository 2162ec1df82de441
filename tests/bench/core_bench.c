/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hypervisor core's promises: time to the test guest's first line, pause of all
 * vCPUs, harvest of the dirty log.
 *
 * core_bench [--quick]
 *
 * Boot is taken apart by doing its larger pieces once more by themselves; what
 * hv_machine_new() took beyond them is the rest.  The time from resume to the first
 * line contains the instructions of the guest, which some hosts emulate, so the sum is an
 * upper limit of our own time.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/pool.h"
#include "hypervisor/host_probe.h"
#include "tests/support/bench_table.h"
#include "tests/support/guest_vm.h"

#define GIB            (1ULL << 30)
#define PAUSE_VCPUS    4u
#define HARVEST_PAGES  8192u
#define POPULATE_BYTES (64ULL << 20) /* a step of the bare populate */

/* --- boot --- */

struct watcher {
	_Atomic uint64_t first_line_ns;
	sem_t seen;
};

static void on_event(void *context, enum hv_machine_event event, const char *text)
{
	(void)context;
	(void)printf("failed: event %d: %s\n", (int)event, text);
	exit(1);
}

static void on_console(void *context, const uint8_t *bytes, size_t size_bytes)
{
	struct watcher *watcher = context;

	for (size_t i = 0; i < size_bytes; i++) {
		if (bytes[i] != '\n' || atomic_load(&watcher->first_line_ns) != 0)
			continue;
		atomic_store(&watcher->first_line_ns, bench_now_ns());
		(void)sem_post(&watcher->seen);
	}
}

static void on_room(void *context)
{
	(void)context;
}

static const struct hv_machine_ops watch_ops = {
	.event = on_event,
	.console_out = on_console,
	.console_room = on_room,
};

struct boot_times {
	struct bench_series probe, populate, bare_populate, rest, load, first_line, total;
};

static void add_ms(struct bench_series *series, uint64_t from_ns, uint64_t to_ns)
{
	bench_add(series, to_ns > from_ns ? (double)(to_ns - from_ns) / 1e6 : 0);
}

static int populate_step(void *context, uint64_t index, struct base_error *err)
{
	uint8_t *at = (uint8_t *)context + index * POPULATE_BYTES;

	if (madvise(at, POPULATE_BYTES, MADV_POPULATE_WRITE) < 0)
		return base_fail_errno(err, -errno, "populate");
	return 0;
}

/* The limit of populating: private memory in huge pages, the same threads. */
static uint64_t bare_populate_ns(void)
{
	struct base_error err = { .code = 0 };
	struct base_pool *pool = NULL;
	uint64_t begin_ns;
	uint64_t end_ns;
	uint8_t *map = mmap(NULL, GIB + HV_HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *aligned;

	if (map == MAP_FAILED)
		bench_need(base_fail_errno(&err, -errno, "map 1 GiB"), &err);
	aligned = map + (-(uintptr_t)map & (HV_HUGE_PAGE_BYTES - 1));
	(void)madvise(aligned, GIB, MADV_HUGEPAGE);
	begin_ns = bench_now_ns();
	bench_need(base_pool_new(base_cpu_count(), "populate", &pool, &err), &err);
	bench_need(base_pool_each(pool, GIB / POPULATE_BYTES, populate_step, aligned, &err), &err);
	base_pool_free(pool);
	end_ns = bench_now_ns();
	(void)munmap(map, GIB + HV_HUGE_PAGE_BYTES);
	return end_ns - begin_ns;
}

static uint64_t probe_ns(int kvm_fd)
{
	struct base_error err = { .code = 0 };
	struct hv_cpuid_table supported;
	struct hv_host_facts facts;
	uint64_t begin_ns = bench_now_ns();

	bench_need(hv_kvm_cpuid_supported(kvm_fd, &supported, &err), &err);
	bench_need(hv_host_probe(kvm_fd, NULL, &facts, &err), &err);
	return bench_now_ns() - begin_ns;
}

static uint64_t populate_ns(void)
{
	struct base_error err = { .code = 0 };
	struct hv_memory *memory = NULL;
	uint64_t begin_ns = bench_now_ns();
	uint64_t end_ns;

	bench_need(hv_memory_new(GIB, HV_MEMORY_AUTO, &memory, &err), &err);
	bench_need(hv_memory_populate(memory, &err), &err);
	end_ns = bench_now_ns();
	hv_memory_free(memory);
	return end_ns - begin_ns;
}

static void boot_once(const struct hv_machine_fds *fds, struct boot_times *times)
{
	struct hv_machine_config config = {
		.name = "bench",
		.memory_bytes = GIB,
		.backing = HV_MEMORY_AUTO,
		.vcpu_count = 1,
		.cpu = HV_CPU_MODEL_HOST,
	};
	struct base_error err = { .code = 0 };
	struct hv_machine *machine = NULL;
	struct watcher watcher = { .first_line_ns = 0 };
	uint64_t parts_ns = probe_ns(fds->kvm_fd);
	uint64_t made_ns;
	uint64_t loaded_ns;
	uint64_t begin_ns;

	(void)sem_init(&watcher.seen, 0, 0);
	add_ms(&times->bare_populate, 0, bare_populate_ns());
	add_ms(&times->probe, 0, parts_ns);
	begin_ns = populate_ns();
	add_ms(&times->populate, 0, begin_ns);
	parts_ns += begin_ns;
	begin_ns = bench_now_ns();
	bench_need(hv_machine_new(&config, fds, &watch_ops, &watcher, &machine, &err), &err);
	made_ns = bench_now_ns();
	bench_need(hv_machine_boot(machine, &err), &err);
	loaded_ns = bench_now_ns();
	bench_need(hv_machine_release(machine, HV_HOLD_USER, &err), &err);
	while (sem_wait(&watcher.seen) < 0)
		;
	add_ms(&times->rest, parts_ns, made_ns - begin_ns);
	add_ms(&times->load, made_ns, loaded_ns);
	add_ms(&times->first_line, loaded_ns, atomic_load(&watcher.first_line_ns));
	add_ms(&times->total, begin_ns, atomic_load(&watcher.first_line_ns));
	hv_machine_free(machine);
	(void)sem_destroy(&watcher.seen);
}

static void bench_boot(int kvm_fd, uint32_t runs)
{
	const char *path = TEST_BINARY_DIR "/tests/guest/testguest";
	struct hv_machine_fds fds = {
		.kvm_fd = kvm_fd,
		.kernel_fd = open(path, O_RDONLY | O_CLOEXEC),
		.initrd_fd = -1,
		.kernel_name = path,
	};
	BASE_FREE struct boot_times *times = calloc(1, sizeof(*times));
	struct base_error err = { .code = 0 };

	if (fds.kernel_fd < 0 || times == NULL)
		bench_need(base_fail_errno(&err, -errno, "'%s'", path), &err);
	bench_title("boot of the test guest, 1 GiB populated, 1 vCPU, to its first line");
	for (uint32_t i = 0; i < runs; i++)
		boot_once(&fds, times);
	bench_row("  probe of the host (a tiny guest)", &times->probe, "ms", "%s", "");
	bench_row("  memory: create, populate", &times->populate, "ms",
		  "limit: private huge pages %.1f", bench_median(&times->bare_populate));
	bench_row("  rest of hv_machine_new()", &times->rest, "ms", "%s", "partition, devices");
	bench_row("  ACPI tables, kernel load", &times->load, "ms", "%s", "");
	bench_row("  resume to first line", &times->first_line, "ms", "%s",
		  "contains the guest's instructions");
	bench_row("boot to first line, all of it", &times->total, "ms", "%s", "goal: 500");
	(void)close(fds.kernel_fd);
}

/* --- pause --- */

static sem_t bare_here;
static sem_t bare_go[PAUSE_VCPUS]; /* one each: a late thread's must not go to another */
static _Thread_local uint32_t bare_index;
static atomic_bool bare_end;

/* Both calls are plain futex operations here. */
static void bare_signal(int signal_number)
{
	(void)signal_number;
	(void)sem_post(&bare_here);
	while (sem_wait(&bare_go[bare_index]) < 0)
		;
}

static void *bare_spin(void *context)
{
	bare_index = *(const uint32_t *)context;
	(void)sem_post(&bare_here); /* no signal before the index is set */
	while (!atomic_load_explicit(&bare_end, memory_order_relaxed))
		;
	return NULL;
}

/* The limit: signal @count threads that spin, and wait until each has said so. */
static void bare_rounds(uint32_t count, uint32_t rounds, struct bench_series *series)
{
	struct sigaction action = { .sa_handler = bare_signal };
	pthread_t threads[PAUSE_VCPUS];
	uint32_t indices[PAUSE_VCPUS];

	(void)sem_init(&bare_here, 0, 0);
	atomic_store(&bare_end, false);
	(void)sigaction(SIGUSR2, &action, NULL);
	for (uint32_t i = 0; i < count; i++) {
		indices[i] = i;
		(void)sem_init(&bare_go[i], 0, 0);
		if (pthread_create(&threads[i], NULL, bare_spin, &indices[i]) != 0)
			abort();
		while (sem_wait(&bare_here) < 0)
			;
	}
	for (uint32_t round = 0; round < rounds; round++) {
		uint64_t begin_ns;

		base_sleep_ns(2 * BASE_NS_PER_MS);
		begin_ns = bench_now_ns();
		for (uint32_t i = 0; i < count; i++)
			(void)pthread_kill(threads[i], SIGUSR2);
		for (uint32_t i = 0; i < count; i++)
			while (sem_wait(&bare_here) < 0)
				;
		bench_add(series, (double)(bench_now_ns() - begin_ns) / 1e6);
		for (uint32_t i = 0; i < count; i++)
			(void)sem_post(&bare_go[i]);
	}
	atomic_store(&bare_end, true);
	for (uint32_t i = 0; i < count; i++)
		(void)pthread_join(threads[i], NULL);
}

static void bench_pause(uint32_t vcpu_count, uint32_t rounds)
{
	struct guest_vm_opts opts = {
		.memory_bytes = 256ULL << 20,
		.vcpus = vcpu_count,
		.cmdline = "ws=64M stamp=word verify=0 report=0",
	};
	struct bench_series pause = { .count = 0 };
	struct bench_series limit = { .count = 0 };
	struct guest_vm *vm = guest_vm_new(&opts);
	char name[64];

	if (vm == NULL)
		exit(77);
	guest_vm_wait(vm, "guest: ready");
	for (uint32_t i = 0; i < rounds; i++) {
		uint64_t begin_ns;

		base_sleep_ns(2 * BASE_NS_PER_MS);
		begin_ns = bench_now_ns();
		guest_vm_pause(vm);
		bench_add(&pause, (double)(bench_now_ns() - begin_ns) / 1e6);
		guest_vm_resume(vm);
	}
	guest_vm_free(vm);
	bare_rounds(vcpu_count, rounds, &limit);
	(void)snprintf(name, sizeof(name), "pause of all of %" PRIu32 " vCPU", vcpu_count);
	bench_row(name, &pause, "ms", "%slimit: bare signal round %.3f (.. %.3f)",
		  vcpu_count == PAUSE_VCPUS ? "goal: 0.5; " : "", bench_median(&limit),
		  bench_percentile(&limit, 99));
	(void)snprintf(name, sizeof(name), "  99th percentile");
	(void)printf("%-46s %10.3f\n", name, bench_percentile(&pause, 99));
}

/* --- harvest --- */

struct harvest_times {
	struct bench_series beyond, ioctl, pages;
};

static void harvest(struct guest_vm *vm, uint64_t *bitmap, struct harvest_times *times)
{
	struct hv_slat *slat = hv_machine_slat(guest_vm_machine(vm));
	struct base_error err = { .code = 0 };
	struct hv_slat_cost cost;
	uint64_t pages;

	bench_need(hv_slat_harvest(slat, bitmap, &pages, &err), &err);
	cost = hv_slat_last_cost(slat);
	if (times == NULL)
		return;
	bench_add(&times->beyond, (double)(cost.total_ns - cost.ioctl_ns) / 1e6);
	bench_add(&times->ioctl, (double)cost.ioctl_ns / 1e6);
	bench_add(&times->pages, (double)pages);
}

static void print_harvest(const char *what, const struct harvest_times *times)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "harvest of 1 GiB: %s", what);
	bench_row(name, &times->beyond, "ms", "goal: 1; ioctls besides: %.3f; pages: %.0f",
		  bench_median(&times->ioctl), bench_median(&times->pages));
}

/* Own marks without a byte written: each @stride-th page. */
static void mark(struct guest_vm *vm, uint64_t stride)
{
	struct hv_slat *slat = hv_machine_slat(guest_vm_machine(vm));

	for (uint64_t page = 0; page < hv_slat_page_count(slat); page += stride) {
		HV_SLAT_WINDOW window = { .data = NULL };

		if (hv_slat_window_begin(slat, page << HV_PAGE_SHIFT, HV_PAGE_BYTES, &window) < 0)
			abort();
	}
}

static void bench_harvest(uint32_t runs)
{
	struct guest_vm_opts opts = {
		.memory_bytes = GIB,
		.cmdline = "ws=512M stamp=word pattern=random verify=0 report=0",
	};
	BASE_FREE struct harvest_times *times = calloc(5, sizeof(*times));
	struct guest_vm *vm = guest_vm_new(&opts);
	struct base_error err = { .code = 0 };
	BASE_FREE uint64_t *bitmap = NULL;
	struct hv_slat *slat;

	if (vm == NULL)
		exit(77);
	slat = hv_machine_slat(guest_vm_machine(vm));
	bitmap = calloc(hv_slat_word_count(slat), sizeof(*bitmap));
	if (times == NULL || bitmap == NULL)
		abort();
	guest_vm_wait(vm, "guest: ready");
	for (uint32_t i = 0; i < runs; i++) {
		bench_need(hv_slat_start(slat, &err), &err);
		harvest(vm, bitmap, &times[0]);
		(void)guest_vm_command(vm, TESTPAGE_WRITE_SET, i, HARVEST_PAGES, 0);
		harvest(vm, bitmap, &times[1]);
		guest_vm_pause(vm);
		harvest(vm, bitmap, NULL);
		harvest(vm, bitmap, &times[2]);
		mark(vm, 64);
		harvest(vm, bitmap, &times[3]);
		mark(vm, 1);
		harvest(vm, bitmap, &times[4]);
		bench_need(hv_slat_stop(slat, &err), &err);
		guest_vm_resume(vm);
	}
	guest_vm_free(vm);
	bench_title("dirty harvest of 1 GiB: what it costs beyond the two ioctls");
	print_harvest("nothing written", &times[2]);
	print_harvest("8,192 by the guest", &times[1]);
	print_harvest("all, after start", &times[0]);
	print_harvest("own mark in each word", &times[3]);
	print_harvest("own marks on all", &times[4]);
}

int main(int argc, char **argv)
{
	bool quick = bench_has_word(argc, argv, "--quick");
	struct base_error err = { .code = 0 };
	BASE_CLOSE int kvm_fd = hv_kvm_open(HV_KVM_PATH, &err);

	if (kvm_fd < 0) {
		(void)printf("SKIP core_bench %s\n", err.text);
		return 77;
	}
	bench_boot(kvm_fd, quick ? 5 : 11);
	bench_title("pause while the guest works at full speed");
	bench_pause(1, quick ? 50 : 200);
	bench_pause(2, quick ? 50 : 200);
	bench_pause(PAUSE_VCPUS, quick ? 50 : 200);
	bench_harvest(quick ? 5 : 21);
	return 0;
}
