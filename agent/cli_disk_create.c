/* SPDX-License-Identifier: Apache-2.0 */
/*
 * godwit disk create, and resize.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli_disk_priv.h"
#include "agent/cli_progress.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/disk/vhd_format.h"
#include "hypervisor/disk/vhdx_format.h"

#define RAW_SECTOR_BYTES 512
#define TAIL_EXTENTS     64U
#define LOOK_BYTES       (1U << 20)
#define LOOK_ALIGN       4096U

struct resize {
	uint64_t from_bytes;
	uint64_t to_bytes;
	bool grows_only; /* the format cannot shrink in place */
};

static int options_of(const struct cli_disk_args *args, struct disk_create_options *options,
		      struct base_error *err)
{
	int rc = cli_disk_format_for(args->name, args->format, &options->format, err);

	if (rc == 0)
		rc = cli_disk_kind_of(args, &options->kind, err);
	if (rc == 0)
		rc = cli_disk_geometry_of(args, options, err);
	if (rc < 0)
		return rc;
	if (args->parent == NULL && args->size_bytes == 0)
		return base_fail(err, -EINVAL, "operand SIZE: not given: expected " CLI_SIZE_TEXT);
	if (args->parent != NULL && options->kind != DISK_KIND_INVALID)
		return base_fail(
			err, -EINVAL,
			"option '--parent': with a kind: expected one of both; a disk with "
			"a parent is differencing");
	if (args->parent != NULL && options->format == DISK_RAW)
		return base_fail(err, -EINVAL,
				 "option '--parent': format raw: expected vhdx or vhd, which know "
				 "parents");
	if (args->parent == NULL && args->other_format != 0)
		return base_fail(err, -EINVAL,
				 "option '--parent-format': without '--parent': expected both");
	if (args->parent != NULL)
		options->kind = DISK_DIFFERENCING;
	else if (options->kind == DISK_KIND_INVALID)
		options->kind = DISK_DYNAMIC;
	options->size_bytes = args->size_bytes;
	options->parent_format = cli_disk_format_of(args->other_format);
	return 0;
}

static int parent_of(struct cli_disk *session, const struct cli_disk_args *args,
		     struct disk_create_options *options, struct base_error *err)
{
	CLI_DISK_CLOSE struct disk *parent = NULL;
	struct disk_geometry geometry;
	int rc;

	if (args->parent == NULL)
		return 0;
	rc = cli_disk_open(session, args->parent, args->other_format, true, &parent, err);
	if (rc == 0)
		rc = cli_disk_name(session, args->parent, &options->parent, err);
	if (rc < 0)
		return rc;
	disk_geometry(parent, &geometry);
	if (options->size_bytes == 0)
		options->size_bytes = geometry.size_bytes;
	return 0;
}

static void say(const char *how, const struct cli_disk_args *args,
		const struct disk_create_options *options)
{
	char size[CLI_SIZE_SHOWN_BYTES];

	if (args->quiet)
		return;
	cli_size_show(options->size_bytes, size);
	(void)printf("%s '%s': %s, %s, %s%s%s%s\n", how, args->name,
		     disk_format_name(options->format), disk_kind_name(options->kind), size,
		     args->parent != NULL ? ", on '" : "", args->parent != NULL ? args->parent : "",
		     args->parent != NULL ? "'" : "");
}

/* What disk_create() refuses: it looks at all that is asked for before it looks at the file, and
 * the folder under whose name it is asked here is no file that it could make. */
static int try_create(struct cli_disk *session, const struct cli_disk_args *args, const char *name,
		      const struct disk_create_options *options, struct base_error *err)
{
	const char *slash = strrchr(name, '/');
	char folder[STORE_NAME_BYTES];
	int rc;

	if (slash == NULL) /* in the root folder, which has no name in the store */
		(void)snprintf(folder, sizeof(folder), "proc");
	else
		(void)snprintf(folder, sizeof(folder), "%.*s", (int)(slash - name), name);
	cli_disk_alias(session, folder, args->name);
	rc = disk_create(session->store, folder, session->loop, options, err);
	if (rc == -EISDIR || rc == -EEXIST) {
		if (err != NULL)
			*err = (struct base_error){ 0 };
		return 0;
	}
	return cli_disk_words(session, rc, err);
}

static int create(struct cli_disk *session, const struct cli_disk_args *args,
		  struct disk_create_options *options, struct base_error *err)
{
	const char *name = NULL;
	int rc = cli_disk_name(session, args->name, &name, err);

