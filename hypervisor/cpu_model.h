/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processor compatibility: the CPU models a VM can be given.
 *
 * `host` shows what KVM supports on this host; `x86-64-v1` to `x86-64-v4` show the same
 * processor on every host that has the level, so that the VM can move between unequal
 * hosts of one vendor.  Pure.  What each model shows and why:
 * docs/hypervisor/cpu-models.md.
 */
#ifndef HYPERVISOR_CPU_MODEL_H
#define HYPERVISOR_CPU_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/cpuid_table.h"

enum hv_cpu_model {
	HV_CPU_MODEL_INVALID,
	HV_CPU_MODEL_HOST,
	HV_CPU_MODEL_V1,
	HV_CPU_MODEL_V2,
	HV_CPU_MODEL_V3,
	HV_CPU_MODEL_V4,
	HV_CPU_MODELS
};

/* All names, for messages. */
#define HV_CPU_MODEL_NAMES "host, x86-64-v1, x86-64-v2, x86-64-v3, x86-64-v4"

/* "host", "x86-64-v1", ...; a constant. */
const char *hv_cpu_model_name(enum hv_cpu_model model);

/* HV_CPU_MODEL_INVALID when @name is none of HV_CPU_MODEL_NAMES. */
enum hv_cpu_model hv_cpu_model_parse(const char *name);

/* What the VM's shape decides.  Zero-initialised is a good default. */
struct hv_cpu_options {
	bool hypervisor_present; /* show CPUID.1:ECX[31]; the caller adds the 0x4000xxxx leaves */
	bool nested;             /* `host` only: leave VMX, SVM and SGX visible */
	uint32_t address_bits;   /* baselines' MAXPHYADDR; 0: HV_CPU_ADDRESS_BITS */
};

/* Baselines' MAXPHYADDR: the smallest that processors of level v2 and up are built with, so
 * that no host is ruled out by it.  512 GiB: larger VMs need larger hosts anyway. */
#define HV_CPU_ADDRESS_BITS     39U
#define HV_CPU_ADDRESS_BITS_MIN 36U
#define HV_CPU_ADDRESS_BITS_MAX 52U /* the architecture's limit */

/* The MAXPHYADDR a VM with memory up to @memory_end (guest-physical, exclusive) needs: at least
 * HV_CPU_ADDRESS_BITS. */
uint32_t hv_cpu_address_bits(uint64_t memory_end);

/**
 * hv_cpu_model_apply - the table a VM gets.
 * @options: NULL for the default.
 * @host:    what KVM supports here (hv_kvm_cpuid_supported()).
 * @ret_table: the same for every vCPU; hv_cpuid_for_vcpu() makes it one vCPU's.
 *
 * Return: 0; -EINVAL model or address bits; -ENOTSUP the host cannot give the model, the
 * text names everything it lacks; -ENOSPC a table that is full.
 */
BASE_MUST_CHECK int hv_cpu_model_apply(enum hv_cpu_model model,
				       const struct hv_cpu_options *options,
				       const struct hv_cpuid_table *host,
				       struct hv_cpuid_table *ret_table, struct base_error *err);

#endif
