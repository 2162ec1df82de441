/* SPDX-License-Identifier: Apache-2.0 */
#include "boot_image.h"
#include "hypervisor/boot_plan.h"

static struct boot_vm vm;

static void set_up(void)
{
	vm = boot_vm_new(MEMORY_BYTES, -1);
}

static void tear_down(void)
{
	boot_vm_free(&vm);
}

TestSuite(boot_elf, .init = set_up, .fini = tear_down);

Test(boot_elf, without_note_enters_by_the_64_bit_protocol)
{
	struct boot_file file = boot_elf();
	struct hv_boot_image image = boot_image_of(&file);
	struct hv_boot_entry entry = boot_assert_loaded(&vm, &image);

	cr_assert_eq(entry.mode, HV_BOOT_LONG64);
	cr_assert_eq(entry.entry, ELF_LOAD_GPA + 16);
	cr_assert_eq(boot_peek32(vm.slat, ELF_LOAD_GPA + ELF_CODE_SIZE - 4), 0xC0C0C0C0);
	cr_assert_eq(boot_peek32(vm.slat, entry.info + 0x202), 0x53726448, "HdrS");
	cr_assert_eq(boot_peek32(vm.slat, entry.info + 0x210) & 0xFFFF, 0x01FF);
	cr_assert_eq(boot_peek64(vm.slat, entry.info + 0x70), 0xE0000);
}

Test(boot_elf, bss_is_zeroed_and_what_lies_behind_is_kept)
{
	struct boot_file file = boot_elf();
	struct hv_boot_image image = boot_image_of(&file);
	uint8_t old[ELF_MEMORY + 16];

	memset(old, 0xEE, sizeof(old));
	cr_assert_eq(hv_slat_write(vm.slat, ELF_LOAD_GPA, old, sizeof(old)), 0);
	boot_assert_loaded(&vm, &image);
	cr_assert(base_is_zero(
		hv_slat_view(vm.slat, ELF_LOAD_GPA + ELF_CODE_SIZE, ELF_MEMORY - ELF_CODE_SIZE),
		ELF_MEMORY - ELF_CODE_SIZE));
	cr_assert_eq(boot_peek32(vm.slat, ELF_LOAD_GPA + ELF_MEMORY), 0xEEEEEEEE);
}

Test(boot_elf, every_written_page_is_marked)
{
	struct boot_file file = boot_elf();
	struct hv_boot_image image = boot_image_of(&file);
	uint64_t *dirty = calloc(hv_slat_word_count(vm.slat), sizeof(*dirty));
	static const uint64_t written[] = { 0x0, 0x7, 0x9, 0xE, 0x20, 0x200, 0x201, 0x202 };

	cr_assert_not_null(dirty);
	cr_assert_eq(hv_slat_start(vm.slat, NULL), 0);
	cr_assert_eq(hv_slat_harvest(vm.slat, dirty, NULL, NULL), 0);
	cr_assert_eq(hv_boot_check(vm.slat, &image, NULL), 0);
	cr_assert_eq(hv_slat_harvest(vm.slat, dirty, NULL, NULL), 0);
	cr_assert(base_is_zero(dirty, hv_slat_word_count(vm.slat) * sizeof(*dirty)),
		  "a check writes nothing");
	boot_assert_loaded(&vm, &image);
	cr_assert_eq(hv_slat_harvest(vm.slat, dirty, NULL, NULL), 0);
	for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++)
		cr_assert_neq(dirty[written[i] / 64] & (1ULL << written[i] % 64), 0, "page %zu",
			      (size_t)written[i]);
	cr_assert_eq(dirty[0x203 / 64] & (1ULL << 0x203 % 64), 0);
	free(dirty);
}

Test(boot_elf, page_tables_map_four_gibibytes_to_themselves)
{
	struct boot_file file = boot_elf();
	struct hv_boot_image image = boot_image_of(&file);
	struct hv_boot_entry entry = boot_assert_loaded(&vm, &image);
	uint64_t pdpt = boot_peek64(vm.slat, entry.page_table) & ~0xFFFULL;

	for (uint64_t gpa = 0; gpa < 1ULL << 32; gpa += 2ULL << 20) {
		uint64_t pd = boot_peek64(vm.slat, pdpt + (gpa >> 30) * 8) & ~0xFFFULL;

		cr_assert_eq(boot_peek64(vm.slat, pd + (gpa >> 21 & 511) * 8), gpa | 0x83);
	}
	cr_assert_eq(boot_peek64(vm.slat, pdpt + 4 * 8), 0);
}

