/* SPDX-License-Identifier: Apache-2.0 */
/* The CPUID table: order, indexes, bytes, KVM's form. */
#include "hypervisor/cpuid_table.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct hv_cpuid_entry plain(uint32_t function, uint32_t eax)
{
	return (struct hv_cpuid_entry){ .function = function, .eax = eax };
}

static struct hv_cpuid_entry indexed(uint32_t function, uint32_t index, uint32_t eax)
{
	return (struct hv_cpuid_entry){
		.function = function, .index = index, .flags = HV_CPUID_INDEXED, .eax = eax
	};
}

static struct hv_cpuid_table sample(void)
{
	struct hv_cpuid_table table = { .count = 0 };

	cr_assert_eq(hv_cpuid_set(&table, plain(0x80000001, 5), NULL), 0);
	cr_assert_eq(hv_cpuid_set(&table, indexed(7, 1, 3), NULL), 0);
	cr_assert_eq(hv_cpuid_set(&table, plain(1, 1), NULL), 0);
	cr_assert_eq(hv_cpuid_set(&table, indexed(7, 0, 2), NULL), 0);
	return table;
}

Test(cpuid_table, set_keeps_order_and_replaces)
{
	struct hv_cpuid_table table = sample();

	cr_assert_eq(table.count, 4);
	for (uint32_t i = 1; i < table.count; i++)
		cr_assert(table.entries[i - 1].function < table.entries[i].function ||
			  table.entries[i - 1].index < table.entries[i].index);
	cr_assert_eq(hv_cpuid_set(&table, indexed(7, 1, 9), NULL), 0);
	cr_assert_eq(table.count, 4);
	cr_assert_eq(hv_cpuid_register(&table, 7, 1, HV_CPUID_EAX), 9);
}

Test(cpuid_table, plain_leaf_answers_any_index_indexed_only_its_own)
{
	struct hv_cpuid_table table = sample();

	cr_assert_eq(hv_cpuid_get(&table, 1, 77).eax, 1);
	cr_assert_eq(hv_cpuid_get(&table, 7, 1).eax, 3);
	cr_assert_null(hv_cpuid_find(&table, 7, 2));
	cr_assert_eq(hv_cpuid_get(&table, 7, 2).eax, 0);
	cr_assert_eq(hv_cpuid_get(&table, 7, 2).flags, HV_CPUID_INDEXED);
	cr_assert_eq(hv_cpuid_get(&table, 2, 0).flags, 0);
	cr_assert_eq(hv_cpuid_register(&table, 7, 2, HV_CPUID_EDX), 0);
}

Test(cpuid_table, a_leaf_is_of_one_kind)
{
	struct hv_cpuid_table table = sample();

	cr_assert_eq(hv_cpuid_set(&table, plain(7, 8), NULL), 0);
	cr_assert_eq(table.count, 3);
	cr_assert_eq(hv_cpuid_get(&table, 7, 5).eax, 8);
	cr_assert_eq(hv_cpuid_set(&table, indexed(7, 3, 4), NULL), 0);
	cr_assert_eq(table.count, 3);
	cr_assert_null(hv_cpuid_find(&table, 7, 0));
}

Test(cpuid_table, remove_takes_a_range)
{
	struct hv_cpuid_table table = sample();

	hv_cpuid_remove(&table, 2, 0x7fffffff);
	cr_assert_eq(table.count, 2);
	hv_cpuid_remove(&table, 0, UINT32_MAX);
	cr_assert_eq(table.count, 0);
}

Test(cpuid_table, set_refuses_a_full_table_and_unknown_flags)
{
	struct hv_cpuid_table table = { .count = 0 };
	struct hv_cpuid_entry odd = plain(1, 1);
	struct base_error err = { 0 };

	for (uint32_t i = 0; i < HV_CPUID_ENTRIES_MAX; i++)
		cr_assert_eq(hv_cpuid_set(&table, indexed(4, i, 1), NULL), 0);
	cr_assert_eq(hv_cpuid_set(&table, indexed(4, 1000, 1), &err), -ENOSPC);
	cr_assert_not_null(strstr(err.text, "0x4"));
	cr_assert_eq(hv_cpuid_set(&table, indexed(4, 3, 2), NULL), 0);
	odd.flags = 2;
	cr_assert_eq(hv_cpuid_set(&table, odd, NULL), -EINVAL);
	cr_assert_eq(table.count, HV_CPUID_ENTRIES_MAX);
}

Test(cpuid_table, vendor_is_text_whatever_the_bytes)
{
	struct hv_cpuid_table table = { .count = 0 };
	struct hv_cpuid_entry leaf = { .ebx = 0x68747541, .edx = 0x69746e65, .ecx = 0x444d4163 };

	cr_assert_str_eq(hv_cpuid_vendor(&table).text, "????????????");
	cr_assert_eq(hv_cpuid_set(&table, leaf, NULL), 0);
	cr_assert_str_eq(hv_cpuid_vendor(&table).text, "AuthenticAMD");
	cr_assert(hv_cpuid_is_amd(&table));
	leaf.ecx = 0x0a0a0a0a;
	cr_assert_eq(hv_cpuid_set(&table, leaf, NULL), 0);
	cr_assert_str_eq(hv_cpuid_vendor(&table).text, "Authenti????");
	cr_assert_not(hv_cpuid_is_amd(&table));
}

