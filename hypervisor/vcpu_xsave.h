/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended processor state: between the place each component has on this host and
 * struct hv_xsave, which has no places.
 */
#ifndef HYPERVISOR_VCPU_XSAVE_H
#define HYPERVISOR_VCPU_XSAVE_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "hypervisor/vcpu_state.h"

/* Where this processor keeps a component in the standard format; size 0: it has none such. */
struct hv_xsave_place {
	uint32_t offset;
	uint32_t size_bytes;
};
struct hv_xsave_layout {
	uint32_t area_bytes;                               /* KVM_CAP_XSAVE2, or 4096 */
	struct hv_xsave_place places[HV_XSAVE_COMPONENTS]; /* from 2 up */
};

/* -ENOTSUP: KVM wants a larger area than HV_VCPU_XSAVE_BYTES_MAX. */
BASE_MUST_CHECK int hv_xsave_layout_get(int kvm_fd, struct hv_xsave_layout *ret_layout,
					struct base_error *err);

/* Pure.  @area: layout->area_bytes, as KVM_GET_XSAVE2 gave it. */
BASE_MUST_CHECK int hv_xsave_unpack(const struct hv_xsave_layout *layout, const uint8_t *area,
				    struct hv_xsave *ret_xsave, struct base_error *err);
/* Pure.  @ret_area: layout->area_bytes.  -ENOTSUP naming the component that has no such place. */
BASE_MUST_CHECK int hv_xsave_pack(const struct hv_xsave_layout *layout,
				  const struct hv_xsave *xsave, uint8_t *ret_area,
				  struct base_error *err);

void hv_xsave_encode(const struct hv_xsave *xsave, struct base_buffer *out);
BASE_MUST_CHECK int hv_xsave_decode(struct base_reader *in, struct hv_xsave *ret_xsave,
				    struct base_error *err);

#endif
