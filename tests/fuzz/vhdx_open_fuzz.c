/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole VHDX file.  A good one is made, then the input changes it: pieces of 12 bytes of header
 * (offset in the file, 8 bytes; length, 2; flags, 2) and their bytes.  Then the checksums of the
 * headers and region tables are made right if a flag asks for it, and the file is opened, read in
 * standby, activated, written, checked and closed.  Nothing of that may hang, crash or take
 * much memory; that it fails is fine.
 *
 * Reached: vhdx_load() and all it decodes, vhdx_overlay_load(), the BAT through requests.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "hypervisor/disk/fake_store.h"
#include "hypervisor/disk/vhdx_priv.h"

#define NAME       "disk.vhdx"
#define FLAG_FIX   1U /* make checksums right at the end */
#define FLAG_ENTRY 2U /* a log entry begins there: make it right */
#define FLAG_DIRTY 4U /* a LogGuid in the headers */
#define OFFSET_MAX (16 * VHDX_MIB)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
	struct base_io_loop *loop;
	struct store *good;
} world;

struct wait {
	bool done;
};

static void done(struct disk_request *request, int result)
{
	struct wait *wait = request->context;

	(void)result;
	base_io_done(world.loop, &wait->done);
}

static void io(struct image *image, enum disk_op op, uint64_t offset, void *data, uint64_t length)
{
	struct wait wait = { false };
	struct iovec iov = { .iov_base = data, .iov_len = length };
	struct disk_request request = {
		.op = op,
		.offset_bytes = offset,
		.length_bytes = length,
		.iov = &iov,
		.iov_count = data != NULL ? 1 : 0,
		.done = done,
		.context = &wait,
	};

	image->ops->submit(image, &request);
	base_io_wait(world.loop, &wait.done);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const struct base_io_loop_options options = { .without_ring = true };
	const struct disk_create_options create = { .kind = DISK_DYNAMIC,
						    .size_bytes = 1ULL << 30,
						    .block_bytes = 1 << 20 };

	(void)argc;
	(void)argv;
	if (base_io_loop_new(&options, &world.loop, NULL) < 0 ||
	    fake_store_new(&world.good, NULL) < 0 ||
	    vhdx_create(world.good, NAME, world.loop, &create, NULL, NULL) < 0)
		abort();
	return 0;
}

static void crc_fix(struct store *store, uint64_t offset, uint32_t length)
{
	static uint8_t bytes[VHDX_REGION_TABLE_BYTES];

	if (!fake_store_peek(store, NAME, offset, bytes, length))
		abort();
	base_put_le32(bytes + 4, 0);
	base_put_le32(bytes + 4, base_crc32c(0, bytes, length));
	if (!fake_store_poke(store, NAME, offset, bytes, length))
		abort();
}

static void log_id_set(struct store *store)
{
	const uint8_t id[16] = { 1 };

	if (!fake_store_poke(store, NAME, VHDX_HEADER1_OFFSET + 48, id, 16) ||
	    !fake_store_poke(store, NAME, VHDX_HEADER2_OFFSET + 48, id, 16))
		abort();
}

static void entry_fix(struct store *store, uint64_t offset)
{
	uint8_t head[48];
	uint32_t length;

	if (!fake_store_peek(store, NAME, offset, head, sizeof(head)))
		return;
	memcpy(head, "loge", 4);
	memset(head + 32, 0, 16);
	head[32] = 1;
	length = base_get_le32(head + 8);
	if (fake_store_poke(store, NAME, offset, head, sizeof(head)) && length >= 4096 &&
	    length <= VHDX_REGION_TABLE_BYTES)
		crc_fix(store, offset, length);
}

static void change(struct store *store, const uint8_t *data, size_t size)
{
	uint16_t all_flags = 0;

	while (size >= 12) {
		uint64_t offset = base_get_le64(data) % OFFSET_MAX;
		size_t length = base_get_le16(data + 8);
		uint16_t flags = base_get_le16(data + 10);

		length = length < size - 12 ? length : size - 12;
		if (length > 0 && !fake_store_poke(store, NAME, offset, data + 12, length))
			abort();
		if ((flags & FLAG_ENTRY) != 0)
			entry_fix(store, offset);
		all_flags |= flags;
		data += 12 + length;
		size -= 12 + length;
	}
	if ((all_flags & FLAG_DIRTY) != 0)
		log_id_set(store);
	if ((all_flags & FLAG_FIX) == 0)
		return;
	crc_fix(store, VHDX_HEADER1_OFFSET, VHDX_HEADER_BYTES);
	crc_fix(store, VHDX_HEADER2_OFFSET, VHDX_HEADER_BYTES);
	crc_fix(store, VHDX_REGION1_OFFSET, VHDX_REGION_TABLE_BYTES);
	crc_fix(store, VHDX_REGION2_OFFSET, VHDX_REGION_TABLE_BYTES);
}

static void hear(void *context, enum disk_finding finding, const char *text)
{
	(void)context;
	(void)finding;
	(void)text;
}

/* A child without its parent is only looked at: disk.c never lets requests come before it has
 * one. */
static void use(struct image *image)
{
	static uint8_t data[8192];
	struct disk_layer_info info;
	struct disk_check_result result;
	uint64_t last = image->geometry.size_bytes - image->geometry.logical_sector_bytes;
	bool whole = image->kind != DISK_DIFFERENCING && image->geometry.size_bytes >= sizeof(data);

	(void)!image->ops->info(image, &info, NULL);
	(void)!image->ops->check(image, false, hear, NULL, &result, NULL);
	if (whole) {
		io(image, DISK_READ, 0, data, sizeof(data));
		io(image, DISK_READ, last, data, image->geometry.logical_sector_bytes);
	}
	if (image->ops->activate(image, STORE_EPOCH_NONE, NULL, NULL) < 0)
		return;
	if (whole) {
		io(image, DISK_WRITE, 0, data, sizeof(data));
		io(image, DISK_UNMAP, 0, NULL, image->geometry.unmap_granularity_bytes);
		io(image, DISK_FLUSH, 0, NULL, 0);
	}
	(void)!image->ops->deactivate(image, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_open_options options = { .name = NAME, .loop = world.loop };
	struct store *store = NULL;
	struct image *image = NULL;
	struct base_error err = { 0 };

	if (size > 65536)
		return -1;
	if (fake_store_clone(world.good, &store, NULL) < 0)
		abort();
	change(store, data, size);
	options.store = store;
	if (image_vhdx_ops.open(&options, &image, &err) == 0) {
		use(image);
		image->ops->close(image);
	} else if (err.text[0] == '\0') {
		abort();
	}
	store_free(store);
	return 0;
}
