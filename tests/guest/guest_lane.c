/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_lane.h. */
#include "tests/guest/guest_lane.h"

#include "tests/guest/guest_call.h"
#include "tests/guest/guest_hv.h"
#include "tests/guest/guest_ic.h"
#include "tests/guest/guest_scsi.h"

#define TRIES         4 /* to find a place where nothing is in flight */
#define KEY_ATTENTION 6
#define ID_SHIFT      8
#define SUB_BITS      4

uint32_t guest_latency_bucket(uint64_t ns)
{
	uint32_t power, bucket;

	if (ns < 1u << SUB_BITS)
		return (uint32_t)ns;
	power = 63 - (uint32_t)__builtin_clzll(ns);
	bucket = (power - SUB_BITS + 1) << SUB_BITS |
		 (uint32_t)((ns >> (power - SUB_BITS)) & ((1u << SUB_BITS) - 1));
	return bucket < GUEST_LATENCY_BUCKETS ? bucket : GUEST_LATENCY_BUCKETS - 1;
}

uint64_t guest_latency_ns(uint32_t bucket)
{
	uint32_t power = bucket >> SUB_BITS, part = bucket & ((1u << SUB_BITS) - 1);

	if (power == 0)
		return bucket;
	return (uint64_t)((1u << SUB_BITS) + part) << (power - 1);
}

void guest_lane_channel(struct guest_lane *lane, struct guest_channel *channel)
{
	lane->channel = channel;
	lane->abandoned_below = 0;
}

void guest_lane_set(struct guest_lane *lane, enum guest_lane_mode mode)
{
	lane->cursor = 0;
	__atomic_store_n(&lane->mode, mode, __ATOMIC_RELEASE);
}

enum guest_lane_mode guest_lane_mode(const struct guest_lane *lane)
{
	return (enum guest_lane_mode)__atomic_load_n(&lane->mode, __ATOMIC_ACQUIRE);
}

void guest_lane_bench(struct guest_lane *lane, const struct guest_lane_bench *bench)
{
	lane->bench = *bench;
	if (lane->bench.depth > lane->depth)
		lane->bench.depth = lane->depth;
	lane->bench_ops = 0;
	lane->bench_max = 0;
	for (uint64_t i = 0; i < lane->count; i++) /* the records are lost */
		if (bench->mode == GUEST_DISK_WRITE || bench->mode == GUEST_DISK_RANDWRITE)
			lane->own.entries[lane->first + i].doubt = GUEST_LEDGER_ANY;
	__builtin_memset(lane->latencies, 0, sizeof(lane->latencies));
	lane->bench_from = guest_tsc();
	lane->bench_done_tsc = lane->bench_from;
	lane->bench_end = lane->bench_from + bench->time_ms * guest_tsc_khz;
	guest_lane_set(lane, GUEST_LANE_BENCH);
}

static uint64_t next_random(struct guest_lane *lane)
{
	return testpage_mix(++lane->random);
}

static bool is_free(const struct guest_lane *lane, uint64_t block, uint32_t blocks)
{
	for (uint32_t i = 0; i < lane->depth; i++) {
		const struct guest_slot *slot = &lane->slots[i];

		if (slot->busy && slot->blocks != 0 && block < slot->block + slot->blocks &&
		    slot->block < block + blocks)
			return false;
	}
	return true;
}

static bool submit(const struct guest_worker *w, struct guest_lane *lane, struct guest_slot *slot)
{
	struct guest_scsi_request request = {
		.op = (enum guest_scsi_op)slot->op,
		.lun = lane->lun,
		.lba = lane->lba_first + slot->block * lane->lba_per_record,
		.lba_count = slot->blocks * lane->lba_per_record,
		.data = slot->buffer,
		.data_bytes = slot->blocks * GUEST_RECORD_BYTES,
		.trans_id = (lane->next_id + 1) << ID_SHIFT | slot->index,
	};

	if (!guest_scsi_send(lane->channel, &request))
		return false;
	lane->next_id++;
	slot->id = request.trans_id;
	slot->since = w->active_tsc;
	slot->from = guest_tsc();
	slot->reported = false;
	slot->busy = true;
	lane->busy++;
	return true;
}

/* A whole number of records that lie within the slice and are not in flight. */
static bool pick(struct guest_lane *lane, struct guest_slot *slot)
{
	uint64_t most = guest_options.disk_io_bytes / GUEST_RECORD_BYTES;

	for (unsigned int i = 0; i < TRIES; i++) {
		slot->blocks = (uint32_t)(1 + next_random(lane) % most);
		if (slot->blocks > lane->count)
			slot->blocks = (uint32_t)lane->count;
		slot->block = lane->first + next_random(lane) % (lane->count - slot->blocks + 1);
		if (is_free(lane, slot->block, slot->blocks))
			return true;
	}
	return false;
}

static bool next_load(const struct guest_worker *w, struct guest_lane *lane,
		      struct guest_slot *slot)
{
	uint64_t *records = (uint64_t *)(void *)slot->buffer;

