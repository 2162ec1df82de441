/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/disk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/disk_lab.h"

#define MIB  (1ULL << 20)
#define SIZE (8 * MIB)

static struct disk_lab lab;

static void setup(void)
{
	disk_lab_init(&lab);
	disk_lab_make(&lab, "a.img", DISK_RAW, DISK_DYNAMIC, SIZE, NULL);
}

static void teardown(void)
{
	disk_lab_fini(&lab);
}

TestSuite(disk, .init = setup, .fini = teardown);

static int open_code(const char *name, enum disk_format format, struct base_error *err)
{
	const struct disk_options options = {
		.store = lab.store, .name = name, .format = format, .loop = lab.loop
	};
	struct disk *disk = NULL;
	int rc = disk_open_standby(&options, &disk, err);

	disk_close(disk);
	return rc;
}

Test(disk, open_errors)
{
	struct base_error err = { .code = 0 };
	char longest[STORE_NAME_BYTES + 1];

	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	cr_assert_eq(open_code("none.img", DISK_RAW, &err), -ENOENT);
	cr_assert_not_null(strstr(err.text, "none.img"), "%s", err.text);
	cr_assert_eq(open_code("none.img", DISK_FORMAT_INVALID, &err), -ENOENT);
	cr_assert_eq(open_code(NULL, DISK_RAW, &err), -EINVAL);
	cr_assert_eq(open_code(longest, DISK_RAW, &err), -EINVAL);
	cr_assert_eq(open_code("a.img", DISK_FORMATS, &err), -EINVAL);
	cr_assert_eq(open_code("a.img", DISK_VHDX, &err), -EBADMSG, "%s", err.text);
	cr_assert_eq(open_code("a.img", DISK_RAW, &err), 0);
	disk_close(NULL);
}

Test(disk, open_without_memory)
{
	for (unsigned int k = 0;; k++) {
		int rc;

		alloc_fail_at(k);
		rc = open_code("a.img", DISK_RAW, NULL);
		if (!alloc_fail_done()) {
			cr_assert_eq(rc, 0);
			break;
		}
		cr_assert_eq(rc, -ENOMEM, "allocation %u: %d", k, rc);
	}
}

Test(disk, standby_reads_and_does_not_write)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct disk_geometry geometry;

	cr_assert_eq(lab_write(disk, 4096, 8192, 1), 0);
	cr_assert_eq(disk_epoch(disk), 7);
	disk_close(disk);

	disk = disk_lab_open_standby(&lab, "a.img");
	disk_geometry(disk, &geometry);
	cr_assert_eq(geometry.size_bytes, SIZE);
	cr_assert_eq(disk_epoch(disk), STORE_EPOCH_NONE);
	cr_assert_eq(lab_verify(disk, 4096, 8192, 1), 0);
	cr_assert_eq(lab_write(disk, 4096, 8192, 2), -EROFS);
	cr_assert_eq(disk_do(disk, DISK_ZERO, 0, NULL, 4096, NULL), -EROFS);
	cr_assert_eq(disk_do(disk, DISK_UNMAP, 0, NULL, 4096, NULL), -EROFS);
	cr_assert_eq(disk_do(disk, DISK_RESIZE, 2 * SIZE, NULL, 0, NULL), -EROFS);
	cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), 0);
	cr_assert_eq(lab_verify(disk, 4096, 8192, 1), 0);
	disk_close(disk);
}

