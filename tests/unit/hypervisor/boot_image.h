/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel files made by hand and a VM's memory to load them into, for the boot tests.
 */
#ifndef TESTS_UNIT_HYPERVISOR_BOOT_IMAGE_H
#define TESTS_UNIT_HYPERVISOR_BOOT_IMAGE_H

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/boot.h"

#define IMAGE_BYTES   8192u
#define MEMORY_BYTES  (128ULL << 20)
#define ELF_PHDR(i)   (64u + (i)*56u)
#define ELF_CODE      4096u /* where the file keeps the segment's bytes */
#define ELF_CODE_SIZE 256u
#define ELF_NOTES     2048u
#define ELF_LOAD_GPA  0x200000u
#define ELF_MEMORY    0x3000u
#define BZ_PAYLOAD    1024u
#define BZ_BYTES      4096u
#define BZ_GPA        0x1000000u
#define BZ_INIT_BYTES 0x100000u

struct boot_vm {
	struct hv_memory *memory;
	struct hv_slat *slat;
};

struct boot_file {
	uint8_t bytes[IMAGE_BYTES];
	size_t size_bytes;
};

static inline struct boot_vm boot_vm_new(uint64_t size_bytes, int vm_fd)
{
	struct boot_vm vm = { .memory = NULL };
	struct base_error err = { 0 };

	cr_assert_eq(hv_memory_new(size_bytes, HV_MEMORY_SMALL, &vm.memory, &err), 0, "%s",
		     err.text);
	cr_assert_eq(hv_slat_new(vm.memory, vm_fd, &vm.slat, &err), 0, "%s", err.text);
	return vm;
}

static inline void boot_vm_free(struct boot_vm *vm)
{
	hv_slat_free(vm->slat);
	hv_memory_free(vm->memory);
}

static inline void boot_put_phdr(struct boot_file *file, uint32_t index, uint32_t type,
				 const uint64_t range[4])
{
	uint8_t *to = file->bytes + ELF_PHDR(index);

	base_put_le32(to, type);
	base_put_le64(to + 8, range[0]);  /* offset */
	base_put_le64(to + 24, range[1]); /* physical */
	base_put_le64(to + 32, range[2]); /* bytes in the file */
	base_put_le64(to + 40, range[3]); /* bytes in memory */
	base_put_le64(to + 48, 4);
}

/* One segment of 0xC0 bytes at 2 MiB with BSS behind it; no notes. */
static inline struct boot_file boot_elf(void)
{
	struct boot_file file = { .size_bytes = ELF_CODE + ELF_CODE_SIZE };
	static const uint8_t ident[16] = { 0x7F, 'E', 'L', 'F', 2, 1, 1 };

	memcpy(file.bytes, ident, sizeof(ident));
	base_put_le16(file.bytes + 16, 2);  /* executable */
	base_put_le16(file.bytes + 18, 62); /* x86-64 */
	base_put_le32(file.bytes + 20, 1);
	base_put_le64(file.bytes + 24, ELF_LOAD_GPA + 16);
	base_put_le64(file.bytes + 32, 64);
	base_put_le16(file.bytes + 52, 64);
	base_put_le16(file.bytes + 54, 56);
	base_put_le16(file.bytes + 56, 1);
	boot_put_phdr(&file, 0, 1,
		      (const uint64_t[4]){ ELF_CODE, ELF_LOAD_GPA, ELF_CODE_SIZE, ELF_MEMORY });
	memset(file.bytes + ELF_CODE, 0xC0, ELF_CODE_SIZE);
	return file;
}

static inline void boot_put_note(uint8_t *to, uint32_t type, uint32_t content_bytes, uint64_t value)
{
	base_put_le32(to, 4);
	base_put_le32(to + 4, content_bytes);
	base_put_le32(to + 8, type);
	memcpy(to + 12, "Xen", 4);
	base_put_le64(to + 16, value);
}

/* The same with another Xen note and the PVH entry note. */
static inline struct boot_file boot_elf_pvh(void)
{
	struct boot_file file = boot_elf();

	base_put_le16(file.bytes + 56, 2);
	boot_put_phdr(&file, 1, 4, (const uint64_t[4]){ ELF_NOTES, 0, 48, 0 });
	boot_put_note(file.bytes + ELF_NOTES, 6, 8, 0);
	boot_put_note(file.bytes + ELF_NOTES + 24, 18, 8, ELF_LOAD_GPA + 32);
	return file;
}

