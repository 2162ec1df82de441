/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local store: its folder, names in it, and opening files.
 *
 * A name is followed to the folder it is in, which stays open as long as the file; nothing
 * below the store's root may lead out of it, also not over symbolic links.
 */
#include "hypervisor/disk/local_store.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hypervisor/disk/local_store_priv.h"

#define THREADS_DEFAULT 4
#define LINKS_MAX       16 /* as symbolic links go, a loop */
#define FOLDER_TRIES    16 /* something is renamed below the root while a path is walked */
#define FILE_MODE       0600
#define OPEN_FLAGS      (O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)

/* --- names --- */

/* Part by part, for kernels and filters without openat2(): no symbolic links at all. */
static int folder_walk(int root_fd, const char *path)
{
	BASE_CLOSE int fd = openat(root_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char part[LOCAL_LEAF_BYTES];

	while (fd >= 0 && *path != '\0') {
		size_t length = strcspn(path, "/");
		int next = -1;

		if (length >= sizeof(part))
			return -ENAMETOOLONG;
		memcpy(part, path, length);
		part[length] = '\0';
		next = openat(fd, part, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (next < 0)
			return -errno;
		(void)close(fd);
		fd = next;
		path += length;
		path += *path == '/';
	}
	return fd < 0 ? -errno : base_take_fd(&fd);
}

/* The folder @path below the root, "" the root itself: a descriptor (O_PATH) or -errno. */
static int folder_open(const struct local_store *store, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_NO_MAGICLINKS | (store->is_root ? 0 : RESOLVE_BENEATH),
	};
	long fd = -EAGAIN;

	for (int i = 0; i < FOLDER_TRIES && fd == -EAGAIN; i++) {
		fd = syscall(SYS_openat2, store->root_fd, path[0] == '\0' ? "." : path, &how,
			     sizeof(how));
		if (fd < 0)
			fd = -errno;
	}
	if (fd == -ENOSYS || fd == -EPERM)
		return folder_walk(store->root_fd, path);
	return (int)fd;
}

/* @name in its folder, without looking at what it is. */
static int place_open(struct local_store *store, const char *name, struct local_place *ret_place,
		      struct base_error *err)
{
	struct local_place place = { .folder_fd = -1 };
	const char *slash = strrchr(name, '/');
	const char *leaf = slash == NULL ? name : slash + 1;
	char folder[STORE_NAME_BYTES] = "";

	if (strlen(leaf) >= sizeof(place.leaf))
		return base_fail(err, -EINVAL, "'%s': its last part has more than %zu bytes", name,
				 sizeof(place.leaf) - 1);
	memcpy(place.leaf, leaf, strlen(leaf) + 1);
	if (slash != NULL)
		memcpy(folder, name, (size_t)(slash - name));
	place.folder_fd = folder_open(store, folder);
	if (place.folder_fd == -EXDEV)
		return base_fail(err, -EINVAL, "'%s' leads outside of the store", name);
	if (place.folder_fd < 0)
		return base_fail_errno(err, place.folder_fd, "'%s'", name);
	*ret_place = place;
	return 0;
}

int local_place_open(struct local_store *store, const char *name, bool follow,
		     struct local_place *ret_place, struct base_error *err)
{
	char path[STORE_NAME_BYTES];

	(void)snprintf(path, sizeof(path), "%s", name);
	for (int i = 0; i < LINKS_MAX; i++) {
		struct local_place place = { .folder_fd = -1 };
		char target[STORE_NAME_BYTES];
		ssize_t length = -1;
		int code = place_open(store, path, &place, err);

		if (code < 0)
			return code;
		if (follow)
			length =
				readlinkat(place.folder_fd, place.leaf, target, sizeof(target) - 1);
		if (length < 0) { /* no link, or not there: for the caller to find out */
			*ret_place = place;
			return 0;
		}
		local_place_close(&place);
		target[length] = '\0';
		if (target[0] == '/' && !store->is_root)
			return base_fail(err, -EINVAL, "'%s' leads outside of the store, to '%s'",
					 name, target);
		code = store_resolve(path, target, path, err);
		if (code < 0)
			return base_fail_within(err, -EINVAL, "'%s'", name);
	}
	return base_fail(err, -EINVAL, "'%s': more than %d symbolic links", name, LINKS_MAX);
}

void local_place_close(struct local_place *place)
{
	base_closep(&place->folder_fd);
	place->folder_fd = -1;
}

/* --- files --- */

int local_fd_size(int fd, const struct stat *status, uint64_t *ret_bytes)
{
	if (S_ISDIR(status->st_mode))
		return -EISDIR;
	if (S_ISREG(status->st_mode)) {
		*ret_bytes = (uint64_t)status->st_size;
		return 0;
	}
	if (!S_ISBLK(status->st_mode))
		return -EINVAL;
	return ioctl(fd, BLKGETSIZE64, ret_bytes) < 0 ? -errno : 0;
}

/* For writing if that may be; else for reading, and why. */
static int file_open_fd(struct local_file *file, bool create, bool read_only)
{
	const struct local_place *place = &file->place;
	int flags = OPEN_FLAGS | (create ? O_CREAT | O_EXCL : 0);
	int code = -EROFS;

	if (!read_only) {
		file->fd = openat(place->folder_fd, place->leaf, flags | O_RDWR, FILE_MODE);
		if (file->fd >= 0)
			return 0;
		code = -errno;
		if (create ||
		    (code != -EACCES && code != -EPERM && code != -EROFS && code != -ETXTBSY))
			return code;
	}
	file->fd = openat(place->folder_fd, place->leaf, OPEN_FLAGS | O_RDONLY);
	if (file->fd < 0)
		return -errno;
	file->common.read_only = true;
	(void)snprintf(file->common.read_only_why, sizeof(file->common.read_only_why), "%s",
		       read_only ? "it was opened for reading" : strerrordesc_np(-code));
	return 0;
}

/* Why I/O cannot be direct; NULL when it can, which *@file then says. */
static const char *direct_refused(struct local_file *file, uint32_t align_bytes)
{
	uint32_t offset_align = 512; /* when nobody says: a refusal later is handled then */
	uint32_t memory_align = 4096;
	struct statx status;

	if (file->store->buffered)
		return "buffered: as configured";
#ifdef STATX_DIOALIGN
	if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
	    (status.stx_mask & STATX_DIOALIGN) != 0) {
		offset_align = status.stx_dio_offset_align;
		memory_align = status.stx_dio_mem_align;
	}
#else
	(void)status;
#endif
	if (offset_align == 0)
		return "buffered: the file system has no direct I/O";
	if (align_bytes % offset_align != 0)
		return "buffered: direct I/O wants larger sectors than the image has";
	file->common.align_bytes = offset_align < 512 ? 512 : offset_align;
	file->memory_align = memory_align;
	return NULL;
}

