/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bench for tests of disks: a fake store, a loop that the test pumps, a clock set by hand, and a
 * record of what the disk told.  One thread.  Whatever goes wrong here is a bug of the test.
 */
#ifndef TESTS_SUPPORT_DISK_LAB_H
#define TESTS_SUPPORT_DISK_LAB_H

#include "hypervisor/disk/disk.h"
#include "hypervisor/disk/fake_store.h"

#define LAB_SECTOR_BYTES 512U

struct disk_lab {
	struct base_fake_clock time;
	struct base_clock clock;
	struct base_io_loop *loop;
	struct store *store;
	struct disk_options options; /* of the next disk_lab_open(): policies and so on */
	struct disk_events events;
	/* What was told. */
	uint32_t stalled, unstalled, resized, failed;
	int stall_code;
	uint64_t size_bytes;
	char why[256];
};

/* A request that the test owns; its buffer is filled or looked at by pattern. */
struct lab_request {
	struct disk_request request;
	struct iovec iov;
	void *buffer;
	bool done;
	int result;
	uint32_t order; /* the how-many-th to be done, from 1 */
};

void disk_lab_init(struct disk_lab *lab);
void disk_lab_fini(struct disk_lab *lab);
/* Make an image; @parent NULL but for differencing ones. */
void disk_lab_make(struct disk_lab *lab, const char *name, enum disk_format format,
		   enum disk_kind kind, uint64_t size_bytes, const char *parent);
struct disk *disk_lab_open(struct disk_lab *lab, const char *name); /* active at epoch 7 */
struct disk *disk_lab_open_standby(struct disk_lab *lab, const char *name);

/* Bytes that tell where they belong and which @version wrote them; version 0 is zeros. */
void lab_fill(void *to, uint64_t offset_bytes, uint64_t length_bytes, uint32_t version);
/* First offset that is not as lab_fill() would have it; UINT64_MAX: all are. */
uint64_t lab_differs(const void *data, uint64_t offset_bytes, uint64_t length_bytes,
		     uint32_t version);

/* Blocking: write or verify by pattern; 0 or the disk's error; verify -EILSEQ. */
int lab_write(struct disk *disk, uint64_t offset_bytes, uint64_t length_bytes, uint32_t version);
int lab_verify(struct disk *disk, uint64_t offset_bytes, uint64_t length_bytes, uint32_t version);

/* Asynchronous: submit, and the test pumps. */
void lab_submit(struct disk *disk, struct lab_request *lab, enum disk_op op, uint32_t flags,
		uint64_t offset_bytes, uint64_t length_bytes, uint32_t version);
void lab_request_fini(struct lab_request *lab);
/* Pump until nothing more happens by itself. */
void disk_lab_settle(struct disk_lab *lab);
/* Let time pass and settle. */
void disk_lab_pass_ms(struct disk_lab *lab, uint64_t ms);

#endif
