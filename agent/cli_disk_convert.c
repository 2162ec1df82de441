/* SPDX-License-Identifier: Apache-2.0 */
/*
 * godwit disk convert: the target is made under a temporary name in its folder, filled, made
 * durable and only then renamed; whatever goes wrong before, nothing stays.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cli_disk_foreign.h"
#include "agent/cli_disk_priv.h"
#include "agent/cli_disk_qemu.h"
#include "agent/cli_progress.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "hypervisor/disk/disk_copy.h"

struct convert {
	struct cli_disk *session;
	const struct cli_disk_args *args;
	struct disk_create_options options;
	struct disk_geometry from;     /* of the source */
	const char *target;            /* name in the store */
	char part[STORE_NAME_BYTES];   /* the target until it is whole; "" none */
	char source[STORE_NAME_BYTES]; /* a raw copy of a qcow2 source; "" none */
	struct cli_progress progress;
};

static int options_of(struct convert *convert, struct base_error *err)
{
	const struct cli_disk_args *args = convert->args;
	struct disk_create_options *options = &convert->options;
	int rc = cli_disk_format_for(args->other, args->other_format, &options->format, err);

	if (rc == 0)
		rc = cli_disk_kind_of(args, &options->kind, err);
	if (rc == 0)
		rc = cli_disk_geometry_of(args, options, err);
	if (rc == 0 && options->kind == DISK_KIND_INVALID)
		options->kind = DISK_DYNAMIC;
	return rc;
}

/* "folder/.NAME.0123456789ab.part": its own for each run, so that two never meet. */
static int temporary_name(const char *target, const char *end, char to[STORE_NAME_BYTES],
			  struct base_error *err)
{
	const char *last = strrchr(target, '/');
	size_t folder_bytes = last == NULL ? 0 : (size_t)(last - target) + 1;
	uint8_t random[6];
	int n;

	base_random_bytes(random, sizeof(random));
	n = snprintf(to, STORE_NAME_BYTES, "%.*s.%s.%02x%02x%02x%02x%02x%02x.%s", (int)folder_bytes,
		     target, target + folder_bytes, random[0], random[1], random[2], random[3],
		     random[4], random[5], end);
	if (n >= 0 && n < STORE_NAME_BYTES)
		return 0;
	to[0] = '\0';
	return base_fail(err, -ENAMETOOLONG, "'/%.64s...': a temporary name beside it is too long",
			 target);
}

/* The target may be made: it is not there, or may be replaced. */
static int target_free(struct convert *convert, struct base_error *err)
{
	const struct cli_disk_args *args = convert->args;
	struct stat st;
	int rc = cli_disk_name(convert->session, args->other, &convert->target, err);

	if (rc < 0)
		return rc;
	if (stat(args->other, &st) != 0)
		return errno == ENOENT ? 0 : base_fail_errno(err, -errno, "'%s'", args->other);
	if (!S_ISREG(st.st_mode))
		return base_fail(err, -EEXIST, "'%s' is no regular file: expected a new name",
				 args->other);
	if (!args->force)
		return base_fail(err, -EEXIST,
				 "'%s' is there already: expected a new name, or --force",
				 args->other);
	return cli_disk_not_in_use(convert->session, args->other, err);
}

/* A target that is part of the source would take the source away. */
static int not_in_chain(struct convert *convert, struct disk *disk, struct base_error *err)
{
	struct disk_layer_info layer;

	for (uint32_t i = 0; i < DISK_CHAIN_MAX; i++) {
		if (disk_layer(disk, i, &layer, NULL) < 0)
			return 0;
		if (strcmp(layer.name, convert->target) == 0)
			return base_fail(err, -EINVAL,
					 "'%s' is the source, or a parent of it: expected another "
					 "target",
					 convert->args->other);
	}
	return 0;
}

static bool is_qcow2(const char *path, int format)
{
	BASE_CLOSE int fd = -EBADF;
	uint8_t bytes[CLI_FOREIGN_LOOK_BYTES];
	ssize_t n;

	if (format != CLI_DISK_FORMAT_INVALID)
		return format == CLI_DISK_QCOW2;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false; /* opening it as a disk says why */
	n = pread(fd, bytes, sizeof(bytes), 0);
	return n > 0 && cli_foreign_find(bytes, (size_t)n) == CLI_FOREIGN_QCOW2;
}

