/* SPDX-License-Identifier: Apache-2.0 */
/* A saved network card: what is accepted is byte for byte what would be written again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/netvsp/netvsp_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct netvsp_state state;
	struct base_reader in = base_reader_over(data, size);
	struct base_buffer out = { 0 };
	struct base_error err = { 0 };
	int rc = netvsp_state_decode(&in, &state, &err);

	if (rc != 0 && (rc != -EBADMSG || err.code != rc || err.text[0] == '\0'))
		abort();
	if (rc == 0) {
		netvsp_state_encode(&state, &out);
		if (!out.failed && (out.size_bytes != size || memcmp(out.data, data, size) != 0))
			abort();
		base_buffer_fini(&out);
	}
	return 0;
}
