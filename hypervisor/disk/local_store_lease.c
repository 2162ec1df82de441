/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owners of local files: a lock over the whole file that ends with the process that has it, and
 * a record of the newest epoch beside the file.
 *
 * The lock is an open file description's, so it also excludes who locks single bytes (qemu).  It
 * decides who holds the file now; the record decides which epochs are stale, for ever.  The
 * record is written only under the lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "hypervisor/disk/local_store_priv.h"

#define RECORD_SUFFIX ".lease"
#define RECORD_MODE   0600

/* --- the record --- */

struct record_name {
	char now[LOCAL_LEAF_BYTES + sizeof("." RECORD_SUFFIX)];
	char next[LOCAL_LEAF_BYTES + sizeof("." RECORD_SUFFIX ".new")];
};

static void record_name(const struct local_place *place, struct record_name *ret_name)
{
	(void)snprintf(ret_name->now, sizeof(ret_name->now), ".%s" RECORD_SUFFIX, place->leaf);
	(void)snprintf(ret_name->next, sizeof(ret_name->next), ".%s" RECORD_SUFFIX ".new",
		       place->leaf);
}

static int record_load(const struct local_place *place, const char *name, char *to,
		       size_t *ret_bytes)
{
	BASE_CLOSE int fd = openat(place->folder_fd, name,
				   O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	size_t got_bytes = 0;

	if (fd < 0)
		return -errno;
	while (got_bytes < LOCAL_LEASE_BYTES) {
		ssize_t got = read(fd, to + got_bytes, LOCAL_LEASE_BYTES - got_bytes);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		got_bytes += (size_t)got;
	}
	*ret_bytes = got_bytes;
	return 0;
}

int local_record_read(const struct local_place *place, struct store_lease *ret_lease,
		      struct base_error *err)
{
	struct record_name name;
	char text[LOCAL_LEASE_BYTES];
	size_t text_bytes = 0;
	int code = 0;

	record_name(place, &name);
	code = record_load(place, name.now, text, &text_bytes);
	if (code == -ENOENT || code == -ENAMETOOLONG) { /* too long: none can have been written */
		*ret_lease = (struct store_lease){ .epoch = STORE_EPOCH_NONE };
		return 0;
	}
	if (code < 0)
		return base_fail_errno(err, code, "lease record '%s'", name.now);
	code = local_lease_decode(text, text_bytes, ret_lease, err);
	return code < 0 ? base_fail_within(err, code, "'%s'", name.now) : 0;
}

static int folder_sync(int folder_fd)
{
	BASE_CLOSE int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

/* The new text under its temporary name, durable.  What has that name is left from a crash, or
 * somebody put it there; it may be a link to another file, so it is not written to. */
static int record_prepare(const struct local_place *place, const char *name, const char *text,
			  size_t text_bytes)
{
	BASE_CLOSE int fd = -1;
	int code = 0;

	(void)unlinkat(place->folder_fd, name, 0);
	fd = openat(place->folder_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		    RECORD_MODE);
	if (fd < 0)
		return -errno;
	code = base_write_all(fd, text, text_bytes);
	if (code == 0 && fsync(fd) < 0)
		code = -errno;
	return code;
}

static int record_write(const struct local_place *place, const struct store_lease *lease,
			struct base_error *err)
{
	struct record_name name;
	char text[LOCAL_LEASE_BYTES];
	size_t text_bytes = local_lease_encode(lease, text);
	int code = 0;

	record_name(place, &name);
	code = record_prepare(place, name.next, text, text_bytes);
	if (code == 0 && renameat(place->folder_fd, name.next, place->folder_fd, name.now) < 0)
		code = -errno;
	if (code < 0) {
		(void)unlinkat(place->folder_fd, name.next, 0);
		if (code == -EACCES || code == -EPERM)
			code = -EROFS;
		if (code == -EDQUOT)
			code = -ENOSPC;
		return base_fail_errno(err, code == -ETIMEDOUT ? -EIO : code,
				       "lease record '%s': write", name.now);
	}
	code = folder_sync(place->folder_fd);
	if (code < 0)
		return base_fail(err, -ETIMEDOUT,
				 "lease record '%s' is written, but not known to be durable: %s",
				 name.now, strerrordesc_np(-code));
	return 0;
}

int local_record_remove(const struct local_place *place, struct base_error *err)
{
	struct record_name name;

	record_name(place, &name);
	if (unlinkat(place->folder_fd, name.now, 0) < 0 && errno != ENOENT && errno != ENAMETOOLONG)
		return base_fail_errno(err, -errno, "remove lease record '%s'", name.now);
	return 0;
}

int local_record_copy(const struct local_place *from, const struct local_place *to,
		      struct base_error *err)
{
	struct store_lease lease = { .epoch = STORE_EPOCH_NONE };
	struct store_lease other = { .epoch = STORE_EPOCH_NONE };
	int code = local_record_read(from, &lease, err);

	if (code == 0)
		code = local_record_read(to, &other, err);
	if (code < 0 || lease.epoch <= other.epoch)
		return code;
	return record_write(to, &lease, err);
}

/* --- the lock --- */

static struct flock whole_file(short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET }; /* 0 bytes: to the end */
}

static int lock_take(int fd)
{
	struct flock lock = whole_file(F_WRLCK);

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

static void lock_drop(const struct local_file *file)
{
	struct flock lock = whole_file(F_UNLCK);

	(void)fcntl(file->fd, F_OFD_SETLK, &lock);
}

static int fail_busy(const struct local_place *place, dev_t device, ino_t inode,
		     struct base_error *err)
{
	struct store_lease lease = { .epoch = STORE_EPOCH_NONE };
	char who[STORE_TEXT_BYTES] = "a process that cannot be seen from here";

	(void)local_holder_find(device, inode, who, sizeof(who));
	if (local_record_read(place, &lease, NULL) == 0 && lease.held)
		return base_fail(err, -EBUSY, "locked by %s; recorded owner: %s, epoch %" PRIu64,
				 who, lease.holder, lease.epoch);
	return base_fail(err, -EBUSY, "locked by %s", who);
}

int local_place_lock(const struct local_place *place, int *ret_fd, struct base_error *err)
{
	BASE_CLOSE int fd = openat(place->folder_fd, place->leaf,
				   O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat status;

	*ret_fd = -1;
	if (fd < 0 || fstat(fd, &status) < 0)
		return 0; /* not there, a folder, a link, not ours to write: nobody's disk */
	if (lock_take(fd) == -EBUSY)
		return fail_busy(place, status.st_dev, status.st_ino, err);
	*ret_fd = base_take_fd(&fd);
	return 0;
}

/* The name must still be that of what is open: its record would be another file's otherwise. */
static int check_name(const struct local_file *file, struct base_error *err)
{
	struct stat status;

	if (fstatat(file->place.folder_fd, file->place.leaf, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
	    status.st_dev == file->device && status.st_ino == file->inode)
		return 0;
	return base_fail(err, -ENOENT, "it was renamed, removed or replaced since it was opened");
}

static int size_again(struct local_file *file, struct base_error *err)
{
	struct stat status;
	int code = 0;

	if (fstat(file->fd, &status) < 0)
		return base_fail_errno(err, -errno, "stat");
	code = local_fd_size(file->fd, &status, &file->common.size_bytes);
	return code < 0 ? base_fail_errno(err, code, "size") : 0;
}

/* Under the lock: which epoch it is, recorded. */
static int epoch_take(struct local_file *file, uint64_t epoch, uint64_t *ret_epoch,
		      struct base_error *err)
{
	struct store_lease lease = { .epoch = STORE_EPOCH_NONE };
	int code = local_record_read(&file->place, &lease, err);

	if (code < 0)
		return code;
	if (epoch == STORE_EPOCH_NONE)
		epoch = lease.epoch;
#ifndef GODWIT_MUTANT_STORE_EPOCH
	if (epoch < lease.epoch)
		return base_fail(err, -ESTALE,
				 "epoch %" PRIu64 " is stale: %" PRIu64 " was granted", epoch,
				 lease.epoch);
#endif
	*ret_epoch = epoch;
	if (epoch == STORE_EPOCH_NONE)
		return 0;
	/* A record that says "held" under our lock is of somebody who died: it is ours now. */
	lease = (struct store_lease){ .epoch = epoch, .held = true };
	memcpy(lease.holder, file->store->holder, sizeof(lease.holder));
	return record_write(&file->place, &lease, err);
}

int local_acquire(struct store_file *common, uint64_t epoch, const struct store_proof *proof,
		  uint64_t *ret_epoch, struct base_error *err)
{
	struct local_file *file = local_file_of(common);
	uint64_t granted = STORE_EPOCH_NONE;
	int code = 0;

	(void)proof; /* on one host the lock knows whether the holder lives */
	code = lock_take(file->fd);
	if (code == -EBUSY)
		return fail_busy(&file->place, file->device, file->inode, err);
	if (code < 0)
		return base_fail_errno(err, code, "lock");
	code = check_name(file, err);
	if (code == 0)
		code = epoch_take(file, epoch, &granted, err);
	if (code == 0)
		code = size_again(file, err);
	if (code < 0) {
		lock_drop(file); /* safety: nothing was written at this epoch */
		return code;
	}
	file->held_epoch = granted;
	*ret_epoch = granted;
	return 0;
}

int local_release(struct store_file *common, struct base_error *err)
{
	struct local_file *file = local_file_of(common);
	struct store_lease lease = { .epoch = file->held_epoch };
	int code = 0;

	/* Renamed since: the record went along, and is another place's to change. */
	if (lease.epoch != STORE_EPOCH_NONE && check_name(file, NULL) == 0)
		code = record_write(&file->place, &lease, err);
	file->held_epoch = STORE_EPOCH_NONE;
	lock_drop(file); /* safety: store.c waited for everything that was sent */
	return code;
}

int local_lease_query(struct store *common, const char *name, struct store_lease *ret_lease,
		      struct base_error *err)
{
	struct local_place place = { .folder_fd = -1 };
	struct store_lease lease = { .epoch = STORE_EPOCH_NONE };
	struct flock lock = whole_file(F_WRLCK);
	BASE_CLOSE int fd = -1;
	struct stat status = { .st_ino = 0 };
	int code = local_place_open(local_store_of(common), name, true, &place, err);

	if (code < 0)
		return code;
	code = local_record_read(&place, &lease, err);
	if (code == 0) {
		fd = openat(place.folder_fd, place.leaf,
			    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
		if (fd < 0 || fstat(fd, &status) < 0 || fcntl(fd, F_OFD_GETLK, &lock) < 0)
			code = base_fail_errno(err, -errno, "'%s'", name);
	}
	local_place_close(&place);
	if (code < 0)
		return code;
	if (lock.l_type == F_UNLCK) { /* whoever is recorded is dead */
		lease.held = false;
		lease.holder[0] = '\0';
	} else if (!lease.held) { /* a tool, without an epoch */
		lease.held = true;
		(void)snprintf(lease.holder, sizeof(lease.holder), "unknown");
		(void)local_holder_find(status.st_dev, status.st_ino, lease.holder,
					sizeof(lease.holder));
	}
	*ret_lease = lease;
	return 0;
}
