/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/vmbus_guest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/memory_priv.h"
#include "hypervisor/synic_priv.h"
#include "tests/support/vmbus_guest_priv.h"

#define VECTOR       0xF3u
#define SLOT_OFFSET  (HV_SINT_VMBUS * HV_MESSAGE_BYTES)
#define FLAG_PENDING 1u

/* VMBus message types, and the length of an offer. */
#define M_OFFER          1u
#define M_RESCIND        2u
#define M_REQUEST_OFFERS 3u
#define M_ALL_OFFERS     4u
#define M_GPADL_HEADER   8u
#define M_GPADL_BODY     9u
#define M_GPADL_CREATED  10u
#define M_TEARDOWN       11u
#define M_TORNDOWN       12u
#define M_RELID_RELEASED 13u
#define M_CONTACT        14u
#define M_VERSION        15u
#define M_UNLOAD         16u
#define M_UNLOADED       17u
#define OFFER_BYTES      196u

#define FIRST_FREE_PAGE 512u /* the first 2 MiB stay empty */
#define TURNS_MAX       100000u
#define VPS_MAX         64u

struct vmbus_guest {
	struct hv_memory *memory;
	struct hv_slat *slat;
	struct hv_synic *synic;
	struct base_io_loop *loop;
	struct vmbus *bus;
	uint32_t vcpus;
	uint64_t next_page;
	uint64_t simp[VPS_MAX];  /* GPAs */
	uint64_t siefp[VPS_MAX]; /* GPAs */
	_Atomic uint64_t interrupts[VPS_MAX];
	uint32_t message_connection;
	uint32_t next_gpadl;
	struct vmbus_guest_offer offers[VMBUS_GUEST_OFFERS];
	uint32_t offer_count;
	uint32_t rescinded[VMBUS_GUEST_OFFERS];
	uint32_t rescinded_count;
};

void vmbus_guest_give_up(const char *what, uint64_t value)
{
	(void)fprintf(stderr, "vmbus_guest: %s (0x%" PRIx64 ")\n", what, value);
	abort();
}

static void interrupted(void *context, uint32_t vp, uint8_t vector)
{
	struct vmbus_guest *guest = context;

	if (vp >= guest->vcpus || vector != VECTOR)
		vmbus_guest_give_up("interrupt with a strange vector", vector);
	atomic_fetch_add(&guest->interrupts[vp], 1);
}

static const struct hv_synic_ops synic_ops = { .interrupt = interrupted };

static void write_msr(struct vmbus_guest *guest, uint32_t vp, uint32_t msr, uint64_t value)
{
	if (hv_synic_write_msr(guest->synic, vp, msr, value) < 0)
		vmbus_guest_give_up("SynIC refuses MSR", msr);
}

/* As Linux does for each processor: SIMP, SIEFP, SINT2, SCONTROL. */
static void enable_synic(struct vmbus_guest *guest)
{
	for (uint32_t vp = 0; vp < guest->vcpus; vp++) {
		guest->simp[vp] = vmbus_guest_pages(guest, 1);
		guest->siefp[vp] = vmbus_guest_pages(guest, 1);
		write_msr(guest, vp, HV_MSR_SIMP, guest->simp[vp] | 1);
		write_msr(guest, vp, HV_MSR_SIEFP, guest->siefp[vp] | 1);
		write_msr(guest, vp, HV_MSR_SINT0 + HV_SINT_VMBUS, VECTOR);
		write_msr(guest, vp, HV_MSR_SCONTROL, 1);
	}
}

static void make_bus(struct vmbus_guest *guest)
{
	const struct vmbus_options options = {
		.slat = guest->slat,
		.synic = guest->synic,
		.loop = guest->loop,
		.vcpu_count = guest->vcpus,
		.vm_name = "test",
	};

	if (vmbus_new(&options, &guest->bus, NULL) < 0)
		vmbus_guest_give_up("bus", 0);
}

void vmbus_guest_new_bus(struct vmbus_guest *guest)
{
	vmbus_free(guest->bus);
	make_bus(guest);
}

struct vmbus_guest *vmbus_guest_new(const struct vmbus_guest_opts *opts)
{
	static const struct vmbus_guest_opts defaults;
	struct vmbus_guest *guest = calloc(1, sizeof(*guest));
	struct base_io_loop_options loop = { .without_ring = true };
	uint64_t memory_bytes;

