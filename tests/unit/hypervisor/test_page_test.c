/* SPDX-License-Identifier: Apache-2.0 */
/* The test page itself: it judges other tests, so it must not be wrong. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/hv_limits.h"
#include "hypervisor/test_page.h"

static struct hv_iobus *bus;
static struct hv_test_page *page;

static void set_up(void)
{
	cr_assert_eq(hv_iobus_new(&bus, NULL), 0);
	cr_assert_eq(hv_test_page_new(bus, &page, NULL), 0);
}

static void tear_down(void)
{
	hv_iobus_free(bus);
	hv_test_page_free(page);
}

static uint64_t guest_read(uint32_t reg)
{
	return hv_iobus_read(bus, HV_IO_MMIO, HV_GPA_TEST_PAGE + reg * 8, 8);
}

static void guest_write(uint32_t reg, uint64_t value)
{
	hv_iobus_write(bus, HV_IO_MMIO, HV_GPA_TEST_PAGE + reg * 8, 8, value);
}

static uint64_t host_get(uint32_t reg)
{
	uint64_t value = 0;

	cr_assert_eq(hv_test_page_get(page, reg, &value, NULL), 0);
	return value;
}

TestSuite(test_page, .init = set_up, .fini = tear_down);

Test(test_page, shared_registers_go_both_ways)
{
	cr_assert_eq(guest_read(0), HV_TEST_PAGE_ID);
	for (uint32_t reg = 0; reg < HV_TEST_PAGE_SEQUENCE_FIRST; reg++) {
		guest_write(reg, ~(uint64_t)reg);
		cr_assert_eq(host_get(reg), ~(uint64_t)reg);
		cr_assert_eq(hv_test_page_set(page, reg, reg * 3ULL, NULL), 0);
		cr_assert_eq(guest_read(reg), reg * 3ULL);
	}
	cr_assert_eq(hv_test_page_mismatch_count(page), 0);
}

Test(test_page, a_sequence_finds_lost_and_repeated_writes)
{
	struct hv_test_page_counts counts;

	for (uint32_t reg = HV_TEST_PAGE_SEQUENCE_FIRST; reg < HV_TEST_PAGE_NONE_FIRST; reg++)
		for (uint64_t value = 1; value <= 5; value++)
			guest_write(reg, value);
	cr_assert_eq(hv_test_page_mismatch_count(page), 0);
	guest_write(320, 5); /* done twice */
	cr_assert_eq(hv_test_page_mismatch_count(page), 1);
	guest_write(320, 6);
	guest_write(447, 7); /* one was lost */
	cr_assert_eq(hv_test_page_mismatch_count(page), 2);
	guest_write(447, 8);
	cr_assert_eq(hv_test_page_mismatch_count(page), 2);
	cr_assert_eq(host_get(447), 8);
	cr_assert_eq(guest_read(320), 6);
	cr_assert_eq(hv_test_page_counts(page, 447, &counts, NULL), 0);
	cr_assert_eq(counts.write_count, 7);
	cr_assert_eq(counts.read_count, 0);
}

Test(test_page, a_sequence_may_wrap)
{
	cr_assert_eq(hv_test_page_set(page, 330, UINT64_MAX, NULL), 0);
	guest_write(330, 0);
	cr_assert_eq(hv_test_page_mismatch_count(page), 0);
}

Test(test_page, counting_reads_count)
{
	struct hv_test_page_counts counts;

	for (uint32_t reg = HV_TEST_PAGE_COUNT_FIRST; reg < HV_TEST_PAGE_NONE_FIRST; reg++)
		for (uint64_t i = 0; i < 4; i++)
			cr_assert_eq(guest_read(reg), i);
	(void)host_get(400);
	cr_assert_eq(guest_read(400), 4, "the host's look is not counted");
	cr_assert_eq(hv_test_page_counts(page, 400, &counts, NULL), 0);
	cr_assert_eq(counts.read_count, 5);
	cr_assert_eq(counts.write_count, 0);
}

