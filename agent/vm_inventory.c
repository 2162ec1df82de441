/* SPDX-License-Identifier: Apache-2.0 */
/* The record of a VM's images: its bytes and its life.  docs/migrate/records.md, section 8. */
#include "agent/vm_inventory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent_limits.h"
#include "agent/vm_inventory_priv.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "hypervisor/disk/store.h"

#define HEAD       "godwit-images 1 crc="
#define HEAD_BYTES (sizeof(HEAD) - 1 + 8 + 1) /* with the digits and the newline */

static const char *const job_names[VM_INVENTORY_JOBS] = {
	[VM_INVENTORY_NONE] = "none",
	[VM_INVENTORY_INCOMING] = "incoming",
	[VM_INVENTORY_LEAVING] = "leaving",
	[VM_INVENTORY_DISK_MOVE] = "disk-move",
};

/* --- bytes --- */

static void json_freep(json_t **json)
{
	json_decref(*json);
}

static bool is_path(const json_t *value)
{
	const char *text = json_string_value(value);

	return text != NULL && text[0] != '\0' && strlen(text) < VM_PATH_BYTES;
}

static bool is_file(const json_t *file)
{
	const char *folder = json_string_value(json_object_get(file, "folder"));
	const char *name = json_string_value(json_object_get(file, "name"));

	return json_object_size(file) == 2 && folder != NULL && folder[0] == '/' &&
	       strlen(folder) < VM_PATH_BYTES && name != NULL && name[0] != '\0' &&
	       name[0] != '/' && strlen(name) < STORE_NAME_BYTES;
}

static bool is_moved(const json_t *disk)
{
	return json_object_size(disk) == 2 && is_path(json_object_get(disk, "was")) &&
	       is_path(json_object_get(disk, "now"));
}

static bool is_list(const json_t *list, bool (*is)(const json_t *element))
{
	if (!json_is_array(list))
		return false;
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!is(json_array_get(list, i)))
			return false;
	return true;
}

static bool is_id(const json_t *value)
{
	const char *text = json_string_value(value);

	return text != NULL &&
	       (text[0] == '\0' || (strlen(text) == (size_t)2 * MIG_ID_BYTES &&
				    strspn(text, "0123456789abcdef") == (size_t)2 * MIG_ID_BYTES));
}

static enum vm_inventory_job job_of(const json_t *root)
{
	const char *name = json_string_value(json_object_get(root, "job"));

	for (int i = 0; name != NULL && i < VM_INVENTORY_JOBS; i++)
		if (strcmp(job_names[i], name) == 0)
			return (enum vm_inventory_job)i;
	return VM_INVENTORY_JOBS;
}

static bool is_root(const json_t *root)
{
	return json_object_size(root) == 8 && job_of(root) != VM_INVENTORY_JOBS &&
	       is_id(json_object_get(root, "id")) &&
	       json_is_boolean(json_object_get(root, "keep")) &&
	       json_is_string(json_object_get(root, "was")) &&
	       json_is_string(json_object_get(root, "now")) &&
	       is_list(json_object_get(root, "made"), is_file) &&
	       is_list(json_object_get(root, "left"), is_file) &&
	       is_list(json_object_get(root, "disks"), is_moved);
}

int vm_inventory_decode(const char *bytes, size_t size_bytes, json_t **ret_root,
			struct base_error *err)
{
	BASE_CLEANUP(json_freep) json_t *root = NULL;
	char head[HEAD_BYTES + 1];
	json_error_t why;

	if (size_bytes <= HEAD_BYTES || size_bytes > VM_INVENTORY_BYTES_MAX)
		return base_fail(err, -EBADMSG, "record of images: %zu bytes", size_bytes);
	(void)snprintf(head, sizeof(head), HEAD "%08" PRIx32 "\n",
		       base_crc32c(0, bytes + HEAD_BYTES, size_bytes - HEAD_BYTES));
	if (memcmp(head, bytes, HEAD_BYTES) != 0)
		return base_fail(err, -EBADMSG, "record of images: head or checksum is wrong");
	root = json_loadb(bytes + HEAD_BYTES, size_bytes - HEAD_BYTES, JSON_REJECT_DUPLICATES,
			  &why);
	if (root == NULL || !is_root(root))
		return base_fail(err, -EBADMSG, "record of images: a key or value that cannot be");
	*ret_root = base_take(&root);
	return 0;
}

/* --- in memory --- */

static json_t *root_new(void)
{
	return json_pack("{s:s, s:s, s:b, s:s, s:s, s:[], s:[], s:[]}", "job",
			 job_names[VM_INVENTORY_NONE], "id", "", "keep", 0, "was", "", "now", "",
			 "made", "left", "disks");
}

