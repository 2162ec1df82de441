/* SPDX-License-Identifier: Apache-2.0 */
/* A record that another process, an older version or a failing disk left.  An input is the body of
 * a record, without its checksum, or with one that fits: both are tried. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "migrate/mig_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_one(const uint8_t *data, size_t size)
{
	uint8_t again[MIG_RECORD_BYTES];
	struct mig_record record;
	struct base_error err;

	if (mig_record_decode(data, size, &record, &err) < 0)
		return;
	if (mig_record_check(&record, &err) < 0)
		abort(); /* what was read can be written */
	mig_record_encode(&record, again);
	if (size != sizeof(again) || memcmp(data, again, sizeof(again)) != 0)
		abort(); /* one encoding */
	if (record.state == MIG_HELD_RUNS && mig_record_in_doubt(&record))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t fitting[MIG_RECORD_BYTES];

	try_one(data, size);
	if (size != sizeof(fitting))
		return 0;
	memcpy(fitting, data, size);
	base_put_le32(fitting + size - 4, base_crc32c(0, fitting, size - 4));
	try_one(fitting, size);
	return 0;
}
