/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/crash_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

#define STAMP_MAGIC 0x706d6174U /* "tamp" */
#define NO_NUMBER   UINT32_MAX  /* the sector holds zeros */
#define CHUNKS      (CRASH_BYTES_MAX / CRASH_SECTOR / CRASH_CHUNK)

static void *grown(void *array, size_t size_bytes, size_t count)
{
	void *larger = realloc(array, size_bytes * count);

	if (larger == NULL)
		base_bug("no memory for a crash test");
	return larger;
}

void crash_model_init(struct crash_model *model, uint64_t seed)
{
	*model = (struct crash_model){ .seed = seed };
	model->chunks = calloc(CHUNKS, sizeof(struct crash_list *));
	base_assert(model->chunks != NULL);
}

void crash_model_fini(struct crash_model *model)
{
	for (uint64_t i = 0; i < CHUNKS; i++) {
		for (uint32_t k = 0; k < CRASH_CHUNK && model->chunks[i] != NULL; k++)
			free(model->chunks[i][k].ops);
		free(model->chunks[i]);
	}
	free(model->chunks);
	free(model->ops);
	free(model->written);
}

/* What was done to @sector. */
static const struct crash_list *list_of(const struct crash_model *model, uint64_t sector)
{
	static const struct crash_list nothing;
	const struct crash_list *chunk = model->chunks[sector / CRASH_CHUNK];

	return chunk == NULL ? &nothing : &chunk[sector % CRASH_CHUNK];
}

static void sector_add(struct crash_model *model, uint64_t sector, uint32_t number)
{
	struct crash_list **chunk = &model->chunks[sector / CRASH_CHUNK];
	struct crash_list *list;

	if (*chunk == NULL) {
		*chunk = calloc(CRASH_CHUNK, sizeof(*list));
		base_assert(*chunk != NULL);
	}
	list = &(*chunk)[sector % CRASH_CHUNK];
	if (list->count == list->capacity) {
		list->capacity = list->capacity * 2 + 2;
		list->ops = grown(list->ops, sizeof(*list->ops), list->capacity);
	}
	list->ops[list->count++] = number;
}

/* What is cut off and comes back later reads zero. */
static void resize_add(struct crash_model *model, uint64_t first, uint32_t number)
{
	for (uint64_t i = first / CRASH_CHUNK; i < CHUNKS; i++)
		for (uint32_t k = 0; k < CRASH_CHUNK && model->chunks[i] != NULL; k++)
			if (i * CRASH_CHUNK + k >= first && model->chunks[i][k].count > 0)
				sector_add(model, i * CRASH_CHUNK + k, number);
}

uint32_t crash_model_begin(struct crash_model *model, enum disk_op op, uint64_t offset_bytes,
			   uint64_t length_bytes, uint64_t event_count)
{
	uint32_t number = (uint32_t)model->op_count;
	uint64_t first = offset_bytes / CRASH_SECTOR;
	uint64_t end = (offset_bytes + length_bytes) / CRASH_SECTOR;

	if (model->op_count == model->op_capacity) {
		model->op_capacity = model->op_capacity * 2 + 64;
		model->ops = grown(model->ops, sizeof(*model->ops), model->op_capacity);
	}
	model->ops[model->op_count++] = (struct crash_op){
		.op = op,
		.offset_bytes = offset_bytes,
		.length_bytes = length_bytes,
		.begin_count = event_count,
		.durable_count = UINT64_MAX,
		.begin_tick = model->tick++,
		.end_tick = UINT64_MAX,
	};
	base_assert(end <= CRASH_BYTES_MAX / CRASH_SECTOR);
	if (op == DISK_RESIZE)
		resize_add(model, first, number);
	for (uint64_t sector = first; sector < end && length_bytes > 0; sector++)
		sector_add(model, sector, number);
	return number;
}

void crash_model_end(struct crash_model *model, uint32_t number, int result, bool durable,
		     uint64_t event_count)
{
	struct crash_op *op = &model->ops[number];

	op->end_tick = model->tick++;
	op->result = result;
	if (result < 0)
		return;
	if (durable)
		op->durable_count = event_count;
	if (op->op != DISK_FLUSH)
		return;
	for (size_t i = 0; i < model->op_count; i++) {
		struct crash_op *other = &model->ops[i];

		if (other->end_tick < op->begin_tick && other->result == 0 &&
		    other->durable_count == UINT64_MAX)
			other->durable_count = event_count;
	}
}

bool crash_model_busy(const struct crash_model *model, uint64_t offset_bytes, uint64_t length_bytes)
{
	for (size_t i = model->op_count; i-- > 0;) {
		const struct crash_op *op = &model->ops[i];

		if (op->end_tick != UINT64_MAX || op->op == DISK_FLUSH)
			continue;
		if (op->op == DISK_RESIZE || (op->offset_bytes < offset_bytes + length_bytes &&
					      offset_bytes < op->offset_bytes + op->length_bytes))
			return true;
	}
	return false;
}

/* --- stamps --- */

