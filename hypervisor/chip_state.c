/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's PIC, IOAPIC, PIT and clock: from KVM, to KVM, and as the section "chips".
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "hypervisor/vcpu_state.h"

#define PIT_COUNT_MAX 65536u
#define PIT_FLAGS     (KVM_PIT_FLAGS_HPET_LEGACY | KVM_PIT_FLAGS_SPEAKER_DATA_ON)
#define CLOCK_REAL    1u /* in the section: the real time is known */

static int get_chip(int vm_fd, uint32_t id, struct kvm_irqchip *ret_chip, struct base_error *err)
{
	memset(ret_chip, 0, sizeof(*ret_chip));
	ret_chip->chip_id = id;
	if (ioctl(vm_fd, KVM_GET_IRQCHIP, ret_chip) < 0)
		return base_fail_errno(err, -errno, "KVM_GET_IRQCHIP %" PRIu32, id);
	return 0;
}

static int put_chip(int vm_fd, const struct kvm_irqchip *chip, struct base_error *err)
{
	struct kvm_irqchip copy = *chip;

	if (ioctl(vm_fd, KVM_SET_IRQCHIP, &copy) < 0)
		return base_fail_errno(err, -errno, "KVM_SET_IRQCHIP %" PRIu32, chip->chip_id);
	return 0;
}

int hv_chip_state_get(int vm_fd, struct hv_chip_state *ret_state, struct base_error *err)
{
	int r = 0;

	memset(ret_state, 0, sizeof(*ret_state));
	r = get_chip(vm_fd, KVM_IRQCHIP_PIC_MASTER, &ret_state->pic_master, err);
	if (r == 0)
		r = get_chip(vm_fd, KVM_IRQCHIP_PIC_SLAVE, &ret_state->pic_slave, err);
	if (r == 0)
		r = get_chip(vm_fd, KVM_IRQCHIP_IOAPIC, &ret_state->ioapic, err);
	if (r < 0)
		return r;
	if (ioctl(vm_fd, KVM_GET_PIT2, &ret_state->pit) < 0)
		return base_fail_errno(err, -errno, "KVM_GET_PIT2");
	if (ioctl(vm_fd, KVM_GET_CLOCK, &ret_state->clock) < 0)
		return base_fail_errno(err, -errno, "KVM_GET_CLOCK");
	return 0;
}

int hv_chip_state_put(int vm_fd, const struct hv_chip_state *state, struct base_error *err)
{
	struct kvm_pit_state2 pit = state->pit;
	struct kvm_clock_data clock = { .clock = state->clock.clock };
	int known = ioctl(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_ADJUST_CLOCK);
	int r = put_chip(vm_fd, &state->pic_master, err);

	if (r == 0)
		r = put_chip(vm_fd, &state->pic_slave, err);
	if (r == 0)
		r = put_chip(vm_fd, &state->ioapic, err);
	if (r < 0)
		return r;
	if (ioctl(vm_fd, KVM_SET_PIT2, &pit) < 0)
		return base_fail_errno(err, -errno, "KVM_SET_PIT2");
	if (known > 0 && (known & KVM_CLOCK_REALTIME) != 0 &&
	    (state->clock.flags & KVM_CLOCK_REALTIME) != 0) {
		clock.flags = KVM_CLOCK_REALTIME;
		clock.realtime = state->clock.realtime;
	}
	if (ioctl(vm_fd, KVM_SET_CLOCK, &clock) < 0)
		return base_fail_errno(err, -errno, "KVM_SET_CLOCK");
	return 0;
}

static void encode_pic(const struct kvm_pic_state *pic, struct base_buffer *out)
{
	base_buffer_u8(out, pic->last_irr);
	base_buffer_u8(out, pic->irr);
	base_buffer_u8(out, pic->imr);
	base_buffer_u8(out, pic->isr);
	base_buffer_u8(out, pic->priority_add);
	base_buffer_u8(out, pic->irq_base);
	base_buffer_u8(out, pic->read_reg_select);
	base_buffer_u8(out, pic->poll);
	base_buffer_u8(out, pic->special_mask);
	base_buffer_u8(out, pic->init_state);
	base_buffer_u8(out, pic->auto_eoi);
	base_buffer_u8(out, pic->rotate_on_auto_eoi);
	base_buffer_u8(out, pic->special_fully_nested_mode);
	base_buffer_u8(out, pic->init4);
	base_buffer_u8(out, pic->elcr);
	base_buffer_u8(out, pic->elcr_mask);
}

static uint8_t read_most(struct base_reader *in, uint8_t most, bool *bad)
{
	uint8_t value = base_read_u8(in);

	*bad = *bad || value > most;
	return value;
}

static struct kvm_irqchip decode_pic(struct base_reader *in, uint32_t id, bool *bad)
{
	struct kvm_irqchip chip = { .chip_id = id };
	struct kvm_pic_state *pic = &chip.chip.pic;

	pic->last_irr = base_read_u8(in);
	pic->irr = base_read_u8(in);
	pic->imr = base_read_u8(in);
	pic->isr = base_read_u8(in);
	pic->priority_add = read_most(in, 7, bad);
	pic->irq_base = base_read_u8(in);
	pic->read_reg_select = read_most(in, 1, bad);
	pic->poll = read_most(in, 1, bad);
	pic->special_mask = read_most(in, 1, bad);
	pic->init_state = read_most(in, 3, bad);
	pic->auto_eoi = read_most(in, 1, bad);
	pic->rotate_on_auto_eoi = read_most(in, 1, bad);
	pic->special_fully_nested_mode = read_most(in, 1, bad);
	pic->init4 = read_most(in, 1, bad);
	pic->elcr = base_read_u8(in);
	pic->elcr_mask = base_read_u8(in);
	return chip;
}

