/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "hypervisor/disk/vhdx_format.h"

static struct base_error err;

Test(vhdx_bat, shape_of_known_disks)
{
	struct vhdx_bat_shape shape = vhdx_bat_shape(1ULL << 30, 32 << 20, 512, false);

	cr_assert_eq(shape.chunk_ratio, 128);
	cr_assert_eq(shape.block_count, 32);
	cr_assert_eq(shape.entry_count, 32);
	shape = vhdx_bat_shape(1ULL << 30, 32 << 20, 512, true);
	cr_assert_eq(shape.entry_count, 129);
	shape = vhdx_bat_shape(4ULL << 30, 32 << 20, 512, false); /* one whole chunk */
	cr_assert_eq(shape.entry_count, 128);
	shape = vhdx_bat_shape((4ULL << 30) + 512, 32 << 20, 512, false);
	cr_assert_eq(shape.block_count, 129);
	cr_assert_eq(shape.entry_count, 130);
	shape = vhdx_bat_shape(64ULL << 40, 1 << 20, 512, true);
	cr_assert_eq(shape.chunk_ratio, 4096);
	cr_assert_eq(shape.block_count, 1ULL << 26);
	cr_assert_eq(shape.entry_count, (1ULL << 14) * 4097);
	cr_assert_eq(shape.bat_bytes, shape.entry_count * 8);
	shape = vhdx_bat_shape(512, 256 << 20, 4096, false);
	cr_assert_eq(shape.chunk_ratio, 128);
	cr_assert_eq(shape.entry_count, 1);
}

Test(vhdx_bat, states_and_their_offsets)
{
	for (uint32_t state = 0; state < 8; state++) {
		uint64_t with = vhdx_entry_make(state, 5 * VHDX_MIB);
		uint64_t without = vhdx_entry_make(state, 0);
		bool known = state < 4 || state >= 6;
		bool placed = state >= 6;

		cr_assert_eq(vhdx_payload_entry_decode(with, true, &err) == 0, known, "%u", state);
		cr_assert_eq(vhdx_payload_entry_decode(without, true, &err) == 0, known && !placed,
			     "%u", state);
		cr_assert_eq(vhdx_payload_entry_decode(with, false, &err) == 0,
			     known && state != VHDX_BLOCK_PARTIAL, "%u", state);
		cr_assert_eq(vhdx_bitmap_entry_decode(with, &err) == 0, state == 0 || state == 6);
		cr_assert_eq(vhdx_bitmap_entry_decode(without, &err) == 0, state == 0);
		cr_assert_eq(vhdx_entry_state(with), state);
		cr_assert_eq(vhdx_entry_offset(with), 5 * VHDX_MIB);
	}
}

Test(vhdx_bat, errors_show_the_entry)
{
	cr_assert_eq(vhdx_payload_entry_decode(0x500004, true, &err), -EBADMSG);
	cr_assert_str_eq(err.text,
			 "VHDX payload entry 0x0000000000500004: state 4 is not one of 0, "
			 "1, 2, 3, 6, 7");
	cr_assert_eq(vhdx_payload_entry_decode(0x50000e, true, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "reserved bits 0x00008"));
	cr_assert_eq(vhdx_bitmap_entry_decode(0x80006, &err), -EBADMSG);
	cr_assert_eq(vhdx_payload_entry_decode(7, false, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "without a parent"));
	cr_assert_eq(vhdx_payload_entry_decode((1ULL << 63) | 6, false, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "below 8 EiB"));
}
