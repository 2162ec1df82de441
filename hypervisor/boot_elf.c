/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ELF64 x86-64 executables: System V ABI, chapters 4 and 5; the PVH entry is the
 * Xen note XEN_ELFNOTE_PHYS32_ENTRY (Xen, docs/misc/pvh.pandoc).  Segments go to their
 * physical addresses; addresses of a kernel's link map do not matter.
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/boot_plan.h"

#define EHDR_BYTES               64u
#define PHDR_BYTES               56u
#define NOTE_HEADER_BYTES        12u
#define XEN_NOTE_NAME            "Xen"
#define XEN_ELFNOTE_PHYS32_ENTRY 18u

struct elf_header {
	uint64_t entry;
	uint64_t phdr_offset;
	uint32_t phdr_count;
};

struct elf_segment {
	uint32_t type;
	uint64_t offset;
	uint64_t physical;
	uint64_t file_bytes;
	uint64_t memory_bytes;
	uint64_t alignment;
};

struct elf_notes {
	bool has_pvh_entry;
	uint64_t pvh_entry;
};

static int check_ident(const uint8_t *file, struct base_error *err)
{
	if (file[EI_CLASS] != ELFCLASS64)
		return base_fail(err, -ENOTSUP, "ELF class %u, expected %u (64-bit)",
				 file[EI_CLASS], ELFCLASS64);
	if (file[EI_DATA] != ELFDATA2LSB)
		return base_fail(err, -ENOTSUP, "ELF data encoding %u, expected %u (little-endian)",
				 file[EI_DATA], ELFDATA2LSB);
	if (file[EI_VERSION] != EV_CURRENT)
		return base_fail(err, -EBADMSG, "ELF version %u, expected %u", file[EI_VERSION],
				 EV_CURRENT);
	return 0;
}

static int decode_header(const uint8_t *file, size_t size_bytes, struct elf_header *ret_header,
			 struct base_error *err)
{
	struct base_reader in = base_reader_over(file, size_bytes);
	struct elf_header header = { 0 };
	uint16_t type;
	uint16_t machine;
	uint16_t phdr_bytes;
	int rc;

	if (size_bytes < EHDR_BYTES)
		return base_fail(err, -EBADMSG, "%zu bytes, expected an ELF header of %u",
				 size_bytes, EHDR_BYTES);
	rc = check_ident(file, err);
	if (rc < 0)
		return rc;
	base_read_skip(&in, EI_NIDENT);
	type = base_read_le16(&in);
	machine = base_read_le16(&in);
	base_read_skip(&in, 4); /* e_version */
	header.entry = base_read_le64(&in);
	header.phdr_offset = base_read_le64(&in);
	base_read_skip(&in, 14); /* e_shoff, e_flags, e_ehsize */
	phdr_bytes = base_read_le16(&in);
	header.phdr_count = base_read_le16(&in);
	if (machine != EM_X86_64)
		return base_fail(err, -ENOTSUP, "ELF machine %u, expected %u (x86-64)", machine,
				 EM_X86_64);
	if (type != ET_EXEC)
		return base_fail(err, -ENOTSUP, "ELF type %u, expected %u (executable)", type,
				 ET_EXEC);
	if (phdr_bytes != PHDR_BYTES)
		return base_fail(err, -EBADMSG, "program headers of %u bytes, expected %u",
				 phdr_bytes, PHDR_BYTES);
	if (header.phdr_count == 0 || header.phdr_count > BOOT_PHDRS_MAX)
		return base_fail(err, -EBADMSG, "%" PRIu32 " program headers, expected 1..%u",
				 header.phdr_count, BOOT_PHDRS_MAX);
	if (header.phdr_offset > size_bytes ||
	    (uint64_t)header.phdr_count * PHDR_BYTES > size_bytes - header.phdr_offset)
		return base_fail(err, -EBADMSG,
				 "%" PRIu32 " program headers at 0x%" PRIx64
				 " past end of file 0x%zx",
				 header.phdr_count, header.phdr_offset, size_bytes);
	*ret_header = header;
	return 0;
}

