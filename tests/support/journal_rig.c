/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/journal_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define RIG_EPOCH 1

/* A failure of the rig itself, not of what it tests. */
static void want(int code, const struct base_error *err)
{
	if (code < 0)
		base_bug("rig: error %d: %s", -code, err->text);
}

static void wait_run(struct vhdx_waiter *waiter, int result)
{
	struct jrig_wait *wait = waiter->context;

	base_assert(!wait->done);
	wait->result = result;
	wait->done = true;
}

void jrig_wait_init(struct jrig_wait *wait)
{
	*wait = (struct jrig_wait){ .waiter = { .run = wait_run } };
	wait->waiter.context = wait;
}

static int wait_for(struct journal_rig *rig, struct jrig_wait *wait)
{
	while (!wait->done)
		base_assert(base_io_loop_step(rig->loop, false));
	return wait->result;
}

uint64_t jrig_bat(const struct journal_rig *rig)
{
	return (1 + rig->log_mib) * VHDX_MIB;
}

uint64_t jrig_blocks(const struct journal_rig *rig)
{
	return (2 + rig->log_mib + JRIG_BAT_MIB) * VHDX_MIB;
}

static void loop_new(const struct base_clock *clock, struct base_io_loop **ret_loop)
{
	struct base_io_loop_options options = { .clock = clock, .without_ring = true };
	struct base_error err = { 0 };

	want(base_io_loop_new(&options, ret_loop, &err), &err);
}

void jrig_new(struct journal_rig *rig, uint32_t log_mib, uint32_t block_count)
{
	struct store_open_options options = { .create = true, .align_bytes = 512 };
	struct vhdx_header header = { .sequence = 1 };
	uint8_t bytes[VHDX_HEADER_BYTES];
	struct base_error err = { 0 };
	struct store_file *file = NULL;
	uint64_t epoch;
	uint64_t size;

	*rig = (struct journal_rig){ .log_mib = log_mib };
	rig->clock = base_clock_fake(&rig->fake);
	loop_new(&rig->clock, &rig->loop);
	want(fake_store_new(&rig->store, &err), &err);
	options.loop = rig->loop;
	want(store_open(rig->store, JRIG_NAME, &options, &file, &err), &err);
	want(store_acquire(file, RIG_EPOCH, NULL, &epoch, &err), &err);
	header.file_write = disk_guid_new();
	header.data_write = disk_guid_new();
	header.log_offset = VHDX_MIB;
	header.log_bytes = log_mib * (uint32_t)VHDX_MIB;
	size = jrig_blocks(rig) + block_count * VHDX_MIB;
	want(store_do(file, STORE_TRUNCATE, size, NULL, 0, &err), &err);
	vhdx_header_encode(&header, bytes);
	want(store_do(file, STORE_WRITE, VHDX_HEADER1_OFFSET, bytes, sizeof(bytes), &err), &err);
	want(store_do(file, STORE_FLUSH, 0, NULL, 0, &err), &err);
	store_close(file);
}

void jrig_free(struct journal_rig *rig)
{
	if (rig->vhdx != NULL)
		jrig_drop(rig);
	store_free(rig->store);
	base_io_loop_free(rig->loop);
}

/* The current header; false when there is none. */
static bool headers_read(const struct store *store, struct vhdx_header *ret_header,
			 uint32_t *ret_slot)
{
	static const uint64_t offsets[2] = { VHDX_HEADER1_OFFSET, VHDX_HEADER2_OFFSET };
	struct vhdx_header header;
	uint8_t bytes[VHDX_HEADER_BYTES];
	bool found = false;

	for (uint32_t slot = 0; slot < 2; slot++) {
		if (!fake_store_peek(store, JRIG_NAME, offsets[slot], bytes, sizeof(bytes)) ||
		    vhdx_header_decode(bytes, offsets[slot], &header, NULL) < 0)
			continue;
		if (found && header.sequence <= ret_header->sequence)
			continue;
		*ret_header = header;
		*ret_slot = slot;
		found = true;
	}
	return found;
}

void jrig_open(struct journal_rig *rig)
{
	struct store_open_options options = { .loop = rig->loop, .align_bytes = 512 };
	struct vhdx *vhdx = calloc(1, sizeof(*vhdx));
	struct vhdx_overlay *overlay = NULL;
	struct base_error err = { 0 };
	struct store_facts facts;
	uint64_t epoch;

	base_assert(vhdx != NULL);
	base_assert(headers_read(rig->store, &vhdx->header, &vhdx->header_slot));
	vhdx->image.store = rig->store;
	vhdx->image.loop = rig->loop;
	want(store_open(rig->store, JRIG_NAME, &options, &vhdx->image.file, &err), &err);
	want(store_acquire(vhdx->image.file, RIG_EPOCH, NULL, &epoch, &err), &err);
	store_facts(vhdx->image.file, &facts);
	want(vhdx_overlay_load(vhdx->image.file, &vhdx->header, facts.size_bytes, &overlay, &err),
	     &err);
	vhdx->file_bytes = facts.size_bytes;
	if (overlay != NULL) {
		vhdx->file_bytes = vhdx_overlay_file_bytes(overlay);
		want(vhdx_overlay_replay(overlay, vhdx->image.file, &err), &err);
		vhdx_overlay_free(overlay);
	}
	vhdx->image.active = true;
	vhdx->image.data_id = vhdx->header.data_write;
	vhdx->block_bytes = (uint32_t)VHDX_MIB;
	vhdx->chunk_ratio = (1ULL << 23) * 512 / VHDX_MIB;
	vhdx->bat_entry_count = JRIG_BAT_MIB * VHDX_MIB / 8;
	vhdx->meta.disk_bytes = vhdx->bat_entry_count * VHDX_MIB; /* at least: with bitmaps */
	vhdx->regions.bat.offset_bytes = jrig_bat(rig);
	vhdx->regions.bat.length_bytes = JRIG_BAT_MIB * (uint32_t)VHDX_MIB;
	vhdx->regions.metadata.offset_bytes = jrig_bat(rig) + JRIG_BAT_MIB * VHDX_MIB;
	vhdx->regions.metadata.length_bytes = (uint32_t)VHDX_MIB;
	want(vhdx_pages_new(vhdx, &err), &err);
	want(vhdx_space_new(vhdx, &err), &err);
	want(vhdx_journal_begin(vhdx, &err), &err);
	rig->vhdx = vhdx;
}

