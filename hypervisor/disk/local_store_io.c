/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of local files.  A request is a row of steps, each one call to the kernel; what a step
 * gave decides the next: after a short transfer the rest, after "not supported" another way.
 *
 * With direct I/O, memory that is not aligned as the device wants goes through a buffer, a piece
 * at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/local_store_priv.h"

#define IOV_STEP_MAX 1024 /* the kernel's limit for one call (UIO_MAXIOV) */

/* As store.h names what can go wrong. */
static int outcome(int code)
{
	switch (code) {
	case -EDQUOT:
		return -ENOSPC;
	case -ENXIO:
	case -ESTALE: /* of a network file system: not an epoch */
	case -ESHUTDOWN:
	case -ENOMEDIUM:
	case -ENOLINK:
		return -ENODEV;
	case -EFBIG:
	case -EOVERFLOW:
		return -EINVAL;
	case 0:
	case -ENOSPC:
	case -ENODEV:
	case -EINVAL:
	case -ETIMEDOUT:
	case -ENOMEM:
		return code;
	default:
		return -EIO;
	}
}

static void finish(struct store_request *request, int code)
{
	free(request->held[0]);
	request->held[0] = NULL;
	store_complete(request, outcome(code));
}

/* --- a step on its way --- */

static void ring_ended(struct base_io_completion *completion, int32_t result)
{
	struct store_request *request =
		(struct store_request *)((char *)completion -
					 offsetof(struct store_request, completion));

	local_step_ended(request, result);
}

static void ring_prepare(const struct local_file *file, struct io_uring_sqe *sqe,
			 const struct local_step *step)
{
	switch ((enum local_step_kind)step->kind) {
	case LOCAL_READ:
		io_uring_prep_read(sqe, file->fd, step->memory, (unsigned int)step->length_bytes,
				   step->offset_bytes);
		break;
	case LOCAL_WRITE:
		io_uring_prep_write(sqe, file->fd, step->memory, (unsigned int)step->length_bytes,
				    step->offset_bytes);
		sqe->rw_flags = (int)step->flags;
		break;
	case LOCAL_READV:
		io_uring_prep_readv(sqe, file->fd, step->memory, step->count, step->offset_bytes);
		break;
	case LOCAL_WRITEV:
		io_uring_prep_writev(sqe, file->fd, step->memory, step->count, step->offset_bytes);
		sqe->rw_flags = (int)step->flags;
		break;
	case LOCAL_SYNC:
		io_uring_prep_fsync(sqe, file->fd, 0);
		break;
	case LOCAL_DATASYNC:
		io_uring_prep_fsync(sqe, file->fd, IORING_FSYNC_DATASYNC);
		break;
	case LOCAL_FALLOCATE:
		io_uring_prep_fallocate(sqe, file->fd, (int)step->count, (off_t)step->offset_bytes,
					(off_t)step->length_bytes);
		break;
	case LOCAL_TRUNCATE:
	case LOCAL_RANGES:
	case LOCAL_STEP_INVALID:
	case LOCAL_STEPS:
		base_bug("step %d for the ring", (int)step->kind);
	}
}

static void step_start(struct local_file *file, struct store_request *request)
{
	const struct local_step *step = local_step_of(request);

	if (!base_io_loop_has_ring(file->common.loop) || step->kind == LOCAL_TRUNCATE ||
	    step->kind == LOCAL_RANGES) {
		local_pool_submit(file, request);
		return;
	}
	request->completion.done = ring_ended;
	ring_prepare(file, base_io_sqe(file->common.loop, &request->completion), step);
}

/* --- READ and WRITE --- */

/* Memory and file position as direct I/O wants them; the request's own are multiples already. */
static bool memory_fits(const struct local_file *file, const struct store_request *request)
{
	uintptr_t all = 0;

	if (!file->direct)
		return true;
	for (uint32_t i = 0; i < request->iov_count; i++) {
		/* The length of a piece may be odd where the device's memory alignment allows. */
		uintptr_t length = request->iov[i].iov_len % file->common.align_bytes;

		all |= (uintptr_t)request->iov[i].iov_base % file->memory_align | length;
	}
	return all == 0;
}

/* The piece of the request's memory @skip_bytes into it, at most @length_bytes: its length. */
static size_t piece_at(const struct store_request *request, uint64_t skip_bytes,
		       uint32_t *ret_index, char **ret_memory)
{
	for (uint32_t i = 0; i < request->iov_count; i++) {
		const struct iovec *iov = &request->iov[i];

		if (skip_bytes < iov->iov_len) {
			*ret_index = i;
			*ret_memory = (char *)iov->iov_base + skip_bytes;
			return iov->iov_len - (size_t)skip_bytes;
		}
		skip_bytes -= iov->iov_len;
	}
	base_bug("a request's memory ends before its length");
}

