/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying what a disk shows, or what one layer of it holds, into another disk: a job on a loop
 * with several pieces in flight.  For conversion, merging and moving disks.
 *
 * The job maps the source, leaves out what needs no copying, reads the rest piece by piece and
 * writes it; zeros travel as zeros.  The first failure ends it.
 */
#ifndef HYPERVISOR_DISK_DISK_COPY_H
#define HYPERVISOR_DISK_DISK_COPY_H

#include "hypervisor/disk/disk.h"

#define DISK_COPY_CHUNK_BYTES     (1U << 20)
#define DISK_COPY_CHUNK_BYTES_MAX (32U << 20) /* DISK_REQUEST_BYTES_MAX */
#define DISK_COPY_DEPTH           8U
#define DISK_COPY_DEPTH_MAX       64U

struct disk_copy_options {
	struct disk *from;    /* borrowed */
	struct disk *to;      /* borrowed; active; at least as large; on the same loop */
	uint32_t chunk_bytes; /* 0: DISK_COPY_CHUNK_BYTES; a multiple of 4096 */
	uint32_t depth;       /* pieces in flight; 0: DISK_COPY_DEPTH */
	bool detect_zeroes;   /* data that is all zeros is not written as data */
	bool fresh;           /* the target reads zero everywhere: nothing is cleared */
	/* The source's guest goes on writing, and a hook of the caller's writes the same to the
	 * target: each piece is read and written under the source's range lock. */
	bool live;
	disk_progress progress; /* may be NULL */
	void *context;
};

/**
 * disk_copy - copy, and return when all is written (not flushed).
 * Blocking; on any thread but a started loop's.
 * Return: 0; -EINVAL options, or the target is smaller (names both sizes); -ECANCELED by
 * @progress; -ENOMEM; what reading the source or writing the target gave (the text says which).
 */
BASE_MUST_CHECK int disk_copy(const struct disk_copy_options *options, struct base_error *err);

#endif
