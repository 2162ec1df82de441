/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session: files as the user names them, opened as disks.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cli_disk_foreign.h"
#include "agent/cli_disk_priv.h"
#include "base/cleanup.h"
#include "hypervisor/disk/disk_next.h"
#include "hypervisor/disk/local_store.h"

int cli_disk_begin(struct cli_disk *session, struct base_error *err)
{
	const struct base_io_loop_options options = { 0 };
	int rc = base_io_loop_new(&options, &session->loop, err);

	if (rc == 0)
		rc = base_io_loop_start(session->loop, "disk", err);
	if (rc == 0)
		rc = local_store_open("/", NULL, &session->store, err);
	if (rc < 0)
		cli_disk_end(session);
	return rc;
}

void cli_disk_end(struct cli_disk *session)
{
	store_free(session->store);
	session->store = NULL;
	base_io_loop_free(session->loop);
	session->loop = NULL;
}

/* The absolute path: of the file where it exists, else of its folder and its last part. */
static int absolute(const char *path, char ret_path[PATH_MAX], struct base_error *err)
{
	const char *last = strrchr(path, '/');
	char folder[PATH_MAX];
	size_t used;

	if (realpath(path, ret_path) != NULL)
		return 0;
	last = last == NULL ? path : last + 1;
	if (*last == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
		return base_fail(err, -EINVAL, "'%s': expected the name of a file", path);
	if ((size_t)(last - path) >= sizeof(folder))
		return base_fail(err, -ENAMETOOLONG, "'%.64s...': a path of %zu bytes, at most %d",
				 path, strlen(path), STORE_NAME_BYTES);
	(void)snprintf(folder, sizeof(folder), "%.*s", (int)(last - path), path);
	if (realpath(folder[0] == '\0' ? "." : folder, ret_path) == NULL)
		return base_fail_errno(err, -errno, "'%s': folder '%s'", path, folder);
	used = strlen(ret_path);
	if (strlen(last) + 2 > PATH_MAX - used)
		return base_fail(err, -ENAMETOOLONG, "'%.64s...': a path of %zu bytes, at most %d",
				 path, strlen(path), STORE_NAME_BYTES);
	(void)snprintf(ret_path + used, PATH_MAX - used, "%s%s", used > 1 ? "/" : "", last);
	return 0;
}

int cli_disk_name(struct cli_disk *session, const char *path, const char **ret_name,
		  struct base_error *err)
{
	char full[PATH_MAX];
	char *name = session->names[session->name_count].name;
	size_t name_bytes;
	int rc;

	base_assert(session->name_count < CLI_DISK_NAMES);
	rc = absolute(path, full, err);
	if (rc < 0)
		return rc;
	name_bytes = strlen(full + 1);
	if (name_bytes >= STORE_NAME_BYTES)
		return base_fail(err, -ENAMETOOLONG, "'%.64s...': a path of %zu bytes, at most %d",
				 full, name_bytes + 1, STORE_NAME_BYTES);
	memcpy(name, full + 1, name_bytes + 1);
	session->names[session->name_count].path = path;
	session->name_count++;
	*ret_name = name;
	return 0;
}

void cli_disk_alias(struct cli_disk *session, const char *name, const char *path)
{
	base_assert(session->name_count < CLI_DISK_NAMES);
	(void)snprintf(session->names[session->name_count].name, STORE_NAME_BYTES, "%s", name);
	session->names[session->name_count].path = path;
	session->name_count++;
}

int cli_disk_usage(const char *path, uint64_t *ret_file_bytes, uint64_t *ret_used_bytes,
		   struct base_error *err)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return base_fail_errno(err, -errno, "'%s'", path);
	if (S_ISDIR(st.st_mode))
		return base_fail(err, -EISDIR, "'%s' is a folder: expected a disk image", path);
	*ret_file_bytes = (uint64_t)st.st_size;
	*ret_used_bytes = (uint64_t)st.st_blocks * 512;
	return 0;
}

/* A foreign image must not be taken for a raw disk. */
static int refuse_foreign(const char *path, struct base_error *err)
{
	BASE_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	uint8_t bytes[CLI_FOREIGN_LOOK_BYTES];
	enum cli_foreign foreign;
	ssize_t n;

	if (fd < 0)
		return base_fail_errno(err, -errno, "'%s'", path);
	n = pread(fd, bytes, sizeof(bytes), 0);
	foreign = cli_foreign_find(bytes, n > 0 ? (size_t)n : 0);
	if (foreign == CLI_FOREIGN_NONE)
		return 0;
	if (foreign == CLI_FOREIGN_QCOW2)
		return base_fail(err, -EOPNOTSUPP,
				 "'%s' is a qcow2 image: expected vhdx, vhd or raw; make one with "
				 "'godwit disk convert'",
				 path);
	return base_fail(err, -EOPNOTSUPP,
			 "'%s' is a %s image: expected vhdx, vhd or raw; make one with 'qemu-img "
			 "convert -f %s -O raw'",
			 path, cli_foreign_name(foreign), cli_foreign_name(foreign));
}

