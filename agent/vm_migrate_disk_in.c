/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's images: made under a temporary name, filled on several threads, then durable,
 * named and closed; or removed.  docs/migrate/disks.md, section 4.
 */
#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_migrate_disk_priv.h"
#include "base/cleanup.h"
#include "hypervisor/disk/disk_move.h"
#include "hypervisor/disk/disk_next.h"

#define SPAN_SECTORS (MIG_SPAN_BYTES / MIG_SECTOR_BYTES)
#define FLUSH_EVERY  (64ULL << 20) /* what is left to be flushed while the VM stands still */

/* --- making --- */

static uint64_t sectors_of(const struct vm_image *is)
{
	return (is->bytes + MIG_SECTOR_BYTES - 1) / MIG_SECTOR_BYTES;
}

static int create(struct vm_migrate_in *in, const struct incoming *image, struct base_error *err)
{
	const struct vm_image *is = &image->is;
	char parent[STORE_NAME_BYTES];
	/* A file is filled as a raw disk; it gets its very size at the end. */
	struct disk_create_options options = {
		.format = is->is_top ? is->format : DISK_RAW,
		.kind = is->is_top ? is->kind : DISK_DYNAMIC,
		.size_bytes = sectors_of(is) * MIG_SECTOR_BYTES,
	};

	if (!is->is_top)
		return disk_create(in->store, image->part, in->loop, &options, err);
	if (is->format != DISK_RAW) {
		options.block_bytes = is->block_bytes;
		options.logical_sector_bytes = is->logical_sector_bytes;
		options.physical_sector_bytes = is->physical_sector_bytes;
		options.id = is->id;
	}
	if (is->parent[0] != '\0') {
		(void)snprintf(parent, sizeof(parent), "%s%s", in->folder, is->parent);
		options.parent = parent;
		options.parent_format = is->parent_format;
		options.parent_is = &is->parent_is;
	}
	return disk_create(in->store, image->part, in->loop, &options, err);
}

static int open_part(struct vm_migrate_in *in, struct incoming *image, struct base_error *err)
{
	/* Whoever waits for space or a store here keeps a VM from running there. */
	const struct disk_options options = {
		.store = in->store,
		.name = image->part,
		.format = image->is.is_top ? image->is.format : DISK_RAW,
		.loop = in->loop,
		.alone = true,
		.on_no_space = DISK_POLICY_REPORT,
		.on_io_error = DISK_POLICY_REPORT,
		.on_gone = DISK_POLICY_REPORT,
	};
	int code = disk_open_standby(&options, &image->disk, err);

	return code == 0 ? disk_activate(image->disk, STORE_EPOCH_NONE, NULL, err) : code;
}

/* A file that is there already is compared as what it is: bytes. */
static int open_there(const struct vm_migrate_in *in, struct incoming *image,
		      struct base_error *err)
{
	const struct disk_options options = {
		.store = in->store,
		.name = image->name,
		.format = DISK_RAW,
		.loop = in->loop,
		.read_only = true,
		.alone = true,
		.on_gone = DISK_POLICY_REPORT,
	};

	return disk_open_standby(&options, &image->disk, err);
}

/* Not 0: no memory; else @findings has what was wrong. */
static int make(struct vm_migrate_in *in, struct incoming *image, struct mig_findings *findings,
		struct base_error *err)
{
	struct base_error why = { 0 };
	int code = 0;

	if (image->there && in->verified)
		code = open_there(in, image, &why);
	if (code < 0)
		mig_findings_add(findings, "%s", why.text);
	if (image->there)
		return 0;
	image->word_count = sectors_of(&image->is) / SPAN_SECTORS / 64 + 1;
	image->unmapped = calloc(image->word_count, sizeof(*image->unmapped));
	if (image->unmapped == NULL)
		return base_fail(err, -ENOMEM, "image '%s'", image->name);
	code = create(in, image, &why);
	image->made = code == 0;
	if (code == 0)
		code = open_part(in, image, &why);
	/* Now, because it takes a flush; no write of this activation changes it again. */
	if (code == 0 && image->is.is_top && image->is.format == DISK_VHDX)
		code = disk_set_data_id(image->disk, &image->is.data_id, &why);
	if (code == -ENOMEM)
		return base_fail(err, code, "%s", why.text);
	if (code < 0)
		mig_findings_add(findings, "%s", why.text);
	return 0;
}

