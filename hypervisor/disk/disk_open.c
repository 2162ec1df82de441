/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening chains of images, and what is done to an image file without a disk: look, make, check.
 * Blocking; not on a started loop's thread.
 */
#include "hypervisor/disk/disk_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define PROBE_BYTES  4096U
#define FOOTER_BYTES 512U
#define VHDX_MAGIC   "vhdxfile"
#define VHD_MAGIC    "conectix"
#define MAGIC_BYTES  8U

BASE_DEFINE_FREEP(struct store_file, store_close);

/* --- looking --- */

static int probe_file(struct store_file *file, enum disk_format *ret_format, struct base_error *err)
{
	BASE_FREE void *bytes = NULL;
	struct store_facts facts;
	uint64_t tail = 0;
	int rc = 0;

	if (posix_memalign(&bytes, PROBE_BYTES, (size_t)2 * PROBE_BYTES) != 0)
		return base_fail(err, -ENOMEM, "first bytes");
	rc = store_do(file, STORE_READ, 0, bytes, PROBE_BYTES, err);
	if (rc != 0)
		return rc;
	*ret_format = DISK_RAW;
	if (memcmp(bytes, VHDX_MAGIC, MAGIC_BYTES) == 0)
		*ret_format = DISK_VHDX;
	else if (memcmp(bytes, VHD_MAGIC, MAGIC_BYTES) == 0)
		*ret_format = DISK_VHD;
	store_facts(file, &facts);
	if (*ret_format != DISK_RAW || facts.size_bytes < FOOTER_BYTES)
		return 0;

	/* A fixed VHD has its footer in the last 512 bytes, and nothing at its beginning. */
	tail = (facts.size_bytes - FOOTER_BYTES) & ~(uint64_t)(PROBE_BYTES - 1);
	rc = store_do(file, STORE_READ, tail, bytes, (uint64_t)2 * PROBE_BYTES, err);
	if (rc != 0)
		return rc;
	if (memcmp((uint8_t *)bytes + (facts.size_bytes - FOOTER_BYTES - tail), VHD_MAGIC,
		   MAGIC_BYTES) == 0)
		*ret_format = DISK_VHD;
	return 0;
}

int disk_probe(struct store *store, const char *name, struct base_io_loop *loop,
	       enum disk_format *ret_format, struct base_error *err)
{
	BASE_CLEANUP(store_closep) struct store_file *file = NULL;
	const struct store_open_options options = { .loop = loop,
						    .read_only = true,
						    .align_bytes = FOOTER_BYTES };
	int rc = store_open(store, name, &options, &file, err);

	if (rc == 0)
		rc = probe_file(file, ret_format, err);
	return rc == 0 ? 0 : base_fail_within(err, rc, "format of '%s'", name);
}

/* --- chains --- */

static void store_state(void *context, enum store_state state, const char *reason)
{
	const struct disk *disk = context;
	const struct disk_events *events = disk->options.events;

	if (events != NULL && events->store_state != NULL)
		events->store_state(disk->options.events_context, state, reason);
}

int disk_image_open_at(struct disk *disk, const struct disk_image_at *at, struct image **ret_image,
		       struct base_error *err)
{
	static const struct store_events events = { .state = store_state };
	const struct image_open_options options = {
		.store = at->store,
		.name = at->name,
		.loop = disk->loop,
		.read_only = at->read_only,
		.gate = disk->options.gate,
		.events = &events,
		.events_context = disk,
	};
	enum disk_format format = at->format;
	int rc = 0;

	if (format == DISK_FORMAT_INVALID)
		rc = disk_probe(at->store, at->name, disk->loop, &format, err);
	if (rc != 0)
		return rc;
	return image_ops_of(format)->open(&options, ret_image, err);
}

int disk_image_open(struct disk *disk, const char *name, enum disk_format format, bool read_only,
		    struct image **ret_image, struct base_error *err)
{
	const struct disk_image_at at = {
		.store = disk->options.store, .name = name, .format = format, .read_only = read_only
	};

	return disk_image_open_at(disk, &at, ret_image, err);
}

void disk_layers_close(struct image **layers, uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < count; i++) {
		if (layers[i] != NULL)
			layers[i]->ops->close(layers[i]);
		layers[i] = NULL;
	}
}

int disk_parent_check(const struct image *child, const struct image *parent, struct base_error *err)
{
	const struct image_parent *recorded = &child->parent_is;
	char seen[DISK_GUID_TEXT_BYTES];
	char wanted[DISK_GUID_TEXT_BYTES];

	if (child->geometry.logical_sector_bytes % parent->geometry.logical_sector_bytes != 0)
		return base_fail(err, -EPROTO,
				 "'%s' has sectors of %u bytes, its parent '%s' of %u",
				 store_name(child->file), child->geometry.logical_sector_bytes,
				 store_name(parent->file), parent->geometry.logical_sector_bytes);
	if (disk_guid_equal(&parent->data_id, &recorded->data_id))
		return 0;
	if (!disk_guid_is_zero(&recorded->data_id2) &&
	    disk_guid_equal(&parent->data_id, &recorded->data_id2))
		return 0;
	disk_guid_text(&parent->data_id, seen);
	disk_guid_text(&recorded->data_id, wanted);
	return base_fail(
		err, -EPROTO,
		"parent '%s' has the data id %s, but '%s' was made from %s: it was written "
		"to since, or is another disk",
		store_name(parent->file), seen, store_name(child->file), wanted);
}

