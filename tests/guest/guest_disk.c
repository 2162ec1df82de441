/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_disk.h. */
#include "tests/guest/guest_disk.h"

#include <stddef.h>

#include "tests/guest/guest_bytes.h"
#include "tests/guest/guest_call.h"
#include "tests/guest/guest_hv.h"
#include "tests/guest/guest_lane.h"
#include "tests/guest/guest_print.h"
#include "tests/guest/guest_region.h"
#include "tests/guest/guest_scsi.h"

#define STEP_ID_BASE   0xffffffff00000000 /* transactions of the steps: no lane has such ids */
#define VERSION_WIN8   0x0600
#define STEP_TRIES     10
#define PROBE_BYTES    4096
#define PAGE           4096
#define KEY_ATTENTION  6
#define MULTI_CHANNEL  1
#define SUBS_MAX       (GUEST_LANES_MAX - 1)
#define INQUIRY_ABSENT 0x7f
#define NUMBER_SHIFT   48
#define IO_BYTES_MAX   (1u << 20)
#define HARD           1 /* REOPEN: over what is in flight */

enum step {
	STEP_NONE = 0, /* no controller, or its channel is not open */
	STEP_BEGIN,
	STEP_VERSION,
	STEP_PROPERTIES,
	STEP_END,
	STEP_SUBS,
	STEP_WAIT_SUBS, /* until they have been offered and are open */
	STEP_LUNS,
	STEP_INQUIRY,
	STEP_READY_UNIT,
	STEP_CAPACITY,
	STEP_RUNNING,
	STEP_CLOSING
};

static struct {
	struct guest_channel *primary;
	enum step step;
	bool asked; /* the step's question is out */
	uint32_t tries;
	uint64_t asked_at, serial; /* active_tsc; of the opening of the primary */
	uint64_t transaction;
	uint32_t sub_max, sub_count, transfer_max, lun_count;
	bool multi;
	uint8_t *probe;
	uint64_t lun_bytes;
	uint32_t block_bytes;
	uint64_t records;
	uint32_t lane_count, lanes_max;
	struct guest_ledger_entry *entries;
	bool said_running, measuring;
	struct guest_lane_bench bench;
} disk;

static struct guest_lane lanes[GUEST_LANES_MAX];

static uint32_t lanes_max(void)
{
	uint64_t most = guest_options.disk_channels;

	if (most == 0 || most > guest_vcpu_count)
		most = guest_vcpu_count;
	return most < GUEST_LANES_MAX ? (uint32_t)most : GUEST_LANES_MAX;
}

/* More than the whole depth is spread over the lanes: each has at least one. */
static uint64_t slots_max(void)
{
	return guest_options.disk_depth + GUEST_LANES_MAX;
}

uint64_t guest_disk_pool_bytes(void)
{
	uint64_t records = guest_options.disk_bytes / GUEST_RECORD_BYTES;

	if (guest_options.disk_io_bytes < GUEST_RECORD_BYTES ||
	    guest_options.disk_io_bytes > IO_BYTES_MAX ||
	    guest_options.disk_io_bytes % GUEST_RECORD_BYTES != 0)
		guest_die("disk_io= is not a multiple of 4K up to 1M", "");
	if (guest_options.disk_depth == 0 || guest_options.disk_depth > GUEST_SLOTS_MAX)
		guest_die("disk_depth= is not 1 to 256", "");
	return records * sizeof(struct guest_ledger_entry) + PROBE_BYTES + PAGE +
	       slots_max() * (guest_options.disk_io_bytes + PAGE);
}

bool guest_disk_wants(const struct guest_channel *channel)
{
	if (guest_options.disk == GUEST_DISK_NONE)
		return false;
	if (disk.primary == NULL && channel->sub_index == 0)
		disk.primary = &guest_bus.channels[channel - guest_bus.channels];
	return disk.primary != NULL &&
	       __builtin_memcmp(disk.primary->instance, channel->instance, 16) == 0;
}

static bool is_lane(uint64_t vcpu)
{
	return vcpu < GUEST_LANES_MAX && guest_lane_mode(&lanes[vcpu]) != GUEST_LANE_OFF;
}