	if (rc == 0 && access(args->name, F_OK) == 0)
		rc = base_fail(err, -EEXIST, "'%s' is there already: expected a new name",
			       args->name);
	if (rc == 0)
		rc = parent_of(session, args, options, err);
	if (rc < 0)
		return rc;
	if (args->dry_run) {
		rc = try_create(session, args, name, options, err);
		if (rc == 0)
			say("Would create", args, options);
		return rc;
	}
	cli_stop_catch();
	rc = disk_create(session->store, name, session->loop, options, err);
	rc = cli_disk_words(session, rc, err);
	if (rc == 0 && cli_stop_wanted()) {
		cli_disk_remove(session, name);
		rc = base_fail(err, -ECANCELED, "'%s': stopped: nothing was made", args->name);
	}
	if (rc == 0)
		say("Created", args, options);
	return rc;
}

int cli_disk_create(const void *arguments, struct base_error *err)
{
	const struct cli_disk_args *args = arguments;
	struct disk_create_options options = { 0 };
	struct cli_disk session = { 0 };
	int rc = options_of(args, &options, err);

	if (rc == 0)
		rc = cli_disk_begin(&session, err);
	if (rc == 0)
		rc = create(&session, args, &options, err);
	cli_disk_end(&session);
	return rc;
}

static int new_size(const struct cli_disk_args *args, uint64_t now_bytes, uint64_t *ret_bytes,
		    struct base_error *err)
{
	uint64_t bytes = args->delta.bytes;

	if (args->delta.sign == '-' && bytes >= now_bytes)
		return base_fail(err, -EINVAL,
				 "'%s': size -%" PRIu64 ": expected less than the %" PRIu64
				 " bytes it has",
				 args->name, bytes, now_bytes);
	if (args->delta.sign == '+' && bytes > (uint64_t)INT64_MAX - now_bytes)
		return base_fail(err, -EINVAL, "'%s': size +%" PRIu64 ": expected less", args->name,
				 bytes);
	if (args->delta.sign == '-')
		bytes = now_bytes - bytes;
	else if (args->delta.sign == '+')
		bytes += now_bytes;
	if (bytes < now_bytes && !args->shrink)
		return base_fail(err, -EINVAL,
				 "'%s': size %" PRIu64 ": expected at least the %" PRIu64
				 " bytes it has, or --shrink",
				 args->name, bytes, now_bytes);
	*ret_bytes = bytes;
	return 0;
}

/* What a resize can be refused for, in words of its own. */
static int fail_resize(const char *name, uint64_t bytes, int rc, struct base_error *err)
{
	if (rc == -EBUSY)
		return base_fail(err, rc,
				 "'%s': size %" PRIu64
				 ": what lies beyond it is in use: expected it "
				 "never written, unmapped or zero",
				 name, bytes);
	if (rc == -EOPNOTSUPP)
		return base_fail(err, rc,
				 "'%s': size %" PRIu64
				 ": its format cannot do that in place: expected "
				 "a size that its tables have room for, or 'godwit disk convert'",
				 name, bytes);
	return rc;
}

/* That the format can have that size at all. */
static int size_allowed(const char *name, const struct disk_layer_info *layer, uint64_t bytes,
			struct base_error *err)
{
	uint64_t most = (uint64_t)INT64_MAX - INT64_MAX % RAW_SECTOR_BYTES;
	const char *words = "";

	if (layer->format == DISK_VHDX) {
		most = VHDX_DISK_BYTES_MAX;
		words = " (64 TiB)";
	} else if (layer->format == DISK_VHD) {
		most = VHD_SIZE_MAX;
		words = " (2040 GiB)";
	}
	if (bytes == 0 || bytes > most)
		return base_fail(err, -EINVAL,
				 "'%s': size %" PRIu64 ": expected above 0 and at most %" PRIu64
				 "%s, the most a %s can have",
				 name, bytes, most, words, disk_format_name(layer->format));
	if (bytes % layer->logical_sector_bytes != 0)
		return base_fail(err, -EINVAL,
				 "'%s': size %" PRIu64 ": expected a multiple of %" PRIu32, name,
				 bytes, layer->logical_sector_bytes);
	return 0;
}

/* The new size, and that it may be asked for. */
static int plan_resize(struct cli_disk *session, const struct cli_disk_args *args,
		       struct disk *disk, struct resize *ret_plan, struct base_error *err)
{
	struct disk_layer_info layer = { 0 };
	struct disk_geometry geometry;
	int rc = cli_disk_words(session, disk_layer(disk, 0, &layer, err), err);