static int folder_new(struct vm_migrate_in *in, const char *folder)
{
	size_t length = strlen(folder);
	char *own = malloc(length + 2);

	if (own == NULL)
		return -ENOMEM;
	memcpy(own, folder, length + 1);
	if (length > 0 && folder[length - 1] != '/')
		memcpy(own + length, "/", 2);
	in->folder = own;
	return 0;
}

/* Before the first of them is there. */
static int announce(const struct vm_migrate_in *in, const struct vm_migrate_in_options *options,
		    struct base_error *err)
{
	const char *names[MIG_OBJECTS_MAX];
	uint32_t count = 0;

	if (options->making == NULL)
		return 0;
	for (uint32_t i = 0; i < in->count; i++)
		if (!in->images[i].there)
			names[count++] = in->images[i].name;
	return options->making(options->context, names, count, err);
}

int vm_migrate_in_new(const struct vm_migrate_in_options *options, struct mig_findings *findings,
		      struct vm_migrate_in **ret_in, struct base_error *err)
{
	struct vm_migrate_in *in = calloc(1, sizeof(*in));
	uint32_t count = options->plan->object_count - 1;
	uint32_t before = findings->count;
	int code = 0;

	base_assert(options->plan->object_count > 0);
	*ret_in = NULL;
	if (in == NULL)
		return base_fail(err, -ENOMEM, "images of the migration");
	in->store = options->store;
	in->loop = options->loop;
	in->verified = (options->plan->flags & MIG_PLAN_VERIFY) != 0;
	in->images = calloc((size_t)count + 1, sizeof(*in->images));
	if (in->images == NULL || folder_new(in, options->folder) < 0) {
		vm_migrate_in_free(in);
		return base_fail(err, -ENOMEM, "%" PRIu32 " images of the migration", count);
	}
	in->count = count;
	code = vm_migrate_in_look(in, options->plan, findings, err);
	if (code == 0 && findings->count == before)
		code = announce(in, options, err);
	for (uint32_t i = 0; i < count && code == 0 && findings->count == before; i++)
		code = make(in, &in->images[i], findings, err);
	if (code < 0 || findings->count > before) {
		vm_migrate_in_free(in);
		return code;
	}
	*ret_in = in;
	return 0;
}

/* --- filling --- */

struct waiting {
	sem_t over;
	int result;
};

static void waiting_over(struct disk_request *request, int result)
{
	struct waiting *waiting = request->context;

	waiting->result = result;
	(void)sem_post(&waiting->over);
}

int vm_migrate_do(struct disk *disk, struct disk_request *request, struct base_error *err)
{
	struct waiting waiting = { .result = 0 };

	if (base_io_loop_is_owner(disk_loop(disk))) /* it is pumped by who waits */
		return disk_do_request(disk, request, err);
	if (sem_init(&waiting.over, 0, 0) < 0)
		base_bug("semaphore");
	request->done = waiting_over;
	request->context = &waiting;
	disk_submit(disk, request);
	while (sem_wait(&waiting.over) < 0)
		base_assert(errno == EINTR);
	(void)sem_destroy(&waiting.over);
	if (waiting.result == 0)
		return 0;
	return base_fail_errno(err, waiting.result,
			       "disk '%s': %" PRIu64 " bytes at %" PRIu64 "%s%s", disk_name(disk),
			       request->length_bytes, request->offset_bytes,
			       waiting.result == -EBADMSG ? ": " : "",
			       waiting.result == -EBADMSG ? disk_damage(disk) : "");
}