static void scsi_step(enum guest_scsi_op op, uint32_t data_bytes)
{
	struct guest_scsi_request request = { .op = op,
					      .lun = (uint8_t)guest_options.disk_lun,
					      .data = disk.probe,
					      .data_bytes = data_bytes,
					      .trans_id = disk.transaction };

	__builtin_memset(disk.probe, 0, PROBE_BYTES);
	disk.asked = guest_scsi_send(disk.primary, &request);
}

static void control_step(enum guest_vstor op, uint16_t value)
{
	disk.asked = guest_scsi_send_control(disk.primary, op, value, disk.transaction);
}

static void ask(const struct guest_worker *w)
{
	disk.transaction = STEP_ID_BASE | (disk.transaction + 1);
	disk.asked_at = w->active_tsc;
	switch (disk.step) {
	case STEP_BEGIN:
		control_step(GUEST_VSTOR_BEGIN, 0);
		break;
	case STEP_VERSION:
		control_step(GUEST_VSTOR_VERSION, VERSION_WIN8);
		break;
	case STEP_PROPERTIES:
		control_step(GUEST_VSTOR_PROPERTIES, 0);
		break;
	case STEP_END:
		control_step(GUEST_VSTOR_END, 0);
		break;
	case STEP_SUBS:
		control_step(GUEST_VSTOR_SUB_CHANNELS, (uint16_t)disk.sub_count);
		break;
	case STEP_LUNS:
		scsi_step(GUEST_SCSI_LUNS, PROBE_BYTES);
		break;
	case STEP_INQUIRY:
		scsi_step(GUEST_SCSI_INQUIRY, 36);
		break;
	case STEP_READY_UNIT:
		scsi_step(GUEST_SCSI_TEST_READY, 0);
		break;
	case STEP_CAPACITY:
		scsi_step(GUEST_SCSI_CAPACITY, 32);
		break;
	case STEP_NONE:
	case STEP_WAIT_SUBS:
	case STEP_RUNNING:
	case STEP_CLOSING:
	default:
		break;
	}
}

static void step_to(enum step step)
{
	disk.step = step;
	disk.asked = false;
	disk.tries = 0;
}

static uint32_t open_subs(void)
{
	uint32_t count = 0;

	for (unsigned int i = 0; i < GUEST_CHANNELS_MAX; i++) {
		const struct guest_channel *channel = &guest_bus.channels[i];

		if (channel->class == GUEST_CLASS_SCSI && channel->sub_index != 0 &&
		    channel->state == GUEST_CHANNEL_OPEN && guest_disk_wants(channel))
			count++;
	}
	return count;
}

static struct guest_channel *channel_of_lane(uint32_t lane)
{
	for (unsigned int i = 0; i < GUEST_CHANNELS_MAX; i++) {
		struct guest_channel *channel = &guest_bus.channels[i];

		if (channel->class == GUEST_CLASS_SCSI && channel->sub_index == lane &&
		    channel->state == GUEST_CHANNEL_OPEN && guest_disk_wants(channel))
			return channel;
	}
	guest_die("a sub-channel has no index of its own", "");
}

static void prepare_lane(uint32_t i)
{
	struct guest_lane *lane = &lanes[i];
	uint64_t n = disk.lane_count, depth = guest_options.disk_depth;
	uint64_t place = guest_options.disk_offset_bytes / GUEST_RECORD_BYTES;

	lane->depth = (uint32_t)(depth * (i + 1) / n - depth * i / n);
	if (lane->depth == 0)
		lane->depth = 1;
	lane->first = disk.records * i / n;
	lane->count = disk.records * (i + 1) / n - lane->first;
	lane->lun = (uint8_t)guest_options.disk_lun;
	lane->lba_per_record = GUEST_RECORD_BYTES / disk.block_bytes;
	lane->lba_first = guest_options.disk_offset_bytes / disk.block_bytes;
	lane->random = guest_options.disk_seed << 32 | (uint64_t)i << 56;
	lane->own.entries = disk.entries;
	lane->own.content = (enum guest_content)guest_options.content;
	lane->own.first_number = (guest_options.disk_lun + 1) << NUMBER_SHIFT | place;
	for (uint32_t k = 0; k < lane->depth; k++) {
		uint8_t *at = guest_region_take(guest_options.disk_io_bytes + PAGE);

		/* most lie across page borders, at any sector's place in a page */
		lane->slots[k].buffer = at + (guest_options.disk == GUEST_DISK_STAMP
						      ? k % 8 * disk.block_bytes % PAGE
						      : 0);
		lane->slots[k].index = (uint8_t)k;
	}
}

