/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's dirty log against its dirty ring: what each costs the guest that is tracked, and
 * what each costs the one who harvests.  Bare KVM, nothing of Godwit's in between.
 *
 * dirty_bench [--quick]
 *
 * Working sets: sparse, 1,000 pages spread over 1 GiB; dense, 65,536 neighbours.  A run is:
 * the guest untracked for a while, tracking on and first harvest, then harvests at a fixed
 * beat while the guest writes.  Log and ring take turns.  Rings have KVM's largest size, and
 * once more a small one, so that the exit for a full ring is seen too.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "hypervisor/host_probe.h"
#include "tests/support/bench_table.h"
#include "tests/support/ring3_vm.h"

#define WARM_NS            (100 * BASE_NS_PER_MS)
#define SMALL_RING_ENTRIES 2048u /* at a few thousand pages/s full within a beat or two */
#define UNTRACKED_NS       (150 * BASE_NS_PER_MS)

struct bench {
	int kvm_fd;
	struct hv_memory *memory;
	uint32_t runs;
	uint64_t beat_ns; /* between harvests */
	uint32_t ring_entries;
	uint32_t harvests;
	uint64_t *bitmap;
	uint32_t pages[RING3_LIST_MAX];
	uint32_t page_count;
};

struct result {
	struct bench_series share;      /* of the untracked write rate, percent */
	struct bench_series untracked;  /* million writes/s */
	struct bench_series enable;     /* us: on, and the first harvest */
	struct bench_series harvest;    /* us */
	struct bench_series per_page;   /* ns per page named */
	struct bench_series page_rate;  /* thousand pages named per second */
	struct bench_series full_count; /* exits because a ring was full, per run */
};

static void pick_sparse(struct bench *bench)
{
	uint32_t space = RING3_PAGE_COUNT - RING3_FIRST_PAGE;

	bench->page_count = 1000;
	/* An odd stride visits no page twice; it is far from any huge page's neighbour. */
	for (uint32_t i = 0; i < bench->page_count; i++)
		bench->pages[i] = RING3_FIRST_PAGE + (uint32_t)((uint64_t)i * 100003 % (space - 1));
}

static void pick_dense(struct bench *bench)
{
	bench->page_count = RING3_LIST_MAX;
	for (uint32_t i = 0; i < bench->page_count; i++)
		bench->pages[i] = RING3_FIRST_PAGE + i;
}

static uint64_t count_bits(const uint64_t *bitmap)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < RING3_WORD_COUNT; i++)
		count += (uint64_t)__builtin_popcountll(bitmap[i]);
	return count;
}

/* Million writes per second over @duration_ns. */
static double write_rate(const struct ring3_vm *vm, uint64_t duration_ns)
{
	uint64_t writes = ring3_vm_writes(vm);
	uint64_t begin_ns = bench_now_ns();

	base_sleep_ns(duration_ns);
	return (double)(ring3_vm_writes(vm) - writes) * 1e3 / (double)(bench_now_ns() - begin_ns);
}

static void track(const struct bench *bench, struct ring3_vm *vm, double untracked,
		  struct result *result)
{
	struct base_error err = { .code = 0 };
	uint64_t begin_ns = bench_now_ns();
	uint64_t named = 0;
	uint64_t in_harvest_ns = 0;
	uint64_t writes;
	double window_ns;

	bench_need(ring3_vm_track(vm, true, &err), &err);
	bench_need(ring3_vm_harvest(vm, bench->bitmap, &err), &err);
	bench_add(&result->enable, (double)(bench_now_ns() - begin_ns) / 1e3);
	begin_ns = bench_now_ns();
	writes = ring3_vm_writes(vm);
	for (uint32_t i = 0; i < bench->harvests; i++) {
		uint64_t harvest_ns;

		base_sleep_ns(bench->beat_ns);
		harvest_ns = bench_now_ns();
		bench_need(ring3_vm_harvest(vm, bench->bitmap, &err), &err);
		harvest_ns = bench_now_ns() - harvest_ns;
		in_harvest_ns += harvest_ns;
		named += count_bits(bench->bitmap);
		bench_add(&result->harvest, (double)harvest_ns / 1e3);
	}
	window_ns = (double)(bench_now_ns() - begin_ns);
	writes = ring3_vm_writes(vm) - writes;
	bench_add(&result->share, (double)writes * 1e3 / window_ns / untracked * 100);
	bench_add(&result->page_rate, (double)named * 1e6 / window_ns);
	if (named > 0)
		bench_add(&result->per_page, (double)in_harvest_ns / (double)named);
	bench_add(&result->full_count, (double)ring3_vm_full_count(vm));
}

