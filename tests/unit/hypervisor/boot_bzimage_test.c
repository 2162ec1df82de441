/* SPDX-License-Identifier: Apache-2.0 */
#include <glob.h>

#include "base/file.h"
#include "boot_image.h"

#define ZERO_PAGE 0x7000u

static struct boot_vm vm;

static void set_up(void)
{
	vm = boot_vm_new(MEMORY_BYTES, -1);
}

static void tear_down(void)
{
	boot_vm_free(&vm);
}

TestSuite(boot_bzimage, .init = set_up, .fini = tear_down);

Test(boot_bzimage, payload_is_at_the_preferred_address)
{
	struct boot_file file = boot_bzimage();
	struct hv_boot_image image = boot_image_of(&file);
	struct hv_boot_entry entry = boot_assert_loaded(&vm, &image);
	uint8_t loaded[BZ_BYTES - BZ_PAYLOAD];

	cr_assert_eq(entry.mode, HV_BOOT_LONG64);
	cr_assert_eq(entry.entry, BZ_GPA + 0x200);
	cr_assert_eq(entry.info, ZERO_PAGE);
	boot_peek(vm.slat, BZ_GPA, loaded, sizeof(loaded));
	cr_assert_eq(memcmp(loaded, file.bytes + BZ_PAYLOAD, sizeof(loaded)), 0);
}

Test(boot_bzimage, zero_page_says_what_was_placed)
{
	struct boot_file file = boot_bzimage();
	struct hv_boot_image image = boot_image_of(&file);
	uint8_t initrd[5000];
	char cmdline[64];
	uint8_t page[4096];

	memset(initrd, 0x1D, sizeof(initrd));
	image.initrd_name = "initrd.img";
	image.initrd = initrd;
	image.initrd_bytes = sizeof(initrd);
	boot_assert_loaded(&vm, &image);
	boot_peek(vm.slat, ZERO_PAGE, page, sizeof(page));
	cr_assert_eq(base_get_le16(page + 0x1FE), 0xAA55);
	cr_assert_eq(memcmp(page + 0x202, "HdrS", 4), 0);
	cr_assert_eq(base_get_le16(page + 0x206), 0x20F);
	cr_assert_eq(page[0x210], 0xFF);
	cr_assert_eq(page[0x211], 0x01, "loaded high, no heap");
	cr_assert_eq(base_get_le64(page + 0x70), 0xE0000);
	cr_assert_eq(base_get_le64(page + 0x258), BZ_GPA);
	cr_assert_eq(base_get_le32(page + 0x260), BZ_INIT_BYTES);
	cr_assert_eq(base_get_le32(page + 0x218), MEMORY_BYTES - 8192, "top of RAM, whole pages");
	cr_assert_eq(base_get_le32(page + 0x21C), sizeof(initrd));
	cr_assert_eq(memcmp(hv_slat_view(vm.slat, MEMORY_BYTES - 8192, sizeof(initrd)), initrd,
			    sizeof(initrd)),
		     0);
	boot_peek(vm.slat, base_get_le32(page + 0x228), cmdline, sizeof(cmdline));
	cr_assert_str_eq(cmdline, "console=ttyS0");

	cr_assert_eq(page[0x1E8], 5, "e820 entries");
	cr_assert_eq(base_get_le64(page + 0x2D0 + 3 * 20), 0x100000);
	cr_assert_eq(base_get_le64(page + 0x2D0 + 3 * 20 + 8), MEMORY_BYTES - 0x100000);
	cr_assert_eq(base_get_le32(page + 0x2D0 + 3 * 20 + 16), 1);
}

Test(boot_bzimage, initrd_respects_the_kernels_limit)
{
	struct boot_file file = boot_bzimage();
	struct hv_boot_image image = boot_image_of(&file);
	uint8_t initrd[100] = { 1 };

	base_put_le32(file.bytes + 0x22C, 0x37FFFFF); /* the last byte it may have */
	image.initrd_name = "initrd.img";
	image.initrd = initrd;
	image.initrd_bytes = sizeof(initrd);
	boot_assert_loaded(&vm, &image);
	cr_assert_eq(boot_peek32(vm.slat, ZERO_PAGE + 0x218), 0x37FF000);

	/* The kernel is in the way: the next free run is below it. */
	base_put_le32(file.bytes + 0x22C, BZ_GPA + 0x8000);
	boot_assert_loaded(&vm, &image);
	cr_assert_eq(boot_peek32(vm.slat, ZERO_PAGE + 0x218), BZ_GPA - 4096);

	base_put_le32(file.bytes + 0x22C, 0x100062); /* 99 bytes above 1 MiB */
	boot_assert_refused(&vm, &image, -ENOSPC, "initrd 'initrd.img': needs 100 bytes");
}