/* Each lane's vCPU takes it from there: the mode is stored last. */
static void start_lanes(void)
{
	bool first = disk.lane_count == 0;

	if (first) {
		disk.records = guest_options.disk_bytes / GUEST_RECORD_BYTES;
		disk.lane_count = disk.sub_count + 1;
		if (disk.records <
		    disk.lane_count * guest_options.disk_io_bytes / GUEST_RECORD_BYTES)
			guest_die("disk_bytes= is too small for the lanes", "");
		for (uint32_t i = 0; i < disk.lane_count; i++)
			prepare_lane(i);
	}
	for (uint32_t i = 0; i < disk.lane_count; i++) {
		guest_lane_channel(&lanes[i], channel_of_lane(i));
		if (guest_options.disk == GUEST_DISK_STAMP)
			guest_lane_set(&lanes[i], first ? GUEST_LANE_ADOPT : GUEST_LANE_STOPPED);
		else if (first)
			guest_lane_bench(&lanes[i], &disk.bench);
	}
	step_to(STEP_RUNNING);
}

static void print_disk(void)
{
	struct guest_line line = { .used = 0 };

	guest_line_number(&line, "guest: disk lun=", guest_options.disk_lun);
	guest_line_number(&line, " of=", disk.lun_count);
	guest_line_number(&line, " bytes=", disk.lun_bytes);
	guest_line_number(&line, " block=", disk.block_bytes);
	guest_line_number(&line, " lanes=", disk.sub_count + 1);
	guest_line_send(&line);
}

static void capacity(void)
{
	disk.block_bytes = guest_get_be32(disk.probe + 8);
	disk.lun_bytes = (guest_get_be64(disk.probe) + 1) * disk.block_bytes;
	if (disk.block_bytes == 0 || GUEST_RECORD_BYTES % disk.block_bytes != 0 ||
	    disk.lun_bytes < guest_options.disk_offset_bytes ||
	    disk.lun_bytes - guest_options.disk_offset_bytes < guest_options.disk_bytes)
		guest_die("the disk is too small for disk_offset= and disk_bytes=", "");
	print_disk();
	start_lanes();
}

static void properties(const uint8_t *answer)
{
	disk.sub_max = guest_get16(answer + 12 + 4);
	disk.multi = (guest_get32(answer + 12 + 8) & MULTI_CHANNEL) != 0;
	disk.transfer_max = guest_get32(answer + 12 + 12);
	disk.sub_count = lanes_max() - 1;
	if (!disk.multi || disk.sub_max < disk.sub_count)
		disk.sub_count = disk.multi ? disk.sub_max : 0;
	if (disk.transfer_max < guest_options.disk_io_bytes)
		guest_die("disk_io= is more than the controller takes", "");
}

static void luns(void)
{
	bool found = false;

	disk.lun_count = guest_get_be32(disk.probe) / 8;
	for (uint32_t i = 0; i < disk.lun_count && 8 + i * 8 < PROBE_BYTES; i++)
		found |= disk.probe[8 + i * 8 + 1] == guest_options.disk_lun;
	if (!found)
		guest_die("the controller does not report disk_lun=", "");
}

/* The answer to the step's question is good. */
static void step_done(const struct guest_packet *packet)
{
	switch (disk.step) {
	case STEP_BEGIN:
		step_to(STEP_VERSION);
		break;
	case STEP_VERSION:
		step_to(STEP_PROPERTIES);
		break;
	case STEP_PROPERTIES:
		properties(packet->payload);
		step_to(STEP_END);
		break;
	case STEP_END:
		step_to(disk.sub_count != 0 ? STEP_SUBS : STEP_LUNS);
		break;
	case STEP_SUBS:
		step_to(STEP_WAIT_SUBS);
		break;
	case STEP_LUNS:
		luns();
		step_to(STEP_INQUIRY);
		break;
	case STEP_INQUIRY:
		if (disk.probe[0] == INQUIRY_ABSENT)
			guest_die("INQUIRY says that there is nothing at disk_lun=", "");
		step_to(STEP_READY_UNIT);
		break;
	case STEP_READY_UNIT:
		step_to(STEP_CAPACITY);
		break;
	case STEP_CAPACITY:
		capacity();
		break;
	case STEP_NONE:
	case STEP_WAIT_SUBS:
	case STEP_RUNNING:
	case STEP_CLOSING:
	default:
		break;
	}
}

