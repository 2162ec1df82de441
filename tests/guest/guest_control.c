/* SPDX-License-Identifier: Apache-2.0 */
/* Commands, reports and the end: see guest_control.h.  Registers: testpage.h. */
#include "tests/guest/guest_control.h"

#include <stddef.h>

#include "tests/guest/guest_call.h"
#include "tests/guest/guest_hv.h"
#include "tests/guest/guest_print.h"
#include "tests/guest/guest_region.h"

#define POLL_MS            5 /* an MMIO read costs 50 us where it leaves the kernel */
#define OBEY_MS            5000
#define COUNTERS_MS        100
#define SLEEP_ENABLE       0x2000
#define SLEEP_TYPE_SHIFT   10
#define RESET_CONTROL_PORT 0xcf9
#define RESET_CONTROL_FULL 6

static struct {
	uint64_t page;                               /* 0: no test page */
	uint64_t poll_due, counters_due, report_due; /* TSC units of vCPU 0's clock */
	uint64_t start_tsc;
	uint64_t host_command; /* last value of the register */
	uint64_t beat;
	bool in_flight; /* a command is with the workers */
	bool from_host; /* and the host waits for it */
	bool ready, ending;
	bool end_asked, end_by_reset;
	uint16_t pm1a_control, reset_port;
	uint8_t sleep_type, reset_value;
} control;

struct totals {
	uint64_t written, checked, bad, gap_tsc, ticks;
};

static uint64_t tsc_ns(uint64_t tsc)
{
	return tsc / guest_tsc_khz * 1000000 + tsc % guest_tsc_khz * 1000000 / guest_tsc_khz;
}

static uint64_t peek(const uint64_t *field)
{
	return __atomic_load_n(field, __ATOMIC_RELAXED);
}

static struct totals total(void)
{
	struct totals sum = { .ticks = UINT64_MAX };

	for (uint64_t i = 0; i < guest_vcpu_count; i++) {
		const struct guest_worker *w = &guest_workers[i];
		uint64_t gap_tsc = peek(&w->gap_tsc), ticks = guest_work_ticks(i);

		sum.written += peek(&w->written);
		sum.checked += peek(&w->checked);
		sum.bad += peek(&w->bad);
		sum.gap_tsc = gap_tsc > sum.gap_tsc ? gap_tsc : sum.gap_tsc;
		sum.ticks = ticks < sum.ticks ? ticks : sum.ticks;
	}
	return sum;
}

static uint64_t time_ms(const struct guest_worker *w)
{
	return (w->run_tsc - control.start_tsc) / guest_tsc_khz;
}

static void print_status(const struct guest_worker *w, const char *word)
{
	struct guest_line line = { .used = 0 };
	struct totals sum = total();

	guest_line_text(&line, "guest: ");
	guest_line_text(&line, word != NULL ? word : sum.bad == 0 ? "ok" : "bad");
	guest_line_number(&line, " t=", time_ms(w));
	guest_line_number(&line, " vcpu=", guest_vcpu_count);
	guest_line_number(&line, " pages=", sum.written);
	guest_line_number(&line, " verified=", sum.checked);
	guest_line_number(&line, " bad=", sum.bad);
	guest_line_number(&line, " gap_us=", tsc_ns(sum.gap_tsc) / 1000);
	guest_line_number(&line, " ticks=", sum.ticks);
	guest_line_send(&line);
}

static void put(uint64_t offset, uint64_t value)
{
	if (control.page != 0)
		guest_mmio_write(control.page + offset, value);
}

static void put_state(enum testpage_state state)
{
	put(TESTPAGE_STATE, state);
}

static void put_counters(const struct guest_worker *w)
{
	struct totals sum = total();

	put(TESTPAGE_WRITTEN, sum.written);
	put(TESTPAGE_CHECKED, sum.checked);
	put(TESTPAGE_BAD, sum.bad);
	put(TESTPAGE_GAP_NS, tsc_ns(sum.gap_tsc));
	put(TESTPAGE_TICKS, sum.ticks);
	put(TESTPAGE_TIME_MS, time_ms(w));
	for (uint64_t i = 0; i < guest_vcpu_count; i++) {
		put(TESTPAGE_VCPU_ROUNDS(i), peek(&guest_workers[i].rounds));
		put(TESTPAGE_VCPU_GAP_NS(i), tsc_ns(peek(&guest_workers[i].gap_tsc)));
		put(TESTPAGE_VCPU_TICKS(i), guest_work_ticks(i));
	}
	guest_hv_put(put);
	put(TESTPAGE_BEAT, ++control.beat);
}

