/* SPDX-License-Identifier: Apache-2.0 */
/* The table of named processor features.  Constant; no state. */
#include "hypervisor/cpu_features.h"

#include <errno.h>
#include <string.h>

/* Short names for the columns of the table. */
#define EAX    HV_CPUID_EAX
#define EBX    HV_CPUID_EBX
#define ECX    HV_CPUID_ECX
#define EDX    HV_CPUID_EDX
#define V1     HV_CPU_LEVEL_V1
#define V2     HV_CPU_LEVEL_V2
#define V3     HV_CPU_LEVEL_V3
#define V4     HV_CPU_LEVEL_V4
#define SYSTEM HV_CPU_LEVEL_SYSTEM
#define EXTRA  HV_CPU_LEVEL_EXTRA
#define VMM    HV_CPU_LEVEL_VMM
#define GUEST  HV_CPU_LEVEL_GUEST

/* name, leaf, subleaf, register, bit, where it belongs */
static const struct hv_cpu_feature features[] = {
	{ "fpu", 0x1, 0, EDX, 0, V1 },
	{ "vme", 0x1, 0, EDX, 1, EXTRA },
	{ "de", 0x1, 0, EDX, 2, SYSTEM },
	{ "pse", 0x1, 0, EDX, 3, SYSTEM },
	{ "tsc", 0x1, 0, EDX, 4, SYSTEM },
	{ "msr", 0x1, 0, EDX, 5, SYSTEM },
	{ "pae", 0x1, 0, EDX, 6, SYSTEM },
	{ "mce", 0x1, 0, EDX, 7, SYSTEM },
	{ "cx8", 0x1, 0, EDX, 8, V1 },
	{ "apic", 0x1, 0, EDX, 9, SYSTEM },
	{ "sep", 0x1, 0, EDX, 11, SYSTEM },
	{ "mtrr", 0x1, 0, EDX, 12, SYSTEM },
	{ "pge", 0x1, 0, EDX, 13, SYSTEM },
	{ "mca", 0x1, 0, EDX, 14, SYSTEM },
	{ "cmov", 0x1, 0, EDX, 15, V1 },
	{ "pat", 0x1, 0, EDX, 16, SYSTEM },
	{ "pse36", 0x1, 0, EDX, 17, SYSTEM },
	{ "pn", 0x1, 0, EDX, 18, EXTRA },
	{ "clflush", 0x1, 0, EDX, 19, SYSTEM },
	{ "dts", 0x1, 0, EDX, 21, EXTRA },
	{ "acpi", 0x1, 0, EDX, 22, EXTRA },
	{ "mmx", 0x1, 0, EDX, 23, V1 },
	{ "fxsr", 0x1, 0, EDX, 24, V1 },
	{ "sse", 0x1, 0, EDX, 25, V1 },
	{ "sse2", 0x1, 0, EDX, 26, V1 },
	{ "ss", 0x1, 0, EDX, 27, EXTRA },
	{ "ht", 0x1, 0, EDX, 28, VMM },
	{ "tm", 0x1, 0, EDX, 29, EXTRA },
	{ "ia64", 0x1, 0, EDX, 30, EXTRA },
	{ "pbe", 0x1, 0, EDX, 31, EXTRA },

	{ "pni", 0x1, 0, ECX, 0, V2 },
	{ "pclmulqdq", 0x1, 0, ECX, 1, EXTRA },
	{ "dtes64", 0x1, 0, ECX, 2, EXTRA },
	{ "monitor", 0x1, 0, ECX, 3, EXTRA },
	{ "ds_cpl", 0x1, 0, ECX, 4, EXTRA },
	{ "vmx", 0x1, 0, ECX, 5, EXTRA },
	{ "smx", 0x1, 0, ECX, 6, EXTRA },
	{ "est", 0x1, 0, ECX, 7, EXTRA },
	{ "tm2", 0x1, 0, ECX, 8, EXTRA },
	{ "ssse3", 0x1, 0, ECX, 9, V2 },
	{ "cid", 0x1, 0, ECX, 10, EXTRA },
	{ "sdbg", 0x1, 0, ECX, 11, EXTRA },
	{ "fma", 0x1, 0, ECX, 12, V3 },
	{ "cx16", 0x1, 0, ECX, 13, V2 },
	{ "xtpr", 0x1, 0, ECX, 14, EXTRA },
	{ "pdcm", 0x1, 0, ECX, 15, EXTRA },
	{ "pcid", 0x1, 0, ECX, 17, EXTRA },
	{ "dca", 0x1, 0, ECX, 18, EXTRA },
	{ "sse4_1", 0x1, 0, ECX, 19, V2 },
	{ "sse4_2", 0x1, 0, ECX, 20, V2 },
	{ "x2apic", 0x1, 0, ECX, 21, SYSTEM },
	{ "movbe", 0x1, 0, ECX, 22, V3 },
	{ "popcnt", 0x1, 0, ECX, 23, V2 },
	{ "tsc_deadline_timer", 0x1, 0, ECX, 24, EXTRA },
	{ "aes", 0x1, 0, ECX, 25, EXTRA },
	{ "xsave", 0x1, 0, ECX, 26, V3 },
	{ "osxsave", 0x1, 0, ECX, 27, GUEST },
	{ "avx", 0x1, 0, ECX, 28, V3 },
	{ "f16c", 0x1, 0, ECX, 29, V3 },
	{ "rdrand", 0x1, 0, ECX, 30, EXTRA },
	{ "hypervisor", 0x1, 0, ECX, 31, VMM },

	{ "dtherm", 0x6, 0, EAX, 0, EXTRA },
	{ "ida", 0x6, 0, EAX, 1, EXTRA },
	{ "arat", 0x6, 0, EAX, 2, SYSTEM },
	{ "pln", 0x6, 0, EAX, 4, EXTRA },
	{ "pts", 0x6, 0, EAX, 6, EXTRA },
	{ "hwp", 0x6, 0, EAX, 7, EXTRA },
	{ "hwp_notify", 0x6, 0, EAX, 8, EXTRA },
	{ "hwp_act_window", 0x6, 0, EAX, 9, EXTRA },
	{ "hwp_epp", 0x6, 0, EAX, 10, EXTRA },
	{ "hwp_pkg_req", 0x6, 0, EAX, 11, EXTRA },
	{ "hfi", 0x6, 0, EAX, 19, EXTRA },

	{ "fsgsbase", 0x7, 0, EBX, 0, EXTRA },
	{ "tsc_adjust", 0x7, 0, EBX, 1, EXTRA },
	{ "sgx", 0x7, 0, EBX, 2, EXTRA },
	{ "bmi1", 0x7, 0, EBX, 3, V3 },
	{ "hle", 0x7, 0, EBX, 4, EXTRA },
	{ "avx2", 0x7, 0, EBX, 5, V3 },
	{ "fdp_excptn_only", 0x7, 0, EBX, 6, EXTRA },
	{ "smep", 0x7, 0, EBX, 7, EXTRA },
	{ "bmi2", 0x7, 0, EBX, 8, V3 },
	{ "erms", 0x7, 0, EBX, 9, EXTRA },
	{ "invpcid", 0x7, 0, EBX, 10, EXTRA },
	{ "rtm", 0x7, 0, EBX, 11, EXTRA },
	{ "cqm", 0x7, 0, EBX, 12, EXTRA },
	{ "zero_fcs_fds", 0x7, 0, EBX, 13, EXTRA },
	{ "mpx", 0x7, 0, EBX, 14, EXTRA },
	{ "rdt_a", 0x7, 0, EBX, 15, EXTRA },
	{ "avx512f", 0x7, 0, EBX, 16, V4 },
	{ "avx512dq", 0x7, 0, EBX, 17, V4 },
	{ "rdseed", 0x7, 0, EBX, 18, EXTRA },
	{ "adx", 0x7, 0, EBX, 19, EXTRA },
	{ "smap", 0x7, 0, EBX, 20, EXTRA },
	{ "avx512ifma", 0x7, 0, EBX, 21, EXTRA },
	{ "clflushopt", 0x7, 0, EBX, 23, EXTRA },
	{ "clwb", 0x7, 0, EBX, 24, EXTRA },
	{ "intel_pt", 0x7, 0, EBX, 25, EXTRA },
	{ "avx512pf", 0x7, 0, EBX, 26, EXTRA },
	{ "avx512er", 0x7, 0, EBX, 27, EXTRA },
	{ "avx512cd", 0x7, 0, EBX, 28, V4 },
	{ "sha_ni", 0x7, 0, EBX, 29, EXTRA },
	{ "avx512bw", 0x7, 0, EBX, 30, V4 },
	{ "avx512vl", 0x7, 0, EBX, 31, V4 },

	{ "prefetchwt1", 0x7, 0, ECX, 0, EXTRA },
	{ "avx512vbmi", 0x7, 0, ECX, 1, EXTRA },
	{ "umip", 0x7, 0, ECX, 2, EXTRA },
	{ "pku", 0x7, 0, ECX, 3, EXTRA },
	{ "ospke", 0x7, 0, ECX, 4, GUEST },
	{ "waitpkg", 0x7, 0, ECX, 5, EXTRA },
	{ "avx512_vbmi2", 0x7, 0, ECX, 6, EXTRA },
	{ "shstk", 0x7, 0, ECX, 7, EXTRA },
	{ "gfni", 0x7, 0, ECX, 8, EXTRA },
	{ "vaes", 0x7, 0, ECX, 9, EXTRA },
	{ "vpclmulqdq", 0x7, 0, ECX, 10, EXTRA },
	{ "avx512_vnni", 0x7, 0, ECX, 11, EXTRA },
	{ "avx512_bitalg", 0x7, 0, ECX, 12, EXTRA },
	{ "tme", 0x7, 0, ECX, 13, EXTRA },
	{ "avx512_vpopcntdq", 0x7, 0, ECX, 14, EXTRA },
	{ "la57", 0x7, 0, ECX, 16, EXTRA },
	{ "rdpid", 0x7, 0, ECX, 22, EXTRA },
	{ "keylocker", 0x7, 0, ECX, 23, EXTRA },
	{ "bus_lock_detect", 0x7, 0, ECX, 24, EXTRA },
	{ "cldemote", 0x7, 0, ECX, 25, EXTRA },
	{ "movdiri", 0x7, 0, ECX, 27, EXTRA },
	{ "movdir64b", 0x7, 0, ECX, 28, EXTRA },
	{ "enqcmd", 0x7, 0, ECX, 29, EXTRA },
	{ "sgx_lc", 0x7, 0, ECX, 30, EXTRA },
	{ "pks", 0x7, 0, ECX, 31, EXTRA },

	{ "sgx_keys", 0x7, 0, EDX, 1, EXTRA },
	{ "avx512_4vnniw", 0x7, 0, EDX, 2, EXTRA },
	{ "avx512_4fmaps", 0x7, 0, EDX, 3, EXTRA },
	{ "fsrm", 0x7, 0, EDX, 4, EXTRA },
	{ "uintr", 0x7, 0, EDX, 5, EXTRA },
	{ "avx512_vp2intersect", 0x7, 0, EDX, 8, EXTRA },
	{ "srbds_ctrl", 0x7, 0, EDX, 9, EXTRA },
	{ "md_clear", 0x7, 0, EDX, 10, EXTRA },
	{ "rtm_always_abort", 0x7, 0, EDX, 11, EXTRA },
	{ "tsx_force_abort", 0x7, 0, EDX, 13, EXTRA },
	{ "serialize", 0x7, 0, EDX, 14, EXTRA },
	{ "hybrid", 0x7, 0, EDX, 15, EXTRA },
	{ "tsxldtrk", 0x7, 0, EDX, 16, EXTRA },
	{ "pconfig", 0x7, 0, EDX, 18, EXTRA },
	{ "arch_lbr", 0x7, 0, EDX, 19, EXTRA },
	{ "ibt", 0x7, 0, EDX, 20, EXTRA },
	{ "amx_bf16", 0x7, 0, EDX, 22, EXTRA },
	{ "avx512_fp16", 0x7, 0, EDX, 23, EXTRA },
	{ "amx_tile", 0x7, 0, EDX, 24, EXTRA },
	{ "amx_int8", 0x7, 0, EDX, 25, EXTRA },
	{ "spec_ctrl", 0x7, 0, EDX, 26, EXTRA },
	{ "stibp", 0x7, 0, EDX, 27, EXTRA },
	{ "flush_l1d", 0x7, 0, EDX, 28, EXTRA },
	{ "arch_capabilities", 0x7, 0, EDX, 29, EXTRA },
	{ "core_capabilities", 0x7, 0, EDX, 30, EXTRA },
	{ "ssbd", 0x7, 0, EDX, 31, EXTRA },

	{ "sha512", 0x7, 1, EAX, 0, EXTRA },
	{ "sm3", 0x7, 1, EAX, 1, EXTRA },
	{ "sm4", 0x7, 1, EAX, 2, EXTRA },
	{ "rao_int", 0x7, 1, EAX, 3, EXTRA },
	{ "avx_vnni", 0x7, 1, EAX, 4, EXTRA },
	{ "avx512_bf16", 0x7, 1, EAX, 5, EXTRA },
	{ "lass", 0x7, 1, EAX, 6, EXTRA },
	{ "cmpccxadd", 0x7, 1, EAX, 7, EXTRA },
	{ "arch_perfmon_ext", 0x7, 1, EAX, 8, EXTRA },
	{ "fzrm", 0x7, 1, EAX, 10, EXTRA },
	{ "fsrs", 0x7, 1, EAX, 11, EXTRA },
	{ "fsrc", 0x7, 1, EAX, 12, EXTRA },
	{ "fred", 0x7, 1, EAX, 17, EXTRA },
	{ "lkgs", 0x7, 1, EAX, 18, EXTRA },
	{ "wrmsrns", 0x7, 1, EAX, 19, EXTRA },
	{ "nmi_src", 0x7, 1, EAX, 20, EXTRA },
	{ "amx_fp16", 0x7, 1, EAX, 21, EXTRA },
	{ "hreset", 0x7, 1, EAX, 22, EXTRA },
	{ "avx_ifma", 0x7, 1, EAX, 23, EXTRA },
	{ "lam", 0x7, 1, EAX, 26, EXTRA },
	{ "msrlist", 0x7, 1, EAX, 27, EXTRA },
	{ "movrs", 0x7, 1, EAX, 31, EXTRA },

	{ "avx_vnni_int8", 0x7, 1, EDX, 4, EXTRA },
	{ "avx_ne_convert", 0x7, 1, EDX, 5, EXTRA },
	{ "amx_complex", 0x7, 1, EDX, 8, EXTRA },
	{ "avx_vnni_int16", 0x7, 1, EDX, 10, EXTRA },
	{ "prefetchi", 0x7, 1, EDX, 14, EXTRA },
	{ "user_msr", 0x7, 1, EDX, 15, EXTRA },
	{ "uiret_uif", 0x7, 1, EDX, 17, EXTRA },
	{ "cet_sss", 0x7, 1, EDX, 18, EXTRA },
	{ "avx10", 0x7, 1, EDX, 19, EXTRA },
	{ "apx_f", 0x7, 1, EDX, 21, EXTRA },

	{ "psfd", 0x7, 2, EDX, 0, EXTRA },
	{ "ipred_ctrl", 0x7, 2, EDX, 1, EXTRA },
	{ "rrsba_ctrl", 0x7, 2, EDX, 2, EXTRA },
	{ "ddpd_u", 0x7, 2, EDX, 3, EXTRA },
	{ "bhi_ctrl", 0x7, 2, EDX, 4, EXTRA },
	{ "mcdt_no", 0x7, 2, EDX, 5, EXTRA },

	{ "xsaveopt", 0xd, 1, EAX, 0, EXTRA },
	{ "xsavec", 0xd, 1, EAX, 1, EXTRA },
	{ "xgetbv1", 0xd, 1, EAX, 2, EXTRA },
	{ "xsaves", 0xd, 1, EAX, 3, EXTRA },
	{ "xfd", 0xd, 1, EAX, 4, EXTRA },

	{ "lahf_lm", 0x80000001, 0, ECX, 0, V2 },
	{ "cmp_legacy", 0x80000001, 0, ECX, 1, VMM },
	{ "svm", 0x80000001, 0, ECX, 2, EXTRA },
	{ "extapic", 0x80000001, 0, ECX, 3, EXTRA },
	{ "cr8_legacy", 0x80000001, 0, ECX, 4, EXTRA },
	{ "abm", 0x80000001, 0, ECX, 5, V3 },
	{ "sse4a", 0x80000001, 0, ECX, 6, EXTRA },
	{ "misalignsse", 0x80000001, 0, ECX, 7, EXTRA },
	{ "3dnowprefetch", 0x80000001, 0, ECX, 8, EXTRA },
	{ "osvw", 0x80000001, 0, ECX, 9, EXTRA },
	{ "ibs", 0x80000001, 0, ECX, 10, EXTRA },
	{ "xop", 0x80000001, 0, ECX, 11, EXTRA },
	{ "skinit", 0x80000001, 0, ECX, 12, EXTRA },
	{ "wdt", 0x80000001, 0, ECX, 13, EXTRA },
	{ "lwp", 0x80000001, 0, ECX, 15, EXTRA },
	{ "fma4", 0x80000001, 0, ECX, 16, EXTRA },
	{ "tce", 0x80000001, 0, ECX, 17, EXTRA },
	{ "nodeid_msr", 0x80000001, 0, ECX, 19, EXTRA },
	{ "tbm", 0x80000001, 0, ECX, 21, EXTRA },
	{ "topoext", 0x80000001, 0, ECX, 22, EXTRA },
	{ "perfctr_core", 0x80000001, 0, ECX, 23, EXTRA },
	{ "perfctr_nb", 0x80000001, 0, ECX, 24, EXTRA },
	{ "bpext", 0x80000001, 0, ECX, 26, EXTRA },
	{ "ptsc", 0x80000001, 0, ECX, 27, EXTRA },
	{ "perfctr_llc", 0x80000001, 0, ECX, 28, EXTRA },
	{ "mwaitx", 0x80000001, 0, ECX, 29, EXTRA },
	{ "addr_mask_ext", 0x80000001, 0, ECX, 30, EXTRA },

	{ "syscall", 0x80000001, 0, EDX, 11, V1 },
	{ "mp", 0x80000001, 0, EDX, 19, EXTRA },
	{ "nx", 0x80000001, 0, EDX, 20, SYSTEM },
	{ "mmxext", 0x80000001, 0, EDX, 22, EXTRA },
	{ "fxsr_opt", 0x80000001, 0, EDX, 25, EXTRA },
	{ "pdpe1gb", 0x80000001, 0, EDX, 26, EXTRA },
	{ "rdtscp", 0x80000001, 0, EDX, 27, EXTRA },
	{ "lm", 0x80000001, 0, EDX, 29, SYSTEM },
	{ "3dnowext", 0x80000001, 0, EDX, 30, EXTRA },
	{ "3dnow", 0x80000001, 0, EDX, 31, EXTRA },

	{ "hw_pstate", 0x80000007, 0, EDX, 7, EXTRA },
	{ "invtsc", 0x80000007, 0, EDX, 8, EXTRA },
	{ "cpb", 0x80000007, 0, EDX, 9, EXTRA },
	{ "aperfmperf_ro", 0x80000007, 0, EDX, 10, EXTRA },

	{ "clzero", 0x80000008, 0, EBX, 0, EXTRA },
	{ "irperf", 0x80000008, 0, EBX, 1, EXTRA },
	{ "xsaveerptr", 0x80000008, 0, EBX, 2, EXTRA },
	{ "rdpru", 0x80000008, 0, EBX, 4, EXTRA },
	{ "wbnoinvd", 0x80000008, 0, EBX, 9, EXTRA },
	{ "amd_ibpb", 0x80000008, 0, EBX, 12, EXTRA },
	{ "amd_ibrs", 0x80000008, 0, EBX, 14, EXTRA },
	{ "amd_stibp", 0x80000008, 0, EBX, 15, EXTRA },
	{ "ibrs_always_on", 0x80000008, 0, EBX, 16, EXTRA },
	{ "stibp_always_on", 0x80000008, 0, EBX, 17, EXTRA },
	{ "ibrs_preferred", 0x80000008, 0, EBX, 18, EXTRA },
	{ "ibrs_same_mode", 0x80000008, 0, EBX, 19, EXTRA },
	{ "amd_ppin", 0x80000008, 0, EBX, 23, EXTRA },
	{ "amd_ssbd", 0x80000008, 0, EBX, 24, EXTRA },
	{ "virt_ssbd", 0x80000008, 0, EBX, 25, EXTRA },
	{ "amd_ssb_no", 0x80000008, 0, EBX, 26, EXTRA },
	{ "cppc", 0x80000008, 0, EBX, 27, EXTRA },
	{ "amd_psfd", 0x80000008, 0, EBX, 28, EXTRA },
	{ "btc_no", 0x80000008, 0, EBX, 29, EXTRA },
	{ "ibpb_ret", 0x80000008, 0, EBX, 30, EXTRA },
	{ "brs", 0x80000008, 0, EBX, 31, EXTRA },

	{ "npt", 0x8000000a, 0, EDX, 0, EXTRA },
	{ "lbrv", 0x8000000a, 0, EDX, 1, EXTRA },
	{ "svm_lock", 0x8000000a, 0, EDX, 2, EXTRA },
	{ "nrip_save", 0x8000000a, 0, EDX, 3, EXTRA },
	{ "tsc_scale", 0x8000000a, 0, EDX, 4, EXTRA },
	{ "vmcb_clean", 0x8000000a, 0, EDX, 5, EXTRA },
	{ "flushbyasid", 0x8000000a, 0, EDX, 6, EXTRA },
	{ "decodeassists", 0x8000000a, 0, EDX, 7, EXTRA },
	{ "pausefilter", 0x8000000a, 0, EDX, 10, EXTRA },
	{ "pfthreshold", 0x8000000a, 0, EDX, 12, EXTRA },
	{ "avic", 0x8000000a, 0, EDX, 13, EXTRA },
	{ "v_vmsave_vmload", 0x8000000a, 0, EDX, 15, EXTRA },
	{ "vgif", 0x8000000a, 0, EDX, 16, EXTRA },
	{ "x2avic", 0x8000000a, 0, EDX, 18, EXTRA },
	{ "v_spec_ctrl", 0x8000000a, 0, EDX, 20, EXTRA },
	{ "vnmi", 0x8000000a, 0, EDX, 25, EXTRA },
	{ "svme_addr_chk", 0x8000000a, 0, EDX, 28, EXTRA },

	{ "no_nested_data_bp", 0x80000021, 0, EAX, 0, EXTRA },
	{ "lfence_rdtsc", 0x80000021, 0, EAX, 2, EXTRA },
	{ "null_sel_clr_base", 0x80000021, 0, EAX, 6, EXTRA },
	{ "autoibrs", 0x80000021, 0, EAX, 8, EXTRA },
	{ "no_smm_ctl_msr", 0x80000021, 0, EAX, 9, EXTRA },
	{ "sbpb", 0x80000021, 0, EAX, 27, EXTRA },
	{ "ibpb_brtype", 0x80000021, 0, EAX, 28, EXTRA },
	{ "srso_no", 0x80000021, 0, EAX, 29, EXTRA },
};

