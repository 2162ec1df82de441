/* SPDX-License-Identifier: Apache-2.0 */
/* A record's bytes: docs/migrate/records.md, section 2. */
#include "migrate/mig_record.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

static struct base_error err;

static struct mig_record sample(void)
{
	return (struct mig_record){
		.kind = MIG_RECORD_REGISTER,
		.state = MIG_HELD_ALL_HERE,
		.now = { .epoch = 8, .owner = MIG_DESTINATION },
		.from_epoch = 7,
		.written_s = 1700000000,
		.id = "0123456789abcde",
		.name = "web-1",
		.peer = "10.0.0.2:7011",
	};
}

static void seal(uint8_t *bytes)
{
	base_put_le32(bytes + MIG_RECORD_BYTES - 4, base_crc32c(0, bytes, MIG_RECORD_BYTES - 4));
}

static int decode(const uint8_t *bytes, size_t size_bytes)
{
	struct mig_record record;

	memset(&err, 0, sizeof(err));
	return mig_record_decode(bytes, size_bytes, &record, &err);
}

Test(mig_record, round_trip_and_layout)
{
	struct mig_record record = sample();
	struct mig_record back;
	uint8_t bytes[MIG_RECORD_BYTES];

	cr_assert_eq(mig_record_check(&record, &err), 0, "%s", err.text);
	mig_record_encode(&record, bytes);
	cr_assert_eq(memcmp(bytes, "GWMR\1\0\1\1\10\0\0\0\0\0\0\0\2\0", 18), 0);
	cr_assert_eq(base_get_le64(bytes + 24), 7);
	cr_assert_str_eq((const char *)bytes + 32, "0123456789abcde");
	cr_assert_eq(base_get_le64(bytes + 48), 1700000000);
	cr_assert_str_eq((const char *)bytes + 56, "web-1");
	cr_assert_str_eq((const char *)bytes + 120, "10.0.0.2:7011");
	cr_assert_eq(mig_record_decode(bytes, sizeof(bytes), &back, &err), 0, "%s", err.text);
	cr_assert_eq(memcmp(&back, &record, sizeof(back)), 0);
}