Test(cpuid_table, xcr0_needs_xsave)
{
	struct hv_cpuid_table table = { .count = 0 };
	struct hv_cpuid_entry leaf = indexed(0xd, 0, 0x2e7);
	struct hv_cpuid_entry one = { .function = 1, .ecx = 1U << 26 };

	leaf.edx = 0x40000000;
	cr_assert_eq(hv_cpuid_set(&table, leaf, NULL), 0);
	cr_assert_eq(hv_cpuid_xcr0_mask(&table), 0);
	cr_assert_eq(hv_cpuid_set(&table, one, NULL), 0);
	cr_assert_eq(hv_cpuid_xcr0_mask(&table), 0x40000000000002e7ULL);
}

Test(cpuid_table, kvm_form_there_and_back)
{
	struct hv_cpuid_table table = sample();
	struct hv_cpuid_table back;
	union hv_cpuid_kvm kvm;

	hv_cpuid_to_kvm(&table, &kvm);
	cr_assert_eq(kvm.head.nent, 4);
	cr_assert_eq(kvm.head.entries[2].index, 1);
	cr_assert_eq(hv_cpuid_from_kvm(&kvm, &back, NULL), 0);
	cr_assert_eq(back.count, table.count);
	cr_assert_arr_eq(back.entries, table.entries, table.count * sizeof(table.entries[0]));
}

Test(cpuid_table, from_kvm_drops_zeros_and_takes_the_first)
{
	union hv_cpuid_kvm kvm = { .head.nent = 3 };
	struct hv_cpuid_table table;

	kvm.head.entries[0] = (struct kvm_cpuid_entry2){ .function = 3 };
	kvm.head.entries[1] = (struct kvm_cpuid_entry2){ .function = 1, .eax = 1, .flags = 6 };
	kvm.head.entries[2] = (struct kvm_cpuid_entry2){ .function = 1, .eax = 2 };
	cr_assert_eq(hv_cpuid_from_kvm(&kvm, &table, NULL), 0);
	cr_assert_eq(table.count, 1);
	cr_assert_eq(table.entries[0].eax, 1);
	cr_assert_eq(table.entries[0].flags, 0);
}

Test(cpuid_table, from_kvm_refuses_too_many)
{
	union hv_cpuid_kvm kvm = { .head.nent = HV_CPUID_KVM_ENTRIES_MAX };
	struct hv_cpuid_table table;

	for (uint32_t i = 0; i < HV_CPUID_KVM_ENTRIES_MAX; i++)
		kvm.head.entries[i] = (struct kvm_cpuid_entry2){ .function = i, .eax = 1 };
	cr_assert_eq(hv_cpuid_from_kvm(&kvm, &table, NULL), -ENOSPC);
	kvm.head.nent = HV_CPUID_KVM_ENTRIES_MAX + 1;
	cr_assert_eq(hv_cpuid_from_kvm(&kvm, &table, NULL), -EBADMSG);
}

static struct base_buffer encoded(const struct hv_cpuid_table *table)
{
	struct base_buffer out = { .data = NULL };

	hv_cpuid_encode(table, &out);
	cr_assert_not(out.failed);
	cr_assert_eq(out.size_bytes, 4 + table->count * HV_CPUID_ENTRY_BYTES);
	return out;
}

static int decode(const uint8_t *data, size_t size_bytes, struct base_error *err)
{
	struct base_reader in = base_reader_over(data, size_bytes);
	struct hv_cpuid_table table;

	return hv_cpuid_decode(&in, &table, err);
}

Test(cpuid_table, bytes_there_and_back)
{
	struct hv_cpuid_table table = sample();
	struct base_buffer out = encoded(&table);
	struct base_reader in = base_reader_over(out.data, out.size_bytes);
	struct hv_cpuid_table back;

	cr_assert_eq(out.data[0], 4);
	cr_assert_eq(out.data[4], 1); /* leaf 1 is first, its lowest byte first */
	cr_assert_eq(hv_cpuid_decode(&in, &back, NULL), 0);
	cr_assert_eq(base_reader_left(&in), 0);
	cr_assert_eq(back.count, table.count);
	cr_assert_arr_eq(back.entries, table.entries, table.count * sizeof(table.entries[0]));
	base_buffer_fini(&out);
}

Test(cpuid_table, decode_refuses_every_truncation)
{
	struct hv_cpuid_table table = sample();
	struct base_buffer out = encoded(&table);

	for (size_t size = 0; size < out.size_bytes; size++) {
		struct base_error err = { 0 };

		cr_assert_eq(decode(out.data, size, &err), -EBADMSG, "%zu bytes", size);
		cr_assert_not_null(strstr(err.text, "truncated"));
	}
	base_buffer_fini(&out);
}

/* One 32-bit field of the sample changed to a value that cannot be. */
static void refuses(size_t offset, uint32_t value, const char *why)
{
	struct hv_cpuid_table table = sample();
	struct base_buffer out = encoded(&table);
	struct base_error err = { 0 };

	base_put_le32(out.data + offset, value);
	cr_assert_eq(decode(out.data, out.size_bytes, &err), -EBADMSG, "%s", why);
	cr_assert_not_null(strstr(err.text, why), "%s", err.text);
	base_buffer_fini(&out);
}

Test(cpuid_table, decode_refuses_what_encode_never_gives)
{
	refuses(0, HV_CPUID_ENTRIES_MAX + 1, "at most");
	refuses(0, UINT32_MAX, "at most");
	refuses(4 + 8, 2, "unknown flags");
	refuses(4 + 4, 1, "without index");
	refuses(4, 0xffffffff, "out of order");
	refuses(4 + 2 * HV_CPUID_ENTRY_BYTES + 4, 0, "out of order"); /* 7.0 twice */
	refuses(4 + HV_CPUID_ENTRY_BYTES + 8, 0, "with and without index");
}
