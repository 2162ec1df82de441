/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a VHDX image: both headers, both region tables, every BAT entry, what lies over what,
 * and what nothing uses.
 *
 * Blocking; of an image in standby, or with repair of one that was activated and not written to
 * since, while no request is in flight.  Reads with the log applied, so that what is judged is
 * what an opener would see.  Only what has a whole copy is mended, and space that nothing names
 * is given back; a table that names what is not there is reported and left as it is: what was
 * meant cannot be proven.  Nor is a table replaced that carries a right checksum: somebody
 * meant it.
 *
 * The map of used space is bounded by what a VHDX can use (VHDX_CHECK_BYTES_MAX), whatever the
 * size of the file claims.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "hypervisor/disk/vhdx_journal_priv.h"

#define BAT_PIECE_BYTES      (1U << 20)
#define VHDX_CHECK_BYTES_MAX (128ULL << 40) /* 64 TB of data and as much again */
#define REPORTS_MAX          1000           /* lines; all findings are counted */

struct check {
	struct vhdx *vhdx;
	bool repair;
	disk_report report;
	void *context;
	struct disk_check_result *result;
	uint64_t *used; /* a bit per MiB of the file */
	uint64_t *kept; /* the same, of what entries without data still name */
	uint64_t unit_count;
	uint64_t end_bytes;
	uint64_t kept_end_bytes;
	uint64_t reports;
	uint64_t partial_chunk; /* chunk with a partial block, plus one; 0: none yet */
};

static void found(struct check *check, enum disk_finding finding, const char *format, ...)
	BASE_PRINTF(3, 4);

static void found(struct check *check, enum disk_finding finding, const char *format, ...)
{
	char text[STORE_NAME_BYTES];
	va_list args;

	if (finding == DISK_LEAK)
		check->result->leaks++;
	else if (finding == DISK_DAMAGE)
		check->result->damages++;
	else
		check->result->repaired++;
	if (check->report == NULL || check->reports > REPORTS_MAX)
		return;
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (check->reports == REPORTS_MAX)
		(void)snprintf(text, sizeof(text),
			       "more findings than %d: the rest is only counted", REPORTS_MAX);
	check->reports++;
	check->report(check->context, finding, text);
}

/* Whether a text would still be told: a hostile BAT has tens of millions of entries. */
static bool is_told(const struct check *check)
{
	return check->report != NULL && check->reports < REPORTS_MAX;
}

/* --- the map of used space --- */

/* Marks a range; false when some of it was marked before. */
static bool use(struct check *check, uint64_t offset_bytes, uint64_t length_bytes)
{
	uint64_t first = offset_bytes / VHDX_MIB;
	uint64_t last = (offset_bytes + length_bytes + VHDX_MIB - 1) / VHDX_MIB;
	bool alone = true;

	for (uint64_t unit = first; unit < last && unit < check->unit_count; unit++) {
		uint64_t bit = 1ULL << (unit % 64);

		if ((check->used[unit / 64] & bit) != 0)
			alone = false;
		check->used[unit / 64] |= bit;
	}
	if (offset_bytes + length_bytes > check->end_bytes)
		check->end_bytes = offset_bytes + length_bytes;
	return alone;
}

/* UNMAPPED and its like may go on naming space: whoever wrote that may count on it. */
static void keep(struct check *check, uint64_t offset_bytes)
{
	uint64_t file_bytes = check->vhdx->file_bytes;
	uint64_t length = check->vhdx->block_bytes;
	uint64_t first = offset_bytes / VHDX_MIB;

	if (offset_bytes == 0 || offset_bytes >= file_bytes)
		return;
	if (length > file_bytes - offset_bytes)
		length = file_bytes - offset_bytes;
	for (uint64_t unit = first;
	     unit < first + (length + VHDX_MIB - 1) / VHDX_MIB && unit < check->unit_count; unit++)
		check->kept[unit / 64] |= 1ULL << (unit % 64);
	if (offset_bytes + length > check->kept_end_bytes)
		check->kept_end_bytes = offset_bytes + length;
}

static void use_region(struct check *check, const char *what, uint64_t offset_bytes,
		       uint64_t length_bytes)
{
	if (!use(check, offset_bytes, length_bytes))
		found(check, DISK_DAMAGE, "%s at 0x%" PRIx64 ": overlaps another structure", what,
		      offset_bytes);
}