/*
 * The parent's format is what the child recorded.  A child that recorded an identity has a
 * parent with one: never raw, so that bytes that a guest wrote are not taken for a format; and one
 * that recorded none has a raw parent, which is not looked into.
 */
static int parent_format(struct disk *disk, const struct image *child, enum disk_format *ret_format,
			 struct base_error *err)
{
	const struct image_parent *recorded = &child->parent_is;
	int rc = 0;

	*ret_format = recorded->format;
	if (*ret_format != DISK_FORMAT_INVALID)
		return 0;
	if (disk_guid_is_zero(&recorded->data_id)) {
		*ret_format = DISK_RAW;
		return 0;
	}
	rc = disk_probe(child->store, recorded->name, disk->loop, ret_format, err);
	if (rc == 0 && *ret_format == DISK_RAW)
		return base_fail(err, -EPROTO, "parent '%s' of '%s' is neither VHDX nor VHD",
				 recorded->name, store_name(child->file));
	return rc;
}

/* Beside the child or below its folder.  A raw parent has no identity that could be checked, so a
 * crafted child could show, or have merged into, any file of the store. */
bool disk_is_near(const char *child, const char *parent)
{
	const char *slash = strrchr(child, '/');
	size_t folder = slash != NULL ? (size_t)(slash - child) + 1 : 0;

	return strncmp(child, parent, folder) == 0;
}

static int raw_parent_check(const char *child, const char *parent, struct base_error *err)
{
	if (disk_is_near(child, parent))
		return 0;
	return base_fail(err, -EPROTO,
			 "parent '%s' of '%s': a raw parent must be in the child's folder or "
			 "below it",
			 parent, child);
}

static int parent_open(struct disk *disk, struct image *child, struct image **ret_parent,
		       struct base_error *err)
{
	enum disk_format format = DISK_FORMAT_INVALID;
	struct disk_image_at at = { .store = child->store,
				    .name = child->parent_is.name,
				    .read_only = true };
	struct image *parent = NULL;
	int rc = parent_format(disk, child, &format, err);

	if (rc == 0 && format == DISK_RAW)
		rc = raw_parent_check(store_name(child->file), child->parent_is.name, err);
	at.format = format;
	if (rc == 0)
		rc = disk_image_open_at(disk, &at, &parent, err);
	if (rc != 0)
		return base_fail_within(err, rc, "parent of '%s'", store_name(child->file));
	rc = disk_parent_check(child, parent, err);
	if (rc != 0) {
		parent->ops->close(parent);
		return rc;
	}
	*ret_parent = parent;
	return 0;
}

static bool in_chain(struct image *const *layers, const struct image *top, uint32_t count,
		     const char *name)
{
	if (strcmp(store_name(top->file), name) == 0)
		return true;
	for (uint32_t i = 1; i < count; i++) {
		if (layers[i] != NULL && strcmp(store_name(layers[i]->file), name) == 0)
			return true;
	}
	return false;
}

int disk_parents_open(struct disk *disk, struct image *child, struct image **layers, uint32_t count,
		      struct base_error *err)
{
	const uint32_t first = count;
	struct image *top = child;
	int rc = 0;

	while (child->kind == DISK_DIFFERENCING && !disk->options.alone) {
		if (count >= DISK_CHAIN_MAX)
			rc = base_fail(err, -ELOOP, "chain of more than %d images", DISK_CHAIN_MAX);
		else if (in_chain(layers, top, count, child->parent_is.name))
			rc = base_fail(err, -ELOOP, "'%s' is its own ancestor",
				       child->parent_is.name);
		else
			rc = parent_open(disk, child, &layers[count], err);
		if (rc != 0) {
			disk_layers_close(layers, first, count);
			return rc;
		}
		child->parent = layers[count];
		child = layers[count];
		count++;
	}
	return (int)count;
}

/* --- making and checking --- */

static int create_options_check(const char *name, const struct disk_create_options *options,
				struct base_error *err)
{
	if (options->format <= DISK_FORMAT_INVALID || options->format >= DISK_FORMATS)
		return base_fail(err, -EINVAL, "'%s': format %d, wanted raw, vhd or vhdx", name,
				 (int)options->format);
	if (options->kind <= DISK_KIND_INVALID || options->kind >= DISK_KINDS)
		return base_fail(err, -EINVAL,
				 "'%s': kind %d, wanted fixed, dynamic or differencing", name,
				 (int)options->kind);
	if ((options->kind == DISK_DIFFERENCING) != (options->parent != NULL))
		return base_fail(err, -EINVAL, "'%s': a %s disk %s a parent", name,
				 disk_kind_name(options->kind),
				 options->parent == NULL ? "needs" : "has not");
	if (options->kind == DISK_DIFFERENCING && options->format == DISK_RAW)
		return base_fail(err, -EINVAL, "'%s': a raw disk has no parent", name);
	if (options->parent != NULL && strcmp(options->parent, name) == 0)
		return base_fail(err, -EINVAL, "'%s' cannot be its own parent", name);
	return 0;
}

