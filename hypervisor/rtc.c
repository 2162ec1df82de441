/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real-time clock and its NVRAM: an MC146818 at 0x70, century byte at 0x32.  Any
 * thread; see platform_priv.h.
 *
 * Source: the MC146818 data sheet.  Time of day is never counted here: it is the
 * host's real time plus what the guest has set (struct hv_rtc_state), so it is right
 * after a pause, a save, or a move to another host.
 *
 * Halted (SET in B, or the divider in reset in A) the time bytes are plain memory.
 * When the clock starts again, they become the time if the guest has written any of
 * them and they make a date; otherwise the time goes on as if it never had halted.
 * The day of the week always follows from the date.
 *
 * No interrupt and no alarm: IRQ 8 is never raised and no thread runs.  The update
 * and periodic flags of register C are worked out when it is read, so polling works.
 * The alarm bytes are remembered but never match.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/platform_priv.h"

#define RTC_PORTS         2u
#define RTC_PAYLOAD_BYTES 160u

enum rtc_register {
	REG_SECOND = 0x00,
	REG_MINUTE = 0x02,
	REG_HOUR = 0x04,
	REG_WEEKDAY = 0x06, /* 1 is Sunday */
	REG_DAY = 0x07,
	REG_MONTH = 0x08,
	REG_YEAR = 0x09,
	REG_A = 0x0A,
	REG_B = 0x0B,
	REG_C = 0x0C,
	REG_D = 0x0D,
	REG_CENTURY = 0x32,
};

static const uint8_t time_registers[] = { REG_SECOND, REG_MINUTE, REG_HOUR, REG_WEEKDAY,
					  REG_DAY,    REG_MONTH,  REG_YEAR, REG_CENTURY };
#define TIME_REGISTER_COUNT (sizeof(time_registers) / sizeof(time_registers[0]))

#define INDEX_MASK 0x7Fu /* bit 7 of port 0x70 masks NMI, of which there is none */

#define A_UIP        0x80u
#define A_DIVIDER    0x60u /* both set: the divider is held in reset */
#define A_RATE       0x0Fu
#define A_POWER_ON   0x26u /* 32768 Hz crystal, 1024 Hz periodic rate */
#define B_SET        0x80u
#define B_BINARY     0x04u
#define B_24_HOURS   0x02u
#define B_POWER_ON   B_24_HOURS
#define C_REQUEST    0x80u
#define C_PERIODIC   0x40u
#define C_UPDATE     0x10u
#define C_ENABLES    0x70u /* where B has the enable bits of the flags in C */
#define D_POWER_GOOD 0x80u
#define HOUR_PM      0x80u

#define FLAG_SET_BY_GUEST 0x01u

#define CRYSTAL_HZ       32768u
#define UPDATE_NS        2228000u   /* UIP is up this long before the seconds change */
#define AFTER_DIVIDER_NS 500000000u /* the first update comes half a second after a reset */
#define SECONDS_PER_DAY  86400

/* The years that four digits can say. */
#define DAYS_TO_1970    719528LL /* from 1 January 0000 */
#define DAYS_TO_10000   3652425LL
#define TIME_MIN_S      (-DAYS_TO_1970 * SECONDS_PER_DAY)
#define TIME_END_S      ((DAYS_TO_10000 - DAYS_TO_1970) * SECONDS_PER_DAY)
#define HOST_REAL_S_MAX ((int64_t)(UINT64_MAX / BASE_NS_PER_SECOND))

struct date {
	int64_t year; /* 0 to 9999 */
	int64_t month;
	int64_t day;
	int64_t hour;
	int64_t minute;
	int64_t second;
	int64_t weekday; /* 1 is Sunday; not looked at by seconds_of() */
};

