/* SPDX-License-Identifier: Apache-2.0 */
/* The CPUID table as a value: ordered entries, bytes, KVM's form.  Pure. */
#include "hypervisor/cpuid_table.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define LEAF_FEATURES      0x1U
#define LEAF_XSAVE         0xdU
#define FEATURES_ECX_XSAVE (1U << 26)
#define VENDOR_TEXT_BYTES  12

_Static_assert(HV_CPUID_INDEXED == KVM_CPUID_FLAG_SIGNIFCANT_INDEX, "our flag is KVM's");

static bool entry_before(const struct hv_cpuid_entry *a, const struct hv_cpuid_entry *b)
{
	return a->function < b->function || (a->function == b->function && a->index < b->index);
}

const struct hv_cpuid_entry *hv_cpuid_find(const struct hv_cpuid_table *table, uint32_t function,
					   uint32_t index)
{
	for (uint32_t i = 0; i < table->count; i++) {
		const struct hv_cpuid_entry *entry = &table->entries[i];

		if (entry->function == function &&
		    ((entry->flags & HV_CPUID_INDEXED) == 0 || entry->index == index))
			return entry;
	}
	return NULL;
}

struct hv_cpuid_entry hv_cpuid_get(const struct hv_cpuid_table *table, uint32_t function,
				   uint32_t index)
{
	const struct hv_cpuid_entry *found = hv_cpuid_find(table, function, index);

	if (found != NULL)
		return *found;
	if (hv_cpuid_is_indexed(function))
		return (struct hv_cpuid_entry){
			.function = function,
			.index = index,
			.flags = HV_CPUID_INDEXED,
		};
	return (struct hv_cpuid_entry){ .function = function };
}

uint32_t hv_cpuid_register(const struct hv_cpuid_table *table, uint32_t function, uint32_t index,
			   enum hv_cpuid_reg reg)
{
	const struct hv_cpuid_entry *found = hv_cpuid_find(table, function, index);

	if (found == NULL)
		return 0;
	switch (reg) {
	case HV_CPUID_EAX:
		return found->eax;
	case HV_CPUID_EBX:
		return found->ebx;
	case HV_CPUID_ECX:
		return found->ecx;
	case HV_CPUID_EDX:
		return found->edx;
	case HV_CPUID_REG_INVALID:
	case HV_CPUID_REGS:
		break;
	}
	base_bug("CPUID register %d", (int)reg);
}

void hv_cpuid_remove(struct hv_cpuid_table *table, uint32_t first, uint32_t last)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < table->count; i++) {
		uint32_t function = table->entries[i].function;

		if (function < first || function > last)
			table->entries[kept++] = table->entries[i];
	}
	table->count = kept;
}

int hv_cpuid_set(struct hv_cpuid_table *table, struct hv_cpuid_entry entry, struct base_error *err)
{
	const struct hv_cpuid_entry *same;
	uint32_t at = 0;

	if ((entry.flags & ~HV_CPUID_INDEXED) != 0)
		return base_fail(err, -EINVAL, "CPUID leaf 0x%" PRIx32 ": flags 0x%" PRIx32,
				 entry.function, entry.flags);
	if ((entry.flags & HV_CPUID_INDEXED) == 0)
		entry.index = 0;

	for (uint32_t i = 0; i < table->count; i++) {
		if (table->entries[i].function != entry.function ||
		    table->entries[i].flags == entry.flags)
			continue;
		hv_cpuid_remove(table, entry.function, entry.function); /* of the other kind */
		break;
	}

	while (at < table->count && entry_before(&table->entries[at], &entry))
		at++;
	same = at < table->count ? &table->entries[at] : NULL;
	if (same == NULL || same->function != entry.function || same->index != entry.index) {
		if (table->count >= HV_CPUID_ENTRIES_MAX)
			return base_fail(err, -ENOSPC,
					 "CPUID leaf 0x%" PRIx32 ": more than %d entries",
					 entry.function, HV_CPUID_ENTRIES_MAX);
		memmove(&table->entries[at + 1], &table->entries[at],
			(table->count - at) * sizeof(entry));
		table->count++;
	}
	table->entries[at] = entry;
	return 0;
}

bool hv_cpuid_is_indexed(uint32_t function)
{
	static const uint32_t indexed[] = {
		0x4,  0x7,  0xb,  0xd,  0xf,  0x10, 0x12, 0x14,       0x17,       0x18,
		0x1b, 0x1d, 0x1e, 0x1f, 0x20, 0x23, 0x24, 0x8000001d, 0x80000020, 0x80000026,
	};

	for (size_t i = 0; i < sizeof(indexed) / sizeof(indexed[0]); i++)
		if (indexed[i] == function)
			return true;
	return false;
}

struct hv_cpuid_vendor hv_cpuid_vendor(const struct hv_cpuid_table *table)
{
	struct hv_cpuid_entry leaf = hv_cpuid_get(table, 0, 0);
	struct hv_cpuid_vendor vendor = { { 0 } };
	uint8_t bytes[VENDOR_TEXT_BYTES];

	base_put_le32(bytes, leaf.ebx);
	base_put_le32(bytes + 4, leaf.edx); /* the text goes EBX, EDX, ECX */
	base_put_le32(bytes + 8, leaf.ecx);
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bool prints = bytes[i] >= ' ' && bytes[i] <= '~';

		vendor.text[i] = (char)(prints ? bytes[i] : '?');
	}
	return vendor;
}

bool hv_cpuid_is_amd(const struct hv_cpuid_table *table)
{
	struct hv_cpuid_vendor vendor = hv_cpuid_vendor(table);

	return strcmp(vendor.text, "AuthenticAMD") == 0 || strcmp(vendor.text, "HygonGenuine") == 0;
}

