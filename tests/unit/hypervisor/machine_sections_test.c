/* SPDX-License-Identifier: Apache-2.0 */
/* Sections "machine" and "time": round trips and each refusal. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "hypervisor/cpu_model.h"
#include "hypervisor/machine_sections.h"

static struct hv_machine_section a_machine(void)
{
	return (struct hv_machine_section){
		.name = "web1",
		.memory_bytes = 1ULL << 30,
		.vcpu_count = 4,
		.cpu_model = HV_CPU_MODEL_V2,
		.has_test_page = true,
	};
}

static struct hv_time_section a_time(void)
{
	return (struct hv_time_section){
		.host_real_ns = 5,
		.host_boot_ns = 6,
		.boot_id = { 1, 2, 3 },
		.guest_ns = 7,
		.tsc_khz = 2600000,
		.vcpu_count = 2,
		.tsc = { 10, 11 },
	};
}

static int decode_machine(const struct hv_machine_section *section, struct hv_machine_section *ret)
{
	struct base_buffer buffer = { .data = NULL };
	struct base_reader in;
	int r;

	hv_machine_section_encode(section, &buffer);
	in = base_reader_over(buffer.data, buffer.size_bytes);
	r = hv_machine_section_decode(&in, HV_MACHINE_SECTION_VERSION, ret, NULL);
	cr_assert(r < 0 || base_reader_left(&in) == 0);
	base_buffer_fini(&buffer);
	return r;
}

static int decode_time(const struct hv_time_section *section, struct hv_time_section *ret)
{
	struct base_buffer buffer = { .data = NULL };
	struct base_reader in;
	int r;

	hv_time_section_encode(section, &buffer);
	in = base_reader_over(buffer.data, buffer.size_bytes);
	r = hv_time_section_decode(&in, HV_TIME_SECTION_VERSION, ret, NULL);
	cr_assert(r < 0 || base_reader_left(&in) == 0);
	base_buffer_fini(&buffer);
	return r;
}

Test(machine_sections, round_trips)
{
	struct hv_machine_section machine = a_machine();
	struct hv_machine_section machine_again;
	struct hv_time_section time = a_time();
	struct hv_time_section time_again;

	cr_assert_eq(decode_machine(&machine, &machine_again), 0);
	cr_assert_str_eq(machine_again.name, "web1");
	cr_assert_eq(machine_again.memory_bytes, machine.memory_bytes);
	cr_assert(machine_again.has_test_page);
	cr_assert_eq(decode_time(&time, &time_again), 0);
	cr_assert_eq(time_again.tsc[1], 11);
	cr_assert_eq(time_again.guest_ns, 7);
	cr_assert_not(time_again.host_sets_date);
	time.host_sets_date = true;
	cr_assert_eq(decode_time(&time, &time_again), 0);
	cr_assert(time_again.host_sets_date);
}

Test(machine_sections, time_of_version_1_has_nobody_who_sets_the_date)
{
	struct hv_time_section time = a_time();
	struct base_buffer buffer = { .data = NULL };
	struct base_reader in;

	time.host_sets_date = true;
	hv_time_section_encode(&time, &buffer);
	in = base_reader_over(buffer.data, buffer.size_bytes - 4);
	cr_assert_eq(hv_time_section_decode(&in, 1, &time, NULL), 0);
	cr_assert_not(time.host_sets_date);
	buffer.data[buffer.size_bytes - 4] = 2;
	in = base_reader_over(buffer.data, buffer.size_bytes);
	cr_assert_eq(hv_time_section_decode(&in, 2, &time, NULL), -EBADMSG);
	base_buffer_fini(&buffer);
}

/* A guest that sets its date itself needs all of the gap; another takes a long one for a stall. */
Test(machine_sections, a_long_gap_is_kept_from_a_guest_whose_date_is_set)
{
	struct hv_time_section time = a_time();

	cr_assert_eq(hv_time_gap_ns(&time, 1000 * HV_TIME_GAP_MAX_NS), 1000 * HV_TIME_GAP_MAX_NS);
	time.host_sets_date = true;
	cr_assert_eq(hv_time_gap_ns(&time, HV_TIME_GAP_MAX_NS), HV_TIME_GAP_MAX_NS);
	cr_assert_eq(hv_time_gap_ns(&time, HV_TIME_GAP_MAX_NS + 1), 0);
}

Test(machine_sections, machine_values_out_of_range_are_refused)
{
	struct hv_machine_section ret;
	struct hv_machine_section bad = a_machine();

	bad.memory_bytes = 4096;
	cr_assert_eq(decode_machine(&bad, &ret), -EBADMSG);
	bad = a_machine();
	bad.memory_bytes += 4096;
	cr_assert_eq(decode_machine(&bad, &ret), -EBADMSG);
	bad = a_machine();
	bad.vcpu_count = 0;
	cr_assert_eq(decode_machine(&bad, &ret), -EBADMSG);
	bad.vcpu_count = 65;
	cr_assert_eq(decode_machine(&bad, &ret), -EBADMSG);
	bad = a_machine();
	bad.cpu_model = HV_CPU_MODELS;
	cr_assert_eq(decode_machine(&bad, &ret), -EBADMSG);
	bad = a_machine();
	bad.name[20] = 'x'; /* something behind the name's end */
	cr_assert_eq(decode_machine(&bad, &ret), -EBADMSG);
	memset(bad.name, 'x', sizeof(bad.name)); /* no end */
	cr_assert_eq(decode_machine(&bad, &ret), -EBADMSG);
}

Test(machine_sections, time_values_out_of_range_are_refused)
{
	struct hv_time_section ret;
	struct hv_time_section bad = a_time();

	bad.guest_ns = 1ULL << 63;
	cr_assert_eq(decode_time(&bad, &ret), -EBADMSG);
	bad = a_time();
	bad.tsc_khz = 1ULL << 32;
	cr_assert_eq(decode_time(&bad, &ret), -EBADMSG);
	bad = a_time();
	bad.vcpu_count = 0;
	cr_assert_eq(decode_time(&bad, &ret), -EBADMSG);
}

Test(machine_sections, every_truncation_and_a_newer_version_are_refused)
{
	struct hv_machine_section machine = a_machine();
	struct hv_time_section time = a_time();
	struct base_buffer buffer = { .data = NULL };
	struct base_reader in;

	hv_machine_section_encode(&machine, &buffer);
	for (size_t size = 0; size < buffer.size_bytes; size++) {
		in = base_reader_over(buffer.data, size);
		cr_assert_eq(hv_machine_section_decode(&in, 1, &machine, NULL), -EBADMSG);
	}
	in = base_reader_over(buffer.data, buffer.size_bytes);
	cr_assert_eq(hv_machine_section_decode(&in, 2, &machine, NULL), -ENOTSUP);
	base_buffer_fini(&buffer);
	hv_time_section_encode(&time, &buffer);
	for (size_t size = 0; size < buffer.size_bytes; size++) {
		in = base_reader_over(buffer.data, size);
		cr_assert_eq(hv_time_section_decode(&in, 2, &time, NULL), -EBADMSG);
	}
	in = base_reader_over(buffer.data, buffer.size_bytes);
	cr_assert_eq(hv_time_section_decode(&in, 3, &time, NULL), -ENOTSUP);
	base_buffer_fini(&buffer);
}
