/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's MSR writes and hypercalls, and the two saved sections.  First byte: 0 to 3 a sequence
 * of operations, 4 section "hyperv", 5 section "synic": what is accepted is what would be written
 * again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/hyperv_priv.h"
#include "hypervisor/synic_priv.h"

#define MEMORY_BYTES (64ULL << 20)
#define OP_BYTES     18u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct hv_slat *slat;
static struct hv_synic *synic;
static struct hv_hyperv *hyperv;

static void on_interrupt(void *context, uint32_t vp, uint8_t vector)
{
	(void)context;
	if (vp > 1 || vector < HV_SINT_VECTOR_MIN)
		abort();
}

static void on_reset(void *context)
{
	(void)context;
}

static void on_panic(void *context, const char *text)
{
	(void)context;
	if (strlen(text) > 2 * HV_PAGE_BYTES)
		abort();
}

static enum hv_status on_post(void *context, uint32_t connection_id, uint32_t type,
			      const uint8_t *payload, uint32_t size_bytes)
{
	struct hv_message message = { .type = type, .size_bytes = size_bytes };

	(void)context;
	if (type == 0 || size_bytes > HV_MESSAGE_PAYLOAD_BYTES)
		abort();
	memcpy(message.payload, payload, size_bytes);
	return hv_synic_post(synic, connection_id % 2, 2, &message) == 0
		       ? HV_STATUS_SUCCESS
		       : HV_STATUS_INSUFFICIENT_BUFFERS;
}

static enum hv_status on_signal(void *context, uint32_t connection_id, uint16_t flag)
{
	(void)context;
	(void)!hv_synic_signal(synic, connection_id % 2, 2, flag);
	return HV_STATUS_SUCCESS;
}

static const struct hv_synic_ops synic_ops = { .interrupt = on_interrupt };
static const struct hv_hyperv_ops ops = { .reset = on_reset, .panic = on_panic };
static const struct hv_hypercall_ops calls = { .post_message = on_post, .signal_event = on_signal };

static void make(void)
{
	static struct hv_memory *memory;

	if (hv_memory_new(MEMORY_BYTES, HV_MEMORY_SMALL, &memory, NULL) < 0 ||
	    hv_slat_new(memory, -1, &slat, NULL) < 0 ||
	    hv_synic_new(slat, 2, &synic_ops, NULL, &synic, NULL) < 0 ||
	    hv_hyperv_new(slat, synic, 2, &ops, NULL, &hyperv, NULL) < 0)
		abort();
	hv_hyperv_set_calls(hyperv, &calls, NULL);
}

/* kind, MSR's low byte or the call's code, two words. */
static void operate(const uint8_t *at)
{
	uint32_t msr = HV_MSR_FIRST + at[1] + ((at[0] & 4U) != 0 ? 0x100U : 0);
	uint64_t first = base_get_le64(at + 2);
	uint64_t second = base_get_le64(at + 10);
	struct hv_hypercall call = { .control = first,
				     .input = second,
				     .rip_gpa = hyperv->regs.hypercall,
				     .is_kernel = true,
				     .is_long = (at[0] & 8U) == 0 };
	uint64_t value;

	switch (at[0] % 3) {
	case 0:
		(void)!hv_hyperv_write_msr(hyperv, at[0] >> 7, msr, first);
		break;
	case 1:
		(void)!hv_hyperv_read_msr(hyperv, at[0] >> 7, msr, &value);
		break;
	default:
		(void)hv_hyperv_call(hyperv, &call);
		break;
	}
}

static void load(bool is_synic, const uint8_t *data, size_t size)
{
	struct base_reader in = base_reader_over(data, size);
	struct base_buffer out = { .data = NULL };
	struct base_error err = { .code = 0 };
	int r = is_synic ? hv_synic_load(synic, HV_SYNIC_VERSION, &in, &err)
			 : hv_hyperv_load(hyperv, HV_HYPERV_VERSION, &in, &err);

	if (r != 0) {
		if (r != -EBADMSG || err.code != r || err.text[0] == '\0')
			abort();
		return;
	}
	if (!is_synic)
		return; /* its time goes on */
	hv_synic_save(synic, &out);
	if (out.size_bytes != in.offset_bytes || memcmp(out.data, data, out.size_bytes) != 0)
		abort();
	base_buffer_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (slat == NULL)
		make();
	hv_hyperv_reset(hyperv);
	hv_synic_reset(synic);
	if (size == 0)
		return 0;
	if (data[0] == 4 || data[0] == 5) {
		load(data[0] == 5, data + 1, size - 1);
		return 0;
	}
	for (size_t at = 1; size - at >= OP_BYTES; at += OP_BYTES)
		operate(data + at);
	return 0;
}
