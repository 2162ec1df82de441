/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/disk.h"
#include "tests/support/disk_lab.h"

#define MIB    (1ULL << 20)
#define SIZE   (8 * MIB)
#define SEEN   64U
#define MIRROR (4 * MIB)

struct seen {
	struct disk_hook_event event;
	uint8_t first; /* byte of the data */
};

static struct disk_lab lab;
static struct disk *disk;
static struct seen seen[SEEN];
static uint32_t seen_count;
static bool answer_at_once;
static uint8_t mirror[MIRROR];

static void setup(void)
{
	disk_lab_init(&lab);
	disk_lab_make(&lab, "a.img", DISK_RAW, DISK_DYNAMIC, SIZE, NULL);
	disk = disk_lab_open(&lab, "a.img");
	seen_count = 0;
	answer_at_once = true;
	memset(mirror, 0, sizeof(mirror));
}

static void teardown(void)
{
	disk_close(disk);
	disk_lab_fini(&lab);
}

TestSuite(disk_hook, .init = setup, .fini = teardown);

static void hook(void *context, const struct disk_hook_event *event)
{
	struct seen *one = &seen[seen_count++ % SEEN];

	cr_assert_eq(context, &lab);
	one->event = *event;
	one->first = event->data != NULL ? *(const uint8_t *)event->data : 0;
	if (event->op == DISK_WRITE && event->offset_bytes + event->length_bytes <= MIRROR)
		memcpy(mirror + event->offset_bytes, event->data, event->length_bytes);
	if (answer_at_once)
		disk_hook_done(disk, event->request);
}

static void hook_on(void)
{
	cr_assert_eq(disk_hook_set(disk, hook, &lab, NULL), 0);
}

static void hook_off(void)
{
	cr_assert_eq(disk_hook_set(disk, NULL, NULL, NULL), 0);
}

Test(disk_hook, sees_every_change_and_nothing_else)
{
	struct disk_geometry geometry;

	disk_geometry(disk, &geometry);
	hook_on();
	cr_assert_eq(lab_write(disk, 4096, 8192, 1), 0);
	cr_assert_eq(lab_verify(disk, 4096, 8192, 1), 0);
	cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), 0);
	cr_assert_eq(disk_do(disk, DISK_ZERO, 512, NULL, 1024, NULL), 0);
	cr_assert_eq(disk_do(disk, DISK_UNMAP, 512, NULL, 4 * MIB, NULL), 0);
	cr_assert_eq(disk_do(disk, DISK_RESIZE, 2 * SIZE, NULL, 0, NULL), 0);
	cr_assert_eq(disk_do(disk, DISK_WRITE, 1, NULL, 0, NULL), -EINVAL);
	cr_assert_eq(seen_count, 4);
	cr_assert_eq(seen[0].event.op, DISK_WRITE);
	cr_assert_eq(seen[0].event.length_bytes, 8192);
	cr_assert_eq(seen[1].event.op, DISK_ZERO);
	cr_assert_eq(seen[1].event.offset_bytes, 512);
	cr_assert_eq(seen[2].event.op, DISK_UNMAP); /* trimmed */
	cr_assert_eq(seen[2].event.offset_bytes % geometry.unmap_granularity_bytes, 0);
	cr_assert_eq(seen[2].event.length_bytes % geometry.unmap_granularity_bytes, 0);
	cr_assert_eq(seen[3].event.op, DISK_RESIZE);
	cr_assert_eq(seen[3].event.offset_bytes, 2 * SIZE);
	hook_off();
	cr_assert_eq(lab_write(disk, 4096, 4096, 1), 0);
	cr_assert_eq(seen_count, 4);
}

Test(disk_hook, a_write_that_failed_is_not_seen)
{
	struct fake_store_plan plan = { .fail_at = 1,
					.fail_ops = 1U << STORE_WRITE,
					.fail_code = -EIO };

	hook_on();
	fake_store_set_plan(lab.store, &plan);
	cr_assert_eq(lab_write(disk, 0, 4096, 1), -EIO);
	cr_assert_eq(seen_count, 0);
	hook_off();
}

