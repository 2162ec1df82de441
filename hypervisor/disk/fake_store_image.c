/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/fake_store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

/* --- names --- */

size_t fake_folder_length(const char *name)
{
	const char *last = strrchr(name, '/');

	return last == NULL ? 0 : (size_t)(last - name);
}

/* Position of the first name that is @name or comes after it. */
static uint32_t names_at(const struct fake_names *names, const char *name)
{
	uint32_t position = 0;

	while (position < names->count && strcmp(names->names[position]->name, name) < 0)
		position++;
	return position;
}

static bool names_match(const struct fake_names *names, uint32_t position, const char *name)
{
	return position < names->count && strcmp(names->names[position]->name, name) == 0;
}

struct fake_content *fake_names_find(const struct fake_names *names, const char *name)
{
	uint32_t position = names_at(names, name);

	return names_match(names, position, name) ? names->names[position]->content : NULL;
}

static void names_take_out(struct fake_names *names, uint32_t position)
{
	fake_content_unref(names->names[position]->content);
	free(names->names[position]);
	names->count--;
	memmove(names->names + position, names->names + position + 1,
		(names->count - position) * sizeof(struct fake_name *));
}

int fake_names_set(struct fake_names *names, const char *name, struct fake_content *content)
{
	uint32_t position = names_at(names, name);
	struct fake_name *made;

	if (names_match(names, position, name)) {
		if (content == NULL) {
			names_take_out(names, position);
			return 0;
		}
		fake_content_ref(content);
		fake_content_unref(names->names[position]->content);
		names->names[position]->content = content;
		return 0;
	}
	if (content == NULL)
		return 0;
	if (names->count == names->capacity) {
		uint32_t capacity = names->capacity * 2 + 8;
		struct fake_name **larger =
			realloc(names->names, capacity * sizeof(struct fake_name *));

		if (larger == NULL)
			return -ENOMEM;
		names->names = larger;
		names->capacity = capacity;
	}
	made = calloc(1, sizeof(*made));
	if (made == NULL)
		return -ENOMEM;
	(void)snprintf(made->name, sizeof(made->name), "%s", name);
	made->content = fake_content_ref(content);
	memmove(names->names + position + 1, names->names + position,
		(names->count - position) * sizeof(struct fake_name *));
	names->names[position] = made;
	names->count++;
	return 0;
}

void fake_names_fini(struct fake_names *names)
{
	while (names->count > 0)
		names_take_out(names, names->count - 1);
	free(names->names);
	*names = (struct fake_names){ .count = 0 };
}

/* --- behind everybody's back --- */

bool fake_store_peek(const struct store *store, const char *name, uint64_t offset_bytes, void *to,
		     uint64_t length_bytes)
{
	const struct fake_content *content = fake_names_find(&fake_of_const(store)->names, name);

	if (content == NULL)
		return false;
	fake_content_read(content, offset_bytes, to, length_bytes);
	return true;
}

bool fake_store_poke(struct store *store, const char *name, uint64_t offset_bytes, const void *from,
		     uint64_t length_bytes)
{
	struct fake_content *content = fake_names_find(&fake_of(store)->names, name);

	return content != NULL &&
	       fake_content_write(content, offset_bytes, from, length_bytes) == 0;
}

bool fake_store_file_bytes(const struct store *store, const char *name, uint64_t *ret_bytes)
{
	const struct fake_content *content = fake_names_find(&fake_of_const(store)->names, name);

	if (content == NULL)
		return false;
	*ret_bytes = content->size_bytes;
	return true;
}

static void fake_store_drop(struct fake_store *fake)
{
	if (fake != NULL)
		store_free(&fake->store);
}

BASE_DEFINE_FREEP(struct fake_store, fake_store_drop);

