/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a power failure leaves on the medium.
 *
 * A cursor is the state of the medium after some events of the record: the content that is
 * durable, and what is not.  It only moves forward; copies of it are kept on the way
 * (snapshots), so a crash at any point costs the events since the last copy.  Contents
 * share their pieces, so copies cost little.
 *
 * Of one file, operations that are over take effect in the order they ended, which is the order
 * in which they changed the file; those that had only begun come after them, in the order
 * they began.  An operation that is durable waits in the list for the ones before it, so that it
 * is put over them and not they over it.
 */
#include "hypervisor/disk/fake_store_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SNAPSHOT_EVENTS 512U /* between two copies of the cursor */

/* An operation that the content does not hold yet. */
struct cursor_op {
	uint32_t operation;
	bool durable;
};

struct cursor_file {
	struct fake_content *content; /* what is durable */
	struct cursor_op *over; /* landed, in the order they ended; [over_first, over_count) */
	size_t over_first;
	size_t over_count;
	size_t over_capacity;
	struct cursor_op *begun; /* in the order they began */
	size_t begun_count;
	size_t begun_capacity;
};

/* A name operation that may still be lost. */
struct cursor_name {
	uint64_t event;
	bool from_synced;
	bool to_synced;
};

struct fake_cursor {
	uint64_t event_count; /* events that are in */
	struct fake_names names;
	struct cursor_file **files;
	size_t file_count;
	size_t file_capacity;
	struct cursor_name *pending;
	size_t pending_count;
	size_t pending_capacity;
};

static void cursor_file_free(struct cursor_file *file)
{
	if (file == NULL)
		return;
	fake_content_unref(file->content);
	free(file->over);
	free(file->begun);
	free(file);
}

void fake_cursor_free(struct fake_cursor *cursor)
{
	if (cursor == NULL)
		return;
	for (size_t i = 0; i < cursor->file_count; i++)
		cursor_file_free(cursor->files[i]);
	fake_names_fini(&cursor->names);
	free(cursor->files);
	free(cursor->pending);
	free(cursor);
}

BASE_DEFINE_FREEP(struct fake_cursor, fake_cursor_free);

static struct cursor_file *cursor_find(const struct fake_cursor *cursor, uint32_t content)
{
	for (size_t i = 0; i < cursor->file_count; i++)
		if (cursor->files[i]->content->id == content)
			return cursor->files[i];
	return NULL;
}

/* A file with @content, which it takes; NULL: no memory, and @content is gone. */
static struct cursor_file *cursor_add(struct fake_cursor *cursor, struct fake_content *content)
{
	struct cursor_file *file = calloc(1, sizeof(*file));

	if (content == NULL || file == NULL ||
	    !fake_grow(&cursor->files, sizeof(struct cursor_file *), cursor->file_count,
		       &cursor->file_capacity)) {
		fake_content_unref(content);
		free(file);
		return NULL;
	}
	file->content = content;
	cursor->files[cursor->file_count++] = file;
	return file;
}

struct fake_cursor *fake_cursor_start(const struct fake_store *fake)
{
	BASE_CLEANUP(fake_cursor_freep) struct fake_cursor *cursor = calloc(1, sizeof(*cursor));

	if (cursor == NULL)
		return NULL;
	for (uint32_t i = 0; i < fake->names.count; i++) {
		const struct fake_name *name = fake->names.names[i];
		struct cursor_file *file = cursor_add(cursor, fake_content_clone(name->content));

		if (file == NULL || fake_names_set(&cursor->names, name->name, file->content) < 0)
			return NULL;
	}
	return base_take(&cursor);
}

static bool ops_copy(const struct cursor_op *from, size_t count, struct cursor_op **ret_to,
		     size_t *ret_capacity)
{
	if (count == 0)
		return true;
	*ret_to = malloc(count * sizeof(**ret_to));
	if (*ret_to == NULL)
		return false;
	base_assert(from != NULL); /* it holds @count */
	memcpy(*ret_to, from, count * sizeof(**ret_to));
	*ret_capacity = count;
	return true;
}

static bool cursor_file_copy(struct fake_cursor *cursor, const struct cursor_file *from)
{
	struct cursor_file *to = cursor_add(cursor, fake_content_clone(from->content));
	size_t over_count = from->over_count - from->over_first;

	if (to == NULL || !ops_copy(from->over == NULL ? NULL : from->over + from->over_first,
				    over_count, &to->over, &to->over_capacity))
		return false;
	to->over_count = over_count;
	if (!ops_copy(from->begun, from->begun_count, &to->begun, &to->begun_capacity))
		return false;
	to->begun_count = from->begun_count;
	return true;
}

