/* SPDX-License-Identifier: Apache-2.0 */
/* The work loop: see guest_work.h. */
#include "tests/guest/guest_work.h"

#include "tests/guest/guest_call.h"
#include "tests/guest/guest_calls.h"
#include "tests/guest/guest_control.h"
#include "tests/guest/guest_disk.h"
#include "tests/guest/guest_hv.h"
#include "tests/guest/guest_net.h"
#include "tests/guest/guest_page.h"
#include "tests/guest/guest_print.h"
#include "tests/guest/guest_region.h"

#define FIXED_BITS       8
#define WORD_BATCH       16  /* restamps between two looks at the TSC at full speed */
#define STAMPS_PER_CHECK 8   /* at full speed: stamps for each background check */
#define WORDS_PER_CHECK  64  /* the same with stamp=word */
#define BACKLOG_MS       100 /* a guest that was stopped for long does not catch up in a burst */
#define TICK_LIMIT_MS    2000
#define GAP_IS_STOP_MS   50 /* a step above this is time in which no tick could come */
#define FPU_CHECK_MS     1
#define LINES_MAX        100 /* BAD lines per vCPU; after that mismatches are only counted */
#define APIC_LVT_TIMER   0x320
#define APIC_COUNT       0x380
#define APIC_DIVIDE      0x3e0
#define APIC_DIVIDE_BY_1 0xb
#define APIC_PERIODIC    0x20000
#define TICK_HZ          100

void guest_fpu_load_xmm(const uint8_t *from);
void guest_fpu_store_xmm(uint8_t *to);
void guest_fpu_load_ymm(const uint8_t *from);
void guest_fpu_store_ymm(uint8_t *to);

extern uint8_t guest_ticks[]; /* the supervisor's stacks: guest.ld */

struct guest_options guest_options;
uint64_t guest_vcpu_count, guest_tsc_khz, guest_lapic_khz;
struct guest_worker guest_workers[SUPER_VCPUS_MAX];
struct guest_command guest_command;

static bool stopping;

static void publish(uint64_t *field, uint64_t value)
{
	__atomic_store_n(field, value, __ATOMIC_RELAXED);
}

void guest_work_stop(void)
{
	__atomic_store_n(&stopping, true, __ATOMIC_RELEASE);
	guest_call(SUPER_STOP, 0, 0, 0);
	__builtin_unreachable();
}

uint64_t guest_work_ticks(uint64_t vcpu)
{
	const uint64_t *count =
		(const uint64_t *)(const void *)(guest_ticks + vcpu * SUPER_STACK_BYTES);

	return __atomic_load_n(count, __ATOMIC_RELAXED);
}

static uint64_t ms_tsc(uint64_t ms)
{
	return ms * guest_tsc_khz;
}

void guest_work_bad(struct guest_worker *w, const char *what, uint64_t which,
		    const uint64_t *want_got, const char *kind)
{
	struct guest_line line = { .used = 0 };

	publish(&w->bad, w->bad + 1);
	if (w->lines++ >= LINES_MAX)
		return;
	guest_line_text(&line, "guest: BAD ");
	guest_line_number(&line, what, which);
	guest_line_number(&line, " want=", want_got[0]);
	guest_line_number(&line, " got=", want_got[1]);
	guest_line_text(&line, " kind=");
	guest_line_text(&line, kind);
	guest_line_number(&line, " vcpu=", w->vcpu);
	guest_line_send(&line);
}

static void watch_tick(struct guest_worker *w, uint64_t step)
{
	uint64_t ticks = guest_work_ticks(w->vcpu);

	if (ticks != w->tick_seen) {
		w->tick_seen = ticks;
		w->tick_run_tsc = 0;
	} else if (step < ms_tsc(GAP_IS_STOP_MS)) {
		w->tick_run_tsc += step;
	}
	if (w->tick_run_tsc > ms_tsc(TICK_LIMIT_MS)) {
		uint64_t want_got[2] = { ticks + 1, ticks };

		guest_work_bad(w, "tick=", ticks, want_got, "stalled");
		w->tick_run_tsc = 0;
	}
}