static int map_begin(struct check *check, struct base_error *err)
{
	const struct vhdx *vhdx = check->vhdx;
	uint64_t bytes = vhdx->file_bytes;

	if (bytes > VHDX_CHECK_BYTES_MAX)
		bytes = VHDX_CHECK_BYTES_MAX;
	check->unit_count = (bytes + VHDX_MIB - 1) / VHDX_MIB;
	check->used = calloc(check->unit_count / 64 + 1, sizeof(uint64_t));
	check->kept = calloc(check->unit_count / 64 + 1, sizeof(uint64_t));
	if (check->used == NULL || check->kept == NULL)
		return base_fail(err, -ENOMEM, "check: a map of %" PRIu64 " MiB",
				 check->unit_count);
	(void)use(check, 0, VHDX_MIB);
	use_region(check, "log", vhdx->header.log_offset, vhdx->header.log_bytes);
	use_region(check, "metadata region", vhdx->regions.metadata.offset_bytes,
		   vhdx->regions.metadata.length_bytes);
	use_region(check, "BAT region", vhdx->regions.bat.offset_bytes,
		   vhdx->regions.bat.length_bytes);
	for (uint32_t i = 0; i < vhdx->regions.other_count; i++)
		use_region(check, "unknown region", vhdx->regions.other[i].offset_bytes,
			   vhdx->regions.other[i].length_bytes);
	return 0;
}

/* --- waiting for the loop --- */

struct scan {
	struct vhdx *vhdx;
	struct vhdx_waiter waiter;
	uint64_t cut_bytes;
	int result;
	bool done;
};

static void scan_over(struct vhdx_waiter *waiter, int result)
{
	struct scan *scan = waiter->context;

	scan->result = result;
	base_io_done(scan->vhdx->image.loop, &scan->done);
}

static void touch_call(void *context)
{
	struct scan *scan = context;
	int code = 0;

	scan->waiter = (struct vhdx_waiter){ .run = scan_over, .context = scan };
	code = vhdx_touch(scan->vhdx, false, &scan->waiter);
	if (code == -EINPROGRESS)
		return;
	scan_over(&scan->waiter, code);
}

/* The session's first change: afterwards both headers are written anew, one now and one when the
 * session ends. */
static int touch(struct vhdx *vhdx)
{
	struct scan scan = { .vhdx = vhdx };

	base_io_call(vhdx->image.loop, touch_call, &scan);
	base_io_wait(vhdx->image.loop, &scan.done);
	return scan.result;
}

/* --- headers and region tables --- */

static int check_header(struct check *check, struct base_error *err)
{
	uint8_t bytes[VHDX_HEADER_BYTES] __attribute__((aligned(VHDX_HEADER_BYTES)));
	uint64_t place = check->vhdx->header_slot == 0 ? VHDX_HEADER2_OFFSET : VHDX_HEADER1_OFFSET;
	struct vhdx_header header;
	struct base_error why = { 0 };
	int code = store_do(check->vhdx->image.file, STORE_READ, place, bytes, sizeof(bytes), err);

	if (code < 0 || vhdx_header_decode(bytes, place, &header, &why) == 0)
		return code;
	/* What a power failure during a header's write leaves: harmless. */
	if (!check->repair) {
		found(check, DISK_LEAK, "%s; the other header is whole and is used", why.text);
		return 0;
	}
	code = touch(check->vhdx); /* writes the one that is not current */
	if (code < 0)
		return base_fail_errno(err, code, "header at 0x%" PRIx64 ": repair", place);
	found(check, DISK_REPAIRED, "header at 0x%" PRIx64 ": written anew", place);
	return 0;
}

/* Write the good copy of the region table over the broken one, through the log. */
struct mend {
	struct vhdx *vhdx;
	const uint8_t *table;
	uint64_t offset_bytes;
	struct vhdx_waiter waiter;
	int result;
	bool done;
};

static void mend_over(struct mend *mend, int result)
{
	mend->result = result;
	base_io_done(mend->vhdx->image.loop, &mend->done);
}

static void mend_committed(struct vhdx_waiter *waiter, int result)
{
	mend_over(waiter->context, result);
}

static void mend_write(struct mend *mend)
{
	for (uint32_t at = 0; at < VHDX_REGION_TABLE_BYTES; at += VHDX_PAGE_BYTES) {
		int code = vhdx_commit_extra(mend->vhdx, mend->offset_bytes + at, mend->table + at);

		if (code < 0) {
			mend_over(mend, code);
			return;
		}
	}
	mend->waiter.run = mend_committed;
	vhdx_commit(mend->vhdx, &mend->waiter);
}

static void mend_touched(struct vhdx_waiter *waiter, int result)
{
	if (result < 0)
		mend_over(waiter->context, result);
	else
		mend_write(waiter->context);
}

