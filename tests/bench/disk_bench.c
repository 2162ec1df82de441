/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual disks against raw and against qemu's VHDX driver, in one folder, with direct I/O.
 *
 * disk_bench [--quick] [FOLDER]: where the images go (the current folder).
 *
 * Our own figures are taken through disk.h with a closed loop: each completion submits the next
 * request.  VHDX and raw take turns, run by run.  qemu-io gets the same offsets in the same
 * order; the time it takes to start and to open the image is taken off.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hypervisor/disk/disk.h"
#include "hypervisor/disk/local_store.h"
#include "tests/support/bench_table.h"

#define MIB        (1ULL << 20)
#define DEPTH_MAX  64u
#define PAGE       4096u
#define VHDX_NAME  "godwit-bench.vhdx"
#define RAW_NAME   "godwit-bench.raw"
#define PEER_NAME  "godwit-bench-peer.vhdx"
#define HUGE_NAME  "godwit-bench-64t.vhdx"
#define ALLOC_NAME "godwit-bench-alloc.vhdx"

extern char **environ;

struct bench {
	char folder[3072];
	struct store *store;
	struct base_io_loop *loop;
	uint64_t disk_bytes;
	uint32_t runs;
	uint32_t alloc_count;
	bool have_qemu;
};

enum order {
	SEQUENTIAL,
	RANDOM,
	LISTED /* offsets[] */
};

struct job {
	struct disk *disk;
	enum disk_op op;
	enum order order;
	uint32_t depth;
	uint32_t bytes;
	uint64_t count;
	uint64_t span_bytes;
	const uint64_t *offsets;
	bool flush_each;
	/* running */
	uint64_t started;
	uint64_t ended;
	uint64_t random;
	uint32_t active;
	bool over;
	struct base_io_loop *loop;
	struct base_io_task begin;
	/* The longest time without a completion, when asked for. */
	bool watch;
	uint64_t last_ns;
	_Atomic uint64_t gap_ns;
	_Atomic bool stop;
};

struct slot {
	struct disk_request request;
	struct iovec iov;
	struct job *job;
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static struct slot slots[DEPTH_MAX];

static uint64_t next_offset(struct job *job)
{
	uint64_t index = job->started++;

	if (job->order == LISTED)
		return job->offsets[index];
	if (job->order == SEQUENTIAL)
		return index * job->bytes % job->span_bytes;
	return next_random(&job->random) % (job->span_bytes / job->bytes) * job->bytes;
}

static void slot_next(struct slot *slot)
{
	struct job *job = slot->job;

	if (job->started == job->count || atomic_load(&job->stop)) {
		if (--job->active == 0)
			base_io_done(job->loop, &job->over);
		return;
	}
	slot->request.op = job->op;
	slot->request.offset_bytes = next_offset(job);
	slot->request.length_bytes = job->bytes;
	disk_submit(job->disk, &slot->request);
}

static void slot_done(struct disk_request *request, int result)
{
	struct slot *slot = request->context;

	bench_need(result, NULL);
	if (slot->job->watch) {
		uint64_t now = bench_now_ns();

		if (now - slot->job->last_ns > atomic_load(&slot->job->gap_ns))
			atomic_store(&slot->job->gap_ns, now - slot->job->last_ns);
		slot->job->last_ns = now;
	}
	if (slot->job->flush_each && request->op == DISK_WRITE) {
		request->op = DISK_FLUSH;
		request->offset_bytes = 0;
		request->length_bytes = 0;
		disk_submit(slot->job->disk, request);
		return;
	}
	slot_next(slot);
}

static void job_begin(struct base_io_task *task)
{
	struct job *job = (struct job *)(void *)((char *)task - offsetof(struct job, begin));

	job->active = job->depth;
	job->last_ns = bench_now_ns();
	for (uint32_t i = 0; i < job->depth; i++) {
		struct slot *slot = &slots[i];

		slot->job = job;
		slot->iov.iov_len = job->bytes;
		slot->request = (struct disk_request){
			.iov = &slot->iov, .iov_count = 1, .done = slot_done, .context = slot
		};
		slot_next(slot);
	}
}

/* Seconds for the job, with a flush at the end of one that writes. */
static double job_run(struct bench *bench, struct job *job)
{
	struct base_error err = { 0 };
	uint64_t began = bench_now_ns();

	job->loop = bench->loop;
	job->random = 88172645463325252ULL;
	job->begin.run = job_begin;
	base_io_post(bench->loop, &job->begin);
	base_io_wait(bench->loop, &job->over);
	if (job->op == DISK_WRITE)
		bench_need(disk_do(job->disk, DISK_FLUSH, 0, NULL, 0, &err), &err);
	return (double)(bench_now_ns() - began) / 1e9;
}

static int top_moved(void *context, const char *name)
{
	(void)context;
	(void)name; /* the benchmark does not outlive a power failure */
	return 0;
}

static struct disk *open_disk(struct bench *bench, const char *name, enum disk_format format)
{
	static const struct disk_events events = { .top_moved = top_moved };
	struct disk_options options = { .store = bench->store,
					.name = name,
					.format = format,
					.loop = bench->loop,
					.events = &events };
	struct base_error err = { 0 };
	struct disk *disk = NULL;