static struct fake_cursor *cursor_copy(const struct fake_cursor *from)
{
	BASE_CLEANUP(fake_cursor_freep) struct fake_cursor *cursor = calloc(1, sizeof(*cursor));

	if (cursor == NULL)
		return NULL;
	cursor->event_count = from->event_count;
	for (size_t i = 0; i < from->file_count; i++)
		if (!cursor_file_copy(cursor, from->files[i]))
			return NULL;
	for (uint32_t i = 0; i < from->names.count; i++) {
		const struct fake_name *name = from->names.names[i];
		const struct cursor_file *file = cursor_find(cursor, name->content->id);

		base_assert(file != NULL);
		if (fake_names_set(&cursor->names, name->name, file->content) < 0)
			return NULL;
	}
	if (from->pending_count > 0) {
		cursor->pending = malloc(from->pending_count * sizeof(*cursor->pending));
		if (cursor->pending == NULL)
			return NULL;
		memcpy(cursor->pending, from->pending,
		       from->pending_count * sizeof(*cursor->pending));
		cursor->pending_count = from->pending_count;
		cursor->pending_capacity = from->pending_count;
	}
	return base_take(&cursor);
}

/* --- one operation --- */

/* The whole of it. */
static int operation_apply(const struct fake_operation *operation, struct fake_content *content)
{
	switch (operation->op) {
	case STORE_WRITE:
		return fake_content_write(content, operation->offset_bytes, operation->data,
					  operation->length_bytes);
	case STORE_ALLOCATE:
		return fake_content_allocate(content, operation->offset_bytes,
					     operation->length_bytes);
	case STORE_PUNCH:
		return fake_content_clear(content, operation->offset_bytes, operation->length_bytes,
					  true);
	case STORE_ZERO:
		return fake_content_clear(content, operation->offset_bytes, operation->length_bytes,
					  false);
	case STORE_TRUNCATE:
		return fake_content_truncate(content, operation->offset_bytes);
	case STORE_OP_INVALID:
	case STORE_READ:
	case STORE_FLUSH:
	case STORE_RANGES:
	case STORE_OPS:
		break;
	}
	return 0;
}

/* Some of its sectors. */
static int operation_tear(const struct fake_operation *operation, struct fake_content *content,
			  uint64_t *random)
{
	uint64_t end_bytes = operation->offset_bytes + operation->length_bytes;
	uint64_t offset_bytes = operation->offset_bytes;
	int code = 0;

	if (operation->op != STORE_WRITE && operation->op != STORE_ZERO &&
	    operation->op != STORE_PUNCH)
		return fake_random(random) % 2 == 0 ? 0 : operation_apply(operation, content);
	while (offset_bytes < end_bytes && code == 0) {
		uint64_t part = FAKE_SECTOR_BYTES - offset_bytes % FAKE_SECTOR_BYTES;

		if (operation->op != STORE_WRITE && part == FAKE_SECTOR_BYTES)
			part = FAKE_UNIT_BYTES - offset_bytes % FAKE_UNIT_BYTES;
		if (part > end_bytes - offset_bytes)
			part = end_bytes - offset_bytes;
		if (fake_random(random) % 2 == 0) {
			if (operation->op == STORE_WRITE)
				code = fake_content_write(
					content, offset_bytes,
					operation->data + (offset_bytes - operation->offset_bytes),
					part);
			else
				code = fake_content_clear(content, offset_bytes, part, false);
		}
		offset_bytes += part;
	}
	return code;
}

/* --- going on --- */

/* Put what is durable, up to the first that is not, into the content. */
static int file_settle(const struct fake_recording *recording, struct cursor_file *file)
{
	while (file->over_first < file->over_count && file->over[file->over_first].durable) {
		uint32_t operation = file->over[file->over_first].operation;

		if (operation_apply(&recording->operations[operation], file->content) < 0)
			return -ENOMEM;
		file->over_first++;
	}
	if (file->over_first == file->over_count) {
		file->over_first = 0;
		file->over_count = 0;
	}
	return 0;
}

static int event_begin(const struct fake_recording *recording, struct cursor_file *file,
		       uint32_t operation)
{
	if (recording->operations[operation].op == STORE_FLUSH)
		return 0;
	if (!fake_grow(&file->begun, sizeof(*file->begun), file->begun_count,
		       &file->begun_capacity))
		return -ENOMEM;
	file->begun[file->begun_count++] = (struct cursor_op){ .operation = operation };
	return 0;
}

static void begun_remove(struct cursor_file *file, uint32_t operation)
{
	size_t at = 0;

	while (at < file->begun_count && file->begun[at].operation != operation)
		at++;
	if (at == file->begun_count)
		return;
	file->begun_count--;
	memmove(file->begun + at, file->begun + at + 1,
		(file->begun_count - at) * sizeof(*file->begun));
}

