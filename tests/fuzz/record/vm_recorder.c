/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What godwit-vm-recorder is made of besides the worker: it writes down what the guest, and the
 * network, send the worker.  seeds.py makes seeds of that.
 *
 * Nothing of the worker is compiled another way: the linker gives calls of a decoder (--wrap, the
 * list is in tests/CMakeLists.txt) to the function here, which writes a line "record KIND NAME HEX"
 * to stderr, with one write(2) and no other system call, as the worker is locked down; then it
 * calls the decoder.  The lines are those of docs/tests/fuzzing.md.
 *
 * Any thread of the worker.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "hypervisor/hyperv.h"
#include "hypervisor/ic/ic_port.h"
#include "hypervisor/netvsp/netvsp_frame.h"
#include "hypervisor/netvsp/nvsp_message.h"
#include "hypervisor/netvsp/rndis_message.h"
#include "hypervisor/storvsp/scsi.h"
#include "hypervisor/vmbus/vmbus_priv.h"

#define RECORD_BYTES_MAX 8192u /* longer ones make no good seeds */
#define NAME_BYTES_MAX   64u

/* A function of the worker as the linker names it, and what is called instead. */
#define RECORDED(result, name, ...)                                                                \
	result __real_##name(__VA_ARGS__);                                                         \
	result __wrap_##name(__VA_ARGS__)

RECORDED(int, vmbus_message_decode, const uint8_t *, uint32_t, struct vmbus_guest_message *,
	 struct base_error *);
RECORDED(int, vmbus_receive, struct vmbus_channel *, struct vmbus_packet *);
RECORDED(void, scsi_plan, const struct scsi_unit *, const struct scsi_command *,
	 struct scsi_plan *);
RECORDED(void, scsi_plan_parameters, const struct scsi_unit *, const struct scsi_command *,
	 struct scsi_plan *);
RECORDED(int, nvsp_request_decode, const uint8_t *, uint32_t, struct nvsp_request *,
	 struct base_error *);
RECORDED(int, rndis_packet_decode, const uint8_t[RNDIS_PACKET_HEAD_BYTES], uint32_t,
	 struct rndis_packet *, struct base_error *);
RECORDED(int, rndis_wishes_decode, const uint8_t *, uint32_t, struct rndis_wishes *,
	 struct base_error *);
RECORDED(int, rndis_control_decode, const uint8_t *, uint32_t, struct rndis_control *,
	 struct base_error *);
RECORDED(int, netvsp_tx_plan, struct netvsp_tx_frame *, const struct netvsp_tx_rules *,
	 struct base_error *);
RECORDED(int, netvsp_rx_plan, const uint8_t[NETVSP_VNET_BYTES], uint8_t *, uint32_t,
	 struct rndis_receive *);
RECORDED(int, ic_port_receive, struct ic_port *, const uint8_t *, size_t, struct ic_answer *,
	 struct base_error *);
RECORDED(int, hv_hyperv_write_msr, struct hv_hyperv *, uint32_t, uint32_t, uint64_t);
RECORDED(uint32_t, hv_hyperv_call, struct hv_hyperv *, const struct hv_hypercall *);

/* One line. */
static void record(const char *kind, const char *name, struct base_writer bytes)
{
	static _Thread_local char line[32 + NAME_BYTES_MAX + 2 * RECORD_BYTES_MAX];
	static const char digits[] = "0123456789abcdef";
	int head = snprintf(line, sizeof(line) - 2 * RECORD_BYTES_MAX - 1, "record %s %s ", kind,
			    name[0] != '\0' ? name : "-");
	size_t used = (size_t)head;

	if (bytes.failed)
		return; /* longer than is kept */
	for (size_t i = 0; i < bytes.offset_bytes; i++) {
		line[used++] = digits[bytes.data[i] >> 4];
		line[used++] = digits[bytes.data[i] & 15];
	}
	line[used++] = '\n';
	(void)!write(STDERR_FILENO, line, used);
}

static struct base_writer begin(void)
{
	static _Thread_local uint8_t bytes[RECORD_BYTES_MAX];

	return base_writer_over(bytes, sizeof(bytes));
}

static void record_bytes(const char *kind, const char *name, const uint8_t *bytes,
			 size_t size_bytes)
{
	struct base_writer out = begin();

	base_write_bytes(&out, bytes, size_bytes);
	record(kind, name, out);
}

/* --- the bus --- */

int __wrap_vmbus_message_decode(const uint8_t *bytes, uint32_t size_bytes,
				struct vmbus_guest_message *ret_message, struct base_error *err)
{
	record_bytes("message", "", bytes, size_bytes);
	return __real_vmbus_message_decode(bytes, size_bytes, ret_message, err);
}

int __wrap_vmbus_receive(struct vmbus_channel *channel, struct vmbus_packet *ret_packet)
{
	int r = __real_vmbus_receive(channel, ret_packet);
	const struct vmbus_packet *packet = ret_packet;
	struct base_writer out = begin();

	if (r != 1)
		return r;
	base_write_bytes(&out, packet->header - VMBUS_PACKET_HEAD_BYTES, VMBUS_PACKET_HEAD_BYTES);
	base_write_bytes(&out, packet->header, packet->header_bytes);
	base_write_bytes(&out, packet->payload, packet->payload_bytes);
	record("packet", channel->name, out);
	return r;
}

/* --- storage --- */

