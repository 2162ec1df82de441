/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For benchmarks: a VHDX with random data in it, in one of two folders, and what a person would do
 * with its file to have it in the other.  What cannot be done ends the program.
 */
#ifndef SUPPORT_BENCH_DISK_H
#define SUPPORT_BENCH_DISK_H

#include "hypervisor/disk/disk.h"

#define BENCH_DISK_BUFFER_BYTES (8u << 20) /* the larger block of a copy */

struct bench_disk {
	char folder[400];
	char paths[2][420]; /* below it */
	struct store *stores[2];
	uint32_t at; /* where the disk is */
	struct base_io_loop *loop;
	struct disk *disk; /* active */
	uint64_t size_bytes;
	uint64_t data_bytes; /* in extents spread over it */
	uint8_t *buffer;
};

/* In a folder of that @name below the tests' own; size and data are set. */
void bench_disk_init(struct bench_disk *bench, const char *name);
void bench_disk_fini(struct bench_disk *bench);
/* The file, to the other folder: O_DIRECT on both sides, holes left out, fdatasync; then gone. */
void bench_disk_copy(const struct bench_disk *bench, size_t block_bytes);

#endif