	bench_need(disk_open_standby(&options, &disk, &err), &err);
	bench_need(disk_activate(disk, STORE_EPOCH_NONE, NULL, &err), &err);
	return disk;
}

static void remove_image(struct bench *bench, const char *name)
{
	int code = store_remove(bench->store, name, NULL);

	bench_need(code == -ENOENT ? 0 : code, NULL);
}

static void create_image(struct bench *bench, const char *name,
			 const struct disk_create_options *options)
{
	struct base_error err = { 0 };

	remove_image(bench, name);
	bench_need(disk_create(bench->store, name, bench->loop, options, &err), &err);
}

/* --- VHDX against raw --- */

struct contest {
	const char *name;
	enum disk_op op;
	enum order order;
	uint32_t depth;
	uint32_t bytes;
	const char *goal;
};

static void contest_run(struct bench *bench, struct disk *vhdx, struct disk *raw,
			const struct contest *what)
{
	struct bench_series ratio = { 0 };
	struct bench_series ours = { 0 };
	struct bench_series theirs = { 0 };
	uint64_t total = what->order == SEQUENTIAL ? bench->disk_bytes : bench->disk_bytes / 8;

	for (uint32_t run = 0; run < bench->runs; run++) {
		double seconds[2];

		for (uint32_t turn = 0; turn < 2; turn++) {
			uint32_t who = (turn + run) % 2; /* who goes first changes */
			struct job job = { .disk = who == 0 ? vhdx : raw,
					   .op = what->op,
					   .order = what->order,
					   .depth = what->depth,
					   .bytes = what->bytes,
					   .count = total / what->bytes,
					   .span_bytes = bench->disk_bytes };

			seconds[who] = job_run(bench, &job);
		}
		bench_add(&ours, (double)total / seconds[0] / (double)MIB);
		bench_add(&theirs, (double)total / seconds[1] / (double)MIB);
		bench_add(&ratio, seconds[1] / seconds[0]);
	}
	char label[96];

	(void)snprintf(label, sizeof(label), "%s, dynamic VHDX", what->name);
	bench_row(label, &ours, "MiB/s", "raw %.0f MiB/s", bench_median(&theirs));
	(void)snprintf(label, sizeof(label), "%s, VHDX/raw", what->name);
	bench_row(label, &ratio, "ratio", "goal %s", what->goal);
}

static void fill(struct bench *bench, struct disk *disk)
{
	struct job job = { .disk = disk,
			   .op = DISK_WRITE,
			   .order = SEQUENTIAL,
			   .depth = 4,
			   .bytes = MIB,
			   .count = bench->disk_bytes / MIB,
			   .span_bytes = bench->disk_bytes };

	(void)job_run(bench, &job);
}

static void contests(struct bench *bench)
{
	static const struct contest list[] = {
		{ "sequential 1 MiB read, depth 4", DISK_READ, SEQUENTIAL, 4, MIB, ">= 0.95" },
		{ "sequential 1 MiB write, depth 4", DISK_WRITE, SEQUENTIAL, 4, MIB, ">= 0.95" },
		{ "random 4 KiB read, depth 32", DISK_READ, RANDOM, 32, PAGE, ">= 0.9" },
		{ "random 4 KiB write, depth 32", DISK_WRITE, RANDOM, 32, PAGE, ">= 0.9" },
	};
	const struct disk_create_options vhdx = { .format = DISK_VHDX,
						  .kind = DISK_DYNAMIC,
						  .size_bytes = bench->disk_bytes };
	const struct disk_create_options raw = { .format = DISK_RAW,
						 .kind = DISK_DYNAMIC,
						 .size_bytes = bench->disk_bytes };
	struct disk *a = NULL;
	struct disk *b = NULL;

	bench_title("dynamic VHDX against raw, once allocated (%" PRIu64 " MiB)",
		    (uint64_t)(bench->disk_bytes / MIB));
	create_image(bench, VHDX_NAME, &vhdx);
	create_image(bench, RAW_NAME, &raw);
	a = open_disk(bench, VHDX_NAME, DISK_VHDX);
	b = open_disk(bench, RAW_NAME, DISK_RAW);
	fill(bench, a);
	fill(bench, b);
	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		contest_run(bench, a, b, &list[i]);
	disk_close(a);
	disk_close(b);
	remove_image(bench, VHDX_NAME);
	remove_image(bench, RAW_NAME);
}

/* --- allocating writes against qemu --- */

/* Runs a program with @input on its standard input; seconds, or negative when it failed. */
static double peer_run(char *const argv[], const char *input_path)
{
	posix_spawn_file_actions_t actions;
	uint64_t began = bench_now_ns();
	int status = 0;
	pid_t pid = -1;

	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawn_file_actions_addopen(&actions, 0, input_path, O_RDONLY, 0);
	(void)posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	(void)posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	int code = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);