static bool is_scsi_step(void)
{
	return disk.step >= STEP_LUNS && disk.step <= STEP_CAPACITY;
}

static void step_answer(struct guest_worker *w, const struct guest_packet *packet)
{
	struct guest_scsi_answer answer = guest_scsi_answer(packet);
	uint64_t want_got[2] = { 0, (uint64_t)answer.status };

	if (packet->trans_id != disk.transaction || !disk.asked) {
		guest_work_bad(w, "completion=", packet->trans_id, want_got, "double");
		return;
	}
	if (is_scsi_step() ? answer.good : answer.status == 0) {
		step_done(packet);
		return;
	}
	disk.asked = false; /* once more: a unit attention, most likely */
	if (answer.sense_key != KEY_ATTENTION || ++disk.tries == STEP_TRIES) {
		want_got[1] = (uint64_t)answer.srb_status << 16 |
			      (uint64_t)answer.scsi_status << 8 | answer.sense_key;
		guest_work_bad(w, "step=", disk.step, want_got, "error");
		guest_die("the disk does not come up", "");
	}
}

void guest_disk_packet(struct guest_worker *w, struct guest_channel *channel,
		       const struct guest_packet *packet)
{
	if ((packet->trans_id & STEP_ID_BASE) == STEP_ID_BASE && channel == disk.primary)
		step_answer(w, packet);
	else if (is_lane(w->vcpu) && lanes[w->vcpu].channel == channel)
		guest_lane_packet(w, &lanes[w->vcpu], packet);
}

/* vCPU 0: the first load has begun on all lanes, or a measurement has ended on all. */
static bool all_in(enum guest_lane_mode mode)
{
	for (uint32_t i = 0; i < disk.lane_count; i++)
		if (guest_lane_mode(&lanes[i]) != mode)
			return false;
	return disk.lane_count != 0;
}

struct result {
	uint64_t ops, ns, percentile[3], max;
};

static struct result result(void)
{
	static const uint64_t percent[] = { 50, 90, 99 };
	uint64_t begin = UINT64_MAX, end = 0, seen = 0;
	struct result sum = { .ops = 0 };
	uint32_t at = 0;

	for (uint32_t i = 0; i < disk.lane_count; i++) {
		const struct guest_lane *lane = &lanes[i];

		sum.ops += lane->bench_ops;
		sum.max = lane->bench_max > sum.max ? lane->bench_max : sum.max;
		begin = lane->bench_from < begin ? lane->bench_from : begin;
		end = lane->bench_done_tsc > end ? lane->bench_done_tsc : end;
	}
	sum.ns = end > begin ? (end - begin) * 1000 / (guest_tsc_khz / 1000) : 0;
	for (uint32_t bucket = 0; bucket < GUEST_LATENCY_BUCKETS; bucket++) {
		for (uint32_t i = 0; i < disk.lane_count; i++)
			seen += lanes[i].latencies[bucket];
		while (at < 3 && seen != 0 && seen * 100 >= sum.ops * percent[at])
			sum.percentile[at++] = guest_latency_ns(bucket);
	}
	return sum;
}

static void print_running(void)
{
	struct guest_line line = { .used = 0 };
	uint64_t found = 0;

	for (uint32_t i = 0; i < disk.lane_count; i++)
		found += lanes[i].found;
	guest_line_number(&line, "guest: disk running found=", found);
	guest_line_send(&line);
}