static int decode_segment(const uint8_t *file, size_t size_bytes, uint64_t offset,
			  struct elf_segment *ret_segment, struct base_error *err)
{
	struct base_reader in = base_reader_over(file + offset, PHDR_BYTES);
	struct elf_segment segment;

	segment.type = base_read_le32(&in);
	base_read_skip(&in, 4); /* p_flags: the guest sets its own page rights */
	segment.offset = base_read_le64(&in);
	base_read_skip(&in, 8); /* p_vaddr */
	segment.physical = base_read_le64(&in);
	segment.file_bytes = base_read_le64(&in);
	segment.memory_bytes = base_read_le64(&in);
	segment.alignment = base_read_le64(&in);
	if (segment.type != PT_LOAD && segment.type != PT_NOTE) {
		*ret_segment = segment;
		return 0;
	}
	if (segment.offset > size_bytes || segment.file_bytes > size_bytes - segment.offset)
		return base_fail(err, -EBADMSG,
				 "file bytes at 0x%" PRIx64 ", 0x%" PRIx64
				 " long, past end of file 0x%zx",
				 segment.offset, segment.file_bytes, size_bytes);
	if (segment.type == PT_LOAD && segment.memory_bytes < segment.file_bytes)
		return base_fail(err, -EBADMSG,
				 "0x%" PRIx64 " bytes in memory, expected at least its 0x%" PRIx64
				 " bytes in the file",
				 segment.memory_bytes, segment.file_bytes);
	*ret_segment = segment;
	return 0;
}

/* Padding at the very end may be missing. */
static void skip_padding(struct base_reader *in, size_t alignment)
{
	size_t padding = (0 - in->offset_bytes) & (alignment - 1);
	size_t left = base_reader_left(in);

	base_read_skip(in, padding < left ? padding : left);
}

/* A PT_NOTE: name and content of each note are padded to the segment's alignment, 4 or 8. */
static int read_notes(const uint8_t *notes, const struct elf_segment *segment,
		      struct elf_notes *found, struct base_error *err)
{
	struct base_reader in = base_reader_over(notes, segment->file_bytes);
	size_t alignment = segment->alignment == 8 ? 8 : 4;

	while (base_reader_left(&in) >= NOTE_HEADER_BYTES) {
		size_t at = in.offset_bytes;
		uint32_t name_bytes = base_read_le32(&in);
		uint32_t content_bytes = base_read_le32(&in);
		uint32_t type = base_read_le32(&in);
		const uint8_t *name = base_read_span(&in, name_bytes);
		const uint8_t *content;

		skip_padding(&in, alignment);
		content = base_read_span(&in, content_bytes);
		if (in.failed)
			return base_fail(err, -EBADMSG,
					 "note at 0x%zx: name of %" PRIu32
					 " and content of %" PRIu32
					 " bytes past end of notes 0x%" PRIx64,
					 at, name_bytes, content_bytes, segment->file_bytes);
		skip_padding(&in, alignment);
		if (type != XEN_ELFNOTE_PHYS32_ENTRY || name_bytes != sizeof(XEN_NOTE_NAME) ||
		    memcmp(name, XEN_NOTE_NAME, sizeof(XEN_NOTE_NAME)) != 0)
			continue;
		if (content_bytes != 4 && content_bytes != 8)
			return base_fail(err, -EBADMSG,
					 "PVH entry note of %" PRIu32 " bytes, expected 4 or 8",
					 content_bytes);
		if (found->has_pvh_entry)
			return base_fail(err, -EBADMSG, "second PVH entry note, expected one");
		found->has_pvh_entry = true;
		found->pvh_entry =
			content_bytes == 4 ? base_get_le32(content) : base_get_le64(content);
	}
	return 0;
}