	if (rc < 0)
		return rc;
	disk_geometry(disk, &geometry);
	ret_plan->from_bytes = geometry.size_bytes;
	ret_plan->grows_only = layer.format == DISK_VHD;
	rc = new_size(args, geometry.size_bytes, &ret_plan->to_bytes, err);
	return rc == 0 ? size_allowed(args->name, &layer, ret_plan->to_bytes, err) : rc;
}

/* Zeros that were written are free, too. */
static int data_zero(const char *name, struct disk *disk, const struct disk_extent *extent,
		     const struct resize *plan, struct base_error *err)
{
	BASE_FREE uint8_t *data = aligned_alloc(LOOK_ALIGN, LOOK_BYTES);
	uint64_t end = extent->offset_bytes + extent->length_bytes;

	if (data == NULL)
		return base_fail(err, -ENOMEM, "buffer of %u bytes", LOOK_BYTES);
	for (uint64_t at = extent->offset_bytes; at < end;) {
		uint64_t bytes = end - at < LOOK_BYTES ? end - at : LOOK_BYTES;
		int rc = disk_do(disk, DISK_READ, at, data, bytes, err);

		if (rc < 0)
			return rc;
		if (!base_is_zero(data, (size_t)bytes))
			return fail_resize(name, plan->to_bytes, -EBUSY, err);
		at += bytes;
	}
	return 0;
}

/* What a shrink cuts off must hold no data, as the resize itself will find. */
static int tail_free(struct cli_disk *session, const char *name, struct disk *disk,
		     const struct resize *plan, struct base_error *err)
{
	struct disk_extent extents[TAIL_EXTENTS];
	uint64_t at = plan->to_bytes;

	if (at < plan->from_bytes && plan->grows_only)
		return fail_resize(name, at, -EOPNOTSUPP, err);
	while (at < plan->from_bytes) {
		const struct cli_disk_span span = { at, plan->from_bytes - at };
		uint32_t count = 0;
		int rc = cli_disk_extents(session, disk, &span, extents, TAIL_EXTENTS, &count);

		if (rc < 0)
			return base_fail_errno(err, rc, "'%s': map at %" PRIu64, name, at);
		for (uint32_t i = 0; i < count; i++) {
			if (extents[i].kind == DISK_EXTENT_DATA)
				rc = data_zero(name, disk, &extents[i], plan, err);
			if (rc < 0)
				return cli_disk_words(session, rc, err);
			at = extents[i].offset_bytes + extents[i].length_bytes;
		}
	}
	return 0;
}

static int do_resize(struct cli_disk *session, const struct cli_disk_args *args, struct disk *disk,
		     struct resize *plan, struct base_error *err)
{
	int rc = cli_disk_activate(session, disk, err);

	/* Again, now that nobody else can change it. */
	if (rc == 0)
		rc = plan_resize(session, args, disk, plan, err);
	if (rc < 0)
		return rc;
	rc = fail_resize(args->name, plan->to_bytes,
			 disk_do(disk, DISK_RESIZE, plan->to_bytes, NULL, 0, err), err);
	if (rc == 0)
		rc = disk_deactivate(disk, err);
	return cli_disk_words(session, cli_disk_begun(rc), err);
}

static int resize(struct cli_disk *session, const struct cli_disk_args *args,
		  struct base_error *err)
{
	CLI_DISK_CLOSE struct disk *disk = NULL;
	struct resize plan = { 0 };
	char from[CLI_SIZE_SHOWN_BYTES];
	char to[CLI_SIZE_SHOWN_BYTES];
	int rc = cli_disk_open(session, args->name, args->format, args->dry_run, &disk, err);

	if (rc == 0)
		rc = plan_resize(session, args, disk, &plan, err);
	if (rc == 0 && args->dry_run)
		rc = tail_free(session, args->name, disk, &plan, err);
	else if (rc == 0)
		rc = do_resize(session, args, disk, &plan, err);
	if (rc < 0 || args->quiet)
		return rc;
	cli_size_show(plan.from_bytes, from);
	cli_size_show(plan.to_bytes, to);
	(void)printf("%s '%s' from %s to %s\n", args->dry_run ? "Would resize" : "Resized",
		     args->name, from, to);
	return 0;
}

int cli_disk_resize(const void *arguments, struct base_error *err)
{
	struct cli_disk session = { 0 };
	int rc = cli_disk_begin(&session, err);

	if (rc == 0)
		rc = resize(&session, arguments, err);
	cli_disk_end(&session);
	return rc;
}