static int event_end(const struct fake_recording *recording, struct cursor_file *file,
		     uint32_t number)
{
	const struct fake_operation *operation = &recording->operations[number];

	if (operation->op == STORE_FLUSH) {
		if (operation->result < 0)
			return 0;
		for (size_t i = file->over_first; i < file->over_count; i++) {
			uint32_t other = file->over[i].operation;

			if (recording->operations[other].end < operation->begin)
				file->over[i].durable = true;
		}
		return file_settle(recording, file);
	}
	begun_remove(file, number);
	if (!operation->landed)
		return 0;
	if (!fake_grow(&file->over, sizeof(*file->over), file->over_count, &file->over_capacity))
		return -ENOMEM;
	file->over[file->over_count++] = (struct cursor_op){
		.operation = number,
		.durable = operation->fua && operation->result == 0,
	};
	return file_settle(recording, file);
}

static int name_apply(struct fake_cursor *cursor, const struct fake_event *event)
{
	struct cursor_file *file = cursor_find(cursor, event->content);

	if (event->kind == FAKE_EVENT_REMOVE)
		return fake_names_set(&cursor->names, event->from, NULL);
	base_assert(file != NULL);
	if (event->kind == FAKE_EVENT_CREATE)
		return fake_names_set(&cursor->names, event->from, file->content);
	if (fake_names_set(&cursor->names, event->to, file->content) < 0)
		return -ENOMEM;
	if (fake_names_find(&cursor->names, event->from) == file->content)
		return fake_names_set(&cursor->names, event->from, NULL);
	return 0;
}

static bool same_folder(const char *one, const char *other)
{
	size_t length = fake_folder_length(one);

	return length == fake_folder_length(other) && strncmp(one, other, length) == 0;
}

/* The folder of @name is durable: so is what was done to it. */
static int event_sync(const struct fake_recording *recording, struct fake_cursor *cursor,
		      const char *name)
{
	size_t kept = 0;

	for (size_t i = 0; i < cursor->pending_count; i++) {
		struct cursor_name pending = cursor->pending[i];
		const struct fake_event *event = &recording->events[pending.event];

		if (same_folder(event->from, name))
			pending.from_synced = true;
		if (event->to == NULL || same_folder(event->to, name))
			pending.to_synced = true;
		if (!pending.from_synced || !pending.to_synced)
			cursor->pending[kept++] = pending;
		else if (name_apply(cursor, event) < 0)
			return -ENOMEM;
	}
	cursor->pending_count = kept;
	return 0;
}

static int event_name(struct fake_cursor *cursor, const struct fake_event *event)
{
	const struct cursor_file *file;

	if (!fake_grow(&cursor->pending, sizeof(*cursor->pending), cursor->pending_count,
		       &cursor->pending_capacity))
		return -ENOMEM;
	cursor->pending[cursor->pending_count++] =
		(struct cursor_name){ .event = cursor->event_count };
	if (event->kind != FAKE_EVENT_CREATE)
		return 0;
	file = cursor_add(cursor, fake_content_new(event->content));
	if (file == NULL)
		return -ENOMEM;
	return 0;
}

static int cursor_step(const struct fake_recording *recording, struct fake_cursor *cursor)
{
	const struct fake_event *event = &recording->events[cursor->event_count];
	struct cursor_file *file;
	int code = 0;

	switch (event->kind) {
	case FAKE_EVENT_BEGIN:
	case FAKE_EVENT_END:
		file = cursor_find(cursor, event->content);
		if (file == NULL)
			break; /* it had lost its name before the record began */
		code = event->kind == FAKE_EVENT_BEGIN
			       ? event_begin(recording, file, event->operation)
			       : event_end(recording, file, event->operation);
		break;
	case FAKE_EVENT_CREATE:
	case FAKE_EVENT_RENAME:
	case FAKE_EVENT_REMOVE:
		code = event_name(cursor, event);
		break;
	case FAKE_EVENT_SYNC:
		code = event_sync(recording, cursor, event->from);
		break;
	case FAKE_EVENT_INVALID:
	case FAKE_EVENT_KINDS:
		base_bug("event of kind %d", (int)event->kind);
	}
	cursor->event_count++;
	return code;
}

static int snapshot_add(struct fake_recording *recording)
{
	struct fake_cursor *last = recording->snapshots[recording->snapshot_count - 1];
	struct fake_cursor *copy;

	if (recording->cursor->event_count < last->event_count + SNAPSHOT_EVENTS)
		return 0;
	if (!fake_grow(&recording->snapshots, sizeof(struct fake_cursor *),
		       recording->snapshot_count, &recording->snapshot_capacity))
		return -ENOMEM;
	copy = cursor_copy(recording->cursor);
	if (copy == NULL)
		return -ENOMEM;
	recording->snapshots[recording->snapshot_count++] = copy;
	return 0;
}

