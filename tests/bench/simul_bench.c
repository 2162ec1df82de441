/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four migrations at the same time against the same four one after another: whole sessions over
 * loopback TCP, each with its own VM of random memory whose guest does nothing, from touched
 * huge-page memory to untouched.  Live and quick; and four under a host's limit of two.
 *
 *   simul_bench [--quick]
 *
 * The ways take turns.  The clock runs from the first session's begin to the last one's end, with
 * all of both ends in it; every byte is compared afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hypervisor/memory_priv.h"
#include "tests/support/bench_move.h"
#include "tests/support/bench_table.h"

#define MOVES      4u
#define CHANNELS   4u
#define TIMEOUT_MS 60000u

enum way {
	AFTER_ANOTHER,
	AT_ONCE,
	TWO_AT_A_TIME,
	WAYS
};

/* A VM, and both of its sessions. */
struct move {
	struct bench_move sessions;
	struct hv_memory *source;
	pthread_t in_thread, out_thread;
};

/* --- both ends --- */

static void *run_in(void *context)
{
	struct bench_move *move = context;

	bench_move_in(move);
	bench_move_in_end(move);
	return NULL;
}

static void *run_out(void *context)
{
	bench_move_out(context);
	return NULL;
}

static void start(pthread_t *thread, void *(*run)(void *context), void *context)
{
	struct base_error err = { .code = 0 };
	int r = pthread_create(thread, NULL, run, context);

	if (r != 0)
		bench_need(base_fail_errno(&err, -r, "thread"), &err);
}

static void begin(struct move *move)
{
	start(&move->in_thread, run_in, &move->sessions);
	start(&move->out_thread, run_out, &move->sessions);
}

static void finish(const struct move *move)
{
	(void)pthread_join(move->out_thread, NULL);
	(void)pthread_join(move->in_thread, NULL);
}

/* --- a run --- */

struct cost {
	double seconds;
	double cpu_seconds;
	double blackout_ms; /* the longest */
};

static void compare_and_free(struct move *moves)
{
	for (uint32_t i = 0; i < MOVES; i++) {
		struct bench_move *sessions = &moves[i].sessions;

		if (memcmp(sessions->from, hv_memory_base(sessions->to), sessions->size_bytes) != 0)
			base_bug("the destination is not the same");
		hv_memory_free(base_take(&sessions->to));
	}
}

static struct cost run(struct move *moves, enum way way, struct mig_host *const *hosts)
{
	struct cost cost = { .cpu_seconds = -bench_cpu_seconds() };
	uint64_t begin_ns = bench_now_ns();

	for (uint32_t i = 0; i < MOVES; i++) {
		moves[i].sessions.out.host = way == TWO_AT_A_TIME ? hosts[i] : NULL;
		begin(&moves[i]);
		if (way == AFTER_ANOTHER)
			finish(&moves[i]);
	}
	for (uint32_t i = 0; i < MOVES && way != AFTER_ANOTHER; i++)
		finish(&moves[i]);
	cost.seconds = (double)(bench_now_ns() - begin_ns) / 1e9;
	cost.cpu_seconds += bench_cpu_seconds();
	for (uint32_t i = 0; i < MOVES; i++) {
		double blackout_ms = (double)moves[i].sessions.report.blackout_ns / 1e6;

		cost.blackout_ms = blackout_ms > cost.blackout_ms ? blackout_ms : cost.blackout_ms;
	}
	compare_and_free(moves);
	return cost;
}