	(void)posix_spawn_file_actions_destroy(&actions);
	if (code != 0 || waitpid(pid, &status, 0) != pid || status != 0)
		return -1;
	return (double)(bench_now_ns() - began) / 1e9;
}

static void peer_path(const struct bench *bench, const char *name, char *to, size_t capacity)
{
	(void)snprintf(to, capacity, "%s/%s", bench->folder, name);
}

static double peer_io(const struct bench *bench, const uint64_t *offsets, uint32_t count,
		      uint32_t depth, bool flush_each)
{
	char image[4096];
	char script[4096];
	char cache[] = "none";

	peer_path(bench, PEER_NAME, image, sizeof(image));
	peer_path(bench, "godwit-bench.script", script, sizeof(script));
	FILE *file = fopen(script, "we");

	if (file == NULL)
		return -1;
	for (uint32_t i = 0; i < count; i++) {
		(void)fprintf(file, "%s -q %" PRIu64 " %u\n", depth > 1 ? "aio_write" : "write",
			      offsets[i], PAGE);
		if (flush_each)
			(void)fprintf(file, "flush\n");
		else if (depth > 1 && i % depth == depth - 1)
			(void)fprintf(file, "aio_flush\n"); /* waits; keeps the depth bounded */
	}
	(void)fprintf(file, "flush\n");
	(void)fclose(file);
	char *argv[] = { (char[]){ "qemu-io" },
			 (char[]){ "-f" },
			 (char[]){ "vhdx" },
			 (char[]){ "-t" },
			 cache,
			 (char[]){ "-i" },
			 (char[]){ "io_uring" },
			 image,
			 NULL };
	double seconds = peer_run(argv, script);

	(void)unlink(script);
	return seconds;
}

static bool peer_create(const struct bench *bench, const char *size)
{
	char image[4096];
	char bytes[32];

	peer_path(bench, PEER_NAME, image, sizeof(image));
	(void)snprintf(bytes, sizeof(bytes), "%s", size);
	char *argv[] = { (char[]){ "qemu-img" },
			 (char[]){ "create" },
			 (char[]){ "-q" },
			 (char[]){ "-f" },
			 (char[]){ "vhdx" },
			 (char[]){ "-o" },
			 (char[]){ "subformat=dynamic,block_size=2097152" },
			 image,
			 bytes,
			 NULL };
	return peer_run(argv, "/dev/null") >= 0;
}

