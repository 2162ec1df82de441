/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/vhdx_rig.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/disk/vhdx_journal_priv.h"

struct slot {
	struct rig *rig;
	struct disk_request request;
	struct disk_extent extents[8];
	struct iovec iov[3];
	uint8_t *buffer;
	uint64_t from, to; /* the range that nobody else may use meanwhile */
	bool busy;
	bool done;
	int result;
};

static uint64_t rig_next(struct rig *rig)
{
	rig->random ^= rig->random << 13;
	rig->random ^= rig->random >> 7;
	rig->random ^= rig->random << 17;
	return rig->random * 0x2545F4914F6CDD1DULL >> 11;
}

uint64_t rig_rand(struct rig *rig, uint64_t below)
{
	return rig_next(rig) % below;
}

struct vhdx *rig_vhdx(struct rig *rig)
{
	return vhdx_of(rig->image);
}

/* --- opening --- */

static void must(int code, const struct base_error *err, const char *what)
{
	if (code < 0)
		base_bug("%s: %d: %s", what, code, err->text);
}

static struct image *open_image(struct rig *rig, const char *name)
{
	const struct image_open_options options = {
		.store = rig->store,
		.name = name,
		.loop = rig->loop,
	};
	struct base_error err = { 0 };
	struct image *image = NULL;

	must(image_vhdx_ops.open(&options, &image, &err), &err, "open");
	return image;
}

static void activate(struct image *image)
{
	struct base_error err = { 0 };

	must(image_vhdx_ops.activate(image, STORE_EPOCH_NONE, NULL, &err), &err, "activate");
}

static void create(struct rig *rig, const char *name, const struct disk_create_options *options,
		   struct image *parent)
{
	struct base_error err = { 0 };

	must(image_vhdx_ops.create(rig->store, name, rig->loop, options, parent, &err), &err,
	     "create");
}

static void parent_make(struct rig *rig, const struct rig_options *options,
			struct disk_create_options *child)
{
	struct disk_create_options create_options = *child;
	struct base_error err = { 0 };

	create_options.kind = DISK_DYNAMIC;
	create_options.size_bytes = options->parent_bytes;
	create(rig, RIG_PARENT, &create_options, NULL);
	rig->image = open_image(rig, RIG_PARENT);
	activate(rig->image);
	rig->size_bytes = options->parent_bytes;
	rig_random(rig, 60, 8);
	must(image_vhdx_ops.deactivate(rig->image, &err), &err, "deactivate");
	rig->parent = rig->image;
	child->parent = RIG_PARENT;
}

void rig_init(struct rig *rig, const struct rig_options *options)
{
	struct base_io_loop_options loop_options = { .without_ring = true };
	struct disk_create_options child = {
		.format = DISK_VHDX,
		.kind = options->kind,
		.size_bytes = options->size_bytes,
		.block_bytes = options->block_bytes != 0 ? options->block_bytes : RIG_BLOCK,
		.logical_sector_bytes =
			options->sector_bytes != 0 ? options->sector_bytes : RIG_SECTOR,
	};
	struct base_error err = { 0 };

	rig->random = rig->random * 2 + 0x9E3779B97F4A7C15ULL;
	rig->clock = base_clock_fake(&rig->fake_clock);
	loop_options.clock = &rig->clock;
	must(base_io_loop_new(&loop_options, &rig->loop, &err), &err, "loop");
	must(fake_store_new(&rig->store, &err), &err, "store");
	rig->sector_bytes = child.logical_sector_bytes;
	rig->model_bytes = options->model_bytes != 0 ? options->model_bytes : RIG_MODEL_MAX;
	rig->model = calloc(1, rig->model_bytes);
	rig->unsure = calloc(1, rig->model_bytes / rig->sector_bytes);
	if (rig->model == NULL || rig->unsure == NULL)
		base_bug("no memory for a model");
	if (options->kind == DISK_DIFFERENCING)
		parent_make(rig, options, &child);
	create(rig, RIG_NAME, &child, rig->parent);
	rig->size_bytes = options->size_bytes;
	if (rig->size_bytes > rig->model_bytes)
		rig->size_bytes = rig->model_bytes;
	rig->image = open_image(rig, RIG_NAME);
	rig->image->parent = rig->parent;
	activate(rig->image);
}