Test(boot_bzimage, initrd_too_big_names_need_and_have)
{
	struct boot_file file = boot_bzimage();
	struct hv_boot_image image = boot_image_of(&file);
	uint8_t *initrd = calloc(1, MEMORY_BYTES - 0x1100000 + 1);

	cr_assert_not_null(initrd);
	image.initrd_name = "big.img";
	image.initrd = initrd;
	image.initrd_bytes = MEMORY_BYTES - 0x1100000;
	boot_assert_loaded(&vm, &image);
	image.initrd_bytes++;
	boot_assert_refused(
		&vm, &image, -ENOSPC,
		"initrd 'big.img': needs 116391937 bytes in whole pages, the largest free run "
		"below 0x8000000 has 116391936");
	image.initrd_bytes = 0;
	boot_assert_refused(&vm, &image, -EINVAL, "initrd 'big.img': 0 bytes, expected 1..");
	free(initrd);
}

Test(boot_bzimage, not_relocatable_loads_at_its_code_address)
{
	struct boot_file file = boot_bzimage();
	struct hv_boot_image image = boot_image_of(&file);

	file.bytes[0x234] = 0;
	base_put_le32(file.bytes + 0x230, 0); /* of no meaning then */
	cr_assert_eq(boot_assert_loaded(&vm, &image).entry, 0x100200);
	cr_assert_eq(boot_peek32(vm.slat, 0x100000), 0xB2B2B2B2);
}

Test(boot_bzimage, unaligned_preference_is_aligned_up)
{
	struct boot_file file = boot_bzimage();
	struct hv_boot_image image = boot_image_of(&file);

	base_put_le64(file.bytes + 0x258, 0x1000001);
	cr_assert_eq(boot_assert_loaded(&vm, &image).entry, 0x1200200);
}

Test(boot_bzimage, setup_sectors_zero_means_four)
{
	struct boot_file file = boot_bzimage();
	struct hv_boot_image image = boot_image_of(&file);

	file.bytes[0x1F1] = 0;
	base_put_le32(file.bytes + 0x1F4, (BZ_BYTES - 5 * 512) / 16);
	boot_assert_loaded(&vm, &image);
	cr_assert_eq(boot_peek32(vm.slat, BZ_GPA + BZ_BYTES - 5 * 512), 0, "and no byte more");
	cr_assert_eq(boot_peek32(vm.slat, BZ_GPA + BZ_BYTES - 5 * 512 - 4), 0xB2B2B2B2);
}

Test(boot_bzimage, long_command_lines)
{
	struct boot_file file = boot_bzimage();
	struct hv_boot_image image = boot_image_of(&file);
	char cmdline[2049];

	memset(cmdline, 'a', 2048);
	cmdline[2048] = 0;
	image.cmdline = cmdline;
	boot_assert_refused(&vm, &image, -EINVAL,
			    "command line: 2048 bytes, expected at most 2047");
	cmdline[2047] = 0;
	boot_assert_loaded(&vm, &image);
	base_put_le32(file.bytes + 0x238, 255);
	boot_assert_refused(&vm, &image, -EINVAL,
			    "command line: 2047 bytes, kernel 'test.img' takes at most 255");
}

/* One changed field, and what is said about it. */
struct broken {
	size_t offset;
	uint32_t size_bytes;
	uint64_t value;
	int code;
	const char *text;
};

Test(boot_bzimage, every_broken_field_is_named)
{
	static const struct broken broken[] = {
		{ 0x1FE, 2, 0x1234, -EBADMSG, "boot flag 0x1234, expected 0xaa55" },
		{ 0x206, 2, 0x20B, -ENOTSUP, "boot protocol 0x20b, expected 0x20c or newer" },
		{ 0x211, 1, 0x80, -ENOTSUP, "loadflags 0x80: a zImage" },
		{ 0x236, 2, 0x7E, -ENOTSUP, "xloadflags 0x7e: no 64-bit entry" },
		{ 0x201, 1, 0x61, -EBADMSG, "setup header ends at 0x263, expected 0x264..0x290" },
		{ 0x201, 1, 0x8F, -EBADMSG, "setup header ends at 0x291" },
		{ 0x1F4, 4, 0xC1, -EBADMSG,
		  "protected-mode part 0x400..0x1010 past end of file 0x1000" },
		{ 0x1F4, 4, 0xFFFFFFFF, -EBADMSG, "past end of file 0x1000" },
		{ 0x1F1, 1, 255, -EBADMSG, "past end of file 0x1000" },
		{ 0x1F4, 4, 0x20, -EBADMSG,
		  "protected-mode part of 512 bytes, expected more than 512" },
		{ 0x230, 4, 0, -EBADMSG, "kernel_alignment 0x0, expected a power of two" },
		{ 0x230, 4, 0x300000, -EBADMSG, "kernel_alignment 0x300000" },
		{ 0x258, 8, 0xFFFFF, -EBADMSG, "pref_address 0xfffff, expected 0x100000.." },
		{ 0x258, 8, UINT64_MAX, -EBADMSG, "pref_address 0xffffffffffffffff" },
		{ 0x258, 8, 0x8000000, -ENOSPC,
		  "kernel memory: needs memory 0x8000000..0x8100000, the VM has no RAM" },
		{ 0x260, 4, 0x7000001, -ENOSPC,
		  "needs memory 0x1000000..0x8000001, the VM has RAM 0x100000..0x8000000" },
	};

	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		struct boot_file file = boot_bzimage();
		struct hv_boot_image image = boot_image_of(&file);
		uint8_t value[8];

		base_put_le64(value, broken[i].value);
		memcpy(file.bytes + broken[i].offset, value, broken[i].size_bytes);
		boot_assert_refused(&vm, &image, broken[i].code, broken[i].text);
		boot_assert_refused(&vm, &image, broken[i].code, "kernel 'test.img': ");
	}
}

