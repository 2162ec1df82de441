/* SPDX-License-Identifier: Apache-2.0 */
/* A message of the guest's network driver: any bytes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/netvsp/nvsp_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nvsp_request request = { .type = NVSP_INVALID };
	struct base_error err = { 0 };
	uint8_t *exact = malloc(size > 0 ? size : 1); /* so that a read past the end is seen */
	int rc = 0;

	if (exact == NULL)
		return 0;
	memcpy(exact, data, size);
	rc = nvsp_request_decode(exact, (uint32_t)size, &request, &err);
	if (rc != 0 && rc != -EBADMSG && rc != -ENOTSUP)
		abort();
	if (rc != 0 && (err.code != rc || err.text[0] == '\0'))
		abort();
	if (rc == 0 && request.type == NVSP_INIT) {
		const uint32_t version =
			nvsp_version_choose(request.init.oldest, request.init.newest);

		if (version != 0 &&
		    (version < request.init.oldest || version > request.init.newest))
			abort();
	}
	free(exact);
	return 0;
}
