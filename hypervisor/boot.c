/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/boot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hypervisor/boot_plan.h"

#define ELF_MAGIC        "\177ELF"
#define ELF_MAGIC_BYTES  4u
#define HDRS_MAGIC       "HdrS" /* boot.rst: field "header" */
#define HDRS_MAGIC_BYTES 4u
#define HDRS_OFFSET      0x202u

struct hv_boot_piece_name hv_boot_piece_name(const struct hv_boot_piece *piece)
{
	struct hv_boot_piece_name name;

	if (piece->index == BOOT_NO_INDEX)
		(void)snprintf(name.text, sizeof(name.text), "%s", piece->what);
	else
		(void)snprintf(name.text, sizeof(name.text), "%s %" PRIu32, piece->what,
			       piece->index);
	return name;
}

/* No overlap with what is there already, and room in the table. */
static int take(struct hv_boot_plan *plan, const struct hv_boot_piece *piece,
		struct base_error *err)
{
	uint64_t end;

	if (piece->size_bytes > UINT64_MAX - piece->gpa)
		return base_fail(err, -EBADMSG,
				 "%s: 0x%" PRIx64 " bytes at 0x%" PRIx64 " pass the end of 64 bits",
				 hv_boot_piece_name(piece).text, piece->size_bytes, piece->gpa);
	end = piece->gpa + piece->size_bytes;
	for (uint32_t i = 0; i < plan->piece_count; i++) {
		const struct hv_boot_piece *other = &plan->pieces[i];
		uint64_t other_end = other->gpa + other->size_bytes;

		if (piece->gpa >= other_end || other->gpa >= end)
			continue;
		return base_fail(err, -EBADMSG,
				 "%s: memory 0x%" PRIx64 "..0x%" PRIx64 " overlaps %s at 0x%" PRIx64
				 "..0x%" PRIx64,
				 hv_boot_piece_name(piece).text, piece->gpa, end,
				 hv_boot_piece_name(other).text, other->gpa, other_end);
	}
	base_assert(plan->piece_count < BOOT_PIECES_MAX);
	plan->pieces[plan->piece_count++] = *piece;
	return 0;
}

int hv_boot_plan_add(struct hv_boot_plan *plan, const struct hv_boot_piece *piece,
		     struct base_error *err)
{
	const struct hv_memmap_entry *entry;
	int rc = take(plan, piece, err);

	if (rc < 0 || hv_memmap_is_ram(&plan->map, piece->gpa, piece->size_bytes))
		return rc;
	entry = hv_memmap_find(&plan->map, piece->gpa);
	if (entry == NULL || entry->kind != HV_MEMMAP_RAM)
		return base_fail(err, -ENOSPC,
				 "%s: needs memory 0x%" PRIx64 "..0x%" PRIx64
				 ", the VM has no RAM at its start",
				 hv_boot_piece_name(piece).text, piece->gpa,
				 piece->gpa + piece->size_bytes);
	return base_fail(err, -ENOSPC,
			 "%s: needs memory 0x%" PRIx64 "..0x%" PRIx64 ", the VM has RAM 0x%" PRIx64
			 "..0x%" PRIx64 " there",
			 hv_boot_piece_name(piece).text, piece->gpa, piece->gpa + piece->size_bytes,
			 entry->gpa, entry->gpa + entry->size_bytes);
}

