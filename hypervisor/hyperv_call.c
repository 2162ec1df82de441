/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hypercalls.
 */
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "hypervisor/hyperv_priv.h"
#include "hypervisor/synic.h"

#define CALL_LONG_SPIN_WAIT 0x0008u
#define CALL_POST_MESSAGE   0x005cu
#define CALL_SIGNAL_EVENT   0x005du

#define CONTROL_FAST     (1ULL << 16)
#define CONTROL_RESERVED 0xf000f000f8000000ULL
#define CONTROL_REP      0x0fff0fff00000000ULL /* start and count: no call of ours repeats */
#define CONTROL_VARIABLE 0x0000000007fe0000ULL /* header of variable size: none has one */

#define INPUT_ALIGN         8u
#define POST_BYTES          256u /* connection, reserved, type, size, payload */
#define POST_HEADER_BYTES   16u
#define SIGNAL_BYTES        8u
#define MESSAGE_HYPERVISORS 0x80000000u /* types that only the hypervisor sends */
#define NOT_A_CALL          UINT32_MAX

/* Copy a call's input: it is aligned and lies in one page. */
static enum hv_status read_input(const struct hv_hyperv *hyperv, uint64_t gpa, void *to,
				 uint32_t size_bytes)
{
	if (gpa % INPUT_ALIGN != 0 || HV_PAGE_BYTES - gpa % HV_PAGE_BYTES < size_bytes)
		return HV_STATUS_INVALID_ALIGNMENT;
	return hv_slat_read(hyperv->slat, gpa, to, size_bytes) < 0 ? HV_STATUS_INVALID_PARAMETER
								   : HV_STATUS_SUCCESS;
}

static enum hv_status post_message(struct hv_hyperv *hyperv, const struct hv_hypercall *call)
{
	uint8_t input[POST_BYTES];
	enum hv_status status;
	uint32_t type;
	uint32_t size_bytes;

	if ((call->control & CONTROL_FAST) != 0)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	status = read_input(hyperv, call->input, input, sizeof(input));
	if (status != HV_STATUS_SUCCESS)
		return status;
	type = base_get_le32(input + 8);
	size_bytes = base_get_le32(input + 12);
	if (base_get_le32(input + 4) != 0 || type == 0 || (type & MESSAGE_HYPERVISORS) != 0 ||
	    size_bytes > HV_MESSAGE_PAYLOAD_BYTES)
		return HV_STATUS_INVALID_PARAMETER;
	if (hyperv->call_ops == NULL)
		return HV_STATUS_INVALID_CONNECTION_ID;
	return hyperv->call_ops->post_message(hyperv->call_context, base_get_le32(input), type,
					      input + POST_HEADER_BYTES, size_bytes);
}

static enum hv_status signal_event(struct hv_hyperv *hyperv, const struct hv_hypercall *call)
{
	uint8_t input[SIGNAL_BYTES];
	enum hv_status status = HV_STATUS_SUCCESS;

	if ((call->control & CONTROL_FAST) != 0)
		base_put_le64(input, call->input);
	else
		status = read_input(hyperv, call->input, input, sizeof(input));
	if (status != HV_STATUS_SUCCESS)
		return status;
	if (base_get_le16(input + 6) != 0)
		return HV_STATUS_INVALID_PARAMETER;
	if (hyperv->call_ops == NULL)
		return HV_STATUS_INVALID_CONNECTION_ID;
	return hyperv->call_ops->signal_event(hyperv->call_context, base_get_le32(input),
					      base_get_le16(input + 4));
}

/* Once per code, and for so many codes only. */
static void log_unknown(struct hv_hyperv *hyperv, uint16_t code)
{
	{
		BASE_LOCKED(&hyperv->log_lock);

		for (uint32_t i = 0; i < hyperv->logged_count; i++)
			if (hyperv->logged[i] == code)
				return;
		if (hyperv->logged_count == HV_CALLS_LOGGED)
			return;
		hyperv->logged[hyperv->logged_count++] = code;
	}
	base_log(BASE_LOG_INFO, "hv.call.unknown", "code=0x%x", (unsigned int)code);
}

uint32_t hv_hyperv_call(struct hv_hyperv *hyperv, const struct hv_hypercall *call)
{
	uint64_t page = atomic_load(&hyperv->call_page);
	uint16_t code = (uint16_t)call->control;

	if ((page & HV_PAGE_ENABLE) == 0 || !call->is_kernel ||
	    (call->rip_gpa & HV_GPA_PAGE_MASK) != (page & HV_GPA_PAGE_MASK))
		return NOT_A_CALL;
	if (!call->is_long || (call->control & CONTROL_RESERVED) != 0)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	switch (code) {
	case CALL_LONG_SPIN_WAIT:
	case CALL_POST_MESSAGE:
	case CALL_SIGNAL_EVENT:
		break;
	default:
		log_unknown(hyperv, code);
		return HV_STATUS_INVALID_HYPERCALL_CODE;
	}
	if ((call->control & (CONTROL_REP | CONTROL_VARIABLE)) != 0)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	if (code == CALL_POST_MESSAGE)
		return (uint32_t)post_message(hyperv, call);
	if (code == CALL_SIGNAL_EVENT)
		return (uint32_t)signal_event(hyperv, call);
	return HV_STATUS_SUCCESS; /* a spinner's hint */
}
