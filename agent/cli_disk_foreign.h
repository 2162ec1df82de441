/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk images of other programs, known by their first bytes, so that none is taken for raw.
 * Pure; any thread.
 */
#ifndef AGENT_CLI_DISK_FOREIGN_H
#define AGENT_CLI_DISK_FOREIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLI_FOREIGN_LOOK_BYTES 512

enum cli_foreign {
	CLI_FOREIGN_NONE,
	CLI_FOREIGN_QCOW,
	CLI_FOREIGN_QCOW2,
	CLI_FOREIGN_QED,
	CLI_FOREIGN_VMDK,
	CLI_FOREIGN_VDI,
	CLI_FOREIGN_PARALLELS,
	CLI_FOREIGNS
};

/* By the first @size_bytes (up to CLI_FOREIGN_LOOK_BYTES are looked at). */
enum cli_foreign cli_foreign_find(const uint8_t *bytes, size_t size_bytes);
const char *cli_foreign_name(enum cli_foreign foreign); /* as qemu-img's -f calls it */

/* Where a qcow2 image takes content from besides its own file. */
struct cli_qcow2_outside {
	bool backing;   /* a backing file */
	bool data_file; /* an external data file */
};
/* Header of a qcow2 image: false when it is too short. */
bool cli_qcow2_outside(const uint8_t *bytes, size_t size_bytes,
		       struct cli_qcow2_outside *ret_outside);

#endif