/* The boot structures' own places.  They do not depend on the kernel file. */
static void take_fixed(struct hv_boot_plan *plan)
{
	static const struct {
		const char *what;
		uint64_t gpa;
		uint64_t size_bytes;
	} fixed[] = {
		{ "GDT", BOOT_GDT_GPA, BOOT_GDT_BYTES },
		{ "PVH start info", BOOT_START_INFO_GPA, HV_PAGE_BYTES },
		{ "zero page", BOOT_ZERO_PAGE_GPA, HV_PAGE_BYTES },
		{ "boot stack", BOOT_STACK_GPA, HV_PAGE_BYTES },
		{ "page tables", BOOT_PAGE_TABLE_GPA, BOOT_PAGE_TABLE_PAGES * HV_PAGE_BYTES },
		{ "command line", BOOT_CMDLINE_GPA, HV_CMDLINE_BYTES },
		{ "ACPI tables", HV_ACPI_AREA_GPA, HV_ACPI_AREA_BYTES },
	};

	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		struct hv_boot_piece piece = { .what = fixed[i].what,
					       .index = BOOT_NO_INDEX,
					       .gpa = fixed[i].gpa,
					       .size_bytes = fixed[i].size_bytes,
					       .data_gpa = fixed[i].gpa };

		if (fixed[i].gpa == BOOT_CMDLINE_GPA) {
			piece.data = (const uint8_t *)plan->image->cmdline;
			piece.data_bytes = plan->cmdline_bytes;
			piece.zero_bytes = HV_CMDLINE_BYTES - plan->cmdline_bytes;
		}
		base_assert(take(plan, &piece, NULL) == 0);
	}
}

/* The highest piece that begins below @top and ends above @floor; NULL when none does. */
static const struct hv_boot_piece *highest_below(const struct hv_boot_plan *plan, uint64_t top,
						 uint64_t floor)
{
	const struct hv_boot_piece *highest = NULL;

	for (uint32_t i = 0; i < plan->piece_count; i++) {
		const struct hv_boot_piece *piece = &plan->pieces[i];

		if (piece->gpa >= top || piece->gpa + piece->size_bytes <= floor)
			continue;
		if (highest == NULL || piece->gpa > highest->gpa)
			highest = piece;
	}
	return highest;
}

/* The highest free run of pages in low RAM that holds the initrd. */
static int plan_initrd(struct hv_boot_plan *plan, struct base_error *err)
{
	const struct hv_boot_image *image = plan->image;
	const struct hv_memmap_entry *ram = hv_memmap_find(&plan->map, HV_MEMMAP_HIGH_GPA);
	struct hv_boot_piece piece = { .what = "initrd",
				       .index = BOOT_NO_INDEX,
				       .size_bytes = image->initrd_bytes,
				       .data = image->initrd,
				       .data_bytes = image->initrd_bytes };
	uint64_t most_bytes = 0;
	uint64_t limit;
	uint64_t top;

	if (image->initrd_name == NULL)
		return 0;
	if (image->initrd_bytes == 0 || image->initrd_bytes > HV_INITRD_BYTES_MAX)
		return base_fail(err, -EINVAL, "initrd '%s': %zu bytes, expected 1..%llu",
				 image->initrd_name, image->initrd_bytes, HV_INITRD_BYTES_MAX);
	base_assert(ram != NULL);
	limit = ram->gpa + ram->size_bytes;
	if (plan->initrd_end_max < limit)
		limit = plan->initrd_end_max;
	for (top = limit; top > ram->gpa;) {
		const struct hv_boot_piece *below = highest_below(plan, top, ram->gpa);
		uint64_t floor = below == NULL ? ram->gpa : below->gpa + below->size_bytes;
		uint64_t free_bytes = floor < top ? top - floor : 0;

		if (free_bytes >= piece.size_bytes) {
			piece.gpa = (top - piece.size_bytes) / HV_PAGE_BYTES * HV_PAGE_BYTES;
			piece.data_gpa = piece.gpa;
			plan->initrd_gpa = piece.gpa;
			if (piece.gpa >= floor)
				return hv_boot_plan_add(plan, &piece, err);
		}
		most_bytes = free_bytes > most_bytes ? free_bytes : most_bytes;
		top = below == NULL ? 0 : below->gpa;
	}
	return base_fail(err, -ENOSPC,
			 "initrd '%s': needs %zu bytes in whole pages, the largest free run below "
			 "0x%" PRIx64 " has %" PRIu64,
			 image->initrd_name, image->initrd_bytes, limit, most_bytes);
}

