/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/disk/utf16.h"
#include "hypervisor/ic/ic_body.h"

static uint8_t body[IC_BODY_BYTES_MAX];
static struct ic_answer answer;
static struct ic_kvp_item item;
static struct ic_guest_info info;

static void text(uint32_t offset, uint32_t size_offset, const char *value)
{
	int bytes = disk_utf16_from_utf8(value, body + offset, 2048);

	cr_assert_geq(bytes, 0);
	body[offset + (uint32_t)bytes] = 0;
	body[offset + (uint32_t)bytes + 1] = 0;
	base_put_le32(body + size_offset, (uint32_t)bytes + 2);
}

static void setup(void)
{
	answer = (struct ic_answer){ .body = body, .body_bytes = ic_kvp_encode(7, body) };
	base_put_le32(body + 8, 1);
	text(20, 12, "OSName");
	text(532, 16, "Debian GNU/Linux");
	memset(&info, 0, sizeof(info));
}

static int decode(void)
{
	return ic_kvp_decode(&answer, 7, &item, NULL);
}

TestSuite(ic_kvp, .init = setup);

Test(ic_kvp, an_item)
{
	cr_assert_eq(decode(), 0);
	ic_kvp_absorb(&item, &info);
	cr_assert_str_eq(info.os_name, "Debian GNU/Linux");
	cr_assert_str_eq(info.fqdn, "");
}

Test(ic_kvp, nothing_that_a_terminal_obeys)
{
	text(532, 16,
	     "a\x1b[2Jb\x7f\xc2\x9b"
	     "c\xc2\x80\xc2\xa0\xc3\xa9");
	cr_assert_eq(decode(), 0);
	cr_assert_str_eq(item.value, "a?[2Jb??c?\xc2\xa0\xc3\xa9");
}

Test(ic_kvp, sizes_beyond_the_field)
{
	static const uint32_t bad[] = { 513, 514, 2049, 2050, 0xffffffff, 0x80000000, 3 };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		setup();
		base_put_le32(body + 12, bad[i]);
		cr_assert_eq(decode(), -EBADMSG);
	}
	for (size_t i = 2; i < sizeof(bad) / sizeof(bad[0]); i++) {
		setup();
		base_put_le32(body + 16, bad[i]);
		cr_assert_eq(decode(), -EBADMSG);
	}
	setup();
	answer.body_bytes--;
	cr_assert_eq(decode(), -EBADMSG);
}

Test(ic_kvp, the_item_asked_for)
{
	body[4] = 8;
	cr_assert_eq(decode(), -EBADMSG);
	setup();
	body[0] = 0;
	cr_assert_eq(decode(), -EBADMSG);
	setup();
	body[1] = 3;
	cr_assert_eq(decode(), -EBADMSG);
}

Test(ic_kvp, not_utf16)
{
	base_put_le16(body + 20, 0xdc00);
	cr_assert_eq(decode(), -EBADMSG);
	setup();
	base_put_le16(body + 534, 0xd800);
	cr_assert_eq(decode(), -EBADMSG);
	setup();
	base_put_le16(body + 534, 0); /* NUL inside */
	cr_assert_eq(decode(), -EBADMSG);
	setup();
	base_put_le16(body + 534, 0x1b); /* would talk to a terminal */
	cr_assert_eq(decode(), 0);
	cr_assert_str_eq(item.value, "D?bian GNU/Linux");
}

Test(ic_kvp, types)
{
	base_put_le32(body + 8, 4);
	base_put_le32(body + 532, 4000000000u);
	cr_assert_eq(decode(), 0);
	cr_assert_str_eq(item.value, "4000000000");
	base_put_le32(body + 8, 8);
	memset(body + 532, 0xff, 8);
	cr_assert_eq(decode(), 0);
	cr_assert_str_eq(item.value, "18446744073709551615");
	base_put_le32(body + 8, 2);
	cr_assert_eq(decode(), -EBADMSG);
}

Test(ic_kvp, the_longest)
{
	for (uint32_t i = 0; i < 1024; i++)
		base_put_le16(body + 532 + 2 * i, 0x20ac);
	base_put_le32(body + 16, 2048);
	text(20, 12, "OSVersion");
	cr_assert_eq(decode(), 0);
	cr_assert_eq(strlen(item.value), 3072);
	ic_kvp_absorb(&item, &info);
	cr_assert_eq(strlen(info.os_version), 63); /* 21 characters of 3 bytes */
	text(20, 12, "OSBuildNumber");
	text(532, 16, "");
	cr_assert_eq(decode(), 0);
	ic_kvp_absorb(&item, &info);
	cr_assert_str_eq(info.os_build, "");
}