int fake_store_clone(const struct store *store, struct store **ret_store, struct base_error *err)
{
	const struct fake_store *from = fake_of_const(store);
	BASE_CLEANUP(fake_store_dropp) struct fake_store *fake = fake_store_make();

	if (fake == NULL)
		return base_fail(err, -ENOMEM, "clone of a fake store");
	fake->next_id = from->next_id;
	for (uint32_t i = 0; i < from->names.count; i++) {
		BASE_CLEANUP(fake_content_unrefp)
		struct fake_content *copy = fake_content_clone(from->names.names[i]->content);

		if (copy == NULL ||
		    fake_names_set(&fake->names, from->names.names[i]->name, copy) < 0)
			return base_fail(err, -ENOMEM, "clone of a fake store");
	}
	*ret_store = &base_take(&fake)->store;
	return 0;
}

/* --- the host's files --- */

/* Copy one run of data, from the host's file to @content. */
static int import_run(int fd, struct fake_content *content, uint64_t offset_bytes,
		      uint64_t length_bytes)
{
	BASE_FREE uint8_t *buffer = malloc(FAKE_PIECE_BYTES);

	if (buffer == NULL)
		return -ENOMEM;
	while (length_bytes > 0) {
		uint64_t part = length_bytes < FAKE_PIECE_BYTES ? length_bytes : FAKE_PIECE_BYTES;
		int code = base_pread_all(fd, buffer, part, offset_bytes);

		if (code == 0)
			code = fake_content_write(content, offset_bytes, buffer, part);
		if (code < 0)
			return code;
		offset_bytes += part;
		length_bytes -= part;
	}
	return 0;
}

static int import_data(int fd, struct fake_content *content)
{
	off_t at = 0;

	for (;;) {
		off_t data = lseek(fd, at, SEEK_DATA);
		off_t hole;
		int code;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		code = import_run(fd, content, (uint64_t)data, (uint64_t)(hole - data));
		if (code < 0)
			return code;
		at = hole;
	}
}

int fake_store_import(struct store *store, const char *name, const char *path,
		      struct base_error *err)
{
	struct fake_store *fake = fake_of(store);
	BASE_CLEANUP(fake_content_unrefp) struct fake_content *content = NULL;
	BASE_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat facts;
	int code;

	if (fd < 0 || fstat(fd, &facts) < 0)
		return base_fail_errno(err, -errno, "import '%s'", path);
	content = fake_content_new(fake->next_id + 1);
	if (content == NULL)
		return base_fail(err, -ENOMEM, "import '%s'", path);
	code = import_data(fd, content);
	if (code == 0)
		code = fake_content_truncate(content, (uint64_t)facts.st_size);
	if (code == 0)
		code = fake_names_set(&fake->names, name, content);
	if (code < 0)
		return base_fail_errno(err, code, "import '%s'", path);
	fake->next_id++;
	return 0;
}

int fake_store_export(const struct store *store, const char *name, const char *path,
		      struct base_error *err)
{
	const struct fake_content *content = fake_names_find(&fake_of_const(store)->names, name);
	BASE_CLOSE int fd = -EBADF;

	if (content == NULL)
		return base_fail(err, -ENOENT, "export '%s': it is not there", name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)content->size_bytes) < 0)
		return base_fail_errno(err, -errno, "export '%s' to '%s'", name, path);
	for (uint32_t i = 0; i < content->slot_count; i++) {
		const struct fake_slot *slot = &content->slots[i];
		uint64_t offset_bytes = slot->index * FAKE_PIECE_BYTES;
		uint64_t part = FAKE_PIECE_BYTES;
		int code;

		if (slot->piece == NULL || offset_bytes >= content->size_bytes)
			continue;
		if (part > content->size_bytes - offset_bytes)
			part = content->size_bytes - offset_bytes;
		code = base_pwrite_all(fd, slot->piece->data, part, offset_bytes);
		if (code < 0)
			return base_fail_errno(err, code, "export '%s' to '%s'", name, path);
	}
	return 0;
}