Test(disk, activate_errors)
{
	struct base_error err = { .code = 0 };
	struct disk *holder = disk_lab_open(&lab, "a.img");
	struct disk *disk = disk_lab_open_standby(&lab, "a.img");

	cr_assert_eq(disk_activate(holder, 8, NULL, &err), -EPROTO);
	cr_assert_eq(disk_activate(disk, 6, NULL, &err), -ESTALE, "%s", err.text);
	cr_assert_eq(disk_activate(disk, 7, NULL, &err), -EBUSY, "%s", err.text);
	cr_assert_eq(lab_verify(disk, 0, 4096, 0), 0); /* standby still */
	cr_assert_eq(lab_write(disk, 0, 4096, 1), -EROFS);
	cr_assert_eq(disk_deactivate(holder, &err), 0);
	cr_assert_eq(disk_activate(disk, 8, NULL, &err), 0, "%s", err.text);
	cr_assert_eq(lab_write(disk, 0, 4096, 1), 0);
	cr_assert_eq(disk_deactivate(disk, &err), 0);
	cr_assert_eq(disk_deactivate(disk, &err), 0); /* twice does no harm */
	disk_close(disk);
	disk_close(holder);

	lab.options.read_only = true;
	disk = disk_lab_open_standby(&lab, "a.img");
	cr_assert_eq(disk_activate(disk, 9, NULL, &err), -EROFS);
	cr_assert_eq(lab_verify(disk, 0, 4096, 1), 0);
	cr_assert_eq(lab_write(disk, 0, 4096, 2), -EROFS);
	disk_close(disk);
}

Test(disk, activate_at_the_recorded_epoch)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");

	disk_close(disk);
	disk = disk_lab_open_standby(&lab, "a.img");
	cr_assert_eq(disk_activate(disk, STORE_EPOCH_NONE, NULL, NULL), 0);
	cr_assert_eq(disk_epoch(disk), 7);
	disk_close(disk);
}

Test(disk, deactivated_requests_wait_and_go_on)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request write;
	struct lab_request read;

	cr_assert_eq(disk_deactivate(disk, NULL), 0);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 3);
	lab_submit(disk, &read, DISK_READ, 0, 8192, 4096, 1);
	disk_lab_settle(&lab);
	cr_assert(!write.done && !read.done);
	cr_assert_eq(disk_activate(disk, 7, NULL, NULL), 0);
	disk_lab_settle(&lab);
	cr_assert(write.done && read.done);
	cr_assert_eq(write.result, 0);
	cr_assert_eq(lab_verify(disk, 0, 4096, 3), 0);
	lab_request_fini(&write);
	lab_request_fini(&read);
	disk_close(disk);
}

Test(disk, close_ends_what_waits)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request write;

	cr_assert_eq(disk_deactivate(disk, NULL), 0);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 3);
	disk_close(disk);
	cr_assert(write.done);
	cr_assert_eq(write.result, -ECANCELED);
	lab_request_fini(&write);
}

Test(disk, hold_is_counted_and_keeps_order)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request write[3];

	lab_submit(disk, &write[0], DISK_WRITE, 0, 0, 4096, 1);
	disk_hold(disk);
	cr_assert(write[0].done);
	disk_hold(disk);
	lab_submit(disk, &write[1], DISK_WRITE, 0, 4096, 4096, 1);
	lab_submit(disk, &write[2], DISK_WRITE, 0, 8192, 4096, 1);
	disk_unhold(disk);
	disk_lab_settle(&lab);
	cr_assert(!write[1].done && !write[2].done);
	disk_unhold(disk);
	disk_lab_settle(&lab);
	cr_assert(write[1].done && write[2].done);
	cr_assert_lt(write[1].order, write[2].order);
	for (int i = 0; i < 3; i++)
		lab_request_fini(&write[i]);
	disk_close(disk);
}

/* --- validation --- */

static int code_of(struct disk *disk, enum disk_op op, uint32_t flags, uint64_t offset,
		   uint64_t length)
{
	struct lab_request request;

	lab_submit(disk, &request, op, flags, offset, length > SIZE ? 0 : length, 1);
	(void)request;
	disk_lab_settle(&lab);
	cr_assert(request.done);
	lab_request_fini(&request);
	return request.result;
}

