/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "hypervisor/disk/vhdx_format.h"

#define LOG_BYTES  (1U << 20)
#define LOG_OFFSET VHDX_MIB
#define PAGES      130U /* one more sector of descriptors */

static uint8_t bytes[LOG_BYTES];
static uint8_t pages_data[PAGES][4096];
static struct base_error err;
static struct vhdx_log_entry out;
static const struct disk_guid log_id = { { 1, 2, 3 } };
static const struct vhdx_log_region log_region = { .id = { { 1, 2, 3 } },
						   .log_bytes = LOG_BYTES,
						   .log_offset = LOG_OFFSET };
static uint32_t length;

static void fresh(uint32_t page_count)
{
	struct vhdx_log_page pages[PAGES];
	struct vhdx_log_entry entry = {
		.tail_bytes = 8192,
		.sequence = 0x1122334455667788,
		.log = log_id,
		.flushed_file_bytes = 5 << 20,
		.last_file_bytes = 6 << 20,
	};

	memset(bytes, 0xee, sizeof(bytes));
	for (uint32_t i = 0; i < page_count; i++) {
		for (uint32_t j = 0; j < 4096; j++)
			pages_data[i][j] = (uint8_t)(i * 7 + j);
		pages[i].file_offset = (4ULL << 20) + (uint64_t)i * 4096;
		pages[i].data = pages_data[i];
	}
	length = vhdx_log_entry_bytes(page_count);
	vhdx_log_entry_encode(&entry, pages, page_count, bytes);
}

static void fix_crc(void)
{
	base_put_le32(bytes + 4, 0);
	base_put_le32(bytes + 4, base_crc32c(0, bytes, length));
}

static int decode(void)
{
	return vhdx_log_entry_decode(bytes, sizeof(bytes), &log_region, &out, &err);
}

static void expect(const char *text)
{
	fix_crc();
	cr_assert_eq(decode(), -EBADMSG);
	cr_assert_not_null(strstr(err.text, text), "%s", err.text);
}

Test(vhdx_log_format, sizes)
{
	cr_assert_eq(vhdx_log_entry_bytes(0), 4096);
	cr_assert_eq(vhdx_log_entry_bytes(126), 4096 + 126 * 4096);
	cr_assert_eq(vhdx_log_entry_bytes(127), 2 * 4096 + 127 * 4096);
	cr_assert_eq(vhdx_log_entry_bytes(254), 2 * 4096 + 254 * 4096);
	cr_assert_eq(vhdx_log_entry_bytes(255), 3 * 4096 + 255 * 4096);
}

Test(vhdx_log_format, round_trip_of_many_pages)
{
	uint32_t data_count = 0;
	uint8_t page[4096];

	fresh(PAGES);
	cr_assert_eq(decode(), 0, "%s", err.text);
	cr_assert_eq(out.entry_bytes, length);
	cr_assert_eq(out.tail_bytes, 8192);
	cr_assert_eq(out.sequence, 0x1122334455667788);
	cr_assert_eq(out.descriptor_count, PAGES);
	cr_assert_eq(out.flushed_file_bytes, 5 << 20);
	cr_assert_eq(out.last_file_bytes, 6 << 20);
	for (uint32_t i = 0; i < PAGES; i++) {
		struct vhdx_log_descriptor descriptor =
			vhdx_log_descriptor_at(bytes, i, &data_count);

		cr_assert_not(descriptor.zero);
		cr_assert_eq(descriptor.data_sector, i);
		cr_assert_eq(descriptor.file_offset, (4ULL << 20) + (uint64_t)i * 4096);
		vhdx_log_data_at(bytes, &out, i, descriptor.data_sector, page);
		cr_assert_arr_eq(page, pages_data[i], 4096);
	}
}

Test(vhdx_log_format, fields_are_where_the_format_says)
{
	const uint8_t *sector = bytes + 4096;

	fresh(1);
	cr_assert(memcmp(bytes, "loge", 4) == 0);
	cr_assert_eq(base_get_le32(bytes + 8), 8192);
	cr_assert_eq(base_get_le32(bytes + 24), 1);
	cr_assert(memcmp(bytes + 64, "desc", 4) == 0);
	cr_assert_arr_eq(bytes + 68, pages_data[0] + 4092, 4);
	cr_assert_arr_eq(bytes + 72, pages_data[0], 8);
	cr_assert(memcmp(sector, "data", 4) == 0);
	cr_assert_eq(base_get_le32(sector + 4), 0x11223344);
	cr_assert_eq(base_get_le32(sector + 4092), 0x55667788);
	cr_assert_arr_eq(sector + 8, pages_data[0] + 8, 4084);
}