static int plan_segment(struct hv_boot_plan *plan, uint32_t index, struct elf_notes *notes,
			const struct elf_segment *segment, struct base_error *err)
{
	const uint8_t *bytes;

	if (segment->type != PT_LOAD && segment->type != PT_NOTE)
		return 0; /* its offset was not checked */
	bytes = plan->image->kernel + segment->offset;
	if (segment->type == PT_NOTE)
		return read_notes(bytes, segment, notes, err);
	if (segment->memory_bytes == 0)
		return 0;
	return hv_boot_plan_add(plan,
				&(struct hv_boot_piece){ .what = "program header",
							 .index = index,
							 .gpa = segment->physical,
							 .size_bytes = segment->memory_bytes,
							 .data_gpa = segment->physical,
							 .data = bytes,
							 .data_bytes = (size_t)segment->file_bytes,
							 .zero_bytes = segment->memory_bytes -
								       segment->file_bytes },
				err);
}

static const struct hv_boot_piece *piece_of(const struct hv_boot_plan *plan, uint64_t gpa)
{
	for (uint32_t i = 0; i < plan->piece_count; i++) {
		const struct hv_boot_piece *piece = &plan->pieces[i];

		if (piece->index != BOOT_NO_INDEX && gpa >= piece->gpa &&
		    gpa - piece->gpa < piece->size_bytes)
			return piece;
	}
	return NULL;
}

static int plan_entry(struct hv_boot_plan *plan, const struct elf_notes *notes, uint64_t elf_entry,
		      struct base_error *err)
{
	uint64_t entry = notes->has_pvh_entry ? notes->pvh_entry : elf_entry;
	const char *name = notes->has_pvh_entry ? "PVH entry" : "ELF entry";

	if (piece_of(plan, entry) == NULL)
		return base_fail(err, -EBADMSG,
				 "%s 0x%" PRIx64 ", expected an address in a loaded segment", name,
				 entry);
	if (notes->has_pvh_entry && entry > UINT32_MAX)
		return base_fail(err, -EBADMSG, "%s 0x%" PRIx64 ", expected one below 4 GiB", name,
				 entry);
	plan->entry = (struct hv_boot_entry){
		.mode = notes->has_pvh_entry ? HV_BOOT_PVH32 : HV_BOOT_LONG64,
		.entry = entry,
		.info = notes->has_pvh_entry ? BOOT_START_INFO_GPA : BOOT_ZERO_PAGE_GPA,
		.page_table = notes->has_pvh_entry ? 0 : BOOT_PAGE_TABLE_GPA,
		.gdt = BOOT_GDT_GPA,
		.stack = BOOT_STACK_TOP,
	};
	return 0;
}

int hv_boot_plan_elf(struct hv_boot_plan *plan, struct base_error *err)
{
	const uint8_t *file = plan->image->kernel;
	size_t size_bytes = plan->image->kernel_bytes;
	struct elf_notes notes = { .has_pvh_entry = false };
	uint32_t fixed_count = plan->piece_count;
	struct elf_header header = { 0 };
	int rc = decode_header(file, size_bytes, &header, err);

	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < header.phdr_count; i++) {
		struct elf_segment segment = { 0 };

		rc = decode_segment(file, size_bytes, header.phdr_offset + (uint64_t)i * PHDR_BYTES,
				    &segment, err);
		if (rc < 0)
			return base_fail_within(err, rc, "program header %" PRIu32, i);
		rc = plan_segment(plan, i, &notes, &segment, err);
		if (rc < 0 && segment.type == PT_NOTE)
			return base_fail_within(err, rc, "program header %" PRIu32, i);
		if (rc < 0)
			return rc;
	}
	if (plan->piece_count == fixed_count)
		return base_fail(err, -EBADMSG, "no segment to load, expected at least one");
	rc = plan_entry(plan, &notes, header.entry, err);
	for (uint32_t i = fixed_count; rc == 0 && i < plan->piece_count; i++) {
		if (plan->entry.mode == HV_BOOT_LONG64)
			rc = hv_boot_plan_map(plan, plan->pieces[i].gpa, plan->pieces[i].size_bytes,
					      err);
	}
	return rc;
}
