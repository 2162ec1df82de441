/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sections "machine" and "time" of a saved state.  The first byte chooses; what is
 * accepted must be the canonical encoding.
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/machine_sections.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_canonical(const struct base_reader *in, struct base_buffer *again)
{
	if (again->size_bytes != in->offset_bytes ||
	    memcmp(again->data, in->data, again->size_bytes) != 0)
		abort();
	base_buffer_fini(again);
}

static void machine(struct base_reader *in)
{
	struct base_buffer again = { .data = NULL };
	struct hv_machine_section section;

	if (hv_machine_section_decode(in, HV_MACHINE_SECTION_VERSION, &section, NULL) < 0)
		return;
	hv_machine_section_encode(&section, &again);
	check_canonical(in, &again);
}

static void times(struct base_reader *in)
{
	struct base_buffer again = { .data = NULL };
	struct hv_time_section section;

	if (hv_time_section_decode(in, HV_TIME_SECTION_VERSION, &section, NULL) < 0)
		return;
	hv_time_section_encode(&section, &again);
	check_canonical(in, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_reader in;

	if (size == 0)
		return 0;
	in = base_reader_over(data + 1, size - 1);
	if (data[0] % 2 == 0)
		machine(&in);
	else
		times(&in);
	return 0;
}