static void mend_call(void *context)
{
	struct mend *mend = context;
	int code = 0;

	mend->waiter = (struct vhdx_waiter){ .run = mend_touched, .context = mend };
	code = vhdx_touch(mend->vhdx, false, &mend->waiter);
	if (code == 0)
		mend_write(mend);
	else if (code != -EINPROGRESS)
		mend_over(mend, code);
}

static int mend_table(struct check *check, const uint8_t *table, uint64_t offset_bytes,
		      struct base_error *err)
{
	struct mend mend = { .vhdx = check->vhdx, .table = table, .offset_bytes = offset_bytes };

	base_io_call(check->vhdx->image.loop, mend_call, &mend);
	base_io_wait(check->vhdx->image.loop, &mend.done);
	if (mend.result < 0)
		return base_fail_errno(err, mend.result, "region table at 0x%" PRIx64 ": repair",
				       offset_bytes);
	found(check, DISK_REPAIRED, "region table at 0x%" PRIx64 ": written anew from its copy",
	      offset_bytes);
	return 0;
}

enum table_state {
	TABLE_BROKEN, /* torn or never written: its bytes say nothing */
	TABLE_WRONG,  /* as somebody wrote it, and not usable */
	TABLE_WHOLE
};

static enum table_state table_judge(const struct check *check, const uint8_t *table,
				    uint64_t offset_bytes, struct base_error *why)
{
	static const uint8_t no_crc[4];
	struct vhdx_regions regions;
	uint32_t crc = base_crc32c(0, table, 4);

	if (vhdx_regions_decode(table, offset_bytes, check->vhdx->file_bytes, &regions, why) == 0)
		return TABLE_WHOLE;
	crc = base_crc32c(crc, no_crc, sizeof(no_crc));
	crc = base_crc32c(crc, table + 8, VHDX_REGION_TABLE_BYTES - 8);
	return memcmp(table, "regi", 4) == 0 && base_get_le32(table + 4) == crc ? TABLE_WRONG
										: TABLE_BROKEN;
}

static int check_tables(struct check *check, struct base_error *err)
{
	static const uint64_t places[2] = { VHDX_REGION1_OFFSET, VHDX_REGION2_OFFSET };
	BASE_FREE uint8_t *tables =
		aligned_alloc(VHDX_PAGE_BYTES, 2 * (size_t)VHDX_REGION_TABLE_BYTES);
	struct base_error why[2] = { 0 };
	enum table_state state[2] = { TABLE_BROKEN, TABLE_BROKEN };

	if (tables == NULL)
		return base_fail(err, -ENOMEM, "check: region tables");
	for (uint32_t i = 0; i < 2; i++) {
		uint8_t *table = tables + (size_t)i * VHDX_REGION_TABLE_BYTES;
		int code =
			vhdx_read_meta(check->vhdx, places[i], table, VHDX_REGION_TABLE_BYTES, err);

		if (code < 0)
			return code;
		state[i] = table_judge(check, table, places[i], &why[i]);
	}
	if (state[0] == TABLE_WHOLE && state[1] == TABLE_WHOLE &&
	    memcmp(tables, tables + VHDX_REGION_TABLE_BYTES, VHDX_REGION_TABLE_BYTES) != 0) {
		found(check, DISK_DAMAGE,
		      "region tables at 0x%" PRIx64 " and 0x%" PRIx64
		      ": both whole, and different; the first is used",
		      places[0], places[1]);
		return 0;
	}
	for (uint32_t i = 0; i < 2; i++) {
		if (state[i] == TABLE_WHOLE)
			continue;
		if (check->repair && state[i] == TABLE_BROKEN && state[1 - i] == TABLE_WHOLE) {
			int code = mend_table(check,
					      tables + (size_t)(1 - i) * VHDX_REGION_TABLE_BYTES,
					      places[i], err);

			if (code < 0)
				return code;
			continue;
		}
		found(check, DISK_DAMAGE, "%s; the other table is used", why[i].text);
	}
	return 0;
}

/* --- the BAT --- */