static void alloc_contest(struct bench *bench, uint64_t *offsets, uint32_t depth, bool flush_each)
{
	const struct disk_create_options options = { .format = DISK_VHDX,
						     .kind = DISK_DYNAMIC,
						     .size_bytes = 8ULL << 30,
						     .block_bytes = 2 * MIB };
	uint32_t count = flush_each ? bench->alloc_count / 4 : bench->alloc_count;
	struct bench_series ours = { 0 };
	struct bench_series theirs = { 0 };
	struct bench_series ratio = { 0 };
	char label[96];

	for (uint32_t run = 0; run < bench->runs; run++) {
		double peer = 0;

		if (bench->have_qemu) {
			if (!peer_create(bench, "8G"))
				bench->have_qemu = false;
			double start = peer_io(bench, offsets, 0, 1, false);

			peer = peer_io(bench, offsets, count, depth, flush_each) - start;
		}
		create_image(bench, ALLOC_NAME, &options);
		struct disk *disk = open_disk(bench, ALLOC_NAME, DISK_VHDX);
		struct job job = { .disk = disk,
				   .op = DISK_WRITE,
				   .order = LISTED,
				   .depth = depth,
				   .bytes = PAGE,
				   .count = count,
				   .offsets = offsets,
				   .flush_each = flush_each };
		double seconds = job_run(bench, &job);

		disk_close(disk);
		bench_add(&ours, (double)count / seconds);
		if (bench->have_qemu && peer > 0) {
			bench_add(&theirs, (double)count / peer);
			bench_add(&ratio, peer / seconds);
		}
	}
	(void)snprintf(label, sizeof(label), "allocating 4 KiB write%s, depth %u",
		       flush_each ? " + flush" : "", depth);
	bench_row(label, &ours, "op/s", "qemu-io %.0f op/s", bench_median(&theirs));
	if (ratio.count > 0)
		bench_row("  against qemu's driver", &ratio, "ratio", "goal >= %s",
			  flush_each ? "2.5" : "5");
	remove_image(bench, ALLOC_NAME);
	remove_image(bench, PEER_NAME);
}

static void allocations(struct bench *bench)
{
	uint64_t random = 1442695040888963407ULL;
	uint64_t *offsets = calloc(bench->alloc_count, sizeof(*offsets));

	if (offsets == NULL)
		bench_need(-ENOMEM, NULL);
	for (uint32_t i = 0; i < bench->alloc_count; i++)
		offsets[i] = i * 2 * MIB + next_random(&random) % 512 * PAGE;
	for (uint32_t i = bench->alloc_count; i > 1; i--) {
		uint32_t j = (uint32_t)(next_random(&random) % i);
		uint64_t other = offsets[j];

		offsets[j] = offsets[i - 1];
		offsets[i - 1] = other;
	}
	bench_title("each write allocates a block of 2 MiB (8 GiB disk, %u blocks)%s",
		    bench->alloc_count, bench->have_qemu ? "" : "; qemu-io is not installed");
	alloc_contest(bench, offsets, 1, false);
	alloc_contest(bench, offsets, 32, false);
	alloc_contest(bench, offsets, 1, true);
	free(offsets);
}

/* --- checkpoints under load --- */

#define CHILD_NAME "godwit-bench-child.avhdx"

/* The longest time that a guest with eight random writes in flight went without a completion. */
static double longest_gap_ms(struct job *job)
{
	return (double)atomic_exchange(&job->gap_ns, 0) / 1e6;
}

static void checkpoint_run(struct bench *bench, struct disk *disk, struct bench_series gaps[3],
			   struct bench_series *merging)
{
	struct base_error err = { 0 };
	struct job job = { .disk = disk,
			   .op = DISK_WRITE,
			   .order = RANDOM,
			   .depth = 8,
			   .bytes = PAGE,
			   .count = UINT64_MAX,
			   .span_bytes = bench->disk_bytes,
			   .loop = bench->loop,
			   .random = 88172645463325252ULL,
			   .begin = { .run = job_begin },
			   .watch = true };
	uint64_t began = 0;

	base_io_post(bench->loop, &job.begin);
	base_sleep_ns(300 * BASE_NS_PER_MS);
	bench_add(&gaps[0], longest_gap_ms(&job));
	bench_need(disk_checkpoint(disk, CHILD_NAME, &err), &err);
	bench_add(&gaps[1], longest_gap_ms(&job));
	base_sleep_ns(300 * BASE_NS_PER_MS);
	(void)longest_gap_ms(&job);
	began = bench_now_ns();
	bench_need(disk_merge(disk, 0, NULL, NULL, &err), &err);
	bench_add(merging, (double)(bench_now_ns() - began) / 1e9);
	bench_add(&gaps[2], longest_gap_ms(&job));
	atomic_store(&job.stop, true);
	base_io_wait(bench->loop, &job.over);
}

static void checkpoints(struct bench *bench)
{
	const struct disk_create_options options = { .format = DISK_VHDX,
						     .kind = DISK_DYNAMIC,
						     .size_bytes = bench->disk_bytes };
	struct bench_series gaps[3] = { 0 };
	struct bench_series merging = { 0 };
	struct disk *disk = NULL;

	bench_title("checkpoint and merge while a guest writes (4 KiB random, depth 8)");
	remove_image(bench, CHILD_NAME);
	create_image(bench, VHDX_NAME, &options);
	disk = open_disk(bench, VHDX_NAME, DISK_VHDX);
	fill(bench, disk);
	for (uint32_t run = 0; run < bench->runs; run++)
		checkpoint_run(bench, disk, gaps, &merging);
	bench_row("longest gap between completions, alone", &gaps[0], "ms", "over 0.3 s");
	bench_row("  during a checkpoint", &gaps[1], "ms", "limit: the one alone");
	bench_row("  during the merge back", &gaps[2], "ms", "limit: the one alone");
	bench_row("the merge back", &merging, "s", "what 0.3 s of writes left in the child");
	disk_close(disk);
	remove_image(bench, VHDX_NAME);
}

