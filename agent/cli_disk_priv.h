/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verbs of "godwit disk" share: their arguments, and a session with a store on the
 * whole file system and a started I/O loop.  Main thread.
 */
#ifndef AGENT_CLI_DISK_PRIV_H
#define AGENT_CLI_DISK_PRIV_H

#include "agent/cli.h"
#include "hypervisor/disk/disk.h"

/* -f and -O may name what only qemu-img reads. */
enum cli_disk_format {
	CLI_DISK_FORMAT_INVALID,
	CLI_DISK_RAW,
	CLI_DISK_VHD,
	CLI_DISK_VHDX,
	CLI_DISK_QCOW2,
	CLI_DISK_FORMATS
};

enum cli_disk_output {
	CLI_DISK_OUTPUT_INVALID,
	CLI_DISK_OUTPUT_HUMAN,
	CLI_DISK_OUTPUT_JSON,
	CLI_DISK_OUTPUTS
};

enum cli_disk_mend {
	CLI_DISK_MEND_INVALID,
	CLI_DISK_MEND_LEAKS,
	CLI_DISK_MEND_ALL,
	CLI_DISK_MENDS
};

/* One structure for all verbs; each table fills what it has rows for. */
struct cli_disk_args {
	const char *name;
	const char *other; /* the second operand */
	const char *parent;
	int format;       /* enum cli_disk_format */
	int other_format; /* -O, -F */
	int kind;         /* enum disk_kind */
	int output;       /* enum cli_disk_output */
	int mend;         /* enum cli_disk_mend */
	uint64_t size_bytes;
	uint64_t block_bytes;
	uint64_t logical_sector_bytes;
	uint64_t physical_sector_bytes;
	uint64_t log_bytes;
	struct cli_delta delta;
	bool fixed;
	bool progress;
	bool quiet;
	bool dry_run;
	bool json;
	bool backing_chain;
	bool repair;
	bool force;
	bool force_share;
	bool shrink;
	bool strict;
	bool with_backing;
};

int cli_disk_create(const void *arguments, struct base_error *err);
int cli_disk_info(const void *arguments, struct base_error *err);
int cli_disk_map(const void *arguments, struct base_error *err);
int cli_disk_check(const void *arguments, struct base_error *err);
int cli_disk_convert(const void *arguments, struct base_error *err);
int cli_disk_resize(const void *arguments, struct base_error *err);
int cli_disk_compact(const void *arguments, struct base_error *err);
int cli_disk_merge(const void *arguments, struct base_error *err);
int cli_disk_compare(const void *arguments, struct base_error *err);
int cli_disk_boot_entry(const void *arguments, struct base_error *err);

#define CLI_DISK_VERBS 10
extern const struct cli_verb cli_disk_verbs[CLI_DISK_VERBS];

#define CLI_DISK_NAMES 8

/* A session.  Zeros are an ended one. */
struct cli_disk {
	struct base_io_loop *loop;
	struct store *store;
	struct {
		const char *path; /* as the user wrote it */
		char name[STORE_NAME_BYTES];
	} names[CLI_DISK_NAMES];
	size_t name_count;
};

BASE_MUST_CHECK int cli_disk_begin(struct cli_disk *session, struct base_error *err);
void cli_disk_end(struct cli_disk *session);

/**
 * cli_disk_name - the name in the session's store of the file that the user calls @path.
 * The folder must exist, the file need not; a symbolic link is followed when it leads somewhere.
 * -ENOENT the folder; -EINVAL it names no file; -ENAMETOOLONG.  The name lives with the session.
 */
BASE_MUST_CHECK int cli_disk_name(struct cli_disk *session, const char *path, const char **ret_name,
				  struct base_error *err);
/* Texts about @name, a store name of our own making, shall say @path.  @path outlives the session.
 */