/* A file that only we may read: it will hold a guest's data. */
static int make_private(const char *path, struct base_error *err)
{
	BASE_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	return fd < 0 ? base_fail_errno(err, -errno, "'%s'", path) : 0;
}

static int read_qcow2(struct convert *convert, struct base_error *err)
{
	const struct cli_disk_args *args = convert->args;
	char from[STORE_NAME_BYTES + 1];
	char to[STORE_NAME_BYTES + 1];
	const char *name = NULL;
	int rc = args->with_backing ? 0 : cli_qemu_safe(args->name, err);

	if (rc == 0)
		rc = cli_disk_name(convert->session, args->name, &name, err);
	if (rc == 0)
		rc = temporary_name(convert->target, "source", convert->source, err);
	if (rc < 0)
		return rc;
	cli_disk_alias(convert->session, convert->source, args->name);
	(void)snprintf(from, sizeof(from), "/%s", name);
	(void)snprintf(to, sizeof(to), "/%s", convert->source);
	rc = make_private(to, err);
	if (rc < 0) {
		convert->source[0] = '\0';
		return rc;
	}
	cli_progress_begin(&convert->progress, stdout, "read", args->progress, args->quiet);
	rc = cli_qemu_to_raw(from, to, &convert->progress, err);
	cli_progress_end(&convert->progress);
	return cli_disk_words(convert->session, rc, err);
}

static int open_source(struct convert *convert, struct disk **ret_disk, struct base_error *err)
{
	const struct cli_disk_args *args = convert->args;
	CLI_DISK_CLOSE struct disk *disk = NULL;
	char path[STORE_NAME_BYTES + 1];
	int rc;

	if (convert->source[0] != '\0') {
		(void)snprintf(path, sizeof(path), "/%s", convert->source);
		rc = cli_disk_open(convert->session, path, CLI_DISK_RAW, true, &disk, err);
	} else {
		rc = cli_disk_open(convert->session, args->name, args->format, true, &disk, err);
		if (rc == 0 && !args->force_share)
			rc = cli_disk_not_in_use(convert->session, args->name, err);
		if (rc == 0)
			rc = not_in_chain(convert, disk, err);
	}
	if (rc < 0)
		return rc;
	disk_geometry(disk, &convert->from);
	*ret_disk = base_take(&disk);
	return 0;
}

/* What was not said comes from the source, as far as the format can have it. */
static void fill_options(struct convert *convert)
{
	struct disk_create_options *options = &convert->options;
	uint32_t sector;

	options->size_bytes = convert->from.size_bytes;
	if (options->logical_sector_bytes == 0 && options->format == DISK_VHDX)
		options->logical_sector_bytes = convert->from.logical_sector_bytes;
	if (options->physical_sector_bytes == 0 && options->format == DISK_VHDX)
		options->physical_sector_bytes = convert->from.physical_sector_bytes;
	sector = options->logical_sector_bytes != 0 ? options->logical_sector_bytes : 512;
	/* Sectors of the target that the source does not fill up are zeros. */
	if (sector <= 4096 && options->size_bytes % sector != 0)
		options->size_bytes += sector - options->size_bytes % sector;
}

static int copy_into(struct convert *convert, struct disk *from, struct base_error *err)
{
	CLI_DISK_CLOSE struct disk *to = NULL;
	struct disk_copy_options copy = {
		.from = from,
		.to = to,
		.detect_zeroes = true,
		.fresh = true,
		.progress = cli_progress_step,
		.context = &convert->progress,
	};
	const struct disk_options open = {
		.store = convert->session->store,
		.name = convert->part,
		.format = convert->options.format,
		.loop = convert->session->loop,
		.on_no_space = DISK_POLICY_REPORT,
		.on_io_error = DISK_POLICY_REPORT,
		.on_gone = DISK_POLICY_REPORT,
	};
	int rc = disk_open_standby(&open, &to, err);

	if (rc == 0)
		rc = disk_activate(to, STORE_EPOCH_NONE, NULL, err);
	if (rc < 0)
		return rc;
	copy.to = to;
	cli_progress_begin(&convert->progress, stdout, "convert", convert->args->progress,
			   convert->args->quiet);
	rc = disk_copy(&copy, err);
	cli_progress_end(&convert->progress);
	if (rc == -EBADMSG && disk_damage(from)[0] != '\0')
		return base_fail_errno(err, rc, "'%s': %s", convert->args->name, disk_damage(from));
	return rc == 0 ? disk_deactivate(to, err) : rc;
}

