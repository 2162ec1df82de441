/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/thread.h"
#include "tests/support/alloc_fail.h"

static char folder[] = "/tmp/godwit-file-XXXXXX";
static int folder_fd = -1;

static void begin(void)
{
	cr_assert_not_null(mkdtemp(folder));
	folder_fd = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cr_assert_geq(folder_fd, 0);
}

/* Names in the folder; removes them when asked to. */
static size_t names(bool remove_them)
{
	size_t count = 0;
	DIR *list = opendir(folder);
	struct dirent *entry = NULL;

	cr_assert_not_null(list);
	while ((entry = readdir(list)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		count++;
		if (remove_them && unlinkat(folder_fd, entry->d_name, 0) < 0)
			(void)unlinkat(folder_fd, entry->d_name, AT_REMOVEDIR);
	}
	(void)closedir(list);
	return count;
}

static void end(void)
{
	(void)names(true);
	(void)close(folder_fd);
	(void)rmdir(folder);
}

static const char *path_of(const char *name)
{
	static char path[64];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void put(const char *name, const void *data, size_t size)
{
	int fd = openat(folder_fd, name, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(base_write_all(fd, data, size), 0);
	(void)close(fd);
}

static void expect_content(const char *name, const char *wanted)
{
	uint8_t *data = NULL;
	size_t size = 0;

	cr_assert_eq(base_file_load(path_of(name), 4096, &data, &size, NULL), 0);
	cr_assert_eq(size, strlen(wanted));
	cr_assert_str_eq((char *)data, wanted);
	free(data);
}

Test(file, positioned_reads_and_writes)
{
	int fd = memfd_create("file", MFD_CLOEXEC);
	char text[6] = "";

	cr_assert_eq(base_pwrite_all(fd, "world", 5, 5), 0);
	cr_assert_eq(base_pwrite_all(fd, "hello", 5, 0), 0);
	cr_assert_eq(base_pread_all(fd, text, 5, 5), 0);
	cr_assert_str_eq(text, "world");
	cr_assert_eq(base_pread_all(fd, text, 5, 6), -ENODATA);
	cr_assert_eq(base_pread_all(fd, text, 0, 100), 0);
	cr_assert_eq(base_pread_all(fd, text, 5, UINT64_MAX), -EINVAL);
	cr_assert_eq(base_pwrite_all(fd, text, 5, INT64_MAX - 4), -EINVAL);
	(void)close(fd);
}

Test(file, errors_of_the_descriptor_come_through)
{
	char byte = 0;

	cr_assert_eq(base_write_all(-1, "x", 1), -EBADF);
	cr_assert_eq(base_read_all(-1, &byte, 1), -EBADF);
	cr_assert_eq(base_write_all(-1, NULL, 0), 0);
}

enum {
	PIPE_TOTAL = 1 << 20
};

static void *feed_pipe(void *context)
{
	static uint8_t data[PIPE_TOTAL];
	int fd = *(const int *)context;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	if (base_write_all(fd, data, sizeof(data)) != 0)
		return context;
	(void)close(fd);
	return NULL;
}

/* More than a pipe holds: both ends see short transfers. */
Test(file, whole_transfers_over_a_pipe)
{
	uint8_t *data = malloc(PIPE_TOTAL);
	pthread_t thread;
	int ends[2];

	cr_assert_not_null(data);
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	cr_assert_eq(base_thread_start(&thread, "feed", feed_pipe, &ends[1], NULL), 0);
	cr_assert_eq(base_read_all(ends[0], data, PIPE_TOTAL), 0);
	for (size_t i = 0; i < PIPE_TOTAL; i++)
		cr_assert_eq(data[i], (uint8_t)(i * 7));
	cr_assert_eq(base_read_all(ends[0], data, 1), -ENODATA);
	base_thread_join(thread);
	(void)close(ends[0]);
	free(data);
}

Test(file, load_gives_content_and_a_zero, .init = begin, .fini = end)
{
	put("a", "hello", 5);
	expect_content("a", "hello");
	put("empty", "", 0);
	expect_content("empty", "");
}

Test(file, load_of_any_size_up_to_the_limit, .init = begin, .fini = end)
{
	static uint8_t content[20000];

	memset(content, 'c', sizeof(content));
	for (size_t size = 0; size <= sizeof(content); size += 499) {
		uint8_t *data = NULL;
		size_t got = 0;

		put("a", content, size);
		cr_assert_eq(base_file_load(path_of("a"), size, &data, &got, NULL), 0);
		cr_assert_eq(got, size);
		cr_assert_eq(memcmp(data, content, size), 0);
		cr_assert_eq(data[size], 0);
		free(data);
	}
}

Test(file, load_of_a_file_whose_size_says_nothing)
{
	uint8_t *data = NULL;
	size_t size = 0;

	cr_assert_eq(base_file_load("/proc/self/status", 65536, &data, &size, NULL), 0);
	cr_assert_gt(size, 100);
	free(data);
	data = NULL;
	cr_assert_eq(base_file_load("/proc/self/status", 100, &data, &size, NULL), -EFBIG);
	cr_assert_null(data);
}

Test(file, load_refuses, .init = begin, .fini = end)
{
	struct base_error err = { .code = 0 };
	uint8_t *data = NULL;
	size_t size = 0;

	cr_assert_eq(base_file_load(path_of("none"), 10, &data, &size, &err), -ENOENT);
	cr_assert_not_null(strstr(err.text, "/none'"));
	cr_assert_eq(base_file_load(folder, 10, &data, &size, &err), -EINVAL);
	cr_assert_eq(base_file_load("/dev/zero", 10, &data, &size, &err), -EINVAL);
	cr_assert_eq(mkfifoat(folder_fd, "fifo", 0600), 0);
	cr_assert_eq(base_file_load(path_of("fifo"), 10, &data, &size, &err), -EINVAL);
	put("big", "12345678901", 11);
	cr_assert_eq(base_file_load(path_of("big"), 10, &data, &size, &err), -EFBIG);
	cr_assert_null(data);
}

Test(file, load_without_memory, .init = begin, .fini = end)
{
	static uint8_t content[5000];
	uint8_t *data = NULL;
	size_t size = 0;
	unsigned int k = 0;

	put("a", content, sizeof(content));
	for (k = 0;; k++) {
		int code = 0;

		alloc_fail_at(k);
		code = base_file_load(path_of("a"), 10000, &data, &size, NULL);
		if (!alloc_fail_done())
			break;
		cr_assert_eq(code, -ENOMEM);
		cr_assert_null(data);
	}
	cr_assert_gt(k, 0);
	cr_assert_eq(size, sizeof(content));
	free(data);
}

static void begin_file(const char *name, struct base_new_file *file, const char *content)
{
	struct base_error err = { .code = 0 };

	cr_assert_eq(base_new_file_begin(folder_fd, name, file, &err), 0, "%s", err.text);
	cr_assert_eq(base_write_all(file->fd, content, strlen(content)), 0);
}

Test(file, committed_file_is_there_alone, .init = begin, .fini = end)
{
	struct base_new_file file;
	struct stat status;

	begin_file("state", &file, "new");
	cr_assert_eq(faccessat(folder_fd, "state", F_OK, 0), -1, "not before the commit");
	cr_assert_eq(base_new_file_commit(&file, NULL), 0);
	cr_assert_eq(names(false), 1);
	expect_content("state", "new");
	cr_assert_eq(fstatat(folder_fd, "state", &status, 0), 0);
	cr_assert_eq(status.st_mode & 0777, 0600);
	base_new_file_abort(&file);
	expect_content("state", "new");
}

Test(file, commit_replaces_and_abort_keeps_the_old, .init = begin, .fini = end)
{
	struct base_new_file file;

	put("state", "old", 3);
	begin_file("state", &file, "half");
	expect_content("state", "old");
	base_new_file_abort(&file);
	base_new_file_abort(&file);
	cr_assert_eq(names(false), 1);
	expect_content("state", "old");

	begin_file("state", &file, "new");
	cr_assert_eq(base_new_file_commit(&file, NULL), 0);
	cr_assert_eq(names(false), 1);
	expect_content("state", "new");
}

Test(file, failed_commit_leaves_nothing, .init = begin, .fini = end)
{
	struct base_error err = { .code = 0 };
	struct base_new_file file;

	cr_assert_eq(mkdirat(folder_fd, "state", 0700), 0); /* a file cannot replace it */
	begin_file("state", &file, "new");
	cr_assert_eq(names(false), 2);
	cr_assert_eq(base_new_file_commit(&file, &err), -EISDIR);
	cr_assert_eq(err.code, -EISDIR);
	cr_assert_eq(file.fd, -1);
	cr_assert_eq(names(false), 1);
}

Test(file, second_writer_is_refused_while_the_first_writes, .init = begin, .fini = end)
{
	struct base_error err = { .code = 0 };
	struct base_new_file one;
	struct base_new_file two;

	begin_file("state", &one, "one");
	cr_assert_eq(base_new_file_begin(folder_fd, "state", &two, &err), -EBUSY);
	cr_assert_not_null(strstr(err.text, ".state.part"), "%s", err.text);
	begin_file("other", &two, "two"); /* another name is another file */
	base_new_file_abort(&two);
	cr_assert_eq(base_new_file_commit(&one, NULL), 0);
	expect_content("state", "one");
	begin_file("state", &two, "two");
	cr_assert_eq(base_new_file_commit(&two, NULL), 0);
	expect_content("state", "two");
	cr_assert_eq(names(false), 1);
}

/* What kill -9 leaves: a temporary file without a lock. */
Test(file, leftover_is_written_over, .init = begin, .fini = end)
{
	struct base_new_file file;

	put(".state.part", "left by a writer that was killed", 32);
	begin_file("state", &file, "new");
	cr_assert_eq(base_new_file_commit(&file, NULL), 0);
	expect_content("state", "new");
	cr_assert_eq(names(false), 1);
}

Test(file, what_no_writer_left_is_refused, .init = begin, .fini = end)
{
	struct base_error err = { .code = 0 };
	struct base_new_file file;

	put("mine", "precious", 8);
	cr_assert_eq(symlinkat("mine", folder_fd, ".a.part"), 0);
	cr_assert_eq(linkat(folder_fd, "mine", folder_fd, ".b.part", 0), 0);
	cr_assert_eq(mkfifoat(folder_fd, ".c.part", 0600), 0);
	cr_assert_eq(mkdirat(folder_fd, ".d.part", 0700), 0);
	put(".e.part", "shared", 6);
	cr_assert_eq(fchmodat(folder_fd, ".e.part", 0644, 0), 0);
	for (char name[] = "a"; name[0] <= 'e'; name[0]++) {
		cr_assert_eq(base_new_file_begin(folder_fd, name, &file, &err), -EEXIST, "%s",
			     name);
		cr_assert_not_null(strstr(err.text, ".part"));
	}
	cr_assert_eq(base_new_file_sweep(folder_fd, NULL), 0);
	cr_assert_eq(names(false), 6);
	expect_content("mine", "precious");
}

/* A descriptor that only names the directory can rename in it, but not sync it. */
Test(file, directory_that_cannot_be_synced_is_unknown, .init = begin, .fini = end)
{
	struct base_error err = { .code = 0 };
	struct base_new_file file;
	int path_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);

	cr_assert_eq(base_new_file_begin(path_fd, "state", &file, &err), 0, "%s", err.text);
	cr_assert_eq(base_write_all(file.fd, "new", 3), 0);
	cr_assert_eq(base_new_file_commit(&file, &err), -ETIMEDOUT);
	cr_assert_not_null(strstr(err.text, "in place, but not known to be durable"), "%s",
			   err.text);
	cr_assert_eq(file.fd, -1);
	base_new_file_abort(&file);
	expect_content("state", "new");
	cr_assert_eq(names(false), 1);
	(void)close(path_fd);
}

Test(file, sweep_removes_leftovers_only, .init = begin, .fini = end)
{
	struct base_error err = { .code = 0 };
	struct base_new_file file;

	cr_assert_eq(base_new_file_sweep(folder_fd, &err), 0);
	put(".one.part", "left", 4);
	put(".two.part", "", 0);
	put("state", "whole", 5);
	put("three.part", "not hidden", 10);
	put(".part", "no name", 7);
	begin_file("busy", &file, "being written");
	cr_assert_eq(base_new_file_sweep(folder_fd, &err), 2, "%s", err.text);
	cr_assert_eq(names(false), 4);
	cr_assert_eq(base_new_file_commit(&file, NULL), 0);
	expect_content("busy", "being written");
	cr_assert_eq(base_new_file_sweep(-1, &err), -EBADF);
}

struct race {
	atomic_bool over;
	atomic_int foreign; /* errors that no race explains */
};

static void *write_again_and_again(void *context)
{
	struct race *race = context;

	for (int i = 0; i < 300; i++) {
		struct base_new_file file;
		int code = base_new_file_begin(folder_fd, "state", &file, NULL);

		if (code == 0)
			code = base_write_all(file.fd, "whole", 5);
		if (code == 0 && i % 3 == 0)
			base_new_file_abort(&file);
		else if (code == 0)
			code = base_new_file_commit(&file, NULL);
		if (code < 0 && code != -EBUSY)
			atomic_fetch_add(&race->foreign, 1);
	}
	return NULL;
}

static void *sweep_again_and_again(void *context)
{
	struct race *race = context;

	while (!atomic_load(&race->over))
		if (base_new_file_sweep(folder_fd, NULL) < 0)
			atomic_fetch_add(&race->foreign, 1);
	return NULL;
}

/* Writers and a sweeper at one name: the file under it is always whole. */
Test(file, writers_and_sweepers_do_no_harm, .init = begin, .fini = end)
{
	struct race race = { .over = false };
	struct base_new_file file;
	pthread_t writers[2];
	pthread_t sweeper;

	begin_file("state", &file, "whole");
	cr_assert_eq(base_new_file_commit(&file, NULL), 0);
	cr_assert_eq(base_thread_start(&sweeper, "sweep", sweep_again_and_again, &race, NULL), 0);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(
			base_thread_start(&writers[i], "write", write_again_and_again, &race, NULL),
			0);
	for (int i = 0; i < 300; i++)
		expect_content("state", "whole");
	for (int i = 0; i < 2; i++)
		base_thread_join(writers[i]);
	atomic_store(&race.over, true);
	base_thread_join(sweeper);
	cr_assert_eq(atomic_load(&race.foreign), 0);
	expect_content("state", "whole");
	cr_assert_eq(names(false), 1);
}

Test(file, names_are_checked, .init = begin, .fini = end)
{
	struct base_error err = { .code = 0 };
	struct base_new_file file;
	char longer[300];

	memset(longer, 'n', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	cr_assert_eq(base_new_file_begin(folder_fd, "", &file, &err), -EINVAL);
	cr_assert_eq(base_new_file_begin(folder_fd, ".", &file, &err), -EINVAL);
	cr_assert_eq(base_new_file_begin(folder_fd, "..", &file, &err), -EINVAL);
	cr_assert_eq(base_new_file_begin(folder_fd, "a/b", &file, &err), -EINVAL);
	cr_assert_eq(base_new_file_begin(folder_fd, ".a.part", &file, &err), -EINVAL);
	cr_assert_eq(base_new_file_begin(folder_fd, longer, &file, &err), -ENAMETOOLONG);
	longer[255] = '\0'; /* a name the system takes, but not with our suffix */
	cr_assert_eq(base_new_file_begin(folder_fd, longer, &file, &err), -ENAMETOOLONG);
	cr_assert_eq(base_new_file_begin(-1, "a", &file, &err), -EBADF);
	cr_assert_eq(names(false), 0);
}
