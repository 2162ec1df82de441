/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must be on a disk: for each record of 4 KiB the sequence that was written last, that was
 * acknowledged last, and that a flush has covered.  A record is a stamped page (guest_page.h)
 * whose number tells LUN and place.  Pure; compiles for the guest and the host.
 *
 * After a write that failed, or whose channel was closed over it, the record is one of
 * acknowledged .. issued until it is read.
 */
#ifndef GUEST_LEDGER_H
#define GUEST_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/guest/guest_page.h"

#define GUEST_RECORD_BYTES GUEST_PAGE_BYTES

/* In guest memory, little-endian, for a host side test to read: testpage.h, DISK_LEDGER. */
struct guest_ledger_entry {
	uint32_t acknowledged, issued, flushed, doubt;
	uint64_t acknowledged_at; /* serial number of the acknowledgement */
};

enum guest_ledger_doubt {
	GUEST_LEDGER_SURE = 0,
	GUEST_LEDGER_BETWEEN, /* acknowledged .. issued */
	GUEST_LEDGER_ANY      /* found to be wrong, reported: anything until it is written anew */
};

struct guest_ledger {
	struct guest_ledger_entry *entries;
	uint64_t first_number; /* of entry 0 */
	uint64_t serial;       /* acknowledgements so far */
	enum guest_content content;
};

/** guest_ledger_stamp - make the next state of record @index in @to (not issued yet). */
void guest_ledger_stamp(const struct guest_ledger *ledger, uint64_t index, uint64_t *to);
void guest_ledger_issued(struct guest_ledger *ledger, uint64_t index);
void guest_ledger_acknowledged(struct guest_ledger *ledger, uint64_t index);
void guest_ledger_failed(struct guest_ledger *ledger, uint64_t index);

/** guest_ledger_flushed - a flush that was sent at @serial has succeeded. */
void guest_ledger_flushed(struct guest_ledger *ledger, uint64_t from, uint64_t count,
			  uint64_t serial);

/**
 * guest_ledger_check - what was read of record @index, against what must be there; it is
 * settled by that.
 * @ret_want: for the report.
 */
struct guest_page_verdict guest_ledger_check(struct guest_ledger *ledger, uint64_t index,
					     const uint64_t *record, uint64_t *ret_want);

/** guest_ledger_adopt - the first look: any whole record of this place, or zeros, is right. */
struct guest_page_verdict guest_ledger_adopt(struct guest_ledger *ledger, uint64_t index,
					     const uint64_t *record);

#endif