/* A relocatable 64-bit bzImage that prefers 16 MiB and wants 1 MiB there. */
static inline struct boot_file boot_bzimage(void)
{
	struct boot_file file = { .size_bytes = BZ_BYTES };
	uint8_t *at = file.bytes;

	at[0x1F1] = 1;                                           /* setup sectors */
	base_put_le32(at + 0x1F4, (BZ_BYTES - BZ_PAYLOAD) / 16); /* size of the rest */
	base_put_le16(at + 0x1FE, 0xAA55);
	at[0x200] = 0xEB;
	at[0x201] = 0x66; /* the header ends at 0x268 */
	memcpy(at + 0x202, "HdrS", 4);
	base_put_le16(at + 0x206, 0x20F);
	at[0x211] = 0x81;
	base_put_le32(at + 0x214, 0x100000);
	base_put_le32(at + 0x22C, 0x7FFFFFFF);
	base_put_le32(at + 0x230, 0x200000);
	at[0x234] = 1;
	base_put_le16(at + 0x236, 0x7F);
	base_put_le32(at + 0x238, 2047);
	base_put_le64(at + 0x258, BZ_GPA);
	base_put_le32(at + 0x260, BZ_INIT_BYTES);
	memset(at + BZ_PAYLOAD, 0xB2, BZ_BYTES - BZ_PAYLOAD);
	return file;
}

static inline struct hv_boot_image boot_image_of(const struct boot_file *file)
{
	return (struct hv_boot_image){ .kernel_name = "test.img",
				       .kernel = file->bytes,
				       .kernel_bytes = file->size_bytes,
				       .cmdline = "console=ttyS0",
				       .rsdp = 0xE0000 };
}

static inline void boot_peek(const struct hv_slat *slat, uint64_t gpa, void *to, size_t size_bytes)
{
	cr_assert_eq(hv_slat_read(slat, gpa, to, size_bytes), 0);
}

static inline uint32_t boot_peek32(const struct hv_slat *slat, uint64_t gpa)
{
	uint8_t bytes[4];

	boot_peek(slat, gpa, bytes, sizeof(bytes));
	return base_get_le32(bytes);
}

static inline uint64_t boot_peek64(const struct hv_slat *slat, uint64_t gpa)
{
	uint8_t bytes[8];

	boot_peek(slat, gpa, bytes, sizeof(bytes));
	return base_get_le64(bytes);
}

/* check and load both refuse @image with @code and a text that holds @text, and no page of
 * guest memory was written. */
static inline void boot_assert_refused(struct boot_vm *vm, const struct hv_boot_image *image,
				       int code, const char *text)
{
	struct hv_boot_entry entry = { .mode = HV_BOOT_MODES };
	struct base_error err = { 0 };
	uint64_t *dirty = calloc(hv_slat_word_count(vm->slat), sizeof(*dirty));
	uint64_t page_count = 1;

	cr_assert_not_null(dirty);
	cr_assert_eq(hv_slat_start(vm->slat, NULL), 0);
	cr_assert_eq(hv_slat_harvest(vm->slat, dirty, NULL, NULL), 0);
	cr_assert_eq(hv_boot_check(vm->slat, image, &err), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "'%s' has no '%s'", err.text, text);
	cr_assert_null(strchr(err.text, '\n'));
	cr_assert_eq(hv_boot_load(vm->slat, image, &entry, &err), code);
	cr_assert_not_null(strstr(err.text, text), "'%s' has no '%s'", err.text, text);
	cr_assert_eq(entry.mode, HV_BOOT_MODES);
	cr_assert_eq(hv_boot_load(vm->slat, image, &entry, NULL), code);
	cr_assert_eq(hv_slat_harvest(vm->slat, dirty, &page_count, NULL), 0);
	cr_assert_eq(page_count, 0);
	cr_assert_eq(hv_slat_stop(vm->slat, NULL), 0);
	free(dirty);
}

/* check and load both accept it. */
static inline struct hv_boot_entry boot_assert_loaded(struct boot_vm *vm,
						      const struct hv_boot_image *image)
{
	struct hv_boot_entry entry = { .mode = HV_BOOT_INVALID };
	struct base_error err = { 0 };

	cr_assert_eq(hv_boot_check(vm->slat, image, &err), 0, "%s", err.text);
	cr_assert_eq(hv_boot_load(vm->slat, image, &entry, &err), 0, "%s", err.text);
	return entry;
}

#endif
