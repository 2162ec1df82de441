/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small files of boot loaders.  The first byte says which.
 *
 * Reached: bootdisk_bls_decode(), bootdisk_grubenv_decode(), bootdisk_uki_decode(),
 * bootdisk_version_order().
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int take(void *context, const char *pair)
{
	if (strchr(pair, '=') == NULL)
		abort();
	(void)context;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct bootdisk_bls bls;
	struct bootdisk_uki uki;
	struct base_error err = { 0 };
	char *text;

	if (size == 0)
		return -1;
	if (data[0] == 'u') {
		if (bootdisk_uki_decode(data + 1, size - 1, size - 1, &uki, &err) == 0 &&
		    uki.linux_image.offset + uki.linux_image.size_bytes > size - 1)
			abort();
		return 0;
	}
	text = strndup((const char *)data + 1, size - 1);
	if (text == NULL)
		return -1;
	if (data[0] == 'e')
		(void)bootdisk_grubenv_decode(text, strlen(text), take, NULL, &err);
	else if (bootdisk_bls_decode(text, "a+3-1.conf", &bls, &err) == 0 &&
		 (bootdisk_version_order(text, bls.version) < 0) !=
			 (bootdisk_version_order(bls.version, text) > 0))
		abort();
	free(text);
	return 0;
}
