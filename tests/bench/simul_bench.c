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
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/memory_priv.h"
#include "migrate/mig_in.h"
#include "migrate/mig_out.h"
#include "tests/support/bench_table.h"

#define MOVES       4u
#define CHANNELS    4u
#define TIMEOUT_MS  60000u
#define STATE_BYTES 65536u /* about what a VM of two processors has */

enum way {
	AFTER_ANOTHER,
	AT_ONCE,
	TWO_AT_A_TIME,
	WAYS
};

/* A VM, its way, and both of its sessions. */
struct move {
	struct hv_memory *source;
	struct hv_memory *destination; /* of this run */
	uint64_t size_bytes;
	struct mig_register owner;
	pthread_mutex_t lock; /* the register */
	struct sockaddr_in address;
	int listen_fd;
	struct mig_host *host; /* NULL: no limit */
	bool quick;
	pthread_t in_thread, out_thread;
	struct mig_out_report report;
};

/* --- the source's VM: nothing is written --- */

static int vm_plan(void *vm, struct mig_plan *ret_plan, struct base_error *err)
{
	const struct move *move = vm;
	struct mig_plan plan = { .object_count = 1 };

	plan.config = strdup("{}");
	plan.objects = calloc(1, sizeof(*plan.objects));
	if (plan.objects != NULL)
		plan.objects[0].description = strdup("");
	if (plan.config == NULL || plan.objects == NULL || plan.objects[0].description == NULL)
		return base_fail(err, -ENOMEM, "plan");
	plan.objects[0].object.unit_count = move->size_bytes / MIG_PAGE_BYTES;
	*ret_plan = plan;
	return 0;
}

static const uint8_t *vm_memory(void *vm)
{
	return hv_memory_base(((struct move *)vm)->source);
}

static int vm_track(void *vm, bool on, struct base_error *err)
{
	(void)vm;
	(void)on;
	(void)err;
	return 0;
}

static int vm_dirty_get(void *vm, uint64_t *into, struct base_error *err)
{
	const struct move *move = vm;

	(void)err;
	memset(into, 0, move->size_bytes / MIG_PAGE_BYTES / 8);
	return 0;
}

static int vm_dirty_clear(void *vm, uint64_t first_page, uint64_t page_count, const uint64_t *bits,
			  struct base_error *err)
{
	(void)vm;
	(void)first_page;
	(void)page_count;
	(void)bits;
	(void)err;
	return 0;
}

static int vm_touched(void *vm, uint64_t *into, struct base_error *err)
{
	const struct move *move = vm;

	(void)err;
	memset(into, 0xff, move->size_bytes / MIG_PAGE_BYTES / 8);
	return 0;
}

static int vm_hold(void *vm, struct base_error *err)
{
	(void)vm;
	(void)err;
	return 0;
}

static int vm_state(void *vm, struct base_buffer *out, struct base_error *err)
{
	static const uint8_t state[STATE_BYTES];

	(void)vm;
	(void)err;
	base_buffer_append(out, state, sizeof(state));
	return 0;
}

static int vm_run(void *vm, uint64_t epoch, struct base_error *err)
{
	(void)vm;
	(void)epoch;
	(void)err;
	return 0;
}

static void vm_release(void *vm)
{
	(void)vm;
}

static int vm_promise(void *vm, bool on, uint64_t epoch, struct base_error *err)
{
	(void)vm;
	(void)on;
	(void)epoch;
	(void)err;
	return 0;
}

static const struct mig_source_vm source_vm = {
	.plan = vm_plan,
	.memory = vm_memory,
	.track = vm_track,
	.dirty = { .get = vm_dirty_get, .clear = vm_dirty_clear },
	.touched = vm_touched,
	.hold = vm_hold,
	.state = vm_state,
	.let_go = vm_hold,
	.run = vm_run,
	.release = vm_release,
	.promise = vm_promise,
};

/* --- the destination's --- */

static int vm_prepare(void *vm, const struct mig_plan *plan, struct mig_findings *findings,
		      uint8_t **ret_memory, struct base_error *err)
{
	struct move *move = vm;
	int r = hv_memory_new(move->size_bytes, HV_MEMORY_AUTO, &move->destination, err);

	(void)plan;
	(void)findings;
	if (r == 0)
		*ret_memory = hv_memory_base(move->destination);
	return r;
}

static int vm_check(void *vm, const uint8_t *state, size_t state_bytes, struct base_error *err)
{
	(void)vm;
	(void)state;
	return state_bytes == STATE_BYTES ? 0 : base_fail(err, -EBADMSG, "state");
}

static const struct mig_destination_vm destination_vm = {
	.prepare = vm_prepare,
	.check = vm_check,
	.run = vm_run,
	.release = vm_release,
};

static int register_ask(void *context, uint64_t epoch, enum mig_side owner,
			struct mig_register *ret_register, struct base_error *err)
{
	struct move *move = context;
	BASE_LOCKED(&move->lock);

	(void)err;
	if (move->owner.epoch == epoch)
		move->owner = (struct mig_register){ .epoch = epoch + 1, .owner = owner };
	*ret_register = move->owner;
	return 0;
}

static int register_read(void *context, struct mig_register *ret_register, struct base_error *err)
{
	struct move *move = context;
	BASE_LOCKED(&move->lock);

	(void)err;
	*ret_register = move->owner;
	return 0;
}

/* --- both ends --- */

static void socket_need(int r, const char *what)
{
	struct base_error err = { .code = 0 };

	if (r < 0)
		bench_need(base_fail_errno(&err, -errno, "%s", what), &err);
}

