/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of runs, and what to do with a page: nothing, keep, compress.
 */
#include "hypervisor/ram_codec.h"

#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <string.h>

#define SAMPLES 8u /* pages tried per chunk: 1.6 % of the work when they do not shrink */

/* What must be saved of the length: decompressing has to cost less than reading would. */
static uint32_t worth_bytes(uint64_t raw_bytes)
{
	return (uint32_t)(raw_bytes - raw_bytes / 4);
}

size_t hv_ram_table_bytes(const struct hv_ram_table *table)
{
	size_t bytes = HV_RAM_TABLE_HEAD + (size_t)table->run_count * HV_RAM_RUN_BYTES;

	if (table->raw_bytes == 0 && table->lz4_bytes == 0)
		return bytes;
	return (bytes + HV_PAGE_BYTES - 1) & ~(HV_PAGE_BYTES - 1);
}

void hv_ram_table_encode(const struct hv_ram_table *table, uint8_t *to)
{
	struct base_writer out = base_writer_over(to, hv_ram_table_bytes(table));

	base_write_le64(&out, table->first_page);
	base_write_le64(&out, table->page_count);
	base_write_le32(&out, table->run_count);
	base_write_le32(&out, 0);
	for (uint32_t i = 0; i < table->run_count; i++) {
		base_write_le32(&out, (uint32_t)table->runs[i].kind);
		base_write_le32(&out, table->runs[i].stored_bytes);
		base_write_le64(&out, table->runs[i].page_count);
	}
	base_write_zeros(&out, out.size_bytes - out.offset_bytes);
	base_assert(!out.failed);
}

static int decode_head(struct base_reader *in, struct hv_ram_table *table, struct base_error *err)
{
	uint32_t zero = 0;

	table->first_page = base_read_le64(in);
	table->page_count = base_read_le64(in);
	table->run_count = base_read_le32(in);
	zero = base_read_le32(in);
	if (in->failed)
		return base_fail(err, -EBADMSG, "ram: truncated");
	if (table->first_page % HV_RAM_CHUNK_PAGES != 0 || table->page_count == 0 ||
	    table->page_count % HV_RAM_CHUNK_PAGES != 0 || zero != 0)
		return base_fail(err, -EBADMSG,
				 "ram: %" PRIu64 " pages from %" PRIu64
				 " are no whole chunks of %u",
				 table->page_count, table->first_page, HV_RAM_CHUNK_PAGES);
	if (table->run_count == 0 || table->run_count > HV_RAM_CHUNK_PAGES)
		return base_fail(err, -EBADMSG, "ram: %" PRIu32 " runs, not 1 to %u",
				 table->run_count, HV_RAM_CHUNK_PAGES);
	return 0;
}

/* One run; @left pages of the section are not covered yet. */
static int decode_run(struct base_reader *in, uint64_t left, struct hv_ram_run *ret_run,
		      struct base_error *err)
{
	uint32_t kind = base_read_le32(in);
	uint32_t stored = base_read_le32(in);
	uint64_t pages = base_read_le64(in);
	bool well = pages > 0 && pages <= left;

	if (in->failed)
		return base_fail(err, -EBADMSG, "ram: truncated in the runs");
	if (kind == HV_RAM_ZERO)
		well = well && stored == 0;
	else if (kind == HV_RAM_RAW)
		well = well && pages <= HV_RAM_CHUNK_PAGES && stored == pages * HV_PAGE_BYTES;
	else if (kind == HV_RAM_LZ4)
		well = well && pages <= HV_RAM_LZ4_PAGES_MAX && stored > 0 &&
		       stored < pages * HV_PAGE_BYTES;
	else
		well = false;
	if (!well)
		return base_fail(err, -EBADMSG,
				 "ram: run of kind %" PRIu32 " with %" PRIu64 " pages in %" PRIu32
				 " bytes, %" PRIu64 " pages are left",
				 kind, pages, stored, left);
	*ret_run = (struct hv_ram_run){ (enum hv_ram_kind)kind, stored, pages };
	return 0;
}

static int decode_runs(struct base_reader *in, struct hv_ram_table *table, struct base_error *err)
{
	uint64_t left = table->page_count;

	table->raw_bytes = 0;
	table->lz4_bytes = 0;
	for (uint32_t i = 0; i < table->run_count; i++) {
		struct hv_ram_run *run = &table->runs[i];
		int r = decode_run(in, left, run, err);

		if (r < 0)
			return r;
		if (i > 0 && run->kind != HV_RAM_LZ4 && run->kind == run[-1].kind)
			return base_fail(err, -EBADMSG, "ram: two runs that are one");
		left -= run->page_count;
		if (run->kind == HV_RAM_RAW)
			table->raw_bytes += run->stored_bytes;
		if (run->kind == HV_RAM_LZ4)
			table->lz4_bytes += run->stored_bytes;
	}
	if (left != 0)
		return base_fail(err, -EBADMSG, "ram: %" PRIu64 " pages are in no run", left);
	if (table->page_count > HV_RAM_CHUNK_PAGES &&
	    (table->run_count != 1 || table->runs[0].kind != HV_RAM_ZERO))
		return base_fail(err, -EBADMSG, "ram: %" PRIu64 " pages with content, limit %u",
				 table->page_count, HV_RAM_CHUNK_PAGES);
	return 0;
}

