/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_ledger.h. */
#include "tests/guest/guest_ledger.h"

#define SEQUENCE_WORD 2

void guest_ledger_stamp(const struct guest_ledger *ledger, uint64_t index, uint64_t *to)
{
	guest_page_stamp(to, ledger->first_number + index, ledger->entries[index].issued + 1ULL,
			 ledger->content);
}

void guest_ledger_issued(struct guest_ledger *ledger, uint64_t index)
{
	ledger->entries[index].issued++;
}

void guest_ledger_acknowledged(struct guest_ledger *ledger, uint64_t index)
{
	struct guest_ledger_entry *entry = &ledger->entries[index];

	entry->acknowledged = entry->issued;
	entry->doubt = GUEST_LEDGER_SURE;
	entry->acknowledged_at = ++ledger->serial;
}

void guest_ledger_failed(struct guest_ledger *ledger, uint64_t index)
{
	ledger->entries[index].doubt = GUEST_LEDGER_BETWEEN;
}

void guest_ledger_flushed(struct guest_ledger *ledger, uint64_t from, uint64_t count,
			  uint64_t serial)
{
	for (uint64_t i = from; i < from + count; i++)
		if (ledger->entries[i].acknowledged_at <= serial)
			ledger->entries[i].flushed = ledger->entries[i].acknowledged;
}

/* From now on the record has @sequence. */
static void settle(struct guest_ledger_entry *entry, uint64_t sequence)
{
	entry->acknowledged = (uint32_t)sequence;
	if (entry->issued < entry->acknowledged)
		entry->issued = entry->acknowledged;
	entry->doubt = GUEST_LEDGER_SURE;
}

struct guest_page_verdict guest_ledger_check(struct guest_ledger *ledger, uint64_t index,
					     const uint64_t *record, uint64_t *ret_want)
{
	struct guest_ledger_entry *entry = &ledger->entries[index];
	uint64_t want = entry->acknowledged, found = record[SEQUENCE_WORD];
	struct guest_page_verdict verdict = { GUEST_PAGE_GOOD, want };

	*ret_want = want;
	if (entry->doubt == GUEST_LEDGER_ANY)
		return verdict;
	if (entry->doubt == GUEST_LEDGER_BETWEEN && found > want && found <= entry->issued)
		want = found;
	/* nothing was ever written here: zeros, which a check takes for sequence 0 */
	verdict = guest_page_check(record, ledger->first_number + index, want, ledger->content);
	if (want == 0 && verdict.kind == GUEST_PAGE_STALE && verdict.got == 0)
		verdict.kind = GUEST_PAGE_GOOD;
	if (verdict.kind == GUEST_PAGE_GOOD || verdict.kind == GUEST_PAGE_STALE ||
	    verdict.kind == GUEST_PAGE_AHEAD)
		settle(entry, verdict.kind == GUEST_PAGE_GOOD ? want : verdict.got);
	else
		entry->doubt = GUEST_LEDGER_ANY;
	return verdict;
}

struct guest_page_verdict guest_ledger_adopt(struct guest_ledger *ledger, uint64_t index,
					     const uint64_t *record)
{
	struct guest_ledger_entry *entry = &ledger->entries[index];
	uint64_t want;

	*entry = (struct guest_ledger_entry){ .doubt = GUEST_LEDGER_BETWEEN, .issued = UINT32_MAX };
	struct guest_page_verdict verdict = guest_ledger_check(ledger, index, record, &want);

	entry->issued = entry->acknowledged;
	entry->flushed = entry->acknowledged;
	return verdict;
}
