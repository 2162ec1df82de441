/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI power management: PM1a event and control blocks and the PM timer in one
 * range of ports, the SCI, the fixed power button.  Any thread; see
 * platform_priv.h.
 *
 * Source: ACPI specification 6.4, section 4.8.3.  There is no SMI command port, so
 * the machine is in ACPI mode from the start and SCI_EN reads as one for ever.
 *
 * The timer is a function of guest time and costs no thread: that it passed the
 * middle of its range (TMR_STS, each 600 s) is seen at the next access to these
 * ports, and a guest that enables TMR_EN gets its SCI then.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/cleanup.h"
#include "hypervisor/acpi.h"
#include "hypervisor/platform_priv.h"

#define PM_PORTS         12u
#define PM_PAYLOAD_BYTES 16u
#define PM_TIMER_HZ      3579545u

#define STATUS_TIMER  0x0001u
#define STATUS_BUTTON 0x0100u
#define STATUS_KNOWN  (STATUS_TIMER | STATUS_BUTTON)

/* Timer, global lock, power and sleep button, RTC: plain bits; only two ever have an event. */
#define ENABLE_KEPT 0x0721u

#define CONTROL_SCI_EN        0x0001u
#define CONTROL_KEPT          0x1C02u /* BM_RLD, SLP_TYP */
#define CONTROL_SLP_EN        0x2000u
#define CONTROL_SLP_TYP_SHIFT 10
#define CONTROL_SLP_TYP_MASK  7u

/* Offsets of the registers in the range. */
#define STATUS_OFFSET  0u
#define ENABLE_OFFSET  2u
#define CONTROL_OFFSET (HV_ACPI_PM1A_CNT_PORT - HV_ACPI_PM1A_EVT_PORT)
#define TIMER_OFFSET   (HV_ACPI_PM_TMR_PORT - HV_ACPI_PM1A_EVT_PORT)

static uint64_t timer_ticks(const struct hv_acpi_pm *pm)
{
	return hv_ticks_of_ns(hv_guest_time_ns(pm->env.time), PM_TIMER_HZ);
}

/* Lock held: read the timer and notice that its top bit has changed since the last look. */
static uint64_t look_at_timer(struct hv_acpi_pm *pm)
{
	const uint64_t ticks = timer_ticks(pm);

	if (ticks >> 31 != pm->state.timer_half) {
		pm->state.timer_half = ticks >> 31;
		pm->state.status |= STATUS_TIMER;
	}
	return ticks;
}

static bool is_sci_high(const struct hv_acpi_pm *pm)
{
	return (pm->state.status & pm->state.enable) != 0;
}

static uint64_t pm_read(void *device, uint64_t offset, uint32_t size_bytes)
{
	struct hv_acpi_pm *pm = device;
	uint8_t image[PM_PORTS] = { 0 };
	uint64_t value = 0;

	{
		BASE_LOCKED(&pm->lock);
		const uint64_t ticks = look_at_timer(pm);

		hv_line_drive(&pm->line, is_sci_high(pm));
		base_put_le16(image + STATUS_OFFSET, pm->state.status);
		base_put_le16(image + ENABLE_OFFSET, pm->state.enable);
		base_put_le16(image + CONTROL_OFFSET, pm->state.control | CONTROL_SCI_EN);
		base_put_le32(image + TIMER_OFFSET, (uint32_t)ticks);
	}
	for (uint32_t i = 0; i < size_bytes; i++)
		value |= (uint64_t)image[offset + i] << (8 * i);
	return value;
}

/* @old with its low (@byte 0) or high byte replaced. */
static uint16_t with_byte(uint16_t old, uint64_t byte, uint8_t value)
{
	const unsigned int shift = byte == 0 ? 0 : 8;

	return (uint16_t)((old & ~(0xFFu << shift)) | (unsigned int)value << shift);
}

/* Lock held.  Tells whether the byte asks to go to sleep. */
static bool write_byte(struct hv_acpi_pm_state *state, uint64_t at, uint8_t byte)
{
	uint16_t control;

	switch (at & ~1ULL) {
	case STATUS_OFFSET: /* write one to clear */
		state->status &= (uint16_t)~with_byte(0, at & 1, byte);
		return false;
	case ENABLE_OFFSET:
		state->enable = with_byte(state->enable, at & 1, byte) & ENABLE_KEPT;
		return false;
	case CONTROL_OFFSET:
		control = with_byte(state->control, at & 1, byte);
		state->control = control & CONTROL_KEPT;
		return (control & CONTROL_SLP_EN) != 0;
	default:
		return false; /* the timer is read-only */
	}
}

static bool is_s5(const struct hv_acpi_pm_state *state)
{
	return (state->control >> CONTROL_SLP_TYP_SHIFT & CONTROL_SLP_TYP_MASK) ==
	       HV_ACPI_SLP_TYP_S5;
}

