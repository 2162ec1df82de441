/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/image_priv.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/alloc_fail.h"

static uint32_t ended;
static int ended_with;

static void done(struct disk_request *request, int result)
{
	(void)request;
	ended++;
	ended_with = result;
}

static struct disk_request request_of(const struct iovec *iov, uint32_t count, uint64_t length)
{
	ended = 0;
	return (struct disk_request){ .op = DISK_READ,
				      .iov = iov,
				      .iov_count = count,
				      .length_bytes = length,
				      .done = done };
}

Test(image, names)
{
	cr_assert_str_eq(disk_format_name(DISK_RAW), "raw");
	cr_assert_str_eq(disk_format_name(DISK_VHD), "vhd");
	cr_assert_str_eq(disk_format_name(DISK_VHDX), "vhdx");
	cr_assert_str_eq(disk_format_name(DISK_FORMATS), "invalid");
	cr_assert_str_eq(disk_kind_name(DISK_FIXED), "fixed");
	cr_assert_str_eq(disk_kind_name(DISK_DYNAMIC), "dynamic");
	cr_assert_str_eq(disk_kind_name(DISK_DIFFERENCING), "differencing");
	cr_assert_str_eq(disk_kind_name(DISK_KIND_INVALID), "invalid");
	cr_assert_eq(image_ops_of(DISK_RAW), &image_raw_ops);
	cr_assert_eq(image_ops_of(DISK_VHD), &image_vhd_ops);
	cr_assert_eq(image_ops_of(DISK_VHDX), &image_vhdx_ops);
}

Test(image, split_ends_once_with_the_first_failure)
{
	struct disk_request request = request_of(NULL, 0, 0);

	image_split(&request);
	image_part_add(&request);
	image_part_add(&request);
	image_part_done(&request, 0);
	image_part_done(&request, -EIO);
	cr_assert_eq(ended, 0);
	image_part_done(&request, -ENOSPC);
	cr_assert_eq(ended, 1);
	cr_assert_eq(ended_with, -EIO);
}

/* Every slice of an iov holds exactly the bytes it should. */
Test(image, slices)
{
	uint8_t bytes[60];
	const struct iovec iov[3] = { { bytes, 10 }, { bytes + 10, 20 }, { bytes + 30, 30 } };
	struct iovec to[3];

	for (uint64_t skip = 0; skip < 60; skip++) {
		for (uint64_t length = 1; length <= 60 - skip; length++) {
			int count = image_iov_slice(iov, 3, skip, length, to, 3);
			uint64_t at = skip;

			cr_assert_gt(count, 0);
			for (int i = 0; i < count; i++) {
				cr_assert_eq(to[i].iov_base, bytes + at);
				at += to[i].iov_len;
			}
			cr_assert_eq(at, skip + length);
		}
	}
	cr_assert_eq(image_iov_slice(iov, 3, 5, 50, to, 2), -ENOMEM);
	cr_assert_eq(image_iov_slice(iov, 3, 5, 0, to, 0), 0);
}

Test(image, zeros_only_where_asked)
{
	uint8_t bytes[60];
	const struct iovec iov[2] = { { bytes, 10 }, { bytes + 10, 50 } };

	for (uint64_t skip = 0; skip < 60; skip++) {
		memset(bytes, 1, sizeof(bytes));
		image_iov_zero(iov, 2, skip, (60 - skip) / 2);
		for (uint64_t i = 0; i < 60; i++)
			cr_assert_eq(bytes[i], i < skip || i >= skip + (60 - skip) / 2);
	}
}

Test(image, extents_join)
{
	struct disk_extent extents[2];
	struct disk_request request = { .op = DISK_MAP, .extents = extents, .extent_capacity = 2 };

	cr_assert(image_extent_add(&request, 0, 10, DISK_EXTENT_DATA));
	cr_assert(image_extent_add(&request, 10, 5, DISK_EXTENT_DATA));
	cr_assert(image_extent_add(&request, 15, 5, DISK_EXTENT_ZERO));
	cr_assert_not(image_extent_add(&request, 20, 5, DISK_EXTENT_DATA));
	cr_assert(image_extent_add(&request, 20, 5, DISK_EXTENT_ZERO));
	cr_assert_eq(request.extent_count, 2);
	cr_assert_eq(extents[0].length_bytes, 15);
	cr_assert_eq(extents[1].length_bytes, 10);
}