static void put_layout(void)
{
	put(TESTPAGE_TSC_KHZ, guest_tsc_khz);
	put(TESTPAGE_VCPUS, guest_vcpu_count);
	put(TESTPAGE_IMAGE_START, guest_region.image_start);
	put(TESTPAGE_IMAGE_END, guest_region.image_end);
	put(TESTPAGE_TABLE_START, guest_region.table_start);
	put(TESTPAGE_TABLE_END, guest_region.table_end);
	put(TESTPAGE_WS_PAGES, guest_region.ws_pages);
	put(TESTPAGE_FILL_PAGES, guest_region.fill_pages);
	put(TESTPAGE_EXTENTS, guest_region.extent_count);
	for (uint32_t i = 0; i < guest_region.extent_count; i++) {
		put(TESTPAGE_EXTENT_GPA(i), guest_region.extents[i].gpa);
		put(TESTPAGE_EXTENT_PAGES(i), guest_region.extents[i].page_count);
	}
}

void guest_control_init(const struct guest_firmware *fw)
{
	uint64_t page = guest_options.testpage;

	control.pm1a_control = fw->pm1a_control;
	control.sleep_type = fw->sleep_type;
	control.reset_port = fw->reset_port;
	control.reset_value = fw->reset_value;
	if (page == 0)
		return;
	if (page % TESTPAGE_BYTES != 0 || page < SUPER_HOLE_START || page >= SUPER_HOLE_END)
		guest_die("testpage= is not a page of the device hole (3 to 4 GiB)", "");
	guest_call(SUPER_MAP_TESTPAGE, page, 0, 0);
	if (guest_mmio_read(page + TESTPAGE_ID) != TESTPAGE_ID_VALUE)
		guest_die("no test page answers at testpage=", "");
	control.page = page;
	/* what the register holds at start is no command: a reset guest must not repeat the last */
	control.host_command = guest_mmio_read(page + TESTPAGE_COMMAND);
	put_layout();
	put_state(TESTPAGE_STATE_STARTING);
}

/* The machine may take its time to obey; it must not come back. */
_Noreturn static void wait_then_die(const char *what)
{
	uint64_t from = guest_tsc();

	while (guest_tsc() - from < OBEY_MS * guest_tsc_khz)
		__builtin_ia32_pause();
	guest_die(what, "");
}

static void power_off(void)
{
	if (control.pm1a_control == 0)
		guest_die("no ACPI power off: the firmware has no FADT", "");
	guest_call(SUPER_PORT_OUT, control.pm1a_control,
		   ((uint64_t)control.sleep_type << SLEEP_TYPE_SHIFT) | SLEEP_ENABLE, 2);
	wait_then_die("still here after ACPI power off");
}

static void reset(void)
{
	if (control.reset_port != 0)
		guest_call(SUPER_PORT_OUT, control.reset_port, control.reset_value, 1);
	guest_call(SUPER_PORT_OUT, RESET_CONTROL_PORT, RESET_CONTROL_FULL, 1);
	wait_then_die("still here after a reset");
}

static void end(const struct guest_worker *w)
{
	print_status(w, "end");
	put_counters(w);
	put_state(TESTPAGE_STATE_ENDING);
	if (guest_options.exit == GUEST_EXIT_ACPI)
		power_off();
	else if (guest_options.exit == GUEST_EXIT_TRIPLE)
		guest_call(SUPER_TRIPLE_FAULT, 0, 0, 0);
	else if (guest_options.exit == GUEST_EXIT_RESET)
		reset();
	guest_work_stop();
}

/* Give a command to all workers, vCPU 0 among them. */
static void publish(enum testpage_opcode opcode, const uint64_t *args, bool from_host)
{
	guest_command.opcode = opcode;
	for (unsigned int i = 0; i < 3; i++)
		guest_command.args[i] = args[i];
	control.in_flight = true;
	control.from_host = from_host;
	__atomic_store_n(&guest_command.number, guest_command.number + 1, __ATOMIC_RELEASE);
}

