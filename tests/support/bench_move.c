/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/bench_move.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/vm_migrate_plan.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/memory_priv.h"
#include "tests/support/bench_table.h"

#define STATE_BYTES 65536u /* about what a VM of two processors has */

const char *const bench_content_names[BENCH_CONTENTS] = { "random", "text", "zeros", "untouched" };

void bench_fill(uint8_t *to, uint64_t size_bytes, enum bench_content content, uint64_t seed)
{
	if (content == BENCH_UNTOUCHED)
		return;
	for (uint64_t at = 0; at < size_bytes; at += 8) {
		uint64_t value = 0;

		if (content != BENCH_ZEROS) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			value = seed;
		}
		if (content == BENCH_TEXT)
			value = 0x6f74207473616c20ULL + (value >> 58) * 0x0101010001ULL;
		base_put_le64(to + at, value);
	}
}

/* --- the source's VM: nothing is written --- */

static void plan_freep(struct vm_plan **plan)
{
	free(*plan);
}

static int vm_touched(void *vm, uint64_t *into, struct base_error *err)
{
	const struct bench_move *move = vm;

	(void)err;
	memset(into, move->untouched ? 0 : 0xff, move->size_bytes / MIG_PAGE_BYTES / 8);
	return 0;
}

/* As a worker's, so that the destination is told what to populate ahead. */
static int plan_text(struct bench_move *move, char **ret_text, struct base_error *err)
{
	BASE_CLEANUP(plan_freep) struct vm_plan *plan = calloc(1, sizeof(*plan));
	BASE_FREE uint64_t *bits = malloc(move->size_bytes / MIG_PAGE_BYTES / 8);

	if (plan == NULL || bits == NULL)
		return base_fail(err, -ENOMEM, "plan");
	(void)vm_touched(move, bits, NULL);
	memcpy(plan->name, "bench", sizeof("bench"));
	memcpy(plan->host, "bench", sizeof("bench"));
	plan->cpu = HV_CPU_MODEL_V2;
	plan->memory_bytes = move->size_bytes;
	plan->vcpu_count = 1;
	vm_touched_of(bits, move->size_bytes / MIG_PAGE_BYTES, &plan->touched);
	return vm_plan_encode(plan, ret_text, err);
}

static int vm_plan(void *vm, struct mig_plan *ret_plan, struct base_error *err)
{
	struct bench_move *move = vm;
	struct mig_plan plan = { .object_count = 1, .capabilities = MIG_CAN_ALL };
	int r = plan_text(move, &plan.config, err);

	if (r < 0)
		return r;
	plan.objects = calloc(1, sizeof(*plan.objects));
	if (plan.objects != NULL)
		plan.objects[0].description = strdup("");
	if (plan.objects == NULL || plan.objects[0].description == NULL)
		return base_fail(err, -ENOMEM, "plan");
	plan.objects[0].object.unit_count = move->size_bytes / MIG_PAGE_BYTES;
	*ret_plan = plan;
	return 0;
}

static const uint8_t *vm_memory(void *vm)
{
	return ((struct bench_move *)vm)->from;
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
	const struct bench_move *move = vm;

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
	BASE_CLEANUP(plan_freep) struct vm_plan *told = calloc(1, sizeof(*told));
	struct bench_move *move = vm;
	int r = told != NULL ? vm_plan_decode(plan->config, told, err) : -ENOMEM;

	(void)findings;
	if (r == 0 && move->to == NULL)
		r = hv_memory_new(move->size_bytes, HV_MEMORY_AUTO, &move->to, err);
	if (r == 0)
		r = vm_ahead_start(move->to, &told->touched, &move->ahead, err);
	if (r == 0)
		*ret_memory = hv_memory_base(move->to);
	return r;
}

static void vm_came(void *vm, uint64_t bytes)
{
	vm_ahead_came(((struct bench_move *)vm)->ahead, bytes);
}