static const struct hv_cpu_register registers[] = {
	{ 0x1, 0, HV_CPUID_EDX },        { 0x1, 0, HV_CPUID_ECX },
	{ 0x6, 0, HV_CPUID_EAX },        { 0x7, 0, HV_CPUID_EBX },
	{ 0x7, 0, HV_CPUID_ECX },        { 0x7, 0, HV_CPUID_EDX },
	{ 0x7, 1, HV_CPUID_EAX },        { 0x7, 1, HV_CPUID_EDX },
	{ 0x7, 2, HV_CPUID_EDX },        { 0xd, 1, HV_CPUID_EAX },
	{ 0x80000001, 0, HV_CPUID_ECX }, { 0x80000001, 0, HV_CPUID_EDX },
	{ 0x80000007, 0, HV_CPUID_EDX }, { 0x80000008, 0, HV_CPUID_EBX },
	{ 0x8000000a, 0, HV_CPUID_EDX }, { 0x80000021, 0, HV_CPUID_EAX },
};

uint32_t hv_cpu_feature_count(void)
{
	return sizeof(features) / sizeof(features[0]);
}

const struct hv_cpu_feature *hv_cpu_feature_at(uint32_t index)
{
	base_assert(index < hv_cpu_feature_count());
	return &features[index];
}

