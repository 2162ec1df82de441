/* SPDX-License-Identifier: Apache-2.0 */
/* The record of a VM's images.  An input is a record, or what follows its first line: that is put
 * in front, so that the checksum fits. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_inventory.h"
#include "base/crc32c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_one(const char *bytes, size_t size)
{
	json_t *root = NULL;

	if (vm_inventory_decode(bytes, size, &root, NULL) < 0)
		return;
	if (json_object_size(root) != 8)
		abort();
	json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char head[64];
	int length = snprintf(head, sizeof(head), "godwit-images 1 crc=%08" PRIx32 "\n",
			      base_crc32c(0, data, size));
	char *fitting = malloc((size_t)length + size);

	if (fitting == NULL)
		return 0;
	try_one((const char *)data, size);
	memcpy(fitting, head, (size_t)length);
	if (size > 0)
		memcpy(fitting + length, data, size);
	try_one(fitting, (size_t)length + size);
	free(fitting);
	return 0;
}