	opts = opts != NULL ? opts : &defaults;
	if (guest == NULL)
		vmbus_guest_give_up("memory", 0);
	guest->vcpus = opts->vcpus != 0 ? opts->vcpus : 1;
	guest->next_page = FIRST_FREE_PAGE;
	guest->message_connection = 1;
	guest->next_gpadl = 0xE1E10;
	loop.clock = opts->clock;
	memory_bytes = opts->memory_bytes != 0 ? opts->memory_bytes : 64ULL << 20;
	if (hv_memory_new(memory_bytes, HV_MEMORY_SMALL, &guest->memory, NULL) < 0 ||
	    hv_slat_new(guest->memory, -1, &guest->slat, NULL) < 0 ||
	    hv_synic_new(guest->slat, guest->vcpus, &synic_ops, guest, &guest->synic, NULL) < 0 ||
	    base_io_loop_new(&loop, &guest->loop, NULL) < 0)
		vmbus_guest_give_up("memory, SynIC or loop", 0);
	make_bus(guest);
	enable_synic(guest);
	return guest;
}

void vmbus_guest_free(struct vmbus_guest *guest)
{
	if (guest == NULL)
		return;
	vmbus_free(guest->bus);
	base_io_loop_free(guest->loop);
	hv_synic_free(guest->synic);
	hv_slat_free(guest->slat);
	hv_memory_free(guest->memory);
	free(guest);
}

struct vmbus *vmbus_guest_bus(struct vmbus_guest *guest)
{
	return guest->bus;
}

struct hv_slat *vmbus_guest_slat(struct vmbus_guest *guest)
{
	return guest->slat;
}

struct hv_synic *vmbus_guest_synic(struct vmbus_guest *guest)
{
	return guest->synic;
}

struct base_io_loop *vmbus_guest_loop(struct vmbus_guest *guest)
{
	return guest->loop;
}

void vmbus_guest_run(struct vmbus_guest *guest)
{
	for (uint32_t turn = 0; base_io_loop_step(guest->loop, false); turn++)
		if (turn == TURNS_MAX)
			vmbus_guest_give_up("the loop never rests", turn);
}

uint64_t vmbus_guest_interrupts(struct vmbus_guest *guest, uint32_t vp)
{
	return atomic_load(&guest->interrupts[vp]);
}

uint8_t *vmbus_guest_at(struct vmbus_guest *guest, uint64_t gpa, uint64_t size_bytes)
{
	uint64_t offset;

	if (hv_memory_translate(guest->memory, gpa, size_bytes, &offset) < 0)
		vmbus_guest_give_up("not RAM", gpa);
	return hv_memory_base(guest->memory) + offset;
}

uint64_t vmbus_guest_pages(struct vmbus_guest *guest, uint32_t count)
{
	uint64_t gpa = guest->next_page * HV_PAGE_BYTES;

	guest->next_page += count;
	memset(vmbus_guest_at(guest, gpa, count * HV_PAGE_BYTES), 0, count * HV_PAGE_BYTES);
	return gpa;
}

void vmbus_guest_scattered(struct vmbus_guest *guest, uint32_t count, uint64_t *ret_pfns)
{
	uint64_t first = vmbus_guest_pages(guest, 2 * count) / HV_PAGE_BYTES;

	/* Every second page, from the last to the first. */
	for (uint32_t i = 0; i < count; i++)
		ret_pfns[i] = first + 2 * (count - 1 - i);
}

uint32_t *vmbus_guest_flags(struct vmbus_guest *guest, uint32_t vp)
{
	return (uint32_t *)(void *)vmbus_guest_at(guest, guest->siefp[vp] + SLOT_OFFSET,
						  HV_EVENT_FLAGS / 8);
}

enum hv_status vmbus_guest_post(struct vmbus_guest *guest, uint32_t connection_id,
				const void *payload, uint32_t size_bytes)
{
	enum hv_status status =
		vmbus_hypercall_ops.post_message(guest->bus, connection_id, 1, payload, size_bytes);

	vmbus_guest_run(guest);
	return status;
}

static void must_post(struct vmbus_guest *guest, const void *payload, uint32_t size_bytes)
{
	enum hv_status status =
		vmbus_guest_post(guest, guest->message_connection, payload, size_bytes);

	if (status != HV_STATUS_SUCCESS)
		vmbus_guest_give_up("a message was refused", (uint64_t)status);
}