uint64_t guest_work_observe(struct guest_worker *w)
{
	uint64_t now = guest_tsc();
	uint64_t step = now - w->last_tsc;

	if (now < w->last_tsc) {
		uint64_t want_got[2] = { w->last_tsc, now };

		guest_work_bad(w, "tsc=", now, want_got, "backwards");
		step = 0;
	}
	w->last_tsc = now;
	w->run_tsc += step;
	if (step < ms_tsc(GAP_IS_STOP_MS))
		w->active_tsc += step;
	if (step > w->gap_tsc)
		publish(&w->gap_tsc, step);
	watch_tick(w, step);
	return w->run_tsc;
}

static void fpu_load(struct guest_worker *w)
{
	for (uint64_t i = 0; i < GUEST_FPU_BYTES; i++) {
		w->fpu_want[i] = (uint8_t)testpage_mix(w->vcpu * GUEST_FPU_BYTES + i + 1);
		if (!w->has_avx && (i & 16) != 0)
			w->fpu_want[i] = 0; /* the half that XMM stores do not touch */
	}
	if (w->has_avx)
		guest_fpu_load_ymm(w->fpu_want);
	else
		guest_fpu_load_xmm(w->fpu_want);
}

static void fpu_check(struct guest_worker *w)
{
	uint64_t now[GUEST_FPU_BYTES / 8] __attribute__((aligned(32))) = { 0 };
	const uint64_t *want = (const uint64_t *)(const void *)w->fpu_want;

	if (w->has_avx)
		guest_fpu_store_ymm((uint8_t *)now);
	else
		guest_fpu_store_xmm((uint8_t *)now);
	for (uint64_t i = 0; i < GUEST_FPU_BYTES / 8; i++) {
		if (now[i] != want[i]) {
			uint64_t want_got[2] = { want[i], now[i] };

			guest_work_bad(w, "register=", i / 4, want_got, "fpu");
			fpu_load(w);
			return;
		}
	}
}

static enum guest_content content_of(uint64_t number)
{
	return (enum guest_content)(number < guest_region.ws_pages ? guest_options.content
								   : guest_options.fill_content);
}

/* The sequence that page @number must have; a table whose copies differ is BAD, the newer wins. */
static uint64_t expected(struct guest_worker *w, uint64_t number)
{
	uint64_t other;
	uint64_t sequence = guest_region_expected(number, &other);

	if (sequence != other) {
		uint64_t want_got[2] = { sequence > other ? sequence : other,
					 sequence > other ? other : sequence };

		guest_work_bad(w, "page=", number, want_got, "table");
		sequence = want_got[0];
		guest_region_expect(number, sequence);
	}
	return sequence;
}

static void stamp(struct guest_worker *w, uint64_t number, uint64_t sequence, bool whole)
{
	uint64_t *page = guest_region_page(number);

	if (whole)
		guest_page_stamp(page, number, sequence, content_of(number));
	else
		guest_page_restamp(page, sequence);
	guest_region_expect(number, sequence);
	publish(&w->written, w->written + 1);
}

static void report_page(struct guest_worker *w, uint64_t number, uint64_t want,
			struct guest_page_verdict verdict)
{
	uint64_t want_got[2] = { verdict.kind == GUEST_PAGE_FOREIGN ? number : want, verdict.got };

	guest_work_bad(w, "page=", number, want_got, guest_page_kind_names[verdict.kind]);
	/* Made good again, so that each loss is reported once. */
	stamp(w, number, want + 1, true);
	w->sequence_sum++;
}

static void check(struct guest_worker *w, uint64_t number)
{
	uint64_t want = expected(w, number);
	struct guest_page_verdict verdict =
		guest_page_check(guest_region_page(number), number, want, content_of(number));

	publish(&w->checked, w->checked + 1);
	if (verdict.kind != GUEST_PAGE_GOOD)
		report_page(w, number, want, verdict);
}

/* Check what was there, then give the page its next sequence. */
static void rewrite(struct guest_worker *w, uint64_t number)
{
	bool whole = guest_options.stamp == GUEST_STAMP_PAGE;
	uint64_t want = expected(w, number);
	const uint64_t *page = guest_region_page(number);
	struct guest_page_verdict verdict;

	if (whole) {
		verdict = guest_page_check(page, number, want, content_of(number));
		publish(&w->checked, w->checked + 1);
	} else {
		verdict = guest_page_check_header(page, number, want);
	}
	if (verdict.kind != GUEST_PAGE_GOOD) {
		report_page(w, number, want, verdict);
		return;
	}
	stamp(w, number, want + 1, whole);
	w->sequence_sum++;
}

static uint64_t slice_page(const struct guest_worker *w, uint64_t i)
{
	return i < w->count ? w->first + i : w->fill_first + (i - w->count);
}