/* Rename, over nothing unless --force; and make that durable.  -ETIMEDOUT: it is there, but
 * whether it survives a power cut is not known. */
static int publish(struct convert *convert, struct base_error *err)
{
	struct store *store = convert->session->store;
	char from[STORE_NAME_BYTES + 1];
	char to[STORE_NAME_BYTES + 1];
	int rc = 0;

	if (cli_stop_wanted())
		return base_fail(err, -ECANCELED, "stopped");
	(void)snprintf(from, sizeof(from), "/%s", convert->part);
	(void)snprintf(to, sizeof(to), "/%s", convert->target);
	if (!convert->args->force && renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) != 0)
		rc = -errno;
	if (rc == -EEXIST)
		return base_fail(err, rc,
				 "'%s' was made by somebody else meanwhile: expected a new name",
				 convert->args->other);
	/* -EINVAL: a file system that does not know RENAME_NOREPLACE; it was not there before. */
	if (rc < 0 && rc != -EINVAL)
		return base_fail_errno(err, rc, "'%s': rename", convert->args->other);
	if (convert->args->force || rc == -EINVAL)
		rc = store_rename(store, convert->part, convert->target, err);
	if (rc < 0)
		return rc;
	convert->part[0] = '\0'; /* not ours to take away any more */
	return store_sync_folder(store, convert->target, err);
}

static void say(const char *how, const struct convert *convert)
{
	char size[CLI_SIZE_SHOWN_BYTES];

	if (convert->args->quiet)
		return;
	cli_size_show(convert->options.size_bytes, size);
	(void)printf("%s '%s' to '%s': %s, %s, %s\n", how, convert->args->name,
		     convert->args->other, disk_format_name(convert->options.format),
		     disk_kind_name(convert->options.kind), size);
}

static int make_target(struct convert *convert, struct disk *from, struct base_error *err)
{
	struct cli_disk *session = convert->session;
	int rc = temporary_name(convert->target, "part", convert->part, err);

	if (rc < 0)
		return rc;
	cli_disk_alias(session, convert->part, convert->args->other);
	rc = disk_create(session->store, convert->part, session->loop, &convert->options, err);
	if (rc < 0) {
		convert->part[0] = '\0'; /* it was not made: nothing to take away */
		return rc;
	}
	rc = cli_disk_begun(copy_into(convert, from, err));
	if (rc == 0)
		rc = cli_disk_begun(publish(convert, err));
	return rc;
}

static int convert_files(struct convert *convert, struct base_error *err)
{
	const struct cli_disk_args *args = convert->args;
	CLI_DISK_CLOSE struct disk *from = NULL;
	int rc = target_free(convert, err);

	if (rc < 0)
		return rc;
	if (is_qcow2(args->name, args->format) && args->dry_run) {
		if (!args->quiet)
			(void)printf("Would convert '%s' to '%s' through qemu-img\n", args->name,
				     args->other);
		return args->with_backing ? 0 : cli_qemu_safe(args->name, err);
	}
	cli_stop_catch();
	if (is_qcow2(args->name, args->format))
		rc = read_qcow2(convert, err);
	if (rc == 0)
		rc = open_source(convert, &from, err);
	if (rc < 0)
		return rc;
	fill_options(convert);
	if (args->dry_run) {
		say("Would convert", convert);
		return 0;
	}
	return make_target(convert, from, err);
}

int cli_disk_convert(const void *arguments, struct base_error *err)
{
	struct cli_disk session = { 0 };
	struct convert convert = { .session = &session, .args = arguments };
	int rc = options_of(&convert, err);

	if (rc == 0)
		rc = cli_disk_begin(&session, err);
	if (rc == 0)
		rc = convert_files(&convert, err);
	if (convert.source[0] != '\0')
		cli_disk_remove(&session, convert.source);
	if (rc < 0 && convert.part[0] != '\0')
		cli_disk_remove(&session, convert.part);
	if (rc == -ECANCELED)
		rc = base_fail(err, rc, "'%s': stopped: nothing was made", convert.args->other);
	else
		rc = cli_disk_words(&session, rc, err);
	cli_disk_end(&session);
	if (rc == 0 && !convert.args->dry_run)
		say("Converted", &convert);
	return rc;
}
