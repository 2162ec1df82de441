/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The XSAVE area in the standard format: 512 bytes as of FXSAVE, a 64-byte header that
 * begins with XSTATE_BV, then each component where CPUID leaf 0xD says.  Intel SDM
 * volume 1, section 13.4.
 */
#include "hypervisor/vcpu_xsave.h"

#include <cpuid.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#define AREA_BYTES_MIN 4096u /* sizeof(struct kvm_xsave) before it could grow */
#define HEADER_END     576u
#define FIRST_PLACED   2u /* x87 and SSE are in the legacy part */

int hv_xsave_layout_get(int kvm_fd, struct hv_xsave_layout *ret_layout, struct base_error *err)
{
	int area = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

	memset(ret_layout, 0, sizeof(*ret_layout));
	if (area < (int)AREA_BYTES_MIN)
		area = (int)AREA_BYTES_MIN;
	if (area > (int)HV_VCPU_XSAVE_BYTES_MAX)
		return base_fail(err, -ENOTSUP, "this host's XSAVE area has %d bytes, limit %u",
				 area, HV_VCPU_XSAVE_BYTES_MAX);
	ret_layout->area_bytes = (uint32_t)area;
	for (uint32_t i = FIRST_PLACED; i < HV_XSAVE_COMPONENTS; i++) {
		struct hv_xsave_place *place = &ret_layout->places[i];
		uint32_t size = 0;
		uint32_t offset = 0;
		uint32_t flags = 0;
		uint32_t unused = 0;

		if (__get_cpuid_count(0xd, i, &size, &offset, &flags, &unused) == 0)
			break;
		/* Supervisor components (flags bit 0) are not in this format. */
		if ((flags & 1) != 0 || offset < HEADER_END || offset > ret_layout->area_bytes ||
		    size > ret_layout->area_bytes - offset)
			continue;
		*place = (struct hv_xsave_place){ offset, size };
	}
	return 0;
}

static bool has(const struct hv_xsave *xsave, uint32_t component)
{
	return (xsave->components >> component & 1) != 0;
}

int hv_xsave_unpack(const struct hv_xsave_layout *layout, const uint8_t *area,
		    struct hv_xsave *ret_xsave, struct base_error *err)
{
	memset(ret_xsave, 0, sizeof(*ret_xsave));
	memcpy(ret_xsave->legacy, area, HV_XSAVE_LEGACY_BYTES);
	ret_xsave->components = base_get_le64(area + HV_XSAVE_LEGACY_BYTES);
	if (ret_xsave->components >> HV_XSAVE_COMPONENTS != 0)
		return base_fail(err, -ENOTSUP, "XSTATE_BV 0x%" PRIx64, ret_xsave->components);
	for (uint32_t i = FIRST_PLACED; i < HV_XSAVE_COMPONENTS; i++) {
		const struct hv_xsave_place *place = &layout->places[i];

		if (!has(ret_xsave, i))
			continue;
		if (place->size_bytes == 0 ||
		    place->size_bytes > sizeof(ret_xsave->data) - ret_xsave->data_bytes)
			return base_fail(err, -ENOTSUP,
					 "XSAVE component %" PRIu32
					 " is in use, but CPUID gives it no place",
					 i);
		memcpy(ret_xsave->data + ret_xsave->data_bytes, area + place->offset,
		       place->size_bytes);
		ret_xsave->size_bytes[i] = place->size_bytes;
		ret_xsave->data_bytes += place->size_bytes;
	}
	return 0;
}

int hv_xsave_pack(const struct hv_xsave_layout *layout, const struct hv_xsave *xsave,
		  uint8_t *ret_area, struct base_error *err)
{
	uint32_t at = 0;

	memset(ret_area, 0, layout->area_bytes);
	memcpy(ret_area, xsave->legacy, HV_XSAVE_LEGACY_BYTES);
	base_put_le64(ret_area + HV_XSAVE_LEGACY_BYTES, xsave->components);
	for (uint32_t i = FIRST_PLACED; i < HV_XSAVE_COMPONENTS; i++) {
		const struct hv_xsave_place *place = &layout->places[i];

		if (!has(xsave, i))
			continue;
		if (place->size_bytes != xsave->size_bytes[i])
			return base_fail(err, -ENOTSUP,
					 "XSAVE component %" PRIu32 " is in use with %" PRIu32
					 " bytes, this host has %" PRIu32 " for it",
					 i, xsave->size_bytes[i], place->size_bytes);
		base_assert(at <= xsave->data_bytes && place->size_bytes <= xsave->data_bytes - at);
		memcpy(ret_area + place->offset, xsave->data + at, place->size_bytes);
		at += place->size_bytes;
	}
	return 0;
}

void hv_xsave_encode(const struct hv_xsave *xsave, struct base_buffer *out)
{
	uint32_t at = 0;

	base_buffer_le64(out, xsave->components);
	base_buffer_append(out, xsave->legacy, HV_XSAVE_LEGACY_BYTES);
	for (uint32_t i = FIRST_PLACED; i < HV_XSAVE_COMPONENTS; i++) {
		if (!has(xsave, i))
			continue;
		base_buffer_le32(out, xsave->size_bytes[i]);
		base_buffer_append(out, xsave->data + at, xsave->size_bytes[i]);
		at += xsave->size_bytes[i];
	}
}

int hv_xsave_decode(struct base_reader *in, struct hv_xsave *ret_xsave, struct base_error *err)
{
	memset(ret_xsave, 0, sizeof(*ret_xsave));
	ret_xsave->components = base_read_le64(in);
	base_read_bytes(in, ret_xsave->legacy, HV_XSAVE_LEGACY_BYTES);
	if (ret_xsave->components >> HV_XSAVE_COMPONENTS != 0)
		return base_fail(err, -EBADMSG, "XSTATE_BV 0x%" PRIx64, ret_xsave->components);
	for (uint32_t i = FIRST_PLACED; i < HV_XSAVE_COMPONENTS && !in->failed; i++) {
		uint32_t size = 0;

		if (!has(ret_xsave, i))
			continue;
		size = base_read_le32(in);
		if (in->failed)
			break;
		if (size == 0 || size > sizeof(ret_xsave->data) - ret_xsave->data_bytes)
			return base_fail(err, -EBADMSG,
					 "XSAVE component %" PRIu32 " with %" PRIu32
					 " bytes, %u are allowed in all",
					 i, size, HV_VCPU_XSAVE_BYTES_MAX);
		base_read_bytes(in, ret_xsave->data + ret_xsave->data_bytes, size);
		ret_xsave->size_bytes[i] = size;
		ret_xsave->data_bytes += size;
	}
	if (in->failed)
		return base_fail(err, -EBADMSG, "XSAVE: truncated");
	return 0;
}