/* Flags that opening could not set, or needed only then. */
static int file_set_flags(struct local_file *file, uint32_t align_bytes)
{
	const char *refused = direct_refused(file, align_bytes);
	int flags = fcntl(file->fd, F_GETFL);

	if (flags < 0)
		return -errno;
	flags &= ~O_NONBLOCK; /* was for what is no file; the ring would take it seriously */
	if (refused == NULL && fcntl(file->fd, F_SETFL, flags | O_DIRECT) == 0) {
		file->direct = true;
		return 0;
	}
	if (refused == NULL)
		refused = "buffered: the file system refuses direct I/O";
	file->common.align_bytes = 512;
	(void)snprintf(file->common.reason, sizeof(file->common.reason), "%s", refused);
	return fcntl(file->fd, F_SETFL, flags) < 0 ? -errno : 0;
}

static void file_close(struct store_file *common)
{
	struct local_file *file = local_file_of(common);

	base_assert(file->pooled == 0 && file->pool_head == NULL);
	base_closep(&file->fd);
	local_place_close(&file->place);
	free(file);
}

static void file_freep(struct local_file **file)
{
	if (*file != NULL)
		file_close(&(*file)->common);
}

static const struct store_file_ops file_ops = {
	.submit = local_file_submit,
	.acquire = local_acquire,
	.release = local_release,
	.close = file_close,
};

static int file_open(struct store *store, const char *name,
		     const struct store_open_options *options, struct store_file **ret_file,
		     struct base_error *err)
{
	BASE_CLEANUP(file_freep) struct local_file *file = calloc(1, sizeof(*file));
	struct stat status;
	int code = 0;