Test(disk, malformed_requests)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");

	cr_assert_eq(code_of(disk, DISK_OP_INVALID, 0, 0, 512), -EINVAL);
	cr_assert_eq(code_of(disk, DISK_OPS, 0, 0, 512), -EINVAL);
	cr_assert_eq(code_of(disk, DISK_READ, DISK_FUA, 0, 512), -EINVAL);
	cr_assert_eq(code_of(disk, DISK_WRITE, DISK_MAY_UNMAP, 0, 512), -EINVAL);
	cr_assert_eq(code_of(disk, DISK_WRITE, 0, 1, 512), -EINVAL);
	cr_assert_eq(code_of(disk, DISK_WRITE, 0, 0, 104), -EINVAL);
	cr_assert_eq(code_of(disk, DISK_READ, 0, SIZE, 512), -EINVAL);
	cr_assert_eq(code_of(disk, DISK_READ, 0, SIZE - 512, 1024), -EINVAL);
	cr_assert_eq(code_of(disk, DISK_READ, 0, UINT64_MAX - 511, 512), -EINVAL);
	cr_assert_eq(code_of(disk, DISK_MAP, 0, 0, 512), -EINVAL); /* no extents */
	cr_assert_eq(code_of(disk, DISK_RESIZE, 0, 0, 0), -EINVAL);
	cr_assert_eq(code_of(disk, DISK_RESIZE, 0, 4097, 0), -EINVAL);
	cr_assert_eq(code_of(disk, DISK_WRITE, 0, SIZE, 0), 0);   /* nothing at the end: nothing */
	cr_assert_eq(code_of(disk, DISK_UNMAP, 0, 512, 1024), 0); /* less than a granule */
	cr_assert_eq(disk_do(disk, DISK_ZERO, 512, NULL, UINT64_MAX - 511, NULL), -EINVAL);
	disk_close(disk);
}

static int iov_code(struct disk *disk, struct iovec *iov, uint32_t count, uint64_t length)
{
	struct lab_request request;

	memset(&request, 0, sizeof(request));
	lab_submit(disk, &request, DISK_FLUSH, 0, 0, 0, 0);
	disk_lab_settle(&lab);
	request.done = false;
	request.request.op = DISK_READ;
	request.request.iov = iov;
	request.request.iov_count = count;
	request.request.length_bytes = length;
	disk_submit(disk, &request.request);
	disk_lab_settle(&lab);
	cr_assert(request.done);
	return request.result;
}

Test(disk, malformed_iovs)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	_Alignas(4096) static uint8_t memory[4096];
	struct iovec one = { memory, 1024 };
	struct iovec two[2] = { { memory, 512 }, { memory + 512, 512 } };
	static struct iovec many[DISK_REQUEST_IOVECS_MAX + 1];

	for (size_t i = 0; i < DISK_REQUEST_IOVECS_MAX + 1; i++)
		many[i] = (struct iovec){ memory, 512 };
	cr_assert_eq(iov_code(disk, &one, 1, 1024), 0);
	cr_assert_eq(iov_code(disk, two, 2, 1024), 0);
	cr_assert_eq(iov_code(disk, two, 2, 512), -EINVAL);
	cr_assert_eq(iov_code(disk, two, 1, 1024), -EINVAL);
	cr_assert_eq(iov_code(disk, NULL, 1, 1024), -EINVAL);
	cr_assert_eq(iov_code(disk, two, 0, 1024), -EINVAL);
	cr_assert_eq(
		iov_code(disk, many, DISK_REQUEST_IOVECS_MAX, 512ULL * DISK_REQUEST_IOVECS_MAX), 0);
	cr_assert_eq(iov_code(disk, many, DISK_REQUEST_IOVECS_MAX + 1,
			      512ULL * (DISK_REQUEST_IOVECS_MAX + 1)),
		     -EINVAL);
	two[1].iov_len = 0;
	cr_assert_eq(iov_code(disk, two, 2, 512), -EINVAL);
	one.iov_base = memory + 8;
	cr_assert_eq(iov_code(disk, &one, 1, 1024), -EINVAL);
	one.iov_base = NULL;
	cr_assert_eq(iov_code(disk, &one, 1, 1024), -EINVAL);
	disk_close(disk);
}

Test(disk, request_without_memory)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request request;

	memset(&request, 0, sizeof(request));
	alloc_fail_at(0);
	lab_submit(disk, &request, DISK_FLUSH, 0, 0, 0, 0);
	cr_assert(alloc_fail_done());
	disk_lab_settle(&lab);
	cr_assert_eq(request.result, -ENOMEM);
	disk_close(disk);
}