static void shut(struct rig *rig)
{
	struct base_error err = { 0 };
	int code = rig->image->active ? image_vhdx_ops.deactivate(rig->image, &err) : 0;

	if (code < 0 && rig->failures == 0)
		base_bug("deactivate: %d: %s", code, err.text);
	image_vhdx_ops.close(rig->image);
	rig->image = NULL;
}

void rig_reopen(struct rig *rig)
{
	if (rig->image != NULL)
		shut(rig);
	rig->image = open_image(rig, RIG_NAME);
	rig->image->parent = rig->parent;
	activate(rig->image);
}

void rig_fini(struct rig *rig)
{
	if (rig->image != NULL)
		shut(rig);
	if (rig->parent != NULL)
		image_vhdx_ops.close(rig->parent);
	store_free(rig->store);
	base_io_loop_free(rig->loop);
	free(rig->model);
	free(rig->unsure);
}

/* --- single requests --- */

static void slot_done(struct disk_request *request, int result)
{
	struct slot *slot = request->context;

	slot->result = result;
	base_io_done(slot->rig->loop, &slot->done);
}

static void slot_submit(struct slot *slot)
{
	slot->done = false;
	slot->request.done = slot_done;
	slot->request.context = slot;
	slot->rig->image->ops->submit(slot->rig->image, &slot->request);
}

int rig_do(struct rig *rig, enum disk_op op, uint32_t flags, uint64_t offset_bytes, void *data,
	   uint64_t length_bytes)
{
	struct slot slot = { .rig = rig };

	slot.iov[0] = (struct iovec){ .iov_base = data, .iov_len = length_bytes };
	slot.request = (struct disk_request){
		.op = op,
		.flags = flags,
		.offset_bytes = offset_bytes,
		.length_bytes = length_bytes,
		.iov = slot.iov,
		.iov_count = 1,
	};
	slot_submit(&slot);
	base_io_wait(rig->loop, &slot.done);
	return slot.result;
}

uint32_t rig_map(struct rig *rig, uint32_t flags, uint64_t offset_bytes, uint64_t length_bytes,
		 struct disk_extent *extents, uint32_t capacity)
{
	struct disk_request all = { .extents = extents, .extent_capacity = capacity };
	uint64_t end = offset_bytes + length_bytes;

	while (offset_bytes < end) {
		struct slot slot = { .rig = rig };

		slot.request = (struct disk_request){
			.op = DISK_MAP,
			.flags = flags,
			.offset_bytes = offset_bytes,
			.length_bytes = end - offset_bytes,
			.extents = slot.extents,
			.extent_capacity = 8,
		};
		slot_submit(&slot);
		base_io_wait(rig->loop, &slot.done);
		if (slot.result != 0 || slot.request.extent_count == 0)
			base_bug("map at %llu: %d", (unsigned long long)offset_bytes, slot.result);
		for (uint32_t i = 0; i < slot.request.extent_count; i++) {
			if (!image_extent_add(&all, slot.extents[i].offset_bytes,
					      slot.extents[i].length_bytes, slot.extents[i].kind))
				base_bug("more than %u extents", capacity);
			offset_bytes = slot.extents[i].offset_bytes + slot.extents[i].length_bytes;
		}
	}
	return all.extent_count;
}

/* --- the model --- */

static bool changes(enum disk_op op)
{
	return op == DISK_WRITE || op == DISK_ZERO || op == DISK_UNMAP;
}

/* UNMAP: whole blocks, a cut one at the disk's end too. */
static void trim(const struct rig *rig, const struct disk_request *request, uint64_t *ret_from,
		 uint64_t *ret_to)
{
	uint64_t block = vhdx_of(rig->image)->block_bytes;
	uint64_t from = request->offset_bytes;
	uint64_t to = from + request->length_bytes;

	if (request->op == DISK_UNMAP) {
		from = (from + block - 1) / block * block;
		if (to < rig->size_bytes)
			to = to / block * block;
		if (to < from)
			to = from;
	}
	*ret_from = from;
	*ret_to = to;
}