Test(test_page, other_accesses_do_nothing)
{
	for (uint32_t reg = HV_TEST_PAGE_NONE_FIRST; reg < HV_TEST_PAGE_REGISTERS; reg++) {
		guest_write(reg, 1);
		cr_assert_eq(guest_read(reg), UINT64_MAX);
	}
	for (uint32_t size = 1; size <= 8; size *= 2) {
		for (uint64_t offset = 0; offset < 4096; offset++) {
			if (size == 8 && offset % 8 == 0)
				continue;
			hv_iobus_write(bus, HV_IO_MMIO, HV_GPA_TEST_PAGE + offset, size, 1);
			cr_assert_eq(
				hv_iobus_read(bus, HV_IO_MMIO, HV_GPA_TEST_PAGE + offset, size),
				UINT64_MAX >> (64 - 8 * size));
		}
	}
	cr_assert_eq(hv_test_page_mismatch_count(page), 0);
	cr_assert_eq(guest_read(HV_TEST_PAGE_COUNT_FIRST), 0);
	cr_assert_eq(guest_read(1), 0);
}

Test(test_page, registers_that_are_not_there)
{
	struct hv_test_page_counts counts;
	struct base_error err = { 0 };
	uint64_t value;

	cr_assert_eq(hv_test_page_get(page, 448, &value, &err), -EINVAL);
	cr_assert_eq(hv_test_page_set(page, UINT32_MAX, 0, &err), -EINVAL);
	cr_assert_eq(hv_test_page_counts(page, 319, &counts, &err), -EINVAL);
	cr_assert_eq(hv_test_page_counts(page, 448, &counts, &err), -EINVAL);
}

Test(test_page, only_one_fits_on_a_bus)
{
	struct hv_test_page *second = NULL;

	cr_assert_eq(hv_test_page_new(bus, &second, NULL), -EEXIST);
	cr_assert_null(second);
}

Test(test_page, reset_begins_sequences_anew)
{
	guest_write(7, 7);
	guest_write(320, 1);
	guest_write(400, 3);
	(void)guest_read(400);
	hv_test_page_reset(page);
	cr_assert_eq(guest_read(0), HV_TEST_PAGE_ID);
	cr_assert_eq(guest_read(7), 7);
	cr_assert_eq(hv_test_page_mismatch_count(page), 0);
	cr_assert_eq(guest_read(400), 0);
	guest_write(320, 1);
	guest_write(400, 1);
	cr_assert_eq(hv_test_page_mismatch_count(page), 0);
}

Test(test_page, saved_state_goes_on_elsewhere)
{
	struct base_buffer first = { 0 };
	struct base_buffer second = { 0 };
	struct hv_iobus *other_bus;
	struct hv_test_page *other;
	struct base_reader in;

	for (uint32_t reg = 0; reg < HV_TEST_PAGE_REGISTERS; reg++) {
		guest_write(reg, reg + 1ULL);
		for (uint32_t i = 0; i < reg % 5; i++)
			(void)guest_read(reg);
	}
	hv_test_page_save(page, &first);
	cr_assert_eq(first.size_bytes, 5640);
	cr_assert_eq(hv_iobus_new(&other_bus, NULL), 0);
	cr_assert_eq(hv_test_page_new(other_bus, &other, NULL), 0);
	in = base_reader_over(first.data, first.size_bytes);
	cr_assert_eq(hv_test_page_load(other, HV_TEST_PAGE_VERSION, &in, NULL), 0);
	hv_test_page_save(other, &second);
	cr_assert_eq(second.size_bytes, first.size_bytes);
	cr_assert_arr_eq(second.data, first.data, first.size_bytes);
	cr_assert_eq(hv_test_page_mismatch_count(other), hv_test_page_mismatch_count(page));
	base_buffer_fini(&first);
	base_buffer_fini(&second);
	hv_iobus_free(other_bus);
	hv_test_page_free(other);
}

Test(test_page, bad_payloads_are_refused)
{
	static const size_t sizes[] = { 0, 1, 8, 5632, 5639, 5641, 6000 };
	uint8_t *bytes = calloc(1, 6000);
	struct base_reader in;

	cr_assert_not_null(bytes);
	memset(bytes, 0xEE, 6000);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		in = base_reader_over(bytes, sizes[i]);
		cr_assert_eq(hv_test_page_load(page, 1, &in, NULL), -EBADMSG);
	}
	in = base_reader_over(bytes, 5640);
	cr_assert_eq(hv_test_page_load(page, 0, &in, NULL), -EBADMSG);
	cr_assert_eq(hv_test_page_load(page, 2, &in, NULL), -ENOTSUP);
	cr_assert_eq(guest_read(0), HV_TEST_PAGE_ID);
	cr_assert_eq(guest_read(1), 0);
	cr_assert_eq(hv_test_page_load(page, 1, &in, NULL), 0);
	cr_assert_eq(guest_read(1), 0xEEEEEEEEEEEEEEEEULL);
	free(bytes);
}