static void check_next(struct guest_worker *w)
{
	if (w->count + w->fill_count == 0)
		return;
	if (w->check_cursor >= w->count + w->fill_count)
		w->check_cursor = 0;
	check(w, slice_page(w, w->check_cursor++));
	w->since_check = 0;
}

static void rewrite_next(struct guest_worker *w)
{
	uint64_t i = w->cursor++;

	if (w->count == 0)
		return;
	if (guest_options.pattern == GUEST_PATTERN_RANDOM)
		i = testpage_mix(i + (w->vcpu << 56));
	rewrite(w, w->first + i % w->count);
	w->since_check++;
}

/* One more event of a rate is due.  The backlog is bounded. */
static bool is_due(uint64_t *due_fixed, uint64_t interval_fixed, uint64_t now)
{
	uint64_t now_fixed = now << FIXED_BITS;
	uint64_t backlog = ms_tsc(BACKLOG_MS) << FIXED_BITS;

	if (*due_fixed > now_fixed)
		return false;
	*due_fixed += interval_fixed;
	if (now_fixed > backlog && *due_fixed < now_fixed - backlog)
		*due_fixed = now_fixed - backlog;
	return true;
}

static void work(struct guest_worker *w, uint64_t now)
{
	bool words = guest_options.stamp == GUEST_STAMP_WORD;
	bool busy = true;

	if (guest_options.rate == 0) {
		for (unsigned int i = 0; i < (words ? WORD_BATCH : 1); i++)
			rewrite_next(w);
	} else if (is_due(&w->due_fixed, w->interval_fixed, now)) {
		rewrite_next(w);
	} else {
		busy = false;
	}
	if (w->since_check >= (words ? WORDS_PER_CHECK : STAMPS_PER_CHECK) ||
	    (w->check_interval_fixed != 0 &&
	     is_due(&w->check_due_fixed, w->check_interval_fixed, now)))
		check_next(w);
	else if (!busy && guest_options.idle == GUEST_IDLE_HALT)
		guest_hv_wait(w);
}

static uint64_t verify_all(struct guest_worker *w)
{
	uint64_t before = w->bad, sum = 0, other;

	for (uint64_t i = 0; i < w->count + w->fill_count; i++) {
		guest_work_observe(w);
		check(w, slice_page(w, i));
		sum += guest_region_expected(slice_page(w, i), &other);
	}
	if (sum != w->sequence_sum) { /* both copies of the table lost the same update */
		uint64_t want_got[2] = { w->sequence_sum, sum };

		guest_work_bad(w, "table=", w->vcpu, want_got, "count");
		w->sequence_sum = sum;
	}
	fpu_check(w);
	return w->bad - before;
}

static uint64_t exit_loop(struct guest_worker *w, const struct guest_command *command)
{
	uint64_t port = command->args[2];
	uint64_t write_at = guest_options.testpage + TESTPAGE_EXIT_WRITE(w->vcpu);
	uint64_t read_at = guest_options.testpage + TESTPAGE_EXIT_READ(w->vcpu);
	uint64_t wrong = 0, last = 0;

	if (w->vcpu != 0 && (command->args[1] == 0 || port != 0))
		return 0;
	for (uint64_t i = 0; i < command->args[0]; i++) {
		uint64_t got;

		guest_work_observe(w);
		w->exit_sequence++;
		if (port != 0) {
			guest_call(SUPER_PORT_OUT, port, w->exit_sequence & UINT32_MAX, 4);
			got = guest_call(SUPER_PORT_IN, port, 0, 4);
		} else {
			guest_mmio_write(write_at, w->exit_sequence);
			got = guest_mmio_read(read_at);
		}
		if (i > 0 && got != last + 1) {
			uint64_t want_got[2] = { last + 1, got };

			guest_work_bad(w, "exit=", w->exit_sequence, want_got, "exit");
			wrong++;
		}
		last = got;
	}
	return wrong;
}

static uint64_t write_set(struct guest_worker *w, const struct guest_command *command)
{
	uint64_t before = w->written;

	for (uint64_t k = 0; k < command->args[1]; k++) {
		uint64_t number = testpage_pick(command->args[0], k, guest_region.ws_pages);

		guest_work_observe(w);
		if (number - w->first < w->count)
			rewrite(w, number);
	}
	return w->written - before;
}