Test(image, the_first_failure_stays)
{
	struct image image = { .active = true };

	image_fail(&image, "flush %d", 1);
	image_fail(&image, "flush %d", 2);
	cr_assert(image.failed);
	cr_assert_str_eq(image.failed_why, "flush 1");
}

Test(image, parts_come_from_a_list)
{
	struct image image = { .active = true };
	uint8_t bytes[80];
	struct iovec iov[8];
	struct disk_request request = request_of(iov, 8, 80);
	struct image_part *part = NULL;
	struct image_part *again = NULL;

	for (int i = 0; i < 8; i++)
		iov[i] = (struct iovec){ bytes + i * 10, 10 };
	image_split(&request);
	part = image_part_new(&image, &request, 0, 80);
	cr_assert_eq(part->iov, iov); /* whole: borrowed */
	image_part_end(part, 0);
	again = image_part_new(&image, &request, 25, 10);
	cr_assert_eq(again, part);
	cr_assert_eq(again->iov_count, 2);
	cr_assert_eq(again->iov, again->iov_inline);
	image_part_end(again, 0);
	again = image_part_new(&image, &request, 5, 70); /* more pieces than fit inline */
	cr_assert_eq(again->iov_count, 8);
	image_part_end(again, -EIO);
	cr_assert_eq(ended, 0);
	image_part_done(&request, 0);
	cr_assert_eq(ended_with, -EIO);
	image_parts_free(&image);
}

Test(image, parts_without_memory)
{
	struct image image = { .active = true };
	uint8_t bytes[80];
	struct iovec iov[8];
	struct disk_request request = request_of(iov, 8, 80);

	for (int i = 0; i < 8; i++)
		iov[i] = (struct iovec){ bytes + i * 10, 10 };
	image_split(&request);
	alloc_fail_at(0);
	cr_assert_null(image_part_new(&image, &request, 0, 80));
	alloc_fail_at(1);
	cr_assert_null(image_part_new(&image, &request, 5, 70));
	cr_assert(alloc_fail_done());
	cr_assert_eq(request.pending, 1);
	image_parts_free(&image);
}

/* A parent that answers a READ at once with ones, and notes what it was asked. */
static uint64_t parent_asked;

static void parent_submit(struct image *image, struct disk_request *request)
{
	(void)image;
	parent_asked = request->length_bytes;
	for (uint32_t i = 0; i < request->iov_count; i++)
		memset(request->iov[i].iov_base, 1, request->iov[i].iov_len);
	image_done(request, 0);
}

/* What lies behind the parent's end reads zero. */
Test(image, a_parent_that_is_shorter)
{
	const struct image_ops ops = { .submit = parent_submit };
	struct image parent = { .ops = &ops, .geometry = { .size_bytes = 100 } };
	struct image image = { .parent = &parent };
	uint8_t bytes[60];
	struct iovec iov[2] = { { bytes, 30 }, { bytes + 30, 30 } };

	for (uint64_t offset = 20; offset < 140; offset += 10) {
		struct disk_request request = request_of(iov, 2, 60);
		uint64_t inside = offset >= 100 ? 0 : 100 - offset;
		struct image_part *part = NULL;

		request.offset_bytes = offset;
		parent_asked = 0;
		memset(bytes, 7, sizeof(bytes));
		image_split(&request);
		part = image_part_new(&image, &request, 0, 60);
		image_part_parent(part);
		image_part_done(&request, 0);
		cr_assert_eq(ended, 1);
		cr_assert_eq(parent_asked, inside > 60 ? 60 : inside);
		for (uint64_t i = 0; i < 60; i++)
			cr_assert_eq(bytes[i], i < inside ? 1 : 0);
	}
	image_parts_free(&image);
}
