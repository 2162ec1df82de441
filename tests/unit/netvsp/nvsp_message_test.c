/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/netvsp/nvsp_message.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"

static int decode(const uint32_t *words, uint32_t count, struct nvsp_request *request)
{
	uint8_t bytes[NVSP_MESSAGE_BYTES] = { 0 };

	for (uint32_t i = 0; i < count; i++)
		base_put_le32(bytes + 4 * (size_t)i, words[i]);
	return nvsp_request_decode(bytes, sizeof(bytes), request, NULL);
}

Test(nvsp_message, the_newest_common_version_is_chosen)
{
	cr_assert_eq(nvsp_version_choose(2, 0x60001), NVSP_VERSION_61);
	cr_assert_eq(nvsp_version_choose(0x50000, 0x50000), NVSP_VERSION_5);
	cr_assert_eq(nvsp_version_choose(0x40001, 0x5FFFF), NVSP_VERSION_5);
	cr_assert_eq(nvsp_version_choose(2, 2), NVSP_VERSION_1);
	cr_assert_eq(nvsp_version_choose(0x70000, 0x80000), NVSP_VERSION_NONE);
	cr_assert_eq(nvsp_version_choose(0x60001, 2), NVSP_VERSION_NONE);
}

Test(nvsp_message, messages_are_read_field_by_field)
{
	struct nvsp_request request;

	cr_assert_eq(decode((uint32_t[]){ 1, 2, 0x60001 }, 3, &request), 0);
	cr_assert_eq(request.type, NVSP_INIT);
	cr_assert_eq(request.init.newest, 0x60001);
	cr_assert_eq(decode((uint32_t[]){ 101, 0xE1E10, 0xCAFE }, 3, &request), 0);
	cr_assert_eq(request.buffer.gpadl_id, 0xE1E10);
	cr_assert_eq(request.buffer.id, 0xCAFE);
	cr_assert_eq(decode((uint32_t[]){ 107, 1, 5, 300 }, 4, &request), 0);
	cr_assert(request.rndis.is_control);
	cr_assert_eq(request.rndis.section, 5);
	cr_assert_eq(request.rndis.section_bytes, 300);
	cr_assert_eq(decode((uint32_t[]){ 125, 1514, 9, 0xAC }, 4, &request), 0);
	cr_assert_eq(request.config.mtu, 1514);
	cr_assert_eq(request.config.capabilities, 0xAC);
	cr_assert_eq(decode((uint32_t[]){ 133, 1, 3 }, 3, &request), 0);
	cr_assert_eq(request.subchannel.count, 3);
}

Test(nvsp_message, a_short_one_is_malformed)
{
	static const uint32_t types[] = { 1, 100, 101, 103, 104, 106, 107, 108, 125, 133 };
	uint8_t bytes[NVSP_MESSAGE_BYTES] = { 0 };
	struct nvsp_request request;

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		base_put_le32(bytes, types[i]);
		for (uint32_t size = 0; size < 6; size++)
			cr_assert_eq(nvsp_request_decode(bytes, size, &request, NULL), -EBADMSG,
				     "type %u, %u bytes", types[i], size);
	}
}

Test(nvsp_message, what_no_guest_sends_is_not_supported)
{
	struct nvsp_request request;

	cr_assert_eq(decode((uint32_t[]){ 0 }, 1, &request), -ENOTSUP);
	cr_assert_eq(decode((uint32_t[]){ 102 }, 1, &request), -ENOTSUP);
	cr_assert_eq(decode((uint32_t[]){ 134 }, 1, &request), -ENOTSUP);
	cr_assert_eq(decode((uint32_t[]){ 0xFFFFFFFF }, 1, &request), -ENOTSUP);
}

Test(nvsp_message, the_table_is_where_old_and_new_guests_look)
{
	uint8_t table[NVSP_TABLE_MESSAGE_BYTES];

	nvsp_indirection_table(table, 3);
	cr_assert_eq(base_get_le32(table), NVSP_INDIRECTION_TABLE);
	cr_assert_eq(base_get_le32(table + 4), 16);
	cr_assert_eq(base_get_le32(table + 8), 40);
	for (uint32_t i = 0; i < 16; i++)
		cr_assert_eq(base_get_le32(table + 40 + 4 * (size_t)i), i % 3);
}

Test(nvsp_message, answers)
{
	uint8_t bytes[NVSP_MESSAGE_BYTES];

	nvsp_receive_buffer_complete(bytes, NVSP_STATUS_SUCCESS, 1728, 9709);
	cr_assert_eq(base_get_le32(bytes), 102);
	cr_assert_eq(base_get_le32(bytes + 4), 1);
	cr_assert_eq(base_get_le32(bytes + 8), 1);
	cr_assert_eq(base_get_le32(bytes + 12), 0);
	cr_assert_eq(base_get_le32(bytes + 16), 1728);
	cr_assert_eq(base_get_le32(bytes + 20), 9709);
	nvsp_init_complete(bytes, 0x60001, NVSP_STATUS_SUCCESS);
	cr_assert_eq(base_get_le32(bytes), 2);
	cr_assert_eq(base_get_le32(bytes + 12), 1);
	nvsp_subchannel_complete(bytes, NVSP_STATUS_FAIL, 0);
	cr_assert_eq(base_get_le32(bytes), 133);
	cr_assert_eq(base_get_le32(bytes + 4), 2);
}
