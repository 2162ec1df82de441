/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test page: see test_page.h.
 */
#include "hypervisor/test_page.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/hv_limits.h"

#define REGISTER_BYTES 8u
#define VALUE_COUNT    HV_TEST_PAGE_NONE_FIRST
#define COUNTED_COUNT  (HV_TEST_PAGE_NONE_FIRST - HV_TEST_PAGE_SEQUENCE_FIRST)
#define PAYLOAD_BYTES  (VALUE_COUNT * 8u + COUNTED_COUNT * 16u + 8u)

_Static_assert(HV_TEST_PAGE_REGISTERS == HV_PAGE_BYTES / REGISTER_BYTES, "registers fill the page");

struct hv_test_page {
	pthread_mutex_t lock;
	uint64_t values[VALUE_COUNT];
	struct hv_test_page_counts counts[COUNTED_COUNT]; /* of the sequence and count registers */
	uint64_t mismatch_count;
};

BASE_DEFINE_FREEP(struct hv_test_page, hv_test_page_free);

/* Accesses to sequence and count registers are counted. */
static bool is_counted(uint64_t reg)
{
	return reg >= HV_TEST_PAGE_SEQUENCE_FIRST && reg < HV_TEST_PAGE_NONE_FIRST;
}

static bool is_register_access(uint64_t offset, uint32_t size_bytes)
{
	return size_bytes == REGISTER_BYTES && offset % REGISTER_BYTES == 0;
}

static uint64_t page_read(void *device, uint64_t offset, uint32_t size_bytes)
{
	const uint64_t reg = offset / REGISTER_BYTES;
	struct hv_test_page *page = device;
	uint64_t earlier_count;

	if (!is_register_access(offset, size_bytes) || reg >= VALUE_COUNT)
		return UINT64_MAX;
	BASE_LOCKED(&page->lock);
	if (!is_counted(reg))
		return page->values[reg];
	earlier_count = page->counts[reg - HV_TEST_PAGE_SEQUENCE_FIRST].read_count++;
	return reg >= HV_TEST_PAGE_COUNT_FIRST ? earlier_count : page->values[reg];
}

static void page_write(void *device, uint64_t offset, uint32_t size_bytes, uint64_t value)
{
	const uint64_t reg = offset / REGISTER_BYTES;
	struct hv_test_page *page = device;

	if (!is_register_access(offset, size_bytes) || reg >= VALUE_COUNT)
		return;
	BASE_LOCKED(&page->lock);
	if (is_counted(reg)) {
		page->counts[reg - HV_TEST_PAGE_SEQUENCE_FIRST].write_count++;
		if (value != page->values[reg] + 1)
			page->mismatch_count++;
	}
	page->values[reg] = value; /* and on from there: one slip is one mismatch */
}

/* The port: 32 bits of the first sequence register and of the first count register. */
static uint64_t port_read(void *device, uint64_t offset, uint32_t size_bytes)
{
	struct hv_test_page *page = device;

	if (offset != 0 || size_bytes != HV_TEST_PAGE_PORT_BYTES)
		return UINT64_MAX;
	BASE_LOCKED(&page->lock);
	return page->counts[HV_TEST_PAGE_COUNT_FIRST - HV_TEST_PAGE_SEQUENCE_FIRST].read_count++ &
	       UINT32_MAX;
}

static void port_write(void *device, uint64_t offset, uint32_t size_bytes, uint64_t value)
{
	struct hv_test_page *page = device;
	uint64_t *sequence = &page->values[HV_TEST_PAGE_SEQUENCE_FIRST];

	if (offset != 0 || size_bytes != HV_TEST_PAGE_PORT_BYTES)
		return;
	BASE_LOCKED(&page->lock);
	page->counts[0].write_count++;
	if (value != ((*sequence + 1) & UINT32_MAX))
		page->mismatch_count++;
	*sequence = value;
}

static const struct hv_io_ops page_ops = { .read = page_read, .write = page_write };
static const struct hv_io_ops port_ops = { .read = port_read, .write = port_write };