static void print_measured(void)
{
	struct guest_line line = { .used = 0 };
	struct result sum = result();

	guest_line_number(&line, "guest: disk end mode=", disk.bench.mode);
	guest_line_number(&line, " depth=", disk.bench.depth);
	guest_line_number(&line, " ops=", sum.ops);
	guest_line_number(&line, " iops=", sum.ns == 0 ? 0 : sum.ops * 1000000000 / sum.ns);
	guest_line_number(&line, " p50_ns=", sum.percentile[0]);
	guest_line_number(&line, " p90_ns=", sum.percentile[1]);
	guest_line_number(&line, " p99_ns=", sum.percentile[2]);
	guest_line_number(&line, " max_ns=", sum.max);
	guest_line_send(&line);
}

static void begin(void)
{
	if (disk.probe == NULL) {
		disk.probe = guest_region_take(PROBE_BYTES);
		disk.entries = guest_region_take(guest_options.disk_bytes / GUEST_RECORD_BYTES *
						 sizeof(struct guest_ledger_entry));
		disk.bench = (struct guest_lane_bench){
			.mode = (enum guest_disk_mode)guest_options.disk,
			.depth = GUEST_SLOTS_MAX,
			.blocks = (uint32_t)(guest_options.disk_io_bytes / GUEST_RECORD_BYTES),
			.time_ms = guest_options.disk_time_ms,
		};
	}
	disk.serial = disk.primary->serial;
	step_to(STEP_BEGIN);
}

static void poll_controller(struct guest_worker *w)
{
	uint64_t want_got[2] = { 0, disk.transaction };

	if (!guest_hv_is_open(disk.primary))
		return;
	if (disk.step == STEP_NONE || disk.serial != disk.primary->serial)
		begin();
	if (disk.step == STEP_WAIT_SUBS && open_subs() == disk.sub_count)
		step_to(STEP_LUNS);
	if (disk.step < STEP_RUNNING && disk.step != STEP_WAIT_SUBS && !disk.asked)
		ask(w);
	if (disk.step < STEP_RUNNING && guest_hv_stalled(w, disk.asked_at)) {
		guest_work_bad(w, "step=", disk.step, want_got, "stalled");
		disk.asked_at = w->active_tsc;
	}
	if (disk.step != STEP_RUNNING || disk.said_running)
		return;
	if (guest_options.disk == GUEST_DISK_STAMP && all_in(GUEST_LANE_LOAD))
		print_running();
	else if (guest_options.disk != GUEST_DISK_STAMP && all_in(GUEST_LANE_STOPPED))
		print_measured();
	else
		return;
	disk.said_running = true;
}

void guest_disk_poll(struct guest_worker *w)
{
	if (w->vcpu == 0 && disk.primary != NULL)
		poll_controller(w);
	if (is_lane(w->vcpu) && guest_hv_is_open(lanes[w->vcpu].channel))
		guest_lane_poll(w, &lanes[w->vcpu]);
}

/* Serve this vCPU until its lane has stopped. */
static void wait_stopped(struct guest_worker *w, const struct guest_lane *lane)
{
	while (guest_lane_mode(lane) != GUEST_LANE_STOPPED) {
		guest_work_observe(w);
		guest_hv_poll(w);
		if (guest_options.idle == GUEST_IDLE_HALT)
			guest_hv_wait(w); /* the tick ends it if nothing else does */
	}
}

static void stop(struct guest_worker *w, struct guest_lane *lane)
{
	if (guest_lane_mode(lane) == GUEST_LANE_STOPPED)
		return;
	guest_lane_set(lane, GUEST_LANE_STOPPING);
	wait_stopped(w, lane);
}

static uint64_t verify(struct guest_worker *w, struct guest_lane *lane)
{
	uint64_t before = w->bad;

	stop(w, lane);
	guest_lane_set(lane, GUEST_LANE_VERIFY);
	wait_stopped(w, lane);
	return w->bad - before;
}

static uint64_t bench(struct guest_worker *w, struct guest_lane *lane,
		      const struct guest_command *command)
{
	struct guest_lane_bench wanted = {
		.mode = (enum guest_disk_mode)command->args[0],
		.depth = (uint32_t)(command->args[1] / disk.lane_count),
		.blocks = (uint32_t)(guest_options.disk_io_bytes / GUEST_RECORD_BYTES),
		.time_ms = command->args[2],
	};

	if (wanted.depth == 0)
		wanted.depth = 1;
	stop(w, lane);
	guest_lane_bench(lane, &wanted);
	wait_stopped(w, lane);
	return lane->bench_ops;
}

