/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GUIDs as VHDX stores them: 16 bytes, the first three fields little-endian
 * (RFC 4122 gives the text form; MS-DTYP 2.3.4 the byte order).  Any thread.
 */
#ifndef HYPERVISOR_DISK_GUID_H
#define HYPERVISOR_DISK_GUID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_GUID_TEXT_BYTES 39 /* "{8-4-4-4-12}" and the terminator */

struct disk_guid {
	uint8_t bytes[16]; /* as on disk */
};

/* A new random one (version 4). */
struct disk_guid disk_guid_new(void);
bool disk_guid_equal(const struct disk_guid *a, const struct disk_guid *b);
bool disk_guid_is_zero(const struct disk_guid *guid);
/* "{XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX}", lower case. */
void disk_guid_text(const struct disk_guid *guid, char ret_text[DISK_GUID_TEXT_BYTES]);
/* With or without braces, any case; false when it is no GUID. */
bool disk_guid_parse(const char *text, size_t text_bytes, struct disk_guid *ret_guid);

#endif
