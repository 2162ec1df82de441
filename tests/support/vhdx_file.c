/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/vhdx_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

static void need(int code, const struct base_error *err)
{
	if (code < 0)
		base_bug("VHDX test file: %d: %s", code, err->text);
}

void vhdx_world_init(struct vhdx_world *world)
{
	const struct base_io_loop_options options = { .without_ring = true };
	struct base_error err = { 0 };

	need(base_io_loop_new(&options, &world->loop, &err), &err);
	need(fake_store_new(&world->store, &err), &err);
}

void vhdx_world_fini(struct vhdx_world *world)
{
	store_free(world->store);
	base_io_loop_free(world->loop);
}

void vhdx_file_make(struct vhdx_world *world, const char *name)
{
	const struct disk_create_options options = {
		.format = DISK_VHDX,
		.kind = DISK_DYNAMIC,
		.size_bytes = 1ULL << 30,
		.block_bytes = 1 << 20,
	};
	struct base_error err = { 0 };

	need(vhdx_create(world->store, name, world->loop, &options, NULL, &err), &err);
}

int vhdx_file_open(struct vhdx_world *world, const char *name, struct image **ret_image,
		   struct base_error *err)
{
	const struct image_open_options options = {
		.store = world->store,
		.name = name,
		.loop = world->loop,
	};

	return image_vhdx_ops.open(&options, ret_image, err);
}

struct io_wait {
	struct base_io_loop *loop;
	bool done;
	int result;
};

static void io_done(struct disk_request *request, int result)
{
	struct io_wait *wait = request->context;

	wait->result = result;
	base_io_done(wait->loop, &wait->done);
}

int vhdx_file_io(struct image *image, enum disk_op op, uint64_t offset_bytes, void *data,
		 uint64_t length_bytes)
{
	struct io_wait wait = { .loop = image->loop };
	struct iovec iov = { .iov_base = data, .iov_len = length_bytes };
	struct disk_request request = {
		.op = op,
		.offset_bytes = offset_bytes,
		.length_bytes = length_bytes,
		.iov = &iov,
		.iov_count = data != NULL ? 1 : 0,
		.done = io_done,
		.context = &wait,
	};

	image->ops->submit(image, &request);
	base_io_wait(image->loop, &wait.done);
	return wait.result;
}

void vhdx_file_peek(struct vhdx_world *world, const char *name, uint64_t offset_bytes, void *to,
		    uint64_t length_bytes)
{
	base_assert(fake_store_peek(world->store, name, offset_bytes, to, length_bytes));
}

void vhdx_file_poke(struct vhdx_world *world, const char *name, uint64_t offset_bytes,
		    const void *from, uint64_t length_bytes)
{
	base_assert(fake_store_poke(world->store, name, offset_bytes, from, length_bytes));
}

struct vhdx_header vhdx_file_header(struct vhdx_world *world, const char *name)
{
	uint8_t bytes[VHDX_HEADER_BYTES];
	struct vhdx_header headers[2];
	struct base_error err = { 0 };

	vhdx_file_peek(world, name, VHDX_HEADER1_OFFSET, bytes, sizeof(bytes));
	need(vhdx_header_decode(bytes, VHDX_HEADER1_OFFSET, &headers[0], &err), &err);
	vhdx_file_peek(world, name, VHDX_HEADER2_OFFSET, bytes, sizeof(bytes));
	need(vhdx_header_decode(bytes, VHDX_HEADER2_OFFSET, &headers[1], &err), &err);
	return headers[0].sequence > headers[1].sequence ? headers[0] : headers[1];
}

void vhdx_file_set_header(struct vhdx_world *world, const char *name, struct vhdx_header header)
{
	uint8_t bytes[VHDX_HEADER_BYTES];

	vhdx_header_encode(&header, bytes);
	vhdx_file_poke(world, name, VHDX_HEADER1_OFFSET, bytes, sizeof(bytes));
	header.sequence++;
	vhdx_header_encode(&header, bytes);
	vhdx_file_poke(world, name, VHDX_HEADER2_OFFSET, bytes, sizeof(bytes));
}

uint32_t vhdx_log_craft(const struct vhdx_log_entry *entry, const struct vhdx_log_piece *pieces,
			uint32_t piece_count, uint8_t *to)
{
	uint32_t area = (64 + 32 * piece_count + 4095) / 4096 * 4096;
	uint32_t length = area;

	memset(to, 0, area);
	for (uint32_t i = 0; i < piece_count; i++) {
		uint8_t *descriptor = to + 64 + 32 * (size_t)i;

		base_put_le64(descriptor + 16, pieces[i].file_offset);
		base_put_le64(descriptor + 24, entry->sequence);
		if (pieces[i].zero_bytes != 0) {
			memcpy(descriptor, "zero", 4);
			base_put_le64(descriptor + 8, pieces[i].zero_bytes);
			continue;
		}
		memcpy(descriptor, "desc", 4);
		memset(descriptor + 4, pieces[i].fill, 12);
		memset(to + length, pieces[i].fill, 4096);
		memcpy(to + length, "data", 4);
		base_put_le32(to + length + 4, (uint32_t)(entry->sequence >> 32));
		base_put_le32(to + length + 4092, (uint32_t)entry->sequence);
		length += 4096;
	}
	memcpy(to, "loge", 4);
	base_put_le32(to + 8, length);
	base_put_le32(to + 12, entry->tail_bytes);
	base_put_le64(to + 16, entry->sequence);
	base_put_le32(to + 24, piece_count);
	memcpy(to + 32, entry->log.bytes, 16);
	base_put_le64(to + 48, entry->flushed_file_bytes);
	base_put_le64(to + 56, entry->last_file_bytes);
	base_put_le32(to + 4, base_crc32c(0, to, length));
	return length;
}

uint32_t vhdx_file_log(struct vhdx_world *world, const char *name, uint32_t log_offset,
		       const struct vhdx_log_entry *entry, const struct vhdx_log_piece *pieces,
		       uint32_t piece_count)
{
	struct vhdx_header header = vhdx_file_header(world, name);
	size_t room = 64 + 36 * (size_t)piece_count + 4096 * ((size_t)piece_count + 1);
	uint8_t *bytes = malloc(room);
	uint32_t length;

	base_assert(bytes != NULL);
	length = vhdx_log_craft(entry, pieces, piece_count, bytes);
	for (uint32_t at = 0; at < length; at += 4096)
		vhdx_file_poke(world, name,
			       header.log_offset + (log_offset + at) % header.log_bytes, bytes + at,
			       4096);
	free(bytes);
	return length;
}