int hv_ram_table_decode(struct base_reader *in, uint64_t payload_bytes,
			struct hv_ram_table *ret_table, struct base_error *err)
{
	const uint8_t *padding = NULL;
	size_t padding_bytes = 0;
	size_t table_bytes = 0;
	int r = decode_head(in, ret_table, err);

	if (r < 0)
		return r;
	r = decode_runs(in, ret_table, err);
	if (r < 0)
		return r;

	table_bytes = hv_ram_table_bytes(ret_table);
	padding_bytes =
		table_bytes - HV_RAM_TABLE_HEAD - (size_t)ret_table->run_count * HV_RAM_RUN_BYTES;
	padding = base_read_span(in, padding_bytes);
	if (in->failed || (padding_bytes > 0 && !base_is_zero(padding, padding_bytes)))
		return base_fail(err, -EBADMSG, "ram: padding is missing or not zero");
	/* All three are far below 2^32 here. */
	if (payload_bytes != table_bytes + ret_table->raw_bytes + ret_table->lz4_bytes)
		return base_fail(
			err, -EBADMSG, "ram: %" PRIu64 " bytes, the runs need %zu and %" PRIu64,
			payload_bytes, table_bytes, ret_table->raw_bytes + ret_table->lz4_bytes);
	return 0;
}

static void add_run(struct hv_ram_table *table, enum hv_ram_kind kind, uint32_t page_count,
		    uint32_t stored_bytes)
{
	struct hv_ram_run *last = table->run_count > 0 ? &table->runs[table->run_count - 1] : NULL;

	if (kind == HV_RAM_RAW)
		table->raw_bytes += stored_bytes;
	if (kind == HV_RAM_LZ4)
		table->lz4_bytes += stored_bytes;
	if (last != NULL && last->kind == kind && kind != HV_RAM_LZ4) {
		last->page_count += page_count;
		last->stored_bytes += stored_bytes;
		return;
	}
	table->runs[table->run_count++] = (struct hv_ram_run){ kind, stored_bytes, page_count };
}

/* Does one of a few pages, spread over those that are not zero, shrink? */
static bool is_compressible(const uint8_t *pages, const bool zero[HV_RAM_CHUNK_PAGES],
			    uint32_t used_count)
{
	uint32_t step = used_count / SAMPLES + 1;
	char shrunk[HV_PAGE_BYTES];
	uint32_t used = 0;

	for (uint32_t i = 0; i < HV_RAM_CHUNK_PAGES; i++) {
		if (zero[i] || used++ % step != 0)
			continue;
		if (LZ4_compress_default((const char *)pages + i * HV_PAGE_BYTES, shrunk,
					 (int)HV_PAGE_BYTES, (int)worth_bytes(HV_PAGE_BYTES)) > 0)
			return true;
	}
	return false;
}

void hv_ram_choose(const uint8_t *pages, uint8_t *scratch, struct hv_ram_table *ret_table)
{
	bool zero[HV_RAM_CHUNK_PAGES];
	uint32_t used_count = 0;
	bool compress = false;
	uint32_t next = 0;

	ret_table->page_count = HV_RAM_CHUNK_PAGES;
	ret_table->run_count = 0;
	ret_table->raw_bytes = 0;
	ret_table->lz4_bytes = 0;
	for (uint32_t i = 0; i < HV_RAM_CHUNK_PAGES; i++) {
		zero[i] = base_is_zero(pages + i * HV_PAGE_BYTES, HV_PAGE_BYTES);
		used_count += zero[i] ? 0 : 1;
	}
	compress = used_count > 0 && is_compressible(pages, zero, used_count);

	for (uint32_t i = 0; i < HV_RAM_CHUNK_PAGES; i = next) {
		const uint8_t *from = pages + i * HV_PAGE_BYTES;
		uint32_t limit = compress && !zero[i] ? HV_RAM_LZ4_PAGES_MAX : HV_RAM_CHUNK_PAGES;
		uint32_t bytes = 0;
		int stored = 0;

		for (next = i + 1; next < HV_RAM_CHUNK_PAGES && next - i < limit; next++) {
			if (zero[next] != zero[i])
				break;
		}
		if (zero[i]) {
			add_run(ret_table, HV_RAM_ZERO, next - i, 0);
			continue;
		}
		bytes = (next - i) * (uint32_t)HV_PAGE_BYTES;
		if (compress)
			stored = LZ4_compress_default((const char *)from,
						      (char *)scratch + ret_table->lz4_bytes,
						      (int)bytes, (int)worth_bytes(bytes));
		if (stored > 0)
			add_run(ret_table, HV_RAM_LZ4, next - i, (uint32_t)stored);
		else
			add_run(ret_table, HV_RAM_RAW, next - i, bytes);
	}
}