/* The unit's flags are those of scsi_cdb_fuzz.c. */
static void record_command(const struct scsi_unit *unit, const struct scsi_command *command,
			   const uint8_t *parameters, size_t parameter_bytes)
{
	struct base_writer out = begin();
	uint8_t flags = 0;

	flags |= unit->dvd ? 1 : 0;
	flags |= unit->has_medium ? 2 : 0;
	flags |= unit->read_only ? 4 : 0;
	flags |= unit->locked ? 8 : 0;
	flags |= unit->block_bytes == 4096 ? 16 : 0;
	flags |= unit->unmap_bytes != 0 ? 32 : 0;
	base_write_bytes(&out, command->cdb, sizeof(command->cdb));
	base_write_u8(&out, flags);
	base_write_u8(&out, (uint8_t)command->attention);
	base_write_le64(&out, unit->size_bytes);
	base_write_le32(&out, command->transfer_bytes);
	base_write_bytes(&out, parameters, parameter_bytes);
	record("scsi", unit->dvd ? "dvd" : "disk", out);
}

void __wrap_scsi_plan(const struct scsi_unit *unit, const struct scsi_command *command,
		      struct scsi_plan *plan)
{
	__real_scsi_plan(unit, command, plan);
	if (plan->action != SCSI_PARAMETERS)
		record_command(unit, command, plan->data, 0);
}

void __wrap_scsi_plan_parameters(const struct scsi_unit *unit, const struct scsi_command *command,
				 struct scsi_plan *plan)
{
	record_command(unit, command, plan->data, plan->length_bytes);
	__real_scsi_plan_parameters(unit, command, plan);
}

/* --- network --- */

int __wrap_nvsp_request_decode(const uint8_t *bytes, uint32_t size_bytes,
			       struct nvsp_request *ret_request, struct base_error *err)
{
	record_bytes("nvsp", "", bytes, size_bytes);
	return __real_nvsp_request_decode(bytes, size_bytes, ret_request, err);
}

int __wrap_rndis_control_decode(const uint8_t *bytes, uint32_t size_bytes,
				struct rndis_control *ret_control, struct base_error *err)
{
	record_bytes("rndis", "control", bytes, size_bytes);
	return __real_rndis_control_decode(bytes, size_bytes, ret_control, err);
}

/* A frame's message comes in parts: its head, its information, then the frame's own head.  What
 * is behind that the worker does not look at; here it is zeros. */
static _Thread_local struct {
	struct rndis_packet parts;
	bool is_whole;
	uint8_t bytes[RECORD_BYTES_MAX];
} sent;

int __wrap_rndis_packet_decode(const uint8_t head[RNDIS_PACKET_HEAD_BYTES], uint32_t left_bytes,
			       struct rndis_packet *ret_packet, struct base_error *err)
{
	int r = __real_rndis_packet_decode(head, left_bytes, ret_packet, err);

	sent.is_whole = r == 0 && ret_packet->message_bytes <= sizeof(sent.bytes);
	if (sent.is_whole) {
		sent.parts = *ret_packet;
		memset(sent.bytes, 0, sizeof(sent.bytes));
		memcpy(sent.bytes, head, RNDIS_PACKET_HEAD_BYTES);
	}
	return r;
}

int __wrap_rndis_wishes_decode(const uint8_t *bytes, uint32_t size_bytes,
			       struct rndis_wishes *ret_wishes, struct base_error *err)
{
	if (sent.is_whole)
		memcpy(sent.bytes + sent.parts.ppi_offset, bytes, size_bytes);
	return __real_rndis_wishes_decode(bytes, size_bytes, ret_wishes, err);
}

int __wrap_netvsp_tx_plan(struct netvsp_tx_frame *frame, const struct netvsp_tx_rules *rules,
			  struct base_error *err)
{
	if (sent.is_whole) {
		memcpy(sent.bytes + sent.parts.frame_offset, frame->bytes + NETVSP_VLAN_BYTES,
		       frame->head_bytes);
		record_bytes("rndis", "sent", sent.bytes, sent.parts.message_bytes);
	}
	return __real_netvsp_tx_plan(frame, rules, err);
}

int __wrap_netvsp_rx_plan(const uint8_t vnet[NETVSP_VNET_BYTES], uint8_t *frame,
			  uint32_t frame_bytes, struct rndis_receive *ret_receive)
{
	struct base_writer out = begin();

	base_write_bytes(&out, vnet, NETVSP_VNET_BYTES);
	base_write_bytes(&out, frame, frame_bytes);
	record("rndis", "received", out);
	return __real_netvsp_rx_plan(vnet, frame, frame_bytes, ret_receive);
}

/* --- integration services --- */

int __wrap_ic_port_receive(struct ic_port *port, const uint8_t *bytes, size_t size_bytes,
			   struct ic_answer *ret_answer, struct base_error *err)
{
	char name[NAME_BYTES_MAX];

	(void)snprintf(name, sizeof(name), "%d:%s", (int)port->service,
		       port->state == IC_PORT_NEGOTIATING ? "negotiate" : "answer");
	record_bytes("ic", name, bytes, size_bytes);
	return __real_ic_port_receive(port, bytes, size_bytes, ret_answer, err);
}

/* --- the hypervisor's own interface --- */

int __wrap_hv_hyperv_write_msr(struct hv_hyperv *hyperv, uint32_t vp, uint32_t msr, uint64_t value)
{
	struct base_writer out = begin();

	base_write_le32(&out, vp);
	base_write_le32(&out, msr);
	base_write_le64(&out, value);
	record("msr", "", out);
	return __real_hv_hyperv_write_msr(hyperv, vp, msr, value);
}

uint32_t __wrap_hv_hyperv_call(struct hv_hyperv *hyperv, const struct hv_hypercall *call)
{
	struct base_writer out = begin();

	base_write_le64(&out, call->control);
	base_write_le64(&out, call->input);
	base_write_le64(&out, call->output);
	record("call", "", out);
	return __real_hv_hyperv_call(hyperv, call);
}
