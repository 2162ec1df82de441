/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor features that have a name: which CPUID bit each one is, and where
 * it belongs.  One constant table; any thread.
 *
 * Names are those of /proc/cpuinfo where Linux shows the feature there, else QEMU's.
 * Levels: the x86-64 psABI, section 3.1.1 "Processor Architecture".
 */
#ifndef HYPERVISOR_CPU_FEATURES_H
#define HYPERVISOR_CPU_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/cpuid_table.h"

/* Where a feature belongs.  The order of V1..V4 is the order of the levels. */
enum hv_cpu_level {
	HV_CPU_LEVEL_INVALID,
	HV_CPU_LEVEL_V1,     /* x86-64-v1 and above */
	HV_CPU_LEVEL_V2,     /* x86-64-v2 and above */
	HV_CPU_LEVEL_V3,     /* x86-64-v3 and above */
	HV_CPU_LEVEL_V4,     /* x86-64-v4 */
	HV_CPU_LEVEL_SYSTEM, /* in each baseline: what a 64-bit kernel expects and KVM can move */
	HV_CPU_LEVEL_EXTRA,  /* in no baseline: only `host` shows it */
	HV_CPU_LEVEL_VMM,    /* follows from the VM's shape, not from the host */
	HV_CPU_LEVEL_GUEST,  /* mirrors a control register of the guest */
	HV_CPU_LEVELS
};

struct hv_cpu_feature {
	char name[20];
	uint32_t leaf;
	uint32_t subleaf;
	enum hv_cpuid_reg reg;
	uint32_t bit; /* 0..31 */
	enum hv_cpu_level level;
};

/* One CPUID register that consists of feature bits. */
struct hv_cpu_register {
	uint32_t leaf;
	uint32_t subleaf;
	enum hv_cpuid_reg reg;
};

/* Number of features; @index below runs from 0 to it.  The pointers are to constants. */
uint32_t hv_cpu_feature_count(void);
const struct hv_cpu_feature *hv_cpu_feature_at(uint32_t index);

/* NULL when there is no such feature. */
const struct hv_cpu_feature *hv_cpu_feature_by_name(const char *name);
const struct hv_cpu_feature *hv_cpu_feature_by_bit(const struct hv_cpu_register *where,
						   uint32_t bit);

/* The registers that the features are in, each once. */
uint32_t hv_cpu_register_count(void);
const struct hv_cpu_register *hv_cpu_register_at(uint32_t index);

/* Whether @table shows @feature. */
bool hv_cpu_feature_in(const struct hv_cpuid_table *table, const struct hv_cpu_feature *feature);

/**
 * hv_cpu_feature_put - show or hide @feature in @table.
 * Return: 0; -ENOSPC the table is full and has no entry for the leaf yet.
 */
BASE_MUST_CHECK int hv_cpu_feature_put(struct hv_cpuid_table *table,
				       const struct hv_cpu_feature *feature, bool shown,
				       struct base_error *err);

/* Name of XSAVE state component @number ("AVX"); NULL when it has none.  SDM volume 1, 13.1. */
const char *hv_cpu_xsave_name(uint32_t number);

#endif
