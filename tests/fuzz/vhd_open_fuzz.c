/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a whole VHD file, with the checksums put right: opened, checked, mapped, read at
 * both ends, activated, written to, closed, checked again.
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/fake_store.h"
#include "hypervisor/disk/vhd_priv.h"

#define FILE_BYTES_MAX (1U << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct wait {
	struct base_io_loop *loop;
	bool done;
};

static void done(struct disk_request *request, int result)
{
	struct wait *wait = request->context;

	(void)result;
	base_io_done(wait->loop, &wait->done);
}

static void ask(struct image *image, enum disk_op op, uint64_t offset)
{
	static _Alignas(512) uint8_t sector[512];
	struct disk_extent extents[8];
	const struct iovec iov = { sector, sizeof(sector) };
	struct wait wait = { .loop = image->loop };
	struct disk_request request = {
		.op = op,
		.offset_bytes = offset,
		.length_bytes = op == DISK_MAP ? image->geometry.size_bytes - offset : 512,
		.iov = &iov,
		.iov_count = 1,
		.extents = extents,
		.extent_capacity = 8,
		.done = done,
		.context = &wait
	};

	if (op == DISK_MAP || op == DISK_FLUSH) {
		request.iov = NULL;
		request.iov_count = 0;
	}
	image->ops->submit(image, &request);
	base_io_wait(image->loop, &wait.done);
}

static void sum(uint8_t *bytes, size_t size, size_t field)
{
	uint32_t value = vhd_checksum(bytes, size, field);

	for (size_t i = 0; i < 4; i++)
		bytes[field + i] = (uint8_t)(value >> (24 - 8 * i));
}

static void use(struct store *store, struct base_io_loop *loop)
{
	const struct image_open_options options = { .store = store, .name = "x", .loop = loop };
	const struct image_ops *ops = &image_vhd_ops;
	struct disk_check_result result;
	struct disk_layer_info info;
	struct image *image = NULL;
	uint64_t last;

	if (ops->open(&options, &image, NULL) < 0)
		return;
	last = image->geometry.size_bytes - 512;
	(void)!ops->check(image, false, NULL, NULL, &result, NULL);
	(void)!ops->info(image, &info, NULL);
	ask(image, DISK_READ, 0);
	ask(image, DISK_READ, last);
	ask(image, DISK_MAP, 0);
	if (ops->activate(image, STORE_EPOCH_NONE, NULL, NULL) == 0) {
		last = image->geometry.size_bytes - 512;
		ask(image, DISK_WRITE, 0);
		ask(image, DISK_ZERO, last);
		ask(image, DISK_FLUSH, 0);
		(void)!ops->check(image, true, NULL, NULL, &result, NULL);
		(void)!ops->deactivate(image, NULL);
	}
	ops->close(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct store_open_options options = { .create = true, .align_bytes = 512 };
	struct store_open_options open = options;
	struct base_io_loop *loop = NULL;
	struct store *store = NULL;
	struct store_file *file = NULL;
	uint8_t *bytes;

	if (size < 512 || size > FILE_BYTES_MAX)
		return 0;
	bytes = malloc(size);
	if (bytes == NULL)
		return 0;
	memcpy(bytes, data, size);
	sum(bytes + (size & ~(size_t)511) - 512, 512, 64);
	if (size >= 1536 + 512) {
		sum(bytes, 512, 64);
		sum(bytes + 512, 1024, 36);
	}
	if (base_io_loop_new(&(struct base_io_loop_options){ .without_ring = true }, &loop, NULL) <
		    0 ||
	    fake_store_new(&store, NULL) < 0)
		abort();
	open.loop = loop;
	if (store_open(store, "x", &open, &file, NULL) < 0)
		abort();
	store_close(file);
	if (!fake_store_poke(store, "x", 0, bytes, size))
		abort();
	use(store, loop);
	free(bytes);
	store_free(store);
	base_io_loop_free(loop);
	return 0;
}
