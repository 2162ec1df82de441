/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's few devices in user space besides what KVM emulates: serial port,
 * RTC, ACPI power management, reset and legacy ports.  No PCI, no HPET.
 *
 * Each device is embedded or opaque behind the same shape: init, reset (power-on
 * state, configuration kept), save to and load from a saved-state section.  Each
 * has a lock of its own (a leaf): handlers run on vCPU threads.
 */
#ifndef HYPERVISOR_PLATFORM_H
#define HYPERVISOR_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "hypervisor/iobus.h"

/* What the devices need of the rest.  Called on vCPU threads (and console_out also on
 * others); must not block and must not call back into the platform.  irq runs under the
 * lock of the device that drives the line, so that levels keep their order.  power_off
 * and reset come again when the guest asks again before it has stopped. */
struct hv_platform_ops {
	void (*power_off)(void *context); /* guest wrote S5 */
	void (*reset)(void *context);     /* 0xCF9, 0x64 or port 0x92 */
	void (*console_out)(void *context, const uint8_t *bytes, size_t size_bytes);
	void (*irq)(void *context, uint32_t gsi, int level);
};

/*
 * Guest time.  boot_ns runs on while the VM is paused and over save and restore:
 * saved value plus what really elapsed.  Set up by the machine.
 */
struct hv_guest_time {
	const struct base_clock *clock;
	int64_t boot_offset_ns; /* guest_ns = clock boot_ns + this */
};
uint64_t hv_guest_time_ns(const struct hv_guest_time *time);

struct hv_platform;

/* Creates all devices and claims their ports on @bus.  @ops, @time, @bus borrowed.
 * -ENOMEM; the errors of hv_iobus_add(): then @bus is good for hv_iobus_free() only. */
BASE_MUST_CHECK int hv_platform_new(struct hv_iobus *bus, const struct hv_platform_ops *ops,
				    void *context, const struct hv_guest_time *time,
				    struct hv_platform **ret_platform, struct base_error *err);
void hv_platform_free(struct hv_platform *platform); /* NULL is fine */
/* Power-on state of every device (the RTC keeps its time); lines are lowered.  vCPUs are parked. */
void hv_platform_reset(struct hv_platform *platform);

/* Press the power button (fixed feature button: PWRBTN_STS and SCI).  Any thread. */
void hv_platform_power_button(struct hv_platform *platform);
/* Bytes typed on the console; the count taken (the receive FIFO is finite).  Any thread. */
size_t hv_platform_console_in(struct hv_platform *platform, const uint8_t *bytes,
			      size_t size_bytes);
/* Called (on a vCPU thread, or on the one that resets or ends a load) when the receiver has
 * room again after console_in took less.  Set before the vCPUs run. */
void hv_platform_on_console_room(struct hv_platform *platform, void (*room)(void *context),
				 void *context);

/*
 * Device sections of the saved state: names "uart", "rtc", "acpi-pm", "legacy-io".
 * index 0..hv_platform_section_count()-1.  save appends the payload; load checks all
 * of it before changing anything: -EBADMSG malformed, -ENOTSUP newer version.
 */
struct hv_platform_section {
	const char *name;
	uint32_t version;
};
size_t hv_platform_section_count(void);
struct hv_platform_section hv_platform_section(size_t index);
void hv_platform_save(struct hv_platform *platform, size_t index, struct base_buffer *out);
BASE_MUST_CHECK int hv_platform_load(struct hv_platform *platform, size_t index, uint32_t version,
				     struct base_reader *in, struct base_error *err);
/* After all sections are loaded and before vCPUs run: raise lines as the state says. */
void hv_platform_loaded(struct hv_platform *platform);

#endif
