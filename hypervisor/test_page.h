/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test page: 4 KiB of memory-mapped registers through which a test guest tells
 * what it sees and is told what to do.  Made only when the configuration asks.
 *
 * 512 registers of 8 bytes at HV_GPA_TEST_PAGE:
 *
 *     0 - 319  shared    plain memory, set and read by guest and host; register 0 is
 *                        HV_TEST_PAGE_ID at the start, so that a guest can tell
 *                        that the page is there
 *   320 - 383  sequence  shared too, but each guest write must carry the value before
 *                        it + 1, or else it is counted as a mismatch
 *   384 - 447  count     guest writes as for sequence; each guest read gives the number
 *                        of guest reads before it
 *   448 - 511  none      reads give all ones, writes vanish
 *
 * So an access that is lost or done twice cannot hide in registers 320 to 447.
 *
 * Accesses of 8 aligned bytes only; others read as all ones and write nothing.
 *
 * Port HV_TEST_PAGE_PORT, 32 bits: a write goes on with the sequence of register 320, a read
 * with the count of register 384, so that port exits are proven as memory exits are.
 *
 * Any thread; one leaf lock.
 */
#ifndef HYPERVISOR_TEST_PAGE_H
#define HYPERVISOR_TEST_PAGE_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "hypervisor/iobus.h"

#define HV_TEST_PAGE_REGISTERS      512u
#define HV_TEST_PAGE_SEQUENCE_FIRST 320u
#define HV_TEST_PAGE_COUNT_FIRST    384u
#define HV_TEST_PAGE_NONE_FIRST     448u

#define HV_TEST_PAGE_PORT       0x5F0u
#define HV_TEST_PAGE_PORT_BYTES 4u

#define HV_TEST_PAGE_ID 0x3174736574646F67ULL /* the bytes "godtest1" */

/* The saved-state section. */
#define HV_TEST_PAGE_SECTION "test-page"
#define HV_TEST_PAGE_VERSION 1u

struct hv_test_page;

/* Make the page, all zero but for the ID, and claim its addresses.  @bus is borrowed.
 * -ENOMEM; the errors of hv_iobus_add(). */
BASE_MUST_CHECK int hv_test_page_new(struct hv_iobus *bus, struct hv_test_page **ret_page,
				     struct base_error *err);
/* After the bus is used no more.  NULL is fine. */
void hv_test_page_free(struct hv_test_page *page);

/* The machine was reset: sequences and counts begin anew, and so does the mismatch
 * count; shared registers stay, as memory does.  vCPUs are parked. */
void hv_test_page_reset(struct hv_test_page *page);

/* The value in a register: what was written or set last.  -EINVAL @reg above 447. */
BASE_MUST_CHECK int hv_test_page_get(struct hv_test_page *page, uint32_t reg, uint64_t *ret_value,
				     struct base_error *err);
/* Set a value; never a mismatch.  -EINVAL @reg above 447. */
BASE_MUST_CHECK int hv_test_page_set(struct hv_test_page *page, uint32_t reg, uint64_t value,
				     struct base_error *err);

/* Guest writes to sequence and count registers that did not carry the next value. */
uint64_t hv_test_page_mismatch_count(struct hv_test_page *page);

/* Guest accesses to one sequence or count register so far.  -EINVAL another register. */
struct hv_test_page_counts {
	uint64_t read_count;
	uint64_t write_count;
};
BASE_MUST_CHECK int hv_test_page_counts(struct hv_test_page *page, uint32_t reg,
					struct hv_test_page_counts *ret_counts,
					struct base_error *err);

/* Payload of the section: docs/hypervisor/saved-state-devices.md.  load checks all of
 * it before changing anything: -EBADMSG malformed, -ENOTSUP newer version. */
void hv_test_page_save(struct hv_test_page *page, struct base_buffer *out);
BASE_MUST_CHECK int hv_test_page_load(struct hv_test_page *page, uint32_t version,
				      struct base_reader *in, struct base_error *err);

#endif