/* What nobody ever reads, the rest of the last block, may be missing at the file's end. */
static void check_place(struct check *check, const char *what, uint64_t number, uint64_t entry,
			uint64_t length_bytes, uint64_t needed_bytes)
{
	uint64_t offset = vhdx_entry_offset(entry);
	uint64_t file_bytes = check->vhdx->file_bytes;

	if (offset > file_bytes || needed_bytes > file_bytes - offset) {
		found(check, DISK_DAMAGE,
		      "%s %" PRIu64 ": at 0x%" PRIx64 ", %" PRIu64
		      " bytes: past the end of the file (%" PRIu64 " bytes)",
		      what, number, offset, needed_bytes, file_bytes);
		return;
	}
	if (length_bytes > file_bytes - offset)
		length_bytes = file_bytes - offset;
	if (!use(check, offset, length_bytes))
		found(check, DISK_DAMAGE,
		      "%s %" PRIu64 ": at 0x%" PRIx64 ": overlaps what is used already", what,
		      number, offset);
}

static void check_payload(struct check *check, uint64_t block, uint64_t entry)
{
	const struct vhdx *vhdx = check->vhdx;
	uint64_t visible = vhdx->meta.disk_bytes - block * vhdx->block_bytes;
	uint32_t state = vhdx_entry_state(entry);
	struct base_error why = { 0 };

	if (visible > vhdx->block_bytes)
		visible = vhdx->block_bytes;
	if (vhdx_payload_entry_decode(entry, vhdx->meta.has_parent, is_told(check) ? &why : NULL) <
	    0) {
		found(check, DISK_DAMAGE, "BAT, payload block %" PRIu64 ": %s", block, why.text);
		return;
	}
	if (state != VHDX_BLOCK_FULL && state != VHDX_BLOCK_PARTIAL) {
		keep(check, vhdx_entry_offset(entry));
		return;
	}
	check->result->blocks_allocated++;
	if (state == VHDX_BLOCK_PARTIAL)
		check->partial_chunk = block / vhdx->chunk_ratio + 1;
	check_place(check, "payload block", block, entry, vhdx->block_bytes, visible);
}

static void check_bitmap(struct check *check, uint64_t chunk, uint64_t entry)
{
	struct base_error why = { 0 };

	if (vhdx_bitmap_entry_decode(entry, is_told(check) ? &why : NULL) < 0)
		found(check, DISK_DAMAGE, "BAT, bitmap block %" PRIu64 ": %s", chunk, why.text);
	else if (vhdx_entry_state(entry) == VHDX_BITMAP_PRESENT)
		check_place(check, "bitmap block", chunk, entry, VHDX_BITMAP_BLOCK_BYTES,
			    VHDX_BITMAP_BLOCK_BYTES);
	else if (check->partial_chunk == chunk + 1)
		found(check, DISK_DAMAGE,
		      "bitmap block %" PRIu64
		      ": not present, and a block of its chunk is partially present",
		      chunk);
}

static void check_entry(struct check *check, uint64_t index, uint64_t entry)
{
	uint64_t chunk = index / (check->vhdx->chunk_ratio + 1);
	uint64_t in_chunk = index % (check->vhdx->chunk_ratio + 1);
	uint64_t block = chunk * check->vhdx->chunk_ratio + in_chunk;

	if (entry == 0 && in_chunk != check->vhdx->chunk_ratio)
		return; /* not present: most of them */
	if (in_chunk == check->vhdx->chunk_ratio)
		check_bitmap(check, chunk, entry);
	else if (block < check->vhdx->block_count)
		check_payload(check, block, entry);
}

static int check_bat(struct check *check, struct base_error *err)
{
	const struct vhdx *vhdx = check->vhdx;
	uint64_t total = vhdx->bat_entry_count * sizeof(uint64_t);
	BASE_FREE uint8_t *piece = aligned_alloc(VHDX_PAGE_BYTES, BAT_PIECE_BYTES);

	if (piece == NULL)
		return base_fail(err, -ENOMEM, "check: %u bytes of BAT", BAT_PIECE_BYTES);
	for (uint64_t at = 0; at < total; at += BAT_PIECE_BYTES) {
		uint64_t length = total - at < BAT_PIECE_BYTES ? total - at : BAT_PIECE_BYTES;
		size_t read = (length + VHDX_PAGE_BYTES - 1) & ~(size_t)(VHDX_PAGE_BYTES - 1);
		int code = vhdx_read_meta(check->vhdx, vhdx->regions.bat.offset_bytes + at, piece,
					  read, err);

		if (code < 0)
			return base_fail_within(err, code, "BAT at 0x%" PRIx64,
						vhdx->regions.bat.offset_bytes + at);
		for (uint64_t i = 0; i < length / sizeof(uint64_t); i++)
			check_entry(check, at / sizeof(uint64_t) + i,
				    base_get_le64(piece + i * sizeof(uint64_t)));
	}
	return 0;
}

