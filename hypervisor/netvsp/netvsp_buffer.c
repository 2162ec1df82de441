/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's receive and send buffers, and the sections of the former: netvsp_priv.h.
 *
 * A section belongs to one queue for as long as the buffer lives.  It is free, or filled and with
 * the guest until the guest completes the packet that named it; only then is it filled again.
 */
#include <errno.h>
#include <stdlib.h>

#include "hypervisor/netvsp/netvsp_priv.h"

static void buffer_free(struct netvsp_buffer *buffer)
{
	for (uint32_t i = 0; i < NETVSP_QUEUES_MAX; i++) {
		free(buffer->sections[i].free);
		free(buffer->sections[i].used);
	}
	vmbus_gpadl_unref(buffer->gpadl);
	free(buffer);
}

/* Equal shares; what is left over goes to the last. */
static int divide(struct netvsp_buffer *buffer)
{
	const uint32_t share = buffer->section_count / buffer->shares;

	for (uint32_t i = 0; i < buffer->shares; i++) {
		struct netvsp_sections *sections = &buffer->sections[i];

		sections->first = i * share;
		sections->count =
			i + 1 < buffer->shares ? share : buffer->section_count - i * share;
		sections->free = calloc(sections->count, sizeof(*sections->free));
		sections->used = calloc(sections->count, sizeof(*sections->used));
		if (sections->free == NULL || sections->used == NULL)
			return -ENOMEM;
		for (uint32_t n = sections->count; n > 0; n--)
			sections->free[sections->free_count++] = sections->first + n - 1;
	}
	return 0;
}

int netvsp_buffer_new(struct netvsp *netvsp, const struct netvsp_state_buffer *from,
		      struct netvsp_buffer **ret_buffer, struct base_error *err)
{
	struct netvsp_buffer *buffer = NULL;
	uint32_t size_bytes = 0;
	int rc = 0;

	buffer = calloc(1, sizeof(*buffer));
	if (buffer == NULL)
		return base_fail(err, -ENOMEM, "network buffer");
	rc = vmbus_gpadl_ref(netvsp->primary, from->gpadl_id, &buffer->gpadl);
	if (rc < 0) {
		buffer_free(buffer);
		return base_fail(err, rc, "network buffer: no page list 0x%x", from->gpadl_id);
	}
	size_bytes = vmbus_gpadl_size(buffer->gpadl);
	atomic_store(&buffer->refs, 1);
	buffer->netvsp = netvsp;
	buffer->id = from->id;
	buffer->generation = from->generation;
	buffer->section_bytes = from->section_bytes;
	buffer->section_count = from->section_count;
	buffer->shares = from->is_receive ? from->shares : 0;
	if ((uint64_t)buffer->section_bytes * buffer->section_count > size_bytes ||
	    buffer->section_count == 0 ||
	    (from->is_receive && buffer->section_count < 2 * buffer->shares)) {
		rc = base_fail(err, -EINVAL, "network buffer: %u bytes for %u sections of %u",
			       size_bytes, buffer->section_count, buffer->section_bytes);
	} else if (from->is_receive) {
		rc = divide(buffer);
		if (rc < 0)
			rc = base_fail(err, rc, "sections of a network buffer");
	}
	if (rc < 0) {
		buffer_free(buffer);
		return rc;
	}
	atomic_fetch_add(&netvsp->live_buffers, 1);
	*ret_buffer = buffer;
	return 0;
}

void netvsp_buffer_unref(struct netvsp_buffer *buffer)
{
	struct netvsp *netvsp = NULL;

	if (buffer == NULL || atomic_fetch_sub(&buffer->refs, 1) != 1)
		return;
	netvsp = buffer->netvsp;
	buffer_free(buffer);
	if (atomic_fetch_sub(&netvsp->live_buffers, 1) == 1)
		netvsp_control_kick(netvsp);
}

void netvsp_buffer_publish(struct netvsp *netvsp, struct netvsp_buffer **place,
			   struct netvsp_buffer *buffer)
{
	struct netvsp_buffer *before = NULL;

	{
		BASE_LOCKED(&netvsp->path_lock);
		before = *place;
		*place = buffer;
	}
	netvsp_buffer_unref(before);
	netvsp_queue_sync(&netvsp->queues[0]);
	for (uint32_t i = 1; i < netvsp->queue_limit; i++)
		netvsp_queue_kick(&netvsp->queues[i]);
}

uint32_t netvsp_section_spare(const struct netvsp_buffer *buffer, uint32_t queue)
{
	const uint32_t half = buffer->sections[queue].count / 2;

	if (queue != 0)
		return 0;
	return half < 16 ? half : 16;
}

bool netvsp_section_take(struct netvsp_buffer *buffer, uint32_t queue, uint32_t spare,
			 uint32_t *ret_section)
{
	struct netvsp_sections *sections = &buffer->sections[queue];

	if (sections->free_count <= spare)
		return false;
	*ret_section = sections->free[sections->free_count - 1];
#ifndef GODWIT_MUTANT_NETVSP_SECTION
	sections->free_count--;
#endif
	sections->used[*ret_section - sections->first] = 1;
	return true;
}

void netvsp_section_give(struct netvsp_buffer *buffer, uint32_t queue, uint32_t section)
{
	struct netvsp_sections *sections = &buffer->sections[queue];

	sections->used[section - sections->first] = 0;
#ifndef GODWIT_MUTANT_NETVSP_SECTION
	sections->free[sections->free_count++] = section;
#endif
}

bool netvsp_section_complete(struct netvsp_buffer *buffer, uint32_t queue, uint64_t trans_id)
{
	const struct netvsp_sections *sections = &buffer->sections[queue];
	const uint32_t section = (uint32_t)trans_id - 1;

	if (trans_id >> 32 != buffer->generation || section < sections->first ||
	    section - sections->first >= sections->count ||
	    sections->used[section - sections->first] == 0)
		return false;
	netvsp_section_give(buffer, queue, section);
	return true;
}
