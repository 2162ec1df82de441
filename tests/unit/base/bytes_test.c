/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/support/alloc_fail.h"

Test(bytes, reader_reads_little_endian)
{
	const uint8_t bytes[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
	struct base_reader in = base_reader_over(bytes, sizeof(bytes));

	cr_assert_eq(base_read_u8(&in), 0x01);
	cr_assert_eq(base_read_le16(&in), 0x0302);
	cr_assert_eq(base_read_le32(&in), 0x07060504);
	cr_assert_eq(base_reader_left(&in), 8);
	cr_assert_eq(base_read_le64(&in), 0x0f0e0d0c0b0a0908ULL);
	cr_assert_not(in.failed);
	cr_assert_eq(base_reader_left(&in), 0);
}

Test(bytes, reader_fails_stickily_and_gives_zeros)
{
	const uint8_t bytes[] = { 0xff, 0xff, 0xff };
	uint8_t copy[4] = { 9, 9, 9, 9 };
	struct base_reader in = base_reader_over(bytes, sizeof(bytes));

	cr_assert_eq(base_read_le32(&in), 0);
	cr_assert(in.failed);
	cr_assert_eq(base_read_u8(&in), 0, "one byte would fit, but the reader has failed");
	cr_assert_eq(base_read_le16(&in), 0);
	cr_assert_eq(base_read_le64(&in), 0);
	cr_assert_eq(base_reader_left(&in), 0);
	base_read_bytes(&in, copy, sizeof(copy));
	cr_assert(base_is_zero(copy, sizeof(copy)));
	cr_assert_null(base_read_span(&in, 0));
}

Test(bytes, reader_sizes_cannot_wrap)
{
	const uint8_t bytes[8] = { 0 };
	struct base_reader in = base_reader_over(bytes, sizeof(bytes));

	base_read_skip(&in, 4);
	cr_assert_null(base_read_span(&in, SIZE_MAX - 1));
	cr_assert(in.failed);
	cr_assert_eq(in.offset_bytes, 4);
}

Test(bytes, reader_span_borrows_and_skips)
{
	const uint8_t bytes[] = { 1, 2, 3, 4 };
	struct base_reader in = base_reader_over(bytes, sizeof(bytes));

	cr_assert_eq(base_read_span(&in, 3), bytes);
	cr_assert_eq(base_read_u8(&in), 4);
	cr_assert_eq(base_read_span(&in, 0), bytes + 4);
	cr_assert_not(in.failed);
}

Test(bytes, empty_reader_and_writer_over_null)
{
	struct base_reader in = base_reader_over(NULL, 0);
	struct base_writer out = base_writer_over(NULL, 0);

	cr_assert_not_null(base_read_span(&in, 0));
	base_read_bytes(&in, NULL, 0);
	base_write_bytes(&out, NULL, 0);
	cr_assert_not(in.failed || out.failed);
	cr_assert_eq(base_read_u8(&in), 0);
	base_write_u8(&out, 1);
	cr_assert(in.failed && out.failed);
}

Test(bytes, writer_and_reader_agree)
{
	uint8_t bytes[64];
	uint8_t back[3];
	struct base_writer out = base_writer_over(bytes, sizeof(bytes));
	struct base_reader in;

	base_write_u8(&out, 0x12);
	base_write_le16(&out, 0x3456);
	base_write_le32(&out, 0x789abcde);
	base_write_le64(&out, 0x0123456789abcdefULL);
	base_write_bytes(&out, "abc", 3);
	base_write_zeros(&out, 4);
	cr_assert_not(out.failed);
	cr_assert_eq(out.offset_bytes, 1 + 2 + 4 + 8 + 3 + 4);

	in = base_reader_over(bytes, out.offset_bytes);
	cr_assert_eq(base_read_u8(&in), 0x12);
	cr_assert_eq(base_read_le16(&in), 0x3456);
	cr_assert_eq(base_read_le32(&in), 0x789abcde);
	cr_assert_eq(base_read_le64(&in), 0x0123456789abcdefULL);
	base_read_bytes(&in, back, sizeof(back));
	cr_assert_eq(memcmp(back, "abc", 3), 0);
	cr_assert_eq(base_read_le32(&in), 0);
	cr_assert_eq(base_reader_left(&in), 0);
}

Test(bytes, writer_writes_nothing_that_does_not_fit)
{
	uint8_t bytes[8];
	struct base_writer out = base_writer_over(bytes, 7);

	memset(bytes, 0xaa, sizeof(bytes));
	base_write_le64(&out, 0);
	cr_assert(out.failed);
	base_write_u8(&out, 0);
	base_write_bytes(&out, "x", 1);
	base_write_zeros(&out, SIZE_MAX);
	cr_assert_eq(out.offset_bytes, 0);
	for (size_t i = 0; i < sizeof(bytes); i++)
		cr_assert_eq(bytes[i], 0xaa);
}

Test(bytes, get_and_put_at_any_alignment)
{
	uint8_t bytes[16];

	for (size_t at = 0; at < 8; at++) {
		base_put_le64(bytes + at, 0xfedcba9876543210ULL);
		cr_assert_eq(base_get_le64(bytes + at), 0xfedcba9876543210ULL);
		cr_assert_eq(bytes[at], 0x10);
		base_put_le32(bytes + at, 0xfedcba98U);
		cr_assert_eq(base_get_le32(bytes + at), 0xfedcba98U);
		base_put_le16(bytes + at, 0xfedc);
		cr_assert_eq(base_get_le16(bytes + at), 0xfedc);
	}
}

/* Memory that ends at a page nobody may touch. */
static uint8_t *guarded(size_t size_bytes)
{
	uint8_t *map = mmap(NULL, size_bytes + 4096, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(map, MAP_FAILED);
	cr_assert_eq(mprotect(map + size_bytes, 4096, PROT_NONE), 0);
	return map;
}

Test(bytes, zero_scan_sees_every_byte_of_every_length)
{
	uint8_t *end = guarded(4096) + 4096;

	for (size_t size = 0; size <= 700; size++) {
		uint8_t *data = end - size;

		cr_assert(base_is_zero(data, size), "%zu zero bytes", size);
		if (size < 4096)
			data[-1] = 1; /* just outside */
		cr_assert(base_is_zero(data, size), "%zu bytes, one before them set", size);
		data[-1] = 0;
		for (size_t at = 0; at < size; at++) {
			data[at] = 0x80;
			cr_assert_not(base_is_zero(data, size), "byte %zu of %zu", at, size);
			data[at] = 0;
		}
	}
}

Test(bytes, zero_scan_of_a_page_at_every_alignment)
{
	uint8_t *data = guarded(8192);

	for (size_t at = 0; at < 70; at++) {
		cr_assert(base_is_zero(data + at, 4096));
		data[at + 4095] = 1;
		cr_assert_not(base_is_zero(data + at, 4096));
		data[at + 4095] = 0;
	}
}

Test(bytes, buffer_grows_and_keeps_content)
{
	struct base_buffer buffer = { .data = NULL };

	for (uint32_t i = 0; i < 10000; i++)
		base_buffer_le32(&buffer, i);
	base_buffer_u8(&buffer, 1);
	base_buffer_le16(&buffer, 2);
	base_buffer_le64(&buffer, 3);
	cr_assert_not(buffer.failed);
	cr_assert_eq(buffer.size_bytes, 40000 + 1 + 2 + 8);
	for (uint32_t i = 0; i < 10000; i++)
		cr_assert_eq(base_get_le32(buffer.data + 4 * (size_t)i), i);
	cr_assert_eq(base_get_le64(buffer.data + 40003), 3);
	base_buffer_fini(&buffer);
	cr_assert_null(buffer.data);
	base_buffer_fini(&buffer);
}

Test(bytes, buffer_extend_by_nothing_is_a_place)
{
	struct base_buffer buffer = { .data = NULL };

	cr_assert_not_null(base_buffer_extend(&buffer, 0));
	base_buffer_append(&buffer, NULL, 0);
	cr_assert_eq(buffer.size_bytes, 0);
	cr_assert_not(buffer.failed);
	base_buffer_fini(&buffer);
}

Test(bytes, buffer_size_cannot_wrap)
{
	struct base_buffer buffer = { .data = NULL };

	base_buffer_u8(&buffer, 7);
	cr_assert_null(base_buffer_extend(&buffer, SIZE_MAX));
	cr_assert(buffer.failed);
	cr_assert_eq(buffer.size_bytes, 1);
	base_buffer_u8(&buffer, 8);
	cr_assert_eq(buffer.size_bytes, 1, "failed is sticky");
	base_buffer_fini(&buffer);
}

Test(bytes, buffer_without_memory_fails_and_keeps_content)
{
	struct base_buffer buffer = { .data = NULL };

	alloc_fail_at(0);
	base_buffer_u8(&buffer, 1);
	cr_assert(alloc_fail_done());
	cr_assert(buffer.failed);
	base_buffer_fini(&buffer);

	base_buffer_le64(&buffer, 5);
	alloc_fail_at(0);
	cr_assert_null(base_buffer_extend(&buffer, 100000));
	cr_assert(alloc_fail_done());
	cr_assert(buffer.failed);
	cr_assert_eq(base_get_le64(buffer.data), 5);
	base_buffer_fini(&buffer);
}

Test(bytes, big_endian)
{
	static const uint8_t expected[8] = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef };
	uint8_t bytes[9] = { 0 };

	base_put_be64(bytes + 1, 0x0123456789abcdefULL); /* unaligned */
	cr_assert_eq(memcmp(bytes + 1, expected, sizeof(expected)), 0);
	cr_assert_eq(base_get_be64(bytes + 1), 0x0123456789abcdefULL);
	cr_assert_eq(base_get_be32(expected + 3), 0x6789abcdU);
	cr_assert_eq(base_get_be16(expected + 1), 0x2345U);
	base_put_be32(bytes, 0x6789abcdU);
	cr_assert_eq(memcmp(bytes, expected + 3, 4), 0);
	base_put_be16(bytes, 0x2345U);
	cr_assert_eq(memcmp(bytes, expected + 1, 2), 0);
}