/* Translate by the tables in guest memory; the page must be mapped. */
static uint64_t translate(const struct hv_slat *slat, uint64_t table, uint64_t address)
{
	uint64_t entry = table;

	for (uint32_t shift = 39; shift >= 21; shift -= 9) {
		entry = boot_peek64(slat, (entry & ~0xFFFULL) + (address >> shift & 511) * 8);
		cr_assert_eq(entry & 3, 3, "0x%llx", (unsigned long long)address);
	}
	return (entry & ~0x1FFFFFULL) | (address & 0x1FFFFF);
}

/* Has RAM up to 4 GiB + 4 MiB; not populated, so that it costs nothing. */
static struct boot_vm vm_with_high_ram(void)
{
	uint64_t size_bytes = HV_GPA_HOLE_START + (4ULL << 20);

	if (hv_memory_check_size(size_bytes, NULL) == -ENOMEM)
		cr_skip_test("this host has less than 3 GiB of memory");
	return boot_vm_new(size_bytes, -1);
}

Test(boot_elf, segments_above_four_gibibytes_are_mapped)
{
	struct boot_vm big = vm_with_high_ram();
	struct boot_file file = boot_elf();
	struct hv_boot_image image = boot_image_of(&file);
	struct hv_boot_entry entry;

	base_put_le16(file.bytes + 56, 2);
	boot_put_phdr(&file, 1, 1, (const uint64_t[4]){ ELF_CODE, HV_GPA_HOLE_END, 16, 0x300000 });
	entry = boot_assert_loaded(&big, &image);
	for (uint64_t gpa = HV_GPA_HOLE_END; gpa < HV_GPA_HOLE_END + 0x300000; gpa += 0x1000)
		cr_assert_eq(translate(big.slat, entry.page_table, gpa), gpa);
	cr_assert_eq(boot_peek32(big.slat, HV_GPA_HOLE_END), 0xC0C0C0C0);
	boot_vm_free(&big);
}

Test(boot_elf, segments_across_the_hole_are_refused)
{
	struct boot_vm big = vm_with_high_ram();
	struct boot_file file = boot_elf();
	struct hv_boot_image image = boot_image_of(&file);

	base_put_le64(file.bytes + ELF_PHDR(0) + 24, HV_GPA_HOLE_START - 0x1000);
	boot_assert_refused(&big, &image, -ENOSPC,
			    "needs memory 0xbffff000..0xc0002000, the VM has RAM "
			    "0x100000..0xc0000000 there");
	boot_vm_free(&big);
}

Test(boot_elf, initrd_stays_below_the_hole)
{
	struct boot_vm big = vm_with_high_ram();
	struct boot_file file = boot_elf();
	struct hv_boot_image image = boot_image_of(&file);
	static const uint8_t initrd[5000];
	struct hv_boot_entry entry;

	image.initrd_name = "initrd.img";
	image.initrd = initrd;
	image.initrd_bytes = sizeof(initrd);
	entry = boot_assert_loaded(&big, &image);
	cr_assert_eq(boot_peek32(big.slat, entry.info + 0x218), HV_GPA_HOLE_START - 8192);
	boot_vm_free(&big);
}

