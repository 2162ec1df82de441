/* SPDX-License-Identifier: Apache-2.0 */
/* Key-value pairs: one item of the guest's own, asked for by its index; pure. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/plain.h"
#include "hypervisor/disk/utf16.h"
#include "hypervisor/ic/ic_body.h"

#define OP_ENUMERATE 3u
#define BODY_BYTES   2580u
#define OFFSET_INDEX 4u
#define OFFSET_TYPE  8u
#define OFFSET_KEY   20u
#define VALUE_BYTES  2048u
#define OFFSET_VALUE (OFFSET_KEY + IC_KVP_KEY_BYTES)

enum value_type {
	VALUE_TEXT = 1,
	VALUE_U32 = 4,
	VALUE_U64 = 8,
};

_Static_assert(BODY_BYTES == OFFSET_VALUE + VALUE_BYTES, "layout");
_Static_assert(BODY_BYTES <= IC_BODY_BYTES_MAX, "the largest body");

uint16_t ic_kvp_encode(uint32_t index, uint8_t *to)
{
	memset(to, 0, BODY_BYTES);
	to[0] = OP_ENUMERATE;
	to[1] = IC_KVP_POOL_AUTO;
	base_put_le32(to + OFFSET_INDEX, index);
	return BODY_BYTES;
}

/* Text of @size_bytes with the terminator counted, which is what Linux does, or without. */
static int text_decode(const uint8_t *from, uint32_t size_bytes, char *to, size_t capacity)
{
	while (size_bytes >= 2 && from[size_bytes - 1] == 0 && from[size_bytes - 2] == 0)
		size_bytes -= 2;
	if (disk_utf16_to_utf8(from, size_bytes, to, capacity) < 0)
		return -EBADMSG;
	base_plain(to);
	return 0;
}

static int value_decode(const uint8_t *body, uint32_t type, uint32_t size_bytes, char *to,
			struct base_error *err)
{
	const uint8_t *value = body + OFFSET_VALUE;

	switch (type) {
	case VALUE_TEXT:
		if (text_decode(value, size_bytes, to, IC_KVP_TEXT_BYTES) < 0)
			return base_fail(err, -EBADMSG, "the value is not UTF-16");
		return 0;
	case VALUE_U32:
		(void)snprintf(to, IC_KVP_TEXT_BYTES, "%" PRIu32, base_get_le32(value));
		return 0;
	case VALUE_U64:
		(void)snprintf(to, IC_KVP_TEXT_BYTES, "%" PRIu64, base_get_le64(value));
		return 0;
	default:
		return base_fail(err, -EBADMSG, "value of type %" PRIu32, type);
	}
}

int ic_kvp_decode(const struct ic_answer *answer, uint32_t index, struct ic_kvp_item *ret_item,
		  struct base_error *err)
{
	const uint8_t *body = answer->body;
	uint32_t key_bytes = 0;
	uint32_t value_bytes = 0;

	if (answer->body_bytes < BODY_BYTES)
		return base_fail(err, -EBADMSG, "body of %u bytes, expected %u",
				 (unsigned)answer->body_bytes, BODY_BYTES);
	if (body[0] != OP_ENUMERATE || body[1] != IC_KVP_POOL_AUTO ||
	    base_get_le32(body + OFFSET_INDEX) != index)
		return base_fail(err, -EBADMSG, "operation %u, pool %u: not item %" PRIu32,
				 (unsigned)body[0], (unsigned)body[1], index);
	key_bytes = base_get_le32(body + OFFSET_TYPE + 4);
	value_bytes = base_get_le32(body + OFFSET_TYPE + 8);
#ifndef GODWIT_MUTANT_IC_KVP_SIZE
	if (key_bytes > IC_KVP_KEY_BYTES || value_bytes > VALUE_BYTES)
		return base_fail(err, -EBADMSG, "key of %" PRIu32 ", value of %" PRIu32 " bytes",
				 key_bytes, value_bytes);
#endif
	if (key_bytes % 2 != 0 || value_bytes % 2 != 0)
		return base_fail(err, -EBADMSG, "key of %" PRIu32 ", value of %" PRIu32 " bytes",
				 key_bytes, value_bytes);
	if (text_decode(body + OFFSET_KEY, key_bytes, ret_item->key, sizeof(ret_item->key)) < 0)
		return base_fail(err, -EBADMSG, "the key is not UTF-16");
	return value_decode(body, base_get_le32(body + OFFSET_TYPE), value_bytes, ret_item->value,
			    err);
}

/* Cut between characters where it does not fit. */
static void put(char *to, size_t capacity, const char *from)
{
	size_t length = strlen(from);

	if (length >= capacity) {
		length = capacity - 1;
		while (length > 0 && ((unsigned char)from[length] & 0xc0) == 0x80)
			length--;
	}
	memset(to, 0, capacity);  /* values are compared whole */
	memcpy(to, from, length); /* NOLINT(bugprone-not-null-terminated-result): zeroed above */
}

void ic_kvp_absorb(const struct ic_kvp_item *item, struct ic_guest_info *info)
{
	const struct {
		const char *key;
		char *to;
		size_t capacity;
	} fields[] = {
		{ "FullyQualifiedDomainName", info->fqdn, sizeof(info->fqdn) },
		{ "OSName", info->os_name, sizeof(info->os_name) },
		{ "OSVersion", info->os_version, sizeof(info->os_version) },
		{ "OSBuildNumber", info->os_build, sizeof(info->os_build) },
		{ "IntegrationServicesVersion", info->integration_version,
		  sizeof(info->integration_version) },
		{ "ProcessorArchitecture", info->processor_architecture,
		  sizeof(info->processor_architecture) },
		{ "NetworkAddressIPv4", info->ipv4, sizeof(info->ipv4) },
		{ "NetworkAddressIPv6", info->ipv6, sizeof(info->ipv6) },
	};

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (strcmp(item->key, fields[i].key) == 0)
			put(fields[i].to, fields[i].capacity, item->value);
	}
}
