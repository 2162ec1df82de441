/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's images: the top of each chain as its guest sees it, watched; each parent as a file,
 * which is a raw disk to read.  The first round's marks are made when a disk begins to be watched,
 * from what its map says.  docs/migrate/disks.md.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_image_away.h"
#include "agent/vm_migrate_disk_priv.h"
#include "base/cleanup.h"
#include "hypervisor/disk/disk_move.h"
#include "hypervisor/disk/disk_next.h"

#define MAP_PIECE_BYTES (64ULL << 30) /* asked of the map at a time */

struct object {
	struct store *store;
	char name[STORE_NAME_BYTES]; /* in it */
	struct disk *disk;
	bool owned;   /* opened here, to be read as a file */
	bool watched; /* a top */
	bool held;    /* and held by whoever moves it */
	bool own;     /* the VM's alone: a top, or what a checkpoint of it made a parent */
	uint64_t bytes;
	uint64_t word_count;
	_Atomic uint64_t *marks; /* a bit a granule: to be sent */
};

struct vm_migrate_out {
	struct mig_plan *plan; /* while it is made */
	uint32_t first;        /* of its objects in it */
	uint32_t count;
	struct object objects[MIG_OBJECTS_MAX];
};

/* --- marks --- */

static void mark(struct object *object, uint64_t offset_bytes, uint64_t length_bytes)
{
	uint64_t end = (offset_bytes + length_bytes + MIG_GRANULE_BYTES - 1) / MIG_GRANULE_BYTES;

	for (uint64_t at = offset_bytes / MIG_GRANULE_BYTES; at < end; at++) {
		if (at % 64 == 0 && end - at >= 64) {
			atomic_store(&object->marks[at / 64], UINT64_MAX);
			at += 63;
			continue;
		}
		atomic_fetch_or(&object->marks[at / 64], 1ULL << at % 64);
	}
}

/* On the disk's loop: what the guest wrote has landed, and it does not know yet. */
static void on_write(void *context, const struct disk_hook_event *event)
{
	struct object *object = context;

	base_assert(event->op != DISK_RESIZE); /* a disk that is watched keeps its size */
#ifndef GODWIT_MUTANT_MIG_DISK_MARK
	mark(object, event->offset_bytes, event->length_bytes);
#endif
	disk_hook_done(object->disk, event->request);
}

static int map_at(const struct object *object, uint64_t offset_bytes, uint64_t length_bytes,
		  struct disk_extent *extents, uint32_t *count, struct base_error *err)
{
	struct disk_request request = {
		.op = DISK_MAP,
		.flags = DISK_THIS_LAYER,
		.offset_bytes = offset_bytes,
		.length_bytes = length_bytes,
		.extents = extents,
		.extent_capacity = *count,
	};
	int code = object->held ? disk_do_held(object->disk, &request, err)
				: vm_migrate_do(object->disk, &request, err);

	*count = request.extent_count;
	return code;
}

/* What the first round sends; @ret_data: how much of it is data. */
static int mark_all(struct object *object, uint64_t *ret_data, struct base_error *err)
{
	uint64_t at = 0;

	*ret_data = 0;
	while (at < object->bytes) {
		struct disk_extent extents[MIG_RUNS_MAX];
		uint32_t count = MIG_RUNS_MAX;
		uint64_t left = object->bytes - at;
		int code = map_at(object, at, left < MAP_PIECE_BYTES ? left : MAP_PIECE_BYTES,
				  extents, &count, err);

		if (code < 0)
			return code;
		for (uint32_t i = 0; i < count; i++) {
			const struct disk_extent *extent = &extents[i];

			if (extent->kind == DISK_EXTENT_DATA)
				*ret_data += extent->length_bytes;
			if (extent->kind == DISK_EXTENT_DATA || extent->kind == DISK_EXTENT_ZERO)
				mark(object, extent->offset_bytes, extent->length_bytes);
			at = extent->offset_bytes + extent->length_bytes;
		}
	}
	return 0;
}

/* --- what there is --- */

static size_t folder_bytes(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash != NULL ? (size_t)(slash - name) + 1 : 0;
}

/* @name is in the folder of @top. */
static int take_leaf(const char *top, const char *name, char to[VM_IMAGE_NAME_BYTES],
		     struct base_error *err)
{
	size_t folder = folder_bytes(name);
	const char *leaf = name + folder;