enum copy_way {
	COPY_TO_REQUEST,
	COPY_FROM_REQUEST,
	COPY_ZEROS, /* to the request */
};

static void copy_piece(const struct store_request *request, uint64_t skip_bytes, void *buffer,
		       uint64_t length_bytes, enum copy_way way)
{
	uint64_t done_bytes = 0;

	while (done_bytes < length_bytes) {
		uint32_t index = 0;
		char *memory = NULL;
		size_t piece = piece_at(request, skip_bytes + done_bytes, &index, &memory);

		if (piece > length_bytes - done_bytes)
			piece = (size_t)(length_bytes - done_bytes);
		if (way == COPY_TO_REQUEST)
			memcpy(memory, (char *)buffer + done_bytes, piece);
		else if (way == COPY_FROM_REQUEST)
			memcpy((char *)buffer + done_bytes, memory, piece);
		else
			memset(memory, 0, piece);
		done_bytes += piece;
	}
}

static void bounce_step(struct store_request *request)
{
	struct local_step *step = local_step_of(request);
	uint64_t left_bytes = request->length_bytes - step->done_bytes;

	step->kind = request->op == STORE_READ ? LOCAL_READ : LOCAL_WRITE;
	step->memory = request->held[0];
	step->length_bytes = left_bytes < step->bounce_length ? left_bytes : step->bounce_length;
	if (request->op == STORE_WRITE)
		copy_piece(request, step->done_bytes, step->memory, step->length_bytes,
			   COPY_FROM_REQUEST);
}

/* The next step of the transfer, from done_bytes on. */
static void transfer_step(struct local_file *file, struct store_request *request)
{
	struct local_step *step = local_step_of(request);
	bool reads = request->op == STORE_READ;
	uint32_t index = 0;
	char *memory = NULL;
	size_t piece = 0;

	step->offset_bytes = request->offset_bytes + step->done_bytes;
	step->direct = file->direct;
	if (step->bounced != 0) {
		bounce_step(request);
		step_start(file, request);
		return;
	}
	piece = piece_at(request, step->done_bytes, &index, &memory);
	if (request->iov_count - index > 1 && memory == request->iov[index].iov_base) {
		step->kind = reads ? LOCAL_READV : LOCAL_WRITEV;
		step->memory = (void *)(uintptr_t)&request->iov[index];
		step->count = request->iov_count - index;
		if (step->count > IOV_STEP_MAX)
			step->count = IOV_STEP_MAX;
	} else { /* one buffer, or the rest of one */
		step->kind = reads ? LOCAL_READ : LOCAL_WRITE;
		step->memory = memory;
		step->length_bytes = piece;
	}
	step_start(file, request);
}

static int transfer_bounce(const struct local_file *file, struct store_request *request)
{
	struct local_step *step = local_step_of(request);
	void *buffer = NULL;
	size_t align = file->memory_align < sizeof(void *) ? sizeof(void *) : file->memory_align;

	step->bounce_length = request->length_bytes < LOCAL_BOUNCE_BYTES
				      ? (uint32_t)request->length_bytes
				      : LOCAL_BOUNCE_BYTES;
	if (posix_memalign(&buffer, align, step->bounce_length) != 0)
		return -ENOMEM;
	request->held[0] = buffer;
	step->bounced = 1;
	return 0;
}

static void transfer_begin(struct local_file *file, struct store_request *request)
{
	struct local_step *step = local_step_of(request);

	if ((request->flags & STORE_FUA) != 0)
		step->flags = RWF_DSYNC;
	if (!memory_fits(file, request) && transfer_bounce(file, request) < 0) {
		finish(request, -ENOMEM);
		return;
	}
	transfer_step(file, request);
}

/* The device wants more than the file system said, or says nothing: through the page cache. */
static bool go_buffered(struct local_file *file)
{
	int flags = 0;

	if (!file->direct)
		return true; /* another request found it out */
	flags = fcntl(file->fd, F_GETFL);
	if (flags < 0 || fcntl(file->fd, F_SETFL, flags & ~O_DIRECT) < 0)
		return false;
	file->direct = false;
	store_set_state(&file->common, STORE_DIRECT,
			"buffered: the file system refuses direct I/O of this alignment");
	return true;
}

/* What failed may have made the file grow all the same, with bytes that nobody was told of. */
static void note_failed(struct local_file *file, const struct store_request *request)
{
	if (request->op == STORE_WRITE || request->op == STORE_ALLOCATE)
		file->size_unsure = true;
}

