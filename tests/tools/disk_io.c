/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests on a disk image from a script, as qemu-io makes them:
 *
 *   disk_io [--abort | --hold] [--format FORMAT] FILE COMMAND...
 *
 *   write OFFSET LENGTH BYTE     bytes of one value
 *   fua OFFSET LENGTH BYTE       the same, durable when done
 *   read OFFSET LENGTH BYTE      fails unless every byte has that value
 *   zero OFFSET LENGTH | unmap OFFSET LENGTH | flush | resize SIZE
 *   fill COUNT BYTE              4 KiB into each of COUNT places, 1 MiB apart
 *   endless BYTE                 fill over and over with a flush each, printing a line a round
 *
 * --abort: end by _exit() with everything open: what a killed process leaves.  --hold: print
 * "held" and wait for the end of standard input before closing.  Only read: it is not activated.
 * Exit 0, or 1 with one line.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli.h"
#include "base/cleanup.h"
#include "hypervisor/disk/disk.h"
#include "hypervisor/disk/local_store.h"

#define PIECE_BYTES (1U << 20)
#define ALIGN_BYTES 4096U

struct tool {
	struct base_io_loop *loop;
	struct store *store;
	struct disk *disk;
	uint8_t *buffer; /* PIECE_BYTES */
	struct base_error err;
};

struct command {
	const char *name;
	int arguments;
	enum disk_op op;
	uint32_t flags;
};

static const struct command commands[] = {
	{ "write", 3, DISK_WRITE, 0 },        { "fua", 3, DISK_WRITE, DISK_FUA },
	{ "read", 3, DISK_READ, 0 },          { "zero", 2, DISK_ZERO, 0 },
	{ "unmap", 2, DISK_UNMAP, 0 },        { "flush", 0, DISK_FLUSH, 0 },
	{ "resize", 1, DISK_RESIZE, 0 },      { "fill", 2, DISK_OP_INVALID, 0 },
	{ "endless", 1, DISK_OP_INVALID, 0 },
};

static uint64_t number(const char *text)
{
	uint64_t value = 0;

	if (!cli_size_parse(text, &value)) {
		(void)fprintf(stderr, "disk_io: '%s': expected a size\n", text);
		exit(2);
	}
	return value;
}

static int do_one(struct tool *tool, const struct command *command, uint64_t offset_bytes,
		  uint64_t length_bytes)
{
	struct iovec iov = { .iov_base = tool->buffer, .iov_len = length_bytes };
	struct disk_request request = { .op = command->op,
					.flags = command->flags,
					.offset_bytes = offset_bytes,
					.length_bytes = length_bytes,
					.iov = &iov,
					.iov_count = 1 };

	return disk_do_request(tool->disk, &request, &tool->err);
}

static int do_data(struct tool *tool, const struct command *command, char *const args[])
{
	uint64_t offset = number(args[0]);
	uint64_t left = number(args[1]);
	uint8_t value = (uint8_t)number(args[2]);

	while (left > 0) {
		uint64_t bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
		int rc;

		memset(tool->buffer, command->op == DISK_READ ? (uint8_t)~value : value, bytes);
		rc = do_one(tool, command, offset, bytes);
		if (rc < 0)
			return rc;
		for (uint64_t i = 0; command->op == DISK_READ && i < bytes; i++)
			if (tool->buffer[i] != value)
				return base_fail(&tool->err, -EBADMSG,
						 "byte at %" PRIu64 ": value %u: expected %u",
						 offset + i, tool->buffer[i], value);
		offset += bytes;
		left -= bytes;
	}
	return 0;
}

static int do_fill(struct tool *tool, uint64_t count, uint8_t value)
{
	int rc = 0;

	memset(tool->buffer, value, 4096);
	for (uint64_t i = 0; i < count && rc == 0; i++)
		rc = disk_do(tool->disk, DISK_WRITE, i << 20, tool->buffer, 4096, &tool->err);
	return rc;
}

static int do_endless(struct tool *tool, uint8_t value)
{
	struct disk_geometry geometry;
	int rc = 0;

	disk_geometry(tool->disk, &geometry);
	for (uint64_t round = 1; rc == 0; round++) {
		rc = do_fill(tool, geometry.size_bytes >> 20, value);
		if (rc == 0)
			rc = disk_do(tool->disk, DISK_FLUSH, 0, NULL, 0, &tool->err);
		(void)printf("round %" PRIu64 "\n", round);
		(void)fflush(stdout);
	}
	return rc;
}

