/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/fake_store_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void piece_unref(struct fake_piece *piece)
{
	if (piece != NULL && --piece->references == 0)
		free(piece);
}

struct fake_content *fake_content_new(uint32_t id)
{
	struct fake_content *content = calloc(1, sizeof(*content));

	if (content == NULL)
		return NULL;
	content->references = 1;
	content->id = id;
	return content;
}

struct fake_content *fake_content_ref(struct fake_content *content)
{
	content->references++;
	return content;
}

void fake_content_unref(struct fake_content *content)
{
	if (content == NULL || --content->references > 0)
		return;
	for (uint32_t i = 0; i < content->slot_count; i++)
		piece_unref(content->slots[i].piece);
	free(content->slots);
	free(content);
}

struct fake_content *fake_content_clone(const struct fake_content *content)
{
	struct fake_content *copy = fake_content_new(content->id);

	if (copy == NULL)
		return NULL;
	copy->size_bytes = content->size_bytes;
	copy->lease_epoch = content->lease_epoch;
	if (content->slot_count == 0)
		return copy;
	copy->slots = malloc(content->slot_count * sizeof(*copy->slots));
	if (copy->slots == NULL) {
		fake_content_unref(copy);
		return NULL;
	}
	memcpy(copy->slots, content->slots, content->slot_count * sizeof(*copy->slots));
	copy->slot_count = content->slot_count;
	copy->slot_capacity = content->slot_count;
	copy->unit_count = content->unit_count;
	for (uint32_t i = 0; i < copy->slot_count; i++)
		if (copy->slots[i].piece != NULL)
			copy->slots[i].piece->references++;
	return copy;
}

