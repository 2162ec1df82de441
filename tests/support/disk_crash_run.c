/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/disk_crash_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* A gap that is read along rather than starting another read. */
#define GAP_SECTORS 16U

static _Noreturn void give_up(const struct crash *crash, const char *what,
			      const struct base_error *err)
{
	(void)fprintf(stderr, "case %s: %s: %s\n", crash->plan->name, what,
		      err == NULL ? "failed" : err->text);
	exit(1);
}

uint64_t crash_random(struct crash *crash, uint64_t limit)
{
	crash->random = crash->random * 6364136223846793005ULL + 1442695040888963407ULL;
	return (crash->random >> 20) % limit;
}

uint64_t crash_size(const struct crash *crash)
{
	return crash->geometry.size_bytes;
}

static uint64_t count_now(const struct crash *crash)
{
	return fake_store_event_count(crash->store);
}

void crash_init(struct crash *crash, const struct crash_case *plan)
{
	struct base_io_loop_options options = { .without_ring = true };
	struct base_error err;

	*crash = (struct crash){ .plan = plan, .random = plan->plan.seed + 1, .idle = true };
	crash->time = (struct base_fake_clock){ .boot_ns = BASE_NS_PER_SECOND,
						.real_ns = 1800000000ULL * BASE_NS_PER_SECOND };
	crash->clock = base_clock_fake(&crash->time);
	options.clock = &crash->clock;
	crash_model_init(&crash->model, plan->plan.seed);
	crash->buffer = aligned_alloc(4096, CRASH_READ_MAX);
	if (crash->buffer == NULL || base_io_loop_new(&options, &crash->loop, &err) < 0 ||
	    fake_store_new(&crash->store, &err) < 0)
		give_up(crash, "set up", NULL);
}

void crash_fini(struct crash *crash)
{
	crash_wait(crash);
	disk_close(crash->disk);
	store_free(crash->store);
	base_io_loop_free(crash->loop);
	for (uint32_t i = 0; i < CRASH_IN_FLIGHT; i++)
		free(crash->slots[i].data);
	free(crash->buffer);
	crash_model_fini(&crash->model);
}

struct disk_options crash_options(const struct crash *crash, struct store *store, const char *name)
{
	return (struct disk_options){
		.store = store,
		.name = name,
		.format = crash->plan->create.format,
		.loop = crash->loop,
		.write_through = crash->plan->write_through,
		.on_no_space = DISK_POLICY_REPORT,
		.on_io_error = DISK_POLICY_REPORT,
		.on_gone = DISK_POLICY_REPORT,
	};
}

static void top_set(struct crash *crash, const char *first, const char *second)
{
	struct crash_top *top = &crash->tops[crash->top_count++];

	base_assert(crash->top_count <= CRASH_TOPS);
	top->from_count = count_now(crash);
	(void)snprintf(top->names[0], sizeof(top->names[0]), "%s", first);
	(void)snprintf(top->names[1], sizeof(top->names[1]), "%s", second);
}

static void disk_up(struct crash *crash)
{
	struct disk_options options = crash_options(crash, crash->store, crash->name);
	struct base_error err = { .code = 0 };

	if (disk_open_standby(&options, &crash->disk, &err) < 0 ||
	    disk_activate(crash->disk, STORE_EPOCH_NONE, NULL, &err) < 0)
		give_up(crash, "open", &err);
	disk_geometry(crash->disk, &crash->geometry);
}

static bool may_fail(const struct crash *crash)
{
	return crash->plan->plan.fail_at != 0 || crash->plan->plan.capacity_bytes != 0;
}

/* Closing is a flush, too. */
static void disk_down(struct crash *crash)
{
	struct base_error err = { .code = 0 };
	uint32_t number;
	int code;

	crash_wait(crash);
	number = crash_model_begin(&crash->model, DISK_FLUSH, 0, 0, count_now(crash));
	code = disk_deactivate(crash->disk, &err);
	if (code < 0 && !may_fail(crash))
		give_up(crash, "deactivate", &err);
	crash_model_end(&crash->model, number, code, false, count_now(crash));
	disk_close(crash->disk);
	crash->disk = NULL;
}

void crash_make(struct crash *crash, const char *name, const char *parent)
{
	struct disk_create_options create = crash->plan->create;
	struct base_error err = { .code = 0 };
	uint32_t number;

	if (crash->disk != NULL)
		disk_down(crash);
	if (parent != NULL) {
		create.kind = DISK_DIFFERENCING;
		create.parent = parent;
		create.parent_format = create.format;
		create.size_bytes = 0;
	}
	if (disk_create(crash->store, name, crash->loop, &create, &err) < 0)
		give_up(crash, "create", &err);
	(void)snprintf(crash->name, sizeof(crash->name), "%s", name);
	disk_up(crash);
	number = crash_model_begin(&crash->model, DISK_RESIZE, crash->geometry.size_bytes, 0, 0);
	crash_model_end(&crash->model, number, 0, true, 0);
}

