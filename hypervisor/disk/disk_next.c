/* SPDX-License-Identifier: Apache-2.0 */
/* The record of the image that goes on from another. */
#include "hypervisor/disk/disk_next.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "hypervisor/disk/disk.h"
#include "hypervisor/disk/image_create.h"

#define HEAD "godwit-next 1 crc="
#define NAME " name="

/* --- bytes --- */

static int check_leaf(const char *next, struct base_error *err)
{
	size_t length = strlen(next);

	if (length == 0 || strcmp(next, ".") == 0 || strcmp(next, "..") == 0 ||
	    strchr(next, '/') != NULL)
		return base_fail(err, -EINVAL, "newer image: expected a file name");
	if (length >= STORE_NAME_BYTES)
		return base_fail(err, -ENAMETOOLONG, "newer image: name of %zu bytes", length);
	for (size_t i = 0; i < length; i++)
		if (iscntrl((unsigned char)next[i]) != 0)
			return base_fail(err, -EINVAL, "newer image: a control character");
	return 0;
}

int disk_next_encode(const char *next, uint8_t to[DISK_NEXT_BYTES], struct base_error *err)
{
	int code = check_leaf(next, err);

	if (code < 0)
		return code;
	memset(to, 0, DISK_NEXT_BYTES);
	(void)snprintf((char *)to, DISK_NEXT_BYTES, HEAD "%08" PRIx32 NAME "%s\n",
		       base_crc32c(0, next, strlen(next)), next);
	return 0;
}

int disk_next_decode(const uint8_t *bytes, size_t size_bytes, char ret_next[STORE_NAME_BYTES],
		     struct base_error *err)
{
	const size_t head_bytes = strlen(HEAD) + 8 + strlen(NAME);
	uint8_t again[DISK_NEXT_BYTES];
	char next[STORE_NAME_BYTES];
	const uint8_t *end = NULL;
	size_t length = 0;

	if (size_bytes == DISK_NEXT_BYTES)
		end = memchr(bytes, '\n', size_bytes);
	if (end == NULL || (size_t)(end - bytes) < head_bytes)
		return base_fail(err, -EBADMSG, "record of a newer image: no line of text");
	length = (size_t)(end - bytes) - head_bytes;
	if (length >= sizeof(next))
		return base_fail(err, -EBADMSG, "record of a newer image: a name of %zu bytes",
				 length);
	memcpy(next, bytes + head_bytes, length);
	next[length] = '\0';
	/* One text for one record: all the rest is compared. */
	if (disk_next_encode(next, again, NULL) < 0 || memcmp(bytes, again, sizeof(again)) != 0)
		return base_fail(err, -EBADMSG, "record of a newer image: damaged");
	memcpy(ret_next, next, length + 1);
	return 0;
}

/* --- names --- */

static size_t folder_bytes(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash != NULL ? (size_t)(slash - name) + 1 : 0;
}

/* @prefix LEAF @suffix in the folder of @name. */
static int beside(const char *name, const char *prefix, const char *leaf, const char *suffix,
		  char ret_name[STORE_NAME_BYTES], struct base_error *err)
{
	int length = snprintf(ret_name, STORE_NAME_BYTES, "%.*s%s%s%s", (int)folder_bytes(name),
			      name, prefix, leaf, suffix);

	if (length < 0 || length >= STORE_NAME_BYTES)
		return base_fail(err, -ENAMETOOLONG, "'%s': no room for a name beside it", name);
	return 0;
}

static int record_name(const char *name, char ret_name[STORE_NAME_BYTES], struct base_error *err)
{
	return beside(name, ".", name + folder_bytes(name), ".next", ret_name, err);
}

/* --- files --- */

BASE_DEFINE_FREEP(struct store_file, store_close);

static int open_for_reading(struct store *store, struct base_io_loop *loop, const char *name,
			    struct store_file **ret_file, struct base_error *err)
{
	const struct store_open_options options = { .loop = loop,
						    .read_only = true,
						    .align_bytes = 512 };
	int code = store_open(store, name, &options, ret_file, err);

	/* Too long for the file system: it cannot be there. */
	if (code != -ENOENT && code != -ENAMETOOLONG)
		return code < 0 ? code : 1;
	if (err != NULL)
		*err = (struct base_error){ 0 };
	return 0;
}

int disk_next_exists(struct store *store, struct base_io_loop *loop, const char *name,
		     struct base_error *err)
{
	BASE_CLEANUP(store_closep) struct store_file *file = NULL;