void cli_disk_alias(struct cli_disk *session, const char *name, const char *path);
/* What @path is like on the host: -ENOENT, -EISDIR... with text.  Size on the medium. */
BASE_MUST_CHECK int cli_disk_usage(const char *path, uint64_t *ret_file_bytes,
				   uint64_t *ret_used_bytes, struct base_error *err);

/* That @path is there and no image of another program, unless @format says what it is; its
 * name in the store.  Errors as cli_disk_open(). */
BASE_MUST_CHECK int cli_disk_probe(struct cli_disk *session, const char *path, int format,
				   const char **ret_name, struct base_error *err);

/**
 * cli_disk_open - in standby, the format looked at unless @format says it.
 * -EOPNOTSUPP a format that is not ours: the text says what to do.
 */
BASE_MUST_CHECK int cli_disk_open(struct cli_disk *session, const char *path, int format,
				  bool read_only, struct disk **ret_disk, struct base_error *err);
/* The same and activated, for a change. */
BASE_MUST_CHECK int cli_disk_open_active(struct cli_disk *session, const char *path, int format,
					 struct disk **ret_disk, struct base_error *err);
/* Activate what was opened.  -EPROTO: a checkpoint has made it the past of a newer image. */
BASE_MUST_CHECK int cli_disk_activate(struct cli_disk *session, struct disk *disk,
				      struct base_error *err);
void cli_disk_closep(struct disk **disk);
#define CLI_DISK_CLOSE BASE_CLEANUP(cli_disk_closep)

/* Take away what is not wanted any more; when that fails there is nothing to be done. */
void cli_disk_remove(struct cli_disk *session, const char *name);

struct cli_disk_span {
	uint64_t offset_bytes;
	uint64_t length_bytes;
};
/* Extents of @span, from its beginning, at least one and at most @capacity. */
BASE_MUST_CHECK int cli_disk_extents(struct cli_disk *session, struct disk *disk,
				     const struct cli_disk_span *span, struct disk_extent *extents,
				     uint32_t capacity, uint32_t *ret_count);

/* A request that the main thread waits for. */
struct cli_disk_wait {
	struct disk_request request;
	struct base_io_loop *loop;
	struct iovec iov;
	int result;
	bool done;
};
/* Begin; @wait->request has op, flags and range; @data for READ and WRITE. */
void cli_disk_start(struct cli_disk *session, struct disk *disk, struct cli_disk_wait *wait,
		    void *data);
int cli_disk_wait(struct cli_disk_wait *wait);

/* -EBUSY when somebody holds @path for writing: it would change while it is read. */
BASE_MUST_CHECK int cli_disk_not_in_use(struct cli_disk *session, const char *path,
					struct base_error *err);

/* Store names in @err's text as the user wrote them.  Returns @code. */
int cli_disk_words(const struct cli_disk *session, int code, struct base_error *err);
/* @code of work that had begun: never "nothing was done" (exit code 2). */
int cli_disk_begun(int code);

/* For INVALID: by the extension of @path: -EINVAL when that says nothing. */
BASE_MUST_CHECK int cli_disk_format_for(const char *path, int given, enum disk_format *ret_format,
					struct base_error *err);
enum disk_format cli_disk_format_of(int format); /* QCOW2 and INVALID: DISK_FORMAT_INVALID */
/* --fixed and -o subformat together; INVALID when neither was given. */
BASE_MUST_CHECK int cli_disk_kind_of(const struct cli_disk_args *args, enum disk_kind *ret_kind,
				     struct base_error *err);
/* Options of a new disk that the command line has: a value that does not fit is -EINVAL. */
BASE_MUST_CHECK int cli_disk_geometry_of(const struct cli_disk_args *args,
					 struct disk_create_options *options,
					 struct base_error *err);
bool cli_disk_wants_json(const struct cli_disk_args *args);

struct json_t;
/* Print a JSON value with a line end, and give it back.  NULL (no memory): -ENOMEM. */
BASE_MUST_CHECK int cli_disk_print_json(struct json_t *value, struct base_error *err);

#endif