static void check_bytes(const struct rig *rig, uint64_t offset, const uint8_t *seen,
			uint64_t length)
{
	for (uint64_t at = 0; at < length; at += rig->sector_bytes) {
		if (rig->unsure[(offset + at) / rig->sector_bytes] ||
		    memcmp(seen + at, rig->model + offset + at, rig->sector_bytes) == 0)
			continue;
		base_bug("sector at %llu (block %llu): byte 0x%02x, want 0x%02x",
			 (unsigned long long)(offset + at),
			 (unsigned long long)((offset + at) / vhdx_of(rig->image)->block_bytes),
			 seen[at], rig->model[offset + at]);
	}
}

static void check_map(const struct rig *rig, const struct disk_request *request)
{
	uint64_t at = request->offset_bytes;

	if (request->extent_count == 0)
		base_bug("an empty map");
	for (uint32_t i = 0; i < request->extent_count; i++) {
		const struct disk_extent *extent = &request->extents[i];

		if (extent->offset_bytes != at || extent->length_bytes == 0)
			base_bug("a gap in a map");
		at += extent->length_bytes;
		if (extent->kind != DISK_EXTENT_ZERO && extent->kind != DISK_EXTENT_UNMAPPED)
			continue;
		for (uint64_t j = extent->offset_bytes; j < at; j += rig->sector_bytes) {
			if (!rig->unsure[j / rig->sector_bytes] && rig->model[j] != 0)
				base_bug("mapped as zero at %llu", (unsigned long long)j);
		}
	}
	if (at > request->offset_bytes + request->length_bytes)
		base_bug("a map beyond its range");
}

/* What a request that is over means for the model. */
static void settle(struct slot *slot)
{
	struct rig *rig = slot->rig;
	const struct disk_request *request = &slot->request;
	uint64_t from, to;

	trim(rig, request, &from, &to);
	if (slot->result < 0) {
		rig->failures++;
		if (changes(request->op))
			memset(rig->unsure + from / rig->sector_bytes, 1,
			       (to - from) / rig->sector_bytes);
		return;
	}
	if (request->op == DISK_READ)
		check_bytes(rig, request->offset_bytes, slot->buffer, request->length_bytes);
	if (request->op == DISK_MAP)
		check_map(rig, request);
	if (!changes(request->op))
		return;
	if (request->op == DISK_WRITE)
		memcpy(rig->model + from, slot->buffer, to - from);
	else
		memset(rig->model + from, 0, to - from);
	memset(rig->unsure + from / rig->sector_bytes, 0, (to - from) / rig->sector_bytes);
}

static void slot_make(struct slot *slot, enum disk_op op, uint32_t flags, uint64_t offset,
		      uint64_t length)
{
	struct rig *rig = slot->rig;
	uint64_t cut = length / 3 / rig->sector_bytes * rig->sector_bytes;
	uint8_t stamp = (uint8_t)(rig_rand(rig, 255) + 1);

	slot->request = (struct disk_request){
		.op = op,
		.flags = flags,
		.offset_bytes = offset,
		.length_bytes = length,
		.extents = slot->extents,
		.extent_capacity = 8,
	};
	slot->from = offset;
	slot->to = offset + length;
	if (op != DISK_READ && op != DISK_WRITE)
		return;
	slot->buffer = malloc(length);
	if (slot->buffer == NULL)
		base_bug("no memory for a buffer");
	for (uint64_t i = 0; i < length; i += rig->sector_bytes) {
		memset(slot->buffer + i, stamp, rig->sector_bytes);
		slot->buffer[i] = (uint8_t)(1 + (offset + i) / rig->sector_bytes % 251);
	}
	slot->iov[0] = (struct iovec){ .iov_base = slot->buffer, .iov_len = cut };
	slot->iov[1] = (struct iovec){ .iov_base = slot->buffer + cut, .iov_len = cut };
	slot->iov[2] =
		(struct iovec){ .iov_base = slot->buffer + 2 * cut, .iov_len = length - 2 * cut };
	slot->request.iov = cut != 0 ? slot->iov : slot->iov + 2;
	slot->request.iov_count = cut != 0 ? 3 : 1;
}