	if (folder != folder_bytes(top) || strncmp(top, name, folder) != 0)
		return base_fail(err, -EINVAL,
				 "'%s' and '%s' are in two folders: a chain that moves is in one",
				 top, name);
	if (strlen(leaf) >= VM_IMAGE_NAME_BYTES || leaf[0] == '.')
		return base_fail(err, -EINVAL,
				 "'%s': expected a name of at most %d bytes, not beginning with a "
				 "dot",
				 name, VM_IMAGE_NAME_BYTES - 1);
	memcpy(to, leaf, strlen(leaf) + 1);
	return 0;
}

static int plan_add(struct mig_plan *plan, const struct vm_image *image, struct base_error *err)
{
	struct mig_plan_object *objects = NULL;
	char *description = vm_image_encode(image);

	if (description != NULL)
		objects = realloc(plan->objects, (plan->object_count + 1) * sizeof(*objects));
	if (objects == NULL) {
		free(description);
		return base_fail(err, -ENOMEM, "plan of '%s'", image->name);
	}
	plan->objects = objects;
	objects[plan->object_count++] = (struct mig_plan_object){
		.object.unit_count = (image->bytes + MIG_SECTOR_BYTES - 1) / MIG_SECTOR_BYTES,
		.description = description,
	};
	return 0;
}

/* A new one, in place; it counts once it is in the plan. */
static int object_new(struct vm_migrate_out *out, struct store *store, const char *name,
		      struct object **ret_object, struct base_error *err)
{
	struct object *object = &out->objects[out->count];

	if (out->first + out->count >= MIG_OBJECTS_MAX)
		return base_fail(err, -ENOSPC, "more than %u images", MIG_OBJECTS_MAX - 1);
	*object = (struct object){ .store = store };
	memcpy(object->name, name, strlen(name) + 1);
	*ret_object = object;
	return 0;
}

static int marks_new(struct object *object, struct base_error *err)
{
	struct disk_geometry geometry;

	disk_geometry(object->disk, &geometry);
	object->bytes = geometry.size_bytes;
	object->word_count = object->bytes / MIG_GRANULE_BYTES / 64 + 1;
	object->marks = calloc(object->word_count, sizeof(*object->marks));
	return object->marks != NULL ? 0 : base_fail(err, -ENOMEM, "marks of '%s'", object->name);
}

static void object_fini(struct object *object)
{
	if (object->watched)
		disk_watch_end(object->disk);
	object->watched = false;
	if (object->owned)
		disk_close(object->disk);
	object->disk = NULL;
	free(object->marks);
	object->marks = NULL;
}

static bool has_file(const struct vm_migrate_out *out, struct store *store, const char *name)
{
	for (uint32_t i = 0; i < out->count; i++)
		if (out->objects[i].owned && out->objects[i].store == store &&
		    strcmp(out->objects[i].name, name) == 0)
			return true;
	return false;
}

static int open_file(struct object *object, struct base_io_loop *loop, struct base_error *err)
{
	const struct disk_options options = {
		.store = object->store,
		.name = object->name,
		.format = DISK_RAW,
		.loop = loop,
		.read_only = true,
		.on_gone = DISK_POLICY_REPORT,
	};
	int code = disk_open_standby(&options, &object->disk, err);

	object->owned = code == 0;
	return code;
}

/* A file of a chain, whose top is called @top; @next goes on from it, "": none. */
static int add_file(struct vm_migrate_out *out, const struct vm_migrate_from *from, const char *top,
		    const struct disk_layer_info *info, const char *next, struct base_error *err)
{
	struct vm_image image = { .format = info->format,
				  .bytes = info->file_bytes,
				  .data_id = info->data_id };
	struct object *object = NULL;
	int code = take_leaf(top, info->name, image.name, err);

	if (code == 0 && next[0] != '\0')
		code = take_leaf(top, next, image.next, err);
	if (code < 0 || has_file(out, from->store, info->name))
		return code;
	code = object_new(out, from->store, info->name, &object, err);
	if (code == 0)
		object->own = next[0] != '\0';
	if (code == 0)
		code = open_file(object, disk_loop(from->disk), err);
	if (code == 0)
		code = marks_new(object, err);
	if (code == 0)
		code = mark_all(object, &image.need_bytes, err);
	if (code == 0)
		code = plan_add(out->plan, &image, err);
	if (code == 0)
		out->count++;
	else if (object != NULL)
		object_fini(object);
	return code;
}

static struct disk_parent_is parent_of(const struct disk_layer_info *info)
{
	return (struct disk_parent_is){
		.size_bytes = info->size_bytes,
		.logical_sector_bytes = info->logical_sector_bytes,
		.physical_sector_bytes = info->physical_sector_bytes,
		.id = info->id,
		.data_id = info->data_id,
	};
}

