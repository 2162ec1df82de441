/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One section "ram": its table of runs as bytes, and the choice of runs for a chunk
 * of memory.  Pure; any thread.  docs/hypervisor/saved-state.md, "ram".
 */
#ifndef HYPERVISOR_RAM_CODEC_H
#define HYPERVISOR_RAM_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "hypervisor/hv_limits.h"
#include "hypervisor/state_file.h"

#define HV_RAM_VERSION         1u
#define HV_RAM_CHUNK_PAGES     512u /* 2 MiB: one huge page, and memory is a multiple of it */
#define HV_RAM_CHUNK_BYTES     (HV_RAM_CHUNK_PAGES * HV_PAGE_BYTES)
#define HV_RAM_LZ4_PAGES_MAX   16u /* 64 KiB: as far back as LZ4 can refer */
#define HV_RAM_TABLE_HEAD      24u
#define HV_RAM_RUN_BYTES       16u
#define HV_RAM_TABLE_BYTES_MAX (HV_RAM_TABLE_HEAD + HV_RAM_CHUNK_PAGES * HV_RAM_RUN_BYTES)

enum hv_ram_kind {
	HV_RAM_INVALID,
	HV_RAM_ZERO,
	HV_RAM_RAW,
	HV_RAM_LZ4, /* one block */
	HV_RAM_KINDS
};

struct hv_ram_run {
	enum hv_ram_kind kind;
	uint32_t stored_bytes;
	uint64_t page_count;
};

struct hv_ram_table {
	uint64_t first_page;
	uint64_t page_count;
	uint32_t run_count;
	struct hv_ram_run runs[HV_RAM_CHUNK_PAGES];
	uint64_t raw_bytes; /* sums over the runs */
	uint64_t lz4_bytes;
};

/* Bytes of the table in a payload: with the padding before the data, if there is data. */
size_t hv_ram_table_bytes(const struct hv_ram_table *table);
/* @to: hv_ram_table_bytes(). */
void hv_ram_table_encode(const struct hv_ram_table *table, uint8_t *to);
/**
 * hv_ram_table_decode - read the table of a section.
 * @in: the payload from its beginning, at least as much of it as the table with its padding
 *      needs (HV_RAM_TABLE_BYTES_MAX rounded up to a page always is enough).
 * @payload_bytes: of the whole section, which must be just what the table says.
 * -EBADMSG malformed.
 */
BASE_MUST_CHECK int hv_ram_table_decode(struct base_reader *in, uint64_t payload_bytes,
					struct hv_ram_table *ret_table, struct base_error *err);

/**
 * hv_ram_choose - cut a chunk that does not change meanwhile into runs.
 * @pages: HV_RAM_CHUNK_PAGES pages.
 * @scratch: HV_RAM_CHUNK_BYTES, left with the LZ4 blocks one after the other.
 * @ret_table: complete but for first_page, which is left alone.
 */
void hv_ram_choose(const uint8_t *pages, uint8_t *scratch, struct hv_ram_table *ret_table);

#endif
