/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of images whose disk begins at byte 0 of the file and lies there in one piece: raw
 * and fixed VHD.  Loop thread.
 */
#ifndef HYPERVISOR_DISK_FLAT_IO_H
#define HYPERVISOR_DISK_FLAT_IO_H

#include "hypervisor/disk/image_priv.h"

#define FLAT_GRANULARITY_BYTES 4096U /* what file systems give back */

/* READ, WRITE, FLUSH, UNMAP, ZERO, MAP. */
void flat_submit(struct image *image, struct disk_request *request);
/* A flush of the store ended with @result: image_fail() where nothing can be said any more about
 * what completed before.  Returns @result. */
int flat_flushed(struct image *image, int result);
/* Bytes of the file below @size_bytes that hold data; UINT64_MAX when the store does not say.
 * Blocking. */
uint64_t flat_data_bytes(struct image *image, uint64_t size_bytes);
/* Submit a request that was filled in but for epoch, done and context, and wait for it.
 * Blocking. */
int flat_wait(struct image *image, struct store_request *store);

#endif