static int describe_top(const struct disk_layer_info *info, const struct disk_layer_info *parent,
			struct vm_image *image, struct base_error *err)
{
	int code = take_leaf(info->name, info->name, image->name, err);

	image->is_top = true;
	image->format = info->format;
	image->kind = info->kind;
	image->bytes = info->size_bytes;
	image->block_bytes = info->kind != DISK_FIXED || info->format == DISK_VHDX
				     ? info->block_bytes
				     : 0; /* a VHD without blocks */
	image->logical_sector_bytes = info->logical_sector_bytes;
	image->physical_sector_bytes = info->physical_sector_bytes;
	image->id = info->id;
	if (code < 0 || parent == NULL)
		return code;
	image->parent_format = parent->format;
	image->parent_is = parent_of(parent);
	return take_leaf(info->name, parent->name, image->parent, err);
}

/* The content's id does not change from here on: the plan names it, and so does the state. */
static int keep_data_id(struct disk *disk, struct vm_image *image, struct base_error *err)
{
	image->data_id = disk_guid_new();
	return disk_set_data_id(disk, &image->data_id, err);
}

static int add_top(struct vm_migrate_out *out, const struct vm_migrate_from *from,
		   const struct disk_layer_info *info, const struct disk_layer_info *parent,
		   struct base_error *err)
{
	struct vm_image image = { .data_id = info->data_id };
	struct object *object = NULL;
	uint64_t data_bytes = 0;
	int code = describe_top(info, parent, &image, err);

	if (code == 0)
		code = object_new(out, from->store, info->name, &object, err);
	if (code < 0)
		return code;
	object->disk = from->disk;
	object->own = true;
	code = marks_new(object, err);
	if (code == 0)
		code = disk_watch_begin(object->disk, on_write, object, err);
	object->watched = code == 0;
	if (code == 0 && info->format == DISK_VHDX)
		code = keep_data_id(object->disk, &image, err);
	if (code == 0)
		code = mark_all(object, &data_bytes, err);
	image.need_bytes = info->format == DISK_RAW ? data_bytes : info->file_bytes;
	if (info->kind == DISK_FIXED)
		image.need_bytes = info->size_bytes;
	if (code == 0)
		code = plan_add(out->plan, &image, err);
	if (code == 0)
		out->count++;
	else
		object_fini(object);
	return code;
}

/* Whether @name is marked as a checkpoint's past. */
static int is_past(const struct vm_migrate_from *from, const char *name, bool *ret_past,
		   struct base_error *err)
{
	char newest[STORE_NAME_BYTES];
	int code = disk_next_find(from->store, disk_loop(from->disk), name, newest, err);

	*ret_past = code > 0;
	return code < 0 ? code : 0;
}

static int add_disk(struct vm_migrate_out *out, const struct vm_migrate_from *from,
		    struct base_error *err)
{
	BASE_FREE struct disk_layer_info *layers = calloc(DISK_CHAIN_MAX, sizeof(*layers));
	uint32_t count = 0;
	int code = layers != NULL ? 0 : base_fail(err, -ENOMEM, "layers");

	while (code == 0 && count < DISK_CHAIN_MAX) {
		code = disk_layer(from->disk, count, &layers[count], err);
		count += code == 0 ? 1 : 0;
	}
	if (code < 0 && (code != -ENOENT || count == 0))
		return code;
	code = 0;
	if (!from->read_only)
		code = add_top(out, from, &layers[0], count > 1 ? &layers[1] : NULL, err);
	for (uint32_t i = from->read_only ? 0 : 1; code == 0 && i < count; i++) {
		bool marked = false;

		if (i > 0)
			code = is_past(from, layers[i].name, &marked, err);
		if (code == 0)
			code = add_file(out, from, layers[0].name, &layers[i],
					marked ? layers[i - 1].name : "", err);
	}
	return code;
}

int vm_migrate_out_new(const struct vm_migrate_from *disks, uint32_t count, struct mig_plan *plan,
		       struct vm_migrate_out **ret_out, struct base_error *err)
{
	struct vm_migrate_out *out = calloc(1, sizeof(*out));

	if (out == NULL)
		return base_fail(err, -ENOMEM, "images of the migration");
	out->plan = plan;
	out->first = plan->object_count;
	for (uint32_t i = 0; i < count; i++) {
		int code = add_disk(out, &disks[i], err);

		if (code < 0) {
			code = base_fail_within(err, code, "move disk '%s'",
						disk_name(disks[i].disk));
			vm_migrate_out_free(out);
			return code;
		}
	}
	out->plan = NULL;
	*ret_out = out;
	return 0;
}

