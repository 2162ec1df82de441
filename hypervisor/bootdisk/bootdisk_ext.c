/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ext2, ext3 and ext4 through libext2fs, whose I/O comes here.  Nothing is written; a journal that
 * wants recovery is not replayed, as GRUB does not.
 *
 * The library opens by name; what the name stands for is handed over in a variable of the thread.
 */
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"

struct ext_fs {
	struct bootdisk_fs fs;
	ext2_filsys ext;
	int io_code; /* of the last read that failed */
};

static _Thread_local struct ext_fs *opening;
static struct struct_io_manager manager;

static errcode_t channel_open(const char *name, int flags, io_channel *ret_channel)
{
	io_channel channel = NULL;
	errcode_t code;

	(void)flags;
	code = ext2fs_get_memzero(sizeof(*channel), &channel);
	if (code != 0)
		return code;
	channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	channel->refcount = 1;
	channel->block_size = 1024;
	channel->private_data = opening;
	channel->manager = &manager;
	code = ext2fs_get_memzero(strlen(name) + 1, &channel->name);
	if (code != 0) {
		ext2fs_free_mem(&channel);
		return code;
	}
	*ret_channel = channel;
	return 0;
}

static errcode_t channel_close(io_channel channel)
{
	if (--channel->refcount > 0)
		return 0;
	ext2fs_free_mem(&channel->name);
	ext2fs_free_mem(&channel);
	return 0;
}

static errcode_t channel_set_blksize(io_channel channel, int block_bytes)
{
	channel->block_size = block_bytes;
	return 0;
}

static errcode_t channel_read_blk64(io_channel channel, unsigned long long block, int count,
				    void *data)
{
	struct ext_fs *ext = channel->private_data;
	uint64_t block_bytes = (uint64_t)channel->block_size;
	uint64_t bytes;
	int rc;

	if (count == INT32_MIN || block > ext->fs.size_bytes / block_bytes)
		return EXT2_ET_SHORT_READ;
	bytes = count < 0 ? (uint64_t)-count : (uint64_t)count * block_bytes;
	if (bytes > ext->fs.size_bytes || block * block_bytes > ext->fs.size_bytes - bytes)
		return EXT2_ET_SHORT_READ;
	rc = bootdisk_io_read(ext->fs.io, ext->fs.start_bytes + block * block_bytes, data,
			      (size_t)bytes, NULL);
	if (rc < 0) {
		ext->io_code = rc;
		return EXT2_ET_SHORT_READ;
	}
	return 0;
}

static errcode_t channel_read_blk(io_channel channel, unsigned long block, int count, void *data)
{
	return channel_read_blk64(channel, block, count, data);
}