static void transfer_ended(struct local_file *file, struct store_request *request, int result)
{
	struct local_step *step = local_step_of(request);
	uint64_t before_bytes = step->done_bytes;
	bool at_end = false;

	if (result == -EINVAL && step->direct != 0 && go_buffered(file)) {
		transfer_step(file, request);
		return;
	}
	if (result < 0 || (result == 0 && request->op == STORE_WRITE)) {
		note_failed(file, request);
		finish(request, result < 0 ? result : -EIO);
		return;
	}
	if (step->bounced != 0 && request->op == STORE_READ)
		copy_piece(request, step->done_bytes, step->memory, (uint64_t)result,
			   COPY_TO_REQUEST);
	step->done_bytes += (uint64_t)result;
	/* Direct reads are whole sectors but for the end of a file that ends within one. */
	at_end = result == 0 || (file->direct && request->op == STORE_READ &&
				 step->done_bytes % file->common.align_bytes != 0);
	if (at_end)
		copy_piece(request, step->done_bytes, NULL,
			   request->length_bytes - step->done_bytes, COPY_ZEROS);
	if (at_end || step->done_bytes == request->length_bytes) {
		finish(request, 0);
		return;
	}
	if (file->direct)
		step->done_bytes -= step->done_bytes % file->common.align_bytes;
	if (step->done_bytes == before_bytes)
		finish(request, -EIO); /* less than a sector at a time: it would never end */
	else
		transfer_step(file, request);
}

/* --- space --- */

/* How much of the request is inside the file: kept in held[1], the request stays as it is. */
static uint64_t clear_bytes(const struct store_request *request)
{
	return (uintptr_t)request->held[1];
}

/* Write zeros from done_bytes on. */
static void zeros_step(struct local_file *file, struct store_request *request)
{
	struct local_step *step = local_step_of(request);
	uint64_t left_bytes = clear_bytes(request) - step->done_bytes;

	step->kind = LOCAL_WRITE;
	step->memory = file->store->zeros;
	step->offset_bytes = request->offset_bytes + step->done_bytes;
	step->length_bytes = left_bytes < LOCAL_ZEROS_BYTES ? left_bytes : LOCAL_ZEROS_BYTES;
	step->direct = file->direct;
	step_start(file, request);
}

static void fallocate_step(struct local_file *file, struct store_request *request, int mode,
			   uint64_t length_bytes)
{
	struct local_step *step = local_step_of(request);

	step->kind = LOCAL_FALLOCATE;
	step->count = (uint32_t)mode;
	step->offset_bytes = request->offset_bytes;
	step->length_bytes = length_bytes;
	step_start(file, request);
}

/* PUNCH and ZERO, by the first way that the file system has. */
static void clear_step(struct local_file *file, struct store_request *request)
{
	if (request->op == STORE_ZERO && !file->no_zero_range)
		fallocate_step(file, request, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
			       clear_bytes(request));
	else if (!file->no_punch)
		fallocate_step(file, request, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       clear_bytes(request));
	else
		zeros_step(file, request);
}

/* The size that what failed left, if it did: only up, what shrinks a file says so. */
static void size_look(struct local_file *file)
{
	struct stat status;

	if (!file->size_unsure || file->is_block || fstat(file->fd, &status) < 0)
		return;
	file->size_unsure = false;
	if ((uint64_t)status.st_size > file->common.size_bytes)
		file->common.size_bytes = (uint64_t)status.st_size;
}

static void clear_begin(struct local_file *file, struct store_request *request)
{
	uint64_t length_bytes = request->length_bytes;
	uint64_t size_bytes = 0;

	size_look(file);
	size_bytes = file->common.size_bytes;

	/* Past the end it reads zero already, and writing zeros there would make it grow. */
	if (request->offset_bytes >= size_bytes)
		length_bytes = 0;
	else if (length_bytes > size_bytes - request->offset_bytes)
		length_bytes = size_bytes - request->offset_bytes;
	request->held[1] = (void *)(uintptr_t)length_bytes;
	if (length_bytes == 0)
		finish(request, 0);
	else
		clear_step(file, request);
}

static void clear_ended(struct local_file *file, struct store_request *request, int result)
{
	struct local_step *step = local_step_of(request);

	if (step->kind == LOCAL_FALLOCATE) {
		if (result != -EOPNOTSUPP && result != -ENOSYS) {
			finish(request, result);
			return;
		}
		if ((step->count & FALLOC_FL_ZERO_RANGE) != 0)
			file->no_zero_range = true;
		else
			file->no_punch = true;
		clear_step(file, request);
		return;
	}
	/* The end of the file, or of the request, lies within a sector. */
	if (result == -EINVAL && step->direct != 0 && go_buffered(file)) {
		zeros_step(file, request);
		return;
	}
	if (result <= 0) {
		finish(request, result < 0 ? result : -EIO);
		return;
	}
	step->done_bytes += (uint64_t)result;
	if (step->done_bytes >= clear_bytes(request))
		finish(request, 0);
	else
		zeros_step(file, request);
}