int vm_migrate_read(struct disk *disk, bool held, uint64_t sector, uint8_t *to, uint32_t count,
		    struct base_error *err)
{
	struct iovec iov = { .iov_len = (size_t)count * MIG_SECTOR_BYTES };
	struct disk_request request = {
		.op = DISK_READ,
		.offset_bytes = sector * MIG_SECTOR_BYTES,
		.length_bytes = iov.iov_len,
		.iov = &iov,
		.iov_count = 1,
	};

	iov.iov_base = to;
	return held ? disk_do_held(disk, &request, err) : vm_migrate_do(disk, &request, err);
}

static struct incoming *image_of(struct vm_migrate_in *in, uint16_t object)
{
	base_assert(object > 0 && object <= in->count);
	return &in->images[object - 1];
}

/* Little by little, on the thread of whose write it is: the others go on. */
static int flush_at_times(struct incoming *image, uint64_t bytes, struct base_error *err)
{
	struct disk_request request = { .op = DISK_FLUSH };
	uint64_t before = atomic_fetch_add(&image->written_bytes, bytes);

	if (before / FLUSH_EVERY == (before + bytes) / FLUSH_EVERY)
		return 0;
	return vm_migrate_do(image->disk, &request, err);
}

static int op_write(void *context, uint16_t object, uint64_t sector, const uint8_t *bytes,
		    uint32_t count, struct base_error *err)
{
	struct incoming *image = image_of(context, object);
	uint64_t span = sector / SPAN_SECTORS;
	uint64_t offset_bytes = sector * MIG_SECTOR_BYTES;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, /* it is only read */
			     .iov_len = (size_t)count * MIG_SECTOR_BYTES };
	struct disk_request request = {
		.op = DISK_WRITE,
		.offset_bytes = offset_bytes,
		.length_bytes = iov.iov_len,
		.iov = &iov,
		.iov_count = 1,
	};

	int code = 0;

	if (image->there)
		return 0;
	atomic_fetch_and(&image->unmapped[span / 64], ~(1ULL << span % 64));
	code = vm_migrate_do(image->disk, &request, err);
	return code == 0 ? flush_at_times(image, iov.iov_len, err) : code;
}

static int op_clear(void *context, uint16_t object, uint64_t sector, uint32_t count, bool unmap,
		    struct base_error *err)
{
	struct incoming *image = image_of(context, object);
	uint64_t span = sector / SPAN_SECTORS;
	uint64_t limit = image->there ? 0 : sectors_of(&image->is);
	struct disk_request request = {
		.op = DISK_ZERO,
		.flags = unmap && image->is.kind != DISK_FIXED ? DISK_MAY_UNMAP : 0,
		.offset_bytes = sector * MIG_SECTOR_BYTES,
		.length_bytes = (uint64_t)count * MIG_SECTOR_BYTES,
	};
	int code = 0;

	if (image->there)
		return 0;
	code = vm_migrate_do(image->disk, &request, err);
	/* In a child what was unmapped reads as zeros that hide its parent. */
	if (code == 0 && (unmap || image->is.parent[0] != '\0') && sector % SPAN_SECTORS == 0 &&
	    (count == SPAN_SECTORS || sector + count == limit))
		atomic_fetch_or(&image->unmapped[span / 64], 1ULL << span % 64);
	return code;
}

/* --- reading back --- */

static int op_map(void *context, uint16_t object, struct mig_map *map, struct base_error *err)
{
	const struct incoming *image = image_of(context, object);
	struct disk_extent extents[MIG_RUNS_MAX];
	struct disk_request request = {
		.op = DISK_MAP,
		.flags = DISK_THIS_LAYER,
		.offset_bytes = map->first * MIG_SECTOR_BYTES,
		.length_bytes = (uint64_t)map->count * MIG_SECTOR_BYTES,
		.extents = extents,
		.extent_capacity = MIG_RUNS_MAX,
	};
	int code = vm_migrate_do(image->disk, &request, err);

	if (code == 0)
		vm_migrate_runs(extents, request.extent_count, map);
	return code;
}