static void run_command(struct guest_worker *w, uint64_t number)
{
	const struct guest_command *command = &guest_command;
	uint64_t result = 0;

	switch (command->opcode) {
	case TESTPAGE_PAUSE:
		w->paused = true;
		result = w->written;
		break;
	case TESTPAGE_RESUME:
		w->paused = false;
		break;
	case TESTPAGE_VERIFY_ALL:
		result = verify_all(w);
		break;
	case TESTPAGE_RESET_GAP:
		result = w->gap_tsc;
		publish(&w->gap_tsc, 0);
		break;
	case TESTPAGE_EXIT_LOOP:
		result = exit_loop(w, command);
		break;
	case TESTPAGE_WRITE_SET:
		w->paused = true;
		result = write_set(w, command);
		break;
	case TESTPAGE_IO_STOP:
	case TESTPAGE_IO_START:
	case TESTPAGE_DISK_VERIFY:
	case TESTPAGE_DISK_REOPEN:
	case TESTPAGE_DISK_BENCH:
		result = guest_disk_command(w, command);
		break;
	case TESTPAGE_CALL_LOOP:
		result = guest_calls_run(w, command);
		break;
	case TESTPAGE_NET_SOURCE:
		result = guest_net_command(w, command);
		break;
	case TESTPAGE_STATUS:
	case TESTPAGE_POWER_OFF:
	case TESTPAGE_RESET:
	case TESTPAGE_NONE:
	case TESTPAGE_OPCODES:
	default:
		break; /* vCPU 0 does these when all others have come here */
	}
	w->command_result = result;
	__atomic_store_n(&w->command_done, number, __ATOMIC_RELEASE);
}

static uint64_t interval_fixed(uint64_t per_second)
{
	if (per_second == 0)
		return 0;
	return (guest_tsc_khz * 1000 * guest_vcpu_count << FIXED_BITS) / per_second;
}

static void start(struct guest_worker *w, uint64_t vcpu)
{
	uint64_t n = guest_vcpu_count, ws = guest_region.ws_pages, fill = guest_region.fill_pages;

	w->vcpu = vcpu;
	w->first = ws * vcpu / n;
	w->count = ws * (vcpu + 1) / n - w->first;
	w->fill_first = ws + fill * vcpu / n;
	w->fill_count = ws + fill * (vcpu + 1) / n - w->fill_first;
	w->interval_fixed = interval_fixed(guest_options.rate);
	w->check_interval_fixed = interval_fixed(guest_options.verify);
	w->has_avx = guest_call(SUPER_ENABLE_AVX, 0, 0, 0) != 0;
	fpu_load(w);
	guest_hv_start_vcpu(vcpu);
	guest_call(SUPER_APIC_WRITE, APIC_DIVIDE, APIC_DIVIDE_BY_1, 0);
	guest_call(SUPER_APIC_WRITE, APIC_LVT_TIMER, APIC_PERIODIC | SUPER_VECTOR_TIMER, 0);
	guest_call(SUPER_APIC_WRITE, APIC_COUNT, guest_lapic_khz * 1000 / TICK_HZ, 0);
	w->last_tsc = guest_tsc();
	for (uint64_t i = 0; i < w->count + w->fill_count; i++) {
		guest_work_observe(w);
		stamp(w, slice_page(w, i), 1, true);
		w->sequence_sum++;
	}
	publish(&w->gap_tsc, 0); /* the first touch of a page may have cost anything */
	w->due_fixed = w->run_tsc << FIXED_BITS;
	w->check_due_fixed = w->due_fixed;
	__atomic_store_n(&w->ready, 1, __ATOMIC_RELEASE);
}

void guest_work_run(uint64_t vcpu)
{
	struct guest_worker *w = &guest_workers[vcpu];

	start(w, vcpu);
	while (!__atomic_load_n(&stopping, __ATOMIC_ACQUIRE)) {
		uint64_t now = guest_work_observe(w);
		uint64_t number = __atomic_load_n(&guest_command.number, __ATOMIC_ACQUIRE);

		publish(&w->rounds, w->rounds + 1);
		guest_hv_poll(w);
		if (number != w->command_done)
			run_command(w, number);
		else if (!w->paused)
			work(w, now);
		if (now >= w->fpu_due_tsc) {
			fpu_check(w);
			w->fpu_due_tsc = now + ms_tsc(FPU_CHECK_MS);
		}
		if (vcpu == 0)
			guest_control_poll(w, now);
	}
	guest_work_stop();
}
