/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux bzImage by the 64-bit boot protocol: Documentation/arch/x86/boot.rst, "The
 * Real-Mode Kernel Header" and "64-bit Boot Protocol".  Offsets are those of the file.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "hypervisor/boot_plan.h"

#define SETUP_SECTS         0x1F1u
#define SYSSIZE             0x1F4u
#define BOOT_FLAG           0x1FEu
#define JUMP_LENGTH         0x201u
#define VERSION             0x206u
#define LOADFLAGS           0x211u
#define CODE32_START        0x214u
#define INITRD_ADDR_MAX     0x22Cu
#define KERNEL_ALIGNMENT    0x230u
#define RELOCATABLE_KERNEL  0x234u
#define XLOADFLAGS          0x236u
#define CMDLINE_SIZE        0x238u
#define PREF_ADDRESS        0x258u
#define INIT_SIZE           0x260u
#define HEADER_END_MIN      0x264u /* behind init_size, the last field we need */
#define HEADER_END_MAX      0x290u /* the zero page has other fields from there on */
#define HEADER_END_BASE     0x202u /* plus the byte at JUMP_LENGTH: where the header ends */
#define SECTOR_BYTES        512u
#define PARAGRAPH_BYTES     16u
#define SETUP_SECTS_DEFAULT 4u /* boot.rst: 0 means 4 */
#define BOOT_FLAG_VALUE     0xAA55u
#define VERSION_MIN         0x20Cu /* xloadflags begins there */
#define LOADED_HIGH         0x01u
#define XLF_KERNEL_64       0x01u
#define ENTRY_64_OFFSET     0x200u /* of the 64-bit entry in the protected-mode part */

struct bzimage {
	uint64_t payload_offset; /* of the protected-mode part in the file */
	uint64_t payload_bytes;
	uint64_t preferred_gpa;
	uint64_t init_bytes;
	uint64_t code32_start;
	uint64_t alignment;
	bool relocatable;
};

static int check_protocol(const uint8_t *file, size_t size_bytes, struct base_error *err)
{
	uint32_t header_end;

	if (size_bytes < HEADER_END_MIN)
		return base_fail(err, -EBADMSG, "%zu bytes, expected a setup header of at least %u",
				 size_bytes, HEADER_END_MIN);
	if (base_get_le16(file + BOOT_FLAG) != BOOT_FLAG_VALUE)
		return base_fail(err, -EBADMSG, "boot flag 0x%x, expected 0x%x",
				 base_get_le16(file + BOOT_FLAG), BOOT_FLAG_VALUE);
	if (base_get_le16(file + VERSION) < VERSION_MIN)
		return base_fail(err, -ENOTSUP, "boot protocol 0x%x, expected 0x%x or newer",
				 base_get_le16(file + VERSION), VERSION_MIN);
	if ((file[LOADFLAGS] & LOADED_HIGH) == 0)
		return base_fail(err, -ENOTSUP,
				 "loadflags 0x%x: a zImage, expected a bzImage (bit 0)",
				 file[LOADFLAGS]);
	if ((base_get_le16(file + XLOADFLAGS) & XLF_KERNEL_64) == 0)
		return base_fail(
			err, -ENOTSUP,
			"xloadflags 0x%x: no 64-bit entry, expected a 64-bit kernel (bit 0)",
			base_get_le16(file + XLOADFLAGS));
	header_end = HEADER_END_BASE + file[JUMP_LENGTH];
	if (header_end < HEADER_END_MIN || header_end > HEADER_END_MAX || header_end > size_bytes)
		return base_fail(err, -EBADMSG, "setup header ends at 0x%x, expected 0x%x..0x%x",
				 header_end, HEADER_END_MIN, HEADER_END_MAX);
	return 0;
}

static int parse(const uint8_t *file, size_t size_bytes, struct bzimage *ret_image,
		 struct base_error *err)
{
	uint32_t sectors = file[SETUP_SECTS] == 0 ? SETUP_SECTS_DEFAULT : file[SETUP_SECTS];
	struct bzimage image = {
		.payload_offset = (sectors + 1ULL) * SECTOR_BYTES,
		.payload_bytes = (uint64_t)base_get_le32(file + SYSSIZE) * PARAGRAPH_BYTES,
		.preferred_gpa = base_get_le64(file + PREF_ADDRESS),
		.init_bytes = base_get_le32(file + INIT_SIZE),
		.code32_start = base_get_le32(file + CODE32_START),
		.alignment = base_get_le32(file + KERNEL_ALIGNMENT),
		.relocatable = file[RELOCATABLE_KERNEL] != 0,
	};