int cli_disk_probe(struct cli_disk *session, const char *path, int format, const char **ret_name,
		   struct base_error *err)
{
	uint64_t file_bytes;
	uint64_t used_bytes;
	int rc = cli_disk_usage(path, &file_bytes, &used_bytes, err);

	if (rc == 0 && format == CLI_DISK_QCOW2)
		rc = base_fail(err, -EOPNOTSUPP,
			       "'%s': format qcow2: only 'godwit disk convert' reads it", path);
	if (rc == 0 && format == CLI_DISK_FORMAT_INVALID)
		rc = refuse_foreign(path, err);
	return rc == 0 ? cli_disk_name(session, path, ret_name, err) : rc;
}

int cli_disk_open(struct cli_disk *session, const char *path, int format, bool read_only,
		  struct disk **ret_disk, struct base_error *err)
{
	struct disk_options options = {
		.store = session->store,
		.format = cli_disk_format_of(format),
		.loop = session->loop,
		.read_only = read_only,
		/* Nobody is there to make room: an error, not a wait. */
		.on_no_space = DISK_POLICY_REPORT,
		.on_io_error = DISK_POLICY_REPORT,
		.on_gone = DISK_POLICY_REPORT,
	};
	int rc = cli_disk_probe(session, path, format, &options.name, err);

	if (rc < 0)
		return rc;
	return cli_disk_words(session, disk_open_standby(&options, ret_disk, err), err);
}

int cli_disk_activate(struct cli_disk *session, struct disk *disk, struct base_error *err)
{
	int rc = disk_next_check(session->store, session->loop, disk_name(disk), err);

	if (rc == 0)
		rc = disk_activate(disk, STORE_EPOCH_NONE, NULL, err);
	return cli_disk_words(session, rc, err);
}

int cli_disk_open_active(struct cli_disk *session, const char *path, int format,
			 struct disk **ret_disk, struct base_error *err)
{
	CLI_DISK_CLOSE struct disk *disk = NULL;
	int rc = cli_disk_open(session, path, format, false, &disk, err);

	if (rc == 0)
		rc = cli_disk_activate(session, disk, err);
	if (rc == 0)
		*ret_disk = base_take(&disk);
	return rc;
}

void cli_disk_closep(struct disk **disk)
{
	disk_close(*disk);
}

int cli_disk_not_in_use(struct cli_disk *session, const char *path, struct base_error *err)
{
	struct store_lease lease = { 0 };
	const char *name = NULL;
	int rc = cli_disk_name(session, path, &name, err);

	if (rc == 0)
		rc = cli_disk_words(session, store_lease(session->store, name, &lease, err), err);
	if (rc < 0)
		return rc;
	if (!lease.held)
		return 0;
	return base_fail(err, -EBUSY,
			 "'%s' is held by %s, at epoch %" PRIu64 ": expected nobody writing it",
			 path, lease.holder[0] != '\0' ? lease.holder : "somebody", lease.epoch);
}

void cli_disk_remove(struct cli_disk *session, const char *name)
{
	if (store_remove(session->store, name, NULL) < 0)
		return;
}

/* A quoted store name of @bytes at @quoted: how the user knows it; NULL: as it is. */
static const char *known_as(const struct cli_disk *session, const char *quoted, size_t bytes,
			    char full[STORE_NAME_BYTES + 1])
{
	for (size_t i = 0; i < session->name_count; i++)
		if (strlen(session->names[i].name) == bytes &&
		    memcmp(session->names[i].name, quoted, bytes) == 0)
			return session->names[i].path;
	if (bytes == 0 || bytes >= STORE_NAME_BYTES || quoted[0] == '/' ||
	    memchr(quoted, '/', bytes) == NULL)
		return NULL;
	(void)snprintf(full, STORE_NAME_BYTES + 1, "/%.*s", (int)bytes, quoted);
	return access(full, F_OK) == 0 ? full : NULL; /* a parent, which the user did not name */
}