static int cursor_move(struct fake_recording *recording, uint64_t event_count)
{
	struct fake_cursor *from = recording->snapshots[0];

	for (uint32_t i = 1; i < recording->snapshot_count; i++)
		if (recording->snapshots[i]->event_count <= event_count)
			from = recording->snapshots[i];
	if (recording->cursor == NULL || recording->cursor->event_count > event_count ||
	    recording->cursor->event_count < from->event_count) {
		fake_cursor_free(recording->cursor);
		recording->cursor = cursor_copy(from);
		if (recording->cursor == NULL)
			return -ENOMEM;
	}
	while (recording->cursor->event_count < event_count)
		if (cursor_step(recording, recording->cursor) < 0 || snapshot_add(recording) < 0) {
			/* Half a step is no state: start from a copy next time. */
			fake_cursor_free(base_take(&recording->cursor));
			return -ENOMEM;
		}
	return 0;
}

/* --- the image --- */

/* How much a crash leaves of what is not durable: one in two, few, most. */
static bool is_lost(enum fake_store_loss loss, uint64_t seed, uint64_t *random)
{
	uint64_t draw = fake_random(random) % 8;

	if (loss != FAKE_LOSE_SOME)
		return loss == FAKE_LOSE_ALL;
	if (seed % 3 == 0)
		return draw < 4;
	return seed % 3 == 1 ? draw < 7 : draw < 1;
}

static int op_crash(const struct fake_recording *recording, const struct cursor_file *file,
		    struct cursor_op op, enum fake_store_loss loss, uint64_t seed, uint64_t *random)
{
	const struct fake_operation *operation = &recording->operations[op.operation];

	if (op.durable)
		return operation_apply(operation, file->content);
	if (loss == FAKE_LOSE_SECTORS)
		return operation_tear(operation, file->content, random);
	if (is_lost(loss, seed, random))
		return 0;
	return operation_apply(operation, file->content);
}

static int cursor_crash(const struct fake_recording *recording, struct fake_cursor *cursor,
			enum fake_store_loss loss, uint64_t seed)
{
	uint64_t random = fake_random_seed(seed);
	int code = 0;

	for (size_t i = 0; i < cursor->file_count; i++) {
		const struct cursor_file *file = cursor->files[i];

		for (size_t k = file->over_first; k < file->over_count && code == 0; k++)
			code = op_crash(recording, file, file->over[k], loss, seed, &random);
		for (size_t k = 0; k < file->begun_count && code == 0; k++)
			code = op_crash(recording, file, file->begun[k], loss, seed, &random);
	}
	for (size_t i = 0; i < cursor->pending_count && code == 0; i++) {
		enum fake_store_loss whole = loss == FAKE_LOSE_SECTORS ? FAKE_LOSE_SOME : loss;

		if (!is_lost(whole, seed, &random))
			code = name_apply(cursor, &recording->events[cursor->pending[i].event]);
	}
	return code;
}

int fake_store_crash(const struct store *store, uint64_t event_count, enum fake_store_loss loss,
		     uint64_t seed, struct store **ret_store, struct base_error *err)
{
	const struct fake_store *from = fake_of_const(store);
	struct fake_recording *recording = from->recording;
	BASE_CLEANUP(fake_cursor_freep) struct fake_cursor *cursor = NULL;
	struct fake_store *fake;

	if (loss <= FAKE_LOSS_INVALID || loss >= FAKE_LOSSES)
		return base_fail(err, -EINVAL, "power failure with loss %d", (int)loss);
	if (recording == NULL)
		return base_fail(err, -EPROTO, "power failure: nothing was recorded");
	if (recording->failed)
		return base_fail(err, -ENOMEM, "power failure: the record is not whole");
	if (event_count > recording->event_count)
		return base_fail(err, -EINVAL,
				 "power failure after %" PRIu64 " events, %" PRIu64
				 " were recorded",
				 event_count, recording->event_count);
	if (cursor_move(recording, event_count) < 0)
		return base_fail(err, -ENOMEM, "power failure");
	cursor = cursor_copy(recording->cursor);
	if (cursor == NULL || cursor_crash(recording, cursor, loss, seed) < 0)
		return base_fail(err, -ENOMEM, "power failure");
	fake = fake_store_make();
	if (fake == NULL)
		return base_fail(err, -ENOMEM, "power failure");
	fake->next_id = from->next_id;
	fake->names = cursor->names;
	cursor->names = (struct fake_names){ .count = 0 };
	*ret_store = &fake->store;
	return 0;
}