static errcode_t channel_write_blk(io_channel channel, unsigned long block, int count,
				   const void *data)
{
	(void)channel, (void)block, (void)count, (void)data;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t channel_write_blk64(io_channel channel, unsigned long long block, int count,
				     const void *data)
{
	(void)channel, (void)block, (void)count, (void)data;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t channel_flush(io_channel channel)
{
	(void)channel;
	return 0;
}

static struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "bootdisk",
	.open = channel_open,
	.close = channel_close,
	.set_blksize = channel_set_blksize,
	.read_blk = channel_read_blk,
	.write_blk = channel_write_blk,
	.flush = channel_flush,
	.read_blk64 = channel_read_blk64,
	.write_blk64 = channel_write_blk64,
};

/* The library's code as ours, with text. */
static int ext_fail(const struct ext_fs *ext, errcode_t code, const char *what,
		    struct base_error *err)
{
	if (ext->io_code < 0)
		return base_fail(err, ext->io_code, "%s: the disk cannot be read", what);
	if (code == EXT2_ET_FILE_NOT_FOUND || code == EXT2_ET_NO_DIRECTORY)
		return base_fail(err, -ENOENT, "%s: not found", what);
	if (code == EXT2_ET_NO_MEMORY || code == ENOMEM)
		return base_fail(err, -ENOMEM, "%s: no memory", what);
	if (code == EXT2_ET_BAD_MAGIC)
		return base_fail(err, -ENODEV, "%s: no ext2, ext3 or ext4", what);
	return base_fail(err, -EBADMSG, "%s: damaged or not understood (libext2fs code %ld)", what,
			 (long)code);
}

static int ext_lookup(struct bootdisk_fs *fs, const char *path, struct bootdisk_file *ret_file,
		      struct base_error *err)
{
	struct ext_fs *ext = (struct ext_fs *)fs;
	struct ext2_inode inode;
	ext2_ino_t number;
	errcode_t code;

	ext->io_code = 0;
	code = ext2fs_namei_follow(ext->ext, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &number);
	if (code == 0)
		code = ext2fs_read_inode(ext->ext, number, &inode);
	if (code != 0)
		return ext_fail(ext, code, path, err);
	memset(ret_file, 0, sizeof(*ret_file));
	ret_file->id = number;
	ret_file->folder = LINUX_S_ISDIR(inode.i_mode);
	if (!ret_file->folder && !LINUX_S_ISREG(inode.i_mode))
		return base_fail(err, -ENOENT, "%s: neither a file nor a folder", path);
	ret_file->size_bytes = EXT2_I_SIZE(&inode);
	return 0;
}

static int ext_read(struct bootdisk_fs *fs, struct bootdisk_file *file, uint64_t offset, void *to,
		    size_t size_bytes, struct base_error *err)
{
	struct ext_fs *ext = (struct ext_fs *)fs;
	ext2_file_t handle = NULL;
	unsigned int got = 0;
	errcode_t code;

	if (size_bytes > UINT32_MAX || offset > file->size_bytes ||
	    size_bytes > file->size_bytes - offset)
		return base_fail(err, -EBADMSG, "read past the end of a file");
	ext->io_code = 0;
	code = ext2fs_file_open(ext->ext, (ext2_ino_t)file->id, 0, &handle);
	if (code != 0)
		return ext_fail(ext, code, "file", err);
	code = ext2fs_file_llseek(handle, offset, EXT2_SEEK_SET, NULL);
	if (code == 0)
		code = ext2fs_file_read(handle, to, (unsigned int)size_bytes, &got);
	(void)ext2fs_file_close(handle);
	if (code != 0)
		return ext_fail(ext, code, "file", err);
	if (got != size_bytes)
		return base_fail(err, -EBADMSG, "file: %u bytes read: expected %zu", got,
				 size_bytes);
	return 0;
}

struct listing {
	bootdisk_each *each;
	void *context;
	uint32_t count;
	int result;
};

/* NOLINTNEXTLINE(readability-non-const-parameter): the library's type */
static int ext_name(struct ext2_dir_entry *entry, int offset, int block_bytes, char *buffer,
		    void *context)
{
	struct listing *listing = context;
	char name[EXT2_NAME_LEN + 1];
	size_t bytes = (size_t)ext2fs_dirent_name_len(entry);

	(void)offset, (void)block_bytes, (void)buffer;
	if (bytes > EXT2_NAME_LEN || ++listing->count > BOOTDISK_LIST_MAX)
		return DIRENT_ABORT;
	memcpy(name, entry->name, bytes);
	name[bytes] = '\0';
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return 0;
	listing->result = listing->each(listing->context, name);
	return listing->result != 0 ? DIRENT_ABORT : 0;
}

static int ext_list(struct bootdisk_fs *fs, const struct bootdisk_file *folder, bootdisk_each *each,
		    void *context, struct base_error *err)
{
	struct ext_fs *ext = (struct ext_fs *)fs;
	struct listing listing = { .each = each, .context = context };
	errcode_t code;

	ext->io_code = 0;
	code = ext2fs_dir_iterate(ext->ext, (ext2_ino_t)folder->id, 0, NULL, ext_name, &listing);
	if (code != 0)
		return ext_fail(ext, code, "folder", err);
	return listing.result;
}

static void ext_close(struct bootdisk_fs *fs)
{
	struct ext_fs *ext = (struct ext_fs *)fs;

	if (ext->ext != NULL)
		ext2fs_free(ext->ext);
	free(ext);
}

static const struct bootdisk_fs_ops ext_ops = {
	.lookup = ext_lookup,
	.read = ext_read,
	.list = ext_list,
	.close = ext_close,
};

static const char *ext_type(ext2_filsys ext)
{
	if (ext2fs_has_feature_extents(ext->super))
		return "ext4";
	return ext2fs_has_feature_journal(ext->super) ? "ext3" : "ext2";
}

int bootdisk_ext_open(struct bootdisk_io *io, const struct bootdisk_part *part,
		      struct bootdisk_fs **ret_fs, struct base_error *err)
{
	BASE_CLEANUP(bootdisk_fs_closep) struct bootdisk_fs *held = NULL;
	struct ext_fs *ext = calloc(1, sizeof(*ext));
	const uint8_t *id;
	errcode_t code;

	if (ext == NULL)
		return base_fail(err, -ENOMEM, "ext file system");
	held = &ext->fs;
	ext->fs = (struct bootdisk_fs){ .ops = &ext_ops,
					.io = io,
					.start_bytes = part->start_bytes,
					.size_bytes = part->size_bytes };
	opening = ext;
	code = ext2fs_open2("bootdisk", NULL, EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES, 0, 0,
			    &manager, &ext->ext);
	opening = NULL;
	if (code != 0)
		return ext_fail(ext, code == EXT2_ET_SHORT_READ ? EXT2_ET_BAD_MAGIC : code,
				"superblock", err);
	id = ext->ext->super->s_uuid;
	(void)snprintf(ext->fs.uuid, sizeof(ext->fs.uuid),
		       "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		       id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8], id[9], id[10],
		       id[11], id[12], id[13], id[14], id[15]);
	memcpy(ext->fs.label, ext->ext->super->s_volume_name, 16);
	ext->fs.type = ext_type(ext->ext);
	*ret_fs = base_take(&held);
	return 0;
}