	if (file == NULL)
		return base_fail(err, -ENOMEM, "'%s': no memory", name);
	file->common.ops = &file_ops;
	file->store = local_store_of(store);
	file->fd = -1;
	file->place.folder_fd = -1;
	file->pool_timer.expired = local_pool_look;
	file->memory_align = 1;
	file->sync_all = options->create;
	file->common.max_inflight_ms = STORE_MS_UNBOUNDED;
	code = local_place_open(file->store, name, !options->create, &file->place, err);
	if (code < 0)
		return code;
	code = file_open_fd(file, options->create, options->read_only);
	if (code == -ELOOP)
		code = -ENOENT; /* a link since it was looked at */
	if (code < 0)
		return base_fail_errno(err, code, "'%s'", name);
	if (fstat(file->fd, &status) < 0)
		return base_fail_errno(err, -errno, "'%s'", name);
	file->device = status.st_dev;
	file->inode = status.st_ino;
	file->is_block = S_ISBLK(status.st_mode);
	code = local_fd_size(file->fd, &status, &file->common.size_bytes);
	if (code == -EINVAL)
		return base_fail(err, code, "'%s' is neither a file nor a block device", name);
	if (code == 0)
		code = file_set_flags(file, options->align_bytes);
	if (code < 0)
		return base_fail_errno(err, code, "'%s'", name);
	*ret_file = &base_take(&file)->common;
	return 0;
}

/* --- the store --- */

static void closedirp(DIR **list)
{
	if (*list != NULL)
		(void)closedir(*list);
}

static int list_folder(struct store *common, const char *folder,
		       int (*each)(void *context, const char *name, uint64_t size_bytes),
		       void *context, struct base_error *err)
{
	BASE_CLEANUP(closedirp) DIR *list = NULL;
	BASE_CLOSE int path_fd = folder_open(local_store_of(common), folder);
	BASE_CLOSE int fd = -1;
	const struct dirent *entry = NULL;

	if (path_fd == -EXDEV)
		return base_fail(err, -EINVAL, "'%s' leads outside of the store", folder);
	if (path_fd < 0)
		return base_fail_errno(err, path_fd, "folder '%s'", folder);
	fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	list = fd < 0 ? NULL : fdopendir(fd);
	if (list == NULL)
		return base_fail_errno(err, -errno, "folder '%s'", folder);
	(void)base_take_fd(&fd); /* the stream's */
	for (;;) {
		struct stat status;
		uint64_t size_bytes = 0;

		errno = 0;
		entry = readdir(list); /* NOLINT(concurrency-mt-unsafe): our own list */
		if (entry == NULL)
			break;
		if (entry->d_name[0] == '.' || fstatat(path_fd, entry->d_name, &status, 0) < 0)
			continue; /* ours, or gone meanwhile */
		if (!S_ISREG(status.st_mode))
			continue;
		size_bytes = (uint64_t)status.st_size;
		if (each(context, entry->d_name, size_bytes) != 0)
			return 0;
	}
	return errno == 0 ? 0 : base_fail_errno(err, -errno, "folder '%s'", folder);
}

static int rename_places(const struct local_place *from, const struct local_place *to,
			 struct base_error *err)
{
	BASE_CLOSE int to_fd = -1;
	int code = local_place_lock(to, &to_fd, err);