static int op_read(void *context, uint16_t object, uint64_t sector, uint8_t *to, uint32_t count,
		   struct base_error *err)
{
	return vm_migrate_read(image_of(context, object)->disk, false, sector, to, count, err);
}

const struct mig_disk_ops vm_migrate_in_ops = {
	.write = op_write,
	.clear = op_clear,
	.map = op_map,
	.read = op_read,
};

/* --- finishing --- */

static bool is_unmapped(const struct incoming *image, uint64_t first, uint64_t end)
{
	for (uint64_t span = first; span < end; span++)
		if ((atomic_load(&image->unmapped[span / 64]) & 1ULL << span % 64) == 0)
			return false;
	return true;
}

/* Blocks of which every span was unmapped give their space back as a whole. */
static int unmap_blocks(struct incoming *image, struct base_error *err)
{
	uint64_t spans = (sectors_of(&image->is) + SPAN_SECTORS - 1) / SPAN_SECTORS;
	uint64_t step = image->is.block_bytes / MIG_SPAN_BYTES;
	int code = 0;

	if (!image->is.is_top || image->is.kind == DISK_FIXED || step <= 1)
		return 0;
	for (uint64_t span = 0; span < spans && code == 0; span += step) {
		uint64_t end = span + step < spans ? span + step : spans;
		uint64_t end_bytes = end * MIG_SPAN_BYTES < image->is.bytes ? end * MIG_SPAN_BYTES
									    : image->is.bytes;

		if (is_unmapped(image, span, end))
			code = disk_do(image->disk, DISK_UNMAP, span * MIG_SPAN_BYTES, NULL,
				       end_bytes - span * MIG_SPAN_BYTES, err);
	}
	return code;
}

/* The file of a parent need not end with a sector. */
static int trim_file(struct vm_migrate_in *in, const struct incoming *image, struct base_error *err)
{
	const struct store_open_options options = { .loop = in->loop,
						    .align_bytes = MIG_SECTOR_BYTES };
	struct store_file *file = NULL;
	uint64_t epoch = 0;
	int code = 0;

	if (image->is.is_top || image->is.bytes % MIG_SECTOR_BYTES == 0)
		return 0;
	code = store_open(in->store, image->part, &options, &file, err);
	if (code == 0)
		code = store_acquire(file, STORE_EPOCH_NONE, NULL, &epoch, err);
	if (code == 0)
		code = store_do(file, STORE_TRUNCATE, image->is.bytes, NULL, 0, err);
	if (code == 0)
		code = store_do(file, STORE_FLUSH, 0, NULL, 0, err);
	store_close(file);
	return code;
}

/* Durable, and closed. */
static int settle(struct vm_migrate_in *in, struct incoming *image, struct base_error *err)
{
	int code = unmap_blocks(image, err);

#ifndef GODWIT_MUTANT_MIG_DISK_FLUSH
	if (code == 0)
		code = disk_do(image->disk, DISK_FLUSH, 0, NULL, 0, err);
	if (code == 0)
		code = disk_deactivate(image->disk, err);
	if (code < 0)
		return code;
	disk_close(base_take(&image->disk));
	code = trim_file(in, image, err);
#else
	(void)in;
	(void)trim_file;
#endif
	return code;
}

static int name_it(struct vm_migrate_in *in, struct incoming *image, struct base_error *err)
{
	char next[STORE_NAME_BYTES];
	int code = disk_next_exists(in->store, in->loop, image->name, err);

	if (code > 0)
		code = base_fail(err, -EEXIST, "'%s' was made meanwhile", image->name);
	if (code == 0)
		code = store_rename(in->store, image->part, image->name, err);
	if (code < 0)
		return code;
	image->named = true;
	if (image->is.next[0] == '\0')
		return 0;
	(void)snprintf(next, sizeof(next), "%s%s", in->folder, image->is.next);
	return disk_next_write(in->store, in->loop, image->name, next, err);
}

