/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VHDX image put together by hand over a fake store, for tests of the parts below requests:
 * pages, journal, space.  One thread pumps the loop; time stands still but for rig->fake.
 *
 * The file: headers; log at 1 MiB; BAT, JRIG_BAT_MIB; metadata region, 1 MiB (empty); from
 * jrig_blocks() on blocks of 1 MiB.  The BAT's entries are what a test puts there.
 */
#ifndef TESTS_JOURNAL_RIG_H
#define TESTS_JOURNAL_RIG_H

#include "hypervisor/disk/fake_store.h"
#include "hypervisor/disk/vhdx_journal_priv.h"

#define JRIG_NAME    "disk.vhdx"
#define JRIG_BAT_MIB 2U

struct journal_rig {
	struct store *store;
	struct base_io_loop *loop;
	struct base_fake_clock fake;
	struct base_clock clock;
	struct vhdx *vhdx; /* active; NULL when closed */
	uint32_t log_mib;
};

/* What somebody waits for. */
struct jrig_wait {
	struct vhdx_waiter waiter;
	bool done;
	int result;
};
void jrig_wait_init(struct jrig_wait *wait);

/* A new file with @block_count blocks behind the structures. */
void jrig_new(struct journal_rig *rig, uint32_t log_mib, uint32_t block_count);
void jrig_free(struct journal_rig *rig);
/* Read the headers, replay, and make the image active. */
void jrig_open(struct journal_rig *rig);
/* End the session; the result of vhdx_journal_end(). */
int jrig_close(struct journal_rig *rig);
/* Gone without a word; nothing may be in flight. */
void jrig_drop(struct journal_rig *rig);
/* Run the loop until nothing is ready. */
void jrig_run(struct journal_rig *rig);

uint64_t jrig_bat(const struct journal_rig *rig);
uint64_t jrig_blocks(const struct journal_rig *rig);

/* Blocking forms of what waits. */
int jrig_touch(struct journal_rig *rig, bool data);
int jrig_commit(struct journal_rig *rig);
struct vhdx_page *jrig_page(struct journal_rig *rig, uint64_t offset_bytes);
int jrig_take(struct journal_rig *rig, uint64_t length_bytes, uint64_t *ret_offset,
	      bool *ret_fresh);
/* Put @value into a page at @at and mark it. */
void jrig_put(struct journal_rig *rig, uint64_t offset_bytes, uint32_t at, uint64_t value,
	      bool ordered);
/* One store request, to its end. */
int jrig_store(struct journal_rig *rig, enum store_op op, uint64_t offset_bytes, void *data,
	       uint64_t length_bytes);

/* What a file left by a crash says, with its log put over it. */
struct jrig_left {
	struct store *store; /* taken */
	struct base_io_loop *loop;
	struct store_file *file;
	struct vhdx_header header;
	struct vhdx_overlay *overlay; /* NULL: the log is empty */
	uint64_t file_bytes;
};
/* 0, or why it cannot be opened (-EBADMSG...); fini in any case. */
int jrig_left_open(struct jrig_left *left, struct store *store);
void jrig_left_fini(struct jrig_left *left);
uint64_t jrig_left_value(struct jrig_left *left, uint64_t offset_bytes); /* 8 bytes */

#endif