static void pm_write(void *device, uint64_t offset, uint32_t size_bytes, uint64_t value)
{
	struct hv_acpi_pm *pm = device;
	bool is_sleep = false;
	bool is_power_off;

	{
		BASE_LOCKED(&pm->lock);
		(void)look_at_timer(pm);
		for (uint32_t i = 0; i < size_bytes; i++)
			is_sleep |= write_byte(&pm->state, offset + i, (uint8_t)(value >> (8 * i)));
		is_power_off = is_sleep && is_s5(&pm->state);
		hv_line_drive(&pm->line, is_sci_high(pm));
	}
	if (is_power_off)
		pm->env.ops->power_off(pm->env.context);
}

static const struct hv_io_ops pm_ops = { .read = pm_read, .write = pm_write };

static struct hv_acpi_pm_state power_on_state(const struct hv_acpi_pm *pm)
{
	return (struct hv_acpi_pm_state){ .timer_half = timer_ticks(pm) >> 31 };
}

void hv_acpi_pm_init(void *device, const struct hv_device_env *env)
{
	struct hv_acpi_pm *pm = device;

	(void)pthread_mutex_init(&pm->lock, NULL);
	pm->env = *env;
	pm->line.irq = (struct hv_irq_line){ .set = env->ops->irq,
					     .context = env->context,
					     .gsi = HV_ACPI_SCI_IRQ };
	pm->state = power_on_state(pm);
}

int hv_acpi_pm_attach(void *device, struct base_error *err)
{
	struct hv_acpi_pm *pm = device;

	const struct hv_io_range range = { .space = HV_IO_PORT,
					   .base = HV_ACPI_PM1A_EVT_PORT,
					   .length = PM_PORTS,
					   .ops = &pm_ops,
					   .device = pm };

	return hv_iobus_add(pm->env.bus, &range, err);
}

void hv_acpi_pm_fini(void *device)
{
	struct hv_acpi_pm *pm = device;

	(void)pthread_mutex_destroy(&pm->lock);
}

void hv_acpi_pm_reset(void *device)
{
	struct hv_acpi_pm *pm = device;

	BASE_LOCKED(&pm->lock);
	pm->state = power_on_state(pm);
	hv_line_force(&pm->line, false);
}

void hv_acpi_pm_power_button(struct hv_acpi_pm *pm)
{
	BASE_LOCKED(&pm->lock);
	pm->state.status |= STATUS_BUTTON;
	hv_line_drive(&pm->line, is_sci_high(pm));
}

void hv_acpi_pm_loaded(void *device)
{
	struct hv_acpi_pm *pm = device;

	BASE_LOCKED(&pm->lock);
	hv_line_force(&pm->line, is_sci_high(pm));
}

void hv_acpi_pm_save(void *device, struct base_buffer *out)
{
	struct hv_acpi_pm *pm = device;

	BASE_LOCKED(&pm->lock);
	base_buffer_le16(out, pm->state.status);
	base_buffer_le16(out, pm->state.enable);
	base_buffer_le16(out, pm->state.control);
	base_buffer_le16(out, 0);
	base_buffer_le64(out, pm->state.timer_half);
}

int hv_acpi_pm_load(void *device, struct base_reader *in, struct base_error *err)
{
	struct hv_acpi_pm *pm = device;
	struct hv_acpi_pm_state state;
	uint16_t reserved;

	if (base_reader_left(in) != PM_PAYLOAD_BYTES)
		return base_fail(err, -EBADMSG, "%zu bytes, wanted %u", base_reader_left(in),
				 PM_PAYLOAD_BYTES);
	state.status = base_read_le16(in);
	state.enable = base_read_le16(in);
	state.control = base_read_le16(in);
	reserved = base_read_le16(in);
	state.timer_half = base_read_le64(in);
	if ((state.status & ~STATUS_KNOWN) != 0)
		return base_fail(err, -EBADMSG, "PM1 status 0x%04x has bits outside 0x%04x",
				 state.status, STATUS_KNOWN);
	if ((state.enable & ~ENABLE_KEPT) != 0)
		return base_fail(err, -EBADMSG, "PM1 enable 0x%04x has bits outside 0x%04x",
				 state.enable, ENABLE_KEPT);
	if ((state.control & ~CONTROL_KEPT) != 0)
		return base_fail(err, -EBADMSG, "PM1 control 0x%04x has bits outside 0x%04x",
				 state.control, CONTROL_KEPT);
	if (reserved != 0)
		return base_fail(err, -EBADMSG, "reserved 0x%04x, wanted 0", reserved);
	if (state.timer_half > hv_ticks_of_ns(UINT64_MAX, PM_TIMER_HZ) >> 31)
		return base_fail(err, -EBADMSG,
				 "PM timer half %" PRIu64 " is after the end of time",
				 state.timer_half);

	BASE_LOCKED(&pm->lock);
	pm->state = state;
	return 0;
}