	if (guest_options.disk_flush != 0 && lane->writes_since_flush >= guest_options.disk_flush) {
		slot->op = GUEST_SCSI_FLUSH;
		slot->block = 0;
		slot->blocks = 0;
		slot->serial = lane->own.serial;
		if (!submit(w, lane, slot))
			return false;
		lane->writes_since_flush = 0;
		return true;
	}
	if (guest_ic_is_frozen() || !pick(lane, slot))
		return false;
	slot->op = next_random(lane) % 100 < guest_options.disk_reads ? GUEST_SCSI_READ
								      : GUEST_SCSI_WRITE;
	if (slot->op == GUEST_SCSI_WRITE)
		for (uint32_t i = 0; i < slot->blocks; i++)
			guest_ledger_stamp(&lane->own, slot->block + i,
					   records + (uint64_t)i * GUEST_PAGE_WORDS);
	if (!submit(w, lane, slot))
		return false;
	if (slot->op == GUEST_SCSI_WRITE) {
		for (uint32_t i = 0; i < slot->blocks; i++)
			guest_ledger_issued(&lane->own, slot->block + i);
		lane->writes_since_flush++;
	}
	return true;
}

/* The next stretch of the slice, for ADOPT and VERIFY. */
static bool next_scan(const struct guest_worker *w, struct guest_lane *lane,
		      struct guest_slot *slot)
{
	uint64_t most = guest_options.disk_io_bytes / GUEST_RECORD_BYTES;
	uint64_t left = lane->count - lane->cursor;

	if (left == 0)
		return false;
	slot->op = GUEST_SCSI_READ;
	slot->block = lane->first + lane->cursor;
	slot->blocks = (uint32_t)(left < most ? left : most);
	/* what was never written must not be found in an old buffer */
	__builtin_memset(slot->buffer, 0x5a, slot->blocks * GUEST_RECORD_BYTES);
	if (!submit(w, lane, slot))
		return false;
	lane->cursor += slot->blocks;
	return true;
}

static bool next_bench(const struct guest_worker *w, struct guest_lane *lane,
		       struct guest_slot *slot)
{
	enum guest_disk_mode mode = lane->bench.mode;
	uint64_t places = lane->count / lane->bench.blocks;
	bool random = mode == GUEST_DISK_RANDREAD || mode == GUEST_DISK_RANDWRITE;
	bool write = mode == GUEST_DISK_WRITE || mode == GUEST_DISK_RANDWRITE;
	uint64_t place = (random ? next_random(lane) : lane->cursor++) % places;

	if (guest_tsc() >= lane->bench_end)
		return false;
	slot->op = write ? GUEST_SCSI_WRITE : GUEST_SCSI_READ;
	slot->block = lane->first + place * lane->bench.blocks;
	slot->blocks = lane->bench.blocks;
	return submit(w, lane, slot);
}

static bool next(const struct guest_worker *w, struct guest_lane *lane, struct guest_slot *slot)
{
	switch (guest_lane_mode(lane)) {
	case GUEST_LANE_ADOPT:
	case GUEST_LANE_VERIFY:
		return next_scan(w, lane, slot);
	case GUEST_LANE_LOAD:
		return next_load(w, lane, slot);
	case GUEST_LANE_BENCH:
		return next_bench(w, lane, slot);
	case GUEST_LANE_OFF:
	case GUEST_LANE_STOPPING:
	case GUEST_LANE_STOPPED:
	default:
		return false;
	}
}

/* Nothing is in flight any more: what comes after this mode? */
static void settle(struct guest_lane *lane)
{
	switch (guest_lane_mode(lane)) {
	case GUEST_LANE_ADOPT:
		if (lane->cursor == lane->count)
			guest_lane_set(lane, GUEST_LANE_LOAD);
		break;
	case GUEST_LANE_VERIFY:
		if (lane->cursor == lane->count)
			guest_lane_set(lane, GUEST_LANE_STOPPED);
		break;
	case GUEST_LANE_BENCH:
		if (guest_tsc() >= lane->bench_end)
			guest_lane_set(lane, GUEST_LANE_STOPPED);
		break;
	case GUEST_LANE_STOPPING:
		guest_lane_set(lane, GUEST_LANE_STOPPED);
		break;
	case GUEST_LANE_OFF:
	case GUEST_LANE_LOAD:
	case GUEST_LANE_STOPPED:
	default:
		break;
	}
}

static void watch(struct guest_worker *w, struct guest_lane *lane, struct guest_slot *slot)
{
	uint64_t want_got[2] = { slot->id, slot->op };

	if (!slot->busy || slot->reported || !guest_hv_stalled(w, slot->since))
		return;
	slot->reported = true;
	guest_work_bad(w, "record=", slot->block, want_got, "stalled");
	lane->errors++;
}

void guest_lane_poll(struct guest_worker *w, struct guest_lane *lane)
{
	enum guest_lane_mode mode = guest_lane_mode(lane);
	uint32_t depth = mode == GUEST_LANE_BENCH ? lane->bench.depth : lane->depth;

	if (mode == GUEST_LANE_OFF || mode == GUEST_LANE_STOPPED)
		return;
	for (uint32_t i = 0; i < lane->depth; i++) {
		if (lane->slots[i].busy)
			watch(w, lane, &lane->slots[i]);
		else if (lane->busy < depth && !next(w, lane, &lane->slots[i]))
			break;
	}
	if (lane->busy == 0)
		settle(lane);
}

