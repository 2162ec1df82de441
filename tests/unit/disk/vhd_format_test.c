/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/vhd_format.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static struct vhd_footer footer_of(uint64_t bytes)
{
	return (struct vhd_footer){ .header_offset = 512,
				    .creator = { 'w', 'i', 'n', ' ' },
				    .original_bytes = bytes,
				    .current_bytes = bytes,
				    .geometry = vhd_geometry_of(bytes),
				    .type = VHD_TYPE_DYNAMIC,
				    .id = { .bytes = { 1, 2, 3 } } };
}

Test(vhd_format, footer_round_trip)
{
	struct vhd_footer footer = footer_of(1ULL << 30);
	struct vhd_footer back;
	uint8_t bytes[512] = { 0 };
	uint8_t again[512];

	vhd_footer_encode(&footer, bytes);
	bytes[400] = 7; /* what we do not know stays */
	vhd_footer_encode(&footer, bytes);
	cr_assert_eq(vhd_footer_decode(bytes, false, &back, NULL), 0);
	memcpy(again, bytes, 512);
	vhd_footer_encode(&back, again);
	cr_assert_eq(memcmp(bytes, again, 512), 0);
	cr_assert_eq(back.current_bytes, 1ULL << 30);
	cr_assert_eq(back.type, VHD_TYPE_DYNAMIC);
}

Test(vhd_format, each_damage_of_a_footer_is_refused)
{
	/* Cookie, version, header offset, size, size's remainder, type. */
	static const struct {
		size_t at;
		uint8_t value;
	} damages[] = { { 0, 'x' }, { 13, 2 }, { 22, 0 }, { 48, 1 }, { 55, 1 }, { 63, 5 } };
	struct vhd_footer footer = footer_of(1ULL << 30);
	struct vhd_footer back;
	struct base_error err;
	uint8_t bytes[512];

	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		memset(bytes, 0, 512);
		vhd_footer_encode(&footer, bytes);
		bytes[damages[i].at] = damages[i].value;
		cr_assert_eq(vhd_footer_decode(bytes, true, &back, &err), -EBADMSG, "%zu", i);
	}
	memset(bytes, 0, 512);
	vhd_footer_encode(&footer, bytes);
	bytes[25] ^= 1;
	cr_assert_eq(vhd_footer_decode(bytes, false, &back, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "checksum"));
	cr_assert_eq(vhd_footer_decode(bytes, true, &back, &err), 0);
	cr_assert(back.sum_wrong);
}

Test(vhd_format, header_round_trip_and_damages)
{
	/* Cookie, checksum, version, entries, block size, table offset. */
	static const size_t damages[] = { 0, 41, 25, 28, 34, 23 };
	struct vhd_header header = { .bat_offset = 1536,
				     .entries = 512,
				     .block_bytes = VHD_BLOCK_DEFAULT,
				     .parent_time = 5,
				     .locators = { { VHD_CODE_W2RU, 20, 2048 } } };
	struct vhd_header back;
	uint8_t bytes[1024] = { 0 };

	vhd_header_encode(&header, bytes);
	cr_assert_eq(vhd_header_decode(bytes, false, &back, NULL), 0);
	cr_assert_eq(back.bat_offset, 1536);
	cr_assert_eq(back.entries, 512);
	cr_assert_eq(back.locators[0].offset_bytes, 2048);
	cr_assert_eq(back.locators[0].length_bytes, 20);
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		bytes[damages[i]] ^= 1;
		cr_assert_eq(vhd_header_decode(bytes, i != 1, &back, NULL), -EBADMSG, "%zu", i);
		bytes[damages[i]] ^= 1;
	}
}

/* Figures of other people's images, and the spec's rules at their borders. */
Test(vhd_format, geometry)
{
	struct vhd_geometry g = vhd_geometry_of(104448);

	cr_assert_eq(g.cylinders, 3);
	cr_assert_eq(g.heads, 4);
	cr_assert_eq(g.sectors, 17);
	g = vhd_geometry_of(136365211648);
	cr_assert_eq(g.cylinders, 65278);
	cr_assert_eq(g.heads, 16);
	cr_assert_eq(g.sectors, 255);
	g = vhd_geometry_of(VHD_SIZE_MAX);
	cr_assert_eq(g.cylinders, 65535);
	g = vhd_geometry_of(512);
	cr_assert_eq(g.cylinders, 0);
}