Test(boot_elf, pvh_start_info_says_what_was_placed)
{
	struct boot_file file = boot_elf_pvh();
	struct hv_boot_image image = boot_image_of(&file);
	static const uint8_t initrd[] = "initrd";
	struct hv_boot_entry entry;
	uint8_t info[56];
	uint8_t module[32];
	char cmdline[64];
	uint64_t map;

	image.initrd_name = "initrd.img";
	image.initrd = initrd;
	image.initrd_bytes = sizeof(initrd);
	entry = boot_assert_loaded(&vm, &image);
	cr_assert_eq(entry.mode, HV_BOOT_PVH32);
	cr_assert_eq(entry.entry, ELF_LOAD_GPA + 32);
	boot_peek(vm.slat, entry.info, info, sizeof(info));
	cr_assert_eq(base_get_le32(info), 0x336EC578);
	cr_assert_eq(base_get_le32(info + 4), 1);
	cr_assert_eq(base_get_le32(info + 8), 0);
	cr_assert_eq(base_get_le32(info + 12), 1, "one module");
	cr_assert_eq(base_get_le64(info + 32), 0xE0000);
	boot_peek(vm.slat, base_get_le64(info + 16), module, sizeof(module));
	cr_assert_eq(base_get_le64(module), MEMORY_BYTES - 4096);
	cr_assert_eq(base_get_le64(module + 8), sizeof(initrd));
	boot_peek(vm.slat, base_get_le64(info + 24), cmdline, sizeof(cmdline));
	cr_assert_str_eq(cmdline, "console=ttyS0");
	map = base_get_le64(info + 40);
	cr_assert_eq(base_get_le32(info + 48), 5);
	cr_assert_eq(boot_peek64(vm.slat, map), 0);
	cr_assert_eq(boot_peek64(vm.slat, map + 8), 0x9F000);
	cr_assert_eq(boot_peek32(vm.slat, map + 16), 1);
	cr_assert_eq(boot_peek64(vm.slat, map + 2 * 24), 0xE0000);
	cr_assert_eq(boot_peek32(vm.slat, map + 2 * 24 + 16), 2);

	image.initrd_name = NULL;
	boot_assert_loaded(&vm, &image);
	cr_assert_eq(boot_peek32(vm.slat, entry.info + 12), 0, "no module");
	cr_assert_eq(boot_peek64(vm.slat, entry.info + 16), 0);
}

Test(boot_elf, pvh_note_of_four_bytes_and_alignment_of_eight)
{
	struct boot_file file = boot_elf_pvh();
	struct hv_boot_image image = boot_image_of(&file);

	base_put_le32(file.bytes + ELF_NOTES + 24 + 4, 4);
	base_put_le64(file.bytes + ELF_PHDR(1) + 32, 44);
	cr_assert_eq(boot_assert_loaded(&vm, &image).entry, ELF_LOAD_GPA + 32);

	file = boot_elf_pvh();
	base_put_le64(file.bytes + ELF_PHDR(1) + 48, 8);
	base_put_le32(file.bytes + ELF_NOTES + 4, 4); /* padded to eight */
	cr_assert_eq(boot_assert_loaded(&vm, &image).mode, HV_BOOT_PVH32);
}

struct broken {
	size_t offset;
	uint32_t size_bytes;
	uint64_t value;
	int code;
	const char *text;
};

static void assert_broken(const struct boot_file *good, const struct broken *broken, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct boot_file file = *good;
		struct hv_boot_image image = boot_image_of(&file);
		uint8_t value[8];

		base_put_le64(value, broken[i].value);
		memcpy(file.bytes + broken[i].offset, value, broken[i].size_bytes);
		boot_assert_refused(&vm, &image, broken[i].code, broken[i].text);
		boot_assert_refused(&vm, &image, broken[i].code, "kernel 'test.img': ");
	}
}

Test(boot_elf, every_broken_header_field_is_named)
{
	static const struct broken broken[] = {
		{ 4, 1, 1, -ENOTSUP, "ELF class 1, expected 2 (64-bit)" },
		{ 5, 1, 2, -ENOTSUP, "ELF data encoding 2, expected 1" },
		{ 6, 1, 9, -EBADMSG, "ELF version 9, expected 1" },
		{ 16, 2, 3, -ENOTSUP, "ELF type 3, expected 2 (executable)" },
		{ 18, 2, 183, -ENOTSUP, "ELF machine 183, expected 62 (x86-64)" },
		{ 54, 2, 32, -EBADMSG, "program headers of 32 bytes, expected 56" },
		{ 56, 2, 0, -EBADMSG, "0 program headers, expected 1..128" },
		{ 56, 2, 129, -EBADMSG, "129 program headers, expected 1..128" },
		{ 32, 8, 4352 - 55, -EBADMSG,
		  "1 program headers at 0x10c9 past end of file 0x1100" },
		{ 32, 8, UINT64_MAX, -EBADMSG, "at 0xffffffffffffffff past end of file" },
		{ 24, 8, 0x1FFFFF, -EBADMSG,
		  "ELF entry 0x1fffff, expected an address in a loaded segment" },
		{ 24, 8, 0x203000, -EBADMSG, "ELF entry 0x203000" },
		{ ELF_PHDR(0), 4, 6, -EBADMSG, "no segment to load" },
	};
	struct boot_file good = boot_elf();

	assert_broken(&good, broken, sizeof(broken) / sizeof(broken[0]));
}