/* --- what nothing uses --- */

static void scan_known(void *context)
{
	struct scan *scan = context;
	int code = 0;

	scan->done = false;
	scan->waiter = (struct vhdx_waiter){ .run = scan_over, .context = scan };
	code = vhdx_space_scan(scan->vhdx, &scan->waiter);
	if (code != -EINPROGRESS)
		scan_over(&scan->waiter, code);
}

static void scan_cut(void *context)
{
	struct scan *scan = context;

	scan->cut_bytes = vhdx_space_cut_bytes(scan->vhdx);
}

/* Know the space, so that the end of this session cuts the file's end off.  How much that will be
 * is the space's to say: it is at least as careful as we are. */
static int give_back(struct check *check, uint64_t tail_bytes, struct base_error *err)
{
	struct vhdx *vhdx = check->vhdx;
	struct scan scan = { .vhdx = vhdx };
	int code = touch(vhdx); /* a session that changed nothing would not cut */

	if (code < 0)
		return base_fail_errno(err, code, "unused space: repair");
	base_io_call(vhdx->image.loop, scan_known, &scan);
	base_io_wait(vhdx->image.loop, &scan.done);
	if (scan.result < 0 && scan.result != -EFBIG)
		return base_fail_errno(err, scan.result, "unused space: repair");
	base_io_call(vhdx->image.loop, scan_cut, &scan);
	if (scan.result == -EFBIG || scan.cut_bytes >= vhdx->file_bytes) {
		found(check, DISK_LEAK,
		      "%" PRIu64 " MiB at the end of the file are used by nothing: left as they "
		      "are, because the tables are not sure",
		      (uint64_t)(tail_bytes / VHDX_MIB));
		return 0;
	}
	found(check, DISK_REPAIRED,
	      "%" PRIu64 " MiB at the end of the file are used by nothing: cut off",
	      (uint64_t)((vhdx->file_bytes - scan.cut_bytes + VHDX_MIB - 1) / VHDX_MIB));
	return 0;
}

static int check_leaks(struct check *check, struct base_error *err)
{
	uint64_t file_bytes = check->vhdx->file_bytes;
	uint64_t end =
		check->end_bytes > check->kept_end_bytes ? check->end_bytes : check->kept_end_bytes;
	uint64_t end_unit = (end + VHDX_MIB - 1) / VHDX_MIB;
	uint64_t file_units = file_bytes / VHDX_MIB + (file_bytes % VHDX_MIB != 0);
	uint64_t tail_units = file_units > end_unit ? file_units - end_unit : 0;
	uint64_t inside = 0;

	for (uint64_t unit = 0; unit < end_unit && unit < check->unit_count; unit++) {
		uint64_t taken = check->used[unit / 64] | check->kept[unit / 64];

		inside += (taken >> (unit % 64) & 1U) == 0;
	}
	check->result->leaked_bytes = (inside + tail_units) * VHDX_MIB;
	if (inside > 0)
		found(check, DISK_LEAK,
		      "%" PRIu64 " MiB inside the file are used by nothing: new blocks go there; "
		      "compact gives them back",
		      inside);
	if (tail_units == 0)
		return 0;
	/* With damage, what the tables say is no proof that the end is garbage. */
	if (check->repair && check->result->damages == 0)
		return give_back(check, tail_units * VHDX_MIB, err);
	found(check, DISK_LEAK, "%" PRIu64 " MiB at the end of the file are used by nothing",
	      tail_units);
	return 0;
}

int vhdx_check(struct image *image, bool repair, disk_report report, void *context,
	       struct disk_check_result *ret_result, struct base_error *err)
{
	struct disk_check_result result = { 0 };
	struct check check = { .vhdx = vhdx_of(image),
			       .repair = repair && image->active,
			       .report = report,
			       .context = context,
			       .result = &result };
	int code = map_begin(&check, err);

	if (code == 0 && check.vhdx->overlay != NULL)
		found(&check, DISK_LEAK,
		      "log at 0x%" PRIx64
		      ": not empty: it is applied when the image is opened for writing",
		      check.vhdx->header.log_offset);
	if (code == 0)
		code = check_header(&check, err);
	if (code == 0)
		code = check_tables(&check, err);
	if (code == 0)
		code = check_bat(&check, err);
	if (code == 0) {
		result.blocks_total = check.vhdx->block_count;
		result.end_bytes = check.end_bytes;
		code = check_leaks(&check, err);
	}
	free(check.used);
	free(check.kept);
	if (code < 0)
		return code;
	*ret_result = result;
	return 0;
}
