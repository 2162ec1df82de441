/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The section "vcpu", with hv_xsave_decode() in it: accepted bytes are the canonical
 * encoding of what they say.
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/vcpu_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct hv_vcpu_state state;
	struct base_reader in = base_reader_over(data, size);
	struct base_buffer again = { 0 };
	struct base_error err = { 0 };

	if (hv_vcpu_state_decode(&in, HV_VCPU_STATE_VERSION, &state, &err) < 0)
		return 0;
	hv_vcpu_state_encode(&state, &again);
	if (again.failed || again.size_bytes != size || memcmp(again.data, data, size) != 0)
		abort();
	base_buffer_fini(&again);
	return 0;
}
