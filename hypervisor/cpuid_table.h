/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of CPUID answers: what the processor says for each (leaf, subleaf).
 *
 * A plain value: no pointers, copied freely, no thread owns it.  The same type
 * holds what KVM supports, what a VM was given, what a guest really sees and
 * what a saved VM carries.
 *
 * Invariants, kept by every function here and checked by hv_cpuid_decode():
 *   - entries are in strictly ascending order of (function, index);
 *   - a function is either indexed (HV_CPUID_INDEXED in each of its entries) or
 *     has one entry with index 0;
 *   - no other flag is set; entries past `count` mean nothing.
 * An entry that is absent answers zeros.
 *
 * Registers and leaves: Intel SDM volume 2A "CPUID", AMD APM volume 3 appendix E.
 */
#ifndef HYPERVISOR_CPUID_TABLE_H
#define HYPERVISOR_CPUID_TABLE_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

#define HV_CPUID_ENTRIES_MAX 128 /* the largest known host has about 100 that are not zero */
#define HV_CPUID_INDEXED     1U  /* flag: the answer depends on the subleaf (KVM's bit 0) */
#define HV_CPUID_ENTRY_BYTES 28  /* encoded: seven 32-bit fields */

struct hv_cpuid_entry {
	uint32_t function; /* leaf: EAX going in */
	uint32_t index;    /* subleaf: ECX going in; 0 unless HV_CPUID_INDEXED */
	uint32_t flags;    /* 0 or HV_CPUID_INDEXED */
	uint32_t eax;
	uint32_t ebx;
	uint32_t ecx;
	uint32_t edx;
};

struct hv_cpuid_table {
	uint32_t count;
	struct hv_cpuid_entry entries[HV_CPUID_ENTRIES_MAX];
};

enum hv_cpuid_reg {
	HV_CPUID_REG_INVALID,
	HV_CPUID_EAX,
	HV_CPUID_EBX,
	HV_CPUID_ECX,
	HV_CPUID_EDX,
	HV_CPUID_REGS
};

#define HV_CPUID_KVM_ENTRIES_MAX 256 /* KVM itself never gives or takes more */

/* struct kvm_cpuid2 with the room it needs; a union because its tail is a flexible array. */
union hv_cpuid_kvm {
	struct kvm_cpuid2 head;
	uint8_t room[sizeof(struct kvm_cpuid2) +
		     HV_CPUID_KVM_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2)];
};

/* The entry that answers (@function, @index), or NULL.  Borrowed from @table, until it changes. */
const struct hv_cpuid_entry *hv_cpuid_find(const struct hv_cpuid_table *table, uint32_t function,
					   uint32_t index);

/* The answer to (@function, @index) as a value: zeros in the registers when it is absent. */
struct hv_cpuid_entry hv_cpuid_get(const struct hv_cpuid_table *table, uint32_t function,
				   uint32_t index);

/* One register of hv_cpuid_get(). */
uint32_t hv_cpuid_register(const struct hv_cpuid_table *table, uint32_t function, uint32_t index,
			   enum hv_cpuid_reg reg);

/**
 * hv_cpuid_set - put one answer in, replacing the one that is there.
 * @entry: without HV_CPUID_INDEXED its index is taken as 0.  Where the function
 *         was of the other kind (indexed or not), all its old entries go.
 * Return: 0; -ENOSPC the table is full (unchanged); -EINVAL an unknown flag.
 */
BASE_MUST_CHECK int hv_cpuid_set(struct hv_cpuid_table *table, struct hv_cpuid_entry entry,
				 struct base_error *err);

/* Whether leaf @function is one whose answer depends on the subleaf, as KVM wants it flagged. */
bool hv_cpuid_is_indexed(uint32_t function);

/* Drop every entry with @first <= function <= @last. */
void hv_cpuid_remove(struct hv_cpuid_table *table, uint32_t first, uint32_t last);

/* The vendor of leaf 0 as text ("GenuineIntel"); bytes that do not print become '?'. */
struct hv_cpuid_vendor {
	char text[13];
};
struct hv_cpuid_vendor hv_cpuid_vendor(const struct hv_cpuid_table *table);

/* True for AMD and Hygon, which share the AMD meaning of the extended leaves. */
bool hv_cpuid_is_amd(const struct hv_cpuid_table *table);

/**
 * hv_cpuid_xcr0_mask - the XCR0 bits a guest with this table may set.
 * 0 when the table does not show XSAVE: the guest has no XCR0 then.
 */
uint64_t hv_cpuid_xcr0_mask(const struct hv_cpuid_table *table);

/**
 * hv_cpuid_encode - append the table to @out: count, then the entries, all 32-bit
 * little-endian (docs/hypervisor/cpu-models.md "Bytes").  Memory that ran out shows
 * in @out->failed.
 */
void hv_cpuid_encode(const struct hv_cpuid_table *table, struct base_buffer *out);

/**
 * hv_cpuid_decode - read one table; @in stands behind it afterwards.
 * The bytes are hostile.  Each table has exactly one encoding.
 * Return: 0; -EBADMSG truncated, too many entries, unknown flag, an index where there
 * can be none, or an order that encode never gives.
 */
BASE_MUST_CHECK int hv_cpuid_decode(struct base_reader *in, struct hv_cpuid_table *ret_table,
				    struct base_error *err);

/* The table as KVM_SET_CPUID2 takes it. */
void hv_cpuid_to_kvm(const struct hv_cpuid_table *table, union hv_cpuid_kvm *ret_kvm);

/**
 * hv_cpuid_from_kvm - take over what KVM gave.
 * Entries that are all zeros are left out: absent says the same.  Of two entries for
 * one question the first counts, as in KVM.
 * Return: 0; -ENOSPC more entries than fit; -EBADMSG a count that KVM cannot give.
 */
BASE_MUST_CHECK int hv_cpuid_from_kvm(const union hv_cpuid_kvm *kvm,
				      struct hv_cpuid_table *ret_table, struct base_error *err);

#endif