static void encode_ioapic(const struct kvm_ioapic_state *ioapic, struct base_buffer *out)
{
	base_buffer_le64(out, ioapic->base_address);
	base_buffer_le32(out, ioapic->ioregsel);
	base_buffer_le32(out, ioapic->id);
	base_buffer_le32(out, ioapic->irr);
	for (size_t i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
		base_buffer_le64(out, ioapic->redirtbl[i].bits);
}

static struct kvm_irqchip decode_ioapic(struct base_reader *in)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_ioapic_state *ioapic = &chip.chip.ioapic;

	ioapic->base_address = base_read_le64(in);
	ioapic->ioregsel = base_read_le32(in);
	ioapic->id = base_read_le32(in);
	ioapic->irr = base_read_le32(in);
	for (size_t i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
		ioapic->redirtbl[i].bits = base_read_le64(in);
	return chip;
}

/* Without count_load_time, which is this host's and which KVM sets anew. */
static void encode_channel(const struct kvm_pit_channel_state *channel, struct base_buffer *out)
{
	base_buffer_le32(out, channel->count);
	base_buffer_le16(out, channel->latched_count);
	base_buffer_u8(out, channel->count_latched);
	base_buffer_u8(out, channel->status_latched);
	base_buffer_u8(out, channel->status);
	base_buffer_u8(out, channel->read_state);
	base_buffer_u8(out, channel->write_state);
	base_buffer_u8(out, channel->write_latch);
	base_buffer_u8(out, channel->rw_mode);
	base_buffer_u8(out, channel->mode);
	base_buffer_u8(out, channel->bcd);
	base_buffer_u8(out, channel->gate);
}

static struct kvm_pit_channel_state decode_channel(struct base_reader *in, bool *bad)
{
	struct kvm_pit_channel_state channel = { 0 };

	channel.count = base_read_le32(in);
	*bad = *bad || channel.count > PIT_COUNT_MAX;
	channel.latched_count = base_read_le16(in);
	channel.count_latched = base_read_u8(in);
	channel.status_latched = base_read_u8(in);
	channel.status = base_read_u8(in);
	channel.read_state = base_read_u8(in);
	channel.write_state = base_read_u8(in);
	channel.write_latch = base_read_u8(in);
	channel.rw_mode = base_read_u8(in);
	channel.mode = base_read_u8(in);
	channel.bcd = base_read_u8(in);
	channel.gate = base_read_u8(in);
	return channel;
}

void hv_chip_state_encode(const struct hv_chip_state *state, struct base_buffer *out)
{
	bool real = (state->clock.flags & KVM_CLOCK_REALTIME) != 0;

	encode_pic(&state->pic_master.chip.pic, out);
	encode_pic(&state->pic_slave.chip.pic, out);
	encode_ioapic(&state->ioapic.chip.ioapic, out);
	for (size_t i = 0; i < 3; i++)
		encode_channel(&state->pit.channels[i], out);
	base_buffer_le32(out, state->pit.flags & PIT_FLAGS);
	base_buffer_le64(out, state->clock.clock);
	base_buffer_le64(out, real ? state->clock.realtime : 0);
	base_buffer_le32(out, real ? CLOCK_REAL : 0);
}

int hv_chip_state_decode(struct base_reader *in, uint32_t version, struct hv_chip_state *ret_state,
			 struct base_error *err)
{
	struct hv_chip_state *s = ret_state;
	uint32_t clock_flags = 0;
	bool bad_pic = false;
	bool bad_pit = false;

	memset(s, 0, sizeof(*s));
	if (version != HV_CHIP_STATE_VERSION)
		return base_fail(err, -ENOTSUP, "chips: version %" PRIu32 ", newest known is %u",
				 version, HV_CHIP_STATE_VERSION);
	s->pic_master = decode_pic(in, KVM_IRQCHIP_PIC_MASTER, &bad_pic);
	s->pic_slave = decode_pic(in, KVM_IRQCHIP_PIC_SLAVE, &bad_pic);
	s->ioapic = decode_ioapic(in);
	for (size_t i = 0; i < 3; i++)
		s->pit.channels[i] = decode_channel(in, &bad_pit);
	s->pit.flags = base_read_le32(in);
	s->clock.clock = base_read_le64(in);
	s->clock.realtime = base_read_le64(in);
	clock_flags = base_read_le32(in);
	s->clock.flags = (clock_flags & CLOCK_REAL) != 0 ? KVM_CLOCK_REALTIME : 0;

	if (in->failed)
		return base_fail(err, -EBADMSG, "chips: truncated");
	if (bad_pic)
		return base_fail(err, -EBADMSG, "chips: a field of a PIC is out of range");
	if (bad_pit || (s->pit.flags & ~(uint32_t)PIT_FLAGS) != 0)
		return base_fail(err, -EBADMSG,
				 "chips: PIT count or flags 0x%" PRIx32 " out of range",
				 s->pit.flags);
	if ((clock_flags & ~CLOCK_REAL) != 0 || (clock_flags == 0 && s->clock.realtime != 0))
		return base_fail(err, -EBADMSG, "chips: clock flags 0x%" PRIx32, clock_flags);
	if (base_reader_left(in) != 0)
		return base_fail(err, -EBADMSG, "chips: %zu bytes too many", base_reader_left(in));
	return 0;
}
