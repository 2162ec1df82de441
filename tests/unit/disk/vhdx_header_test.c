/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "hypervisor/disk/vhdx_format.h"

static uint8_t bytes[VHDX_HEADER_BYTES];
static struct base_error err;

static struct vhdx_header sample(void)
{
	struct vhdx_header header = {
		.sequence = 0x1122334455667788,
		.log_bytes = 2 << 20,
		.log_offset = 3 << 20,
	};

	memset(header.file_write.bytes, 0xa1, 16);
	memset(header.data_write.bytes, 0xb2, 16);
	memset(header.log.bytes, 0xc3, 16);
	return header;
}

static void fresh(void)
{
	struct vhdx_header header = sample();

	vhdx_header_encode(&header, bytes);
}

static void fix_crc(void)
{
	base_put_le32(bytes + 4, 0);
	base_put_le32(bytes + 4, base_crc32c(0, bytes, sizeof(bytes)));
}

static int decode(void)
{
	struct vhdx_header header;

	return vhdx_header_decode(bytes, VHDX_HEADER2_OFFSET, &header, &err);
}

Test(vhdx_header, fields_are_where_the_format_says)
{
	static const uint8_t start[] = { 'h', 'e', 'a', 'd' };

	fresh();
	cr_assert_arr_eq(bytes, start, 4);
	cr_assert_eq(base_get_le64(bytes + 8), 0x1122334455667788);
	cr_assert_eq(bytes[16], 0xa1);
	cr_assert_eq(bytes[32], 0xb2);
	cr_assert_eq(bytes[48], 0xc3);
	cr_assert_eq(base_get_le16(bytes + 64), 0);
	cr_assert_eq(base_get_le16(bytes + 66), 1);
	cr_assert_eq(base_get_le32(bytes + 68), 2 << 20);
	cr_assert_eq(base_get_le64(bytes + 72), 3 << 20);
	cr_assert(base_is_zero(bytes + 80, sizeof(bytes) - 80));
}

Test(vhdx_header, round_trip)
{
	struct vhdx_header header;
	struct vhdx_header want = sample();

	fresh();
	cr_assert_eq(vhdx_header_decode(bytes, 0, &header, &err), 0, "%s", err.text);
	cr_assert(memcmp(&header, &want, sizeof(want)) == 0);
}

Test(vhdx_header, a_wrong_signature_names_offset_and_both_values)
{
	fresh();
	bytes[0] = 'x';
	cr_assert_eq(decode(), -EBADMSG);
	cr_assert_str_eq(err.text, "VHDX header at 0x20000: signature 0x64616578 is not "
				   "0x64616568");
}

Test(vhdx_header, every_byte_is_covered_by_the_checksum)
{
	for (size_t i = 8; i < sizeof(bytes); i += 37) {
		fresh();
		bytes[i] ^= 1;
		cr_assert_eq(decode(), -EBADMSG, "%zu", i);
		cr_assert_not_null(strstr(err.text, "checksum"));
	}
}

Test(vhdx_header, other_versions_are_not_supported)
{
	fresh();
	base_put_le16(bytes + 66, 2);
	fix_crc();
	cr_assert_eq(decode(), -EOPNOTSUPP);
	cr_assert_not_null(strstr(err.text, "version 2"));
	fresh();
	base_put_le16(bytes + 64, 1);
	fix_crc();
	cr_assert_eq(decode(), -EOPNOTSUPP);
	cr_assert_not_null(strstr(err.text, "log version 1"));
}

Test(vhdx_header, the_log_is_in_whole_mebibytes)
{
	static const uint32_t lengths[] = { 0, 4096, (1 << 20) + 4096 };
	static const uint64_t offsets[] = { 0, 4096, (1 << 20) + 4096, 1ULL << 63,
					    UINT64_MAX - 0xfffff };

	for (size_t i = 0; i < 3; i++) {
		fresh();
		base_put_le32(bytes + 68, lengths[i]);
		fix_crc();
		cr_assert_eq(decode(), -EBADMSG);
		cr_assert_not_null(strstr(err.text, "log length"));
	}
	for (size_t i = 0; i < 5; i++) {
		fresh();
		base_put_le64(bytes + 72, offsets[i]);
		fix_crc();
		cr_assert_eq(decode(), -EBADMSG);
		cr_assert_not_null(strstr(err.text, "log offset"));
	}
}

Test(vhdx_header, identifier_names_us)
{
	char creator[64];

	vhdx_identifier_encode(bytes);
	cr_assert_eq(vhdx_identifier_decode(bytes, sizeof(bytes), creator, sizeof(creator), &err),
		     0);
	cr_assert_str_eq(creator, "Godwit " GODWIT_VERSION);
}

Test(vhdx_header, identifier_of_somebody_else)
{
	char creator[8];

	vhdx_identifier_encode(bytes);
	cr_assert_eq(vhdx_identifier_decode(bytes, sizeof(bytes), creator, sizeof(creator), &err),
		     0);
	cr_assert_str_eq(creator, "Godwit ", "cut at the room there is");
	bytes[8] = 0x1b; /* an escape sequence */
	cr_assert_eq(vhdx_identifier_decode(bytes, sizeof(bytes), creator, sizeof(creator), &err),
		     0);
	cr_assert_eq(creator[0], '?');
	bytes[0] = 'c';
	cr_assert_eq(vhdx_identifier_decode(bytes, sizeof(bytes), creator, sizeof(creator), &err),
		     -EBADMSG);
	cr_assert_eq(vhdx_identifier_decode(bytes, 519, creator, sizeof(creator), &err), -EBADMSG);
}