Test(mig_record, every_bit_is_covered)
{
	struct mig_record record = sample();
	uint8_t bytes[MIG_RECORD_BYTES];

	mig_record_encode(&record, bytes);
	for (uint32_t i = 0; i < MIG_RECORD_BYTES * 8; i++) {
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		cr_assert_eq(decode(bytes, sizeof(bytes)), -EBADMSG, "bit %u", i);
		cr_assert_eq(err.code, -EBADMSG);
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	for (size_t size = 0; size < MIG_RECORD_BYTES; size++)
		cr_assert_eq(decode(bytes, size), -EBADMSG);
	cr_assert_eq(decode(bytes, MIG_RECORD_BYTES + 1), -EBADMSG);
}

/* With a checksum that fits: each byte on its own is known, or part of a value that may be so. */
Test(mig_record, what_was_accepted_is_canonical)
{
	struct mig_record record = sample();
	uint8_t bytes[MIG_RECORD_BYTES];
	uint8_t again[MIG_RECORD_BYTES];
	struct mig_record back;

	mig_record_encode(&record, bytes);
	for (uint32_t i = 0; i < MIG_RECORD_BYTES - 4; i++) {
		uint8_t old = bytes[i];

		for (uint32_t value = 0; value < 256; value++) {
			bytes[i] = (uint8_t)value;
			seal(bytes);
			if (mig_record_decode(bytes, sizeof(bytes), &back, &err) < 0)
				continue;
			cr_assert_eq(mig_record_check(&back, &err), 0, "%s", err.text);
			mig_record_encode(&back, again);
			cr_assert_eq(memcmp(bytes, again, sizeof(bytes)), 0, "byte %u", i);
		}
		bytes[i] = old;
	}
}

static void expect_bad(uint32_t offset, uint8_t value, const char *text)
{
	struct mig_record record = sample();
	uint8_t bytes[MIG_RECORD_BYTES];

	mig_record_encode(&record, bytes);
	bytes[offset] = value;
	seal(bytes);
	cr_assert_eq(decode(bytes, sizeof(bytes)), -EBADMSG, "%s", text);
	cr_assert_not_null(strstr(err.text, text), "'%s', not '%s'", err.text, text);
}

Test(mig_record, refusals_name_the_field)
{
	uint8_t bytes[MIG_RECORD_BYTES] = { 0 };

	expect_bad(4, 2, "version 2: expected 1");
	expect_bad(6, 0, "kind 0: expected 1 or 2");
	expect_bad(6, 3, "kind 3: expected 1 or 2");
	expect_bad(6, 2, "expected one that can come about"); /* a promise is not all here */
	expect_bad(7, 9, "expected one that can come about");
	expect_bad(16, 3, "expected one that can come about");
	expect_bad(17, 1, "reserved bytes");
	expect_bad(24, 0, "epoch 0: expected 1 to");
	expect_bad(376, 1, "reserved bytes");
	expect_bad(507, 1, "reserved bytes");
	expect_bad(56, '.', "name or other side");
	expect_bad(57, '/', "name or other side");
	expect_bad(119, 'x', "name or other side");
	expect_bad(120, 0, "name or other side");
	expect_bad(121, '\n', "name or other side");
	expect_bad(375, 'x', "name or other side");
	cr_assert_eq(decode(bytes, sizeof(bytes)), -EBADMSG, "zeros are no record");
	cr_assert_not_null(strstr(err.text, "magic"));
}

/* Every state with every register near: which ones there are is the table of section 2. */
Test(mig_record, which_records_there_can_be)
{
	static const char *const wanted[] = {
		"register coming 0 source",    "register all here 0 source",
		"register all here 1 source",  "register all here 1 destination",
		"register all here 2 source",  "register activating 1 destination",
		"register runs 1 destination", "register left 1 source",
		"register left 2 source",      "promise promised 0 source",
		"promise resolved 2 source",   "promise resolved 2 destination",
		"promise over 1 source",       "promise over 1 destination",
		"promise over 2 source",
	};
	struct mig_record record = sample();
	size_t count = 0;
	char text[128];

	for (uint32_t i = 0; i < 4u * MIG_HELD_STATES * 5u * 5u; i++) {
		record.kind = (enum mig_record_kind)(i % 4);
		record.state = (enum mig_record_state)(i / 4 % MIG_HELD_STATES);
		record.now.epoch = 6 + i / 4 / MIG_HELD_STATES % 5;
		record.now.owner = (enum mig_side)(i / 4 / MIG_HELD_STATES / 5);
		if (mig_record_check(&record, &err) < 0)
			continue;
		(void)snprintf(text, sizeof(text), "%s %s %d %s", mig_record_kind_name(record.kind),
			       mig_record_state_name(record.state), (int)(record.now.epoch - 7),
			       record.now.owner == MIG_SOURCE ? "source" : "destination");
		for (size_t j = 0; j < sizeof(wanted) / sizeof(wanted[0]); j++)
			if (strcmp(text, wanted[j]) == 0)
				text[0] = '\0';
		cr_assert_eq(text[0], '\0', "%s", text);
		count++;
	}
	cr_assert_eq(count, sizeof(wanted) / sizeof(wanted[0]));
}

Test(mig_record, check_refuses_what_an_agent_may_get_wrong)
{
	struct mig_record record = sample();

	record.name[0] = '.';
	cr_assert_eq(mig_record_check(&record, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "name '.eb-1'"));
	memset(record.name, 'a', sizeof(record.name));
	cr_assert_eq(mig_record_check(&record, &err), -EINVAL);
	record = sample();
	record.peer[0] = '\0';
	cr_assert_eq(mig_record_check(&record, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "other side"));
	memset(record.peer, 'a', sizeof(record.peer));
	cr_assert_eq(mig_record_check(&record, &err), -EINVAL);
	record = sample();
	record.from_epoch = MIG_EPOCH_MAX + 1;
	record.now.epoch = record.from_epoch + 1;
	cr_assert_eq(mig_record_check(&record, &err), -EINVAL);
	record.from_epoch = MIG_EPOCH_MAX;
	record.now.epoch = MIG_EPOCH_MAX + 1;
	cr_assert_eq(mig_record_check(&record, &err), 0, "%s", err.text);
	record.from_epoch = 0;
	record.now.epoch = 1;
	cr_assert_eq(mig_record_check(&record, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "epoch 0"));
}

Test(mig_record, doubt_is_where_the_other_side_may_have_been_asked)
{
	struct mig_record record = sample();

	cr_assert_not(mig_record_in_doubt(&record));
	cr_assert_not(mig_record_given_back(&record));
	record.now = (struct mig_register){ .epoch = 7, .owner = MIG_SOURCE };
	cr_assert(mig_record_in_doubt(&record));
	cr_assert_not(mig_record_given_back(&record));
	record.now.epoch = 8;
	cr_assert_not(mig_record_in_doubt(&record));
	cr_assert(mig_record_given_back(&record));
	record.kind = MIG_RECORD_PROMISE;
	record.state = MIG_HELD_PROMISED;
	record.now.epoch = 7;
	cr_assert(mig_record_in_doubt(&record));
	record.state = MIG_HELD_RESOLVED;
	record.now.epoch = 9;
	cr_assert_not(mig_record_in_doubt(&record));
	cr_assert_not(mig_record_given_back(&record));
}

Test(mig_record, names_of_what_is_not_there)
{
	cr_assert_str_eq(mig_record_kind_name(MIG_RECORD_KINDS), "invalid");
	cr_assert_str_eq(mig_record_kind_name(MIG_RECORD_INVALID), "invalid");
	cr_assert_str_eq(mig_record_state_name(MIG_HELD_STATES), "invalid");
	cr_assert_str_eq(mig_record_state_name(MIG_HELD_INVALID), "invalid");
}
