/* SPDX-License-Identifier: Apache-2.0 */
/* A state directory of a test's own, with the records of a VM called "web".  Each test program
 * includes it once. */
#ifndef TESTS_MIG_RECORDS_RIG_H
#define TESTS_MIG_RECORDS_RIG_H

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "migrate/mig_records.h"

static char folder[48];
static int folder_fd = -1;
static struct mig_records *records;
static struct base_error err;
static const uint8_t id_one[MIG_ID_BYTES] = "migration one..";
static const uint8_t id_two[MIG_ID_BYTES] = "migration two..";

static inline void wipe(void)
{
	DIR *list = opendir(folder);
	struct dirent *entry = NULL;

	cr_assert_not_null(list);
	while ((entry = readdir(list)) != NULL)
		(void)unlinkat(folder_fd, entry->d_name, 0);
	(void)closedir(list);
}

/* In memory where that can be had: each change is a few calls of fsync, which the model of
 * record_faults.h counts, and which need not take their time. */
static inline void make_folder(char ret_path[48])
{
	(void)snprintf(ret_path, 48, "/dev/shm/godwit-records-XXXXXX");
	if (mkdtemp(ret_path) != NULL)
		return;
	(void)snprintf(ret_path, 48, "/tmp/godwit-records-XXXXXX");
	cr_assert_not_null(mkdtemp(ret_path));
}

static inline void begin(void)
{
	make_folder(folder);
	folder_fd = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cr_assert_geq(folder_fd, 0);
	cr_assert_eq(mig_records_new(folder_fd, NULL, &records, &err), 0);
}

static inline void end(void)
{
	mig_records_free(records);
	wipe();
	(void)close(folder_fd);
	(void)rmdir(folder);
}

static inline struct mig_keep keep_of(const uint8_t *id, const char *peer)
{
	struct mig_keep keep;

	cr_assert_eq(mig_keep_init(&keep, records, "web", peer, id, &err), 0, "%s", err.text);
	return keep;
}

static inline struct mig_keep one(void)
{
	return keep_of(id_one, "10.0.0.1:7011");
}

static inline struct mig_record on_disk(enum mig_record_kind kind)
{
	struct mig_record record = { 0 };

	cr_assert_eq(mig_records_load(records, kind, "web", &record, &err), 0, "%s", err.text);
	return record;
}

static inline bool is_there(enum mig_record_kind kind)
{
	struct mig_record record;

	return mig_records_load(records, kind, "web", &record, NULL) == 0;
}

static inline void expect(enum mig_record_state state, uint64_t epoch, enum mig_side owner)
{
	struct mig_record record = on_disk(MIG_RECORD_REGISTER);

	cr_assert_eq(record.state, state, "%s", mig_record_state_name(record.state));
	cr_assert_eq(record.now.epoch, epoch);
	cr_assert_eq(record.now.owner, owner);
}

static inline void ask(struct mig_keep *keep, uint64_t epoch, enum mig_side owner,
		       uint64_t now_epoch, enum mig_side now_owner)
{
	struct mig_register now;

	cr_assert_eq(mig_register_ask(keep, epoch, owner, &now, &err), 0, "%s", err.text);
	cr_assert_eq(now.epoch, now_epoch);
	cr_assert_eq(now.owner, now_owner);
}

/* Put a register there as if @id had left it. */
static inline void left_behind(const uint8_t *id, const char *peer, enum mig_record_state state,
			       uint64_t from_epoch, uint64_t epoch, enum mig_side owner)
{
	struct mig_record record = { .kind = MIG_RECORD_REGISTER,
				     .state = state,
				     .now = { .epoch = epoch, .owner = owner },
				     .from_epoch = from_epoch,
				     .name = "web" };
	uint8_t bytes[MIG_RECORD_BYTES];
	int fd = openat(folder_fd, "web.register", O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);

	memcpy(record.id, id, sizeof(record.id));
	(void)snprintf(record.peer, sizeof(record.peer), "%s", peer);
	cr_assert_eq(mig_record_check(&record, &err), 0, "%s", err.text);
	mig_record_encode(&record, bytes);
	cr_assert_eq(base_write_all(fd, bytes, sizeof(bytes)), 0);
	(void)close(fd);
}

#endif