static int plan_kernel(struct hv_boot_plan *plan, struct base_error *err)
{
	const struct hv_boot_image *image = plan->image;
	const uint8_t *kernel = image->kernel;

	if (image->kernel_bytes >= ELF_MAGIC_BYTES &&
	    memcmp(kernel, ELF_MAGIC, ELF_MAGIC_BYTES) == 0)
		return hv_boot_plan_elf(plan, err);
	if (image->kernel_bytes >= HDRS_OFFSET + HDRS_MAGIC_BYTES &&
	    memcmp(kernel + HDRS_OFFSET, HDRS_MAGIC, HDRS_MAGIC_BYTES) == 0)
		return hv_boot_plan_bzimage(plan, err);
	if (image->kernel_bytes < ELF_MAGIC_BYTES)
		return base_fail(err, -EBADMSG,
				 "%zu bytes, expected an ELF file or a Linux bzImage",
				 image->kernel_bytes);
	return base_fail(err, -EBADMSG,
			 "begins with %02x %02x %02x %02x and has no 'HdrS' at 0x202, expected an "
			 "ELF file or a Linux bzImage",
			 kernel[0], kernel[1], kernel[2], kernel[3]);
}

static int make_plan(struct hv_slat *slat, const struct hv_boot_image *image,
		     struct hv_boot_plan *ret_plan, struct base_error *err)
{
	struct hv_boot_plan *plan = ret_plan;
	size_t cmdline_bytes = strnlen(image->cmdline, HV_CMDLINE_BYTES);
	int rc;

	if (cmdline_bytes >= HV_CMDLINE_BYTES)
		return base_fail(err, -EINVAL, "command line: %zu bytes, expected at most %d",
				 strlen(image->cmdline), HV_CMDLINE_BYTES - 1);
	*plan = (struct hv_boot_plan){ .image = image,
				       .cmdline_bytes = cmdline_bytes,
				       .cmdline_bytes_max = HV_CMDLINE_BYTES - 1,
				       .initrd_end_max = HV_GPA_HOLE_START };
	hv_memmap_build(hv_slat_memory(slat), &plan->map);
	take_fixed(plan);
	rc = plan_kernel(plan, err);
	if (rc < 0)
		return base_fail_within(err, rc, "kernel '%s'", image->kernel_name);
	if (cmdline_bytes > plan->cmdline_bytes_max)
		return base_fail(err, -EINVAL,
				 "command line: %zu bytes, kernel '%s' takes at most %zu",
				 cmdline_bytes, image->kernel_name, plan->cmdline_bytes_max);
	return plan_initrd(plan, err);
}

int hv_boot_check(struct hv_slat *slat, const struct hv_boot_image *image, struct base_error *err)
{
	struct hv_boot_plan plan;

	return make_plan(slat, image, &plan, err);
}

static int write_piece(struct hv_slat *slat, const struct hv_boot_piece *piece)
{
	int rc = 0;

	if (piece->data_bytes > 0)
		rc = hv_slat_write(slat, piece->data_gpa, piece->data, piece->data_bytes);
	if (rc == 0 && piece->zero_bytes > 0)
		rc = hv_slat_zero(slat, piece->data_gpa + piece->data_bytes, piece->zero_bytes);
	return rc;
}

int hv_boot_load(struct hv_slat *slat, const struct hv_boot_image *image,
		 struct hv_boot_entry *ret_entry, struct base_error *err)
{
	struct hv_boot_plan plan = { .image = image };
	int rc = make_plan(slat, image, &plan, err);

	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < plan.piece_count; i++) {
		rc = write_piece(slat, &plan.pieces[i]);
		if (rc < 0)
			return base_fail_errno(err, rc, "%s at 0x%" PRIx64,
					       hv_boot_piece_name(&plan.pieces[i]).text,
					       plan.pieces[i].gpa);
	}
	rc = hv_boot_write_gdt(slat, plan.entry.mode, err);
	if (rc < 0)
		return rc;
	rc = plan.entry.mode == HV_BOOT_PVH32 ? hv_boot_write_pvh(slat, &plan, err)
					      : hv_boot_write_long64(slat, &plan, err);
	if (rc < 0)
		return rc;
	*ret_entry = plan.entry;
	return 0;
}