void crash_model_stamp(const struct crash_model *model, uint32_t number, uint64_t sector,
		       uint8_t to[CRASH_SECTOR])
{
	uint64_t filler = (model->seed ^ sector * 0x9e3779b97f4a7c15ULL) + number;

	for (size_t i = 24; i < CRASH_SECTOR; i += 8) {
		filler = filler * 6364136223846793005ULL + 1442695040888963407ULL;
		base_put_le64(to + i, filler);
	}
	base_put_le32(to, STAMP_MAGIC);
	base_put_le64(to + 8, sector);
	base_put_le32(to + 16, number);
	base_put_le32(to + 20, (uint32_t)model->seed);
	base_put_le32(to + 4, base_crc32c(0, to + 8, CRASH_SECTOR - 8));
}

/* The operation that a sector's content is of; false: of none that ever wrote it. */
static bool stamp_read(const struct crash_model *model, uint64_t sector,
		       const uint8_t data[CRASH_SECTOR], uint32_t *ret_number)
{
	*ret_number = NO_NUMBER;
	if (base_is_zero(data, CRASH_SECTOR))
		return true;
	if (base_get_le32(data) != STAMP_MAGIC ||
	    base_get_le32(data + 4) != base_crc32c(0, data + 8, CRASH_SECTOR - 8) ||
	    base_get_le64(data + 8) != sector || base_get_le32(data + 20) != (uint32_t)model->seed)
		return false;
	*ret_number = base_get_le32(data + 16);
	return *ret_number < model->op_count;
}

/* --- what is allowed --- */

static bool op_begun(const struct crash_op *op, uint64_t event_count)
{
	return event_count == CRASH_NOW || op->begin_count < event_count;
}

/* Nothing older can show. */
static bool op_settled(const struct crash_op *op, uint64_t event_count)
{
	if (event_count == CRASH_NOW)
		return op->end_tick != UINT64_MAX && op->result == 0;
	return op->durable_count <= event_count;
}

static void explain(const struct crash_model *model, uint64_t sector, bool known, uint32_t number,
		    char *why, size_t why_bytes)
{
	const struct crash_list *list = list_of(model, sector);
	int used;

	if (known && number == NO_NUMBER)
		used = snprintf(why, why_bytes, "sector %" PRIu64 " holds zeros;", sector);
	else if (known)
		used = snprintf(why, why_bytes, "sector %" PRIu64 " holds what operation %u wrote;",
				sector, number);
	else
		used = snprintf(why, why_bytes,
				"sector %" PRIu64 " holds bytes never written there;", sector);
	for (uint32_t i = list->count > 6 ? list->count - 6 : 0; i < list->count; i++) {
		const struct crash_op *op = &model->ops[list->ops[i]];

		if (used < 0 || (size_t)used >= why_bytes)
			return;
		used += snprintf(why + used, why_bytes - (size_t)used,
				 " [operation %u: %s begun at %" PRIu64 ", durable at %" PRId64 "]",
				 list->ops[i], op->op == DISK_WRITE ? "write" : "zero",
				 op->begin_count, (int64_t)op->durable_count);
	}
}

static bool is_after(const uint8_t data[CRASH_SECTOR])
{
	return data[0] == CRASH_AFTER && memcmp(data, data + 1, CRASH_SECTOR - 1) == 0;
}

bool crash_model_was_written(const struct crash_model *model, uint64_t sector)
{
	const struct crash_list *list = list_of(model, sector);

	for (uint32_t i = 0; i < list->count; i++)
		if (model->ops[list->ops[i]].op == DISK_WRITE)
			return true;
	return false;
}

bool crash_model_allows(const struct crash_model *model, uint64_t sector, uint64_t event_count,
			const uint8_t data[CRASH_SECTOR], char *why, size_t why_bytes)
{
	const struct crash_list *list = list_of(model, sector);
	uint32_t number;
	bool known = stamp_read(model, sector, data, &number);
	bool settled = false;

	for (uint32_t i = list->count; i-- > 0 && known && !settled;) {
		const struct crash_op *op = &model->ops[list->ops[i]];
		uint32_t value = op->op == DISK_WRITE ? list->ops[i] : NO_NUMBER;

		settled = op_settled(op, event_count);
		if ((settled || op_begun(op, event_count)) && value == number)
			return true;
	}
	if (known && !settled && number == NO_NUMBER)
		return true; /* as it was made */
	if (!known && is_after(data) && !crash_model_was_written(model, sector))
		return true;
	explain(model, sector, known, number, why, why_bytes);
	return false;
}

bool crash_model_allows_size(const struct crash_model *model, uint64_t size_bytes,
			     uint64_t event_count)
{
	for (size_t i = model->op_count; i-- > 0;) {
		const struct crash_op *op = &model->ops[i];

		if (op->op != DISK_RESIZE)
			continue;
		if (op_settled(op, event_count))
			return op->offset_bytes == size_bytes;
		if (op_begun(op, event_count) && op->offset_bytes == size_bytes)
			return true;
	}
	return false;
}

static void written_add(struct crash_model *model, uint64_t sector)
{
	if (model->written_count % 1024 == 0)
		model->written =
			grown(model->written, sizeof(*model->written), model->written_count + 1024);
	model->written[model->written_count++] = sector;
}

void crash_model_sort(struct crash_model *model)
{
	free(model->written);
	model->written = NULL;
	model->written_count = 0;
	for (uint64_t i = 0; i < CHUNKS; i++)
		for (uint32_t k = 0; k < CRASH_CHUNK && model->chunks[i] != NULL; k++)
			if (crash_model_was_written(model, i * CRASH_CHUNK + k))
				written_add(model, i * CRASH_CHUNK + k);
}
