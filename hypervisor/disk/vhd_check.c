/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a VHD, and mending what is proven: a footer from its good copy, the end of the file.
 * Blocking; the image is in standby, or active for a repair (activation has mended the footers
 * by then, and says so by what it found: see vhd.c).
 *
 * What a power failure leaves (no footer at the end, or one that is newer than its copy) is no
 * damage: nothing is lost, and opening for writing puts it right.  It counts as a leak.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "hypervisor/disk/vhd_priv.h"

#define TEXT_BYTES    256
#define PADDING_BYTES 8192U /* between structures: Hyper-V and we align data */

struct checker {
	struct vhd *vhd;
	disk_report report;
	void *context;
	struct disk_check_result result;
};

static void found(struct checker *checker, enum disk_finding finding, const char *format, ...)
	BASE_PRINTF(3, 4);
static void found(struct checker *checker, enum disk_finding finding, const char *format, ...)
{
	char text[TEXT_BYTES];
	va_list args;

	checker->result.leaks += finding == DISK_LEAK;
	checker->result.damages += finding == DISK_DAMAGE;
	checker->result.repaired += finding == DISK_REPAIRED;
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (checker->report != NULL)
		checker->report(checker->context, finding, text);
}

static void check_fixed(struct checker *checker, bool repair)
{
	const struct vhd *vhd = checker->vhd;
	enum disk_finding leak = repair && !vhd->tail_good ? DISK_REPAIRED : DISK_LEAK;
	uint64_t disk_end = (vhd->footer.current_bytes + VHD_SECTOR_BYTES - 1) &
			    ~(uint64_t)(VHD_SECTOR_BYTES - 1);
	uint64_t bytes;

	if (!vhd->tail_good) {
		bytes = vhd->file_bytes - vhd->tail_offset;
		bytes = bytes > VHD_FOOTER_BYTES ? bytes - VHD_FOOTER_BYTES : 0;
		found(checker, leak,
		      "%" PRIu64 " bytes behind the footer at 0x%" PRIx64
		      ": growing was cut off; opening for writing or --repair cuts them off",
		      bytes, vhd->tail_offset);
		checker->result.leaked_bytes += leak == DISK_LEAK ? bytes : 0;
	}
	if (vhd->tail_offset > disk_end) {
		bytes = vhd->tail_offset - disk_end;
		found(checker, DISK_LEAK,
		      "%" PRIu64 " bytes at 0x%" PRIx64 ", between disk and footer, are unused",
		      bytes, disk_end);
		checker->result.leaked_bytes += bytes;
	}
}

static void check_footers(struct checker *checker, bool repair)
{
	const struct vhd *vhd = checker->vhd;

	if (vhd->sums_wrong)
		found(checker, DISK_DAMAGE,
		      "checksums of footer or header are wrong: read it, do not write it");
	else if (vhd->image.kind == DISK_FIXED)
		check_fixed(checker, repair);
	else if (!vhd->tail_good)
		found(checker, repair ? DISK_REPAIRED : DISK_LEAK,
		      "footer at 0x%" PRIx64 ": not valid; the copy at 0 is used; opening for "
		      "writing or --repair writes the footer again",
		      vhd->tail_offset);
	else if (!vhd->copy_good)
		found(checker, repair ? DISK_REPAIRED : DISK_DAMAGE,
		      "footer copy at 0: not valid; the footer at 0x%" PRIx64 " is",
		      vhd->tail_offset);
	else if (vhd->twins)
		found(checker, repair ? DISK_REPAIRED : DISK_LEAK,
		      "footer copy at 0: older than the footer at 0x%" PRIx64
		      ", which is used; opening for writing or --repair writes the copy again",
		      vhd->tail_offset);
	else if (!vhd->copy_same)
		found(checker, DISK_DAMAGE,
		      "footer at 0x%" PRIx64 " and its copy at 0 are of different disks",
		      vhd->tail_offset);
}

static int compare(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left;
	uint32_t b = *(const uint32_t *)right;

	return a < b ? -1 : a > b;
}

