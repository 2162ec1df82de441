/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of requests on the store's threads: everything when the loop has no ring, and what
 * io_uring cannot do (truncate, finding data) when it has one.
 *
 * A thread does one system call and posts its result to the file's loop, which goes on with the
 * request as if the ring had answered.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/uio.h>
#include <unistd.h>

#include "hypervisor/disk/local_store_priv.h"

#define POOL_LOOK_NS BASE_NS_PER_MS /* the pool's queue was full of other files' requests */

/* --- on a thread --- */

/* Where the next run after @offset_bytes begins, at most @end_bytes; *@ret_data: what the run
 * at @offset_bytes is. */
static int run_end(int fd, uint64_t offset_bytes, uint64_t end_bytes, uint64_t *ret_end,
		   bool *ret_data)
{
	off_t data = lseek(fd, (off_t)offset_bytes, SEEK_DATA);
	off_t hole = 0;

	if (data < 0 && errno == ENXIO) { /* a hole up to the end, or past it */
		*ret_end = end_bytes;
		*ret_data = false;
		return 0;
	}
	if (data < 0) {
		if (errno != EINVAL && errno != EOPNOTSUPP && errno != ESPIPE)
			return -errno;
		*ret_end = end_bytes; /* cannot be asked: all of it is data */
		*ret_data = true;
		return 0;
	}
	*ret_data = (uint64_t)data == offset_bytes;
	*ret_end = (uint64_t)data;
	if (*ret_data) {
		hole = lseek(fd, (off_t)offset_bytes, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		*ret_end = (uint64_t)hole;
	}
	if (*ret_end > end_bytes)
		*ret_end = end_bytes;
	return *ret_end > offset_bytes ? 0 : -EIO; /* truncated between the two calls */
}

static bool range_add(struct store_request *request, uint64_t offset_bytes, uint64_t end_bytes,
		      bool data)
{
	struct store_range *last =
		request->range_count == 0 ? NULL : &request->ranges[request->range_count - 1];

	if (last != NULL && last->data == data) {
		last->length_bytes += end_bytes - offset_bytes;
		return true;
	}
	if (request->range_count == request->range_capacity)
		return false;
	request->ranges[request->range_count++] = (struct store_range){
		.offset_bytes = offset_bytes,
		.length_bytes = end_bytes - offset_bytes,
		.data = data,
	};
	return true;
}

static int find_ranges(const struct local_file *file, struct store_request *request)
{
	uint64_t offset_bytes = request->offset_bytes;
	uint64_t end_bytes = offset_bytes + request->length_bytes;

	request->range_count = 0;
	while (offset_bytes < end_bytes) {
		uint64_t run_end_bytes = 0;
		bool data = false;
		int code = run_end(file->fd, offset_bytes, end_bytes, &run_end_bytes, &data);

		if (code < 0)
			return code;
		if (!range_add(request, offset_bytes, run_end_bytes, data))
			break;
		offset_bytes = run_end_bytes;
	}
	return 0;
}

static ssize_t step_run(const struct local_file *file, struct store_request *request)
{
	const struct local_step *step = local_step_of(request);
	struct iovec one = { .iov_base = step->memory, .iov_len = step->length_bytes };
	const struct iovec *iov = &one;
	int count = 1;

	switch ((enum local_step_kind)step->kind) {
	case LOCAL_READV:
	case LOCAL_WRITEV:
		iov = step->memory;
		count = (int)step->count;
		break;
	case LOCAL_SYNC:
		return fsync(file->fd) < 0 ? -errno : 0;
	case LOCAL_DATASYNC:
		return fdatasync(file->fd) < 0 ? -errno : 0;
	case LOCAL_FALLOCATE:
		return fallocate(file->fd, (int)step->count, (off_t)step->offset_bytes,
				 (off_t)step->length_bytes) < 0
			       ? -errno
			       : 0;
	case LOCAL_TRUNCATE:
		return ftruncate(file->fd, (off_t)step->offset_bytes) < 0 ? -errno : 0;
	case LOCAL_RANGES:
		return find_ranges(file, request);
	case LOCAL_READ:
	case LOCAL_WRITE:
		break;
	case LOCAL_STEP_INVALID:
	case LOCAL_STEPS:
		base_bug("step %d of a request", (int)step->kind);
	}
	if (step->kind == LOCAL_READ || step->kind == LOCAL_READV) {
		ssize_t got = preadv2(file->fd, iov, count, (off_t)step->offset_bytes, 0);

		return got < 0 ? -errno : got;
	}
	{
		ssize_t put =
			pwritev2(file->fd, iov, count, (off_t)step->offset_bytes, (int)step->flags);

		return put < 0 ? -errno : put;
	}
}

static void pool_ended(struct base_io_task *task);

static void pool_job(void *context)
{
	struct store_request *request = context;

	request->result = (int)step_run(local_file_of(request->file), request);
	request->task.run = pool_ended;
	base_io_post(request->file->loop, &request->task);
}

/* --- on the loop --- */

/* Hand over what waits, as far as there is room. */
static void pool_go_on(struct local_file *file)
{
	while (file->pool_head != NULL && file->pooled < LOCAL_POOLED_MAX) {
		struct store_request *request = file->pool_head;

		if (base_pool_submit(file->store->pool, pool_job, request) < 0) {
			base_io_timer_arm(file->common.loop, &file->pool_timer,
					  base_io_loop_now_ns(file->common.loop) + POOL_LOOK_NS);
			return;
		}
		/* @next stays ours: the thread does not look at it. */
		file->pooled++;
		file->pool_head = request->next;
		if (file->pool_head == NULL)
			file->pool_tail = NULL;
		request->next = NULL;
	}
	if (file->pool_head == NULL)
		base_io_timer_disarm(file->common.loop, &file->pool_timer);
}

void local_pool_look(struct base_io_timer *timer)
{
	pool_go_on((struct local_file *)((char *)timer - offsetof(struct local_file, pool_timer)));
}

static void pool_ended(struct base_io_task *task)
{
	struct store_request *request =
		(struct store_request *)((char *)task - offsetof(struct store_request, task));
	struct local_file *file = local_file_of(request->file);

	file->pooled--;
	pool_go_on(file);
	local_step_ended(request, request->result);
}

void local_pool_submit(struct local_file *file, struct store_request *request)
{
	request->next = NULL;
	if (file->pool_tail == NULL)
		file->pool_head = request;
	else
		file->pool_tail->next = request;
	file->pool_tail = request;
	pool_go_on(file);
}
