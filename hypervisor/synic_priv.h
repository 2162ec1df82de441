/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SynIC's other sides: making one, its registers, saving it.  For this folder and for tests.
 */
#ifndef HYPERVISOR_SYNIC_PRIV_H
#define HYPERVISOR_SYNIC_PRIV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "hypervisor/hv_limits.h"
#include "hypervisor/slat.h"
#include "hypervisor/synic.h"

#define HV_MSR_SCONTROL 0x40000080u
#define HV_MSR_SVERSION 0x40000081u
#define HV_MSR_SIEFP    0x40000082u
#define HV_MSR_SIMP     0x40000083u
#define HV_MSR_EOM      0x40000084u
#define HV_MSR_SINT0    0x40000090u

#define HV_SYNIC_ENABLE    1u /* of SCONTROL, SIEFP, SIMP */
#define HV_SINT_MASKED     (1u << 16)
#define HV_SINT_AUTO_EOI   (1u << 17)
#define HV_SINT_POLLING    (1u << 18)
#define HV_SINT_VECTOR_MIN 16u /* below are the processor's own exceptions */

struct hv_synic_ops {
	/* Raise @vector on virtual processor @vp.  Any thread, no lock held; does not block. */
	void (*interrupt)(void *context, uint32_t vp, uint8_t vector);
};

/**
 * hv_synic_new - one SynIC per virtual processor 0..@vp_count-1, all at power-on (off).
 * @slat: borrowed, outlives the result.  -ENOMEM.
 */
BASE_MUST_CHECK int hv_synic_new(struct hv_slat *slat, uint32_t vp_count,
				 const struct hv_synic_ops *ops, void *context,
				 struct hv_synic **ret_synic, struct base_error *err);
void hv_synic_free(struct hv_synic *synic);

/* Back to power-on, messages forgotten.  No vCPU runs. */
void hv_synic_reset(struct hv_synic *synic);

bool hv_synic_has_msr(uint32_t msr);
/*
 * A register of @vp, as the guest reads and writes it, on its own thread or while it is parked.
 * 0; -EINVAL it does not exist, is read-only, or the value is not allowed: #GP.
 */
BASE_MUST_CHECK int hv_synic_read_msr(struct hv_synic *synic, uint32_t vp, uint32_t msr,
				      uint64_t *ret_value);
BASE_MUST_CHECK int hv_synic_write_msr(struct hv_synic *synic, uint32_t vp, uint32_t msr,
				       uint64_t value);

/* Section "synic" (docs/hypervisor/hyperv.md): load checks all before it changes anything. */
#define HV_SYNIC_VERSION 1u
void hv_synic_save(struct hv_synic *synic, struct base_buffer *out);
BASE_MUST_CHECK int hv_synic_load(struct hv_synic *synic, uint32_t version, struct base_reader *in,
				  struct base_error *err);

#endif