/* The whole chain below: a child of a broken chain would be of no use. */
static int open_for_child(struct store *store, const char *name, struct base_io_loop *loop,
			  const struct disk_create_options *options, struct disk **ret_parent,
			  struct base_error *err)
{
	const struct disk_options parent = {
		.store = store,
		.name = options->parent,
		.format = options->parent_format,
		.loop = loop,
		.read_only = true,
	};
	struct store_lease lease;
	int rc = store_lease(store, options->parent, &lease, err);

	/* What is written later would show in the child. */
	if (rc == 0 && lease.held)
		rc = base_fail(err, -EBUSY, "'%s' is being written by %s", options->parent,
			       lease.holder);
	if (rc == 0)
		rc = disk_open_standby(&parent, ret_parent, err);
	if (rc == 0 && (*ret_parent)->layers[0]->ops->format == DISK_RAW) {
		rc = raw_parent_check(name, options->parent, err);
		if (rc != 0)
			disk_close(base_take(ret_parent));
	}
	if (rc != 0)
		return base_fail_within(err, rc, "parent");
	if ((*ret_parent)->layer_count < DISK_CHAIN_MAX)
		return 0;
	disk_close(*ret_parent);
	*ret_parent = NULL;
	return base_fail(err, -ELOOP, "parent '%s': its chain is %d images deep already",
			 options->parent, DISK_CHAIN_MAX);
}

/* A parent that is told of: what creating looks at, without a file. */
struct told_parent {
	struct image image;
	struct store_file file;
};

static int tell_parent(struct store *store, const char *name,
		       const struct disk_create_options *options, struct told_parent *told,
		       struct base_error *err)
{
	const struct disk_parent_is *is = options->parent_is;
	enum disk_format format = options->parent_format;
	int rc = 0;

	if (format <= DISK_FORMAT_INVALID || format >= DISK_FORMATS)
		return base_fail(err, -EINVAL, "'%s': its parent's format %d is unknown", name,
				 (int)format);
	if ((format == DISK_RAW) != disk_guid_is_zero(&is->data_id))
		return base_fail(err, -EINVAL, "'%s': a %s parent %s an id", name,
				 disk_format_name(format), format == DISK_RAW ? "has not" : "has");
	told->image = (struct image){
		.ops = image_ops_of(format),
		.store = store,
		.file = &told->file,
		.geometry = { .size_bytes = is->size_bytes,
			      .logical_sector_bytes = is->logical_sector_bytes,
			      .physical_sector_bytes = is->physical_sector_bytes,
			      .id = is->id },
		.data_id = is->data_id,
	};
	rc = store_resolve("", options->parent, told->file.name, err);
	return rc == 0 && format == DISK_RAW ? raw_parent_check(name, told->file.name, err) : rc;
}

int disk_create(struct store *store, const char *name, struct base_io_loop *loop,
		const struct disk_create_options *options, struct base_error *err)
{
	struct told_parent told = { .image.ops = NULL };
	struct image *parent_image = NULL;
	struct disk *parent = NULL;
	int rc = create_options_check(name, options, err);

	if (rc == 0 && options->kind == DISK_DIFFERENCING && options->parent_is != NULL) {
		rc = tell_parent(store, name, options, &told, err);
		parent_image = &told.image;
	} else if (rc == 0 && options->kind == DISK_DIFFERENCING) {
		rc = open_for_child(store, name, loop, options, &parent, err);
		parent_image = parent != NULL ? parent->layers[0] : NULL;
	}
	if (rc == 0)
		rc = image_ops_of(options->format)
			     ->create(store, name, loop, options, parent_image, err);
	disk_close(parent);
	return rc == 0 ? 0 : base_fail_within(err, rc, "create disk '%s'", name);
}

int disk_check(const struct disk_options *options, bool repair, disk_report report, void *context,
	       struct disk_check_result *ret_result, struct base_error *err)
{
	struct disk around = { .options = *options, .loop = options->loop };
	struct image *image = NULL;
	int rc = 0;

	if (options->name == NULL || options->format >= DISK_FORMATS)
		return base_fail(err, -EINVAL, "check: no name, or an unknown format");
	rc = disk_image_open(&around, options->name, options->format, !repair, &image, err);
	if (rc == 0 && repair) /* replays a log, mends what opening for writing mends */
		rc = image->ops->activate(image, STORE_EPOCH_NONE, NULL, err);
	if (rc == 0)
		rc = image->ops->check(image, repair, report, context, ret_result, err);
	if (image != NULL && image->active) {
		int ended = image->ops->deactivate(image, rc == 0 ? err : NULL);

		rc = rc == 0 ? ended : rc;
	}
	if (image != NULL)
		image->ops->close(image);
	return rc == 0 ? 0 : base_fail_within(err, rc, "check disk '%s'", options->name);
}