Test(boot_elf, every_broken_segment_is_named)
{
	static const struct broken broken[] = {
		{ ELF_PHDR(0) + 8, 8, 0x1001, -EBADMSG,
		  "program header 0: file bytes at 0x1001, 0x100 long, past end of file 0x1100" },
		{ ELF_PHDR(0) + 8, 8, UINT64_MAX, -EBADMSG, "program header 0: file bytes at" },
		{ ELF_PHDR(0) + 32, 8, UINT64_MAX, -EBADMSG, "program header 0: file bytes at" },
		{ ELF_PHDR(0) + 40, 8, 0xFF, -EBADMSG,
		  "program header 0: 0xff bytes in memory, expected at least its 0x100" },
		{ ELF_PHDR(0) + 40, 8, UINT64_MAX, -EBADMSG,
		  "program header 0: 0xffffffffffffffff bytes at 0x200000 pass the end" },
		{ ELF_PHDR(0) + 40, 8, 0x7E00001, -ENOSPC,
		  "program header 0: needs memory 0x200000..0x8000001, the VM has RAM "
		  "0x100000..0x8000000 there" },
		{ ELF_PHDR(0) + 24, 8, 1ULL << 40, -ENOSPC,
		  "program header 0: needs memory 0x10000000000..0x10000003000, the VM has no "
		  "RAM at its start" },
		{ ELF_PHDR(0) + 24, 8, 0xA0000, -ENOSPC, "the VM has no RAM at its start" },
		{ ELF_PHDR(0) + 24, 8, 0x9F000, -ENOSPC, "the VM has no RAM at its start" },
		{ ELF_PHDR(0) + 24, 8, 0, -EBADMSG, "overlaps GDT at 0x500..0x520" },
		{ ELF_PHDR(0) + 24, 8, 0x4000, -EBADMSG, "overlaps PVH start info at 0x6000" },
		{ ELF_PHDR(0) + 24, 8, 0x7001, -EBADMSG, "overlaps zero page at 0x7000" },
		{ ELF_PHDR(0) + 24, 8, 0x8FFF, -EBADMSG, "overlaps boot stack at 0x8000" },
		{ ELF_PHDR(0) + 24, 8, 0x1E000, -EBADMSG, "overlaps page tables at 0x9000" },
		{ ELF_PHDR(0) + 24, 8, 0x1F000, -EBADMSG, "overlaps command line at 0x20000" },
		{ ELF_PHDR(0) + 24, 8, 0xFE000, -EBADMSG,
		  "program header 0: memory 0xfe000..0x101000 overlaps ACPI tables at "
		  "0xe0000..0x100000" },
	};
	struct boot_file good = boot_elf();

	assert_broken(&good, broken, sizeof(broken) / sizeof(broken[0]));
}

Test(boot_elf, segments_that_overlap_are_both_named)
{
	struct boot_file file = boot_elf();
	struct hv_boot_image image = boot_image_of(&file);

	base_put_le16(file.bytes + 56, 3);
	boot_put_phdr(&file, 1, 0, (const uint64_t[4]){ UINT64_MAX, 0, UINT64_MAX, 0 });
	boot_put_phdr(&file, 2, 1, (const uint64_t[4]){ 0, ELF_LOAD_GPA + ELF_MEMORY, 0, 1 });
	boot_assert_loaded(&vm, &image);
	boot_put_phdr(&file, 2, 1, (const uint64_t[4]){ 0, ELF_LOAD_GPA + ELF_MEMORY - 1, 0, 1 });
	boot_assert_refused(&vm, &image, -EBADMSG,
			    "program header 2: memory 0x202fff..0x203000 overlaps program header 0 "
			    "at 0x200000..0x203000");
	boot_put_phdr(&file, 2, 1, (const uint64_t[4]){ 0, ELF_LOAD_GPA - 1, 0, 2 });
	boot_assert_refused(&vm, &image, -EBADMSG, "overlaps program header 0");
}