/* vCPU 0, when all lanes have stopped: close the controller's channels and open them again. */
static void reopen(struct guest_worker *w)
{
	uint64_t serial = disk.primary->serial;

	while (!all_in(GUEST_LANE_STOPPED)) {
		guest_work_observe(w);
		guest_hv_poll(w);
	}
	step_to(STEP_CLOSING);
	guest_hv_close(GUEST_CLASS_SCSI);
	while (!guest_hv_is_closed(GUEST_CLASS_SCSI)) {
		guest_work_observe(w);
		guest_hv_poll(w);
	}
	guest_hv_reopen(GUEST_CLASS_SCSI);
	while (disk.primary->serial == serial || disk.step != STEP_RUNNING) {
		guest_work_observe(w);
		guest_hv_poll(w);
	}
}

uint64_t guest_disk_command(struct guest_worker *w, const struct guest_command *command)
{
	struct guest_lane *lane = &lanes[w->vcpu];
	uint64_t written = 0;

	if (!is_lane(w->vcpu))
		return 0;
	switch ((uint32_t)command->opcode) {
	case TESTPAGE_IO_STOP:
		stop(w, lane);
		written = lane->writes;
		return written;
	case TESTPAGE_IO_START:
		guest_lane_set(lane, GUEST_LANE_LOAD);
		return 0;
	case TESTPAGE_DISK_VERIFY:
		return verify(w, lane);
	case TESTPAGE_DISK_BENCH:
		return bench(w, lane, command);
	case TESTPAGE_DISK_REOPEN:
		if (command->args[0] == HARD)
			guest_lane_abandon(lane);
		else
			stop(w, lane);
		if (w->vcpu == 0)
			reopen(w);
		return 0;
	default:
		return 0;
	}
}

static enum testpage_io_state state(void)
{
	if (disk.step != STEP_RUNNING)
		return disk.primary == NULL ? TESTPAGE_IO_NONE : TESTPAGE_IO_STARTING;
	return all_in(GUEST_LANE_STOPPED) ? TESTPAGE_IO_STOPPED
	       : disk.said_running        ? TESTPAGE_IO_RUNNING
					  : TESTPAGE_IO_STARTING;
}

void guest_disk_put(void (*put)(uint64_t offset, uint64_t value))
{
	uint64_t writes = 0, reads = 0, flushes = 0, errors = 0;
	struct result sum = result();

	if (guest_options.disk == GUEST_DISK_NONE)
		return;
	for (uint32_t i = 0; i < disk.lane_count; i++) {
		writes += __atomic_load_n(&lanes[i].writes, __ATOMIC_RELAXED);
		reads += __atomic_load_n(&lanes[i].reads, __ATOMIC_RELAXED);
		flushes += __atomic_load_n(&lanes[i].flushes, __ATOMIC_RELAXED);
		errors += __atomic_load_n(&lanes[i].errors, __ATOMIC_RELAXED);
	}
	put(TESTPAGE_DISK_WRITES, writes);
	put(TESTPAGE_DISK_READS, reads);
	put(TESTPAGE_DISK_FLUSHES, flushes);
	put(TESTPAGE_DISK_ERRORS, errors);
	put(TESTPAGE_DISK_LEDGER, guest_hv_address((const uint8_t *)disk.entries));
	put(TESTPAGE_DISK_RECORDS, disk.records);
	put(TESTPAGE_DISK_BYTES, disk.lun_bytes);
	put(TESTPAGE_BENCH_OPS, sum.ops);
	put(TESTPAGE_BENCH_NS, sum.ns);
	put(TESTPAGE_BENCH_P50_NS, sum.percentile[0]);
	put(TESTPAGE_BENCH_P90_NS, sum.percentile[1]);
	put(TESTPAGE_BENCH_P99_NS, sum.percentile[2]);
	put(TESTPAGE_BENCH_MAX_NS, sum.max);
	put(TESTPAGE_DISK_STATE, state());
}