/* One run; false: this KVM has no such tracking. */
static bool run_once(const struct bench *bench, uint32_t vcpu_count, enum ring3_tracking tracking,
		     struct result *result)
{
	struct ring3_opts opts = {
		.kvm_fd = bench->kvm_fd,
		.memory = bench->memory,
		.vcpu_count = vcpu_count,
		.tracking = tracking,
		.ring_entries = bench->ring_entries,
		.pages = bench->pages,
		.page_count = bench->page_count,
	};
	struct base_error err = { .code = 0 };
	struct ring3_vm *vm = NULL;
	int r = ring3_vm_new(&opts, &vm, &err);
	double untracked;

	if (r == -ENOTSUP) {
		bench_title("skipped: %s", err.text);
		return false;
	}
	bench_need(r, &err);
	bench_need(ring3_vm_run(vm, &err), &err);
	(void)write_rate(vm, WARM_NS); /* until every page has been touched once */
	untracked = write_rate(vm, UNTRACKED_NS);
	bench_add(&result->untracked, untracked);
	track(bench, vm, untracked, result);
	bench_need(ring3_vm_pause(vm, &err), &err);
	ring3_vm_free(vm);
	return true;
}

static void print(const char *name, const struct result *result, const char *other_name,
		  const struct result *other)
{
	char row[64];

#define ROW(what, field, unit)                                                                     \
	do {                                                                                       \
		(void)snprintf(row, sizeof(row), "  %s: " what, name);                             \
		bench_row(row, &result->field, unit, "%s: %.3f", other_name,                       \
			  bench_median(&other->field));                                            \
	} while (0)
	ROW("guest writes while tracked", share, "% of un.");
	ROW("pages named per second", page_rate, "k/s");
	ROW("harvest", harvest, "us");
	ROW("harvest, per page named", per_page, "ns");
	ROW("enable and first harvest", enable, "us");
#undef ROW
	if (bench_median(&result->full_count) > 0)
		bench_row("  ring: full, exits per run", &result->full_count, "", "%s", "");
}

static void compare(const struct bench *bench, const char *set, uint32_t vcpu_count)
{
	BASE_FREE struct result *log = calloc(1, sizeof(*log));
	BASE_FREE struct result *ring = calloc(1, sizeof(*ring));
	bool has_ring = true;

	if (log == NULL || ring == NULL)
		abort();
	bench_title("dirty tracking, %s: %" PRIu32 " of %u pages, %" PRIu32
		    " vCPU, harvest every %llu ms",
		    set, bench->page_count, RING3_PAGE_COUNT, vcpu_count,
		    bench->beat_ns / BASE_NS_PER_MS);
	for (uint32_t i = 0; i < bench->runs; i++) {
		if (!run_once(bench, vcpu_count, RING3_LOG, log))
			return;
		has_ring = has_ring && run_once(bench, vcpu_count, RING3_RING, ring);
	}
	bench_row("  untracked", &log->untracked, "M/s", "%s", "writes of the guest");
	print("log", log, "ring", ring);
	if (has_ring)
		print("ring", ring, "log", log);
}

int main(int argc, char **argv)
{
	bool quick = bench_has_word(argc, argv, "--quick");
	struct base_error err = { .code = 0 };
	struct bench *bench = calloc(1, sizeof(*bench));

	if (bench == NULL)
		abort();
	bench->kvm_fd = hv_kvm_open(HV_KVM_PATH, &err);
	if (bench->kvm_fd < 0) {
		(void)printf("SKIP dirty_bench %s\n", err.text);
		return 77;
	}
	bench->runs = 5;
	bench->beat_ns = 100 * BASE_NS_PER_MS;
	bench->ring_entries = RING3_ENTRIES_MAX;
	bench->harvests = quick ? 2 : 8;
	bench->bitmap = calloc(RING3_WORD_COUNT, sizeof(*bench->bitmap));
	bench_need(hv_memory_new(RING3_PAGE_COUNT * HV_PAGE_BYTES, HV_MEMORY_AUTO, &bench->memory,
				 &err),
		   &err);
	bench_need(hv_memory_populate(bench->memory, &err), &err);
	for (uint32_t vcpu_count = 1; vcpu_count <= 2; vcpu_count++) {
		pick_sparse(bench);
		compare(bench, "sparse", vcpu_count);
		pick_dense(bench);
		compare(bench, "dense", vcpu_count);
	}
	bench->ring_entries = SMALL_RING_ENTRIES;
	compare(bench, "dense, ring that fills up", 2);
	hv_memory_free(bench->memory);
	free(bench->bitmap);
	base_closep(&bench->kvm_fd);
	free(bench);
	return 0;
}