Test(boot_bzimage, code_below_one_mebibyte_is_refused)
{
	struct boot_file file = boot_bzimage();
	struct hv_boot_image image = boot_image_of(&file);

	file.bytes[0x234] = 0;
	base_put_le32(file.bytes + 0x214, 0x90000);
	boot_assert_refused(&vm, &image, -EBADMSG, "code32_start 0x90000, expected 0x100000");
}

Test(boot_bzimage, every_truncation_is_refused)
{
	struct boot_file file = boot_bzimage();

	for (size_t size_bytes = 0; size_bytes < BZ_BYTES; size_bytes++) {
		struct hv_boot_image image = boot_image_of(&file);
		uint8_t *exact = malloc(size_bytes + 1); /* so that a read past it is seen */

		cr_assert_not_null(exact);
		memcpy(exact + 1, file.bytes, size_bytes);
		image.kernel = exact + 1;
		image.kernel_bytes = size_bytes;
		cr_assert_eq(hv_boot_check(vm.slat, &image, NULL), -EBADMSG, "%zu", size_bytes);
		free(exact);
	}
}

Test(boot_bzimage, files_of_another_kind_are_named)
{
	struct boot_file file = { .bytes = { 0x1F, 0x8B, 8, 0 }, .size_bytes = 4096 };
	struct hv_boot_image image = boot_image_of(&file);

	boot_assert_refused(&vm, &image, -EBADMSG,
			    "kernel 'test.img': begins with 1f 8b 08 00 and has no 'HdrS'");
	image.kernel_bytes = 0;
	boot_assert_refused(&vm, &image, -EBADMSG,
			    "kernel 'test.img': 0 bytes, expected an ELF file or a Linux bzImage");
}

/* A distribution's kernel, when the machine has one. */
Test(boot_bzimage, real_kernel)
{
	struct boot_vm big;
	struct hv_boot_image image = { .cmdline = "", .initrd_name = NULL };
	struct hv_boot_entry entry;
	struct base_error err = { 0 };
	uint8_t *kernel = NULL;
	glob_t found;
	size_t payload;
	int rc = glob("/boot/vmlinuz-*-amd64", 0, NULL, &found);

	if (rc != 0)
		cr_skip_test("no /boot/vmlinuz-*-amd64 on this machine");
	big = boot_vm_new(256ULL << 20, -1);
	image.kernel_name = found.gl_pathv[0];
	cr_assert_eq(base_file_load(image.kernel_name, HV_KERNEL_BYTES_MAX, &kernel,
				    &image.kernel_bytes, &err),
		     0, "%s", err.text);
	image.kernel = kernel;
	entry = boot_assert_loaded(&big, &image);
	cr_assert_eq(entry.mode, HV_BOOT_LONG64);
	cr_assert_eq(entry.entry, base_get_le64(kernel + 0x258) + 0x200);
	payload = (kernel[0x1F1] + 1u) * 512u;
	cr_assert_eq(memcmp(hv_slat_view(big.slat, entry.entry - 0x200,
					 base_get_le32(kernel + 0x1F4) * 16),
			    kernel + payload, base_get_le32(kernel + 0x1F4) * 16),
		     0);
	boot_assert_refused(&vm,
			    &(struct hv_boot_image){ .kernel_name = "half",
						     .kernel = kernel,
						     .kernel_bytes = image.kernel_bytes / 2,
						     .cmdline = "" },
			    -EBADMSG, "past end of file");
	free(kernel);
	globfree(&found);
	boot_vm_free(&big);
}
