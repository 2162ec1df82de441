/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/image_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512U
#define SPAN   256U /* sectors of the largest random request */

static void must(int code, const struct base_error *err)
{
	if (code < 0)
		base_bug("the rig: %s (%d)", err->text, code);
}

void image_rig_init(struct image_rig *rig)
{
	struct base_error err = { 0 };

	*rig = (struct image_rig){ 0 };
	must(base_io_loop_new(&(struct base_io_loop_options){ .without_ring = true }, &rig->loop,
			      &err),
	     &err);
	must(fake_store_new(&rig->store, &err), &err);
}

void image_rig_fini(struct image_rig *rig)
{
	store_free(rig->store);
	base_io_loop_free(rig->loop);
}

int image_rig_create(struct image_rig *rig, const struct image_ops *ops, const char *name,
		     const struct disk_create_options *options, struct image *parent,
		     struct base_error *err)
{
	return ops->create(rig->store, name, rig->loop, options, parent, err);
}

int image_rig_open(struct image_rig *rig, const struct image_ops *ops, const char *name,
		   struct image **ret_image, struct base_error *err)
{
	const struct image_open_options options = { .store = rig->store,
						    .name = name,
						    .loop = rig->loop };

	return ops->open(&options, ret_image, err);
}

struct image *image_rig_active(struct image_rig *rig, const struct image_ops *ops, const char *name)
{
	struct base_error err = { 0 };
	struct image *image = NULL;

	must(image_rig_open(rig, ops, name, &image, &err), &err);
	must(ops->activate(image, STORE_EPOCH_NONE, NULL, &err), &err);
	return image;
}

void image_rig_close(struct image *image)
{
	struct base_error err = { 0 };

	must(image->ops->deactivate(image, &err), &err);
	image->ops->close(image);
}

struct wait {
	struct base_io_loop *loop;
	bool done;
	int result;
};

static void done(struct disk_request *request, int result)
{
	struct wait *wait = request->context;

	wait->result = result;
	base_io_done(wait->loop, &wait->done);
}

static int submit_wait(struct image *image, struct disk_request *request)
{
	struct wait wait = { .loop = image->loop };

	request->done = done;
	request->context = &wait;
	image->ops->submit(image, request);
	base_io_wait(image->loop, &wait.done);
	return wait.result;
}

int image_rig_do(struct image *image, enum disk_op op, uint32_t flags, uint64_t offset_bytes,
		 void *data, uint64_t length_bytes)
{
	const struct iovec iov = { data, length_bytes };
	struct disk_request request = { .op = op,
					.flags = flags,
					.offset_bytes = offset_bytes,
					.length_bytes = length_bytes,
					.iov = data != NULL ? &iov : NULL,
					.iov_count = data != NULL };

	return submit_wait(image, &request);
}

static int map(struct image *image, uint32_t flags, struct disk_extent *extents, uint32_t capacity,
	       uint32_t *ret_count)
{
	struct disk_request request = { .op = DISK_MAP,
					.flags = flags,
					.length_bytes = image->geometry.size_bytes,
					.extents = extents,
					.extent_capacity = capacity };
	int code = submit_wait(image, &request);

	*ret_count = request.extent_count;
	return code;
}

uint32_t image_rig_map(struct image *image, uint32_t flags, struct disk_extent *extents,
		       uint32_t capacity)
{
	uint32_t count;

	must(map(image, flags, extents, capacity, &count), &(struct base_error){ .text = "map" });
	return count;
}

int image_rig_try_map(struct image *image, uint32_t flags, struct disk_extent *extents,
		      uint32_t capacity)
{
	uint32_t count;

	return map(image, flags, extents, capacity, &count);
}

bool image_rig_is(struct image *image, uint64_t offset_bytes, uint64_t length_bytes, uint8_t value)
{
	uint8_t *data = aligned_alloc(SECTOR, length_bytes);
	bool same = data != NULL &&
		    image_rig_do(image, DISK_READ, 0, offset_bytes, data, length_bytes) == 0;

	for (uint64_t i = 0; i < length_bytes && same; i++)
		same = data[i] == value;
	free(data);
	return same;
}

bool image_rig_model_holds(struct image *image, const uint8_t *model)
{
	uint64_t sectors = image->geometry.size_bytes / SECTOR;
	uint8_t *data = aligned_alloc(SECTOR, (size_t)SPAN * SECTOR);
	bool same = data != NULL;

	for (uint64_t at = 0; at < sectors && same; at += SPAN) {
		uint64_t count = sectors - at < SPAN ? sectors - at : SPAN;

		same = image_rig_do(image, DISK_READ, 0, at * SECTOR, data, count * SECTOR) == 0;
		for (uint64_t i = 0; i < count * SECTOR && same; i++)
			same = data[i] == model[at + i / SECTOR];
	}
	free(data);
	return same;
}

/* --- random --- */

struct slot {
	struct random *random;
	struct disk_request request;
	struct iovec iov;
	uint8_t *data;
	uint8_t value;
	bool busy;
};