/* --- 64 TB --- */

/* Resident now, in KiB. */
static double resident_kib(void)
{
	unsigned long size = 0;
	unsigned long resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (file == NULL || fscanf(file, "%lu %lu", &size, &resident) != 2)
		bench_need(-EIO, NULL);
	(void)fclose(file);
	return (double)resident * 4;
}

/* Open, then go all over the disk, so that its tables come to memory as far as they do. */
static void huge_run(struct bench *bench, struct bench_series *opening, struct bench_series *memory)
{
	static uint8_t page[PAGE] __attribute__((aligned(PAGE)));
	double before = resident_kib();
	double most = before;
	uint64_t random = 88172645463325252ULL;
	uint64_t began = bench_now_ns();
	struct disk *disk = open_disk(bench, HUGE_NAME, DISK_VHDX);

	bench_need(disk_do(disk, DISK_READ, 63ULL << 40, page, PAGE, NULL), NULL);
	bench_add(opening, (double)(bench_now_ns() - began) / 1e6);
	for (uint32_t i = 0; i < 8192; i++) {
		enum disk_op op = i % 16 == 0 ? DISK_WRITE : DISK_READ;
		uint64_t at = next_random(&random) % (64ULL << 40) / PAGE * PAGE;

		bench_need(disk_do(disk, op, at, page, PAGE, NULL), NULL);
		if (i % 256 == 0 && resident_kib() > most)
			most = resident_kib();
	}
	if (resident_kib() > most)
		most = resident_kib();
	bench_add(memory, (most - before) / 1024);
	disk_close(disk);
}

static void huge_disk(struct bench *bench)
{
	const struct disk_create_options options = { .format = DISK_VHDX,
						     .kind = DISK_DYNAMIC,
						     .size_bytes = 64ULL << 40,
						     .block_bytes = MIB };
	struct bench_series opening = { 0 };
	struct bench_series memory = { 0 };

	bench_title("a disk of 64 TB with blocks of 1 MiB (512 MiB of tables)");
	create_image(bench, HUGE_NAME, &options);
	for (uint32_t run = 0; run < bench->runs; run++)
		huge_run(bench, &opening, &memory);
	bench_row("open, activate, first read", &opening, "ms", "goal < 50");
	bench_row("memory for it, after 8192 random accesses", &memory, "MiB", "goal < 64");
	remove_image(bench, HUGE_NAME);
}

int main(int argc, char **argv)
{
	bool quick = bench_has_word(argc, argv, "--quick");
	struct bench bench = { .disk_bytes = (quick ? 512 : 2048) * MIB,
			       .runs = quick ? 5 : 9,
			       .alloc_count = quick ? 1000 : 2000 };
	const char *folder = argc > 1 && argv[argc - 1][0] != '-' ? argv[argc - 1] : ".";
	char *version[] = { (char[]){ "qemu-io" }, (char[]){ "--version" }, NULL };
	struct base_error err = { 0 };

	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	(void)snprintf(bench.folder, sizeof(bench.folder), "%s", folder);
	bench.have_qemu = peer_run(version, "/dev/null") >= 0;
	for (uint32_t i = 0; i < DEPTH_MAX; i++) {
		slots[i].iov.iov_base = aligned_alloc(PAGE, MIB);
		if (slots[i].iov.iov_base == NULL)
			bench_need(-ENOMEM, NULL);
		memset(slots[i].iov.iov_base, (int)(i + 1), MIB);
	}
	bench_need(local_store_open(folder, NULL, &bench.store, &err), &err);
	bench_need(base_io_loop_new(NULL, &bench.loop, &err), &err);
	bench_need(base_io_loop_start(bench.loop, "disk", &err), &err);
	contests(&bench);
	allocations(&bench);
	checkpoints(&bench);
	huge_disk(&bench);
	base_io_loop_free(bench.loop);
	store_free(bench.store);
	for (uint32_t i = 0; i < DEPTH_MAX; i++)
		free(slots[i].iov.iov_base);
	return 0;
}