void crash_record(struct crash *crash)
{
	struct base_error err = { .code = 0 };

	/* The record begins from what is durable. */
	disk_down(crash);
	if (fake_store_record(crash->store, &err) < 0)
		give_up(crash, "record", &err);
	fake_store_set_plan(crash->store, &crash->plan->plan);
	crash->recording = true;
	crash->top_count = 0;
	top_set(crash, crash->name, "");
	disk_up(crash);
}

/* --- requests --- */

static void slot_done(struct disk_request *request, int result)
{
	struct crash_slot *slot = request->context;
	struct crash *crash = slot->crash;
	bool durable = (request->flags & DISK_FUA) != 0 ||
		       (crash->plan->write_through && request->op == DISK_WRITE);

	if (result < 0 && !may_fail(crash)) {
		(void)fprintf(stderr, "case %s: operation %u (%d) at %" PRIu64 ": %s\n",
			      crash->plan->name, slot->number, (int)request->op,
			      request->offset_bytes, strerror(-result));
		exit(1);
	}
	crash_model_end(&crash->model, slot->number, result, durable, count_now(crash));
	slot->used = false;
	if (--crash->in_flight == 0)
		base_io_done(crash->loop, &crash->idle);
}

static struct crash_slot *slot_find(struct crash *crash)
{
	for (uint32_t i = 0; i < CRASH_IN_FLIGHT; i++)
		if (!crash->slots[i].used)
			return &crash->slots[i];
	return NULL;
}

static void slot_submit(struct crash_slot *slot, enum disk_op op, uint64_t offset_bytes,
			uint64_t length_bytes, uint32_t flags)
{
	struct crash *crash = slot->crash;
	uint64_t first = offset_bytes / CRASH_SECTOR;

	slot->used = true;
	crash->in_flight++;
	crash->idle = false;
	slot->request = (struct disk_request){
		.op = op,
		.flags = flags,
		.offset_bytes = offset_bytes,
		.length_bytes = length_bytes,
		.done = slot_done,
		.context = slot,
	};
	if (op == DISK_WRITE) {
		if (slot->data == NULL)
			slot->data = aligned_alloc(4096, CRASH_LENGTH_MAX);
		base_assert(slot->data != NULL && length_bytes <= CRASH_LENGTH_MAX);
		for (uint64_t i = 0; i < length_bytes / CRASH_SECTOR; i++)
			crash_model_stamp(&crash->model, slot->number, first + i,
					  slot->data + i * CRASH_SECTOR);
		slot->iov = (struct iovec){ slot->data, length_bytes };
		slot->request.iov = &slot->iov;
		slot->request.iov_count = 1;
	}
	disk_submit(crash->disk, &slot->request);
}

/* What of an UNMAP takes effect. */
static void trim(const struct crash *crash, uint64_t *offset_bytes, uint64_t *length_bytes)
{
	uint64_t granule = crash->geometry.unmap_granularity_bytes;
	uint64_t end = (*offset_bytes + *length_bytes) / granule * granule;
	uint64_t begin = (*offset_bytes + granule - 1) / granule * granule;

	*offset_bytes = begin;
	*length_bytes = end > begin ? end - begin : 0;
}

static bool try_op(struct crash *crash, enum disk_op op, uint64_t offset_bytes,
		   uint64_t length_bytes, uint32_t flags)
{
	struct crash_slot *slot = slot_find(crash);
	uint64_t model_offset = offset_bytes;
	uint64_t model_length;

	if (op != DISK_RESIZE && length_bytes > crash->geometry.size_bytes - offset_bytes)
		length_bytes = crash->geometry.size_bytes - offset_bytes;
	model_length = length_bytes;

	if (slot == NULL || crash_model_busy(&crash->model, offset_bytes, length_bytes))
		return false;
	if (op == DISK_UNMAP)
		trim(crash, &model_offset, &model_length);
	slot->crash = crash;
	slot->number =
		crash_model_begin(&crash->model, op, model_offset, model_length, count_now(crash));
	slot_submit(slot, op, offset_bytes, length_bytes, flags);
	return true;
}

static void do_op(struct crash *crash, enum disk_op op, uint64_t offset_bytes,
		  uint64_t length_bytes, uint32_t flags)
{
	while (!try_op(crash, op, offset_bytes, length_bytes, flags))
		(void)base_io_loop_step(crash->loop, true);
}

void crash_write(struct crash *crash, uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags)
{
	do_op(crash, DISK_WRITE, offset_bytes, length_bytes, flags);
}

void crash_zero(struct crash *crash, uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags)
{
	do_op(crash, DISK_ZERO, offset_bytes, length_bytes, flags);
}

void crash_unmap(struct crash *crash, uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags)
{
	do_op(crash, DISK_UNMAP, offset_bytes, length_bytes, flags);
}

void crash_flush(struct crash *crash)
{
	do_op(crash, DISK_FLUSH, 0, 0, 0);
}

bool crash_try_write(struct crash *crash, uint64_t offset_bytes, uint64_t length_bytes,
		     uint32_t flags)
{
	return try_op(crash, DISK_WRITE, offset_bytes, length_bytes, flags);
}