	if (image.payload_offset > size_bytes ||
	    image.payload_bytes > size_bytes - image.payload_offset)
		return base_fail(err, -EBADMSG,
				 "protected-mode part 0x%" PRIx64 "..0x%" PRIx64
				 " past end of file 0x%zx",
				 image.payload_offset, image.payload_offset + image.payload_bytes,
				 size_bytes);
	if (image.payload_bytes <= ENTRY_64_OFFSET)
		return base_fail(err, -EBADMSG,
				 "protected-mode part of %" PRIu64 " bytes, expected more than %u",
				 image.payload_bytes, ENTRY_64_OFFSET);
	if (image.relocatable &&
	    (image.alignment == 0 || (image.alignment & (image.alignment - 1)) != 0))
		return base_fail(err, -EBADMSG,
				 "kernel_alignment 0x%" PRIx64 ", expected a power of two",
				 image.alignment);
	if (image.preferred_gpa < HV_MEMMAP_HIGH_GPA || image.preferred_gpa >= HV_MEMORY_BYTES_MAX)
		return base_fail(err, -EBADMSG,
				 "pref_address 0x%" PRIx64 ", expected 0x%llx..0x%llx",
				 image.preferred_gpa, HV_MEMMAP_HIGH_GPA, HV_MEMORY_BYTES_MAX);
	if (!image.relocatable && image.code32_start < HV_MEMMAP_HIGH_GPA)
		return base_fail(err, -EBADMSG,
				 "code32_start 0x%" PRIx64 ", expected 0x%llx or more",
				 image.code32_start, HV_MEMMAP_HIGH_GPA);
	*ret_image = image;
	return 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

int hv_boot_plan_bzimage(struct hv_boot_plan *plan, struct base_error *err)
{
	const uint8_t *file = plan->image->kernel;
	size_t size_bytes = plan->image->kernel_bytes;
	struct hv_boot_piece piece = { .what = "kernel memory", .index = BOOT_NO_INDEX };
	struct bzimage image = { 0 };
	uint64_t run_gpa;
	uint64_t end;
	int rc;

	rc = check_protocol(file, size_bytes, err);
	if (rc == 0)
		rc = parse(file, size_bytes, &image, err);
	if (rc < 0)
		return rc;

	/*
	 * init_size bytes from the run address belong to the kernel until it has read the
	 * memory map.  It runs at the preferred address or above: loading lower gains nothing.
	 */
	run_gpa = image.preferred_gpa;
	if (image.relocatable)
		run_gpa = (run_gpa + image.alignment - 1) / image.alignment * image.alignment;
	piece.data_gpa = image.relocatable ? run_gpa : image.code32_start;
	piece.data = file + image.payload_offset;
	piece.data_bytes = image.payload_bytes;
	piece.gpa = least(run_gpa, piece.data_gpa);
	end = most(run_gpa + image.init_bytes, piece.data_gpa + piece.data_bytes);
	piece.size_bytes = end - piece.gpa;
	rc = hv_boot_plan_add(plan, &piece, err);
	if (rc == 0)
		rc = hv_boot_plan_map(plan, piece.gpa, piece.size_bytes, err);
	if (rc < 0)
		return rc;

	plan->header = file + BOOT_HEADER_OFFSET;
	plan->header_bytes = HEADER_END_BASE + file[JUMP_LENGTH] - BOOT_HEADER_OFFSET;
	plan->cmdline_bytes_max =
		(size_t)least(plan->cmdline_bytes_max, base_get_le32(file + CMDLINE_SIZE));
	plan->initrd_end_max =
		least(plan->initrd_end_max, base_get_le32(file + INITRD_ADDR_MAX) + 1ULL);
	plan->entry = (struct hv_boot_entry){ .mode = HV_BOOT_LONG64,
					      .entry = piece.data_gpa + ENTRY_64_OFFSET,
					      .info = BOOT_ZERO_PAGE_GPA,
					      .page_table = BOOT_PAGE_TABLE_GPA,
					      .gdt = BOOT_GDT_GPA,
					      .stack = BOOT_STACK_TOP };
	return 0;
}