void vm_migrate_out_held(struct vm_migrate_out *out)
{
	for (uint32_t i = 0; i < out->count; i++)
		out->objects[i].held = out->objects[i].watched;
}

void vm_migrate_out_stop(struct vm_migrate_out *out)
{
	for (uint32_t i = 0; i < out->count; i++) {
		if (out->objects[i].watched)
			disk_watch_end(out->objects[i].disk);
		out->objects[i].watched = false;
	}
}

uint32_t vm_migrate_out_own(const struct vm_migrate_out *out,
			    struct vm_migrate_own ret_list[MIG_OBJECTS_MAX])
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < out->count; i++)
		if (out->objects[i].own)
			ret_list[count++] = (struct vm_migrate_own){
				.store = out->objects[i].store,
				.name = out->objects[i].name,
			};
	return count;
}

int vm_migrate_out_discard(struct vm_migrate_out *out, bool keep, struct base_error *err)
{
	int first = 0;

	vm_migrate_out_stop(out);
	for (uint32_t i = 0; i < out->count; i++) {
		struct object *object = &out->objects[i];
		struct base_error why = { 0 };
		int code = 0;

		if (!object->own)
			continue;
		/* safety: what is active here may be the VM's only disk. */
		if (!object->owned && disk_epoch(object->disk) != STORE_EPOCH_NONE)
			code = base_fail(&why, -EBUSY, "it is written");
		if (code == 0)
			code = vm_image_put_away(object->store, object->name, &why);
		if (code == 0 && !keep)
			code = vm_image_drop(object->store, object->name, &why);
		if (code < 0 && first == 0)
			first = base_fail(err, code, "old image '%s': %s", object->name, why.text);
	}
	return first;
}

void vm_migrate_out_free(struct vm_migrate_out *out)
{
	if (out == NULL)
		return;
	for (uint32_t i = 0; i < out->count; i++)
		object_fini(&out->objects[i]);
	free(out);
}

/* --- the rounds --- */

static struct object *object_of(struct vm_migrate_out *out, uint16_t number)
{
	base_assert(number >= out->first && number - out->first < out->count);
	return &out->objects[number - out->first];
}

static int op_harvest(void *context, uint16_t number, bool first, uint64_t *into,
		      struct base_error *err)
{
	struct object *object = object_of(context, number);

	(void)first; /* the marks began with that */
	(void)err;
	for (uint64_t word = 0; word < object->word_count; word++)
		if (atomic_load_explicit(&object->marks[word], memory_order_relaxed) != 0)
			into[word] |= atomic_exchange(&object->marks[word], 0);
	return 0;
}

static enum mig_run_kind kind_of(enum disk_extent_kind kind)
{
	switch (kind) {
	case DISK_EXTENT_DATA:
		return MIG_RUN_DATA;
	case DISK_EXTENT_ZERO:
		return MIG_RUN_ZERO;
	case DISK_EXTENT_UNMAPPED:
		return MIG_RUN_UNMAPPED;
	case DISK_EXTENT_PARENT:
		return MIG_RUN_NOTHING;
	case DISK_EXTENT_INVALID:
	case DISK_EXTENT_KINDS:
	default:
		base_bug("extent of kind %d", (int)kind);
	}
}

void vm_migrate_runs(const struct disk_extent *extents, uint32_t count, struct mig_map *map)
{
	for (uint32_t i = 0; i < count; i++)
		map->runs[i] = (struct mig_run){
			.first = extents[i].offset_bytes / MIG_SECTOR_BYTES,
			.count = (uint32_t)(extents[i].length_bytes / MIG_SECTOR_BYTES),
			.kind = kind_of(extents[i].kind),
		};
	map->run_count = count;
}

static int op_map(void *context, uint16_t number, struct mig_map *map, struct base_error *err)
{
	const struct object *object = object_of(context, number);
	struct disk_extent extents[MIG_RUNS_MAX];
	uint32_t count = MIG_RUNS_MAX;
	int code = map_at(object, map->first * MIG_SECTOR_BYTES,
			  (uint64_t)map->count * MIG_SECTOR_BYTES, extents, &count, err);

	if (code < 0)
		return code;
	vm_migrate_runs(extents, count, map);
	return 0;
}

static int op_read(void *context, uint16_t number, uint64_t sector, uint8_t *to, uint32_t count,
		   struct base_error *err)
{
	const struct object *object = object_of(context, number);

	return vm_migrate_read(object->disk, object->held, sector, to, count, err);
}

const struct mig_image_ops vm_migrate_out_ops = {
	.harvest = op_harvest,
	.map = op_map,
	.read = op_read,
};