int hv_test_page_new(struct hv_iobus *bus, struct hv_test_page **ret_page, struct base_error *err)
{
	BASE_CLEANUP(hv_test_page_freep) struct hv_test_page *page = calloc(1, sizeof(*page));
	struct hv_io_range range = { .space = HV_IO_MMIO,
				     .base = HV_GPA_TEST_PAGE,
				     .length = HV_PAGE_BYTES,
				     .ops = &page_ops,
				     .device = page };
	struct hv_io_range port = { .space = HV_IO_PORT,
				    .base = HV_TEST_PAGE_PORT,
				    .length = HV_TEST_PAGE_PORT_BYTES,
				    .ops = &port_ops,
				    .device = page };
	int rc;

	if (page == NULL)
		return base_fail(err, -ENOMEM, "test page, %zu bytes", sizeof(*page));
	(void)pthread_mutex_init(&page->lock, NULL);
	page->values[0] = HV_TEST_PAGE_ID;
	rc = hv_iobus_add(bus, &range, err);
	if (rc >= 0)
		rc = hv_iobus_add(bus, &port, err);
	if (rc < 0)
		return base_fail_within(err, rc, "test page");
	*ret_page = base_take(&page);
	return 0;
}

void hv_test_page_free(struct hv_test_page *page)
{
	if (page == NULL)
		return;
	(void)pthread_mutex_destroy(&page->lock);
	free(page);
}

void hv_test_page_reset(struct hv_test_page *page)
{
	BASE_LOCKED(&page->lock);
	memset(page->values + HV_TEST_PAGE_SEQUENCE_FIRST, 0,
	       COUNTED_COUNT * sizeof(page->values[0]));
	memset(page->counts, 0, sizeof(page->counts));
	page->mismatch_count = 0;
}

static int check_register(uint32_t reg, struct base_error *err)
{
	if (reg < VALUE_COUNT)
		return 0;
	return base_fail(err, -EINVAL, "test page: register %" PRIu32 " not in 0..%u", reg,
			 VALUE_COUNT - 1);
}

int hv_test_page_get(struct hv_test_page *page, uint32_t reg, uint64_t *ret_value,
		     struct base_error *err)
{
	int rc = check_register(reg, err);

	if (rc < 0)
		return rc;
	BASE_LOCKED(&page->lock);
	*ret_value = page->values[reg];
	return 0;
}

int hv_test_page_set(struct hv_test_page *page, uint32_t reg, uint64_t value,
		     struct base_error *err)
{
	int rc = check_register(reg, err);

	if (rc < 0)
		return rc;
	BASE_LOCKED(&page->lock);
	page->values[reg] = value;
	return 0;
}

uint64_t hv_test_page_mismatch_count(struct hv_test_page *page)
{
	BASE_LOCKED(&page->lock);
	return page->mismatch_count;
}

int hv_test_page_counts(struct hv_test_page *page, uint32_t reg,
			struct hv_test_page_counts *ret_counts, struct base_error *err)
{
	if (!is_counted(reg))
		return base_fail(err, -EINVAL,
				 "test page: register %" PRIu32 " is not counted (%u..%u are)", reg,
				 HV_TEST_PAGE_SEQUENCE_FIRST, HV_TEST_PAGE_NONE_FIRST - 1);
	BASE_LOCKED(&page->lock);
	*ret_counts = page->counts[reg - HV_TEST_PAGE_SEQUENCE_FIRST];
	return 0;
}

void hv_test_page_save(struct hv_test_page *page, struct base_buffer *out)
{
	BASE_LOCKED(&page->lock);
	for (size_t i = 0; i < VALUE_COUNT; i++)
		base_buffer_le64(out, page->values[i]);
	for (size_t i = 0; i < COUNTED_COUNT; i++) {
		base_buffer_le64(out, page->counts[i].read_count);
		base_buffer_le64(out, page->counts[i].write_count);
	}
	base_buffer_le64(out, page->mismatch_count);
}

int hv_test_page_load(struct hv_test_page *page, uint32_t version, struct base_reader *in,
		      struct base_error *err)
{
	if (version == 0)
		return base_fail(err, -EBADMSG, "section '%s': version 0", HV_TEST_PAGE_SECTION);
	if (version > HV_TEST_PAGE_VERSION)
		return base_fail(err, -ENOTSUP,
				 "section '%s': version %" PRIu32 ", this program knows up to %u",
				 HV_TEST_PAGE_SECTION, version, HV_TEST_PAGE_VERSION);
	if (base_reader_left(in) != PAYLOAD_BYTES)
		return base_fail(err, -EBADMSG, "section '%s': %zu bytes, wanted %u",
				 HV_TEST_PAGE_SECTION, base_reader_left(in), PAYLOAD_BYTES);

	/* Any value is possible, so the length was all there is to check. */
	BASE_LOCKED(&page->lock);
	for (size_t i = 0; i < VALUE_COUNT; i++)
		page->values[i] = base_read_le64(in);
	for (size_t i = 0; i < COUNTED_COUNT; i++) {
		page->counts[i].read_count = base_read_le64(in);
		page->counts[i].write_count = base_read_le64(in);
	}
	page->mismatch_count = base_read_le64(in);
	return 0;
}
