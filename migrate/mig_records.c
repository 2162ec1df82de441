/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place that reads and writes records: under a lock for the threads of this process and a
 * flock of the directory for other processes; new file, fsync, rename, fsync of the directory.
 */
#include "migrate/mig_records.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "migrate/mig_records_priv.h"

#define FILE_NAME_BYTES 96u
#define LOCK_TRIES      200u
#define LIST_MAX        65536u /* records; more are no state directory of ours */

struct mig_records {
	const struct base_clock *clock;
	pthread_mutex_t lock;
	int directory_fd; /* borrowed; flock */
};

static const char *const suffixes[MIG_RECORD_KINDS] = {
	[MIG_RECORD_REGISTER] = ".register",
	[MIG_RECORD_PROMISE] = ".promise",
};

int mig_records_new(int directory_fd, const struct base_clock *clock,
		    struct mig_records **ret_records, struct base_error *err)
{
	struct mig_records *records = calloc(1, sizeof(*records));

	if (records == NULL)
		return base_fail_errno(err, -ENOMEM, "records");
	records->clock = clock != NULL ? clock : &base_clock_system;
	records->directory_fd = directory_fd;
	base_assert(pthread_mutex_init(&records->lock, NULL) == 0);
	*ret_records = records;
	return 0;
}

void mig_records_free(struct mig_records *records)
{
	if (records == NULL)
		return;
	base_assert(pthread_mutex_destroy(&records->lock) == 0);
	free(records);
}

int mig_keep_init(struct mig_keep *keep, struct mig_records *records, const char *name,
		  const char *peer, const uint8_t id[MIG_ID_BYTES], struct base_error *err)
{
	struct mig_record *whose = &keep->whose;

	if (strlen(name) >= sizeof(whose->name) || strlen(peer) >= sizeof(whose->peer))
		return base_fail(err, -EINVAL,
				 "record of '%.64s': a name of %zu bytes, an address of %zu: "
				 "expected at most 63 and 255",
				 name, strlen(name), strlen(peer));
	memset(keep, 0, sizeof(*keep));
	keep->records = records;
	(void)snprintf(whose->name, sizeof(whose->name), "%s", name);
	(void)snprintf(whose->peer, sizeof(whose->peer), "%s", peer);
	memcpy(whose->id, id, sizeof(whose->id));
	return 0;
}

static void file_name(enum mig_record_kind kind, const char *name, char ret_name[FILE_NAME_BYTES])
{
	(void)snprintf(ret_name, FILE_NAME_BYTES, "%.*s%s", (int)MIG_RECORD_NAME_BYTES, name,
		       suffixes[kind]);
}