int cli_disk_words(const struct cli_disk *session, int code, struct base_error *err)
{
	char text[BASE_ERROR_TEXT_BYTES];
	size_t used = 0;

	if (code >= 0 || err == NULL || err->code == 0)
		return code;
	for (const char *at = err->text; *at != '\0' && used < sizeof(text) - 1;) {
		char full[STORE_NAME_BYTES + 1];
		const char *end = *at == '\'' ? strchr(at + 1, '\'') : NULL;
		const char *known =
			end != NULL ? known_as(session, at + 1, (size_t)(end - at - 1), full)
				    : NULL;
		int n;

		if (known == NULL) {
			text[used++] = *at++;
			continue;
		}
		n = snprintf(text + used, sizeof(text) - used, "'%s'", known);
		used += (size_t)n;
		if (used > sizeof(text) - 1)
			used = sizeof(text) - 1;
		at = end + 1;
	}
	text[used] = '\0';
	memcpy(err->text, text, sizeof(text));
	return code;
}

int cli_disk_begun(int code)
{
	return code == -EINVAL ? -EIO : code;
}

enum disk_format cli_disk_format_of(int format)
{
	switch (format) {
	case CLI_DISK_RAW:
		return DISK_RAW;
	case CLI_DISK_VHD:
		return DISK_VHD;
	case CLI_DISK_VHDX:
		return DISK_VHDX;
	default:
		return DISK_FORMAT_INVALID;
	}
}

int cli_disk_format_for(const char *path, int given, enum disk_format *ret_format,
			struct base_error *err)
{
	static const struct {
		const char *extension;
		enum disk_format format;
	} known[] = {
		{ "vhdx", DISK_VHDX }, { "avhdx", DISK_VHDX }, { "vhd", DISK_VHD },
		{ "avhd", DISK_VHD },  { "vpc", DISK_VHD },    { "raw", DISK_RAW },
		{ "img", DISK_RAW },
	};
	const char *dot = strrchr(path, '.');

	if (given == CLI_DISK_QCOW2)
		return base_fail(
			err, -EINVAL,
			"'%s': format qcow2: expected vhdx, vhd or raw; qcow2 is only read", path);
	*ret_format = cli_disk_format_of(given);
	if (*ret_format != DISK_FORMAT_INVALID)
		return 0;
	for (size_t i = 0; dot != NULL && i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcasecmp(dot + 1, known[i].extension) == 0) {
			*ret_format = known[i].format;
			return 0;
		}
	}
	return base_fail(err, -EINVAL,
			 "'%s': no format given: expected an option that names it, or a name that "
			 "ends in .vhdx, .vhd, .raw or .img",
			 path);
}

int cli_disk_kind_of(const struct cli_disk_args *args, enum disk_kind *ret_kind,
		     struct base_error *err)
{
	if (args->fixed && args->kind == DISK_DYNAMIC)
		return base_fail(
			err, -EINVAL,
			"option '--fixed': with '-o subformat=dynamic': expected one of both");
	*ret_kind = args->fixed ? DISK_FIXED : (enum disk_kind)args->kind;
	return 0;
}

static int take_u32(const char *what, uint64_t value, uint32_t *ret_value, struct base_error *err)
{
	if (value > UINT32_MAX)
		return base_fail(err, -EINVAL, "%s: value %" PRIu64 ": expected at most 2G", what,
				 value);
	*ret_value = (uint32_t)value;
	return 0;
}

int cli_disk_geometry_of(const struct cli_disk_args *args, struct disk_create_options *options,
			 struct base_error *err)
{
	int rc = take_u32("option '--block-size'", args->block_bytes, &options->block_bytes, err);

	if (rc == 0)
		rc = take_u32("option '--sector'", args->logical_sector_bytes,
			      &options->logical_sector_bytes, err);
	if (rc == 0)
		rc = take_u32("option '--physical-sector'", args->physical_sector_bytes,
			      &options->physical_sector_bytes, err);
	if (rc == 0)
		rc = take_u32("option '--log-size'", args->log_bytes, &options->log_bytes, err);
	return rc;
}

bool cli_disk_wants_json(const struct cli_disk_args *args)
{
	return args->json || args->output == CLI_DISK_OUTPUT_JSON;
}

int cli_disk_print_json(struct json_t *value, struct base_error *err)
{
	int rc = value == NULL ? -1 : json_dumpf(value, stdout, JSON_INDENT(2));

	json_decref(value);
	if (rc != 0)
		return base_fail(err, -ENOMEM, "JSON text");
	(void)putchar('\n');
	return 0;
}