/*
 * No way to reserve there: what remains is the size.  The last bytes are written, and the size is
 * not set: that would cut off what another request has written behind them meanwhile.
 */
static void grow_step(struct local_file *file, struct store_request *request)
{
	struct local_step *step = local_step_of(request);
	uint64_t end_bytes = request->offset_bytes + request->length_bytes;
	uint64_t length_bytes = file->direct ? file->common.align_bytes : 1;

	if (file->direct &&
	    (end_bytes % length_bytes != 0 || end_bytes - length_bytes < file->common.size_bytes)) {
		if (!go_buffered(file)) {
			finish(request, -EIO);
			return;
		}
		length_bytes = 1;
	}
	step->kind = LOCAL_WRITE;
	step->memory = file->store->zeros;
	step->offset_bytes = end_bytes - length_bytes;
	step->length_bytes = length_bytes;
	step->direct = file->direct;
	step_start(file, request);
}

static void allocate_begin(struct local_file *file, struct store_request *request)
{
	uint64_t end_bytes = request->offset_bytes + request->length_bytes;

	if (request->length_bytes == 0)
		finish(request, 0);
	else if (!file->is_block)
		fallocate_step(file, request, 0, request->length_bytes);
	else /* a device has what it has */
		finish(request, end_bytes <= file->common.size_bytes ? 0 : -ENOSPC);
}

static void allocate_ended(struct local_file *file, struct store_request *request, int result)
{
	struct local_step *step = local_step_of(request);
	uint64_t end_bytes = request->offset_bytes + request->length_bytes;
	bool refused =
		step->kind == LOCAL_FALLOCATE && (result == -EOPNOTSUPP || result == -ENOSYS);

	if (refused && end_bytes <= file->common.size_bytes) {
		finish(request, 0);
		return;
	}
	if (refused || (result == -EINVAL && step->kind == LOCAL_WRITE && step->direct != 0 &&
			go_buffered(file))) {
		grow_step(file, request);
		return;
	}
	if (result < 0)
		note_failed(file, request);
	if (step->kind == LOCAL_WRITE && result >= 0)
		result = result == 0 ? -EIO : 0; /* one sector at most: there is no part of it */
	finish(request, result);
}

static void truncate_begin(struct local_file *file, struct store_request *request)
{
	if (file->is_block) { /* its size is what it is */
		finish(request, request->offset_bytes == file->common.size_bytes ? 0 : -EINVAL);
		return;
	}
	local_step_of(request)->kind = LOCAL_TRUNCATE;
	step_start(file, request);
}

/* --- all --- */

void local_step_ended(struct store_request *request, int result)
{
	struct local_file *file = local_file_of(request->file);

	if (result == -EINTR || result == -EAGAIN) {
		step_start(file, request);
		return;
	}
	switch (request->op) {
	case STORE_READ:
	case STORE_WRITE:
		transfer_ended(file, request, result);
		break;
	case STORE_PUNCH:
	case STORE_ZERO:
		clear_ended(file, request, result);
		break;
	case STORE_ALLOCATE:
		allocate_ended(file, request, result);
		break;
	case STORE_FLUSH:
		if (result == 0)
			file->sync_all = false;
		finish(request, result);
		break;
	case STORE_TRUNCATE:
	case STORE_RANGES:
		finish(request, result);
		break;
	case STORE_OP_INVALID:
	case STORE_OPS:
		base_bug("store operation %d", (int)request->op);
	}
}

void local_file_submit(struct store_file *common, struct store_request *request)
{
	struct local_file *file = local_file_of(common);
	struct local_step *step = local_step_of(request);

	*step = (struct local_step){ .offset_bytes = request->offset_bytes };
	request->held[0] = NULL;
	switch (request->op) {
	case STORE_READ:
	case STORE_WRITE:
		transfer_begin(file, request);
		break;
	case STORE_FLUSH:
		step->kind = file->sync_all ? LOCAL_SYNC : LOCAL_DATASYNC;
		step_start(file, request);
		break;
	case STORE_ALLOCATE:
		allocate_begin(file, request);
		break;
	case STORE_PUNCH:
	case STORE_ZERO:
		clear_begin(file, request);
		break;
	case STORE_TRUNCATE:
		truncate_begin(file, request);
		break;
	case STORE_RANGES:
		step->kind = LOCAL_RANGES;
		step_start(file, request);
		break;
	case STORE_OP_INVALID:
	case STORE_OPS:
		base_bug("store operation %d", (int)request->op);
	}
}