static int do_command(struct tool *tool, const struct command *command, char *const args[])
{
	if (strcmp(command->name, "fill") == 0)
		return do_fill(tool, number(args[0]), (uint8_t)number(args[1]));
	if (strcmp(command->name, "endless") == 0)
		return do_endless(tool, (uint8_t)number(args[0]));
	if (command->op == DISK_WRITE || command->op == DISK_READ)
		return do_data(tool, command, args);
	return do_one(tool, command, command->arguments > 0 ? number(args[0]) : 0,
		      command->arguments > 1 ? number(args[1]) : 0);
}

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	(void)fprintf(stderr, "disk_io: '%s': expected a command\n", name);
	exit(2);
}

static int do_all(struct tool *tool, int argc, char *const argv[])
{
	int rc = 0;

	for (int i = 0; i < argc && rc == 0;) {
		const struct command *command = find(argv[i]);

		if (argc - i - 1 < command->arguments) {
			(void)fprintf(stderr, "disk_io: '%s': expected %d arguments\n", argv[i],
				      command->arguments);
			exit(2);
		}
		rc = do_command(tool, command, argv + i + 1);
		i += 1 + command->arguments;
	}
	return rc;
}

static bool only_reads(int argc, char *const argv[])
{
	for (int i = 0; i < argc; i += 1 + find(argv[i])->arguments)
		if (find(argv[i])->op != DISK_READ)
			return false;
	return true;
}

static int open_all(struct tool *tool, const char *path, enum disk_format format, bool active)
{
	char full[PATH_MAX];
	struct disk_options options = { .format = format,
					.read_only = !active,
					.on_no_space = DISK_POLICY_REPORT,
					.on_io_error = DISK_POLICY_REPORT,
					.on_gone = DISK_POLICY_REPORT };
	int rc;

	tool->buffer = aligned_alloc(ALIGN_BYTES, PIECE_BYTES);
	if (tool->buffer == NULL)
		return base_fail(&tool->err, -ENOMEM, "buffer");
	if (realpath(path, full) == NULL)
		return base_fail_errno(&tool->err, -errno, "'%s'", path);
	rc = base_io_loop_new(NULL, &tool->loop, &tool->err);
	if (rc == 0)
		rc = base_io_loop_start(tool->loop, "disk", &tool->err);
	if (rc == 0)
		rc = local_store_open("/", NULL, &tool->store, &tool->err);
	options.name = full + 1;
	options.store = tool->store;
	options.loop = tool->loop;
	if (rc == 0)
		rc = disk_open_standby(&options, &tool->disk, &tool->err);
	if (rc == 0 && active)
		rc = disk_activate(tool->disk, STORE_EPOCH_NONE, NULL, &tool->err);
	return rc;
}

static enum disk_format format_of(const char *name)
{
	for (int f = DISK_FORMAT_INVALID + 1; f < DISK_FORMATS; f++)
		if (strcmp(name, disk_format_name((enum disk_format)f)) == 0)
			return (enum disk_format)f;
	(void)fprintf(stderr, "disk_io: '%s': expected raw, vhd or vhdx\n", name);
	exit(2);
}

static void wait_for_end(void)
{
	(void)puts("held");
	(void)fflush(stdout);
	while (getchar() != EOF)
		;
}

int main(int argc, char *argv[])
{
	struct tool tool = { 0 };
	enum disk_format format = DISK_FORMAT_INVALID;
	bool end_abruptly = false;
	bool hold = false;
	bool active;
	int at = 1;
	int rc;

	for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
		end_abruptly = end_abruptly || strcmp(argv[at], "--abort") == 0;
		hold = hold || strcmp(argv[at], "--hold") == 0;
		if (strcmp(argv[at], "--format") == 0 && at + 1 < argc)
			format = format_of(argv[++at]);
	}
	if (at >= argc) {
		(void)fprintf(stderr, "usage: disk_io [OPTION]... FILE COMMAND...\n");
		return 2;
	}
	active = hold || !only_reads(argc - at - 1, argv + at + 1);
	rc = open_all(&tool, argv[at], format, active);
	if (rc == 0)
		rc = do_all(&tool, argc - at - 1, argv + at + 1);
	if (rc == 0 && hold)
		wait_for_end();
	if (end_abruptly && rc == 0)
		_exit(0);
	if (rc == 0 && active)
		rc = disk_deactivate(tool.disk, &tool.err);
	disk_close(tool.disk);
	store_free(tool.store);
	base_io_loop_free(tool.loop);
	free(tool.buffer);
	if (rc == 0)
		return 0;
	(void)fprintf(stderr, "disk_io: %s\n", tool.err.text);
	return 1;
}
