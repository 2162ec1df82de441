/* SPDX-License-Identifier: Apache-2.0 */
/* The saved section of the integration services: what is accepted is written again as it was, but
 * that a guest that was frozen is one that is owed a thaw. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/ic/ic_priv.h"

/* NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	static struct ic_set set;
	struct base_reader in = base_reader_over(input, size);
	struct base_reader record = in;
	struct base_buffer out = { 0 };
	struct ic_port port;

	(void)ic_port_decode(&record, IC_SHUTDOWN, &port, NULL);
	if (ic_state_decode(&set, &in, NULL) == 0) {
		ic_state_encode(&set, &out);
		if (out.failed || out.size_bytes != size || memcmp(out.data, input, size) != 0)
			abort();
		base_buffer_fini(&out);
	}
	return 0;
}