/* Messages go to the virtual processor that made contact, 0 here. */
bool vmbus_guest_take(struct vmbus_guest *guest, struct hv_message *ret_message)
{
	uint8_t *slot = vmbus_guest_at(guest, guest->simp[0] + SLOT_OFFSET, HV_MESSAGE_BYTES);
	uint32_t *type = (uint32_t *)(void *)slot;
	bool pending;

	vmbus_guest_run(guest);
	if (__atomic_load_n(type, __ATOMIC_ACQUIRE) == 0)
		return false;
	*ret_message = (struct hv_message){
		.type = *type,
		.size_bytes = slot[4],
		.sender = base_get_le64(slot + 8),
	};
	memcpy(ret_message->payload, slot + 16, HV_MESSAGE_PAYLOAD_BYTES);
	__atomic_store_n(type, 0, __ATOMIC_SEQ_CST);
	pending = (__atomic_load_n(&slot[5], __ATOMIC_SEQ_CST) & FLAG_PENDING) != 0;
	if (pending)
		write_msr(guest, 0, HV_MSR_EOM, 0);
	return true;
}

static void keep_offer(struct vmbus_guest *guest, const struct hv_message *message)
{
	const uint8_t *m = message->payload;
	struct vmbus_guest_offer offer = {
		.flags = base_get_le16(m + 56),
		.sub_index = base_get_le16(m + 180),
		.relid = base_get_le32(m + 184),
		.connection_id = base_get_le32(m + 192),
		.dedicated = (base_get_le16(m + 190) & 1) != 0,
	};

	if (message->size_bytes != OFFER_BYTES)
		vmbus_guest_give_up("length of an offer", message->size_bytes);
	if (guest->offer_count == VMBUS_GUEST_OFFERS)
		vmbus_guest_give_up("too many offers", guest->offer_count);
	memcpy(offer.type.bytes, m + 8, 16);
	memcpy(offer.instance.bytes, m + 24, 16);
	memcpy(offer.user_defined, m + 60, sizeof(offer.user_defined));
	guest->offers[guest->offer_count++] = offer;
}

static void keep_rescind(struct vmbus_guest *guest, uint32_t relid)
{
	for (uint32_t i = 0; i < guest->offer_count; i++) {
		if (guest->offers[i].relid != relid)
			continue;
		guest->offers[i] = guest->offers[--guest->offer_count];
		guest->rescinded[guest->rescinded_count++] = relid;
		return;
	}
	vmbus_guest_give_up("rescind of what was not offered", relid);
}

/* Offers and rescinds come at any time. */
static bool is_spontaneous(struct vmbus_guest *guest, const struct hv_message *message)
{
	switch (base_get_le32(message->payload)) {
	case M_OFFER:
		keep_offer(guest, message);
		return true;
	case M_RESCIND:
		keep_rescind(guest, base_get_le32(message->payload + 8));
		return true;
	default:
		return false;
	}
}

void vmbus_guest_expect(struct vmbus_guest *guest, uint32_t type, struct hv_message *ret_message)
{
	for (;;) {
		if (!vmbus_guest_take(guest, ret_message))
			vmbus_guest_give_up("no message of type", type);
		if (base_get_le32(ret_message->payload) == type)
			return;
		if (!is_spontaneous(guest, ret_message))
			vmbus_guest_give_up("message of another type",
					    base_get_le32(ret_message->payload));
	}
}

/* Everything that waits; only what comes by itself may. */
static void take_spontaneous(struct vmbus_guest *guest)
{
	struct hv_message message;

	while (vmbus_guest_take(guest, &message))
		if (!is_spontaneous(guest, &message))
			vmbus_guest_give_up("message nobody waits for",
					    base_get_le32(message.payload));
}

bool vmbus_guest_contact(struct vmbus_guest *guest, uint32_t version)
{
	uint8_t m[40] = { 0 };
	struct hv_message answer;

	base_put_le32(m, M_CONTACT);
	base_put_le32(m + 8, version);
	m[16] = version >= 0x50000 ? HV_SINT_VMBUS : 0;
	guest->message_connection = version >= 0x50000 ? 4 : 1;
	guest->offer_count = 0;
	guest->rescinded_count = 0;
	must_post(guest, m, sizeof(m));
	vmbus_guest_expect(guest, M_VERSION, &answer);
	if (answer.payload[8] == 0)
		return false;
	if (version >= 0x50000)
		guest->message_connection = base_get_le32(answer.payload + 12);
	return true;
}