Test(disk, unmap_is_trimmed_to_granules)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct disk_geometry geometry;
	uint64_t granule = 0;

	disk_geometry(disk, &geometry);
	granule = geometry.unmap_granularity_bytes;
	cr_assert_gt(granule, 512);
	cr_assert_eq(lab_write(disk, 0, 4 * granule, 5), 0);
	cr_assert_eq(disk_do(disk, DISK_UNMAP, 512, NULL, 3 * granule, NULL), 0);
	cr_assert_eq(lab_verify(disk, 0, granule, 5), 0);
	cr_assert_eq(lab_verify(disk, granule, 2 * granule, 0), 0);
	cr_assert_eq(lab_verify(disk, 3 * granule, granule, 5), 0);
	disk_close(disk);
}

Test(disk, resize_is_told_and_bounds_follow)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct disk_geometry geometry;
	struct disk_request unmap = {
		.op = DISK_ZERO, .flags = DISK_MAY_UNMAP, .offset_bytes = SIZE, .length_bytes = SIZE
	};

	cr_assert_eq(disk_do(disk, DISK_RESIZE, 2 * SIZE, NULL, 0, NULL), 0);
	cr_assert_eq(lab.resized, 1);
	cr_assert_eq(lab.size_bytes, 2 * SIZE);
	disk_geometry(disk, &geometry);
	cr_assert_eq(geometry.size_bytes, 2 * SIZE);
	cr_assert_eq(lab_write(disk, 2 * SIZE - 4096, 4096, 2), 0);
	cr_assert_eq(disk_do(disk, DISK_RESIZE, SIZE, NULL, 0, NULL), -EBUSY);
	cr_assert_eq(disk_do_request(disk, &unmap, NULL), 0);
	cr_assert_eq(disk_do(disk, DISK_RESIZE, SIZE, NULL, 0, NULL), 0);
	cr_assert_eq(lab_verify(disk, SIZE, 4096, 0), -EINVAL);
	disk_close(disk);
}

Test(disk, a_request_that_waited_over_a_shrink_is_refused)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request resize;
	struct lab_request read;

	disk_hold(disk);
	lab_submit(disk, &resize, DISK_RESIZE, 0, SIZE / 2, 0, 0);
	disk_unhold(disk);
	disk_hold(disk); /* the resize is through */
	disk_unhold(disk);
	disk_lab_settle(&lab);
	cr_assert_eq(resize.result, 0);
	cr_assert_eq(disk_do(disk, DISK_RESIZE, SIZE, NULL, 0, NULL), 0);
	disk_hold(disk);
	lab_submit(disk, &resize, DISK_RESIZE, 0, SIZE / 2, 0, 0);
	lab_submit(disk, &read, DISK_WRITE, 0, SIZE - 4096, 4096, 1); /* waits for the whole disk */
	disk_unhold(disk);
	disk_lab_settle(&lab);
	cr_assert(resize.done && read.done);
	cr_assert_eq(resize.result, 0);
	cr_assert_eq(read.result, -EINVAL);
	lab_request_fini(&read);
	disk_close(disk);
}

static uint64_t flushes_of_a_write(bool write_through)
{
	struct disk *disk = NULL;
	struct fake_store_plan plan = { .fail_ops = 1U << STORE_WRITE };
	uint64_t before = 0;

	lab.options.write_through = write_through;
	disk = disk_lab_open(&lab, "a.img");
	fake_store_set_plan(lab.store, &plan);
	cr_assert_eq(fake_store_record(lab.store, NULL), 0);
	cr_assert_eq(lab_write(disk, 0, 4096, 9), 0);
	before = fake_store_event_count(lab.store);
	{
		struct store *crashed = NULL;
		uint8_t bytes[512];
		uint64_t there = 0;

		cr_assert_eq(fake_store_crash(lab.store, before, FAKE_LOSE_ALL, 1, &crashed, NULL),
			     0);
		cr_assert(fake_store_peek(crashed, "a.img", 0, bytes, sizeof(bytes)));
		there = lab_differs(bytes, 0, sizeof(bytes), 9) == UINT64_MAX;
		store_free(crashed);
		disk_close(disk);
		return there;
	}
}

Test(disk, write_through_makes_every_write_durable)
{
	cr_assert_eq(flushes_of_a_write(true), 1);
}

Test(disk, without_it_a_write_may_be_lost)
{
	cr_assert_eq(flushes_of_a_write(false), 0);
}