enum vm_inventory_job vm_inventory_job(const struct vm_inventory *inventory)
{
	return job_of(inventory->root);
}

bool vm_inventory_keeps(const struct vm_inventory *inventory)
{
	return json_is_true(json_object_get(inventory->root, "keep"));
}

static void id_text(const uint8_t id[MIG_ID_BYTES], char ret_text[2 * MIG_ID_BYTES + 1])
{
	for (size_t i = 0; i < MIG_ID_BYTES; i++)
		(void)snprintf(ret_text + 2 * i, 3, "%02x", id[i]);
}

bool vm_inventory_is_of(const struct vm_inventory *inventory, const uint8_t id[MIG_ID_BYTES])
{
	char text[2 * MIG_ID_BYTES + 1];

	id_text(id, text);
	return strcmp(text, json_string_value(json_object_get(inventory->root, "id"))) == 0;
}

static void set(struct vm_inventory *inventory, const char *key, json_t *value)
{
	if (json_object_set_new(inventory->root, key, value) < 0)
		inventory->failed = true;
}

void vm_inventory_begin(struct vm_inventory *inventory, enum vm_inventory_job job,
			const uint8_t *id, bool keep)
{
	char text[2 * MIG_ID_BYTES + 1] = "";

	if (id != NULL)
		id_text(id, text);
	set(inventory, "job", json_string(job_names[job]));
	set(inventory, "id", json_string(text));
	set(inventory, "keep", json_boolean(keep));
	set(inventory, "was", json_string(""));
	set(inventory, "now", json_string(""));
	set(inventory, "made", json_array());
	set(inventory, "left", json_array());
}

void vm_inventory_add(struct vm_inventory *inventory, bool made, const char *folder,
		      const char *name)
{
	json_t *list = json_object_get(inventory->root, made ? "made" : "left");

	if (json_array_append_new(list, json_pack("{s:s, s:s}", "folder", folder, "name", name)) <
	    0)
		inventory->failed = true;
}

void vm_inventory_paths(struct vm_inventory *inventory, const char *was, const char *now)
{
	set(inventory, "was", json_string(was));
	set(inventory, "now", json_string(now));
}

int vm_inventory_each(const struct vm_inventory *inventory, bool made,
		      int (*each)(void *context, const char *folder, const char *name),
		      void *context)
{
	const json_t *list = json_object_get(inventory->root, made ? "made" : "left");
	int code = 0;

	for (size_t i = 0; code == 0 && i < json_array_size(list); i++) {
		const json_t *file = json_array_get(list, i);

		code = each(context, json_string_value(json_object_get(file, "folder")),
			    json_string_value(json_object_get(file, "name")));
	}
	return code;
}

const char *vm_inventory_where(const struct vm_inventory *inventory, const char *path)
{
	const json_t *disks = json_object_get(inventory->root, "disks");

	for (size_t i = 0; i < json_array_size(disks); i++) {
		const json_t *disk = json_array_get(disks, i);

		if (strcmp(json_string_value(json_object_get(disk, "was")), path) == 0)
			return json_string_value(json_object_get(disk, "now"));
	}
	return NULL;
}

/* What was known of a disk at @now's former places leads to @now as well. */
static void note_moved(struct vm_inventory *inventory)
{
	json_t *disks = json_object_get(inventory->root, "disks");
	const char *was = json_string_value(json_object_get(inventory->root, "was"));
	const char *now = json_string_value(json_object_get(inventory->root, "now"));

	for (size_t i = json_array_size(disks); i-- > 0;) {
		json_t *disk = json_array_get(disks, i);
		const char *from = json_string_value(json_object_get(disk, "was"));

		if (strcmp(from, now) == 0 || strcmp(from, was) == 0)
			(void)json_array_remove(disks, i);
		else if (strcmp(json_string_value(json_object_get(disk, "now")), was) == 0 &&
			 json_object_set_new(disk, "now", json_string(now)) < 0)
			inventory->failed = true;
	}
	if (json_array_append_new(disks, json_pack("{s:s, s:s}", "was", was, "now", now)) < 0)
		inventory->failed = true;
}

/* --- the file --- */