/* Entries one by one, then in the order of the file: overlaps, gaps.  The end of the last. */
static int check_table(struct checker *checker, uint64_t *ret_end, struct base_error *err)
{
	const struct vhd *vhd = checker->vhd;
	uint64_t stride = (uint64_t)vhd->bitmap_bytes + vhd->block_bytes;
	BASE_FREE uint32_t *sorted = calloc(vhd->header.entries, sizeof(*sorted));
	uint64_t end = vhd_tables_end(vhd);
	uint32_t used = 0;

	if (sorted == NULL)
		return base_fail(err, -ENOMEM, "VHD block table, %" PRIu32 " entries",
				 vhd->header.entries);
	for (uint32_t i = 0; i < vhd->header.entries; i++) {
		if (vhd->bat[i] == VHD_BLOCK_ABSENT)
			continue;
		checker->result.blocks_allocated += i < vhd_block_count(vhd);
		if (vhd_entry_valid(vhd, i))
			sorted[used++] = vhd->bat[i];
		else
			found(checker, DISK_DAMAGE,
			      "block %" PRIu32 " at 0x%" PRIx64 ": outside of the file (%" PRIu64
			      " bytes) or on a table",
			      i, vhd_block_offset(vhd, i), vhd->file_bytes);
	}
	qsort(sorted, used, sizeof(*sorted), compare);
	for (uint32_t i = 0; i < used; i++) {
		uint64_t at = (uint64_t)sorted[i] * VHD_SECTOR_BYTES;

		if (i > 0 && at < end)
			found(checker, DISK_DAMAGE,
			      "block at 0x%" PRIx64 " overlaps the one before", at);
		if (at > end && at - end > PADDING_BYTES) {
			found(checker, DISK_LEAK, "%" PRIu64 " bytes at 0x%" PRIx64 " are unused",
			      at - end, end);
			checker->result.leaked_bytes += at - end;
		}
		end = at + stride > end ? at + stride : end;
	}
	*ret_end = end;
	return 0;
}

/* What is behind the last block: nothing refers to it, so nobody can have read it. */
static int check_end(struct checker *checker, uint64_t end, bool repair, struct base_error *err)
{
	struct vhd *vhd = checker->vhd;
	uint64_t tail =
		(vhd->file_bytes + VHD_SECTOR_BYTES - 1) & ~(uint64_t)(VHD_SECTOR_BYTES - 1);
	uint64_t leak = tail - VHD_FOOTER_BYTES > end ? tail - VHD_FOOTER_BYTES - end : 0;
	int code;

	if (leak <= PADDING_BYTES)
		return 0;
	if (!repair || checker->result.damages > 0) {
		found(checker, DISK_LEAK, "%" PRIu64 " bytes at 0x%" PRIx64 " are unused", leak,
		      end);
		checker->result.leaked_bytes += leak;
		return 0;
	}
	code = vhd_footer_write(vhd, end, err);
	if (code == 0)
		code = store_do(vhd->image.file, STORE_TRUNCATE, end + VHD_FOOTER_BYTES, NULL, 0,
				err);
	if (code == 0)
		code = store_do(vhd->image.file, STORE_FLUSH, 0, NULL, 0, err);
	if (code < 0)
		return code;
	vhd->file_bytes = end + VHD_FOOTER_BYTES;
	vhd->next_offset = end;
	vhd->grown_offset = end;
	found(checker, DISK_REPAIRED, "%" PRIu64 " unused bytes at 0x%" PRIx64 ": cut off", leak,
	      end);
	return 0;
}

int vhd_check(struct image *image, bool repair, disk_report report, void *context,
	      struct disk_check_result *ret_result, struct base_error *err)
{
	struct vhd *vhd = vhd_of(image);
	struct checker checker = { .vhd = vhd, .report = report, .context = context };
	uint64_t end = image->geometry.size_bytes;
	int code = 0;

	repair = repair && image->active;
	check_footers(&checker, repair);
	if (image->kind != DISK_FIXED) {
		checker.result.blocks_total = vhd_block_count(vhd);
		code = check_table(&checker, &end, err);
		if (code == 0)
			code = check_end(&checker, end, repair, err);
	}
	checker.result.end_bytes = end + VHD_FOOTER_BYTES;
	if (code == 0)
		*ret_result = checker.result;
	return code;
}