int rig_step(struct rig *rig, enum disk_op op, uint32_t flags, uint64_t offset_bytes,
	     uint64_t length_bytes)
{
	struct slot slot = { .rig = rig };

	slot_make(&slot, op, flags, offset_bytes, length_bytes);
	slot_submit(&slot);
	base_io_wait(rig->loop, &slot.done);
	settle(&slot);
	free(slot.buffer);
	return slot.result;
}

/* --- random requests --- */

static enum disk_op random_op(struct rig *rig)
{
	uint64_t dice = rig_rand(rig, 100);

	if (dice < 42)
		return DISK_WRITE;
	if (dice < 70)
		return DISK_READ;
	if (dice < 80)
		return DISK_ZERO;
	if (dice < 88)
		return DISK_UNMAP;
	return dice < 94 ? DISK_MAP : DISK_FLUSH;
}

static bool range_is_free(const struct slot *slots, const struct slot *slot)
{
	for (uint32_t i = 0; i < RIG_SLOTS_MAX; i++) {
		if (slots[i].busy && &slots[i] != slot && slots[i].from < slot->to &&
		    slot->from < slots[i].to)
			return false;
	}
	return true;
}

static void random_start(struct rig *rig, struct slot *slots, struct slot *slot)
{
	static const uint32_t flags_of[] = { 0, 0, DISK_FUA, DISK_MAY_UNMAP,
					     DISK_FUA | DISK_MAY_UNMAP };
	uint64_t block = rig_vhdx(rig)->block_bytes;
	enum disk_op op = random_op(rig);
	uint32_t flags = flags_of[rig_rand(rig, 5)];
	uint64_t sectors = rig->size_bytes / rig->sector_bytes;
	uint64_t offset = rig_rand(rig, sectors) * rig->sector_bytes;
	uint64_t length = (1 + rig_rand(rig, 24)) * rig->sector_bytes;

	if (rig_rand(rig, 12) == 0) {
		offset = offset / block * block;
		length = block * (1 + rig_rand(rig, 2));
	} else if (rig_rand(rig, 12) == 0 || op == DISK_UNMAP) {
		length = block / 2 +
			 rig_rand(rig, 2 * block / rig->sector_bytes) * rig->sector_bytes;
	}
	if (length > rig->size_bytes - offset)
		length = rig->size_bytes - offset;
	if (op == DISK_FLUSH)
		length = 0;
	slot->rig = rig;
	slot->buffer = NULL;
	slot_make(slot, op, flags, offset, length);
	if (!range_is_free(slots, slot)) {
		free(slot->buffer);
		return;
	}
	slot->busy = true;
	slot_submit(slot);
}

static bool reap(struct slot *slots)
{
	bool any = false;

	for (uint32_t i = 0; i < RIG_SLOTS_MAX; i++) {
		if (!slots[i].busy)
			continue;
		if (!slots[i].done) {
			any = true;
			continue;
		}
		settle(&slots[i]);
		free(slots[i].buffer);
		slots[i].busy = false;
	}
	return any;
}

void rig_random(struct rig *rig, uint32_t count, uint32_t depth)
{
	struct slot *slots = calloc(RIG_SLOTS_MAX, sizeof(*slots));

	if (slots == NULL)
		base_bug("no memory for slots");
	while (count > 0) {
		for (uint32_t i = 0; i < depth && count > 0; i++) {
			if (slots[i].busy)
				continue;
			count--;
			random_start(rig, slots, &slots[i]);
		}
		(void)base_io_loop_step(rig->loop, false);
		(void)reap(slots);
	}
	while (reap(slots))
		(void)base_io_loop_step(rig->loop, false);
	free(slots);
}