static void listen_at(struct move *move)
{
	socklen_t length = sizeof(move->address);

	move->address = (struct sockaddr_in){ .sin_family = AF_INET,
					      .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	move->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socket_need(move->listen_fd, "socket");
	socket_need(bind(move->listen_fd, (const struct sockaddr *)&move->address, length), "bind");
	socket_need(listen(move->listen_fd, 32), "listen");
	socket_need(getsockname(move->listen_fd, (struct sockaddr *)&move->address, &length),
		    "name");
}

static int dial(void *context, int *ret_fd, struct base_error *err)
{
	const struct move *move = context;
	BASE_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)&move->address, sizeof(move->address)))
		return base_fail_errno(err, -errno, "connect");
	*ret_fd = base_take_fd(&fd);
	return 0;
}

static void *run_in(void *context)
{
	struct move *move = context;
	const struct mig_arbiter arbiter = { register_ask, register_read, move };
	const struct mig_in_options options = { .vm = &destination_vm,
						.vm_context = move,
						.listen_fd = move->listen_fd,
						.arbiter = &arbiter,
						.keeps_register = true,
						.timeout_ms = TIMEOUT_MS };
	struct base_error err = { .code = 0 };
	struct mig_in *in = NULL;
	uint64_t epoch = 0;

	bench_need(mig_in_new(&options, &in, &err), &err);
	if (mig_in_run(in, &epoch, &err) != MIG_IN_RUNNING)
		bench_need(-EIO, &err);
	mig_in_linger(in, TIMEOUT_MS);
	mig_in_free(in);
	return NULL;
}

static void *run_out(void *context)
{
	struct move *move = context;
	const struct mig_out_options options = { .vm = &source_vm,
						 .vm_context = move,
						 .connect = dial,
						 .connect_context = move,
						 .epoch = 1,
						 .channel_count = CHANNELS,
						 .timeout_ms = TIMEOUT_MS,
						 .host = move->host,
						 .quick = move->quick,
						 .compress = MIG_COMPRESS_NEVER };
	struct mig_findings *findings = calloc(1, sizeof(*findings));
	struct base_error err = { .code = 0 };
	struct mig_out *out = NULL;

	bench_need(findings != NULL ? mig_out_new(&options, &out, &err) : -ENOMEM, &err);
	if (mig_out_run(out, findings, &err) != MIG_OUT_MOVED)
		bench_need(-EIO, &err);
	mig_out_report(out, &move->report);
	mig_out_free(out);
	free(findings);
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
	move->owner = (struct mig_register){ .epoch = 1, .owner = MIG_SOURCE };
	start(&move->in_thread, run_in, move);
	start(&move->out_thread, run_out, move);
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
		struct move *move = &moves[i];

		if (memcmp(hv_memory_base(move->source), hv_memory_base(move->destination),
			   move->size_bytes) != 0)
			base_bug("the destination is not the same");
		hv_memory_free(base_take(&move->destination));
	}
}

static struct cost run(struct move *moves, enum way way, struct mig_host *const *hosts)
{
	struct cost cost = { .cpu_seconds = -bench_cpu_seconds() };
	uint64_t begin_ns = bench_now_ns();

	for (uint32_t i = 0; i < MOVES; i++) {
		moves[i].host = way == TWO_AT_A_TIME ? hosts[i] : NULL;
		begin(&moves[i]);
		if (way == AFTER_ANOTHER)
			finish(&moves[i]);
	}
	for (uint32_t i = 0; i < MOVES && way != AFTER_ANOTHER; i++)
		finish(&moves[i]);
	cost.seconds = (double)(bench_now_ns() - begin_ns) / 1e9;
	cost.cpu_seconds += bench_cpu_seconds();
	for (uint32_t i = 0; i < MOVES; i++) {
		double blackout_ms = (double)moves[i].report.blackout_ns / 1e6;

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
		moves[i].quick = quick;
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
		    quick ? "quick" : "live", moves[0].size_bytes >> 20, CHANNELS);
	for (int way = 0; way < WAYS; way++)
		bench_row(names[way], &times[way], "s",
			  "%.2f s of processors, longest blackout %.1f ms",
			  bench_median(&cpus[way]), bench_median(&blackouts[way]));
	bench_row("  at the same time by one after another", &ratios[AT_ONCE], "", "goal <= 1");
	bench_row("  two at a time by one after another", &ratios[TWO_AT_A_TIME], "", "%s", "");
}

/* --- setting up --- */

static void fill(struct move *move, uint64_t state)
{
	uint8_t *to = hv_memory_base(move->source);

	for (uint64_t at = 0; at < move->size_bytes; at += 8) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		base_put_le64(to + at, state);
	}
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
	struct move moves[MOVES] = { { .listen_fd = -1 } };
	struct mig_host *hosts[MOVES] = { NULL };
	struct base_error err = { .code = 0 };

	if (mkdtemp(folder) == NULL)
		return 1;
	hosts_new(folder, hosts);
	for (uint32_t i = 0; i < MOVES; i++) {
		moves[i].size_bytes = is_short ? 128U << 20 : 256U << 20;
		(void)pthread_mutex_init(&moves[i].lock, NULL);
		bench_need(
			hv_memory_new(moves[i].size_bytes, HV_MEMORY_AUTO, &moves[i].source, &err),
			&err);
		fill(&moves[i], 0x9e3779b97f4a7c15ULL + i);
		listen_at(&moves[i]);
	}
	for (int quick = 0; quick < 2; quick++)
		compare(moves, hosts, is_short ? 5 : 9, quick == 1);
	for (uint32_t i = 0; i < MOVES; i++) {
		hv_memory_free(moves[i].source);
		mig_host_free(hosts[i]);
		(void)close(moves[i].listen_fd);
		(void)pthread_mutex_destroy(&moves[i].lock);
	}
	return 0;
}