static void poll_command(void)
{
	uint64_t value = guest_mmio_read(control.page + TESTPAGE_COMMAND);
	uint64_t opcode = value & 0xff;
	uint64_t args[3];

	if (value == control.host_command)
		return;
	control.host_command = value;
	if (opcode == TESTPAGE_NONE)
		return;
	if (opcode >= TESTPAGE_OPCODES)
		guest_die("unknown test page command", "");
	for (unsigned int i = 0; i < 3; i++)
		args[i] = guest_mmio_read(control.page + TESTPAGE_ARG0 + i * sizeof(uint64_t));
	publish((enum testpage_opcode)opcode, args, true);
}

static bool all_done(uint64_t *ret_result)
{
	uint64_t sum = 0, most = 0;

	for (uint64_t i = 0; i < guest_vcpu_count; i++) {
		const struct guest_worker *w = &guest_workers[i];

		if (__atomic_load_n(&w->command_done, __ATOMIC_ACQUIRE) != guest_command.number)
			return false;
		sum += w->command_result;
		most = w->command_result > most ? w->command_result : most;
	}
	*ret_result = guest_command.opcode == TESTPAGE_RESET_GAP ? tsc_ns(most) : sum;
	return true;
}

static void finish(struct guest_worker *w, uint64_t result)
{
	enum testpage_opcode opcode = guest_command.opcode;

	control.in_flight = false;
	if (opcode == TESTPAGE_STATUS)
		print_status(w, NULL);
	if (control.from_host) {
		put_counters(w);
		put_state(w->paused ? TESTPAGE_STATE_PAUSED : TESTPAGE_STATE_RUNNING);
		put(TESTPAGE_RESULT, result);
		put(TESTPAGE_ACK, control.host_command);
	}
	if (opcode == TESTPAGE_POWER_OFF)
		power_off();
	if (opcode == TESTPAGE_RESET)
		reset();
	if (control.ending && !control.from_host)
		end(w);
}

/* The line that says that every page has its first stamp and where the pages are. */
static void print_ready(const struct guest_worker *w)
{
	struct guest_line line = { .used = 0 };

	guest_line_number(&line, "guest: ready t=", time_ms(w));
	guest_line_hex(&line, " table=0x", guest_region.table_start, 1);
	for (uint32_t i = 0; i < guest_region.extent_count; i++) {
		const struct guest_extent *extent = &guest_region.extents[i];

		guest_line_hex(&line, " at=0x", extent->gpa, 1);
		guest_line_number(&line, ",", extent->page_count);
	}
	guest_line_send(&line);
}

static bool all_ready(void)
{
	for (uint64_t i = 0; i < guest_vcpu_count; i++)
		if (__atomic_load_n(&guest_workers[i].ready, __ATOMIC_ACQUIRE) == 0)
			return false;
	return true;
}

static bool is_due(uint64_t *due, uint64_t now, uint64_t ms)
{
	if (now < *due)
		return false;
	*due = now + ms * guest_tsc_khz;
	return true;
}

void guest_control_ask_end(bool with_reset)
{
	control.end_asked = true;
	control.end_by_reset = with_reset;
}

void guest_control_poll(struct guest_worker *w, uint64_t now)
{
	static const uint64_t no_args[3];
	uint64_t result;

	if (!control.ready) {
		if (!all_ready())
			return;
		control.ready = true;
		print_ready(w);
		control.start_tsc = now;
		control.report_due = now + guest_options.report_ms * guest_tsc_khz;
		put_state(TESTPAGE_STATE_RUNNING);
		guest_hv_begin();
	}
	if (control.in_flight && all_done(&result))
		finish(w, result);
	if (control.page != 0 && is_due(&control.poll_due, now, POLL_MS) && !control.in_flight)
		poll_command();
	if (control.page != 0 && is_due(&control.counters_due, now, COUNTERS_MS))
		put_counters(w);
	if (guest_options.report_ms != 0 &&
	    is_due(&control.report_due, now, guest_options.report_ms))
		print_status(w, NULL);
	if (control.end_asked)
		control.end_by_reset ? reset() : end(w);
	if (guest_options.time_ms != 0 && !control.in_flight && !control.ending &&
	    time_ms(w) >= guest_options.time_ms) {
		control.ending = true;
		publish(TESTPAGE_VERIFY_ALL, no_args, false);
	}
}
