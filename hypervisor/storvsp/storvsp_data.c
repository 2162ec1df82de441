/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request's data in guest memory: its page list, and the iovec over it for the disk.
 *
 * A write window of a read ends, and so marks its pages, when the disk is done with them and
 * before the answer goes into the ring; never earlier, or a page sent by a migration in between
 * would be sent without what landed later.
 */
#include "hypervisor/storvsp/storvsp_priv.h"

#include <errno.h>
#include <string.h>

static int take_piece(void *context, const struct vmbus_gpa_piece *piece, uint32_t range)
{
	struct storvsp_request *request = context;
	struct storvsp_run *last =
		request->run_count == 0 ? NULL : &request->runs[request->run_count - 1];

	(void)range;
	request->run_bytes += piece->length_bytes;
	if (last != NULL && last->gpa + last->length_bytes == piece->gpa &&
	    piece->length_bytes <= UINT32_MAX - last->length_bytes) {
		last->length_bytes += piece->length_bytes;
		return 0;
	}
	if (request->run_count == STORVSP_RUNS)
		return -E2BIG;
	request->runs[request->run_count++] = (struct storvsp_run){
		.gpa = piece->gpa,
		.length_bytes = piece->length_bytes,
	};
	return 0;
}

void storvsp_data_take(struct storvsp_request *request, const struct vmbus_packet *packet)
{
	request->run_count = 0;
	request->run_bytes = 0;
	request->malformed = false;
	if (packet->type == VMBUS_PACKET_GPA_DIRECT)
		request->malformed = vmbus_gpa_walk(packet, take_piece, request) != 0;
}

/* --- small data: answers and parameters --- */

int storvsp_data_get(struct storvsp_request *request, uint32_t size_bytes)
{
	const struct hv_slat *slat = request->channel->storvsp->options.slat;
	uint32_t at = 0;

	for (uint32_t i = 0; i < request->run_count && at < size_bytes; i++) {
		uint32_t left = size_bytes - at;
		uint32_t part =
			request->runs[i].length_bytes < left ? request->runs[i].length_bytes : left;
		int rc = hv_slat_read(slat, request->runs[i].gpa, request->data + at, part);

		if (rc != 0)
			return rc;
		at += part;
	}
	return at == size_bytes ? 0 : -EFAULT;
}

/* From @from into the guest's pages, marked. */
static int put(struct storvsp_request *request, const uint8_t *from, uint64_t size_bytes)
{
	struct hv_slat *slat = request->channel->storvsp->options.slat;
	uint64_t at = 0;

	for (uint32_t i = 0; i < request->run_count && at < size_bytes; i++) {
		uint64_t left = size_bytes - at;
		uint64_t part =
			request->runs[i].length_bytes < left ? request->runs[i].length_bytes : left;
		int rc = hv_slat_write(slat, request->runs[i].gpa, from + at, part);

		if (rc != 0)
			return rc;
		at += part;
	}
	return at == size_bytes ? 0 : -EFAULT;
}

int storvsp_data_put(struct storvsp_request *request, uint32_t size_bytes)
{
	return put(request, request->data, size_bytes);
}

/* --- bounce buffers --- */

static bool is_aligned(const struct storvsp_request *request)
{
	uint64_t left = request->plan.length_bytes;

	for (uint32_t i = 0; i < request->run_count && left > 0; i++) {
		const struct storvsp_run *run = &request->runs[i];
		uint64_t part = run->length_bytes < left ? run->length_bytes : left;

		if (run->gpa % STORVSP_ALIGN != 0 || part % STORVSP_ALIGN != 0)
			return false;
		left -= part;
	}
	return true;
}

static enum storvsp_data map_bounce(struct storvsp_request *request)
{
	struct storvsp_channel *channel = request->channel;
	const struct hv_slat *slat = channel->storvsp->options.slat;
	uint64_t length = request->plan.length_bytes;
	uint64_t at = 0;

	if (channel->bounce_count == 0)
		return STORVSP_DATA_NO_BOUNCE;
	request->bounce = channel->bounces[channel->bounce_count - 1];
	for (uint32_t i = 0; i < request->run_count && at < length; i++) {
		const struct storvsp_run *run = &request->runs[i];
		uint64_t part = run->length_bytes < length - at ? run->length_bytes : length - at;
		const uint8_t *view = hv_slat_view(slat, run->gpa, part);

		if (view == NULL) {
			request->bounce = NULL;
			return STORVSP_DATA_FAULT;
		}
		if (request->plan.action == SCSI_WRITE)
			memcpy(request->bounce + at, view, part);
		at += part;
	}
	channel->bounce_count--;
	request->iov[0] = (struct iovec){ .iov_base = request->bounce, .iov_len = length };
	request->io.iov_count = 1;
	return STORVSP_DATA_READY;
}

/* --- the guest's pages themselves --- */

static void windows_end(struct storvsp_request *request)
{
	for (uint32_t i = 0; i < request->window_count; i++)
		hv_slat_window_end(&request->windows[i]);
	request->window_count = 0;
}

static void *map_run(struct storvsp_request *request, const struct storvsp_run *run, uint64_t part)
{
	struct hv_slat *slat = request->channel->storvsp->options.slat;
	struct hv_slat_window *window = &request->windows[request->window_count];
	union {
		const uint8_t *view;
		void *base;
	} bytes; /* an iovec has no const; a disk does not write what it is to write */

	if (request->plan.action == SCSI_WRITE) {
		bytes.view = hv_slat_view(slat, run->gpa, part);
		return bytes.view == NULL ? NULL : bytes.base;
	}
	if (hv_slat_window_begin(slat, run->gpa, part, window) != 0)
		return NULL;
	request->window_count++;
	return window->data;
}

static enum storvsp_data map_pages(struct storvsp_request *request)
{
	uint64_t left = request->plan.length_bytes;
	uint32_t count = 0;

	for (uint32_t i = 0; i < request->run_count && left > 0; i++) {
		const struct storvsp_run *run = &request->runs[i];
		uint64_t part = run->length_bytes < left ? run->length_bytes : left;
		void *base = map_run(request, run, part);

		if (base == NULL) {
			windows_end(request);
			return STORVSP_DATA_FAULT;
		}
		request->iov[count++] = (struct iovec){ .iov_base = base, .iov_len = part };
		left -= part;
	}
	request->io.iov_count = count;
#ifdef GODWIT_MUTANT_STORVSP_MARK_EARLY
	windows_end(request);
#endif
	return STORVSP_DATA_READY;
}

enum storvsp_data storvsp_data_map(struct storvsp_request *request)
{
	request->io.iov = request->iov;
	return is_aligned(request) ? map_pages(request) : map_bounce(request);
}

void storvsp_data_unmap(struct storvsp_request *request, bool well)
{
	struct storvsp_channel *channel = request->channel;

	if (request->bounce != NULL) {
		/* The runs were looked at: RAM does not go away. */
		if (well && request->plan.action == SCSI_READ && channel->state == STORVSP_OPEN)
			base_assert(put(request, request->bounce, request->plan.length_bytes) == 0);
		channel->bounces[channel->bounce_count++] = request->bounce;
		request->bounce = NULL;
	}
	windows_end(request);
}