	if (code < 0)
		return base_fail_within(err, code, "rename '%s' over '%s'", from->leaf, to->leaf);
	/* The record first: in whatever order a crash leaves it, no old epoch gets in. */
	code = local_record_copy(from, to, err);
	if (code < 0)
		return code;
	if (renameat(from->folder_fd, from->leaf, to->folder_fd, to->leaf) < 0)
		return base_fail_errno(err, -errno, "rename '%s' to '%s'", from->leaf, to->leaf);
	/* Two names of one file stay as they are, and the record with each. */
	if (faccessat(from->folder_fd, from->leaf, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	return local_record_remove(from, err);
}

static int rename_file(struct store *common, const char *from, const char *to,
		       struct base_error *err)
{
	struct local_store *store = local_store_of(common);
	struct local_place from_place = { .folder_fd = -1 };
	struct local_place to_place = { .folder_fd = -1 };
	int code = 0;

	if (strcmp(from, to) == 0)
		return 0; /* its record must not be removed */
	code = local_place_open(store, from, false, &from_place, err);
	if (code == 0)
		code = local_place_open(store, to, false, &to_place, err);
	if (code == 0)
		code = rename_places(&from_place, &to_place, err);
	local_place_close(&from_place);
	local_place_close(&to_place);
	return code;
}

static int remove_file(struct store *common, const char *name, struct base_error *err)
{
	struct local_place place = { .folder_fd = -1 };
	BASE_CLOSE int fd = -1;
	int code = local_place_open(local_store_of(common), name, false, &place, err);

	if (code < 0)
		return code;
	code = local_place_lock(&place, &fd, err);
	if (code < 0)
		code = base_fail_within(err, code, "remove '%s'", name);
	else if (unlinkat(place.folder_fd, place.leaf, 0) < 0)
		code = base_fail_errno(err, -errno, "remove '%s'", name);
	else
		code = local_record_remove(&place, err);
	local_place_close(&place);
	return code;
}

static int sync_folder(struct store *common, const char *name, struct base_error *err)
{
	struct local_place place = { .folder_fd = -1 };
	BASE_CLOSE int fd = -1;
	int code = local_place_open(local_store_of(common), name, false, &place, err);

	if (code < 0)
		return code;
	fd = openat(place.folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		code = base_fail_errno(err, -errno, "folder of '%s'", name);
	else if (fsync(fd) < 0)
		code = base_fail(err, -ETIMEDOUT,
				 "'%s' is in place, but not known to be durable: fsync of its "
				 "folder: %s",
				 name, strerrordesc_np(errno));
	local_place_close(&place);
	return code;
}

static int free_space(struct store *common, uint64_t *ret_bytes, struct base_error *err)
{
	struct statvfs status;

	if (fstatvfs(local_store_of(common)->root_fd, &status) < 0)
		return base_fail_errno(err, -errno, "free space");
	*ret_bytes = (uint64_t)status.f_bavail * status.f_frsize;
	return 0;
}

static void store_end(struct store *common)
{
	struct local_store *store = local_store_of(common);

	base_pool_free(store->pool);
	if (store->zeros != NULL)
		(void)munmap(store->zeros, LOCAL_ZEROS_BYTES);
	base_closep(&store->root_fd);
	free(store);
}

static void local_store_freep(struct local_store **store)
{
	if (*store != NULL)
		store_end(&(*store)->common);
}

static const struct store_ops store_ops = {
	.open = file_open,
	.list = list_folder,
	.rename = rename_file,
	.remove = remove_file,
	.sync_folder = sync_folder,
	.free_space = free_space,
	.lease = local_lease_query,
	.free = store_end,
};

/* One printable line, as a record wants it. */
static void holder_set(struct local_store *store, const char *holder)
{
	if (holder != NULL)
		(void)snprintf(store->holder, sizeof(store->holder), "%s", holder);
	else
		(void)snprintf(store->holder, sizeof(store->holder), "%s, pid %d",
			       program_invocation_short_name, getpid());
	for (char *c = store->holder; *c != '\0'; c++)
		if (iscntrl((unsigned char)*c) != 0)
			*c = '?';
}

int local_store_open(const char *folder, const struct local_store_options *options,
		     struct store **ret_store, struct base_error *err)
{
	BASE_CLEANUP(local_store_freep) struct local_store *store = calloc(1, sizeof(*store));
	struct local_store_options defaults = { .thread_count = 0 };
	int code = 0;

	if (options == NULL)
		options = &defaults;
	if (store == NULL)
		return base_fail(err, -ENOMEM, "store '%s': no memory", folder);
	store->common.ops = &store_ops;
	store->is_root = strcmp(folder, "/") == 0;
	store->buffered = options->buffered;
	holder_set(store, options->holder);
	store->root_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (store->root_fd < 0)
		return base_fail_errno(err, -errno, "store '%s'", folder);
	store->zeros = mmap(NULL, LOCAL_ZEROS_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (store->zeros == MAP_FAILED) {
		store->zeros = NULL;
		return base_fail(err, -ENOMEM, "store '%s': no memory", folder);
	}
	code = base_pool_new(options->thread_count == 0 ? THREADS_DEFAULT : options->thread_count,
			     "disk-io", &store->pool, err);
	if (code < 0)
		return base_fail_within(err, code, "store '%s'", folder);
	*ret_store = &base_take(&store)->common;
	return 0;
}
