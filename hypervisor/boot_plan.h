/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a direct boot will put where, before a byte is written.  Private to the
 * boot_*.c files.
 *
 * hv_boot_check() makes a plan; hv_boot_load() makes the same plan and carries it
 * out, so the two cannot disagree.  A plan borrows the image and is used by one
 * thread.  Invariant: no two pieces overlap, and each lies in RAM.
 */
#ifndef HYPERVISOR_BOOT_PLAN_H
#define HYPERVISOR_BOOT_PLAN_H

#include "hypervisor/acpi.h"
#include "hypervisor/boot.h"
#include "hypervisor/boot_memmap.h"

/* Fixed places, all below the EBDA, so that a kernel at 1 MiB or above is free of them. */
#define BOOT_GDT_GPA          0x500ULL
#define BOOT_GDT_BYTES        32ULL
#define BOOT_START_INFO_GPA   0x6000ULL
#define BOOT_ZERO_PAGE_GPA    0x7000ULL
#define BOOT_STACK_GPA        0x8000ULL
#define BOOT_STACK_TOP        0x8FF0ULL
#define BOOT_PAGE_TABLE_GPA   0x9000ULL
#define BOOT_PAGE_TABLE_PAGES 22u
#define BOOT_CMDLINE_GPA      0x20000ULL

#define BOOT_GIB_BYTES     (1ULL << 30)
#define BOOT_GIBS_ALWAYS   4u   /* the identity map covers the first 4 GiB in any case */
#define BOOT_GIBS_MAX      20u  /* with PML4 and one PDPT they fill the area */
#define BOOT_PDPTS_MAX     9u   /* the low one and one for each further GiB, far apart */
#define BOOT_PHDRS_MAX     128u /* program headers; vmlinux has 5 */
#define BOOT_PIECES_MAX    (BOOT_PHDRS_MAX + 16u)
#define BOOT_NO_INDEX      UINT32_MAX
#define BOOT_HEADER_OFFSET 0x1F1ULL /* setup header in the file and in the zero page */

/* One thing in guest memory. */
struct hv_boot_piece {
	const char *what; /* static text */
	uint32_t index;   /* number of the program header; BOOT_NO_INDEX */
	uint64_t gpa;     /* taken: nothing else may lie there */
	uint64_t size_bytes;
	uint64_t data_gpa; /* within; data first, then zeros */
	const uint8_t *data;
	size_t data_bytes;
	uint64_t zero_bytes;
};

struct hv_boot_plan {
	const struct hv_boot_image *image;
	struct hv_memmap map;
	struct hv_boot_piece pieces[BOOT_PIECES_MAX];
	uint32_t piece_count;
	struct hv_boot_entry entry;
	uint64_t initrd_end_max; /* the initrd ends at or before this GPA */
	uint64_t initrd_gpa;     /* 0: none */
	size_t cmdline_bytes;    /* without its zero */
	size_t cmdline_bytes_max;
	const uint8_t *header; /* setup header of a bzImage, from file offset 0x1F1; NULL */
	size_t header_bytes;
	uint64_t gibs[BOOT_GIBS_MAX]; /* identity-mapped, in order of their PDs */
	uint32_t gib_count;
	uint64_t pdpts[BOOT_PDPTS_MAX]; /* PML4 index of each PDPT */
	uint32_t pdpt_count;
};

/* "program header 2" or "initrd": the name of a piece in error texts. */
struct hv_boot_piece_name {
	char text[48];
};
struct hv_boot_piece_name hv_boot_piece_name(const struct hv_boot_piece *piece);

/**
 * hv_boot_plan_add - take a place.
 * -ENOSPC not RAM (need and have); -EBADMSG overlaps another piece (both named),
 * wraps around, or too many pieces.
 */
BASE_MUST_CHECK int hv_boot_plan_add(struct hv_boot_plan *plan, const struct hv_boot_piece *piece,
				     struct base_error *err);

/* Read the kernel file and plan its pieces, the entry and the limits it states. */
BASE_MUST_CHECK int hv_boot_plan_bzimage(struct hv_boot_plan *plan, struct base_error *err);
BASE_MUST_CHECK int hv_boot_plan_elf(struct hv_boot_plan *plan, struct base_error *err);

/* Identity-map what holds [gpa, gpa + size_bytes) too.  -ENOSPC when the tables are full. */
BASE_MUST_CHECK int hv_boot_plan_map(struct hv_boot_plan *plan, uint64_t gpa, uint64_t size_bytes,
				     struct base_error *err);

/* Write what each way of entry needs besides the pieces. */
BASE_MUST_CHECK int hv_boot_write_gdt(struct hv_slat *slat, enum hv_boot_mode mode,
				      struct base_error *err);
BASE_MUST_CHECK int hv_boot_write_long64(struct hv_slat *slat, const struct hv_boot_plan *plan,
					 struct base_error *err);
BASE_MUST_CHECK int hv_boot_write_pvh(struct hv_slat *slat, const struct hv_boot_plan *plan,
				      struct base_error *err);

#endif