Test(vhdx_log_format, an_empty_entry)
{
	fresh(0);
	cr_assert_eq(decode(), 0, "%s", err.text);
	cr_assert_eq(out.entry_bytes, 4096);
}

Test(vhdx_log_format, header)
{
	fresh(1);
	bytes[0] = 'L';
	expect("signature");
	fresh(1);
	bytes[32] ^= 1;
	expect("another log");
	fresh(1);
	base_put_le32(bytes + 8, 4095);
	expect("length 4095");
	fresh(1);
	base_put_le32(bytes + 8, 0);
	expect("length 0");
	fresh(1);
	base_put_le32(bytes + 8, LOG_BYTES + 4096);
	expect("length 1052672");
	fresh(1);
	base_put_le32(bytes + 12, 4097);
	expect("tail 0x1001");
	fresh(1);
	base_put_le32(bytes + 12, LOG_BYTES);
	expect("tail 0x100000");
	fresh(1);
	base_put_le64(bytes + 16, 0);
	expect("sequence number 0");
	fresh(1);
	base_put_le32(bytes + 24, UINT32_MAX);
	expect("do not fit");
	fresh(1);
	cr_assert_eq(vhdx_log_entry_decode(bytes, 4095, &log_region, &out, &err), -EBADMSG);
	cr_assert_eq(vhdx_log_entry_decode(bytes, 8191, &log_region, &out, &err), -EBADMSG);
}

Test(vhdx_log_format, descriptors)
{
	uint8_t *descriptor = bytes + 64;

	fresh(2);
	descriptor[0] = 'D';
	expect("descriptor 0: signature");
	fresh(2);
	base_put_le64(descriptor + 32 + 24, 1);
	expect("descriptor 1: sequence number 1");
	fresh(2);
	base_put_le64(descriptor + 16, (4 << 20) + 512);
	expect("offset 0x400200");
	fresh(2);
	base_put_le64(descriptor + 16, 128 << 10);
	expect("in the headers");
	fresh(2);
	base_put_le64(descriptor + 16, LOG_OFFSET + LOG_BYTES - 4096);
	expect("is in the log at 0x100000");
	fresh(2);
	base_put_le64(descriptor + 16, UINT64_MAX - 4095);
	expect("past every file");
	fresh(2);
	base_put_le32(bytes + 24, 1);
	expect("is not that of 1 descriptors, 1 with data");
}

/* Descriptor 0 of an entry without data becomes a zero descriptor. */
static void zero(uint64_t offset, uint64_t zero_bytes)
{
	fresh(0);
	base_put_le32(bytes + 24, 1);
	memcpy(bytes + 64, "zero", 4);
	base_put_le64(bytes + 72, zero_bytes);
	base_put_le64(bytes + 80, offset);
	base_put_le64(bytes + 88, 0x1122334455667788);
	fix_crc();
}

Test(vhdx_log_format, zero_descriptors)
{
	uint32_t data_count = 0;
	struct vhdx_log_descriptor descriptor;

	zero(4 << 20, 1 << 20);
	cr_assert_eq(decode(), 0, "%s", err.text);
	descriptor = vhdx_log_descriptor_at(bytes, 0, &data_count);
	cr_assert(descriptor.zero);
	cr_assert_eq(descriptor.length_bytes, 1 << 20);
	cr_assert_eq(data_count, 0);
	zero(192 << 10, 64 << 10); /* a region table may be logged */
	cr_assert_eq(decode(), 0, "%s", err.text);
	zero(4 << 20, 0);
	expect("or empty");
	zero(4 << 20, 4097);
	expect("length 4097");
	zero(192 << 10, 1 << 20);
	expect("is in the log");
	zero(4 << 20, UINT64_MAX - 4095);
	expect("past every file");
}

Test(vhdx_log_format, data_sectors_and_checksum)
{
	fresh(2);
	bytes[2 * 4096] ^= 1;
	expect("data sector 1");
	fresh(2);
	bytes[4096 + 4] ^= 1;
	expect("torn");
	fresh(2);
	bytes[2 * 4096 - 1] ^= 1;
	expect("torn");
	fresh(2);
	bytes[4096 + 100] ^= 1;
	cr_assert_eq(decode(), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "checksum"));
}