static int read_file(struct vm_inventory *inventory, struct base_error *err)
{
	BASE_CLOSE int fd = openat(inventory->directory_fd, inventory->file,
				   O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	BASE_FREE char *bytes = NULL;
	struct stat status;
	int code = 0;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &status) < 0)
		return base_fail_errno(err, -errno, "'%s'", inventory->file);
	if (!S_ISREG(status.st_mode) || status.st_size <= 0 ||
	    status.st_size > VM_INVENTORY_BYTES_MAX)
		return base_fail(err, -EBADMSG, "'%s': expected a record of images",
				 inventory->file);
	bytes = malloc((size_t)status.st_size);
	if (bytes == NULL)
		return base_fail(err, -ENOMEM, "'%s'", inventory->file);
	code = base_read_all(fd, bytes, (size_t)status.st_size);
	if (code < 0)
		return base_fail_errno(err, code, "'%s'", inventory->file);
	json_decref(inventory->root);
	inventory->root = NULL;
	code = vm_inventory_decode(bytes, (size_t)status.st_size, &inventory->root, err);
	return code < 0 ? base_fail_within(err, code, "'%s'", inventory->file) : 0;
}

int vm_inventory_lock(struct vm_inventory *inventory, struct base_error *err)
{
	BASE_CLOSE int fd = openat(inventory->directory_fd, inventory->file,
				   O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	int code = 0;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return base_fail_errno(err, -errno, "'%s'", inventory->file);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return 0;
	inventory->lock_fd = base_take_fd(&fd);
	code = read_file(inventory, err); /* what it is now */
	return code < 0 ? code : 1;
}

int vm_inventory_load(int directory_fd, const char *name, struct vm_inventory **ret_inventory,
		      struct base_error *err)
{
	struct vm_inventory *inventory = calloc(1, sizeof(*inventory));
	int code = 0;

	if (inventory == NULL)
		return base_fail(err, -ENOMEM, "record of images");
	inventory->directory_fd = directory_fd;
	inventory->lock_fd = -1;
	(void)snprintf(inventory->vm, sizeof(inventory->vm), "%s", name);
	(void)snprintf(inventory->file, sizeof(inventory->file), "%s.images", inventory->vm);
	inventory->root = root_new();
	if (inventory->root == NULL)
		code = base_fail(err, -ENOMEM, "record of images");
	if (code == 0)
		code = read_file(inventory, err);
	if (code < 0) {
		vm_inventory_free(inventory);
		return code;
	}
	*ret_inventory = inventory;
	return 0;
}

void vm_inventory_free(struct vm_inventory *inventory)
{
	if (inventory == NULL)
		return;
	base_closep(&inventory->lock_fd);
	json_decref(inventory->root);
	free(inventory);
}

int vm_inventory_write(struct vm_inventory *inventory, struct base_error *err)
{
	BASE_CLEANUP(base_new_file_abort) struct base_new_file file = { .fd = -1 };
	BASE_FREE char *text = json_dumps(inventory->root, JSON_COMPACT | JSON_SORT_KEYS);
	BASE_CLOSE int lock_fd = -1;
	char head[HEAD_BYTES + 1];
	int code = 0;

	if (text == NULL || inventory->failed)
		return base_fail(err, -ENOMEM, "'%s'", inventory->file);
	(void)snprintf(head, sizeof(head), HEAD "%08" PRIx32 "\n",
		       base_crc32c(0, text, strlen(text)));
	code = base_new_file_begin(inventory->directory_fd, inventory->file, &file, err);
	if (code < 0)
		return base_fail_within(err, code, "record of images");
	code = base_write_all(file.fd, head, HEAD_BYTES);
	if (code == 0)
		code = base_write_all(file.fd, text, strlen(text));
	if (code < 0)
		return base_fail_errno(err, code, "'%s'", inventory->file);
	/* The lock that it has while it is written stays with the copy of the descriptor. */
	lock_fd = fcntl(file.fd, F_DUPFD_CLOEXEC, 0);
	if (lock_fd < 0)
		return base_fail_errno(err, -errno, "'%s'", inventory->file);
	code = base_new_file_commit(&file, err);
	if (code < 0)
		return base_fail_within(err, code, "record of images");
	base_closep(&inventory->lock_fd);
	inventory->lock_fd = base_take_fd(&lock_fd);
	return 0;
}

int vm_inventory_end(struct vm_inventory *inventory, bool moved, struct base_error *err)
{
	int code = 0;

	if (moved)
		note_moved(inventory);
	vm_inventory_begin(inventory, VM_INVENTORY_NONE, NULL, false);
	if (json_array_size(json_object_get(inventory->root, "disks")) > 0)
		code = vm_inventory_write(inventory, err);
	else if (unlinkat(inventory->directory_fd, inventory->file, 0) < 0 && errno != ENOENT)
		code = base_fail_errno(err, -errno, "'%s'", inventory->file);
	else if (fsync(inventory->directory_fd) < 0)
		code = base_fail_errno(err, -errno, "'%s': fsync of its directory",
				       inventory->file);
	base_closep(&inventory->lock_fd);
	return code;
}