Test(disk_hook, one_at_a_time)
{
	struct base_error err = { .code = 0 };

	hook_on();
	cr_assert_eq(disk_hook_set(disk, hook, &lab, &err), -EBUSY);
	hook_off();
	hook_on();
	hook_off();
}

/* The guest's completion waits for the hook, and so does whoever overlaps. */
Test(disk_hook, overlapping_writes_come_in_order)
{
	struct lab_request write[3];

	hook_on();
	answer_at_once = false;
	lab_submit(disk, &write[0], DISK_WRITE, 0, 0, 8192, 1);
	lab_submit(disk, &write[1], DISK_WRITE, 0, 4096, 8192, 2);
	lab_submit(disk, &write[2], DISK_WRITE, 0, 65536, 4096, 3); /* apart: does not wait */
	disk_lab_settle(&lab);
	cr_assert_eq(seen_count, 2);
	cr_assert(!write[0].done && !write[1].done && !write[2].done);
	disk_hook_done(disk, &write[0].request);
	disk_lab_settle(&lab);
	cr_assert(write[0].done && !write[1].done);
	cr_assert_eq(seen_count, 3);
	disk_hook_done(disk, &write[1].request);
	disk_hook_done(disk, &write[2].request);
	disk_lab_settle(&lab);
	cr_assert(write[1].done && write[2].done);
	cr_assert_eq(lab_differs(mirror, 0, 4096, 1), UINT64_MAX);
	cr_assert_eq(lab_differs(mirror + 4096, 4096, 8192, 2), UINT64_MAX);
	for (int i = 0; i < 3; i++)
		lab_request_fini(&write[i]);
	answer_at_once = true;
	hook_off();
}

/* The buffer is the guest's: it changes while the write is on its way. */
Test(disk_hook, image_and_hook_get_the_same_bytes)
{
	struct fake_store_plan plan = { .garbage_buffers = true, .delay_steps = 8, .seed = 3 };
	struct lab_request write;
	uint8_t there[4096];

	fake_store_set_plan(lab.store, &plan);
	hook_on();
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 1);
	memset(write.buffer, 0xaa, 4096);
	disk_lab_settle(&lab);
	cr_assert(write.done);
	cr_assert(fake_store_peek(lab.store, "a.img", 0, there, sizeof(there)));
	cr_assert_arr_eq(there, mirror, sizeof(there));
	lab_request_fini(&write);
	hook_off();
}

Test(disk_hook, setting_it_drains)
{
	struct fake_store_plan plan = { .delay_steps = 8, .seed = 3 };
	struct lab_request write;

	fake_store_set_plan(lab.store, &plan);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 1);
	cr_assert(!write.done);
	hook_on(); /* the write was over before, so the hook need not see it */
	cr_assert(write.done);
	cr_assert_eq(seen_count, 0);
	lab_request_fini(&write);
	hook_off();
}

/* --- range locks --- */

static uint32_t granted_count;

static void granted(struct disk_range_lock *lock)
{
	cr_assert_eq(lock->context, &lab);
	granted_count++;
}

static struct disk_range_lock range_of(uint64_t offset, uint64_t length)
{
	granted_count = 0;
	return (struct disk_range_lock){
		.offset_bytes = offset, .length_bytes = length, .granted = granted, .context = &lab
	};
}

Test(disk_hook, a_lock_keeps_writes_out_and_reads_in)
{
	struct disk_range_lock lock = range_of(4096, 4096);
	struct lab_request over;
	struct lab_request apart;
	struct lab_request read;

	disk_range_lock(disk, &lock);
	cr_assert_eq(granted_count, 1);
	lab_submit(disk, &over, DISK_WRITE, 0, 0, 8192, 1);
	lab_submit(disk, &apart, DISK_WRITE, 0, 8192, 4096, 1);
	lab_submit(disk, &read, DISK_READ, 0, 0, 8192, 1);
	disk_lab_settle(&lab);
	cr_assert(!over.done);
	cr_assert(apart.done && read.done);
	disk_range_unlock(disk, &lock);
	disk_lab_settle(&lab);
	cr_assert(over.done);
	lab_request_fini(&over);
	lab_request_fini(&apart);
	lab_request_fini(&read);
}

