/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocks of a saved state as bytes: file header, section header, end section.
 * Pure; docs/hypervisor/saved-state.md gives the layout.
 */
#ifndef HYPERVISOR_STATE_SECTION_H
#define HYPERVISOR_STATE_SECTION_H

#include <stdint.h>

#include "base/error.h"
#include "hypervisor/state_file.h"

#define HV_STATE_FORMAT_VERSION 1u
#define HV_STATE_END_NAME       "end"
#define HV_STATE_RAM_NAME       "ram" /* the only name that may come more than once */
#define HV_STATE_END_BYTES      16u

/* Payload length with its padding. */
static inline uint64_t hv_state_padded(uint64_t payload_bytes)
{
	return (payload_bytes + HV_STATE_ALIGN_BYTES - 1) & ~(HV_STATE_ALIGN_BYTES - 1);
}

void hv_state_file_header_encode(uint8_t block[HV_STATE_ALIGN_BYTES]);
/* -EBADMSG not finished, no saved state, corrupted; -ENOTSUP newer. */
BASE_MUST_CHECK int hv_state_file_header_decode(const uint8_t block[HV_STATE_ALIGN_BYTES],
						struct base_error *err);

/* @section: its payload_offset is not part of the header. */
void hv_state_section_encode(const struct hv_state_section *section,
			     uint8_t block[HV_STATE_ALIGN_BYTES]);
/* Fills all but payload_offset.  -EBADMSG with what is wrong. */
BASE_MUST_CHECK int hv_state_section_decode(const uint8_t block[HV_STATE_ALIGN_BYTES],
					    struct hv_state_section *ret_section,
					    struct base_error *err);

#endif