static int vm_check(void *vm, const uint8_t *state, size_t state_bytes, struct base_error *err)
{
	struct bench_move *move = vm;

	(void)state;
	vm_ahead_stop(base_take(&move->ahead));
	return state_bytes == STATE_BYTES ? 0 : base_fail(err, -EBADMSG, "state");
}

static const struct mig_destination_vm destination_vm = {
	.prepare = vm_prepare,
	.came = vm_came,
	.check = vm_check,
	.run = vm_run,
	.release = vm_release,
};

static int register_ask(void *context, uint64_t epoch, enum mig_side owner,
			struct mig_register *ret_register, struct base_error *err)
{
	struct bench_move *move = context;
	BASE_LOCKED(&move->lock);

	(void)err;
	if (move->owner.epoch == epoch)
		move->owner = (struct mig_register){ .epoch = epoch + 1, .owner = owner };
	*ret_register = move->owner;
	return 0;
}

static int register_read(void *context, struct mig_register *ret_register, struct base_error *err)
{
	struct bench_move *move = context;
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

void bench_move_address(struct bench_move *move, uint16_t port)
{
	move->address = (struct sockaddr_in){ .sin_family = AF_INET,
					      .sin_port = htons(port),
					      .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

void bench_move_listen(struct bench_move *move, uint16_t port)
{
	socklen_t length = sizeof(move->address);
	const int on = 1;

	bench_move_address(move, port);
	move->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socket_need(move->listen_fd, "socket");
	socket_need(setsockopt(move->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)),
		    "socket");
	socket_need(bind(move->listen_fd, (const struct sockaddr *)&move->address, length), "bind");
	socket_need(listen(move->listen_fd, 32), "listen");
	socket_need(getsockname(move->listen_fd, (struct sockaddr *)&move->address, &length),
		    "name");
}

static int dial(void *context, int *ret_fd, struct base_error *err)
{
	const struct bench_move *move = context;
	BASE_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)&move->address, sizeof(move->address)))
		return base_fail_errno(err, -errno, "connect");
	*ret_fd = base_take_fd(&fd);
	return 0;
}

void bench_move_in(struct bench_move *move)
{
	const struct mig_in_options options = { .vm = &destination_vm,
						.vm_context = move,
						.listen_fd = move->listen_fd,
						.arbiter = &move->arbiter,
						.keeps_register = true,
						.timeout_ms = move->timeout_ms };
	struct base_error err = { .code = 0 };
	uint64_t epoch = 0;

	(void)pthread_mutex_init(&move->lock, NULL);
	move->owner = (struct mig_register){ .epoch = 1, .owner = MIG_SOURCE };
	move->arbiter = (struct mig_arbiter){ register_ask, register_read, move };
	bench_need(mig_in_new(&options, &move->in, &err), &err);
	if (mig_in_run(move->in, &epoch, &err) != MIG_IN_RUNNING)
		bench_need(-EIO, &err);
}

void bench_move_in_end(struct bench_move *move)
{
	mig_in_linger(move->in, move->timeout_ms);
	mig_in_free(base_take(&move->in));
	(void)pthread_mutex_destroy(&move->lock);
}

void bench_move_out(struct bench_move *move)
{
	struct mig_out_options options = move->out;
	struct mig_findings *findings = calloc(1, sizeof(*findings));
	struct base_error err = { .code = 0 };
	struct mig_out *out = NULL;

	options.vm = &source_vm;
	options.vm_context = move;
	options.connect = dial;
	options.connect_context = move;
	options.epoch = 1;
	options.timeout_ms = move->timeout_ms;
	bench_need(findings != NULL ? mig_out_new(&options, &out, &err) : -ENOMEM, &err);
	if (mig_out_run(out, findings, &err) != MIG_OUT_MOVED)
		bench_need(-EIO, &err);
	mig_out_report(out, &move->report);
	mig_out_free(out);
	free(findings);
}