/* Position of the first slot whose index is @index or more. */
static uint32_t slot_at(const struct fake_content *content, uint64_t index)
{
	uint32_t low = 0;
	uint32_t high = content->slot_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (content->slots[middle].index < index)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The bits of the units that [from, to) of a piece touches. */
static uint16_t units_touched(uint32_t from, uint32_t to)
{
	uint32_t first = from / FAKE_UNIT_BYTES;
	uint32_t end = (to + FAKE_UNIT_BYTES - 1) / FAKE_UNIT_BYTES;

	return (uint16_t)(((1U << end) - 1U) & ~((1U << first) - 1U));
}

/* The bits of the units that [from, to) of a piece covers whole. */
static uint16_t units_covered(uint32_t from, uint32_t to)
{
	uint32_t first = (from + FAKE_UNIT_BYTES - 1) / FAKE_UNIT_BYTES;
	uint32_t end = to / FAKE_UNIT_BYTES;

	return first >= end ? 0 : units_touched(first * FAKE_UNIT_BYTES, end * FAKE_UNIT_BYTES);
}

static uint32_t bits_of(uint16_t units)
{
	return (uint32_t)__builtin_popcount(units);
}

/* Make a slot for each index from @first to @last. */
static int slots_reserve(struct fake_content *content, uint64_t first, uint64_t last)
{
	uint32_t begin = slot_at(content, first);
	uint32_t end = begin;
	uint32_t missing;
	struct fake_slot *slots;

	while (end < content->slot_count && content->slots[end].index <= last)
		end++;
	missing = (uint32_t)(last - first + 1) - (end - begin);
	if (missing == 0)
		return 0;
	if (content->slot_capacity - content->slot_count < missing) {
		uint32_t capacity = content->slot_count + missing + content->slot_count / 2 + 8;

		slots = realloc(content->slots, capacity * sizeof(*slots));
		if (slots == NULL)
			return -ENOMEM;
		content->slots = slots;
		content->slot_capacity = capacity;
	}
	slots = content->slots;
	memmove(slots + end + missing, slots + end, (content->slot_count - end) * sizeof(*slots));
	content->slot_count += missing;
	/* From the back, so that slots that were there move over free places only. */
	for (uint64_t index = last + 1; index-- > first;) {
		struct fake_slot *to = &slots[begin + (index - first)];

		if (end > begin && slots[end - 1].index == index)
			*to = slots[--end];
		else
			*to = (struct fake_slot){ .index = index };
	}
	return 0;
}

/* A piece of @slot that may be changed; @whole: its content does not matter. */
static struct fake_piece *piece_own(struct fake_slot *slot, bool whole)
{
	struct fake_piece *piece;

	if (slot->piece != NULL && slot->piece->references == 1)
		return slot->piece;
	piece = malloc(sizeof(*piece));
	if (piece == NULL)
		return NULL;
	piece->references = 1;
	if (slot->piece == NULL)
		memset(piece->data, 0, whole ? 0 : FAKE_PIECE_BYTES);
	else if (!whole)
		memcpy(piece->data, slot->piece->data, FAKE_PIECE_BYTES);
	piece_unref(slot->piece);
	slot->piece = piece;
	return piece;
}

void fake_content_read(const struct fake_content *content, uint64_t offset_bytes, void *to,
		       uint64_t length_bytes)
{
	uint8_t *out = to;
	uint32_t position = slot_at(content, offset_bytes / FAKE_PIECE_BYTES);

	while (length_bytes > 0) {
		uint64_t index = offset_bytes / FAKE_PIECE_BYTES;
		uint32_t within = (uint32_t)(offset_bytes % FAKE_PIECE_BYTES);
		uint64_t part = FAKE_PIECE_BYTES - within;
		const struct fake_slot *slot = NULL;

		if (part > length_bytes)
			part = length_bytes;
		if (position < content->slot_count && content->slots[position].index == index)
			slot = &content->slots[position++];
		if (slot != NULL && slot->piece != NULL)
			memcpy(out, slot->piece->data + within, part);
		else
			memset(out, 0, part);
		out += part;
		offset_bytes += part;
		length_bytes -= part;
	}
}

int fake_content_write(struct fake_content *content, uint64_t offset_bytes, const void *from,
		       uint64_t length_bytes)
{
	const uint8_t *in = from;
	uint64_t end_bytes = offset_bytes + length_bytes;
	uint32_t position;

	if (length_bytes == 0)
		return 0;
	if (slots_reserve(content, offset_bytes / FAKE_PIECE_BYTES,
			  (end_bytes - 1) / FAKE_PIECE_BYTES) < 0)
		return -ENOMEM;
	position = slot_at(content, offset_bytes / FAKE_PIECE_BYTES);
	while (length_bytes > 0) {
		struct fake_slot *slot = &content->slots[position++];
		uint32_t within = (uint32_t)(offset_bytes % FAKE_PIECE_BYTES);
		uint64_t part = FAKE_PIECE_BYTES - within;
		struct fake_piece *piece;
		uint16_t units;

		if (part > length_bytes)
			part = length_bytes;
		piece = piece_own(slot, part == FAKE_PIECE_BYTES);
		if (piece == NULL)
			return -ENOMEM;
		memcpy(piece->data + within, in, part);
		units = units_touched(within, within + (uint32_t)part);
		content->unit_count += bits_of((uint16_t)(units & ~slot->units));
		slot->units |= units;
		in += part;
		offset_bytes += part;
		length_bytes -= part;
	}
	if (content->size_bytes < end_bytes)
		content->size_bytes = end_bytes;
	return 0;
}

/* Clear [from, to) of one slot. */
static int slot_clear(struct fake_content *content, struct fake_slot *slot, uint32_t from,
		      uint32_t to, bool free_space)
{
	if (from == 0 && to == FAKE_PIECE_BYTES) {
		piece_unref(slot->piece);
		slot->piece = NULL;
	} else if (slot->piece != NULL) {
		struct fake_piece *piece = piece_own(slot, false);

		if (piece == NULL)
			return -ENOMEM;
		memset(piece->data + from, 0, to - from);
	}
	if (free_space) {
		uint16_t units = units_covered(from, to) & slot->units;

		content->unit_count -= bits_of(units);
		slot->units &= (uint16_t)~units;
	}
	return 0;
}

/* Take slots that hold nothing out of [first, end). */
static void slots_sweep(struct fake_content *content, uint32_t first, uint32_t end)
{
	uint32_t kept = first;

	for (uint32_t i = first; i < end; i++)
		if (content->slots[i].piece != NULL || content->slots[i].units != 0)
			content->slots[kept++] = content->slots[i];
	memmove(content->slots + kept, content->slots + end,
		(content->slot_count - end) * sizeof(*content->slots));
	content->slot_count -= end - kept;
}

int fake_content_clear(struct fake_content *content, uint64_t offset_bytes, uint64_t length_bytes,
		       bool free_space)
{
	uint64_t end_bytes = offset_bytes + length_bytes;
	uint32_t first;
	uint32_t position;

	if (length_bytes == 0 || content->slot_count == 0)
		return 0;
	first = slot_at(content, offset_bytes / FAKE_PIECE_BYTES);
	position = first;
	for (; position < content->slot_count; position++) {
		struct fake_slot *slot = &content->slots[position];
		uint64_t start_bytes = slot->index * FAKE_PIECE_BYTES;
		uint32_t from = 0;
		uint32_t to = FAKE_PIECE_BYTES;

		if (start_bytes >= end_bytes)
			break;
		if (offset_bytes > start_bytes)
			from = (uint32_t)(offset_bytes - start_bytes);
		if (end_bytes - start_bytes < FAKE_PIECE_BYTES)
			to = (uint32_t)(end_bytes - start_bytes);
		if (slot_clear(content, slot, from, to, free_space) < 0)
			return -ENOMEM;
	}
	if (position > first)
		slots_sweep(content, first, position);
	return 0;
}

int fake_content_allocate(struct fake_content *content, uint64_t offset_bytes,
			  uint64_t length_bytes)
{
	uint64_t end_bytes = offset_bytes + length_bytes;
	uint32_t position;

	if (length_bytes == 0)
		return 0;
	if (length_bytes > FAKE_RESERVE_MAX)
		return -EFBIG;
	if (slots_reserve(content, offset_bytes / FAKE_PIECE_BYTES,
			  (end_bytes - 1) / FAKE_PIECE_BYTES) < 0)
		return -ENOMEM;
	position = slot_at(content, offset_bytes / FAKE_PIECE_BYTES);
	while (offset_bytes < end_bytes) {
		struct fake_slot *slot = &content->slots[position++];
		uint32_t within = (uint32_t)(offset_bytes % FAKE_PIECE_BYTES);
		uint64_t part = FAKE_PIECE_BYTES - within;
		uint16_t units;

		if (part > end_bytes - offset_bytes)
			part = end_bytes - offset_bytes;
		units = units_touched(within, within + (uint32_t)part);
		content->unit_count += bits_of((uint16_t)(units & ~slot->units));
		slot->units |= units;
		offset_bytes += part;
	}
	if (content->size_bytes < end_bytes)
		content->size_bytes = end_bytes;
	return 0;
}

int fake_content_truncate(struct fake_content *content, uint64_t size_bytes)
{
	if (size_bytes < content->size_bytes) {
		uint64_t whole_bytes = (content->size_bytes + FAKE_PIECE_BYTES - 1) /
				       FAKE_PIECE_BYTES * FAKE_PIECE_BYTES;

		if (fake_content_clear(content, size_bytes, whole_bytes - size_bytes, true) < 0)
			return -ENOMEM;
	}
	content->size_bytes = size_bytes;
	return 0;
}

uint64_t fake_content_units_missing(const struct fake_content *content, uint64_t offset_bytes,
				    uint64_t length_bytes)
{
	uint64_t end_bytes = offset_bytes + length_bytes;
	uint64_t missing;

	if (length_bytes == 0)
		return 0;
	missing = (end_bytes - 1) / FAKE_UNIT_BYTES - offset_bytes / FAKE_UNIT_BYTES + 1;
	for (uint32_t i = slot_at(content, offset_bytes / FAKE_PIECE_BYTES);
	     i < content->slot_count; i++) {
		const struct fake_slot *slot = &content->slots[i];
		uint64_t start_bytes = slot->index * FAKE_PIECE_BYTES;
		uint32_t from = 0;
		uint32_t to = FAKE_PIECE_BYTES;

		if (start_bytes >= end_bytes)
			break;
		if (offset_bytes > start_bytes)
			from = (uint32_t)(offset_bytes - start_bytes);
		if (end_bytes - start_bytes < FAKE_PIECE_BYTES)
			to = (uint32_t)(end_bytes - start_bytes);
		missing -= bits_of(slot->units & units_touched(from, to));
	}
	return missing;
}

/* End of the run that @offset_bytes is in, at most @end_bytes; *ret_data: of what kind it is. */
static uint64_t run_end(const struct fake_content *content, uint64_t offset_bytes,
			uint64_t end_bytes, bool *ret_data)
{
	uint32_t position = slot_at(content, offset_bytes / FAKE_PIECE_BYTES);
	bool first = true;

	*ret_data = false;
	while (offset_bytes < end_bytes) {
		uint64_t index = offset_bytes / FAKE_PIECE_BYTES;
		const struct fake_slot *slot = NULL;
		uint32_t unit = (uint32_t)(offset_bytes % FAKE_PIECE_BYTES) / FAKE_UNIT_BYTES;
		bool data;

		if (position == content->slot_count)
			return first || !*ret_data ? end_bytes : offset_bytes;
		slot = &content->slots[position];
		data = slot->index == index && (slot->units >> unit & 1U) != 0;
		if (first)
			*ret_data = data;
		else if (data != *ret_data)
			return offset_bytes;
		first = false;
		if (slot->index > index) {
			offset_bytes = slot->index * FAKE_PIECE_BYTES;
			continue;
		}
		offset_bytes = index * FAKE_PIECE_BYTES + (unit + 1) * (uint64_t)FAKE_UNIT_BYTES;
		if (unit + 1 == FAKE_UNITS_PER_PIECE)
			position++;
	}
	return end_bytes;
}

uint32_t fake_content_ranges(const struct fake_content *content, uint64_t offset_bytes,
			     uint64_t end_bytes, struct store_range *ranges, uint32_t capacity)
{
	uint32_t count = 0;

	while (offset_bytes < end_bytes && count < capacity) {
		bool data;
		uint64_t end = run_end(content, offset_bytes, end_bytes, &data);

		ranges[count++] = (struct store_range){
			.offset_bytes = offset_bytes,
			.length_bytes = end - offset_bytes,
			.data = data,
		};
		offset_bytes = end;
	}
	return count;
}
