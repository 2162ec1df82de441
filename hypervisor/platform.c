/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The platform: its devices put together, and their saved-state sections.
 * Threads and invariants: platform.h and platform_priv.h.
 */
#include "hypervisor/platform.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "hypervisor/platform_priv.h"

struct hv_platform {
	struct hv_uart uart;
	struct hv_rtc rtc;
	struct hv_acpi_pm acpi_pm;
	struct hv_legacy_io legacy_io;
};

/* One row per device, in the order in which the sections are saved. */
static const struct device_class {
	struct hv_platform_section section;
	size_t offset_bytes; /* in struct hv_platform */
	void (*init)(void *device, const struct hv_device_env *env);
	int (*attach)(void *device, struct base_error *err);
	void (*fini)(void *device);
	void (*reset)(void *device);
	void (*save)(void *device, struct base_buffer *out);
	int (*load)(void *device, struct base_reader *in, struct base_error *err);
	void (*loaded)(void *device);
} device_classes[] = {
	{
		.section = { .name = "uart", .version = 1 },
		.offset_bytes = offsetof(struct hv_platform, uart),
		.init = hv_uart_init,
		.attach = hv_uart_attach,
		.fini = hv_uart_fini,
		.reset = hv_uart_reset,
		.save = hv_uart_save,
		.load = hv_uart_load,
		.loaded = hv_uart_loaded,
	},
	{
		.section = { .name = "rtc", .version = 1 },
		.offset_bytes = offsetof(struct hv_platform, rtc),
		.init = hv_rtc_init,
		.attach = hv_rtc_attach,
		.fini = hv_rtc_fini,
		.reset = hv_rtc_reset,
		.save = hv_rtc_save,
		.load = hv_rtc_load,
		.loaded = hv_rtc_loaded,
	},
	{
		.section = { .name = "acpi-pm", .version = 1 },
		.offset_bytes = offsetof(struct hv_platform, acpi_pm),
		.init = hv_acpi_pm_init,
		.attach = hv_acpi_pm_attach,
		.fini = hv_acpi_pm_fini,
		.reset = hv_acpi_pm_reset,
		.save = hv_acpi_pm_save,
		.load = hv_acpi_pm_load,
		.loaded = hv_acpi_pm_loaded,
	},
	{
		.section = { .name = "legacy-io", .version = 1 },
		.offset_bytes = offsetof(struct hv_platform, legacy_io),
		.init = hv_legacy_io_init,
		.attach = hv_legacy_io_attach,
		.fini = hv_legacy_io_fini,
		.reset = hv_legacy_io_reset,
		.save = hv_legacy_io_save,
		.load = hv_legacy_io_load,
		.loaded = hv_legacy_io_loaded,
	},
};
#define DEVICE_COUNT (sizeof(device_classes) / sizeof(device_classes[0]))

BASE_DEFINE_FREEP(struct hv_platform, hv_platform_free);

static void *device_of(struct hv_platform *platform, size_t index)
{
	return (char *)platform + device_classes[index].offset_bytes;
}

uint64_t hv_guest_time_ns(const struct hv_guest_time *time)
{
	uint64_t now_ns = base_clock_boot_ns(time->clock);
	uint64_t back_ns;

	if (time->boot_offset_ns >= 0)
		return now_ns + (uint64_t)time->boot_offset_ns;
	back_ns = 0 - (uint64_t)time->boot_offset_ns;
	return back_ns < now_ns ? now_ns - back_ns : 0;
}

int hv_platform_new(struct hv_iobus *bus, const struct hv_platform_ops *ops, void *context,
		    const struct hv_guest_time *time, struct hv_platform **ret_platform,
		    struct base_error *err)
{
	const struct hv_device_env env = {
		.bus = bus, .ops = ops, .context = context, .time = time
	};
	BASE_CLEANUP(hv_platform_freep)
	struct hv_platform *platform = calloc(1, sizeof(*platform));

	if (platform == NULL)
		return base_fail(err, -ENOMEM, "platform devices, %zu bytes", sizeof(*platform));
	for (size_t i = 0; i < DEVICE_COUNT; i++)
		device_classes[i].init(device_of(platform, i), &env);
	for (size_t i = 0; i < DEVICE_COUNT; i++) {
		int rc = device_classes[i].attach(device_of(platform, i), err);

		if (rc < 0)
			return base_fail_within(err, rc, "device '%s'",
						device_classes[i].section.name);
	}

	*ret_platform = base_take(&platform);
	return 0;
}

void hv_platform_free(struct hv_platform *platform)
{
	if (platform == NULL)
		return;
	for (size_t i = 0; i < DEVICE_COUNT; i++)
		device_classes[i].fini(device_of(platform, i));
	free(platform);
}

void hv_platform_reset(struct hv_platform *platform)
{
	for (size_t i = 0; i < DEVICE_COUNT; i++)
		device_classes[i].reset(device_of(platform, i));
}

void hv_platform_power_button(struct hv_platform *platform)
{
	hv_acpi_pm_power_button(&platform->acpi_pm);
}

size_t hv_platform_console_in(struct hv_platform *platform, const uint8_t *bytes, size_t size_bytes)
{
	return hv_uart_receive(&platform->uart, bytes, size_bytes);
}

void hv_platform_on_console_room(struct hv_platform *platform, void (*room)(void *context),
				 void *context)
{
	hv_uart_on_room(&platform->uart, room, context);
}

size_t hv_platform_section_count(void)
{
	return DEVICE_COUNT;
}

struct hv_platform_section hv_platform_section(size_t index)
{
	base_assert(index < DEVICE_COUNT);
	return device_classes[index].section;
}

void hv_platform_save(struct hv_platform *platform, size_t index, struct base_buffer *out)
{
	base_assert(index < DEVICE_COUNT);
	device_classes[index].save(device_of(platform, index), out);
}

int hv_platform_load(struct hv_platform *platform, size_t index, uint32_t version,
		     struct base_reader *in, struct base_error *err)
{
	const struct hv_platform_section section = hv_platform_section(index);
	int rc;

	if (version == 0)
		return base_fail(err, -EBADMSG, "section '%s': version 0", section.name);
	if (version > section.version)
		return base_fail(err, -ENOTSUP,
				 "section '%s': version %" PRIu32
				 ", this program knows up to %" PRIu32,
				 section.name, version, section.version);
	rc = device_classes[index].load(device_of(platform, index), in, err);
	return rc < 0 ? base_fail_within(err, rc, "section '%s'", section.name) : 0;
}

void hv_platform_loaded(struct hv_platform *platform)
{
	for (size_t i = 0; i < DEVICE_COUNT; i++)
		device_classes[i].loaded(device_of(platform, i));
}