void crash_wait(struct crash *crash)
{
	base_io_wait(crash->loop, &crash->idle);
}

void crash_resize(struct crash *crash, uint64_t size_bytes)
{
	crash_wait(crash);
	do_op(crash, DISK_RESIZE, size_bytes, 0, 0);
	crash_wait(crash);
	disk_geometry(crash->disk, &crash->geometry);
}

void crash_tick(struct crash *crash, uint64_t duration_ms)
{
	crash_wait(crash);
	crash->time.boot_ns += duration_ms * BASE_NS_PER_MS;
	while (base_io_loop_step(crash->loop, false))
		;
}

/* --- reading --- */

bool crash_compare_run(const struct crash *crash, struct disk *disk, uint64_t event_count,
		       uint64_t offset_bytes, uint64_t length_bytes, char *why)
{
	struct base_error err = { .code = 0 };

	if (disk_do(disk, DISK_READ, offset_bytes, crash->buffer, length_bytes, &err) < 0) {
		(void)snprintf(why, CRASH_WHY_BYTES, "read: %s", err.text);
		return false;
	}
	for (uint64_t i = 0; i < length_bytes / CRASH_SECTOR; i++)
		if (!crash_model_allows(&crash->model, offset_bytes / CRASH_SECTOR + i, event_count,
					crash->buffer + i * CRASH_SECTOR, why, CRASH_WHY_BYTES))
			return false;
	return true;
}

bool crash_compare(const struct crash *crash, struct disk *disk, uint64_t event_count, char *why)
{
	const struct crash_model *model = &crash->model;
	struct disk_geometry geometry;
	uint64_t logical;
	size_t at = 0;

	disk_geometry(disk, &geometry);
	logical = geometry.logical_sector_bytes;
	if (!crash_model_allows_size(model, geometry.size_bytes, event_count)) {
		(void)snprintf(why, CRASH_WHY_BYTES, "a size of %" PRIu64 " bytes",
			       geometry.size_bytes);
		return false;
	}
	while (at < model->written_count) {
		uint64_t first = model->written[at];
		uint64_t end = first + 1;
		uint64_t begin_bytes = first * CRASH_SECTOR / logical * logical;
		uint64_t end_bytes;

		for (at++; at < model->written_count; at++) {
			if (model->written[at] > end + GAP_SECTORS ||
			    model->written[at] - first >= CRASH_READ_MAX / CRASH_SECTOR - 16)
				break;
			end = model->written[at] + 1;
		}
		end_bytes = (end * CRASH_SECTOR + logical - 1) / logical * logical;
		if (end_bytes > geometry.size_bytes)
			end_bytes = geometry.size_bytes;
		if (begin_bytes < end_bytes &&
		    !crash_compare_run(crash, disk, event_count, begin_bytes,
				       end_bytes - begin_bytes, why))
			return false;
	}
	return true;
}

void crash_verify(struct crash *crash)
{
	char why[CRASH_WHY_BYTES] = "";

	crash_wait(crash);
	crash_model_sort(&crash->model);
	if (crash_compare(crash, crash->disk, CRASH_NOW, why))
		return;
	(void)fprintf(stderr, "case %s: without a power failure: %s\n", crash->plan->name, why);
	exit(1);
}

/* --- larger things --- */

void crash_reopen(struct crash *crash)
{
	disk_down(crash);
	disk_up(crash);
}

void crash_checkpoint(struct crash *crash, const char *name)
{
	struct base_error err = { .code = 0 };

	top_set(crash, name, crash->name);
	if (disk_checkpoint(crash->disk, name, &err) < 0)
		give_up(crash, "checkpoint", &err);
	(void)snprintf(crash->name, sizeof(crash->name), "%s", name);
	top_set(crash, crash->name, "");
	disk_geometry(crash->disk, &crash->geometry);
}

static int job_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	struct crash *crash = context;

	base_assert(done_bytes <= total_bytes);
	if (crash->guest != NULL)
		crash->guest(crash);
	return 0;
}

void crash_merge(struct crash *crash, uint32_t index, void (*guest)(struct crash *crash))
{
	struct base_error err = { .code = 0 };
	struct disk_layer_info info;

	if (index == 0) {
		if (disk_layer(crash->disk, 1, &info, &err) < 0)
			give_up(crash, "parent of the top", &err);
		top_set(crash, crash->name, info.name);
		(void)snprintf(crash->name, sizeof(crash->name), "%.63s", info.name);
	}
	crash->guest = guest;
	if (disk_merge(crash->disk, index, job_progress, crash, &err) < 0)
		give_up(crash, "merge", &err);
	if (index == 0)
		top_set(crash, crash->name, "");
	disk_geometry(crash->disk, &crash->geometry);
}

void crash_compact(struct crash *crash, void (*guest)(struct crash *crash))
{
	struct base_error err = { .code = 0 };

	crash->guest = guest;
	if (disk_compact(crash->disk, job_progress, crash, &err) < 0)
		give_up(crash, "compact", &err);
}
