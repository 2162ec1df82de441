/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reset ports and the few others that old code touches.  Any thread; see
 * platform_priv.h.
 *
 *   0x61         speaker and refresh toggle; PIT channel 2 always reads as expired,
 *                so that calibration loops end
 *   0x64         no keyboard controller (reads 0xFF), but its reset command 0xFE
 *   0x92         A20 is always on; bit 0 resets
 *   0xCF8-0xCFF  no PCI (reads all ones), and in it
 *   0xCF9        the reset control register, byte access only
 *
 * Ports 0x60, 0x80 (POST code) and 0xED (delay) need no device: the bus answers
 * all ones to reads and drops writes.
 */
#include <errno.h>

#include "base/cleanup.h"
#include "hypervisor/acpi.h"
#include "hypervisor/platform_priv.h"

#define SPEAKER_PORT         0x61u
#define SPEAKER_KEPT         0x0Fu
#define SPEAKER_REFRESH      0x10u
#define SPEAKER_TIMER2       0x20u
#define REFRESH_HALF_NS      15085u /* DRAM refresh: the bit changes each 15.085 us */
#define KEYBOARD_PORT        0x64u
#define KEYBOARD_RESET       0xFEu
#define FAST_PORT            0x92u
#define FAST_RESET           0x01u
#define FAST_A20             0x02u
#define PCI_PORT             0xCF8u
#define PCI_PORTS            8u
#define RESET_OFFSET         (HV_ACPI_RESET_PORT - PCI_PORT)
#define RESET_CPU            0x04u
#define RESET_KEPT           0x0Au /* system reset, full reset: what kind, not yet when */
#define LEGACY_PAYLOAD_BYTES 4u

static void ask_reset(const struct hv_legacy_io *legacy)
{
	legacy->env.ops->reset(legacy->env.context);
}

static uint64_t speaker_read(void *device, uint64_t offset, uint32_t size_bytes)
{
	struct hv_legacy_io *legacy = device;
	const uint64_t halves = hv_guest_time_ns(legacy->env.time) / REFRESH_HALF_NS;

	(void)offset;
	(void)size_bytes;
	BASE_LOCKED(&legacy->lock);
	return legacy->state.speaker | SPEAKER_TIMER2 | ((halves & 1) != 0 ? SPEAKER_REFRESH : 0);
}

static void speaker_write(void *device, uint64_t offset, uint32_t size_bytes, uint64_t value)
{
	struct hv_legacy_io *legacy = device;

	(void)offset;
	(void)size_bytes;
	BASE_LOCKED(&legacy->lock);
	legacy->state.speaker = value & SPEAKER_KEPT;
}

static uint64_t keyboard_read(void *device, uint64_t offset, uint32_t size_bytes)
{
	(void)device;
	(void)offset;
	(void)size_bytes;
	return UINT64_MAX;
}

static void keyboard_write(void *device, uint64_t offset, uint32_t size_bytes, uint64_t value)
{
	(void)offset;
	(void)size_bytes;
	if (value == KEYBOARD_RESET)
		ask_reset(device);
}

static uint64_t fast_read(void *device, uint64_t offset, uint32_t size_bytes)
{
	(void)device;
	(void)offset;
	(void)size_bytes;
	return FAST_A20;
}

static void fast_write(void *device, uint64_t offset, uint32_t size_bytes, uint64_t value)
{
	(void)offset;
	(void)size_bytes;
	if ((value & FAST_RESET) != 0)
		ask_reset(device);
}

static uint64_t pci_read(void *device, uint64_t offset, uint32_t size_bytes)
{
	struct hv_legacy_io *legacy = device;

	if (offset != RESET_OFFSET || size_bytes != 1)
		return UINT64_MAX;
	BASE_LOCKED(&legacy->lock);
	return legacy->state.reset_control;
}

/* Wider accesses that touch 0xCF9 belong to the PCI address register, which is not there. */
static void pci_write(void *device, uint64_t offset, uint32_t size_bytes, uint64_t value)
{
	struct hv_legacy_io *legacy = device;

	if (offset != RESET_OFFSET || size_bytes != 1)
		return;
	{
		BASE_LOCKED(&legacy->lock);
		legacy->state.reset_control = value & RESET_KEPT;
	}
	if ((value & RESET_CPU) != 0)
		ask_reset(legacy);
}

static const struct hv_io_ops speaker_ops = { .read = speaker_read, .write = speaker_write };
static const struct hv_io_ops keyboard_ops = { .read = keyboard_read, .write = keyboard_write };
static const struct hv_io_ops fast_ops = { .read = fast_read, .write = fast_write };
static const struct hv_io_ops pci_ops = { .read = pci_read, .write = pci_write };

void hv_legacy_io_init(void *device, const struct hv_device_env *env)
{
	struct hv_legacy_io *legacy = device;

	(void)pthread_mutex_init(&legacy->lock, NULL);
	legacy->env = *env;
	legacy->state = (struct hv_legacy_io_state){ 0 };
}

int hv_legacy_io_attach(void *device, struct base_error *err)
{
	struct hv_legacy_io *legacy = device;
	const struct hv_io_range ranges[] = {
		{ HV_IO_PORT, SPEAKER_PORT, 1, &speaker_ops, legacy },
		{ HV_IO_PORT, KEYBOARD_PORT, 1, &keyboard_ops, legacy },
		{ HV_IO_PORT, FAST_PORT, 1, &fast_ops, legacy },
		{ HV_IO_PORT, PCI_PORT, PCI_PORTS, &pci_ops, legacy },
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		int rc = hv_iobus_add(legacy->env.bus, &ranges[i], err);

		if (rc < 0)
			return rc;
	}
	return 0;
}

void hv_legacy_io_fini(void *device)
{
	struct hv_legacy_io *legacy = device;

	(void)pthread_mutex_destroy(&legacy->lock);
}

void hv_legacy_io_reset(void *device)
{
	struct hv_legacy_io *legacy = device;

	BASE_LOCKED(&legacy->lock);
	legacy->state = (struct hv_legacy_io_state){ 0 };
}

void hv_legacy_io_loaded(void *device)
{
	(void)device; /* drives no line */
}

void hv_legacy_io_save(void *device, struct base_buffer *out)
{
	struct hv_legacy_io *legacy = device;

	BASE_LOCKED(&legacy->lock);
	base_buffer_u8(out, legacy->state.speaker);
	base_buffer_u8(out, legacy->state.reset_control);
	base_buffer_le16(out, 0);
}

int hv_legacy_io_load(void *device, struct base_reader *in, struct base_error *err)
{
	struct hv_legacy_io *legacy = device;
	struct hv_legacy_io_state state;
	uint16_t reserved;

	if (base_reader_left(in) != LEGACY_PAYLOAD_BYTES)
		return base_fail(err, -EBADMSG, "%zu bytes, wanted %u", base_reader_left(in),
				 LEGACY_PAYLOAD_BYTES);
	state.speaker = base_read_u8(in);
	state.reset_control = base_read_u8(in);
	reserved = base_read_le16(in);
	if ((state.speaker & ~SPEAKER_KEPT) != 0)
		return base_fail(err, -EBADMSG, "speaker 0x%02x not in 0..0x0f", state.speaker);
	if ((state.reset_control & ~RESET_KEPT) != 0)
		return base_fail(err, -EBADMSG, "reset control 0x%02x has bits outside 0x0a",
				 state.reset_control);
	if (reserved != 0)
		return base_fail(err, -EBADMSG, "reserved 0x%04x, wanted 0", reserved);

	BASE_LOCKED(&legacy->lock);
	legacy->state = state;
	return 0;
}
