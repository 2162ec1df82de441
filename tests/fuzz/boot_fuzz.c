/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel loader.  Input: the bytes of a kernel file, ELF or bzImage.  Each input
 * meets a VM of 64 MiB with a small initrd; the guest memory is kept between runs,
 * since every run may write all of it anyway.  What must hold:
 *
 *   - check and load say the same, with the same one-line text;
 *   - what is accepted begins in RAM, in a mode that hv_boot_registers() knows.
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct hv_slat *make_slat(void)
{
	struct hv_memory *memory;
	struct hv_slat *slat;

	if (hv_memory_new(HV_MEMORY_BYTES_MIN, HV_MEMORY_SMALL, &memory, NULL) < 0 ||
	    hv_slat_new(memory, -1, &slat, NULL) < 0)
		abort();
	return slat;
}

static void check_error(const struct base_error *err, int rc)
{
	if (err->code != rc || err->text[0] == '\0' || strchr(err->text, '\n') != NULL)
		abort();
}

static void check_entry(const struct hv_slat *slat, const struct hv_boot_entry *entry)
{
	struct kvm_sregs sregs = { .cr0 = 0 };
	struct kvm_regs regs;

	if (hv_slat_view(slat, entry->entry, 1) == NULL ||
	    hv_slat_view(slat, entry->info, 1) == NULL)
		abort();
	hv_boot_registers(entry, &sregs, &regs);
	if (regs.rip != entry->entry)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t initrd[4097];
	static struct hv_slat *slat;
	struct hv_boot_image image = { .kernel_name = "fuzz",
				       .kernel = data,
				       .kernel_bytes = size,
				       .initrd_name = "initrd",
				       .initrd = initrd,
				       .initrd_bytes = sizeof(initrd),
				       .cmdline = "console=ttyS0" };
	struct base_error check_err = { 0 };
	struct base_error load_err = { 0 };
	struct hv_boot_entry entry;
	int check;

	if (slat == NULL)
		slat = make_slat();
	check = hv_boot_check(slat, &image, &check_err);
	if (hv_boot_load(slat, &image, &entry, &load_err) != check)
		abort();
	if (check < 0) {
		check_error(&check_err, check);
		check_error(&load_err, check);
		if (strcmp(check_err.text, load_err.text) != 0)
			abort();
	} else {
		check_entry(slat, &entry);
	}
	return 0;
}