const struct hv_cpu_feature *hv_cpu_feature_by_name(const char *name)
{
	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++)
		if (strcmp(features[i].name, name) == 0)
			return &features[i];
	return NULL;
}

const struct hv_cpu_feature *hv_cpu_feature_by_bit(const struct hv_cpu_register *where,
						   uint32_t bit)
{
	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++) {
		const struct hv_cpu_feature *feature = &features[i];

		if (feature->leaf == where->leaf && feature->subleaf == where->subleaf &&
		    feature->reg == where->reg && feature->bit == bit)
			return feature;
	}
	return NULL;
}

uint32_t hv_cpu_register_count(void)
{
	return sizeof(registers) / sizeof(registers[0]);
}

const struct hv_cpu_register *hv_cpu_register_at(uint32_t index)
{
	base_assert(index < hv_cpu_register_count());
	return &registers[index];
}

bool hv_cpu_feature_in(const struct hv_cpuid_table *table, const struct hv_cpu_feature *feature)
{
	uint32_t value = hv_cpuid_register(table, feature->leaf, feature->subleaf, feature->reg);

	return (value >> feature->bit & 1) != 0;
}

static uint32_t *register_of(struct hv_cpuid_entry *entry, enum hv_cpuid_reg reg)
{
	switch (reg) {
	case HV_CPUID_EAX:
		return &entry->eax;
	case HV_CPUID_EBX:
		return &entry->ebx;
	case HV_CPUID_ECX:
		return &entry->ecx;
	case HV_CPUID_EDX:
		return &entry->edx;
	case HV_CPUID_REG_INVALID:
	case HV_CPUID_REGS:
		break;
	}
	base_bug("CPUID register %d", (int)reg);
}

int hv_cpu_feature_put(struct hv_cpuid_table *table, const struct hv_cpu_feature *feature,
		       bool shown, struct base_error *err)
{
	struct hv_cpuid_entry entry = hv_cpuid_get(table, feature->leaf, feature->subleaf);
	uint32_t *reg = register_of(&entry, feature->reg);
	uint32_t mask = 1U << feature->bit;

	if (hv_cpu_feature_in(table, feature) == shown)
		return 0;
	*reg = shown ? *reg | mask : *reg & ~mask;
	return hv_cpuid_set(table, entry, err);
}

const char *hv_cpu_xsave_name(uint32_t number)
{
	static const char *const names[] = {
		"x87",
		"SSE",
		"AVX",
		"MPX bounds",
		"MPX config",
		"AVX-512 mask",
		"AVX-512 upper halves",
		"AVX-512 upper registers",
		"PT",
		"PKRU",
		"PASID",
		"CET user",
		"CET supervisor",
		"HDC",
		"UINTR",
		"LBR",
		"HWP",
		"AMX config",
		"AMX tiles",
		"APX",
	};

	return number < sizeof(names) / sizeof(names[0]) ? names[number] : NULL;
}