struct random {
	struct image *image;
	uint8_t *model;
	uint64_t state;
	struct slot slots[IMAGE_RIG_DEPTH];
	int result;
	bool changed; /* a slot has become free */
};

static uint64_t next(struct random *random)
{
	random->state ^= random->state << 13;
	random->state ^= random->state >> 7;
	random->state ^= random->state << 17;
	return random->state >> 11;
}

static bool overlaps(const struct random *random, uint64_t offset, uint64_t length)
{
	for (uint32_t i = 0; i < IMAGE_RIG_DEPTH; i++) {
		const struct disk_request *other = &random->slots[i].request;

		if (random->slots[i].busy && other->op != DISK_FLUSH &&
		    offset < other->offset_bytes + other->length_bytes &&
		    other->offset_bytes < offset + length)
			return true;
	}
	return false;
}

static void slot_done(struct disk_request *request, int result)
{
	struct slot *slot = request->context;
	struct random *random = slot->random;
	uint8_t *model = random->model + request->offset_bytes / SECTOR;
	uint64_t sectors = request->length_bytes / SECTOR;

	if (result < 0 && random->result == 0)
		random->result = result;
	for (uint64_t i = 0; i < request->length_bytes && result == 0 && request->op == DISK_READ;
	     i++)
		if (slot->data[i] != model[i / SECTOR]) {
			random->result = -EILSEQ;
			break;
		}
	if (result == 0 && request->op == DISK_WRITE)
		memset(model, slot->value, sectors);
	if (result == 0 && (request->op == DISK_ZERO || request->op == DISK_UNMAP))
		memset(model, 0, sectors);
	slot->busy = false;
	base_io_done(random->image->loop, &random->changed);
}

static void slot_start(struct random *random, struct slot *slot)
{
	static const enum disk_op ops[] = { DISK_WRITE, DISK_WRITE, DISK_WRITE,
					    DISK_WRITE, DISK_READ,  DISK_READ,
					    DISK_ZERO,  DISK_UNMAP, DISK_FLUSH };
	const struct disk_geometry *geometry = &random->image->geometry;
	enum disk_op op = ops[next(random) % (sizeof(ops) / sizeof(ops[0]))];
	uint64_t sectors = geometry->size_bytes / SECTOR;
	uint64_t count = 1 + next(random) % SPAN;
	uint64_t at = next(random) % sectors;

	if (next(random) % 2 == 0)
		count = 1 + count % 8;
	if (op == DISK_UNMAP) {
		count = geometry->unmap_granularity_bytes / SECTOR;
		at -= at % count;
	}
	count = count < sectors - at ? count : sectors - at;
	if (op == DISK_FLUSH)
		count = 0;
	if (count > 0 && overlaps(random, at * SECTOR, count * SECTOR))
		return;
	slot->value = (uint8_t)(1 + next(random) % 255);
	if (op == DISK_WRITE)
		memset(slot->data, slot->value, count * SECTOR);
	slot->iov = (struct iovec){ slot->data, count * SECTOR };
	slot->request = (struct disk_request){ .op = op,
					       .offset_bytes = op == DISK_FLUSH ? 0 : at * SECTOR,
					       .length_bytes = count * SECTOR,
					       .done = slot_done,
					       .context = slot };
	if (op == DISK_READ || op == DISK_WRITE) {
		slot->request.iov = &slot->iov;
		slot->request.iov_count = 1;
	}
	if (op != DISK_READ && op != DISK_FLUSH && next(random) % 8 == 0)
		slot->request.flags = DISK_FUA;
	slot->busy = true;
	random->image->ops->submit(random->image, &slot->request);
}

static bool any_busy(const struct random *random)
{
	for (uint32_t i = 0; i < IMAGE_RIG_DEPTH; i++)
		if (random->slots[i].busy)
			return true;
	return false;
}

int image_rig_random(struct image *image, uint8_t *model, uint64_t seed, uint32_t count)
{
	struct random *random = calloc(1, sizeof(*random));
	int result;

	must(random == NULL ? -ENOMEM : 0, &(struct base_error){ .text = "random" });
	random->image = image;
	random->model = model;
	random->state = seed * 0x9e3779b97f4a7c15ULL + 1;
	for (uint32_t i = 0; i < IMAGE_RIG_DEPTH; i++) {
		random->slots[i].random = random;
		random->slots[i].data = aligned_alloc(SECTOR, (size_t)SPAN * SECTOR);
		must(random->slots[i].data == NULL ? -ENOMEM : 0,
		     &(struct base_error){ .text = "random" });
	}
	for (uint32_t started = 0; (started < count && random->result == 0) || any_busy(random);) {
		for (uint32_t i = 0; i < IMAGE_RIG_DEPTH && started < count && random->result == 0;
		     i++)
			if (!random->slots[i].busy) {
				slot_start(random, &random->slots[i]);
				started++;
			}
		random->changed = !any_busy(random);
		base_io_wait(image->loop, &random->changed);
	}
	for (uint32_t i = 0; i < IMAGE_RIG_DEPTH; i++)
		free(random->slots[i].data);
	result = random->result;
	free(random);
	return result;
}
