/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices of the platform, for this folder's own use.
 *
 * Shape of a device: a plain `state` that the guest can see and that is saved, a
 * leaf lock over it, and what it needs of the rest.  load decodes into a fresh
 * state, checks all of it, and only then replaces the old one.
 *
 * Interrupt lines are driven with the device's lock held: two processors that
 * change a level at once must not overtake each other.  Every other callback is
 * called after the lock was released.
 *
 * Life: init makes the lock and the power-on state and cannot fail, attach claims
 * the ports, fini ends both.  loaded puts the line where the state says.
 */
#ifndef HYPERVISOR_PLATFORM_PRIV_H
#define HYPERVISOR_PLATFORM_PRIV_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "hypervisor/iobus.h"
#include "hypervisor/platform.h"

#define HV_UART_PORT     0x3F8u
#define HV_UART_IRQ      4u
#define HV_RTC_PORT      0x70u
#define HV_RTC_RAM_BYTES 128u

/* An interrupt output and the level last put on it, so that only changes cost a call. */
struct hv_line {
	struct hv_irq_line irq;
	int level;
};

static inline void hv_line_force(struct hv_line *line, bool is_high)
{
	line->level = is_high ? 1 : 0;
	hv_irq_set(&line->irq, line->level);
}

static inline void hv_line_drive(struct hv_line *line, bool is_high)
{
	if (line->level != (is_high ? 1 : 0))
		hv_line_force(line, is_high);
}

/* How often a clock of @hz has ticked in @ns; cannot overflow for hz < 2^30. */
static inline uint64_t hv_ticks_of_ns(uint64_t ns, uint64_t hz)
{
	return ns / BASE_NS_PER_SECOND * hz + ns % BASE_NS_PER_SECOND * hz / BASE_NS_PER_SECOND;
}

/* What every device is given at birth.  A value; what it points to is borrowed. */
struct hv_device_env {
	struct hv_iobus *bus;
	const struct hv_platform_ops *ops;
	void *context;
	const struct hv_guest_time *time;
};

/* --- uart.c: 16550A at 0x3F8, IRQ 4 --- */

#define HV_UART_FIFO_BYTES 16u

struct hv_uart_state {
	uint8_t ier;
	uint8_t fcr; /* enable, DMA mode, trigger; 0 while the FIFOs are off */
	uint8_t lcr;
	uint8_t mcr;
	uint8_t lsr_errors; /* overrun only */
	uint8_t msr_delta;  /* low four bits of MSR */
	uint8_t scratch;
	uint8_t divisor_low;
	uint8_t divisor_high;
	bool is_thre_pending;
	uint8_t rx_count;
	uint8_t rx[HV_UART_FIFO_BYTES]; /* oldest first; zero from rx_count on */
};

struct hv_uart {
	pthread_mutex_t lock;
	struct hv_device_env env;
	struct hv_line line;
	void (*room)(void *context);
	void *room_context;
	bool is_starved; /* console_in took less than it was given */
	struct hv_uart_state state;
};

void hv_uart_init(void *device, const struct hv_device_env *env);
int hv_uart_attach(void *device, struct base_error *err);
void hv_uart_fini(void *device);
void hv_uart_reset(void *device);
void hv_uart_save(void *device, struct base_buffer *out);
int hv_uart_load(void *device, struct base_reader *in, struct base_error *err);
void hv_uart_loaded(void *device);
size_t hv_uart_receive(struct hv_uart *uart, const uint8_t *bytes, size_t size_bytes);
void hv_uart_on_room(struct hv_uart *uart, void (*room)(void *context), void *context);

/* --- rtc.c: MC146818 at 0x70 --- */

/* Guest time of day = host's real time + offset_s + phase_ns. */
struct hv_rtc_state {
	int64_t offset_s;
	uint32_t phase_ns; /* below one second */
	uint8_t index;     /* of the register that port 0x71 shows */
	uint8_t control_a; /* without UIP */
	uint8_t control_b;
	bool is_set_by_guest;   /* halted, and a time register was written since */
	int64_t update_seen_s;  /* time of day when register C was last read */
	uint64_t periodic_seen; /* 32768 Hz ticks of guest time then */
	/* NVRAM and alarm bytes; time bytes only while the clock is halted, else zero. */
	uint8_t ram[HV_RTC_RAM_BYTES];
};

struct hv_rtc {
	pthread_mutex_t lock;
	struct hv_device_env env;
	struct hv_rtc_state state;
};

void hv_rtc_init(void *device, const struct hv_device_env *env);
int hv_rtc_attach(void *device, struct base_error *err);
void hv_rtc_fini(void *device);
void hv_rtc_reset(void *device);
void hv_rtc_save(void *device, struct base_buffer *out);
int hv_rtc_load(void *device, struct base_reader *in, struct base_error *err);
void hv_rtc_loaded(void *device);

/* --- acpi_pm.c: PM1a and the PM timer at 0x600, SCI --- */

struct hv_acpi_pm_state {
	uint16_t status;
	uint16_t enable;
	uint16_t control;
	uint64_t timer_half; /* PM timer ticks / 2^31, last time they were looked at */
};

struct hv_acpi_pm {
	pthread_mutex_t lock;
	struct hv_device_env env;
	struct hv_line line;
	struct hv_acpi_pm_state state;
};

void hv_acpi_pm_init(void *device, const struct hv_device_env *env);
int hv_acpi_pm_attach(void *device, struct base_error *err);
void hv_acpi_pm_fini(void *device);
void hv_acpi_pm_reset(void *device);
void hv_acpi_pm_save(void *device, struct base_buffer *out);
int hv_acpi_pm_load(void *device, struct base_reader *in, struct base_error *err);
void hv_acpi_pm_loaded(void *device);
void hv_acpi_pm_power_button(struct hv_acpi_pm *pm);

/* --- legacy_io.c: reset ports and what else old code touches --- */

struct hv_legacy_io_state {
	uint8_t speaker;       /* bits 0 to 3 of port 0x61 */
	uint8_t reset_control; /* bits 1 and 3 of port 0xCF9 */
};

struct hv_legacy_io {
	pthread_mutex_t lock;
	struct hv_device_env env;
	struct hv_legacy_io_state state;
};

void hv_legacy_io_init(void *device, const struct hv_device_env *env);
int hv_legacy_io_attach(void *device, struct base_error *err);
void hv_legacy_io_fini(void *device);
void hv_legacy_io_reset(void *device);
void hv_legacy_io_save(void *device, struct base_buffer *out);
int hv_legacy_io_load(void *device, struct base_reader *in, struct base_error *err);
void hv_legacy_io_loaded(void *device);

#endif