void rig_verify(struct rig *rig)
{
	for (uint64_t at = 0; at < rig->size_bytes; at += RIG_BLOCK) {
		uint64_t length = rig->size_bytes - at;
		int code = rig_step(rig, DISK_READ, 0, at, length < RIG_BLOCK ? length : RIG_BLOCK);

		if (code < 0)
			base_bug("read at %llu: %d", (unsigned long long)at, code);
	}
}

/* --- the tables --- */

uint64_t rig_entry(struct rig *rig, uint64_t bat_index)
{
	struct vhdx *vhdx = rig_vhdx(rig);
	uint64_t offset = vhdx->regions.bat.offset_bytes + bat_index * 8;
	uint64_t start = offset / VHDX_PAGE_BYTES * VHDX_PAGE_BYTES;
	const struct vhdx_page *page = vhdx_page_peek(vhdx, start);
	uint8_t bytes[8];

	if (page != NULL)
		return base_get_le64(page->data + (offset - start));
	if (!fake_store_peek(rig->store, RIG_NAME, offset, bytes, sizeof(bytes)))
		base_bug("no file");
	return base_get_le64(bytes);
}

void rig_poke_entry(struct rig *rig, uint64_t bat_index, uint64_t entry)
{
	struct vhdx *vhdx = rig_vhdx(rig);
	uint64_t offset = vhdx->regions.bat.offset_bytes + bat_index * 8;
	uint8_t bytes[8];

	base_put_le64(bytes, entry);
	shut(rig);
	if (!fake_store_poke(rig->store, RIG_NAME, offset, bytes, sizeof(bytes)))
		base_bug("no file");
	rig_reopen(rig);
}

static void claim(uint8_t *used, uint64_t units, uint64_t offset, uint64_t length)
{
	for (uint64_t unit = offset / VHDX_MIB; unit < (offset + length) / VHDX_MIB; unit++) {
		if (unit >= units)
			base_bug("MiB %llu is behind the file", (unsigned long long)unit);
		if (used[unit]++ != 0)
			base_bug("MiB %llu is used twice", (unsigned long long)unit);
	}
}

void rig_check_space(struct rig *rig)
{
	struct vhdx *vhdx = rig_vhdx(rig);
	uint64_t units = (vhdx->file_bytes + VHDX_MIB - 1) / VHDX_MIB;
	uint8_t *used = calloc(1, units);

	if (used == NULL)
		base_bug("no memory for a map");
	claim(used, units, 0, VHDX_MIB);
	claim(used, units, vhdx->header.log_offset, vhdx->header.log_bytes);
	claim(used, units, vhdx->regions.bat.offset_bytes, vhdx->regions.bat.length_bytes);
	claim(used, units, vhdx->regions.metadata.offset_bytes,
	      vhdx->regions.metadata.length_bytes);
	for (uint64_t i = 0; i < vhdx->bat_entry_count; i++) {
		uint64_t entry = rig_entry(rig, i);
		bool bitmap = i % (vhdx->chunk_ratio + 1) == vhdx->chunk_ratio;

		if (vhdx_entry_offset(entry) != 0)
			claim(used, units, vhdx_entry_offset(entry),
			      bitmap ? VHDX_MIB : vhdx->block_bytes);
	}
	for (struct vhdx_space_freed *freed = vhdx->space->freed; freed != NULL;
	     freed = freed->next)
		claim(used, units, freed->offset_bytes, freed->length_bytes);
	/* Without memory, or with a write that may still land, space is rather kept than reused. */
	for (uint64_t unit = 0; vhdx_space_known(vhdx) && !vhdx->space->no_reuse &&
				unit < vhdx->space->end_bytes / VHDX_MIB;
	     unit++) {
		bool is_free = vhdx_space_is_free(vhdx, unit * VHDX_MIB, VHDX_MIB);

		if (is_free ? used[unit] != 0 : used[unit] == 0 && !rig->may_keep)
			base_bug("MiB %llu of the file: used %u, the space map says otherwise",
				 (unsigned long long)unit, used[unit]);
	}
	free(used);
}