static void check_records(struct guest_worker *w, struct guest_lane *lane,
			  const struct guest_slot *slot)
{
	bool adopt = guest_lane_mode(lane) == GUEST_LANE_ADOPT;
	const uint64_t *record = (const uint64_t *)(const void *)slot->buffer;

	for (uint32_t i = 0; i < slot->blocks; i++, record += GUEST_PAGE_WORDS) {
		uint64_t index = slot->block + i, want = 0;
		struct guest_page_verdict verdict =
			adopt ? guest_ledger_adopt(&lane->own, index, record)
			      : guest_ledger_check(&lane->own, index, record, &want);
		uint64_t want_got[2] = { want, verdict.got };

		if (verdict.kind != GUEST_PAGE_GOOD)
			guest_work_bad(w, "record=", index, want_got,
				       guest_page_kind_names[verdict.kind]);
		else if (adopt && lane->own.entries[index].acknowledged != 0)
			lane->found++;
	}
}

static void measure(struct guest_lane *lane, const struct guest_slot *slot)
{
	uint64_t now = guest_tsc();
	uint64_t ns = (now - slot->from) * 1000000 / guest_tsc_khz;

	lane->bench_ops++;
	lane->bench_done_tsc = now;
	lane->latencies[guest_latency_bucket(ns)]++;
	if (ns > lane->bench_max)
		lane->bench_max = ns;
}

static void good(struct guest_worker *w, struct guest_lane *lane, const struct guest_slot *slot)
{
	bool bench = guest_lane_mode(lane) == GUEST_LANE_BENCH;

	if (bench)
		measure(lane, slot);
	if (slot->op == GUEST_SCSI_FLUSH) {
		lane->flushes++;
		guest_ledger_flushed(&lane->own, lane->first, lane->count, slot->serial);
	} else if (slot->op == GUEST_SCSI_WRITE) {
		lane->writes++;
		for (uint32_t i = 0; i < slot->blocks && !bench; i++)
			guest_ledger_acknowledged(&lane->own, slot->block + i);
	} else {
		lane->reads++;
		if (!bench)
			check_records(w, lane, slot);
	}
}

static void failed(struct guest_worker *w, struct guest_lane *lane, const struct guest_slot *slot,
		   const struct guest_scsi_answer *answer)
{
	uint64_t want_got[2] = { slot->op, (uint64_t)answer->srb_status << 16 |
						   (uint64_t)answer->scsi_status << 8 |
						   answer->sense_key };

	if (slot->op == GUEST_SCSI_WRITE && guest_lane_mode(lane) != GUEST_LANE_BENCH)
		for (uint32_t i = 0; i < slot->blocks; i++)
			guest_ledger_failed(&lane->own, slot->block + i);
	if ((guest_lane_mode(lane) == GUEST_LANE_VERIFY ||
	     guest_lane_mode(lane) == GUEST_LANE_ADOPT) &&
	    slot->block - lane->first < lane->cursor)
		lane->cursor = slot->block - lane->first; /* once more from here */
	if (answer->sense_key == KEY_ATTENTION) { /* news, and the command was not carried out */
		lane->attentions++;
		return;
	}
	lane->errors++;
	guest_work_bad(w, "record=", slot->block, want_got, "error");
}

void guest_lane_packet(struct guest_worker *w, struct guest_lane *lane,
		       const struct guest_packet *packet)
{
	uint32_t index = (uint32_t)(packet->trans_id & ((1u << ID_SHIFT) - 1));
	struct guest_slot *slot = &lane->slots[index];
	struct guest_scsi_answer answer;

	if (packet->type == GUEST_PACKET_INBAND && packet->trans_id == 0)
		return; /* the host says: look at the bus anew */
	if (packet->trans_id >> ID_SHIFT < lane->abandoned_below)
		return;
	if (index >= lane->depth || !slot->busy || slot->id != packet->trans_id) {
		uint64_t want_got[2] = { index < lane->depth ? slot->id : 0, packet->trans_id };

		guest_work_bad(w, "completion=", packet->trans_id, want_got, "double");
		return;
	}
	answer = guest_scsi_answer(packet);
	slot->busy = false;
	lane->busy--;
	if (answer.good && answer.moved_bytes == slot->blocks * GUEST_RECORD_BYTES)
		good(w, lane, slot);
	else
		failed(w, lane, slot, &answer);
}

void guest_lane_abandon(struct guest_lane *lane)
{
	for (uint32_t i = 0; i < lane->depth; i++) {
		struct guest_slot *slot = &lane->slots[i];

		if (!slot->busy)
			continue;
		slot->busy = false;
		for (uint32_t k = 0; slot->op == GUEST_SCSI_WRITE && k < slot->blocks; k++)
			guest_ledger_failed(&lane->own, slot->block + k);
	}
	lane->busy = 0;
	lane->abandoned_below = lane->next_id + 1;
	guest_lane_set(lane, GUEST_LANE_STOPPED);
}
