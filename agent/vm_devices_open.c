/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What devices need of the host: I/O threads, and the folders that disks are in.  Opened
 * before the lock-down; what is in a file is read after it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/vm_devices_priv.h"
#include "base/cleanup.h"
#include "hypervisor/disk/local_store.h"

int vm_devices_open_loops(struct vm_devices *devices, struct base_error *err)
{
	uint64_t count = devices->config->io_thread_count;

	if (count == 0)
		count = devices->config->vcpu_count < VM_IO_THREADS_AUTO
				? devices->config->vcpu_count
				: VM_IO_THREADS_AUTO;
	for (uint32_t i = 0; i < (uint32_t)count; i++) {
		struct base_io_loop_options options = { .without_ring = false };
		char name[16];
		int code = base_io_loop_new(&options, &devices->loops[i], err);

		if (code < 0)
			return base_fail_within(err, code, "I/O thread %" PRIu32, i);
		devices->loop_count = i + 1;
		(void)snprintf(name, sizeof(name), "io/%" PRIu32, i);
		code = base_io_loop_start(devices->loops[i], name, err);
		if (code < 0)
			return base_fail_within(err, code, "I/O thread %" PRIu32, i);
	}
	return 0;
}

/* --- stores --- */

/* @path: a folder, without symbolic links. */
static struct vm_store *store_of(struct vm_devices *devices, const char *path)
{
	for (uint32_t i = 0; i < devices->store_count; i++)
		if (strcmp(devices->stores[i].path, path) == 0)
			return &devices->stores[i];
	return NULL;
}

/* @given: the folder as the user wrote it; @path: the same without symbolic links. */
static int store_open_folder(struct vm_devices *devices, const char *given, const char *path,
			     struct base_error *err)
{
	struct vm_store *place = &devices->stores[devices->store_count];
	char holder[STORE_TEXT_BYTES];
	struct local_store_options options = { .holder = holder };
	int code = 0;

	if (store_of(devices, path) != NULL)
		return 0;
	/* There is an element for each disk and each folder that was given. */
	base_assert(devices->store_count < sizeof(devices->stores) / sizeof(devices->stores[0]));
	(void)snprintf(holder, sizeof(holder), "godwit-vm '%s', pid %d", devices->config->name,
		       (int)getpid());
	(void)snprintf(place->path, sizeof(place->path), "%s", path);
	(void)snprintf(place->name, sizeof(place->name), "%s", given);
	place->folder_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (place->folder_fd < 0)
		return base_fail_errno(err, -errno, "'%s'", path);
	devices->store_count++;
	code = local_store_open(path, &options, &place->store, err);
	return code;
}

/* A name in it, without the last part; "." for none. */
static void folder_of(const char *path, char to[VM_PATH_BYTES])
{
	const char *slash = strrchr(path, '/');

	if (slash == NULL)
		(void)snprintf(to, VM_PATH_BYTES, ".");
	else if (slash == path)
		(void)snprintf(to, VM_PATH_BYTES, "/");
	else
		(void)snprintf(to, VM_PATH_BYTES, "%.*s", (int)(slash - path), path);
}

/* A migration brings the image: its folder is there already, and it is the only one. */
static int open_folder_for(struct vm_devices *devices, const char *path, struct vm_place *ret_place,
			   struct base_error *err)
{
	const char *slash = strrchr(path, '/');
	char given[VM_PATH_BYTES];
	BASE_FREE char *real = NULL;
	int code = 0;

	folder_of(path, given);
	real = realpath(given, NULL);
	if (real == NULL)
		return base_fail_errno(err, -errno, "key 'disk': value '%s': folder '%s'", path,
				       given);
	code = store_open_folder(devices, given, real, err);
	if (code < 0)
		return base_fail_within(err, code, "key 'disk': value '%s'", path);
	ret_place->store = store_of(devices, real);
	(void)snprintf(ret_place->name, sizeof(ret_place->name), "%s",
		       slash != NULL ? slash + 1 : path);
	ret_place->comes = true;
	return 0;
}

/* The folder that the file behind @path really is in: its images name each other from there. */
static int open_folder_of(struct vm_devices *devices, const char *path, struct vm_place *ret_place,
			  struct base_error *err)
{
	BASE_FREE char *real = realpath(path, NULL);
	char folder[VM_PATH_BYTES];
	char given[VM_PATH_BYTES];
	struct stat status;
	int code = 0;

	if (real == NULL && errno == ENOENT && devices->config->incoming[0] != '\0')
		return open_folder_for(devices, path, ret_place, err);
	if (real == NULL || stat(real, &status) < 0) {
		code = -errno;
		return base_fail(err, code,
				 "key 'disk': value '%s': %s: expected an image or a block device",
				 path, strerrordesc_np(-code));
	}
	if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
		return base_fail(err, -EINVAL,
				 "key 'disk': value '%s': mode 0%o: expected an image or a block "
				 "device",
				 path, status.st_mode);
	folder_of(real, folder);
	folder_of(path, given);
	code = store_open_folder(devices, given, folder, err);
	if (code < 0)
		return base_fail_within(err, code, "key 'disk': value '%s'", path);
	ret_place->store = store_of(devices, folder);
	(void)snprintf(ret_place->name, sizeof(ret_place->name), "%s", strrchr(real, '/') + 1);
	return 0;
}

int vm_devices_open_stores(struct vm_devices *devices, struct base_error *err)
{
	const struct vm_config *config = devices->config;
	int code = 0;

	for (uint32_t i = 0; code == 0 && i < config->disk_count; i++)
		if (config->disks[i].path[0] != '\0')
			code = open_folder_of(devices, config->disks[i].path, &devices->places[i],
					      err);
	for (uint32_t i = 0; code == 0 && i < config->store_count; i++) {
		BASE_FREE char *real = realpath(config->stores[i], NULL);

		code = real != NULL ? store_open_folder(devices, config->stores[i], real, err)
				    : base_fail_errno(err, -errno, "expected a directory");
		if (code < 0)
			code = base_fail_within(err, code, "key 'store': value '%s'",
						config->stores[i]);
	}
	return code;
}

void vm_devices_close_stores(struct vm_devices *devices)
{
	for (uint32_t i = 0; i < devices->store_count; i++) {
		store_free(devices->stores[i].store);
		base_closep(&devices->stores[i].folder_fd);
	}
	devices->store_count = 0;
}

/* The part of @path below @folder; NULL: it is elsewhere. */
static const char *below(const char *path, const char *folder)
{
	size_t length = strlen(folder);

	if (strcmp(folder, ".") == 0 && path[0] != '/')
		return path;
	if (strcmp(folder, "/") == 0 && path[0] == '/')
		return path + 1;
	return strncmp(path, folder, length) == 0 && path[length] == '/' ? path + length + 1 : NULL;
}

int vm_devices_find(struct vm_devices *devices, const char *path, struct vm_place *ret_place,
		    struct base_error *err)
{
	for (uint32_t i = 0; i < devices->store_count; i++) {
		struct vm_store *store = &devices->stores[i];
		const char *name = below(path, store->path);

		if (name == NULL)
			name = below(path, store->name);
		if (name == NULL || name[0] == '\0' || strlen(name) >= STORE_NAME_BYTES)
			continue;
		(void)snprintf(ret_place->name, sizeof(ret_place->name), "%s", name);
		ret_place->store = store;
		return 0;
	}
	return base_fail(err, -ENOENT,
			 "disk '%s': expected it in a folder of the disks or of the key 'store'",
			 path);
}
