/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/machine_sections.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "hypervisor/cpu_model.h"

#define FLAG_TEST_PAGE 1u

void hv_machine_section_encode(const struct hv_machine_section *section, struct base_buffer *out)
{
	base_buffer_append(out, section->name, sizeof(section->name));
	base_buffer_le64(out, section->memory_bytes);
	base_buffer_le32(out, section->vcpu_count);
	base_buffer_le32(out, section->cpu_model);
	base_buffer_le32(out, section->has_test_page ? FLAG_TEST_PAGE : 0);
}

static bool name_is_canonical(const char *name, size_t size_bytes)
{
	size_t length = strnlen(name, size_bytes);

	return length < size_bytes && base_is_zero(name + length, size_bytes - length);
}

int hv_machine_section_decode(struct base_reader *in, uint32_t version,
			      struct hv_machine_section *ret_section, struct base_error *err)
{
	struct hv_machine_section section = { .memory_bytes = 0 };
	uint32_t flags;

	if (version != HV_MACHINE_SECTION_VERSION)
		return base_fail(err, -ENOTSUP, "version %" PRIu32 ", expected %u", version,
				 HV_MACHINE_SECTION_VERSION);
	base_read_bytes(in, section.name, sizeof(section.name));
	section.memory_bytes = base_read_le64(in);
	section.vcpu_count = base_read_le32(in);
	section.cpu_model = base_read_le32(in);
	flags = base_read_le32(in);
	if (in->failed)
		return base_fail(err, -EBADMSG, "truncated");
	if (!name_is_canonical(section.name, sizeof(section.name)))
		return base_fail(err, -EBADMSG, "name: expected up to %u bytes and zeros behind",
				 HV_NAME_BYTES - 1);
	if (section.memory_bytes < HV_MEMORY_BYTES_MIN ||
	    section.memory_bytes > HV_MEMORY_BYTES_MAX ||
	    section.memory_bytes % HV_HUGE_PAGE_BYTES != 0)
		return base_fail(err, -EBADMSG,
				 "memory of %" PRIu64
				 " bytes: expected 64 MiB to 64 TiB in steps of 2 MiB",
				 section.memory_bytes);
	if (section.vcpu_count < 1 || section.vcpu_count > HV_VCPUS_MAX)
		return base_fail(err, -EBADMSG, "%" PRIu32 " vCPUs: expected 1 to %u",
				 section.vcpu_count, HV_VCPUS_MAX);
	if (section.cpu_model <= HV_CPU_MODEL_INVALID || section.cpu_model >= HV_CPU_MODELS)
		return base_fail(err, -EBADMSG, "cpu model %" PRIu32 ": expected 1 to %d",
				 section.cpu_model, HV_CPU_MODELS - 1);
	if ((flags & ~FLAG_TEST_PAGE) != 0)
		return base_fail(err, -EBADMSG, "flags 0x%" PRIx32 ": expected 0 or 1", flags);
	section.has_test_page = (flags & FLAG_TEST_PAGE) != 0;
	*ret_section = section;
	return 0;
}

void hv_time_section_encode(const struct hv_time_section *section, struct base_buffer *out)
{
	base_buffer_le64(out, section->host_real_ns);
	base_buffer_le64(out, section->host_boot_ns);
	base_buffer_append(out, section->boot_id, sizeof(section->boot_id));
	base_buffer_le64(out, section->guest_ns);
	base_buffer_le64(out, section->tsc_khz);
	base_buffer_le32(out, section->vcpu_count);
	for (uint32_t i = 0; i < section->vcpu_count; i++)
		base_buffer_le64(out, section->tsc[i]);
	base_buffer_le32(out, section->host_sets_date);
}

int hv_time_section_decode(struct base_reader *in, uint32_t version,
			   struct hv_time_section *ret_section, struct base_error *err)
{
	struct hv_time_section section = { .host_real_ns = 0 };
	uint32_t flags;

	if (version < 1 || version > HV_TIME_SECTION_VERSION)
		return base_fail(err, -ENOTSUP, "version %" PRIu32 ", expected 1 to %u", version,
				 HV_TIME_SECTION_VERSION);
	section.host_real_ns = base_read_le64(in);
	section.host_boot_ns = base_read_le64(in);
	base_read_bytes(in, section.boot_id, sizeof(section.boot_id));
	section.guest_ns = base_read_le64(in);
	section.tsc_khz = base_read_le64(in);
	section.vcpu_count = base_read_le32(in);
	if (in->failed)
		return base_fail(err, -EBADMSG, "truncated");
	if (section.vcpu_count < 1 || section.vcpu_count > HV_VCPUS_MAX)
		return base_fail(err, -EBADMSG, "%" PRIu32 " vCPUs: expected 1 to %u",
				 section.vcpu_count, HV_VCPUS_MAX);
	for (uint32_t i = 0; i < section.vcpu_count; i++)
		section.tsc[i] = base_read_le64(in);
	flags = version >= 2 ? base_read_le32(in) : 0;
	if (in->failed)
		return base_fail(err, -EBADMSG, "truncated");
	if (flags > 1)
		return base_fail(err, -EBADMSG, "flags 0x%" PRIx32 ": expected 0 or 1", flags);
	section.host_sets_date = flags == 1;
	/* Times a clock cannot reach in two hundred years are damage, and sums of them would wrap.
	 */
	if ((section.host_real_ns | section.host_boot_ns | section.guest_ns) >> 63 != 0)
		return base_fail(err, -EBADMSG,
				 "times of %" PRIu64 ", %" PRIu64 " and %" PRIu64
				 " ns: expected less than 2^63",
				 section.host_real_ns, section.host_boot_ns, section.guest_ns);
	if (section.tsc_khz >> 32 != 0)
		return base_fail(err, -EBADMSG, "TSC of %" PRIu64 " kHz: expected less than 2^32",
				 section.tsc_khz);
	*ret_section = section;
	return 0;
}

uint64_t hv_time_gap_ns(const struct hv_time_section *section, uint64_t elapsed_ns)
{
#ifdef GODWIT_MUTANT_RESTORE_GAP
	(void)section;
#else
	if (section->host_sets_date && elapsed_ns > HV_TIME_GAP_MAX_NS)
		return 0;
#endif
	return elapsed_ns;
}
