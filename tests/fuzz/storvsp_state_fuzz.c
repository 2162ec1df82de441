/* SPDX-License-Identifier: Apache-2.0 */
/* The saved section of a SCSI controller: refused whole, or taken whole and played. */
#include "tests/unit/storvsp/storvsp_rig.h"

/* NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct base_reader in = base_reader_over(input, size);

	fake_loading_open = true;
	rig_init();
	fake_quiesced = true;
	base_assert(storvsp_service_ops.quiesce(rig.storvsp, NULL) == 0);
	if (storvsp_service_ops.load(rig.storvsp, 0, 1, &in, NULL) == 0) {
		base_assert(storvsp_service_ops.loaded(rig.storvsp, NULL) == 0);
		rig_resume();
		rig_settle();
	}
	rig_fini();
	fake_loading_open = false;
	return 0;
}