/* Other processes are waited for a little: they hold it for an fsync or two. */
static int lock_directory(const struct mig_records *records, struct base_error *err)
{
	for (unsigned int i = 0; i < LOCK_TRIES; i++) {
		if (flock(records->directory_fd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK && errno != EINTR)
			return base_fail_errno(err, -errno, "records: lock of the directory");
		base_sleep_ns(BASE_NS_PER_MS);
	}
	return base_fail(err, -EAGAIN,
			 "records: lock of the directory: expected within %u ms to get it from "
			 "another process",
			 LOCK_TRIES);
}

/* Cannot fail; if it did, others would be told -EAGAIN until this process ends. */
static void unlock_directory(const struct mig_records *records)
{
	(void)flock(records->directory_fd, LOCK_UN);
}

/* The bytes of a file that has to be a record: whole, and ours. */
static int load_bytes(const struct mig_records *records, const char *file,
		      uint8_t bytes[MIG_RECORD_BYTES], struct base_error *err)
{
	BASE_CLOSE int fd = openat(records->directory_fd, file,
				   O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat status;
	int code;

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0)
		return base_fail_errno(err, errno == ELOOP ? -EBADMSG : -errno, "'%s'", file);
	if (fstat(fd, &status) < 0)
		return base_fail_errno(err, -errno, "'%s'", file);
	if (!S_ISREG(status.st_mode) || status.st_size != MIG_RECORD_BYTES)
		return base_fail(err, -EBADMSG,
				 "'%s': %lld bytes: expected a regular file of %u, not damaged",
				 file, (long long)status.st_size, MIG_RECORD_BYTES);
	code = base_read_all(fd, bytes, MIG_RECORD_BYTES);
	if (code < 0)
		return base_fail_errno(err, code == -ENODATA || code == -ENOENT ? -EBADMSG : code,
				       "'%s': read", file);
	return 0;
}

/* 1, or 0 where there is no record; else -errno. */
static int load(const struct mig_records *records, enum mig_record_kind kind, const char *name,
		struct mig_record *ret_record, struct base_error *err)
{
	char file[FILE_NAME_BYTES];
	uint8_t bytes[MIG_RECORD_BYTES];
	struct mig_record record;
	int code;

	file_name(kind, name, file);
	code = load_bytes(records, file, bytes, err);
	if (code < 0)
		return code == -ENOENT ? 0 : code;
	code = mig_record_decode(bytes, sizeof(bytes), &record, err);
	if (code < 0)
		return base_fail_within(err, code, "'%s'", file);
	if (record.kind != kind || strcmp(record.name, name) != 0)
		return base_fail(err, -EBADMSG, "'%s': the %s of '%s': expected the one of '%s'",
				 file, mig_record_kind_name(record.kind), record.name, name);
	*ret_record = record;
	return 1;
}

#ifdef GODWIT_MUTANT_MIG_RECORD_SYNC
static int commit(struct base_new_file *file, struct base_error *err)
{
	if (renameat(file->directory_fd, file->temporary, file->directory_fd, file->name) < 0)
		return base_fail_errno(err, -errno, "'%s'", file->name);
	base_closep(&file->fd);
	return 0;
}
#else
static int commit(struct base_new_file *file, struct base_error *err)
{
	return base_new_file_commit(file, err);
}
#endif

static int write_record(const struct mig_records *records, const struct mig_record *record,
			struct mig_keep *keep, struct base_error *err)
{
	BASE_CLEANUP(base_new_file_abort) struct base_new_file part = { .fd = -1 };
	char file[FILE_NAME_BYTES];
	uint8_t bytes[MIG_RECORD_BYTES];
	int code;

	mig_record_encode(record, bytes);
	file_name(record->kind, record->name, file);
	code = base_new_file_begin(records->directory_fd, file, &part, err);
	if (code < 0)
		return base_fail_within(err, code, "record");
	code = base_write_all(part.fd, bytes, sizeof(bytes));
	if (code < 0) /* nothing is in place: not our "unknown" */
		return base_fail_errno(err, code == -ETIMEDOUT ? -EIO : code, "'%s': write", file);
	if (keep != NULL)
		keep->is_settled = false;
	code = commit(&part, err);
	if (code < 0)
		return base_fail_within(err, code, "record");
	if (keep != NULL) {
		memcpy(keep->settled, bytes, sizeof(bytes));
		keep->is_settled = true;
	}
	return 0;
}

static int remove_record(const struct mig_records *records, enum mig_record_kind kind,
			 const char *name, struct base_error *err)
{
	char file[FILE_NAME_BYTES];

	file_name(kind, name, file);
	if (unlinkat(records->directory_fd, file, 0) < 0 && errno != ENOENT)
		return base_fail_errno(err, -errno, "'%s': remove", file);
	if (fsync(records->directory_fd) < 0)
		return base_fail(err, -ETIMEDOUT,
				 "'%s' is removed, but not known to be so for good: fsync of its "
				 "directory: %s",
				 file, strerrordesc_np(errno));
	return 0;
}

/* Nothing is told of a record that a power cut could take back. */
static int settle(const struct mig_records *records, const struct mig_record *record,
		  struct mig_keep *keep, struct base_error *err)
{
	uint8_t bytes[MIG_RECORD_BYTES];

	mig_record_encode(record, bytes);
	if (keep->is_settled && memcmp(bytes, keep->settled, sizeof(bytes)) == 0)
		return 0;
	return write_record(records, record, keep, err);
}

static int change_locked(const struct mig_records *records, const struct mig_wish *wish,
			 struct mig_keep *keep, struct mig_record *ret_record,
			 struct base_error *err)
{
	struct mig_record now = { 0 };
	struct mig_record next = { 0 };
	int found = load(records, wish->kind, wish->whose.name, &now, err);
	int change;
	int code = 0;

	if (found < 0)
		return found;
	change = wish->step(found > 0 ? &now : NULL, wish, &next, err);
	if (change < 0)
		return change;
	if (change == MIG_CHANGE_REMOVE) {
		code = remove_record(records, wish->kind, wish->whose.name, err);
		next = (struct mig_record){ 0 };
	} else if (change == MIG_CHANGE_WRITE) {
		next.written_s = base_clock_real_ns(records->clock) / BASE_NS_PER_SECOND;
		code = mig_record_check(&next, err);
		if (code == 0)
			code = write_record(records, &next, keep, err);
	} else if (found > 0) {
		code = keep != NULL ? settle(records, &now, keep, err) : 0;
		next = now;
	}
	if (code < 0)
		return code;
	if (ret_record != NULL)
		*ret_record = next;
	return change;
}

/* A name that is none of a VM is none of a file. */
static int check_name(const struct mig_record *whose, struct base_error *err)
{
	struct mig_record record = { .kind = MIG_RECORD_PROMISE,
				     .state = MIG_HELD_PROMISED,
				     .now = { .epoch = 1, .owner = MIG_SOURCE },
				     .from_epoch = 1,
				     .peer = "-" };

	memcpy(record.name, whose->name, sizeof(record.name));
	return mig_record_check(&record, err);
}

int mig_records_change(struct mig_records *records, const struct mig_wish *wish,
		       struct mig_keep *keep, struct mig_record *ret_record, struct base_error *err)
{
	BASE_LOCKED(&records->lock);
	int code = check_name(&wish->whose, err);

	if (code == 0)
		code = lock_directory(records, err);
	if (code < 0)
		return code;
	code = change_locked(records, wish, keep, ret_record, err);
	unlock_directory(records);
	return code;
}

int mig_records_find(struct mig_records *records, enum mig_record_kind kind, const char *name,
		     struct mig_record *ret_record, struct base_error *err)
{
	struct mig_record whose = { 0 };
	int code;

	if (strlen(name) >= sizeof(whose.name))
		return base_fail(err, -EINVAL, "name of %zu bytes: expected at most 63",
				 strlen(name));
	(void)snprintf(whose.name, sizeof(whose.name), "%s", name);
	code = check_name(&whose, err);
	return code == 0 ? load(records, kind, name, ret_record, err) : code;
}

int mig_records_load(struct mig_records *records, enum mig_record_kind kind, const char *name,
		     struct mig_record *ret_record, struct base_error *err)
{
	int code = mig_records_find(records, kind, name, ret_record, err);

	if (code == 0)
		return base_fail(err, -ENOENT, "'%s%s': there is no such record", name,
				 suffixes[kind]);
	return code < 0 ? code : 0;
}

/* Whether @file is called as a record is, and whose it would be. */
static bool is_record_name(const char *file, struct mig_records_entry *entry)
{
	size_t length = strlen(file);

	for (int kind = MIG_RECORD_REGISTER; kind < MIG_RECORD_KINDS; kind++) {
		size_t suffix = strlen(suffixes[kind]);

		if (length <= suffix || length - suffix >= sizeof(entry->name) || file[0] == '.' ||
		    strcmp(file + length - suffix, suffixes[kind]) != 0)
			continue;
		*entry = (struct mig_records_entry){ .kind = (enum mig_record_kind)kind };
		memcpy(entry->name, file, length - suffix);
		return true;
	}
	return false;
}

static int by_name(const void *a, const void *b)
{
	const struct mig_records_entry *left = a;
	const struct mig_records_entry *right = b;
	int order = strcmp(left->name, right->name);

	return order != 0 ? order : (int)left->kind - (int)right->kind;
}

static void closedirp(DIR **list)
{
	if (*list != NULL)
		(void)closedir(*list);
}

/* The names only. */
static int list_names(const struct mig_records *records, struct base_buffer *found,
		      struct base_error *err)
{
	BASE_CLOSE int fd = openat(records->directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	BASE_CLEANUP(closedirp) DIR *list = fd < 0 ? NULL : fdopendir(fd);
	struct mig_records_entry entry;
	struct dirent *at;

	if (list == NULL)
		return base_fail_errno(err, -errno, "records: list the directory");
	(void)base_take_fd(&fd); /* the stream's */
	for (;;) {
		errno = 0;
		at = readdir(list); /* NOLINT(concurrency-mt-unsafe): a stream of this call's own */
		if (at == NULL)
			break;
		if (!is_record_name(at->d_name, &entry))
			continue;
		base_buffer_append(found, &entry, sizeof(entry));
		if (found->failed)
			return base_fail_errno(err, -ENOMEM, "records: list of the directory");
		if (found->size_bytes / sizeof(entry) > LIST_MAX)
			return base_fail(err, -E2BIG, "records: expected at most %u in a directory",
					 LIST_MAX);
	}
	if (errno != 0)
		return base_fail_errno(err, -errno, "records: list the directory");
	return 0;
}

int mig_records_list(struct mig_records *records, struct mig_records_entry **ret_list,
		     size_t *ret_count, struct base_error *err)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer found = { .data = NULL };
	BASE_FREE struct mig_records_entry *list = NULL;
	size_t count;
	int code = list_names(records, &found, err);

	if (code < 0)
		return code;
	count = found.size_bytes / sizeof(*list);
	list = calloc(count + 1, sizeof(*list));
	if (list == NULL)
		return base_fail_errno(err, -ENOMEM, "records: list of the directory");
	if (count > 0)
		memcpy(list, found.data, found.size_bytes);
	qsort(list, count, sizeof(*list), by_name);
	for (size_t i = 0; i < count; i++)
		list[i].code = mig_records_load(records, list[i].kind, list[i].name,
						&list[i].record, &list[i].err);
	*ret_list = base_take(&list);
	*ret_count = count;
	return 0;
}
