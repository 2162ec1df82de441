/* SPDX-License-Identifier: Apache-2.0 */
/* The messages between a reader and its child: one packet each, of one build of this program. */
#ifndef HYPERVISOR_BOOTDISK_BOOTDISK_READER_PRIV_H
#define HYPERVISOR_BOOTDISK_BOOTDISK_READER_PRIV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"

#define READER_FDS          2u
#define READER_RESTARTS_MAX 16u /* of the helper: what ends it more often does so on purpose */

enum reader_kind {
	READER_INVALID,
	READER_READ,
	READER_DONE,
	READER_KINDS
};

/* To the helper, with the child's end of a socket. */
struct reader_order {
	uint64_t size_bytes;
	uint64_t file_bytes_max;
	uint32_t sector_bytes;
	uint32_t reserved;
};

/* From the child. */
struct reader_message {
	uint32_t kind;
	int32_t code; /* DONE */
	uint64_t offset;
	uint32_t size_bytes;
	uint32_t reserved;
	char text[BASE_ERROR_TEXT_BYTES];
	struct bootdisk_entry entry; /* its descriptors travel beside it */
};

/* To the child, after READ. */
struct reader_data {
	int32_t code;
	uint32_t reserved;
	uint8_t bytes[BOOTDISK_LINE_BYTES];
};

/* One packet with up to READER_FDS descriptors; bytes, 0 at the end, or negative errno.  What was
 * not filled of @fds is -1. */
ssize_t reader_send(int socket_fd, const void *data, size_t bytes, const int *fds, size_t fd_count);
ssize_t reader_receive(int socket_fd, void *data, size_t bytes, int fds[READER_FDS]);

/* Everything that is not needed to read a disk through a socket is given up for ever.  No file
 * grows beyond @file_bytes_max. */
BASE_MUST_CHECK int bootdisk_lock_down(uint64_t file_bytes_max);
/* The keeper, and the helper below it: never returns. */
_Noreturn void reader_keeper(int socket_fd);

#endif
