/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory in a saved state: sections "ram", each a run of pages as runs of
 * zero, raw and LZ4 pages.  docs/hypervisor/saved-state.md, "ram".
 * The VM is paused: nothing writes its memory meanwhile.  Blocks; works on @pool and the
 * calling thread.
 */
#ifndef HYPERVISOR_RAM_STATE_H
#define HYPERVISOR_RAM_STATE_H

#include "base/pool.h"
#include "hypervisor/slat.h"
#include "hypervisor/state_file.h"

struct hv_ram_report {
	uint64_t page_count;
	uint64_t zero_page_count;
	uint64_t raw_page_count;
	uint64_t lz4_page_count;
	uint64_t stored_bytes;
};

/* Every page of RAM once.  2 MiB that the host never provided are found without touching them. */
BASE_MUST_CHECK int hv_ram_save(struct hv_slat *slat, struct base_pool *pool,
				struct hv_state_writer *writer, struct hv_ram_report *ret_report,
				struct base_error *err);
/**
 * hv_ram_restore - fill fresh (all zero) guest memory.
 * -EBADMSG: a section is malformed, fails its CRC, or the sections together do not
 * cover every page exactly once.  On failure the content of RAM is undefined.
 */
BASE_MUST_CHECK int hv_ram_restore(struct hv_slat *slat, struct base_pool *pool,
				   const struct hv_state_reader *reader,
				   struct hv_ram_report *ret_report, struct base_error *err);

#endif
