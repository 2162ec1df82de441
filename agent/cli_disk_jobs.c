/* SPDX-License-Identifier: Apache-2.0 */
/*
 * godwit disk compact, and merge: jobs on one disk, with progress.
 */
#include <errno.h>
#include <inttypes.h>

#include "agent/cli_disk_priv.h"
#include "agent/cli_progress.h"
#include "base/cleanup.h"

static int stopped(const char *name, int rc, struct base_error *err)
{
	if (rc != -ECANCELED)
		return rc;
	return base_fail(err, rc, "'%s': stopped: its content is as before", name);
}

static int compact(struct cli_disk *session, const struct cli_disk_args *args,
		   struct base_error *err)
{
	CLI_DISK_CLOSE struct disk *disk = NULL;
	struct cli_progress progress;
	struct disk_layer_info layer = { 0 };
	uint64_t before_bytes = 0;
	uint64_t after_bytes = 0;
	uint64_t used_bytes = 0;
	char before[CLI_SIZE_SHOWN_BYTES];
	char after[CLI_SIZE_SHOWN_BYTES];
	int rc = cli_disk_usage(args->name, &before_bytes, &used_bytes, err);

	if (rc == 0 && args->dry_run)
		rc = cli_disk_open(session, args->name, args->format, true, &disk, err);
	else if (rc == 0)
		rc = cli_disk_open_active(session, args->name, args->format, &disk, err);
	if (rc == 0)
		rc = cli_disk_words(session, disk_layer(disk, 0, &layer, err), err);
	if (rc < 0)
		return rc;
	cli_size_show(before_bytes, before);
	if (layer.format != DISK_VHDX || layer.kind == DISK_FIXED)
		return base_fail(
			err, -EOPNOTSUPP, "'%s' is %s, %s: expected a dynamic or differencing vhdx",
			args->name, disk_format_name(layer.format), disk_kind_name(layer.kind));
	if (args->dry_run) {
		if (!args->quiet)
			(void)printf("Would compact '%s', now %s\n", args->name, before);
		return 0;
	}
	cli_stop_catch();
	cli_progress_begin(&progress, stdout, "compact", args->progress, args->quiet);
	rc = disk_compact(disk, cli_progress_step, &progress, err);
	cli_progress_end(&progress);
	if (rc == 0)
		rc = disk_deactivate(disk, err);
	rc = stopped(args->name, cli_disk_words(session, cli_disk_begun(rc), err), err);
	if (rc == 0)
		rc = cli_disk_usage(args->name, &after_bytes, &used_bytes, err);
	if (rc < 0 || args->quiet)
		return rc;
	cli_size_show(after_bytes, after);
	(void)printf("Compacted '%s' from %s to %s\n", args->name, before, after);
	return 0;
}

int cli_disk_compact(const void *arguments, struct base_error *err)
{
	struct cli_disk session = { 0 };
	int rc = cli_disk_begin(&session, err);

	if (rc == 0)
		rc = compact(&session, arguments, err);
	cli_disk_end(&session);
	return rc;
}

static int merge(struct cli_disk *session, const struct cli_disk_args *args, struct base_error *err)
{
	CLI_DISK_CLOSE struct disk *disk = NULL;
	struct cli_progress progress;
	struct disk_layer_info layer = { 0 };
	struct disk_layer_info parent = { 0 };
	int rc = args->dry_run
			 ? cli_disk_open(session, args->name, args->format, true, &disk, err)
			 : cli_disk_open_active(session, args->name, args->format, &disk, err);

	if (rc == 0)
		rc = cli_disk_words(session, disk_layer(disk, 0, &layer, err), err);
	if (rc == 0 && layer.kind != DISK_DIFFERENCING)
		rc = base_fail(err, -EPROTO,
			       "'%s' is %s: expected a differencing disk, which has a "
			       "parent",
			       args->name, disk_kind_name(layer.kind));
	if (rc == 0)
		rc = cli_disk_words(session, disk_layer(disk, 1, &parent, err), err);
	if (rc < 0)
		return rc;
	if (args->dry_run) {
		if (!args->quiet)
			(void)printf("Would merge '%s' into '/%s' and remove it\n", args->name,
				     parent.name);
		return 0;
	}
	cli_stop_catch();
	cli_progress_begin(&progress, stdout, "merge", args->progress, args->quiet);
	rc = disk_merge(disk, 0, cli_progress_step, &progress, err);
	cli_progress_end(&progress);
	if (rc == 0)
		rc = disk_deactivate(disk, err);
	rc = stopped(args->name, cli_disk_words(session, cli_disk_begun(rc), err), err);
	if (rc == 0 && !args->quiet)
		(void)printf("Merged '%s' into '/%s' and removed it\n", args->name, parent.name);
	return rc;
}

int cli_disk_merge(const void *arguments, struct base_error *err)
{
	struct cli_disk session = { 0 };
	int rc = cli_disk_begin(&session, err);

	if (rc == 0)
		rc = merge(&session, arguments, err);
	cli_disk_end(&session);
	return rc;
}