Test(boot_elf, every_broken_note_is_named)
{
	static const struct broken broken[] = {
		{ ELF_NOTES, 4, 0x100, -EBADMSG,
		  "program header 1: note at 0x0: name of 256 and content of 8 bytes past end of "
		  "notes 0x30" },
		{ ELF_NOTES + 4, 4, UINT32_MAX, -EBADMSG, "program header 1: note at 0x0" },
		{ ELF_NOTES + 24 + 4, 4, 9, -EBADMSG, "program header 1: note at 0x18" },
		{ ELF_NOTES + 24 + 4, 4, 2, -EBADMSG,
		  "program header 1: PVH entry note of 2 bytes, expected 4 or 8" },
		{ ELF_NOTES + 8, 4, 18, -EBADMSG, "second PVH entry note, expected one" },
		{ ELF_NOTES + 24 + 16, 8, 0x100000, -EBADMSG, "PVH entry 0x100000, expected" },
		{ ELF_PHDR(1) + 32, 8, 0x10000, -EBADMSG, "program header 1: file bytes at 0x800" },
	};
	struct boot_file good = boot_elf_pvh();

	assert_broken(&good, broken, sizeof(broken) / sizeof(broken[0]));
}

Test(boot_elf, notes_of_others_are_skipped)
{
	struct boot_file file = boot_elf_pvh();
	struct hv_boot_image image = boot_image_of(&file);

	memcpy(file.bytes + ELF_NOTES + 24 + 12, "GNU", 4);
	cr_assert_eq(boot_assert_loaded(&vm, &image).mode, HV_BOOT_LONG64);
	base_put_le32(file.bytes + ELF_NOTES, 0); /* neither name nor content: a header alone */
	base_put_le32(file.bytes + ELF_NOTES + 4, 0);
	base_put_le64(file.bytes + ELF_PHDR(1) + 32, 13); /* and a byte of rest */
	boot_assert_loaded(&vm, &image);
}

Test(boot_elf, pvh_entry_above_four_gibibytes_is_refused)
{
	struct boot_vm big = vm_with_high_ram();
	struct boot_file file = boot_elf_pvh();
	struct hv_boot_image image = boot_image_of(&file);

	base_put_le64(file.bytes + ELF_PHDR(0) + 24, 1ULL << 32);
	base_put_le64(file.bytes + ELF_NOTES + 24 + 16, 1ULL << 32);
	boot_assert_refused(&big, &image, -EBADMSG,
			    "PVH entry 0x100000000, expected one below 4 GiB");
	boot_vm_free(&big);
}

Test(boot_elf, full_page_tables_are_named)
{
	struct hv_boot_plan plan = { .gib_count = 0 };
	struct base_error err = { 0 };

	/* The four GiB that are always mapped and 16 more with the same PDPT. */
	for (uint64_t gib = 4; gib < 20; gib++)
		cr_assert_eq(hv_boot_plan_map(&plan, gib << 30, 16, NULL), 0);
	cr_assert_eq(hv_boot_plan_map(&plan, 19ULL << 30, 1ULL << 30, NULL), 0, "there already");
	cr_assert_eq(hv_boot_plan_map(&plan, 20ULL << 30, 1, &err), -ENOSPC);
	cr_assert_str_eq(err.text, "spreads over more than 20 GiB of addresses, the boot page "
				   "tables are full");
	cr_assert_eq(plan.pdpt_count, 1);

	/* Far apart: each GiB needs a PDPT too. */
	plan = (struct hv_boot_plan){ .gib_count = 0 };
	for (uint64_t slot = 1; slot <= 8; slot++)
		cr_assert_eq(hv_boot_plan_map(&plan, slot << 39, 16, NULL), 0);
	cr_assert_eq(hv_boot_plan_map(&plan, 9ULL << 39, 1, &err), -ENOSPC);
	cr_assert_eq(plan.pdpt_count, 9);
}

Test(boot_elf, every_truncation_is_refused)
{
	struct boot_file file = boot_elf_pvh();

	for (size_t size_bytes = 0; size_bytes < file.size_bytes; size_bytes++) {
		struct hv_boot_image image = boot_image_of(&file);
		uint8_t *exact = malloc(size_bytes + 1);

		cr_assert_not_null(exact);
		memcpy(exact + 1, file.bytes, size_bytes);
		image.kernel = exact + 1;
		image.kernel_bytes = size_bytes;
		cr_assert_eq(hv_boot_check(vm.slat, &image, NULL), -EBADMSG, "%zu", size_bytes);
		free(exact);
	}
}
