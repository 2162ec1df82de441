/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The map of used space in a VHDX file: a bit per MiB.  Loop only.
 *
 * Bits are looked at a word at a time; the map grows with the file.  Offsets and lengths behind
 * the map are clipped, so a table that names the moon does no harm.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhdx_journal_priv.h"

int vhdx_units_grow(struct vhdx_space *space, uint64_t end_bytes)
{
	uint64_t units = end_bytes / VHDX_MIB;
	uint64_t capacity = space->unit_capacity == 0 ? 1024 : space->unit_capacity;
	uint64_t *bigger;

	if (units > VHDX_SPACE_UNITS_MAX)
		return -EFBIG;
	if (space->used != NULL && units <= space->unit_capacity)
		return 0;
	while (capacity < units)
		capacity *= 2;
	if (space->used == NULL) {
		space->used = calloc(capacity / 64, sizeof(uint64_t));
		if (space->used == NULL)
			return -ENOMEM;
		space->unit_capacity = capacity;
		return 0;
	}
	bigger = realloc(space->used, capacity / 8);
	if (bigger == NULL)
		return -ENOMEM;
	memset((uint8_t *)bigger + space->unit_capacity / 8, 0,
	       (capacity - space->unit_capacity) / 8);
	space->used = bigger;
	space->unit_capacity = capacity;
	return 0;
}

/* First and last unit that the range touches, clipped; false when nothing is left. */
static bool clip(const struct vhdx_space *space, uint64_t offset_bytes, uint64_t length_bytes,
		 uint64_t *ret_first, uint64_t *ret_last)
{
	uint64_t first = offset_bytes / VHDX_MIB;
	uint64_t last;

	if (length_bytes == 0 || first >= space->unit_capacity)
		return false;
	if (length_bytes - 1 > UINT64_MAX - offset_bytes)
		last = UINT64_MAX;
	else
		last = (offset_bytes + (length_bytes - 1)) / VHDX_MIB;
	if (last >= space->unit_capacity)
		last = space->unit_capacity - 1;
	*ret_first = first;
	*ret_last = last;
	return true;
}

/* The bits of [first, last] that lie in @word. */
static uint64_t word_mask(uint64_t word, uint64_t first, uint64_t last)
{
	uint64_t mask = ~0ULL;

	if (word == first / 64)
		mask &= ~0ULL << (first % 64);
	if (word == last / 64)
		mask &= ~0ULL >> (63 - last % 64);
	return mask;
}

bool vhdx_units_any(const struct vhdx_space *space, uint64_t offset_bytes, uint64_t length_bytes)
{
	uint64_t first = 0;
	uint64_t last = 0;

	if (!clip(space, offset_bytes, length_bytes, &first, &last))
		return false;
	for (uint64_t word = first / 64; word <= last / 64; word++) {
		if ((space->used[word] & word_mask(word, first, last)) != 0)
			return true;
	}
	return false;
}

void vhdx_units_mark(struct vhdx_space *space, uint64_t offset_bytes, uint64_t length_bytes)
{
	uint64_t first = 0;
	uint64_t last = 0;

	if (!clip(space, offset_bytes, length_bytes, &first, &last))
		return;
	for (uint64_t word = first / 64; word <= last / 64; word++)
		space->used[word] |= word_mask(word, first, last);
}

void vhdx_units_clear(struct vhdx_space *space, uint64_t offset_bytes, uint64_t length_bytes)
{
	uint64_t first = 0;
	uint64_t last = 0;

	if (!clip(space, offset_bytes, length_bytes, &first, &last))
		return;
	for (uint64_t word = first / 64; word <= last / 64; word++)
		space->used[word] &= ~word_mask(word, first, last);
}

/* The first unit in [from, limit) whose bit is @set; @limit when there is none. */
static uint64_t next_unit(const struct vhdx_space *space, uint64_t from, uint64_t limit, bool set)
{
	while (from < limit) {
		uint64_t bits = space->used[from / 64];

		if (!set)
			bits = ~bits;
		bits &= ~0ULL << (from % 64);
		if (bits != 0) {
			uint64_t found = from / 64 * 64 + (uint64_t)__builtin_ctzll(bits);

			return found < limit ? found : limit;
		}
		from = (from / 64 + 1) * 64;
	}
	return limit;
}

uint64_t vhdx_units_find(const struct vhdx_space *space, uint64_t from, uint64_t limit,
			 uint64_t units)
{
	if (limit > space->unit_capacity)
		limit = space->unit_capacity;
	while (from < limit && limit - from >= units) {
		uint64_t free_unit = next_unit(space, from, limit, false);

		if (limit - free_unit < units)
			break;
		from = next_unit(space, free_unit, free_unit + units, true);
		if (from == free_unit + units)
			return free_unit;
	}
	return UINT64_MAX;
}

uint64_t vhdx_units_end(const struct vhdx_space *space)
{
	for (uint64_t word = space->unit_capacity / 64; word > 0; word--) {
		uint64_t bits = space->used[word - 1];

		if (bits != 0)
			return (word * 64 - (uint64_t)__builtin_clzll(bits)) * VHDX_MIB;
	}
	return 0;
}