static bool is_leap(int64_t year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int64_t days_in_month(int64_t year, int64_t month)
{
	static const uint8_t days[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	return days[month - 1] + (month == 2 && is_leap(year) ? 1 : 0);
}

/* Days from 1 January 0000 (Gregorian, and a leap year) to 1 January of @year. */
static int64_t days_to_year(int64_t year)
{
	return year * 365 + (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
}

static bool is_date(const struct date *date)
{
	return date->year >= 0 && date->year <= 9999 && date->month >= 1 && date->month <= 12 &&
	       date->day >= 1 && date->day <= days_in_month(date->year, date->month) &&
	       date->hour >= 0 && date->hour <= 23 && date->minute >= 0 && date->minute <= 59 &&
	       date->second >= 0 && date->second <= 59;
}

/* Seconds since 1970 of a date that is_date(). */
static int64_t seconds_of(const struct date *date)
{
	int64_t days = days_to_year(date->year) - DAYS_TO_1970 + date->day - 1;

	for (int64_t month = 1; month < date->month; month++)
		days += days_in_month(date->year, month);
	return ((days * 24 + date->hour) * 60 + date->minute) * 60 + date->second;
}

/* The date at @time_s in TIME_MIN_S..TIME_END_S-1. */
static struct date date_of(int64_t time_s)
{
	const int64_t since_0000_s = time_s - TIME_MIN_S;
	int64_t day = since_0000_s / SECONDS_PER_DAY;
	const int64_t second = since_0000_s % SECONDS_PER_DAY;
	struct date date = { .year = day / 366, .month = 1 };

	date.weekday = (day + 6) % 7 + 1;
	/* day / 366 is never after the year, and for year 9999 it is 20 before it. */
	while (days_to_year(date.year + 1) <= day)
		date.year++;
	day -= days_to_year(date.year);
	while (day >= days_in_month(date.year, date.month))
		day -= days_in_month(date.year, date.month++);
	date.day = day + 1;
	date.hour = second / 3600;
	date.minute = second / 60 % 60;
	date.second = second % 60;
	return date;
}

static bool is_halted(const struct hv_rtc_state *state)
{
	return (state->control_b & B_SET) != 0 || (state->control_a & A_DIVIDER) == A_DIVIDER;
}

static bool is_time_register(uint8_t reg)
{
	return memchr(time_registers, reg, TIME_REGISTER_COUNT) != NULL;
}

/* A moment of the running clock. */
struct moment {
	int64_t time_s;
	uint32_t fraction_ns;
};

/* The clock at @real_ns of the host; a sum outside four-digit years wraps around them. */
static struct moment moment_at(const struct hv_rtc_state *state, uint64_t real_ns)
{
	const int64_t span_s = TIME_END_S - TIME_MIN_S;
	uint64_t fraction_ns = real_ns % BASE_NS_PER_SECOND + state->phase_ns;
	int64_t time_s = (int64_t)(real_ns / BASE_NS_PER_SECOND) + state->offset_s;

	if (fraction_ns >= BASE_NS_PER_SECOND) {
		fraction_ns -= BASE_NS_PER_SECOND;
		time_s++;
	}
	time_s = (time_s - TIME_MIN_S) % span_s;
	if (time_s < 0)
		time_s += span_s;
	return (struct moment){ .time_s = time_s + TIME_MIN_S,
				.fraction_ns = (uint32_t)fraction_ns };
}

/* Make the clock show @moment at @real_ns. */
static void set_moment(struct hv_rtc_state *state, uint64_t real_ns, struct moment moment)
{
	const uint64_t real_fraction_ns = real_ns % BASE_NS_PER_SECOND;
	uint64_t phase_ns = moment.fraction_ns + BASE_NS_PER_SECOND - real_fraction_ns;

	state->offset_s = moment.time_s - (int64_t)(real_ns / BASE_NS_PER_SECOND);
	if (phase_ns >= BASE_NS_PER_SECOND)
		phase_ns -= BASE_NS_PER_SECOND;
	else
		state->offset_s--; /* fraction and phase will carry one second */
	state->phase_ns = (uint32_t)phase_ns;
	state->update_seen_s = moment.time_s;
}

static uint8_t encode_number(int64_t number, uint8_t control_b)
{
	if ((control_b & B_BINARY) != 0)
		return (uint8_t)number;
	return (uint8_t)(number / 10 << 4 | number % 10);
}

/* -1 for what is no number of two digits. */
static int64_t decode_number(uint8_t byte, uint8_t control_b)
{
	if ((control_b & B_BINARY) != 0)
		return byte <= 99 ? byte : -1;
	if ((byte & 0x0F) > 9 || byte >> 4 > 9)
		return -1;
	return (byte >> 4) * 10 + (byte & 0x0F);
}

static uint8_t encode_hour(int64_t hour, uint8_t control_b)
{
	const int64_t hour_12 = hour % 12 == 0 ? 12 : hour % 12;

	if ((control_b & B_24_HOURS) != 0)
		return encode_number(hour, control_b);
	return encode_number(hour_12, control_b) | (hour >= 12 ? HOUR_PM : 0);
}

static int64_t decode_hour(uint8_t byte, uint8_t control_b)
{
	int64_t hour;

	if ((control_b & B_24_HOURS) != 0)
		return decode_number(byte, control_b);
	hour = decode_number(byte & (uint8_t)~HOUR_PM, control_b);
	if (hour < 1 || hour > 12)
		return -1;
	return hour % 12 + ((byte & HOUR_PM) != 0 ? 12 : 0);
}

static void date_to_bytes(const struct date *date, uint8_t control_b, uint8_t *ram)
{
	ram[REG_SECOND] = encode_number(date->second, control_b);
	ram[REG_MINUTE] = encode_number(date->minute, control_b);
	ram[REG_HOUR] = encode_hour(date->hour, control_b);
	ram[REG_WEEKDAY] = encode_number(date->weekday, control_b);
	ram[REG_DAY] = encode_number(date->day, control_b);
	ram[REG_MONTH] = encode_number(date->month, control_b);
	ram[REG_YEAR] = encode_number(date->year % 100, control_b);
	ram[REG_CENTURY] = encode_number(date->year / 100, control_b);
}

/* False when the bytes make no date. */
static bool bytes_to_date(const uint8_t *ram, uint8_t control_b, struct date *ret_date)
{
	const int64_t century = decode_number(ram[REG_CENTURY], control_b);
	const int64_t year = decode_number(ram[REG_YEAR], control_b);
	const struct date date = {
		.year = century < 0 || year < 0 ? -1 : century * 100 + year,
		.month = decode_number(ram[REG_MONTH], control_b),
		.day = decode_number(ram[REG_DAY], control_b),
		.hour = decode_hour(ram[REG_HOUR], control_b),
		.minute = decode_number(ram[REG_MINUTE], control_b),
		.second = decode_number(ram[REG_SECOND], control_b),
	};

	if (!is_date(&date))
		return false;
	*ret_date = date;
	return true;
}

/* Put the time of the running clock into the time bytes of @ram. */
static void show_time(const struct hv_rtc_state *state, uint64_t real_ns, uint8_t *ram)
{
	const struct date date = date_of(moment_at(state, real_ns).time_s);

	date_to_bytes(&date, state->control_b, ram);
}

static void clear_time_bytes(struct hv_rtc_state *state)
{
	for (size_t i = 0; i < TIME_REGISTER_COUNT; i++)
		state->ram[time_registers[i]] = 0;
}

/* Write A or B, and halt or start the clock if that says so. */
static void write_control(struct hv_rtc_state *state, uint64_t real_ns, uint8_t reg, uint8_t value)
{
	const bool was_halted = is_halted(state);
	const bool was_reset = (state->control_a & A_DIVIDER) == A_DIVIDER;
	struct moment moment = moment_at(state, real_ns);
	struct date date;

	if (!was_halted)
		show_time(state, real_ns, state->ram); /* in the format until now */
	if (reg == REG_A)
		state->control_a = value & (uint8_t)~A_UIP;
	else
		state->control_b = value;
	if (is_halted(state))
		return;
	if (was_halted && state->is_set_by_guest &&
	    bytes_to_date(state->ram, state->control_b, &date)) {
		moment.time_s = seconds_of(&date);
		if (was_reset)
			moment.fraction_ns = AFTER_DIVIDER_NS;
		set_moment(state, real_ns, moment);
	}
	state->is_set_by_guest = false;
	clear_time_bytes(state);
}

static void write_time(struct hv_rtc_state *state, uint64_t real_ns, uint8_t reg, uint8_t value)
{
	struct moment moment = moment_at(state, real_ns);
	uint8_t ram[HV_RTC_RAM_BYTES];
	struct date date;

	if (is_halted(state)) {
		state->ram[reg] = value;
		state->is_set_by_guest = true;
		return;
	}
	show_time(state, real_ns, ram);
	ram[reg] = value;
	if (!bytes_to_date(ram, state->control_b, &date))
		return;
	moment.time_s = seconds_of(&date);
	set_moment(state, real_ns, moment);
}

static uint8_t read_control_a(const struct hv_rtc_state *state, uint64_t real_ns)
{
	if (is_halted(state))
		return state->control_a;
	if (moment_at(state, real_ns).fraction_ns < BASE_NS_PER_SECOND - UPDATE_NS)
		return state->control_a;
	return state->control_a | A_UIP;
}

/* Reading tells what happened since it was last read, and starts anew. */
static uint8_t read_flags(struct hv_rtc_state *state, uint64_t real_ns, uint64_t guest_ns)
{
	const uint64_t ticks = hv_ticks_of_ns(guest_ns, CRYSTAL_HZ);
	const int64_t time_s = moment_at(state, real_ns).time_s;
	const uint8_t rate = state->control_a & A_RATE;
	/* Rates 1 and 2 are 256 and 128 Hz, as 8 and 9 are. */
	const unsigned int shift = (rate <= 2 ? rate + 7u : rate) - 1u;
	uint8_t flags = 0;

	if (!is_halted(state) && time_s != state->update_seen_s)
		flags |= C_UPDATE;
	if (rate != 0 && ticks >> shift != state->periodic_seen >> shift)
		flags |= C_PERIODIC;
	if ((flags & state->control_b & C_ENABLES) != 0)
		flags |= C_REQUEST;
	state->update_seen_s = time_s;
	state->periodic_seen = ticks;
	return flags;
}

static uint8_t read_locked(struct hv_rtc *rtc)
{
	struct hv_rtc_state *state = &rtc->state;
	const uint64_t real_ns = base_clock_real_ns(rtc->env.time->clock);
	const uint8_t reg = state->index;
	uint8_t ram[HV_RTC_RAM_BYTES];

	switch (reg) {
	case REG_A:
		return read_control_a(state, real_ns);
	case REG_B:
		return state->control_b;
	case REG_C:
		return read_flags(state, real_ns, hv_guest_time_ns(rtc->env.time));
	case REG_D:
		return D_POWER_GOOD;
	default:
		break;
	}
	if (!is_time_register(reg) || is_halted(state))
		return state->ram[reg];
	show_time(state, real_ns, ram);
	return ram[reg];
}

static void write_locked(struct hv_rtc *rtc, uint8_t value)
{
	struct hv_rtc_state *state = &rtc->state;
	const uint64_t real_ns = base_clock_real_ns(rtc->env.time->clock);
	const uint8_t reg = state->index;

	if (reg == REG_A || reg == REG_B)
		write_control(state, real_ns, reg, value);
	else if (is_time_register(reg))
		write_time(state, real_ns, reg, value);
	else if (reg != REG_C && reg != REG_D)
		state->ram[reg] = value;
}

/* The chip is 8 bits wide: a word at 0x70 is an index and then its data. */
static uint64_t rtc_read(void *device, uint64_t offset, uint32_t size_bytes)
{
	struct hv_rtc *rtc = device;
	uint64_t value = 0;

	BASE_LOCKED(&rtc->lock);
	for (uint32_t i = 0; i < size_bytes; i++) {
		/* The index port is write-only. */
		const uint8_t byte = offset + i == 0 ? 0xFF : read_locked(rtc);

		value |= (uint64_t)byte << (8 * i);
	}
	return value;
}

static void rtc_write(void *device, uint64_t offset, uint32_t size_bytes, uint64_t value)
{
	struct hv_rtc *rtc = device;

	BASE_LOCKED(&rtc->lock);
	for (uint32_t i = 0; i < size_bytes; i++) {
		const uint8_t byte = (uint8_t)(value >> (8 * i));

		if (offset + i == 0)
			rtc->state.index = byte & INDEX_MASK;
		else
			write_locked(rtc, byte);
	}
}

static const struct hv_io_ops rtc_ops = { .read = rtc_read, .write = rtc_write };

static void forget_flags(struct hv_rtc *rtc)
{
	const uint64_t real_ns = base_clock_real_ns(rtc->env.time->clock);

	rtc->state.update_seen_s = moment_at(&rtc->state, real_ns).time_s;
	rtc->state.periodic_seen = hv_ticks_of_ns(hv_guest_time_ns(rtc->env.time), CRYSTAL_HZ);
}

void hv_rtc_init(void *device, const struct hv_device_env *env)
{
	struct hv_rtc *rtc = device;

	(void)pthread_mutex_init(&rtc->lock, NULL);
	rtc->env = *env;
	rtc->state = (struct hv_rtc_state){ .control_a = A_POWER_ON, .control_b = B_POWER_ON };
	forget_flags(rtc);
}

int hv_rtc_attach(void *device, struct base_error *err)
{
	struct hv_rtc *rtc = device;

	const struct hv_io_range range = { .space = HV_IO_PORT,
					   .base = HV_RTC_PORT,
					   .length = RTC_PORTS,
					   .ops = &rtc_ops,
					   .device = rtc };

	return hv_iobus_add(rtc->env.bus, &range, err);
}

void hv_rtc_fini(void *device)
{
	struct hv_rtc *rtc = device;

	(void)pthread_mutex_destroy(&rtc->lock);
}

/* The battery keeps time and NVRAM; a time that was only half written is dropped. */
void hv_rtc_reset(void *device)
{
	struct hv_rtc *rtc = device;

	BASE_LOCKED(&rtc->lock);
	rtc->state.index = 0;
	rtc->state.control_a = A_POWER_ON;
	rtc->state.control_b = B_POWER_ON;
	rtc->state.is_set_by_guest = false;
	clear_time_bytes(&rtc->state);
	forget_flags(rtc);
}

void hv_rtc_loaded(void *device)
{
	(void)device; /* drives no line */
}

void hv_rtc_save(void *device, struct base_buffer *out)
{
	struct hv_rtc *rtc = device;
	const struct hv_rtc_state *state = &rtc->state;

	BASE_LOCKED(&rtc->lock);
	base_buffer_le64(out, (uint64_t)state->offset_s);
	base_buffer_le32(out, state->phase_ns);
	base_buffer_u8(out, state->index);
	base_buffer_u8(out, state->control_a);
	base_buffer_u8(out, state->control_b);
	base_buffer_u8(out, state->is_set_by_guest ? FLAG_SET_BY_GUEST : 0);
	base_buffer_le64(out, (uint64_t)state->update_seen_s);
	base_buffer_le64(out, state->periodic_seen);
	base_buffer_append(out, state->ram, sizeof(state->ram));
}

static int check_ram(const struct hv_rtc_state *state, struct base_error *err)
{
	for (uint8_t reg = 0; reg < HV_RTC_RAM_BYTES; reg++) {
		const bool is_control = reg >= REG_A && reg <= REG_D;
		const bool is_time = is_time_register(reg) && !is_halted(state);

		if ((is_control || is_time) && state->ram[reg] != 0)
			return base_fail(err, -EBADMSG, "byte 0x%02x is 0x%02x, wanted 0", reg,
					 state->ram[reg]);
	}
	return 0;
}

static int check_state(const struct hv_rtc_state *state, struct base_error *err)
{
	/* What set_moment() can make of any time of the guest and of the host. */
	if (state->offset_s < TIME_MIN_S - HOST_REAL_S_MAX - 1 || state->offset_s >= TIME_END_S)
		return base_fail(err, -EBADMSG, "offset %" PRId64 " s leaves years 0 to 9999",
				 state->offset_s);
	if (state->phase_ns >= BASE_NS_PER_SECOND)
		return base_fail(err, -EBADMSG, "phase %" PRIu32 " ns is a second or more",
				 state->phase_ns);
	if ((state->index & ~INDEX_MASK) != 0)
		return base_fail(err, -EBADMSG, "index 0x%02x not in 0..0x7f", state->index);
	if ((state->control_a & A_UIP) != 0)
		return base_fail(err, -EBADMSG, "register A 0x%02x with UIP", state->control_a);
	if (state->is_set_by_guest && !is_halted(state))
		return base_fail(err, -EBADMSG, "time bytes written while the clock runs");
	if (state->update_seen_s < TIME_MIN_S || state->update_seen_s >= TIME_END_S)
		return base_fail(err, -EBADMSG, "last update %" PRId64 " s leaves years 0 to 9999",
				 state->update_seen_s);
	if (state->periodic_seen > hv_ticks_of_ns(UINT64_MAX, CRYSTAL_HZ))
		return base_fail(err, -EBADMSG,
				 "periodic tick %" PRIu64 " is after the end of time",
				 state->periodic_seen);
	return check_ram(state, err);
}

int hv_rtc_load(void *device, struct base_reader *in, struct base_error *err)
{
	struct hv_rtc *rtc = device;
	struct hv_rtc_state state = { 0 };
	uint8_t flags;
	int rc;

	if (base_reader_left(in) != RTC_PAYLOAD_BYTES)
		return base_fail(err, -EBADMSG, "%zu bytes, wanted %u", base_reader_left(in),
				 RTC_PAYLOAD_BYTES);
	state.offset_s = (int64_t)base_read_le64(in);
	state.phase_ns = base_read_le32(in);
	state.index = base_read_u8(in);
	state.control_a = base_read_u8(in);
	state.control_b = base_read_u8(in);
	flags = base_read_u8(in);
	state.is_set_by_guest = (flags & FLAG_SET_BY_GUEST) != 0;
	state.update_seen_s = (int64_t)base_read_le64(in);
	state.periodic_seen = base_read_le64(in);
	base_read_bytes(in, state.ram, sizeof(state.ram));
	if ((flags & ~FLAG_SET_BY_GUEST) != 0)
		return base_fail(err, -EBADMSG, "flags 0x%02x: unknown bits", flags);
	rc = check_state(&state, err);
	if (rc < 0)
		return rc;

	BASE_LOCKED(&rtc->lock);
	rtc->state = state;
	return 0;
}