Test(disk_hook, a_lock_waits_for_writes_in_flight)
{
	struct fake_store_plan plan = { .delay_steps = 16, .seed = 1 };
	struct disk_range_lock lock = range_of(0, MIB);
	struct lab_request write;
	bool early = false;

	fake_store_set_plan(lab.store, &plan);
	lab_submit(disk, &write, DISK_WRITE, 0, 4096, 4096, 1);
	disk_range_lock(disk, &lock);
	early = granted_count > 0;
	cr_assert(!early, "granted while a write is on its way");
	disk_lab_settle(&lab);
	cr_assert(write.done);
	cr_assert_eq(granted_count, 1);
	disk_range_unlock(disk, &lock);
	lab_request_fini(&write);
}

/* Who came before a lock goes before it; who came after it waits, also for what is behind. */
Test(disk_hook, a_hold_does_not_wait_for_a_lock)
{
	struct disk_range_lock lock = range_of(0, MIB);
	struct lab_request write;

	disk_range_lock(disk, &lock);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 1);
	disk_hold(disk);
	disk_range_unlock(disk, &lock); /* granted, but held */
	disk_lab_settle(&lab);
	cr_assert(!write.done);
	disk_unhold(disk);
	disk_lab_settle(&lab);
	cr_assert(write.done);
	cr_assert_eq(write.result, 0);
	lab_request_fini(&write);
}

Test(disk_hook, a_resize_takes_the_whole_disk)
{
	struct disk_range_lock lock = range_of(SIZE - 4096, 4096);
	struct lab_request resize;
	struct lab_request write;

	disk_range_lock(disk, &lock);
	lab_submit(disk, &resize, DISK_RESIZE, 0, 2 * SIZE, 0, 0);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 1); /* behind the resize */
	disk_lab_settle(&lab);
	cr_assert(!resize.done && !write.done);
	disk_range_unlock(disk, &lock);
	disk_lab_settle(&lab);
	cr_assert(resize.done && write.done);
	cr_assert_eq(resize.result, 0);
	cr_assert_eq(write.result, 0);
	lab_request_fini(&write);
}

/* --- long queues --- */

#define QUEUE 3000U

static uint32_t queue_depth, queue_done;

static void queue_one_done(struct disk_request *request, int result)
{
	(void)request;
	cr_assert_eq(result, -EIO);
	cr_assert_eq(++queue_depth, 1);
	queue_done++;
	queue_depth--;
}

static void queue_granted(struct disk_range_lock *lock)
{
	(*(bool *)lock->context) = true;
}

/* Each of them fails within the call that hands it to the image, and gives its range to the
 * next. */
Test(disk_hook, a_long_queue_for_one_range)
{
	static struct disk_request requests[QUEUE];
	bool held = false;
	struct disk_range_lock lock = { .length_bytes = 4096,
					.granted = queue_granted,
					.context = &held };
	struct fake_store_plan plan = { .fail_at = 1,
					.fail_code = -EIO,
					.fail_ops = 1U << STORE_FLUSH };

	fake_store_set_plan(lab.store, &plan);
	cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), -EIO);
	disk_range_lock(disk, &lock);
	cr_assert(held);
	for (uint32_t i = 0; i < QUEUE; i++) {
		requests[i] = (struct disk_request){ .op = DISK_ZERO,
						     .length_bytes = 4096,
						     .done = queue_one_done };
		disk_submit(disk, &requests[i]);
	}
	disk_range_unlock(disk, &lock);
	disk_lab_settle(&lab);
	cr_assert_eq(queue_done, QUEUE);
}