Test(disk, layer_info)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct disk_layer_info info;
	struct base_error err = { .code = 0 };

	cr_assert_eq(disk_layer(disk, 0, &info, &err), 0, "%s", err.text);
	cr_assert_eq(info.format, DISK_RAW);
	cr_assert_eq(info.size_bytes, SIZE);
	cr_assert_str_eq(info.name, "a.img");
	cr_assert_eq(disk_layer(disk, 1, &info, &err), -ENOENT);
	cr_assert_eq(disk_compact(disk, NULL, NULL, &err), -EOPNOTSUPP);
	disk_close(disk);
}

Test(disk, probe)
{
	enum disk_format format = DISK_FORMAT_INVALID;
	const char vhd[8] = { 'c', 'o', 'n', 'e', 'c', 't', 'i', 'x' };
	const char vhdx[8] = { 'v', 'h', 'd', 'x', 'f', 'i', 'l', 'e' };

	cr_assert_eq(disk_probe(lab.store, "a.img", lab.loop, &format, NULL), 0);
	cr_assert_eq(format, DISK_RAW);
	cr_assert(fake_store_poke(lab.store, "a.img", SIZE - 512, vhd, sizeof(vhd)));
	cr_assert_eq(disk_probe(lab.store, "a.img", lab.loop, &format, NULL), 0);
	cr_assert_eq(format, DISK_VHD);
	cr_assert(fake_store_poke(lab.store, "a.img", 0, vhdx, sizeof(vhdx)));
	cr_assert_eq(disk_probe(lab.store, "a.img", lab.loop, &format, NULL), 0);
	cr_assert_eq(format, DISK_VHDX);
	cr_assert_eq(disk_probe(lab.store, "b.img", lab.loop, &format, NULL), -ENOENT);
}

static int create_code(const struct disk_create_options *options)
{
	struct base_error err = { .code = 0 };

	return disk_create(lab.store, "new", lab.loop, options, &err);
}

Test(disk, create_errors)
{
	struct disk_create_options options = { .format = DISK_RAW,
					       .kind = DISK_DYNAMIC,
					       .size_bytes = SIZE };

	options.format = DISK_FORMATS;
	cr_assert_eq(create_code(&options), -EINVAL);
	options.format = DISK_RAW;
	options.kind = DISK_KINDS;
	cr_assert_eq(create_code(&options), -EINVAL);
	options.kind = DISK_DIFFERENCING;
	cr_assert_eq(create_code(&options), -EINVAL); /* no parent */
	options.parent = "a.img";
	cr_assert_eq(create_code(&options), -EINVAL); /* raw has none */
	options.format = DISK_VHDX;
	options.parent = "new";
	cr_assert_eq(create_code(&options), -EINVAL);
	options.parent = "gone";
	cr_assert_eq(create_code(&options), -ENOENT);
	options.kind = DISK_DYNAMIC;
	cr_assert_eq(create_code(&options), -EINVAL); /* a parent, and no child */
	options = (struct disk_create_options){ .format = DISK_RAW,
						.kind = DISK_DYNAMIC,
						.size_bytes = SIZE };
	cr_assert_eq(create_code(&options), 0);
	cr_assert_eq(create_code(&options), -EEXIST);
}

Test(disk, check_of_a_raw_image)
{
	const struct disk_options options = {
		.store = lab.store, .name = "a.img", .format = DISK_RAW, .loop = lab.loop
	};
	struct disk_options gone = options;
	struct disk_check_result result = { .damages = 9 };

	cr_assert_eq(disk_check(&options, false, NULL, NULL, &result, NULL), 0);
	cr_assert_eq(result.damages, 0);
	gone.name = "gone";
	cr_assert_eq(disk_check(&gone, false, NULL, NULL, &result, NULL), -ENOENT);
	gone.name = NULL;
	cr_assert_eq(disk_check(&gone, false, NULL, NULL, &result, NULL), -EINVAL);
}

/* --- threads --- */

#define THREADS 4
#define EACH    200

struct hammer {
	struct disk *disk;
	uint32_t number;
};

