/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks on their way: a source's and a destination's side in one process, with channels between
 * them, one round at a time.  The loop of the disks runs on a thread of its own.
 */
#ifndef TESTS_SUPPORT_DISK_MOVER_H
#define TESTS_SUPPORT_DISK_MOVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "agent/vm_migrate_disk.h"
#include "base/pool.h"
#include "migrate/mig_copy.h"

struct disk_mover;

struct disk_mover_receiver {
	struct disk_mover *mover;
	uint32_t channel;
	int code;
	pthread_t thread;
	struct base_error err;
};

struct disk_mover_options {
	const struct vm_migrate_from *disks;
	uint32_t disk_count;
	struct store *store; /* where to */
	const char *folder;
	struct base_io_loop *loop;
	uint32_t channel_count;
	bool tcp; /* over loopback; else socket pairs */
};

struct disk_mover {
	struct mig_plan plan;
	struct mig_findings *findings;
	struct vm_migrate_out *out;
	struct vm_migrate_in *in;
	struct mig_object *objects;
	uint64_t *no_pages;
	uint8_t *memory; /* of one page */
	struct mig_intake *intake;
	struct mig_image *image;
	struct mig_copy *copy;
	struct base_pool *pool;
	uint32_t channel_count;
	int fds[MIG_CHANNELS_MAX][2];
	struct mig_link *from[MIG_CHANNELS_MAX];
	struct mig_link *to[MIG_CHANNELS_MAX];
	struct disk_mover_receiver receivers[MIG_CHANNELS_MAX];
	uint32_t round;
	atomic_uint damage; /* a test's: a chunk arrives with bytes changed */
};

/* 0, also with findings: then there are no channels, and only fini is of use. */
BASE_MUST_CHECK int disk_mover_init(struct disk_mover *mover,
				    const struct disk_mover_options *options,
				    struct base_error *err);
/* Harvest and send: the destination's code where it failed, else the source's.  @ret_bytes: what
 * the harvest named; may be NULL. */
BASE_MUST_CHECK int disk_mover_round(struct disk_mover *mover, bool last, uint64_t *ret_bytes,
				     struct base_error *err);
void disk_mover_fini(struct disk_mover *mover);

#endif
