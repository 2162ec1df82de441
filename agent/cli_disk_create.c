/* SPDX-License-Identifier: Apache-2.0 */
/*
 * godwit disk create, and resize.
 */
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "agent/cli_disk_priv.h"
#include "agent/cli_progress.h"
#include "base/cleanup.h"

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
		say("Would create", args, options);
		return 0;
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

static int resize(struct cli_disk *session, const struct cli_disk_args *args,
		  struct base_error *err)
{
	CLI_DISK_CLOSE struct disk *disk = NULL;
	struct disk_geometry geometry;
	char from[CLI_SIZE_SHOWN_BYTES];
	char to[CLI_SIZE_SHOWN_BYTES];
	uint64_t bytes = 0;
	int rc = args->dry_run
			 ? cli_disk_open(session, args->name, args->format, true, &disk, err)
			 : cli_disk_open_active(session, args->name, args->format, &disk, err);

	if (rc < 0)
		return rc;
	disk_geometry(disk, &geometry);
	rc = new_size(args, geometry.size_bytes, &bytes, err);
	if (rc == 0 && bytes % geometry.logical_sector_bytes != 0)
		rc = base_fail(err, -EINVAL,
			       "'%s': size %" PRIu64 ": expected a multiple of %" PRIu32,
			       args->name, bytes, geometry.logical_sector_bytes);
	if (rc == 0 && !args->dry_run) {
		rc = fail_resize(args->name, bytes, disk_do(disk, DISK_RESIZE, bytes, NULL, 0, err),
				 err);
		if (rc == 0)
			rc = cli_disk_begun(disk_deactivate(disk, err));
		rc = cli_disk_words(session, rc, err);
	}
	if (rc < 0 || args->quiet)
		return rc;
	cli_size_show(geometry.size_bytes, from);
	cli_size_show(bytes, to);
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