Test(vhd_format, size_by_creator)
{
	struct vhd_footer footer = footer_of(136365211648);

	cr_assert_eq(vhd_size_of(&footer), 136365211648);
	memcpy(footer.creator, "vpc ", 4);
	cr_assert_eq(vhd_size_of(&footer), 136363130880);
	memcpy(footer.creator, "qemu", 4);
	cr_assert_eq(vhd_size_of(&footer), 136363130880);
	footer.geometry = (struct vhd_geometry){ 65535, 16, 255 };
	footer.current_bytes = VHD_SIZE_MAX;
	cr_assert_eq(vhd_size_of(&footer), VHD_SIZE_MAX, "the geometry is at its end");
	footer.geometry = (struct vhd_geometry){ 0, 0, 0 };
	cr_assert_eq(vhd_size_of(&footer), VHD_SIZE_MAX);
	footer.geometry = (struct vhd_geometry){ 1000, 16, 63 };
	footer.current_bytes = 512;
	cr_assert_eq(vhd_size_of(&footer), 512, "never more than the image says");
}

Test(vhd_format, locators)
{
	static const uint8_t relative[] = { '.', 0, '\\', 0, 0xe4, 0, '.', 0, 'v', 0 };
	static const uint8_t lone[] = { 0x00, 0xd8 };
	static const uint8_t control[] = { 'a', 0, 7, 0 };
	char path[64];

	cr_assert_eq(vhd_locator_decode(VHD_CODE_W2RU, relative, sizeof(relative), path,
					sizeof(path), NULL),
		     0);
	cr_assert_str_eq(path, "./\xc3\xa4.v");
	cr_assert_eq(vhd_locator_decode(VHD_CODE_W2RU, relative, sizeof(relative), path, 4, NULL),
		     -EBADMSG);
	cr_assert_eq(vhd_locator_decode(VHD_CODE_W2KU, lone, 2, path, sizeof(path), NULL),
		     -EBADMSG);
	cr_assert_eq(vhd_locator_decode(VHD_CODE_W2KU, control, 4, path, sizeof(path), NULL),
		     -EBADMSG);
	cr_assert_eq(vhd_locator_decode(VHD_CODE_W2KU, relative, 0, path, sizeof(path), NULL),
		     -EBADMSG);
	cr_assert_eq(vhd_locator_decode(1, relative, 2, path, sizeof(path), NULL), -EOPNOTSUPP);
	cr_assert_eq(vhd_locator_decode(VHD_CODE_MACX, (const uint8_t *)"file://./b.vhd", 14, path,
					sizeof(path), NULL),
		     0);
	cr_assert_str_eq(path, "./b.vhd");
	cr_assert_eq(vhd_locator_decode(VHD_CODE_MACX, (const uint8_t *)"http://./b.vhd", 14, path,
					sizeof(path), NULL),
		     -EBADMSG);
}

Test(vhd_format, names_to_utf16)
{
	struct vhd_header header = { 0 };
	char path[64];
	uint8_t to[8];

	cr_assert_eq(vhd_utf16_encode("a/b", true, to, sizeof(to)), 6);
	cr_assert_eq(memcmp(to, "a\0\\\0b\0", 6), 0);
	cr_assert_eq(vhd_utf16_encode("a/b", false, to, sizeof(to)), 6);
	cr_assert_eq(memcmp(to, "\0a\0\\\0b", 6), 0);
	cr_assert_eq(vhd_utf16_encode("abcde", true, to, sizeof(to)), -ENAMETOOLONG);
	cr_assert_eq(vhd_utf16_encode("\xff", true, to, sizeof(to)), -EINVAL);
	cr_assert_eq(
		vhd_utf16_encode("base.vhd", false, header.parent_name, sizeof(header.parent_name)),
		16);
	cr_assert_eq(vhd_parent_name(&header, path, sizeof(path), NULL), 0);
	cr_assert_str_eq(path, "base.vhd");
	memset(header.parent_name, 0, sizeof(header.parent_name));
	cr_assert_eq(vhd_parent_name(&header, path, sizeof(path), NULL), -EBADMSG);
}

Test(vhd_format, bitmap_sizes)
{
	cr_assert_eq(vhd_bitmap_bytes(512U << 10), 512);
	cr_assert_eq(vhd_bitmap_bytes(2U << 20), 512);
	cr_assert_eq(vhd_bitmap_bytes(16U << 20), 4096);
}