static void *hammer(void *context)
{
	const struct hammer *one = context;

	for (uint32_t i = 0; i < EACH; i++) {
		uint64_t at = (one->number * EACH + i) * 4096ULL;

		cr_assert_eq(lab_write(one->disk, at, 4096, i + 1), 0);
		cr_assert_eq(lab_verify(one->disk, at, 4096, i + 1), 0);
	}
	return NULL;
}

Test(disk, requests_from_many_threads)
{
	struct base_io_loop_options loop_options = { .without_ring = true };
	struct disk_options options = { .store = lab.store, .name = "a.img", .format = DISK_RAW };
	struct hammer hammers[THREADS];
	pthread_t threads[THREADS];
	struct base_io_loop *loop = NULL;
	struct disk *disk = NULL;

	cr_assert_eq(base_io_loop_new(&loop_options, &loop, NULL), 0);
	cr_assert_eq(base_io_loop_start(loop, "disk", NULL), 0);
	options.loop = loop;
	cr_assert_eq(disk_open_standby(&options, &disk, NULL), 0);
	cr_assert_eq(disk_activate(disk, 1, NULL, NULL), 0);
	for (uint32_t i = 0; i < THREADS; i++) {
		hammers[i] = (struct hammer){ disk, i };
		cr_assert_eq(base_thread_start(&threads[i], "hammer", hammer, &hammers[i], NULL),
			     0);
	}
	for (uint32_t i = 0; i < 50; i++) {
		struct disk_geometry geometry;

		disk_hold(disk);
		disk_geometry(disk, &geometry);
		cr_assert_eq(geometry.size_bytes, SIZE);
		disk_unhold(disk);
		disk_retry(disk);
	}
	for (uint32_t i = 0; i < THREADS; i++)
		base_thread_join(threads[i]);
	cr_assert_eq(disk_deactivate(disk, NULL), 0);
	disk_close(disk);
	base_io_loop_free(loop);
}

/* --- a guest that submits again from done --- */

#define AGAIN 50000U

struct again {
	struct disk_request request;
	struct disk *disk;
	struct iovec iov;
	const char *stack; /* where the first done ran */
	uint32_t count;
	size_t deepest;
};

static void again_done(struct disk_request *request, int result)
{
	struct again *again = request->context;
	const char *here = __builtin_frame_address(0);
	size_t depth = 0;

	cr_assert_eq(result, 0);
	if (again->stack == NULL)
		again->stack = here;
	depth = (size_t)llabs((long long)((intptr_t)again->stack - (intptr_t)here));
	if (depth > again->deepest)
		again->deepest = depth;
	if (++again->count < AGAIN)
		disk_submit(again->disk, request);
}

/* Requests that the image ends within submit(): the stack stays where it is. */
static void submit_again(const char *name, enum disk_op op)
{
	static _Alignas(4096) uint8_t buffer[4096];
	struct again again = { .disk = disk_lab_open(&lab, name) };
	struct disk_extent extent;

	again.iov = (struct iovec){ buffer, sizeof(buffer) };
	again.request = (struct disk_request){ .op = op,
					       .length_bytes = sizeof(buffer),
					       .iov = &again.iov,
					       .iov_count = 1,
					       .extents = &extent,
					       .extent_capacity = 1,
					       .done = again_done,
					       .context = &again };
	disk_submit(again.disk, &again.request);
	cr_assert_eq(again.count, 0);
	while (again.count < AGAIN)
		cr_assert(base_io_loop_step(lab.loop, false));
	cr_assert_lt(again.deepest, 4096, "%zu", again.deepest);
	disk_close(again.disk);
}

Test(disk, a_guest_that_submits_again_from_done)
{
	disk_lab_make(&lab, "a.vhdx", DISK_VHDX, DISK_DYNAMIC, SIZE, NULL);
	disk_lab_make(&lab, "a.vhd", DISK_VHD, DISK_DYNAMIC, SIZE, NULL);
	submit_again("a.vhdx", DISK_READ);
	submit_again("a.vhdx", DISK_MAP);
	submit_again("a.vhdx", DISK_UNMAP);
	submit_again("a.vhdx", DISK_FLUSH);
	submit_again("a.vhd", DISK_READ);
	submit_again("a.vhd", DISK_MAP);
	submit_again("a.img", DISK_MAP);
}
