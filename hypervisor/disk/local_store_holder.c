/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has a lock on a file.  The kernel does not say whose an open-file-description lock is, but
 * /proc/<pid>/fdinfo/<fd> has a line "lock:" for each lock that was taken over a descriptor.
 * Looked at only to make an error message better: what cannot be seen is passed over.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hypervisor/disk/local_store_priv.h"

static void closedirp(DIR **list)
{
	if (*list != NULL)
		(void)closedir(*list);
}

static DIR *folder_list(int folder_fd, const char *name)
{
	BASE_CLOSE int fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);

	if (list != NULL)
		(void)base_take_fd(&fd); /* the stream's */
	return list;
}

/* The first bytes of a small file of /proc as text; false when it cannot be read. */
static bool text_load(int folder_fd, const char *name, char *to, size_t size_bytes)
{
	BASE_CLOSE int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, to, size_bytes - 1);

	if (got < 0)
		return false;
	to[got] = '\0';
	return true;
}

static bool fd_has_lock(int process_fd, const char *number)
{
	char path[64];
	char text[2048]; /* position, flags, mount and inode come first: a few hundred bytes */

	(void)snprintf(path, sizeof(path), "fdinfo/%.20s", number);
	return text_load(process_fd, path, text, sizeof(text)) && strstr(text, "\nlock:") != NULL;
}

static bool process_has_lock(int process_fd, dev_t device, ino_t inode)
{
	BASE_CLEANUP(closedirp) DIR *list = folder_list(process_fd, "fd");
	const struct dirent *entry = NULL;

	if (list == NULL)
		return false;
	while ((entry = readdir(list)) != NULL) { /* NOLINT(concurrency-mt-unsafe): our own list */
		struct stat status;

		if (entry->d_name[0] == '.' ||
		    fstatat(dirfd(list), entry->d_name, &status, 0) < 0 ||
		    status.st_dev != device || status.st_ino != inode)
			continue;
		if (fd_has_lock(process_fd, entry->d_name))
			return true;
	}
	return false;
}

bool local_holder_find(dev_t device, ino_t inode, char *ret_text, size_t text_bytes)
{
	BASE_CLEANUP(closedirp) DIR *list = folder_list(AT_FDCWD, "/proc");
	const struct dirent *entry = NULL;

	if (list == NULL)
		return false;
	while ((entry = readdir(list)) != NULL) { /* NOLINT(concurrency-mt-unsafe): our own list */
		BASE_CLOSE int process_fd = -1;
		char command[64] = "?";

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		process_fd = openat(dirfd(list), entry->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (process_fd < 0 || !process_has_lock(process_fd, device, inode))
			continue;
		if (text_load(process_fd, "comm", command, sizeof(command)))
			command[strcspn(command, "\n")] = '\0';
		(void)snprintf(ret_text, text_bytes, "pid %.20s (%s)%s", entry->d_name, command,
			       strtol(entry->d_name, NULL, 10) == getpid() ? ", this process" : "");
		return true;
	}
	return false;
}
