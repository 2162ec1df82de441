/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The section "chips" as bytes, without KVM.  (With it: vcpu_state_test.c.)
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/vcpu_state.h"

#define AT_SLAVE    16u
#define AT_PIT      (32u + 20 + 192)
#define AT_PIT_FLAG (AT_PIT + 48)
#define AT_CLOCK    (AT_PIT_FLAG + 4)
#define ALL_BYTES   (AT_CLOCK + 20)

static struct hv_chip_state example(void)
{
	struct hv_chip_state s;

	memset(&s, 0, sizeof(s));
	s.pic_master.chip_id = KVM_IRQCHIP_PIC_MASTER;
	s.pic_master.chip.pic.imr = 0xfb;
	s.pic_master.chip.pic.irq_base = 0x20;
	s.pic_slave.chip_id = KVM_IRQCHIP_PIC_SLAVE;
	s.pic_slave.chip.pic.elcr = 0x0c;
	s.pic_slave.chip.pic.elcr_mask = 0xde;
	s.ioapic.chip_id = KVM_IRQCHIP_IOAPIC;
	s.ioapic.chip.ioapic.base_address = 0xfec00000;
	s.ioapic.chip.ioapic.redirtbl[23].bits = 0x0100000000018031;
	s.pit.channels[0].count = 65536;
	s.pit.channels[0].mode = 2;
	s.pit.channels[2].gate = 1;
	s.pit.flags = KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	s.clock.clock = 12345678;
	s.clock.flags = KVM_CLOCK_REALTIME;
	s.clock.realtime = 1700000000000000000;
	return s;
}

static struct base_buffer encoded(void)
{
	struct hv_chip_state state = example();
	struct base_buffer buffer = { 0 };

	hv_chip_state_encode(&state, &buffer);
	cr_assert_eq(buffer.size_bytes, ALL_BYTES);
	return buffer;
}

static void refused(size_t at, uint8_t value, const char *text)
{
	struct base_buffer buffer = encoded();
	struct base_reader in = base_reader_over(buffer.data, buffer.size_bytes);
	struct base_error err = { 0 };
	struct hv_chip_state state;

	buffer.data[at] = value;
	cr_assert_eq(hv_chip_state_decode(&in, 1, &state, &err), -EBADMSG, "byte %zu", at);
	cr_assert_not_null(strstr(err.text, text), "'%s' is not in '%s'", text, err.text);
	base_buffer_fini(&buffer);
}

Test(chip_state, round_trip)
{
	struct hv_chip_state before = example();
	struct base_buffer buffer = encoded();
	struct base_reader in = base_reader_over(buffer.data, buffer.size_bytes);
	struct base_error err = { 0 };
	struct hv_chip_state after;

	cr_assert_eq(hv_chip_state_decode(&in, 1, &after, &err), 0, "%s", err.text);
	cr_assert_eq(memcmp(&before, &after, sizeof(before)), 0);
	base_buffer_fini(&buffer);
}

Test(chip_state, what_is_the_hosts_is_not_saved)
{
	struct hv_chip_state state = example();
	struct base_buffer buffer = encoded();
	struct base_buffer other = { 0 };

	state.pit.channels[1].count_load_time = 99;
	state.clock.flags |= KVM_CLOCK_TSC_STABLE | KVM_CLOCK_HOST_TSC;
	state.clock.host_tsc = 77;
	hv_chip_state_encode(&state, &other);
	cr_assert_arr_eq(other.data, buffer.data, ALL_BYTES);
	base_buffer_fini(&other);
	base_buffer_fini(&buffer);
}

Test(chip_state, versions_and_lengths)
{
	struct base_buffer buffer = encoded();
	struct base_error err = { 0 };
	struct hv_chip_state state;

	for (size_t size = 0; size <= buffer.size_bytes; size++) {
		struct base_reader in = base_reader_over(buffer.data, size);

		cr_assert_eq(hv_chip_state_decode(&in, 1, &state, &err),
			     size < buffer.size_bytes ? -EBADMSG : 0, "%zu bytes", size);
	}
	for (uint32_t version = 0; version <= 2; version += 2) {
		struct base_reader in = base_reader_over(buffer.data, buffer.size_bytes);

		cr_assert_eq(hv_chip_state_decode(&in, version, &state, &err), -ENOTSUP);
	}
	base_buffer_u8(&buffer, 0);
	{
		struct base_reader in = base_reader_over(buffer.data, buffer.size_bytes);

		cr_assert_eq(hv_chip_state_decode(&in, 1, &state, &err), -EBADMSG);
		cr_assert_str_eq(err.text, "chips: 1 bytes too many");
	}
	base_buffer_fini(&buffer);
}

Test(chip_state, fields_out_of_range)
{
	static const size_t one_bit[] = { 6, 7, 8, 10, 11, 12, 13 };

	refused(4, 8, "a field of a PIC");
	refused(9, 4, "a field of a PIC");
	for (size_t i = 0; i < sizeof(one_bit) / sizeof(one_bit[0]); i++) {
		refused(one_bit[i], 2, "a field of a PIC");
		refused(AT_SLAVE + one_bit[i], 2, "a field of a PIC");
	}
	refused(AT_PIT, 1, "PIT count or flags");
	refused(AT_PIT_FLAG, 4, "PIT count or flags");
	refused(AT_CLOCK + 16, 2, "clock flags 0x2");
	refused(AT_CLOCK + 16, 0, "clock flags 0x0"); /* a time, and that it is not known */
}
