/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/image_create.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int part_name(const char *name, char ret_part[STORE_NAME_BYTES], struct base_error *err)
{
	const char *slash = strrchr(name, '/');
	int folder_bytes = slash == NULL ? 0 : (int)(slash - name + 1);
	int written;

	if (strlen(name) >= STORE_NAME_BYTES)
		return base_fail(err, -ENAMETOOLONG, "name of %zu bytes: at most %d allowed",
				 strlen(name), STORE_NAME_BYTES - 1);
	written = snprintf(ret_part, STORE_NAME_BYTES, "%.*s.%s.part", folder_bytes, name,
			   name + folder_bytes);
	if (written < 0 || written >= STORE_NAME_BYTES)
		return base_fail(err, -ENAMETOOLONG, "'%s': no room for a temporary name beside it",
				 name);
	return 0;
}

static int must_not_exist(struct store *store, const char *name, struct base_io_loop *loop,
			  struct base_error *err)
{
	const struct store_open_options options = { .loop = loop,
						    .read_only = true,
						    .align_bytes = 512 };
	struct store_file *file = NULL;
	int code = store_open(store, name, &options, &file, err);

	if (code == -ENOENT) {
		if (err != NULL)
			*err = (struct base_error){ 0 };
		return 0;
	}
	if (code == 0)
		code = base_fail(err, -EEXIST, "'%s' exists already", name);
	store_close(file);
	return code;
}

/* The temporary file is there already: remove it unless somebody is at work on it. */
static int remove_stale(struct store *store, const char *part, struct base_error *err)
{
	struct store_lease lease = { 0 };
	int code = store_lease(store, part, &lease, err);

	if (code < 0)
		return code;
	if (lease.held)
		return base_fail(err, -EBUSY, "'%s' is being made by %s", part, lease.holder);
	return store_remove(store, part, err);
}

int image_create_begin(struct store *store, const char *name, struct base_io_loop *loop,
		       struct image_create *ret_create, struct base_error *err)
{
	const struct store_open_options options = { .loop = loop,
						    .create = true,
						    .align_bytes = 512 };
	struct image_create create = { .store = store, .name = name };
	uint64_t epoch;
	int code;

	*ret_create = (struct image_create){ 0 };
	code = part_name(name, create.part, err);
	if (code == 0)
		code = must_not_exist(store, name, loop, err);
	if (code < 0)
		return code;
	code = store_open(store, create.part, &options, &create.file, err);
	if (code == -EEXIST) {
		code = remove_stale(store, create.part, err);
		if (code == 0)
			code = store_open(store, create.part, &options, &create.file, err);
	}
	if (code < 0)
		return code;
	*ret_create = create;
	code = store_acquire(create.file, STORE_EPOCH_NONE, NULL, &epoch, err);
	/* Again, now that only one can be making it: another may just have made it. */
	if (code == 0)
		code = must_not_exist(store, name, loop, err);
	if (code < 0)
		image_create_abort(ret_create);
	return code;
}

/* After a failure, which is the one to tell; the next attempt removes what stays. */
static void clear_away(struct store *store, const char *name)
{
	int unheard = store_remove(store, name, NULL);

	(void)unheard;
}

int image_create_commit(struct image_create *create, struct base_error *err)
{
	int code = store_do(create->file, STORE_FLUSH, 0, NULL, 0, err);

	if (code < 0) {
		image_create_abort(create);
		return base_fail_within(err, code, "making '%s'", create->name);
	}
	/* It is renamed while it is ours: given back before, another who makes the same image
	 * could put a file of theirs, half made, in its place. */
	code = store_rename(create->store, create->part, create->name, err);
	if (code < 0) {
		image_create_abort(create);
		return base_fail_within(err, code, "making '%s'", create->name);
	}
	/* The name is durable before it counts; after a failed sync a whole image is under it,
	 * which is taken away again. */
	code = store_sync_folder(create->store, create->name, err);
	store_close(create->file);
	create->file = NULL;
	if (code < 0) {
		if (code != -ETIMEDOUT)
			clear_away(create->store, create->name);
		return base_fail_within(err, code, "making '%s'", create->name);
	}
	return 0;
}

void image_create_abort(struct image_create *create)
{
	if (create->file == NULL)
		return;
	store_close(create->file);
	create->file = NULL;
	clear_away(create->store, create->part);
}