uint64_t hv_cpuid_xcr0_mask(const struct hv_cpuid_table *table)
{
	struct hv_cpuid_entry leaf = hv_cpuid_get(table, LEAF_XSAVE, 0);

	if ((hv_cpuid_register(table, LEAF_FEATURES, 0, HV_CPUID_ECX) & FEATURES_ECX_XSAVE) == 0)
		return 0;
	return (uint64_t)leaf.edx << 32 | leaf.eax;
}

void hv_cpuid_encode(const struct hv_cpuid_table *table, struct base_buffer *out)
{
	base_buffer_le32(out, table->count);
	for (uint32_t i = 0; i < table->count; i++) {
		const struct hv_cpuid_entry *entry = &table->entries[i];

		base_buffer_le32(out, entry->function);
		base_buffer_le32(out, entry->index);
		base_buffer_le32(out, entry->flags);
		base_buffer_le32(out, entry->eax);
		base_buffer_le32(out, entry->ebx);
		base_buffer_le32(out, entry->ecx);
		base_buffer_le32(out, entry->edx);
	}
}

/* Whether @entry may stand in a table, @before (or NULL) being the one in front of it. */
static int entry_check(const struct hv_cpuid_entry *entry, const struct hv_cpuid_entry *before,
		       struct base_error *err)
{
	if ((entry->flags & ~HV_CPUID_INDEXED) != 0)
		return base_fail(err, -EBADMSG,
				 "CPUID leaf 0x%" PRIx32 ": unknown flags 0x%" PRIx32,
				 entry->function, entry->flags);
	if ((entry->flags & HV_CPUID_INDEXED) == 0 && entry->index != 0)
		return base_fail(err, -EBADMSG,
				 "CPUID leaf 0x%" PRIx32 ": index %" PRIu32
				 " in a leaf without index",
				 entry->function, entry->index);
	if (before == NULL)
		return 0;
	if (!entry_before(before, entry))
		return base_fail(err, -EBADMSG,
				 "CPUID leaf 0x%" PRIx32 " index %" PRIu32 ": out of order",
				 entry->function, entry->index);
	if (before->function == entry->function && before->flags != entry->flags)
		return base_fail(err, -EBADMSG, "CPUID leaf 0x%" PRIx32 ": with and without index",
				 entry->function);
	return 0;
}

int hv_cpuid_decode(struct base_reader *in, struct hv_cpuid_table *ret_table,
		    struct base_error *err)
{
	struct hv_cpuid_table table = { .count = base_read_le32(in) };

	if (in->failed)
		return base_fail(err, -EBADMSG, "CPUID table: truncated");
	if (table.count > HV_CPUID_ENTRIES_MAX)
		return base_fail(err, -EBADMSG, "CPUID table: %" PRIu32 " entries, at most %d",
				 table.count, HV_CPUID_ENTRIES_MAX);
	for (uint32_t i = 0; i < table.count; i++) {
		struct hv_cpuid_entry *entry = &table.entries[i];
		int result;

		entry->function = base_read_le32(in);
		entry->index = base_read_le32(in);
		entry->flags = base_read_le32(in);
		entry->eax = base_read_le32(in);
		entry->ebx = base_read_le32(in);
		entry->ecx = base_read_le32(in);
		entry->edx = base_read_le32(in);
		if (in->failed)
			return base_fail(err, -EBADMSG, "CPUID table: truncated");
		result = entry_check(entry, i > 0 ? entry - 1 : NULL, err);
		if (result < 0)
			return result;
	}

	*ret_table = table;
	return 0;
}

void hv_cpuid_to_kvm(const struct hv_cpuid_table *table, union hv_cpuid_kvm *ret_kvm)
{
	memset(ret_kvm, 0, sizeof(*ret_kvm));
	ret_kvm->head.nent = table->count;
	for (uint32_t i = 0; i < table->count; i++) {
		const struct hv_cpuid_entry *entry = &table->entries[i];

		ret_kvm->head.entries[i] = (struct kvm_cpuid_entry2){
			.function = entry->function,
			.index = entry->index,
			.flags = entry->flags,
			.eax = entry->eax,
			.ebx = entry->ebx,
			.ecx = entry->ecx,
			.edx = entry->edx,
		};
	}
}

int hv_cpuid_from_kvm(const union hv_cpuid_kvm *kvm, struct hv_cpuid_table *ret_table,
		      struct base_error *err)
{
	struct hv_cpuid_table table = { .count = 0 };

	if (kvm->head.nent > HV_CPUID_KVM_ENTRIES_MAX)
		return base_fail(err, -EBADMSG, "CPUID of KVM: %" PRIu32 " entries, at most %d",
				 (uint32_t)kvm->head.nent, HV_CPUID_KVM_ENTRIES_MAX);
	for (uint32_t i = 0; i < kvm->head.nent; i++) {
		const struct kvm_cpuid_entry2 *from = &kvm->head.entries[i];
		struct hv_cpuid_entry entry = {
			.function = from->function,
			.index = from->index,
			.flags = from->flags & HV_CPUID_INDEXED,
			.eax = from->eax,
			.ebx = from->ebx,
			.ecx = from->ecx,
			.edx = from->edx,
		};
		int result;

		if ((entry.eax | entry.ebx | entry.ecx | entry.edx) == 0 ||
		    hv_cpuid_find(&table, entry.function, entry.index) != NULL)
			continue;
		result = hv_cpuid_set(&table, entry, err);
		if (result < 0)
			return result;
	}

	*ret_table = table;
	return 0;
}
