/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crc32c.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

typedef uint32_t (*crc_fn)(uint32_t crc, const void *data, size_t size_bytes);

static const crc_fn paths[] = { base_crc32c, base_crc32c_portable };

/* Bit by bit from the definition: what both paths must agree with. */
static uint32_t crc_by_definition(const uint8_t *data, size_t size_bytes)
{
	uint32_t crc = 0xffffffffU;

	for (size_t i = 0; i < size_bytes; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78U : crc >> 1;
	}
	return ~crc;
}

static void fill(uint8_t *data, size_t size_bytes)
{
	uint64_t state = 0x9e3779b97f4a7c15ULL;

	for (size_t i = 0; i < size_bytes; i++) {
		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		data[i] = (uint8_t)(state >> 56);
	}
}

/* RFC 3720 B.4 lists the CRC's bytes in the order of transmission, lowest first. */
Test(crc32c, published_vectors)
{
	static const uint8_t scsi_read[48] = {
		0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
		0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
		0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
		0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	};
	uint8_t zeros[32];
	uint8_t ones[32];
	uint8_t rising[32];
	uint8_t falling[32];

	memset(zeros, 0, sizeof(zeros));
	memset(ones, 0xff, sizeof(ones));
	for (uint8_t i = 0; i < 32; i++) {
		rising[i] = i;
		falling[i] = (uint8_t)(31 - i);
	}
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		cr_assert_eq(paths[i](0, zeros, 32), 0x8a9136aaU);
		cr_assert_eq(paths[i](0, ones, 32), 0x62a8ab43U);
		cr_assert_eq(paths[i](0, rising, 32), 0x46dd794eU);
		cr_assert_eq(paths[i](0, falling, 32), 0x113fdb5cU);
		cr_assert_eq(paths[i](0, scsi_read, 48), 0xd9963a56U);
		cr_assert_eq(paths[i](0, "123456789", 9), 0xe3069283U, "the check value");
		cr_assert_eq(paths[i](0, "", 0), 0);
	}
}

Test(crc32c, both_paths_agree_with_the_definition_at_all_lengths)
{
	enum {
		SIZE = 4200
	};
	uint8_t *data = malloc(SIZE);

	cr_assert_not_null(data);
	fill(data, SIZE);
	for (size_t size = 0; size < 600; size++) {
		uint32_t wanted = crc_by_definition(data, size);

		cr_assert_eq(base_crc32c(0, data, size), wanted, "%zu bytes", size);
		cr_assert_eq(base_crc32c_portable(0, data, size), wanted, "%zu bytes", size);
	}
	free(data);
}

Test(crc32c, hardware_and_portable_agree_at_all_alignments)
{
	enum {
		SIZE = 3 * 4096 + 64
	};
	uint8_t *data = malloc(SIZE);

	cr_assert_not_null(data);
	fill(data, SIZE);
	for (size_t at = 0; at < 16; at++) {
		for (size_t size = 0; size <= 2200; size++)
			cr_assert_eq(base_crc32c(1, data + at, size),
				     base_crc32c_portable(1, data + at, size));
		/* Around one and two and three passes of long streams. */
		for (size_t size = 4060; size <= 4120; size++) {
			cr_assert_eq(base_crc32c(2, data + at, size),
				     base_crc32c_portable(2, data + at, size));
			cr_assert_eq(base_crc32c(2, data + at, 4080 + size),
				     base_crc32c_portable(2, data + at, 4080 + size));
			cr_assert_eq(base_crc32c(2, data + at, 8160 + size),
				     base_crc32c_portable(2, data + at, 8160 + size));
		}
	}
	free(data);
}

Test(crc32c, pieces_continue)
{
	enum {
		SIZE = 10000
	};
	uint8_t *data = malloc(SIZE);
	uint32_t whole = 0;

	cr_assert_not_null(data);
	fill(data, SIZE);
	whole = base_crc32c(0, data, SIZE);
	for (size_t cut = 0; cut <= SIZE; cut += 37)
		cr_assert_eq(base_crc32c(base_crc32c(0, data, cut), data + cut, SIZE - cut), whole);
	free(data);
}

Test(crc32c, combine_is_concatenation)
{
	enum {
		SIZE = 10000
	};
	uint8_t *data = malloc(SIZE);
	uint32_t whole = 0;

	cr_assert_not_null(data);
	fill(data, SIZE);
	whole = base_crc32c(0, data, SIZE);
	for (size_t cut = 0; cut <= SIZE; cut += 101)
		cr_assert_eq(base_crc32c_combine(base_crc32c(0, data, cut),
						 base_crc32c(0, data + cut, SIZE - cut),
						 SIZE - cut),
			     whole);
	cr_assert_eq(base_crc32c_combine(whole, 0, 0), whole);
	cr_assert_eq(base_crc32c_combine(0, whole, SIZE), whole);
	free(data);
}

Test(crc32c, combine_knows_long_lengths)
{
	static const uint8_t zeros[4096];
	const uint64_t far_bytes = UINT64_MAX - 1;
	uint32_t doubled = base_crc32c(0, zeros, sizeof(zeros));
	uint32_t added = 0;

	for (uint64_t pages = 1; pages < 1024; pages *= 2)
		doubled = base_crc32c_combine(doubled, doubled, pages * sizeof(zeros));
	for (int i = 0; i < 1024; i++)
		added = base_crc32c(added, zeros, sizeof(zeros));
	cr_assert_eq(doubled, added);

	/* (A B) C is A (B C), with one byte in B and almost 2^64 in C. */
	cr_assert_eq(base_crc32c_combine(base_crc32c_combine(0x1234, 0x5678, 1), 0x9abc, far_bytes),
		     base_crc32c_combine(0x1234, base_crc32c_combine(0x5678, 0x9abc, far_bytes),
					 far_bytes + 1));
}