	return open_for_reading(store, loop, name, &file, err);
}

/* 1 and the name that is recorded of @name; 0 none. */
static int read_record(struct store *store, struct base_io_loop *loop, const char *name,
		       char ret_next[STORE_NAME_BYTES], struct base_error *err)
{
	BASE_CLEANUP(store_closep) struct store_file *file = NULL;
	BASE_FREE uint8_t *bytes = NULL;
	char record[STORE_NAME_BYTES];
	char leaf[STORE_NAME_BYTES];
	int code = record_name(name, record, NULL);

	if (code < 0) /* then none can have been written */
		return 0;
	code = open_for_reading(store, loop, record, &file, err);
	if (code <= 0)
		return code;
	bytes = aligned_alloc(DISK_NEXT_BYTES, DISK_NEXT_BYTES);
	if (bytes == NULL)
		return base_fail(err, -ENOMEM, "'%s'", record);
	code = store_do(file, STORE_READ, 0, bytes, DISK_NEXT_BYTES, err);
	if (code == 0)
		code = disk_next_decode(bytes, DISK_NEXT_BYTES, leaf, err);
	if (code < 0)
		return base_fail_within(err, code, "'%s'", record);
	code = beside(name, "", leaf, "", ret_next, err);
	return code < 0 ? code : 1;
}

int disk_next_write(struct store *store, struct base_io_loop *loop, const char *name,
		    const char *next, struct base_error *err)
{
	struct image_create create;
	BASE_FREE uint8_t *bytes = aligned_alloc(DISK_NEXT_BYTES, DISK_NEXT_BYTES);
	char record[STORE_NAME_BYTES];
	size_t folder = folder_bytes(name);
	int code = 0;

	if (bytes == NULL)
		return base_fail(err, -ENOMEM, "record of a newer image");
	if (folder_bytes(next) != folder || memcmp(name, next, folder) != 0)
		return base_fail(err, -EINVAL, "'%s': expected it in the folder of '%s'", next,
				 name);
	code = record_name(name, record, err);
	if (code == 0)
		code = disk_next_encode(next + folder, bytes, err);
	if (code < 0)
		return code;
	disk_next_remove(store, name);
	code = image_create_begin(store, record, loop, &create, err);
	if (code < 0)
		return code;
	code = store_do(create.file, STORE_TRUNCATE, DISK_NEXT_BYTES, NULL, 0, err);
	if (code == 0)
		code = store_do(create.file, STORE_WRITE, 0, bytes, DISK_NEXT_BYTES, err);
	if (code < 0) {
		image_create_abort(&create);
		return base_fail_within(err, code, "'%s'", record);
	}
	return image_create_commit(&create, err);
}

void disk_next_remove(struct store *store, const char *name)
{
	char record[STORE_NAME_BYTES];

	/* What stays says nothing once the newer image is gone. */
	if (record_name(name, record, NULL) == 0)
		(void)!store_remove(store, record, NULL);
}

int disk_next_find(struct store *store, struct base_io_loop *loop, const char *name,
		   char ret_newest[STORE_NAME_BYTES], struct base_error *err)
{
	char at[STORE_NAME_BYTES];
	char next[STORE_NAME_BYTES];
	bool found = false;

	if (strlen(name) >= sizeof(at))
		return base_fail(err, -ENAMETOOLONG, "name of %zu bytes", strlen(name));
	memcpy(at, name, strlen(name) + 1);
	for (int i = 0; i < DISK_CHAIN_MAX; i++) {
		int code = read_record(store, loop, at, next, err);

		if (code > 0)
			code = disk_next_exists(store, loop, next, err);
		if (code < 0)
			return code;
		if (code == 0) {
			memcpy(ret_newest, at, sizeof(at));
			return found ? 1 : 0;
		}
		memcpy(at, next, sizeof(at));
		found = true;
	}
	return base_fail(err, -EBADMSG, "'%s': records of newer images lead in a circle", name);
}

int disk_next_check(struct store *store, struct base_io_loop *loop, const char *name,
		    struct base_error *err)
{
	char newest[STORE_NAME_BYTES];
	int code = disk_next_find(store, loop, name, newest, err);

	if (code <= 0)
		return code;
#ifdef GODWIT_MUTANT_DISK_NEXT
	return 0;
#endif
	return base_fail(
		err, -EPROTO,
		"'%s' is the state before a checkpoint, and '%s' goes on from it: expected "
		"that one (or remove it, to go back and lose what is newer)",
		name, newest);
}