int vm_migrate_in_open(const struct vm_migrate_in *in, const struct incoming *image, bool alone,
		       struct disk **ret_disk, struct base_error *err)
{
	const struct disk_options options = {
		.store = in->store,
		.name = image->name,
		.format = image->is.format,
		.loop = in->loop,
		.read_only = true,
		.alone = alone,
		.on_gone = DISK_POLICY_REPORT,
	};

	return disk_open_standby(&options, ret_disk, err);
}

/* The chain below a top is the one that its guest had. */
static int verify(struct vm_migrate_in *in, const struct incoming *image, struct base_error *err)
{
	struct disk_geometry geometry;
	struct disk *disk = NULL;
	int code = 0;

	if (!image->is.is_top)
		return 0;
	code = vm_migrate_in_open(in, image, false, &disk, err);
	if (code < 0)
		return code;
	disk_geometry(disk, &geometry);
	if (geometry.size_bytes != image->is.bytes)
		code = base_fail(err, -EBADMSG, "'%s': %" PRIu64 " bytes, the plan says %" PRIu64,
				 image->name, geometry.size_bytes, image->is.bytes);
	disk_close(disk);
	return code;
}

int vm_migrate_in_flush(struct vm_migrate_in *in, struct base_error *err)
{
	int code = 0;

	for (uint32_t i = 0; i < in->count && code == 0; i++)
		if (!in->images[i].there)
			code = disk_do(in->images[i].disk, DISK_FLUSH, 0, NULL, 0, err);
	return code;
}

int vm_migrate_in_finish(struct vm_migrate_in *in, struct base_error *err)
{
	int code = 0;

	for (uint32_t i = 0; i < in->count; i++)
		if (in->images[i].there)
			disk_close(base_take(&in->images[i].disk));
	for (uint32_t i = 0; i < in->count && code == 0; i++)
		if (!in->images[i].there)
			code = settle(in, &in->images[i], err);
	/* Parents first: a name that is there stands for something whole. */
	for (int tops = 0; tops < 2; tops++)
		for (uint32_t i = 0; i < in->count && code == 0; i++)
			if (!in->images[i].there && in->images[i].is.is_top == (tops == 1))
				code = name_it(in, &in->images[i], err);
	if (code == 0 && in->count > 0)
		code = store_sync_folder(in->store, in->images[0].name, err);
	for (uint32_t i = 0; i < in->count && code == 0; i++)
		code = verify(in, &in->images[i], err);
	return code < 0 ? base_fail_within(err, code, "images of the migration") : 0;
}

/* --- leaving --- */

void vm_migrate_in_keep(struct vm_migrate_in *in)
{
	in->keep = true;
}

/* A failure here leaves a file, which the next move of this VM to here objects to by name. */
static void remove_image(struct vm_migrate_in *in, const struct incoming *image)
{
	int unheard = 0;

	if (image->named && image->is.next[0] != '\0')
		disk_next_remove(in->store, image->name);
	if (image->made)
		unheard = store_remove(in->store, image->named ? image->name : image->part, NULL);
	(void)unheard;
}

void vm_migrate_in_free(struct vm_migrate_in *in)
{
	int unheard = 0;

	if (in == NULL)
		return;
	for (uint32_t i = 0; i < in->count; i++) {
		struct incoming *image = &in->images[i];

		disk_close(image->disk);
		if (!in->keep)
			remove_image(in, image);
		free(image->unmapped);
	}
	if (!in->keep && in->count > 0 && in->images[0].name[0] != '\0')
		unheard = store_sync_folder(in->store, in->images[0].name, NULL);
	(void)unheard;
	free(in->images);
	free(in->folder);
	free(in);
}
