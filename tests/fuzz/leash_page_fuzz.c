/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a leash page; what is accepted must be the canonical encoding. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/leash_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t page[BASE_LEASH_PAGE_BYTES])
{
	uint8_t again[BASE_LEASH_PAGE_BYTES];
	struct base_leash_page decoded;
	struct base_leash_terms terms;
	int code = base_leash_page_decode_all(page, &decoded, NULL);

	if (base_leash_page_decode(page, &terms, NULL) != code)
		abort();
	if (code < 0)
		return;
	base_leash_page_encode(&decoded, again);
	if (memcmp(page, again, sizeof(again)) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t page[BASE_LEASH_PAGE_BYTES] = { 0 };

	memcpy(page, data, size < sizeof(page) ? size : sizeof(page));
	check(page);
	/* Once more with the right checksum, which chance would hardly find. */
	base_put_le32(page + 64, base_crc32c(0, page, 64));
	check(page);
	return 0;
}