static void compare(struct move *moves, struct mig_host *const *hosts, uint32_t runs, bool quick)
{
	static const char *const names[WAYS] = { "  one after another", "  at the same time",
						 "  two at a time, by the host's limit" };
	struct bench_series times[WAYS] = { { .count = 0 } };
	struct bench_series cpus[WAYS] = { { .count = 0 } };
	struct bench_series blackouts[WAYS] = { { .count = 0 } };
	struct bench_series ratios[WAYS] = { { .count = 0 } };

	for (uint32_t i = 0; i < MOVES; i++)
		moves[i].sessions.out.quick = quick;
	(void)run(moves, AT_ONCE, hosts); /* the first is another's: huge pages are made */
	for (uint32_t i = 0; i < runs; i++) {
		double seconds[WAYS] = { 0 };

		for (uint32_t turn = 0; turn < WAYS; turn++) {
			enum way way = (enum way)((i + turn) % WAYS);
			struct cost cost = run(moves, way, hosts);

			seconds[way] = cost.seconds;
			bench_add(&times[way], cost.seconds);
			bench_add(&cpus[way], cost.cpu_seconds);
			bench_add(&blackouts[way], cost.blackout_ms);
		}
		for (int way = AT_ONCE; way < WAYS; way++)
			bench_add(&ratios[way], seconds[way] / seconds[AFTER_ANOTHER]);
	}
	bench_title("%u migrations, %s, %" PRIu64 " MiB each, %u channels each", MOVES,
		    quick ? "quick" : "live", moves[0].sessions.size_bytes >> 20, CHANNELS);
	for (int way = 0; way < WAYS; way++)
		bench_row(names[way], &times[way], "s",
			  "%.2f s of processors, longest blackout %.1f ms",
			  bench_median(&cpus[way]), bench_median(&blackouts[way]));
	bench_row("  at the same time by one after another", &ratios[AT_ONCE], "", "goal <= 1");
	bench_row("  two at a time by one after another", &ratios[TWO_AT_A_TIME], "", "%s", "");
}

/* --- setting up --- */

static void prepare(struct move *move, uint64_t size_bytes, uint64_t seed)
{
	struct base_error err = { .code = 0 };

	bench_need(hv_memory_new(size_bytes, HV_MEMORY_AUTO, &move->source, &err), &err);
	bench_fill(hv_memory_base(move->source), size_bytes, BENCH_RANDOM, seed);
	move->sessions = (struct bench_move){
		.size_bytes = size_bytes,
		.timeout_ms = TIMEOUT_MS,
		.from = hv_memory_base(move->source),
		.out = { .channel_count = CHANNELS, .compress = MIG_COMPRESS_NEVER },
	};
	bench_move_listen(&move->sessions, 0);
}

static void hosts_new(const char *folder, struct mig_host **hosts)
{
	struct base_error err = { .code = 0 };
	BASE_CLOSE int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct mig_host_options options = {
		.directory_fd = fd,
		.most = { [MIG_OUTGOING] = 2, [MIG_INCOMING] = 2 },
	};

	for (uint32_t i = 0; i < MOVES; i++)
		bench_need(mig_host_new(&options, &hosts[i], &err), &err);
	(void)unlinkat(fd, "outgoing", 0); /* they have it open */
	(void)unlinkat(fd, "incoming", 0);
	(void)rmdir(folder);
}

int main(int argc, char **argv)
{
	char folder[] = "/tmp/simul_bench.XXXXXX";
	bool is_short = bench_has_word(argc, argv, "--quick");
	struct move moves[MOVES] = { { .source = NULL } };
	struct mig_host *hosts[MOVES] = { NULL };

	if (mkdtemp(folder) == NULL)
		return 1;
	hosts_new(folder, hosts);
	for (uint32_t i = 0; i < MOVES; i++)
		prepare(&moves[i], is_short ? 128U << 20 : 256U << 20, 0x9e3779b97f4a7c15ULL + i);
	for (int quick = 0; quick < 2; quick++)
		compare(moves, hosts, is_short ? 5 : 9, quick == 1);
	for (uint32_t i = 0; i < MOVES; i++) {
		hv_memory_free(moves[i].source);
		mig_host_free(hosts[i]);
		(void)close(moves[i].sessions.listen_fd);
	}
	return 0;
}