void vmbus_guest_request_offers(struct vmbus_guest *guest)
{
	uint8_t m[8] = { M_REQUEST_OFFERS };
	struct hv_message answer;

	must_post(guest, m, sizeof(m));
	vmbus_guest_expect(guest, M_ALL_OFFERS, &answer);
}

void vmbus_guest_connect(struct vmbus_guest *guest)
{
	if (!vmbus_guest_contact(guest, VMBUS_GUEST_VERSION))
		vmbus_guest_give_up("version refused", VMBUS_GUEST_VERSION);
	vmbus_guest_request_offers(guest);
}

const struct vmbus_guest_offer *vmbus_guest_offer(struct vmbus_guest *guest,
						  const struct disk_guid *type, uint16_t sub_index)
{
	take_spontaneous(guest);
	for (uint32_t i = 0; i < guest->offer_count; i++)
		if (disk_guid_equal(&guest->offers[i].type, type) &&
		    guest->offers[i].sub_index == sub_index)
			return &guest->offers[i];
	return NULL;
}

uint32_t vmbus_guest_rescinded(struct vmbus_guest *guest)
{
	take_spontaneous(guest);
	return guest->rescinded_count > 0 ? guest->rescinded[--guest->rescinded_count] : 0;
}

void vmbus_guest_release_relid(struct vmbus_guest *guest, uint32_t relid)
{
	uint8_t m[12] = { M_RELID_RELEASED };

	base_put_le32(m + 8, relid);
	must_post(guest, m, sizeof(m));
}

bool vmbus_guest_unload(struct vmbus_guest *guest)
{
	uint8_t m[8] = { M_UNLOAD };
	struct hv_message answer;

	must_post(guest, m, sizeof(m));
	while (vmbus_guest_take(guest, &answer))
		if (base_get_le32(answer.payload) == M_UNLOADED)
			return true;
	return false;
}

#define HEADER_PFNS 26u
#define BODY_PFNS   28u

uint32_t vmbus_guest_gpadl(struct vmbus_guest *guest, uint32_t relid, const uint64_t *pfns,
			   uint32_t count, uint32_t *ret_gpadl)
{
	uint8_t m[HV_MESSAGE_PAYLOAD_BYTES] = { M_GPADL_HEADER };
	uint32_t gpadl = guest->next_gpadl++;
	uint32_t first = count < HEADER_PFNS ? count : HEADER_PFNS;
	struct hv_message answer;

	base_put_le32(m + 8, relid);
	base_put_le32(m + 12, gpadl);
	base_put_le16(m + 16, (uint16_t)(8 + 8 * count));
	base_put_le16(m + 18, 1);
	base_put_le32(m + 20, (uint32_t)(count * HV_PAGE_BYTES));
	for (uint32_t i = 0; i < first; i++)
		base_put_le64(m + 28 + 8 * i, pfns[i]);
	must_post(guest, m, 28 + 8 * first);
	for (uint32_t done = first; done < count;) {
		uint32_t now = count - done < BODY_PFNS ? count - done : BODY_PFNS;

		memset(m, 0, sizeof(m));
		base_put_le32(m, M_GPADL_BODY);
		base_put_le32(m + 12, gpadl);
		for (uint32_t i = 0; i < now; i++)
			base_put_le64(m + 16 + 8 * i, pfns[done + i]);
		must_post(guest, m, 16 + 8 * now);
		done += now;
	}
	vmbus_guest_expect(guest, M_GPADL_CREATED, &answer);
	if (base_get_le32(answer.payload + 8) != relid ||
	    base_get_le32(answer.payload + 12) != gpadl)
		vmbus_guest_give_up("another page list was created",
				    base_get_le32(answer.payload + 12));
	*ret_gpadl = gpadl;
	return base_get_le32(answer.payload + 16);
}

bool vmbus_guest_teardown(struct vmbus_guest *guest, uint32_t relid, uint32_t gpadl)
{
	uint8_t m[16] = { M_TEARDOWN };
	struct hv_message answer;

	base_put_le32(m + 8, relid);
	base_put_le32(m + 12, gpadl);
	must_post(guest, m, sizeof(m));
	while (vmbus_guest_take(guest, &answer)) {
		if (base_get_le32(answer.payload) == M_TORNDOWN &&
		    base_get_le32(answer.payload + 8) == gpadl)
			return true;
		if (!is_spontaneous(guest, &answer))
			vmbus_guest_give_up("another message", base_get_le32(answer.payload));
	}
	return false;
}