void jrig_run(struct journal_rig *rig)
{
	while (base_io_loop_step(rig->loop, false))
		continue;
}

void jrig_drop(struct journal_rig *rig)
{
	struct vhdx *vhdx = rig->vhdx;

	jrig_run(rig);
	rig->vhdx = NULL;
	vhdx_journal_free(vhdx);
	vhdx_space_free_all(vhdx);
	vhdx_pages_free(vhdx);
	store_close(vhdx->image.file);
	free(vhdx);
}

int jrig_close(struct journal_rig *rig)
{
	struct base_error err = { 0 };
	int code = vhdx_journal_end(rig->vhdx, &err);

	base_assert(code == err.code);
	jrig_drop(rig);
	return code;
}

int jrig_touch(struct journal_rig *rig, bool data)
{
	struct jrig_wait wait;
	int code;

	jrig_wait_init(&wait);
	code = vhdx_touch(rig->vhdx, data, &wait.waiter);
	return code == -EINPROGRESS ? wait_for(rig, &wait) : code;
}

int jrig_commit(struct journal_rig *rig)
{
	struct jrig_wait wait;

	jrig_wait_init(&wait);
	vhdx_commit(rig->vhdx, &wait.waiter);
	base_assert(!wait.done);
	return wait_for(rig, &wait);
}

struct vhdx_page *jrig_page(struct journal_rig *rig, uint64_t offset_bytes)
{
	struct vhdx_page *page = NULL;
	struct jrig_wait wait;
	int code;

	jrig_wait_init(&wait);
	code = vhdx_page_get(rig->vhdx, offset_bytes, &wait.waiter, &page);
	if (code == -EINPROGRESS) {
		code = wait_for(rig, &wait);
		if (code == 0)
			code = vhdx_page_get(rig->vhdx, offset_bytes, &wait.waiter, &page);
	}
	return code == 0 ? page : NULL;
}

int jrig_take(struct journal_rig *rig, uint64_t length_bytes, uint64_t *ret_offset, bool *ret_fresh)
{
	for (;;) {
		struct jrig_wait wait;
		int code;

		jrig_wait_init(&wait);
		code = vhdx_space_take(rig->vhdx, length_bytes, &wait.waiter, ret_offset,
				       ret_fresh);
		if (code != -EINPROGRESS)
			return code;
		code = wait_for(rig, &wait);
		if (code < 0)
			return code;
	}
}

void jrig_put(struct journal_rig *rig, uint64_t offset_bytes, uint32_t at, uint64_t value,
	      bool ordered)
{
	struct vhdx_page *page = jrig_page(rig, offset_bytes);

	base_assert(page != NULL);
	base_put_le64(page->data + at, value);
	vhdx_page_dirty(page, ordered);
	vhdx_page_put(page);
}

struct rig_request {
	struct store_request request;
	bool done;
	int result;
};

static void request_done(struct store_request *request, int result)
{
	struct rig_request *mine = request->context;

	mine->result = result;
	mine->done = true;
}

int jrig_store(struct journal_rig *rig, enum store_op op, uint64_t offset_bytes, void *data,
	       uint64_t length_bytes)
{
	struct iovec iov = { .iov_base = data, .iov_len = length_bytes };
	struct rig_request mine = {
		.request = {
			.op = op,
			.epoch = RIG_EPOCH,
			.offset_bytes = offset_bytes,
			.length_bytes = length_bytes,
			.iov = &iov,
			.iov_count = 1,
			.done = request_done,
		},
	};

	mine.request.context = &mine;
	store_submit(rig->vhdx->image.file, &mine.request);
	while (!mine.done)
		base_assert(base_io_loop_step(rig->loop, false));
	return mine.result;
}

int jrig_left_open(struct jrig_left *left, struct store *store)
{
	struct store_open_options options = { .align_bytes = 512, .read_only = true };
	struct base_error err = { 0 };
	struct store_facts facts;
	uint32_t slot = 0;

	*left = (struct jrig_left){ .store = store };
	loop_new(NULL, &left->loop);
	if (!headers_read(store, &left->header, &slot))
		return -EBADMSG;
	options.loop = left->loop;
	want(store_open(store, JRIG_NAME, &options, &left->file, &err), &err);
	store_facts(left->file, &facts);
	left->file_bytes = facts.size_bytes;
	return vhdx_overlay_load(left->file, &left->header, facts.size_bytes, &left->overlay, &err);
}

void jrig_left_fini(struct jrig_left *left)
{
	vhdx_overlay_free(left->overlay);
	store_close(left->file);
	store_free(left->store);
	base_io_loop_free(left->loop);
}

uint64_t jrig_left_value(struct jrig_left *left, uint64_t offset_bytes)
{
	uint8_t bytes[8] = { 0 };

	if (offset_bytes + sizeof(bytes) <= left->file_bytes)
		base_assert(fake_store_peek(left->store, JRIG_NAME, offset_bytes, bytes,
					    sizeof(bytes)));
	if (left->overlay != NULL)
		vhdx_overlay_apply(left->overlay, offset_bytes, bytes, sizeof(bytes));
	return base_get_le64(bytes);
}
